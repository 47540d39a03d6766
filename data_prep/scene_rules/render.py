"""From a script (who does what, where, when) to frames, frame labels and boxes. Everything follows from the generator
passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw

from . import world as w
from .draw import Pose, Site, draw_actor

MARGIN = 10  # pixels that an actor's centre keeps from the side
RISE_FRAMES = 6  # a fall, or a fire's first flames, take this long
NOISE_BANK = 16  # sensor-noise pictures per clip, drawn once and shifted at random


@dataclass(frozen=True)
class Track:
    """One actor's script. Frames are 0-based; `event` is the inclusive span in which the actor is abnormal, None for
    never."""

    concept: str
    x: float
    velocity: float  # pixels per frame, signed
    y: float  # feet, pixels
    height: float  # pixels
    phase: float
    look: int  # seed of its colours
    start: int = 0
    stop: int = 10**9  # first frame after which it is gone
    enters: bool = False  # comes in from outside instead of turning round at the margins
    glitch: str | None = None  # one of `TEMPORAL`, active during `event`
    event: tuple[int, int] | None = None
    hold: tuple[int, int] | None = None  # walks, but stands during this span
    period: int = 6  # frames between glitches
    jumps: tuple[float, ...] = field(default=())  # pixels, one per teleport


class Shown(NamedTuple):
    """One actor in one frame: what it is seen to do, its box in pixels, and its number among the actors."""

    concept: str
    x0: float
    y0: float
    x1: float
    y1: float
    actor: int = 0


def seen_as(concept: str, pose: Pose) -> str:
    """What an actor is seen to do: somebody who has not fallen yet walks, two before their fight stand."""
    if concept == "fall" and not pose.fallen:
        return "walk"
    return "loiter" if concept == "stand-off" else concept


def own_time(track: Track, frames: int) -> np.ndarray:
    """The actor's own clock [frames]: it runs at 1, stands in `hold`, and is broken by `glitch` during `event`."""
    begin = min(track.start, 0)  # it may have come before the video began
    t = np.arange(begin, frames)
    rate = np.ones(len(t))
    if track.hold:
        rate[(t >= track.hold[0]) & (t <= track.hold[1])] = 0.0
    if track.glitch in ("speed", "reversal"):
        inside = (t >= track.event[0]) & (t <= track.event[1])
        beat = (t - track.event[0]) // track.period
        rate[inside] = w.SPEED_UP if track.glitch == "speed" else np.where(beat[inside] % 2 == 0, -1.0, 1.0)
    clock = np.cumsum(rate)
    clock -= clock[min(track.start, frames - 1) - begin]
    if track.glitch == "freeze":  # the picture of the actor stutters: it stands, then is where it would have been
        inside = (t >= track.event[0]) & (t <= track.event[1])
        held = track.event[0] + (t - track.event[0]) // (2 * track.period) * (2 * track.period)
        clock = np.where(inside, clock[np.clip(held - begin, 0, len(t) - 1)], clock)
    return clock[-begin:]


def poses(track: Track, frames: int) -> list[tuple[str, Pose] | None]:
    """Concept and pose per frame, None where the actor is not in the picture."""
    clock, low, high = own_time(track, frames), MARGIN, w.WIDTH - MARGIN
    jump, out = 0.0, []
    for t in range(frames):
        if track.glitch == "teleport" and track.event[0] <= t <= track.event[1]:
            number, rest = divmod(t - track.event[0], track.period)
            jump += 0.0 if rest else track.jumps[number]
        if not track.start <= t < track.stop:
            out.append(None)
            continue
        x, facing = track.x + track.velocity * clock[t] + jump, 1 if track.velocity >= 0 else -1
        since = t - track.event[0] if track.event else -1
        concept, fallen, height = track.concept, 0.0, track.height
        if concept == "fall":
            fallen = float(np.clip(since / RISE_FRAMES, 0, 1)) if since >= 0 else 0.0
            x = x if since < 0 else track.x + track.velocity * (track.event[0] - track.start)
        elif concept == "fire":
            height *= float(np.clip((since + 1) / RISE_FRAMES, 0.2, 1))
        elif concept == "fight" and since < 0:
            concept = "stand-off"
        elif concept == "loiter" and track.hold and not track.hold[0] <= t <= track.hold[1]:
            concept = "walk"
        if not track.enters:  # turn round at the margins
            span = high - low
            folded = (x - low) % (2 * span)
            if folded > span:
                folded, facing = 2 * span - folded, -facing
            x = low + folded
        elif not -2 * MARGIN < x < w.WIDTH + 2 * MARGIN:
            out.append(None)
            continue
        rate = {"fight": 0.9, "fire": 0.8, "loiter": 0.0}.get(concept, w.GAIT.get(concept, w.GAIT["walk"]))
        ticks = t if concept in ("fight", "fire") else clock[t]
        out.append((concept, Pose(x, track.y, height, facing, track.phase + rate * ticks, fallen)))
    return out


def frame_labels(tracks: list[Track], frames: int) -> np.ndarray:
    """uint8 [frames], 1 where an abnormal actor is visible and at it. Needs no drawing."""
    labels = np.zeros(frames, np.uint8)
    for track in tracks:
        if track.event:
            for t, shown in enumerate(poses(track, frames)):
                labels[t] |= shown is not None and track.event[0] <= t <= track.event[1]
    return labels


