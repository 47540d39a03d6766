"""Checks of the notebooks' exercises: each prints that an answer is right, or raises saying what is not."""

from typing import Any


def close(yours: Any, expected: Any, what: str, tolerance: float = 1e-6) -> None:
    """Passes where two numbers or arrays agree within `tolerance` (absolute and relative).

    >>> close(0.5, 0.5, "the mean")
    the mean: right
    """
    import numpy as np

    yours, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x, float) for x in (yours, expected))
    assert yours.shape == expected.shape, f"{what}: shape {yours.shape}, expected {expected.shape}"
    worst = np.abs(yours - expected).max(initial=0.0)
    assert np.allclose(yours, expected, tolerance, tolerance), f"{what}: differs by up to {worst:.3g}"
    print(f"{what}: right")
