"""The tables of a run, as Markdown, LaTeX and CSV."""

from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results.tables import save, save_comparison


def publish_ablations(run: Path) -> None:
    """Copies the finished ablation tables into the run's tables, where a new run of that step has cleared them."""
    for source in sorted((run / "ablation").glob("ablation_*.*")):
        with paths.atomic(run / "tables" / source.name, "wb") as handle:
            handle.write(source.read_bytes())


def heading(profile: Profile) -> str:
    """What a run's tables are about: data set, name and hash of its lists where it has more than one, and the run."""
    result = run_folder(profile) / "data" / "result.json"
    made = paths.read_json(result)["metrics"] if result.is_file() else {}
    split = f", split {made['split']} (sha256 {made['split_sha256'][:12]})" if "split" in made else ""
    return f"Detection on {profile.dataset}{split}, profile {profile.run_name}"


def write(profile: Profile, folder: Path) -> dict[str, Any]:
    """Pipeline step: the evaluation's ``detection.csv`` into `folder`, with its ``.md`` and ``.tex`` beside it."""
    source = folder.parent / "evaluate" / "detection.csv"
    if not source.is_file():
        raise ZsadError(f"{source}: no such table; run the step `evaluate` first")
    warning = "" if profile.is_result else "NOT RESULTS (a quick look). "
    title = warning + heading(profile)
    save(pd.read_csv(source), folder / "detection", title, profile.far_target)
    with paths.atomic(folder / "detection.csv", "wb") as handle:
        handle.write(source.read_bytes())
    publish_ablations(folder.parent)
    artefacts = {kind: folder / f"detection.{kind}" for kind in ("csv", "md", "tex")}
    if (source.parent / "differences.csv").is_file():
        artefacts |= save_comparison(source.parent, folder, title)
    for confusion in source.parent.glob("confusion_*.csv"):
        with paths.atomic(folder / confusion.name, "wb") as handle:
            handle.write(confusion.read_bytes())
    return {"metrics": {}, "artefacts": artefacts}
