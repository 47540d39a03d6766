"""The parts that the kit's HTML pages are made of. A page is one file that fetches nothing: pictures and films are
inside.

What others have written, as a data set's card or a notebook, comes in through `clean`; a page has no script, and its
policy forbids browsers to run any or to fetch. It is readable from 400 pixels of width on, in light and in dark; when
printed, what is folded lies open and a film is its poster.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from zsad_lib.errors import optional
from zsad_lib.evaluate.floors import FLOORS

POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
TAGS = (
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6"
    " hr i img input ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead"
    " tr u ul var"
).split()
ATTRIBUTES = {  # of every tag, and of some
    "*": "class id title style".split(), "td": "colspan rowspan align".split(), "th": "colspan rowspan align".split(),
    "img": "alt width height".split(), "input": "type checked disabled".split(), "details": ["open"],
    "ol": ["start"], "col": ["span"], "table": ["border"],
}  # fmt: skip
ADDRESSES = {  # attributes that lead elsewhere -> what may stand in them: no script, and no picture that is fetched
    "a href": r"(?:https?://|mailto:|#).*|[\w./%+ -]+(?:#.*)?",
    "img src": r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[\w+/=\s]*",
}
LOOKS = (
    "text-align vertical-align color background-color font-family font-size font-style font-weight text-decoration"
    " white-space"
).split()

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c1c1c; --soft: #5c5c5c; --ground: #ffffff; --line: #d8d8d8; --note: #fff4df; --box: #f6f6f4;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e8e8e8; --soft: #a8a8a8; --ground: #16181b; --line: #3a3d42; --note: #3a2f1a; --box: #212428;
  --link: #8ab8f0; } }
body { max-width: 76rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--ground); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1.05rem; }
p, li, figcaption, summary { max-width: 52rem; } a { color: var(--link); }
code, pre { font: .85em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; overflow-wrap: normal; background: var(--box); padding: .6rem .8rem; border-radius: 4px; }
.soft, figcaption { color: var(--soft); font-size: .9rem; } .soft a { color: inherit; }
.note { background: var(--note); padding: .6rem .8rem; border-radius: 4px; }
nav ul { columns: 14rem; padding-left: 1.1rem; margin: .4rem 0; }
.wide { overflow-x: auto; overflow-wrap: normal; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
.numbers td { white-space: nowrap; } .numbers td + td, .numbers th + th { text-align: right;
  padding: .25rem 0 .25rem .6rem; }
.numbers td.text { white-space: normal; min-width: 6rem; }
th a { color: inherit; text-decoration-style: dotted; } .floor td { color: var(--soft); }
td[id]:target { background: var(--note); }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; }
summary h2 { display: inline; }
.folded { scroll-margin-top: 3rem; }
figure { margin: 1.5rem 0; } img, video { max-width: 100%; height: auto; border-radius: 4px; }
img { background: #ffffff; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.films figure { margin: 0; } .films video, .films img { width: 100%; display: block; }
.poster { display: none !important; }
.films video { object-fit: contain; object-position: top; background: var(--box); }
.formula { margin: .6rem 0; padding: .3rem 0; overflow-x: auto; }
math { font-family: math, "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", serif; }
.picture div { overflow-x: auto; }
@media (max-width: 30rem) { .picture img { width: var(--width); max-width: none; }
  body { padding: .7rem; font-size: 15px; } h1 { font-size: 1.3rem; } }
@media print {
  :root { color-scheme: light;
    --ink: #000000; --soft: #444444; --ground: #ffffff; --line: #bbbbbb; --box: #f4f4f4; --note: #fff4df;
    --link: #000000; }
  @page { margin: 14mm; } body { max-width: none; padding: 0; font-size: 10pt; } nav, video { display: none !important;
  }
  .poster { display: block !important; } a { text-decoration: none; } .wide, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  table { font-size: 6.5pt; } th, td { padding-right: .4rem; } .numbers td, .numbers th { white-space: normal;
  overflow-wrap: normal; }
  .numbers td + td, .numbers th + th { padding-left: .4rem; } thead { display: table-header-group; }
  figure, tr, img, math { break-inside: avoid; } h1, h2, h3, summary { break-after: avoid; }
  .picture img { width: var(--width); max-height: 220mm; }
  .films { grid-template-columns: repeat(3, 1fr); } details::details-content { content-visibility: visible; }
}
"""


