"""TimeSformer against the official outputs, the transformers library, and a slow NumPy block."""

import logging

import numpy as np
import pytest
import torch
from reference_tensors import reference, relative_error
from scipy.special import erf, softmax

from zsad_lib.errors import ZsadError
from zsad_lib.maintenance.baselines import transformers_twin
from zsad_lib.models import TimeSformer

SIZES = dict(image_size=(16, 24), patch_size=8, num_frames=3, embed_dim=12, depth=2, num_heads=3)


def random_model(**changes) -> TimeSformer:
    """A small model in which every parameter matters (the official start has zeros)."""
    torch.manual_seed(0)
    model = TimeSformer(**(SIZES | changes)).eval()
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) * 0.1)
    return model


@pytest.mark.data
def test_official_outputs(shared):
    c, tensors, state = reference(shared, "timesformer_a0")
    args = (c["img_size"], c["patch_size"], c["num_frames"], c["embed_dim"], c["depth"], c["num_heads"])
    model = TimeSformer(*args, num_classes=c["num_classes"]).eval().load_official(state)
    with torch.no_grad():
        assert relative_error(model.features(tensors["input"]), tensors["features"]) < 1e-5
        assert relative_error(model(tensors["input"]), tensors["logits"]) < 1e-5
        headless = TimeSformer(*args).eval().load_official(state)
        assert relative_error(headless(tensors["input"]), tensors["features"]) < 1e-5
        assert relative_error(headless.fold()(tensors["input"]), tensors["features"]) < 1e-5


def test_folding_saves_a_product_and_changes_no_token():
    model, video = random_model(), torch.randn(2, 3, 3, 16, 24)
    with torch.no_grad():
        expected = model.tokens(video)
        assert relative_error(model.fold().tokens(video), expected) < 1e-5
        assert relative_error(model.fold().tokens(video), expected) < 1e-5, "a second time changes nothing"
    assert sum(isinstance(module, torch.nn.Linear) for module in model.modules()) == 2 * 6


def test_transformers_oracle():
    ours = random_model(image_size=16)
    theirs = transformers_twin(ours)
    video = torch.randn(2, 3, 3, 16, 16)
    with torch.no_grad():
        expected = theirs(video.transpose(1, 2)).last_hidden_state  # frames before channels; same order of tokens
        assert relative_error(ours.tokens(video), expected) < 1e-5


