r"""Why a window scored as it did: everything behind the score of one video, computed once, to be drawn and turned.

    s = sum_i w_i (s_i - mean_i) / deviation_i      at a window's middle frame; each summand is what a term contributes
    s_pred = sum over cells of weight * error       weight = d s_pred / d error: 1 for the worst moving cell
    t' = t + g * (gate(t, c) - t)                   g = 1: the detector; g = 0: no context; every other term stays

The second and third are the kit's own.

The region that stands out most, with the largest s_sem of a window, speaks for it: its place in one of the window's
pictures, its sentences, its name (`name_region`). A window in which nobody is seen has none.

Two questions need another scene than the video's own. The same windows are then scored with the scene feature of
another place, in every term that reads a scene. The clearest answer comes from a place that the reader names, as a
video or a folder of frames. Without one the detector's own training serves: its memory of normal windows holds their
scenes, and k-means picks some of them
(`other_scenes`).

All of it says what the detector computed, not why the world is as it is. Attention rollout (`models.attention_rollout`)
shows where the TimeSformer read, which is no proof of what mattered; `lift` measures how much of it lies where
something moves.

Notebook: 51_explain_a_score
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import KINETICS, device, normalise
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, MIDDLE_FRAME, NUM_BLOCKS, OBSERVED, WINDOW
from zsad_lib.files.video import read_video
from zsad_lib.methods.context_aware import local_readout, scores
from zsad_lib.methods.context_aware.scorer import Scorer
from zsad_lib.models.attention_rollout import rollout
from zsad_lib.models.regions import strongest
from zsad_lib.models.text import UNKNOWN, encode_captions, tokenize
from zsad_lib.own_video.detector import AS_IT_IS, RATE, OwnDetector, Sees, own_detector
from zsad_lib.own_video.name_region import NOTHING, name_region, place_in_words
from zsad_lib.own_video.other_scenes import scene_of, training_scenes
from zsad_lib.own_video.own_scale import scale_by_itself
from zsad_lib.own_video.scoring import assumed, check_given, join_terms, pieces, seen_frames
from zsad_lib.own_video.ticks import Part, Seen
from zsad_lib.own_video.words import NO_WORDS, Words

LOOKED_AT = 60  # windows with pictures and attention, at most
MOMENTS = 3  # of a video, the strongest, that a few words are about
SHOWN_SIZE = (144, 192)  # height, width of those pictures


class Why(NamedTuple):
    """Explanation of a video of W windows with R regions; M windows are looked at, with their T frames."""

    video: str  # file name
    own: OwnDetector  # detector, K captions, A prompts
    parts: list[Part]  # stretches of the video
    times: np.ndarray  # [W] seconds of the middle frames
    terms: dict[str, np.ndarray]  # term -> [W] contribution to the score there, in its deviations
    score: np.ndarray  # [W] their sum
    regions: Tensor  # [R, E] unit vectors
    places: np.ndarray  # [R, 4] window, picture, row and column of each
    fired: np.ndarray  # [W] number of the region that stands out most, -1 where there is none
    grid: tuple[int, int]  # rows and columns of patches
    embedding: Tensor  # [W, E] v, vector of that region; this and the next two are NaN where there is none
    context: Tensor  # [W, C] c
    ungated: Tensor  # [W, K + A] similarities with captions, then prompts, as the sentences stand
    gated: Tensor  # [W, K + A] with the sentences gated by the window's own scene
    prompts: np.ndarray  # [W, A] share of each prompt in a softmax over all sentences; 0 without a region
    scenes: dict[str, np.ndarray]  # name of another scene -> [W] score, had it happened there
    errors: np.ndarray  # [W, P, h, w] prediction error of each block and cell; h = 0 where nothing is predicted
    weights: np.ndarray  # [W, P, h, w] 1 for the worst of the cells that move, 0 for all others
    at: np.ndarray  # [M] numbers of the windows looked at, in order
    frames: np.ndarray  # [M, T, H, W, 3] uint8, the frames that the TimeSformer sees
    rollout: np.ndarray | None  # [M, T, rows, columns] relevance of each patch for the window's feature
    motion: np.ndarray  # [M, T, rows, columns] change of each patch, grey levels

    @property
    def scorer(self) -> Scorer:
        """The detector's."""
        return self.own.scorer

    @property
    def captions(self) -> int:
        """K, how many of the sentences are captions of normal video."""
        return len(self.scorer.captions)

    @property
    def sentences(self) -> list[str]:
        """All K + A sentences, captions first."""
        return [*self.scorer.captions, *self.scorer.prompts]

    def in_words(self, w: int) -> str:
        """Where the region of a window is that stands out, and what it looks like: "lower left: ..."."""
        if self.fired[w] < 0:
            return NOTHING
        _, _, row, column = self.places[self.fired[w]].tolist()
        ungated, gated = self.ungated[w].numpy(), self.gated[w].numpy()
        [misfit] = self.scorer.fuse({"s_sem": 1 - gated[: self.captions].max(keepdims=True)}, ("s_sem",))
        what = name_region(self.sentences, ungated, gated, self.prompts[w], float(misfit))
        return f"{place_in_words(row, column, self.grid)}: {what}"


