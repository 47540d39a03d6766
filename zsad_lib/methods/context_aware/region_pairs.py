"""What the gate learns from: regions of normal video, each with the clause of its caption that fits it best.

A caption tells what several do ("a man walks by and a woman pushes a cart"); nothing says who is where. A region's
clause is the best-fitting one of the caption of its time; the worst tenth of the fits, edges of actors and shadows, is
left out.

Notebook: 23_find_in_stream
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES
from zsad_lib.models.text import encode_captions

DROPPED = 0.1  # share of the regions, those that fit their clause worst


class RegionPairs(NamedTuple):
    """R regions of normal training video with their clauses."""

    vector: Tensor  # [R, E] unit vectors
    clause: Tensor  # [R] number of the clause
    scene: Tensor  # [R, S] tells scenes apart
    context: Tensor  # [R, S'] what the gate sees: the scene too, or a control
    bank: Tensor  # [K, E] unit vectors of the clauses
    clauses: list[str]

    def to(self, device: torch.device) -> RegionPairs:
        """With all tensors on `device`."""
        return RegionPairs(*(field if isinstance(field, list) else field.to(device) for field in self))


def split_clauses(caption: str) -> list[str]:
    """What a caption tells of each actor: its parts between "and".

    >>> split_clauses("a man walks by and a car passes")
    ['a man walks by', 'a car passes']
    """
    return [part.strip() for part in caption.split(" and ") if part.strip()]


def segments(table: pd.DataFrame) -> pd.DataFrame:
    """The captions of some rows by frame: `video`, `first`, `stop`, `clauses`.

    Args:
        table: rows of the manifest with `caption`, and where a video has several, `start_s` and `end_s` of each.
    """
    start, end = (table[name] if name in table else None for name in ("start_s", "end_s"))
    first = 0 if start is None else (start * table.fps).round().astype(int)
    stop = table.n_frames if end is None else (end * table.fps).round().astype(int)
    return table[["video"]].assign(first=first, stop=stop, clauses=table.caption.map(split_clauses))


def best_clauses(vectors: Tensor, bank: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The best-fitting of the clauses that may tell of a region.

    Args:
        vectors: regions [R, E].
        bank: clauses [K, E].
        allowed: which may tell of which [R, K].

    Returns:
        numbers of clauses [R], and their cosines [R]; -2 where none may.
    """
    fit, clause = (vectors @ bank.T).masked_fill(~allowed, -2.0).max(1)
    return clause, fit


def well_told(fit: Tensor) -> Tensor:
    """Which regions are kept, from the fits of `best_clauses` [R]; ZsadError where no clause tells of any."""
    if not (told_of := fit > -1.5).any():
        raise ZsadError("no region in any captioned normal training video; the gate has nothing to learn from")
    return told_of & (fit >= np.quantile(fit[told_of], DROPPED))


@torch.no_grad()
def load_pairs(profile: Profile, table: pd.DataFrame, backbones: Backbones) -> RegionPairs:
    """Regions of the videos of `table`, with their best-fitting clauses.

    Args:
        table: see `segments`; normal training video.
        backbones: whose text tower reads the clauses.

    Raises:
        ZsadError: no region in any of the videos.
    """
    told = segments(table)
    clauses = list(dict.fromkeys(clause for some in told.clauses for clause in some))
    numbers = {clause: number for number, clause in enumerate(clauses)}
    bank = encode_captions(backbones.clip, clauses, backbones.vocabulary).cpu()
    vectors, chosen, fits, scenes = [], [], [], []
    for row in table.drop_duplicates("video").itertuples():
        features = load_features(feature_file(cache_folder(profile), row))
        vector, (window, picture, *_) = features.region.float(), features.region_at.long().unbind(1)
        frame = (window * BLOCK_LEN + torch.tensor(CLIP_FRAMES)[picture]) * profile.stride
        allowed = torch.zeros(len(frame), len(bank), dtype=torch.bool)
        for segment in told[told.video == row.video].itertuples():
            inside = (frame >= segment.first) & (frame < segment.stop)
            allowed[inside.nonzero(), torch.tensor([numbers[clause] for clause in segment.clauses])] = True
        clause, fit = best_clauses(vector, bank, allowed)
        vectors.append(vector), chosen.append(clause), fits.append(fit), scenes.append(features.scene[window])
    vector, clause, fit, scene = map(torch.cat, (vectors, chosen, fits, scenes))
    kept = well_told(fit)
    scene = scene[kept]
    return RegionPairs(vector[kept], clause[kept], scene, scene, bank, clauses)
