"""Files of frame scores and labels: one series per video, CSV, Parquet or NPY, and the run folder's layout of seeds."""

import re
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.files.csv_columns import NUMPY, Columns, beginning, index_of, is_number, open_regular, read_columns
from zsad_lib.files.paths import atomic, whole_folder
from zsad_lib.files.score_tables import parquet_names, read_parquet_column

INSIDE = "inside.npz"  # beside scores: of each frame, whether the region that they point at is that actor's
SUFFIXES = (".csv", ".parquet", ".npy")  # of files of scores and of labels
RESULT_STEM = "detection"  # results lie beside the scores and are no scores
FRAME = re.compile(r"frame([ _-]?(id|no|nr|num|number|idx|index))?")  # names of a column that numbers frames
ROW_NUMBERS = ("", "unnamed: 0", "index")  # what pandas and R call a first column that they number rows in
OTHERS = ("score", "label", "time_s", "warmup", "na", "n/a", "none", "null", "index")  # alone they name no such column


class SeedScores(NamedTuple):
    """What a scored method left in its folder, stacked over seeds."""

    scores: dict[str, np.ndarray]  # test video -> [S, n_frames]
    windows: dict[str, np.ndarray]  # test video -> [S, n_windows]; empty where the method has none
    normal: dict[str, np.ndarray]  # held-out normal video -> [S, n_frames]; empty where the method has none
    classes: dict[
        str, np.ndarray
    ]  # test video -> [S, n_frames, K] probabilities; empty where the method knows no classes


class FrameSeries(NamedTuple):
    """One video's numbers in the order of its frames, and what its file says of them."""

    path: Path  # where it was read
    values: np.ndarray  # [n] or [seeds, n]
    warmup: np.ndarray  # bool [n], True where the kit's own causal scorer had not scored yet
    first: int | None  # number of the first frame, 0 or 1; None where the file numbers none
    untitled: bool  # the first row may be a heading "0", as pandas gives a column without a name


def read_series(path: str | Path, column: str) -> np.ndarray:
    """`read_frames` without what it says of them: the numbers alone."""
    return read_frames(path, column).values


