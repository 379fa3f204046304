import itertools

import pytest
import torch
from torch import nn

from tabdiff.diffusion import (
    LOSSES,
    TARGETS,
    CosineSchedule,
    Denoiser,
    DiscreteLinearSchedule,
    EDMSchedule,
    GaussianDenoiser,
    Loss,
    MixtureDenoiser,
    RectifiedFlowSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    coefficients,
    elbo_weight,
    make_loss,
    target_of,
    to_eps,
    to_x0,
    uniform,
    x0_factor,
)

SCHEDULES = [
    CosineSchedule(),
    SigmoidSchedule(),
    VPSchedule(),
    SubVPSchedule(),
    VESchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    DiscreteLinearSchedule(1000),
    ZeroTerminalSNRSchedule(CosineSchedule()),
]


def senseless(schedule, target):
    return (target == "v" and schedule.name in ("ve", "edm")) or (
        target in ("eps", "score") and schedule.name == "zero_terminal_snr"
    )


PAIRS = list(itertools.product(SCHEDULES, TARGETS))
SENSIBLE = [pair for pair in PAIRS if not senseless(*pair)]


def pair_id(value):
    return value if isinstance(value, str) else value.name


class Knows(nn.Module):
    """A network that knows the clean rows and answers in terms of the target."""

    def __init__(self, x0, schedule, target, t, sigma_data):
        super().__init__()
        self.x0, self.schedule, self.target, self.t, self.sigma_data = x0, schedule, target, t, sigma_data

    def forward(self, x, t, c):
        assert t.shape == (len(x),)
        alpha, sigma = coefficients(self.schedule, self.t, x)
        x_t = x * (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
        eps = to_eps(self.x0, x_t, alpha, sigma)
        answer = target_of(self.x0, eps, alpha, sigma, self.target, sigma_data=self.sigma_data)
        return answer * sigma if self.target == "score" else answer


@pytest.mark.parametrize(("schedule", "target"), SENSIBLE, ids=pair_id)
@pytest.mark.parametrize("shape", [(64, 3), (64, 2, 4, 4)])
def test_a_network_that_knows_the_row_returns_it_and_has_no_loss(schedule, target, shape, generator):
    x0 = 0.7 * torch.randn(shape, generator=generator, dtype=torch.float64)
    eps = torch.randn(shape, generator=generator, dtype=torch.float64)
    t = uniform(64, schedule, generator, dtype=torch.float64)
    denoiser = Denoiser(Knows(x0, schedule, target, t, 0.7), schedule, target, sigma_data=0.7)
    alpha, sigma = coefficients(schedule, t, x0)
    torch.testing.assert_close(denoiser(alpha * x0 + sigma * eps, t), x0, rtol=1e-6, atol=1e-6)
    loss = denoiser.loss(x0, t=t, eps=eps)
    assert loss.shape == (64,)
    assert loss.max() < 1e-12


@pytest.mark.parametrize(("schedule", "target"), [pair for pair in PAIRS if senseless(*pair)], ids=pair_id)
def test_senseless_pairs_of_schedule_and_target_say_why(schedule, target):
    with pytest.raises(ValueError, match=r"makes no sense.*use target"):
        Denoiser(nn.Identity(), schedule, target)


def test_one_time_for_all_rows_equals_a_time_each(mixture, generator):
    oracle = mixture(CosineSchedule())
    denoiser = Denoiser(lambda x, t, c: x * t[:, None], CosineSchedule())
    x = torch.randn(5, 2, generator=generator)
    for model in (oracle, denoiser):
        each = model(x, torch.full((5,), 0.3, dtype=torch.float64))
        torch.testing.assert_close(model(x, torch.tensor(0.3, dtype=torch.float64)), each)
        assert each.dtype == torch.float32


@pytest.mark.parametrize("schedule", SCHEDULES, ids=pair_id)
def test_the_network_sees_rows_of_unit_variance_and_times_in_the_unit_interval(schedule, generator):
    seen = []

    def network(x, t, c):
        seen.append((x, t))
        return x

    x0 = 3 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    eps = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    t = torch.full((4000,), (schedule.t_min + schedule.t_max) / 2, dtype=torch.float64)
    Denoiser(network, schedule, "x0", sigma_data=3.0).loss(x0, t=t, eps=eps)
    x, seen_t = seen[0]
    assert x.std().item() == pytest.approx(1, abs=0.05)
    assert 0 <= seen_t.min() <= seen_t.max() <= 1


class CountsNull(nn.Module):
    def forward(self, condition, batch_size):
        if condition is None:
            return torch.full((batch_size, 1), -1.0)
        return condition.isnan().sum(1, keepdim=True).float()


def test_conditions_reach_the_network_embedded():
    denoiser = Denoiser(lambda x, t, c: c.expand_as(x), CosineSchedule(), "x0", CountsNull())
    x, t = torch.zeros(2, 3), torch.tensor(0.5)
    condition = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    assert denoiser(x, t, condition)[:, 0].tolist() == [1, 2]
    assert denoiser(x, t)[:, 0].tolist() == [-1, -1]


def test_a_condition_without_an_embedding_is_an_error():
    denoiser = Denoiser(lambda x, t, c: x, CosineSchedule())
    with pytest.raises(ValueError, match="no condition_embedding"):
        denoiser(torch.zeros(1, 1), torch.tensor(0.5), torch.zeros(1, 1))


# Losses


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=pair_id)
def test_error_of_a_target_per_error_of_the_row(schedule, generator):
    t = uniform(30, schedule, generator, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr = schedule.log_snr(t).exp()
    torch.testing.assert_close(x0_factor(alpha, sigma, "eps"), snr, rtol=1e-8, atol=0)
    if schedule.variance_preserving:
        torch.testing.assert_close(x0_factor(alpha, sigma, "v"), snr + 1, rtol=1e-8, atol=0)
    if schedule.name == "rectified_flow":
        torch.testing.assert_close(x0_factor(alpha, sigma, "flow"), t**-2, rtol=1e-8, atol=0)
    if schedule.name == "edm":
        weight = (t**2 + 0.25) / (0.5 * t) ** 2
        torch.testing.assert_close(x0_factor(alpha, sigma, "edm", 0.5), weight, rtol=1e-8, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_factors_are_what_a_change_of_the_row_does_to_the_target(target):
    alpha, sigma, x_t, x0 = (torch.tensor(v, dtype=torch.float64) for v in (0.6, 0.8, 0.3, 0.5))
    moved = x0 + 1e-3
    before, after = (
        target_of(row, to_eps(row, x_t, alpha, sigma), alpha, sigma, target, sigma_data=0.7) for row in (x0, moved)
    )
    change = (after - before) * (sigma if target == "score" else 1)
    expected = x0_factor(alpha, sigma, target, 0.7)
    assert (change / 1e-3).square().item() == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("loss", [w for w in LOSSES if w not in ("simple", "huber")])
@pytest.mark.parametrize("schedule", [VPSchedule(), EDMSchedule(), DiscreteLinearSchedule(100)], ids=pair_id)
def test_a_weighting_gives_one_loss_whatever_the_target(loss, schedule, generator):
    x0, eps = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    t = uniform(20, schedule, generator, dtype=torch.float64)
    oracle = GaussianDenoiser(0.5, 0.8, schedule)
    alpha, sigma = coefficients(schedule, t, x0)
    estimate = oracle(alpha * x0 + sigma * eps, t)
    expected = make_loss(loss).weight(schedule, t, "x0") * (estimate - x0).square().mean(1)
    for target in TARGETS:
        if senseless(schedule, target):
            continue
        denoiser = Denoiser(Knows(estimate, schedule, target, t, 1.0), schedule, target, loss=loss)
        torch.testing.assert_close(denoiser.loss(x0, t=t, eps=eps), expected, rtol=1e-7, atol=1e-12)


def test_weightings_are_those_of_the_papers():
    schedule = VPSchedule()
    t = torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64)
    snr = schedule.log_snr(t).exp()
    cases = {
        ("min_snr", "eps"): snr.clamp(max=5) / snr,
        ("min_snr", "v"): snr.clamp(max=5) / (snr + 1),
        ("snr", "eps"): torch.ones(3).double(),
        ("truncated_snr", "x0"): snr.clamp(min=1),
        ("inverse_snr", "eps"): 1 / snr,
        ("clipped_inverse_snr", "x0"): (1 / snr).clamp(max=5),
        ("edm", "v"): torch.ones(3).double(),
        ("simple", "eps"): torch.ones(3).double(),
    }
    for (loss, target), expected in cases.items():
        torch.testing.assert_close(make_loss(loss).relative_weight(schedule, t, target), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_inverse_snr_is_the_error_of_the_noise_over_the_snr(target):
    """1 / SNR(t) times the squared error of eps, whatever is predicted; at these times it is .116, 1.52 and 3461."""
    schedule = VPSchedule()
    t = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    loss = make_loss("inverse_snr")
    torch.testing.assert_close(
        loss.relative_weight(schedule, t, "eps"), torch.tensor([0.116, 1.52, 3461.0]).double(), rtol=5e-3, atol=0
    )
    generator = torch.Generator().manual_seed(0)
    x0, eps, output = torch.randn((3, 3, 4), generator=generator, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    x_t = alpha * x0 + sigma * eps
    error = output - target_of(x0, eps, alpha, sigma, target)
    eps_error = (x_t - alpha * to_x0(output, x_t, alpha, sigma, target)) / sigma - eps
    expected = eps_error.square().mean(1) / schedule.log_snr(t).exp()
    torch.testing.assert_close(loss(error, schedule, t, target), expected, rtol=1e-9, atol=0)
    # On the clean row it is a weight of 1, and gamma plays no part.
    torch.testing.assert_close(loss.weight(schedule, t, target), torch.ones(3).double())
    clipped = make_loss("clipped_inverse_snr")
    torch.testing.assert_close(
        clipped.relative_weight(schedule, t, "eps"), torch.tensor([0.013, 2.3, 17303.0]).double(), rtol=0.05, atol=0
    )


def test_elbo_weight_sums_to_the_whole_of_the_snr():
    discrete = DiscreteLinearSchedule(1000)
    k = torch.arange(1, 1001, dtype=torch.float64) / 1000
    snr = discrete.log_snr(k).exp()
    torch.testing.assert_close(elbo_weight(discrete, k)[1:] / 1000, 0.5 * (snr[:-1] - snr[1:]), rtol=1e-8, atol=0)
    assert elbo_weight(discrete, k)[0] == 0

    schedule = VPSchedule(t_min=0.1)
    t = torch.linspace(0.1, 1, 100_001, dtype=torch.float64)
    mean = torch.trapezoid(elbo_weight(schedule, t), t) / 0.9
    snr = schedule.log_snr(torch.tensor([0.1, 1.0], dtype=torch.float64)).exp()
    assert mean.item() == pytest.approx(0.5 * (snr[0] - snr[1]).item(), rel=1e-6)


def test_huber_is_squared_for_small_errors_and_linear_for_large_ones():
    loss, schedule, t = Loss("huber", huber_c=0.5), VPSchedule(), torch.tensor([0.5])
    small, large = torch.tensor([[1e-4]]).double(), torch.tensor([[1e4]]).double()
    assert loss(small, schedule, t, "v").item() == pytest.approx(1e-8, rel=1e-6)
    assert loss(large, schedule, t, "v").item() == pytest.approx(2 * 0.5 * 1e4, rel=1e-3)
    error = torch.tensor([[0.3]], dtype=torch.float64)
    expected = 2 * 0.25 * ((1 + (0.3 / 0.5) ** 2) ** 0.5 - 1)
    assert loss(error, schedule, t, "v").item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("mse",), "unknown loss 'mse'; known ones are simple"), (("min_snr", 0.0), "above 0")],
)
def test_losses_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loss(*arguments)


