"""The one training loop: interrupted anywhere it ends with the same bits, and it goes on with its own checkpoint
only."""

from pathlib import Path

import pytest
import torch
from torch import nn

from zsad_lib.errors import ZsadError
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.training_loop import CHECKPOINT, descend, is_trained, run_steps, save_trained, training_key

STEPS = 11


def train(folder: Path, key: str = "a key", stop: int = STEPS) -> tuple[Path, list[int]]:
    """A linear model that learns from noise, with dropout, AdamW's moments and a schedule; Ctrl-C before step
    `stop`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.2), nn.Linear(5, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step))
    taken = []

    def take_step(step: int) -> list[float]:
        if step == stop:
            raise KeyboardInterrupt
        taken.append(step)
        torch.manual_seed(step)
        loss = model(torch.randn(7, 5)).square().mean()
        descend(loss, optimiser, schedule, model.parameters(), 0.5)
        return [loss.item()]

    history = run_steps(take_step, STEPS, folder, key, (model, optimiser, schedule), every=3)
    save_trained(folder / "model.safetensors", model.state_dict(), {"key": key, "history": history})
    return folder / "model.safetensors", taken


@pytest.mark.parametrize(("stop", "first"), [(2, 0), (3, 3), (8, 6), (10, 9)])
def test_an_interruption_changes_no_bit(stop, first, tmp_path):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=stop)
    assert (tmp_path / "cut" / CHECKPOINT).exists() == (first > 0)
    cut, taken = train(tmp_path / "cut")
    assert taken == list(range(first, STEPS)) and cut.read_bytes() == whole.read_bytes()
    assert len(load_weights(cut)[1]["history"]) == STEPS and not (tmp_path / "cut" / CHECKPOINT).exists()


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "one", stop=5)
    target, taken = train(tmp_path, "two")
    assert taken == list(range(STEPS)) and is_trained(target, "two") and not is_trained(target, "one")
    assert not is_trained(tmp_path / "none.safetensors", "two")


def test_the_key_tells_settings_and_code_apart():
    key = training_key("zsad_lib.losses", {"lr": 1e-3}, 0)
    assert key == training_key("zsad_lib.losses", {"lr": 1e-3}, 0)
    assert (
        len({key, training_key("zsad_lib.losses", {"lr": 1e-3}, 1), training_key("zsad_lib.errors", {"lr": 1e-3}, 0)})
        == 3
    )


def test_only_the_first_process_writes_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=8)
    assert not tmp_path.joinpath(CHECKPOINT).exists()


def test_a_loss_that_is_not_finite_ends_with_the_step_and_what_to_do(tmp_path):
    losses = lambda step: [1.0, float("inf") if step == 4 else 0.0]
    with pytest.raises(ZsadError, match="far: the loss is not finite at epoch 4; lower the learning rate"):
        run_steps(losses, 9, tmp_path / "far", unit="epoch")


def test_progress_is_told_with_the_mean_of_the_last_steps(capsys):
    assert run_steps(lambda step: [step], 7, every=3, label="seed 2") == [[float(step)] for step in range(7)]
    assert capsys.readouterr().out == "seed 2: step 3 of 7, loss 1.000\nseed 2: step 6 of 7, loss 4.000\n"
    run_steps(lambda step: [step], 7, every=3)
    assert capsys.readouterr().out == ""


def test_a_step_clips_the_joint_gradient_and_moves_the_schedule_on():
    pair = [nn.Parameter(torch.tensor([value])) for value in (3.0, 4.0)]
    optimiser = torch.optim.SGD(pair, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5**step)
    descend(
        sum(p.square() for p in pair).sum() / 2, optimiser, schedule, pair, 1.0
    )  # gradient (3, 4), clipped to (0.6, 0.8)
    torch.testing.assert_close(torch.cat(pair), torch.tensor([2.4, 3.2]), atol=1e-5, rtol=0)
    assert schedule.get_last_lr() == [0.5]
    descend(
        pair[0].sum(), optimiser, schedule, backward=lambda loss: (10 * loss).backward()
    )  # unclipped, half the rate
    torch.testing.assert_close(torch.cat(pair), torch.tensor([-2.6, 3.2]), atol=1e-5, rtol=0)
