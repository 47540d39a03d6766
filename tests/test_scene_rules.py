"""SceneRules: rules, scripts, labels, captions, difficulty."""

import numpy as np
import pytest

from data_prep.scene_rules import captions, draw, prepare, render, web, world
from data_prep.scene_rules.clips import clip_list, draw_clip, generator, plan_clip
from zsad_lib.config import get_profile
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import probe


def site(scene="plaza"):
    return draw.make_site(scene, np.random.default_rng(0))


def test_the_table_has_eighteen_normal_cells():
    table = prepare.normality_table()
    assert table.shape == (6, 7)
    assert (table == "normal").to_numpy().sum() == 18
    assert table.loc["road", "drive"] == "normal" and table.loc["corridor", "drive"] == "abnormal"


@pytest.mark.parametrize("scene", world.SCENES)
def test_training_clips_only_hold_what_is_normal_there(scene):
    specs = [s for s in clip_list(get_profile("demo")) if s.split == "train" and s.scene == scene]
    for spec in specs:
        clip = plan_clip(spec, 0)
        assert not clip.labels.any()
        assert set(clip.action.split("+")) <= set(world.NORMAL_CELLS[scene])


def test_sites_of_test_are_never_seen_in_training_and_names_are_unique():
    specs = clip_list(get_profile("demo"))
    sites = {split: {s.site for s in specs if s.split == split} for split in ("train", "val", "test")}
    assert not sites["train"] & sites["test"] and not sites["train"] & sites["val"] and not sites["val"] & sites["test"]
    assert len({s.video for s in specs}) == len(specs)
    main = [s for s in specs if s.split == "test" and s.set == "main"]
    assert len(main) == 6 * 3 * (18 + 3 * 9)


def test_labels_of_every_family():
    for spec in clip_list(get_profile("smoke")):
        clip = plan_clip(spec, 0)
        assert len(clip.labels) == spec.frames
        assert clip.labels.any() == (spec.family != "normal")
        if spec.family == "contextual":
            assert clip.action.split("+")[0] in world.abnormal_actions(spec.scene)
        if spec.family == "temporal":
            assert clip.action.split("+")[0] in world.TEMPORAL


def test_a_clip_depends_on_its_name_and_the_seed_alone():
    spec = next(s for s in clip_list(get_profile("smoke")) if s.family == "semantic")
    first = draw_clip(spec, 0)
    draw_clip(next(s for s in clip_list(get_profile("smoke")) if s.family == "normal"), 0)
    np.testing.assert_array_equal(first, draw_clip(spec, 0))
    assert (first != draw_clip(spec, 1)).any()
    assert generator(0, "a").random() != generator(0, "b").random()


def track(glitch, **changes):
    script = dict(
        x=30.0, velocity=1.0, y=90.0, height=36.0, phase=0.0, look=1, event=(10, 33), period=6, jumps=(20.0,) * 8
    )
    return render.Track("walk", glitch=glitch, **{**script, **changes})


def positions(one):
    return np.array([pose.x for _, pose in render.poses(one, 48)])


def test_temporal_anomalies_break_time_and_only_inside_their_event():
    normal = positions(track(None, event=None))
    np.testing.assert_allclose(np.diff(normal), 1.0)
    speed = np.diff(positions(track("speed")))
    np.testing.assert_allclose(speed[10:32], world.SPEED_UP)
    np.testing.assert_allclose(speed[:9], 1.0)
    reversal = np.diff(positions(track("reversal")))
    assert set(np.sign(reversal[9:33])) == {-1.0, 1.0}
    teleport = np.abs(np.diff(positions(track("teleport"))))
    assert (teleport > 10).sum() == 4 and (teleport[:9] < 2).all()
    freeze = np.diff(positions(track("freeze")))
    assert (freeze[10:33] == 0).sum() >= 20 and freeze.max() > 6
    np.testing.assert_allclose(positions(track("freeze"))[-1], normal[-1])


def test_actors_stay_in_view_and_turn_round_at_the_margins():
    rng = np.random.default_rng(0)
    for action in world.ACTIONS:
        for _ in range(5):
            xs = positions(render.actor(site(), action, 48, rng))
            assert xs.min() >= render.MARGIN - 1e-9 and xs.max() <= world.WIDTH - render.MARGIN + 1e-9


def test_profiles_share_clips_but_not_the_length_of_streams(run_home, tmp_path):
    tiny = dict(train_sites=1, normal_clips=1, family_clips=1, train_clips=1, jobs=1)
    tables = []
    for length in (60, 90):
        profile = get_profile("smoke", stream_frames=length, before_frames=length, **tiny)
        prepare.prepare(profile, tmp_path / str(length))
        tables.append(load_manifest(tmp_path / str(length)).set_index("video"))
    for length, table in zip((60, 90), tables):
        name = "test-road-0_mixed_00"
        assert probe(table.path[name]).n_frames == length == table.n_frames[name]
    clips = tables[0].query("split == 'train' and set == 'main'")
    assert len(clips) == 6 and clips.path.equals(tables[1].path[clips.index])


