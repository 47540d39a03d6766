r"""Why a window scored as it did: everything behind the score of one video, computed once, to be drawn and turned.

    s = sum_i w_i (s_i - mean_i) / deviation_i      each summand is the contribution of a term; nothing else enters the
    score s_pred = sum over cells of weight * error       weight = d s_pred / d error: which cells entered the mean over
    the moving ones t' = t + g * (gate(t, c) - t)                   g = 1: the detector; g = 0: no context; every other
    term stays

The second and third are the kit's own.

Two questions need another scene than the video's own. The same windows are then scored with the scene feature of
another place, in every term that reads a scene. The clearest answer comes from a place that the reader names, as a
video or a folder of frames. Without one the detector's own training serves: its memory of normal windows holds their
scenes, and k-means picks `CLUSTERS` of them.

All of it says what the detector computed, not why the world is as it is. Attention rollout (`models.attention_rollout`)
shows where the TimeSformer read, which is no proof of what mattered; `lift` measures how much of it lies where
something moves.

Notebook: 51_explain_a_score
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import KINETICS, STAND_IN_SIZE, Backbones, device, normalise, stand_ins
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.extraction import Extractor, encode_long, window_blocks
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, MIDDLE_FRAME
from zsad_lib.files.video import read_video
from zsad_lib.methods.context_aware import scores
from zsad_lib.methods.context_aware.scorer import Scorer
from zsad_lib.models.attention_rollout import rollout
from zsad_lib.models.text import UNKNOWN, encode_captions, tokenize
from zsad_lib.own_video.detector import NO_WORDS, TERMS, Words, own_scorer
from zsad_lib.own_video.scoring import seen_frames, window_features
from zsad_lib.own_video.ticks import Seen

LOOKED_AT = 60  # windows with pictures and attention, at most
SHOWN_SIZE = (144, 192)  # height, width of those pictures
CLUSTERS = 4  # scenes of training that stand in where no other place is given


class Why(NamedTuple):
    """Explanation of a video of W windows; M of them are looked at, with their T frames."""

    video: str  # file name
    scorer: Scorer  # detector, K captions, A prompts
    times: np.ndarray  # [W] seconds of the middle frames
    terms: dict[str, np.ndarray]  # term -> [W] contribution to the score, deviations from held-out normal video
    score: np.ndarray  # [W] their sum
    embedding: Tensor  # [W, D] v
    context: Tensor  # [W, C] c
    ungated: Tensor  # [W, K + A] similarities with captions, then prompts, as the sentences stand
    gated: Tensor  # [W, K + A] with the sentences gated by the window's own scene
    prompts: np.ndarray  # [W, A] share of each prompt in a softmax over all sentences
    scenes: dict[str, np.ndarray]  # name of another scene -> [W] score, had it happened there
    errors: np.ndarray  # [W, P, h, w] prediction error of each block and cell, 0..2
    weights: np.ndarray  # [W, P, h, w] weight of each cell in s_pred; a window's weights sum to 1
    at: np.ndarray  # [M] numbers of the windows looked at, in order
    frames: np.ndarray  # [M, T, H, W, 3] uint8, the frames that the TimeSformer sees
    rollout: np.ndarray  # [M, T, rows, columns] relevance of each patch for the window's feature
    motion: np.ndarray  # [M, T, rows, columns] change of each patch, grey levels

    @property
    def captions(self) -> int:
        """K, how many of the sentences are captions of normal video."""
        return len(self.scorer.captions)

    @property
    def sentences(self) -> list[str]:
        """All K + A sentences, captions first."""
        return [*self.scorer.captions, *self.scorer.prompts]


@torch.no_grad()
def explain(
    path: str | Path,
    run: str | None = None,
    words: Words = NO_WORDS,
    at: Sequence[float] | None = None,
    scenes: Mapping[str, str | Path] | None = None,
) -> Why:
    """Takes the score of a video apart.

    Args:
        path: any file that a decoder reads, or a folder of frames.
        run: name of a run with a trained detector; None takes the one shipped with the package, as in `score_video`.
        words: the user's own sentences.
        at: seconds of the windows to look at; None: the `LOOKED_AT` that score highest, which are all of a short video.
        scenes: name -> video of another place, for the score had it happened there; None: scenes of the detector's
            training, none where it was calibrated to one camera.

    Raises:
        ZsadError: unreadable video, a run without a detector, no time in `at`.
    """
    if at is not None and len(at) == 0:
        raise ZsadError("explain: at=[] names no window; give seconds such as at=[2.5], or leave it out")
    scorer, meta = own_scorer(run, words)
    described, scorer.scene = scorer.scene, None  # each piece carries its scene, so that another one can take its place
    tool, seen = Extractor(stand_ins()), Seen()
    if scenes is None:
        elsewhere = {} if "normal" in meta else training_scenes(scorer)  # a calibrated memory knows one place
    else:
        elsewhere = {name: scene_of(video, tool) for name, video in scenes.items()}
    features = window_features(seen_frames(path, seen), tool)
    if described is not None:
        features = (piece._replace(scene=described.expand_as(piece.scene)) for piece in features)
    pieces = [_parts(scorer, elsewhere, piece) for piece in features]
    part = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    vectors = {name: torch.from_numpy(part[name]) for name in ("embedding", "context", "ungated", "gated")}
    _, prompts = scores.prompt_scores(*vectors["gated"].tensor_split([len(scorer.captions)], -1))
    score = scorer.fuse(part, TERMS)
    shown, parts = seen.shown(), list(seen.parts())  # [S] frame that each tick shows
    starts = [part.ticks.start + BLOCK_LEN * np.arange(part.windows.stop - part.windows.start) for part in parts]
    last = np.concatenate([np.full(len(some), part.ticks.stop - 1) for some, part in zip(starts, parts)])  # [W] tick
    starts = np.concatenate(starts)  # [W] first tick of each window
    times = np.array(seen.times)[shown[np.minimum(starts + MIDDLE_FRAME, last)]]
    looked = np.argsort(-score, kind="stable")[:LOOKED_AT] if at is None else [np.abs(times - s).argmin() for s in at]
    looked = np.unique(looked)
    ticks = np.minimum(starts[looked, None] + np.array(CLIP_FRAMES), last[looked, None])  # [M, T]
    numbers, index = np.unique(shown[ticks], return_inverse=True)
    index, decoded = index.reshape(ticks.shape), len(seen.times)
    small, pictures = (read_video(path, numbers, size, decoded=decoded)[index] for size in (STAND_IN_SIZE, SHOWN_SIZE))
    small = torch.from_numpy(small)
    clips = normalise(small.to(device()), KINETICS).transpose(1, 2)  # [M, 3, T, H, W]
    relevance = rollout(tool.backbones.timesformer, clips).cpu()
    return Why(
        video=Path(path).name,
        scorer=scorer,
        times=times,
        terms={name: scorer.fuse(part, (name,)) for name in TERMS},
        score=score,
        **vectors,
        prompts=prompts.numpy(),
        scenes={name: part[f"in {name}"] for name in elsewhere},
        errors=part["errors"],
        weights=part["weights"],
        at=looked,
        frames=pictures,
        rollout=relevance.numpy(),
        motion=moved(small, relevance.shape[2:]).numpy(),
    )


def _parts(scorer: Scorer, elsewhere: Mapping[str, Tensor], piece: VideoFeatures) -> dict[str, np.ndarray]:
    """What `Why` holds of all windows of a piece, and the raw terms, by name; scores under other scenes as "in
    NAME"."""
    d, (terms,) = scorer.detector, scorer.terms([piece])
    (predicted,) = scores.predictive_terms(d.dpc, [piece])
    v = d.embed(piece.timesformer, predicted.plain if scorer.plain_extractor else predicted.context)
    sentences, context = torch.cat([scorer.bank, scorer.prompt_bank]), d.context(piece.scene)
    errors = scores.error_map(d.dpc.predict(window_blocks(encode_long(d.dpc, piece.stem[None])[0])))  # [W, P, h, w]
    tensors = {"embedding": v, "context": context, "errors": errors}
    tensors |= {"ungated": v @ sentences.T, "gated": d.gate.logits(v, sentences, context)}
    tensors["weights"] = cell_weights(errors, window_blocks(piece.cell_motion)[:, -d.dpc.pred_steps :])
    for name, scene in elsewhere.items():
        (terms_there,) = scorer.terms([piece._replace(scene=scene.expand_as(piece.scene))])
        terms[f"in {name}"] = scorer.fuse(terms_there, TERMS)
    return terms | {name: value.cpu().numpy() for name, value in tensors.items()}


