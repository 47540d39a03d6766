"""A wrong gate or row of one's own ends in one line that names it, before anything is trained."""

import dataclasses
import importlib
import sys

import pytest
import torch

from zsad_lib.__main__ import main
from zsad_lib.ablations import run
from zsad_lib.ablations.grids import GRIDS, Row
from zsad_lib.ablations.read_grid import read_grid
from zsad_lib.ablations.trial import BASE
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.models.gates import GATES

PLAIN = """
import dataclasses
import torch
from torch import nn
from zsad_lib.ablations.grids import GRIDS, Row
from zsad_lib.ablations.trial import BASE
from zsad_lib.models.gates import GATES

class Mine(nn.Module):
    unit = True
    def __init__(self, text_dim, context_dim):
        super().__init__()
        self.mask = nn.Linear(context_dim, text_dim)
    def forward(self, text, context):
        return self.mask(context).sigmoid() * text

def rows():
    none = dataclasses.replace(BASE, gate="none", objective="plain")
    mine = dataclasses.replace(BASE, gate="mine")
    return [Row("none", "", none, ("s_sem",)), Row("mine", "", mine, ("s_sem",), control="none/plain/semantic")]

GATES["mine"] = Mine
GRIDS["mine"] = rows
"""
BODY = "return self.mask(context).sigmoid() * text"
GATE = r"mine_gate\.py(:\d+)?: gate 'mine' \(grid 'mine', row 'mine'\) "
ROW = r"mine_gate\.py: grid 'mine', row 'mine': "
UNTRAINED = GATE + "cannot be trained: "
SWAPS = "(self.mask(context).sigmoid() * text)"
WRONG = {  # what is written instead of what, and what the line says after the file
    "shape": (
        BODY,
        "return (self.mask(context).sigmoid() * text)[..., :-1]",
        GATE
        + r"returns float32 \[3, 5, 63\] for captions \[1, 5, 64\] under scenes \[3, 1, 32\];"
        + r" expected float32 \[3, 5, 64\]",
    ),
    "scenes lost": (BODY, "return text * self.mask.bias", GATE + r"returns float32 \[1, 5, 64\] .* \[3, 5, 64\]"),
    "pairs lost": (
        BODY,
        f"return {SWAPS} if text.dim() > 2 else {SWAPS}[:, :1]",
        GATE + r"returns float32 \[3, 1\] for captions \[3, 64\]",
    ),
    "type": (BODY, "return (self.mask(context) * text).double()", GATE + "returns float64 .*; expected float32"),
    "no tensor": (BODY, "return text, context", GATE + "returns a tuple for captions"),
    "NaN": (BODY, "return self.mask(context).log() * text", GATE + r"returns numbers that are not finite \(NaN or inf"),
    "raises": (BODY, "return text @ context", GATE.replace("(:\\d+)?", ":15") + "raises RuntimeError:"),
    "takes one width": ("text_dim, context_dim):", "text_dim):", GATE + "raises TypeError: .*__init__"),
    "no flag": ("    unit = True\n", "", GATE + "raises AttributeError: .* 'unit'"),
    "detached": (BODY, f"return {SWAPS}.detach()", UNTRAINED + r"no gradient reaches mask\.weight, mask\.bias; use it"),
    "unused": (
        "self.mask = ",
        "self.other = nn.Linear(2, 2); self.mask = ",
        UNTRAINED + r"no gradient reaches other\.weight, other\.bias",
    ),
    "dead": (BODY, "return (0 * self.mask(context) + 1) * text", UNTRAINED + "the gradient of .* is 0 everywhere"),
    "scaled away": (
        BODY,
        "return self.mask(context).mean(-1, keepdim=True).sigmoid() * text",
        UNTRAINED + "the gradient of .* is 0 everywhere; is what they change the length, which `unit = True` sets to 1",
    ),
    "gradient not finite": (
        BODY,
        "return (self.mask(context) - self.mask(context)).abs().sqrt() * text + text",
        UNTRAINED + "the gradient of .* is not finite",
    ),
    "control": (
        "none/plain/semantic",
        "none/plain/semantc",
        ROW + r"control 'none/plain/semantc' is no row of the grid; did you mean 'none/plain/semantic'\?",
    ),
    "gate's name": ('gate="mine"', 'gate="mnie"', r"row 'mine': gate 'mnie' is unknown; did you mean 'mine'\?"),
    "twice": (
        'Row("mine", "", mine',
        'Row("none", "", none',
        ROW.replace("row 'mine'", "row 'none'") + "the key .* twice",
    ),
    "no rows": ("    return [", "    return [][:0] and [", r"mine_gate\.py: grid 'mine' has no rows"),
}


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Imports the example with one thing written otherwise."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for table in (GATES, GRIDS):
        monkeypatch.setitem(table, "mine", None)  # so that they are put back
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(right="", wrong=""):
        (tmp_path / "mine_gate.py").write_text(PLAIN.replace(right, wrong) if right else PLAIN, encoding="utf-8")
        sys.modules.pop("mine_gate", None)
        importlib.invalidate_caches()
        importlib.import_module("mine_gate")
        return tmp_path

    yield write
    sys.modules.pop("mine_gate", None)


def test_a_right_one_passes_and_draws_from_no_generator(extension):
    extension()
    before = torch.get_rng_state()
    assert [row.name for row in read_grid("mine")] == ["none", "mine"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_one_is_named_in_one_line(extension, case):
    right, wrong, line = WRONG[case]
    assert PLAIN.count(right) == 1
    extension(right, wrong)
    with pytest.raises(ZsadError, match=line) as raised:
        read_grid("mine")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", sorted(set(GRIDS) - {"mine"}))
def test_the_kits_own_grids_pass(name):
    assert read_grid(name) == GRIDS[name]()


def test_a_gate_is_tried_once_for_each_width(extension, monkeypatch):
    extension()
    calls = []

    class Counted(GATES["mine"]):
        def __init__(self, text_dim, context_dim):
            super().__init__(text_dim, context_dim)
            calls.append(context_dim)

    monkeypatch.setitem(GATES, "mine", Counted)
    widths = {"a": 32, "b": 32, "c": 8}
    rows = [Row(name, "", dataclasses.replace(BASE, gate="mine", context_dim=width)) for name, width in widths.items()]
    monkeypatch.setitem(GRIDS, "mine", lambda: rows)
    read_grid("mine")
    assert calls == [32, 8]


def test_nothing_is_computed_before(extension, run_home, monkeypatch):
    extension(*WRONG["NaN"][:2])
    monkeypatch.setattr(run, "ensure_apart", None)
    with pytest.raises(ZsadError, match="not finite"):
        run.ablate(["mine"], get_profile("smoke"))
    assert not (run_home / "runs").exists()


def test_the_command_ends_in_one_line(extension, run_home, capsys):
    extension(*WRONG["shape"][:2])
    assert main(["ablate", "--profile", "smoke", "--grid", "mine"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "mine_gate.py: gate 'mine' (grid 'mine', row 'mine') returns float32 [3, 5, 63]" in error
