"""The protocol against slow references: loops over pairs, repeated videos, scikit-learn, and examples done by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate import run_evaluation
from zsad_lib.evaluate.comparison import holm, paired_difference
from zsad_lib.evaluate.evaluation import COLUMNS, evaluate, pixel_auc
from zsad_lib.evaluate.events import alarm_counts, alarms, event_counts, is_alarm, own_threshold, recall_threshold, runs
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.evaluate.inputs import clip_scores, normal_thresholds
from zsad_lib.evaluate.protocol import METRICS, estimates
from zsad_lib.evaluate.run_evaluation import detection
from zsad_lib.evaluate.weighted_auc import (
    average_precision,
    bootstrap_weights,
    interval,
    pair_counts,
    rank,
    resize_matrix,
)
from zsad_lib.files import manifest
from zsad_lib.files.annotations import write_classes
from zsad_lib.files.pixel_masks import write_masks
from zsad_lib.files.score_files import read_series
from zsad_lib.results.evaluate_folders import evaluate_folders


def make_set(seed=0, seeds=1, videos=9, levels=12):
    """Small videos of unequal length with ties; a third of them normal, one abnormal throughout."""
    generator = np.random.default_rng(seed)
    scores, labels = {}, {}
    for i in range(videos):
        n = int(generator.integers(5, 30))
        label = np.zeros(n, np.uint8)
        if i % 3:
            label[n // 3 : n // 3 + 3] = 1
            label[n // 3 + 5 : n // 3 + 7] = 1
        if i == 1:
            label[:] = 1
        raw = generator.normal(size=(seeds, n)) + label
        scores[f"v{i}"], labels[f"v{i}"] = np.round(raw * levels / 6), label
    return scores, labels


def repeated(values, counts):
    """The resampled test set, spelled out: video k times under k names."""
    names = sorted(values)
    return {f"{name}#{k}": values[name] for name, count in zip(names, counts) for k in range(int(count))}


def by_key(found):
    return {(e.metric, e.group, e.family): e for e in found}


# --- ranking ---------------------------------------------------------------------------------------------------------


def test_pair_counts_equal_a_double_loop():
    scores, labels = make_set(3)
    names = sorted(scores)
    starts = np.cumsum([0, *(len(labels[v]) for v in names)])[:-1]
    joined = np.concatenate([labels[v] for v in names]) > 0
    pairs = pair_counts(rank(np.concatenate([scores[v][0] for v in names]), joined, starts))
    for u, first in enumerate(names):
        for v, second in enumerate(names):
            good = bad = 0
            for s in scores[first][0][labels[first] == 1]:
                for t in scores[second][0][labels[second] == 0]:
                    good += (s > t) + 0.5 * (s == t)
                    bad += 1
            assert pairs[u, v] == good, (first, second, bad)


@pytest.mark.parametrize("levels", [2, 12, 10**6])
def test_values_and_draws_equal_scikit_learn_on_the_resampled_set(levels):
    scores, labels = make_set(1, levels=levels)
    found = by_key(estimates(scores, labels, draws=40, seed=5))
    weights = np.vstack([np.ones(len(labels)), bootstrap_weights(len(labels), 40, 5)])
    for row, counts in enumerate(weights):
        x = np.concatenate([s[0] for s in repeated(scores, counts).values()])
        y = np.concatenate(list(repeated(labels, counts).values()))
        assert found["micro_auc", "all", "all"].draws[row] == pytest.approx(roc_auc_score(y, x), abs=1e-12)
        assert found["ap", "all", "all"].draws[row] == pytest.approx(average_precision_score(y, x), abs=1e-12)


def test_macro_and_abnormal_auc_leave_out_what_they_must():
    scores, labels = make_set(2)
    found = by_key(estimates(scores, labels, draws=5))
    both = [v for v in labels if 0 < labels[v].mean() < 1]
    mean = np.mean([roc_auc_score(labels[v], scores[v][0]) for v in both])
    assert found["macro_auc", "all", "all"].draws[0] == pytest.approx(mean, abs=1e-12)
    assert found["macro_auc", "all", "all"].n_videos == len(both)
    bad = [v for v in labels if labels[v].any()]
    joined = roc_auc_score(np.concatenate([labels[v] for v in bad]), np.concatenate([scores[v][0] for v in bad]))
    assert found["abnormal_auc", "all", "all"].draws[0] == pytest.approx(joined, abs=1e-12)
    assert found["abnormal_auc", "all", "all"].n_videos == len(bad) < len(labels)


def test_seeds_are_averaged_in_every_draw():
    scores, labels = make_set(4, seeds=3)
    options = dict(fps=10.0, threshold=0.5, draws=30, windows=scores)
    together = by_key(estimates(scores, labels, **options))
    alone = [by_key(estimates({v: x[s] for v, x in scores.items()}, labels, **options)) for s in range(3)]
    assert {key[0] for key in together} == set(METRICS) - {"pixel_auc"}
    for key, estimate in together.items():
        assert estimate.seeds == 3
        np.testing.assert_allclose(estimate.draws, np.mean([one[key].draws for one in alone], axis=0), atol=1e-12)


def test_every_metric_of_a_draw_equals_the_metric_of_the_resampled_set():
    scores, labels = make_set(6, seeds=2)
    families = {v: ("even" if int(v[1:]) % 2 else "odd") for v in labels if labels[v].any()}
    fps = {v: 5.0 + int(v[1:]) for v in labels}
    options = dict(threshold=0.0)
    found = by_key(estimates(scores, labels, fps=fps, families=families, windows=scores, draws=12, **options))
    whole = {key: e for key, e in found.items() if e.n_videos == len(labels)}
    assert len(whole) > 12
    for row, counts in enumerate(bootstrap_weights(len(labels), 12), start=1):
        parts = (repeated(values, counts) for values in (scores, labels, fps, {**{v: "" for v in labels}, **families}))
        x, y, rate, family = parts
        direct = by_key(estimates(x, y, fps=rate, families=family, windows=x, draws=1, **options))
        for key, estimate in whole.items():
            expected = direct[key].draws[0] if key in direct else np.nan
            np.testing.assert_allclose(estimate.draws[row], expected, atol=1e-12, err_msg=str((row, key)))


def test_intervals_and_weights():
    weights = bootstrap_weights(7, 2000, 3)
    assert (weights.sum(axis=1) == 7).all() and weights.std() == pytest.approx(math.sqrt(6 / 7), rel=0.05)
    np.testing.assert_array_equal(weights, bootstrap_weights(7, 2000, 3))
    assert interval(np.array([np.nan, *range(101)])) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_average_precision_is_undefined_without_positives():
    ranking = rank(np.array([1.0, 2.0]), np.array([True, False]), np.array([0, 1]))
    np.testing.assert_array_equal(average_precision(ranking, np.array([[1.0, 1], [0, 2]])), [0.5, np.nan])


# --- the tidy table --------------------------------------------------------------------------------------------------


def test_table_by_hand():
    scores = {"a": [0.1, 0.2, 0.9, 0.8], "b": [0.3, 0.1], "c": [0.0, 0.7]}
    labels = {"a": [0, 0, 1, 1], "b": [0, 0], "c": [0, 1]}
    table = evaluate(
        scores,
        labels,
        method="mine",
        fps=2.0,
        scenes={"a": "road", "b": "road", "c": "park"},
        families={"a": "semantic", "c": "temporal"},
        normal_scores={"n": np.arange(100) / 100},
        windows={"a": [0.0, 0.9, 0.9], "b": [0.1], "c": [0.2, 0.2]},
        draws=20,
    )
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["metric", "group", "family"]).any()
    value = table.set_index(["metric", "group", "family"])["value"]
    assert value["micro_auc", "all", "all"] == value["ap", "all", "all"] == value["clip_auc", "all", "all"] == 1
    assert value["far", "all", "all"] == 0  # threshold just above 0.94
    assert value["recall", "all", "all"] == 0 and value["event_f1", "all", "all"] == 0
    assert value["false_alarms_per_hour", "all", "all"] == 0 and value["delay_s", "all", "all"] == 0
    assert value["clip_auc", "scene:road", "all"] == 1
    assert ("clip_auc", "scene:park", "all") not in value  # one class only: no row, never a made-up value
    assert ("micro_auc", "scene:park", "all") in value
    row = table[(table["metric"] == "micro_auc") & (table["family"] == "semantic")].iloc[0]
    assert (row["n_videos"], row["n_frames"], row["prevalence"], row["seeds"]) == (2, 6, pytest.approx(2 / 6), 1)
    clip = table[(table["metric"] == "clip_auc") & (table["family"] == "all") & (table["group"] == "all")].iloc[0]
    assert (clip["level"], clip["prevalence"]) == ("clip", pytest.approx(2 / 3))


def test_rows_need_their_material():
    scores, labels = make_set()
    table = evaluate(scores, labels, draws=5)
    assert set(table["metric"]) == {"micro_auc", "ap", "abnormal_auc", "macro_auc"}
    assert set(evaluate(scores, labels, draws=5, metrics=["ap"])["metric"]) == {"ap"}


def test_order_of_the_videos_does_not_matter():
    scores, labels = make_set(8)
    first = evaluate(scores, labels, draws=20, fps=1.0, threshold=0.0)
    second = evaluate(dict(reversed(scores.items())), dict(reversed(labels.items())), draws=20, fps=1.0, threshold=0.0)
    pd.testing.assert_frame_equal(first, second)


def test_per_video_normalisation_is_flagged():
    scores, labels = {"a": [5.0, 6.0], "b": [1.0, 2.0]}, {"a": [0, 1], "b": [0, 1]}
    assert evaluate(scores, labels, draws=3)["value"].iloc[0] == 0.75
    table = evaluate(scores, labels, draws=3, normalise="per-video", normal_scores={"n": [3.0, 4.0]}, metrics=["far"])
    assert table["variant"].tolist() == ["raw (per-video, transductive)"] and table["value"].tolist() == [0.0]
    assert (evaluate(scores, labels, draws=3, normalise="per-video")["value"] == 1).all()


@pytest.mark.parametrize(
    "scores, labels, options, message",
    [
        ({}, {}, {}, "no scores"),
        ({"a": [0.1, np.nan]}, {"a": [0, 1]}, {}, "scores of a: nan at place 1"),
        ({"a": [0.1, np.inf]}, {"a": [0, 1]}, {}, "scores of a: inf"),
        ({"a": [0.1, 0.2]}, {"a": [0, 0]}, {}, "only normal"),
        ({"a": [0.1, 0.2]}, {"a": [1, 1]}, {}, "only abnormal"),
        ({"a": [0.1, 0.2, 0.3]}, {"a": [0, 1]}, {}, "a: 3 scores but 2 labels"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1], "b": [0]}, {}, "scores: none for b"),
        ({c: [0.1] for c in "abcde"}, {"a": [0]}, {}, "labels: none for b, c, d and 1 more"),
        ({"a": []}, {"a": []}, {}, "scores of a"),
        ({"a": ["x"]}, {"a": [1]}, {}, "scores of a"),
        ({"a": [0.1, 0.2]}, {"a": [0, 2]}, {}, "labels of a"),
        ({"a": [[0.1, 0.2]] * 2, "b": [0.1]}, {"a": [0, 1], "b": [0]}, {}, "b: 1 seeds, but a has 2"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"windows": {}}, "window scores: none for a"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"scenes": {}}, "scenes: none for a"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"families": {}}, "families: none for a"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"fps": 0}, "fps of a: 0"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"fps": {}}, "fps: none for a"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"metrics": ["auc"]}, "metric 'auc' is unknown"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"normalise": "yes"}, "normalise='yes'"),
        ({"a": [0.1, 0.2]}, {"a": [0, 1]}, {"normal_scores": {"n": [[1], [2]]}}, "normal scores: 2 seeds"),
    ],
)
def test_bad_input_is_one_clear_line(scores, labels, options, message):
    with pytest.raises(ZsadError, match=message) as caught:
        evaluate(scores, labels, draws=2, **options)
    assert "\n" not in str(caught.value)


def test_paired_difference_uses_the_same_draws():
    scores, labels = make_set(9, videos=30)
    better = {v: x + 4.0 * labels[v] for v, x in scores.items()}
    first, second = estimates(better, labels, draws=200), estimates(scores, labels, draws=200)
    table = paired_difference(first, second).set_index("metric")
    assert (table.loc["micro_auc", ["difference", "low"]] > 0).all() and table.loc["micro_auc", "p"] < 0.02
    assert (table["p_holm"] >= table["p"]).all() and (table["p_holm"] <= 1).all()
    same = paired_difference(first, first)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None) and (same["p"] == 1).all()
    with pytest.raises(ZsadError, match="same videos and draws"):
        paired_difference(first, estimates(scores, labels, draws=10))


def test_the_p_value_is_that_of_a_normal_law_with_the_draws_deviation():
    rng = np.random.default_rng(0)
    one = estimates({"a": [0, 1.0]}, {"a": [0, 1]}, draws=2000)[0]
    first = one._replace(draws=np.append(0.03, rng.normal(0.03, 0.01, 2000)))
    table = paired_difference([first], [one._replace(draws=np.zeros(2001))])
    assert table["p"][0] == pytest.approx(0.0027, rel=0.2)  # three deviations


def test_holm_by_hand():
    assert holm(pd.Series([0.04, 0.06, 0.001])).tolist() == pytest.approx(
        [0.08, 0.08, 0.003]
    )  # 2 * 0.04, never falling
    assert holm(pd.Series([0.9, 0.8])).tolist() == [1.0, 1.0]


# --- thresholds, clips, events ---------------------------------------------------------------------------------------


def test_threshold_lets_at_most_the_target_pass():
    normal = {"n": np.arange(1000).reshape(2, 500) % 250, "m": np.ones((2, 20))}
    thresholds = normal_thresholds(normal, 0.05)
    joined = np.concatenate([normal["n"], normal["m"]], axis=1)
    for row, threshold in zip(joined, thresholds):
        assert (row >= threshold).mean() <= 0.05 < (row >= np.nextafter(threshold, -np.inf)).mean()
    assert ((np.zeros(9)) >= normal_thresholds({"n": np.zeros(9)})).sum() == 0  # all tied: no alarm


def test_clip_score_is_the_maximum_over_three_smoothed_windows():
    windows = {"a": [0.0, 3.0, 0.0, 9.0], "b": [2.0], "c": [1.0, 2.0]}
    assert clip_scores(windows, ["a", "b", "c"]).tolist() == [[4.5, 2.0, 1.5]]


def test_runs_stop_at_the_video_border():
    found = runs(np.array([1, 1, 0, 1, 1, 1, 0, 0], bool), np.array([0, 5, 6]))
    assert found.begin.tolist() == [0, 3, 5] and found.end.tolist() == [2, 5, 6] and found.video.tolist() == [0, 0, 1]
    assert runs(np.zeros(4, bool), np.array([0, 2])).begin.size == 0


def test_events_are_matched_one_to_one():
    labels = np.array([0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1], bool)
    alarm = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0], bool)
    starts = np.array([0, 9])
    events = runs(labels, starts)
    matched, found = event_counts(alarm, events, starts, ious=(0.1, 0.5, 0.6, 1.0))
    # video 0: event of 4 frames under alarms of 2 (IoU 0.5) and 1 (0.25); event of 2 frames hit exactly (IoU 1)
    assert matched.tolist() == [[2, 0], [2, 0], [1, 0], [1, 0]] and found.tolist() == [3, 1]
    long = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], bool)  # one alarm over both events matches one of them
    assert event_counts(long, events, starts, ious=(0.1,))[0].tolist() == [[1, 0]]
    nothing = event_counts(np.zeros(12, bool), events, starts)
    assert not nothing[0].any() and not nothing[1].any()


def test_matching_is_the_largest_possible():
    # alarm 0 overlaps event 0 only, alarm 1 both events: giving event 0 to alarm 1 would find one match, there are two
    labels = np.array([1, 1, 1, 0, 1, 1, 1, 0], bool)
    alarm = np.array([1, 0, 1, 1, 1, 0, 0, 0], bool)
    starts = np.array([0])
    assert event_counts(alarm, runs(labels, starts), starts, ious=(0.1,))[0].tolist() == [[2]]


def test_false_alarms_and_delays_by_hand():
    labels = np.array([0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0], bool)
    alarm = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1], bool)  # frame 0 | 3-4 | 8 || 9-11
    starts = np.array([0, 9])
    counts = alarm_counts(alarm, labels, runs(labels, starts), starts)
    assert counts.false_alarms.tolist() == [2, 0]  # frame 0 and frame 8; a run that touches an event is no false alarm
    assert counts.detected.tolist() == [1, 1] and counts.delay.tolist() == [2, 0]


def test_recall_threshold_is_the_highest_that_reaches_it():
    labels = np.array([1, 0] * 5, bool)
    scores = np.array([5.0, 9, 4, 9, 3, 9, 2, 9, 1, 9])
    starts = np.array([0, 4])
    events = runs(labels, starts)
    weights = np.array([[1.0, 1], [2, 0], [0, 1], [0, 0]])
    found = recall_threshold(scores, events, weights, 0.8)
    np.testing.assert_array_equal(found, [2, 4, 1, np.nan])
    assert recall_threshold(scores, events, weights[:1], 0.81)[0] == 1


def test_timing_in_hours_and_seconds():
    labels = {"a": [0] * 10 + [1] * 10 + [0] * 10}
    scores = {"a": [0.0] * 5 + [0.9] + [0] * 6 + [0.5] * 8 + [0.0] * 10}
    table = evaluate(scores, labels, fps=2.0, threshold=0.4, draws=3).set_index("metric")
    for suffix in ("", "_at_threshold"):
        assert table.loc["false_alarms_per_hour" + suffix, "value"] == pytest.approx(1 / (20 / 2 / 3600))
        assert table.loc["delay_s" + suffix, "value"] == 1.0
    assert table.loc["event_recall_at_threshold", "value"] == 1.0


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_pixel_auc_equals_scikit_learn():
    generator = np.random.default_rng(0)
    maps = {v: generator.integers(0, 50, size=(4, 6, 8)).astype(float) for v in "ab"}
    masks = {v: (maps[v] + generator.normal(size=(4, 6, 8)) * 20 > 30).astype(np.uint8) * 255 for v in "ab"}
    table = pixel_auc([maps, maps], masks, method="m", draws=10)
    y, x = (np.concatenate([values[v].ravel() for v in "ab"]) for values in (masks, maps))
    row = table.iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(y > 0, x), abs=1e-12)
    assert (row["metric"], row["level"], row["n_frames"], row["seeds"]) == ("pixel_auc", "pixel", 8, 2)
    assert row["low"] <= row["value"] <= row["high"]
    with pytest.raises(ZsadError, match="one class"):
        pixel_auc(maps, {v: np.zeros((4, 6, 8)) for v in "ab"})
    with pytest.raises(ZsadError, match="maps: none for c"):
        pixel_auc(maps, {"c": masks["a"]})


def test_maps_in_half_precision_keep_their_order():
    rng = np.random.default_rng(0)
    maps = {"a": rng.random((3, 6, 8)).astype(np.float16) * np.float16(47.3)}
    maps["a"][0, 0, 0] = 47.3  # the highest place of the histogram
    masks = {"a": rng.random((3, 6, 8)) < 0.5}
    exact = roc_auc_score(masks["a"].ravel(), maps["a"].astype(float).ravel())
    assert pixel_auc(maps, masks, draws=2)["value"][0] == pytest.approx(exact, abs=1e-4)


def test_resizing_is_bilinear_with_half_pixel_centres():
    np.testing.assert_allclose(resize_matrix(4, 2) @ [0.0, 1.0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(resize_matrix(5, 5), np.eye(5))
    np.testing.assert_allclose(resize_matrix(3, 1), np.ones((3, 1)))
    assert np.allclose(resize_matrix(45, 7).sum(axis=1), 1)


# --- files and the pipeline step -------------------------------------------------------------------------------------


def test_read_series(tmp_path):
    cases = {
        "a.csv": "frame,time_s,score\n0,0,0.5\n1,0.1,1e-3\n",
        "b.csv": "score\n0.5\n0.001\n\n",
        "c.csv": "0.5\n0.001",
    }
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        assert read_series(tmp_path / name, "score").tolist() == [0.5, 0.001]
    np.save(tmp_path / "d.npy", np.array([0.5, 0.001]))
    assert read_series(tmp_path / "d.npy", "score").tolist() == [0.5, 0.001]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no rows"),
        ("score\n", "no rows"),
        ("frame,value\n0,1\n", "no column 'score' among frame, value"),
        ("1,2\n", "no column"),
        ("frame,score\n0,0.1\n1,high\n", r"x\.csv:3: expected a number"),
        ("frame,score\n0\n", r"x\.csv:2"),
        ("score\n0.5\n\n0.5\n", r"x\.csv:3"),
    ],
)
def test_bad_files_name_the_place(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ZsadError, match=message):
        read_series(tmp_path / "x.csv", "score")


def test_unreadable_files(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no array")
    (tmp_path / "y.csv").write_bytes(b"\xff\xfe\xfa")
    for name in ("x.npy", "y.csv"):
        with pytest.raises(ZsadError, match="not readable"):
            read_series(tmp_path / name, "score")
    with pytest.raises(ZsadError, match="no such file"):
        read_series(tmp_path / "z.csv", "score")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_score_at_the_threshold_alarms_and_a_flat_one_does_not(kind):
    score, flat = np.array([0.1, 0.2, 0.3, 0.2], kind), np.full(9, 0.1, kind)
    frames = pd.DataFrame({"score": score, "warmup": [True, False, False, False]})
    assert alarms(frames, float(score[1])).tolist() == [False, True, True, True]
    assert not is_alarm(flat, own_threshold(flat)).any()
    normal = {"n": np.arange(100).astype(kind)}
    assert is_alarm(normal["n"], normal_thresholds(normal, 0.05)[0]).sum() == 5


def test_evaluate_folders(tmp_path, capsys, run_home):
    scores, labels = make_set(5)
    for part in ("scores", "labels", "normal"):
        (tmp_path / part).mkdir()
    for video in scores:
        np.save(tmp_path / "scores" / f"{video}.npy", scores[video])
        rows = "".join(f"{t},{y}\n" for t, y in enumerate(labels[video]))
        (tmp_path / "labels" / f"{video}.csv").write_text("frame,label\n" + rows)
    (tmp_path / "normal" / "n.csv").write_text("score\n0\n1\n")
    call = lambda: evaluate_folders(
        tmp_path / "scores", tmp_path / "labels", normal=tmp_path / "normal", fps=5, draws=9
    )
    table = call()
    direct = evaluate(scores, labels, fps=5.0, normal_scores={"n": [0.0, 1.0]}, draws=9)
    pd.testing.assert_frame_equal(table, direct)
    assert "Micro AUC" in capsys.readouterr().out
    folder = run_home / "runs" / "evaluated-scores"
    written = pd.read_csv(folder / "detection.csv")
    assert tuple(written.columns) == COLUMNS and (written.method == "scores").sum() == len(table)
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".md", ".tex", ".json"}
    assert {path.suffix for path in (tmp_path / "scores").iterdir()} == {".npy"}
    pd.testing.assert_frame_equal(call(), table)  # where its own result lies already
    for _ in range(2):  # beside the scores where asked, and not taken for a score the next time
        beside = evaluate_folders(tmp_path / "scores", tmp_path / "labels", tmp_path / "scores", draws=9)
        pd.testing.assert_frame_equal(beside, evaluate(scores, labels, draws=9))


def test_evaluate_folders_refuses_and_writes_nothing(tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "labels").mkdir()
    check = lambda message: pytest.raises(ZsadError, match=message)
    with check("no such folder"):
        evaluate_folders(tmp_path / "absent", tmp_path / "labels")
    with check("no .csv, .parquet or .npy"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")
    (tmp_path / "scores" / "a.csv").write_text("0.1\n0.2\n")
    (tmp_path / "labels" / "a.csv").write_text("")
    with check("a.csv: no rows"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")
    (tmp_path / "labels" / "a.csv").write_text("0\n0\n")
    with check("only normal"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")
    np.save(tmp_path / "scores" / "a.npy", np.zeros(2))
    with check("twice"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"a.csv", "a.npy"}


@pytest.fixture
def scored_run(run_home):
    """A run folder with two methods (one causal too), two seeds, and test videos of three sets."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(24):
        family = ("normal", "semantic", "temporal")[i % 3]
        spans = "" if family == "normal" else "4-9"
        kind = "main" if i < 16 else "night" if i < 20 else "lookalike"
        if kind == "lookalike":
            family, spans = "normal", ""
        scene = ("road", "park")[i % 2]
        rows.append((f"v{i}", "x.mp4", "test", kind, scene, "s", family, "walk", 16, 8.0, spans, "", ""))
    rows.append(("train", "x.mp4", "train", "main", "road", "s", "normal", "walk", 16, 8.0, "", "", ""))
    table = pd.DataFrame(rows, columns=list(manifest.COLUMNS))
    run = run_home / "runs" / "smoke"
    manifest.save_manifest(table, run / "data")
    for method in ("full", "knn", "full@causal"):
        for seed in range(2):
            folder = run / "scores" / method / str(seed)
            folder.mkdir(parents=True)
            windows = {}
            for row in table[table["split"] == "test"].itertuples():
                score = generator.normal(size=16) + 2 * manifest.frame_labels(row)
                lines = "".join(f"{i},{i / 8},{x!r},0\n" for i, x in enumerate(score.tolist()))
                (folder / f"{row.video}.csv").write_text("frame,time_s,score,s_sem\n" + lines)
                windows[row.video] = score[::4]
            if method != "knn":
                np.savez(folder / "windows.npz", **windows)
            np.savez(folder / "normal.npz", n=generator.normal(size=40))
    return run


