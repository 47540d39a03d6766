"""Video-level lists and temporal annotations of the official repositories, in their formats, checked against each
other.

UCF-Crime, ShanghaiTech (split `weak`) and XD-Violence as AnomalyCLIP (https://arxiv.org/abs/2310.02835) uses them: of a
training video only the class of the whole is known. Notebook 40, `make reproduce PROFILE=ucf_crime`. Every
table keeps the `place` of a row, "file:line", so that a fault found when two files are compared still says where it
stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_prep.inventory import NORMAL, find, label_file
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import lines, read_temporal, stem, unique
from zsad_lib.files.manifest import clip_spans, load_manifest, report_late, save_labelled
from zsad_lib.files.spans import format_spans
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED_CLASSES, UCF_CLASSES

XD_CODES = {
    "A": NORMAL, "B1": "Fighting", "B2": "Shooting", "B4": "Riot", "B5": "Abuse", "B6": "Car_accident",
    "G": "Explosion",
}  # fmt: skip
PROMPT = "a video from a CCTV camera of a {}"  # AnomalyCLIP's zero-shot baseline
COLUMNS = ["video", "split", "action", "spans", "place"]
LISTED = ["video", "action", "place"]  # of a list, before it is joined with spans
UCF_SPANS = (  # on the data set's page; in its archive Txt_formate, the authors' repository and VadCLIP's
    "Temporal_Anomaly_Annotation_for_Testing_Videos.txt",
    "Temporal_Anomaly_Annotation.txt",
)


def ucf_crime(folder: str | Path) -> pd.DataFrame:
    """UCF-Crime: ``Anomaly_Train.txt``, ``Anomaly_Test.txt`` and the temporal annotation under one of `UCF_SPANS`.

    The files may lie anywhere below the folder. Every test video must be annotated, normal ones without a span, and
    spans must end inside the video where ``test_frame_counts.txt`` (name, first frame, last frame) is there too.

    Returns:
        `COLUMNS`, one row per video; training rows have no spans: the class of the whole video is all that is known.

    Raises:
        ZsadError: a file that is missing or does not fit, as file:line.
    """
    train, test = (read_ucf_list(label_file(folder, f"Anomaly_{part}.txt")) for part in ("Train", "Test"))
    annotation = label_file(folder, *UCF_SPANS)
    return _both(train, annotated(test, read_temporal(annotation), lengths=ucf_frame_counts(folder)))


def xd_violence(
    folder: str | Path, train: Sequence[str] = (), test: Sequence[str] = (), lengths: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """XD-Violence: ``annotations.txt`` holds the abnormal test videos; those absent from it are normal.

    The classes stand in the names ("..._label_B2-G-0"); of several the first counts, as in AnomalyCLIP.

    Args:
        folder: the annotation lies somewhere below it.
        train: names of the training videos, which come as a folder and not as a list.
        test: names of the test videos; (): only the annotated ones.
        lengths: frames per test video, by decoding; spans must end inside.
    """
    annotation = read_temporal(label_file(folder, "annotations.txt"), with_class=False)
    annotation["action"] = [xd_class(row.video, row.place) for row in annotation.itertuples()]
    listed = _xd_list(test, "test folder") if test else annotation[LISTED]
    return _both(_xd_list(train, "training folder"), annotated(listed, annotation, True, lengths))


def _xd_list(names: Iterable[str], place: str) -> pd.DataFrame:
    return pd.DataFrame([(stem(name), xd_class(name, place), place) for name in names], columns=LISTED)


def shanghaitech(folder: str | Path) -> pd.DataFrame:
    """ShanghaiTech's split `weak`: ``weak_split_shanghaitech.training.csv`` and ``.testing.csv``, 238 and 199 videos.

    Or ``SHANGHAI_train.txt`` and ``SHANGHAI_test.txt``, lines "folder/01_001 ..." without a heading.

    The lists hold no labels. An id of the official training part ("01_001") is normal; one of the official test part
    ("01_0014") is abnormal, and its frame labels lie in the data set's ``test_frame_mask``; `spans` stays empty here.

    Args:
        folder: both lists lie somewhere below it.

    Raises:
        ZsadError: a file that is missing or does not fit, as file:line.
    """
    rows = []
    for split, name in (("train", "training"), ("test", "testing")):
        path = label_file(folder, f"weak_split_shanghaitech.{name}.csv", f"SHANGHAI_{split}.txt")
        (place, heading), *videos = lines(path)
        if path.suffix.lower() == ".txt":
            videos = [(place, line.split()[0].rpartition("/")[2]) for place, line in ((place, heading), *videos)]
        elif heading != "video-id":
            raise ZsadError(f"{place}: expected the heading video-id, got {heading[:40]!r}")
        for place, video in videos:
            if not re.fullmatch(r"\d\d_\d{3,4}", video):
                raise ZsadError(f"{place}: expected a video id such as 01_001 or 01_0014, got {video[:40]!r}")
            rows.append((video, split, NORMAL if len(video) == 6 else "Abnormal", "", place))
    return unique(pd.DataFrame(rows, columns=COLUMNS))


def prepare(profile: Profile, folder: Path) -> dict:
    """Step `weak_data` of the pipeline: the videos of a real data set with the class of each, as AnomalyCLIP reads
    them.

    ``classes.csv`` holds the classes in the order of the published ids, ``prompts.json`` the zero-shot prompt of each.
    Where the lists tell no more than normal or abnormal, as ShanghaiTech's, these are the classes.

    Raises:
        ZsadError: no abnormal or no normal video to train on.
    """
    table = load_manifest(folder.parent / "data").assign(caption="")
    table["spans"] = table.spans.where(table.split != "train", "")
    actions, published = set(table.action), PUBLISHED_CLASSES[profile.dataset]
    classes = list(published) if actions <= set(published) else sorted(actions)
    kinds = set(table.family[table.split == "train"] == "normal")
    if kinds != {True, False}:
        lacks = "abnormal" if True in kinds else "normal"
        raise ZsadError(
            f"{folder.parent / 'data'}: split {profile.split} holds no {lacks} training video; classes of videos need"
            " both"
        )
    prompts = {name: [PROMPT.format(name.replace("_", " "))] for name in classes}
    return save_labelled(table, classes, prompts, folder)


# --- the formats ------------------------------------------------------------------------------------------------------


def read_ucf_list(path: str | Path) -> pd.DataFrame:
    """UCF-Crime's lists, "Abuse/Abuse001_x264.mp4": `video`, `action`, `place`; the folder names the class."""
    rows = []
    for place, line in lines(path):
        folder, _, name = line.rpartition("/")
        action = NORMAL if re.fullmatch(r"\w*Normal_Videos\w*", folder) else folder
        if not name or action not in UCF_CLASSES:
            valid = ", ".join(UCF_CLASSES)
            raise ZsadError(f"{place}: class {folder!r} is unknown; expected Class/Video.mp4 with one of {valid}")
        rows.append((stem(name), action, place))
    return unique(pd.DataFrame(rows, columns=LISTED))


