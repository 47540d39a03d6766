"""Figures of an explanation (`explain`): each makes a figure for print, or draws on a given one as a panel of an
explorer."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, NUM_BLOCKS
from zsad_lib.own_video.explain import Why, at_strength, lift
from zsad_lib.own_video.name_region import NOTHING
from zsad_lib.results.style import DASHES, METHOD_COLOURS, PAGE, TERMS, TRUTH_COLOUR, term_colour

CAPTIONS, PROMPTS = 5, 3  # sentences of each kind that `texts` shows
GAP = 8  # pixels between frames; four times that above a row, for titles
LETTERS = 46  # of a sentence in one line of 7 points beside its bar


def window(why: Why, at: float | None) -> int:
    """Number among the windows looked at: the one nearest to `at` seconds, None: the one that scores highest."""
    if at is None:
        return int(why.score[why.at].argmax())
    return int(np.abs(why.times[why.at] - at).argmin())


def contributions(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """What each term adds to the score over time: stacked above and below 0, their sum the black line.

    Args:
        why: of `zsad_lib.own_video.explain.explain`.
        at: seconds to mark; None: no mark.
        on: (sub)figure to draw on; None makes one.
    """
    on = on or plt.figure(figsize=(PAGE, 2.2))
    ax = on.subplots()
    high, low = np.zeros_like(why.score), np.zeros_like(why.score)
    for name, values in why.terms.items():
        for base, part in ((high, values.clip(min=0)), (low, values.clip(max=0))):
            label = TERMS[name] if base is high else None
            ax.fill_between(why.times, base, base + part, color=term_colour(name), alpha=0.55, linewidth=0, label=label)
            base += part
    ax.plot(why.times, why.score, color="black", label="score (sum)")
    ax.axhline(0, color="0.4", linewidth=0.6)
    peak = int(why.score.argmax())
    at_peak = {name: values[peak] for name, values in why.terms.items()}
    most = TERMS[max(at_peak, key=at_peak.get)]
    ax.set_title(f"{why.video}: at the peak ({why.times[peak]:.1f} s) most comes from {most}", loc="left")
    finish_curves(ax, "contribution\n(deviations)", at)
    return on


def finish_curves(ax: plt.Axes, unit: str, at: float | None = None) -> plt.Axes:
    """Names the axes of curves over the windows' times, puts the legend beside them, and marks `at` seconds."""
    if at is not None:
        ax.axvline(at, color=TRUTH_COLOUR, linewidth=1.2)
    ax.set(xlabel="middle of the window (s)", ylabel=unit)
    ax.margins(x=0.01)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def attention(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A window's frames under the rollout of their patches; each frame's share of it stands in its title.

    Args:
        why, on: as in `contributions`.
        at: seconds; the nearest window looked at is shown, None: the highest.
    """
    on, m = on or plt.figure(figsize=(PAGE, 2.9)), window(why, at)
    if why.rollout is None:
        return _says(on, "no attention: the detector sees without TimeSformer")
    relevance = why.rollout[m]  # [T, rows, columns]
    shares, even = relevance.sum((1, 2)) / relevance.sum(), relevance.mean()
    titles = [f"frame {number}: {share:.0%}" for number, share in zip(CLIP_FRAMES, shares)]
    maps, columns = relevance / even, len(titles) // 2
    ax, _ = _tiles(on, why.frames[m], maps, relevance.max() / even, titles, columns, "rollout (1 = even)")
    note = "where information was read; no proof of what mattered"
    ax.text(0, -0.02, note, transform=ax.transAxes, va="top", fontsize=7)
    moving = lift(relevance, why.motion[m])
    on.suptitle(f"{why.times[why.at[m]]:.1f} s: places that move were read {moving:.1f} times the average", fontsize=8)
    return on


def regions(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """The regions of a window's frames, framed; the one that stands out most has a thick frame, and is named above.

    Args:
        why, at, on: as in `attention`.
    """
    on, m = on or plt.figure(figsize=(PAGE, 2.9)), window(why, at)
    w, pictures = why.at[m], why.frames[m]
    titles = [f"frame {number}" for number in CLIP_FRAMES]
    ax, corners = _tiles(on, pictures, None, 1.0, titles, len(titles) // 2, "")
    height, width = (np.array(pictures.shape[1:3]) / why.grid).tolist()  # pixels of a patch
    for number in np.flatnonzero(why.places[:, 0] == w):
        _, picture, row, column = why.places[number].tolist()
        look = dict(edgecolor=TRUTH_COLOUR, linewidth=2.4) if number == why.fired[w] else dict(edgecolor="white")
        corner = (corners[picture][0] + column * width, corners[picture][1] + row * height)
        ax.add_patch(plt.Rectangle(corner, width, height, **{"fill": False, "linewidth": 0.6, **look}))
    on.suptitle(textwrap.fill(f"{why.times[w]:.1f} s, {why.in_words(w)}", LETTERS), fontsize=8)
    return on


def errors(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Error maps of a window's predicted blocks over a frame of each, with the largest in the title; the worst
    cell that moves, which is s_pred, is framed.

    Args:
        why, at, on: as in `attention`.
    """
    on, m = on or plt.figure(figsize=(PAGE, 2.0)), window(why, at)
    if not why.errors.size:
        return _says(on, "no prediction errors: the detector does not predict")
    maps, weights = why.errors[why.at[m]], why.weights[why.at[m]]  # [P, h, w] each
    first = NUM_BLOCKS - len(maps)  # number of the first predicted block
    entered = weights > 0
    titles = [f"block {first + step + 1}: {one.max():.2f}" for step, one in enumerate(maps)]
    pictured = [
        next(t for t, n in enumerate(CLIP_FRAMES) if n // BLOCK_LEN == first + step) for step in range(len(maps))
    ]
    ax, corners = _tiles(on, why.frames[m][pictured], maps, why.errors.max(), titles, len(maps), "1 - cosine")
    height, width = (np.array(why.frames.shape[2:4]) / maps.shape[1:]).tolist()  # pixels of a cell
    for step, row, column in np.argwhere(entered):
        corner = (corners[step][0] + column * width, corners[step][1] + row * height)
        ax.add_patch(plt.Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=0.7))
    worst = f"error {(maps * weights).sum():.2f} in the worst cell that moves" if entered.any() else "nothing moves"
    on.suptitle(f"{why.times[why.at[m]]:.1f} s: {worst}", fontsize=8)
    return on


def texts(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """The captions that fit a window's region best and the prompts' fits, gated (filled) beside ungated (open).

    Args:
        why, at, on: as in `attention`.
    """
    on, w = on or plt.figure(figsize=(PAGE, 2.6)), why.at[window(why, at)]
    if why.fired[w] < 0:
        on.suptitle(f"{why.times[w]:.1f} s: {NOTHING}, so that no sentence is compared", fontsize=8)
        return on
    gated, ungated = why.gated[w].numpy(), why.ungated[w].numpy()
    K = why.captions
    best = [*np.argsort(-gated[:K])[:CAPTIONS], *(K + np.argsort(-why.prompts[w])[:PROMPTS])]
    rows = np.arange(len(best)) + 0.6 * (np.array(best) >= K)  # a gap before the prompts
    ax = on.subplots()
    colours = [METHOD_COLOURS["semantic"] if k < K else METHOD_COLOURS["paper"] for k in best]
    ax.barh(rows - 0.19, gated[best], 0.36, color=colours)
    ax.barh(rows + 0.19, ungated[best], 0.36, facecolor="none", edgecolor=colours, linewidth=0.8)
    shares = ["" if k < K else f" [{why.prompts[w, k - K]:.0%}]" for k in best]
    names = [textwrap.shorten(why.sentences[k], LETTERS, placeholder=" …") + share for k, share in zip(best, shares)]
    ax.set_yticks(rows, names)
    ax.axvline(0, color="0.4", linewidth=0.6)
    ax.invert_yaxis()
    ax.set(xlabel="similarity with the region; filled: gated by the scene, open: the sentence alone")
    ax.set_title("captions of normal video, then prompts [share of all sentences]", loc="left")
    return on


def gate(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """The score as it is, without the scene's say, and had it happened in other scenes.

    Args:
        why, at, on: as in `contributions`.
    """
    on = on or plt.figure(figsize=(PAGE, 2.4))
    ax = on.subplots()
    ax.plot(why.times, why.score, color="black", linewidth=1.6, label="own scene")
    ax.plot(why.times, at_strength(why, 0), color="0.5", linestyle="--", label="no gate")
    methods = ("full_memory", "paper", "semantic", "predictive", "knn", "knn_predictive")
    colours = [METHOD_COLOURS[name] for name in methods]
    for i, (name, score) in enumerate(why.scenes.items()):
        look = dict(color=colours[i % len(colours)], linestyle=DASHES[i % len(DASHES)], linewidth=0.9)
        ax.plot(why.times, score, label=textwrap.fill(textwrap.shorten(name, 60, placeholder=" …"), 30), **look)
    ax.set_title(f"{why.video}: the same windows, seen in other scenes", loc="left")
    finish_curves(ax, "score (deviations)", at)
    return on


def overview(why: Why, at: float | None = None, on: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """All of one window: its regions, where its future was not foreseen, which sentences fit, what adds up.

    Args:
        why, at, on: as in `attention`.
    """
    on = on or plt.figure(figsize=(PAGE, 5.9))
    top, middle, bottom = on.subfigures(3, 1, height_ratios=[1.9, 2.3, 1.7])
    left, right = top.subfigures(1, 2, width_ratios=[1.25, 1.0])
    for panel, draw in ((left, regions), (right, errors), (middle, texts), (bottom, contributions)):
        draw(why, at, panel)
    return on


def _says(on: Figure | SubFigure, line: str) -> Figure | SubFigure:
    """A panel without a picture."""
    on.suptitle(line, fontsize=8)
    return on


def _tiles(
    on: Figure | SubFigure,
    frames: np.ndarray,
    maps: np.ndarray | None,
    top: float,
    titles: list[str],
    columns: int,
    label: str,
) -> tuple[plt.Axes, list[tuple[int, int]]]:
    """Frames [n, H, W, 3], in grey under their maps [n, h, w] where there are any, colours 0 to `top`: one picture,
    faster than n; and the frames' corners."""
    ax, (height, width) = on.subplots(), frames.shape[1:3]
    corners = [(i % columns * (width + GAP), i // columns * (height + 4 * GAP)) for i in range(len(frames))]
    picture = np.ones((corners[-1][1] + height, corners[columns - 1][0] + width, 3))
    colours = ScalarMappable(Normalize(0, top), "magma")
    for i, (frame, title, (left, up)) in enumerate(zip(frames, titles, corners)):
        mixed = frame / 255
        if maps is not None:
            cell = np.ones((-(-height // maps.shape[1]), -(-width // maps.shape[2])))  # pixels of a cell
            level = np.kron(maps[i], cell)[:height, :width]
            strength = (0.15 + 0.6 * level / top)[..., None]
            mixed = strength * colours.to_rgba(level)[..., :3] + (1 - strength) * mixed.mean(-1, keepdims=True)
        picture[up : up + height, left : left + width] = mixed
        ax.text(left, up - 2, title, va="bottom", fontsize=7)
    ax.imshow(picture.clip(0, 1), extent=(0, picture.shape[1], picture.shape[0], 0))
    ax.set_ylim(picture.shape[0], -4 * GAP)
    ax.set_axis_off()
    if maps is not None:
        on.colorbar(colours, ax=ax, shrink=0.85, pad=0.01, ticks=MaxNLocator(3)).set_label(label, fontsize=7)
    return ax, corners
