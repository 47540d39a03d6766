"""Dense CLIP against a slow version, and its class token against open_clip's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsad_lib.errors import ZsadError
from zsad_lib.models.dense_clip import encode_densely, positions
from zsad_lib.models.text import build_clip

SMALL = dict(
    embed_dim=16, text_width=32, text_heads=2, text_layers=1, text_vocab_size=50,
    vision_width=64, vision_layers=3, vision_head_width=16, vision_patch_size=8, vision_image_size=(24, 32),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    model = build_clip("ViT-B-16", **SMALL)
    for parameter in model.visual.parameters():  # biases and norms that are not 0 and 1
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def layer_norm(x, norm):
    return (x - x.mean()) / np.sqrt(x.var() + norm.eps) * norm.weight.numpy() + norm.bias.numpy()


@pytest.mark.parametrize("size", [(24, 32), (40, 16)], ids=["native", "other"])
def test_a_patch_is_its_own_value_in_the_last_block(clip, size):
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    visual, (rows, columns) = clip.visual, (size[0] // 8, size[1] // 8)
    x = visual.conv1(pixels).reshape(2, 64, rows * columns).permute(0, 2, 1)
    x = torch.cat([visual.class_embedding.expand(2, 1, 64), x], 1) + positions(visual, (rows, columns))
    x = visual.ln_pre(x)
    for block in list(visual.transformer.resblocks)[:-1]:
        x = block(x)
    last, found = visual.transformer.resblocks[-1], encode_densely(clip, pixels)
    w, b = last.attn.in_proj_weight.numpy()[128:], last.attn.in_proj_bias.numpy()[128:]
    for picture in range(2):
        for row in range(rows):
            for column in range(columns):
                token = x[picture, 1 + row * columns + column].numpy()
                value = w @ layer_norm(token, last.ln_1) + b
                out = last.attn.out_proj.weight.numpy() @ value + last.attn.out_proj.bias.numpy()
                expected = layer_norm(out, visual.ln_post) @ visual.proj.numpy()
                np.testing.assert_allclose(found.patches[picture, row, column].numpy(), expected, atol=1e-5)


def test_at_the_native_size_the_picture_is_open_clips(clip):
    pixels = torch.randn(3, 3, 24, 32, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encode_densely(clip, pixels).picture, clip.encode_image(pixels), atol=1e-5, rtol=0)


def test_positions_of_a_finer_grid_lie_between_their_neighbours(clip):
    visual = clip.visual
    assert positions(visual, (3, 4)) is visual.positional_embedding
    finer = positions(visual, (6, 8))
    assert torch.equal(finer[0], visual.positional_embedding[0]) and finer.shape == (49, 64)
    back = F.avg_pool2d(finer[1:].T.reshape(1, 64, 6, 8), 2).reshape(64, 12).T
    assert F.cosine_similarity(back, visual.positional_embedding[1:]).min() > 0.95


def test_towers_and_sizes_that_do_not_fit_are_one_line(clip):
    with pytest.raises(ZsadError, match=r"\(20, 32\) pixels are no whole number of patches of \(8, 8\)"):
        encode_densely(clip, torch.zeros(1, 3, 20, 32))
    resnet = torch.nn.Module()
    resnet.visual = torch.nn.Conv2d(3, 4, 1)
    with pytest.raises(ZsadError, match="Conv2d is no plain vision transformer"):
        encode_densely(resnet, torch.zeros(1, 3, 24, 32))


@pytest.mark.slow
def test_the_published_shape():
    clip = build_clip("ViT-B-16").requires_grad_(False)
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = encode_densely(clip, pixels)
    assert found.patches.shape == (1, 14, 14, 512)
    torch.testing.assert_close(found.picture, clip.encode_image(pixels), atol=1e-5, rtol=0)
