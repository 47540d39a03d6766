"""Mixture fusion: score terms standardised with a mean and a standard deviation that depend on the scene.

Paper (arXiv 2508.18463), abstract: "modulating predictions with scene-aware cues"; the module is not specified there,
this one is the kit's reading of it: what counts as a large prediction error, or a badly fitting caption, is a matter of
the camera.

Notebook: 21_score_video
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixture(nn.Module):
    r"""s = sum_i w_i (s_i - mu_i(c)) / sigma_i(c), with mu and log sigma linear in c.

    Fitted by likelihood on NORMAL validation windows: s_i ~ N(mu_i(c), sigma_i(c)^2). A ridge pulls both towards
    constants, which is the ordinary fusion by z-statistics.

    Args:
        context_dim: width C of the context vector (standardised: mean 0, standard deviation 1).
        terms: number M of score terms.
        ridge: weight of the squared coefficients in the fit.
    """

    def __init__(self, context_dim: int, terms: int, ridge: float = 1.0):
        super().__init__()
        self.mean, self.log_std = nn.Linear(context_dim, terms), nn.Linear(context_dim, terms)
        self.ridge = ridge
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def standardised(self, terms: Tensor, context: Tensor) -> Tensor:
        """Terms [B, M] under contexts [B, C] -> [B, M]."""
        return (terms - self.mean(context)) * torch.exp(-self.log_std(context))

    def forward(self, terms: Tensor, context: Tensor, weights: Tensor | None = None) -> Tensor:
        """Terms [B, M], contexts [B, C], optional weights [M] (equal by default) -> scores [B]."""
        z = self.standardised(terms, context)
        return z.sum(-1) if weights is None else z @ weights

    def fit(self, terms: Tensor, context: Tensor, iterations: int = 100) -> Mixture:
        """Maximum likelihood on normal windows: terms [N, M], contexts [N, C]; deterministic (LBFGS from constants)."""
        with torch.no_grad():
            self.mean.bias.copy_(terms.mean(0))
            self.log_std.bias.copy_(terms.std(0).clamp_min(1e-6).log())
        scale = terms.std(0).clamp_min(1e-6)
        optimiser = torch.optim.LBFGS(self.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            likelihood = (0.5 * self.standardised(terms, context).square() + self.log_std(context)).sum(-1).mean()
            size = (self.mean.weight / scale[:, None]).square().sum() + self.log_std.weight.square().sum()
            loss = likelihood + self.ridge * size / len(terms)
            loss.backward()
            return loss

        optimiser.step(closure)
        return self
