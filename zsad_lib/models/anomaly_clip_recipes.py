"""Sizes, schedules and class lists of AnomalyCLIP: those published for three data sets, and the stand-ins' own.

Paper: https://arxiv.org/abs/2310.02835, Sec. 4.1 and its released configurations.
"""

import dataclasses

from torch import nn

from zsad_lib.models.anomaly_clip import AnomalyCLIP
from zsad_lib.models.text import Vocabulary


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes and schedule of one data set; the defaults are common to the published three."""

    lr: float
    epochs: int
    warmup: int  # epochs of linear warm-up, then a cosine to 0
    embed_dim: int = 256
    depth: int = 1
    concat_similarity: bool = False
    num_segments: int = 32
    segment_len: int = 16
    num_context_tokens: int = 8
    heads: int = 8
    topk: int = 3  # segments that stand for an abnormal video, or for its normal part (bottom)
    segment_dropout: float = 0.7  # share of segments that a step leaves out of this choice
    half_batch: int = 32  # abnormal videos per step, and as many normal ones
    weight_decay: float = 0.2
    in_pieces: bool = False  # normal videos longer than one example count as so many examples
    across_videos: bool = False  # as published: neighbouring frames are alike across the borders of videos, too
    unclamped: bool = False  # as published: logarithms of probabilities as they are, which may be infinite
    learned: bool = True  # False: context vectors and text projection stay as they are
    temporal: bool = True  # False: p_A of a frame from that frame alone
    centred: bool = True  # False: m = 0, neither frames nor texts are seen from normality
    directions_from_normal: bool = True  # False: directions of classes from the origin, frames still from m
    without: tuple[str, ...] = ()  # terms of `AnomalyCLIPLoss` that are left out
    resorted: bool = False  # class names sorted by the alphabet while ids stay, as published: prompts of other classes


PUBLISHED = {
    "shanghaitech": Recipe(5e-4, epochs=100, warmup=10, depth=2, concat_similarity=True),
    "ucf_crime": Recipe(1e-5, epochs=50, warmup=5),
    "xd_violence": Recipe(5e-6, epochs=50, warmup=5, embed_dim=128),
}
STAND_IN = Recipe(  # chosen on validation cameras, clip AUC of two seeds; `epochs` is the profile's `weak_epochs`
    1e-2,
    epochs=0,
    warmup=2,
    embed_dim=32,
    num_segments=12,
    segment_len=4,
    heads=4,
    topk=2,
    segment_dropout=0.3,
    in_pieces=True,
)

UCF_CLASSES = (
    "Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting", "Normal", "RoadAccidents", "Robbery",
    "Shooting",
    "Shoplifting", "Stealing", "Vandalism",
)  # fmt: skip
SHANGHAITECH_CLASSES = (
    "car", "chasing", "circuit", "fall", "fighting", "hurdle", "jumping", "monocycle", "normal", "push", "robbery",
    "running",
    "skateboard", "step", "stoop", "throwing object", "vaudeville", "vehicle",
)  # fmt: skip
XD_CLASSES = ("Abuse", "Car_accident", "Explosion", "Fighting", "Normal", "Riot", "Shooting")
PUBLISHED_CLASSES = {"ucf_crime": UCF_CLASSES, "shanghaitech": SHANGHAITECH_CLASSES, "xd_violence": XD_CLASSES}


def build(
    clip: nn.Module, vocabulary: Vocabulary | None, class_names: list[str], normal: str, recipe: Recipe
) -> AnomalyCLIP:
    """An untrained model of the recipe's sizes."""
    names = sorted(class_names) if recipe.resorted else class_names
    return AnomalyCLIP(
        clip, names, class_names.index(normal), recipe.num_context_tokens, recipe.num_segments, recipe.segment_len,
        recipe.embed_dim,
        recipe.depth, recipe.heads, recipe.concat_similarity, recipe.topk, recipe.topk, recipe.segment_dropout,
        vocabulary, recipe.temporal, recipe.directions_from_normal,
    )  # fmt: skip
