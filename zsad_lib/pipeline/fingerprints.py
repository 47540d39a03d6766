"""What a step depends on, as a hash: the code on its own compute path, followed by import, and the weights it names.

Layout, comments and docstrings do not count, and neither do time stamps: only a change that could change a number
makes a step run again.

The rule: every module that a step's function imports counts, directly or through others, wherever it lies, unless it
lies in one of the wings `NO_NUMBERS`, through which none passes. So a new file counts from its first import on, and
nobody has to enter it anywhere. That a colour trains nothing needs no rule of its own: wings import only lower layers
(docs/architecture.md), so the colours in ``results/`` are on the path of the figures and on that of no training, and
nothing that a step computes with can import ``maintenance/``, ``exercises/`` or ``own_video/``. In doubt a wing
counts: then a step runs once too often, and no result is stale.
"""

import ast
import functools
import hashlib
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zsad_lib import MOVED, extensions, full_name
from zsad_lib.files.paths import sha256_file
from zsad_lib.files.weights import SHIPPED

PACKAGES = {name: Path(__file__).parents[2] / name for name in ("zsad_lib", "data_prep")}  # whose modules are followed
PACKAGES |= extensions.sources()
OPEN = ("zsad_lib.features.backbones", "zsad_lib.models.gates")  # extensions add to their tables
NO_NUMBERS = {  # wing of zsad_lib -> why no number passes through it
    "": "the front knows where names lie; the module behind a name that is used is followed",
    "errors": "says what went wrong, and then there is no number",
    "pipeline": "decides when a step runs, who waits and what is printed; it hands over settings that are hashed",
}


def digest(obj: Any) -> str:
    """sha256 of anything JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def closure(modules: Iterable[str], folder: Path = SHIPPED) -> dict[str, str]:
    """Content hashes of `modules` and of all project modules that they import, directly or not.

    Imports are read from the source (functions' own imports too, ``if TYPE_CHECKING:`` not), so nothing is executed.
    A constant ``WEIGHTS = ("name.safetensors", ...)`` in one of the modules adds those files of `folder`, by default
    the shipped ones.

    Returns:
        Hash by module name, and by ``weights/<file>``.
    """
    hashes: dict[str, str] = {}
    queue = list(modules)
    while queue:
        module = queue.pop()
        file = module_file(module)
        if file is None and module in MOVED:
            queue += map(full_name, MOVED[module])
        if file is None or module in hashes or not can_move_a_number(module):
            continue
        hashes[module], imports, weights = scan(module, file.read_text(encoding="utf-8"), file.name == "__init__.py")
        queue += [*imports, module.rpartition(".")[0]]  # packages run their __init__
        queue += extensions.NAMES if module in OPEN else ()  # who imports such a table may use what was added
        for name in weights:
            path = folder / name
            hashes[f"weights/{name}"] = _file_sha256(path, *_state(path)) if path.is_file() else "absent"
    return hashes


def can_move_a_number(module: str) -> bool:
    """Whether a change in the module makes the steps outdated on whose path it is.

    >>> can_move_a_number("zsad_lib.losses"), can_move_a_number("zsad_lib.pipeline.lock")
    (True, False)
    """
    package, _, rest = module.partition(".")
    return package != "zsad_lib" or rest.partition(".")[0] not in NO_NUMBERS


def module_file(module: str) -> Path | None:
    """Source file of a project module, or None for anything else."""
    package, _, rest = module.partition(".")
    if package not in PACKAGES:
        return None
    base = PACKAGES[package].joinpath(*filter(None, rest.split(".")))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


@functools.lru_cache(maxsize=1024)
def scan(module: str, source: str, is_package: bool = False) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(hash of the code, names that may be project modules it imports, shipped weights it names)."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    imports, local, weights = set(), {}, ()  # local: name in this file -> lazy front that it stands for
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.add(alias.name)
                full = alias.name if alias.asname else alias.name.partition(".")[0]
                local |= {alias.asname or full: full} if full in _fronts() else {}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            imports.add(base)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                imports |= {full, _fronts().get(base, {}).get(alias.name, "")}
                local |= {alias.asname or alias.name: full} if full in _fronts() else {}
        elif isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["WEIGHTS"]:
            weights = tuple(ast.literal_eval(node.value))
    imports |= _through_fronts(tree, local)
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), tuple(sorted(imports)), weights


def _through_fronts(tree: ast.AST, local: dict[str, str]) -> set[str]:
    """The modules behind ``z.read_video`` or ``z.features.to_frames``, where `local` says that z is ``zsad_lib``.

    A front that is handed on as a whole, as in ``wing = z.features``, stands for all files behind it.
    """
    modules = set()
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}
    for node in attributes:
        if id(node) in inner:
            continue
        words = []
        while isinstance(node, ast.Attribute):
            words, node = [node.attr, *words], node.value
        name = local.get(node.id, "") if isinstance(node, ast.Name) else ""
        for word in words if name else ():
            if home := _fronts().get(name, {}).get(word):
                modules.add(home)
                break
            name = f"{name}.{word}"
            modules.add(name)
        else:
            modules.update(_fronts().get(name, {}).values() if name != "zsad_lib" else ())
    return modules


def _executed(tree: ast.AST) -> Iterable[ast.AST]:
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            queue += node.orelse
        else:
            queue += ast.iter_child_nodes(node)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body = rest
    return tree


@functools.cache
def _fronts() -> dict[str, dict[str, str]]:
    """Package whose names load when first used -> name -> module that holds it."""
    import zsad_lib

    fronts = {"zsad_lib": {name: f"zsad_lib.{module}" for name, module in zsad_lib._NAMES.items()}}
    for wing in sorted(path.parent.name for path in PACKAGES["zsad_lib"].glob("*/__init__.py")):
        homes = getattr(importlib.import_module(f"zsad_lib.{wing}"), "_HOME", {})
        below = "zsad_lib.models" if wing == "models" else "zsad_lib"
        fronts[f"zsad_lib.{wing}"] = {name: f"{below}.{home}" for name, home in homes.items()}
    return fronts


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size


@functools.lru_cache(maxsize=64)
def _file_sha256(path: Path, mtime_ns: int, size: int) -> str:
    """Hash of a file's bytes, read again only where its time or size changed within this process."""
    return sha256_file(path)
