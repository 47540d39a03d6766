"""The compute steps of each data set: run in order, skipped when nothing changed, resumed when interrupted.

A step is done when its ``result.json`` is there with the step's current fingerprint: it is written last, and whole.
Nothing here imports torch, so that finding out that nothing is to be done takes a second.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zsad_lib import paths
from zsad_lib.config import Profile, as_dict, changes, get_profile, nearest
from zsad_lib.errors import ZsadError
from zsad_lib.fingerprint import closure, digest
from zsad_lib.steps import STEPS
from zsad_lib.workers import die_with_parent, is_first, read_shard, together

# These change no number but by rounding; the data step sees its data_root in another way.
NOT_IN_FINGERPRINT = ("jobs", "data_root", "chunk", "checkpointing", "channels_last", "compile")
LAUNCHED = ("zsad_lib.train:fit",)  # what several processes of a launcher can do together
LOCK_WAIT_S = 20.0  # an interrupted run's processes are gone by then
_OWNER = "ZSAD_RUN_LOCKED"  # names the run folder that a parent process holds for its children


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
    _declared(step, profile)
    return survey(profile)[step][0]


def current(step: str, profile: Profile) -> dict | None:
    """The step's result where it is up to date and its artefacts exist, else None."""
    _declared(step, profile)
    return survey(profile)[step][1]


def survey(profile: Profile) -> dict[str, tuple[str, dict | None]]:
    """(fingerprint, result or None where it has to run) of every step; what depends on an outdated step is outdated."""
    settings = {name: value for name, value in as_dict(profile).items() if name not in NOT_IN_FINGERPRINT}
    found: dict[str, tuple[str, dict | None]] = {}
    for step, (target, needs) in STEPS[profile.dataset].items():  # declared in the order of computing
        made = {need: (found[need][1] or {}).get("output_hash") or found[need][0] for need in needs}
        source = {} if needs else _listing(profile.data_root)
        mark = digest([step, target, closure([target.partition(":")[0]]), settings, made, source])
        folder, result = run_folder(profile) / step, None
        if all(found[need][1] for need in needs):
            with contextlib.suppress(ZsadError):  # no result, or a broken one
                result = paths.read_json(folder / "result.json")
        if result is not None and not (
            result["fingerprint"] == mark and all((folder / path).exists() for path in result["artefacts"].values())
        ):
            result = None
        found[step] = mark, result
    return found


