"""Exercises of the notebooks: every solution passes its check, and a wrong answer is told why."""

import importlib
import inspect
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsad_lib import MOVED, checks, full_name, solutions
from zsad_lib.errors import ZsadError
from zsad_lib.exercises.answers import WrongAnswer

EXERCISES = [name for name, value in vars(solutions).items() if inspect.isfunction(value)]


def rows(tensor):
    return tensor / tensor.norm(dim=1, keepdim=True)


def softmax(x, axis):
    e = torch.exp(x - x.amax(axis, keepdim=True))
    return e / e.sum(axis, keepdim=True)


def append_text(value, low, high):
    text = f"{value:.3f}"
    if low != float("nan"):
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def holm_without_maximum(p):
    order = sorted(p)
    return [min(1, x * (len(p) - order.index(x))) for x in p]


def one_direction(v, t, temperature, same):
    logits = v @ t.T / temperature
    for i in range(len(v)):
        for j in range(len(v)):
            if i != j and same[i, j]:
                logits[i, j] = -torch.inf
    return F.cross_entropy(logits, torch.arange(len(v)))


def both_directions(v, t, temperature, same):
    logits = v @ t.T / temperature
    target = torch.arange(len(v))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def epoch_without_number(count, size, step, seed):
    order = np.random.default_rng(seed).permutation(count)
    start = (step % (count // size)) * size
    return order[start : start + size]


def started(windows, n_frames, length, stride, before):
    return [windows[min(t // stride, len(windows) - 1)] for t in range(n_frames)]


def zeros_behind(windows, n_frames, length, stride):
    total, count = np.zeros(n_frames), np.zeros(n_frames)
    for w, score in enumerate(windows):
        total[w * stride : w * stride + length] += score
        count[w * stride : w * stride + length] += 1
    return total / np.maximum(count, 1)


def join_and_touch(spans, gap):
    found = [list(spans[0])]
    for start, end in spans[1:]:
        if start <= found[-1][1] + gap:
            found[-1][1] = end
        else:
            found.append([start, end])
    return found


def multiply_from_the_right(attention):
    product = torch.eye(attention.shape[1])
    for layer in attention:
        product = product @ (layer + torch.eye(attention.shape[1])) / 2
    return product


def empty_is_zero(scores, picture, pictures, top):
    found = []
    for number in range(pictures):
        some = sorted(scores[picture == number], reverse=True)[:top]
        found.append(sum(some) / len(some) if some else 0)
    return found


WRONG = [  # exercise, words that its check must say, an answer as a learner may write it
    ("window_starts", "windows are counted that end after", lambda n, L, s: [i for i in range(n) if i % s == 0]),
    ("window_starts", "the last whole window is missing", lambda n, L, s: list(range(0, n - L, s)) or [0]),
    ("window_starts", "a video shorter than a window has one window", lambda n, L, s: np.arange(0, n - L + 1, s)),
    ("standardise", "the scores' own", lambda x, normal: (x - x.mean()) / x.std()),
    ("standardise", "the deviation divides by n - 1", lambda x, normal: (x - normal.mean()) / normal.std()),
    (
        "labels_from_spans",
        "the last frame of a span is left out",
        lambda spans, n: [1 if any(t in range(*span) for span in spans) else 0 for t in range(n)],
    ),
    ("prevalence", "the mean of the videos' shares", lambda labels: np.mean([np.mean(one) for one in labels])),
    ("learning_rate", "the ramp starts at 0", lambda i, n, w: min(1, i / w) * 0.5 * (1 + math.cos(math.pi * i / n))),
    ("learning_rate", "the cosine is missing", lambda i, n, w: (i + 1) / w if i < w else 1.0),
    (
        "weighted_cross_entropy",
        "not by the sum of their weights",
        lambda x, y, w: -(w[y] * x.log_softmax(1)[torch.arange(len(y)), y]).mean(),
    ),
    ("weighted_cross_entropy", "the weights are left out", lambda x, y, w: F.cross_entropy(x, y)),
    ("attention", "not divided by the root of the width", lambda q, k, v: softmax(q @ k.transpose(-1, -2), -1) @ v),
    (
        "attention",
        "the softmax runs over the queries",
        lambda q, k, v: softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -2) @ v,
    ),
    ("divided_pairs", "the class token is missing", lambda p, f: p * f * f + f * p * p),
    ("divided_pairs", "joint attention", lambda p, f: (1 + p * f) ** 2),
    ("prediction_error", "this is the cosine; the error is 1 minus it", lambda p, a: F.cosine_similarity(p, a, dim=2)),
    ("prediction_error", "the vectors are not scaled", lambda p, a: 1 - torch.einsum("bpdhw,bpdhw->bphw", p, a)),
    ("chance_loss", "the other clips are candidates too", lambda b, p, h, w: np.log(p * h * w)),
    ("chance_loss", "not its logarithm", lambda b, p, h, w: b * p * h * w),
    ("same_caption", "a caption is compared with itself alone", lambda captions: np.identity(len(captions))),
    ("masked_info_nce", "own caption, repeated, counts as a negative", both_directions),
    ("masked_info_nce", "only from video to text", one_direction),
    (
        "masked_info_nce",
        "the temperature multiplies; it divides",
        lambda v, t, temperature, same: solutions.masked_info_nce(v, t, 1 / temperature, same),
    ),
    ("ln_gate", "rows have no norm 1", lambda t, h, beta: t + beta * h.sigmoid() * h),
    ("ln_gate", "beta is left out", lambda t, h, beta: rows(t + h.sigmoid() * h)),
    ("dissimilar", "rows have no norm 1", lambda c, bound: c @ c.T < bound),
    ("dissimilar", "the sign is lost", lambda c, bound: abs(rows(c) @ rows(c).T) < bound),
    ("dissimilar", "this says who is alike", lambda c, bound: rows(c) @ rows(c).T > bound),
    ("alignment_chance", "added, not averaged", lambda batch, swaps: np.log(batch) + np.log(batch + swaps)),
    ("alignment_chance", "the swaps are left out", lambda batch, swaps: np.log(batch)),
    (
        "swap_matrix",
        "like scenes are not masked",
        lambda gate, v, t, c, unlike: (v[:, None] * gate.paired(t[:, None], c[None])).sum(-1),
    ),
    (
        "swap_matrix",
        "like scenes are 0, not minus infinity",
        lambda gate, v, t, c, unlike: (v[:, None] * gate.paired(t[:, None], c[None])).sum(-1) * unlike,
    ),
    ("batch_of_step", "no seed is set", lambda count, size, step, seed: np.random.permutation(count)[:size]),  # noqa: NPY002
    ("batch_of_step", "every epoch has the same shuffle", epoch_without_number),
    (
        "batch_of_step",
        "windows come twice in an epoch",
        lambda count, size, step, seed: np.random.default_rng(seed + 1000 * step).permutation(count)[:size],
    ),
    ("frame_scores", "frames after the last window's end get 0", zeros_behind),
    ("causal_scores", "the future is used: a window counts before it has ended", started),
    ("auc_by_pairs", "ties count nothing", lambda s, y: (s[y == 1][:, None] > s[y == 0]).mean()),
    ("auc_by_pairs", "ties count whole", lambda s, y: (s[y == 1][:, None] >= s[y == 0]).mean()),
    ("normal_threshold", "a quantile between two scores", lambda normal, share: np.quantile(normal, 1 - share)),
    (
        "normal_threshold",
        "a normal frame's own score",
        lambda normal, share: sorted(normal)[math.ceil((1 - share) * len(normal)) - 1],
    ),
    ("blind_score", "the label alone", lambda n, abnormal: np.full(n, abnormal)),
    ("strongest", "a picture without scores is 0", empty_is_zero),
    (
        "strongest",
        "the mean of all scores",
        lambda s, p, n, top: [s[p == i].mean() if i in p else float("nan") for i in range(n)],
    ),
    ("best_clause", "fits least", lambda v, clauses, vectors: clauses[(vectors @ v).argmin()]),
    ("best_clause", "the clause's number", lambda v, clauses, vectors: (vectors @ v).argmax()),
    (
        "bilinear_relevance",
        "not divided by the root of the rank k",
        lambda t, c, U, V, b: torch.sigmoid(b + ((math.sqrt(t.shape[1]) * t @ U.T) * (c @ V.T)).sum(-1)),
    ),
    (
        "bilinear_relevance",
        "every text meets every context",
        lambda t, c, U, V, b: torch.sigmoid(b + (t * t.shape[1] ** 0.5) @ U.T @ V @ c.T / len(U) ** 0.5),
    ),
    (
        "paired_interval",
        "quantiles are taken before the difference",
        lambda a, b: (
            a[0] - b[0],
            np.quantile(a[1:], 0.025) - np.quantile(b[1:], 0.025),
            np.quantile(a[1:], 0.975) - np.quantile(b[1:], 0.975),
        ),
    ),
    (
        "paired_interval",
        "the value of all data is no draw",
        lambda a, b: ((a - b)[0], *np.percentile(a - b, [2.5, 97.5])),
    ),
    ("weighted_fusion", "the terms' own", lambda t, n, w: ((t - t.mean(0)) / t.std(0, correction=0) * w).sum(1)),
    ("weighted_fusion", "divides by N - 1", lambda t, n, w: ((t - n.mean(0)) / n.std(0) * w).sum(1)),
    ("holm", "it may not fall", holm_without_maximum),
    ("holm", "Bonferroni", lambda p: [min(1.0, len(p) * x) for x in p]),
    (
        "abnormal_mass",
        "the temperature multiplies; it divides",
        lambda n, a, tau: softmax(torch.hstack([n, a]) * tau, 1)[:, n.shape[1] :].sum(1),
    ),
    ("abnormal_mass", "over the abnormal prompts alone", lambda n, a, tau: softmax(a / tau, 1).sum(1)),
    (
        "family_frames",
        "other families' frames count",
        lambda families, family: ([True for _ in families], [one == family for one in families]),
    ),
    ("prototype", "the mean of the videos' means", lambda videos: sum(one.mean(0) for one in videos) / len(videos)),
    ("class_directions", "the normal class is still in", lambda text, m, normal: rows(text - m)),
    ("class_directions", "rows have no norm 1", lambda text, m, normal: np.delete(text - m, normal, axis=0)),
    ("batch_standardise", "divides by M - 1", lambda raw: (raw - raw.mean(0)) / torch.sqrt(raw.var(0) + 1e-5)),
    (
        "batch_standardise",
        "epsilon is added to the deviation",
        lambda raw: (raw - raw.mean(0)) / (raw.std(0, correction=0) + 1e-5),
    ),
    ("top_segments", "their best frame", lambda s, k: np.argsort(-s.numpy().max(1))[:k]),
    ("axial_comparisons", "full attention", lambda n, s: n * s * n * s),
    ("reversible_inverse", "x2, which must be computed before", lambda y1, y2, f, g: (y1 - f(y2), y2 - g(y1))),
    (
        "interleaved_passes",
        "each pass reads one stretch",
        lambda length, n, s: torch.arange(-(-length // (n * s)) * n * s).remainder(length).reshape(-1, n, s),
    ),
    (
        "joint_probability",
        "the softmax runs over the frames",
        lambda p, s: torch.hstack([p[:, None] * softmax(s, 0), 1 - p[:, None]]),
    ),
    (
        "joint_probability",
        "the normal column comes first",
        lambda p, s: torch.hstack([1 - p[:, None], p[:, None] * softmax(s, 1)]),
    ),
    ("smoothness", "compared with the start of the next", lambda p: (p.flatten()[1:] - p.flatten()[:-1]).pow(2).sum()),
    ("smoothness", "this is a mean", lambda p: ((p[:, 1:] - p[:, :-1]) ** 2).mean()),
    (
        "confusion_shares",
        "a class without frames divides by 0",
        lambda y, p, k: [
            [sum(a == i and b == j for a, b in zip(y, p)) / np.float64(y.count(i)) for j in range(k)] for i in range(k)
        ],
    ),
    ("own_threshold", "mean and standard deviation", lambda score: np.mean(score) + 4 * np.std(score)),
    ("own_threshold", "the factor 1.4826 is missing", lambda s: np.median(s) + 4 * np.median(abs(s - np.median(s)))),
    ("joined_spans", "spans exactly a gap apart join", join_and_touch),
    ("attention_rollout", "multiplied from the right", multiply_from_the_right),
    ("attention_rollout", "the identity is missing", lambda layers: torch.linalg.multi_dot([*layers.flip(0)])),
    ("lift_on_motion", "not divided by their sum", lambda r, m: (r * m).mean() / r.mean() if m.any() else 1),
    ("cell", "brackets where the interval is undefined", append_text),
    ("not_worse", "only the best one is named", lambda rows: [rows.loc[rows["value"].idxmax(), "method"]]),
    ("not_worse", "just reaches the best value", lambda rows: rows.query("high > value.max()").method),
]  # fmt: skip


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_passes_and_is_called_the_kits(name, capsys):
    getattr(checks, name)(getattr(solutions, name))
    assert capsys.readouterr().out.endswith(": right; this is the kit's solution, replace it by your own\n")
    getattr(checks, name)(lambda *args: getattr(solutions, name)(*args))
    assert capsys.readouterr().out.endswith(": right\n")


@pytest.mark.parametrize(
    ("name", "words", "answer"), WRONG, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(WRONG)]
)
def test_a_wrong_answer_is_told_its_mistake(name, words, answer):
    with np.errstate(all="ignore"), pytest.raises(WrongAnswer) as told:
        getattr(checks, name)(answer)
    assert words in str(told.value) and "nan" not in str(told.value).replace("[nan, nan]", "").split(";")[-1]


def test_every_exercise_has_a_wrong_answer():
    assert {name for name, _, _ in WRONG} == set(EXERCISES)


@pytest.fixture
def tables(monkeypatch):
    """What each check hands to `judge`: exercise -> (cases, mistakes)."""
    found = {}
    for home in map(full_name, MOVED["zsad_lib.checks"][1:]):
        for name, check in inspect.getmembers(importlib.import_module(home), inspect.isfunction):
            if name in EXERCISES:
                monkeypatch.setitem(check.__globals__, "judge", lambda *args, **_: found.update({name: args[2:4]}))  # noqa: B023
                check(None)
    monkeypatch.undo()
    return found


def test_every_mistake_of_the_tables_is_named_when_it_is_made(tables):
    assert set(tables) == set(EXERCISES) and min(len(mistakes) for _, mistakes in tables.values()) >= 3
    for name, (_, mistakes) in tables.items():
        for words, wrong in mistakes.items():
            with np.errstate(all="ignore"), pytest.raises(WrongAnswer) as told:
                getattr(checks, name)(wrong)
            assert words in str(told.value), name


def divide(*args):
    return 1 / 0


TEXTS = {"best_clause", "cell", "not_worse"}
FORMS = {  # words -> name of an exercise -> an answer of that form
    "your function returned nothing; is there a return?": lambda name: lambda *args: None,
    r"your function raised ZeroDivisionError: division by zero \(in line \d+: return 1 / 0\)": lambda name: divide,
    "your function raised TypeError: ": lambda name: lambda: 0,
    "your function returned dict, wanted (numbers|text)": lambda name: lambda *args: {"a": 1},
    r"got shape \(1, 1, 1, 1, 1\), wanted (a single value|shape)": lambda name: (
        lambda *args: [[[[["a" if name in TEXTS else 0]]]]]
    ),
    "got not a number": lambda name: lambda *args: np.asarray(solution(name, *args), float) * np.nan,
}


def solution(name, *args):
    made = getattr(solutions, name)(*args)
    return torch.stack([*made]) if name == "reversible_inverse" else made


@pytest.mark.parametrize("words", FORMS)
def test_the_form_of_a_result_comes_first(words):
    for name in EXERCISES:
        if "not a number" in words and name in TEXTS:
            continue
        with pytest.raises(WrongAnswer, match=words):
            getattr(checks, name)(FORMS[words](name))


def test_a_result_in_place_of_the_function_is_told():
    with pytest.raises(WrongAnswer, match="give the function itself, without brackets, not its result.*list of int"):
        checks.window_starts([0, 5, 10, 15])


def test_an_answer_cannot_change_what_it_is_checked_with():
    def answer(scores, normal):
        scores -= normal.mean()
        normal *= 0
        return scores / 2

    checks.standardise(answer)


def test_an_unknown_mistake_is_told_with_its_place():
    with pytest.raises(WrongAnswer, match=r"^joint probabilities: got 0\.\d+ at \[2, 1\], wanted 0\.\d+$"):
        checks.joint_probability(
            lambda p, s: solutions.joint_probability(p, s) + 0.1 * (torch.arange(20).view(5, 4) == 9)
        )


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda: checks.ordering(None, "ab"), "give a list of names, not NoneType"),
        (lambda: checks.ordering(["a"], "ab"), "b missing; name each of a, b once"),
        (lambda: checks.ordering(["a", "b", "a"], "ab"), "a is named 2 times"),
        (lambda: checks.ordering(["film", "nome"], ["film", "none"]), "there is no 'nome'; did you mean none?"),
        (lambda: checks.families(["a"], "a"), "give a dict, component to family, not list of str"),
        (lambda: checks.families({}, "a"), "name a family for a too"),
        (lambda: checks.families({"a": "words"}, "a"), "'words' is no family; families are semantic, temporal"),
        (lambda: checks.some_of(["a", "b"], "abc", 3), "2 rows named, wanted 3"),
    ],
)
def test_a_prediction_is_told_what_it_lacks(check, words):
    with pytest.raises(WrongAnswer, match="^prediction: " + words):
        check()


def test_a_prediction_of_ones_own_is_noted_and_the_kits_is_called_so(capsys):
    checks.ordering(["b", "a"], "ab")
    checks.ordering(solutions.left_out_order, list(solutions.left_out_order))
    assert capsys.readouterr().out.splitlines() == [
        "prediction: noted",
        "prediction: noted; this is the kit's solution, replace it by your own",
    ]


def test_a_notebook_shows_one_line_and_no_source(tmp_path):
    code = (
        "from zsad_lib.errors import ZsadError\n\ndef check():\n    raise ZsadError('rows have no norm 1')\n\ncheck()"
    )
    command = [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", code]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    shown = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert shown.stdout.splitlines() == ["ZsadError: rows have no norm 1"], shown
    assert issubclass(WrongAnswer, ZsadError)