def render(
    site: Site, tracks: list[Track], frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[list[Shown]]]:
    """Draw the clip.

    Returns:
        video uint8 [frames, HEIGHT, WIDTH, 3]; boxes: per frame a list of `Shown`.
    """
    video = np.empty((frames, w.HEIGHT, w.WIDTH, 3), np.uint8)
    boxes: list[list[Shown]] = [[] for _ in range(frames)]
    noise = rng.normal(0, site.noise, (NOISE_BANK, w.HEIGHT, w.WIDTH, 3)).astype(np.float32)
    script = [poses(track, frames) for track in tracks]
    order = np.argsort([track.y for track in tracks])  # far actors first
    for t in range(frames):
        image = site.background.copy()
        d = ImageDraw.Draw(image)
        for i in order:
            if script[i][t] is None:
                continue
            concept, pose = script[i][t]
            drawn = "fight" if concept == "stand-off" else concept
            still = Pose(pose.x, pose.y, pose.height, pose.facing, 0.0, pose.fallen) if concept == "stand-off" else pose
            box = draw_actor(d, drawn, still, np.random.default_rng(tracks[i].look))
            boxes[t].append(Shown(seen_as(concept, pose), *box, int(i)))
        grain = np.roll(noise[rng.integers(NOISE_BANK)], int(rng.integers(w.WIDTH)), axis=1)
        video[t] = np.clip(np.asarray(image, np.float32) * site.gain + grain, 0, 255)
    return video, boxes


def ground(site: Site, rng: np.random.Generator) -> tuple[float, float]:
    """A row for the feet and the figure height there."""
    far, near = site.ground
    depth = rng.uniform(0, 1)
    return far + depth * (near - far), site.size[0] + depth * (site.size[1] - site.size[0])


def actor(site: Site, concept: str, frames: int, rng: np.random.Generator, **script) -> Track:
    """An actor that stays in view for all `frames` (as far as its speed allows)."""
    y, height = ground(site, rng)
    speed = w.SPEED[concept] * rng.uniform(*w.SPEED_JITTER) * rng.choice((-1, 1))
    reach = min(abs(speed) * frames, w.WIDTH - 2.0 * MARGIN - 1)
    x = rng.uniform(MARGIN, w.WIDTH - MARGIN - reach)
    x = x if speed >= 0 else w.WIDTH - x
    phase, look = float(rng.uniform(0, 2 * math.pi)), int(rng.integers(2**31))
    return Track(concept, float(x), float(speed), float(y), float(height), phase, look, **script)


def normal_actors(
    site: Site, rng: np.random.Generator, concepts: tuple[str, ...] | None = None, count: int | None = None
) -> list[Track]:
    """One or two actors whose actions are normal in the scene (or drawn from `concepts`)."""
    count = count or (2 if rng.random() < w.TWO_ACTORS else 1)
    choice = concepts or w.NORMAL_CELLS[site.scene]
    return [actor(site, str(rng.choice(choice)), w.CLIP_FRAMES, rng) for _ in range(count)]


def anomaly(
    site: Site,
    family: str,
    rng: np.random.Generator,
    frames: int = w.CLIP_FRAMES,
    onset: int = 0,
    detail: str | None = None,
) -> Track:
    """The abnormal actor of one family; its event lies inside [onset, onset + CLIP_FRAMES).

    Args:
        family: "semantic", "temporal" or "contextual".
        frames: length of the whole video.
        onset: first frame in which the actor may appear.
        detail: which concept or glitch; drawn when None.
    """
    last = min(onset + w.CLIP_FRAMES, frames) - 1
    whole = onset == 0 and frames == w.CLIP_FRAMES
    if family == "semantic":
        concept = detail or str(rng.choice(w.SEMANTIC))
        begin = onset + int(rng.integers(4, 17))
        start = begin if concept == "fire" else onset
        track = actor(site, concept, begin - onset + 1, rng, start=start, stop=last + 1, event=(begin, last))
    elif family == "temporal":
        glitch = detail or str(rng.choice(w.TEMPORAL))
        moving = [a for a in w.NORMAL_CELLS[site.scene] if w.SPEED[a] > 0]
        length, period = int(rng.integers(*w.GLITCH_FRAMES)), int(rng.integers(*w.GLITCH_PERIOD))
        begin = onset + int(rng.integers(4, w.CLIP_FRAMES - length - 2))
        size = rng.uniform(*w.TELEPORT_PIXELS, 8) * rng.choice((-1, 1), 8)
        track = actor(
            site, str(rng.choice(moving)), w.CLIP_FRAMES, rng, start=onset, stop=last + 1, glitch=glitch,
            event=(begin, begin + length - 1), period=period, jumps=tuple(float(s) for s in size),
        )  # fmt: skip
    else:
        concept = detail or str(rng.choice(w.abnormal_actions(site.scene)))
        begin = onset if w.SPEED[concept] == 0 or rng.random() < 0.5 else onset + int(rng.integers(4, 17))
        track = actor(site, concept, w.CLIP_FRAMES, rng, start=begin, stop=last + 1, event=(begin, last))
        if begin > onset or not whole and track.velocity:  # comes in from the side
            edge = -MARGIN if track.velocity > 0 else w.WIDTH + MARGIN
            track = Track(**{**track.__dict__, "x": float(edge), "enters": True})
    return track
