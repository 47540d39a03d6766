"""The front page's numbers come from run folders, its rows follow a rule, and what has not been run is left alone."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from zsad_lib.__main__ import main
from zsad_lib.ablations.run import code_of_grid
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.manifest import save_manifest
from zsad_lib.maintenance import front_page, notebook_map, origin
from zsad_lib.pipeline.run_step import code_of
from zsad_lib.results import report_cards, tables

SHOWN = ("film", "where", "picture", "table")
README = "\n".join(f"<!-- results:{name} -->\nold {name}\n<!-- /results -->" for name in SHOWN)
MAP = "<!-- results:notebooks -->\nold map\n<!-- /results -->"


@pytest.fixture
def kit(run_home):
    """A home with the pages that are filled."""
    (run_home / "docs").mkdir()
    (run_home / "README.md").write_text(README)
    (run_home / "docs" / "notebooks.md").write_text(MAP)
    return run_home


def make_run(home: Path, name: str, metrics: list[str], changed: bool = False) -> None:
    rows = [
        dict(
            method=method, variant="raw", metric=metric, level=metric.split("_")[0], group="all", family=family,
            value=value, low=value - 0.01, high=value + 0.01, n_videos=9, n_frames=90, prevalence=0.1, seeds=2,
        )
        for metric in metrics
        for family in ("all", "semantic")
        for method, value in (("full", 0.912), ("knn", 0.934), ("random", 0.5))
    ]  # fmt: skip
    run = home / "runs" / name
    for folder in ("evaluate", "tables", "figures"):
        (run / folder).mkdir(parents=True)
    table = pd.DataFrame(rows)
    table.to_csv(run / "tables" / "detection.csv", index=False)
    tables.save(table, run / "tables" / "detection", "Toy")
    result = {
        "git": {"commit": "0123456789abcdef", "changed": changed},
        "profile": {"seeds": [0, 1], "far_target": 0.3},
    }
    (run / "evaluate" / "result.json").write_text(json.dumps({**result, "versions": {"torch": "9.9"}}))
    (run / "figures" / "headline.png").write_bytes(b"picture of " + name.encode())
    (run / "scores" / "full").mkdir(parents=True)
    clip = dict(path="", set="main", scene="road", site="a", action="walk", n_frames=48, fps=10.0, caption="", spans="")
    clips = [clip | dict(video=split, split=split, family="normal") for split in ("train", "test")]
    save_manifest(pd.DataFrame(clips), paths.make_folder(run / "data"))


def test_both_runs_reach_readme_and_docs(kit, capsys):
    make_run(kit, "demo", ["clip_auc", "micro_auc"])
    make_run(kit, "ped2", ["micro_auc"], changed=True)
    assert main(["showcase"]) == 0
    assert capsys.readouterr().out == "demo: shown\nped2: shown\nablations: not run; make ablate\n"
    text, results = (kit / "README.md").read_text(), kit / "docs" / "results"
    assert not re.search("old (where|picture|table)", text) and text.count("<!-- /results -->") == len(SHOWN)
    assert "old film" in text, "these runs have none"
    assert "old map" not in (kit / "docs" / "notebooks.md").read_text()
    _, where, picture, table = text.split("<!-- /results -->")[:4]
    assert (results / "demo_floors.md").is_file() and "`full` is best on clips" in " ".join(where.split())
    assert "(docs/results/headline.png)" in picture and (results / "ped2.png").read_bytes() == b"picture of ped2"
    assert "| `full` | the method without that memory | normal video, captions | 0.912 [0.902, 0.922] | 0.912 [" in (
        " ".join(table.split())
    )
    assert "`knn` | the strongest other method" in " ".join(table.split())
    assert "`random` | the strongest floor" in " ".join(table.split()) and table.count("\n| ") == 1 + 2 * 3
    demo, ped2 = [" ".join(about.split()) for about in re.findall(r"^- \*\*(?:.|\n  )*", table, re.MULTILINE)]
    assert "run `demo`, revision 0123456789, torch 9.9. Clip AUC ranks" in demo and "9 videos, 90 frames" in demo
    assert "Mean over 2 seeds" in demo and "(docs/results/demo.md)" in demo and "lets 30% of the frames" in demo
    assert (
        "revision" not in ped2 and "(docs/results/ped2.md)" in ped2
    )  # the working copy had changes: no revision to name
    page = (results / "demo.md").read_text()
    assert page.startswith("Run `demo`, revision 0123456789, ") and "\n\nToy." in page
    assert "**Made by an earlier revision of the code: 0123456789.**" in page.partition("\n")[0], "it recorded no code"
    assert "revision 0123456789 with changes" in (results / "ped2.md").read_text().partition("\n")[0]
    card = (kit / "docs" / "model_card.md").read_text()
    assert "# Model card: `full`, run `demo`" in card and "{" not in card and card.endswith(report_cards.limits())
    assert main(["showcase"]) == 0 and (kit / "README.md").read_text() == text


def test_of_a_missing_run_what_was_shown_before_stays(kit, capsys):
    make_run(kit, "ped2", ["micro_auc"])
    assert main(["showcase"]) == 0
    assert "demo: not run; make reproduce PROFILE=demo" in capsys.readouterr().out
    first = (kit / "README.md").read_text()
    assert "(docs/results/ped2.png)" in first and "SceneRules" not in first
    assert not (kit / "docs" / "model_card.md").exists()
    shutil.rmtree(kit / "runs" / "ped2")
    page, kept = kit / "docs" / "results" / "ped2.md", kit / "docs" / "results" / "front_page.json"
    shown = json.loads(kept.read_text())
    shown["ped2"]["origin"]["steps"]["evaluate"]["code"] = code_of("evaluate", "ucsd_ped2")
    kept.write_text(json.dumps(shown))
    make_run(kit, "demo", ["clip_auc", "micro_auc"])
    assert main(["showcase"]) == 0
    text = (kit / "README.md").read_text()
    assert "(docs/results/headline.png)" in text and text.index("| SceneRules") < text.index("| UCSD Ped2")
    assert page.read_text().startswith("Run `ped2`") and "earlier revision" not in page.read_text()


def test_a_table_is_marked_where_the_code_of_its_steps_has_changed():
    recorded = {step: dict(revision="0123456789", date="2026-01-31", code=code_of(step, "scene_rules"))
                for step in ("score", "evaluate", "tables")}  # fmt: skip
    made = {"run": "demo", "dataset": "scene_rules", "steps": recorded}
    assert origin.say(made) == "Run `demo`, revision 0123456789, 2026-01-31."
    recorded["score"] = dict(revision="abcdef0123", date="2026-01-30", code="another")
    assert origin.changed_steps(made) == ["score"]
    assert origin.say(made) == (
        "Run `demo`, revision abcdef0123 (score), revision 0123456789 (evaluate, tables), 2026-01-31."
        " **Made by an earlier revision of the code: abcdef0123.**"
    )
    once = origin.stamp("A table.", made)
    assert origin.stamp(once, made) == once and once.endswith("\n\nA table.")


def test_an_ablation_says_which_code_made_it(run_home):
    run = run_home / "runs" / "demo"
    (run / "ablation").mkdir(parents=True)
    facts = {"key": "k", "files": {}, "date": "2026-01-31", "git": {"commit": "f" * 40, "changed": False}}
    stamp = run / "ablation" / "made_gate.json"
    stamp.write_text(json.dumps(facts | {"code": code_of_grid("gate")}))
    assert origin.say(origin.of_grid(run, "gate")) == "Run `demo`, revision ffffffffff, 2026-01-31."
    stamp.write_text(json.dumps(facts | {"code": "another"}))
    assert "earlier revision of the code: ffffffffff" in origin.say(origin.of_grid(run, "gate"))
    stamp.rename(stamp.with_name("made_masks.json"))  # a grid of an extension that is not loaded now
    assert "Run `demo`, revision ffffffffff" in origin.say(origin.of_grid(run, "masks"))


def test_nothing_run_an_incomplete_run_and_a_readme_without_places(kit, capsys):
    (kit / "README.md").write_text("# no place to fill")
    assert main(["showcase"]) == 2 and "no run to show" in capsys.readouterr().err
    make_run(kit, "demo", ["clip_auc", "micro_auc"])
    assert main(["showcase"]) == 2 and "results:picture" in capsys.readouterr().err
    assert (kit / "README.md").read_text() == "# no place to fill"
    (kit / "runs" / "demo" / "figures" / "headline.png").unlink()
    with pytest.raises(ZsadError, match="headline.png: missing"):
        front_page.show(kit)


def rows_of(**values: float) -> pd.DataFrame:
    """Clip and micro AUC of methods, equal; a name that begins with `frame_` has a micro AUC alone."""
    rows = [
        dict(method=name.removeprefix("frame_"), metric=metric, variant="raw", group="all", family="all", value=value)
        for name, value in values.items()
        for metric in ("clip_auc", "micro_auc")
        if metric == "micro_auc" or not name.startswith("frame_")
    ]
    return pd.DataFrame(rows)


def test_rows_are_chosen_by_rule():
    scores = dict(full_memory=0.8, full=0.7, paper=0.5, semantic=0.9, knn=0.6, mil=0.55, anomaly_clip=0.3)
    floors = dict(random=0.5, centre=0.65, motion_floor=0.4)
    assert list(front_page.choose_rows(rows_of(**scores, **floors))) == [
        "full_memory", "full", "paper", "knn", "anomaly_clip", "centre"
    ]  # fmt: skip
    twice = front_page.choose_rows(rows_of(**scores | {"anomaly_clip": 0.95}, **floors | {"motion_floor": 0.97}))
    assert twice["motion_floor"] == "the strongest other method; the strongest floor" and "knn" not in twice
    assert "paper" in twice and "anomaly_clip" in twice  # what is weak stays
    one_camera = dict(frame_predictive=0.9, frame_knn=0.5, frame_random=0.6)
    assert list(front_page.choose_rows(rows_of(**one_camera))) == ["predictive", "knn", "random"]


def test_a_place_that_is_not_closed_does_not_swallow_the_next():
    with pytest.raises(ZsadError, match="0 times"):
        notebook_map.fill("<!-- results:a -->\n<!-- results:b -->\n<!-- /results -->", "a", "x")


def write_notebook(
    file: Path, seconds: float | None = None, claim: str = "**Claim.** One sentence. Another one."
) -> None:
    """A notebook with its first cell; with `seconds`, the result of one that has run to its end as well."""
    cell = {
        "cell_type": "markdown",
        "source": ["# 07 · Look twice\n", "\n", claim, "\n\n**Teaches** `a.py`\n\n**Needs** `make ablate GRID=gate`"],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"cells": [cell], "metadata": {}}), encoding="utf-8")
    if seconds:
        (file.with_suffix("")).mkdir()
        (file.with_suffix("") / "result.json").write_text(json.dumps({"seconds": seconds}))


def test_the_map_of_notebooks_has_claims_and_measured_minutes(run_home):
    def table() -> str:
        notebook_map.write(run_home)
        return page.read_text(encoding="utf-8")

    write_notebook(run_home / "notebooks" / "07_look.ipynb")
    page, place = run_home / "docs" / "notebooks.md", "<!-- results:notebooks -->\n<!-- /results -->"
    page.parent.mkdir()
    page.write_text(place, encoding="utf-8")
    start = run_home / "notebooks" / "00_start_here.ipynb"
    write_notebook(start, claim=f"**Claim.** First. {place}")
    row = "| [07 Look twice](../notebooks/07_look.ipynb), after `make ablate GRID=gate` | One sentence. |{} `a.py` |\n"
    write_notebook(run_home / "runs" / "demo" / "notebooks" / "07_look.ipynb")  # it failed before its last cell
    assert row.format("") in table()
    write_notebook(run_home / "runs" / "demo" / "notebooks" / "07_look.ipynb", seconds=93.0)
    write_notebook(run_home / "runs" / "smoke" / "notebooks" / "07_look.ipynb", seconds=2.0)
    write_notebook(run_home / "runs" / "smoke" / "notebooks" / "interactive.ipynb", seconds=2.0)  # not of the kit
    assert row.format(" < 0.1 | 1.6 |") in table()
    assert "interactive" not in (run_home / "docs" / "results" / "minutes.csv").read_text(encoding="utf-8")
    (run_home / "runs").rename(run_home / "gone")
    assert row.format(" < 0.1 | 1.6 |") in table(), "what was measured before stays"
    first = "".join(json.loads(start.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert "| [07 Look twice](07_look.ipynb), after `make ablate GRID=gate` | One sentence. | < 0.1 | 1.6 |\n" in first
    write_notebook(run_home / "notebooks" / "08_odd.ipynb", claim="no claim")
    with pytest.raises(ZsadError, match="08_odd.ipynb: its first cell needs"):
        notebook_map.write(run_home)
