"""The cost sheet: units times what one unit takes, counted where the data are."""

import pandas as pd
import pytest
import torch

from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones
from zsad_lib.files.manifest import COLUMNS, save_manifest
from zsad_lib.maintenance import cost
from zsad_lib.models import DPC, TimeSformer, build_clip
from zsad_lib.models.anomaly_clip_recipes import Recipe
from zsad_lib.models.scene import SceneEncoder
from zsad_lib.pipeline.run_step import run_folder

CLIP = dict(
    embed_dim=16,
    text_width=16,
    text_heads=2,
    text_layers=1,
    vision_layers=1,
    vision_width=32,
    vision_head_width=16,
    vision_image_size=32,
)


def test_units_are_counted_in_the_manifest_or_estimated(run_home):
    profile = get_profile("ucf_crime")
    estimated = cost.lengths(profile)
    assert not estimated.counted and estimated.frames == 128 * 3600 * 30 and estimated.videos == 950
    rows = [
        ("a", "train", "normal", 100),
        ("b", "train", "semantic", 1000),
        ("c", "test", "semantic", 10),
        ("d", "val", "normal", 1),
    ]
    table = pd.DataFrame(rows, columns=["video", "split", "family", "n_frames"])
    table = table.assign(**{name: "" for name in COLUMNS if name not in table})
    table = table.assign(path="v.mp4", set="main", fps=30.0)
    save_manifest(table, run_folder(profile) / "data")
    assert cost.lengths(profile) == cost.Lengths(1111, 111, 1, True)
    with pytest.raises(ZsadError, match="make data PROFILE=avenue"):
        cost.lengths(get_profile("avenue"))


def test_the_sheet_multiplies_and_holds_every_stage(run_home, monkeypatch):
    monkeypatch.setattr(cost, "timed", lambda work: (work(), 1.0)[1])  # every call takes a second
    torch.manual_seed(0)
    small = Backbones(
        TimeSformer(32, 16, 8, 24, 1, 2).eval(), DPC("resnet10", 32, width=8).eval(),
        SceneEncoder((8, 8, 8, 16), (1, 1, 1, 1)),
        build_clip("ViT-B-32", **CLIP),
    )  # fmt: skip
    recipe = Recipe(1e-3, epochs=2, warmup=1, embed_dim=16, num_segments=8, segment_len=4, heads=2, half_batch=4)
    monkeypatch.setattr(cost, "recipe_of", lambda profile: recipe)
    table = cost.sheet(get_profile("ucf_crime", seeds="0,1"), small, build_clip("ViT-B-16", **CLIP)).set_index("step")
    assert list(table.index) == ["data", "features", "train", "frame_features", "weak_train"]
    assert (table.hours * 3600).tolist() == pytest.approx((table.units * table.seconds_per_unit).tolist())
    assert table.units["features"] == pytest.approx(table.units["data"] / 3)  # every third frame is seen
    assert table.units["train"] == 2000 * 2 * 2 and table.units["weak_train"] == 2 * (950 // 4) * 2 * 2
    assert table.disk_gb["frame_features"] == pytest.approx(table.units["frame_features"] * 16 * 4 / 1e9)
    assert table.seconds_per_unit["train"] == 1 and table.units_from["data"] == "estimated"


def test_stand_ins_need_no_sheet(run_home, capsys):
    assert main(["cost", "--profile", "demo"]) == 2 and "ask for ucf_crime" in capsys.readouterr().err
