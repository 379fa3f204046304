import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from exhaustive import exhaustive
from torch import nn

from tabdiff.diffusion import (
    TARGETS,
    CosineSchedule,
    Denoiser,
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    EDMSchedule,
    GaussianDenoiser,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    coefficients,
    make_schedule,
    target_of,
    to_eps,
    variational_bound,
)
from tabdiff.diffusion.bound import LOG_SNR_NUMBERS, LOG_SNR_RANGE, row_bound
from tabdiff.diffusion.cubature import Directions, radii
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.diffusion.samplers.grids import node_at

BIT = math.log(2)
CONTINUOUS = [
    CosineSchedule(),
    VPSchedule(),
    SubVPSchedule(),
    VESchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    SigmoidSchedule(),
    ShiftedSchedule(CosineSchedule(), 2.0),
    ZeroTerminalSNRSchedule(CosineSchedule()),
]
CHAINS = [kind(n) for kind in (DiscreteCosineSchedule, DiscreteLinearSchedule) for n in (2, 10, 100, 1000)] + [
    ZeroTerminalSNRSchedule(DiscreteLinearSchedule(100)),
    ShiftedSchedule(DiscreteCosineSchedule(100), 2.0),
]


def name(schedule):
    return f"{schedule.name}-{schedule.n_timesteps}"


def ends(schedule, low=-math.inf, high=math.inf):
    """Log-SNRs of a schedule within a range: the two ends, or all times of a chain, clean to noisy."""
    if schedule.n_timesteps is None:
        top = min(schedule.log_snr(schedule.t_min).item(), high)
        return [top, max(schedule.log_snr(schedule.t_max).item(), low)]
    times = [schedule.log_snr(k / schedule.n_timesteps).item() for k in range(1, schedule.n_timesteps + 1)]
    return [t for t in times if t <= high] or times[-1:]


def exact(schedule, variance, second_moment, chain_variance="large", low=-math.inf, high=math.inf):
    """The bound of an entry of N(0, variance), on average over rows of a second moment, by Ho et al. and Kingma et al.

    The exact estimate shrinks, so the squared error of a row is x² times the square of the shrinkage, and the noise's.
    """
    path = ends(schedule, low, high)
    snr = [math.exp(log_snr) for log_snr in path]

    def error(s):
        return (second_moment + variance**2 * s) / (1 + variance * s) ** 2

    cost = 0.0
    if schedule.n_timesteps is None:
        # The integral of half the error, in closed form for the variance, and the row's excess besides.
        cost += 0.5 * (math.log1p(variance * snr[0]) - math.log1p(variance * snr[1]))
        excess = (second_moment - variance) / variance
        cost += 0.5 * excess * (1 / (1 + variance * snr[1]) - 1 / (1 + variance * snr[0]))
    else:
        for clean, noisy in pairwise(snr):
            ratio = (1 + noisy) / (1 + clean) if chain_variance == "large" else 1.0
            cost += 0.5 * (ratio - 1 - math.log(ratio) + ratio * (clean - noisy) * error(noisy))
    share = 1 / (1 + snr[-1])
    prior = 0.5 * (share - 1 - math.log(share) + prior_signal(schedule, path[-1]) * second_moment)
    decoder = 0.5 * (math.log(2 * math.pi) - math.log1p(snr[0]) + (1 + snr[0]) * error(snr[0]))
    return -cost - prior - decoder


def prior_signal(schedule, log_snr):
    """alpha² over alpha² + sigma²."""
    return 1 / (1 + math.exp(-log_snr)) if log_snr > -700 else 0.0


