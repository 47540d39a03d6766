"""Checks of the exercises on AnomalyCLIP (notebooks 40 to 44)."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from zsad_lib.exercises.answers import judge, like
from zsad_lib.losses import joint_probabilities


def prototype(answer: Callable) -> None:
    """`answer(videos)` must weigh frames, not videos."""
    videos = [torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0, -7.0]])]
    mistakes = {
        "this is the mean of the videos' means; frames count, not videos": lambda videos: torch.stack(
            [one.mean(0) for one in videos]
        ).mean(0),
        "this is a mean over the dimensions of a frame, not over frames": lambda videos: torch.cat(videos).mean(1),
        "this is a sum, not a mean": lambda videos: torch.cat(videos).sum(0),
        "divided by the number of videos, not of frames": lambda videos: torch.cat(videos).sum(0) / len(videos),
    }
    judge(answer, "mean of all frames", [((videos,), [1.0, -1.0])], mistakes)


def class_directions(answer: Callable) -> None:
    """`answer(text, m, normal_id)` with the normal class first, inside and last."""
    text, m = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = m[0]

    def rest(text, normal_id):
        return torch.cat([text[:normal_id], text[normal_id + 1 :]])

    mistakes = {
        "rows have no norm 1": lambda text, m, normal_id: rest(text, normal_id) - m,
        "columns are scaled to norm 1, not rows": lambda text, m, normal_id: F.normalize(
            rest(text, normal_id) - m, dim=0
        ),
        "m is not taken off": lambda text, m, normal_id: F.normalize(rest(text, normal_id), dim=-1),
        "the normal class is still in": lambda text, m, normal_id: F.normalize(text - m, dim=-1),
        "the text of the normal class is taken off, not m": lambda text, m, normal_id: F.normalize(
            rest(text, normal_id) - text[normal_id], dim=-1
        ),
        "scaled to norm 1 before m is taken off, not after": lambda text, m, normal_id: (
            F.normalize(rest(text, normal_id), dim=-1) - m
        ),
        "directions point to m, not from it": lambda text, m, normal_id: F.normalize(m - rest(text, normal_id), dim=-1),
    }
    others = {0: [1, 2, 3], 2: [0, 1, 3], 3: [0, 1, 2]}
    cases = [((text, m, k), (text[rows] - m) / (text[rows] - m).norm(dim=1)[:, None]) for k, rows in others.items()]
    judge(answer, "directions of the abnormal classes", cases, mistakes)


def batch_standardise(answer: Callable) -> None:
    """`answer(raw)` against torch's BatchNorm, on values so small that epsilon counts."""
    raw = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.01 - 1

    def standard(raw, dim=0, correction=0, inside=1e-5, outside=0.0):
        deviation = (raw.var(dim, correction=correction, keepdim=True) + inside).sqrt() + outside
        return (raw - raw.mean(dim, keepdim=True)) / deviation

    mistakes = {
        "the variance divides by M - 1; BatchNorm's divides by M (correction=0)": lambda raw: standard(
            raw, correction=1
        ),
        "epsilon is left out": lambda raw: standard(raw, inside=0),
        "epsilon is added to the deviation; it belongs to the variance": lambda raw: standard(raw, 0, 0, 0, 1e-5),
        "rows are standardised, not columns": lambda raw: standard(raw, dim=1),
        "all columns share one mean and deviation; each has its own": lambda raw: standard(raw, dim=(0, 1)),
        "the mean is not taken off": lambda raw: raw / (raw.var(0, correction=0) + 1e-5).sqrt(),
        "divided by the variance, not by its root": lambda raw: (raw - raw.mean(0)) / (raw.var(0, correction=0) + 1e-5),
    }
    right = torch.nn.BatchNorm1d(3, affine=False).double()(raw)
    judge(answer, "standardised similarities", [((raw,), right)], mistakes)


