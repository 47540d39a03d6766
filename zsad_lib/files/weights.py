"""Weights and features on disk: safetensors (no code runs on loading) with their provenance and hashes in the header.

Every such file of the kit is written and read here: what the disk or a damaged file answers is one line.

Notebook: 02_pretrain_backbones
"""

import hashlib
import json
import os
import re
import sys
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
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_weights(path: str | Path, state_dict: "dict[str, Tensor]", meta: dict[str, Any], plain: bool = False) -> str:
    """Writes tensors and `meta` (what made them: command, seed, settings) into one file, atomically.

    Args:
        path: ``.safetensors`` file.
        state_dict: tensors by name; shared storage is copied.
        meta: anything JSON can hold; ``sha256`` of the tensors is added, and in the file a ``seal``, which covers both.
        plain: the entries of `meta`, which are texts, also stand in the header by themselves, where other tools look.

    Returns:
        The sha256 of the tensors.

    Raises:
        ZsadError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    sha256 = tensors_sha256(tensors)
    facts = json.loads(json.dumps({**meta, "sha256": sha256}))  # as they will be read
    header = {"zsad": json.dumps({**facts, "seal": _seal(facts)}, sort_keys=True)}
    with atomic(path, mode=None) as temporary:
        try:
            save_file(tensors, temporary, metadata=header | meta if plain else header)
        except SafetensorError as error:
            if answer := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(answer[1]), os.strerror(int(answer[1]))) from error
            raise
    return sha256


def load_weights(path: str | Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """`load_tensors` of a file of weights."""
    if not Path(path).is_file():
        raise ZsadError(f"{path}: no such weights file; `make pretrain` or `make train` writes it")
    return load_tensors(path, "fetch or train it again")


def load_tensors(path: str | Path, mend: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Reads a file of `save_weights` on the CPU and checks its hashes.

    Args:
        path: ``.safetensors`` file.
        mend: what to do about a damaged one.

    Returns:
        The tensors by name and the ``meta`` dictionary (with ``sha256``); a file made elsewhere has an empty one.

    Raises:
        ZsadError: missing, damaged, or tensors or header that differ from their recorded hash.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if "zsad" not in header and any('"seal"' in text for text in header.values()):
                raise ValueError("the name of its facts was changed")
            meta = json.loads(header.get("zsad", "{}"))
            state_dict = {name: file.get_tensor(name) for name in file.keys()}
        seal = meta.pop("seal", None)
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such file; {mend}") from None
    except (SafetensorError, OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ZsadError(f"{path}: not a readable safetensors file ({error}); {mend}") from error
    if "sha256" in meta and tensors_sha256(state_dict) != meta["sha256"]:
        raise ZsadError(f"{path}: tensors do not match the recorded sha256; {mend}")
    if seal not in (None, _seal(meta)):  # older files have none
        raise ZsadError(f"{path}: the header was changed after it was written; {mend}")
    return state_dict, meta


def find_header(path: Path, mend: str) -> dict[str, Any]:
    """The header of a file of `save_weights` that is whole; {} where there is no file, and of a damaged one a line."""
    try:
        return load_tensors(path, mend)[1] if path.exists() else {}
    except ZsadError as error:
        print(f"  {error}", file=sys.stderr, flush=True)
        return {}


def _seal(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
