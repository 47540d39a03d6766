"""Executes notebooks in order, skips those whose code and inputs did not change, and says in one line what failed.

The executed notebook is never the sign of success, because papermill writes it on failure too: that sign is the
``result.json`` of the notebook's last cell, together with a stamp of what the notebook depended on.
"""

import ast
import contextlib
import itertools
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
from zsad_lib.pipeline.side_by_side import Named, Piece, run_pieces
from zsad_lib.pipeline.steps import AFTER_NOTEBOOKS

FEW = 4  # jobs: of more, two steps at a time would take twice the memory; published networks take all cores, or the GPU
IDLE_S = 10  # after which a step's workers end: other pieces need their memory, and this process waits for their end


def execute(notebooks: Sequence[Path], profile: Profile, steps: Sequence[str] = ()) -> None:
    """Runs each notebook that is not up to date, after the compute steps it needs, and `steps`.

    Steps and notebooks start in the given order, steps first, each when what it needs is there: as many at a time as
    the profile has jobs.

    Writes ``runs/<run>/notebooks/<name>.ipynb`` and ``.html``; the notebook itself writes ``<name>/result.json``.

    Raises:
        ZsadError: a cell failed (the line names notebook, cell and the error's last line) or no result was written.
    """
    for notebook in notebooks:
        if not notebook.is_file():
            raise ZsadError(f"{notebook}: no such notebook")
    with locked(run_step.run_folder(profile)):
        titles = {f"[{number}/{len(notebooks)}] {one.stem}": one for number, one in enumerate(notebooks, start=1)}
        waiting = {title: notebook for title, notebook in titles.items() if not is_current(notebook, profile)}
        needs = {title: tuple(_facts(notebook, profile)[1]) for title, notebook in waiting.items()}
        missing = run_step.missing([*steps, *itertools.chain.from_iterable(needs.values())], profile)
        if profile.jobs == 1 or len(waiting) + len(missing) < 2:
            ensure_apart(missing, profile)
            ended = ((title, _timed(notebook, profile, len(waiting) > 1)) for title, notebook in waiting.items())
        else:
            ended = _side_by_side(waiting, needs, missing, profile)
        for title, seconds in ended:
            print(f"{title}: done in {seconds:.1f} s", flush=True)
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


def _side_by_side(
    waiting: dict[str, Path], needs: dict[str, tuple[str, ...]], missing: Sequence[str], profile: Profile
) -> Iterator[tuple[str, float]]:
    """Seconds of each notebook as it ends; a step says itself that it has."""
    warm = len(waiting) > profile.jobs  # else a process has one notebook, which can as well load the libraries itself
    places = min(profile.jobs, len(missing) + len(waiting))
    threads = str(max((os.cpu_count() or 1) // places, 1))
    pieces = [Piece(step, run_step.declared(step, profile)[1], make, (step, profile)) for step in missing]
    pieces += [Piece(title, needs[title], _timed, (one, profile, warm, threads)) for title, one in waiting.items()]
    if profile.backbones == "official" or profile.jobs > FEW:  # one step after the other, then the notebooks
        pieces = [piece._replace(needs=(*piece.needs, *missing[:at])) for at, piece in enumerate(pieces)]
    for piece, seconds in run_pieces(pieces, places):
        if piece.name in waiting:
            yield piece.name, seconds


def make(step: str, profile: Profile) -> None:
    """Brings a step up to date beside other pieces, in a process that goes on with some."""
    import joblib

    with (
        contextlib.redirect_stdout(Named(sys.stdout, step)),
        contextlib.redirect_stderr(Named(sys.stderr, step)),
        joblib.parallel_config("loky", idle_worker_timeout=IDLE_S),
    ):
        run_step.ensure(step, profile)


def _timed(notebook: Path, profile: Profile, warm: bool, threads: str = "") -> float:
    from zsad_lib.pipeline.warm_kernels import keep_kernels_warm

    start = time.monotonic()
    keep_kernels_warm(warm)
    with _environment(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads)):
        _run(notebook, profile)
    return time.monotonic() - start


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets variables of the environment for as long as it lasts; "" sets none."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


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
    try:
        log = _folder(notebook, profile) / "kernel.log"
        with paths.file_errors(output), _stderr_to(log), _environment(ZSAD_NOTEBOOK=notebook.stem):
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
