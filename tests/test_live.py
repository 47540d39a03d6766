"""Live scoring equals the causal mode; streams reconnect, and drop frames that nobody waits for."""

import contextlib
import io
import itertools
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.files.video import iter_frames, open_stream, write_video
from zsad_lib.own_video import watch as live
from zsad_lib.own_video.detector import TERMS
from zsad_lib.own_video.frame_by_frame import Scored
from zsad_lib.own_video.scoring import pieces, score_video, seen_frames
from zsad_lib.own_video.ticks import Seen


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


@pytest.fixture
def scorer():
    return live.LiveScorer(step=3)


def test_live_scores_are_the_causal_ones(video, causal, scorer):
    found = [scorer.push(frame) for frame in iter_frames(video)]
    assert [one.warmup for one in found] == causal.warmup.tolist()
    assert [one.score for one in found] == causal.score.tolist() and causal.score.nunique() > 5
    assert len(scorer.frames) == 31 and len(scorer.blocks) == 6


def test_the_causal_mode_agrees_with_windows_that_are_computed_together(video, causal, scorer):
    [piece] = pieces(seen_frames(video, Seen(), scorer.own.size))
    terms = scorer.own.window_terms(scorer.own.features(piece), piece)
    together = scorer.own.scorer.score(terms, TERMS, 77, causal=True)  # 230 frames at 30 per second, 77 of them seen
    np.testing.assert_allclose(causal.score[3 * 29 :: 3], together[29:], atol=1e-4)
    assert len(set(together[29:])) == 10


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
        return False, iter([(NEVER, np.zeros((4, 4, 3), np.uint8))])

    monkeypatch.setattr(live, "open_stream", breaks)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("rtsp://camera"), []
    for arrived in camera:
        got.append(arrived.frame)
        if len(got) == 4:
            break
    assert camera.reconnected >= 4 and opened[:4] == ["rtsp://camera"] * 4
    assert "rtsp://camera: the stream ended; attempt 1 of 5 in 0 s\n" in capsys.readouterr().err

    once = []

    def silent(source):
        if source in once:
            raise ZsadError("gone")
        once.append(source)
        return False, iter([(NEVER, np.zeros((4, 4, 3), np.uint8))])

    monkeypatch.setattr(live, "open_stream", silent)
    with pytest.raises(ZsadError, match="gone; no more frames after 5 attempts"):
        list(live.Camera("rtsp://other"))
    with pytest.raises(ZsadError, match="^gone$"):  # it never gave a frame: nobody waits for a wrong address
        list(live.Camera("rtsp://other"))


def test_a_stream_drops_the_oldest_frames_and_counts_them(monkeypatch):
    done = []

    def frames():
        yield from ((NEVER, np.full((1, 1, 3), i, np.uint8)) for i in range(100))
        done.append(1)

    def many(source):
        if done:
            raise ZsadError("over")
        return False, frames()

    monkeypatch.setattr(live, "open_stream", many)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("0"), []
    try:
        for arrived in camera:
            while not done:  # the reader goes on while this frame is looked at
                time.sleep(0)
            got.append(int(arrived.frame[0, 0, 0]))
    except ZsadError:
        pass
    assert camera.dropped > 0 and len(got) + camera.dropped == 100 and got[1:] == sorted(got[1:]) and got[-1] == 99


def watched(monkeypatch, arrivals, stamps, frames, breaks=None):
    """Columns of `watch` over frames that arrive at these seconds, as `Camera` hands them on without a thread."""
    now, items = {"t": 0.0}, list(zip(arrivals, stamps, frames))

    def one_by_one(camera):
        for broken, part in enumerate((items[:breaks], items[breaks:] if breaks else [])):
            for seconds, frame in camera._timed(now.update(t=at) or (stamp, frame) for at, stamp, frame in part):
                yield live.Arrived(now["t"], seconds, frame, broken)

    monkeypatch.setattr(live.time, "monotonic", lambda: now["t"])
    monkeypatch.setattr(live.Camera, "__iter__", one_by_one)
    lines = list(live.watch("rtsp://camera"))
    rows = [line.split(",") for line in lines if not line.startswith(("#", "frame"))]
    columns = ["frame", "time_s", "delay_s", "score", "warmup", "alarm"]
    return pd.DataFrame(rows, columns=columns), [line for line in lines if line.startswith("#")]


@pytest.mark.parametrize("clock", ["stream", "arrival", "stuck"])
def test_a_stream_is_scored_at_its_own_rate_from_its_first_frame_on(clock, video, causal, monkeypatch):
    """At 30 frames/s; where the stream has a clock, its first frames come at once, as after opening."""
    arrivals = 5 + np.arange(230) / 30  # it took five seconds to open
    stamps = {"stream": 7 + np.arange(230) / 30, "arrival": np.full(230, NEVER), "stuck": np.zeros(230)}[clock]
    arrivals[:40] += (clock == "stream") * (arrivals[40] - arrivals[:40])
    found, report = watched(monkeypatch, arrivals, stamps, iter_frames(video))
    assert "1 in 3 of them seen" in report[0]
    assert (found.warmup == "True").tolist() == causal.warmup.tolist()
    np.testing.assert_allclose(found.score.astype(float), causal.score, rtol=1e-4)


