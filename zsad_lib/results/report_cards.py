"""Texts about a run that a report carries: its model card with computed numbers, the kit's limits, the glossary."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.files.manifest import load_manifest
from zsad_lib.pipeline.run_step import run_folder, steps_of
from zsad_lib.results.run_figures import main_method
from zsad_lib.results.tables import SUPERVISION

KIT = Path(__file__).resolve().parents[2]  # with the texts that describe the kit; an installed package lacks docs/
CARD = Path(__file__).with_name("model_card.md")  # in the package: docs/model_card.md is it, filled from a run
LIMITS = "\n## Limits\n"  # its last section


def model_card(profile: Profile, table: pd.DataFrame) -> str:
    """`CARD` about the run's main method, without its limits, as Markdown; lines whose numbers the run lacks are left
    out.

    Args:
        profile: of the run.
        table: its tidy detection table.
    """
    known, lines = _numbers(profile, table), []
    for line in CARD.read_text(encoding="utf-8").partition(LIMITS)[0].splitlines():
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
    if "features" in steps_of(profile):
        known["backbones"] = profile.backbones
    own = table[(table["method"] == method) & (table["variant"] == "raw")]
    rows = own[own["group"] == "all"]
    whole = rows[rows["family"] == "all"].set_index("metric")
    streams = own[(own["group"] == "set:stream") & (own["family"] == "all")].set_index("metric")
    ranked = "set:stream" if "micro_auc" in streams.index else "all"  # what a camera sees, where there is any
    live = table[(table["method"] == method) & (table["variant"] == "causal") & (table["group"] == ranked)]
    live = live[live["family"] == "all"].set_index("metric")
    middle = table[(table["method"] == "centre") & (table["metric"] == "macro_auc") & (table["family"] == "all")]
    middle = middle.set_index("group")["value"]
    found = {  # in the card -> rows, metric
        "far": (whole, "far"),
        "far_normal": (whole, "far_normal"),
        "alarms": (whole, "false_alarms_per_hour_at_threshold"),
        "event_recall": (whole, "event_recall_at_threshold"),
        "micro": (whole if ranked == "all" else streams, "micro_auc"),
        "macro": (whole, "macro_auc"),
        "stream": (streams, "macro_auc"),
        "live": (live, "micro_auc"),
        "live_delay": (live, "delay_s_at_threshold"),
    }
    for name, (source, metric) in found.items():
        if metric in source.index:
            row = source.loc[metric]
            known |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
            known[f"{name}_videos"] = int(row["n_videos"])
    bumps = {"macro_floor": "all", "stream_floor": "set:stream"}
    known |= {name: middle[group] for name, group in bumps.items() if group in middle}
    sets = own[own["group"].str.startswith("set:") & (own["metric"] == "far") & (own["family"] == "all")]
    if len(sets):
        known["sets_far"] = ", ".join(f"{r.group.removeprefix('set:')} {r.value:.0%}" for r in sets.itertuples())
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
    """The limits of the kit, the last section of `CARD`, as Markdown."""
    return CARD.read_text(encoding="utf-8").partition(LIMITS)[2].lstrip("\n")


def stand_ins() -> str:
    """What the shipped weights stand for and have seen, as Markdown."""
    return _unlinked(_text("zsad_lib/shipped_weights/README.md").partition("\n")[2])


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
