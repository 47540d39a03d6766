"""The scale of terms that no normal video has told: the video itself tells it.

Such a score says what stands out in this one video, and not what is unusual at the place: a calibration does. Of a
causal score each window's scale is that of the windows up to it, so that it cannot read the future; among the first n
no score can be above sqrt(n - 1).
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import numpy as np

from zsad_lib.features.window_plan import WINDOW
from zsad_lib.methods.context_aware.scores import normal_statistics
from zsad_lib.own_video.detector import OwnDetector
from zsad_lib.own_video.ticks import Part


def scale_by_itself(own: OwnDetector, terms: dict[str, np.ndarray], parts: Sequence[Part]) -> None:
    """Gives the detector the statistics that it lacks, from the terms of all windows of a video."""
    for name in own.without_scale:
        _lower(own, name, terms[name])
        frames = [own.scorer.frames({name: terms[name][p.windows]}, len(p.at))[name] for p in parts]
        own.scorer.statistics |= normal_statistics({name: np.concatenate(frames)})


class RunningScale:
    """Gives the detector the causal statistics that it lacks, anew with each window: mean and standard deviation of
    those so far.

    Args:
        own: the detector.
    """

    def __init__(self, own: OwnDetector):
        self.own, self.names = own, own.without_scale
        self.count, self.mean, self.squares = (collections.Counter[str]() for _ in range(3))

    def take(self, terms: dict[str, np.ndarray]) -> None:
        """The terms of the window that has just ended."""
        scorer = self.own.scorer
        for name in self.names:
            _lower(self.own, name, terms[name])
            if terms[name].ndim == 1 or name in scorer.lowest:  # something has been seen
                value = scorer.frames({name: terms[name]}, WINDOW, causal=True)[name][-1]
                self.count[name] += 1
                away = value - self.mean[name]  # Welford's update
                self.mean[name] += away / self.count[name]
                self.squares[name] += away * (value - self.mean[name])
            deviation = math.sqrt(self.squares[name] / max(1, self.count[name])) or 1.0
            scorer.causal_statistics[name] = (self.mean[name], deviation)


def _lower(own: OwnDetector, name: str, values: np.ndarray) -> None:
    """What stands for pictures where nothing is seen: the smallest value so far."""
    if values.ndim > 1 and (finite := values[np.isfinite(values)]).size:
        own.scorer.lowest[name] = min(own.scorer.lowest.get(name, math.inf), float(finite.min()))
