"""Films of a run: five test videos with their score, from the best to the worst, chosen by rule and never by eye.

Like a figure a film reads scores and computes none. It is a step of its own, so that another colour of a figure encodes
no film.
"""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from zsad_lib.config import Profile
from zsad_lib.evaluate.events import own_threshold
from zsad_lib.files import paths
from zsad_lib.files.clip_feature_files import FEATURE_SUFFIXES
from zsad_lib.files.decoding import resize
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.files.score_files import read_seeds
from zsad_lib.files.unfinished import scratch
from zsad_lib.files.video import iter_frames, read_video, write_video
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.processes import parallel
from zsad_lib.results import plots, run_figures
from zsad_lib.results.film import OWN_THRESHOLD, write_film

PLACES = {"best": 1.0, "upper quartile": 0.75, "median": 0.5, "lower quartile": 0.25, "worst": 0.0}  # quantile of AUC
SECONDS = 60.0  # of a film, at most; of a longer video, from a quarter of this before its first anomaly on
FRAMES = 300  # of a film, at most: every n-th frame of the video
WIDTH = 320  # pixels
BYTES = 600_000  # of a file, at most: a report holds all of them
GAP, COLOURS = 10, 192  # of stills side by side: pixels between them, and colours of the picture
QUALITIES = (28, 32, 36, 40, 45, 51)  # x264's rate factors for a film that is too large, up to the end of the scale


def draw(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: films of the run's main method into `folder`, and ``films.json`` with what each of them shows.

    The videos are those at `PLACES` in the order of `run_figures.within_videos`, among those whose footage is here:
    frame features may stand for some.
    """
    run, seed = run_folder(profile), profile.seeds[0]
    method = run_figures.main_method(run)
    scores = run / "scores" / method
    manifest = load_manifest(run / "data").set_index("video", drop=False)
    aucs = run_figures.within_videos(profile, method)
    aucs = {video: auc for video, auc in aucs.items() if _has_footage(manifest["path"][video])}
    threshold = run_figures.alarm_threshold(read_seeds(scores, {}, [seed]).normal, profile)
    ranks: dict[str, list[str]] = {}  # video -> which of `PLACES` it stands at
    for rank, quantile in PLACES.items() if aucs else ():
        ranks.setdefault(plots.at_quantile(aucs, quantile), []).append(rank)
    tables = [pd.read_csv(scores / str(seed) / f"{video}.csv") for video in ranks]
    tasks = [(manifest.loc[v], tables[n], threshold, folder / str(n)) for n, v in enumerate(ranks)]
    films = [
        {"place": ", ".join(ranks[video]), "video": video, "auc": aucs[video], **facts}
        for video, facts in zip(ranks, parallel(_film, tasks, profile.jobs))
    ]
    about = {"method": method, "seed": seed, "videos": len(aucs), "quantiles": list(PLACES.values())}
    about |= {"calibrated": threshold is not None, "films": films}
    paths.write_json(folder / "films.json", about)
    files = [folder / f"{number}.{suffix}" for number in range(len(films)) for suffix in ("mp4", "jpg")]
    return {"metrics": {"films": len(films)}, "artefacts": [folder / "films.json", *files]}


def _has_footage(path: str) -> bool:
    return not path.endswith(FEATURE_SUFFIXES) and Path(path).exists()


def _film(row: pd.Series, frames: pd.DataFrame, threshold: float | None, stem: Path) -> dict[str, Any]:
    """Writes ``<stem>.mp4``, and its frame of the highest score as ``<stem>.jpg``.

    Args:
        row: of the manifest.
        frames: the video's scores, a row per frame.
        threshold: of an alarm; None: what stands out in this video.
        stem: path without suffix.

    Returns:
        `start_s` in the video, `n_frames` of the film, its frames per second `fps`, and its `shape` (width,
        height) in pixels.
    """
    rate, labels = float(row["fps"]), frame_labels(row)
    length = min(len(frames), round(SECONDS * rate))
    first = min(max(0, int(labels.argmax()) - length // 4), len(frames) - length)
    step = math.ceil(length / FRAMES)
    excerpted = slice(first, first + length, step)
    table = frames.iloc[excerpted].assign(truth=labels[excerpted] > 0, warmup=False).reset_index(drop=True)
    limit = own_threshold(frames["score"].to_numpy()) if threshold is None else threshold
    kind = OWN_THRESHOLD if threshold is None else "threshold from held-out normal video"
    film, poster = stem.with_suffix(".mp4"), stem.with_suffix(".jpg")
    with scratch(stem.parent) as place:
        excerpt, whole = place / "excerpt.mp4", place / "whole.mp4"
        write_video(excerpt, _pictures(row["path"], excerpted), rate / step)
        write_film(excerpt, table, limit, kind, whole, rate / step)
        small = whole
        for quality in QUALITIES:
            if small.stat().st_size <= BYTES:
                break
            small = place / "small.mp4"
            write_video(small, iter_frames(whole), rate / step, quality)
        os.replace(small, film)
    still = Image.fromarray(read_video(film, [int(table["score"].argmax())])[0])
    with paths.atomic(poster, mode=None) as temporary:
        still.save(temporary, "JPEG", quality=80)
    return {"start_s": first / rate, "n_frames": len(table), "fps": rate / step, "shape": still.size}


def _pictures(path: str, excerpted: slice) -> Iterator[np.ndarray]:
    """Frames of the video [H, W, 3], `WIDTH` wide."""
    for frame in islice(iter_frames(path), excerpted.start, excerpted.stop, excerpted.step):
        yield resize(frame, (round(WIDTH * frame.shape[0] / frame.shape[1]), WIDTH))


def side_by_side(stills: Sequence[Path], target: Path) -> None:
    """Stills of films in one row, as a PNG of `COLOURS` colours."""
    pictures = [Image.open(still).convert("RGB") for still in stills]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    row, left = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white"), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    row.quantize(COLOURS, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
