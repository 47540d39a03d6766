r"""Anomaly scores of windows and frames, and their fusion (the paper, arXiv 2508.18463, publishes words and no
formula).

s_sem  = 1 - max_k v . t'_k            no normal caption, gated with the clip's own context, fits what is seen
s_pred = 1 - mean cos(predicted, actual)   over the cells that move most; `s_all` over all cells, `s_peak` in the worst
place s_mem  = 1 - mean of the k largest [v ; scene] . [v_n ; scene_n]   nothing like it among the training windows
s      = sum_i w_i (s_i - mean_i) / std_i    mean and standard deviation on held-out NORMAL windows, equal weights

Notebooks: 12_align_prompts, 21_score_video, 33_ablate_prompts
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.extraction import encode_long, window_blocks
from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW
from zsad_lib.losses import MOVING_SHARE
from zsad_lib.models.dpc import DPC, DPCOutput

SCORED_STEPS = (
    2  # predicted blocks that s_pred looks at; the third is hard to foresee in normal video too (validation sites)
)
NEIGHBOURS = 5  # k of the neighbour memory
BLOCKS_AT_ONCE = 96  # of videos that pass the predictive stream together, at most
Terms = Mapping[str, np.ndarray]  # name of a term -> its values, [T] of frames or [W] of windows
Statistics = Mapping[str, Sequence[float]]  # name of a term -> mean and standard deviation on held-out normal video
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {  # method -> (trained variant, the terms that its score adds up)
    "full": ("full", ("s_sem", "s_pred")),
    "full_memory": ("full", ("s_sem", "s_pred", "s_mem", "s_mem_global")),
    "paper": ("paper", ("s_sem", "s_all")),
    "semantic": ("full", ("s_sem",)),
    "predictive": ("full", ("s_pred",)),
    "knn": ("full", ("s_mem",)),
    "knn_predictive": ("full", ("s_mem", "s_pred")),
    "motion_floor": ("full", ("s_motion",)),
}
CAUSAL = ("full", "full_memory")  # methods whose frames are scored a second time from what a live camera would know
NOT_CAUSAL = ("s_mem_global",)  # terms that such a score leaves out: whole windows are late and add little
SEED_FREE = ("knn", "motion_floor")  # methods that nothing trained enters: one seed stands for all


def causal_terms(names: Sequence[str]) -> tuple[str, ...]:
    """Of the terms that a score adds up those that it adds up for a live camera."""
    return tuple(name for name in names if name not in NOT_CAUSAL)


def error_map(out: DPCOutput) -> Tensor:
    """1 - cos(predicted, actual) per step and place, 0..2: DPCOutput of B windows -> [B, P, h, w]."""
    return 1 - F.cosine_similarity(out.predicted, out.actual, dim=2)


def moving_mean(errors: Tensor, motion: Tensor) -> Tensor:
    """Mean error over the `MOVING_SHARE` of a window's cells that move most: [B, P, h, w], motion [B, P, h, w] ->
    [B]."""
    count = max(1, int(MOVING_SHARE * motion[0].numel()))
    moving = motion.flatten(1).topk(count).indices
    return errors.flatten(1).gather(1, moving).mean(1)


class Predicted(NamedTuple):
    """What the predictive stream says of one video's W windows, without any text."""

    context: Tensor  # [W, D_dpc] GRU state, mean over space
    plain: Tensor  # [W, D_dpc] the backbone's features instead, mean over blocks and space (released defect 9)
    terms: dict[str, Tensor]  # s_pred, s_all, s_peak: [W] each; s_motion where the motion of every frame is known


