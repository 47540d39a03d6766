"""Where memory is short, a command works or ends in one line, whatever it was loading."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from zsad_lib import ram
from zsad_lib.errors import ZsadError
from zsad_lib.files.video import write_video

COMMANDS = [
    "status --profile smoke", "score videos/a.mp4 --no-overlay", "features videos --jobs 1",
    "calibrate videos", "live videos/a.mp4 --seconds 1", "evaluate scores labels", "step --profile smoke features",
    "report --profile smoke", "ablate --profile smoke --grid gate", "floors --profile ucf_crime", "cost", "bench",
    "weights --profile ucf_crime --check", "run --profile smoke", "doctor",
]  # fmt: skip
LIMITS = [150_000, 400_000, 1_100_000, 3_000_000, 4_200_000]  # KB
QUICK = {(3_000_000, COMMANDS[1]), (400_000, COMMANDS[5])}
CASES = [
    pytest.param(limit, command, marks=[] if (limit, command) in QUICK else pytest.mark.thorough)
    for limit in LIMITS
    for command in COMMANDS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limited")
    for name in ("a", "b"):
        write_video(folder / "videos" / f"{name}.mp4", np.zeros((20, 32, 32, 3), np.uint8), fps=10)
    for name in ("scores", "labels"):
        (folder / name).mkdir()
        (folder / name / "a.csv").write_text(name[:-1] + "\n" + "\n".join("0011") + "\n")
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not hold a process to this limit")
@pytest.mark.parametrize("limit, command", CASES)
def test_every_command_under_a_limit(folder, monkeypatch, limit, command):
    monkeypatch.setenv("ZSAD_HOME", str(folder))
    for name in ("OPENBLAS_NUM_THREADS", "PYTHONWARNDEFAULTENCODING"):  # torch would warn of its own lines
        monkeypatch.delenv(name, raising=False)
    ended = subprocess.run(
        [sys.executable, "-m", "zsad_lib", *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit << 10, limit << 10)),
    )
    assert ended.returncode in (0, 1, 2) and "Traceback" not in ended.stderr
    if ended.returncode == 2:
        *before, last = ended.stderr.splitlines()  # of work that was still possible, or of a library that gave up
        assert last.startswith("error: ") and not any(line.startswith("error: ") for line in before), ended.stderr
    if limit < 1_000_000:
        assert "memory is short: `ulimit -v` allows this process 0." in ended.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ValueError("A worker process managed by the executor was unexpectedly terminated. This could be caused by\nx"),
    ],
)
def test_signs_of_short_memory(error):
    with pytest.raises(ZsadError, match=r"memory is short \(.*\): close other programs, or lower JOBS$"):
        with ram.told():
            raise error
    with pytest.raises(ZsadError, match="memory is short"):  # also where it was taken for a damaged file
        with ram.told():
            try:
                raise error
            except Exception as cause:
                raise ZsadError("a.mp4: no readable video") from cause


def test_all_else_passes(monkeypatch):
    for error in (KeyError("a"), ImportError("no module named x"), ZsadError("out of memory.mp4: no such file")):
        with pytest.raises(type(error)) as caught:
            with ram.told():
                raise error
        assert caught.value is error
    monkeypatch.setattr(ram, "limited", lambda: 3.0)
    with pytest.raises(ZsadError, match=r"memory is short \(AttributeError: half loaded\): .* 3.0 GB; allow 6"):
        with ram.told():
            raise AttributeError("half loaded")
    with pytest.raises(ZsadError, match="^a.mp4: no video$"):
        with ram.told():
            raise ZsadError("a.mp4: no video")
