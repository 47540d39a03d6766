"""A trained detector with all that turns windows into scores: caption bank, memory, statistics of held-out normal
video.

Notebook: 21_score_video
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones, device, outline
from zsad_lib.features.cache import VideoFeatures, cache_folder, feature_file, load_features
from zsad_lib.features.window_plan import last_seen
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.methods.context_aware import local_readout, scores
from zsad_lib.methods.context_aware.train import detector_from
from zsad_lib.models.detector import Detector
from zsad_lib.models.regions import strongest


@dataclasses.dataclass
class Scorer:
    """A trained detector with all that scoring needs beside it: texts, memories, and statistics of normal video."""

    detector: Detector
    bank: Tensor  # [K, D] unit vectors of the distinct training captions, or of their clauses
    captions: list[str]  # the K captions
    memory: Tensor  # [N, J] joint vectors of the training windows, from frozen features
    region_memory: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # [M, J'] `region_keys`, the same
    statistics: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # `scores.normal_statistics`
    causal_statistics: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # as known live
    lowest: dict[str, float] = dataclasses.field(default_factory=dict)  # term -> where there is nothing to score
    local: bool = False  # read-out of the regions
    grid: tuple[int, int] = local_readout.GRID  # rows and columns of cells, in which regions lie
    plain_extractor: bool = False  # released defect 9
    prompts: list[str] = dataclasses.field(default_factory=list)  # A abnormal sentences; they name
    prompt_weight: float = 0.0  # of `s_prompt`, their share of the probability, in the score; 0: they never score
    prompt_bank: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # [A, D] their unit vectors
    scene: Tensor | None = None  # [S] scene feature of a described scene; it stands for the one in the picture
    answers: dict[str, np.ndarray] | None = None  # of memories, kept by what was asked; None: none are kept

    def terms(self, videos: Iterable[VideoFeatures], remembered: bool = True) -> Iterator[dict[str, np.ndarray]]:
        """Score terms of each video's W windows, float64, by name.

        Of a global read-out [W]; of a local one `s_sem` and `s_mem` [W, T], of the pictures that a window looks at,
        and `s_pred` [W, 2], see `zsad_lib.methods.context_aware.local_readout`, and `region` [W, T, 2], where the
        oddest region of each picture lies; `s_mem_global` [W] in both. `caption` [W] is the number of the best-fitting
        caption, -1 where nothing is seen. `s_motion` is there only where the features hold the motion of every frame,
        and `prompts` [W, A], the probabilities of the abnormal prompts beside the normal captions, only where there are
        prompts. Those of `memory_terms` are left out unless `remembered`.
        """
        yield from (self._local_terms if self.local else self._global_terms)(videos, remembered)

    @torch.no_grad()
    def _global_terms(self, videos: Iterable[VideoFeatures], remembered: bool) -> Iterator[dict[str, np.ndarray]]:
        d, (features_of, streamed) = self.detector, itertools.tee(videos)
        for features, predicted in zip(features_of, scores.predictive_terms(d.dpc, streamed)):
            timesformer, scene = features.timesformer.to(self.bank.device), self._scene(features)
            v = d.embed(timesformer, predicted.plain if self.plain_extractor else predicted.context)
            context = d.context(scene)
            similarity = d.gate.logits(v, self.bank, context)
            terms = {"s_sem": scores.semantic_score(similarity), **predicted.terms, "caption": similarity.argmax(-1)}
            if self.prompts:
                _, terms["prompts"] = scores.prompt_scores(similarity, d.gate.logits(v, self.prompt_bank, context))
            if d.anchor is not None and remembered:
                terms["s_mem_global"] = torch.from_numpy(self._novelty(timesformer, scene))
            yield {name: value.double().cpu().numpy() for name, value in terms.items()}

    @torch.no_grad()
    def _local_terms(self, videos: Iterable[VideoFeatures], remembered: bool) -> Iterator[dict[str, np.ndarray]]:
        d = self.detector
        for features in videos:
            scene, window = self._scene(features), features.region_at[:, 0].long()
            vectors, count = features.region.float().to(self.bank.device), len(features.timesformer)
            texts = torch.cat([self.bank, self.prompt_bank]) if self.prompts else self.bank
            similarity = local_readout.region_similarity(d.gate, vectors, window, texts, d.context(scene))
            normal, abnormal = similarity.tensor_split([len(self.bank)], -1)
            s_sem, at = scores.semantic_score(normal), features.region_at.numpy()
            terms = {"s_sem": strongest(s_sem.cpu().numpy(), at, count)}
            terms |= self.memory_terms(features) if remembered and len(self.memory) else {}
            if d.dpc is not None:
                terms["s_pred"] = local_readout.block_scores(
                    d.dpc, features.stem, features.cell_motion, d.moving_from.item()
                )
            oddest = local_readout.oddest_region(s_sem.cpu().numpy(), at, count)  # [W]
            seen, caption = oddest >= 0, np.full(count, -1.0)
            caption[seen] = normal[oddest[seen]].argmax(-1).cpu().numpy()
            terms["caption"] = caption
            terms["region"] = local_readout.oddest_places(s_sem.cpu().numpy(), at, count, self.grid)
            if self.prompts:
                terms["prompts"] = np.zeros((count, len(self.prompts)))
                terms["prompts"][seen] = scores.prompt_scores(normal[oddest[seen]], abnormal[oddest[seen]])[1].cpu()
                if self.prompt_weight:
                    terms["s_prompt"] = terms["prompts"].sum(-1)
            if len(features.motion):
                terms["s_motion"] = scores.window_motion(features.motion, count).double().numpy()
            yield terms

    @torch.no_grad()
    def memory_terms(self, features: VideoFeatures) -> dict[str, np.ndarray]:
        """Of `terms` those that another memory changes."""
        d, scene, timesformer = self.detector, self._scene(features), features.timesformer.to(self.bank.device)
        terms = {"s_mem_global": self._novelty(timesformer, scene).astype(float)}
        if self.local:
            vectors, at = features.region.float().to(self.bank.device), features.region_at
            keys = local_readout.region_keys(vectors, d.standardised(scene)[at[:, 0].long()])
            terms["s_mem"] = strongest(self._ask(self.region_memory, keys), at.numpy(), len(timesformer))
        return terms

    def _scene(self, features: VideoFeatures) -> Tensor:
        scene = features.scene.to(self.bank.device)
        return scene if self.scene is None else self.scene.expand_as(scene)

    def _novelty(self, timesformer: Tensor, scene: Tensor) -> np.ndarray:
        d = self.detector
        return self._ask(self.memory, scores.joint(d.anchor(timesformer), d.standardised(scene)))

    def _ask(self, memory: Tensor, keys: Tensor) -> np.ndarray:
        """`local_readout.region_novelty`, which is asked once where `answers` are kept: nothing trained enters it."""
        name = None if self.answers is None else f"{_memory_digest(memory)} {_digest(keys)}"
        if name is None or name not in self.answers:
            novelty = local_readout.region_novelty(keys, memory).cpu().numpy()
            if name is None:
                return novelty
            self.answers[name] = novelty
        return self.answers[name]

    def frames(
        self, terms: dict[str, np.ndarray], n_frames: int, seen: int | np.ndarray = 1, causal: bool = False
    ) -> dict[str, np.ndarray]:
        """The terms of windows as terms of frames, [n_frames] each; NaN in frames before a causal one is known.

        Args:
            terms: of `terms`, of one video.
            n_frames, seen, causal: see `zsad_lib.features.window_plan.at_frames`.
        """
        last = last_seen(n_frames, seen)
        named = {name: values for name, values in terms.items() if name.startswith("s_")}
        return {
            name: local_readout.to_frame_scores(name, values, last[-1] + 1, self.lowest.get(name, 0.0), causal)[last]
            for name, values in named.items()
        }

    def fuse(self, frames: dict[str, np.ndarray], names: tuple[str, ...], causal: bool = False) -> np.ndarray:
        """`scores.fuse` of the named terms of frames with the scorer's statistics; equal weights, but `prompt_weight`:
        [T]."""
        names = scores.causal_terms(names) if causal else names
        weights = [self.prompt_weight if name == "s_prompt" else 1.0 for name in names]
        return scores.fuse(frames, self.causal_statistics if causal else self.statistics, names, weights)

    def score(
        self,
        terms: dict[str, np.ndarray],
        names: tuple[str, ...],
        n_frames: int,
        seen: int | np.ndarray = 1,
        causal: bool = False,
    ) -> np.ndarray:
        """The fused score of every frame, from the terms of windows: [n_frames]; see `frames`."""
        return self.fuse(self.frames(terms, n_frames, seen, causal), names, causal)

    def calibrate(self, normal: list[tuple[dict[str, np.ndarray], int]], seen: int = 1) -> None:
        """Keeps the `normal_statistics` of every term over held-out normal videos, and its smallest value there.

        Args:
            normal: terms and number of frames of each video.
            seen: every so many-th frame was seen.
        """
        for name in (name for name in normal[0][0] if name.startswith("s_") and normal[0][0][name].ndim > 1):
            values = np.concatenate([terms[name].ravel() for terms, _ in normal])
            values = values[np.isfinite(values)]
            self.lowest[name] = float(values.min()) if len(values) else 0.0
        for causal, kept in ((False, self.statistics), (True, self.causal_statistics)):
            frames = [self.frames(terms, n_frames, seen, causal) for terms, n_frames in normal]
            joined = {name: np.concatenate([values[name] for values in frames]) for name in frames[0]}
            kept |= scores.normal_statistics({name: values[np.isfinite(values)] for name, values in joined.items()})


def make_scorer(
    profile: Profile,
    detector: Detector,
    table: pd.DataFrame,
    caption_vectors: tuple[list[str], Tensor],
    released: tuple[str, ...],
    local: bool = False,
    answers: dict[str, np.ndarray] | None = None,
) -> tuple[Scorer, dict[str, dict[str, np.ndarray]]]:
    """Bank, memories and statistics of one trained detector, from training and held-out NORMAL validation video only.

    Also gives the score terms of those held-out videos. Without an anchor there is no memory: its space is the
    anchor's.

    Args:
        profile: whose features are read.
        detector: trained.
        table: manifest.
        caption_vectors: distinct training captions, or clauses of a local read-out, and their unit vectors [K, D].
        released: switches of defects that act on scores.
        local: read-out of the regions.
        answers: see `Scorer`; of the same features, whatever was trained.
    """
    cache = cache_folder(profile)
    detector, bank = detector.to(device()), caption_vectors[1].to(device())
    plain = "plain_extractor" in released
    grid = outline(profile.backbones).grid
    parts = dict(local=local, grid=grid, plain_extractor=plain, answers=answers)
    scorer = Scorer(detector, bank, caption_vectors[0], torch.empty(0), **parts)
    if detector.anchor is not None:
        videos = {row.video: load_features(feature_file(cache, row)) for row in remembered(table).itertuples()}
        scorer = with_memory(scorer, list(videos.values()), [videos[video] for video in remembered_whole(table)])
    held_out = normal_rows(table, "val")
    terms = terms_of(scorer, cache, held_out)
    scorer.calibrate([(terms[row.video], row.n_frames) for row in held_out.itertuples()], profile.stride)
    return scorer, terms


def with_memory(
    scorer: Scorer, videos: Sequence[VideoFeatures], whole: Sequence[VideoFeatures] | None = None
) -> Scorer:
    """The scorer with another memory: of what normal videos show; without statistics, which belong to a memory.

    Args:
        scorer: whose memories are replaced.
        videos: whose regions are remembered.
        whole: whose windows are remembered as wholes; None: the same.
    """
    d, whole = scorer.detector, videos if whole is None else whole
    seen = d.standardised(torch.cat([f.scene for f in whole]).to(scorer.bank.device))
    timesformer = torch.cat([f.timesformer for f in whole]).to(scorer.bank.device)
    changes = {"memory": scores.joint(d.anchor(timesformer), seen)}
    if scorer.local:
        scene = d.standardised(torch.cat([f.scene for f in videos]).to(scorer.bank.device))
        first = np.cumsum([0, *(len(f.timesformer) for f in videos)])
        window = torch.cat([f.region_at[:, 0].long() + start for f, start in zip(videos, first)])
        vectors = torch.cat([f.region for f in videos]).float().to(scorer.bank.device)
        changes["region_memory"] = local_readout.remember(local_readout.region_keys(vectors, scene[window]))
    return dataclasses.replace(scorer, **changes, statistics={}, causal_statistics={}, lowest={})


def crossed(
    scorer: Scorer, halves: Sequence[Sequence[VideoFeatures]]
) -> tuple[Scorer, list[list[dict[str, np.ndarray]]]]:
    """The scorer that remembers two halves of normal video, and what each half is to the memory of the other.

    What is remembered cannot tell what is usual. So each half is held out in turn, and all of the video tells it; the
    memory that is kept holds twice as much, so that its scores are, if anything, lower.

    Args:
        scorer: whose memory is replaced; without statistics.
        halves: pieces of video of the first and of the second half.

    Returns:
        the scorer, and `Scorer.memory_terms` of every piece of both halves.
    """
    asked = []
    for half, other in zip(halves, reversed(halves)):
        memory = with_memory(scorer, other)
        asked.append([memory.memory_terms(piece) for piece in half])
    return with_memory(scorer, [*halves[0], *halves[1]]), asked


def remembered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the training videos whose regions are remembered: of all."""
    return table[(table.split == "train") & (table.family == "normal") & (table.spans == "")]


