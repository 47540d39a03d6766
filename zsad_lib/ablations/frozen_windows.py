"""All windows of a benchmark as a few arrays: every feature and every score term that an ablation does not train.

A variant of the gate, the projection or the objective trains and scores on these in seconds. The predictive stream is
tuned beforehand, once per seed.

Notebook: 30_ablate_gate
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.features.backbones import EMBED_DIM, Backbones, stand_ins, weights_folder
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.files import paths
from zsad_lib.files.weights import load_tensors, save_weights
from zsad_lib.methods.context_aware.scores import joint, neighbour_score, predictive_terms
from zsad_lib.methods.context_aware.train import Variant, load_detector, train_detector
from zsad_lib.methods.context_aware.training_windows import Windows, load_windows
from zsad_lib.models.dpc import DPC
from zsad_lib.models.text import encode_captions
from zsad_lib.pipeline.fingerprints import closure, digest

SPLITS = ("train", "val", "test")
STREAM = Variant(gate="none", objective="plain", batch=8, live=8, alpha=0.0)  # L = L_pred: the predictive stream alone


class Split(NamedTuple):
    """The windows of one split, and the score terms in which no text enters."""

    windows: Windows  # without stem and cell_motion
    terms: dict[str, Tensor]  # s_mem; of the predictive stream s_pred, s_all, s_peak, s_motion: [W] each
    plain: Tensor  # [W, D_dpc] mean of the predictive backbone's features: what released defect 9 scores with
    videos: list[str]  # clip i of `windows.clip_and_block`
    bank: Tensor  # [K, D] unit vectors of the distinct captions, which `windows.caption` numbers; training only


def windows_folder(profile: Profile, table: pd.DataFrame) -> Path:
    """Where the arrays lie: named by the features, the videos with what is known of them, and the code."""
    facts = table[["video", "split", "path", "n_frames"]].astype(str).values.tolist()
    captions = table[table.split == "train"].caption.tolist()
    key = digest([cache_folder(profile).name, facts, captions, profile.train_steps, closure([__name__])])
    return paths.cache() / "windows" / key[:12]


@torch.no_grad()
def freeze(profile: Profile, table: pd.DataFrame) -> Path:
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
    print("windows: joining the features of all videos", flush=True)
    backbones, cache, memory = stand_ins(weights_folder(profile)), cache_folder(profile), None
    for split in SPLITS:
        rows = list(table[table.split == split].itertuples())
        features = [load_features(feature_file(cache, row)) for row in rows]
        counts = [len(f.timesformer) for f in features]
        place = [torch.stack([torch.full((n,), i), torch.arange(n)], 1) for i, n in enumerate(counts)]
        arrays = dict(
            timesformer=torch.cat([f.timesformer for f in features]),
            scene=torch.cat([f.scene for f in features]),
            place=torch.cat(place),
        )
        if split == "train":
            mean, std = arrays["scene"].mean(0), arrays["scene"].std(0).clamp_min(1e-6)
        query = joint(backbones.video_head(arrays["timesformer"]), (arrays["scene"] - mean) / std)
        memory = query if memory is None else memory
        arrays["s_mem"] = neighbour_score(query, memory)
        arrays |= dict(bank=torch.zeros(0, EMBED_DIM), caption=torch.zeros(0).long())
        if split == "train":
            captions = [row.caption for row in rows]
            distinct = list(dict.fromkeys(captions))
            arrays["bank"] = encode_captions(backbones.clip, distinct, backbones.vocabulary)
            arrays["caption"] = torch.tensor([distinct.index(c) for c in captions])[arrays["place"][:, 0]]
        save_weights(folder / f"{split}.safetensors", arrays, {"videos": [row.video for row in rows]})
    return folder


def tune(profile: Profile, table: pd.DataFrame, folder: Path, seed: int) -> Path:
    """The predictive stream of one seed, tuned on the normal training windows by L_pred alone, run on all windows.

    All variants of a seed share it, as all share the features.

    Args:
        folder: of `freeze`; gets ``stream-<seed>/detector.safetensors`` and ``<split>-<seed>.safetensors``.

    Returns:
        The weights file.
    """
    weights = folder / f"stream-{seed}" / "detector.safetensors"
    if tuned(folder, seed):
        return weights
    torch.set_num_threads(1)
    told, pretrained = table[table.split == "train"], stand_ins(weights_folder(profile))
    windows = load_windows(profile, told, pretrained, state=False, regions=False)
    dpc = load_detector(train_detector(profile, STREAM, seed, windows, weights.parent)).dpc
    for split in SPLITS:
        save_weights(folder / f"{split}-{seed}.safetensors", predict(profile, table[table.split == split], dpc), {})
    return weights


def tuned(folder: Path, seed: int) -> bool:
    """Whether `tune` has been here."""
    return all((folder / f"{split}-{seed}.safetensors").exists() for split in SPLITS)


def tuned_backbones(profile: Profile, folder: Path, seed: int) -> Backbones:
    """The profile's stand-ins with the predictive stream of `tune`."""
    backbones = stand_ins(weights_folder(profile))
    backbones.dpc = load_detector(folder / f"stream-{seed}" / "detector.safetensors").dpc
    return backbones


def load(folder: Path, split: str, seed: int | None = None) -> Split:
    """Reads what `freeze` wrote of one split; the predictive stream's part is there with a seed, from `tune`."""
    mend = f"delete {folder} and run `make ablate` again"
    arrays, header = load_tensors(folder / f"{split}.safetensors", mend)
    nothing = torch.empty(0)
    if seed is not None:
        arrays |= load_tensors(folder / f"{split}-{seed}.safetensors", mend)[0]
    scene, caption, bank = arrays["scene"], arrays["caption"], arrays["bank"]
    dpc, plain = arrays.get("dpc", nothing), arrays.get("plain", nothing)
    windows = Windows(
        timesformer=arrays["timesformer"], dpc=dpc, scene=scene, context=scene, clip_and_block=arrays["place"],
        text=bank[caption], caption=caption, stem=[], cell_motion=[],
    )  # fmt: skip
    terms = {name: value for name, value in arrays.items() if name.startswith("s_")}
    return Split(windows, terms, plain, header.get("videos", []), bank)


@torch.no_grad()
def predict(profile: Profile, table: pd.DataFrame, dpc: DPC) -> dict[str, Tensor]:
    """A predictive stream on all windows of some videos: `dpc` and `plain` [W, D_dpc], and score terms [W] by name."""
    cache = cache_folder(profile)
    of_videos = list(predictive_terms(dpc, (load_features(feature_file(cache, row)) for row in table.itertuples())))
    arrays = dict(dpc=[video.context for video in of_videos], plain=[video.plain for video in of_videos])
    arrays |= {name: [video.terms[name] for video in of_videos] for name in of_videos[0].terms}
    return {name: torch.cat(values) for name, values in arrays.items()}


def with_stream(split: Split, stream: dict[str, Tensor]) -> Split:
    """The split under another predictive stream, of `predict`."""
    terms = split.terms | {name: value for name, value in stream.items() if name.startswith("s_")}
    return split._replace(windows=split.windows._replace(dpc=stream["dpc"]), terms=terms, plain=stream["plain"])
