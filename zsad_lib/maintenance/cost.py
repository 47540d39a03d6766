"""What a run at published size costs before it is started: device hours and disk per stage
(``make cost PROFILE=ucf_crime``).

    hours = units x seconds per unit, measured here on a few units        disk = units x bytes per unit, of what a stage
    keeps

Networks have the published sizes and random weights, which change no duration. Units come from the manifest where the
data have been prepared, else from the data set's published length: such a row says "estimated". Decoding is timed on
noise, which compresses badly.
"""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones, device, see_with_clip
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.clip_frames import BATCH, published_encoder
from zsad_lib.features.devices import device_name
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, NUM_BLOCKS, WINDOW
from zsad_lib.files import paths
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import iter_frames, write_video
from zsad_lib.losses import anomaly_clip_loss
from zsad_lib.maintenance.timing import timed
from zsad_lib.methods.anomaly_clip.train import TRAINED, recipe_of
from zsad_lib.methods.context_aware.region_pairs import RegionPairs
from zsad_lib.methods.context_aware.train import build_detector, joint_loss, parameter_groups, variants_of
from zsad_lib.methods.context_aware.training_windows import Windows
from zsad_lib.models import DPC, TimeSformer, build_clip
from zsad_lib.models.anomaly_clip_recipes import Recipe, build
from zsad_lib.models.dpc import estimate_norm_stats
from zsad_lib.models.regions import MOST
from zsad_lib.models.scene import SceneEncoder
from zsad_lib.pipeline.run_step import run_folder, steps_of

# Data set -> published hours, frames per second.
HOURS = {"ucf_crime": (128.0, 30.0), "xd_violence": (217.0, 24.0), "shanghaitech": (3.67, 24.0)}
NORMAL_SHARE = 0.5  # of the videos, where no manifest tells: about half of UCF-Crime's and XD-Violence's are
REPEATS = 2  # timed units; the first one, which warms up, is not among them


class Stage(NamedTuple):
    """One stage of a run."""

    step: str
    unit: str
    units: float
    seconds: float  # per unit, measured
    disk: float  # bytes per unit


class Lengths(NamedTuple):
    """How much there is to do."""

    frames: float  # of all videos
    zero_shot: float  # of normal training and validation videos and of test videos
    videos: int  # weakly labelled training videos, of the longer half (normal or abnormal)
    counted: bool  # in a manifest, not taken from the published length


def lengths(profile: Profile) -> Lengths:
    """Frames and videos of the profile's data set.

    Raises:
        ZsadError: neither prepared data nor a published length.
    """
    folder = run_folder(profile) / "data"
    if (folder / "manifest.csv").is_file():
        table = load_manifest(folder)
        normal = table.family == "normal"
        train = normal[table.split == "train"]
        used = table.n_frames[normal | (table.split == "test")].sum()
        return Lengths(float(table.n_frames.sum()), float(used), max(train.sum(), (~train).sum()), True)
    if profile.dataset not in HOURS:
        remedy = f"run `make data PROFILE={profile.name}` first"
        raise ZsadError(f"profile {profile.name}: no prepared data to count; {remedy}")
    hours, fps = HOURS[profile.dataset]
    frames = hours * 3600 * fps
    videos = sum(importlib.import_module(f"data_prep.{profile.dataset}").DATA.counts[profile.split].values())
    return Lengths(frames, frames, round(videos * NORMAL_SHARE), False)


def published_sizes(regions: bool) -> Backbones:
    """The published streams with random weights."""
    backbones = Backbones(TimeSformer().eval(), DPC().eval(), SceneEncoder().eval(), build_clip("ViT-B-16"))
    see_with_clip(backbones, regions)
    return backbones


@torch.no_grad()
def extraction(profile: Profile, amount: Lengths, backbones: Backbones) -> tuple[Stage, VideoFeatures]:
    """Frozen features of the zero-shot method, per frame seen, and those of one piece of video for `training`."""
    precision = profile.mixed_precision if device() == "cuda" else "no"
    tool = Extractor(backbones, stride=profile.stride, precision=precision)
    piece = torch.randint(0, 255, (1 + 2 * WINDOW, *tool.decoded, 3), dtype=torch.uint8)
    estimate_norm_stats(backbones.dpc, [tool.blocks(piece.to(device()))[0][None, :NUM_BLOCKS]])
    windows = tool.windows(piece)
    seconds = median(lambda: tool.windows(piece)) / (2 * WINDOW)
    *whole, region, at = windows  # as many regions as a picture may have
    per_block = sum(x[0].nbytes for x in whole) + MOST * len(CLIP_FRAMES) * sum(x[:1].nbytes for x in (region, at))
    features = VideoFeatures(*windows, torch.empty(0), 2 * WINDOW)
    return Stage("features", "frames seen", amount.zero_shot / profile.stride, seconds, per_block / BLOCK_LEN), features


class Training(NamedTuple):
    """What a step of a training takes."""

    loss: Callable[[], torch.Tensor]
    optimiser: torch.optim.Optimizer

    def step(self) -> None:
        """One step down the gradient."""
        self.optimiser.zero_grad()
        self.loss().backward()
        self.optimiser.step()


