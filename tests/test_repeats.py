"""Nothing is written twice: six equal lines of code in two places are a function that nobody has named yet."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LENGTH = 6  # equal lines in a row, without blanks, comments, docstrings and imports
ON_PURPOSE: set[frozenset[str]] = set()  # pairs of files that declare something alike


def code_lines(source: str) -> Iterator[tuple[int, str]]:
    """Number and text, without indentation, of the lines that count."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    for number, line in enumerate(source.splitlines(), 1):
        words = line.split("  #")[0].split()
        if words and not words[0].startswith("#") and number not in left_out:
            yield number, " ".join(words)


def repeats(sources: dict[str, str]) -> list[str]:
    """Pairs of places, as file:line, where `LENGTH` equal lines begin; of a longer block its first lines alone."""
    places = defaultdict(list)
    for file, source in sources.items():
        lines = list(code_lines(source))
        for i in range(len(lines) - LENGTH + 1):
            places[tuple(text for _, text in lines[i : i + LENGTH])].append((file, i, lines[i][0]))
    pairs = {(one, other) for alike in places.values() for one in alike for other in alike if one < other}
    begun = {((f, i), (g, j)) for (f, i, _), (g, j, _) in pairs}
    return sorted(
        f"{f}:{a} = {g}:{b}"
        for (f, i, a), (g, j, b) in pairs
        if ((f, i - 1), (g, j - 1)) not in begun and frozenset((f, g)) not in ON_PURPOSE
    )


def test_no_block_is_written_twice():
    files = [path for folder in ("zsad_lib", "data_prep") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert repeats({str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}) == []


def test_a_repeat_would_be_noticed():
    block = "".join(f"    line_{i}()\n" for i in range(LENGTH))
    one, other = f"def one():\n    first()\n{block}", f'"""Doc."""\ndef other():\n    # why\n\n{block}    last()\n'
    assert repeats({"one.py": one, "other.py": other}) == ["one.py:3 = other.py:5"]
    assert repeats({"one.py": one, "other.py": other.replace("line_3()", "else_3()")}) == []
