"""Figures of a run, and the plots that notebooks share: plain arrays and tables in, a matplotlib figure out.

Drawing reads results and never computes them, so that a changed colour trains and scores nothing again. A method or
family has one colour in all figures (seaborn's palette for colour-blind readers), text is 7 points or more at the width
of a printed column, and files repeat byte by byte: no dates, fixed hash salt. Which video is shown as an example is
decided by rule (`at_quantile`), never by eye.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from zsad_lib import paths
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.floors import FLOORS
from zsad_lib.frames import normal_thresholds
from zsad_lib.manifest import frame_labels, load_manifest, parse_spans
from zsad_lib.pipeline import run_folder
from zsad_lib.series import SeedScores, read_archive, read_seeds
from zsad_lib.tables import HEADINGS, ORDER
from zsad_lib.video import read_video

COLUMN, PAGE = 3.4, 7.0  # inches: one column and the full width of a two-column paper
METHOD_COLOURS = {
    "full_memory": "#0173b2", "full": "#56b4e9", "paper": "#d55e00", "semantic": "#029e73", "predictive": "#cc78bc",
    "knn": "#de8f05", "knn_predictive": "#a06a3c", "motion_floor": "#4d4d4d", "anomaly_clip": "#7a3b8f", "mil": "#b07cc6",
    "clip_prompts": "#6b8e23",
}  # fmt: skip
FAMILY_COLOURS = {
    "normal": "#7f7f7f",
    "semantic": "#029e73",
    "temporal": "#cc78bc",
    "contextual": "#0173b2",
    "abnormal": "#0173b2",
}
FLOOR_COLOUR, TRUTH_COLOUR = "#949494", "#de8f05"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))  # a second mark beside colour
ORACLES = ("video_label", "video_label_centre")  # floors that read the true video label
TERMS = {
    "s_sem": "caption misfit",
    "s_pred": "prediction error",
    "s_all": "prediction error",
    "s_mem": "distance to memory",
}  # term -> words
CURVES = ("full_memory", "full", "paper", "knn", "predictive", "motion_floor")  # methods with ROC and PR curves


def style() -> None:
    """Sets the theme of all figures: sizes for `COLUMN` and `PAGE` inches, and files that repeat byte by byte."""
    sizes = {
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "figure.titlesize": 9,
        "legend.title_fontsize": 7,
    }
    small = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7)
    sns.set_theme(
        "paper",
        "ticks",
        sns.color_palette("colorblind"),
        rc={
            **sizes, **small, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "xtick.major.width": 0.6,
            "ytick.major.width": 0.6, "xtick.major.size": 3, "ytick.major.size": 3, "axes.spines.top": False,
            "axes.spines.right": False, "legend.frameon": False, "font.family": "DejaVu Sans",
            "figure.figsize": (PAGE, 2.6), "figure.constrained_layout.use": True, "figure.dpi": 110, "savefig.dpi": 200,
            "image.cmap": "magma", "image.interpolation": "nearest", "svg.hashsalt": "zsad", "pdf.fonttype": 42,
        },
    )  # fmt: skip


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Writes ``<stem>.png`` and ``<stem>.pdf`` without dates, whole or not at all, and closes the figure."""
    files = [Path(stem).with_suffix(suffix) for suffix in (".png", ".pdf")]
    for file, metadata in zip(files, ({"Software": None}, {"CreationDate": None, "Creator": None, "Producer": None})):
        with paths.atomic(file, mode=None) as temporary:
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)
    return files


def colour(method: str) -> str:
    """The method's colour in every figure; grey for the content-free floors."""
    return METHOD_COLOURS.get(method.partition("@")[0], FLOOR_COLOUR)


def term_colour(term: str) -> str:
    """Colour of a term of the score, or of another curve beside it: that of the method which has nothing else."""
    return METHOD_COLOURS.get(
        {"s_sem": "semantic", "s_pred": "predictive"}.get(term, term), METHOD_COLOURS["full_memory"]
    )


def words(name: str) -> str:
    """A method, variant or family as printed in figures: "full_memory" -> "full memory"."""
    return name.replace("_", " ").replace("@", ", ")


