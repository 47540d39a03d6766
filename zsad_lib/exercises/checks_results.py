"""Checks of the exercises on own video, explanations and tables (notebooks 50 to 60)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from zsad_lib.evaluate import events
from zsad_lib.exercises.answers import judge
from zsad_lib.own_video.explain import lift

# --- 50: your own video ----------------------------------------------------------------------------------------------


def own_threshold(answer: Callable) -> None:
    """`answer(score)` against the library, with and without a loud event."""
    quiet = np.sin(np.arange(101.0)) ** 3 - 2
    event = np.where(np.arange(101) < 20, 50, quiet)

    def threshold(score, middle=np.median, spread=np.median, factor=4 * 1.4826):
        return middle(score) + factor * spread(np.abs(score - middle(score)))

    mistakes = {
        "these are mean and standard deviation, which an event moves; take medians": lambda score: (
            score.mean() + 4 * score.std()
        ),
        "the deviation is a mean of distances; take their median": lambda score: threshold(score, spread=np.mean),
        "the middle is a mean; take the median": lambda score: threshold(score, middle=np.mean),
        "the factor 1.4826 is missing": lambda score: threshold(score, factor=4),
        "the factor 4 is missing": lambda score: threshold(score, factor=1.4826),
        "the median is not added to the deviations": lambda score: threshold(score) - np.median(score),
        "the deviations are taken off the median; the threshold lies above it": lambda score: (
            2 * np.median(score) - threshold(score)
        ),
    }
    cases = [((score,), events.own_threshold(score)) for score in (quiet, event)]
    judge(answer, "threshold of a video", cases, mistakes)


def joined_spans(answer: Callable) -> None:
    """`answer(spans, gap)`: near spans join, far ones stay, and a chain of near ones is one."""

    def joined(spans, near, keep_first=False, longest=False):
        kept = []
        for start, end in spans:
            if kept and near(start, kept[-1]):
                end = kept[-1][1] if keep_first else end
                start = kept.pop()[0]
            kept.append((start, end))
        return kept

    mistakes = {
        "spans exactly a gap apart join; less than the gap is wanted": lambda spans, gap: joined(
            spans, lambda start, last: start - last[1] <= gap
        ),
        "a start is compared with the start of the last span, not with its end": lambda spans, gap: joined(
            spans, lambda start, last: start - last[0] < gap
        ),
        "far spans join, near ones stay": lambda spans, gap: joined(spans, lambda start, last: start - last[1] >= gap),
        "a joined span keeps the end of the first; it takes that of the later one": lambda spans, gap: joined(
            spans, lambda start, last: start - last[1] < gap, keep_first=True
        ),
        "nothing is joined": lambda spans, gap: spans,
    }
    spans = [(0.0, 0.5), (0.9, 2.0), (2.9, 4.0), (5.0, 6.0), (6.5, 6.75), (9.0, 9.5)]
    later = [(3.0, 4.0), (4.5, 5.0)]
    cases = [((spans, 1.0), [(0.0, 4.0), (5.0, 6.75), (9.0, 9.5)]), ((later, 1.0), [(3.0, 5.0)])]
    judge(answer, "joined spans", cases, mistakes)


# --- 51: explanations ------------------------------------------------------------------------------------------------


def attention_rollout(answer: Callable) -> None:
    """`answer(attention)` on three layers that do not commute."""
    layers = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    first, second, third = (layers + torch.eye(4)) / 2

    def rollout(layers, own=1.0, factor=0.5):
        product = torch.eye(layers.shape[-1])
        for layer in layers:
            product = factor * (layer + own * torch.eye(len(layer))) @ product
        return product

    mistakes = {
        "multiplied from the right; a later layer stands left of an earlier one": lambda layers: rollout(
            layers.flip(0)
        ),
        "the identity is missing: each block also hands its input on": lambda layers: rollout(layers, own=0, factor=1),
        "the sum of attention and identity is not halved": lambda layers: rollout(layers, factor=1),
        "this is a mean over the layers, not their product": lambda layers: (
            (layers + torch.eye(layers.shape[-1])) / 2
        ).mean(0),
        "this is one layer alone": lambda layers: rollout(layers[-1:]),
        "rows and columns are exchanged": lambda layers: rollout(layers).T,
    }
    judge(answer, "rollout of three layers", [((layers,), third @ second @ first)], mistakes, tolerance=1e-5)


def lift_on_motion(answer: Callable) -> None:
    """`answer(relevance, motion)` against the library's lift, for a random map, an even one, and where little or
    nothing moves."""
    rng = np.random.default_rng(0)
    relevance, motion = rng.random((2, 4, 5))
    mistakes = {
        "where nothing moves this divides by 0; the lift is 1": lambda r, m: (r * m).sum() / m.sum() / r.mean(),
        "not divided by the plain mean": lambda r, m: (r * m).sum() / m.sum() if m.any() else 1.0,
        "the weights are not divided by their sum": lambda r, m: (r * m).mean() / r.mean() if m.any() else 1.0,
        "where nothing moves the lift is 1, not 0": lambda r, m: (r * m).sum() / m.sum() / r.mean() if m.any() else 0.0,
        "this is the mean where something moves, whatever the motion's size": lambda r, m: (
            r[m > 0].mean() / r.mean() if m.any() else 1.0
        ),
        "upside down: the plain mean over the weighted one": lambda r, m: (
            r.mean() * m.sum() / (r * m).sum() if m.any() else 1.0
        ),
    }
    pairs = (
        (relevance, motion),
        (np.ones((4, 5)), motion),
        (relevance, motion * (motion > 0.5)),
        (relevance, 0 * motion),
    )
    judge(answer, "lift of a map", [(pair, lift(*pair)) for pair in pairs], mistakes)


# --- 60: tables ------------------------------------------------------------------------------------------------------


def cell(answer: Callable) -> None:
    """`answer(value, low, high)` with and without an interval, and below 0."""
    nan = float("nan")
    cases = [
        ((0.9126, 0.89, 0.9304), "0.913 [0.890, 0.930]"),
        ((0.5, nan, nan), "0.500"),
        ((-0.02, -0.051, 0.011), "-0.020 [-0.051, 0.011]"),
    ]
    mistakes = {
        "brackets where the interval is undefined; nan is unlike itself: low == low tells": lambda value, low, high: (
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
        ),
        "the interval is missing": lambda value, low, high: f"{value:.3f}",
        "two digits; three are wanted": lambda value, low, high: (
            f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low == low else "")
        ),
        "zeros at the end are dropped; format with :.3f": lambda value, low, high: (
            f"{round(value, 3)}" + (f" [{round(low, 3)}, {round(high, 3)}]" if low == low else "")
        ),
        "there is no space before the bracket": lambda value, low, high: (
            f"{value:.3f}" + (f"[{low:.3f}, {high:.3f}]" if low == low else "")
        ),
    }
    judge(answer, "cell", cases, mistakes)


def not_worse(answer: Callable) -> None:
    """`answer(rows)` must name each method whose interval reaches the best value, if only just."""
    table = [("a", 0.88, 0.84, 0.95), ("b", 0.9, 0.85, 0.93), ("c", 0.8, 0.7, 0.89), ("d", 0.86, 0.8, 0.9)]
    table.append(("e", 0.5, 0.4, 0.6))
    mistakes = {
        "only the best one is named": lambda rows: list(rows.method[rows.value == rows.value.max()]),
        "intervals that overlap the best one's are named; they must reach its value": lambda rows: list(
            rows.method[rows.high >= rows.low[rows.value.idxmax()]]
        ),
        "an interval that just reaches the best value counts": lambda rows: list(
            rows.method[rows.high > rows.value.max()]
        ),
        "compared with the highest end of an interval, not with the best value": lambda rows: list(
            rows.method[rows.high >= rows.high.max()]
        ),
    }
    rows = pd.DataFrame(table, columns=["method", "value", "low", "high"])
    judge(answer, "methods that are not worse", [((rows,), ["a", "b", "d"])], mistakes)
