"""The front page's numbers come from run folders, and what has not been run is left alone."""

import json
from pathlib import Path

import pandas as pd
import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.maintenance import front_page, notebook_map
from zsad_lib.results import tables

SHOWN = ("picture", "demo", "ped2", "notebooks")
README = "\n".join(f"<!-- results:{name} -->\nold {name}\n<!-- /results -->" for name in SHOWN)


def make_run(home: Path, name: str, metrics: list[str], changed: bool = False) -> None:
    rows = [
        dict(
            method=method, variant="raw", metric=metric, level=metric.split("_")[0], group="all", family=family,
            value=value, low=value - 0.01, high=value + 0.01, n_videos=9, n_frames=90, prevalence=0.1, seeds=2,
        )
        for metric in metrics
        for family in ("all", "semantic")
        for method, value in (("full", 0.912), ("random", 0.5))
    ]  # fmt: skip
    run = home / "runs" / name
    for folder in ("evaluate", "tables", "figures"):
        (run / folder).mkdir(parents=True)
    table = pd.DataFrame(rows)
    table.to_csv(run / "tables" / "detection.csv", index=False)
    tables.save(table, run / "tables" / "detection", "Toy")
    result = {"git": {"commit": "0123456789abcdef", "changed": changed}, "profile": {"seeds": [0, 1]}}
    (run / "evaluate" / "result.json").write_text(json.dumps({**result, "versions": {"torch": "9.9"}}))
    (run / "figures" / f"{front_page.SHOWN[name][1]}.png").write_bytes(b"picture of " + name.encode())


def test_both_runs_reach_readme_and_docs(run_home, capsys):
    (run_home / "README.md").write_text(README)
    make_run(run_home, "demo", ["clip_auc", "micro_auc"])
    make_run(run_home, "ped2", ["micro_auc"], changed=True)
    assert main(["showcase"]) == 0
    assert capsys.readouterr().out == "demo: shown\nped2: shown\nablations: not run; make ablate\n"
    text, results = (run_home / "README.md").read_text(), run_home / "docs" / "results"
    assert "old" not in text and text.count("<!-- /results -->") == len(SHOWN)
    picture, demo, ped2 = text.split("<!-- /results -->")[:3]
    assert "(docs/results/headline.png)" in picture and (results / "ped2.png").read_bytes() == b"picture of ped2"
    assert "| full | 0.912 [0.902, 0.922] | 0.912 [0.902, 0.922] |" in " ".join(demo.split())
    assert "Clip AUC, semantic" in demo and "Micro AUC" in demo and "content-free floors" in demo
    assert "Run `demo`, revision 0123456789, torch 9.9. Clip level" in demo and "9 videos, 90 frames" in demo
    assert "Mean over 2 seeds" in demo
    assert "revision" not in ped2 and "Micro AUC" in ped2  # the working copy had changes: no revision to name
    assert (results / "demo.md").read_text().startswith("Toy.")
    assert main(["showcase"]) == 0 and (run_home / "README.md").read_text() == text


def test_missing_run_leaves_its_place_alone(run_home, capsys):
    (run_home / "README.md").write_text(README)
    make_run(run_home, "demo", ["clip_auc", "micro_auc"])
    assert main(["showcase"]) == 0
    assert "ped2: not run; make reproduce PROFILE=ped2" in capsys.readouterr().out
    text = (run_home / "README.md").read_text()
    assert "old ped2" in text and "(docs/results/headline.png)" in text


def test_nothing_run_an_incomplete_run_and_a_readme_without_places(run_home, capsys):
    (run_home / "README.md").write_text("# no place to fill")
    assert main(["showcase"]) == 2 and "no run to show" in capsys.readouterr().err
    make_run(run_home, "demo", ["clip_auc", "micro_auc"])
    assert main(["showcase"]) == 2 and "results:demo" in capsys.readouterr().err
    assert (run_home / "README.md").read_text() == "# no place to fill"
    (run_home / "runs" / "demo" / "figures" / "headline.png").unlink()
    with pytest.raises(ZsadError, match="headline.png: missing"):
        front_page.show(run_home)


def test_a_place_that_is_not_closed_does_not_swallow_the_next():
    with pytest.raises(ZsadError, match="0 times"):
        notebook_map.fill("<!-- results:a -->\n<!-- results:b -->\n<!-- /results -->", "a", "x")


def write_notebook(
    file: Path, seconds: float | None = None, claim: str = "**Claim.** One sentence. Another one."
) -> None:
    """A notebook with its first cell; with `seconds`, one that has been executed to its end."""
    cell = {
        "cell_type": "markdown",
        "source": ["# 07 · Look twice\n", "\n", claim, "\n\n**Needs** `make ablate GRID=gate`"],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"cells": [cell], "metadata": {"papermill": {"duration": seconds}}}), encoding="utf-8")
    if seconds:
        (file.with_suffix("")).mkdir()
        (file.with_suffix("") / "result.json").write_text("{}")


def test_the_map_of_notebooks_has_claims_and_measured_minutes(run_home):
    executed = run_home / "runs" / "demo" / "notebooks" / "07_look.ipynb"
    write_notebook(run_home / "notebooks" / "07_look.ipynb")
    row = "| [07 Look twice](notebooks/07_look.ipynb), after `make ablate GRID=gate` | One sentence. |{}\n"
    write_notebook(executed)  # it failed before its last cell
    assert row.format("") in notebook_map.update(run_home)
    write_notebook(executed, seconds=93.0)
    assert row.format(" 1.6 |") in notebook_map.update(run_home)
    (run_home / "runs").rename(run_home / "gone")
    table = notebook_map.update(run_home)
    assert row.format(" 1.6 |") in table and "`demo`" in table and "`smoke`" not in table, (
        "what was measured before stays"
    )
    write_notebook(run_home / "notebooks" / "08_odd.ipynb", claim="no claim")
    with pytest.raises(ZsadError, match="08_odd.ipynb: its first cell needs"):
        notebook_map.update(run_home)
