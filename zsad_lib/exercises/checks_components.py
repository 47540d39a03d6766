"""Checks of the exercises on data and components (notebooks 00 to 13)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from zsad_lib.exercises.answers import close
from zsad_lib.losses import cpc_loss, info_nce
from zsad_lib.methods.context_aware.scores import error_map
from zsad_lib.models.dpc import DPCOutput
from zsad_lib.models.gates import ContextGate

# --- 00, 01: windows, frames, labels ---------------------------------------------------------------------------------


def window_starts(answer: Callable) -> None:
    """`answer(n_frames, length, stride)` against whole, partial and too short videos."""
    for n_frames, expected in ((48, [0, 5, 10, 15]), (34, [0]), (35, [0, 5]), (12, [0])):
        close(answer(n_frames, 30, 5), expected, f"starts of windows in {n_frames} frames")


def standardise(answer: Callable) -> None:
    """`answer(scores, normal)` must use the normal scores' statistics alone."""
    scores, normal = torch.tensor([3.0, 7.0]), torch.tensor([1.0, 5.0])
    close(answer(scores, normal), [0.0, 2.0], "scores in standard deviations of the normal ones")


def labels_from_spans(answer: Callable) -> None:
    """`answer(spans, n_frames)` against spans that end on the last frame, and none."""
    close(answer([(1, 2), (4, 4)], 5), [0, 1, 1, 0, 1], "labels of two spans (both ends belong to a span)")
    close(answer([], 3), [0, 0, 0], "labels of a normal video")


def prevalence(answer: Callable) -> None:
    """`answer(labels)` must weigh videos by their frames."""
    close(answer([[0, 0, 0, 0, 0, 0], [1, 0]]), 1 / 8, "share of abnormal frames")


# --- 02: pretraining -------------------------------------------------------------------------------------------------


def learning_rate(answer: Callable) -> None:
    """`answer(step, total, warmup)` at the start, the end of the warm-up and the half."""
    for step, expected in ((0, 0.1), (9, (1 + math.cos(0.09 * math.pi)) / 2), (50, 0.5), (100, 0.0)):
        close(answer(step, 100, 10), expected, f"factor of the learning rate at step {step}")


def weighted_cross_entropy(answer: Callable) -> None:
    """`answer(logits, target, weight)` against torch."""
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(9, 4, generator=draw), torch.randint(4, (9,), generator=draw)
    weight = torch.tensor([0.2, 1.0, 1.0, 1.0])
    close(answer(logits, target, weight), F.cross_entropy(logits, target, weight), "weighted loss", 1e-5)


# --- 10: TimeSformer -------------------------------------------------------------------------------------------------


def attention(answer: Callable) -> None:
    """`answer(q, k, v)` against torch's fused attention."""
    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(q, k, v), F.scaled_dot_product_attention(q, k, v), "attention")


def divided_pairs(answer: Callable) -> None:
    """`answer(places, frames)` for the published size."""
    close(answer(196, 8), 196 * 64 + 8 * 197**2, "query-key pairs of a divided block")


# --- 11: predictive coding -------------------------------------------------------------------------------------------


def prediction_error(answer: Callable) -> None:
    """`answer(predicted, actual)` against the library's error map."""
    predicted, actual = torch.randn(2, 2, 3, 8, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(predicted, actual), error_map(DPCOutput(predicted, actual, actual[:, 0])), "error map")


def chance_loss(answer: Callable) -> None:
    """`answer(clips, steps, height, width)` against the library's loss of equal cells."""
    equal = torch.ones(2, 3, 4, 5, 6, dtype=torch.float64)
    close(answer(2, 3, 5, 6), cpc_loss(equal, equal), "loss of a network that knows nothing")


# --- 12: text prompts ------------------------------------------------------------------------------------------------


def same_caption(answer: Callable) -> None:
    """`answer(captions)` against a repeated caption."""
    close(answer(["a", "b", "a"]), [[1, 0, 1], [0, 1, 0], [1, 0, 1]], "mask of repeated captions")


def masked_info_nce(answer: Callable) -> None:
    """`answer(v, t, temperature, same)` against the library's loss."""
    v, t = F.normalize(torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)
    same = torch.eye(5, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    close(answer(v, t, 0.07, same), info_nce(v, t, 0.07, same), "masked InfoNCE")


# --- 13: context gates -----------------------------------------------------------------------------------------------


def ln_gate(answer: Callable) -> None:
    """`answer(text, h, beta)` against the library's gate."""
    torch.manual_seed(0)
    gate = ContextGate("ln", 8, 4).double().eval()
    text, context = F.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()
    h = gate.rule.norm(gate.rule.shift(context))
    close(answer(text, h, gate.rule.beta), gate.paired(text, context), "ln gate")


def dissimilar(answer: Callable) -> None:
    """`answer(context, max_cosine)` against three contexts, two of them alike."""
    context = torch.tensor([[0.3, 0.0], [2.0, 0.2], [0.0, 1.0]])
    close(answer(context, 0.7), [[0, 0, 1], [0, 0, 1], [1, 1, 0]], "who may lend its scene to whom")
