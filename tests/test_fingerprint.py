"""A fingerprint changes with what can change a number, and with nothing else."""

from pathlib import Path

import pytest

from zsad_lib.pipeline import fingerprints


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "toy"
    (folder / "deep").mkdir(parents=True)
    for name, source in {
        "__init__": "",
        "step": "from . import helper\nfrom .deep import inner\ndef fn():\n    import toy.late\n",
        "helper": '"""Doc."""\nVALUE = 1  # why\n',
        "late": "",
        "typed": "",
        "other": "import toy.step",
        "deep/__init__": "from toy.deep.side import x\n",
        "deep/inner": "import typing\nif typing.TYPE_CHECKING:\n    from toy import typed\nfrom .. import up\n",
        "deep/side": "x = 1",
        "up": "import zsad_lib as z\nz.read_video\nz.manifest.load_manifest\n",
    }.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setitem(fingerprints.PACKAGES, "toy", folder)
    return folder


def test_imports_are_followed_wherever_they_stand(toy):
    modules = set(fingerprints.closure(["toy.step"]))
    assert {m for m in modules if m.startswith("toy")} == {
        "toy", "toy.step", "toy.helper", "toy.late", "toy.deep", "toy.deep.inner", "toy.deep.side", "toy.up",
    }  # fmt: skip
    assert {"zsad_lib.files.video", "zsad_lib.files.manifest"} <= modules
    assert not {"zsad_lib", "zsad_lib.errors", "zsad_lib.files.paths"} & modules
    assert fingerprints.closure(["numpy", "absent.module"]) == {}


def test_only_code_counts(toy):
    before = fingerprints.closure(["toy.step"])
    (toy / "helper.py").write_text('"""Another text."""\n\n\nVALUE = 1  # another reason\n')
    (toy / "other.py").write_text("changed = True")
    (toy / "typed.py").write_text("changed = True")
    assert fingerprints.closure(["toy.step"]) == before
    (toy / "helper.py").write_text("VALUE = 2\n")
    after = fingerprints.closure(["toy.step"])
    assert {m for m in after if after[m] != before[m]} == {"toy.helper"}


def test_shipped_weights_count_where_they_are_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "SHIPPED", tmp_path)
    (toy / "helper.py").write_text('WEIGHTS = ("a.safetensors",)')
    assert fingerprints.closure(["toy.step"])["weights/a.safetensors"] == "absent"
    seen = set()
    for content in ("one", "two and more"):
        (tmp_path / "a.safetensors").write_text(content)
        seen.add(fingerprints.closure(["toy.step"])["weights/a.safetensors"])
    assert len(seen) == 2 and "weights/a.safetensors" not in fingerprints.closure(["toy.late"])


def test_digest_does_not_depend_on_order():
    assert (
        fingerprints.digest({"a": 1, "b": 2}) == fingerprints.digest({"b": 2, "a": 1}) != fingerprints.digest({"a": 1})
    )
