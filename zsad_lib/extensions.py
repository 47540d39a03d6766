"""Code of one's own beside the kit: modules named in ``ZSAD_EXTENSIONS``, which every process of the kit imports first.

Such a module adds entries to the kit's open tables: `GATES`, `GRIDS`, `KINDS` of backbones, `PROFILES`, `STEPS`. Examples that run:
docs/extend.md.
"""

import importlib
import importlib.util
import os
from pathlib import Path

NAMES = tuple(os.environ.get("ZSAD_EXTENSIONS", "").split())  # modules or packages on the Python path


def load() -> None:
    """Imports all of them; ends the process in one line where there is no module of a name."""
    for name in NAMES:
        if importlib.util.find_spec(name) is None:
            raise SystemExit(f"error: ZSAD_EXTENSIONS: no module {name!r}; add the folder that holds it to PYTHONPATH")
        importlib.import_module(name)


def places() -> dict[str, Path]:
    """Name -> file without its suffix, or folder of a package: where `zsad_lib.fingerprint` finds their code."""
    files = {name: Path(importlib.util.find_spec(name).origin) for name in NAMES}
    return {name: file.parent if file.stem == "__init__" else file.with_suffix("") for name, file in files.items()}
