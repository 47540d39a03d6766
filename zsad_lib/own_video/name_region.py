"""A region in words: where it is, what it looks like, and what speaks against it.

Two rules of thumb, fixed before they were tried. A sentence on what is abnormal names the region where all of them
together have at least `NAMED` of the probability, as in the guessed family of an event. Else the normal clause that
fits it best as it stands, without the scene, says what it looks like; where the gate takes more than half of that fit
away, it is not normal here.

Notebooks: 50_score_your_video, 51_explain_a_score
"""

from __future__ import annotations

import numpy as np

from zsad_lib.own_video.events import NAMED
from zsad_lib.own_video.words import NOBODY

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
OPEN = 0.5  # share of a clause's fit that the gate leaves, from which on the clause is normal here
FAR = 2.0  # deviations of the misfit from normal video, above which no clause names a region
NOTHING = "no region, nobody was seen"


def place_in_words(row: int, column: int, grid: tuple[int, int]) -> str:
    """Where a patch lies, in thirds of the picture.

    Args:
        row, column: of the patch, from 0.
        grid: rows and columns of patches.

    >>> place_in_words(5, 0, (6, 8)), place_in_words(2, 4, (6, 8)), place_in_words(0, 3, (6, 8))
    ('lower left', 'centre', 'upper centre')
    """
    up, across = (int(3 * (number + 0.5) / count) for number, count in zip((row, column), grid))
    return "centre" if up == across == 1 else f"{ROWS[up]} {COLUMNS[across]}"


def name_region(
    sentences: list[str], ungated: np.ndarray, gated: np.ndarray, prompts: np.ndarray, misfit: float
) -> str:
    """What a region looks like, and whether that is normal there.

    Args:
        sentences: K clauses of normal video, then A sentences on what would be abnormal.
        ungated: similarities of the region with them [K + A].
        gated: the same under the gate.
        prompts: probability of each of the A sentences [A].
        misfit: s_sem of the region, in deviations from normal video.

    >>> said, fits = ["a man walks by", "a man rides a bicycle", "a fire burns"], np.array([0.3, 0.9, 0.1])
    >>> name_region(said, fits, np.array([0.3, 0.1, 0.1]), np.array([0.1]), misfit=3.0)
    'a man rides a bicycle, not normal here'
    >>> name_region(said, fits, fits, np.array([0.1]), misfit=0.4)
    'a man rides a bicycle, normal here'
    """
    known = len(sentences) - len(prompts)
    if prompts.sum() >= NAMED:
        return f"{sentences[known + int(prompts.argmax())]}, not normal here"
    about = [k for k in range(known) if sentences[k] not in NOBODY] or range(known)  # somebody, not an empty place
    best = max(about, key=lambda k: ungated[k])
    if gated[best] < OPEN * ungated[best]:
        return f"{sentences[best]}, not normal here"
    if misfit > FAR:
        return f"unlike all that is normal here, most like: {sentences[best]}"
    return f"{sentences[best]}, normal here"
