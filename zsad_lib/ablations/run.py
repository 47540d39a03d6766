"""The ablations: trials of all rows of a grid, their evaluation on the same bootstrap draws, and the tables.

Each (variant, seed) has a folder of its own under ``runs/<profile>/ablation/trials``, which grids share; a finished one is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

from zsad_lib.ablations import anomaly_clip_grid, frozen_windows
from zsad_lib.ablations.grids import GRIDS, WEAKLY, Row, grid
from zsad_lib.ablations.trial import finished, label, run_trial, trial_key
from zsad_lib.config import Profile, get_profile, settings
from zsad_lib.errors import ZsadError, one_line, optional
from zsad_lib.evaluate.comparison import holm, paired_difference, tabulate
from zsad_lib.evaluate.protocol import Estimate, estimates
from zsad_lib.features.extraction import extract
from zsad_lib.features.window_plan import to_frames
from zsad_lib.files import paths
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.models.mixture import Mixture
from zsad_lib.pipeline import run_notebooks
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.launch import ensure_apart
from zsad_lib.pipeline.lock import locked
from zsad_lib.pipeline.processes import die_with_parent, parallel
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import run_tables, tables

ALL = (*GRIDS, WEAKLY)
METRICS_SHOWN = ("clip_auc", "micro_auc")


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
        ZsadError: unknown grid, a profile without captions, or what training raises.
    """
    if profile.dataset != "scene_rules":
        raise ZsadError(f"profile {profile.name}: has no captions and scenes to ablate; choose demo or smoke")
    grids = {name: grid(name) for name in names if name != WEAKLY}
    ensure_apart(["features"] * bool(grids) + ["frame_features"] * (WEAKLY in names), profile)
    with locked(run_folder(profile)), _workers(jobs or profile.jobs, cluster):
        written = {}
        if grids:
            table = videos(profile)
            found = run_trials([row for some in grids.values() for row in some], profile, table)
            written = {name: write(name, some, profile, table, found) for name, some in grids.items()}
        if WEAKLY in names:
            written[WEAKLY] = anomaly_clip_grid.ablate(profile)
        return written


def videos(profile: Profile) -> pd.DataFrame:
    """The manifest's rows that ablations use: continuous videos hold no clips to compare."""
    table = load_manifest(run_folder(profile) / "data")
    return table[table.set != "long"]


@contextlib.contextmanager
def _workers(jobs: int, cluster: str) -> Iterator[None]:
    """joblib's processes here, or a dask cluster's."""
    if not cluster:
        with joblib.parallel_config(n_jobs=jobs), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="A worker stopped"
            )  # a grown worker was replaced: nothing is lost
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


def run_trials(rows: Sequence[Row], profile: Profile, table: pd.DataFrame) -> dict[str, list[Path]]:
    """Trains and scores what the rows need; what is finished is kept.

    Returns:
        Folders of the trials, one per seed, by the variant's `label`.
    """
    home, plans = run_folder(profile) / "ablation" / "trials", {}
    for row in rows:
        own = profile_of(row, profile)
        plans.setdefault(label(row.variant, own), (own, row.variant))
    windows = {}
    for own in {(own.released, own.held_out): own for own, _ in plans.values()}.values():
        extract(own, home.parents[0])  # of the usual switches they are there by now
        windows[own.released, own.held_out] = frozen_windows.freeze(own, table)
    found = {name: [home / name / str(seed) for seed in profile.seeds] for name in plans}
    streams, trials = {}, []
    for name, (own, variant) in plans.items():
        arrays = windows[own.released, own.held_out]
        for seed, folder in zip(profile.seeds, found[name]):
            if not finished(folder, trial_key(own, variant, seed, arrays)):
                trials.append((own, variant, seed, table, arrays, folder))
                if not variant.live and not frozen_windows.tuned(arrays, seed):
                    streams[arrays, seed] = own, table, arrays, seed
    total = len(plans) * len(profile.seeds)
    if total > len(trials):
        print(f"trials: {total - len(trials)} of {total} are done already", flush=True)
    if streams:
        print(f"predictive streams: {len(streams)} to tune, one per seed", flush=True)
    trials.sort(key=lambda task: task[2])  # while the last seed's stream is tuned, trials of the first ones run
    runs = parallel(
        _call, [(frozen_windows.tune, *task) for task in streams.values()] + [(run_trial, *task) for task in trials]
    )
    for _ in streams:
        next(runs)
    start = time.monotonic()
    for number, folder in enumerate(runs, 1):
        spent = time.monotonic() - start
        left = spent / number * (len(trials) - number)
        print(
            f"trial {number} of {len(trials)}: {folder.parent.name}, seed {folder.name}; "
            f"{spent:.0f} s gone, about {left:.0f} s left",
            flush=True,
        )
    return found


