"""Several cameras of one's own, calibrated together: a gate learns what is normal WHERE, from their normal video alone.

Regions of all cameras meet the sentences on what is normal at their camera; the same sentence under the scene of
another camera is a negative (`zsad_lib.methods.context_aware.joint_loss`, `region_alignment_loss`). So a sentence opens
where it belongs. Then each camera gets its own memory, statistics and thresholds, as `calibrate` gives them to one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import FAR_TARGET
from zsad_lib.errors import ZsadError
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.files import paths
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware.joint_loss import region_alignment_loss
from zsad_lib.methods.context_aware.region_pairs import RegionPairs, best_clauses, well_told
from zsad_lib.methods.context_aware.train import batch_numbers
from zsad_lib.methods.context_aware.variants import VARIANTS, Variant, build_detector
from zsad_lib.methods.training_loop import descend, is_trained, run_steps, save_trained, training_key
from zsad_lib.models.text import encode_captions
from zsad_lib.own_video.calibrate import calibration_file, fit_camera, get_to_know, readable
from zsad_lib.own_video.detector import AS_IT_IS, OwnDetector, Sees, own_detector
from zsad_lib.own_video.scoring import pieces, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.own_video.words import NO_WORDS, Words, read_sentences

SENTENCES = "captions.txt"  # in a camera's folder: what is normal there
STEPS, SEED = 2000, 0  # of the gate: as many as in a run
CHECKPOINT_EVERY = 200


class Camera(NamedTuple):
    """One of several."""

    name: str  # of its folder
    folder: Path
    videos: list[Path]
    sentences: list[str]  # what is normal there


def calibrate_cameras(
    folder: Path,
    name: str,
    run: str | None = None,
    *,
    words: Words = NO_WORDS,
    sees: Sees = AS_IT_IS,
    far: float = FAR_TARGET,
    predict: bool = False,
    fps: float | None = None,
    allow_missing: bool = False,
) -> tuple[pd.DataFrame, dict[str, Path]]:
    """A detector for each camera of a folder, with one gate that has learned from all of them.

    Args:
        folder: a folder per camera, each with two or more normal videos, and in ``captions.txt`` a sentence per line
            on what is normal there.
        name: of the cameras together; the run of a camera is ``<name>-<camera>``.
        words: `normal` are the sentences of cameras without a file of their own.
        run, far, sees, predict, fps, allow_missing: as in `calibrate`.

    Returns:
        `gate_table`, and camera -> file of its detector.

    Raises:
        ZsadError: fewer than two cameras, one without sentences, published streams without a scene, or as `calibrate`.
    """
    cameras = find_cameras(folder, words, allow_missing)
    targets = {camera.name: calibration_file(f"{name}-{camera.name}") for camera in cameras}
    said = list(dict.fromkeys(sentence for camera in cameras for sentence in camera.sentences))
    own = own_detector(run, words._replace(normal=said), sees, to_calibrate=True)
    if own.tool.backbones.scene is None:
        raise ZsadError(f"{folder}: a gate needs to see the scene; do not leave places365 out")
    if not predict:
        get_to_know(own, [video for camera in cameras for video in camera.videos], fps)
    seen = {camera.name: [_features(own, video, fps) for video in camera.videos] for camera in cameras}
    own = train_gate(own, cameras, seen, paths.runs() / name)
    table = gate_table(own, seen)
    paths.write_table(paths.runs() / name / "gate.csv", table, "%.3f", index=True)
    for camera in cameras:
        fit_camera(own, camera.folder, camera.videos, targets[camera.name], far, predict, fps)
    return table, targets


def find_cameras(folder: Path, words: Words, allow_missing: bool) -> list[Camera]:
    """The cameras of a folder, with readable videos and their sentences; see `calibrate_cameras`."""
    if not folder.is_dir():
        raise ZsadError(f"{folder}: no such folder; give one that holds a folder per camera")
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(below) < 2:
        raise ZsadError(f"{folder}: {len(below)} folders; a gate needs two cameras or more, a folder each")
    cameras = []
    for path in below:
        listed = path / SENTENCES
        sentences = read_sentences(listed) if listed.exists() else list(words.normal)
        if not sentences:
            raise ZsadError(f"{listed}: missing; write what is normal there, a line each, or give CAPTIONS=file")
        cameras.append(Camera(path.name, path, readable(path, allow_missing), sentences))
    return cameras


def _features(own: OwnDetector, video: Path, fps: float | None) -> list[VideoFeatures]:
    """Scenes and regions of the windows of a video."""
    found = []
    for piece in pieces(seen_frames(video, Seen(), own.size, fps)):
        _, scene, *_ = own.tool.windows(piece, ("scene",))
        timesformer, _, stem, moving, region, at = own.tool.windows(piece, ("timesformer",))
        found.append(VideoFeatures(timesformer, scene, stem, moving, region, at, torch.empty(0), 0))
    return found


def region_pairs(
    own: OwnDetector, cameras: Sequence[Camera], seen: dict[str, list[list[VideoFeatures]]]
) -> tuple[RegionPairs, Tensor]:
    """Regions of all cameras with the sentence of their camera that fits best, and the scenes of all windows [W, S]."""
    clauses, b = own.scorer.captions, own.tool.backbones
    bank = encode_captions(b.clip, clauses, b.vocabulary, warn=False).cpu()
    vectors, allowed, scenes, windows = [], [], [], []
    for camera in cameras:
        of_camera = torch.tensor([sentence in camera.sentences for sentence in clauses])
        for piece in (piece for video in seen[camera.name] for piece in video):
            vectors.append(piece.region.float())
            allowed.append(of_camera.expand(len(piece.region), -1))
            scenes.append(piece.scene[piece.region_at[:, 0].long()])
            windows.append(piece.scene)
    vector, scene = torch.cat(vectors), torch.cat(scenes)
    clause, fit = best_clauses(vector, bank, torch.cat(allowed))
    kept = well_told(fit)
    return RegionPairs(vector[kept], clause[kept], scene[kept], scene[kept], bank, clauses), torch.cat(windows)


def train_gate(
    own: OwnDetector, cameras: Sequence[Camera], seen: dict[str, list[list[VideoFeatures]]], folder: Path
) -> OwnDetector:
    """The detector with a gate that has learned from all cameras; an interrupted training goes on where it was."""
    pairs, windows = region_pairs(own, cameras, seen)
    kept = Variant(**own.meta["variant"])
    variant = dataclasses.replace(kept, gate=VARIANTS["full"].gate, lr=VARIANTS["full"].lr)
    data = hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in (pairs.vector, pairs.clause, windows)))
    key = training_key(__name__, dataclasses.asdict(variant), STEPS, SEED, pairs.clauses, data.hexdigest())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        detector = build_detector(variant, dataclasses.replace(own.tool.backbones, dpc=None))
        detector.fit_scene_statistics(windows)
        mean, std = windows.mean(0), windows.std(0).clamp_min(1e-6)
        pairs = pairs._replace(scene=(pairs.scene - mean) / std)
        target, trained = folder / "gate.safetensors", [p for p in detector.parameters() if p.requires_grad]
        if not is_trained(target, key):
            optimiser = torch.optim.AdamW(trained, variant.lr, weight_decay=variant.weight_decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)

            def take_step(step: int) -> list[float]:
                torch.manual_seed(hash((SEED, step)) % 2**32)  # swaps
                batch = torch.from_numpy(batch_numbers(len(pairs.vector), variant.batch, step, SEED))
                loss = region_alignment_loss(detector, pairs, batch, variant, (), torch.default_generator)
                descend(loss, optimiser, schedule, trained)
                return [loss.item()]

            stateful, label = (detector, optimiser, schedule), f"gate of {len(cameras)} cameras"
            run_steps(take_step, STEPS, folder, key, stateful, CHECKPOINT_EVERY, label=label)
            save_trained(target, detector.state_dict(), {"key": key})
        detector.load_state_dict(load_weights(target)[0])
    detector.dpc = own.scorer.detector.dpc
    detector.moving_from.copy_(own.scorer.detector.moving_from)
    scorer = dataclasses.replace(own.scorer, detector=detector.eval().requires_grad_(False))
    return own._replace(scorer=scorer, meta=own.meta | {"variant": dataclasses.asdict(variant)})


@torch.no_grad()
def gate_table(own: OwnDetector, seen: dict[str, list[list[VideoFeatures]]]) -> pd.DataFrame:
    """How far each sentence is open at each camera, 0 closed to 1, mean over its windows: sentences x cameras."""
    d, open_at = own.scorer.detector, {}
    for camera, videos in seen.items():
        scene = torch.cat([piece.scene for video in videos for piece in video])
        open_at[camera] = d.gate.relevance(own.scorer.bank, d.context(scene)).mean(0).numpy()
    return pd.DataFrame(open_at, index=pd.Index(own.scorer.captions, name="sentence"))
