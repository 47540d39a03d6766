"""Choosing by name: an unknown name is an error that tells the nearest valid one."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from zsad_lib.errors import ZsadError

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """``table[name]``.

    Raises:
        ZsadError: no such name.

    >>> choose("gate", "silu", {"silu": 1, "film": 2})
    1
    >>> choose("gate", "fulm", {"silu": 1, "film": 2})
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: unknown gate 'fulm'; did you mean 'film'?
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=1, cutoff=0.4)
    raise ZsadError(
        f"unknown {kind} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(table)}")
    )
