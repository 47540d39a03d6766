"""Predictive coding from scratch on the normal video of one camera, without any pretrained weight.

Paper: Han, Xie, Zisserman, "Video Representation Learning by Dense Predictive Coding",
https://arxiv.org/abs/1909.04656; the model is the same `zsad_lib.models.dpc.DPC` as elsewhere, with a finer grid. It
learns to tell the coming blocks of normal video from other places and times; what it cannot foresee is the anomaly
score (`zsad_lib.methods.predictive_coding.score`).

The recipe was found by a pilot that looked at test labels of UCSD Ped2: a fixed prior here, not to be tuned on them.
No dropout was settled in the same way. The pilot had 64 channels in the end; half of them, which a CPU can afford
sooner, stand beside them (`WIDTHS`), and are what a camera of one's own is trained with.

Notebook: 11_predict_future
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import read_video
from zsad_lib.files.weights import load_weights
from zsad_lib.losses import cpc_loss
from zsad_lib.methods.training_loop import descend, is_trained, run_steps, save_trained, training_key
from zsad_lib.models.dpc import DPC
from zsad_lib.processes import parallel


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one camera's predictive coding is built and trained."""

    block_len: int = 4  # frames
    observed: int = 4  # blocks
    pred_steps: int = 3  # blocks
    width: int = 8  # channels of layer1; four times as many in the end
    strides: tuple[int, ...] = (2, 2, 1, 1, 2, 1)  # 8 in all: a cell is 8 x 8 pixels; 16 loses small actors
    dropout: float = 0.0  # of the GRU's state
    scale: float = 40.0  # grey levels that make one unit of input
    crop: tuple[int, int] = (128, 192)  # pixels, height and width of a training sample
    batch: int = 4  # samples
    steps: int = 300  # of the optimiser
    learning_rate: float = 1e-3  # at the start; cosine to 0
    weight_decay: float = 0.01
    max_norm: float = 1.0  # of the gradient
    temperature: float = 0.1
    cells: int = 1024  # drawn from batch x time x place for the loss
    moving_share: float = 0.75  # of these cells, drawn from the ones that move most
    moving_top: float = 0.15  # share of cells that count as moving most
    memory: int = 2048  # cells of normal video kept for the nearest-neighbour baseline
    checkpoint_every: int = 50  # steps

    @property
    def cell(self) -> int:
        """Side of a cell, pixels."""
        return math.prod(self.strides)

    @property
    def blocks(self) -> int:
        """Blocks of a training sample."""
        return self.observed + self.pred_steps


def build(recipe: Recipe) -> DPC:
    """The model of a recipe: one grey channel, GroupNorm, 3 x 3 GRU."""
    return DPC(
        "resnet10", recipe.crop, recipe.blocks, recipe.block_len, recipe.pred_steps, in_channels=1, width=recipe.width,
        strides=recipe.strides, norm="group", gru_kernel=3, dropout=recipe.dropout,
    )  # fmt: skip


def read_grey(path: str | Path) -> np.ndarray:
    """A video or frame folder as luma, uint8 [T, H, W]."""
    rgb = read_video(path)
    return np.rint(rgb @ np.float32([0.299, 0.587, 0.114])).astype(np.uint8)


def normalise(frames: np.ndarray, median: np.ndarray, scale: float) -> Tensor:
    """Departure from the empty scene: (grey - median) / scale, uint8 [T, H, W] and [H, W] -> float32 [T, H, W]."""
    return torch.from_numpy((frames.astype(np.float32) - median.astype(np.float32)) / np.float32(scale))


def cell_motion(blocks: Tensor, cell: int) -> Tensor:
    """How much each cell moves: mean |frame difference| in a block, 9 x 9 box, mean over the cell.

    Args:
        blocks: frames [N, L, H, W].
        cell: side of a cell, pixels.

    Returns:
        [N, H / cell, W / cell], in the units of `blocks`.
    """
    moved = blocks.diff(dim=1).abs().mean(1, keepdim=True)  # [N, 1, H, W]
    moved = F.avg_pool2d(moved, 9, stride=1, padding=4, count_include_pad=False)
    return F.avg_pool2d(moved, cell).squeeze(1)


