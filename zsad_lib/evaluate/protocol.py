"""Every metric of the evaluation protocol on one test set, each with its bootstrap draws.

Row 0 of the weights is all ones, so a metric and its draws come from the same line of code: ``draws[0]`` is the value.
Several seeds of a method are one estimate: the metric of each seed, averaged, in every draw.

Notebook: 22_evaluate_detection
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.events import IOUS, alarm_counts, event_counts, is_alarm, recall_threshold, runs
from zsad_lib.evaluate.inputs import (
    FAR_TARGET,
    Frames,
    check_series,
    clip_scores,
    collect,
    frame_rates,
    min_max,
    normal_thresholds,
    require,
)
from zsad_lib.evaluate.weighted_auc import (
    DRAWS,
    auc,
    average_precision,
    bootstrap_weights,
    clip_pairs,
    pair_counts,
    rank,
    ratio,
)

EVENT_RECALL = 0.8  # share of events that false_alarms_per_hour and delay_s are read at
METRICS = {  # metric -> level
    "clip_auc": "clip", "micro_auc": "frame", "ap": "frame", "abnormal_auc": "frame", "macro_auc": "video",
    "far": "frame", "far_normal": "frame", "recall": "frame", "event_f1": "event",
    **{f"event_f1@{iou}": "event" for iou in IOUS},
    "false_alarms_per_hour": "event", "delay_s": "event", "false_alarms_per_hour_at_threshold": "event",
    "event_recall_at_threshold": "event", "delay_s_at_threshold": "event", "pixel_auc": "pixel",
}  # fmt: skip


class Part(NamedTuple):
    """Some of the videos: a row of the result table speaks of one part."""

    group: str
    family: str
    index: np.ndarray  # [v] which videos of the whole set


class Estimate(NamedTuple):
    """One metric on one part of the test set."""

    metric: str
    group: str
    family: str
    draws: np.ndarray  # [1 + R]: the value, then the value in every bootstrap draw (NaN where it is undefined)
    n_videos: int
    n_frames: int
    prevalence: float  # share of abnormal frames (level clip: of abnormal clips) in that part
    seeds: int


Values = Iterator[tuple[str, Part, np.ndarray]]  # metric, the videos it is about, [1 + R] values
Weigh = Callable[[np.ndarray], np.ndarray]  # indices of videos [v] -> weights [1 + R, v]


@lru_cache(maxsize=16)
def weights_of(n_videos: int, draws: int, seed: int) -> np.ndarray:
    """A row of ones, then the bootstrap counts: [1 + R, V]; V = 0 is allowed, and every metric is undefined there."""
    drawn = bootstrap_weights(n_videos, draws, seed) if n_videos else np.ones((draws, 0))
    weights = np.vstack([np.ones((1, n_videos)), drawn])
    weights.setflags(write=False)
    return weights


def make_parts(
    frames: Frames, group: str, scenes: Mapping[str, str] | None, families: Mapping[str, str] | None
) -> list[Part]:
    """The whole set, then each family (its abnormal videos and all normal ones), then each scene."""
    abnormal = frames.positives > 0
    parts = [Part(group, "all", np.arange(len(frames.names)))]
    if families is not None:
        require([name for name, bad in zip(frames.names, abnormal) if bad], families, "families")
        family = np.array([families[name] if bad else "" for name, bad in zip(frames.names, abnormal)])
        parts += [Part(group, f, np.flatnonzero((family == f) | ~abnormal)) for f in sorted(set(family[abnormal]))]
    if scenes is not None:
        require(frames.names, scenes, "scenes")
        scene = np.array([scenes[name] for name in frames.names])
        parts += [Part(f"scene:{s}", "all", np.flatnonzero(scene == s)) for s in sorted(set(scene))]
    return parts


def clip_metrics(frames: Frames, windows: Mapping[str, np.ndarray], parts: list[Part], weigh: Weigh) -> Values:
    """clip_auc of every part: abnormal clips against normal clips."""
    abnormal = frames.positives > 0
    pairs = np.mean([clip_pairs(row, abnormal) for row in clip_scores(windows, frames.names)], axis=0)
    for part in parts:
        bad = abnormal[part.index].astype(float)
        yield "clip_auc", part, auc(pairs[np.ix_(part.index, part.index)], bad, 1 - bad, weigh(part.index))


def ranking_metrics(frames: Frames, parts: list[Part], weigh: Weigh, with_ap: bool) -> Values:
    """micro_auc of every part, abnormal_auc and macro_auc of the whole set and the families, ap of the whole set."""
    rankings = [rank(row, frames.labels, frames.starts) for row in frames.scores]
    pairs = np.mean([pair_counts(ranking) for ranking in rankings], axis=0)  # AUC is linear in them
    within = ratio(np.diagonal(pairs), frames.positives * frames.negatives)  # [V] AUC of a video, NaN for one class

    def auc_of(index: np.ndarray) -> np.ndarray:
        return auc(pairs[np.ix_(index, index)], frames.positives[index], frames.negatives[index], weigh(index))

    for part in parts:
        yield "micro_auc", part, auc_of(part.index)
        if part.group == parts[0].group:
            abnormal = part._replace(index=part.index[frames.positives[part.index] > 0])
            yield "abnormal_auc", abnormal, auc_of(abnormal.index)
            both = part._replace(index=part.index[np.isfinite(within[part.index])])
            yield "macro_auc", both, ratio(weigh(both.index) @ within[both.index], weigh(both.index).sum(axis=1))
    if with_ap:
        weights = weigh(parts[0].index)
        yield "ap", parts[0], np.mean([average_precision(ranking, weights) for ranking in rankings], axis=0)


def threshold_metrics(frames: Frames, thresholds: np.ndarray, parts: list[Part], weigh: Weigh) -> Values:
    """far (of wholly normal videos too), recall (families too) and event F1 at one threshold per seed [S]."""
    alarms = is_alarm(frames.scores, thresholds[:, None])  # [S, n]
    false = np.mean([frames.per_video(alarm & ~frames.labels) for alarm in alarms], axis=0)
    true = np.mean([frames.per_video(alarm & frames.labels) for alarm in alarms], axis=0)
    weights = weigh(parts[0].index)
    yield "far", parts[0], ratio(weights @ false, weights @ frames.negatives)
    calm = parts[0]._replace(index=parts[0].index[frames.positives[parts[0].index] == 0])
    if len(calm.index):
        drawn = weigh(calm.index)
        yield "far_normal", calm, ratio(drawn @ false[calm.index], drawn @ frames.negatives[calm.index])
    for part in parts:
        if part.group == parts[0].group:
            hit = part._replace(index=part.index[frames.positives[part.index] > 0])
            drawn = weigh(hit.index)
            yield "recall", hit, ratio(drawn @ true[hit.index], drawn @ frames.positives[hit.index])
    events = runs(frames.labels, frames.starts)
    if len(events.begin):
        n_events = np.bincount(events.video, minlength=len(frames.names))
        f1 = np.zeros((len(IOUS), len(weights)))  # [I, 1 + R]
        for alarm in alarms:
            matched, n_runs = event_counts(alarm, events, frames.starts)
            f1 += ratio(2 * matched @ weights.T, np.tile(weights @ (n_runs + n_events), (len(IOUS), 1))) / len(alarms)
        yield "event_f1", parts[0], f1.mean(axis=0)
        for iou, values in zip(IOUS, f1):
            yield f"event_f1@{iou}", parts[0], values


def alarm_rates(
    frames: Frames, scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False alarms per hour of normal footage, mean delay and event recall, with a threshold for every row of weights.

    Args:
        frames: the test set.
        scores: [n] of one seed.
        thresholds: [R] (NaN: undefined).
        weights: [R, V].
        seconds: [V] seconds per frame of each video.

    Returns:
        three [R]: alarm runs that touch no event, per hour of normal frames; seconds from an event's start to its first
        alarm frame, mean over the detected events; share of events with an alarm frame inside.
    """
    events = runs(frames.labels, frames.starts)
    n_events = np.bincount(events.video, minlength=len(frames.names))
    false, detected, delay = np.full((3, len(weights)), np.nan)
    for threshold in np.unique(thresholds[np.isfinite(thresholds)]):
        rows = thresholds == threshold
        counts = alarm_counts(is_alarm(scores, threshold), frames.labels, events, frames.starts)
        false[rows] = weights[rows] @ counts.false_alarms
        detected[rows] = weights[rows] @ counts.detected
        delay[rows] = weights[rows] @ (counts.delay * seconds)
    hours = weights @ (frames.negatives * seconds) / 3600
    return ratio(false, hours), ratio(delay, detected), ratio(detected, weights @ n_events)


