"""Continuous videos of the benchmark: fair, labelled by event, and told as they are drawn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_prep.scene_rules import captions, prepare, render, streams, world
from data_prep.scene_rules.clips import _site, clip_list, generator, plan_clip
from zsad_lib.config import get_profile
from zsad_lib.files.manifest import family_frames, load_manifest, span_kinds
from zsad_lib.files.score_files import read_archive
from zsad_lib.files.spans import parse_spans

FRAMES = 1200


def script(scene: str, number: int, turn: int = 0):
    """A stream of a validation camera: none of the test cameras decides anything here."""
    site = _site(scene, f"val-{scene}-{number}", "main", 0)
    return site, *streams.stream_script(site, FRAMES, turn, generator(0, site.scene, str(number), str(turn)))


@pytest.fixture(scope="module")
def scripts():
    return [script(scene, number, turn) for scene in world.SCENES for number, turn in ((0, 0), (0, 1), (1, 2))]


def truth(events) -> np.ndarray:
    labels = np.zeros(FRAMES, int)
    for event in events:
        labels[event.first : event.last + 1] = 1
    return labels


def test_neither_the_number_of_actors_nor_the_time_tells_what_is_abnormal(scripts):
    labels = np.concatenate([truth(events) for _, _, events in scripts])
    counts = np.concatenate([streams.actor_count(tracks, FRAMES) for _, tracks, _ in scripts])
    middle = np.tile(-np.abs(np.arange(FRAMES) - FRAMES / 2), len(scripts))
    assert 0.5 < roc_auc_score(labels, counts) <= 0.70
    assert roc_auc_score(labels, middle) <= 0.56
    assert counts.max() <= streams.MOST_ACTORS and 0.15 < (counts[labels == 0] == 0).mean() < 0.4


@pytest.mark.slow
def test_motion_hardly_tells_it_either(scripts):
    labels, motion = [], []
    for site, tracks, events in scripts[::3]:
        video, _ = render.render(site, tracks, FRAMES, generator(0, site.scene))
        grey = video[:, ::2, ::2].mean(-1)
        change = np.abs(np.diff(grey, axis=0, prepend=grey[:1])).mean((1, 2))
        motion.append(np.convolve(change, np.ones(30) / 30, "same"))
        labels.append(truth(events))
    assert roc_auc_score(np.concatenate(labels), np.concatenate(motion)) <= 0.70


def test_every_kind_occurs_and_events_of_one_family_are_as_many_as_of_another(scripts):
    kinds = {(event.family, event.kind) for _, _, events in scripts for event in events}
    assert {kind for family, kind in kinds if family == "semantic"} == set(world.SEMANTIC)
    assert {kind for family, kind in kinds if family == "temporal"} == set(world.TEMPORAL)
    assert {kind for family, kind in kinds if family == "contextual"} == set(world.ACTIONS) - {"walk"}
    for site, _, events in scripts:
        families = [event.family for event in events]
        assert all(families.count(family) >= 2 for family in world.FAMILIES), families
        assert all(e.kind in world.abnormal_actions(site.scene) for e in events if e.family == "contextual")
        assert all(a.last < b.first for a, b in zip(events, events[1:]))


def test_the_test_cameras_hold_every_kind_at_least_twice():
    met = [kind for spec in clip_list(get_profile("demo")) if spec.set == "stream" for kind in plan_clip(spec, 0).kinds]
    assert {met.count(f"semantic:{kind}") >= 2 for kind in world.SEMANTIC} == {True}
    assert {met.count(f"temporal:{kind}") >= 2 for kind in world.TEMPORAL} == {True}
    assert {met.count(f"contextual:{kind}") >= 2 for kind in world.ACTIONS if kind != "walk"} == {True}


def test_an_actor_may_have_come_before_the_video_began():
    before = render.Track("walk", -10.0, 1.0, 90.0, 36.0, 0.0, 1, start=-40, stop=200, enters=True)
    x = [shown[1].x for shown in render.poses(before, 48)]
    np.testing.assert_allclose(x, -10.0 + 40 + np.arange(48))


def concept_at(shown) -> str:
    concept, pose = shown
    return "walk" if concept == "fall" and pose.fallen == 0 else concept


def concepts_in(caption: str, words: dict[str, set[str]]) -> list[str]:
    """What the clauses of a caption speak of, sorted."""
    said, rest = [], caption if caption not in captions.EMPTY else ""
    while rest:
        phrase, concept = max((p, c) for c, phrases in words.items() for p in phrases if rest.startswith(p))
        said.append(concept)
        rest = rest.removeprefix(phrase).removeprefix(" and ")
    return sorted(said)


def test_captions_tell_who_is_in_the_picture(scripts):
    words = {concept: {f"{s} {v}" for s in who for v in verbs} for concept, (who, verbs) in captions.PHRASES.items()}
    for site, tracks, _ in scripts[:6]:
        told = streams.captioned(tracks, FRAMES, np.random.default_rng(0))
        assert told[0].first == 0 and told[-1].stop == FRAMES
        assert all(a.stop == b.first for a, b in zip(told, told[1:]))
        poses = [(render.poses(track, FRAMES), streams.in_picture(track, FRAMES)) for track in tracks]
        for segment in told:
            said = concepts_in(segment.caption, words)
            middle = range(segment.first, segment.stop)
            shown = [sorted(concept_at(acting[t]) for acting, inside in poses if inside[t]) for t in middle]
            assert sum(said == names for names in shown) >= min(len(shown), streams.TOLD_FRAMES), (site.scene, segment)


def test_boxes_of_the_abnormal_actor_are_those_that_are_drawn(scripts):
    site, tracks, events = scripts[0]
    boxes = prepare.abnormal_boxes(tracks, FRAMES)
    inside = np.isfinite(boxes).all(1)
    assert inside[truth(events) == 1].all()
    t = events[0].first
    [number] = [i for i, track in enumerate(tracks) if track.event and track.event[0] <= t <= track.event[1]]
    _, drawn = render.render(site, tracks, t + 1, generator(0, site.scene))
    [box] = [shown for shown in drawn[t] if shown.actor == number]
    size = (world.WIDTH, world.HEIGHT) * 2
    np.testing.assert_allclose(boxes[t] * size, [box.x0, box.y0, box.x1, box.y1])


def test_the_manifest_names_family_and_kind_of_every_span(run_home, tmp_path):
    profile = get_profile("smoke", train_clips=1, normal_clips=1, family_clips=1, stream_frames=600, jobs=1)
    prepare.prepare(profile, tmp_path)
    table = load_manifest(tmp_path)
    counts = read_archive(tmp_path / "actor_count.npz")
    assert set(counts) == set(table.video[table.split == "test"])
    for row in table[table["set"] == "stream"].itertuples():
        assert len(span_kinds(row)) == len(parse_spans(row.spans))
        assert row.family == "mixed" or not row.spans
        assert set(family_frames(row)) - {""} <= set(world.FAMILIES)
        assert row.split != "test" or len(counts[row.video]) == row.n_frames
    [clip] = table[(table.split == "val") & (table.scene == "road") & (table.family == "temporal")].itertuples()
    assert {family for family, _ in span_kinds(clip)} == {"temporal"}
