"""Anybody's frame scores against labels, through the protocol: a folder of each, and tables on disk."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import COLUMNS, evaluate
from zsad_lib.evaluate.weighted_auc import DRAWS
from zsad_lib.files import paths
from zsad_lib.files.own_results import begins_with
from zsad_lib.files.score_files import RESULT_STEM, FrameSeries, read_folder
from zsad_lib.results import tables


def evaluate_folders(
    scores: str | Path,
    labels: str | Path,
    out: str | Path | None = None,
    *,
    normal: str | Path | None = None,
    fps: float | None = None,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Evaluates anybody's frame scores: one CSV or NPY file per video on each side, matched by the file's stem.

    Rows of the kit's own causal scores that its column ``warmup`` marks hold no score yet. They are left out on both
    sides, and their number is said on standard error: no metric counts these frames, and of an event that begins there
    the rest is left.

    Args:
        scores: folder of files with a column ``score``, or one column only, or an array [n] or [n_seeds, n]; what else
            they may hold is with `read_frames`. ``x.scores.csv``, as `score` writes it, is of the video x.
        labels: folder of files with a column ``label``, or one column only, of 0 and 1, one per frame.
        out: folder for detection.csv, .md and .tex; None: beside the scores.
        normal: folder of scores of held-out normal videos: fixes the threshold for far, recall and event F1.
        fps: frames per second, for false alarms per hour and delays.
        draws: bootstrap draws.

    Raises:
        ZsadError: missing folder, empty or unreadable file, files of which nobody can tell where the first frame is,
            all that `evaluate` raises, and tables there that are not the kit's, or are of scores of another name.
            Nothing is written then.
    """
    scores = Path(scores)
    target, method = Path(scores if out is None else out), paths.as_text(scores.resolve().name)
    _refuse_others(target, method)
    scored, labelled = read_folder(scores, "score"), read_folder(labels, "label")
    held_out = None if normal is None else read_folder(normal, "score")
    for video in sorted(scored.keys() & labelled.keys()):
        _check_pair(scored[video], labelled[video])
    for series in (held_out or {}).values():
        if series.untitled:
            raise ZsadError(f"{series.path}:1: a score or a heading? nobody can tell; put `score` above it")
    frames = _after_warmup(scores, scored)
    table = evaluate(
        _left(scored, frames),
        _left(labelled, frames),
        method=method,
        fps=fps,
        normal_scores=None if held_out is None else _left(held_out, _after_warmup(normal, held_out)),
        draws=draws,
    )
    paths.write_table(target / "detection.csv", table)
    title = f"{method} against {paths.as_text(Path(labels).resolve().name)}"
    print(tables.save(table, target / "detection", title))
    return table


def _refuse_others(folder: Path, method: str) -> None:
    """ZsadError where the tables would replace what is not an earlier evaluation of the same scores."""
    table = folder / f"{RESULT_STEM}.csv"
    ours = begins_with(table, ",".join(COLUMNS))
    if ours and not (earlier := pd.read_csv(table, nrows=1, dtype=str, na_filter=False)["method"]).eq(method).all():
        raise ZsadError(f"{table}: holds the evaluation of {earlier[0]}; give --out another folder for {method}")
    for path in (table.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")):
        if not ours and path.exists():
            raise ZsadError(f"{path}: exists and is no table of this kit; give --out another folder")


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
