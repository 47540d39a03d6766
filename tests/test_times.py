"""Times of frames, and which of them are seen: files as recorders write them, made here with known times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from zsad_lib.files.clock import Clock
from zsad_lib.files.video import timed_frames
from zsad_lib.own_video import events, scoring
from zsad_lib.own_video.detector import RATE, TERMS, own_detector
from zsad_lib.own_video.explain import explain
from zsad_lib.own_video.frame_by_frame import LiveScorer
from zsad_lib.own_video.ticks import Seen, Ticks, blend, stretch_starts

STEADY = np.arange(240) / 30
PAUSED = np.r_[STEADY[:120], 40 + STEADY[120:]]
RISES = np.r_[np.arange(20) / 5, 4 + np.arange(120) / 30]


def picture(second: float) -> np.ndarray:
    """A place with something red that walks, uint8 [48, 64, 3]."""
    place = np.random.default_rng(0).integers(0, 160, (48, 64, 3), dtype=np.uint8)
    column = int(30 * second) % 56
    place[20:40, column : column + 8] = (200, 60, 60)
    return place


def record(path: Path, times, codec="libx264", base=Fraction(1, 30), format=None, **options) -> Path:
    """A video of frames at these seconds."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        repeatable = {"threads": "1"} | ({"x264-params": "cpu-independent=1"} if codec == "libx264" else {})
        stream.codec_context.time_base, stream.options = base, repeatable | options
        for second in times:
            frame = av.VideoFrame.from_ndarray(picture(second), format="rgb24")
            frame.time_base, frame.pts = base, round(second / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def times_of(path: Path) -> np.ndarray:
    return np.array([seconds for seconds, _ in timed_frames(path, lambda now: False)])


def seen_of(times) -> list[int]:
    ticks = Ticks()
    return [number for number, now in enumerate(times) if ticks.take(float(now)).seen]


@pytest.mark.parametrize(
    "name, codec, format, times",
    [
        ("h264.avi", "libx264", None, STEADY),  # B-frames: the order of packets is no time
        ("mpeg4.avi", "mpeg4", None, STEADY),
        ("pause.avi", "libx264", None, PAUSED),  # empty packets
        ("ps.mp4", "libx264", "mpeg", STEADY),  # most frames without a time
        ("b.mkv", "libx264", None, STEADY),
        ("b.flv", "libx264", None, STEADY),
        ("b.ts", "libx264", None, STEADY),
        ("pause.mp4", "libx264", None, PAUSED),
        ("pause.mkv", "libx264", None, PAUSED),
        ("rises.mp4", "libx264", None, RISES),
        ("one.mp4", "libx264", None, STEADY[:1]),
        ("late.mkv", "libx264", None, STEADY + 5000),
        ("early.mkv", "mpeg4", None, STEADY - 0.5),
        ("lapse.mp4", "libx264", None, np.arange(20) * 60.0),
    ],
)
def test_frames_keep_the_times_that_they_were_recorded_at(tmp_path, name, codec, format, times, capsys):
    options = {"bf": "2"} if codec == "mpeg4" and name != "early.mkv" else {}
    found = times_of(record(tmp_path / name, times, codec, format=format, **options))
    np.testing.assert_allclose(found, times - times[0], atol=1e-3)
    assert capsys.readouterr().err == ""


def test_frames_of_uneven_and_rounded_times_keep_them(tmp_path):
    uneven = np.sort(STEADY + np.random.default_rng(0).normal(0, 0.005, 240))
    path = record(tmp_path / "phone.mp4", uneven, base=Fraction(1, 90_000))
    np.testing.assert_allclose(times_of(path), uneven - uneven[0], atol=1e-4)


def test_a_file_of_many_joined_pieces_counts_at_its_declared_rate_and_says_so(tmp_path, capsys):
    piece = record(tmp_path / "piece.ts", STEADY[:7]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(piece * 6)
    np.testing.assert_allclose(times_of(tmp_path / "joined.ts"), STEADY[:42], atol=1e-6)
    [told] = capsys.readouterr().err.splitlines()
    assert "out of order, 30 frames per second are taken, as it declares" in told


def test_a_transport_stream_cannot_vouch_for_a_long_pause(tmp_path, capsys):
    assert times_of(record(tmp_path / "pause.ts", PAUSED))[-1] == pytest.approx(STEADY[-1], abs=1e-3)
    assert "jumps of its clock, cut to one usual interval each: 1" in capsys.readouterr().err
    short = np.r_[STEADY[:120], 5 + STEADY[120:]]
    assert times_of(record(tmp_path / "short.ts", short))[-1] == pytest.approx(short[-1], abs=1e-3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "stamps, times, jumps",
    [
        ([5, 5.1, None, None, 5.4], [0, 0.1, 0.2, 0.3, 0.4], 0),
        ([None, None, 5, 5.1], [0, 0.1, 0.2, 0.3], 0),
        ([0, 0.1, 0.3, 0.2, 0.4], [0, 0.1, 0.3, 0.45, 0.45], 0),  # one behind is filled, and nothing falls
        ([0, 0.1, 0.1, 0.2], [0, 0.1, 0.1, 0.2], 0),  # twice the same
        ([7, 7.1, 0, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.3, 0.4, 0.5], 1),  # set anew
        ([0, 0.1, 95443, 95443.1], [0, 0.1, 0.2, 0.3], 1),
        ([0, 0.1, 95443, 0.3, 0.4, 0.5, 0.6], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2),  # one wild time
    ],
)
def test_the_rule_of_times_by_hand(stamps, times, jumps):
    clock = Clock(usual=0.1)
    assert [clock.time(stamp) for stamp in stamps] == pytest.approx(times) and clock.jumps == jumps


@pytest.mark.parametrize(
    "rate, every", [(10, 1), (9.99, 1), (20, 2), (30, 3), (29.97, 3), (30.2, 3), (59.94, 6), (120, 12)]
)
@pytest.mark.parametrize("digits", [3, 12])
def test_what_is_seen_does_not_slip(rate, every, digits):
    times = np.round(np.arange(20_000) / rate, digits)
    assert seen_of(times) == list(range(0, 20_000, every))


@pytest.mark.parametrize("rate", [12, 15, 24, 25, 48, 50])
def test_ten_frames_a_second_are_seen_on_average(rate):
    seen = seen_of(np.arange(3000) / rate)
    assert len(seen) / 3000 * rate == pytest.approx(RATE, rel=0.01)
    assert set(np.diff(seen)) <= {rate // 10, rate // 10 + 1}


def test_jitter_of_a_telephone_is_no_slip():
    times = np.sort(np.arange(3000) / 30 + np.random.default_rng(0).normal(0, 0.004, 3000))
    assert seen_of(times) == list(range(0, 3000, 3))


def test_a_window_always_lasts_three_seconds():
    times, ticks = np.r_[RISES, 8 + np.arange(20) / 4], Ticks()
    taken = [ticks.take(now) for now in times]
    assert sum(tick.seen + tick.missed for tick in taken) == pytest.approx(RATE * times[-1], abs=2)
    assert [tick.begins for tick in taken].count(True) == 1
    before, after = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 90, np.uint8)
    assert [int(frame[0, 0, 0]) for frame in blend(before, after, 2)] == [30, 60]


@pytest.mark.parametrize(
    "times, starts",
    [
        (STEADY, [0]),
        (PAUSED, [0, 120]),
        (np.r_[STEADY, 9.5 + STEADY], [0, 240]),  # 1.5 seconds
        (np.arange(20) / 2, [0]),
        (np.arange(20) * 2.5, [0]),
        (np.arange(3) * 60.0, [0, 1, 2]),  # no window holds two of them
        (np.r_[STEADY, 8 + np.arange(20) * 0.9], [0]),  # slower at night
    ],
)
def test_a_pause_begins_a_stretch_for_live_and_for_tables_alike(times, starts):
    ticks = Ticks()
    assert [number for number, now in enumerate(times) if ticks.take(float(now)).begins] == starts
    assert stretch_starts(times).tolist() == starts


@pytest.fixture(scope="module")
def own():
    return own_detector(None)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("times")
    uneven = {"paused.mp4": PAUSED, "rises.mp4": RISES, "pal.mp4": np.arange(120) / 25, "short.mp4": PAUSED[90:200]}
    return {name: record(folder / name, times, base=Fraction(1, 300)) for name, times in uneven.items()}


@pytest.mark.parametrize("name", ["paused.mp4", "rises.mp4", "pal.mp4", "short.mp4"])
def test_causal_and_live_scores_are_equal_frame_by_frame(videos, name):
    causal = scoring.score_video(videos[name], causal=True)
    live, found = LiveScorer(), []
    for seconds, frame in timed_frames(videos[name]):
        found.append(live.push(frame, seconds))
    assert [one.score for one in found] == causal.score.tolist()
    assert [one.warmup for one in found] == causal.warmup.tolist()


def test_no_window_spans_a_pause(videos, own, capsys):
    table = scoring.score_video(videos["paused.mp4"], progress=True)
    assert "pauses without a frame: 1" in capsys.readouterr().err
    assert table.time_s.iloc[-1] == pytest.approx(47.967, abs=1e-3)
    seen = Seen()
    frames = list(scoring.seen_frames(videos["paused.mp4"], seen, own.size))
    assert seen.begins == [0, 40] and [stretch for stretch, _ in frames] == [1] * 40 + [2] * 40
    parts = (list(enumerate(part)) for part in (frames[:40], frames[40:]))
    alone = [scoring.score_windows((item for _, item in part), own) for part in parts]
    together = scoring.score_windows(frames, own)
    for term in TERMS:
        joined = np.concatenate([one.terms[term] for one in alone])
        np.testing.assert_allclose(together.terms[term], joined, atol=1e-5)
    causal = scoring.score_video(videos["paused.mp4"], causal=True)
    assert causal.warmup.tolist() == ([True] * 87 + [False] * 33) * 2


def test_a_stretch_shorter_than_a_window_repeats_its_last_frame(videos, capsys):
    table = scoring.score_video(videos["short.mp4"], progress=True)
    assert "stretches with too few frames: 2" in capsys.readouterr().err
    one_window = table.s_mem_global  # the other terms are of single pictures and blocks
    assert one_window[:30].nunique() == one_window[30:].nunique() == 1 and np.isfinite(table.score).all()


def test_a_rate_that_rises_is_told_and_scored_in_windows_of_three_seconds(videos, capsys):
    table = scoring.score_video(videos["rises.mp4"], causal=True, progress=True)
    assert "frames come slower than 10 per second: 20 of 80" in capsys.readouterr().err
    assert table.time_s[~table.warmup].iloc[0] == pytest.approx(3.0, abs=0.11)


def test_a_beginning_is_scored_like_the_whole(tmp_path):
    whole = record(tmp_path / "whole.mkv", RISES, "ffv1")
    begin = record(tmp_path / "begin.mkv", RISES[:90], "ffv1")
    scored = [scoring.score_video(path, causal=True) for path in (whole, begin)]
    pd.testing.assert_frame_equal(scored[0][:90], scored[1])


def test_events_end_at_a_pause_and_the_curve_breaks(scored):
    table = scored(np.full(40, 5.0))
    table["time_s"] = np.r_[np.arange(20), 400 + np.arange(20)] / 10
    assert events.events(table, 1.0)[["first_frame", "last_frame"]].values.tolist() == [[0, 19], [20, 39]]


def test_explained_windows_lie_on_either_side_of_a_pause(videos):
    why = explain(videos["paused.mp4"])
    assert len(why.score) == 6 and (np.diff(why.times) > 0).all()
    assert ((why.times < 4.1) | (why.times > 43.9)).all()
    table = scoring.score_video(videos["paused.mp4"])
    at = [int(np.abs(table.time_s - second).argmin()) for second in why.times]
    np.testing.assert_allclose(why.score, table.score[at], atol=1e-9)
