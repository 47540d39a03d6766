"""Frozen features, computed once per video: one decode serves every stream.

The window plan: a window is N blocks of L frames and windows start on the block grid, so that overlapping windows
share their blocks, and the costly lower layers of the predictive stream run once per block.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import (
    IMAGENET,
    KINETICS,
    OPENAI_CLIP,
    Backbones,
    cell_motion,
    device,
    frame_differences,
    normalise,
    processes,
    streams,
)
from zsad_lib.features.cache import (
    TENSORS,
    TOUCHED,
    VideoFeatures,
    cache_folder,
    feature_file,
    find_features,
    save_features,
)
from zsad_lib.features.motion_floor import blurred_change
from zsad_lib.features.window_plan import BLOCK_LEN, CHUNK_BLOCKS, CLIP_FRAMES, MIDDLE_FRAME, NUM_BLOCKS, WINDOW, chunks
from zsad_lib.files import paths
from zsad_lib.files.decoding import resize
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import iter_frames
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.models.checkpoints import load_strict
from zsad_lib.models.dense_clip import encode_densely
from zsad_lib.models.dpc import DPC, NORM_STATISTICS, estimate_norm_stats
from zsad_lib.models.regions import choose_patches, find_regions
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.processes import parallel
from zsad_lib.released_defects import acting_in

NORM_VIDEOS = 64  # normal training videos that norm statistics are measured on
NORM_STATS = "dpc_norm_stats.safetensors"
TOGETHER = 32  # videos that a process extracts before it says so
STORED = {"stem": torch.float16, "region": torch.float16, "region_at": torch.int16}  # the others are float32


def window_blocks(stem: Tensor) -> Tensor:
    """Blocks of all windows, as a view: [N, ...] -> [W, NUM_BLOCKS, ...]."""
    return stem.unfold(0, NUM_BLOCKS, 1).movedim(-1, 1)


def encode_long(dpc: DPC, stem: Tensor) -> Tensor:
    """Layer4 of any number of blocks, `CHUNK_BLOCKS` at a time: cached [B, N, C', L', h', w'] -> [B, N, D, h, w], on
    the model's device."""
    where = next(dpc.parameters()).device
    return torch.cat([dpc.encode_from_stem(blocks.to(where).float()) for blocks in stem.split(CHUNK_BLOCKS, 1)], 1)


