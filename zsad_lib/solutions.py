"""Solutions of the notebooks' exercises: each exercise starts from one, so that a headless run passes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# --- 00, 01: windows, frames, labels ---------------------------------------------------------------------------------


def window_starts(n_frames: int, length: int, stride: int) -> list[int]:
    """First frames of all whole windows of a video; one window where the video is shorter than a window."""
    return list(range(0, max(1, n_frames - length + 1), stride))


def standardise(scores: Tensor, normal: Tensor) -> Tensor:
    """Scores [n] in deviations of held-out normal scores [m] from their mean."""
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
