"""The report is one self-contained page that says where its numbers come from."""

import re

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from zsad_lib.__main__ import main
from zsad_lib.config import as_dict, get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.manifest import save_manifest
from zsad_lib.pipeline import artefacts
from zsad_lib.results import html_page as page
from zsad_lib.results import report, report_cards

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
    for name in ("evaluate", "figures", "notebooks", "data", "films", "tables", "scores/full/0"):
        paths.make_folder(folder / name)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "evaluate" / "detection.csv", index=False)
    paths.write_json(folder / "evaluate" / "result.json", result)
    (folder / "figures" / "headline.png").write_bytes(b"picture")
    nbformat.write(
        v4.new_notebook(cells=[v4.new_markdown_cell("# 20 · Train")]), folder / "notebooks" / "20_train.ipynb"
    )
    paths.write_json(paths.make_folder(folder / "notebooks" / "20_train") / "result.json", {})
    clip = dict(path="", set="main", scene="road", site="a", action="walk", n_frames=48, fps=10.0, caption="")
    clips = [("a", "train", "normal", ""), ("b", "test", "normal", ""), ("c", "test", "semantic", "10-19")]
    clips.append(("d", "train", "semantic", "10-19"))  # for a method that learns from classes
    clips = [clip | dict(zip(("video", "split", "family", "spans"), values)) for values in clips]
    save_manifest(pd.DataFrame(clips), folder / "data")
    film = {"place": "best", "video": "c", "auc": 0.9876, "start_s": 1.0, "n_frames": 20, "fps": 5.0}
    rule = {
        "method": "full",
        "seed": 0,
        "videos": 7,
        "quantiles": [1.0, 0.25],
        "calibrated": True,
        "films": [film | {"shape": [32, 24]}],
    }
    paths.write_json(folder / "films" / "films.json", rule)
    (folder / "films" / "0.mp4").write_bytes(b"film")
    (folder / "films" / "0.jpg").write_bytes(b"poster")
    (folder / "tables" / "ablation_gate.md").write_text(
        "Grid gate.\n\n| variant | all |\n|:--|:--|\n| silu | 0.711 |\n"
    )
    (folder / "data" / "dataset_card.md").write_text("# Card\n\n| scene | walk |\n|---|---|\n| road | normal |\n")
    return profile, folder


def test_page_holds_numbers_floors_figures_links_and_provenance(run):
    profile, folder = run
    page = report.write(profile).read_text()
    assert "0.812 [0.710,&nbsp;0.910]" in page and "Clip AUC</a>, semantic" in page and "NOT results" in page
    assert "<tr class=floor><td>random</td>" in page and "a&lt;b" in page
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in page and page.count("<img") == 2  # and a poster
    assert (folder / "report" / re.search(r'href="(\.\./notebooks/[^"]+)"', page)[1]).is_file()
    assert "abc (with changes)" in page and "9.9" in page and "<td>road</td>" in page


def test_seconds_stand_beside_those_of_the_time_before(run):
    profile, folder = run
    assert "Seconds per step" not in report.write(profile).read_text()
    for step, seconds, before in (("data", 3.0, None), ("train", 3.0, 2.0)):
        facts = {"step": step, "seconds": seconds, "seconds_before": before, "metrics": {}}
        artefacts.write_result(folder / step, {**facts, "artefacts": {}, "files": {}})
    page = report.write(profile).read_text()
    rows = re.findall("<td>(data|train)</td><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>", page)
    assert rows == [("data", "3.0", "-", "-"), ("train", "3.0", "2.0", "1.50")]


def test_streams_come_first_and_clips_after_them(run):
    profile, folder = run
    file = folder / "evaluate" / "detection.csv"
    table = pd.read_csv(file)
    streams = table[table.metric == "micro_auc"].assign(group="set:stream", value=0.7654)
    points = streams[streams.family == "all"].assign(metric="event_recall@0.05", value=0.4321)
    pd.concat([table, streams, points]).to_csv(file, index=False)
    (folder / "figures" / "clips.png").write_bytes(b"other")
    text = report.write(profile).read_text()
    parts = ('id="headline"', "0.765 [", "0.432 [", 'id="clips"', "0.812 [", "for teaching")
    places = [text.index(part) for part in parts]
    assert places == sorted(places) and "Strongest floor: random" in text and text.count('src="data:image/png') == 2


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
    assert "class of each training video" in page and "0.654 [0.710,&nbsp;0.910]" in page
    assert "anomaly_clip - full" in page and "+0.123 [+0.100,&nbsp;+0.200]*" in page


