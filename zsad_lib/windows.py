"""The windows of some clips as training sees them: cached features, what the gate sees, captions.

One row per window; what the predictive stream reads stays clip by clip, since overlapping windows share their blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zsad_lib.features import cache_folder, feature_file, load_features, window_blocks
from zsad_lib.models.dpc import DPC
from zsad_lib.models.text import encode_captions


class Windows(NamedTuple):
    """W windows of some clips: features and, in training, what they show."""

    timesformer: Tensor  # [W, D]
    dpc: Tensor  # [W, D_dpc] mean over space of the pretrained predictive stream's GRU state
    scene: Tensor  # [W, S]
    context: Tensor  # [W, S'] what the gate sees: the scene, or a control
    place: Tensor  # [W, 2] clip and first block of each window
    text: Tensor  # [W, D_text] unit vectors of the clips' captions, before the gate
    caption: Tensor  # [W] number of the caption
    stem: list[Tensor]  # per clip [N, C', L', h', w'], float16
    cell_motion: list[Tensor]  # per clip [N, h, w]

    def to(self, device: torch.device) -> Windows:
        """With all on `device` but what is kept clip by clip."""
        return Windows(*(part if isinstance(part, list) else part.to(device) for part in self))


def load_windows(profile, table, backbones, state: bool = True) -> Windows:
    """Features of the rows of `table`, window by window, with their captions' text vectors.

    Without `state`, `dpc` holds zeros: for training in which every window of a batch computes it anew.
    """
    cache = cache_folder(profile)
    features = [load_features(feature_file(cache, row)) for row in table.itertuples()]
    counts = [len(f.timesformer) for f in features]
    place = torch.cat([torch.stack([torch.full((n,), i), torch.arange(n)], 1) for i, n in enumerate(counts)])
    captions = list(dict.fromkeys(table.caption))
    number = torch.tensor([captions.index(caption) for caption in table.caption])[place[:, 0]]
    text = encode_captions(backbones.clip, captions, backbones.vocabulary)
    scene, width = torch.cat([f.scene for f in features]), backbones.dpc.backbone.channels
    return Windows(
        timesformer=torch.cat([f.timesformer for f in features]),
        dpc=dpc_context(backbones.dpc, [f.stem for f in features]) if state else torch.zeros(len(scene), width),
        scene=scene,
        context=scene,
        place=place,
        text=text[number],
        caption=number,
        stem=[f.stem for f in features],
        cell_motion=[f.cell_motion for f in features],
    )


@torch.autocast("cpu", enabled=False)  # which cannot stack float16
def gather_blocks(clips: list[Tensor], place: Tensor) -> Tensor:
    """Blocks of chosen windows, [B, NUM_BLOCKS, ...], from blocks per clip: `place` [B, 2] holds clip and window."""
    return torch.stack([window_blocks(clips[clip])[window] for clip, window in place.tolist()])


@torch.no_grad()
def dpc_context(dpc: DPC, stem: list[Tensor]) -> Tensor:
    """GRU state's mean over space of every window, [W, D_dpc]."""
    parts = []
    for blocks in stem:
        features = dpc.encode_from_stem(blocks[None].float())[0]  # [N, D, h, w]
        windows = window_blocks(features)  # [W, NUM_BLOCKS, D, h, w]
        parts.append(dpc.predict(windows).context.mean((-2, -1)))
    return torch.cat(parts)


def with_context(windows: Windows, source: str, seed: int) -> Windows:
    """The windows with what a control shows to the gate instead of the scene.

    Args:
        source: `scene`; `shuffled`: the scene of another clip, drawn anew for every window; `zero`: nothing; `global`: the
            video feature.
        seed: of the draw.
    """
    if source == "global":
        return windows._replace(context=windows.timesformer)
    if source == "zero":
        return windows._replace(context=torch.zeros_like(windows.scene))
    if source == "shuffled":
        order = torch.randperm(len(windows.scene), generator=torch.Generator().manual_seed(seed))
        return windows._replace(context=windows.scene[order])
    return windows
