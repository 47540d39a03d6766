r"""Context gates t' = gate(t, c): how the scene c changes what a caption t means.

Paper: "Context-Aware Zero-Shot Anomaly Detection in Surveillance Using Contrastive and Predictive Spatiotemporal
Modeling", https://arxiv.org/abs/2508.18463 (``ln``), its released code (``silu``) and README (``film``); ``relevance``
is this kit's own. ``silu`` and ``ln`` only add a scene vector to the text: a shift cannot say that cycling is normal
here but not there. ``relevance`` leaves captions where they are and closes those that do not belong to the scene.

A gate is a class in `GATES` with ``__init__(text_dim, context_dim)``, ``forward(text [..., D], context [..., C])`` ->
[..., D], leading dimensions broadcast, and a flag ``unit``: whether the result is scaled to norm 1.
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
    """t' = r * t, r = sigmoid(b + MLP([sqrt(D) t ; c])) in 0..1, one scalar per caption and scene. This kit's own.

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
        D = text.shape[-1]
        # one linear layer on [t ; c], applied to each part once instead of to every pair
        from_text = F.linear(text * D**0.5, self.hidden.weight[:, :D])
        from_context = F.linear(context, self.hidden.weight[:, D:], self.hidden.bias)
        return self.out(F.gelu(from_text + from_context)).squeeze(-1).sigmoid()

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        return self.relevance(text, context).unsqueeze(-1) * text


GATES = {"none": NoGate, "silu": SiluGate, "ln": LnGate, "film": FilmGate, "relevance": RelevanceGate}


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
        part = max(1, chunk // max(1, v.numel()))
        return torch.cat([torch.einsum("bd,bkd->bk", v, self(t, context)) for t in text.split(part)], dim=1)

    def relevance(self, text: Tensor, context: Tensor) -> Tensor:
        """r(t_k, c_b) in 0..1: text [K, D], context [B, C] -> [B, K].

        Raises:
            ZsadError: this kind of gate moves captions and has no relevance.
        """
        if not hasattr(self.rule, "relevance"):
            raise ZsadError(f"context gate {self.kind!r} has no relevance; choose 'relevance'")
        return self.rule.relevance(text.unsqueeze(0), context.unsqueeze(1))
