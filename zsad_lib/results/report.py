"""One page about a run, in one file: headline numbers with floors, films, figures, cards, where it all comes from.

`make report` writes ``runs/demo/report/index.html``, and beside the executed notebooks their pages.
Everything on it has been computed and drawn by then, but for the numbers of the model card.
"""

import html
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline import run_step
from zsad_lib.pipeline.artefacts import read_result, refuse_changed
from zsad_lib.results import html_page, report_cards, run_tables, stream_tables, tables

CAPTIONS = {  # figure -> what it shows, in the order of the page
    "headline": (
        "Every method and every content-free floor. Dots: mean over seeds; lines: 95 % intervals (bootstrap "
        "over videos). Hollow floors never look at a picture; the two marked oracle are told which videos are abnormal."
    ),
    "clips": "The same on short clips, each of which holds one family: clip AUC.",
    "score_curve": (
        "Score over time of one test video, chosen by rule (median AUC; of the streams alone where there are "
        "any), with what each term adds and the truth shaded. The dashed threshold was fixed on held-out normal video."
    ),
    "roc_pr": (
        "All test frames joined (of the streams alone where there are any). The dotted line on the right is the"
        " prevalence: the precision of guessing."
    ),
    "densities": (
        "Frame scores of normal frames and of abnormal ones (of the streams alone where there are any), those of all"
        " seeds together (in brackets how many). The"
        " dashed threshold is the first seed's."
    ),
    "scenes": "Each scene on its own: its abnormal clips against its normal clips.",
    "confusion_anomaly_clip": (
        "AnomalyCLIP: frames of each true class by the class of the largest probability, mean over "
        "seeds; rows add up to 1."
    ),
    "overlays": "Where the anomaly map is highest, in the clips at the quartiles of AUC, beside the true mask.",
    "contact_sheet": "The first test clip of each scene and family, at the middle of its event, with its caption.",
}
QUICK = "A quick look with small settings: these numbers are NOT results."


def write(profile: Profile) -> Path:
    """Writes ``runs/<run>/report/index.html`` from the run's evaluation, tables, figures and films.

    Returns:
        The page.

    Raises:
        ZsadError: the run has not been evaluated yet, or its files were changed since.
    """
    run = run_step.run_folder(profile)
    source = run / "evaluate" / "detection.csv"
    if not source.is_file():
        raise ZsadError(f"{source}: no such table; run `make reproduce PROFILE={profile.name}` first")
    refuse_changed(run, ("evaluate", "tables", "figures", "films"))
    result = paths.read_json(run / "evaluate" / "result.json", "git", "profile", "versions")
    table = pd.read_csv(source)
    title = run_tables.heading(profile)
    glossary, terms = _glossary()
    sections = [
        *_streams(table, title, run, terms),
        *_headline(table, title, run, terms, profile.far_target),
        *_supervision(table, run, terms),
        *_films(run, profile),
        *_figures(run),
        *_ablations(run),
        *_notebooks(run),
        *_cards(profile, table, run),
        *glossary,
        *_times(profile),
        *_provenance(result),
    ]
    note = "" if profile.is_result else f'<p class="note">{QUICK}</p>\n'
    body = f"<h1>{html.escape(title)}</h1>\n{note}{html_page.contents(sections)}\n" + "\n".join(sections)
    target = run / "report" / "index.html"
    return paths.write_text(target, html_page.document(title, body))


def _streams(table: pd.DataFrame, title: str, run: Path, terms: Mapping[str, str]) -> list[str]:
    """What is first where there are streams: their tables, and those of calibrated cameras."""
    printed = stream_tables.opening(table, title, run / "evaluate")
    if not printed:
        return []
    parts = [part for cells, text, _ in printed for part in (html_page.soft(text), html_page.table(cells, terms))]
    return [html_page.section("Headline", *_pictures(run, ["headline"]), *parts)]


