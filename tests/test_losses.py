"""Losses against slow NumPy; gathering against one process."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from scipy.special import logsumexp

from zsad_lib.errors import ZsadError
from zsad_lib.losses import cpc_loss, info_nce, rejection_loss, swap_partners, swap_similarities
from zsad_lib.methods.context_aware.gradient_windows import gather_with_grad
from zsad_lib.models.gates import ContextGate


def unit_rows(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


def numpy_info_nce(v, t, tau, same, extra):
    B, total = len(v), 0.0
    for i in range(B):
        allowed = [k for k in range(B) if k == i or not same[i, k]]
        row = [v[i] @ t[k] / tau for k in allowed] + [x / tau for x in extra[i]]
        column = [v[k] @ t[i] / tau for k in range(B) if k == i or not same[k, i]]
        total += logsumexp(row) + logsumexp(column) - 2 * v[i] @ t[i] / tau
    return total / (2 * B)


@pytest.mark.parametrize("with_same", [False, True])
@pytest.mark.parametrize("with_extra", [False, True])
def test_info_nce(with_same, with_extra):
    v, t = unit_rows(6, 5, 0), unit_rows(6, 5, 1)
    labels = torch.tensor([0, 1, 0, 2, 2, 0])
    same = labels[:, None] == labels if with_same else None
    extra = torch.linspace(-1, 1, 12, dtype=torch.float64).view(6, 2) if with_extra else None
    if with_extra:
        extra[2, 1] = -torch.inf
    expected = numpy_info_nce(
        v.numpy(), t.numpy(), 0.2,
        np.zeros((6, 6), bool) if same is None else same.numpy(),
        np.zeros((6, 0)) if extra is None else extra.numpy(),
    )  # fmt: skip
    assert info_nce(v, t, 0.2, same, extra).item() == pytest.approx(expected, rel=1e-10)


def test_info_nce_gradient_and_masking():
    v, t = unit_rows(4, 5, 0).requires_grad_(), unit_rows(4, 5, 1).requires_grad_()
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = True  # video 0 and caption 2
    extra = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.2, same, extra), (v, t))
    grad = torch.autograd.grad(info_nce(v, t, 0.2, same), v)[0][0]
    assert (grad.isfinite()).all()
    everything = torch.ones(4, 4, dtype=torch.bool)
    assert info_nce(v, t, same=everything).item() == pytest.approx(0, abs=1e-12)  # only the positive is left


def test_info_nce_keeps_the_length_of_gated_text():
    v = unit_rows(4, 5, 0)
    assert info_nce(v, v) != info_nce(v, 0.5 * v)


def test_swap_partners():
    angles = torch.deg2rad(torch.tensor([0.0, 10, 20, 60, 90, 180]))
    context = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5], [2], [1], [3], [0.1]])
    cosine = F.cosine_similarity(context[:, None], context[None], dim=-1)
    index, valid = swap_partners(context, count=4, max_cosine=0.7, generator=torch.Generator().manual_seed(0))
    assert index.shape == valid.shape == (6, 4)
    for i in range(6):
        chosen = index[i][valid[i]].tolist()
        possible = [j for j in range(6) if cosine[i, j] < 0.7]
        assert len(chosen) == min(4, len(possible)) == len(set(chosen)) and set(chosen) <= set(possible)
    assert valid[5].all() and not valid[3].all()  # clips with many dissimilar others, and with few
    again = swap_partners(context, count=4, max_cosine=0.7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(index, again[0])
    few, mask = swap_partners(context[:2], count=8)
    assert few.shape == (2, 8) and not mask.any()


def test_swap_partners_reach_every_dissimilar_clip():
    context = torch.eye(6)
    generator = torch.Generator().manual_seed(0)
    seen = {j for _ in range(40) for j in swap_partners(context, 2, 0.7, generator)[0][0].tolist()}
    assert seen == {1, 2, 3, 4, 5}


def test_swap_similarities():
    torch.manual_seed(0)
    gate = ContextGate("relevance", 5, 3).double()
    v, text, context = unit_rows(4, 5, 0), unit_rows(4, 5, 1), torch.randn(4, 3).double()
    partners, valid = torch.tensor([[1, 2], [0, 3], [3, 0], [2, 0]]), torch.ones(4, 2, dtype=torch.bool)
    valid[3, 1] = False
    got = swap_similarities(gate, v, text, context, partners, valid)
    bank = gate(text, context)  # [context, caption, D]
    for i in range(4):
        for m in range(2):
            expected = (v[i] * bank[partners[i, m], i]).sum().item() if valid[i, m] else -float("inf")
            assert got[i, m].item() == pytest.approx(expected)
    info_nce(v, gate.paired(text, context), extra=got).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in gate.parameters())


def test_cpc_loss_against_numpy():
    torch.manual_seed(0)
    predicted, actual = torch.randn(2, 2, 2, 4, 2, 3, dtype=torch.float64).unbind(0)
    cells = [(b, p, y, x) for b in range(2) for p in range(2) for y in range(2) for x in range(3)]
    for tau in (1.0, 0.07):
        total = 0.0
        for b, p, y, x in cells:
            z = predicted[b, p, :, y, x].numpy()
            scores = np.array([z @ actual[i, q, :, r, s].numpy() for i, q, r, s in cells]) / tau
            total += logsumexp(scores) - scores[cells.index((b, p, y, x))]
        assert cpc_loss(predicted, actual, tau).item() == pytest.approx(total / len(cells), rel=1e-10)


def test_cpc_loss_gradient_and_errors():
    predicted, actual = (torch.randn(1, 2, 3, 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(cpc_loss, (predicted, actual))
    with pytest.raises(ZsadError, match=r"\[1, 2, 3, 1, 2\] and \[1, 1, 3, 1, 2\]"):
        cpc_loss(predicted, actual[:, :1])
    with pytest.raises(ZsadError):
        cpc_loss(predicted[0], actual[0])


def test_gather_without_process_group_is_the_same_tensor():
    x = torch.randn(3, 2)
    assert gather_with_grad(x) is x


def _worker(rank: int, store: str, folder: str) -> None:
    """One of two processes: loss over the gathered batch, gradient of the own rows."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    v, t = (x[3 * rank : 3 * rank + 3].clone().requires_grad_() for x in (unit_rows(6, 5, 0), unit_rows(6, 5, 1)))
    loss = info_nce(gather_with_grad(v), gather_with_grad(t))
    loss.backward()
    torch.save({"loss": loss.detach(), "v": v.grad, "t": t.grad}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_gather_across_two_processes(tmp_path):
    mp.spawn(_worker, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    v, t = unit_rows(6, 5, 0).requires_grad_(), unit_rows(6, 5, 1).requires_grad_()
    loss = info_nce(v, t)
    loss.backward()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for own in ranks:
        torch.testing.assert_close(own["loss"], loss.detach())
    # each process holds the whole batch's loss: its gradients sum to twice, and averaging over processes undoes that
    torch.testing.assert_close(torch.cat([own["v"] for own in ranks]) / 2, v.grad)
    torch.testing.assert_close(torch.cat([own["t"] for own in ranks]) / 2, t.grad)


def test_rejection_loss_by_loops():
    own, swapped = (
        torch.tensor([0.9, 0.2, 0.5]),
        torch.tensor([[0.8, -torch.inf], [0.6, -0.5], [-torch.inf, -torch.inf]]),
    )
    own.requires_grad_()
    terms = [max(0.0, 0.3 - (0.9 - 0.8)), max(0.0, 0.3 - (0.2 - 0.6)), max(0.0, 0.3 - (0.2 + 0.5))]
    loss = rejection_loss(own, swapped)
    assert loss.item() == pytest.approx(sum(terms) / 3 / 0.07, rel=1e-5)
    loss.backward()
    assert own.grad.isfinite().all() and own.grad[2] == 0
    assert rejection_loss(own, torch.full((3, 2), -torch.inf)) == 0
