"""The findings page says what the tables hold, and nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsad_lib import config
from zsad_lib.ablations.grids import GRIDS, WEAKLY, grid
from zsad_lib.errors import ZsadError
from zsad_lib.maintenance import evidence, findings, front_page

MAIN, OTHERS, NIGHT = {"stream": "set:stream"}, {"stream": []}, [("set:night", "all")]
two_renders = pytest.mark.parametrize("run", [0, 1], indirect=True)
PART = dict(level="clip", n_videos=77, n_frames=7700, prevalence=0.25, seeds=5)


@pytest.fixture
def run(run_home, request):
    """A run with tables of all grids, filled with numbers that are easy to find again, other ones by the test's
    parameter; validation chose `bilinear` with swaps."""
    folder = run_home / "runs" / "demo"
    (folder / "tables").mkdir(parents=True)
    rng = np.random.default_rng(getattr(request, "param", 0))
    for name in [name for name in GRIDS if name != WEAKLY]:
        rows = [
            dict(PART, variant=row.name, objective=row.variant.objective, score=row.score,
                 metric="micro_auc" if name == "stream" else "clip_auc", group=group, family=family,
                 control=row.control.split("/")[0], value=value, low=value - 0.01, high=value + 0.01,
                 delta=value - 0.5 if row.control else np.nan, delta_low=value - 0.51, delta_high=value - 0.49,
                 p=rng.choice([0.01, 0.06]) if row.control else np.nan)
            for row in grid(name)
            for group, family in [*[(MAIN.get(name, "all"), f) for f in findings.FAMILIES], *OTHERS.get(name, NIGHT)]
            for value in [rng.uniform(0.1, 0.9)]
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        table.to_csv(folder / "tables" / f"ablation_{name}.csv", index=False)
        (folder / "tables" / f"ablation_{name}.md").write_text(f"table {name}")
        for part, own, score in (("best", "bilinear", "semantic"), ("memory", "memory", "full")):
            itself = (table.variant == own) & (table.objective == "swap")
            others = table[~itself & (table.score == score)].rename(columns={"variant": "other"}).drop(columns="score")
            others = others.assign(best=own, delta=others.value, p=rng.choice([0.01, 0.06], len(others)))
            others.to_csv(folder / "tables" / f"ablation_{name}_{part}.csv", index=False)
    return folder


def contextual(run, name):
    table = pd.read_csv(run / "tables" / f"ablation_{name}.csv").query("group == 'all' and family == 'contextual'")
    return table[table.score == "semantic"] if "score" in table else table


def chapter(text, heading):
    return next(part for part in text.split("\n## ") if part.startswith(heading))


def test_every_row_of_every_grid_is_there_with_its_words(run):
    text = findings.findings([run])
    assert text.count("\n## ") == len(GRIDS) + 1 and "What is not shown" in text
    assert text.count("\n## ") + text.count("\n### ") >= text.count("\n|:--") - 1, "a table or two a chapter"
    for name, heading in (("components", "The components"), ("prompts", "The prompts"), ("released", "The published")):
        part = chapter(text, heading)
        for row in grid(name):
            told = f"(`{row.name}`)" if row.name == "as_released" else row.says
            assert told in part and row.name in part, row.name
    gates, explained = chapter(text, "The gate"), chapter(text, "The rows of the gate")
    for row in grid("gate"):
        assert f"| `{row.name}` ({row.objective}) " in gates and f"| `{row.name}` " in explained


def test_every_difference_has_a_star_exactly_where_its_p_is_low(run):
    text = findings.findings([run])
    for name, heading in (("gate", "The gate"), ("held_out", "Without any exposure")):
        part = chapter(text, heading)
        for table in (contextual(run, name).query("delta == delta"), contextual(run, f"{name}_best")):
            assert {True, False} == set(table.p < 0.05)
            for row in table.itertuples():
                shown = f"{row.delta:+.3f} [{row.delta_low:+.3f}, {row.delta_high:+.3f}]"
                assert shown in part and (f"{shown}*" in part) == (row.p < 0.05)
        value = contextual(run, name).iloc[0]
        assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in part


@two_renders
def test_the_gate_quoted_is_the_one_that_validation_chose(run):
    table = contextual(run, "gate").set_index(["variant", "objective"])
    assert table.value.idxmax() != ("bilinear", "swap")  # another one is better on the test videos
    part = chapter(findings.findings([run]), "The gate")
    row = table.loc[("bilinear", "swap")]
    words = " ".join(part.split())
    value = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    assert f"The gate chosen on the validation cameras is `bilinear` (swap): contextual family {value}." in words
    ahead = (contextual(run, "gate_best").query("p < 0.05").delta > 0).sum()
    assert f"It minus each of the {len(table) - 1} others: {ahead} significantly above" in words
    for file in ("runs/demo/tables/ablation_gate.csv", "ablation_gate_best.csv", "ablation_gate_memory.csv"):
        assert f"`{file}`" in words
    assert "77 videos, 7,700 frames" in words and "contextual 25.0 % of 77 videos" in words and "5 seeds" in words


@pytest.mark.parametrize("interaction", [True, False])
@pytest.mark.parametrize("swaps", [True, False])
def test_how_far_each_kind_of_gate_gets(run, interaction, swaps):
    additive, moving = {"silu", "ln"}, {"film", "cross_attention", "residual_mlp", "bilinear", "relevance"}
    rows = contextual(run, "gate")
    rows = rows[rows.variant.isin(moving if interaction else additive) & ((rows.objective != "plain") == swaps)]
    best = rows.loc[rows.value.idxmax()]
    words = f"| gate {'with' if interaction else 'without'} interaction, {'swaps' if swaps else 'no swaps'} "
    part = chapter(findings.findings([run]), "The gate")
    line = next(line for line in part.splitlines() if line.startswith(words))
    assert [cell.strip() for cell in line.split("|")[2:5]] == [
        f"{len(rows)}",
        f"`{best.variant}` ({best.objective})",
        f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}]",
    ]


@two_renders
def test_components_say_which_family_loses_most_and_whether_as_designed(run):
    text = " ".join(chapter(findings.findings([run]), "The components").split())
    rows = pd.read_csv(run / "tables" / "ablation_components.csv").query("group == 'all' and family != 'all'")
    for name, family in (("no_text", "semantic"), ("no_prediction", "temporal"), ("no_gate", "contextual")):
        deltas = rows[rows.variant == name].set_index("family").delta
        designed = "as designed" if deltas.idxmin() == family else "NOT as designed"
        lost = f"loses most on {deltas.idxmin()} ({deltas.min():+.3f}), {designed}."
        assert f"`{name}`, meant for the {family} family, {lost}" in text
    assert "`full` of this grid is not the front page's `full`" in text and "readout=global" in text
    assert "There it has readout=local" in text, "the two differ in what they read"


@two_renders
def test_streams_say_what_the_gate_and_each_term_bring_null_results_included(run):
    table = pd.read_csv(run / "tables" / "ablation_stream.csv").set_index(["variant", "objective", "score", "family"])
    part = chapter(findings.findings([run]), "Streams")
    words = " ".join(part.split())
    row = table.loc[("relevance", "swap", "semantic", "contextual")]
    assert f"By text alone, `relevance` (swap) is {evidence.verdict(row)} no gate on the contextual family." in words
    assert f"it is {evidence.verdict(table.loc[('relevance', 'swap', 'fused', 'all')])} no gate, all families." in words
    missing = [row.name for row in grid("stream") if row.name.startswith("no_")]
    missed = [name for name in missing if (row := table.loc[(name, "swap", "fused", "all")]).p < 0.05 and row.delta < 0]
    redundant = ", ".join(f"`{name}` (swap)" for name in missing if name not in missed) or "none"
    assert f"Left out of the fused row: not shown to be missed: {redundant}." in words
    for row in grid("stream"):
        lines = [line for line in part.splitlines() if line.startswith(f"| `{row.name}` ({row.objective}) ")]
        (line,) = [line for line in lines if f"| {row.score} " in line]
        assert row.says in line
        for family in findings.FAMILIES:
            assert evidence.delta_cell(table.loc[(row.name, row.objective, row.score, family)]) in line


def test_all_defects_together_are_no_defect_alone(run):
    part = chapter(findings.findings([run]), "The published")
    table = pd.read_csv(run / "tables" / "ablation_released.csv").query("group == 'all' and family == 'all'")
    alone = table[table.variant.isin(findings.DEFECTS)]
    assert f"on the paper's method: {evidence.count_evidence(alone.set_index('variant'))}." in " ".join(part.split())
    row = table.set_index("variant").loc["as_released"]
    assert f"(`as_released`): {evidence.delta_cell(row)}." in " ".join(part.split()) and "| as_released" not in part


def test_differences_are_sorted_by_what_they_show():
    rows = pd.DataFrame(
        [("up", 0.2, 0.1, 0.01), ("down", -0.2, -0.3, 0.01), ("down", -0.2, -0.3, 0.9), ("bare", 0.2, 0.1, 0.06),
         ("flat", 0.0, -0.1, 1)],
        columns=["name", "delta", "delta_low", "p"],
    ).set_index("name")  # fmt: skip
    rows["delta_high"] = rows.delta_low + 0.2
    assert list(evidence.sort_by_evidence(rows).values()) == [["up"], ["down"], ["bare"], ["flat"]]
    cells = {name: evidence.delta_cell(rows.loc[name]) for name in ("up", "flat", "bare")}
    assert cells["up"].endswith("*") and cells["flat"].endswith(" =") and cells["bare"].endswith("]")
    says = {name: evidence.verdict(rows.loc[name]) for name in ("up", "flat", "bare")}
    assert says == {"up": "significantly above", "flat": "not told apart from", "bare": "not significantly apart from"}


def test_a_grid_that_was_not_run_is_left_out_and_another_render_adds_its_gate(run, run_home):
    other = run_home / "runs" / "demo-seed1" / "tables"
    other.mkdir(parents=True)
    for name in ("gate", "prompts"):
        (run / "tables" / f"ablation_{name}.csv").rename(other / f"ablation_{name}.csv")
    for part in ("best", "memory"):
        (run / "tables" / f"ablation_gate_{part}.csv").rename(other / f"ablation_gate_{part}.csv")
    text = findings.findings([run, other.parent])
    assert "run `demo-seed1`, score without prediction" in text and "The prompts" not in text
    (other / "ablation_gate_best.csv").unlink()
    with pytest.raises(
        ZsadError, match=r"ablation_gate_best.csv: missing; delete .*made_\*.json and run `make ablate`"
    ):
        findings.findings([run, other.parent])


def test_parts_of_the_weakly_supervised_method_differ_on_metrics_that_are_shown(run):
    gaps = {"anomaly_clip": (np.nan, np.nan), "no_temporal": (-0.25, 0.01), "concat": (0.125, 0.5)}
    rows = [
        dict(PART, variant=variant, metric=metric, group="all", family="all", value=0.7, low=0.6, high=0.8, delta=gap,
             delta_low=gap - 0.01, delta_high=gap + 0.01, p=0.01 if (variant, metric) == ("concat", "far") else p)
        for variant, (gap, p) in gaps.items()
        for metric in ("clip_auc", "micro_auc", "mauc", "map", "far")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "tables" / f"ablation_{WEAKLY}.csv", index=False)
    part = chapter(findings.findings([run]), "AnomalyCLIP")
    lines = {line.split("|")[1].strip(" `"): line for line in part.splitlines() if line.startswith("| `")}
    assert lines["anomaly_clip"].count("0.700 [0.600, 0.800]") == 4
    assert lines["no_temporal"].count("-0.250 [-0.260, -0.240]*") == 4
    assert lines["concat"].count("+0.125 [+0.115, +0.135] ") == 4 and "*" not in lines["concat"]
    assert all(row.says in lines[row.name] for row in grid(WEAKLY) if row.name in gaps)
    assert "shown: 1 significantly below, 1 open." in " ".join(part.split())


def test_showcase_writes_the_page_and_copies_the_tables(run, run_home):
    lines = front_page.show_ablations(run_home)
    assert "demo: ablation_gate shown" in lines
    page = (run_home / "docs" / "results" / "demo_ablation_gate.md").read_text()
    assert page.startswith("Run `demo`, revision not recorded") and page.endswith("table gate")
    assert "not the front page's `full`" in (run_home / "docs" / "results" / "demo_ablation_components.md").read_text()
    assert (run_home / "docs" / "findings.md").read_text().startswith("# What the ablations show")


def test_the_gates_sentences_on_the_page_count_what_its_table_marks():
    """Of the committed page: whoever wrote a sentence by hand, or a table of another run, is found out."""
    page = (Path(findings.__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    part = chapter(page, "The gate").partition("\n### ")[0]
    cells = [line.strip("| ").split("|")[-1].strip() for line in part.splitlines() if line.startswith("| `")]
    cells = [cell for cell in cells if cell != "-"]
    kinds = {
        "significantly above": [cell for cell in cells if cell[0] == "+" and cell[-1] == "*"],
        "significantly below": [cell for cell in cells if cell[0] == "-" and cell[-1] == "*"],
        "open": [cell for cell in cells if cell[-1] == "]"],
        "not told apart": [cell for cell in cells if cell[-1] == "="],
    }
    says = ", ".join(f"{len(found)} {words}" for words, found in kinds.items() if found)
    assert f"It minus each of the {len(cells)} others: {says}." in " ".join(part.split())


def test_glossary_names_every_profile():
    lines = (Path(findings.__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("| **profile**"))
    assert all(f"`{name}`" in line for name in config.PROFILES)
