"""The step that evaluates a run: every scored method and every floor, into ``detection.csv``, ``differences.csv`` and,
of cameras that were calibrated, ``calibrated_cameras.csv``."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.class_metrics import confusion, recognition, truth
from zsad_lib.evaluate.comparison import holm, paired_difference
from zsad_lib.evaluate.evaluation import pixel_auc, tidy
from zsad_lib.evaluate.event_families import event_families, event_kinds
from zsad_lib.evaluate.floors import FLOORS, floor_scores
from zsad_lib.evaluate.operating_points import camera_rates, held_out_for, localisation, operating_points
from zsad_lib.evaluate.protocol import Estimate, estimates, of_both_classes
from zsad_lib.files import paths
from zsad_lib.files.manifest import ACTOR_COUNT, frame_labels, load_manifest
from zsad_lib.files.pixel_masks import FOLDER, read_masks
from zsad_lib.files.score_files import INSIDE, SeedScores, read_archive, read_seeds, write_scores
from zsad_lib.processes import parallel

CLASSES = Path("weak_data")  # folder of a run with the class list and the classes of its videos
COMPARED = ("full_memory", "full", "anomaly_clip")  # the proposed methods: every other one is compared with each
ELSE = ("predictive", "mil")  # of a run without those: the first of these that it has scored
PAIRED_METRICS = {"all": ("clip_auc", "micro_auc", "ap"), "set:stream": ("micro_auc",)}  # group -> metrics
CALIBRATED = "calibrated"  # folders <method>@calibrated[_causal]: each camera by its own normal video
KINDS_OF = ("full_memory", "semantic", "predictive", "knn")  # the method and its terms, of which each kind has a row
MINUTES = "calibration_minutes.csv"  # beside those scores, of the first seed
RANKED = ("micro_auc", "macro_auc", "ap")  # of families within streams, and of calibrated cameras
SMOOTHING = 3.0  # frames, standard deviation of the Gaussian of variant "smoothed"


def detection(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: evaluates every method under ``scores/`` and the floors, writes ``detection.csv`` into `folder`.

    Reads per method and seed ``scores/<method>/<seed>/<video>.csv`` and, where they exist, ``windows.npz`` (window
    scores, for clip_auc) and ``normal.npz`` (frame scores of held-out normal videos, for the threshold). A folder
    ``<method>@causal`` is the causal variant, ``<method>@calibrated`` and ``@calibrated_causal`` the test streams with
    memory, statistics and threshold from their own camera's normal video; the others give ``raw`` and ``smoothed``
    (Gaussian of standard deviation `SMOOTHING` frames, within the video).
    Methods with ``classes.npz`` (class probabilities per frame) also get rows per class, mauc and map, and
    ``confusion_<method>.csv``.
    ``differences.csv`` holds the paired differences of `pairs`, Holm's p over all of one metric.
    Test videos of the manifest's set "main" are group "all", other sets are groups "set:NAME". Their thresholds come
    from held-out normal clips, those of sets of streams from held-out normal streams, where there are any. Where one
    video holds events of several families, a family's row leaves out the frames of the others.
    ``event_kinds.csv`` holds the micro AUC of every kind of event in streams, for `KINDS_OF`.
    ``calibrated_cameras.csv`` holds the false alarm rate that each camera was asked for and got.
    The floors' frame scores are written beside the methods', and as `actor_count` the true number of actors, where a
    renderer knows it. Ped2's maps (``maps/<method>/<seed>/<video>.npz``) are
    compared with its pixel masks.
    """
    run = folder.parent
    manifest = load_manifest(run / "data").set_index("video", drop=False)
    test = manifest[manifest["split"] == "test"]
    labels = {row.video: frame_labels(row) for row in test.itertuples()}
    fps = test["fps"].to_dict()
    if (counts := run / "data" / ACTOR_COUNT).is_file():
        write_scores(run / "scores" / counts.stem / str(profile.seeds[0]), read_archive(counts), fps)
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
    tasks = [(run / "scores" / name, manifest, labels, profile, has_windows) for name in names]
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
        for a, b in pairs(methods)
    ]
    if gaps:
        apart = pd.concat(gaps, ignore_index=True)
        apart["p_holm"] = apart.groupby("metric")["p"].transform(holm)
        artefacts["differences"] = paths.write_table(folder / "differences.csv", apart)
    if cameras := [method.cameras for method in evaluated.values() if method.cameras is not None]:
        file = folder / "calibrated_cameras.csv"
        artefacts["calibrated_cameras"] = paths.write_table(file, pd.concat(cameras, ignore_index=True))
    if kinds := [method.kinds for method in evaluated.values() if method.kinds is not None]:
        file = folder / "event_kinds.csv"
        artefacts["event_kinds"] = paths.write_table(file, pd.concat(kinds, ignore_index=True))
    for minutes in sorted(run.glob(f"scores/*@{CALIBRATED}/{profile.seeds[0]}/{MINUTES}")):
        paths.copy(minutes, folder / MINUTES)
        artefacts["calibration_minutes"] = folder / MINUTES
    headline = table[table["group"].isin(PAIRED_METRICS) & (table["family"] == "all")]
    headline = headline[headline["metric"].isin(["clip_auc", "micro_auc"])]
    metrics = {
        f"{r.method} {r.variant} {'' if r.group == 'all' else f'{r.group} '}{r.metric}": r.value
        for r in headline.itertuples()
    }
    return {"metrics": metrics, "artefacts": artefacts, "files": [run / "scores" / name for name in FLOORS]}


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Which methods' difference is tested: each of `COMPARED` minus every other method, each pair once.

    A run that has scored none of them compares the first of `ELSE` that it has with all others.

    >>> pairs(["full", "full_memory", "knn", "knn@causal"])
    [('full_memory', 'full'), ('full_memory', 'knn'), ('full', 'knn')]
    """
    plain = [name for name in methods if "@" not in name]
    firsts = [name for name in COMPARED if name in plain] or [name for name in ELSE if name in plain][:1]
    return [(a, b) for n, a in enumerate(firsts) for b in plain if b not in firsts[: n + 1]]


class Evaluated(NamedTuple):
    """What one method's scores give."""

    table: pd.DataFrame  # tidy rows of every variant and every set of test videos
    compared: list[Estimate]  # what `pairs` are compared in
    confusion: pd.DataFrame | None = None  # of a method with class probabilities
    cameras: pd.DataFrame | None = None  # of calibrated cameras: rates asked for and got
    kinds: pd.DataFrame | None = None  # tidy rows of every kind of event in the test streams


