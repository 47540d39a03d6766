"""Checks of the notebooks' exercises: each prints that an answer is right, or raises saying what is not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


# --- 00, 01: windows, frames, labels ---------------------------------------------------------------------------------


def window_starts(answer: Callable) -> None:
    """`answer(n_frames, length, stride)` against whole, partial and too short videos."""
    for n_frames, expected in ((48, [0, 5, 10, 15]), (34, [0]), (35, [0, 5]), (12, [0])):
        close(answer(n_frames, 30, 5), expected, f"starts of windows in {n_frames} frames")


def standardise(answer: Callable) -> None:
    """`answer(scores, normal)` must use the normal scores' statistics alone."""
    import torch

    close(answer(torch.tensor([3.0, 7.0]), torch.tensor([1.0, 5.0])), [0.0, 2.0], "scores in normal deviations")


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
    import math

    for step, expected in ((0, 0.1), (9, (1 + math.cos(0.09 * math.pi)) / 2), (50, 0.5), (100, 0.0)):
        close(answer(step, 100, 10), expected, f"factor of the learning rate at step {step}")


def weighted_cross_entropy(answer: Callable) -> None:
    """`answer(logits, target, weight)` against torch."""
    import torch

    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(9, 4, generator=draw), torch.randint(4, (9,), generator=draw)
    weight = torch.tensor([0.2, 1.0, 1.0, 1.0])
    close(
        answer(logits, target, weight),
        torch.nn.functional.cross_entropy(logits, target, weight),
        "weighted loss",
        1e-5,
    )


# --- 10: TimeSformer -------------------------------------------------------------------------------------------------


def attention(answer: Callable) -> None:
    """`answer(q, k, v)` against torch's fused attention."""
    import torch

    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v), "attention")


def divided_pairs(answer: Callable) -> None:
    """`answer(places, frames)` for the published size."""
    close(answer(196, 8), 196 * 64 + 8 * 197**2, "query-key pairs of a divided block")


# --- 11: predictive coding -------------------------------------------------------------------------------------------


def prediction_error(answer: Callable) -> None:
    """`answer(predicted, actual)` against the library's error map."""
    import torch

    from zsad_lib.methods.context_aware.scores import error_map
    from zsad_lib.models.dpc import DPCOutput

    predicted, actual = torch.randn(2, 2, 3, 8, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(predicted, actual), error_map(DPCOutput(predicted, actual, actual[:, 0])), "error map")


def chance_loss(answer: Callable) -> None:
    """`answer(clips, steps, height, width)` against the library's loss of equal cells."""
    import torch

    from zsad_lib.losses import cpc_loss

    equal = torch.ones(2, 3, 4, 5, 6, dtype=torch.float64)
    close(answer(2, 3, 5, 6), cpc_loss(equal, equal), "loss of a network that knows nothing")


# --- 12: text prompts ------------------------------------------------------------------------------------------------


def same_caption(answer: Callable) -> None:
    """`answer(captions)` against a repeated caption."""
    close(answer(["a", "b", "a"]), [[1, 0, 1], [0, 1, 0], [1, 0, 1]], "mask of repeated captions")


