"""What goes into the kit's protocol: scores and labels of every frame, checked, and what is derived from them alone.

Notebook: 22_evaluate_detection
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from zsad_lib.config import FAR_TARGET
from zsad_lib.errors import ZsadError


class Frames(NamedTuple):
    """The frames of all test videos, one video after the other in sorted order."""

    names: list[str]  # [V]
    starts: np.ndarray  # [V] first frame of each video
    labels: np.ndarray  # bool [n]
    scores: np.ndarray  # float64 [S, n], one row per seed

    positives: np.ndarray  # [V] abnormal frames
    negatives: np.ndarray  # [V] normal frames

    def per_video(self, frames: np.ndarray) -> np.ndarray:
        """Number of true frames of each video: bool [n] -> [V]."""
        return np.add.reduceat(frames.astype(float), self.starts)


def check_series(
    values: Mapping[str, np.ndarray], what: str, labels: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Each video's numbers as float64 [seeds, length]; ZsadError where they are empty, not finite or of other seeds.

    Where there are n `labels` of a video, an array [n, 1] counts as [n].
    """
    if not values:
        raise ZsadError(f"no {what} given: at least one video is needed")
    try:
        videos = sorted(values)
    except TypeError:
        kinds = ", ".join(sorted({type(video).__name__ for video in values}))
        raise ZsadError(f"{what}: videos are named by {kinds}; name all of them by one kind, as 'v0'") from None
    checked = {}
    for video in videos:
        array = _array(values[video], f"{what} of {video}")
        if array.shape[1:] == (1,) and labels is not None:  # a column of n frames, not n seeds of one frame
            if 1 < len(array) == _array(labels.get(video, ()), f"labels of {video}").size:
                array = array[:, 0]
        if array.ndim not in (1, 2) or array.size == 0 or array.dtype.kind not in "biuf":
            raise ZsadError(
                f"{what} of {video}: {array.dtype} {list(array.shape)}; give numbers [n] or [seeds, n], n > 0"
            )
        array = np.atleast_2d(array).astype(float)
        if not np.isfinite(array).all():
            seed, index = np.argwhere(~np.isfinite(array))[0]
            raise ZsadError(
                f"{what} of {video}: {array[seed, index]} at place {index} (seed {seed}); all must be finite"
            )
        checked[video] = array
    first = next(iter(checked))
    for video, array in checked.items():
        if len(array) != len(checked[first]):
            raise ZsadError(
                f"{what} of {video}: {len(array)} seeds, but {first} has {len(checked[first])}; give as many"
            )
    return checked


def _array(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # rows of several lengths, tensors on a GPU or with gradients
        reason = " ".join(str(error).split())[:200]
        raise ZsadError(f"{name}: no array ({reason}); give numbers [n] or [seeds, n], n > 0") from None


def require(videos: Collection[str], given: Collection[str], what: str) -> None:
    """ZsadError that names the videos missing from `given`."""
    if missing := sorted(map(str, set(videos) - set(given))):
        names = {type(video).__name__: f"{type(video).__name__} {video!r}" for video in (*given, *videos)}
        if len(names) > 1 and not set(missing) - set(map(str, given)):
            raise ZsadError(f"{what}: videos are named {' here and '.join(names.values())} there; name them alike")
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ZsadError(f"{what}: none for {', '.join(missing[:3])}{more}; add them or leave these videos out")


def min_max(array: np.ndarray) -> np.ndarray:
    """Each row [S, n] brought to 0..1 (a constant row to 0): uses the whole test video, so it is transductive."""
    low, high = array.min(axis=1, keepdims=True), array.max(axis=1, keepdims=True)
    return (array - low) / np.where(high > low, high - low, 1)


def collect(scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> Frames:
    """Checks scores [n] or [S, n] against labels [n] of 0 and 1, and joins the videos.

    Raises:
        ZsadError: missing videos, other lengths, scores that are not finite, labels other than 0 and 1.
    """
    scores, labels = check_series(scores, "scores", labels), check_series(labels, "labels", labels)
    require(labels, scores, "scores")
    require(scores, labels, "labels")
    for video, label in labels.items():
        if len(label) > 1 or not np.isin(label, (0, 1)).all():
            raise ZsadError(f"labels of {video}: found {np.unique(label)[:4]}; give [n] of 0 (normal) and 1 (abnormal)")
        if label.shape[1] != scores[video].shape[1]:
            raise ZsadError(f"{video}: {scores[video].shape[1]} scores but {label.shape[1]} labels; one each per frame")
    lengths = [label.shape[1] for label in labels.values()]
    joined = np.concatenate(list(labels.values()), axis=1)[0] > 0
    starts = np.cumsum([0, *lengths[:-1]])
    positives = np.add.reduceat(joined.astype(float), starts)
    both = np.concatenate([scores[video] for video in labels], axis=1)
    return Frames(list(labels), starts, joined, both, positives, lengths - positives)


def normal_thresholds(normal: Mapping[str, np.ndarray], far_target: float = FAR_TARGET) -> np.ndarray:
    """Lowest threshold per seed [S] at which at most `far_target` of the held-out normal frames are alarms.

    Args:
        normal: video -> [n] or [S, n] frame scores of normal videos outside the test set.
        far_target: in 0..1.
    """
    joined = np.concatenate(list(check_series(normal, "normal scores").values()), axis=1)
    highest = np.quantile(joined, 1 - far_target, axis=1, method="inverted_cdf")
    return np.nextafter(highest, np.inf)  # a frame that scores exactly `highest` is no alarm


def clip_scores(windows: Mapping[str, np.ndarray], names: Collection[str]) -> np.ndarray:
    """Clip score [S, V]: maximum of the window scores averaged over three neighbours (two at the ends)."""
    require(names, windows, "window scores")
    checked = check_series({video: windows[video] for video in names}, "window scores")
    clips = []
    for video in names:
        total = np.pad(checked[video], ((0, 0), (1, 1)))
        count = np.pad(np.ones(checked[video].shape[1]), 1)
        smooth = (total[:, :-2] + total[:, 1:-1] + total[:, 2:]) / (count[:-2] + count[1:-1] + count[2:])
        clips.append(smooth.max(axis=1))
    return np.stack(clips, axis=1)


def frame_rates(fps: float | Mapping[str, float], names: Collection[str]) -> np.ndarray:
    """Frames per second of each video [V]; ZsadError where one is missing or not above 0."""
    if isinstance(fps, Mapping):
        require(names, fps, "fps")
    rates = np.array([fps[name] if isinstance(fps, Mapping) else fps for name in names], float)
    for name, rate in zip(names, rates):
        if not (np.isfinite(rate) and rate > 0):
            raise ZsadError(f"fps of {name}: {rate}; give frames per second above 0")
    return rates
