"""The chapter of docs/findings.md on continuous video, computed from the table of `make ablate GRID=stream`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zsad_lib.ablations.grids import SCORES, grid
from zsad_lib.maintenance.evidence import chapter, count_evidence, delta_cell, table_of, verdict
from zsad_lib.results.ablation_tables import KINDS
from zsad_lib.results.tables import FAMILIES, caption, value_cell

GATE, NONE = "`relevance` (swap)", "`none` (plain)"
WRONG = ("`zero` (swap)", "`shuffled` (swap)")
GATES = ("silu", "ln", "film", "relevance")


def stream(table: pd.DataFrame, run: Path) -> str:
    """What the gate, its scene, the regions, each term and longer training bring, on the unseen cameras' streams."""
    families = [family for family in FAMILIES if family in set(table.family)]
    table = table[table.metric == "micro_auc"].copy()
    table["name"] = "`" + table.variant + "` (" + table.objective + ")"
    parts = {
        (score, family): table[(table.score == score) & (table.family == family)].set_index("name")
        for score in SCORES
        for family in families
    }
    family = "contextual" if "contextual" in families else "all"
    text, fused = parts["semantic", family], parts["fused", "all"]
    others = text[text.variant.isin(GATES) & (text.index != GATE)]
    left_out = fused.index[fused.variant.str.startswith("no_")]
    trained = pd.concat([parts[score, "all"] for score in ("semantic", "full")])  # the gate by text alone
    shorter = trained[trained.variant.str.contains("_steps_")]
    says = [
        f"By text alone, {GATE} is {verdict(text.loc[GATE])} no gate on the {family} family.",
        f"With the memories of normal video it is {verdict(fused.loc[GATE])} no gate, all families.",
        f"The other gates, text alone, {family} family, against no gate: {count_evidence(others)}.",
        f"The wrong scene, against the right one: {count_evidence(text.loc[list(WRONG)])}.",
        f"Left out of the fused row: {_redundant(fused.loc[left_out])}",
        f"Fewer steps than the method's: {count_evidence(shorter)}.",
    ]
    cells = []
    for score in SCORES:
        rows = parts[score, "all"]
        part = pd.DataFrame({"score": score, "what it is": [_says()[name] for name in rows.variant]}, index=rows.index)
        part["all"], part["control"] = rows.apply(value_cell, axis=1), rows.control.fillna("-").replace("", "-")
        for name in families:
            deltas = parts[score, name].apply(delta_cell, axis=1)
            part[f"{name}, minus its control"] = deltas
        cells.append(part)
    kinds = ", ".join(f"`{score}`: {KINDS[score][0].lower()}{KINDS[score][1:]}" for score in SCORES)
    level = (
        f"Micro AUC of frames, each family's events against all normal frames. Scores, {kinds}. Rows named after gates"
        " use the local read-out."
    )
    about = caption(table, f"`runs/{run.name}/tables/ablation_stream.csv`", level, (table.group.iloc[0],), families)
    whole = table_of(pd.concat(cells).rename_axis("row (objective)"), about)
    return chapter(f"Streams (run `{run.name}`, micro AUC of frames)", says, whole)


def _redundant(left_out: pd.DataFrame) -> str:
    """Which terms the others make up for, as far as the table shows."""
    missed = left_out.index[(left_out.p < 0.05) & (left_out.delta < 0)]
    names = [name for name in left_out.index if name not in missed]
    return f"not shown to be missed: {', '.join(names) or 'none'}."


def _says() -> dict[str, str]:
    return {row.name: row.says for row in grid("stream")}
