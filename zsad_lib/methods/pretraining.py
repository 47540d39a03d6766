"""Pretraining of the stand-in backbones on the rendered "web" corpus (data_prep/scene_rules/web.py).

What stands for what: TimeSformer for Kinetics-400 weights, DPC for its self-supervised Kinetics weights, the scene
network for Places365, the two CLIP towers for OpenAI's. Two things depart from the originals: TimeSformer also learns
from the renderer's dense labels (what each patch shows), because clip labels alone take hours on a CPU; and linear
heads lead from its class feature and from its patch tokens into CLIP's space, because a rendered world has no images
from which that alignment would follow. In the published world, dense CLIP features are what the region head gives here.

Notebook: 02_pretrain_backbones
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.scene_rules import world
from data_prep.scene_rules.web import WebCorpus, web_corpus
from zsad_lib.features.backbones import (
    CLIP,
    IMAGENET,
    KINETICS,
    OPENAI_CLIP,
    PREDICTIVE,
    SCENE,
    TIMESFORMER,
    cell_motion,
    frame_differences,
    heads,
    normalise,
)
from zsad_lib.files.weights import SHIPPED, save_weights
from zsad_lib.losses import info_nce, moving_cells_loss
from zsad_lib.methods.region_examples import RegionExamples, region_loss
from zsad_lib.methods.training_loop import descend, run_steps
from zsad_lib.models.dpc import DPC, estimate_norm_stats
from zsad_lib.models.scene import SceneEncoder
from zsad_lib.models.text import Vocabulary, build_clip, tokenize
from zsad_lib.models.timesformer import TimeSformer
from zsad_lib.processes import parallel

NUM_CELL_CLASSES = 1 + len(world.CONCEPTS)  # background and the concepts
BACKGROUND_WEIGHT = 0.2  # most patches are background
FRAME_STEP = 4  # frames between TimeSformer's eight, out of a window of 30
FRAMES = np.arange(8) * FRAME_STEP
BACKGROUND_CELLS = 512  # that no clause may fit, per step


def train_stand_in(
    parameters: Iterable[nn.Parameter],
    step: Callable[[np.ndarray], Tensor],
    count: int,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    label: str,
) -> list[float]:
    """The training loop of all stand-ins: AdamW, cosine schedule with warm-up, gradient clipping.

    Args:
        parameters: what to train.
        step: maps clip numbers [batch] to a loss; its generators run on from step to step, so nothing resumes here.
        count: clips in the corpus.

    Returns:
        Mean loss per epoch.
    """
    parameters, per_epoch, rng = list(parameters), count // batch, np.random.default_rng(seed)
    order = [rng.permutation(count)[: per_epoch * batch].reshape(-1, batch) for _ in range(epochs)]
    batches, total = np.concatenate(order), epochs * per_epoch
    warmup = max(1, total // 20)
    rate = lambda i: min(1.0, (i + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, i / total)))
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)

    def take_step(number: int) -> list[float]:
        loss = step(batches[number])
        descend(loss, optimiser, schedule, parameters, 1.0)
        return [loss.item()]

    history = run_steps(take_step, total, label=label)
    return [float(np.mean(losses)) for losses in np.split(np.ravel(history), epochs)]


def _augment(video: Tensor, generator: torch.Generator) -> Tensor:
    """Light and contrast per clip on uint8-valued floats: what another camera would change. [B, ...] -> [B, ...]."""
    shape = (len(video), *[1] * (video.ndim - 1))
    gain = torch.empty(shape).uniform_(0.75, 1.25, generator=generator)
    return (video * gain).clamp(0, 255)


def pretrain_timesformer(
    corpus: WebCorpus, epochs: int, seed: int, model: TimeSformer | None = None, batch: int = 32
) -> tuple[TimeSformer, dict]:
    """Dense labels on the patches, multi-label concepts on the class feature. `model`: go on with it, under a new
    schedule."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = (model or TimeSformer(**TIMESFORMER)).train()
    dim = TIMESFORMER["embed_dim"]
    dense, concepts = nn.Linear(dim, NUM_CELL_CLASSES), nn.Linear(dim, len(world.CONCEPTS))
    weight = torch.ones(NUM_CELL_CLASSES)
    weight[0] = BACKGROUND_WEIGHT

    def step(clips: np.ndarray) -> Tensor:
        frames = FRAMES + int(torch.randint(2, (), generator=generator))
        clip = torch.from_numpy(corpus.video[clips][:, frames])  # [B, T, H, W, 3]
        target = torch.from_numpy(corpus.cells[clips][:, frames]).long()  # [B, T, rows, columns]
        if torch.rand((), generator=generator) < 0.5:
            clip, target = clip.flip(3), target.flip(3)
        x = normalise(_augment(clip.float(), generator), KINETICS).transpose(1, 2)  # [B, 3, T, H, W]
        tokens = model.tokens(x)
        target = target.flatten(2).mT.flatten(1)  # [B, N*T], frame fastest
        patch_loss = F.cross_entropy(dense(tokens[:, 1:]).mT, target, weight)
        return patch_loss + F.binary_cross_entropy_with_logits(
            concepts(tokens[:, 0]), torch.from_numpy(corpus.actions[clips])
        )

    parameters = [*model.parameters(), *dense.parameters(), *concepts.parameters()]
    curve = train_stand_in(parameters, step, len(corpus.video), epochs, batch, 1.5e-3, seed, "TimeSformer")
    return model.eval(), {"loss": curve}


