"""Result tables as a paper prints them: Markdown and LaTeX (booktabs) from the tidy detection table.

Notebook: 60_print_tables
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.evaluate.inputs import FAR_TARGET
from zsad_lib.evaluate.operating_points import POINT_METRICS
from zsad_lib.files import paths
from zsad_lib.results.markup import to_latex, to_markdown

FAMILIES = ("all", "semantic", "temporal", "contextual")  # columns of the embedded benchmark's tables
_NORMAL, _CAPTIONS, _CLASSES = "normal video", "normal video, captions", "class of each training video"
SUPERVISION = {  # method -> what it learned from, in the order of the tables
    "full_memory": _CAPTIONS,
    "full": _CAPTIONS,
    "paper": _CAPTIONS,
    "semantic": _CAPTIONS,
    "predictive": _NORMAL,
    "predictive_half": _NORMAL,
    "knn_predictive": _NORMAL,
    "knn": _NORMAL,
    "anomaly_clip": _CLASSES,
    "mil": _CLASSES,
    "clip_prompts": "none (prompts)",
    "motion_floor": "none",
    "actor_count": "none (true number of actors)",
}
ORDER = tuple(SUPERVISION)
VARIANTS = ("raw", "smoothed", "causal", "calibrated", "calibrated_causal")  # in the order of the tables
HEADINGS = {  # metric -> column heading with its unit
    "clip_auc": "Clip AUC",
    "micro_auc": "Micro AUC",
    "ap": "AP",
    "abnormal_auc": "AUC, abnormal videos",
    "macro_auc": "Macro AUC",
    "pixel_auc": "Pixel AUC",
    "far": "False alarm rate",
    "far_normal": "False alarm rate, normal videos",
    "recall": "Recall",
    "event_f1": "Event F1",
    "false_alarms_per_hour": "False alarms per hour",
    "delay_s": "Delay (s)",
    "false_alarms_per_hour_at_threshold": "False alarms per hour",
    "event_recall_at_threshold": "Event recall",
    "delay_s_at_threshold": "Delay (s)",
    "localised": "Top region in the actor's box",
    "localised_chance": "Any region in it (chance)",
    "class_auc": "AUC",
    "class_ap": "AP",
    "mauc": "mAUC",
    "map": "mAP",
}
RANKING = ("clip_auc", "micro_auc", "ap", "abnormal_auc", "macro_auc", "pixel_auc")
THRESHOLD = (
    "far", "far_normal", "recall", "event_f1", "event_recall_at_threshold", "false_alarms_per_hour_at_threshold",
    "delay_s_at_threshold",
)  # fmt: skip
SET_ALARMS = ("far", "far_normal", "false_alarms_per_hour_at_threshold", "event_f1")
RECALL = ("false_alarms_per_hour", "delay_s")
PROMPTED = " A class that no prompt describes has probability 0 in clip_prompts, an AUC of 0.5."
DIFFERENCES = (
    "Paired differences on the same draws, videos and seeds as above. Rule: full_memory, full and anomaly_clip"
    " each minus every other method; where none was scored, the run's first method. * significant: p below 0.05 after"
    " Holm's correction over all pairs, families and sets of a metric. = not told apart: the interval includes 0."
)
TIE = " ="  # after a difference whose interval includes 0
COMPARED = ("clip_auc", "micro_auc", "ap", "mauc", "map", "far", "recall")  # of methods with different supervision


def table(
    df: pd.DataFrame,
    metrics: Sequence[str] = RANKING,
    *,
    groups: Sequence[str] = ("all",),
    families: Sequence[str] = ("all",),
    variants: Sequence[str] | None = None,
    intervals: bool = True,
) -> pd.DataFrame:
    """Methods as rows, metrics as columns, cells as text "0.912 [0.890, 0.931]"; floors come last.

    Args:
        df: tidy detection table.
        metrics: which, in this order; those without any row are left out.
        groups, families: which parts; a column for each that has rows, in the given order.
        variants: which; None: all.
        intervals: with the 95 % interval.

    Returns:
        text cells ("-" where undefined), index "method" or "method (variant)" for other variants than raw.
    """
    printed = df[df["metric"].isin(metrics) & df["group"].isin(groups) & df["family"].isin(families)]
    if variants is not None:
        printed = printed[printed["variant"].isin(variants)]
    if printed.empty:
        raise ZsadError(f"no rows with metric {', '.join(metrics)}, group {', '.join(groups)}: nothing to print")
    columns: dict[str, dict[tuple[str, str], str]] = {}
    parts = dict(list(printed.groupby(["metric", "group", "family"])))
    for metric, group, family in product(metrics, groups, families):
        if (rows := parts.get((metric, group, family))) is not None:
            heading = ", ".join([_heading(metric), *(part for part in (group, family) if part != "all")])
            digits = _digits(metric, rows["high"].max())
            columns[heading] = {(r.method, r.variant): value_cell(r, digits, intervals) for r in rows.itertuples()}
    keys = sorted(set(zip(printed["method"], printed["variant"])), key=_rank)
    labels = [row_name(*key) for key in keys]
    cells = {heading: [column.get(key, "-") for key in keys] for heading, column in columns.items()}
    return pd.DataFrame(cells, index=pd.Index(labels, name="method"))


def row_name(method: str, variant: str) -> str:
    """Name of a row: the method, and in brackets a variant other than raw."""
    return method if variant == "raw" else f"{method} ({variant.replace('_', ', ')})"


def _heading(metric: str) -> str:
    if metric in POINT_METRICS:
        name, _, asked = metric.partition("@")
        return f"{HEADINGS.get(name) or HEADINGS[f'{name}_at_threshold']} at {float(asked):.0%}"
    return HEADINGS.get(metric) or metric.replace("event_f1@", "Event F1 at IoU ")


def _digits(metric: str, largest: float) -> int:
    """After the point, for a whole column: rates per hour and seconds have units, all others lie in 0..1."""
    has_unit = HEADINGS.get(metric.partition("@")[0], "").endswith(("per hour", "(s)"))
    return 3 if not has_unit else 2 if largest < 10 else 1 if largest < 100 else 0


def value_cell(row: Any, digits: int = 3, intervals: bool = True) -> str:
    """A value with its interval, where it has one: "0.912 [0.890, 0.931]"; `row` has `value`, `low` and `high`."""
    value = f"{row.value:.{digits}f}"
    return f"{value} [{row.low:.{digits}f}, {row.high:.{digits}f}]" if intervals and row.low == row.low else value


def difference_cell(difference: float, low: float, high: float, p: float) -> str:
    """A paired difference with its interval, and a star where Holm's p is below 0.05: "+0.031 [+0.012, +0.050]*"."""
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]{'*' if p < 0.05 else ''}"


