"""Live scoring equals the causal mode; streams reconnect, and drop frames that nobody waits for."""

import contextlib
import itertools
import re
import time
from array import array
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from zsad_lib import live
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.own_detector import TERMS
from zsad_lib.own_video import score_video, seen_frames, window_features
from zsad_lib.streaming import Scored
from zsad_lib.video import iter_frames, open_stream, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "camera.mp4"
    rng = np.random.default_rng(0)
    place = rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
    write_video(path, (np.roll(place, i, axis=1) for i in range(230)), 30)
    return path


@pytest.fixture(scope="module")
def causal(video):
    return score_video(video, causal=True)


@pytest.fixture(scope="module")
def scorer():
    return live.LiveScorer(step=3)


def test_live_scores_are_the_causal_ones(video, causal, scorer):
    found = [scorer.push(frame) for frame in iter_frames(video)]
    assert [one.warmup for one in found] == causal.warmup.tolist()
    assert [one.score for one in found] == causal.score.tolist() and causal.score.nunique() > 5
    assert len(scorer.frames) == 31 and len(scorer.blocks) == 6


def test_the_causal_mode_agrees_with_windows_that_are_computed_together(video, causal, scorer):
    features = window_features(seen_frames(video, 3, array("d")), scorer.tool)
    together = np.concatenate([scorer.scorer.fuse(terms, TERMS) for terms in scorer.scorer.terms(features)])
    np.testing.assert_allclose(causal.score[3 * 29 :: 15][: len(together)], together, atol=1e-4)
    assert len(together) == 10


def test_a_beginning_is_scored_like_the_whole(video, tmp_path):
    from PIL import Image

    for folder, count in (
        ("whole", 71),
        ("begin", 43),
    ):  # frames as files: a film's end changes how all of it is compressed
        (tmp_path / folder).mkdir()
        for number, frame in enumerate(itertools.islice(iter_frames(video), count)):
            Image.fromarray(frame).save(tmp_path / folder / f"{number:03d}.png")
    whole, begin = (score_video(tmp_path / folder, causal=True) for folder in ("whole", "begin"))
    pd.testing.assert_frame_equal(begin, whole[:43])
    assert begin.caption.isna().sum() == begin.prompt.isna().sum() == begin.warmup.sum() == 29


def test_a_file_is_watched_whole(video, causal, capsys):
    assert main(["live", str(video)]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "frame,time_s,delay_s,score,warmup,alarm" and len(lines) == 231
    assert "230 frames" in shown.err and "dropped 0, reconnected 0" in shown.err
    stages = dict(part.rsplit(" ", 1) for part in shown.err.splitlines()[-1].partition(": ")[2].split("; "))
    assert list(stages)[:3] == ["reading", "waiting", "resize"] and "TimeSformer" in stages
    assert min(map(float, stages.values())) >= 0 and "95 % within" in shown.err
    scores = [float(line.split(",")[3]) for line in lines[1:]]
    np.testing.assert_allclose(scores, causal.score, rtol=1e-5)


NEVER = float("nan")  # the clock of a stream that has none


def test_a_stream_that_breaks_off_is_opened_again(monkeypatch, capsys):
    opened = []

    def breaks(source):
        opened.append(source)
        if len(opened) == 3:
            raise ZsadError("gone")
        yield NEVER, np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(live, "open_stream", breaks)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("rtsp://camera"), []
    for _, frame, _ in camera:
        got.append(frame)
        if len(got) == 4:
            break
    assert camera.reconnected >= 4 and opened[:4] == ["rtsp://camera"] * 4
    assert "rtsp://camera: the stream ended; attempt 1 of 5 in 0 s\n" in capsys.readouterr().err

    def silent(source):
        if len(opened) > 0:
            raise ZsadError("gone")
        opened.append(source)
        yield NEVER, np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(live, "open_stream", silent)
    with pytest.raises(ZsadError, match="^gone$"):  # it never gave a frame: nobody waits for a wrong address
        list(live.Camera("rtsp://camera"))
    opened.clear()
    with pytest.raises(ZsadError, match="gone; no more frames after 5 attempts"):
        list(live.Camera("rtsp://camera"))


def test_a_stream_drops_the_oldest_frames_and_counts_them(monkeypatch):
    done = []

    def many(source):
        if not done:
            yield from ((NEVER, np.full((1, 1, 3), i, np.uint8)) for i in range(100))
            done.append(1)
        raise ZsadError("over")

    monkeypatch.setattr(live, "open_stream", many)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("0"), []
    try:
        for _, frame, _ in camera:
            while not done:  # the reader goes on while this frame is looked at
                time.sleep(0)
            got.append(int(frame[0, 0, 0]))
    except ZsadError:
        pass
    assert camera.dropped > 0 and len(got) + camera.dropped == 100 and got[1:] == sorted(got[1:]) and got[-1] == 99


@pytest.mark.parametrize("clock", ["stream", "arrival", "stuck"])
def test_a_stream_is_scored_when_its_own_rate_is_known(clock, monkeypatch):
    """At 30 frames/s; where the stream has a clock, its first frames come at once, as after opening."""
    arrivals = 5 + np.arange(200) / 30  # it took five seconds to open
    stamps = {"stream": 7 + np.arange(200) / 30, "arrival": np.full(200, NEVER), "stuck": np.zeros(200)}[clock]
    arrivals[:40] += (clock == "stream") * (arrivals[40] - arrivals[:40])
    now = {"t": 0.0}

    def stream(source):
        for arrival, stamp in zip(arrivals, stamps):
            now["t"] = arrival
            yield stamp, np.zeros((4, 4, 3), np.uint8)

    def one_by_one(camera):
        """What `Camera` does, without a thread."""
        for seconds, frame in stream(camera.source):
            camera.rate or camera._measure(now["t"], seconds)
            yield now["t"], frame, 0

    monkeypatch.setattr(live.time, "monotonic", lambda: now["t"])
    monkeypatch.setattr(live.Camera, "__iter__", one_by_one)
    steps, push = [], live.LiveScorer.push
    monkeypatch.setattr(live.LiveScorer, "push", lambda self, frame: steps.append(self.step) or push(self, frame))
    lines = [line.split(",") for line in live.watch("rtsp://camera") if not line.startswith(("#", "frame"))]
    assert len(lines) == 200 and set(steps) == {3} and len(steps) == 140  # two seconds to see the rate
    warmup = [line[4] for line in lines]
    assert warmup[: 60 + 29 * 3] == ["True"] * 147 and warmup[-1] == "False"


def test_no_window_spans_the_gap_of_a_stream_that_broke_off(scorer, monkeypatch):
    frames = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)

    def broken(camera):
        camera.rate = 10.0
        yield from ((0.0, frame, int(number >= 40)) for number, frame in enumerate(frames))

    monkeypatch.setattr(live.Camera, "__iter__", broken)
    lines = [line.split(",")[3:5] for line in live.watch("rtsp://camera") if not line.startswith(("#", "frame"))]
    assert [warmup for _, warmup in lines] == ["True"] * 29 + ["False"] * 11 + ["True"] * 29 + ["False"]
    scorer.restart()
    scorer.step = 1
    assert float(lines[-1][0]) == pytest.approx([scorer.push(frame).score for frame in frames[40:]][-1], rel=1e-5)


