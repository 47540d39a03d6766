"""Profiles: every setting of a run in one frozen, typed place. A name or type that does not fit is an error."""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from zsad_lib.errors import ZsadError

FAR_TARGET = 0.05  # the one default of the share of held-out normal frames that may alarm, 0..1: it sets the threshold


@dataclasses.dataclass(frozen=True)
class Profile:
    """The resolved settings of one run; saved with every result."""

    name: str
    dataset: str  # key of `zsad_lib.pipeline.steps.STEPS`
    is_result: bool = True  # False: a quick look, marked "not results" wherever its numbers are printed
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of training; scores are averaged over them
    bench_seed: int = 0  # of the embedded benchmark's renderer; another one gets a run folder of its own
    pretrain_seed: int = 0  # benchmark: of the stand-ins' pretraining; another one gets a run folder of its own
    data_root: str = ""  # local copy of the data set in its official layout; "" = data/<dataset>
    split: str = "official"  # which lists of the data set, see SPLITS; another one gets a run folder of its own
    allow_missing: bool = False  # real footage: go on without videos that are missing or cannot be decoded
    jobs: int = os.cpu_count() or 1  # parallel processes; changes no number
    train_sites: int = 3  # benchmark: cameras per scene that training sees
    val_sites: int = 1  # benchmark: cameras per scene for design choices, statistics and thresholds
    test_sites: int = 3  # benchmark: unseen cameras per scene
    train_clips: int = 24  # benchmark: normal clips per training camera
    normal_clips: int = 18  # benchmark: normal clips per validation or test camera
    family_clips: int = 9  # benchmark: clips per family of anomalies and camera
    weak_clips: int = 8  # benchmark: abnormal clips per family and training camera, for weak supervision alone
    extra_clips: int = 3  # benchmark: clips per family and scene of night and lookalike; twice as many normal ones
    streams: int = 1  # benchmark: continuous videos per camera; of a validation camera, two normal, two with events
    stream_frames: int = 1200  # benchmark: their length, frames
    before_frames: int = 1200  # benchmark: length of the two normal videos that each test camera recorded before
    train_steps: int = 200  # optimiser steps of the detector; on real footage, of the predictive coding
    weak_epochs: int = 12  # passes over the weakly labelled videos; 0: as published for the data set
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"  # of training; bf16 where the device has units for it
    chunk: int = 0  # windows of the predictive stream per pass with gradient, to save memory; 0: as many as fit
    checkpointing: bool = False  # compute the predictive stream's blocks again in the backward pass, to save memory
    compile: Literal["no", "inductor", "aot_eager"] = "no"  # back end of torch.compile for the predictive stream
    alpha: float = 0.5  # weight of the alignment loss, 0..1 (the rest: prediction loss)
    bootstrap_draws: int = 2000  # resamplings of the test videos behind every interval
    far_target: float = FAR_TARGET  # false alarm rate on normal video that sets the threshold, 0..1
    released: tuple[str, ...] = ()  # defects of the released code to switch on
    backbones: Literal["stand_in", "official"] = "stand_in"  # small ones shipped with the kit, or the published ones
    regions: bool = True  # published streams: dense CLIP features and a local read-out; False: one vector per window
    stride: int = 1  # every stride-th frame is seen; the published predictive stream learned at 10 frames per second
    held_out: bool = False  # benchmark: stand-ins whose pretraining never showed a fight, a fall or a fire

    @property
    def run_name(self) -> str:
        """Folder under runs/: the profile's name, and split, render's seed and stand-ins that are not the default."""
        split = "" if self.split == PROFILES.get(self.name, self).split else f"-{self.split}"
        seed = "" if self.bench_seed == Profile.bench_seed else f"-seed{self.bench_seed}"
        seed += "" if self.pretrain_seed == Profile.pretrain_seed else f"-pretrained{self.pretrain_seed}"
        return self.name + split + seed + ("-held-out" if self.held_out else "")


