"""The ablations: grids by name, of every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsad_lib.ablations import engine
from zsad_lib.ablations.anomaly_clip_grid import AnomalyClip
from zsad_lib.ablations.context_aware_grid import ContextAware
from zsad_lib.ablations.engine import workers, write_tables
from zsad_lib.ablations.grids import GRIDS, RecipeRow, Row, StreamRow, grid
from zsad_lib.ablations.read_grid import read_grid
from zsad_lib.ablations.stream_grid import Streams
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.launch import ensure_apart
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.run_step import provenance, run_folder, today

ALL = tuple(GRIDS)
METHODS = {Row: ContextAware, StreamRow: Streams, RecipeRow: AnomalyClip}  # who trains and scores which rows
DATA_SETS = ("scene_rules",)  # with a caption for every clip and a family for every anomaly


def ablate(names: Sequence[str], profile: Profile, jobs: int | None = None, cluster: str = "") -> dict[str, Path]:
    """Runs the trials of some grids, evaluates them and writes their tables.

    Args:
        names: of `ALL`.
        profile: of the embedded benchmark; its features are computed first, where they are missing.
        jobs: parallel processes; None: the profile's.
        cluster: address of a dask scheduler ("tcp://...") whose workers see this folder; "": this machine.

    Returns:
        The table ``runs/<run>/tables/ablation_<grid>.csv`` of each grid; ``.md`` and ``.tex`` lie beside it.

    Raises:
        ZsadError: unknown grid, a profile without captions, what `read_grid` finds wrong, or what training raises.
    """
    if profile.dataset not in DATA_SETS:
        raise ZsadError(f"profile {profile.name}: has no captions and scenes to ablate; choose demo or smoke")
    grids: dict[type, dict] = {}
    for name in names:
        rows = read_grid(name)
        grids.setdefault(METHODS[type(rows[0])], {})[name] = rows
    ensure_apart([method.INPUTS for method in grids], profile)
    written = {}
    with locked(run_folder(profile)), workers(jobs or profile.jobs, cluster):
        for method, its_grids in grids.items():
            trials = method(profile)
            trials.train([row for rows in its_grids.values() for row in rows])
            for name, rows in its_grids.items():
                stamp = run_folder(profile) / "ablation" / f"made_{name}.json"
                before = stamp.read_bytes() if stamp.is_file() else b""
                written[name] = write_tables(name, rows, trials)
                if stamp.read_bytes() != before:  # made now, and not found finished
                    facts = {"date": today(), "code": code_of_grid(name), **provenance()}
                    paths.write_json(stamp, paths.read_json(stamp) | facts)
    return written


def code_of_grid(name: str) -> str:
    """Hash of the code that trains and evaluates a grid's rows."""
    return digest(closure([engine.__name__, METHODS[type(grid(name)[0])].__module__]))
