"""Worker processes: the order of results, and their end with the process that asked for them."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from zsad_lib.errors import ZsadError
from zsad_lib.processes import parallel, read_ahead

CALLER = """
import os, threading
from zsad_lib.processes import parallel

def work(name):
    print(os.getpid(), flush=True)
    threading.Event().wait()

list(parallel(work, [("a",), ("b",)], 2))
"""


def test_results_keep_the_order_of_the_tasks():
    assert list(parallel(pow, [(2, 3), (3, 2)], 2)) == [8, 9]
    assert sorted(parallel(pow, [(2, 3), (3, 2)], 2, ordered=False)) == [8, 9]
    assert list(parallel(pow, [(2, 3)], 1)) == [8]


def test_workers_end_with_a_killed_caller():
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
    workers = [int(caller.stdout.readline()) for _ in range(2)]
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    deadline = time.monotonic() + 20
    alive = set(workers)
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if _runs(pid)}
    assert not alive


def _runs(pid: int) -> bool:
    """A process that has ended and waits for its parent to notice counts as ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_read_ahead_comes_in_order_with_its_error():
    done = threading.Event()

    def items():
        try:
            yield from range(5)
            raise ZsadError("five")
        finally:
            done.set()

    found = read_ahead(items(), 2)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZsadError, match="five"):
        next(found)
    before = threading.active_count()
    endless = read_ahead(itertools.count(), 2)
    assert next(endless) == 0 and threading.active_count() == before + 1
    endless.close()
    assert threading.active_count() == before and done.is_set(), "who stops asking stops the thread"


def test_without_a_thread_items_are_made_as_they_are_asked_for(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(read_ahead(iter("ab"))) == ["a", "b"]
