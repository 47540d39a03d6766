"""Drawing: camera sites (background, light, noise) and actors (articulated figures), with Pillow at the rendered
size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .world import HEIGHT, SCENES, WIDTH

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
SUPERSAMPLE = 2  # backgrounds are drawn larger and reduced; actors are small enough without


@dataclass(frozen=True)
class Site:
    """One fixed camera. `background` is [HEIGHT, WIDTH, 3] uint8, `ground` the rows on which actors stand (top,
    bottom)."""

    scene: str
    background: Image.Image
    ground: tuple[int, int]  # rows of the farthest and the nearest feet
    size: tuple[float, float]  # figure height in pixels at those rows
    gain: float  # light
    noise: float  # standard deviation of the sensor noise, grey levels


def _shade(rng: np.random.Generator, colour: tuple[int, int, int], spread: float = 12) -> tuple[int, int, int]:
    shift = rng.normal(0, spread, 3)
    return tuple(int(np.clip(c + rng.normal(0, spread / 2) + s, 0, 255)) for c, s in zip(colour, shift))


def make_site(scene: str, rng: np.random.Generator, night: bool = False, lookalike: bool = False) -> Site:
    """Draw one camera site.

    Args:
        scene: one of `SCENES`.
        rng: palette, layout, perspective, light and noise are drawn from it.
        night: darken the light and raise the noise.
        lookalike: blend the picture half and half with that of the next scene in the list (whose rules do not apply).
    """
    horizon = int(rng.integers(30, 42))
    background = _paint(scene, horizon, rng)
    if lookalike:
        other = SCENES[(SCENES.index(scene) + 1) % len(SCENES)]
        background = Image.blend(background, _paint(other, horizon, rng), 0.5)
    near = rng.uniform(34, 40)
    return Site(
        scene=scene,
        background=background,
        ground=(horizon + int(rng.integers(24, 30)), HEIGHT - 4),
        size=(near * rng.uniform(0.8, 0.92), near),
        gain=float(rng.uniform(0.38, 0.5) if night else rng.uniform(0.85, 1.12)),
        noise=float(rng.uniform(5.0, 7.0) if night else rng.uniform(1.5, 3.5)),
    )


def _paint(scene: str, horizon: int, rng: np.random.Generator) -> Image.Image:
    """The empty scene as a picture."""
    k = SUPERSAMPLE
    width, height, top = WIDTH * k, HEIGHT * k, horizon * k
    image = Image.new("RGB", (width, height))
    d = ImageDraw.Draw(image)

    def rect(x0: float, y0: float, x1: float, y1: float, fill: tuple[int, int, int]) -> None:
        d.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], fill=fill)

    if scene == "road":
        rect(0, 0, width, top, _shade(rng, (150, 175, 200)))
        x = 0.0
        while x < width:  # houses
            w = rng.uniform(30, 60)
            rect(x, top - rng.uniform(20, 52), x + w, top, _shade(rng, (140, 110, 95), 25))
            x += w
        rect(0, top, width, top + 16, _shade(rng, (165, 160, 155)))
        rect(0, top + 16, width, height, _shade(rng, (82, 84, 88), 10))
        line = top + rng.integers(56, 76)
        for x in range(int(rng.integers(0, 20)), width, 44):
            rect(x, line, x + 22, line + 4, (225, 225, 215))
    elif scene == "plaza":
        rect(0, 0, width, top, _shade(rng, (185, 190, 205)))
        for x in range(int(rng.integers(0, 16)), width, 28):  # arcade
            rect(x, top - 44, x + 10, top, _shade(rng, (200, 185, 160), 10))
        stone, joint = _shade(rng, (196, 182, 158), 12), _shade(rng, (160, 146, 126), 8)
        rect(0, top, width, height, stone)
        for y in np.linspace(top, height, 9)[1:]:
            d.line([0, y, width, y], fill=joint, width=2)
        for i in range(-8, 9):
            d.line([width / 2 + i * 18, top, width / 2 + i * 60, height], fill=joint, width=2)
        x = rng.uniform(0.2, 0.8) * width
        d.ellipse([x - 34, top - 8, x + 34, top + 16], fill=(120, 160, 190), outline=joint, width=3)
    elif scene == "park":
        rect(0, 0, width, top, _shade(rng, (160, 195, 225)))
        rect(0, top, width, height, _shade(rng, (88, 140, 70), 14))
        for _ in range(int(rng.integers(5, 9))):
            x, r = rng.uniform(0, width), rng.uniform(14, 28)
            rect(x - 3, top - 10, x + 3, top + 8, (96, 70, 48))
            d.ellipse([x - r, top - 12 - 1.7 * r, x + r, top - 6], fill=_shade(rng, (50, 104, 48), 16))
        y = top + rng.uniform(40, 62)
        d.polygon([(0, y), (width, y - 14), (width, y + 16), (0, y + 26)], fill=_shade(rng, (188, 166, 128), 10))
    elif scene == "corridor":
        wall, floor = _shade(rng, (206, 204, 192), 10), _shade(rng, (132, 120, 112), 12)
        rect(0, 0, width, height, wall)
        rect(0, top + 20, width, height, floor)
        rect(0, top + 14, width, top + 20, _shade(rng, (120, 112, 104), 8))
        door = _shade(rng, (130, 88, 58), 16)
        for x in range(int(rng.integers(4, 30)), width, 64):
            rect(x, top - 48, x + 26, top + 14, door)
        for x in range(int(rng.integers(0, 30)), width, 72):
            rect(x, 2, x + 40, 10, (250, 250, 235))
    elif scene == "shop":
        rect(0, 0, width, height, _shade(rng, (228, 224, 214), 8))
        rect(0, top + 12, width, height, _shade(rng, (176, 182, 186), 10))
        for y in range(10, top + 8, 20):  # shelves with goods
            rect(0, y + 14, width, y + 17, (110, 90, 70))
            x = float(rng.uniform(0, 8))
            while x < width:
                w = rng.uniform(7, 15)
                rect(x, y + rng.uniform(0, 6), x + w, y + 13, tuple(int(c) for c in rng.integers(40, 240, 3)))
                x += w + rng.uniform(2, 6)
    else:  # platform
        rect(0, 0, width, top, _shade(rng, (74, 80, 96), 12))
        for x in range(int(rng.integers(0, 40)), width, 90):
            rect(x, 8, x + 60, 22, _shade(rng, (60, 90, 150), 12))
        rect(0, top - 14, width, top + 12, (48, 44, 44))
        for x in range(0, width, 12):
            rect(x, top - 8, x + 4, top + 8, (88, 74, 62))
        d.line([0, top - 4, width, top - 4], fill=(170, 170, 175), width=3)
        rect(0, top + 12, width, height, _shade(rng, (142, 140, 142), 10))
        rect(0, top + 18, width, top + 25, (230, 196, 40))
    return image.reduce(k)


@dataclass(frozen=True)
class Pose:
    """Where one actor is and how it looks in one frame. `x` is its centre, `y` its feet (pixels), `phase` its gait
    (radians)."""

    x: float
    y: float
    height: float
    facing: int  # +1 right, -1 left
    phase: float
    fallen: float = 0.0  # 0 upright .. 1 lying


def draw_actor(d: ImageDraw.ImageDraw, concept: str, pose: Pose, look: np.random.Generator) -> Box:
    """Draw one actor and return its box (x0, y0, x1, y1) in pixels. `look` fixes its colours: pass an equally seeded
    one each frame."""
    h, x, y = pose.height, pose.x, pose.y
    shirt, trousers, skin = (tuple(int(c) for c in look.integers(20, 236, 3)) for _ in range(3))
    skin = (224, 180, 150) if skin[0] > 90 else (120, 82, 60)
    if concept == "drive":
        return _car(d, pose, shirt)
    if concept == "fire":
        return _fire(d, pose)
    if concept == "fight":
        gap, jab = 0.24 * h, math.sin(pose.phase)
        a = _person(d, x - gap + 1.2 * jab, y, h, 1, 0.35 * jab, 0.25, shirt, trousers, skin, arms=1.4 + 0.5 * jab)
        b = _person(d, x + gap + 1.2 * jab, y, h, -1, -0.35 * jab, 0.25, trousers, shirt, skin, arms=1.4 - 0.5 * jab)
        return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    if concept == "cycle":
        r, hip = 0.2 * h, 0.3 * h
        for wheel in (x - hip, x + hip):
            d.ellipse([wheel - r, y - 2 * r, wheel + r, y], outline=(25, 25, 28), width=2)
        d.line([x - hip, y - r, x, y - 0.42 * h, x + hip * pose.facing, y - r], fill=shirt, width=2)
        legs = 0.5 * math.sin(pose.phase)
        box = _person(d, x, y - 0.16 * h, 0.92 * h, pose.facing, legs, 0.45, shirt, trousers, skin, arms=1.0)
        return (min(box[0], x - hip - r), box[1], max(box[2], x + hip + r), y)
    swing = {"walk": 0.42, "run": 0.85, "carry": 0.36, "cart": 0.36, "fall": 0.4}.get(concept, 0.0)
    lean = {"run": 0.34, "cart": 0.2}.get(concept, 0.0)
    arms = {"run": 0.8, "carry": 1.25, "cart": 1.1, "loiter": 0.5}.get(concept)
    tilt = lean + pose.fallen * (math.pi / 2 - 0.05)
    legs = swing * math.sin(pose.phase) * (1 - pose.fallen)
    box = _person(d, x, y, h, pose.facing, legs, tilt, shirt, trousers, skin, arms, whole=pose.fallen > 0)
    ahead = x + pose.facing * 0.3 * h
    if concept == "carry":
        carried = [ahead - 0.17 * h, y - 0.72 * h, ahead + 0.17 * h, y - 0.42 * h]
        d.rectangle(carried, fill=(176, 124, 70), outline=(90, 60, 30))
    elif concept == "cart":
        ahead += pose.facing * 0.16 * h
        cart = [ahead - 0.26 * h, y - 0.5 * h, ahead + 0.26 * h, y - 0.14 * h]
        d.rectangle(cart, fill=(150, 156, 166), outline=(50, 54, 60))
        for wheel in (ahead - 0.18 * h, ahead + 0.18 * h):
            d.ellipse([wheel - 2, y - 5, wheel + 2, y], fill=(20, 20, 20))
    else:
        return box
    return (min(box[0], ahead - 0.26 * h), box[1], max(box[2], ahead + 0.26 * h), box[3])


def _person(d, x, y, h, facing, legs, tilt, shirt, trousers, skin, arms=None, whole=False):
    """A figure of a head, a torso, two arms and two legs. `tilt` leans the torso; with `whole` the entire body turns
    about the feet."""
    sin, cos = math.sin(tilt) * facing, math.cos(tilt)
    leg, trunk, thick = 0.46 * h, 0.34 * h, max(2, round(0.1 * h))
    base = (x, y)
    hip = (x + leg * sin, y - max(leg * cos, 0.08 * h)) if whole else (x, y - leg)
    neck = (hip[0] + trunk * sin, hip[1] - trunk * cos)
    for side in (1, -1):
        step = (hip[0] + leg * math.sin(side * legs), hip[1] + leg * math.cos(side * legs))
        foot = (base[0] + side * 2, base[1]) if whole else step
        d.line([hip, foot], fill=trousers, width=thick)
    d.line([hip, neck], fill=shirt, width=round(0.2 * h))
    for side in (1, -1):
        angle = (arms if arms is not None else side * legs) + 0.1 * side
        hand_x = neck[0] + facing * 0.3 * h * math.sin(angle) + 0.1 * h * sin
        hand = (hand_x, neck[1] + 0.3 * h * math.cos(angle) + 0.05 * h)
        d.line([(neck[0], neck[1] + 0.05 * h), hand], fill=shirt, width=max(2, thick - 1))
    r = 0.1 * h
    head = (neck[0] + r * sin, neck[1] - r * cos)
    d.ellipse([head[0] - r, head[1] - r, head[0] + r, head[1] + r], fill=skin)
    xs, ys = (base[0] - 0.12 * h, base[0] + 0.12 * h, head[0] - r, head[0] + r), (base[1], head[1] - r)
    return (min(xs), min(ys), max(xs), max(ys))


def _car(d: ImageDraw.ImageDraw, pose: Pose, colour: tuple[int, ...]) -> Box:
    w, h, x, y = 1.05 * pose.height, 0.46 * pose.height, pose.x, pose.y
    d.rounded_rectangle([x - w / 2, y - 0.7 * h, x + w / 2, y - 0.18 * h], radius=3, fill=colour)
    sill, roof = y - 0.7 * h, y - 1.1 * h
    cabin = [(x - 0.3 * w, sill), (x - 0.2 * w, roof), (x + 0.2 * w, roof), (x + 0.3 * w, sill)]
    d.polygon(cabin, fill=(150, 190, 215))
    for wheel in (x - 0.3 * w, x + 0.3 * w):
        d.ellipse([wheel - 0.16 * h - 1, y - 0.36 * h, wheel + 0.16 * h + 1, y], fill=(18, 18, 20))
    return (x - w / 2, y - 1.1 * h, x + w / 2, y)


def _fire(d: ImageDraw.ImageDraw, pose: Pose) -> Box:
    h, x, y, t = 0.7 * pose.height, pose.x, pose.y, pose.phase
    for colour, share, shift in (((200, 50, 20), 1.0, 0.0), ((245, 140, 30), 0.75, 1.3), ((255, 225, 90), 0.45, 2.1)):
        tongues = [(x - 0.4 * h * share, y)]
        for i, px in enumerate((-0.25, 0.0, 0.25)):
            lick = 0.85 + 0.15 * math.sin(t + shift + 2.0 * i)
            tongues += [(x + (px - 0.1) * h * share, y - 0.5 * h * share), (x + px * h * share, y - h * share * lick)]
        d.polygon([*tongues, (x + 0.4 * h * share, y)], fill=colour)
    return (x - 0.4 * h, y - h, x + 0.4 * h, y)
