"""Fixtures that every test file may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real footage and reference tensors beside the clone; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this clone (real footage and reference tensors)")
    return SHARED


@pytest.fixture
def run_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: runs, data and cache of the test land in its temporary folder."""
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    return tmp_path