def _call(function, *arguments):
    return function(*arguments)


def profile_of(row: Row, profile: Profile) -> Profile:
    """The profile with the row's own switches."""
    return dataclasses.replace(profile, released=row.released, held_out=row.held_out or profile.held_out)


class Scores:
    """Window scores of rows, from the terms of their trials and the frozen ones."""

    def __init__(self, profile: Profile, table: pd.DataFrame, trials: dict[str, list[Path]]):
        self.profile, self.table, self.trials = profile, table, trials

    def of(self, row: Row, split: str) -> dict[str, np.ndarray]:
        """video -> [S, n_windows] scores of the videos of a split (`val` or `test`)."""
        own = profile_of(row, self.profile)
        windows = frozen_windows.windows_folder(own, self.table)
        arrays = {name: frozen_windows.load(windows, name) for name in {"val", split}}
        known = self.table.set_index("video")
        normal = torch.tensor([known.spans[video] == "" for video in arrays["val"].videos])
        normal = normal[arrays["val"].windows.place[:, 0]]  # windows of held-out normal video
        scenes = {name: part.windows.scene for name, part in arrays.items()}
        series = np.stack(
            [_fuse(row, folder, split, normal, scenes) for folder in self.trials[label(row.variant, own)]]
        )
        clip = arrays[split].windows.place[:, 0].numpy()
        return {video: series[:, clip == number] for number, video in enumerate(arrays[split].videos)}

    def estimates(self, row: Row, split: str) -> list[Estimate]:
        """`METRICS_SHOWN` of the row on a split's main set, whole and per family, and on its other sets."""
        torch.set_num_threads(1)
        windows = self.of(row, split)
        found = []
        for name, part in self.table[self.table.split == split].groupby("set", sort=True):
            main, videos = name == "main", part.set_index("video")
            labels = {video: frame_labels(row) for video, row in zip(videos.index, part.itertuples())}
            chosen = {video: windows[video] for video in labels}
            frames = {video: to_frames(values, videos.n_frames[video]) for video, values in chosen.items()}
            found += estimates(
                frames,
                labels,
                group="all" if main else f"set:{name}",
                families=videos.family[videos.spans != ""].to_dict() if main else None,
                windows=chosen,
                metrics=METRICS_SHOWN if main and split == "test" else METRICS_SHOWN[:1],
                draws=self.profile.bootstrap_draws,
            )
        return found


def _fuse(row: Row, folder: Path, split: str, normal: torch.Tensor, scenes: dict[str, torch.Tensor]) -> np.ndarray:
    """Sum of a trial's terms [W, M] in deviations of held-out normal windows [N, M]; -> [W]."""
    terms = {}
    for name in {"val", split}:
        with np.load(folder / f"{name}.npz") as file:
            terms[name] = torch.stack([torch.from_numpy(file[term]).double() for term in row.terms], 1)
    known, weights = terms["val"][normal], torch.tensor(row.weights or (1.0,) * len(row.terms), dtype=torch.float64)
    if row.fusion == "mixture":
        mean, deviation = scenes["val"][normal].mean(0), scenes["val"][normal].std(0).clamp_min(1e-6)
        standardised = {name: ((scene - mean) / deviation).double() for name, scene in scenes.items()}
        mixture = Mixture(len(mean), len(row.terms)).double().fit(known, standardised["val"][normal])
        with torch.no_grad():
            return mixture(terms[split], standardised[split], weights).numpy()
    return ((terms[split] - known.mean(0)) / known.std(0).clamp_min(1e-12) @ weights).numpy()


def best_gate(rows: Sequence[Row], found: dict[str, list[Estimate]]) -> Row:
    """The trained gate that serves the contextual family, which gates are for, best on the validation sites."""
    gates = [row for row in rows if (row.terms, row.variant.context, row.fusion) == (("s_sem",), "scene", "z")]
    wanted = ("clip_auc", "all", "contextual")
    value = lambda row: next(e.draws[0] for e in found[row.key] if (e.metric, e.group, e.family) == wanted)
    return max(gates, key=value)