def _evaluate_method(
    folder: Path, manifest: pd.DataFrame, labels: Mapping[str, np.ndarray], profile: Profile, has_windows: bool
) -> Evaluated:
    """Evaluates the scores in one method's folder; writes nothing, since it runs in a worker."""
    method, _, causal = folder.name.partition("@")
    if causal.startswith(CALIBRATED):
        return _evaluate_calibrated(folder, manifest, labels, profile)
    series = read_seeds(folder, {video: len(label) for video, label in labels.items()}, profile.seeds)
    if method in FLOORS and has_windows:
        series = series._replace(windows=series.scores)  # a floor's score has no windows: each frame is one
    variants = {causal: 0.0} if causal else {"raw": 0.0} if method in FLOORS else {"raw": 0.0, "smoothed": SMOOTHING}
    tables, compared, shares, kinds = [], [], None, None
    for variant, sigma in variants.items():
        smooth = series._replace(scores=_smoothed(series.scores, sigma), normal=_smoothed(series.normal, sigma))
        smooth = smooth if sigma == 0 else smooth._replace(windows={})
        for _, videos in manifest[manifest["split"] == "test"].groupby("set", sort=True):
            rows = _evaluate_set(smooth, videos, labels, manifest["set"].to_dict(), profile)
            if variant == "raw" and videos["set"].iloc[0] == "stream" and series.normal:
                rows += _localised(folder, series, rows[0], labels, manifest["set"].to_dict(), profile)
            tables.append(tidy(rows, method, variant))
            compared += [e for e in rows if variant == "raw" and e.metric in PAIRED_METRICS.get(e.group, ())]
    streams = manifest[(manifest["split"] == "test") & (manifest["set"] == "stream")]
    if method in KINDS_OF and not causal and len(streams):
        kinds = tidy(event_kinds(series.scores, streams, "set:stream", profile.bootstrap_draws), method, "raw")
        number = streams["kinds"].str.split(";").explode().value_counts()
        kinds["events"] = kinds["family"].map(number)
    if series.classes and not causal:
        classes = truth(folder.parents[1] / CLASSES)
        rows = recognition(series.classes, classes, profile.bootstrap_draws)
        tables.append(tidy(rows, method, "raw"))
        compared += rows
        shares = confusion(series.classes, classes)
    return Evaluated(pd.concat(tables, ignore_index=True), compared, shares, kinds=kinds)


