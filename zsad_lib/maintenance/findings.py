"""docs/findings.md, computed from the ablations' tables: what each part buys, for which family, and what is not shown.

Every row of every table is on the page. A bullet calls a difference shown only where it has the star of
`ablation_tables.ablation`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from zsad_lib.ablations.grids import REPORTED, WEAKLY, grid
from zsad_lib.errors import ZsadError
from zsad_lib.maintenance.evidence import (
    chapter,
    delta_cell,
    has_interaction,
    has_star,
    list_evidence,
    list_kinds,
    say_difference,
    say_differences,
    sort_by_evidence,
)
from zsad_lib.maintenance.stream_findings import stream
from zsad_lib.models.gates import GATES
from zsad_lib.released_defects import DEFECTS
from zsad_lib.results.tables import FAMILIES, HEADINGS, caption, to_markdown, value_cell

INTRO = """# What the ablations show

Computed by `make showcase` from the tables of `make ablate`; no number is typed and no row is left out. Unseen
cameras of the embedded benchmark: frames of continuous video in the chapter on streams, clip AUC in the others.
Differences are paired, on the same bootstrap draws, with 95 % intervals.

**A star**, the same in every chapter: p below 0.05 after Holm's correction over all differences of one metric in
the file that holds them (all rows, families, sets of videos and kinds of score). A difference without a star is not
shown, even where its own interval excludes 0; the bullets then say so. Bullets first, their table below; words are
in the [glossary](glossary.md).
"""
FIRST_ROW = " The first row is what the others are compared with, as a value."
BARE = ("`retrieval` (plain)", "`neighbours` (plain)")  # rows of the gate's grid that bring the scene without any gate
MEANT_FOR = {"no_text": "semantic", "no_prediction": "temporal", "no_gate": "contextual"}  # row -> family it serves
NOT_SHOWN = """## What is not shown, and what to run to find out

- Footage here is rendered, scenes are few and easy to tell apart, and the stand-in backbones are small and have
  seen this renderer's world. Nothing above says how large an effect is on real cameras. Data sets with
  scene-dependent anomalies (NWPU Campus, UBnormal) are the natural test of the gate: train the rows `none`, `ln`
  and `relevance` with swaps there and compare the same three families.
- The rule that names the best gate, contextual family on the validation cameras, was set after an earlier grid had
  been run and read, test tables included; by the mean of all families that grid would have named `ln` with
  rejection. Read the choice as made in hindsight.
- Intervals and stars are over test videos, for the mean of the seeds. They do not cover another render; the table
  of another `BENCH_SEED` beside the first says something about that. Nor do they cover other initialisations, which
  matters most for AnomalyCLIP's parts, trained with the fewest seeds. What `published_order` does, which merely
  hands the classes other names, may be read as the size of a chance difference, its stars included.
- The predictive stream was tuned once per seed and then shared by all gates. Whether a gate also changes what the
  predictive stream should learn is asked only by the `joint` rows of the components.
- Whatever learns normality per scene flags what is normal and was never seen. The ablations' tables measure ranking
  only; what false alarms cost stands in [the detection tables](results/demo.md).