def _rank(key: tuple[str, str]) -> tuple:
    """Where a (method, variant) stands: `ORDER`, other methods by name, `FLOORS`."""
    method, variant = key
    order = (*ORDER, *FLOORS)
    index = order.index(method) if method in order else len(ORDER)
    return method in FLOORS, index, method, VARIANTS.index(variant) if variant in VARIANTS else 9, variant


def caption(
    df: pd.DataFrame, title: str, level: str, groups: Sequence[str] = ("all",), families: Sequence[str] = ("all",)
) -> str:
    """Says what a table holds: split, level, videos, frames, prevalence, seeds and the kind of interval.

    Args:
        df: tidy table.
        title, level: sentences that open it.
        groups, families: as of `table`; parts of unequal size are counted each.
    """
    parts = list(product(groups, families))
    rows = df[[part in parts for part in zip(df["group"], df["family"])]]
    counts = [(part, _counts(rows, *part)) for part in parts]
    if len({count for _, count in counts}) > 1:
        named = [(", ".join(name for name in part if name != "all"), count) for part, count in counts]
        counts = [(name, f"{name or 'all'}: {count}") for name, count in named]
    seeds = sorted(set(rows["seeds"]))
    many = f"{seeds[-1]} seed{'s' if seeds[-1] > 1 else ''}"
    fewer = f" ({', '.join(map(str, seeds[:-1]))} where nothing is trained)" if len(seeds) > 1 else ""
    return (
        f"{title}. {level} Test split: {'; '.join(dict.fromkeys(count for _, count in counts))}. "
        f"Mean over {many}{fewer}, in brackets the 95 % interval (bootstrap over videos)."
    )


