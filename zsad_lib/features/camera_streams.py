"""The published streams for one's own camera.

CLIP alone is needed: it says what the regions of a picture are, and reads sentences. Each of the others adds something
and can be left out.

Weights come from the folder of published weights; the small networks that ship with the kit never take their place.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from zsad_lib.errors import ZsadError, tell_once
from zsad_lib.features import published_weights
from zsad_lib.features.backbones import Backbones, see_with_clip
from zsad_lib.features.published_weights import CATALOGUE, weights_root
from zsad_lib.files import paths
from zsad_lib.models.names import choose
from zsad_lib.processes import use_all_threads

CLIP = "clip_vit_b16"
FETCH = "`make weights PROFILE=camera` fetches it"
LOST = {  # what can be left out, and what is lost then
    "places365": "no memory of what the place itself looks like, and no gate",
    "dpc": "nothing is predicted, so that no score has `s_pred`",
    "timesformer": "no attention for an explanation in Python; no score reads it",
}


def camera_streams(
    without: Collection[str] = (), needed: Collection[str] | None = None, attention: bool = False
) -> Backbones:
    """Published streams, as far as their weights are there.

    Args:
        without: names of `LOST` that are left out though they may be there.
        needed: names of `LOST` that a calibrated detector reads: all of them must be there, and no others are loaded.
            None: whatever is there.
        attention: load TimeSformer too, which only an explanation looks at.

    What is missing is told on standard error, with what is lost, and licences at their first use.

    Raises:
        ZsadError: an unknown name, CLIP or what is needed is missing, or a file that is there cannot be used.
    """
    for name in without:
        choose("stream", name, LOST)
    if lacking := set(needed or ()) & set(without):
        raise ZsadError(f"this detector was calibrated with {', '.join(sorted(lacking))}; calibrate anew to do without")
    for name in (CLIP, *(needed or ())):
        if not published_weights.is_there(name):
            raise ZsadError(f"{weights_root() / CATALOGUE[name].file}: missing; {FETCH}")
    scored = ("places365", "dpc") if needed is None else needed
    loaded, lines = [CLIP], []
    for name in (*scored, *["timesformer"] * attention):
        if name in without:
            lines.append(f"without {name}: {LOST[name]}")
        elif not published_weights.is_there(name):
            lines.append(f"{CATALOGUE[name].file}: not in {weights_root()}: {LOST[name]}; {FETCH}")
        else:
            loaded.append(name)
    for line in [*lines, *_licences(loaded)]:
        tell_once(line)
    use_all_threads()
    models = {name: published_weights.load_fetched(name).requires_grad_(False) for name in loaded}
    backbones = Backbones(*map(models.get, ("timesformer", "dpc", "places365", CLIP)))
    if backbones.timesformer is not None:
        backbones.timesformer.fold()
    see_with_clip(backbones, regions=True)
    return backbones


def camera_clip() -> Path:
    """The file of CLIP's weights.

    Raises:
        ZsadError: it is missing or another file than the published one.
    """
    if not published_weights.is_there(CLIP):
        raise ZsadError(f"{weights_root() / CATALOGUE[CLIP].file}: missing; {FETCH}")
    return published_weights.fetch(CLIP, offline=True)


def _licences(names: Collection[str]) -> list[str]:
    """A line per weight that is used for the first time; notes which ones those were."""
    noted = paths.cache() / "weights" / "licences_shown.json"
    shown = paths.read_json(noted) if noted.exists() else []
    new = [name for name in names if name not in shown]
    if new:
        paths.write_json(noted, [*shown, *new])
    return [f"{name}: licence {CATALOGUE[name].licence}, from {CATALOGUE[name].homepage}" for name in new]
