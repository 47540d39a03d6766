"""Strict loading of weights, published or one's own: every key must find its place, and what does not is named.

The released code of the context-aware method loads Places365 with ``strict=False`` from a nested file, matches no key
at all, and goes on with random weights without a word. Hence one strict loader for all models.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from zsad_lib.errors import ZsadError

log = logging.getLogger(__name__)


def _list_names(names: Sequence[str], limit: int = 8) -> str:
    """The first ``limit`` names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def official_tensors(
    checkpoint: Mapping, prefixes: Sequence[str], containers: Sequence[str] = ("state_dict", "model_state", "model")
) -> tuple[dict[str, torch.Tensor], str]:
    """Unpack a checkpoint: the tensors under plain names, and the prefix that was taken off.

    Args:
        checkpoint: A state dict, or a mapping that holds one under a key of ``containers``.
        prefixes: Prefixes that may stand before a key, in this order, e.g. ``("module.", "model.")``.
        containers: Keys under which trainers nest the state dict.

    Returns:
        (state dict without prefixes, longest prefix found), so that messages can use the checkpoint's own names.

    Raises:
        ZsadError: not a mapping of names to tensors, or two keys that become one.
    """
    for container in containers:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(container), Mapping):
            checkpoint = checkpoint[container]
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise ZsadError(
            f"a checkpoint must be a non-empty mapping of names to tensors, not {type(checkpoint).__name__}"
        )
    tensors, longest = {}, ""
    for key, value in checkpoint.items():
        if not torch.is_tensor(value):
            raise ZsadError(f"checkpoint key {key!r} holds {type(value).__name__}, not a tensor; pass its state dict")
        name = key
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        if name in tensors:
            raise ZsadError(f"checkpoint holds {name!r} twice, with and without the prefix {key.removesuffix(name)!r}")
        tensors[name] = value
        longest = max(longest, key.removesuffix(name), key=len)
    return tensors, longest


def drop_head(tensors: dict[str, torch.Tensor], head: str, model: str) -> dict[str, torch.Tensor]:
    """``tensors`` without the classifier's keys ``head.*``; says so in the log."""
    kept = {name: value for name, value in tensors.items() if not name.startswith(head)}
    if len(kept) < len(tensors):
        log.warning("%s: dropped the checkpoint's classifier %s* (the model gives features)", model, head)
    return kept


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    prefix: str = "",
    published: Callable[[str], str] = str,
    absent: tuple[str, ...] = (),
    file: str | Path = "",
) -> None:
    """Copy ``tensors`` into ``module``; nothing is copied unless all keys and shapes agree.

    BatchNorm's ``num_batches_tracked`` may be missing: checkpoints older than PyTorch 0.4.1 lack it; nothing reads it.

    Args:
        module: Model to fill.
        tensors: Plain names (see `official_tensors`).
        prefix: The checkpoint's own prefix, for the messages.
        published: Gives the checkpoint's name of one of the module's tensors, for the messages.
        absent: Endings of the module's tensors that do not come from a checkpoint: they stay as they are.
        file: Where the tensors come from, for the messages.

    Raises:
        ZsadError: missing, unexpected or wrongly shaped tensors, by name.
    """
    expected = {name: value for name, value in module.state_dict().items() if not name.endswith(absent)}
    missing = [prefix + published(k) for k in expected if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [prefix + k for k in tensors if k not in expected]
    wrong = [
        f"{prefix}{published(k)} {list(v.shape)} (the model has {list(expected[k].shape)})"
        for k, v in tensors.items()
        if k in expected and expected[k].shape != v.shape and not k.endswith("_extra_state")  # compares itself
    ]
    faults = [("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)]
    if any(names for _, names in faults):
        text = "; ".join(f"{fault}: {_list_names(names)}" for fault, names in faults if names)
        source, remedy = (f"{file}:", "; make or fetch the file again") if file else ("checkpoint", "")
        raise ZsadError(f"{source} does not fit {type(module).__name__}: {text}{remedy}")
    module.load_state_dict(tensors, strict=False)
