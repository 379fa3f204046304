import math

import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
    DiscreteCosineSchedule,
    EDMSchedule,
    LogitNormal,
    LogNormal,
    LossAware,
    RectifiedFlowSchedule,
    make_times,
    stratified,
)

NAMES = ["uniform", "stratified", "log_normal", "logit_normal", "loss_aware"]
SCHEDULES = [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule(), DiscreteCosineSchedule(100)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("name", NAMES)
def test_times_lie_in_range_and_repeat_with_the_seed(name, schedule):
    def draw():
        return make_times(name)(1000, schedule, torch.Generator().manual_seed(3))

    t = draw()
    assert t.shape == (1000,)
    assert t.dtype == torch.float32
    assert schedule.t_min - 1e-6 <= t.min() < t.max() <= schedule.t_max + 1e-6
    assert torch.equal(t, draw())
    if schedule.n_timesteps is not None:
        k = t.double() * schedule.n_timesteps
        torch.testing.assert_close(k, k.round(), rtol=0, atol=1e-4)
        assert k.min() > 0.5


def test_uniform_times_of_a_discrete_schedule_reach_each_time_equally(generator):
    schedule = DiscreteCosineSchedule(10)
    t = make_times("uniform")(20_000, schedule, generator)
    share = torch.bincount((t * 10).round().long(), minlength=11)[1:] / 20_000
    assert (share - 0.1).abs().max() < 4 * (0.09 / 20_000) ** 0.5


@pytest.mark.parametrize("permute", [False, True])
def test_stratified_times_cover_the_range_evenly(permute, generator):
    schedule = RectifiedFlowSchedule(t_min=0.0, t_max=1.0)
    t = stratified(64, schedule, generator, permute=permute, dtype=torch.float64)
    gaps = t.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 64), rtol=0, atol=1e-6)
    assert bool((t.diff() < 0).sum() > 1) == permute


def test_each_stratified_time_is_uniform_by_itself(generator):
    schedule = RectifiedFlowSchedule(t_min=0.0, t_max=1.0)
    first = torch.stack([stratified(8, schedule, generator)[0] for _ in range(4000)]).sort().values
    assert (first - torch.arange(4000) / 4000).abs().max() < 1.63 / 4000**0.5  # Kolmogorov-Smirnov, 1 %


def test_log_normal_times_have_the_noise_levels_asked_for(generator):
    schedule = EDMSchedule(t_min=1e-6, t_max=1e6)
    log_noise = LogNormal(-1.2, 1.2)(20_000, schedule, generator, dtype=torch.float64).log()
    assert log_noise.mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / 20_000**0.5)
    assert log_noise.std().item() == pytest.approx(1.2, rel=0.02)
    cosine = CosineSchedule()
    same = -cosine.log_snr(LogNormal(0.3, 0.5)(20_000, cosine, generator, dtype=torch.float64)) / 2
    assert same.mean().item() == pytest.approx(0.3, abs=4 * 0.5 / 20_000**0.5)


def test_logit_normal_times_have_the_logits_asked_for(generator):
    t = LogitNormal(0.5, 0.8)(20_000, RectifiedFlowSchedule(t_min=0.0, t_max=1.0), generator, dtype=torch.float64)
    logit = torch.logit(t)
    assert logit.mean().item() == pytest.approx(0.5, abs=4 * 0.8 / 20_000**0.5)
    assert logit.std().item() == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("schedule", [CosineSchedule(), DiscreteCosineSchedule(20)], ids=lambda s: s.name)
def test_loss_aware_times_keep_the_mean_and_follow_the_second_moments(schedule, generator):
    times = LossAware(n_bins=20, history=3)
    assert torch.equal(times.probabilities, torch.full((20,), 0.05, dtype=torch.float64))
    span = schedule.t_max - schedule.t_min
    bins = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    t = schedule.t_min + span * bins if schedule.n_timesteps is None else (bins * 20 + 0.5) / 20
    losses = torch.linspace(0.5, 5, 20, dtype=torch.float64)
    for factor in (100.0, 0.5, 1.0, 1.5):  # the first falls out of the history
        times.update(t, factor * losses, schedule)
    root = (losses**2 * (0.25 + 1 + 2.25) / 3).sqrt()
    expected = 0.999 * root / root.sum() + 0.001 / 20
    torch.testing.assert_close(times.probabilities, expected, rtol=1e-10, atol=0)
    weighted = (times.probabilities * times.weights(t, schedule) * losses).sum()
    assert weighted.item() == pytest.approx(losses.mean().item(), rel=1e-12)
    drawn = times(20_000, schedule, generator, dtype=torch.float64)
    share = torch.bincount(times._bins(drawn, schedule), minlength=20) / 20_000
    assert (share - expected).abs().max() < 4 * (0.1 / 20_000) ** 0.5


def test_loss_aware_bins_must_share_the_times():
    with pytest.raises(ValueError, match="50 times cannot be shared evenly among 100 bins"):
        LossAware()(4, DiscreteCosineSchedule(50))


def test_unknown_times_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown times 'even'; known ones are log_normal, logit_normal"):
        make_times("even")


def test_loss_aware_parameters_are_checked():
    with pytest.raises(ValueError, match="uniform_share"):
        LossAware(uniform_share=math.inf)
