"""The ways to build and train the detector, each a row of settings.

Notebook: 20_train_detector
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from zsad_lib.config import Profile
from zsad_lib.features.backbones import Backbones
from zsad_lib.models.detector import Detector


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to build and train the detector."""

    gate: str = "relevance"  # kind of context gate
    readout: Literal["global", "local"] = "global"  # what meets the captions: a window's one vector, or its regions
    projection: Literal["mlp", "residual", "none"] = "residual"  # P; none: the anchor as it is
    blocks: int = 2  # of a residual P
    streams: tuple[str, ...] = ("timesformer", "dpc")  # what P reads
    anchored: bool = True  # P corrects the frozen video head instead of replacing it
    objective: Literal["plain", "swap", "reject"] = "swap"  # InfoNCE; with context-swap negatives; with a hinge as well
    swaps: int = 8  # context swaps per clip
    max_cosine: float = 0.7  # scenes below this cosine count as dissimilar
    context: Literal["scene", "shuffled", "zero", "global"] = "scene"  # what the gate sees; the others are controls
    context_dim: int = 32  # width of c (128 in the paper, on 512-d scene features)
    cells: Literal["moving", "all"] = "moving"  # L_pred: cosines of moving cells, or the published loss over all cells
    residual_penalty: float = 20.0  # weight of |P|^2 where anchored
    batch: int = 192  # windows per step of L_align
    passes: int = 1  # factor of the profile's steps
    live: int = 8  # windows per step of L_pred; 0: the predictive stream stays as pretrained, and L = L_align
    alpha: float | None = None  # weight of L_align, 0..1; None: the profile's
    lr: float = 1e-3  # projection, gate, context projection
    lr_dpc: float = 1e-4  # layer4, ConvGRU, prediction head
    weight_decay: float = 1e-4


VARIANTS = {
    "full": Variant(readout="local", projection="none", passes=10, live=16, lr=3e-3, lr_dpc=2e-3),
    "paper": Variant("ln", anchored=False, objective="plain", cells="all"),  # plain losses, residual projection
}


def build_detector(variant: Variant, backbones: Backbones) -> Detector:
    """An untrained detector on the widths of some streams."""
    options = {"blocks": variant.blocks} if variant.projection == "residual" else {}
    width = backbones.video_dim if variant.context == "global" else backbones.scene_dim
    detector = Detector(
        backbones.dpc, backbones.video_dim, width, backbones.text_dim, variant.context_dim, variant.gate,
        variant.projection, backbones.video_head if variant.anchored else None, tuple(variant.streams), **options,
    )  # fmt: skip
    if detector.dpc and not variant.live:
        detector.dpc.requires_grad_(False)
    return detector


def variants_of(profile: Profile) -> dict[str, Variant]:
    """What a run trains. On the published streams c is 128 wide, as published, and without their regions the read-out
    is global."""
    if profile.backbones != "official":
        return VARIANTS
    variants = VARIANTS if profile.regions else VARIANTS | {"full": Variant()}
    return {name: dataclasses.replace(variant, context_dim=128) for name, variant in variants.items()}


def parameter_groups(detector: Detector, variant: Variant) -> list[dict]:
    """Optimiser groups: new parts, and the tuned parts of the predictive stream, where there are any, at a lower
    rate."""
    tuned = [p for p in detector.dpc.tuned_parameters() if p.requires_grad]
    tuned_ids = {id(p) for p in tuned}
    new = [p for p in detector.parameters() if p.requires_grad and id(p) not in tuned_ids]
    groups = [dict(params=new, lr=variant.lr), dict(params=tuned, lr=variant.lr_dpc)]
    return [group for group in groups if group["params"]]
