r"""Attention rollout: how much of each patch of each frame can have reached the class token through the attention.

Paper: Abnar, Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, https://arxiv.org/abs/2005.00928, Sec. 3:
attention of successive layers is multiplied, with half of each layer being the residual connection,

    R = B_L ... B_1,   B = (A_space + I)/2 (A_time + I)/2

The kit's reading for the divided attention of `zsad_lib.models.timesformer`, with A over all 1 + N*T tokens: A_time
mixes the frames of a place and leaves the class token alone; A_space mixes the places of a frame with the class token,
whose T answers are averaged. Both are means over the heads; values, MLPs and norms do not enter. It shows where
information is read. It does not say what caused a score.

R is never built: its row of the class token is a vector, which passes through the blocks from the last to the first.

Notebook: 51_explain_a_score
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import Attention
from torch import Tensor

from zsad_lib.models.timesformer import TimeSformer


def attention_weights(layer: Attention, x: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) of one attention layer, which its fused forward pass keeps to itself: [..., L, D] ->
    [..., heads, L, L]."""
    qkv = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1))  # [..., L, 3, heads, d]
    q, k, _ = qkv.movedim(-3, 0).transpose(-2, -3)  # [..., heads, L, d]
    return (q @ k.mT * layer.scale).softmax(-1)


@contextmanager
def record_attention(model: TimeSformer) -> Iterator[dict[Attention, Tensor]]:
    """Receives the weights of every attention layer that runs inside the block, mean over the heads [..., L, L]."""
    weights: dict[Attention, Tensor] = {}

    def keep(layer: Attention, inputs: tuple[Tensor, ...]) -> None:
        weights[layer] = attention_weights(layer, inputs[0]).mean(-3)

    layers = [layer for block in model.blocks for layer in (block.temporal_attn, block.attn)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def rollout(model: TimeSformer, video: Tensor) -> Tensor:
    """R = B_L ... B_1, the class token's row: relevance of each patch in each frame (module docstring: paper,
    equation).

    Args:
        model: in eval mode, folded or not.
        video: [B, 3, T, H, W], normalised frames.

    Returns:
        [B, T, rows, columns], 0 or more. A window's sum is below 1; what is missing is the share that the class token
        keeps.
    """
    with record_attention(model) as weights:
        model.tokens(video)
    B, T, (rows, columns) = len(video), video.shape[2], model.patch_embed.grid_size
    cls, places = video.new_ones(B), video.new_zeros(B, rows * columns, T)  # the row of R so far
    for block in reversed(model.blocks):
        space = weights[block.attn].unflatten(0, (B, T))  # [B, T, 1 + N, 1 + N]
        copies = (cls / T).view(B, 1, 1).expand(B, T, 1)  # of the class token, one per frame
        frames = torch.cat([copies, places.mT], 2)  # [B, T, 1 + N]
        frames = (frames + torch.einsum("btp,btpq->btq", frames, space)) / 2
        cls, places = frames[:, :, 0].sum(1), frames[:, :, 1:].mT
        time = weights[block.temporal_attn].unflatten(0, (B, -1))  # [B, N, T, T]
        places = (places + torch.einsum("bnt,bnts->bns", places, time)) / 2
    return places.mT.unflatten(2, (rows, columns))