def _evaluate_set(
    series: SeedScores,
    videos: pd.DataFrame,
    labels: Mapping[str, np.ndarray],
    sets: Mapping[str, str],
    profile: Profile,
) -> list[Estimate]:
    """All metrics of the test videos of one set."""
    name = videos["set"].iloc[0]
    main, stream = name == "main", name.startswith("stream")
    families = videos.loc[videos["family"] != "normal", "family"]
    normal = held_out_for(series.normal, sets, stream)
    scores, truth_of = ({v: of[v] for v in videos.index} for of in (series.scores, labels))
    options = dict(fps=videos["fps"].to_dict(), draws=profile.bootstrap_draws, group="all" if main else f"set:{name}")
    # a look-alike set may hold one class: its false alarms still count
    rows = (of_both_classes if main else estimates)(
        scores,
        truth_of,
        scenes=videos["scene"].to_dict() if main and videos["scene"].nunique() > 1 else None,
        families=families.to_dict() if main and families.nunique() > 1 else None,
        windows={v: series.windows[v] for v in videos.index if v in series.windows} or None,
        normal_scores=normal or None,
        far_target=profile.far_target,
        **options,
    )
    rows += [] if main else event_families(scores, videos, options["group"], profile.bootstrap_draws)
    if stream and normal:
        rows += operating_points(scores, truth_of, {"": normal}, dict.fromkeys(scores, ""), **options)
    return rows


def _localised(
    folder: Path,
    series: SeedScores,
    of: Estimate,
    labels: Mapping[str, np.ndarray],
    sets: Mapping[str, str],
    profile: Profile,
) -> list[Estimate]:
    """Of a method that says which region it points at, how often that is the abnormal actor's; else nothing."""
    files = [folder / str(seed) / INSIDE for seed in sorted(profile.seeds)]
    per_seed = [read_archive(file) for file in files if file.is_file()]
    if not per_seed or of.seeds != len(per_seed):
        return []
    inside = {video: np.stack([one[video] for one in per_seed]) for video in per_seed[0]}
    scores = {video: series.scores[video] for video in inside}
    normal = held_out_for(series.normal, sets, streams=True)
    return localisation(scores, labels, normal, inside, of, profile.far_target)


def _evaluate_calibrated(
    folder: Path, manifest: pd.DataFrame, labels: Mapping[str, np.ndarray], profile: Profile
) -> Evaluated:
    """The test streams of calibrated cameras: scores in each camera's own units, alarms at its own threshold."""
    method, _, variant = folder.name.partition("@")
    before = manifest[manifest["split"] == "before"]
    videos = manifest[(manifest["split"] == "test") & (manifest["set"] == "stream")]
    videos = videos[videos["site"].isin(before["site"])]
    series = read_seeds(folder, videos["n_frames"].to_dict(), profile.seeds)
    normal: dict[str, dict[str, np.ndarray]] = {}
    for video, scores in series.normal.items():
        normal.setdefault(before["site"][video], {})[video] = scores
    truth_of, group, camera = {v: labels[v] for v in videos.index}, "set:stream", videos["site"].to_dict()
    options = dict(draws=profile.bootstrap_draws, group=group)
    rows = estimates(series.scores, truth_of, metrics=RANKED, **options)
    rows += event_families(series.scores, videos, group, profile.bootstrap_draws)
    rows += operating_points(series.scores, truth_of, normal, camera, fps=videos["fps"].to_dict(), **options)
    rates = camera_rates(series.scores, truth_of, normal, camera, videos["fps"].to_dict())
    rates.insert(0, "method", method)
    rates.insert(1, "variant", variant)
    return Evaluated(tidy(rows, method, variant), [], cameras=rates)


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
