"""What notebooks say: numbers that are no result say so, words are explained where they come first, and every notebook
leads to the glossary."""

import ast
import json
import re
from pathlib import Path

import pytest

from zsad_lib.maintenance import notebook_map

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
MEASURES = re.compile(  # words of a line that prints how well something does on the profile's data
    r"AUC|auc\b|micro|\bAP\b|recall|accuracy|lift|chance|order'|you named|in right order|inside the |reached|heads:"
    r"|frame_share|best first|inside\.mean"
)
WITH_INTERVALS = ("30", "31", "32", "33", "34", "44", "60")  # their tables hold an interval for each number


def cells(path: Path, kind: str) -> list[str]:
    book = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def unmarked(code: list[str]) -> list[str]:
    """Lines that print how well something does, and do not say where that is no result."""
    calls = [node for cell in code for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
    printed = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "print"]
    return [line for line in printed if MEASURES.search(line) and "z.mark()" not in line]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_printed_measure_says_where_it_is_no_result(name):
    code = cells(NOTEBOOKS[name], "code")
    assert unmarked(code) == [], "print(..., z.mark())"
    assert not re.search(r"display\(|Markdown\(", "\n".join(code)), "z.say prints sentences"


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name.startswith(WITH_INTERVALS)])
def test_sentences_pass_the_interval_where_the_table_has_one(name):
    source = "\n".join(cells(NOTEBOOKS[name], "code"))
    said = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    said = [ast.unparse(call) for call in said if ast.unparse(call.func) == "z.say"]
    assert "z.interval(" in source
    assert not [one for one in said if re.search(r"\b(lo|low|hi|high)=|{(l|lo|low|h|hi|high)[:}]", one)]


def test_a_measure_without_its_mark_would_be_noticed():
    assert unmarked(["print(f'micro AUC {auc:.3f}')", "print(f'{n} clips')", "print('AUC', 0.5, z.mark())"]) == [
        "print(f'micro AUC {auc:.3f}')"
    ]


def test_notebook_00_holds_the_map():
    notebooks = notebook_map.claims(ROOT / "notebooks")
    [cell] = [cell for cell in cells(NOTEBOOKS[notebook_map.START], "markdown") if "<!-- results:notebooks -->" in cell]
    rows = re.findall(r"^\| \[(.+?)\]\((\w+)\.ipynb\)[^|]*\| (.+?) \|", cell, re.MULTILINE)
    assert rows == list(zip(notebooks.title, notebooks.notebook, notebooks.claim)), (
        "python -m zsad_lib notebook-map writes the map again"
    )
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    minutes = re.compile(r"(\w+)\.ipynb\)[^|]*\|[^|]*\|( [-<.\d ]+ \| [-<.\d ]+ \|)")
    assert minutes.findall(cell) == minutes.findall(page), "one source, one set of minutes"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_leads_to_the_glossary_and_no_link_is_dead(name):
    """The links are relative to the notebook: JupyterLab, whose folder is the kit's, and a code host follow them."""
    prose = cells(NOTEBOOKS[name], "markdown")
    assert "[glossary](../docs/glossary.md)" in prose[0]
    links = [link for text in prose for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (NOTEBOOKS[name].parent / link).exists()] == []


@pytest.mark.parametrize("word", ["anchor", "anchored", "head", "hinge", "Holm's correction", "projection", "trial"])
def test_words_are_explained_where_they_come_first(word):
    """In italics, as a new word stands, in the first notebook whose prose has it; and in the glossary."""
    prose = {name: "\n".join(cells(path, "markdown")[1:]) for name, path in NOTEBOOKS.items()}
    first = next(name for name, text in prose.items() if re.search(rf"\b{word}\b", text))
    assert re.search(rf"\*{word}\*", prose[first]), first
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| \*\*[^|]*\b{word}\b[^|]*\*\* \|", glossary, re.MULTILINE)
