"""Families and kinds of anomalies in videos that hold events of several: the frames of each against all normal ones."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.files.manifest import clip_spans, family_frames, span_kinds


def event_families(scores: Mapping[str, np.ndarray], videos: pd.DataFrame, group: str, draws: int) -> list[Estimate]:
    """Of videos with events of several families, each family's frames against all normal frames of these videos.

    Args:
        scores: video -> [S, n_frames].
        videos: rows of the manifest; only those of the family "mixed" count.
        group: name of the videos in the result.
        draws: bootstrap draws over videos.
    """
    families = {row.video: family_frames(row) for row in videos[videos["family"] == "mixed"].itertuples()}
    return _each_against_normal(scores, families, group, draws, ("micro_auc", "macro_auc", "ap"))


def event_kinds(scores: Mapping[str, np.ndarray], videos: pd.DataFrame, group: str, draws: int) -> list[Estimate]:
    """The same by kind of event: micro AUC, `family` being "family:kind"."""
    kinds = {row.video: kind_frames(row) for row in videos[videos["family"] == "mixed"].itertuples()}
    return _each_against_normal(scores, kinds, group, draws, ("micro_auc",))


def kind_frames(row: Any) -> np.ndarray:
    """Family and kind of each frame of a manifest's row, as "semantic:fall"; "" where it is normal: [n_frames]."""
    kinds = np.full(int(row.n_frames), "", dtype=object)
    for (first, last), kind in zip(clip_spans(row.spans, int(row.n_frames), row.video), span_kinds(row)):
        kinds[first : last + 1] = ":".join(kind)
    return kinds


def _each_against_normal(
    scores: Mapping[str, np.ndarray], names: Mapping[str, np.ndarray], group: str, draws: int, metrics: Sequence[str]
) -> list[Estimate]:
    """`metrics` of each name of frames, "" being normal; the frames of other names are left out."""
    rows = []
    for name in sorted(set(chain.from_iterable(names.values())) - {""}):
        counted = {video: np.isin(of_frames, ("", name)) for video, of_frames in names.items()}
        kept = {video: scores[video][:, frames] for video, frames in counted.items()}
        labels = {video: names[video][frames] == name for video, frames in counted.items()}
        found = estimates(kept, labels, group=group, metrics=metrics, draws=draws)
        rows += [row._replace(family=name) for row in found]
    return rows