def top_segments(answer: Callable) -> None:
    """`answer(similarity, k)`, in any order, must rank sums of segments, not single frames."""
    similarity = torch.tensor([[5.0, -5.0], [1.0, 1.0], [2.0, 1.5], [0.0, 0.0], [-9.0, 1.0]])
    mistakes = {
        "segments are ranked by their best frame, not by their sum": lambda similarity, k: (
            similarity.max(1).values.topk(k).indices
        ),
        "these are the lowest segments": lambda similarity, k: similarity.sum(1).topk(k, largest=False).indices,
        "these are the sums, not the numbers of the segments": lambda similarity, k: similarity.sum(1).topk(k).values,
        "frames are ranked, not segments; sum along the second axis": lambda similarity, k: (
            similarity.sum(0).topk(k).indices
        ),
        "the sign of the sums is lost": lambda similarity, k: similarity.sum(1).abs().topk(k).indices,
    }

    def see(function: Callable) -> Callable:
        return lambda similarity, k: np.sort(like(function(similarity, k), np.zeros(k), "top segments"))

    judge(answer, "top segments", [((similarity, 2), [1, 2])], mistakes, see)


def axial_comparisons(answer: Callable) -> None:
    """`answer(n, s)` against counting."""
    mistakes = {
        "this is full attention, where all places meet": lambda n, s: (n * s) ** 2,
        "each axis is counted along one line only": lambda n, s: n**2 + s**2,
        "one axis is missing: the lines of n": lambda n, s: n * s**2,
        "one axis is missing: the lines of s": lambda n, s: s * n**2,
        "the number of lines is wrong: there are s lines of n, and n lines of s": lambda n, s: n**3 + s**3,
    }
    cases = [((3, 2), 2 * 3**2 + 3 * 2**2), ((4, 7), 7 * 4**2 + 4 * 7**2)]
    judge(answer, "compared pairs on a grid", cases, mistakes)


def reversible_inverse(answer: Callable) -> None:
    """`answer(y1, y2, f, g)` must give the inputs back."""
    x1, x2 = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    f, g = torch.sin, torch.cos
    y1 = x1 + f(x2)
    mistakes = {
        "the first stream needs x2, which must be computed before it": lambda y1, y2, f, g: (y1 - f(y2), y2 - g(y1)),
        "the functions are added again; take them off": lambda y1, y2, f, g: (y1 + f(y2 + g(y1)), y2 + g(y1)),
        "f and g are exchanged": lambda y1, y2, f, g: (y1 - g(y2 - f(y1)), y2 - f(y1)),
        "the streams come in the wrong order; x1 comes first": lambda y1, y2, f, g: (y2 - g(y1), y1 - f(y2 - g(y1))),
        "the first stream is worked out first; its f needs x2": lambda y1, y2, f, g: (y1 - f(y2), y2 - g(y1 - f(y2))),
    }
    judge(answer, "input streams", [((y1, x2 + g(y1), f, g), torch.stack([x1, x2]))], mistakes)


