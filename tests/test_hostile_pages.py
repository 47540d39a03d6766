"""Whatever stands in a card, a table, a name, a cell or an output: a page shows it, and holds no script, no handler and
nothing that is fetched."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from zsad_lib.config import as_dict, get_profile
from zsad_lib.files import paths
from zsad_lib.files.manifest import save_manifest
from zsad_lib.results import html_page, notebook_page, report

HOSTILE = [
    "<script>alert(1)</script>", "<ScRiPt src=//e.example/a.js></sCrIpT >", "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>1</script></svg>", "<svg/onload=alert(1)//", "<iframe src=//e.example></iframe>",
    '"><script>alert(1)</script>', "' autofocus onfocus='alert(1)", "</title><script>1</script>",
    "</style><script>1</script>", "</pre></div><script>1</script>", "--><script>1</script>", "<!-- <script>1</script>",
    "<![CDATA[<script>1</script>]]>", "<style>@import url(//e.example);</style>", "<a href='javascript:alert(1)'>a</a>",
    "<a href='&#106;ava&Tab;script:alert(1)'>a</a>", "<a href='data:text/html,<script>1</script>'>a</a>",
    "[a](javascript:alert(1))", "[a](data:text/html;base64,PHNjcmlwdD4=)", "![a](http://e.example/a.png)",
    "![a](x 'b\" onerror=alert(1) \"')", "<details open ontoggle=alert(1)><summary>s</summary>t</details>",
    "<math><mtext><table><mglyph><style><img src=x onerror=1>", "<math href=javascript:1>x</math>",
    "<form action=//e.example><input onfocus=1 autofocus><button formaction=javascript:1>b</button></form>",
    "<base href=//e.example>", "<meta http-equiv=refresh content='0;url=//e.example'>", "<link href=//e>",
    "<object data=//e.example></object>", "<embed src=//e.example>", "<video src=//e.example onplay=1></video>",
    "<p style='background:url(//e.example);position:fixed'>p</p>", "<td background=//e.example>d</td>",
    "<noscript><p title='</noscript><img src=x onerror=1>'>", "<textarea><script>1</script>", "<plaintext>",
    "<template><script>1</script></template>", "<x onclick=1 style=x>y</x>", "<a\x00 href=javascript:1>a</a>",
    "$\\text{<script>alert(1)</script>}$", "$\\href{javascript:alert(1)}{x}$", "$\\text{<img src='x' onerror='1'/>}$",
    "$\\style{background:url(//e.example)}{x}$", "$$\\text{<form action='//e'><button>b</button></form>}$$",
    "`</code><script>1</script>`", "```html\n</code></pre><script>1</script>\n```",
    "| a |\n|---|\n| <script>1</script> |",
    "<code class='block formula'>\\text{<script>1</script>}</code>",
    "\ue000<b onclick=1>b</b>", "<https://e.example/\"onclick=1>",
]  # fmt: skip
MARK = "MARKED"
PLACES = [f"{MARK}{number:02d} {text} {MARK}end{number:02d}" for number, text in enumerate(HOSTILE)]
LEADS = {"href", "src", "poster", "data", "action", "formaction", "background", "srcset", "cite", "xlink:href"}
FORBIDDEN = set("script iframe object embed link base svg form button template frame frameset textarea".split())


class Page(HTMLParser):
    """What acts or leads elsewhere in a page, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.faults, self.text, self.heads, self.titles = [], "", [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "style", "title"):
            self.heads.append(tag)
        if tag in FORBIDDEN:
            self.faults.append(tag)
        for name, value in attributes:
            value = value or ""
            fine = re.match(r"https?://|mailto:|#|data:(image|video)/|(?:\.\./)?[\w./%-]+(#.*)?$", value)
            fetched = tag != "a" and not value.startswith("data:")
            if name.startswith("on") or (name in LEADS and (not fine or fetched)):
                self.faults.append((tag, name, value[:80]))
            if name == "style" and re.search(r"url|position|expression|@", value):
                self.faults.append((tag, name, value[:80]))

    def handle_data(self, data):
        self.text += data


def look(page: str) -> Page:
    """The parsed page, which must be harmless and carry its policy."""
    found = Page(page)
    assert found.faults == []
    assert found.heads == ["meta", "meta", "meta", "meta", "title", "style"]  # all in the head, by the kit itself
    assert f'<meta http-equiv="Content-Security-Policy" content="{html_page.POLICY}">' in page[:300]
    return found


def shown(page: Page, texts: list[str] = PLACES) -> None:
    """Both ends of each text are there, so that none has swallowed what follows it."""
    for text in texts:
        assert text[:8] in page.text and text[-11:] in page.text, text


def write_notebook(path, cells):
    nbformat.write(v4.new_notebook(cells=cells), path)
    paths.write_json(path.with_suffix("") / "result.json", {})
    return notebook_page.write(path).read_text(encoding="utf-8")


def test_cells_and_outputs_of_a_notebook(tmp_path):
    def outputs(text):
        yield v4.new_output("stream", name="stderr", text=text)
        yield v4.new_output("error", ename=text, evalue=text, traceback=[text])
        for kind in ("text/plain", "text/html", "text/markdown"):
            yield v4.new_output("display_data", {kind: text})

    cells = [cell for text in PLACES for cell in (v4.new_markdown_cell(text), v4.new_raw_cell(text),
             v4.new_code_cell(text, outputs=list(outputs(text))))]  # fmt: skip
    page = look(write_notebook(tmp_path / "a.ipynb", cells))
    for text in PLACES:
        # Markdown, raw, code, stream, error (its traceback), three outputs; a comment hides in three what follows
        assert page.text.count(text[:8]) >= 8 and page.text.count(text[-11:]) >= (5 if "<!--" in text else 8), text


