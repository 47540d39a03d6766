"""The compute steps of each data set: run in order, skipped when nothing changed, resumed when interrupted.

A step is done when its ``result.json`` is there with the step's current fingerprint: it is written last, and whole.
Nothing here imports torch, so that finding out that nothing is to be done takes a second.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zsad_lib.config import Profile, as_dict, nearest
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.steps import STEPS

# These change no number but by rounding; the data step sees its data_root in another way.
NOT_IN_FINGERPRINT = ("jobs", "data_root", "chunk", "checkpointing", "channels_last", "compile")


def run_folder(profile: Profile) -> Path:
    """``runs/<profile>``, or ``runs/<profile>-seed<N>`` for another render of the benchmark."""
    return paths.runs() / profile.run_name


def steps_of(profile: Profile) -> list[str]:
    """The profile's steps in the order of computing."""
    return list(STEPS[profile.dataset])


def fingerprint(step: str, profile: Profile) -> str:
    """sha256 over the code on the step's compute path, the profile, and what the needed steps made.

    A needed step counts by the ``output_hash`` it recorded, where it did, else by its own fingerprint: data prepared
    again with the same content changes nothing downstream. The first step also counts its data_root: path, names
    and sizes of the files in it.
    """
    declared(step, profile)
    return survey(profile)[step][0]


def current(step: str, profile: Profile) -> dict | None:
    """The step's result where it is up to date and its artefacts exist, else None."""
    declared(step, profile)
    return survey(profile)[step][1]


def survey(profile: Profile) -> dict[str, tuple[str, dict | None]]:
    """(fingerprint, result or None where it has to run) of every step; what depends on an outdated step is outdated."""
    settings = {name: value for name, value in as_dict(profile).items() if name not in NOT_IN_FINGERPRINT}
    states: dict[str, tuple[str, dict | None]] = {}
    for step, (target, needs) in STEPS[profile.dataset].items():  # declared in the order of computing
        inputs = {need: (states[need][1] or {}).get("output_hash") or states[need][0] for need in needs}
        source = {} if needs else _listing(profile.data_root)
        mark = digest([step, target, closure([target.partition(":")[0]]), settings, inputs, source])
        folder, result = run_folder(profile) / step, None
        if all(states[need][1] for need in needs):
            with contextlib.suppress(ZsadError):  # no result, or a broken one
                result = paths.read_json(folder / "result.json")
        if result is not None and not (
            result["fingerprint"] == mark and all((folder / path).exists() for path in result["artefacts"].values())
        ):
            result = None
        states[step] = mark, result
    return states


def ensure(step: str, profile: Profile) -> dict[str, Any]:
    """Runs a step and what it needs, unless that has been done; prints one line for each step that runs.

    A step is ``fn(profile, folder) -> dict(metrics=..., artefacts=..., output_hash=...)`` with `folder` =
    ``runs/<run>/<step>/``. What an interrupted run of the same fingerprint left in `folder` is still there for the step
    to resume from; what another fingerprint left has been removed.

    Returns:
        The content of ``result.json``: fingerprint, step, profile, seconds, versions, git, metrics, artefacts.
    """
    target, needs = declared(step, profile)
    if (result := current(step, profile)) is not None:
        return result
    with locked(run_folder(profile)):
        for need in needs:
            ensure(need, profile)
        if (result := current(step, profile)) is not None:  # another process made it while this one waited
            return result
        folder, mark = run_folder(profile) / step, fingerprint(step, profile)
        _clear(folder, mark)
        print(f"{step}: running", flush=True)
        start = time.monotonic()
        outputs = import_function(target)(profile, folder) or {}
        result = {
            "fingerprint": mark,
            "step": step,
            "profile": as_dict(profile),
            "seconds": round(time.monotonic() - start, 2),
            **provenance(),
            "metrics": outputs.get("metrics", {}),
            "artefacts": artefact_paths(outputs.get("artefacts", {}), folder),
            "output_hash": outputs.get("output_hash") or outputs.get("metrics", {}).get("manifest_sha256"),
        }
        paths.write_json(folder / "result.json", result)
        print(f"{step}: done in {result['seconds']:.1f} s", flush=True)
        return paths.read_json(folder / "result.json")


def provenance() -> dict[str, Any]:
    """Versions of Python and of the libraries that numbers depend on, and the state of the working copy."""
    versions = {"python": sys.version.split()[0]}
    for name in ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "scikit-learn", "av", "decord"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"versions": versions, "git": _git()}


def artefact_paths(artefacts: dict | Sequence, folder: Path) -> dict[str, str]:
    """Artefacts as name -> path, relative to `folder` where inside it; ZsadError where one was not written."""
    if not isinstance(artefacts, dict):
        artefacts = {Path(path).name: path for path in artefacts}
    stored = {}
    for name, path in artefacts.items():
        path = folder / path  # stays as it is where it is absolute
        if not path.exists():
            raise ZsadError(f"{path}: announced as artefact {name!r} but not written")
        stored[name] = str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())
    return stored


def declared(step: str, profile: Profile) -> tuple[str, tuple[str, ...]]:
    steps = STEPS[profile.dataset]
    if step not in steps:
        raise ZsadError(f"step {step!r} is unknown for profile {profile.name}; did you mean {nearest(step, steps)!r}?")
    return steps[step]


def _listing(data_root: str) -> dict[str, int]:
    """Names and sizes below the user's copy of the data: sees an exchanged file without reading gigabytes."""
    if not data_root:
        return {}
    listed = {str(Path(data_root).absolute()): -1}
    for folder, _, files in os.walk(data_root):
        listed.update({str(Path(folder, name)): os.lstat(Path(folder, name)).st_size for name in files})
    return listed


def _clear(folder: Path, mark: str) -> None:
    """Makes `folder` ready: empty, or with what an interrupted run of the same fingerprint has finished."""
    started = folder / "started.json"
    if not (started.is_file() and started.read_text(encoding="utf-8").strip() == f'"{mark}"') and folder.is_dir():
        with paths.file_errors(folder):
            shutil.rmtree(folder)
    paths.make_folder(folder)
    (folder / "result.json").unlink(missing_ok=True)
    for partial in folder.rglob(f"{paths.PARTIAL}*"):
        partial.unlink()
    paths.write_json(started, mark)


def import_function(target: str) -> Callable[..., Any]:
    """What ``"module:function"`` names, imported now: steps are text, so that the pipeline imports none of them."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _git() -> dict[str, Any]:
    def answer(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    if shutil.which("git") is None or not (commit := answer("rev-parse", "HEAD")):
        return {"commit": None, "changed": None}
    return {"commit": commit, "changed": bool(answer("status", "--porcelain", "--untracked-files=no"))}