def read_frames(path: str | Path, column: str) -> FrameSeries:
    """Reads one video's numbers.

    Args:
        path: ``.npy`` (an array [n], [n, 1] or [seeds, n]), ``.csv`` (a heading with `column`, or one column only,
            whose heading is optional) or ``.parquet``. Where it has a column ``frame`` (from 0, or from 1) the rows are
            put in its order; row numbers without a name and ``time_s`` must not fall.
        column: "score" or "label".

    Returns:
        The series; float64 [n] from CSV and Parquet.

    Raises:
        ZsadError: missing, empty or unreadable file; no such column, or two; a frame that is missing or there twice; a
            value that is no number; as file:line. Of an array: another shape or type.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        values = _read_array(path)
        return FrameSeries(path, values, np.zeros(values.shape[-1], bool), None, False)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, column)
    columns = read_columns(path, column, partial(_pick, column))
    if not columns.lines:
        raise ZsadError(f"{path}: no rows; expected one {column} per frame")
    for row in [row for row, cell in enumerate(columns.cells.get("without a name", ())) if cell.strip()][:1]:
        cell = columns.cells["without a name"][row]
        raise ZsadError(f"{columns.place(row)}: {cell[:60]!r} in a column without a name; name it or leave it out")
    order, first = _order(columns)
    marks = [cell.strip().lower() for cell in columns.cells.get("warmup", ())]
    own = bool(marks) and set(marks) <= {"true", "false"}
    warmup = np.array([mark == "true" for mark in marks]) if own else np.zeros(len(order), bool)
    untitled = False
    if not columns.heading:
        whole = [cell.strip().isdecimal() for cell in columns.cells[column]]
        untitled = whole[0] and (columns.cells[column][0].strip() == "0" or not any(whole[1:]))
    return FrameSeries(path, columns.numbers(column)[order], warmup[order], first, untitled)


def _read_array(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        if not (start := beginning(file, path)).startswith(NUMPY):
            what = "it is no NumPy array" if start else "it is empty"
            raise ZsadError(f"{path}: not readable: {what}; write numbers with np.save(path, array)")
        try:
            values = np.load(file, allow_pickle=False)
        except Exception as error:  # NumPy reads a header as Python: a damaged one raises what Python's parser raises
            reason = " ".join(str(error).split())
            raise ZsadError(f"{path}: not readable ({reason}); write numbers with np.save(path, array)") from None
    shape = list(values.shape)
    if values.dtype.kind not in "biuf":
        raise ZsadError(f"{path}: {values.dtype} {shape}; give numbers [n], one per frame")
    if values.ndim == 2 and shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or not values.size or (values.ndim == 2 and shape[0] > shape[1]):
        raise ZsadError(f"{path}: an array {shape}; give [n], one number per frame, or [seeds, n], n > 0")
    return values


def _read_parquet(path: Path, column: str) -> FrameSeries:
    names = parquet_names(path)
    picked = _pick(column, str(path), [name.strip().lower() for name in names], names)
    found = {name: read_parquet_column(path, names[index]) for name, index in picked.items()}
    values = found.pop(column).astype(float)
    if not len(values):
        raise ZsadError(f"{path}: no rows; expected one {column} per frame")
    warmup = found.pop("warmup", np.zeros(len(values), bool))
    order, first = np.arange(len(values)), 0
    if not np.array_equal(found.get("frame"), order):  # as nearly all are
        cells = {name: [f"{cell:.17g}" for cell in cells] for name, cells in found.items()}
        order, first = _order(Columns(path, names, cells, range(1, len(values) + 1), ","))
    return FrameSeries(path, values[order], warmup[order].astype(bool), first, False)


def _pick(column: str, place: str, heading: list[str], first: list[str]) -> dict[str, int]:
    """Which cells of a row are the number of a frame, and tell the order of the rows."""
    unnamed = bool(heading) and heading[0] in ROW_NUMBERS
    rest = heading[unnamed:]
    alone = len(rest) == 1 and rest[0] not in OTHERS and not FRAME.fullmatch(rest[0])
    if column in heading:
        picked = {column: index_of(place, heading, column)}
    elif not heading and len(first) == 1:
        return {column: 0}
    elif alone and (rest[0][:1].isalpha() or (unnamed and rest[0].isdecimal())):
        picked = {column: int(unnamed)}
    else:
        names = ", ".join(" ".join(cell.split())[:40] for cell in first[:6])
        raise ZsadError(f"{place}: no column {column!r} among {names}; name it or give one column only")
    numbered = [name for name in heading if FRAME.fullmatch(name)]
    frame = "frame" if "frame" in numbered else next(iter(numbered), None)
    if frame:
        picked["frame"] = index_of(place, heading, frame)
    else:
        picked |= {"row number": 0} if unnamed else {}
        picked |= {"time_s": heading.index("time_s")} if "time_s" in heading else {}
    if "" in heading[1:]:  # of commas at the ends of lines; or it takes the digits after decimal commas
        picked["without a name"] = heading.index("", 1)
    if column == "score" and heading[:2] == ["frame", "time_s"] and "warmup" in heading:  # of `score` and `live`
        picked["warmup"] = heading.index("warmup")
    return picked


def _order(columns: Columns) -> tuple[np.ndarray, int | None]:
    """Row numbers [n] in the order of the frames, and the first frame's number.

    A frame without a row shifts all that follow, and one with two has two scores: both are refused.
    """
    rows = np.arange(len(columns.lines))
    if "frame" in columns.cells:
        if columns.cells["frame"] == [str(row) for row in range(len(rows))]:  # as nearly all are, and sooner seen so
            return rows, 0
        frames = columns.frames("frame")
        order = np.argsort(frames, kind="stable")
        frames = frames[order]
        before = np.concatenate([[0 if frames[0] == 1 else -1], frames[:-1]])
        for at in np.flatnonzero(frames != before + 1)[:1]:
            if frames[at] == before[at]:
                what, advice = f"frame {frames[at]} stands already in line {columns.lines[order[at - 1]]}", "keep one"
            else:
                what = f"frame {frames[at]}, but there is no row for frame {before[at] + 1}"
                advice = "give a row per frame, or leave the column out where the rows are in order"
            raise ZsadError(f"{columns.place(order[at])}: {what}; {advice}")
        return order, int(frames[0])
    for name, least in (("row number", 1), ("time_s", 0)):
        if all(map(is_number, columns.cells.get(name, [""]))):
            for row in np.flatnonzero(np.diff(columns.numbers(name)) < least)[:1] + 1:
                what = f"{name} {columns.cells[name][row]} follows a higher one"
                advice = "put the rows in the order of frames, or number them in a column `frame`"
                raise ZsadError(f"{columns.place(row)}: {what}; {advice}")
    return rows, None


def read_folder(folder: str | Path, column: str) -> dict[str, FrameSeries]:
    """All series of a folder by video: the file's stem, of ``x.scores.csv`` x; hidden files and folders are none.

    Says once on standard error where frames are counted from 1.

    Raises:
        ZsadError: no such folder, none in it, a video twice, a file that `read_frames` refuses, or files of which some
            count frames from 0 and some from 1.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ZsadError(f"{folder}: no such folder; give the folder with one CSV, Parquet or NPY file per video")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.is_dir()
        if path.suffix.lower() in SUFFIXES and path.stem != RESULT_STEM and not hidden:
            video = re.sub(r"\.scores$", "", path.stem, flags=re.IGNORECASE)
            if video in files:
                raise ZsadError(f"{path}: {video} is there twice, {files[video].name} is of it too; keep one")
            files[video] = path
    if not files:
        raise ZsadError(f"{folder}: no .csv, .parquet or .npy file; one per video is needed")
    series = {video: read_frames(path, column) for video, path in files.items()}
    from_one = [files[video] for video, read in series.items() if read.first == 1]
    from_zero = [files[video] for video, read in series.items() if read.first == 0]
    if from_one and from_zero:
        raise ZsadError(f"{from_one[0]}: counts frames from 1, and {from_zero[0].name} from 0; count alike")
    if from_one:
        print(f"{folder}: frames are counted from 1 there, so that 1 is the first", file=sys.stderr)
    return series