def ensure(step: str, profile: Profile) -> dict[str, Any]:
    """Runs a step and what it needs, unless that has been done; prints one line for each step that runs.

    A step is ``fn(profile, folder) -> dict(metrics=..., artefacts=..., output_hash=...)`` with `folder` =
    ``runs/<run>/<step>/``. What an interrupted run of the same fingerprint left in `folder` is still there for the step
    to resume from; what another fingerprint left has been removed.

    Returns:
        The content of ``result.json``: fingerprint, step, profile, seconds, versions, git, metrics, artefacts.
    """
    target, needs = _declared(step, profile)
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
        outputs = _function(target)(profile, folder) or {}
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
    found = {}
    for name, path in artefacts.items():
        path = folder / path  # stays as it is where it is absolute
        if not path.exists():
            raise ZsadError(f"{path}: announced as artefact {name!r} but not written")
        found[name] = str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute())
    return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder, so that two runs do not write into one; a dead holder's lock is free.

    Raises:
        ZsadError: another live process still holds it after `LOCK_WAIT_S`.
    """
    if os.environ.get(_OWNER) == str(folder):
        yield
        return
    with paths.file_errors(folder / ".lock"):
        file = open(paths.make_folder(folder) / ".lock", "a+", encoding="utf-8")
    with file:
        _take(file, folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        outer = os.environ.get(_OWNER, "")
        os.environ[_OWNER] = str(folder)
        try:
            yield
        finally:
            os.environ[_OWNER] = outer


def _take(file: Any, folder: Path) -> None:
    if importlib.util.find_spec("fcntl") is None:
        return  # Windows: without a lock
    import fcntl

    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                file.seek(0)
                raise ZsadError(f"{folder}: in use by process {file.read()}; wait for it or end it") from None
        time.sleep(0.2)


def _declared(step: str, profile: Profile) -> tuple[str, tuple[str, ...]]:
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


def _function(target: str) -> Callable[[Profile, Path], dict | None]:
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


# --- command line: what the Makefile calls --------------------------------------------------------------------------


def ensure_apart(steps: Sequence[str], profile: Profile) -> None:
    """Brings `steps` up to date in a process of their own, whose memory is free again afterwards."""
    if all(current(step, profile) is not None for step in steps):
        return
    with locked(run_folder(profile)):
        code = run_child([sys.executable, "-m", *_step_command(profile, *steps)])
    if code < 0:
        raise ZsadError(
            f"{', '.join(steps)}: ended by signal {-code} ({signal.Signals(-code).name}); where nobody sent it, memory "
            "ran out: close other programs and run again, it resumes"
        )
    if code:
        raise SystemExit(code)  # the child has said why


def _step_command(profile: Profile, *steps: str) -> list[str]:
    settings = [f"{name}={_text(value)}" for name, value in changes(profile).items()]
    return ["zsad_lib.pipeline", "step", "--child", "--profile", profile.name, *settings, *steps]


def launch(step: str, profile: Profile, launcher: str) -> None:
    """Runs a step in the processes of `launcher`, "torchrun --nproc-per-node 2"; what it needs first, in one process.

    Raises:
        ZsadError: the step runs in one process, or there is no such launcher.
    """
    target, needs = _declared(step, profile)
    if target not in LAUNCHED:
        raise ZsadError(f"LAUNCH={launcher!r}: step {step} of profile {profile.name} runs in one process; leave it out")
    ensure_apart(needs, profile)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program, *options = shlex.split(launcher)
    if shutil.which(program) is None:
        raise ZsadError(
            f"LAUNCH={launcher!r}: no program {program} found; torchrun and accelerate come with `make env`"
        )
    if code := run_child([program, *options, "-m", *_step_command(profile, step)]):
        raise SystemExit(code)


def ensure_together(step: str, profile: Profile) -> None:
    """`ensure` in each process of a launcher: all of them compute, the first one writes.

    An exception in one of them ends it, and with it the launcher and all others.

    Raises:
        ZsadError: a needed step is not up to date.
    """
    target, needs = _declared(step, profile)
    if target not in LAUNCHED:
        raise ZsadError(f"step {step} of profile {profile.name} runs in one process; leave the launcher out")
    for need in needs:
        if current(need, profile) is None:
            raise ZsadError(f"step {step} needs {need} first, in one process: make {need} PROFILE={profile.name}")
    import torch
    from accelerate import PartialState

    done, state = current(step, profile) is not None, PartialState(cpu=not torch.cuda.is_available())
    state.wait_for_everyone()  # nobody writes before all have looked
    if is_first():
        ensure(step, profile)
    elif not done:
        _function(target)(profile, run_folder(profile) / step)
    state.wait_for_everyone()
    state.destroy_process_group()


def run_child(command: Sequence[str]) -> int:
    """Exit status of `command`, which is ended with this process when it is interrupted."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        for end, seconds in (
            (None, 1),
            (process.terminate, 5),
            (process.kill, None),
        ):  # the terminal's Ctrl-C is enough
            try:
                if end:
                    end()
                process.wait(timeout=seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """``run`` notebooks and all steps, bring a ``step`` up to date, or print the ``status`` of everything."""
    parser = argparse.ArgumentParser(prog="python -m zsad_lib.pipeline", description=main.__doc__)
    parser.add_argument("command", choices=["run", "step", "status"])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--launch", default="", help="command that starts the processes of a step, as torchrun")
    parser.add_argument("--shard", help="i/n: with the step features, a share of its videos and no more")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("items", nargs="*", metavar="KEY=VALUE | STEP | NOTEBOOK")
    options = parser.parse_intermixed_args(arguments)
    if options.child or "MAKELEVEL" in os.environ:
        die_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = dict(item.split("=", 1) for item in options.items if "=" in item)
        items = [item for item in options.items if "=" not in item]
        if data_root := settings.get("DATA_ROOT"):
            settings["DATA_ROOT"] = os.path.abspath(data_root)
        profile = get_profile(options.profile, **settings)
        if options.command == "step" and options.shard:
            return _share(profile, items, read_shard(options.shard))
        if options.command == "step":
            for step in items:
                if options.launch:
                    launch(step, profile, options.launch)
                elif together() > 1:
                    ensure_together(step, profile)
                else:
                    ensure(step, profile) if options.child else ensure_apart([step], profile)
            return 0
        from zsad_lib import notebooks

        if options.command == "status":
            for step in steps_of(profile):
                print(f"{step}: {'up to date' if current(step, profile) else 'to run'}")
            for notebook in map(Path, items):
                print(f"{notebook.stem}: {'up to date' if notebooks.is_current(notebook, profile) else 'to run'}")
            return 0
        start = time.monotonic()
        with locked(run_folder(profile)):
            ensure_apart(steps_of(profile), profile)  # all of them first: then notebooks run side by side to the end
            if not items and "tables" not in steps_of(profile):
                raise ZsadError(
                    f"{profile.run_name}: the data are ready, and the kit trains nothing on {profile.dataset}; score it with your "
                    "own detector and run `make evaluate SCORES=folder LABELS=folder`"
                )
            notebooks.execute([Path(item) for item in items], profile)
        where = run_folder(profile)
        where = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
        print(f"{profile.run_name}: up to date in {time.monotonic() - start:.0f} s, see {where}", flush=True)
        return 0
    except ZsadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if options.command != "run" else 1
    except KeyboardInterrupt:
        if not options.child:
            print("interrupted; the same command resumes", file=sys.stderr)
        return 130


def _share(profile: Profile, steps: Sequence[str], shard: tuple[int, int]) -> int:
    """A share of the videos' frozen features, into the cache that all machines see; the step itself then finds them there."""
    if list(steps) != ["features"] or "features" not in steps_of(profile):
        raise ZsadError(f"profile {profile.name}: only the step features is shared out; leave SHARD out")
    if current("data", profile) is None:
        raise ZsadError(f"step features needs data first, on one machine: make data PROFILE={profile.name}")
    from zsad_lib.features import extract_share

    _, count = extract_share(profile, run_folder(profile), shard)
    print(f"shard {shard[0]} of {shard[1]}: {count} videos computed", flush=True)
    return 0


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


if __name__ == "__main__":
    sys.exit(main())