def predictive_terms(dpc: DPC, videos: Iterable[VideoFeatures]) -> Iterator[Predicted]:
    """Runs a predictive stream, pretrained or tuned, on the cached lower layers of videos; neighbours of equal length
    go together."""
    for (blocks, *_), equally_long in itertools.groupby(videos, key=lambda features: features.stem.shape):
        count = 1 if dpc.on_batch_statistics else max(1, BLOCKS_AT_ONCE // blocks)
        while batch := list(itertools.islice(equally_long, count)):
            encoded = encode_long(dpc, torch.stack([features.stem for features in batch]))
            windows = [window_blocks(video) for video in encoded]  # per video [W, NUM_BLOCKS, D, h, w]
            read = [window_blocks(video)[:, : -dpc.pred_steps] for video in dpc.read(encoded)]
            out = dpc.predict(torch.cat(windows), read=torch.cat(read))
            errors, contexts = (x.chunk(len(batch)) for x in (error_map(out), out.context))
            for video in zip(batch, windows, errors, contexts):
                yield _summarise(dpc.pred_steps, *video)


def _summarise(steps: int, features: VideoFeatures, windows: Tensor, errors: Tensor, context: Tensor) -> Predicted:
    """One video's terms: windows [W, NUM_BLOCKS, D, h, w], errors [W, P, h, w], context [W, D, h, w]; P is `steps`."""
    moving = window_blocks(features.cell_motion.to(errors.device))[:, -steps:]  # [W, P, h, w]
    terms = {
        "s_pred": moving_mean(errors[:, :SCORED_STEPS], moving[:, :SCORED_STEPS]),
        "s_all": errors.mean((1, 2, 3)),
        "s_peak": errors.mean(1).amax((1, 2)),
    }
    if len(features.motion):
        terms["s_motion"] = window_motion(features.motion, len(errors))
    return Predicted(context.mean((-2, -1)), windows.mean((1, 3, 4)), terms)


def window_motion(motion: Tensor, windows: int) -> Tensor:
    """Mean of the frames' motion [T] in each window: [W]."""
    return motion.unfold(0, min(WINDOW, len(motion)), BLOCK_LEN)[:windows].mean(-1)


def semantic_score(similarity: Tensor) -> Tensor:
    """1 - max over the bank: similarities [B, K] of windows and gated normal captions -> [B]."""
    return 1 - similarity.amax(-1)


def prompt_scores(normal: Tensor, abnormal: Tensor, temperature: float = 0.07) -> tuple[Tensor, Tensor]:
    """Softmax over normal and abnormal prompts: the mass on the abnormal ones, and their class probabilities.

    Args:
        normal: similarities with gated normal captions [B, K].
        abnormal: similarities with gated abnormal prompts [B, A].

    Returns:
        score [B] in 0..1, probabilities of the abnormal prompts [B, A]; their sum is the score.
    """
    probabilities = (torch.cat([normal, abnormal], -1) / temperature).softmax(-1)[:, normal.shape[-1] :]
    return probabilities.sum(-1), probabilities


def neighbour_score(query: Tensor, memory: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """1 - mean cosine with the k nearest training windows: unit vectors [B, J], [N, J] -> [B], 0..2."""
    return 1 - (query @ memory.T).topk(min(k, len(memory)), dim=-1).values.mean(-1)


def joint(embedding: Tensor, scene: Tensor) -> Tensor:
    """Joint space of the neighbour memory, [video ; scene], both of equal length: [B, D], [B, S] -> unit vectors [B, D
    + S]."""
    return F.normalize(torch.cat([F.normalize(embedding, dim=-1), F.normalize(scene, dim=-1)], -1), dim=-1)


def normal_statistics(normal: Terms) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each term over held-out normal windows: name -> [N] gives name -> two numbers.

    The standard deviation divides by N, as NumPy does unasked: it describes these windows and estimates nothing beyond
    them. A term that never changes gets 1.
    """
    return {name: (float(values.mean()), float(values.std()) or 1.0) for name, values in normal.items()}


def standardise(terms: Terms, statistics: Statistics, names: Sequence[str]) -> dict[str, np.ndarray]:
    """(s_i - mean_i) / std_i of the named terms, [W] each: how far from normal video, in its standard deviations."""
    return {name: (terms[name] - statistics[name][0]) / statistics[name][1] for name in names}


def fuse(terms: Terms, statistics: Statistics, names: Sequence[str], weights: Sequence[float] = ()) -> np.ndarray:
    """s = sum_i w_i (s_i - mean_i) / std_i, the kit's own: the paper gives no formula.

    Args:
        terms: of any windows.
        statistics: of `normal_statistics`.
        names: of the terms that are added up.
        weights: w, one per name; none: all 1, fixed beforehand.

    Returns:
        [W]; 0 is an ordinary normal window.
    """
    standardised = standardise(terms, statistics, names)
    return sum(weight * standardised[name] for name, weight in zip(names, weights or (1.0,) * len(names), strict=True))
