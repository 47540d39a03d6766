"""Where a run's main method is best and where it is worst, what beats it there, and the sentences that say so.

Rule of the table: every metric that the main method has in two rows or more, whatever their set of test videos,
variant and family, has its best and its worst row. The metric that ranks the methods comes first, then those whose best
and worst lie furthest apart, `ROWS` in all. No row is chosen by name. A sentence is written only where the numbers bear
it.
"""

from collections.abc import Sequence

import pandas as pd

from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.results.stream_tables import SEEING_FLOORS
from zsad_lib.results.tables import HEADINGS, RANKING, RECALL, row_name, value_cell

ROWS = 8
BETTER_WHEN_LOW = ("far", "false_alarms", "delay")  # metrics, by their beginning
NO_MERIT = ("localised_chance", *RECALL)  # what chance gives, and what a threshold set on the test events gives
HEADLINE = ("micro_auc", "clip_auc")  # the first that there is ranks the methods
BY_PREVALENCE = ("ap",)  # whose chance level is the share of abnormal frames: families cannot be compared in it
EXPLAINED = {  # metric -> what it asks
    "clip_auc": "an abnormal clip outranks a normal one",
    "micro_auc": "an abnormal frame outranks a normal one, over all videos",
    "macro_auc": "the same within a video, mean over videos",
    "abnormal_auc": "the same, among videos with an anomaly",
    "ap": "average precision; chance is the share of abnormal frames",
    "pixel_auc": "an abnormal pixel outranks a normal one",
    "far": "share of normal frames that alarm",
    "far_normal": "the same, in videos without anomaly",
    "recall": "share of abnormal frames that alarm",
    "event_f1": "events found and bounded, mean over temporal IoU",
    "event_recall_at_threshold": "share of events with an alarm",
    "false_alarms_per_hour_at_threshold": "alarms apart from events, per hour of video",
    "delay_s_at_threshold": "seconds from an event's start to its alarm",
    "localised": "top region lies in the abnormal actor's box",
}
SETS = {
    "all": "clips",
    "set:stream": "streams",
    "set:stream_lookalike": "look-alike streams",
    "set:stream_night": "night streams",
    "set:lookalike": "look-alike clips",
    "set:night": "night clips",
}
FLOOR_NAMES = (*FLOORS, *SEEING_FLOORS)
PLACE = ("metric", "group", "family")


def extremes(df: pd.DataFrame, method: str, far_target: float) -> pd.DataFrame:
    """Best and worst row of every metric, those furthest apart first.

    Args:
        df: detection table.
        method: whose rows count.
        far_target: share of held-out normal frames that the run's threshold lets alarm; rows at other shares are left
            out.

    Returns:
        Index metric; columns best, worst (rows of `df`), floor (the best floor's row in the worst row's place, or None)
        and gap: distance in 0..1, of what has a unit relative to the larger one.
    """
    rows, found = _named(df[df["method"] == method], far_target), []
    floors = df[df["method"].isin(FLOOR_NAMES) & (df["variant"] == "raw") & df["metric"].isin(RANKING)]
    for metric, part in rows.groupby("metric", sort=False):
        part = part[part["family"] == "all"] if metric in BY_PREVALENCE else part
        if metric in NO_MERIT or len(part) < 2:
            continue
        order = part.sort_values("value", ascending=_low_is_good(metric), kind="stable")
        best, worst = order.iloc[0], order.iloc[-1]
        span, largest = abs(best["value"] - worst["value"]), max(best["value"], worst["value"])
        rival = floors[(floors[list(PLACE)] == worst[list(PLACE)]).all(axis=1)].nlargest(1, "value")
        gap = span if largest <= 1 and not _has_unit(metric) else span / largest
        found.append((metric, best, worst, rival.iloc[0] if len(rival) else None, gap))
    table = pd.DataFrame(found, columns=["metric", "best", "worst", "floor", "gap"]).set_index("metric")
    first = next((metric for metric in HEADLINE if metric in table.index), None)
    return table.sort_values(["gap"], ascending=False, kind="stable").sort_index(
        key=lambda names: names != first, kind="stable"
    )


