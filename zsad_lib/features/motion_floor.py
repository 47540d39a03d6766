"""The content-free motion floor: how strongly the picture changes from frame to frame, in its worst place.

Notebook: 01_prepare_data
"""

import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

BLUR = 8.0  # pixels at the video's own resolution, standard deviation of the Gaussian


def blurred_change(grey: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Blurred absolute difference of two grey pictures [H, W], in their units, float32; its maximum is the floor's
    score."""
    change = np.abs(np.subtract(grey, previous, dtype=np.float32))
    return _blur(change.shape[0]) @ change @ _blur(change.shape[1]).T


@functools.cache
def _blur(length: int) -> np.ndarray:
    """A Gaussian blur of one axis as a matrix [length, length]: several times faster than a filter on pictures of CCTV
    size."""
    return gaussian_filter1d(np.eye(length, dtype=np.float32), BLUR, axis=0)
