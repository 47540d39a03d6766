"""The step that scores a run: held-out normal and test videos, with every method and seed."""

from pathlib import Path

import numpy as np
import torch

from zsad_lib.features.backbones import device, processes
from zsad_lib.features.cache import cache_folder
from zsad_lib.features.extraction import frozen_streams
from zsad_lib.features.window_plan import at_frames
from zsad_lib.files import paths
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.score_files import write_archive, write_frames
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware.scorer import make_scorer, save_scorer, terms_of
from zsad_lib.methods.context_aware.scores import CAUSAL, METHODS, SEED_FREE
from zsad_lib.methods.context_aware.train import load_detector, variants_of
from zsad_lib.methods.context_aware.training_windows import training_rows
from zsad_lib.models.text import encode_captions
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.processes import parallel
from zsad_lib.released_defects import acting_in


def score_all(profile, folder: Path) -> dict:
    """Pipeline step: frame and window scores of every method and seed on the test videos, and on held-out normals.

    Writes scores/<method>/<seed>/<video>.csv, windows.npz and normal.npz beside the step's folder; a finished (variant, seed) is kept.
    ``<method>@causal`` of the methods in `CAUSAL` is what a live camera would have known at each frame.
    """
    run = folder.parent
    table, b = load_manifest(run / "data"), frozen_streams(profile)
    captions = list(dict.fromkeys(training_rows(run, profile.stride).caption))
    vectors = captions, encode_captions(b.clip, captions, b.vocabulary)
    tasks = [(variant, seed) for seed in profile.seeds for variant in variants_of(profile)]
    runs = [(profile, variant, seed, table, vectors, folder) for variant, seed in tasks]
    for variant, seed in parallel(_score, runs, processes(profile.jobs)):
        print(f"  scored {variant}, seed {seed}", flush=True)
    return {
        "metrics": {"methods": len(METHODS), "seeds": len(profile.seeds)},
        "artefacts": {"scores": str(run / "scores")},
    }


def _score(profile, variant: str, seed: int, table, vectors, folder: Path) -> tuple[str, int]:
    if device() == "cpu":
        torch.set_num_threads(1)
    trained = folder.parent / "train" / variant / str(seed) / "detector.safetensors"
    target = folder / variant / str(seed) / "scorer.safetensors"
    key = digest(
        [
            (meta := load_weights(trained)[1])["sha256"],
            closure([__name__]),
            cache_folder(profile).name,
            len(table),
            sorted(profile.seeds),
        ]
    )
    if target.exists() and load_weights(target)[1].get("key") == key:
        return variant, seed
    detector, cache = load_detector(trained), cache_folder(profile)
    scorer, terms = make_scorer(profile, detector, table, vectors, acting_in(profile.released, "score"))
    test, lengths = table[table.split == "test"], table.set_index("video").n_frames
    normal = list(terms)
    terms |= terms_of(scorer, cache, test)
    for method, (source, names) in METHODS.items():
        if (
            source != variant
            or (method in SEED_FREE and seed != profile.seeds[0])
            or not set(names) <= set(terms[normal[0]])
        ):
            continue
        home = folder.parent / "scores" / method / str(seed)
        fused = {video: scorer.fuse(values, names) for video, values in terms.items()}
        for row in test.itertuples():
            shown = {"score": fused[row.video], **{name: terms[row.video][name] for name in names}}
            write_frames(
                home / f"{row.video}.csv",
                row.fps,
                {name: at_frames(values, row.n_frames, profile.stride) for name, values in shown.items()},
            )
        held_out = {video: at_frames(fused[video], lengths[video], profile.stride) for video in normal}
        write_archive(home / "normal.npz", held_out)
        write_archive(home / "windows.npz", {row.video: fused[row.video] for row in test.itertuples()})
        if method in CAUSAL:
            live = {v: at_frames(fused[v], lengths[v], profile.stride, causal=True, before=np.nan) for v in fused}
            home = home.parent.with_name(f"{method}@causal") / home.name
            for row in test.itertuples():  # until a window has ended: the mean of normal video
                write_frames(home / f"{row.video}.csv", row.fps, {"score": np.nan_to_num(live[row.video])})
            write_archive(home / "normal.npz", {video: live[video][np.isfinite(live[video])] for video in normal})
    paths.flush_all()
    save_scorer(
        target,
        scorer,
        dict(
            key=key,
            variant=meta["variant"],
            backbones=profile.backbones,
            held_out=profile.held_out,
            released=acting_in(profile.released, "features"),
            seed=seed,
            profile=profile.name,
        ),
    )
    return variant, seed
