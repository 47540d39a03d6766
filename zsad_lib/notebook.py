"""The frame of every notebook: ``run = z.begin(globals())`` at its start, ``run.finish(...)`` at its end.

Under papermill and nbval (headless) nothing needs a browser; in JupyterLab the same calls show live bars and text.
"""

import ast
import inspect
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zsad_lib.config import Profile, as_dict, get_profile, nearest, typed
from zsad_lib.errors import ZsadError, optional
from zsad_lib.files import paths
from zsad_lib.pipeline import run_step
from zsad_lib.pipeline.artefacts import record, write_result
from zsad_lib.pipeline.progress import notebook_kernel

T = TypeVar("T")
_no_result = ""  # name of the begun profile where its numbers are no results


class Interval(NamedTuple):
    """A number with its 95 % interval; ``f"{auc:.3f} [{auc.low:.3f}, {auc.high:.3f}]"`` prints both."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class Run:
    """One execution of one notebook with one profile.

    Attributes:
        name: the notebook's name, "22_evaluate_detection".
        profile: the resolved settings.
        seed: the first of the profile's seeds; set for Python, NumPy and torch.
        device: "cuda" where there is one, else "cpu".
        folder: ``runs/<run>/notebooks/<name>/``.
    """

    def __init__(self, name: str, profile: Profile):
        self.name, self.profile, self.seed = name, profile, profile.seeds[0]
        self.folder = paths.make_folder(run_step.run_folder(profile) / "notebooks" / name)
        self.device = _seed_and_device(self.seed)
        self._start = time.monotonic()

    def need(self, step: str, **instead: str) -> dict[str, Any]:
        """The result of a compute step ("data", "train", "score", ...), which runs now where it is not up to date.

        Args:
            step: the step's name.
            instead: another step for a data set: ``run.need("data", ucsd_ped2="train")``.
        """
        return run_step.ensure(instead.get(self.profile.dataset, step), self.profile)

    def finish(self, metrics: dict[str, Any] | None = None, artefacts: dict | Sequence = ()) -> dict[str, Any]:
        """Writes ``result.json``, last and whole: the sign that the notebook ran to its end.

        Args:
            metrics: numbers by name.
            artefacts: files by name, or a list of files, absolute or relative to ``folder``; all must exist.
        """
        stored = run_step.artefact_paths(artefacts, self.folder)
        result = {
            "notebook": self.name,
            "profile": as_dict(self.profile),
            "is_result": self.profile.is_result,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._start, 2),
            **run_step.provenance(),
            "metrics": dict(metrics or {}),
            "artefacts": stored,
            "files": record(self.folder.parents[1], [self.folder / path for path in stored.values()]),
        }
        return write_result(self.folder, result)


def begin(namespace: dict[str, Any], **own: type) -> Run:
    """Starts a notebook: checks its parameters, seeds, picks the device, sets the plot style, prints where it stands.

    The one required parameter is ``PROFILE``; every other one is a setting of the profile in upper case
    (``BENCH_SEED = 1``), with None for the profile's own value.

    Args:
        namespace: the notebook's ``globals()``.
        own: parameters that are the notebook's own, with their types: ``RETRAIN=bool``.

    Raises:
        ZsadError: no PROFILE, or a parameter that is no setting or has the wrong type (papermill would only warn).
    """
    settings = {name: namespace[name] for name in _parameters(namespace)}
    for name in own.keys() & settings.keys():
        typed(name, settings.pop(name), own[name])
    if "PROFILE" not in settings:
        raise ZsadError("the parameters cell sets no PROFILE; write PROFILE = 'smoke'")
    name = settings.pop("PROFILE")
    valid = [*own, *(field.upper() for field in as_dict(get_profile(name)))]
    for setting in settings:
        if setting not in valid:
            raise ZsadError(
                f"parameter {setting!r} is unknown; did you mean {nearest(setting, ['PROFILE', *valid])!r}?"
            )
    profile = get_profile(name, **{key: value for key, value in settings.items() if value is not None})
    from zsad_lib.results import style  # with matplotlib, which z.progress and z.say can do without

    style.style()
    global _no_result
    _no_result = "" if profile.is_result else profile.run_name
    run = Run(_notebook_name(namespace), profile)  # seeds, after the imports that draw random numbers
    commit = run_step.provenance()["git"]["commit"]
    parts = [
        f"profile {profile.run_name}",
        f"seed {run.seed}",
        run.device,
        f"commit {commit[:7] if commit else 'unknown'}",
    ]
    print(" · ".join(parts + ([] if profile.is_result else ["a quick look, not results"])))
    return run


def say(template: str, **values: Any) -> None:
    """Prints a sentence whose numbers are computed: ``say("AUC {auc:.3f}", auc=auc)``; Markdown in a notebook.

    In a profile whose numbers are no results the sentence says so, with the width of the widest `Interval` in it.
    """
    text = template.format(**values)
    if note := mark(*values.values()):
        text += f" *{note}*"
    if notebook_kernel() is None:
        print(text)
    else:
        with optional("notebooks"):
            from IPython.display import Markdown, display

        display(Markdown(text))


def mark(*values: Any) -> str:
    """What stands behind a number of a profile that is no result, "(smoke: no result)"; "" where numbers are results.

    Of each `Interval` among `values` it tells how wide it is: a small profile may turn a claim round by chance.
    """
    if not _no_result:
        return ""
    widths = [value.high - value.low for value in values if isinstance(value, Interval) and value.high > value.low]
    many = "s up to" if len(widths) > 1 else ""
    width = f", 95 % interval{many} {max(widths):.2f} wide" if widths else ""
    return f"({_no_result}: no result{width})"


def interval(row: Any, name: str = "value") -> Interval:
    """A tidy table's number with its interval: of `row` the columns ``value, low, high``, or with another `name`
    ``delta, delta_low, delta_high``."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return Interval(float(row[name]), float(row[low]), float(row[high]))


