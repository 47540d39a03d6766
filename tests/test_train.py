"""Joint training: losses, resume, normal video only."""

import dataclasses

import numpy as np
import pytest
import torch

from zsad_lib import train
from zsad_lib.backbones import stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.manifest import load_manifest, save_manifest
from zsad_lib.weights import load_weights


@pytest.fixture(scope="module")
def windows(tiny_run):
    profile, folder = tiny_run
    table = load_manifest(folder / "data")
    return train.load_windows(profile, table[table.split == "train"], stand_ins())


def test_batches_cover_every_window_once_per_epoch():
    seen = np.concatenate([train.batch_numbers(20, 5, step, seed=3) for step in range(4)])
    assert sorted(seen) == list(range(20))
    np.testing.assert_array_equal(train.batch_numbers(20, 5, 2, 3), train.batch_numbers(20, 5, 2, 3))
    assert (train.batch_numbers(20, 5, 2, 3) != train.batch_numbers(20, 5, 2, 4)).any()
    assert len(train.batch_numbers(4, 100, 7, 0)) == 4


def test_windows_carry_their_clips_caption_and_blocks(windows):
    assert len(windows.text) == len(windows.place) == len(windows.timesformer)
    clip, start = windows.place[5].tolist()
    torch.testing.assert_close(
        train.gather_blocks(windows.stem, windows.place[5:6])[0], windows.stem[clip][start : start + 6]
    )
    torch.testing.assert_close(windows.text.norm(dim=-1), torch.ones(len(windows.text)))


def loss_of(windows, variant, released=(), alpha=0.5):
    torch.manual_seed(0)
    detector = train.build_detector(variant, stand_ins())
    detector.fit_scene_statistics(windows.context)
    chosen = torch.arange(0, len(windows.text), 2)
    generator = torch.Generator().manual_seed(0)
    return detector, train.joint_loss(detector, windows, chosen, variant, alpha, released, generator)


def test_the_loss_is_the_weighted_sum_and_every_trained_part_gets_a_gradient(windows):
    detector, losses = loss_of(windows, train.VARIANTS["full"], alpha=0.3)
    expected = 0.3 * (losses["align"] + losses["residual"]) + 0.7 * losses["pred"]
    torch.testing.assert_close(losses["loss"], expected)
    losses["loss"].backward()
    without = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    frozen = [name for name, p in detector.named_parameters() if not p.requires_grad]
    assert all(name.startswith(("dpc.backbone", "anchor")) and "layer4" not in name for name in frozen)


def test_the_released_temperature_changes_the_published_loss_only(windows):
    paper = loss_of(windows, train.VARIANTS["paper"])[1]
    sharp = loss_of(windows, train.VARIANTS["paper"], ("cpc_temperature",))[1]
    assert not torch.isclose(paper["pred"], sharp["pred"])
    torch.testing.assert_close(paper["align"], sharp["align"])


def test_a_released_context_projection_gets_no_gradient(windows):
    detector, losses = loss_of(windows, train.VARIANTS["full"], ("context_projection",))
    losses["loss"].backward()
    assert detector.context_projection.weight.grad is None


def test_an_interrupted_run_ends_with_equal_weights(windows, tiny_run, tmp_path, monkeypatch):
    profile, _ = tiny_run
    variant = dataclasses.replace(train.VARIANTS["full"], batch=16, live=2)
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 5)
    whole = train.train_detector(profile, variant, 0, windows, tmp_path / "whole")

    class Killed(Exception):
        pass

    def dies(*arguments):
        if (tmp_path / "cut" / "checkpoint.pt").exists():
            raise Killed
        return real(*arguments)

    real = train.joint_loss
    with monkeypatch.context() as patch:
        patch.setattr(train, "joint_loss", dies)
        with pytest.raises(Killed):
            train.train_detector(profile, variant, 0, windows, tmp_path / "cut")
    cut = train.train_detector(profile, variant, 0, windows, tmp_path / "cut")
    first, second = load_weights(whole), load_weights(cut)
    assert first[1]["sha256"] == second[1]["sha256"] and first[1]["history"] == second[1]["history"]
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()
    assert (
        load_weights(train.train_detector(profile, variant, 1, windows, tmp_path / "other"))[1]["sha256"]
        != first[1]["sha256"]
    )


def test_training_learns(windows, tiny_run, tmp_path):
    profile, _ = tiny_run
    longer = dataclasses.replace(profile, train_steps=30)
    variant = dataclasses.replace(train.VARIANTS["full"], batch=64, live=2)
    history = load_weights(train.train_detector(longer, variant, 0, windows, tmp_path))[1]["history"]
    assert np.mean(history[-5:], 0)[0] < np.mean(history[:5], 0)[0]


def test_abnormal_video_in_the_training_list_is_refused(tiny_run, tmp_path):
    profile, folder = tiny_run
    table = load_manifest(folder / "data")
    table.loc[table.index[0], "spans"] = "0-4"
    save_manifest(table, tmp_path / "data")
    with pytest.raises(ZsadError, match="normal video only"):
        train.fit(profile, tmp_path / "train")


def test_a_loss_that_is_not_finite_stops_with_one_line(windows, tiny_run, tmp_path):
    profile, _ = tiny_run
    broken = windows._replace(timesformer=torch.full_like(windows.timesformer, float("nan")))
    with pytest.raises(ZsadError, match="not finite at step 0"):
        train.train_detector(profile, train.VARIANTS["full"], 0, broken, tmp_path)
