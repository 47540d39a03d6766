"""Scores of windows as scores of frames, a block of rows at a time: what a video of a day is scored with.

At 25 frames per second a day has two million frames. Held are a few numbers of each: its time, its score and whether it
has one; of each tick its terms; of each window what it said. The other columns of a row are made of those whenever the
row is asked for, and no feature outlives its piece of video.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from zsad_lib.features.window_plan import (
    BLOCK_LEN,
    CLIP_FRAMES,
    NUM_BLOCKS,
    last_seen,
    picture_of,
    to_frames,
    window_of,
)
from zsad_lib.files.score_files import prompt_column
from zsad_lib.own_video.detector import OwnDetector
from zsad_lib.own_video.own_scale import scale_by_itself
from zsad_lib.own_video.ticks import Part, Seen

TICKS = 600 * BLOCK_LEN  # whose frames are made at a time: five minutes; whole blocks, since windows start with them


class WindowScores(NamedTuple):
    """What a detector says of the W windows of one video.

    `terms` are those of `Scorer.terms`: each of the detector's, `caption` [W], the number of the best caption, -1 where
    nothing is seen, `region` [W, T, 2], where the oddest one of each picture lies, and `prompts` [W, A], probabilities.
    Of a causal score also `score` [W], that of the frame at which a window has ended.
    """

    own: OwnDetector
    terms: dict[str, np.ndarray]


class FrameScores(NamedTuple):
    """Scores of the T frames of one video, of any length."""

    table: pd.DataFrame  # `time_s`, `score` and `warmup` of every frame, and the ``attrs`` of `score_video`
    rows: Callable[[], Iterator[pd.DataFrame]]  # gives all columns, block by block; their index is the frame's number


def join_terms(own: OwnDetector, found: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Terms of the windows of all pieces of a video, float64; of none, empty ones of the same shapes.

    Args:
        own: the detector.
        found: terms of each piece; from a generator no piece outlives its turn.
    """
    shapes = dict.fromkeys(own.terms, (0,)) | {"s_sem": (0, len(CLIP_FRAMES)), "score": (0,), "caption": (0,)}
    shapes |= {"prompts": (0, len(own.scorer.prompts)), "region": (0, len(CLIP_FRAMES), 2)}
    shapes |= {name: (0, width) for name, width in (("s_mem", len(CLIP_FRAMES)), ("s_pred", 2)) if name in shapes}
    joined: dict[str, array] = {}
    for piece in found:
        if not joined:
            shapes = {name: values.shape for name, values in piece.items()}
            joined = {name: array("d") for name in shapes}
        for name, numbers in joined.items():
            numbers.frombytes(np.asarray(piece[name], np.float64).tobytes())
    whole = {name: np.frombuffer(joined[name]) if joined else np.empty(0) for name in shapes}
    return {name: values.reshape(-1, *shapes[name][1:]) for name, values in whole.items()}


def score_frames(windows: WindowScores, seen: Seen, causal: bool = False) -> FrameScores:
    """Scores of windows as scores of frames; `score_video` describes the rows.

    Args:
        windows: of `score_windows`.
        seen: of `seen_frames`.
        causal: as the windows were scored.
    """
    own, terms = windows
    parts, names = list(seen.parts(causal)), own.terms
    if not causal:
        scale_by_itself(own, terms, parts)
    ticks = pd.concat([_at_ticks(windows, names, part, causal) for part in parts], ignore_index=True)
    last = (last_seen(part.n_frames, part.at) + part.ticks.start for part in parts)
    last = np.concatenate(list(last), dtype=np.int32)  # [T] the tick that speaks for each frame
    warmup, times = ticks["window"].to_numpy()[last] < 0, np.array(seen.times)
    table = pd.DataFrame({"time_s": times, "score": ticks["score"].to_numpy()[last], "warmup": warmup})
    del last

    def rows() -> Iterator[pd.DataFrame]:
        for part in parts:
            for begin in range(0, len(part.at), TICKS):
                block = _rows(windows, ticks, part, begin, causal)
                block.insert(0, "time_s", times[block.index])
                block.insert(0, "frame", block.index)
                block.attrs.update(table.attrs)
                yield block

    return FrameScores(table, rows)


def _at_ticks(windows: WindowScores, names: tuple[str, ...], part: Part, causal: bool) -> pd.DataFrame:
    """Score, terms and the `window` that speaks, counted in its stretch, -1 for none, at the ticks of a stretch."""
    own, terms = windows
    scorer, count = own.scorer, part.windows.stop - part.windows.start
    framed = scorer.frames({name: terms[name][part.windows] for name in names}, len(part.at), causal=causal)
    window = window_of(len(part.at), count, causal=causal)
    usual = scorer.causal_statistics if causal else scorer.statistics
    score = np.append(terms["score"][part.windows], 0.0)[window] if causal else scorer.fuse(framed, names)
    filled = {name: np.nan_to_num(framed[name], nan=usual.get(name, (0.0,))[0]) for name in names}
    return pd.DataFrame({"score": score, **filled, "window": window.astype(np.int32)})


def _rows(windows: WindowScores, ticks: pd.DataFrame, part: Part, begin: int, causal: bool) -> pd.DataFrame:
    """The rows of the frames that up to `TICKS` ticks of a stretch speak for, from its tick `begin` on."""
    own, terms = windows
    at = part.at[begin : begin + TICKS]
    end = begin + len(at)
    table = ticks.iloc[part.ticks.start + begin : part.ticks.start + end]
    first = max(0, begin // BLOCK_LEN - NUM_BLOCKS)  # window that reaches into the block, and the last one
    some = slice(part.windows.start + first, min(part.windows.stop, part.windows.start + (end - 1) // BLOCK_LEN + 1))
    window = table["window"].to_numpy().astype(int)
    shown = picture_of(len(at), window - begin // BLOCK_LEN)
    window = np.where(window < 0, -1, window - first)
    region = np.concatenate([terms["region"][some], np.full((1, *terms["region"].shape[1:]), np.nan)])[window, shown]
    shares = to_frames(terms["prompts"][some].T, end - first * BLOCK_LEN, causal, 0.0)  # [A, ticks]
    shares = shares[:, begin - first * BLOCK_LEN :]
    prompt = np.where(shares.any(0), shares.argmax(0), -1)  # nothing is named where nothing is seen
    caption = np.append(terms["caption"][some], -1)[window]
    columns = {"warmup": window < 0, "caption": _named(caption, own.scorer.captions)}
    columns |= {"region_x": region[:, 0], "region_y": region[:, 1]}
    columns |= {"prompt": _named(prompt, own.scorer.prompts), "p_prompt": shares.max(0)}
    columns |= dict(zip(map(prompt_column, own.scorer.prompts), shares))
    table = pd.concat([table.drop(columns="window"), pd.DataFrame(columns, index=table.index)], axis=1)
    begins, ends = int(at[0]), int(part.at[end]) if end < len(part.at) else part.n_frames  # frames of the stretch
    table = table.iloc[last_seen(ends - begins, at - begins)]
    return table.set_index(pd.RangeIndex(part.frames.start + begins, part.frames.start + ends))


def _named(codes: np.ndarray, names: list[str]) -> pd.Categorical:
    """Names by their numbers, none at -1: [T]."""
    return pd.Categorical.from_codes(codes.astype(int), names)
