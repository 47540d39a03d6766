"""A fingerprint changes with what can change a number, and with nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from zsad_lib.config import get_profile
from zsad_lib.pipeline import fingerprints, run_step
from zsad_lib.pipeline.steps import STEPS


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
    assert not {"zsad_lib", "zsad_lib.errors"} & modules
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


def test_shipped_weights_count_where_they_are_named(toy, tmp_path):
    (toy / "helper.py").write_text('WEIGHTS = ("a.safetensors",)')
    assert fingerprints.closure(["toy.step"])["weights/a.safetensors"] == "absent"
    seen = set()
    for content in ("one", "two and more"):
        (tmp_path / "a.safetensors").write_text(content)
        seen.add(fingerprints.closure(["toy.step"], tmp_path)["weights/a.safetensors"])
    assert len(seen) == 2 and "weights/a.safetensors" not in fingerprints.closure(["toy.late"])


def test_digest_does_not_depend_on_order():
    assert (
        fingerprints.digest({"a": 1, "b": 2}) == fingerprints.digest({"b": 2, "a": 1}) != fingerprints.digest({"a": 1})
    )


# --- which steps a change in the kit itself makes outdated ------------------------------------------------------------

FIRST = {  # a module of each wing -> the first steps that a change in it makes outdated; what depends on these follows
    "data_prep.scene_rules.draw": ("data",),
    "zsad_lib.files.decoding": ("data",),
    "zsad_lib.processes": ("data",),
    "zsad_lib.released_defects": ("features",),
    "zsad_lib.losses": ("train", "weak_train"),
    "zsad_lib.models.projection": ("train",),
    "zsad_lib.features.clip_frames": ("frame_features",),
    "zsad_lib.methods.context_aware.train": ("train",),
    "zsad_lib.methods.anomaly_clip.score": ("weak_score",),
    "zsad_lib.evaluate.weighted_auc": ("evaluate",),
    "zsad_lib.results.run_tables": ("tables",),
    "zsad_lib.results.style": ("figures", "films"),
    "zsad_lib.own_video.watch": (),
    "zsad_lib.ablations.trial": (),
    "zsad_lib.exercises.checks_components": (),
    "zsad_lib.maintenance.cost": (),
    "zsad_lib.notebook": (),
    "zsad_lib.__main__": (),
    "zsad_lib.ram": (),
    "zsad_lib.pipeline.lock": (),
    "zsad_lib.pipeline.run_step": (),
    "zsad_lib.errors": (),
}
AT_LEAST = {  # these hold names that more and more files use
    "zsad_lib.config": ("features", "frame_features"),
    "zsad_lib.extensions": ("features", "frame_features"),
}
# Renamed, they change the line in which a step imports them, and that line counts.
IMPORTED_BY_STEPS = {"zsad_lib.pipeline.run_step", "zsad_lib.errors"}


def since(first: tuple[str, ...]) -> set[str]:
    """Steps of the embedded benchmark, and all that depend on them."""
    outdated = set(first)
    for step, (_, needs) in STEPS["scene_rules"].items():  # in the order of computing
        outdated |= {step} if outdated & set(needs) else set()
    return outdated


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the kit's code, as long as nothing is changed."""
    folder = tmp_path_factory.mktemp("kit")
    for name in ("zsad_lib", "data_prep"):
        shutil.copytree(
            fingerprints.PACKAGES[name], folder / name, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
        )
    return folder


@pytest.fixture
def outdated(kit: Path, run_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], set[str]]:
    """Which steps of a run are outdated by a change in the copy, which is undone afterwards."""
    for name in ("zsad_lib", "data_prep"):
        monkeypatch.setitem(fingerprints.PACKAGES, name, kit / name)
    marks = lambda: {step: mark for step, (mark, _) in run_step.survey(get_profile("smoke")).items()}

    def look(change: Callable[[], None]) -> set[str]:
        files, before = {path: path.read_text(encoding="utf-8") for path in kit.rglob("*.py")}, marks()
        change()
        after = marks()
        for path in kit.rglob("*.py"):
            if path not in files:
                path.unlink()
        for path, text in files.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
        return {step for step in before if before[step] != after[step]}

    return look


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def file_of(kit: Path, module: str) -> Path:
    return kit.joinpath(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("module", FIRST | AT_LEAST)
def test_an_edit_makes_the_right_steps_outdated(kit, outdated, module):
    path = file_of(kit, module)
    assert outdated(lambda: append(path, "# only a comment")) == set()
    steps = outdated(lambda: append(path, "EDITED = 1"))
    assert steps == since(FIRST[module]) if module in FIRST else steps >= since(AT_LEAST[module])


@pytest.mark.parametrize("module", [module for module in FIRST if module not in IMPORTED_BY_STEPS])
def test_a_new_name_makes_the_same_steps_outdated(kit, outdated, module):
    package, _, name = module.rpartition(".")
    imported = re.compile(rf"(from {re.escape(package)} import .*)\b{name}\b")

    def rename() -> None:
        file_of(kit, module).rename(file_of(kit, f"{module}_renamed"))
        for path in kit.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            renamed = re.sub(rf"\b{re.escape(module)}\b", f"{module}_renamed", text)
            renamed = imported.sub(rf"\1{name}_renamed as {name}", renamed)
            if renamed != text:
                path.write_text(renamed, encoding="utf-8")

    assert outdated(rename) == since(FIRST[module])


@pytest.mark.parametrize("module", [module for module in FIRST if module.count(".") > 1])
def test_a_new_file_counts_as_its_wing_does(kit, outdated, module):
    package = module.rpartition(".")[0]
    path = file_of(kit, f"{package}.brand_new")
    append(file_of(kit, module), f"from {package}.brand_new import NUMBER")
    path.write_text("NUMBER = 1\n", encoding="utf-8")
    try:
        assert outdated(lambda: path.write_text("NUMBER = 2\n", encoding="utf-8")) == since(FIRST[module])
    finally:
        path.unlink()
        text = file_of(kit, module).read_text(encoding="utf-8")
        file_of(kit, module).write_text(text.rpartition("\nfrom")[0], encoding="utf-8")


def test_every_wing_has_been_thought_of():
    top = fingerprints.PACKAGES["zsad_lib"]
    wings = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in [*top.glob("*.py"), *top.glob("*/__init__.py")]
    }
    named = {module.split(".")[1] for module in FIRST | AT_LEAST if module.startswith("zsad_lib")}
    assert wings - {"zsad_lib"} == named
    assert all(FIRST[module] == () for module in FIRST if not fingerprints.can_move_a_number(module))


def test_where_no_number_passes_nothing_computes():
    folder = fingerprints.PACKAGES["zsad_lib"]
    for path in [folder / "errors.py", *folder.glob("pipeline/*.py")]:
        imports = fingerprints.scan("a.b", path.read_text(encoding="utf-8"))[1]
        allowed = {"torch"} if path.name == "launch.py" else set()  # to wait for the other processes of a launcher
        assert {name.partition(".")[0] for name in imports} & {
            "numpy",
            "pandas",
            "scipy",
            "sklearn",
            "torch",
        } <= allowed