class Extractor:
    """Frozen streams applied to pieces of video.

    Args:
        backbones: the streams; they are moved to the GPU where there is one.
        released: defect switches that act on features (`released.DEFECTS`).
        stride: every stride-th frame is used.
        precision: "bf16" or "fp16": forward passes in this precision; what is stored stays float32 (the stem float16).
        look_every: CLIP's image tower sees every so many-th of the frames, and each of the others takes the one before.
            The length of a block or a divisor of it.
    """

    def __init__(
        self,
        backbones: Backbones,
        released: tuple[str, ...] = (),
        stride: int = 1,
        precision: str = "no",
        look_every: int = 1,
    ):
        self.backbones, self.released, self.stride = backbones.to(device()), released, stride
        self.look_every = look_every
        self.dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.decoded = self.size = backbones.size
        if "position_size" in released:
            patch = backbones.timesformer.patch_embed.patch_size[0]
            self.size = tuple(-(-side * 244 // 224 // patch) * patch for side in self.size)  # at least one patch more
            backbones.timesformer.set_image_size(self.size)
        if "scene_weights" in released:
            torch.manual_seed(0)
            for module in backbones.scene.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()

    def blocks(self, piece: Tensor) -> tuple[Tensor, Tensor]:
        """What the predictive stream reads of a piece of `chunks`, and the frame differences in the same form: [N, 3,
        L, h, w] each."""
        statistics, size = self.statistics, self.backbones.dpc.block_shape[-2:]
        moving = frame_differences(piece, statistics)[1:]
        read = moving if self.backbones.differences else normalise(piece[1:], statistics)
        return tuple(self._as_blocks(_resized(x, size)) for x in (read, moving))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Pixel statistics of the predictive and the scene stream."""
        return KINETICS if "one_normalisation" in self.released else IMAGENET

    def _as_blocks(self, x: Tensor) -> Tensor:
        if "dpc_order" in self.released:  # [N*L, C, H, W] read as [N, C, L, H, W]
            return x.reshape(-1, 3, BLOCK_LEN, *x.shape[-2:])
        return x.unflatten(0, (-1, BLOCK_LEN)).transpose(1, 2)  # [N, 3, L, H, W]

    @torch.no_grad()
    def look(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What CLIP's image tower says of every `look_every`-th of some frames, uint8 [t, H, W, 3]: unit vectors of
        pictures [t', E] and, where there are regions, of their patches [t', rows, columns, E]."""
        b, size, pictures, patches = self.backbones, self.backbones.clip.visual.image_size, [], []
        with torch.autocast(device(), self.dtype, enabled=self.dtype is not None):
            for some in frames[:: self.look_every].to(device()).split(16):
                dense = encode_densely(b.clip, _resized(normalise(some, OPENAI_CLIP), size))
                pictures.append(F.normalize(dense.picture.float(), dim=-1))
                if b.named is not None:
                    patches.append(F.normalize(dense.patches.float(), dim=-1))
        return torch.cat(pictures), torch.cat(patches) if patches else torch.empty(0)

    @torch.no_grad()
    def windows(
        self, piece: Tensor, streams: Collection[str] = TENSORS, looked: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Streams of one piece of `chunks`, uint8 [1 + t, H, W, 3]; those that are not among `streams` are empty.

        A piece shorter than a window holds blocks alone: it serves the stream "stem". `looked` is what `look` says of
        its frames, where that is known.

        Returns:
            TimeSformer features [W, D], scene features [W, S], predictive stream up to layer3 [t / BLOCK_LEN, ...] in
            float16, motion per cell [t / BLOCK_LEN, h, w], vectors of the regions [R, E] in float16, and their places
            [R, 4] in int16; regions come with the stream "timesformer".
        """
        piece = piece.to(device())
        with torch.autocast(device(), self.dtype, enabled=self.dtype is not None):
            features = dict(zip(TENSORS, self._windows(piece, streams, looked)))
        return tuple(x.to("cpu", STORED.get(name, torch.float32)) for name, x in features.items())

    def _windows(
        self, piece: Tensor, streams: Collection[str], looked: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, ...]:
        b, frames = self.backbones, piece[1:]
        starts = torch.arange(0, max(0, len(frames) - WINDOW + 1), BLOCK_LEN, device=piece.device)
        timesformer = scene = stem = moving = torch.empty(0)
        region, region_at = torch.empty(0, b.text_dim), torch.empty(0, 4)
        if "timesformer" in streams:
            clips = starts[:, None] + torch.tensor(CLIP_FRAMES, device=piece.device)  # [W, T]
            timesformer = piece.new_empty((len(clips), 0), dtype=torch.float32)
            if b.timesformer is not None:
                pixels = _resized(normalise(frames, KINETICS), self.size)  # [t, 3, H, W]
                videos = (pixels[some].transpose(1, 2) for some in clips.split(16))  # [B, 3, T, H, W]
                tokens = torch.cat([self._needed(b.timesformer.tokens(video)) for video in videos])
                timesformer = tokens[:, 0]
            if b.region_head is not None:
                grid = b.timesformer.patch_embed.grid_size
                region, region_at = find_regions(tokens, grid, b.region_head, b.objectness)
            if b.image_tower:
                picture, patches = looked or self.look(frames)
                clips = clips // self.look_every
                timesformer = torch.cat([timesformer, F.normalize(picture[clips].mean(1), dim=-1)], 1)
                if b.named is not None:
                    parts = [choose_patches(patches[some], b.named) for some in clips.split(16)]
                    region = torch.cat([part.vector for part in parts])
                    shift = torch.arange(len(parts), device=piece.device) * 16
                    region_at = torch.cat([part.at + F.pad(n[None], (0, 3)) for part, n in zip(parts, shift)])
        if "scene" in streams:
            middle = frames[starts + MIDDLE_FRAME]
            scene = torch.zeros(len(middle), b.scene_dim)
            if b.scene is not None:
                scene = b.scene(_resized(normalise(middle, self.statistics), self.decoded))
        if "stem" in streams and b.dpc is not None:
            blocks, moved = self.blocks(piece)
            stem = torch.cat([b.dpc.stem(some[None])[0] for some in blocks.split(20)])
            stride = b.dpc.backbone.layer4[0].conv1.stride[-1]  # prediction happens on layer4's grid
            moving = cell_motion(moved, tuple(-(-side // stride) for side in stem.shape[-2:]))
        return timesformer, scene, stem, moving, region, region_at

    def _needed(self, tokens: Tensor) -> Tensor:
        """Without the patches' tokens, where no head reads them."""
        return tokens if self.backbones.region_head is not None else tokens[:, :1]

    def video(self, path: str | Path, unswitched: VideoFeatures | None = None) -> VideoFeatures:
        """All features of one video; its frames are decoded once.

        Args:
            path: of the video.
            unswitched: its features without any defect: streams that no switch touches are taken from there.
        """
        streams = set(TENSORS)
        if unswitched is not None:
            streams = {stream for name in self.released for stream in TOUCHED[name]}
        motion, previous, decoded = [], None, 0

        def small_frames() -> Iterator[np.ndarray]:
            nonlocal previous, decoded
            for decoded, frame in enumerate(iter_frames(path), start=1):
                if (decoded - 1) % self.stride:
                    continue
                if "motion" in streams:
                    grey = frame @ np.full(3, 1 / 3, np.float32)
                    motion.append(0.0 if previous is None else float(blurred_change(grey, previous).max()))
                    previous = grey
                yield resize(frame, self.decoded)

        parts, earlier = [], 0
        for piece, new in chunks(small_frames()):
            timesformer, scene, stem, moving, region, at = self.windows(torch.from_numpy(piece), streams)
            at[:, 0] += earlier
            earlier += len(timesformer)
            parts.append((timesformer, scene, stem[-new:], moving[-new:], region, at))
        joined = {name: torch.cat(values) for name, values in zip(TENSORS, zip(*parts)) if name in streams}
        if unswitched is not None:
            return unswitched._replace(**joined)
        motion[0] = motion[min(1, len(motion) - 1)]  # the first frame has no predecessor
        return VideoFeatures(**joined, motion=torch.tensor(np.array(motion), dtype=torch.float32), n_frames=decoded)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [..., 3, H, W] in another size, where it is another one."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear", antialias=True)


def extract(profile: Profile, folder: Path) -> dict:
    """Pipeline step: features of every video in the manifest; finished videos are kept, so an interrupted run goes
    on."""
    table, computed = extract_share(profile, folder.parent)
    cache = cache_folder(profile)
    files = [feature_file(cache, row) for row in table.itertuples()]
    metrics = {"videos": len(table), "computed": computed}
    return {"metrics": metrics, "artefacts": {"cache": str(cache)}, "files": [*files, *cache.glob(NORM_STATS)]}


def extract_share(profile: Profile, run: Path, shard: tuple[int, int] = (0, 1)) -> tuple[pd.DataFrame, int]:
    """Features that are missing, of every n-th video from the i-th on (`shard` i, n): machines that see one cache share
    the work.

    Abnormal training videos are left out: this method never sees them.

    Returns:
        The manifest's rows of all videos, and how many were computed.
    """
    table = load_manifest(run / "data")
    table = table[(table.split != "train") | (table.family == "normal")]
    cache, (number, count) = paths.make_folder(cache_folder(profile)), shard
    missing = [row for row in table.iloc[number::count].itertuples() if find_features(feature_file(cache, row)) is None]
    if missing and profile.backbones == "official":
        fit_norm_stats(profile, table)
    tasks = [(profile, missing[i : i + TOGETHER]) for i in range(0, len(missing), TOGETHER)]
    extracted = parallel(_extract, tasks, processes(profile.jobs))
    for _ in report_progress(extracted, "videos with features", len(missing), TOGETHER):
        pass
    return table, len(missing)


def extractor(profile: Profile) -> Extractor:
    """The profile's streams with its defects, stride and precision."""
    switches = acting_in(profile.released, "features")
    norm_stats = "batch" if "batch_statistics" in switches else "running"
    return Extractor(frozen_streams(profile, norm_stats), switches, profile.stride, profile.mixed_precision)


def frozen_streams(profile: Profile, norm_stats: str = "running") -> Backbones:
    """`streams`, the published predictive stream with the norm statistics that `fit_norm_stats` measured."""
    backbones, measured = streams(profile, norm_stats), cache_folder(profile) / NORM_STATS
    if profile.backbones == "official" and norm_stats == "running" and measured.exists():
        load_strict(backbones.dpc, backbones.dpc.state_dict() | load_weights(measured)[0], file=measured)
    return backbones


def fit_norm_stats(profile: Profile, table: pd.DataFrame) -> None:
    """Measures the published predictive stream's norm statistics on normal training video, which official DPC does not
    store (defect 7).

    One batch of `CHUNK_BLOCKS` blocks from the middle of each of up to `NORM_VIDEOS` videos, evenly drawn from the
    list; stored beside the features.

    Raises:
        ZsadError: there is no normal training video.
    """
    target = cache_folder(profile) / NORM_STATS
    if target.exists() or "batch_statistics" in profile.released:
        return
    normal = table[(table.split == "train") & (table.family == "normal")]
    evenly = np.linspace(0, len(normal) - 1, min(NORM_VIDEOS, len(normal)))  # empty without normal video
    drawn = normal.iloc[np.unique(evenly.astype(int))]
    print(f"  norm statistics of the predictive stream, from {len(drawn)} normal training videos", flush=True)
    tool = Extractor(streams(profile), stride=profile.stride)

    def batches() -> Iterator[Tensor]:
        for row in drawn.itertuples():
            first = max(0, row.n_frames // 2 - CHUNK_BLOCKS * BLOCK_LEN * profile.stride // 2)
            frames = itertools.islice(iter_frames(row.path, size=tool.decoded), first, None, profile.stride)
            piece, _ = next(chunks(frames))
            yield tool.blocks(torch.from_numpy(piece).to(device()))[0][None]

    with torch.no_grad():
        estimate_norm_stats(tool.backbones.dpc, batches())
    state = tool.backbones.dpc.state_dict()
    measured = {name: value for name, value in state.items() if name.endswith(NORM_STATISTICS)}
    save_weights(target, measured, {"videos": list(drawn.video)})


def _extract(profile: Profile, rows: list) -> int:
    if device() == "cpu":
        torch.set_num_threads(1)
    tool, cache = extractor(profile), cache_folder(profile)
    unswitched = cache_folder(dataclasses.replace(profile, released=()))
    for row in rows:
        features = tool.video(row.path, find_features(feature_file(unswitched, row)) if tool.released else None)
        if features.n_frames != row.n_frames:
            raise ZsadError(
                f"{row.path}: {features.n_frames} frames decoded, the manifest says {row.n_frames}; prepare the data"
                " again"
            )
        save_features(feature_file(cache, row), features)
    return len(rows)