def test_ctrl_c_ends_a_camera_with_its_report_and_warm_up_alarms_never(monkeypatch):
    def stopped():
        yield from ((second, np.zeros((4, 4, 3), np.uint8), 0) for second in (0.0, 0.1))
        raise KeyboardInterrupt

    monkeypatch.setattr(live.Camera, "__iter__", lambda self: stopped())
    monkeypatch.setattr(
        live, "LiveScorer", lambda *_: SimpleNamespace(threshold=-1.0, last=Scored(0.0, True), seconds={})
    )
    lines = list(live.watch("0"))
    assert [line.rsplit(",", 1)[1] for line in lines[1:3]] == ["0", "0"] and lines[3].startswith("# 2 frames")


def test_a_file_at_an_address_is_read_once(video, server, capsys):
    server.content = video.read_bytes()
    assert main(["live", server.url, "--seconds", "20"]) == 0  # does not take that long
    shown = capsys.readouterr()
    dropped = int(re.search(r"dropped (\d+), reconnected 0", shown.err)[1])
    assert len(shown.out.splitlines()) - 1 + dropped == 230
    assert dropped or "False" in shown.out  # the file's own clock tells its rate, however fast it is read


@pytest.mark.parametrize(
    "address, last, flags, over, clock",
    [
        ("rtsp://camera", 39.5, 0, True, [0.0, 39.5]),
        ("rtsp://camera", 8.0, 0, False, [0.0, 8.0]),  # its server went away
        ("http://host/film", 8.0, 0, True, [0.0, 8.0]),  # sound can be longer than its picture
        ("http://host/mjpeg", 8.0, 128, True, [NEVER, NEVER]),  # a format without time stamps
    ],
)
def test_a_stream_knows_its_clock_and_its_end(address, last, flags, over, clock, monkeypatch):
    import av

    frames = [av.VideoFrame(16, 16, "rgb24") for _ in range(2)]
    for frame, second in zip(frames, (0, last)):
        frame.pts, frame.time_base = int(second * 1000), Fraction(1, 1000)
    container = SimpleNamespace(
        format=SimpleNamespace(flags=flags), start_time=None, duration=40_000_000, decode=lambda video: iter(frames)
    )
    monkeypatch.setattr(av, "open", lambda *_, **__: contextlib.nullcontext(container))
    stream, seconds = open_stream(address), []
    with pytest.raises(StopIteration) as end:
        while True:
            seconds.append(next(stream)[0])
    np.testing.assert_array_equal(seconds, clock)
    assert end.value.value is over


def test_an_address_that_nobody_answers_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    assert main(["live", "http://127.0.0.1:9/stream"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot read this camera or stream" in error
