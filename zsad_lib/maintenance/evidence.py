"""What a paired difference shows, and the words for it: a star, none, or none though its interval excludes 0.

Rows have `delta`, `delta_low`, `delta_high` (95 %, percentiles of the draws) and `p` (Holm over the whole table), as
`zsad_lib.evaluate.comparison.tabulate` writes them. The star is that of `zsad_lib.results.tables.difference_cell`.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch

from zsad_lib.models.gates import GATES
from zsad_lib.results.tables import difference_cell


def chapter(heading: str, bullets: Sequence[str], *tables: str) -> str:
    """A chapter in Markdown: heading, bullets, tables."""
    return "\n".join([f"## {heading}\n", *(f"- {bullet}" for bullet in bullets), "", *tables])


def delta_cell(row: pd.Series) -> str:
    """A row's difference as a cell; "-" where it has none."""
    return difference_cell(row.delta, row.delta_low, row.delta_high, row.p) if row.delta == row.delta else "-"


def say_difference(row: pd.Series) -> str:
    """A difference in a sentence: without a star, that it has none, and whether its interval would have shown it."""
    if has_star(row):
        return delta_cell(row)
    return f"{delta_cell(row)} (no star{', though its interval excludes 0' if excludes_0(row) else ''})"


def say_differences(rows: pd.DataFrame, keys: Iterable[str] | None = None) -> str:
    return "; ".join(f"{key} {say_difference(rows.loc[key])}" for key in (rows.index if keys is None else keys))


def has_star(rows: pd.DataFrame | pd.Series) -> pd.Series | bool:
    return rows.p < 0.05  # of the table, which holds Holm's


def excludes_0(rows: pd.DataFrame | pd.Series) -> pd.Series | bool:
    return (rows.delta_low > 0) | (rows.delta_high < 0)


def sort_by_evidence(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Names (the index, may repeat) by what their differences show: a star on any of them, or an interval without 0."""
    star = has_star(rows)
    bare = rows[~rows.index.isin(rows.index[star])]
    open_ = bare.index[excludes_0(bare)]
    kinds = {
        "higher with a star": rows.index[star & (rows.delta > 0)],
        "lower with a star": rows.index[star & (rows.delta < 0)],
        "no star, though an interval excludes 0": open_,
        "no star": bare.index.difference(open_, sort=False),
    }
    return {words: list(dict.fromkeys(names)) for words, names in kinds.items()}


def list_kinds(kinds: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{words}: {', '.join(names) or 'none'}" for words, names in kinds.items())


def list_evidence(rows: pd.DataFrame) -> str:
    """The names of the rows that have a difference, by what it shows."""
    return list_kinds(sort_by_evidence(rows[rows.delta.notna()]))


def has_interaction(kind: str) -> bool:
    """Whether what a gate does to a caption depends on the caption; False for what is no gate."""
    if kind not in GATES:
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer, texts, context = GATES[kind](8, 8).eval(), torch.randn(2, 8), torch.randn(8)
        shift = layer(texts, context) - texts  # [2 captions, D]
    return not torch.allclose(shift[0], shift[1], atol=1e-5)
