import pytest
import torch

from tabdiff.diffusion import TARGETS, convert, edm_coefficients, target_of, to_x0

LEVELS = [(0.6, 0.8), (0.999, 0.0447), (0.05, 0.99875), (1.0, 7.0), (0.3, 0.7)]


@pytest.fixture
def rows(generator):
    return [torch.randn(50, 3, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
def test_every_round_trip_returns(rows, source, target, alpha, sigma):
    x0, eps = rows
    x_t = alpha * x0 + sigma * eps
    given = target_of(x0, eps, alpha, sigma, source, sigma_data=0.7)
    there = convert(given, x_t, alpha, sigma, source, target, sigma_data=0.7)
    scale = 1 + given.abs().max()
    torch.testing.assert_close(
        there, target_of(x0, eps, alpha, sigma, target, sigma_data=0.7), rtol=1e-10, atol=1e-10 * scale.item()
    )
    back = convert(there, x_t, alpha, sigma, target, source, sigma_data=0.7)
    torch.testing.assert_close(back, given, rtol=1e-10, atol=1e-10 * scale.item())


def test_targets_are_what_the_papers_define(rows):
    x0, eps = rows
    alpha, sigma = 0.6, 0.8
    assert torch.equal(target_of(x0, eps, alpha, sigma, "score"), -eps / sigma)
    torch.testing.assert_close(target_of(x0, eps, alpha, sigma, "v"), alpha * eps - sigma * x0)
    torch.testing.assert_close(target_of(x0, eps, alpha, sigma, "flow"), eps - x0)


def test_velocity_of_a_rectified_flow_gives_the_row_by_a_straight_line(rows):
    x0, eps = rows
    t = 0.3
    x_t = (1 - t) * x0 + t * eps
    torch.testing.assert_close(to_x0(eps - x0, x_t, 1 - t, t, "flow"), x_t - t * (eps - x0))
    torch.testing.assert_close(x_t - t * (eps - x0), x0)


def test_edm_coefficients_are_those_of_the_paper():
    sigma, s = torch.tensor(3.0, dtype=torch.float64), 0.5
    c_in, c_skip, c_out = edm_coefficients(torch.ones_like(sigma), sigma, s)
    assert c_in.item() == pytest.approx((9 + 0.25) ** -0.5)
    assert c_skip.item() == pytest.approx(0.25 / 9.25)
    assert c_out.item() == pytest.approx(3 * 0.5 / 9.25**0.5)


def test_edm_preconditioning_of_a_variance_preserving_schedule_is_minus_v(rows):
    x0, eps = rows
    edm, v = (target_of(x0, eps, 0.6, 0.8, target) for target in ("edm", "v"))
    torch.testing.assert_close(edm, -v)


@pytest.mark.parametrize("target", ["eps", "score"])
def test_pure_noise_does_not_give_the_row(target):
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="alpha = 0"):
        to_x0(x, x, torch.tensor([[0.5], [0.0]]), 1.0, target)


@pytest.mark.parametrize("target", ["v", "flow", "x0", "edm"])
def test_other_targets_give_the_row_of_pure_noise(rows, target):
    x0, eps = rows
    given = target_of(x0, eps, 0.0, 1.0, target)
    torch.testing.assert_close(to_x0(given, eps, 0.0, 1.0, target), x0)


def test_unknown_target_lists_the_known_ones():
    x = torch.zeros(1, 1)
    for call in (lambda: to_x0(x, x, 1.0, 1.0, "velocity"), lambda: target_of(x, x, 1.0, 1.0, "velocity")):
        with pytest.raises(ValueError, match="unknown target 'velocity'; known ones are eps, x0, v"):
            call()
