"""``python -m zsad_lib.pipeline run | step | status``: the compute steps, as the Makefile calls them."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from zsad_lib.config import Profile, get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.pipeline import run_notebooks
from zsad_lib.pipeline.launch import ensure_apart, ensure_together, launch
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.processes import die_with_parent, read_shard, together
from zsad_lib.pipeline.run_step import current, ensure, function, run_folder, steps_of
from zsad_lib.pipeline.steps import SHARED_OUT


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
        if options.command == "status":
            for step in steps_of(profile):
                print(f"{step}: {'up to date' if current(step, profile) else 'to run'}")
            for notebook in map(Path, items):
                print(f"{notebook.stem}: {'up to date' if run_notebooks.is_current(notebook, profile) else 'to run'}")
            return 0
        start = time.monotonic()
        with locked(run_folder(profile)):
            ensure_apart(steps_of(profile), profile)  # all of them first: then notebooks run side by side to the end
            if not items and "tables" not in steps_of(profile):
                raise ZsadError(
                    f"{profile.run_name}: the data are ready, and the kit trains nothing on {profile.dataset}; score it with your "
                    "own detector and run `make evaluate SCORES=folder LABELS=folder`"
                )
            run_notebooks.execute([Path(item) for item in items], profile)
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
    _, count = function(SHARED_OUT["features"])(profile, run_folder(profile), shard)
    print(f"shard {shard[0]} of {shard[1]}: {count} videos computed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
