"""Events of a scored video: which frames stand out, what they may be, and the labels they can be compared with.

An alarm needs a threshold from NORMAL video of the same camera. Without one the threshold here is the video's own: its
median plus `DEVIATIONS` robust deviations. It marks what stands out in this video, normal or not, and every output says
so.

Notebook: 50_score_your_video
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.events import alarms, own_threshold, runs
from zsad_lib.files.annotations import read_temporal, stem
from zsad_lib.files.manifest import frame_labels
from zsad_lib.files.score_files import SUFFIXES, prompt_columns, read_frames
from zsad_lib.files.spans import read_spans
from zsad_lib.own_video.ticks import stretch_starts

GAP_S = 1.0  # alarms that are closer than this are one event
NAMED = 0.5  # probability of all abnormal prompts together from which on they describe a frame, not the captions


def threshold_of(table: pd.DataFrame) -> float:
    """The calibrated threshold of a table of `score_video`, or else the video's own, from its frames after the
    warm-up."""
    if (calibrated := table.attrs["threshold"]) is not None:
        return calibrated
    scored = table["score"][~table["warmup"]]
    return own_threshold(scored.to_numpy()) if len(scored) else float("inf")


def family_guess(frame: pd.Series, statistics: dict[str, tuple[float, float]]) -> str:
    """What kind of anomaly a frame may show, by a rule that was fixed before it was tried.

    "temporal" where the prediction error lies further above normal video than the other terms do; else "semantic" where
    the abnormal prompts have at least `NAMED` of the probability; else "contextual": an ordinary act, but none of the
    captions fits it here.

    Args:
        frame: row of `score_video`.
        statistics: mean and standard deviation in normal video of each term that the score adds up.

    >>> normal = {"s_sem": (0.0, 1.0), "s_pred": (0.0, 1.0), "s_mem": (0.0, 1.0)}
    >>> family_guess(pd.Series({"s_sem": 2.0, "s_pred": 1.0, "s_mem": 0.0, "p(a fire burns)": 0.7}), normal)
    'semantic'
    """
    above = {name: (frame[name] - mean) / deviation for name, (mean, deviation) in statistics.items()}
    if max(above, key=above.get) == "s_pred":
        return "temporal"
    return "semantic" if frame[prompt_columns(frame.index)].sum() >= NAMED else "contextual"


def find_events(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Runs of alarm frames, those less than `GAP_S` seconds apart joined; none spans a pause of the recording.

    Args:
        table: of `score_video`; its columns `time_s`, `score` and `warmup` are read.
        threshold: of `alarms`, which holds the rule.

    Returns:
        One row per event: `event`, `start_s`, `end_s`, `first_frame`, `last_frame` (inclusive), `peak_frame`, `peak_s`
        and `peak_score`.
    """
    seconds, score = table["time_s"].to_numpy(), table["score"].to_numpy()
    joined: list[list[int]] = []
    for begin, end, _ in zip(*runs(alarms(table, threshold), stretch_starts(seconds))):  # pauses exceed `GAP_S`
        if joined and seconds[begin] - seconds[joined[-1][1] - 1] < GAP_S:
            joined[-1][1] = int(end)
        else:
            joined.append([int(begin), int(end)])
    rows = []
    for number, (begin, end) in enumerate(joined, start=1):
        peak = begin + int(score[begin:end].argmax())
        rows.append((number, seconds[begin], seconds[end - 1], begin, end - 1, peak, seconds[peak], score[peak]))
    names = ["event", "start_s", "end_s", "first_frame", "last_frame", "peak_frame", "peak_s", "peak_score"]
    return pd.DataFrame(rows, columns=names)


def events(
    table: pd.DataFrame, threshold: float, rows: Callable[[], Iterable[pd.DataFrame]] | None = None
) -> pd.DataFrame:
    """`find_events`, and what each may be.

    Args:
        table: of `score_video`.
        threshold: of `alarms`.
        rows: gives the whole rows in blocks, where the table holds a few columns only, see `FrameScores`.

    Returns:
        Its columns, and of the peak frame `family_guess`, `nearest_normal_caption`, `best_abnormal_prompt` and its
        `prompt_probability`.
    """
    found, told, begin = find_events(table, threshold), [], 0
    for block in rows() if rows else [table]:
        peaks = found["peak_frame"].to_numpy(int) - begin
        for frame in (block.iloc[peak] for peak in peaks[(peaks >= 0) & (peaks < len(block))]):
            told.append((family_guess(frame, table.attrs["statistics"]), *frame[["caption", "prompt", "p_prompt"]]))
        begin += len(block)
    named = ["family_guess", "nearest_normal_caption", "best_abnormal_prompt", "prompt_probability"]
    return pd.concat([found, pd.DataFrame(told, columns=named)], axis=1)


def in_words(table: pd.DataFrame) -> str:
    """How many events a table of `score_video` holds, and where the highest is, as a line."""
    threshold, scored = threshold_of(table), table["score"][~table["warmup"]]
    if scored.empty:
        return "no event: no window has ended, the video is too short for causal scores"
    if len(listed := find_events(table, threshold)):
        top = listed.loc[listed["peak_score"].idxmax()]
        return (
            f"events above {threshold:.2f}: {len(listed)}, the highest ({top['peak_score']:.2f}) at"
            f" {top['peak_s']:.1f} s"
        )
    if round(scored.max() - scored.min(), 2) == 0:
        return "no event: the score is flat, as of a still picture or of a single window"
    return f"no event: no score above {threshold:.2f}"


def read_truth(path: str | Path, video: str | Path) -> Callable[[int], np.ndarray]:
    """Ground truth of one video from a label file, which is read and checked at once, before hours of scoring.

    Args:
        path: of `SUFFIXES`, with a label 0 or 1 per frame (column `label`), as `read_frames` reads it; ``.csv``
            with a span per row (columns `first_frame` and `last_frame`, inclusive, as events.csv has them); or
            UCF-Crime's temporal annotation, which holds a line for the video.
        video: its path.

    Returns:
        Number of frames T -> bool [T], True where abnormal; raises ZsadError where the labels do not fit so many.

    Raises:
        ZsadError: a file that cannot be read, holds nothing on the video, or labels other than 0 and 1.
    """
    path, video = Path(path), Path(video)
    if path.suffix.lower() not in SUFFIXES:
        table = read_temporal(path).set_index("video")
        if stem(video.name) not in table.index:
            raise ZsadError(f"{path}: no line on {stem(video.name)}; the first column names the video")
        return partial(_within_spans, f"{path}: {video.name}", table.loc[stem(video.name), "spans"])
    if path.suffix.lower() == ".csv" and (spans := read_spans(path)) is not None:
        return partial(_within_spans, f"{path}: {video.name}", spans)
    labels = read_frames(path, "label")
    if not np.isin(labels.values, (0, 1)).all():
        raise ZsadError(f"{path}: labels other than 0 and 1; give 0 for normal and 1 for abnormal, a number per frame")
    if labels.first == 1:
        print(f"{path}: frames are counted from 1 there, so that 1 is the first", file=sys.stderr)

    def check_length(n_frames: int) -> np.ndarray:
        if labels.values.shape != (n_frames,):
            shape = f"labels of shape {list(labels.values.shape)} for {n_frames} frames of {video.name}"
            heading = "; is its first line, 0, a heading?" if labels.untitled else ""
            raise ZsadError(f"{path}: {shape}; give a number per frame{heading}")
        return labels.values > 0

    return check_length


def _within_spans(name: str, spans: str, n_frames: int) -> np.ndarray:
    return frame_labels(pd.Series({"video": name, "n_frames": n_frames, "spans": spans})) > 0
