"""One table per data set, and the published text formats that it is made from.

The manifest (``manifest.csv``, a row per video) is the only thing later steps know of a data set. Frame numbers are
0-based and span ends inclusive throughout, as in UCF-Crime's official temporal annotation, whose 290 test videos hold
84,331 abnormal frames read this way.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.paths import atomic, write_json
from zsad_lib.video import VIDEO_SUFFIXES

COLUMNS = {
    "video": str,  # unique name, the stem of its score file
    "path": str,  # video file or frame folder; relative to the manifest's folder, or absolute
    "split": str,  # train | val | test
    "set": str,  # main | night | lookalike | long: rows with other sets are reported on their own
    "scene": str,
    "site": str,  # camera position within a scene
    "family": str,  # normal | semantic | temporal | contextual
    "action": str,  # what happens, or the data set's class name
    "n_frames": int,  # decoded frames
    "fps": float,  # frames per second
    "spans": str,  # abnormal frames, "12-35;50-60", 0-based and inclusive; "" = normal
    "caption": str,
}
_VALUES = {
    "split": {"train", "val", "test"},
    "set": {"main", "night", "lookalike", "long"},
    "family": {"normal", "semantic", "temporal", "contextual", "mixed"},  # mixed: several kinds in one video
}
OVERHANG = 3  # frames; seven official UCF-Crime spans end 1 to 3 frames past their video
_NO_SPAN = (-1, -1)
_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, (*VIDEO_SUFFIXES, '.npy', '.safetensors')))})$", re.IGNORECASE)


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
    clipped = [format_spans(_spans_within(row)) for row in table.itertuples()]
    changed = table["video"][table["spans"] != clipped].tolist()
    if changed:
        print(f"{len(changed)} videos have spans that end 1 to {OVERHANG} frames late, clipped: {', '.join(changed)}")
    paths = [Path(path) for path in table["path"]]
    paths = [path.relative_to(base) if path.is_relative_to(base) else path for path in paths]
    table = table.assign(spans=clipped, path=[path.as_posix() for path in paths])
    with atomic(file) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")
    return file


def parse_spans(text: str) -> list[tuple[int, int]]:
    """Spans of frame numbers, both ends inclusive.

    >>> parse_spans("12-35;50-60")
    [(12, 35), (50, 60)]
    """
    spans = []
    for part in filter(None, text.split(";")):
        match = re.fullmatch(r"(\d+)-(\d+)", part.strip())
        if not match or int(match[1]) > int(match[2]):
            raise ZsadError(f"span {part!r} is not readable; write first-last with first <= last, as 12-35;50-60")
        spans.append((int(match[1]), int(match[2])))
    return spans


def format_spans(spans: Iterable[tuple[int, int]]) -> str:
    """The inverse of `parse_spans`."""
    return ";".join(f"{first}-{last}" for first, last in spans)


def labels_to_spans(labels: np.ndarray) -> str:
    """Spans of the nonzero runs in frame labels [T].

    >>> labels_to_spans(np.array([0, 1, 1, 0, 1]))
    '1-2;4-4'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(labels) != 0, [0]]).astype(int)))
    return format_spans((int(first), int(end) - 1) for first, end in edges.reshape(-1, 2))


def frame_labels(row) -> np.ndarray:
    """Ground truth of one video: uint8 [n_frames], 1 = abnormal.

    Args:
        row: anything with ``video``, ``n_frames`` and ``spans``: a manifest row (Series or named tuple).

    Raises:
        ZsadError: a span starts outside the video or ends more than `OVERHANG` frames past it.
    """
    labels = np.zeros(int(row.n_frames), np.uint8)
    for first, last in _spans_within(row):
        labels[first : last + 1] = 1
    return labels


def _spans_within(row) -> list[tuple[int, int]]:
    try:
        spans, last_frame = parse_spans(row.spans), int(row.n_frames) - 1
    except ZsadError as error:
        raise ZsadError(f"{row.video}: {error}") from None
    for first, last in spans:
        if first > last_frame or last > last_frame + OVERHANG:
            raise ZsadError(
                f"{row.video}: span {first}-{last} lies outside the video's {row.n_frames} frames; "
                "check the annotation and the video's length"
            )
    return [(first, min(last, last_frame)) for first, last in spans]


