"""What the front page shows: films of a run, where its main method is best and worst, one table of named real runs, all
chosen by rule, and the pages and pictures behind them.

``make showcase`` after ``make reproduce`` of the profiles `SHOWN`. No number on the front page
is typed by hand: each lies between ``<!-- results:NAME -->`` and ``<!-- /results -->``, and this module writes what is
between. Of a run that is not there, docs/results/front_page.json keeps what was shown before. It also fills
docs/model_card.md, docs/notebooks.md and docs/findings.md.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from zsad_lib.config import Profile, get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.files import paths
from zsad_lib.maintenance import findings, notebook_map, origin, weak_spots
from zsad_lib.maintenance.evidence import COLUMNS
from zsad_lib.maintenance.evidence import fill as wrap
from zsad_lib.maintenance.notebook_map import fill
from zsad_lib.pipeline.artefacts import refuse_changed
from zsad_lib.pipeline.run_step import run_folder
from zsad_lib.results import example_films, report_cards, stream_tables, tables
from zsad_lib.results.markup import to_markdown

# profile -> data set in words, its picture, what the picture shows; the first that has been run opens the page
SHOWN = {
    "demo": (
        "SceneRules", "headline.png",
        "Every method and every content-free floor on the embedded benchmark, with 95 % intervals",
    ),
    "ped2": (
        "UCSD Ped2", "ped2.png",
        "UCSD Ped2: predictive coding trained on normal video alone beside the motion floor, with 95 % intervals",
    ),
}  # fmt: skip
CARD = "demo"  # whose run fills docs/model_card.md
ELSEWHERE = {  # what that run shares with no other one -> its run there
    "Another render": get_profile("demo", bench_seed=1),
    "Stand-ins of another pretraining": get_profile("demo", pretrain_seed=1),
}
FORMS = {  # of the proposed method -> why it has a row
    "full_memory": "the method, with its memory of training windows",
    "full": "the method without that memory",
    "paper": "the published parts",
}
STREAMS = {
    "predictive": "the method's stream that needs no captions",
    "predictive_half": "the same with half the channels",
    "semantic": "the method's other stream",
}
METRICS = ("clip_auc", "micro_auc", "macro_auc", "false_alarms_per_hour_at_threshold")
FILMED = ("best", "median", "worst")  # films on the front page, of those that the run has
CARD_NOTE = (
    "<!-- Written by `make showcase` from zsad_lib/results/model_card.md and a run; nobody edits this copy. -->\n"
)


def update() -> None:
    """Fills README.md and the computed pages of docs from the runs that are there, and prints what is shown."""
    print("\n".join(show(paths.root())))


def show(home: Path) -> list[str]:
    """Copies and fills.

    Args:
        home: folder with README.md and docs.

    Returns:
        A line per profile: what was shown, or that its run is missing (what was shown of it before then stays).

    Raises:
        ZsadError: no run at all, an incomplete one, or a page without the marks to fill between.
    """
    results, lines, opening = home / "docs" / "results", [], {}
    kept = results / "front_page.json"
    shown = paths.read_json(kept) if kept.is_file() else {}
    for name, (data_set, picture, words) in SHOWN.items():
        run, page = run_folder(get_profile(name)), results / f"{name}.md"
        result = run / "evaluate" / "result.json"
        if not result.is_file():
            lines.append(f"{name}: not run; make reproduce PROFILE={name}")
            if "origin" in shown.get(name, {}) and page.is_file():
                paths.write_text(page, origin.stamp(page.read_text(encoding="utf-8"), shown[name]["origin"]))
            continue
        refuse_changed(run, ("evaluate", "tables", "figures"))
        settings = paths.read_json(result, "profile")["profile"]
        profile = get_profile(name, far_target=settings["far_target"])  # the run's own
        made = origin.of_run(run, profile.dataset)
        copy(run / "figures" / "headline.png", results / picture)
        for source, target in (("detection", name), ("comparison", f"{name}_comparison")):
            if source == "detection" or (run / "tables" / f"{source}.md").is_file():
                publish(run / "tables" / f"{source}.md", results / f"{target}.md", made)
        table = pd.read_csv(run / "tables" / "detection.csv")
        streams = bool(stream_tables.groups_of(table))
        rows = stream_rows(table, data_set) if streams else front_rows(table, data_set)
        method = rows[0]["Method"].strip("`")
        about = describe_run(profile, table, data_set, made)
        renders = shown.get(name, {}).get("renders", {}) | (show_renders(results, method) if name == CARD else {})
        elsewhere = [" ".join([f"`{method}` on streams elsewhere, Micro AUC.", *renders.values()])] if renders else []
        says = [*say_pairs(run, method), *elsewhere]
        shown[name] = {"about": about, "rows": rows, "says": says, "renders": renders, "origin": made}
        if name == CARD:
            card = (
                f"{CARD_NOTE}{report_cards.model_card(profile, table)}\n{report_cards.LIMITS}\n{report_cards.limits()}"
            )
            paths.write_text(home / "docs" / "model_card.md", card)
        beaten = to_markdown(
            weak_spots.beaten_by_floors(table, method).set_index("row"),
            f"Rows of `{method}` that a content-free floor beats in what ranks, each with the best floor there.",
        )
        paths.write_text(results / f"{name}_floors.md", origin.stamp(beaten, made))
        opening.setdefault("picture", f"![{words}](docs/results/{picture})\n")
        opening.setdefault("where", where_table(profile, table, method))
        if "film" not in opening and (run / "films" / "films.json").is_file():
            opening["film"] = film(run, results / "film.png")
        lines.append(f"{name}: shown")
    if not opening:
        raise ZsadError(f"{paths.runs()}: no run to show; run `make reproduce` first")
    readme = home / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for place, words in {**opening, "table": front_table(shown)}.items():
        text = fill(text, place, words)
    paths.write_text(readme, text)
    paths.write_json(kept, shown)
    notebook_map.write(home)
    return lines + show_ablations(home)


def where_table(profile: Profile, table: pd.DataFrame, method: str) -> str:
    """Where the main method is best and worst, by `weak_spots`, and what that says."""
    spots = weak_spots.extremes(table, method, profile.far_target)
    cells = pd.DataFrame(weak_spots.rows_of(spots)).to_markdown(index=False, disable_numparse=True)
    return "\n".join([cells, "", *bullets(weak_spots.say_extremes(spots, method)), ""])


def film(run: Path, target: Path) -> str:
    """Each film's frame of the highest score, of `FILMED` side by side into `target`, and the line that shows them."""
    films = paths.read_json(run / "films" / "films.json", "films", "videos")
    chosen = [
        (number, place, one["auc"])
        for number, one in enumerate(films["films"])
        for place in FILMED
        if place in one["place"].split(", ")
    ]
    if not chosen:
        raise ZsadError(f"{run / 'films' / 'films.json'}: names none of {', '.join(FILMED)}; make the films again")
    with paths.atomic(target, mode=None) as temporary:
        example_films.side_by_side([run / "films" / f"{number}.jpg" for number, _, _ in chosen], temporary)
    named = ", ".join(f"{place} ({auc:.3f})" for _, place, auc in chosen)
    words = f"Test films of run {run.name} by AUC: {named} of {films['videos']}"
    told = f"{words}. Orange: alarm and its region. Shaded: the truth."
    return f"![{words}](docs/results/{target.name})\n\n{wrap(told)}\n"


