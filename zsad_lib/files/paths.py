"""Where the kit keeps its files, and how it writes them: whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsad_lib.errors import ZsadError
from zsad_lib.files.unfinished import PARTIAL, remove, scratch

if TYPE_CHECKING:
    import pandas as pd

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, in the quota or under a limit


def root() -> Path:
    """The kit's home: ``ZSAD_HOME`` if set, else the repository (Makefile beside zsad_lib), else the current folder."""
    if home := os.environ.get("ZSAD_HOME"):
        return Path(home).absolute()
    repository = Path(__file__).resolve().parents[2]
    return repository if (repository / "Makefile").is_file() else Path.cwd()


def runs() -> Path:
    """Folder of results, one sub-folder per run."""
    return root() / "runs"


def data() -> Path:
    """Folder of prepared data sets."""
    return root() / "data"


def cache() -> Path:
    """Folder of what can be computed again (frozen features)."""
    return root() / "cache"


def as_text(name: str | os.PathLike) -> str:
    """A file's name in letters: bytes that are no UTF-8, which not every library takes, are written out.

    >>> as_text("no utf-8 \\udcff.mp4")
    'no utf-8 \\\\xff.mp4'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def executed(folder: Path) -> list[Path]:
    """The executed notebooks in `folder` that ran to their end: papermill writes them on failure too."""
    return [path for path in sorted(folder.glob("*.ipynb")) if (path.with_suffix("") / "result.json").is_file()]


@contextlib.contextmanager
def file_errors(path: str | Path) -> Iterator[None]:
    """Turns a failed write to `path` (disk full, not writable, a file in the place of a folder) into one line."""
    try:
        yield
    except OSError as error:
        culprit = Path(error.filename or path)
        unfinished = any(part.startswith(PARTIAL) for part in culprit.parts)
        if not unfinished and culprit.parent != Path(path).parent and not Path(path).is_relative_to(culprit):
            raise  # the body read another file, and that one is the trouble
        reason = error.strerror or str(error)
        remedy = "free some space" if error.errno in FULL else "choose another name or a writable folder"
        raise ZsadError(f"{path}: cannot write ({reason}); {remedy}") from error


def make_folder(path: str | Path) -> Path:
    """Creates `path` with its parents and returns it; raises ZsadError where that is impossible."""
    with file_errors(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextlib.contextmanager
def atomic(path: str | Path, mode: str | None = "w") -> Iterator[IO | Path]:
    """Writes `path` whole or not at all: a temporary file beside it takes its place once it is on disk.

    Args:
        path: target; its folder is created.
        mode: mode of the handle that is yielded ("w" text in UTF-8, "wb" bytes), or None to yield the temporary
            path itself (same name as the target) for libraries that open files on their own.

    Raises:
        ZsadError: the folder or file cannot be written. The target is then what it was before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder) / "note.txt") as handle:
    ...         _ = handle.write("whole")
    ...     (Path(folder) / "note.txt").read_text(encoding="utf-8")
    'whole'
    """
    path = Path(path)
    make_folder(path.parent)
    with file_errors(path), scratch(path.parent) as place:
        temporary = place / path.name
        if mode is None:
            yield temporary
        else:
            text = None if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
            with open(temporary, mode, **(text or {})) as handle:
                yield handle
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # safetensors hides its files from everybody else
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Writes a folder of many files whole or not at all: the one that is yielded takes the place of `path`.

    It does not wait for the disk file by file: `flush_all` follows.

    Raises:
        ZsadError: the folder or a file cannot be written. The target is then what it was before.
    """
    path = Path(path)
    make_folder(path.parent)
    with file_errors(path), scratch(path.parent) as place:
        temporary = make_folder(place / path.name)
        yield temporary
        remove(path)
        os.replace(temporary, path)


def flush_all() -> None:
    """Waits until all that has been written is on disk; call it before the file that says so."""
    if hasattr(os, "sync"):  # not on Windows
        os.sync()


def write_text(path: str | Path, text: str) -> Path:
    """Writes `text` to `path`, whole or not at all, and returns the path."""
    with atomic(path) as handle:
        handle.write(text)
    return Path(path)


def write_table(path: str | Path, table: "pd.DataFrame", float_format: str = "%.9g", index: bool = False) -> Path:
    """Writes a table as CSV, whole or not at all, and returns the path; with `index` the row names are the first
    column."""
    return write_text(path, table.to_csv(index=index, float_format=float_format, lineterminator="\n"))


def copy(source: str | Path, target: str | Path) -> Path:
    """Copies a file's bytes to `target`, whole or not at all, and returns the target."""
    with atomic(target, "wb") as handle:
        handle.write(Path(source).read_bytes())
    return Path(target)


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically; paths become strings and NumPy numbers plain numbers."""
    write_text(path, to_json(obj))


def to_json(obj: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(obj, indent=1, default=_plain) + "\n"


def read_json(path: str | Path, *names: str) -> Any:
    """Reads a JSON file; a missing or broken one, or one without an object of these `names`, is a ZsadError that names
    it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ZsadError(f"{path}: not readable as JSON ({error}); delete it and run again") from error
    if names and not (isinstance(content, dict) and content.keys() >= set(names)):
        raise ZsadError(f"{path}: no object with {', '.join(names)}; delete it and run again")
    return content


def sha256_file(path: str | Path) -> str:
    """Hash of a file's bytes, as lower-case hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy here
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
