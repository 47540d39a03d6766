"""docs/findings.md, computed from the ablations' tables: what each part buys, for which family, and what is not shown.

A chapter is sentences that the numbers bear, and tables with every row. A difference is called significant only where
it has the star of `ablation_tables.ablation`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zsad_lib.ablations.grids import REPORTED, WEAKLY
from zsad_lib.ablations.trial import BASE
from zsad_lib.errors import ZsadError
from zsad_lib.maintenance import origin
from zsad_lib.maintenance.evidence import (
    caption_of,
    chapter,
    clips,
    count_evidence,
    count_kinds,
    delta_cell,
    differences,
    fill,
    has_interaction,
    has_star,
    of_family,
    of_variant,
    says_of,
    sort_by_evidence,
    table_of,
    verdict,
)
from zsad_lib.maintenance.stream_findings import stream
from zsad_lib.methods.context_aware.variants import VARIANTS
from zsad_lib.models.gates import GATES
from zsad_lib.released_defects import DEFECTS
from zsad_lib.results.tables import FAMILIES, HEADINGS, value_cell

INTRO = """# What the ablations show

Computed by `make showcase` from the tables of `make ablate`; no number is typed and no row is left out. The cameras are
unseen ones of the embedded benchmark. Streams are ranked by frames of continuous video, all else by clips (clip AUC).

Differences are paired, on the same bootstrap draws, with 95 % intervals. `*` means **significant**: p below 0.05 after
Holm's correction over all differences of a metric in the file. `=` means **not told apart**: the interval includes 0.
No sign means **open**: the interval excludes 0, but the difference is not significant.

A context-swap negative is a window with its own caption under another scene, which must not match. A stand-in is a
small network with a published one's form. All words: [glossary](glossary.md).
"""
FIRST_ROW = " The first row is what the others are compared with, as a value."
BARE = ("`retrieval` (plain)", "`neighbours` (plain)")  # rows of the gate's grid that bring the scene without any gate
MEANT_FOR = {"no_text": "semantic", "no_prediction": "temporal", "no_gate": "contextual"}  # row -> family it serves
NOT_SHOWN = """## What is not shown, and what to run to find out

- Footage here is rendered, scenes are few, and the stand-ins have seen this renderer's world. Nothing above says how
  large an effect is on real cameras. NWPU Campus and UBnormal have scene-dependent anomalies, the natural test of the
  gate. Train the rows `none`, `ln` and `relevance` with swaps there and compare the same families.
- The rule that names the best gate was set after an earlier grid had been read, test tables included. By the mean of
  all families that grid would have named `ln` with rejection. Read the choice as made in hindsight.
- Intervals are over test videos, for the mean of the seeds. They cover neither another render nor other
  initialisations. The table of another `BENCH_SEED` says something about the first, that of another `PRETRAIN_SEED`
  about the second.
- AnomalyCLIP's parts are trained with the fewest seeds. Row `published_order` merely hands the classes other names:
  read its difference as the size of chance.
- The predictive stream was tuned once per seed and then shared by all gates. Only the `joint` rows of the components
  ask whether a gate changes what that stream should learn.
- Whatever learns normality per scene flags what is normal and was never seen. These tables measure ranking only. What
  false alarms cost stands in [the detection tables](results/demo.md).
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
                heading, _, text = write(_read(run, name), run).partition("\n")
                chapters.append(f"{heading}\n\n{fill(origin.say(origin.of_grid(run, name)))}\n{text}")
    return "\n".join([*chapters, _gate_rows(), NOT_SHOWN])


def gate(table: pd.DataFrame, run: Path) -> str:
    """How far gates get with and without interaction and swaps, what the controls say, and what needs no gate."""
    return _gates(table, run, "gate", f"The gate (run `{run.name}`, score without prediction)")


def held_out(table: pd.DataFrame, run: Path) -> str:
    """The gate grid without any exposure to the abnormal concepts, and what changes against the usual one."""
    sentences = [
        "Stand-ins of this grid were pretrained without a single fight, fall or fire.",
        "Zero-shot here means never seen in any form.",
    ]
    if _file(run, "gate").is_file():
        usual = _read(run, "gate")
        for family in ("semantic", "contextual"):
            change = (of_family(table, family).value - of_family(usual, family).value).dropna()
            low, high = change.idxmin(), change.idxmax()
            sentences.append(
                f"Against the usual stand-ins, {family} changes by {change[low]:+.3f} ({low}) to {change[high]:+.3f}"
                f" ({high}) over {len(change)} rows, untested."
            )
    return _gates(
        table, run, "held_out", f"Without any exposure (run `{run.name}`, score without prediction)", sentences
    )


