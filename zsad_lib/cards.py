"""Texts about a run that a report carries: its model card with computed numbers, the kit's limits, the glossary."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.figures import main_method
from zsad_lib.manifest import load_manifest
from zsad_lib.pipeline import run_folder
from zsad_lib.tables import SUPERVISION

KIT = Path(__file__).resolve().parents[1]  # with the texts that describe the kit; an installed package has none


def model_card(profile: Profile, table: pd.DataFrame) -> str:
    """``docs/model_card.md`` about the run's main method, as Markdown; lines with numbers that the run lacks are left out.

    Args:
        profile: of the run.
        table: its tidy detection table.
    """
    known, lines = _numbers(profile, table), []
    for line in _text("docs/model_card.md").splitlines():
        if all(name in known for name in re.findall(r"{(\w+)", line)):
            lines.append(line.format(**known))
    return "\n".join(lines)


def _numbers(profile: Profile, table: pd.DataFrame) -> dict[str, Any]:
    """What the card's braces stand for."""
    method = main_method(run_folder(profile))
    videos = load_manifest(run_folder(profile) / "data").query("set == 'main'")
    train, test = (videos[videos["split"] == split] for split in ("train", "test"))
    if SUPERVISION[method] != SUPERVISION["anomaly_clip"]:  # without classes it learns from normal video alone
        train = train[train["family"] == "normal"]
    known = {
        "method": method,
        "run": profile.run_name,
        "dataset": profile.dataset,
        "learned": SUPERVISION[method],
        "far_target": profile.far_target,
        "train_videos": len(train),
        "test_videos": len(test),
        "test_hours": float((test["n_frames"] / test["fps"]).sum() / 3600),
    }
    rows = table[(table["method"] == method) & (table["variant"] == "raw")]
    long = rows[(rows["group"] == "set:long") & (rows["family"] == "all")].set_index("metric")
    rows = rows[rows["group"] == "all"]
    whole = rows[rows["family"] == "all"].set_index("metric")
    named = {
        "far": "far",
        "alarms": "false_alarms_per_hour_at_threshold",
        "event_recall": "event_recall_at_threshold",
        "macro": "macro_auc",
    }
    ends = {"": "value", "_low": "low", "_high": "high"}
    for name, metric in named.items():
        if metric in whole.index:
            known |= {name + end: whole[column][metric] for end, column in ends.items()}
    if "macro_auc" in long.index:
        known |= {"long" + end: long[column]["macro_auc"] for end, column in ends.items()}
        known["long_videos"] = int(long["n_videos"]["macro_auc"])
    if "far" in whole.index:
        known["prevalence"] = whole["prevalence"]["far"]
    if {"alarms", "event_recall"} <= known.keys():
        known["alarms_a_day"] = 24 * known["alarms"]
        known["alarms_per_hit"] = 1 + known["alarms_a_day"] / max(known["event_recall"], 1e-9)
    families = rows[(rows["metric"] == "clip_auc") & (rows["family"] != "all")].set_index("family")["value"]
    if len(families) > 1:
        known |= {"weakest": families.idxmin(), "weakest_auc": families.min()}
        known |= {"strongest": families.idxmax(), "strongest_auc": families.max()}
    return known


def limits() -> str:
    """The section Limits of the kit's README, as Markdown."""
    return _unlinked(_text("README.md").partition("\n## Limits\n")[2].partition("\n## ")[0])


def stand_ins() -> str:
    """What the shipped weights stand for and have seen, as Markdown."""
    return _unlinked(_text("zsad_lib/weights/README.md").partition("\n")[2])


def glossary() -> str:
    """The kit's terms, a Markdown table."""
    return _text("docs/glossary.md").partition("\n")[2]


def _text(name: str) -> str:
    file = KIT / name
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _unlinked(text: str) -> str:
    """Without links into the repository, which a page that stands alone cannot follow."""
    link = r"\[([^]]*)\]\((?!https?:)[^)]*\)"
    return re.sub(link, r"\1", re.sub(rf" \({link}\)", "", text))
