"""Checks have no holes: every small change of a solution that changes what it computes fails its check.

Each solution is changed in one place at a time (operators, comparisons, constants, axes, calls, arguments, branches,
statements). A change that passes the check must be no change at all: it has to give the solution's results for all of
`DRAWS` random arguments, of the kind that the exercise speaks of.
"""

import ast
import copy
import inspect
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from zsad_lib import checks, solutions
from zsad_lib.exercises import answers
from zsad_lib.exercises.answers import FAULTS, WrongAnswer
from zsad_lib.models.gates import ContextGate

DRAWS = 15
SWAPS = {  # operator -> what stands in its place
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div, ast.Add], ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Div, ast.Mult], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult], ast.MatMult: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
}  # fmt: skip
NAMES = {  # function or method -> what stands in its place
    "sum": ["mean"], "mean": ["sum", "median"], "min": ["max"], "max": ["min"], "any": ["all"], "all": ["any"],
    "softmax": ["sigmoid", "log_softmax"], "log_softmax": ["softmax"], "sigmoid": ["tanh"], "argmax": ["argmin"],
    "ceil": ["floor"], "log": ["exp", "log2"], "exp": ["log"], "cos": ["sin"], "sqrt": ["square"],
    "square": ["abs"], "abs": ["square"], "std": ["var"], "var": ["std"], "inf": ["nan"],
}  # fmt: skip


