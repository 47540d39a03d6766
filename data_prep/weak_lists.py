"""Lists, class files and temporal annotations of the weakly labelled data sets in their official formats, checked against each other.

UCF-Crime, ShanghaiTech (weakly supervised split) and XD-Violence as AnomalyCLIP (https://arxiv.org/abs/2310.02835) uses them. Every
table keeps the `place` of a row, "file:line", so that a fault found when two files are compared still says where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_prep.inventory import find, label_file
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import lines, read_temporal, stem, unique
from zsad_lib.files.manifest import OVERHANG, load_manifest, save_weak
from zsad_lib.files.spans import format_spans, parse_spans
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED_CLASSES, UCF_CLASSES

XD_CODES = {
    "A": "Normal",
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "Car_accident",
    "G": "Explosion",
}
PROMPT = "a video from a CCTV camera of a {}"  # AnomalyCLIP's zero-shot baseline
NORMAL = "Normal"
COLUMNS = ["video", "split", "action", "spans", "place"]


def ucf_crime(folder: str | Path) -> pd.DataFrame:
    """UCF-Crime: ``Anomaly_Train.txt``, ``Anomaly_Test.txt``, ``Temporal_Anomaly_Annotation_for_Testing_Videos.txt``.

    The files may lie anywhere below the folder. Every test video must be annotated, normal ones without a span, and spans must end
    inside the video where ``test_frame_counts.txt`` (name, first frame, last frame) is there too.

    Returns:
        `COLUMNS`, one row per video; training rows have no spans: the class of the whole video is all that is known.

    Raises:
        ZsadError: a file that is missing or does not fit, as file:line.
    """
    train, test = (read_ucf_list(label_file(folder, f"Anomaly_{part}.txt")) for part in ("Train", "Test"))
    annotation = label_file(folder, "Temporal_Anomaly_Annotation_for_Testing_Videos.txt")
    annotation = read_temporal(annotation, with_class=True)
    test = annotated(test, annotation, lengths=ucf_frame_counts(folder))
    return _both(train, test)


def xd_violence(
    folder: str | Path,
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    lengths: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """XD-Violence: ``annotations.txt`` holds the abnormal test videos; those absent from it are normal.

    The classes stand in the names ("..._label_B2-G-0"); of several the first counts, as in AnomalyCLIP.

    Args:
        folder: holds the annotation.
        train: names of the training videos, which come as a folder and not as a list.
        test: names of the test videos; (): only the annotated ones.
        lengths: frames per test video, by decoding; spans must end inside.
    """
    annotation = read_temporal(Path(folder) / "annotations.txt", with_class=False)
    annotation["action"] = [xd_class(row.video, row.place) for row in annotation.itertuples()]
    named = lambda names, part: pd.DataFrame(
        [(stem(name), xd_class(name, f"{part} folder"), f"{part} folder") for name in names],
        columns=["video", "action", "place"],
    )
    listed = named(test, "test") if test else annotation[["video", "action", "place"]]
    return _both(named(train, "training"), annotated(listed, annotation, True, lengths))


def shanghaitech(folder: str | Path, classes: pd.DataFrame | None = None) -> pd.DataFrame:
    """ShanghaiTech's weakly supervised split: ``weak_split_shanghaitech.training.csv`` and ``.testing.csv``, 238 and 199 videos.

    The lists hold no labels. An id of the official training part ("01_001") is normal; one of the official test part ("01_0014") is
    abnormal, and its frame labels lie in the data set's ``test_frame_mask``; `spans` stays empty here.

    Args:
        folder: holds both lists.
        classes: of `read_anomalyclip_list`, training and test; then `action` is the class there.

    Raises:
        ZsadError: a file that is missing or does not fit, or a video that one list calls normal and the other abnormal, as file:line.
    """
    parts = []
    for split, name in (("train", "training"), ("test", "testing")):
        path = Path(folder) / f"weak_split_shanghaitech.{name}.csv"
        rows = list(lines(path))
        if rows[0][1] != "video-id":
            raise ZsadError(f"{rows[0][0]}: expected the heading video-id, got {rows[0][1][:40]!r}")
        for place, video in rows[1:]:
            if not re.fullmatch(r"\d\d_\d{3,4}", video):
                raise ZsadError(f"{place}: expected a video id such as 01_001 or 01_0014, got {video[:40]!r}")
            parts.append((video, split, NORMAL if len(video) == 6 else "Abnormal", "", place))
    table = unique(pd.DataFrame(parts, columns=COLUMNS))
    return table if classes is None else table.assign(action=_named(table, classes))


def _named(table: pd.DataFrame, classes: pd.DataFrame) -> list[str]:
    known = classes.set_index("video")
    for row in table.itertuples():
        if row.video not in known.index:
            raise ZsadError(f"{row.place}: {row.video} is in the split, and the list with classes lacks it")
        found = known.loc[row.video]
        if (found.action.lower() == NORMAL.lower()) != (row.action == NORMAL):
            raise ZsadError(
                f"{found.place}: {row.video} is {found.action} there and {row.action.lower()} by {row.place}"
            )
    return list(known.loc[table.video].action)


def prepare(profile, folder: Path) -> dict:
    """Pipeline step: the videos of a real data set with the class of each, as weak supervision reads them.

    ``classes.csv`` holds the classes in the order of the published ids, ``prompts.json`` the zero-shot prompt of each. Where the lists
    tell no more than normal or abnormal, as ShanghaiTech's, these are the classes.

    Raises:
        ZsadError: no abnormal or no normal video to train on.
    """
    table = load_manifest(folder.parent / "data").assign(caption="")
    table["spans"] = table.spans.where(table.split != "train", "")
    found, known = set(table.action), PUBLISHED_CLASSES[profile.dataset]
    classes = list(known) if found <= set(known) else sorted(found)
    kinds = set(table.family[table.split == "train"] == "normal")
    if kinds != {True, False}:
        lacks = "abnormal" if True in kinds else "normal"
        raise ZsadError(
            f"{folder.parent / 'data'}: split {profile.split} holds no {lacks} training video, and weak supervision needs both"
        )
    return save_weak(table, classes, {name: [PROMPT.format(name.replace("_", " "))] for name in classes}, folder)


# --- the formats ------------------------------------------------------------------------------------------------------


def read_ucf_list(path: str | Path, classes: Sequence[str] = UCF_CLASSES) -> pd.DataFrame:
    """UCF-Crime's lists, "Abuse/Abuse001_x264.mp4": `video`, `action`, `place`; the folder names the class."""
    rows = []
    for place, line in lines(path):
        folder, _, name = line.rpartition("/")
        action = NORMAL if re.fullmatch(r"\w*Normal_Videos\w*", folder) else folder
        if not name or action not in classes:
            raise ZsadError(
                f"{place}: class {folder!r} is unknown; expected Class/Video.mp4 with one of {', '.join(classes)}"
            )
        rows.append((stem(name), action, place))
    return unique(pd.DataFrame(rows, columns=["video", "action", "place"]))


