"""A run folder belongs to one process and its children at a time."""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from zsad_lib.errors import ZsadError
from zsad_lib.files import paths

LOCK_WAIT_S = 20.0  # an interrupted run's processes are gone by then
_OWNER = "ZSAD_RUN_LOCKED"  # names the run folder that a parent process holds for its children


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder, so that two runs do not write into one; a dead holder's lock is free.

    Raises:
        ZsadError: another live process still holds it after `LOCK_WAIT_S`.
    """
    if os.environ.get(_OWNER) == str(folder):
        yield
        return
    with paths.file_errors(folder / ".lock"):
        file = open(paths.make_folder(folder) / ".lock", "a+", encoding="utf-8")
    with file:
        _take(file, folder)
        with paths.file_errors(folder / ".lock"):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        outer = os.environ.get(_OWNER, "")
        os.environ[_OWNER] = str(folder)
        try:
            yield
        finally:
            os.environ[_OWNER] = outer


def _take(file: TextIO, folder: Path) -> None:
    if sys.platform == "win32":
        return  # without a lock
    import fcntl

    deadline = time.monotonic() + LOCK_WAIT_S
    for attempt in itertools.count():
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            in_use = f"{folder}: in use by process {file.read()}"
            if time.monotonic() > deadline:
                raise ZsadError(f"{in_use}; wait for it or end it") from None
            if attempt == 0:
                print(f"{in_use}; waiting up to {LOCK_WAIT_S:.0f} s for it", file=sys.stderr, flush=True)
        time.sleep(0.2)
