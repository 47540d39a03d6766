"""UBnormal, 543 rendered videos of 29 scenes, open set: Acsintoae et al., "UBnormal: New Benchmark for Supervised
Open-Set Video Anomaly Detection", CVPR 2022. Files: `DATA.layout`. Checked on the official repository: six lists (186 +
82 training, 26 + 38 validation, 53 + 158 test videos, normal + abnormal), tracks "object,first,last", 0-based and
inclusive, labels of test videos released later. Lists to train and validate on hold abnormal videos: whoever learns
normality leaves them out. `make data PROFILE=ubnormal DATA_ROOT=...`.
"""

import re
from pathlib import Path

import pandas as pd

from data_prep import inventory
from data_prep.inventory import NORMAL, DataSet, find, label_file
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import lines
from zsad_lib.files.spans import format_spans

LISTS = {"train": "training", "val": "validation", "test": "test"}
DATA = DataSet(
    key="ubnormal",
    title="UBnormal",
    home="https://github.com/lilygeorgescu/UBnormal",
    terms="CC BY-NC-ND 4.0",
    paper="Acsintoae et al., CVPR 2022",
    layout=(
        "SceneN/normal_scene_N_scenario_M.mp4, abnormal_scene_N_scenario_M.mp4",
        "SceneN/<abnormal video>_annotations/<abnormal video>_tracks.txt",
        (
            "normal_training_video_names.txt, abnormal_... and the four of validation and test: from the repository's"
            " scripts/"
        ),
    ),
    files={"": r"((?:ab)?normal_scene_\d+_scenario[^/]+)\.mp4"},
    counts={"official": {"train": 268, "val": 64, "test": 211}},
    family="mixed",
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video of the six lists; the scene is the one in the name."""
    rows, tracks = [], find(root, r"((?:ab)?normal_scene_[^/]+)_tracks\.txt")
    for part, name in LISTS.items():
        for kind in ("normal", "abnormal"):
            for place, video in lines(label_file(root, f"{kind}_{name}_video_names.txt")):
                match = re.fullmatch(rf"{kind}_scene_(\d+)_scenario\w+", video)
                if not match:
                    raise ZsadError(f"{place}: expected {kind}_scene_N_scenario_M, got {video[:60]!r}")
                if kind == "abnormal" and video not in tracks:
                    raise ZsadError(f"{place}: {video} has no {video}_tracks.txt below {root}; get it from {DATA.home}")
                spans = read_tracks(tracks[video]) if kind == "abnormal" else ""
                rows.append((video, part, NORMAL if kind == "normal" else "Abnormal", spans, 0, match[1], place))
    return pd.DataFrame(rows, columns=["video", "split", "action", "spans", "labelled", "scene", "place"])


def read_tracks(path: Path) -> str:
    """Spans in which at least one object behaves abnormally, from lines "object,first,last"."""
    tracks: list[tuple[int, int]] = []
    for place, line in lines(path):
        match = re.fullmatch(r"([\d.]+),\s*(\d+)(?:\.0*)?,\s*(\d+)(?:\.0*)?", line)
        if not match or int(match[3]) < int(match[2]):
            raise ZsadError(f"{place}: expected `object,first,last` with first <= last, got {line[:60]!r}")
        tracks.append((int(match[2]), int(match[3])))
    spans: list[tuple[int, int]] = []
    for first, last in sorted(tracks):
        if spans and first <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last))
        else:
            spans.append((first, last))
    return format_spans(spans)
