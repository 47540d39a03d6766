"""Frame scores and class probabilities of the methods that know class names: AnomalyCLIP, its baseline, and zero-shot
CLIP prompts.

Each leaves the same files as the zero-shot method's scores, and ``classes.npz`` (p(A, k) of every frame) beside them;
the causal variant only frame scores, since clip scores see whole clips.

Notebook: 43_train_from_labels
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.features.backbones import device, frame_clip, processes
from zsad_lib.features.clip_frames import listed_features
from zsad_lib.features.window_plan import window_means
from zsad_lib.files import paths
from zsad_lib.files.score_files import write_archive, write_frames
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.anomaly_clip import train
from zsad_lib.models import anomaly_clip_recipes as recipes
from zsad_lib.models.anomaly_clip import AnomalyCLIP
from zsad_lib.models.checkpoints import load_strict
from zsad_lib.models.text import encode_captions
from zsad_lib.processes import parallel

ZERO_SHOT = "clip_prompts"
CAUSAL = "anomaly_clip@causal"
ClassProbs = Callable[[Tensor], Tensor]  # raw features [T, D] -> joint probabilities [T, K]


def load_model(path: Path, profile: Profile, run: Path) -> AnomalyCLIP:
    """A model that was trained on a run's classes, in eval mode.

    Raises:
        ZsadError: missing or damaged file, or one trained on another class list (shows both).
    """
    tensors, meta = load_weights(path)
    _, classes, normal = train.class_table(run)
    model = recipes.build(*frame_clip(profile), classes, normal, recipes.Recipe(**meta["recipe"]))
    load_strict(model, tensors, file=path)
    return model.eval().requires_grad_(False).to(device())


def prompt_probabilities(features: Tensor, prompts: Tensor, owner: Tensor, classes: int, scale: float) -> Tensor:
    """Zero-shot CLIP: softmax over all prompts, summed per class; a class that no prompt describes gets 0.

    Args:
        features: [T, D] of frames.
        prompts: unit vectors [P, D].
        owner: class id of each prompt [P].
        classes: K.
        scale: 1 / temperature of the softmax, as CLIP has learned it.

    Returns:
        [T, K], sum 1.
    """
    mass = (scale * F.normalize(features, dim=-1) @ prompts.T).softmax(-1)
    return mass.new_zeros(len(features), classes).index_add(1, owner, mass)


def score_all(profile: Profile, folder: Path) -> dict:
    """Pipeline step: every method and seed on the test videos, and on the held-out normal ones that fix the
    threshold."""
    tasks = [(profile, name, seed, folder) for seed in profile.seeds for name in (*train.TRAINED, CAUSAL)]
    tasks.append((profile, ZERO_SHOT, profile.seeds[0], folder))  # nothing is trained: one seed stands for all
    for name, seed in parallel(score_method, tasks, processes(profile.jobs)):
        print(f"  scored {name}, seed {seed}", flush=True)
    paths.flush_all()
    homes = {name: folder.parent / "scores" / name for name in (*train.TRAINED, CAUSAL, ZERO_SHOT)}
    return {"metrics": {"methods": len(homes)}, "artefacts": homes, "files": homes.values()}


def score_method(profile: Profile, name: str, seed: int, folder: Path) -> tuple[str, int]:
    """One method and seed on all test and held-out normal videos of a run; `folder` is the step's."""
    torch.set_num_threads(1)
    run = folder.parent
    table, classes, normal = train.class_table(run)
    class_probs = _zero_shot(profile, run, classes) if name == ZERO_SHOT else _trained(profile, run, name, seed)
    rows = table[(table.split == "test") | (table.split.eq("val") & table.family.eq("normal"))]
    with torch.no_grad():
        joint = {  # video -> p(A, k) of every frame [T, K]
            row.video: class_probs(listed_features(run, row).to(device())).double().cpu().numpy()
            for row in rows.itertuples()
        }
    write_method(run / "scores" / name / str(seed), joint, rows, classes.index(normal), whole_clips=name != CAUSAL)
    return name, seed


def write_method(
    folder: Path, joint: dict[str, np.ndarray], videos: pd.DataFrame, normal_id: int, whole_clips: bool
) -> None:
    """Writes the files of one method and seed: the score of a frame is 1 - p(N).

    <video>.csv   test video: score of every frame
    windows.npz   test videos: mean score of every window
    classes.npz   test videos: p(A, k) of every frame, float32
    normal.npz    held-out normal videos: score of every frame

    Args:
        folder: ``scores/<method>/<seed>``; replaced as a whole.
        joint: video -> probabilities of all classes [T, K].
        videos: rows of the manifest: test videos, and the held-out normal ones of split ``val``.
        normal_id: index of the normal class.
        whole_clips: False: neither ``windows.npz`` nor ``classes.npz``, since clip scores see whole clips.
    """
    scores = {video: 1 - probabilities[:, normal_id] for video, probabilities in joint.items()}
    test = videos[videos.split == "test"]
    with paths.whole_folder(folder) as new:
        for row in test.itertuples():
            write_frames(new / f"{row.video}.csv", row.fps, {"score": scores[row.video]})
        write_archive(new / "normal.npz", {v: scores[v] for v in videos.video[videos.split == "val"]})
        if whole_clips:
            write_archive(new / "windows.npz", {v: window_means(scores[v]) for v in test.video})
            write_archive(new / "classes.npz", {v: joint[v].astype(np.float32) for v in test.video})


def _trained(profile: Profile, run: Path, name: str, seed: int) -> ClassProbs:
    model = load_model(run / "weak_train" / name.partition("@")[0] / str(seed) / train.FILE, profile, run)
    with torch.no_grad():
        directions = model.directions()
    return lambda features: model.score(features, name == CAUSAL, directions).class_probs


def _zero_shot(profile: Profile, run: Path, classes: list[str]) -> ClassProbs:
    clip, vocabulary = frame_clip(profile)
    prompts = paths.read_json(run / "weak_data" / "prompts.json")
    vectors = encode_captions(clip.to(device()), [text for texts in prompts.values() for text in texts], vocabulary)
    owner = torch.tensor([classes.index(name) for name, texts in prompts.items() for _ in texts], device=vectors.device)
    scale = float(clip.logit_scale.exp())
    return lambda features: prompt_probabilities(features, vectors, owner, len(classes), scale)