def timing_metrics(
    frames: Frames, seconds: np.ndarray, thresholds: np.ndarray | None, whole: Part, weigh: Weigh
) -> Values:
    """False alarms per hour and delay at a fixed event recall, and (with event recall) at the given thresholds [S].

    At fixed recall the threshold is the highest that detects `EVENT_RECALL` of the test events, found anew in every
    draw: a point of the operating curve, which no deployment knows beforehand, unlike the ``_at_threshold`` rows.
    """
    weights = weigh(whole.index)
    events = runs(frames.labels, frames.starts)
    at_recall = [
        alarm_rates(frames, row, recall_threshold(row, events, weights, EVENT_RECALL), weights, seconds)
        for row in (frames.scores if len(events.begin) else ())
    ]
    fixed = [
        alarm_rates(frames, row, np.full(len(weights), level), weights, seconds)
        for row, level in zip(frames.scores, () if thresholds is None else thresholds)
    ]
    for rates, suffix in ((at_recall, ""), (fixed, "_at_threshold")):
        if rates:
            false, delay, recall = np.mean(rates, axis=0)
            yield f"false_alarms_per_hour{suffix}", whole, false
            yield f"delay_s{suffix}", whole, delay
            if suffix:
                yield f"event_recall{suffix}", whole, recall