def test_page_fetches_nothing_and_its_links_lead_somewhere(run):
    page = report.write(run[0]).read_text()
    assert not re.findall(r"""(?:src|poster)=["'](?!data:)|<link|@import|<script|<iframe""", page)
    links = set(re.findall('href="([^"]+)"', page))
    inside = {link[1:] for link in links if link.startswith("#")}
    assert (
        {"headline", "films", "model-card", "limits", "glossary", "term-clip-auc"}
        <= inside
        <= set(re.findall('id="([^"]+)"', page))
    )
    assert {link.split("/")[0] for link in links if not link.startswith("#")} <= {"https:", ".."}


def test_films_come_with_their_rule_and_the_truth(run):
    page = report.write(run[0]).read_text()
    assert "best: AUC 0.988, c, seconds 1 to 5" in page and "of 7 test videos" in page and "(full, seed 0)" in page
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in page and 'poster="data:image/jpeg;base64,cG9zdGVy"' in page
    assert "5% of whose frames may alarm" in page and "quantiles 1, 0.25 of the AUC" in page


def test_ablations_are_folded_and_notebooks_have_their_titles(run):
    page = report.write(run[0]).read_text()
    assert "<details><summary>gate</summary>" in page and "<td>silu</td>" in page
    assert '<a href="../notebooks/20_train.html">20 · Train</a>' in page
    (run[1] / "notebooks" / "20_train" / "result.json").unlink()  # it runs again, and has failed
    assert "Executed notebooks" not in report.write(run[0]).read_text()


def test_a_folded_part_opens_for_its_own_link_because_the_target_is_inside():
    part = page.folded("Limits & more", "<p>text</p>")
    assert re.fullmatch(
        r'<details><summary>.*</summary>\s*<div [^>]*id="limits-more">.*</div>\s*</details>', part, re.DOTALL
    )
    assert '<a href="#limits-more">Limits &amp; more</a>' in page.contents([part])


def test_numbers_of_the_model_card_are_the_runs(run):
    profile, folder = run
    file = folder / "evaluate" / "detection.csv"
    table = pd.read_csv(file)
    card = report_cards.model_card(profile, table)
    assert "`full`" in card and "1 training videos" in card and "2 videos, 0.00 hours" in card
    paths.make_folder(folder / "scores" / "anomaly_clip")
    (folder / "scores" / "full").rename(folder / "full")
    assert "2 training videos" in report_cards.model_card(profile, table)  # it is told their classes
    (folder / "full").rename(folder / "scores" / "full")
    assert "lets 81% of the normal frames" in card and "per hour (" not in card and "{" not in card
    far = table[(table.method == "full") & (table.metric == "far")]
    more = [
        far.assign(metric="false_alarms_per_hour_at_threshold", value=2.0),
        far.assign(metric="event_recall_at_threshold", value=0.5),
    ]
    table = table[~table.metric.isin(["micro_auc", "far_normal"])]
    long = far.assign(metric="macro_auc", group="set:stream", value=0.715, low=0.644, high=0.798, n_videos=6)
    more += [long, long.assign(method="centre", value=0.6), far.assign(group="set:night", value=0.25)]
    more += [far.assign(metric="far_normal", value=0.11, n_videos=9), far.assign(metric="micro_auc")]
    more += [far.assign(variant="causal", metric="micro_auc", value=0.66)]
    more += [far.assign(variant="causal", metric="delay_s_at_threshold", value=2.03)]
    assert "set `stream`" not in card and "Other sets" not in card and "Live" not in card
    card = report_cards.model_card(profile, pd.concat([table, *more]))
    assert "In the 6 continuous test videos (set `stream`) it is 0.71 (0.64 to 0.80), the bump 0.60." in card
    assert (
        "In the 9 test videos without any event it is 11%" in card and "Other sets of test videos: night 25% of" in card
    )
    assert "micro AUC of 0.66 (" in card and "noticed 2.0 s after" in card
    assert "False alarms: 2 per hour" in card and "48 a day" in card and "one alarm in 97 would be true" in card


def test_texts_of_the_kit_are_there():
    assert "synthetic" in report_cards.limits() and "](" not in re.sub(r"\]\(https:[^)]*\)", "", report_cards.limits())
    assert report_cards._unlinked("[a](b.md), c ([d](e.md)), [f](https://g.org)") == "a, c, [f](https://g.org)"
    assert "What they have seen" in report_cards.stand_ins() and "clip AUC" in report_cards.glossary()


def test_without_card_the_counts_are_shown(run):
    profile, folder = run
    (folder / "data" / "dataset_card.md").unlink()
    paths.write_json(folder / "data" / "result.json", {"metrics": {"n_test_frames": 2010}})
    assert "2010" in report.write(profile).read_text()


def test_a_run_without_evaluation_is_one_line(run_home, capsys):
    with pytest.raises(ZsadError, match="make reproduce PROFILE=demo"):
        report.write(get_profile("demo"))
    assert main(["report", "--profile", "demo"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_command_says_where_the_page_is(run, capsys):
    assert main(["report", "--profile", "smoke", "JOBS=1"]) == 0
    assert capsys.readouterr().out.strip().endswith("report/index.html")
