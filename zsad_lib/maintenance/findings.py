"""docs/findings.md, computed from the ablations' tables: what each part buys, for which family, and what is not shown.

Every row of every table is on the page. A bullet calls a difference shown only where it has the star of `tables.ablation`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from zsad_lib.ablations import anomaly_clip_grid
from zsad_lib.ablations.grids import REPORTED, WEAKLY, grid
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.models.gates import GATES
from zsad_lib.released_defects import DEFECTS
from zsad_lib.results.tables import HEADINGS, caption, to_markdown

FAMILIES = ("all", "semantic", "temporal", "contextual")
INTRO = """# What the ablations show

Computed by `make showcase` from the tables of `make ablate`; no number is typed and no row is left out. Clip AUC on the unseen cameras
of the embedded benchmark. Differences are paired, on the same bootstrap draws, with 95 % intervals.

**A star**, the same in every chapter: p below 0.05 after Holm's correction over all differences of one metric in the file that holds
them (all rows, families, sets of videos and kinds of score). A difference without a star is not shown, even where its own interval
excludes 0; the bullets then say so. Bullets first, their table below; words are in the [glossary](glossary.md).
"""
NOT_SHOWN = """## What is not shown, and what to run to find out

- Footage here is rendered, scenes are few and easy to tell apart, and the stand-in backbones are small and have seen this renderer's
  world. Nothing above says how large an effect is on real cameras. Data sets with scene-dependent anomalies (NWPU Campus, UBnormal)
  are the natural test of the gate: train the rows `none`, `ln` and `relevance` with swaps there and compare the same three families.
- The rule that names the best gate, contextual family on the validation cameras, was set after an earlier grid had been run and read,
  test tables included; by the mean of all families that grid would have named `ln` with rejection. Read the choice as made in hindsight.
- Intervals and stars are over test videos, for the mean of the seeds. They do not cover another render; the table of another
  `BENCH_SEED` beside the first says something about that. Nor do they cover other initialisations, which matters most for
  AnomalyCLIP's parts, trained with the fewest seeds. What `published_order` does, which merely hands the classes other names, may be
  read as the size of a chance difference, its stars included.
- The predictive stream was tuned once per seed and then shared by all gates. Whether a gate also changes what the predictive
  stream should learn is asked only by the `joint` rows of the components.
- Whatever learns normality per scene flags what is normal and was never seen. The ablations' tables measure ranking only; what false
  alarms cost stands in [the detection tables](results/demo.md).
