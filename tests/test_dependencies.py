"""What is imported is declared, what is declared is used and locked, and what is optional says what it comes with."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
OPTIONAL = PROJECT["optional-dependencies"]
PROVIDERS = importlib.metadata.packages_distributions()
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
OURS = {
    "zsad_lib",
    "data_prep",
    *(path.stem for path in ROOT.glob("tests/*.py")),
    *re.findall(r"(?m)^# (\w+)\.py$", PAGE),
}
# Declared and never imported: what for.
UNSEEN = {
    "torchvision": "timm and open_clip import it, and it must match torch",
    "decord2": "decord under another name",
    "tabulate": "pandas' to_markdown", "dask": "joblib's back end on a cluster",
    "jupyterlab": "make lab", "ipykernel": "the kernel of the notebooks", "setuptools": "builds the kit",
    "uv": "set-up and make lock", "ruff": "make lint", "nbstripout": "make strip", "nbval": "make test-notebooks",
    "pytest-cov": "--cov", "pytest-random-order": "--random-order",
}  # fmt: skip


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imports(code: str) -> Iterator[tuple[str, str]]:
    """(top-level package that is imported, extra named by an `optional` around it or "")."""

    def visit(node: ast.AST, extra: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.With):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "optional":
                    extra = call.args[0].value
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], extra) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], extra
        for child in ast.iter_child_nodes(node):
            yield from visit(child, extra)

    for package, extra in visit(ast.parse(code), ""):
        if package not in sys.stdlib_module_names and package not in OURS:
            yield package, extra


def sources() -> Iterator[tuple[str, str]]:
    """(path, code) of every module, test, notebook and block of docs/extend.md."""
    for folder in ("zsad_lib", "data_prep", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path.relative_to(ROOT).as_posix(), "\n".join(code)
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        yield "docs/extend.md", block


def undeclared(path: str, code: str) -> list[str]:
    """The imports of `code` that the declared dependencies of its place do not cover."""
    found = []
    for package, extra in imports(code):
        allowed = names(PROJECT["dependencies"]) | names(OPTIONAL.get(extra, []))
        if path.startswith("notebooks/"):
            allowed |= names(OPTIONAL["notebooks"])
        elif path.startswith("tests/"):
            allowed |= names([text for texts in OPTIONAL.values() for text in texts])
        if not {canonicalize_name(name) for name in PROVIDERS.get(package, [package])} & allowed:
            found.append(f"{path}: {package}" + (f" (in extra {extra})" if extra else ""))
    return found


def test_what_is_imported_is_declared():
    assert [fault for path, code in sources() for fault in undeclared(path, code)] == []


def test_an_undeclared_import_would_be_noticed():
    code = 'import torch\nwith optional("cluster"):\n    import papermill\ndef f():\n    from jinja2 import a\n'
    assert undeclared("zsad_lib/a.py", code) == ["zsad_lib/a.py: papermill (in extra cluster)", "zsad_lib/a.py: jinja2"]
    assert undeclared("notebooks/a.ipynb", code) == [] and undeclared("data_prep/a.py", "import sympy") != []


def test_what_is_declared_is_used():
    used = {canonicalize_name(name) for _, code in sources() for package, _ in imports(code)
            for name in PROVIDERS.get(package, [package])}  # fmt: skip
    declared = names([*PROJECT["dependencies"], *(text for texts in OPTIONAL.values() for text in texts)])
    assert declared - used == set(UNSEEN) - used and set(UNSEEN) <= declared
    assert used & set(UNSEEN) <= {"torchvision"}, "no longer unseen"


def pins(lock: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> (version, extras) of the pins for this Python and machine."""
    found = {}
    for line in re.findall(r"^\S.*?==.*?(?= \\$|$)", lock, re.MULTILINE):
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate():
            found[canonicalize_name(pin.name)] = str(pin.specifier)[2:], set(pin.extras)
    return found


def open_ends(lock: str) -> list[str]:
    """What a resolver would still have to look for: requirements, of the kit or of a pinned package, that `lock` does
    not meet."""
    pinned = pins(lock)
    roots = [*PROJECT["dependencies"], *(text for texts in OPTIONAL.values() for text in texts)]
    queue, seen, found = [("the kit", Requirement(text), "") for text in roots], set(), []
    while queue:
        parent, wanted, extra = queue.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(wanted.name)
        version, extras = pinned.get(name, ("", set()))
        if not version:
            found.append(f"{parent} needs {wanted}, and it is not locked")
            continue
        if not wanted.specifier.contains(version, prereleases=True) or wanted.extras - extras:
            found.append(f"{parent} needs {wanted}, and the lock holds {sorted(extras)} {version}")
        for part in {"", *wanted.extras} - {part for known, part in seen if known == name}:
            seen.add((name, part))
            assert importlib.metadata.version(name) == version, f"{name}: installed is another version than locked"
            queue += [(name, Requirement(text), part) for text in importlib.metadata.requires(name) or []]
    return sorted(set(found))


def test_the_lock_leaves_nothing_to_resolve():
    assert open_ends(LOCK) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("coverage[toml]==", "coverage==", r"pytest-cov needs coverage\[toml\]"),
        ("\nsix==", "\nsixteen==", "needs six"),
        ("\nmatplotlib==3.", "\nmatplotlib==4.", "the kit needs matplotlib<3.13"),
    ],
)
def test_a_lock_with_an_open_end_is_noticed(old, new, message, monkeypatch):
    locked = {name: version for name, (version, _) in pins(LOCK.replace(old, new)).items()}
    monkeypatch.setattr(importlib.metadata, "version", locked.get)
    assert old in LOCK and any(re.search(message, line) for line in open_ends(LOCK.replace(old, new)))


def test_the_installed_kit_scores_without_jupyter(tmp_path):
    """Every command that needs no make starts where the extras are not installed."""
    optional = names([text for texts in OPTIONAL.values() for text in texts]) - names(PROJECT["dependencies"])
    needed = {"setuptools", "packaging", "yaml", "_yaml"}  # of torch, matplotlib and timm too
    blocked = sorted(
        p for p, providers in PROVIDERS.items() if {canonicalize_name(name) for name in providers} & optional
    )
    blocked = [package for package in blocked if package not in needed]
    assert {"IPython", "papermill", "nbconvert", "distributed", "transformers"} <= set(blocked)
    code = f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
import zsad_lib as z
from zsad_lib.__main__ import main
from zsad_lib.own_video import scoring, pictures, calibrate, watch
from zsad_lib.features import clip_frames, published_weights
from zsad_lib.evaluate import evaluation
from zsad_lib.methods.context_aware import train
from zsad_lib.pipeline import run_step
assert main(["doctor"]) == 0
try:
    import zsad_lib.results.notebook_page
except z.ZsadError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'jinja2 is not installed; in the kit\'s folder: pip install ".[notebooks]"' in done.stdout


def test_the_makefile_takes_the_pythons_that_are_declared():
    low, high = re.search(
        r"\((3, \d+)\) <= sys.version_info\[:2\] <= \((3, \d+)\)", (ROOT / "Makefile").read_text(encoding="utf-8")
    ).groups()
    assert PROJECT["requires-python"] == f">={low.replace(', ', '.')}"
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    first, last = (int(text.rpartition(" ")[2]) for text in (low, high))
    assert listed == [f"3.{minor}" for minor in range(first, last + 1)]
