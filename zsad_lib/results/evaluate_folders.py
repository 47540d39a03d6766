"""Anybody's frame scores against labels, through the protocol: a folder of each, and tables on disk.

The content-free floors of the same labels stand below the scores: who reports less has shown nothing.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError, one_line
from zsad_lib.evaluate.evaluation import COLUMNS, evaluate
from zsad_lib.evaluate.floors import FLOORS, floor_scores
from zsad_lib.evaluate.weighted_auc import DRAWS
from zsad_lib.files import paths
from zsad_lib.files.csv_columns import read_columns
from zsad_lib.files.own_results import begins_with
from zsad_lib.files.score_files import RESULT_STEM, FrameSeries, read_folder
from zsad_lib.files.score_tables import parquet_names
from zsad_lib.results import tables
from zsad_lib.results.evaluation_memory import refuse_too_much

FLOORS_NOTE = (
    " Floors see no picture: noise, minus a video's length, a bump in its middle, the true label of the whole video,"
    " and that label times the bump."
)


def evaluate_folders(
    scores: str | Path,
    labels: str | Path,
    out: str | Path | None = None,
    *,
    normal: str | Path | None = None,
    fps: float | None = None,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Evaluates anybody's frame scores: a CSV, Parquet or NPY file per video on each side, matched by the file's stem.

    Rows of the kit's own causal scores that its column ``warmup`` marks hold no score yet. They are left out on both
    sides, and their number is said on standard error: no metric counts these frames, and of an event that begins there
    the rest is left. Prints which columns were read, the tables, with the content-free floors below the scores, and
    where they were written.

    Args:
        scores: folder of files with a column ``score``, or one column only, or an array [n] or [n_seeds, n]; what else
            they may hold is with `read_frames`. ``x.scores.csv``, as `score` writes it, is of the video x.
        labels: folder of files with a column ``label``, or one column only, of 0 and 1, one per frame.
        out: folder for detection.csv, .md, .tex and .json (what was evaluated), as `scores` itself; None:
            ``evaluated-<scores>`` among the kit's runs, or with the folders above it in front where other scores have
            that name.
        normal: folder of scores of held-out normal videos: fixes the threshold for far, recall and event F1.
        fps: frames per second, for false alarms per hour and delays.
        draws: bootstrap draws.

    Returns:
        The rows of the scores; in detection.csv those of the floors follow them.

    Raises:
        ZsadError: missing folder, empty or unreadable file, files of which nobody can tell where the first frame is,
            held-out normal videos that are test videos, more than may be in memory (`refuse_too_much`), all that
            `evaluate` raises, and tables there that are not the kit's, or are of scores of another name. Nothing is
            written then.
    """
    scores = Path(scores)
    target, method = _own_folder(scores) if out is None else Path(out), paths.as_text(scores.resolve().name)
    method += " (scores)" if method in FLOORS else ""
    _refuse_others(target, method)
    refuse_too_much(scores, Path(labels), None if normal is None else Path(normal), draws)
    scored, labelled = read_folder(scores, "score"), read_folder(labels, "label")
    held_out = None if normal is None else read_folder(normal, "score")
    for video in sorted(scored.keys() & labelled.keys()):
        _check_pair(scored[video], labelled[video])
    for series in (held_out or {}).values():
        if series.untitled:
            raise ZsadError(f"{series.path}:1: a score or a heading? nobody can tell; put `score` above it")
    for video in sorted(scored.keys() & (held_out or {}).keys()):
        if np.array_equal(scored[video].values, held_out[video].values):
            advice = "a threshold comes from normal videos that are not tested"
            raise ZsadError(f"{held_out[video].path}: the same scores as {scored[video].path}; {advice}")
    frames = _after_warmup(scores, scored)
    truth = _left(labelled, frames)
    table = evaluate(
        _left(scored, frames),
        truth,
        method=method,
        fps=fps,
        normal_scores=None if held_out is None else _left(held_out, _after_warmup(normal, held_out)),
        draws=draws,
    )
    floors = floor_scores({video: array.shape[-1] for video, array in truth.items()}, truth)
    rows = [evaluate(floors[name], truth, method=name, fps=fps, draws=draws) for name in FLOORS]
    for folder, column, series in ((scores, "score", scored), (labels, "label", labelled), (normal, "score", held_out)):
        if series is not None:
            print(one_line(f"read: {_columns_of(series, column)} in {paths.as_text(folder)}"))
    for value, option, what in (
        (normal, "--normal (make: NORMAL=), scores of held-out normal videos", "a threshold and what its alarms cost"),
        (fps, "--fps (make: FPS=)", "alarms per hour and delays in seconds"),
    ):
        if value is None:
            print(f"left out: {what}; they need {option}")
    whole = pd.concat([table, *rows], ignore_index=True)
    given = dict(
        zip(("scores", "labels", "normal"), (folder and Path(folder).resolve() for folder in (scores, labels, normal)))
    )
    paths.write_json(target / f"{RESULT_STEM}.json", given | {"fps": fps, "draws": draws})
    paths.write_table(target / f"{RESULT_STEM}.csv", whole)
    title = f"{method} against {paths.as_text(Path(labels).resolve().name)}"
    print(tables.save(whole, target / RESULT_STEM, title, note=FLOORS_NOTE))
    print(one_line(f"written: {paths.as_text(target / RESULT_STEM)}.csv, .md, .tex and .json"))
    return table


