"""Files of frame scores and labels: one series per video, CSV or NPY, and the run folder's layout of seeds."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.files.paths import PARTIAL, atomic, file_errors, make_folder

RESULT_STEM = "detection"  # results lie beside the scores and are no scores


class SeedScores(NamedTuple):
    """What a scored method left in its folder, stacked over seeds."""

    scores: dict[str, np.ndarray]  # test video -> [S, n_frames]
    windows: dict[str, np.ndarray]  # test video -> [S, n_windows]; empty where the method has none
    normal: dict[str, np.ndarray]  # held-out normal video -> [S, n_frames]; empty where the method has none
    classes: dict[
        str, np.ndarray
    ]  # test video -> [S, n_frames, K] probabilities; empty where the method knows no classes


def read_series(path: str | Path, column: str) -> np.ndarray:
    """Reads one video's numbers.

    Args:
        path: ``.npy`` (an array [n] or [seeds, n]) or ``.csv`` (commas; a header with `column`, or one column only,
            whose header is optional).
        column: "score" or "label".

    Returns:
        float64 [n] from CSV; the stored array from NPY.

    Raises:
        ZsadError: missing, empty or unreadable file; no such column; a value that is no number, as file:line.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such file; one file per video is needed") from None
    except (OSError, ValueError, EOFError) as error:
        raise ZsadError(f"{path}: not readable ({error}); give a .csv in UTF-8 or a .npy without objects") from None
    while lines and not lines[-1].strip():
        lines.pop()
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    header = 0 if all(_is_number(name) for name in names) else 1
    if len(lines) == header:
        raise ZsadError(f"{path}: no rows; expected one {column} per frame")
    if len(names) > 1 and column not in names:
        raise ZsadError(f"{path}: no column {column!r} among {', '.join(names[:6])}; name it or give one column only")
    index, values = names.index(column) if header and column in names else 0, []
    for number, line in enumerate(lines[header:], start=header + 1):
        try:
            values.append(float(line.split(",")[index]))
        except (ValueError, IndexError):
            got = f"expected a number in column {column!r}, got {line[:60]!r}"
            raise ZsadError(f"{path}:{number}: {got}") from None
    return np.array(values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_folder(folder: str | Path, column: str) -> dict[str, np.ndarray]:
    """All series of a folder, by file stem; ZsadError where it is missing, holds none, or holds a stem twice."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ZsadError(f"{folder}: no such folder; give the folder with one CSV or NPY file per video")
    series: dict[str, np.ndarray] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".csv", ".npy") and path.stem != RESULT_STEM and not path.name.startswith("."):
            if path.stem in series:
                raise ZsadError(f"{path}: {path.stem} is there twice, as .csv and .npy; keep one")
            series[path.stem] = read_series(path, column)
    if not series:
        raise ZsadError(f"{folder}: no .csv or .npy file; one per video is needed")
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
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
    make_folder(folder.parent)
    with file_errors(folder):
        temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
        try:
            temporary.chmod(0o755)
            for video, series in scores.items():
                rows = (f"{i},{i / fps[video]:.6g},{score:.9g}\n" for i, score in enumerate(series))
                (temporary / f"{video}.csv").write_text("frame,time_s,score\n" + "".join(rows), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    """One score file: columns frame, time_s, and `columns` [T] in their order; then `paths.flush_all`."""
    length = len(next(iter(columns.values())))
    rows = zip(*(values.tolist() for values in columns.values()))
    lines = [f"{t},{t / fps:.3f}," + ",".join(f"{value:.6g}" for value in row) for t, row in zip(range(length), rows)]
    with atomic(path, flush=False) as handle:
        handle.write(f"frame,time_s,{','.join(columns)}\n" + "\n".join(lines) + "\n")
