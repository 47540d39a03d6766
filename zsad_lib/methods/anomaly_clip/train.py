"""Training of AnomalyCLIP with video-level labels: multiple-instance learning on frozen CLIP features.

Paper: https://arxiv.org/abs/2310.02835, Sec. 3.4 and 4.1. The training list may hold abnormal videos, of which only the
class is known; the abnormal ones among them are kept apart from all that the zero-shot method reads.

Notebooks: 40_center_clip_space, 43_train_from_labels
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import device, frame_clip, processes
from zsad_lib.features.clip_frames import listed_features
from zsad_lib.files.annotations import read_classes
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.weights import load_weights, tensors_sha256
from zsad_lib.losses import anomaly_clip_loss
from zsad_lib.methods.training_loop import descend, is_trained, run_steps, save_trained, training_key
from zsad_lib.models.anomaly_clip import AnomalyCLIP
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED, STAND_IN, Recipe, build
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.processes import parallel

CHECKPOINT_EPOCHS = 5
FILE = "anomaly_clip.safetensors"


TRAINED = {"anomaly_clip": {}, "mil": {"temporal": False}}  # what a run trains: method -> change of its recipe


def recipe_of(profile: Profile) -> Recipe:
    """The recipe of a profile's data set for the published CLIP, or the stand-ins' one."""
    recipe = PUBLISHED[profile.dataset] if profile.backbones == "official" else STAND_IN
    return dataclasses.replace(recipe, epochs=profile.weak_epochs or recipe.epochs)


def segment_frames(length: int, segments: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Frames of one training example: the video in equal parts, `frames` consecutive ones from a random start in each.

    A video shorter than segments * frames is read round and round.

    Returns:
        Frame numbers [segments * frames] in 0..length-1.
    """
    stretch = max(length, segments * frames) / segments  # of the video, per segment
    starts = np.floor(np.arange(segments) * stretch + rng.uniform(0, stretch - frames + 1, segments)).astype(int)
    return ((starts[:, None] + np.arange(frames)) % length).ravel()


