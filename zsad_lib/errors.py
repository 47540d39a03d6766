"""The one error that a user of the kit is meant to read, and how a command tells it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator


class ZsadError(Exception):
    """A problem the user can mend: one line that names the file or value and what would be right.

    The command line prints it as ``error: <line>`` and exits with status 2, without a traceback.

    >>> raise ZsadError("labels.csv: no rows; give one line per video")
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: labels.csv: no rows; give one line per video
    """


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
