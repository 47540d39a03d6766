"""Defects of the main method's released code as switches, so that learners can measure what each one costs.

A profile's `released` names the switches; `AS_RELEASED` is all of them. Those that change frozen features get a feature
cache of their own. Defects 6 and 10 cannot be switched: they drop gradients that nothing uses, or break the script.

Notebook: 32_ablate_released
"""

from __future__ import annotations

from collections.abc import Iterable

from zsad_lib.config import nearest
from zsad_lib.errors import ZsadError

DEFECTS = {  # name -> (number in the kit's list of ten, what it does, where it acts)
    "dpc_order": (1, "DPC's frames are reshaped, not permuted: channels mix with time", "features"),
    "position_size": (2, "TimeSformer is built 244/224 too large: its position embeddings are resampled", "features"),
    "scene_weights": (3, "the scene network's weights never load", "features"),
    "context_projection": (4, "the context projection is random, untrained and not saved", "train"),
    "one_normalisation": (5, "TimeSformer's pixel statistics serve every stream", "features"),
    "batch_statistics": (7, "BatchNorm scores with the statistics of whatever else is in the batch", "features"),
    "cpc_temperature": (8, "dot products of the CPC loss are divided by 0.07", "train"),
    "plain_extractor": (9, "training uses the GRU state, scoring the backbone's mean before the ReLU", "score"),
}
AS_RELEASED = tuple(DEFECTS)


def acting_in(released: Iterable[str], place: str) -> tuple[str, ...]:
    """The switches of `released` that act in `place` (features, train or score), in DEFECTS' order.

    Raises:
        ZsadError: an unknown switch; names the nearest valid one.
    """
    released = set(released)
    for name in released - set(DEFECTS):
        raise ZsadError(f"released defect {name!r} is unknown; did you mean {nearest(name, DEFECTS)!r}?")
    return tuple(name for name in DEFECTS if name in released and DEFECTS[name][2] == place)
