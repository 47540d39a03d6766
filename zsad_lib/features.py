"""Frozen features, computed once per video: one decode serves every stream.

The window plan: a window is N blocks of L frames and windows start on the block grid, so that overlapping windows
share their blocks, and the costly lower layers of the predictive stream run once per block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad_lib import paths
from zsad_lib.backbones import (
    IMAGENET,
    KINETICS,
    STAND_IN_SIZE,
    WEIGHTS,
    Backbones,
    cell_motion,
    frame_differences,
    normalise,
    stand_ins,
    weights_folder,
)
from zsad_lib.errors import ZsadError
from zsad_lib.manifest import load_manifest
from zsad_lib.motion import blurred_change
from zsad_lib.released import acting_in
from zsad_lib.video import iter_frames, resize
from zsad_lib.weights import load_weights
from zsad_lib.workers import parallel

BLOCK_LEN = 5  # frames per block of the predictive stream
NUM_BLOCKS = 6  # blocks per window: 30 frames
WINDOW = BLOCK_LEN * NUM_BLOCKS
CLIP_FRAMES = tuple(range(0, WINDOW, 4))  # the eight frames of a window that TimeSformer sees
MIDDLE_FRAME = WINDOW // 2  # the frame that tells the scene
CHUNK_BLOCKS = 60  # blocks held in memory at a time; 300 frames
TENSORS = ("timesformer", "scene", "stem", "cell_motion", "motion")
TOUCHED = {  # defect that acts on features -> the streams that it changes
    "dpc_order": ("stem", "cell_motion"),
    "position_size": ("timesformer",),
    "scene_weights": ("scene",),
    "one_normalisation": ("scene", "stem", "cell_motion"),
    "batch_statistics": ("stem",),
}


class VideoFeatures(NamedTuple):
    """Frozen features of one video with W windows and N blocks."""

    timesformer: Tensor  # [W, D] class feature
    scene: Tensor  # [W, S] pooled feature of the middle frame
    stem: Tensor  # [N, C', L', h', w'] predictive stream up to layer3, float16
    cell_motion: Tensor  # [N, h, w] mean absolute frame difference per cell of the predictive grid
    motion: Tensor  # [T] maximum of the blurred frame difference, grey levels; the content-free motion floor
    n_frames: int


def window_count(n_frames: int) -> int:
    """Windows of a video: every start on the block grid, at least one (short videos repeat their last frame)."""
    return max(1, n_frames // BLOCK_LEN - NUM_BLOCKS + 1)


def window_blocks(stem: Tensor) -> Tensor:
    """Blocks of all windows, as a view: [N, ...] -> [W, NUM_BLOCKS, ...]."""
    return stem.unfold(0, NUM_BLOCKS, 1).movedim(-1, 1)


def to_frames(windows: np.ndarray, n_frames: int, causal: bool = False, before: float | None = None) -> np.ndarray:
    """Frame scores from window scores: s(t) = mean of s_w over the windows w that cover frame t (the kit's reading).

    A frame gets the mean over the windows that cover it; the last window also covers the up to four frames after it. Causal: a frame gets
    the latest window that has ENDED by then.

    Args:
        windows: [..., W] scores, window i starts at frame i * BLOCK_LEN.
        n_frames: T, frames of the video.
        causal: use only windows whose last frame is not later than the frame itself.
        before: causal only: score of the frames before the first window has ended.

    Returns:
        [..., T] float64.
    """
    windows, t = np.asarray(windows, np.float64), np.arange(n_frames)
    count = windows.shape[-1]
    if causal:
        latest = np.minimum((t - WINDOW + 1) // BLOCK_LEN, count - 1)
        return np.where(latest < 0, before, windows[..., np.maximum(latest, 0)])
    first = np.clip((t - WINDOW) // BLOCK_LEN + 1, 0, count - 1)  # earliest window that covers the frame
    last = np.clip(t // BLOCK_LEN, 0, count - 1)
    total = np.concatenate([np.zeros((*windows.shape[:-1], 1)), np.cumsum(windows, -1)], -1)
    return (total[..., last + 1] - total[..., first]) / (last + 1 - first)


def chunks(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Frames [H, W, 3] in pieces that overlap by a window less one block, so that every window lies in exactly one piece.

    Yields:
        Piece uint8 [1 + t, H, W, 3]: the frame before the piece (at the start: the first frame once more), then t frames, a multiple of
        BLOCK_LEN and at least WINDOW; and the number of its blocks that no earlier piece held.
    """
    held: list[np.ndarray] = []
    carried = 0  # blocks of `held` that an earlier piece already gave
    for frame in frames:
        held += [frame] if held else [frame, frame]
        if len(held) == 1 + CHUNK_BLOCKS * BLOCK_LEN:
            yield np.stack(held), CHUNK_BLOCKS - carried
            carried = NUM_BLOCKS - 1
            held = held[-carried * BLOCK_LEN - 1 :]
    if not carried:
        held += [held[-1]] * (1 + WINDOW - len(held))  # a short video repeats its last frame
    whole = (len(held) - 1) // BLOCK_LEN
    if whole > carried:
        yield np.stack(held[: 1 + whole * BLOCK_LEN]), whole - carried


class Extractor:
    """Frozen streams applied to pieces of video.

    Args:
        backbones: the streams.
        released: defect switches that act on features (`released.DEFECTS`).
    """

    def __init__(self, backbones: Backbones, released: tuple[str, ...] = ()):
        self.backbones, self.released = backbones, released
        self.size = backbones.timesformer.patch_embed.img_size
        if "position_size" in released:
            patch = backbones.timesformer.patch_embed.patch_size[0]
            self.size = tuple(-(-side * 244 // 224 // patch) * patch for side in self.size)  # at least one patch more
            backbones.timesformer.set_image_size(self.size)
        if "scene_weights" in released:
            torch.manual_seed(0)
            for module in backbones.scene.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()

    @torch.no_grad()
    def windows(self, piece: Tensor, streams: Collection[str] = TENSORS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Streams of one piece of `chunks`, uint8 [1 + t, H, W, 3]; those that are not among `streams` are empty.

        Returns:
            TimeSformer features [W, D], scene features [W, S], predictive stream up to layer3 [t / BLOCK_LEN, ...] in
            float16, motion per cell [t / BLOCK_LEN, h, w].
        """
        b, frames = self.backbones, piece[1:]
        starts = torch.arange(0, len(frames) - WINDOW + 1, BLOCK_LEN)
        statistics = KINETICS if "one_normalisation" in self.released else IMAGENET
        timesformer = scene = stem = moving = torch.empty(0)
        if "timesformer" in streams:
            clips = normalise(frames, KINETICS)[starts[:, None] + torch.tensor(CLIP_FRAMES)]  # [W, T, 3, H, W]
            if clips.shape[-2:] != self.size:
                clips = F.interpolate(clips.flatten(0, 1), self.size, mode="bilinear").unflatten(0, clips.shape[:2])
            timesformer = torch.cat([b.timesformer.features(part.transpose(1, 2)) for part in clips.split(16)])
        if "scene" in streams:
            scene = b.scene(normalise(frames[starts + MIDDLE_FRAME], statistics))
        if "stem" not in streams:
            return timesformer, scene, stem, moving
        motion = frame_differences(piece, statistics)[1:]
        if "dpc_order" in self.released:  # [N*L, C, H, W] read as [N, C, L, H, W]
            blocks = motion.reshape(-1, 3, BLOCK_LEN, *motion.shape[-2:])
        else:
            blocks = motion.unflatten(0, (-1, BLOCK_LEN)).transpose(1, 2)  # [N, 3, L, H, W]
        stem = torch.cat([b.dpc.stem(part[None])[0] for part in blocks.split(20)])
        return timesformer, scene, stem.half(), cell_motion(blocks, stem.shape[-2:])

    def video(self, path: str | Path, unswitched: VideoFeatures | None = None) -> VideoFeatures:
        """All features of one video; its frames are decoded once.

        Args:
            path: of the video.
            unswitched: its features without any defect: streams that no switch touches are taken from there.
        """
        if unswitched is not None:
            touched = {stream for name in self.released for stream in TOUCHED[name]}
            pieces = chunks(iter_frames(path, size=STAND_IN_SIZE))
            parts = [(self.windows(torch.from_numpy(piece), touched), new) for piece, new in pieces]
            parts = [
                (timesformer, scene, stem[-new:], moving[-new:]) for (timesformer, scene, stem, moving), new in parts
            ]
            joined = {name: torch.cat(values) for name, values in zip(TENSORS, zip(*parts)) if name in touched}
            return unswitched._replace(**joined)
        motion, previous = [], None

        def small_frames() -> Iterator[np.ndarray]:
            nonlocal previous
            for frame in iter_frames(path):
                grey = frame @ np.full(3, 1 / 3, np.float32)
                motion.append(0.0 if previous is None else float(blurred_change(grey, previous).max()))
                previous = grey
                yield resize(frame, STAND_IN_SIZE)

        parts = []
        for piece, new in chunks(small_frames()):
            timesformer, scene, stem, moving = self.windows(torch.from_numpy(piece))
            parts.append((timesformer, scene, stem[-new:], moving[-new:]))
        motion[0] = motion[min(1, len(motion) - 1)]  # the first frame has no predecessor
        joined = (torch.cat(values) for values in zip(*parts))
        return VideoFeatures(*joined, motion=torch.tensor(np.array(motion), dtype=torch.float32), n_frames=len(motion))


def cache_folder(profile) -> Path:
    """Folder of the features, named by all that they depend on but the videos: weights, plan, defect switches."""
    hashes = [load_weights(weights_folder(profile) / name)[1]["sha256"] for name in WEIGHTS]
    key = json.dumps([hashes, BLOCK_LEN, NUM_BLOCKS, CLIP_FRAMES, acting_in(profile.released, "features")])
    return paths.cache() / "features" / hashlib.sha256(key.encode()).hexdigest()[:12]


def feature_file(folder: Path, row) -> Path:
    """Feature file of one manifest row; its name holds a hash of the video's path and size."""
    stat = Path(row.path).stat()
    identity = hashlib.sha256(f"{row.path} {stat.st_size}".encode()).hexdigest()[:8]
    return folder / f"{row.video}-{identity}.safetensors"


def save_features(path: Path, features: VideoFeatures) -> None:
    """Write one video's features, whole or not at all."""
    with paths.atomic(path, mode=None) as temporary:
        save_file(
            {name: getattr(features, name).contiguous() for name in TENSORS},
            temporary,
            {"n_frames": str(features.n_frames)},
        )


def load_features(path: Path) -> VideoFeatures:
    """Read one video's features."""
    with safe_open(path, framework="pt") as file:
        return VideoFeatures(
            **{name: file.get_tensor(name) for name in TENSORS}, n_frames=int(file.metadata()["n_frames"])
        )


def extract(profile, folder: Path) -> dict:
    """Pipeline step: features of every video in the manifest; finished videos are kept, so an interrupted run goes on."""
    table = load_manifest(folder.parent / "data")
    cache = paths.make_folder(cache_folder(profile))
    missing = [row for row in table.itertuples() if not feature_file(cache, row).exists()]
    switches = acting_in(profile.released, "features")
    tasks = [missing[i : i + 32] for i in range(0, len(missing), 32)]
    done = 0
    unswitched = cache_folder(dataclasses.replace(profile, released=()))
    more = cache, switches, weights_folder(profile), unswitched
    for count in parallel(_extract, [(task, *more) for task in tasks], profile.jobs):
        done += count
        print(f"  features of {done} of {len(missing)} videos", flush=True)
    return {"metrics": {"videos": len(table), "computed": len(missing)}, "artefacts": {"cache": str(cache)}}


def _extract(rows: list, cache: Path, switches: tuple[str, ...], weights: Path, unswitched: Path) -> int:
    torch.set_num_threads(1)
    norm_stats = "batch" if "batch_statistics" in switches else "running"
    extractor = Extractor(stand_ins(weights, norm_stats), switches)
    for row in rows:
        right = feature_file(unswitched, row)
        features = extractor.video(row.path, load_features(right) if switches and right.exists() else None)
        if features.n_frames != row.n_frames:
            raise ZsadError(
                f"{row.path}: {features.n_frames} frames decoded, the manifest says {row.n_frames}; prepare the data again"
            )
        save_features(feature_file(cache, row), features)
    return len(rows)
