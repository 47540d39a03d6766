"""One page about a run, in one file: headline numbers with floors, figures, where they come from, the notebooks.

``python -m zsad_lib.report --profile demo`` writes ``runs/demo/report/index.html``. Nothing on it is fetched from a
network; pictures are inside. It is readable from 400 pixels of width on, in light and in dark.
"""

import argparse
import base64
import html
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_lib import paths, pipeline, tables
from zsad_lib.config import Profile, get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.floors import FLOORS

CAPTIONS = {  # figure -> what it shows, in the order of the page
    "headline": "Every method and every content-free floor. Dots: mean over seeds; lines: 95 % intervals (bootstrap "
    "over videos). Hollow floors never look at a picture; the two marked oracle are told which videos are abnormal.",
    "score_curve": "Score over time of one test video, chosen by rule (median AUC), with what each term adds and the "
    "truth shaded. The dashed threshold was fixed on held-out normal video.",
    "roc_pr": "All test frames joined. The dotted line on the right is the prevalence: the precision of guessing.",
    "densities": "Frame scores of normal frames and of abnormal ones.",
    "scenes": "Each scene on its own: its abnormal clips against its normal clips.",
    "confusion_anomaly_clip": "AnomalyCLIP: frames of each true class by the class of the largest probability, mean over "
    "seeds; rows add up to 1.",
    "overlays": "Where the anomaly map is highest, in the clips at the quartiles of AUC, beside the true mask.",
    "contact_sheet": "The first test clip of each scene and family, at the middle of its event, with its caption.",
}
STYLE = """
:root { color-scheme: light dark;
  --ink: #1c1c1c; --soft: #5c5c5c; --ground: #ffffff; --line: #d8d8d8; --note: #fff4df; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a8a8a8; --ground: #16181b; --line: #3a3d42; --note: #3a2f1a; }
}
body { max-width: 62rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--ground); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .5rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td + td { text-align: right; } thead th + th { text-align: right; white-space: normal; } .floor { color: var(--soft); }
summary h2 { display: inline; } figure { margin: 1.5rem 0; } figcaption, .soft { color: var(--soft); font-size: .9rem; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
.note { background: var(--note); padding: .6rem .8rem; border-radius: 4px; } a { color: inherit; }
@media (max-width: 30rem) { body { padding: .7rem; font-size: 15px; } }
"""


def write(profile: Profile) -> Path:
    """Writes ``runs/<run>/report/index.html`` from the run's evaluation, tables and figures.

    Returns:
        The page.

    Raises:
        ZsadError: the run has not been evaluated yet.
    """
    run = pipeline.run_folder(profile)
    source = run / "evaluate" / "detection.csv"
    if not source.is_file():
        raise ZsadError(f"{source}: no such table; run `make reproduce PROFILE={profile.name}` first")
    result, table = paths.read_json(run / "evaluate" / "result.json"), pd.read_csv(source)
    title = tables.heading(profile)
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if not profile.is_result:
        parts.append('<p class="note">A quick look with small settings: these numbers are NOT results.</p>')
    parts += [
        *_tables(table, title),
        *_supervision(table, run),
        *_figures(run),
        *_notebooks(run),
        *_card(run),
        *_provenance(result),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"\n<title>{html.escape(title)}</title>\n<style>{STYLE}</style>"
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts)
    target = run / "report" / "index.html"
    with paths.atomic(target) as handle:
        handle.write(page + "\n</body></html>\n")
    return target


