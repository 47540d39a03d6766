"""Columns of CSV files as anybody's tool writes them: read as they are meant, or refused in a line with the place.

The csv module splits rows, so that quotes, commas inside them and line ends are as RFC 4180 and its users have them.
What it leaves open is decided here: the separator, what is a heading, and that no cell slips into another column.
"""

import contextlib
import csv
import io
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from zsad_lib.errors import ZsadError

LONGEST = 1 << 20  # characters of a line; more is no table, and a file may be one endless line
SEPARATORS = ",;\t"
NUMPY = b"\x93NUMPY"
KINDS = {  # how files begin that people save under these names
    NUMPY: "it is a NumPy array, whose name ends in .npy",
    b"PK\x03\x04": "it is a zip archive, as .npz, .xlsx and torch.save make them; save the one array or table in it",
    b"\x80": "it holds Python objects (pickle), which may run code; save numbers alone",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"\xff\xfe": "its text is in UTF-16; save it as UTF-8",
    b"\xfe\xff": "its text is in UTF-16; save it as UTF-8",
    b"version https://git-lfs": "it is a pointer of Git LFS; fetch the file itself with `git lfs pull`",
    b"<": "it is a web page or XML; fetch the file itself",
}
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # 1,234 may be a thousand and more


class Columns(NamedTuple):
    """Some columns of a table of n rows."""

    path: Path
    heading: list[str]  # all names in lower case; empty where the first row is of numbers already
    cells: dict[str, list[str]]  # those picked, [n] each
    lines: Sequence[int]  # [n] the line of the file at which each row ends
    separator: str

    def place(self, row: int) -> str:
        """Where a row stands, as file:line."""
        return f"{self.path}:{self.lines[row]}"

    def numbers(self, name: str) -> np.ndarray:
        """A picked column as float64 [n]; ZsadError at the first cell that is no number.

        Where commas do not separate they may be decimal ones, unless all of them could be of thousands.
        """
        cells = self.cells[name]
        commas = [] if self.separator == "," else [cell for cell in cells if "," in cell]
        if commas and not ("." in "".join(cells) or all(map(_GROUPED.fullmatch, commas))):
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            if "_" not in "".join(cells):  # Python reads 1_000, nobody else does
                return np.array(list(map(float, cells)))
        except ValueError:
            pass
        row = next(row for row, cell in enumerate(cells) if not is_number(cell))
        raise ZsadError(f"{self.place(row)}: expected a number in column {name!r}, got {self.cells[name][row][:60]!r}")

    def frames(self, name: str) -> np.ndarray:
        """A picked column as numbers of frames, int [n] from 0 on; ZsadError at the first cell that is none."""
        numbers = self.numbers(name)
        for row in np.flatnonzero(~((numbers >= 0) & (numbers < 2**53) & (numbers == np.round(numbers))))[:1]:
            cell = self.cells[name][row]
            raise ZsadError(f"{self.place(row)}: {cell!r} in column {name!r} is no frame; count them from 0")
        return numbers.astype(int)


def is_number(text: str) -> bool:
    """Whether a cell is a number, infinity or NaN."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def beginning(file: BinaryIO, path: Path) -> bytes:
    """The first bytes of an open file, which stays where it is; ZsadError where another kind of file has its name."""
    start = file.peek(64)
    shown = start[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if shown.startswith(tuple(KINDS)) and not (path.suffix.lower() == ".npy" and shown.startswith(NUMPY)):
        kind = next(kind for first, kind in KINDS.items() if shown.startswith(first))
        raise ZsadError(f"{path}: not readable: {kind}")
    return start


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A file open for reading its bytes; ZsadError where there is none, it cannot be read, or reading may never end, as
    of a pipe."""
    if not path.is_file() and path.exists():
        raise ZsadError(f"{path}: not readable: it is no regular file; give a file of numbers")
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such file; give one with a number per frame") from None
    except OSError as error:
        raise ZsadError(f"{path}: not readable ({error.strerror or error}); check the file and its rights") from None