"""


def findings(runs: Sequence[Path]) -> str:
    """The whole page.

    Args:
        runs: run folders, the first one in full, others (another render) for the gate alone; grids that were not run
            are left out.

    Returns:
        Markdown; every number in it is read from ``tables/ablation_*.csv``.

    Raises:
        ZsadError: a table that belongs to a grid's is missing.
    """
    chapters = [INTRO]
    for index, run in enumerate(runs):
        for name, write in CHAPTERS.items():
            if _file(run, name).is_file() and (index == 0 or name == "gate"):
                chapters.append(write(_read(run, name), run))
    return "\n".join([*chapters, _gate_rows(), NOT_SHOWN])


def gate(table: pd.DataFrame, run: Path) -> str:
    """How far gates get with and without interaction and swaps, what the controls say, and what needs no gate."""
    return chapter(f"The gate (run `{run.name}`, score without prediction)", *_gates(table, run, "gate"))


def held_out(table: pd.DataFrame, run: Path) -> str:
    """The gate grid without any exposure to the abnormal concepts, and what changes against the usual one."""
    intro = (
        "The stand-ins of this grid were pretrained on a web corpus without a single fight, fall or fire: zero-shot"
        " means never seen in any form. The same rows as in the chapter on the gate.\n"
    )
    bullets, *tables = _gates(table, run, "held_out")
    if _file(run, "gate").is_file():
        usual, changes = _read(run, "gate"), []
        for family in ("semantic", "contextual"):
            change = (_of_family(table, family).value - _of_family(usual, family).value).dropna()
            low, high = change.idxmin(), change.idxmax()
            changes.append(f"{family} by {change[low]:+.3f} ({low}) to {change[high]:+.3f} ({high})")
        against = f"Against the usual stand-ins the {len(change)} rows change, {'; '.join(changes)}"
        bullets = [f"{against}: point estimates, no table tests them.", *bullets]
    heading = f"Without any exposure (run `{run.name}`, score without prediction)\n\n{intro.strip()}"
    return chapter(heading, bullets, *tables)


def _gates(table: pd.DataFrame, run: Path, name: str) -> tuple[list[str], str, str]:
    """Bullets and tables of the gate's grid, whatever stand-ins it was run on."""
    best, memory = (_read(run, f"{name}_{part}").rename(columns={"other": "variant"}) for part in ("best", "memory"))
    rows, gaps = _of_family(table, "contextual"), _of_family(best, "contextual")
    rows["winner"] = rows.variant.eq(best.best.iloc[0]) & ~rows.index.isin(gaps.index)  # it has no gap to itself
    rows["winner_minus_it"] = gaps.reindex(rows.index).apply(delta_cell, axis=1)
    winner = rows.index[rows.winner].item()
    summed, added = (_of_family(part, "all", "full") for part in (table, memory))
    kinds = sort_by_evidence(gaps)
    ahead = kinds.pop("higher with a star")  # most rows, and the table marks them: only their number is said
    bare = [f"{key} {value_cell(rows.loc[key])}, {winner} minus it {say_difference(gaps.loc[key])}" for key in BARE]
    bullets = {  # what a bullet is about -> what it says
        "The gate chosen on the validation cameras": (
            f" is {winner}: contextual family {value_cell(rows.loc[winner])}. "
            f"Against the {len(gaps)} other rows it is higher with a star than {len(ahead)}; {list_kinds(kinds)}."
        ),
        "Without a gate": f": {'; '.join(bare)}.",
        "The wrong scene": f", against `relevance` with its own: {say_differences(rows[rows.control == 'relevance'])}.",
        "With prediction": (
            f", all families: {winner} {value_cell(summed.loc[winner])}; `memory` (relevance and neighbours, whichever"
            f" gate was chosen) {value_cell(summed.loc['`memory` (swap)'])}. `memory` minus others:"
            f" {say_differences(added, dict.fromkeys((winner, *BARE, '`mixture` (plain)')))}. What a gate has of its"
            " own is that its rules can be read (notebook 30)."
        ),
    }
    for group in sorted(group for group in best.group.unique() if group.startswith("set:")):
        row, others = _of_family(table, "all", group=group).loc[winner], _of_family(best, "all", group=group)
        against = f"minus {say_differences(others, ('`none` (plain)', '`neighbours` (plain)'))}."
        bullets[f"Set {group[4:]}"] = f" ({row.n_videos} videos, all families): {winner} {value_cell(row)}; {against}"
    cells = pd.DataFrame({f: _of_family(table, f).apply(value_cell, axis=1) for f in ("semantic", "contextual")})
    control = rows.apply(lambda row: f"{delta_cell(row)} ({row.control})" if row.delta == row.delta else "-", axis=1)
    cells["contextual, minus its control"], cells["contextual, chosen minus it"] = control, rows.winner_minus_it
    about = (
        f" Chosen: {winner}; its differences are in `ablation_{name}_best.csv` beside it, those of `memory` with "
        f"prediction in `ablation_{name}_memory.csv`. What each row is: [below](#the-rows-of-the-gates-grid)."
    )
    lines = [f"**{subject}**{says}" for subject, says in bullets.items()]
    whole = to_markdown(cells.rename_axis("gate (objective)"), _about(table, run, name) + about)
    return lines, _furthest(rows, winner), whole


