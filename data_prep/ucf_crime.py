"""UCF-Crime, 1,900 untrimmed videos of 13 crimes and accidents: Sultani, Chen, Shah, "Real-world Anomaly Detection in
Surveillance Videos", CVPR 2018, with the captions of UCA: Yuan et al., "Towards Surveillance Video-and-Language
Understanding", CVPR 2024. Files: `DATA.layout`. Checked on the official lists: counts, 1,111,808 test frames, 84,331
abnormal; of the release's 1,950 files 50 are copies. SPLIT: see `read`. Used by `make reproduce PROFILE=ucf_crime
DATA_ROOT=... [SPLIT=clean]`; `make floors` needs the annotation alone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from data_prep import inventory, video_level_lists
from data_prep.inventory import NORMAL, DataSet, find, label_file
from data_prep.leaks import check_no_leak
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.annotations import read_captions
from zsad_lib.files.manifest import load_manifest

PARTS = {"train": "Train", "val": "Val", "test": "Test"}
DATA = DataSet(
    key="ucf_crime",
    title="UCF-Crime",
    home="https://www.crcv.ucf.edu/projects/real-world/",
    terms="research use; UCA's captions: https://xuange923.github.io/Surveillance-Video-Understanding",
    paper="Sultani et al., CVPR 2018; captions: Yuan et al., CVPR 2024",
    layout=(
        "<Class>/<name>_x264.mp4                      1,900 videos, in one folder or in the parts of the release",
        "Anomaly_Train.txt, Anomaly_Test.txt          official lists",
        "Temporal_Anomaly_Annotation_for_Testing_Videos.txt (or Temporal_Anomaly_Annotation.txt)",
        "test_frame_counts.txt                        optional: frames per test video, where no video is at hand",
        "UCFCrime_Train.json, _Val.json, _Test.json   UCA's captions, or .txt (SPLIT=uca and clean need them)",
        "uca_normal_lists/Train.txt, Val.txt, Test.txt  optional: the zero-shot paper's lists",
    ),
    files={"": r"([^/]+_x264)\.mp4"},
    counts={
        "official": {"train": 1610, "test": 290},
        "uca": {"train": 1165, "val": 379, "test": 145},
        "clean": {"train": 951, "val": 357, "test": 290},
    },
    family="semantic",
)


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `data`, see `data_prep.inventory.prepare`; adds ``captions.csv`` where captions are at hand."""
    result = inventory.prepare(DATA, read, profile, folder)
    table = load_manifest(folder)
    sentences = captions(inventory.locate(DATA, profile), table)
    if sentences is None:
        print("no captions: put UCA's UCFCrime_*.json or uca_normal_lists/ below DATA_ROOT")
        return result
    check_no_leak(sentences.video, table.video[table.split == "test"], "the captions")
    text = sentences.to_csv(index=False, lineterminator="\n")
    result["artefacts"]["captions"] = paths.write_text(folder / "captions.csv", text)
    result["metrics"]["n_captions"] = len(sentences)
    result["output_hash"] = hashlib.sha256((result["output_hash"] + text).encode()).hexdigest()
    return result


def read(root: Path, split: str, found: pd.DataFrame) -> pd.DataFrame:
    """One row per video of the split's lists.

    UCA cuts the same videos into other lists: its training part holds 214 of the 290 official TEST videos. Hence the
    splits:

    * ``official``: the official lists. Captions: those of normal videos of the official training list, whatever UCA's
      part.
    * ``uca``: UCA's own three lists. Of its test part only normal videos (104) and those with an official temporal
      annotation (41) have frame labels; the other 165 are left out, and the official test list is not what is measured.
    * ``clean``: the official test list; training and validation lists are UCA's, without any video of the official test
      list.
    """
    table = video_level_lists.ucf_crime(root)
    counts = video_level_lists.ucf_frame_counts(root) or {}
    table["labelled"] = [counts.get(row.video, 0) if row.split == "test" else 0 for row in table.itertuples()]
    if split == "official":
        return table
    files = {part: label_file(root, f"UCFCrime_{name}.json", f"UCFCrime_{name}.txt") for part, name in PARTS.items()}
    parts = {part: set(read_captions(path).video) for part, path in files.items()}
    row_of = table.set_index("video", drop=False)
    for part, path in files.items():
        if strange := sorted(parts[part] - set(row_of.video)):
            raise ZsadError(f"{path}: {strange[0]} is in neither of UCF-Crime's lists; fetch them again")
    if split == "clean":
        parts["test"] = set(row_of.video[row_of.split == "test"])
        parts |= {part: parts[part] - parts["test"] for part in ("train", "val")}
    else:
        without = {v for v in parts["test"] if row_of.split[v] != "test" and row_of.action[v] != NORMAL}
        print(f"{len(without)} of {len(parts['test'])} videos of UCA's test part have no frame labels: left out")
        parts["test"] -= without
    table = pd.concat(
        [row_of.loc[sorted(names)].assign(split=part) for part, names in parts.items()], ignore_index=True
    )
    return table.assign(spans=table.spans.where(table.split == "test", ""))


def captions(root: Path, table: pd.DataFrame) -> pd.DataFrame | None:
    """Captions of the normal training and validation videos of `table`: `video`, `split`, `start_s`, `end_s`,
    `caption`.

    Of normal videos only, since nothing abnormal is described to a zero-shot detector.

    Returns:
        None where neither UCA's files nor the lists lie below `root`.
    """
    sources = caption_lists(root)
    if not sources:
        return None
    kind = next(iter(sources))[0]  # JSON where it is there: it holds what the lists hold
    sentences = pd.concat([read_captions(path) for (other, _), path in sources.items() if other == kind])
    normal = table[(table.action == NORMAL) & (table.split != "test")].set_index("video")
    sentences = sentences[sentences.video.isin(normal.index)]
    sentences.insert(1, "split", normal.split[sentences.video].to_numpy())
    return sentences


def caption_lists(root: Path) -> dict[tuple[str, str], Path]:
    """("UCA" or "released", part) -> caption file, of those that lie below `root`."""
    texts, lists = (find(root, rf"{name}(Train|Val|Test)\.txt") for name in ("UCFCrime_", "uca_normal_lists/"))
    files = {"UCA": texts | find(root, r"UCFCrime_(Train|Val|Test)\.json"), "released": lists}
    return {(kind, part): files[kind][name] for kind in files for part, name in PARTS.items() if name in files[kind]}


def leaks(root: Path, test: pd.DataFrame) -> Mapping[str, list[str]]:
    """Caption list -> its videos that are in the test list (`video`), of the lists that are not that list
    themselves."""
    test, shared = set(test.video), {}
    for (kind, part), path in caption_lists(root).items():
        names = set(read_captions(path).video)
        if not test <= names:
            shared[f"{kind} {part}"] = sorted(names & test)
    return shared
