"""Spans of abnormal frames as text, "3-9;20-31", first and last frame included, from 0 on.

Notebook: 01_prepare_data
"""

import re
from collections.abc import Iterable

import numpy as np

from zsad_lib.errors import ZsadError

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


def labels_to_spans(labels: np.ndarray) -> str:
    """Spans of the nonzero runs in frame labels [T].

    >>> labels_to_spans(np.array([0, 1, 1, 0, 1]))
    '1-2;4-4'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(labels) != 0, [0]]).astype(int)))
    return format_spans((int(first), int(end) - 1) for first, end in edges.reshape(-1, 2))
