"""Checks of the exercises on training, scores, evaluation and ablations (notebooks 20 to 33)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from zsad_lib.evaluate import comparison
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.exercises.answers import close
from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames, window_count
from zsad_lib.losses import info_nce, swap_similarities
from zsad_lib.methods.context_aware.scores import prompt_scores
from zsad_lib.models import regions
from zsad_lib.models.gates import ContextGate

# --- 20: joint training ----------------------------------------------------------------------------------------------


def alignment_chance(answer: Callable) -> None:
    """`answer(batch, swaps)` against the library's loss of equal vectors."""
    equal = torch.ones(6, 4, dtype=torch.float64) / 2
    expected = info_nce(equal, equal, extra=torch.ones(6, 8, dtype=torch.float64))
    close(answer(6, 8), expected, "alignment loss of a network that knows nothing")


def swap_matrix(answer: Callable) -> None:
    """`answer(gate, v, text, context, unlike)` against the library's swaps of each pair."""
    torch.manual_seed(0)
    gate = ContextGate("relevance", 8, 4).double().requires_grad_(False)
    v, text = F.normalize(torch.randn(2, 5, 8).double(), dim=-1)
    context, unlike = torch.randn(5, 4).double(), ~torch.eye(5, dtype=torch.bool)
    expected = swap_similarities(gate, v, text, context, torch.arange(5).expand(5, 5), unlike)
    yours = answer(gate, v, text, context, unlike)
    assert torch.isneginf(yours.diagonal()).all(), "pairs of like scenes must be minus infinity"
    close(yours[unlike], expected[unlike], "swap negatives")


def batch_of_step(answer: Callable) -> None:
    """`answer(count, size, step, seed)` must repeat, cover an epoch once, and shuffle anew in the next."""
    first = [list(answer(20, 5, step, 3)) for step in (3, 0, 2, 1)]
    assert sorted(sum(first, [])) == list(range(20)), "an epoch must hold every window once"
    assert list(answer(20, 5, 0, 3)) == first[1], "the same step must draw the same windows again"
    assert [list(answer(20, 5, step, 3)) for step in (7, 4, 6, 5)] != first, "the next epoch needs its own shuffle"
    assert list(answer(20, 5, 0, 4)) != first[1], "another seed must draw other windows"
    print("batches: right")


# --- 21: scores ------------------------------------------------------------------------------------------------------


def frame_scores(answer: Callable) -> None:
    """`answer(windows, n_frames, length, stride)` against the library, for whole and odd lengths."""
    for n_frames in (30, 48, 60):
        windows = [float((7 * w) % 5) for w in range(window_count(n_frames))]
        yours = answer(windows, n_frames, WINDOW, BLOCK_LEN)
        close(yours, to_frames(windows, n_frames), f"scores of {n_frames} frames")


def causal_scores(answer: Callable) -> None:
    """`answer(windows, n_frames, length, stride, before)` against the library, and with another future."""
    windows = [1.0, 5.0, 2.0, 4.0, 3.0]
    yours = answer(windows, 53, WINDOW, BLOCK_LEN, 0.5)
    close(yours, to_frames(windows, 53, causal=True, before=0.5), "causal scores")
    other = answer([*windows[:3], 9.0, 9.0], 53, WINDOW, BLOCK_LEN, 0.5)
    close(other[:44], list(yours)[:44], "the past under another future")


# --- 22: evaluation --------------------------------------------------------------------------------------------------


def auc_by_pairs(answer: Callable) -> None:
    """`answer(scores, labels)` against scikit-learn, with ties."""
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 6, 50) / 5, draw.integers(0, 2, 50)
    close(answer(scores, labels), roc_auc_score(labels, scores), "ROC-AUC with ties")


def normal_threshold(answer: Callable) -> None:
    """`answer(normal, share)` against the protocol's threshold, and its promise."""
    normal = [0.3, 0.1, 0.9, 0.5, 0.5, 0.2, 0.7, 0.4, 0.6, 0.8]
    for share in (0.0, 0.1, 0.25, 0.5):
        close(answer(normal, share), normal_thresholds({"n": normal}, share)[0], f"threshold at {share:.0%}", 1e-12)
        assert sum(score >= answer(normal, share) for score in normal) <= share * len(normal), "too many alarms"


