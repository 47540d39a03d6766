"""Fits a detector to one's own camera from its NORMAL video: what to remember, what is usual, and from which score on
to alarm.

A threshold from another camera means nothing. Each half of the videos is scored as unseen, with a memory that the other
half fills (`crossed`); on these scores each term gets its mean and standard deviation, and the threshold is the lowest
at which at most the share `far` of the frames alarm (`normal_thresholds`, as in every table). Causal scores, of one
window each, spread more and get a threshold of their own. Scores of neighbouring frames are alike, so that it is the
windows that say how small a share can be known.

Notebook: 50_score_your_video
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_lib.config import FAR_TARGET
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import WINDOW
from zsad_lib.files import paths
from zsad_lib.files.video import timed_frames
from zsad_lib.files.video_folders import list_videos
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware.scorer import Scorer, crossed, save_scorer
from zsad_lib.own_video.detector import TERMS, Words, own_scorer
from zsad_lib.own_video.scoring import join_terms, seen_frames, window_features
from zsad_lib.own_video.ticks import Part, Seen

FLAT = 1e-6  # deviations; scores that spread less tell nothing
CERTAIN = 10  # windows above the threshold, below which it is uncertain: their number varies by a third and more


def calibrate(
    normal: str | Path,
    name: str,
    run: str | None = None,
    far: float = FAR_TARGET,
    captions: Sequence[str] = (),
    *,
    fps: float | None = None,
    allow_missing: bool = False,
) -> tuple[Path, float]:
    """A detector for the camera that recorded the videos in a folder.

    Args:
        normal: folder of at least two videos in which nothing abnormal happens.
        name: of the run folder that receives the detector; `score_video` finds it there as ``run=name``. An earlier
            calibration of this name is replaced, any other run is left alone.
        run: detector to start from; None: the shipped one.
        far: share of normal frames that may alarm, 0..1; the smallest that can be measured is 1 / windows of the
            videos, so that the default asks for 13 s of them.
        captions: sentences on what is normal there, instead of the detector's own.
        fps: of folders of frames, see `score_video`.
        allow_missing: go on without videos that cannot be read.

    Returns:
        The detector's file, and the threshold.

    Raises:
        ZsadError: fewer than two videos, unreadable ones, a share outside 0..1 or too small for so little video, or the
            name of a run that is no calibration.
    """
    if not 0 < far < 1:
        raise ZsadError(f"far={far}: give a share of frames between 0 and 1, as 0.01")
    target = _target(name)
    if Path(normal).is_file():
        raise ZsadError(f"{normal}: a file; give the folder that holds the normal videos, two or more")
    videos = _readable(normal, allow_missing)
    if len(videos) < 2:
        raise ZsadError(f"{normal}: one video; give two or more, since what is remembered cannot tell what is usual")
    (scorer, meta), tool = own_scorer(run, Words(normal=captions)), Extractor(stand_ins())
    watched = [_watch(scorer, video, tool, fps) for video in videos]
    halves = watched[::2], watched[1::2]
    count = _count_windows(halves, normal, far)
    scorer, asked = crossed(scorer, [[piece for video in half for piece in video.pieces] for half in halves])
    held_out = []  # terms and length of each stretch, as the other half's memory sees it
    for half, of_memory in zip(halves, map(iter, asked)):
        for video in half:
            terms = join_terms(scorer, [of_piece | next(of_memory) for of_piece in video.terms])
            held_out += [({k: v[part.windows] for k, v in terms.items()}, len(part.at)) for part in video.parts()]
    scorer.calibrate(held_out)
    thresholds = []
    for live in (False, True):
        scored = (scorer.score(terms, TERMS, length, causal=live) for terms, length in held_out)
        frames = {number: scores[np.isfinite(scores)] for number, scores in enumerate(scored)}
        if np.ptp(np.concatenate(list(frames.values()))) < FLAT:
            flat = "all its scores are equal, as of a still picture"
            raise ZsadError(f"{normal}: {flat}; give video in which something moves")
        thresholds.append(float(normal_thresholds(frames, far)[0]))
    threshold, causal = thresholds
    meta |= {"threshold": threshold, "threshold_causal": causal, "far": far, "normal": [str(video) for video in videos]}
    meta["folder"] = os.fspath(Path(normal).resolve())
    meta["measured_on"] = {"seconds": sum(video.seconds() for video in watched), "windows": count}
    if target.exists():
        print(f"{target}: an earlier calibration of this name is replaced", file=sys.stderr)
    save_scorer(target, scorer, meta)
    return target, threshold


class _Watched(NamedTuple):
    """A normal video."""

    seen: Seen
    pieces: list[VideoFeatures]  # without the features that no memory holds
    terms: list[dict[str, np.ndarray]]  # of `Scorer.terms`, of each piece, without those of the memory

    def parts(self) -> Iterator[Part]:
        """Its stretches that hold a whole window."""
        return (part for part in self.seen.parts() if len(part.at) >= WINDOW)

    def seconds(self) -> float:
        """Length of those."""
        return sum(self.seen.times[part.frames][-1] - self.seen.times[part.frames][0] for part in self.parts())


def _watch(scorer: Scorer, video: Path, tool: Extractor, fps: float | None) -> _Watched:
    watched = _Watched(Seen(), [], [])
    for piece in window_features(seen_frames(video, watched.seen, fps), tool):
        watched.terms.extend(scorer.terms([piece], remembered=False))
        watched.pieces.append(piece._replace(stem=piece.stem[:0], cell_motion=piece.cell_motion[:0]))
    return watched


def _count_windows(halves: Sequence[Sequence[_Watched]], normal: str | Path, far: float) -> int:
    """Windows of all videos; ZsadError where they are too few or too alike to tell what is usual."""
    counts = [sum(p.windows.stop - p.windows.start for video in half for p in video.parts()) for half in halves]
    if min(counts) < 2:
        raise ZsadError(
            f"{normal}: too little video; every second one is held out in turn to tell what is usual, and those hold"
            f" {min(counts)} windows of {WINDOW} seen frames (3 s); give longer videos"
        )
    if far < 1 / sum(counts):
        least = f"{sum(counts)} windows of normal video cannot tell less than far={1 / sum(counts):.2g}"
        raise ZsadError(f"far={far:g}: {least}; give more video or a larger share")
    return sum(counts)


def in_words(target: Path) -> str:
    """What a calibrated detector's file says of itself, as a line: thresholds, what they were measured on, and how far
    to trust them."""
    meta = load_weights(target)[1]
    measured_on = meta["measured_on"]
    above = meta["far"] * measured_on["windows"]
    doubt = f"; only about {above:.0f} windows lie above: the threshold is uncertain, more video makes it sure"
    return (
        f"{target}: alarms above {meta['threshold']:.2f}, causal and live above {meta['threshold_causal']:.2f}:"
        f" {meta['far']:.3g} of the frames of {len(meta['normal'])} normal videos exceed it, each half as unseen by"
        f" the memory of the other ({measured_on['seconds'] / 60:.1f} minutes, {measured_on['windows']} windows)"
        f"{doubt if above < CERTAIN else ''}"
    )


def name_for(normal: str | Path) -> str:
    """Name of the run for a folder of normal videos: ``calibrated-<folder>``, or with the folders above it in front
    where the detector of that name was calibrated from another folder."""
    folder = Path(normal).resolve()
    name = paths.as_text(folder.name)
    for parent in (*folder.parents, None):
        target = _file(f"calibrated-{name}")
        if parent is None or not target.is_file() or load_weights(target)[1].get("folder") == os.fspath(folder):
            break
        name = f"{paths.as_text(parent.name)}-{name}" if parent.name else name
    return f"calibrated-{name}"


def _file(name: str) -> Path:
    return paths.runs() / name / "score" / "full" / "0" / "scorer.safetensors"


def _target(name: str) -> Path:
    """File of the detector; ZsadError where the name belongs to something else."""
    if Path(name).name != name:
        raise ZsadError(f"{name!r}: the name of a run is one folder below {paths.runs()}; give a name without a slash")
    folder, target = paths.runs() / name, _file(name)
    calibrated = target.is_file() and "normal" in load_weights(target)[1]
    if folder.exists() and not calibrated:
        raise ZsadError(f"{folder}: a run that is no calibration lies there; give another name")
    return target


def _readable(normal: str | Path, allow_missing: bool) -> list[Path]:
    """The videos of a folder that can be read; the others are told, all of them."""
    videos, listed = [], list_videos(normal)
    for video in listed:
        try:
            next(timed_frames(video))
            videos.append(video)
        except ZsadError as error:
            print(f"skipped: {error}", file=sys.stderr, flush=True)
    if (broken := len(listed) - len(videos)) and not allow_missing:
        advice = "mend or remove them, or go on without them by ALLOW_MISSING=1"
        raise ZsadError(f"{broken} of {len(listed)} videos cannot be read; {advice}")
    return videos
