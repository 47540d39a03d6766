"""Checks of the exercises on ablations (notebooks 30 to 34)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from zsad_lib.evaluate import comparison
from zsad_lib.exercises.answers import judge
from zsad_lib.methods.context_aware.scores import prompt_scores
from zsad_lib.models.gates import ContextGate


def bilinear_relevance(answer: Callable) -> None:
    """`answer(text, context, U, V, b)` against the library's bilinear gate."""
    torch.manual_seed(0)
    gate = ContextGate("bilinear", 8, 4).double().requires_grad_(False)
    rule = gate.rule
    rule.of_context.bias.zero_()
    rule.bias.fill_(-0.3)
    text, context = F.normalize(torch.randn(5, 8).double(), dim=-1), torch.randn(5, 4).double()

    def logit(text, context, U, V, b, scale=1.0, width=1.0):
        return b + ((text * (width * text.shape[1]) ** 0.5) @ U.T * (context @ V.T)).sum(1) / (scale * len(U)) ** 0.5

    mistakes = {
        "the sigmoid is missing": logit,
        "not divided by the root of the rank k": lambda t, c, U, V, b: logit(t, c, U, V, b, scale=1 / len(U)).sigmoid(),
        "divided by the rank k, not by its root": lambda t, c, U, V, b: logit(t, c, U, V, b, scale=len(U)).sigmoid(),
        "the text is not multiplied by the root of its width D": lambda t, c, U, V, b: logit(
            t, c, U, V, b, width=1 / t.shape[1]
        ).sigmoid(),
        "b is left out": lambda t, c, U, V, b: logit(t, c, U, V, 0.0).sigmoid(),
        "b is taken off; it is added": lambda t, c, U, V, b: logit(t, c, U, V, -b).sigmoid(),
        "every text meets every context; pairs are wanted": lambda t, c, U, V, b: (
            b + (t * t.shape[1] ** 0.5) @ U.T @ (c @ V.T).T / len(U) ** 0.5
        ).sigmoid(),
        "the products are not summed": lambda t, c, U, V, b: (
            b + (t * t.shape[1] ** 0.5) @ U.T * (c @ V.T) / len(U) ** 0.5
        ).sigmoid(),
    }
    args = text, context, rule.of_text.weight, rule.of_context.weight, -0.3
    judge(answer, "bilinear relevance", [(args, gate.relevance(text, context).diagonal())], mistakes)


def paired_interval(answer: Callable) -> None:
    """`answer(first, second)` against draws that move together, the value of all data far from theirs."""
    draw = np.random.default_rng(0)
    second = draw.normal(0.8, 0.1, 41)
    first = second - draw.normal(0.02, 0.05, 41)
    first[0] -= 0.5

    def interval(gap, draws, low=0.025, high=0.975):
        return [gap, *np.quantile(draws, [low, high])]

    mistakes = {
        "quantiles are taken before the difference; subtract draw by draw": lambda first, second: [
            first[0] - second[0],
            *np.quantile(first[1:], [0.025, 0.975]) - np.quantile(second[1:], [0.025, 0.975]),
        ],
        "the value of all data is no draw; leave it out of the quantiles": lambda first, second: interval(
            (first - second)[0], first - second
        ),
        "the difference is the mean of the draws; take that of all data": lambda first, second: interval(
            (first - second)[1:].mean(), (first - second)[1:]
        ),
        "the second minus the first": lambda first, second: interval((second - first)[0], (second - first)[1:]),
        "this is a 90 % interval; 95 % leaves 2.5 % on each side": lambda first, second: interval(
            (first - second)[0], (first - second)[1:], 0.05, 0.95
        ),
        "these are the extremes of the draws; take quantiles": lambda first, second: interval(
            (first - second)[0], (first - second)[1:], 0, 1
        ),
    }
    right = interval((first - second)[0], (first - second)[1:])
    judge(answer, "difference, low and high", [((first, second), right)], mistakes)


def weighted_fusion(answer: Callable) -> None:
    """`answer(terms, normal, weights)` must use the normal windows' statistics alone."""
    terms, normal = torch.tensor([[3.0, -10.0], [1.0, 30.0], [-4.0, 5.0]]), torch.tensor([[-3.0, 10.0], [-1.0, 30.0]])

    def fused(terms, normal, weights, correction=0):
        return ((terms - normal.mean(0)) / normal.std(0, correction=correction)) @ weights

    mistakes = {
        "mean and deviation are the terms' own, not those of the normal windows": lambda terms, normal, weights: fused(
            terms, terms, weights
        ),
        "the deviation divides by N - 1, not by N (correction=0)": lambda *args: fused(*args, correction=1),
        "the weights are left out": lambda terms, normal, weights: fused(terms, normal, torch.ones_like(weights)),
        "the sum is divided by the weights' sum": lambda terms, normal, weights: fused(
            terms, normal, weights / weights.sum()
        ),
        "the terms share one mean and deviation; each has its own": lambda terms, normal, weights: (
            ((terms - normal.mean()) / normal.std(correction=0)) @ weights
        ),
        "the mean is not taken off": lambda terms, normal, weights: (terms / normal.std(0, correction=0)) @ weights,
        "not divided by the deviation": lambda terms, normal, weights: (terms - normal.mean(0)) @ weights,
        "the weighted terms are not added up": lambda terms, normal, weights: (
            (terms - normal.mean(0)) / normal.std(0, correction=0) * weights
        ),
    }
    cases = [((terms, normal, torch.tensor([1.0, 0.5])), [3.5, 3.5, -2.75])]
    judge(answer, "fused scores", cases, mistakes)