def read_seeds(folder: Path, lengths: Mapping[str, int], wanted: Collection[int]) -> SeedScores:
    """Reads ``<seed>/<video>.csv`` of every video in `lengths`, and ``windows.npz``, ``normal.npz`` and ``classes.npz``
    of each seed.

    Args:
        folder: of one method; its sub-folders with a number as name are the seeds.
        lengths: video -> number of frames.
        wanted: the seeds to read, of which at least one must be there (a method that does not train has only one).

    Raises:
        ZsadError: no seed, a missing video, a file with another number of frames, an archive that not every seed has.
    """
    seeds = [folder / str(seed) for seed in sorted(wanted) if (folder / str(seed)).is_dir()]
    if not seeds:
        raise ZsadError(f"{folder}: no folder of seed {', '.join(map(str, wanted))}; score the test videos first")
    scores = {}
    for video, n_frames in lengths.items():
        rows = []
        for seed in seeds:
            rows.append(read_series(seed / f"{video}.csv", "score"))
            if len(rows[-1]) != n_frames:
                raise ZsadError(f"{seed / video}.csv: {len(rows[-1])} scores for {n_frames} frames; score it again")
        scores[video] = np.stack(rows)
    return SeedScores(scores, *(_read_archives(seeds, f"{name}.npz") for name in SeedScores._fields[1:]))


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file by name; ZsadError where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of many kinds: a changed byte may say that it is encrypted, or of a later version
        raise ZsadError(f"{path}: not readable ({error}); score the videos again") from None


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as ``.npz``, whole or not at all."""
    with atomic(path, mode="wb") as handle:
        np.savez(handle, **arrays)


def _read_archives(seeds: list[Path], name: str) -> dict[str, np.ndarray]:
    """One NPZ per seed (video -> [n]) as video -> [S, n]; empty where no seed has it."""
    if not any((seed / name).exists() for seed in seeds):
        return {}
    parts: list[dict[str, np.ndarray]] = []
    for seed in seeds:
        parts.append(read_archive(seed / name))
        shapes, first_shapes = ({video: array.shape for video, array in part.items()} for part in (parts[-1], parts[0]))
        if shapes != first_shapes:
            raise ZsadError(f"{seed / name}: other videos or lengths than in {seeds[0] / name}; score the videos again")
    return {video: np.stack([part[video] for part in parts]) for video in parts[0]}


def write_scores(folder: Path, scores: Mapping[str, np.ndarray], fps: Mapping[str, float]) -> None:
    """Writes ``<video>.csv`` (frame, time_s, score) for every video; the folder is replaced as a whole.

    Args:
        folder: of one method and seed.
        scores: video -> [n_frames].
        fps: video -> frames per second.
    """
    with whole_folder(folder) as temporary:
        for video, series in scores.items():
            rows = (f"{i},{i / fps[video]:.6g},{score:.9g}\n" for i, score in enumerate(series))
            (temporary / f"{video}.csv").write_text("frame,time_s,score\n" + "".join(rows), encoding="utf-8")


def prompt_column(prompt: str) -> str:
    """Column of `score_video` that holds the probability of a prompt."""
    return f"p({prompt})"


def prompt_columns(names: Iterable[str]) -> list[str]:
    """Of column names, those of a `prompt_column`."""
    return [name for name in names if name == prompt_column(prompt_of(name))]


def prompt_of(column: str) -> str:
    """The prompt of a `prompt_column`."""
    return column[2:-1]


def write_frames(path: Path, fps: float, columns: dict[str, np.ndarray]) -> None:
    """One score file of a `paths.whole_folder`: columns frame, time_s, and `columns` [T] in their order."""
    length = len(next(iter(columns.values())))
    rows = zip(*(values.tolist() for values in columns.values()))
    lines = [f"{t},{t / fps:.3f}," + ",".join(f"{value:.6g}" for value in row) for t, row in zip(range(length), rows)]
    path.write_text(f"frame,time_s,{','.join(columns)}\n" + "\n".join(lines) + "\n", encoding="utf-8", newline="")
