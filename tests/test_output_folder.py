"""Where results go: nothing of anybody's is written over, and two videos of one name keep both."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import clip_frames
from zsad_lib.features.clip_frames import extract
from zsad_lib.files import paths
from zsad_lib.files.own_results import note_video
from zsad_lib.files.weights import save_weights
from zsad_lib.own_video.calibrate import name_for
from zsad_lib.own_video.output_folder import output_for
from zsad_lib.results.evaluate_folders import evaluate_folders


@pytest.fixture
def score(tmp_path, monkeypatch, scored):
    """`score` of a video: one frame per byte, no weights, nothing drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zsad_lib.own_video.pictures.write_all", lambda *_, **__: {})

    def score_in_blocks(path, **_):
        table = scored(np.zeros(len(path.read_bytes())))
        return table, lambda: [table]

    monkeypatch.setattr("zsad_lib.own_video.score_command.score_in_blocks", score_in_blocks)
    return lambda video, *options: main(["score", video, *options])


def video(path, frames):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(frames))
    return str(path)


def rows(table):
    return Path(table).read_text(encoding="utf-8").count("\n") - 1


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_videos_of_one_name_keep_their_results(score, order, capsys):
    cameras = [video("a/45.10.mp4", 1), video("b/45.10.mp4", 2), video("x/b/45.10.mp4", 3)]
    for number in order:
        assert score(cameras[number]) == 0
        assert f"{cameras[number]}: results in {Path.cwd()}/" in capsys.readouterr().err
    tables = sorted(path.name for path in Path().glob("*.csv"))
    assert len(tables) == 3 and "45.10.scores.csv" in tables and sorted(map(rows, tables)) == [1, 2, 3]
    for number in (2, 1, 0):  # a second run replaces its own, whatever came in between
        video(cameras[number], 11 + number)
        assert score(str(Path(cameras[number]).absolute())) == 0
    assert sorted(path.name for path in Path().glob("*.csv")) == tables
    assert sorted(map(rows, tables)) == [11, 12, 13]


def test_the_folders_name_goes_in_front(score):
    for frames, camera in enumerate(("a/c.mp4", "b/c.mp4", "b/c.avi", "c.mp4"), start=1):
        assert score(video(camera, frames)) == 0
    home = Path.cwd().name
    assert rows("c.scores.csv") == 1 and rows("b-c.scores.csv") == 2 and rows(f"{home}-b-c.scores.csv") == 3
    assert rows(f"{home}-c.scores.csv") == 4


@pytest.mark.parametrize("name", ["45.10", "2024.01.05", "a.mp4", "clip"])
def test_a_folder_of_frames_keeps_its_whole_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("in", name).mkdir(parents=True)
    assert output_for(Path("in", name), None) == Path(f"{name}.scores.csv")


@pytest.mark.parametrize(
    "name, stem",
    [("45.10.mp4", "45.10"), ("45.10", "45.10"), ("a.H264", "a"), ("a.b.mkv", "a.b"), ("a.12-30", "a.12-30")],
)
def test_only_an_ending_is_cut(tmp_path, monkeypatch, name, stem):
    monkeypatch.chdir(tmp_path)
    assert output_for(Path(video(name, 1)), None) == Path(f"{stem}.scores.csv")


def test_a_given_table_of_another_video_is_refused(score, capsys):
    assert score(video("a/c.mp4", 1), "--output", "t.csv") == score(video("a/c.mp4", 2), "--output", "t.csv") == 0
    capsys.readouterr()
    assert score(video("b/c.mp4", 3), "--output", "t.csv") == 2 and rows("t.csv") == 2
    assert "t.csv: holds the results of another video; remove them, or give --output" in capsys.readouterr().err


def test_results_of_which_nobody_knows_the_video_are_kept(score):
    Path("c.scores.csv").write_text("frame,time_s,score,warmup\n0,0,0,False\n", encoding="utf-8")
    Path("d.scores").mkdir()
    Path("d.scores/events.csv").write_text("event,start_s,end_s,first_frame\n", encoding="utf-8")
    assert score(video("b/c.mp4", 3)) == score(video("b/d.mp4", 4)) == 0
    assert rows("c.scores.csv") == 1 and rows("b-c.scores.csv") == 3 and rows("b-d.scores.csv") == 4


