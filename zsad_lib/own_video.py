"""Score any video file with a trained detector: one row per decoded frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib import paths
from zsad_lib.backbones import STAND_IN_SIZE, stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.features import Extractor, VideoFeatures, chunks, to_frames
from zsad_lib.score import METHODS, load_scorer
from zsad_lib.video import frame_times, iter_frames, list_frames
from zsad_lib.weights import SHIPPED

RATE = 10.0  # frames per second that the stand-ins have seen; faster video is thinned out
TERMS = METHODS["full_memory"][1]  # what the score of one's own video adds up


def scorer_file(run: str | None) -> Path:
    """Detector of a run (its name or folder; its first seed), or the one shipped with the package.

    Raises:
        ZsadError: the run has no trained detector.
    """
    if run is None:
        return SHIPPED / "detector.safetensors"
    folder = Path(run) if Path(run).is_dir() else paths.runs() / run
    found = sorted((folder / "score" / "full").glob("*/scorer.safetensors"))
    if not found:
        raise ZsadError(f"{folder}: no trained detector here; run `make reproduce` for it first, or leave the run away")
    return found[0]


def score_video(path: str | Path, run: str | None = None, *, causal: bool = False) -> pd.DataFrame:
    """Anomaly scores of one video.

    Args:
        path: any file that a decoder reads, or a folder of frames.
        run: name of a run with a trained detector; None takes the small one shipped with the package, which has seen rendered
            footage only.
        causal: a frame may only use windows that have ended by then; otherwise the mean over the windows that cover it.

    Returns:
        One row per DECODED frame: `frame`, `time_s`, `score` (sum of the standardised terms; 0 = mean of normal video, in
        deviations), the raw terms `s_sem`, `s_pred`, `s_mem`, `warmup` (causal: True before the first ended window, where the score is
        the calibrated normal mean) and `caption` (the normal caption that fits best).

    Raises:
        ZsadError: unreadable video, or a run without a detector.
    """
    scorer, _ = load_scorer(scorer_file(run))
    extractor = Extractor(stand_ins())
    # a folder of frames holds no time: it counts as recorded at the stand-ins' rate
    times = np.arange(len(list_frames(path))) / RATE if Path(path).is_dir() else frame_times(path)
    step = max(1, round(1 / (RATE * np.median(np.diff(times))))) if len(times) > 1 and np.isfinite(times).all() else 1

    def thinned() -> Iterator[np.ndarray]:
        for number, frame in enumerate(iter_frames(path, size=STAND_IN_SIZE)):
            if number % step == 0:
                yield frame

    parts = [extractor.windows(torch.from_numpy(piece)) for piece, _ in chunks(thinned())]
    empty = torch.empty(0)
    terms = list(scorer.terms(VideoFeatures(*part, motion=empty, n_frames=0) for part in parts))
    joined = {name: np.concatenate([values[name] for values in terms]) for name in (*TERMS, "caption")}
    used = -(-len(times) // step)  # frames that were scored
    back = np.arange(len(times)) // step  # each decoded frame takes the score of the last one used
    table = pd.DataFrame({"frame": np.arange(len(times)), "time_s": times})
    columns = {"score": scorer.fuse(joined, TERMS), **{name: joined[name] for name in TERMS}}
    normal = {"score": 0.0, **{name: scorer.statistics[name][0] for name in TERMS}}
    for name, windows in columns.items():
        table[name] = to_frames(windows, used, causal, normal[name])[back]
    table["warmup"] = np.isnan(to_frames(np.zeros(len(joined["caption"])), used, causal, np.nan))[back]
    latest = np.clip((back - (29 if causal else 15)) // 5, 0, len(joined["caption"]) - 1)
    table["caption"] = np.array(scorer.captions, dtype=object)[joined["caption"].astype(int)[latest]]
    return table