def _counts(df: pd.DataFrame, group: str, family: str) -> str:
    """Size and prevalence of one part: '810 videos, 38,880 frames, 44.3 % of frames and 60.0 % of clips abnormal'."""
    rows = df[(df["group"] == group) & (df["family"] == family)]
    row = rows.loc[rows["n_frames"].idxmax()]
    rows = rows[rows["n_frames"] == row["n_frames"]]
    shares = rows[rows["level"].isin(["frame", "clip"])].drop_duplicates("level", ignore_index=True)
    shares = shares.sort_values("level", ascending=False)
    each = [f"{100 * r.prevalence:.1f} % of {r.level}s" for r in shares.itertuples()]
    what = "of this class" if group.startswith("class:") else "abnormal"
    return f"{row['n_videos']} videos, {row['n_frames']:,} frames" + (f", {' and '.join(each)} {what}" if each else "")


def describe_alarms(df: pd.DataFrame, far_target: float) -> str:
    """What the columns `THRESHOLD` of a table rest on."""
    live = " Only rows marked (causal) are what a live camera would give; the others average over windows that "
    live = f"{live}reach ahead." if "causal" in set(df["variant"]) else ""
    return (
        f"Alarms at the threshold that lets {far_target:.0%} of the frames of held-out normal video alarm; F1 is the "
        f"mean over temporal IoU 0.1 to 0.5.{live}"
    )


def write_tables(stem: str | Path, tables: Sequence[tuple[pd.DataFrame, str, str]]) -> str:
    """Writes ``<stem>.md`` and ``<stem>.tex`` of tables (cells, caption, LaTeX label), and returns the Markdown."""
    markdown = "\n".join(to_markdown(cells, text) for cells, text, _ in tables)
    paths.write_text(f"{stem}.md", markdown)
    paths.write_text(f"{stem}.tex", "\n".join(to_latex(*printed) for printed in tables))
    return markdown