def _furthest(rows: pd.DataFrame, winner: str) -> str:
    """How far the contextual family gets with an interaction, with swaps, with both and with neither."""
    trained, interact = rows.variant.isin(GATES) & (rows.variant != "none"), rows.variant.map(has_interaction)
    swaps = rows.objective != "plain"  # `reject` learns from swaps as well
    kinds = {
        "no gate, no context": rows.variant == "none",
        "no gate, context in another way": ~rows.variant.isin(GATES) & (rows.control == "none"),
        "gate without interaction, no swaps": trained & ~interact & ~swaps,
        "gate without interaction, swaps": trained & ~interact & swaps,
        "gate with interaction, no swaps": trained & interact & ~swaps,
        "gate with interaction, swaps": trained & interact & swaps,
    }
    furthest = rows.loc[[rows.value[kind].idxmax() for kind in kinds.values()]]
    cells = pd.DataFrame(
        {
            "rows": [str(kind.sum()) for kind in kinds.values()],
            "furthest on test": furthest.index,
            "contextual": [value_cell(row) for _, row in furthest.iterrows()],
            "minus no gate": ["-" if row.variant == "none" else delta_cell(row) for _, row in furthest.iterrows()],
            "chosen minus it": furthest.winner_minus_it.to_numpy(),
        },
        index=pd.Index(kinds, name="kind"),
    )
    about = (
        "**Interaction and swaps**, how far each gets on the contextual family. Each line shows the row that is best "
        f"ON THE TEST videos, which flatters it; the choice made on validation cameras is {winner}. A gate without "
        "interaction adds the same vector to every caption; swaps are context-swap negatives, which the objectives "
        "`swap` and `reject` have."
    )
    return to_markdown(cells, about)


def _gate_rows() -> str:
    """What each row of the gate's grids is: a gate's equation from its class, another row's words from the grid."""
    says = _says("gate") | {kind: inspect.getdoc(layer).split("\n\n")[0] for kind, layer in GATES.items()}
    lines = [f"- `{name}`: {' '.join(words.split())}" for name, words in says.items()]
    return "\n".join(
        ["## The rows of the gate's grid\n", "t a caption's vector, c the scene's, t' what is compared.\n", *lines, ""]
    )


def components(table: pd.DataFrame, run: Path) -> str:
    """Which family each component serves."""
    rows = _clips(table)
    cells, sentences = _differences(rows, "family", FAMILIES, _says("components")), []
    for variant, name in zip(rows.variant.unique(), cells.index):
        row = _of_variant(rows, variant).loc[list(FAMILIES[1:])]
        lost = row.delta[has_star(row) & (row.delta < 0)]
        cells.loc[name, "largest loss with a star"] = lost.idxmin() if len(lost) else "-"
        if family := MEANT_FOR.get(variant):
            worst = row.delta.idxmin()
            also = "" if worst == family else f", NOT as designed; {family} {say_difference(row.loc[family])}"
            loss = f"loses most on {worst}: {say_difference(row.loc[worst])}{also}"
            sentences.append(f"{name}, meant for the {family} family, {loss}")
    return chapter(
        f"The components (run `{run.name}`, differences from the full method)",
        [
            (
                f"{'. '.join(sentences)}. Which family loses most is read off the estimates: no table tests one family "
                "against another."
            ),
            f"All families together: {list_evidence(rows[rows.family == 'all'])}.",
        ],
        to_markdown(cells, _about(table, run, "components") + FIRST_ROW),
    )