def remembered_whole(table: pd.DataFrame) -> list[str]:
    """Videos of `remembered` whose windows are remembered as wholes: clips, where a data set has clips and streams.

    Many windows of a stream are nearly empty, and next to them any window whose actor is far away seems familiar.
    Validation streams lose nothing by it, and clips gain.
    """
    rows = remembered(table)
    return list(rows.video[rows.set != "stream"] if (rows.set != "stream").any() else rows.video)


def normal_rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of a split that hold normal video alone: its streams, where a data set has them, else all."""
    rows = table[(table.split == split) & (table.family == "normal") & (table.spans == "")]
    return rows[rows.set == "stream"] if (rows.set == "stream").any() else rows


def terms_of(scorer: Scorer, cache: Path, rows: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Score terms of a manifest's rows, by video."""
    features = (load_features(feature_file(cache, row)) for row in rows.itertuples())
    return dict(zip(rows.video, scorer.terms(features)))


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().contiguous().numpy()).hexdigest()


_memory_digest = functools.lru_cache(maxsize=4)(_digest)  # every video asks the same few


def save_scorer(path: Path, scorer: Scorer, meta: dict) -> None:
    """Write a scorer as one safetensors file; memories in half precision."""
    tensors = {f"detector.{name}": value for name, value in scorer.detector.state_dict().items()}
    tensors |= dict(bank=scorer.bank, memory=scorer.memory.half(), region_memory=scorer.region_memory.half())
    header = {name: getattr(scorer, name) for name in (*HEADER, "grid")}
    save_weights(path, tensors, {**meta, **header})


HEADER = ("captions", "statistics", "causal_statistics", "lowest", "local", "plain_extractor")


def load_scorer(path: Path, streams: Callable[[dict], Backbones] | None = None) -> tuple[Scorer, dict]:
    """Read a file of `save_scorer`; also gives its header.

    Args:
        path: of the file.
        streams: gives the streams that a detector of some header sees with, for `detector_from`.

    Raises:
        ZsadError: missing or damaged file, or one of an earlier version of the kit.
    """
    tensors, meta = load_weights(path)
    if not meta.keys() >= set(HEADER):
        raise ZsadError(f"{path}: a detector of an earlier version of the kit; train or calibrate it again")
    detector = detector_from(tensors, meta, "detector.", streams and streams(meta))
    kept = {name: meta[name] for name in HEADER}
    for name in ("statistics", "causal_statistics"):
        kept[name] = {term: tuple(pair) for term, pair in meta[name].items()}
    kept["grid"] = tuple(meta.get("grid", local_readout.GRID))
    memories = {name: tensors[name].float() for name in ("memory", "region_memory")}
    return Scorer(detector, tensors["bank"], **memories, **kept), meta