def _headline(table: pd.DataFrame, title: str, run: Path, terms: Mapping[str, str], far_target: float) -> list[str]:
    whole = table[(table["group"] == "all") & (table["family"] == "all")]
    families = ["all", *(name for name in table["family"].unique() if name != "all")]
    streams = bool(stream_tables.groups_of(table))
    parts = _pictures(run, ["clips" if streams else "headline"])
    if (table["metric"] == "clip_auc").any() and len(families) > 1:
        cells = tables.table(table, ["clip_auc"], families=families)
        level = "Clip level: a family's abnormal clips against all normal ones."
        text = tables.caption(table, title, level, families=families)
        parts += [html_page.soft(text), html_page.table(cells, terms)]
    ranking = [name for name in tables.RANKING if (whole["metric"] == name).any()]
    note = stream_tables.CLIPS if streams else ""
    text = tables.caption(table, title, f"Frame level unless the column says otherwise.{note}")
    parts += [html_page.soft(text), html_page.table(tables.table(table, ranking), terms)]
    sections = [html_page.section("Clips" if streams else "Headline", *parts)]
    if whole["metric"].isin(tables.THRESHOLD).any():
        sets = [name for name in table["group"].unique() if name.startswith("set:")]
        sets = [name for name in sets if name not in stream_tables.groups_of(table)]
        parts = []
        for metrics, groups in ((tables.THRESHOLD, ["all"]), (tables.SET_ALARMS, sets)):
            if (table["metric"].isin(metrics) & table["group"].isin(groups)).any():
                text = tables.caption(table, title, tables.describe_alarms(table, far_target), groups)
                parts += [html_page.soft(text), html_page.table(tables.table(table, metrics, groups=groups), terms)]
        sections.append(html_page.section("Alarms, clips" if streams else "Alarms", *parts))
    return sections


def _supervision(table: pd.DataFrame, run: Path, terms: Mapping[str, str]) -> list[str]:
    """Methods side by side with what each learned from, and the paired differences between some."""
    file = run / "evaluate" / "differences.csv"
    if not file.is_file() or "mauc" not in set(table["metric"]):
        return []
    cells, apart = tables.comparison(table), tables.differences(pd.read_csv(file))
    rows = table[table["method"].isin(cells.index)]
    text = tables.caption(rows, "Methods by what they learned from", f"Frame level but for clip AUC.{tables.PROMPTED}")
    pairs = html_page.soft(tables.DIFFERENCES), html_page.table(apart, terms)
    return [html_page.section("By supervision", html_page.soft(text), html_page.table(cells, terms), *pairs)]


def _films(run: Path, profile: Profile) -> list[str]:
    """The example films, with the rule that chose them."""
    if not (run / "films" / "films.json").is_file():
        return []
    about = paths.read_json(run / "films" / "films.json")
    quantiles = ", ".join(f"{value:g}" for value in about["quantiles"])
    limit = f"held-out normal video fixes it, {profile.far_target:.0%} of whose frames may alarm"
    rule = (
        f"Chosen by rule, not by eye: of {about['videos']} test videos that hold normal and abnormal frames (the"
        f" streams alone where there are any), those at the quantiles {quantiles} of the AUC within the video"
        f" ({about['method']}, seed {about['seed']}). Under the picture the score with a cursor, dashed the threshold"
        f" of an alarm ({limit if about['calibrated'] else 'its own in each video: no calibrated alarm'}); a thick"
        " border is an alarm, and frames that are abnormal in truth are shaded."
    )
    films = []
    for number, film in enumerate(about["films"]):
        names = [run / "films" / f"{number}.{suffix}" for suffix in ("mp4", "jpg")]
        end = film["start_s"] + film["n_frames"] / film["fps"]
        text = f"{film['place']}: AUC {film['auc']:.3f}, {film['video']}, seconds {film['start_s']:.0f} to {end:.0f}"
        content = [name.read_bytes() for name in names]
        films.append(html_page.film(*content, text, film["shape"]))
    if not films:
        return []
    return [html_page.section("Films", html_page.soft(rule), f'<div class="films">{"".join(films)}</div>')]


def _figures(run: Path) -> list[str]:
    parts = _pictures(run, [name for name in CAPTIONS if name not in ("headline", "clips")])
    return [html_page.section("Figures", *parts)] if parts else []


