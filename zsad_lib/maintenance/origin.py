"""Where a published table comes from: run, revision and date, and whether its code has changed since.

Rule: a table is marked where the code of its step, or of a step that it starts from, has another fingerprint now than
when the table was made, or where nothing was recorded of that code. What was recorded is kept in
docs/results/front_page.json, so that a page whose run is gone is still marked.
"""

import time
from pathlib import Path
from typing import Any

from zsad_lib.ablations.grids import GRIDS, grid
from zsad_lib.ablations.run import METHODS, code_of_grid
from zsad_lib.files import paths
from zsad_lib.pipeline.run_step import code_of
from zsad_lib.pipeline.steps import needed

OPENING = "Run `"  # of the line with a page's origin
CHANGED = " with changes"  # after the revision of a working copy that had some
BENCHMARK = "scene_rules"  # the data set with ablations
Origin = dict[str, Any]


def of_run(run: Path, dataset: str, last: str = "tables") -> Origin:
    """What the results of the step `last`, and of those that it starts from, say of themselves.

    Returns:
        `run`, `dataset`, and `steps`: name -> revision ("" where there is none), date, code (hash, "" where none was
        recorded); steps without a result are left out.
    """
    files = {step: run / step / "result.json" for step in needed(dataset, [last])}
    steps = {step: _facts(file) for step, file in files.items() if file.is_file()}
    return {"run": run.name, "dataset": dataset, "steps": steps}


def of_grid(run: Path, name: str) -> Origin:
    """The same of an ablation's tables, and of the steps that its trials start from."""
    stamp = run / "ablation" / f"made_{name}.json"
    inputs = METHODS[type(grid(name)[0])].INPUTS if name in GRIDS else "data"  # an extension that is not loaded now
    found = of_run(run, BENCHMARK, inputs)
    table = run / "tables" / f"ablation_{name}.csv"
    facts = _facts(stamp) if stamp.is_file() else {"revision": "", "date": _day(table), "code": ""}
    return {**found, "grid": name, "steps": {**found["steps"], f"ablation {name}": facts}}


def changed_steps(origin: Origin) -> list[str]:
    """Steps whose code is another one now, or of whose code nothing was recorded."""
    return [step for step, facts in origin["steps"].items() if facts["code"] != _code_now(step, origin["dataset"])]


def say(origin: Origin) -> str:
    """One line: run, revisions, date of the last step, and the mark.

    >>> facts = {"revision": "0123456789", "date": "2026-01-31", "code": ""}
    >>> say({"run": "demo", "dataset": "scene_rules", "steps": {"tables": facts}})
    'Run `demo`, revision 0123456789, 2026-01-31. **Made by an earlier revision of the code: 0123456789.**'
    """
    steps = origin["steps"]
    by_revision: dict[str, list[str]] = {}
    for step, facts in steps.items():
        by_revision.setdefault(facts["revision"], []).append(step)
    named = {f"revision {name}" if name else "revision not recorded": of for name, of in by_revision.items()}
    words = [f"{name} ({', '.join(of)})" if len(named) > 1 else name for name, of in named.items()]
    date = max((facts["date"] for facts in steps.values()), default="date not recorded")
    line = f"{OPENING}{origin['run']}`, {', '.join([*words, date])}."
    if old := changed_steps(origin):
        revisions = dict.fromkeys(steps[step]["revision"] or "not recorded" for step in old)
        line += f" **Made by an earlier revision of the code: {', '.join(revisions)}.**"
    return line


def stamp(page: str, origin: Origin) -> str:
    """The page with the line of its origin on top, in the place of a former one."""
    first, _, rest = page.partition("\n")
    return f"{say(origin)}\n\n{rest.lstrip(chr(10)) if first.startswith(OPENING) else page}"


def _facts(file: Path) -> dict[str, str]:
    result = paths.read_json(file)
    git = result.get("git") or {}
    revision = (git.get("commit") or "")[:10] + CHANGED * bool(git.get("changed"))
    return {
        "revision": revision.removeprefix(" "),
        "date": result.get("date") or _day(file),
        "code": result.get("code", ""),
    }


def _day(file: Path) -> str:
    """The day of a file that has not recorded its own, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime)) if file.is_file() else ""


def _code_now(step: str, dataset: str) -> str:
    name = step.removeprefix("ablation ")
    if name != step:
        return code_of_grid(name) if name in GRIDS else "unknown"
    return code_of(step, dataset)