def test_detection_step(scored_run):
    profile = get_profile("smoke", seeds="0,1")
    result = detection(profile, scored_run / "evaluate")
    path = scored_run / "evaluate" / "detection.csv"
    first = path.read_bytes()
    table = pd.read_csv(path)
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["method", "variant", "metric", "group", "family"]).any()
    assert table.notna().all(axis=None)
    assert set(zip(table["method"], table["variant"])) == {
        ("full", "raw"), ("full", "smoothed"), ("full", "causal"), ("knn", "raw"), ("knn", "smoothed"),
        *((floor, "raw") for floor in FLOORS),
    }  # fmt: skip
    assert {"all", "scene:road", "scene:park", "set:night", "set:lookalike"} == set(table["group"])
    assert {"all", "semantic", "temporal"} == set(table["family"])
    clips = table[table["metric"] == "clip_auc"]
    assert set(clips["method"]) == {"full", *FLOORS} and set(clips["variant"]) == {"raw", "causal"}
    main = table[(table["group"] == "all") & (table["family"] == "all") & (table["metric"] == "micro_auc")]
    assert (main["n_videos"] == 16).all()
    assert result["metrics"]["full smoothed micro_auc"] > result["metrics"]["full raw micro_auc"] > 0.8
    lookalike = table[(table["group"] == "set:lookalike") & (table["method"] == "knn") & (table["variant"] == "raw")]
    assert set(lookalike["metric"]) == {"far", "far_normal", "false_alarms_per_hour_at_threshold"}  # normal video
    detection(get_profile("smoke", seeds="0,1", jobs=2), scored_run / "evaluate")
    assert path.read_bytes() == first
    assert sorted(path.name for path in (scored_run / "scores" / "random").iterdir()) == ["0", "1"]
    detection(get_profile("smoke", seeds="1"), scored_run / "evaluate")  # what other seeds left does not count
    again = pd.read_csv(path)
    assert set(again["seeds"]) == {1} and [p.name for p in (scored_run / "scores" / "random").iterdir()] == ["1"]
    assert pd.read_csv(scored_run / "scores" / "centre" / "1" / "v0.csv").columns.tolist() == [
        "frame",
        "time_s",
        "score",
    ]


