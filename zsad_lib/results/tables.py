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
from zsad_lib.files import paths

FAMILIES = ("all", "semantic", "temporal", "contextual")  # columns of the embedded benchmark's tables
_NORMAL, _CAPTIONS, _CLASSES = "normal video", "normal video, captions", "class of each training video"
SUPERVISION = {  # method -> what it learned from, in the order of the tables
    "full_memory": _CAPTIONS,
    "full": _CAPTIONS,
    "paper": _CAPTIONS,
    "semantic": _CAPTIONS,
    "predictive": _NORMAL,
    "knn_predictive": _NORMAL,
    "knn": _NORMAL,
    "anomaly_clip": _CLASSES,
    "mil": _CLASSES,
    "clip_prompts": "none (prompts)",
    "motion_floor": "none",
}
ORDER = tuple(SUPERVISION)
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
KINDS = {  # column `score` of an ablation -> in words
    "semantic": "Without the prediction term",
    "full": "With the prediction term",
    "weak": "Trained with video-level labels",
}
PROMPTED = " A class that no prompt describes has probability 0 in clip_prompts, an AUC of 0.5."
DIFFERENCES = (
    "Paired differences on the same draws, videos and seeds as above; * p below 0.05, Holm-corrected over the metrics"
    " and families of a pair."
)
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
    labels = [method if variant == "raw" else f"{method} ({variant})" for method, variant in keys]
    cells = {heading: [column.get(key, "-") for key in keys] for heading, column in columns.items()}
    return pd.DataFrame(cells, index=pd.Index(labels, name="method"))


def _heading(metric: str) -> str:
    return HEADINGS.get(metric) or metric.replace("event_f1@", "Event F1 at IoU ")


def _digits(metric: str, largest: float) -> int:
    """After the point, for a whole column: rates per hour and seconds have units, all others lie in 0..1."""
    has_unit = metric in HEADINGS and HEADINGS[metric].endswith(("per hour", "(s)"))
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
    return method in FLOORS, index, method, variant != "raw", variant


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


def to_markdown(cells: pd.DataFrame, text: str) -> str:
    """Markdown table under its caption; a row of dashes separates the floors."""
    is_floor = cells.index.isin(FLOORS)
    rows = [cells[~is_floor]]
    if is_floor.any() and not is_floor.all():
        rows.append(pd.DataFrame("", index=["*content-free floors:*"], columns=cells.columns))
    body = pd.concat([*rows, cells[is_floor]]).map(_one_cell).rename(index=_one_cell, columns=_one_cell)
    return f"{text}\n\n{body.rename_axis(cells.index.name).to_markdown(disable_numparse=True)}\n"


def _one_cell(text: Any) -> str:
    """Text that neither ends its cell of a Markdown table nor its row."""
    return " ".join(str(text).split("\n")).replace("|", "\\|")


def to_latex(cells: pd.DataFrame, text: str, label: str) -> str:
    """LaTeX table (packages booktabs and graphicx); ``\\midrule`` separates the floors."""
    head = [rf"\textbf{{{_escape(str(name))}}}" for name in (cells.index.name.capitalize(), *cells.columns)]
    is_floor = cells.index.isin(FLOORS)
    lines = [[_escape(str(name)), *map(_escape, row)] for name, row in zip(cells.index, cells.to_numpy())]
    body = [" & ".join(line) + r" \\" for line in lines]
    if is_floor.any() and not is_floor.all():
        body.insert(int((~is_floor).sum()), r"\midrule")
    lines = [
        r"\begin{table}[t]", r"\centering", rf"\caption{{{_escape(text)}}}", rf"\label{{{label}}}",
        r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'c' * len(cells.columns)}}}", r"\toprule",
        " & ".join(head) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text with LaTeX's special characters made safe."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}", "\n": " "}  # an empty line ends a cell
    return "".join(special.get(c) or (f"\\{c}" if c in "&%$#_{}" else c) for c in text)


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


