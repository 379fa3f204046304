import pytest
import torch
from torch import nn

from tabdiff.diffusion import (
    METHODS,
    AutoGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CosineSchedule,
    EDMSchedule,
    GaussianDenoiser,
    Heun,
    Model,
    MultiConditionGuidance,
    PosteriorGuidance,
    RectifiedFlowSchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    convert,
    make_path,
    make_sampler,
    sample,
    sample_known,
)

SCHEDULE = CosineSchedule()
T = torch.tensor(0.4, dtype=torch.float64)


class Counts(nn.Module):
    """Counts the rows and the calls that reach a denoiser."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, []

    def forward(self, x, t, condition=None):
        self.calls.append(len(x))
        return self.denoiser(x, t, condition)


@pytest.fixture
def x(generator):
    return torch.randn(30, 2, generator=generator, dtype=torch.float64)


@pytest.fixture
def condition():
    return torch.arange(30).double()[:, None] % 3


@pytest.mark.parametrize("target", ["eps", "v", "x0", "flow", "score"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_the_same_in_the_space_of_every_target(mixture, x, condition, target, scale):
    oracle = mixture(SCHEDULE)
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    null, conditional = (convert(oracle(x, T, c), x, alpha, sigma, "x0", target) for c in (None, condition))
    pushed = convert(null + scale * (conditional - null), x, alpha, sigma, target, "x0")
    torch.testing.assert_close(ClassifierFreeGuidance(oracle, scale)(x, T, condition), pushed, rtol=1e-6, atol=1e-6)


def test_the_literature_s_scale_is_one_less(mixture, x, condition):
    oracle = mixture(SCHEDULE)
    w = 1.7
    literature = (1 + w) * oracle(x, T, condition) - w * oracle(x, T)
    torch.testing.assert_close(ClassifierFreeGuidance(oracle, 1 + w)(x, T, condition), literature)


@pytest.mark.parametrize(
    ("scale", "given", "rows"), [(1.0, True, [30]), (0.0, True, [30]), (2.0, True, [60]), (2.0, False, [30])]
)
def test_what_guidance_costs(mixture, x, condition, scale, given, rows):
    counted = Counts(mixture(SCHEDULE))
    ClassifierFreeGuidance(counted, scale)(x, T, condition if given else None)
    assert counted.calls == rows


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_a_time_for_each_row(mixture, x, condition, scale):
    t = torch.linspace(0.1, 0.9, 30, dtype=torch.float64)
    guided = ClassifierFreeGuidance(mixture(SCHEDULE), scale, interval=(0.2, 2.0))
    each = torch.cat([guided(x[i : i + 1], t[i], condition[i : i + 1]) for i in range(30)])
    torch.testing.assert_close(guided(x, t, condition), each)


def test_null_rows_are_left_as_they_are(mixture, x, condition):
    oracle = mixture(SCHEDULE)
    condition[::2] = torch.nan
    guided = ClassifierFreeGuidance(oracle, 4.0)(x, T, condition)
    torch.testing.assert_close(guided[::2], oracle(x, T)[::2])


def test_interval_guides_inside_and_costs_nothing_outside(mixture, x, condition):
    counted = Counts(mixture(SCHEDULE))
    guided = ClassifierFreeGuidance(counted, 3.0, interval=(0.5, 2.0))
    for t, inside in ((0.1, False), (0.5, True), (0.9, False)):
        counted.calls.clear()
        time = torch.tensor(t, dtype=torch.float64)
        out = guided(x, time, condition)
        assert counted.calls == [60 if inside else 30]
        expected = ClassifierFreeGuidance(counted.denoiser, 3.0 if inside else 1.0)(x, time, condition)
        torch.testing.assert_close(out, expected)


def test_rescale_gives_each_row_the_spread_of_its_conditional_estimate(generator):
    images = torch.randn(5, 3, 8, 8, generator=generator, dtype=torch.float64)

    class Toy(nn.Module):
        schedule = SCHEDULE

        def forward(self, x, t, condition=None):
            return x * torch.where(condition.isnan(), 0.5, condition)[:, :, None, None]

    condition = torch.full((5, 1), 2.0, dtype=torch.float64)

    def predicted(x0, target="v"):
        return convert(x0, images, SCHEDULE.alpha(T), SCHEDULE.sigma(T), "x0", target)

    def spread(values):
        return values.flatten(1).std(1)

    def rescaled(share, **options):
        return ClassifierFreeGuidance(Toy(), 3.0, rescale=share, **options)(images, T, condition)

    plain, half, full = (spread(predicted(rescaled(r))) for r in (0, 0.5, 1))
    wanted = spread(predicted(Toy()(images, T, condition)))
    torch.testing.assert_close(full, wanted)
    torch.testing.assert_close(half, (plain + wanted) / 2)
    assert (plain > wanted).all()
    # Equation 15 of Lin et al. on v, written out.
    v_guided, v_condition = predicted(rescaled(0)), predicted(Toy()(images, T, condition))
    ratio = (v_condition.flatten(1).std(1) / v_guided.flatten(1).std(1))[:, None, None, None]
    torch.testing.assert_close(predicted(rescaled(0.7)), 0.7 * ratio * v_guided + 0.3 * v_guided)
    for target in ("x0", "eps", "flow"):
        aim = spread(predicted(Toy()(images, T, condition), target))
        torch.testing.assert_close(spread(predicted(rescaled(1, rescale_target=target), target)), aim)
    each = ClassifierFreeGuidance(Toy(), 3.0, rescale=0.7)(images, T.expand(5), condition)
    torch.testing.assert_close(each, rescaled(0.7))


def test_rescaling_the_noise_needs_signal(mixture):
    schedule = ZeroTerminalSNRSchedule(VPSchedule())
    with pytest.raises(ValueError, match="rescale_target='eps' makes no sense"):
        ClassifierFreeGuidance(mixture(schedule), 2.0, rescale=0.7, rescale_target="eps")
    with pytest.raises(ValueError, match="unknown target 'noise'"):
        ClassifierFreeGuidance(mixture(schedule), 2.0, rescale=0.7, rescale_target="noise")


def test_negative_condition_takes_the_place_of_the_null_one(mixture, x, condition):
    oracle = mixture(SCHEDULE)
    guided = ClassifierFreeGuidance(oracle, 2.0, negative=torch.tensor([2.0], dtype=torch.float64))
    away = oracle(x, T, torch.full_like(condition, 2.0))
    torch.testing.assert_close(guided(x, T, condition), away + 2 * (oracle(x, T, condition) - away))


def test_autoguidance_leads_away_from_the_weak_model(x):
    strong, weak = GaussianDenoiser(1.0, 0.5, SCHEDULE), GaussianDenoiser(0.0, 1.0, SCHEDULE)
    out = AutoGuidance(strong, weak, 2.0)(x, T)
    torch.testing.assert_close(out, 2 * strong(x, T) - weak(x, T))
    counted = Counts(weak)
    torch.testing.assert_close(AutoGuidance(strong, counted, 1.0)(x, T), strong(x, T))
    assert counted.calls == []


def test_autoguidance_of_some_entries_leaves_the_others(x):
    rows = torch.cat([x, 2 * x], dim=1)
    strong, weak = GaussianDenoiser(1.0, 0.5, SCHEDULE), GaussianDenoiser(0.0, 1.0, SCHEDULE)
    out, k = AutoGuidance(strong, weak, 2.0, n_guided=x.shape[1])(rows, T), x.shape[1]
    torch.testing.assert_close(out[:, :k], AutoGuidance(strong, weak, 2.0)(rows, T)[:, :k])
    torch.testing.assert_close(out[:, k:], strong(rows, T)[:, k:])


class TwoAttributes(nn.Module):
    """N(0, I) data of which attribute j is the j-th entry, observed with unit noise: exact for any subset given."""

    schedule = SCHEDULE

    def forward(self, x, t, condition=None):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if condition is None:
            condition = torch.full_like(x, torch.nan)
        given = ~condition.isnan()
        precision = 1 + alpha**2 / sigma**2 + given
        return (alpha / sigma**2 * x + torch.where(given, condition, 0.0)) / precision


def test_several_conditions_with_their_own_scales(x, generator):
    denoiser = TwoAttributes()
    condition = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    # The attributes are independent, so with scales of 1 the parts make up the joint condition exactly.
    guided = MultiConditionGuidance(denoiser, [1.0, 1.0])(x, T, condition)
    torch.testing.assert_close(guided, denoiser(x, T, condition))
    counted = Counts(denoiser)
    first = MultiConditionGuidance(counted, [2.0, 0.0])(x, T, condition)
    assert counted.calls == [60]
    alone = torch.stack([condition[:, 0], torch.full((30,), torch.nan, dtype=torch.float64)], 1)
    torch.testing.assert_close(first, ClassifierFreeGuidance(denoiser, 2.0)(x, T, alone))
    with pytest.raises(ValueError, match="1 scales were given for a condition of 2 attributes"):
        MultiConditionGuidance(denoiser, [1.0])(x, T, condition)


@pytest.mark.parametrize("schedule", [SCHEDULE, VPSchedule(), EDMSchedule()], ids=lambda s: s.name)
def test_an_exact_classifier_makes_the_exact_conditional(mixture, x, condition, schedule):
    oracle = mixture(schedule)

    def log_probability(rows, t, condition):
        return oracle.posterior(rows, t).log().gather(1, condition.long())[:, 0]

    time = torch.tensor((schedule.t_min + schedule.t_max) / 3, dtype=torch.float64)
    guided = ClassifierGuidance(oracle, log_probability)
    torch.testing.assert_close(guided(x, time, condition), oracle(x, time, condition), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(guided(x, time), oracle(x, time))
    noise = x / x.std()
    rows = sample(guided, noise, condition, steps=30)
    torch.testing.assert_close(rows, sample(oracle, noise, condition, steps=30), rtol=1e-4, atol=1e-4)


def test_classifier_guidance_needs_signal(mixture):
    with pytest.raises(ValueError, match="classifier guidance makes no sense"):
        ClassifierGuidance(mixture(ZeroTerminalSNRSchedule(VPSchedule())), lambda x, t, c: x[:, 0])


def test_cfg_plus_plus_renoises_with_the_unguided_noise(mixture, x, condition):
    oracle = mixture(SCHEDULE)
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    x0, eps = CFGPlusPlus(oracle, 0.4).x0_and_eps(x, T, condition)
    null = oracle(x, T)
    torch.testing.assert_close(x0, null + 0.4 * (oracle(x, T, condition) - null))
    torch.testing.assert_close(eps, (x - alpha * null) / sigma)
    grid = [0.4, 0.2]
    start = x / sigma
    step = sample(CFGPlusPlus(oracle, 0.4), start, condition, method="ddim", grid=grid, denoise_last=False)
    x0, eps = CFGPlusPlus(oracle, 0.4).x0_and_eps(start * sigma, T, condition)
    torch.testing.assert_close(step, SCHEDULE.alpha(0.2) * x0 + SCHEDULE.sigma(0.2) * eps)


RENOISING = ("ddim", "ddpm", "predictor_corrector")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in RENOISING] + [Heun(churn=5.0)], ids=str)
def test_cfg_plus_plus_refuses_methods_that_do_not_renoise(mixture, x, condition, method):
    guided = CFGPlusPlus(mixture(SCHEDULE), 0.4)
    shown = method if isinstance(method, str) else "Heun"
    with pytest.raises(ValueError, match=rf"must be 'ddim', 'ddpm' or 'predictor_corrector'.*got '{shown}'"):
        sample(guided, x, condition, method=method)
    with pytest.raises(ValueError, match="must be 'ddim', 'ddpm' or 'predictor_corrector'"):
        sample_known(guided, x, x, torch.tensor([True, False]), condition, method=method)
    # What calls a method by itself is refused as well.
    if method != "rk45":
        with pytest.raises(ValueError, match="Use 'ddim', 'ddpm' or 'predictor_corrector'"):
            next(iter(make_sampler(method)(Model(guided, condition), x, make_path(SCHEDULE, 5, "uniform"))))


@pytest.mark.parametrize(
    "schedule", [SCHEDULE, VPSchedule(), EDMSchedule(), RectifiedFlowSchedule()], ids=lambda s: s.name
)
@pytest.mark.parametrize("method", RENOISING)
def test_cfg_plus_plus_guides_on_every_schedule(mixture, generator, schedule, method):
    oracle = mixture(schedule)
    noise = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    condition = torch.full((300, 1), 2.0, dtype=torch.float64)
    shares = []
    for scale in (0.0, 0.6):
        rows = sample(CFGPlusPlus(oracle, scale), noise, condition, method=method, steps=40, generator=generator)
        shares.append((oracle.posterior(rows).argmax(1) == 2).double().mean().item())
    assert shares[0] == pytest.approx(0.3, abs=0.1)
    assert shares[1] > 0.97


def test_cfg_plus_plus_is_outermost(mixture):
    inner = CFGPlusPlus(mixture(SCHEDULE), 0.4)
    wraps = (
        lambda d: ClassifierFreeGuidance(d, 2.0),
        lambda d: AutoGuidance(d, mixture(SCHEDULE), 2.0),
        lambda d: MultiConditionGuidance(d, [1.0]),
        lambda d: ClassifierGuidance(d, lambda x, t, c: x[:, 0]),
        lambda d: PosteriorGuidance(d, torch.eye(2), torch.zeros(2), 0.1),
    )
    for wrap in wraps:
        with pytest.raises(ValueError, match="Put CFGPlusPlus around"):
            wrap(inner)
        CFGPlusPlus(wrap(mixture(SCHEDULE)), 0.4)
    with pytest.raises(ValueError, match="Put CFGPlusPlus around"):
        CFGPlusPlus(inner, 0.4)


@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m"])
def test_guidance_moves_the_samples_to_the_condition(mixture, generator, method):
    oracle = mixture(SCHEDULE)
    noise = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    condition = torch.full((500, 1), 2.0, dtype=torch.float64)
    shares = []
    for scale in (0.0, 0.5, 1.0, 2.0):
        rows = sample(ClassifierFreeGuidance(oracle, scale), noise, condition, method=method, steps=40)
        shares.append((oracle.posterior(rows).argmax(1) == 2).double().mean().item())
    assert shares[0] == pytest.approx(0.3, abs=4 * (0.21 / 500) ** 0.5)
    assert shares == sorted(shares)
    assert shares[2] > 0.99


@pytest.mark.parametrize("options", [{"interval": (2.0, 1.0)}, {"rescale": 1.5}])
def test_options_are_checked(mixture, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ClassifierFreeGuidance(mixture(SCHEDULE), 2.0, **options)