def numpy_block(p: dict[str, np.ndarray], heads: int, cls: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One divided block on one clip in float64, token by token: cls [D], x [N, T, D]."""

    def norm(name, z):
        return (z - z.mean()) / np.sqrt(z.var() + 1e-6) * p[name + ".weight"] + p[name + ".bias"]

    def linear(name, z):
        return p[name + ".weight"] @ z + p[name + ".bias"]

    def attention(name, tokens):
        D = len(tokens[0])
        q, k, v = np.split(np.array([linear(name + ".qkv", z) for z in tokens]), 3, axis=1)
        out = np.zeros((len(tokens), D))
        for h in range(heads):
            cut = slice(h * D // heads, (h + 1) * D // heads)
            for i in range(len(tokens)):
                weights = softmax([q[i, cut] @ k[j, cut] / np.sqrt(D / heads) for j in range(len(tokens))])
                out[i, cut] = sum(w * v[j, cut] for j, w in enumerate(weights))
        return [linear(name + ".proj", z) for z in out]

    def mlp(z):
        hidden = linear("mlp.fc1", norm("norm2", z))
        return z + linear("mlp.fc2", hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))))

    N, T, _ = x.shape
    x = x.copy()
    for n in range(N):
        time = attention("temporal_attn", [norm("temporal_norm1", x[n, t]) for t in range(T)])
        x[n] += [linear("temporal_fc", z) for z in time]
    after = x.copy()
    copies = []
    for t in range(T):
        space = attention("attn", [norm("norm1", z) for z in [cls, *x[:, t]]])
        copies.append(space[0])
        after[:, t] += space[1:]
    return mlp(cls + np.mean(copies, axis=0)), np.array([[mlp(after[n, t]) for t in range(T)] for n in range(N)])


def test_block_against_slow_numpy():
    block = random_model().blocks[1]
    p = {name: value.detach().double().numpy() for name, value in block.state_dict().items()}
    cls, x = torch.randn(2, 1, 12), torch.randn(2, 4, 3, 12)
    with torch.no_grad():
        out_cls, out_x = block(cls, x)
    for b in range(2):
        expected_cls, expected_x = numpy_block(p, 3, cls[b, 0].double().numpy(), x[b].double().numpy())
        np.testing.assert_allclose(out_cls[b, 0], expected_cls, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out_x[b], expected_x, rtol=1e-4, atol=1e-5)


def test_token_order():
    """Without blocks, one changed pixel changes one token: places row by row, the frame running fastest."""
    model = random_model(depth=0)
    video = torch.zeros(1, 3, 3, 16, 24)
    changed = video.clone()
    changed[0, :, 2, 9, 17] = 1.0  # frame 2, patch row 1, patch column 2 of 3
    with torch.no_grad():
        moved = (model.tokens(video) != model.tokens(changed)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [1 + (1 * 3 + 2) * 3 + 2]


def test_gradients_and_checkpointing():
    model = random_model(num_classes=4)
    video = torch.randn(2, 3, 3, 16, 24)
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(video).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for (name, _), plain, recomputed in zip(model.named_parameters(), *grads):
        assert plain.abs().sum() > 0, name
        torch.testing.assert_close(plain, recomputed)


def test_new_model_starts_as_image_transformer():
    model = TimeSformer(**SIZES)
    assert all(not block.temporal_fc.weight.any() for block in model.blocks[1:])
    assert model.blocks[0].temporal_fc.weight.any()


def test_bfloat16_autocast():
    model, video = random_model(), torch.randn(1, 3, 3, 16, 24)
    with torch.no_grad():
        plain = model(video)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert relative_error(model(video).float(), plain) < 0.05


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_official_prefixes(prefix, caplog):
    source = random_model(num_classes=5)
    state = {prefix + k: v for k, v in source.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        model = TimeSformer(**SIZES).load_official({"model_state": state}).eval()
    assert "head.*" in caplog.text
    video = torch.randn(1, 3, 3, 16, 24)
    torch.testing.assert_close(model(video), source.features(video))


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda s: s.pop("model.blocks.1.attn.qkv.bias"), "missing: model.blocks.1.attn.qkv.bias"),
        (lambda s: s.update({"model.blocks.1.surprise": torch.zeros(1)}), "unexpected: model.blocks.1.surprise"),
        (lambda s: s.update({"model.norm.bias": torch.zeros(7)}), r"model.norm.bias \[7\] \(the model has \[12\]\)"),
        (lambda s: s.update({"model.pos_embed": torch.zeros(1, 9, 12)}), r"model.pos_embed \[1, 9, 12\]"),
        (lambda s: s.update({"norm.bias": torch.zeros(12)}), "'norm.bias' twice"),
        (lambda s: s.update({"model.norm.bias": 3}), "holds int"),
        (lambda s: s.clear(), "non-empty mapping"),
    ],
)
def test_wrong_checkpoints(edit, message):
    model = random_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = {"model." + k: torch.zeros_like(v) for k, v in before.items()}
    edit(state)
    with pytest.raises(ZsadError, match=message):
        model.load_official(state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # nothing half-loaded


def test_official_resampling_of_positions(caplog):
    """224 -> 244 pixels: 196 -> 225 patches, one of which keeps its place; 8 -> 4 frames."""
    small = dict(patch_size=16, embed_dim=3, depth=0, num_heads=1)
    source = TimeSformer(224, num_frames=8, **small)
    source.pos_embed.data[0, 1:, 0] = torch.arange(196.0)
    source.time_embed.data[0, :, 0] = torch.arange(8.0)
    with caplog.at_level(logging.WARNING):
        model = TimeSformer(244, num_frames=4, **small).load_official(source.state_dict(), resample=True)
    assert "196" not in caplog.text and "197 to 226" in caplog.text
    assert model.pos_embed[0, 1:, 0].tolist() == [i * 196 // 225 for i in range(225)]
    assert model.time_embed[0, :, 0].tolist() == [0, 2, 4, 6]
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    model.set_image_size(224)  # the released code then feeds 224 x 224 frames: rows and columns 0 to 13 of 15
    kept = model.pos_embed[0, 1:, 0].tolist()
    assert kept == [(15 * r + c) * 196 // 225 for r in range(14) for c in range(14)]
    assert sum(i == place for i, place in enumerate(kept)) == 1
    assert model(torch.zeros(1, 3, 4, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize("shape", [(1, 3, 3, 16, 16), (1, 3, 4, 16, 24), (1, 1, 3, 16, 24), (3, 3, 16, 24)])
def test_wrong_video(shape):
    with pytest.raises(ZsadError, match=r"expects video \[B, 3, 3, 16, 24\]"):
        random_model()(torch.zeros(shape))
