"""Joint training: losses, resume, normal video only."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import stand_ins
from zsad_lib.files.manifest import load_manifest, save_manifest
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware import train
from zsad_lib.methods.context_aware.training_windows import gather_blocks, load_windows, training_rows
from zsad_lib.pipeline import launch, run_step

GLOBAL = train.Variant()  # one vector per window
READOUTS = {"local": train.VARIANTS["full"], "global": GLOBAL}


@pytest.fixture(scope="module")
def windows(tiny_run):
    profile, folder = tiny_run
    return load_windows(profile, training_rows(folder, profile.stride), stand_ins(), regions=True)


def test_batches_cover_every_window_once_per_epoch():
    seen = np.concatenate([train.batch_numbers(20, 5, step, seed=3) for step in range(4)])
    assert sorted(seen) == list(range(20))
    np.testing.assert_array_equal(train.batch_numbers(20, 5, 2, 3), train.batch_numbers(20, 5, 2, 3))
    assert (train.batch_numbers(20, 5, 2, 3) != train.batch_numbers(20, 5, 2, 4)).any()
    assert len(train.batch_numbers(4, 100, 7, 0)) == 4


def test_windows_carry_their_clips_caption_and_blocks(windows):
    assert len(windows.text) == len(windows.clip_and_block) == len(windows.timesformer)
    clip, start = windows.clip_and_block[5].tolist()
    torch.testing.assert_close(
        gather_blocks(windows.stem, windows.clip_and_block[5:6])[0], windows.stem[clip][start : start + 6]
    )
    torch.testing.assert_close(windows.text.norm(dim=-1), torch.ones(len(windows.text)))


def loss_of(windows, variant, released=(), alpha=0.5):
    torch.manual_seed(0)
    detector = train.build_detector(variant, stand_ins())
    detector.fit_scene_statistics(windows.context)
    chosen = torch.arange(0, train.example_count(windows, variant), 2)[:192]
    generator = torch.Generator().manual_seed(0)
    return detector, train.joint_loss(detector, windows, chosen, variant, alpha, released, generator)


@pytest.mark.parametrize("readout", READOUTS)
def test_the_loss_is_the_weighted_sum_and_every_trained_part_gets_a_gradient(windows, readout):
    detector, losses = loss_of(windows, READOUTS[readout], alpha=0.3)
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


@pytest.mark.parametrize("readout", READOUTS)
def test_bfloat16_on_the_cpu_has_nearly_the_same_losses(windows, readout):
    plain = loss_of(windows, READOUTS[readout])[1]
    with torch.autocast("cpu", torch.bfloat16):
        detector, half = loss_of(windows, READOUTS[readout])
    assert half["pred"] != plain["pred"]
    assert half["pred"] != plain["pred"]
    torch.testing.assert_close(half, plain, rtol=2e-2, atol=1e-2)
    half["loss"].backward()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.requires_grad)


def test_a_released_context_projection_gets_no_gradient(windows):
    detector, losses = loss_of(windows, train.VARIANTS["full"], ("context_projection",))
    losses["loss"].backward()
    assert detector.context_projection.weight.grad is None


def test_an_interrupted_run_ends_with_equal_weights(windows, tiny_run, tmp_path, monkeypatch):
    profile = dataclasses.replace(tiny_run[0], train_steps=12)
    variant = dataclasses.replace(train.VARIANTS["full"], batch=16, live=2, passes=1)
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
    variant = dataclasses.replace(train.VARIANTS["full"], batch=64, live=2, passes=1)
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
        train.train_detector(profile, GLOBAL, 0, broken, tmp_path)


@pytest.mark.parametrize(
    ("readout", "setting"), [("global", {"chunk": 3}), ("local", {"chunk": 3}), ("local", {"checkpointing": True})]
)
def test_settings_of_the_pass_change_no_curve(readout, setting, windows, tiny_run, tmp_path):
    profile = dataclasses.replace(tiny_run[0], train_steps=5)
    tuned = dataclasses.replace(profile, **setting)
    paths = [
        train.train_detector(own, dataclasses.replace(READOUTS[readout], passes=1), 0, windows, tmp_path / name)
        for name, own in (("plain", profile), ("tuned", tuned))
    ]
    (first, meta), (second, other) = map(load_weights, paths)
    np.testing.assert_allclose(other["history"], meta["history"], atol=1e-4)
    torch.testing.assert_close(second, first, rtol=1e-4, atol=5e-4)  # Adam divides tiny gradients by themselves
    assert meta["key"] == other["key"], "a run that lacked memory goes on with another setting"


@pytest.fixture
def untrained(tiny_run, tmp_path, monkeypatch) -> Path:
    """Home of the tiny run, copied, before its training; the tests' environment leads there."""
    home, folder = tmp_path / "home", tiny_run[1]
    shutil.copytree(folder.parents[1], home)
    for step in ("train", "score"):
        shutil.rmtree(home / "runs" / folder.name / step)
    monkeypatch.setenv("ZSAD_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", os.environ["PATH"])  # `launch` puts this Python's programs in front
    run_step.ensure("features", tiny_run[0])  # another test may have left those of other settings
    return home / "runs" / folder.name


