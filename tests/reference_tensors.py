"""Reference tensors of the official implementations, and their weights made by rule (../shared/vectors/README.md)."""

import json
import zlib
from pathlib import Path

import torch
from safetensors import safe_open


def weights_by_rule(shapes: dict[str, list[int]], scale: float) -> dict[str, torch.Tensor]:
    """The random state dict that the reference outputs were computed with."""
    state = {}
    for key in sorted(shapes):
        if key.endswith("num_batches_tracked"):
            continue
        x = torch.randn(shapes[key], generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) * scale
        if key.endswith("running_var"):
            x = x.abs() + 1
        elif len(shapes[key]) == 1 and key.endswith("weight"):
            x = x + 1
        state[key] = x
    return state


def reference(shared: Path, name: str, scale: float = 0.05) -> tuple[dict, dict, dict]:
    """(config, tensors, state dict) of one reference file, e.g. ``timesformer_a0``."""
    folder = shared / "vectors"
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    shapes = json.loads((folder / "state_dicts.json").read_text())[name]
    return config, tensors, weights_by_rule(shapes, scale)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation over the largest expected magnitude."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
