"""What `zsad_lib.maintenance.gpu_figures` measures: steps of training and of extraction, in parts that it can time.

At the published sizes with random weights, which change no duration; or tiny, where there is no GPU.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.scene_rules.web import CHUNK, web_corpus
from zsad_lib.config import get_profile
from zsad_lib.features.backbones import KINETICS, Backbones, device, normalise, see_with_clip
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS
from zsad_lib.maintenance import cost
from zsad_lib.methods.pretraining import FRAMES
from zsad_lib.models import DPC, TimeSformer, build_clip
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED, UCF_CLASSES, Recipe
from zsad_lib.models.dense_clip import encode_densely
from zsad_lib.models.dpc import estimate_norm_stats
from zsad_lib.models.scene import SceneEncoder

Part = Callable[[bool], object]  # of a step; whether it computes in bfloat16


class Step(NamedTuple):
    """One step of some work, which can be repeated."""

    parts: dict[str, Part]  # in the order in which they run
    units: int  # of what is counted, per step
    tokens: int = 0  # per step; 0: not counted
    steps: int = 40  # that are timed, as far as the work's seconds suffice


class Work(NamedTuple):
    """What is measured: `make` gives its step for a batch, which is halved until the step fits into memory."""

    what: str
    unit: str
    make: Callable[[int], Step]
    batch: int
    seconds: float  # after which no further step is timed


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are the published sizes."""

    clips: int = 512  # rendered; an epoch shows each once
    clip_batch: int = 32  # clips per step of training, and of TimeSformer's extraction
    picture_batch: int = 256  # pictures or sentences per call of CLIP
    blocks: int = 60  # of the piece of video that all streams see
    windows: int = 192  # per step of joint training
    seconds: float = 4.0  # for each figure; five times as long for the epoch
    timesformer: Callable[[], TimeSformer] = TimeSformer
    backbones: Callable[[], Backbones] = lambda: cost.published_sizes(True)
    recipe: Recipe = PUBLISHED["ucf_crime"]


def _tiny_backbones() -> Backbones:
    clip = build_clip("ViT-B-32", embed_dim=16, text_width=16, text_heads=2, text_layers=1, vision_layers=2,
                      vision_width=32, vision_head_width=16, vision_image_size=64)  # fmt: skip
    streams = TimeSformer(64, 16, 8, 24, 1, 2).eval(), DPC("resnet10", 32, width=8).eval()
    backbones = Backbones(*streams, SceneEncoder((8, 8, 8, 16), (1, 1, 1, 1)).eval(), clip)
    see_with_clip(backbones, True)
    return backbones


TINY = Sizes(
    clips=4, clip_batch=2, picture_batch=2, blocks=8, windows=8, seconds=0.02, backbones=_tiny_backbones,
    timesformer=lambda: TimeSformer(32, 16, 8, 24, 1, 2),
    recipe=Recipe(1e-3, epochs=2, warmup=1, embed_dim=16, num_segments=8, segment_len=4, heads=2, half_batch=4),
)  # fmt: skip


def cast(half: bool) -> torch.autocast:
    """Networks compute in bfloat16 inside, where `half`."""
    return torch.autocast(device(), torch.bfloat16, enabled=half)


def training_parts(loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Part]:
    """Forward and backward pass, and the optimiser, of a step down the gradient of `loss`."""
    made = SimpleNamespace(loss=None)

    def forward(half: bool) -> None:
        with cast(half):
            made.loss = loss()

    def descend(_: bool) -> None:
        optimiser.step()
        optimiser.zero_grad()

    return {"forward": forward, "backward": lambda _: made.loss.backward(), "optimiser": descend}


