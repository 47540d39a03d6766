"""What is being written is held; what nobody holds any more is cleared by whoever comes next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zsad_lib.errors import ZsadError
from zsad_lib.files import unfinished
from zsad_lib.files.paths import PARTIAL, atomic, write_text
from zsad_lib.files.unfinished import clear, remove, scratch

WRITER = """
import sys, time
from zsad_lib.files.paths import atomic
with atomic(sys.argv[1]) as handle:
    handle.write("half")
    handle.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has begun to write `a.txt`."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "a.txt")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.communicate()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PARTIAL}*"))


def test_what_a_running_process_writes_stays(writer, tmp_path):
    clear(tmp_path)
    unfinished._clear_once.cache_clear()
    write_text(tmp_path / "b.txt", "whole")
    assert len(leftovers(tmp_path)) == 1 and (leftovers(tmp_path)[0] / "a.txt").read_text() == "half"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert leftovers(tmp_path) and not (tmp_path / "a.txt").exists()
    clear(tmp_path)
    assert leftovers(tmp_path) == [] and (tmp_path / "b.txt").read_text() == "whole"


def test_the_next_writer_of_a_folder_clears_it_and_leaves_what_is_not_ours(writer, tmp_path):
    """Beside a video of the user's nothing else tells what an interrupted `score` has left there."""
    (tmp_path / f"{PARTIAL}notes").write_text("the user's")
    writer.kill()
    writer.wait()
    unfinished._clear_once.cache_clear()
    write_text(tmp_path / "b.txt", "whole")
    assert [path.name for path in leftovers(tmp_path)] == [f"{PARTIAL}notes"]


def test_a_folder_cleared_before_it_was_held_is_made_again(tmp_path, monkeypatch):
    real, made = unfinished.tempfile.mkdtemp, []

    def cleared_at_once(**words):
        made.append(real(**words))
        if len(made) == 1:
            clear(tmp_path)
        return made[-1]

    monkeypatch.setattr(unfinished.tempfile, "mkdtemp", cleared_at_once)
    with scratch(tmp_path) as place:
        assert len(made) == 2 and place == Path(made[1]) and place.is_dir()
    assert leftovers(tmp_path) == []


def test_a_disk_without_locks_can_be_written_and_is_not_cleared(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(file, kind):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with atomic(tmp_path / "a.txt") as handle:
        clear(tmp_path)  # as another process would
        handle.write("whole")
    assert (tmp_path / "a.txt").read_text() == "whole" and leftovers(tmp_path) == []


def test_what_cannot_be_removed_stops_nobody(tmp_path, monkeypatch):
    (tmp_path / f"{PARTIAL}other").mkdir()

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(unfinished.shutil, "rmtree", refused)
    clear(tmp_path)
    assert len(leftovers(tmp_path)) == 1


def test_remove_takes_what_is_read_only_and_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    inner = tmp_path / "tree" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    (inner / "link").symlink_to(outside)
    os.chmod(inner, 0o500)
    os.chmod(inner.parent, 0o500)
    remove(tmp_path / "tree")
    remove(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"] and (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 != 0o500


def test_a_read_only_folder_is_one_line(tmp_path, monkeypatch):
    def refused(**words):
        raise PermissionError(13, "Permission denied", str(tmp_path / f"{PARTIAL}x"))

    monkeypatch.setattr(unfinished.tempfile, "mkdtemp", refused)
    with pytest.raises(ZsadError, match=r"a\.txt: cannot write \(Permission denied\); choose another name"):
        write_text(tmp_path / "a.txt", "")
