"""Events: runs of abnormal frames against runs of alarm frames, per video so that a bootstrap can reweight the counts.

A frame is an alarm where ``score >= threshold`` (`is_alarm`, the one rule of the kit). An event is a maximal run of
abnormal frames within a video, an alarm run a maximal run of alarm frames. Three readings of the same runs, the kit's
protocol for events:

* `event_counts`: alarm runs matched one to one to events at a temporal IoU, for the event F1.
* `alarm_counts`: false alarms (alarm runs that touch no event), detected events (an alarm frame inside), delays.
* `recall_threshold`: the highest threshold that still detects a wanted share of the events.

Notebook: 22_evaluate_detection
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)  # temporal IoU of the event F1
BESIDE = 2.0  # seconds before and after an event, in which its actor may be in sight already or still
DEVIATIONS = 4.0  # of the own-video threshold, in robust standard deviations above the median


class Runs(NamedTuple):
    """Maximal runs of true frames, in order; frame numbers count over all videos."""

    begin: np.ndarray  # [K] first frame
    end: np.ndarray  # [K] one past the last frame
    video: np.ndarray  # [K] index of the video


class AlarmCounts(NamedTuple):
    """What one threshold costs and brings, per video."""

    false_alarms: np.ndarray  # [V] alarm runs without an abnormal frame
    detected: np.ndarray  # [V] events with an alarm frame inside
    delay: np.ndarray  # [V] sum over detected events of frames from the event's start to its first alarm frame


def runs(mask: np.ndarray, starts: np.ndarray) -> Runs:
    """Maximal runs of true frames; a run never crosses from one video into the next.

    Args:
        mask: bool [n], videos one after the other.
        starts: [V] index of each video's first frame.

    >>> runs(np.array([1, 1, 0, 1, 1], bool), np.array([0, 4])).begin
    array([0, 3, 4])
    """
    border = np.zeros(len(mask) + 1, bool)
    border[starts] = border[-1] = True
    off = np.append(~mask, True)
    begin = np.flatnonzero(mask & (border[:-1] | np.roll(off, 1)[:-1]))
    end = np.flatnonzero(mask & (border[1:] | off[1:])) + 1
    return Runs(begin, end, np.searchsorted(starts, begin, side="right") - 1)


def event_counts(
    alarm: np.ndarray, events: Runs, starts: np.ndarray, ious: Sequence[float] = IOUS
) -> tuple[np.ndarray, np.ndarray]:
    """Alarm runs that match an event one to one at each temporal IoU (largest possible matching, so no order matters).

    Args:
        alarm: bool [n] alarm frames.
        events: `runs` of the labels.
        starts: [V] index of each video's first frame.
        ious: I thresholds, each in 0..1; a pair may match where its IoU is at least the threshold.

    Returns:
        matched [I, V] and number of alarm runs [V]. F1 = 2 matched / (alarm runs + events).
    """
    alarm_runs = runs(alarm, starts)
    n_videos, shape = len(starts), (len(alarm_runs.begin), len(events.begin))
    frames = np.flatnonzero(alarm)
    run = np.searchsorted(alarm_runs.begin, frames, side="right") - 1
    event = np.searchsorted(events.begin, frames, side="right") - 1
    inside = (event >= 0) & (frames < events.end[event]) if shape[1] else np.zeros(len(frames), bool)
    pair, overlap = np.unique(run[inside] * max(shape[1], 1) + event[inside], return_counts=True)
    run, event = pair // max(shape[1], 1), pair % max(shape[1], 1)
    union = (alarm_runs.end - alarm_runs.begin)[run] + (events.end - events.begin)[event] - overlap
    matched = np.zeros((len(ious), n_videos))
    for i, iou in enumerate(ious):
        close = overlap >= iou * union
        graph = csr_array((np.ones(close.sum(), bool), (run[close], event[close])), shape)
        partner = maximum_bipartite_matching(graph, perm_type="column") if close.any() else np.full(shape[0], -1)
        matched[i] = np.bincount(alarm_runs.video[partner >= 0], minlength=n_videos)
    return matched, np.bincount(alarm_runs.video, minlength=n_videos).astype(float)


def alarm_counts(alarm: np.ndarray, labels: np.ndarray, events: Runs, starts: np.ndarray) -> AlarmCounts:
    """False alarm runs, detected events and delays per video.

    Args:
        alarm: bool [n] alarm frames.
        labels: bool [n], True = abnormal.
        events: `runs` of the labels.
        starts: [V] index of each video's first frame.
    """
    n_videos = len(starts)
    alarm_runs = runs(alarm, starts)
    abnormal = np.append(0, np.cumsum(labels))
    false = alarm_runs.video[abnormal[alarm_runs.end] == abnormal[alarm_runs.begin]]
    frames = np.append(np.flatnonzero(alarm), len(alarm))
    first = frames[np.searchsorted(frames, events.begin)]  # [E] first alarm frame at or after the event's start
    detected = first < events.end
    video = events.video[detected]
    return AlarmCounts(
        np.bincount(false, minlength=n_videos).astype(float),
        np.bincount(video, minlength=n_videos).astype(float),
        np.bincount(video, weights=(first - events.begin)[detected], minlength=n_videos),
    )


def recall_threshold(scores: np.ndarray, events: Runs, weights: np.ndarray, recall: float) -> np.ndarray:
    """Highest threshold at which at least the share ``recall`` of the events is detected, for every row of weights.

    Args:
        scores: [n] frame scores.
        events: `runs` of the labels.
        weights: [R, V] times that each video counts.
        recall: wanted share, in 0..1.

    Returns:
        [R] thresholds; NaN where a row holds no event.
    """
    inside = np.stack([events.begin, events.end], axis=1).ravel()  # reduceat: even entries are the events
    peak = np.maximum.reduceat(np.append(scores, -np.inf), inside)[::2]  # [E]
    order = np.argsort(-peak, kind="stable")
    count = weights[:, events.video[order]].cumsum(axis=1)  # [R, E] events detected at each peak
    wanted = recall * count[:, -1:] - 1e-9  # 0.8 * 5 must not ask for more than 4
    return np.where(count[:, -1] > 0, peak[order][(count >= wanted).argmax(axis=1)], np.nan)


def is_alarm(scores: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """The rule of an alarm: ``score >= threshold``, in double precision whatever the scores' type; bool of their shape.

    >>> is_alarm(np.array([0.1, 0.2, 0.3]), 0.2)
    array([False,  True,  True])
    """
    return np.asarray(scores, float) >= threshold


def apart(labels: np.ndarray, fps: float) -> np.ndarray:
    """Normal frames further than `BESIDE` from every event: labels [n_frames] of 0 and 1 -> bool [n_frames].

    >>> apart(np.array([0, 0, 0, 0, 1, 0, 0, 0]), fps=1.0).astype(int)
    array([1, 1, 0, 0, 0, 0, 0, 1])
    """
    near = np.ones(2 * round(BESIDE * fps) + 1, bool)
    return ~binary_dilation(np.asarray(labels) > 0, near)


def own_threshold(scores: np.ndarray) -> float:
    """The next number above median + `DEVIATIONS` robust standard deviations of the frame scores [T].

    A robust standard deviation is 1.4826 times the median distance from the median. The step to the next number keeps
    a flat score, all of which equals its median, without an alarm.

    >>> round(own_threshold(np.array([0.0, 1.0, 2.0, 3.0, 4.0])), 2)
    7.93
    """
    median = np.median(scores)
    return float(np.nextafter(median + DEVIATIONS * 1.4826 * np.median(np.abs(scores - median)), np.inf))


def alarms(table: pd.DataFrame, threshold: float) -> np.ndarray:
    """Frames of a scored video that alarm (`is_alarm` of column `score`), bool [T]; none during its column `warmup`."""
    return is_alarm(table["score"], threshold) & ~table["warmup"].to_numpy()