@pytest.mark.slow
def test_two_processes_train_what_one_does(tiny_run, untrained, capfd):
    profile, folder = tiny_run
    launch.ensure_launched("train", profile, "torchrun --standalone --nproc-per-node 2")
    assert run_step.current("train", profile) is not None
    printed = capfd.readouterr().out
    assert printed.count("train: running") == 1 and printed.count("memory: full") == 1
    assert "in 2 processes; batch 192, live 8, chunk 8" in printed
    files = sorted(path.relative_to(folder) for path in folder.glob("train/*/*/detector.safetensors"))
    assert len(files) == 2 * len(train.VARIANTS)
    for file in files:
        (one, meta), (two, other) = load_weights(folder / file), load_weights(untrained / file)
        passes = train.VARIANTS[file.parts[1]].passes
        assert len(meta["history"]) == profile.train_steps * passes
        # Two processes add in another order; what that rounds differently grows from step to step, by machine.
        np.testing.assert_allclose(other["history"][:5], meta["history"][:5], atol=1e-5, err_msg=str(file))
        np.testing.assert_allclose(other["history"], meta["history"], atol=1e-2, err_msg=str(file))
        torch.testing.assert_close(two, one, rtol=1e-4, atol=5e-4 if passes == 1 else 2e-2)


@pytest.mark.slow
def test_an_exception_in_one_process_ends_all(tiny_run, untrained, tmp_path):
    profile, _ = tiny_run
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from zsad_lib.methods.context_aware import train\n"
        "from zsad_lib.__main__ import main\n"
        "def fails(*arguments):\n"
        "    raise ValueError('only here')\n"
        "if os.environ['RANK'] == '1':\n"
        "    train.joint_loss = fails\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command = [*launcher, *launch._step_command(profile, "train")[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0 and "ValueError: only here" in done.stderr
    assert run_step.current("train", profile) is None and not list(untrained.glob("train/*/*/detector.safetensors"))


def test_what_a_launcher_cannot_do_is_one_line(tiny_run, monkeypatch):
    profile, _ = tiny_run
    with pytest.raises(ZsadError, match="step train of profile ped2 runs in one process"):
        launch.ensure_launched("train", get_profile("ped2"), "torchrun")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    with pytest.raises(ZsadError, match="no program tourchrun found"):
        launch.ensure_launched("train", profile, "tourchrun --nproc-per-node 2")
    with pytest.raises(ZsadError, match="runs in one process; leave the launcher out"):
        launch.ensure_together("features", profile)
    with pytest.raises(ZsadError, match="needs features first, in one process: make features PROFILE=smoke"):
        launch.ensure_together("train", dataclasses.replace(profile, train_steps=13))
