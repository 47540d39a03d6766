"""Scores while a camera records: read it, score its frames as they come, and say where the time goes.

Between camera and scorer lies a short queue. A stream does not wait: where scoring falls behind, the oldest waiting
frames are dropped and counted. A file waits, and no frame is lost; its scores are those of the causal mode of
`score_video`.

Notebook: 50_score_your_video
"""

from __future__ import annotations

import collections
import math
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_lib.errors import ZsadError, without_secrets
from zsad_lib.evaluate.events import is_alarm
from zsad_lib.features.window_plan import WINDOW
from zsad_lib.files.clock import Clock
from zsad_lib.files.video import open_stream, timed_frames
from zsad_lib.own_video.detector import AS_IT_IS, Sees
from zsad_lib.own_video.frame_by_frame import LiveScorer
from zsad_lib.own_video.ticks import TICK
from zsad_lib.own_video.words import NO_WORDS, Words

WAITING = 30  # frames between camera and scorer, at most
RETRIES, PAUSE_S = 5, 2.0  # attempts to open a stream again, and seconds before the first of them; doubled each time
DELAYS = 10_000  # latest frames that the report's delays are of: a camera never ends, and memory is bounded
_END = None


class Arrived(NamedTuple):
    """A frame as it came."""

    at: float  # monotonic seconds
    seconds: float  # from the first frame since the stream was opened; NaN in a folder of frames
    frame: np.ndarray  # uint8 [H, W, 3]
    breaks: int  # times that the stream had been opened again


class Camera:
    """Frames of a file, a camera (its number) or a stream (its address), read in a thread of their own.

    Args:
        source: path, "0", or "rtsp://..." and other addresses that FFmpeg opens.

    Attributes:
        live: it does not wait; a file does, and so does a file at an address.
        dropped: frames thrown away because nobody was ready for them.
        reconnected: how often a stream was opened again.
        reading: seconds spent on reading and decoding; of a camera, waiting for its next frame is among them.
    """

    def __init__(self, source: str):
        self.source = source
        is_address = re.match(r"[A-Za-z][\w+.-]*://", source) and not Path(source).exists()
        self.is_path = not (re.fullmatch("[0-9]+", source) or is_address)
        self.live = not self.is_path
        self.dropped, self.reconnected, self.reading = 0, 0, 0.0
        self._frames: queue.Queue = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[Arrived]:
        """The frames; raises ZsadError where the source cannot be read any more."""
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
            began = time.monotonic()
            for seconds, frame in timed_frames(self.source) if self.is_path else self._reopened():
                arrived = time.monotonic()
                self.reading += arrived - began
                if self._stop.is_set():
                    return
                self._put(Arrived(arrived, seconds, frame, self.reconnected))
                began = time.monotonic()
        except BaseException as error:  # told where the frames are used
            self._error = error
        self._frames.put(_END)

    def _put(self, item: Arrived) -> None:
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

    def _reopened(self) -> Iterator[tuple[float, np.ndarray]]:
        tries, opened = 0, False
        while True:
            try:
                is_file, frames = open_stream(self.source)
                self.live = not is_file
                for item in self._timed(frames):
                    tries, opened = 0, True
                    yield item
                if is_file:
                    return
                reason = without_secrets(f"{self.source}: the stream ended")
            except ZsadError as error:
                if not opened:  # more likely a wrong address than a camera that will be there soon
                    raise
                reason = str(error)
            tries += 1
            if tries > RETRIES:
                raise ZsadError(f"{reason}; no more frames after {RETRIES} attempts to open it again")
            pause = PAUSE_S * 2 ** (tries - 1)
            print(f"{reason}; attempt {tries} of {RETRIES} in {pause:.0f} s", file=sys.stderr, flush=True)
            if self._stop.wait(pause):
                return
            self.reconnected += 1

    def _timed(self, frames: Iterator[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
        """Times of the frames of `open_stream`, see `Clock`: of a stream whose own clock is missing or stands still, by
        their arrival."""
        clock, before, arrived = Clock(TICK), math.nan, time.monotonic()
        for stamp, frame in frames:
            passed, arrived = time.monotonic() - arrived, time.monotonic()
            stands = math.isnan(stamp) or stamp == before
            yield clock.time(None if stands else stamp, passed if self.live else None), frame
            before = stamp


def watch(
    source: str, run: str | None = None, seconds: float = 0.0, words: Words = NO_WORDS, sees: Sees = AS_IT_IS
) -> Iterator[str]:
    """Scores a source as it comes: a CSV line per frame, ``frame,time_s,delay_s,score,warmup,alarm``, and a report at
    the end.

    `time_s` is the time in a file; of a camera, the seconds from the start to the frame's arrival. `alarm` is empty
    without a calibrated detector. After a break or a pause a whole window must come again.

    Args:
        source: see `Camera`.
        run, words, sees: see `LiveScorer`.
        seconds: stop after that many; 0: at the end of the source.

    Yields:
        Lines; those of the report begin with ``#``: frames per second, delay from arrival to score, milliseconds per
        frame by stage.

    Raises:
        ZsadError: a source that cannot be read, or `seconds` below 0.
    """
    if seconds < 0:
        raise ZsadError(f"{seconds:g} seconds: give a positive number, or 0 for the whole source")
    camera = Camera(source)
    scorer = LiveScorer(run, words=words, sees=sees)
    began = time.monotonic()
    number, breaks, waited, delays, error = 0, 0, 0.0, collections.deque(maxlen=DELAYS), None
    yield "frame,time_s,delay_s,score,warmup,alarm"
    try:
        for arrived in camera:
            waited += time.monotonic() - arrived.at
            if arrived.breaks > breaks:
                breaks = arrived.breaks
                scorer.restart()
            scored, limit = scorer.push(arrived.frame, arrived.seconds), scorer.threshold
            delays.append(time.monotonic() - arrived.at)
            alarm = "" if limit is None else int(not scored.warmup and is_alarm(scored.score, limit))
            shown_at = arrived.at - began if camera.live or math.isnan(arrived.seconds) else arrived.seconds
            yield f"{number},{shown_at:.3f},{delays[-1]:.3f},{scored.score:.6g},{scored.warmup},{alarm}"
            number += 1
            if seconds and time.monotonic() - began > seconds:
                break
    except KeyboardInterrupt:  # the usual end of a camera
        pass
    except ZsadError as lost:
        if not number:
            raise
        error = lost
    spent, each = max(time.monotonic() - began, 1e-9), number / max(1, scorer.looked_at)
    yield (
        f"# {number} frames in {spent:.1f} s, {number / spent:.1f} per second, 1 in {each:.2g} of them seen; dropped"
        f" {camera.dropped}, reconnected {camera.reconnected}"
    )
    if number:
        mean, late = 1e3 * np.mean(delays), 1e3 * np.quantile(delays, 0.95)
        yield f"# from a frame's arrival to its score: {mean:.1f} ms on average, 95 % within {late:.1f} ms"
        stages = {"reading": camera.reading, "waiting": waited, **scorer.seconds}
        yield "# ms per frame: " + "; ".join(f"{name} {1e3 * took / number:.2f}" for name, took in stages.items())
        if scorer.last.warmup:
            yield (
                f"# no score at the end: no window of {WINDOW} seen frames has ended since the start or the last break"
            )
    if error is not None:
        raise error
