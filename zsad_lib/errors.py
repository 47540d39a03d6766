"""The one error that a user of the kit is meant to read, and how a command tells it."""

import contextlib
import functools
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


def one_line(main: Callable[..., int], interrupted: str = "interrupted") -> Callable[..., int]:
    """A command that ends in one line and a status: 2 after a `ZsadError`, 130 after Ctrl-C, 0 where a pipe's reader has seen enough.

    >>> one_line(lambda: 0)()
    0
    """

    @functools.wraps(main)
    def told(*arguments) -> int:
        try:
            return main(*arguments)
        except ZsadError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return told
