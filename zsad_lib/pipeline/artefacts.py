"""What a step wrote, by content: so a file that was changed or lost since is noticed, whoever or whatever did it.

Times change no content: a copied tree is as good as the first one. Hashing all files would take long, though; so
``runs/<run>/.hashes.json`` keeps the size and times that a file had when it was hashed, and while they are the same so
is the hash. The time of the last change of the entry itself is among them, which no tool can set back.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.unfinished import PARTIAL, remove
from zsad_lib.pipeline.fingerprints import digest

OWN = ("started.json", "stamp.json", "result.json", "kernel.log", ".hashes.json")  # the pipeline's own files, beside


def write_result(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes ``result.json`` into `folder`, whole, with its own hash as ``sha256``; returns what was written."""
    result = json.loads(paths.to_json(result))
    result["sha256"] = digest(result)
    paths.write_json(folder / "result.json", result)
    return result


def read_result(folder: Path) -> dict[str, Any] | None:
    """What `write_result` wrote into `folder`; None where there is nothing, or something else."""
    with contextlib.suppress(ZsadError):
        result = paths.read_json(folder / "result.json", "artefacts", "files", "sha256")
        if result["sha256"] == digest({name: value for name, value in result.items() if name != "sha256"}):
            return result
    return None


def record(run: Path, places: Iterable[Path], without: str = "") -> dict[str, str]:
    """sha256 of every file in `places`, files and folders; files that are not there: none.

    Args:
        run: the run folder, or another one, which keeps what was hashed.
        places: absolute paths.
        without: pattern of names that do not count.

    Returns:
        Hash by path, relative to the kit's home where the file lies below it, so that a tree can be moved.
    """
    files, home = set(), paths.root()
    for place in places:
        files.update(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else files.add(place)
    counted = [
        path
        for path in sorted(files)
        if not (path.name in OWN or any(part.startswith(PARTIAL) for part in path.parts) or path.match(without or "-"))
    ]
    names = [(path.relative_to(home) if path.is_relative_to(home) else path).as_posix() for path in counted]
    return {name: sha256 for name, sha256 in zip(names, _hashes(run, map(str, counted))) if sha256}


def changed(run: Path, recorded: dict[str, str]) -> list[Path]:
    """The recorded files that are missing or have another content now."""
    home = str(paths.root())
    files = [os.path.join(home, name) for name in recorded]
    return [Path(file) for file, now, then in zip(files, _hashes(run, files), recorded.values()) if now != then]


def refuse_changed(run: Path, steps: Iterable[str]) -> None:
    """ZsadError where a file of one of the steps is no longer what the step wrote; for what reads without running."""
    for step in steps:
        result = read_result(run / step)
        if result and (files := changed(run, result["files"])):
            raise ZsadError(f"{files[0]}: changed or missing since the step {step} wrote it; `make reproduce` mends it")


def forget(folder: Path, file: Path) -> None:
    """Removes a changed file of the step whose folder this is, with what was written together with it, so that none of
    it is taken for finished."""
    with paths.file_errors(file):
        remove(file.parent if file.is_relative_to(folder) and file.parent != folder else file)


def _hashes(run: Path, files: Iterable[str]) -> list[str]:
    """sha256 of each file, "" where there is none."""
    memory = run / ".hashes.json"
    known = _read_memory(memory, memory.stat().st_mtime_ns if memory.is_file() else 0)
    seen, found, new = _seen(run), [], False
    for file in files:
        try:
            state = os.stat(file)
            facts, entry = [state.st_size, state.st_mtime_ns, state.st_ctime_ns], seen.get(file)
            if entry is None or entry[:-1] != facts:
                entry = known.get(file)
            if not isinstance(entry, list) or entry[:-1] != facts:
                entry = seen[file] = [*facts, paths.sha256_file(file)]
                new = True
            found.append(entry[-1])
        except OSError:
            found.append("")
    if new and run.is_dir():
        with contextlib.suppress(ZsadError):  # somebody else's run, to be read only
            paths.write_text(memory, json.dumps({**known, **seen}))
    return found


@functools.lru_cache(maxsize=2)
def _read_memory(memory: Path, mtime_ns: int) -> dict[str, Any]:
    """File -> size, times and sha256 when some process has hashed it last."""
    with contextlib.suppress(ZsadError):
        if isinstance(known := paths.read_json(memory), dict):
            return known
    return {}


@functools.cache
def _seen(run: Path) -> dict[str, list]:
    """The same, of what this process has hashed itself: it may not be allowed to write it down."""
    return {}
