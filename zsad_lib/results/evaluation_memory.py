"""What the evaluation of folders will hold in memory, counted before it starts: more than may be taken is refused.

A ROC-AUC with exact ties needs all scores in one order, so the frames of all videos are in memory at once.
"""

import contextlib
from functools import partial
from pathlib import Path

import numpy as np

from zsad_lib import ram
from zsad_lib.errors import ZsadError
from zsad_lib.files.score_files import SUFFIXES
from zsad_lib.files.score_tables import parquet_rows
from zsad_lib.methods.context_aware.memory_plan import machine_bytes

FRAME, SEED = 120, 35  # bytes that a frame takes, and each seed of it (measured, with the floors)
ROW = 360  # bytes of a row, as long as its CSV file is being read (measured)
SHARE = 0.5  # of the machine's memory: other programs have theirs
LIBRARIES = 2.0  # GB of addresses that the libraries reserve, most of it never used (measured)
SMALL = 0.1  # GB that are tried under any limit


def refuse_too_much(scores: Path, labels: Path, normal: Path | None, draws: int) -> None:
    """ZsadError, with the limit, where the files of the folders hold more than may be in memory.

    Args:
        scores, labels: folders of the test videos.
        normal: folder of held-out normal scores, or None.
        draws: bootstrap draws.
    """
    scored, labelled, held_out = ([_size(path) for path in _files(folder)] for folder in (scores, labels, normal))
    videos, seeds = len(scored), max([seeds for _, seeds, _ in scored], default=1)
    frames = sum(n for n, *_ in scored + held_out)
    evaluated = frames * (FRAME + SEED * seeds) + 8 * videos * (videos * (seeds + 3) + 8 * draws)
    longest = max((rows for *_, rows in scored + labelled + held_out), default=0)
    needed = max(evaluated, longest * ROW) / 1e9
    allowed = {
        f"{SHARE:.0%} of this machine's": SHARE * machine_bytes() / 1e9,
        "`ulimit -v`": ram.reservable() - LIBRARIES,
    }
    whose, limit = min(allowed.items(), key=lambda one: one[1])
    if needed > max(limit, SMALL):
        remedy = "leave out videos, or keep every n-th frame of scores and labels"
        remedy = remedy if evaluated > longest * ROW else f"save the file of {longest:,} rows as .npy"
        found = f"{frames:,} frames in {videos} video{'s' * (videos > 1)} need about {needed:.1f} GB of memory"
        raise ZsadError(f"{scores}: {found}, and the limit is {max(limit, 0):.1f} GB ({whose}); {remedy}")


def _files(folder: Path | None) -> list[Path]:
    """Files of numbers; pipes and others that never end are none."""
    files = folder.glob("*") if folder else ()
    return [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]


def _size(path: Path) -> tuple[int, int, int]:
    """Frames, seeds and rows of text of a file; of one that cannot be read none, and reading it will say so."""
    with contextlib.suppress(Exception):  # NumPy raises what Python's parser raises where a header is damaged
        if path.suffix.lower() == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return max(shape), min(shape) if len(shape) > 1 else 1, 0
        if path.suffix.lower() == ".parquet":
            return parquet_rows(path), 1, 0
        with open(path, "rb") as file:
            blocks = iter(partial(file.read, 1 << 20), b"")
            rows = sum(max(block.count(b"\n"), block.count(b"\r")) for block in blocks)
        return rows, 1, rows
    return 0, 1, 0
