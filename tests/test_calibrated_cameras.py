"""Test cameras fitted to normal video of their own, with the scores of a tiny run."""

import numpy as np
import pandas as pd
import pytest

from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.features.window_plan import window_count
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.files.score_files import read_archive, read_series
from zsad_lib.methods.context_aware import calibrated, score_step
from zsad_lib.methods.context_aware.scorer import load_scorer, terms_of, with_memory
from zsad_lib.methods.context_aware.scores import METHODS


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


def test_each_camera_is_scored_by_its_own_normal_video(scored):
    scorer, table, cache, scores = scored
    site, (first, second) = next(iter(calibrated.cameras(table, "before").items()))
    [stream] = calibrated.streams_of(table, "test", site)
    own = with_memory(scorer, [load_features(feature_file(cache, first))])
    held_out, test = own.terms([load_features(feature_file(cache, row)) for row in (second, stream)])
    own.calibrate([(held_out, second.n_frames)])
    for method in calibrated.CALIBRATED:
        for variant, causal in calibrated.VARIANTS.items():
            home, names = scores / f"{method}@{variant}" / "0", METHODS[method][1]
            expected = np.nan_to_num(own.score(test, names, stream.n_frames, causal=causal))
            np.testing.assert_allclose(
                read_series(home / f"{stream.video}.csv", "score"), expected, rtol=1e-3, atol=2e-3
            )
            normal = own.score(held_out, names, second.n_frames, causal=causal)
            kept = read_archive(home / "normal.npz")[second.video]
            np.testing.assert_allclose(kept, normal[np.isfinite(normal)], rtol=1e-3, atol=2e-3)
            if not causal:  # the units are this camera's
                assert np.mean(kept) == pytest.approx(0, abs=1e-6)


def test_calibrated_scores_are_of_the_cameras_streams_alone_and_belong_to_the_kept_scorer(tiny_run, scored):
    (profile, run), (_, table, _, scores) = tiny_run, scored
    streams = table[(table.split == "test") & (table.set == "stream")]
    pairs = calibrated.cameras(table, "before")
    for seed in profile.seeds:
        for variant in calibrated.VARIANTS:
            home = scores / f"full_memory@{variant}" / str(seed)
            assert {path.stem for path in home.glob("*.csv")} - {"calibration_minutes"} == set(streams.video)
            assert read_archive(home / "normal.npz").keys() == {second.video for _, second in pairs.values()}
            assert home in score_step.homes(run, "full", seed)
    assert not calibrated.cameras(table[table.split != "before"], "before")


def test_minutes_of_normal_video_are_measured_on_validation_cameras(scored):
    scorer, table, cache, scores = scored
    written = pd.read_csv(scores / "full_memory@calibrated" / "0" / "calibration_minutes.csv")
    assert set(written.seconds) == {15.0} and set(written.asked) == {0.05}  # streams of 150 frames: no longer ones
    assert set(zip(written.method, written.variant)) == {
        (method, variant) for method in calibrated.CALIBRATED for variant in calibrated.VARIANTS
    }
    assert not (scores / "full_memory@calibrated" / "1" / "calibration_minutes.csv").exists()
    row = written.iloc[0]
    assert row.cameras == len(calibrated.cameras(table, "val")) and row.worst_site in calibrated.cameras(table, "val")
    assert row.gap <= abs(row.worst_got - row.asked) + 1e-9
    site, (first, second) = next(iter(calibrated.cameras(table, "val").items()))
    some = table[(table.site == site) & (table.set == "stream")]
    found = calibrated.minutes_needed(scorer, terms_of(scorer, cache, some), some, cache, (100, 150))
    assert found.seconds.tolist() == [10.0] * 4 + [15.0] * 4 and (found.worst_got == found.got).all()
    own = with_memory(scorer, [load_features(feature_file(cache, first))])
    events = calibrated.streams_of(table, "val", site)
    normal, *tested = own.terms([load_features(feature_file(cache, row)) for row in (second, *events)])
    own.calibrate([(normal, second.n_frames)])
    names = METHODS["full_memory"][1]
    threshold = np.sort(own.score(normal, names, second.n_frames))[-7 - 1]  # 5 % of 150 frames lie above
    calm = [own.score(t, names, row.n_frames)[frame_labels(row) == 0] for t, row in zip(tested, events)]
    got = found[(found.seconds == 15) & (found.method == "full_memory") & (found.variant == "calibrated")].got.item()
    assert got == pytest.approx((np.concatenate(calm) > threshold).mean(), abs=2e-3)


def test_shortened_features_are_those_of_a_shorter_video(scored):
    _, table, cache, _ = scored
    row = next(table[table.set == "stream"].itertuples())
    features = calibrated.shortened(load_features(feature_file(cache, row)), 100)
    assert len(features.timesformer) == len(features.scene) == window_count(100)
    assert features.region_at[:, 0].max() < window_count(100) and len(features.region) == len(features.region_at)
