"""Captions of rendered clips: a small grammar with several subjects and verbs per action, in UCA's plain English.

Benchmark captions never name the scene; captions of the stand-ins' web corpus do in `SCENE_WORD_SHARE` of the cases.
"""

from __future__ import annotations

import numpy as np

PEOPLE = (
    "a man", "a woman", "a person", "someone", "a pedestrian", "a man in dark clothes", "a woman in bright clothes",
)  # fmt: skip
PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # action -> (subjects, verb phrases)
    "walk": (PEOPLE, ("walks by", "is walking", "strolls past", "passes on foot", "walks from one side to the other")),
    "run": ((*PEOPLE, "a runner"), ("runs by", "is running", "jogs past", "sprints across", "is jogging")),
    "cycle": ((*PEOPLE, "a cyclist"), ("rides a bicycle", "cycles past", "is riding a bike", "pedals by on a bicycle")),
    "drive": (("a car", "a vehicle", "a small car", "an automobile"),
              ("drives by", "is driving", "passes", "drives past")),
    "loiter": (PEOPLE, ("stands around", "is loitering", "waits in one place", "stands still", "lingers with a phone")),
    "carry": (PEOPLE, ("carries a box", "is carrying a parcel", "walks with a box in both arms", "brings a package")),
    "cart": (PEOPLE, ("pushes a cart", "is pushing a trolley", "walks behind a cart", "wheels a trolley along")),
    "fight": (("two people", "two men", "a pair of people"),
              ("are fighting", "hit each other", "start a fight", "punch each other")),
    "fall": (PEOPLE, ("falls down", "collapses to the ground", "falls over and stays down", "drops to the ground")),
    "fire": (("a fire", "something", "a heap"),
             ("burns with high flames", "is on fire", "is burning", "goes up in flames")),
}  # fmt: skip
PLACES: dict[str, tuple[str, ...]] = {
    "road": ("on a road", "on the street", "in traffic"),
    "plaza": ("on a plaza", "on the square", "in front of a fountain"),
    "park": ("in a park", "on the grass", "between trees"),
    "corridor": ("in a corridor", "in a hallway", "indoors between doors"),
    "shop": ("in a shop", "between shelves", "in a store"),
    "platform": ("on a platform", "at a station", "beside the tracks"),
}
EMPTY = ("nothing moves", "nobody is there", "the place is empty", "no one is in sight")
SCENE_WORD_SHARE = 0.6  # web captions that name the scene


def clause(action: str, rng: np.random.Generator) -> str:
    """What one actor does."""
    subjects, verbs = PHRASES[action]
    return f"{rng.choice(subjects)} {rng.choice(verbs)}"


def sentence(clauses: list[str], rng: np.random.Generator, place: str | None = None) -> str:
    """Clauses joined by "and".

    Args:
        clauses: one per actor; none: nothing moves.
        rng: source of the choice of words.
        place: scene whose words are added to the end; None for none.
    """
    words = " and ".join(clauses) or str(rng.choice(EMPTY))
    return f"{words} {rng.choice(PLACES[place])}" if place else words


def caption(actions: list[str], rng: np.random.Generator, place: str | None = None) -> str:
    """A `sentence` about what the actors do, one concept each."""
    return sentence([clause(action, rng) for action in actions], rng, place)
