"""NWPU Campus: 547 videos of 43 cameras on a campus; the first real data set whose anomalies depend on the scene.

Paper: Cao, Lu, Wang, Zhang, "A New Comprehensive Benchmark for Semi-supervised Video Anomaly Detection and Anticipation", CVPR 2023
(43 scenes, 28 classes of events, 16 hours). Checked on public code that reads it: names D001_01.avi, ``gt.npz`` with one row of frame
labels per test video. Not verified: the folders' names, the counts 305 and 242, and whether ``gt.npz`` names normal test videos too;
one that it lacks is taken for normal.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep import inventory
from data_prep.inventory import NORMAL, DataSet, array_spans, label_file
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.manifest import stem

DATA = DataSet(
    key="nwpu_campus",
    title="NWPU Campus",
    home="https://campusvad.github.io/",
    terms="research use",
    paper="Cao et al., CVPR 2023",
    layout=(
        "train/videos/DNNN_NN.avi    305 normal videos",
        "test/videos/DNNN_NN.avi     242 videos",
        "gt.npz                      frame labels of the test videos by name",
    ),
    files={part: rf"(?i:{part}(?:ing)?)/(?:videos/)?(D\d{{3}}_\d+)\.(?:avi|mp4)" for part in ("train", "test")},
    counts={"official": {"train": 305, "test": 242}},
    family="mixed",
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video; the camera is the scene."""
    labels = read_labels(label_file(root, "gt.npz"))
    rows = [(video, "train", NORMAL, "", 0) for video in found.video[found.part == "train"]]
    for video in sorted(labels.keys() | set(found.video[found.part == "test"])):
        spans, count = labels.get(video, ("", 0))
        rows.append((video, "test", "Abnormal" if spans else NORMAL, spans, count))
    table = pd.DataFrame(rows, columns=["video", "split", "action", "spans", "labelled"])
    return table.assign(scene=table.video.str[:4], place=[f"{root}: {video}" for video in table.video])


def read_labels(path: Path) -> dict[str, tuple[str, int]]:
    """Video -> spans and number of labelled frames."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {stem(name): array_spans(archive[name], f"{path}: {name}") for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ZsadError(f"{path}: not a readable archive of arrays ({error}); fetch it again") from error
