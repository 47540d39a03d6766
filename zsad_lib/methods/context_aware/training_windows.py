"""What joint training reads: windows of captioned normal video, their frozen features and their captions' text
vectors."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones, paper_clip
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.features.extraction import encode_long, window_blocks
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS, OBSERVED, window_count
from zsad_lib.files.manifest import load_manifest
from zsad_lib.methods.context_aware.region_pairs import RegionPairs, load_pairs
from zsad_lib.models.dpc import DPC
from zsad_lib.models.text import encode_captions

SEGMENT_WINDOWS = 4  # training windows of one caption of a long video, at most
WINDOWS_AT_ONCE = 512  # whose GRU state is computed at a time


class Windows(NamedTuple):
    """W windows of some clips: features and, in training, what they show."""

    timesformer: Tensor  # [W, D]
    dpc: Tensor  # [W, D_dpc] mean over space of the pretrained predictive stream's GRU state
    scene: Tensor  # [W, S] tells scenes apart
    context: Tensor  # [W, S'] what the gate sees: the scene too, or a control
    clip_and_block: Tensor  # [W, 2] index of the clip, and of the window's first block in it
    text: Tensor  # [W, D_text] unit vectors of the clips' captions, before the gate
    caption: Tensor  # [W] number of the caption
    stem: list[Tensor]  # per clip [N, C', L', h', w'], float16
    cell_motion: list[Tensor]  # per clip [N, h, w]
    pairs: RegionPairs | None = None  # what a local read-out learns from
    predicted: Tensor | None = None  # [P, 2] as `clip_and_block`: all windows, of the reversed clips too
    paper_text: Tensor | None = None  # `text` by the published form's text tower, where that is another one

    def to(self, device: torch.device) -> Windows:
        """With all on `device` but what is kept clip by clip."""
        moved = (field if field is None or isinstance(field, list) else field.to(device) for field in self)
        return Windows(*moved)


def load_windows(
    profile: Profile, table: pd.DataFrame, backbones: Backbones, state: bool = True, regions: bool = True
) -> Windows:
    """Features of the rows of `table`, window by window, with their captions' text vectors.

    Args:
        table: rows of the manifest with a caption each; a column `windows` names the windows of a row, else it is all
            of them.
        state: False: `dpc` holds zeros, for training in which every window of a batch computes it anew.
        regions: False: without what a local read-out learns from; it is there where the streams have regions.
    """
    cache = cache_folder(profile)
    rows = table.drop_duplicates("video").itertuples()
    by_video = {row.video: load_features(feature_file(cache, row)) for row in rows}
    clips = [by_video[video] for video in table.video]
    listed = table["windows"] if "windows" in table else [np.arange(len(clip.timesformer)) for clip in clips]
    starts = [torch.from_numpy(np.asarray(windows)) for windows in listed]  # per clip: first block of each window
    pairs = [torch.stack([torch.full_like(first, clip), first], 1) for clip, first in enumerate(starts)]
    clip_and_block = torch.cat(pairs)
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(table.caption))}
    caption = torch.tensor([numbers[caption] for caption in table.caption])[clip_and_block[:, 0]]
    text = encode_captions(backbones.clip, list(numbers), backbones.vocabulary).cpu()
    scene = torch.cat([clip.scene[first] for clip, first in zip(clips, starts)])
    dpc = torch.zeros(len(scene), backbones.dpc.backbone.channels)
    if state:
        states = {video: dpc_context(backbones.dpc, [clip.stem]) for video, clip in by_video.items()}
        dpc = torch.cat([states[video][first] for video, first in zip(table.video, starts)])
    paper_text = None
    if profile.backbones == "official":
        clip, vocabulary = paper_clip(profile, backbones)
        paper_text = encode_captions(clip, list(numbers), vocabulary).cpu()[caption]
    local = regions and backbones.has_regions
    whole = [(len(clips) + i, n) for i, clip in enumerate(by_video.values()) for n in range(len(clip.timesformer))]
    return Windows(
        timesformer=torch.cat([clip.timesformer[first] for clip, first in zip(clips, starts)]),
        dpc=dpc,
        scene=scene,
        context=scene,  # what the gate sees; `with_context` replaces it
        clip_and_block=clip_and_block,
        text=text[caption],
        caption=caption,
        stem=[clip.stem for clip in (*clips, *by_video.values())],
        cell_motion=[clip.cell_motion for clip in (*clips, *by_video.values())],
        pairs=load_pairs(profile, table, backbones) if local else None,
        predicted=torch.tensor(whole) if local else None,
        paper_text=paper_text,
    )


def captioned(table: pd.DataFrame, captions: pd.DataFrame, stride: int) -> pd.DataFrame:
    """A row per caption of a normal video, with the windows that it speaks of.

    Up to `SEGMENT_WINDOWS` of those that lie inside the caption's time, evenly drawn; of a shorter caption the one
    around its middle.

    Args:
        table: manifest rows.
        captions: `video`, `start_s`, `end_s`, `caption`; those of other videos are left out.
        stride: frames from one seen frame to the next.

    Returns:
        The rows of `table` with another `caption`, and `windows`, numbers from 0.
    """
    rows = table.drop(columns="caption").merge(captions[["video", "start_s", "end_s", "caption"]], on="video")
    windows = []
    for row in rows.itertuples():
        rate, count = row.fps / (BLOCK_LEN * stride), window_count(-(-row.n_frames // stride))  # blocks per second
        first, last = math.ceil(row.start_s * rate), math.floor(row.end_s * rate) - NUM_BLOCKS
        if last < first:
            first = last = round((row.start_s + row.end_s) / 2 * rate - NUM_BLOCKS / 2)
        ends = np.clip([first, last], 0, count - 1)
        windows.append(np.unique(np.linspace(*ends, min(SEGMENT_WINDOWS, ends[1] - ends[0] + 1)).round().astype(int)))
    return rows.assign(windows=windows)


@torch.autocast("cpu", enabled=False)  # which cannot stack float16
def gather_blocks(clips: list[Tensor], indices: Tensor, count: int = NUM_BLOCKS) -> Tensor:
    """The first `count` blocks of some windows, [B, count, ...], from blocks per clip: `indices` [B, 2] of clip and
    first block."""
    return torch.stack([clips[clip][block : block + count] for clip, block in indices.tolist()])


@torch.no_grad()
def dpc_context(dpc: DPC, stem: list[Tensor]) -> Tensor:
    """GRU state's mean over space of every window, [W, D_dpc]."""
    means = []
    for blocks in stem:
        read = window_blocks(dpc.read(encode_long(dpc, blocks[None])[0]))[:, :OBSERVED]  # [W, O, 3 D, h, w]
        means += [dpc.sum_up(few).mean((-2, -1)).cpu() for few in read.split(WINDOWS_AT_ONCE)]
    return torch.cat(means)


