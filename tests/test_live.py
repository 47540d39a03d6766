"""Live scoring equals the causal mode; streams reconnect, and drop frames that nobody waits for."""

import time

import numpy as np
import pytest

from zsad_lib import live
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.own_video import score_video
from zsad_lib.video import iter_frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "camera.mp4"
    rng = np.random.default_rng(0)
    place = rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
    write_video(path, (np.roll(place, i, axis=1) for i in range(230)), 30)
    return path


def test_live_scores_are_the_causal_ones(video):
    table, scorer = score_video(video, causal=True), live.LiveScorer(step=3)
    found = [scorer.push(frame) for frame in iter_frames(video)]
    assert [one.warmup for one in found] == table.warmup.tolist()
    np.testing.assert_allclose([one.score for one in found], table.score, atol=1e-4)
    assert len(scorer.held) == 31 and table.score.nunique() > 5


def test_a_file_is_watched_whole(video, capsys):
    assert main(["live", str(video)]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "frame,time_s,delay_s,score,warmup,alarm" and len(lines) == 231
    assert "230 frames" in shown.err and "dropped 0, reconnected 0" in shown.err
    scores = [float(line.split(",")[3]) for line in lines[1:]]
    np.testing.assert_allclose(scores, score_video(video, causal=True).score, rtol=1e-3, atol=1e-3)


def test_a_stream_that_breaks_off_is_opened_again(monkeypatch):
    opened = []

    def breaks(source):
        opened.append(source)
        if len(opened) == 3:
            raise ZsadError("gone")
        yield np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(live, "open_stream", breaks)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("rtsp://camera"), []
    for _, frame in camera:
        got.append(frame)
        if len(got) == 4:
            break
    assert camera.reconnected >= 4 and opened[:4] == ["rtsp://camera"] * 4

    def silent(source):
        raise ZsadError("gone")

    monkeypatch.setattr(live, "open_stream", silent)
    with pytest.raises(ZsadError, match="rtsp://camera: no more frames after 5 attempts .*gone"):
        list(live.Camera("rtsp://camera"))


def test_a_stream_drops_the_oldest_frames_and_counts_them(monkeypatch):
    done = []

    def many(source):
        if not done:
            yield from (np.full((1, 1, 3), i, np.uint8) for i in range(100))
            done.append(1)
        raise ZsadError("over")

    monkeypatch.setattr(live, "open_stream", many)
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    camera, got = live.Camera("0"), []
    try:
        for _, frame in camera:
            while not done:  # the reader goes on while this frame is looked at
                time.sleep(0)
            got.append(int(frame[0, 0, 0]))
    except ZsadError:
        pass
    assert camera.dropped > 0 and len(got) + camera.dropped == 100 and got[1:] == sorted(got[1:]) and got[-1] == 99


def test_an_address_that_nobody_answers_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    assert main(["live", "http://127.0.0.1:9/stream"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot read this camera or stream" in error
