"""Every schedule with every target: it trains and samples, or an error says why it cannot.

Each network is trained once and sampled with a few of the methods, so turned that every schedule and every target meets
every method. ``benchmarks/combinations.py`` goes through the whole product.
"""

import itertools

import pytest
import torch
from torch import Tensor, nn

from tabdiff.diffusion import (
    METHODS,
    TARGETS,
    Denoiser,
    DenoiserLike,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_schedule,
    sample,
)
from tabdiff.nn import ResidualMLP
from tabdiff.training import Batches, TrainingOptions, train

pytestmark = pytest.mark.exhaustive

SCHEDULES = {
    "cosine": make_schedule("cosine"),
    "vp": make_schedule("vp"),
    "sigmoid": make_schedule("sigmoid"),
    "sub_vp": make_schedule("sub_vp"),
    "rectified_flow": make_schedule("rectified_flow"),
    "discrete_cosine": make_schedule("cosine", 1000),
    "discrete_linear": make_schedule("linear", 1000),
    "ve": make_schedule("ve"),
    "edm": make_schedule("edm"),
    "zero_terminal_snr": ZeroTerminalSNRSchedule(VPSchedule()),
}
EXPLODES = r"target 'v' makes no sense with schedule '{0}', whose noise grows to \d+.*use target 'edm', 'eps'"
NO_SIGNAL = r"target '{1}' makes no sense with a schedule that leaves no signal at t_max \(alpha = 0\).*use target 'v'"
SENSELESS = {
    ("ve", "v"): EXPLODES,
    ("edm", "v"): EXPLODES,
    ("zero_terminal_snr", "eps"): NO_SIGNAL,
    ("zero_terminal_snr", "score"): NO_SIGNAL,
}
SENSIBLE = [pair for pair in itertools.product(SCHEDULES, TARGETS) if pair not in SENSELESS]

# For scale, 1,000 rows against 8,000 of the mixture: another draw of it 0.05, standard normal noise 0.36.
TOLERANCE = 0.17
N_ROWS, N_TRAIN = 1000, 8000
# Methods of several evaluations a step make fewer steps, Euler's in time more.
STEPS = {"rk4": 20, "heun": 30, "predictor_corrector": 30, "euler": 80}


class Clipped:
    """A denoiser whose estimate stays within the range of the data (Ho et al., 2020).

    "eps" and "score" need it: their estimate has ``1 / alpha`` times the network's error, 640 times where the cosine
    schedule starts, and what a step throws out of the range of the training data no later step brings back.
    """

    def __init__(self, denoiser: DenoiserLike, data: Tensor) -> None:
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.low, self.high = data.amin(0), data.amax(0)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.denoiser(x_t, t, condition).clamp(self.low, self.high)


def make_network(generator: torch.Generator) -> ResidualMLP:
    network = ResidualMLP(2, 2, hidden_size=64, n_blocks=2)
    for layer in network.modules():  # layers draw from the global state, which tests leave alone
        if isinstance(layer, nn.Linear) and layer.weight.any():
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                parameter.data.uniform_(-bound, bound, generator=generator)
    return network


def methods_for(schedule: str, target: str) -> tuple[str, ...]:
    targets = [t for s, t in SENSIBLE if s == schedule]
    turn = list(SCHEDULES).index(schedule) + targets.index(target)
    chosen = METHODS[turn % len(targets) :: len(targets)]
    if schedule == "zero_terminal_snr":  # its rates have no meaning in the log-SNR, which is infinite there
        chosen = tuple(method for method in chosen if method != "euler_maruyama")
    return chosen


def test_the_turns_reach_every_pair_with_a_method():
    for place, names in ((0, SCHEDULES), (1, TARGETS)):
        for name in names:
            met = {method for pair in SENSIBLE if pair[place] == name for method in methods_for(*pair)}
            expected = set(METHODS) - {"euler_maruyama"} if name == "zero_terminal_snr" else set(METHODS)
            assert met == expected, name


@pytest.mark.parametrize(("schedule", "target"), SENSIBLE)
def test_a_sensible_combination_trains_and_samples(schedule, target, mixture, sliced_wasserstein):
    generator = torch.Generator().manual_seed(0)
    chosen = SCHEDULES[schedule]
    oracle = mixture(chosen)
    drawn = oracle.sample(N_TRAIN + N_ROWS, generator)[0]
    data, other = ((drawn - drawn.mean(0)) / drawn.std(0)).float().split([N_TRAIN, N_ROWS])

    def distance(rows):
        return sliced_wasserstein(rows.repeat(N_TRAIN // N_ROWS, 1), data)

    floor = distance(other)
    assert distance(torch.randn(N_ROWS, 2, generator=generator)) > 2 * TOLERANCE
    # Errors of the clean row at the noisy end are all of "x0" under the simple loss; the others are balanced already.
    loss = "min_snr" if target == "x0" else "simple"
    denoiser = Denoiser(make_network(generator), chosen, target, loss=loss)
    result = train(
        denoiser,
        Batches(data, size=256),
        max_steps=300,
        learning_rate=6e-3,
        # Uniform times on [0.002, 80] would leave 1 in 80 rows with less noise than signal.
        options=TrainingOptions(ema_decay=0.98, times="log_normal" if schedule == "edm" else "stratified"),
        generator=generator,
    )
    trained, grid = result.denoiser, "auto"
    if target in ("eps", "score"):  # long first steps in the log-SNR would multiply what clipping leaves of the error
        trained, grid = Clipped(trained, data), "log_snr"
    for method in methods_for(schedule, target):
        noise = torch.randn(N_ROWS, 2, generator=generator)
        rows = sample(trained, noise, method=method, steps=STEPS.get(method, 40), grid=grid, generator=generator)
        reached = distance(rows)
        assert reached < TOLERANCE, f"{method}: {reached:.3f}; another draw of the mixture: {floor:.3f}"


@pytest.mark.parametrize(("schedule", "target"), SENSELESS)
def test_a_senseless_combination_says_why(schedule, target):
    message = SENSELESS[schedule, target].format(schedule, target)
    with pytest.raises(ValueError, match=message):
        Denoiser(nn.Identity(), SCHEDULES[schedule], target)


def test_a_senseless_method_says_why(generator):
    denoiser = Denoiser(lambda x, t, c: torch.zeros_like(x), SCHEDULES["zero_terminal_snr"], "v")
    with pytest.raises(ValueError, match=r"makes no sense.*alpha = 0"):
        sample(denoiser, torch.randn(4, 2, generator=generator), method="euler_maruyama", steps=5)


@pytest.mark.parametrize("schedule", ["offset_cosine", "sigmoid", "vp", "sub_vp", "ve", "rectified_flow", "edm"])
def test_a_schedule_without_a_discrete_form_says_so(schedule):
    with pytest.raises(
        ValueError, match=f"must be 'cosine' or 'linear'.*got '{schedule}', which is defined in continuous time"
    ):
        make_schedule(schedule, 1000)
    assert make_schedule(schedule) and make_schedule("cosine", 1000)  # either way out


def test_linear_in_continuous_time_is_the_vp_sde():
    assert make_schedule("linear") == make_schedule("vp")
