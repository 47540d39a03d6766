"""Weighted ROC-AUC and average precision: one pass over the frames serves every bootstrap draw, exactly.

The bootstrap resamples VIDEOS. A draw is a row of counts c_v (how often video v was drawn), and a metric of the
resampled set is the metric of the original frames with weight c_v. So nothing is ever copied or sorted again:

* ROC-AUC is a ratio of two bilinear forms, ``c^T A c / (c^T p)(c^T n)``, where ``A[u, v]`` counts the pairs (positive
  frame of u, negative frame of v) in right order, ties as one half. ``A`` is computed once; all draws are one product.
* Step-wise average precision needs the running sums of true and false positives, so frames are sorted once, grouped
  into ties, collapsed to the scores that a positive frame holds, and each draw only reweights the groups.

Every function takes ``weights`` [R, V] and returns [R]; a row of ones gives the plain metric.

References: Hanley and McNeil 1982 (AUC as a pair count); Efron and Tibshirani 1993, ch. 13 (percentile bootstrap);
Equal to scikit-learn's ``roc_auc_score`` and ``average_precision_score``.

Notebook: 22_evaluate_detection
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

DRAWS = 2000  # bootstrap draws of every interval
_BLOCK = 1 << 18  # numbers held at once: bounds the memory


def bootstrap_weights(n_videos: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each video occurs in each bootstrap draw.

    The same arguments give the same draws, so that two methods on the same videos are compared in pairs.

    Args:
        n_videos: V, at least 1.
        draws: R, number of resampled sets.
        seed: seed of the generator.

    Returns:
        Counts, float64 [R, V]; every row sums to V.

    >>> bootstrap_weights(3, draws=4).sum(axis=1)
    array([3., 3., 3., 3.])
    """
    drawn = np.random.default_rng(seed).integers(0, n_videos, size=(draws, n_videos))
    drawn += n_videos * np.arange(draws)[:, None]  # one histogram per row
    return np.bincount(drawn.ravel(), minlength=draws * n_videos).reshape(draws, n_videos).astype(float)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the draws in which the metric is defined (finite); NaN where it never is."""
    draws = draws[np.isfinite(draws)]
    return tuple(np.quantile(draws, (0.025, 0.975)).tolist()) if len(draws) else (np.nan, np.nan)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient; NaN where the denominator is 0 (the metric is undefined in that draw)."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


class Ranking(NamedTuple):
    """Frames sorted by falling score, collapsed to the G distinct scores that a positive frame holds ("steps")."""

    true: csr_array  # [G, V] positive frames of each video at each step
    false: csr_array  # [G, V] negative frames above the previous step's score ... down to and including this step's
    tied: csr_array  # [G, V] those of them that score exactly as much as the step
    positives: np.ndarray  # [V] positive frames of each video
    negatives: np.ndarray  # [V] negative frames of each video


def rank(scores: np.ndarray, labels: np.ndarray, starts: np.ndarray) -> Ranking:
    """Sort the frames of all videos once, for `pair_counts` and `average_precision`.

    Args:
        scores: [n] finite frame scores, videos one after the other.
        labels: bool [n], True = abnormal.
        starts: [V] index of each video's first frame.
    """
    n_videos = len(starts)
    video = np.repeat(np.arange(n_videos), np.diff(starts, append=len(scores)))
    positives = np.bincount(video[labels], minlength=n_videos).astype(float)
    negatives = np.bincount(video[~labels], minlength=n_videos).astype(float)
    order = np.argsort(-scores)
    falling, labels, video = scores[order], labels[order], video[order]
    tie = np.append(0, np.cumsum(falling[1:] != falling[:-1]))  # [n] which distinct score
    is_step = np.bincount(tie, weights=labels) > 0
    step = (np.cumsum(is_step) - is_step)[tie]  # [n] first step at or below the frame's score
    n_steps = int(is_step.sum())

    def count(frames: np.ndarray) -> csr_array:
        return csr_array((np.ones(frames.sum()), (step[frames], video[frames])), (n_steps, n_videos))

    negative = ~labels & (step < n_steps)  # those below the last positive change nothing
    return Ranking(count(labels), count(negative), count(negative & is_step[tie]), positives, negatives)


def _accumulate(rows: np.ndarray, carry: np.ndarray) -> np.ndarray:
    """Running sum down the rows, in place; returns the last row (numpy's cumsum along axis 0 is ten times slower)."""
    for row in rows:
        carry = np.add(carry, row, out=row)
    return carry.copy()


def pair_counts(ranking: Ranking) -> np.ndarray:
    """Rightly ordered pairs between the positive frames of one video and the negative frames of another.

    ``A[u, v] = sum_{i in pos(u), j in neg(v)} [s_i > s_j] + [s_i = s_j] / 2``  (Mann-Whitney)

    Returns:
        float64 [V, V]; exact, since all entries are multiples of one half.
    """
    n_steps, n_videos = ranking.true.shape
    pairs = np.outer(ranking.positives, ranking.negatives) + 0.5 * (ranking.true.T @ ranking.tied).toarray()
    above = np.zeros(n_videos)
    block = max(1, _BLOCK // n_videos)
    for first in range(0, n_steps, block):
        lost = ranking.false[first : first + block].toarray()  # [b, V] negatives that score at least as much
        above = _accumulate(lost, above)
        pairs -= ranking.true[first : first + block].T @ lost
    return pairs


def clip_pairs(scores: np.ndarray, abnormal: np.ndarray) -> np.ndarray:
    """`pair_counts` for one score per video: [V] scores and bool [V] labels -> [V, V]."""
    order = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    return order * abnormal[:, None] * ~abnormal


def auc(pairs: np.ndarray, positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ROC-AUC of every row of weights from pair counts.

    Args:
        pairs: [V, V] from `pair_counts`, or its mean over seeds.
        positives: [V] abnormal frames of each video.
        negatives: [V] normal frames of each video.
        weights: [R, V] times that each video counts.

    Returns:
        [R] in 0..1, NaN where a row holds one class only.
    """
    rows, columns = positives > 0, negatives > 0
    hits = ((weights[:, rows] @ pairs[np.ix_(rows, columns)]) * weights[:, columns]).sum(axis=1)
    return ratio(hits, (weights @ positives) * (weights @ negatives))


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """Step-wise average precision of every row of weights.

    ``AP = sum_k (R_k - R_{k-1}) P_k`` over the distinct scores in falling order (recall R, precision P).

    Args:
        ranking: from `rank`.
        weights: [R, V].

    Returns:
        [R] in 0..1, NaN where a row holds no positive frame.
    """
    columns = np.ascontiguousarray(weights.T)  # [V, R]
    hits, false, area = np.zeros((3, len(weights)))
    block = max(1, _BLOCK // len(weights))
    for first in range(0, ranking.true.shape[0], block):
        gain = ranking.true[first : first + block] @ columns  # [b, R] true positives that the step adds
        precision, alarms = gain.copy(), ranking.false[first : first + block] @ columns
        hits = _accumulate(precision, hits)
        false = _accumulate(alarms, false)
        alarms += precision
        precision /= np.maximum(alarms, 1, out=alarms)  # 0 / 1 where nothing of this draw scores so high
        area += np.einsum("br,br->r", gain, precision)
    return ratio(area, hits)


@lru_cache(maxsize=8)
def resize_matrix(target: int, source: int) -> np.ndarray:
    """Bilinear interpolation along one axis: float32 [target, source] (half-pixel centres, edges repeated)."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(position.astype(int), max(source - 2, 0))
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - (position - low)
    matrix[np.arange(target), np.minimum(low + 1, source - 1)] += position - low
    return matrix


def pixel_pairs(
    maps: Mapping[str, np.ndarray], masks: Mapping[str, Iterable[np.ndarray]], bins: int = 1 << 14
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair counts of pixels between videos, for `auc`; streams over frames, memory [V, 2, bins] per call.

    Maps are resized bilinearly to the mask and put on ``bins`` equal steps between the lowest and highest map value.
    Pixels of one step count as ties, so the AUC is off by at most half the share of pixel pairs that share a step.

    Args:
        maps: video -> [T, h, w] anomaly maps, finite.
        masks: video -> T masks [H, W], nonzero = abnormal (an array [T, H, W] or anything that yields them in order).
        bins: steps of the histogram.

    Returns:
        pairs [V, V] with the videos in sorted order, abnormal pixels [V], normal pixels [V].
    """
    names = sorted(maps)
    low = min(float(maps[name].min()) for name in names)
    high = max(float(maps[name].max()) for name in names)
    scale = (bins - 1) / (high - low) if high > low else 0.0
    counts = np.zeros((len(names), 2, bins))
    for v, name in enumerate(names):
        for frame, mask in zip(maps[name], masks[name], strict=True):
            rows, columns = resize_matrix(mask.shape[0], frame.shape[0]), resize_matrix(mask.shape[1], frame.shape[1])
            position = (np.asarray(frame, np.float32) - low) * scale  # half precision would round these positions
            step = (rows @ position @ columns.T + 0.5).astype(np.int32).clip(0, bins - 1)  # [H, W]
            step += bins * (np.asarray(mask) != 0)
            counts[v] += np.bincount(step.ravel(), minlength=2 * bins).reshape(2, bins)
    normal, abnormal = counts[:, 0], counts[:, 1]
    pairs = abnormal @ (normal.cumsum(axis=1) - normal / 2).T  # [V, V] negatives below, and half of the equal ones
    return pairs, abnormal.sum(axis=1), normal.sum(axis=1)