@torch.enable_grad()
def cell_weights(errors: Tensor, motion: Tensor) -> Tensor:
    """weight = d s_pred / d error of every cell: errors and motion [B, P, h, w] -> [B, P, h, w], 0 where a cell did not
    enter."""
    errors = errors.detach().requires_grad_()
    total = scores.moving_mean(errors[:, : scores.SCORED_STEPS], motion[:, : scores.SCORED_STEPS]).sum()
    return torch.autograd.grad(total, errors)[0]


def scene_of(path: str | Path, tool: Extractor) -> Tensor:
    """Scene feature of a place: mean over the windows of a video of it, [S]."""
    return torch.cat([piece.scene for piece in window_features(seen_frames(path, Seen()), tool)]).mean(0)


def training_scenes(scorer: Scorer) -> dict[str, Tensor]:
    """Typical scenes of a detector's training: name -> scene feature [S].

    The memory keeps of each scene the direction of its standardised feature. k-means groups the directions, and the
    window nearest to a group's centre speaks for it, with the length that standardised features have on average,
    sqrt(S). Its name is the caption that the gate opens there more than in the other scenes: the detector's own words,
    not a label.
    """
    d = scorer.detector
    half = F.normalize(scorer.memory[:, -len(d.scene_mean) :], dim=-1)  # [N, S]
    groups = KMeans(min(CLUSTERS, len(half.unique(dim=0))), n_init=4, random_state=0).fit(half.numpy())
    nearest = torch.from_numpy(groups.transform(half.numpy())).argmin(0)  # [M]
    scenes = d.scene_along(half[nearest])  # [M, S]
    fit = torch.einsum("kd,mkd->mk", scorer.bank, d.gate(scorer.bank, d.context(scenes)))
    own_caption = (fit - fit.mean(0)).argmax(1).tolist()
    named = enumerate(zip(own_caption, scenes), start=1)
    return {f"training scene {i}: {scorer.captions[k]}": scene for i, (k, scene) in named}


