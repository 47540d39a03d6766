"""Fitting to one's own camera: what was normal there no longer stands out, and what was not does."""

import dataclasses

import numpy as np
import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import STAND_IN_SIZE
from zsad_lib.files.video import write_video
from zsad_lib.methods.context_aware.scorer import load_scorer, with_memory
from zsad_lib.own_video.calibrate import calibrate
from zsad_lib.own_video.detector import TERMS, own_detector
from zsad_lib.own_video.scoring import pieces, score_video, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.own_video.words import Words


def footage(seed: int, event: bool = False, frames: int = 120):
    rng = np.random.default_rng(7)  # one camera: the same place in all videos
    place = rng.integers(0, 160, (48, 64, 3), dtype=np.uint8)
    walk = np.random.default_rng(seed).integers(0, 40)
    for number in range(frames):
        picture = place.copy()
        column = (walk + number) % 56
        picture[20:40, column : column + 8] = (200, 60, 60)
        if event and 60 <= number < 90:
            picture[5:45, 10:54] = 255 * (number % 2)
        yield picture


def features(camera, number):
    """Of a normal video, piece by piece."""
    frames = seen_frames(camera / "normal" / f"{number}.mp4", Seen(), STAND_IN_SIZE)
    own = own_detector(None)
    return [own.features(piece) for piece in pieces(frames)]


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camera")
    for number in range(4):
        write_video(folder / "normal" / f"{number}.mp4", footage(number), 10)
    write_video(folder / "event.mp4", footage(9, event=True), 10)
    write_video(folder / "quiet.mp4", footage(10), 10)
    return folder


def test_the_threshold_lets_the_wanted_share_of_unseen_normal_frames_pass(camera, run_home):
    target, threshold = calibrate(camera / "normal", "mine", far=0.2)
    scorer, meta = load_scorer(target)
    assert meta["threshold"] == threshold and len(meta["normal"]) == 4 and len(scorer.memory) == 4 * 19
    assert score_video(camera / "quiet.mp4", run="mine").attrs["threshold"] == threshold
    for live, asked in ((False, meta["threshold"]), (True, meta["threshold_causal"])):
        above = []
        for half in ((0, 2), (1, 3)):  # as unseen: the same statistics, the memory of the other half
            other = [piece for number in (0, 1, 2, 3) if number not in half for piece in features(camera, number)]
            judge = dataclasses.replace(
                with_memory(scorer, other), statistics=scorer.statistics,
                causal_statistics=scorer.causal_statistics, lowest=scorer.lowest,
            )  # fmt: skip
            for number in half:
                [terms] = judge.terms(features(camera, number))
                scored = judge.score(terms, TERMS, 120, causal=live)
                above.append(scored[np.isfinite(scored)] >= asked)
        assert 0.18 < np.concatenate(above).mean() <= 0.2
    with pytest.raises(ZsadError, match="mine: calibrated to one camera"):
        score_video(camera / "quiet.mp4", run="mine", words=Words(scene="on a plaza"))
    assert score_video(camera / "quiet.mp4").attrs["threshold"] is None


def test_what_is_new_to_the_camera_stands_out(camera, run_home):
    _, threshold = calibrate(camera / "normal", "mine", far=0.05)
    event, quiet = (score_video(camera / f"{name}.mp4", run="mine") for name in ("event", "quiet"))
    assert (event.score[60:90] > threshold).mean() > 0.9
    assert event.score[60:90].min() > quiet.score.max()


def test_own_sentences_are_the_bank(camera, run_home, monkeypatch, capsys):
    (run_home / "said.txt").write_text("a man walks\n\na car drives\n")
    command = ["calibrate", str(camera / "normal"), "--captions", str(run_home / "said.txt"), "--far", "0.3"]
    assert main(command) == 0 and "score with --run calibrated-normal" in capsys.readouterr().out
    table = score_video(camera / "quiet.mp4", run="calibrated-normal")
    assert set(table.caption) <= {"a man walks", "a car drives"}


def test_bad_input_is_one_line_and_writes_nothing(camera, run_home, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    write_video(tmp_path / "one" / "a.mp4", footage(0), 10)
    with pytest.raises(ZsadError, match="give two or more"):
        calibrate(tmp_path / "one", "mine")
    with pytest.raises(ZsadError, match="far=1.5"):
        calibrate(camera / "normal", "mine", far=1.5)
    with pytest.raises(ZsadError, match="76 windows of normal video cannot tell less than far=0.013"):
        calibrate(camera / "normal", "mine", far=0.01)
    with pytest.raises(ZsadError, match="a file; give the folder"):
        calibrate(camera / "quiet.mp4", "mine")
    write_video(tmp_path / "one" / "b.mp4", footage(1, frames=29), 10)
    with pytest.raises(ZsadError, match="too little video.* 0 windows"):
        calibrate(tmp_path / "one", "mine")
    for name in "ab":
        write_video(tmp_path / "one" / f"{name}.mp4", np.full((60, 48, 64, 3), 90, np.uint8), 10)
    with pytest.raises(ZsadError, match="all its scores are equal"):
        calibrate(tmp_path / "one", "mine", far=0.5)
    assert not (run_home / "runs" / "mine").exists()


def test_all_unreadable_videos_are_named_and_can_be_left_out(camera, run_home, tmp_path, capsys):
    folder = tmp_path / "some"
    for number in (0, 1):
        (folder / f"{number}.mp4").parent.mkdir(exist_ok=True)
        (folder / f"{number}.mp4").symlink_to(camera / "normal" / f"{number}.mp4")
    for name in ("bad.mp4", "worse.mp4"):
        (folder / name).write_bytes(b"no video")
    command = ["calibrate", str(folder), "--name", "mine", "--far", "0.2"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "bad.mp4: not a readable" in told and "worse.mp4: not a readable" in told
    assert "error: 2 of 4 videos cannot be read" in told and not (run_home / "runs" / "mine").exists()
    assert main([*command, "--allow-missing"]) == 0
    shown = capsys.readouterr().out
    assert "of 2 normal videos exceed it, each half as unseen by the memory of the other (0.4 minutes, 38" in shown
    assert "causal and live above" in shown and "uncertain" in shown
    assert main([*command, "--allow-missing"]) == 0 and "is replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, message", [("demo", "a run that is no calibration"), ("a/b", "without a slash"), ("..", "no calibration")]
)
def test_other_runs_are_never_touched(camera, run_home, name, message):
    (run_home / "runs" / "demo").mkdir(parents=True)
    with pytest.raises(ZsadError, match=message):
        calibrate(camera / "normal", name)
