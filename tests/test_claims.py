"""What README says of the method holds on the numbers that are shown, and would say otherwise on others."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsad_lib.evaluate.run_evaluation import pairs
from zsad_lib.maintenance import front_page, weak_spots
from zsad_lib.results import tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GROUPS = ("all", "set:stream", "set:stream_lookalike", "set:lookalike", "set:night")
METRICS = ("micro_auc", "macro_auc", "ap", "far", "recall", "false_alarms_per_hour_at_threshold", "far@0.05", "far@0.2",
           "delay_s_at_threshold", "event_f1", "false_alarms_per_hour", "localised_chance")  # fmt: skip
LOW = ("far", "false_alarms", "delay")
PROSE_PAGES = ("README.md", "docs/findings.md")


def made_up(seed: int) -> pd.DataFrame:
    """A detection table of a made-up render: numbers by chance."""
    rng, rows = np.random.default_rng(seed), []
    for method in ("full_memory", "full", "knn", "motion_floor", "centre", "video_label_centre"):
        for variant in ("raw", "causal") if method.startswith("full") else ("raw",):
            for group in GROUPS:
                for metric in METRICS:
                    for family in ("all", "semantic") if metric == "micro_auc" else ("all",):
                        value = rng.uniform(0, 1) * (500 if "per_hour" in metric else 4 if "delay" in metric else 1)
                        low, high = value * 0.9, value * 1.1
                        rows.append((method, variant, metric, group, family, value, low, high))
    columns = ["method", "variant", "metric", "group", "family", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(level="frame", n_videos=9, n_frames=90, prevalence=0.2, seeds=3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_worst_and_the_best_of_every_metric_are_those_of_all_rows(seed):
    df = made_up(seed)
    spots = weak_spots.extremes(df, "full_memory", 0.05)
    own = df[(df.method == "full_memory") & ~df.metric.isin(["false_alarms_per_hour", "localised_chance", "far@0.2"])]
    own = own.assign(metric=own.metric.replace("far@0.05", "far"))
    assert set(spots.index) == set(own.metric), "no metric is chosen by name"
    for metric, part in own.groupby("metric"):
        best, worst = (
            (part.value.min(), part.value.max()) if metric.startswith(LOW) else (part.value.max(), part.value.min())
        )
        assert (spots.best[metric].value, spots.worst[metric].value) == (best, worst)
        floor = df[df.method.isin(weak_spots.FLOOR_NAMES) & (df.metric == metric)]
        floor = floor[(floor.group == spots.worst[metric].group) & (floor.family == spots.worst[metric].family)]
        if metric in tables.RANKING:
            assert spots.floor[metric].value == floor.value.max()
        else:
            assert spots.floor[metric] is None, "who never alarms has no false alarms"
    rows = weak_spots.rows_of(spots)
    assert len(rows) == weak_spots.ROWS and rows[0]["Metric"] == "Micro AUC"
    gaps = spots.gap.tolist()[1:]
    assert gaps == sorted(gaps, reverse=True), "those furthest apart are shown"


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_sentences_on_made_up_renders_hold(seed):
    df = made_up(seed)
    spots = weak_spots.extremes(df, "full_memory", 0.05)
    check_extremes(weak_spots.say_extremes(spots, "full_memory"), weak_spots.rows_of(spots))


def check_extremes(says: list[str], rows: list[dict[str, str]]) -> None:
    """Every sentence says what the table says, and none is missing that would be true."""
    text = " ".join(says)
    by_metric = {row["Metric"]: row for row in rows}
    _, best, worst = re.search(r"By (.+?), .+ is best on .+ \(([\d.]+)\) and worst on .+ \(([\d.]+)\)\.", text).groups()
    assert by_metric["Micro AUC"]["Best"].startswith(best) and by_metric["Micro AUC"]["Worst"].startswith(worst)
    assert float(best) >= float(worst)
    found = re.search(r"In the worst place a floor beats it by (.+?)\.(?: |$)", text)
    told = set(re.split(r", (?=Micro|Macro|Clip|AP|AUC)| and ", found[1])) if found else set()
    floors = {metric: row["Best floor in the worst place"].split()[-1] for metric, row in by_metric.items()}
    worsts = {metric: float(row["Worst"].split()[0]) for metric, row in by_metric.items()}
    beaten = {metric for metric, floor in floors.items() if floor != "-" and float(floor) > worsts[metric]}
    assert told == beaten
    share = re.search(r"(\d+)% of the normal frames alarm", text)
    assert bool(share) == ("False alarm rate" in by_metric)
    if share:
        assert abs(int(share[1]) / 100 - float(by_metric["False alarm rate"]["Worst"].split()[0])) <= 0.0051


def block(name: str) -> str:
    return re.search(rf"<!-- results:{name} -->\n(.*?)<!-- /results -->", README, re.DOTALL)[1]


def rows_in(text: str) -> list[dict[str, str]]:
    headings, _, *rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    return [dict(zip(headings, row)) for row in rows]


def test_sentences_of_the_front_page_hold_on_what_it_shows():
    rows = rows_in(block("where"))
    assert 1 < len(rows) <= weak_spots.ROWS and all(row["What it asks"] != "-" for row in rows)
    says = re.findall(r"^- (.+?)(?=\n- |\n*\Z)", block("where"), re.MULTILINE | re.DOTALL)
    check_extremes([" ".join(sentence.split()) for sentence in says], rows)


def test_pairs_follow_a_rule_and_no_list():
    methods = ["actor_count", "anomaly_clip", "full", "full_memory", "full_memory@causal", "knn", "new_method"]
    found = pairs(methods)
    plain = [name for name in methods if "@" not in name]
    for first in ("full_memory", "full"):
        assert {a if b == first else b for a, b in found if first in (a, b)} == set(plain) - {first}
    assert len(found) == len({frozenset(pair) for pair in found}) and not any(
        "@" in name for pair in found for name in pair
    )
    assert pairs(["knn", "motion_floor", "predictive"]) == [("predictive", "knn"), ("predictive", "motion_floor")]
    assert pairs(["knn"]) == []


def gap(second: str, difference: float, low: float, p: float, metric: str = "micro_auc") -> dict:
    same = dict(first="full_memory", group="set:stream", family="all")
    return dict(same, second=second, metric=metric, difference=difference, low=low, high=2 * difference - low, p_holm=p)


def test_ties_are_named_in_words():
    rows = [gap("a", 0.2, 0.1, 0.01), gap("b", -0.2, -0.3, 0.01), gap("c", 0.01, -0.1, 0.9), gap("d", 0.2, 0.1, 0.06)]
    says = weak_spots.say_pairs(pd.DataFrame(rows), "full_memory")
    assert [sentence.removeprefix("By Micro AUC on streams, `full_memory` is ") for sentence in says] == [
        "significantly above `a`.",
        "significantly below `b`.",
        "not told apart from `c`.",
        "not significantly apart, though the interval excludes 0, from `d`.",
    ]
    assert weak_spots.say_pairs(pd.DataFrame(rows), "paper") == []
    cells = tables.differences(pd.DataFrame(rows))["Micro AUC, streams"]
    signs = [cell.rpartition("]")[2] for cell in cells]
    assert signs == ["*", "*", tables.TIE, ""]


def test_what_the_front_page_says_of_pairs_is_in_the_comparison():
    """Stars and ties of the sentences are those of the printed differences."""
    page = (ROOT / "docs" / "results" / "demo_comparison.md").read_text(encoding="utf-8")
    cells = dict(re.findall(r"^\| (\w+ - \w+) +\| (.+?) +\|", page, re.MULTILINE))
    said = json.loads((ROOT / "docs" / "results" / "front_page.json").read_text(encoding="utf-8"))["demo"]["says"]
    signs = {"above": "*", "below": "*", "not told apart": tables.TIE.strip()}
    for sentence in said:
        method, *others = re.findall(r"`(\w+)`", sentence)
        for words, sign in signs.items():
            if f"significantly {words} `" in sentence or f"{words} from" in sentence:
                assert all(cells[f"{method} - {other}"].endswith(sign) for other in others), sentence
                assert words != "above" or all(cells[f"{method} - {other}"].startswith("+") for other in others)
        assert sentence in " ".join(README.split())


def test_a_floor_that_beats_the_main_method_is_named_and_only_then():
    rows = [
        {"Method": "`predictive`", "Micro AUC": "0.960 [0.9, 1.0]", "Micro AUC, causal": "0.900 [0.8, 0.95]"},
        {"Method": "`motion_floor`", "Micro AUC": "0.920 [0.8, 1.0]", "Micro AUC, causal": "-"},
    ]
    assert weak_spots.say_floors(rows) == ["`motion_floor` (0.920) beats `predictive (causal)` (0.900) by Micro AUC."]
    rows[1]["Micro AUC"] = "0.890 [0.8, 1.0]"
    assert weak_spots.say_floors(rows) == []
    rows[0]["Micro AUC"] = "0.500 [0.4, 0.6]"
    assert weak_spots.say_floors(rows) == ["`motion_floor` (0.890) beats `predictive` (0.500) by Micro AUC."]
    streams = [
        {"Method": "`full (causal)`", "AP": "0.2"},
        {"Method": "`full`", "AP": "0.6"},
        {"Method": "`centre`", "AP": "0.3"},
    ]
    assert weak_spots.say_floors(streams) == ["`centre` (0.3) beats `full (causal)` (0.2) by AP."]
    table = block("table")
    kept = json.loads((ROOT / "docs" / "results" / "front_page.json").read_text(encoding="utf-8"))
    for name in kept:
        assert all(words in " ".join(table.split()) for words in weak_spots.say_floors(kept[name]["rows"]))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_that_a_floor_beats_is_listed(seed):
    df = made_up(seed)
    listed = weak_spots.beaten_by_floors(df, "full_memory")
    texts = listed["better in (floor > row)"].str.split("; ").explode()
    assert all(float(a) >= float(b) for a, b in texts.str.extract(r"([\d.]+) > ([\d.]+)$").to_numpy())
    own = df[(df.method == "full_memory") & df.metric.isin(tables.RANKING)]
    floors = df[df.method.isin(weak_spots.FLOOR_NAMES)].groupby(["metric", "group", "family"]).value.max()
    beaten = [row for row in own.itertuples() if floors[row.metric, row.group, row.family] > row.value]
    assert len(texts) == len(beaten)


def prose(page: str) -> str:
    """A page without code, tables, pictures and marks."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    kept = [line for line in text.splitlines() if not line.startswith(("|", "!", "<!--"))]
    return re.sub(r"\]\([^)]*\)", "]", "\n".join(kept))