def test_the_step_writes_the_confusions_and_a_worker_writes_nothing(scored_run):
    profile, evaluated = get_profile("smoke", seeds="0,1", jobs=1), scored_run / "evaluate"
    table = manifest.load_manifest(scored_run / "data")
    manifest.save_manifest(table.assign(action=table.family.replace("temporal", "semantic")), scored_run / "weak_data")
    write_classes(scored_run / "weak_data" / "classes.csv", ["normal", "semantic"])
    test = table[table["split"] == "test"].set_index("video", drop=False)
    labels = {row.video: manifest.frame_labels(row) for row in test.itertuples()}
    for seed in range(2):
        probabilities = {video: np.eye(2)[label] for video, label in labels.items()}
        np.savez(scored_run / "scores" / "full" / str(seed) / "classes.npz", **probabilities)
    method = run_evaluation._evaluate_method(scored_run / "scores" / "full", test, labels, profile, True)
    assert method.confusion.loc["semantic", "semantic"] == 1 and not evaluated.exists()
    detection(profile, evaluated)
    assert [file.name for file in evaluated.glob("confusion_*")] == ["confusion_full.csv"]
    written = pd.read_csv(evaluated / "confusion_full.csv", index_col="true")
    pd.testing.assert_frame_equal(written, method.confusion, check_dtype=False)


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda run: (run / "scores/knn/1/v3.csv").unlink(), "v3.csv: no such file"),
        (lambda run: (run / "scores/knn/1/v3.csv").write_text("score\n1\n"), "1 scores for 16 frames"),
        (lambda run: (run / "scores/knn/1/normal.npz").unlink(), "normal.npz: not readable"),
        (lambda run: (run / "scores/knn/1/normal.npz").write_bytes(b"x"), "normal.npz: not readable"),
        (lambda run: np.savez(run / "scores/knn/1/normal.npz", m=np.zeros(40)), "other videos or lengths"),
        (lambda run: (run / "scores/odd").mkdir(), "odd: no folder of seed 0, 1"),
        (lambda run: (run / "scores").rename(run / "elsewhere"), "no scored method"),
    ],
)
def test_detection_names_what_is_missing(scored_run, harm, message):
    harm(scored_run)
    with pytest.raises(ZsadError, match=message):
        detection(get_profile("smoke", seeds="0,1"), scored_run / "evaluate")
    assert not (scored_run / "evaluate").exists()


