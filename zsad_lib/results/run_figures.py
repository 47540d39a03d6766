"""The figures of a run: reads its tables and scores, draws, and computes no score."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zsad_lib.config import Profile
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.evaluate.operating_points import held_out_for
from zsad_lib.files.manifest import family_frames, frame_labels, load_manifest
from zsad_lib.files.pixel_masks import FOLDER, read_masks
from zsad_lib.files.score_files import SeedScores, read_archive, read_seeds
from zsad_lib.files.spans import parse_spans
from zsad_lib.files.video import read_video
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import plots
from zsad_lib.results.style import FAMILY_COLOURS, save, style, words
from zsad_lib.results.tables import ORDER

VARIANTS = ("raw", "causal", "calibrated")  # of the headline
CURVES = ("full_memory", "full", "paper", "knn", "predictive", "motion_floor")  # methods with ROC and PR curves


def draw(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: all figures of a run into `folder`, from ``evaluate/detection.csv``, ``scores`` and ``maps``.

    Examples are chosen by rule: the video at the median of the AUC within videos, the n-th clip by name of each family
    in the n-th scene, the middle frame of an event, the frame at which a map is highest.
    """
    style()
    run = folder.parent
    table = pd.read_csv(run / "evaluate" / "detection.csv")
    test = load_manifest(run / "data").query("split == 'test'").set_index("video", drop=False).rename_axis(None)
    labels = {row.video: frame_labels(row) for row in test.itertuples()}
    figures = FIGURES[profile.dataset](profile, run, table, test, labels) if profile.dataset in FIGURES else {}
    files = [file for name, figure in figures.items() for file in save(_marked(figure, profile), folder / name)]
    return {"metrics": {"figures": len(figures)}, "artefacts": files}


def _marked(figure: Figure, profile: Profile) -> Figure:
    if not profile.is_result:
        strip = 0.14 / figure.get_figheight()  # inches kept free for the mark
        figure.get_layout_engine().set(rect=(0, strip, 1, 1 - strip))
        figure.text(0.995, 0.005, "a quick look, not results", ha="right", va="bottom", fontsize=6, color="#d55e00")
    return figure


def _read(run: Path, method: str, test: pd.DataFrame, profile: Profile) -> SeedScores:
    return read_seeds(run / "scores" / method, test["n_frames"].to_dict(), profile.seeds)


def main_method(run: Path) -> str:
    """The method that a run's examples are of: the first of `ORDER` that it has scored."""
    return next(name for name in ORDER if (run / "scores" / name).is_dir())


def within_videos(profile: Profile, method: str) -> dict[str, float]:
    """AUC within each test video that holds both classes (streams where there are any), of the first seed, 0..1.

    What shows a method at work on one video is chosen by it.
    """
    run = run_folder(profile)
    test = load_manifest(run / "data").query("split == 'test'").set_index("video", drop=False).rename_axis(None)
    if (test["set"] == "stream").any():
        test = test[test["set"] == "stream"]
    scores = {video: row[:1] for video, row in _read(run, method, test, profile).scores.items()}
    return plots.video_aucs(scores, {row.video: frame_labels(row) for row in test.itertuples()})


def _joined(scores: Mapping[str, np.ndarray], videos: Collection[str]) -> np.ndarray:
    return np.concatenate([scores[video] for video in videos], axis=-1)


