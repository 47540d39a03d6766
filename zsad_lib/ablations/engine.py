"""One engine for the grids of every method: trials in parallel, all rows evaluated on the same draws, the tables.

A row is data, in `zsad_lib.ablations.grids`. What training and scoring a row mean is the `Method`'s affair.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import joblib
import pandas as pd
import torch

from zsad_lib.ablations.grids import AnyRow, Row
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError, optional
from zsad_lib.evaluate.comparison import holm, paired_difference, tabulate
from zsad_lib.evaluate.protocol import Estimate
from zsad_lib.files import paths
from zsad_lib.pipeline import artefacts
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.processes import parallel
from zsad_lib.results import run_tables
from zsad_lib.results.ablation_tables import save_ablation

METRICS = ("clip_auc", "micro_auc")  # of every row


class Method(Protocol):
    """What the engine asks of a method, for one profile."""

    INPUTS: str  # step that computes what the trials start from
    profile: Profile

    def train(self, rows: Sequence[AnyRow]) -> None:
        """Trains what the rows need, with every seed, by `run_trials`; what is finished is kept."""

    def estimates(self, row: AnyRow, split: str) -> list[Estimate]:
        """`METRICS` of a row whose trials are finished, on a split."""

    def made_from(self, rows: Sequence[AnyRow]) -> list:
        """Keys of the rows' finished trials, and the labels that they are evaluated with."""


@contextlib.contextmanager
def workers(jobs: int, cluster: str = "") -> Iterator[None]:
    """joblib's processes here, or those of a dask cluster whose scheduler has the address `cluster`."""
    if not cluster:
        with joblib.parallel_config(n_jobs=jobs):
            yield
        return
    with optional("cluster"):
        from distributed import Client
    try:
        client = Client(cluster, timeout=20)
    except (OSError, ValueError) as error:
        raise ZsadError(
            f"{cluster}: no dask scheduler answers there ({error}); start one, or leave CLUSTER out"
        ) from None
    with client, joblib.parallel_config("dask", n_jobs=-1, wait_for_workers_timeout=20):
        yield


def run_trials(trials: Mapping[Path, tuple], total: int, first: Sequence[tuple] = ()) -> None:
    """Runs trials in the processes that joblib is told to use, the first seed's first, and says what time is left.

    Args:
        trials: folder ``<name>/<seed>`` -> function and arguments, of every trial that is not finished.
        total: number of trials with the finished ones.
        first: functions with arguments whose results trials share; while the last of them runs, trials start.
    """
    if total > len(trials):
        print(f"trials: {total - len(trials)} of {total} are done already", flush=True)
    folders = sorted(trials, key=lambda folder: int(folder.name))
    calls = parallel(_call, [*first, *(trials[folder] for folder in folders)])
    for _ in first:
        next(calls)
    named = (f"{folder.parent.name}, seed {folder.name}" for _, folder in zip(calls, folders))  # `calls` to its end
    for _ in report_progress(named, "trials", len(trials), name=str):
        pass


def _call(function: Callable, *arguments: Any) -> Any:
    torch.set_num_threads(1)
    return function(*arguments)


def write_tables(name: str, rows: Sequence[AnyRow], method: Method) -> Path:
    """Evaluates a grid's rows and writes its tables, unless they are there already.

    Returns:
        ``runs/<run>/tables/ablation_<name>.csv``; ``.md`` and ``.tex`` lie beside it.
    """
    profile, run = method.profile, run_folder(method.profile)
    table, stamp = run / "tables" / f"ablation_{name}.csv", run / "ablation" / f"made_{name}.json"
    code = closure([__name__, type(method).__module__])
    declared = [dataclasses.asdict(row) for row in rows]
    key = digest([declared, method.made_from(rows), profile.bootstrap_draws, code])
    with contextlib.suppress(ZsadError):  # never made, or a broken stamp
        made = paths.read_json(stamp, "key", "files")
        if made["key"] == key and not artefacts.changed(run, made["files"]):
            return table
    test = _evaluate(rows, method, "test")
    files = {"": tabulate(rows, test)}
    if name in ("gate", "held_out", "stream"):
        validation = _evaluate(rows, method, "val")
        files["_validation"] = tabulate(rows, validation)
    if name in ("gate", "held_out"):
        files["_best"] = against(best_gate(rows, validation), rows, test)
        for row in rows:
            if (row.name, row.score) == ("memory", "full"):
                files["_memory"] = against(row, rows, test)
    for suffix, frame in files.items():
        with paths.atomic(run / "ablation" / f"ablation_{name}{suffix}.csv") as handle:
            frame.to_csv(handle, index=False, float_format="%.9g")
    warning = "" if profile.is_result else "NOT RESULTS (a quick look). "
    title = f"{warning}Ablation grid {name}, profile {profile.run_name}"
    save_ablation(files[""], run / "ablation" / f"ablation_{name}", title)
    run_tables.publish_ablations(run)
    written = [file for home in (stamp.parent, table.parent) for file in home.glob(f"ablation_{name}*")]
    paths.write_json(stamp, {"key": key, "files": artefacts.record(run, written)})
    return table


def _evaluate(rows: Sequence[AnyRow], method: Method, split: str) -> dict[str, list[Estimate]]:
    """Key of each row -> its estimates on a split."""
    calls = parallel(_call, [(method.estimates, row, split) for row in rows])
    return dict(zip([row.key for row in rows], calls))


def best_gate(rows: Sequence[Row], validation: Mapping[str, Sequence[Estimate]]) -> Row:
    """The trained gate that serves the contextual family, which gates are for, best on the validation sites."""

    def contextual_auc(row: Row) -> float:
        wanted = ("clip_auc", "all", "contextual")
        return next(e.draws[0] for e in validation[row.key] if (e.metric, e.group, e.family) == wanted)

    gates = [row for row in rows if (row.terms, row.variant.context, row.fusion) == (("s_sem",), "scene", "z")]
    return max(gates, key=contextual_auc)


def against(best: Row, rows: Sequence[Row], estimates: Mapping[str, Sequence[Estimate]]) -> pd.DataFrame:
    """A row minus every other one of its score: other, objective, family, delta with interval, p (Holm over all)."""
    differences = []
    for row in rows:
        if row.score == best.score and row.key != best.key:
            gaps = paired_difference(estimates[best.key], estimates[row.key])
            differences.append(gaps.assign(best=best.name, other=row.name, objective=row.objective))
    table = pd.concat(differences, ignore_index=True).query("metric == 'clip_auc'")
    table = table.rename(columns={"difference": "delta", "low": "delta_low", "high": "delta_high"})
    columns = ["best", "other", "objective", "metric", "group", "family", "delta", "delta_low", "delta_high", "p"]
    return table.assign(p=holm(table.p))[columns]
