"""The context-aware method in the ablations: its trials, and scores of rows from the terms that the trials leave.

Each (variant, seed) has a folder under ``runs/<run>/ablation/trials``, which grids share; a finished one is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib.ablations import frozen_windows
from zsad_lib.ablations.engine import METRICS, run_trials
from zsad_lib.ablations.grids import Row
from zsad_lib.ablations.trial import finished, label, run_trial, trial_key
from zsad_lib.config import Profile
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.features.extraction import extract
from zsad_lib.features.window_plan import to_frames
from zsad_lib.files import paths
from zsad_lib.files.manifest import frame_labels, load_manifest, save_manifest
from zsad_lib.methods.context_aware.scores import fuse, normal_statistics
from zsad_lib.models.mixture import Mixture
from zsad_lib.pipeline.run_step import run_folder


def videos(profile: Profile) -> pd.DataFrame:
    """The manifest's rows that ablations use: continuous videos hold no clips to compare."""
    table = load_manifest(run_folder(profile) / "data")
    return table[~table.set.str.startswith("stream")]


def profile_of(row: Row, profile: Profile) -> Profile:
    """The profile with the row's own switches."""
    return dataclasses.replace(profile, released=row.released, held_out=row.held_out or profile.held_out)


def extract_of(table: pd.DataFrame, profile: Profile, home: Path) -> None:
    """The frozen features of the videos that a grid reads and of no others, where they are missing.

    Args:
        table: those videos' rows of the manifest; they are written to `home`.
        profile: with the switches of the row that asks.
    """
    save_manifest(table, home / "data")
    extract(profile, home / "features")


class ContextAware:
    """Trials and scores of the context-aware method's rows (`zsad_lib.ablations.engine.Method`)."""

    INPUTS = "features"

    def __init__(self, profile: Profile) -> None:
        self.profile, self.table = profile, videos(profile)

    def trials(self, row: Row) -> list[Path]:
        """Folders of the row's trials, one per seed of the profile."""
        folder = run_folder(self.profile) / "ablation" / "trials" / label(row.variant, profile_of(row, self.profile))
        return [folder / str(seed) for seed in self.profile.seeds]

    def train(self, rows: Sequence[Row]) -> None:
        """Trains and scores every variant with every seed that is not finished, after the seeds' predictive streams."""
        folders, windows, streams, unfinished = set(), {}, {}, {}
        for row in rows:
            profile = profile_of(row, self.profile)
            switches = profile.released, profile.held_out
            if switches not in windows:
                extract_of(self.table, profile, run_folder(self.profile) / "ablation" / "clips")
                windows[switches] = frozen_windows.freeze(profile, self.table)
            arrays = windows[switches]
            for seed, folder in zip(profile.seeds, self.trials(row)):
                if folder in folders:
                    continue
                folders.add(folder)
                if finished(folder, trial_key(profile, row.variant, seed, arrays)):
                    continue
                unfinished[folder] = run_trial, profile, row.variant, seed, self.table, arrays, folder
                if not row.variant.live and not frozen_windows.tuned(arrays, seed):
                    streams[arrays, seed] = frozen_windows.tune, profile, self.table, arrays, seed
        if streams:
            print(f"predictive streams: {len(streams)} to tune, one per seed", flush=True)
        run_trials(unfinished, len(folders), list(streams.values()))

    def made_from(self, rows: Sequence[Row]) -> list:
        """Keys of the trials, and the manifest."""
        folders = sorted({folder for row in rows for folder in self.trials(row)})
        return [[paths.read_json(folder / "result.json")["key"] for folder in folders], self.table.to_csv(index=False)]

    def window_scores(self, row: Row, split: str) -> dict[str, np.ndarray]:
        """video -> [S, n_windows] scores of the videos of a split (`val` or `test`), one row per seed."""
        folder = frozen_windows.windows_folder(profile_of(row, self.profile), self.table)
        val, scored = (frozen_windows.load(folder, name) for name in ("val", split))
        by_video = self.table.set_index("video")
        normal = torch.tensor([by_video.spans[video] == "" for video in val.videos])
        normal = normal[val.windows.clip_and_block[:, 0]]  # windows of held-out normal video
        scenes = {"val": val.windows.scene, split: scored.windows.scene}
        series = np.stack([_fuse(row, trial, split, normal, scenes) for trial in self.trials(row)])
        clip = scored.windows.clip_and_block[:, 0].numpy()
        return {video: series[:, clip == index] for index, video in enumerate(scored.videos)}

    def estimates(self, row: Row, split: str) -> list[Estimate]:
        """`METRICS` of the row on a split's main set, whole and per family, and its clip AUC on the other sets."""
        scores = self.window_scores(row, split)
        of_all_sets = []
        for name, clips in self.table[self.table.split == split].groupby("set", sort=True):
            main, by_video = name == "main", clips.set_index("video")
            labels = {clip.video: frame_labels(clip) for clip in clips.itertuples()}
            windows = {video: scores[video] for video in labels}
            of_all_sets += estimates(
                {video: to_frames(values, by_video.n_frames[video]) for video, values in windows.items()},
                labels,
                group="all" if main else f"set:{name}",
                families=by_video.family[by_video.spans != ""].to_dict() if main else None,
                windows=windows,
                metrics=METRICS if main and split == "test" else METRICS[:1],
                draws=self.profile.bootstrap_draws,
            )
        return of_all_sets


def _fuse(row: Row, folder: Path, split: str, normal: torch.Tensor, scenes: dict[str, torch.Tensor]) -> np.ndarray:
    """The row's fusion of a trial's terms -> [W]; `normal` tells the held-out normal windows among those of ``val``."""
    terms = {}
    for name in {"val", split}:
        with np.load(folder / f"{name}.npz") as file:
            terms[name] = {term: file[term].astype(np.float64) for term in row.terms}
    held_out = {term: values[normal.numpy()] for term, values in terms["val"].items()}
    if row.fusion != "mixture":
        return fuse(terms[split], normal_statistics(held_out), row.terms, row.weights)
    mean, spread = scenes["val"][normal].mean(0), scenes["val"][normal].std(0).clamp_min(1e-6)
    standardised = {name: ((scene - mean) / spread).double() for name, scene in scenes.items()}
    normal_terms, all_terms = (  # [N, M], [W, M]
        torch.from_numpy(np.stack([*values.values()], 1)) for values in (held_out, terms[split])
    )
    mixture = Mixture(len(mean), len(row.terms)).double().fit(normal_terms, standardised["val"][normal])
    weights = torch.tensor(row.weights or (1.0,) * len(row.terms), dtype=torch.float64)
    with torch.no_grad():
        return mixture(all_terms, standardised[split], weights).numpy()
