"""`make lock` and `make lock-check`: what changed, what the index took back, what a library is about to give up."""

import json
import re
from pathlib import Path

import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.maintenance import lock

HERE = """a==1 \\
    --hash=sha256:00 \\
    --hash=sha256:01
b[x]==2 ; os_name == 'nt' \\
    --hash=sha256:02
c==3 \\
    --hash=sha256:03
"""


@pytest.fixture
def index(monkeypatch, tmp_path):
    """An index that serves `pins`, has yanked b and lacks the packages in `gone`; the kit lies in a folder of its
    own."""

    class Index:
        pins, gone, yanked = HERE, [], True

    def uv(*words):
        asked, answer = Path(words[2]).read_text(encoding="utf-8"), Path(words[words.index("--output-file") + 1])
        for name in Index.gone:
            if f"\n{name}==" in "\n" + asked:
                raise ZsadError(
                    f"uv pip compile: Because there is no version of {name}==3 and you require {name}==3, we"
                )
        blocks = re.findall(r"^\S.*(?:\n .*)*", Index.pins, re.MULTILINE)
        answer.write_text("\n".join(block for block in blocks if block.partition("==")[0] in asked), encoding="utf-8")
        return 'warning: `b==2` is yanked (reason: "broken")' if Index.yanked else ""

    monkeypatch.setattr(lock, "uv", uv)
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    return Index


def test_pins_that_are_yanked_gone_or_changed_are_told(index):
    pinned = lock.pins(HERE)
    assert lock.pins_today(pinned) == ['b==2: yanked ("broken"); raise its bound in pyproject.toml, then `make lock`']
    index.yanked, index.pins = False, HERE.replace("sha256:01", "sha256:09")
    assert lock.pins_today(pinned) == ["a: 1 of 2 locked files are no longer served; `make lock`"]
    index.pins, index.gone = HERE, ["c", "a"]
    assert [line.partition(":")[0] for line in lock.pins_today(pinned)] == ["c", "a"]
    index.gone = []
    assert lock.pins_today(pinned) == []


def test_an_answer_that_is_not_understood_is_passed_on(index):
    index.gone = ["zzz"]
    with pytest.raises(ZsadError, match="no version of zzz"):
        lock.pins_today({**lock.pins(HERE), "other": {"zzz==3": ("3", set())}})


def test_differences_name_both_versions():
    after = lock.pins(HERE.replace("a==1", "a==1.1").replace("c==3", "d==4"))
    assert lock.differences(lock.pins(HERE), after) == ["a: 1 -> 1.1", "c: 3 -> -", "d: - -> 4"]


def test_check_fails_where_a_pin_or_the_newest_versions_do(monkeypatch, capsys):
    monkeypatch.setattr(lock, "pins_today", lambda pinned: ["b==2: yanked"])
    monkeypatch.setattr(lock, "try_newest", lambda pinned: "newest versions: pass, smoke ran")
    assert main(["lock-check"]) == 1 and "b==2: yanked\nnewest versions: pass" in capsys.readouterr().out
    monkeypatch.setattr(lock, "pins_today", lambda pinned: [])
    assert main(["lock-check"]) == 0 and "none yanked" in capsys.readouterr().out
    monkeypatch.setattr(lock, "try_newest", lambda pinned: "newest versions: FAIL, status 2")
    assert main(["lock-check"]) == 1


def test_warnings_that_notebooks_printed_are_found(tmp_path):
    folder = tmp_path / "runs" / "smoke" / "notebooks"
    folder.mkdir(parents=True)
    outputs = [{"name": "stderr", "text": ["/tmp/1.py:1: FutureWarning: goes away\n", "  z.f()\n"]}]
    (folder / "01_a.ipynb").write_text(json.dumps({"cells": [{"outputs": outputs}]}), encoding="utf-8")
    assert lock.deprecations(tmp_path) == ["01_a.ipynb: /tmp/1.py:1: FutureWarning: goes away\\n"]


def test_without_uv_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(lock.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ZsadError, match="no uv here; `make env`"):
        lock.uv("pip", "list")
