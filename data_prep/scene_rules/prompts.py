"""Prompts that a user without captions would write: one plain sentence per action, with or without the scene's name."""

from collections.abc import Iterable

from data_prep.scene_rules.captions import PHRASES, PLACES


def prompts(actions: Iterable[str], places: Iterable[str] | None = None) -> list[str]:
    """One prompt per action, in the grammar's first words; with `places`, one per action and scene, which it names.

    >>> prompts(["cycle"]), prompts(["cycle"], ["park"])
    (['a man rides a bicycle'], ['a man rides a bicycle in a park'])
    """
    plain = [f"{PHRASES[action][0][0]} {PHRASES[action][1][0]}" for action in actions]
    return plain if places is None else [f"{prompt} {PLACES[place][0]}" for prompt in plain for place in places]
