"""Checks of the exercises on data and components (notebooks 00 to 13)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from zsad_lib.exercises.answers import judge
from zsad_lib.losses import cpc_loss, info_nce
from zsad_lib.methods.context_aware.scores import error_map
from zsad_lib.models.dpc import DPCOutput
from zsad_lib.models.gates import ContextGate

# --- 00, 01: windows, frames, labels ---------------------------------------------------------------------------------


def window_starts(answer: Callable) -> None:
    """`answer(n_frames, length, stride)` against whole, partial and too short videos."""
    cases = [((48, 30, 5), [0, 5, 10, 15]), ((34, 30, 5), [0]), ((35, 30, 5), [0, 5]), ((12, 30, 1), [0])]
    mistakes = {
        "windows are counted that end after the video": lambda n, length, stride: range(0, n, stride),
        "the last whole window is missing; range leaves out its end": lambda n, length, stride: range(
            0, max(1, n - length), stride
        ),
        "a video shorter than a window has one window": lambda n, length, stride: range(0, n - length + 1, stride),
        "the stride is left out": lambda n, length, stride: range(max(1, n - length + 1)),
        "windows do not overlap; the step is the stride, not the length": lambda n, length, stride: range(
            0, max(1, n - length + 1), length
        ),
    }
    judge(answer, "starts of windows", cases, mistakes)


def standardise(answer: Callable) -> None:
    """`answer(scores, normal)` must use the normal scores' statistics alone."""
    mistakes = {
        "mean and deviation are the scores' own, not those of the normal ones": lambda scores, normal: (
            (scores - scores.mean()) / scores.std(correction=0)
        ),
        "mean and deviation are the scores' own, and the deviation divides by n - 1": lambda scores, normal: (
            (scores - scores.mean()) / scores.std()
        ),
        "the deviation divides by n - 1, not by n (correction=0)": lambda scores, normal: (
            (scores - normal.mean()) / normal.std()
        ),
        "divided by the variance, not by its root": lambda scores, normal: (
            (scores - normal.mean()) / normal.var(correction=0)
        ),
        "the mean is not taken off": lambda scores, normal: scores / normal.std(correction=0),
        "not divided by the deviation": lambda scores, normal: scores - normal.mean(),
    }
    scores, normal = torch.tensor([3.0, 7.0, -5.0]), torch.tensor([-1.0, -5.0])
    judge(answer, "scores in standard deviations of the normal ones", [((scores, normal), [3.0, 5.0, -1.0])], mistakes)


def labels_from_spans(answer: Callable) -> None:
    """`answer(spans, n_frames)` against spans that end on the last frame, that overlap, and none."""
    cases = [(([(1, 2), (4, 4)], 5), [0, 1, 1, 0, 1]), (([], 3), [0, 0, 0]), (([(0, 2), (1, 3)], 5), [1, 1, 1, 1, 0])]
    mistakes = {
        "the last frame of a span is left out; both ends belong to it": lambda spans, n: [
            int(any(first <= t < last for first, last in spans)) for t in range(n)
        ],
        "the first frame of a span is left out; both ends belong to it": lambda spans, n: [
            int(any(first < t <= last for first, last in spans)) for t in range(n)
        ],
        "a frame in two spans counts twice; labels are 0 and 1": lambda spans, n: [
            sum(first <= t <= last for first, last in spans) for t in range(n)
        ],
        "normal and abnormal are exchanged": lambda spans, n: [
            int(not any(first <= t <= last for first, last in spans)) for t in range(n)
        ],
    }
    judge(answer, "labels", cases, mistakes)


def prevalence(answer: Callable) -> None:
    """`answer(labels)` must weigh videos by their frames."""
    mistakes = {
        "this is the mean of the videos' shares; long videos count more": lambda labels: (
            sum(sum(one) / len(one) for one in labels) / len(labels)
        ),
        "this is the share of videos, not of frames": lambda labels: sum(map(any, labels)) / len(labels),
        "this is the share of normal frames": lambda labels: 1 - sum(map(sum, labels)) / sum(map(len, labels)),
        "this is a number of frames, not their share": lambda labels: sum(map(sum, labels)),
    }
    judge(answer, "share of abnormal frames", [(([[0, 0, 0, 0, 0, 0], [1, 0]],), 1 / 8)], mistakes)