def _pictures(run: Path, names: Sequence[str]) -> list[str]:
    files = {name: run / "figures" / f"{name}.png" for name in names}
    return [html_page.picture(file.read_bytes(), CAPTIONS[name]) for name, file in files.items() if file.is_file()]


def _ablations(run: Path) -> list[str]:
    """The tables of each grid that has been run, folded."""
    files = sorted((run / "tables").glob("ablation_*.md"))
    grids = [
        f"<details><summary>{html.escape(file.stem.removeprefix('ablation_'))}</summary>"
        f"{html_page.markdown(file.read_text(encoding='utf-8'), 'numbers')}</details>"
        for file in files
    ]
    return [html_page.section("Ablations", *grids)] if grids else []


def _notebooks(run: Path) -> list[str]:
    """Links to the pages of the notebooks that ran to their end."""
    from zsad_lib.results import notebook_page  # seconds of imports

    pages = {page: notebook_page.title(page.with_suffix(".ipynb")) for page in notebook_page.refresh(run / "notebooks")}
    items = [
        f'<li><a href="../notebooks/{urllib.parse.quote(page.name)}">{html.escape(title)}</a></li>'
        for page, title in pages.items()
    ]
    return [html_page.section("Executed notebooks", f"<ul>{''.join(items)}</ul>")] if items else []


def _cards(profile: Profile, table: pd.DataFrame, run: Path) -> list[str]:
    """Model card, limits, the shipped weights where they were used, and the data set's card or the counts of its
    preparation."""
    card, result = run / "data" / "dataset_card.md", run / "data" / "result.json"
    texts = {"Model card": report_cards.model_card(profile, table), "Limits": report_cards.limits()}
    if profile.backbones == "stand_in" and "features" in run_step.steps_of(profile):
        texts["Stand-in weights"] = report_cards.stand_ins()
    if card.is_file():
        texts["Data set"] = card.read_text(encoding="utf-8")
    sections = [html_page.folded(name, html_page.markdown(text)) for name, text in texts.items() if text]
    if not card.is_file() and result.is_file():
        sections.append(html_page.folded("Data set", html_page.facts(paths.read_json(result, "metrics")["metrics"])))
    return sections


def _glossary() -> tuple[list[str], dict[str, str]]:
    """The section, and the id of each term in it: "micro auc" -> "term-micro-auc"."""
    terms = {}

    def add_id(cell: re.Match) -> str:
        words = re.sub("<[^>]+>", "", cell[1])
        name = f"term-{html_page.anchor(words)}"
        terms.update(dict.fromkeys(words.lower().split(", "), name))
        return f'<td id="{name}"><strong>{cell[1]}</strong>'

    body = re.sub("<td><strong>(.*?)</strong>", add_id, html_page.markdown(report_cards.glossary()))
    return [html_page.folded("Glossary", body)] if terms else [], terms


def _times(profile: Profile) -> list[str]:
    """Seconds of each compute step, beside those of the time before where this folder has seen one."""
    results = (read_result(run_step.run_folder(profile) / step) for step in run_step.steps_of(profile))
    cells = pd.DataFrame(
        {"step": one["step"], "seconds": one["seconds"], "the time before": one.get("seconds_before")}
        for one in results
        if one is not None
    )
    if cells.empty:
        return []
    ratio = cells["seconds"] / cells["the time before"].astype(float)
    cells["ratio"] = ratio.map("{:.2f}".format, na_action="ignore")
    cells = cells.astype(object).where(cells.notna(), "-").set_index("step")
    note = html_page.markdown("Steps of which neither needs the other run at the same time and share the cores.")
    return [html_page.folded("Seconds per step", note + html_page.table(cells))]


def _provenance(result: dict[str, Any]) -> list[str]:
    git = result["git"]
    commit = "unknown" if not git["commit"] else git["commit"] + (" (with changes)" if git["changed"] else "")
    facts = {"commit": commit, "seeds": result["profile"]["seeds"], **result["versions"]}
    values = {name: value for name, value in result["profile"].items() if name not in ("seeds", "data_root")}
    chapters = {"Provenance": facts, "Settings": values}
    return [html_page.section(name, html_page.facts(rows)) for name, rows in chapters.items()]