def test_boxes_follow_the_drawing():
    clip = [render.actor(site(), "drive", 48, np.random.default_rng(2))]
    video, boxes = render.render(site(), clip, 6, np.random.default_rng(0))
    empty, _ = render.render(site(), [], 6, np.random.default_rng(0))
    changed = np.abs(video.astype(int) - empty).sum(-1).mean(0) > 40
    _, x0, y0, x1, y1, _ = boxes[3][0]
    inside = np.zeros_like(changed)
    inside[int(y0) - 2 : int(y1) + 3, int(x0) - 6 : int(x1) + 7] = True
    assert changed.any() and not (changed & ~inside).any()


def test_captions_name_no_scene_in_the_benchmark_but_do_on_the_web():
    rng = np.random.default_rng(0)
    places = [word for words in captions.PLACES.values() for word in words]
    plain = [captions.caption(["walk", "cart"], rng) for _ in range(50)]
    assert all(" and " in text for text in plain) and len(set(plain)) > 20
    assert not any(text.endswith(place) for text in plain for place in places)
    assert captions.caption(["walk"], rng, "park").endswith(captions.PLACES["park"])


def test_web_corpus_is_equal_for_any_number_of_processes_and_can_hold_concepts_out():
    one, two = web.web_corpus(6, 5, jobs=1), web.web_corpus(6, 5, jobs=2)
    np.testing.assert_array_equal(one.video, two.video)
    assert one.video.shape == (6, 30, 48, 64, 3) and one.cells.shape == (6, 30, 6, 8)
    for i in range(30):
        clip = web.web_clip(i, 0, held_out=world.SEMANTIC)
        assert not clip[4][[world.CONCEPTS.index(c) for c in world.SEMANTIC]].any()


def test_web_clips_hold_nobody_to_three_and_tell_who_is_where():
    corpus = web.web_corpus(60, 0, jobs=1)
    empty = corpus.cells.reshape(60, -1).max(1) == 0
    said = np.array([sentence.startswith(captions.EMPTY) for sentence in corpus.captions])
    assert 0 < empty.sum() < 15 and said[empty].all() and not corpus.actions[said].any()
    assert {len(clauses) for clauses in corpus.clauses} >= {0, 1, 2, 3}
    for cells, told, clauses, sentence in zip(corpus.cells, corpus.told, corpus.clauses, corpus.captions):
        assert ((cells > 0) == (told > 0)).all() and told.max(initial=0) <= len(clauses)
        for number, clause in enumerate(clauses, start=1):
            concepts = {world.CONCEPTS[cell - 1] for cell in np.unique(cells[told == number])}
            assert all(clause.endswith(captions.PHRASES[concept][1]) for concept in concepts)
        spoken = [" and ".join(clauses[:count]) for count in range(1, len(clauses) + 1)]
        assert sentence.startswith(tuple(spoken) or captions.EMPTY) or sentence.startswith(captions.EMPTY)


def test_somebody_who_has_not_fallen_yet_walks():
    rng = np.random.default_rng(0)
    track = render.anomaly(site(), "semantic", rng, detail="fall")
    _, boxes = render.render(site(), [track], 48, rng)
    seen = [frame[0].concept for frame in boxes]
    begin = track.event[0]
    assert set(seen[: begin + 1]) == {"walk"} and set(seen[begin + 1 :]) == {"fall"}


def test_dense_labels_say_what_a_cell_shows():
    boxes = [[render.Shown("drive", 30, 40, 60, 60)], []]
    cells = web.dense_labels(boxes, lambda box: 1 + world.CONCEPTS.index(box.concept))
    assert cells[1].sum() == 0
    assert set(np.unique(cells[0])) == {0, 1 + world.CONCEPTS.index("drive")}
    assert cells[0, 3, 2] and not cells[0, 0, 0]


def clip_scores(values, splits):
    """ROC-AUC by counting pairs."""
    normal, abnormal = values[splits == "normal"], values[splits != "normal"]
    return ((abnormal[:, None] > normal).mean() + 0.5 * (abnormal[:, None] == normal).mean()).item()


@pytest.mark.slow
def test_difficulty_on_validation_sites():
    """Frame difference reaches at most 0.72 per family; a probe that knows only the scene at most 0.55 on the
    contextual one."""
    specs = [s for s in clip_list(get_profile("demo")) if s.split == "val"]
    difference, family, scene, action = [], [], [], []
    for spec in specs:
        grey = draw_clip(spec, 0).mean(-1)
        difference.append(np.abs(np.diff(grey, axis=0)).mean())
        family.append(spec.family), scene.append(spec.scene), action.append(plan_clip(spec, 0).action)
    difference, family, scene = np.array(difference), np.array(family), np.array(scene)
    for name in world.FAMILIES:
        chosen = (family == "normal") | (family == name)
        assert clip_scores(difference[chosen], family[chosen]) <= 0.72, name
    chosen = (family == "normal") | (family == "contextual")
    rate = {
        s: (family[chosen & (scene == s)] == "contextual").mean() for s in world.SCENES
    }  # the best that the scene alone can say
    assert clip_scores(np.array([rate[s] for s in scene[chosen]]), family[chosen]) <= 0.55
