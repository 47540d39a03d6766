r"""The local read-out: what is unusual about the one actor that is, instead of about the picture as a whole.

    s_sem(f)  = mean of the 3 largest, over the regions r of picture f, of 1 - max_k v_r . gate(t_k, c)
    s_mem(f)  = the same of 1 - mean of the 5 largest [v_r ; c / 2] . [v_n ; c_n / 2], n remembered regions
    s_pred(b) = max over the moving cells of block b of 1 - cos(predicted, actual), predicted from 3 blocks before it

A picture without a region, or a block in which nothing moves, gets the smallest value met on held-out normal video: the
smallest of the video itself would look into the future. Both are means over what windows say of a frame, then a
Gaussian; a camera's score knows the last two pictures of the newest window alone.

The kit's own: the paper (arXiv 2508.18463) scores windows by their one feature and all cells alike.

Notebook: 23_find_in_stream
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.features.backbones import STAND_IN_SIZE, TIMESFORMER
from zsad_lib.features.extraction import encode_long
from zsad_lib.features.window_plan import (
    CLIP_FRAMES,
    NUM_BLOCKS,
    OBSERVED,
    blocks_to_frames,
    pictures_to_frames,
    to_frames,
)
from zsad_lib.methods.context_aware.scores import NEIGHBOURS, neighbour_score, semantic_score
from zsad_lib.models.dpc import DPC
from zsad_lib.models.gates import ContextGate

SCENE_WEIGHT = 0.5  # of the scene beside the region, in the memory
REMEMBERED = 8000  # regions in the memory
MOVING_QUANTILE = 0.8  # of the motion of all cells of training video; above it, a cell moves
GRID = tuple(side // TIMESFORMER["patch_size"] for side in STAND_IN_SIZE)  # rows and columns of cells
AT_ONCE = 1 << 18  # numbers of gated clauses: what a processor's cache holds
PICTURE_SIGMA, BLOCK_SIGMA = 4.0, 6.0  # frames, of the Gaussians


def region_similarity(gate: ContextGate, vectors: Tensor, window: Tensor, bank: Tensor, context: Tensor) -> Tensor:
    """v_r . gate(t_k, c) of each region under the context of its window.

    Args:
        vectors: regions [R, E], ordered by window.
        window: their windows [R].
        bank: clauses [K, E].
        context: c of each window [W, C].

    Returns:
        [R, K].
    """
    counts = torch.bincount(window, minlength=len(context)).tolist()
    together = context.split(max(1, AT_ONCE // bank.numel()))
    gated = itertools.chain.from_iterable(gate(bank, some) for some in together)  # per window [K, E]
    return torch.cat([v @ t.T for v, t in zip(vectors.split(counts), gated)])


def region_scores(gate: ContextGate, vectors: Tensor, window: Tensor, bank: Tensor, context: Tensor) -> Tensor:
    """s_sem of each region, see `region_similarity`: [R]."""
    return semantic_score(region_similarity(gate, vectors, window, bank, context))


def oddest_region(scores: np.ndarray, at: np.ndarray, windows: int) -> np.ndarray:
    """Number of the region with the largest score in each window, -1 where there is none: int [W]."""
    order = np.argsort(scores, kind="stable")
    best = np.full(windows, -1)
    best[at[order, 0]] = order
    return best


def oddest_places(scores: np.ndarray, at: np.ndarray, windows: int, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Middle of the region with the largest score in each picture of each window, as shares of the picture's width and
    height; NaN where there is none.

    Args:
        scores: [R].
        at: window, picture, row and column of each region [R, 4].
        windows: W.
        grid: rows and columns of cells.

    Returns:
        [W, T, 2], T pictures of a window.
    """
    places, order = np.full((windows, len(CLIP_FRAMES), 2), np.nan), np.argsort(scores, kind="stable")
    places[at[order, 0], at[order, 1]] = (at[order][:, :1:-1] + 0.5) / grid[::-1]  # the largest is written last
    return places


def region_keys(vectors: Tensor, scene: Tensor) -> Tensor:
    """What is remembered of regions [R, E] in scenes [R, S], standardised: unit vectors [R, E + S]."""
    return F.normalize(torch.cat([vectors, SCENE_WEIGHT * F.normalize(scene, dim=-1)], -1), dim=-1)


