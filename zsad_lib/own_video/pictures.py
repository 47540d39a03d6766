"""What a score looks like on its own video, as files: events, the curve, the peaks, and the film."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from zsad_lib.errors import one_line
from zsad_lib.evaluate.events import Runs, alarms, runs
from zsad_lib.files import paths
from zsad_lib.files.video import read_video, timed_frames
from zsad_lib.own_video.detector import RATE
from zsad_lib.own_video.events import events, threshold_of
from zsad_lib.own_video.ticks import stretch_starts
from zsad_lib.results import style
from zsad_lib.results.film import ALARM, OWN_THRESHOLD, TRUTH, extremes, hexed, write_film

PEAKS = 12  # pictures of the contact sheet, at most
TITLE = 80  # letters of a title
LONG = 3600.0  # seconds of a film from which on it is told that it takes long
PIECES = 1500  # of the drawn curve: more would not be seen, and a night has a million frames


def threshold_kind(table: pd.DataFrame) -> str:
    """What the threshold of a table of `score_video` is, in words."""
    if table.attrs["threshold"] is None:
        return OWN_THRESHOLD
    return f"threshold of {in_title(Path(table.attrs['run']).name)}, from the normal videos that it was calibrated with"


def in_title(name: str) -> str:
    """A file's name for a picture's title: the middle of a long one is left out, and what the font cannot draw is a
    box.

    >>> in_title("camera 監視.mp4")
    'camera □□.mp4'
    """
    if len(name) > TITLE:
        name = f"{name[: TITLE // 2]}…{name[-TITLE // 2 :]}"
    drawable = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(letter if ord(letter) in drawable else "□" for letter in name)


def curve(table: pd.DataFrame, threshold: float, title: str) -> Figure:
    """Score over time with the threshold and the alarms; a column `truth`, where there is one, is shaded below."""
    style.style()
    figure, axes = plt.subplots(figsize=(style.PAGE, 2.5), layout="constrained")
    score, seconds, alarm = table["score"].to_numpy(), table["time_s"].to_numpy(), alarms(table, threshold)
    kept = extremes(score, PIECES)
    scored = np.where(table["warmup"], np.nan, score)  # before the first window has ended there is nothing to draw
    starts = stretch_starts(seconds)
    pauses = np.searchsorted(kept, starts[1:])  # no line is drawn over them
    line = (np.insert(values[kept], pauses, np.nan) for values in (seconds, scored))
    axes.plot(*line, color=style.METHOD_COLOURS["full_memory"], linewidth=0.9, label="score")
    if np.isfinite(threshold):
        axes.axhline(threshold, color=hexed(ALARM), linewidth=0.8, linestyle="--", label="threshold")
    low, high = axes.get_ylim()
    spans = _spans(runs(alarm, starts), seconds)
    axes.broken_barh(spans, (low, high - low), color=hexed(ALARM), alpha=0.15, linewidth=0.5, label="alarm")
    if "truth" in table:
        for number, (first, length) in enumerate(_spans(runs(table["truth"].to_numpy(bool), np.array([0])), seconds)):
            label = None if number else "labelled abnormal"
            axes.axvspan(first, first + length, 0, 0.06, color=hexed(TRUTH), linewidth=0, label=label)
    axes.set(xlabel="time (s)", ylabel="anomaly score\n(deviations from normal)", title=title)
    axes.set(xlim=(0, max(seconds.max(), 1e-3)), ylim=(low, high))
    axes.title.set_parse_math(False)  # names may hold $
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _spans(found: Runs, seconds: np.ndarray) -> list[tuple[float, float]]:
    """Begin and length of runs of frames, seconds; where there are many, those that no eye could tell apart as one."""
    begins, ends = seconds[found.begin], seconds[found.end - 1]
    if len(begins) > PIECES:
        apart = begins[1:] - ends[:-1] > seconds[-1] / PIECES
        begins, ends = begins[np.append(True, apart)], ends[np.append(apart, True)]
    return list(zip(begins, ends - begins))


def contact_sheet(path: str | Path, listed: pd.DataFrame, title: str, decoded: int | None = None) -> Figure | None:
    """The peak frames of the `PEAKS` highest events in the order of time; None where there is no event.

    Args:
        path: the video.
        listed: of `events`.
        title: above all pictures.
        decoded: frames that were scored, of a video that may be damaged; see `read_video`.
    """
    if listed.empty:
        return None
    style.style()
    highest = listed.nlargest(PEAKS, "peak_score").sort_values("peak_frame")
    _, first = next(timed_frames(path))
    pictures = read_video(path, indices=list(highest["peak_frame"]), size=first.shape[:2], decoded=decoded)
    columns = min(4, len(highest))
    rows = -(-len(highest) // columns)
    size = (style.PAGE, 1.5 * rows + 0.3)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, row in zip(grid.flat, pictures, highest.itertuples()):
        axes.imshow(picture)
        axes.set_title(f"event {row.event}, {row.peak_s:.1f} s: {row.peak_score:.1f}")
    figure.suptitle(title).set_parse_math(False)
    return figure


def write_all(
    path: str | Path,
    table: pd.DataFrame,
    folder: Path,
    play: bool = True,
    progress: bool = False,
    rows: Callable[[], Iterable[pd.DataFrame]] | None = None,
) -> dict[str, Path]:
    """Everything that shows a score, into `folder`: events.csv, curve.png and .pdf, peaks.png and .pdf, overlay.mp4.

    Args:
        path: the video.
        table: of `score_video`; a column `truth`, where there is one, marks labelled frames.
        folder: receives the files.
        play: False: without the film, which takes longest.
        progress: tell on standard error how far the film is, and beforehand of one that takes long.
        rows: gives the whole rows in blocks, where the table holds a few columns only, see `FrameScores`.

    Returns:
        Name -> file; "peaks" is missing where no frame stands out.
    """
    for old in ("peaks.png", "peaks.pdf", "overlay.mp4"):  # of an earlier call; not each call makes them
        (folder / old).unlink(missing_ok=True)
    threshold, kind, name = threshold_of(table), threshold_kind(table), in_title(Path(path).resolve().name)
    listed = events(table, threshold, rows)
    files = {"events": paths.write_table(folder / "events.csv", listed)}
    files["curve"], _ = style.save(curve(table, threshold, f"{name}\n{kind}"), folder / "curve")
    of_how_many = f"the {PEAKS} highest of {len(listed):,} events" if len(listed) > PEAKS else "highest events"
    if (sheet := contact_sheet(path, listed, f"{name}: {of_how_many}", len(table))) is not None:
        files["peaks"], _ = style.save(sheet, folder / "peaks")
    if play:
        seconds = table["time_s"].to_numpy()
        apart = np.delete(np.diff(seconds), stretch_starts(seconds)[1:] - 1)  # without the pauses
        fps = 1 / apart.mean() if len(apart) and apart.mean() > 0 else RATE
        files["overlay"] = folder / "overlay.mp4"
        if progress and seconds[-1] > LONG:
            line = f"{path}: a film of {seconds[-1] / 3600:.1f} hours, which takes longest; all else is written"
            print(one_line(f"{line}, and Ctrl-C leaves the film out"), file=sys.stderr, flush=True)
        write_film(path, table, threshold, kind, files["overlay"], fps, progress, rows)
    return files
