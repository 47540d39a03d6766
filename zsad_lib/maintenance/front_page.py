"""What the front page shows: tables and pictures of named real runs, copied to docs/results and into README.md.

``make showcase`` after ``make reproduce`` of the profiles `SHOWN`. No number on the front page is typed by hand: each
lies between ``<!-- results:NAME -->`` and ``<!-- /results -->``, and this module writes what is between.
"""

from pathlib import Path

import pandas as pd

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.maintenance import findings, notebook_map
from zsad_lib.maintenance.notebook_map import fill
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import tables

SHOWN = {  # profile -> its picture's file name, the figure it is, what it shows, level, (metrics, families) side by side, variants
    "demo": (
        "headline.png", "headline",
        "Every method and every content-free floor on the embedded benchmark, with 95 % intervals",
        "Clip level; micro AUC: frames.",
        ((("clip_auc",), tables.FAMILIES), (("micro_auc",), ("all",))), ("raw",),
    ),
    "ped2": (
        "ped2.png", "headline",
        "UCSD Ped2: predictive coding trained on normal video alone beside the motion floor, with 95 % intervals",
        "Frame and pixel level.",
        ((("micro_auc", "ap", "pixel_auc"), ("all",)),), ("raw", "smoothed", "causal"),
    ),
}  # fmt: skip
RENDERS = (get_profile("demo"), get_profile("demo", bench_seed=1))  # whose ablations docs/findings.md is computed from
FRONT = ("demo", "ped2")  # whose picture opens the page: the first that has been run


def update() -> None:
    """Fills docs/results and README.md from the runs that are there, and prints what is shown."""
    print("\n".join(show(paths.root())))


def show(home: Path) -> list[str]:
    """Copies and fills.

    Args:
        home: folder with README.md.

    Returns:
        A line per profile: what was shown, or that its run is missing (what was shown of it before then stays).

    Raises:
        ZsadError: no run at all, an incomplete one, or a README.md without the places to fill.
    """
    readme, results, lines, pictures = home / "README.md", home / "docs" / "results", [], {}
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for name, (picture, figure, words, level, parts, variants) in SHOWN.items():
        run = run_folder(get_profile(name))
        if not (run / "evaluate" / "result.json").is_file():
            lines.append(f"{name}: not run; make reproduce PROFILE={name}")
            continue
        copy(run / "tables" / "detection.md", results / f"{name}.md")
        copy(run / "figures" / f"{figure}.png", results / picture)
        if (run / "tables" / "comparison.md").is_file():
            copy(run / "tables" / "comparison.md", results / f"{name}_comparison.md")
        table = pd.read_csv(run / "tables" / "detection.csv")
        cells = [tables.table(table, metrics, families=families, variants=variants) for metrics, families in parts]
        cells = pd.concat(cells, axis=1).fillna("-").rename_axis("method")
        caption = f"{tables.caption(table, origin(run), level)} [All metrics](docs/results/{name}.md)."
        text = fill(text, name, tables.to_markdown(cells, caption))
        pictures[name] = f"![{words}](docs/results/{picture})\n"
        lines.append(f"{name}: shown")
    if not pictures:
        raise ZsadError(f"{paths.runs()}: no run to show; run `make reproduce` first")
    text = fill(text, "picture", pictures[next(name for name in FRONT if name in pictures)])
    text = fill(text, "notebooks", notebook_map.update(home))
    lines += show_ablations(home)
    paths.write_text(readme, text)
    return lines


def show_ablations(home: Path) -> list[str]:
    """Copies the ablations' tables and writes docs/findings.md from them; a grid that was not run is named."""
    runs = [run for run in map(run_folder, RENDERS) if (run / "tables").is_dir()]
    lines = []
    for run in runs:
        for table in sorted((run / "tables").glob("ablation_*.md")):
            copy(table, home / "docs" / "results" / f"{run.name}_{table.name}")
            lines.append(f"{run.name}: {table.stem} shown")
    if lines:
        paths.write_text(home / "docs" / "findings.md", findings.findings(runs))
    return lines or ["ablations: not run; make ablate"]


def origin(run: Path) -> str:
    """Which run the numbers are from: profile, revision and libraries."""
    result = paths.read_json(run / "evaluate" / "result.json")
    git = result["git"]
    revision = f", revision {git['commit'][:10]}" if git["commit"] and not git["changed"] else ""
    return f"Run `{run.name}`{revision}, torch {result['versions']['torch']}"


def copy(source: Path, target: Path) -> None:
    """Copies a file, whole or not at all; ZsadError where the run lacks it."""
    if not source.is_file():
        raise ZsadError(f"{source}: missing; let `make reproduce` of this profile finish first")
    paths.copy(source, target)
