"""The rules of SceneRules: which action is normal in which scene, and what breaks a rule.

Every constant of the embedded benchmark lives here, so that the dataset card, the renderer, the tests and the notebooks
read one table. Pixel quantities refer to the rendered frame, `HEIGHT` x `WIDTH`.

Notebook: 01_prepare_data
"""

from __future__ import annotations

HEIGHT, WIDTH = 96, 128  # rendered frame, pixels; the models read it at half this size
FPS = 10  # frames per second
CLIP_FRAMES = 48  # one clip lasts 4.8 s

SCENES = ("road", "plaza", "park", "corridor", "shop", "platform")
ACTIONS = ("walk", "run", "cycle", "drive", "loiter", "carry", "cart")  # ordinary actions
SEMANTIC = ("fight", "fall", "fire")  # abnormal everywhere
TEMPORAL = ("speed", "reversal", "teleport", "freeze")  # an ordinary, normal action with broken time
FAMILIES = ("semantic", "temporal", "contextual")
CONCEPTS = (*ACTIONS, *SEMANTIC)  # what an actor can be seen to do

NORMAL_CELLS: dict[str, tuple[str, ...]] = {
    "road": ("walk", "cycle", "drive"),
    "plaza": ("walk", "loiter", "cart"),
    "park": ("walk", "run", "cycle"),
    "corridor": ("walk", "carry", "cart"),
    "shop": ("walk", "loiter", "carry"),
    "platform": ("walk", "loiter", "run"),
}

# Ground speed in pixels per frame. Kept close together, so that plain frame difference cannot tell the actions apart.
SPEED = {
    "walk": 1.2, "run": 1.7, "cycle": 1.7, "drive": 1.6, "loiter": 0.0, "carry": 1.1, "cart": 1.1,
    "fight": 0.0, "fall": 1.0, "fire": 0.0,
}  # fmt: skip
SPEED_JITTER = (0.85, 1.15)  # factor drawn per actor
GAIT = {"walk": 0.55, "run": 0.95, "cycle": 0.8, "carry": 0.5, "cart": 0.5}  # radians of the leg's phase per frame
SPEED_UP = 3.0  # temporal family: factor of `speed`
GLITCH_PERIOD = (5, 8)  # frames between the jumps of `teleport`, the turns of `reversal`, the stutters of `freeze`
TELEPORT_PIXELS = (18, 34)  # length of one jump
GLITCH_FRAMES = (20, 32)  # how long a temporal anomaly lasts

TWO_ACTORS = 0.4  # share of clips with a second, normal actor


def is_normal(scene: str, action: str) -> bool:
    """Whether `action` is normal in `scene` (the benchmark's hidden normality table)."""
    return action in NORMAL_CELLS[scene]


def abnormal_actions(scene: str) -> tuple[str, ...]:
    """The ordinary actions that break the rule of `scene`: its contextual anomalies."""
    return tuple(action for action in ACTIONS if not is_normal(scene, action))
