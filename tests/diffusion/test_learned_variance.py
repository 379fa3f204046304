"""The learned variance of improved DDPM, against Gaussians whose posterior is known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from tabdiff.diffusion import (
    DDPM,
    ClassifierFreeGuidance,
    CosineSchedule,
    Denoiser,
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    GaussianDenoiser,
    ZeroTerminalSNRSchedule,
    sample,
)
from tabdiff.diffusion.learned_variance import VLB_WEIGHT, bound_terms, step_log_variances, to_share

SCHEDULES = [DiscreteLinearSchedule(1000), DiscreteCosineSchedule(10), DiscreteCosineSchedule(1000)]
SD = 0.4


def times(schedule):
    return torch.arange(1, schedule.n_timesteps + 1, dtype=torch.float64) / schedule.n_timesteps


def exact_shares(schedule, sd=SD):
    """The share v of each step at which its variance is the exact one of ``x_s`` given ``x_t``, for N(0, sd²) data."""
    t = times(schedule)
    s = (t - 1 / schedule.n_timesteps).clamp(min=schedule.t_min)
    alpha, before = schedule.alpha(t), schedule.alpha(s)
    marginal, marginal_before = alpha**2 * sd**2 + schedule.sigma(t) ** 2, before**2 * sd**2 + schedule.sigma(s) ** 2
    posterior = marginal_before - (alpha / before * marginal_before) ** 2 / marginal
    log_small, log_large, _ = step_log_variances(schedule, t)
    share = (posterior.log() - log_small) / (log_large - log_small)
    share[0] = 0.5  # the first step leads to the row itself
    return share


class Shares(nn.Module):
    """A network that knows the clean rows of N(0, SD²) data, and has a parameter for the share of each step."""

    def __init__(self, schedule, shares=None):
        super().__init__()
        self.oracle, self.n = GaussianDenoiser(0.0, SD, schedule), schedule.n_timesteps
        self.outputs = nn.Parameter(torch.zeros(self.n) if shares is None else 2 * shares - 1)

    def forward(self, x, t, c=None):
        alpha, sigma = (f(t.double()).to(x)[:, None] for f in (self.oracle.schedule.alpha, self.oracle.schedule.sigma))
        x_t = x * (alpha**2 + sigma**2).sqrt()  # what a network sees has unit variance
        estimate = alpha * SD**2 / (alpha**2 * SD**2 + sigma**2) * x_t
        place = (t * self.n).round().long() - 1
        return torch.cat([estimate, self.outputs[place].to(x)[:, None].expand_as(x)], dim=1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}-{s.n_timesteps}")
def test_a_step_has_the_variances_and_the_weight_of_the_paper(schedule):
    log_small, log_large, weight = step_log_variances(schedule, times(schedule).float())
    betas = schedule.betas
    signal = torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)])
    small = betas * (1 - signal[:-1]) / (1 - signal[1:])
    small[0] = small[1]  # clipped: nothing is left at the clean end
    torch.testing.assert_close(log_large, betas.log())
    torch.testing.assert_close(log_small, small.log())
    torch.testing.assert_close(weight, signal[:-1].sqrt() * betas / (1 - signal[1:]))


def test_no_signal_at_the_noisy_end_is_no_obstacle():
    schedule = ZeroTerminalSNRSchedule(DiscreteCosineSchedule(10))
    log_small, log_large, weight = step_log_variances(schedule, times(schedule))
    assert log_small.isfinite().all() and log_large.isfinite().all() and weight.isfinite().all()
    assert log_large[-1] == 0 and (log_small <= log_large + 1e-12).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}-{s.n_timesteps}")
def test_terms_are_divergences_and_the_first_a_density(schedule):
    generator = torch.Generator().manual_seed(0)
    t = times(schedule)[[0, 1, 4, -1]]
    x0, estimate, share = (torch.randn(4, 3, generator=generator).double() for _ in range(3))
    share = share.sigmoid()
    log_small, log_large, weight = (v[:, None] for v in step_log_variances(schedule, t))
    spread = (0.5 * (share * log_large + (1 - share) * log_small)).exp()
    expected = kl_divergence(Normal(weight * x0, (log_small / 2).exp()), Normal(weight * estimate, spread))
    expected[0] = -Normal(estimate[0], spread[0]).log_prob(x0[0])
    torch.testing.assert_close(bound_terms(x0, estimate, share, schedule, t), expected)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}-{s.n_timesteps}")
def test_the_bound_is_least_at_the_exact_posterior_variance(schedule):
    t = times(schedule)[1:]
    share = exact_shares(schedule)[1:]
    # Half of the rows one standard deviation above their estimate, half below: the mean over all rows, exactly.
    spread = (1 / (1 / SD**2 + schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)).sqrt()
    x0, estimate = spread[:, None] * torch.tensor([1.0, -1.0]).double(), torch.zeros(len(t), 2).double()

    def bound(v):
        return bound_terms(x0, estimate, v[:, None].expand_as(x0), schedule, t).mean(1)

    v = share.clone().requires_grad_()
    (slope,) = torch.autograd.grad(bound(v).sum(), v)
    assert slope.abs().max() < 1e-6 and ((0 <= share) & (share <= 1)).all()
    for step in (-0.1, 0.1):
        assert (bound(share + step) > bound(share)).all()


def test_only_the_simple_loss_moves_the_mean_and_only_the_bound_the_variance():
    schedule, generator = DiscreteCosineSchedule(50), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 6, 3, generator=generator).double()
    t = times(schedule)[[0, 1, 5, 10, 30, 49]]
    output = torch.randn(6, 6, generator=generator).double().requires_grad_()
    hybrid = Denoiser(lambda x, t, c: output, schedule, learned_variance=True)
    simple = Denoiser(lambda x, t, c: output[:, :3], schedule)
    rows, alone = hybrid.loss(x0, t=t, eps=eps), simple.loss(x0, t=t, eps=eps)
    estimate = simple(schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * eps, t)
    bits = bound_terms(x0, estimate, to_share(output[:, 3:]), schedule, t).mean(1) / math.log(2)
    torch.testing.assert_close(rows, alone + VLB_WEIGHT * 50 * bits)
    (both,) = torch.autograd.grad(rows.sum(), output, retain_graph=True)
    (mean,) = torch.autograd.grad(alone.sum(), output)
    torch.testing.assert_close(both[:, :3], mean[:, :3])
    assert (both[:, 3:] != 0).all()


def test_what_is_given_of_a_row_has_no_part_in_the_bound():
    schedule, generator = DiscreteCosineSchedule(50), torch.Generator().manual_seed(0)
    output = torch.randn(4, 6, generator=generator).double().requires_grad_()
    denoiser = Denoiser(lambda x, t, c, given=None: output, schedule, n_given=3, learned_variance=True)
    x0, eps = torch.randn(2, 4, 3, generator=generator).double()
    given = torch.full((4, 3), torch.nan).double()
    given[:, 1] = x0[:, 1]
    loss = denoiser.loss(x0, given, t=torch.full((4,), 0.5).double(), eps=eps)
    (gradient,) = torch.autograd.grad(loss.sum(), output)
    assert (gradient[:, [1, 4]] == 0).all() and (gradient[:, [0, 2, 3, 5]] != 0).all()


def test_training_finds_the_exact_variances():
    schedule, generator = DiscreteCosineSchedule(8), torch.Generator().manual_seed(0)
    network = Shares(schedule)
    denoiser = Denoiser(network, schedule, "x0", learned_variance=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    t = times(schedule).float().repeat(512)
    for _ in range(150):
        x0, eps = torch.randn(2, len(t), 1, generator=generator)
        optimizer.zero_grad()
        denoiser.loss(SD * x0, t=t, eps=eps).mean().backward()
        optimizer.step()
    found = to_share(network.outputs.detach()).double()
    assert (found - exact_shares(schedule))[1:].abs().max() < 0.03


@pytest.mark.parametrize("guided", [False, True])
def test_ddpm_with_the_exact_variances_draws_the_data_in_few_steps(guided):
    """The oracle's chain of 10 steps is then exact; with either fixed variance it is not."""
    schedule = DiscreteCosineSchedule(10)
    network = Shares(schedule, exact_shares(schedule))
    denoiser = Denoiser(network, schedule, "x0", learned_variance=True).double()
    last = (schedule.alpha(schedule.t_min) ** 2 * SD**2 + schedule.sigma(schedule.t_min) ** 2).sqrt().item()

    def spread(method):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(40_000, 1, generator=generator).double()
        asked = ClassifierFreeGuidance(denoiser, 1.0) if guided else denoiser
        rows = sample(asked, noise, method=method, steps=9, grid="uniform", generator=generator, denoise_last=False)
        return rows.std().item()

    errors = {v: abs(spread(DDPM(v)) / last - 1) for v in ("small", "large", "learned")}
    assert errors["learned"] < 0.01 < 0.04 < min(errors["small"], errors["large"]), errors
    assert spread("ddpm") == spread(DDPM("learned"))