def masked_info_nce(answer: Callable) -> None:
    """`answer(v, t, temperature, same)` against the library's loss."""
    import torch

    from zsad_lib.losses import info_nce

    v, t = torch.nn.functional.normalize(
        torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    same = torch.eye(5, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    close(answer(v, t, 0.07, same), info_nce(v, t, 0.07, same), "masked InfoNCE")


# --- 13: context gates -----------------------------------------------------------------------------------------------


def ln_gate(answer: Callable) -> None:
    """`answer(text, h, beta)` against the library's gate."""
    import torch

    from zsad_lib.models.gates import ContextGate

    torch.manual_seed(0)
    gate = ContextGate("ln", 8, 4).double().eval()
    text, context = torch.nn.functional.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()
    h = gate.rule.norm(gate.rule.shift(context))
    close(answer(text, h, gate.rule.beta), gate.paired(text, context), "ln gate")


def dissimilar(answer: Callable) -> None:
    """`answer(context, max_cosine)` against three contexts, two of them alike."""
    import torch

    context = torch.tensor([[0.3, 0.0], [2.0, 0.2], [0.0, 1.0]])
    close(answer(context, 0.7), [[0, 0, 1], [0, 0, 1], [1, 1, 0]], "who may lend its scene to whom")


# --- 20: joint training ----------------------------------------------------------------------------------------------


def alignment_chance(answer: Callable) -> None:
    """`answer(batch, swaps)` against the library's loss of equal vectors."""
    import torch

    from zsad_lib.losses import info_nce

    equal = torch.ones(6, 4, dtype=torch.float64) / 2
    expected = info_nce(equal, equal, extra=torch.ones(6, 8, dtype=torch.float64))
    close(answer(6, 8), expected, "alignment loss of a network that knows nothing")


def swap_matrix(answer: Callable) -> None:
    """`answer(gate, v, text, context, unlike)` against the library's swaps of each pair."""
    import torch

    from zsad_lib.losses import swap_similarities
    from zsad_lib.models.gates import ContextGate

    torch.manual_seed(0)
    gate = ContextGate("relevance", 8, 4).double().requires_grad_(False)
    v, text = torch.nn.functional.normalize(torch.randn(2, 5, 8).double(), dim=-1)
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
    from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames, window_count

    for n_frames in (30, 48, 60):
        windows = [float((7 * w) % 5) for w in range(window_count(n_frames))]
        close(
            answer(windows, n_frames, WINDOW, BLOCK_LEN), to_frames(windows, n_frames), f"scores of {n_frames} frames"
        )


def causal_scores(answer: Callable) -> None:
    """`answer(windows, n_frames, length, stride, before)` against the library, and with another future."""
    from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames

    windows = [1.0, 5.0, 2.0, 4.0, 3.0]
    yours = answer(windows, 53, WINDOW, BLOCK_LEN, 0.5)
    close(yours, to_frames(windows, 53, causal=True, before=0.5), "causal scores")
    close(
        answer([*windows[:3], 9.0, 9.0], 53, WINDOW, BLOCK_LEN, 0.5)[:44],
        list(yours)[:44],
        "the past under another future",
    )


# --- 22: evaluation --------------------------------------------------------------------------------------------------


def auc_by_pairs(answer: Callable) -> None:
    """`answer(scores, labels)` against scikit-learn, with ties."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 6, 50) / 5, draw.integers(0, 2, 50)
    close(answer(scores, labels), roc_auc_score(labels, scores), "ROC-AUC with ties")


def normal_threshold(answer: Callable) -> None:
    """`answer(normal, share)` against the protocol's threshold, and its promise."""
    from zsad_lib.evaluate.inputs import normal_thresholds

    normal = [0.3, 0.1, 0.9, 0.5, 0.5, 0.2, 0.7, 0.4, 0.6, 0.8]
    for share in (0.0, 0.1, 0.25, 0.5):
        close(answer(normal, share), normal_thresholds({"n": normal}, share)[0], f"threshold at {share:.0%}", 1e-12)
        assert sum(score >= answer(normal, share) for score in normal) <= share * len(normal), "too many alarms"


def blind_score(answer: Callable) -> None:
    """`answer(n_frames, abnormal)` must reach a micro AUC above 0.8 on an annotation it cannot see."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

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


# --- 30 to 33: ablations ---------------------------------------------------------------------------------------------


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


def bilinear_relevance(answer: Callable) -> None:
    """`answer(text, context, U, V, b)` against the library's bilinear gate."""
    import torch

    from zsad_lib.models.gates import ContextGate

    torch.manual_seed(0)
    gate = ContextGate("bilinear", 8, 4).double().requires_grad_(False)
    rule = gate.rule
    rule.of_context.bias.zero_()
    text, context = torch.nn.functional.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()
    yours = answer(text, context, rule.of_text.weight, rule.of_context.weight, 2.0)
    close(yours, gate.relevance(text, context).diagonal(), "bilinear relevance")


def paired_interval(answer: Callable) -> None:
    """`answer(first, second)` against draws that move together."""
    import numpy as np

    both = np.random.default_rng(0).normal(0.8, 0.05, 2001)
    close(answer(both + 0.1, both), [0.1, 0.1, 0.1], "difference of methods that rise and fall together")


def weighted_fusion(answer: Callable) -> None:
    """`answer(terms, normal, weights)` must use the normal windows' statistics alone."""
    import torch

    terms, normal = torch.tensor([[3.0, 10.0], [1.0, 30.0]]), torch.tensor([[0.0, 10.0], [2.0, 30.0], [1.0, 20.0]])
    close(answer(terms, normal, torch.tensor([1.0, 0.5])), [1.5, 0.5], "fused scores")


def holm(answer: Callable) -> None:
    """`answer(p)` against the library."""
    import pandas as pd

    from zsad_lib.evaluate.comparison import holm as library

    p = [0.2, 0.001, 0.04, 0.03, 0.9]
    close(answer(p), library(pd.Series(p)), "corrected p values")


def abnormal_mass(answer: Callable) -> None:
    """`answer(normal, abnormal, temperature)` against the library."""
    import torch

    from zsad_lib.methods.context_aware.scores import prompt_scores

    normal, abnormal = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(answer(normal, abnormal, 0.07), prompt_scores(normal, abnormal, 0.07)[0], "mass on the abnormal prompts")


# --- 40 to 44: AnomalyCLIP -------------------------------------------------------------------------------------------


def prototype(answer: Callable) -> None:
    """`answer(videos)` must weigh frames, not videos."""
    import torch

    close(answer([torch.zeros(3, 2), torch.ones(1, 2)]), [0.25, 0.25], "mean of all frames")


def class_directions(answer: Callable) -> None:
    """`answer(text, m, normal_id)` with the normal class in the middle."""
    import torch

    text, m = torch.tensor([[4.0, 1.0], [9.0, 9.0], [1.0, 5.0]]), torch.tensor([1.0, 1.0])
    close(answer(text, m, 1), [[1.0, 0.0], [0.0, 1.0]], "directions of the abnormal classes")


def batch_standardise(answer: Callable) -> None:
    """`answer(raw)` against torch's BatchNorm."""
    import torch

    raw = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    close(answer(raw), torch.nn.BatchNorm1d(3, affine=False)(raw), "standardised similarities", 1e-5)


def top_segments(answer: Callable) -> None:
    """`answer(similarity, k)` must rank sums of segments, not single frames."""
    import torch

    similarity = torch.tensor([[5.0, -5.0], [1.0, 1.0], [2.0, 1.5], [0.0, 0.0]])
    assert sorted(answer(similarity, 2).tolist()) == [1, 2], "the top two segments are 1 and 2"
    print("top segments: right")


def axial_comparisons(answer: Callable) -> None:
    """`answer(n, s)` against counting."""
    close(answer(3, 2), 2 * 3**2 + 3 * 2**2, "compared pairs on a 3 x 2 grid")


def reversible_inverse(answer: Callable) -> None:
    """`answer(y1, y2, f, g)` must give the inputs back."""
    import torch

    x1, x2 = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    f, g = torch.sin, torch.cos
    y1 = x1 + f(x2)
    for name, found, expected in zip(("first", "second"), answer(y1, x2 + g(y1), f, g), (x1, x2)):
        close(found, expected, f"{name} input stream")


def interleaved_passes(answer: Callable) -> None:
    """`answer(length, n, s)` for a long video and for one shorter than the grid."""
    close(answer(8, 2, 2), [[[0, 1], [4, 5]], [[2, 3], [6, 7]]], "passes over 8 frames")
    close(answer(3, 2, 2), [[[0, 1], [2, 0]]], "a short video, read round and round")


def joint_probability(answer: Callable) -> None:
    """`answer(p, similarity)` against the library, normal last."""
    import torch

    from zsad_lib.losses import joint_probabilities

    draw = torch.Generator().manual_seed(0)
    p, similarity = torch.rand(5, generator=draw), torch.randn(5, 3, generator=draw)
    close(answer(p, similarity), joint_probabilities(similarity, p, 3), "joint probabilities")


def smoothness(answer: Callable) -> None:
    """`answer(p)` must not compare the last frame of a video with the first of the next."""
    import torch

    close(answer(torch.tensor([[0.0, 1.0], [0.0, 0.5]])), 1.25, "smoothness within videos")


def some_of(answer: Sequence[str], names: Iterable[str], count: int) -> None:
    """A prediction: it may be wrong, but must name `count` different ones of `names`."""
    assert len(set(answer)) == len(answer) == count, f"name {count} different rows"
    assert set(answer) <= set(names), f"rows are {', '.join(names)}"
    print("prediction: noted")


def confusion_shares(answer: Callable) -> None:
    """`answer(true, predicted, classes)` with a class that has no frames."""
    close(answer([0, 0, 1], [0, 1, 1], 3), [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]], "shares of true classes")


# --- 50: your own video ----------------------------------------------------------------------------------------------


def own_threshold(answer: Callable) -> None:
    """`answer(score)` against the library, with and without a loud event."""
    import numpy as np

    from zsad_lib.evaluate import events

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
    import torch

    forward, swap = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    close(answer(torch.stack([forward, swap])), [[0.25, 0.75], [0.25, 0.75]], "rollout of two layers")


def lift_on_motion(answer: Callable) -> None:
    """`answer(relevance, motion)` against `zsad_lib.own_video.explain.lift`, and 1 for an even map or where nothing moves."""
    import numpy as np

    from zsad_lib.own_video.explain import lift

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
    import pandas as pd

    rows = [("a", 0.9, 0.85, 0.93), ("b", 0.88, 0.84, 0.91), ("c", 0.8, 0.7, 0.89)]
    found = list(answer(pd.DataFrame(rows, columns=["method", "value", "low", "high"])))
    assert found == ["a", "b"], f"methods: {found}, expected ['a', 'b']"
    print("methods that are not worse: right")
