"""The map of notebooks on the front page: what each one claims, and the minutes it took when `make reproduce` ran it.

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
TITLE, CLAIM, GRID = r"^# (\d\d) · (.+)", r"^\*\*Claim\.\*\* (.+?[.!?])(?: |$)", r"make ablate (GRID=\w+)"


def claims(folder: Path) -> pd.DataFrame:
    """`notebook`, `title`, `claim` (its first sentence) and `after` (a grid, or "") of each notebook in `folder`.

    Raises:
        ZsadError: a notebook whose first cell has no title or no claim.
    """
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, claim, grid = (re.search(part, text, re.MULTILINE) for part in (TITLE, CLAIM, GRID))
        if not (title and claim):
            raise ZsadError(f"{path}: its first cell needs `# NN · Title` and a line `**Claim.** ...`")
        rows.append((path.stem, f"{title[1]} {title[2]}", claim[1], grid[1] if grid else ""))
    return pd.DataFrame(rows, columns=["notebook", "title", "claim", "after"])


def measured(profile: str) -> dict[str, float]:
    """Seconds of each notebook of a finished run, and of all its compute steps together; {} where there is no such run."""
    run, found = run_folder(get_profile(profile)), {}
    for path in paths.executed(run / "notebooks"):
        found[path.stem] = paths.read_json(path)["metadata"]["papermill"]["duration"]
    steps = [run / step / "result.json" for step in steps_of(get_profile(profile))]
    if found and all(file.is_file() for file in steps):
        found[STEPS] = sum(paths.read_json(file)["seconds"] for file in steps)
    return found


def update(home: Path) -> str:
    """Adds the runs that are there to docs/results/minutes.csv, and gives the map as a table for README.md in `home`."""
    file, columns = home / "docs" / "results" / "minutes.csv", ["profile", "item", "seconds"]
    spent = {(row.profile, row.item): row.seconds for row in pd.read_csv(file).itertuples()} if file.is_file() else {}
    spent |= {(profile, item): seconds for profile in SHOWN for item, seconds in measured(profile).items()}
    with paths.atomic(file) as handle:
        table = pd.DataFrame([(*key, spent[key]) for key in sorted(spent)], columns=columns)
        table.to_csv(handle, index=False, float_format="%.1f", lineterminator="\n")
    run = [profile for profile in SHOWN if any(profile == name for name, _ in spent)]
    shown = lambda item: "".join(f" {spent[p, item] / 60:.1f} |" if (p, item) in spent else " - |" for p in run)
    lines = [
        "| Notebook | What it claims |" + "".join(f" Minutes, `{name}` |" for name in run),
        "|---|---|" + "---:|" * len(run),
    ]
    for row in claims(home / "notebooks").itertuples():
        after = f", after `make ablate {row.after}`" if row.after else ""
        lines.append(f"| [{row.title}](notebooks/{row.notebook}.ipynb){after} | {row.claim} |{shown(row.notebook)}")
    lines.append(
        f"| *{STEPS}, once* | *data, features, training, scores, evaluation, tables, figures, films* |{shown(STEPS)}"
    )
    return "\n".join(lines) + "\n"


def write() -> None:
    """Writes the map into README.md."""
    readme = paths.root() / "README.md"
    text = fill(readme.read_text(encoding="utf-8"), "notebooks", update(paths.root()))
    with paths.atomic(readme) as handle:
        handle.write(text)


def fill(text: str, name: str, content: str) -> str:
    """`text` with `content` between ``<!-- results:name -->`` and the next ``<!-- /results -->``.

    >>> fill("<!-- results:a -->old<!-- /results -->", "a", "new\\n")
    '<!-- results:a -->\\nnew\\n<!-- /results -->'
    """
    place = re.compile(rf"(<!-- results:{name} -->)(?:(?!<!-- results:).)*?(<!-- /results -->)", re.DOTALL)
    filled, count = place.subn(lambda found: f"{found[1]}\n{content}{found[2]}", text)
    if count != 1:
        raise ZsadError(
            f"README.md: needs '<!-- results:{name} -->' and '<!-- /results -->' once, has them {count} times"
        )
    return filled