def rows_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """The first `ROWS` of `extremes` as text."""
    return [
        {
            "Metric": HEADINGS.get(metric, metric),
            "What it asks": EXPLAINED.get(metric, "-"),
            "Best": f"{_cell(row['best'])}, {where(row['best'])}",
            "Worst": f"{_cell(row['worst'])}, {where(row['worst'])}",
            "Best floor in the worst place": "-"
            if row["floor"] is None
            else f"`{row['floor']['method']}` {_short(row['floor'])}",
        }
        for metric, row in table.head(ROWS).iterrows()
    ]


def say_extremes(table: pd.DataFrame, method: str) -> list[str]:
    """The headline metric's best and worst set, the metric that differs most, and where a floor is better."""
    shown, said = table.head(ROWS), []
    for metric, row in shown[shown.index.isin(HEADLINE)].head(1).iterrows():
        said.append(
            f"By {HEADINGS[metric]}, `{method}` is best on {where(row['best'])} ({_short(row['best'])}) and worst on"
            f" {where(row['worst'])} ({_short(row['worst'])})."
        )
    for metric, row in shown.nlargest(1, "gap").iterrows():
        said.append(
            f"What varies most is {_words(metric)}: {_short(row['best'])} on {where(row['best'])},"
            f" {_short(row['worst'])} on {where(row['worst'])}."
        )
    for _, row in shown[shown.index == "far"].iterrows():
        share = f"{row['worst']['value']:.0%}"
        said.append(f"Where it alarms most, on {where(row['worst'])}, {share} of the normal frames alarm.")
    if beaten := [metric for metric, row in shown.iterrows() if beats(row["floor"], row["worst"])]:
        said.append(f"In the worst place a floor beats it by {_listed([_words(metric) for metric in beaten])}.")
    return said


def beaten_by_floors(df: pd.DataFrame, method: str) -> pd.DataFrame:
    """Every row of the method that a floor beats in what ranks, with the best floor there.

    Returns:
        columns row (name), set, floor, and what it is better in: metric, its family unless all, both values.
    """
    own, ranks = df[df["method"] == method], df["metric"].isin(RANKING)
    floors = df[df["method"].isin(FLOOR_NAMES) & (df["variant"] == "raw") & ranks]
    best = floors.sort_values("value", ascending=False, kind="stable").drop_duplicates(list(PLACE))
    both = own.merge(best[[*PLACE, "method", "value"]], on=list(PLACE), suffixes=("", "_floor"))
    both = both[both["value_floor"] > both["value"]]
    cells: dict[tuple, list[str]] = {}
    for row in both.itertuples():
        family = "" if row.family == "all" else f" {row.family}"
        text = f"{HEADINGS[row.metric]}{family} {row.value_floor:.3f} > {row.value:.3f}"
        cells.setdefault((row_name(method, row.variant), set_name(row.group), row.method_floor), []).append(text)
    rows = [(*key, "; ".join(texts)) for key, texts in cells.items()]
    return pd.DataFrame(rows, columns=["row", "set", "floor", "better in (floor > row)"])


def say_floors(rows: Sequence[dict[str, str]]) -> list[str]:
    """Which cells of the main method, among the rows that a front page shows, a floor beats; [] where none does.

    Args:
        rows: of `zsad_lib.maintenance.front_page`, the main method's first; floors among them.
    """
    names = [row["Method"].strip("`") for row in rows]
    main = names[0].partition(" ")[0]
    said = []
    for name, row in zip(names, rows):
        if name.partition(" ")[0] != main:
            continue
        for floor, other in ((n, r) for n, r in zip(names, rows) if n in FLOOR_NAMES):
            for heading, cell in row.items():
                theirs = other.get(heading.removesuffix(", causal"), "-")
                if not _is_merit(heading) or not (cell[:1].isdigit() and theirs[:1].isdigit()):
                    continue
                mine, its = cell.split()[0], theirs.split()[0]
                if float(its) > float(mine):
                    shown = f"{name} (causal)" if heading.endswith(", causal") else name
                    said.append(f"`{floor}` ({its}) beats `{shown}` ({mine}) by {heading.removesuffix(', causal')}.")
    return said


