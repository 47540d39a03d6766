"""Which frames of a video are seen: `RATE` ticks a second, whatever rate it was recorded at.

The detector was trained on windows of 30 frames at 10 per second. So ticks of a clock, and no n-th frame, say what is
seen: the first frame at or after each, with half a usual interval of tolerance, so that a frame is decided on when it
comes. At 30 frames per second that is every third, at 25 every second and third in turn.

Where frames come slower, a tick without one sees a blend of the two frames around it, so that a window always lasts 3
seconds. Three ways were tried on four UCF-Crime clips, two of Ped2 and six rendered ones, thinned to 5, 3.3, 2 and 1
frames per second. Median error at 5 per second, in deviations from the scores of all frames: 1.4 on real and 0.6 on
rendered clips for blends; 6.0 and 9.0 where a tick holds the frame before; 4.4 and 2.8 where each frame is seen once,
and a window lasts longer and loses its course. On real clips a blend errs on the low side: it may miss an event. Below
3 frames per second no way is good.

Where nothing comes for longer, as in a recording of motion alone, there is no telling what happened. No window spans
such a pause: a new stretch begins after it, which is scored like a video of its own.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import statistics
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from zsad_lib.features.window_plan import WINDOW, window_count
from zsad_lib.files.clock import RECENT
from zsad_lib.own_video.detector import RATE

TICK = 1 / RATE  # seconds
PAUSE = 1.0  # seconds, and 10 usual intervals, without a frame that end a stretch; the length of a window always does
ROUNDED = 0.001  # seconds: many containers round times to milliseconds
PULL = 0.1  # of a frame's distance from its tick the next ticks move, so that 29.97 per second keeps step


def is_pause(seconds: float, before: Sequence[float]) -> bool:
    """Whether no window may span the interval between two frames, by the up to `RECENT` intervals before it."""
    return seconds > PAUSE and seconds > min(WINDOW * TICK, 10 * statistics.median(before or [seconds]))


def stretch_starts(times: np.ndarray) -> np.ndarray:
    """First frame of each stretch without a pause, from the times of all frames [T]: int [K], 0 first."""
    apart = np.diff(times)
    long = np.flatnonzero(apart > PAUSE)
    pauses = [i for i in long if is_pause(apart[i], apart[max(0, i - RECENT) : i].tolist())]
    return np.array([0, *(i + 1 for i in pauses)])


class Tick(NamedTuple):
    """What a frame means for what is seen."""

    begins: bool  # it is the first of a stretch
    missed: int  # ticks since the seen frame before it that had no frame
    seen: bool


class Ticks:
    """Decides frame by frame what is seen, from their times so far.

    Example:
        >>> ticks = Ticks()
        >>> [number for number in range(15) if ticks.take(number / 25).seen]
        [0, 2, 5, 7, 10, 12]
    """

    def __init__(self) -> None:
        self._last, self._due = -math.inf, 0.0  # time of the last frame, and of the next tick
        self._apart: collections.deque[float] = collections.deque(maxlen=RECENT)

    def take(self, now: float) -> Tick:
        """The next frame, at `now` seconds, not before the last one."""
        ahead, self._last = now - self._last, now
        first = math.isinf(ahead)
        begins = first or is_pause(ahead, self._apart)
        if not first:
            self._apart.append(ahead)
        if begins:
            self._due = now + TICK
            return Tick(True, 0, True)
        early = min(statistics.median(self._apart), TICK) / 2 + ROUNDED
        passed = math.floor((now + early - self._due) / TICK) + 1  # ticks, the last of which shows this frame
        if passed < 1:
            return Tick(False, 0, False)
        off = now - (self._due + (passed - 1) * TICK)
        self._due += passed * TICK + PULL * min(off, early)
        return Tick(False, passed - 1, True)


def blend(before: np.ndarray, after: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """So many frames between two, uint8 [H, W, 3] each: what the ticks without a frame show."""
    for part in np.arange(1, count + 1) / (count + 1):
        yield ((1 - part) * before + part * after).round().astype(np.uint8)


class Part(NamedTuple):
    """A stretch of a video."""

    frames: slice  # decoded frames
    at: np.ndarray  # [S] at which of them, from 0 on, each tick was decided
    windows: slice  # of all windows of the video
    ticks: slice  # of all ticks

    @property
    def n_frames(self) -> int:
        """How many of the decoded frames lie in it."""
        return self.frames.stop - self.frames.start


@dataclasses.dataclass
class Seen:
    """What was seen of a video; filled while it is read."""

    times: array = dataclasses.field(default_factory=lambda: array("d"))  # [T] seconds of the decoded frames
    at: array = dataclasses.field(default_factory=lambda: array("q"))  # [S] frame whose arrival decided each tick
    begins: list[int] = dataclasses.field(default_factory=list)  # first tick of each stretch

    def take(self, tick: Tick, before: np.ndarray | None, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Notes a seen frame, the last one of `times`; gives what its ticks show."""
        if tick.begins:
            self.begins.append(len(self.at))
        self.at.extend([len(self.times) - 1] * (tick.missed + 1))
        yield from blend(before, frame, tick.missed)
        yield frame

    def shown(self) -> np.ndarray:
        """Frame that each tick shows, int [S]; a blended one counts as the frame before it."""
        at = np.array(self.at)
        own = np.append(at[1:] > at[:-1], True)
        return np.maximum.accumulate(np.where(own, at, 0))

    def filled(self) -> int:
        """Ticks that show a blended frame."""
        return int((np.diff(self.at) == 0).sum())  # frames only count up

    def parts(self, causal: bool = False) -> Iterator[Part]:
        """The stretches, with their windows: of a causal score those that have ended, see `window_count` otherwise."""
        at, first_window = np.array(self.at), 0
        for begin, end in itertools.pairwise([*self.begins, len(at)]):
            frames = slice(int(at[begin]), int(at[end]) if end < len(at) else len(self.times))
            count = window_count(end - begin) if end - begin >= WINDOW or not causal else 0
            windows = slice(first_window, first_window + count)
            yield Part(frames, at[begin:end] - frames.start, windows, slice(begin, end))
            first_window += count
