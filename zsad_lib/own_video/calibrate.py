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

import itertools
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from zsad_lib.config import FAR_TARGET
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.features.backbones import device
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.extraction import NORM_VIDEOS
from zsad_lib.features.window_plan import WINDOW, chunks
from zsad_lib.files import paths
from zsad_lib.files.video import timed_frames
from zsad_lib.files.video_folders import list_videos
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware.local_readout import MOVING_QUANTILE
from zsad_lib.methods.context_aware.scorer import crossed, save_scorer
from zsad_lib.models.dpc import estimate_norm_stats
from zsad_lib.own_video.camera_prediction import FOLDER, MOST_FRAMES, CameraPrediction, grey, learn, size_for
from zsad_lib.own_video.detector import AS_IT_IS, OwnDetector, Sees, own_detector
from zsad_lib.own_video.scoring import join_terms, pieces, seen_frames
from zsad_lib.own_video.ticks import Part, Seen
from zsad_lib.own_video.words import NO_WORDS, Words

FLAT = 1e-6  # deviations; scores that spread less tell nothing
HELD_OUT = 4  # every so many-th video is held out of a training
CERTAIN = 10  # windows above the threshold, below which it is uncertain: their number varies by a third and more


def calibrate(
    normal: str | Path,
    name: str,
    run: str | None = None,
    far: float = FAR_TARGET,
    words: Words = NO_WORDS,
    *,
    sees: Sees = AS_IT_IS,
    predict: bool = False,
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
        words: sentences on what is normal there and what abnormal, instead of the detector's own.
        sees: with published weights instead, see `own_detector`.
        predict: train predictive coding from scratch on the camera (`camera_prediction`), instead of a stream that was
            pretrained elsewhere. What was trained on cannot tell what is usual either: every fourth video, at least the
            last, is held out of the training, and those alone tell statistics and thresholds.
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
    target = calibration_file(name)
    if Path(normal).is_file():
        raise ZsadError(f"{normal}: a file; give the folder that holds the normal videos, two or more")
    videos = readable(normal, allow_missing)
    if len(videos) < 2:
        raise ZsadError(f"{normal}: one video; give two or more, since what is remembered cannot tell what is usual")
    own = own_detector(run, words, sees, to_calibrate=True)
    return fit_camera(own, normal, videos, target, far, predict, fps)


def fit_camera(
    own: OwnDetector,
    normal: str | Path,
    videos: Sequence[Path],
    target: Path,
    far: float,
    predict: bool = False,
    fps: float | None = None,
) -> tuple[Path, float]:
    """`calibrate` of a detector that is loaded already, on videos that can be read; writes it to `target`."""
    tell = [not predict or number % HELD_OUT == HELD_OUT - 1 for number in range(len(videos))]
    if not any(tell):
        tell[-1] = True
    if predict:
        own = own.predicting(_learn(videos, tell, target, fps))
    get_to_know(own, videos, fps)
    watched = [_watch(own, video, fps) for video in videos]
    halves = watched[::2], watched[1::2]
    count = _count_windows(halves, normal, far, [video for video, tells in zip(watched, tell) if tells])
    scorer, asked = crossed(own.scorer, [[piece for video in half for piece in video.pieces] for half in halves])
    own = own._replace(scorer=scorer)
    held_out, live = [], []  # terms and length of each stretch, as the other half's memory sees it
    for half, tells, of_memory in zip(halves, (tell[::2], tell[1::2]), map(iter, asked)):
        for video, as_unseen in zip(half, tells):
            found = [of_piece | next(of_memory) for of_piece in video.terms]
            for kept, known in ((held_out, found), (live, [a | b for a, b in zip(found, video.causal)])):
                terms = join_terms(own, known)
                parts = video.parts() if as_unseen else ()
                kept += [({k: v[part.windows] for k, v in terms.items()}, len(part.at)) for part in parts]
    scorer.calibrate(live)
    causal = scorer.causal_statistics.copy()
    scorer.calibrate(held_out)
    scorer.causal_statistics = causal
    thresholds = []
    for as_live, listed in ((False, held_out), (True, live)):
        scored = (scorer.score(terms, own.terms, length, causal=as_live) for terms, length in listed)
        frames = {number: scores[np.isfinite(scores)] for number, scores in enumerate(scored)}
        if not all(map(len, frames.values())):
            raise ZsadError(f"{normal}: scores that are no numbers; a network's weights do not fit, fetch them again")
        if np.ptp(np.concatenate(list(frames.values()))) < FLAT:
            flat = "all its scores are equal, as of a still picture"
            raise ZsadError(f"{normal}: {flat}; give video in which something moves")
        thresholds.append(float(normal_thresholds(frames, far)[0]))
    threshold, causal = thresholds
    meta = own.meta | {"threshold": threshold, "threshold_causal": causal, "far": far}
    meta["normal"] = [str(video) for video in videos]
    meta["folder"] = os.fspath(Path(normal).resolve())
    seconds = sum(video.seconds() for video, tells in zip(watched, tell) if tells)
    meta["measured_on"] = {"seconds": seconds, "windows": count, "videos": sum(tell)}
    if own.prediction is not None:
        meta["predict"] = own.prediction.identity
    if scorer.prompt_weight:
        meta |= {"prompts": scorer.prompts, "prompt_weight": scorer.prompt_weight}
    if target.exists():
        print(f"{target}: an earlier calibration of this name is replaced", file=sys.stderr)
    save_scorer(target, scorer, meta)
    return target, threshold


class _Watched(NamedTuple):
    """A normal video."""

    seen: Seen
    pieces: list[VideoFeatures]  # without the features that no memory holds
    terms: list[dict[str, np.ndarray]]  # of `Scorer.terms`, of each piece, without those of the memory
    causal: list[dict[str, np.ndarray]]  # of those the ones that a camera would know differently

    def parts(self) -> Iterator[Part]:
        """Its stretches that hold a whole window."""
        return (part for part in self.seen.parts() if len(part.at) >= WINDOW)

    def seconds(self) -> float:
        """Length of those."""
        return sum(self.seen.times[part.frames][-1] - self.seen.times[part.frames][0] for part in self.parts())


def get_to_know(own: OwnDetector, videos: Sequence[Path], fps: float | None) -> None:
    """Gives a predictive stream that has seen no normal video yet its norm statistics, and what moves, from the
    beginnings of up to `NORM_VIDEOS` videos."""
    d, tool = own.scorer.detector, own.tool
    if d.dpc is None or torch.isfinite(d.moving_from):
        return
    drawn = [videos[i] for i in np.unique(np.linspace(0, len(videos) - 1, NORM_VIDEOS).astype(int))]

    def beginnings() -> Iterator[torch.Tensor]:
        for video in drawn:
            frames = (frame for _, frame in seen_frames(video, Seen(), own.size, fps))
            yield torch.from_numpy(next(chunks(frames))[0]).to(device())

    with torch.no_grad():
        estimate_norm_stats(d.dpc, (tool.blocks(piece)[0][None] for piece in beginnings()))
    motion = torch.cat([tool.windows(piece, ("stem",))[3].flatten() for piece in beginnings()])
    d.moving_from.fill_(float(np.quantile(motion.numpy(), MOVING_QUANTILE)))


def _watch(own: OwnDetector, video: Path, fps: float | None) -> _Watched:
    watched = _Watched(Seen(), [], [], [])
    for piece in pieces(seen_frames(video, watched.seen, own.size, fps)):
        features = own.features(piece)
        watched.terms.append(own.window_terms(features, piece, remembered=False))
        watched.causal.append({"s_pred": own.prediction.windows(piece, causal=True)} if own.prediction else {})
        watched.pieces.append(features._replace(stem=features.stem[:0], cell_motion=features.cell_motion[:0]))
    return watched


def _learn(videos: Sequence[Path], tell: Sequence[bool], target: Path, fps: float | None) -> CameraPrediction:
    """Trains predictive coding on the videos that tell nothing, or their beginnings where they are long."""
    learned = [video for video, tells in zip(videos, tell) if not tells]
    height, width = next(frame for _, frame in timed_frames(learned[0]) if frame is not None).shape[:2]
    size, stretches = size_for(height, width), {}
    each = MOST_FRAMES // len(learned)
    for number, video in enumerate(learned):
        frames = seen_frames(video, Seen(), size, fps)
        for stretch, shown in itertools.groupby(itertools.islice(frames, each), key=operator.itemgetter(0)):
            stretches[f"{number}/{stretch}"] = np.stack([grey(frame[None])[0] for _, frame in shown])
    return learn(stretches, target.parents[3])


def _count_windows(
    halves: Sequence[Sequence[_Watched]], normal: str | Path, far: float, tell: Sequence[_Watched]
) -> int:
    """Windows of the videos that tell what is usual; ZsadError where they are too few."""
    counts = [sum(p.windows.stop - p.windows.start for video in half for p in video.parts()) for half in halves]
    if min(counts) < 2:
        raise ZsadError(
            f"{normal}: too little video; every second one is held out in turn to tell what is usual, and those hold"
            f" {min(counts)} windows of {WINDOW} seen frames (3 s); give longer videos"
        )
    count = sum(p.windows.stop - p.windows.start for video in tell for p in video.parts())
    if far < 1 / max(1, count):
        least = f"{count} windows of normal video cannot tell less than far={1 / max(1, count):.2g}"
        raise ZsadError(f"far={far:g}: {least}; give more video or a larger share")
    return count


def in_words(target: Path) -> str:
    """What a calibrated detector's file says of itself, as a line: thresholds, what they were measured on, and how far
    to trust them."""
    meta = load_weights(target)[1]
    measured_on = meta["measured_on"]
    above = meta["far"] * measured_on["windows"]
    as_unseen = "each half as unseen by the memory of the other"
    if measured_on["videos"] < len(meta["normal"]):
        as_unseen = "held out of the training, and as unseen by the memory of the other half"
    doubt = f"; only about {above:.0f} windows lie above: the threshold is uncertain, more video makes it sure"
    return (
        f"{target}: alarms above {meta['threshold']:.2f}, causal and live above {meta['threshold_causal']:.2f}:"
        f" {meta['far']:.3g} of the frames of {measured_on['videos']} of {len(meta['normal'])} normal videos exceed it,"
        f" {as_unseen} ({measured_on['seconds'] / 60:.1f} minutes, {measured_on['windows']} windows)"
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


def calibration_file(name: str) -> Path:
    """File of the detector of a calibration; ZsadError where the name belongs to something else."""
    if Path(name).name != name:
        raise ZsadError(f"{name!r}: the name of a run is one folder below {paths.runs()}; give a name without a slash")
    folder, target = paths.runs() / name, _file(name)
    calibrated = target.is_file() and "normal" in load_weights(target)[1]
    if folder.exists() and not calibrated and os.listdir(folder) != [FOLDER]:  # which an interrupted one leaves
        raise ZsadError(f"{folder}: a run that is no calibration lies there; give another name")
    return target


def readable(normal: str | Path, allow_missing: bool) -> list[Path]:
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
