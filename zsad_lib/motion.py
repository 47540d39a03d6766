"""The content-free motion floor: how strongly the picture changes from frame to frame, in its worst place."""

import numpy as np
from scipy.ndimage import gaussian_filter

BLUR = 8.0  # pixels at the video's own resolution, deviation of the Gaussian


def blurred_change(grey: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Blurred absolute difference of two grey pictures [H, W], in their units, float32; its maximum is the floor's score."""
    return gaussian_filter(np.abs(np.subtract(grey, previous, dtype=np.float32)), BLUR)