def pretrain_dpc(
    corpus: WebCorpus, epochs: int, seed: int, model: DPC | None = None, batch: int = 16
) -> tuple[DPC, dict]:
    """Predictive coding on frame differences; then one pass for the norm statistics.

    The loss is `moving_cells_loss`, as in the recipe for real footage.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = (model or DPC(**PREDICTIVE)).train()

    def blocks(clips: np.ndarray, augment: bool = True) -> Tensor:
        clip = torch.from_numpy(corpus.video[clips])
        if augment and torch.rand((), generator=generator) < 0.5:
            clip = clip.flip(3)
        if augment and torch.rand((), generator=generator) < 0.5:
            clip = clip.flip(1)
        gain = torch.empty(len(clip), 1, 1, 1, 1).uniform_(0.75, 1.25, generator=generator) if augment else 1.0
        return dpc_blocks(torch.stack([frame_differences(frames) for frames in clip]) * gain)

    def step(clips: np.ndarray) -> Tensor:
        x = blocks(clips)
        out = model(x)
        motion = cell_motion(x[:, -model.pred_steps :].flatten(0, 1), out.actual.shape[-2:])  # [B * P, h, w]
        motion = motion.unflatten(0, out.actual.shape[:2])
        return moving_cells_loss(out.predicted, out.actual, motion, generator)

    count = len(corpus.video)
    curve = train_stand_in(model.parameters(), step, count, epochs, batch, 1e-3, seed, "DPC")
    order = np.arange(min(512, count // batch * batch)).reshape(-1, batch)
    estimate_norm_stats(model, (blocks(clips, augment=False) for clips in order))
    return model.eval(), {"loss": curve}


def dpc_blocks(clip: Tensor, num_blocks: int = 6) -> Tensor:
    """Frames [B, T, 3, H, W] -> blocks [B, N, 3, L, H, W] with L = T / N; time and channels keep apart."""
    return clip.unflatten(1, (num_blocks, -1)).transpose(2, 3)


def pretrain_scene(corpus: WebCorpus, epochs: int, seed: int, batch: int = 64) -> tuple[SceneEncoder, dict]:
    """Scene classification from single frames, actors present."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SceneEncoder(**SCENE).train()
    head = nn.Linear(SCENE["channels"][-1], len(world.SCENES))

    def step(clips: np.ndarray) -> Tensor:
        x = _augment(any_frames(corpus, clips, generator), generator)
        x = x.flip(2) if torch.rand((), generator=generator) < 0.5 else x
        return F.cross_entropy(head(model(normalise(x, IMAGENET))), torch.from_numpy(corpus.scene[clips]))

    parameters = [*model.parameters(), *head.parameters()]
    curve = train_stand_in(parameters, step, len(corpus.video), epochs, batch, 2e-3, seed, "scene")
    return model, {"loss": curve}


def any_frames(corpus: WebCorpus, clips: np.ndarray, generator: torch.Generator) -> Tensor:
    """A frame of each clip, drawn by chance: float32 [B, H, W, 3], grey levels."""
    frame = torch.randint(corpus.video.shape[1], (len(clips),), generator=generator).numpy()
    return torch.from_numpy(corpus.video[clips, frame]).float()


@torch.no_grad()
def video_tokens(model: TimeSformer, corpus: WebCorpus, batch: int = 64) -> Tensor:
    """TimeSformer's tokens of the corpus' clips, class token first, in half precision: [N, 1 + cells * T, D]."""
    tokens = [
        model.tokens(normalise(torch.from_numpy(corpus.video[i : i + batch][:, FRAMES]), KINETICS).transpose(1, 2))
        for i in range(0, len(corpus.video), batch)
    ]
    return torch.cat([some.half() for some in tokens])


