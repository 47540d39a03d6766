"""When each frame of a recording was shown: seconds from its first frame, never falling, found in one pass.

A frame carries the time at which it is to be shown (pts), and that of the packet after which it came out of the decoder
(dts). In most files the first is right. AVI and MPEG-PS often lack it, or hold a guess that is out of order; the second
then still tells the pace. `clock_of` looks at the first frames and takes what runs forward; `Clock` fills what is
missing, and decides what a jump is:

* A step BACK is a slip of one frame, whose time is then filled like a missing one. `LATE` in a row mean that the clock
  was set anew, as by an encoder's restart: it goes on one usual interval after the frame before.
* Where most frames have no time, FFmpeg's guess may give one of them that of a neighbour: a time that differs by up to
  `NEAR` usual intervals from what the missing ones were filled with counts from the second on.
* A step AHEAD by more than `JUMP` seconds and `JUMP` usual intervals is a pause of the recording where the file can
  vouch for it: its format knows no clock that is set anew (a transport stream does), and the length that its header
  declares, if any, includes the pause. Otherwise the clock was set anew.
"""

from __future__ import annotations

import collections
import itertools
import math
import operator
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zsad_lib.files.decoding import Damage, declared_seconds, decode, open_container

if TYPE_CHECKING:
    import av

JUMP = 10.0  # seconds, and usual intervals, beyond which a step ahead must be vouched for
RECENT = 30  # intervals whose median is the usual one
LATE = 3  # times in a row behind an earlier one that mean a clock set anew
NEAR = 3  # usual intervals
FIRST = 64  # frames that tell which time of a file is to be trusted; four times as many as H.264 may hold back
ASTRAY = 0.1  # share of backward steps from which on times are out of order
UNKNOWN = 0.1  # seconds between frames of a file that declares no rate


class Clock:
    """Times of one recording, frame by frame.

    Args:
        usual: seconds between two frames until they have told it themselves.
        length: seconds that the recording may last with its pauses; 0: no pause beyond `JUMP` is believed.

    Attributes:
        jumps: how often the clock was set anew.

    Example:
        >>> clock = Clock(usual=0.1)
        >>> [round(clock.time(stamp), 1) for stamp in (7.0, 7.1, None, 7.3, 99.0, 99.1)]
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """

    def __init__(self, usual: float, length: float = 0.0):
        self.usual, self.length, self.jumps = usual, length, 0
        self._apart: collections.deque[float] = collections.deque(maxlen=RECENT)
        self._last = -math.inf  # time of the last frame
        self._shift: float | None = None  # stamp of a frame minus its time
        self._missing = self._doubted = (
            False  # whether a frame since the last stamp had none; whether a stamp was passed over
        )
        self._stamped, self._since, self._behind = 0.0, 0, 0  # last time by a stamp, and frames since; frames behind it

    def time(self, stamp: float | None, passed: float | None = None) -> float:
        """Time of the next frame, seconds from the first.

        Args:
            stamp: seconds on the recording's own clock; None where it has none.
            passed: seconds since the frame before as somebody else has measured them, to fill a missing stamp; None:
                the usual interval.
        """
        usual = statistics.median(self._apart or [self.usual])
        filled = 0.0 if self._last == -math.inf else self._last + (usual if passed is None else max(0.0, passed))
        self._since += 1
        if stamp is None:
            self._last, self._missing = filled, True
        elif self._shift is None:
            self._set(stamp, filled)
        else:
            now = stamp - self._shift
            ahead = now - self._stamped
            if self._missing and not self._doubted and usual / 2 < abs(now - filled) <= NEAR * usual:
                self._doubted, self._last = True, filled
                return filled
            self._doubted = self._missing = False
            self._behind = self._behind + 1 if ahead < 0 else 0
            if self._behind >= LATE or (ahead > JUMP * max(1.0, usual) and now > self.length):
                self.jumps += 1
                self._set(stamp, filled)
            elif ahead < 0:
                self._last = filled
            else:
                self._apart.append(ahead / self._since)
                self._last, self._stamped, self._since = max(self._last, now), now, 0
        return self._last

    def _set(self, stamp: float, now: float) -> None:
        self._shift, self._last, self._stamped, self._since, self._behind = stamp - now, now, now, 0, 0


def clock_of(path: Path) -> tuple[Clock, Callable[[av.VideoFrame], float | None], str]:
    """The clock of a video file, what reads a frame's stamp for it, and in words what had to be assumed.

    Raises:
        ZsadError: as `decode`.
    """
    first = list(itertools.islice(((frame.pts, frame.dts, fps) for frame, fps in decode(path, Damage())), FIRST))
    fps = first[0][2]
    usual = 1 / fps if fps > 0 else UNKNOWN
    for place, kind in enumerate(("pts", "dts")):
        if _runs_forward([stamps[place] for stamps in first]):
            return Clock(usual, _believed_length(path)), _stamp(kind), ""
    assumed = f"its frames' times are missing or out of order, {1 / usual:.6g} frames per second are taken"
    return Clock(usual), lambda frame: None, assumed + (", as it declares" if fps > 0 else "")


def _stamp(kind: str) -> Callable[[av.VideoFrame], float | None]:
    ticks = operator.attrgetter(kind)
    return lambda frame: None if ticks(frame) is None else float(ticks(frame) * frame.time_base)


def _runs_forward(stamps: list[int | None]) -> bool:
    """Whether times of frames, as they are shown, can be trusted."""
    known = [stamp for stamp in stamps if stamp is not None]
    back = sum(later < earlier for earlier, later in itertools.pairwise(known))
    return len(set(known)) >= min(2, len(stamps)) and back <= ASTRAY * len(known)


def _believed_length(path: Path) -> float:
    """Seconds that a file may last, pauses included, see `Clock`."""
    import av.format

    container, _ = open_container(path)
    with container:
        if container.format.flags & av.format.Flags.ts_discont.value:
            return 0.0
    declared = declared_seconds(path)
    return declared + 1.0 if declared else math.inf  # headers round
