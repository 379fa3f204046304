import itertools

import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
    EDMSchedule,
    GaussianDenoiser,
    PosteriorGuidance,
    RePaint,
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


def test_known_entries_have_the_noise_of_the_time_reached(generator):
    oracle = GaussianDenoiser(torch.zeros(2), COV, SCHEDULE)
    known = torch.tensor([[1.5, 0.0]], dtype=torch.float64).expand(4000, 2)
    states = []
    sample_known(
        oracle,
        draw(generator, 4000, 2),
        known,
        torch.tensor([True, False]),
        steps=8,
        n_resamples=2,
        generator=generator,
        callback=states.append,
    )
    assert [s.step for s in states] == list(range(1, 9))
    for s in states[:-1]:
        alpha, sigma = SCHEDULE.alpha(s.t).item(), SCHEDULE.sigma(s.t).item()
        error = sigma / 4000**0.5
        assert s.x[:, 0].mean().item() == pytest.approx(alpha * 1.5, abs=5 * error)
        assert s.x[:, 0].std().item() == pytest.approx(sigma, rel=0.06)
    assert (states[-1].x[:, 0] == 1.5).all()


def lugmayr_times(n_steps, jump_length, n_resamples):
    """The times that RePaint visits, as published code (get_schedule_jump) lists them; -1 is the clean end."""
    jumps = dict.fromkeys(range(0, n_steps - jump_length, jump_length), n_resamples - 1)
    t, times = n_steps, []
    while t >= 1:
        t -= 1
        times.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump_length):
                t += 1
                times.append(t)
    return [*times, -1]


@pytest.mark.parametrize(("steps", "jump_length", "n_resamples"), [(20, 5, 3), (12, 10, 4), (23, 7, 2), (9, 1, 3)])
def test_jumps_are_those_of_the_published_schedule(mixture, generator, steps, jump_length, n_resamples):
    asked = []

    class Sees(torch.nn.Module):
        schedule = SCHEDULE

        def forward(self, x, t, condition=None):
            asked.append(float(t))
            return mixture(SCHEDULE)(x, t, condition)

    grid = torch.linspace(0.99, 0.01, steps, dtype=torch.float64)
    rows = sample_known(
        Sees(),
        draw(generator, 3, 2),
        torch.zeros(3, 2, dtype=torch.float64),
        torch.tensor([True, False]),
        grid=grid,
        n_resamples=n_resamples,
        jump_length=jump_length,
        generator=generator,
    )
    assert rows.isfinite().all()
    published = lugmayr_times(steps, jump_length, n_resamples)
    # The network is asked at the time that a downward step starts from.
    downward = [now for now, then in itertools.pairwise(published) if then < now]
    assert asked == pytest.approx([grid[steps - 1 - t].item() for t in downward])


def test_jumps_bring_the_conditional_nearer(generator):
    oracle = GaussianDenoiser(torch.zeros(2), COV, SCHEDULE)
    known = torch.tensor([[1.5, torch.nan]], dtype=torch.float64).expand(3000, 2)
    errors = []
    for settings in ({"n_resamples": 1}, {"n_resamples": 10, "jump_length": 4}):
        noise = draw(generator, 3000, 2)
        mask = torch.tensor([True, False])
        rows = sample_known(oracle, noise, known, mask, steps=41, generator=generator, **settings)
        errors.append(abs(rows[:, 1].mean().item() - 0.8 * 1.5))
    assert errors[1] < 0.1 < 0.3 < errors[0]
    assert rows[:, 1].std().item() == pytest.approx(0.6, abs=0.08)


@pytest.mark.parametrize(
    "options", [{"n_resamples": 0}, {"jump_length": 0}, {"jump_length": 2.5}, {"n_resamples": True}]
)
def test_repaint_is_checked(options):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        RePaint(**options)


def test_jumps_longer_than_the_way_are_refused_and_the_remedy_works(mixture):
    arguments = (mixture(SCHEDULE), torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="jump_length must be at most 4 for 5 steps"):
        sample_known(*arguments, steps=5, jump_length=5)
    assert sample_known(*arguments, steps=5, jump_length=4).isfinite().all()


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


@pytest.mark.parametrize("data_std", [0.0, 1.0])
def test_the_scale_of_posterior_guidance_multiplies_its_gradient(mixture, generator, data_std):
    oracle, t = mixture(SCHEDULE), torch.tensor(0.4, dtype=torch.float64)
    x = draw(generator, 5, 2)
    operator, y = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)

    def guided(scale):
        return PosteriorGuidance(oracle, operator, y, 0.2, data_std=data_std, scale=scale)(x, t)

    push = guided(1.0) - oracle(x, t)
    assert push.abs().max() > 0.1
    torch.testing.assert_close(guided(0.0), oracle(x, t))
    torch.testing.assert_close(guided(2.5), oracle(x, t) + 2.5 * push)


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
