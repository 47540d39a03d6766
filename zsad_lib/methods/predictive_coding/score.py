"""Anomaly maps and frame scores of predictive coding, and two baselines that see the same video.

    s(cell) = mean over steps of (1 - cos(predicted, actual)) * motion(cell)        s(block) = max over cells

A cell is anomalous where something moves and was not foreseen; the mean over cells would hide small actors. The kit's
own reading. Methods: `predictive` (forward and time-reversed pass averaged), `predictive@causal` (forward pass alone,
and a frame knows only blocks that have ended), `predictive_half` and its causal form (the same with half the
channels), `knn` (distance of the encoder's features to cells of normal training video; poor here, since features that
predict well need not say what is normal) and `motion_floor` (no learning at all).

Notebook: 11_predict_future
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from zsad_lib.config import Profile
from zsad_lib.features.motion_floor import blurred_change
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.score_files import write_archive, write_scores
from zsad_lib.methods.predictive_coding.train import WIDTHS, Recipe, as_blocks, cell_motion, load, normalise, read_grey
from zsad_lib.models.dpc import DPC
from zsad_lib.processes import parallel

NEIGHBOURS = 5  # of `knn`
MOTION_MAP = 8  # pixels averaged into one of the motion floor's map


class Scored(NamedTuple):
    """One video under one method."""

    frames: np.ndarray  # [T] frame scores; NaN where a causal score does not exist yet
    windows: np.ndarray  # [N] block scores
    maps: np.ndarray | None  # float16 [T, h, w]


@torch.inference_mode()
def encode(model: DPC, blocks: Tensor) -> Tensor:
    """Features of a whole video, a few blocks at a time for flat memory: [N, L, H, W] -> [N, D, h, w], before ReLU."""
    return torch.cat([model.encode(some[None, :, None])[0] for some in blocks.split(4)])


@torch.inference_mode()
def prediction_errors(model: DPC, features: Tensor, observed: int) -> Tensor:
    """1 - cos(predicted, actual) of every cell, mean over the steps from which a block was predicted.

    Args:
        model: in eval mode.
        features: of the blocks in playing order [N, D, h, w], before ReLU.
        observed: blocks seen before the first prediction.

    Returns:
        [N, h, w]; NaN for the first `observed` blocks, which nothing predicts.
    """
    count, read = len(features), model.read(features)
    total, steps = torch.zeros(count, *features.shape[2:]), torch.zeros(count, 1, 1)
    for starts in torch.arange(max(0, count - observed)).split(8):
        hidden = model.sum_up(torch.stack([read[starts + i] for i in range(observed)], 1))
        for step in range(model.pred_steps):
            predicted = model.network_pred(hidden)  # [B, D, h, w]
            target = starts + observed + step
            inside = target < count  # the last windows look beyond the end
            error = 1 - F.cosine_similarity(predicted[inside], features[target[inside]], dim=1)
            total[target[inside]] += error
            steps[target[inside]] += 1
            hidden = model.agg(model.read(predicted), hidden) if step + 1 < model.pred_steps else hidden
    return total / steps  # 0 / 0 = NaN


def anomaly_maps(error: Tensor, motion: Tensor) -> Tensor:
    """Error times motion, 3 x 3 box: [N, h, w] each -> [N, h, w]."""
    return F.avg_pool2d((error * motion)[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]


def at_frames(blocks: np.ndarray, n_frames: int, block_len: int) -> np.ndarray:
    """Block values [N, ...], which belong to the middle of their block, interpolated to frames [n_frames, ...]."""
    position = np.clip((np.arange(n_frames) - (block_len - 1) / 2) / block_len, 0, len(blocks) - 1)  # in blocks
    low = np.minimum(position.astype(int), max(len(blocks) - 2, 0))
    weight = (position - low).reshape(-1, *[1] * (blocks.ndim - 1)).astype(np.float32)
    return blocks[low] * (1 - weight) + blocks[np.minimum(low + 1, len(blocks) - 1)] * weight


def ended_blocks(blocks: np.ndarray, n_frames: int, block_len: int) -> np.ndarray:
    """The value of the last block that has ended at each frame: [N] -> [n_frames], NaN before there is one."""
    last = (np.arange(n_frames) + 1) // block_len - 1
    return np.where(last < 0, np.nan, blocks[np.clip(last, 0, len(blocks) - 1)])


def score_predictive(model: DPC, memory: Tensor, frames: Tensor, recipe: Recipe) -> dict[str, Scored]:
    """`predictive`, `predictive@causal` and `knn` of one video.

    Args:
        model: in eval mode.
        memory: unit features of normal cells [M, D].
        frames: normalised video [T, H, W], at least one block more than the model observes.
        recipe: the model's.
    """
    blocks, length = as_blocks(frames, recipe.block_len), len(frames)
    motion = cell_motion(blocks, recipe.cell)  # [N, h, w]
    features = encode(model, blocks)
    forward = prediction_errors(model, features, recipe.observed)
    reverse = prediction_errors(model, encode(model, blocks.flip(0, 1)), recipe.observed).flip(0)
    both = torch.stack([forward, reverse]).nanmean(0)  # either alone where the other has no context
    maps = anomaly_maps(both.nan_to_num(), motion)
    causal = anomaly_maps(forward, motion).amax((1, 2)).numpy()
    near = anomaly_maps(neighbour_distance(features, memory), torch.ones_like(motion))
    return {
        "predictive": _scored(maps, length, recipe),
        "predictive@causal": Scored(ended_blocks(causal, length, recipe.block_len), causal[recipe.observed :], None),
        "knn": _scored(near, length, recipe),
    }


def neighbour_distance(features: Tensor, memory: Tensor) -> Tensor:
    """Mean cosine distance of each cell to its nearest neighbours in memory: [N, D, h, w], [M, D] -> [N, h, w]."""
    distances = []
    for block in features:
        cells = F.normalize(block.flatten(1).T)  # [h * w, D]
        nearest = (cells @ memory.T).topk(min(NEIGHBOURS, len(memory)), dim=1).values
        distances.append(1 - nearest.mean(1).reshape(block.shape[1:]))
    return torch.stack(distances)


def motion_floor(grey: np.ndarray) -> Scored:
    """Maximum of the blurred absolute frame difference in grey levels: uint8 [T, H, W]; frame 0 repeats frame 1."""
    moved = [blurred_change(frame, before) for before, frame in zip(grey, grey[1:])]
    blurred = np.stack([moved[0], *moved])  # [T, H, W]
    maps = F.avg_pool2d(torch.from_numpy(blurred), MOTION_MAP).numpy().astype(np.float16)
    scores = blurred.max((1, 2))
    return Scored(scores, scores, maps)


def score_all(profile: Profile, folder: Path) -> dict:
    """Scores the test clips and the held-out normal clips with every seed (step `score` of the pipeline).

    Writes under the run folder, per method and seed, ``scores/<method>/<seed>/<video>.csv`` (test), ``windows.npz``
    (block scores, test) and ``normal.npz`` (frame scores, held-out normal), and ``maps/<method>/<seed>/<video>.npz``
    (`maps`, float16 [T, h, w]). Where no causal score exists yet, a frame gets the mean of the held-out normals.
    """
    run = folder.parent
    manifest = load_manifest(run / "data")
    rows = manifest[manifest["split"].isin(["val", "test"])].set_index("video", drop=False)
    trained = [(method, seed) for method in WIDTHS for seed in profile.seeds]
    tasks = [(*training, video) for training in (*trained, (None, profile.seeds[0])) for video in rows["video"]]
    asked = [(run, name, seed, rows["path"][video]) for name, seed, video in tasks]
    results = parallel(score_clip, asked, profile.jobs)
    scores: dict[tuple[str, int], dict[str, Scored]] = {}  # (method, seed) -> video -> its scores
    for (_, number, video), methods in zip(tasks, results):
        for method, scored in methods.items():
            if rows["split"][video] == "test" and scored.maps is not None:
                write_archive(run / "maps" / method / str(number) / f"{video}.npz", {"maps": scored.maps})
            scores.setdefault((method, number), {})[video] = scored._replace(maps=None)
    for (method, seed), scored in scores.items():
        write_method(run / "scores" / method / str(seed), scored, rows)
    return {
        "metrics": {"methods": sorted({method for method, _ in scores}), "n_videos": len(rows)},
        "artefacts": {"scores": run / "scores", "maps": run / "maps"},
        "files": [run / kind / method / str(seed) for kind in ("scores", "maps") for method, seed in scores],
    }


def score_clip(run: Path, name: str | None, seed: int, path: str) -> dict[str, Scored]:
    """One clip under the methods of a training of `WIDTHS`, or, where it is None, under the one that learns nothing."""
    grey = read_grey(path)
    if name is None:
        return {"motion_floor": motion_floor(grey)}
    torch.set_num_threads(1)
    model, median, memory, recipe = load(run / "train" / name / str(seed) / "dpc.safetensors")
    scored = score_predictive(model, memory, normalise(grey, median, recipe.scale), recipe)
    if name == "predictive":
        return scored
    return {method.replace("predictive", name): one for method, one in scored.items() if method != "knn"}


def write_method(folder: Path, scored: Mapping[str, Scored], videos: pd.DataFrame) -> None:
    """Writes the scores of one method and seed.

    <video>.csv   test clip: score of every frame; where there is none yet, the mean of the held-out normal frames
    windows.npz   test clips: score of every block
    normal.npz    held-out normal clips: score of every frame that has one

    Args:
        folder: ``scores/<method>/<seed>``; replaced as a whole.
        scored: by video.
        videos: rows of the manifest by video: test clips, and the held-out normal ones of split ``val``.
    """
    normal, test = ([video for video in scored if videos["split"][video] == split] for split in ("val", "test"))
    held_out = {video: scored[video].frames[np.isfinite(scored[video].frames)] for video in normal}
    expected = np.concatenate(list(held_out.values())).mean()
    write_scores(folder, {v: np.nan_to_num(scored[v].frames, nan=expected) for v in test}, videos["fps"])
    write_archive(folder / "normal.npz", held_out)
    write_archive(folder / "windows.npz", {video: scored[video].windows for video in test})


def _scored(maps: Tensor, n_frames: int, recipe: Recipe) -> Scored:
    """Frame and block scores of the anomaly maps of blocks [N, h, w]: the maximum over cells."""
    blocks = maps.amax((1, 2)).numpy()
    frames, frame_maps = (at_frames(values, n_frames, recipe.block_len) for values in (blocks, maps.numpy()))
    return Scored(frames, blocks, frame_maps.astype(np.float16))
