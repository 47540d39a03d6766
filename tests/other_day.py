"""A pytest plugin that writes down what was collected; with ``ZSAD_OTHER_DAY`` on another day, with folders listed
backwards."""

import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

if os.environ.get("ZSAD_OTHER_DAY"):
    import time_machine

    # Seconds, hours and the year differ: a zip archive, say, keeps the time in steps of two seconds.
    time_machine.travel(timedelta(days=400, hours=7, seconds=31)).start()
    list_names, scan_folder = os.listdir, os.scandir

    class Backwards:
        """``os.scandir`` in the opposite order."""

        def __init__(self, *path):
            with scan_folder(*path) as entries:
                self.entries = iter(list(entries)[::-1])

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def close(self):
            pass

    os.listdir = lambda *path: list_names(*path)[::-1]
    os.scandir = Backwards


def content(value: object) -> str:
    """Text that is equal for equal parameters in any process; of a thing without comparable content its type alone."""
    if value is None or isinstance(value, (str, bytes, int, float, complex, Path)):
        return repr(value)
    if isinstance(value, dict):
        return str([(content(key), content(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return str(sorted(map(content, value)))
    if isinstance(value, (list, tuple)):
        return str([content(item) for item in value])
    if hasattr(value, "tolist") and not isinstance(value, type):  # arrays and tensors
        return repr(value.tolist())
    return getattr(value, "__qualname__", type(value).__qualname__)


def pytest_collection_finish(session: pytest.Session) -> None:
    tests = {}
    for item in session.items:
        parameters = content(getattr(getattr(item, "callspec", None), "params", {}))
        tests[item.nodeid] = hashlib.sha256(parameters.encode()).hexdigest()
    Path(os.environ["ZSAD_COLLECTED"]).write_text(json.dumps(tests), encoding="utf-8")