def test_metadata_and_pictures_of_a_notebook(tmp_path):
    cells = []
    for text in HOSTILE:
        picture = v4.new_output("display_data", {"image/png": f"AAAA{text}", "text/plain": "p"})
        picture.metadata = {"image/png": {"width": text, "height": "1 onload=alert(1)", "alt": text}}
        vector = v4.new_output("display_data", {"image/svg+xml": f"<svg>{text}</svg>"})
        framed = v4.new_output("display_data", {"text/html": text}, metadata={"text/html": {"isolated": True}})
        moving = v4.new_output("display_data", {"application/javascript": "go()", "text/plain": "still"})
        widget = {"application/vnd.jupyter.widget-view+json": {"model_id": text}, "text/plain": "a widget"}
        outputs = [picture, vector, framed, moving, v4.new_output("display_data", widget)]
        cells.append(v4.new_code_cell("1", outputs=outputs, metadata={"tags": [text.replace(",", ";")]}))
    cells.append(v4.new_markdown_cell(f"# {HOSTILE[8]}"))
    page = look(write_notebook(tmp_path / "a.ipynb", cells))
    assert page.text.count("still") == page.text.count("a widget") == len(HOSTILE) and "go()" not in page.text


def test_what_notebooks_use_on_purpose_stays(tmp_path):
    table = pd.DataFrame({"score": [0.25]}, index=["a<b"])._repr_html_()
    cells = [
        v4.new_markdown_cell("<details><summary>Hint</summary>\n\nUse **both** $a < b$.\n\n</details>"),
        v4.new_code_cell("t", outputs=[v4.new_output("execute_result", {"text/html": table})]),
        v4.new_code_cell("p", outputs=[v4.new_output("display_data", {"image/png": "iVBORw0K"})]),
    ]
    page = write_notebook(tmp_path / "a.ipynb", cells)
    assert "<details><summary>Hint</summary>" in page and "<strong>both</strong>" in page and "<mo>&lt;</mo>" in page
    assert 'class="dataframe"' in page and "<th>a&lt;b</th>" in page and "dataframe tbody" not in look(page).text
    assert 'src="data:image/png;base64,iVBORw0K"' in page


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 16))
def test_everything_in_a_report(run_home, start):
    texts = PLACES[start : start + 16]
    profile, folder = get_profile("smoke"), run_home / "runs" / "smoke"
    columns = "method variant metric level group family value low high n_videos n_frames prevalence seeds".split()
    rows = [
        (text, "raw", metric, "frame", group, family, 0.8, 0.7, 0.9, 12, 576, 0.25, 1)
        for text in texts
        for metric in ("clip_auc", "micro_auc", "far")
        for group, family in (("all", "all"), ("all", text), (f"set:{text}", "all"))
    ]
    rows.append(("full", "raw", "micro_auc", "frame", "all", "all", 0.8, 0.7, 0.9, 12, 576, 0.25, 1))
    for name in ("evaluate", "data", "films", "tables", "scores/full/0", "notebooks"):
        paths.make_folder(folder / name)
    pd.DataFrame(rows, columns=columns).to_csv(folder / "evaluate" / "detection.csv", index=False)
    result = {"profile": as_dict(profile) | {"note": texts}, "versions": {text: text for text in texts}}
    paths.write_json(folder / "evaluate" / "result.json", result | {"git": {"commit": texts[0], "changed": True}})
    clip = dict(path="", set="main", scene="road", site="a", action="walk", n_frames=48, fps=10.0, caption="")
    splits = [("a", "train", "normal", ""), ("b", "test", "normal", ""), ("c", "test", "semantic", "10-19")]
    clips = [clip | dict(zip(("video", "split", "family", "spans"), values)) for values in splits]
    save_manifest(pd.DataFrame(clips), folder / "data")
    films = [dict(place=t, video=t, auc=0.9, start_s=0.0, n_frames=2, fps=5.0, shape=[32, 24]) for t in texts]
    about = dict(method=texts[0], seed=texts[1], videos=texts[2], quantiles=[0.5], calibrated=True, films=films)
    paths.write_json(folder / "films" / "films.json", about)
    for number in range(len(texts)):
        for suffix in ("mp4", "jpg"):
            (folder / "films" / f"{number}.{suffix}").write_bytes(b"film")
    (folder / "data" / "dataset_card.md").write_text("\n\n".join(["# Card", *texts]), encoding="utf-8")
    (folder / "tables" / "ablation_a'\"><script>1<.md").write_text("\n\n".join(texts), encoding="utf-8")
    notebook = folder / "notebooks" / "a\"onclick='1'><script>.ipynb"
    write_notebook(notebook, [v4.new_markdown_cell("# " + json.dumps(texts[0]))])
    page = look(report.write(profile).read_text(encoding="utf-8"))
    shown(page, texts)
    assert all(page.text.count(text[:8]) >= 10 for text in texts)


def test_every_part_of_a_page_escapes():
    cells = pd.DataFrame({text: [text] for text in PLACES}, index=pd.Index([PLACES[0]], name=PLACES[1]))
    parts = [html_page.table(cells), html_page.facts(dict(zip(PLACES, PLACES))), html_page.facts({"a": PLACES})]
    for text in PLACES:
        parts += [html_page.section(text), html_page.folded(text), html_page.soft(text), html_page.markdown(text)]
        parts += [html_page.picture(b"", text), html_page.film(b"", b"", text, (32, 24))]
    page = html_page.contents([part for part in parts if part.startswith(("<section", "<details"))]) + "".join(parts)
    found = look(html_page.document(PLACES[0], page))
    for text in PLACES:
        assert found.text.count(text[:8]) == found.text.count(text[-11:]) >= 9, text
