"""Solutions of the notebooks' exercises: each exercise starts from one, so that a headless run passes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.models.gates import ContextGate

# --- 00, 01: windows, frames, labels ---------------------------------------------------------------------------------


def window_starts(n_frames: int, length: int, stride: int) -> list[int]:
    """First frames of all whole windows of a video; one window where the video is shorter than a window."""
    return list(range(0, max(1, n_frames - length + 1), stride))


def standardise(scores: Tensor, normal: Tensor) -> Tensor:
    """Scores [n] in standard deviations of held-out normal scores [m] from their mean."""
    return (scores - normal.mean()) / normal.std(correction=0)


def labels_from_spans(spans: Sequence[tuple[int, int]], n_frames: int) -> list[int]:
    """1 for frames inside a span, both ends inclusive, else 0."""
    return [int(any(first <= t <= last for first, last in spans)) for t in range(n_frames)]


def prevalence(labels: Sequence[Sequence[int]]) -> float:
    """Share of abnormal frames over all videos: frames count, not videos."""
    return sum(map(sum, labels)) / sum(map(len, labels))


# --- 02: pretraining -------------------------------------------------------------------------------------------------


def learning_rate(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up times half a cosine from 1 to 0."""
    return min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / total)) / 2


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of -log p(target), each cell counting by its class's weight: [n, K], [n], [K] -> scalar."""
    loss = -logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    return (loss * weight[target]).sum() / weight[target].sum()


# --- 10: TimeSformer -------------------------------------------------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over the last two dimensions [..., L, d]."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def divided_pairs(places: int, frames: int) -> int:
    """Query-key pairs of one divided block: over time per place, then over space per frame with the class token."""
    return places * frames**2 + frames * (places + 1) ** 2


# --- 11: predictive coding -------------------------------------------------------------------------------------------


def prediction_error(predicted: Tensor, actual: Tensor) -> Tensor:
    """1 - cosine over the channels: [B, P, D, h, w] twice -> [B, P, h, w]."""
    return 1 - (F.normalize(predicted, dim=2) * F.normalize(actual, dim=2)).sum(2)


def chance_loss(clips: int, steps: int, height: int, width: int) -> float:
    """CPC loss of a network that knows nothing: every cell of the batch is equally likely."""
    return math.log(clips * steps * height * width)


# --- 12: text prompts ------------------------------------------------------------------------------------------------


def same_caption(captions: Sequence[str]) -> Tensor:
    """[B, B] bool, True where two rows carry the same caption."""
    return torch.tensor([[one == other for other in captions] for one in captions])


def masked_info_nce(v: Tensor, t: Tensor, temperature: float, same: Tensor) -> Tensor:
    """Symmetric InfoNCE that leaves out pairs which are no negatives: [B, D], [B, D], [B, B] -> scalar."""
    logits = (v @ t.T / temperature).masked_fill(same & ~torch.eye(len(v), dtype=torch.bool), -torch.inf)
    rows, columns = logits.log_softmax(1).diagonal(), logits.log_softmax(0).diagonal()
    return -(rows.mean() + columns.mean()) / 2


# --- 13: context gates -----------------------------------------------------------------------------------------------


def ln_gate(text: Tensor, h: Tensor, beta: float) -> Tensor:
    """norm(t + beta sigmoid(h) h) for text [B, D] and the normalised scene shift h [B, D]."""
    return F.normalize(text + beta * h.sigmoid() * h, dim=-1)


def dissimilar(context: Tensor, max_cosine: float) -> Tensor:
    """[B, B] bool, True where the contexts' cosine is below the bound: who may lend its scene to whom."""
    unit = F.normalize(context, dim=-1)
    return unit @ unit.T < max_cosine


# --- 20: joint training ----------------------------------------------------------------------------------------------


def alignment_chance(batch: int, swaps: int) -> float:
    """Alignment loss, in nats, of a network that finds all captions and all swaps equally likely."""
    return (math.log(batch + swaps) + math.log(batch)) / 2


def swap_matrix(gate: ContextGate, v: Tensor, text: Tensor, context: Tensor, unlike: Tensor) -> Tensor:
    """v_i . gate(t_i, c_j), minus infinity where the scenes are alike: [B, D] twice, [B, C], [B, B] -> [B, B]."""
    gated = gate.paired(text[:, None], context[None])  # [B, B, D]
    return (v[:, None] * gated).sum(-1).masked_fill(~unlike, -torch.inf)


