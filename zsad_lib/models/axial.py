r"""Axial transformer over a grid of segments x frames, in reversible pairs: AnomalyCLIP's temporal model.

Papers: Ho et al., "Axial Attention in Multidimensional Transformers", 2019, https://arxiv.org/abs/1912.12180; Gomez et
al., "The Reversible Residual Network", NeurIPS 2017, https://arxiv.org/abs/1707.04585, Eq. (6). The grid [C, N, S]
holds N segments of S frames: attention along N compares moments of the whole video, attention along S neighbouring
frames.

Notebook: 42_attend_along_axes
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEGMENTS, FRAMES = 2, 3  # axes of a grid [B, C, N, S]
REACH = 2  # segments on each side that a feed-forward sees: one per convolution
# a segment by itself costs its pair of feed-forwards 7 + 5 + 3 + 1 rows of convolution, a whole grid 4 rows per segment
STRIPS = 4


class AxisAttention(nn.Module):
    """Pre-norm multi-head self-attention along one axis of the grid; every line of the other axis is a sequence of its
    own."""

    def __init__(self, dim: int, heads: int, axis: int) -> None:
        super().__init__()
        self.heads, self.axis = heads, axis
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N, S] -> [B, C, N, S]."""
        lines = x.movedim((1, self.axis), (3, 2))  # [B, other axis, L, C]
        normed = self.norm(lines)
        projected = (self.to_q(normed), *self.to_kv(normed).chunk(2, dim=-1))
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(2, 3) for x in projected
        )  # [B, other, heads, L, C/heads]
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(-2)
        return self.to_out(y).movedim((3, 2), (1, self.axis))


class ChannelNorm(nn.Module):
    """LayerNorm over a grid's channels; as published, epsilon adds to the standard deviation, not to the variance."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N, S] -> [B, C, N, S]."""
        variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
        return (x - mean) / (variance.sqrt() + self.eps) * self.g + self.b


class ConvFeedForward(nn.Sequential):
    """Feed-forward that sees the eight neighbours in the grid: 3x3 to four times the width, LeakyReLU, 3x3 back."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            ChannelNorm(dim),
            nn.Conv2d(dim, 4 * dim, 3, padding=1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(4 * dim, dim, 3, padding=1),
        )

    def inner(self, x: Tensor, inside: Tensor) -> Tensor:
        """The same for a strip of segments [B, C, W, S], without its outer `REACH` on both sides: -> [B, C, W-4, S].

        `inside` [B, 1, W, 1] is 0 for segments beyond the grid's ends, where the whole grid would be padded with zeros.
        """
        norm, widen, activation, narrow = self
        hidden = activation(_convolve_inner(widen, norm(x) * inside)) * inside[:, :, 1:-1]  # [B, 4 C, W-2, S]
        return _convolve_inner(narrow, hidden)


def _convolve_inner(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution that pads frames and no segments: [B, C, W, S] -> [B, C', W-2, S]."""
    return F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))


def _pick_segments(x: Tensor, video: Tensor, segments: Tensor) -> Tensor:
    """Some segments of a grid [B, C, N, S]: videos [M, 1] and segments [M, W] by index -> [M, C, W, S]."""
    return x.movedim(2, 1)[video, segments].movedim(1, 2)


class ReversibleBlock(nn.Module):
    """y1 = x1 + f(x2), y2 = x2 + g(y1): the inputs can be had back from the outputs.

    Gomez et al. use this to save memory and compute f and g once more for it; at this model's size memory is not short,
    so activations are kept and that time is saved.
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Two streams [B, C, N, S] -> two streams."""
        y1 = x1 + self.f(x2)
        return y1, x2 + self.g(y1)

    def at(self, x1: Tensor, x2: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs at some segments only, of a pair of feed-forwards: [B, C, N, S], [B, K] in 0..N-1 -> [B, C, K,
        S].

        g at a segment reads y1 of `REACH` neighbours on both sides, and f there as many further ones.
        """
        batch, wanted = segments.shape
        reach = torch.arange(-2 * REACH, 2 * REACH + 1, device=segments.device)
        strip = segments.flatten()[:, None] + reach  # [B*K, 9]
        inside = (strip >= 0) & (strip < x1.shape[2])
        strip, inside = strip.clamp(0, x1.shape[2] - 1), inside[:, None, :, None].to(x1.dtype)
        video = torch.arange(batch, device=segments.device).repeat_interleave(wanted)[:, None]
        centre = slice(REACH, -REACH)
        y1 = _pick_segments(x1, video, strip[:, centre]) + self.f.inner(_pick_segments(x2, video, strip), inside)
        y2 = _pick_segments(x2, video, segments.view(-1, 1)) + self.g.inner(y1, inside[:, :, centre])
        return tuple(y.squeeze(2).unflatten(0, (batch, wanted)).movedim(1, 2) for y in (y1[:, :, centre], y2))


class AxialTransformer(nn.Module):
    """Learned positions of both axes, then per layer a reversible pair of attentions and one of feed-forwards.

    Args:
        dim: channels C.
        depth: layers.
        heads: attention heads; divides ``dim``.
        segments: N.
        frames: S, per segment.

    >>> AxialTransformer(8, 1, 2, segments=4, frames=3)(torch.zeros(2, 8, 4, 3)).shape
    torch.Size([2, 8, 4, 3])
    """

    def __init__(self, dim: int, depth: int, heads: int, segments: int, frames: int) -> None:
        super().__init__()
        self.segment_positions = nn.Parameter(torch.randn(1, dim, segments, 1))
        self.frame_positions = nn.Parameter(torch.randn(1, dim, 1, frames))
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            self.blocks.append(ReversibleBlock(*(AxisAttention(dim, heads, axis) for axis in (SEGMENTS, FRAMES))))
            self.blocks.append(ReversibleBlock(ConvFeedForward(dim), ConvFeedForward(dim)))

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """[B, C, N, S] -> [B, C, N, S], the mean of both streams; or, with `segments` [B, K], their part [B, C, K, S]
        alone.

        Every layer but the last pair of feed-forwards mixes all segments, so that pair is what few segments save.
        """
        x = x + self.segment_positions + self.frame_positions
        streams = (x, x)
        *first, last = self.blocks
        for block in first:
            streams = block(*streams)
        if segments is None:
            return sum(last(*streams)) / 2
        if STRIPS * segments.shape[1] < x.shape[2]:
            return sum(last.at(*streams, segments)) / 2
        return _pick_segments(sum(last(*streams)) / 2, torch.arange(len(x), device=x.device)[:, None], segments)
