import math

import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
    DiscreteCosineSchedule,
    EDMSchedule,
    GaussianDenoiser,
    RectifiedFlowSchedule,
    SubVPSchedule,
    VPSchedule,
    bits_per_dim,
    dequantise,
    encode,
    flow_log_likelihood,
    interpolate,
    sample,
    slerp,
    time_grid,
    variational_bound,
)

SCHEDULES = [CosineSchedule(), VPSchedule(), RectifiedFlowSchedule(), EDMSchedule(t_max=400.0), SubVPSchedule()]


def name(value):
    return value.name


def correlated(schedule):
    cov = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.5]], dtype=torch.float64)
    return GaussianDenoiser(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), cov, schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_flow_log_likelihood_of_a_correlated_gaussian(schedule, generator):
    oracle = correlated(schedule)
    rows, _ = oracle.sample(100, generator)
    got = flow_log_likelihood(oracle, rows, steps=60)
    error = got - oracle.log_prob(rows)
    assert error.abs().mean() < 5e-3
    assert error.abs().max() < 2e-2


@pytest.mark.parametrize("schedule", SCHEDULES[:3], ids=name)
def test_flow_log_likelihood_of_a_mixture(schedule, mixture, generator):
    oracle = mixture(schedule)
    rows, _ = oracle.sample(100, generator)
    error = flow_log_likelihood(oracle, rows, steps=100) - oracle.log_prob(rows)
    assert error.abs().mean() < 5e-3


def test_flow_log_likelihood_takes_a_condition(mixture, generator):
    oracle = mixture(CosineSchedule())
    rows, component = oracle.sample(50, generator)
    condition = component[:, None].double()
    error = flow_log_likelihood(oracle, rows, condition, steps=100) - oracle.log_prob(rows, condition=condition)
    assert error.abs().mean() < 5e-3


def test_hutchinson_has_no_bias(generator):
    oracle = correlated(CosineSchedule())
    rows, _ = oracle.sample(1, generator)
    repeated = rows.expand(4000, 3)
    exact = flow_log_likelihood(oracle, rows, steps=20, divergence="exact")
    probed = flow_log_likelihood(oracle, repeated, steps=20, divergence="hutchinson", generator=generator)
    standard_error = probed.std().item() / 4000**0.5
    assert probed.std() > 0.1
    assert probed.mean().item() == pytest.approx(exact.item(), abs=4 * standard_error)
    several = flow_log_likelihood(
        oracle, repeated[:1000], steps=20, divergence="hutchinson", n_probes=4, generator=generator
    )
    assert several.std().item() == pytest.approx(probed.std().item() / 2, rel=0.15)