def batch_of_step(count: int, size: int, step: int, seed: int) -> list[int]:
    """Windows of one step: a piece of the epoch's own shuffle, which needs no memory of earlier steps."""
    epoch, piece = divmod(step, count // size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    return order[piece * size : (piece + 1) * size].tolist()


# --- 21: scores ------------------------------------------------------------------------------------------------------


def frame_scores(windows: Sequence[float], n_frames: int, length: int, stride: int) -> list[float]:
    """Mean over the windows that cover each frame; the last window also serves the frames after its end."""
    covering = [
        [w for w in range(len(windows)) if w * stride <= t < w * stride + length] or [len(windows) - 1]
        for t in range(n_frames)
    ]
    return [sum(windows[w] for w in some) / len(some) for some in covering]


def causal_scores(windows: Sequence[float], n_frames: int, length: int, stride: int, before: float) -> list[float]:
    """The latest window that has ended at each frame; `before` until there is one."""
    ended = [sum(w * stride + length - 1 <= t for w in range(len(windows))) for t in range(n_frames)]
    return [windows[n - 1] if n else before for n in ended]


# --- 22: evaluation --------------------------------------------------------------------------------------------------


def auc_by_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (abnormal, normal) pairs in right order, ties as one half: [n] and [n] of 0 and 1."""
    high, low = scores[labels == 1][:, None], scores[labels == 0]
    return float(((high > low) + 0.5 * (high == low)).mean())


def normal_threshold(normal: Sequence[float], share: float) -> float:
    """Lowest threshold at which at most `share` of the normal frames are alarms."""
    silent = math.ceil((1 - share) * len(normal))
    return math.nextafter(sorted(normal)[silent - 1], math.inf)


def blind_score(n_frames: int, abnormal: bool) -> list[float]:
    """The video's label times a bump in its middle: sees no picture."""
    middle = (n_frames - 1) / 2
    return [abnormal * math.exp(-0.5 * ((t - middle) / (n_frames / 2)) ** 2) for t in range(n_frames)]


# --- 23: streams -----------------------------------------------------------------------------------------------------


def strongest(scores: np.ndarray, picture: np.ndarray, pictures: int, top: int) -> list[float]:
    """Mean of the `top` largest scores [R] of each picture, nan where it has none: `picture` [R] -> [pictures]."""
    largest = [np.sort(scores[picture == number])[::-1][:top] for number in range(pictures)]
    return [float(some.mean()) if len(some) else math.nan for some in largest]


def best_clause(vector: Tensor, clauses: Sequence[str], vectors: Tensor) -> str:
    """The clause whose unit vector [K, E] is most like a region's [E]."""
    return clauses[int((vectors @ vector).argmax())]


# --- 30 to 34: ablations ---------------------------------------------------------------------------------------------

# Guesses of a reader who has seen the paper and nothing else, best first.
gate_order = ["ln", "silu", "film", "cross_attention", "residual_mlp", "bilinear", "relevance", "none"]
component_families = {"no_text": "semantic", "no_prediction": "temporal", "no_gate": "contextual",
                      "no_anchor": "semantic"}  # fmt: skip
defect_order = ["scene_weights", "dpc_order", "position_size", "one_normalisation", "context_projection",
                "batch_statistics", "cpc_temperature", "plain_extractor"]  # fmt: skip
left_out_order = ["no_text", "no_prediction", "no_global_memory", "no_local_memory"]
prompt_order = ["captions_abnormal", "abnormal_places", "abnormal", "captions", "class_places", "class", "no_text"]


def bilinear_relevance(text: Tensor, context: Tensor, U: Tensor, V: Tensor, b: float) -> Tensor:
    """sigmoid(b + (U sqrt(D) t) . (V c) / sqrt(k)) of pairs: [B, D], [B, C], [k, D], [k, C] -> [B]."""
    D, k = text.shape[1], len(U)
    return (b + ((text * D**0.5) @ U.T * (context @ V.T)).sum(1) / k**0.5).sigmoid()


def paired_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Difference of two methods and its 95 % interval: [1 + R] values each, of all data, then of the same draws."""
    gap = first - second
    low, high = torch.as_tensor(gap[1:]).double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(gap[0]), low, high


def weighted_fusion(terms: Tensor, normal: Tensor, weights: Tensor) -> Tensor:
    """Terms [W, M] in standard deviations of normal windows [N, M], weighted [M] and added up -> [W]."""
    return ((terms - normal.mean(0)) / normal.std(0, correction=0)) @ weights


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest times n - k + 1, never falling, at most 1, in the given order."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = highest
    return corrected


def abnormal_mass(normal: Tensor, abnormal: Tensor, temperature: float) -> Tensor:
    """Share of a softmax over all prompts that the abnormal ones get: similarities [B, K], [B, A] -> [B]."""
    return (torch.cat([normal, abnormal], 1) / temperature).softmax(1)[:, normal.shape[1] :].sum(1)


def family_frames(families: Sequence[str], family: str) -> tuple[np.ndarray, np.ndarray]:
    """Which frames a family's AUC counts, its own and the normal ones (""), and which of ALL frames are its own."""
    of_frames = np.asarray(families)
    return (of_frames == "") | (of_frames == family), of_frames == family


# --- 40 to 44: AnomalyCLIP -------------------------------------------------------------------------------------------


def prototype(videos: Sequence[Tensor]) -> Tensor:
    """Mean of all frames of all videos: [T, D] each -> [D]."""
    return torch.cat(list(videos)).mean(0)


def class_directions(text: Tensor, m: Tensor, normal_id: int) -> Tensor:
    """Unit vectors from the normal prototype to the abnormal classes: [K, D], [D] -> [K-1, D]."""
    abnormal = torch.cat([text[:normal_id], text[normal_id + 1 :]])
    return F.normalize(abnormal - m, dim=-1)


def batch_standardise(raw: Tensor) -> Tensor:
    """BatchNorm with the batch's own statistics: [M, K] -> [M, K]."""
    return (raw - raw.mean(0)) / (raw.var(0, correction=0) + 1e-5).sqrt()


def top_segments(similarity: Tensor, k: int) -> Tensor:
    """Numbers of the k segments with the largest sum: [N, S] -> [k]."""
    return similarity.sum(1).topk(k).indices


def axial_comparisons(n: int, s: int) -> int:
    """Pairs that attention along both axes of an n x s grid compares."""
    return n * s * (n + s)


def reversible_inverse(y1: Tensor, y2: Tensor, f: Callable, g: Callable) -> tuple[Tensor, Tensor]:
    """Inputs of y1 = x1 + f(x2), y2 = x2 + g(y1)."""
    x2 = y2 - g(y1)
    return y1 - f(x2), x2


def interleaved_passes(length: int, n: int, s: int) -> Tensor:
    """Frame numbers [J, n, s] of the passes that read a whole video."""
    passes = -(-length // (n * s))
    return (torch.arange(passes * n * s) % length).view(n, passes, s).transpose(0, 1)


def joint_probability(p: Tensor, similarity: Tensor) -> Tensor:
    """p_A [T] and S [T, K-1] -> probabilities of all classes, normal last, [T, K]."""
    return torch.cat([p[:, None] * similarity.softmax(-1), 1 - p[:, None]], dim=1)


def smoothness(p: Tensor) -> Tensor:
    """Sum of squared differences of neighbouring frames within each video, [B, T]."""
    return p.diff(dim=1).square().sum()


anomaly_clip_order = ["no_temporal", "no_centring", "fixed_text", "no_directions", "no_topk_abnormal"]


def confusion_shares(true: Sequence[int], predicted: Sequence[int], classes: int) -> Tensor:
    """Shares of each true class's frames by predicted class, [K, K]; rows without frames are 0."""
    counts = torch.zeros(classes, classes)
    for row, column in zip(true, predicted):
        counts[row, column] += 1
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


# --- 50: your own video ----------------------------------------------------------------------------------------------


def own_threshold(score: np.ndarray) -> float:
    """Median plus four robust standard deviations of the frame scores [n]."""
    score = torch.as_tensor(score, dtype=torch.float64)
    middle = score.quantile(0.5)
    return float(middle + 4 * 1.4826 * (score - middle).abs().quantile(0.5))


def joined_spans(spans: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Spans of seconds in order, those less than `gap` apart joined."""
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < gap:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


# --- 51: explanations ------------------------------------------------------------------------------------------------


def attention_rollout(attention: Tensor) -> Tensor:
    """Product of (A + I) / 2 over the layers, the first one rightmost: [L, n, n] -> [n, n]."""
    product = torch.eye(attention.shape[-1])
    for layer in attention:
        product = (layer + torch.eye(len(layer))) / 2 @ product
    return product


def lift_on_motion(relevance: np.ndarray, motion: np.ndarray) -> float:
    """Mean of `relevance` with `motion` as weights, over its plain mean; 1 where nothing moves."""
    return (relevance * motion).sum() / motion.sum() / relevance.mean() if motion.any() else 1.0


# --- 60: tables ------------------------------------------------------------------------------------------------------


def cell(value: float, low: float, high: float) -> str:
    """Value with its interval, three digits; without brackets where the interval is undefined."""
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")


def not_worse(rows: pd.DataFrame) -> list[str]:
    """Methods whose interval reaches the value of the best one: a table with columns method, value, high."""
    return list(rows["method"][rows["high"] >= rows["value"].max()])
