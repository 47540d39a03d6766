"""Scene features of other places, for the question what a video would have scored there."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from zsad_lib.methods.context_aware.scorer import Scorer
from zsad_lib.own_video.detector import OwnDetector
from zsad_lib.own_video.scoring import pieces, seen_frames
from zsad_lib.own_video.ticks import Seen

CLUSTERS = 4  # scenes of training that stand in where no other place is given


def scene_of(path: str | Path, own: OwnDetector) -> Tensor:
    """Scene feature of a place: mean over the windows of a video of it, [S]."""
    shown = pieces(seen_frames(path, Seen(), own.size))
    return torch.cat([own.tool.windows(piece, ("scene",))[1] for piece in shown]).mean(0)


def training_scenes(scorer: Scorer) -> dict[str, Tensor]:
    """Typical scenes of a detector's training: name -> scene feature [S].

    The memory keeps of each scene the direction of its standardised feature. k-means groups the directions, and the
    window nearest to a group's centre speaks for it, with the length that standardised features have on average,
    sqrt(S). Its name is the caption that the gate opens there more than in the other scenes: the detector's own words,
    not a label.
    """
    d = scorer.detector
    half = F.normalize(scorer.memory[:, -len(d.scene_mean) :], dim=-1)  # [N, S]
    groups = KMeans(min(CLUSTERS, len(half.unique(dim=0))), n_init=4, random_state=0).fit(half.numpy())
    nearest = torch.from_numpy(groups.transform(half.numpy())).argmin(0)  # [M]
    scenes = d.scene_along(half[nearest])  # [M, S]
    fit = torch.einsum("kd,mkd->mk", scorer.bank, d.gate(scorer.bank, d.context(scenes)))
    own_caption = (fit - fit.mean(0)).argmax(1).tolist()
    named = enumerate(zip(own_caption, scenes), start=1)
    return {f"training scene {i}: {scorer.captions[k]}": scene for i, (k, scene) in named}
