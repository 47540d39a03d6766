"""Score any video file with a trained detector: one row per decoded frame, in memory that does not grow with its length."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from data_prep.scene_rules.prompts import prompts
from data_prep.scene_rules.world import SEMANTIC
from zsad_lib import paths
from zsad_lib.backbones import STAND_IN_SIZE, stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.features import BLOCK_LEN, WINDOW, Extractor, VideoFeatures, chunks, to_frames
from zsad_lib.models.text import encode_captions
from zsad_lib.score import METHODS, Scorer, load_scorer
from zsad_lib.video import declared_seconds, resize, timed_frames
from zsad_lib.weights import SHIPPED

RATE = 10.0  # frames per second that the stand-ins have seen; faster video is thinned out
TERMS = METHODS["full_memory"][1]  # what the score of one's own video adds up
PROBED = 100  # first frames, whose times tell the rate
PROGRESS_S = 5.0  # seconds between two lines of progress
PROMPTS = tuple(prompts(SEMANTIC))  # what is abnormal anywhere, in words that the stand-ins know


class Words(NamedTuple):
    """What a user says of a video; what is left empty stays as the detector has it."""

    normal: Sequence[str] = ()  # sentences on what is normal there, instead of the training captions
    abnormal: Sequence[str] = PROMPTS  # sentences on what would be abnormal


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


def own_scorer(run: str | None, words: Words | None = None) -> tuple[Scorer, dict]:
    """The scorer of `scorer_file` with a user's words, and its header.

    Raises:
        ZsadError: the run has none, or one that was trained on published streams, which score whole data sets alone.
    """
    scorer, meta = load_scorer(scorer_file(run))
    if meta.get("backbones") == "official":
        raise ZsadError(
            f"{run}: trained on the published backbones, which `make reproduce` scores its data set with; single videos take a "
            "run on the stand-ins, or none"
        )
    b, words = stand_ins(), words or Words()
    if words.normal:
        scorer.captions, scorer.bank = list(words.normal), encode_captions(b.clip, words.normal, b.vocabulary)
    scorer.prompts, scorer.prompt_bank = list(words.abnormal), encode_captions(b.clip, words.abnormal, b.vocabulary)
    return scorer, meta


def thinning(path: str | Path) -> int:
    """Every how many-th frame is seen, so that their rate comes nearest to `RATE`; 1 where frames hold no time."""
    times = [seconds for seconds, _ in itertools.islice(timed_frames(path, sys.maxsize), PROBED)]
    apart = np.median(np.diff(times)) if len(times) > 1 else np.nan
    return max(1, round(1 / (RATE * apart))) if apart > 0 else 1


def window_features(
    path: str | Path, tool: Extractor, step: int, seconds: list[float], progress: bool = False
) -> Iterator[VideoFeatures]:
    """Features of a video's windows, one piece of it after the other; without the motion of frames.

    Args:
        path: video.
        tool: the streams.
        step: every step-th frame is seen.
        seconds: receives the time of every decoded frame.
        progress: tell on standard error how far it is.
    """
    began = told = time.monotonic()
    whole = declared_seconds(path) if progress else 0.0

    def seen() -> Iterator[np.ndarray]:
        nonlocal told
        for now, frame in timed_frames(path, step):
            seconds.append(now)
            if frame is not None:
                yield resize(frame, STAND_IN_SIZE)
            if progress and time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                left = f", about {(told - began) * (whole / now - 1):.0f} s left" if 0 < now < whole else ""
                print(f"  {len(seconds):,} frames scored{left}", file=sys.stderr, flush=True)

    for piece, _ in chunks(seen()):
        yield VideoFeatures(*tool.windows(torch.from_numpy(piece)), motion=torch.empty(0), n_frames=0)


def score_video(
    path: str | Path, run: str | None = None, *, causal: bool = False, progress: bool = False
) -> pd.DataFrame:
    """Anomaly scores of one video.

    Args:
        path: any file that a decoder reads, or a folder of frames.
        run: name of a run with a trained or calibrated detector; None takes the small one shipped with the package, which has seen
            rendered footage only.
        causal: a frame may only use windows that have ended by then; otherwise the mean over the windows that cover it.
        progress: tell on standard error how far it is.

    Returns:
        One row per DECODED frame: `frame`, `time_s`, `score` (sum of the standardised terms; 0 = mean of normal video, in
        deviations), the raw terms `s_sem`, `s_pred`, `s_mem`, `warmup` (causal: True before the first ended window, where the score is
        the calibrated normal mean) and `caption` (the normal caption that fits best). ``attrs["threshold"]`` is the alarm threshold of a
        calibrated detector, or None.

    Raises:
        ZsadError: unreadable video, or a run without a detector.
    """
    scorer, meta = own_scorer(run)
    step, seconds = thinning(path), []
    terms = list(scorer.terms(window_features(path, Extractor(stand_ins()), step, seconds, progress)))
    joined = {name: np.concatenate([values[name] for values in terms]) for name in (*TERMS, "caption")}
    times = np.array(seconds)
    if not np.isfinite(times).all():
        times = np.arange(len(times)) / RATE  # a folder of frames counts as recorded at the stand-ins' rate
    used = -(-len(times) // step)  # frames that were seen
    back = np.arange(len(times)) // step  # each decoded frame takes the score of the last one seen
    table = pd.DataFrame({"frame": np.arange(len(times)), "time_s": times})
    columns = {"score": scorer.fuse(joined, TERMS), **{name: joined[name] for name in TERMS}}
    normal = {"score": 0.0, **{name: scorer.statistics[name][0] for name in TERMS}}
    for name, windows in columns.items():
        table[name] = to_frames(windows, used, causal, normal[name])[back]
    table["warmup"] = np.isnan(to_frames(np.zeros(len(joined["caption"])), used, causal, np.nan))[back]
    latest = np.clip((back - (WINDOW - 1 if causal else WINDOW // 2)) // BLOCK_LEN, 0, len(joined["caption"]) - 1)
    table["caption"] = pd.Categorical.from_codes(joined["caption"].astype(int)[latest], scorer.captions)
    table.attrs["threshold"] = meta.get("threshold")
    return table
