import itertools
import math

import pytest
import torch
from exhaustive import exhaustive

from tabdiff.diffusion import (
    DDIM,
    DDPM,
    GRIDS,
    METHODS,
    RK45,
    CosineSchedule,
    Denoiser,
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    DPMpp2M,
    DPMpp3M,
    EDMSchedule,
    GaussianDenoiser,
    Heun,
    Model,
    PredictorCorrector,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    UniPC,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_path,
    make_sampler,
    sample,
    time_grid,
)

SCHEDULES = [
    CosineSchedule(),
    SigmoidSchedule(),
    VPSchedule(),
    SubVPSchedule(),
    VESchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    DiscreteCosineSchedule(1000),
    DiscreteLinearSchedule(1000),
    ShiftedSchedule(CosineSchedule(), 2.0),
    ZeroTerminalSNRSchedule(VPSchedule()),
]
MEAN, STD = 0.7, 0.5


def name(value):
    return getattr(value, "name", None) or str(value)


def scale(schedule, t):
    return (schedule.alpha(t) ** 2 * STD**2 + schedule.sigma(t) ** 2).sqrt()


def exact_path(schedule, x, start, end):
    """Where the probability flow of N(MEAN, STD**2) takes x from one time to another."""
    ratio = scale(schedule, end) / scale(schedule, start)
    return schedule.alpha(end) * MEAN + ratio * (x - schedule.alpha(start) * MEAN)


def path_error(method, schedule, steps, grid="log_snr"):
    noise = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle = GaussianDenoiser(MEAN, STD, schedule)
    end = sample(oracle, noise, method=method, steps=steps, grid=grid, denoise_last=False)
    start = schedule.sigma(schedule.t_max) * noise
    return (end - exact_path(schedule, start, schedule.t_max, schedule.t_min)).square().mean().sqrt().item()


# What was measured at 40, 80 and 160 steps on the VP-SDE from t = 1 to 1e-3, uniform in the log-SNR, and the orders.
REFERENCE = {
    "euler": ((1.1e-2, 5.2e-3, 2.5e-3), 1, 0.1),
    "ddim": ((2.9e-2, 1.5e-2, 7.4e-3), 1, 0.05),
    "heun": ((1.1e-3, 2.8e-4, 7.1e-5), 2, 0.05),
    "dpmpp_2m": ((1.8e-3, 4.5e-4, 1.1e-4), 2, 0.05),
    "rk4": ((1.3e-6, 8.1e-8, 5.1e-9), 4, 0.1),
}


@pytest.mark.parametrize("method", REFERENCE)
def test_deterministic_samplers_have_the_reference_errors_and_orders(method):
    expected, order, tolerance = REFERENCE[method]
    errors = [path_error(method, VPSchedule(t_min=1e-3), steps) for steps in (40, 80, 160)]
    assert errors == pytest.approx(expected, rel=0.07)  # they are given to two digits
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=tolerance)


@pytest.mark.parametrize(
    ("method", "order"),
    [("dpmpp_3m", 2), (DPMpp3M(curvature=1.0), 3), (UniPC(1), 2), (UniPC(2), 3), (UniPC(3), 3.9)],
    ids=["dpmpp_3m", "dpmpp_3m-full", "unipc-1", "unipc-2", "unipc-3"],
)
@pytest.mark.parametrize("schedule", [VPSchedule(t_min=1e-3), EDMSchedule(), CosineSchedule()], ids=name)
def test_multistep_solvers_reach_at_least_their_order(method, order, schedule):
    errors = [path_error(method, schedule, steps) for steps in (160, 320)]
    assert math.log2(errors[0] / errors[1]) > order - 0.05


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("rk4", 4)])
@pytest.mark.parametrize("schedule", exhaustive(SCHEDULES[:7], quick=2), ids=name)
def test_orders_hold_on_every_continuous_schedule(method, order, schedule):
    errors = [path_error(method, schedule, steps) for steps in (160, 320)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("dpmpp_2m", 2), ("ddim", 1)])
