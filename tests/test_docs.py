"""What the documents promise is there: names, equations, notebooks, links, commands, numbers."""

import csv
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest

from zsad_lib import showcase
from zsad_lib.config import PROFILES
from zsad_lib.weights import SHIPPED, load_weights

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
with open(ROOT / "docs" / "equations.csv", encoding="utf-8", newline="") as file:
    EQUATIONS = list(csv.DictReader(file))
SOURCE = re.compile(r"Papers?:|Paper\b|References:|Eq\. ?\(?\d|[Rr]eleased code|kit's|[Pp]rotocol|arXiv")


def docstrings(name: str) -> list[str]:
    """Docstrings of the object `module:name`, of the class it is in, and of its module, blanks made one."""
    module_name, _, path = name.partition(":")
    holders = [importlib.import_module(module_name)]
    for part in path.split("."):
        holders.append(getattr(holders[-1], part))
    return [" ".join((inspect.getdoc(holder) or "").split()) for holder in reversed(holders)]


def test_equations_have_the_promised_columns():
    assert list(EQUATIONS[0]) == ["equation", "symbol", "module:name", "notebook", "deviation"]
    assert len(EQUATIONS) > 30 and all(None not in row.values() for row in EQUATIONS)


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row["module:name"].rpartition(":")[2])
def test_equation_stands_in_the_docstring_with_its_source(row):
    found = docstrings(row["module:name"])
    assert found[0], "the name has a docstring of its own"
    assert any(row["equation"] in text for text in found), row["equation"]
    assert any(SOURCE.search(text) for text in found), "paper, released code, or the kit's own"


def test_a_wrong_equation_would_be_noticed():
    found = docstrings("zsad_lib.models.gates:LnGate")
    assert not any("t' = t - beta * sigmoid(h) * h" in text for text in found)


def test_notebooks_named_exist_and_all_are_on_the_map():
    here = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {row["notebook"] for row in EQUATIONS} <= here
    assert set(re.findall(r"\(notebooks/(\w+)\.ipynb\)", README)) == here


@pytest.mark.parametrize("page", ["README.md", "docs/glossary.md", "docs/gpu.md", "zsad_lib/weights/README.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_commands_exist():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    named = re.findall(r"`make ([a-z][^`]*)`", README) + re.findall(r"^make ([a-z].*?)(?:#|$)", README, re.MULTILINE)
    words = {word for command in named for word in command.split() if "=" not in word}
    assert len(words) > 6 and words <= targets
    settings = {word.partition("=")[0] for command in named for word in command.split() if "=" in word}
    assert all(re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in settings)


def test_the_page_on_gpus_names_what_is_there():
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    usual = {"no": (False, "no"), "0": (0,)}
    assert len(rows) == 6 and rows.pop("jobs") == "cores"
    assert all(getattr(PROFILES["demo"], name) in usual[default] for name, default in rows.items())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, settings in re.findall(r"make ([a-z]+)((?: [A-Z_]+=)?)", page):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
        assert not settings or re.search(rf"^{settings[1:-1]} \?=", makefile, re.MULTILINE), settings


def test_first_screen_holds_picture_and_commands():
    screen = README[: README.index("## ")]
    assert screen.index("<!-- results:picture -->") < screen.index("make reproduce") < screen.index("make test")


@pytest.mark.parametrize("name", showcase.SHOWN)
def test_results_on_the_front_page_are_those_of_the_run(name):
    block = re.search(rf"<!-- results:{name} -->(.*?)<!-- /results -->", README, re.DOTALL)[1]
    numbers = re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", block)
    page = ROOT / "docs" / "results" / f"{name}.md"
    assert bool(numbers) == page.is_file(), "`make showcase` fills the page and the front page together"
    assert [number for number in numbers if number not in page.read_text(encoding="utf-8")] == []


def test_shipped_weights_are_described():
    text = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for path in SHIPPED.glob("*.safetensors"):
        assert path.name in text and load_weights(path)[1]["sha256"]


def test_conda_environment_reads_the_lock():
    text = (ROOT / "environment.yml").read_text()
    assert re.search(r"^name: \w+$", text, re.MULTILINE) and re.search(r"- python=3\.1[1-9]\n", text)
    assert re.search(r"- pip\n\s+- pip:\n\s+- -r requirements\.lock\n", text)


def test_ci_calls_make_test():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 and run.read_text().splitlines()[-1] == "make test"