def batches(abnormal: int, normal: int, half: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """One epoch: every video of the longer list at most once (the rest of a last, smaller batch waits for another
    epoch's draw); the shorter list is shuffled anew as often as needed.

    Returns:
        Pairs of video numbers ([half] abnormal, [half] normal).
    """
    half, steps = min(half, abnormal, normal), steps_per_epoch(abnormal, normal, half)
    draw = lambda count: np.concatenate([rng.permutation(count) for _ in range(-(-steps * half // count))])
    first, second = draw(abnormal), draw(normal)
    return [(first[i * half : (i + 1) * half], second[i * half : (i + 1) * half]) for i in range(steps)]


def steps_per_epoch(abnormal: int, normal: int, half: int) -> int:
    """Batches of `half` abnormal and `half` normal videos that show the longer list once."""
    return max(abnormal, normal) // min(half, abnormal, normal)


def learning_rate(step: int, per_epoch: int, recipe: Recipe) -> float:
    """Factor of the learning rate, 0..1: linear warm-up, then half a cosine."""
    warm, total = recipe.warmup * per_epoch, recipe.epochs * per_epoch
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def normal_prototype(features: Sequence[Tensor]) -> Tensor:
    """m, the mean feature of all frames of all normal training videos: list of [T, D] -> [D]."""
    total = torch.stack([video.double().sum(0) for video in features]).sum(0)
    return (total / sum(map(len, features))).float()


def train(
    model: AnomalyCLIP,
    features: Mapping[str, Tensor],
    labels: Mapping[str, int],
    recipe: Recipe,
    seed: int,
    folder: Path,
) -> Path:
    """Trains `model`, or goes on from its checkpoint.

    Args:
        model: untrained, built under this seed.
        features: training video -> [T, D].
        labels: training video -> class id.
        recipe: schedule.
        seed: of batches, frames and the segments left out.
        folder: of this training.

    Returns:
        `folder`/anomaly_clip.safetensors; class list and prototype are among its tensors, settings and curve in its
        header.

    Raises:
        ZsadError: no normal or no abnormal video, or a loss that is not finite.
    """
    abnormal = sorted(video for video in features if labels[video] != model.normal_id)
    normal = sorted(video for video in features if labels[video] == model.normal_id)
    if not abnormal or not normal:
        counts = f"{len(normal)} normal and {len(abnormal)} abnormal videos"
        raise ZsadError(f"training list: {counts}; both kinds are needed")
    meta, data = {"recipe": dataclasses.asdict(recipe), "seed": seed}, sorted(labels.items())
    key = training_key(__name__, meta, data, tensors_sha256(model.state_dict()), tensors_sha256(dict(features)))
    target = folder / FILE
    if is_trained(target, key):
        return target
    if recipe.centred:
        model.normal_prototype.copy_(normal_prototype([features[video] for video in normal]))
    model.text.requires_grad_(False)
    for parameter in (model.text.context, model.text.text_projection):
        parameter.requires_grad_(recipe.learned)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    per_epoch = steps_per_epoch(len(abnormal), len(normal), recipe.half_batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, per_epoch, recipe))
    model.train()
    device = model.normal_prototype.device

    def take_epoch(epoch: int) -> list[float]:
        rng = np.random.default_rng([seed, epoch])  # videos and frames
        torch.manual_seed(int(rng.integers(2**31)))  # dropout and the segments left out
        terms = []
        for first, second in batches(len(abnormal), len(normal), recipe.half_batch, rng):
            videos = [abnormal[i] for i in first] + [normal[i] for i in second]
            x = torch.stack([sample_segments(features[video], recipe, rng) for video in videos]).to(device)
            y = torch.tensor([labels[video] for video in videos], device=device)
            outputs = model.train_outputs(x, y, whole=False)
            loss = anomaly_clip_loss(outputs, y, across_videos=recipe.across_videos, unclamped=recipe.unclamped)
            total = loss.total - sum(getattr(loss, name) for name in recipe.without)
            descend(total, optimiser, schedule)
            terms.append([term.item() for term in loss])
        return np.mean(terms, 0).tolist()

    stateful = (model, optimiser, schedule)
    history = run_steps(take_epoch, recipe.epochs, folder, key, stateful, CHECKPOINT_EPOCHS, unit="epoch")
    save_trained(target, model.state_dict(), {**meta, "key": key, "history": history})
    return target


def fit(profile: Profile, folder: Path) -> dict:
    """Pipeline step: every method of `TRAINED` and seed, on the weakly labelled videos of the training split alone."""
    tasks = [(profile, name, seed, folder) for seed in profile.seeds for name in TRAINED]
    losses = {}
    for name, seed, loss in parallel(_fit, tasks, processes(profile.jobs)):
        losses[f"{name}, seed {seed}, last loss"] = loss
        print(f"  trained {name}, seed {seed}", flush=True)
    return {"metrics": losses, "artefacts": {name: folder / name for name in TRAINED}}


def _fit(profile: Profile, name: str, seed: int, folder: Path) -> tuple[str, int, float]:
    torch.set_num_threads(1)
    meta = load_weights(train_seed(profile, TRAINED[name], seed, folder / name / str(seed)))[1]
    return name, seed, meta["history"][-1][0]


def train_seed(profile: Profile, change: dict, seed: int, folder: Path) -> Path:
    """`train` on the training videos of a run's weakly labelled manifest, with the profile's recipe but for
    `change`."""
    run, recipe = run_folder(profile), dataclasses.replace(recipe_of(profile), **change)
    table, classes, normal = class_table(run)
    train_videos = table[table.split == "train"]
    features, labels = {}, {}
    for row in train_videos.itertuples():
        pieces = examples(listed_features(run, row), recipe, row.action == normal)
        features |= {f"{row.video}/{number}": piece for number, piece in enumerate(pieces)}
        labels |= {f"{row.video}/{number}": classes.index(row.action) for number in range(len(pieces))}
    torch.manual_seed(seed)
    model = build(*frame_clip(profile), classes, normal, recipe).to(device())
    return train(model, features, labels, recipe, seed, folder)


def examples(features: Tensor, recipe: Recipe, normal: bool) -> Sequence[Tensor]:
    """What a training video [T, D] counts as: one video; where the recipe says so, a long normal one as many as it has
    room for, since one draw of it per epoch would teach little of an empty street. Of an abnormal one nobody knows
    which piece holds the event."""
    length = recipe.num_segments * recipe.segment_len
    return features.split(length) if recipe.in_pieces and normal and len(features) > length else [features]


def class_table(run: Path) -> tuple[pd.DataFrame, list[str], str]:
    """The weakly labelled manifest of a run, its class names in the order of their ids, and the name of the normal
    class."""
    table = load_manifest(run / "weak_data")
    return table, read_classes(run / "weak_data" / "classes.csv"), table[table.family == "normal"].action.iloc[0]


def sample_segments(features: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Features of one training example: [T, D] -> [num_segments * segment_len, D]; see `segment_frames`."""
    return features[segment_frames(len(features), recipe.num_segments, recipe.segment_len, rng)]
