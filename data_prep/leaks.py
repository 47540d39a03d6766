"""The leak guard: nobody trains on the test list, and the lists that made a number are named by their hash.

UCA's training part holds 214 of UCF-Crime's 290 official test videos, the zero-shot paper's released list 128 of its
150 normal
ones: an AUC on the official test list after training on either says nothing.
"""

import hashlib
from collections.abc import Iterable

import pandas as pd

from zsad_lib.errors import ZsadError


def check_no_leak(train: Iterable[str], test: Iterable[str], listed: str = "the training list") -> None:
    """Refuses to train on videos of the test list; every step that trains calls it.

    Raises:
        ZsadError: with the number of shared videos and all their names.

    >>> check_no_leak(["a", "b", "b"], ["b", "c"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: 1 of the 2 test videos are in the training list: train on ... (b)
    """
    test = set(test)
    if shared := sorted(test & set(train)):
        raise ZsadError(
            f"{len(shared)} of the {len(test)} test videos are in {listed}: train on a list without them, as"
            f" SPLIT=clean ({', '.join(shared)})"
        )


def split_hash(table: pd.DataFrame) -> str:
    """sha256 over the sorted lines "list video": the same lists give the same hash, wherever the files lie."""
    text = "\n".join(sorted(f"{row.split} {row.video}" for row in table.itertuples()))
    return hashlib.sha256(text.encode()).hexdigest()