def corners(variance, n_entries=2):
    """Rows whose second moment is the variance in each entry."""
    return variance**0.5 * torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(1, n_entries // 2)


@pytest.mark.parametrize("schedule", [*CONTINUOUS, *CHAINS], ids=name)
@pytest.mark.parametrize("variance", [1.0, 0.09])
def test_bound_of_a_gaussian_is_the_closed_form(schedule, variance):
    oracle = GaussianDenoiser(0.0, variance**0.5, schedule)
    found = row_bound(oracle, corners(variance)).mean().item() / 2
    expected = exact(schedule, variance, variance, low=LOG_SNR_RANGE[0], high=LOG_SNR_NUMBERS)
    assert found == pytest.approx(expected, abs=0.01 * BIT)
    log_density = -0.5 * (math.log(2 * math.pi * variance) + 1)
    if schedule.n_timesteps is None or variance == 1:
        # In continuous time, and for standard normal rows at any T, the bound is the log-density.
        assert found == pytest.approx(log_density, abs=0.01 * BIT)
    else:
        assert found < log_density + 0.01 * BIT


@pytest.mark.parametrize("schedule", [CosineSchedule(), DiscreteCosineSchedule(10)], ids=name)
@pytest.mark.parametrize("target", TARGETS)
def test_bound_does_not_depend_on_the_target(schedule, target):
    oracle = GaussianDenoiser(0.2, 0.5, schedule)

    def network(x, t, c):
        t = t[0] if schedule.n_timesteps is None else (t[0] * schedule.n_timesteps).round() / schedule.n_timesteps
        alpha, sigma = coefficients(schedule, t, x)
        noisy = x * (alpha**2 + sigma**2).sqrt()
        x0 = oracle(noisy, t)
        answer = target_of(x0, to_eps(x0, noisy, alpha, sigma), alpha, sigma, target)
        return answer * sigma if target == "score" else answer

    x = corners(0.25, 4)
    expected = row_bound(oracle, x)
    torch.testing.assert_close(row_bound(Denoiser(network, schedule, target), x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize("variance", ["large", "small"])
def test_a_chain_pays_for_its_variance(n, variance):
    schedule = DiscreteCosineSchedule(n)
    oracle = GaussianDenoiser(0.0, 0.3, schedule)
    found = variational_bound(oracle, corners(0.09), variance=variance).mean().item() / 2
    assert found == pytest.approx(exact(schedule, 0.09, 0.09, variance), abs=0.01 * BIT)


def test_all_terms_of_a_chain_are_taken_where_steps_are_enough():
    schedule = DiscreteLinearSchedule(40)
    oracle = GaussianDenoiser(0.0, 0.3, schedule)
    found = variational_bound(oracle, corners(0.09), steps=39).mean().item() / 2
    assert found == pytest.approx(exact(schedule, 0.09, 0.09), abs=1e-6)


def test_the_ends_of_a_schedule_are_paid_for():
    # On this schedule neither is all of the row left at the clean end nor nothing at the noisy one.
    schedule = VPSchedule(t_min=0.05, t_max=0.6)
    x = torch.tensor([[1.5, -1.5]], dtype=torch.float64)
    found = variational_bound(GaussianDenoiser(0.0, 0.7, schedule), x, steps=100).item() / 2
    assert found == pytest.approx(exact(schedule, 0.49, 2.25), abs=2e-4)


def test_integral_of_a_chain_is_tighter_than_its_sum():
    schedule = DiscreteCosineSchedule(10)
    oracle = GaussianDenoiser(0.0, 0.3, schedule)
    x = corners(0.09)
    summed, integrated = (variational_bound(oracle, x, time=time).mean() for time in ("schedule", "continuous"))
    assert summed < integrated - 0.2
    assert integrated.item() / 2 == pytest.approx(
        -0.5 * (math.log(2 * math.pi * 0.09) + 1) - decoding_gap(schedule, 0.09), abs=0.01
    )


def decoding_gap(schedule, variance):
    """What a decoder of variance 1 / (1 + SNR) loses against the exact one at the cleanest time."""
    snr = math.exp(schedule.log_snr(schedule.t_min).item())
    right = (1 + snr) * variance / (1 + variance * snr)
    return 0.5 * (right - 1 - math.log(right))


@pytest.mark.parametrize("schedule", [CosineSchedule(), EDMSchedule(), DiscreteCosineSchedule(1000)], ids=name)
def test_bound_of_a_mixture_is_its_log_density(schedule, mixture, generator):
    oracle = mixture(schedule)
    rows, _ = oracle.sample(300, generator)
    error = (row_bound(oracle, rows) - oracle.log_prob(rows)) / (2 * BIT)
    assert abs(error.mean()) < (0.01 if schedule.n_timesteps is None else 0.02)
    own = (row_bound(oracle, rows, shared=False) - oracle.log_prob(rows)) / (2 * BIT)
    assert abs(own.mean()) < (0.01 if schedule.n_timesteps is None else 0.02)


def test_bound_of_correlated_rows_has_no_noise():
    cov = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.5]], dtype=torch.float64)
    oracle = GaussianDenoiser(torch.tensor([0.3, -0.2, 0.1]), cov, CosineSchedule())
    x, _ = oracle.sample(20, torch.Generator().manual_seed(0))
    several = torch.stack([row_bound(oracle, x, seed=seed) for seed in range(4)])
    assert several.std(0).max() < 1e-6
    assert (several[0] - oracle.log_prob(x)).abs().max() < 0.1


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), DiscreteCosineSchedule(5), DiscreteCosineSchedule(300)], ids=name
)
def test_standard_error_tells_how_far_off_the_bound_is(schedule, generator):
    factors = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    cov = factors @ factors.T / 3 + 0.05 * torch.eye(20, dtype=torch.float64)
    oracle = GaussianDenoiser(torch.zeros(20), cov, schedule)
    x, _ = oracle.sample(3, generator)
    runs = [row_bound(oracle, x, seed=seed, n_draws=1, return_std=True) for seed in range(30)]
    spread = torch.stack([bound for bound, _ in runs]).std(0).mean()
    told = torch.stack([std for _, std in runs]).square().mean().sqrt()
    assert 0.6 < told / spread < 2.5


