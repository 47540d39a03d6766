"""CLIP image features of every frame of every video: what AnomalyCLIP reads (https://arxiv.org/abs/2310.02835, Sec.
4.1).

One file per video, written whole or not at all, so that an interrupted extraction goes on where it was; processes and
machines share a folder of videos by `shard`. The header says what made a file: model, weights, preprocessing, decoder,
version.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import torch
from torch import Tensor, nn

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import published_weights
from zsad_lib.features.backbones import (
    OPENAI_CLIP,
    STAND_IN_SIZE,
    device,
    normalise,
    processes,
    stand_ins,
    weights_folder,
)
from zsad_lib.features.devices import has_bfloat16_units
from zsad_lib.files import paths
from zsad_lib.files.annotations import stem
from zsad_lib.files.clip_feature_files import AGAIN, FEATURE_SUFFIXES, load_clip_features
from zsad_lib.files.decoding import resize
from zsad_lib.files.foreign_checkpoints import TORCHSCRIPT, describe_file
from zsad_lib.files.frame_folders import list_frames
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import iter_frames
from zsad_lib.files.video_folders import list_videos as list_videos  # its home of old
from zsad_lib.files.weights import find_header, save_weights, tensors_sha256
from zsad_lib.models.dense_clip import encode_densely
from zsad_lib.models.text import build_clip
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.processes import parallel, read_ahead

VERSION = 1  # of the file format and of what is computed
BATCH = 32  # frames per forward pass; larger ones run slower on a CPU, which then fetches fresh memory each time
HEADER = 1 << 16  # bytes of a feature file in which its header lies
OPENAI = "clip_vit_b16"  # in the catalogue of published weights


@dataclasses.dataclass
class FrameEncoder:
    """A CLIP image tower with its preprocessing.

    Args:
        clip: model of `build_clip`.
        size: (height, width) in pixels that it sees.
        crop: shorter side to `size`, then one centre crop, as published; False: the whole frame, resized to `size`
            (stand-ins).
        name: of the architecture, for the header.
        half: the tower computes in bfloat16, for devices with units for it; features stay float32, 1 % off.
    """

    clip: nn.Module
    size: tuple[int, int]
    crop: bool = True
    name: str = "ViT-B-16"
    half: bool = False

    @functools.cached_property
    def header(self) -> dict[str, str]:
        """What a feature depends on but the video and its decoder."""
        how = "shorter side, centre crop" if self.crop else "whole frame"
        return {
            "model": self.name,
            "weights_sha256": tensors_sha256(self.clip.visual.state_dict()),
            "preprocessing": f"{how}, {self.size[0]} x {self.size[1]}, bilinear, mean and deviation of OpenAI's CLIP",
            "version": str(VERSION),
        }

    def __call__(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Frames uint8 [H, W, 3] -> raw features [B, D], not of unit length."""
        return self.encode([self.resized(frame) for frame in frames])

    @torch.no_grad()
    def encode(self, resized: Sequence[np.ndarray]) -> Tensor:
        """The same of frames that have the tower's size already."""
        where = next(self.clip.parameters()).device
        pixels = normalise(torch.from_numpy(np.stack(resized)).to(where), OPENAI_CLIP)
        if not self.half:
            return self.clip.encode_image(pixels).float().cpu()
        with torch.autocast(where.type, torch.bfloat16):  # open_clip's own pass would be slower than in float32
            return encode_densely(self.clip, pixels).picture.float().cpu()

    def resized(self, frame: np.ndarray) -> np.ndarray:
        """A frame [H, W, 3] as the tower sees it, uint8 [*size, 3]."""
        if not self.crop:
            return resize(frame, self.size)
        height, width = frame.shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width)
        frame = resize(frame, (max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))))
        top, left = (frame.shape[0] - self.size[0]) // 2, (frame.shape[1] - self.size[1]) // 2
        return frame[top : top + self.size[0], left : left + self.size[1]]