# --- 02: pretraining -------------------------------------------------------------------------------------------------


def learning_rate(answer: Callable) -> None:
    """`answer(step, total, warmup)` at the start, the end of the warm-up, the half and the end."""

    def rate(step: int, total: int, warmup: int, periods: float = 0.5, first: int = 1) -> float:
        return min(1.0, (step + first) / warmup) * (1 + math.cos(2 * math.pi * periods * step / total)) / 2

    mistakes = {
        "the ramp starts at 0; step 0 is the first of the warm-up": lambda *args: rate(*args, first=0),
        "the cosine is missing": lambda step, total, warmup: min(1.0, (step + 1) / warmup),
        "the warm-up is missing": lambda step, total, warmup: rate(step, total, 1),
        "a whole period of the cosine, which ends at 1; half a period ends at 0": lambda *args: rate(*args, periods=1),
        "a cosine runs from 1 to -1; add 1 and halve": lambda step, total, warmup: (
            min(1.0, (step + 1) / warmup) * math.cos(math.pi * step / total)
        ),
        "the cosine starts after the warm-up; it runs over all steps": lambda step, total, warmup: (
            min(1.0, (step + 1) / warmup) * rate(max(0, step - warmup), total - warmup, 1)
        ),
    }
    right = ((0, 0.1), (9, (1 + math.cos(0.09 * math.pi)) / 2), (50, 0.5), (100, 0.0))
    judge(answer, "factor of the learning rate", [((step, 100, 10), factor) for step, factor in right], mistakes)


def weighted_cross_entropy(answer: Callable) -> None:
    """`answer(logits, target, weight)` against torch."""
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(9, 4, generator=draw, dtype=torch.float64), torch.randint(4, (9,), generator=draw)
    args = logits, target, torch.tensor([0.2, 1.0, 1.0, 3.0]).double()
    mistakes = {
        "the weights are left out": lambda logits, target, weight: F.cross_entropy(logits, target),
        "divided by the number of cells, not by the sum of their weights": lambda *args: F.cross_entropy(
            *args, reduction="none"
        ).mean(),
        "this is a sum, not a mean": lambda *args: F.cross_entropy(*args, reduction="sum"),
        "the softmax runs over the cells, not over the classes": lambda logits, target, weight: F.nll_loss(
            logits.log_softmax(0), target, weight
        ),
        "the softmax is missing": lambda *args: F.nll_loss(*args),
        "the sign is wrong; the loss is minus the logarithm": lambda *args: -F.cross_entropy(*args),
    }
    judge(answer, "weighted loss", [(args, F.cross_entropy(*args))], mistakes)


# --- 10: TimeSformer -------------------------------------------------------------------------------------------------


