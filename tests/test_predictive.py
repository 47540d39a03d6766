"""Predictive coding from scratch: pieces against slow references, resuming, causality, and the files of the steps."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.manifest import save_manifest
from zsad_lib.methods.predictive_coding import score
from zsad_lib.methods.predictive_coding import train as predictive
from zsad_lib.methods.predictive_coding.score import (
    at_frames,
    encode,
    ended_blocks,
    motion_floor,
    prediction_errors,
    score_predictive,
)
from zsad_lib.methods.predictive_coding.train import Recipe, build, cell_motion, choose_cells, load, normalise, train

TINY = Recipe(
    block_len=2,
    observed=2,
    pred_steps=2,
    width=4,
    strides=(2, 1, 1, 1, 2, 1),
    crop=(16, 24),
    batch=2,
    steps=20,
    learning_rate=3e-3,
    cells=48,
    memory=20,
    checkpoint_every=3,
)
SIZE = (24, 36)  # height, width
EMPTY = np.full(SIZE, 20.0, np.float32)


def walk(seed: int, n_frames: int = 24, speed: int = 1) -> np.ndarray:
    """A bright square that walks to and fro on grey ground, uint8 [T, H, W]."""
    frames = np.full((n_frames, *SIZE), 20, np.uint8)
    for t, frame in enumerate(frames):
        left = abs((seed * 7 + t * speed) % 56 - 28)
        frame[6 + seed : 12 + seed, left : left + 6] = 200
    return frames


@pytest.fixture
def clips():
    return {f"Train{i:03d}": walk(i) for i in range(3)}


@pytest.fixture
def model():
    torch.manual_seed(3)
    return build(TINY).eval()


def interrupt_after(monkeypatch, steps: int):
    """Ctrl-C in the middle of the step after so many."""
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def clip_or_stop(*args):
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return clip(*args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_or_stop)


def test_the_loss_falls(clips, tmp_path):
    train(clips, EMPTY, TINY, 0, tmp_path)
    loss = pd.read_csv(tmp_path / "history.csv")["loss"]
    assert len(loss) == TINY.steps
    assert loss.tail(5).mean() < loss.head(5).mean() - 0.3


def test_resuming_after_an_interruption_changes_nothing(clips, tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, steps=8)
    whole = train(clips, EMPTY, recipe, 0, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(clips, EMPTY, recipe, 0, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.pt").exists() and not (tmp_path / "cut" / "dpc.safetensors").exists()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)  # steps 4 to 8: the first three are not done again
        cut = train(clips, EMPTY, recipe, 0, tmp_path / "cut")
    assert cut.read_bytes() == whole.read_bytes()
    assert (tmp_path / "cut" / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()

    interrupt_after(monkeypatch, 0)
    assert train(clips, EMPTY, recipe, 0, tmp_path / "cut") == cut  # done: no step is taken
    with pytest.raises(KeyboardInterrupt):
        train(clips, EMPTY, recipe, 1, tmp_path / "cut")  # another seed is another training


def test_a_checkpoint_of_another_recipe_is_not_continued(clips, tmp_path, monkeypatch):
    short, long = (dataclasses.replace(TINY, steps=steps) for steps in (4, 5))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(clips, EMPTY, short, 0, tmp_path / "a")
    a, b = (train(clips, EMPTY, long, 0, tmp_path / name) for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_training_leaves_torch_as_it_was(clips, tmp_path):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    train(clips, EMPTY, dataclasses.replace(TINY, steps=1), 0, tmp_path)
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


def test_seeds_differ_and_too_short_clips_are_refused(clips, tmp_path):
    recipe = dataclasses.replace(TINY, steps=1)
    weights = [load(train(clips, EMPTY, recipe, seed, tmp_path / str(seed)))[0].state_dict() for seed in (0, 1)]
    assert not torch.equal(weights[0]["backbone.conv1.weight"], weights[1]["backbone.conv1.weight"])
    with pytest.raises(ZsadError, match="8 frames"):
        train({"short": walk(0, 7)}, EMPTY, recipe, 0, tmp_path)


def test_memory_holds_unit_features(clips, tmp_path):
    *_, median, memory, recipe = load(train(clips, EMPTY, dataclasses.replace(TINY, steps=1), 0, tmp_path))
    assert memory.shape == (20, 16) and torch.allclose(memory.norm(dim=1), torch.ones(20), atol=1e-5)
    assert np.array_equal(median, EMPTY) and recipe == dataclasses.replace(TINY, steps=1)


def test_cell_motion_is_the_mean_change_of_the_cell():
    blocks = torch.zeros(1, 3, 24, 24)
    blocks[0, 1, 12, 12] = 162.0  # up and down again: mean over two differences 162, over the 9 x 9 box 2
    motion = cell_motion(blocks, 8)
    assert motion.shape == (1, 3, 3) and motion[0, 1, 1] == pytest.approx(2.0)  # the box fills the middle cell
    assert motion[0, 0, 0] == pytest.approx(0.0)
    assert motion.sum() == pytest.approx(162 / 64)


def test_cells_that_move_are_drawn_more_often():
    moving = np.zeros(1000)
    moving[:150] = 1.0
    chosen = choose_cells(moving, 200, Recipe(), np.random.default_rng(0))
    assert len(set(chosen)) == 200 and (chosen[:150] < 150).all()
    assert (chosen[150:] >= 150).all()  # all others are taken
    assert len(choose_cells(moving[:10], 200, Recipe(), np.random.default_rng(0))) == 10


def test_the_loss_over_all_cells_by_hand(model):
    blocks = torch.randn(2, 4, 1, 2, 16, 24)
    every_cell = dataclasses.replace(TINY, cells=10**6)
    with torch.no_grad():
        loss = predictive.sample_loss(model, blocks, every_cell, np.random.default_rng(0))
        out = model(blocks)
    predicted, actual = (F.normalize(x.movedim(2, -1).flatten(0, 3)) for x in (out.predicted, out.actual))
    logits = predicted @ actual.T / TINY.temperature  # [2 samples * 2 steps * 24 places] squared
    assert loss.item() == pytest.approx(-logits.log_softmax(1).diagonal().mean().item(), rel=1e-4)


def test_samples_are_crops_of_the_clips(clips):
    recipe = dataclasses.replace(TINY, batch=40)
    x = predictive.draw_samples(clips, [("Train000", 0)], EMPTY, recipe, np.random.default_rng(0))
    assert x.shape == (40, 4, 1, 2, 16, 24)
    whole = normalise(clips["Train000"], EMPTY, TINY.scale)[:8]
    kinds = {tuple(axes): whole.flip(axes) for axes in ([], [0], [2], [0, 2])}
    found = {}
    for sample in x.flatten(1, 3).unbind():
        for axes, frames in kinds.items():
            crops = frames.unfold(1, 16, 1).unfold(2, 24, 1)  # [8, 9, 13, 16, 24]
            found[axes] = found.get(axes, False) | (crops == sample[:, None, None]).all((0, 3, 4)).any().item()
    assert all(found.values())  # as it is, backwards, mirrored, both


def test_prediction_errors_equal_the_windows_one_by_one(model):
    features = torch.randn(12, 16, 6, 9)
    found = prediction_errors(model, features, 2)
    per_block = [[] for _ in features]
    with torch.no_grad():
        for start in range(12 - 3):
            out = model.predict(features[None, start : start + 4])
            for step in range(2):
                error = 1 - F.cosine_similarity(out.predicted[0, step], out.actual[0, step], dim=0)
                per_block[start + 2 + step].append(error)
        last = model.predict(torch.cat([features[9:], features[:1]])[None])  # its second step lies beyond the end
        per_block[11].append(1 - F.cosine_similarity(last.predicted[0, 0], features[11], dim=0))
    assert found[:2].isnan().all()
    for block in range(2, 12):
        assert torch.allclose(found[block], torch.stack(per_block[block]).mean(0), atol=1e-5)


def test_block_values_at_frames():
    blocks = np.array([1.0, 3.0, 2.0])
    assert at_frames(blocks, 7, 2).tolist() == pytest.approx([1, 1.5, 2.5, 2.75, 2.25, 2, 2])
    assert np.array_equal(ended_blocks(blocks, 7, 2), [np.nan, 1, 1, 3, 3, 2, 2], equal_nan=True)
    assert at_frames(np.ones((1, 2, 2)), 3, 4).shape == (3, 2, 2)


def test_a_causal_score_does_not_know_the_future(model):
    frames = normalise(walk(1, 40), EMPTY, 40.0)
    memory = F.normalize(torch.randn(20, 16), dim=1)
    whole = score_predictive(model, memory, frames, TINY)
    changed = frames.clone()
    changed[21:] = torch.randn_like(changed[21:])
    for other in (changed, frames[:21]):
        parts = score_predictive(model, memory, other, TINY)
        causal = parts["predictive@causal"].frames[:21]
        assert np.isnan(causal[:5]).all() and np.isfinite(causal[5:]).all()  # two blocks observed, the third has ended
        assert np.allclose(causal, whole["predictive@causal"].frames[:21], rtol=1e-4, equal_nan=True)
        assert not np.allclose(parts["predictive"].frames[:21], whole["predictive"].frames[:21], rtol=1e-2)


def test_scores_are_maxima_of_their_maps(model):
    frames = normalise(walk(1, 41), EMPTY, 40.0)
    scored = score_predictive(model, F.normalize(torch.randn(20, 16), dim=1), frames, TINY)
    for method in ("predictive", "knn"):
        frame_scores, windows, maps = scored[method]
        assert frame_scores.shape == (41,) and windows.shape == (20,) and np.isfinite(frame_scores).all()
        assert maps.shape == (41, 6, 9) and maps.dtype == np.float16
        assert (maps.max((1, 2)) <= frame_scores * 1.001).all() and frame_scores.max() <= windows.max()
    assert scored["predictive@causal"].windows.shape == (18,)


def test_nothing_moves_nothing_scores(model):
    still = torch.zeros(12, *SIZE)
    scored = score_predictive(model, F.normalize(torch.randn(20, 16), dim=1), still, TINY)["predictive"]
    assert not scored.frames.any() and not scored.maps.any()
    assert encode(model, still[:6].unflatten(0, (3, 2))).shape == (3, 16, 6, 9)


def test_known_features_are_near():
    features = F.normalize(torch.randn(2, 16, 6, 9), dim=1)
    memory = features[0].flatten(1).T.repeat(5, 1)  # the five nearest are copies
    distance = score.neighbour_distance(features, memory)
    assert distance[0].abs().max() < 1e-5 and distance[1].min() > 0.05


def test_motion_floor_is_the_highest_blurred_change():
    grey = np.full((4, 48, 48), 10, np.uint8)
    grey[2:, 20:28, 20:28] = 110
    scored = motion_floor(grey)
    place = np.arange(-32, 33)
    kernel = np.exp(-(place**2) / (2 * 8.0**2))
    kernel /= kernel.sum()
    along = [kernel[np.abs(place - (x - 24)) <= 100][(20 - x) + 32 : (28 - x) + 32].sum() for x in (23, 24)]
    assert scored.frames[2] == pytest.approx(100 * max(along) ** 2, rel=0.01)
    assert scored.frames[[0, 1, 3]].tolist() == [0, 0, 0] and scored.maps.shape == (4, 6, 6)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_steps_write_what_evaluation_reads(tmp_path, run_home, monkeypatch, jobs):
    run, rows = tmp_path / "runs" / "ped2", []
    for i, split in enumerate(["train", "train", "val", "test"]):
        folder = tmp_path / "frames" / str(i)
        folder.mkdir(parents=True)
        for t, frame in enumerate(walk(i, 16, speed=1 + 3 * (split == "test"))):
            Image.fromarray(frame).save(folder / f"{t + 1:03d}.png")
        spans = "4-9" if split == "test" else ""
        rows.append((f"Clip{i}", str(folder), split, "semantic" if spans else "normal", spans))
    table = pd.DataFrame(rows, columns=["video", "path", "split", "family", "spans"])
    table = table.assign(set="main", scene="s", site="s", action="", n_frames=16, fps=10.0, caption="")
    save_manifest(table, run / "data")
    monkeypatch.setattr(predictive, "RECIPE", TINY)
    monkeypatch.setitem(predictive.WIDTHS, "predictive", 2 * TINY.width)
    monkeypatch.setitem(predictive.WIDTHS, "predictive_half", TINY.width)
    profile = dataclasses.replace(get_profile("ped2"), seeds=(0, 1), train_steps=3, jobs=jobs)

    fitted = predictive.fit(profile, run / "train")
    both = ("predictive", "predictive_half")
    assert set(fitted["metrics"]) == {f"loss {method}, seed {seed}" for method in both for seed in (0, 1)}
    trained = {method: load(fitted["artefacts"][f"weights {method}, seed 0"]) for method in both}
    assert [model.backbone.channels for model, *_ in trained.values()] == [8 * TINY.width, 4 * TINY.width]
    assert {method: recipe for method, (*_, recipe) in trained.items()} == predictive.recipes(profile)
    scored = score.score_all(profile, run / "score")
    forms = [f"{method}{form}" for method in both for form in ("", "@causal")]
    assert scored["metrics"]["methods"] == ["knn", "motion_floor", *forms]
    for method, seeds in [*((form, "01") for form in forms), ("knn", "01"), ("motion_floor", "0")]:
        folder = run / "scores" / method
        assert sorted(path.name for path in folder.iterdir()) == list(seeds)
        for seed in seeds:
            scores = pd.read_csv(folder / seed / "Clip3.csv")
            assert list(scores) == ["frame", "time_s", "score"] and len(scores) == 16
            assert np.isfinite(scores["score"]).all()
            normal, windows = (dict(np.load(folder / seed / name)) for name in ("normal.npz", "windows.npz"))
            assert list(normal) == ["Clip2"] and list(windows) == ["Clip3"] and np.isfinite(normal["Clip2"]).all()
            if not method.endswith("@causal"):
                maps = np.load(run / "maps" / method / seed / "Clip3.npz")["maps"]
                assert maps.shape[0] == 16 and maps.dtype == np.float16
    if jobs == 1:
        causal, normal = (run / "scores" / "predictive@causal" / "0" / name for name in ("Clip3.csv", "normal.npz"))
        before = pd.read_csv(causal)["score"][:5]
        assert np.allclose(before, np.load(normal)["Clip2"].mean())  # no score yet: the normal mean