def _checked(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ZsadError(f"{file}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}")
    if table.empty:
        raise ZsadError(f"{file}: no rows; expected one per video")
    try:
        table = table[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise ZsadError(f"{file}: n_frames must be whole numbers and fps numbers ({error})") from error
    doubled = table["video"][table["video"].duplicated()]
    if len(doubled):
        raise ZsadError(f"{file}: video {doubled.iloc[0]!r} occurs twice; names must be unique")
    for name, valid in _VALUES.items():
        wrong = table[~table[name].isin(valid)]
        if len(wrong):
            row = wrong.iloc[0]
            raise ZsadError(f"{file}: {row.video}: {name} {row[name]!r} is unknown; use {', '.join(sorted(valid))}")
    for row in table.itertuples():
        if row.n_frames < 1:
            raise ZsadError(f"{file}: {row.video}: n_frames is {row.n_frames}; a video holds at least one frame")
        _spans_within(row)
    return table


# --- temporal annotations, UCF-Crime's "Abuse028_x264.mp4  Abuse  165  240  -1  -1" ----------------------------------


def read_temporal(path: str | Path, with_class: bool = True) -> pd.DataFrame:
    """Temporal annotations: `video`, `action` ("" without a class), `spans` (0-based, ends inclusive), `place`.

    Args:
        path: "name class first last [first last ...]" per line (UCF-Crime), or the same without the class (XD-Violence).
        with_class: which of the two; -1 -1 means no span.

    Raises:
        ZsadError: a line that does not fit, spans reversed or overlapping, or a video twice, as file:line.
    """
    shape, rows = ("name class first last" if with_class else "name first last"), []
    for place, line in lines(path):
        name, *rest = line.split()
        action, numbers = (rest[0] if rest else "", rest[1:]) if with_class else ("", rest)
        if not numbers or len(numbers) % 2 or not all(re.fullmatch(r"-?\d+", number) for number in numbers):
            raise ZsadError(f"{place}: expected `{shape}` and further pairs of frame numbers, got {line[:80]!r}")
        values = [int(number) for number in numbers]
        spans = sorted(pair for pair in zip(values[::2], values[1::2]) if pair != _NO_SPAN)
        for first, last in spans:
            if first < 0 or last < first:
                raise ZsadError(
                    f"{place}: span {first} {last} is reversed or negative; write first last, -1 -1 for none"
                )
        for (_, last), (first, _) in zip(spans, spans[1:]):
            if first <= last:
                raise ZsadError(f"{place}: spans overlap: one ends at frame {last}, another one starts at {first}")
        rows.append((stem(name), action, format_spans(spans), place))
    return unique(pd.DataFrame(rows, columns=["video", "action", "spans", "place"]))


def save_weak(table: pd.DataFrame, classes: Sequence[str], prompts: Mapping[str, list[str]], folder: Path) -> dict:
    """Writes what weak supervision reads into `folder`: the manifest with classes as `action`, ``classes.csv`` and ``prompts.json``.

    Returns:
        metrics, artefacts and output hash, as a pipeline step gives them.
    """
    made = {
        "manifest": save_manifest(table, folder),
        "classes": folder / "classes.csv",
        "prompts": folder / "prompts.json",
    }
    write_classes(made["classes"], classes)
    write_json(made["prompts"], prompts)
    counts = table[table.split == "train"].action.value_counts()
    return {
        "metrics": {f"training videos, {name}": int(number) for name, number in counts.items()},
        "artefacts": made,
        "output_hash": hashlib.sha256(b"".join(file.read_bytes() for file in made.values())).hexdigest(),
    }


def read_classes(path: str | Path) -> list[str]:
    """Class names in the order of their ids, from AnomalyCLIP's ``id,name`` files.

    Raises:
        ZsadError: ids that are not 0, 1, 2, ... in order, or a name twice, as file:line.
    """
    (place, heading), *rows = lines(path)
    if heading.replace(" ", "") != "id,name":
        raise ZsadError(f"{place}: expected the heading id,name, got {heading[:40]!r}")
    names: list[str] = []
    for place, line in rows:
        number, _, name = line.partition(",")
        if number.strip() != str(len(names)) or not name.strip():
            raise ZsadError(f"{place}: expected `{len(names)},name` (ids count from 0, in order), got {line[:60]!r}")
        if name.strip() in names:
            raise ZsadError(f"{place}: class {name.strip()!r} stands there already, as id {names.index(name.strip())}")
        names.append(name.strip())
    if not names:
        raise ZsadError(f"{place}: no class below the heading")
    return names


def write_classes(path: str | Path, names: Iterable[str]) -> None:
    """Writes a class file that `read_classes` reads back."""
    with atomic(path) as file:
        file.write("id,name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(names)))


def write_ucf_annotation(path: str | Path, table: pd.DataFrame, suffix: str = ".mp4") -> None:
    """Writes ``video``, ``action`` and ``spans`` (as many as there are, at least two slots) in UCF-Crime's format."""
    with atomic(path) as handle:
        for row in table.itertuples():
            spans = parse_spans(row.spans)
            spans += [_NO_SPAN] * (2 - len(spans))
            handle.write("  ".join([row.video + suffix, row.action, *(str(n) for s in spans for n in s)]) + "  \n")


# --- UCA's captions: "Normal_Videos_924_x264 00:00.0 00:12.5 ##A man in white walked over", and JSON ----------------


def read_captions(path: str | Path) -> pd.DataFrame:
    """Reads UCA captions from a ``.json`` file or from lines ``video start end ##caption`` (times as [hh:]mm:ss.d).

    Returns:
        Table with ``video``, ``start_s``, ``end_s`` (seconds) and ``caption``, in the file's order.

    Raises:
        ZsadError: empty file, or an entry that does not fit, as file:line (JSON: file: video).
    """
    rows = list(_caption_json(path) if Path(path).suffix == ".json" else _caption_lines(path))
    return pd.DataFrame(rows, columns=["video", "start_s", "end_s", "caption"])


def write_captions(path: str | Path, table: pd.DataFrame) -> None:
    """Writes captions as UCA lines, or as UCA JSON where `path` ends in ``.json`` (``duration`` = the last end)."""
    if Path(path).suffix == ".json":
        videos = {
            video: {
                "duration": float(rows["end_s"].max()),
                "timestamps": rows[["start_s", "end_s"]].to_numpy().tolist(),
                "sentences": rows["caption"].tolist(),
            }
            for video, rows in table.groupby("video", sort=False)
        }
        write_json(path, videos)
        return
    with atomic(path) as handle:
        for row in table.itertuples():
            handle.write(f"{row.video} {_clock(row.start_s)} {_clock(row.end_s)} ##{row.caption}\n")


def _caption_lines(path: str | Path) -> Iterator[tuple[str, float, float, str]]:
    for place, line in lines(path):
        match = re.fullmatch(r"(\S+)\s+([\d:.]+)\s+([\d:.]+)\s+##\s*(.+)", line)
        times = [_seconds(text) for text in match.group(2, 3)] if match else [None]
        if None in times or times[1] < times[0]:
            raise ZsadError(f"{place}: expected `video mm:ss.d mm:ss.d ##caption` with start <= end, got {line[:80]!r}")
        yield match[1], *times, match[4].strip()


def _caption_json(path: str | Path) -> Iterator[tuple[str, float, float, str]]:
    try:
        videos = json.loads(_text(path))
        for video, entry in videos.items():
            times, sentences = entry["timestamps"], entry["sentences"]
            if len(times) != len(sentences) or any(not 0 <= start <= end for start, end in times):
                raise ZsadError(f"{path}: {video}: expected as many timestamps [start, end] as sentences, start <= end")
            for (start, end), sentence in zip(times, sentences):
                yield video, float(start), float(end), sentence.strip()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZsadError(
            f'{path}: expected UCA\'s {{video: {{"timestamps": [[start, end]], "sentences": [text]}}}} ({error!r})'
        ) from error


def _text(path: str | Path) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such label file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ZsadError(f"{path}: not a readable text file ({error}); expected UTF-8") from error
    if not text.strip():
        raise ZsadError(f"{path}: the label file is empty; fetch or write it again")
    return text


def lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """Non-empty lines with their place, "file:line"."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    return None if match is None else 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36000)
    return (f"{hours:02d}:" if hours else "") + f"{rest // 600:02d}:{rest % 600 // 10:02d}.{rest % 10}"


def unique(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if no video occurs twice."""
    again = table[table.video.duplicated()]
    if len(again):
        first = table[table.video == again.video.iloc[0]].iloc[0]
        raise ZsadError(f"{again.place.iloc[0]}: {first.video} stands already at {first.place}")
    return table


def stem(name: str) -> str:
    """A video's name without path and suffix; names of XD-Violence hold other dots."""
    return _SUFFIX.sub("", name.rpartition("/")[2])