def _curves(
    profile: Profile, run: Path, methods: Sequence[str], main: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> Figure:
    scored = [method for method in methods if (run / "scores" / method).is_dir()]
    scores = {method: _joined(_read(run, method, main, profile).scores, main["video"]) for method in scored}
    return plots.roc_pr(scores, _joined(labels, main["video"]))


def alarm_threshold(normal: Mapping[str, np.ndarray], profile: Profile) -> float | None:
    """The alarm threshold of the first seed, from held-out normal streams where there are any; None without such
    video."""
    if not normal:
        return None
    sets = load_manifest(run_folder(profile) / "data").set_index("video")["set"].to_dict()
    return float(normal_thresholds(held_out_for(normal, sets, streams=True), profile.far_target)[0])


def _benchmark(
    profile: Profile, run: Path, table: pd.DataFrame, test: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    main = test[test["set"] == "main"]
    families = [name for name in FAMILY_COLOURS if name in set(main["family"]) - {"normal"}]
    clips = {words(name): {"metric": "clip_auc", "family": name} for name in ("all", *families)}
    seen = test[test["set"] == "stream"] if (test["set"] == "stream").any() else main
    met = {"all", *table.loc[table["group"] == "set:stream", "family"]}  # in a small run some family may not occur
    panels = {
        words(name): {"metric": "micro_auc", "family": name, "group": "set:stream"}
        for name in ("all", *families)
        if name in met
    }
    panels = panels if (table["group"] == "set:stream").any() else clips
    method = main_method(run)
    series = _read(run, method, test, profile)
    threshold = alarm_threshold(series.normal, profile)
    joined, truth = (_joined(of, seen["video"]) for of in (series.scores, _families(seen)))
    frames = {name or "normal": joined[:, truth == name].ravel() for name in ("", *families) if (truth == name).any()}
    confusions = {
        path.stem: plots.confusion_matrix(pd.read_csv(path, index_col="true"))
        for path in sorted((run / "evaluate").glob("confusion_anomaly_clip.csv"))
    }
    return confusions | {
        "headline": plots.headline(table, panels, VARIANTS),
        **({"clips": plots.headline(table, clips)} if panels is not clips else {}),
        "score_curve": plots.score_curve(*example(profile, method), threshold),
        "roc_pr": _curves(profile, run, CURVES, seen, labels),
        "densities": plots.densities(frames, threshold, f"{words(method)}: frame score (deviations)"),
        "scenes": plots.scene_heatmap(table, "clip_auc"),
        "contact_sheet": _sheet(main, families),
    }


def _families(videos: pd.DataFrame) -> dict[str, np.ndarray]:
    """Family of each frame of each video, "" where it is normal: video -> [n_frames]."""
    return {row.video: family_frames(row) for row in videos.itertuples()}


def median_video(profile: Profile, method: str) -> tuple[pd.Series, int]:
    """The manifest's row of the test video at the median of `within_videos`, and of how many."""
    test = load_manifest(run_folder(profile) / "data").query("split == 'test'").set_index("video", drop=False)
    aucs = within_videos(profile, method)
    return test.rename_axis(None).loc[plots.at_quantile(aucs)], len(aucs)


def example(profile: Profile, method: str) -> tuple[pd.DataFrame, list[tuple[int, int]], str]:
    """The video of `median_video`, for `score_curve`.

    Returns:
        frames with the contribution of each term (a score without terms: with the motion floor beside it), abnormal
        spans, and a title that says how the video was chosen.
    """
    (row, count), run, seed = median_video(profile, method), run_folder(profile), str(profile.seeds[0])
    video = row.video
    frames = pd.read_csv(run / "scores" / method / seed / f"{video}.csv")
    if len(frames.columns) > 3:  # with the terms of the score
        frames = contributions(frames, run, method, profile)
    else:
        frames["motion_floor"] = pd.read_csv(run / "scores" / "motion_floor" / seed / f"{video}.csv")["score"]
    title = f"{words(method)}, {video} (median AUC of {count}), seed {seed}"
    return frames, parse_spans(row.spans), title


def contributions(frames: pd.DataFrame, run: Path, method: str, profile: Profile) -> pd.DataFrame:
    """A score file's raw terms turned into what each adds to the score, see `scores.standardise`.

    Args:
        frames: columns frame, time_s, score and the raw terms.
        run: the run's folder; holds the first seed's statistics.
        method: whose file it is.
        profile: gives the seed.
    """
    from zsad_lib.files.weights import load_weights
    from zsad_lib.methods.context_aware.scores import METHODS, standardise

    file = run / "score" / METHODS[method][0] / str(profile.seeds[0]) / "scorer.safetensors"
    terms = standardise(frames, load_weights(file)[1]["statistics"], METHODS[method][1])
    return frames[["frame", "time_s", "score"]].assign(**terms)


def _sheet(main: pd.DataFrame, families: Sequence[str]) -> Figure:
    scenes, kinds = list(dict.fromkeys(main["scene"])), ["normal", *families]
    frames, captions = [], []
    for family in kinds:
        for number, scene in enumerate(scenes):
            rows = main[(main["scene"] == scene) & (main["family"] == family)].sort_values("video")
            if rows.empty:
                frames.append(None)
                captions.append("")
                continue
            row = rows.iloc[number % len(rows)]  # another clip in each scene, so that details vary
            first, last = (parse_spans(row["spans"]) or [(0, row["n_frames"] - 1)])[0]
            frames.append(read_video(row["path"], [(first + last) // 2])[0])
            captions.append(row["caption"])
    return plots.contact_sheet(frames, captions, scenes, kinds)


def _one_scene(
    profile: Profile, run: Path, table: pd.DataFrame, test: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    test = test[test["set"] == "main"]
    panels = {"frames: micro AUC": {"metric": "micro_auc"}, "abnormal clips only": {"metric": "abnormal_auc"}}
    if (table["metric"] == "pixel_auc").any():
        panels["pixels"] = {"metric": "pixel_auc"}
    series = _read(run, "predictive", test, profile)
    threshold = alarm_threshold(series.normal, profile)
    joined, truth = _joined(series.scores, test["video"]), _joined(labels, test["video"])
    frames = {"normal": joined[:, truth == 0].ravel(), "abnormal": joined[:, truth == 1].ravel()}
    figures = {
        "headline": plots.headline(table, panels, ("raw", "smoothed", "causal")),
        "score_curve": plots.score_curve(*example(profile, "predictive"), threshold),
        "roc_pr": _curves(profile, run, ("predictive", "predictive@causal", "knn", "motion_floor"), test, labels),
        "densities": plots.densities(frames, threshold, "predictive: frame score"),
    }
    if (maps := run / "maps" / "predictive" / str(profile.seeds[0])).is_dir():
        aucs = plots.video_aucs(series.scores, labels)
        figures["overlays"] = _map_examples(maps, run / "data" / FOLDER, test, aucs)
    return figures


def _map_examples(maps: Path, masks: Path, test: pd.DataFrame, aucs: Mapping[str, float]) -> Figure:
    """The clips at the quartiles of AUC, each at the frame at which its map is highest."""
    rows = []
    for video in dict.fromkeys(plots.at_quantile(aucs, q) for q in (0.25, 0.5, 0.75)):
        levels = read_archive(maps / f"{video}.npz")["maps"].astype(float)  # [T, h, w]
        frame = int(levels.max((1, 2)).argmax())
        truth = read_masks(masks / f"{video}.npz")[frame]
        rows.append((read_video(test["path"][video], [frame])[0], levels[frame], truth, f"{video}, frame {frame}"))
    return plots.overlays(*zip(*rows))


FIGURES = {"scene_rules": _benchmark, "ucsd_ped2": _one_scene}  # data set -> figures of its runs; other runs have none