def ucf_frame_counts(folder: str | Path) -> dict[str, int] | None:
    """Frames per test video of UCF-Crime, where ``test_frame_counts.txt`` lies below the folder."""
    files = find(Path(folder), r"(test_frame_counts\.txt)")
    return read_frame_counts(files["test_frame_counts.txt"]) if files else None


def read_frame_counts(path: str | Path) -> dict[str, int]:
    """Frames per video from lines "name first last ...", last frame inclusive."""
    counts = {}
    for place, line in lines(path):
        match = re.match(r"(\S+)\s+(\d+)\s+(\d+)", line)
        if not match:
            raise ZsadError(f"{place}: expected `name first last`, got {line[:80]!r}")
        video, frames = stem(match[1]), int(match[3]) - int(match[2]) + 1
        if frames < 1:
            raise ZsadError(f"{place}: {video} ends before it begins, frames {match[2]} to {match[3]}")
        if video in counts:
            raise ZsadError(f"{place}: {video} stands there already")
        counts[video] = frames
    return counts


def xd_class(name: str, place: str) -> str:
    """Class of a video of XD-Violence by the first code in its name."""
    match = re.search(r"_label_([A-Z]\d?)", name)
    if not match or match[1] not in XD_CODES:
        codes = ", ".join(XD_CODES)
        raise ZsadError(f"{place}: {name!r} names no class; expected ..._label_CODE with CODE one of {codes}")
    return XD_CODES[match[1]]


# --- one file against another -----------------------------------------------------------------------------------------


def annotated(
    listed: pd.DataFrame,
    annotation: pd.DataFrame,
    absent_is_normal: bool = False,
    lengths: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """A test list with the spans of its annotation.

    Args:
        listed: `video`, `action`, `place`.
        annotation: of `read_temporal`.
        absent_is_normal: a video that the annotation lacks is normal (XD-Violence); otherwise it is missing.
        lengths: frames per video; spans may end `manifest.OVERHANG` frames late, which is counted and printed, and are
            then clipped.

    Raises:
        ZsadError: a video in one file only, classes that differ, a normal video with a span or an abnormal one without,
            or a span outside the video, as file:line.
    """
    annotation_of, names = annotation.set_index("video"), set(listed.video)
    for row in annotation.itertuples():
        if row.video not in names:
            raise ZsadError(f"{row.place}: {row.video} is annotated, and the test list lacks it")
    spans, late = [], []
    for row in listed.itertuples():
        if row.video not in annotation_of.index:
            if not absent_is_normal or row.action != NORMAL:
                raise ZsadError(f"{row.place}: {row.video} is in the test list, and the annotation lacks it")
            spans.append("")
            continue
        truth = annotation_of.loc[row.video]
        if truth.action != row.action:
            raise ZsadError(f"{truth.place}: {row.video} is {truth.action} there and {row.action} in {row.place}")
        if bool(truth.spans) == (row.action == NORMAL):
            which = "normal and has a span" if truth.spans else f"{row.action} and has no span"
            raise ZsadError(f"{truth.place}: {row.video} is {which}")
        spans.append(truth.spans)
        if lengths is not None:
            if row.video not in lengths:
                raise ZsadError(f"{row.place}: {row.video} has no frame count")
            spans[-1] = format_spans(clip_spans(truth.spans, lengths[row.video], f"{truth.place}: {row.video}"))
            late += [row.video] * (spans[-1] != truth.spans)
    report_late(late)
    return listed.assign(spans=spans)


def _both(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    parts = [train.assign(split="train", spans=""), test.assign(split="test")]
    return unique(pd.concat(parts, ignore_index=True)[COLUMNS])
