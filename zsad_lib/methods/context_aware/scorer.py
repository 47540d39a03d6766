"""A trained detector with all that turns windows into scores: caption bank, memory, statistics of held-out normal
video.

Notebook: 21_score_video
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.features.backbones import device
from zsad_lib.features.cache import VideoFeatures, cache_folder, feature_file, load_features
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.methods.context_aware import scores
from zsad_lib.methods.context_aware.train import detector_from
from zsad_lib.models.detector import Detector


@dataclasses.dataclass
class Scorer:
    """A trained detector with all that scoring needs beside it: caption bank, memory, and statistics of normal
    video."""

    detector: Detector
    bank: Tensor  # [K, D] unit vectors of the distinct training captions
    captions: list[str]  # the K captions
    memory: Tensor  # [N, J] joint vectors of the training windows, from frozen features
    statistics: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # `scores.normal_statistics`
    plain_extractor: bool = False  # released defect 9
    prompts: list[str] = dataclasses.field(default_factory=list)  # A abnormal sentences; they name, they never score
    prompt_bank: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # [A, D] their unit vectors
    scene: Tensor | None = None  # [S] scene feature of a described scene; it stands for the one in the picture

    @torch.no_grad()
    def terms(self, videos: Iterable[VideoFeatures]) -> Iterator[dict[str, np.ndarray]]:
        """Score terms of each video's W windows: name -> [W] float64; `caption` is the number of the best-fitting
        caption.

        `s_motion` is there only where the features hold the motion of every frame, and `prompts` [W, A], the
        probabilities of the abnormal prompts beside the normal captions, only where there are prompts.
        """
        d, (features_of, streamed) = self.detector, itertools.tee(videos)
        for features, predicted in zip(features_of, scores.predictive_terms(d.dpc, streamed)):
            timesformer, scene = (x.to(self.bank.device) for x in (features.timesformer, features.scene))
            scene = scene if self.scene is None else self.scene.expand_as(scene)
            v = d.embed(timesformer, predicted.plain if self.plain_extractor else predicted.context)
            context = d.context(scene)
            similarity = d.gate.logits(v, self.bank, context)
            terms = {"s_sem": scores.semantic_score(similarity), **predicted.terms, "caption": similarity.argmax(-1)}
            if self.prompts:
                _, terms["prompts"] = scores.prompt_scores(similarity, d.gate.logits(v, self.prompt_bank, context))
            if d.anchor is not None:
                query = scores.joint(d.anchor(timesformer), d.standardised(scene))
                terms["s_mem"] = scores.neighbour_score(query, self.memory)
            yield {name: value.double().cpu().numpy() for name, value in terms.items()}

    def fuse(self, terms: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
        """`scores.fuse` of the named terms with the scorer's statistics and equal weights; [W]."""
        return scores.fuse(terms, self.statistics, names)

    def calibrate(self, normal: list[dict[str, np.ndarray]]) -> None:
        """Keeps the `normal_statistics` of every term over held-out normal videos."""
        names = [name for name in normal[0] if name != "caption"]
        self.statistics |= scores.normal_statistics(
            {name: np.concatenate([terms[name] for terms in normal]) for name in names}
        )


def make_scorer(
    profile: Profile,
    detector: Detector,
    table: pd.DataFrame,
    caption_vectors: tuple[list[str], Tensor],
    released: tuple[str, ...],
) -> tuple[Scorer, dict[str, dict[str, np.ndarray]]]:
    """Bank, memory and statistics of one trained detector, from training and held-out NORMAL validation video only.

    Also gives the score terms of those held-out videos. Without an anchor there is no memory: its space is the
    anchor's.

    Args:
        profile: whose features are read.
        detector: trained.
        table: manifest.
        caption_vectors: distinct training captions and their unit vectors [K, D].
        released: switches of defects that act on scores.
    """
    cache, memory = cache_folder(profile), torch.empty(0)
    if detector.anchor is not None:
        rows = table[(table.split == "train") & (table.family == "normal")]
        train = [load_features(feature_file(cache, row)) for row in rows.itertuples()]
        scene = detector.standardised(torch.cat([f.scene for f in train]))
        memory = scores.joint(detector.anchor(torch.cat([f.timesformer for f in train])), scene)
    detector, bank, memory = detector.to(device()), caption_vectors[1].to(device()), memory.to(device())
    scorer = Scorer(detector, bank, caption_vectors[0], memory, plain_extractor="plain_extractor" in released)
    normal = table[(table.split == "val") & (table.family == "normal") & (table.spans == "")]
    terms = terms_of(scorer, cache, normal)
    scorer.calibrate(list(terms.values()))
    return scorer, terms


def terms_of(scorer: Scorer, cache: Path, rows: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Score terms of a manifest's rows, by video."""
    features = (load_features(feature_file(cache, row)) for row in rows.itertuples())
    return dict(zip(rows.video, scorer.terms(features)))


def save_scorer(path: Path, scorer: Scorer, meta: dict) -> None:
    """Write a scorer as one safetensors file; memories in half precision."""
    tensors = {f"detector.{name}": value for name, value in scorer.detector.state_dict().items()}
    tensors |= dict(bank=scorer.bank, memory=scorer.memory.half())
    header = {name: getattr(scorer, name) for name in ("captions", "statistics", "plain_extractor")}
    save_weights(path, tensors, {**meta, **header})


def load_scorer(path: Path) -> tuple[Scorer, dict]:
    """Read a file of `save_scorer`; also gives its header.

    Raises:
        ZsadError: missing or damaged file.
    """
    tensors, meta = load_weights(path)
    detector = detector_from(tensors, meta, prefix="detector.")
    statistics = {name: tuple(pair) for name, pair in meta["statistics"].items()}
    memory = tensors["memory"].float()
    return Scorer(detector, tensors["bank"], meta["captions"], memory, statistics, meta["plain_extractor"]), meta
