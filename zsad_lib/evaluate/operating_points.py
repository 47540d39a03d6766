"""What alarms cost and bring at a threshold that lets a share of held-out normal frames alarm: one threshold for all
cameras, or one for each from its own normal video.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.evaluate.events import apart, is_alarm, runs
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.evaluate.protocol import METRICS, Estimate, estimates, weights_of
from zsad_lib.evaluate.weighted_auc import ratio

ASKED = (0.01, 0.05)  # shares of held-out normal frames that may alarm
AT_THRESHOLD = {  # metric of a point, as "far@0.05" -> what it is at a fixed threshold
    "far": "far", "event_recall": "event_recall_at_threshold", "delay_s": "delay_s_at_threshold",
    "false_alarms_per_hour": "false_alarms_per_hour_at_threshold",
}  # fmt: skip
POINT_METRICS = {  # metric -> level
    f"{name}@{asked:g}": METRICS[known] for asked in ASKED for name, known in AT_THRESHOLD.items()
}
LOCALISED = {"localised": "event", "localised_chance": "event"}  # metric -> level; at the profile's far_target


def held_out_for(normal: Mapping[str, np.ndarray], sets: Mapping[str, str], streams: bool) -> dict[str, np.ndarray]:
    """Of held-out normal videos those like the test videos, streams or clips; all, where none is.

    Args:
        normal: video -> its scores.
        sets: video -> its set in the manifest.
        streams: what is tested are streams.

    >>> list(held_out_for({"a": 1, "b": 2}, {"a": "main", "b": "stream"}, streams=True))
    ['b']
    """
    like = {video: scores for video, scores in normal.items() if sets.get(video, "").startswith("stream") == streams}
    return like or dict(normal)


def operating_points(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    normal: Mapping[str, Mapping[str, np.ndarray]],
    camera: Mapping[str, str],
    **options: Any,
) -> list[Estimate]:
    """False alarm rate, event recall, false alarms per hour and delay at the thresholds for each of `ASKED`.

    Args:
        scores: test video -> [S, n_frames].
        labels: test video -> [n_frames] of 0 and 1.
        normal: camera -> held-out normal video of it -> [S, n] scores; they fix its thresholds.
        camera: test video -> camera.
        options: of `zsad_lib.evaluate.protocol.estimates`: group, fps, draws, ...

    Returns:
        Estimates of the metrics `POINT_METRICS`.
    """
    rows = []
    for asked in ASKED:
        limits = {name: normal_thresholds(videos, asked)[:, None] for name, videos in normal.items()}
        above = {video: values - limits[camera[video]] for video, values in scores.items()}  # 0: at the threshold
        found = {e.metric: e for e in estimates(above, labels, threshold=0, metrics=AT_THRESHOLD.values(), **options)}
        rows += [
            found[known]._replace(metric=f"{name}@{asked:g}") for name, known in AT_THRESHOLD.items() if known in found
        ]
    return rows


def localisation(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    normal: Mapping[str, np.ndarray],
    inside: Mapping[str, np.ndarray],
    of: Estimate,
    far_target: float,
) -> list[Estimate]:
    """Share of the detected events at whose highest score the top region lies in the abnormal actor's box, and chance.

    Args:
        scores: test video -> [S, n_frames].
        labels: test video -> [n_frames] of 0 and 1.
        normal: held-out normal video -> [S, n]; they fix the threshold of each seed.
        inside: test video -> [S, n_frames, 2]: whether the top region lies in the box, and the share of all that do.
        of: an estimate of the same videos, whose number of draws and sizes these get.
        far_target: share of held-out normal frames that may alarm, 0..1.

    Returns:
        `localised` and `localised_chance`; none where no event is detected.
    """
    videos, thresholds = sorted(scores), normal_thresholds(normal, far_target)
    counts = np.zeros((len(thresholds), len(videos), 3))  # per seed and video: in the box, chance, detected
    for v, video in enumerate(videos):
        events = runs(np.asarray(labels[video]) > 0, np.array([0]))
        for seed, threshold in enumerate(thresholds):
            for begin, end in zip(events.begin, events.end):
                values = scores[video][seed, begin:end]
                if is_alarm(values.max(), threshold):
                    counts[seed, v] += (*inside[video][seed, begin + values.argmax()], 1)
    drawn = np.einsum("rv,svk->srk", weights_of(len(videos), len(of.draws) - 1, 0), counts)  # [S, 1 + R, 3]
    shares = ratio(drawn[..., :2], drawn[..., 2:]).mean(0)
    return [
        of._replace(metric=name, draws=shares[:, k]) for k, name in enumerate(LOCALISED) if shares[0, k] == shares[0, k]
    ]


def camera_rates(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    normal: Mapping[str, Mapping[str, np.ndarray]],
    camera: Mapping[str, str],
    fps: Mapping[str, float],
) -> pd.DataFrame:
    """The false alarm rate that each camera was asked for and the one it got; arguments as of `operating_points`.

    Args:
        scores, labels, normal, camera: see `operating_points`.
        fps: test video -> frames per second.

    Returns:
        columns `site`, `asked`, `got` (share of the normal frames of its test videos), `got_apart` (of those `apart`
        from events) and `threshold`, means over seeds, `n_frames` and `n_apart` (those frames).
    """
    rows = []
    for site in sorted(set(camera.values())):
        videos = [video for video in scores if camera[video] == site]
        joined = np.concatenate([scores[video] for video in videos], axis=1)  # [S, n]
        calm = np.concatenate([np.asarray(labels[video]) == 0 for video in videos])
        far_off = np.concatenate([apart(labels[video], fps[video]) for video in videos])
        for asked in ASKED:
            thresholds = normal_thresholds(normal[site], asked)
            alarms = is_alarm(joined, thresholds[:, None])
            got, got_apart = (alarms[:, some].mean() if some.any() else np.nan for some in (calm, far_off))
            rows.append((site, asked, got, got_apart, thresholds.mean(), calm.sum(), far_off.sum()))
    columns = ["site", "asked", "got", "got_apart", "threshold", "n_frames", "n_apart"]
    return pd.DataFrame(rows, columns=columns)