def show(function: Callable | type) -> None:
    """Prints the source of something in this project, highlighted in a notebook."""
    module = getattr(inspect.unwrap(function), "__module__", None) or ""
    if module.split(".")[0] not in ("zsad_lib", "data_prep"):
        raise ZsadError(
            f"{getattr(function, '__name__', function)!r} is not from this library; show() prints its source only"
        )
    source = inspect.getsource(inspect.unwrap(function))
    if notebook_kernel() is None:
        print(source)
    else:
        with optional("notebooks"):
            from IPython.display import Code, display

        display(Code(source, language="python"))


def _parameters(namespace: dict[str, Any]) -> list[str]:
    """Names set by parameter cells: those of literals alone before the first begin(), or that set PROFILE again."""
    if "In" not in namespace:
        return [name for name, value in namespace.items() if not name.startswith("_") and _is_literal(value)]
    if not any("begin(" in cell for cell in namespace["In"]):  # nbval keeps no history: names alone tell them
        parameters = ("PROFILE", *(field.upper() for field in as_dict(get_profile("smoke"))))
        return [name for name in parameters if name in namespace]
    names: dict[str, None] = {}
    begun = False
    for cell in namespace["In"]:
        begun = begun or "begin(" in cell
        assigned = _literal_names(cell)
        if not begun or "PROFILE" in assigned:
            names.update(dict.fromkeys(assigned))
    return [name for name in names if name in namespace]


def _literal_names(cell: str) -> list[str]:
    """Names that a cell made of nothing but literal assignments sets; [] for any other cell."""
    names = []
    try:
        for node in ast.parse(cell).body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if value is None or not all(isinstance(target, ast.Name) for target in targets):
                return []
            ast.literal_eval(value)
            names += [target.id for target in targets]
    except (SyntaxError, ValueError):  # magics, or an expression
        return []
    return names


def _is_literal(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, list, tuple, dict))


def _notebook_name(namespace: dict[str, Any]) -> str:
    """From our execute(), JupyterLab, VS Code or nbval, in that order; side by side they need their own folders."""
    nbval = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0] if notebook_kernel() else ""
    names = os.environ.get("ZSAD_NOTEBOOK"), os.environ.get("JPY_SESSION_NAME"), namespace.get("__vsc_ipynb_file__")
    return Path(next(filter(None, (*names, nbval)), "interactive")).stem


def _seed_and_device(seed: int) -> str:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries still use it)
    torch.manual_seed(seed)
    return "cuda" if torch.cuda.is_available() else "cpu"
