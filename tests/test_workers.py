"""Worker processes: the order of results, and their end with the process that asked for them."""

import os
import signal
import subprocess
import sys
import time

from zsad_lib.processes import parallel

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
