"""Exercises of the notebooks: every solution passes its check, and the usual wrong answers do not."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsad_lib import checks, solutions

EXERCISES = [name for name, value in vars(solutions).items() if inspect.isfunction(value)]
WRONG = {
    "window_starts": lambda n, length, stride: list(range(0, n, stride)),
    "standardise": lambda scores, normal: (scores - scores.mean()) / scores.std(),
    "labels_from_spans": lambda spans, n: [int(any(a <= t < b for a, b in spans)) for t in range(n)],
    "prevalence": lambda labels: sum(sum(one) / len(one) for one in labels) / len(labels),
    "learning_rate": lambda step, total, warmup: min(1.0, (step + 1) / warmup),
    "weighted_cross_entropy": lambda x, y, w: F.cross_entropy(x, y),
    "attention": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "divided_pairs": lambda places, frames: (places * frames + 1) ** 2,
    "prediction_error": lambda p, a: (p - a).norm(dim=2),
    "chance_loss": lambda b, p, h, w: 0.0,
    "same_caption": lambda captions: torch.eye(len(captions)),
    "masked_info_nce": lambda v, t, tau, same: F.cross_entropy(v @ t.T / tau, torch.arange(len(v))),
    "ln_gate": lambda t, h, beta: t + beta * h.sigmoid() * h,
    "dissimilar": lambda c, bound: c @ c.T < bound,
    "family_frames": lambda families, family: (np.ones(len(families)), np.asarray(families) == family),
    "own_threshold": lambda score: score.mean() + 4 * score.std(),
    "joined_spans": lambda spans, gap: [span for span in spans if span[1] - span[0] > gap],
    "attention_rollout": lambda layers: solutions.attention_rollout(layers.flip(0)),
    "lift_on_motion": lambda relevance, motion: (relevance * motion).mean() / relevance.mean(),
}


def test_a_lift_without_motion_is_asked_for():
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match="lift where nothing moves"):
        checks.lift_on_motion(lambda relevance, motion: (relevance * motion).sum() / motion.sum() / relevance.mean())


@pytest.mark.parametrize("name", EXERCISES)
def test_solution_passes(name, capsys):
    getattr(checks, name)(getattr(solutions, name))
    assert capsys.readouterr().out.count(": right\n") >= 1


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answer_fails(name):
    with pytest.raises(AssertionError):
        getattr(checks, name)(WRONG[name])
