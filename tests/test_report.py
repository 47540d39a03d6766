"""The report is one self-contained page that says where its numbers come from."""

import re

import pandas as pd
import pytest

from zsad_lib import paths, report
from zsad_lib.config import as_dict, get_profile
from zsad_lib.errors import ZsadError

COLUMNS = "method variant metric level group family value low high n_videos n_frames prevalence seeds".split()


@pytest.fixture
def run(run_home):
    profile, folder = get_profile("smoke"), run_home / "runs" / "smoke"
    rows = [
        (method, "raw", metric, level, "all", family, 0.8123, 0.71, 0.91, 12, 576, 0.25, 1)
        for method in ("full", "random", "a<b")
        for metric, level in (("clip_auc", "clip"), ("micro_auc", "frame"), ("far", "frame"))
        for family in ("all", "semantic")
    ]
    result = {"profile": as_dict(profile), "versions": {"torch": "9.9"}, "git": {"commit": "abc", "changed": True}}
    for name in ("evaluate", "figures", "notebooks", "data"):
        paths.make_folder(folder / name)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "evaluate" / "detection.csv", index=False)
    paths.write_json(folder / "evaluate" / "result.json", result)
    (folder / "figures" / "headline.png").write_bytes(b"picture")
    (folder / "notebooks" / "20_train_detector.html").write_text("")
    (folder / "data" / "dataset_card.md").write_text("# Card\n\n| scene | walk |\n|---|---|\n| road | normal |\n")
    return profile, folder


def test_page_holds_numbers_floors_figures_links_and_provenance(run):
    profile, folder = run
    page = report.write(profile).read_text()
    assert "0.812 [0.710, 0.910]" in page and "Clip AUC, semantic" in page and "NOT results" in page
    assert "<tr class=floor><td>random</td>" in page and "a&lt;b" in page
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in page and page.count("<img") == 1
    assert (folder / "report" / re.search(r'href="(\.\./notebooks/[^"]+)"', page)[1]).is_file()
    assert (
        "abc (with changes)" in page
        and "9.9" in page
        and '<div class="wide"><table>' in page
        and "<td>road</td>" in page
    )


def test_supervision_is_told_where_classes_were_learned(run):
    profile, folder = run
    assert "By supervision" not in report.write(profile).read_text()
    file = folder / "evaluate" / "detection.csv"
    table = pd.read_csv(file)
    classes = table[table.method == "full"].assign(method="anomaly_clip")
    mean = classes[classes.metric == "micro_auc"].assign(metric="mauc", value=0.6543)
    pd.concat([table, classes, mean]).to_csv(file, index=False)
    names = dict(first="anomaly_clip", second="full", metric="mauc", group="all", family="all")
    gap = dict(names, difference=0.1234, low=0.1, high=0.2, p=0.01, p_holm=0.02)
    pd.DataFrame([gap]).to_csv(folder / "evaluate" / "differences.csv", index=False)
    page = report.write(profile).read_text()
    assert "class of each training video" in page and "0.654 [0.710, 0.910]" in page
    assert "anomaly_clip - full" in page and "+0.123 [+0.100, +0.200]*" in page


def test_page_fetches_nothing(run):
    page = report.write(run[0]).read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|@import|<script""", page)


def test_without_card_the_counts_are_shown(run):
    profile, folder = run
    (folder / "data" / "dataset_card.md").unlink()
    paths.write_json(folder / "data" / "result.json", {"metrics": {"n_test_frames": 2010}})
    assert "2010" in report.write(profile).read_text()


def test_a_run_without_evaluation_is_one_line(run_home, capsys):
    with pytest.raises(ZsadError, match="make reproduce PROFILE=demo"):
        report.write(get_profile("demo"))
    assert report.main(["--profile", "demo"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_command_says_where_the_page_is(run, capsys):
    assert report.main(["--profile", "smoke", "JOBS=1"]) == 0
    assert capsys.readouterr().out.strip().endswith("report/index.html")
