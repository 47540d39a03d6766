"""Tables of streams: they come first, state what their numbers are, and put the strongest floor beside the methods."""

import re

import pandas as pd

from zsad_lib.config import get_profile
from zsad_lib.files import paths
from zsad_lib.maintenance import front_page
from zsad_lib.results import run_tables, stream_tables, tables

COLUMNS = "method variant metric level group family value low high n_videos n_frames prevalence seeds".split()
VALUES = {  # row -> micro AUC of all families
    ("full_memory", "raw"): 0.93, ("full_memory", "smoothed"): 0.94, ("full_memory", "causal"): 0.87,
    ("full_memory", "calibrated"): 0.91, ("full_memory", "calibrated_causal"): 0.86, ("full", "raw"): 0.88,
    ("paper", "raw"): 0.6, ("semantic", "raw"): 0.95, ("knn", "raw"): 0.8, ("anomaly_clip", "raw"): 0.55,
    ("mil", "raw"): 0.5, ("motion_floor", "raw"): 0.63, ("actor_count", "raw"): 0.66, ("random", "raw"): 0.5,
    ("centre", "raw"): 0.51,
}  # fmt: skip
FAMILIES = ("semantic", "temporal", "contextual")


def detection(groups=("set:stream",)) -> pd.DataFrame:
    """Rows of `VALUES` for each group of streams, and of two methods on clips."""
    rows = []
    for group in groups:
        for (method, variant), value in VALUES.items():
            for k, family in enumerate(("all", *FAMILIES)):
                row = (group, family, value - k / 100, value - 0.05, value + 0.02, 18, 21600, 0.12, 5)
                rows.append((method, variant, "micro_auc", "frame", *row))
                rows.append((method, variant, "macro_auc", "video", *row))
            if method not in ("random", "centre", "actor_count"):
                points = {"event_recall": 0.9, "false_alarms_per_hour": 43.2, "delay_s": 0.61, "far": 0.06}
                for name, at in points.items():
                    for asked in ("0.01", "0.05"):
                        rows.append((method, variant, f"{name}@{asked}", "event", group, "all", at, at, at, *row[5:]))
    for method in ("full_memory", "random"):
        for metric, level in (("clip_auc", "clip"), ("micro_auc", "frame"), ("macro_auc", "video")):
            rows.append((method, "raw", metric, level, "all", "all", 0.9, 0.8, 0.95, 810, 38880, 0.4, 5))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_rows_and_columns_of_the_table():
    cells = stream_tables.stream_table(detection())
    assert cells.columns.tolist() == [
        "Micro AUC", "Macro AUC", "Micro AUC, semantic", "Micro AUC, temporal", "Micro AUC, contextual",
        "Event recall at 5%", "False alarms per hour at 5%", "Delay (s) at 5%",
    ]  # fmt: skip
    assert cells.index[:5].tolist() == [
        "full_memory", "full_memory (smoothed)", "full_memory (causal)", "full_memory (calibrated)",
        "full_memory (calibrated, causal)",
    ]  # fmt: skip
    assert cells.loc["full_memory", "Micro AUC, temporal"] == "0.910 [0.880, 0.950]"
    assert cells.loc["full_memory", "False alarms per hour at 5%"] == "43.2 [43.2, 43.2]"
    assert cells.loc["centre", "Event recall at 5%"] == "-" and cells.index[-1] == "centre"
    points = stream_tables.point_table(detection())
    assert points.columns[:2].tolist() == ["False alarm rate at 1%", "False alarm rate at 5%"] and len(points.T) == 8


def test_the_caption_says_what_the_numbers_are_and_names_the_strongest_floor():
    text = stream_tables.stream_caption(detection(), "Mine")
    for part in (
        "Mine. Continuous video, set stream, frame level; macro is the mean over streams",
        "Strongest floor: actor_count, micro AUC 0.660.",
        "(calibrated): memory, statistics and threshold from normal video of the same camera",
        "Test split: 18 videos, 21,600 frames, 12.0 % of frames abnormal. Mean over 5 seeds, in brackets the 95 %",
    ):
        assert part in text
    assert "(causal)" not in stream_tables.stream_caption(detection().query("variant == 'raw'"), "Mine")


def test_tables_of_calibrated_cameras_by_hand(tmp_path):
    found = [("calibrated", "a", 0.02, 100), ("calibrated", "b", 0.1, 300), ("calibrated_causal", "a", 0.5, 100)]
    rates = [("full_memory", variant, site, 0.05, got, got / 2, 1.0, n, n) for variant, site, got, n in found]
    names = ["method", "variant", "site", "asked", "got", "got_apart", "threshold", "n_frames", "n_apart"]
    cells = stream_tables.camera_table(
        pd.DataFrame([*rates, ("knn", "calibrated", "a", 0.05, *[1] * 5)], columns=names)
    )
    assert cells["Got, asked for 5%"].to_dict() == {"a": "0.020 (0.010)", "b": "0.100 (0.050)", "all": "0.080 (0.040)"}
    assert cells["Got, asked for 5%, causal"]["a"] == "0.500 (0.250)"
    row = dict(
        method="full_memory",
        variant="calibrated",
        seconds=90.0,
        asked=0.05,
        got=0.07,
        got_apart=0.04,
        gap=0.03,
        cameras=6,
    )
    minutes = pd.DataFrame([row | dict(worst_got=0.2, worst_site="c")])
    cells = stream_tables.minutes_table(minutes)
    assert cells.loc["1.5", "full_memory (calibrated)"] == "0.070 (0.040), off by 0.030, worst 0.200"
    assert stream_tables.calibration("Mine", tmp_path) == []
    minutes.to_csv(tmp_path / "calibration_minutes.csv", index=False)
    [(_, text, _)] = stream_tables.calibration("Mine", tmp_path)
    assert "Validation cameras, first seed" in text and "where 5% was asked for, mean over 6 cameras" in text