"""


def findings(runs: Sequence[Path]) -> str:
    """The whole page.

    Args:
        runs: run folders, the first one in full, others (another render) for the gate alone; grids that were not run are left out.

    Returns:
        Markdown; every number in it is read from ``tables/ablation_*.csv``.

    Raises:
        ZsadError: a table that belongs to a grid's is missing.
    """
    parts = [INTRO]
    for number, run in enumerate(runs):
        for name, chapter in CHAPTERS.items():
            if _file(run, name).is_file() and (number == 0 or name == "gate"):
                parts.append(chapter(_read(run, name), run))
    return "\n".join([*parts, _gate_rows(), NOT_SHOWN])


def gate(table: pd.DataFrame, run: Path) -> str:
    """How far gates get with and without interaction and swaps, what the controls say, and what needs no gate."""
    return "\n".join([f"## The gate (run `{run.name}`, score without prediction)\n", *_gates(table, run, "gate")])


def held_out(table: pd.DataFrame, run: Path) -> str:
    """The gate grid without any exposure to the abnormal concepts, and what changes against the usual one."""
    lines = [
        f"## Without any exposure (run `{run.name}`, score without prediction)\n",
        "The stand-ins of this grid were pretrained on a web corpus without a single fight, fall or fire: zero-shot means never seen in "
        "any form. The same rows as in the chapter on the gate.\n",
    ]
    if _file(run, "gate").is_file():
        usual, changes = _read(run, "gate"), []
        for family in ("semantic", "contextual"):
            change = (_of_family(table, family).value - _of_family(usual, family).value).dropna()
            low, high = change.idxmin(), change.idxmax()
            changes.append(f"{family} by {change[low]:+.3f} ({low}) to {change[high]:+.3f} ({high})")
        lines.append(
            f"- Against the usual stand-ins the {len(change)} rows change, {'; '.join(changes)}: point estimates, no table tests them."
        )
    return "\n".join([*lines, *_gates(table, run, "held_out")])


def _gates(table: pd.DataFrame, run: Path, name: str) -> list[str]:
    """Bullets and tables of the gate's grid, whatever stand-ins it was run on."""
    best, memory = (_read(run, f"{name}_{part}").rename(columns={"other": "variant"}) for part in ("best", "memory"))
    rows, gaps = _of_family(table, "contextual"), _of_family(best, "contextual")
    chosen = next(key for key in rows.index[rows.variant == best.best.iloc[0]] if key not in gaps.index)
    summed, added = (_of_family(part, "all", "full") for part in (table, memory))
    bare = ("`retrieval` (plain)", "`neighbours` (plain)")
    controls, found = rows[rows.control == "relevance"], _sorted(gaps)
    ahead = found.pop("higher with a star")  # most rows, and the table marks them: only their number is said
    lines = [
        f"- **The gate chosen on the validation cameras** is {chosen}: contextual family {_value(rows.loc[chosen])}. Against the "
        f"{len(gaps)} other rows it is higher with a star than {len(ahead)}; {_listed(found)}.",
        f"- **Without a gate**: {'; '.join(f'{key} {_value(rows.loc[key])}, {chosen} minus it {_said(gaps.loc[key])}' for key in bare)}.",
        f"- **The wrong scene**, against `relevance` with its own: {'; '.join(f'{key} {_said(row)}' for key, row in controls.iterrows())}.",
        f"- **With prediction**, all families: {chosen} {_value(summed.loc[chosen])}; `memory` (relevance and neighbours, whichever gate "
        f"was chosen) {_value(summed.loc['`memory` (swap)'])}. `memory` minus others: "
        + "; ".join(f"{key} {_said(added.loc[key])}" for key in dict.fromkeys((chosen, *bare, "`mixture` (plain)")))
        + ". What a gate has of its own is that its rules can be read (notebook 30).",
    ]
    for group in sorted(group for group in best.group.unique() if group.startswith("set:")):
        value = _of_family(table, "all", group=group).loc[chosen]
        apart = _of_family(best, "all", group=group)
        against = "; ".join(f"{key} {_said(apart.loc[key])}" for key in ("`none` (plain)", "`neighbours` (plain)"))
        lines.append(
            f"- **Set {group[4:]}** ({value.n_videos} videos, all families): {chosen} {_value(value)}; minus {against}."
        )
    values = {family: _of_family(table, family).apply(_value, axis=1) for family in ("semantic", "contextual")}
    control = [f"{_delta(row)} ({row.control})" if row.delta == row.delta else "-" for _, row in rows.iterrows()]
    against = [_delta(gaps.loc[key]) if key in gaps.index else "-" for key in rows.index]
    cells = pd.DataFrame(values).assign(
        **{"contextual, minus its control": control, "contextual, chosen minus it": against}
    )
    about = (
        f" Chosen: {chosen}; its differences are in `ablation_{name}_best.csv` beside it, those of `memory` with prediction in "
        f"`ablation_{name}_memory.csv`. What each row is: [below](#the-rows-of-the-gates-grid)."
    )
    return [
        *lines,
        "",
        _furthest(rows, gaps, chosen),
        to_markdown(cells.rename_axis("gate (objective)"), _about(table, run, name) + about),
    ]


