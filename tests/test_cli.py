"""python -m zsad_lib: three commands, one clear line on every failure."""

from pathlib import Path

import pandas as pd
import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError


@pytest.fixture
def score(monkeypatch):
    """A scorer that needs no weights; returns what it was called with."""
    calls = []

    def score_video(path, run=None, *, causal=False):
        calls.append((path, run, causal))
        if not path.exists():
            raise ZsadError(f"{path}: no such video file or frame folder")
        return pd.DataFrame({"frame": [0, 1], "time_s": [0.0, 0.1], "score": [0.2, 0.9]})

    monkeypatch.setattr("zsad_lib.own_video.score_video", score_video)
    return calls


def test_score_writes_one_row_per_frame(score, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_text("")
    assert main(["score", "a.mp4"]) == 0
    assert Path("a.scores.csv").read_text() == "frame,time_s,score\n0,0.0,0.2\n1,0.1,0.9\n"
    assert capsys.readouterr().out == "2 frames, highest score 0.900 at 0.1 s, written to a.scores.csv\n"
    assert main(["score", "a.mp4", "--run", "runs/demo", "--causal", "--output", "deep/b.csv"]) == 0
    assert score[1] == (Path("a.mp4"), "runs/demo", True) and Path("deep/b.csv").is_file()


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
    monkeypatch.setattr("zsad_lib.evaluate.evaluate_folders", lambda *folders, **rest: calls.append((*folders, rest)))
    assert main(["evaluate", "s", "l", "--out", "o", "--fps", "25"]) == 0
    assert calls == [(Path("s"), Path("l"), Path("o"), {"normal": None, "fps": 25.0})]


def test_evaluate_names_a_missing_folder(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor_interrupt_and_closed_pipe(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("zsad_lib.doctor.main", lambda: 1)
    assert main(["doctor"]) == 1
    monkeypatch.setattr("zsad_lib.doctor.main", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