def epoch_of_timesformer(sizes: Sizes) -> Work:
    """All weights of TimeSformer on rendered clips and the concepts that they show, as in pretraining."""
    corpus = web_corpus(sizes.clips, 0, jobs=min(-(-sizes.clips // CHUNK), os.cpu_count() or 1))

    def make(batch: int) -> Step:
        torch.manual_seed(0)
        model = sizes.timesformer().to(device()).train()
        concepts = nn.Linear(model.cls_token.shape[-1], corpus.actions.shape[1]).to(device())
        optimiser = torch.optim.AdamW([*model.parameters(), *concepts.parameters()], lr=1e-5, fused=True)
        clips, size = itertools.cycle(np.arange(sizes.clips).reshape(-1, batch)), model.patch_embed.img_size
        seen = SimpleNamespace(video=None, target=None)

        def data(_: bool) -> None:
            some = next(clips)
            frames = normalise(torch.from_numpy(corpus.video[some][:, FRAMES]).to(device()), KINETICS)
            pixels = F.interpolate(frames.flatten(0, 1), size, mode="bilinear")  # [B * T, 3, H, W]
            seen.video = pixels.unflatten(0, frames.shape[:2]).transpose(1, 2)
            seen.target = torch.from_numpy(corpus.actions[some]).to(device())

        def loss() -> Tensor:
            return F.binary_cross_entropy_with_logits(concepts(model(seen.video)), seen.target)

        tokens = batch * (1 + model.patch_embed.num_patches * len(FRAMES))
        return Step({"data": data, **training_parts(loss, optimiser)}, batch, tokens, sizes.clips // batch)

    what = f"training epoch of TimeSformer-B on {sizes.clips} rendered clips"
    return Work(what, "clips", make, sizes.clip_batch, 5 * sizes.seconds)


def extraction_works(sizes: Sizes, backbones: Backbones) -> Iterator[Work]:
    """Every frozen network alone, and all streams over a piece of video, which goes to the GPU first."""
    clip = backbones.clip.requires_grad_(False).to(device())

    def timesformer(batch: int) -> Step:
        model = backbones.timesformer.requires_grad_(False).to(device())
        frames = model.time_embed.shape[1]
        video = torch.randn(batch, 3, frames, *model.patch_embed.img_size, device=device())
        parts = {"forward": _frozen(lambda: model.tokens(video))}
        return Step(parts, batch * frames, batch * (1 + model.patch_embed.num_patches * frames))

    def pictures(batch: int) -> Step:
        pixels = torch.randn(batch, 3, *clip.visual.image_size, device=device())
        tokens = batch * (1 + int(np.prod(clip.visual.grid_size)))
        return Step({"forward": _frozen(lambda: encode_densely(clip, pixels))}, batch, tokens)

    def sentences(batch: int) -> Step:
        ids = torch.randint(1, clip.vocab_size, (batch, clip.context_length), device=device())
        return Step({"forward": _frozen(lambda: clip.encode_text(ids))}, batch, ids.numel())

    def everything(blocks: int) -> Step:
        tools = {half: Extractor(backbones, precision="bf16" if half else "no") for half in (False, True)}
        shape = (1 + max(blocks, NUM_BLOCKS) * BLOCK_LEN, *tools[False].decoded, 3)
        piece = torch.randint(256, shape, dtype=torch.uint8)
        _measure_norms(tools[False], piece)
        return Step({"upload and networks": lambda half: tools[half].windows(piece)}, len(piece) - 1)

    yield Work("TimeSformer, extraction", "frames", timesformer, sizes.clip_batch, sizes.seconds)
    yield Work("CLIP's image tower with regions, ViT-B/16", "frames", pictures, sizes.picture_batch, sizes.seconds)
    yield Work("CLIP's text tower", "sentences", sentences, sizes.picture_batch, sizes.seconds)
    yield Work("all published streams of a video", "frames seen", everything, sizes.blocks, sizes.seconds)


def _frozen(work: Callable[[], object]) -> Part:
    def forward(half: bool) -> None:
        with torch.no_grad(), cast(half):
            work()

    return forward


@torch.no_grad()
def _measure_norms(tool: Extractor, piece: Tensor) -> None:
    estimate_norm_stats(tool.backbones.dpc, [tool.blocks(piece.to(device()))[0][None, :NUM_BLOCKS]])


def training_works(sizes: Sizes, backbones: Backbones) -> Iterator[Work]:
    """The method's joint training, and AnomalyCLIP's, on features that are there."""
    profile, classes = get_profile("ucf_crime"), (*(name for name in UCF_CLASSES if name != "Normal"), "Normal")

    def joint(batch: int) -> Step:
        tool = Extractor(backbones)
        piece = torch.randint(256, (1 + NUM_BLOCKS * BLOCK_LEN, *tool.decoded, 3), dtype=torch.uint8)
        _measure_norms(tool, piece)
        features = VideoFeatures(*tool.windows(piece), torch.empty(0), len(piece) - 1)
        training = cost.joint_training(profile, features, backbones, batch)
        return Step(training_parts(training.loss, training.optimiser), batch)

    def weak(videos: int) -> Step:
        recipe = dataclasses.replace(sizes.recipe, half_batch=max(1, videos // 2))
        training = cost.anomaly_clip_training(recipe, backbones.clip, classes)
        tokens = 2 * recipe.half_batch * recipe.num_segments * recipe.segment_len
        return Step(training_parts(training.loss, training.optimiser), 2 * recipe.half_batch, tokens)

    yield Work("joint training of the method, DPC with gradient", "windows", joint, sizes.windows, sizes.seconds)
    yield Work("AnomalyCLIP's training", "videos", weak, 2 * sizes.recipe.half_batch, sizes.seconds)


def works(sizes: Sizes) -> Iterator[Work]:
    """Everything that is measured, one after the other; models are made when their turn comes."""
    yield epoch_of_timesformer(sizes)
    backbones = sizes.backbones()
    yield from extraction_works(sizes, backbones)
    yield from training_works(sizes, backbones)
