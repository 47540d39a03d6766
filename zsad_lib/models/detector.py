r"""The detector of the main method: video embedding, context and gated captions in one space.

Paper: "Context-Aware Zero-Shot Anomaly Detection in Surveillance Using Contrastive and Predictive Spatiotemporal
Modeling", https://arxiv.org/abs/2508.18463. Streams enter as frozen features; only the predictive stream's upper layers
are tuned here.

    v = norm(P([timesformer ; dpc]))                                    paper's plain form
    v = norm(norm(H(x)) + rho * P([timesformer ; dpc]) / sqrt(D))       anchored form, rho = 0.5
    c = W_c (scene - mean) / std
    t'_k = gate(t_k, c)

A projection trained from scratch on normal clips forgets what it has not seen there; the anchor H, pretrained and
frozen, keeps the concepts that captions can name (fights, fires), and P only has to correct it. A window's feature x is
TimeSformer's, of the published streams with CLIP's mean image embedding behind it: then H takes that as it is.

Notebooks: 13_gate_context, 20_train_detector
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad_lib.models.dpc import DPC, DPCOutput
from zsad_lib.models.gates import ContextGate
from zsad_lib.models.projection import build_projection

ANCHOR_WEIGHT = 0.5  # rho: share of the trained residual beside the frozen anchor


class Detector(nn.Module):
    """Trainable parts of the context-aware method around frozen streams.

    Args:
        dpc: predictive stream; its layer4, GRU and prediction head are tuned, the rest is frozen. None: without one.
        video_dim: width of the TimeSformer feature, with which x begins.
        scene_dim: width of the scene feature.
        text_dim: width D of the text vectors.
        context_dim: width C of the context vector.
        gate: kind of `ContextGate`.
        projection: `mlp` or `residual`, with `projection_options` for `build_projection`; `none`: nothing is added to
            the anchor.
        anchor: frozen head of x into the space of texts [..., D]; None for the paper's plain form.
        streams: which features P reads, of `timesformer` and `dpc`; fewer only to measure what each one brings.

    Shapes:
        `embed`: x [B, >= video_dim], [B, D_dpc] -> unit vectors [B, D]; `context`: [B, scene_dim] -> [B, C].
    """

    def __init__(
        self,
        dpc: DPC | None,
        video_dim: int = 768,
        scene_dim: int = 512,
        text_dim: int = 512,
        context_dim: int = 128,
        gate: str = "relevance",
        projection: str = "residual",
        anchor: nn.Module | None = None,
        streams: tuple[str, ...] = ("timesformer", "dpc"),
        **projection_options,
    ):
        super().__init__()
        self.dpc = dpc and dpc.requires_grad_(False)
        for parameter in dpc.tuned_parameters() if dpc else ():
            parameter.requires_grad_(True)
        self.streams, self.video_dim = streams, video_dim
        self.projection = None
        if projection != "none":
            widths = {"timesformer": video_dim, "dpc": dpc.backbone.channels}
            width = sum(widths[name] for name in streams)
            self.projection = build_projection(projection, width, text_dim, **projection_options)
        self.context_projection = nn.Linear(scene_dim, context_dim)
        self.gate = ContextGate(gate, text_dim, context_dim)
        self.anchor = anchor.requires_grad_(False) if anchor is not None else None
        self.register_buffer("moving_from", torch.tensor(torch.nan))  # of `local_readout.moving_errors`
        self.register_buffer("scene_mean", torch.zeros(scene_dim))
        self.register_buffer("scene_std", torch.ones(scene_dim))

    def fit_scene_statistics(self, scene: Tensor) -> None:
        """Mean and standard deviation of the scene features of all training windows [N, scene_dim]."""
        self.scene_mean.copy_(scene.mean(0))
        self.scene_std.copy_(scene.std(0).clamp_min(1e-6))

    def standardised(self, scene: Tensor) -> Tensor:
        """Scene features, standardised on the training windows; their cosine says which scenes are alike."""
        return (scene - self.scene_mean) / self.scene_std

    def scene_along(self, direction: Tensor) -> Tensor:
        """Scene feature sqrt(S) standard deviations, as usual, from the mean: unit directions [..., S] -> [..., S]."""
        return self.scene_mean + self.scene_std * direction * direction.shape[-1] ** 0.5

    def context(self, scene: Tensor) -> Tensor:
        """c: [B, scene_dim] -> [B, C]."""
        return self.context_projection(self.standardised(scene))

    def residual(self, timesformer: Tensor, dpc: Tensor) -> Tensor:
        """P([timesformer ; dpc]) / sqrt(D), [B, D]: what training adds to the anchor; [B, 1] of 0 without P."""
        if self.projection is None:
            return timesformer.new_zeros(len(timesformer), 1)
        features = {"timesformer": timesformer[:, : self.video_dim], "dpc": dpc}
        x = self.projection(torch.cat([features[name] for name in self.streams], dim=-1))
        return x / x.shape[-1] ** 0.5

    def embed(self, timesformer: Tensor, dpc: Tensor, residual: Tensor | None = None) -> Tensor:
        """v: features [B, video_dim] and GRU state's mean over space [B, D_dpc] -> unit vectors [B, D].

        `residual`: what `residual` gives for the same features, where it has been computed.
        """
        if self.projection is None:
            return F.normalize(self.anchor(timesformer), dim=-1)
        x = self.residual(timesformer, dpc) if residual is None else residual
        if self.anchor is not None:
            x = F.normalize(self.anchor(timesformer), dim=-1) + ANCHOR_WEIGHT * x
        return F.normalize(x, dim=-1)

    def predict(self, stem: Tensor, steps: int | None = None) -> DPCOutput:
        """Predictive stream from its cached lower layers: [B, N, C', L', h', w'] -> prediction, truth and GRU state;
        `steps` as in `DPC.predict`."""
        return self.dpc.predict(self.dpc.encode_from_stem(stem.float()), steps)