PROFILES = {
    "smoke": Profile(
        "smoke",
        "scene_rules",
        is_result=False,
        seeds=(0,),
        bootstrap_draws=50,
        train_sites=1,
        test_sites=1,
        train_clips=6,
        normal_clips=4,
        family_clips=3,
        weak_clips=3,
        extra_clips=0,
        stream_frames=300,
        before_frames=300,
        train_steps=25,
    ),
    "demo": Profile("demo", "scene_rules"),
    "ped2": Profile("ped2", "ucsd_ped2", seeds=(0, 1, 2), train_steps=700),
    "ucf_crime": Profile(
        "ucf_crime",
        "ucf_crime",
        backbones="official",
        stride=3,
        train_steps=2000,
        weak_epochs=0,
        mixed_precision="bf16",
    ),
    "shanghaitech": Profile("shanghaitech", "shanghaitech", split="weak", backbones="official", weak_epochs=0),
    "xd_violence": Profile("xd_violence", "xd_violence", backbones="official", weak_epochs=0),
    "avenue": Profile("avenue", "avenue"),
    "nwpu_campus": Profile("nwpu_campus", "nwpu_campus"),
    "ubnormal": Profile("ubnormal", "ubnormal"),
}
SPLITS = {"ucf_crime": ("official", "uca", "clean"), "shanghaitech": ("weak", "one_class")}  # other data sets: official


def get_profile(name: str, **overrides: Any) -> Profile:
    """The profile `name` with some fields replaced.

    Args:
        name: one of `PROFILES`.
        overrides: fields by name, in any case (``DATA_ROOT`` is ``data_root``). Strings, as the Makefile gives
            them, are read by the field's type: ``seeds="0,1"``, ``is_result="no"``.

    Raises:
        ZsadError: unknown profile or field (naming the nearest valid one), or a value of the wrong type.

    >>> get_profile("demo", seeds="0, 1").seeds
    (0, 1)
    >>> get_profile("demo", bench_sed=1)
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: setting 'bench_sed' is unknown; did you mean 'bench_seed'?
    """
    if name not in PROFILES:
        raise ZsadError(f"profile {name!r} is unknown; did you mean {nearest(name, PROFILES)!r}?")
    hints = typing.get_type_hints(Profile)
    values = {}
    for key, value in overrides.items():
        field = key.lower()
        if field not in hints or field in ("name", "dataset"):
            valid = [name for name in hints if name not in ("name", "dataset")]
            raise ZsadError(f"setting {key!r} is unknown; did you mean {nearest(field, valid)!r}?")
        values[field] = typed(key, value, hints[field])
    profile = dataclasses.replace(PROFILES[name], **values)
    if profile.split not in (splits := SPLITS.get(profile.dataset, ("official",))):
        raise ZsadError(
            f"setting split={profile.split!r} is unknown for profile {name}; choose from {', '.join(splits)}"
        )
    return profile


def as_dict(profile: Profile) -> dict[str, Any]:
    """All settings by name, as JSON gives them back (tuples are lists)."""
    values = dataclasses.asdict(profile)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def changes(profile: Profile) -> dict[str, Any]:
    """The settings in which `profile` differs from the one of its name."""
    usual = get_profile(profile.name)
    return {name: value for name, value in vars(profile).items() if value != getattr(usual, name)}


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name most like `name`."""
    return max(valid, key=lambda other: difflib.SequenceMatcher(None, str(name).lower(), other.lower()).ratio())


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint` (bool, int, float, str, Literal, tuple[X, ...] or X | None); strings are read.

    Raises:
        ZsadError: the value does not fit; names the setting, the value and what would be right.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return typed(name, value, next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        items = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise ZsadError(f"setting {name}={value!r}: give values separated by commas")
        return tuple(typed(name, item, arguments[0]) for item in items)
    if origin is Literal:
        if value not in arguments:
            raise ZsadError(f"setting {name}={value!r} is unknown; did you mean {nearest(value, arguments)!r}?")
        return value
    if isinstance(value, str) and hint is not str:
        word = value.strip().lower()
        if hint is bool and word in _WORDS:
            return _WORDS[word]
        if hint in (int, float):
            try:
                return hint(word)
            except ValueError:
                pass
    elif type(value) is hint:
        return value
    elif hint is float and type(value) is int:
        return float(value)
    raise ZsadError(f"setting {name}={value!r}: {_EXPECTED[hint]} is needed")


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_EXPECTED = {bool: "yes or no", int: "a whole number", float: "a number", str: "a text"}
