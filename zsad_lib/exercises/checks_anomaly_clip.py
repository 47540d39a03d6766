"""Checks of the exercises on AnomalyCLIP (notebooks 40 to 44)."""

from collections.abc import Callable

import torch

from zsad_lib.exercises.answers import close
from zsad_lib.losses import joint_probabilities


def prototype(answer: Callable) -> None:
    """`answer(videos)` must weigh frames, not videos."""
    close(answer([torch.zeros(3, 2), torch.ones(1, 2)]), [0.25, 0.25], "mean of all frames")


def class_directions(answer: Callable) -> None:
    """`answer(text, m, normal_id)` with the normal class in the middle."""
    text, m = torch.tensor([[4.0, 1.0], [9.0, 9.0], [1.0, 5.0]]), torch.tensor([1.0, 1.0])
    close(answer(text, m, 1), [[1.0, 0.0], [0.0, 1.0]], "directions of the abnormal classes")


def batch_standardise(answer: Callable) -> None:
    """`answer(raw)` against torch's BatchNorm."""
    raw = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    close(answer(raw), torch.nn.BatchNorm1d(3, affine=False)(raw), "standardised similarities", 1e-5)


def top_segments(answer: Callable) -> None:
    """`answer(similarity, k)` must rank sums of segments, not single frames."""
    similarity = torch.tensor([[5.0, -5.0], [1.0, 1.0], [2.0, 1.5], [0.0, 0.0]])
    assert sorted(answer(similarity, 2).tolist()) == [1, 2], "the top two segments are 1 and 2"
    print("top segments: right")


def axial_comparisons(answer: Callable) -> None:
    """`answer(n, s)` against counting."""
    close(answer(3, 2), 2 * 3**2 + 3 * 2**2, "compared pairs on a 3 x 2 grid")


def reversible_inverse(answer: Callable) -> None:
    """`answer(y1, y2, f, g)` must give the inputs back."""
    x1, x2 = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    f, g = torch.sin, torch.cos
    y1 = x1 + f(x2)
    for name, yours, expected in zip(("first", "second"), answer(y1, x2 + g(y1), f, g), (x1, x2)):
        close(yours, expected, f"{name} input stream")


def interleaved_passes(answer: Callable) -> None:
    """`answer(length, n, s)` for a long video and for one shorter than the grid."""
    close(answer(8, 2, 2), [[[0, 1], [4, 5]], [[2, 3], [6, 7]]], "passes over 8 frames")
    close(answer(3, 2, 2), [[[0, 1], [2, 0]]], "a short video, read round and round")


def joint_probability(answer: Callable) -> None:
    """`answer(p, similarity)` against the library, normal last."""
    draw = torch.Generator().manual_seed(0)
    p, similarity = torch.rand(5, generator=draw), torch.randn(5, 3, generator=draw)
    close(answer(p, similarity), joint_probabilities(similarity, p, 3), "joint probabilities")


def smoothness(answer: Callable) -> None:
    """`answer(p)` must not compare the last frame of a video with the first of the next."""
    close(answer(torch.tensor([[0.0, 1.0], [0.0, 0.5]])), 1.25, "smoothness within videos")


def confusion_shares(answer: Callable) -> None:
    """`answer(true, predicted, classes)` with a class that has no frames."""
    close(answer([0, 0, 1], [0, 1, 1], 3), [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]], "shares of true classes")
