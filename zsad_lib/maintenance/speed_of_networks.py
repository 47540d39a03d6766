"""Rows of `make bench` on TimeSformer at the published size, with random weights, which change no duration."""

import statistics

import numpy as np
import torch
from torch import nn

from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import device
from zsad_lib.features.devices import has_bfloat16_units
from zsad_lib.maintenance.baselines import transformers_twin
from zsad_lib.maintenance.matrix_limit import limit_of
from zsad_lib.maintenance.timing import Row, compare, timed
from zsad_lib.models.timesformer import TimeSformer

COSINE = 0.999  # least one of features in bfloat16 with those in float32


@torch.no_grad()
def fused_attention(repeats: int = 3, batch: int = 1, **sizes: int) -> Row:
    """TimeSformer's forward pass, folded for extraction, against the transformers library's on the same weights.

    Args:
        repeats: timed calls of each.
        batch: clips.
        sizes: arguments of `TimeSformer`; by default the published model, 8 frames of 224 x 224.
    """
    model, video, size = _timesformer(batch, sizes)
    measure, baseline = f"TimeSformer, {size}", "transformers' TimesformerModel"
    try:
        twin = transformers_twin(model).to(device())
    except ZsadError as error:
        model.to(device()).fold()(video)
        seconds = statistics.median(timed(lambda: model(video)) for _ in range(repeats))
        return Row(measure, seconds, baseline, np.nan, np.nan, f"not compared: {error}")
    model.to(device()).fold()
    turned = video.transpose(1, 2)
    torch.testing.assert_close(model.tokens(video), twin(turned).last_hidden_state, rtol=1e-3, atol=1e-3)
    ours = lambda: model.tokens(video)
    return compare(measure, ours, baseline, lambda: twin(turned), repeats, limit_s=limit_of(ours))


@torch.no_grad()
def half_precision(repeats: int = 3, batch: int = 1, **sizes: int) -> Row:
    """TimeSformer's forward pass in bfloat16 against the transformers library's in float32, on the same weights.

    The features must point the same way (cosine at least 0.999). Skipped where the device would only emulate bfloat16.

    Args:
        repeats, batch, sizes: as of `fused_attention`.
    """
    model, video, size = _timesformer(batch, sizes)
    measure, baseline = f"TimeSformer in bfloat16, {size}", "transformers' TimesformerModel in float32"
    if not has_bfloat16_units():
        return Row(measure, np.nan, baseline, np.nan, np.nan, "skipped: this device has no bfloat16 units")
    try:
        twin = transformers_twin(model).to(device())
    except ZsadError as error:
        return Row(measure, np.nan, baseline, np.nan, np.nan, f"not compared: {error}")
    model.fold().to(device(), torch.bfloat16)
    turned, halved = video.transpose(1, 2), video.bfloat16()
    expected = twin(turned).last_hidden_state[:, 0]
    refuse_far(model.features(halved).float(), expected)
    ours = lambda: model.tokens(halved)
    limit = limit_of(ours, torch.bfloat16)
    return compare(measure, ours, baseline, lambda: twin(turned), repeats, limit_s=limit)


def _timesformer(batch: int, sizes: dict[str, int]) -> tuple[TimeSformer, torch.Tensor, str]:
    """A model with random weights on the CPU, clips [B, 3, T, H, W] on the timed device, and their size in words."""
    torch.manual_seed(0)
    model = TimeSformer(**sizes).eval()
    size = (model.time_embed.shape[1], *model.patch_embed.img_size)
    return model, torch.randn(batch, 3, *size, device=device()), f"{' x '.join(map(str, size))}, batch {batch}"


def refuse_far(halved: torch.Tensor, expected: torch.Tensor) -> None:
    """AssertionError where features in bfloat16 [N, D] do not point where those in float32 do."""
    cosine = nn.functional.cosine_similarity(halved, expected).min().item()
    if not cosine >= COSINE:
        raise AssertionError(f"bfloat16 features are not close: cosine {cosine:.4f}, at least {COSINE} is needed")
