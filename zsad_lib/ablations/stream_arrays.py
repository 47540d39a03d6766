"""All streams of a benchmark as a few arrays: regions, scenes, and every score term that an ablation does not train.

    s_mem, s_mem_global, s_pred of the pretrained stream, s_sem without a gate    once
    s_pred of a tuned predictive stream                                            once per seed and number of steps

So a variant of the gate trains on pairs of regions and clauses, and scores all regions, in seconds.

Notebook: 34_ablate_streams
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.features.backbones import stand_ins, weights_folder
from zsad_lib.features.cache import VideoFeatures, cache_folder, feature_file, load_features
from zsad_lib.files import paths
from zsad_lib.files.weights import find_header, load_tensors, save_weights
from zsad_lib.methods.context_aware.local_readout import block_scores
from zsad_lib.methods.context_aware.region_pairs import RegionPairs
from zsad_lib.methods.context_aware.scorer import Scorer, remembered, remembered_whole, with_memory
from zsad_lib.methods.context_aware.train import VARIANTS, load_detector, start_detector, train_detector
from zsad_lib.methods.context_aware.training_windows import Windows, load_windows
from zsad_lib.models.detector import Detector
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.run_step import run_folder

SPLITS = ("val", "test")
LOCAL = dataclasses.replace(VARIANTS["full"], live=0)  # the method's own variant; its predictive stream is tuned before
PASSES = VARIANTS["full"].passes  # factor of the profile's steps that this takes
NO_GATE = dataclasses.replace(LOCAL, gate="none", objective="plain")
TUNED = dataclasses.replace(VARIANTS["full"], gate="none", objective="plain", batch=16, alpha=0.0)  # L = L_pred


class Streams(NamedTuple):
    """The streams of one split, with W windows and R regions in all."""

    windows: Windows  # without texts
    region: Tensor  # [R, E] unit vectors; R = 0 of stand-ins without regions
    at: Tensor  # [R, 4] window among the W, token frame, row and column
    terms: dict[str, np.ndarray]  # s_sem of no gate, s_mem, s_mem_global, s_pred: of W windows, see `Scorer.terms`
    videos: list[str]  # stream i of `windows.clip_and_block`

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Values of all windows [W, ...] by video."""
        stream = self.windows.clip_and_block[:, 0].numpy()
        return {video: values[stream == number] for number, video in enumerate(self.videos)}


def streams_folder(profile: Profile, told: pd.DataFrame, table: pd.DataFrame) -> Path:
    """Where the arrays lie: named by the features, the streams with what is known of them, and the code."""
    facts = table[["video", "split", "path", "n_frames"]].astype(str).values.tolist()
    captions = told[["video", "start_s", "end_s", "caption"]].astype(str).values.tolist()
    tuned_by_run = [find_header(own_detector(profile, seed), "its run trains it").get("key") for seed in profile.seeds]
    key = [cache_folder(profile).name, facts, captions, profile.train_steps, tuned_by_run, closure([__name__])]
    return paths.cache() / "windows" / digest(key)[:12]


def own_detector(profile: Profile, seed: int) -> Path:
    """The run's detector of a seed, whose predictive stream has been tuned in full."""
    return run_folder(profile) / "train" / "full" / str(seed) / "detector.safetensors"


@torch.no_grad()
def freeze(profile: Profile, told: pd.DataFrame, table: pd.DataFrame) -> Path:
    """Computes the arrays of the training streams and of both splits, unless they are there.

    Args:
        profile: whose features have been computed.
        told: captioned rows of the training streams, of `training_windows.training_rows`.
        table: rows of the validation and test streams, and of what is `remembered`; neither labels nor captions are
            read.

    Returns:
        Folder with one file per split.
    """
    folder = streams_folder(profile, told, table)
    if all((folder / f"{split}.safetensors").exists() for split in ("train", *SPLITS)):
        return folder
    print("streams: joining the features of all streams", flush=True)
    backbones = stand_ins(weights_folder(profile))
    local = backbones.has_regions
    windows = load_windows(profile, told, backbones, state=False, regions=True)
    detector = start_detector(NO_GATE, backbones, windows).eval()
    bank = windows.pairs.bank if local else windows.text
    scorer = Scorer(detector, bank, [], torch.empty(0), local=local)
    videos = dict(zip(remembered(table).video, _features(profile, remembered(table))))
    scorer = with_memory(scorer, list(videos.values()), [videos[video] for video in remembered_whole(table)])
    for split in SPLITS:
        rows = table[table.split == split]
        save_weights(folder / f"{split}.safetensors", _join(profile, rows, scorer), {"videos": list(rows.video)})
    numbers = windows.caption.unique()
    first = [int((windows.caption == number).nonzero()[0]) for number in numbers]
    arrays = dict(timesformer=windows.timesformer, scene=windows.scene, place=windows.clip_and_block,
                  caption=windows.caption, bank=windows.text[first])  # fmt: skip
    if local:
        pairs = windows.pairs
        arrays |= dict(vector=pairs.vector.half(), clause=pairs.clause, pair_scene=pairs.scene, clause_bank=pairs.bank)
    save_weights(folder / "train.safetensors", arrays, {"clauses": windows.pairs.clauses if local else []})
    return folder


