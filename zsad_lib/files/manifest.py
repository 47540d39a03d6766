"""One table per data set, the only thing that later steps know of it.

The manifest is ``manifest.csv``, a row per video. Frame numbers are 0-based and span ends inclusive throughout, as in
UCF-Crime's official temporal annotation, whose 290 test videos hold 84,331 abnormal frames read this way.

Notebook: 01_prepare_data
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import write_classes
from zsad_lib.files.paths import write_json, write_text
from zsad_lib.files.spans import format_spans, parse_spans

COLUMNS = {
    "video": str,  # unique name, the stem of its score file
    "path": str,  # video file or frame folder; relative to the manifest's folder, or absolute
    "split": str,  # train | val | test | before: normal video of the test cameras, from before
    "set": str,  # main | night | lookalike | stream[_night|_lookalike]: all but main are reported on their own
    "scene": str,
    "site": str,  # camera position within a scene
    "family": str,  # normal | semantic | temporal | contextual
    "action": str,  # what happens, or the data set's class name
    "n_frames": int,  # decoded frames
    "fps": float,  # frames per second
    "spans": str,  # abnormal frames, "12-35;50-60", 0-based and inclusive; "" = normal
    "kinds": str,  # family and kind of each span, "temporal:freeze;contextual:drive"; "" = as the video's
    "caption": str,
}
_VALUES = {
    "split": {"train", "val", "test", "before"},
    "set": {"main", "night", "lookalike", "stream", "stream_night", "stream_lookalike"},
    "family": {"normal", "semantic", "temporal", "contextual", "mixed"},  # mixed: several kinds in one video
}
ACTOR_COUNT = "actor_count.npz"  # of a data step whose renderer knows how many actors each frame shows
BOXES = "abnormal_boxes.npz"  # of a data step whose renderer knows where the abnormal actor of each frame is
OVERHANG = 3  # frames; seven official UCF-Crime spans end 1 to 3 frames past their video


def load_manifest(folder: str | Path) -> pd.DataFrame:
    """Reads and checks ``manifest.csv`` in `folder`; ``path`` comes back absolute.

    Raises:
        ZsadError: missing file, no rows, missing columns, doubled names, unknown values, spans outside the video.
    """
    file = Path(folder) / "manifest.csv"
    if not file.is_file():
        raise ZsadError(f"{file}: no such manifest; `make data` writes it")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ZsadError(f"{file}: not a readable table ({error}); `make data` writes it again") from error
    table = _checked(table, file)
    table["path"] = [str(file.parent.absolute() / path) for path in table["path"]]
    return table


def save_manifest(table: pd.DataFrame, folder: str | Path) -> Path:
    """Checks `table` and writes it as ``manifest.csv``; paths inside `folder` are stored relative to it.

    Spans that end up to `OVERHANG` frames past their video are clipped, counted and printed.

    Returns:
        The file written.
    """
    file, base = Path(folder) / "manifest.csv", Path(folder).absolute()
    table = _checked(table, file)
    clipped = [format_spans(clip_spans(row.spans, row.n_frames, row.video)) for row in table.itertuples()]
    report_late(table["video"][table["spans"] != clipped])
    paths = [Path(path) for path in table["path"]]
    paths = [path.relative_to(base) if path.is_relative_to(base) else path for path in paths]
    table = table.assign(spans=clipped, path=[path.as_posix() for path in paths])
    return write_text(file, table.to_csv(index=False, lineterminator="\n"))


def report_late(videos: Iterable[str]) -> None:
    """Prints which videos have spans that `clip_spans` has cut, where there is one."""
    if videos := list(videos):
        print(f"{len(videos)} videos have spans that end 1 to {OVERHANG} frames late, clipped: {', '.join(videos)}")


def frame_labels(row: Any) -> np.ndarray:
    """Ground truth of one video: uint8 [n_frames], 1 = abnormal.

    Args:
        row: anything with ``video``, ``n_frames`` and ``spans``: a manifest row (Series or named tuple).

    Raises:
        ZsadError: a span starts outside the video or ends more than `OVERHANG` frames past it.
    """
    labels = np.zeros(int(row.n_frames), np.uint8)
    for first, last in clip_spans(row.spans, int(row.n_frames), row.video):
        labels[first : last + 1] = 1
    return labels


def clip_spans(text: str, n_frames: int, name: str) -> list[tuple[int, int]]:
    """Spans, both ends inclusive, that end inside their video of `n_frames`; `name` is that of the video in errors.

    Raises:
        ZsadError: unreadable spans, or one that starts outside the video or ends more than `OVERHANG` frames past it.

    >>> clip_spans("3-5;8-11", 10, "a.mp4")
    [(3, 5), (8, 9)]
    """
    try:
        spans = parse_spans(text)
    except ZsadError as error:
        raise ZsadError(f"{name}: {error}") from None
    for first, last in spans:
        if first >= n_frames or last >= n_frames + OVERHANG:
            advice = "check the annotation and the video's length"
            raise ZsadError(f"{name}: span {first}-{last} lies outside the video's {n_frames} frames; {advice}")
    return [(first, min(last, n_frames - 1)) for first, last in spans]


def _checked(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    table = table if "kinds" in table else table.assign(kinds="")
    if missing := [name for name in COLUMNS if name not in table]:
        raise ZsadError(f"{file}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}")
    if table.empty:
        raise ZsadError(f"{file}: no rows; expected one per video")
    try:
        table = table[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise ZsadError(f"{file}: n_frames must be whole numbers and fps numbers ({error})") from error
    if len(doubled := table["video"][table["video"].duplicated()]):
        raise ZsadError(f"{file}: video {doubled.iloc[0]!r} occurs twice; names must be unique")
    for name, valid in _VALUES.items():
        for row in table[~table[name].isin(valid)].to_dict("records"):
            raise ZsadError(f"{file}: {row['video']}: {name} {row[name]!r} is unknown; use {', '.join(sorted(valid))}")
    for row in table.itertuples():
        if row.n_frames < 1:
            raise ZsadError(f"{file}: {row.video}: n_frames is {row.n_frames}; a video holds at least one frame")
        spans, kinds = clip_spans(row.spans, row.n_frames, row.video), span_kinds(row)
        if row.kinds and len(kinds) != len(spans):
            raise ZsadError(f"{file}: {row.video}: {len(kinds)} kinds for {len(spans)} spans; give one each")
    return table


def span_kinds(row: Any) -> list[tuple[str, str]]:
    """Family and kind of each span of a manifest's row, where they are told.

    >>> from types import SimpleNamespace
    >>> span_kinds(SimpleNamespace(video="a", kinds="temporal:freeze;contextual:drive"))
    [('temporal', 'freeze'), ('contextual', 'drive')]
    """
    pairs = [tuple(part.split(":")) for part in row.kinds.split(";") if part]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ZsadError(f"{row.video}: kinds {row.kinds!r} are not readable; write family:kind;family:kind")
    return pairs


def family_frames(row: Any) -> np.ndarray:
    """Family of each frame of a manifest's row, "" where it is normal: [n_frames] of texts.

    Spans of which no kind is told are of the video's family.
    """
    families = np.full(int(row.n_frames), "", dtype=object)
    spans = clip_spans(row.spans, int(row.n_frames), row.video)
    for (first, last), (family, _) in zip(spans, span_kinds(row) or [(row.family, "")] * len(spans)):
        families[first : last + 1] = family
    return families


def save_labelled(table: pd.DataFrame, classes: Sequence[str], prompts: Mapping[str, list[str]], folder: Path) -> dict:
    """Writes what training on whole videos' classes reads: manifest (`action`: class), ``classes.csv``,
    ``prompts.json``.

    Returns:
        metrics, artefacts and output hash, as a pipeline step gives them.
    """
    files = {"manifest": save_manifest(table, folder)}
    files |= {"classes": folder / "classes.csv", "prompts": folder / "prompts.json"}
    write_classes(files["classes"], classes)
    write_json(files["prompts"], prompts)
    counts = table[table.split == "train"].action.value_counts()
    metrics = {f"training videos, {name}": int(number) for name, number in counts.items()}
    output_hash = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return {"metrics": metrics, "artefacts": files, "output_hash": output_hash}