def write(name: str, rows: Sequence[Row], profile: Profile, table: pd.DataFrame, trials: dict[str, list[Path]]) -> Path:
    """Evaluates a grid's rows and writes its tables, unless they are there already.

    The choice of the best gate is made on the validation sites.
    """
    home, target = run_folder(profile) / "ablation", run_folder(profile) / "tables" / f"ablation_{name}.csv"
    key, stamp = _table_key(rows, profile, table, trials), home / f"made_{name}.json"
    if target.exists() and stamp.exists() and paths.read_json(stamp)["key"] == key:
        return target
    scores, keys = Scores(profile, table, trials), [row.key for row in rows]
    test = dict(zip(keys, parallel(scores.estimates, [(row, "test") for row in rows])))
    done = tabulate(rows, test)
    files = {f"ablation_{name}.csv": done}
    if name in ("gate", "held_out"):
        val = dict(zip(keys, parallel(scores.estimates, [(row, "val") for row in rows])))
        files[f"ablation_{name}_validation.csv"] = tabulate(rows, val)
        files[f"ablation_{name}_best.csv"] = against(best_gate(rows, val), rows, test)
        for row in rows:
            if (row.name, row.score) == ("memory", "full"):
                files[f"ablation_{name}_memory.csv"] = against(row, rows, test)
    for file, frame in files.items():
        with paths.atomic(home / file) as handle:
            frame.to_csv(handle, index=False, float_format="%.9g")
    title = (
        f"{'' if profile.is_result else 'NOT RESULTS (a quick look). '}Ablation grid {name}, profile {profile.run_name}"
    )
    tables.save_ablation(done, home / f"ablation_{name}", title)
    run_tables.publish_ablations(run_folder(profile))
    paths.write_json(stamp, {"key": key})
    return target


def _table_key(rows: Sequence[Row], profile: Profile, table: pd.DataFrame, trials: dict[str, list[Path]]) -> str:
    """What a grid's tables are made from: its rows, their trials, the labels, and the code."""
    names = sorted({label(row.variant, profile_of(row, profile)) for row in rows})
    made = [paths.read_json(folder / "result.json")["key"] for name in names for folder in trials[name]]
    labels = table.to_csv(index=False)
    return digest(
        [[dataclasses.asdict(row) for row in rows], made, labels, profile.bootstrap_draws, closure([__name__])]
    )


def against(best: Row, rows: Sequence[Row], found: dict[str, list[Estimate]]) -> pd.DataFrame:
    """A row minus every other one of its score: other, objective, family, delta with interval, p (Holm over all)."""
    parts = []
    for row in rows:
        if row.score == best.score and row.key != best.key:
            gaps = paired_difference(found[best.key], found[row.key])
            parts.append(gaps.assign(best=best.name, other=row.name, objective=row.objective))
    gaps = pd.concat(parts, ignore_index=True)
    gaps = gaps[gaps.metric == "clip_auc"].rename(
        columns={"difference": "delta", "low": "delta_low", "high": "delta_high"}
    )
    columns = ["best", "other", "objective", "metric", "group", "family", "delta", "delta_low", "delta_high", "p"]
    return gaps.assign(p=holm(gaps.p))[columns]


@functools.partial(one_line, interrupted="interrupted; the same command goes on from the finished trials")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the grids that are named, or all of them, and then the notebooks given."""
    parser = argparse.ArgumentParser(prog="python -m zsad_lib.ablations.run", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--grid", default="all", help=f"{', '.join(ALL)}, several as gate,prompts, or all")
    parser.add_argument("--cluster", default="", help="address of a dask scheduler")
    parser.add_argument("items", nargs="*", metavar="KEY=VALUE | NOTEBOOK")
    options = parser.parse_intermixed_args(arguments)
    if "MAKELEVEL" in os.environ:
        die_with_parent()
    profile = get_profile(options.profile, **settings(options.items))
    names = list(ALL) if options.grid == "all" else options.grid.split(",")
    for path in ablate(names, profile, cluster=options.cluster).values():
        print(path.with_suffix(".md").read_text(encoding="utf-8"))
        print(path)
    run_notebooks.execute([Path(item) for item in options.items if "=" not in item], profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
