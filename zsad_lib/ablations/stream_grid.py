"""The context-aware method on streams in the ablations: trials of its rows, and frame scores from the terms they leave.

Statistics come from the validation cameras' normal streams, choices are made on their streams with events, and the
table is of the test cameras.

Notebook: 34_ablate_streams
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib.ablations import stream_arrays
from zsad_lib.ablations.context_aware_grid import extract_of, profile_of
from zsad_lib.ablations.engine import run_trials
from zsad_lib.ablations.grids import StreamRow
from zsad_lib.ablations.stream_arrays import LOCAL
from zsad_lib.ablations.stream_trial import run_trial, trial_key
from zsad_lib.ablations.trial import finished, label
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.event_families import event_families
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.features.backbones import stand_ins, weights_folder
from zsad_lib.files import paths
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.methods.context_aware.scorer import Scorer, normal_rows, remembered
from zsad_lib.methods.context_aware.training_windows import training_rows
from zsad_lib.methods.context_aware.variants import build_detector
from zsad_lib.models.detector import Detector
from zsad_lib.pipeline.run_step import run_folder

METRICS = ("micro_auc", "macro_auc")  # of every row
GROUP = "set:stream"


class Streams:
    """Trials and scores of the rows on streams (`zsad_lib.ablations.engine.Method`)."""

    INPUTS = "train"

    def __init__(self, profile: Profile) -> None:
        table = load_manifest(run_folder(profile) / "data")
        self.profile, self.told = profile, training_rows(run_folder(profile), profile.stride)
        scored = table[(table.set == "stream") & table.split.isin(stream_arrays.SPLITS)]
        self.table = pd.concat([scored, remembered(table)])
        self.frozen: dict[bool, Path] = {}  # whether of the former stand-ins -> arrays
        if scored.empty:
            raise ZsadError(f"profile {profile.run_name}: has no streams to ablate; set streams=1")

    def trials(self, row: StreamRow) -> list[Path]:
        """Folders of the row's trials, one per seed of the profile; of a row that trains no gate, none."""
        if "s_sem" not in row.terms or row.variant.gate == "none":
            return []
        name = label(row.variant, self._profile(row), LOCAL) + "-former" * row.former
        folder = run_folder(self.profile) / "ablation" / "streams" / name
        return [folder / str(seed) for seed in self.profile.seeds]

    def train(self, rows: Sequence[StreamRow]) -> None:
        """Trains and scores every variant with every seed that is not finished, after the predictive streams."""
        folders, streams, unfinished = set(), {}, {}
        if any(row.former for row in rows):
            self._extract_former()
        for row in rows:
            profile, arrays = self._profile(row), self._freeze(row)
            for seed, folder in zip(profile.seeds, self.trials(row)):
                folders.add(folder)
                if not finished(folder, trial_key(profile, row.variant, seed, arrays)):
                    unfinished[folder] = run_trial, profile, row.variant, seed, arrays, folder
            for seed in profile.seeds if row.tuned else ():
                if not stream_arrays.tuned(arrays, seed, row.passes):
                    task = stream_arrays.tune, profile, self.told, self.table, arrays, seed, row.passes
                    streams[arrays, seed, row.passes] = task
        if streams:
            print(f"predictive streams: {len(streams)} to tune", flush=True)
        longest_first = sorted(streams, key=lambda stream: -stream[-1])
        run_trials(unfinished, len(folders), [streams[stream] for stream in longest_first])

    def made_from(self, rows: Sequence[StreamRow]) -> list:
        """Keys of the trials, the arrays, and the manifest."""
        folders = sorted({folder for row in rows for folder in self.trials(row)})
        arrays = sorted({self._freeze(row).name for row in rows})
        keys = [paths.read_json(folder / "result.json")["key"] for folder in folders]
        return [keys, arrays, self.table.to_csv(index=False)]

    def frame_scores(self, row: StreamRow, split: str) -> dict[str, np.ndarray]:
        """video -> [S, n_frames] scores of the streams with events of a split (`val` or `test`), one row per seed."""
        rows = self._with_events(split)
        detector = build_detector(row.variant, stand_ins(weights_folder(self._profile(row))))
        of_seeds = [self._scores(row, index, rows, detector) for index in range(len(self.profile.seeds))]
        return {video: np.stack([scores[video] for scores in of_seeds]) for video in rows.video}

    def estimates(self, row: StreamRow, split: str) -> list[Estimate]:
        """`METRICS` of the row on the streams with events of a split, whole and per family of events."""
        scores, rows = self.frame_scores(row, split), self._with_events(split)
        labels, draws = {one.video: frame_labels(one) for one in rows.itertuples()}, self.profile.bootstrap_draws
        found = estimates(scores, labels, group=GROUP, metrics=METRICS, draws=draws)
        found += event_families(scores, rows, GROUP, draws)
        return [estimate for estimate in found if estimate.metric in METRICS]

    def _with_events(self, split: str) -> pd.DataFrame:
        return self.table[(self.table.split == split) & (self.table.family == "mixed")]

    def _profile(self, row: StreamRow) -> Profile:
        return dataclasses.replace(profile_of(row, self.profile), **{"backbones": "former"} if row.former else {})

    def _extract_former(self) -> None:
        """The former stand-ins' features of what this grid reads, where they are missing."""
        home = run_folder(self.profile) / "ablation" / "former"
        table = load_manifest(run_folder(self.profile) / "data")
        table = table[table.video.isin({*self.told.video, *self.table.video})]
        extract_of(table, dataclasses.replace(self.profile, backbones="former"), home)

    def _freeze(self, row: StreamRow) -> Path:
        if row.former not in self.frozen:
            self.frozen[row.former] = stream_arrays.freeze(self._profile(row), self.told, self.table)
        return self.frozen[row.former]

    def _scores(self, row: StreamRow, index: int, rows: pd.DataFrame, detector: Detector) -> dict[str, np.ndarray]:
        """Fused frame scores of one seed, by video; of `detector` it matters how many blocks it predicts."""
        split, held_out = rows.split.iloc[0], normal_rows(self.table, "val")
        terms = {name: self._terms(row, index, name) for name in {"val", split}}
        scorer = Scorer(detector, torch.empty(0), [], torch.empty(0))
        stride = self.profile.stride
        scorer.calibrate([(terms["val"][one.video], one.n_frames) for one in held_out.itertuples()], stride)
        score = lambda one: scorer.score(terms[split][one.video], row.terms, one.n_frames, stride)
        return {one.video: score(one) for one in rows.itertuples()}

    def _terms(self, row: StreamRow, index: int, split: str) -> dict[str, dict[str, np.ndarray]]:
        """The row's terms of all streams of a split, by video."""
        arrays, seed = self._freeze(row), self.profile.seeds[index]
        streams, trials = stream_arrays.load(arrays, split), self.trials(row)
        joined = {name: streams.terms[name] for name in row.terms}
        if row.tuned:
            joined["s_pred"] = stream_arrays.predicted(arrays, split, seed, row.passes)
        if trials:
            with np.load(trials[index] / f"{split}.npz") as file:
                joined["s_sem"] = file["s_sem"]
        parts = {name: streams.split(values) for name, values in joined.items()}
        return {video: {name: of[video] for name, of in parts.items()} for video in streams.videos}
