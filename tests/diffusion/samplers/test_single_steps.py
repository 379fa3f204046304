"""Single steps of samplers against the formulas of their papers, with the noise in hand."""

import math

import pytest
import torch
from torch import nn

from tabdiff.diffusion import (
    DDIM,
    DDPM,
    METHODS,
    CosineSchedule,
    DiscreteCosineSchedule,
    EDMSchedule,
    EulerMaruyama,
    GaussianDenoiser,
    Heun,
    Model,
    PredictorCorrector,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_path,
    node_at,
    sample,
)
from tabdiff.utils.random import RowStreams


class Given(Model):
    """Draws the noises that it is given, one after another."""

    def __init__(self, denoiser, noises):
        super().__init__(denoiser)
        self.noises = list(noises)

    def noise(self, like):
        return self.noises.pop(0)


class Sees(nn.Module):
    """Keeps the times at which a denoiser is asked, and what rows it is given."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.schedule, self.times, self.rows = denoiser, denoiser.schedule, [], []

    def forward(self, x, t, condition=None):
        self.times.append(float(t))
        self.rows.append(x.clone())
        return self.denoiser(x, t, condition)


def oracle(schedule):
    return GaussianDenoiser(0.7, 0.5, schedule)


def step(method, schedule, now, then, x, noises):
    path = [node_at(schedule, now), node_at(schedule, then)]
    *_, (_, out, _) = method(Given(oracle(schedule), noises), x, path)
    return out


def spread(method, schedule, now, then):
    """What a step does to its fresh noise: the factor of it in the result."""
    x, zero, one = (torch.full((1, 1), v, dtype=torch.float64) for v in (0.4, 0.0, 1.0))
    return (step(method, schedule, now, then, x, [one]) - step(method, schedule, now, then, x, [zero])).item()


SCHEDULES = [VPSchedule(), CosineSchedule(), EDMSchedule()]
SPANS = [(0.7, 0.5), (0.4, 0.1)]


def alpha_sigma(schedule, t):
    return schedule.alpha(t).item(), schedule.sigma(t).item()


@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=lambda s: s.name)
@pytest.mark.parametrize(("now", "then"), SPANS)
@pytest.mark.parametrize("eta", [0.3, 0.5, 1.0])
def test_ddim_draws_the_noise_of_its_equation_16(schedule, now, then, eta):
    (a_now, s_now), (a_then, s_then) = alpha_sigma(schedule, now), alpha_sigma(schedule, then)
    wanted = eta * (s_then / s_now) * math.sqrt(1 - a_now**2 / a_then**2)
    assert spread(DDIM(eta), schedule, now, then) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=lambda s: s.name)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_ddpm_interpolates_the_logarithms_of_its_variances(schedule, share):
    now, then = 0.7, 0.3
    (a_now, s_now), (a_then, s_then) = alpha_sigma(schedule, now), alpha_sigma(schedule, then)
    beta = 1 - a_now**2 / a_then**2
    small = beta * s_then**2 / s_now**2
    wanted = math.exp(share * math.log(beta) + (1 - share) * math.log(small))  # equation 15
    assert small < 0.8 * beta
    assert spread(DDPM(share), schedule, now, then) ** 2 == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("now", "then"), SPANS)
def test_euler_maruyama_is_the_reverse_sde_at_the_time_it_starts_from(now, then):
    schedule = VPSchedule()
    beta = schedule.beta_min + now * (schedule.beta_max - schedule.beta_min)
    dt = now - then
    assert spread(EulerMaruyama(), schedule, now, then) == pytest.approx(math.sqrt(beta * dt), rel=1e-9)
    # dx = (-beta x / 2 - beta score) dt, run backwards.
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    alpha, sigma = alpha_sigma(schedule, now)
    score = (alpha * oracle(schedule)(x, torch.tensor(now, dtype=torch.float64)) - x) / sigma**2
    expected = x + dt * (beta * x / 2 + beta * score)
    torch.testing.assert_close(step(EulerMaruyama(), schedule, now, then, x, [torch.zeros_like(x)]), expected)
    edm = EDMSchedule()  # d sigma^2 / dt = 2 t
    assert spread(EulerMaruyama(), edm, now, then) == pytest.approx(math.sqrt(2 * now * dt), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_a_correction_is_the_langevin_step_of_algorithm_5(schedule):
    now, then, snr = 0.7, 0.5, 0.3
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    z, zero = torch.linspace(0.5, -2, 6, dtype=torch.float64)[:, None], torch.zeros(6, 1, dtype=torch.float64)
    sees = Sees(oracle(schedule))
    path = [node_at(schedule, now), node_at(schedule, then)]
    model = Given(sees, [zero, z])
    *_, (_, corrected, _) = PredictorCorrector(corrections=1, snr=snr)(model, x, path)
    assert sees.times == [now, then]  # the score is that of the level reached
    predicted = step(DDPM(), schedule, now, then, x, [zero])
    torch.testing.assert_close(sees.rows[1], predicted)
    alpha, sigma = alpha_sigma(schedule, then)
    score = (alpha * oracle(schedule)(predicted, torch.tensor(then, dtype=torch.float64)) - predicted) / sigma**2
    # epsilon = 2 (snr |z| / |score|)^2, whose expected norms are sqrt(d) and sqrt(d) / sigma.
    epsilon = 2 * (snr / (1 / sigma)) ** 2
    torch.testing.assert_close(corrected, predicted + epsilon * score + math.sqrt(2 * epsilon) * z)


def algorithm_2(denoiser, x, sigmas, noises, churn, low, high, s_noise):
    """The stochastic sampler of EDM, line by line, on x = x0 + sigma n; `noises` are standard normal."""
    noises = list(noises)
    for i in range(len(sigmas) - 1):
        gamma = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1) if low <= sigmas[i] <= high else 0.0
        hat = sigmas[i] * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(hat**2 - sigmas[i] ** 2) * s_noise * noises.pop(0)
        d = (x - denoiser(x, torch.tensor(hat, dtype=torch.float64))) / hat
        ahead = x + (sigmas[i + 1] - hat) * d
        if sigmas[i + 1] > 0:
            there = (ahead - denoiser(ahead, torch.tensor(sigmas[i + 1], dtype=torch.float64))) / sigmas[i + 1]
            ahead = x + (sigmas[i + 1] - hat) * (d + there) / 2
        x = ahead
    return x


@pytest.mark.parametrize(
    "options",
    [
        {"churn": 8.0},
        {"churn": 400.0},  # held to sqrt(2) - 1 a step
        {"churn": 8.0, "churn_noise": 1.1},
        {"churn": 8.0, "churn_range": (0.05, 5.0)},
        {"churn": 8.0, "churn_range": (1.0, 100.0), "churn_noise": 0.9},
    ],
    ids=str,
)
def test_churn_is_algorithm_2_of_edm(options, mixture, generator):
    schedule = EDMSchedule()
    path = make_path(schedule, 12, "karras")
    x = path[0].sigma * torch.randn(7, 2, generator=generator, dtype=torch.float64)
    noises = [torch.randn(7, 2, generator=generator, dtype=torch.float64) for _ in range(12)]
    *_, (_, rows, _) = Heun(**options)(Given(mixture(schedule), noises), x, path)
    low, high = options.get("churn_range", (0.0, math.inf))
    sigmas = [node.sigma for node in path]
    expected = algorithm_2(
        mixture(schedule), x, sigmas, noises, options["churn"], low, high, options.get("churn_noise", 1.0)
    )
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-9)


def test_churn_range_is_in_noise_to_signal_on_a_schedule_that_preserves_variance():
    schedule = VPSchedule()
    then, x = 0.2, torch.full((1, 1), 0.4, dtype=torch.float64)
    for now in (0.3, 0.5):
        alpha, sigma = alpha_sigma(schedule, now)
        level = sigma / alpha
        assert abs(level - sigma) > 0.1 * level
        for bounds, drawn in (((0.99 * level, 1.01 * level), 1), ((1.01 * level, 9.0), 0), ((0.0, 0.99 * level), 0)):
            model = Given(oracle(schedule), [torch.zeros_like(x)])
            list(Heun(churn=5.0, churn_range=bounds)(model, x, [node_at(schedule, now), node_at(schedule, then)]))
            assert 1 - len(model.noises) == drawn, (now, bounds)


def highest(schedule, **options):
    seen = Sees(oracle(schedule))
    noise = torch.zeros(2, 1, dtype=torch.float64)
    assert sample(seen, noise, method=Heun(**options), steps=10, grid="uniform").isfinite().all()
    return max(seen.times)


def test_the_first_step_is_churned_where_the_schedule_has_room_above_its_end():
    growth = 1 + 2.0 / 10
    assert highest(EDMSchedule(), churn=2.0) == pytest.approx(80 * growth)
    for schedule in (VPSchedule(), CosineSchedule()):
        ratio = -0.5 * (schedule.log_snr(highest(schedule, churn=2.0)) - schedule.log_snr(schedule.t_max))
        assert ratio.exp().item() == pytest.approx(growth)
    for schedule in (DiscreteCosineSchedule(100), ZeroTerminalSNRSchedule(VPSchedule())):
        assert highest(schedule, churn=2.0) == schedule.t_max


@pytest.mark.parametrize("method", [m for m in METHODS if m != "rk45"])
def test_rows_do_not_depend_on_those_beside_them(method, mixture, generator):
    denoiser = mixture(CosineSchedule())
    noise = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    keys = torch.arange(20)
    whole = sample(denoiser, noise, method=method, steps=6, generator=RowStreams(keys))
    some = torch.tensor([3, 17, 4])
    part = sample(denoiser, noise[some], method=method, steps=6, generator=RowStreams(keys[some]))
    torch.testing.assert_close(part, whole[some], rtol=1e-9, atol=1e-9)


def test_streams_beside_a_generator_leave_it_alone_and_follow_its_state():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    first = RowStreams.beside(generator, 2000).normal(3)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(RowStreams.beside(generator, 2000).normal(3), first)
    torch.rand(1, generator=generator)
    other = RowStreams.beside(generator, 2000).normal(3)
    assert torch.corrcoef(torch.cat([first, other], dim=1).T).fill_diagonal_(0).abs().max() < 0.09
    assert first.mean().abs() < 0.05 and first.std().item() == pytest.approx(1, abs=0.05)