# Oracles


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=pair_id)
def test_mixture_oracle_is_the_gradient_of_its_density(schedule, mixture, generator):
    oracle = mixture(schedule)
    t = torch.tensor((schedule.t_min + schedule.t_max) / 3, dtype=torch.float64)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(oracle(x, t), (x + sigma**2 * score) / alpha, rtol=1e-8, atol=1e-8)


def test_gaussian_oracle_is_the_closed_form():
    schedule = CosineSchedule()
    cov = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    mean = torch.tensor([0.3, -1.0], dtype=torch.float64)
    x = torch.tensor([[0.2, 0.4], [2.0, -3.0]], dtype=torch.float64)
    alpha, sigma = (f(0.4).item() for f in (schedule.alpha, schedule.sigma))
    gain = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(2, dtype=torch.float64))
    expected = mean + (x - alpha * mean) @ gain.T
    got = GaussianDenoiser(mean, cov, schedule)(x, torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_mixture_density_matches_torch(mixture, generator):
    oracle = mixture(CosineSchedule())
    rows, component = oracle.sample(4000, generator)
    parts = torch.distributions.MultivariateNormal(
        oracle.means,
        torch.tensor([[[0.04, 0.02], [0.02, 0.05]], [[0.01, 0], [0, 0.09]], [[0.02, 0], [0, 0.02]]]).double(),
    )
    whole = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(oracle.weights), parts)
    torch.testing.assert_close(oracle.log_prob(rows), whole.log_prob(rows), rtol=1e-6, atol=1e-6)
    share = torch.bincount(component, minlength=3) / 4000
    assert (share - oracle.weights).abs().max() < 3 * (0.25 / 4000) ** 0.5


def test_a_condition_chooses_the_component_and_nan_leaves_it_open(mixture):
    oracle = mixture(CosineSchedule())
    x, t = torch.zeros(2, 2, dtype=torch.float64), torch.tensor(0.999, dtype=torch.float64)
    given = oracle(x, t, torch.tensor([[1.0], [torch.nan]]))
    torch.testing.assert_close(given[0], oracle.means[1], rtol=0, atol=0.01)
    torch.testing.assert_close(given[1], oracle(x, t)[1])


def test_mixture_shapes_are_checked():
    with pytest.raises(ValueError, match="must have shapes"):
        MixtureDenoiser(torch.ones(2), torch.zeros(3, 2), torch.ones(3, 2), CosineSchedule())