def bullets(sentences: Iterable[str]) -> list[str]:
    """A bullet of each, broken before `COLUMNS`."""
    options = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    return [textwrap.fill(f"- {sentence}", COLUMNS, **options) for sentence in sentences]


def say_pairs(run: Path, method: str) -> list[str]:
    """What the paired differences of the run say of its main method."""
    file = run / "evaluate" / "differences.csv"
    return weak_spots.say_pairs(pd.read_csv(file), method) if file.is_file() else []


def show_renders(results: Path, method: str) -> dict[str, str]:
    """Copies the tables of `ELSEWHERE`; run -> what the main method reaches there."""
    says = {}
    for words, profile in ELSEWHERE.items():
        run = run_folder(profile)
        if not (run / "tables" / "detection.csv").is_file():
            continue
        publish(run / "tables" / "detection.md", results / f"{run.name}.md", origin.of_run(run, profile.dataset))
        table = stream_tables.stream_table(pd.read_csv(run / "tables" / "detection.csv"))
        row, live = (table.loc[name, "Micro AUC"] for name in (method, tables.row_name(method, "causal")))
        says[run.name] = f"[{words}](docs/results/{run.name}.md): {row}, causal {live}."
    return says


def choose_rows(table: pd.DataFrame) -> dict[str, str]:
    """The methods that the front page shows, each with the reason, by rule and never by eye.

    The forms of the proposed method that were run (without captions: its predictive stream); of all others the
    strongest, by clip AUC where clips have labels, else by micro AUC; AnomalyCLIP; and of all floors, the motion floor
    among them, the strongest by micro AUC. One that is chosen twice has one row with both reasons.
    """
    rows = table[(table["variant"] == "raw") & (table["group"] == "all") & (table["family"] == "all")]
    values = {metric: part.set_index("method")["value"] for metric, part in rows.groupby("metric")}
    ranking, frames = values.get("clip_auc", values["micro_auc"]), values["micro_auc"]
    forms = {name: reason for name, reason in FORMS.items() if name in ranking}
    if not forms:
        forms = {name: reason for name, reason in STREAMS.items() if name in ranking}
    others = ranking.drop([*FORMS, *STREAMS, *FLOORS], errors="ignore").nlargest(1).index
    floors = frames[frames.index.isin([*FLOORS, "motion_floor", "actor_count"])].nlargest(1).index
    chosen = forms | dict.fromkeys(others, "the strongest other method")
    for name, reason in (("anomaly_clip", "AnomalyCLIP"), *((floor, "the strongest floor") for floor in floors)):
        if name in ranking:
            chosen[name] = f"{chosen[name]}; {reason}" if name in chosen else reason
    return chosen


