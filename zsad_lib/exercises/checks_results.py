"""Checks of the exercises on own video, explanations and tables (notebooks 50 to 60)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from zsad_lib.evaluate import events
from zsad_lib.exercises.answers import close
from zsad_lib.own_video.explain import lift

# --- 50: your own video ----------------------------------------------------------------------------------------------


def own_threshold(answer: Callable) -> None:
    """`answer(score)` against the library, with and without a loud event."""
    quiet = np.sin(np.arange(101.0))
    for score, what in ((quiet, "a quiet video"), (np.where(np.arange(101) < 20, 50, quiet), "a video with an event")):
        close(answer(score), events.own_threshold(score), f"threshold of {what}")


def joined_spans(answer: Callable) -> None:
    """`answer(spans, gap)`: near spans join, far ones stay, and a chain of near ones is one."""
    spans = [(0.0, 1.0), (1.5, 2.0), (2.9, 4.0), (5.0, 6.0), (9.0, 9.5)]
    close(answer(spans, 1.0), [(0.0, 4.0), (5.0, 6.0), (9.0, 9.5)], "joined spans")


# --- 51: explanations ------------------------------------------------------------------------------------------------


def attention_rollout(answer: Callable) -> None:
    """`answer(attention)` on two layers that do not commute."""
    forward, swap = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    close(answer(torch.stack([forward, swap])), [[0.25, 0.75], [0.25, 0.75]], "rollout of two layers")


def lift_on_motion(answer: Callable) -> None:
    """`answer(relevance, motion)` against the library's lift, and 1 for an even map or where nothing moves."""
    rng = np.random.default_rng(0)
    relevance, motion = rng.random((4, 5)), rng.random((4, 5))
    close(answer(relevance, motion), lift(relevance, motion), "lift of a random map")
    close(answer(np.ones((4, 5)), motion), 1.0, "lift of an even map")
    close(answer(relevance, np.zeros((4, 5))), 1.0, "lift where nothing moves")


# --- 60: tables ------------------------------------------------------------------------------------------------------


def cell(answer: Callable) -> None:
    """`answer(value, low, high)` with and without an interval."""
    nan = float("nan")
    for row, expected in (((0.9126, 0.89, 0.9304), "0.913 [0.890, 0.930]"), ((0.5, nan, nan), "0.500")):
        assert answer(*row) == expected, f"cell: {answer(*row)!r}, expected {expected!r}"
    print("cells: right")


def not_worse(answer: Callable) -> None:
    """`answer(rows)` must name each method whose interval reaches the best value."""
    rows = [("a", 0.9, 0.85, 0.93), ("b", 0.88, 0.84, 0.91), ("c", 0.8, 0.7, 0.89)]
    methods = list(answer(pd.DataFrame(rows, columns=["method", "value", "low", "high"])))
    assert methods == ["a", "b"], f"methods: {methods}, expected ['a', 'b']"
    print("methods that are not worse: right")
