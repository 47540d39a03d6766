"""The map of notebooks in docs/notebooks.md: what each one claims, what it teaches, and the minutes that it took.

`python -m zsad_lib notebook-map` writes the map again, after a notebook was added too; `make showcase` does so
as well. Claims come from the notebooks' first cells, minutes from the runs that are there; of other runs,
docs/results/minutes.csv keeps what was measured.
"""

import json
import re
from pathlib import Path

import pandas as pd

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.run_step import run_folder, steps_of

SHOWN = ("smoke", "demo")  # profiles with a column, once they have been measured
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
    """Seconds of each notebook of a finished run, and of all its compute steps together; {} where there is no such
    run."""
    run, found = run_folder(get_profile(profile)), {}
    for path in paths.executed(run / "notebooks"):
        if seconds := paths.read_json(path)["metadata"]["papermill"]["duration"]:  # none of one that ended in an error
            found[path.stem] = seconds
    steps = [run / step / "result.json" for step in steps_of(get_profile(profile))]
    if found and all(file.is_file() for file in steps):
        found[STEPS] = sum(paths.read_json(file, "seconds")["seconds"] for file in steps)
    return found


def update(home: Path) -> str:
    """Adds the runs that are there to docs/results/minutes.csv, and gives the map as a table."""
    file, columns = home / "docs" / "results" / "minutes.csv", ["profile", "item", "seconds"]
    spent = {(row.profile, row.item): row.seconds for row in pd.read_csv(file).itertuples()} if file.is_file() else {}
    spent |= {(profile, item): seconds for profile in SHOWN for item, seconds in measured(profile).items()}
    with paths.atomic(file) as handle:
        table = pd.DataFrame([(*key, spent[key]) for key in sorted(spent)], columns=columns)
        table.to_csv(handle, index=False, float_format="%.1f", lineterminator="\n")
    run = [profile for profile in SHOWN if any(profile == name for name, _ in spent)]
    shown = lambda item: "".join(f" {spent[p, item] / 60:.1f} |" if (p, item) in spent else " - |" for p in run)
    lines = [
        "| Notebook | What it claims |" + "".join(f" Minutes, `{name}` |" for name in run) + " What it teaches |",
        "|---|---|" + "---:|" * len(run) + "---|",
    ]
    for row in claims(home / "notebooks").itertuples():
        after = f", after `make ablate {row.after}`" if row.after else ""
        link = f"[{row.title}](../notebooks/{row.notebook}.ipynb)"
        lines.append(f"| {link}{after} | {row.claim} |{shown(row.notebook)} {row.teaches} |")
    steps = "data, features, training, scores, evaluation, tables, figures, films"
    lines.append(f"| *{STEPS}, once* | *{steps}* |{shown(STEPS)} |")
    return "\n".join(lines) + "\n"


def write(home: Path | None = None) -> None:
    """Writes the map into docs/notebooks.md of `home` (the kit's), and what was measured into
    docs/results/minutes.csv."""
    home = home or paths.root()
    page = home / "docs" / "notebooks.md"
    text = fill(page.read_text(encoding="utf-8") if page.is_file() else "", "notebooks", update(home))
    paths.write_text(page, text)


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