def front_rows(table: pd.DataFrame, data_set: str) -> list[dict[str, str]]:
    """Rows of the front page's table, column -> text; cells as in docs/results, "-" where there is no such number."""
    whole = tables.table(table, METRICS, variants=("raw", "causal"))
    families = [name for name in table["family"].unique() if name != "all"]
    clips = table[(table["metric"] == "clip_auc") & (table["variant"] == "raw") & (table["group"] == "all")]
    rows = []
    for method, reason in choose_rows(table).items():
        cells = whole.loc[method]
        weakest = clips[(clips["method"] == method) & clips["family"].isin(families)].nsmallest(1, "value")
        family = next(iter(weakest["family"]), None)
        rows.append({
            "Data": data_set,
            "Method": f"`{method}`",
            "Why this row": reason,
            "Learned from": tables.SUPERVISION.get(method, "test labels" if "label" in method else "none"),
            "Clip AUC": cells.get("Clip AUC", "-"),
            "Clip AUC, weakest family": f"{tables.table(weakest, ['clip_auc'], families=[family]).iat[0, 0]} {family}"
            if family else "-",
            "Micro AUC": cells["Micro AUC"],
            "Micro AUC, causal": whole["Micro AUC"].get(f"{method} (causal)", "-"),
            "Macro AUC": cells.get("Macro AUC", "-"),
            "False alarms per hour": cells.get("False alarms per hour", "-"),
        })  # fmt: skip
    return rows


def stream_rows(table: pd.DataFrame, data_set: str) -> list[dict[str, str]]:
    """The same of a data set with streams: at most eight rows of `stream_tables.stream_table`."""
    cells, others = stream_tables.stream_table(table), [name for name in tables.ORDER if name not in STREAMS]
    others = [name for name in others if name not in (*FORMS, *stream_tables.SEEING_FLOORS)]
    chosen = stream_tables.choose_rows(table, FORMS, others)
    return [
        {
            "Data": data_set,
            "Method": f"`{tables.row_name(method, variant)}`",
            "Why this row": reason,
            "Learned from": tables.SUPERVISION.get(method, "test labels" if "label" in method else "none"),
            **cells.loc[tables.row_name(method, variant)],
        }
        for (method, variant), reason in chosen.items()
    ]


