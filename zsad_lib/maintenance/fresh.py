"""``make fresh``: tries the committed kit as a newcomer would, in a fresh clone for each Python of this machine.

Each clone lies in a folder with a blank and an umlaut in its name, without ``../shared``. There set-up runs by uv and
by pip, the smoke profile twice, and the tests: in file order; or shuffled, with a umask of 077 and a home that is no
folder; or, for root, as an ordinary user. Last, the built wheel scores a clip from another folder, in an environment
without Jupyter.

Runs on the machine's own Python, before anything is installed: standard library alone.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = """
import importlib.metadata, json
print(json.dumps({d.name.lower(): d.version for d in importlib.metadata.distributions()}))
"""
TESTED = "--doctest-modules tests zsad_lib data_prep"  # both as in the Makefile's `make test`
AS_MAKE_TEST = {"OMP_NUM_THREADS": "1", "PYTHONWARNDEFAULTENCODING": "1"}
CLIP = """
import numpy as np, zsad_lib as z
frames = np.full((60, 96, 128, 3), 90, np.uint8)
for i, frame in enumerate(frames):
    frame[40:60, i : i + 12] = 220
z.write_video("clip.mp4", frames, fps=10)
"""


class Python(NamedTuple):
    """An interpreter of this machine."""

    version: str  # "3.11.7"
    path: Path


class Way(NamedTuple):
    """How the tests run: what is odd about it, options of pytest, settings of the process that runs them."""

    name: str
    options: str = ""
    environment: dict = {}
    process: dict = {}


class Failed(Exception):
    """A stage that did not pass; its text is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per Python and one for the wheel; 1 where one of them failed, whose folder with its logs is
    kept."""
    parser = argparse.ArgumentParser(prog="fresh.py", description=main.__doc__)
    parser.add_argument("--cold", action="store_true", help="with empty caches of pip and uv")
    parser.add_argument("--pythons", default="", help="as '3.11 3.13': these alone")
    parser.add_argument(
        "--tests", choices=("quick", "all", "none"), default="quick", help="quick: those not marked slow"
    )
    options = parser.parse_args(arguments)
    wanted = options.pythons.split()
    pythons = [p for p in installed_pythons() if not wanted or any(f"{p.version}.".startswith(f"{w}.") for w in wanted)]
    if not pythons:
        print(f"error: no Python {options.pythons or '3.11 to 3.14'} on this machine", file=sys.stderr)
        return 2
    if _git("status", "--porcelain"):
        print("fresh: what is not committed is not tried", flush=True)
    base, status = Path(tempfile.mkdtemp(prefix="zsad-fresh-")), 0
    base.chmod(0o755)
    caches = {f"{name}_CACHE_DIR": str(base / name.lower()) for name in ("PIP", "UV")} if options.cold else {}
    print(
        f"fresh: {_git('log', '-1', '--format=%h %s')}; {'empty' if caches else 'warm'} caches; in {base}", flush=True
    )
    for python, way in zip(pythons, ways(pythons)):
        folder = base / "frisch geklönt" / python.version
        try:
            print(
                f"{python.version:<8} {' · '.join(trial(python, way, folder, options.tests, caches))} · ok", flush=True
            )
            if python == pythons[0]:
                print(f"{'wheel':<8} {wheel(python, folder, caches)} · ok", flush=True)
            shutil.rmtree(folder)
        except Failed as error:
            status = 1
            print(f"{python.version:<8} FAILED: {error}", flush=True)
    if not status:
        shutil.rmtree(base, ignore_errors=True)
    return status


def installed_pythons() -> list[Python]:
    """Every Python 3.11 to 3.14 here, pyenv's too, oldest first; an interpreter under several names counts once."""
    homes = {Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser(), Path("~/.pyenv").expanduser()}
    homes = [home for home in sorted(homes) if os.access(home, os.R_OK)]
    paths = [path for home in homes for path in sorted(home.glob("versions/3.*/bin/python3"))]
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        paths += [Path(folder, name) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pythons = {}
    for path in paths:
        code = (
            "import ensurepip, sys; print('%d.%d.%d' % sys.version_info[:3], sys.prefix == sys.base_prefix,"
            " sys.executable)"
        )
        if shutil.which(path.name, path=str(path.parent)) and "shims" not in path.parts:
            done = subprocess.run([path, "-I", "-c", code], capture_output=True, encoding="utf-8", check=False)
            version, of_system, executable = (done.stdout.strip().split(" ", 2) + [""] * 3)[:3]
            if of_system == "True" and (3, 11) <= tuple(map(int, version.split(".")[:2])) <= (3, 14):
                pythons.setdefault(Path(executable).resolve(), Python(version, Path(executable)))
    return sorted(pythons.values(), key=lambda python: [int(part) for part in python.version.split(".")])


def ways(pythons: Sequence[Python]) -> Iterator[Way]:
    """A way for each Python in turn; that of an ordinary user goes to one which such a user may start."""
    shuffled = "-p random_order --random-order-bucket=module --random-order-seed=1"
    odd = Way("shuffled, umask 077, no home", shuffled, {"HOME": "/dev/null/home"}, {"umask": 0o077})
    ordinary = None
    if os.name == "posix" and os.geteuid() == 0:
        person = {"user": 65534, "group": 65534, "extra_groups": []}
        ordinary = next((python for python in reversed(pythons) if _starts(python, person)), None)
        if ordinary is None:
            print("fresh: no Python here that an ordinary user may start; the tests run as root alone", flush=True)
    turns = itertools.cycle([Way("in file order"), odd])
    for python in pythons:
        yield Way("as an ordinary user", process=person) if python == ordinary else next(turns)


def trial(python: Python, way: Way, folder: Path, tests: str, caches: dict[str, str]) -> Iterator[str]:
    """Clones into `folder`, sets up in both ways, reproduces smoke twice, tests; yields what each stage took."""
    folder.mkdir(parents=True)
    tools, project = folder / "bin", folder / "project"
    tools.mkdir()
    (tools / "python3").symlink_to(python.path)
    environment = clean_environment() | caches | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    stage("clone", ["git", "clone", "-q", str(ROOT), str(project)], folder, environment)
    by_uv = stage("set-up", ["make", "env"], project, environment)
    log = (folder / "set-up.log").read_text(encoding="utf-8")
    apart = folder / "by pip"
    script = ["python3", "-I", "zsad_lib/maintenance/set_up.py", "--with", "pip", "--folder", str(apart)]
    by_pip = stage("set-up by pip", script, project, environment)
    here, there = versions(project / ".venv"), versions(apart)
    if here != there:
        raise Failed(f"uv and pip install other versions: {sorted(set(here.items()) ^ set(there.items()))}")
    # As conda's pip does it, with its resolver: everything is there, so nothing may be left to install.
    resolve = [str(apart / "bin/python"), "-m", "pip", "install", "--dry-run", "-r", "requirements.lock"]
    stage("resolver", resolve, project, environment)
    if "Would install" in (folder / "resolver.log").read_text(encoding="utf-8"):
        raise Failed(f"pip's resolver takes other versions than the lock; see {folder / 'resolver.log'}")
    shutil.rmtree(apart)
    uv = "by uv" if "without uv" not in log else "WITHOUT uv"
    yield f"set-up {by_uv:.0f} s {uv}, {by_pip:.0f} s by pip, the same {len(here)} versions"
    smoke = ["make", "reproduce", "PROFILE=smoke"]
    first, second = (stage(name, smoke, project, environment) for name in ("reproduce", "reproduce again"))
    yield f"smoke {first:.0f} s, again {second:.0f} s"
    if tests != "none":
        if "user" in way.process:
            give(project, way.process)
        temporary = folder / "tmp"
        temporary.mkdir(mode=0o777)
        temporary.chmod(0o777)
        marks = "not browser and not slow" if tests == "quick" else "not browser"
        options = f"-n auto --maxprocesses 4 --dist loadfile -q -m '{marks}' {way.options} {TESTED}"
        command = ["bash", "-c", f". .venv/bin/activate; python -m pytest {options}"]
        environment |= way.environment | AS_MAKE_TEST | {"TMPDIR": str(temporary)}
        seconds = stage("tests", command, project, environment, **way.process)
        last = (folder / "tests.log").read_text(encoding="utf-8").splitlines()[-1]
        counted = re.findall(r"(\d+) (passed|skipped)", last)
        yield f"{', '.join(map(' '.join, counted))} in {seconds:.0f} s ({tests}, {way.name})"


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a trial elsewhere."""
    elsewhere = {"ZSAD_HOME", "ZSAD_EXTENSIONS", "PYTHONPATH", "PYENV_VERSION", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in elsewhere}


def wheel(python: Python, folder: Path, caches: dict[str, str]) -> str:
    """Builds the wheel in the clone of `trial`, installs it with what it needs and no extra, scores a clip
    elsewhere."""
    project, apart, elsewhere = folder / "project", folder / "wheel env", folder / "elsewhere"
    elsewhere.mkdir()
    inside, environment = str(project / ".venv/bin/python"), clean_environment() | caches
    build = [inside, *"-m pip wheel -q --no-deps --no-build-isolation --wheel-dir".split(), str(folder), str(project)]
    stage("wheel", build, folder, environment)
    file = next(folder.glob("zsad_lib-*.whl"))
    lock = (project / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)(?:\[.*?\])?(==.*?)(?: \\)?$", lock, re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(map("".join, pins)), encoding="utf-8")
    stage("wheel environment", [str(python.path), "-m", "venv", str(apart)], folder, environment)
    uv, outside = str(project / ".venv/bin/uv"), str(apart / "bin/python")
    install = [uv, "pip", "install", "--python", outside, "-c", str(folder / "pins.txt"), str(file)]
    stage("wheel install", install, folder, environment)
    stage("clip", [inside, "-c", CLIP], elsewhere, environment)
    seconds = stage("score", [outside, "-m", "zsad_lib", "score", "clip.mp4"], elsewhere, environment)
    have = versions(apart)
    jupyter = sorted(have.keys() & {"ipython", "jupyterlab", "papermill", "nbconvert", "ipykernel", "pytest", "dask"})
    rows = len((elsewhere / "clip.scores.csv").read_text(encoding="utf-8").splitlines()) - 1
    if jupyter or rows != 60 or not (elsewhere / "clip.scores" / "overlay.mp4").is_file():
        raise Failed(f"the wheel: {rows} rows of 60, installed {jupyter}; see {elsewhere}")
    size = f"{file.stat().st_size / 2**20:.0f} MB"
    return f"{file.name}, {size}, {len(have)} packages, 60 frames scored in {seconds:.0f} s"


def stage(name: str, command: Sequence[str], where: Path, environment: dict[str, str], **process) -> float:
    """Runs a command into a log of the stage's name and returns its seconds; Failed with the log's last line
    otherwise."""
    logs = where.parent if where.name == "project" else where
    log, start = logs / f"{name}.log", time.monotonic()
    with open(log, "wb") as file:
        streams = dict(stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        done = subprocess.run(command, cwd=where, env=environment, check=False, **streams, **process)
    if done.returncode:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise Failed(f"{name} ended with status {done.returncode}: {lines[-1] if lines else 'no word'} (log: {log})")
    return time.monotonic() - start


def versions(environment: Path) -> dict[str, str]:
    """Package -> version of all that `environment` holds but pip, which came with its Python."""
    answer = subprocess.check_output([environment / "bin/python", "-I", "-c", VERSIONS], encoding="utf-8")
    return {name: version for name, version in json.loads(answer).items() if name != "pip"}


def give(folder: Path, person: dict) -> None:
    """Makes `folder` the ordinary user's, without its environment, whose files are the cache's too."""
    for below, names, files in os.walk(folder):
        if Path(below) == folder:
            names.remove(".venv")
        for name in (*files, "."):
            os.chown(Path(below, name), person["user"], person["group"], follow_symlinks=False)


def _starts(python: Python, person: dict) -> bool:
    try:
        done = subprocess.run([python.path, "-I", "-c", "import venv"], capture_output=True, check=False, **person)
    except OSError:
        return False
    return done.returncode == 0


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
