r"""Anomaly scores of windows and frames, and their fusion (the paper, arXiv 2508.18463, publishes words and no formula).

s_sem  = 1 - max_k v . t'_k            no normal caption, gated with the clip's own context, fits what is seen
s_pred = 1 - mean cos(predicted, actual)   over the cells that move most; `s_all` over all cells, `s_peak` in the worst place
s_mem  = 1 - mean of the k largest [v ; scene] . [v_n ; scene_n]   nothing like it among the training windows
s      = sum_i w_i (s_i - mean_i) / deviation_i     mean and deviation on held-out NORMAL windows, equal weights fixed beforehand
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib import paths
from zsad_lib.backbones import device, processes
from zsad_lib.features import (
    BLOCK_LEN,
    WINDOW,
    VideoFeatures,
    at_frames,
    cache_folder,
    encode_long,
    feature_file,
    frozen_streams,
    load_features,
    window_blocks,
)
from zsad_lib.fingerprint import closure, digest
from zsad_lib.losses import MOVING_SHARE
from zsad_lib.manifest import load_manifest
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC, DPCOutput
from zsad_lib.models.text import encode_captions
from zsad_lib.released import acting_in
from zsad_lib.series import write_archive
from zsad_lib.train import detector_from, load_detector, variants_of
from zsad_lib.weights import load_weights, save_weights
from zsad_lib.windows import training_rows
from zsad_lib.workers import parallel

SCORED_STEPS = (
    2  # predicted blocks that s_pred looks at; the third is hard to foresee in normal video too (validation sites)
)
NEIGHBOURS = 5  # k of the neighbour memory
TOGETHER = 96  # blocks, at most, of videos that pass the predictive stream at once
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {  # method -> (trained variant, the terms that its score adds up)
    "full": ("full", ("s_sem", "s_pred")),
    "full_memory": ("full", ("s_sem", "s_pred", "s_mem")),
    "paper": ("paper", ("s_sem", "s_all")),
    "semantic": ("full", ("s_sem",)),
    "predictive": ("full", ("s_pred",)),
    "knn": ("full", ("s_mem",)),
    "knn_predictive": ("full", ("s_mem", "s_pred")),
    "motion_floor": ("full", ("s_motion",)),
}
CAUSAL = ("full", "full_memory")  # methods whose frames are scored a second time from what a live camera would know
SEED_FREE = ("knn", "motion_floor")  # methods that nothing trained enters: one seed stands for all


def error_map(out: DPCOutput) -> Tensor:
    """1 - cos(predicted, actual) per step and place, 0..2: DPCOutput of B windows -> [B, P, h, w]."""
    return 1 - F.cosine_similarity(out.predicted, out.actual, dim=2)


def moving_mean(errors: Tensor, motion: Tensor) -> Tensor:
    """Mean error over the `MOVING_SHARE` of a window's cells that move most: [B, P, h, w], motion [B, P, h, w] -> [B]."""
    count = max(1, int(MOVING_SHARE * motion[0].numel()))
    moving = motion.flatten(1).topk(count).indices
    return errors.flatten(1).gather(1, moving).mean(1)


class Predicted(NamedTuple):
    """What the predictive stream says of one video's W windows, without any text."""

    context: Tensor  # [W, D_dpc] GRU state, mean over space
    plain: Tensor  # [W, D_dpc] the backbone's features instead, mean over blocks and space (released defect 9)
    terms: dict[str, Tensor]  # s_pred, s_all, s_peak: [W] each; s_motion where the motion of every frame is known


