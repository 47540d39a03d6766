"""What the documents promise is there: names, equations, notebooks, links, commands, numbers."""

import csv
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

import zsad_lib
from zsad_lib.ablations.run import ALL
from zsad_lib.config import PROFILES
from zsad_lib.files.weights import SHIPPED, load_weights
from zsad_lib.maintenance import front_page, notebook_map

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
with open(ROOT / "docs" / "equations.csv", encoding="utf-8", newline="") as file:
    EQUATIONS = list(csv.DictReader(file))
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("docs/*.md")),
        ROOT / "zsad_lib/shipped_weights/README.md",
    )
]
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
    here = notebook_map.claims(ROOT / "notebooks")
    assert {row["notebook"] for row in EQUATIONS} <= set(here.notebook)
    rows = re.findall(r"\(notebooks/(\w+)\.ipynb\)[^|]*\| (.+?) \|", README)
    assert rows == list(zip(here.notebook, here.claim)), "python -m zsad_lib notebook-map writes the map again"


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings in lower case, words joined by dashes."""
    headings = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target = path.parent / link if link else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    text, makefile = (ROOT / page).read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    named = re.findall(r"`make ([a-z][^`]*)`", text) + re.findall(r"^make ([a-z].*?)(?:  #|$)", text, re.MULTILINE)
    for command in named:
        words = [word for word in shlex.split(command) if "=" not in word]
        assert words and set(words) <= targets, command
        for setting in (word.partition("=")[0] for word in shlex.split(command) if "=" in word):
            assert re.search(rf"^{setting} \?=", makefile, re.MULTILINE), command
    assert named or page not in ("README.md", "CONTRIBUTING.md", "docs/use.md", "docs/faq.md", "docs/extend.md")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_settings_named_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    names = re.findall(r"`((?:zsad_lib|data_prep|tests|docs|notebooks)/[\w./-]+)`", text)
    assert [name for name in names if not (ROOT / name).exists()] == []
    for profile in re.findall(r"PROFILE=(\w+)", text):
        assert profile in PROFILES or page == "docs/extend.md", profile
    for grid in re.findall(r"GRID=(\w+)", text):
        assert grid in ALL or page == "docs/extend.md", grid


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


@pytest.mark.parametrize("name", front_page.SHOWN)
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


def test_the_citation_file_is_valid_and_of_this_version():
    """Fields of CFF 1.2.0: those it requires, and the kinds of works and names it knows."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited) and cited["cff-version"] == "1.2.0"
    assert cited["version"] == zsad_lib.__version__ and cited["type"] == "software" and cited["license"] == "MIT"
    for work in cited["references"]:
        assert work["type"] in ("article", "conference-paper") and work["title"] and isinstance(work["year"], int)
        assert work["authors"] and all(set(name) == {"family-names", "given-names"} for name in work["authors"])
    addresses = {work.get("url") for work in cited["references"]}
    assert set(re.findall(r"https://arxiv\.org/abs/[\d.]+", README)) <= addresses, "papers of the front page are cited"


def test_ci_calls_make_test():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 and run.read_text().splitlines()[-1] == "make test"