def video_features(encoder: FrameEncoder, path: str | Path) -> Tensor:
    """Features of all decoded frames, [T, D]; a few batches of small frames in memory at a time.

    A thread decodes and resizes the next batches while this one computes.

    Raises:
        ZsadError: missing, empty, truncated or damaged video.
    """
    frames = read_ahead(map(encoder.resized, iter_frames(path)), 2 * BATCH)
    return torch.cat([encoder.encode(batch) for batch in iter(lambda: list(itertools.islice(frames, BATCH)), [])])


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
        encoder: makes model and preprocessing in each process (and should keep them); files of another one are made
            again, those in another precision are kept: machines that share a folder may differ in their units.
        shard: (i, n): this machine takes every n-th video from the i-th on, i counts from 0.
        allow_missing: unreadable videos are skipped and counted; otherwise they fail the run after the last one.
        jobs: processes.

    Returns:
        Video -> file, of this shard, without the unreadable ones.

    Raises:
        ZsadError: two videos of one name, or unreadable ones.
    """
    number, count = shard
    named: dict[str, Path] = {}
    for video in map(Path, videos):
        if (other := named.setdefault(stem(video.name), video)) != video:
            raise ZsadError(f"{video}: {other} has the same name; feature files would overwrite each other")
    share, files, broken = sorted(named.values())[number::count], {}, []
    jobs = 1 if len(share) == 1 else jobs  # one video has all threads
    extracted = parallel(_extract, [(video, folder, encoder) for video in share], jobs)
    for video, target, error in report_progress(extracted, "videos with CLIP features", len(share)):
        if error:
            broken.append(error)
            print(f"  skipped: {error}", file=sys.stderr, flush=True)
        else:
            files[stem(video.name)] = target
    if broken:
        unread = f"{len(broken)} of {len(share)} videos cannot be read, the first: {broken[0]}"
        if not allow_missing:
            raise ZsadError(f"{unread}; mend or remove them, or go on without them by ALLOW_MISSING=1")
        print(f"  {unread}", file=sys.stderr, flush=True)
    return files


def _extract(video: Path, folder: Path, make: Callable[[], FrameEncoder]) -> tuple[Path, Path, str]:
    """The video, its feature file, and why there is none where it cannot be read."""
    encoder, target = make(), folder / f"{paths.as_text(stem(video.name))}.safetensors"
    try:
        header, found = encoder.header | _source(video), find_header(target, AGAIN)
        if header.items() <= found.items():
            return video, target, ""
        _refuse_others(target, video, found)
        features = video_features(encoder, video)
    except ZsadError as error:
        return video, target, str(error)
    except Exception as error:  # of a decoder, over a damaged file: the others go on, and the run fails at the end
        return video, target, f"{video}: {type(error).__name__}: {error}"
    facts = {"source": paths.as_text(video.absolute()), "precision": "bfloat16" if encoder.half else "float32"}
    save_weights(target, {"features": features}, header | facts, plain=True)
    return video, target, ""


@functools.cache
def stand_in_encoder(weights: Path) -> FrameEncoder:
    """The stand-in CLIP's image tower, which sees whole small frames; `weights` is the stand-ins' folder."""
    return FrameEncoder(stand_ins(weights).clip, STAND_IN_SIZE, crop=False, name="stand-in ViT-B-32")


@functools.cache
def official_encoder(pretrained: str) -> FrameEncoder:
    """AnomalyCLIP's ViT-B/16 at 224 pixels, in bfloat16 where the device has units for it.

    Args:
        pretrained: "openai" (verified, and fetched once), OpenAI's file itself, or what else `build_clip` takes.
    """
    if pretrained == "openai" or (Path(pretrained).is_file() and describe_file(pretrained) == TORCHSCRIPT):
        path = published_weights.fetch(OPENAI) if pretrained == "openai" else pretrained
        clip = published_weights.load_published(OPENAI, path)[0]
    else:
        clip = build_clip("ViT-B-16", pretrained)
    return published_encoder(clip)


def published_encoder(clip: nn.Module) -> FrameEncoder:
    """How a model of the published size sees frames on this device."""
    size = tuple(clip.visual.image_size)
    return FrameEncoder(clip.requires_grad_(False).to(device()), size, half=has_bfloat16_units())


def extract_listed(profile: Profile, folder: Path) -> dict:
    """Pipeline step: features of every video in the weakly labelled manifest, ``<video>.safetensors`` in `folder`.

    A row whose path is a feature file already, as AnomalyCLIP's authors publish them, is left as it is.
    """
    listed = load_manifest(folder.parent / "weak_data").path
    videos = [path for path in listed if not path.endswith(FEATURE_SUFFIXES)]
    if profile.backbones == "official":
        make = functools.partial(official_encoder, "openai")
    else:
        make = functools.partial(stand_in_encoder, weights_folder(profile))
    files = extract(videos, folder, make, jobs=processes(profile.jobs)) if videos else {}
    return {"metrics": {"videos": len(files), "published": len(listed) - len(videos)}, "artefacts": {}}


def listed_features(run: Path, row: Any) -> Tensor:
    """Features [T, D] of one row of a run's weakly labelled manifest.

    Raises:
        ZsadError: as `load`; or another number of frames than the manifest's.
    """
    file = row.path if row.path.endswith(FEATURE_SUFFIXES) else run / "frame_features" / f"{row.video}.safetensors"
    features = load_clip_features(file)
    if len(features) != row.n_frames:
        raise ZsadError(f"{file}: features of {len(features)} frames, the video has {row.n_frames}; extract them again")
    return features


def _source(video: Path) -> dict[str, str]:
    """Header entries on one video: what decodes it, and name, size and time of its files."""
    files = list_frames(video) if video.is_dir() else [video]
    facts = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    decoder = f"pillow {PIL.__version__}" if video.is_dir() else f"pyav {av.__version__}"
    return {"decoder": decoder, "video": hashlib.sha256(facts.encode()).hexdigest()[:16]}


def _refuse_others(target: Path, video: Path, header: dict[str, str]) -> None:
    """ZsadError where a file of features is somebody else's, or of another video that is still there.

    One of the kit's own that a disk has damaged is made again.
    """
    if target.exists() and not header and not _may_be_ours(target):
        raise ZsadError(f"{target}: exists and was not made by this kit; give --out another folder")
    source = header.get("source", "")
    if source not in ("", paths.as_text(video.absolute())) and os.path.exists(source):
        raise ZsadError(f"{target}: holds the features of {source}; give --out another folder for {video}")


def _may_be_ours(target: Path) -> bool:
    """Whether the header of a feature file is the kit's, or begins like it and has lost its end."""
    with open(target, "rb") as file:
        start = file.read(HEADER)
    lost = start[8:].startswith(b'{"__metadata__"') and len(start) < 8 + int.from_bytes(start[:8], "little")
    return lost or b'"preprocessing"' in start
