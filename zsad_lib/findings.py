"""docs/findings.md, computed from the ablations' tables: what each part buys, for which family, and what is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zsad_lib import paths
from zsad_lib.grids import REPORTED, WEAKLY
from zsad_lib.released import DEFECTS

FAMILIES = ("all", "semantic", "temporal", "contextual")
GATES_SHOWN = (
    ("none", "plain"), ("silu", "plain"), ("ln", "plain"), ("film", "plain"), ("ln", "swap"), ("relevance", "plain"),
    ("bilinear", "swap"), ("relevance", "swap"), ("shuffled", "swap"), ("zero", "swap"), ("global", "swap"),
    ("retrieval", "plain"), ("neighbours", "plain"), ("memory", "swap"),
)  # fmt: skip
NOT_SHOWN = """## What is not shown, and what to run to find out

- Footage here is rendered, scenes are few and easy to tell apart, and the stand-in backbones are small and have seen this renderer's
  world. Nothing above says how large an effect is on real cameras. Data sets with scene-dependent anomalies (NWPU Campus, UBnormal)
  are the natural test of the gate: train the rows `none`, `ln` and `relevance` with swaps there and compare the same three families.
- The rule that names the best gate, contextual family on the validation cameras, was set after an earlier grid had been run and read,
  test tables included; by the mean of all families that grid would have named `ln` with rejection. Read the choice as made in hindsight.
- Intervals are over test videos, for the mean of the seeds. They do not cover another render; the table of another `BENCH_SEED`
  beside the first says something about that.
- The predictive stream was tuned once per seed and then shared by all gates. Whether a gate also changes what the predictive
  stream should learn is asked only by the `joint` rows of the components.
- AnomalyCLIP's grid has three seeds, and its intervals do not cover other initialisations. What `published_order` does, which merely
  hands the classes other names, may be read as the size of a chance difference.
