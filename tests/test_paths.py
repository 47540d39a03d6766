"""Files are written whole or not at all, and every failed write is one line."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from zsad_lib.errors import ZsadError
from zsad_lib.files import paths


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(f"{paths.PARTIAL}*"))


def test_root_follows_the_environment_at_each_call(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path / "a"))
    assert (paths.runs(), paths.data(), paths.cache()) == tuple(tmp_path / "a" / n for n in ("runs", "data", "cache"))
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path / "b"))
    assert paths.root() == tmp_path / "b"
    monkeypatch.delenv("ZSAD_HOME")
    assert (paths.root() / "zsad_lib" / "errors.py").is_file()


def test_atomic_writes_text_bytes_and_by_path(tmp_path):
    with paths.atomic(tmp_path / "deep" / "a.txt") as handle:
        handle.write("ä")
    with paths.atomic(tmp_path / "b.bin", "wb") as handle:
        handle.write(b"\x00")
    with paths.atomic(tmp_path / "c.npy", mode=None) as temporary:
        assert temporary.name == "c.npy" and temporary.parent.parent == tmp_path
        np.save(temporary, np.arange(3))
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "ä"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00"
    assert np.load(tmp_path / "c.npy").tolist() == [0, 1, 2]
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_files_are_as_readable_as_the_user_makes_files(tmp_path):
    (tmp_path / "usual").touch()
    with paths.atomic(tmp_path / "a.txt") as handle:
        handle.write("a")
    with paths.atomic(tmp_path / "b.safetensors", mode=None) as temporary:
        save_file({"x": np.zeros(1)}, temporary)  # it writes to a hidden file of its own
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1 and modes.pop() & 0o400


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), paths.atomic(target) as handle:
        handle.write("half")
        raise RuntimeError
    assert target.read_text() == "old" and leftovers(tmp_path) == []


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ZsadError, match=r"a\.txt: cannot write \(No space left on device\); free some space"):
        paths.write_json(target, {"a": 1})
    assert target.read_text() == "old" and leftovers(tmp_path) == []


def test_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "runs").write_text("")
    make, write = (
        lambda: paths.make_folder(tmp_path / "runs" / "demo"),
        lambda: paths.write_json(tmp_path / "runs" / "x", 1),
    )
    for broken in (make, write):
        with pytest.raises(ZsadError, match="cannot write"):
            broken()


def test_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError), paths.atomic(tmp_path / "a" / "out.txt"):
        open(tmp_path / "b" / "absent.txt", encoding="utf-8")


def test_json_round_trip_and_errors(tmp_path):
    paths.write_json(tmp_path / "a.json", {"n": np.int64(2), "x": np.float32(0.5), "v": np.arange(2), "p": Path("q")})
    assert paths.read_json(tmp_path / "a.json") == {"n": 2, "x": 0.5, "v": [0, 1], "p": "q"}
    with pytest.raises(TypeError):
        paths.write_json(tmp_path / "b.json", {"f": print})
    assert not (tmp_path / "b.json").exists()
    with pytest.raises(ZsadError, match="absent.json: no such file"):
        paths.read_json(tmp_path / "absent.json")
    (tmp_path / "c.json").write_text(json.dumps([1])[:-1])
    with pytest.raises(ZsadError, match="c.json: not readable"):
        paths.read_json(tmp_path / "c.json")
