"""CLIP image features of every frame of every video: what AnomalyCLIP reads (https://arxiv.org/abs/2310.02835, Sec. 4.1).

One file per video, written whole or not at all, so that an interrupted extraction goes on where it was; processes and machines share
a folder of videos by `shard`. The header says what made a file: model, weights, preprocessing, decoder, version.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zsad_lib import paths
from zsad_lib.backbones import OPENAI_CLIP, STAND_IN_SIZE, normalise, stand_ins, weights_folder
from zsad_lib.errors import ZsadError
from zsad_lib.manifest import load_manifest
from zsad_lib.models.text import build_clip
from zsad_lib.video import IMAGE_SUFFIXES, iter_frames, resize
from zsad_lib.weights import tensors_sha256
from zsad_lib.workers import parallel

VERSION = 1  # of the file format and of what is computed
DECODER = "pyav"  # `iter_frames` streams through PyAV
BATCH = (
    32  # frames per forward pass; larger ones run slower on a CPU, whose allocator then fetches fresh memory each time
)
VIDEOS_PER_TASK = 16  # between two lines of progress
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


@dataclasses.dataclass
class FrameEncoder:
    """A CLIP image tower with its preprocessing.

    Args:
        clip: model of `build_clip`.
        size: (height, width) in pixels that it sees.
        crop: shorter side to `size`, then one centre crop, as published; False: the whole frame, resized to `size` (stand-ins).
        name: of the architecture, for the header.
    """

    clip: nn.Module
    size: tuple[int, int]
    crop: bool = True
    name: str = "ViT-B-16"

    def header(self) -> dict[str, str]:
        """What a feature depends on but the video."""
        how = "shorter side, centre crop" if self.crop else "whole frame"
        return {
            "model": self.name,
            "weights_sha256": tensors_sha256(self.clip.visual.state_dict()),
            "preprocessing": f"{how}, {self.size[0]} x {self.size[1]}, bilinear, mean and deviation of OpenAI's CLIP",
            "decoder": DECODER,
            "version": str(VERSION),
        }

    @torch.no_grad()
    def __call__(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Frames uint8 [H, W, 3] -> raw features [B, D], not of unit length."""
        device = next(self.clip.parameters()).device
        pixels = torch.from_numpy(np.stack([self._fit(frame) for frame in frames])).to(device)
        return self.clip.encode_image(normalise(pixels, OPENAI_CLIP)).float().cpu()

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        if not self.crop:
            return resize(frame, self.size)
        height, width = frame.shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width)
        frame = resize(frame, (max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))))
        top, left = (frame.shape[0] - self.size[0]) // 2, (frame.shape[1] - self.size[1]) // 2
        return frame[top : top + self.size[0], left : left + self.size[1]]


def video_features(encoder: FrameEncoder, path: str | Path) -> Tensor:
    """Features of all decoded frames, [T, D]; one batch of frames in memory at a time.

    Raises:
        ZsadError: missing, empty, truncated or damaged video.
    """
    frames = iter_frames(path)
    return torch.cat([encoder(batch) for batch in iter(lambda: list(itertools.islice(frames, BATCH)), [])])


def extract(
    videos: Sequence[str | Path],
    folder: Path,
    encoder: Callable[[], FrameEncoder],
    shard: tuple[int, int] = (0, 1),
    allow_missing: bool = False,
    jobs: int = 1,
) -> dict[str, Path]:
    """Features of many videos, one file each; what `folder` holds already is kept.

    Args:
        videos: files or folders of frames; names must differ.
        folder: receives ``<stem>.safetensors``.
        encoder: makes model and preprocessing in each process (and should keep them); files of another one are made again.
        shard: (i, n): this machine takes every n-th video from the i-th on, i counts from 0.
        allow_missing: unreadable videos are skipped and counted; otherwise they fail the run after the last one.
        jobs: processes.

    Returns:
        Video -> file, of this shard, without the unreadable ones.

    Raises:
        ZsadError: two videos of one name, or unreadable ones.
    """
    number, count = shard
    if not 0 <= number < count:
        raise ZsadError(f"shard {number} of {count}: shards count from 0 to {count - 1}")
    names = [Path(video).stem for video in videos]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ZsadError(f"{sorted(doubled)[0]}: two videos have this name; feature files would overwrite each other")
    mine, found, broken = sorted(map(Path, videos))[number::count], {}, []
    parts = [mine[i : i + VIDEOS_PER_TASK] for i in range(0, len(mine), VIDEOS_PER_TASK)]
    start = time.monotonic()
    for some, unreadable in parallel(_extract, [(part, folder, encoder) for part in parts], jobs):
        found |= some
        broken += unreadable
        for error in unreadable:
            print(f"  skipped: {error}", file=sys.stderr, flush=True)
        done, spent = len(found) + len(broken), time.monotonic() - start
        left = spent / done * (len(mine) - done)
        print(f"  CLIP features of {done} of {len(mine)} videos, about {left:.0f} s left", flush=True)
    if broken:
        told = f"{len(broken)} of {len(mine)} videos cannot be read, the first: {broken[0]}"
        if not allow_missing:
            raise ZsadError(f"{told}; mend or remove them, or go on without them by ALLOW_MISSING=1")
        print(f"  {told}", file=sys.stderr, flush=True)
    return found


