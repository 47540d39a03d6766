"""Attention rollout against the product of whole matrices in float64, and its weights against what the model
computes."""

import pytest
import torch

from zsad_lib.models import TimeSformer
from zsad_lib.models.attention_rollout import attention_weights, record_attention, rollout

B, T, N, GRID = 2, 3, 6, (2, 3)


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = TimeSformer((16, 24), 8, T, embed_dim=12, depth=3, num_heads=3).double().eval()
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) * 0.3)  # the usual start has zeros, and nearly even attention
    return model


@pytest.fixture(scope="module")
def video():
    return torch.randn(B, 3, T, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def dense(model, video, clip: int) -> torch.Tensor:
    """R of one clip, entry by entry: token 0 is the class token, then 1 + place * T + frame."""
    with record_attention(model) as weights:
        model.tokens(video)
    size, at = 1 + N * T, lambda place, frame: 1 + place * T + frame
    product = torch.eye(size, dtype=torch.float64)
    for block in model.blocks:
        time, space = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
        time[0, 0] = 1
        for place in range(N):
            for s in range(T):
                for t in range(T):
                    time[at(place, s), at(place, t)] = weights[block.temporal_attn][clip * N + place, s, t]
        for t in range(T):
            tokens = [0] + [at(place, t) for place in range(N)]
            one = weights[block.attn][clip * T + t]
            for i, row in enumerate(tokens):
                for j, column in enumerate(tokens):
                    space[row, column] += one[i, j] / (T if row == 0 else 1)
        half = lambda matrix: (matrix + torch.eye(size, dtype=torch.float64)) / 2
        product = half(space) @ half(time) @ product
    return product


def test_the_row_equals_that_of_the_whole_product(model, video):
    found = rollout(model, video)
    assert found.shape == (B, T, *GRID)
    for clip in range(B):
        whole = dense(model, video, clip)
        torch.testing.assert_close(whole.sum(1), torch.ones(len(whole), dtype=torch.float64))
        expected = whole[0, 1:].view(N, T).T.unflatten(1, GRID)
        torch.testing.assert_close(found[clip], expected, atol=1e-12, rtol=0)
        assert found[clip].sum().item() == pytest.approx(1 - whole[0, 0].item())
    assert found.std(dim=(1, 2, 3)).min() > 1e-3, "attention that is even would hide a mixed-up order"


def test_the_weights_are_those_that_the_model_uses(model, video):
    layers, passed = [model.blocks[1].temporal_attn, model.blocks[1].attn], []
    hooks = [layer.register_forward_hook(lambda layer, x, y: passed.append((layer, x[0], y))) for layer in layers]
    model.tokens(video)
    for hook in hooks:
        hook.remove()
    assert [layer for layer, *_ in passed] == layers
    for layer, x, y in passed:
        v = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1))[..., 2, :, :].transpose(-2, -3)
        mixed = (attention_weights(layer, x) @ v).transpose(-2, -3).flatten(-2)
        torch.testing.assert_close(layer.proj(mixed), y, atol=1e-10, rtol=0)


def test_nothing_stays_on_the_model(model, video):
    before = model.tokens(video)
    rollout(model, video)
    assert not any(module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(model.tokens(video), before, atol=0, rtol=0)
