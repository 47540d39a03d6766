"""Dense CLIP against a slow version, and its class token against open_clip's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import OPENAI_CLIP, Backbones, normalise, see_with_clip
from zsad_lib.features.cache import TENSORS
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import CLIP_FRAMES
from zsad_lib.models import DPC, TimeSformer
from zsad_lib.models.dense_clip import encode_densely, positions
from zsad_lib.models.regions import NamedThings
from zsad_lib.models.scene import SceneEncoder
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


@pytest.fixture(scope="module")
def tool(clip):
    torch.manual_seed(1)
    streams = Backbones(
        TimeSformer((24, 32), 8, 8, 24, 1, 2).eval(), DPC("resnet10", 32, width=8, norm_stats="batch").eval(),
        SceneEncoder((8, 8, 8, 16), (1, 1, 1, 1)).eval(), clip,
    )  # fmt: skip
    see_with_clip(streams, regions=False)
    draw = torch.Generator().manual_seed(3)
    things, places = (F.normalize(torch.randn(5, 16, generator=draw), dim=-1) for _ in range(2))
    streams.named = NamedThings(things, places)
    return Extractor(streams)


def test_windows_of_a_long_piece_are_those_of_a_short_one(tool):
    """More windows than are looked at together, and each as alone."""
    rng = np.random.default_rng(0)
    piece = torch.from_numpy(rng.integers(0, 256, (1 + 125, 24, 32, 3), dtype=np.uint8))
    whole = dict(zip(TENSORS, tool.windows(piece, ("timesformer",))))
    assert whole["timesformer"].shape == (20, 24 + 16)
    for window in (0, 15, 16, 19):
        alone = dict(zip(TENSORS, tool.windows(piece[5 * window : 5 * window + 31], ("timesformer",))))
        torch.testing.assert_close(whole["timesformer"][window], alone["timesformer"][0], atol=1e-5, rtol=1e-5)
        own = whole["region_at"][:, 0] == window
        assert torch.equal(whole["region_at"][own, 1:], alone["region_at"][:, 1:]) and own.any()
        torch.testing.assert_close(whole["region"][own], alone["region"], atol=2e-3, rtol=0)


def test_a_windows_feature_ends_in_the_mean_of_its_pictures(tool, clip):
    piece = torch.randint(0, 256, (31, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    found = dict(zip(TENSORS, tool.windows(piece, ("timesformer",))))["timesformer"][0]
    pictures = clip.encode_image(normalise(piece[1:][list(CLIP_FRAMES)], OPENAI_CLIP))
    expected = F.normalize(F.normalize(pictures, dim=-1).mean(0), dim=-1)
    torch.testing.assert_close(found[24:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tool.backbones.video_head(found), expected, atol=1e-5, rtol=0)  # the anchor


def test_a_thing_is_what_fits_things_better_than_places(tool):
    piece = torch.randint(0, 256, (31, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    found = dict(zip(TENSORS, tool.windows(piece, ("timesformer",))))
    named, kept = tool.backbones.named, {tuple(at) for at in found["region_at"].tolist()}
    for number, shown in enumerate(CLIP_FRAMES):
        pixels = normalise(piece[1 + shown][None], OPENAI_CLIP)
        patches = F.normalize(encode_densely(tool.backbones.clip, pixels).patches[0], dim=-1)
        for row in range(3):
            for column in range(4):
                fits = max(float(patches[row, column] @ t) for t in named.things)
                fits -= max(float(patches[row, column] @ t) for t in named.places)
                assert ((0, number, row, column) in kept) == (fits > 0) or abs(fits) < 1e-5
