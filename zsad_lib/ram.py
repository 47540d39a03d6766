"""Too little memory in one line: libraries that do not load, threads that do not start, workers that were ended."""

import contextlib
import os
import re
from collections.abc import Iterator

from zsad_lib.errors import ZsadError

NEEDED = 6  # GB of addresses that a command with PyTorch reserves, most of it never used (the CUDA build, measured)
LEAST = 1  # GB below which not even NumPy and SciPy start
_SIGNS = re.compile(
    r"failed to map segment|can(no|')?t allocate memory|can't start new thread|out of memory|unable to allocate"
    r"|bad_?alloc|insufficient (memory|resources)|worker process .* was unexpectedly terminated|no memory",
    re.IGNORECASE,
)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns what ends because memory is short into one line; all else passes.

    Under a limit below `NEEDED` any error but the kit's own counts: half-loaded libraries fail in many ways.

    >>> with told():
    ...     raise MemoryError
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: memory is short (MemoryError): close other programs, or lower JOBS
    """
    limit = limited()
    remedy = f"`ulimit -v` allows this process {limit:.1f} GB; allow {NEEDED}, or unlimited"
    if 0 < limit < LEAST:
        raise ZsadError(f"memory is short: {remedy}")
    try:
        if limit:
            # OpenBLAS takes a buffer per thread when it loads, and where there is no room it waits for ever: let it be
            # the first, with one
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            import scipy.linalg  # noqa: F401
        yield
    except Exception as error:
        if not (sign := _sign(error) or (limit and not isinstance(error, ZsadError) and error)):
            raise
        reason = " ".join(f"{type(sign).__name__}: {sign}".rstrip(": ").split())[:160]
        remedy = remedy if limit else "close other programs, or lower JOBS"
        raise ZsadError(f"memory is short ({reason}): {remedy}") from error


def limited() -> float:
    """GB that this process may reserve, where that is less than `NEEDED`; else 0."""
    limit = reservable()
    return limit if limit < NEEDED else 0.0


def reservable() -> float:
    """GB of addresses that this process may reserve (``ulimit -v``); infinite without a limit."""
    try:
        import resource
    except ImportError:  # Windows knows no such limit
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit / 1e9 if limit >= 0 else float("inf")


def _sign(error: BaseException | None) -> BaseException | None:
    """The first in the chain of causes that speaks of memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (not isinstance(error, ZsadError) and _SIGNS.search(str(error))):
            return error
        error = error.__cause__ or error.__context__
    return None
