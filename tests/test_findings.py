"""The findings page says what the tables hold, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from zsad_lib import findings, showcase
from zsad_lib.grids import GRIDS, grid


@pytest.fixture
def run(run_home):
    """A run with tables of all grids, filled with numbers that are easy to find again."""
    folder = run_home / "runs" / "demo"
    (folder / "tables").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in GRIDS:
        rows = [
            dict(variant=row.name, objective=row.variant.objective, score=row.score, metric="clip_auc", group=group,
                 family=family, control=row.control.split("/")[0], value=value, low=value - 0.01, high=value + 0.01,
                 delta=value - 0.5 if row.control else np.nan, delta_low=value - 0.51, delta_high=value - 0.49, p=0.04)
            for row in grid(name)
            for group, family in [*[("all", f) for f in findings.FAMILIES], ("set:night", "all")]
            for value in [rng.uniform(0.1, 0.9)]
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        table.to_csv(folder / "tables" / f"ablation_{name}.csv", index=False)
        (folder / "tables" / f"ablation_{name}.md").write_text(f"table {name}")
        for part, own, score in (("best", "relevance", "semantic"), ("memory", "memory", "full")):
            others = table[(table.variant != own) & (table.score == score)].rename(columns={"variant": "other"})
            others.assign(best=own).to_csv(folder / "tables" / f"ablation_{name}_{part}.csv", index=False)
    return folder


def test_every_grid_has_its_chapter_with_the_tables_numbers(run):
    text = findings.findings([run])
    assert text.count("\n## ") == len(GRIDS) + 1 and "What is not shown" in text
    table = pd.read_csv(run / "tables" / "ablation_gate.csv")
    row = table.query("variant == 'relevance' and objective == 'swap' and score == 'semantic' and group == 'all'")
    contextual = row.set_index("family").loc["contextual"]
    assert f"{contextual.value:.3f} [{contextual.low:.3f}, {contextual.high:.3f}]" in text
    components = pd.read_csv(run / "tables" / "ablation_components.csv").query(
        "variant == 'no_text' and group == 'all'"
    )
    deltas = components.set_index("family").delta.drop("all")
    assert f"`no_text` hurts {deltas.idxmin()} most" in text
    designed = deltas.idxmin() == "semantic"
    assert ("NOT semantic as designed" in text) is not designed


def test_a_grid_that_was_not_run_is_left_out_and_another_render_adds_its_gate(run, run_home):
    other = run_home / "runs" / "demo-seed1" / "tables"
    other.mkdir(parents=True)
    for name in ("gate", "prompts"):
        (run / "tables" / f"ablation_{name}.csv").rename(other / f"ablation_{name}.csv")
    for part in ("best", "memory"):
        (run / "tables" / f"ablation_gate_{part}.csv").rename(other / f"ablation_gate_{part}.csv")
    text = findings.findings([run, other.parent])
    assert "run `demo-seed1`, score without prediction" in text and "The prompts" not in text


def test_parts_of_the_weakly_supervised_method_and_what_differs(run):
    rows = [
        dict(variant=variant, metric=metric, group="all", family="all", value=0.7, low=0.6, high=0.8,
             delta=np.nan if variant == "anomaly_clip" else gap, delta_low=gap - 0.01, delta_high=gap + 0.01, p=p)
        for variant, gap, p in (("anomaly_clip", np.nan, np.nan), ("no_temporal", -0.25, 0.01), ("concat", 0.125, 0.5))
        for metric in ("clip_auc", "micro_auc", "mauc")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "tables" / "ablation_anomaly_clip.csv", index=False)
    text = findings.findings([run])
    assert "| anomaly_clip | 0.700 [0.600, 0.800] |" in text
    assert "| no_temporal | -0.250 [-0.260, -0.240]* |" in text and "| concat | +0.125 [+0.115, +0.135] |" in text
    assert "difference on at least one metric: `no_temporal`." in text


def test_showcase_writes_the_page_and_copies_the_tables(run, run_home):
    lines = showcase.show_ablations(run_home)
    assert "demo: ablation_gate shown" in lines
    assert (run_home / "docs" / "results" / "demo_ablation_gate.md").read_text() == "table gate"
    assert (run_home / "docs" / "findings.md").read_text().startswith("# What the ablations show")
