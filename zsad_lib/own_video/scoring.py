"""Score any video file with a trained detector: one row per decoded frame, in memory that hardly grows with its length.

Notebook: 50_score_your_video
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.features.window_plan import WINDOW, chunks
from zsad_lib.files.decoding import declared_seconds, resize
from zsad_lib.files.frame_folders import IMAGE_SUFFIXES
from zsad_lib.files.video import timed_frames
from zsad_lib.methods.context_aware.scores import causal_terms
from zsad_lib.own_video.detector import AS_IT_IS, RATE, OwnDetector, Sees, own_detector
from zsad_lib.own_video.frame_by_frame import LiveScorer
from zsad_lib.own_video.frame_scores import FrameScores, WindowScores, join_terms, score_frames
from zsad_lib.own_video.ticks import Seen, Tick, Ticks
from zsad_lib.own_video.words import NO_WORDS, Words
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.processes import read_ahead

SLOW = 0.05  # share of blended frames from which on it is told
TABLE = ("frame", "time_s", "score")  # the columns that a score table begins with


def seen_frames(
    path: str | Path, seen: Seen, size: tuple[int, int], fps: float | None = None, progress: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """What the ticks of a video show, see `Ticks`; a thread of its own decodes some of it ahead.

    Args:
        path: video.
        seen: receives times and ticks.
        size: height and width in pixels that frames are seen in.
        fps: see `score_video`.
        progress: tell on standard error how far it is.

    Yields:
        Number of the stretch, and the frame.
    """
    return read_ahead(_decode(path, seen, size, fps, progress))


def _decode(
    path: str | Path, seen: Seen, size: tuple[int, int], fps: float | None, progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    ticks, tick, stretch, last = Ticks(), Tick(False, 0, False), 0, None

    def wanted(now: float) -> bool:
        nonlocal tick
        seen.times.append(len(seen.times) / (fps or RATE) if math.isnan(now) else now)
        tick = ticks.take(seen.times[-1])
        return tick.seen

    frames = timed_frames(path, wanted)
    if progress:
        whole = declared_seconds(path)
        frames = report_progress(frames, "frames scored", share=lambda _: seen.times[-1] / whole if whole else 0.0)
    for _, frame in frames:
        if frame is not None:
            small, stretch = resize(frame, size), stretch + tick.begins
            for shown in seen.take(tick, last, small):
                yield stretch, shown
            last = small


def pieces(frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[torch.Tensor]:
    """`seen_frames` in pieces of `chunks`, one stretch of the video after the other."""
    for _, stretch in itertools.groupby(frames, key=operator.itemgetter(0)):
        yield from (torch.from_numpy(piece) for piece, _ in chunks(frame for _, frame in stretch))


def score_windows(frames: Iterable[tuple[int, np.ndarray]], own: OwnDetector, causal: bool = False) -> WindowScores:
    """Scores the windows of `seen_frames` piece by piece; causal: as a camera shows them, pushed through
    `LiveScorer`."""
    found = _pushed(frames, own) if causal else (own.window_terms(own.features(some), some) for some in pieces(frames))
    return WindowScores(own, join_terms(own, found))


def _pushed(frames: Iterable[tuple[int, np.ndarray]], own: OwnDetector) -> Iterator[dict[str, np.ndarray]]:
    live = LiveScorer(own)
    for _, stretch in itertools.groupby(frames, key=operator.itemgetter(0)):
        live.restart()
        yield from (terms for _, frame in stretch if (terms := live.window(frame)) is not None)


def frame_table(windows: WindowScores, seen: Seen, causal: bool = False) -> pd.DataFrame:
    """`score_frames` as one table, a row per decoded frame, which `score_video` describes."""
    return pd.concat(score_frames(windows, seen, causal).rows(), ignore_index=True)


def score_video(
    path: str | Path,
    run: str | None = None,
    *,
    words: Words = NO_WORDS,
    sees: Sees = AS_IT_IS,
    causal: bool = False,
    fps: float | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Anomaly scores of one video.

    Args:
        path: any file that a decoder reads, or a folder of frames.
        run: name of a run with a trained or calibrated detector; None takes the small one shipped with the package,
            which has seen rendered footage only.
        words: own sentences on what is normal and what abnormal there, and on the scene.
        sees: with published weights instead, without a run those of CLIP alone.
        causal: a frame may only use windows that have ended by then, pushed through `LiveScorer`; otherwise the mean
            over the windows that cover it.
        fps: frames per second that a folder of frames was recorded at; None: `RATE`. A video file holds its own times.
        progress: tell on standard error how far it is, and what had to be assumed.

    Returns:
        One row per frame that can be DECODED: `frame`, `time_s`, `score` (sum of the standardised terms; 0 = mean of
        normal video, in deviations, as long as the detector keeps its own captions and sees the scene itself; without
        any normal video, mean of this one, see `own_scale`), the raw terms, as far as the detector has them, `s_sem`,
        `s_pred`, `s_mem`, `s_mem_global` and `s_prompt`, `warmup` (causal: True before the first ended window, where
        the score is 0, the normal mean), `caption` (the normal caption that fits the oddest region best),
        `region_x` and `region_y` (its middle, as shares of the picture's width from the left and height from the top),
        `prompt` (the abnormal prompt that fits it best), `p_prompt`, and one column ``p(<prompt>)`` per prompt: its
        probability beside the normal captions, 0..1. Prompts name what is seen; the score reads them where they have a
        weight. During the warm-up, and where no region is seen, nothing is named. ``attrs`` hold `run`, `threshold`, of
        a calibrated detector or None, `backbones`, and `statistics`: mean and standard deviation in normal video of
        each term that the score adds up, all but `s_mem_global` of a causal one.

    Raises:
        ZsadError: no video, a run without a detector, or words it cannot use.
    """
    scored = score_in_blocks(path, run, words, sees, causal, fps, progress)
    return pd.concat(scored.rows(), ignore_index=True)


