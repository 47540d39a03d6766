"""One trial of the ablation on streams: a variant of the gate with one seed, trained on region pairs, and its s_sem of
all streams.

Notebook: 34_ablate_streams
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zsad_lib.ablations import stream_arrays
from zsad_lib.ablations.stream_arrays import SPLITS, Streams
from zsad_lib.ablations.trial import finish, finished
from zsad_lib.config import Profile
from zsad_lib.features.backbones import stand_ins, weights_folder
from zsad_lib.files.score_files import write_archive
from zsad_lib.methods.context_aware.local_readout import region_scores
from zsad_lib.methods.context_aware.scores import semantic_score
from zsad_lib.methods.context_aware.train import Variant, load_detector, train_detector
from zsad_lib.methods.context_aware.training_windows import with_context
from zsad_lib.models.detector import Detector
from zsad_lib.models.regions import strongest
from zsad_lib.pipeline.fingerprints import closure, digest


def trial_key(profile: Profile, variant: Variant, seed: int, arrays: Path) -> str:
    """What a finished trial must have been made from, to be kept."""
    settings = [profile.train_steps, profile.alpha, profile.mixed_precision]
    return digest([dataclasses.asdict(variant), seed, settings, arrays.name, closure([__name__])])


def run_trial(profile: Profile, variant: Variant, seed: int, arrays: Path, folder: Path) -> Path:
    """Trains and scores one variant with one seed; a finished trial is kept, an interrupted one goes on.

    Args:
        profile: for its stand-ins and steps.
        variant: without live windows.
        arrays: folder of `stream_arrays.freeze`.
        folder: gets ``detector.safetensors``, whose predictive stream is the pretrained one, ``val.npz`` and
            ``test.npz`` with `semantic_terms`, and last ``result.json``.

    Returns:
        `folder`.
    """
    key = trial_key(profile, variant, seed, arrays)
    if finished(folder, key):
        return folder
    torch.set_num_threads(1)
    windows, captions = stream_arrays.load_training(arrays)
    windows = with_context(windows, variant.context, seed)
    backbones = stand_ins(weights_folder(profile))
    detector = load_detector(train_detector(profile, variant, seed, windows, folder, backbones))
    bank = captions if variant.readout == "global" else windows.pairs.bank
    for name in SPLITS:
        streams = stream_arrays.load(arrays, name)
        context = with_context(streams.windows, variant.context, seed).context
        s_sem = semantic_terms(detector, streams, bank, context, local=variant.readout == "local")
        write_archive(folder / f"{name}.npz", {"s_sem": s_sem})
    return finish(folder, key, variant, seed)


@torch.no_grad()
def semantic_terms(detector: Detector, streams: Streams, bank: Tensor, context: Tensor, local: bool) -> np.ndarray:
    """s_sem of all windows of some streams: [W, T] of the pictures that they look at; of a global read-out [W].

    Args:
        bank: unit vectors [K, E] of the clauses; of a global read-out, of the captions.
        context: scene feature of each window [W, S], or what a control shows instead.
        local: read-out of the regions.
    """
    c = detector.context(context)
    if not local:
        v = detector.embed(streams.windows.timesformer, streams.windows.dpc)
        return semantic_score(detector.gate.logits(v, bank, c)).double().numpy()
    scores = region_scores(detector.gate, streams.region, streams.at[:, 0], bank, c)
    return strongest(scores.numpy(), streams.at.numpy(), len(c))