def at_strength(why: Why, gate: float) -> np.ndarray:
    """Score [W] with t' = t + g * (gate(t, c) - t): g = 1 is the score, at g = 0 the scene says nothing about the
    captions.

    The mean and the standard deviation of s_sem stay those of the gated captions, so without gate the whole curve also
    moves down or up: look at its shape.
    """
    captions = slice(why.captions)
    similarity = torch.lerp(why.ungated[:, captions], why.gated[:, captions], gate)  # [W, K]
    s_sem = scores.semantic_score(similarity).double().numpy()
    return why.score - why.terms["s_sem"] + why.scorer.fuse({"s_sem": s_sem}, ("s_sem",))


@torch.no_grad()
def fit_sentence(why: Why, sentence: str, b: Backbones) -> tuple[np.ndarray, list[str]]:
    """How well any sentence fits: similarity v . gate(t, c) of every window [W], and the words that the text tower has
    never seen."""
    length, words = b.clip.context_length, sentence.split()
    unknown = [word for word in words if (tokenize([word], length, b.vocabulary, False) == UNKNOWN).any()]
    t = encode_captions(b.clip, [sentence], b.vocabulary, warn=False)
    return why.scorer.detector.gate.logits(why.embedding, t, why.context)[:, 0].numpy(), unknown


def moved(frames: Tensor, grid: tuple[int, int]) -> Tensor:
    """Change of each patch since the frame before (of the first frame: until the next), grey levels: [M, T, H, W, 3] ->
    [M, T, *grid]."""
    change = frames.float().diff(dim=1).abs().mean(-1)  # [M, T - 1, H, W]
    return F.adaptive_avg_pool2d(torch.cat([change[:, :1], change], 1), grid)


def lift(relevance: np.ndarray, motion: np.ndarray) -> float:
    """How many times more of `relevance` lies on places that move than on an average one; 1: motion does not matter, or
    there is none.

    Args:
        relevance, motion: arrays of one shape, 0 or more.

    >>> lift(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.0, 5.0]))
    2.0
    """
    return float((relevance * motion).sum() / motion.sum() / relevance.mean()) if motion.any() else 1.0
