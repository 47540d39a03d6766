"""Spans of abnormal frames as text, "3-9;20-31", first and last frame included, from 0 on.

Notebook: 01_prepare_data
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.files.csv_columns import index_of, read_columns

NO_SPAN = (-1, -1)


def parse_spans(text: str) -> list[tuple[int, int]]:
    """Spans of frame numbers, both ends inclusive.

    >>> parse_spans("12-35;50-60")
    [(12, 35), (50, 60)]
    """
    spans = []
    for part in filter(None, text.split(";")):
        match = re.fullmatch(r"(\d+)-(\d+)", part.strip())
        if not match or int(match[1]) > int(match[2]):
            raise ZsadError(f"span {part!r} is not readable; write first-last with first <= last, as 12-35;50-60")
        spans.append((int(match[1]), int(match[2])))
    return spans


def format_spans(spans: Iterable[tuple[int, int]]) -> str:
    """The inverse of `parse_spans`."""
    return ";".join(f"{first}-{last}" for first, last in spans)


def read_spans(path: str | Path) -> str | None:
    """Spans of a CSV file with a span per row, in columns `first_frame` and `last_frame`; None where it has no such.

    Raises:
        ZsadError: see `read_columns`; a span that is reversed or holds no numbers of frames, as file:line.
    """

    def pick(place: str, heading: list[str], first: list[str]) -> dict[str, int]:
        names = ("first_frame", "last_frame") if "first_frame" in heading else ()
        return {name: index_of(place, heading, name) for name in names}

    columns = read_columns(path, "first_frame", pick)
    if "first_frame" not in columns.heading:
        return None
    if not columns.lines:
        return ""
    spans = np.column_stack([columns.frames("first_frame"), columns.frames("last_frame")])
    for row in np.flatnonzero(spans[:, 0] > spans[:, 1])[:1]:
        raise ZsadError(f"{columns.place(row)}: span {spans[row, 0]}-{spans[row, 1]} is reversed; write first <= last")
    return format_spans(spans)


def labels_to_spans(labels: np.ndarray) -> str:
    """Spans of the nonzero runs in frame labels [T].

    >>> labels_to_spans(np.array([0, 1, 1, 0, 1]))
    '1-2;4-4'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(labels) != 0, [0]]).astype(int)))
    return format_spans((int(first), int(end) - 1) for first, end in edges.reshape(-1, 2))