def attention(answer: Callable) -> None:
    """`answer(q, k, v)` against torch's fused attention."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, *size, generator=draw, dtype=torch.float64) for size in ((4, 8), (5, 8), (5, 3)))
    mistakes = {
        "the scores are not divided by the root of the width": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
        "the scores are divided by the width, not by its root": lambda q, k, v: (
            (q @ k.mT / q.shape[-1]).softmax(-1) @ v
        ),
        "the softmax runs over the queries, not over the keys": lambda q, k, v: (
            (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v
        ),
        "the softmax is missing": lambda q, k, v: q @ k.mT / q.shape[-1] ** 0.5 @ v,
        "the scores are divided after the softmax, not before": lambda q, k, v: (
            (q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5 @ v
        ),
        "these are the weights; they still meet the values": lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(
            -1
        ),
    }
    judge(answer, "attention", [((q, k, v), F.scaled_dot_product_attention(q, k, v))], mistakes)


def divided_pairs(answer: Callable) -> None:
    """`answer(places, frames)` for the published size and a small one."""
    mistakes = {
        "this is joint attention, where all tokens meet": lambda places, frames: (places * frames + 1) ** 2,
        "the class token is missing; it joins the places of each frame": lambda places, frames: (
            places * frames**2 + frames * places**2
        ),
        "the class token takes no part in the comparison over time": lambda places, frames: (
            (places + 1) * frames**2 + frames * (places + 1) ** 2
        ),
        "the comparison over time is missing": lambda places, frames: frames * (places + 1) ** 2,
        "the comparison over space is missing": lambda places, frames: places * frames**2,
    }
    cases = [((196, 8), 196 * 64 + 8 * 197**2), ((2, 3), 2 * 9 + 3 * 9)]
    judge(answer, "query-key pairs of a divided block", cases, mistakes)


# --- 11: predictive coding -------------------------------------------------------------------------------------------


def prediction_error(answer: Callable) -> None:
    """`answer(predicted, actual)` against the library's error map."""
    args = torch.randn(2, 2, 3, 8, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mistakes = {
        "this is the cosine; the error is 1 minus it": lambda p, a: F.cosine_similarity(p, a, dim=2),
        "this is the distance, not 1 minus the cosine": lambda p, a: (p - a).norm(dim=2),
        "the vectors are not scaled to norm 1": lambda p, a: 1 - (p * a).sum(2),
        "the vectors are scaled along a side of the picture, not along the channels": lambda p, a: (
            1 - (F.normalize(p, dim=-1) * F.normalize(a, dim=-1)).sum(2)
        ),
        "the products are averaged, not summed": lambda p, a: (
            1 - (F.normalize(p, dim=2) * F.normalize(a, dim=2)).mean(2)
        ),
    }
    right = error_map(DPCOutput(args[0], args[1], args[1][:, 0]))
    judge(answer, "error map", [(tuple(args), right)], mistakes)


def chance_loss(answer: Callable) -> None:
    """`answer(clips, steps, height, width)` against the library's loss of equal cells."""
    equal = torch.ones(2, 3, 4, 5, 6, dtype=torch.float64)
    mistakes = {
        "a network that knows nothing does pay": lambda clips, steps, height, width: 0.0,
        "the other clips are candidates too": lambda clips, steps, height, width: math.log(steps * height * width),
        "the other places are candidates too": lambda clips, steps, height, width: math.log(clips * steps),
        "the other steps are candidates too": lambda clips, steps, height, width: math.log(clips * height * width),
        "this is the number of candidates, not its logarithm": lambda *sizes: math.prod(sizes),
        "the loss is counted in bits, not in nats": lambda *sizes: math.log2(math.prod(sizes)),
        "the sign is wrong; the loss is minus the logarithm of a share": lambda *sizes: -math.log(math.prod(sizes)),
    }
    judge(answer, "loss of a network that knows nothing", [((2, 3, 5, 6), cpc_loss(equal, equal))], mistakes)


# --- 12: text prompts ------------------------------------------------------------------------------------------------


def same_caption(answer: Callable) -> None:
    """`answer(captions)` against a repeated caption."""
    mistakes = {
        "a caption is compared with itself alone": lambda captions: torch.eye(len(captions)),
        "this says where captions differ": lambda captions: [[a != b for b in captions] for a in captions],
        "the diagonal is False; a caption is the same as itself": lambda captions: [
            [i != j and a == b for j, b in enumerate(captions)] for i, a in enumerate(captions)
        ],
    }
    judge(answer, "mask of repeated captions", [((["a", "b", "a"],), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])], mistakes)


