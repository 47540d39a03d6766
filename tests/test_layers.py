"""The house: six layers, each file imports its own wing and lower layers; nothing goes round in a circle.

Imports are read from the source with `ast`, those inside functions and under ``TYPE_CHECKING`` too.
"""

import ast
import collections
import graphlib
import importlib
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import zsad_lib

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (  # from the ground up; wings of one line may import each other, as long as nothing goes round
    {"errors", "config", "extensions", "ram", "released_defects", "files", "pipeline", "processes"},
    {"models", "losses", "evaluate"},
    {"features", "data_prep"},
    {"methods"},
    {"results"},
    {"own_video", "ablations", "notebook", "exercises", "maintenance", "__main__"},
)
# What people start does not know of each other; but checks compare with anything that a notebook teaches, and these two
# run all.
SEE_SIBLINGS = {"exercises", "maintenance", "__main__"}
KNOW_DATA_SETS = {  # the only files outside data_prep that name it; steps do so as text
    "zsad_lib.methods.pretraining", "zsad_lib.ablations.trial", "zsad_lib.own_video.words", "zsad_lib.__main__",
    "zsad_lib.maintenance.cost", "zsad_lib.maintenance.findings", "zsad_lib.maintenance.gpu_works",
}  # fmt: skip
DRAW = {"results", "own_video", "maintenance", "exercises"}  # wings that may import matplotlib or seaborn


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the library and of data_prep."""
    files = [path for folder in ("zsad_lib", "data_prep") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


MODULES = modules()


def imports(name: str, code: str, package: str) -> Iterator[str]:
    """What `code` imports: modules of the kit as far as they are files, of others their top-level name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        else:
            continue
        yield from (one if one in MODULES else one.partition(".")[0] for one in found if one != name)


def graph() -> dict[str, set[str]]:
    found = {}
    for name, path in MODULES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = set(imports(name, path.read_text(encoding="utf-8"), package))
    return found


GRAPH = graph()


def wing(name: str) -> str:
    """The wing of a module; "" for the front, which everybody may import."""
    top, _, rest = name.partition(".")
    return top if top == "data_prep" else rest.partition(".")[0]


def layer(name: str) -> int:
    return next(number for number, wings in enumerate(LAYERS) if wing(name) in wings)


def wrong(graph: dict[str, set[str]]) -> list[str]:
    """The arrows against the layers."""
    found = []
    for name, targets in graph.items():
        for target in targets & MODULES.keys():
            if not wing(target) or not wing(name):
                continue
            sibling = wing(name) != wing(target) and layer(name) == layer(target) == len(LAYERS) - 1
            if layer(target) > layer(name) or (sibling and wing(name) not in SEE_SIBLINGS):
                found.append(f"{name} -> {target}")
    return sorted(found)


def test_no_arrow_against_the_layers():
    assert wrong(GRAPH) == []


def test_a_wrong_arrow_would_be_noticed():
    assert wrong({"zsad_lib.files.video": {"zsad_lib.models.dpc", "zsad_lib.errors"}}) == [
        "zsad_lib.files.video -> zsad_lib.models.dpc"
    ]
    assert wrong({"zsad_lib.ablations.run": {"zsad_lib.own_video.events"}}) and not wrong(
        {"zsad_lib": {"zsad_lib.results.tables"}}
    )
    code = "if TYPE_CHECKING:\n    from zsad_lib.results import tables\ndef f():\n    from . import steps\n"
    assert set(imports("zsad_lib.pipeline.a", code, "zsad_lib.pipeline")) == {
        "zsad_lib.results.tables",
        "zsad_lib.pipeline.steps",
    }


def test_nothing_goes_round_in_a_circle():
    ours = {name: {t for t in targets if t in MODULES and t != "zsad_lib"} for name, targets in GRAPH.items()}
    list(graphlib.TopologicalSorter(ours).static_order())  # raises CycleError, which names the circle
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({**ours, "zsad_lib.errors": {"zsad_lib.files.video"}}).static_order())


def test_every_wing_has_its_place_and_says_what_lives_there():
    assert {wing(name) for name in MODULES} - {""} == set().union(*LAYERS)
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name in ("data_prep", f"zsad_lib.{wing(name)}"):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            assert len(text.split("\n\n")) >= 2, f"{name}: what lives there, and what may not"


def test_data_sets_and_drawing_stay_where_they_are_at_home():
    know = {
        name
        for name, targets in GRAPH.items()
        if wing(name) != "data_prep" and any(wing(t) == "data_prep" for t in targets)
    }
    assert know <= KNOW_DATA_SETS, know - KNOW_DATA_SETS
    draw = {name for name, targets in GRAPH.items() if targets & {"matplotlib", "seaborn"} and wing(name) not in DRAW}
    assert draw == set()


