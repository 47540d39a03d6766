"""The list of clips of one benchmark, and one clip from its line in that list.

Every clip has a generator of its own, seeded by (benchmark seed, clip name): clips can be rendered in any order, by any
number of processes, and again after an interruption, with equal bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import captions, draw, render
from . import world as w

if TYPE_CHECKING:  # a profile's defaults change no clip
    from zsad_lib.config import Profile


@dataclass(frozen=True)
class ClipSpec:
    """One clip to render. `index` numbers the clips of one (site, family); `site` names the camera ("test-road-2")."""

    video: str
    split: str  # train | val | test
    set: str  # main | night | lookalike | long
    scene: str
    site: str
    family: str  # normal | semantic | temporal | contextual | mixed (long videos)
    frames: int


def generator(bench_seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the benchmark's seed and the names, and on nothing else."""
    return np.random.default_rng([bench_seed, *(zlib.crc32(name.encode()) for name in names)])


def clip_list(profile: Profile) -> list[ClipSpec]:
    """All clips of the benchmark that `profile` describes, training first."""
    specs = []

    def add(
        split: str, group: str, scene: str, site: str, family: str, count: int, frames: int = w.CLIP_FRAMES
    ) -> None:
        names = (f"{site}_{family}_{index:02d}" for index in range(count))
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
    for group in ("night", "lookalike"):
        for scene in w.SCENES:
            add("test", group, scene, f"{group}-{scene}", "normal", 2 * profile.extra_clips)
            for family in w.FAMILIES:
                add("test", group, scene, f"{group}-{scene}", family, profile.extra_clips)
    for scene in w.SCENES[: profile.long_videos]:
        add("test", "long", scene, f"long-{scene}", "mixed", 1, profile.long_frames)
    return specs


@lru_cache(maxsize=8)
def _site(scene: str, name: str, group: str, bench_seed: int) -> draw.Site:
    return draw.make_site(scene, generator(bench_seed, name), night=group == "night", lookalike=group == "lookalike")


class Clip(NamedTuple):
    """What happens in one clip, before it is drawn."""

    tracks: list[render.Track]
    labels: np.ndarray  # uint8 [frames], 1 = abnormal
    action: str  # concepts or glitches of the actors, "walk+cart"
    caption: str


def plan_clip(spec: ClipSpec, bench_seed: int) -> Clip:
    """Script, labels and caption of one clip; cheap, nothing is drawn."""
    site = _site(spec.scene, spec.site, spec.set, bench_seed)
    rng = generator(bench_seed, spec.video)
    if spec.family == "mixed":
        tracks = render.long_script(site, rng, spec.frames)
    elif spec.family == "normal":
        tracks = render.normal_actors(site, rng)
    else:
        tracks = [render.anomaly(site, spec.family, rng, detail=_turn(spec))]
        if rng.random() < w.TWO_ACTORS:
            tracks += render.normal_actors(site, rng, count=1)
    told = [track for track in tracks if track.event is None][:2] if spec.family == "mixed" else tracks
    sentence, action = captions.caption([t.concept for t in told], rng), "+".join(t.glitch or t.concept for t in tracks)
    return Clip(tracks, render.frame_labels(tracks, spec.frames), action, sentence)


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
