"""The pass with gradient: in chunks, in pieces, with any setting, the gradients of one plain pass."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.losses import cpc_loss
from zsad_lib.methods.context_aware.gradient_windows import (
    fill_gradients,
    predict_with_gradient,
    select_share,
    tune_speed,
)
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC

PROFILE = get_profile("smoke")
INDICES = torch.tensor([[0, 0], [1, 2], [0, 1], [1, 0], [0, 3]])  # clip and first block of five windows


def small(norm: str = "group", norm_stats: str = "running") -> Detector:
    torch.manual_seed(0)
    dpc = DPC("resnet18", 32, norm=norm, norm_stats=norm_stats, width=8, dropout=0.0)
    return Detector(dpc, video_dim=6, scene_dim=5, text_dim=8, context_dim=4)


def stems() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(blocks, 32, 3, 4, 4, generator=generator) for blocks in (9, 8)]


def gradients(detector: Detector, chunk: int = 0) -> list[Tensor]:
    out = predict_with_gradient(detector, stems(), INDICES, chunk)
    loss = cpc_loss(out.predicted, out.actual) + out.context.square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, detector.dpc.tuned_parameters())]


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_chunks_give_the_gradients_of_the_whole(chunk, monkeypatch):
    whole, sizes = gradients(small()), []
    real = Detector.predict
    monkeypatch.setattr(Detector, "predict", lambda self, stem, steps: sizes.append(len(stem)) or real(self, stem))
    torch.testing.assert_close(gradients(small(), chunk), whole, rtol=1e-5, atol=1e-6)
    assert max(sizes) == min(chunk, 5)
    assert sum(sizes) == (10 if chunk < 5 else 5), "each chunk twice: without graph, and with it"


@pytest.mark.parametrize(
    ("setting", "chunk"), [({"checkpointing": True}, 0), ({"checkpointing": True}, 2), ({"compile": "aot_eager"}, 0)]
)
def test_settings_change_no_gradient(setting, chunk, capsys):
    plain, tuned = gradients(small()), small()
    tune_speed(tuned.dpc, dataclasses.replace(PROFILE, **setting), lambda: gradients_probe(tuned))
    torch.testing.assert_close(gradients(tuned, chunk), plain, rtol=1e-5, atol=1e-6)
    assert capsys.readouterr().out == "", "nothing was left out"


def gradients_probe(detector: Detector) -> Tensor:
    return sum(x.sum() for x in predict_with_gradient(detector, stems(), INDICES))


def test_checkpointing_computes_the_blocks_again():
    calls, detector = [], small()
    for block in detector.dpc.backbone.layer4:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(detector)
    assert len(calls) == 2
    detector.dpc.set_grad_checkpointing()
    gradients(detector)
    assert len(calls) == 2 + 4


def test_a_compiler_that_fails_is_left_out_with_one_line(capsys):
    detector = small()
    try:
        tune_speed(
            detector.dpc, dataclasses.replace(PROFILE, compile="no such compiler"), lambda: gradients_probe(detector)
        )
        printed = capsys.readouterr().out
        assert printed.startswith("compile=no such compiler is left out: ") and printed.count("\n") == 1
        torch.testing.assert_close(gradients(detector), gradients(small()), rtol=0, atol=0)
    finally:
        torch.compiler.set_stance("default")


def test_shared_gradients_have_their_weights_memory_layout():
    """A fused optimiser goes through weight and gradient byte by byte: in two layouts, each weight takes another's."""
    detector = small()
    trained = detector.dpc.tuned_parameters()
    two = SimpleNamespace(
        num_processes=2, backward=Tensor.backward, reduce=lambda x, reduction: x / 2, unscale_gradients=lambda: None
    )
    fill_gradients(two, gradients_probe(detector) * 2, trained)
    for weight, alone in zip(trained, torch.autograd.grad(gradients_probe(detector), trained, materialize_grads=True)):
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, alone)
            strides = [[x.stride(i) for i, side in enumerate(x.shape) if side > 1] for x in (weight, weight.grad)]
            assert strides[0] == strides[1]
    assert not all(weight.is_contiguous() for weight in trained), "or there are no two layouts"


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_shares_are_of_one_length_and_in_order(processes, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        shares.append(select_share(INDICES))
    assert len({len(share) for share in shares}) == 1
    joined = torch.cat(shares)
    assert torch.equal(joined[:5], INDICES) and (joined[5:] == INDICES[-1]).all()


def test_statistics_of_the_batch_cannot_be_split():
    with pytest.raises(ZsadError, match='norm_stats="batch" cannot be split'):
        gradients(small("batch", "batch"), chunk=2)
    assert len(gradients(small("batch", "batch"), chunk=5)) > 1