def _own_folder(scores: Path) -> Path:
    """Among the kit's runs ``evaluated-<folder>``, with folders above it in front where other scores have that name."""
    folder = scores.resolve()
    for depth in range(1, max(len(folder.parts), 2)):
        target = paths.runs() / f"evaluated-{'-'.join(map(paths.as_text, folder.parts[-depth:]))}"
        with contextlib.suppress(ZsadError):  # no evaluation, or an unreadable one
            if paths.read_json(target / f"{RESULT_STEM}.json", "scores")["scores"] == os.fspath(folder):
                break
        if not target.exists():
            break
    return target


def _refuse_others(folder: Path, method: str) -> None:
    """ZsadError where the tables would replace what is not an earlier evaluation of the same scores."""
    table = folder / f"{RESULT_STEM}.csv"
    ours = begins_with(table, ",".join(COLUMNS))
    if ours and not (earlier := pd.read_csv(table, nrows=1, dtype=str, na_filter=False)["method"]).eq(method).all():
        raise ZsadError(f"{table}: holds the evaluation of {earlier[0]}; give --out another folder for {method}")
    for path in (table.with_suffix(suffix) for suffix in (".csv", ".md", ".tex", ".json")):
        known = begins_with(path, '{\n "scores": ') if path.suffix == ".json" else ours
        if not known and path.exists():
            raise ZsadError(f"{path}: exists and is no table of this kit; give --out another folder")


def _columns_of(series: Mapping[str, FrameSeries], column: str) -> str:
    """What the files of a folder were read from, as "column 'score' of 290 files"."""
    counts = Counter(_column_of(one.path, column) for one in series.values())
    return ", ".join(f"{name} of {count} file{'s' if count > 1 else ''}" for name, count in counts.most_common())


def _column_of(path: Path, column: str) -> str:
    if path.suffix.lower() == ".npy":
        return "the array"
    parquet = path.suffix.lower() == ".parquet"
    heading = parquet_names(path) if parquet else read_columns(path, column, lambda *_: {}).heading
    return f"column {column if column in heading else heading[-1]!r}" if heading else "the only column"


def _check_pair(scored: FrameSeries, labelled: FrameSeries) -> None:
    """ZsadError where the files of a video have other lengths, or may not begin at the same frame."""
    n_scores, n_labels = scored.values.shape[-1], labelled.values.shape[-1]
    if n_scores != n_labels:
        heading = "; is a first line 0 a heading?" if scored.untitled or labelled.untitled else ""
        counts = f"{n_scores} scores but {n_labels} labels in {labelled.path}"
        raise ZsadError(f"{scored.path}: {counts}; give one each per frame{heading}")
    if scored.untitled and labelled.untitled:
        advice = "put `score` and `label` above the values"
        raise ZsadError(f"{scored.path}:1: a score or a heading, as in {labelled.path}? nobody can tell; {advice}")
    if None not in (firsts := (scored.first, labelled.first)) and len(set(firsts)) > 1:
        raise ZsadError(f"{scored.path}: counts frames from {firsts[0]}, {labelled.path} from {firsts[1]}; count alike")


def _after_warmup(folder: str | Path, scored: Mapping[str, FrameSeries]) -> dict[str, np.ndarray]:
    """Video -> bool [n] of the videos that have warm-up frames, True at those scored; says how many are left out."""
    scored_frames = {video: ~series.warmup for video, series in scored.items() if series.warmup.any()}
    for video, frames in scored_frames.items():
        if not frames.any():
            advice = "the video is too short for causal scores; take it out on both sides"
            raise ZsadError(f"{scored[video].path}: all its frames are warm-up; {advice}")
    if scored_frames:
        count = sum(int((~frames).sum()) for frames in scored_frames.values())
        what = f"{count} frames of {len(scored_frames)} videos are the causal scorer's warm-up"
        print(f"{folder}: {what}, left out with their labels", file=sys.stderr)
    return scored_frames


def _left(series: Mapping[str, FrameSeries], scored_frames: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every video's numbers at its frames of `_after_warmup`, or all where it has no warm-up."""
    return {video: one.values[..., scored_frames.get(video, slice(None))] for video, one in series.items()}
