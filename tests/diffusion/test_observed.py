import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
    EDMSchedule,
    GaussianDenoiser,
    PosteriorGuidance,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    sample,
    sample_known,
)

SCHEDULE = CosineSchedule()
COV = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_resampling_brings_the_exact_conditional(generator):
    oracle = GaussianDenoiser(torch.zeros(2), COV, SCHEDULE)
    known = torch.tensor([[1.5, torch.nan]], dtype=torch.float64).expand(3000, 2)
    mask = torch.tensor([True, False])
    errors = []
    for n_resamples in (1, 10):
        rows = sample_known(
            oracle, draw(generator, 3000, 2), known, mask, steps=40, n_resamples=n_resamples, generator=generator
        )
        assert (rows[:, 0] == 1.5).all()
        errors.append(abs(rows[:, 1].mean().item() - 0.8 * 1.5))
    assert errors[1] < 0.06 < errors[0]
    assert rows[:, 1].std().item() == pytest.approx(0.6, abs=0.08)


def test_known_entries_choose_the_component(mixture, generator):
    oracle = mixture(SCHEDULE)
    known = torch.tensor([[-1.2, 0.0]], dtype=torch.float64).expand(400, 2)
    rows = sample_known(
        oracle, draw(generator, 400, 2), known, torch.tensor([True, False]), steps=40, generator=generator
    )
    assert (oracle.posterior(rows).argmax(1) == 0).double().mean() > 0.97
    assert rows[:, 1].mean().item() == pytest.approx(-0.3, abs=0.05)


def test_a_mask_of_nothing_is_plain_sampling(mixture):
    oracle = mixture(SCHEDULE)
    noise = draw(torch.Generator().manual_seed(1), 50, 2)
    free = sample_known(
        oracle, noise, torch.full_like(noise, torch.nan), torch.zeros(2, dtype=torch.bool), method="ddim", n_resamples=1
    )
    torch.testing.assert_close(free, sample(oracle, noise, method="ddim", steps=50))


@pytest.mark.parametrize(
    ("mask", "known", "options", "message"),
    [
        (torch.ones(2), 0.0, {}, "mask must be boolean"),
        (torch.ones(2, dtype=torch.bool), torch.nan, {}, "NaN or infinite"),
        (torch.ones(2, dtype=torch.bool), 0.0, {"n_resamples": 0}, "at least 1, got 0"),
    ],
)
def test_known_entries_are_checked(mixture, mask, known, options, message):
    with pytest.raises(ValueError, match=message):
        sample_known(mixture(SCHEDULE), torch.zeros(1, 2), torch.full((1, 2), known), mask, **options)


@pytest.mark.parametrize("schedule", [SCHEDULE, VPSchedule(), EDMSchedule()], ids=lambda s: s.name)
@pytest.mark.parametrize("noise_std", [0.05, 0.5])
def test_linear_measurements_give_the_exact_posterior_of_gaussian_data(generator, schedule, noise_std):
    prior_std = 1.3
    operator = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    measured = torch.tensor([0.8, -1.0], dtype=torch.float64)
    guided = PosteriorGuidance(
        GaussianDenoiser(0.0, prior_std, schedule), operator, measured, noise_std, data_std=prior_std
    )
    noise = draw(generator, 4000, 3)
    rows = sample(guided, noise, method="heun", steps=80, grid="log_snr")
    precision = torch.eye(3, dtype=torch.float64) / prior_std**2 + operator.T @ operator / noise_std**2
    cov = torch.linalg.inv(precision)
    mean = cov @ operator.T @ measured / noise_std**2
    assert (rows.mean(0) - mean).abs().max() < 0.06
    assert (rows.T.cov() - cov).abs().max() < 0.1


def test_dps_draws_rows_towards_the_measurements(mixture, generator):
    oracle = mixture(SCHEDULE)
    guided = PosteriorGuidance(
        oracle,
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([-1.2], dtype=torch.float64),
        0.3,
        data_std=0.0,
    )
    rows = sample(guided, draw(generator, 500, 2), method="ddpm", steps=100, generator=generator)
    assert (oracle.posterior(rows).argmax(1) == 0).double().mean() > 0.9


def test_posterior_guidance_is_checked(mixture):
    matrix, y = torch.eye(2), torch.zeros(2)
    with pytest.raises(ValueError, match="noise_std must be above 0, got 0"):
        PosteriorGuidance(mixture(SCHEDULE), matrix, y, 0.0)
    with pytest.raises(ValueError, match="posterior guidance makes no sense"):
        PosteriorGuidance(mixture(ZeroTerminalSNRSchedule(VPSchedule())), matrix, y, 0.1)