def score_in_blocks(
    path: str | Path, run: str | None, words: Words, sees: Sees, causal: bool, fps: float | None, progress: bool
) -> FrameScores:
    """`score_video` for a video of any length: its rows come block by block, as they are asked for."""
    check_given(path, fps)
    own, seen = own_detector(run, words, sees), Seen()
    windows = score_windows(seen_frames(path, seen, own.size, fps, progress), own, causal)
    for line in assumed(path, seen, fps, causal) if progress else ():
        print(f"{path}: {line}", file=sys.stderr)
    scored = score_frames(windows, seen, causal)
    usual, names = own.scorer.statistics, own.terms
    if causal:
        usual, names = own.scorer.causal_statistics, causal_terms(names)
    statistics = {name: usual[name] for name in names if name in usual}
    backbones = own.meta.get("backbones") or "stand_in"
    threshold = own.meta.get("threshold_causal" if causal else "threshold")
    scored.table.attrs.update(run=run, threshold=threshold, statistics=statistics, backbones=backbones)
    return scored


def check_given(path: str | Path, fps: float | None) -> None:
    """ZsadError for a single picture, and for a rate of what holds its own times."""
    if Path(path).is_file() and Path(path).suffix.lower() in IMAGE_SUFFIXES:
        raise ZsadError(f"{path}: a single picture is no video; give a video file or a folder of frames")
    if fps is not None and not (0 < fps < math.inf and Path(path).is_dir()):
        advice = "give frames per second above 0, and only for a folder of frames: a video holds its times"
        raise ZsadError(f"fps={fps}: {advice}")


def assumed(path: str | Path, seen: Seen, fps: float | None, causal: bool = False) -> Iterator[str]:
    """What a score of this video takes for granted, a line each."""
    if Path(path).is_dir() and not fps:
        yield f"its frames hold no time, {RATE:g} per second are assumed; --fps says otherwise"
    lengths = [len(part.at) for part in seen.parts()]
    if len(lengths) > 1:
        yield (f"pauses without a frame: {len(lengths) - 1}; no window spans them, the score begins anew after each")
    if (filled := seen.filled()) > SLOW * len(seen.at):
        yield (
            f"frames come slower than {RATE:g} per second: {filled} of {len(seen.at)} that a window looks at lie"
            " between two of the video and are blended from them, so its scores are less certain"
        )
    if (short := sum(length < WINDOW for length in lengths)) and not causal:
        used = f"frames seen: {lengths[0]}" if len(lengths) == 1 else f"stretches with too few frames: {short}"
        yield (
            f"{used}, a window takes {WINDOW}; the last one was repeated to fill it, and the score is no measurement of"
            " so short a video"
        )