- Whatever learns normality per scene flags what is normal and was never seen. No table here measures that cost.
"""


def findings(runs: Sequence[Path]) -> str:
    """The whole page.

    Args:
        runs: run folders, the first one in full, others (another render) for the gate alone; grids that were not run are left out.

    Returns:
        Markdown; every number in it is read from ``tables/ablation_*.csv``.
    """
    parts = [
        "# What the ablations show\n\nComputed by `make showcase` from the tables of `make ablate`; no number is typed. Clip AUC on the "
        "unseen cameras of the embedded benchmark, differences on the same bootstrap draws with 95 % intervals, p values after Holm's "
        "correction over the whole grid.\n"
    ]
    for number, run in enumerate(runs):
        for name, chapter in CHAPTERS.items():
            file = run / "tables" / f"ablation_{name}.csv"
            if file.is_file() and (number == 0 or name == "gate"):
                parts.append(chapter(pd.read_csv(file), run))
    return "\n".join([*parts, NOT_SHOWN])


def _select(table: pd.DataFrame, variant: str, objective: str | None = None, score: str | None = None) -> pd.DataFrame:
    """Clip-level rows of one variant by family."""
    rows = table[(table.metric == "clip_auc") & (table.group == "all") & (table.variant == variant)]
    rows = rows if objective is None else rows[rows.objective == objective]
    rows = rows if score is None else rows[rows.score == score]
    return rows.set_index("family")


def _value(row: pd.Series) -> str:
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _delta(row: pd.Series) -> str:
    return f"{row.delta:+.3f} [{row.delta_low:+.3f}, {row.delta_high:+.3f}]"


def gate(table: pd.DataFrame, run: Path) -> str:
    """What interaction and negatives bring, what the controls say, and where no gate is as good."""
    pick = lambda variant, objective, score="semantic": _select(table, variant, objective, score)
    lines = ["| gate | objective | semantic | contextual | contextual, against its control |", "|---|---|---|---|---|"]
    for variant, objective in GATES_SHOWN:
        row = pick(variant, objective)
        against = f"{_delta(row.loc['contextual'])} ({row.control.iloc[0]})" if row.delta.notna().any() else "-"
        cells = (variant, objective, _value(row.loc["semantic"]), _value(row.loc["contextual"]), against)
        lines.append(f"| {' | '.join(cells)} |")
    best = pd.read_csv(run / "tables" / "ablation_gate_best.csv")
    best = best[(best.group == "all") & (best.family == "contextual")].set_index(["other", "objective"])
    gaps = {name: best.loc[(name, "plain")] for name in ("none", "silu", "ln")} | {
        name: best.loc[(name, "swap")] for name in ("shuffled", "zero")
    }
    shown = "; ".join(f"`{name}` {_delta(row)}" for name, row in gaps.items())
    alone, negatives = pick("relevance", "plain").loc["contextual"], pick("ln", "swap").loc["contextual"]
    both, none = pick("relevance", "swap").loc["contextual"], pick("none", "plain").loc["contextual"]
    memory, full = pick("memory", "swap", "full").loc["all"], pick("relevance", "swap", "full").loc["all"]
    neighbours = pick("neighbours", "plain").loc["contextual"]
    gains = pd.read_csv(run / "tables" / "ablation_gate_memory.csv")
    gains = gains[(gains.group == "all") & (gains.family == "all")].set_index(["other", "objective"])
    gains = "; ".join(
        f"`{name}` {_delta(gains.loc[(name, 'plain')])}" for name in ("neighbours", "retrieval", "mixture")
    )
    nights = table[(table.metric == "clip_auc") & (table.score == "semantic") & table.group.str.startswith("set:")]
    nights = nights.set_index(["variant", "objective", "group"]).value
    sets = ", ".join(
        f"{group[4:]} {nights['relevance', 'swap', group]:.3f} (without a gate {nights['none', 'plain', group]:.3f}, neighbours "
        f"{nights['neighbours', 'plain', group]:.3f})"
        for group in sorted(set(nights.index.get_level_values("group")))
    )
    text = [
        f"## The gate (run `{run.name}`, score without prediction)\n",
        *lines,
        "",
        f"- **Interaction and negatives are both needed.** Contextual family: no gate {none.value:.3f}; `relevance` without swaps "
        f"{alone.value:.3f}; the paper's `ln` with swaps {negatives.value:.3f}; `relevance` with swaps {both.value:.3f}.",
        f"- The gate chosen on the validation cameras (`{best.best.iloc[0]}`) against the others, contextual family: {shown}.",
        f"- **Neighbours need no gate.** Distance to the training windows alone reaches {neighbours.value:.3f} on the contextual family, "
        f"the gate {both.value:.3f}. With prediction, gate and neighbours together reach {_value(memory)} over all families; against the "
        f"baselines with prediction: {gains}. The gate with prediction alone: {_value(full)}. What the gate has of its "
        "own is that its rules can be read (notebook 30).",
    ]
    if sets:
        text.append(f"- **Scenes that are hard to tell apart**, all families: {sets}.")
    return "\n".join(text) + "\n"


def held_out(table: pd.DataFrame, run: Path) -> str:
    """The gate grid without any exposure to the abnormal concepts, beside the usual one."""
    usual = run / "tables" / "ablation_gate.csv"
    known = pd.read_csv(usual) if usual.is_file() else None
    lines = [
        "| gate | objective | semantic | semantic, usual | contextual | contextual, usual |",
        "|---|---|---|---|---|---|",
    ]
    for variant, objective in GATES_SHOWN:
        row, other = (
            None if part is None else _select(part, variant, objective, "semantic").value for part in (table, known)
        )
        cells = [
            f"{part[f]:.3f}" if part is not None else "-" for f in ("semantic", "contextual") for part in (row, other)
        ]
        lines.append(f"| {variant} | {objective} | {' | '.join(cells)} |")
    return "\n".join(
        [
            f"## Without any exposure (run `{run.name}`)\n",
            "The stand-ins of this table were pretrained on a web corpus without a single fight, fall or fire: zero-shot means never seen "
            "in any form. Beside it the usual stand-ins.\n",
            *lines,
            "",
        ]
    )


def components(table: pd.DataFrame, run: Path) -> str:
    """Which family each component serves."""
    lines = ["| changed | all | semantic | temporal | contextual | hurts most |", "|---|---|---|---|---|---|"]
    rows = table[(table.metric == "clip_auc") & (table.group == "all") & table.delta.notna()]
    for variant in dict.fromkeys(rows.variant):
        row = _select(rows, variant)
        worst = row.loc[list(FAMILIES[1:])].delta.idxmin()
        hurt = worst if row.delta_high[worst] < 0 else "none clearly"
        lines.append(f"| {variant} | {' | '.join(_delta(row.loc[family]) for family in FAMILIES)} | {hurt} |")
    own = {"no_text": "semantic", "no_prediction": "temporal", "no_gate": "contextual"}
    found = {name: _select(rows, name).loc[list(FAMILIES[1:])].delta.idxmin() for name in own}
    said = "; ".join(
        f"`{name}` hurts {found[name]} most" + ("" if found[name] == family else f", NOT {family} as designed")
        for name, family in own.items()
    )
    return "\n".join(
        [f"## The components (run `{run.name}`, differences from the full method)\n", *lines, "", f"- {said}.", ""]
    )


def released(table: pd.DataFrame, run: Path) -> str:
    """The paper's rows in order, and what each defect costs."""
    lines = ["| row | here | step here | reported | reported step |", "|---|---|---|---|---|"]
    before = None
    for name, reported in REPORTED.items():
        row = _select(table, name).loc["all"]
        step = _delta(row) if pd.notna(row.delta) else "-"
        lines.append(
            f"| {name} | {_value(row)} | {step} | {reported:.3f} | {'-' if before is None else f'{reported - before:+.3f}'} |"
        )
        before = reported
    costs = {name: _select(table, name).loc["all"] for name in (*DEFECTS, "as_released")}
    order = sorted(costs, key=lambda name: costs[name].delta)
    defects = [f"| {name} | {_delta(costs[name])} | {costs[name].p:.2g} |" for name in order]
    return "\n".join(
        [
            f"## The published design (run `{run.name}`, all families)\n",
            "The reported column is ROC-AUC on UCF-Crime at an unstated level; ours is clip AUC on rendered footage with small backbones. "
            "Only the steps can be compared, and only in sign.\n",
            *lines,
            "",
            "Each defect of the released code, alone, on the paper's method:\n",
            "| defect | difference | p (Holm) |",
            "|---|---|---|",
            *defects,
            "",
        ]
    )


