"""How long work takes, told while it runs: lines on a terminal, a live bar where somebody sits before the notebook."""

import builtins
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

PROGRESS_S = 5.0  # seconds between two lines of progress
T = TypeVar("T")


def told(items: Iterable[T], done: Callable[[int], float], what: str) -> Iterator[T]:
    """Passes items on, and tells every `PROGRESS_S` seconds on standard error how many have passed and what time is left.

    Args:
        items: of any number.
        done: share of the work, 0..1, that is done with so many items; 0 where nobody knows.
        what: word for the line, as "frames scored".
    """
    began = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > PROGRESS_S:
            last, share = now, done(count)
            left = f", about {(now - began) * (1 / share - 1):.0f} s left" if 0 < share <= 1 else ""
            print(f"  {count:,} {what}{left}", file=sys.stderr, flush=True)


def progress(iterable: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Passes `iterable` through: a live bar in JupyterLab, elsewhere one plain line at the start and one at the end."""
    if is_live():
        from tqdm.notebook import tqdm

        yield from tqdm(iterable, desc=label, total=total)
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    print(f"{label}: started" + (f", {total} items" if total is not None else ""), flush=True)
    start = time.monotonic()
    yield from iterable
    print(f"{label}: done in {time.monotonic() - start:.1f} s", flush=True)


def is_live() -> bool:
    """Whether somebody sits before the notebook: a kernel that neither this kit's runs nor nbval have started."""
    return notebook_kernel() is not None and not ("ZSAD_NOTEBOOK" in os.environ or "PYTEST_VERSION" in os.environ)


def notebook_kernel() -> Any:
    """The notebook kernel this runs in, or None."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)
