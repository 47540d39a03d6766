"""How work is timed: medians of two ways called in turns."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call, until the device has finished it."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(ours: Callable[[], object], baseline: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, called in turns after one call each to warm up, and baseline / ours."""
    times = [(timed(ours), timed(baseline)) for _ in range(1 + repeats)][1:]
    fast, slow = map(statistics.median, zip(*times))
    return fast, slow, slow / fast


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread while the block lasts, as every command of the kit that computes with the stand-ins."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Row(NamedTuple):
    """One comparison; seconds are medians, `ratio` says how many times faster the kit's way is."""

    measure: str
    ours_s: float
    baseline: str
    baseline_s: float  # NaN where the baseline is missing
    ratio: float
    note: str
    limit_s: float = math.nan  # least seconds of the kit's way on this device, see `matrix_limit`; NaN: not known


def compare(
    measure: str, ours: Callable[[], object], baseline: str, theirs: Callable[[], object], repeats: int, note: str = "",
    limit_s: float = math.nan,
) -> Row:  # fmt: skip
    """Times both ways by `medians`."""
    fast, slow, ratio = medians(ours, theirs, repeats)
    return Row(measure, fast, baseline, slow, ratio, note, limit_s)