def blind_score(answer: Callable) -> None:
    """`answer(n_frames, abnormal)` must reach a micro AUC above 0.8 on an annotation it cannot see."""
    draw, scores, labels = np.random.default_rng(0), [], []
    for video in range(40):
        label = np.zeros(draw.integers(80, 400), int)
        if video % 2:
            first = draw.integers(len(label) // 5, len(label) // 2)
            label[first : first + len(label) // 4] = 1
        scores.append(np.asarray(answer(len(label), bool(video % 2)), float))
        labels.append(label)
    reached = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    assert reached > 0.8, f"micro AUC {reached:.3f}; more than 0.8 is possible without any picture"
    print(f"micro AUC {reached:.3f} without any picture: right")


# --- 23: streams -----------------------------------------------------------------------------------------------------


def strongest(answer: Callable) -> None:
    """`answer(scores, picture, pictures, top)` against the library, with an empty picture."""
    scores, picture = np.array([0.1, 0.9, 0.5, 0.2, 0.7]), np.array([0, 0, 0, 0, 2])
    at = np.stack([np.zeros(5, int), picture, picture, picture], 1)
    yours = np.asarray(answer(scores, picture, 3, 3), float)
    close(np.nan_to_num(yours, nan=-1), np.nan_to_num(regions.strongest(scores, at, 1, 3)[0], nan=-1), "pictures")


def best_clause(answer: Callable) -> None:
    """`answer(vector, clauses, vectors)` must name the clause that fits best."""
    vectors = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    clauses = ["a man walks by", "a car passes", "someone is running", "two people are fighting"]
    for number, clause in enumerate(clauses):
        got = answer(F.normalize(vectors[number] + 0.1 * vectors[0], dim=-1), clauses, vectors)
        assert got == clause, f"{got!r}, expected {clause!r}"
    print("clauses: right")


# --- 30 to 34: ablations ---------------------------------------------------------------------------------------------


def bilinear_relevance(answer: Callable) -> None:
    """`answer(text, context, U, V, b)` against the library's bilinear gate."""
    torch.manual_seed(0)
    gate = ContextGate("bilinear", 8, 4).double().requires_grad_(False)
    rule = gate.rule
    rule.of_context.bias.zero_()
    text, context = F.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()
    yours = answer(text, context, rule.of_text.weight, rule.of_context.weight, 2.0)
    close(yours, gate.relevance(text, context).diagonal(), "bilinear relevance")


def paired_interval(answer: Callable) -> None:
    """`answer(first, second)` against draws that move together."""
    both = np.random.default_rng(0).normal(0.8, 0.05, 2001)
    close(answer(both + 0.1, both), [0.1, 0.1, 0.1], "difference of methods that rise and fall together")


def weighted_fusion(answer: Callable) -> None:
    """`answer(terms, normal, weights)` must use the normal windows' statistics alone."""
    terms, normal = torch.tensor([[3.0, 10.0], [1.0, 30.0]]), torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    close(answer(terms, normal, torch.tensor([1.0, 0.5])), [1.5, 0.5], "fused scores")


def holm(answer: Callable) -> None:
    """`answer(p)` against the library."""
    p = [0.2, 0.001, 0.04, 0.03, 0.9]
    close(answer(p), comparison.holm(pd.Series(p)), "corrected p values")


def abnormal_mass(answer: Callable) -> None:
    """`answer(normal, abnormal, temperature)` against the library."""
    normal, abnormal = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(normal, abnormal, 0.07), prompt_scores(normal, abnormal, 0.07)[0], "mass on the abnormal prompts")


def family_frames(answer: Callable) -> None:
    """`answer(families, family)` must leave out the other families' frames and keep every normal one."""
    counted, own = answer(["", "semantic", "temporal", "semantic", ""], "semantic")
    close(counted, [1, 1, 0, 1, 1], "frames that count")
    close(own, [0, 1, 0, 1, 0], "frames of the family")
