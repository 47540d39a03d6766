"""Cameras fitted to normal video of their own, as `make calibrate` fits a user's: both normal streams of a camera are
remembered; statistics, lowest values and thresholds come from what each is to a memory of the other (`crossed`).

How much normal video a threshold needs is measured on validation cameras, whose streams with events tell the rate that
they get.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.config import FAR_TARGET
from zsad_lib.evaluate.events import apart, is_alarm
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.features.cache import VideoFeatures, feature_file, load_features
from zsad_lib.features.window_plan import window_count
from zsad_lib.files.manifest import frame_labels
from zsad_lib.methods.context_aware.scorer import Scorer, crossed
from zsad_lib.methods.context_aware.scores import METHODS

CALIBRATED = ("full_memory", "knn_predictive")  # methods that are scored so
VARIANTS = {"calibrated": False, "calibrated_causal": True}  # name -> as a live camera would know it
LENGTHS = (150, 300, 600, 900, 1200)  # frames of each normal stream in `minutes_needed`
Terms = dict[str, np.ndarray]


def cameras(table: pd.DataFrame, split: str) -> dict[str, tuple[Any, Any]]:
    """Site -> the manifest's rows of its first two normal streams of a split; only of sites that have two."""
    rows = table[(table.split == split) & (table.set == "stream") & (table.family == "normal")].sort_values("video")
    pairs = {site: tuple(some.itertuples())[:2] for site, some in rows.groupby("site")}
    return {site: pair for site, pair in pairs.items() if len(pair) == 2}


def streams_of(table: pd.DataFrame, split: str, site: str) -> list[Any]:
    """The manifest's rows of a camera's streams with events."""
    return list(
        table[
            (table.split == split) & (table.set == "stream") & (table.site == site) & (table.family != "normal")
        ].itertuples()
    )


def score_cameras(
    scorer: Scorer, terms: dict[str, Terms], table: pd.DataFrame, cache: Path, stride: int = 1
) -> tuple[pd.DataFrame, dict[tuple[str, str], dict[str, np.ndarray]]]:
    """Scores of the test streams of all cameras that have some, and recorded two normal streams before.

    Args:
        scorer: whose memory and statistics are replaced, for each camera by its own.
        terms: of `scorer`, of the test videos; all that asks no memory is taken from them.
        table: manifest.
        cache: folder of the features.
        stride: every stride-th frame was seen.

    Returns:
        the manifest's rows of what is scored, each camera's two normal streams and its test streams; and (method,
        variant) -> video -> score of every frame [T], NaN in frames before a causal one is known.
    """
    fused: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for site, before in cameras(table, "before").items():
        if not (tested := streams_of(table, "test", site)):
            continue
        features = [load_features(feature_file(cache, row)) for row in before]
        lengths = [row.n_frames for row in before]
        own, held_out = fitted(scorer, features, scorer.terms(features, remembered=False), lengths, stride)
        videos = {row.video: (of_video, row.n_frames) for row, of_video in zip(before, held_out)}
        for row in tested:
            asked = own.memory_terms(load_features(feature_file(cache, row)))
            videos[row.video] = (terms[row.video] | asked, row.n_frames)
        for video, (of_video, length) in videos.items():
            for variant, causal in VARIANTS.items():
                frames = own.frames(of_video, length, stride, causal)
                for method in CALIBRATED:
                    scores = fused.setdefault((method, variant), {})
                    scores[video] = own.fuse(frames, METHODS[method][1], causal)
    return table[table.video.isin(next(iter(fused.values()), {}))], fused


def fitted(
    scorer: Scorer, features: Sequence[VideoFeatures], terms: Iterable[Terms], lengths: Sequence[int], stride: int = 1
) -> tuple[Scorer, list[Terms]]:
    """A camera's scorer, and the terms of its two normal streams, each as unseen.

    Args:
        scorer: whose memory and statistics are replaced.
        features: of both streams.
        terms: of both, by any memory.
        lengths: their frames.
        stride: every stride-th frame was seen.
    """
    own, asked = crossed(scorer, [[one] for one in features])
    held_out = [of_video | of_memory for of_video, [of_memory] in zip(terms, asked)]
    own.calibrate(list(zip(held_out, lengths)), stride)
    return own, held_out