def pretrain_clip(
    corpus: WebCorpus, tokens: Tensor, epochs: int, seed: int, batch: int = 128
) -> tuple[nn.Module, nn.ModuleDict, Vocabulary, dict]:
    """Contrastive pretraining of both CLIP towers and of the heads on TimeSformer's tokens: caption against frame,
    caption against clip feature, clause against region; and which cells show anything at all.

    Args:
        corpus: clips.
        tokens: of `video_tokens`.
        epochs: passes over the clips.
        seed: of initialisation and batches.
        batch: clips per step.

    Returns:
        CLIP model, heads (see `zsad_lib.features.backbones.heads`), vocabulary, curves.
    """
    torch.manual_seed(seed)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    regions, vocabulary = RegionExamples(corpus.told[:, FRAMES], corpus.clauses), Vocabulary.of(corpus.captions)
    model, head = build_clip("ViT-B-32", **CLIP, text_vocab_size=len(vocabulary)).train(), heads()
    sentences = [tokenize(texts, CLIP["text_context_length"], vocabulary) for texts in (corpus.captions, regions.texts)]
    identity = {text: i for i, text in enumerate(dict.fromkeys(corpus.captions))}
    same_text = torch.tensor([identity[text] for text in corpus.captions])

    def step(clips: np.ndarray) -> Tensor:
        text = F.normalize(model.encode_text(sentences[0][clips]), dim=-1)
        same = same_text[clips][:, None] == same_text[clips][None]
        frames = _augment(any_frames(corpus, clips, generator), generator)
        image = model.encode_image(normalise(frames, OPENAI_CLIP))
        clip_loss = info_nce(F.normalize(image, dim=-1), text, same=same)
        seen = tokens[clips].float()
        video_loss = info_nce(F.normalize(head["video"](seen[:, 0]), dim=-1), text, same=same)
        cells, labels = seen[:, 1:], regions.labels[clips] > 0
        drawn = [regions.draw(clip, rng) for clip in clips]
        others = cells[~labels]
        others = others[torch.randint(len(others), (BACKGROUND_CELLS,), generator=generator)]
        encode = lambda texts: model.encode_text(sentences[1][texts])
        region = region_loss(head["region"], encode, cells, drawn, others)
        present = F.binary_cross_entropy_with_logits(head["objectness"](cells).squeeze(-1), labels.float())
        return clip_loss + video_loss + region + present

    parameters = [*model.parameters(), *head.parameters()]
    curve = train_stand_in(parameters, step, len(corpus.video), epochs, batch, 1e-3, seed, "CLIP")
    return model.eval(), head, vocabulary, {"loss": curve}


EPOCHS = {"timesformer": 5, "dpc": 1, "scene": 2, "clip": 12}
ROUNDS = {"timesformer": 2, "dpc": 1}  # times that the cosine schedule runs; chosen on validation sites
CORPUS_SEED = 1  # not the benchmark's


def run(
    clips: int = 6000, seed: int = 0, held_out: tuple[str, ...] = (), folder: Path = SHIPPED, jobs: int = 2
) -> dict[str, Path]:
    """Render the corpus, pretrain all stand-ins and write their weights with the settings that made them.

    Args:
        clips: size of the web corpus.
        seed: of initialisation and batches.
        held_out: concepts that the corpus never shows (control for "zero-shot").

    Returns:
        Weight file per stand-in.
    """
    corpus = web_corpus(clips, CORPUS_SEED, held_out, jobs)
    together = [(task, corpus, seed, held_out, folder) for task in (see_and_speak, predict_and_place)]
    for _ in parallel(lambda task, *rest: task(*rest), together, min(jobs, len(together))):
        pass
    return {name: folder / f"{name}.safetensors" for name in EPOCHS}


def see_and_speak(corpus: WebCorpus, seed: int, held_out: tuple[str, ...], folder: Path) -> None:
    """TimeSformer, then the CLIP towers and heads that read it."""
    timesformer = _in_rounds("timesformer", pretrain_timesformer, corpus, seed, held_out, folder)
    clip, head, vocabulary, curves = pretrain_clip(corpus, video_tokens(timesformer, corpus), EPOCHS["clip"], seed)
    towers = {f"clip.{name}": value for name, value in clip.state_dict().items()}
    towers |= {f"head.{name}": value for name, value in head.state_dict().items()}
    save("clip", towers, curves, seed, corpus, held_out, folder, vocabulary=list(vocabulary.ids))


def predict_and_place(corpus: WebCorpus, seed: int, held_out: tuple[str, ...], folder: Path) -> None:
    """DPC and the scene network, which read no other stand-in."""
    _in_rounds("dpc", pretrain_dpc, corpus, seed, held_out, folder)
    scene, curves = pretrain_scene(corpus, EPOCHS["scene"], seed)
    save("scene", scene.state_dict(), curves, seed, corpus, held_out, folder)


def _in_rounds(
    name: str, pretrain: Callable, corpus: WebCorpus, seed: int, held_out: tuple[str, ...], folder: Path
) -> nn.Module:
    torch.set_num_threads(1)
    model, losses = None, []
    for number in range(ROUNDS[name]):
        model, curves = pretrain(corpus, EPOCHS[name], seed + number, model)
        losses += curves["loss"]
    save(name, model.state_dict(), {"loss": losses}, seed, corpus, held_out, folder)
    return model


def save(
    name: str, state: dict, curves: dict, seed: int, corpus: WebCorpus, held_out: tuple[str, ...], folder: Path, **more
) -> None:
    """One stand-in's weights, with the command, seed, corpus and loss curve that made them in the file's header."""
    meta = dict(command="make pretrain", seed=seed, corpus_seed=CORPUS_SEED, clips=len(corpus.video))
    meta["held_out"] = list(held_out)
    save_weights(folder / f"{name}.safetensors", state, {**meta, **curves, **more})