def train(clips: dict[str, np.ndarray], median: np.ndarray, recipe: Recipe, seed: int, folder: Path) -> Path:
    """Trains one seed, or goes on where it was interrupted, with the same result.

    Args:
        clips: normal training video, uint8 [T, H, W] each.
        median: the empty scene, [H, W].
        recipe: settings; a checkpoint of other ones is not continued.
        seed: of weights and draws.
        folder: gets ``dpc.safetensors`` (with the median and the memory of normal cells) and ``history.csv``.

    Returns:
        The weights file.
    """
    target, settings = folder / "dpc.safetensors", dataclasses.asdict(recipe)
    key = training_key(__name__, settings, seed)
    if is_trained(target, key):
        return target
    length = recipe.blocks * recipe.block_len
    stretches = [(video, start) for video in sorted(clips) for start in range(len(clips[video]) - length + 1)]
    if not stretches:
        raise ZsadError(f"no training clip has {length} frames, the length of one sample")
    with isolate_random_numbers(seed):
        model = build(recipe)
        optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        half_cosine = lambda step: (1 + math.cos(math.pi * step / recipe.steps)) / 2
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, half_cosine)

        def take_step(step: int) -> list[float]:
            torch.manual_seed((seed << 32) + step)  # dropout
            rng = np.random.default_rng([seed, step])  # samples and cells
            loss = sample_loss(model, draw_samples(clips, stretches, median, recipe, rng), recipe, rng)
            descend(loss, optimiser, schedule, model.parameters(), recipe.max_norm)
            return [loss.item()]

        stateful, every = (model, optimiser, schedule), recipe.checkpoint_every
        label = f"{model.backbone.channels} channels, seed {seed}"
        history = run_steps(take_step, recipe.steps, folder, key, stateful, every, label=label)
        memory = normal_cells(model.eval(), clips, median, recipe, np.random.default_rng(seed))
    with paths.atomic(folder / "history.csv") as file:
        curve = pd.DataFrame({"step": range(1, recipe.steps + 1), "loss": [losses[0] for losses in history]})
        curve.to_csv(file, index=False)
    tensors = {**model.state_dict(), "median": torch.tensor(median), "memory": memory}
    save_trained(target, tensors, {"key": key, "recipe": settings, "seed": seed})
    return target


def load(path: str | Path) -> tuple[DPC, np.ndarray, Tensor, Recipe]:
    """What `train` saved: the model in eval mode, the median [H, W], the memory [M, D], and the recipe."""
    state, meta = load_weights(path)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in meta["recipe"].items()}
    recipe = Recipe(**settings)
    median, memory = state.pop("median").numpy(), state.pop("memory")
    model = build(recipe)
    model.load_state_dict(state)
    return model.eval(), median, memory, recipe


