"""The map of notebooks in docs/notebooks.md and in notebook 00: what each one claims, what it teaches, and the minutes
that it took.

`python -m zsad_lib notebook-map` writes both again, after a notebook was added too; `make showcase` does so as well.
Claims come from the notebooks' first cells, minutes from the runs that are there; of other runs,
docs/results/minutes.csv keeps what was measured.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.artefacts import read_result
from zsad_lib.pipeline.run_step import run_folder, steps_of

SHOWN = ("smoke", "demo")  # profiles with a column, once they have been measured
START = "00_start_here"  # the notebook that holds the map as well
STEPS = "compute steps"  # row of what is computed once, before the notebooks
TITLE, CLAIM = r"^# (\d\d) · (.+)", r"^\*\*Claim\.\*\* (.+?[.!?])(?: |$)"
TEACHES, GRID = r"^\*\*Teaches\*\* (.+)", r"make ablate (GRID=\w+)"


def claims(folder: Path) -> pd.DataFrame:
    """`notebook`, `title`, `claim` (its first sentence), `teaches` (library files) and `after` (a grid) of each in
    `folder`.

    The last two are "" where the first cell names none.

    Raises:
        ZsadError: a notebook whose first cell has no title or no claim.
    """
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, claim, teaches, grid = (re.search(line, text, re.MULTILINE) for line in (TITLE, CLAIM, TEACHES, GRID))
        if not (title and claim):
            raise ZsadError(f"{path}: its first cell needs `# NN · Title` and a line `**Claim.** ...`")
        named = teaches[1] if teaches else ""
        rows.append((path.stem, f"{title[1]} {title[2]}", claim[1], named, grid[1] if grid else ""))
    return pd.DataFrame(rows, columns=["notebook", "title", "claim", "teaches", "after"])


def measured(profile: str) -> dict[str, float]:
    """Seconds of each notebook of a run, and of all its compute steps together; {} where there is no such run.

    They are those that `run.finish` wrote, whoever executed the notebook: from the end of its set-up cell to its last
    line, so without the loading of libraries, which any page of Python pays.
    """
    run, found = run_folder(get_profile(profile)), {}
    for file in sorted((run / "notebooks").glob("*/result.json")):
        found[file.parent.name] = paths.read_json(file, "seconds")["seconds"]
    steps = [read_result(run / step) or {} for step in steps_of(get_profile(profile))]
    if found and all("began" in result for result in steps):
        found[STEPS] = _at_work(steps)
    return found


def _at_work(results: Iterable[dict]) -> float:
    """Seconds in which at least one step ran: those that do not need each other run at the same time.

    >>> _at_work([{"began": 1.0, "seconds": 10.0}, {"began": 5.0, "seconds": 8.0}, {"began": 99.0, "seconds": 1.0}])
    13.0
    """
    total, until = 0.0, float("-inf")
    for began, seconds in sorted((result["began"], result["seconds"]) for result in results):
        total += max(began + seconds - max(began, until), 0.0)
        until = max(until, began + seconds)
    return total


def update_minutes(home: Path) -> pd.DataFrame:
    """Adds the runs that are there to docs/results/minutes.csv: [item, profile] of minutes, NaN where not measured."""
    file, columns = home / "docs" / "results" / "minutes.csv", ["profile", "item", "seconds"]
    spent = {(row.profile, row.item): row.seconds for row in pd.read_csv(file).itertuples()} if file.is_file() else {}
    spent |= {(profile, item): seconds for profile in SHOWN for item, seconds in measured(profile).items()}
    there = {STEPS, *(path.stem for path in (home / "notebooks").glob("*.ipynb"))}
    rows = [(*key, spent[key]) for key in sorted(spent) if key[1] in there]  # not of a notebook that is gone
    table = pd.DataFrame(rows, columns=columns)
    with paths.atomic(file) as handle:
        table.to_csv(handle, index=False, float_format="%.1f", lineterminator="\n")
    minutes = table.assign(minutes=table.seconds / 60).pivot(index="item", columns="profile", values="minutes")
    return minutes.reindex(columns=[profile for profile in SHOWN if profile in minutes])


def tabulate(notebooks: pd.DataFrame, minutes: pd.DataFrame, to: str = "../notebooks/", teaches: bool = True) -> str:
    """The map in Markdown.

    Args:
        notebooks: of `claims`.
        minutes: of `update_minutes`.
        to: way to the notebooks' folder.
        teaches: with a column of library files, and a last row of the compute steps.
    """
    minutes = minutes.reindex([*notebooks.notebook, STEPS])
    text = lambda value: "-" if pd.isna(value) else "< 0.1" if value < 0.05 else f"{value:.1f}"
    shown = lambda item: "".join(f" {text(value)} |" for value in minutes.loc[item])
    lines = [
        "| Notebook | What it claims |" + "".join(f" Minutes, `{name}` |" for name in minutes),
        "|---|---|" + "---:|" * len(minutes.columns),
    ]
    for row in notebooks.itertuples():
        after = f", after `make ablate {row.after}`" if row.after else ""
        lines.append(f"| [{row.title}]({to}{row.notebook}.ipynb){after} | {row.claim} |{shown(row.notebook)}")
    if teaches:
        steps = "data, features, training, scores, evaluation, tables, figures, films"
        lines.append(f"| *{STEPS}, once* | *{steps}* |{shown(STEPS)}")
        last = [" What it teaches |", "---|", *(f" {files} |" for files in notebooks.teaches), " |"]
        lines = [line + more for line, more in zip(lines, last)]
    return "\n".join(lines) + "\n"


def write(home: Path | None = None) -> None:
    """Writes the map into docs/notebooks.md and notebook 00 of `home` (the kit's), and what was measured into
    docs/results/minutes.csv."""
    home = home or paths.root()
    notebooks, minutes = claims(home / "notebooks"), update_minutes(home)
    page, start = home / "docs" / "notebooks.md", home / "notebooks" / f"{START}.ipynb"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    paths.write_text(page, fill(text, "notebooks", tabulate(notebooks, minutes)))
    if start.is_file():
        book = json.loads(start.read_text(encoding="utf-8"))
        [cell] = [cell for cell in book["cells"] if "<!-- results:notebooks -->" in "".join(cell["source"])]
        table = tabulate(notebooks, minutes, to="", teaches=False)
        cell["source"] = fill("".join(cell["source"]), "notebooks", table).splitlines(keepends=True)
        paths.write_text(start, json.dumps(book, indent=1, ensure_ascii=False) + "\n")


def fill(text: str, name: str, content: str) -> str:
    """`text` with `content` between ``<!-- results:name -->`` and the next ``<!-- /results -->``.

    >>> fill("<!-- results:a -->old<!-- /results -->", "a", "new\\n")
    '<!-- results:a -->\\nnew\\n<!-- /results -->'
    """
    place = re.compile(rf"(<!-- results:{name} -->)(?:(?!<!-- results:).)*?(<!-- /results -->)", re.DOTALL)
    filled, count = place.subn(lambda found: f"{found[1]}\n{content}{found[2]}", text)
    if count != 1:
        raise ZsadError(
            f"the page needs '<!-- results:{name} -->' and '<!-- /results -->' once, has them {count} times"
        )
    return filled