def prompts(table: pd.DataFrame, run: Path) -> str:
    """What the bank of texts and the context's source bring."""
    rows = table[(table.metric == "clip_auc") & (table.group == "all")]
    lines = ["| bank or context | all | semantic | temporal | contextual |", "|---|---|---|---|---|"]
    for variant in dict.fromkeys(rows.variant):
        row = _select(rows, variant)
        lines.append(f"| {variant} | {' | '.join(_value(row.loc[family]) for family in FAMILIES)} |")
    own = _select(rows, "captions_abnormal")
    return "\n".join(
        [
            f"## The prompts (run `{run.name}`, score without prediction)\n",
            *lines,
            "",
            f"- A list of alarms as a further term changes the semantic family by {_delta(own.loc['semantic'])} and the contextual one by "
            f"{_delta(own.loc['contextual'])}.",
            "",
        ]
    )


def anomaly_clip(table: pd.DataFrame, run: Path) -> str:
    """What each part of the weakly supervised method brings, and what the published code does otherwise."""
    whole = table[(table.group == "all") & (table.family == "all")].set_index(["variant", "metric"])
    metrics = ("clip_auc", "micro_auc", "mauc")
    lines = ["| changed | clip AUC | frame AUC | mAUC |", "|---|---|---|---|"]
    for variant in dict.fromkeys(table.variant):
        rows = [whole.loc[(variant, metric)] for metric in metrics]
        cells = [_delta(row) + "*" * bool(row.p < 0.05) if pd.notna(row.delta) else _value(row) for row in rows]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    changed = whole[whole.delta.notna() & (whole.p < 0.05)].index.get_level_values("variant").unique()
    said = ", ".join(f"`{name}`" for name in changed) or "none of them"
    return "\n".join(
        [
            f"## AnomalyCLIP's parts (run `{run.name}`, differences from the whole method, first row; * p below 0.05 after Holm)\n",
            *lines,
            "",
            f"- Rows with a difference on at least one metric: {said}.",
            "",
        ]
    )


CHAPTERS = {"gate": gate, "held_out": held_out, "components": components, "released": released, "prompts": prompts,
            WEAKLY: anomaly_clip}  # fmt: skip


def write(runs: Sequence[Path], target: Path) -> None:
    """Writes the page, whole or not at all."""
    with paths.atomic(target) as handle:
        handle.write(findings(runs))
