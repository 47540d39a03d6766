"""XD-Violence, 4,754 videos with sound, six kinds of violence: Wu et al., "Not only Look, but also Listen: Learning
Multimodal Violence Detection under Weak Supervision", ECCV 2020. Files: `DATA.layout`. The annotation lists the 500
abnormal test videos, the other 300 of the folder are normal; classes stand in the names. Checked on the official
annotation and on public code: the training parts unpack to 1-1004, 1005-2004, 2005-2804, 2805-3319 and 3320-3954. `make
reproduce PROFILE=xd_violence DATA_ROOT=...`.
"""

from pathlib import Path

import pandas as pd

from data_prep import inventory, video_level_lists
from data_prep.inventory import DataSet
from zsad_lib.config import Profile

DATA = DataSet(
    key="xd_violence",
    title="XD-Violence",
    home="https://roc-ng.github.io/XD-Violence/",
    terms="research use",
    paper="Wu et al., ECCV 2020",
    layout=(
        "train/*_label_*.mp4    3,954 videos (or in the folders of the parts, 1-1004, 1005-2004, ...)",
        "test/*_label_*.mp4     800 videos (or videos/, test_videos/)",
        "annotations.txt        spans of the 500 abnormal test videos",
    ),
    files={
        "test": r"(?i:test(?:ing)?(?:_videos)?|videos)/([^/]+_label_[^/]+)\.mp4",
        "train": r"([^/]+_label_[^/]+)\.mp4",
    },
    counts={"official": {"train": 3954, "test": 800}},
    family="semantic",
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`."""
    return inventory.prepare(DATA, read, profile, folder)


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video: the folders are the lists, and an annotated video that no folder holds is a missing test
    video."""
    annotated = list(video_level_lists.xd_violence(root).video)
    train, test = (list(found.video[found.part == part]) for part in ("train", "test"))
    test += sorted(set(annotated) - set(test))
    return video_level_lists.xd_violence(root, train, test).assign(labelled=0)