def test_hutchinson_is_exact_for_independent_entries(generator):
    oracle = GaussianDenoiser(0.3, 0.6, CosineSchedule())
    rows = 0.3 + 0.6 * torch.randn(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    exact, probed = (
        flow_log_likelihood(oracle, rows, steps=20, divergence=d, generator=generator) for d in ("exact", "hutchinson")
    )
    torch.testing.assert_close(exact, probed)


def test_unknown_divergence_is_an_error(mixture):
    with pytest.raises(ValueError, match="unknown divergence 'trace'"):
        flow_log_likelihood(mixture(CosineSchedule()), torch.zeros(1, 2), divergence="trace")


def expected_bound(oracle, steps):
    """The bound's mean over the data, in closed form: the least squared error of a Gaussian is known."""
    schedule = oracle.schedule
    variances = oracle._variances[0]
    t = time_grid(schedule, steps + 1, "log_snr")
    snr = schedule.log_snr(t).exp()
    if schedule.n_timesteps is None:
        middle = (snr[1:] * snr[:-1]).sqrt()
        weights = 0.5 * middle * schedule.log_snr(t).diff()
    else:
        middle, weights = snr[:-1], 0.5 * snr.diff()
    diffusion = (weights[:, None] * variances / (1 + middle[:, None] * variances)).sum()
    reconstruction = -0.5 * len(variances) * (math.log(2 * math.pi) + 1 - schedule.log_snr(t[-1]))
    alpha2, sigma2 = schedule.alpha(t[0]) ** 2, schedule.sigma(t[0]) ** 2
    prior = alpha2 + sigma2
    second_moment = variances.sum() + oracle.means.square().sum()
    divergence = 0.5 * (len(variances) * (sigma2 / prior - 1 - (sigma2 / prior).log()) + alpha2 / prior * second_moment)
    return (reconstruction - divergence - diffusion).item()


@pytest.mark.parametrize("schedule", [*SCHEDULES[:3], DiscreteCosineSchedule(1000)], ids=name)
def test_variational_bound_is_what_the_closed_form_says(schedule, generator):
    oracle = correlated(schedule)
    rows, _ = oracle.sample(300, generator)
    draws = [variational_bound(oracle, rows, steps=60, n_draws=8, generator=generator).mean().item() for _ in range(8)]
    mean, error = sum(draws) / 8, torch.tensor(draws).std().item() / 8**0.5
    assert error < 0.15
    assert mean == pytest.approx(expected_bound(oracle, 60), abs=3 * error + 0.1)


@pytest.mark.parametrize("schedule", SCHEDULES[:3], ids=name)
def test_variational_bound_becomes_the_entropy(schedule):
    oracle = correlated(schedule)
    entropy = 0.5 * (3 * (1 + math.log(2 * math.pi)) + oracle._variances.log().sum().item())
    # Its midpoint rule errs on either side, but not by more than this.
    assert expected_bound(oracle, 200) == pytest.approx(-entropy, abs=2e-3)


def test_longer_chains_bound_more_tightly():
    oracle = correlated(DiscreteCosineSchedule(1000))
    entropy = 0.5 * (3 * (1 + math.log(2 * math.pi)) + oracle._variances.log().sum().item())
    bounds = [expected_bound(oracle, steps) for steps in (10, 30, 100, 999)]
    assert bounds == sorted(bounds)
    assert bounds[-1] < -entropy


def test_variational_bound_of_a_row_depends_on_nothing_else(mixture, generator):
    oracle = mixture(CosineSchedule())
    rows, _ = oracle.sample(10, generator)

    def bound(x):
        return variational_bound(oracle, x, steps=30, generator=torch.Generator().manual_seed(4))

    whole = bound(rows)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(bound(rows.flip(0)), whole.flip(0))
    torch.testing.assert_close(bound(rows[3:5]), whole[3:5])


def test_bits_per_dim_of_quantised_data(generator):
    values = torch.randint(0, 4, (20_000, 2), generator=generator).double()
    rows = dequantise(values, generator=generator)
    assert ((rows >= values) & (rows < values + 1)).all()
    log_density = torch.full((5,), -2 * math.log(4), dtype=torch.float64)
    assert bits_per_dim(log_density, 2).tolist() == pytest.approx([2] * 5)
    # The same data scaled by 1/4 have a density 16 times higher and bins of a quarter.
    assert bits_per_dim(log_density + 2 * math.log(4), 2, bin_width=0.25).tolist() == pytest.approx([2] * 5)


def test_dequantised_density_bounds_the_probability(generator):
    # A density that is not flat within a bin loses by it: here p(x) = 2 x on [0, 1), one bin of probability 1.
    u = dequantise(torch.zeros(50_000, dtype=torch.float64), generator=generator)
    assert (2 * u).log().mean().item() == pytest.approx(math.log(2) - 1, abs=0.02)


# Inversion


@pytest.mark.parametrize(
    ("method", "steps", "tolerance"), [("ddim", 400, 0.05), ("heun", 100, 1e-2), ("rk4", 100, 1e-3)]
)
def test_encoding_and_decoding_return_the_row(mixture, generator, method, steps, tolerance):
    oracle = mixture(CosineSchedule())
    rows, _ = oracle.sample(100, generator)
    noise = encode(oracle, rows, method=method, steps=steps)
    back = sample(oracle, noise, method=method, steps=steps)
    assert (back - rows).abs().mean() < tolerance


def test_encoded_rows_are_standard_normal(mixture, generator):
    rows, _ = mixture(VPSchedule()).sample(2000, generator)
    noise = encode(mixture(VPSchedule()), rows, method="heun", steps=60)
    assert noise.mean(0).abs().max() < 4 / 2000**0.5
    assert (noise.T.cov() - torch.eye(2)).abs().max() < 0.12


def test_encode_refuses_methods_with_noise(mixture):
    with pytest.raises(ValueError, match="method 'ddpm' cannot run from data to noise; those that can: ddim"):
        encode(mixture(CosineSchedule()), torch.zeros(1, 2), method="ddpm")


def test_slerp_keeps_the_length_of_noise(generator):
    a, b = torch.randn(2, 4, 1000, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    middle = slerp(a, b, 0.5).norm(dim=1)
    assert (middle / 1000**0.5 - 1).abs().max() < 0.1
    assert (((a + b) / 2).norm(dim=1) / 1000**0.5 < 0.8).all()


def test_interpolation_starts_and_ends_at_its_rows(mixture, generator):
    oracle = mixture(CosineSchedule())
    a, b = oracle.sample(10, generator)[0].chunk(2)
    path = interpolate(oracle, a, b, [0.0, 0.5, 1.0], method="rk4", steps=60)
    assert path.shape == (3, 5, 2)
    torch.testing.assert_close(path[0], a, rtol=0, atol=0.01)
    torch.testing.assert_close(path[2], b, rtol=0, atol=0.01)