def read_anomalyclip_list(path: str | Path, classes: Sequence[str]) -> pd.DataFrame:
    """AnomalyCLIP's lists, "path first last class-id" per line: `video`, `path`, `n_frames`, `action`, `place`."""
    rows = []
    for place, line in lines(path):
        match = re.fullmatch(r"(\S+)\s+(\d+)\s+(\d+)\s+(\d+)", line)
        if not match or int(match[3]) < int(match[2]):
            raise ZsadError(f"{place}: expected `path first last class-id` with first <= last, got {line[:80]!r}")
        if int(match[4]) >= len(classes):
            raise ZsadError(f"{place}: class id {match[4]} is unknown; there are {len(classes)}: {', '.join(classes)}")
        frames = int(match[3]) - int(match[2]) + 1
        rows.append((stem(match[1]), match[1], frames, classes[int(match[4])], place))
    return unique(pd.DataFrame(rows, columns=["video", "path", "n_frames", "action", "place"]))


def ucf_frame_counts(folder: str | Path) -> dict[str, int] | None:
    """Frames per test video of UCF-Crime, where ``test_frame_counts.txt`` lies below the folder."""
    found = find(Path(folder), r"(test_frame_counts\.txt)")
    return read_frame_counts(found["test_frame_counts.txt"]) if found else None


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
        raise ZsadError(
            f"{place}: {name!r} names no class; expected ..._label_CODE with CODE one of {', '.join(XD_CODES)}"
        )
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
        lengths: frames per video; spans may end `OVERHANG` frames late, which is counted and printed, and are then clipped.

    Raises:
        ZsadError: a video in one file only, classes that differ, a normal video with a span or an abnormal one without, or a
            span outside the video, as file:line.
    """
    known, names = annotation.set_index("video"), set(listed.video)
    for row in annotation.itertuples():
        if row.video not in names:
            raise ZsadError(f"{row.place}: {row.video} is annotated, and the test list lacks it")
    spans, late = [], []
    for row in listed.itertuples():
        if row.video not in known.index:
            if not absent_is_normal or row.action != NORMAL:
                raise ZsadError(f"{row.place}: {row.video} is in the test list, and the annotation lacks it")
            spans.append("")
            continue
        found = known.loc[row.video]
        if found.action != row.action:
            raise ZsadError(f"{found.place}: {row.video} is {found.action} there and {row.action} in {row.place}")
        if bool(found.spans) == (row.action == NORMAL):
            which = "normal and has a span" if found.spans else f"{row.action} and has no span"
            raise ZsadError(f"{found.place}: {row.video} is {which}")
        spans.append(found.spans)
        if lengths is not None:
            spans[-1] = _inside(found, lengths, row.place, late)
    if late:
        print(f"{len(late)} videos have spans that end 1 to {OVERHANG} frames late, clipped: {', '.join(late)}")
    return listed.assign(spans=spans)


def _inside(row: pd.Series, lengths: Mapping[str, int], place: str, late: list[str]) -> str:
    if row.name not in lengths:
        raise ZsadError(f"{place}: {row.name} has no frame count")
    last_frame, spans = lengths[row.name] - 1, parse_spans(row.spans)
    for first, last in spans:
        if first > last_frame or last > last_frame + OVERHANG:
            raise ZsadError(f"{row.place}: span {first} {last} lies outside the {last_frame + 1} frames of {row.name}")
    if spans and spans[-1][1] > last_frame:
        late.append(row.name)
    return format_spans((first, min(last, last_frame)) for first, last in spans)


def _both(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    return unique(
        pd.concat([train.assign(split="train", spans=""), test.assign(split="test")], ignore_index=True)[COLUMNS]
    )
