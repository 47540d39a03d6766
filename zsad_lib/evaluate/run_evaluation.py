"""The step that evaluates a run: every scored method and every floor, into ``detection.csv`` and ``differences.csv``."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.class_metrics import confusion, recognition, truth
from zsad_lib.evaluate.comparison import paired_difference
from zsad_lib.evaluate.evaluation import pixel_auc, tidy
from zsad_lib.evaluate.floors import FLOORS, floor_scores
from zsad_lib.evaluate.protocol import Estimate, estimates, of_both_classes
from zsad_lib.files import paths
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.files.pixel_masks import FOLDER, read_masks
from zsad_lib.files.score_files import read_archive, read_seeds, write_scores
from zsad_lib.pipeline.processes import parallel

CLASSES = Path("weak_data")  # folder of a run with the class list and the classes of its videos
PAIRS = (  # whose difference is printed with its interval
    ("full", "paper"), ("full_memory", "knn_predictive"), ("anomaly_clip", "clip_prompts"), ("anomaly_clip", "mil"),
    ("mil", "clip_prompts"), ("anomaly_clip", "full"),
)  # fmt: skip
PAIRED_METRICS = ("clip_auc", "micro_auc", "ap")
SMOOTHING = 3.0  # frames, deviation of the Gaussian of variant "smoothed"


def detection(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: evaluates every method under ``scores/`` and the floors, writes ``detection.csv`` into `folder`.

    Reads per method and seed ``scores/<method>/<seed>/<video>.csv`` and, where they exist, ``windows.npz`` (window
    scores, for clip_auc) and ``normal.npz`` (frame scores of held-out normal videos, for the threshold). A folder
    ``<method>@causal`` is the causal variant; the others give ``raw`` and ``smoothed`` (Gaussian, deviation `SMOOTHING`
    frames, within the video).
    Methods with ``classes.npz`` (class probabilities per frame) also get rows per class, mauc and map, and ``confusion_<method>.csv``.
    ``differences.csv`` holds the paired differences of `PAIRS`.
    Test videos of the manifest's set "main" are group "all", other sets are groups "set:NAME".
    The floors' frame scores are written beside the methods'. Ped2's maps (``maps/<method>/<seed>/<video>.npz``) are
    compared with its pixel masks.
    """
    run = folder.parent
    manifest = load_manifest(run / "data")
    test = manifest[manifest["split"] == "test"].set_index("video", drop=False)
    labels = {row.video: frame_labels(row) for row in test.itertuples()}
    fps = test["fps"].to_dict()
    methods = sorted(path.name for path in run.glob("scores/[!.]*/") if path.name not in FLOORS)
    if not methods:
        raise ZsadError(f"{run / 'scores'}: no scored method; run the step that scores the test videos first")
    lengths = {video: len(label) for video, label in labels.items()}
    has_windows = any(run.glob("scores/*/*/windows.npz"))
    floors = {seed: floor_scores(lengths, labels, seed) for seed in profile.seeds}
    for name in FLOORS:
        shutil.rmtree(run / "scores" / name, ignore_errors=True)  # of other seeds, or half-written
        for seed in profile.seeds if name == "random" else profile.seeds[:1]:
            write_scores(run / "scores" / name / str(seed), floors[seed][name], fps)
    tasks = [(run / "scores" / name, test, labels, profile, has_windows) for name in (*methods, *FLOORS)]
    done, compared = (list(part) for part in zip(*parallel(_method_table, tasks, profile.jobs)))
    if (masks := run / "data" / FOLDER).is_dir():
        done += [_pixel_table(path, masks, profile) for path in sorted(run.glob("maps/[!.]*/"))]
    table = pd.concat(done, ignore_index=True)
    target = folder / "detection.csv"
    with paths.atomic(target) as handle:
        table.to_csv(handle, index=False, float_format="%.9g")
    artefacts, found = {"detection": target}, dict(zip((*methods, *FLOORS), compared))
    gaps = [paired_difference(found[a], found[b]).assign(first=a, second=b) for a, b in PAIRS if {a, b} <= set(methods)]
    if gaps:
        artefacts["differences"] = folder / "differences.csv"
        with paths.atomic(artefacts["differences"]) as handle:
            pd.concat(gaps, ignore_index=True).to_csv(handle, index=False, float_format="%.9g")
    headline = table[(table["group"] == "all") & (table["family"] == "all")]
    headline = headline[headline["metric"].isin(["clip_auc", "micro_auc"])]
    metrics = {f"{r.method} {r.variant} {r.metric}": r.value for r in headline.itertuples()}
    return {"metrics": metrics, "artefacts": artefacts}