def _extract(videos: list[Path], folder: Path, make: Callable[[], FrameEncoder]) -> tuple[dict[str, Path], list[str]]:
    encoder, found, broken = make(), {}, []
    header = encoder.header()
    for video in videos:
        target = folder / f"{video.stem}.safetensors"
        if not _finished(target, header, video):
            try:
                features = video_features(encoder, video)
            except ZsadError as error:
                broken.append(str(error))
                continue
            with paths.atomic(target, mode=None) as temporary:
                save_file({"features": features.contiguous()}, temporary, {**header, "video": _identity(video)})
        found[video.stem] = target
    return found, broken


@functools.cache
def stand_in_encoder(weights: Path) -> FrameEncoder:
    """The stand-in CLIP's image tower, which sees whole small frames; `weights` is the stand-ins' folder."""
    return FrameEncoder(stand_ins(weights).clip, STAND_IN_SIZE, crop=False, name="stand-in ViT-B-32")


@functools.cache
def official_encoder(pretrained: str) -> FrameEncoder:
    """AnomalyCLIP's ViT-B/16 at 224 pixels; `pretrained` as in `build_clip`: a weight file, or a tag to download."""
    return FrameEncoder(build_clip("ViT-B-16", pretrained).requires_grad_(False), (224, 224))


def extract_listed(profile, folder: Path) -> dict:
    """Pipeline step: features of every video in the weakly labelled manifest, ``<video>.safetensors`` in `folder`."""
    videos = load_manifest(folder.parent / "weak_data").path
    found = extract(videos, folder, functools.partial(stand_in_encoder, weights_folder(profile)), jobs=profile.jobs)
    return {"metrics": {"videos": len(found)}, "artefacts": {}}


def list_videos(folder: str | Path) -> list[Path]:
    """Video files below `folder`, and folders of frames.

    Raises:
        ZsadError: no such folder, or nothing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ZsadError(f"{folder}: no such folder; give the folder with the videos")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    frames = {path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    if not files and not frames:
        raise ZsadError(f"{folder}: no videos below it; expected {', '.join(VIDEO_SUFFIXES)} or folders of frames")
    return files + sorted(frames)


def load(path: str | Path, expected: dict[str, str] | None = None) -> Tensor:
    """Features of one video [T, D], from ``.safetensors`` of this kit or ``.npy`` as AnomalyCLIP's authors publish them.

    Raises:
        ZsadError: missing or damaged file, or made by something else than `expected` (a header) says.
    """
    if Path(path).suffix == ".npy":
        return _load_npy(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            features = file.get_tensor("features")
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such feature file; `make features` writes one per video") from None
    except (SafetensorError, OSError) as error:
        raise ZsadError(f"{path}: not a readable feature file ({error}); delete it and run `make features`") from error
    for name, value in (expected or {}).items():
        if header.get(name) != value:
            raise ZsadError(
                f"{path}: {name} is {header.get(name)!r}, expected {value!r}; delete it and run `make features`"
            )
    return features


def _load_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ZsadError(f"{path}: not a readable .npy file ({error}); fetch it again") from error
    if array.ndim != 2 or not len(array) or not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise ZsadError(
            f"{path}: {array.dtype} of shape {array.shape}; expected finite numbers [T, D], a row per frame"
        )
    return torch.from_numpy(array.astype(np.float32))


def _identity(video: Path) -> str:
    """Name and size; of a folder of frames, of all of them."""
    files = sorted(video.iterdir()) if video.is_dir() else [video]
    sizes = json.dumps([(file.name, file.stat().st_size) for file in files])
    return hashlib.sha256(sizes.encode()).hexdigest()[:16]


def _finished(target: Path, header: dict[str, str], video: Path) -> bool:
    if not target.is_file() or not video.exists():
        return False
    try:
        with safe_open(target, framework="pt") as file:
            return file.metadata() == {**header, "video": _identity(video)}
    except (SafetensorError, OSError):
        return False