def save(
    df: pd.DataFrame,
    stem: str | Path,
    title: str,
    far_target: float = FAR_TARGET,
    opening: Sequence[tuple[pd.DataFrame, str, str]] = (),
    note: str = "",
) -> str:
    """Writes ``<stem>.md`` and ``<stem>.tex``: ranking, families, alarms, scenes and sets, each where it has rows.

    Args:
        df: tidy detection table.
        stem: path without suffix.
        title: what was evaluated on what; opens each caption.
        far_target: share of held-out normal frames that the threshold lets alarm, 0..1.
        opening: tables that come first, of sets of streams, which then have no columns among the other sets.
        note: what is said of the ranking.

    Returns:
        the Markdown text.
    """
    whole, families = ["all"], [name for name in df["family"].unique() if name != "all"]
    scenes, sets, classes = (
        [name for name in df["group"].unique() if name.startswith(f"{kind}:")] for kind in ("scene", "set", "class")
    )
    sets = [name for name in sets if not (opening and name.startswith("set:stream"))]
    by_part = [m for m in ("clip_auc", "micro_auc") if m in set(df["metric"])][:1]
    at_threshold = describe_alarms(df, far_target)
    at_recall = "Threshold set where 80 % of the test events are detected, hence not known beforehand."
    ranked = (
        f"Frame level unless the column says clip or pixel; macro is the mean over videos that hold both classes.{note}"
    )
    each_family = "Each family's abnormal videos against all normal ones."
    each_class = "Frame level, each class's frames against all others."
    per_part = "Clip level." if by_part == ["clip_auc"] else "Frame level."
    plans = [  # label, what a caption says, metrics, groups, families
        ("ranking", ranked, RANKING, whole, whole),
        ("families", each_family, (*by_part, "recall"), whole, families),
        ("alarms", at_threshold, THRESHOLD, whole, whole),
        ("operation", at_recall, RECALL, whole, whole),
        ("scenes", per_part, by_part, scenes, whole),
        ("classes", each_class, ("class_auc", "class_ap"), classes, whole),
        ("sets", f"{per_part} Further sets of test videos, each on its own.", by_part, sets, whole),
        ("set-alarms", f"Further sets of test videos. {at_threshold}", SET_ALARMS, sets, whole),
    ]
    tables = list(opening)
    for name, level, metrics, groups, kinds in plans:
        rows = df[df["metric"].isin(metrics) & df["group"].isin(groups) & df["family"].isin(kinds)]
        if len(rows):
            groups = [name for name in groups if name in set(rows["group"])]
            kinds = [name for name in kinds if name in set(rows["family"])]
            cells = table(df, metrics, groups=groups, families=kinds)
            tables.append((cells, caption(df, title, level, groups, kinds), f"tab:{name}"))
    return write_tables(stem, tables)


def comparison(df: pd.DataFrame) -> pd.DataFrame:
    """The methods side by side with what each learned from; raw scores, cells as in `table`."""
    methods = df[df["method"].isin(SUPERVISION) & (df["variant"] == "raw")]
    cells = table(methods, COMPARED)
    cells.insert(0, "learned from", [SUPERVISION[name] for name in cells.index])
    return cells


def differences(df: pd.DataFrame) -> pd.DataFrame:
    """Pairs of methods as rows, metrics as columns, on streams too, cells as of `difference_cell` with p_holm."""
    whole = df[df["group"].isin(["set:stream", "all"]) & (df["family"] == "all")]
    whole = whole.sort_values("group", ascending=False, kind="stable")
    cells: dict[str, dict[str, str]] = {}
    for r in whole.itertuples():
        text = difference_cell(r.difference, r.low, r.high, r.p_holm)
        text += TIE if r.p_holm >= 0.05 and r.low <= 0 <= r.high else ""
        heading = _heading(r.metric) + ", streams" * (r.group != "all")
        cells.setdefault(heading, {})[f"{r.first} - {r.second}"] = text
    return pd.DataFrame(cells).fillna("-").rename_axis("pair")


def save_comparison(folder: Path, target: Path, title: str) -> dict[str, Path]:
    """Writes ``comparison.md``, ``.tex`` and ``.csv``, and ``differences.csv``, from the evaluation's `folder`."""
    df, gaps = pd.read_csv(folder / "detection.csv"), pd.read_csv(folder / "differences.csv")
    cells = comparison(df)
    text = caption(
        df[df["method"].isin(cells.index)],
        f"{title}: methods by what they learned from",
        f"Frame level but for clip AUC.{PROMPTED if 'clip_prompts' in cells.index else ''}",
    )
    pairs = differences(gaps)
    write_tables(target / "comparison", [(cells, text, "tab:comparison"), (pairs, DIFFERENCES, "tab:differences")])
    rows = df[df["method"].isin(SUPERVISION) & df["metric"].isin(COMPARED) & (df["variant"] == "raw")]
    paths.write_table(target / "comparison.csv", rows.assign(learned_from=rows["method"].map(SUPERVISION)))
    paths.write_table(target / "differences.csv", gaps)
    return {name: target / name for name in ("comparison.csv", "comparison.md", "comparison.tex", "differences.csv")}