def say_pairs(gaps: pd.DataFrame, method: str, metric: str = "micro_auc") -> list[str]:
    """What the paired differences of `method` from all others say, on streams where there are any.

    Args:
        gaps: ``differences.csv`` of a run.
    """
    rows = gaps[(gaps["first"] == method) & (gaps["metric"] == metric) & (gaps["family"] == "all")]
    group = next((name for name in ("set:stream", "all") if name in set(rows["group"])), None)
    rows = rows[rows["group"] == group]
    if rows.empty:
        return []
    kinds = sort_pairs(rows)
    opening = f"By {HEADINGS[metric]} on {set_name(group)}, `{method}` is"
    return [f"{opening} {words} {_listed(names)}." for words, names in kinds.items() if names]


def sort_pairs(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Second methods of paired differences by what is shown: significant (Holm), a tie, or open."""
    star, spans = rows["p_holm"] < 0.05, (rows["low"] <= 0) & (rows["high"] >= 0)
    kinds = {
        "significantly above": star & (rows["difference"] > 0),
        "significantly below": star & (rows["difference"] < 0),
        "not told apart from": ~star & spans,
        "not significantly apart, though the interval excludes 0, from": ~star & ~spans,
    }
    return {words: [f"`{name}`" for name in rows["second"][kind]] for words, kind in kinds.items()}


def beats(floor: pd.Series | None, row: pd.Series) -> bool:
    """Whether a floor's row is better than a method's, in a metric that ranks."""
    return floor is not None and floor["value"] > row["value"]


def where(row: pd.Series) -> str:
    """Set, family and variant in words: "night streams, temporal, causal"."""
    variant = "" if row["variant"] == "raw" else row["variant"].replace("_", ", ")
    family = "" if row["family"] == "all" else row["family"]
    return ", ".join(filter(None, [set_name(row["group"]), family, variant]))


def set_name(group: str) -> str:
    """A group in words: "night streams", "scene road"."""
    return SETS.get(group, group.removeprefix("set:").replace(":", " "))


def _named(rows: pd.DataFrame, far_target: float) -> pd.DataFrame:
    """The rows at the run's own threshold, their metrics without the share that it lets alarm; no scene apart."""
    name, _, asked = (rows["metric"].str.partition("@")[part] for part in range(3))
    own = asked.eq(f"{far_target:g}")
    plain = name.where(name.isin(HEADINGS), name + "_at_threshold")
    return rows[(asked == "") | own].assign(metric=rows["metric"].where(~own, plain))


def _low_is_good(metric: str) -> bool:
    return metric.startswith(BETTER_WHEN_LOW)


def _has_unit(metric: str) -> bool:
    return HEADINGS.get(metric, "").endswith(("per hour", "(s)"))


def _is_merit(heading: str) -> bool:
    """Whether a column holds a share of which more is better."""
    return "AUC" in heading or heading in ("AP", "mAP", "Recall", "Event F1") or heading.startswith("Event recall")


def _cell(row: pd.Series) -> str:
    return value_cell(row, _digits(row))


def _short(row: pd.Series) -> str:
    return value_cell(row, _digits(row), intervals=False)


def _digits(row: pd.Series) -> int:
    return 3 if not _has_unit(row["metric"]) else 2 if row["value"] < 10 else 0


def _words(metric: str) -> str:
    heading = HEADINGS.get(metric, metric).replace("(s)", "in seconds")
    return heading if heading[1:2].isupper() or "AUC" in heading else heading[0].lower() + heading[1:]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
