"""SceneRules with labels of whole videos: anomalies may be among the training videos, each has a class and no span.

Kept in a manifest of their own: the zero-shot method never sees it. The cameras are those of training, so the test
cameras stay unseen.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_prep.scene_rules import world
from data_prep.scene_rules.clips import ClipSpec
from data_prep.scene_rules.prepare import describe, render
from data_prep.scene_rules.prompts import prompts
from zsad_lib.config import Profile
from zsad_lib.files.manifest import load_manifest, save_labelled

NORMAL = "normal"
_OF_CONCEPT = {"fight": "fighting", "fall": "falls down", "fire": "fire"}
_OF_FAMILY = {"temporal": "broken time", "contextual": "out of place", "normal": NORMAL, "mixed": "mixed"}
CLASSES = (*_OF_CONCEPT.values(), _OF_FAMILY["temporal"], _OF_FAMILY["contextual"], NORMAL)  # in the order of their ids


def class_of(family: str, action: str) -> str:
    """Class of a video: what happens for semantic anomalies, the family for the others.

    >>> class_of("semantic", "fire+walk"), class_of("contextual", "drive"), class_of("normal", "walk")
    ('fire', 'out of place', 'normal')
    """
    return _OF_CONCEPT[action.split("+")[0]] if family == "semantic" else _OF_FAMILY[family]


def class_prompts() -> dict[str, list[str]]:
    """Zero-shot prompts per class, in the captions' words; broken time and the hidden rules of scenes cannot be told in
    a prompt."""
    return {name: prompts([concept]) for concept, name in _OF_CONCEPT.items()} | {NORMAL: prompts(world.ACTIONS)}


def clip_list(profile: Profile) -> list[ClipSpec]:
    """`profile.weak_clips` abnormal clips per family and training camera."""
    return [
        ClipSpec(f"{site}_{family}_{index:02d}", "train", "main", scene, site, family, world.CLIP_FRAMES)
        for scene in world.SCENES
        for site in (f"train-{scene}-{number}" for number in range(profile.train_sites))
        for family in world.FAMILIES
        for index in range(profile.weak_clips)
    ]


def prepare(profile: Profile, folder: Path) -> dict:
    """Pipeline step: renders the abnormal training clips and writes the manifest that AnomalyCLIP reads.

    It holds them, the normal training clips and streams, and the validation and test videos; `action` is the class. Of
    training videos neither spans nor captions are in it, so that nothing later can use them. ``classes.csv`` holds the
    classes in the order of their ids, ``prompts.json`` the zero-shot prompts of each.
    """
    specs = clip_list(profile)
    abnormal = describe(specs, profile.bench_seed, render(specs, profile))
    listed = load_manifest(folder.parent / "data")
    known = listed[
        (listed.set == "main") | listed.split.isin(["train", "test"]) | (listed.split.eq("val") & listed.spans.eq(""))
    ]
    table = pd.concat([abnormal, known], ignore_index=True)
    table["action"] = [class_of(row.family, row.action) for row in table.itertuples()]
    table.loc[table.split == "train", ["spans", "kinds", "caption"]] = ""
    return save_labelled(table, CLASSES, class_prompts(), folder) | {"files": abnormal["path"]}