@torch.no_grad()
def explain(
    path: str | Path,
    run: str | None = None,
    words: Words = NO_WORDS,
    at: Sequence[float] | None = None,
    scenes: Mapping[str, str | Path] | None = None,
    *,
    sees: Sees = AS_IT_IS,
    fps: float | None = None,
    progress: bool = False,
) -> Why:
    """Takes the score of a video apart.

    Args:
        path: any file that a decoder reads, or a folder of frames.
        run: name of a run with a trained detector; None takes the one shipped with the package, as in `score_video`.
        words: the user's own sentences.
        at: seconds of the windows to look at; None: the `strongest_moments`, and those that score highest, `LOOKED_AT`
            together, which are all of a short video.
        scenes: name -> video of another place, for the score had it happened there; None: scenes of the detector's
            training, none where it was calibrated to one camera or remembers nothing.
        sees: as in `score_video`; on published weights attention only where it says so.
        fps, progress: as in `score_video`.

    Raises:
        ZsadError: unreadable video, a run without a detector, no time in `at`, or one outside the video.
    """
    if at is not None and len(at) == 0:
        raise ZsadError("explain: at=[] names no window; give seconds such as at=[2.5], or leave it out")
    check_given(path, fps)
    own, seen = own_detector(run, words, sees), Seen()
    scorer, backbones = own.scorer, own.tool.backbones
    described, scorer.scene = scorer.scene, None  # each piece carries its scene, so that another one can take its place
    if scenes is not None:
        elsewhere = {name: scene_of(video, own) for name, video in scenes.items()}
    elif "normal" in own.meta or not len(scorer.memory):  # a calibrated memory knows one place
        elsewhere = {}
    else:
        elsewhere = training_scenes(scorer)
    found, scored, there = [], [], {name: [] for name in elsewhere}
    for piece in pieces(seen_frames(path, seen, own.size, fps, progress)):
        features = own.features(piece)
        if described is not None:
            features = features._replace(scene=described.expand_as(features.scene))
        scored.append(own.window_terms(features, piece))
        found.append(_parts(own, features, piece))
        for name, scene in elsewhere.items():
            [terms] = scorer.terms([features._replace(scene=scene.expand_as(features.scene))])
            there[name].append(scored[-1] | terms)
    for line in assumed(path, seen, fps) if progress else ():
        print(f"{path}: {line}", file=sys.stderr)
    parts, shown = list(seen.parts()), seen.shown()  # [S] frame that each tick shows
    starts = [part.ticks.start + BLOCK_LEN * np.arange(part.windows.stop - part.windows.start) for part in parts]
    last = np.concatenate([np.full(len(some), part.ticks.stop - 1) for some, part in zip(starts, parts)])  # [W] tick
    starts = np.concatenate(starts)  # [W] first tick of each window
    times = np.array(seen.times)[shown[np.minimum(starts + MIDDLE_FRAME, last)]]
    joined = join_terms(own, scored)
    scale_by_itself(own, joined, parts)
    terms = at_middles(scorer, joined, parts)
    there = {name: join_terms(own, parts) for name, parts in there.items()}
    score = scorer.fuse(terms, own.terms)
    looked = _choose(times, score, at, seen.times[-1])
    ticks = np.minimum(starts[looked, None] + np.array(CLIP_FRAMES), last[looked, None])  # [M, T]
    numbers, index = np.unique(shown[ticks], return_inverse=True)
    index, decoded = index.reshape(ticks.shape), len(seen.times)
    model, relevance = own.attention, None
    sizes = model.patch_embed.img_size if model else own.size, SHOWN_SIZE
    small, pictures = (read_video(path, numbers, size, decoded=decoded)[index] for size in sizes)
    small = torch.from_numpy(small)
    if model is not None:
        clips = (normalise(some.to(device()), KINETICS).transpose(1, 2) for some in small.split(16))  # [M', 3, T, H, W]
        relevance = torch.cat([rollout(model, some).cpu() for some in clips]).numpy()
    grid = backbones.grid if relevance is None else relevance.shape[2:]  # rows and columns of TimeSformer's patches
    first = np.cumsum([0, *(len(piece["context"]) for piece in found)])
    for piece, start in zip(found, first):
        piece["places"][:, 0] += start
    part = {name: torch.cat([piece[name] for piece in found]) for name in found[0]}
    return Why(
        video=Path(path).name,
        own=own,
        parts=parts,
        times=times,
        terms={name: scorer.fuse(terms, (name,)) for name in own.terms},
        score=score,
        regions=part["regions"],
        context=part["context"],
        grid=backbones.grid,
        **_fired(scorer, part),
        scenes={name: scorer.fuse(at_middles(scorer, x, parts), own.terms) for name, x in there.items()},
        errors=part["errors"].numpy(),
        weights=part["weights"].numpy(),
        at=looked,
        frames=pictures,
        rollout=relevance,
        motion=moved(small, grid).numpy(),
    )