def _method_table(
    folder: Path, test: pd.DataFrame, labels: Mapping[str, np.ndarray], profile: Profile, has_windows: bool
) -> tuple[pd.DataFrame, list[Estimate]]:
    """All rows of one method folder: every variant and every set of test videos; and what `PAIRS` are compared in."""
    method, _, causal = folder.name.partition("@")
    found = read_seeds(folder, {video: len(label) for video, label in labels.items()}, profile.seeds)
    if method in FLOORS and has_windows:
        found = found._replace(windows=found.scores)  # a floor's score has no windows: each frame is one
    variants = {causal: 0.0} if causal else {"raw": 0.0} if method in FLOORS else {"raw": 0.0, "smoothed": SMOOTHING}
    done, compared = [], []
    for variant, sigma in variants.items():
        scores, normal = _smoothed(found.scores, sigma), _smoothed(found.normal, sigma)
        for name, part in test.groupby("set", sort=True):
            main = name == "main"
            videos = list(part["video"])
            families = part.loc[part["family"] != "normal", "family"]
            windows = {v: found.windows[v] for v in videos if v in found.windows} if sigma == 0 else {}
            options = dict(
                fps=part["fps"].to_dict(),
                scenes=part["scene"].to_dict() if main and part["scene"].nunique() > 1 else None,
                families=families.to_dict() if main and families.nunique() > 1 else None,
                windows=windows or None,
                normal_scores=normal or None,
                far_target=profile.far_target,
                draws=profile.bootstrap_draws,
            )
            series = {v: scores[v] for v in videos}, {v: labels[v] for v in videos}
            if main:
                rows = of_both_classes(*series, **options)
                done.append(tidy(rows, method, variant))
                if variant == "raw":
                    compared += [e for e in rows if e.metric in PAIRED_METRICS and e.group == "all"]
            else:  # a look-alike set may hold one class: its false alarms still count
                done.append(tidy(estimates(*series, group=f"set:{name}", **options), method, variant))
    if found.classes and not causal:
        known = truth(folder.parents[1] / CLASSES)
        rows = recognition(found.classes, known, profile.bootstrap_draws)
        done.append(tidy(rows, method, "raw"))
        compared += rows
        with paths.atomic(folder.parents[1] / "evaluate" / f"confusion_{method}.csv") as handle:
            confusion(found.classes, known).to_csv(handle, float_format="%.6g")
    return pd.concat(done, ignore_index=True), compared


def _pixel_table(folder: Path, truth: Path, profile: Profile) -> pd.DataFrame:
    """The pixel AUC of one method's maps against the masks in the folder `truth`."""
    method, _, variant = folder.name.partition("@")
    masks = {path.stem: read_masks(path) for path in sorted(truth.glob("*.npz"))}
    seeds = [folder / str(seed) for seed in profile.seeds if (folder / str(seed)).is_dir()]
    maps = [{video: read_archive(seed / f"{video}.npz")["maps"] for video in masks} for seed in seeds]
    return pixel_auc(maps, masks, method=method, variant=variant or "raw", draws=profile.bootstrap_draws)


def _smoothed(series: Mapping[str, np.ndarray], sigma: float) -> dict[str, np.ndarray]:
    """Every video's [S, n] under a Gaussian of `sigma` frames along time; 0: as it is."""
    if sigma == 0:
        return dict(series)
    return {video: gaussian_filter1d(array, sigma, axis=-1, mode="nearest") for video, array in series.items()}
