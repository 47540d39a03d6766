"""Which frames of a video make a window, and how scores of windows become scores of frames.

Notebooks: 00_start_here, 21_score_video, 23_find_in_stream
"""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy.ndimage import gaussian_filter1d

BLOCK_LEN = 5  # frames per block of the predictive stream
NUM_BLOCKS = 6  # blocks per window: 30 frames
OBSERVED = 3  # of them, before the predicted ones
WINDOW = BLOCK_LEN * NUM_BLOCKS
CLIP_FRAMES = tuple(range(0, WINDOW, 4))  # the eight frames of a window that TimeSformer sees
MIDDLE_FRAME = WINDOW // 2  # the frame that tells the scene
CHUNK_BLOCKS = 60  # blocks held in memory at a time; 300 frames


def window_count(n_frames: int) -> int:
    """Windows of a video: every start on the block grid, at least one (short videos repeat their last frame)."""
    return max(1, n_frames // BLOCK_LEN - NUM_BLOCKS + 1)


def chunks(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Frames [H, W, 3] in pieces that overlap by a window less one block, so that every window lies in exactly one
    piece.

    Yields:
        Piece uint8 [1 + t, H, W, 3]: the frame before the piece (at the start: the first frame once more), then t
        frames, a multiple of BLOCK_LEN and at least WINDOW; and the number of its blocks that no earlier piece held.
    """
    held: list[np.ndarray] = []
    carried = 0  # blocks of `held` that an earlier piece already gave
    for frame in frames:
        held += [frame] if held else [frame, frame]
        if len(held) == 1 + CHUNK_BLOCKS * BLOCK_LEN:
            yield np.stack(held), CHUNK_BLOCKS - carried
            carried = NUM_BLOCKS - 1
            held = held[-carried * BLOCK_LEN - 1 :]
    if not carried:
        held += [held[-1]] * (1 + WINDOW - len(held))  # a short video repeats its last frame
    whole = (len(held) - 1) // BLOCK_LEN
    if whole > carried:
        yield np.stack(held[: 1 + whole * BLOCK_LEN]), whole - carried


def to_frames(windows: np.ndarray, n_frames: int, causal: bool = False, before: float | None = None) -> np.ndarray:
    """Frame scores from window scores: s(t) = mean of s_w over the windows w that cover frame t (the kit's reading).

    A frame gets the mean over the windows that cover it; the last window also covers the up to four frames after it.
    Causal: a frame gets the latest window that has ENDED by then.

    Args:
        windows: [..., W] scores, window i starts at frame i * BLOCK_LEN.
        n_frames: T, frames of the video.
        causal: use only windows whose last frame is not later than the frame itself.
        before: causal only: score of the frames before the first window has ended.

    Returns:
        [..., T] float64.
    """
    windows, t = np.asarray(windows, np.float64), np.arange(n_frames)
    count = windows.shape[-1]
    if causal:
        latest = window_of(n_frames, count, causal=True)
        return np.concatenate([np.full((*windows.shape[:-1], 1), before, np.float64), windows], -1)[..., latest + 1]
    first = np.clip((t - WINDOW) // BLOCK_LEN + 1, 0, count - 1)  # earliest window that covers the frame
    last = np.clip(t // BLOCK_LEN, 0, count - 1)
    total = np.concatenate([np.zeros((*windows.shape[:-1], 1)), np.cumsum(windows, -1)], -1)
    return (total[..., last + 1] - total[..., first]) / (last + 1 - first)


def window_means(frames: np.ndarray) -> np.ndarray:
    """Mean score of the frames [T] that each window covers: [W]."""
    return np.array([frames[i * BLOCK_LEN : i * BLOCK_LEN + WINDOW].mean() for i in range(window_count(len(frames)))])


def pictures_to_frames(
    pictures: np.ndarray, n_frames: int, sigma: float = 0.0, causal: bool = False, before: float | None = None
) -> np.ndarray:
    """Frame scores from scores of the single pictures that windows look at: picture j of window i is frame
    i * BLOCK_LEN + CLIP_FRAMES[j].

    A frame gets the mean of its readings, one between two that have any the line between them (the kit's reading).

    Args:
        pictures: [W, T] scores.
        n_frames: of the video.
        sigma: frames, standard deviation of a Gaussian over the frames; 0: none. Not of a causal score.
        causal: a frame gets the mean of the last two pictures of the latest window that has ENDED by then.
        before: causal only: score of the frames before the first window has ended.

    Returns:
        [n_frames] float64.

    >>> pictures_to_frames(np.arange(8.0)[None], 30)[[0, 2, 4, 28, 29]]
    array([0. , 0.5, 1. , 7. , 7. ])
    """
    if causal:
        return to_frames(pictures[:, -2:].mean(1), n_frames, causal=True, before=before)
    at = np.arange(len(pictures))[:, None] * BLOCK_LEN + np.array(CLIP_FRAMES)
    at = at.clip(max=n_frames - 1).ravel()  # a short video has repeated its last frame
    total, count = np.bincount(at, pictures.ravel(), n_frames), np.bincount(at, minlength=n_frames)
    read = np.flatnonzero(count)
    return smoothed(np.interp(np.arange(n_frames), read, total[read] / count[read]), sigma)


def blocks_to_frames(
    blocks: np.ndarray, n_frames: int, sigma: float = 0.0, causal: bool = False, before: float | None = None
) -> np.ndarray:
    """Frame scores from scores of blocks: each stands at the middle of its block, with lines between.

    Args:
        blocks: [N] scores, NaN where there is none, as of the first blocks, which nothing predicts.
        n_frames, sigma, before: see `pictures_to_frames`.
        causal: a frame gets the score of the latest block that has ended by then.

    Returns:
        [n_frames] float64.

    >>> blocks_to_frames(np.array([np.nan, 1.0, 2.0]), 15)[[0, 7, 12, 14]]
    array([1., 1., 2., 2.])
    """
    scored = np.flatnonzero(np.isfinite(blocks))
    if causal:
        ended = np.searchsorted(BLOCK_LEN * scored + BLOCK_LEN - 1, np.arange(n_frames), side="right")
        return np.concatenate([[before], blocks[scored]]).astype(np.float64)[ended]
    middle = BLOCK_LEN * scored + BLOCK_LEN // 2
    return smoothed(np.interp(np.arange(n_frames), middle, blocks[scored]), sigma)


def smoothed(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Frame scores [..., T] under a Gaussian of `sigma` frames along time; 0: as they are."""
    return gaussian_filter1d(frames, sigma, axis=-1, mode="nearest") if sigma else np.asarray(frames)


def at_frames(
    windows: np.ndarray, n_frames: int, seen: int | np.ndarray = 1, causal: bool = False, before: float | None = None
) -> np.ndarray:
    """`to_frames` where not every frame was seen: the others take the score of the last one seen, [..., W] -> [...,
    n_frames].

    Args:
        windows, causal, before: see `to_frames`.
        n_frames: T, frames of the video.
        seen: every so many-th frame was seen; or the numbers of the seen frames [S], 0 first.
    """
    last = last_seen(n_frames, seen)
    return to_frames(windows, last[-1] + 1, causal, before)[..., last]


def window_of(n_frames: int, n_windows: int, seen: int | np.ndarray = 1, causal: bool = False) -> np.ndarray:
    """The ONE window that speaks for each frame, where a mean says nothing, as of captions: its number, int [n_frames].

    Args:
        n_frames: T, frames of the video.
        n_windows: W, window i starts at seen frame i * BLOCK_LEN.
        seen: see `at_frames`.
        causal: the latest window that has ENDED by then, -1 before the first; otherwise the last whose middle has
            passed.

    >>> window_of(40, 3)[[0, 15, 20, 25, 39]], window_of(40, 3, causal=True)[[28, 29, 33, 34, 39]]
    (array([0, 0, 1, 2, 2]), array([-1,  0,  0,  1,  2]))
    """
    last = last_seen(n_frames, seen)
    if causal:
        return np.clip((last - WINDOW + 1) // BLOCK_LEN, -1, n_windows - 1)
    return np.clip((last - MIDDLE_FRAME) // BLOCK_LEN, 0, n_windows - 1)


def picture_of(n_frames: int, windows: np.ndarray, seen: int | np.ndarray = 1) -> np.ndarray:
    """Which picture of its window (of `window_of`) is nearest to each frame: its number, int [n_frames].

    >>> picture_of(31, np.zeros(31, int))[[0, 2, 3, 14, 30]]
    array([0, 0, 1, 3, 7])
    """
    within = last_seen(n_frames, seen) - windows * BLOCK_LEN
    return np.abs(within[:, None] - np.array(CLIP_FRAMES)).argmin(1)


def last_seen(n_frames: int, seen: int | np.ndarray) -> np.ndarray:
    """Which of the seen frames (see `at_frames`) is the last at each frame, int [n_frames].

    >>> last_seen(7, 3), last_seen(7, np.array([0, 2, 5]))
    (array([0, 0, 0, 1, 1, 1, 2]), array([0, 0, 1, 1, 1, 2, 2]))
    """
    if np.ndim(seen) == 0:
        return np.arange(n_frames) // seen
    return np.searchsorted(seen, np.arange(n_frames), side="right") - 1
