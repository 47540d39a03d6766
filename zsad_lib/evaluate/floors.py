"""Content-free floors: frame scores that never look at a picture, in every detection table of the kit's protocol.

On the official UCF-Crime test annotation they reach a micro AUC of 49.9, 65.2, 61.9, 81.6 and 86.5 in the order of
`FLOORS`: frame-level AUC rewards knowing WHICH video is abnormal and how long videos are, without localising anything.

Notebook: 22_evaluate_detection
"""

from collections.abc import Mapping

import numpy as np

FLOORS = ("random", "shorter", "centre", "video_label", "video_label_centre")  # the last two use the true video label


def floor_scores(
    n_frames: Mapping[str, int], labels: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Frame scores of the five floors.

    * ``random``: uniform noise.
    * ``shorter``: minus the video's length, since abnormal videos are cut shorter than normal ones.
    * ``centre``: ``exp(-((t - m) / (n / 2))^2 / 2)`` around the middle m, since events are seldom at a video's ends.
    * ``video_label``: 1 in videos with an event, 0 elsewhere: a perfect classifier of whole videos.
    * ``video_label_centre``: their product.

    Args:
        n_frames: video -> number of frames.
        labels: video -> [n_frames] 0 or 1.
        seed: of ``random``; the others do not depend on it.

    Returns:
        floor -> video -> float64 [n_frames].

    >>> floor_scores({"a": 3}, {"a": [0, 1, 0]})["video_label"]["a"]
    array([1., 1., 1.])
    """
    generator = np.random.default_rng(seed)
    floors: dict[str, dict[str, np.ndarray]] = {name: {} for name in FLOORS}
    for video in sorted(n_frames):
        n = int(n_frames[video])
        centre = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 2)) ** 2)
        abnormal = float(np.any(labels[video]))
        floors["random"][video] = generator.random(n)
        floors["shorter"][video] = np.full(n, -float(n))
        floors["centre"][video] = centre
        floors["video_label"][video] = np.full(n, abnormal)
        floors["video_label_centre"][video] = abnormal * centre
    return floors
