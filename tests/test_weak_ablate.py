"""The grid of AnomalyCLIP: every row is trained with its change and no other, and the table says what it changed."""

import dataclasses

import pandas as pd
import pytest

from zsad_lib.ablations import engine, grids
from zsad_lib.ablations.grids import ANOMALY_CLIP
from zsad_lib.ablations.run import ablate, code_of_grid
from zsad_lib.files import paths
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import train
from zsad_lib.models.anomaly_clip_recipes import STAND_IN

ROWS = [row for row in ANOMALY_CLIP if row.name in ("anomaly_clip", "no_temporal", "published_order")]


@pytest.fixture(scope="module")
def grid(weak_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grids.GRIDS, "anomaly_clip", lambda: ROWS)
        yield weak_run, ablate(["anomaly_clip"], weak_run[0])["anomaly_clip"]


def test_every_row_has_its_own_recipe():
    usual, names = STAND_IN, [row.name for row in ANOMALY_CLIP]
    changed = [dataclasses.replace(usual, **row.change) for row in ANOMALY_CLIP]
    assert len(set(changed)) == len(changed) == len(set(names)) and changed[0] == usual
    assert all(row.control == ("" if row.name == names[0] else names[0]) for row in ANOMALY_CLIP)


def test_each_row_is_trained_as_it_says(grid):
    (_, folder), _ = grid
    for row in ROWS:
        recipe = load_weights(folder / "ablation" / "anomaly_clip" / row.name / "0" / train.FILE)[1]["recipe"]
        assert {name: recipe[name] for name in row.change} == row.change


def test_the_whole_method_and_mil_are_those_of_the_run(grid):
    (_, folder), target = grid
    table, detection = pd.read_csv(target), pd.read_csv(folder / "tables" / "detection.csv")
    for variant, method in (("anomaly_clip", "anomaly_clip"), ("no_temporal", "mil")):
        for metric in ("clip_auc", "micro_auc", "mauc"):
            row = table[
                (table.variant == variant) & (table.metric == metric) & table.group.eq("all") & table.family.eq("all")
            ]
            own = detection[
                (detection.method == method) & detection.variant.eq("raw") & (detection.metric == metric)
                & detection.group.eq("all") & detection.family.eq("all")
            ]  # fmt: skip
            assert row.value.item() == pytest.approx(own.value.item(), abs=1e-5), (variant, metric)
    gaps = table[(table.metric == "micro_auc") & table.group.eq("all") & table.family.eq("all")].set_index("variant")
    expected = gaps.value["no_temporal"] - gaps.value["anomaly_clip"]
    assert gaps.delta["no_temporal"] == pytest.approx(expected) and pd.isna(gaps.delta["anomaly_clip"])


def test_a_second_run_trains_and_evaluates_nothing(grid, monkeypatch):
    (profile, folder), target = grid
    stamp, before = folder / "ablation" / "made_anomaly_clip.json", target.stat().st_mtime_ns
    made = paths.read_json(stamp, "key", "files", "git", "date", "code")
    monkeypatch.setattr(train, "batches", None)
    monkeypatch.setattr(engine, "tabulate", None)
    assert ablate(["anomaly_clip"], profile) == {"anomaly_clip": target} and target.stat().st_mtime_ns == before
    assert made["code"] == code_of_grid("anomaly_clip") and paths.read_json(stamp) == made
    paths.write_json(stamp, {name: made[name] for name in ("key", "files")})  # as an earlier revision wrote it
    ablate(["anomaly_clip"], profile)
    assert "code" not in paths.read_json(stamp), "what is found finished was not made by this code"
