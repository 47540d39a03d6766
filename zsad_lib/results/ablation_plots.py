"""Figures of the ablations: tidy tables and plain arrays in, a matplotlib figure out (styles and saving: `style`)."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zsad_lib.errors import ZsadError
from zsad_lib.results.ablation_tables import main_group
from zsad_lib.results.style import COLUMN, PAGE, words
from zsad_lib.results.tables import FAMILIES

OBJECTIVES = {"plain": ("#4d4d4d", "o"), "swap": ("#0173b2", "s"), "reject": ("#d55e00", "^")}  # colour, marker


def forest(
    table: pd.DataFrame, score: str, what: str = "delta", families: Sequence[str] = FAMILIES, metric: str = "clip_auc"
) -> Figure:
    """One panel per family: every row's difference from its control (or its value) with its 95 % interval.

    Args:
        table: tidy ablation table.
        score: rows of `semantic`, `full` or `fused`.
        what: `delta`, drawn against 0, or `value`, drawn against chance.
        families: panels.
        metric: column `metric` of the rows.
    """
    low, high = ("delta_low", "delta_high") if what == "delta" else ("low", "high")
    rows = table[(table.metric == metric) & (table.group == main_group(table)) & (table.score == score)]
    rows = rows[rows[what].notna()]
    if rows.empty:
        raise ZsadError(f"no rows with score {score}: nothing to draw")
    names = list(dict.fromkeys(rows.variant))
    size = (PAGE, 0.75 + 0.2 * len(names))
    figure, axes = plt.subplots(1, len(families), figsize=size, sharex=True, sharey=True, squeeze=False)
    kinds = [name for name in OBJECTIVES if name in set(rows.objective)]
    for ax, family in zip(axes[0], families):
        for kind in kinds:
            shade, marker = OBJECTIVES[kind]
            for row in rows[(rows.family == family) & (rows.objective == kind)].to_dict("records"):
                y = names.index(row["variant"]) + 0.24 * (kinds.index(kind) - (len(kinds) - 1) / 2)
                ax.plot([row[low], row[high]], [y, y], color=shade, linewidth=1.1, solid_capstyle="butt")
                ax.plot(row[what], y, marker, color=shade, markersize=3)
        ax.axvline(0 if what == "delta" else 0.5, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(title=family)
        ax.grid(axis="y", linewidth=0.4, color="0.9")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), [words(name) for name in names])
    axes[0, 0].invert_yaxis()
    marks = [plt.Line2D([], [], color=OBJECTIVES[k][0], marker=OBJECTIVES[k][1], markersize=3, label=k) for k in kinds]
    if len(kinds) > 1:
        figure.legend(handles=marks, title="objective", loc="outside upper center", ncols=len(kinds), title_fontsize=7)
    auc = f"{metric.partition('_')[0]} AUC"
    label = f"difference in {auc} from the control" if what == "delta" else f"{auc} (dotted: chance)"
    figure.supxlabel(f"{label}; lines: 95 % intervals", fontsize=7)
    return figure


def relevance_map(
    learned: np.ndarray, normal: np.ndarray, scenes: Sequence[str], actions: Sequence[str], title: str
) -> Figure:
    """How far each action's caption is open in each scene, beside the hidden table of what is normal.

    Args:
        learned: [scenes, actions], for `relevance` in 0..1.
        normal: [scenes, actions] of 0 and 1.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.3), sharey=True)
    for ax, values, name in zip(axes, (normal, learned), ("hidden table (1: normal)", title)):
        image = ax.imshow(values, cmap="cividis", vmin=0, vmax=max(1.0, float(values.max())), aspect="auto")
        for y, x in np.ndindex(values.shape):
            shade = "black" if values[y, x] > 0.6 * image.get_clim()[1] else "white"
            text = f"{values[y, x]:.2f}" if ax is axes[1] else f"{values[y, x]:.0f}"
            ax.text(x, y, text, ha="center", va="center", fontsize=7, color=shade)
        ax.set(xticks=range(len(actions)), xticklabels=actions, title=name)
        ax.set(yticks=range(len(scenes)), yticklabels=scenes)
        ax.tick_params(axis="x", rotation=45)
        ax.tick_params(length=0)
    return figure


def activations(values: Mapping[str, np.ndarray], label: str) -> Figure:
    """What a gate does per scene: scene -> [n] values of all captions, as quartile boxes before every value."""
    figure, ax = plt.subplots(figsize=(COLUMN * 1.3, 2.2))
    rng = np.random.default_rng(0)
    for index, of_scene in enumerate(values.values()):
        x = index + rng.uniform(-0.3, 0.3, len(of_scene))
        ax.plot(x, of_scene, ".", color="#56b4e9", markersize=2, alpha=0.4, zorder=1)
    box = dict(color="black", linewidth=0.9)
    ax.boxplot(list(values.values()), positions=range(len(values)), widths=0.5, showfliers=False, zorder=2,
               boxprops=box, whiskerprops=box, capprops=box, medianprops={"color": "#d55e00"})  # fmt: skip
    ax.set_xticks(range(len(values)), list(values))
    ax.set(ylabel=label)
    return figure


def reported_beside(table: pd.DataFrame, reported: Mapping[str, float]) -> Figure:
    """The paper's ablation redrawn: what it reports, and what the same rows reach here, both from chance upwards.

    Args:
        table: tidy table of the grid `released`.
        reported: row -> reported ROC-AUC, 0..1.
    """
    ours = table[(table.metric == "clip_auc") & (table.group == "all") & (table.family == "all")].set_index("variant")
    figure, ax = plt.subplots(figsize=(COLUMN * 1.4, 2.3))
    for y, name in enumerate(reported):
        row = ours.loc[name]
        ax.plot([row.low, row.high], [y, y], color="#0173b2", linewidth=1.4, solid_capstyle="butt")
        [here] = ax.plot(row.value, y, "o", color="#0173b2", markersize=4)
        [there] = ax.plot(reported[name], y, "D", color="#d55e00", markerfacecolor="white", markersize=4)
    here.set_label("here: SceneRules, clip AUC")
    there.set_label("reported: UCF-Crime, ROC-AUC")
    ax.axvline(0.5, color="0.5", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(reported)), list(reported))
    ax.invert_yaxis()
    ax.set(xlabel="ROC-AUC (dotted: chance)", xlim=(0.3, 1.0))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=1)
    return figure
