"""CUHK Avenue, 37 videos of one walkway: Lu, Shi, Jia, "Abnormal Event Detection at 150 FPS in MATLAB", ICCV 2013.
Files: `DATA.layout`. Both parts repeat their names, hence train_01 and test_01. Checked on the official demonstration
code: ``N_label.mat`` holds a cell array volLabel, a matrix per frame; 16 and 21 videos of 15,328 and 15,324 frames.
Used by `make data PROFILE=avenue DATA_ROOT=...`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat

from data_prep import inventory
from data_prep.inventory import NORMAL, DataSet, array_spans, find
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError

DATA = DataSet(
    key="avenue",
    title="CUHK Avenue",
    home="http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal/dataset.html",
    terms="research use",
    paper="Lu et al., ICCV 2013",
    layout=(
        "training_videos/NN.avi                          16 normal videos",
        "testing_videos/NN.avi                           21 videos",
        "ground_truth_demo/testing_label_mask/N_label.mat  pixel masks of the test videos",
    ),
    files={
        part: rf"(?:{part}ing_videos|{part}ing/(?:videos|frames))/(\d\d)(?:\.(?:avi|mp4))?"
        for part in ("train", "test")
    },
    counts={"official": {"train": 16, "test": 21}},
    family="semantic",
    numbered=True,
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video; test videos are those with a mask."""
    rows = [(video, "train", NORMAL, "", 0, f"{root}: {video}") for video in found.video[found.part == "train"]]
    masks = find(root, r"testing_label_mask/(\d+)_label\.mat")
    for number, path in sorted(masks.items()):
        spans, count = array_spans(read_masks(path), str(path))
        rows.append((f"test_{int(number):02d}", "test", "Abnormal" if spans else NORMAL, spans, count, str(path)))
    if not masks:
        raise ZsadError(
            f"{root}: no testing_label_mask/N_label.mat below it; get ground_truth_demo.zip from {DATA.home}"
        )
    return pd.DataFrame(rows, columns=["video", "split", "action", "spans", "labelled", "place"])


def read_masks(path: Path) -> np.ndarray:
    """Frame labels [T] of a mask file: 1 where any pixel is marked. Anything but matrices of numbers is refused."""
    try:
        cells = loadmat(path, variable_names=["volLabel"])["volLabel"]
    except Exception as error:  # scipy raises a dozen kinds on a damaged file
        raise ZsadError(f"{path}: no readable volLabel in it ({error!r:.80}); fetch it again") from error
    frames = list(np.ravel(cells))
    if not all(isinstance(frame, np.ndarray) and frame.dtype.kind in "buif" and frame.ndim == 2 for frame in frames):
        raise ZsadError(f"{path}: volLabel must be a row of matrices of numbers, one per frame")
    return np.array([bool(frame.any()) for frame in frames], np.uint8)