def masked_info_nce(answer: Callable) -> None:
    """`answer(v, t, temperature, same)` against the library's loss, with and without the diagonal in `same`."""
    v, t = F.normalize(torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)
    eye = torch.eye(5, dtype=torch.bool)
    repeated = torch.zeros_like(eye)
    repeated[0, 3] = repeated[3, 0] = True

    def loss(v, t, temperature, same, rows=0.5, columns=0.5):
        logits = (v @ t.T / temperature).masked_fill(same & ~eye, -torch.inf)
        rows, columns = rows * logits.log_softmax(1), columns * logits.log_softmax(0)
        return -(rows.diagonal().mean() + columns.diagonal().mean())

    mistakes = {
        "the mask is left out: a video's own caption, repeated, counts as a negative": lambda v, t, temperature, same: (
            loss(v, t, temperature, eye)
        ),
        "the pair itself is masked too; the diagonal stays": lambda v, t, temperature, same: F.cross_entropy(
            (v @ t.T / temperature).masked_fill(same | eye, -torch.inf), torch.arange(len(v))
        ),
        "masked logits are 0, not minus infinity": lambda v, t, temperature, same: info_nce(
            (v @ t.T / temperature).masked_fill(same & ~eye, 0), eye.double(), 1.0
        ),
        "the temperature multiplies; it divides": lambda v, t, temperature, same: loss(v, t, 1 / temperature, same),
        "the temperature is left out": lambda v, t, temperature, same: loss(v, t, 1.0, same),
        "only from video to text; the other direction is missing": lambda *args: loss(*args, 1, 0),
        "only from text to video; the other direction is missing": lambda *args: loss(*args, 0, 1),
        "the two directions are added, not averaged": lambda *args: loss(*args, 1, 1),
        "this is a sum over the batch, not a mean": lambda v, *args: len(v) * loss(v, *args),
    }
    cases = [((v, t, 0.07, same), info_nce(v, t, 0.07, same)) for same in (repeated | eye, repeated)]
    judge(answer, "masked InfoNCE", cases, mistakes)


# --- 13: context gates -----------------------------------------------------------------------------------------------


def ln_gate(answer: Callable) -> None:
    """`answer(text, h, beta)` against the library's gate, whose learned beta may be negative."""
    torch.manual_seed(0)
    gate = ContextGate("ln", 8, 4).double().eval().requires_grad_(False)
    gate.rule.beta.fill_(-0.6)
    text, context = F.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()
    args = text, gate.rule.norm(gate.rule.shift(context)), gate.rule.beta
    mistakes = {
        "rows have no norm 1": lambda text, h, beta: text + beta * h.sigmoid() * h,
        "columns are scaled to norm 1, not rows": lambda text, h, beta: F.normalize(text + beta * F.silu(h), dim=0),
        "beta is left out": lambda text, h, beta: F.normalize(text + F.silu(h), dim=-1),
        "the sigmoid is left out": lambda text, h, beta: F.normalize(text + beta * h, dim=-1),
        "the sigmoid is added without the shift h": lambda text, h, beta: F.normalize(
            text + beta * h.sigmoid(), dim=-1
        ),
        "the text is left out; the gate adds to it": lambda text, h, beta: F.normalize(beta * F.silu(h), dim=-1),
        "the shift is scaled to norm 1, not the sum": lambda text, h, beta: (
            text + F.normalize(beta * F.silu(h), dim=-1)
        ),
    }
    judge(answer, "ln gate", [(args, gate.paired(text, context))], mistakes)


def dissimilar(answer: Callable) -> None:
    """`answer(context, max_cosine)` against contexts that are alike, unlike and opposite, and one on the bound."""
    mixed = torch.tensor([[0.3, 0.0], [2.0, 0.2], [0.0, 1.0], [-0.5, 0.1], [4.0, 3.0]]), 0.7
    bound = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 0.0
    mistakes = {
        "rows have no norm 1, so that their products are no cosines": lambda c, bound: c @ c.T < bound,
        "columns are scaled to norm 1, not rows": lambda c, bound: (
            F.normalize(c, dim=0) @ F.normalize(c, dim=0).T < bound
        ),
        "the sign is lost: opposite contexts are unlike": lambda c, bound: _cosines(c).abs() < bound,
        "this says who is alike": lambda c, bound: _cosines(c) > bound,
        "a cosine equal to the bound is not below it": lambda c, bound: _cosines(c) <= bound,
    }
    cases = [((c, bound), F.cosine_similarity(c[:, None], c[None], dim=-1) < bound) for c, bound in (mixed, bound)]
    judge(answer, "who may lend its scene to whom", cases, mistakes)


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows, dim=-1) @ F.normalize(rows, dim=-1).T