def test_the_worst_kind_of_event_comes_first(tmp_path):
    rows = [
        ("full_memory", "semantic:fall", 0.7),
        ("full_memory", "contextual:run", 0.6),
        ("knn", "contextual:run", 0.5),
    ]
    kinds = pd.DataFrame(rows, columns=["method", "family", "value"]).assign(low=0.4, high=0.9, events=3)
    kinds = kinds.assign(n_videos=18, seeds=5)
    cells = stream_tables.kinds_table(kinds)
    assert cells.index.tolist() == ["contextual: run", "semantic: fall"] and cells.Events.tolist() == ["3", "3"]
    assert cells.loc["contextual: run", "knn"] == "0.500 [0.400, 0.900]"
    kinds.to_csv(tmp_path / "event_kinds.csv", index=False)
    printed = stream_tables.opening(detection(), "Mine", tmp_path)
    assert [label for _, _, label in printed][-1] == "tab:stream-kinds" and "over 18 streams, mean over 5" in printed[
        -1
    ][1]


def test_streams_come_first_and_clips_are_told_what_they_are(run_home):
    folder = run_home / "runs" / "smoke"
    (folder / "evaluate").mkdir(parents=True)
    detection(("set:stream", "set:stream_night")).to_csv(folder / "evaluate" / "detection.csv", index=False)
    (folder / "evaluate" / "calibration_minutes.csv").write_text(
        "method,variant,seconds,asked,got,got_apart,gap,cameras,worst_got,worst_site\n"
        "full_memory,calibrated,90,.05,.07,.04,.03,6,.2,c\n"
    )
    run_tables.write(get_profile("smoke"), folder / "tables")
    markdown = (folder / "tables" / "detection.md").read_text()
    places = [
        markdown.index(text) for text in ("set stream, frame", "asked for", "set stream_night,", stream_tables.CLIPS)
    ]
    assert places == sorted(places) and "set:stream" not in markdown
    assert (folder / "tables" / "calibration_minutes.csv").is_file()
    latex = (folder / "tables" / "detection.tex").read_text()
    assert len(re.findall(r"\\label{tab:[\w-]+}", latex)) == len(set(re.findall(r"\\label{tab:[\w-]+}", latex))) == 5


def test_differences_on_streams_have_columns_of_their_own():
    rows = [("micro_auc", group, 0.1, 0.05, 0.2, 0.01, 0.01, "full", "paper") for group in ("all", "set:stream")]
    columns = ["metric", "group", "difference", "low", "high", "p", "p_holm", "first", "second"]
    cells = tables.differences(pd.DataFrame(rows, columns=columns).assign(family="all"))
    assert cells.columns.tolist() == ["Micro AUC, streams", "Micro AUC"]


def test_at_most_eight_rows_open_the_readme_the_strongest_floor_among_them():
    rows = front_page.stream_rows(detection(), "SceneRules")
    assert [row["Method"] for row in rows] == [
        "`full_memory`", "`full_memory (causal)`", "`full_memory (calibrated)`", "`full`", "`paper`", "`knn`",
        "`anomaly_clip`", "`actor_count`",
    ]  # fmt: skip
    assert rows[-1]["Why this row"] == "the strongest floor" and rows[0]["Micro AUC"] == "0.930 [0.880, 0.950]"
    weak = detection().replace({"mil": "anomaly_clip", "knn": "motion_floor"})
    weak = weak.drop_duplicates(["method", "variant", "metric", "family", "group"])
    assert front_page.stream_rows(weak, "x")[-2]["Why this row"] == "the strongest other method; AnomalyCLIP"


def test_another_render_is_told_with_its_numbers(run_home, tmp_path):
    assert front_page.show_renders(tmp_path, "full_memory") == {}, "it has not been run"
    paths.make_folder(folder := run_home / "runs" / "demo-seed1" / "tables")
    detection().to_csv(folder / "detection.csv", index=False)
    (folder / "detection.md").write_text("Its tables.")
    says = front_page.show_renders(tmp_path, "full_memory")["demo-seed1"]
    causal = stream_tables.stream_table(detection()).loc["full_memory (causal)", "Micro AUC"]
    assert says == f"[Another render](docs/results/demo-seed1.md): 0.930 [0.880, 0.950], causal {causal}."
    assert (tmp_path / "demo-seed1.md").read_text().endswith("Its tables.")


def test_runs_with_other_columns_have_tables_of_their_own():
    old = {"rows": [{"Data": "b", "Clip AUC": "1"}], "about": "B."}
    text = front_page.front_table({"demo": {"rows": [{"Data": "a", "Macro AUC": "2"}], "about": "A."}, "ped2": old})
    assert text.count("\n|:--") == 2 and text.index("- A.") < text.index("| b")
    assert front_page.front_table({"demo": old, "ped2": old}).count("\n|:--") == 1


def test_a_run_without_streams_has_no_tables_of_them(tmp_path):
    rows = detection().query("group == 'all'")
    assert stream_tables.opening(rows, "Mine", tmp_path) == [] and stream_tables.groups_of(rows) == []