def _choose(times: np.ndarray, score: np.ndarray, at: Sequence[float] | None, end: float) -> np.ndarray:
    """Numbers of the windows to look at; see `explain`."""
    if at is None:
        highest = np.argsort(-score, kind="stable")
        first = strongest_moments(times, score)
        return np.unique([*first, *highest[: LOOKED_AT - len(first)]])
    if outside := [second for second in at if not 0 <= second < end + 1]:
        raise ZsadError(f"explain: at={outside[0]:g} s lies outside the video, which lasts {end:.1f} s")
    return np.unique([np.abs(times - second).argmin() for second in at])


def strongest_moments(times: np.ndarray, score: np.ndarray, count: int = MOMENTS) -> list[int]:
    """The windows that score highest and do not overlap, highest first.

    Args:
        times: seconds of the windows' middles [W].
        score: [W].
        count: how many, at most.

    >>> strongest_moments(np.array([1.5, 2.0, 4.5, 9.0]), np.array([5.0, 6.0, 4.0, 1.0]))
    [1, 3]
    """
    chosen, free = [], np.ones(len(score), bool)
    while free.any() and len(chosen) < count:
        chosen.append(int(np.where(free, score, -np.inf).argmax()))
        free &= np.abs(times - times[chosen[-1]]) >= WINDOW / RATE
    return chosen


