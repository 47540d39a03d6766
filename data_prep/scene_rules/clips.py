"""The list of clips and streams of one benchmark, and one of them from its line in that list.

Every clip has a generator of its own, seeded by (benchmark seed, clip name): clips can be rendered in any order, by any
number of processes, and again after an interruption, with equal bytes.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zsad_lib.files.spans import labels_to_spans, parse_spans

from . import captions, draw, render, streams
from . import world as w

if TYPE_CHECKING:  # a profile's defaults change no clip
    from zsad_lib.config import Profile


@dataclass(frozen=True)
class ClipSpec:
    """One clip to render. `index` numbers the clips of one (site, family); `site` names the camera ("test-road-2")."""

    video: str
    split: str  # train | val | test | before (normal streams of the test cameras, as one calibrates on)
    set: str  # main | night | lookalike | stream | stream_night | stream_lookalike
    scene: str
    site: str
    family: str  # normal | semantic | temporal | contextual | mixed (streams)
    frames: int


def generator(bench_seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the benchmark's seed and the names, and on nothing else."""
    return np.random.default_rng([bench_seed, *(zlib.crc32(name.encode()) for name in names)])


def clip_list(profile: Profile) -> list[ClipSpec]:
    """All clips of the benchmark that `profile` describes, training first."""
    specs = []

    def add(split: str, group: str, scene: str, site: str, family: str, count: int) -> None:
        names = (f"{site}_{family}_{index:02d}" for index in range(count))
        specs.extend(ClipSpec(name, split, group, scene, site, family, w.CLIP_FRAMES) for name in names)

    def add_streams(split: str, group: str, scene: str, site: str, family: str, count: int) -> None:
        kind = "before" if split == "before" else "traffic" if family == "normal" else family
        frames = profile.before_frames if split == "before" else profile.stream_frames
        names = (f"{site}_{kind}_{index:02d}" for index in range(count))
        specs.extend(ClipSpec(name, split, group, scene, site, family, frames) for name in names)

    for split, sites in (("train", profile.train_sites), ("val", profile.val_sites), ("test", profile.test_sites)):
        for scene in w.SCENES:
            for number in range(sites):
                site = f"{split}-{scene}-{number}"
                add(
                    split,
                    "main",
                    scene,
                    site,
                    "normal",
                    profile.train_clips if split == "train" else profile.normal_clips,
                )
                for family in w.FAMILIES if split != "train" else ():
                    add(split, "main", scene, site, family, profile.family_clips)
                if split == "test":
                    add_streams(split, "stream", scene, site, "mixed", profile.streams)
                    add_streams("before", "stream", scene, site, "normal", 2 * (profile.streams > 0))
                else:
                    add_streams(split, "stream", scene, site, "normal", profile.streams * (1 + (split == "val")))
                if split == "val":
                    add_streams(split, "stream", scene, site, "mixed", 2 * profile.streams)
    for group in ("night", "lookalike"):
        for scene in w.SCENES:
            add("test", group, scene, f"{group}-{scene}", "normal", 2 * profile.extra_clips)
            for family in w.FAMILIES:
                add("test", group, scene, f"{group}-{scene}", family, profile.extra_clips)
            if profile.extra_clips:
                add_streams("test", f"stream_{group}", scene, f"{group}-{scene}", "mixed", profile.streams)
    return specs


@lru_cache(maxsize=8)
def _site(scene: str, name: str, group: str, bench_seed: int) -> draw.Site:
    night, lookalike = "night" in group, "lookalike" in group
    return draw.make_site(scene, generator(bench_seed, name), night=night, lookalike=lookalike)


class Clip(NamedTuple):
    """What happens in one clip, before it is drawn."""

    tracks: list[render.Track]
    labels: np.ndarray  # uint8 [frames], 1 = abnormal
    kinds: list[str]  # of each run of abnormal frames, "contextual:drive"
    action: str  # concepts or glitches of the actors, "walk+cart"
    told: list[streams.Segment]  # captions


def plan_clip(spec: ClipSpec, bench_seed: int) -> Clip:
    """Script, labels and caption of one clip; cheap, nothing is drawn."""
    site = _site(spec.scene, spec.site, spec.set, bench_seed)
    rng = generator(bench_seed, spec.video)
    if spec.set.startswith("stream"):
        numbers = map(int, re.findall(r"[-_](\d+)", spec.video))  # of the camera, and of its stream
        turn = w.SCENES.index(spec.scene) + sum(numbers)
        tracks, events = streams.stream_script(site, spec.frames, turn, rng, normal=spec.family == "normal")
        labels = np.zeros(spec.frames, np.uint8)
        for event in events:
            labels[event.first : event.last + 1] = 1
        kinds = [f"{event.family}:{event.kind}" for event in events]
        return Clip(tracks, labels, kinds, _action(tracks), streams.captioned(tracks, spec.frames, rng))
    if spec.family == "normal":
        tracks = render.normal_actors(site, rng)
    else:
        tracks = [render.anomaly(site, spec.family, rng, detail=_turn(spec))]
        if rng.random() < w.TWO_ACTORS:
            tracks += render.normal_actors(site, rng, count=1)
    labels, action = render.frame_labels(tracks, spec.frames), _action(tracks)
    kinds = [f"{spec.family}:{action.partition('+')[0]}"] * len(parse_spans(labels_to_spans(labels)))
    sentence = captions.caption([track.concept for track in tracks], rng)
    return Clip(tracks, labels, kinds, action, [streams.Segment(0, spec.frames, sentence)])


def _action(tracks: list[render.Track]) -> str:
    return "+".join(track.glitch or track.concept for track in tracks)


def draw_clip(spec: ClipSpec, bench_seed: int) -> np.ndarray:
    """The clip's frames, uint8 [frames, HEIGHT, WIDTH, 3]."""
    site = _site(spec.scene, spec.site, spec.set, bench_seed)
    tracks = plan_clip(spec, bench_seed).tracks
    return render.render(site, tracks, spec.frames, generator(bench_seed, spec.video, "noise"))[0]


def _turn(spec: ClipSpec) -> str:
    """Details take turns within a site, so that every concept and glitch is met equally often."""
    of_family = {"semantic": w.SEMANTIC, "temporal": w.TEMPORAL, "contextual": w.abnormal_actions(spec.scene)}
    details = of_family[spec.family]
    return details[int(spec.video.rsplit("_", 1)[1]) % len(details)]
