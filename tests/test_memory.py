"""Memory is measured as it grows, printed, and saved by smaller chunks alone."""

import dataclasses

import pytest
import torch
from torch import Tensor

from zsad_lib.config import get_profile
from zsad_lib.methods.context_aware import memory_plan
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC

PROFILE = get_profile("smoke")


@pytest.fixture
def detector() -> Detector:
    dpc = DPC("resnet18", 32, norm="group", width=8)
    return Detector(dpc, video_dim=6, scene_dim=5, text_dim=8, context_dim=4)


def live(detector: Detector, windows: int) -> Tensor:
    return sum(x.sum() for x in detector.predict(torch.zeros(windows, 6, 32, 3, 4, 4)))


def trained(detector: Detector) -> list[Tensor]:
    return [p for p in detector.parameters() if p.requires_grad]


def test_a_step_holds_what_it_saves_and_not_the_weights():
    weight, x = torch.zeros(1000, 10, requires_grad=True), torch.zeros(7, 10)
    held = memory_plan.step_bytes(lambda: (x @ weight.T).exp().sum(), [weight])
    assert held == x.nbytes + 7 * 1000 * 4  # of the product the input, of exp the output


def test_each_gradient_window_takes_as_much_and_less_with_checkpointing(detector):
    one, two, four = (memory_plan.step_bytes(lambda n=n: live(detector, n), trained(detector)) for n in (1, 2, 4))
    once = 2 * one - two  # the GRU's weights put together, whatever the windows
    assert four - two == pytest.approx(2 * (two - one), rel=0.01) and 0 < once < one / 2
    assert memory_plan.gradient_window_bytes(detector, lambda: live(detector, 1), trained(detector)) == one
    detector.dpc.set_grad_checkpointing()
    held = memory_plan.step_bytes(lambda: live(detector, 1), trained(detector))
    assert held - once < 0.7 * (one - once), "what the blocks of layer4 saved is gone"
    assert memory_plan.gradient_window_bytes(detector, lambda: live(detector, 1), trained(detector)) == held + one // 2
    assert detector.dpc.grad_checkpointing


def test_standing_bytes(detector):
    features = [torch.zeros(100), torch.zeros(50, dtype=torch.float16)]
    weights = sum(value.nbytes for value in detector.state_dict().values())
    tuned = sum(p.nbytes for p in trained(detector))
    assert 0 < tuned < weights
    assert memory_plan.standing_bytes(detector, features) == 500 + weights + 3 * tuned


@pytest.mark.parametrize(
    ("windows", "wanted", "chunk"), [(9, 0, 0), (4.5, 0, 4), (2.5, 0, 2), (0, 0, 1), (2.5, 3, 2), (9, 3, 3)]
)
def test_the_chunk_is_halved_until_it_fits(windows, wanted, chunk, detector, monkeypatch, capsys):
    """`windows`: how many gradient windows the device has room for, two processes sharing it."""
    profile = dataclasses.replace(PROFILE, chunk=wanted)
    rest = lambda: detector.context(torch.zeros(3, 5)).sum()
    each = memory_plan.step_bytes(lambda: live(detector, 1), trained(detector))
    fixed = memory_plan.standing_bytes(detector, []) + memory_plan.step_bytes(rest, trained(detector))
    room = int(2 * (fixed + windows * each))
    monkeypatch.setattr(memory_plan, "device_bytes", lambda device: (room, room))
    found = memory_plan.plan_chunk(
        profile, "full", detector, [], rest, lambda: live(detector, 1), batch=192, live=8, jobs=2
    )
    assert found == dataclasses.replace(profile, chunk=chunk)
    line = capsys.readouterr().out
    assert line.startswith("memory: full: about ") and line.count("\n") == 1
    assert f"in 2 processes; batch 192, live 8, chunk {chunk or 8}" in line
    assert (f"instead of {wanted or 8}, which would not fit" in line) == (chunk not in (0, wanted))
    assert ("may still not fit" in line) == (windows == 0)


def test_only_the_first_process_prints(detector, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    rest = lambda: detector.context(torch.zeros(3, 5)).sum()
    memory_plan.plan_chunk(PROFILE, "full", detector, [], rest, lambda: live(detector, 1), 4, 1)
    assert capsys.readouterr().out == ""