def holm(answer: Callable) -> None:
    """`answer(p)` against the library, with a product that would fall and one above 1."""

    def steps(p, factor, cumulative=True, highest=1.0):
        order = np.argsort(p)
        values = np.minimum(highest, np.sort(p) * np.array([factor(len(p), rank) for rank in range(len(p))]))
        return order, np.maximum.accumulate(values) if cumulative else values

    def placed(order, values):
        return values[np.argsort(order)]

    mistakes = {
        "every value counts n times, which is Bonferroni's; the next ones count less": lambda p: placed(
            *steps(p, lambda n, rank: n)
        ),
        "a later value is smaller than an earlier one; it may not fall": lambda p: placed(
            *steps(p, lambda n, rank: n - rank, cumulative=False)
        ),
        "a value above 1 is no probability; at most 1": lambda p: placed(
            *steps(p, lambda n, rank: n - rank, highest=np.inf)
        ),
        "the values come sorted; keep the given order": lambda p: steps(p, lambda n, rank: n - rank)[1],
        "the smallest counts n times, not n - 1": lambda p: placed(*steps(p, lambda n, rank: n - rank - 1)),
        "n over the rank is Benjamini and Hochberg's factor; Holm's is n - rank + 1": lambda p: placed(
            *steps(p, lambda n, rank: n / (rank + 1))
        ),
        "this is a rank, counted from the largest; the smallest counts n times": lambda p: placed(
            *steps(p, lambda n, rank: rank + 1)
        ),
    }
    p = [0.2, 0.001, 0.035, 0.03, 0.9, 0.6]
    judge(answer, "corrected p values", [((p,), comparison.holm(pd.Series(p)))], mistakes)


def abnormal_mass(answer: Callable) -> None:
    """`answer(normal, abnormal, temperature)` against the library."""
    draw = torch.Generator().manual_seed(0)
    normal, abnormal = (torch.rand(4, n, generator=draw, dtype=torch.float64) - 0.5 for n in (3, 5))

    def shares(normal, abnormal, temperature):
        return (torch.cat([normal, abnormal], 1) / temperature).softmax(1)

    mistakes = {
        "the temperature multiplies; it divides": lambda n, a, tau: shares(n, a, 1 / tau)[:, 3:].sum(1),
        "the temperature is left out": lambda n, a, tau: shares(n, a, 1)[:, 3:].sum(1),
        "this is the mass on the normal prompts": lambda n, a, tau: shares(n, a, tau)[:, :3].sum(1),
        "the softmax runs over the abnormal prompts alone": lambda n, a, tau: (a / tau).softmax(1).sum(1),
        "the softmax runs over the windows, not over the prompts": lambda n, a, tau: (
            (torch.cat([n, a], 1) / tau).softmax(0)[:, 3:].sum(1)
        ),
        "this is a mean over the abnormal prompts, not their sum": lambda n, a, tau: shares(n, a, tau)[:, 3:].mean(1),
        "this is the best abnormal prompt alone": lambda n, a, tau: shares(n, a, tau)[:, 3:].amax(1),
        "the abnormal prompts are not added up": lambda n, a, tau: shares(n, a, tau)[:, 3:],
    }
    right = prompt_scores(normal, abnormal, 0.2)[0]
    judge(answer, "mass on the abnormal prompts", [((normal, abnormal, 0.2), right)], mistakes)


def family_frames(answer: Callable) -> None:
    """`answer(families, family)` must leave out the other families' frames and keep every normal one."""
    mistakes = {
        "other families' frames count; they are neither positive nor negative": lambda families, family: [
            np.ones(len(families)),
            np.array(families) == family,
        ],
        "normal frames are left out; they are the negatives": lambda families, family: (
            [np.array(families) == family] * 2
        ),
        "the family's own frames are left out; they are the positives": lambda families, family: [
            np.array(families) == "",
            np.array(families) == family,
        ],
        "the second holds the counted frames alone; it has one value for every frame": lambda families, family: [
            np.isin(families, ["", family]),
            [one == family for one in families if one in ("", family)],
        ],
        "the two come in the wrong order; the frames that count come first": lambda families, family: [
            np.array(families) == family,
            np.isin(families, ["", family]),
        ],
        "the second says which frames are normal, not which are the family's": lambda families, family: [
            np.isin(families, ["", family]),
            np.array(families) == "",
        ],
    }
    families = ["", "semantic", "temporal", "semantic", ""]
    cases = [((families, "semantic"), [[1, 1, 0, 1, 1], [0, 1, 0, 1, 0]])]
    judge(answer, "frames that count, frames of the family", cases, mistakes)
