"""A grid is tried when it is read, before anything is trained: its rows belong together, and its gates do their work.

A wrong gate of one's own would else end minutes later, in another process, somewhere inside PyTorch; one that nothing
can train, or a control that is no row, only at the end.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.ablations.grids import GRIDS, AnyRow, Row, grid
from zsad_lib.config import nearest
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import outline
from zsad_lib.models.gates import GATES, ContextGate

B, M, K = 3, 2, 5  # clips, scenes that each is swapped to, captions
ROUNDING = 1e-6  # gradients below are rounding errors of 0: others are above 1e-2 here


def read_grid(name: str) -> Sequence[AnyRow]:
    """The rows of a grid, whose gates have run once, forward and backward, with the widths of the shipped stand-ins.

    Raises:
        ZsadError: no such grid, or no rows; two rows of one key; a control that is no row; a gate that is unknown,
            raises, returns another shape or type, numbers that are not finite, or cannot be trained. Names the row,
            the gate and the file where it stands.
    """
    rows = grid(name)
    if not rows:
        raise ZsadError(f"{_file(GRIDS[name])}: grid {name!r} has no rows; give it one or more")
    keys, gates = [row.key for row in rows], {}
    for row in rows:
        place = f"grid {name!r}, row {row.name!r}"
        if keys.count(row.key) > 1:
            raise ZsadError(f"{_file(GRIDS[name])}: {place}: the key {row.key!r} is there twice; name the rows apart")
        if row.control and row.control not in keys:
            unknown = f"control {row.control!r} is no row of the grid; did you mean {nearest(row.control, keys)!r}?"
            raise ZsadError(f"{_file(GRIDS[name])}: {place}: {unknown}")
        if isinstance(row, Row):
            gates.setdefault((row.variant.gate, row.variant.context_dim), place)
    with torch.random.fork_rng(devices=[]):  # what is drawn here shifts no draw of what follows
        torch.manual_seed(0)
        text_dim = outline("stand_in").text_dim if gates else 0
        for (kind, context_dim), place in gates.items():
            _try_gate(kind, text_dim, context_dim, place)
    return rows


def _try_gate(kind: str, text_dim: int, context_dim: int, row: str) -> None:
    """One pass of a gate as a trial makes it; ZsadError where it cannot be trained or scored with."""
    if kind not in GATES:
        raise ZsadError(f"{row}: gate {kind!r} is unknown; did you mean {nearest(kind, GATES)!r}?")
    place = _file(GATES[kind])
    try:
        trouble = next(_troubles(ContextGate(kind, text_dim, context_dim), text_dim, context_dim), None)
    except Exception as error:  # whatever the code of others raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
        place = ":".join(map(str, (place, *lines[-1:])))
        trouble = f"raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if trouble:
        raise ZsadError(f"{place}: gate {kind!r} ({row}) {trouble}")


def _troubles(gate: ContextGate, D: int, C: int) -> Iterator[str]:
    """What is wrong with a gate of captions [..., D] and scenes [..., C]: first its results, then its gradients."""
    total = torch.zeros(())
    for leading_text, leading_context in (((1, K), (B, 1)), ((B,), (B,)), ((B, 1), (B, M))):  # bank, pairs, swaps
        text, context = F.normalize(torch.randn(*leading_text, D), dim=-1), torch.randn(*leading_context, C)
        expected = [*torch.broadcast_shapes(leading_text, leading_context), D]
        gated = gate.rule(text, context)
        asked = f"for captions {list(text.shape)} under scenes {list(context.shape)}"
        if not isinstance(gated, Tensor):
            yield f"returns a {type(gated).__name__} {asked}; expected a tensor {expected}"
        if list(gated.shape) != expected or gated.dtype != text.dtype:
            found = f"{str(gated.dtype).removeprefix('torch.')} {list(gated.shape)}"
            yield f"returns {found} {asked}; expected float32 {expected}"
        gated = gate.paired(text, context)  # scaled to norm 1, where it is a gate of that kind
        if not gated.isfinite().all():
            yield f"returns numbers that are not finite (NaN or infinity) {asked}"
        total = total + (gated * torch.randn(expected)).sum()
    parameters = {name: p for name, p in gate.rule.named_parameters() if p.requires_grad}
    if parameters and total.requires_grad:
        total.backward()
    if untouched := [name for name, p in parameters.items() if p.grad is None]:
        yield f"cannot be trained: no gradient reaches {', '.join(untouched)}; use it in forward, and detach nothing"
    if broken := [name for name, p in parameters.items() if not p.grad.isfinite().all()]:
        yield f"cannot be trained: the gradient of {', '.join(broken)} is not finite"
    if parameters and all(p.grad.abs().max() < ROUNDING for p in parameters.values()):
        advice = "; is what they change the length, which `unit = True` sets to 1?" * gate.rule.unit
        yield f"cannot be trained: the gradient of {', '.join(parameters)} is 0 everywhere{advice}"


def _file(code: Callable) -> str:
    """Where a class or function stands, as far as Python can tell."""
    try:
        return inspect.getsourcefile(code) or code.__module__
    except TypeError:  # made in a running interpreter
        return getattr(code, "__module__", repr(code))