def estimates(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    group: str = "all",
    fps: float | Mapping[str, float] | None = None,
    scenes: Mapping[str, str] | None = None,
    families: Mapping[str, str] | None = None,
    windows: Mapping[str, np.ndarray] | None = None,
    normal_scores: Mapping[str, np.ndarray] | None = None,
    threshold: float | None = None,
    far_target: float = FAR_TARGET,
    normalise: str = "none",
    metrics: Collection[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """All metrics that the given material defines; one without its material, or undefined on its part, has no entry.

    Args:
        scores: video -> [n_frames] or [n_seeds, n_frames], higher = more abnormal.
        labels: video -> [n_frames] of 0 and 1.
        group: name of the whole set in the result.
        fps: frames per second, one number or video -> number; needed by false alarms per hour and delays.
        scenes: video -> scene, for groups ``scene:NAME`` (micro_auc, clip_auc).
        families: abnormal video -> family of its anomaly, for family rows: that family's videos against ALL normal ones
            (micro_auc, abnormal_auc, macro_auc, recall, clip_auc).
        windows: video -> [n_windows] or [n_seeds, n_windows] window scores, for clip_auc.
        normal_scores: video -> frame scores of held-out NORMAL videos; they fix the threshold of each seed
            (`normal_thresholds`).
        threshold: fixed threshold instead; a frame is an alarm where score >= threshold (`is_alarm`).
        far_target: share of the held-out normal frames that may be alarms, 0..1.
        normalise: "none", or "per-video": min-max of each test video, transductive, to compare with such reports.
        metrics: names of `METRICS` to compute; None: all.
        draws: bootstrap draws over videos.
        seed: of the bootstrap; equal for methods that are to be compared.

    Raises:
        ZsadError: see `collect`; unknown metric or normalisation; missing windows, scenes, families or fps of a video.
    """
    if unknown := sorted(set(metrics or ()) - set(METRICS)):
        raise ZsadError(f"metric {unknown[0]!r} is unknown: choose from {', '.join(METRICS)}")
    if normalise not in ("none", "per-video"):
        raise ZsadError(f"normalise={normalise!r} is unknown: choose 'none' or 'per-video' (transductive)")
    scale = min_max if normalise == "per-video" else lambda array: array
    frames = collect({video: scale(array) for video, array in check_series(scores, "scores", labels).items()}, labels)
    thresholds = None if threshold is None else np.full(len(frames.scores), float(threshold))
    if threshold is None and normal_scores is not None:
        held_out = {video: scale(array) for video, array in check_series(normal_scores, "normal scores").items()}
        thresholds = normal_thresholds(held_out, far_target)
        if len(thresholds) != len(frames.scores):
            seeds = f"{len(thresholds)} seeds, the test scores {len(frames.scores)}"
            raise ZsadError(f"normal scores: {seeds}; give as many")
    parts = make_parts(frames, group, scenes, families)
    wanted = set(METRICS if metrics is None else metrics)

    def weigh(index: np.ndarray) -> np.ndarray:
        return weights_of(len(index), draws, seed)

    values: list[Values] = []
    if windows is not None and "clip_auc" in wanted:
        values.append(clip_metrics(frames, windows, parts, weigh))
    if wanted & {"micro_auc", "abnormal_auc", "macro_auc", "ap"}:
        values.append(ranking_metrics(frames, parts, weigh, "ap" in wanted))
    if thresholds is not None and any(name.startswith(("far", "recall", "event_f1")) for name in wanted):
        values.append(threshold_metrics(frames, thresholds, parts, weigh))
    if fps is not None and any(name.startswith(("false", "delay", "event_recall")) for name in wanted):
        values.append(timing_metrics(frames, 1 / frame_rates(fps, frames.names), thresholds, parts[0], weigh))
    return [
        Estimate(metric, part.group, part.family, drawn, *_size(frames, part.index, metric), len(frames.scores))
        for metric, part, drawn in chain(*values)
        if metric in wanted and np.isfinite(drawn[0])
    ]


def _size(frames: Frames, index: np.ndarray, metric: str) -> tuple[int, int, float]:
    """Videos, frames and share of abnormal frames (level clip: clips) of a part."""
    positives, n_frames = frames.positives[index], (frames.positives + frames.negatives)[index].sum()
    share = (positives > 0).mean() if METRICS[metric] == "clip" else positives.sum() / n_frames
    return len(index), int(n_frames), float(share)


def of_both_classes(
    scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], **options: Any
) -> list[Estimate]:
    """`estimates` with its options, of labels that must hold both classes: ZsadError where one is missing."""
    rows = estimates(scores, labels, **options)
    present = {int(value) for array in labels.values() for value in np.unique(np.asarray(array)) if value in (0, 1)}
    if len(present) < 2:
        only = "abnormal" if present == {1} else "normal"
        raise ZsadError(f"labels hold only {only} frames: ROC-AUC is undefined; give videos of both classes")
    return rows