def _furthest(rows: pd.DataFrame, gaps: pd.DataFrame, chosen: str) -> str:
    """How far the contextual family gets with an interaction, with swaps, with both and with neither."""
    trained, interact = rows.variant.isin(GATES) & (rows.variant != "none"), rows.variant.map(_interacts)
    swaps = rows.objective != "plain"  # `reject` learns from swaps as well
    kinds = {
        "no gate, no context": rows.variant == "none",
        "no gate, context in another way": ~rows.variant.isin(GATES) & (rows.control == "none"),
        "gate without interaction, no swaps": trained & ~interact & ~swaps,
        "gate without interaction, swaps": trained & ~interact & swaps,
        "gate with interaction, no swaps": trained & interact & ~swaps,
        "gate with interaction, swaps": trained & interact & swaps,
    }
    lines = {}
    for words, kind in kinds.items():
        key = rows.value[kind].idxmax()
        lines[words] = {
            "rows": str(kind.sum()),
            "furthest on test": key,
            "contextual": _value(rows.loc[key]),
            "minus no gate": _delta(rows.loc[key]) if rows.variant[key] != "none" else "-",
            "chosen minus it": _delta(gaps.loc[key]) if key in gaps.index else "-",
        }
    about = (
        "**Interaction and swaps**, how far each gets on the contextual family. Each line shows the row that is best ON THE TEST videos, "
        f"which flatters it; the choice made on validation cameras is {chosen}. A gate without interaction adds the same vector to every "
        "caption; swaps are context-swap negatives, which the objectives `swap` and `reject` have."
    )
    return to_markdown(pd.DataFrame.from_dict(lines, orient="index").rename_axis("kind"), about)


def _interacts(kind: str) -> bool:
    """Whether what a gate does to a caption depends on the caption; False for what is no gate."""
    if kind not in GATES:
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer, texts, context = GATES[kind](8, 8).eval(), torch.randn(2, 8), torch.randn(8)
        shift = layer(texts, context) - texts  # [2 captions, D]
    return not torch.allclose(shift[0], shift[1], atol=1e-5)


def _gate_rows() -> str:
    """What each row of the gate's grids is: a gate's equation from its class, another row's words from the grid."""
    says = _says("gate") | {kind: inspect.getdoc(layer).split("\n\n")[0] for kind, layer in GATES.items()}
    lines = [f"- `{name}`: {' '.join(words.split())}" for name, words in says.items()]
    return "\n".join(
        ["## The rows of the gate's grid\n", "t a caption's vector, c the scene's, t' what is compared.\n", *lines, ""]
    )


def components(table: pd.DataFrame, run: Path) -> str:
    """Which family each component serves."""
    rows, own = _clips(table), {"no_text": "semantic", "no_prediction": "temporal", "no_gate": "contextual"}
    cells, lines = _differences(rows, "family", FAMILIES, _says("components")), []
    for variant, name in zip(rows.variant.unique(), cells.index):
        row = _of_variant(rows, variant).loc[list(FAMILIES[1:])]
        lost = row.delta[_star(row) & (row.delta < 0)]
        cells.loc[name, "largest loss with a star"] = lost.idxmin() if len(lost) else "-"
        if variant in own:
            worst = row.delta.idxmin()
            also = "" if worst == own[variant] else f", NOT as designed; {own[variant]} {_said(row.loc[own[variant]])}"
            lines.append(
                f"{name}, meant for the {own[variant]} family, loses most on {worst}: {_said(row.loc[worst])}{also}"
            )
    return "\n".join(
        [
            f"## The components (run `{run.name}`, differences from the full method)\n",
            f"- {'. '.join(lines)}. Which family loses most is read off the estimates: no table tests one family against another.",
            f"- All families together: {_listed(_sorted(rows[(rows.family == 'all') & rows.delta.notna()]))}.",
            "",
            to_markdown(cells, _about(table, run, "components") + FIRST_ROW),
        ]
    )