def _tables(table: pd.DataFrame, title: str) -> list[str]:
    whole = table[(table["group"] == "all") & (table["family"] == "all")]
    families = ["all", *(name for name in table["family"].unique() if name != "all")]
    parts = ["<h2>Headline</h2>"]
    if (table["metric"] == "clip_auc").any() and len(families) > 1:
        cells = tables.table(table, ["clip_auc"], families=families)
        text = tables.caption(table, title, "Clip level: a family's abnormal clips against all normal ones.")
        parts += [f'<p class="soft">{html.escape(text)}</p>', _html_table(cells)]
    ranking = [name for name in tables.RANKING if (whole["metric"] == name).any()]
    text = tables.caption(table, title, "Frame level unless the column says otherwise.")
    parts += [f'<p class="soft">{html.escape(text)}</p>', _html_table(tables.table(table, ranking))]
    if whole["metric"].isin(tables.THRESHOLD).any():
        text = "What an operator would see: alarms at the threshold that held-out normal video fixes."
        parts += ["<h2>Alarms</h2>", f'<p class="soft">{text}</p>', _html_table(tables.table(table, tables.THRESHOLD))]
    return parts


def _supervision(table: pd.DataFrame, run: Path) -> list[str]:
    """Methods side by side with what each learned from, and the paired differences between some."""
    file = run / "evaluate" / "differences.csv"
    if not file.is_file() or "mauc" not in set(table["metric"]):
        return []
    cells, apart = tables.comparison(table), tables.differences(pd.read_csv(file))
    own = table[table["method"].isin(cells.index)]
    text = tables.caption(own, "Methods by what they learned from", f"Frame level but for clip AUC.{tables.PROMPTED}")
    return [
        "<h2>By supervision</h2>",
        f'<p class="soft">{html.escape(text)}</p>',
        _html_table(cells),
        f'<p class="soft">{html.escape(tables.DIFFERENCES)}</p>',
        _html_table(apart),
    ]


def _html_table(cells: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("method", *cells.columns))
    rows = [
        f"<tr{' class=floor' if name in FLOORS else ''}>"
        + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in (name, *row))
        + "</tr>"
        for name, row in zip(cells.index, cells.to_numpy())
    ]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _figures(run: Path) -> list[str]:
    parts = []
    for name, text in CAPTIONS.items():
        file = run / "figures" / f"{name}.png"
        if file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            text = html.escape(text)
            parts.append(
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
            )
    return ["<h2>Figures</h2>", *parts] if parts else []


def _notebooks(run: Path) -> list[str]:
    pages = sorted((run / "notebooks").glob("*.html"))
    items = [f'<li><a href="../notebooks/{page.name}">{html.escape(page.stem)}</a></li>' for page in pages]
    return ["<h2>Executed notebooks</h2>", f"<ul>{''.join(items)}</ul>"] if items else []


def _card(run: Path) -> list[str]:
    """The data set's card, or the counts that its preparation reported."""
    card, result = run / "data" / "dataset_card.md", run / "data" / "result.json"
    if card.is_file():
        from nbconvert.filters.markdown import markdown2html

        body = markdown2html(card.read_text(encoding="utf-8")).replace("<table", '<div class="wide"><table')
        return [
            "<details><summary><h2>Data set</h2></summary>",
            body.replace("</table>", "</table></div>"),
            "</details>",
        ]
    return ["<h2>Data set</h2>", _facts(paths.read_json(result)["metrics"])] if result.is_file() else []


def _provenance(result: dict[str, Any]) -> list[str]:
    git = result["git"]
    commit = "unknown" if not git["commit"] else git["commit"] + (" (with changes)" if git["changed"] else "")
    facts = {"commit": commit, "seeds": result["profile"]["seeds"], **result["versions"]}
    settings = {name: value for name, value in result["profile"].items() if name not in ("seeds", "data_root")}
    return ["<h2>Provenance</h2>", _facts(facts), "<h2>Settings</h2>", _facts(settings)]


def _facts(facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(_text(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f'<div class="wide"><table>{rows}</table></div>'


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report of a run that has been computed."""
    parser = argparse.ArgumentParser(prog="python -m zsad_lib.report", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        settings = dict(item.split("=", 1) for item in options.settings if "=" in item)
        page = write(get_profile(options.profile, **settings))
    except ZsadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {os.path.relpath(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
