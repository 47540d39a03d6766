"""Both methods on a tiny UCF-Crime: from videos, from published features, and with the classes of the published
backbones."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from official_files import camera_models

from data_prep import ucf_crime
from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import backbones, extraction, published_weights
from zsad_lib.files import clip_feature_files
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import write_video
from zsad_lib.methods.anomaly_clip import train as weak
from zsad_lib.methods.context_aware import scorer, train
from zsad_lib.methods.context_aware.scores import CAUSAL, METHODS
from zsad_lib.methods.context_aware.training_windows import training_rows
from zsad_lib.models import anomaly_clip_recipes as recipes
from zsad_lib.own_video.scoring import score_video
from zsad_lib.pipeline.run_step import ensure, run_folder

FRAMES, STRIDE = 81, 2
TRAIN = [f"Arson/Arson{i:03d}" for i in range(4)] + [f"Abuse/Abuse{i:03d}" for i in range(4)]
TRAIN += [f"Training_Normal_Videos_Anomaly/Normal_Videos{i:03d}" for i in range(20)]
TEST = ["Arson/Arson101", "Abuse/Abuse101", *(f"Testing_Normal_Videos_Anomaly/Normal_Videos_{i}" for i in (900, 901))]
COUNTS = {"official": {"train": len(TRAIN), "test": len(TEST)}}


def footage(number: int, event: bool):
    rng = np.random.default_rng(number)
    scene = rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
    for frame in range(FRAMES):
        shown = np.roll(scene, frame // 2, axis=1).copy()
        if event and 30 <= frame < 60:
            shown[10:40, 10:40] = 255 * (frame % 2)
        yield shown


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    root = tmp_path_factory.mktemp("download")
    for number, name in enumerate(TRAIN + TEST):
        path = root / f"{name}_x264.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, footage(number, "Normal" not in name), fps=20)
    for part, names in (("Train", TRAIN), ("Test", TEST)):
        (root / f"Anomaly_{part}.txt").write_text("".join(f"{name}_x264.mp4\n" for name in names))
    said = {
        "timestamps": [[0, 1.5], [1, 4.0], [3.9, 4.0]],
        "sentences": ["people walk", "people stand", "a car drives"],
    }
    normal = [name.rpartition("/")[2] for name in TRAIN if "Normal" in name]
    for part, names in (("Train", normal[:15]), ("Val", normal[15:]), ("Test", [])):
        (root / f"UCFCrime_{part}.json").write_text(json.dumps({f"{name}_x264": said for name in names}))
    spans = [f"{n.rpartition('/')[2]}_x264.mp4  {n.partition('/')[0]}  30  59  -1  -1" for n in TEST[:2]]
    spans += [f"{n.rpartition('/')[2]}_x264.mp4  Normal  -1  -1  -1  -1" for n in TEST[2:]]
    (root / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").write_text("\n".join(spans) + "\n")
    return root


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ucf_crime, "DATA", dataclasses.replace(ucf_crime.DATA, counts=COUNTS))
        yield patch


SIZES = dict(stride=STRIDE, seeds="0", jobs=1, train_steps=4, weak_epochs=2, bootstrap_draws=20, mixed_precision="no")


@pytest.fixture(scope="module")
def run(download, patch, tmp_path_factory):
    patch.setenv("ZSAD_HOME", str(tmp_path_factory.mktemp("home")))
    profile = get_profile("ucf_crime", data_root=str(download), backbones="stand_in", **SIZES)
    ensure("tables", profile)
    return profile, run_folder(profile)


def test_both_methods_stand_in_one_table(run):
    _, folder = run
    table = pd.read_csv(folder / "tables" / "detection.csv")
    assert {"full", "paper", "anomaly_clip", "mil", "clip_prompts", "motion_floor", "video_label"} <= set(table.method)
    rows = table[(table.metric == "micro_auc") & (table.group == "all")]
    assert set(rows.n_videos) == {4} and set(rows.n_frames) == {4 * FRAMES}
    assert "official" in (folder / "tables" / "detection.md").read_text()
    assert "class:Arson" in set(table.group)


def test_every_frame_has_a_score_and_frames_between_seen_ones_keep_it(run):
    _, folder = run
    found = pd.read_csv(folder / "scores" / "full" / "0" / "Arson101_x264.csv").score.to_numpy()
    assert len(found) == FRAMES and np.isfinite(found).all()
    assert (found[:-1:STRIDE] == found[1::STRIDE]).all() and len(set(found)) > 1


def test_captions_speak_of_the_windows_inside_their_time(run):
    _, folder = run
    rows = training_rows(folder, STRIDE)
    assert set(rows.family) == {"normal"} and set(rows.split) == {"train"}
    by_caption = {row.caption: row.windows.tolist() for row in rows[rows.video == rows.video.iloc[0]].itertuples()}
    # 20 frames per second, every second one seen: windows of 60 frames start every 10 frames; 3 in a video of 81 frames
    assert by_caption == {"people walk": [0], "people stand": [2], "a car drives": [2]}


def test_machines_share_the_features_and_the_step_finds_them(run, monkeypatch, download, tmp_path, capsys):
    profile, folder = run
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    settings = [f"DATA_ROOT={download}", "backbones=stand_in", *(f"{name}={value}" for name, value in SIZES.items())]
    share = lambda shard: main(["step", "--shard", shard, "--profile", "ucf_crime", *settings, "features"])
    assert share("0/2") == 2 and "step features needs data first" in capsys.readouterr().err
    ensure("data", profile)
    assert share("2/2") == 2 and "give i/n" in capsys.readouterr().err
    assert [share("0/2"), share("1/2")] == [0, 0]
    assert "12 videos computed" in capsys.readouterr().out  # 24 are normal or to be tested
    assert ensure("features", profile)["metrics"] == {"videos": 24, "computed": 0}
    assert main(["step", "--shard", "0/2", "--profile", "ucf_crime", *settings, "train"]) == 2
    monkeypatch.setenv("ZSAD_HOME", str(folder.parents[1]))


def test_published_features_stand_for_videos(run, download, monkeypatch, tmp_path):
    profile, folder = run
    table = load_manifest(folder / "weak_data")
    tree = tmp_path / "tree"
    (tree / "clip_features" / "all").mkdir(parents=True)
    for path in download.glob("*.*"):
        (tree / path.name).write_bytes(path.read_bytes())
    for video in table.video:
        own = clip_feature_files.load_clip_features(folder / "frame_features" / f"{video}.safetensors")
        np.save(tree / "clip_features" / "all" / f"{video}.npy", own.numpy())
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path / "home"))
    other = dataclasses.replace(profile, data_root=str(tree))
    ensure("weak_score", other)
    assert not list((run_folder(other) / "frame_features").glob("*.safetensors"))
    for method in ("anomaly_clip", "clip_prompts"):
        first, second = (
            pd.read_csv(home / "scores" / method / "0" / "Abuse101_x264.csv") for home in (folder, run_folder(other))
        )
        pd.testing.assert_series_equal(first.score, second.score)
    with pytest.raises(ZsadError, match="not a readable video"):  # the other method needs pictures
        ensure("features", other)


MINIATURE = """
import dataclasses
from types import SimpleNamespace
from official_files import camera_models
from data_prep import ucf_crime
from zsad_lib.features import backbones, published_weights
ucf_crime.DATA = dataclasses.replace(ucf_crime.DATA, counts={counts})
published_weights.fetch = lambda name, offline=False: name
published_weights.load_published = lambda name, path: (camera_models(name, 32), "a report")
published_weights.known_sha256 = lambda name: name
published_weights.is_there = lambda name: True
detector = SimpleNamespace(
    dpc=camera_models("dpc"), video_head=backbones.LastPart(16), video_dim=24, scene_dim=16, text_dim=16, grid=(2, 2)
)
backbones.KINDS["official"] = backbones.KINDS["official"]._replace(outline=lambda: detector)
"""


@pytest.mark.thorough
def test_every_notebook_of_the_profile_runs_on_the_published_streams(download, tmp_path):
    """In miniature: elsewhere notebooks see the stand-ins alone, whose detector has other shapes."""
    (tmp_path / "miniature.py").write_text(MINIATURE.format(counts=COUNTS))
    here = Path(__file__).parent
    listed = re.search(r"^NOTEBOOKS_ucf_crime := (.*)", (here.parent / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    books = [str(here.parent / "notebooks" / f"{name}.ipynb") for name in listed.split()]
    settings = [f"DATA_ROOT={download}", *(f"{name}={value}" for name, value in SIZES.items())]
    environment = {
        **os.environ,
        "ZSAD_HOME": str(tmp_path / "home"),
        "ZSAD_EXTENSIONS": "miniature",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(here), str(here.parent)]),
    }
    command = [sys.executable, "-m", "zsad_lib", "run", "--profile", "ucf_crime", *settings, *books]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert len(books) > 3 and done.returncode == 0, done.stderr[-2000:]


def test_published_recipes_have_their_own_length():
    recipe = weak.recipe_of(get_profile("xd_violence"))
    assert recipe == recipes.PUBLISHED["xd_violence"]
    assert weak.recipe_of(get_profile("xd_violence", weak_epochs=3)).epochs == 3
    assert weak.recipe_of(get_profile("demo")).epochs == get_profile("demo").weak_epochs


def test_published_streams_measure_their_norm_statistics_and_run_to_the_scores(download, patch, monkeypatch, tmp_path):
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    monkeypatch.setattr(published_weights, "fetch", lambda name, offline: name)
    monkeypatch.setattr(published_weights, "load_published", lambda name, path: (camera_models(name, 32), "a report"))
    monkeypatch.setattr(published_weights, "known_sha256", lambda name: name)
    widths = dict(video_dim=24, scene_dim=16, text_dim=16, grid=(2, 2))
    outline = SimpleNamespace(dpc=camera_models("dpc"), video_head=backbones.LastPart(16), **widths)
    for module in (train, scorer):
        monkeypatch.setattr(module, "outline", lambda kind: outline)
    profile = get_profile("ucf_crime", data_root=str(download), **SIZES)
    with pytest.raises(ZsadError, match="no norm statistics yet"):
        extraction.extractor(profile).windows(torch.zeros(61, 32, 32, 3, dtype=torch.uint8))
    ensure("score", profile)
    found = extraction.frozen_streams(profile)
    assert found.image_tower and not found.differences and found.size == (32, 32) and found.grid == (2, 2)
    assert found.dpc.backbone.bn1.num_batches_tracked == len(
        load_manifest(run_folder(profile) / "data").query("split == 'train' and family == 'normal'")
    )
    assert backbones.weight_hashes(profile)[:4] == list(backbones.PUBLISHED)
    made = {path.name for path in (run_folder(profile) / "scores").iterdir()}
    assert made == {*METHODS, *(f"{name}@causal" for name in CAUSAL)}  # every term, the memories too
    score = pd.read_csv(run_folder(profile) / "scores" / "full" / "0" / "Abuse101_x264.csv").score
    assert len(score) == FRAMES and np.isfinite(score).all()
    monkeypatch.setattr(published_weights, "is_there", lambda name: True)
    table = score_video(download / "Arson" / "Arson000_x264.mp4", run="ucf_crime")  # a single video on its streams
    assert {"s_sem", "s_pred", "s_mem", "s_mem_global"} < set(table) and np.isfinite(table.score).all()
