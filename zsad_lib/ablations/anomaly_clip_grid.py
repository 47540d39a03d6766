"""AnomalyCLIP in the ablations: the trials of its rows, and their metrics, with those that know classes.

Notebook: 44_ablate_anomaly_clip
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zsad_lib.ablations.engine import METRICS, run_trials
from zsad_lib.ablations.grids import WEAKLY, RecipeRow
from zsad_lib.config import Profile
from zsad_lib.evaluate.class_metrics import recognition, truth
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.features.backbones import device
from zsad_lib.features.clip_frames import listed_features
from zsad_lib.features.window_plan import window_means
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import train
from zsad_lib.methods.anomaly_clip.score import load_model
from zsad_lib.pipeline.run_step import run_folder

SEEDS = 3


class AnomalyClip:
    """Trials and scores of AnomalyCLIP's rows (`zsad_lib.ablations.engine.Method`), with the first `SEEDS` seeds."""

    INPUTS = "frame_features"

    def __init__(self, profile: Profile) -> None:
        self.profile, self.run = profile, run_folder(profile)

    def trials(self, row: RecipeRow) -> dict[int, Path]:
        """Seed -> folder of its trial."""
        return {seed: self.run / "ablation" / WEAKLY / row.name / str(seed) for seed in self.profile.seeds[:SEEDS]}

    def train(self, rows: Sequence[RecipeRow]) -> None:
        """Trains every row with every seed. Only a trial knows whether it is finished: its key holds the features."""
        trials = {
            folder: (train.train_seed, self.profile, row.change, seed, folder)
            for row in rows
            for seed, folder in self.trials(row).items()
        }
        run_trials(trials, len(trials))

    def made_from(self, rows: Sequence[RecipeRow]) -> list:
        """Keys of the trials, and the weakly labelled manifest."""
        files = [folder / train.FILE for row in rows for folder in self.trials(row).values()]
        labels = (self.run / "weak_data" / "manifest.csv").read_text(encoding="utf-8")
        return [[load_weights(file)[1]["key"] for file in files], labels]

    def estimates(self, row: RecipeRow, split: str) -> list[Estimate]:
        """`METRICS` of the row on a split's main set, whole and per family, and the metrics over classes."""
        classes = truth(self.run / "weak_data", split)
        clips = load_manifest(self.run / "weak_data").set_index("video", drop=False).loc[list(classes.frames)]
        models = [load_model(folder / train.FILE, self.profile, self.run) for folder in self.trials(row).values()]
        probabilities = {}
        for clip in clips.itertuples():
            features = listed_features(self.run, clip).to(device())
            of_seeds = [model.score(features).class_probs.double().cpu().numpy() for model in models]
            probabilities[clip.video] = np.stack(of_seeds)
        scores = {video: 1 - of_classes[..., classes.normal_id] for video, of_classes in probabilities.items()}
        anomaly = estimates(
            scores,
            {video: (ids != classes.normal_id).astype(int) for video, ids in classes.frames.items()},
            families=clips.family[clips.family != "normal"].to_dict(),
            windows={video: np.stack([window_means(one) for one in series]) for video, series in scores.items()},
            metrics=METRICS,
            draws=self.profile.bootstrap_draws,
        )
        return anomaly + recognition(probabilities, classes, self.profile.bootstrap_draws)
