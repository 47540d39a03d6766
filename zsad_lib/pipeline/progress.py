"""How far work is, said while it runs: lines on a terminal, a bar where somebody sits before the notebook."""

import builtins
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

PROGRESS_S = 5.0  # seconds between two lines of progress
T = TypeVar("T")


def report_progress(
    items: Iterable[T],
    what: str,
    total: int | None = None,
    size: int = 1,
    *,
    share: Callable[[int], float] | None = None,
    name: Callable[[T], str] | None = None,
) -> Iterator[T]:
    """Passes items on, and prints every `PROGRESS_S` seconds on standard error how many are done and what time is left.

    Args:
        items: of any number.
        what: word for the line, as "frames scored".
        total: how much there is to do, where that is known.
        size: how much an item does of it; the last one does the rest.
        share: share of the work, 0..1, done with so many items, where `total` does not say it; 0 where nobody knows.
        name: what an item is called; each then has a line of its own.

    >>> list(report_progress("ab", "letters", 2))
    ['a', 'b']
    """
    began = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if name or now - last > PROGRESS_S:
            last, done = now, count * size if total is None else min(count * size, total)
            part = share(count) if share else done / total if total else 0.0
            of, called = f" of {total:,}" if total else "", f": {name(item)}" if name else ""
            left = f", about {(now - began) * (1 / part - 1):.0f} s left" if 0 < part <= 1 else ""
            print(f"  {done:,}{of} {what}{called}{left}", file=sys.stderr, flush=True)


def progress(iterable: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """For notebooks: passes `iterable` through, with a bar in JupyterLab, elsewhere a line at both ends."""
    if is_interactive():
        from tqdm.notebook import tqdm

        yield from tqdm(iterable, desc=label, total=total)
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    print(f"{label}: started" + (f", {total} items" if total is not None else ""), flush=True)
    start = time.monotonic()
    yield from iterable
    print(f"{label}: done in {time.monotonic() - start:.1f} s", flush=True)


def is_interactive() -> bool:
    """Whether somebody sits before the notebook: a kernel that neither this kit's runs nor nbval have started."""
    return notebook_kernel() is not None and not ("ZSAD_NOTEBOOK" in os.environ or "PYTEST_VERSION" in os.environ)


def notebook_kernel() -> Any:
    """The notebook kernel this runs in, or None."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)