def save(df: pd.DataFrame, stem: str | Path, title: str, far_target: float = FAR_TARGET) -> str:
    """Writes ``<stem>.md`` and ``<stem>.tex``: ranking, families, alarms, scenes and sets, each where it has rows.

    Args:
        df: tidy detection table.
        stem: path without suffix.
        title: what was evaluated on what; opens each caption.
        far_target: share of held-out normal frames that the threshold lets alarm, 0..1.

    Returns:
        the Markdown text.
    """
    whole, families = ["all"], [name for name in df["family"].unique() if name != "all"]
    scenes, sets, classes = (
        [name for name in df["group"].unique() if name.startswith(f"{kind}:")] for kind in ("scene", "set", "class")
    )
    by_part = [m for m in ("clip_auc", "micro_auc") if m in set(df["metric"])][:1]
    at_threshold = describe_alarms(df, far_target)
    at_recall = "Threshold set where 80 % of the test events are detected, hence not known beforehand."
    ranked = "Frame level unless the column says clip or pixel; macro is the mean over videos that hold both classes."
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
    tables = []
    for name, level, metrics, groups, kinds in plans:
        rows = df[df["metric"].isin(metrics) & df["group"].isin(groups) & df["family"].isin(kinds)]
        if len(rows):
            groups = [name for name in groups if name in set(rows["group"])]
            kinds = [name for name in kinds if name in set(rows["family"])]
            cells = table(df, metrics, groups=groups, families=kinds)
            tables.append((cells, caption(df, title, level, groups, kinds), f"tab:{name}"))
    return write_tables(stem, tables)


def ablation(df: pd.DataFrame, score: str, deltas: bool, metric: str = "clip_auc") -> pd.DataFrame:
    """Rows of an ablation as variants, families as columns, cells with 95 % intervals.

    Args:
        df: tidy ablation table.
        score: one of `KINDS`.
        deltas: differences from each row's control, with a star where Holm's p is below 0.05, instead of values.
    """
    rows = df[(df["metric"] == metric) & (df["group"] == "all") & (df["score"] == score)]
    cells: dict[str, dict[str, str]] = {}
    for r in rows.itertuples():
        name = f"{r.variant} ({r.objective})" if df["objective"].nunique() > 1 else r.variant
        text = value_cell(r)
        if deltas:
            text = difference_cell(r.delta, r.delta_low, r.delta_high, r.p) if r.delta == r.delta else "-"
            cells.setdefault("control", {})[name] = r.control if isinstance(r.control, str) and r.control else "-"
        cells.setdefault(r.family, {})[name] = text
    return pd.DataFrame(cells).rename_axis("variant")


def save_ablation(df: pd.DataFrame, stem: str | Path, title: str) -> None:
    """Writes ``<stem>.md`` and ``<stem>.tex``: values and differences, for each kind of score."""
    levels = {"clip_auc": "Clip AUC, each family against all normal clips.", "mauc": "mAUC, frame level."}
    control = " Differences from the row's control on the same draws; * Holm-corrected p below 0.05 over the grid."
    tables = []
    for score, metric, deltas in product(KINDS, levels, (False, True)):
        if len(df[(df["score"] == score) & (df["metric"] == metric)]):
            text = caption(df, f"{title}. {KINDS[score]}", levels[metric]) + control * deltas
            label = f"tab:{Path(stem).name}-{score}-{metric}{'-delta' * deltas}"
            tables.append((ablation(df, score, deltas, metric), text, label))
    write_tables(stem, tables)


def comparison(df: pd.DataFrame) -> pd.DataFrame:
    """The methods side by side with what each learned from; raw scores, cells as in `table`."""
    methods = df[df["method"].isin(SUPERVISION) & (df["variant"] == "raw")]
    cells = table(methods, COMPARED)
    cells.insert(0, "learned from", [SUPERVISION[name] for name in cells.index])
    return cells


def differences(df: pd.DataFrame) -> pd.DataFrame:
    """Pairs of methods as rows, metrics as columns, cells as of `difference_cell` with p_holm."""
    whole = df[(df["group"] == "all") & (df["family"] == "all")]
    cells: dict[str, dict[str, str]] = {}
    for r in whole.itertuples():
        text = difference_cell(r.difference, r.low, r.high, r.p_holm)
        cells.setdefault(_heading(r.metric), {})[f"{r.first} - {r.second}"] = text
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