def test_a_row_does_not_depend_on_the_rows_beside_it():
    oracle = GaussianDenoiser(0.0, 0.7, CosineSchedule())
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(row_bound(oracle, x)[5:8], row_bound(oracle, x[5:8]))
    torch.testing.assert_close(row_bound(oracle, x.flip(0)).flip(0), row_bound(oracle, x))


def test_options_are_checked():
    oracle, x = GaussianDenoiser(0.0, 1.0, CosineSchedule()), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="time must be 'schedule' or 'continuous'; got 'discrete'"):
        variational_bound(oracle, x, time="discrete")
    with pytest.raises(ValueError, match="variance must be 'large' or 'small'; got 'beta'"):
        variational_bound(oracle, x, variance="beta")
    with pytest.raises(ValueError, match="at least 1; got 0 and 2"):
        variational_bound(oracle, x, steps=0)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_chains_of_any_length_have_a_finite_bound(schedule):
    x = corners(1.0)
    for n in range(2, 61):
        oracle = GaussianDenoiser(0.0, 1.0, make_schedule(schedule, n))
        found, std = row_bound(oracle, x, steps=4, n_draws=1, return_std=True)
        torch.testing.assert_close(found, torch.full_like(found, -1 - math.log(2 * math.pi)), atol=1e-6, rtol=0)
        assert std.isfinite().all()


# Rules for the noise


@pytest.mark.parametrize("n_entries", [1, 2, 3, 20])
def test_radii_have_the_moments_of_normal_noise(n_entries):
    rule = radii(n_entries)
    moment = 1.0
    for power in range(2 * len(rule)):
        assert sum(w * r ** (2 * power) for r, w in rule) == pytest.approx(moment)
        moment *= n_entries + 2 * power


@pytest.mark.parametrize(("shared", "n"), [(True, 1), (False, 5)])
def test_directions_are_orthogonal_frame_by_frame(shared, n):
    stream = Directions(torch.zeros(5, 2, 3), torch.Generator().manual_seed(0), shared=shared)
    for _ in range(2):
        frame = torch.stack([stream.take().flatten(1) for _ in range(6)], 1)
        assert frame.shape == (n, 6, 6)
        torch.testing.assert_close(frame @ frame.mT, torch.eye(6).expand(n, 6, 6), atol=1e-6, rtol=0)


# Numbers and categories


