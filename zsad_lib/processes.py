"""Worker processes that end with the process that asked for them, so that a run started again finds nobody writing.

Or, under a launcher (torchrun, accelerate), the processes that train together: who is one of how many.
"""

import functools
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from zsad_lib.errors import ZsadError

T = TypeVar("T")


def together() -> int:
    """Processes that a launcher has started for one training; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def use_one_thread() -> None:
    """The stand-ins are so small that threads wait for each other longer than they compute."""
    import torch

    torch.set_num_threads(1)


def use_all_threads() -> None:
    """The published networks are large enough for all cores; ``OMP_NUM_THREADS`` says otherwise."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))


def read_ahead(items: Iterator[T], count: int = 64) -> Iterator[T]:
    """Passes items on that a thread of its own makes, up to `count` of them ahead: decoders do not hold Python's lock.

    What making them raises is raised here. Where no thread can be had, they are made as they are asked for.
    """
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    stop = threading.Event()

    def offer(entry: tuple[bool, Any]) -> None:
        while not stop.is_set():
            try:
                return made.put(entry, timeout=0.5)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                offer((True, item))
                if stop.is_set():
                    return
            offer((False, None))
        except BaseException as error:  # told where the items are used
            offer((False, error))

    thread = threading.Thread(target=make, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # out of memory for its stack
        yield from items
        return
    try:
        while True:
            is_item, found = made.get()
            if not is_item:
                break
            yield found
    finally:
        stop.set()
        thread.join()
    if found is not None:
        raise found


def read_shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n": this machine takes every n-th piece of the work from the i-th on.

    Raises:
        ZsadError: not of this form, or i is not below n.

    >>> read_shard("1/4")
    (1, 4)
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ZsadError(f"shard {text!r}: give i/n with i from 0 to n - 1, as 0/4 for the first of four machines")
    return int(number), int(count)


def parallel(
    function: Callable, tasks: Iterable[tuple], jobs: int | None = None, ordered: bool = True
) -> Iterator[Any]:
    """function(*task) of every task, in `jobs` processes; results come as soon as they are there.

    Args:
        function: of a module, or anything that cloudpickle takes.
        tasks: argument tuples.
        jobs: processes; None: as `joblib.parallel_config` says, which may also name a cluster.
        ordered: results in the order of the tasks; else in the order in which they end.
    """
    from joblib import Parallel, delayed

    warnings.filterwarnings("ignore", message="A worker stopped")  # a grown worker was replaced: nothing lost
    runs = Parallel(jobs, return_as="generator" if ordered else "generator_unordered")
    return runs(delayed(_guarded)(os.getpid(), function, task) for task in tasks)


def _guarded(parent: int, function: Callable, task: tuple) -> Any:
    if os.getpid() != parent:
        die_with_parent()
    return function(*task)


@functools.cache
def die_with_parent() -> None:
    """Ends this process, from a thread of its own, as soon as its parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
