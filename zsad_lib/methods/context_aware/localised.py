"""Whether the region that a score points at is where the abnormal actor is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib.features.cache import VideoFeatures, feature_file, load_features
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES
from zsad_lib.files.score_files import INSIDE, read_archive, write_archive
from zsad_lib.methods.context_aware.local_readout import GRID, region_scores
from zsad_lib.methods.context_aware.scorer import Scorer


@torch.no_grad()
def top_region_inside(scorer: Scorer, features: VideoFeatures, boxes: np.ndarray) -> np.ndarray:
    """Of each frame, whether its region with the largest s_sem lies in the box, as a patch that overlaps it does in
    pretraining, and the share of its regions of which that is so, which is chance.

    Args:
        scorer: with a local read-out.
        features: of one video.
        boxes: [n_frames, 4] x0, y0, x1, y1 as shares of the picture; NaN where nobody is abnormal.

    Returns:
        [n_frames, 2], 0..1; 0 in frames without a region or a box.
    """
    at, d = features.region_at.long().numpy(), scorer.detector
    vectors, window = features.region.float().to(scorer.bank.device), features.region_at[:, 0].long()
    context = d.context(features.scene.to(scorer.bank.device))
    s_sem = region_scores(d.gate, vectors, window, scorer.bank, context).cpu().numpy()  # [R]
    frame = (at[:, 0] * BLOCK_LEN + np.array(CLIP_FRAMES)[at[:, 1]]).clip(max=len(boxes) - 1)
    return inside_boxes(s_sem, frame, at[:, 2:], boxes)


def inside_boxes(scores: np.ndarray, frame: np.ndarray, cell: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The same from regions: scores [R], frames [R], row and column [R, 2], boxes [n_frames, 4] -> [n_frames, 2].

    >>> boxes = np.array([[0.0, 0.0, 0.5, 1.0], [np.nan] * 4])
    >>> inside_boxes(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]), np.array([[0, 7], [0, 0], [0, 0]]), boxes)
    array([[1. , 0.5],
           [0. , 0. ]])
    """
    top, left = (cell / GRID).T
    bottom, right = ((cell + 1) / GRID).T
    x0, y0, x1, y1 = boxes[frame].T
    inside = (x0 <= right) & (left <= x1) & (y0 <= bottom) & (top <= y1)  # [R]
    found = np.zeros((len(boxes), 2))
    order = np.argsort(scores, kind="stable")
    found[frame[order], 0] = inside[order]  # the largest is written last
    total = np.bincount(frame, minlength=len(boxes))
    found[:, 1] = np.bincount(frame, inside, len(boxes)) / np.maximum(total, 1)
    return found


def write_inside(scorer: Scorer, table: pd.DataFrame, cache: Path, boxes: Path, folder: Path) -> None:
    """`top_region_inside` of the test streams into ``<folder>/inside.npz``, where the file `boxes` tells of any."""
    if scorer.local and boxes.is_file():
        known, rows = read_archive(boxes), table[table.split == "test"].itertuples()
        streams = [row for row in rows if row.video in known]
        inside = {
            row.video: top_region_inside(scorer, load_features(feature_file(cache, row)), known[row.video])
            for row in streams
        }
        write_archive(folder / INSIDE, inside)