def _features(profile: Profile, rows: pd.DataFrame) -> Iterator[VideoFeatures]:
    return (load_features(feature_file(cache_folder(profile), row)) for row in rows.itertuples())


def _join(profile: Profile, rows: pd.DataFrame, scorer: Scorer) -> dict[str, Tensor]:
    """Arrays of some streams, one after the other."""
    parts: dict[str, list[Tensor]] = {}
    windows = 0
    for number, features in enumerate(_features(profile, rows)):
        [terms] = scorer.terms([features])
        terms["s_pred"] = predict(scorer.detector, features)
        count, at = len(features.scene), features.region_at.int()
        at[:, 0] += windows
        windows += count
        own = dict(region=features.region, at=at, scene=features.scene, timesformer=features.timesformer,
                   place=torch.stack([torch.full((count,), number), torch.arange(count)], 1))  # fmt: skip
        own |= {name: torch.from_numpy(terms[name]) for name in ("s_sem", "s_pred", "s_mem", "s_mem_global")
                if name in terms}  # fmt: skip
        for name, values in own.items():
            parts.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in parts.items()}


def predict(detector: Detector, features: VideoFeatures) -> np.ndarray:
    """s_pred of one stream [W, 2], see `local_readout.block_scores`."""
    return block_scores(detector.dpc, features.stem, features.cell_motion, detector.moving_from.item())


def tune(profile: Profile, told: pd.DataFrame, table: pd.DataFrame, folder: Path, seed: int, passes: int) -> Path:
    """The predictive stream of one seed, tuned on all windows of the training streams by L_pred alone, run on all
    others.

    In full length on the run's own stand-ins it is the run's: no weight of it gets a gradient from elsewhere.

    Args:
        profile, told, table: see `freeze`.
        folder: of `freeze`; gets ``stream-<passes>-<seed>/``.
        passes: factor of the profile's steps.

    Returns:
        The folder of this seed's terms.
    """
    target = folder / f"stream-{passes}-{seed}"
    if tuned(folder, seed, passes):
        return target
    torch.set_num_threads(1)
    if passes == PASSES and profile.backbones != "former":
        detector = load_detector(own_detector(profile, seed))
    else:
        backbones = stand_ins(weights_folder(profile))
        windows = load_windows(profile, told, backbones, state=False, regions=True)
        variant = dataclasses.replace(TUNED, passes=passes, readout="local" if windows.pairs else "global")
        detector = load_detector(train_detector(profile, variant, seed, windows, target, backbones))
    for split in SPLITS:
        of_videos = [predict(detector, features) for features in _features(profile, table[table.split == split])]
        save_weights(target / f"{split}.safetensors", {"s_pred": torch.from_numpy(np.concatenate(of_videos))}, {})
    return target


def tuned(folder: Path, seed: int, passes: int) -> bool:
    """Whether `tune` has been here."""
    return all((folder / f"stream-{passes}-{seed}" / f"{split}.safetensors").exists() for split in SPLITS)


def predicted(folder: Path, split: str, seed: int, passes: int) -> np.ndarray:
    """s_pred of a tuned predictive stream on all windows of a split: [W, 2]."""
    return _read(folder, f"stream-{passes}-{seed}/{split}")[0]["s_pred"].numpy()


@functools.lru_cache(maxsize=6)
def load(folder: Path, split: str) -> Streams:
    """Reads what `freeze` wrote of `val` or `test`."""
    arrays, header = _read(folder, split)
    terms = {name: value.numpy() for name, value in arrays.items() if name.startswith("s_")}
    return Streams(_windows(arrays), arrays["region"].float(), arrays["at"].long(), terms, header["videos"])


@functools.lru_cache(maxsize=2)
def load_training(folder: Path) -> tuple[Windows, Tensor]:
    """The captioned windows of the training streams, with their region pairs where there are any; and the captions'
    unit vectors [K, E]."""
    arrays, header = _read(folder, "train")
    windows, pairs = _windows(arrays), None
    if "vector" in arrays:
        scene, vector = arrays["pair_scene"], arrays["vector"].float()
        pairs = RegionPairs(vector, arrays["clause"], scene, scene, arrays["clause_bank"], header["clauses"])
    text, caption = arrays["bank"][arrays["caption"]], arrays["caption"]
    return windows._replace(text=text, caption=caption, pairs=pairs), arrays["bank"]


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict]:
    return load_tensors(folder / f"{name}.safetensors", f"delete {folder} and run `make ablate` again")


def _windows(arrays: dict[str, Tensor]) -> Windows:
    scene, nothing = arrays["scene"], torch.empty(0)
    return Windows(
        timesformer=arrays["timesformer"], dpc=torch.zeros(len(scene), 1), scene=scene, context=scene,
        clip_and_block=arrays["place"], text=nothing, caption=nothing, stem=[], cell_motion=[],
    )  # fmt: skip
