"""What a step depends on, as a hash: the code on its own compute path, followed by import, and the weights it names.

Layout, comments and docstrings do not count, and neither do time stamps: only a change that could change a number
makes a step run again.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zsad_lib import extensions
from zsad_lib.weights import SHIPPED

PACKAGES = {name: Path(__file__).parents[1] / name for name in ("zsad_lib", "data_prep")}  # whose modules are followed
PACKAGES |= extensions.places()
OPEN = ("zsad_lib.backbones", "zsad_lib.models.gates")  # tables that extensions add to: who imports one may use them
# The package front imports on demand; the others move files and messages, no numbers (published weights count by their hash).
_MESSENGERS = ("errors", "fingerprint", "memory", "official", "paths", "pipeline")
_NOT_FOLLOWED = {"zsad_lib", *(f"zsad_lib.{name}" for name in _MESSENGERS)}


def digest(obj: Any) -> str:
    """sha256 of anything JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def closure(modules: Iterable[str]) -> dict[str, str]:
    """Content hashes of `modules` and of all project modules that they import, directly or not.

    Imports are read from the source (functions' own imports too, ``if TYPE_CHECKING:`` not), so nothing is executed.
    A constant ``WEIGHTS = ("name.safetensors", ...)`` in one of the modules adds those shipped files.

    Returns:
        Hash by module name, and by ``weights/<file>``.
    """
    hashes: dict[str, str] = {}
    queue = list(modules)
    while queue:
        module = queue.pop()
        file = module_file(module)
        if file is None or module in hashes or module in _NOT_FOLLOWED:
            continue
        hashes[module], imports, weights = scan(module, file.read_text(encoding="utf-8"), file.name == "__init__.py")
        queue += imports
        queue += extensions.NAMES if module in OPEN else ()
        for name in weights:
            path = SHIPPED / name
            hashes[f"weights/{name}"] = _file_sha256(path, *_state(path)) if path.is_file() else "absent"
    return hashes


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
    imports, fronts, weights = set(), set(), ()
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
            fronts.update(alias.asname or alias.name for alias in node.names if alias.name in _front())
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            imports.add(base)
            imports.update(f"{base}.{alias.name}" for alias in node.names)
            imports.update(_front().get(base, {}).get(alias.name, "") for alias in node.names)
        elif isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["WEIGHTS"]:
            weights = tuple(ast.literal_eval(node.value))
    for node in ast.walk(tree):  # `import zsad_lib as z; z.read_video(...)` imports zsad_lib.video
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in fronts:
            imports.update((f"zsad_lib.{node.attr}", _front()["zsad_lib"].get(node.attr, "")))
    imports |= {name.rpartition(".")[0] for name in imports}  # packages run their __init__
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), tuple(sorted(imports)), weights


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
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


@functools.cache
def _front() -> dict[str, dict[str, str]]:
    import zsad_lib

    return {"zsad_lib": {name: f"zsad_lib.{module}" for name, module in zsad_lib._NAMES.items()}}


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size


@functools.lru_cache(maxsize=64)
def _file_sha256(path: Path, mtime_ns: int, size: int) -> str:
    """Hash of a file's bytes, read again only where its time or size changed within this process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