@pytest.mark.parametrize("page", PROSE_PAGES)
def test_sentences_are_short(page):
    parts = re.split(r"\n\s*\n|\n(?=[-#] )|(?<=[.!?])\s+", prose(page))
    long = [" ".join(part.split()) for part in parts if len(part.split()) >= 25]
    assert not long, long


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_lines_of_documents_fit_a_screen(page):
    """But for tables, pictures and code, and the model card, whose lines are the report's paragraphs too."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    outside = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "!["))]
    assert page.endswith("model_card.md") or [line for line in outside if len(line) >= 140] == []


def test_the_first_screen_shows_a_film_an_install_line_three_lines_of_python_and_one_table():
    screen = README[: README.index("| You are")]
    places = [
        screen.index(words)
        for words in (
            "<!-- results:film -->",
            "pip install",
            "import zsad_lib as z",
            "results:where",
            "make reproduce",
            "make test",
        )
    ]
    python = re.search(r"```python\n(.*?)```", screen, re.DOTALL)[1].splitlines()
    assert places == sorted(places) and len([line for line in python if line]) == 3
    assert (ROOT / "docs" / "results" / "film.png").stat().st_size < 200_000
    assert len(re.findall(r"\n\|:?--", screen)) == 1, "one table"
    worst = " ".join(row["Worst"] for row in rows_in(block("where")))
    assert "causal" in worst and "look-alike" in worst, "what it cannot do, on the first screen"


def test_published_tables_say_where_they_come_from():
    for path in sorted((ROOT / "docs" / "results").glob("*.md")):
        page = path.read_text(encoding="utf-8")
        timed = re.search(r"\| Revision \| \w+ \|\n\| Date \| \d{4}-\d\d-\d\d \|", page)  # `make bench`
        assert timed or re.match(r"Run `[\w-]+`, revision .*\d{4}-\d\d-\d\d\.", page.partition("\n")[0]), path.name
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    for chapter in re.split(r"\n## ", text)[1:]:
        if "run `" in chapter.partition("\n")[0]:
            assert re.search(r"\nRun `[\w-]+`, revision [^.]+\d{4}-\d\d-\d\d\.", chapter), chapter[:60]


def test_the_picture_of_films_is_made_from_the_runs_own(tmp_path):
    from PIL import Image

    folder = tmp_path / "films"
    folder.mkdir()
    films = []
    for number, place in enumerate(("best, upper quartile", "median", "lower quartile", "worst")):
        Image.new("RGB", (32, 20 + number), (number * 60, 0, 0)).save(folder / f"{number}.jpg")
        films.append({"place": place, "auc": 1 - number / 10})
    (folder / "films.json").write_text(json.dumps({"videos": 9, "films": films}), encoding="utf-8")
    text = front_page.film(tmp_path, tmp_path / "film.png")
    assert "best (1.000), median (0.900), worst (0.700) of 9." in " ".join(text.split())
    assert Image.open(tmp_path / "film.png").size == (3 * 32 + 2 * 10, 23)