def joint_training(profile: Profile, features: VideoFeatures, backbones: Backbones, batch: int = 0) -> Training:
    """Joint training of the full variant on copies of one window.

    Args:
        profile: for its variant and alpha.
        features: of a piece of video.
        backbones: that they came from.
        batch: windows of a step; 0: the variant's.
    """
    variant = variants_of(profile)["full"]
    variant = dataclasses.replace(variant, batch=batch or variant.batch)
    detector = build_detector(variant, backbones).to(device())
    count = variant.batch

    def repeat(x: torch.Tensor) -> torch.Tensor:
        """The first window's features for every window of the batch: [N, ...] -> [B, ...]."""
        return x[:1].expand(count, *x.shape[1:]).to(device())

    scene, number = repeat(features.scene), torch.arange(count, device=device())
    text = torch.randn(count, backbones.text_dim, device=device())
    pairs = RegionPairs(text, number, scene, scene, text, []) if variant.readout == "local" else None
    windows = Windows(
        timesformer=repeat(features.timesformer), scene=scene, context=scene, caption=number,
        dpc=torch.zeros(count, detector.dpc.backbone.channels, device=device()),
        clip_and_block=torch.stack([number, torch.zeros_like(number)], 1),
        text=text, pairs=pairs, predicted=torch.stack([number, torch.zeros_like(number)], 1),
        stem=[features.stem] * count, cell_motion=[features.cell_motion] * count,
    )  # fmt: skip
    rest = variant, profile.alpha, (), torch.default_generator
    loss = lambda: joint_loss(detector, windows, torch.arange(count), *rest)["loss"]
    return Training(loss, torch.optim.AdamW(parameter_groups(detector, variant)))


def training(profile: Profile, features: VideoFeatures, backbones: Backbones) -> Stage:
    """Steps of joint training, of all seeds and variants."""
    steps = profile.train_steps * len(profile.seeds) * len(variants_of(profile))
    return Stage("train", "steps", steps, median(joint_training(profile, features, backbones).step), 0.0)


@torch.no_grad()
def frame_extraction(amount: Lengths, clip: torch.nn.Module) -> Stage:
    """CLIP features of every frame for AnomalyCLIP."""
    encoder = published_encoder(clip)
    frames = [np.zeros((240, 320, 3), np.uint8)] * BATCH
    width = encoder(frames).nbytes / BATCH
    return Stage("frame_features", "frames", amount.frames, median(lambda: encoder(frames)) / BATCH, width)


def anomaly_clip_training(
    recipe: Recipe, clip: torch.nn.Module, classes: Sequence[str] = ("abnormal", "normal")
) -> Training:
    """AnomalyCLIP's training on features drawn by chance; the last one of the classes is the normal one."""
    model = build(clip, None, list(classes), classes[-1], recipe).train().to(device())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, fused=True)
    size = 2 * recipe.half_batch
    x = torch.randn(size, recipe.num_segments * recipe.segment_len, len(model.normal_prototype), device=device())
    half = torch.arange(recipe.half_batch, device=device())
    y = torch.cat([half % (len(classes) - 1), torch.full_like(half, len(classes) - 1)])
    return Training(lambda: anomaly_clip_loss(model.train_outputs(x, y, whole=False), y).total, optimiser)


def weak_training(profile: Profile, amount: Lengths, clip: torch.nn.Module) -> Stage:
    """Steps of AnomalyCLIP's training, of all seeds and both trained methods."""
    recipe = recipe_of(profile)
    steps = recipe.epochs * max(1, amount.videos // recipe.half_batch) * len(profile.seeds) * len(TRAINED)
    return Stage("weak_train", "steps", steps, median(anomaly_clip_training(recipe, clip).step), 0.0)


def decoding(amount: Lengths) -> Stage:
    """Every video decoded once, to count its frames."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.mp4"
        write_video(path, (rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(120)), 30)
        seconds = median(lambda: [None for _ in iter_frames(path)]) / 120
    return Stage("data", "frames", amount.frames, seconds, 0.0)


def median(work: Callable[[], object]) -> float:
    """Median seconds of `REPEATS` calls, after one to warm up."""
    return float(np.median([timed(work) for _ in range(1 + REPEATS)][1:]))


def sheet(profile: Profile, backbones: Backbones | None = None, clip: torch.nn.Module | None = None) -> pd.DataFrame:
    """All stages of a profile: step, unit, units, seconds_per_unit, hours, disk_gb, and where the units come from."""
    amount, stages = lengths(profile), []
    stages.append(decoding(amount))
    if "train" in steps_of(profile):
        stage, features = extraction(profile, amount, backbones := backbones or published_sizes(profile.regions))
        stages += [stage, training(profile, features, backbones)]
    clip = clip or build_clip("ViT-B-16")
    stages += [frame_extraction(amount, clip), weak_training(profile, amount, clip)]
    table = pd.DataFrame(stages)
    table["hours"] = table.units * table.seconds / 3600
    table["disk_gb"] = table.units * table.disk / 1e9
    counted = "manifest" if amount.counted else "estimated"
    table["units_from"] = ["recipe" if unit == "steps" else counted for unit in table.unit]
    return table.rename(columns={"seconds": "seconds_per_unit"}).drop(columns="disk")


def report(profile: Profile) -> None:
    """Prints the sheet and writes ``runs/<run>/cost.csv``."""
    if profile.backbones != "official":
        raise ZsadError(f"profile {profile.name} uses the stand-ins: `make reproduce` takes minutes; ask for ucf_crime")
    table = sheet(profile)
    paths.write_table(run_folder(profile) / "cost.csv", table, "%.4g")
    print(f"{profile.run_name} on {device_name()}, torch {torch.__version__}; scoring is not counted")
    print(table.to_string(index=False, float_format=lambda value: f"{value:,.4g}"))
    print(f"in all {table.hours.sum():,.1f} hours of this device, {table.disk_gb.sum():,.0f} GB of disk")