def test_somebodys_files_are_in_the_way(score, capsys):
    Path("c.scores").mkdir()
    Path("c.scores/events.csv").write_text("frame,what\n1,a car\n", encoding="utf-8")
    Path("c.scores/overlay.mp4").write_bytes(b"mine")
    assert score(video("c.mp4", 1)) == 2 and "holds other files" in capsys.readouterr().err
    assert Path("c.scores/overlay.mp4").read_bytes() == b"mine" and not Path("c.scores.csv").exists()


def test_a_name_too_long_is_refused_before_hours_of_work(score, capsys):
    assert score(video("x" * 250 + ".mp4", 1)) == 2
    assert "a name longer than 255 bytes" in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_a_name_that_is_taken_meanwhile_is_left(score, monkeypatch, scored):
    def score_in_blocks(path, **_):
        Path("c.scores").mkdir()
        note_video(Path("c.scores"), Path("a/c.mp4"))
        table = scored(np.zeros(2))
        return table, lambda: [table]

    monkeypatch.setattr("zsad_lib.own_video.score_command.score_in_blocks", score_in_blocks)
    assert score(video("b/c.mp4", 2)) == 0
    assert not Path("c.scores.csv").exists() and rows("b-c.scores.csv") == 2


@pytest.mark.parametrize("name", ["detection.csv", "detection.md", "detection.tex"])
def test_evaluate_leaves_what_is_not_its_own(tmp_path, name):
    for part, text in (
        ("null \udcff", "score\n0.1\n0.2\n"),
        ("labels", "label\n0\n1\n"),
        ("other", "score\n0.3\n0.1\n"),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "v \udcff.csv").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ZsadError, match=rf"{name}: exists and is no table of this kit; give --out another folder"):
        evaluate_folders(tmp_path / "null \udcff", tmp_path / "labels", out, draws=2)
    assert (out / name).read_text(encoding="utf-8") == "mine"
    (out / name).unlink()
    for _ in range(2):
        evaluate_folders(tmp_path / "null \udcff", tmp_path / "labels", out, draws=2)
    with pytest.raises(ZsadError, match=r"detection\.csv: holds the evaluation of null .*; give --out another"):
        evaluate_folders(tmp_path / "other", tmp_path / "labels", out, draws=2)


def test_features_leave_what_is_not_theirs(tmp_path, monkeypatch, capsys):
    class Encoder:
        header, half = {"preprocessing": "none"}, False

    monkeypatch.setattr(clip_frames, "video_features", lambda *_: torch.ones(2, 4))
    first, second, out = Path(video(tmp_path / "a/c.mp4", 1)), Path(video(tmp_path / "b/c.mp4", 2)), tmp_path / "out"
    assert extract([first], out, Encoder) == extract([first], out, Encoder) == {"c": out / "c.safetensors"}
    with pytest.raises(ZsadError, match=rf"holds the features of {first}; give --out another folder"):
        extract([second], out, Encoder)
    video(first, 3)  # another recording in its place
    assert extract([first], out, Encoder) and extract([first], out, Encoder)
    first.rename(tmp_path / "moved.mp4")
    assert extract([second], out, Encoder)  # nothing is there that the old file would be of
    save_file({"mine": torch.ones(1)}, out / "d.safetensors")
    before = (out / "d.safetensors").read_bytes()
    with pytest.raises(ZsadError, match=r"d\.safetensors: exists and was not made by this kit"):
        extract([Path(video(tmp_path / "d.mp4", 1))], out, Encoder)
    assert (out / "d.safetensors").read_bytes() == before


def test_calibrations_of_two_cameras_keep_both(run_home):
    assert name_for("cameras/a/normal") == "calibrated-normal"
    for folder, name in (("cameras/a/normal", "calibrated-normal"), ("cameras/b/normal", "calibrated-b-normal")):
        assert name_for(folder) == name
        target = paths.runs() / name / "score" / "full" / "0" / "scorer.safetensors"
        save_weights(target, {"x": torch.ones(1)}, {"normal": [], "folder": str(Path(folder).resolve())})
        assert name_for(folder) == name
    assert name_for("cameras/a/normal") == "calibrated-normal"
