"""docs/extend.md does what it says: its blocks run in order, as a reader would paste them."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from zsad_lib import config, extensions
from zsad_lib.ablations import grids
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import backbones
from zsad_lib.features.cache import cache_folder
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware import train
from zsad_lib.models import gates
from zsad_lib.pipeline import fingerprints, steps
from zsad_lib.pipeline.run_step import run_folder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extend.md"
CHAPTERS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
TABLES = (gates.GATES, grids.GRIDS, backbones.KINDS, config.PROFILES, steps.STEPS)


@pytest.fixture(scope="module", autouse=True)
def put_back():
    """The kit's tables as they were before, for all other tests."""
    before = [dict(table) for table in TABLES]
    yield
    for table, content in zip(TABLES, before):
        table.clear()
        table.update(content)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Runs a chapter's blocks in the folder of the reader; later chapters see the names of earlier ones."""
    folder, names = tmp_path_factory.mktemp("reader"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)

        def run(chapter: str) -> dict:
            for block in re.findall(r"^```python\n(.*?)^```", CHAPTERS[chapter], re.MULTILINE | re.DOTALL):
                if file := re.match(r"# (\w+\.py)\n", block):
                    (folder / file[1]).write_text(block, encoding="utf-8")
                    importlib.invalidate_caches()
                else:
                    exec(compile(block, f"docs/extend.md, {chapter}", "exec"), names)
            return names

        yield run
    for name in ("masks", "colours", "streets"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def smoke(tiny_run):
    """The profile smoke is the tiny run, its features and all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(tiny_run[1].parents[1]))
        patch.setitem(config.PROFILES, "smoke", tiny_run[0])
        yield tiny_run[1]
    for file in (*tiny_run[1].glob("*/ablation_masks*"), *tiny_run[1].glob("ablation/made_masks*")):
        file.unlink()


def test_a_gate_has_its_row_beside_its_control(page, smoke):
    names = page("A gate")
    assert (names["gaps"].std(0) > 1e-3).all(), "each scene sets the captions apart in a way of its own"
    clip = names["clip"].set_index(["variant", "family"])
    assert set(clip.index.get_level_values(0)) == {"none", "sigmoid_mask"}
    row = clip.loc[("sigmoid_mask", "contextual")]
    assert row.delta == pytest.approx(row.value - clip.value["none", "contextual"])
    trained = next(smoke.glob("ablation/trials/sigmoid_mask-swap/0/detector.safetensors"))
    assert "gate.rule.mask.weight" in load_weights(trained)[0]


def test_a_backbone_reaches_features_and_detector(page, smoke):
    names = page("A backbone")
    colours = get_profile("colours")
    assert names["features"].scene.shape[1] == 24 == names["detector"].context_projection.in_features
    assert cache_folder(colours) != cache_folder(get_profile("smoke")), "another kind, another cache"
    last = names["windows"].clip_and_block[-1, 1]
    assert torch.equal(names["windows"].scene[-1], names["features"].scene[last])
    with pytest.raises(ZsadError, match="windows without regions, .* train with readout='global'"):
        train.example_count(names["windows"]._replace(pairs=None), train.VARIANTS["full"])
    with pytest.raises(ZsadError, match="unknown kind of backbones 'colour'; did you mean 'colours'"):
        backbones.outline("colour")


def test_a_data_set_from_folder_to_table(page, run_home):
    names = page("A data set")
    manifest = names["manifest"].set_index("video")
    assert manifest.split.to_dict() == dict(monday="train", tuesday="train", friday="test", sunday="test")
    assert manifest.spans.to_dict() == dict(monday="", tuesday="", friday="", sunday="20-39")
    floors = pd.read_csv(run_folder(names["profile"]) / "floors.csv")
    assert {"random", "video_label"} <= set(floors.method)
    result = names["result"].set_index("metric")
    assert result.prevalence["micro_auc"] == pytest.approx(20 / 100) and result.value["micro_auc"] > 0.9


def test_another_process_knows_an_extension(run_home):
    (run_home / "mine.py").write_text(
        "from zsad_lib.config import PROFILES, Profile\nfrom zsad_lib.pipeline.steps import STEPS\n"
        "PROFILES['mine'] = Profile('mine', 'mine')\nSTEPS['mine'] = {'data': ('mine:prepare', ())}\n"
    )
    environment = os.environ | {"ZSAD_EXTENSIONS": "mine", "PYTHONPATH": os.pathsep.join([str(run_home), *sys.path])}
    command = [sys.executable, "-m", "zsad_lib", "status", "--profile", "mine"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("data: to run\n", "")


def test_an_extension_counts_where_it_may_be_used(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(extensions, "NAMES", ("mine",))
    assert extensions.sources() == {"mine": tmp_path / "mine"}
    monkeypatch.setitem(fingerprints.PACKAGES, "mine", tmp_path / "mine")
    before = {
        name: fingerprints.closure([name])
        for name in ("zsad_lib.methods.context_aware.train", "zsad_lib.evaluate.weighted_auc")
    }
    file.write_text("x = 2\n")
    after = {name: fingerprints.closure([name]) for name in before}
    changed = {
        m
        for m in after["zsad_lib.methods.context_aware.train"]
        if after["zsad_lib.methods.context_aware.train"][m] != before["zsad_lib.methods.context_aware.train"].get(m)
    }
    assert changed == {"mine"} and after["zsad_lib.evaluate.weighted_auc"] == before["zsad_lib.evaluate.weighted_auc"]


def test_an_extension_that_is_not_there_is_one_line(monkeypatch):
    for name in ("no_such_module", "no_such_package.module"):
        monkeypatch.setattr(extensions, "NAMES", (name,))
        with pytest.raises(SystemExit, match=f"^error: ZSAD_EXTENSIONS: no module '{name}'; add the folder"):
            extensions.load()
