"""Context gates against their equations in slow NumPy, one caption and one scene at a time."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from zsad_lib.errors import ZsadError
from zsad_lib.models.gates import GATES, ContextGate

B, K, D, C = 3, 5, 8, 4


def silu(h):
    return expit(h) * h


def layer_norm(p, name, x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def affine(p, name, x):
    return p[name + ".weight"] @ x + p[name + ".bias"]


def relevance(p, t, c):
    hidden = affine(p, "hidden", np.concatenate([np.sqrt(len(t)) * t, c]))
    return expit(affine(p, "out", hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))))


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def bilinear(p, t, c):
    return expit(p["bias"] + (p["of_text.weight"] @ t * np.sqrt(len(t))) @ affine(p, "of_context", c) / np.sqrt(32))


def cross_attention(p, t, c):
    keys, values = affine(p, "keys", c).reshape(8, 32), affine(p, "values", c).reshape(8, len(t))
    return t + softmax(keys @ affine(p, "query", np.sqrt(len(t)) * t) / np.sqrt(32)) @ values


def residual_mlp(p, t, c):
    hidden = affine(p, "hidden", np.concatenate([np.sqrt(len(t)) * t, c]))
    return t + affine(p, "out", hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))))


EQUATIONS = {
    "none": lambda p, t, c: t,
    "silu": lambda p, t, c: t + silu(affine(p, "shift", c)),
    "ln": lambda p, t, c: t + p["beta"] * silu(layer_norm(p, "norm", affine(p, "shift", c))),
    "film": lambda p, t, c: (1 + affine(p, "gamma", c)) * t + affine(p, "delta", c),
    "relevance": lambda p, t, c: relevance(p, t, c) * t,
    "bilinear": lambda p, t, c: bilinear(p, t, c) * t,
    "cross_attention": cross_attention,
    "residual_mlp": residual_mlp,
}


def make(kind: str, seed: int = 0) -> tuple[ContextGate, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A gate away from its start, unit captions, unit videos and contexts, in float64."""
    torch.manual_seed(seed)
    gate = ContextGate(kind, D, C).double().eval()
    for p in gate.parameters():
        p.data.add_(torch.randn_like(p) * 0.3)
    unit = torch.nn.functional.normalize
    return gate, unit(torch.randn(K, D).double(), dim=-1), torch.randn(B, C).double(), unit(torch.randn(B, D).double())


def test_every_gate_has_its_equation_here():
    assert set(EQUATIONS) == set(GATES)


@pytest.mark.parametrize("kind", EQUATIONS)
def test_against_numpy(kind):
    gate, text, context, v = make(kind)
    p = {name: value.numpy() for name, value in gate.rule.state_dict().items()}
    with torch.no_grad():
        bank, logits = gate(text, context), gate.logits(v, text, context, chunk=2 * v.numel())
        pairs = gate.paired(text[:B], context)
    assert bank.shape == (B, K, D) and logits.shape == (B, K) and pairs.shape == (B, D)
    for b in range(B):
        for k in range(K):
            expected = EQUATIONS[kind](p, text[k].numpy(), context[b].numpy())
            if gate.rule.unit:
                expected = expected / np.linalg.norm(expected)
            np.testing.assert_allclose(bank[b, k].numpy(), expected, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(logits[b, k].item(), v[b].numpy() @ expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(pairs[b], bank[b, b])


@pytest.mark.parametrize("kind", EQUATIONS)
def test_gradients(kind):
    gate, text, context, v = make(kind)
    context.requires_grad_()
    text.requires_grad_()
    gate.logits(v, text, context).square().sum().backward()
    for name, p in gate.named_parameters():
        assert p.grad.abs().sum() > 0, name
    assert text.grad.abs().sum() > 0 and (kind == "none") == (context.grad is None)
    torch.autograd.gradcheck(lambda t, c: gate.paired(t, c), (text[:B].detach().requires_grad_(), context))


def test_relevance_starts_open_and_only_shortens():
    torch.manual_seed(0)
    gate = ContextGate("relevance", 64, 16)
    text = torch.nn.functional.normalize(torch.randn(200, 64), dim=-1)
    context = torch.randn(20, 16)
    with torch.no_grad():
        r, gated = gate.relevance(text, context), gate(text, context)
    assert r.shape == (20, 200) and 0 < r.min() and r.max() < 1
    assert 0.8 < r.mean() < 0.95  # sigmoid(2) = 0.88
    torch.testing.assert_close(gated.norm(dim=-1), r)
    torch.testing.assert_close(gated / r.unsqueeze(-1), text.expand_as(gated))


@pytest.mark.parametrize("kind, interacts", [(kind, kind not in ("none", "silu", "ln")) for kind in GATES])
def test_additive_gates_move_all_captions_alike(kind, interacts):
    """What a scene does to one caption relative to another: nothing, unless text and context interact."""
    gate, text, context, _ = make(kind)
    gated = gate.rule(text.unsqueeze(0), context.unsqueeze(1))  # [B, K, D] before the norm
    between = gated[:, 0] - gated[:, 1]
    assert torch.allclose(between[0], between[1]) is not interacts


def test_dropout_of_ln_only_in_training():
    gate, text, context, _ = make("ln")
    assert torch.equal(gate(text, context), gate(text, context))
    gate.train()
    assert not torch.equal(gate(text, context), gate(text, context))


def test_errors():
    with pytest.raises(ZsadError, match="unknown context gate 'relevence'; did you mean 'relevance'"):
        ContextGate("relevence", D, C)
    gate, text, context, _ = make("silu")
    with pytest.raises(ZsadError, match="'silu' has no relevance"):
        gate.relevance(text, context)
