"""What ``run``, ``step`` and ``status`` do: the commands of `make reproduce`, `make train` and `make status`."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.pipeline import run_notebooks
from zsad_lib.pipeline.launch import compute_share, ensure_apart, ensure_launched, ensure_together
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.run_step import altered, ensure, in_words, run_folder, steps_of, survey
from zsad_lib.processes import read_shard, together


def run(profile: Profile, notebooks: Sequence[str]) -> None:
    """Brings all steps up to date, then the notebooks.

    Raises:
        ZsadError: nothing is trained on this data set, or what a step or notebook raises.
    """
    start, folder = time.monotonic(), run_folder(profile)
    _use_one_thread_of_numpy()
    with locked(folder):
        steps = steps_of(profile)
        run_notebooks.execute([Path(name) for name in notebooks], profile, steps)
        if not notebooks and "tables" not in steps:
            raise ZsadError(
                f"{profile.run_name}: the data are ready, and the kit trains nothing on {profile.dataset}; score it "
                "with your own detector and run `make evaluate SCORES=folder LABELS=folder`"
            )
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    print(f"{profile.run_name}: up to date in {time.monotonic() - start:.0f} s, see {shown}", flush=True)


def step(
    profile: Profile, steps: Sequence[str], launch: str = "", shard: str | None = None, child: bool = False
) -> None:
    """Brings steps up to date, one after the other.

    Args:
        launch: command that starts the processes of a step, as torchrun.
        shard: "i/n": a share of the step features, and no more.
        child: the steps run in this process; else each in one of its own.
    """
    _use_one_thread_of_numpy()
    if shard:
        print(f"shard {shard}: {compute_share(steps, profile, read_shard(shard))} videos computed", flush=True)
        return
    for name in steps:
        if launch:
            ensure_launched(name, profile, launch)
        elif together() > 1:
            ensure_together(name, profile)
        elif child:
            ensure(name, profile)
        else:
            ensure_apart([name], profile)


def status(profile: Profile, notebooks: Sequence[str]) -> None:
    """Prints of every step and of the notebooks whether they are up to date or would run."""
    for name, (mark, result) in survey(profile).items():
        lost = [] if result else altered(name, profile, mark)
        print(f"{name}: {'up to date' if result else 'to run'}" + (f", {in_words(lost)}" if lost else ""))
    for path in map(Path, notebooks):
        print(f"{path.stem}: {'up to date' if run_notebooks.is_current(path, profile) else 'to run'}")


def _use_one_thread_of_numpy() -> None:
    """Beside other work, which steps have that share the cores, OpenBLAS's threads wait for each other; small products
    then take twenty times as long. Called before NumPy is loaded; child processes inherit it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
