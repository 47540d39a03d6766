"""Pieces of a run start when what they need is there, in so many places, and end together when one fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.pipeline import run_notebooks, run_step
from zsad_lib.pipeline.side_by_side import Piece, run_pieces

REPOSITORY = Path(run_step.__file__).parents[2]
ASLEEP = """
import os, sys, time
from zsad_lib.pipeline.side_by_side import Piece, run_pieces
def sleep(name):
    open(name, "w", encoding="utf-8").write(str(os.getpid()))
    time.sleep(60)
if __name__ == "__main__":
    from zsad_lib.errors import run_command
    pieces = [Piece(name, (), sleep, (name,)) for name in ("one", "two")]
    sys.exit(run_command(lambda: list(run_pieces(pieces, 2)) and 0, "interrupted"))
"""


def work(name: str, seconds: float = 0.3) -> tuple[float, float, int]:
    began = time.monotonic()
    time.sleep(seconds)
    if name == "fails":
        raise ZsadError("a.mp4: the file is empty")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return began, time.monotonic(), os.getpid()


def piece(name: str, *needs: str, seconds: float = 0.3) -> Piece:
    return Piece(name, needs, work, (name, seconds))


def test_pieces_wait_for_what_they_need_and_for_a_place():
    long, short = [piece(name, *need, seconds=0.8) for name, need in (("a", ()), ("b", ("a",)))], piece("1", "absent")
    spans = {one.name: span for one, span in run_pieces([*long, short, piece("2", "1"), piece("3", "1")], 2)}
    assert spans["b"][0] >= spans["a"][1] and spans["2"][0] >= spans["1"][1]
    assert spans["1"][0] < spans["a"][1] and spans["2"][0] < spans["b"][1], "those without need ran beside"
    assert len({process for *_, process in spans.values()}) == 2
    for began, *_ in spans.values():
        assert sum(start <= began < end for start, end, _ in spans.values()) <= 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fails", "^a.mp4: the file is empty$"),
        ("dies", "^(dies or long|long or dies): a process was ended; .*memory ran out"),
    ],
)
def test_one_that_fails_ends_the_others(name, line):
    start = time.monotonic()
    with pytest.raises(ZsadError, match=line):
        list(run_pieces([piece("long", seconds=60), piece(name), piece("never", name)], 2))
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_all_end_with_who_asked_for_them(sign, tmp_path, process_ended):
    (tmp_path / "driver.py").write_text(ASLEEP)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "driver.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline, notes = time.monotonic() + 30, [tmp_path / "one", tmp_path / "two"]
    while not all(note.exists() and note.read_text() for note in notes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, sign) if sign == signal.SIGINT else process.kill()  # Ctrl-C reaches all of them
    _, words = process.communicate(timeout=20)
    assert process.returncode == (130 if sign == signal.SIGINT else -9)
    assert sign == signal.SIGKILL or words == "interrupted\n"
    assert all(process_ended(int(note.read_text())) for note in notes)


def test_a_run_is_its_steps_and_its_notebooks(run_home, monkeypatch, capsys):
    book = run_home / "07_look.ipynb"
    book.write_text('{"cells": [{"cell_type": "code", "source": "run.need(\'score\'); run.need(\'frame_features\')"}]}')
    asked = []

    def record(pieces, places):
        asked.extend(pieces)
        assert places in (2, 8)
        return ((one, 1.5) for one in pieces)

    monkeypatch.setattr(run_notebooks, "run_pieces", record)
    monkeypatch.setattr(run_step, "import_function", lambda name: lambda folder: None)
    profile = get_profile("smoke", jobs=2)
    run_notebooks.execute([book], profile, ["tables"])
    needs = {one.name: one.needs for one in asked}
    assert needs == {
        **{step: run_step.declared(step, profile)[1] for step in run_step.steps_of(profile)[:10]},
        "[1/1] 07_look": ("score", "frame_features"),
    }
    assert [one.name for one in asked][-2:] == ["tables", "[1/1] 07_look"]
    assert capsys.readouterr().out == "[1/1] 07_look: done in 1.5 s\n"
    asked.clear()
    run_notebooks.execute([book], profile)
    assert {one.name for one in asked} == needs.keys() - {"weak_train", "weak_score", "evaluate", "tables"}
    for one_by_one in (get_profile("ucf_crime", jobs=2), get_profile("smoke", jobs=8)):
        asked.clear()
        run_notebooks.execute([book], one_by_one, ["tables"])
        for at, one in enumerate(asked):
            assert set(one.needs) >= {before.name for before in asked[:at]}
