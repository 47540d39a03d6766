"""Tables of continuous video, which open README, report and docs/results: what a camera sees, frame by frame."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zsad_lib.evaluate.events import BESIDE
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.evaluate.operating_points import ASKED, AT_THRESHOLD, LOCALISED
from zsad_lib.results import tables

STREAM = "set:stream"
SEEING_FLOORS = ("motion_floor", "actor_count")  # that look at the picture, or know what is in it
RANKED = ("micro_auc", "macro_auc", "ap")
AT_FRONT = ("event_recall@0.05", "false_alarms_per_hour@0.05", "delay_s@0.05")
RATES = {
    "got": "n_frames",
    "got_apart": "n_apart",
}  # rate in ``calibrated_cameras.csv`` -> frames that it is a share of
VARIANTS = {  # variant -> what it says of a row
    "smoothed": "under a further Gaussian of 3 frames",
    "causal": "what a live camera would have known",
    "calibrated": "memory, statistics and threshold from normal video of the same camera, recorded before",
}
CLIPS = (
    " Clips hold one family at a time, for teaching; their macro AUC asks where in a clip of a few seconds its event"
    " lies, which windows of nearly that length hardly tell."
)
Printed = tuple[pd.DataFrame, str, str]  # cells, caption, LaTeX label


def groups_of(df: pd.DataFrame) -> list[str]:
    """Groups of streams that a detection table has rows of, `STREAM` first."""
    return sorted(name for name in df["group"].unique() if name.startswith(STREAM))


def strongest_floor(df: pd.DataFrame, group: str) -> pd.Series:
    """The row of the floor with the highest micro AUC."""
    rows = _whole(df[df["group"] == group], "micro_auc", "raw")
    return rows[rows["method"].isin([*FLOORS, *SEEING_FLOORS])].nlargest(1, "value").iloc[0]


def _whole(rows: pd.DataFrame, metric: str, variant: str) -> pd.DataFrame:
    return rows[(rows["metric"] == metric) & (rows["variant"] == variant) & (rows["family"] == "all")]


def stream_table(df: pd.DataFrame, group: str = STREAM) -> pd.DataFrame:
    """Methods and variants as rows: micro and macro AUC, AP, each family's micro AUC, and what alarms bring."""
    rows = df[df["group"] == group].assign(group="all")
    families = [name for name in tables.FAMILIES if name != "all" and name in set(rows["family"])]
    parts = [tables.table(rows, RANKED)]
    if families:
        parts.append(tables.table(rows, ["micro_auc"], families=families))
    if rows["metric"].isin(AT_FRONT).any():
        parts.append(tables.table(rows, AT_FRONT))
    return parts[0].join(parts[1:]).fillna("-")


def point_table(df: pd.DataFrame, group: str = STREAM) -> pd.DataFrame:
    """The rate of false alarms that was got, and what it brings and costs, for each rate that was asked for."""
    metrics = [f"{name}@{asked:g}" for name in AT_THRESHOLD for asked in ASKED]
    return tables.table(df[df["group"] == group].assign(group="all"), [*metrics, *LOCALISED])


def stream_caption(df: pd.DataFrame, title: str, group: str = STREAM) -> str:
    """What `stream_table` holds, with its strongest floor."""
    floor, shown = strongest_floor(df, group), set(df.loc[df["group"] == group, "variant"])
    words = "; ".join(f"({name}): {text}" for name, text in VARIANTS.items() if name in shown)
    level = (
        f"Continuous video, set {group.removeprefix('set:')}, frame level; macro is the mean over streams; a family's"
        " column takes the frames of its events against all normal frames of the same streams. Event recall, false"
        " alarms per hour and delay at the threshold that lets 5% of the frames of held-out normal video alarm."
        f"{f' {words}.' if words else ''} Strongest floor: {floor['method']}, micro AUC {floor['value']:.3f}."
    )
    return tables.caption(df, title, level, [group])


def camera_table(cameras: pd.DataFrame) -> pd.DataFrame:
    """Of the first method in ``calibrated_cameras.csv``: the rate that each camera got for each that was asked for, in
    brackets that of the frames apart from events."""
    rows, cells = cameras[cameras["method"] == cameras["method"].iloc[0]], {}
    for (variant, asked), some in rows.groupby(["variant", "asked"], sort=True):
        some = some.set_index("site")
        whole = [(some[got] * some[n]).sum() / some[n].sum() for got, n in RATES.items()]
        name = f"Got, asked for {asked:.0%}{', causal' * variant.endswith('causal')}"
        cells[name] = {site: _rates(*got) for site, *got in some[list(RATES)].itertuples()} | {"all": _rates(*whole)}
    return pd.DataFrame(cells).rename_axis("camera")


def _rates(got: float, got_apart: float) -> str:
    return f"{got:.3f} ({got_apart:.3f})"


