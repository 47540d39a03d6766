"""Projections against slow NumPy, in float64."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from zsad_lib.errors import ZsadError
from zsad_lib.models.projection import build_projection


def linear(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def norm(p, name, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def numpy_mlp(p, x):
    return norm(p, "4", linear(p, "3", norm(p, "2", gelu(linear(p, "0", x)))))


def numpy_residual(p, x):
    x = gelu(norm(p, "1", linear(p, "0", x)))
    for i in (3, 4):
        branch = linear(p, f"{i}.branch.3", norm(p, f"{i}.branch.1", linear(p, f"{i}.branch.0", x)))
        x = norm(p, f"{i}.norm", x + branch)
    return norm(p, "6", linear(p, "5", x))


@pytest.mark.parametrize(
    "kind, reference, options", [("mlp", numpy_mlp, {}), ("residual", numpy_residual, {"hidden": 7})]
)
def test_against_numpy(kind, reference, options):
    torch.manual_seed(0)
    model = build_projection(kind, 10, 6, **options).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    x = torch.randn(5, 10, dtype=torch.float64)
    p = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.no_grad():
        np.testing.assert_allclose(model(x).numpy(), reference(p, x.numpy()), rtol=1e-9, atol=1e-9)
    model(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_residual_options():
    model = build_projection("residual", 8, 4, blocks=3, hidden=5, dropout=0.9)
    assert sum(type(m).__name__ == "_ResidualBlock" for m in model) == 3
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.9}
    x = torch.randn(2, 8)
    assert not torch.equal(model(x), model(x)) and torch.equal(model.eval()(x), model(x))


def test_published_width():
    assert build_projection("mlp", 1024, 512)(torch.zeros(1, 1024)).shape == (1, 512)


def test_unknown_kind():
    with pytest.raises(ZsadError, match="unknown projection 'residul'; did you mean 'residual'"):
        build_projection("residul", 8, 4)