def changes(node: ast.AST, names: list[str]) -> Iterator[Callable[[ast.AST], ast.AST | None]]:
    """Functions that change a node in place, or give another one for it."""

    def put(**fields) -> Callable:
        return lambda node: [setattr(node, name, value) for name, value in fields.items()] and None

    def magnitude(part: ast.AST) -> ast.AST:
        return ast.Call(ast.Name("abs", ast.Load()), [part], [])

    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        yield from (put(op=other()) for other in SWAPS[type(node.op)])
    if isinstance(node, ast.BinOp):
        yield from (lambda node: node.left, lambda node: node.right, magnitude)
        yield lambda node: ast.BinOp(node.right, node.op, node.left)
    if isinstance(node, ast.BoolOp):
        yield from (lambda node: node.values[0], lambda node: node.values[-1])
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in SWAPS[type(operator)]:
                yield put(ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])
        yield put(left=magnitude(node.left))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield put(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (put(value=value) for value in {node.value + 1, node.value - 1, -node.value, 0} - {node.value})
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield from (put(value=value) for value in {node.value * 2, node.value + 0.01, 0.0, 1.0} - {node.value})
    if isinstance(node, ast.UnaryOp):
        yield lambda node: node.operand
    if isinstance(node, ast.Call):
        yield magnitude
        yield from (lambda node, one=one: node.args[one] for one in range(len(node.args)))
        if node.args:
            yield put(args=node.args[:-1])
            yield put(args=node.args[::-1])
        yield from (put(keywords=node.keywords[:one] + node.keywords[one + 1 :]) for one in range(len(node.keywords)))
    if isinstance(node, ast.Call | ast.Attribute) and isinstance(getattr(node, "func", node), ast.Attribute):
        yield lambda node: getattr(node, "func", node).value  # x for x.sigmoid()
    if isinstance(node, ast.Attribute):
        yield from (put(attr=other) for other in NAMES.get(node.attr, ()))
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (put(id=other) for other in NAMES.get(node.id, ()))
        if node.id in names:
            yield from (put(id=other) for other in names if other != node.id)
    if isinstance(node, ast.Slice):
        yield from (put(**{part: None}) for part in ("lower", "upper", "step") if getattr(node, part) is not None)
    if isinstance(node, ast.Subscript):
        yield lambda node: node.value
    if isinstance(node, ast.IfExp):
        yield from (lambda node: node.body, lambda node: node.orelse)
        yield lambda node: ast.IfExp(node.test, node.orelse, node.body)
    if isinstance(node, ast.If):
        yield from (put(test=ast.Constant(True)), put(test=ast.Constant(False)))
        yield put(test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.comprehension) and node.ifs:
        yield put(ifs=[])
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
        yield lambda node: ast.Pass()


def mutants(function: Callable) -> dict[str, Callable]:
    """Source -> function, for each solution with one change in its body."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    tree.returns, tree.body = None, tree.body[1:]  # without the docstring
    for argument in tree.args.args:
        argument.annotation = None
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names = [argument.arg for argument in tree.args.args] + stored
    found: dict[str, Callable] = {}
    for place, node in enumerate(ast.walk(tree)):
        for change in changes(node, names):
            other = copy.deepcopy(tree)
            target = list(ast.walk(other))[place]
            new = change(target)
            if new is not None:
                _replace(other, target, new)
            source = ast.unparse(ast.fix_missing_locations(other))
            if not _is_endless(other, source):
                found[source] = source
    found.pop(ast.unparse(tree), None)
    for source in found:
        namespace = dict(vars(solutions))
        exec(source, namespace)
        found[source] = namespace[function.__name__]
    return found


def _is_endless(tree: ast.AST, source: str) -> bool:
    """Whether a loop appends to what it runs over."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    return any(f"{ast.unparse(loop.iter)}.append(" in source for loop in loops)


def _replace(tree: ast.AST, target: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(one is target for one in value):
                value[next(i for i, one in enumerate(value) if one is target)] = new
                return


# --- random arguments of each exercise -------------------------------------------------------------------------------


def normal(r, *size):
    return torch.as_tensor(r.normal(size=size))


def unit(r, *size):
    return F.normalize(normal(r, *size), dim=-1)


def windows(r):
    """Windows of a video, its frames, the windows' length and stride."""
    length, stride, n_frames = int(r.integers(2, 9)), int(r.integers(1, 4)), int(r.integers(1, 30))
    return r.normal(size=len(solutions.window_starts(n_frames, length, stride))).tolist(), n_frames, length, stride


def spans(r, highest):
    """Spans of whole numbers in order, which do not overlap."""
    ends = sorted(r.choice(highest, 2 * int(r.integers(0, 4)), replace=False).tolist())
    return list(zip(ends[::2], ends[1::2]))


def swaps(r):
    gate = ContextGate("relevance", 6, 3).double().requires_grad_(False)
    return gate, unit(r, 4, 6), unit(r, 4, 6), normal(r, 4, 3), torch.as_tensor(r.random((4, 4)) < 0.7)


def table(r):
    value = r.integers(0, 20, 5) / 20
    low, high = value - r.integers(0, 5, 5) / 20, value + r.integers(0, 5, 5) / 20
    return pd.DataFrame({"method": list("abcde"), "value": value, "low": low, "high": high})


def interval(r):
    low, high = sorted(r.normal(size=2)) if r.random() < 0.7 else (math.nan, math.nan)
    return r.normal(), low, high


ARGUMENTS = {
    "window_starts": lambda r: (int(r.integers(1, 60)), int(r.integers(1, 30)), int(r.integers(1, 7))),
    "standardise": lambda r: (normal(r, 7), normal(r, 5) + 1),
    "labels_from_spans": lambda r: ([*spans(r, 12), *spans(r, 12)], 12),
    "prevalence": lambda r: ([r.integers(0, 2, r.integers(1, 9)).tolist() for _ in range(r.integers(1, 5))],),
    "learning_rate": lambda r: (int(r.integers(0, 101)), 100, int(r.integers(1, 30))),
    "weighted_cross_entropy": lambda r: (normal(r, 6, 3), torch.as_tensor(r.integers(0, 3, 6)), normal(r, 3).exp()),
    "attention": lambda r: (normal(r, 2, 3, 5), normal(r, 2, 4, 5), normal(r, 2, 4, 6)),
    "divided_pairs": lambda r: (int(r.integers(1, 99)), int(r.integers(1, 20))),
    "prediction_error": lambda r: (normal(r, 2, 3, 4, 5, 6), normal(r, 2, 3, 4, 5, 6)),
    "chance_loss": lambda r: tuple(r.integers(1, 9, 4).tolist()),
    "same_caption": lambda r: (r.choice(["a", "b", "c"], 5).tolist(),),
    "masked_info_nce": lambda r: (unit(r, 4, 6), unit(r, 4, 6), 0.3, torch.as_tensor(r.random((4, 4)) < 0.3)),
    "ln_gate": lambda r: (unit(r, 4, 6), normal(r, 4, 6), r.normal()),
    "dissimilar": lambda r: (torch.as_tensor(r.integers(-2, 3, (5, 2)) + 0.0), r.choice([0.0, 0.7])),
    "alignment_chance": lambda r: tuple(r.integers(1, 40, 2).tolist()),
    "swap_matrix": swaps,
    "frame_scores": windows,
    "causal_scores": lambda r: (*windows(r), r.normal()),
    "auc_by_pairs": lambda r: (r.integers(-3, 4, 12) / 3, r.permutation([0, 1, *r.integers(0, 2, 10)])),
    "normal_threshold": lambda r: ((r.integers(-9, 9, 10) / 9).tolist(), r.choice([0.0, 0.1, 0.2, 0.25, 0.5])),
    "strongest": lambda r: (r.normal(size=9), r.integers(0, 5, 9), 5, int(r.integers(1, 4))),
    "best_clause": lambda r: (unit(r, 6), list("abc"), unit(r, 3, 6)),
    "bilinear_relevance": lambda r: (unit(r, 4, 6), normal(r, 4, 3), normal(r, 5, 6), normal(r, 5, 3), r.normal()),
    "paired_interval": lambda r: (r.normal(size=30), r.normal(size=30)),
    "weighted_fusion": lambda r: (normal(r, 5, 3), normal(r, 6, 3) + 1, normal(r, 3)),
    "holm": lambda r: ((r.integers(0, 20, 6) / 25).tolist(),),
    "abnormal_mass": lambda r: (normal(r, 4, 3), normal(r, 4, 5), r.random() + 0.1),
    "family_frames": lambda r: (r.choice(["", "a", "b", "c"], 9).tolist(), "a"),
    "prototype": lambda r: ([normal(r, n, 3) for n in r.integers(1, 5, 3)],),
    "class_directions": lambda r: (normal(r, 4, 3), normal(r, 3), int(r.integers(0, 4))),
    "batch_standardise": lambda r: (normal(r, 6, 3) * 0.01 + r.normal(),),
    "top_segments": lambda r: (normal(r, 6, 4), int(r.integers(1, 4))),
    "axial_comparisons": lambda r: tuple(r.integers(1, 99, 2).tolist()),
    "reversible_inverse": lambda r: (normal(r, 4), normal(r, 4), torch.sin, torch.cos),
    "interleaved_passes": lambda r: tuple(r.integers(1, [40, 6, 6]).tolist()),
    "joint_probability": lambda r: (torch.as_tensor(r.random(5)), normal(r, 5, 3)),
    "smoothness": lambda r: (torch.as_tensor(r.random((3, 5))),),
    "confusion_shares": lambda r: (r.integers(0, 4, 9).tolist(), r.integers(0, 4, 9).tolist(), 4),
    "own_threshold": lambda r: (r.normal(size=r.integers(1, 30)) + r.normal(),),
    "joined_spans": lambda r: ([(a / 4, b / 4) for a, b in spans(r, 40)], 1.0),
    "attention_rollout": lambda r: (normal(r, int(r.integers(1, 5)), 3, 3).float().softmax(-1),),
    "lift_on_motion": lambda r: (r.random((3, 4)), r.integers(0, 2, (3, 4)) * r.random((3, 4)) * (r.random() < 0.8)),
    "cell": interval,
    "not_worse": lambda r: (table(r),),
}


# --- exercises with many right answers: a change must keep what the exercise asks for --------------------------------


def draws_batches(function, r) -> bool:
    """Whether the batches of two epochs and two seeds are as exercise 3 of notebook 20 wants them."""
    size, per_epoch, seed = int(r.integers(3, 6)), int(r.integers(3, 6)), int(r.integers(0, 99))
    count = size * per_epoch + int(r.integers(0, size))
    epochs = [
        [[int(one) for one in function(count, size, number * per_epoch + i, seed + more)] for i in range(per_epoch)]
        for number, more in ((0, 0), (1, 0), (2, 0), (0, 1))
    ]
    again = [[int(one) for one in function(count, size, i, seed)] for i in range(per_epoch)]
    whole = all(sorted(set(sum(one, [])) & set(range(count))) == sorted(sum(one, [])) for one in epochs)
    sized = all(len(batch) == size for one in epochs for batch in one)
    apart = all(one != other for i, one in enumerate(epochs) for other in epochs[:i])
    shuffled = sum(epochs[0], []) != sorted(sum(epochs[0], []))
    return whole and sized and apart and shuffled and again == epochs[0]


def beats_the_paper(function, r) -> bool:
    """Whether the AUC of exercise 3 of notebook 22 is reached on other videos of the same kind."""
    scores, labels = [], []
    for video in range(40):
        labels.append(label := np.zeros(r.integers(80, 400), int))
        if video % 2:
            first = r.integers(len(label) // 5, len(label) // 2)
            label[first : first + len(label) // 4] = 1
        scores.append(function(len(label), bool(video % 2)))
    return [*map(len, scores)] == [*map(len, labels)] and roc_auc_score(*map(np.concatenate, (labels, scores))) > 0.8


ASKED = {"batch_of_step": draws_batches, "blind_score": beats_the_paper}


def is_same(name: str, function: Callable) -> bool:
    """Whether a changed solution does what the solution does, as far as the exercise asks for it."""
    try:
        if name in ASKED:
            return all(ASKED[name](function, np.random.default_rng(seed)) for seed in range(3))
        for seed in range(DRAWS):
            torch.manual_seed(seed)
            args = ARGUMENTS[name](np.random.default_rng(seed))
            wanted, yours = (one(*copy.deepcopy(args)) for one in (getattr(solutions, name), function))
            if any(fault(yours, wanted, 1e-6) for fault in FAULTS):
                return False
    except Exception:
        return False
    return True


EXERCISES = [name for name, value in vars(solutions).items() if inspect.isfunction(value)]


@pytest.mark.parametrize("name", EXERCISES)
def test_no_changed_solution_passes(name, monkeypatch):
    monkeypatch.setattr(answers, "_named", lambda *_: "")  # which mistake it is costs time and does not matter here
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        changed, passed = mutants(getattr(solutions, name)), []
        for source, function in changed.items():
            try:
                getattr(checks, name)(function)
            except WrongAnswer:
                continue
            passed.append(source)
        survivors = [source for source in passed if not is_same(name, changed[source])]
    assert survivors == [], "\n\n".join(survivors)
    assert len(changed) - len(passed) >= 10, "too few changes to say anything"
