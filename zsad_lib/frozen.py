"""All windows of a benchmark as a few arrays: every feature and every score term that an ablation does not train.

A variant of the gate, the projection or the objective trains and scores on these in seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad_lib import paths
from zsad_lib.backbones import EMBED_DIM, stand_ins, weights_folder
from zsad_lib.features import cache_folder, feature_file, load_features
from zsad_lib.fingerprint import closure, digest
from zsad_lib.models.text import encode_captions
from zsad_lib.score import joint, neighbour_score, predictive_terms
from zsad_lib.train import Windows

SPLITS = ("train", "val", "test")


class Split(NamedTuple):
    """The windows of one split, and the score terms in which nothing is trained."""

    windows: Windows  # without stem and cell_motion
    terms: dict[str, Tensor]  # s_pred, s_all, s_peak, s_motion, s_mem: [W] each
    plain: Tensor  # [W, D_dpc] mean of the predictive backbone's features: what released defect 9 scores with
    videos: list[str]  # clip i of `windows.place`
    bank: Tensor  # [K, D] unit vectors of the distinct captions, in the order of `windows.caption`'s numbers; training only


def windows_folder(profile, table) -> Path:
    """Where the arrays lie: named by the features, the videos with what is known of them, and the code."""
    facts = table[["video", "split", "path", "n_frames", "caption"]].astype(str).values.tolist()
    key = digest([cache_folder(profile).name, facts, closure([__name__])])
    return paths.cache() / "windows" / key[:12]


@torch.no_grad()
def freeze(profile, table) -> Path:
    """Computes the arrays of all splits, unless they are there. Captions of test videos are never read.

    Args:
        profile: whose features have been computed.
        table: manifest of the benchmark.

    Returns:
        Folder with one file per split.
    """
    folder = windows_folder(profile, table)
    if all((folder / f"{split}.safetensors").exists() for split in SPLITS):
        return folder
    backbones, cache = stand_ins(weights_folder(profile)), cache_folder(profile)
    memory = mean = deviation = None
    for split in SPLITS:
        rows = list(table[table.split == split].itertuples())
        arrays: dict[str, list[Tensor]] = {}
        for clip, row in enumerate(rows):
            f = load_features(feature_file(cache, row))
            dpc, terms = predictive_terms(backbones.dpc, f)
            plain, _ = predictive_terms(backbones.dpc, f, plain_extractor=True)
            place = torch.stack([torch.full((len(dpc),), clip), torch.arange(len(dpc))], 1)
            parts = dict(timesformer=f.timesformer, scene=f.scene, dpc=dpc, plain=plain, place=place, **terms)
            for name, value in parts.items():
                arrays.setdefault(name, []).append(value)
        joined = {name: torch.cat(values).contiguous() for name, values in arrays.items()}
        if split == "train":
            mean, deviation = joined["scene"].mean(0), joined["scene"].std(0).clamp_min(1e-6)
        query = joint(backbones.video_head(joined["timesformer"]), (joined["scene"] - mean) / deviation)
        memory = query if split == "train" else memory
        joined["s_mem"] = neighbour_score(query, memory)
        captions = [row.caption for row in rows] if split == "train" else [""] * len(rows)
        distinct = list(dict.fromkeys(captions))
        joined["caption"] = torch.tensor([distinct.index(c) for c in captions])[joined["place"][:, 0]]
        joined["bank"] = torch.zeros(1, EMBED_DIM)
        if split == "train":
            joined["bank"] = encode_captions(backbones.clip, distinct, backbones.vocabulary)
        names = json.dumps({"videos": [row.video for row in rows]})
        with paths.atomic(folder / f"{split}.safetensors", mode=None) as temporary:
            save_file(joined, temporary, {"names": names})
    return folder


def load(folder: Path, split: str) -> Split:
    """Reads what `freeze` wrote of one split."""
    with safe_open(folder / f"{split}.safetensors", framework="pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        names = json.loads(file.metadata()["names"])
    text, scene = arrays["bank"][arrays["caption"]], arrays["scene"]
    windows = Windows(
        arrays["timesformer"], arrays["dpc"], scene, scene, arrays["place"], text, arrays["caption"], [], []
    )
    terms = {name: value for name, value in arrays.items() if name.startswith("s_")}
    return Split(windows, terms, arrays["plain"], names["videos"], arrays["bank"])