def released(table: pd.DataFrame, run: Path) -> str:
    """The paper's rows in order, and what each defect costs."""
    rows, says = _of_family(table, "all", None).set_index("variant", drop=False), _says("released")
    paper, defects = rows.loc[list(REPORTED)], rows.loc[list(DEFECTS)].sort_values("delta")
    steps = pd.Series(REPORTED).diff()
    cells = pd.DataFrame(
        {
            "what it is": [says[name] for name in REPORTED],
            "here": [_value(row) for _, row in paper.iterrows()],
            "step here": [_delta(row) if row.delta == row.delta else "-" for _, row in paper.iterrows()],
            "reported": [f"{value:.3f}" for value in REPORTED.values()],
            "reported step": [f"{step:+.3f}" if step == step else "-" for step in steps],
        },
        index=pd.Index(REPORTED, name="row"),
    )
    costs = pd.DataFrame(
        {
            "what it does": [says[name] for name in defects.index],
            "difference": [_delta(row) for _, row in defects.iterrows()],
            "p (Holm)": [f"{p:.2g}" for p in defects.p],
        },
        index=defects.index.rename("defect"),
    )
    named = lambda part: part.rename(index="`{}`".format)
    return "\n".join(
        [
            f"## The published design (run `{run.name}`, all families)\n",
            f"- Each step of the paper's rows, from the row before: {_listed(_sorted(named(paper[paper.delta.notna()])))}.",
            f"- Each defect of the released code, alone, on the paper's method: {_listed(_sorted(named(defects)))}.",
            f"- All defects together (`as_released`): {_said(rows.loc['as_released'])}.",
            "- The reported column is ROC-AUC on UCF-Crime at an unstated level; ours is clip AUC on rendered footage with small "
            "backbones. Only the steps can be compared, and only in sign.",
            "",
            to_markdown(cells, _about(table, run, "released", FAMILIES[:1])),
            to_markdown(costs, "Each defect alone, difference from B5; same file."),
        ]
    )


def prompts(table: pd.DataFrame, run: Path) -> str:
    """What the bank of texts and the context's source bring."""
    rows = _clips(table)
    own = _of_variant(rows, "captions_abnormal")
    return "\n".join(
        [
            f"## The prompts (run `{run.name}`, score without prediction, differences from the captions)\n",
            f"- A list of alarms as a further term: semantic family {_said(own.loc['semantic'])}, "
            f"contextual {_said(own.loc['contextual'])}.",
            f"- On at least one family or all: {_listed(_sorted(rows[rows.delta.notna()]))}.",
            "",
            to_markdown(
                _differences(rows, "family", FAMILIES, _says("prompts")), _about(table, run, "prompts") + FIRST_ROW
            ),
        ]
    )


def anomaly_clip(table: pd.DataFrame, run: Path) -> str:
    """What each part of the weakly supervised method brings, and what the published code does otherwise."""
    metrics = ("clip_auc", "micro_auc", "mauc", "map")
    rows = table[(table.group == "all") & (table.family == "all") & table.metric.isin(metrics)]
    rows = rows.set_index("`" + rows.variant + "`")
    cells = _differences(rows, "metric", metrics, {row.name: row.says for row in anomaly_clip_grid.ROWS})
    return "\n".join(
        [
            f"## AnomalyCLIP's parts (run `{run.name}`, differences from the whole method)\n",
            f"- On at least one of the metrics shown: {_listed(_sorted(rows[rows.delta.notna()]))}.",
            "",
            to_markdown(cells.rename(columns=HEADINGS), _about(table, run, WEAKLY, FAMILIES[:1]) + FIRST_ROW),
        ]
    )


CHAPTERS = {"gate": gate, "held_out": held_out, "components": components, "released": released, "prompts": prompts,
            WEAKLY: anomaly_clip}  # fmt: skip
FIRST_ROW = " The first row is what the others are compared with, as a value."


def _file(run: Path, name: str) -> Path:
    return run / "tables" / f"ablation_{name}.csv"


def _read(run: Path, name: str) -> pd.DataFrame:
    """A table of the ablations; ZsadError where a part of a grid's tables is gone."""
    file = _file(run, name)
    if not file.is_file():
        raise ZsadError(f"{file}: missing; delete {run / 'ablation' / 'made_*.json'} and run `make ablate` again")
    return pd.read_csv(file)


