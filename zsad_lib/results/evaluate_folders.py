"""Anybody's frame scores against labels, through the protocol: a folder of each, and tables on disk."""

from pathlib import Path

import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import COLUMNS, evaluate
from zsad_lib.evaluate.weighted_auc import DRAWS
from zsad_lib.files import paths
from zsad_lib.files.own_results import begins_with
from zsad_lib.files.score_files import RESULT_STEM, read_folder
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

    Args:
        scores: folder of files with a column ``score``, or one column only, or an array [n] or [n_seeds, n].
        labels: folder of files with a column ``label``, or one column only, of 0 and 1, one per frame.
        out: folder for detection.csv, .md and .tex; None: beside the scores.
        normal: folder of scores of held-out normal videos: fixes the threshold for far, recall and event F1.
        fps: frames per second, for false alarms per hour and delays.
        draws: bootstrap draws.

    Raises:
        ZsadError: missing folder, empty or unreadable file, and all that `evaluate` raises; tables there that are not
            the kit's, or are of scores of another name. Nothing is written then.
    """
    scores = Path(scores)
    target = Path(scores if out is None else out)
    _refuse_others(target, scores.resolve().name)
    table = evaluate(
        read_folder(scores, "score"),
        read_folder(Path(labels), "label"),
        method=scores.resolve().name,
        fps=fps,
        normal_scores=None if normal is None else read_folder(Path(normal), "score"),
        draws=draws,
    )
    paths.write_table(target / "detection.csv", table)
    title = f"{scores.resolve().name} against {Path(labels).resolve().name}"
    print(tables.save(table, target / "detection", title))
    return table


def _refuse_others(folder: Path, method: str) -> None:
    """ZsadError where the tables would replace what is not an earlier evaluation of the same scores."""
    table = folder / f"{RESULT_STEM}.csv"
    ours = begins_with(table, ",".join(COLUMNS))
    if ours and not (earlier := pd.read_csv(table, nrows=1, dtype=str)["method"]).eq(method).all():
        raise ZsadError(f"{table}: holds the evaluation of {earlier[0]}; give --out another folder for {method}")
    for path in (table.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")):
        if not ours and path.exists():
            raise ZsadError(f"{path}: exists and is no table of this kit; give --out another folder")
