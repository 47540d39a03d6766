"""The tables of a run, as Markdown, LaTeX and CSV.

Notebook: 60_print_tables
"""

from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results.stream_tables import CLIPS, opening
from zsad_lib.results.tables import save, save_comparison


def publish_ablations(run: Path) -> None:
    """Copies the finished ablation tables into the run's tables, where a new run of that step has cleared them."""
    for source in sorted((run / "ablation").glob("ablation_*.*")):
        paths.copy(source, run / "tables" / source.name)


def heading(profile: Profile) -> str:
    """What a run's tables are about: data set, name and hash of its lists where it has more than one, and the run."""
    result = run_folder(profile) / "data" / "result.json"
    facts = paths.read_json(result, "metrics")["metrics"] if result.is_file() else {}
    split = f", split {facts['split']} (sha256 {facts['split_sha256'][:12]})" if "split" in facts else ""
    return f"Detection on {profile.dataset}{split}, profile {profile.run_name}"


def write(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: the evaluation's ``detection.csv`` into `folder`, with its ``.md`` and ``.tex`` beside it, those
    of streams first."""
    source = folder.parent / "evaluate" / "detection.csv"
    if not source.is_file():
        raise ZsadError(f"{source}: no such table; run the step `evaluate` first")
    title = ("" if profile.is_result else "NOT RESULTS (a quick look). ") + heading(profile)
    table = pd.read_csv(source)
    streams = opening(table, title, source.parent)
    save(table, folder / "detection", title, profile.far_target, streams, CLIPS if streams else "")
    paths.copy(source, folder / "detection.csv")
    publish_ablations(folder.parent)
    artefacts = {kind: folder / f"detection.{kind}" for kind in ("csv", "md", "tex")}
    if (source.parent / "differences.csv").is_file():
        artefacts |= save_comparison(source.parent, folder, title)
    for pattern in ("confusion_*.csv", "calibrat*.csv", "event_kinds.csv"):
        for file in source.parent.glob(pattern):
            paths.copy(file, folder / file.name)
    return {"metrics": {}, "artefacts": artefacts}
