r"""Context gates t' = gate(t, c): how the scene c changes what a caption t means.

Paper: "Context-Aware Zero-Shot Anomaly Detection in Surveillance Using Contrastive and Predictive Spatiotemporal
Modeling", https://arxiv.org/abs/2508.18463 (``ln``), its released code (``silu``) and README (``film``); ``relevance``
and the others are this kit's own. ``silu`` and ``ln`` only add a scene vector to the text: a shift cannot say that
cycling is normal here but not there. In ``film``, ``cross_attention`` and ``residual_mlp`` text and scene interact, and
captions move; ``bilinear`` and ``relevance`` leave captions where they are and close those that do not belong.

A gate is a class in `GATES` with ``__init__(text_dim, context_dim)``, ``forward(text [..., D], context [..., C])`` ->
[..., D], leading dimensions broadcast, and a flag ``unit``: whether the result is scaled to norm 1.

Notebooks: 13_gate_context, 30_ablate_gate
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad_lib.errors import ZsadError
from zsad_lib.models.names import choose


class NoGate(nn.Module):
    """t' = t: the control without context."""

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return text.expand(*torch.broadcast_shapes(text.shape[:-1], context.shape[:-1]), -1)


class SiluGate(nn.Module):
    """h = W c + b; t' = t + sigmoid(h) * h. Released code."""

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.shift = nn.Linear(context_dim, text_dim)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return text + F.silu(self.shift(context))  # silu(h) = sigmoid(h) * h


class LnGate(nn.Module):
    """h = LN(Dropout(W c)); t' = t + beta * sigmoid(h) * h, beta a learned scalar. Paper: "LN-Gate, beta residual".

    Dropout 0.1 and beta's start 0.1 are not published: h has unit variance per dimension, so that a beta of 1 would
    start with a shift many times longer than t.
    """

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.shift = nn.Linear(context_dim, text_dim)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(text_dim)
        self.beta = nn.Parameter(torch.tensor(0.1))

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return text + self.beta * F.silu(self.norm(self.dropout(self.shift(context))))


class FilmGate(nn.Module):
    """t' = (1 + gamma(c)) * t + delta(c), gamma and delta linear. What the released code's README claims."""

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(context_dim, text_dim)
        self.delta = nn.Linear(context_dim, text_dim)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return (1 + self.gamma(context)) * text + self.delta(context)


class RelevanceGate(nn.Module):
    """t' = r * t, r = sigmoid(b + MLP([sqrt(D) t ; c])) in 0..1, one scalar per caption and scene.

    The MLP has 64 hidden units; sqrt(D) gives the unit vector t unit variance per dimension; b, the bias of the last
    layer, starts at 2, so that the gate starts open (r about 0.88). The result keeps its length r: scaling it to norm 1
    would undo the gate.
    """

    unit = False

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(text_dim + context_dim, 64)
        self.out = nn.Linear(64, 1)
        nn.init.constant_(self.out.bias, 2.0)

    def relevance(self, text: Tensor, context: Tensor) -> Tensor:
        """r for text [..., D] and context [..., C], leading dimensions broadcast -> [...]."""
        return self.out(_joined(self.hidden, text, context)).squeeze(-1).sigmoid()

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return self.relevance(text, context).unsqueeze(-1) * text


class BilinearGate(nn.Module):
    """t' = r * t, r = sigmoid(b + (U sqrt(D) t) . (V c) / sqrt(k)), low-rank bilinear relevance.

    Rank k = 32 and b, which starts at 2 as in `RelevanceGate`: the simplest form in which text and context multiply.
    """

    unit = False

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.of_text = nn.Linear(text_dim, 32, bias=False)
        self.of_context = nn.Linear(context_dim, 32)
        self.bias = nn.Parameter(torch.tensor(2.0))

    def relevance(self, text: Tensor, context: Tensor) -> Tensor:
        """r for text [..., D] and context [..., C], leading dimensions broadcast -> [...]."""
        product = self.of_text(text * text.shape[-1] ** 0.5) * self.of_context(context)  # [..., k]
        return (self.bias + product.sum(-1) / product.shape[-1] ** 0.5).sigmoid()

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return self.relevance(text, context).unsqueeze(-1) * text


