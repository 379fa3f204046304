import json
import math

import pytest
import torch

from tabdiff.diffusion import (
    CosineSchedule,
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    EDMSchedule,
    OffsetCosineSchedule,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_schedule,
    schedule_from_config,
    time_grid,
)

CONTINUOUS = [
    CosineSchedule(),
    OffsetCosineSchedule(),
    OffsetCosineSchedule(offset=0.05),
    SigmoidSchedule(),
    SigmoidSchedule(start=0.0, end=3.0, tau=0.7),
    VPSchedule(),
    SubVPSchedule(),
    VESchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    ShiftedSchedule(CosineSchedule(), 4.0),
    ShiftedSchedule(RectifiedFlowSchedule(), 0.5),
    ZeroTerminalSNRSchedule(VPSchedule()),
]
DISCRETE = [
    DiscreteLinearSchedule(1000),
    DiscreteLinearSchedule(100),
    DiscreteCosineSchedule(1000),
    DiscreteCosineSchedule(50),
    ZeroTerminalSNRSchedule(DiscreteLinearSchedule(1000)),
    ShiftedSchedule(DiscreteCosineSchedule(1000), 2.0),
]
ALL = CONTINUOUS + DISCRETE


def name(schedule):
    return f"{schedule.name}-{schedule.n_timesteps}"


def times(schedule):
    """Times from end to end, without the noisy end where no signal is left."""
    t = time_grid(schedule, 40, "uniform")
    return t[1:] if schedule.alpha(schedule.t_max) == 0 else t


def test_linear_schedule_has_the_published_terminal_signal():
    schedule = make_schedule("linear", 1000)
    assert schedule.alpha(1.0).item() ** 2 == pytest.approx(4.03583e-5, rel=1e-5)
    assert schedule.betas[0].item() == pytest.approx(1e-4, rel=1e-9)
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-9)


def test_cosine_schedule_has_the_published_betas():
    schedule = make_schedule("cosine", 1000)
    assert schedule.betas[0].item() == pytest.approx(4.12842e-5, rel=1e-5)
    assert (schedule.betas > 0.999 - 1e-9).sum() == 1
    assert schedule.alpha(1.0).item() ** 2 == pytest.approx(2.42877e-9, rel=1e-5)


def test_offset_cosine_is_the_published_schedule_in_continuous_time():
    schedule = make_schedule("offset_cosine")
    assert schedule == OffsetCosineSchedule(offset=0.008)

    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0.001, 0.1, 0.5, 0.9, 0.999):
        assert schedule.alpha(t).item() ** 2 == pytest.approx(f(t) / f(0), rel=1e-12)
        assert schedule.sigma(t).item() ** 2 == pytest.approx(1 - f(t) / f(0), rel=1e-9)
    # The table of the chain is made of it, but for the last step, whose beta is capped.
    discrete, k = make_schedule("cosine", 1000), torch.arange(1, 999, dtype=torch.float64) / 1000
    torch.testing.assert_close(schedule.alpha(k), discrete.alpha(k), rtol=1e-9, atol=0)
    # Without the offset it is the other continuous one.
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(OffsetCosineSchedule(0.0).alpha(t), CosineSchedule().alpha(t), rtol=1e-12, atol=0)
    assert schedule.alpha(schedule.t_max).item() < 0.002
    with pytest.raises(ValueError, match="offset must be at least 0; got -1"):
        OffsetCosineSchedule(offset=-1)


def test_vp_sde_has_the_published_terminal_signal():
    schedule = make_schedule("linear")
    assert schedule.alpha(1.0).item() == pytest.approx(0.00657159, rel=1e-5)
    assert math.exp(schedule.log_snr(1.0).item()) == pytest.approx(4.31876e-5, rel=1e-5)