def document(title: str, body: str, style: str = "", mark: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML.
        style: CSS beside `STYLE`.
        mark: what made the page, kept in its head for whoever asks whether it has to be made again.
    """
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += (
        '<meta name="generator" content="zsad'
        f' {mark}">\n<title>{html.escape(title)}</title>\n<style>{STYLE}{style}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def section(name: str, *parts: str) -> str:
    """A part of the page under a heading that links can name, "Data set" as #data-set."""
    return f'<section id="{anchor(name)}"><h2>{html.escape(name)}</h2>\n' + "\n".join(parts) + "\n</section>"


def folded(name: str, *parts: str) -> str:
    """A `section` that opens on a click; a link to it or into it opens it too, since its id is inside of what is
    folded."""
    body = f'<div class="folded" id="{anchor(name)}">\n' + "\n".join(parts) + "\n</div>"
    return f"<details><summary><h2>{html.escape(name)}</h2></summary>\n{body}\n</details>"


def anchor(name: str) -> str:
    """The name as an id.

    >>> anchor("AUC, abnormal videos")
    'auc-abnormal-videos'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def contents(sections: Sequence[str]) -> str:
    """Links to the sections (HTML of `section` and `folded`), in their order."""
    names = [re.search("<h2>(.*?)</h2>", text, re.DOTALL)[1] for text in sections]
    links = [f'<li><a href="#{anchor(html.unescape(name))}">{name}</a></li>' for name in names]
    return f"<nav><ul>{''.join(links)}</ul></nav>"


def soft(text: str) -> str:
    """A paragraph that explains, as of a table."""
    return f'<p class="soft">{html.escape(text)}</p>'


def table(cells: pd.DataFrame, terms: Mapping[str, str] | None = None) -> str:
    """Text cells in a box that scrolls by itself; the floors are grey.

    Args:
        cells: index: methods, columns: headings.
        terms: words of the headings that the page explains, in lower case -> id of the place.
    """
    head = "".join(f"<th>{_linked(name, terms or {})}</th>" for name in (cells.index.name, *cells.columns))
    rows = []
    for name, row in zip(cells.index, cells.to_numpy()):
        # an interval stays on one line
        texts = [(_kind(cell), html.escape(str(cell)).replace(", ", ",&nbsp;")) for cell in (name, *row)]
        columns = "".join(f"<td{kind}>{text}</td>" for kind, text in texts)
        rows.append(f"<tr{' class=floor' if name in FLOORS else ''}>{columns}</tr>")
    return (
        '<div class="wide"><table'
        f' class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _kind(cell: Any) -> str:
    """Words of a cell may take several lines, numbers not."""
    return ' class="text"' if " " in str(cell) and not re.search(r"\d", str(cell)) else ""


def _linked(heading: str, terms: Mapping[str, str]) -> str:
    """The heading whose first words, up to a comma, are a link where they are a term."""
    word, comma, rest = str(heading).partition(",")
    text = html.escape(word)
    if word.lower() in terms:
        text = f'<a href="#{terms[word.lower()]}">{text}</a>'
    return text + html.escape(comma + rest)


def facts(values: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    texts = [(html.escape(str(name)), html.escape(_text(value))) for name, value in values.items()]
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in texts)
    return f'<div class="wide"><table>{rows}</table></div>'


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def data_uri(content: bytes, kind: str) -> str:
    """A file's content as an address, such as "data:image/png;base64,..."."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(content: bytes, text: str) -> str:
    """A PNG with its caption; a narrow page scrolls it at half its size in pixels, so that its words can be read."""
    text, width = html.escape(text), int.from_bytes(content[16:20], "big") // 2
    image = f'<img alt="{text}" style="--width: {width}px" src="{data_uri(content, "image/png")}">'
    return f'<figure class="picture"><div>{image}</div><figcaption>{text}</figcaption></figure>'


def film(content: bytes, poster: bytes, text: str, shape: tuple[int, int]) -> str:
    """An MP4 with its caption; in print its poster.

    Args:
        content, poster: the MP4, and a JPEG.
        text: the caption.
        shape: (width, height) in pixels; room for the controls is added below.
    """
    still, text = data_uri(poster, "image/jpeg"), html.escape(text)
    width, height = map(int, shape)
    return (
        f'<figure><video controls muted loop playsinline preload="none" style="aspect-ratio: {width} /'
        f' {height + 56}" poster="{still}" src="{data_uri(content, "video/mp4")}"></video><img class="poster"'
        f' alt="{text}" src="{still}"><figcaption>{text}</figcaption></figure>'
    )


def clean(body: str) -> str:
    """HTML of others without what could act or fetch: tags that are not `TAGS` become text, attributes go, ends are
    set."""
    with optional("notebooks"):
        import bleach
        from bleach.css_sanitizer import CSSSanitizer

    def may_stay(tag: str, name: str, value: str) -> bool:
        if pattern := ADDRESSES.get(f"{tag} {name}"):
            return re.fullmatch(pattern, value, re.DOTALL) is not None
        return name in ATTRIBUTES["*"] or name in ATTRIBUTES.get(tag, ())

    looks = CSSSanitizer(LOOKS, allowed_svg_properties=())
    protocols = {"http", "https", "mailto", "data"}
    body = f"<div>{body}</div>"  # bleach loses what stands wrongly in a table that stands in nothing
    return bleach.clean(body, TAGS, may_stay, protocols, strip_comments=True, css_sanitizer=looks)


def markdown(text: str, kind: str = "") -> str:
    """Markdown as HTML; its tables scroll in boxes of their own, its headings stand below the page's. HTML in it is
    shown as text.

    Args:
        kind: class of the tables.
    """
    with optional("notebooks"):
        from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    body = clean(MarkdownWithMath(IPythonRenderer(exclude_anchor_links=True)).render(text))
    body = re.sub(r' style="text-align:\s*left;?"', "", body)
    body = re.sub(r"(</?)h([1-3])\b", lambda part: f"{part[1]}h{int(part[2]) + 2}", body)
    return body.replace("<table", f'<div class="wide"><table class="{kind}"').replace("</table>", "</table></div>")