def shortened(features: VideoFeatures, frames: int) -> VideoFeatures:
    """Features of a video's first frames, as far as a memory needs them."""
    count = window_count(frames)
    inside = features.region_at[:, 0] < count
    return features._replace(
        timesformer=features.timesformer[:count], scene=features.scene[:count], region=features.region[inside],
        region_at=features.region_at[inside], n_frames=frames,
    )  # fmt: skip


def minutes_needed(
    scorer: Scorer, terms: dict[str, Terms], table: pd.DataFrame, cache: Path, lengths: Sequence[int] = LENGTHS
) -> pd.DataFrame:
    """How far the rate of false alarms is from the one asked for, by how much normal video a camera was fitted to.

    Both normal streams of each validation camera are cut to each of `lengths`; what is got is the share of the normal
    frames of its streams with events that alarm. Beside an event they alarm more often than anywhere else, however much
    video there is: its actor is already or still in sight, and a Gaussian spreads its score.

    Args:
        scorer: see `score_cameras`.
        terms: of `scorer`, of the validation streams, normal ones and those with events.
        table: manifest.
        cache: folder of the features.
        lengths: frames; longer ones than a stream are left out.

    Returns:
        columns `method`, `variant`, `seconds` (of both streams), `asked`, `got` (mean over cameras), `got_apart` (of
        the frames `apart` from events), `gap` (mean of \\|asked - got\\|), `worst_got` and `worst_site` (where that is
        largest) and `cameras`.
    """
    rows = []
    for site, before in cameras(table, "val").items():
        normal = [(row, load_features(feature_file(cache, row))) for row in before]
        tested = [(row, load_features(feature_file(cache, row))) for row in streams_of(table, "val", site)]
        for frames in (length for length in lengths if length <= min(row.n_frames for row in before)):
            cut = [{name: of[: window_count(frames)] for name, of in terms[row.video].items()} for row in before]
            own, held_out = fitted(scorer, [shortened(features, frames) for _, features in normal], cut, [frames] * 2)
            streams = [(row, terms[row.video] | own.memory_terms(features)) for row, features in tested]
            for method in CALIBRATED:
                for variant, causal in VARIANTS.items():
                    got = _rates(own, METHODS[method][1], held_out, frames, streams, causal)
                    rows.append((method, variant, 2 * frames / before[0].fps, FAR_TARGET, site, *got))
    found = pd.DataFrame(rows, columns=["method", "variant", "seconds", "asked", "site", "got", "got_apart"])
    found["gap"] = (found.got - found.asked).abs()
    keys = ["method", "variant", "seconds", "asked"]
    worst = found.loc[found.groupby(keys, sort=False).gap.idxmax(), [*keys, "got", "site"]]
    means = found.groupby(keys, sort=False).agg(
        got=("got", "mean"), got_apart=("got_apart", "mean"), gap=("gap", "mean"), cameras=("site", "count")
    )
    return means.reset_index().merge(worst.rename(columns={"got": "worst_got", "site": "worst_site"}), on=keys)


def _rates(
    own: Scorer, names: tuple[str, ...], held_out: list[Terms], frames: int, streams: list[tuple[Any, Terms]],
    causal: bool,
) -> tuple[float, float]:  # fmt: skip
    """Share of the normal frames of `streams` that alarm at the threshold that `FAR_TARGET` of `held_out` exceeds, and
    the same of the frames that lie `apart` from events."""
    normal = [own.score(of, names, frames, causal=causal) for of in held_out]
    unseen = {str(number): scores[np.isfinite(scores)] for number, scores in enumerate(normal)}
    threshold = normal_thresholds(unseen, FAR_TARGET)[0]
    labels = [frame_labels(row) for row, _ in streams]
    alarms = [is_alarm(own.score(of, names, row.n_frames, causal=causal), threshold) for row, of in streams]
    return tuple(
        float(np.concatenate([alarm[where] for alarm, where in zip(alarms, some)]).mean())
        for some in ([of == 0 for of in labels], [apart(of, row.fps) for of, (row, _) in zip(labels, streams)])
    )
