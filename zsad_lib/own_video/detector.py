"""The detector for a user's own video: one of a run, the shipped one, or CLIP alone, with the streams that it sees
with.

On published weights no training is needed: CLIP says whether anything normal fits what is seen. Its scale is not known
before normal video has been seen, so that until a calibration the video itself tells it (`own_scale`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zsad_lib.errors import ZsadError, tell_once
from zsad_lib.features.backbones import Backbones, device, stand_ins
from zsad_lib.features.cache import VideoFeatures
from zsad_lib.features.camera_streams import camera_streams
from zsad_lib.features.devices import has_bfloat16_units
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import BLOCK_LEN
from zsad_lib.files import paths
from zsad_lib.files.weights import SHIPPED
from zsad_lib.methods.context_aware.scorer import Scorer, load_scorer
from zsad_lib.methods.context_aware.scores import METHODS
from zsad_lib.methods.context_aware.variants import Variant, build_detector
from zsad_lib.models.names import choose
from zsad_lib.models.text import encode_captions
from zsad_lib.models.timesformer import TimeSformer
from zsad_lib.own_video import camera_words
from zsad_lib.own_video.camera_prediction import CameraPrediction, load
from zsad_lib.own_video.words import NO_WORDS, Words, speak

RATE = 10.0  # frames per second that the stand-ins have seen; faster video is thinned out
TERMS = METHODS["full_memory"][1]  # what the score of one's own video adds up, as far as the detector has it
KINDS = {"stand_in": "the small networks that ship with the kit", "official": "published weights"}


class Sees(NamedTuple):
    """What a detector sees with."""

    backbones: str | None = None  # of `KINDS`; None: what its run sees with, without a run the stand-ins
    without: tuple[str, ...] = ()  # published streams that are left out, of `camera_streams.LOST`
    attention: bool = False  # TimeSformer too, which only an explanation looks at


AS_IT_IS = Sees()


class OwnDetector(NamedTuple):
    """A detector with the streams that it sees with."""

    scorer: Scorer
    tool: Extractor
    meta: dict  # header of its file
    attention: TimeSformer | None  # whose attention an explanation shows
    prediction: CameraPrediction | None = None  # learned from the camera's normal video

    @property
    def terms(self) -> tuple[str, ...]:
        """What its score adds up: of `TERMS` those that normal video has told the scale of; before, `s_sem` alone. And
        `s_prompt` where the abnormal sentences have a weight."""
        known = tuple(name for name in TERMS if name in self.scorer.statistics) or ("s_sem",)
        return (*known, *["s_prompt"] * bool(self.scorer.prompt_weight))

    @property
    def without_scale(self) -> tuple[str, ...]:
        """Of `terms` those that normal video has not told the scale of."""
        return tuple(name for name in self.terms if name not in self.scorer.statistics)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels that frames are seen in."""
        return self.prediction.size if self.prediction else self.tool.decoded

    def features(self, piece: Tensor) -> VideoFeatures:
        """Frozen features of a piece of `chunks`, without the motion of frames."""
        return VideoFeatures(*self.tool.windows(piece), motion=torch.empty(0), n_frames=0)

    def window_terms(
        self, features: VideoFeatures, piece: Tensor, remembered: bool = True, causal: bool = False
    ) -> dict[str, np.ndarray]:
        """Terms of the windows of a piece, see `Scorer.terms`, from its features and, where a camera's own prediction
        reads them, its frames."""
        [terms] = self.scorer.terms([features], remembered)
        return terms | {"s_pred": self.prediction.windows(piece, causal)} if self.prediction else terms

    def predicting(self, prediction: CameraPrediction) -> OwnDetector:
        """The detector with a camera's own prediction in place of its predictive stream."""
        self.scorer.detector.dpc = self.tool.backbones.dpc = None
        without = sorted({*self.meta.get("without", ()), "dpc"})
        return self._replace(prediction=prediction, meta=self.meta | {"without": without})


def what_sees(backbones: str | None, without: str) -> Sees:
    """What a command is asked to see with; `without` as "timesformer,dpc"."""
    return Sees(backbones, tuple(without.replace(",", " ").split()))


def trust(run: str | None, sees: Sees) -> str:
    """What to think of the scores of a detector that nobody has calibrated, as a line."""
    if run is not None:
        return ""
    if sees.backbones == "official":
        return (
            "published weights without a calibration: the score says what stands out in this video, not what is unusual"
            " there; `make calibrate NORMAL=folder BACKBONES=official` tells it that"
        )
    return "the shipped detector has seen rendered footage only: look, do not guard a place with it"


def scorer_file(run: str | None) -> Path:
    """Detector of a run (its name or folder; its first seed), or the one shipped with the package.

    Raises:
        ZsadError: the run has no trained detector.
    """
    if run is None:
        return SHIPPED / "detector.safetensors"
    folders = [Path(run), paths.runs() / run]  # whatever else lies here under the name of a run
    found = [file for folder in folders for file in sorted((folder / "score" / "full").glob("*/scorer.safetensors"))]
    if not found:
        folder = next(filter(Path.is_dir, folders), folders[-1])
        raise ZsadError(f"{folder}: no trained detector here; run `make reproduce` for it first, or leave the run out")
    return found[0]


