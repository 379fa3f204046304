import math

import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
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


def test_flow_log_likelihood_counts_both_ends_of_the_schedule():
    # Neither is alpha 1 at this clean end, nor 0 at this noisy one; the flow of a Gaussian is linear.
    schedule = VPSchedule(t_min=0.05, t_max=0.6)
    oracle = GaussianDenoiser(0.4, 0.7, schedule)
    x = torch.tensor([[0.9, -0.3, 2.0]], dtype=torch.float64)
    (alpha, sigma), (last_alpha, last_sigma) = (
        (schedule.alpha(t).item(), schedule.sigma(t).item()) for t in (0.05, 0.6)
    )
    widen = math.sqrt((last_alpha**2 * 0.49 + last_sigma**2) / (alpha**2 * 0.49 + sigma**2))
    end = last_alpha * 0.4 + widen * alpha * (x - 0.4)
    prior = last_alpha**2 + last_sigma**2
    expected = -0.5 * (end**2 / prior + math.log(2 * math.pi * prior)).sum(1) + 3 * math.log(widen * alpha)
    torch.testing.assert_close(flow_log_likelihood(oracle, x, steps=100), expected, atol=1e-5, rtol=0)


def test_bits_per_dim_of_quantised_data(generator):
    values = torch.randint(0, 4, (20_000, 2), generator=generator).double()
    rows = dequantise(values, generator=generator)
    assert ((rows >= values) & (rows < values + 1)).all()
    log_density = torch.full((5,), -2 * math.log(4), dtype=torch.float64)
    assert bits_per_dim(log_density, 2).tolist() == pytest.approx([2] * 5)
    quarters = dequantise(values / 4, bin_width=0.25, generator=generator)
    within = (quarters - values / 4) / 0.25
    assert within.min() >= 0 and within.max() < 1 and within.mean().item() == pytest.approx(0.5, abs=0.01)
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
