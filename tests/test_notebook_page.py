"""Pages of executed notebooks fetch nothing, and every formula of the notebooks is drawn."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat import v4

from zsad_lib.results import notebook_page

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+)\$", re.DOTALL)


@pytest.fixture
def notebook(tmp_path):
    cells = [
        v4.new_markdown_cell(
            "# 07 · Look\n\nSee [the next](08_next.ipynb), [all](60_all.ipynb#end), [a"
            " paper](https://arxiv.org/abs/1807.03748) and [words](../docs/glossary.md#b)."
        ),
        v4.new_markdown_cell("Mean $\\mu_k$ of\n\n$$\\begin{aligned}a &= \\frac{1}{2}\\\\ b &= 3\\end{aligned}$$"),
        v4.new_markdown_cell("<details><summary>Hint</summary>Use $a < b$.</details>"),
        v4.new_code_cell(
            "1", outputs=[v4.new_output("display_data", {"text/plain": "drawn", "application/javascript": "go()"})]
        ),
    ]
    source = "<style>pre { line-height: 125%; }\n.output_html .k { color: #008000 }</style><div>def</div>"
    cells.append(v4.new_code_cell("z.show(f)", outputs=[v4.new_output("display_data", {"text/html": source})]))
    path = tmp_path / "07_look.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    end(path)
    return path


def end(notebook: Path) -> None:
    """As its last cell does."""
    folder = notebook.with_suffix("")
    folder.mkdir()
    (folder / "result.json").write_text("{}")


def test_page_fetches_nothing_and_holds_its_formulas(notebook):
    page = notebook_page.write(notebook).read_text()
    assert not re.search(r"""<(?:script|link|iframe)|src=["']?http|@import|url\(["']?http""", page)
    assert page.count("<math") == 3 and "$" not in page and "<mtable" in page and "go()" not in page and "drawn" in page
    assert "<div>def</div>" in page and ".output_html .k" not in page
    assert "<title>07 · Look</title>" in page
    assert 'href="https://arxiv.org/abs/1807.03748"' in page and " and words.</p>" in page


def test_pages_link_to_what_was_executed_and_follow_it(notebook):
    (page,) = notebook_page.refresh(notebook.parent)
    assert "See the next, all, <a" in page.read_text()  # no page of them to go to
    other = notebook.with_name("60_all.ipynb")
    other.write_bytes(notebook.read_bytes())
    assert notebook_page.refresh(notebook.parent) == [page]  # it has failed
    end(other)
    assert notebook_page.refresh(notebook.parent) == [page, other.with_suffix(".html")]
    assert 'See the next, <a href="60_all.html#end">all</a>, <a' in page.read_text()


def test_page_is_written_again_when_other_code_made_it(notebook):
    made = notebook_page.refresh(notebook.parent)[0]
    before = made.read_text()
    made.write_text(before.replace("drawn", "kept"))
    assert "kept" in notebook_page.refresh(notebook.parent)[0].read_text()
    made.write_text(before.replace(notebook_page.mark([notebook.stem]), "0" * 64).replace("drawn", "kept"))
    assert notebook_page.refresh(notebook.parent)[0].read_text() == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_is_mathml(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "markdown"]
    for block, inline in FORMULA.findall("\n\n".join("".join(cell["source"]) for cell in cells)):
        found = notebook_page.mathml(block or inline, "block" if block else "inline")
        assert "<math" in found, block or inline
        text = "".join(ElementTree.fromstring(found).itertext())
        assert not {"\\", "&", "$"} & set(text), text


def test_bars_are_as_long_as_what_is_under_them_and_words_stand_apart():
    assert notebook_page.mathml(r"\overline{a+b}").count("border-top") == 1
    assert "mspace" in notebook_page.mathml(r"\log p") and "mspace" not in notebook_page.mathml(r"\log(p)")


def test_what_cannot_be_converted_stays_readable():
    assert notebook_page.mathml(r"\unheardof{a} < b") == r"<code>\unheardof{a} &lt; b</code>"
    assert notebook_page.mathml(r"\left( x") == r"<code>\left( x</code>"
    assert notebook_page.mathml("a & b") == "<code>a &amp; b</code>"
