"""Annotation files in their public formats: temporal spans, captions with times, class lists."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.files.paths import write_json, write_text
from zsad_lib.files.spans import NO_SPAN, format_spans, parse_spans
from zsad_lib.files.video import VIDEO_SUFFIXES

_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, (*VIDEO_SUFFIXES, '.npy', '.safetensors')))})$", re.IGNORECASE)


def read_temporal(path: str | Path, with_class: bool = True) -> pd.DataFrame:
    """Temporal annotations: `video`, `action` ("" without a class), `spans` (0-based, ends inclusive), `place`.

    Args:
        path: "name class first last [first last ...]" per line (UCF-Crime), or the same without the class
            (XD-Violence).
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
        spans = sorted(pair for pair in zip(values[::2], values[1::2]) if pair != NO_SPAN)
        for first, last in spans:
            if first < 0 or last < first:
                advice = "write first last, -1 -1 for none"
                raise ZsadError(f"{place}: span {first} {last} is reversed or negative; {advice}")
        for (_, last), (first, _) in zip(spans, spans[1:]):
            if first <= last:
                raise ZsadError(f"{place}: spans overlap: one ends at frame {last}, another one starts at {first}")
        rows.append((stem(name), action, format_spans(spans), place))
    return unique(pd.DataFrame(rows, columns=["video", "action", "spans", "place"]))


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
    write_text(path, "id,name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(names)))


def write_ucf_annotation(path: str | Path, table: pd.DataFrame, suffix: str = ".mp4") -> None:
    """Writes ``video``, ``action`` and ``spans`` (as many as there are, at least two slots) in UCF-Crime's format."""
    text = ""
    for row in table.itertuples():
        spans = parse_spans(row.spans)
        spans += [NO_SPAN] * (2 - len(spans))
        text += "  ".join([row.video + suffix, row.action, *(str(n) for span in spans for n in span)]) + "  \n"
    write_text(path, text)


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
        videos = {}
        for video, rows in table.groupby("video", sort=False):
            timestamps = rows[["start_s", "end_s"]].to_numpy().tolist()
            videos[video] = {"duration": float(rows["end_s"].max()), "timestamps": timestamps}
            videos[video]["sentences"] = rows["caption"].tolist()
        write_json(path, videos)
    else:
        rows = table.itertuples()
        clocks = (f"{row.video} {_clock(row.start_s)} {_clock(row.end_s)} ##{row.caption}\n" for row in rows)
        write_text(path, "".join(clocks))


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
        shape = '{video: {"timestamps": [[start, end]], "sentences": [text]}}'
        raise ZsadError(f"{path}: expected UCA's {shape} ({error!r})") from error


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
    if len(again := table[table.video.duplicated()]):
        first = table[table.video == again.video.iloc[0]].iloc[0]
        raise ZsadError(f"{again.place.iloc[0]}: {first.video} stands already at {first.place}")
    return table


def stem(name: str) -> str:
    """A video's name without path and suffix; names of XD-Violence hold other dots."""
    return _SUFFIX.sub("", name.rpartition("/")[2])
