"""python -m zsad_lib: its commands, one clear line on every failure."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zsad_lib.__main__ import COMMANDS, main, read
from zsad_lib.errors import ZsadError
from zsad_lib.files.video import write_video
from zsad_lib.own_video.words import NO_WORDS


@pytest.fixture
def score(monkeypatch, scored):
    """A scorer that needs no weights; returns what it was called with."""
    calls = []

    def score_in_blocks(path, run=None, *, words, sees, causal=False, fps=None, progress=False):
        calls.append((path, run, causal, words))
        if not path.exists():
            raise ZsadError(f"{path}: no such video file or frame folder")
        table = scored([0.2, 0.9])[["frame", "time_s", "score", "warmup"]]
        return table, lambda: [table]

    monkeypatch.setattr("zsad_lib.own_video.score_command.score_in_blocks", score_in_blocks)
    monkeypatch.setattr(
        "zsad_lib.own_video.pictures.write_all",
        lambda path, table, folder, play, progress, rows: {"events": folder / "events.csv"},
    )
    return calls


def test_score_writes_one_row_per_frame(score, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_text("", encoding="utf-8")
    assert main(["score", "a.mp4"]) == 0
    assert Path("a.scores.csv").read_text(encoding="utf-8") == (
        "frame,time_s,score,warmup\n0,0.0,0.2,False\n1,0.1,0.9,False\n"
    )
    first, events, second, third = capsys.readouterr().out.splitlines()
    assert events.startswith("no event: no score above ")
    assert first == "2 frames, highest score 0.900 at 0.1 s, written to a.scores.csv"
    assert (
        second.startswith("events.csv in a.scores; threshold of this video alone") and "rendered footage only" in third
    )
    assert main(["score", "a.mp4", "--run", "runs/demo", "--causal", "--output", "deep/b.csv"]) == 0
    assert score[1] == (Path("a.mp4"), "runs/demo", True, NO_WORDS) and Path("deep/b.csv").is_file()


def test_words_and_truth_reach_the_score(score, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.mp4", ""), ("said.txt", "# a comment\na man walks\n\na car drives\n"), ("empty.txt", "#\n")):
        Path(name).write_text(text, encoding="utf-8")
    Path("labels.csv").write_text("label\n0\n1\n", encoding="utf-8")
    words = ["--captions", "said.txt", "--scene", "in a corridor"]
    assert main(["score", "a.mp4", *words, "--truth", "labels.csv"]) == 0
    assert score[0][3] == NO_WORDS._replace(normal=["a man walks", "a car drives"], scene="in a corridor")
    assert Path("a.scores.csv").read_text(encoding="utf-8").splitlines()[-1] == "1,0.1,0.9,False,True"
    for name, message in (("empty.txt", "no sentence in it"), ("absent.txt", "no readable sentences (No such file")):
        capsys.readouterr()
        assert main(["score", "a.mp4", "--prompts", name]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {name}: {message}") and error.count("\n") == 1


def test_labels_that_do_not_fit_cost_no_scores(score, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").touch()
    Path("long.csv").write_text("label\n0\n1\n1\n", encoding="utf-8")
    assert main(["score", "a.mp4", "--truth", "typo.csv"]) == 2 and "typo.csv" in capsys.readouterr().err
    assert not score and not Path("a.scores.csv").exists()  # hours of scoring come after what can be known at once
    assert main(["score", "a.mp4", "--truth", "long.csv"]) == 2 and "[3] for 2 frames" in capsys.readouterr().err
    assert Path("a.scores.csv").read_text(encoding="utf-8").startswith("frame,")


@pytest.mark.parametrize(
    "output, message",
    [
        ("a.mp4", "give a file that ends in .csv or .parquet, as a.csv"),
        ("b.MKV", "give a file that ends in .csv or .parquet, as b.csv"),
        ("scores", "as scores.csv"),
        ("mine.csv", "mine.csv: exists and is no score table"),
        ("folder.csv", "folder.csv: "),
        ("cam.csv", "cam: the pictures need a folder of this name, and it is a file"),
        ("frames.csv", "frames: the pictures would go to the video itself"),
        ("other.csv", "other: the pictures need this folder, and it holds other files"),
        ("mine.csv/a.csv", "cannot write into"),
    ],
)
def test_nothing_of_the_users_is_overwritten(score, tmp_path, monkeypatch, capsys, output, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "mine.csv", "cam", "frames/0.png", "other/overlay.mp4", "folder.csv/x"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    video = "frames" if output == "frames.csv" else "a.mp4"
    assert main(["score", video, "--output", output]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not score and sorted(tmp_path.rglob("*")) == before and Path("a.mp4").read_text(encoding="utf-8") == "mine"


def test_ones_own_table_and_pictures_are_written_again(score, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").touch()
    Path("a.scores").mkdir()
    Path("a.scores/events.csv").touch()
    assert main(["score", "a.mp4"]) == main(["score", "a.mp4"]) == 0
    assert (
        main(["score", "a.scores/overlay.mp4", "--output", "a.scores.csv"]) == 2
    )  # the film would be read and written
    assert len(score) == 2


def test_an_address_is_sent_to_live(score, capsys):
    assert main(["score", "http://camera/x.mp4"]) == 2 and "make live SOURCE=" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    assert "./-name" in capsys.readouterr().out
    assert main(["score", "--", "-d.mp4"]) == 2 and "error: -d.mp4: no such video" in capsys.readouterr().err


def test_failures_are_one_line_and_write_nothing(score, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert main(["score", str(tmp_path / "absent.mp4"), "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {tmp_path}/absent.mp4: no such video file or frame folder\n" and captured.out == ""
    (tmp_path / "file").write_text("")
    assert main(["score", str(tmp_path / "file"), "--output", str(tmp_path / "file" / "out.csv")]) == 2
    assert "cannot write" in capsys.readouterr().err and not output.exists()
    with pytest.raises(SystemExit) as stop:
        main(["scor"])
    assert stop.value.code == 2


def test_evaluate_hands_over_its_folders(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("zsad_lib.results.evaluate_folders.evaluate_folders", lambda **given: calls.append(given))
    assert main(["evaluate", "s", "l", "--out", "o", "--fps", "25"]) == 0
    assert calls == [dict(scores=Path("s"), labels=Path("l"), out=Path("o"), normal=None, fps=25.0)]


def test_evaluate_names_a_missing_folder(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor_interrupt_and_closed_pipe(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("zsad_lib.maintenance.doctor.main", lambda: 1)
    assert main(["doctor"]) == 1
    monkeypatch.setattr("zsad_lib.maintenance.doctor.main", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_features_of_a_folder_resume_and_report(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_video(tmp_path / "clips" / f"{name}.mp4", rng.integers(0, 255, (6, 32, 48, 3), np.uint8), 10)
    command = ["features", str(tmp_path / "clips"), "--jobs", "1"]
    assert main(command) == 0
    out = tmp_path / "clips-features"
    assert "2 of 2 videos: features in" in capsys.readouterr().out
    first = (out / "a.safetensors").stat().st_mtime_ns
    (tmp_path / "clips" / "c.mp4").write_bytes(b"no video")
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "skipped: " in told and "error: 1 of 3 videos cannot be read" in told and "ALLOW_MISSING=1" in told
    assert main([*command, "--allow-missing"]) == 0 and (out / "a.safetensors").stat().st_mtime_ns == first
    assert main([*command, "--shard", "2"]) == 2 and "give i/n" in capsys.readouterr().err


EVERY = {name: command for commands in COMMANDS.values() for name, command in commands.items()}


@pytest.mark.parametrize("name", EVERY)
def test_a_command_is_a_function_that_takes_its_options(name):
    command = EVERY[name]
    words = [option for option in command.options.split() if not option.startswith("-")]
    options = read(name, command, [word for word in words if word not in ("settings", "steps", "notebooks")])
    if "settings" in options:
        del options["settings"]  # they have become part of the profile
    function = command.function
    if isinstance(function, str):
        module, _, attribute = function.partition(":")
        function = getattr(importlib.import_module(module), attribute)
    inspect.signature(function).bind(**options)


def test_pretrain_without_three_concepts_and_with_another_seed(monkeypatch, capsys):
    from zsad_lib.methods import pretraining

    bound = inspect.signature(pretraining.run).bind
    monkeypatch.setattr(pretraining, "run", lambda **given: bound(**given) and {"clip": given["folder"].name})
    assert main(["pretrain", "--held-out"]) == 0 and capsys.readouterr().out == "held_out\n"
    assert main(["pretrain", "--seed", "3"]) == 0 and capsys.readouterr().out == "seed3\n"


def test_the_makefile_and_the_list_know_the_same_commands(capsys):
    text = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\(ZSAD\) ([\w-]+)", text)) == set(EVERY) - {"notebook-map"}
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    listed = re.findall(r"^  ([a-z-]+)  ", capsys.readouterr().out, re.MULTILINE)
    assert stop.value.code == 0 and listed == [*EVERY]


def test_a_word_that_is_no_setting_is_one_line(run_home, capsys):
    assert main(["report", "smoke"]) == 2
    assert capsys.readouterr().err == "error: 'smoke': only KEY=VALUE can follow\n"


def test_the_path_that_a_command_once_had_says_where_it_is():
    done = subprocess.run(
        [sys.executable, "-m", "zsad_lib.pipeline", "status"], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode and "is now zsad_lib.__main__" in done.stderr and done.stderr.count("\n") == 1
