import math

import torch
from torch import nn

from tabdiff.diffusion import GaussianDenoiser, make_schedule
from tabdiff.diffusion.bound import row_bound
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser

SCHEDULE = make_schedule("cosine")


def test_bound_of_a_gaussian_is_just_under_its_log_density():
    oracle = GaussianDenoiser(torch.tensor([0.3, -0.2]), torch.tensor([[1.0, 0.6], [0.6, 0.8]]), SCHEDULE)
    x, _ = oracle.sample(400, torch.Generator().manual_seed(0))
    x = x.double()
    gap = oracle.log_prob(x) - row_bound(oracle, x)
    assert 0 < gap.mean() < 0.2
    assert gap.abs().max() < 0.5


def test_a_row_does_not_depend_on_the_rows_beside_it():
    oracle = GaussianDenoiser(0.0, 0.7, SCHEDULE)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(row_bound(oracle, x)[5:8], row_bound(oracle, x[5:8]))


class Ideal(nn.Module):
    """Knows independent columns exactly: a standard normal, whose v is 0, and one category."""

    def forward(self, x, t, c=None):
        angle = t[:, None] * math.pi / 2
        alpha, sigma = angle.cos(), angle.sin()
        # Bayes: the embeddings have equal length, so the log-likelihood of a level is its inner product.
        logits = x[:, 1:] @ self.denoiser.embeddings().T * alpha / sigma**2
        logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-29.9)  # undoing the denoiser's own bend
        return torch.cat([torch.zeros_like(x[:, :1]), 30 * torch.atanh(logits / 30)], 1)


def mixed():
    network = Ideal()
    shares = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    denoiser = MixedDenoiser(network, SCHEDULE, [shares], 1)
    with torch.no_grad():
        denoiser.levels.copy_(torch.eye(3, 8))
    object.__setattr__(network, "denoiser", denoiser)
    return denoiser.double(), shares


def test_bound_of_numbers_and_categories_and_missing_numbers():
    denoiser, shares = mixed()
    data = torch.tensor([[0.5, 0.0], [-1.0, 1.0], [0.0, 2.0], [float("nan"), 0.0]], dtype=torch.float64)
    number = -0.5 * data[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    expected = number.nan_to_num() + shares[data[:, 1].long()].log()
    gap = expected - row_bound(denoiser, data, steps=200)
    assert gap.abs().max() < 0.5
    assert gap.mean() > -0.1
