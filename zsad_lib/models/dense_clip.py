r"""Dense CLIP: what each patch of a picture looks like in the space of CLIP's text, from the image tower alone.

    z_p = W_proj ln_post(W_out (W_v ln_1(x_p) + b_v) + b_out)

x_p is patch p before the last block: there its own value stands for it. Attention would mix the whole picture into it,
and the residual and the MLP serve the class token, which alone was trained to meet a text. Positions are resampled, so
that a picture may have any size of whole patches.

Paper: Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP", ECCV 2022, https://arxiv.org/abs/2112.01071, Sec. 3.2.

Notebook: 23_find_in_stream
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad_lib.errors import ZsadError


class DenseCLIP(NamedTuple):
    """What the image tower says of B pictures, not of unit length."""

    picture: Tensor  # [B, E] as `encode_image`
    patches: Tensor  # [B, rows, columns, E]


def encode_densely(clip: nn.Module, pixels: Tensor) -> DenseCLIP:
    """Pictures and their patches in one pass.

    Args:
        clip: open_clip model with a vision transformer, as `build_clip` gives it.
        pixels: [B, 3, H, W], normalised; H and W multiples of the tower's patch size.

    Raises:
        ZsadError: another kind of image tower, or a size that is no multiple of its patches.
    """
    visual = clip.visual
    if not hasattr(visual, "transformer") or getattr(visual, "attn_pool", None) is not None:
        raise ZsadError(f"dense CLIP: {type(visual).__name__} is no plain vision transformer; take ViT-B-16")
    sides, patch = tuple(pixels.shape[-2:]), visual.patch_size
    if any(side % step for side, step in zip(sides, patch)):
        raise ZsadError(f"dense CLIP: {sides} pixels are no whole number of patches of {patch}")
    grid = tuple(side // step for side, step in zip(sides, patch))
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # [B, rows * columns, D]
    x = torch.cat([visual.class_embedding.to(x).expand(len(x), 1, -1), x], 1)
    x = visual.ln_pre(x + positions(visual, grid).to(x))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = _pass(block, x)
    attention = last.attn  # W_q, W_k and W_v lie in one matrix
    value = F.linear(last.ln_1(x[:, 1:]), attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2])
    patches = visual.ln_post(attention.out_proj(value)) @ visual.proj
    picture = visual.ln_post(_pass(last, x)[:, 0]) @ visual.proj
    return DenseCLIP(picture, patches.unflatten(1, grid))


def _pass(block: nn.Module, x: Tensor) -> Tensor:
    """A residual block of open_clip's tower on tokens [B, N, D].

    Its own attention puts the tokens first, and such a view times frozen weights is multiplied picture by picture, in
    bfloat16 on a CPU with a copy of the weights for each: seven times slower.
    """
    attention, h = block.attn, block.ln_1(x)
    heads = F.linear(h, attention.in_proj_weight, attention.in_proj_bias)  # [B, N, 3 D]
    q, k, v = heads.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, N, D / heads] each
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + block.ls_1(attention.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def positions(visual: nn.Module, grid: tuple[int, int]) -> Tensor:
    """Position embeddings for another grid of patches, bicubic: [1 + rows * columns, D], the class token's first."""
    known, own = visual.positional_embedding, tuple(visual.grid_size)
    if grid == own:
        return known
    table = known[1:].unflatten(0, own).permute(2, 0, 1)[None].float()  # [1, D, rows, columns]
    resampled = F.interpolate(table, grid, mode="bicubic", align_corners=False)[0].flatten(1).T
    return torch.cat([known[:1], resampled.to(known)])
