"""The frame of every notebook: parameters, set-up, prose, exercises, summary and results stand where the conventions
say."""

import ast
import copy
import json
import re
from pathlib import Path

import pytest

from zsad_lib.config import PROFILES, as_dict

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
HEAD = ("**You will learn**", "**Needs**", "**Paper**")


def faults(name: str, book: dict) -> list[str]:
    """Everything in which a notebook departs from the frame."""
    cells = book["cells"]
    text = ["".join(cell["source"]) for cell in cells]
    code = [(i, text[i]) for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    prose = "\n\n".join(text[i] for i, cell in enumerate(cells) if cell["cell_type"] == "markdown")
    tags = [(tag, i) for i, cell in enumerate(cells) for tag in cell["metadata"].get("tags", [])]
    places = [i for i, _ in code]
    return [
        *_head(name, text[0], prose),
        *_tags(tags, places),
        *[fault for tag, i in tags if tag == "parameters" for fault in _parameters(text[i])],
        *_body(code, len(cells)),
        *_stored(book, cells),
    ]


def _head(name: str, first: str, prose: str):
    if not re.fullmatch(r"\d\d_[a-z0-9]+(_[a-z0-9]+)+", name):
        yield f"the name {name} is not NN_verb_object"
    if not re.match(rf"# {name[:2]} · \S", first):
        yield f"the first cell does not start with '# {name[:2]} · Title'"
    yield from (f"the first cell lacks {part}" for part in HEAD if part not in first)
    for heading in ("## Check yourself",):
        if heading not in prose:
            yield f"no heading {heading!r}"
    if not 2 <= len(re.findall(r"\*\*Exercise \d\*\*", prose)) <= 3:
        yield "not two or three exercises"
    if prose.count("<summary>Hint</summary>") < 2 or prose.count("<summary>Solution</summary>") < 2:
        yield "an exercise without a folded hint and solution"
    if prose.count("**What to look for.**") < 2:
        yield "fewer than two readings of a figure"
    if "**Next:**" not in prose:
        yield "no pointer to the next notebook"


def _tags(tags: list[tuple[str, int]], places: list[int]):
    if [tag for tag, _ in tags] != ["parameters", "setup", "results"]:
        yield f"tags {[tag for tag, _ in tags]}, expected parameters, setup, results in this order"
    elif [i for _, i in tags] != [places[0], places[1], places[-1]]:
        yield "parameters and setup must be the first two code cells, results the last"


def _parameters(source: str):
    for line in filter(None, source.splitlines()):
        value, _, comment = line.partition("#")
        try:
            node = ast.parse(value).body[0]
            ast.literal_eval(node.value)
            plain = isinstance(node, ast.Assign) and node.targets[0].id.isupper()
        except (SyntaxError, ValueError, AttributeError, IndexError):
            plain = False
        if not plain:
            yield f"parameter line {line!r} is not one NAME = literal"
        if not comment.strip() or "=" in comment:
            yield f"the comment of parameter line {line!r} is missing or holds '=', which hides it from papermill"
    if not re.search(r"^PROFILE = \"smoke\"", source, re.MULTILINE):
        yield "PROFILE does not start as smoke"


def _body(code: list[tuple[int, str]], count: int):
    everything = "\n".join(source for _, source in code)
    tree = ast.parse(everything)
    if not 20 <= count <= 40:
        yield f"{count} cells, expected 20 to 40"
    for i, source in code:
        lines = sum(bool(line.strip()) for line in source.splitlines())
        if lines > 25:
            yield f"code cell {i} has {lines} lines, at most 25"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield f"class {node.name} belongs into the library"
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 20:
            yield f"function {node.name} belongs into the library"
    if "import zsad_lib as z" not in code[1][1] or "run = z.begin(globals()" not in code[1][1]:
        yield "the set-up cell does not begin the run"
    if "run.finish(" not in code[-1][1]:
        yield "the last cell does not finish the run"
    says = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "z.say"]
    if len(says) != 3 or not all(call.keywords and "{" in ast.unparse(call.args[0]) for call in says):
        yield f"{len(says)} statements of z.say, expected three with computed values"
    if len(re.findall(r"z\.checks\.\w+\(my_", everything)) < 2:
        yield "fewer than two checked exercises"
    if re.search(r"^my_\w+ = (?!z\.solutions\.\w+  # replace by your own$)", everything, re.MULTILINE):
        yield "an exercise does not say where one's own answer goes"
    if re.search(r"chdir|sys\.exit|[\"']\.\./", everything):
        yield "chdir, sys.exit or a relative path"


def _stored(book: dict, cells: list[dict]):
    if book["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec is not python3"
    if set(book["metadata"]) - {"kernelspec", "language_info"}:
        yield f"metadata {sorted(book['metadata'])}: strip what tools left behind"
    if any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
        yield "outputs or execution counts are stored"
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "cell ids are missing or doubled"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_frame(path):
    assert faults(path.stem, json.loads(path.read_text(encoding="utf-8"))) == []


def test_there_are_notebooks():
    assert "00_start_here" in [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_settings(path):
    """A parameter is a setting of the profile, or declared to begin() by the notebook."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names = re.findall(r"^(\w+) =", "".join(cells[0]["source"]), re.MULTILINE)
    declared = re.findall(r"(\w+)=", re.search(r"begin\((.*)\)", "".join(cells[1]["source"]))[1])
    settings = {name.upper() for name in as_dict(PROFILES["smoke"])}
    assert set(names) <= {"PROFILE", *declared} | settings


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda book: book["cells"][1]["metadata"].clear(), "expected parameters, setup, results"),
        (
            lambda book: book["cells"][1].update(source='PROFILE = "smoke"  # default = smoke'),
            "hides it from papermill",
        ),
        (lambda book: book["cells"][1].update(source='PROFILE = "demo"  # which'), "does not start as smoke"),
        (lambda book: book["cells"][1].update(source="PROFILE = name()  # which"), "not one NAME = literal"),
        (lambda book: book["cells"][1].update(outputs=[{"output_type": "stream"}]), "outputs or execution counts"),
        (lambda book: book["cells"][2].update(source="run = 1"), "does not begin the run"),
        (lambda book: book["cells"][-1].update(source="x = 1\n" * 26), "has 26 lines"),
        (lambda book: book["cells"][-1].update(source="class A:\n    x = 1"), "class A belongs into the library"),
        (lambda book: book["cells"][-1].update(source='z.say("typed")'), "4 statements of z.say"),
        (lambda book: book["cells"][-1].update(source="my_cell = z.solutions.cell"), "one's own answer goes"),
        (lambda book: book["cells"][0].update(source="# Title"), "does not start with '# 00 · Title'"),
        (lambda book: book["metadata"]["kernelspec"].update(name="python"), "kernelspec is not python3"),
        (lambda book: book["cells"].__delitem__(slice(5, 12)), "expected 20 to 40"),
        (lambda book: book["cells"][3].update(id=book["cells"][4]["id"]), "doubled"),
    ],
)
def test_departures_are_found(change, fault):
    book = copy.deepcopy(json.loads(NOTEBOOKS[0].read_text(encoding="utf-8")))
    change(book)
    assert any(fault in found for found in faults("00_start_here", book))
