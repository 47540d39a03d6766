"""One trial of an ablation: a variant of the detector with one seed, trained and scored on frozen windows.

What a trial needs lies on disk, so that it runs in any process, here or on another machine of a cluster.

Notebook: 33_ablate_prompts
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from data_prep.scene_rules.prompts import prompts
from data_prep.scene_rules.world import ACTIONS, SCENES, SEMANTIC
from zsad_lib.ablations import frozen_windows
from zsad_lib.config import Profile
from zsad_lib.features.backbones import stand_ins, weights_folder
from zsad_lib.files.score_files import write_archive
from zsad_lib.methods.context_aware.scores import prompt_scores, semantic_score
from zsad_lib.methods.context_aware.train import Variant, load_detector, train_detector
from zsad_lib.methods.context_aware.training_windows import Windows, load_windows, with_context
from zsad_lib.models.detector import Detector
from zsad_lib.models.text import encode_captions
from zsad_lib.pipeline import artefacts
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.released_defects import acting_in

BASE = Variant(live=0)  # the predictive stream was tuned before, once per seed, so that a trial takes seconds
SCORED = ("val", "test")
PROMPT_SETS = {  # name -> its sentences
    "class": prompts(ACTIONS),
    "class_places": prompts(ACTIONS, SCENES),
    "abnormal": prompts(SEMANTIC),
    "abnormal_places": prompts(SEMANTIC, SCENES),
}


def label(variant: Variant, profile: Profile, base: Variant = BASE) -> str:
    """Name of a variant's folder: gate, objective, and all that differs from `base`.

    >>> from zsad_lib.config import get_profile
    >>> label(Variant(gate="ln", objective="plain", live=0, blocks=1), get_profile("demo"))
    'ln-plain-blocks=1'
    """
    changed = []
    for name, value in dataclasses.asdict(variant).items():
        if name not in ("gate", "objective") and value != getattr(base, name):
            text = "+".join(value) if isinstance(value, tuple) else value
            changed.append(f"{name}={text}")
    return "-".join([variant.gate, variant.objective, *changed, *profile.released, *["held_out"] * profile.held_out])


def trial_key(profile: Profile, variant: Variant, seed: int, windows: Path) -> str:
    """What a finished trial must have been made from, to be kept."""
    settings = [profile.train_steps, profile.alpha, profile.mixed_precision, sorted(profile.released)]
    return digest([dataclasses.asdict(variant), seed, settings, windows.name, closure([__name__])])


def run_trial(profile: Profile, variant: Variant, seed: int, table: pd.DataFrame, windows: Path, folder: Path) -> Path:
    """Trains and scores one variant with one seed; a finished trial is kept, an interrupted one goes on.

    Args:
        profile: for its features, steps and released defects.
        table: manifest; of the test videos it reads neither labels nor captions.
        windows: folder of `frozen_windows.freeze`, to which `frozen_windows.tune` adds this seed's predictive stream.
        folder: gets ``detector.safetensors``, ``val.npz`` and ``test.npz`` (score terms of all windows) and, last,
            ``result.json``.

    Returns:
        `folder`.
    """
    key = trial_key(profile, variant, seed, windows)
    if finished(folder, key):
        return folder
    torch.set_num_threads(1)
    if variant.live:  # tunes the predictive stream itself, from the pretrained one
        stream, backbones = None, stand_ins(weights_folder(profile))
        train, told = _split(windows, "train", stream), table[table.split == "train"]
        given = load_windows(profile, told, backbones, regions=False)
    else:
        frozen_windows.tune(profile, table, windows, seed)  # done before, unless a cluster took this trial first
        stream, backbones = seed, frozen_windows.tuned_backbones(profile, windows, seed)
        train = _split(windows, "train", stream)
        given = train.windows
    given = with_context(given, variant.context, seed)
    detector = load_detector(train_detector(profile, variant, seed, given, folder, backbones))
    banks = {"captions": train.bank, **_prompt_banks(weights_folder(profile))}
    for name in SCORED:
        split = _split(windows, name, stream)
        if variant.live:
            predicted = frozen_windows.predict(profile, table[table.split == name], detector.dpc)
            split = frozen_windows.with_stream(split, predicted)
        given = with_context(split.windows, variant.context, seed)
        if "plain_extractor" in acting_in(profile.released, "score"):
            given = given._replace(dpc=split.plain)
        terms = {term: split.terms[term] for term in ("s_pred", "s_all", "s_peak", "s_mem")}
        terms |= text_terms(detector, given, banks, look_alike(train, split, variant.max_cosine))
        write_archive(folder / f"{name}.npz", {term: value.numpy() for term, value in terms.items()})
    return finish(folder, key, variant, seed)


def finish(folder: Path, key: str, variant: Variant, seed: int) -> Path:
    """Marks a trial as finished, with the hashes of all that it wrote."""
    facts = {"key": key, "variant": dataclasses.asdict(variant), "seed": seed, "artefacts": {}}
    artefacts.write_result(folder, facts | {"files": artefacts.record(folder, [folder])})
    return folder


def finished(folder: Path, key: str) -> bool:
    """Whether `folder` holds the whole result of a trial with this key, as it was written."""
    result = artefacts.read_result(folder) or {}
    return result.get("key") == key and not artefacts.changed(folder, result["files"])


@torch.no_grad()
def text_terms(
    detector: Detector, windows: Windows, banks: dict[str, Tensor], alike: Tensor | None = None
) -> dict[str, Tensor]:
    """Score terms that compare windows with texts, [W] each.

    `s_sem`: training captions; `s_retrieval`: those of scenes that look alike; `s_class`, `s_class_places`: prompts for
    the ordinary actions instead of captions; `s_abnormal`, `s_abnormal_places`: mass on the abnormal prompts, beside
    the captions.

    Args:
        banks: unit vectors [K, D] of ``captions`` and of the `PROMPT_SETS`.
        alike: [W, K] bool of `look_alike`; without it, there is no `s_retrieval`.
    """
    v = detector.embed(windows.timesformer, windows.dpc)
    context = detector.context(windows.context)
    fits = {name: detector.gate.logits(v, bank, context) for name, bank in banks.items()}
    terms = {"s_sem": semantic_score(fits["captions"])}
    if alike is not None:
        terms["s_retrieval"] = semantic_score(fits["captions"].masked_fill(~alike, -1.0))
    for name in PROMPT_SETS:
        if name.startswith("class"):
            terms[f"s_{name}"] = semantic_score(fits[name])
        else:
            terms[f"s_{name}"] = prompt_scores(fits["captions"], fits[name])[0]
    return terms


def look_alike(train: frozen_windows.Split, split: frozen_windows.Split, min_cosine: float) -> Tensor:
    """Which captions were seen in scenes like a window's own: [W, K] bool; all of them where no scene is alike.

    Args:
        min_cosine: of the standardised scene features, from which on two scenes are alike.
    """
    mean, std = train.windows.scene.mean(0), train.windows.scene.std(0).clamp_min(1e-6)
    of_train, of_split = (F.normalize((s.windows.scene - mean) / std, dim=-1) for s in (train, split))
    owners = F.one_hot(train.windows.caption, len(train.bank)).float()  # [N, K]
    alike = ((of_split @ of_train.T >= min_cosine).float() @ owners) > 0  # [W, K]
    return alike | ~alike.any(1, keepdim=True)


@functools.lru_cache(maxsize=18)
def _split(windows: Path, name: str, seed: int | None) -> frozen_windows.Split:
    return frozen_windows.load(windows, name, seed)


@functools.lru_cache(maxsize=2)
def _prompt_banks(weights: Path) -> dict[str, Tensor]:
    backbones = stand_ins(weights)
    return {name: encode_captions(backbones.clip, texts, backbones.vocabulary) for name, texts in PROMPT_SETS.items()}
