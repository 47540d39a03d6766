"""The compute steps of each data set: run in order, skipped when nothing changed, resumed when interrupted.

A step is done when its ``result.json`` is there with the step's current fingerprint: it is written last, and whole. It
records the hash of every file that the step wrote (and, as its last entry, its own): a file that was changed or lost
since makes the step run again, and so does a ``result.json`` that the step has not written like that.

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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zsad_lib.config import Profile, as_dict, nearest
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths, unfinished
from zsad_lib.pipeline import artefacts
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.steps import PRETRAINED, PUBLISHED, STEPS, needed

# These change no number but by rounding; the data step sees its data_root in another way.
NOT_IN_FINGERPRINT = ("jobs", "data_root", "chunk", "checkpointing", "compile")


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
    seen_with = profile.pretrain_seed, profile.held_out
    weights = [import_function(PRETRAINED)(*seen_with)] if any(seen_with) else []  # seconds of imports
    for step, (target, needs) in STEPS[profile.dataset].items():  # declared in the order of computing
        inputs = {need: (states[need][1] or {}).get("output_hash") or states[need][0] for need in needs}
        source = {} if needs else _listing(profile.data_root)
        mark = digest([step, target, closure([target.partition(":")[0]], *weights), settings, inputs, source])
        folder = run_folder(profile) / step
        result = artefacts.read_result(folder) if all(states[need][1] for need in needs) else None
        if result is not None and not (
            result.get("fingerprint") == mark
            and all((folder / path).exists() for path in result["artefacts"].values())
            and not artefacts.changed(folder.parent, result["files"])
        ):
            result = None
        states[step] = mark, result
    return states


def missing(steps: Iterable[str], profile: Profile) -> list[str]:
    """What has to run so that `steps` are up to date, in the order of computing."""
    wanted = [step for step in steps if declared(step, profile)]
    states = survey(profile)
    return [step for step in needed(profile.dataset, wanted) if states[step][1] is None]


def code_of(step: str, dataset: str) -> str:
    """Hash of the code on a step's compute path, whatever its settings and inputs."""
    return digest(closure([STEPS[dataset][step][0].partition(":")[0]]))


def altered(step: str, profile: Profile, mark: str) -> list[Path]:
    """What was changed or lost since the step made it under the fingerprint `mark`; its ``result.json`` where that is
    no longer as it was written."""
    folder = run_folder(profile) / step
    if (result := artefacts.read_result(folder)) is not None:
        return artefacts.changed(folder.parent, result["files"]) if result.get("fingerprint") == mark else []
    return [file for file in [folder / "result.json"] if file.exists() and _started(folder) == mark]


def in_words(files: Sequence[Path]) -> str:
    """The first of some altered files, and how many more there are."""
    more = f" and {len(files) - 1} more" if files[1:] else ""
    return f"{os.path.relpath(files[0])}{more} changed or missing since"


def _started(folder: Path) -> Any:
    """The fingerprint under which a run of the step in `folder` has begun last, as far as that can be read."""
    with contextlib.suppress(ZsadError):
        return paths.read_json(folder / "started.json")
    return None


def ensure(step: str, profile: Profile) -> dict[str, Any]:
    """Runs a step and what it needs, unless that has been done; prints one line for each step that runs.

    A step is ``fn(profile, folder) -> dict(metrics=..., artefacts=..., output_hash=..., files=...)`` with `folder` =
    ``runs/<run>/<step>/``; `files` are those outside of it that the step wrote, or the folders that hold nothing else.
    What an interrupted run of the same fingerprint left in `folder` is still there for the step
    to resume from; what another fingerprint left has been removed.

    Returns:
        The content of ``result.json``: fingerprint, code, step, date, profile, when it began (seconds since 1970), its
        seconds and those of the time before (or None), versions, git, metrics, artefacts, the hashes of all `files`
        that the step wrote, and the ``sha256`` of all these.
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
        if lost := altered(step, profile, mark):
            print(f"{step}: {in_words(lost)}; running again", flush=True)
            for file in lost:
                artefacts.forget(folder, file)
        before = artefacts.read_result(folder) or {}
        _clear(folder, mark)
        print(f"{step}: running", flush=True)
        began, start = time.time(), time.monotonic()
        outputs = import_function(target)(profile, folder) or {}
        result = {
            "fingerprint": mark,
            "code": code_of(step, profile.dataset),
            "step": step,
            "date": today(),
            "profile": as_dict(profile),
            "began": round(began, 2),
            "seconds": round(time.monotonic() - start, 2),
            "seconds_before": before.get("seconds"),
            **provenance(),
            "metrics": outputs.get("metrics", {}),
            "artefacts": artefact_paths(outputs.get("artefacts", {}), folder),
            "output_hash": outputs.get("output_hash") or outputs.get("metrics", {}).get("manifest_sha256"),
            "files": artefacts.record(folder.parent, [folder, *map(Path, outputs.get("files", ()))], PUBLISHED),
        }
        result = artefacts.write_result(folder, result)
        print(f"{step}: done in {result['seconds']:.1f} s", flush=True)
        return result


def today() -> str:
    """The day in UTC, as 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime())


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
    with paths.file_errors(folder):
        if folder.is_dir():
            unfinished.remove(folder / "result.json" if _started(folder) == mark else folder)
    for place in (paths.make_folder(folder).parent, paths.data(), paths.cache()):  # wherever a step may have written
        unfinished.clear(place)
    paths.write_json(folder / "started.json", mark)


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
