"""Scores frame by frame: push a frame, get the score so far; the causal mode of `score_video` and the live mode are
this class.

A window of `WINDOW` seen frames is scored as soon as it has ended, every `BLOCK_LEN` seen frames, and a frame has the
latest score by then. So the delay is that of one window, and the score of a frame cannot depend on how the video goes
on.
"""

from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS, WINDOW
from zsad_lib.files.decoding import resize
from zsad_lib.own_video.detector import AS_IT_IS, RATE, OwnDetector, Sees, own_detector
from zsad_lib.own_video.own_scale import RunningScale
from zsad_lib.own_video.ticks import Ticks, blend
from zsad_lib.own_video.words import NO_WORDS, Words


class Scored(NamedTuple):
    """One pushed frame."""

    score: float  # deviations from normal; the normal mean, 0, until the first window has ended
    warmup: bool


class LiveScorer:
    """Scores frames one by one; holds one window of small frames and the lower layers of its blocks, and nothing else.

    Args:
        run: run with a trained or calibrated detector; None: the shipped one. Or a detector that is there already.
        step: of frames that are pushed without their time, every step-th is seen, so that `RATE` are per second.
        words: what the user says of the video.
        sees: what it sees with.

    Attributes:
        threshold: of a calibrated detector; None without one.
        seconds: spent so far in each stage.
        looked_at: frames that were seen so far; the others only take the score of the last one.

    Example:
        >>> scorer = LiveScorer()
        >>> scorer.push(np.zeros((240, 320, 3), np.uint8))
        Scored(score=0.0, warmup=True)
    """

    def __init__(
        self, run: str | OwnDetector | None = None, step: int = 1, words: Words = NO_WORDS, sees: Sees = AS_IT_IS
    ):
        self.own = run if isinstance(run, OwnDetector) else own_detector(run, words, sees)
        self.threshold: float | None = self.own.meta.get("threshold_causal")
        self.scale, self.step = RunningScale(self.own), step
        self.seconds: collections.Counter[str] = collections.Counter()
        self.looked_at = 0
        self.restart()

    def restart(self) -> None:
        """Forgets the frames so far, and their clock: no window spans the gap before the next one."""
        self.ticks, self.pushed = Ticks(), 0
        self._forget()

    def _forget(self) -> None:
        self.frames: collections.deque[np.ndarray] = collections.deque(maxlen=WINDOW + 1)
        self.blocks: collections.deque[tuple[Tensor, ...]] = collections.deque(maxlen=NUM_BLOCKS)
        self.seen = 0
        self.last = Scored(0.0, True)

    def push(self, frame: np.ndarray, now: float | None = None) -> Scored:
        """Takes the next frame; gives its score.

        Args:
            frame: uint8 [H, W, 3], of any size.
            now: its time in seconds, as `timed_frames` gives it, never before the last one's; None, or NaN: see `step`.
        """
        if now is None or math.isnan(now):
            now = self.pushed / (RATE * self.step)
        self.pushed += 1
        tick = self.ticks.take(now)
        if tick.begins:
            self._forget()
        if tick.seen:
            self.looked_at += 1
            with self._timed("resize"):
                small = resize(frame, self.own.size)
            before = self.frames[-1] if self.frames else small
            for shown in (*blend(before, small, tick.missed), small):
                if (terms := self.window(shown)) is not None:
                    self.last = Scored(float(terms["score"][0]), False)
        return self.last

    def window(self, small: np.ndarray) -> dict[str, np.ndarray] | None:
        """Takes what the next tick shows, in the detector's size; gives the terms of the window that ends, with its
        `score` [1], or None.

        Each block passes the lower layers of the predictive stream and CLIP once, for all the windows that it lies in.
        """
        self.frames.extend([small] if self.frames else [small, small])  # the first frame has itself before it
        self.seen += 1
        if self.seen % BLOCK_LEN:
            return None
        piece, tool = torch.from_numpy(np.stack(self.frames)), self.own.tool  # [1 + t, H, W, 3]
        with_clip, scorer = tool.backbones.image_tower, self.own.scorer
        with self._timed("predictive stream"):
            block = tool.windows(piece[-1 - BLOCK_LEN :], ("stem",))[2:4]
        with self._timed("CLIP"):
            self.blocks.append((*block, *(tool.look(piece[-BLOCK_LEN:]) if with_clip else ())))
        if len(self.blocks) < NUM_BLOCKS:
            return None
        stem, moving, *looked = (torch.cat(parts) for parts in zip(*self.blocks))
        with self._timed("regions" if with_clip else "TimeSformer"):
            timesformer, *_, region, region_at = tool.windows(piece, ("timesformer",), tuple(looked) or None)
        with self._timed("scene stream"):
            scene = tool.windows(piece, ("scene",))[1]
        with self._timed("prediction, gate and fusion"):
            seen = VideoFeatures(timesformer, scene, stem, moving, region, region_at, torch.empty(0), 0)
            terms = self.own.window_terms(seen, piece, causal=True)
            self.scale.take(terms)
            terms["score"] = scorer.score(terms, self.own.terms, WINDOW, causal=True)[-1:]
        return terms

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start