def _gates(table: pd.DataFrame, run: Path, name: str, heading: str, sentences: Sequence[str] = ()) -> str:
    """The chapter of the gate's grid, whatever stand-ins it was run on."""
    best, memory = (_read(run, f"{name}_{part}").rename(columns={"other": "variant"}) for part in ("best", "memory"))
    rows, gaps = of_family(table, "contextual"), of_family(best, "contextual")
    rows["winner"] = rows.variant.eq(best.best.iloc[0]) & ~rows.index.isin(gaps.index)  # it has no gap to itself
    rows["winner_minus_it"] = gaps.reindex(rows.index).apply(delta_cell, axis=1)
    winner = rows.index[rows.winner].item()
    kinds = sort_by_evidence(gaps)
    wrong = rows[rows.control == "relevance"]
    says = [
        f"The gate chosen on the validation cameras is {winner}: contextual family {value_cell(rows.loc[winner])}.",
        f"It minus each of the {len(gaps)} others: {count_kinds(kinds)}.",
        f"Not told apart from it: {', '.join(kinds['not told apart']) or 'none'}.",
        f"Without a gate: {winner} is {_against(gaps, BARE)}.",
        f"With the wrong scene, `relevance` against its own: {count_evidence(wrong)}.",
    ]
    cells = pd.DataFrame({f: of_family(table, f).apply(value_cell, axis=1) for f in ("semantic", "contextual")})
    control = rows.apply(lambda row: f"{delta_cell(row)} ({row.control})" if row.delta == row.delta else "-", axis=1)
    cells["contextual, minus its control"], cells["contextual, chosen minus it"] = control, rows.winner_minus_it
    about = (
        f" Chosen: {winner}, whose differences are in `ablation_{name}_best.csv` beside it."
        " What each row is: [below](#the-rows-of-the-gates-grid)."
    )
    whole = table_of(cells.rename_axis("gate (objective)"), caption_of(table, run, name) + about)
    return "\n".join(
        [chapter(heading, [*sentences, *says], whole), _furthest(rows, winner), _elsewhere(table, best, memory, name)]
    )


def _against(gaps: pd.DataFrame, names: Sequence[str]) -> str:
    """What the differences from some rows show: "not told apart from a, significantly above b"."""
    return ", ".join(f"{verdict(gaps.loc[name])} {name}" for name in names)


def _elsewhere(table: pd.DataFrame, best: pd.DataFrame, memory: pd.DataFrame, name: str) -> str:
    """The grid with the prediction term, and on other sets of cameras."""
    summed, added = (of_family(part, "all", "full") for part in (table, memory))
    cells = pd.DataFrame({"with prediction": summed.apply(value_cell, axis=1)})
    cells["`memory` minus it"] = added.reindex(cells.index).apply(delta_cell, axis=1)
    for group in sorted(group for group in best.group.unique() if group.startswith("set:")):
        here, apart = (of_family(part, "all", group=group) for part in (table, best))
        cells[group[4:]] = here.apply(value_cell, axis=1).reindex(cells.index)
        cells[f"{group[4:]}, chosen minus it"] = apart.reindex(cells.index).apply(delta_cell, axis=1)
    says = [
        "Clip AUC of all families; `memory` is relevance and neighbours, whichever gate was chosen.",
        f"With prediction, `memory` is {_against(added, BARE)}.",
    ]
    about = f"Differences of `memory`: `ablation_{name}_memory.csv`."
    heading = "With prediction, and on other cameras" + " without exposure" * (name == "held_out")
    return chapter(heading, says, table_of(cells.rename_axis("gate (objective)").fillna("-"), about), level=3)


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
    says = [
        "How far each kind of row gets on the contextual family.",
        f"Each line is the row best ON THE TEST videos, which flatters it; validation chose {winner}.",
        "A gate without interaction adds the same vector to every caption.",
        "The objectives `swap` and `reject` learn from context-swap negatives.",
    ]
    return chapter("Interaction and swaps", says, table_of(cells, "Differences as above."), level=3)


def _gate_rows() -> str:
    """What each row of the gate's grids is: a gate's equation from its class, another row's words from the grid."""
    says = says_of("gate") | {kind: inspect.getdoc(layer).split("\n\n")[0] for kind, layer in GATES.items()}
    words = {f"`{name}`": " ".join(text.split()) for name, text in says.items()}
    cells = pd.DataFrame({"what it is": words}).rename_axis("row")
    about = "t is a caption's vector, c the scene's, t' what is compared."
    return "\n".join(["## The rows of the gate's grid\n", table_of(cells, about)])


