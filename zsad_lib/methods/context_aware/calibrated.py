"""Cameras fitted to normal video of their own, as `make calibrate` fits a user's: what is remembered comes from a
camera's first normal stream, statistics and lowest values from its second, which that memory has not seen.

The evaluation takes each camera's threshold from its second stream too. How much normal video that needs is measured on
validation cameras, whose streams with events tell the rate that they get.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.config import FAR_TARGET
from zsad_lib.evaluate.events import is_alarm
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.features.cache import VideoFeatures, feature_file, load_features
from zsad_lib.features.window_plan import window_count
from zsad_lib.files.manifest import frame_labels
from zsad_lib.methods.context_aware.scorer import Scorer, with_memory
from zsad_lib.methods.context_aware.scores import METHODS

CALIBRATED = ("full_memory", "knn_predictive")  # methods that are scored so
VARIANTS = {"calibrated": False, "calibrated_causal": True}  # name -> as a live camera would know it
LENGTHS = (150, 300, 600, 900, 1200)  # frames of both normal streams in `minutes_needed`
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
        the manifest's rows of what is scored, each camera's second normal stream and its test streams; and (method,
        variant) -> video -> score of every frame [T], NaN in frames before a causal one is known.
    """
    fused: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for site, (first, second) in cameras(table, "before").items():
        if not (tested := streams_of(table, "test", site)):
            continue
        own = with_memory(scorer, [load_features(feature_file(cache, first))])
        held_out = load_features(feature_file(cache, second))
        [own_terms] = own.terms([held_out])
        own.calibrate([(own_terms, second.n_frames)], stride)
        videos = {second.video: (own_terms, second.n_frames)}
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
    frames of its streams with events that alarm.

    Args:
        scorer: see `score_cameras`.
        terms: of `scorer`, of the validation streams, normal ones and those with events.
        table: manifest.
        cache: folder of the features.
        lengths: frames; longer ones than a stream are left out.

    Returns:
        columns `method`, `variant`, `seconds` (of held-out normal video; as much is remembered), `asked`, `got` (mean
        over cameras), `gap` (mean of \\|asked - got\\|), `worst_got` and `worst_site` (where that is largest) and
        `cameras`.
    """
    rows = []
    for site, (first, second) in cameras(table, "val").items():
        remembered, held_out = (load_features(feature_file(cache, row)) for row in (first, second))
        tested = [(row, load_features(feature_file(cache, row))) for row in streams_of(table, "val", site)]
        for frames in (length for length in lengths if length <= min(first.n_frames, second.n_frames)):
            own, cut = with_memory(scorer, [shortened(remembered, frames)]), shortened(held_out, frames)
            normal = {name: values[: window_count(frames)] for name, values in terms[second.video].items()}
            normal |= own.memory_terms(cut)
            own.calibrate([(normal, frames)])
            streams = [(row, terms[row.video] | own.memory_terms(features)) for row, features in tested]
            for method in CALIBRATED:
                for variant, causal in VARIANTS.items():
                    got = _rate(own, METHODS[method][1], normal, frames, streams, causal)
                    rows.append((method, variant, frames / second.fps, FAR_TARGET, site, got))
    found = pd.DataFrame(rows, columns=["method", "variant", "seconds", "asked", "site", "got"])
    found["gap"] = (found.got - found.asked).abs()
    keys = ["method", "variant", "seconds", "asked"]
    worst = found.loc[found.groupby(keys, sort=False).gap.idxmax(), [*keys, "got", "site"]]
    means = found.groupby(keys, sort=False).agg(got=("got", "mean"), gap=("gap", "mean"), cameras=("site", "count"))
    return means.reset_index().merge(worst.rename(columns={"got": "worst_got", "site": "worst_site"}), on=keys)


def _rate(
    own: Scorer, names: tuple[str, ...], normal: Terms, frames: int, streams: list[tuple[Any, Terms]], causal: bool
) -> float:
    """Share of the normal frames of `streams` that alarm at the threshold that `FAR_TARGET` of `normal` exceeds."""
    held_out = own.score(normal, names, frames, causal=causal)
    threshold = normal_thresholds({"normal": held_out[np.isfinite(held_out)]}, FAR_TARGET)[0]
    calm = [own.score(of, names, row.n_frames, causal=causal)[frame_labels(row) == 0] for row, of in streams]
    return float(is_alarm(np.concatenate(calm), threshold).mean())