def test_linear_schedule_of_any_length_follows_the_vp_sde():
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    for n, tolerance in ((100, 0.4), (1000, 0.04), (10_000, 0.004)):
        gap = DiscreteLinearSchedule(n).log_snr(t) - VPSchedule().log_snr(t)
        assert gap.abs().max() < tolerance


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_log_snr_and_its_inverse(schedule):
    t = times(schedule)
    log_snr = schedule.log_snr(t)
    expected = 2 * (schedule.alpha(t).log() - schedule.sigma(t).log())
    torch.testing.assert_close(log_snr, expected, rtol=1e-8, atol=1e-8)
    assert (log_snr.diff() > 0).all()
    torch.testing.assert_close(schedule.t_from_log_snr(log_snr), t, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_derivatives_match_differences(schedule):
    t = times(schedule)[1:-1]
    if schedule.n_timesteps is not None:
        t = t - 0.37 / schedule.n_timesteps  # between two times, where the interpolation is smooth
    step = 1e-6 * t
    for value, rate in ((schedule.alpha, schedule.dalpha), (schedule.sigma, schedule.dsigma)):
        difference = (value(t + step) - value(t - step)) / (2 * step)
        torch.testing.assert_close(rate(t), difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_variance_preserving_means_what_it_says(schedule):
    t = times(schedule)
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12) == schedule.variance_preserving


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_config_goes_through_json_and_back(schedule):
    assert schedule_from_config(json.loads(json.dumps(schedule.config()))) == schedule


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_results_have_shape_and_dtype_of_the_time_and_double_precision_inside(schedule, dtype):
    t = torch.full((2, 3), schedule.t_max, dtype=dtype)
    for function in (schedule.alpha, schedule.sigma, schedule.dalpha, schedule.dsigma, schedule.log_snr):
        out = function(t)
        assert out.shape == t.shape
        assert out.dtype == dtype
    exact = schedule.sigma(t.double()).to(dtype)
    assert torch.equal(schedule.sigma(t), exact)


def test_sigma_near_the_clean_end_does_not_cancel():
    t = 1e-9
    assert VPSchedule().sigma(t).item() == pytest.approx(math.sqrt(0.1 * t), rel=1e-6)


@pytest.mark.parametrize("schedule", [DiscreteCosineSchedule(1000), DiscreteLinearSchedule(1000)], ids=name)
def test_single_precision_times_find_the_tables_own_values(schedule):
    k = torch.arange(1, 1001)
    exact = schedule.log_snr(k.double() / 1000)
    torch.testing.assert_close(schedule.log_snr((k.float() / 1000).double()), exact, rtol=0, atol=0)
    torch.testing.assert_close(
        schedule.alpha(k.double() / 1000) ** 2, torch.cumprod(1 - schedule.betas, 0), rtol=1e-10, atol=0
    )


def test_defaults_leave_a_thousandth_of_noise_at_the_clean_end():
    for schedule in (
        CosineSchedule(),
        OffsetCosineSchedule(),
        SigmoidSchedule(),
        VPSchedule(),
        RectifiedFlowSchedule(),
        EDMSchedule(),
    ):
        assert 5e-4 < schedule.sigma(schedule.t_min).item() < 3e-3


@pytest.mark.parametrize("base", [VPSchedule(), CosineSchedule(), DiscreteLinearSchedule(100)], ids=name)
def test_zero_terminal_snr_removes_all_signal_and_keeps_the_clean_end(base):
    schedule = ZeroTerminalSNRSchedule(base)
    assert schedule.alpha(schedule.t_max).item() == 0
    assert schedule.sigma(schedule.t_max).item() == pytest.approx(1, abs=1e-12)
    assert schedule.alpha(schedule.t_min).item() == pytest.approx(base.alpha(base.t_min).item(), rel=1e-12)
    assert schedule.sigma(schedule.t_min).item() == pytest.approx(base.sigma(base.t_min).item(), rel=1e-9)


def test_zero_terminal_snr_needs_a_variance_preserving_schedule():
    with pytest.raises(ValueError, match="variance-preserving"):
        ZeroTerminalSNRSchedule(EDMSchedule())


@pytest.mark.parametrize("base", [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()], ids=name)
def test_shift_moves_the_log_snr(base):
    t = times(base)
    moved = ShiftedSchedule(base, 4.0).log_snr(t)
    torch.testing.assert_close(moved, base.log_snr(t) - 2 * math.log(4), rtol=0, atol=1e-9)


def test_shift_of_a_rectified_flow_is_the_familiar_map_of_time():
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(
        ShiftedSchedule(RectifiedFlowSchedule(), 3.0).sigma(t), 3 * t / (1 + 2 * t), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_networks_see_times_between_0_and_1(schedule):
    t = schedule.network_time(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
    assert t.min() >= 0
    assert t.max() <= 1 + 1e-12


def test_make_schedule_takes_names_and_objects():
    assert make_schedule("edm") == EDMSchedule()
    schedule = DiscreteCosineSchedule(7)
    assert make_schedule(schedule) is schedule
    assert make_schedule(schedule, 7) is schedule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosin",), "unknown schedule 'cosin'; known ones are cosine, edm, linear"),
        (("edm", 100), "must be 'cosine' or 'linear' with n_timesteps=100; got 'edm', which.*Leave n_timesteps out"),
        ((CosineSchedule(), 100), "n_timesteps=None, but n_timesteps=100"),
        (("cosine", 1), "at least 2, got 1"),
    ],
)
def test_make_schedule_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(*arguments)


def test_unknown_config_lists_the_known_names():
    with pytest.raises(ValueError, match="discrete_cosine"):
        schedule_from_config({"name": "nope"})


def test_shift_factor_must_be_positive():
    with pytest.raises(ValueError, match="above 0, got 0"):
        ShiftedSchedule(CosineSchedule(), 0)
