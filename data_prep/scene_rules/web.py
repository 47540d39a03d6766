"""The "web" corpus on which the stand-in backbones are pretrained: what CLIP, Kinetics and Places weights have seen.

All scene x action cells uniformly, fights, falls and fires included, on cameras of its own; no broken time, and not a
word on what is normal where. As in what a camera sees, nobody to three actors at a time, that come in, leave and are
cut by the picture's edge.

Notebook: 02_pretrain_backbones
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

from . import captions, draw, render, streams
from . import world as w
from .clips import generator

FRAMES = 30  # one predictive window
GRID = 8  # pixels per dense-label cell at half the rendered size (the stand-in TimeSformer's patch)
CHUNK = 64  # clips rendered by one task
ACTOR_SHARES = (0.08, 0.42, 0.32, 0.18)  # of clips with no, one, two and three actors
CROSSING_SHARE = 0.6  # of ordinary actors that are somewhere on their way through the picture; the others stay in it
UNDER_WAY_SHARE = 0.5  # of fights, falls and fires that have begun before the clip
TOLD_FRAMES = 5  # an actor that is in the picture for less is not spoken of


class WebCorpus(NamedTuple):
    """N clips with all that is known of them.

    `video` uint8 [N, FRAMES, HEIGHT/2, WIDTH/2, 3]; `cells` int8 [N, FRAMES, rows, columns], 0 background, else 1 +
    concept; `told` int8 of the same shape, 0 background, else 1 + number of the clause that tells what is there;
    `scene` int64 [N]; `actions` float32 [N, concepts] multi-hot; `clauses` N lists; `captions` N sentences.
    """

    video: np.ndarray
    cells: np.ndarray
    told: np.ndarray
    scene: np.ndarray
    actions: np.ndarray
    clauses: list[list[str]]
    captions: list[str]


def web_actor(site: draw.Site, concept: str, rng: np.random.Generator) -> render.Track:
    """One actor of a clip of `FRAMES` frames."""
    if concept in w.SEMANTIC:
        track = render.anomaly(site, "semantic", rng, frames=w.CLIP_FRAMES, detail=concept)
        track = replace(track, event=(track.event[0], 2 * w.CLIP_FRAMES), stop=2 * w.CLIP_FRAMES)
        under_way = rng.random() < UNDER_WAY_SHARE
        return streams.shifted(track, -int(track.event[0] + rng.integers(1, FRAMES))) if under_way else track
    if rng.random() < CROSSING_SHARE:
        track = streams.passer_by(site, concept, 0, rng)
        return streams.shifted(track, -int(rng.integers(-FRAMES // 2, track.stop)))
    return render.actor(site, concept, FRAMES, rng)


def web_clip(index: int, seed: int, held_out: tuple[str, ...] = ()) -> tuple:
    """Clip `index` of the corpus, a value per field of `WebCorpus`; concepts in `held_out` never appear."""
    rng = generator(seed, f"web-{index}")
    scene = int(rng.integers(len(w.SCENES)))
    site = draw.make_site(w.SCENES[scene], rng, night=rng.random() < 0.15)
    pool = [concept for concept in w.CONCEPTS if concept not in held_out]
    count = rng.choice(len(ACTOR_SHARES), p=ACTOR_SHARES)
    tracks = [web_actor(site, str(rng.choice(pool)), rng) for _ in range(count)]
    video, boxes = render.render(site, tracks, FRAMES, rng)
    place = site.scene if rng.random() < captions.SCENE_WORD_SHARE else None
    spoken = told_concepts(tracks, boxes)
    clauses = {(actor, concept): captions.clause(concept, rng) for actor, concept in spoken.items()}
    sentence = captions.sentence(list(clauses.values()), rng, place)
    for shown in (box for frame in boxes for box in frame):  # a loiterer also walks, somebody walks before a fall
        clauses.setdefault((shown.actor, shown.concept), captions.clause(shown.concept, rng))
    numbers = {key: 1 + number for number, key in enumerate(clauses)}
    cells = dense_labels(boxes, lambda box: 1 + w.CONCEPTS.index(box.concept))
    told = dense_labels(boxes, lambda box: numbers[box.actor, box.concept])
    actions = np.zeros(len(w.CONCEPTS), np.float32)
    actions[[w.CONCEPTS.index(concept) for concept in spoken.values()]] = 1
    return video, cells, told, scene, actions, list(clauses.values()), sentence


def told_concepts(tracks: list[render.Track], boxes: list[list[render.Shown]]) -> dict[int, str]:
    """What the caption says of each actor that is in the picture long enough: what it does most of the time, but a fall
    is a fall."""
    spoken = {}
    for actor, track in enumerate(tracks):
        inside = streams.in_picture(track, len(boxes))
        done = Counter(
            box.concept for t, frame in enumerate(boxes) for box in frame if inside[t] and box.actor == actor
        )
        if done.total() >= TOLD_FRAMES:
            spoken[actor] = "fall" if "fall" in done else done.most_common(1)[0][0]
    return spoken


def dense_labels(boxes: list[list[render.Shown]], label: Callable[[render.Shown], int]) -> np.ndarray:
    """Boxes to int8 [frames, rows, columns]: the label of the actor in whose box a cell's centre lies, of several the
    nearest one's; else 0."""
    rows, columns = w.HEIGHT // 2 // GRID, w.WIDTH // 2 // GRID
    ys, xs = (np.arange(rows) + 0.5) * 2 * GRID, (np.arange(columns) + 0.5) * 2 * GRID
    cells = np.zeros((len(boxes), rows, columns), np.int8)
    for t, frame in enumerate(boxes):
        for box in frame:
            row_inside = (ys >= box.y0 - GRID / 2) & (ys <= box.y1 + GRID / 2)
            column_inside = (xs >= box.x0 - GRID / 2) & (xs <= box.x1 + GRID / 2)
            cells[t][row_inside[:, None] & column_inside] = label(box)
    return cells


def web_corpus(count: int, seed: int, held_out: tuple[str, ...] = (), jobs: int = 2) -> WebCorpus:
    """Render `count` clips with `jobs` processes; equal for any number of processes."""
    from zsad_lib.files.decoding import resize

    def chunk(start: int) -> list:
        clips = (web_clip(i, seed, held_out) for i in range(start, min(start + CHUNK, count)))
        size = (w.HEIGHT // 2, w.WIDTH // 2)
        return [(np.stack([resize(frame, size) for frame in video]), *labels) for video, *labels in clips]

    parts = Parallel(jobs)(delayed(chunk)(start) for start in range(0, count, CHUNK))
    video, cells, told, scene, actions, clauses, sentences = zip(*(clip for part in parts for clip in part))
    labels = np.stack(cells), np.stack(told), np.array(scene), np.stack(actions)
    return WebCorpus(np.stack(video), *labels, list(clauses), list(sentences))
