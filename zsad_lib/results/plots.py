"""Figures of a run, and the plots that notebooks share: plain arrays and tables in, a matplotlib figure out.

Drawing reads results and never computes them, so that a changed colour trains and scores nothing again. A method or
family has one colour in all figures (seaborn's palette for colour-blind readers), text is 7 points or more at the width
of a printed column, and files repeat byte by byte: no dates, fixed hash salt. Which video is shown as an example is
decided by rule (`at_quantile`), never by eye.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.results import style
from zsad_lib.results.tables import HEADINGS, ORDER

ORACLES = ("video_label", "video_label_centre")  # floors that read the true video label


def at_quantile(values: Mapping[str, float] | pd.Series, quantile: float = 0.5) -> str:
    """The name whose value is the given quantile of all (the lower one of two; ties by name): how examples are chosen.

    >>> at_quantile({"a": 0.9, "b": 0.5, "c": 0.7})
    'c'
    """
    order = sorted(values.keys(), key=lambda name: (values[name], name))
    return order[int(quantile * (len(order) - 1))]


def video_aucs(scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """ROC-AUC within each video that holds both classes, mean over seeds: video -> [S, n] and [n] -> video -> 0..1."""
    both = [video for video in scores if 0 < labels[video].mean() < 1]
    return {v: float(np.mean([roc_auc_score(labels[v], row) for row in np.atleast_2d(scores[v])])) for v in both}


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
    per_panel = [_select(table, rows) for rows in panels.values()]
    keys = {(r.method, r.variant) for part in per_panel for r in part.itertuples() if r.variant in variants}
    methods = [*ORDER, *sorted({method for method, _ in keys} - {*ORDER, *FLOORS}), *FLOORS]
    order = sorted(keys, key=lambda key: (methods.index(key[0]), list(variants).index(key[1])))
    if not order:
        raise ZsadError(f"no rows for {', '.join(panels)}: nothing to draw")
    gap = 0.6  # rows between methods and floors
    rows = {key: i + gap * (key[0] in FLOORS) for i, key in enumerate(order)}
    size = (style.PAGE, 0.6 + 0.19 * len(order))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, title, part in zip(axes[0], panels, per_panel):
        drawn = {(r.method, r.variant): r for r in part.itertuples()}
        for key in filter(drawn.__contains__, order):
            r, y, shade = drawn[key], rows[key], style.colour(key[0])
            fill = "white" if key[0] in FLOORS else shade
            ax.plot([r.low, r.high], [y, y], color=shade, linewidth=1.4, solid_capstyle="butt", zorder=2, clip_on=False)
            ax.plot(r.value, y, "o", markersize=4.2, color=shade, markerfacecolor=fill, zorder=3, clip_on=False)
            ax.text(1.06, y, f"{r.value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7)
        ax.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
        ax.set(title=title, xlim=(min(0.4, np.nanmin([r.low for r in drawn.values()] or [0.4]) - 0.02), 1.01))
        ax.set_xticks([0.5, 0.75, 1], ["0.5", ".75", "1"])
        ax.grid(axis="y", linewidth=0.4, color="0.9")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    suffix = lambda method, variant: " (oracle)" * (method in ORACLES) + f", {variant}" * (variant != "raw")
    names = [style.words(method) + suffix(method, variant) for method, variant in order]
    axes[0, 0].set_yticks(list(rows.values()), names)
    axes[0, 0].invert_yaxis()
    what = " / ".join(dict.fromkeys(HEADINGS[name] for part in per_panel for name in part["metric"]))
    note = "mean over seeds and 95 % interval; dotted: chance; hollow: content-free floors"
    figure.supxlabel(f"{what}, {note}", fontsize=7)
    return figure


def _select(table: pd.DataFrame, values: Mapping[str, str]) -> pd.DataFrame:
    for column, value in {"group": "all", "family": "all", **values}.items():
        table = table[table[column] == value]
    return table


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
        1 + len(terms), 1, figsize=(style.PAGE, 1.5 + 0.75 * len(terms)), sharex=True, squeeze=False,
        height_ratios=[1.6] + [1] * len(terms),
    )  # fmt: skip
    for ax, name in zip(axes[:, 0], ["score", *terms]):
        for i, (first, last) in enumerate(spans):
            label = "abnormal (truth)" if i == 0 and name == "score" else None
            ax.axvspan(time[first], time[last] + step, color=style.TRUTH_COLOUR, alpha=0.28, linewidth=0, label=label)
        ax.plot(time, frames[name], color="black" if name == "score" else style.term_colour(name), linewidth=1)
        ax.set_ylabel(style.TERMS.get(name, style.words(name)).replace(" ", "\n", 1) if name != "score" else "score")
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE, 2.9))
    grid = np.linspace(0, 1, 501)
    for (name, series), dash in zip(scores.items(), style.DASHES * len(scores)):
        hits, precisions = [], []
        for row in np.atleast_2d(series):
            false, true, _ = roc_curve(labels, row)
            hits.append(np.interp(grid, false, true))
            precision, recall, _ = precision_recall_curve(labels, row)
            precisions.append(precision[::-1][np.searchsorted(recall[::-1], grid)])  # a step function of recall
        look = dict(color=style.colour(name), linestyle=dash, linewidth=1.2)
        left.plot(grid, np.mean(hits, axis=0), label=style.words(name), **look)
        right.plot(grid[1:], np.mean(precisions, axis=0)[1:], **look)
    left.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    share = float(np.mean(labels))
    right.axhline(share, color="0.6", linewidth=0.8, linestyle=":")
    left.set(xlabel="false alarm rate (frames)", ylabel="recall (frames)", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    title = f"precision-recall (prevalence {share:.3f}, dotted)"
    right.set(xlabel="recall (frames)", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.02))
    left.legend(loc="lower right", handlelength=2.6)
    return figure


def densities(
    scores: Mapping[str, np.ndarray], threshold: float | None = None, unit: str = "score", of: str = "frames"
) -> Figure:
    """Densities, each of area 1, of the scores of frames, or of what `of` names: family -> [n]; "normal" is filled."""
    figure, ax = plt.subplots(figsize=(style.COLUMN, 2.6))
    joined = np.concatenate(list(scores.values()))
    low, high = np.quantile(joined, [0.001, 0.995])
    for (family, values), dash in zip(scores.items(), style.DASHES):
        look = dict(color=style.FAMILY_COLOURS.get(family, "#d55e00"), label=f"{style.words(family)} ({len(values):,})")
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
    figure, ax = plt.subplots(figsize=(style.PAGE * 0.72, 0.55 + 0.22 * len(cells)))
    sns.heatmap(cells, ax=ax, vmin=min(0.5, cells.min(axis=None)), vmax=1, cmap="cividis", annot=True, fmt=".2f",
                annot_kws={"size": 7},
                linewidths=0.5, cbar_kws={"label": "ROC-AUC", "pad": 0.02})  # fmt: skip
    ax.set_yticklabels([style.words(name) for name in cells.index], rotation=0)
    level = metric.replace("_auc", "").replace("_", " ")
    ax.set(xlabel="", ylabel="", title=f"{level}-level ROC-AUC by scene (0.5: chance)")
    ax.tick_params(length=0)
    return figure


def confusion_matrix(shares: pd.DataFrame) -> Figure:
    """True classes x the class of the largest probability: shares of the true class's frames, each row adds up to 1."""
    figure, ax = plt.subplots(figsize=(style.COLUMN * 1.25, 0.9 + 0.3 * len(shares)))
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
    width = (style.PAGE - 0.3) / len(columns)
    size = (style.PAGE, 0.3 + len(rows) * (width * shape[0] / shape[1] + 0.48))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
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
            ax.set_title(style.words(columns[i]), fontweight="bold")
        if i % len(columns) == 0:
            row = rows[i // len(columns)]
            ax.set_ylabel(style.words(row), color=style.FAMILY_COLOURS.get(row, "black"), fontweight="bold")
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
        len(frames), 3, figsize=(style.PAGE, 0.3 + len(frames) * style.PAGE / 3.3 * height / width), squeeze=False
    )
    top = max(float(np.max(one)) for one in maps)
    for row, frame, one, mask, title in zip(axes, frames, maps, masks, titles):
        grey = frame.mean(-1)
        for ax in row:
            ax.imshow(grey, cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        cell = np.ones((-(-height // one.shape[0]), -(-width // one.shape[1])))
        level = np.kron(np.asarray(one, float), cell)[:height, :width]
        image = row[1].imshow(level, cmap="magma", vmin=0, vmax=top, alpha=np.clip(0.15 + level / top, 0, 0.75))
        if mask.any():
            row[2].contour(mask.astype(float), levels=[0.5], colors=style.TRUTH_COLOUR, linewidths=1.2)
        row[0].set_ylabel(title, fontsize=7)
    for ax, title in zip(axes[0], ("frame", "error × motion", "true mask")):
        ax.set_title(title)
    bar = figure.colorbar(mpl.cm.ScalarMappable(image.norm, "magma"), ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("anomaly map (units of the score)")
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A panel per loss, a line per training: panel -> name -> [steps]; thin: every step, thick: mean over a 15th."""
    figure, axes = plt.subplots(1, len(curves), figsize=(style.PAGE, 2.3), squeeze=False)
    for ax, (title, lines) in zip(axes[0], curves.items()):
        for i, (name, values) in enumerate(lines.items()):
            values = np.asarray(values, float)
            shade = style.METHOD_COLOURS.get(name.split(",")[0], sns.color_palette("colorblind")[i % 10])
            mean = pd.Series(values).rolling(max(1, len(values) // 15), min_periods=1, center=True).mean()
            steps, dash = np.arange(1, len(values) + 1), style.DASHES[i % len(style.DASHES)]
            ax.plot(steps, values, color=shade, alpha=0.25, linewidth=0.7)
            ax.plot(steps, mean, color=shade, linestyle=dash, label=style.words(name))
        ax.set(title=title, xlabel="step")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[0, 0].legend()
    return figure
