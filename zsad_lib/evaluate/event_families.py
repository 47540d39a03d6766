"""Families of anomalies in videos that hold events of several: each family's frames against all normal ones."""

from collections.abc import Mapping
from itertools import chain

import numpy as np
import pandas as pd

from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.files.manifest import family_frames


def event_families(scores: Mapping[str, np.ndarray], videos: pd.DataFrame, group: str, draws: int) -> list[Estimate]:
    """Of videos with events of several families, each family's frames against all normal frames of these videos.

    Args:
        scores: video -> [S, n_frames].
        videos: rows of the manifest; only those of the family "mixed" count.
        group: name of the videos in the result.
        draws: bootstrap draws over videos.
    """
    families = {row.video: family_frames(row) for row in videos[videos["family"] == "mixed"].itertuples()}
    rows = []
    for family in sorted(set(chain.from_iterable(families.values())) - {""}):
        counted = {video: np.isin(of_frames, ("", family)) for video, of_frames in families.items()}
        kept = {video: scores[video][:, frames] for video, frames in counted.items()}
        labels = {video: families[video][frames] == family for video, frames in counted.items()}
        found = estimates(kept, labels, group=group, metrics=("micro_auc", "macro_auc", "ap"), draws=draws)
        rows += [row._replace(family=family) for row in found]
    return rows
