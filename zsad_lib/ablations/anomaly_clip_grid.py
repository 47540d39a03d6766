"""The ablation grid of AnomalyCLIP: directions, losses, temporal model, prototype, and what the published code does otherwise."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from zsad_lib.ablations.grids import WEAKLY
from zsad_lib.config import Profile
from zsad_lib.evaluate.class_metrics import recognition, truth
from zsad_lib.evaluate.comparison import tabulate
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.features.backbones import device
from zsad_lib.features.clip_frames import listed_features
from zsad_lib.files import paths
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import train
from zsad_lib.methods.anomaly_clip.score import load_model, window_means
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.processes import parallel
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import run_tables, tables

SEEDS = 3
METRICS = ("clip_auc", "micro_auc")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a change of the profile's recipe."""

    name: str
    says: str
    change: dict = dataclasses.field(default_factory=dict)
    score: str = "weak"
    objective: str = "plain"

    @property
    def key(self) -> str:
        """Unique within the grid."""
        return self.name

    @property
    def control(self) -> str:
        """All rows are compared with the whole method."""
        return "" if self.name == ROWS[0].name else ROWS[0].name


def _without(*terms: str) -> dict:
    return {"without": terms}


ROWS = (
    Row("anomaly_clip", "directions from m, temporal model, all losses"),
    Row("no_temporal", "p_A of a frame from that frame alone", {"temporal": False}),
    Row("no_centring", "m = 0: features and directions as they are", {"centred": False}),
    Row("origin_directions", "frames from m, but classes from the origin", {"directions_from_normal": False}),
    Row("fixed_text", "no learned context, text projection as pretrained", {"learned": False}),
    Row("concat", "the temporal model also reads the similarities S", {"concat_similarity": True}),
    Row("no_directions", "without both direction losses", _without("dir_abn", "dir_nor")),
    Row("no_topk_abnormal", "top segments of abnormal videos unused", _without("topk_abn")),
    Row("no_bottomk_abnormal", "bottom segments of abnormal videos unused", _without("bottomk_abn")),
    Row("no_topk_normal", "top segments of normal videos unused", _without("topk_nor")),
    Row("no_smooth_sparse", "without both regularisers", _without("smooth", "sparse")),
    Row("published_smoothness", "as published: smoothness also across the borders of videos", {"across_videos": True}),
    Row("published_logarithm", "as published: logarithms of probabilities unclamped", {"unclamped": True}),
    Row("published_order", "as published: class names sorted by the alphabet under unsorted ids", {"resorted": True}),
)


def ablate(profile: Profile) -> Path:
    """Trains and evaluates every row with `SEEDS` seeds, in the processes that joblib is told to use; what is finished is kept.

    Returns:
        ``runs/<run>/tables/ablation_anomaly_clip.csv``; ``.md`` and ``.tex`` lie beside it.
    """
    home = run_folder(profile) / "ablation"
    trials = [(profile, row, seed, home / WEAKLY) for seed in profile.seeds[:SEEDS] for row in ROWS]
    start = time.monotonic()
    for number, (name, seed) in enumerate(parallel(_trial, trials), 1):
        spent = time.monotonic() - start
        left = spent / number * (len(trials) - number)
        print(
            f"trial {number} of {len(trials)}: {name}, seed {seed}; {spent:.0f} s gone, about {left:.0f} s left",
            flush=True,
        )
    made = [load_weights(home / WEAKLY / row.name / str(seed) / train.FILE)[1]["key"] for _, row, seed, _ in trials]
    target, stamp = run_folder(profile) / "tables" / f"ablation_{WEAKLY}.csv", home / f"made_{WEAKLY}.json"
    labels = (run_folder(profile) / "weak_data" / "manifest.csv").read_text(encoding="utf-8")
    key = digest([made, labels, profile.bootstrap_draws, closure([__name__])])
    if target.exists() and stamp.exists() and paths.read_json(stamp)["key"] == key:
        return target
    rows = [(profile, row, home / WEAKLY) for row in ROWS]
    table = tabulate(ROWS, dict(zip([row.key for row in ROWS], parallel(_estimates, rows))))
    with paths.atomic(home / target.name) as handle:
        table.to_csv(handle, index=False, float_format="%.9g")
    warning = "" if profile.is_result else "NOT RESULTS (a quick look). "
    tables.save_ablation(table, home / target.stem, f"{warning}Ablation grid {WEAKLY}, profile {profile.run_name}")
    run_tables.publish_ablations(run_folder(profile))
    paths.write_json(stamp, {"key": key})
    return target


def _trial(profile: Profile, row: Row, seed: int, home: Path) -> tuple[str, int]:
    torch.set_num_threads(1)
    train.train_seed(profile, row.change, seed, home / row.name / str(seed))
    return row.name, seed


def _estimates(profile: Profile, row: Row, home: Path) -> list[Estimate]:
    """The row's metrics on the test cameras' main set."""
    torch.set_num_threads(1)
    run = run_folder(profile)
    known = truth(run / "weak_data")
    rows = load_manifest(run / "weak_data").set_index("video", drop=False).loc[list(known.frames)]
    families = rows.family
    models = [load_model(home / row.name / str(seed) / train.FILE, profile, run) for seed in profile.seeds[:SEEDS]]
    probabilities = {}
    for row in rows.itertuples():
        x = listed_features(run, row).to(device())
        probabilities[row.video] = np.stack([model.score(x).class_probs.double().cpu().numpy() for model in models])
    scores = {video: 1 - found[..., known.normal_id] for video, found in probabilities.items()}
    labels = {video: (ids != known.normal_id).astype(int) for video, ids in known.frames.items()}
    found = estimates(
        scores,
        labels,
        families=families[families != "normal"].to_dict(),
        windows={video: np.stack([window_means(one) for one in series]) for video, series in scores.items()},
        metrics=METRICS,
        draws=profile.bootstrap_draws,
    )
    return found + recognition(probabilities, known, profile.bootstrap_draws)
