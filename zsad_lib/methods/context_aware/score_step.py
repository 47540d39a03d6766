"""The step that scores a run: held-out normal and test videos, with every method and seed.

Every trained variant gives the terms of all windows once; what memories answer is the same for all seeds, and asked by
the first. A method adds up some of the terms, `write_method` its files:

    scores/<method>/<seed>/<video>.csv    test video: score and terms of every frame, and where its oddest region lies
    scores/<method>/<seed>/windows.npz    test videos: score of every window, the mean of its frames
    scores/<method>/<seed>/normal.npz     held-out normal videos: score of every frame, on which a threshold is fixed

Of streams, `zsad_lib.methods.context_aware.calibrated` gives the same as ``<method>@calibrated[_causal]``: test streams
with each camera's own memory and statistics, and in ``normal.npz`` its held-out normal stream.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.features.backbones import device, paper_clip, processes
from zsad_lib.features.cache import cache_folder
from zsad_lib.features.extraction import frozen_streams
from zsad_lib.features.window_plan import picture_of, window_means, window_of
from zsad_lib.files import paths
from zsad_lib.files.manifest import BOXES, load_manifest
from zsad_lib.files.score_files import write_archive, write_frames
from zsad_lib.files.weights import find_header, load_weights
from zsad_lib.methods.context_aware import calibrated, localised
from zsad_lib.methods.context_aware.region_pairs import split_clauses
from zsad_lib.methods.context_aware.scorer import Scorer, make_scorer, normal_rows, save_scorer, terms_of
from zsad_lib.methods.context_aware.scores import CAUSAL, METHODS, SEED_FREE, Terms
from zsad_lib.methods.context_aware.train import load_detector, variants_of
from zsad_lib.methods.context_aware.training_windows import training_rows
from zsad_lib.models.text import encode_captions
from zsad_lib.pipeline.artefacts import record
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.processes import parallel
from zsad_lib.released_defects import acting_in

ANSWERS = "answers.npz"  # of a variant's memories, while its seeds are scored


def score_all(profile: Profile, folder: Path) -> dict:
    """Pipeline step: frame and window scores of every method and seed on the test videos, and on held-out normals.

    Writes the files of the module's docstring beside the step's folder; a finished (variant, seed) is kept.
    ``<method>@causal`` of the methods in `CAUSAL` is what a live camera would have known at each frame.
    """
    run = folder.parent
    table, b = load_manifest(run / "data"), frozen_streams(profile)
    captions = list(dict.fromkeys(training_rows(run, profile.stride).caption))
    clauses = list(dict.fromkeys(clause for caption in captions for clause in split_clauses(caption)))
    variants, banks = variants_of(profile), {}
    for name, variant in variants.items():
        texts = clauses if variant.readout == "local" else captions
        clip, vocabulary = paper_clip(profile, b) if name == "paper" else (b.clip, b.vocabulary)
        banks[name] = texts, encode_captions(clip, texts, vocabulary)
    tasks = [(variant, seed) for seed in profile.seeds for variant in variants]
    later = lambda task: variants[task[0]].readout == "local" and task[1] != profile.seeds[0]
    for group in ([task for task in tasks if not later(task)], list(filter(later, tasks))):  # these read its answers
        arguments = [(profile, name, seed, table, banks[name], folder) for name, seed in group]
        for variant, seed in parallel(score_variant, arguments, processes(profile.jobs)):
            print(f"  scored {variant}, seed {seed}", flush=True)
    for variant in variants:
        (folder / variant / ANSWERS).unlink(missing_ok=True)
    return {
        "metrics": {"methods": len(METHODS), "seeds": len(profile.seeds)},
        "artefacts": {"scores": str(run / "scores")},
        "files": [home for task in tasks for home in homes(run, *task)],
    }


def homes(run: Path, variant: str, seed: int) -> list[Path]:
    """Folders of the scores that a trained variant and seed may give."""
    names = [method for method, (source, _) in METHODS.items() if source == variant]
    variants = ("", "@causal", *(f"@{name}" for name in calibrated.VARIANTS))
    return [run / "scores" / f"{method}{name}" / str(seed) for method in names for name in variants]


def score_variant(
    profile: Profile, variant: str, seed: int, table: pd.DataFrame, vectors: tuple[list[str], Tensor], folder: Path
) -> tuple[str, int]:
    """All methods of one trained variant and seed; kept where its scorer was made from the same as now.

    Args:
        profile: for its features, stride, seeds and released defects.
        variant: of `variants_of`.
        seed: of the training.
        table: manifest.
        vectors: distinct training captions, or clauses of a local read-out, and their unit vectors [K, D].
        folder: of the step; gets ``<variant>/<seed>/scorer.safetensors``, last.
    """
    if device() == "cpu":
        torch.set_num_threads(1)
    trained = folder.parent / "train" / variant / str(seed) / "detector.safetensors"
    target = folder / variant / str(seed) / "scorer.safetensors"
    meta, cache = load_weights(trained)[1], cache_folder(profile)
    key = digest([meta["sha256"], closure([__name__]), cache.name, len(table), sorted(profile.seeds)])
    written = lambda: digest(record(folder.parent, homes(folder.parent, variant, seed)))
    made = find_header(target, "it is made again")
    if made.get("key") == key and made.get("scores") == written():
        return variant, seed
    local, released = variants_of(profile)[variant].readout == "local", acting_in(profile.released, "score")
    asked, first = folder / variant / ANSWERS, seed == profile.seeds[0]
    shared = local and len(profile.seeds) > 1
    answers = (dict(np.load(asked)) if asked.exists() and not first else {}) if shared else None
    scorer, normal = make_scorer(profile, load_detector(trained), table, vectors, released, local, answers)
    clips = normal_rows(table[table.set == "main"], "val")
    terms = normal | terms_of(scorer, cache, table[(table.split == "test") | table.video.isin(clips.video)])
    videos = table[table.video.isin(terms)]
    lengths = dict(zip(videos.video, videos.n_frames))
    for causal in (False, True):
        frames = {v: scorer.frames(values, lengths[v], profile.stride, causal) for v, values in terms.items()}
        for method in methods_of(variant, first, set(scorer.statistics)):
            names = METHODS[method][1]
            home = folder.parent / "scores" / (f"{method}@causal" if causal else method) / str(seed)
            if causal and method not in CAUSAL:
                continue
            fused = {video: scorer.fuse(values, names, causal) for video, values in frames.items()}
            if causal:
                write_causal(home, fused, videos)
            else:
                added = {video: {name: frames[video][name] for name in names} for video in fused}
                if local and "s_sem" in names:
                    for video, of_video in added.items():
                        x, y = oddest_region(terms[video]["region"], lengths[video], profile.stride).T
                        of_video |= {"region_x": x, "region_y": y}
                write_method(home, fused, added, videos, profile.stride)
    if (run := folder.parent / "scores" / "full_memory" / str(seed)).is_dir() and variant == METHODS["full_memory"][0]:
        localised.write_inside(scorer, table, cache, folder.parent / "data" / BOXES, run)
    if set(calibrated.CALIBRATED) <= set(methods_of(variant, True, set(scorer.statistics))):
        score_calibrated(profile, scorer, terms, table, folder.parent / "scores", seed)
    paths.flush_all()
    if first and shared:
        write_archive(asked, answers)
    streams = dict(
        backbones=profile.backbones,
        pretrain_seed=profile.pretrain_seed,
        held_out=profile.held_out,
        released=acting_in(profile.released, "features"),
    )
    facts = dict(key=key, scores=written(), variant=meta["variant"], seed=seed, profile=profile.name)
    save_scorer(target, scorer, facts | streams)
    return variant, seed


def oddest_region(places: np.ndarray, n_frames: int, seen: int) -> np.ndarray:
    """Where the oddest region lies in each frame: of pictures of windows [W, T, 2] -> [n_frames, 2] shares."""
    windows = window_of(n_frames, len(places), seen)
    return places[windows, picture_of(n_frames, windows, seen)]


def score_calibrated(
    profile: Profile, scorer: Scorer, terms: dict[str, dict], table: pd.DataFrame, scores: Path, seed: int
) -> None:
    """Writes the scores of calibrated cameras into the folder `scores`, and for the first seed how many minutes of
    normal video it takes, as ``calibration_minutes.csv`` beside the first of them."""
    cache = cache_folder(profile)
    videos, fused = calibrated.score_cameras(scorer, terms, table, cache, profile.stride)
    for (method, variant), of_videos in fused.items():
        write_causal(scores / f"{method}@{variant}" / str(seed), of_videos, videos)
    if fused and seed == profile.seeds[0]:
        streams = table[(table.split == "val") & (table.set == "stream") & ~table.video.isin(terms)]
        known = terms | terms_of(scorer, cache, streams)
        method, variant = next(iter(fused))
        file = scores / f"{method}@{variant}" / str(seed) / "calibration_minutes.csv"
        paths.write_table(file, calibrated.minutes_needed(scorer, known, table, cache))


def methods_of(variant: str, first_seed: bool, terms: set[str]) -> list[str]:
    """Methods that a trained variant scores: those of `METHODS` that it alone is trained for and whose terms there are.

    `SEED_FREE` ones, which nothing trained enters, are scored with the first seed alone.

    >>> methods_of("paper", True, {"s_sem", "s_all", "s_pred"})
    ['paper']
    """
    return [
        method
        for method, (source, names) in METHODS.items()
        if source == variant and set(names) <= terms and (first_seed or method not in SEED_FREE)
    ]


def write_method(
    folder: Path, fused: dict[str, np.ndarray], terms: dict[str, Terms], videos: pd.DataFrame, stride: int = 1
) -> None:
    """Writes the files of one method and seed (module docstring).

    Args:
        folder: ``scores/<method>/<seed>``; replaced as a whole.
        fused: video -> score of its frames [T].
        terms: video -> the terms that were added up; columns of ``<video>.csv`` beside the score.
        videos: rows of the manifest: test videos, and held-out normal ones.
        stride: every stride-th frame was seen.
    """
    test, normal = {}, {}
    with paths.whole_folder(folder) as new:
        for row in videos.itertuples():
            frames = fused[row.video]
            if row.split != "test":
                normal[row.video] = frames
                continue
            write_frames(new / f"{row.video}.csv", row.fps, {"score": frames, **terms[row.video]})
            test[row.video] = window_means(frames[::stride])
        write_archive(new / "normal.npz", normal)
        write_archive(new / "windows.npz", test)


def write_causal(folder: Path, fused: dict[str, np.ndarray], videos: pd.DataFrame) -> None:
    """The same scores as a live camera would have known them: a frame has that of the latest window that has ended.

    Until a window has ended, a frame of a test video gets 0, the mean of normal video, and one of a normal video no
    score. There is no ``windows.npz``: a clip's score reads whole clips.
    """
    normal = {}
    with paths.whole_folder(folder) as new:
        for row in videos.itertuples():
            frames = fused[row.video]  # [T]
            if row.split != "test":
                normal[row.video] = frames[np.isfinite(frames)]
            else:
                write_frames(new / f"{row.video}.csv", row.fps, {"score": np.nan_to_num(frames)})
        write_archive(new / "normal.npz", normal)
