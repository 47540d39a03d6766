"""Multiple-instance learning: sampling, schedule, resuming, and that a planted anomaly is found."""

import dataclasses

import numpy as np
import pytest
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import train as weak
from zsad_lib.models import anomaly_clip_recipes as recipes
from zsad_lib.models import build_clip
from zsad_lib.models.anomaly_clip import FrameModel

NAMES = ["fire", "normal", "fight"]
RECIPE = recipes.Recipe(
    lr=5e-3,
    epochs=30,
    warmup=1,
    embed_dim=16,
    num_segments=8,
    segment_len=4,
    num_context_tokens=2,
    heads=2,
    half_batch=4,
)


@pytest.mark.parametrize("length", [1, 5, 32, 33, 500])
def test_segments_cover_the_video_in_order(length):
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = weak.segment_frames(length, 8, 4, rng).reshape(8, 4)
        assert frames.min() >= 0 and frames.max() < length
        assert ((frames[:, 1:] - frames[:, :-1]) % length == 1 % length).all()  # consecutive, round and round
        if length >= 32:
            part = length / 8
            assert all(i * part - 1 < frames[i, 0] and frames[i, -1] < (i + 1) * part for i in range(8))


def test_an_epoch_sees_every_video_of_the_longer_list():
    plan = weak.batches(10, 25, 5, np.random.default_rng(0))
    assert len(plan) == 5 and sorted(np.concatenate([n for _, n in plan])) == list(range(25))
    seen = np.bincount(np.concatenate([a for a, _ in plan]), minlength=10)
    assert seen.min() >= 2 and seen.max() <= 3


def test_schedule_warms_up_and_falls_to_nothing():
    rates = [weak.learning_rate(step, 10, RECIPE) for step in range(300)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10) and rates[10] == 1
    assert all(a >= b for a, b in zip(rates[10:], rates[11:])) and rates[-1] < 1e-3


def test_prototype_weighs_frames_not_videos():
    m = weak.normal_prototype([torch.zeros(3, 2), torch.ones(1, 2)])
    assert m.tolist() == [0.25, 0.25]


def planted(seed: int = 0):
    """Videos whose anomalies are a stretch of features pushed along their class's axis."""
    rng = np.random.default_rng(seed)
    features, labels, truth = {}, {}, {}
    for number in range(24):
        label = (0, 1, 2, 1)[number % 4]
        x, y = rng.normal(0, 0.3, (64, 16)) + np.linspace(0, 1, 16), np.zeros(64)
        if label != 1:
            start = int(rng.integers(8, 40))
            x[start : start + 16, label] += 3.0
            y[start : start + 16] = 1
        name = f"v{number:02d}"
        features[name], labels[name], truth[name] = torch.from_numpy(x).float(), label, y
    return features, labels, truth


def model(seed: int = 0, recipe: recipes.Recipe = RECIPE):
    torch.manual_seed(seed)
    clip = build_clip(
        "ViT-B-16", embed_dim=16, text_width=16, text_heads=2, text_layers=1,
        vision_image_size=32, vision_layers=1, vision_width=32, vision_head_width=16,
    )  # fmt: skip
    return recipes.build(clip, None, NAMES, "normal", recipe)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak")
    features, labels, _ = planted()
    return weak.train(model(), features, labels, RECIPE, 0, folder), folder


def test_a_planted_anomaly_is_found_and_named(trained):
    found = model()
    found.load_state_dict(load_weights(trained[0])[0])
    features, labels, truth = planted(seed=1)
    with torch.no_grad():
        scored = {video: found.eval().score(x) for video, x in features.items()}
    scores = torch.cat([scored[video].anomaly for video in features]).numpy()
    y = np.concatenate(list(truth.values())).astype(bool)
    assert (scores[y][:, None] > scores[~y]).mean() > 0.9
    named = [scored[v].class_probs[truth[v].astype(bool)].argmax(-1) == labels[v] for v in features if labels[v] != 1]
    assert torch.cat(named).float().mean() > 0.8


