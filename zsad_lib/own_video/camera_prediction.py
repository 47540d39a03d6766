"""Predictive coding from scratch on the normal video of one camera, in place of a pretrained predictive stream.

The recipe is that of profile `ped2` (`zsad_lib.methods.predictive_coding.train`), but blocks are as long as those of
windows, and as many are observed, so that its scores are a term like any other: the largest error x motion of a block's
cells. Of a file errors are means of the forward and the time-reversed pass; a causal score knows the forward one alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsad_lib.errors import ZsadError
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS, OBSERVED
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.predictive_coding import train as from_scratch
from zsad_lib.methods.predictive_coding.score import anomaly_maps, encode, prediction_errors
from zsad_lib.methods.predictive_coding.train import Recipe, as_blocks, cell_motion, normalise
from zsad_lib.models.dpc import DPC

RECIPE = dataclasses.replace(from_scratch.RECIPE, block_len=BLOCK_LEN, observed=OBSERVED, steps=700)
HEIGHT = 240  # pixels that frames are made smaller to
MOST_FRAMES = 12_000  # that are kept for training: 20 minutes, as much of each video; 1 GB at 240 x 360 pixels
FOLDER = "predict"  # in the run's folder
SEED = 0


class CameraPrediction(NamedTuple):
    """A model that has learned one camera's normal video."""

    model: DPC
    median: np.ndarray  # [H, W] the empty scene
    recipe: Recipe
    identity: dict[str, str]  # `data` it learned from, which names its folder, and `sha256` of its tensors

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the frames that it reads."""
        return self.median.shape

    def maps(self, piece: Tensor, causal: bool = False) -> Tensor:
        """Error times motion of every cell of the blocks of a piece of `chunks`, uint8 [1 + t, H, W, 3]: [N, h, w]; 0
        of the first blocks of a causal one, which nothing predicts."""
        frames = normalise(grey(piece[1:].numpy()), self.median, self.recipe.scale)
        blocks = as_blocks(frames, self.recipe.block_len)
        motion, observed = cell_motion(blocks, self.recipe.cell), self.recipe.observed
        errors = prediction_errors(self.model, encode(self.model, blocks), observed)
        if not causal:
            reverse = prediction_errors(self.model, encode(self.model, blocks.flip(0, 1)), observed).flip(0)
            errors = torch.stack([errors, reverse]).nanmean(0)
        return anomaly_maps(errors.nan_to_num(), motion)

    def windows(self, piece: Tensor, causal: bool = False) -> np.ndarray:
        """`s_pred` of the windows of a piece, as `local_readout.block_scores`: [W, 2] float64."""
        worst = self.maps(piece, causal).amax((1, 2)).double().numpy()[OBSERVED:]
        ahead = NUM_BLOCKS - OBSERVED - 1
        return np.stack([worst[: len(worst) - ahead], worst[ahead:]], 1)


def grey(frames: np.ndarray) -> np.ndarray:
    """Luma of frames uint8 [T, H, W, 3]: uint8 [T, H, W]."""
    return np.rint(frames @ np.float32([0.299, 0.587, 0.114])).astype(np.uint8)


def size_for(height: int, width: int) -> tuple[int, int]:
    """Pixels that a camera's frames are read in: up to `HEIGHT` high, whole cells, and no smaller than a sample."""
    scale = max(min(1.0, HEIGHT / height), *(least / side for least, side in zip(RECIPE.crop, (height, width))))
    cell = RECIPE.cell
    return tuple(max(least, round(side * scale / cell) * cell) for least, side in zip(RECIPE.crop, (height, width)))


def learn(stretches: Mapping[str, np.ndarray], folder: Path) -> CameraPrediction:
    """Trains on stretches of normal video, uint8 [T, H, W] each, or goes on where an earlier call was interrupted.

    Args:
        stretches: by name, which also names the training: of other video, it starts anew.
        folder: of the run.

    Raises:
        ZsadError: no stretch is as long as a sample.
    """
    length = RECIPE.blocks * RECIPE.block_len
    whole = {name: frames for name, frames in stretches.items() if len(frames) >= length}
    if not whole:
        seconds = length / 10
        raise ZsadError(f"{folder.name}: no stretch of normal video lasts {seconds:g} s, a sample of training")
    seen = {name: frames[:: max(1, len(frames) // 200)] for name, frames in whole.items()}
    median = np.median(np.concatenate(list(seen.values())), axis=0).astype(np.float32)
    data = hashlib.sha256(json.dumps([list(whole), [frames.shape for frames in whole.values()]]).encode())
    for frames in whole.values():
        data.update(np.ascontiguousarray(frames))
    target = folder / FOLDER / data.hexdigest()[:12]
    if not (target / "dpc.safetensors").exists():
        _announce(whole, median)
    from_scratch.train(whole, median, RECIPE, SEED, target)
    for other in set(target.parent.iterdir()) - {target}:
        shutil.rmtree(other)
    return load(folder, target.name)


def _announce(clips: dict[str, np.ndarray], median: np.ndarray) -> None:
    """Says how long training will take, from the time of a step."""
    model, rng, took = from_scratch.build(RECIPE), np.random.default_rng(0), []
    listed = [(name, 0) for name in clips]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(2):
        began = time.monotonic()
        samples = from_scratch.draw_samples(clips, listed, median, RECIPE, rng)
        from_scratch.sample_loss(model, samples, RECIPE, rng).backward()
        took.append(time.monotonic() - began)
    torch.set_num_threads(threads)
    frames, minutes = sum(map(len, clips.values())), RECIPE.steps * took[-1] / 60
    print(
        f"predictive coding from scratch on {frames:,} frames: {RECIPE.steps} steps, about {minutes:.0f} minutes;"
        " interrupted, the same command goes on",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def load(folder: Path, data: str, sha256: str | None = None) -> CameraPrediction:
    """What `learn` has written into a run's folder; ZsadError where it is gone, or is not the one of that hash."""
    file = folder / FOLDER / data / "dpc.safetensors"
    model, median, _, recipe = from_scratch.load(file)
    found = load_weights(file)[1]["sha256"]
    if sha256 not in (None, found):
        raise ZsadError(f"{file}: not what the detector was calibrated with; calibrate it again")
    return CameraPrediction(model, median, recipe, {"data": data, "sha256": found})