def index_of(place: str, heading: list[str], name: str) -> int:
    """Which column has this name; ZsadError where none or several have it."""
    if heading.count(name) != 1:
        found = f"{heading.count(name)} columns are named {name!r}" if name in heading else f"no column {name!r}"
        raise ZsadError(f"{place}: {found}; expected one")
    return heading.index(name)


def read_columns(path: str | Path, column: str, pick: Callable[[str, list[str], list[str]], dict[str, int]]) -> Columns:
    """Reads some columns of a CSV file.

    Commas separate, or semicolons or tabs where they give a heading with `column`, or else more columns. Names are
    compared without case and spaces. Lines with # before the table are no rows, but may be its heading; blank lines
    after it are none.

    Args:
        path: text; bytes that are not UTF-8 do no harm outside the columns picked.
        column: name of the column that matters, in lower case.
        pick: (file:line, heading, first row) -> name -> number of each column to read, the one that matters first; the
            heading is [] where the first row is of numbers already. Where it picks none, no row is read.

    Returns:
        The columns picked; no lines where there is no row.

    Raises:
        ZsadError: missing or unreadable file, another kind of file, a line of more than `LONGEST` characters, quotes
            that do not close, a row with more or fewer cells than the heading, an empty line between rows; as
            file:line.
    """
    path = Path(path)
    with open_regular(path) as file:
        if b"\0" in beginning(file, path):
            raise ZsadError(f"{path}: not readable: it is no text; give a .csv in UTF-8")
        return _read(path, io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""), column, pick)


def _read(path: Path, text: io.TextIOBase, column: str, pick: Callable) -> Columns:
    lines, before, comment = _lines(path, text), 0, ""
    for line in lines:
        if not line.startswith(("#", "sep=")):  # Excel's first line may name the separator
            break
        before, comment = before + 1, line
    else:
        return Columns(path, [], {}, [], ",")
    separator = next((mark for mark in SEPARATORS if column in _names(line, mark)), None)
    if separator is None:  # the table has no heading, or not this column
        separator = max(SEPARATORS, key=lambda mark: len(_names(line, mark)))
    rows = csv.reader(chain([line], lines), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        first = next(rows)
        if not first:
            raise ZsadError(f"{path}:{before + 1}: an empty line; a table begins with its heading")
        heading = [name.strip().lower() for name in first]
        if headless := all(map(is_number, first)):
            heading = _names(comment.lstrip("# "), separator)
            heading = heading if column in heading else []
        picked = pick(f"{path}:{before + rows.line_num}", heading, first)
        if not picked:
            return Columns(path, heading, {}, [], separator)
        cells, ends, blank, width = {name: [] for name in picked}, array("q"), 0, len(heading) or len(first)
        keep, main = [(cells[name].append, index) for name, index in picked.items()], next(iter(picked.values()))
        for row in chain([first], rows) if headless else rows:
            if len(row) == width and row[main] and not blank:
                for append, index in keep:
                    append(row[index])
                ends.append(before + rows.line_num)
            elif not any(map(str.strip, row)) and row != [""]:  # "" is an empty cell, as pandas writes a missing number
                blank = blank or before + rows.line_num
            elif blank:
                raise ZsadError(f"{path}:{blank}: an empty line between rows; expected a {column} per frame")
            elif len(row) == width:
                raise ZsadError(f"{path}:{before + rows.line_num}: expected a number in column {column!r}, got ''")
            else:
                advice = "give every column its name, quote texts with commas in them, write decimals with a point"
                cell = f"{len(row)} cells where the {'heading has' if heading else 'first row has'} {width}"
                raise ZsadError(f"{path}:{before + rows.line_num}: {cell}; {advice}")
    except csv.Error as error:
        raise ZsadError(f"{path}:{before + rows.line_num}: no CSV ({error}); close every quote") from None
    return Columns(path, heading, cells, ends, separator)


def _names(line: str, separator: str) -> list[str]:
    """The names of a heading's line, in lower case."""
    row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [name.strip().lower() for name in row]


def _lines(path: Path, text: io.TextIOBase) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, LONGEST), ""), start=1):
        if len(line) == LONGEST:
            raise ZsadError(f"{path}:{number}: a line of more than {LONGEST} characters; give one row per frame")
        yield "\n" if line.isspace() else line
