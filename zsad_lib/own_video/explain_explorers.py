"""Explorers of an explanation (`explain`) and of a run's alarms: what they turn is computed before, so that a step only
draws."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure, SubFigure
from sklearn.metrics import confusion_matrix

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.events import is_alarm
from zsad_lib.evaluate.inputs import collect, frame_rates
from zsad_lib.evaluate.protocol import alarm_rates
from zsad_lib.own_video import explain_figures
from zsad_lib.own_video.explain import Why, at_strength, fit_sentence
from zsad_lib.results.explorer import Text, explore
from zsad_lib.results.style import METHOD_COLOURS, PAGE

STRENGTHS = 11  # positions of the gate's slider
QUANTILES = np.linspace(0.01, 0.99, 50)  # of the scores: positions of the threshold's slider


def scrub(why: Why) -> Figure | None:
    """Slider over the windows looked at: the regions, where the future was not foreseen, which sentences fit, what
    adds up."""
    seconds = why.times[why.at].round(2).tolist()
    return explore(
        lambda on, second: explain_figures.overview(why, second, on), (PAGE, 5.9), panels=True, second=seconds
    )


def threshold(
    scores: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    fps: float | Mapping[str, float],
    fixed: float | None = None,
) -> Figure | None:
    """Slider over the alarm threshold: confusion of frames, false alarms per hour and delay.

    Args:
        scores: video -> [n] frame scores.
        labels: video -> [n] of 0 (normal) and 1 (abnormal).
        fps: frames per second.
        fixed: threshold that normal video gave beforehand: a position of the slider, and a dotted line.

    Raises:
        ZsadError: as `zsad_lib.evaluate.inputs.collect`; or the labels hold one class only.
    """
    frames = collect(scores, labels)
    if frames.labels.all() or not frames.labels.any():
        raise ZsadError("threshold: the labels hold one class only; give normal and abnormal frames")
    score, seconds = frames.scores[0], 1 / frame_rates(fps, frames.names)
    levels = np.unique(np.append(np.quantile(score, QUANTILES), [] if fixed is None else fixed))
    false, delay, recall = alarm_rates(frames, score, levels, np.ones((len(levels), len(seconds))), seconds)

    def draw(on: Figure | SubFigure, threshold: float) -> None:
        left, right = on.subplots(1, 2, width_ratios=[1, 1.6])
        i = int(np.abs(levels - threshold).argmin())
        counts = confusion_matrix(frames.labels, is_alarm(score, levels[i]), labels=[False, True])
        shares = counts / counts.sum(1, keepdims=True)
        cells = [[f"{n:,}\n{share:.1%}" for n, share in zip(*row)] for row in zip(counts, shares)]
        sns.heatmap(shares, vmin=0, vmax=1, cmap="cividis", annot=cells, fmt="", annot_kws={"size": 7}, cbar=False,
                    ax=left,
                    xticklabels=["silent", "alarm"], yticklabels=["normal", "abnormal"])  # fmt: skip
        left.set(title="frames", ylabel="truth")
        left.tick_params(length=0)
        right.plot(levels, false, color=METHOD_COLOURS["paper"], label="false alarms per hour")
        right.set(xlabel="threshold (score)", yscale="symlog", ylim=(0, None))
        right.set_ylabel("false alarms per hour", color=METHOD_COLOURS["paper"])
        other = right.twinx()
        other.plot(levels, delay, color=METHOD_COLOURS["full_memory"], linestyle="--")
        other.set_ylabel("mean delay (s)", color=METHOD_COLOURS["full_memory"])
        other.spines["right"].set_visible(True)
        right.axvline(levels[i], color="0.3", linewidth=0.8)
        if fixed is not None:
            right.axvline(fixed, color="0.3", linewidth=0.8, linestyle=":")
        late = f"mean delay {delay[i]:.1f} s" if np.isfinite(delay[i]) else "no event detected"
        title = f"threshold {levels[i]:.2f}: {false[i]:.0f} false alarms per hour, {recall[i]:.0%} of events, {late}"
        on.suptitle(title, fontsize=8)

    return explore(draw, (PAGE, 2.4), panels=True, threshold=levels.tolist())


def prompt(why: Why, examples: Sequence[str]) -> Figure | None:
    """Box to type a sentence in: how well it fits every window, against the best caption of normal video.

    Args:
        why: of `zsad_lib.own_video.explain.explain`.
        examples: sentences to start with; print shows them.
    """
    best = why.gated[:, : why.captions].amax(1).numpy()

    def draw(on: Figure | SubFigure, prompt: str) -> None:
        values, unknown = fit_sentence(why, prompt)
        lines, better = {"best caption": (best, "semantic"), "this sentence": (values, "paper")}, values > best
        ax = _curves(on, why, lines, "gated similarity")
        shade = dict(color=METHOD_COLOURS["paper"], alpha=0.3, linewidth=0)
        ax.fill_between(why.times, best, values, where=better, **shade)
        never = f" (never learned: {', '.join(unknown)})" if unknown else ""
        ax.set_title(f'"{prompt}"{never}: better than every caption in {better.mean():.0%} of the windows', loc="left")

    return explore(draw, (PAGE, 1.7), panels=True, prompt=Text(examples))


def gate(why: Why) -> Figure | None:
    """Slider from no context (0) to the detector's (1): t' = t + g * (gate(t, c) - t), and the score's curve."""

    def draw(on: Figure | SubFigure, gate: float) -> None:
        score = at_strength(why, gate)
        lines = {"as scored": (why.score, "motion_floor"), "at this strength": (score, "full_memory")}
        spread = f"the score's spread is {score.std():.2f} deviations, as scored {why.score.std():.2f}"
        _curves(on, why, lines, "score (deviations)").set_title(f"gate at {gate:.1f}: {spread}", loc="left")

    return explore(draw, (PAGE, 1.7), panels=True, gate=np.linspace(0, 1, STRENGTHS).round(3).tolist())


def _curves(on: Figure | SubFigure, why: Why, lines: Mapping[str, tuple[np.ndarray, str]], unit: str) -> plt.Axes:
    """Curves over the windows' times: label -> values [W] and the method whose colour they take."""
    ax = on.subplots()
    for label, (values, method) in lines.items():
        ax.plot(why.times, values, color=METHOD_COLOURS[method], label=label)
    return explain_figures.finish_curves(ax, unit)
