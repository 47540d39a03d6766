"""Every step of smoke is killed once, at a moment that nobody chose, and ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from zsad_lib.config import get_profile
from zsad_lib.files.paths import PARTIAL, read_json
from zsad_lib.files.unfinished import remove
from zsad_lib.pipeline.run_step import steps_of

SIZES = "TRAIN_CLIPS=3 NORMAL_CLIPS=2 FAMILY_CLIPS=2 WEAK_CLIPS=2 WEAK_EPOCHS=2 TRAIN_STEPS=60 JOBS=2"
PROFILE = ["--profile", "smoke", *SIZES.split()]
# What tells when and where something ran, and films: two encodes of the same pictures may differ.
MAY_DIFFER = ("result.json", ".hashes.json", ".lock", "films/*.mp4", "films/*.jpg")
UNDER_WAY = ("started.json", "checkpoint.pt")


def start(step: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "zsad_lib", "step", "--child", *PROFILE, step]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill(step: str, seconds: float) -> bool:
    """Starts a step and kills it after so many seconds; whether it was still running then."""
    process = start(step)
    while not process.stdout.readline().startswith(f"{step}: running"):
        assert process.poll() is None, step
    time.sleep(seconds)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def files(home: Path) -> dict[str, Path]:
    """Whole files by their path in `home`, without those that may differ."""
    found = {str(path.relative_to(home)): path for path in sorted(home.rglob("*")) if path.is_file()}
    return {
        name: path
        for name, path in found.items()
        if PARTIAL not in name and not any(path.match(pattern) for pattern in MAY_DIFFER)
    }


def content(path: Path) -> object:
    """Bytes; of frames' features the tensors, since their header holds the time at which their video was written."""
    if path.parent.name != "frame_features" or path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}


@pytest.mark.thorough
def test_every_step_is_killed_once_and_ends_the_same(tmp_path, monkeypatch):
    home, undisturbed = tmp_path / "home", tmp_path / "undisturbed"
    monkeypatch.setenv("ZSAD_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    steps = steps_of(get_profile("smoke"))
    for step in steps:
        out, _ = (process := start(step)).communicate()
        assert process.returncode == 0, out
    os.rename(home, undisturbed)
    expected, draw = files(undisturbed), random.Random(16)
    for step in steps:
        result = home / "runs" / "smoke" / step / "result.json"
        after = draw.uniform(0.05, 0.8) * read_json(undisturbed / result.relative_to(home))["seconds"]
        while not kill(step, after):  # it was faster than the first time
            after /= 3
            remove(home / "runs" / "smoke" / step)
        assert not result.exists()
        time.sleep(1)  # its worker processes see that it is gone
        for name, path in files(home).items():  # nothing is half-written under the name of a whole file
            assert path.name in UNDER_WAY or content(path) == content(expected[name]), f"{step}: {name}"
        out, _ = (process := start(step)).communicate()
        assert process.returncode == 0 and f"{step}: done" in out, out
        assert not list(home.rglob(f"{PARTIAL}*"))
    made = files(home)
    assert made.keys() == expected.keys()
    assert [name for name in made if content(made[name]) != content(expected[name])] == []
    told = subprocess.check_output([sys.executable, "-m", "zsad_lib", "status", *PROFILE], text=True)
    assert told.splitlines() == [f"{step}: up to date" for step in steps]
    remove(home)
    remove(undisturbed)


@pytest.mark.thorough
def test_steps_side_by_side_end_like_one_after_the_other_whatever_interrupts_them(tmp_path, monkeypatch):
    """Two at a time, with Ctrl-C, killed, and at last left alone: the files are those of a run with one job."""
    home, undisturbed = tmp_path / "home", tmp_path / "undisturbed"
    monkeypatch.setenv("ZSAD_HOME", str(home))
    monkeypatch.delenv("MAKELEVEL", raising=False)

    def begin(jobs: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "zsad_lib", "run", *PROFILE, f"JOBS={jobs}"]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen(command, start_new_session=True, **pipes)

    out, _ = (process := begin(1)).communicate()
    assert process.returncode == 0, out
    os.rename(home, undisturbed)
    for sign, code, step in ((signal.SIGINT, 130, "features"), (signal.SIGKILL, -signal.SIGKILL, "train")):
        process = begin(2)
        while not (line := process.stdout.readline()).startswith(f"{step}: running"):
            assert line, step
        time.sleep(3)
        os.killpg(process.pid, sign) if sign == signal.SIGINT else process.kill()  # Ctrl-C reaches all of them
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in out, out
    out, _ = (process := begin(2)).communicate()
    assert process.returncode == 0 and "data: running" not in out, out
    assert not list(home.rglob(f"{PARTIAL}*"))
    expected, made = files(undisturbed), files(home)
    assert made.keys() == expected.keys()
    assert [name for name in made if content(made[name]) != content(expected[name])] == []
