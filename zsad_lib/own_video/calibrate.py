"""Fits a detector to one's own camera from its NORMAL video: what to remember, what is usual, and from which score on to alarm.

A threshold from another camera means nothing. Half of the videos fill the memory of normality; on the other half, which the memory has
not seen, each term gets its mean and deviation, and the threshold is the quantile of its frame scores that leaves `far` of them above.
Causal scores, of one window each, spread more and get a threshold of their own. Scores of neighbouring frames are alike, so that it is
the windows that say how small a share can be known.
"""

from __future__ import annotations

import dataclasses
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.clip_frames import list_videos
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import WINDOW, to_frames
from zsad_lib.files import paths
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware.scorer import Scorer, save_scorer
from zsad_lib.methods.context_aware.scores import joint
from zsad_lib.own_video.detector import RATE, TERMS, Words, own_scorer
from zsad_lib.own_video.scoring import seen_frames, thinning, window_features

CERTAIN = 10  # windows above the threshold, below which it is uncertain: their number varies by a third and more


def calibrate(
    normal: str | Path,
    name: str,
    run: str | None = None,
    far: float = 0.1,
    captions: Sequence[str] = (),
    *,
    fps: float | None = None,
    allow_missing: bool = False,
) -> tuple[Path, float]:
    """A detector for the camera that recorded the videos in a folder.

    Args:
        normal: folder of at least two videos in which nothing abnormal happens.
        name: of the run folder that receives the detector; `score_video` finds it there as ``run=name``. An earlier calibration of this
            name is replaced, any other run is left alone.
        run: detector to start from; None: the shipped one.
        far: share of normal frames that may alarm, 0..1.
        captions: sentences on what is normal there, instead of the detector's own.
        fps: of folders of frames, see `score_video`.
        allow_missing: go on without videos that cannot be read.

    Returns:
        The detector's file, and the threshold.

    Raises:
        ZsadError: fewer than two videos, unreadable ones, a share outside 0..1 or too small for so little video, or the name of a run
            that is no calibration.
    """
    if not 0 < far < 1:
        raise ZsadError(f"far={far}: give a share of frames between 0 and 1, as 0.01")
    target = _target(name)
    if Path(normal).is_file():
        raise ZsadError(f"{normal}: a file; give the folder that holds the normal videos, two or more")
    steps = _readable(normal, fps, allow_missing)
    videos = list(steps)
    if len(videos) < 2:
        raise ZsadError(f"{normal}: one video; give two or more, since what is remembered cannot tell what is usual")
    (scorer, meta), tool = own_scorer(run, Words(normal=captions)), Extractor(stand_ins())
    remembered, usual = videos[::2], videos[1::2]
    seen = [memorise(scorer, video, steps[video], tool) for video in remembered]
    scorer = dataclasses.replace(scorer, memory=torch.cat(seen), statistics={})
    terms, lengths, spent = [], [], 0.0
    for video in usual:
        seconds = array("d")
        parts = list(scorer.terms(window_features(seen_frames(video, steps[video], seconds), tool)))
        if (length := -(-len(seconds) // steps[video])) >= WINDOW:  # a shorter one holds no whole window
            terms.append({term: np.concatenate([part[term] for part in parts]) for term in (*TERMS, "caption")})
            lengths.append(length)
            spent += len(seconds) / (fps or RATE) if video.is_dir() else seconds[-1]
    count = sum(len(part["caption"]) for part in terms)
    if count < 2:
        raise ZsadError(
            f"{normal}: too little video; every second one is held out to tell what is usual, and those hold {count} windows of "
            f"{WINDOW} seen frames (3 s); give longer videos"
        )
    if far < 1 / count:
        raise ZsadError(
            f"far={far:g}: {count} windows of held-out normal video cannot tell less than far={1 / count:.2g}; give more video or "
            "a larger share"
        )
    together = {term: np.concatenate([part[term] for part in terms]) for term in TERMS}
    if all(np.allclose(values, values[0]) for values in together.values()):
        raise ZsadError(
            f"{normal}: all its scores are equal, as of a still picture; give video in which something moves"
        )
    scorer.calibrate(terms)
    windows = [scorer.fuse(part, TERMS) for part in terms]
    frames = [to_frames(scores, length) for scores, length in zip(windows, lengths)]
    threshold, causal = (float(np.quantile(np.concatenate(scores), 1 - far)) for scores in (frames, windows))
    found = {"threshold": threshold, "threshold_causal": causal, "far": far, "normal": [str(video) for video in videos]}
    found["measured_on"] = {"videos": len(terms), "seconds": spent, "windows": count}
    if target.exists():
        print(f"{target}: an earlier calibration of this name is replaced", file=sys.stderr)
    save_scorer(target, scorer, {**meta, **found})
    return target, threshold


def in_words(target: Path) -> str:
    """What a calibrated detector's file says of itself, as a line: thresholds, what they were measured on, and how far to trust them."""
    meta = load_weights(target)[1]
    held = meta["measured_on"]
    above = meta["far"] * held["windows"]
    doubt = f"; only about {above:.0f} windows lie above: the threshold is uncertain, more video makes it sure"
    return (
        f"{target}: alarms above {meta['threshold']:.2f}, causal and live above {meta['threshold_causal']:.2f}: {meta['far']:.3g} of the "
        f"frames exceed it in the held-out half of {len(meta['normal'])} normal videos ({held['videos']} videos, "
        f"{held['seconds'] / 60:.1f} minutes, {held['windows']} windows){doubt if above < CERTAIN else ''}"
    )


def _target(name: str) -> Path:
    """File of the detector; ZsadError where the name belongs to something else."""
    if Path(name).name != name:
        raise ZsadError(f"{name!r}: the name of a run is one folder below {paths.runs()}; give a name without a slash")
    folder = paths.runs() / name
    target = folder / "score" / "full" / "0" / "scorer.safetensors"
    calibrated = target.is_file() and "normal" in load_weights(target)[1]
    if folder.exists() and not calibrated:
        raise ZsadError(f"{folder}: a run that is no calibration lies there; give another name")
    return target


def _readable(normal: str | Path, fps: float | None, allow_missing: bool) -> dict[Path, int]:
    """The videos of a folder that can be read, each with its `thinning`; the others are told, all of them."""
    found, listed = {}, list_videos(normal)
    for video in listed:
        try:
            found[video] = thinning(video, fps)
        except ZsadError as error:
            print(f"skipped: {error}", file=sys.stderr, flush=True)
    if (broken := len(listed) - len(found)) and not allow_missing:
        raise ZsadError(
            f"{broken} of {len(listed)} videos cannot be read; mend or remove them, or go on without them by ALLOW_MISSING=1"
        )
    return found


@torch.no_grad()
def memorise(scorer: Scorer, video: Path, step: int, tool: Extractor) -> torch.Tensor:
    """Joint vectors of all windows of one video, of which every step-th frame is seen: [W, J], as the neighbour memory holds them."""
    d = scorer.detector
    parts = window_features(seen_frames(video, step, array("d")), tool)
    return torch.cat([joint(d.anchor(part.timesformer), d.standardised(part.scene)) for part in parts])
