"""The same tests are collected on any day, in any time zone and language, whatever order a disk lists its files in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
HERE = {"PYTHONHASHSEED": "1", "TZ": "UTC", "LANG": "C.UTF-8"}
ELSEWHERE = {"PYTHONHASHSEED": "2", "TZ": "Pacific/Kiritimati", "ZSAD_OTHER_DAY": "1"}
PLAIN = str(TESTS).isascii()  # Python imports no compiled module from a path that its own encoding cannot spell
if PLAIN:
    ELSEWHERE |= {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII
TOY = """
import io, os, random, time, zipfile
from pathlib import Path
import pytest

def archive():
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        file.writestr("a", "b")
    return buffer.getvalue()

"""
FICKLE = {
    "clock": "time.time()",
    "zone": "time.localtime().tm_hour",
    "archive": "archive()",
    "chance": "random.random()",
    "folder": "os.listdir(Path(__file__).parent / 'data')",
    "hash": "list({'a', 'b', 'c', 'd', 'e', 'f'})",
    "language": "open(__file__).encoding",
}


def collect(*places: Path, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Test -> hash of its parameters, collected here and elsewhere at the same time."""
    processes = []
    for name, settings in (("here", HERE), ("elsewhere", ELSEWHERE)):
        environment = {
            k: v for k, v in os.environ.items() if k not in ("LC_ALL", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        }
        environment |= settings | {"ZSAD_COLLECTED": str(folder / name), "PYTHONPATH": str(TESTS)}
        options = ["-p", "other_day", "-p", "no:cacheprovider", "--collect-only", "-q", "--rootdir", str(TESTS.parent)]
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    *options,
                    "-c",
                    str(TESTS.parent / "pyproject.toml"),
                    *map(str, places),
                ],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    for process in processes:
        output = process.communicate()[0].decode(errors="replace")
        assert process.returncode == 0, output[-2000:]
    return tuple(json.loads((folder / name).read_text(encoding="utf-8")) for name in ("here", "elsewhere"))


@pytest.mark.slow
def test_a_test_is_the_same_on_another_day_and_its_name_is_words(tmp_path):
    here, elsewhere = collect(TESTS, folder=tmp_path)
    assert len(here) > 1000
    assert list(here) == list(elsewhere), "the same names in the same order"
    assert {name for name in here if here[name] != elsewhere[name]} == set(), "the same parameters"
    words = {name.partition("[")[2].removesuffix("]") for name in here}
    assert [word for word in sorted(words) if not re.fullmatch(r"[\w.+-]{0,90}", word, re.ASCII)] == []


def test_what_depends_on_the_day_is_noticed_behind_the_same_name(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / name).touch()
    one = '@pytest.mark.parametrize("value", [{}], ids=["word"])\ndef test_{}(value): pass\n'
    tests = [one.format(value, name) for name, value in {**FICKLE, "steady": "b'a'"}.items()]
    (tmp_path / "test_toy.py").write_text(TOY + "\n".join(tests), encoding="utf-8")
    here, elsewhere = collect(tmp_path / "test_toy.py", folder=tmp_path)
    assert list(here) == list(elsewhere)
    differ = {name for name in here if here[name] != elsewhere[name]}
    assert {name.partition("::test_")[2].partition("[")[0] for name in differ} == set(FICKLE) - (
        set() if PLAIN else {"language"}
    )
