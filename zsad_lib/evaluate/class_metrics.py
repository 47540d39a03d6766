"""Which class, not only whether: frame-level metrics over the anomaly classes of a weakly supervised method.

METHOD: mAUC and mAP are means over the abnormal classes of the one-against-the-rest ROC-AUC and step-wise average
precision of p(A, k) over all test frames, as in https://arxiv.org/abs/2310.02835, Sec. 4.2; a class without test frames
has no row.

Notebook: 44_ablate_anomaly_clip
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.inputs import require
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.evaluate.weighted_auc import DRAWS, ratio
from zsad_lib.files.annotations import read_classes
from zsad_lib.files.manifest import frame_labels, load_manifest

PER_CLASS = {"micro_auc": "class_auc", "ap": "class_ap"}
MEAN = {"class_auc": "mauc", "class_ap": "map"}
METRICS = dict.fromkeys((*PER_CLASS.values(), *MEAN.values()), "frame")  # metric -> level


class Truth(NamedTuple):
    """Which class every frame shows."""

    frames: dict[str, np.ndarray]  # video -> [T] class ids
    names: list[str]  # K names in the order of the ids
    normal_id: int


def truth(folder: Path, split: str = "test") -> Truth:
    """Frame classes of a split's videos (set main), from the video-level manifest and ``classes.csv`` in `folder`."""
    names, table = read_classes(folder / "classes.csv"), load_manifest(folder)
    normal = names.index(table[table.family == "normal"].action.iloc[0])
    rows = table[(table.split == split) & (table.set == "main")].itertuples()
    return Truth({r.video: np.where(frame_labels(r), names.index(r.action), normal) for r in rows}, names, normal)


def recognition(
    class_probs: Mapping[str, np.ndarray], classes: Truth, draws: int = DRAWS, seed: int = 0
) -> list[Estimate]:
    """Rows per class (group ``class:NAME``) and their means ``mauc`` and ``map``, on the draws of the other metrics.

    Args:
        class_probs: video -> [T, K] or [S, T, K] joint probabilities.
        classes: what the frames show.
        draws, seed: of the bootstrap over videos.

    Raises:
        ZsadError: missing videos, another number of classes, or no abnormal class among the frames.
    """
    require(classes.frames, class_probs, "class probabilities")
    for video in classes.frames:
        if (width := np.shape(class_probs[video])[-1]) != len(classes.names):
            raise ZsadError(f"{video}: {width} class probabilities, {len(classes.names)} classes")
    rows: list[Estimate] = []
    for number, name in enumerate(classes.names):
        labels = {video: (ids == number).astype(np.uint8) for video, ids in classes.frames.items()}
        if number == classes.normal_id or not any(array.any() for array in labels.values()):
            continue
        scores = {video: np.asarray(class_probs[video])[..., number] for video in labels}
        of_class = estimates(scores, labels, group=f"class:{name}", metrics=list(PER_CLASS), draws=draws, seed=seed)
        rows += [e._replace(metric=PER_CLASS[e.metric]) for e in of_class]
    if not rows:
        raise ZsadError("no test frame of an abnormal class: mAUC is undefined")
    abnormal = np.mean(np.concatenate(list(classes.frames.values())) != classes.normal_id)
    for metric, mean in MEAN.items():
        per_class = [e for e in rows if e.metric == metric]
        drawn = np.array([e.draws for e in per_class])  # [classes, draws]
        defined = np.isfinite(drawn)  # a draw may lack a class: the mean is over the others
        joined = ratio(np.where(defined, drawn, 0).sum(0), defined.sum(0))
        rows.append(per_class[0]._replace(metric=mean, group="all", draws=joined, prevalence=float(abnormal)))
    return rows


def confusion(class_probs: Mapping[str, np.ndarray], classes: Truth) -> pd.DataFrame:
    """Frames of a true class (row) by the class of the largest probability (column): shares of the row, over all
    seeds."""
    counts = np.zeros((len(classes.names), len(classes.names)))
    for video, ids in classes.frames.items():
        for predicted in np.argmax(class_probs[video], axis=-1).reshape(-1, len(ids)):  # [S, T] or [T]
            np.add.at(counts, (np.asarray(ids), predicted), 1)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    return pd.DataFrame(shares, index=pd.Index(classes.names, name="true"), columns=classes.names)
