"""Which class, not only whether: frame-level metrics over the anomaly classes of a weakly supervised method.

METHOD: mAUC and mAP are means over the abnormal classes of the one-against-the-rest ROC-AUC and step-wise average precision of
p(A, k) over all test frames, as in https://arxiv.org/abs/2310.02835, Sec. 4.2; a class without test frames has no row.
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
    """Frame classes of one split's videos (set main), from the weakly labelled manifest and ``classes.csv`` in `folder`."""
    names, table = read_classes(folder / "classes.csv"), load_manifest(folder)
    normal = names.index(table[table.family == "normal"].action.iloc[0])
    rows = table[(table.split == split) & (table.set == "main")].itertuples()
    return Truth({r.video: np.where(frame_labels(r), names.index(r.action), normal) for r in rows}, names, normal)


def recognition(
    class_probs: Mapping[str, np.ndarray],
    known: Truth,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Per-class rows (group ``class:NAME``) and their means ``mauc`` and ``map``, on the bootstrap draws of the other metrics.

    Args:
        class_probs: video -> [T, K] or [S, T, K] joint probabilities.
        known: what the frames show.
        draws, seed: of the bootstrap over videos.

    Raises:
        ZsadError: missing videos, another number of classes, or no abnormal class among the frames.
    """
    frame_classes, class_names, normal_id = known
    require(frame_classes, class_probs, "class probabilities")
    for video in frame_classes:
        if np.shape(class_probs[video])[-1] != len(class_names):
            raise ZsadError(
                f"{video}: {np.shape(class_probs[video])[-1]} class probabilities, {len(class_names)} classes"
            )
    found: list[Estimate] = []
    for number, name in enumerate(class_names):
        if number == normal_id:
            continue
        labels = {video: (ids == number).astype(np.uint8) for video, ids in frame_classes.items()}
        if not any(array.any() for array in labels.values()):
            continue
        scores = {video: np.asarray(class_probs[video])[..., number] for video in labels}
        part = estimates(scores, labels, group=f"class:{name}", metrics=list(PER_CLASS), draws=draws, seed=seed)
        found += [e._replace(metric=PER_CLASS[e.metric]) for e in part]
    if not found:
        raise ZsadError("no test frame of an abnormal class: mAUC is undefined")
    abnormal = np.mean(np.concatenate(list(frame_classes.values())) != normal_id)
    for metric, mean in MEAN.items():
        rows = [e for e in found if e.metric == metric]
        drawn = np.array([e.draws for e in rows])  # [classes, draws]
        defined = np.isfinite(drawn)  # a draw may lack a class: the mean is over the others
        joined = ratio(np.where(defined, drawn, 0).sum(0), defined.sum(0))
        found.append(rows[0]._replace(metric=mean, group="all", draws=joined, prevalence=float(abnormal)))
    return found


def confusion(class_probs: Mapping[str, np.ndarray], known: Truth) -> pd.DataFrame:
    """Frames of each true class (rows) by the class of the largest probability (columns): shares of the row, mean over seeds."""
    counts = np.zeros((len(known.names), len(known.names)))
    for video, ids in known.frames.items():
        for predicted in np.argmax(class_probs[video], axis=-1).reshape(-1, len(ids)):  # [S, T] or [T]
            np.add.at(counts, (np.asarray(ids), predicted), 1)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    return pd.DataFrame(shares, index=pd.Index(known.names, name="true"), columns=known.names)
