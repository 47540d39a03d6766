r"""One training loop for every method: interrupted, it goes on from its last checkpoint and ends with the same bits.

    step s:   L_s, drawn with random numbers of (seed, s) alone;   g = dL_s / d theta;   theta <- optimiser(theta, g)

A method brings what is its own, `take_step`: how it draws a batch, and its loss. So a checkpoint needs no state of a
random generator: it holds weights, optimiser, schedule and the losses so far, whose number is the step to go on with,
under the key of its training.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.weights import find_header, save_weights
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.processes import is_first

CHECKPOINT = "checkpoint.pt"


def training_key(module: str, *facts: Any) -> str:
    """Names a training: trainings with equal keys end with equal weights.

    Args:
        module: name of the method's module; its code counts, and that of all modules it imports.
        facts: settings, seed and data (or their hashes), as JSON can hold them.
    """
    return digest([*facts, closure([module])])


def is_trained(target: Path, key: str) -> bool:
    """Whether `target` holds the final weights of the training `key`."""
    return find_header(target, "it is trained again").get("key") == key


def run_steps(
    take_step: Callable[[int], Sequence[float]],
    count: int,
    folder: Path | None = None,
    key: str = "",
    stateful: Sequence[Any] = (),
    every: int = 50,
    unit: str = "step",
    label: str = "",
) -> list[list[float]]:
    """Takes the steps 0..count-1, or those after the last checkpoint of this training.

    Args:
        take_step: trains step s and returns its losses, the whole one first; its random numbers come from (seed, s)
            alone.
        folder: of the checkpoint; None: a training that starts anew when it was interrupted.
        key: of `training_key`; a checkpoint with another key is not continued.
        stateful: what changes in training, with `state_dict` and `load_state_dict`: model, optimiser, schedule.
        every: steps from one checkpoint, and line of progress, to the next.
        unit: what messages call a step.
        label: name of the training in lines of progress; "": none are printed.

    Returns:
        The losses of all steps, those before the interruption too.

    Raises:
        ZsadError: a loss is not finite.
    """
    history = resume(folder / CHECKPOINT, key, stateful) if folder else []
    for step in range(len(history), count):
        history.append([float(loss) for loss in take_step(step)])
        if not np.isfinite(history[-1]).all():
            where = f"{folder or label}: the loss is not finite at {unit} {step}"
            raise ZsadError(f"{where}; lower the learning rate or look at the data")
        if (step + 1) % every:
            continue
        if label:
            recent = np.mean([losses[0] for losses in history[-every:]])
            print(f"{label}: {unit} {step + 1} of {count}, loss {recent:.3f}", flush=True)
        if folder and step + 1 < count and is_first():
            content = io.BytesIO()
            torch.save({"key": key, "history": history, "states": [one.state_dict() for one in stateful]}, content)
            with paths.atomic(folder / CHECKPOINT, mode="wb") as file:
                file.write(hashlib.sha256(content.getbuffer()).digest())
                file.write(content.getbuffer())
    return history


def resume(checkpoint: Path, key: str, stateful: Sequence[Any]) -> list[list[float]]:
    """Puts `stateful` back to where a checkpoint of this training left them, and returns its losses; without one,
    none."""
    if not checkpoint.exists():
        return []
    data = checkpoint.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        print(f"  {checkpoint}: damaged; the training starts anew", file=sys.stderr, flush=True)
        return []
    saved = torch.load(io.BytesIO(data[32:]), weights_only=True, map_location="cpu")
    if saved["key"] != key:
        return []
    for one, state in zip(stateful, saved["states"], strict=True):
        one.load_state_dict(state)
    return saved["history"]


def descend(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    clipped: Iterable[nn.Parameter] = (),
    max_norm: float = 1.0,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> None:
    """One step down the gradient g of a loss: the optimiser takes g * min(1, max_norm / |g|).

    Args:
        loss: scalar.
        schedule: of the learning rate, moved on by one step.
        clipped: parameters whose joint gradient is clipped; () leaves all gradients as they are.
        backward: fills the gradients, where this takes more than `Tensor.backward`.
    """
    optimiser.zero_grad()
    backward(loss)
    nn.utils.clip_grad_norm_(clipped, max_norm)
    optimiser.step()
    schedule.step()


def save_trained(target: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes the final weights, with `meta` (its `key` is that of the training) in their header; the checkpoint
    goes."""
    save_weights(target, tensors, meta)
    (target.parent / CHECKPOINT).unlink(missing_ok=True)
