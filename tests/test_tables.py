"""Tables as a paper prints them."""

import re

import pandas as pd
import pytest

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import COLUMNS
from zsad_lib.files.paths import write_json
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import run_tables, tables


def rows(*items):
    """Tidy rows from (method, variant, metric, level, group, family, value)."""
    tail = (0.1, 0.95, 12, 1234, 0.25, 5)
    return pd.DataFrame([(*item, *tail) for item in items], columns=COLUMNS)


TIDY = rows(
    ("random", "raw", "micro_auc", "frame", "all", "all", 0.5),
    ("knn_5%", "raw", "micro_auc", "frame", "all", "all", 0.7),
    ("full", "smoothed", "micro_auc", "frame", "all", "all", 0.95),
    ("full", "raw", "micro_auc", "frame", "all", "all", 0.9),
    ("full", "raw", "clip_auc", "clip", "all", "all", 0.93),
    ("full", "raw", "clip_auc", "clip", "all", "semantic", 0.94),
    ("full", "raw", "clip_auc", "clip", "scene:road", "all", 0.91),
    ("full", "raw", "clip_auc", "clip", "set:night", "all", 0.81),
    ("full", "raw", "far", "frame", "all", "all", 0.05),
    ("full", "raw", "delay_s", "event", "all", "all", 1.25),
)


def test_rows_columns_and_cells():
    cells = tables.table(TIDY, families=("all", "semantic"))
    assert cells.index.tolist() == ["full", "full (smoothed)", "knn_5%", "random"]  # floors last
    assert cells.columns.tolist() == ["Clip AUC", "Clip AUC, semantic", "Micro AUC"]
    assert cells.loc["full", "Clip AUC, semantic"] == "0.940 [0.100, 0.950]"
    assert cells.loc["random", "Clip AUC"] == "-"
    assert tables.table(TIDY, ["micro_auc"], variants=["smoothed"], intervals=False).to_numpy().tolist() == [["0.950"]]
    assert tables.table(TIDY, ["delay_s"], intervals=False).to_numpy().tolist() == [["1.25"]]
    with pytest.raises(ZsadError, match="nothing to print"):
        tables.table(TIDY, ["ap"])


def test_caption_says_what_the_numbers_are():
    text = tables.caption(TIDY, "Mine", "Frame level.")
    for part in (
        "Mine. Frame level.",
        "Test split: 12 videos, 1,234 frames, 25.0 % of frames and 25.0 % of clips abnormal.",
        "Mean over 5 seeds, in",
        "95 %",
    ):
        assert part in text


def test_caption_counts_parts_of_unequal_size_each_and_names_fewer_seeds():
    table = rows(
        ("full", "raw", "micro_auc", "frame", "set:night", "all", 0.9),
        ("full", "raw", "micro_auc", "frame", "set:stream", "all", 0.9),
        ("full", "raw", "class_auc", "frame", "class:fire", "all", 0.9),
    )
    table.loc[1, ["n_videos", "n_frames", "prevalence", "seeds"]] = 6, 7200, 0.1, 1
    both = tables.caption(table, "Mine", "Frame level.", ["set:night", "set:stream"])
    assert "split: set:night: 12 videos, 1,234 frames, 25.0 % of frames abnormal; set:stream: 6 videos, 7,200" in both
    assert "Mean over 5 seeds (1 where nothing is trained)" in both
    whole = pd.concat([table, table.iloc[[1]].assign(group="all")])
    assert "split: all: 6 videos" in tables.caption(whole, "Mine", "Frame level.", ["all", "set:night"])
    assert "25.0 % of frames of this class." in tables.caption(table, "Mine", "Frame level.", ["class:fire"])


