"""Each comparison of `make bench` on tiny sizes: same results on both sides, one row each; never the seconds."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from official_files import camera_models

from zsad_lib import losses
from zsad_lib.__main__ import main
from zsad_lib.evaluate import weighted_auc
from zsad_lib.features import devices
from zsad_lib.maintenance import (
    baselines,
    machine,
    speed,
    speed_of_a_camera,
    speed_of_networks,
    speed_of_videos,
    timing,
)

SMALL = dict(image_size=16, patch_size=8, num_frames=2, embed_dim=12, depth=1, num_heads=3)


def check(row: speed.Row) -> None:
    assert row.ours_s > 0 and row.baseline_s > 0
    assert row.ratio == row.baseline_s / row.ours_s
    assert row.measure and row.baseline


def test_fused_attention_or_a_reason(monkeypatch):
    row = speed.fused_attention(1, 2, **SMALL)
    check(row)
    assert row.measure == "TimeSformer, 2 x 16 x 16, batch 2"
    monkeypatch.setitem(sys.modules, "transformers", None)
    row = speed.fused_attention(1, 2, **SMALL)
    assert row.ours_s > 0 and math.isnan(row.ratio) and "transformers" in row.note


def test_different_weights_are_noticed(monkeypatch):
    monkeypatch.setattr("transformers.TimesformerModel.load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError, match="not close"):
        speed.fused_attention(1, 1, **SMALL)


def test_half_precision_where_there_are_units(monkeypatch):
    monkeypatch.setattr(speed_of_networks, "has_bfloat16_units", lambda: False)
    row = speed.half_precision(1, 2, **SMALL)
    assert math.isnan(row.ratio) and row.note == "skipped: this device has no bfloat16 units"
    monkeypatch.setattr(speed_of_networks, "has_bfloat16_units", lambda: True)
    row = speed.half_precision(1, 2, **SMALL)
    check(row)
    assert row.measure == "TimeSformer in bfloat16, 2 x 16 x 16, batch 2"
    monkeypatch.setattr("transformers.TimesformerModel.load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError, match="not close: cosine"):
        speed.half_precision(1, 2, **SMALL)


@pytest.mark.parametrize(
    ("flags", "has"), [("fpu avx2 bmi2", False), ("avx512f avx512_bf16 amx_int8", True), ("asimd bf16 i8mm", True)]
)
def test_units_are_read_from_the_flags(flags, has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.Path, "is_file", lambda path: True)
    text = f"model name : some bf16-free name\nflags : {flags}\n"
    monkeypatch.setattr(devices.Path, "read_text", lambda path, encoding: text)
    assert devices.has_bfloat16_units() == has and devices.device_name().startswith("some bf16-free name, ")


def test_an_epoch_with_cached_features_has_the_losses_of_one_without(monkeypatch):
    row = speed.cached_features(1, clips=3, n_frames=40, batch=5)  # three windows each; four windows make no whole step
    check(row)
    assert row.measure == "epoch of 9 windows in steps of 5, cached features"
    seen = []

    def differs(*arguments):
        seen.append(1)
        losses = real(*arguments)
        return {name: value + (len(seen) == 2) for name, value in losses.items()}

    real = speed.joint_loss
    monkeypatch.setattr(speed, "joint_loss", differs)
    threads = torch.get_num_threads()
    with pytest.raises(AssertionError, match="not close"):
        speed.cached_features(1, clips=3, n_frames=40, batch=5)
    assert torch.get_num_threads() == threads


def test_weak_step_equals_the_loops_and_notices_where_not(monkeypatch):
    row = speed.weak_step(1, videos=4, segments=13, width=16)
    check(row)
    assert "4 videos of 208 frames" in row.measure
    monkeypatch.setattr(
        speed, "anomaly_clip_loss", lambda *_: losses.AnomalyCLIPLoss(*(torch.ones((), requires_grad=True),) * 8)
    )
    with pytest.raises(AssertionError, match="not close"):
        speed.weak_step(1, videos=4, segments=13, width=16)


def test_one_decode():
    row = speed.one_decode(1, n_frames=40, size=(48, 64))
    check(row)
    assert "40 frames" in row.measure


def test_own_video_against_its_playing_time(monkeypatch):
    row = speed.own_video(1, n_frames=60, size=(48, 64))
    check(row)
    assert row.baseline_s == 2.0 and "60 frames 48 x 64" in row.measure
    scores = speed_of_videos.score_video
    monkeypatch.setattr(speed_of_videos, "score_video", lambda path: scores(path)[:-1])
    with pytest.raises(AssertionError, match="59 scores of 60 frames"):
        speed.own_video(1, n_frames=60, size=(48, 64))


def test_bootstrap_equals_the_loop_and_notices_where_not(monkeypatch):
    row = speed.bootstrap(n_videos=6, n_frames=300, draws=20, naive_draws=4)
    check(row)
    assert "20 draws" in row.measure
    monkeypatch.setattr(weighted_auc, "average_precision", lambda ranking, weights: np.full(len(weights), 0.5))
    with pytest.raises(AssertionError):
        speed.bootstrap(n_videos=6, n_frames=300, draws=20, naive_draws=4)


def test_medians_leave_out_the_warm_up_call(monkeypatch):
    seconds = iter([100.0, 100.0, 1.0, 6.0, 3.0, 2.0, 2.0, 8.0])
    monkeypatch.setattr(timing, "timed", lambda work: next(seconds))
    assert timing.medians(None, None, 3) == (2.0, 6.0, 3.0)


def test_table_on_screen_and_on_disk(tmp_path, capsys):
    rows = [speed.Row("one", 1.0, "other", 2.0, 2.0, ""), speed.Row("two", 1.0, "none", np.nan, np.nan, "why not")]
    rows.append(speed.Row("three", 1.0, "other", 1234.5, 1234.5, "how", 0.25))
    compared = speed.run(tmp_path / "bench", iter(rows))
    printed = capsys.readouterr().out
    assert "one; other\n" in printed and "two; none (why not)\n" in printed
    assert "    1.000  1234.500  1234.5  three; other (how); limit 0.250 s\n" in printed
    table = pd.read_csv(tmp_path / "bench" / "bench.csv")
    assert table["measure"].tolist() == ["one", "two", "three"] and table["ratio"].iloc[0] == 2.0
    assert set(table["device"]) == {devices.device_name()} and table["device"].iloc[0]
    page = speed.speed_page(compared, machine.describe_machine())
    assert f"| Processor | {devices.device_name()} |" in page and "| Revision | " in page
    assert "| one; other | 1 | 2 | 2 | - |" in page and "| two; none (why not) | 1 | - | - | - |" in page
    assert "| three; other (how) | 1 | 1,234 | 1,234 | 0.25 |" in page


def test_main_writes_into_runs_and_tells_errors_in_one_line(run_home, monkeypatch, capsys):
    for name in (
        "bootstrap",
        "own_video",
        "one_decode",
        "cached_features",
        "weak_step",
        "fused_attention",
        "half_precision",
        "stream",
        "clip_features",
        "regions",
        "next_window",
    ):
        monkeypatch.setattr(speed, name, lambda *_, name=name, **__: speed.Row(name, 1.0, "other", 3.0, 3.0, ""))
    assert main(["bench"]) == 0
    assert len(pd.read_csv(run_home / "runs" / "bench" / "bench.csv")) == 14
    page = (run_home / "docs" / "results" / "speed.md").read_text(encoding="utf-8")
    assert page.startswith("# Speed\n") and page.count("; other |") == 14
    (run_home / "runs" / "bench" / "bench.csv").unlink()
    (run_home / "runs" / "bench").rmdir()
    (run_home / "runs" / "bench").write_text("a file in its place")
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("name", ["clip_vit_b16", "places365", "dpc"])
def test_a_cameras_streams_against_real_time(name, monkeypatch):
    monkeypatch.setattr(speed_of_a_camera, "build_model", camera_models)
    row = speed_of_a_camera.stream(name, 1)
    check(row)
    assert row.baseline_s == 6.0 and "times real time" in row.note and "MiB of weights" in row.note


CLIP = dict(embed_dim=16, text_width=16, text_heads=2, vision_layers=1, vision_width=32, vision_head_width=16)


@pytest.mark.parametrize("units", [False, True])
def test_clip_features_against_a_frame_at_a_time(units, monkeypatch):
    monkeypatch.setattr("zsad_lib.features.clip_frames.has_bfloat16_units", lambda: units)
    row = speed.clip_features(1, n_frames=5, size=(48, 64), **CLIP, vision_image_size=32)
    check(row)
    assert ("cosine at least 0.999" in row.note) == units and "frames a second" in row.note and row.limit_s > 0
    monkeypatch.setattr(speed_of_videos, "video_features", lambda encoder, path: torch.randn(5, 16))
    with pytest.raises(AssertionError, match="not close"):
        speed.clip_features(1, n_frames=5, size=(48, 64), **CLIP, vision_image_size=32)


def test_the_local_read_out_equals_the_loops_and_notices_where_not(monkeypatch):
    row = speed.regions(1, windows=5)
    check(row)
    assert "in 5 windows" in row.measure
    monkeypatch.setattr(baselines, "NEIGHBOURS", 4)
    with pytest.raises(AssertionError, match="Not equal"):
        speed.regions(1, windows=5)


def test_the_next_window_equals_one_from_scratch_and_notices_where_not(monkeypatch):
    check(speed.next_window("shipped", speed.shipped_camera, repeats=1))
    monkeypatch.setattr(speed_of_a_camera, "build_model", camera_models)
    row = speed.next_window("published", speed.published_camera, repeats=1)
    check(row)
    assert row.measure == "the next window of a stream, published"
    real = speed_of_a_camera.LiveScorer.window

    def late(self, small):
        terms = real(self, small)
        return terms and {name: values + 0.1 for name, values in terms.items()}

    monkeypatch.setattr(speed_of_a_camera.LiveScorer, "window", late)
    with pytest.raises(AssertionError, match="s_sem"):
        speed.next_window("shipped", speed.shipped_camera, repeats=1)
