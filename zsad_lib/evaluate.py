"""The evaluation protocol: frame scores in, one tidy table with bootstrap intervals out.

`evaluate` is for anybody's scores; `detection` is the pipeline step that applies it to every method of a run, with the
content-free floors beside them; `evaluate_folders` reads one file per video and serves the command line.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from zsad_lib import paths, tables
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.estimates import METRICS, Estimate, estimates, weights_of
from zsad_lib.floors import FLOORS, floor_scores
from zsad_lib.frames import check_series, require
from zsad_lib.manifest import frame_labels, load_manifest
from zsad_lib.metrics import DRAWS, auc, bootstrap_weights, interval, pixel_pairs
from zsad_lib.recognition import METRICS as CLASS_METRICS
from zsad_lib.recognition import confusion, recognition, truth
from zsad_lib.series import read_archive, read_folder, read_seeds, write_scores
from zsad_lib.workers import parallel

__all__ = ["bootstrap_weights", "detection", "evaluate", "evaluate_folders", "paired_difference", "pixel_auc"]

COLUMNS = (
    "method", "variant", "metric", "level", "group", "family", "value", "low", "high", "n_videos", "n_frames",
    "prevalence", "seeds",
)  # fmt: skip
LEVELS = METRICS | CLASS_METRICS
EXTRA = ("objective", "score", "control", "delta", "delta_low", "delta_high", "p")  # further columns of ablations
CLASSES = Path("weak_data")  # folder of a run with the class list and the classes of its videos
PAIRS = (  # whose difference is printed with its interval
    ("full", "paper"), ("full_memory", "knn_predictive"), ("anomaly_clip", "clip_prompts"), ("anomaly_clip", "mil"),
    ("mil", "clip_prompts"), ("anomaly_clip", "full"),
)  # fmt: skip
PAIRED_METRICS = ("clip_auc", "micro_auc", "ap")
SMOOTHING = 3.0  # frames, deviation of the Gaussian of variant "smoothed"


def tidy(found: Sequence[Estimate], method: str, variant: str) -> pd.DataFrame:
    """One row per estimate, in `COLUMNS`; the interval is the 95 % percentile bootstrap."""
    rows = [
        (method, variant, e.metric, LEVELS[e.metric], e.group, e.family, e.draws[0], *interval(e.draws[1:]))
        + (e.n_videos, e.n_frames, e.prevalence, e.seeds)
        for e in found
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluate(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    method: str = "scores",
    variant: str = "raw",
    **options: Any,
) -> pd.DataFrame:
    """Evaluates frame scores of one method.

    Metrics, each with a 95 % interval from a bootstrap over videos (the same draws for every method):
    micro_auc, ap (all frames joined), abnormal_auc (abnormal videos only), macro_auc (mean over videos that hold both
    classes), clip_auc (one score per clip, from ``windows``), far (far_normal: in videos without an event), recall, event_f1
    and event_f1@IoU (at the threshold fixed on held-out normal video), false_alarms_per_hour and delay_s (at an event recall of 0.8, or
    ``_at_threshold``).
    A metric that is undefined (a scene with one class, no threshold, no fps) has NO row.

    Args:
        scores: video -> [n_frames] or [n_seeds, n_frames], higher = more abnormal. The value is the mean over seeds.
        labels: video -> [n_frames] of 0 (normal) and 1 (abnormal).
        method: name of the method in the table.
        variant: "raw", "smoothed", ...; ``normalise="per-video"`` adds " (per-video, transductive)" to it.
        options: fps, scenes, families, windows, normal_scores, threshold, far_target, normalise, metrics, group,
            draws and seed, as in `zsad_lib.estimates.estimates`.

    Returns:
        tidy table, exactly one row per (metric, group, family); AUC, AP, far, recall and F1 in 0..1.

    Raises:
        ZsadError: one class only, scores that are not finite, other lengths, missing videos.

    >>> table = evaluate({"a": [0.1, 0.9], "b": [0.2, 0.3]}, {"a": [0, 1], "b": [0, 0]}, metrics=["micro_auc"])
    >>> table[["metric", "level", "value", "n_videos", "prevalence"]].values.tolist()
    [['micro_auc', 'frame', 1.0, 2, 0.25]]
    """
    found = _of_both_classes(scores, labels, **options)
    if options.get("normalise") == "per-video":
        variant += " (per-video, transductive)"
    return tidy(found, method, variant)


def _of_both_classes(
    scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], **options: Any
) -> list[Estimate]:
    present = {int(value) for array in labels.values() for value in np.unique(np.asarray(array)) if value in (0, 1)}
    found = estimates(scores, labels, **options)
    if len(present) < 2:
        only = "abnormal" if present == {1} else "normal"
        raise ZsadError(f"labels hold only {only} frames: ROC-AUC is undefined; give videos of both classes")
    return found


def paired_difference(first: Sequence[Estimate], second: Sequence[Estimate]) -> pd.DataFrame:
    """First minus second method for every metric, group and family that both have, on the same bootstrap draws.

    Args:
        first, second: from `zsad_lib.estimates.estimates` on the same videos with the same draws and seed.

    Returns:
        columns metric, group, family, difference, low, high (95 %, percentiles), p (two-sided, from the draws' deviation
        under a normal law: a share of R draws could not fall below 1 / R, and Holm's correction would drown it) and p_holm
        (`holm` over all rows).
    """
    others = {(e.metric, e.group, e.family): e for e in second}
    rows = []
    for e in first:
        key = (e.metric, e.group, e.family)
        if key not in others:
            continue
        other = others[key]
        if (e.n_videos, e.n_frames, len(e.draws)) != (other.n_videos, other.n_frames, len(other.draws)):
            raise ZsadError(f"{' '.join(key)}: the two methods were not evaluated on the same videos and draws")
        gap = e.draws - other.draws
        drawn = gap[1:][np.isfinite(gap[1:])]
        deviation = float(drawn.std()) if len(drawn) else 0.0
        p = math.erfc(abs(gap[0]) / deviation / math.sqrt(2)) if deviation > 0 else float(gap[0] == 0)
        rows.append((*key, gap[0], *interval(drawn), p))
    table = pd.DataFrame(rows, columns=["metric", "group", "family", "difference", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"]))


def tabulate(rows: Sequence[Any], found: Mapping[str, Sequence[Estimate]]) -> pd.DataFrame:
    """The tidy table of an ablation grid: every row's estimates, and their differences from its control on the same draws.

    Args:
        rows: with `key`, `name`, `score`, `objective` and `control` (key of another row, or ""), as `zsad_lib.grids.Row`.
        found: key -> estimates.

    Returns:
        `COLUMNS` and `EXTRA`; p is Holm-corrected over the grid, for each metric.
    """
    parts = []
    for row in rows:
        part = tidy(found[row.key], row.score, row.name).assign(objective=row.objective, score=row.score)
        part["control"] = row.control.split("/")[0]
        if row.control:
            gaps = paired_difference(found[row.key], found[row.control])
            gaps = gaps.rename(columns={"difference": "delta", "low": "delta_low", "high": "delta_high"})
            keys = ["metric", "group", "family"]
            part = part.merge(gaps[[*keys, "delta", "delta_low", "delta_high", "p"]], "left", keys)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).reindex(columns=[*COLUMNS, *EXTRA])
    compared = table.p.notna()
    table.loc[compared, "p"] = table[compared].groupby("metric").p.transform(holm)
    return table


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction for several comparisons: the k-th smallest of n times n - k + 1, never falling, at most 1.

    >>> holm(pd.Series([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = p.argsort(kind="stable")
    corrected = (p.iloc[order] * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)
    return corrected.reindex(p.index)


def pixel_auc(
    maps: Mapping[str, np.ndarray] | Sequence[Mapping[str, np.ndarray]],
    masks: Mapping[str, np.ndarray],
    *,
    method: str = "maps",
    variant: str = "raw",
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Pixel-level micro ROC-AUC over all test frames: one row, metric pixel_auc, level pixel.

    Maps are resized bilinearly to the masks; pixels are counted in a fine histogram (`zsad_lib.metrics.pixel_pairs`).

    Args:
        maps: video -> [T, h, w], or one such mapping per seed.
        masks: video -> [T, H, W], nonzero = abnormal.
        method, variant, draws, seed: as in `evaluate`.
    """
    per_seed = [maps] if isinstance(maps, Mapping) else list(maps)
    for one in per_seed:
        require(masks, one, "maps")
        check_series({video: np.reshape(one[video], -1) for video in masks}, "maps")
    counted = [pixel_pairs({video: one[video] for video in masks}, masks) for one in per_seed]
    _, abnormal, normal = counted[0]
    if not (abnormal.sum() and normal.sum()):
        raise ZsadError("masks hold one class only: pixel ROC-AUC is undefined; give normal and abnormal pixels")
    values = auc(
        np.mean([pairs for pairs, *_ in counted], axis=0), abnormal, normal, weights_of(len(masks), draws, seed)
    )
    n_frames = sum(len(per_seed[0][video]) for video in masks)
    share = float(abnormal.sum() / (abnormal.sum() + normal.sum()))
    return tidy(
        [Estimate("pixel_auc", "all", "all", values, len(masks), n_frames, share, len(per_seed))], method, variant
    )


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
    if profile.dataset == "ucsd_ped2":
        done += [_pixel_table(path, test, profile) for path in sorted(run.glob("maps/[!.]*/"))]
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
                rows = _of_both_classes(*series, **options)
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


def _pixel_table(folder: Path, test: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The pixel AUC of one method's maps on Ped2."""
    from data_prep.ucsd_ped2 import read_masks  # the library otherwise knows nothing of any one data set

    method, _, variant = folder.name.partition("@")
    masks = {video: read_masks(path) for video, path in test["path"].items()}
    seeds = [folder / str(seed) for seed in profile.seeds if (folder / str(seed)).is_dir()]
    maps = [{video: read_archive(seed / f"{video}.npz")["maps"] for video in masks} for seed in seeds]
    return pixel_auc(maps, masks, method=method, variant=variant or "raw", draws=profile.bootstrap_draws)


def _smoothed(series: Mapping[str, np.ndarray], sigma: float) -> dict[str, np.ndarray]:
    """Every video's [S, n] under a Gaussian of `sigma` frames along time; 0: as it is."""
    if sigma == 0:
        return dict(series)
    return {video: gaussian_filter1d(array, sigma, axis=-1, mode="nearest") for video, array in series.items()}


def evaluate_folders(
    scores: str | Path,
    labels: str | Path,
    out: str | Path | None = None,
    *,
    normal: str | Path | None = None,
    fps: float | None = None,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Evaluates anybody's frame scores: one CSV or NPY file per video on each side, matched by the file's stem.

    Args:
        scores: folder of files with a column ``score``, or one column only, or an array [n] or [n_seeds, n].
        labels: folder of files with a column ``label``, or one column only, of 0 and 1, one per frame.
        out: folder for detection.csv, .md and .tex; None: beside the scores.
        normal: folder of scores of held-out normal videos: fixes the threshold for far, recall and event F1.
        fps: frames per second, for false alarms per hour and delays.
        draws: bootstrap draws.

    Raises:
        ZsadError: missing folder, empty or unreadable file, and all that `evaluate` raises; nothing is written then.
    """
    scores = Path(scores)
    table = evaluate(
        read_folder(scores, "score"),
        read_folder(Path(labels), "label"),
        method=scores.resolve().name,
        fps=fps,
        normal_scores=None if normal is None else read_folder(Path(normal), "score"),
        draws=draws,
    )
    target = Path(scores if out is None else out)
    with paths.atomic(target / "detection.csv") as handle:
        table.to_csv(handle, index=False, float_format="%.9g")
    text = tables.save(
        table, target / "detection", title=f"{scores.resolve().name} against {Path(labels).resolve().name}"
    )
    print(text)
    return table
