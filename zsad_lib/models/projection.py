"""Projection P of the joined video features into CLIP's text space: v = norm(P([timesformer ; dpc])).

Paper: "Context-Aware Zero-Shot Anomaly Detection in Surveillance Using Contrastive and Predictive Spatiotemporal
Modeling", https://arxiv.org/abs/2508.18463 (``residual``), and its released code (``mlp``).

Notebook: 20_train_detector
"""

from torch import Tensor, nn

from zsad_lib.models.names import choose


class _ResidualBlock(nn.Module):
    """x -> LN(x + Linear(h,n)(Dropout(LN(Linear(n,h)(x)))))."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.branch(x))


def mlp(in_dim: int, out_dim: int) -> nn.Sequential:
    """Linear(n,n) GELU LN Linear(n,out) LN, as released."""
    return nn.Sequential(
        nn.Linear(in_dim, in_dim), nn.GELU(), nn.LayerNorm(in_dim), nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim)
    )


def residual(
    in_dim: int, out_dim: int, blocks: int = 2, hidden: int | None = None, dropout: float = 0.1
) -> nn.Sequential:
    """Linear(n,n) LN GELU, then N blocks [Linear(n,h) LN Dropout Linear(h,n) + skip, LN], then Linear(n,out) LN.

    The paper does not publish N, h and the dropout: 2 blocks, h = n and 0.1 are this kit's choice.
    """
    return nn.Sequential(
        nn.Linear(in_dim, in_dim), nn.LayerNorm(in_dim), nn.GELU(),
        *(_ResidualBlock(in_dim, hidden or in_dim, dropout) for _ in range(blocks)),
        nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim),
    )  # fmt: skip


PROJECTIONS = {"mlp": mlp, "residual": residual}


def build_projection(kind: str, in_dim: int, out_dim: int, **options) -> nn.Sequential:
    """Projection [B, in_dim] -> [B, out_dim]; its output is not yet normalised.

    Args:
        kind: ``mlp`` (released code) or ``residual`` (paper).
        in_dim: Width n of the joined features.
        out_dim: Width of the text vectors.
        options: Only for ``residual``: ``blocks`` N, ``hidden`` h, ``dropout`` in 0..1.

    Raises:
        ZsadError: unknown kind; names the nearest valid one.
    """
    return choose("projection", kind, PROJECTIONS)(in_dim, out_dim, **options)