def predictive_terms(dpc: DPC, videos: Iterable[VideoFeatures]) -> Iterator[Predicted]:
    """Runs a predictive stream, pretrained or tuned, on the cached lower layers of videos; neighbours of equal length go together."""
    for (blocks, *_), equal in itertools.groupby(videos, key=lambda features: features.stem.shape):
        count = 1 if dpc.on_batch_statistics else max(1, TOGETHER // blocks)
        while some := list(itertools.islice(equal, count)):
            encoded = encode_long(dpc, torch.stack([features.stem for features in some]))
            blocks_of = [window_blocks(video) for video in encoded]  # [W, NUM_BLOCKS, D, h, w] each
            out = dpc.predict(torch.cat(blocks_of))
            parts = zip(some, blocks_of, error_map(out).chunk(len(some)), out.context.chunk(len(some)))
            yield from (_predicted(dpc.pred_steps, *part) for part in parts)


def _predicted(steps: int, features: VideoFeatures, blocks: Tensor, errors: Tensor, context: Tensor) -> Predicted:
    moving = window_blocks(features.cell_motion.to(errors.device))[:, -steps:]  # [W, P, h, w]
    terms = {
        "s_pred": moving_mean(errors[:, :SCORED_STEPS], moving[:, :SCORED_STEPS]),
        "s_all": errors.mean((1, 2, 3)),
        "s_peak": errors.mean(1).amax((1, 2)),
    }
    if len(features.motion):
        motion = features.motion.unfold(0, min(WINDOW, len(features.motion)), BLOCK_LEN)
        terms["s_motion"] = motion[: len(errors)].mean(-1)
    return Predicted(context.mean((-2, -1)), blocks.mean((1, 3, 4)), terms)


def semantic_score(similarity: Tensor) -> Tensor:
    """1 - max over the bank: similarities [B, K] of windows and gated normal captions -> [B]."""
    return 1 - similarity.amax(-1)


def prompt_scores(normal: Tensor, abnormal: Tensor, temperature: float = 0.07) -> tuple[Tensor, Tensor]:
    """Softmax over normal and abnormal prompts: the mass on the abnormal ones, and their class probabilities.

    Args:
        normal: similarities with gated normal captions [B, K].
        abnormal: similarities with gated abnormal prompts [B, A].

    Returns:
        score [B] in 0..1, probabilities of the abnormal prompts [B, A]; their sum is the score.
    """
    probabilities = (torch.cat([normal, abnormal], -1) / temperature).softmax(-1)[:, normal.shape[-1] :]
    return probabilities.sum(-1), probabilities


def neighbour_score(query: Tensor, memory: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """1 - mean cosine with the k nearest training windows: unit vectors [B, J], [N, J] -> [B], 0..2."""
    return 1 - (query @ memory.T).topk(min(k, len(memory)), dim=-1).values.mean(-1)


def joint(embedding: Tensor, scene: Tensor) -> Tensor:
    """Joint space of the neighbour memory, [video ; scene], both of equal length: [B, D], [B, S] -> unit vectors [B, D + S]."""
    return F.normalize(torch.cat([F.normalize(embedding, dim=-1), F.normalize(scene, dim=-1)], -1), dim=-1)


@dataclasses.dataclass
class Scorer:
    """A trained detector with all that scoring needs beside it: caption bank, memory, and statistics of normal video."""

    detector: Detector
    bank: Tensor  # [K, D] unit vectors of the distinct training captions
    captions: list[str]  # the K captions
    memory: Tensor  # [N, J] joint vectors of the training windows, from frozen features
    statistics: dict[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )  # term -> mean, deviation on held-out normals
    plain_extractor: bool = False  # released defect 9
    prompts: list[str] = dataclasses.field(
        default_factory=list
    )  # A sentences on what would be abnormal; name it, never score it
    prompt_bank: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # [A, D] their unit vectors
    scene: Tensor | None = None  # [S] scene feature of a described scene; it stands for the one that is seen

    @torch.no_grad()
    def terms(self, videos: Iterable[VideoFeatures]) -> Iterator[dict[str, np.ndarray]]:
        """Score terms of each video's W windows: name -> [W] float64; `caption` is the number of the best-fitting caption.

        `s_motion` is there only where the features hold the motion of every frame, and `prompts` [W, A], the probabilities of the
        abnormal prompts beside the normal captions, only where there are prompts.
        """
        d, (once, again) = self.detector, itertools.tee(videos)
        for features, predicted in zip(once, predictive_terms(d.dpc, again)):
            timesformer, scene = (x.to(self.bank.device) for x in (features.timesformer, features.scene))
            scene = scene if self.scene is None else self.scene.expand_as(scene)
            v, context = (
                d.embed(timesformer, predicted.plain if self.plain_extractor else predicted.context),
                d.context(scene),
            )
            similarity = d.gate.logits(v, self.bank, context)
            terms = {"s_sem": semantic_score(similarity), **predicted.terms, "caption": similarity.argmax(-1)}
            if self.prompts:
                _, terms["prompts"] = prompt_scores(similarity, d.gate.logits(v, self.prompt_bank, context))
            if d.anchor is not None:
                query = joint(d.anchor(timesformer), d.standardised(scene))
                terms["s_mem"] = neighbour_score(query, self.memory)
            yield {name: value.double().cpu().numpy() for name, value in terms.items()}

    def fuse(self, terms: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
        """Sum of the named terms, each standardised on held-out normal windows; [W]."""
        return sum((terms[name] - self.statistics[name][0]) / self.statistics[name][1] for name in names)

    def calibrate(self, normal: list[dict[str, np.ndarray]]) -> None:
        """Mean and deviation of every term over held-out normal videos."""
        for name in normal[0]:
            if name != "caption":
                values = np.concatenate([terms[name] for terms in normal])
                self.statistics[name] = (float(values.mean()), float(values.std()) or 1.0)


def make_scorer(
    profile, detector: Detector, table, caption_vectors: tuple[list[str], Tensor], released: tuple[str, ...]
) -> tuple[Scorer, dict[str, dict[str, np.ndarray]]]:
    """Bank, memory and statistics of one trained detector, from training and held-out NORMAL validation video only.

    Also gives the score terms of those held-out videos. Without an anchor there is no memory: its space is the anchor's.

    Args:
        table: manifest.
        caption_vectors: distinct training captions and their unit vectors [K, D].
    """
    cache, memory = cache_folder(profile), torch.empty(0)
    if detector.anchor is not None:
        seen = table[(table.split == "train") & (table.family == "normal")]
        train = [load_features(feature_file(cache, row)) for row in seen.itertuples()]
        scene = detector.standardised(torch.cat([f.scene for f in train]))
        memory = joint(detector.anchor(torch.cat([f.timesformer for f in train])), scene)
    detector, bank, memory = detector.to(device()), caption_vectors[1].to(device()), memory.to(device())
    scorer = Scorer(detector, bank, caption_vectors[0], memory, plain_extractor="plain_extractor" in released)
    normal = table[(table.split == "val") & (table.family == "normal") & (table.spans == "")]
    terms = _terms(scorer, cache, normal)
    scorer.calibrate(list(terms.values()))
    return scorer, terms


def _terms(scorer: Scorer, cache: Path, rows) -> dict[str, dict[str, np.ndarray]]:
    """Score terms of a manifest's rows, by video."""
    features = (load_features(feature_file(cache, row)) for row in rows.itertuples())
    return dict(zip(rows.video, scorer.terms(features)))


def save_scorer(path: Path, scorer: Scorer, meta: dict) -> None:
    """Write a scorer as one safetensors file; memories in half precision."""
    tensors = {f"detector.{name}": value for name, value in scorer.detector.state_dict().items()}
    tensors |= dict(bank=scorer.bank, memory=scorer.memory.half())
    save_weights(
        path,
        tensors,
        {
            **meta,
            "captions": scorer.captions,
            "statistics": scorer.statistics,
            "plain_extractor": scorer.plain_extractor,
        },
    )


def load_scorer(path: Path) -> tuple[Scorer, dict]:
    """Read a file of `save_scorer`; also gives its header.

    Raises:
        ZsadError: missing or damaged file.
    """
    tensors, meta = load_weights(path)
    detector = detector_from(tensors, meta, prefix="detector.")
    statistics = {name: tuple(pair) for name, pair in meta["statistics"].items()}
    scorer = Scorer(
        detector, tensors["bank"], meta["captions"], tensors["memory"].float(), statistics, meta["plain_extractor"]
    )
    return scorer, meta


def write_frames(path: Path, fps: float, columns: dict[str, np.ndarray]) -> None:
    """One score file: columns frame, time_s, and `columns` [T] in their order; then `paths.flush_all`."""
    length = len(next(iter(columns.values())))
    rows = zip(*(values.tolist() for values in columns.values()))
    lines = [f"{t},{t / fps:.3f}," + ",".join(f"{value:.6g}" for value in row) for t, row in zip(range(length), rows)]
    with paths.atomic(path, flush=False) as handle:
        handle.write(f"frame,time_s,{','.join(columns)}\n" + "\n".join(lines) + "\n")


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
    terms |= _terms(scorer, cache, test)
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
