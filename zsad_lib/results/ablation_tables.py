"""Tables of the ablations as a paper prints them: rows as variants, families as columns, values and differences."""

from itertools import product
from pathlib import Path

import pandas as pd

from zsad_lib.results.tables import caption, difference_cell, value_cell, write_tables

KINDS = {  # column `score` of an ablation -> in words
    "semantic": "Without the prediction term",
    "full": "With the prediction term",
    "fused": "With the memories of normal video",
    "weak": "Trained with video-level labels",
}


def ablation(df: pd.DataFrame, score: str, deltas: bool, metric: str = "clip_auc") -> pd.DataFrame:
    """Rows of an ablation as variants, families as columns, cells with 95 % intervals.

    Args:
        df: tidy ablation table.
        score: one of `KINDS`.
        deltas: differences from each row's control, with a star where Holm's p is below 0.05, instead of values.
        metric: of `METRICS`.
    """
    rows = df[(df["metric"] == metric) & (df["group"] == main_group(df)) & (df["score"] == score)]
    cells: dict[str, dict[str, str]] = {}
    for r in rows.itertuples():
        name = f"{r.variant} ({r.objective})" if df["objective"].nunique() > 1 else r.variant
        text = value_cell(r)
        if deltas:
            text = difference_cell(r.delta, r.delta_low, r.delta_high, r.p) if r.delta == r.delta else "-"
            cells.setdefault("control", {})[name] = r.control if isinstance(r.control, str) and r.control else "-"
        cells.setdefault(r.family, {})[name] = text
    return pd.DataFrame(cells).rename_axis("variant")


def main_group(df: pd.DataFrame) -> str:
    """The group that an ablation's table is about: "all", or its streams."""
    return "all" if (df["group"] == "all").any() else df["group"].iloc[0]


def save_ablation(df: pd.DataFrame, stem: str | Path, title: str) -> None:
    """Writes ``<stem>.md`` and ``<stem>.tex``: values and differences, for each kind of score."""
    levels = {"clip_auc": "Clip AUC, each family against all normal clips.", "mauc": "mAUC, frame level."}
    if (group := main_group(df)) != "all":
        events = "each family's events against all normal frames"
        levels = {"micro_auc": f"Micro AUC of frames, {events}.", "macro_auc": f"Macro AUC of frames, {events}."}
    control = " Differences from the row's control on the same draws; * Holm-corrected p below 0.05 over the grid."
    tables = []
    for score, metric, deltas in product(KINDS, levels, (False, True)):
        if len(df[(df["score"] == score) & (df["metric"] == metric)]):
            text = caption(df, f"{title}. {KINDS[score]}", levels[metric], (group,)) + control * deltas
            label = f"tab:{Path(stem).name}-{score}-{metric}{'-delta' * deltas}"
            tables.append((ablation(df, score, deltas, metric), text, label))
    write_tables(stem, tables)
