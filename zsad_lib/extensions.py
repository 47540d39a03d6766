"""Code of one's own beside the kit: modules named in ``ZSAD_EXTENSIONS``, which every process of the kit imports first.

Such a module adds entries to the kit's open tables: `GATES`, `GRIDS`, `KINDS` of backbones, `PROFILES`, `STEPS`.
Examples that run: docs/extend.md.
"""

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = tuple(os.environ.get("ZSAD_EXTENSIONS", "").split())  # modules or packages on the Python path


def load() -> None:
    """Imports all of them."""
    for name in sources():
        importlib.import_module(name)


def sources() -> dict[str, Path]:
    """Name -> file without its suffix, or folder of a package: where `zsad_lib.pipeline.fingerprints` finds their code.

    Ends the process in one line where there is no module of a name.
    """
    files = {name: _file(name) for name in NAMES}
    return {name: file.parent if file.stem == "__init__" else file.with_suffix("") for name, file in files.items()}


def _file(name: str) -> Path:
    with contextlib.suppress(ModuleNotFoundError):  # of a parent
        if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None:
            return Path(spec.origin)
    raise SystemExit(f"error: ZSAD_EXTENSIONS: no module {name!r}; add the folder that holds it to PYTHONPATH")


def first_use(package: str, name: str, homes: Mapping[str, str]) -> Any:
    """The name of a package that loads when it is first used, from its module of ``zsad_lib``; else AttributeError."""
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"zsad_lib.{homes[name]}"), name)