def test_an_interrupted_training_ends_with_equal_weights(tmp_path, monkeypatch):
    (features, labels, _), recipe = planted(), dataclasses.replace(RECIPE, epochs=7)
    whole = load_weights(weak.train(model(), features, labels, recipe, 0, tmp_path / "whole"))[1]
    real, calls = weak.anomaly_clip_loss, []

    def stops(*arguments, **switches):
        calls.append(1)
        if len(calls) > 16:  # three steps per epoch, a checkpoint after five
            raise KeyboardInterrupt
        return real(*arguments, **switches)

    cut = tmp_path / "cut"
    monkeypatch.setattr(weak, "anomaly_clip_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        weak.train(model(), features, labels, recipe, 0, cut)
    assert (cut / "checkpoint.pt").exists()
    monkeypatch.setattr(weak, "anomaly_clip_loss", lambda *a, **switches: calls.append(2) or real(*a, **switches))
    again = load_weights(weak.train(model(), features, labels, recipe, 0, cut))[1]
    assert again["sha256"] == whole["sha256"] and not (cut / "checkpoint.pt").exists()
    assert calls.count(2) == 6  # the last two epochs alone


def test_a_finished_training_is_kept_and_another_recipe_is_not(trained, monkeypatch):
    features, labels, _ = planted()
    monkeypatch.setattr(weak, "batches", None)
    assert weak.train(model(), features, labels, RECIPE, 0, trained[1]) == trained[0]
    with pytest.raises(TypeError):
        weak.train(model(), features, labels, dataclasses.replace(RECIPE, lr=1e-3), 0, trained[1])


def test_both_kinds_of_video_are_needed(tmp_path):
    features, labels, _ = planted()
    normal = {video: x for video, x in features.items() if labels[video] == 1}
    with pytest.raises(ZsadError, match="12 normal and 0 abnormal videos"):
        weak.train(model(), normal, labels, RECIPE, 0, tmp_path)


SWITCHES = dict(
    learned=False, temporal=False, centred=False, directions_from_normal=False, without=("smooth",),
    concat_similarity=True,
    across_videos=True, unclamped=True, resorted=True, topk=1, segment_dropout=0.0,
)  # fmt: skip


def test_every_switch_changes_the_training_as_it_says(tmp_path):
    features, labels, _ = planted()
    base = dataclasses.replace(RECIPE, epochs=1)
    untrained, found = model(recipe=base), {}
    for name, value in {"": None, **SWITCHES}.items():
        recipe = dataclasses.replace(base, **({name: value} if name else {}))
        own = model(recipe=recipe)
        weak.train(own, features, labels, recipe, 0, tmp_path / f"with {name}")
        found[name] = own
    assert isinstance(found["temporal"].temporal, FrameModel) and found["centred"].normal_prototype.abs().sum() == 0
    assert torch.equal(found["learned"].text.context, untrained.text.context)
    assert found["resorted"].class_names == sorted(NAMES) != found[""].class_names
    assert found["resorted"].normal_id == found[""].normal_id and found["topk"].bottomk == 1
    weights = lambda one: one.temporal.state_dict()[
        "norm.weight" if one is not found["temporal"] else "layers.2.weight"
    ]
    for name in SWITCHES:
        same = torch.equal(weights(found[name]), weights(found[""]))
        assert same is (name == "unclamped"), name  # no probability is below 1e-8 here: then nothing is clamped


def test_other_features_under_the_same_names_are_trained_again(tmp_path):
    (features, labels, _), recipe = planted(), dataclasses.replace(RECIPE, epochs=1)
    train = lambda x: load_weights(weak.train(model(recipe=recipe), x, labels, recipe, 0, tmp_path))[1]["sha256"]
    assert train(features) != train({video: x + 1 for video, x in features.items()})


def test_top_and_bottom_segments_of_the_stand_in_differ():
    """Of the segments that a step does not leave out, most steps have enough for both ends."""
    recipe, steps = recipes.STAND_IN, 2000
    kept = torch.rand(steps, recipe.num_segments, generator=torch.Generator().manual_seed(0)) >= recipe.segment_dropout
    assert (kept.sum(1) >= 2 * recipe.topk).float().mean() > 0.9
