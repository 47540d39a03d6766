"""`make floors`: the content-free floors of a data set from its annotation, without a single picture.

A result on a data set means something only above these. Lengths come from decoding where all test videos are at hand,
else from the labels. On UCF-Crime it also counts the test videos that the caption lists hold.
"""

import importlib
from pathlib import Path

import pandas as pd

from data_prep import inventory
from data_prep.leaks import split_hash
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import tidy
from zsad_lib.evaluate.floors import FLOORS, floor_scores
from zsad_lib.evaluate.protocol import estimates
from zsad_lib.files import paths
from zsad_lib.files.manifest import frame_labels
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.pipeline.steps import STEPS

METRICS = ("micro_auc", "ap", "abnormal_auc", "macro_auc")


def labelled_test(profile: Profile) -> pd.DataFrame:
    """The test list of a profile: `video`, `spans`, `n_frames`, `action`; the leaks of its caption lists are printed.

    Raises:
        ZsadError: labels that say nothing of a video's length, without the videos to count.
    """
    module = importlib.import_module(STEPS[profile.dataset]["data"][0].partition(":")[0])
    if not hasattr(module, "DATA"):
        raise ZsadError(
            f"profile {profile.name}: its floors are in every table of `make reproduce PROFILE={profile.name}`"
        )
    root = inventory.locate(module.DATA, profile)
    table = inventory.listed(module.DATA, module.read, root, profile.split)
    test = table[table.split == "test"]
    if test.path.notna().all():
        files, record = dict(zip(test.video, test.path)), paths.data() / "scans" / f"{module.DATA.key}.json"
        test = test.join(inventory.scan(files, record, profile.jobs), on="video")
        inventory.reconcile(test[test.fault == ""])
    else:
        test = test.assign(n_frames=test.labelled)
    if len(unknown := test[test.n_frames == 0]):
        raise ZsadError(
            f"{unknown.place.iloc[0]}: the length of {unknown.video.iloc[0]} is unknown ({len(unknown)} of"
            f" {len(test)}); get the test videos of {module.DATA.title} from {module.DATA.home}"
        )
    print(f"{module.DATA.title}, split {profile.split} (sha256 {split_hash(table)[:12]})")
    if hasattr(module, "leaks"):
        normal = test[test.action == inventory.NORMAL]
        for name, shared in module.leaks(root, test).items():
            of_normal = len(set(shared) & set(normal.video))
            print(
                f"leak: {len(shared)} of {len(test)} test videos, {of_normal} of {len(normal)} normal ones, in list"
                f" {name}"
            )
    return test


def write(profile: Profile) -> Path:
    """Writes ``runs/<run>/floors.csv`` in the columns of detection.csv and prints the values in percent."""
    test = labelled_test(profile)
    lengths = dict(zip(test.video, test.n_frames))
    labels = {row.video: frame_labels(row) for row in test.itertuples()}
    abnormal = sum(int(label.sum()) for label in labels.values())
    print(f"{len(labels)} test videos, {sum(lengths.values()):,} frames, {abnormal:,} abnormal")
    drawn = [floor_scores(lengths, labels, seed) for seed in profile.seeds]
    parts = []
    for name in FLOORS:
        seeds = drawn if name == "random" else drawn[:1]
        scores = {video: [floors[name][video] for floors in seeds] for video in lengths}
        parts.append(tidy(estimates(scores, labels, metrics=METRICS, draws=profile.bootstrap_draws), name, "raw"))
        shown = {
            row.metric: f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
            for row in parts[-1].itertuples()
        }
        print(f"{name:18}  AUC {shown['micro_auc']}  AP {shown['ap']}", flush=True)
    target = run_folder(profile) / "floors.csv"
    with paths.atomic(target) as handle:
        pd.concat(parts, ignore_index=True).to_csv(handle, index=False, float_format="%.9g")
    return target
