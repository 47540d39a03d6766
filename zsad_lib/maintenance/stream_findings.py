"""The chapter of docs/findings.md on continuous video, computed from the table of `make ablate GRID=stream`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zsad_lib.ablations.grids import SCORES, grid
from zsad_lib.maintenance.evidence import chapter, delta_cell, list_evidence, say_difference, say_differences
from zsad_lib.results.ablation_tables import KINDS
from zsad_lib.results.tables import FAMILIES, caption, to_markdown, value_cell

GATE, NONE = "`relevance` (swap)", "`none` (plain)"
WRONG = ("`zero` (swap)", "`shuffled` (swap)")
GATES = ("silu", "ln", "film", "relevance")
ABOUT = (
    "Score `semantic`: s_sem; `full`: s_sem + s_pred; `fused`: with s_mem and s_mem_global as well. s_sem: the text"
    " against regions; s_pred: the prediction; s_mem: the memory of regions; s_mem_global: that of whole windows. Rows"
    " named after gates use the local read-out."
)


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
    shown = [family for family in ("all", "contextual") if family in families]

    def over_scores(*names: str, of: tuple[str, ...] = tuple(shown)) -> str:
        """The rows' differences for every kind of score and some families."""
        return "; ".join(
            f"{score}, {'all families' if family == 'all' else family}: "
            f"{say_differences(rows, names) if len(names) > 1 else say_difference(rows.loc[names[0]])}"
            for (score, family), rows in parts.items()
            if family in of
        )

    def reached(name: str) -> str:
        return ", ".join(value_cell(parts[score, "all"].loc[name]) for score in SCORES)

    text, fused = parts["semantic", shown[-1]], parts["fused", "all"]
    others = text[text.variant.isin(GATES) & (text.index != GATE)]
    left_out = fused.index[fused.variant.str.startswith("no_")]
    trained = pd.concat([parts[score, "all"] for score in ("semantic", "full")])  # the gate by text alone
    shorter = trained[trained.variant.str.contains("_steps_")]
    bullets = {
        "What is reached": f", for {', '.join(SCORES)} scores: {GATE} {reached(GATE)}; without a gate {reached(NONE)}.",
        "The gate": f", {GATE} minus no gate: {over_scores(GATE)}.",
        "The other gates": f", text alone, {shown[-1]} family, against no gate: {list_evidence(others)}.",
        "The wrong scene": f", minus the right one: {over_scores(*WRONG, of=(shown[-1],))}.",
        "One vector per window": f", minus regions: {over_scores('`relevance_global` (swap)', of=('all',))}.",
        "Each term": (
            f", left out of the fused row, all families: {say_differences(fused, left_out)}. "
            f"{_redundant(fused.loc[left_out])}"
        ),
        "Steps": f", fewer than the method's, all families: {say_differences(shorter)}.",
    }
    if "`old_stand_ins` (swap)" in fused.index:
        bullets["Former stand-ins"] = (
            f", minus today's under the same read-out: {over_scores('`old_stand_ins` (swap)', of=('all',))}."
        )
    tables = []
    for score in SCORES:
        rows = parts[score, "all"]
        cells = pd.DataFrame({"what it is": [_says()[name] for name in rows.variant]}, index=rows.index)
        cells["all"], cells["control"] = rows.apply(value_cell, axis=1), rows.control.fillna("-").replace("", "-")
        for family in families:
            deltas = parts[score, family].apply(delta_cell, axis=1)
            cells[f"{'all' if family == 'all' else family}, minus its control"] = deltas
        file = f"`runs/{run.name}/tables/ablation_stream.csv`"
        level = f"{KINDS[score]}, micro AUC of frames, each family's events against all normal frames."
        about = caption(table, file, level, (rows.group.iloc[0],), families)
        tables.append(to_markdown(cells.rename_axis("row (objective)"), about))
    lines = [f"**{subject}**{says}" for subject, says in bullets.items()]
    return chapter(f"Streams (run `{run.name}`, micro AUC of frames)\n\n{ABOUT}", lines, *tables)


def _redundant(left_out: pd.DataFrame) -> str:
    """Which terms the others make up for, as far as the table shows."""
    missed = left_out.index[(left_out.p < 0.05) & (left_out.delta < 0)]
    names = [name for name in left_out.index if name not in missed]
    return f"Not shown to be missed beside the others: {', '.join(names) or 'none'}."


def _says() -> dict[str, str]:
    return {row.name: row.says for row in grid("stream")}