def released(table: pd.DataFrame, run: Path) -> str:
    """The paper's rows in order, and what each defect costs."""
    rows, says = _of_family(table, "all", None).set_index("variant", drop=False), _says("released")
    paper, defects = rows.loc[list(REPORTED)], rows.loc[list(DEFECTS)].sort_values("delta")
    steps = pd.Series(REPORTED).diff()
    cells = pd.DataFrame(
        {
            "what it is": [says[name] for name in REPORTED],
            "here": [value_cell(row) for _, row in paper.iterrows()],
            "step here": [delta_cell(row) for _, row in paper.iterrows()],
            "reported": [f"{value:.3f}" for value in REPORTED.values()],
            "reported step": [f"{step:+.3f}" if step == step else "-" for step in steps],
        },
        index=pd.Index(REPORTED, name="row"),
    )
    costs = pd.DataFrame(
        {
            "what it does": [says[name] for name in defects.index],
            "difference": [delta_cell(row) for _, row in defects.iterrows()],
            "p (Holm)": [f"{p:.2g}" for p in defects.p],
        },
        index=defects.index.rename("defect"),
    )
    paper, defects = (part.rename(index="`{}`".format) for part in (paper, defects))
    return chapter(
        f"The published design (run `{run.name}`, all families)",
        [
            f"Each step of the paper's rows, from the row before: {list_evidence(paper)}.",
            f"Each defect of the released code, alone, on the paper's method: {list_evidence(defects)}.",
            f"All defects together (`as_released`): {say_difference(rows.loc['as_released'])}.",
            (
                "The reported column is ROC-AUC on UCF-Crime at an unstated level; ours is clip AUC on rendered footage"
                " with small backbones. Only the steps can be compared, and only in sign."
            ),
        ],
        to_markdown(cells, _about(table, run, "released", FAMILIES[:1])),
        to_markdown(costs, "Each defect alone, difference from B5; same file."),
    )


def prompts(table: pd.DataFrame, run: Path) -> str:
    """What the bank of texts and the context's source bring."""
    rows = _clips(table)
    alarms = _of_variant(rows, "captions_abnormal")
    return chapter(
        f"The prompts (run `{run.name}`, score without prediction, differences from the captions)",
        [
            (
                f"A list of alarms as a further term: semantic family {say_difference(alarms.loc['semantic'])}, "
                f"contextual {say_difference(alarms.loc['contextual'])}."
            ),
            f"On at least one family or all: {list_evidence(rows)}.",
        ],
        to_markdown(
            _differences(rows, "family", FAMILIES, _says("prompts")), _about(table, run, "prompts") + FIRST_ROW
        ),
    )


def anomaly_clip(table: pd.DataFrame, run: Path) -> str:
    """What each part of the weakly supervised method brings, and what the published code does otherwise."""
    metrics = ("clip_auc", "micro_auc", "mauc", "map")
    rows = table[(table.group == "all") & (table.family == "all") & table.metric.isin(metrics)]
    rows = rows.set_index("`" + rows.variant + "`")
    cells = _differences(rows, "metric", metrics, _says(WEAKLY))
    return chapter(
        f"AnomalyCLIP's parts (run `{run.name}`, differences from the whole method)",
        [f"On at least one of the metrics shown: {list_evidence(rows)}."],
        to_markdown(cells.rename(columns=HEADINGS), _about(table, run, WEAKLY, FAMILIES[:1]) + FIRST_ROW),
    )


CHAPTERS = {"stream": stream, "gate": gate, "held_out": held_out, "components": components, "released": released,
            "prompts": prompts, WEAKLY: anomaly_clip}  # fmt: skip


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
    """Clip AUC of one family, indexed as "`gate` (objective)"; a table without column `score` holds one kind of
    score."""
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
    opening = caption(table, f"`runs/{run.name}/tables/ablation_{name}.csv`", level)
    return f"{opening} Abnormal clips: {', '.join(shares)}."


def _differences(rows: pd.DataFrame, column: str, columns: Sequence[str], says: Mapping[str, str]) -> pd.DataFrame:
    """Rows x families or metrics as text: differences from the row's control; of the row without one, values."""
    cells: dict[str, dict[str, str]] = {}
    for name, row in rows.iterrows():
        text = delta_cell(row) if row.delta == row.delta else value_cell(row)
        cells.setdefault(name, {"what it is": says[row.variant]})[row[column]] = text
    return pd.DataFrame.from_dict(cells, orient="index")[["what it is", *columns]].rename_axis("changed")
