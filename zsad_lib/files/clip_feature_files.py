"""Files of CLIP image features, one per video: those of this kit, and those that AnomalyCLIP's authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.files.weights import load_tensors

if TYPE_CHECKING:
    from torch import Tensor

FEATURE_SUFFIXES = (".npy", ".safetensors")
MEND, AGAIN = "delete it and run `make features`", "it is computed again"  # a damaged one, for readers and writers


def load_clip_features(path: str | Path, expected: dict[str, str] | None = None, width: int | None = None) -> Tensor:
    """Features of one video [T, D], from ``.safetensors`` of this kit or ``.npy`` as AnomalyCLIP's authors publish
    them.

    Args:
        path: file.
        expected: part of a header, where the file has one.
        width: D, 512 for the published ones; None: any.

    Raises:
        ZsadError: missing or damaged file, not finite numbers [T, D], or made by something else than `expected` says.
    """
    if not Path(path).exists():
        raise ZsadError(f"{path}: no such feature file; `make features` writes one per video")
    features = _load_npy(Path(path)) if Path(path).suffix == ".npy" else _load_safetensors(path, expected)
    if features.dim() != 2 or not len(features) or features.shape[1] != (width or features.shape[1]):
        raise ZsadError(f"{path}: features of shape {list(features.shape)}; expected [frames, {width or 'numbers'}]")
    if not features.isfinite().all():
        raise ZsadError(f"{path}: features hold NaN or infinite values; extract them again")
    return features


def _load_safetensors(path: str | Path, expected: dict[str, str] | None) -> Tensor:
    tensors, header = load_tensors(path, MEND)
    for name, value in (expected or {}).items():
        if header.get(name) != value:
            raise ZsadError(f"{path}: {name} is {header.get(name)!r}, expected {value!r}; {MEND}")
    if "features" not in tensors or not tensors["features"].is_floating_point():
        held = ", ".join(f"{name} ({tensor.dtype})" for name, tensor in tensors.items())
        raise ZsadError(f"{path}: holds {held or 'nothing'}; expected features, floating-point numbers; {MEND}")
    return tensors["features"].float()


def _load_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # a data set's features need not fit into RAM
    except (OSError, ValueError, EOFError) as error:
        raise ZsadError(f"{path}: not a readable .npy array ({error}); extract it again") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise ZsadError(f"{path}: holds {array.dtype}; expected floating-point numbers")
    import torch

    return torch.from_numpy(array.astype(np.float32, copy=False))
