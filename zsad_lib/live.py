"""Scores while a camera records: push frames, get scores, with bounded delay and bounded memory.

A window of `WINDOW` seen frames is scored as soon as it has ended, every `BLOCK_LEN` seen frames, and a frame has the latest score
by then: exactly the causal mode of `score_video`. Between camera and scorer lies a short queue. A stream does not wait: where scoring
falls behind, the oldest waiting frames are dropped and counted. A file waits, and no frame is lost.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from zsad_lib.backbones import STAND_IN_SIZE, stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.features import BLOCK_LEN, WINDOW, Extractor, VideoFeatures
from zsad_lib.own_video import RATE, TERMS, own_scorer, thinning
from zsad_lib.video import open_stream, resize, timed_frames

WAITING = 30  # frames between camera and scorer, at most
RETRIES, PAUSE_S = 5, 2.0  # attempts to open a stream again, and seconds before the first of them; doubled each time
_END = None


class Scored(NamedTuple):
    """One pushed frame."""

    score: float  # deviations from normal; the calibrated normal mean, 0, until the first window has ended
    warmup: bool


class LiveScorer:
    """Scores frames one by one; holds `WINDOW` + 1 small frames and nothing else.

    Args:
        run: run with a trained or calibrated detector; None: the shipped one.
        step: every step-th frame is seen, so that about `RATE` are per second.

    Example:
        >>> scorer = LiveScorer()
        >>> scorer.push(np.zeros((240, 320, 3), np.uint8))
        Scored(score=0.0, warmup=True)
    """

    def __init__(self, run: str | None = None, step: int = 1):
        self.scorer, meta = own_scorer(run)
        self.threshold: float | None = meta.get("threshold")
        self.tool, self.step = Extractor(stand_ins()), step
        self.held: collections.deque[np.ndarray] = collections.deque(maxlen=WINDOW + 1)
        self.pushed = self.seen = 0
        self.last = Scored(0.0, True)
        self.seconds = 0.0  # spent in the networks

    def push(self, frame: np.ndarray) -> Scored:
        """Takes the next frame uint8 [H, W, 3], of any size; gives its score."""
        self.pushed += 1
        if (self.pushed - 1) % self.step:
            return self.last
        small = resize(frame, STAND_IN_SIZE)
        self.held.extend([small] if self.held else [small, small])  # the first frame has itself before it
        self.seen += 1
        if self.seen >= WINDOW and self.seen % BLOCK_LEN == 0:
            start = time.perf_counter()
            parts = self.tool.windows(torch.from_numpy(np.stack(self.held)))
            [terms] = self.scorer.terms([VideoFeatures(*parts, motion=torch.empty(0), n_frames=0)])
            self.last = Scored(float(self.scorer.fuse(terms, TERMS)[-1]), False)
            self.seconds += time.perf_counter() - start
        return self.last


class Camera:
    """Frames of a file, a camera (its number) or a stream (its address), read in a thread of their own.

    Args:
        source: path, "0", or "rtsp://..." and other addresses that FFmpeg opens.

    Attributes:
        dropped: frames thrown away because nobody was ready for them.
        reconnected: how often a stream was opened again.
    """

    def __init__(self, source: str):
        self.source, self.live = source, source.isdigit() or "://" in source
        self.dropped = self.reconnected = 0
        self._frames: queue.Queue = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Arrival (monotonic seconds) and frame; raises ZsadError where the source cannot be read any more."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            while (item := self._frames.get()) is not _END:
                yield item
        finally:
            self._stop.set()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for frame in self._reopened() if self.live else (frame for _, frame in timed_frames(self.source)):
                if self._stop.is_set():
                    return
                self._put((time.monotonic(), frame))
        except BaseException as error:  # told where the frames are used
            self._error = error
        self._frames.put(_END)

    def _put(self, item: tuple[float, np.ndarray]) -> None:
        while self.live and self._frames.full():
            try:
                self._frames.get_nowait()
                self.dropped += 1
            except queue.Empty:
                break
        while not self._stop.is_set():
            try:
                return self._frames.put(item, timeout=0.5)
            except queue.Full:
                continue

    def _reopened(self) -> Iterator[np.ndarray]:
        tries = 0
        while True:
            try:
                for frame in open_stream(self.source):
                    tries = 0
                    yield frame
                reason = "it ended"
            except ZsadError as error:
                reason = str(error)
            tries += 1
            if tries > RETRIES:
                raise ZsadError(f"{self.source}: no more frames after {RETRIES} attempts to open it again ({reason})")
            if self._stop.wait(PAUSE_S * 2 ** (tries - 1)):
                return
            self.reconnected += 1


def watch(source: str, run: str | None = None, seconds: float = 0.0) -> Iterator[str]:
    """Scores a source as it comes: a CSV line per frame, ``frame,time_s,delay_s,score,warmup,alarm``, and a report at the end.

    Args:
        source: see `Camera`.
        run: see `LiveScorer`.
        seconds: stop after that many; 0: at the end of the source.
    """
    step = thinning(source) if Path(source).exists() else None
    camera, began, waited, number = Camera(source), time.monotonic(), 0.0, 0
    scorer = LiveScorer(run, step or 1)
    yield "frame,time_s,delay_s,score,warmup,alarm"
    for arrived, frame in camera:
        now = time.monotonic()
        if step is None and now - began > 2.0:  # a stream tells its rate by itself
            step = scorer.step = max(1, round((number + camera.dropped) / (now - began) / RATE))
        waited += now - arrived
        found = scorer.push(frame)
        alarm = "" if scorer.threshold is None else int(found.score > scorer.threshold)
        yield f"{number},{arrived - began:.3f},{time.monotonic() - arrived:.3f},{found.score:.6g},{found.warmup},{alarm}"
        number += 1
        if seconds and time.monotonic() - began > seconds:
            break
    spent = max(time.monotonic() - began, 1e-9)
    yield (
        f"# {number} frames in {spent:.1f} s, {number / spent:.1f} per second; dropped {camera.dropped}, reconnected "
        f"{camera.reconnected}; per frame: {1e3 * waited / max(1, number):.1f} ms waiting, {1e3 * scorer.seconds / max(1, number):.1f} "
        "ms in the networks"
    )
