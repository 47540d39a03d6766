"""A table of text cells as Markdown and as LaTeX, whatever its texts hold."""

from typing import Any

import pandas as pd

from zsad_lib.evaluate.floors import FLOORS


def to_markdown(cells: pd.DataFrame, text: str) -> str:
    """Markdown table under its caption; a row of dashes separates the floors."""
    is_floor = cells.index.isin(FLOORS)
    rows = [cells[~is_floor]]
    if is_floor.any() and not is_floor.all():
        rows.append(pd.DataFrame("", index=["*content-free floors:*"], columns=cells.columns))
    body = pd.concat([*rows, cells[is_floor]]).map(_one_cell).rename(index=_one_cell, columns=_one_cell)
    return f"{text}\n\n{body.rename_axis(cells.index.name).to_markdown(disable_numparse=True)}\n"


def _one_cell(text: Any) -> str:
    """Text that neither ends its cell of a Markdown table nor its row."""
    return " ".join(str(text).split("\n")).replace("|", "\\|")


def to_latex(cells: pd.DataFrame, text: str, label: str) -> str:
    """LaTeX table (packages booktabs and graphicx); ``\\midrule`` separates the floors."""
    head = [rf"\textbf{{{_escape(str(name))}}}" for name in (cells.index.name.capitalize(), *cells.columns)]
    is_floor = cells.index.isin(FLOORS)
    lines = [[_escape(str(name)), *map(_escape, row)] for name, row in zip(cells.index, cells.to_numpy())]
    body = [" & ".join(line) + r" \\" for line in lines]
    if is_floor.any() and not is_floor.all():
        body.insert(int((~is_floor).sum()), r"\midrule")
    lines = [
        r"\begin{table}[t]", r"\centering", rf"\caption{{{_escape(text)}}}", rf"\label{{{label}}}",
        r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'c' * len(cells.columns)}}}", r"\toprule",
        " & ".join(head) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text with LaTeX's special characters made safe."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}", "\n": " "}  # an empty line ends a cell
    return "".join(special.get(c) or (f"\\{c}" if c in "&%$#_{}" else c) for c in text)
