"""Steps in processes of their own, or in those of a launcher such as torchrun."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsad_lib.config import Profile, changes
from zsad_lib.errors import ZsadError
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.run_step import current, declared, ensure, import_function, run_folder, steps_of
from zsad_lib.pipeline.steps import SHARED_OUT
from zsad_lib.processes import is_first

LAUNCHED = ("zsad_lib.methods.context_aware.train:fit",)  # what several processes of a launcher can do together


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
    return ["zsad_lib", "step", "--child", "--profile", profile.name, *settings, *steps]


def ensure_launched(step: str, profile: Profile, launcher: str) -> None:
    """Runs a step in the processes of `launcher`, "torchrun --nproc-per-node 2"; what it needs first, in one process.

    Raises:
        ZsadError: the step runs in one process, or there is no such launcher.
    """
    target, needs = declared(step, profile)
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
    target, needs = declared(step, profile)
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
        import_function(target)(profile, run_folder(profile) / step)
    state.wait_for_everyone()
    state.destroy_process_group()


def compute_share(steps: Sequence[str], profile: Profile, shard: tuple[int, int]) -> int:
    """Computes a share of the videos' frozen features, into the cache that all machines see: there the step finds them.

    Returns:
        How many videos were computed.

    Raises:
        ZsadError: other steps than features, or no data yet.
    """
    if list(steps) != ["features"] or "features" not in steps_of(profile):
        raise ZsadError(f"profile {profile.name}: only the step features is shared out; leave SHARD out")
    if current("data", profile) is None:
        raise ZsadError(f"step features needs data first, on one machine: make data PROFILE={profile.name}")
    return import_function(SHARED_OUT["features"])(profile, run_folder(profile), shard)[1]


def run_child(command: Sequence[str]) -> int:
    """Exit status of `command`, which is ended with this process when it is interrupted."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        for end, seconds in ((None, 1), (process.terminate, 5), (process.kill, None)):  # Ctrl-C is enough for most
            try:
                if end:
                    end()
                process.wait(timeout=seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        raise


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
