"""The "web" corpus on which the stand-in backbones are pretrained: what CLIP, Kinetics and Places weights have seen.

All scene x action cells uniformly, fights, falls and fires included, on cameras of its own; no broken time, and not a
word on what is normal where.

Notebook: 02_pretrain_backbones
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

from . import captions, draw, render
from . import world as w
from .clips import generator

FRAMES = 30  # one predictive window
GRID = 8  # pixels per dense-label cell at half the rendered size (the stand-in TimeSformer's patch)
CHUNK = 64  # clips rendered by one task


class WebCorpus(NamedTuple):
    """`video` uint8 [N, FRAMES, HEIGHT/2, WIDTH/2, 3]; `cells` int8 [N, FRAMES, rows, columns], 0 background, else 1 +
    concept; `scene` int64 [N]; `actions` float32 [N, concepts] multi-hot; `captions` N sentences."""

    video: np.ndarray
    cells: np.ndarray
    scene: np.ndarray
    actions: np.ndarray
    captions: list[str]


def web_clip(
    index: int, seed: int, held_out: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, str]:
    """Clip `index` of the corpus; concepts in `held_out` never appear."""
    rng = generator(seed, f"web-{index}")
    scene = int(rng.integers(len(w.SCENES)))
    site = draw.make_site(w.SCENES[scene], rng, night=rng.random() < 0.15)
    pool = [concept for concept in w.CONCEPTS if concept not in held_out]
    names = [str(rng.choice(pool)) for _ in range(2 if rng.random() < w.TWO_ACTORS else 1)]
    tracks = []
    for name in names:
        if name in w.SEMANTIC:
            tracks.append(render.anomaly(site, "semantic", rng, frames=w.CLIP_FRAMES, detail=name))
        else:
            tracks.append(render.actor(site, name, FRAMES, rng))
    video, boxes = render.render(site, tracks, FRAMES, rng)
    cells = dense_labels(boxes)
    place = site.scene if rng.random() < captions.SCENE_WORD_SHARE else None
    actions = np.zeros(len(w.CONCEPTS), np.float32)
    actions[[w.CONCEPTS.index(name) for name in names]] = 1
    return video, cells, scene, actions, captions.caption(names, rng, place)


def dense_labels(boxes: list) -> np.ndarray:
    """Boxes to int8 [frames, rows, columns]: 1 + concept where a cell's centre lies in an actor's box, else 0."""
    rows, columns = w.HEIGHT // 2 // GRID, w.WIDTH // 2 // GRID
    ys, xs = (np.arange(rows) + 0.5) * 2 * GRID, (np.arange(columns) + 0.5) * 2 * GRID
    cells = np.zeros((len(boxes), rows, columns), np.int8)
    for t, frame in enumerate(boxes):
        for concept, x0, y0, x1, y1 in frame:
            row_inside = (ys >= y0 - GRID / 2) & (ys <= y1 + GRID / 2)
            column_inside = (xs >= x0 - GRID / 2) & (xs <= x1 + GRID / 2)
            cells[t][row_inside[:, None] & column_inside] = 1 + w.CONCEPTS.index(concept)
    return cells


def web_corpus(count: int, seed: int, held_out: tuple[str, ...] = (), jobs: int = 2) -> WebCorpus:
    """Render `count` clips with `jobs` processes; equal for any number of processes."""
    from zsad_lib.files.decoding import resize

    def chunk(start: int) -> list:
        clips = (web_clip(i, seed, held_out) for i in range(start, min(start + CHUNK, count)))
        size = (w.HEIGHT // 2, w.WIDTH // 2)
        return [(np.stack([resize(frame, size) for frame in video]), *labels) for video, *labels in clips]

    parts = Parallel(jobs)(delayed(chunk)(start) for start in range(0, count, CHUNK))
    video, cells, scene, actions, sentences = zip(*(clip for part in parts for clip in part))
    return WebCorpus(np.stack(video), np.stack(cells), np.array(scene), np.stack(actions), list(sentences))