def at_middles(scorer: Scorer, terms: dict[str, np.ndarray], parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The terms of a video's windows, as `Scorer.frames` has them at the windows' middle frames: [W] each."""
    found = []
    for part in parts:
        length, count = part.ticks.stop - part.ticks.start, part.windows.stop - part.windows.start
        framed = scorer.frames({name: values[part.windows] for name, values in terms.items()}, length)
        middle = np.minimum(BLOCK_LEN * np.arange(count) + MIDDLE_FRAME, length - 1)
        found.append({name: values[middle] for name, values in framed.items()})
    return {name: np.concatenate([some[name] for some in found]) for name in found[0]}


def _parts(own: OwnDetector, features: VideoFeatures, piece: Tensor) -> dict[str, Tensor]:
    """What `Why` holds of the regions and cells of a piece."""
    d, places, steps = own.scorer.detector, features.region_at.long(), NUM_BLOCKS - OBSERVED
    errors = moving = torch.zeros(len(features.timesformer) + steps - 1, 0, 1)
    if own.prediction is not None:
        errors = moving = own.prediction.maps(piece)[OBSERVED:]
    elif d.dpc is not None:
        errors = local_readout.one_step_errors(d.dpc, features.stem)
        moving = local_readout.moving_errors(errors, features.cell_motion, d.moving_from.item())
    # Row i belongs to block O + i, which is the first that window i predicts.
    errors, moving = (x.unfold(0, steps, 1).movedim(-1, 1) for x in (errors, moving))  # [W, P, h, w]
    tensors = {"regions": features.region.float(), "places": places, "context": d.context(features.scene)}
    tensors |= {"errors": errors, "weights": cell_weights(moving)}
    return {name: x.cpu() for name, x in tensors.items()}


def _fired(scorer: Scorer, part: Mapping[str, Tensor]) -> dict[str, np.ndarray | Tensor]:
    """What `Why` holds of the region of each window that stands out most."""
    d, places, context = scorer.detector, part["places"], part["context"]
    misfit = local_readout.region_scores(d.gate, part["regions"], places[:, 0], scorer.bank, context).numpy()
    fired = local_readout.oddest_region(misfit, places.numpy(), len(context))
    seen, sentences = fired >= 0, torch.cat([scorer.bank, scorer.prompt_bank])
    v = torch.full((len(context), part["regions"].shape[1]), torch.nan)
    v[seen] = part["regions"][fired[seen]]
    gated = d.gate.logits(v, sentences, context)
    _, prompts = scores.prompt_scores(*gated.tensor_split([len(scorer.captions)], -1))
    found = {"embedding": v, "ungated": v @ sentences.T, "gated": gated, "prompts": prompts.nan_to_num().numpy()}
    return found | {"fired": fired, "places": places.numpy()}


def cell_weights(moving: Tensor) -> Tensor:
    """weight = d s_pred / d error of every cell: 1 for the worst of the cells that move, none where nothing does.

    Args:
        moving: of `local_readout.moving_errors`, the predicted blocks of B windows [B, P, h, w].

    >>> cell_weights(torch.tensor([[0.2, -torch.inf], [0.7, 0.1]])[None, None]).tolist()
    [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    if not moving.numel():
        return moving
    flat = moving.flatten(1)
    worst = F.one_hot(flat.argmax(1), flat.shape[1]) * torch.isfinite(flat)
    return worst.float().view_as(moving)


@torch.no_grad()
def at_strength(why: Why, gate: float) -> np.ndarray:
    """Score [W] with t' = t + g * (gate(t, c) - t): g = 1 is the score, at g = 0 the scene says nothing about the
    captions.

    The mean and the standard deviation of s_sem stay those of the gated captions, so without gate the whole curve also
    moves down or up: look at its shape.
    """
    bank, window = why.scorer.bank, torch.from_numpy(why.places[:, 0])
    gated = local_readout.region_similarity(why.scorer.detector.gate, why.regions, window, bank, why.context)
    similarity = torch.lerp(why.regions @ bank.T, gated, gate)  # [R, K]
    s_sem = strongest(scores.semantic_score(similarity).numpy(), why.places, len(why.times))
    term = why.scorer.fuse(at_middles(why.scorer, {"s_sem": s_sem}, why.parts), ("s_sem",))
    return why.score - why.terms["s_sem"] + term


@torch.no_grad()
def fit_sentence(why: Why, sentence: str) -> tuple[np.ndarray, list[str]]:
    """How well any sentence fits: similarity v . gate(t, c) of every window [W], and the words that the text tower has
    never seen."""
    b, words, unknown = why.own.tool.backbones, sentence.split(), []
    if b.vocabulary is not None:
        length = b.clip.context_length
        unknown = [word for word in words if (tokenize([word], length, b.vocabulary, False) == UNKNOWN).any()]
    t = encode_captions(b.clip, [sentence], b.vocabulary, warn=False).to(why.embedding.device)
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
