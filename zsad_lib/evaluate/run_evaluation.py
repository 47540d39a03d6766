"""The step that evaluates a run: every scored method and every floor, into ``detection.csv`` and
``differences.csv``."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
from zsad_lib.processes import parallel

CLASSES = Path("weak_data")  # folder of a run with the class list and the classes of its videos
PAIRS = (  # whose difference is printed with its interval
    ("full", "paper"), ("full_memory", "knn_predictive"), ("anomaly_clip", "clip_prompts"), ("anomaly_clip", "mil"),
    ("mil", "clip_prompts"), ("anomaly_clip", "full"),
)  # fmt: skip
PAIRED_METRICS = ("clip_auc", "micro_auc", "ap")
SMOOTHING = 3.0  # frames, standard deviation of the Gaussian of variant "smoothed"


def detection(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: evaluates every method under ``scores/`` and the floors, writes ``detection.csv`` into `folder`.

    Reads per method and seed ``scores/<method>/<seed>/<video>.csv`` and, where they exist, ``windows.npz`` (window
    scores, for clip_auc) and ``normal.npz`` (frame scores of held-out normal videos, for the threshold). A folder
    ``<method>@causal`` is the causal variant; the others give ``raw`` and ``smoothed`` (Gaussian of standard deviation
    `SMOOTHING` frames, within the video).
    Methods with ``classes.npz`` (class probabilities per frame) also get rows per class, mauc and map, and
    ``confusion_<method>.csv``.
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
    names = (*methods, *FLOORS)
    tasks = [(run / "scores" / name, test, labels, profile, has_windows) for name in names]
    evaluated = dict(zip(names, parallel(_evaluate_method, tasks, profile.jobs)))
    rows = [method.table for method in evaluated.values()]
    if (masks := run / "data" / FOLDER).is_dir():
        rows += [_pixel_table(path, masks, profile) for path in sorted(run.glob("maps/[!.]*/"))]
    table = pd.concat(rows, ignore_index=True)
    artefacts = {"detection": paths.write_table(folder / "detection.csv", table)}
    for name, method in evaluated.items():
        if method.confusion is not None:
            paths.write_table(folder / f"confusion_{name}.csv", method.confusion, "%.6g", index=True)
    gaps = [
        paired_difference(evaluated[a].compared, evaluated[b].compared).assign(first=a, second=b)
        for a, b in PAIRS
        if {a, b} <= set(methods)
    ]
    if gaps:
        artefacts["differences"] = paths.write_table(folder / "differences.csv", pd.concat(gaps, ignore_index=True))
    headline = table[(table["group"] == "all") & (table["family"] == "all")]
    headline = headline[headline["metric"].isin(["clip_auc", "micro_auc"])]
    metrics = {f"{r.method} {r.variant} {r.metric}": r.value for r in headline.itertuples()}
    return {"metrics": metrics, "artefacts": artefacts, "files": [run / "scores" / name for name in FLOORS]}


class Evaluated(NamedTuple):
    """What one method's scores give."""

    table: pd.DataFrame  # tidy rows of every variant and every set of test videos
    compared: list[Estimate]  # what `PAIRS` are compared in
    confusion: pd.DataFrame | None  # of a method with class probabilities


def _evaluate_method(
    folder: Path, test: pd.DataFrame, labels: Mapping[str, np.ndarray], profile: Profile, has_windows: bool
) -> Evaluated:
    """Evaluates the scores in one method's folder; writes nothing, since it runs in a worker."""
    method, _, causal = folder.name.partition("@")
    series = read_seeds(folder, {video: len(label) for video, label in labels.items()}, profile.seeds)
    if method in FLOORS and has_windows:
        series = series._replace(windows=series.scores)  # a floor's score has no windows: each frame is one
    variants = {causal: 0.0} if causal else {"raw": 0.0} if method in FLOORS else {"raw": 0.0, "smoothed": SMOOTHING}
    tables, compared, shares = [], [], None
    for variant, sigma in variants.items():
        scores, normal = _smoothed(series.scores, sigma), _smoothed(series.normal, sigma)
        for name, videos in test.groupby("set", sort=True):
            main = name == "main"
            families = videos.loc[videos["family"] != "normal", "family"]
            windows = {v: series.windows[v] for v in videos.index if v in series.windows} if sigma == 0 else {}
            # a look-alike set may hold one class: its false alarms still count
            rows = (of_both_classes if main else estimates)(
                {v: scores[v] for v in videos.index},
                {v: labels[v] for v in videos.index},
                group="all" if main else f"set:{name}",
                fps=videos["fps"].to_dict(),
                scenes=videos["scene"].to_dict() if main and videos["scene"].nunique() > 1 else None,
                families=families.to_dict() if main and families.nunique() > 1 else None,
                windows=windows or None,
                normal_scores=normal or None,
                far_target=profile.far_target,
                draws=profile.bootstrap_draws,
            )
            tables.append(tidy(rows, method, variant))
            if main and variant == "raw":
                compared += [e for e in rows if e.metric in PAIRED_METRICS and e.group == "all"]
    if series.classes and not causal:
        classes = truth(folder.parents[1] / CLASSES)
        rows = recognition(series.classes, classes, profile.bootstrap_draws)
        tables.append(tidy(rows, method, "raw"))
        compared += rows
        shares = confusion(series.classes, classes)
    return Evaluated(pd.concat(tables, ignore_index=True), compared, shares)


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
