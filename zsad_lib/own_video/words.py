"""What a user says of a video, and how a detector takes it.

Words reach it in three places. Sentences on what is normal replace the caption bank, and so change `s_sem`. Sentences
on what would be abnormal name what is seen; a score reads them only where they are given a weight. A description of the
scene replaces what the scene stream sees.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from data_prep.scene_rules.captions import EMPTY
from data_prep.scene_rules.prompts import prompts
from data_prep.scene_rules.world import SEMANTIC
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones
from zsad_lib.methods.context_aware.scorer import Scorer
from zsad_lib.models.text import Vocabulary, encode_captions
from zsad_lib.own_video import camera_words

PROMPTS = tuple(prompts(SEMANTIC))  # what is abnormal anywhere, in words that the stand-ins know
NOBODY = EMPTY  # captions of a place where nothing is
DESCRIBED_BY = 64  # remembered windows that stand for a described scene: of several cameras, not of one clip
SHOWN = 5  # sentences with unknown words that the warning names

log = logging.getLogger(__name__)


class Words(NamedTuple):
    """What a user says of a video; what is left empty stays as the detector has it."""

    normal: Sequence[str] = ()  # sentences on what is normal there, instead of the training captions
    abnormal: Sequence[str] | None = None  # sentences on what would be abnormal
    scene: str = ""  # where it is, as "in a corridor", instead of what the scene stream sees
    prompt_weight: float = 0.0  # of the abnormal sentences in the score; 0: they only name


NO_WORDS = Words()


def read_sentences(path: str | Path) -> list[str]:
    """The sentences of a text file, one per line; empty lines and lines that begin with # are none.

    Raises:
        ZsadError: no such file, no text in UTF-8, or no sentence in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason, advice = getattr(error, "strerror", None) or error, "give a text file in UTF-8, a sentence per line"
        raise ZsadError(f"{path}: no readable sentences ({reason}); {advice}") from error
    sentences = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not sentences:
        raise ZsadError(f"{path}: no sentence in it; write one per line (a line that begins with # is a comment)")
    return sentences


def read_words(captions: Path | None, prompts: Path | None, scene: str = "", prompt_weight: float = 0.0) -> Words:
    """What a user has written on what is normal and what abnormal, a text file each, and where it is."""
    sentences = {name: read_sentences(path) for name, path in (("normal", captions), ("abnormal", prompts)) if path}
    return Words(**sentences, scene=scene, prompt_weight=prompt_weight)


def speak(scorer: Scorer, meta: dict, words: Words, b: Backbones, run: str | None = None) -> dict:
    """Gives the scorer a user's words.

    Args:
        scorer: gets them.
        meta: header of its file.
        words: what the user says.
        b: streams that it sees with, whose text tower reads the words.
        run: its name, for messages.

    Returns:
        The header without what other words make wrong: thresholds belong to the words they were measured with.

    Raises:
        ZsadError: no prompt, a sentence without a known word, or a described scene for a detector without a memory of
            several scenes.
    """
    words = words._replace(scene=words.scene.strip())
    if words.scene and "normal" in meta:
        raise ZsadError(f"{run}: calibrated to one camera, it remembers no other scene; leave the scene out")
    own = meta.get("prompts") or (camera_words.ABNORMAL if b.vocabulary is None else PROMPTS)
    abnormal = own if words.abnormal is None else words.abnormal
    normal, abnormal = (list(dict.fromkeys(_listed(said))) for said in (words.normal, abnormal))
    if not abnormal:
        raise ZsadError("no sentence on what would be abnormal; give at least one, or leave the list out")
    if not 0 <= words.prompt_weight < float("inf"):
        raise ZsadError(f"prompt weight {words.prompt_weight}: give a number from 0 on; every other term has 1")
    said = [*normal, *abnormal, *filter(None, [words.scene])]  # at once, so that unknown words are told once
    if b.vocabulary is not None:
        _warn_of_unknown(said, b.vocabulary)
    vectors = encode_captions(b.clip, said, b.vocabulary, warn=False).to(scorer.bank.device)
    if normal:
        scorer.captions, scorer.bank = normal, vectors[: len(normal)]
    scorer.prompts, scorer.prompt_bank = abnormal, vectors[len(normal) :][: len(abnormal)]
    scorer.prompt_weight = words.prompt_weight or meta.get("prompt_weight", 0.0)
    if words.scene:
        scorer.scene = described_scene(scorer, vectors[-1])
    others = normal or words.scene or scorer.prompt_weight != meta.get("prompt_weight", 0.0)
    if scorer.prompt_weight and abnormal != list(own):
        others = True
        for known in (scorer.statistics, scorer.causal_statistics):
            known.pop("s_prompt", None)
    return {key: value for key, value in meta.items() if not (others and key.startswith("threshold"))}


def _listed(sentences: Sequence[str]) -> Sequence[str]:
    if isinstance(sentences, str):
        raise ZsadError(f"{sentences!r}: give a list of sentences, as [{sentences!r}]")
    return sentences


def _warn_of_unknown(sentences: Sequence[str], vocabulary: Vocabulary) -> None:
    """Warns of words that the text tower has never seen, in one line; ZsadError where a sentence holds nothing else."""
    learned, doubtful = set(vocabulary.ids), []
    for sentence in dict.fromkeys(sentences):
        spoken = re.findall(r"\w+", sentence.lower())
        unknown = [word for word in spoken if not learned.issuperset(Vocabulary.of([word]).ids)]
        if len(unknown) == len(spoken):
            raise ZsadError(f"{sentence!r}: the detector knows no word of it; say it in simpler English words")
        if unknown:
            doubtful.append(f"{sentence!r} ({', '.join(dict.fromkeys(unknown))})")
    if doubtful:
        more = f" and {len(doubtful) - SHOWN} more sentences" if len(doubtful) > SHOWN else ""
        log.warning("words that the detector does not know: %s%s", "; ".join(doubtful[:SHOWN]), more)


def described_scene(scorer: Scorer, vector: Tensor) -> Tensor:
    """Scene feature of a description, through the memory of training windows.

    Nothing was trained on words for scene features, but the memory holds [video ; scene] of each window, and its video
    half lies in the space of CLIP's text: the windows that fit the words best lend the mean of their scene halves. It
    is a crude look-up: on the rendered scenes many descriptions still find another place, so what the camera itself
    sees is better wherever it sees the place.

    Args:
        scorer: with a memory [N, D + S] of joint vectors.
        vector: unit vector of the description [D].

    Returns:
        [S], as the scene stream would give it.

    Raises:
        ZsadError: the detector has no memory.
    """
    if not len(scorer.memory):
        raise ZsadError("this detector has no memory of windows to look a described scene up in; leave the scene out")
    video, scene = scorer.memory.split([len(vector), scorer.memory.shape[1] - len(vector)], dim=1)
    fits = (video @ vector).topk(min(DESCRIBED_BY, len(video))).indices
    return scorer.detector.scene_along(F.normalize(scene[fits].mean(0), dim=0))