def _clips(table: pd.DataFrame) -> pd.DataFrame:
    """Clip AUC of the main test set, every row and family, indexed by the row's name in backquotes."""
    rows = table[(table.metric == "clip_auc") & (table.group == "all")]
    return rows.set_index("`" + rows.variant + "`")


def _of_variant(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    return rows[rows.variant == variant].set_index("family")


def _of_family(table: pd.DataFrame, family: str, score: str | None = "semantic", group: str = "all") -> pd.DataFrame:
    """Clip AUC of one family, indexed as "`gate` (objective)"; a table without column `score` holds one kind of score."""
    rows = table[(table.metric == "clip_auc") & (table.group == group) & (table.family == family)]
    if score is not None and "score" in rows:
        rows = rows[rows.score == score]
    return rows.set_index("`" + rows.variant + "` (" + rows.objective + ")")


def _says(name: str) -> dict[str, str]:
    return {row.name: row.says for row in grid(name)}


def _about(table: pd.DataFrame, run: Path, name: str, families: Sequence[str] = FAMILIES) -> str:
    """The table's caption: its file, split, videos, prevalence and seeds, and how much of each family is abnormal."""
    clips = _clips(table).drop_duplicates("family").set_index("family").loc[list(families)]
    shares = [f"{family} {100 * row.prevalence:.1f} % of {row.n_videos} videos" for family, row in clips.iterrows()]
    level = "Clip AUC is over clips, each family's against all normal ones."
    return (
        f"{caption(table, f'`runs/{run.name}/tables/ablation_{name}.csv`', level)} Abnormal clips: {', '.join(shares)}."
    )


def _value(row: pd.Series) -> str:
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _delta(row: pd.Series) -> str:
    return f"{row.delta:+.3f} [{row.delta_low:+.3f}, {row.delta_high:+.3f}]{'*' if _star(row) else ''}"


def _said(row: pd.Series) -> str:
    """A difference in a sentence: without a star, that it has none, and whether its own interval would have shown it."""
    if _star(row):
        return _delta(row)
    return f"{_delta(row)} (no star{', though its interval excludes 0' if _excludes_0(row) else ''})"


def _star(rows: pd.DataFrame | pd.Series):
    return rows.p < 0.05  # of the table, which holds Holm's


def _excludes_0(rows: pd.DataFrame | pd.Series):
    return (rows.delta_low > 0) | (rows.delta_high < 0)


def _sorted(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Names (the index, which may repeat) by what their differences show: a star on any of them, or an interval without 0."""
    star = _star(rows)
    bare = rows[~rows.index.isin(rows.index[star])]
    open_ = bare.index[_excludes_0(bare)]
    kinds = {
        "higher with a star": rows.index[star & (rows.delta > 0)],
        "lower with a star": rows.index[star & (rows.delta < 0)],
        "no star, though an interval excludes 0": open_,
        "no star": bare.index.difference(open_, sort=False),
    }
    return {words: list(dict.fromkeys(names)) for words, names in kinds.items()}


def _listed(found: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{words}: {', '.join(names) or 'none'}" for words, names in found.items())


def _differences(rows: pd.DataFrame, column: str, shown: Sequence[str], says: Mapping[str, str]) -> pd.DataFrame:
    """Rows x families or metrics as text: differences from the row's control; of the row without one, values."""
    cells: dict[str, dict[str, str]] = {}
    for name, row in rows.iterrows():
        cells.setdefault(name, {"what it is": says[row.variant]})[row[column]] = (
            _delta(row) if row.delta == row.delta else _value(row)
        )
    return pd.DataFrame.from_dict(cells, orient="index")[["what it is", *shown]].rename_axis("changed")


def write(runs: Sequence[Path], target: Path) -> None:
    """Writes the page, whole or not at all."""
    with paths.atomic(target) as handle:
        handle.write(findings(runs))
