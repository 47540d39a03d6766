"""The weakly supervised rows of a run: data, scores, probabilities and tables; and that no test label reaches
training."""

import numpy as np
import pandas as pd
import pytest
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import read_classes, write_classes
from zsad_lib.files.manifest import load_manifest, save_manifest
from zsad_lib.files.paths import read_json
from zsad_lib.files.score_files import read_archive, read_series
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import score as weak_score
from zsad_lib.methods.anomaly_clip import train as weak
from zsad_lib.methods.context_aware.training_windows import training_rows

METHODS = (*weak.TRAINED, weak_score.ZERO_SHOT)


def test_lists_are_apart_and_hold_no_spans_in_training(weak_run):
    _, folder = weak_run
    normal_only, weakly = load_manifest(folder / "data"), load_manifest(folder / "weak_data")
    assert set(normal_only[normal_only.split == "train"].family) == {"normal"}
    train = weakly[weakly.split == "train"]
    assert set(train.family) == {"normal", "semantic", "temporal", "contextual"}
    assert (train.spans == "").all() and (train.caption == "").all()
    assert set(train.site).isdisjoint(weakly[weakly.split != "train"].site)
    assert set(weakly[weakly.split == "train"].action) <= set(read_classes(folder / "weak_data" / "classes.csv"))
    assert not set(train[train.family != "normal"].video) & set(normal_only.video)


def test_without_streams_clips_and_their_captions_are_learned_from(weak_run):
    profile, folder = weak_run
    rows = training_rows(folder, profile.stride)
    assert not (folder / "data" / "captions.csv").exists() and set(rows.set) == {"main"}
    assert not any("calibrated" in home.name for home in (folder / "scores").iterdir())


def test_every_test_video_has_scores_and_probabilities(weak_run):
    _, folder = weak_run
    table = load_manifest(folder / "weak_data").query("split == 'test'").set_index("video")
    for method in METHODS:
        home = folder / "scores" / method / "0"
        classes, windows = read_archive(home / "classes.npz"), read_archive(home / "windows.npz")
        assert set(classes) == set(windows) == set(table.index)
        for video, probabilities in classes.items():
            assert probabilities.shape == (table.n_frames[video], 6)
            assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
            score = read_series(home / f"{video}.csv", "score")
            assert np.allclose(score, 1 - probabilities[:, 5], atol=1e-5)
            assert np.allclose(windows[video][0], score[:30].mean(), atol=1e-5)
        assert read_archive(home / "normal.npz").keys().isdisjoint(classes)


def test_tables_hold_both_kinds_of_supervision(weak_run):
    _, folder = weak_run
    table = pd.read_csv(folder / "tables" / "comparison.csv")
    told = dict(zip(table.method, table.learned_from))
    assert told["anomaly_clip"] == told["mil"] == "class of each training video" != told["full"]
    rows = table[(table.method == "anomaly_clip") & (table.group == "all") & (table.family == "all")]
    assert {"clip_auc", "micro_auc", "ap", "mauc", "map", "far", "recall"} == set(rows.metric)
    detection = pd.read_csv(folder / "tables" / "detection.csv")
    assert "class:fighting" in set(detection[detection.method == "mil"].group)
    gaps = pd.read_csv(folder / "tables" / "differences.csv")
    assert ("anomaly_clip", "clip_prompts") in set(zip(gaps["first"], gaps["second"]))
    text = (folder / "tables" / "comparison.md").read_text()
    assert "class of each training video" in text and "anomaly_clip - clip_prompts" in text
    shares = pd.read_csv(folder / "tables" / "confusion_anomaly_clip.csv", index_col="true")
    assert list(shares.columns) == list(shares.index) and shares.loc["normal"].sum() == pytest.approx(1, abs=1e-4)


def test_poisoned_test_labels_change_no_weights(weak_run, monkeypatch):
    profile, folder = weak_run
    trained = folder / "weak_train" / "anomaly_clip" / "0" / weak.FILE
    before = load_weights(trained)[1]["sha256"]
    table = load_manifest(folder / "weak_data")
    poisoned = table.assign(action=table.action.where(table.split == "train", "fire"))
    poisoned["spans"] = poisoned.spans.where(poisoned.split == "train", "0-3")
    original = (folder / "weak_data" / "manifest.csv").read_bytes()
    save_manifest(poisoned, folder / "weak_data")
    trained.unlink()
    weak._fit(profile, "anomaly_clip", 0, folder / "weak_train")
    (folder / "weak_data" / "manifest.csv").write_bytes(original)
    assert load_weights(trained)[1]["sha256"] == before


def test_a_model_of_other_classes_is_refused(weak_run):
    profile, folder = weak_run
    file = folder / "weak_data" / "classes.csv"
    original, classes = file.read_text(), read_classes(file)
    write_classes(file, [classes[2], *classes[:2], *classes[3:]])
    with pytest.raises(ZsadError, match="the checkpoint's classes are fighting, .* this model's fire, fighting"):
        weak_score.load_model(folder / "weak_train" / "anomaly_clip" / "0" / weak.FILE, profile, folder)
    file.write_text(original)
    assert read_json(folder / "weak_train" / "result.json")["metrics"]["mil, seed 0, last loss"] > 0


def test_prompt_probabilities_by_hand():
    prompts = torch.eye(3)
    found = weak_score.prompt_probabilities(torch.tensor([[2.0, 0, 0]]), prompts, torch.tensor([2, 0, 0]), 4, scale=3.0)
    mass = np.exp([3.0, 0, 0])
    assert found[0].tolist() == pytest.approx([2 / mass.sum(), 0, mass[0] / mass.sum(), 0], abs=1e-6)