@pytest.mark.parametrize("grid", ["uniform", "quadratic", "karras"])
def test_orders_hold_on_other_grids(method, order, grid):
    schedule = RectifiedFlowSchedule(t_min=0.05, t_max=0.95)
    errors = [path_error(method, schedule, steps, grid) for steps in (160, 320)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


# The oracle's last step reaches past the end, so the end must not be next to 0.
@pytest.mark.slow
@pytest.mark.parametrize("schedule", [VPSchedule(t_min=0.01), CosineSchedule(), EDMSchedule()], ids=name)
def test_samplers_agree_with_an_independent_ode_solver(schedule, mixture, generator):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    oracle = mixture(schedule)
    noise = torch.randn(50, 2, generator=generator, dtype=torch.float64)

    def velocity(t, x):
        x0 = oracle(x, t)
        eps = (x - schedule.alpha(t) * x0) / schedule.sigma(t)
        return schedule.dalpha(t) * x0 + schedule.dsigma(t) * eps

    ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    start = schedule.sigma(schedule.t_max) * noise
    expected = torchdiffeq.odeint(velocity, start, ends, rtol=1e-9, atol=1e-9, options={"first_step": 1e-4})[-1]
    for method, steps, tolerance in (
        ("rk4", 400, 1e-5),
        (RK45(1e-7, 1e-7), 1, 1e-4),
        ("unipc", 400, 1e-3),
        ("dpmpp_3m", 400, 1e-3),
        ("heun", 400, 2e-3),
        ("dpmpp_2m", 400, 2e-3),
    ):
        got = sample(oracle, noise, method=method, steps=steps, grid="log_snr", denoise_last=False)
        assert (got - expected).abs().max() < tolerance, method


def test_adaptive_error_follows_the_tolerance():
    errors = [path_error(RK45(tolerance, tolerance), VPSchedule(t_min=1e-3), 1) for tolerance in (1e-3, 1e-5, 1e-7)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-6


@pytest.mark.parametrize("schedule", [CosineSchedule(), ZeroTerminalSNRSchedule(VPSchedule())], ids=name)
@pytest.mark.parametrize("denoise_last", [True, False])
def test_adaptive_solver_keeps_its_tolerance_whatever_the_steps(mixture, generator, schedule, denoise_last):
    noise = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    ends = [
        sample(mixture(schedule), noise, method=RK45(1e-6, 1e-6), steps=steps, denoise_last=denoise_last)
        for steps in (1, 2, 25)
    ]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    exact = sample(mixture(schedule), noise, method=RK45(1e-9, 1e-9), denoise_last=denoise_last)
    assert (ends[0] - exact).abs().max() < 1e-3


def test_adaptive_solver_gives_up_with_advice():
    with pytest.raises(RuntimeError, match=r"more than 3 steps.*raise the tolerances"):
        path_error(RK45(1e-9, 1e-9, max_steps=3), VPSchedule(), 1)


class Impulses(Model):
    """Draws, as its i-th noise, a one in row i + 2 alone: the linear map from all noises to the end, in one run."""

    drawn = 0

    def noise(self, like):
        unit = torch.zeros_like(like)
        unit[2 + self.drawn] = 1
        self.drawn += 1
        return unit


def exact_moments(method, schedule, steps, mean=MEAN, std=STD, grid="log_snr"):
    """Push the exact mean and variance of the noisy end through a sampler; errors of both at the clean end."""
    path = make_path(schedule, steps, grid, denoise_last=False)
    x = torch.zeros(2 + 4 * steps, 1, dtype=torch.float64)
    x[1] = 1
    *_, (_, x, _) = make_sampler(method)(Impulses(GaussianDenoiser(mean, std, schedule)), x, path)
    offset, slopes = x[0, 0], x[1:, 0] - x[0, 0]
    first, last = path[0], path[-1]
    end_mean = offset + slopes[0] * first.alpha * mean
    end_variance = slopes[0] ** 2 * (first.alpha**2 * std**2 + first.sigma**2) + slopes[1:].square().sum()
    wanted = last.alpha**2 * std**2 + last.sigma**2
    return (end_mean - last.alpha * mean).item(), (end_variance - wanted).item()


STOCHASTIC = [
    ("ddpm", 1),
    (DDIM(0.5), 1),
    ("euler_maruyama", 1),
    ("dpmpp_2m_sde", 2),
    ("dpmpp_3m_sde", 2),
    (DPMpp3M(stochastic=True, curvature=1.0), 2),
    (Heun(churn=10), 2),
]


@pytest.mark.parametrize(("method", "order"), STOCHASTIC, ids=lambda v: str(v))
@pytest.mark.parametrize(
    "schedule", [VPSchedule(t_min=1e-3), CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()], ids=name
)
def test_errors_of_exact_moments_fall_with_the_weak_order(method, order, schedule):
    errors = [exact_moments(method, schedule, steps) for steps in (80, 160, 320)]
    for coarse, fine in itertools.pairwise(errors):
        # A third-order drift falls faster; none may fall more slowly than its order says.
        assert abs(coarse[1] / fine[1]) > 2**order * 0.9
        if order == 1:
            assert coarse[1] / fine[1] == pytest.approx(2, rel=0.12)
    assert abs(errors[-1][0]) < 0.01


@pytest.mark.parametrize("schedule", [VPSchedule(t_min=1e-3), EDMSchedule()], ids=name)
def test_corrections_bring_the_ancestral_variance_nearer(schedule):
    plain, corrected = (abs(exact_moments(m, schedule, 80)[1]) for m in ("ddpm", PredictorCorrector()))
    twice = abs(exact_moments(PredictorCorrector(corrections=2), schedule, 80)[1])
    assert twice < corrected < plain


def test_large_variance_is_exact_for_standard_normal_data_and_much_too_wide_for_tight_data():
    schedule = VPSchedule(t_min=1e-3)
    assert exact_moments(DDPM("large"), schedule, 50, mean=0.0, std=1.0)[1] == pytest.approx(0, abs=1e-12)
    schedule = VPSchedule()
    wanted = schedule.alpha(schedule.t_min).item() ** 2 * 0.005**2 + schedule.sigma(schedule.t_min).item() ** 2
    large, small = (
        math.sqrt(1 + exact_moments(DDPM(v), schedule, 50, std=0.005, grid="uniform")[1] / wanted)
        for v in ("large", "small")
    )
    assert large > 10
    assert 1 / large < small < 1


def test_interpolated_variance_lies_between():
    schedule = VPSchedule(t_min=1e-3)
    errors = [exact_moments(DDPM(v), schedule, 50)[1] for v in ("small", 0.0, 0.3, 0.7, 1.0, "large")]
    assert errors[0] == errors[1]
    assert errors[-1] == errors[-2]
    assert errors[1] < errors[2] < errors[3] < errors[4]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_ddim_with_eta_1_is_ddpm_with_the_small_variance(schedule, mixture):
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [
        sample(mixture(schedule), noise, method=m, steps=12, generator=torch.Generator().manual_seed(2))
        for m in (DDIM(eta=1.0), DDPM("small"))
    ]
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


def makes_no_sense(schedule, method):
    return schedule.name == "zero_terminal_snr" and method == "euler_maruyama"


# Sampling error of 2,000 draws is about 0.025; the rest is what the steps leave.
TOLERANCE = 0.06


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", exhaustive(SCHEDULES, quick=2), ids=name)
def test_every_method_reproduces_a_mixture_on_every_schedule(schedule, method, mixture, sliced_wasserstein):
    oracle = mixture(schedule)
    generator = torch.Generator().manual_seed(5)
    real, _ = oracle.sample(2000, generator)
    noise = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    steps = {"rk4": 40, "euler": 200}.get(method, 100)
    if makes_no_sense(schedule, method):
        with pytest.raises(ValueError, match=r"makes no sense.*alpha = 0"):
            sample(oracle, noise, method=method, steps=steps)
        return
    rows = sample(oracle, noise, method=method, steps=steps, generator=generator)
    assert sliced_wasserstein(rows, real) < TOLERANCE
    share = torch.bincount(oracle.posterior(rows).argmax(1), minlength=3) / 2000
    error = (oracle.weights * (1 - oracle.weights) / 2000).sqrt()
    assert ((share - oracle.weights).abs() < 4 * error + 0.01).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_any_number_of_steps_from_1(method, steps, mixture, generator):
    oracle = mixture(CosineSchedule())
    noise = torch.randn(8, 2, generator=generator)
    for denoise_last in (True, False):
        rows = sample(oracle, noise, method=method, steps=steps, denoise_last=denoise_last, generator=generator)
        assert rows.isfinite().all()
        assert rows.dtype == torch.float32


@pytest.mark.parametrize("method", ["ddim", "ddpm", "euler", "dpmpp_2m", "dpmpp_3m", "unipc", "euler_maruyama"])
@pytest.mark.parametrize("steps", [1, 7])
def test_one_evaluation_a_step(method, steps):
    calls = []

    def network(x, t, c):
        calls.append(t)
        return x

    sample(Denoiser(network, CosineSchedule()), torch.zeros(2, 1), method=method, steps=steps)
    assert len(calls) == steps


@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m", "unipc", "heun"])
def test_the_last_step_returns_the_estimate_made_at_t_min(method, mixture, generator):
    schedule = CosineSchedule()
    oracle = mixture(schedule)
    noise = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    before = sample(oracle, noise, method=method, steps=9, grid="log_snr", denoise_last=False)
    whole = sample(oracle, noise, method=method, steps=10, grid="log_snr")
    expected = oracle(before, torch.tensor(schedule.t_min, dtype=torch.float64))
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_rows_and_another_does_not(mixture, generator):
    oracle = mixture(CosineSchedule())
    noise = torch.randn(10, 2, generator=generator)
    a, b, c = (
        sample(oracle, noise, method="ddpm", steps=5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_callback_sees_every_step(mixture, generator):
    states = []
    noise = torch.randn(4, 2, generator=generator)
    rows = sample(mixture(CosineSchedule()), noise, steps=6, callback=states.append)
    assert [s.step for s in states] == [1, 2, 3, 4, 5, 6]
    assert {s.n_steps for s in states} == {6}
    assert torch.equal(states[-1].x, rows)
    assert all(a.t >= b.t for a, b in itertools.pairwise(states))


def test_condition_chooses_the_component(mixture, generator):
    oracle = mixture(CosineSchedule())
    noise = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    rows = sample(oracle, noise, torch.full((300, 1), 1.0), steps=40)
    assert (rows.mean(0) - oracle.means[1]).abs().max() < 0.06


def test_two_m_does_not_overshoot_where_steps_grow(mixture, sliced_wasserstein, generator):
    oracle = mixture(CosineSchedule())
    real, _ = oracle.sample(2000, generator)
    noise = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    distance = {
        m: sliced_wasserstein(sample(oracle, noise, method=m, steps=8, grid="uniform"), real)
        for m in (DPMpp2M(), "ddim")
    }
    assert distance[DPMpp2M()] < distance["ddim"]


# Step grids


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=name)
@pytest.mark.parametrize("n", [1, 2, 17, 50])
def test_grids_fall_from_t_max_to_t_min(grid, schedule, n):
    t = time_grid(schedule, n, grid)
    assert t.shape == (n,)
    assert (t.diff() < 0).all()
    assert t[0] == schedule.t_max
    if n > 1 and grid != "trailing":
        assert t[-1] == schedule.t_min
    if schedule.n_timesteps is not None:
        k = t * schedule.n_timesteps
        torch.testing.assert_close(k, k.round(), rtol=0, atol=1e-9)


def test_grids_are_uniform_in_what_they_say():
    def even(values):
        gaps = values.diff()
        torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-6, atol=1e-9)

    cosine, edm = CosineSchedule(), EDMSchedule()
    even(time_grid(cosine, 12, "uniform"))
    even(cosine.log_snr(time_grid(cosine, 12, "log_snr")))
    even(time_grid(edm, 12, "karras") ** (1 / 7))
    even(time_grid(cosine, 12, "quadratic").sqrt())
    assert time_grid(DiscreteLinearSchedule(1000), 4, "trailing").tolist() == pytest.approx(
        [1.0, 0.75, 0.5, 0.25], abs=1e-3
    )


def test_a_discrete_schedule_can_be_walked_whole():
    schedule = DiscreteCosineSchedule(30)
    for grid in GRIDS:
        torch.testing.assert_close(time_grid(schedule, 30, grid), torch.arange(30, 0, -1, dtype=torch.float64) / 30)


def test_times_can_be_given_as_they_are(mixture, generator):
    noise = torch.randn(4, 2, generator=generator)
    seen = []
    sample(mixture(CosineSchedule()), noise, grid=[0.999, 0.5, 0.1], callback=lambda s: seen.append(s.t))
    assert seen == pytest.approx([0.5, 0.1, 0.1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dpm"}, "unknown sampling method 'dpm'; known ones are ddim, ddpm"),
        ({"method": 3}, "method must be one of ddpm, ddim.*got 3"),
        ({"method": DDIM}, "method must be one of ddpm, ddim.*got <class"),
        ({"grid": "even"}, "unknown grid 'even'; known ones are uniform, log_snr"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"grid": [0.1, 0.5]}, "must decrease within"),
        ({"grid": [2.0, 0.5]}, "must decrease within"),
    ],
)
def test_sample_says_what_is_wrong(options, message, mixture):
    with pytest.raises(ValueError, match=message):
        sample(mixture(CosineSchedule()), torch.zeros(1, 2), **options)


def test_more_steps_than_times_is_an_error(mixture):
    with pytest.raises(ValueError, match="has 10 times, but 11 were asked for"):
        sample(mixture(DiscreteCosineSchedule(10)), torch.zeros(1, 2), steps=11)


@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_grids_in_the_log_snr_need_signal_everywhere(grid, mixture):
    with pytest.raises(ValueError, match="makes no sense where the schedule leaves no signal"):
        sample(mixture(ZeroTerminalSNRSchedule(VPSchedule())), torch.zeros(1, 2), grid=grid)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDIM(eta=1.5),
        lambda: DDPM(variance="huge"),
        lambda: DDPM(variance=-0.1),
        lambda: UniPC(order=4),
        lambda: PredictorCorrector(corrections=0),
        lambda: DPMpp3M(curvature=1.5),
    ],
)
def test_options_are_checked(make):
    with pytest.raises(ValueError, match="must"):
        make()
