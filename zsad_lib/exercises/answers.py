"""What checks end in: an answer compared with the right one, or a prediction noted; they raise saying what is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def close(yours: Any, expected: Any, what: str, tolerance: float = 1e-6) -> None:
    """Passes where two numbers or arrays agree within `tolerance` (absolute and relative).

    >>> close(0.5, 0.5, "the mean")
    the mean: right
    """
    yours, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x, float) for x in (yours, expected))
    assert yours.shape == expected.shape, f"{what}: shape {yours.shape}, expected {expected.shape}"
    worst = np.abs(yours - expected).max(initial=0.0)
    assert np.allclose(yours, expected, tolerance, tolerance), f"{what}: differs by up to {worst:.3g}"
    print(f"{what}: right")


def ordering(answer: Sequence[str], names: Iterable[str]) -> None:
    """A prediction, best first: it may be wrong, but must name everything once."""
    assert sorted(answer) == sorted(names), f"name each of {', '.join(sorted(names))} once"
    print("prediction: noted")


def families(answer: Mapping[str, str], names: Iterable[str]) -> None:
    """A prediction, component -> family: it may be wrong, but must name a family for each component."""
    valid = ("semantic", "temporal", "contextual")
    assert sorted(answer) == sorted(names), f"name a family for each of {', '.join(sorted(names))}"
    assert set(answer.values()) <= set(valid), f"families are {', '.join(valid)}"
    print("prediction: noted")


def some_of(answer: Sequence[str], names: Iterable[str], count: int) -> None:
    """A prediction: it may be wrong, but must name `count` different ones of `names`."""
    assert len(set(answer)) == len(answer) == count, f"name {count} different rows"
    assert set(answer) <= set(names), f"rows are {', '.join(names)}"
    print("prediction: noted")
