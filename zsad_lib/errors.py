"""The one error that a user of the kit is meant to read, and how a command tells it."""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator

_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]+:/{1,2})(\S+?)(?=[:,;.)'\"]*(?:\s|$))", re.IGNORECASE)
_PAIR = re.compile(r"([?&;#/_])([^?&;#/=]*=)?([^?&;#/]*)")
_SECRET = re.compile(r"pass|pwd|token|secret|auth|key|user|login|sig", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ZsadError(Exception):
    """A problem the user can mend: one line that names the file or value and what would be right.

    The command line prints it as ``error: <line>`` and exits with status 2, without a traceback; so does a notebook.

    >>> raise ZsadError("labels.csv: no rows; give one line per video")
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: labels.csv: no rows; give one line per video
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(without_secrets(str(message))))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback, which would print the kit's own source."""
        return [f"{type(self).__name__}: {self}"]


def one_line(text: str) -> str:
    """Text in which control characters, as a file's name may hold them, are written out.

    >>> print(one_line("two\\nlines.mp4"))
    two\\nlines.mp4
    """
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


@functools.cache
def tell_once(line: str) -> None:
    """A line on standard error, once in a process: a file or folder is opened several times over one command."""
    print(one_line(line), file=sys.stderr, flush=True)


def without_secrets(text: str) -> str:
    """Text whose addresses show neither user and password nor what may be a key: of ``name=value`` small numbers stay.

    >>> without_secrets("rtsp://admin:p@ss/w@10.0.0.5:554/cam?channel=1&token=ab12: cannot be read")
    'rtsp://***@10.0.0.5:554/cam?channel=1&token=***: cannot be read'
    """

    def masked(address: re.Match) -> str:
        known, at, place = address[2].rpartition("@")
        return f"{address[1]}{'***@' if at else ''}{_PAIR.sub(shown, place)}"

    def shown(pair: re.Match) -> str:
        before, name, value = pair[1], pair[2] or "", pair[3]
        plain = not value or (not name and before in "/_") or (value.isdecimal() and len(value) < 3)
        return f"{before}{name}{value if plain and not (value and _SECRET.search(name)) else '***'}"

    return _ADDRESS.sub(masked, text)


@contextlib.contextmanager
def optional(extra: str) -> Iterator[None]:
    """Stands around imports of what only the extra `extra` of pyproject.toml installs; ZsadError where it is not there.

    >>> with optional("notebooks"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: no_such_package is not installed; in the kit's folder: pip install ".[notebooks]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("zsad_lib", "data_prep", ""):
            raise
        raise ZsadError(f'{error.name} is not installed; in the kit\'s folder: pip install ".[{extra}]"') from error


def run_command(command: Callable[[], int | None], interrupted: str = "interrupted", failed: int = 2) -> int:
    """The exit status of a command, with one line where it did not come to its end.

    Args:
        command: what is done; its own status, None for 0.
        interrupted: line after Ctrl-C; "" where another process says so.
        failed: status after a `ZsadError`.

    Returns:
        The command's status; `failed`; 130 after Ctrl-C; 0 where a pipe's reader has seen enough.

    >>> run_command(lambda: None)
    0
    """
    try:
        return command() or 0
    except ZsadError as error:
        print(f"error: {error}", file=sys.stderr)
        return failed
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
