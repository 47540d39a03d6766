"""`make fresh` finds the Pythons of a machine, gives each its way of testing, and says which stage failed."""

import os
import sys
from pathlib import Path

import pytest

from zsad_lib.maintenance import fresh


def script(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_pythons_of_pyenv_and_of_the_path_count_once(tmp_path, monkeypatch):
    for version, own in (("3.10.1", True), ("3.11.7", True), ("3.12.0", False), ("3.15.0", True), ("3.14.2", True)):
        path = tmp_path / "pyenv/versions" / version / "bin/python3"
        script(path, f"echo {version} {own} {path}")
    tools = tmp_path / "tools"
    script(tools / "python3", f"echo 3.13.0 True {tools / 'python3'}")
    (tools / "python3.11").symlink_to(tmp_path / "pyenv/versions/3.11.7/bin/python3")
    script(tools / "python3.12", "exit 1")
    script(tmp_path / "shims/python3", "echo 3.11.0 True /shim")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "shims"), str(tools), os.environ["PATH"]]))
    found = [python for python in fresh.installed_pythons() if python.path.is_relative_to(tmp_path)]
    assert [python.version for python in found] == ["3.11.7", "3.13.0", "3.14.2"]


def test_ways_take_turns_and_an_ordinary_user_gets_a_python_of_his(monkeypatch, capsys):
    pythons = [fresh.Python(f"3.1{i}.0", Path(f"/p{i}")) for i in range(1, 4)]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fresh, "_starts", lambda python, person: python == pythons[1])
    names = [way.name for way in fresh.ways(pythons)]
    assert names == ["in file order", "as an ordinary user", "shuffled, umask 077, no home"]
    monkeypatch.setattr(fresh, "_starts", lambda python, person: False)
    assert [way.name for way in fresh.ways(pythons)][::2] == ["in file order"] * 2
    assert "as root alone" in capsys.readouterr().out


def test_a_stage_that_fails_names_its_log(tmp_path):
    assert fresh.stage("good", [sys.executable, "-c", "print(1)"], tmp_path, dict(os.environ)) >= 0
    with pytest.raises(fresh.Failed, match=r"bad ended with status 3: last words \(log: .*bad.log\)"):
        fresh.stage("bad", ["bash", "-c", "echo last words; exit 3"], tmp_path, dict(os.environ))


def test_a_python_that_is_not_there_is_one_line(capsys):
    assert fresh.main(["--pythons", "3.99"]) == 2
    assert capsys.readouterr().err == "error: no Python 3.99 on this machine\n"


def test_tests_run_as_make_test_runs_them():
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    assert fresh.TESTED in makefile
    assert all(f"{name}={value} " in makefile for name, value in fresh.AS_MAKE_TEST.items())