def test_detection_adds_ped2_pixels(run_home):
    generator = np.random.default_rng(0)
    rows = []
    run = run_home / "runs" / "ped2"
    for i in range(3):
        masks = np.zeros((6, 24, 36), np.uint8)
        masks[2:, 8:16, 12:20] = 255 if i else 0
        write_masks(run / "data" / "masks" / f"Test{i}.npz", masks > 0)
        family = "semantic" if i else "normal"
        spans = "2-5" if i else ""
        rows.append(
            (f"Test{i}", run_home / "clips" / f"Test{i}", "test", "main", "w", "s", family, "", 6, 10.0, spans, "", "")
        )
        small = masks[:, ::4, ::4].astype(np.float16) + generator.random((6, 6, 9)).astype(np.float16)
        for part, content in (
            ("maps", None),
            ("scores", "score\n" + "".join(f"{x}\n" for x in small.max(axis=(1, 2)))),
        ):
            folder = run / part / "predictive" / "0"
            folder.mkdir(parents=True, exist_ok=True)
            if content is None:
                np.savez(folder / f"Test{i}.npz", maps=small)
            else:
                (folder / f"Test{i}.csv").write_text(content)
    manifest.save_manifest(pd.DataFrame(rows, columns=list(manifest.COLUMNS)).astype({"path": str}), run / "data")
    detection(get_profile("ped2", bootstrap_draws=20), run / "evaluate")
    table = pd.read_csv(run / "evaluate" / "detection.csv")
    row = table[table["metric"] == "pixel_auc"].iloc[0]
    assert (row["method"], row["variant"], row["n_videos"], row["n_frames"]) == ("predictive", "raw", 3, 18)
    assert row["value"] > 0.95 and row["prevalence"] == pytest.approx(2 * 4 * 64 / (18 * 24 * 36))
