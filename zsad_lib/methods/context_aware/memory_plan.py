"""RAM of training (or of the GPU), planned before it starts: what the processes on a device will hold, against what it
has.

    bytes of a process = features + parameters + gradients + 2 moments of AdamW + what a step keeps for its backward
    pass

What a step keeps is measured on one small step: on a GPU the peak of the allocator, on a CPU the tensors saved for the
backward pass. The libraries' own code and buffers are not counted.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zsad_lib.processes import is_first

if TYPE_CHECKING:
    from torch import Tensor

    from zsad_lib.config import Profile
    from zsad_lib.models.detector import Detector

GB = 1e9


def machine_bytes() -> int:
    """RAM that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
            total = min(total, int(text))
    return total


def device_bytes(device: str) -> tuple[int, int]:
    """(free, all) bytes of the device that trains; of RAM all counts as free, since caches give way."""
    import torch

    return torch.cuda.mem_get_info() if device == "cuda" else (machine_bytes(), machine_bytes())


def step_bytes(forward: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """What one step holds besides `parameters`.

    Args:
        forward: computes a scalar from them.
        parameters: on the device that is measured.
    """
    import torch

    if parameters[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(forward(), parameters, allow_unused=True)
        return torch.cuda.max_memory_allocated() - before
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = forward()  # as long as it lives, no two saved tensors share an address
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    del graph
    return sum(size for address, size in saved.items() if address not in weights)


def gradient_window_bytes(detector: Detector, predict: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """`step_bytes` of the predictive stream; what checkpointing computes again comes back one block at a time."""
    held = step_bytes(predict, parameters)
    if not detector.dpc.grad_checkpointing or parameters[0].is_cuda:
        return held
    detector.dpc.set_grad_checkpointing(False)
    whole = step_bytes(predict, parameters)
    detector.dpc.set_grad_checkpointing()
    return held + whole // len(detector.dpc.backbone.layer4)


def standing_bytes(detector: Detector, features: Iterable[Tensor]) -> int:
    """Features, weights and buffers, and of the trained weights the gradient and the optimiser's two moments."""
    size = lambda tensors: sum(tensor.nbytes for tensor in tensors)
    trained = [p for p in detector.parameters() if p.requires_grad]
    return size(features) + size(detector.state_dict().values()) + 3 * size(trained)


def plan_chunk(
    profile: Profile,
    name: str,
    detector: Detector,
    features: Iterable[Tensor],
    align: Callable[[], Tensor],
    predict: Callable[[], Tensor],
    batch: int,
    live: int,
    jobs: int = 1,
) -> Profile:
    """Prints what a training will hold, and halves the chunk until it fits; the batch, and so the results, stay as they
    are.

    Args:
        profile: for the wanted chunk and how the stream is computed.
        name: of the training, for the line.
        detector: on the device that trains.
        features: of all windows, on any device.
        align: losses of one whole batch without gradient windows, a scalar.
        predict: the pass with gradient of one window, a scalar.
        batch: windows per step.
        live: of these, gradient windows in each of the training's processes.
        jobs: processes that share the device.

    Returns:
        The profile, with a smaller chunk where it did not fit.
    """
    trained = [p for p in detector.parameters() if p.requires_grad]
    free, total = device_bytes(trained[0].device.type)
    detector.dpc.set_grad_checkpointing(profile.checkpointing)
    fixed = standing_bytes(detector, features) + step_bytes(align, trained)
    per_window = gradient_window_bytes(detector, predict, trained) if live else 0
    held = lambda chunk: jobs * (fixed + chunk * per_window)
    chunk = wanted = min(profile.chunk or live, live)
    while chunk > 1 and held(chunk) > free:
        chunk = -(-chunk // 2)
    shared = f" in {jobs} processes" if jobs > 1 else ""
    line = f"memory: {name}: about {held(chunk) / GB:.2g} GB of {total / GB:.2g} GB{shared}"
    line += f"; batch {batch}, live {live}, chunk {chunk}"
    if chunk < wanted:
        line += f" instead of {wanted}, which would not fit (equal results, slower)"
    if held(chunk) > free:
        line += (
            "; this may still not fit: lower jobs or choose a device with more memory (a smaller batch changes results)"
        )
    if is_first():
        print(line, flush=True)
    return dataclasses.replace(profile, chunk=chunk) if chunk < wanted else profile
