"""The one error that a user of the kit is meant to read."""


class ZsadError(Exception):
    """A problem the user can mend: one line that names the file or value and what would be right.

    The command line prints it as ``error: <line>`` and exits with status 2, without a traceback.

    >>> raise ZsadError("labels.csv: no rows; give one line per video")
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: labels.csv: no rows; give one line per video
    """