def own_detector(
    run: str | None, words: Words = NO_WORDS, sees: Sees = AS_IT_IS, to_calibrate: bool = False
) -> OwnDetector:
    """The detector of `scorer_file`, or on published weights without a run the one of `untrained`, with a user's words.

    A calibrated threshold belongs to the words it was measured with: other ones take it out of the header. On published
    weights without a run only CLIP is loaded, unless it is `to_calibrate`: no other stream can say anything before.

    How many pictures CLIP looks at, every seen frame or one of a block, is decided by the pace of the machine that
    calibrates; the detector's file keeps it, since other pictures are other scores. Before, it is one of a block, on a
    GPU every frame.

    Raises:
        ZsadError: the run has none, or one that sees with other streams than those asked for or serves whole data sets
            alone; weights are missing; no prompt; a sentence without a known word; a described scene for a detector
            without a memory of several scenes.
    """
    if sees.backbones is not None:
        choose("backbones", sees.backbones, KINDS)
    if run is None and sees.backbones == "official":
        backbones = camera_streams(sees.without, None if to_calibrate else (), sees.attention)
        scorer, meta = untrained(backbones, sees.without)
    else:
        kept: list[Backbones] = []
        scorer, meta = load_scorer(scorer_file(run), lambda meta: kept.append(_streams_of(run, meta, sees)) or kept[0])
        [backbones] = kept
    if not scorer.local:
        raise ZsadError(f"{run}: it scores whole windows, without regions; train with regions, or leave the run out")
    meta, attention = speak(scorer, meta, words, backbones, run), backbones.timesformer
    prediction = load(scorer_file(run).parents[3], **meta["predict"]) if "predict" in meta else None
    if not backbones.image_tower:
        return OwnDetector(scorer, Extractor(backbones), meta, attention, prediction)
    seeing = dataclasses.replace(backbones, timesformer=None)  # no score reads it
    tool = Extractor(seeing, precision="bf16" if has_bfloat16_units() else "no")
    pace = pictures_per_second(tool)
    if "look_every" not in meta:
        meta["look_every"] = 1 if (pace >= RATE if to_calibrate else device() == "cuda") else BLOCK_LEN
    tool.look_every = meta["look_every"]
    wanted = RATE / tool.look_every
    slower = "" if pace >= wanted else "; slower than real time, so that a camera that does not wait loses frames"
    tell_once(f"CLIP looks at {wanted:g} pictures per second of video, this machine manages {pace:.1f}{slower}")
    return OwnDetector(scorer, tool, meta, attention and attention.to(device()), prediction)


def pictures_per_second(tool: Extractor, count: int = BLOCK_LEN) -> float:
    """How many pictures CLIP's image tower looks at in a second here, at best: of `count` of them, three times."""
    frames, took = torch.zeros(count, *tool.decoded, 3, dtype=torch.uint8), []
    for _ in range(3):
        began = time.perf_counter()
        tool.look(frames)[0].cpu()  # which waits for the device
        took.append(time.perf_counter() - began)
    return count / min(took)


def _streams_of(run: str | None, meta: dict, sees: Sees) -> Backbones:
    """The streams that a detector was trained or calibrated on; ZsadError where single videos cannot have them."""
    kind = meta.get("backbones") or "stand_in"
    if kind not in KINDS or any(map(meta.get, ("pretrain_seed", "held_out", "released"))):
        raise ZsadError(
            f"{run}: trained on other streams than the shipped stand-ins; `make reproduce` scores its data set with"
            " them; single videos take a run on the stand-ins or on published weights, or none"
        )
    if sees.backbones not in (None, kind):
        asked, has = KINDS[sees.backbones], KINDS[kind]
        advice = "leave BACKBONES out, or calibrate with it" if run else "name a RUN that was calibrated on them"
        raise ZsadError(f"{run or 'the shipped detector'}: sees with {has}, not with {asked}; {advice}")
    if kind == "stand_in":
        if sees.without:
            raise ZsadError(f"without {', '.join(sees.without)}: only published weights have parts to leave out")
        return dataclasses.replace(stand_ins(), **dict.fromkeys(meta.get("without", ())))
    needed = [name for name in ("places365", "dpc") if name not in meta.get("without", ())]
    return camera_streams(sees.without, needed, sees.attention)


def untrained(backbones: Backbones, without: Sequence[str] = ()) -> tuple[Scorer, dict]:
    """CLIP alone, which nobody has trained, with the sentences of `camera_words`; and the header of its file."""
    variant = Variant(gate="none", readout="local", projection="none", live=0, context_dim=128)
    made = build_detector(variant, backbones).eval().requires_grad_(False)
    for values in made.context_projection.parameters():
        nn.init.zeros_(values)  # nothing reads it
    bank = encode_captions(backbones.clip, camera_words.NORMAL, None).cpu()
    scorer = Scorer(made, bank, list(camera_words.NORMAL), torch.empty(0), local=True, grid=backbones.grid)
    left_out = {"places365": backbones.scene, "dpc": backbones.dpc}
    without = [*(name for name in without if name not in left_out), *(n for n, there in left_out.items() if not there)]
    return scorer, {"variant": dataclasses.asdict(variant), "backbones": "official", "without": without}