class Ideal(nn.Module):
    """Knows independent columns exactly: a standard normal, whose v is 0, and one category."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t, c=None):
        alpha, sigma = coefficients(self.schedule, t, x)
        # Bayes: the embeddings have equal length, so the log-likelihood of a level is its inner product.
        logits = x[:, 1:] @ self.denoiser.embeddings().T * alpha / sigma**2
        logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-29.9)  # undoing the denoiser's own bend
        return torch.cat([torch.zeros_like(x[:, :1]), 30 * torch.atanh(logits / 30)], 1)


def mixed(schedule):
    network = Ideal(schedule)
    shares = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    denoiser = MixedDenoiser(network, schedule, [shares], 1)
    with torch.no_grad():
        denoiser.levels.copy_(torch.eye(3, 8))
    object.__setattr__(network, "denoiser", denoiser)
    return denoiser.double(), shares


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [CosineSchedule(), DiscreteCosineSchedule(1000)], ids=name)
def test_bound_of_numbers_and_categories_and_missing_numbers(schedule):
    denoiser, shares = mixed(schedule)
    data = torch.tensor([[0.5, 0.0], [-1.0, 1.0], [0.0, 2.0], [float("nan"), 0.0]], dtype=torch.float64)
    number = -0.5 * data[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    expected = number.nan_to_num() + shares[data[:, 1].long()].log()
    gap = expected - torch.stack([row_bound(denoiser, data, steps=24, seed=seed) for seed in range(3)]).mean(0)
    assert gap.abs().max() < 0.3  # the rarest level; at the cleanest time it is told with noise
    assert abs((gap * torch.tensor([0.6, 0.3, 0.1, 0.0])).sum()) < 0.06


def test_bound_of_a_short_chain_of_categories_is_one():
    denoiser, shares = mixed(DiscreteCosineSchedule(4))
    data = torch.tensor([[0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    expected = -0.5 * data[:, 0] ** 2 - 0.5 * math.log(2 * math.pi) + shares[data[:, 1].long()].log()
    gap = expected - row_bound(denoiser, data)
    # Four steps lose some nats of a category, and a rare level more than a common one.
    assert 0.3 < (shares * gap).sum() < 3


def test_noisy_rows_are_scored_without_decoding():
    # On average over noise, the log-density of the noisy row is that of a wider normal distribution.
    oracle = GaussianDenoiser(0.0, 0.5, CosineSchedule())
    x = torch.tensor([[0.4, -1.0]], dtype=torch.float64)
    level = 1.0
    found = row_bound(oracle, x, log_snr_max=level, steps=60, decode=False)
    blur = math.exp(-level)
    width = 0.25 + blur
    expected = (-0.5 * (math.log(2 * math.pi * width) + (x**2 + blur) / width)).sum(1)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def sum_of_a_chain(oracle, x, n_timesteps):
    """The bound of a chain for rows (n, 2) by its definition, its means over noise by a Gauss-Hermite rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    eps = torch.tensor(np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2))
    share = torch.tensor(np.outer(weights, weights).reshape(-1) / weights.sum() ** 2)
    eps, share = eps[share > 1e-14], share[share > 1e-14]
    times = [node_at(oracle.schedule, k / n_timesteps) for k in range(1, n_timesteps + 1)]

    def squared_error(node):
        rows = (node.alpha * x[:, None] + node.sigma * eps).reshape(-1, 2)
        estimate = oracle(rows, torch.tensor(node.t, dtype=torch.float64)).reshape(len(x), -1, 2)
        return ((x[:, None] - estimate).square().sum(2) * share).sum(1)

    last, first = times[-1], times[0]
    prior = last.alpha**2 + last.sigma**2
    total = -(last.sigma**2 / prior - 1 + math.log(prior / last.sigma**2))
    total = total - 0.5 * last.alpha**2 / prior * x.square().sum(1)
    for clean, noisy in pairwise(times):
        snr, now = math.exp(2 * clean.lam), math.exp(2 * noisy.lam)
        ratio = (1 + now) / (1 + snr)
        total = total - (ratio - 1 - math.log(ratio)) - 0.5 * ratio * (snr - now) * squared_error(noisy)
    variance = 1 / (1 + math.exp(2 * first.lam))
    return total - math.log(2 * math.pi * variance) - squared_error(first) / (2 * variance)


@pytest.mark.slow
@pytest.mark.parametrize("n_timesteps", exhaustive([10, 2, 100]))
@pytest.mark.parametrize("schedule", exhaustive(["cosine", "linear"]))
def test_the_sum_of_a_chain_is_right_for_a_mixture_that_has_no_closed_form(schedule, n_timesteps, mixture):
    oracle = mixture(make_schedule(schedule, n_timesteps))
    generator = torch.Generator().manual_seed(1)
    kinds = torch.multinomial(oracle.weights, 24, True, generator=generator)
    x = oracle.means[kinds] + 0.2 * torch.randn((24, 2), generator=generator, dtype=torch.float64)
    error = variational_bound(oracle, x, steps=256) - sum_of_a_chain(oracle, x, n_timesteps)
    assert abs(error.mean().item()) / (2 * BIT) < 0.01
