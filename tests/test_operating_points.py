"""Thresholds of clips, of streams and of each camera, against examples done by hand and a slow loop over frames."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate import operating_points as points
from zsad_lib.evaluate.run_evaluation import MINUTES, detection
from zsad_lib.files import manifest, paths
from zsad_lib.files.score_files import write_archive, write_frames

FPS = 4.0


def slow_point(score, label, threshold, fps):
    """far, event recall, false alarms per hour and delay of one seed: dictionaries by video, a loop over frames."""
    alarms = calm = false_runs = events = found = delay = 0
    for video in score:
        event_at, seen, run, touches = None, False, False, False
        for t, (x, y) in enumerate(zip([*score[video], -np.inf], [*label[video], 0])):
            alarm = x >= threshold[video]
            alarms, calm = alarms + (alarm and not y), calm + (not y)
            if y and event_at is None:
                event_at, seen, events = t, False, events + 1
            if y and alarm and not seen:
                seen, found, delay = True, found + 1, delay + (t - event_at) / fps
            event_at = event_at if y else None
            if alarm:
                run, touches = True, touches or bool(y)
            elif run:
                false_runs, run, touches = false_runs + (not touches), False, False
        calm -= 1  # the frame that closes the last run
    return alarms / calm, found / events, false_runs / (calm / fps / 3600), delay / max(found, 1)


def slow_threshold(normal, asked):
    """The lowest number that at most the share `asked` of the scores reaches."""
    values = np.sort(np.concatenate(normal))
    allowed = int(np.floor(asked * len(values) + 1e-9))
    return np.nextafter(values[len(values) - allowed - 1], np.inf)


@pytest.fixture
def cameras():
    rng = np.random.default_rng(4)
    camera = {"a0": "a", "a1": "a", "b0": "b"}
    labels = {video: np.zeros(60, int) for video in camera}
    for video, (first, last) in zip(camera, ((10, 15), (40, 59), (0, 6))):
        labels[video][first : last + 1] = 1
    labels["a0"][30:33] = 1
    scores = {v: rng.normal(size=(2, 60)).round(1) + 2 * label for v, label in labels.items()}
    normal = {site: {f"{site}n": rng.normal(size=(2, 100)).round(1) * k} for k, site in ((1, "a"), (3, "b"))}
    return scores, labels, normal, camera


def test_points_of_cameras_equal_a_loop_over_frames(cameras):
    scores, labels, normal, camera = cameras
    found = {e.metric: e for e in points.operating_points(scores, labels, normal, camera, fps=FPS, draws=3)}
    assert set(found) == set(points.POINT_METRICS)
    for asked in points.ASKED:
        slow = []
        for seed in range(2):
            limit = {site: slow_threshold([x[seed] for x in of.values()], asked) for site, of in normal.items()}
            one = {video: x[seed] for video, x in scores.items()}
            slow.append(slow_point(one, labels, {video: limit[site] for video, site in camera.items()}, FPS))
        for name, value in zip(("far", "event_recall", "false_alarms_per_hour", "delay_s"), np.mean(slow, axis=0)):
            assert found[f"{name}@{asked:g}"].draws[0] == pytest.approx(value), (name, asked)


def test_one_threshold_for_all_is_one_camera(cameras):
    scores, labels, normal, camera = cameras
    both = {video: x for of in normal.values() for video, x in of.items()}
    together = points.operating_points(scores, labels, {"": both}, dict.fromkeys(camera, ""), fps=FPS, draws=3)
    limit = slow_threshold([x[0] for x in both.values()], 0.05)
    assert slow_threshold([np.arange(40.0)], 0.05) == np.nextafter(37, 38)  # two of forty lie above
    one = {video: x[:1] for video, x in scores.items()}
    [far] = [
        e
        for e in points.operating_points(
            one, labels, {"": {v: x[:1] for v, x in both.items()}}, dict.fromkeys(camera, ""), fps=FPS, draws=3
        )
        if e.metric == "far@0.05"
    ]
    slow = slow_point({v: x[0] for v, x in one.items()}, labels, dict.fromkeys(one, limit), FPS)
    assert far.draws[0] == pytest.approx(slow[0]) and {e.seeds for e in together} == {2}


def test_the_rate_of_each_camera_by_hand():
    normal = {"a": {"n": np.arange(100.0)[None]}, "b": {"m": np.zeros((1, 50))}}
    scores = {"a0": np.array([[95.0, 94.0, 200.0, 0.0, 99.0]]), "b0": np.array([[0.0, 1e-9]])}
    labels = {"a0": np.array([0, 0, 1, 0, 0]), "b0": np.array([0, 0])}
    rates = points.camera_rates(scores, labels, normal, {"a0": "a", "b0": "b"}, dict(a0=0.5, b0=1))
    rates = rates.set_index(["site", "asked"])
    assert rates.got_apart["a", 0.01] == 0.5 and rates.n_apart.tolist() == [2, 2, 2, 2]  # one frame is 2 s
    assert rates.got.to_dict() == {("a", 0.01): 0.25, ("a", 0.05): 0.5, ("b", 0.01): 0.5, ("b", 0.05): 0.5}
    assert rates.threshold["a", 0.05] == np.nextafter(94, 95) and rates.n_frames.tolist() == [4, 4, 2, 2]


def test_localisation_by_hand():
    normal, labels = {"n": np.arange(100.0)[None] / 100}, {"a": np.zeros(12, int), "b": np.zeros(12, int)}
    labels["a"][[2, 3, 4, 8, 9]] = labels["b"][5:8] = 1
    scores = {video: np.zeros((1, 12)) for video in labels}
    scores["a"][0, [3, 4]], scores["b"][0, [2, 6]] = (1, 2), (9, 3)  # the second event of a is not detected
    inside = {video: np.zeros((1, 12, 2)) for video in labels}
    inside["a"][0, 4], inside["a"][0, 3], inside["b"][0, 6] = (1, 0.5), (0, 0.9), (0, 0.25)
    of = next(iter(points.estimates(scores, labels, metrics=["micro_auc"], draws=4)))
    found = {e.metric: e for e in points.localisation(scores, labels, normal, inside, of, 0.05)}
    assert found["localised"].draws[0] == 0.5 and found["localised_chance"].draws[0] == pytest.approx(0.375)
    assert len(found["localised"].draws) == 5 and set(found) == set(points.LOCALISED)
    silent = {video: np.zeros((1, 12)) for video in labels}
    assert points.localisation(silent, labels, normal, inside, of, 0.05) == []


@pytest.fixture
def streams_run(run_home):
    """A run of two cameras: clips, two streams with events of two families, normal video, and calibrated scores."""
    rng = np.random.default_rng(1)
    spans = {"x_mixed": "5-9;20-24", "y_mixed": "12-14;30-31"}
    kinds = {"x_mixed": "semantic:fall;temporal:freeze", "y_mixed": "temporal:speed;semantic:fire"}
    base = dict(path="v.mp4", scene="road", family="normal", action="walk", n_frames=40, fps=FPS, spans="", caption="")
    rows = [base | dict(video=f"{s}_mixed", split="test", set="stream", site=s, family="mixed") for s in "xy"]
    rows += [base | dict(video=f"{s}_before_{i}", split="before", set="stream", site=s) for s in "xy" for i in (0, 1)]
    rows += [base | dict(video=f"{s}_clip", split="test", set="main", site=s) for s in "xy"]
    rows += [base | dict(video="z_clip", split="test", set="main", site="x", family="semantic", spans="3-9")]
    rows += [base | dict(video=f"v_{s}", split="val", set=s, site="v") for s in ("main", "stream")]
    table = pd.DataFrame(rows)
    table["spans"] = [spans.get(row.video, row.spans) for row in table.itertuples()]
    table["kinds"] = [kinds.get(video, "") for video in table.video]
    run = run_home / "runs" / "smoke"
    manifest.save_manifest(table, run / "data")
    test = table[table.split == "test"]
    scores = {row.video: rng.normal(size=40).round(3) + 2 * manifest.frame_labels(row) for row in test.itertuples()}
    scores = {video: np.round(values, 3) for video, values in scores.items()}
    normal = {"v_main": np.arange(100.0) / 100, "v_stream": np.arange(100.0) / 25}
    own = {"x_before_1": np.arange(100.0) / 20, "y_before_1": np.arange(100.0) / 50}
    for name in ("full_memory", "knn_predictive", "full_memory@calibrated"):
        folder = paths.make_folder(run / "scores" / name / "0")
        for video, values in scores.items():
            if "@" not in name or video.endswith("_mixed"):
                write_frames(folder / f"{video}.csv", FPS, {"score": values + 0.1 * (name == "knn_predictive")})
        write_archive(folder / "normal.npz", own if "@" in name else normal)
    (run / "scores" / "full_memory@calibrated" / "0" / MINUTES).write_text("seconds\n30\n", encoding="utf-8")
    return run, test, scores


def test_streams_and_clips_have_thresholds_of_their_own_kind(streams_run):
    run, test, scores = streams_run
    detection(get_profile("smoke", bootstrap_draws=5), run / "evaluate")
    table = pd.read_csv(run / "evaluate" / "detection.csv").set_index(
        ["method", "variant", "group", "family", "metric"]
    )
    value = table["value"]
    labels = {row.video: manifest.frame_labels(row) for row in test.itertuples()}
    for group, videos, limit in (
        ("all", ("x_clip", "y_clip", "z_clip"), 0.94),
        ("set:stream", ("x_mixed", "y_mixed"), 94 / 25),
    ):
        calm = np.concatenate([scores[v][labels[v] == 0] for v in videos])
        assert value["full_memory", "raw", group, "all", "far"] == pytest.approx((calm > limit).mean())
    streams = value["full_memory", "raw", "set:stream", "all"]
    assert streams["far@0.05"] == streams["far"] and streams["far@0.01"] <= streams["far@0.05"]
    assert streams["event_recall@0.05"] == streams["event_recall_at_threshold"]
    assert table.sort_index().level["full_memory", "raw", "set:stream", "all"]["far@0.01"] == "frame"
    assert not [m for m in value["full_memory", "raw", "all", "all"].index if "@0.01" in m]  # clips: today's alone


def test_a_family_counts_its_events_frames_against_all_normal_ones(streams_run):
    run, test, scores = streams_run
    detection(get_profile("smoke", bootstrap_draws=5), run / "evaluate")
    table = pd.read_csv(run / "evaluate" / "detection.csv")
    value = table.set_index(["method", "variant", "group", "family", "metric"]).sort_index()["value"]["full_memory"]
    families = {row.video: manifest.family_frames(row) for row in test.itertuples()}
    for family in ("semantic", "temporal"):
        kept = {v: np.isin(families[v], ("", family)) for v in ("x_mixed", "y_mixed")}
        x, y = ({v: of[v][kept[v]] for v in kept} for of in (scores, {v: families[v] == family for v in kept}))
        joined = np.concatenate([*y.values()]), np.concatenate([*x.values()])
        for variant in ("raw", "calibrated"):
            row = value[variant, "set:stream", family]
            assert row["micro_auc"] == pytest.approx(roc_auc_score(*joined))
            assert row["macro_auc"] == pytest.approx(np.mean([roc_auc_score(y[v], x[v]) for v in kept]))
            assert row["ap"] == pytest.approx(average_precision_score(*joined))


def test_every_kind_of_event_is_counted_against_all_normal_frames(streams_run):
    run, test, scores = streams_run
    detection(get_profile("smoke", bootstrap_draws=5), run / "evaluate")
    table = pd.read_csv(run / "evaluate" / "event_kinds.csv").query("method == 'full_memory'").set_index("family")
    mixed = test[test.kinds != ""].itertuples()
    calm = np.concatenate([scores[row.video][manifest.frame_labels(row) == 0] for row in mixed])
    fall = scores["x_mixed"][5:10]  # spans are inclusive
    truth = np.repeat([0, 1], [len(calm), len(fall)])
    assert table.value["semantic:fall"] == pytest.approx(roc_auc_score(truth, np.concatenate([calm, fall])))
    assert set(table.index) == {"semantic:fall", "semantic:fire", "temporal:freeze", "temporal:speed"}
    assert (table.events == 1).all() and set(table.metric) == {"micro_auc"}


def test_calibrated_cameras_are_reported_and_pairs_compared_on_streams(streams_run):
    run, test, scores = streams_run
    result = detection(get_profile("smoke", bootstrap_draws=5), run / "evaluate")
    table = pd.read_csv(run / "evaluate" / "detection.csv")
    own = table[table.variant == "calibrated"]
    assert set(own.group) == {"set:stream"} and set(own.metric) == {
        "micro_auc",
        "macro_auc",
        "ap",
        *points.POINT_METRICS,
    }
    cameras = pd.read_csv(run / "evaluate" / "calibrated_cameras.csv").set_index(["site", "asked"])
    assert cameras.threshold["x", 0.05] == pytest.approx(94 / 20)
    calm = {row.site: scores[row.video][manifest.frame_labels(row) == 0] for row in test.itertuples() if row.kinds}
    assert cameras.got["y", 0.05] == pytest.approx((calm["y"] > 94 / 50).mean())
    far = own[own.metric == "far@0.05"].value.item()
    alarms = sum((calm[site] > top).sum() for site, top in (("x", 94 / 20), ("y", 94 / 50)))
    assert far == pytest.approx(alarms / sum(map(len, calm.values())))
    assert result["artefacts"]["calibration_minutes"].read_text(encoding="utf-8") == "seconds\n30\n"
    gaps = pd.read_csv(run / "evaluate" / "differences.csv").query("group == 'set:stream' and family == 'all'")
    assert gaps[["first", "second", "metric", "difference"]].values.tolist() == [
        ["full_memory", "knn_predictive", "micro_auc", 0.0]
    ]


def test_calibrated_scores_without_a_stream_are_one_line(streams_run):
    run = streams_run[0]
    (run / "scores" / "full_memory@calibrated" / "0" / "y_mixed.csv").unlink()
    with pytest.raises(ZsadError, match="y_mixed.csv: no such file"):
        detection(get_profile("smoke", bootstrap_draws=5), run / "evaluate")
