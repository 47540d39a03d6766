"""Pieces of a run, steps and notebooks, in a few processes: each starts as soon as what it needs is there.

Two steps of which neither needs the other share the cores, so none of these waits while another step's last worker is
still at it, or while a step has only one.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TextIO

from zsad_lib.errors import ZsadError
from zsad_lib.processes import die_with_parent


class Piece(NamedTuple):
    """What one process does at a time."""

    name: str
    needs: tuple[str, ...]  # names of pieces that come first; what is no piece of this run is there
    work: Callable[..., Any]  # of a module
    arguments: tuple


def run_pieces(pieces: Sequence[Piece], places: int) -> Iterator[tuple[Piece, Any]]:
    """Each piece with what its work returned, as it ends.

    Args:
        pieces: of those that can start, the first one does; none may need a later one.
        places: processes, and so the pieces at work at a time; one piece's workers are not counted.

    Raises:
        ZsadError: a process was ended from outside.
        BaseException: what a piece raised, or Ctrl-C; the others are ended.
    """
    waiting, running = list(pieces), {}
    with ProcessPoolExecutor(places, multiprocessing.get_context("spawn"), _begin) as pool:
        wait([pool.submit(int) for _ in range(places)])  # Python does not see one end that began after the last result
        try:
            while waiting or running:
                unmade = {piece.name for piece in (*waiting, *running.values())}
                ready = [piece for piece in waiting if unmade.isdisjoint(piece.needs)]
                for piece in ready[: places - len(running)]:
                    waiting.remove(piece)
                    future: Future = pool.submit(piece.work, *piece.arguments)
                    running[future] = piece
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    piece = running.pop(future)
                    yield piece, future.result()
        except BrokenProcessPool:
            at_work = " or ".join([piece.name, *(other.name for other in running.values())])
            raise ZsadError(
                f"{at_work}: a process was ended; where nobody did that, memory ran out: close other programs and run "
                "again, it resumes"
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


class Named:
    """A stream whose indented lines, those that tell how far work is, say whose work it is."""

    def __init__(self, stream: TextIO, name: str):
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        return self._stream.write(f"  {self._name}: {text[2:]}" if text.startswith("  ") else text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _begin() -> None:
    die_with_parent()
    for sign in (signal.SIGINT, signal.SIGTERM):  # ends at once: whoever asked for the pieces says that they were
        signal.signal(sign, signal.SIG_DFL)