def draw_samples(
    clips: dict[str, np.ndarray],
    stretches: list[tuple[str, int]],
    median: np.ndarray,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Tensor:
    """A batch of random crops of random stretches, half of them mirrored, half played backwards: [B, N, 1, L, H, W]."""
    height, width = recipe.crop
    batch = []
    for index in rng.integers(len(stretches), size=recipe.batch):
        video, start = stretches[index]
        top, left = (rng.integers(size - side + 1) for size, side in zip(median.shape, recipe.crop))
        crop = np.s_[top : top + height, left : left + width]
        frames = clips[video][start : start + recipe.blocks * recipe.block_len]
        sample = normalise(np.ascontiguousarray(frames[:, *crop]), np.ascontiguousarray(median[crop]), recipe.scale)
        flips = [axis for axis in (0, 2) if rng.random() < 0.5]  # time, left-right
        batch.append(sample.flip(flips).unflatten(0, (recipe.blocks, 1, recipe.block_len)))  # [N, 1, L, H, W]
    return torch.stack(batch)


def sample_loss(model: DPC, blocks: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """CPC loss on cosines of some predicted cells, most of them moving ones: blocks [B, N, 1, L, H, W] -> scalar.

    A uniform draw of cells would spend nearly all on empty ground, which is easy to predict.
    """
    out = model.predict(model.encode(blocks))  # [B, P, D, h, w]
    moving = cell_motion(blocks[:, recipe.observed :].flatten(0, 2), recipe.cell)  # [B * P, h, w]
    indices = torch.from_numpy(choose_cells(moving.flatten().numpy(), recipe.cells, recipe, rng))
    cells = (x.movedim(2, -1).flatten(0, 3)[indices] for x in (out.predicted, out.actual))  # [n, D]
    return cpc_loss(*(F.normalize(x).T[None, None, :, None] for x in cells), recipe.temperature)


def choose_cells(moving: np.ndarray, count: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` different cells, `moving_share` of them from the `moving_top`: motion [n] -> indices [count]."""
    count = min(count, len(moving))
    top = np.argsort(-moving, kind="stable")[: max(1, int(recipe.moving_top * len(moving)))]
    fast = rng.choice(top, min(int(recipe.moving_share * count), len(top)), replace=False)
    rest = np.setdiff1d(np.arange(len(moving)), fast)
    return np.concatenate([fast, rng.choice(rest, count - len(fast), replace=False)])


@torch.inference_mode()
def normal_cells(
    model: DPC, clips: dict[str, np.ndarray], median: np.ndarray, recipe: Recipe, rng: np.random.Generator
) -> Tensor:
    """Unit features of some cells of normal training video, chosen as in training: [M, D]; what `knn` compares with."""
    features, motion = [], []
    for _, frames in sorted(clips.items()):
        blocks = as_blocks(normalise(frames, median, recipe.scale), recipe.block_len)[::8]  # [N, L, H, W]
        features.append(model.encode(blocks[None, :, None])[0].movedim(1, -1).flatten(0, 2))  # [N * h * w, D]
        motion.append(cell_motion(blocks, recipe.cell).flatten())
    indices = choose_cells(torch.cat(motion).numpy(), recipe.memory, recipe, rng)
    return F.normalize(torch.cat(features)[torch.from_numpy(indices)])


def as_blocks(frames: Tensor, block_len: int) -> Tensor:
    """Whole blocks from the first frame on; a shorter rest is left out: [T, H, W] -> [T // L, L, H, W]."""
    count = len(frames) // block_len
    return frames[: count * block_len].unflatten(0, (count, block_len))


def recipes(profile: Profile) -> dict[str, Recipe]:
    """How each method of `WIDTHS` is built and trained under a profile."""
    usual = dataclasses.replace(RECIPE, steps=profile.train_steps)
    return {method: dataclasses.replace(usual, width=width) for method, width in WIDTHS.items()}


def fit(profile: Profile, folder: Path) -> dict:
    """Trains every width and seed of the profile on the training clips (step `train` of the pipeline).

    Returns:
        metrics: mean loss over the last steps of each width and seed; artefacts: their weights.
    """
    manifest = load_manifest(folder.parent / "data")
    rows = manifest[manifest["split"] == "train"]
    clips = {row.video: read_grey(row.path) for row in rows.itertuples()}
    median = np.median(np.concatenate([frames[::5] for frames in clips.values()]), axis=0).astype(np.float32)
    tasks = [
        (clips, median, recipe, seed, folder / method / str(seed))
        for method, recipe in recipes(profile).items()
        for seed in profile.seeds
    ]
    metrics, artefacts = {}, {}
    trained = parallel(train, tasks, min(profile.jobs, len(tasks)))
    for (method, seed), path in zip(itertools.product(WIDTHS, profile.seeds), trained):
        loss = pd.read_csv(path.parent / "history.csv")["loss"].tail(RECIPE.checkpoint_every).mean()
        metrics[f"loss {method}, seed {seed}"], artefacts[f"weights {method}, seed {seed}"] = float(loss), path
    return {"metrics": metrics, "artefacts": artefacts}


RECIPE = Recipe()
WIDTHS = {"predictive": 16, "predictive_half": 8}  # method -> `Recipe.width`; the slow one first


@contextlib.contextmanager
def isolate_random_numbers(seed: int) -> Iterator[None]:
    """One thread, so that sums have one order on every machine, and a seeded generator; both are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
