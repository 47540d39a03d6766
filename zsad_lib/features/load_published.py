"""Official files into models, strictly, with a report of what went where; a file of another model says which it is."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from zsad_lib.errors import ZsadError
from zsad_lib.files.foreign_checkpoints import read_checkpoint
from zsad_lib.models.names import choose

if TYPE_CHECKING:
    from torch import Tensor, nn

SIGNS = {  # tensors that tell a model; the first that fits counts
    "AnomalyCLIP": r"prompt_learner\.ctx$",
    "TimeSformer": r"\.temporal_attn\.",
    "DPC": r"^network_pred\.",
    "CLIP": r"^visual\.",
    "SceneEncoder": r"^layer4\.",
}
SPARE = {  # tensors of the file that the model has no place for, and why
    "AnomalyCLIP": {
        r"image_encoder\.": "image tower: features come in",
        r"prompt_learner\.token_": "prompts: compared with the class names",
        r"selector_model\.logit_scale": "logit_scale: never used",
    },
    "TimeSformer": {r"head\.": "classifier head.*"},
    "DPC": {
        r"agg\.ConvGRUCell_00\.": "second name of the GRU",
        r".*\.(running_mean|running_var|num_batches_tracked)$": (
            "Kinetics' norm statistics: measure them on normal footage"
        ),
    },
    "CLIP": {r"(input_resolution|context_length|vocab_size)$": "sizes"},
    "SceneEncoder": {r"fc\.": "classifier fc.*"},
}
PLACES = 365  # classes of Places365; other ResNets fit the encoder just as well


@dataclasses.dataclass(frozen=True)
class Report:
    """What went where when a file was loaded; nothing was missing and nothing unexpected, or there would be an
    error."""

    model: str
    loaded: dict[str, int]  # part of the model -> tensors
    dropped: dict[str, int]  # reason -> tensors

    def __str__(self) -> str:
        loaded = ", ".join(f"{submodule} {count}" for submodule, count in self.loaded.items())
        left = ", ".join(f"{count} x {reason}" for reason, count in self.dropped.items())
        return (
            f"{self.model}: {sum(self.loaded.values())} tensors loaded ({loaded}), {sum(self.dropped.values())} dropped"
            f"{f' ({left})' if left else ''}, 0 missing, 0 unexpected"
        )


def tensors_of(model: str, path: str | Path, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file that holds `model`, without and with the prefix of their names."""
    from zsad_lib.models.checkpoints import official_tensors

    content = read_checkpoint(path, sha256)
    try:
        tensors, prefix = official_tensors(content, ("module.", "model.", "net."))
    except ZsadError as error:
        raise ZsadError(f"{path}: {error}") from error
    holds = next((name for name, sign in SIGNS.items() if any(re.search(sign, key) for key in tensors)), "")
    words = f"a {holds} checkpoint" if holds else f"an unknown checkpoint with {', '.join(list(tensors)[:3])}, ..."
    if holds == "SceneEncoder" and len(tensors.get("fc.weight", range(PLACES))) != PLACES:
        holds, words = "", f"a ResNet of {len(tensors['fc.weight'])} classes, not of the {PLACES} of Places365"
    if holds != model:
        raise ZsadError(f"{path}: this is {words}, expected {model}; put the official file in its place")
    return tensors, prefix


def load_into(
    model: nn.Module, path: str | Path, sha256: str | None = None, normal_prototype: Tensor | None = None
) -> Report:
    """Fills `model` from an official file of its class, strictly.

    Args:
        model: `TimeSformer`, `DPC`, `SceneEncoder`, `AnomalyCLIP` or open_clip's ``CLIP``, in the file's sizes.
        path: file.
        sha256: its known hash; a TorchScript archive is not opened without.
        normal_prototype: m of `AnomalyCLIP`, which the published files lack; None: NaN, so that scores are NaN until it
            is measured.

    Raises:
        ZsadError: another kind of file or model, or tensors missing, unexpected or of another shape; nothing is loaded
            then.
    """
    import torch

    from zsad_lib.models.checkpoints import load_strict

    name = type(model).__name__
    tensors, prefix = tensors_of(choose("model", name, {name: name for name in SPARE}), path, sha256)
    wanted = dict(model.named_parameters())  # a model with a classifier takes it
    why = {key: next((why for spare, why in SPARE[name].items() if re.match(spare, key)), "") for key in tensors}
    kept = {key: value for key, value in tensors.items() if not why[key] or key in wanted}
    try:
        if name == "CLIP":
            load_strict(model, kept)
        elif name == "AnomalyCLIP":  # it compares the prompts itself
            unknown = torch.full_like(model.normal_prototype, float("nan"))
            named = {prefix + key: value for key, value in tensors.items()}
            model.load_official(named, unknown if normal_prototype is None else normal_prototype)
        else:
            model.load_official({prefix + key: value for key, value in kept.items()})
    except ZsadError as error:
        raise ZsadError(f"{path}: {error}; put the official file in its place") from error
    loaded = Counter(key.partition(".")[0] for key in kept)
    return Report(name, dict(loaded), dict(Counter(why[key] for key in tensors if key not in kept)))