def test_the_ground_imports_no_torch():
    ground = sorted(
        name for name in MODULES if name != "zsad_lib" and wing(name) and layer(name) == 0 and "__main__" not in name
    )
    code = (
        f"import importlib, sys\nfor name in {ground}:\n    importlib.import_module(name)\nassert 'torch' not in"
        " sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_few_files_lie_beside_the_wings():
    assert len(list((ROOT / "zsad_lib").glob("*.py"))) <= 12


def test_a_file_is_read_in_one_sitting():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def code_lines(code: str) -> int:
    """Lines that hold code: no blanks, comments or docstrings; a statement over three lines counts three."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    words = [word for word in tokenize.generate_tokens(io.StringIO(code).readline) if word.type not in skipped]
    lines = {line for word in words for line in range(word.start[0], word.end[0] + 1)}
    for node in ast.walk(ast.parse(code)):
        holds_docstring = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if holds_docstring and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_no_wing_outgrows_the_others():
    sizes = collections.Counter()
    for name, path in MODULES.items():
        sizes[wing(name) if path.parent != ROOT / "zsad_lib" else "top"] += code_lines(path.read_text(encoding="utf-8"))
    (largest, lines), whole = sizes.most_common(1)[0], sizes.total()
    assert lines <= 0.135 * whole, f"{largest} holds {lines} of {whole} lines of code"


def test_lines_of_code_are_counted_without_what_explains_them():
    code = (
        '"""Doc.\n\nMore.\n"""\n\n# why\nx = (\n    1\n)  # one\n\n\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    )
    assert code_lines(code) == 3 + 1 + 2


def test_old_paths_lead_to_the_new_ones_or_say_where_they_are():
    assert {zsad_lib.full_name(home) for homes in zsad_lib.MOVED.values() for home in homes} <= set(MODULES)
    code = "try:\n    import zsad_lib.series\nexcept ModuleNotFoundError as error:\n    print(error)"
    said = subprocess.check_output([sys.executable, "-c", code], encoding="utf-8", cwd=ROOT)
    assert said == "zsad_lib.series is now zsad_lib.files.score_files; change the import\n"
    with pytest.raises(
        ModuleNotFoundError, match="^data_prep.weak_lists is now data_prep.video_level_lists; change the import$"
    ):
        importlib.import_module("data_prep.weak_lists")
    command = [sys.executable, "-m", "zsad_lib.ablate"]
    started = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", cwd=ROOT, check=False)
    assert started.returncode and started.stderr.count("\n") == 1 and "zsad_lib.ablations.run" in started.stderr
    code = """
import zsad_lib as z
import zsad_lib.train, zsad_lib.video as video
from zsad_lib.trial import BASE
from zsad_lib import tables
from zsad_lib.features import cache_folder
from zsad_lib.evaluate import evaluate
import zsad_lib.ablations.trial
assert z.train is zsad_lib.train and z.train.__name__ == "zsad_lib.methods.context_aware.train"
assert video is z.video and video.read_video is z.read_video and video.resize is zsad_lib.files.decoding.resize
assert z.paths.__spec__.name == "zsad_lib.files.paths"
assert callable(z.figures.style)  # the function, not the module of that name
assert BASE is zsad_lib.ablations.trial.BASE and z.pipeline.run_folder and z.own_video.score_video is z.score_video
for name in (*z.KEPT, *z._NAMES):
    getattr(z, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_documents_name_paths_of_today():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "docs" / "equations.csv",
        *ROOT.glob("notebooks/*.ipynb"),
    ]
    for page in sorted(pages):
        for old in re.findall(r"(?<![\w./])((?:zsad_lib|data_prep)\.\w+)", page.read_text(encoding="utf-8")):
            assert old not in zsad_lib.MOVED or old in MODULES, (
                f"{page.name}: {old} is now {zsad_lib.full_name(zsad_lib.MOVED[old][0])}"
            )


def purpose(name: str) -> str:
    """The first paragraph of a wing's docstring, as one line."""
    path = MODULES["data_prep" if name == "data_prep" else f"zsad_lib.{name}"]
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(text.replace("``", "`").split())


def test_the_page_on_architecture_is_that_of_the_code():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = []
    for number, wings in enumerate(LAYERS, start=1):
        for name in sorted(wings):
            folder = MODULES["data_prep" if name == "data_prep" else f"zsad_lib.{name}"].name == "__init__.py"
            rows.append(f"| {number} | `{name}{'/' if folder else '.py'}` | {purpose(name)} |")
    table = "\n".join(["| Layer | Wing | What lives there |", "|---|---|---|", *rows])
    assert re.search(r"<!-- layers -->\n(.*?)\n<!-- /layers -->", page, re.DOTALL)[1] == table, (
        f"it should be:\n{table}"
    )
    named = re.findall(r"`((?:zsad_lib|data_prep)[\w.]*):(\w+)`", page)
    assert len(named) > 15
    for module, attribute in named:
        assert hasattr(importlib.import_module(module), attribute), f"{module}:{attribute}"
