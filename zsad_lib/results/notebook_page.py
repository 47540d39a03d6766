"""An executed notebook as one page that fetches nothing: formulas are MathML, pictures are inside, there is no script.
Whatever a cell holds or gives out passes `html_page.clean`.

nbconvert's own pages ask a network for MathJax and more; a page that is read in ten years, or in a lecture hall without
Wi-Fi, must not.
"""

import json
import logging
import re
from html import escape, unescape
from pathlib import Path
from xml.etree import ElementTree

from zsad_lib.errors import optional
from zsad_lib.files import paths
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.results import html_page

with optional("notebooks"):
    from jinja2 import pass_context
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from pygments.formatters import HtmlFormatter
    from traitlets.config import Config

# What a formula may hold; the converter hands on what it finds in it, as in \text{<script>}.
MATHML = set(
    "math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace msqrt"
    " mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none".split()
)
MATHML_ATTRIBUTES = set(
    "accent accentunder align columnalign columnlines columnspacing depth display displaystyle fence form frame height"
    " largeop linebreak linethickness lspace mathbackground mathcolor mathvariant maxsize minsize movablelimits"
    " notation rowlines rowspacing rspace scriptlevel separator stretchy symmetric voffset width".split()
)
FORMULA = r'<code class="(block|inline) formula">(.*?)</code>'  # a formula until the page has been cleaned
# Kinds of an output, best first; no script and no widget: an explorer has drawn a picture as well.
KINDS = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
STYLE = """
.prompt, .anchor-link { display: none; } .cell { margin: .4rem 0; } .highlight { background: none; }
.output pre { background: none; padding: 0 0 0 .8rem; border-left: 3px solid var(--line); border-radius: 0; }
.output_stderr pre { color: var(--soft); }
table { display: block; overflow-x: auto; overflow-wrap: normal; } .output_html p { margin: .3rem 0; }
@media print { table { display: table; overflow: visible; } }
"""


def write(notebook: Path) -> Path:
    """Writes the page of an executed notebook beside it, ``.html`` for ``.ipynb``, and returns it.

    It links to the pages of those notebooks beside it that ran to their end; a link to another one becomes its text.
    """
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # it would miss alternative texts, which plots cannot have
    config = Config(NbConvertBase={"display_data_priority": KINDS})
    body, _ = _Exporter(config=config, template_name="basic").from_filename(str(notebook))
    names = _names(notebook.parent)
    body = _linked(html_page.clean(body), names)
    body = re.sub(FORMULA, lambda formula: mathml(unescape(formula[2]), formula[1]), body, flags=re.DOTALL)
    target = notebook.with_suffix(".html")
    return paths.write_text(target, html_page.document(title(notebook), body, STYLE + _colours(), mark(names)))


def mark(names: list[str]) -> str:
    """Stands in a page's head: another one there means other code made it, or that it links to others than `names`."""
    return digest([closure([__name__]), names])


def refresh(folder: Path) -> list[Path]:
    """The pages of `folder`'s notebooks that ran to their end; those with another mark, or missing, are written
    again."""
    sign, pages = mark(_names(folder)), []
    for notebook in paths.executed(folder):
        pages.append(page := notebook.with_suffix(".html"))
        if not page.is_file() or sign not in page.read_text(encoding="utf-8")[:1000]:
            write(notebook)
    return pages


def _names(folder: Path) -> list[str]:
    return [notebook.stem for notebook in paths.executed(folder)]


def _linked(body: str, names: list[str]) -> str:
    """Links to notebooks as links to their pages, and as plain text where `names` do not hold them; so do links into
    the kit's docs, which do not lie beside a page."""

    def to_page(link: re.Match) -> str:
        name, anchor, text = link[1].removesuffix(".ipynb"), link[2], link[3]
        return f'<a href="{name}.html{anchor}">{text}</a>' if name in names else text

    return re.sub(r'<a href="([^":/]+\.ipynb|[^":]+\.md)([^"]*)"[^>]*>(.*?)</a>', to_page, body, flags=re.DOTALL)


def title(notebook: Path) -> str:
    """A notebook's first heading, else its name."""
    source = "\n".join("".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    heading = re.search(r"^# (.+)$", source, re.MULTILINE)
    return heading[1].strip() if heading else notebook.stem


def mathml(tex: str, display: str = "inline") -> str:
    r"""LaTeX as a ``<math>`` element; what the converter cannot do stays LaTeX, as code.

    Args:
        tex: without the dollars.
        display: "inline" or "block".

    >>> mathml(r"x^2").count("<msup>")
    1
    """
    tidy = tex.replace("{aligned}", "{align*}")  # the same lines, under the name that the converter knows
    try:
        tree = ElementTree.fromstring(re.sub(' xmlns="[^"]+"', "", convert(tidy, display=display)))  # HTML knows it
    except Exception:  # of many kinds, one per way to write wrong LaTeX
        return f"<code>{escape(tex)}</code>"
    others = any(part.tag not in MATHML or part.attrib.keys() - MATHML_ATTRIBUTES for part in tree.iter())
    if others or "\\" in "".join(tree.itertext()):  # a command that the converter left as it was
        return f"<code>{escape(tex)}</code>"
    _mend(tree)
    text = ElementTree.tostring(tree, encoding="unicode")
    return f'<div class="formula">{text}</div>' if display == "block" else text


def _mend(tree: ElementTree.Element) -> None:
    """What browsers without a font for mathematics would draw wrong: long bars, hats, and the gap after "log"."""
    for element in tree.iter():
        over = element[1].text if element.tag == "mover" else ""
        if over == "\u2015":  # a bar of fixed length: an edge is as long as what is under it
            element.tag, element.attrib = "mrow", {"style": "border-top: 1px solid; padding-top: .15em"}
            element.remove(element[1])
        elif over == "^":
            element[1].text = "\u02c6"
        for index in range(len(element) - 2, -1, -1):
            if element[index].text in ("log", "ln") and element[index + 1].tag != "mo":
                element.insert(index + 1, ElementTree.Element("mspace", width="0.17em"))


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas as `FORMULA` finds them."""

    def inline_math(self, body: str, display: str = "inline") -> str:
        return f'<code class="{display} formula">{escape(body)}</code>'

    def block_math(self, body: str) -> str:
        return self.inline_math(body, "block")

    def block_html(self, html: str) -> str:
        return re.sub(
            r"\$([^$\n]+)\$", lambda formula: self.inline_math(unescape(formula[1])), html
        )  # in a folded hint

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


class _Exporter(HTMLExporter):
    """What a cell holds is closed in itself, so that no cell takes in what follows it."""

    @pass_context
    def markdown2html(self, context, source):
        renderer = _Renderer(escape=False, exclude_anchor_links=True)
        return html_page.clean(MarkdownWithMath(renderer=renderer).render(source))

    def from_notebook_node(self, nb, *arguments, **options):
        for output in (output for cell in nb.cells for output in cell.get("outputs", ())):
            if html := output.get("data", {}).get("text/html"):
                # the looks of a table or of shown source, in light colours alone, and what moves it
                text = re.sub(r"<(style|script)\b.*?</\1\s*>", "", "".join(html), flags=re.DOTALL | re.IGNORECASE)
                output.data["text/html"] = html_page.clean(text)
                output.metadata.pop("text/html", None)  # "isolated" asks for a frame
        return super().from_notebook_node(nb, *arguments, **options)


def _colours() -> str:
    """Colours of code, for light and for dark."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    ground = ".highlight, .highlight pre { background: var(--box) !important; }"
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}\n{ground}\n"