def remember(keys: Tensor, count: int = REMEMBERED) -> Tensor:
    """Up to `count` of the keys [R, J], drawn by chance, always the same."""
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))[:count]
    return keys[order.sort().values]


def region_novelty(keys: Tensor, memory: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """s_mem of each region: keys [R, J], memory [M, J] -> [R]; 1 where nothing is remembered."""
    if not len(memory):
        return torch.ones(len(keys), device=keys.device)
    return torch.cat([neighbour_score(some, memory, k) for some in keys.split(512)]) if len(keys) else keys.sum(1)


@torch.no_grad()
def one_step_errors(dpc: DPC, stem: Tensor) -> Tensor:
    """1 - cos(predicted, actual) of every cell of each block that enough others precede.

    Args:
        dpc: predictive stream.
        stem: its cached lower layers, of one video [N, C', L', h', w'].

    Returns:
        [N - O, h, w], O = `OBSERVED`: row i belongs to block O + i.
    """
    encoded = encode_long(dpc, stem[None])[0]  # [N, D, h, w]
    observed = dpc.read(encoded[:-1]).unfold(0, OBSERVED, 1).movedim(-1, 1)  # [N - O, O, 3 D, h, w]
    predicted = dpc.network_pred(dpc.sum_up(observed))
    return 1 - F.cosine_similarity(predicted, encoded[OBSERVED:], dim=1)


def moving_errors(errors: Tensor, motion: Tensor, moving_from: float) -> Tensor:
    """The errors of a block's moving cells.

    Args:
        errors: of `one_step_errors` [N - O, h, w].
        motion: of all blocks [N, h, w].
        moving_from: a cell moves where its motion is above this in the block or in the one before.

    Returns:
        [N - O, h, w]; -inf of the cells that do not move.
    """
    moves = motion > moving_from
    moves = (moves[1:] | moves[:-1])[-len(errors) :].to(errors.device)
    return errors.masked_fill(~moves, -torch.inf)


def block_scores(dpc: DPC, stem: Tensor, motion: Tensor, moving_from: float) -> np.ndarray:
    """s_pred of the blocks that a window has for the first time: its first predicted one, and its last.

    Returns:
        [W, 2] float64, of blocks i + O and i + NUM_BLOCKS - 1 for window i; -inf where nothing moves.
    """
    worst = moving_errors(one_step_errors(dpc, stem), motion, moving_from).amax((1, 2)).double().cpu().numpy()
    ahead = NUM_BLOCKS - OBSERVED - 1
    return np.stack([worst[: len(worst) - ahead], worst[ahead:]], 1)


def to_frame_scores(
    name: str, values: np.ndarray, n_frames: int, lowest: float = 0.0, causal: bool = False
) -> np.ndarray:
    """A term of W windows as a term of frames; of a causal one, frames before it is known are NaN.

    Args:
        name: of the term.
        values: [W] one score per window; [W, T] of `strongest`; or [W, 2] of `block_scores`, whose name is "s_pred".
        n_frames: of the video, as far as windows look at them.
        lowest: score where there is nothing to score.
        causal: as a live camera would know it.

    Returns:
        [n_frames] float64.
    """
    if values.ndim == 1:
        return to_frames(values, n_frames, causal, before=np.nan)
    filled = np.where(np.isfinite(values), values, lowest)
    if name == "s_pred":
        return blocks_to_frames(by_block(filled), n_frames, BLOCK_SIGMA, causal, before=np.nan)
    return pictures_to_frames(filled, n_frames, PICTURE_SIGMA, causal, before=np.nan)


def by_block(scores: np.ndarray) -> np.ndarray:
    """What W windows say of all blocks: [W, 2] of `block_scores` -> [W + NUM_BLOCKS - 1], NaN where nothing does."""
    blocks = np.full(len(scores) + NUM_BLOCKS - 1, np.nan)
    blocks[OBSERVED : OBSERVED + len(scores)] = scores[:, 0]
    blocks[NUM_BLOCKS - 1 :] = scores[:, 1]
    return blocks