def test_a_column_with_a_unit_has_one_number_of_digits():
    name = "false_alarms_per_hour_at_threshold"
    table = rows(
        *((method, "raw", name, "event", "all", "all", value) for method, value in (("a", 69.46), ("b", 149.2)))
    )
    table["high"] = [90.0, 178.4]
    cells = tables.table(table, [name], intervals=False)
    assert cells["False alarms per hour"].tolist() == ["69", "149"]
    assert "lets 5% of the frames of held-out normal video alarm" in tables.describe_alarms(table, 0.05)
    assert "(causal)" not in tables.describe_alarms(table, 0.05)
    assert "(causal)" in tables.describe_alarms(table.assign(variant="causal"), 0.05)


def test_latex_is_escaped_and_ruled():
    text = tables.to_latex(tables.table(TIDY, ["micro_auc"]), "50 % & more_", "tab:x")
    assert r"\caption{50 \% \& more\_}" in text and r"knn\_5\% & 0.700" in text
    body = text.split("\n")
    assert (
        body.index(r"\midrule", body.index(r"\midrule") + 1) == next(i for i, x in enumerate(body) if "random" in x) - 1
    )
    assert text.count(r"\begin{") == text.count(r"\end{") == 2 and r"\toprule" in text and r"\bottomrule" in text


def test_markdown_marks_the_floors_and_escapes_bars():
    lines = tables.to_markdown(tables.table(TIDY.replace("knn_5%", "a|b"), ["micro_auc"]), "Caption.").splitlines()
    assert lines[0] == "Caption." and "floors" in lines[-2] and "random" in lines[-1]
    assert any(r"a\|b" in line for line in lines)


def test_no_text_leaves_its_cell():
    texts = ["a|b", "a\nb", "a\n\nb", "&%$#_{}\\~^", "<b>", r"\input{x}", "| x |\n|---|"]
    cells = pd.DataFrame({text: texts for text in texts}, index=pd.Index(texts, name="method"))
    lines = tables.to_markdown(cells, "About.").splitlines()[2:]
    assert len(lines) == len(texts) + 2 and all(len(re.findall(r"(?<!\\)\|", line)) == 9 for line in lines)
    rows = tables.to_latex(cells, "About.", "tab:x").split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(rows) == len(texts) and all(len(re.findall(r"(?<!\\)&", row)) == 7 for row in rows)
    assert not re.search(r"[|<>]|(?<!\\)[%$#_]|\\input", "".join(rows)) and r"a\textbar{}b" in rows[0]


def test_step_writes_both_files(tmp_path):
    with pytest.raises(ZsadError, match="run the step"):
        run_tables.write(get_profile("smoke"), tmp_path / "tables")
    (tmp_path / "evaluate").mkdir()
    TIDY.to_csv(tmp_path / "evaluate" / "detection.csv", index=False)
    result = run_tables.write(get_profile("smoke"), tmp_path / "tables")
    markdown = (tmp_path / "tables" / "detection.md").read_text()
    assert markdown.startswith("NOT RESULTS") and "scene:road" in markdown and "set:night" in markdown
    latex = (tmp_path / "tables" / "detection.tex").read_text()
    assert latex.count(r"\begin{table}") == 6 == latex.count(r"\label{tab:")
    assert set(result["artefacts"]) == {"csv", "md", "tex"} and all(
        path.is_file() for path in result["artefacts"].values()
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / "detection.csv"), TIDY)


def test_titles_name_the_lists_that_were_used(run_home):
    profile = get_profile("ucf_crime", split="uca")
    assert run_tables.heading(profile) == "Detection on ucf_crime, profile ucf_crime-uca"
    result = run_folder(profile) / "data" / "result.json"
    write_json(result, {"metrics": {"n_test": 3}})
    assert run_tables.heading(profile) == "Detection on ucf_crime, profile ucf_crime-uca"
    write_json(result, {"metrics": {"split": "uca", "split_sha256": "0123456789abcdef"}})
    assert (
        run_tables.heading(profile) == "Detection on ucf_crime, split uca (sha256 0123456789ab), profile ucf_crime-uca"
    )