class CrossAttentionGate(nn.Module):
    """t' = t + sum_m a_m W_m c, a = softmax_m((Q t) . (K_m c) / sqrt(k)): the caption attends to M views of the scene.

    One context vector alone would always get attention 1, so it is read through M = 8 linear views; k = 32.
    """

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(text_dim, 32)
        self.keys = nn.Linear(context_dim, 8 * 32)
        self.values = nn.Linear(context_dim, 8 * text_dim)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        keys = self.keys(context).unflatten(-1, (8, -1))  # [..., M, k]
        values = self.values(context).unflatten(-1, (8, -1))  # [..., M, D]
        query = self.query(text * text.shape[-1] ** 0.5)  # [..., k]
        attention = (torch.einsum("...k,...mk->...m", query, keys) / query.shape[-1] ** 0.5).softmax(-1)
        return text + torch.einsum("...m,...md->...d", attention, values)


class ResidualMlpGate(nn.Module):
    """t' = t + MLP([sqrt(D) t ; c]), 64 hidden units: an interaction that moves captions, unlike `RelevanceGate`."""

    unit = True

    def __init__(self, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(text_dim + context_dim, 64)
        self.out = nn.Linear(64, text_dim)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return text + self.out(_joined(self.hidden, text, context))


def _joined(layer: nn.Linear, text: Tensor, context: Tensor) -> Tensor:
    """gelu(layer([sqrt(D) t ; c])), applied to each part once instead of to every pair: -> [..., hidden]."""
    D = text.shape[-1]
    from_text = F.linear(text * D**0.5, layer.weight[:, :D])
    return F.gelu(from_text + F.linear(context, layer.weight[:, D:], layer.bias))


GATES = {
    "none": NoGate,
    "silu": SiluGate,
    "ln": LnGate,
    "film": FilmGate,
    "cross_attention": CrossAttentionGate,
    "residual_mlp": ResidualMlpGate,
    "bilinear": BilinearGate,
    "relevance": RelevanceGate,
}


class ContextGate(nn.Module):
    """Gate of one kind for banks of captions and for pairs (module docstring: kinds, equations).

    Args:
        kind: Key of `GATES`.
        text_dim: Width D of the text vectors.
        context_dim: Width C of the context vectors.

    Raises:
        ZsadError: unknown kind; names the nearest valid one.

    >>> gate = ContextGate("relevance", text_dim=8, context_dim=4)
    >>> gate(torch.randn(5, 8), torch.randn(2, 4)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, kind: str, text_dim: int, context_dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.rule = choose("context gate", kind, GATES)(text_dim, context_dim)

    def paired(self, text: Tensor, context: Tensor) -> Tensor:
        """gate(t, c) of text [..., D] with context [..., C], leading dimensions broadcast -> [..., D].

        With text [B, D] and context [B, C] each caption meets its own context.
        """
        gated = self.rule(text, context)
        return F.normalize(gated, dim=-1) if self.rule.unit else gated

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        """Every caption under every context: text [K, D], context [B, C] -> [B, K, D]."""
        return self.paired(text.unsqueeze(0), context.unsqueeze(1))

    def logits(self, v: Tensor, text: Tensor, context: Tensor, chunk: int = 1 << 22) -> Tensor:
        """Similarities v_b . gate(t_k, c_b) without the whole [B, K, D]: captions go in parts.

        Args:
            v: Video embeddings [B, D].
            text: Caption bank [K, D].
            context: Context [B, C] of each video.
            chunk: Most numbers held in one part.

        Returns:
            [B, K], equal to ``einsum("bd,bkd->bk", v, self(text, context))``.
        """
        size = max(1, chunk // max(1, v.numel()))
        return torch.cat([torch.einsum("bd,bkd->bk", v, self(t, context)) for t in text.split(size)], dim=1)

    def relevance(self, text: Tensor, context: Tensor) -> Tensor:
        """r(t_k, c_b) in 0..1: text [K, D], context [B, C] -> [B, K].

        Raises:
            ZsadError: this kind of gate moves captions and has no relevance.
        """
        if not hasattr(self.rule, "relevance"):
            raise ZsadError(f"context gate {self.kind!r} has no relevance; choose 'relevance' or 'bilinear'")
        return self.rule.relevance(text.unsqueeze(0), context.unsqueeze(1))
