r"""L = alpha * L_align + (1 - alpha) * L_pred of one batch (paper: arXiv 2508.18463).

Notebook: 20_train_detector
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from zsad_lib.features.window_plan import OBSERVED
from zsad_lib.losses import cpc_loss, info_nce, moving_cells_loss, rejection_loss, swap_partners, swap_similarities
from zsad_lib.methods.context_aware import gradient_windows
from zsad_lib.methods.context_aware.region_pairs import RegionPairs
from zsad_lib.methods.context_aware.training_windows import Windows, gather_blocks
from zsad_lib.methods.context_aware.variants import Variant
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPCOutput


def joint_loss(
    detector: Detector,
    windows: Windows,
    batch: Tensor,
    variant: Variant,
    alpha: float,
    released: tuple[str, ...],
    generator: Generator,
    chunk: int = 0,
) -> dict[str, Tensor]:
    r"""L = alpha * L_align + (1 - alpha) * L_pred of one batch, the same in every process.

    Where the variant is anchored, L_align has a penalty beside it: residual_penalty * mean |P|^2.

    Args:
        batch: numbers of the windows [B]; of the first `variant.live`, the predictive stream is computed anew, with
            gradient.
        alpha: weight of L_align, 0..1, unless the variant has one.
        released: switches of `DEFECTS` that act in training.
        generator: random numbers, on the CPU.
        chunk: gradient windows per pass with graph, see `gradient_windows.predict_with_gradient`.

    Returns:
        `loss`, `align`, `pred` and `residual`, scalars.
    """
    terms = local_terms if variant.readout == "local" else global_terms
    align, pred, penalty = terms(detector, windows, batch, variant, How(released, generator, chunk))
    alpha = alpha if variant.alpha is None else variant.alpha
    loss = alpha * (align + penalty) + (1 - alpha) * pred if variant.live else align + penalty
    return {"loss": loss, "align": align, "pred": pred, "residual": penalty}


Terms = tuple[Tensor, Tensor, Tensor]  # L_align, L_pred, penalty; scalars


class How(NamedTuple):
    """How a batch is computed, see `joint_loss`."""

    released: tuple[str, ...]
    generator: Generator
    chunk: int


def global_terms(detector: Detector, windows: Windows, batch: Tensor, variant: Variant, how: How) -> Terms:
    """Windows by their one vector, as published; arguments as in `joint_loss`."""
    with_gradient = windows.clip_and_block[batch[: variant.live]]
    state, pred, penalty = windows.dpc[batch], torch.zeros(()), torch.zeros(())
    if len(with_gradient):
        out = gradient_windows.predict_with_gradient(detector, windows.stem, with_gradient, how.chunk)
        state = torch.cat([out.context.mean((-2, -1)), state[len(with_gradient) :]])
    residual = detector.residual(windows.timesformer[batch], state)
    v = detector.embed(windows.timesformer[batch], state, residual)
    c = project_context(detector, windows.context[batch], how.released)
    align = alignment_loss(detector, windows, batch, v, c, variant, how.generator)
    if variant.anchored:
        penalty = variant.residual_penalty * residual.float().square().sum(-1).mean()
    if len(with_gradient):
        pred = prediction_loss(out, windows, with_gradient, variant, how.released, how.generator)
    return align, pred, penalty


def local_terms(detector: Detector, windows: Windows, batch: Tensor, variant: Variant, how: How) -> Terms:
    """Regions and their clauses, whose vectors stay as they are; and of windows of its own the one block that the score
    looks at.

    No weight is in both: alpha only says how the gradient's clipping weighs them. `batch` are numbers of region pairs
    [B]; the other arguments are those of `joint_loss`.
    """
    pred = torch.zeros(())
    if variant.live:
        drawn = torch.randint(len(windows.predicted), (variant.live,), generator=how.generator)
        indices = windows.predicted[drawn]
        out = gradient_windows.predict_with_gradient(detector, windows.stem, indices, how.chunk, steps=1)
        pred = prediction_loss(out, windows, indices, variant, how.released, how.generator)
    return (
        region_alignment_loss(detector, windows.pairs, batch, variant, how.released, how.generator),
        pred,
        torch.zeros(()),
    )


def region_alignment_loss(
    detector: Detector,
    pairs: RegionPairs,
    batch: Tensor,
    variant: Variant,
    released: tuple[str, ...],
    generator: Generator,
) -> Tensor:
    """L_align of the regions v [B, E] and their clauses under the gate; equal clauses are no negatives of each
    other."""
    v, clause = pairs.vector[batch], pairs.clause[batch]
    text, c = pairs.bank[clause], project_context(detector, pairs.context[batch], released)
    gated, swapped = detector.gate.paired(text, c), None
    if variant.objective != "plain":
        partners, valid = swap_partners(pairs.scene[batch], variant.swaps, variant.max_cosine, generator)
        swapped = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, gated, same=clause[:, None] == clause[None], extra=swapped)
    return align + rejection_loss((v * gated).sum(-1), swapped) if variant.objective == "reject" else align


def alignment_loss(
    detector: Detector, windows: Windows, batch: Tensor, v: Tensor, c: Tensor, variant: Variant, generator: Generator
) -> Tensor:
    """L_align: symmetric InfoNCE of the windows v [B, D] and their captions under the gate, t' = gate(t, c).

    Windows of one clip or of equal captions are no negatives of each other. The objectives `swap` and `reject` add each
    caption under the contexts of dissimilar scenes as negatives, `reject` a hinge on them as well.
    """
    text, caption, clip = windows.text[batch], windows.caption[batch], windows.clip_and_block[batch, 0]
    same = (caption[:, None] == caption[None]) | (clip[:, None] == clip[None])  # [B, B]
    gated, swapped = detector.gate.paired(text, c), None
    if variant.objective != "plain":
        partners, valid = swap_partners(windows.scene[batch], variant.swaps, variant.max_cosine, generator)
        swapped = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, gated, same=same, extra=swapped)
    return align + rejection_loss((v * gated).sum(-1), swapped) if variant.objective == "reject" else align


def prediction_loss(
    out: DPCOutput, windows: Windows, indices: Tensor, variant: Variant, released: tuple[str, ...], generator: Generator
) -> Tensor:
    """L_pred: CPC loss of the gradient windows at `indices` [B, 2], on cosines of moving cells or, as published, on all
    cells."""
    if variant.cells == "moving":
        steps = out.predicted.shape[1]
        motion = gather_blocks(windows.cell_motion, indices, OBSERVED + steps)[:, -steps:].to(indices.device)
        return moving_cells_loss(out.predicted, out.actual, motion, generator)
    return cpc_loss(out.predicted, out.actual, 0.07 if "cpc_temperature" in released else 1.0)


def project_context(detector: Detector, context: Tensor, released: tuple[str, ...]) -> Tensor:
    """c [B, context_dim]; under the released defect `context_projection` its projection stays random, as no gradient
    reaches it."""
    c = detector.context(context)
    return c.detach() if "context_projection" in released else c
