"""NWPU Campus, 547 videos of 43 cameras, anomalies that depend on the scene: Cao, Lu, Wang, Zhang, "A New Comprehensive
Benchmark for Semi-supervised Video Anomaly Detection and Anticipation", CVPR 2023. Files: `DATA.layout`; the archive of
labels has a row of frame labels (1 = abnormal) per test video. Checked on public code that reads the release. Whether
names repeat in the two parts is not verified, so the part goes in front. Used by `make data PROFILE=nwpu_campus
DATA_ROOT=...`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep import inventory
from data_prep.inventory import NORMAL, DataSet, array_spans, find
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import stem

DATA = DataSet(
    key="nwpu_campus",
    title="NWPU Campus",
    home="https://campusvad.github.io/",
    terms="research use",
    paper="Cao et al., CVPR 2023",
    layout=(
        "videos/Train/DNNN_NN.avi              305 normal videos (or train/videos/)",
        "videos/Test/DNNN_NN.avi               242 videos (or test/videos/)",
        "groundtruth/NWPU_Campus_gt.npz        frame labels of the test videos by name (or gt.npz)",
    ),
    files={part: rf"(?i:{part}(?:ing)?)/(?:videos/)?(D\d{{3}}_\d+)\.(?:avi|mp4)" for part in ("train", "test")},
    counts={"official": {"train": 305, "test": 242}},
    family="mixed",
    numbered=True,
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video; the label file is the list of test videos, and the camera is the scene."""
    files = find(root, r"((?:NWPU_Campus_)?gt)\.npz")
    if not files:
        raise ZsadError(f"{root}: no NWPU_Campus_gt.npz below it; get it from {DATA.home}")
    path = next(iter(files.values()))
    labels = read_labels(path)
    if strange := sorted(set(found.video[found.part == "test"]) - {f"test_{name}" for name in labels}):
        raise ZsadError(
            f"{path}: no labels of {strange[0].removeprefix('test_')}, one of the test videos; fetch it again"
        )
    rows = [(video, "train", NORMAL, "", 0) for video in found.video[found.part == "train"]]
    rows += [(f"test_{n}", "test", "Abnormal" if s else NORMAL, s, count) for n, (s, count) in sorted(labels.items())]
    table = pd.DataFrame(rows, columns=["video", "split", "action", "spans", "labelled"])
    return table.assign(scene=table.video.str.split("_").str[1], place=[f"{path}: {video}" for video in table.video])


def read_labels(path: Path) -> dict[str, tuple[str, int]]:
    """Video -> spans and number of labelled frames."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {stem(name): array_spans(archive[name], f"{path}: {name}") for name in archive.files}
    except ZsadError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds on a damaged file
        raise ZsadError(f"{path}: not a readable archive of arrays ({error}); fetch it again") from error
