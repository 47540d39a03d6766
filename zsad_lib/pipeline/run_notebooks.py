"""Executes notebooks in order, skips those whose code and inputs did not change, and says in one line what failed.

The executed notebook is never the sign of success, because papermill writes it on failure too: that sign is the
``result.json`` of the notebook's last cell, together with a stamp of what the notebook depended on.
"""

import ast
import contextlib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from zsad_lib.config import Profile, as_dict, changes
from zsad_lib.errors import ZsadError, optional
from zsad_lib.files import paths, unfinished
from zsad_lib.pipeline import artefacts, run_step
from zsad_lib.pipeline.fingerprints import closure, digest, scan
from zsad_lib.pipeline.launch import ensure_apart
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.steps import AFTER_NOTEBOOKS
from zsad_lib.processes import parallel


def execute(notebooks: Sequence[Path], profile: Profile) -> None:
    """Runs each notebook that is not up to date, with the compute steps it needs before it.

    Notebooks between two compute steps start in the given order and run side by side, as many as the profile has jobs.

    Writes ``runs/<run>/notebooks/<name>.ipynb`` and ``.html``; the notebook itself writes ``<name>/result.json``.

    Raises:
        ZsadError: a cell failed (the line names notebook, cell and the error's last line) or no result was written.
    """
    for notebook in notebooks:
        if not notebook.is_file():
            raise ZsadError(f"{notebook}: no such notebook")
    with locked(run_step.run_folder(profile)):
        waiting: dict[str, Path] = {}
        for number, notebook in enumerate(notebooks, start=1):
            if is_current(notebook, profile):
                continue
            title = f"[{number}/{len(notebooks)}] {notebook.stem}"
            needs = _facts(notebook, profile)[1]
            if any(run_step.current(step, profile) is None for step in needs):
                _run_all(waiting, profile)
                waiting.clear()
                print(f"{title}: computing {', '.join(needs)}", flush=True)
                ensure_apart(needs, profile)
            waiting[title] = notebook
        _run_all(waiting, profile)
        if waiting:
            run_step.import_function(AFTER_NOTEBOOKS)(run_step.run_folder(profile) / "notebooks")


def is_current(notebook: Path, profile: Profile) -> bool:
    """Whether the notebook ran to its end with this code, this profile and these results of the steps it needs."""
    folder = _folder(notebook, profile)
    result = artefacts.read_result(folder)
    if not result or artefacts.changed(run_step.run_folder(profile), result["files"]):
        return False
    if not _output(notebook, profile).is_file():
        return False
    with contextlib.suppress(ZsadError):  # no stamp, or a broken one, means: run again
        stamp, states = paths.read_json(folder / "stamp.json", "code", "steps"), run_step.survey(profile)
        return stamp == _stamp(notebook, profile, states) and all(states[step][1] for step in stamp["steps"])
    return False


def _folder(notebook: Path, profile: Profile) -> Path:
    return run_step.run_folder(profile) / "notebooks" / notebook.stem


def _output(notebook: Path, profile: Profile) -> Path:
    return _folder(notebook, profile).with_suffix(".ipynb")


def _stamp(notebook: Path, profile: Profile, states: dict[str, tuple[str, dict | None]]) -> dict:
    code, needs = _facts(notebook, profile)
    settings = {name: value for name, value in as_dict(profile).items() if name != "jobs"}
    return {"code": digest([code, settings]), "steps": {step: states[step][0] for step in needs if step in states}}


def _facts(notebook: Path, profile: Profile) -> tuple[str, list[str]]:
    """(hash of the code cells and of the project modules they import, compute steps they need)."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise ZsadError(f"{notebook}: not a readable notebook ({error!r})") from error
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    modules, needs = set(), []
    try:
        # magics and shell lines are no Python; what they do cannot be followed
        code = "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE) for source in sources)
        modules.update(scan("notebook", code)[1])
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                name, argument = node.func.attr, node.args[0]
                argument = {word.arg: word.value for word in node.keywords}.get(profile.dataset, argument)
                if name in ("need", "ensure") and isinstance(argument, ast.Constant) and argument.value not in needs:
                    needs.append(argument.value)
    except SyntaxError as error:
        raise ZsadError(f"{notebook}: a code cell is not valid Python ({error.msg}: {error.text!r})") from error
    return digest([sources, closure(modules)]), needs


def _run_all(waiting: dict[str, Path], profile: Profile) -> None:
    """Runs notebooks whose compute steps are done, each in a process of its own, and says which has ended."""
    if not waiting:
        return
    warm = len(waiting) > profile.jobs  # else a process has one notebook, which can as well load the libraries itself
    tasks = [(title, one, profile, warm) for title, one in waiting.items()]
    for title, seconds in parallel(_timed, tasks, min(profile.jobs, len(tasks)), ordered=False):
        print(f"{title}: done in {seconds:.1f} s", flush=True)


def _timed(title: str, notebook: Path, profile: Profile, warm: bool) -> tuple[str, float]:
    from zsad_lib.pipeline.warm_kernels import keep_kernels_warm

    start = time.monotonic()
    keep_kernels_warm(warm)
    _run(notebook, profile)
    return title, time.monotonic() - start


def _run(notebook: Path, profile: Profile) -> None:
    folder, output = _folder(notebook, profile), _output(notebook, profile)
    paths.make_folder(folder)
    for name in ("result.json", "stamp.json"):
        unfinished.remove(folder / name)
    before = _facts(notebook, profile)[0]
    _papermill(notebook, output, profile)
    if not (folder / "result.json").is_file():
        raise ZsadError(f"{notebook.stem}: ended without run.finish(...); its last cell must call it; see {output}")
    if _facts(notebook, profile)[0] == before:  # else it was edited while it ran, and runs again next time
        paths.write_json(folder / "stamp.json", _stamp(notebook, profile, run_step.survey(profile)))


def _papermill(notebook: Path, output: Path, profile: Profile) -> None:
    with warnings.catch_warnings(), optional("notebooks"):
        warnings.simplefilter("ignore")
        import papermill
        from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it would warn of settings that only begin() reads
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would complain of a kernel ended by Ctrl-C
    settings = {name.upper(): list(v) if isinstance(v, tuple) else v for name, v in changes(profile).items()}
    os.environ["ZSAD_NOTEBOOK"] = notebook.stem
    try:
        with paths.file_errors(output), _stderr_to(_folder(notebook, profile) / "kernel.log"):
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters={"PROFILE": profile.name, **settings},
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(paths.root()),
            )
    except papermill.PapermillExecutionError as error:
        reason = error.evalue if error.ename == "ZsadError" else f"{error.ename}: {error.evalue}"
        last = next(reversed([line for line in reason.splitlines() if line.strip()]), error.ename)
        raise ZsadError(f"{last.strip()} ({notebook.stem}, cell {error.cell_index}; see {output})") from None
    except DeadKernelError:
        raise ZsadError(
            f"{notebook.stem}: its kernel died, most often because memory ran out: close other programs and run again"
        ) from None
    finally:
        del os.environ["ZSAD_NOTEBOOK"]


@contextlib.contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Sends what this process and the kernel it starts write to stderr into `path`."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(path, "wb") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