def minutes_table(minutes: pd.DataFrame) -> pd.DataFrame:
    """Of ``calibration_minutes.csv``: by minutes of normal video the rate that was got, and how far off."""
    cells: dict[str, dict[str, str]] = {}
    for r in minutes.itertuples():
        name = f"{r.method} ({r.variant.replace('_', ', ')})"
        text = f"{_rates(r.got, r.got_apart)}, off by {r.gap:.3f}, worst {r.worst_got:.3f}"
        cells.setdefault(name, {})[f"{r.seconds / 60:.1f}"] = text
    return pd.DataFrame(cells).rename_axis("minutes")


def opening(df: pd.DataFrame, title: str, folder: Path) -> list[Printed]:
    """The tables of streams, those of calibrated cameras from the evaluation's `folder` among them; none without
    streams."""
    printed: list[Printed] = []
    for group in groups_of(df):
        name = group.removeprefix("set:").replace("_", "-")
        printed.append((stream_table(df, group), stream_caption(df, title, group), f"tab:{name}"))
        if group != STREAM or not df["metric"].isin(AT_FRONT).any():
            continue
        text = "Continuous video: the rate of false alarms asked for, on held-out normal frames, and what comes of it."
        text += " Of the detected events, the share whose highest score points into the abnormal actor's box."
        printed.append((point_table(df), tables.caption(df, title, text, [group]), "tab:stream-points"))
    if (file := folder / "event_kinds.csv").is_file():
        kinds = pd.read_csv(file)
        text = (
            f"{title}. Continuous video: micro AUC of the frames of each kind of event against all normal frames of the"
            f" test streams, the worst first; with its interval over {kinds['n_videos'].iloc[0]} streams, mean over"
            f" {kinds['seeds'].max()} seeds. Few events of a kind mean a wide interval."
        )
        printed.append((kinds_table(kinds), text, "tab:stream-kinds"))
    return printed + calibration(title, folder)


def kinds_table(kinds: pd.DataFrame) -> pd.DataFrame:
    """Of ``event_kinds.csv``: each kind's micro AUC by method, the kind that the first method sees worst first."""
    methods = list(dict.fromkeys(kinds["method"]))
    order = kinds[kinds["method"] == methods[0]].sort_values("value")
    cells = pd.DataFrame({"Events": order.set_index("family")["events"].astype(str)})
    for name in methods:
        rows = kinds[kinds["method"] == name].set_index("family")
        cells[name] = pd.Series({kind: tables.value_cell(rows.loc[kind]) for kind in rows.index})
    return cells.rename(index=lambda kind: kind.replace(":", ": ")).rename_axis("kind")


def calibration(title: str, folder: Path) -> list[Printed]:
    """How well a camera's own threshold keeps its promise, from the evaluation's `folder`."""
    printed: list[Printed] = []
    if (file := folder / "calibrated_cameras.csv").is_file():
        cameras = pd.read_csv(file)
        text = (
            f"{title}. {cameras['method'].iloc[0]}, each camera calibrated on its own normal video: share of the normal"
            f" frames of its test stream that alarm, in brackets of those more than {BESIDE:g} s from every event, by"
            " the share of held-out normal frames that may; mean over seeds."
        )
        printed.append((camera_table(cameras), text, "tab:calibrated-cameras"))
    if (file := folder / "calibration_minutes.csv").is_file():
        minutes = pd.read_csv(file)
        text = (
            f"{title}. Validation cameras, first seed: the share of normal frames that alarm where"
            f" {minutes['asked'].iloc[0]:.0%} was asked for, mean over {minutes['cameras'].iloc[0]} cameras, in"
            f" brackets of those more than {BESIDE:g} s from every event, how far they are off on average, and the"
            " worst camera's; by minutes of normal video, of which each half is held out in turn."
        )
        printed.append((minutes_table(minutes), text, "tab:calibration-minutes"))
    return printed


def choose_rows(df: pd.DataFrame, forms: dict[str, str], others: Sequence[str]) -> dict[tuple[str, str], str]:
    """(method, variant) of the front page's rows, at most eight, each with the reason; by rule and never by eye.

    Args:
        df: detection table.
        forms: methods that have a row, with the reason; the first also as causal and calibrated.
        others: methods among which the strongest by micro AUC has a row.
    """
    rows = df[(df["group"] == STREAM) & (df["family"] == "all") & (df["metric"] == "micro_auc")]
    scored = set(zip(rows["method"], rows["variant"]))
    chosen = {(method, "raw"): reason for method, reason in forms.items() if (method, "raw") in scored}
    first = next(iter(chosen), ("", ""))[0]
    variants = {(first, name): VARIANTS[name] for name in ("causal", "calibrated") if (first, name) in scored}
    chosen = {**dict(list(chosen.items())[:1]), **variants, **chosen}
    raw = rows[rows["variant"] == "raw"].set_index("method")["value"]
    best = raw[raw.index.isin(others)].nlargest(1).index
    extra = [*((name, "the strongest other method") for name in best)]
    extra += [("anomaly_clip", "AnomalyCLIP")] if "anomaly_clip" in raw else []
    extra += [(strongest_floor(df, STREAM)["method"], "the strongest floor")]
    for name, reason in extra:
        chosen[name, "raw"] = f"{chosen[name, 'raw']}; {reason}" if (name, "raw") in chosen else reason
    return chosen
