"""Set-up of a toy kit from a folder of toy wheels: exactly what the lock holds, by uv or by pip, and one line where
that fails."""

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from test_makefile import make

from zsad_lib.maintenance import set_up

ROOT = Path(__file__).resolve().parents[1]
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/kit-0.1-py3-none-any.whl", "w") as file:
        file.writestr("kit-0.1.dist-info/METADATA",
                      "Metadata-Version: 2.1\\nName: kit\\nVersion: 0.1\\nRequires-Dist: absent\\n")
        file.writestr("kit-0.1.dist-info/WHEEL",
                      "Wheel-Version: 1.0\\nGenerator: toy\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr("kit-0.1.dist-info/RECORD", "")
    return "kit-0.1-py3-none-any.whl"
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
UV = """#!/bin/sh
echo "$@" >> "$UV_LOG"
[ -n "$UV_HANGS" ] && sleep 60
[ -n "$UV_FAILS" ] && echo 'error: Failed to fetch: `http://127.0.0.1/simple/toy/`' && exit 1
for lock; do :; done
exec "$(dirname "$0")/python" -m pip install -q --no-deps --require-hashes -r "$lock"
"""


def wheel(folder: Path, name: str, version: str, script: str = "") -> str:
    """Writes a wheel that requires what nobody has; returns its pin with hash."""
    info, files = f"{name}-{version}.dist-info", {f"{name}/__init__.py": f"version = {version!r}\n"}
    if script:
        files[f"{name}-{version}.data/scripts/{name}"] = script
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: absent>=1\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={_short(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for member, text in files.items():
            entry = zipfile.ZipInfo(member)
            entry.external_attr = 0o100755 << 16
            file.writestr(entry, text)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _short(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A clone, in a folder with a blank and an umlaut, whose lock pins uv and a toy; newer versions lie beside them."""
    kit, wheels = tmp_path / "my kït", tmp_path / "wheels"
    wheels.mkdir()
    (kit / "zsad_lib" / "maintenance").mkdir(parents=True)
    for name in ("Makefile", "zsad_lib/maintenance/set_up.py"):
        shutil.copy(ROOT / name, kit / name)
    (kit / "backend.py").write_text(BACKEND, encoding="utf-8")
    (kit / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    pins = wheel(wheels, "toy", "1.0") + wheel(wheels, "uv", "1.0", UV)
    (kit / "requirements.lock").write_text(pins, encoding="utf-8")
    wheel(wheels, "toy", "2.0")
    return kit


def settings(kit: Path, **more: str) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_", "UV_"))
    }
    links = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (kit.parent / "wheels").as_uri(), "PIP_CONFIG_FILE": os.devnull}
    return {**clean, **links, "UV_LOG": str(kit.parent / "uv.log"), **more}


def env(kit: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    command = ["make", "env", *arguments]
    return subprocess.run(
        command, cwd=kit, env=settings(kit, **more), capture_output=True, encoding="utf-8", check=False
    )


def installed(kit: Path) -> str:
    code = "import importlib.metadata as m; print(*sorted(d.name + d.version for d in m.distributions()))"
    words = subprocess.check_output([kit / ".venv/bin/python", "-c", code], text=True, cwd=kit.parent).split()
    return " ".join(word for word in words if not word.startswith(("pip", "setuptools")))


def test_uv_installs_what_the_lock_holds_once(kit):
    done = env(kit, PIP_USER="1", PYTHONPATH=str(kit))  # a user's own habits do not reach it
    assert done.returncode == 0 and "set-up: done" in done.stdout, done.stderr
    assert done.stdout.splitlines()[0].endswith(set_up.tell_size())  # before anything is fetched
    assert installed(kit) == "kit0.1 toy1.0 uv1.0"
    log = (kit.parent / "uv.log").read_text(encoding="utf-8").splitlines()
    assert len(log) == 1 and "pip sync --require-hashes --only-binary :all:" in log[0]
    again = env(kit)
    assert again.returncode == 0 and "set-up" not in again.stdout
    assert (kit.parent / "uv.log").read_text(encoding="utf-8").count("\n") == 1
    (kit / ".venv/bin/python").unlink()  # the Python that made it was removed
    assert "set-up: done" in env(kit, "INSTALLER=pip").stdout and installed(kit) == "kit0.1 toy1.0 uv1.0"
    assert (kit.parent / "uv.log").read_text(encoding="utf-8").count("\n") == 1


def test_where_uv_is_not_in_the_lock_pip_installs_it(kit):
    next((kit.parent / "wheels").glob("uv-*")).unlink()
    lock = (kit / "requirements.lock").read_text(encoding="utf-8")
    (kit / "requirements.lock").write_text(lock[: lock.index("uv==")], encoding="utf-8")
    done = env(kit)
    assert done.returncode == 0 and "; pip does it, slower\n" in done.stdout, done.stdout + done.stderr
    assert installed(kit) == "kit0.1 toy1.0"


def test_what_is_missing_is_one_line_and_the_next_try_is_clean(kit):
    """uv fails each time; then pip meets no network, another file under the same name, and none; last it finds all."""
    path = next((kit.parent / "wheels").glob("toy-1*"))
    kept = path.read_bytes()
    path.unlink()
    offline = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    no_index = "toy==1.0: no connection to the package index; connect, or name a mirror in PIP_INDEX_URL"
    for lack, more in ((no_index, offline), ("toy==1.0: no such file for Python 3", {}), ("what the index or the", {})):
        if lack.startswith("what"):
            wheel(path.parent, "toy", "1.0", script="#!/bin/sh\n")
        done = env(kit, UV_FAILS="1", **more)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
        assert done.returncode != 0 and len(lines) == 1 and lines[0].startswith(f"error: set-up: {lack}"), done.stderr
        assert not (kit / ".venv/.ready").exists() and (kit / ".venv/set-up.log").is_file()
    path.write_bytes(kept)
    done = env(kit, UV_FAILS="1")
    assert done.returncode == 0 and "; pip does it, slower\n" in done.stdout, done.stdout + done.stderr
    assert installed(kit) == "kit0.1 toy1.0 uv1.0"


def test_an_interrupted_set_up_starts_again(kit):
    for name in ("SIGINT", "SIGKILL"):
        process = subprocess.Popen(["make", "env"], cwd=kit, env=settings(kit, UV_HANGS="1"), start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        deadline = time.monotonic() + 60
        while not (kit.parent / "uv.log").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, getattr(signal, name))
        said = process.communicate()[1].decode()
        assert process.returncode != 0 and not (kit / ".venv/.ready").exists()
        assert name == "SIGKILL" or "set-up: interrupted; the same command starts it again" in said
        (kit.parent / "uv.log").unlink()
    assert env(kit).returncode == 0 and installed(kit) == "kit0.1 toy1.0 uv1.0"


def test_what_it_takes_is_told_alike_everywhere():
    told = [f"{gb} GB" for gb in set_up.SIZES["gpu"]]
    assert all(words in set_up.tell_size() for words in told) and set_up.SIZES["cpu"] < set_up.SIZES["gpu"]
    for page in ("README.md", "docs/use.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert f"most {told[0]} to download" in text and f"{told[1]} on disk" in text, page


def gpu_pins(kit: Path, wheels: Path) -> None:
    """The toy kit's lock, with torch and what it loads on a GPU."""
    pins = [wheel(wheels, name, "1.0") for name in ("torch", "torchvision", "triton", "nvidia_toy")]
    lock = kit / "requirements.lock"
    lock.write_text("".join(pins).replace("nvidia_toy", "nvidia-toy") + lock.read_text(encoding="utf-8"), "utf-8")


def test_an_environment_for_cpus_stays_one_until_it_is_asked_for_otherwise(kit):
    wheels = kit.parent / "wheels"
    gpu_pins(kit, wheels)
    wheel(wheels, "torch", "1.0+cpu")
    absent = env(kit, "CPU=1", "INSTALLER=pip")
    lines = [line for line in absent.stderr.splitlines() if not line.startswith("make: ***")]
    assert absent.returncode != 0 and len(lines) == 1 and "PIP_EXTRA_INDEX_URL" in lines[0], absent.stderr
    assert lines[0].startswith("error: set-up: torchvision==1.0+cpu: no index here has this build for CPUs")
    assert "toy" not in installed(kit)  # nothing was fetched in vain
    wheel(wheels, "torchvision", "1.0+cpu")
    cpu = "kit0.1 torch1.0+cpu torchvision1.0+cpu toy1.0 uv1.0"
    done = env(kit, "CPU=1")
    assert done.returncode == 0 and installed(kit) == cpu, done.stdout + done.stderr
    assert "GPU libraries left out" in done.stdout.splitlines()[0]
    for arguments in ([], ["CPU=1"], ["CPU=x86_64"]):  # a system may have set CPU to something of its own
        assert "set-up" not in env(kit, *arguments).stdout
    back = make("-n", "env", "CPU=0", cwd=kit).stdout
    assert "set_up.py" in back and "--cpu" not in back
    lock = kit / "requirements.lock"
    lock.write_text(lock.read_text(encoding="utf-8") + "# another lock\n", "utf-8")
    assert "--cpu" in make("-n", "env", cwd=kit).stdout


def test_every_library_for_gpus_in_the_real_lock_is_left_out():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    kept, builds = set_up.choose_cpu_builds(lock)
    assert [build.partition("==")[0] for build in builds] == list(set_up.CPU_BUILDS)
    assert not re.search(r"(?im)^(nvidia|cuda|triton|torch)", kept) and "sys_platform == 'linux' \\" not in kept
    assert set(kept.splitlines()) < set(lock.splitlines()) and "uv==" in kept and "numpy==" in kept


def test_a_python_without_ensurepip_is_one_line(tmp_path, monkeypatch, capsys):
    def no_ensurepip(*command, **settings):
        raise set_up.Failed("The virtual environment was not created successfully because ensurepip is not available.")

    monkeypatch.setattr(set_up, "run", no_ensurepip)
    assert set_up.main(["--folder", str(tmp_path / "env")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "apt install python3-venv" in error and not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Failed to download `torch==2.14.1`\n  No space left on device",
         f"torch==2.14.1: the disk is full; it takes {set_up.SIZES['gpu'][1]} GB"),
        ("error: Failed to fetch: `x`\n cause: /simple/timm/\n dns error", "x: no connection to the package index"),
        ("odd\n\n  the last word \n", "the last word"),
        ("", "no word why"),
    ],
)  # fmt: skip
def test_reasons(log, line):
    assert set_up.explain_log(log).startswith(line)
