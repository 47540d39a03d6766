"""What a paired difference shows, and the words for it: significant, a tie, or neither though its interval excludes 0.

Rows have `delta`, `delta_low`, `delta_high` (95 %, percentiles of the draws) and `p` (Holm over the whole table), as
`zsad_lib.evaluate.comparison.tabulate` writes them. The star is that of `zsad_lib.results.tables.difference_cell`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from zsad_lib.ablations.grids import grid
from zsad_lib.models.gates import GATES
from zsad_lib.results.markup import to_markdown
from zsad_lib.results.tables import FAMILIES, TIE, caption, difference_cell, value_cell

COLUMNS = 138  # of a line that is no table's


def chapter(heading: str, sentences: Sequence[str], *tables: str, level: int = 2) -> str:
    """A chapter in Markdown: heading, sentences, tables."""
    return "\n".join([f"{'#' * level} {heading}\n", fill(" ".join(sentences)), "", *tables])


def table_of(cells: pd.DataFrame, about: str) -> str:
    """A table in Markdown under what it is about; what a caption lists becomes a sentence each."""
    return to_markdown(cells, fill(about.replace("; ", ". ")))


def fill(text: str) -> str:
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def delta_cell(row: pd.Series) -> str:
    """A row's difference as a cell, with a sign where it is significant or a tie; "-" where it has none."""
    if row.delta != row.delta:
        return "-"
    text = difference_cell(row.delta, row.delta_low, row.delta_high, row.p)
    return text if has_star(row) or excludes_0(row) else text + TIE


def verdict(row: pd.Series) -> str:
    """What a difference shows, in words."""
    if has_star(row):
        return "significantly above" if row.delta > 0 else "significantly below"
    return "not significantly apart from" if excludes_0(row) else "not told apart from"


def has_star(rows: pd.DataFrame | pd.Series) -> pd.Series | bool:
    return rows.p < 0.05  # of the table, which holds Holm's


def excludes_0(rows: pd.DataFrame | pd.Series) -> pd.Series | bool:
    return (rows.delta_low > 0) | (rows.delta_high < 0)


def sort_by_evidence(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Names (the index, may repeat) by what their differences show: significant on any of them, or open, or ties."""
    star = has_star(rows)
    bare = rows[~rows.index.isin(rows.index[star])]
    open_ = bare.index[excludes_0(bare)]
    kinds = {
        "significantly above": rows.index[star & (rows.delta > 0)],
        "significantly below": rows.index[star & (rows.delta < 0)],
        "open": open_,
        "not told apart": bare.index.difference(open_, sort=False),
    }
    return {words: list(dict.fromkeys(names)) for words, names in kinds.items()}


def count_kinds(kinds: Mapping[str, Sequence[str]]) -> str:
    """How many names are of each kind; those that are none of: left out."""
    return ", ".join(f"{len(names)} {words}" for words, names in kinds.items() if names)


def count_evidence(rows: pd.DataFrame) -> str:
    """How many of the rows that have a difference show what."""
    return count_kinds(sort_by_evidence(rows[rows.delta.notna()]))


def has_interaction(kind: str) -> bool:
    """Whether what a gate does to a caption depends on the caption; False for what is no gate."""
    if kind not in GATES:
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer, texts, context = GATES[kind](8, 8).eval(), torch.randn(2, 8), torch.randn(8)
        shift = layer(texts, context) - texts  # [2 captions, D]
    return not torch.allclose(shift[0], shift[1], atol=1e-5)


def clips(table: pd.DataFrame) -> pd.DataFrame:
    """Clip AUC of the main test set, every row and family, indexed by the row's name in backquotes."""
    rows = table[(table.metric == "clip_auc") & (table.group == "all")]
    return rows.set_index("`" + rows.variant + "`")


def of_variant(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    return rows[rows.variant == variant].set_index("family")


def of_family(table: pd.DataFrame, family: str, score: str | None = "semantic", group: str = "all") -> pd.DataFrame:
    """Clip AUC of one family, indexed as "`gate` (objective)"; a table without column `score` holds one kind of
    score."""
    rows = table[(table.metric == "clip_auc") & (table.group == group) & (table.family == family)]
    if score is not None and "score" in rows:
        rows = rows[rows.score == score]
    return rows.set_index("`" + rows.variant + "` (" + rows.objective + ")")


def says_of(name: str) -> dict[str, str]:
    return {row.name: row.says for row in grid(name)}


def caption_of(table: pd.DataFrame, run: Path, name: str, families: Sequence[str] = FAMILIES) -> str:
    """The table's caption: its file, split, videos, prevalence and seeds, and how much of each family is abnormal."""
    first = clips(table).drop_duplicates("family").set_index("family").loc[list(families)]
    shares = [f"{family} {100 * row.prevalence:.1f} % of {row.n_videos} videos" for family, row in first.iterrows()]
    level = "Clip AUC is over clips, each family's against all normal ones."
    opening = caption(table, f"`runs/{run.name}/tables/ablation_{name}.csv`", level)
    return f"{opening} Share of abnormal clips: {'; '.join(shares)}."


def differences(rows: pd.DataFrame, column: str, columns: Sequence[str], says: Mapping[str, str]) -> pd.DataFrame:
    """Rows x families or metrics as text: differences from the row's control; of the row without one, values."""
    cells: dict[str, dict[str, str]] = {}
    for name, row in rows.iterrows():
        text = delta_cell(row) if row.delta == row.delta else value_cell(row)
        cells.setdefault(name, {"what it is": says[row.variant]})[row[column]] = text
    return pd.DataFrame.from_dict(cells, orient="index")[["what it is", *columns]].rename_axis("changed")
