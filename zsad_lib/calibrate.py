"""Fits a detector to one's own camera from its NORMAL video: what to remember, what is usual, and from which score on to alarm.

A threshold from another camera means nothing. Half of the videos fill the memory of normality; on the other half, which the memory has
not seen, each term gets its mean and deviation, and the threshold is the quantile of its frame scores that leaves `far` of them above.
Causal scores, of one window each, spread more and get a threshold of their own.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from zsad_lib import paths
from zsad_lib.backbones import stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.features import Extractor, to_frames
from zsad_lib.frame_features import list_videos
from zsad_lib.own_detector import TERMS, Words, own_scorer
from zsad_lib.own_video import seen_frames, thinning, window_features
from zsad_lib.score import Scorer, joint, save_scorer


def calibrate(
    normal: str | Path, name: str, run: str | None = None, far: float = 0.1, captions: Sequence[str] = ()
) -> tuple[Path, float]:
    """A detector for the camera that recorded the videos in a folder.

    Args:
        normal: folder of at least two videos in which nothing abnormal happens.
        name: of the run folder that receives the detector; `score_video` finds it there as ``run=name``.
        run: detector to start from; None: the shipped one.
        far: share of normal frames that may alarm, 0..1.
        captions: sentences on what is normal there, instead of the detector's own.

    Returns:
        The detector's file, and the threshold.

    Raises:
        ZsadError: fewer than two videos, an unreadable one, or a share outside 0..1.
    """
    videos = list_videos(normal)
    if len(videos) < 2:
        raise ZsadError(f"{normal}: one video; give two or more, since what is remembered cannot tell what is usual")
    if not 0 < far < 1:
        raise ZsadError(f"far={far}: give a share of frames between 0 and 1, as 0.01")
    (scorer, meta), tool = own_scorer(run, Words(normal=captions)), Extractor(stand_ins())
    remembered, usual = videos[::2], videos[1::2]
    seen = [memorise(scorer, video, tool) for video in remembered]
    scorer = dataclasses.replace(scorer, memory=torch.cat(seen), statistics={})
    terms, lengths = [], []
    for video in usual:
        step, seconds = thinning(video), array("d")
        parts = list(scorer.terms(window_features(seen_frames(video, step, seconds), tool)))
        terms.append({term: np.concatenate([part[term] for part in parts]) for term in (*TERMS, "caption")})
        lengths.append(-(-len(seconds) // step))
    scorer.calibrate(terms)
    windows = [scorer.fuse(part, TERMS) for part in terms]
    frames = [to_frames(scores, length) for scores, length in zip(windows, lengths)]
    threshold, causal = (float(np.quantile(np.concatenate(scores), 1 - far)) for scores in (frames, windows))
    target = paths.runs() / name / "score" / "full" / "0" / "scorer.safetensors"
    made_from = [str(video) for video in videos]
    save_scorer(
        target, scorer, {**meta, "threshold": threshold, "threshold_causal": causal, "far": far, "normal": made_from}
    )
    return target, threshold


@torch.no_grad()
def memorise(scorer: Scorer, video: Path, tool: Extractor) -> torch.Tensor:
    """Joint vectors of all windows of one video, [W, J], as the neighbour memory holds them."""
    d = scorer.detector
    parts = window_features(seen_frames(video, thinning(video), array("d")), tool)
    return torch.cat([joint(d.anchor(part.timesformer), d.standardised(part.scene)) for part in parts])
