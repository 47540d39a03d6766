"""Test cameras fitted to normal video of their own, with the scores of a tiny run."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import convolve1d

from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.features.window_plan import window_count
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.files.score_files import read_archive, read_series
from zsad_lib.methods.context_aware import calibrated, local_readout, score_step
from zsad_lib.methods.context_aware.scorer import load_scorer, make_scorer, terms_of, with_memory
from zsad_lib.methods.context_aware.scores import METHODS
from zsad_lib.methods.context_aware.train import load_detector


@pytest.fixture(scope="module")
def scored(tiny_run):
    """The scorer of seed 0, the manifest, the folders of features and scores."""
    profile, run = tiny_run
    scorer = load_scorer(run / "score" / "full" / "0" / "scorer.safetensors")[0]
    return scorer, load_manifest(run / "data"), cache_folder(profile), run / "scores"


def test_a_camera_is_a_site_with_two_normal_streams():
    rows = [("b1", "before", "b", "normal"), ("b0", "before", "b", "normal"), ("b2", "before", "b", "normal")]
    rows += [("c0", "before", "c", "normal"), ("bx", "test", "b", "mixed"), ("clip", "before", "c", "normal")]
    table = pd.DataFrame(rows, columns=["video", "split", "site", "family"]).assign(set="stream")
    table.loc[5, "set"] = "main"
    [(site, pair)] = calibrated.cameras(table, "before").items()
    assert site == "b" and [row.video for row in pair] == ["b0", "b1"]
    assert [row.video for row in calibrated.streams_of(table, "test", "b")] == ["bx"]


def as_unseen(scorer, cache, normal):
    """A camera's scorer, the slow way, and the terms of its two normal streams by each other's memory."""
    features = [load_features(feature_file(cache, row)) for row in normal]
    held_out = []
    for mine, other in (features, features[::-1]):
        held_out += with_memory(scorer, [other]).terms([mine])
    own = with_memory(scorer, features)
    own.calibrate([(terms, row.n_frames) for terms, row in zip(held_out, normal)])
    return own, held_out


def test_each_camera_is_scored_by_its_own_normal_video(scored):
    scorer, table, cache, scores = scored
    site, normal = next(iter(calibrated.cameras(table, "before").items()))
    [stream] = calibrated.streams_of(table, "test", site)
    own, held_out = as_unseen(scorer, cache, normal)
    [test] = own.terms([load_features(feature_file(cache, stream))])
    for method in calibrated.CALIBRATED:
        for variant, causal in calibrated.VARIANTS.items():
            home, names = scores / f"{method}@{variant}" / "0", METHODS[method][1]
            expected = np.nan_to_num(own.score(test, names, stream.n_frames, causal=causal))
            np.testing.assert_allclose(
                read_series(home / f"{stream.video}.csv", "score"), expected, rtol=1e-3, atol=2e-3
            )
            kept = read_archive(home / "normal.npz")
            for row, terms in zip(normal, held_out):
                of_normal = own.score(terms, names, row.n_frames, causal=causal)
                finite = of_normal[np.isfinite(of_normal)]
                np.testing.assert_allclose(kept[row.video], finite, rtol=1e-3, atol=2e-3)
            if not causal:  # the units are this camera's
                assert np.mean([kept[row.video] for row in normal]) == pytest.approx(0, abs=1e-6)


def test_what_a_memory_answers_is_asked_once_for_all_seeds(tiny_run, scored, monkeypatch):
    (profile, run), (_, table, *_) = tiny_run, scored
    first, second = (run / "train" / "full" / str(seed) / "detector.safetensors" for seed in profile.seeds[:2])
    captions = (["a person walks"], torch.nn.functional.normalize(torch.ones(1, 64), dim=-1))
    make = lambda file, answers: make_scorer(profile, load_detector(file), table, captions, (), True, answers)
    alone, answers = make(second, None)[1], {}
    make(first, answers)
    assert len({name.split()[0] for name in answers}) == 2  # whole windows, regions
    monkeypatch.delattr(local_readout, "region_novelty")  # who asks again fails
    shared = make(second, answers)[1]
    assert all(
        np.array_equal(shared[video][name], of[name], equal_nan=True) for video, of in alone.items() for name in of
    )


def test_calibrated_scores_are_of_the_cameras_streams_alone_and_belong_to_the_kept_scorer(tiny_run, scored):
    (profile, run), (_, table, _, scores) = tiny_run, scored
    streams = table[(table.split == "test") & (table.set == "stream")]
    pairs = calibrated.cameras(table, "before")
    for seed in profile.seeds:
        for variant in calibrated.VARIANTS:
            home = scores / f"full_memory@{variant}" / str(seed)
            assert {path.stem for path in home.glob("*.csv")} - {"calibration_minutes"} == set(streams.video)
            assert read_archive(home / "normal.npz").keys() == {row.video for pair in pairs.values() for row in pair}
            assert home in score_step.homes(run, "full", seed)
    assert not calibrated.cameras(table[table.split != "before"], "before")


def test_minutes_of_normal_video_are_measured_on_validation_cameras(scored):
    scorer, table, cache, scores = scored
    written = pd.read_csv(scores / "full_memory@calibrated" / "0" / "calibration_minutes.csv")
    assert set(written.seconds) == {30.0} and set(written.asked) == {0.05}  # streams of 150 frames: no longer ones
    assert set(zip(written.method, written.variant)) == {
        (method, variant) for method in calibrated.CALIBRATED for variant in calibrated.VARIANTS
    }
    assert not (scores / "full_memory@calibrated" / "1" / "calibration_minutes.csv").exists()
    row = written.iloc[0]
    assert row.cameras == len(calibrated.cameras(table, "val")) and row.worst_site in calibrated.cameras(table, "val")
    assert row.gap <= abs(row.worst_got - row.asked) + 1e-9
    site, normal = next(iter(calibrated.cameras(table, "val").items()))
    some = table[(table.site == site) & (table.set == "stream")]
    found = calibrated.minutes_needed(scorer, terms_of(scorer, cache, some), some, cache, (100, 150))
    assert found.seconds.tolist() == [20.0] * 4 + [30.0] * 4 and (found.worst_got == found.got).all()
    own, held_out = as_unseen(scorer, cache, normal)
    events = calibrated.streams_of(table, "val", site)
    tested = own.terms([load_features(feature_file(cache, row)) for row in events])
    names = METHODS["full_memory"][1]
    usual = np.concatenate([own.score(terms, names, row.n_frames) for terms, row in zip(held_out, normal)])
    threshold = np.sort(usual)[-15 - 1]  # 5 % of 300 frames lie above
    alarms = np.concatenate([own.score(t, names, row.n_frames) > threshold for t, row in zip(tested, events)])
    labels = [frame_labels(row) for row in events]
    chosen = found[(found.seconds == 30) & (found.method == "full_memory") & (found.variant == "calibrated")]
    assert chosen.got.item() == pytest.approx(alarms[np.concatenate(labels) == 0].mean(), abs=4e-3)
    apart = [convolve1d(of, np.ones(41), mode="constant") == 0 for of in labels]  # 20 frames on either side
    assert chosen.got_apart.item() == pytest.approx(alarms[np.concatenate(apart)].mean(), abs=1e-2)


def test_shortened_features_are_those_of_a_shorter_video(scored):
    _, table, cache, _ = scored
    row = next(table[table.set == "stream"].itertuples())
    features = calibrated.shortened(load_features(feature_file(cache, row)), 100)
    assert len(features.timesformer) == len(features.scene) == window_count(100)
    assert features.region_at[:, 0].max() < window_count(100) and len(features.region) == len(features.region_at)