def front_table(shown: dict[str, dict]) -> str:
    """A Markdown table of each run, and below it what its numbers are; runs with equal columns share one."""
    parts: list[tuple[list[str], list[dict], list[str]]] = []  # columns, rows, what the numbers are
    for run in (shown[name] for name in SHOWN if name in shown):
        columns = list(run["rows"][0])
        if not parts or parts[-1][0] != columns:
            parts.append((columns, [], []))
        parts[-1][1].extend(run["rows"])
        says = [*run.get("says", ()), *weak_spots.say_floors(run["rows"])] if "Method" in columns else []
        parts[-1][2].extend(bullets([run["about"], *says]))
    texts = []
    for _, rows, about in parts:
        cells = pd.DataFrame(rows)
        cells = cells.loc[:, ~(cells == "-").all()]  # what no row of a data set has
        texts.append([cells.to_markdown(index=False, disable_numparse=True), "", *about])
    return "\n\n".join("\n".join(text) for text in texts) + "\n"


def describe_run(profile: Profile, table: pd.DataFrame, data_set: str, made: origin.Origin) -> str:
    """Run, levels, split, prevalence, seeds and kind of interval, with the link to all rows."""
    run = run_folder(profile)
    result = paths.read_json(run / "evaluate" / "result.json", "versions")
    names = dict.fromkeys(facts["revision"] for facts in made["steps"].values())
    names = [name for name in names if name and not name.endswith(origin.CHANGED)]
    revision = f", revision{'s' * (len(names) > 1)} {', '.join(names)}" if names else ""
    title = f"**{data_set}**: run `{run.name}`{revision}, torch {result['versions']['torch']}"
    link = f"[All rows and metrics](docs/results/{run.name}.md)"
    alarm = f"at the threshold that lets {profile.far_target:.0%} of the frames of held-out normal video alarm."
    if stream_tables.groups_of(table):
        level = (
            "Continuous video, frame level; macro is the mean over streams. A family's column takes the frames of its"
            f" events against all normal frames. Event recall, false alarms and delay {alarm}"
        )
        return f"{tables.caption(table, title, level, [stream_tables.STREAM])} {link}."
    level = f"Clip AUC ranks clips, micro and macro AUC frames. Alarms {alarm}"
    return f"{tables.caption(table, title, level)} {link}."


def show_ablations(home: Path) -> list[str]:
    """Copies the ablations' tables and writes docs/findings.md from them; a grid that was not run is named."""
    runs = [run for run in map(run_folder, (get_profile(CARD), *ELSEWHERE.values())) if (run / "tables").is_dir()]
    lines = []
    for run in runs:
        for table in sorted((run / "tables").glob("ablation_*.md")):
            grid, target = table.stem.removeprefix("ablation_"), home / "docs" / "results" / f"{run.name}_{table.name}"
            publish(table, target, origin.of_grid(run, grid), findings.SAID_ON_PAGE.get(grid, list)())
            lines.append(f"{run.name}: {table.stem} shown")
    if lines:
        paths.write_text(home / "docs" / "findings.md", findings.findings(runs))
    return lines or ["ablations: not run; make ablate"]


def publish(source: Path, target: Path, made: origin.Origin, says: Iterable[str] = ()) -> None:
    """A table's page with the line of its origin on top, and what has to be said first."""
    copy(source, target)
    page = "\n\n".join(filter(None, [" ".join(says), target.read_text(encoding="utf-8")]))
    paths.write_text(target, origin.stamp(page, made))


def copy(source: Path, target: Path) -> None:
    """Copies a file, whole or not at all; ZsadError where the run lacks it."""
    if not source.is_file():
        raise ZsadError(f"{source}: missing; let `make reproduce` of this profile finish first")
    paths.copy(source, target)
