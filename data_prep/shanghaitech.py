"""ShanghaiTech Campus, 437 videos of 13 cameras. Files: `DATA.layout`. Split ``one_class``, 330 normal videos to train,
107 to test: Luo, Liu, Gao, "A Revisit of Sparse Coding Based Anomaly Detection in Stacked RNN Framework", ICCV 2017;
``weak``, 238 and 199 of both kinds: Zhong et al., "Graph Convolutional Label Noise Cleaner", CVPR 2019. They measure
different things and never stand in one column. Used by `make reproduce PROFILE=shanghaitech DATA_ROOT=...
[SPLIT=one_class]`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep import inventory, video_level_lists
from data_prep.inventory import NORMAL, DataSet, array_spans, find
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError

DATA = DataSet(
    key="shanghaitech",
    title="ShanghaiTech Campus",
    home="https://svip-lab.github.io/dataset/campus_dataset.html",
    terms="research use",
    paper="Luo et al., ICCV 2017; weak split: Zhong et al., CVPR 2019",
    layout=(
        "training/videos/NN_NNN.avi             330 normal videos (or training/frames/NN_NNN/)",
        "testing/frames/NN_NNNN/NNN.jpg         107 abnormal videos",
        "testing/test_frame_mask/NN_NNNN.npy    their frame labels (or frame_masks/, label/)",
        "weak_split_shanghaitech.training.csv, .testing.csv    lists of SPLIT=weak (or SHANGHAI_train.txt, _test.txt)",
    ),
    files={
        part: rf"(?:videos|frames)/(\d\d_\d{{{digits}}})(?:\.(?:avi|mp4))?"
        for part, digits in (("train", 3), ("test", 4))  # releases for SPLIT=weak mix them
    },
    counts={"weak": {"train": 238, "test": 199}, "one_class": {"train": 330, "test": 107}},
    family="mixed",
    fps=24.0,
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video; those of the official test part have a mask, which must hold an event."""
    masks = find(root, r"(?:(?:test_?)?frame_?masks?|labels?)/(\d\d_\d{4})\.npy")
    if split == "weak":
        table = video_level_lists.shanghaitech(root)
    else:
        parts = dict.fromkeys(found.video[found.part == "train"], "train") | dict.fromkeys(sorted(masks), "test")
        rows = [(v, part, NORMAL if part == "train" else "Abnormal", "", f"{root}: {v}") for v, part in parts.items()]
        table = pd.DataFrame(rows, columns=video_level_lists.COLUMNS)
    abnormal = (table.split == "test") & (table.action != NORMAL)
    labels = [read_mask(masks, row) if bad else ("", 0) for row, bad in zip(table.itertuples(), abnormal)]
    spans, labelled = zip(*labels) if labels else ((), ())
    return table.assign(spans=spans, labelled=labelled, scene=table.video.str[:2])


def read_mask(masks: Mapping[str, Path], row: Any) -> tuple[str, int]:
    """Spans and length of the mask of a test video that `row` (`video`, `place`) calls abnormal."""
    if row.video not in masks:
        raise ZsadError(f"{row.place}: {row.video} has no test_frame_mask/{row.video}.npy; get it from {DATA.home}")
    path = masks[row.video]
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a length that it has not is no memory that is short
    except Exception as error:  # numpy raises a dozen kinds on a damaged file
        raise ZsadError(f"{path}: not a readable array ({error}); fetch it again") from error
    spans, count = array_spans(values, str(path))
    if not spans:
        raise ZsadError(f"{path}: marks no frame, and {row.place} calls {row.video} abnormal")
    return spans, count
