"""Mixture fusion: scene-dependent standardisation."""

import torch

from zsad_lib.models.mixture import Mixture


def data(count=600):
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(count, 3, generator=generator)
    mean = torch.stack([2 + context[:, 0], -context[:, 1]], 1)
    deviation = torch.stack([torch.exp(0.5 * context[:, 2]), torch.ones(count)], 1)
    return mean + deviation * torch.randn(count, 2, generator=generator), context


def test_fit_finds_the_scenes_mean_and_deviation():
    terms, context = data()
    mixture = Mixture(3, 2, ridge=0.1).fit(terms, context)
    torch.testing.assert_close(mixture.mean.weight[0], torch.tensor([1.0, 0.0, 0.0]), atol=0.15, rtol=0)
    assert abs(mixture.log_std.weight[0, 2].item() - 0.5) < 0.1
    z = mixture.standardised(terms, context)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(2), atol=0.05, rtol=0)


def test_a_strong_ridge_is_ordinary_fusion():
    terms, context = data()
    mixture = Mixture(3, 2, ridge=1e6).fit(terms, context)
    expected = ((terms - terms.mean(0)) / terms.std(0)).sum(-1)
    torch.testing.assert_close(mixture(terms, context), expected, atol=0.02, rtol=0.02)


def test_weights_scale_the_terms():
    terms, context = data(50)
    mixture = Mixture(3, 2).fit(terms, context)
    torch.testing.assert_close(
        mixture(terms, context, torch.tensor([1.0, 0.0])), mixture.standardised(terms, context)[:, 0]
    )