def at_quantile(values: Mapping[str, float] | pd.Series, quantile: float = 0.5) -> str:
    """The name whose value is the given quantile of all (the lower one of two; ties by name): how examples are chosen.

    >>> at_quantile({"a": 0.9, "b": 0.5, "c": 0.7})
    'c'
    """
    order = sorted(values, key=lambda name: (values[name], name)) if isinstance(values, Mapping) else None
    order = order or sorted(values.index, key=lambda name: (values[name], name))
    return order[int(quantile * (len(order) - 1))]


def video_aucs(scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """ROC-AUC within each video that holds both classes, mean over seeds: video -> [S, n] and [n] -> video -> 0..1."""
    both = [video for video in scores if 0 < labels[video].mean() < 1]
    return {v: float(np.mean([roc_auc_score(labels[v], row) for row in np.atleast_2d(scores[v])])) for v in both}


# --- plots -----------------------------------------------------------------------------------------------------------


def headline(
    table: pd.DataFrame, panels: Mapping[str, Mapping[str, str]], variants: Collection[str] = ("raw",)
) -> Figure:
    """Methods and floors as rows, one panel per metric or family: value (dot), 95 % interval (line), chance (dotted).

    Args:
        table: tidy detection table.
        panels: title -> values that rows must have, {"semantic": {"metric": "clip_auc", "family": "semantic"}}; group
            and family are "all" where not named.
        variants: variants to show; the floors have only "raw".
    """
    shown = [
        table[
            np.logical_and.reduce(
                [table[name] == value for name, value in {"group": "all", "family": "all", **rows}.items()]
            )
        ]
        for rows in panels.values()
    ]
    known = {(r.method, r.variant) for part in shown for r in part.itertuples() if r.variant in variants}
    places = [*ORDER, *sorted({method for method, _ in known} - {*ORDER, *FLOORS}), *FLOORS]
    order = sorted(known, key=lambda key: (places.index(key[0]), list(variants).index(key[1])))
    if not order:
        raise ZsadError(f"no rows for {', '.join(panels)}: nothing to draw")
    gap = 0.6  # rows between methods and floors
    rows = {key: i + gap * (key[0] in FLOORS) for i, key in enumerate(order)}
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 0.6 + 0.19 * len(order)), sharey=True, squeeze=False)
    for ax, title, part in zip(axes[0], panels, shown):
        found = {(r.method, r.variant): r for r in part.itertuples()}
        for key, y in rows.items():
            if key not in found:
                continue
            r, fill = found[key], "white" if key[0] in FLOORS else colour(key[0])
            ax.plot(
                [r.low, r.high],
                [y, y],
                color=colour(key[0]),
                linewidth=1.4,
                solid_capstyle="butt",
                zorder=2,
                clip_on=False,
            )
            ax.plot(
                r.value, y, "o", markersize=4.2, color=colour(key[0]), markerfacecolor=fill, zorder=3, clip_on=False
            )
            ax.text(1.06, y, f"{r.value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7)
        ax.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
        ax.set(title=title, xlim=(min(0.4, np.nanmin([r.low for r in found.values()] or [0.4]) - 0.02), 1.01))
        ax.set_xticks([0.5, 0.75, 1], ["0.5", ".75", "1"])
        ax.grid(axis="y", linewidth=0.4, color="0.9")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    names = [words(m) + (" (oracle)" if m in ORACLES else "") + ("" if v == "raw" else f", {v}") for m, v in order]
    axes[0, 0].set_yticks(list(rows.values()), names)
    axes[0, 0].invert_yaxis()
    what = " / ".join(dict.fromkeys(HEADINGS[name] for part in shown for name in part["metric"]))
    figure.supxlabel(
        f"{what}, mean over seeds and 95 % interval; dotted: chance; hollow: content-free floors", fontsize=7
    )
    return figure


def score_curve(
    frames: pd.DataFrame, spans: Sequence[tuple[int, int]], title: str = "", threshold: float | None = None
) -> Figure:
    """A video's anomaly score over time above what each term adds to it; truth is shaded.

    Args:
        frames: columns ``time_s`` and ``score``, then one per further curve (terms in the score's units).
        spans: abnormal frames, both ends inclusive.
        title: of the figure.
        threshold: of an alarm, drawn as a dashed line.
    """
    terms = [name for name in frames if name not in ("frame", "time_s", "score")]
    time = frames["time_s"].to_numpy()
    step = time[1] - time[0] if len(time) > 1 else 1.0
    figure, axes = plt.subplots(
        1 + len(terms), 1, figsize=(PAGE, 1.5 + 0.75 * len(terms)), sharex=True, squeeze=False,
        height_ratios=[1.6] + [1] * len(terms),
    )  # fmt: skip
    for ax, name in zip(axes[:, 0], ["score", *terms]):
        for i, (first, last) in enumerate(spans):
            label = "abnormal (truth)" if i == 0 and name == "score" else None
            ax.axvspan(time[first], time[last] + step, color=TRUTH_COLOUR, alpha=0.28, linewidth=0, label=label)
        ax.plot(time, frames[name], color="black" if name == "score" else term_colour(name), linewidth=1)
        ax.set_ylabel(TERMS.get(name, words(name)).replace(" ", "\n", 1) if name != "score" else "score")
        ax.margins(x=0)
        ax.locator_params(axis="y", nbins=4)
    if threshold is not None:
        axes[0, 0].axhline(threshold, color="#d55e00", linewidth=0.9, linestyle="--", label="threshold")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    axes[0, 0].set_title(title, loc="left")
    axes[-1, 0].set_xlabel("time (s)")
    figure.align_ylabels()
    return figure


def roc_pr(scores: Mapping[str, np.ndarray], labels: np.ndarray) -> Figure:
    """ROC and precision-recall curves over all frames joined, mean over seeds at equal false alarm rate (recall).

    Args:
        scores: method -> [n] or [S, n].
        labels: [n] of 0 and 1.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.9))
    grid = np.linspace(0, 1, 501)
    for (name, series), dash in zip(scores.items(), DASHES * len(scores)):
        hits, precisions = [], []
        for row in np.atleast_2d(series):
            false, true, _ = roc_curve(labels, row)
            hits.append(np.interp(grid, false, true))
            precision, recall, _ = precision_recall_curve(labels, row)
            precisions.append(precision[::-1][np.searchsorted(recall[::-1], grid)])  # a step function of recall
        look = dict(color=colour(name), linestyle=dash, linewidth=1.2)
        left.plot(grid, np.mean(hits, axis=0), label=words(name), **look)
        right.plot(grid[1:], np.mean(precisions, axis=0)[1:], **look)
    left.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    share = float(np.mean(labels))
    right.axhline(share, color="0.6", linewidth=0.8, linestyle=":")
    left.set(xlabel="false alarm rate (frames)", ylabel="recall (frames)", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    right.set(
        xlabel="recall (frames)",
        ylabel="precision",
        title=f"precision-recall (prevalence {share:.3f}, dotted)",
        ylim=(0, 1.02),
        xlim=(0, 1),
    )
    left.legend(loc="lower right", handlelength=2.6)
    return figure


def densities(
    scores: Mapping[str, np.ndarray], threshold: float | None = None, unit: str = "score", of: str = "frames"
) -> Figure:
    """Densities of the scores of frames, or of what `of` names: family -> [n]; "normal" is filled. Each density has area 1."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.6))
    joined = np.concatenate(list(scores.values()))
    low, high = np.quantile(joined, [0.001, 0.995])
    for (family, values), dash in zip(scores.items(), DASHES):
        look = dict(color=FAMILY_COLOURS.get(family, "#d55e00"), label=f"{words(family)} ({len(values):,})")
        values = values[(values >= low) & (values <= high)]
        if len(values) > 1 and np.ptp(values) > 0:
            sns.kdeplot(x=values, ax=ax, fill=family == "normal", linestyle=dash, clip=(low, high), cut=0, **look)
    if threshold is not None:
        ax.axvline(threshold, color="#d55e00", linewidth=0.9, linestyle="--", label="threshold")
    ax.set(xlabel=unit, ylabel="density", yticks=[])
    ax.legend(title=f"{of} of", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def scene_heatmap(table: pd.DataFrame, metric: str) -> Figure:
    """Methods x scenes, `metric` in each cell, from the table's rows with groups ``scene:NAME`` (variant raw)."""
    rows = table[table["group"].str.startswith("scene:") & (table["metric"] == metric) & (table["variant"] == "raw")]
    if rows.empty:
        raise ZsadError(f"no rows of {metric} per scene: nothing to draw")
    cells = rows.assign(scene=rows["group"].str.removeprefix("scene:")).pivot_table("value", "method", "scene")
    order = [name for name in (*ORDER, *FLOORS) if name in cells.index]
    cells = cells.loc[order]
    figure, ax = plt.subplots(figsize=(PAGE * 0.72, 0.55 + 0.22 * len(cells)))
    sns.heatmap(cells, ax=ax, vmin=min(0.5, cells.min(axis=None)), vmax=1, cmap="cividis", annot=True, fmt=".2f", annot_kws={"size": 7},
                linewidths=0.5, cbar_kws={"label": "ROC-AUC", "pad": 0.02})  # fmt: skip
    ax.set_yticklabels([words(name) for name in cells.index], rotation=0)
    ax.set(
        xlabel="",
        ylabel="",
        title=f"{metric.replace('_auc', '').replace('_', ' ')}-level ROC-AUC by scene (0.5: chance)",
    )
    ax.tick_params(length=0)
    return figure


def confusion_matrix(shares: pd.DataFrame) -> Figure:
    """True classes x the class of the largest probability: shares of the true class's frames, each row adds up to 1."""
    figure, ax = plt.subplots(figsize=(COLUMN * 1.25, 0.9 + 0.3 * len(shares)))
    sns.heatmap(shares, ax=ax, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", annot_kws={"size": 7},
                linewidths=0.5, cbar_kws={"label": "share of frames"})  # fmt: skip
    ax.set(xlabel="class of the largest probability", ylabel="true class of the frame")
    ax.tick_params(length=0)
    ax.tick_params(axis="x", rotation=40)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def contact_sheet(
    frames: Sequence[np.ndarray | None], captions: Sequence[str], columns: Sequence[str], rows: Sequence[str]
) -> Figure:
    """Pictures [H, W, 3] in a grid under column and row headings, each with its caption; None leaves a place empty.

    Args:
        frames, captions: row by row, len(rows) * len(columns) of each.
        columns, rows: headings.
    """
    shape = next((frame.shape for frame in frames if frame is not None), (3, 4))
    width = (PAGE - 0.3) / len(columns)
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(PAGE, 0.3 + len(rows) * (width * shape[0] / shape[1] + 0.48)), squeeze=False
    )
    letters = int(width * 17)  # that fit one line of 7 points
    for i, (ax, frame, caption) in enumerate(zip(axes.flat, frames, captions)):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if frame is not None:
            ax.imshow(frame, interpolation="nearest")
        wrapped = textwrap.wrap(caption, letters)
        cut = " …" if len(wrapped) > 3 else ""
        ax.set_xlabel("\n".join(wrapped[:3]) + cut, fontsize=7, labelpad=2)
        if i < len(columns):
            ax.set_title(words(columns[i]), fontweight="bold")
        if i % len(columns) == 0:
            row = rows[i // len(columns)]
            ax.set_ylabel(words(row), color=FAMILY_COLOURS.get(row, "black"), fontweight="bold")
    return figure


def overlays(
    frames: Sequence[np.ndarray], maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], titles: Sequence[str]
) -> Figure:
    """Rows of frame, frame under its anomaly map, and frame with the true mask's outline.

    Args:
        frames: [H, W, 3] each.
        maps: [h, w] each; one colour scale for all.
        masks: [H, W] bool each.
        titles: one per row.
    """
    height, width = frames[0].shape[:2]
    figure, axes = plt.subplots(
        len(frames), 3, figsize=(PAGE, 0.3 + len(frames) * PAGE / 3.3 * height / width), squeeze=False
    )
    top = max(float(np.max(one)) for one in maps)
    for row, frame, one, mask, title in zip(axes, frames, maps, masks, titles):
        grey = frame.mean(-1)
        for ax in row:
            ax.imshow(grey, cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        level = np.kron(np.asarray(one, float), np.ones((-(-height // one.shape[0]), -(-width // one.shape[1]))))[
            :height, :width
        ]
        shown = row[1].imshow(level, cmap="magma", vmin=0, vmax=top, alpha=np.clip(0.15 + level / top, 0, 0.75))
        if mask.any():
            row[2].contour(mask.astype(float), levels=[0.5], colors=TRUTH_COLOUR, linewidths=1.2)
        row[0].set_ylabel(title, fontsize=7)
    for ax, title in zip(axes[0], ("frame", "error × motion", "true mask")):
        ax.set_title(title)
    bar = figure.colorbar(mpl.cm.ScalarMappable(shown.norm, "magma"), ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("anomaly map (units of the score)")
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """One panel per loss, one line per training: panel -> name -> [steps]; thin: every step, thick: mean over a 15th of all."""
    figure, axes = plt.subplots(1, len(curves), figsize=(PAGE, 2.3), squeeze=False)
    for ax, (title, lines) in zip(axes[0], curves.items()):
        for i, (name, values) in enumerate(lines.items()):
            values = np.asarray(values, float)
            shade = METHOD_COLOURS.get(name.split(",")[0], sns.color_palette("colorblind")[i % 10])
            mean = pd.Series(values).rolling(max(1, len(values) // 15), min_periods=1, center=True).mean()
            ax.plot(np.arange(1, len(values) + 1), values, color=shade, alpha=0.25, linewidth=0.7)
            ax.plot(
                np.arange(1, len(values) + 1), mean, color=shade, linestyle=DASHES[i % len(DASHES)], label=words(name)
            )
        ax.set(title=title, xlabel="step")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[0, 0].legend()
    return figure


# --- the pipeline step -----------------------------------------------------------------------------------------------


def draw(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: all figures of a run into `folder`, from ``evaluate/detection.csv``, ``scores`` and ``maps``.

    Examples are chosen by rule: the video at the median of the AUC within videos, the n-th clip by name of each family
    in the n-th scene, the middle frame of an event, the frame at which a map is highest.
    """
    style()
    run = folder.parent
    table = pd.read_csv(run / "evaluate" / "detection.csv")
    test = load_manifest(run / "data").query("split == 'test'").set_index("video", drop=False).rename_axis(None)
    main = test[test["set"] == "main"]
    labels = {row.video: frame_labels(row) for row in test.itertuples()}
    plots = _benchmark(profile, run, table, test, labels) if profile.dataset == "scene_rules" else {}
    if profile.dataset == "ucsd_ped2":
        plots = _one_scene(profile, run, table, main, labels)
    made = [file for name, figure in plots.items() for file in save(_marked(figure, profile), folder / name)]
    return {"metrics": {"figures": len(plots)}, "artefacts": made}


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
    """AUC within each test video that holds both classes (long ones where there are any), of the first seed, 0..1.

    What shows a method at work on one video is chosen by it.
    """
    run = run_folder(profile)
    test = load_manifest(run / "data").query("split == 'test'").set_index("video", drop=False).rename_axis(None)
    chosen = test[test["set"] == "long"] if (test["set"] == "long").any() else test
    scores = {video: row[:1] for video, row in _read(run, method, chosen, profile).scores.items()}
    return video_aucs(scores, {row.video: frame_labels(row) for row in chosen.itertuples()})


def _joined(scores: Mapping[str, np.ndarray], videos: Collection[str]) -> np.ndarray:
    return np.concatenate([scores[video] for video in videos], axis=-1)


def _curves(
    profile: Profile, run: Path, methods: Sequence[str], main: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> Figure:
    found = {
        m: _joined(_read(run, m, main, profile).scores, main["video"]) for m in methods if (run / "scores" / m).is_dir()
    }
    return roc_pr(found, _joined(labels, main["video"]))


def alarm_threshold(normal: Mapping[str, np.ndarray], profile: Profile) -> float | None:
    """The alarm threshold of the first seed; None without held-out normal video."""
    if not normal:
        return None
    return float(normal_thresholds(normal, profile.far_target)[0])


def _benchmark(
    profile: Profile, run: Path, table: pd.DataFrame, test: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    main = test[test["set"] == "main"]
    families = [name for name in FAMILY_COLOURS if name in set(main["family"]) - {"normal"}]
    panels = {words(name): {"metric": "clip_auc", "family": name} for name in ("all", *families)}
    method = main_method(run)
    found = _read(run, method, test, profile)
    threshold = alarm_threshold(found.normal, profile)
    frames = {"normal": _joined({v: found.scores[v][:, labels[v] == 0] for v in main["video"]}, main["video"]).ravel()}
    for family in families:
        videos = main.loc[main["family"] == family, "video"]
        frames[family] = _joined({v: found.scores[v][:, labels[v] == 1] for v in videos}, videos).ravel()
    confusions = {
        path.stem: confusion_matrix(pd.read_csv(path, index_col="true"))
        for path in sorted((run / "evaluate").glob("confusion_anomaly_clip.csv"))
    }
    return confusions | {
        "headline": headline(table, panels),
        "score_curve": score_curve(*example(profile, method), threshold),
        "roc_pr": _curves(profile, run, CURVES, main, labels),
        "densities": densities(frames, threshold, f"{words(method)}: frame score (deviations)"),
        "scenes": scene_heatmap(table, "clip_auc"),
        "contact_sheet": _sheet(main, families),
    }


def median_video(profile: Profile, method: str) -> tuple[pd.Series, int]:
    """The manifest's row of the test video at the median of `within_videos`, and of how many."""
    test = load_manifest(run_folder(profile) / "data").query("split == 'test'").set_index("video", drop=False)
    aucs = within_videos(profile, method)
    return test.rename_axis(None).loc[at_quantile(aucs)], len(aucs)


def example(profile: Profile, method: str) -> tuple[pd.DataFrame, list[tuple[int, int]], str]:
    """The video of `median_video`, for `score_curve`.

    Returns:
        frames with the contribution of each term (real footage: with the motion floor beside the score), abnormal
        spans, and a title that says how the video was chosen.
    """
    (row, count), run, seed = median_video(profile, method), run_folder(profile), str(profile.seeds[0])
    video = row.video
    frames = pd.read_csv(run / "scores" / method / seed / f"{video}.csv")
    if profile.dataset == "ucsd_ped2":
        floor = pd.read_csv(run / "scores" / "motion_floor" / seed / f"{video}.csv")["score"]
        frames = frames[["frame", "time_s", "score"]].assign(motion_floor=floor)
    else:
        frames = contributions(frames, run, method, profile)
    title = f"{words(method)}, {video} (median AUC of {count}), seed {seed}"
    return frames, parse_spans(row.spans), title


def contributions(frames: pd.DataFrame, run: Path, method: str, profile: Profile) -> pd.DataFrame:
    """A score file's raw terms turned into what each adds to the score: deviations from held-out normal video.

    Args:
        frames: columns frame, time_s, score and the raw terms.
        run: the run's folder; holds the first seed's statistics.
        method: whose file it is.
        profile: gives the seed.
    """
    from zsad_lib.score import METHODS
    from zsad_lib.weights import load_weights

    file = run / "score" / METHODS[method][0] / str(profile.seeds[0]) / "scorer.safetensors"
    statistics = load_weights(file)[1]["statistics"]
    terms = {name: (frames[name] - statistics[name][0]) / statistics[name][1] for name in METHODS[method][1]}
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
    return contact_sheet(frames, captions, scenes, kinds)


def _one_scene(
    profile: Profile, run: Path, table: pd.DataFrame, test: pd.DataFrame, labels: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    panels = {"frames: micro AUC": {"metric": "micro_auc"}, "abnormal clips only": {"metric": "abnormal_auc"}}
    if (table["metric"] == "pixel_auc").any():
        panels["pixels"] = {"metric": "pixel_auc"}
    found = _read(run, "predictive", test, profile)
    aucs, seed = video_aucs(found.scores, labels), str(profile.seeds[0])
    threshold = alarm_threshold(found.normal, profile)
    joined, truth = _joined(found.scores, test["video"]), _joined(labels, test["video"])
    frames = {"normal": joined[:, truth == 0].ravel(), "abnormal": joined[:, truth == 1].ravel()}
    plots = {
        "headline": headline(table, panels, ("raw", "smoothed", "causal")),
        "score_curve": score_curve(*example(profile, "predictive"), threshold),
        "roc_pr": _curves(profile, run, ("predictive", "predictive@causal", "knn", "motion_floor"), test, labels),
        "densities": densities(frames, threshold, "predictive: frame score"),
    }
    if (run / "maps" / "predictive" / seed).is_dir():
        plots["overlays"] = _map_examples(run / "maps" / "predictive" / seed, test, aucs)
    return plots


def _map_examples(maps: Path, test: pd.DataFrame, aucs: Mapping[str, float]) -> Figure:
    """The clips at the quartiles of AUC, each at the frame at which its map is highest."""
    from data_prep.ucsd_ped2 import read_masks  # the library otherwise knows nothing of any one data set

    rows = []
    for video in dict.fromkeys(at_quantile(aucs, q) for q in (0.25, 0.5, 0.75)):
        found = read_archive(maps / f"{video}.npz")["maps"].astype(float)
        frame = int(found.max((1, 2)).argmax())
        path = test["path"][video]
        rows.append((read_video(path, [frame])[0], found[frame], read_masks(path)[frame], f"{video}, frame {frame}"))
    return overlays(*zip(*rows))
