"""Continuous video of one camera: ordinary traffic in which, now and then, the one who comes by is abnormal.

A stream is fair: an event's actor takes the place of the ordinary actor that it would have met most, and comes and goes
like one, so that the number of actors tells almost nothing, and neither does the time of day.

Notebook: 01_prepare_data
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from . import captions, draw
from . import world as w
from .render import MARGIN, Track, ground, poses, seen_as

EVENTS_PER = 1200  # frames that hold two events of each family
DENSITY_FRAMES = 300  # frames after which the density of the traffic is drawn anew
GAPS = ((-60, 30), (20, 120), (-110, -40))  # frames from one actor's end to the next one's start: usual, thin, dense
GAP_SHARES = (0.5, 0.25, 0.25)
APART = 20  # frames between two events, at least
STAND_FRAMES = (30, 80)  # how long a loiterer stands
LYING_FRAMES = (30, 48)  # how long somebody who has fallen lies there, or a fight or a fire lasts
MOST_ACTORS = 3
TOLD_FRAMES = 15  # a set of visible actors that lasts shorter gets no caption of its own


class Event(NamedTuple):
    """One abnormal span of a stream, both ends inclusive."""

    first: int
    last: int
    family: str
    kind: str


def passer_by(site: draw.Site, concept: str, start: int, rng: np.random.Generator) -> Track:
    """An actor that comes in from one side in frame `start` and leaves on the other; a loiterer stands meanwhile."""
    y, height = ground(site, rng)
    speed = (w.SPEED[concept] or w.SPEED["walk"]) * rng.uniform(*w.SPEED_JITTER) * rng.choice((-1, 1))
    x = float(-MARGIN if speed > 0 else w.WIDTH + MARGIN)
    crossing, hold = math.ceil((w.WIDTH + 2 * MARGIN) / abs(speed)), None
    if concept == "loiter":
        arrives = start + int(crossing * rng.uniform(0.25, 0.75))
        hold = (arrives, arrives + int(rng.integers(*STAND_FRAMES)))
        crossing += hold[1] - hold[0] + 1
    phase, look = float(rng.uniform(0, 2 * math.pi)), int(rng.integers(2**31))
    return Track(concept, x, float(speed), y, height, phase, look, start, start + crossing, enters=True, hold=hold)


def in_picture(track: Track, frames: int) -> np.ndarray:
    """Where the middle of an actor is in the picture: bool [frames]."""
    return np.array([shown is not None and 0 <= shown[1].x <= w.WIDTH for shown in poses(track, frames)])


def traffic(site: draw.Site, frames: int, rng: np.random.Generator) -> list[Track]:
    """Actors whose actions are normal in the scene, one after the other, with gaps of `GAPS` between them."""
    tracks, start, gaps = [], int(rng.integers(-100, 60)), {}
    while start < frames:
        period = max(start, 0) // DENSITY_FRAMES
        if period not in gaps:
            gaps[period] = GAPS[rng.choice(len(GAPS), p=GAP_SHARES)]
        tracks.append(passer_by(site, str(rng.choice(w.NORMAL_CELLS[site.scene])), start, rng))
        start = max(start + 1, tracks[-1].stop + int(rng.integers(*gaps[period], endpoint=True)))
        if len(tracks) >= MOST_ACTORS:  # not before there is room
            start = max(start, sorted(track.stop for track in tracks)[-MOST_ACTORS])
    return tracks


def kinds(scene: str, family: str) -> tuple[str, ...]:
    """What may happen in a scene, of one family."""
    return {"semantic": w.SEMANTIC, "temporal": w.TEMPORAL, "contextual": w.abnormal_actions(scene)}[family]


def event_actor(site: draw.Site, family: str, kind: str, rng: np.random.Generator) -> Track:
    """The abnormal actor of an event that begins in frame 0; it may have come in before.

    Contextual: abnormal as long as it is in the picture, a loiterer as long as it stands. Temporal: an ordinary actor
    whose time breaks on the way. Semantic: somebody comes in and falls; a fight and a fire begin with their event.
    """
    if family == "contextual":
        track = passer_by(site, kind, 0, rng)
        shown = np.flatnonzero(in_picture(track, track.stop))
        return _from_zero(replace(track, event=track.hold or (int(shown[0]), int(shown[-1]))))
    if family == "temporal":
        moving = [action for action in w.NORMAL_CELLS[site.scene] if w.SPEED[action] > 0]
        track, length = passer_by(site, str(rng.choice(moving)), 0, rng), int(rng.integers(*w.GLITCH_FRAMES))
        begin, period = int(track.stop * rng.uniform(0.2, 0.5)), int(rng.integers(*w.GLITCH_PERIOD))
        jumps = _jumps_inside(track, range(begin, begin + length, period), rng)
        event, later = (begin, begin + length - 1), track.stop + 2 * length
        track = replace(track, glitch=kind, event=event, period=period, jumps=jumps, stop=later)
        shown = np.flatnonzero(in_picture(track, later))
        return _from_zero(replace(track, event=(begin, min(event[1], int(shown[-1]))), stop=int(shown[-1]) + MARGIN))
    track, length = passer_by(site, kind if kind == "fight" else "walk", 0, rng), int(rng.integers(*LYING_FRAMES))
    begin = int(track.stop * rng.uniform(0.25, 0.75))
    track = replace(track, concept=kind, event=(begin, begin + length - 1), stop=begin + length)
    if kind != "fall":
        x = float(rng.uniform(2 * MARGIN, w.WIDTH - 2 * MARGIN))
        track = replace(track, x=x, velocity=0.0, start=begin)
    return _from_zero(track)


def _jumps_inside(track: Track, times: range, rng: np.random.Generator) -> tuple[float, ...]:
    """Jumps at `times`, pixels each, that do not leave the picture."""
    jumps: list[float] = []
    for t in times:
        x, jump = track.x + track.velocity * (t - track.start) + sum(jumps), float(rng.uniform(*w.TELEPORT_PIXELS))
        ahead = rng.random() < 0.5 if jump < x < w.WIDTH - jump else x < w.WIDTH / 2
        jumps.append(jump if ahead else -jump)
    return tuple(jumps)


def _from_zero(track: Track) -> Track:
    """The same actor, its event beginning in frame 0."""
    return shifted(track, -track.event[0])


def shifted(track: Track, frames: int) -> Track:
    """The same actor, so many frames later."""
    spans = {name: (span[0] + frames, span[1] + frames) for name in ("hold", "event") if (span := getattr(track, name))}
    return replace(track, start=track.start + frames, stop=track.stop + frames, **spans)


def place_events(actors: list[Track], frames: int, rng: np.random.Generator) -> list[Track]:
    """Events one after the other at any time of the stream, at least `APART` frames between them."""
    lengths = [track.event[1] + 1 for track in actors]
    spare = frames - sum(lengths) - APART * (len(actors) - 1)
    cuts, placed, now = np.sort(rng.integers(0, max(spare, 0) + 1, len(actors))), [], 0
    for track, length, cut in zip(actors, lengths, cuts):
        placed.append(shifted(track, now + int(cut)))
        now += length + APART
    return placed


def stream_script(
    site: draw.Site, frames: int, turn: int, rng: np.random.Generator, normal: bool = False
) -> tuple[list[Track], list[Event]]:
    """Traffic with two events of each family per `EVENTS_PER` frames, in whose stead ordinary actors stay away.

    Args:
        site: camera.
        frames: length of the stream.
        turn: number of the stream among those of its scene: kinds take turns.
        rng: source of all chance.
        normal: traffic alone.

    Returns:
        The actors, and their events by time, one per run of frames in which the actor is in the picture and at it.
    """
    ordinary = traffic(site, frames, rng)
    if normal:
        return ordinary, []
    count = max(1, len(w.FAMILIES) * 2 * frames // EVENTS_PER)
    families = [w.FAMILIES[i] for i in rng.permutation(np.arange(count) % len(w.FAMILIES))]
    met, events = Counter({family: 2 * turn for family in w.FAMILIES}), []
    actors = []
    for family in families:
        of_family = kinds(site.scene, family)
        actors.append(event_actor(site, family, of_family[met[family] % len(of_family)], rng))
        met[family] += 1
    placed = place_events(actors, frames, rng)
    for family, actor in zip(families, placed):
        ordinary = _make_room(ordinary, actor, actor_count(placed, frames), frames)
        events += [Event(*run, family, actor.glitch or actor.concept) for run in _runs_at_it(actor, frames)]
    return ordinary + placed, sorted(events)


def _make_room(ordinary: list[Track], actor: Track, abnormal: np.ndarray, frames: int) -> list[Track]:
    """Without the ordinary actor that it would have met longest, and without more while there are too many.

    Args:
        ordinary: actors of the traffic.
        actor: of an event.
        abnormal: [frames] actors of all events in the picture.
        frames: length of the stream.
    """
    shown, here = in_picture(actor, frames), {track: in_picture(track, frames) for track in ordinary}
    while ordinary:
        met = max(ordinary, key=lambda track: int((here[track] & shown).sum()))
        crowded = (sum(here[track] for track in ordinary) + abnormal)[shown].max() > MOST_ACTORS
        if len(ordinary) < len(here) and not crowded or not (here[met] & shown).any():
            break
        ordinary = [track for track in ordinary if track is not met]
    return ordinary


def _runs_at_it(track: Track, frames: int) -> list[tuple[int, int]]:
    """Runs of frames in which an actor is in the picture and abnormal, both ends inclusive."""
    at_it = in_picture(track, frames)
    at_it[: track.event[0]] = at_it[track.event[1] + 1 :] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], at_it.view(np.int8), [0]])))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def actor_count(tracks: list[Track], frames: int) -> np.ndarray:
    """Actors in the picture: int [frames]."""
    return sum((in_picture(track, frames).astype(int) for track in tracks), np.zeros(frames, int))


class Segment(NamedTuple):
    """What is told of a stretch of a stream."""

    first: int  # frame
    stop: int  # first frame after it
    caption: str


def captioned(tracks: list[Track], frames: int, rng: np.random.Generator) -> list[Segment]:
    """Captions as UCA has them: one per run of frames that show the same actors at the same, one clause per actor.

    Runs shorter than `TOLD_FRAMES` belong to the one before.
    """
    shown: list[list[tuple[int, str]]] = [[] for _ in range(frames)]  # per frame, number and concept of each actor
    for number, track in enumerate(tracks):
        acting = poses(track, frames)
        for t in np.flatnonzero(in_picture(track, frames)):
            concept, pose = acting[t]
            shown[t].append((number, seen_as(concept, pose)))
    runs: list[tuple[list[tuple[int, str]], int]] = []  # actors, frames
    for actors, run in itertools.groupby(shown):
        length = len(list(run))
        if runs and (length < TOLD_FRAMES or actors == runs[-1][0]):
            actors, length = runs[-1][0], runs.pop()[1] + length
        runs.append((actors, length))
    ends = np.cumsum([length for _, length in runs])
    return [
        Segment(int(end) - length, int(end), captions.caption([concept for _, concept in actors], rng))
        for (actors, length), end in zip(runs, ends)
    ]
