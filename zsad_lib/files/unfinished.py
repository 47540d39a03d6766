"""What is being written lies in a folder that its process holds; so what a killed process left is known, and cleared.

A file or folder gets its name when it is complete. Until then it lies in ``.partial-*`` beside its place, and so does
whatever a library writes on its way there. The lock in that folder goes with its process, however that ends: so a
leftover is known as one after a restart too, when other processes have the old numbers, and where two runs, two users
or two machines write side by side, none of them loses what it has begun.
"""

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PARTIAL = ".partial-"  # prefix of what is being written
HELD = ".held"  # the locked file in it


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder in `folder` for what is not complete; it goes at the end, with all that was not moved out of it."""
    _clear_once(folder)
    place, lock = _begin(folder)
    try:
        yield place
    finally:
        lock.close()
        shutil.rmtree(place, ignore_errors=True)


def clear(folder: Path) -> None:
    """Removes every leftover in `folder` and below it: files and folders that nobody holds.

    One that cannot be removed, as another user's, stays where it is and does no harm.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if name.startswith(PARTIAL):
                _clear_leftover(Path(place, name))
        folders[:] = [name for name in folders if not name.startswith(PARTIAL)]


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it, what is read-only too; nothing where there is none."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for place, folders, _ in os.walk(path):  # what is in a folder can be removed where the folder can be written
        for inner in (Path(place, name) for name in folders):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path)


def _begin(folder: Path) -> tuple[Path, IO[str]]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
        try:
            lock = open(place / HELD, "w", encoding="utf-8")
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, FileNotFoundError):
                continue  # taken for a leftover before it was held
            raise
        if _is_free(lock, unknown=True) and (place / HELD).exists():
            return place, lock
        lock.close()


def _clear_leftover(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return path.unlink()
        for place in (path.parent, path):
            if not os.access(place, os.W_OK):
                place.chmod(place.stat().st_mode | 0o700)
        with open(path / HELD if path.is_dir() else path, "a", encoding="utf-8") as lock:
            if not _is_free(lock, unknown=False):
                return
            if sys.platform == "win32":
                lock.close()  # there a file that somebody has open cannot be removed: that is the lock
                (path / HELD).unlink(missing_ok=True)
            remove(path)


@functools.cache
def _clear_once(folder: Path) -> None:
    """Clears what earlier processes left in a folder, which may be the user's: only what has been held before."""
    for lock in folder.glob(f"{PARTIAL}*/{HELD}"):
        _clear_leftover(lock.parent)


def _is_free(file: IO[str], unknown: bool) -> bool:
    """Whether nobody else holds `file`, which from now on is held; `unknown` where the disk knows no locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True
