import numpy as np
import torch

from tabdiff.codecs.cells.depth import at_depth, deepen, draw_log_library, match_ranks, thin


def test_thinning_keeps_totals_and_proportions():
    counts = np.tile([600, 300, 100, 0], (400, 1)).astype(np.int64)
    out = thin(counts, np.full(400, 50), np.random.default_rng(0))
    assert (out.sum(axis=1) == 50).all() and (out[:, 3] == 0).all()
    # Hypergeometric: mean n K / N, variance n (K / N) (1 - K / N) (N - n) / (N - 1).
    share = np.array([0.6, 0.3, 0.1])
    variance = 50 * share * (1 - share) * 950 / 999
    np.testing.assert_allclose(out[:, :3].mean(axis=0), 50 * share, atol=3.5 * np.sqrt(variance.max() / 400))
    np.testing.assert_allclose(out[:, :3].var(axis=0), variance, rtol=0.3)


def test_what_is_not_deeper_stays():
    counts = np.array([[3, 2], [1, 0]])
    assert (thin(counts, np.array([5, 9]), np.random.default_rng(0)) == counts).all()


def test_reads_are_added_as_the_posterior_of_the_rate_says():
    # Two genes of equal mean and θ = 1: after x reads of the first and none of the second, with μ = 4, the rates are
    # Gamma(1 + x) and Gamma(1) of one scale, so the first gene's share is Beta(1 + x, 1).
    n, x = 4000, 3
    counts = np.tile([x, 0, 0], (n, 1)).astype(np.int64)
    mean, log_theta = torch.tensor([[4.0, 4.0, 1.0]]).expand(n, 3), torch.zeros(n, 3)
    generator = torch.Generator().manual_seed(0)
    totals = np.full(n, 1003)
    out = deepen(counts, totals, mean, log_theta, np.array([2]), np.random.default_rng(0), generator)
    assert (out.sum(axis=1) == 1003).all() and (out[:, 2] == 0).all()
    share = (out[:, 0] - x) / 1000
    a, b = 1 + x, 1
    np.testing.assert_allclose(share.mean(), a / (a + b), atol=4 * share.std() / np.sqrt(n))
    np.testing.assert_allclose(share.var(), a * b / (a + b) ** 2 / (a + b + 1), rtol=0.1)


def test_ranks_are_matched_within_groups():
    values = np.array([10, 20, 30, 1, 2])
    keys = np.array([0.5, 0.1, 0.3, 9.0, -9.0])
    groups = np.array([0, 0, 0, 1, 1])
    assert match_ranks(values, keys, groups).tolist() == [30, 10, 20, 2, 1]


def test_library_sizes_are_drawn_from_their_posterior_and_not_from_the_noise_of_a_gene():
    # Two genes hold most counts and vary by themselves (θ = 4); twenty others say how deep the cell was sequenced.
    generator = torch.Generator().manual_seed(0)
    n, rate = 3000, torch.tensor([0.4, 0.4] + [0.01] * 20).double()
    log_theta = torch.tensor([4.0, 4.0] + [400.0] * 20).double().log().expand(n, 22)
    depth = 7 + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
    theta = log_theta.exp()
    rates = torch._standard_gamma(theta, generator=generator) * (depth.exp()[:, None] * rate / theta)
    counts = torch.poisson(rates, generator=generator)
    drawn = draw_log_library(counts, rate.log().expand(n, 22), log_theta, 7.0, 0.5, generator)
    # What is drawn from the posterior is distributed as the truth, with which it correlates more than the total does.
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [7.0, 0.5], atol=0.03)
    with_total = np.corrcoef(counts.sum(dim=1).log(), depth)[0, 1]
    assert np.corrcoef(drawn, depth)[0, 1] > with_total + 0.02 > 0.7
    # Nothing was counted of: the prior.
    none = draw_log_library(counts[:, :0], counts[:, :0], counts[:, :0], 7.0, 0.5, generator)
    np.testing.assert_allclose([none.mean(), none.std()], [7.0, 0.5], atol=0.03)


def test_a_depth_of_minus_one_is_any():
    counts = np.array([[3, 2], [1, 0], [4, 4]])
    mean, rng, generator = torch.ones(3, 2), np.random.default_rng(0), torch.Generator().manual_seed(0)
    out = at_depth(counts, np.array([-1, 9, 3]), mean, torch.zeros(3, 2), np.array([], dtype=int), rng, generator)
    assert out.sum(axis=1).tolist() == [5, 9, 3] and (out[0] == counts[0]).all()
