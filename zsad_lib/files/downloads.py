"""Downloading and unpacking data sets: resumable, checked, and never half done under the final name."""

import contextlib
import functools
import http.client
import os
import re
import shutil
import stat
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from zsad_lib.errors import ZsadError, without_secrets
from zsad_lib.files.paths import file_errors, make_folder, sha256_file
from zsad_lib.files.unfinished import scratch
from zsad_lib.pipeline.progress import report_progress

CHUNK = 1 << 20  # bytes read at once
MAX_FILES, MAX_BYTES = 200_000, 1 << 37  # what an archive of a data set may hold: 128 GiB
MAX_GROWTH, SMALL = 100, 1 << 30  # times its own size, where that is more than a GiB: pictures and films grow little


def fetch(
    url: str | Sequence[str],
    target: str | Path,
    sha256: str | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Downloads `url` to `target`; an interrupted download continues where it stopped.

    The bytes collect in ``<target>.part`` and get their name once they are complete and as expected. A target that is
    there already is checked against `sha256`, not fetched again.

    Args:
        url: http or https address, or several of the same file: the next one's turn comes when one sends nothing.
        target: file to write; its folder is created.
        sha256: expected hash of the whole file; without it a file counts as complete when it has the announced length.
        check: looks at the complete download and raises ZsadError where it is something else, which is then thrown
            away.

    Returns:
        `target`.

    Raises:
        ZsadError: no connection, error status, a transfer cut short (run again to continue), another content than
            expected, or a folder that cannot be written.
    """
    target, urls = Path(target), [url] if isinstance(url, str) else list(url)
    if target.exists():
        if sha256 and (digest := sha256_file(target)) != sha256:
            raise ZsadError(f"{target}: sha256 is {digest}, expected sha256 {sha256}; move it away to fetch it again")
        return target
    make_folder(target.parent)
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.etag")
    with file_errors(target):
        for number, address in enumerate(urls, start=1):
            had = part.stat().st_size if part.exists() else 0
            try:
                _download(address, part, tag, sha256, check)
                break
            except ZsadError as error:
                if number == len(urls) or (part.exists() and part.stat().st_size > had):
                    raise  # another address would start from the beginning
                print(without_secrets(f"{error}; trying {urls[number]}"), file=sys.stderr)
        os.replace(part, target)
        tag.unlink(missing_ok=True)
    return target


def unpack(
    archive: str | Path,
    folder: str | Path,
    keep: Callable[[str], bool] = lambda name: True,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Unpacks a tar (any compression) or zip archive into the new folder `folder`, all of it or nothing.

    Args:
        archive: file to read.
        folder: must not exist, or be empty.
        keep: tells by its name in the archive whether a member is wanted.
        max_files: members allowed.
        max_bytes: unpacked size allowed.

    Returns:
        `folder`.

    Raises:
        ZsadError: a damaged archive, or one that must not be trusted: members outside the folder, links, devices, two
            of one name, too many or too large; also when the folder exists or cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise ZsadError(f"{archive}: no such archive")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ZsadError(f"{folder}: exists already; move it away to unpack {archive.name} again")
    make_folder(folder.parent)
    max_bytes = min(max_bytes, max(SMALL, MAX_GROWTH * archive.stat().st_size))
    with file_errors(folder), scratch(folder.parent) as place:
        partial, room = make_folder(place / folder.name), shutil.disk_usage(folder.parent).free
        _extract(archive, partial, keep, max_files, max_bytes, room)
        os.replace(partial, folder)
    return folder


def _extract(archive: Path, into: Path, keep: Callable[[str], bool], max_files: int, max_bytes: int, room: int) -> None:
    files = size = 0
    try:
        for name, length, content in _members(archive):
            files, size = files + 1, size + length
            if files > max_files or size > max_bytes:
                raise ZsadError(f"{archive}: more than {max_files} files or {max_bytes} bytes unpacked; refused")
            if size > room:
                raise ZsadError(f"{archive}: holds {size} bytes or more, and {room} are free there; free some space")
            if keep(name):
                _write(archive, name, content, into / name)
    except (ZsadError, MemoryError):
        raise
    except Exception as error:  # of a dozen kinds: each format has its own, and each compression
        if isinstance(error, OSError) and error.errno and not error.filename:
            raise  # a full disk
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise ZsadError(f"{archive}: not a readable archive ({reason}); fetch it again") from error


def _write(archive: Path, name: str, content: Callable[[], IO[bytes]] | None, target: Path) -> None:
    """Writes a member's content, or a folder for None, and nothing else of it: no owner, no mode."""
    try:
        (target.parent if content else target).mkdir(parents=True, exist_ok=True)
        copy = open(target, "xb") if content else contextlib.nullcontext()
    except (FileExistsError, NotADirectoryError) as error:  # on some disks A and a too, or two ways to write an accent
        raise ZsadError(f"{archive}: member {name!r} has the name of another one; unpack it by hand") from error
    except (OSError, ValueError) as error:  # too long for this disk, or with letters that it cannot write
        raise ZsadError(f"{archive}: member {name!r} cannot be written here ({error}); unpack it elsewhere") from error
    with copy:
        if content:
            with content() as original:
                shutil.copyfileobj(original, copy, CHUNK)


def _download(url: str, part: Path, tag: Path, sha256: str | None, check: Callable[[Path], object]) -> None:
    if not url.startswith(("http://", "https://")):
        raise ZsadError(f"{url}: only http and https addresses can be fetched")
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": "zsad-lib"}
    if have:
        headers["Range"], headers["If-Range"] = f"bytes={have}-", tag.read_text(encoding="utf-8")  # else from the start
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            _receive(answer, part, tag, have if answer.status == 206 else 0)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing is left to send
            raise ZsadError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ZsadError(f"{url}: the transfer failed ({reason}); run again to continue it") from error
    try:
        check(part)
        if sha256 and (digest := sha256_file(part)) != sha256:
            fault = f"sha256 of the download is {digest}, expected sha256 {sha256}"
            raise ZsadError(f"{url}: {fault}; it was thrown away, try again later")
    except ZsadError:
        part.unlink()
        raise


def _receive(answer: http.client.HTTPResponse, part: Path, tag: Path, start: int) -> None:
    if start and not re.match(rf"bytes {start}-", answer.headers.get("Content-Range", "")):
        raise ZsadError(f"{answer.url}: the server continued at another byte than {start}; delete {part}")
    if not start and (validator := answer.headers.get("ETag") or answer.headers.get("Last-Modified")):
        tag.write_text(validator, encoding="utf-8")
    length = answer.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    chunks = iter(lambda: answer.read(CHUNK), b"")
    with open(part, "ab" if start else "wb") as file:
        for chunk in report_progress(chunks, f"MiB of {part.stem}", length and -(-int(length) // CHUNK)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        if total is not None and file.tell() != total:
            raise ZsadError(f"{answer.url}: cut short at {file.tell()} of {total} bytes; run again to continue it")


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]] | None]]:
    """(name, bytes, function that opens its content, or None) for each file and folder, after its safety check."""
    with open(archive, "rb") as file:
        is_zip = file.read(2) == b"PK"  # what is_zipfile looks for may also stand at the end of a tar with a zip in it
    if is_zip:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                name, mode = info.filename.replace("\\", "/"), stat.S_IFMT(info.external_attr >> 16)
                _refuse(archive, name, mode in (0, stat.S_IFREG, stat.S_IFDIR))
                yield name, info.file_size, None if name.endswith("/") else functools.partial(file.open, info)
    else:
        with tarfile.open(archive, tarinfo=_Header) as file:
            for info in file:
                _refuse(archive, info.name, info.isreg() or info.isdir())
                yield info.name, info.size, None if info.isdir() else functools.partial(file.extractfile, info)
            while file.fileobj.read(CHUNK):  # the sum of what was compressed stands at its end
                pass


class _Header(tarfile.TarInfo):
    """A member's header; one that cannot be read is no end of the archive, as it is to tarfile."""

    @classmethod
    def fromtarfile(cls, file: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(file)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {file.offset}") from error


def _refuse(archive: Path, name: str, plain: bool) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not plain:
        raise ZsadError(f"{archive}: member {name!r} is a link or device; refused")
    if ".." in parts or name.startswith(("/", "\\")) or ":" in (parts or ("",))[0]:
        raise ZsadError(f"{archive}: member {name!r} points outside the folder; refused")