def with_context(windows: Windows, source: str, seed: int) -> Windows:
    """The windows with what a control shows to the gate instead of the scene.

    Args:
        source: `scene`; `shuffled`: the scene of another clip, drawn anew for every window; `zero`: nothing; `global`:
            the video feature.
        seed: of the draw.
    """
    if source == "global":
        return windows._replace(context=windows.timesformer)
    shown = {"zero": torch.zeros_like, "shuffled": functools.partial(_shuffled, seed=seed)}.get(source)
    if shown is None:
        return windows
    pairs = windows.pairs and windows.pairs._replace(context=shown(windows.pairs.scene))
    return windows._replace(context=shown(windows.scene), pairs=pairs)


def _shuffled(scene: Tensor, seed: int) -> Tensor:
    return scene[torch.randperm(len(scene), generator=torch.Generator().manual_seed(seed))]


def training_rows(run: Path, stride: int) -> pd.DataFrame:
    """The captioned normal training videos of a run's manifest.

    Raises:
        ZsadError: abnormal frames among them, or a data set without captions.
    """
    table = load_manifest(run / "data")
    table = table[(table.split == "train") & (table.family == "normal")]
    if (table.spans != "").any():
        raise ZsadError(
            f"{run / 'data'}: the training list holds abnormal frames; this method trains on normal video only"
        )
    if (listed := run / "data" / "captions.csv").exists():
        table = captioned(table, pd.read_csv(listed), stride)
    if (table.caption == "").any() or table.empty:
        raise ZsadError(f"{run / 'data'}: no captions of normal training video; this method learns from captions")
    return table