def test_a_stream_may_come_back_at_another_rate(monkeypatch):
    arrivals = np.concatenate([np.arange(45) / 10, 4 + np.arange(150) / 30])
    found, _ = watched(monkeypatch, arrivals, np.full(195, NEVER), np.zeros((195, 4, 4, 3), np.uint8), breaks=45)
    warm = [True] * 29 + [False] * 16 + [True] * 87 + [False] * 63
    assert (found.warmup == "True").tolist() == warm


def test_a_pause_of_a_stream_is_spanned_by_no_window(monkeypatch):
    arrivals = np.concatenate([np.arange(40), 60 + np.arange(40)]) / 10
    found, _ = watched(monkeypatch, arrivals, arrivals + 3, np.zeros((80, 4, 4, 3), np.uint8))
    assert (found.warmup == "True").tolist() == ([True] * 29 + [False] * 11) * 2


def test_no_window_spans_the_gap_of_a_stream_that_broke_off(scorer, monkeypatch):
    frames = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)

    def broken(camera):
        yield from (live.Arrived(0.0, NEVER, frame, int(number >= 40)) for number, frame in enumerate(frames))

    monkeypatch.setattr(live.Camera, "__iter__", broken)
    lines = [line.split(",")[3:5] for line in live.watch("rtsp://camera") if not line.startswith(("#", "frame"))]
    assert [warmup for _, warmup in lines] == ["True"] * 29 + ["False"] * 11 + ["True"] * 29 + ["False"]
    scorer.restart()
    scorer.step = 1
    assert float(lines[-1][0]) == pytest.approx([scorer.push(frame).score for frame in frames[40:]][-1], rel=1e-5)


def test_ctrl_c_ends_a_camera_with_its_report_and_warm_up_alarms_never(monkeypatch):
    def stopped():
        yield from (live.Arrived(second, NEVER, np.zeros((4, 4, 3), np.uint8), 0) for second in (0.0, 0.1))
        raise KeyboardInterrupt

    monkeypatch.setattr(live.Camera, "__iter__", lambda self: stopped())
    still = Scored(0.0, True)
    scorer = SimpleNamespace(threshold=-1.0, push=lambda *_: still, last=still, seconds={}, looked_at=0)
    monkeypatch.setattr(live, "LiveScorer", lambda *_, **__: scorer)
    lines = list(live.watch("0"))
    assert [line.rsplit(",", 1)[1] for line in lines[1:3]] == ["0", "0"] and lines[3].startswith("# 2 frames")


@pytest.mark.parametrize("kind", ["mp4", "ts"])  # a .ts does not tell its length, the server does
def test_a_file_at_an_address_is_scored_like_the_file(kind, video, causal, server, capsys, tmp_path):
    file = video
    if kind == "ts":
        file = tmp_path / "camera.ts"
        with av.open(str(video)) as source, av.open(str(file), "w") as target:
            copy = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
    server.content = file.read_bytes()
    assert main(["live", server.url, "--seconds", "60"]) == 0  # does not take that long
    shown = capsys.readouterr()
    assert "1 in 3 of them seen; dropped 0, reconnected 0" in shown.err
    found = pd.read_csv(io.StringIO(shown.out))
    np.testing.assert_allclose(found.score, causal.score, rtol=1e-4)
    np.testing.assert_allclose(np.diff(found.time_s), 1 / 30, atol=2e-3)  # its place, not when it came


@pytest.mark.parametrize(
    "address, duration, size, flags, is_file, clock",
    [
        ("rtsp://camera", 40, 0, 0, False, [0.0, 8.0]),  # some servers declare a length
        ("http://host/film", 40, 0, 0, True, [0.0, 8.0]),
        ("http://host/film.ts", None, 999, 0, True, [0.0, 8.0]),
        ("http://host/live.ts", None, -1, 0, False, [0.0, 8.0]),
        ("http://host/mjpeg", None, -1, 128, False, [NEVER, NEVER]),  # a format without time stamps
        ("0", None, -1, 0, False, [0.0, 8.0]),
    ],
)
def test_a_stream_says_whether_it_is_a_file_and_has_a_clock(
    address, duration, size, flags, is_file, clock, monkeypatch
):
    frames = [av.VideoFrame(16, 16, "rgb24") for _ in range(2)]
    for frame, second in zip(frames, (0, 8)):
        frame.pts, frame.time_base = second, Fraction(1, 1)
    container = contextlib.nullcontext()
    only = SimpleNamespace(index=0, disposition=av.stream.Disposition(0), codec_context="a decoder")
    vars(container).update(
        format=SimpleNamespace(flags=flags),
        duration=duration,
        size=size,
        decode=lambda stream: frames if stream is only else [],
        streams=SimpleNamespace(video=[only]),
    )
    monkeypatch.setattr(av, "open", lambda *_, **__: container)
    found, stream = open_stream(address)
    assert found is is_file
    np.testing.assert_array_equal([seconds for seconds, _ in stream], clock)


def test_a_negative_duration_is_refused(capsys):
    assert main(["live", "0", "--seconds", "-3"]) == 2
    assert "-3 seconds: give a positive number" in capsys.readouterr().err


def test_an_address_that_nobody_answers_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    assert main(["live", "http://127.0.0.1:9/stream"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "http://127.0.0.1:9/stream: cannot be read (Connection refused)" in error
