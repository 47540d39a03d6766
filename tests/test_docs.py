"""What the documents promise is there: names, equations, notebooks, links, commands, numbers."""

import ast
import csv
import importlib
import inspect
import json
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

import zsad_lib
from zsad_lib.ablations.run import ALL
from zsad_lib.config import PROFILES
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.features.published_weights import NEEDED
from zsad_lib.files.weights import SHIPPED, load_weights
from zsad_lib.maintenance import front_page, notebook_map
from zsad_lib.results import report_cards

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
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    rows = re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)[^|]*\| (.+?) \|.*\| (.*?) \|\n", page)
    assert rows == list(zip(here.notebook, here.claim, here.teaches)), (
        "python -m zsad_lib notebook-map writes the map again"
    )


def arrows(notebooks: pd.DataFrame, sources: dict[str, str]) -> tuple[set, set]:
    """(notebook, file) as the notebooks' first cells say, and as the first lines of the files say."""
    there = {(row.notebook, file) for row in notebooks.itertuples() for file in re.findall(r"`(.+?)`", row.teaches)}
    back = {
        (name, file)
        for file, text in sources.items()
        for line in re.findall(r"^Notebooks?: (.+)$", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE)
        for name in line.split(", ")
    }
    return there, back


def test_notebooks_and_library_files_find_each_other():
    notebooks = notebook_map.claims(ROOT / "notebooks")
    files = [path for folder in ("zsad_lib", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}
    there, back = arrows(notebooks, sources)
    assert there == back, "the first cell says what it teaches, the first lines of that file say `Notebook: NN_name`"
    assert {name for name, _ in there} == set(notebooks.notebook), "each teaches at least one file"
    coded = {(row["notebook"], row["module:name"].partition(":")[0].replace(".", "/") + ".py") for row in EQUATIONS}
    assert coded <= there, "a notebook with an equation teaches the file that codes it"


def test_an_arrow_without_its_way_back_would_be_noticed():
    notebooks = pd.DataFrame({"notebook": ["13_gate"], "teaches": ["`zsad_lib/a.py`, `zsad_lib/gone.py`"]})
    there, back = arrows(notebooks, {"zsad_lib/a.py": '"""A.\n\nNotebooks: 13_gate, 14_more\n"""', "zsad_lib/b.py": ""})
    assert there - back == {("13_gate", "zsad_lib/gone.py")} and back - there == {("14_more", "zsad_lib/a.py")}


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
        assert profile in (*PROFILES, *NEEDED) or page == "docs/extend.md", profile
    for grid in re.findall(r"GRID=(\w+)", text):
        assert grid in ALL or page == "docs/extend.md", grid


def test_the_page_on_gpus_names_what_is_there():
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    usual = {"no": (False, "no"), "0": (0,)}
    assert len(rows) == 5 and rows.pop("jobs") == "cores"
    assert all(getattr(PROFILES["demo"], name) in usual[default] for name, default in rows.items())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, settings in re.findall(r"make ([a-z]+)((?: [A-Z_]+=)?)", page):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
        assert not settings or re.search(rf"^{settings[1:-1]} \?=", makefile, re.MULTILINE), settings


def test_first_screen_holds_picture_and_commands():
    screen = README[: README.index("## ")]
    assert screen.index("<!-- results:film -->") < screen.index("make reproduce") < screen.index("make test")


def read_tables(text: str) -> dict[str, dict[str, str]]:
    """Row name -> heading -> cell, of all Markdown tables of a page but those at a threshold that test events set."""
    text = re.sub(
        r"^Detection on [^\n]*not known beforehand.*?(?=^Detection on|\Z)", "", text, flags=re.MULTILINE | re.DOTALL
    )
    cells: dict[str, dict[str, str]] = {}
    for head, body in re.findall(r"^(\|.*)\n\|[:|-]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        headings = [heading.strip() for heading in head.strip("|").split("|")]
        for line in body.splitlines():
            name, *values = [cell.strip() for cell in line.strip("|").split("|")]
            cells[name] = dict(zip(headings[1:], values)) | cells.get(name, {})
    return cells


def front_table() -> list[dict[str, str]]:
    """Rows of the front page's tables, heading -> cell."""
    block = re.search(r"<!-- results:table -->\n(.*?)<!-- /results -->", README, re.DOTALL)[1]
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", block, re.MULTILINE):
        headings, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found += [dict(zip(headings, row)) for row in rows]
    return found


TOLD = ("Data", "Method", "Why this row", "Learned from", "Micro AUC, causal", "Clip AUC, weakest family")
PAGES_OF = {
    words[0]: read_tables((ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8"))
    for name, words in front_page.SHOWN.items()
}


def value(data: str, method: str, heading: str) -> float:
    return float(PAGES_OF[data][method][heading].split()[0])


def test_numbers_on_the_front_page_are_those_of_the_runs():
    rows = front_table()
    of_each = Counter(row["Data"] for row in rows)
    assert set(of_each) == set(PAGES_OF) and max(of_each.values()) <= 8
    for row in rows:
        method, page = row["Method"].strip("`"), PAGES_OF[row["Data"]]
        for heading in (heading for heading in row if heading not in TOLD):
            assert row[heading] == page[method].get(heading, "-"), (row["Data"], method, heading)
        if "Micro AUC, causal" in row:
            assert row["Micro AUC, causal"] == page.get(f"{method} (causal)", {}).get("Micro AUC", "-")
    kept = json.loads((ROOT / "docs" / "results" / "front_page.json").read_text(encoding="utf-8"))
    assert front_page.front_table(kept) in README, "`make showcase` writes both"
    assert all(word in kept[name]["about"] for name in kept for word in ("Test split", "seed", "95 %", "abnormal"))


def test_rows_on_the_front_page_follow_the_rule():
    for data, page in PAGES_OF.items():
        rows = {row["Method"].strip("`"): row["Why this row"] for row in front_table() if row["Data"] == data}
        assert set(front_page.FORMS) & set(page) <= set(rows)
        chosen = {why: name for name, reasons in rows.items() for why in reasons.split("; ")}
        methods = [name for name in page if re.fullmatch(r"\w+", name) and page[name].get("Micro AUC", "-") != "-"]
        of_floors = {*FLOORS, "motion_floor", "actor_count"}
        others = [name for name in methods if name not in {*front_page.FORMS, *front_page.STREAMS, *FLOORS}]
        others = [name for name in others if name != "actor_count"]
        floors = [name for name in methods if name in of_floors]
        for why, names in (("the strongest other method", others), ("the strongest floor", floors)):
            assert value(data, chosen[why], "Micro AUC") == max(value(data, name, "Micro AUC") for name in names)


def test_limits_on_the_front_page_are_five_lines_and_lead_to_the_full_ones():
    limits = README.partition("\n## Limits\n")[2].partition("\n## ")[0]
    assert len(re.findall("^- ", limits, re.MULTILINE)) == 5 and "(docs/model_card.md)" in limits
    assert README.count("docs/results/demo.md") == README.count("docs/results/ped2.md") == 1


def test_the_model_card_is_that_of_the_package_filled():
    lines = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8").splitlines()
    assert lines.pop(0) in front_page.CARD_NOTE
    template = report_cards.CARD.read_text(encoding="utf-8")
    assert report_cards.LIMITS in template and "](" not in template, "a report's page can follow no relative link"
    for line in template.splitlines():
        pattern = re.sub(r"\\{.*?\\}", "[^{}]+", re.escape(line))
        if lines and re.fullmatch(pattern, lines[0]):
            lines.pop(0)
        else:
            assert "{" in line, f"`make showcase` fills the card again; it lacks: {line}"
    assert not lines, f"`make showcase` fills the card again; not in zsad_lib/results/model_card.md: {lines[0]}"
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert any(report_cards.CARD in (ROOT / "zsad_lib").glob(pattern) for pattern in packed["zsad_lib"])


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
