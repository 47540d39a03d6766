"""Weights on disk: safetensors (no code runs on loading) with their provenance and a content hash in the header.

Notebook: 02_pretrain_backbones
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad_lib.errors import ZsadError
from zsad_lib.files.paths import atomic

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = Path(__file__).parents[1] / "shipped_weights"


def tensors_sha256(state_dict: "dict[str, Tensor]") -> str:
    """Hash over the names, types, shapes and bytes of all tensors, independent of their order."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: str | Path, state_dict: "dict[str, Tensor]", meta: dict[str, Any]) -> str:
    """Writes tensors and `meta` (what made them: command, seed, settings) into one file, atomically.

    Args:
        path: ``.safetensors`` file.
        state_dict: tensors by name; shared storage is copied.
        meta: anything JSON can hold; ``sha256`` of the tensors is added.

    Returns:
        The sha256 of the tensors.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    sha256 = tensors_sha256(tensors)
    with atomic(path, mode=None) as temporary:
        save_file(tensors, temporary, metadata={"zsad": json.dumps({**meta, "sha256": sha256}, sort_keys=True)})
    return sha256


def load_weights(path: str | Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Reads a file of `save_weights` on the CPU and checks its hash.

    Returns:
        The tensors by name and the ``meta`` dictionary (with ``sha256``); a file made elsewhere has an empty one.

    Raises:
        ZsadError: missing, damaged, or tensors that differ from their recorded hash.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ZsadError(f"{path}: no such weights file; `make pretrain` or `make train` writes it")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("zsad", "{}"))
            state_dict = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ZsadError(f"{path}: not a readable safetensors file ({error}); fetch or train it again") from error
    if "sha256" in meta and tensors_sha256(state_dict) != meta["sha256"]:
        raise ZsadError(f"{path}: tensors do not match the recorded sha256; fetch or train the file again")
    return state_dict, meta
