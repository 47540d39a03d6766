"""The evaluation protocol: frame scores in, one tidy table with bootstrap intervals out.

`evaluate` is for anybody's scores; `detection` is the pipeline step that applies it to every method of a run, with the
content-free floors beside them; `evaluate_folders` reads one file per video and serves the command line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.class_metrics import METRICS as CLASS_METRICS
from zsad_lib.evaluate.inputs import check_series, require
from zsad_lib.evaluate.operating_points import LOCALISED, POINT_METRICS
from zsad_lib.evaluate.protocol import METRICS, Estimate, of_both_classes, weights_of
from zsad_lib.evaluate.weighted_auc import DRAWS, auc, interval, pixel_pairs

COLUMNS = (
    "method", "variant", "metric", "level", "group", "family", "value", "low", "high", "n_videos", "n_frames",
    "prevalence", "seeds",
)  # fmt: skip
LEVELS = METRICS | POINT_METRICS | LOCALISED | CLASS_METRICS
EXTRA = ("objective", "score", "control", "delta", "delta_low", "delta_high", "p")  # further columns of ablations


def tidy(estimates: Sequence[Estimate], method: str, variant: str) -> pd.DataFrame:
    """One row per estimate, in `COLUMNS`; the interval is the 95 % percentile bootstrap."""
    rows = [
        (method, variant, e.metric, LEVELS[e.metric], e.group, e.family, e.draws[0], *interval(e.draws[1:]))
        + (e.n_videos, e.n_frames, e.prevalence, e.seeds)
        for e in estimates
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluate(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    method: str = "scores",
    variant: str = "raw",
    **options: Any,
) -> pd.DataFrame:
    """Evaluates frame scores of one method.

    Metrics, each with a 95 % interval from a bootstrap over videos (the same draws for every method):
    micro_auc, ap (all frames joined), abnormal_auc (abnormal videos only), macro_auc (mean over videos that hold both
    classes), clip_auc (one score per clip, from ``windows``), far (far_normal: in videos without an event), recall,
    event_f1 and event_f1@IoU (at the threshold fixed on held-out normal video), false_alarms_per_hour and delay_s (at
    an event recall of 0.8, or ``_at_threshold``).
    A metric that is undefined (a scene with one class, no threshold, no fps) has NO row.

    Args:
        scores: video -> [n_frames] or [n_seeds, n_frames], higher = more abnormal. The value is the mean over seeds.
        labels: video -> [n_frames] of 0 (normal) and 1 (abnormal).
        method: name of the method in the table.
        variant: "raw", "smoothed", ...; ``normalise="per-video"`` adds " (per-video, transductive)" to it.
        options: fps, scenes, families, windows, normal_scores, threshold, far_target, normalise, metrics, group,
            draws and seed, as in `zsad_lib.evaluate.protocol.estimates`.

    Returns:
        tidy table, exactly one row per (metric, group, family); AUC, AP, far, recall and F1 in 0..1.

    Raises:
        ZsadError: one class only, scores that are not finite, other lengths, missing videos.

    >>> table = evaluate({"a": [0.1, 0.9], "b": [0.2, 0.3]}, {"a": [0, 1], "b": [0, 0]}, metrics=["micro_auc"])
    >>> table[["metric", "level", "value", "n_videos", "prevalence"]].values.tolist()
    [['micro_auc', 'frame', 1.0, 2, 0.25]]
    """
    estimates = of_both_classes(scores, labels, **options)
    if options.get("normalise") == "per-video":
        variant += " (per-video, transductive)"
    return tidy(estimates, method, variant)


def pixel_auc(
    maps: Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]],
    masks: Mapping[str, np.ndarray],
    *,
    method: str = "maps",
    variant: str = "raw",
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Pixel-level micro ROC-AUC over all test frames: one row, metric pixel_auc, level pixel.

    Maps are resized bilinearly to the masks; pixels are counted in a fine histogram
    (`zsad_lib.evaluate.weighted_auc.pixel_pairs`).

    Args:
        maps: video -> [T, h, w], or one such mapping per seed.
        masks: video -> [T, H, W], nonzero = abnormal.
        method, variant, draws, seed: as in `evaluate`.
    """
    per_seed = [maps] if isinstance(maps, Mapping) else list(maps)
    for one in per_seed:
        require(masks, one, "maps")
        check_series({video: np.reshape(one[video], -1) for video in masks}, "maps")
    counted = [pixel_pairs({video: one[video] for video in masks}, masks) for one in per_seed]
    _, abnormal, normal = counted[0]
    if not (abnormal.sum() and normal.sum()):
        raise ZsadError("masks hold one class only: pixel ROC-AUC is undefined; give normal and abnormal pixels")
    pairs = np.mean([pairs for pairs, *_ in counted], axis=0)
    values = auc(pairs, abnormal, normal, weights_of(len(masks), draws, seed))
    n_frames = sum(len(per_seed[0][video]) for video in masks)
    share = float(abnormal.sum() / (abnormal.sum() + normal.sum()))
    row = Estimate("pixel_auc", "all", "all", values, len(masks), n_frames, share, len(per_seed))
    return tidy([row], method, variant)