def interleaved_passes(answer: Callable) -> None:
    """`answer(length, n, s)` for a long video, for one that fills no whole pass, and for one shorter than the grid."""

    def passes(length: int, n: int, s: int, repeat: bool = True, up: bool = True) -> torch.Tensor:
        count = -(-length // (n * s)) if up else max(1, length // (n * s))
        frames = torch.arange(count * n * s)
        return (frames % length if repeat else frames.clamp_max(length - 1)).view(n, count, s).transpose(0, 1)

    mistakes = {
        "each pass reads one stretch; every pass must span the whole video": lambda length, n, s: (
            torch.arange(-(-length // (n * s)) * n * s) % length
        ).view(-1, n, s),
        "segments and passes are in the wrong order; passes come first": lambda *args: passes(*args).transpose(0, 1),
        "the last frame is repeated; a short video is read round and round": lambda *args: passes(*args, repeat=False),
        "the number of passes is rounded down, and the end is lost": lambda *args: passes(*args, up=False),
        "frames are read one by one in turn; a segment holds s neighbours": lambda length, n, s: (
            (torch.arange(-(-length // (n * s)) * n * s) % length).view(n, s, -1).permute(2, 0, 1)
        ),
    }
    cases = [
        ((8, 2, 2), [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]),
        ((3, 2, 2), [[[0, 1], [2, 0]]]),
        ((7, 3, 2), [[[0, 1], [4, 5], [1, 2]], [[2, 3], [6, 0], [3, 4]]]),
        ((9, 1, 5), [[[0, 1, 2, 3, 4]], [[5, 6, 7, 8, 0]]]),
        ((12, 2, 3), [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]),
    ]
    judge(answer, "passes over the frames", cases, mistakes)


def joint_probability(answer: Callable) -> None:
    """`answer(p, similarity)` against the library, normal last."""
    draw = torch.Generator().manual_seed(0)
    p, similarity = torch.rand(5, generator=draw).double(), torch.randn(5, 3, generator=draw).double()
    mistakes = {
        "the normal column comes first; it is the last": lambda p, similarity: torch.cat(
            [1 - p[:, None], p[:, None] * similarity.softmax(1)], 1
        ),
        "the abnormal columns do not share p": lambda p, similarity: torch.cat(
            [similarity.softmax(1), 1 - p[:, None]], 1
        ),
        "the softmax runs over the frames, not over the classes": lambda p, similarity: torch.cat(
            [p[:, None] * similarity.softmax(0), 1 - p[:, None]], 1
        ),
        "the softmax is missing": lambda p, similarity: torch.cat([p[:, None] * similarity, 1 - p[:, None]], 1),
        "p and 1 - p are exchanged": lambda p, similarity: torch.cat(
            [(1 - p[:, None]) * similarity.softmax(1), p[:, None]], 1
        ),
        "the normal column is missing": lambda p, similarity: p[:, None] * similarity.softmax(1),
        "this is a sigmoid per class, not a softmax over them": lambda p, similarity: torch.cat(
            [p[:, None] * similarity.sigmoid(), 1 - p[:, None]], 1
        ),
    }
    judge(answer, "joint probabilities", [((p, similarity), joint_probabilities(similarity, p, 3))], mistakes)


def smoothness(answer: Callable) -> None:
    """`answer(p)` must not compare the last frame of a video with the first of the next."""
    p = torch.tensor([[0.5, 1.0, 0.25], [0.75, 0.5, 0.5]])
    mistakes = {
        "the end of a video is compared with the start of the next": lambda p: p.flatten().diff().square().sum(),
        "videos are compared with each other, not neighbouring frames": lambda p: p.diff(dim=0).square().sum(),
        "this is a mean, not a sum": lambda p: p.diff(dim=1).square().mean(),
        "differences are not squared": lambda p: p.diff(dim=1).sum(),
        "absolute differences are summed, not their squares": lambda p: p.diff(dim=1).abs().sum(),
        "the squares are summed, not the squared differences": lambda p: p.square().sum(),
        "a root is taken; the sum of squares is wanted": lambda p: p.diff(dim=1).norm(),
    }
    judge(answer, "smoothness within videos", [((p,), 0.5**2 + 0.75**2 + 0.25**2)], mistakes)


def confusion_shares(answer: Callable) -> None:
    """`answer(true, predicted, classes)` with a class that has no frames."""

    def counts(true, predicted, classes):
        pairs = torch.tensor(true) * classes + torch.tensor(predicted)
        return pairs.bincount(minlength=classes**2).view(classes, classes).double()

    mistakes = {
        "rows are the predicted classes; they are the true ones": lambda true, predicted, classes: F.normalize(
            counts(predicted, true, classes), 1, dim=1
        ),
        "shares are those of the predicted classes: columns add up to 1, not rows": lambda *args: F.normalize(
            counts(*args), 1, dim=0
        ),
        "these are counts, not shares": counts,
        "these are shares of all frames, not of each class's": lambda *args: counts(*args) / len(args[0]),
        "a class without frames divides by 0; its row is 0": lambda *args: (
            counts(*args) / counts(*args).sum(1, keepdim=True)
        ),
    }
    cases = [(([0, 0, 0, 0, 1], [0, 1, 1, 1, 1], 3), [[0.25, 0.75, 0], [0, 1, 0], [0, 0, 0]])]
    judge(answer, "shares of the true classes", cases, mistakes)