def test_guidance_takes_the_variance_under_the_condition():
    class Table(nn.Module):
        n_levels = (2,)

        def forward(self, condition, n=None):
            return condition

    def network(x, t, c):
        return torch.cat([0 * x, torch.where(c == 1, 1.0, -1.0).expand_as(x)], dim=1)

    schedule = DiscreteCosineSchedule(100)
    denoiser = Denoiser(network, schedule, "x0", Table(), learned_variance=True)
    noise, condition = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)), torch.ones(20_000, 1)
    settings = {"steps": 2, "grid": [0.99, 0.98], "denoise_last": False}

    def drawn(condition, method="ddpm", scale=3.0):
        guided, generator = ClassifierFreeGuidance(denoiser, scale), torch.Generator().manual_seed(1)
        return sample(guided, noise, condition, method=method, generator=generator, **settings)

    torch.testing.assert_close(drawn(condition), drawn(condition, DDPM("large")))
    torch.testing.assert_close(drawn(0 * condition), drawn(0 * condition, DDPM("small")))


def test_what_has_no_learned_variance_says_so():
    schedule = DiscreteCosineSchedule(10)
    with pytest.raises(ValueError, match="for a denoiser without a learned variance"):
        sample(GaussianDenoiser(0.0, 1.0, schedule), torch.zeros(2, 1), method=DDPM("learned"), steps=3)
    with pytest.raises(ValueError, match="schedule with n_timesteps"):
        Denoiser(lambda x, t, c: x, CosineSchedule(), learned_variance=True)
