"""What a score looks like on its own video: events, the curve, the peaks, and the video with its curve under it.

An alarm needs a threshold from NORMAL video of the same camera. Without one the threshold here is the video's own: its median plus
`DEVIATIONS` robust deviations. It marks what stands out in this video, normal or not, and every output says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zsad_lib import figures, paths
from zsad_lib.events import runs
from zsad_lib.video import iter_frames, read_video, resize, write_video

DEVIATIONS = 4.0  # of the own-video threshold, in robust deviations above the median
GAP_S = 1.0  # alarms that are closer than this are one event
PEAKS = 12  # pictures of the contact sheet, at most
STRIP = 0.22  # height of the curve under the video, as a share of the picture's width
BORDER = 6  # pixels of the frame that shows an alarm
ALARM, CALM = (213, 94, 0), (90, 90, 90)  # colours of the border
CALIBRATED = "threshold from normal video of this camera"
OWN_THRESHOLD = "threshold of this video alone: it marks what stands out here, it is no calibrated alarm"


def own_threshold(score: np.ndarray) -> float:
    """Median + `DEVIATIONS` robust deviations (1.4826 times the median distance from it) of the frame scores [T].

    >>> round(own_threshold(np.array([0.0, 1.0, 2.0, 3.0, 4.0])), 2)
    7.93
    """
    middle = np.median(score)
    return float(middle + DEVIATIONS * 1.4826 * np.median(np.abs(score - middle)))


def events(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Runs of alarm frames, those less than `GAP_S` seconds apart joined.

    Args:
        table: of `score_video`.
        threshold: an alarm is a score above it.

    Returns:
        One row per event: `event`, `start_s`, `end_s`, `first_frame`, `last_frame` (inclusive), `peak_frame`, `peak_s`,
        `peak_score` and `nearest_normal_caption` (of the peak).
    """
    alarm, seconds = table["score"].to_numpy() > threshold, table["time_s"].to_numpy()
    found = runs(alarm, np.array([0]))
    joined: list[list[int]] = []
    for begin, end in zip(found.begin, found.end):
        if joined and seconds[begin] - seconds[joined[-1][1] - 1] < GAP_S:
            joined[-1][1] = int(end)
        else:
            joined.append([int(begin), int(end)])
    rows = []
    for number, (begin, end) in enumerate(joined, start=1):
        peak = begin + int(table["score"].iloc[begin:end].argmax())
        rows.append(
            (number, seconds[begin], seconds[end - 1], begin, end - 1, peak, seconds[peak], table["score"].iloc[peak])
            + (table["caption"].iloc[peak],)
        )
    names = ["event", "start_s", "end_s", "first_frame", "last_frame", "peak_frame", "peak_s", "peak_score"]
    return pd.DataFrame(rows, columns=[*names, "nearest_normal_caption"])


def curve(table: pd.DataFrame, threshold: float, title: str) -> Figure:
    """Score over time with the threshold and the alarms."""
    figures.style()
    figure, axes = plt.subplots(figsize=(figures.PAGE, 2.2), layout="constrained")
    seconds, score = table["time_s"], table["score"]
    axes.plot(seconds, score, color=figures.METHOD_COLOURS["full_memory"], linewidth=0.9, label="score")
    axes.axhline(threshold, color="#d55e00", linewidth=0.8, linestyle="--", label="threshold")
    axes.fill_between(seconds, *axes.get_ylim(), where=score > threshold, color="#d55e00", alpha=0.15, linewidth=0)
    axes.set(
        xlabel="time (s)",
        ylabel="anomaly score\n(deviations from normal)",
        title=title,
        xlim=(0, max(seconds.max(), 1e-3)),
    )
    axes.legend(loc="upper right", frameon=False, ncols=2)
    return figure


def contact_sheet(path: str | Path, found: pd.DataFrame, title: str) -> Figure | None:
    """The peak frames of the `PEAKS` highest events in the order of time; None where there is no event."""
    if found.empty:
        return None
    figures.style()
    shown = found.nlargest(PEAKS, "peak_score").sort_values("peak_frame")
    pictures = read_video(path, indices=list(shown["peak_frame"]), size=None)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(figures.PAGE, 1.5 * rows + 0.3), layout="constrained", squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, row in zip(grid.flat, pictures, shown.itertuples()):
        axes.imshow(picture)
        axes.set_title(f"event {row.event}, {row.peak_s:.1f} s: {row.peak_score:.1f}")
    figure.suptitle(title)
    return figure


def overlay(path: str | Path, table: pd.DataFrame, threshold: float, target: Path, fps: float) -> int:
    """The video with a border that shows alarm, and the score curve under it with a cursor that moves.

    One frame is in memory at a time.

    Args:
        path: the video.
        table: of `score_video`, one row per decoded frame.
        threshold: of the alarm.
        target: ``.mp4`` to write.
        fps: frames per second to play at.

    Returns:
        Frames written: as many as were decoded.
    """

    def frames() -> Iterator[np.ndarray]:
        strip, places = None, None
        alarm = (table["score"] > threshold).to_numpy()
        for number, frame in enumerate(iter_frames(path)):
            if strip is None:
                size, (strip, places) = frame.shape, _strip(table, threshold, frame.shape[1])
            shown, under = resize(frame, size[:2]).copy(), strip.copy()  # some recorders change size in the middle
            _border(shown, ALARM if alarm[number] else CALM, BORDER if alarm[number] else 1)
            under[:, max(0, places[number] - 1) : places[number] + 1] = ALARM
            yield np.concatenate([shown, under])

    return write_video(target, frames(), fps, crf=23)


def _border(picture: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    for edge in (picture[:width], picture[-width:], picture[:, :width], picture[:, -width:]):
        edge[:] = colour


def _strip(table: pd.DataFrame, threshold: float, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The curve as a picture uint8 [h, width, 3], and each frame's column in it [T]."""
    height = max(40, round(STRIP * width)) // 2 * 2
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="none")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    count = len(table)
    axes.set_xlim(0, max(1, count - 1))
    axes.plot(np.arange(count), table["score"], color="#0173b2", linewidth=1)
    axes.axhline(threshold, color="#d55e00", linewidth=0.8, linestyle="--")
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    return picture, np.linspace(0, width - 1, count).round().astype(int)


def write_all(path: str | Path, table: pd.DataFrame, folder: Path, play: bool = True) -> dict[str, Path]:
    """Everything that shows a score, into `folder`: events.csv, curve.png and .pdf, peaks.png, overlay.mp4.

    Args:
        path: the video.
        table: of `score_video`.
        folder: receives the files.
        play: False: without the overlay, which takes longest.

    Returns:
        Name -> file; "peaks" is missing where no frame stands out.
    """
    calibrated = table.attrs.get("threshold")
    threshold = own_threshold(table["score"].to_numpy()) if calibrated is None else calibrated
    found, name = events(table, threshold), Path(path).name
    kind = OWN_THRESHOLD if calibrated is None else CALIBRATED
    made = {"events": folder / "events.csv"}
    with paths.atomic(made["events"]) as handle:
        found.to_csv(handle, index=False, float_format="%.6g", lineterminator="\n")
    made["curve"], _ = figures.save(curve(table, threshold, f"{name}: {kind}"), folder / "curve")
    if (sheet := contact_sheet(path, found, f"{name}: highest events")) is not None:
        made["peaks"], _ = figures.save(sheet, folder / "peaks")
    if play:
        seconds = table["time_s"].to_numpy()
        fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 and seconds[-1] > 0 else 10.0
        made["overlay"] = folder / "overlay.mp4"
        overlay(path, table, threshold, made["overlay"], fps)
    return made