def say_other_full() -> list[str]:
    """In what the grids' `full` departs from the method that the front page calls so."""
    ours, theirs = dataclasses.asdict(BASE), dataclasses.asdict(VARIANTS["full"])
    names = [name for name in ours if ours[name] != theirs[name]]
    here, there = (", ".join(f"{name}={one[name]}" for name in names) for one in (ours, theirs))
    return [
        "`full` of this grid is not the front page's `full`, hence another value.",
        f"Here it is the light form, which trains in seconds: {here}.",
        f"There it has {there}.",
    ]


def components(table: pd.DataFrame, run: Path) -> str:
    """Which family each component serves."""
    rows = clips(table)
    cells, sentences = differences(rows, "family", FAMILIES, says_of("components")), []
    for variant, name in zip(rows.variant.unique(), cells.index):
        row = of_variant(rows, variant).loc[list(FAMILIES[1:])]
        lost = row.delta[has_star(row) & (row.delta < 0)]
        cells.loc[name, "largest significant loss"] = lost.idxmin() if len(lost) else "-"
        if family := MEANT_FOR.get(variant):
            worst = row.delta.idxmin()
            designed = "as designed" if worst == family else "NOT as designed"
            said = f"{name}, meant for the {family} family, loses most on {worst} ({row.delta[worst]:+.3f}), {designed}"
            sentences.append(f"{said}.")
    return chapter(
        f"The components (run `{run.name}`, differences from the full method)",
        [
            *say_other_full(),
            *sentences,
            "Which family loses most is read off the estimates; no table tests one family against another.",
            f"All families together: {count_evidence(rows[rows.family == 'all'])}.",
        ],
        table_of(cells, caption_of(table, run, "components") + FIRST_ROW),
    )


def released(table: pd.DataFrame, run: Path) -> str:
    """The paper's rows in order, and what each defect costs."""
    rows, says = of_family(table, "all", None).set_index("variant", drop=False), says_of("released")
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
            f"Each step of the paper's rows, from the row before: {count_evidence(paper)}.",
            f"Each defect of the released code, alone, on the paper's method: {count_evidence(defects)}.",
            f"All defects together (`as_released`): {delta_cell(rows.loc['as_released'])}.",
            "The reported column is ROC-AUC on UCF-Crime at an unstated level.",
            "Ours is clip AUC on rendered footage with small backbones: compare only the steps, only in sign.",
        ],
        table_of(cells, caption_of(table, run, "released", FAMILIES[:1])),
        table_of(costs, "Each defect alone, difference from B5, same file."),
    )


def prompts(table: pd.DataFrame, run: Path) -> str:
    """What the bank of texts and the context's source bring."""
    rows = clips(table)
    alarms = of_variant(rows, "captions_abnormal")
    return chapter(
        f"The prompts (run `{run.name}`, score without prediction, differences from the captions)",
        [
            f"A list of alarms as a further term is {verdict(alarms.loc['semantic'])} the captions, semantic family.",
            f"On the contextual family it is {verdict(alarms.loc['contextual'])} them.",
            f"On at least one family or all: {count_evidence(rows)}.",
        ],
        table_of(
            differences(rows, "family", FAMILIES, says_of("prompts")), caption_of(table, run, "prompts") + FIRST_ROW
        ),
    )


def anomaly_clip(table: pd.DataFrame, run: Path) -> str:
    """What each part of the weakly supervised method brings, and what the published code does otherwise."""
    metrics = ("clip_auc", "micro_auc", "mauc", "map")
    rows = table[(table.group == "all") & (table.family == "all") & table.metric.isin(metrics)]
    rows = rows.set_index("`" + rows.variant + "`")
    cells = differences(rows, "metric", metrics, says_of(WEAKLY))
    return chapter(
        f"AnomalyCLIP's parts (run `{run.name}`, differences from the whole method)",
        [f"On at least one of the metrics shown: {count_evidence(rows)}."],
        table_of(cells.rename(columns=HEADINGS), caption_of(table, run, WEAKLY, FAMILIES[:1]) + FIRST_ROW),
    )


CHAPTERS = {"stream": stream, "gate": gate, "held_out": held_out, "components": components, "released": released,
            "prompts": prompts, WEAKLY: anomaly_clip}  # fmt: skip


SAID_ON_PAGE = {"components": say_other_full}  # grid -> what its own page says before its tables


def _file(run: Path, name: str) -> Path:
    return run / "tables" / f"ablation_{name}.csv"


def _read(run: Path, name: str) -> pd.DataFrame:
    """A table of the ablations; ZsadError where a part of a grid's tables is gone."""
    file = _file(run, name)
    if not file.is_file():
        raise ZsadError(f"{file}: missing; delete {run / 'ablation' / 'made_*.json'} and run `make ablate` again")
    return pd.read_csv(file)
