import builtins
import math
import sys

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr

from tabdiff.training import PrivacyBudget, TrainingOptions
from tabdiff.training.privacy import accounted_delta, counting_noise, spent_epsilon, training_noise

pytest.importorskip("opacus")


def gaussian_epsilon(noise, delta):
    # The exact curve of a Gaussian mechanism: Balle and Wang, 2018, theorem 8.
    def excess(eps):
        a, b = 1 / (2 * noise), eps * noise
        return ndtr(a - b) - math.exp(eps) * ndtr(-a - b) - delta

    return brentq(excess, 0, 100)


@pytest.mark.parametrize("noise", [1.0, 4.0, 20.0])
def test_a_gaussian_mechanism_costs_a_little_more_than_its_closed_form(noise):
    exact, ours = gaussian_epsilon(noise, 1e-5), spent_epsilon([(noise, 1.0, 1)], 1e-5)
    assert exact <= ours <= 1.15 * exact


def test_mechanisms_compose_as_one_of_less_noise():
    # k Gaussian mechanisms are one whose noise is smaller by the root of k.
    together = spent_epsilon([(8.0, 1.0, 4)], 1e-5)
    assert together == pytest.approx(spent_epsilon([(4.0, 1.0, 1)], 1e-5))
    assert spent_epsilon([(8.0, 1.0, 3), (8.0, 1.0, 1)], 1e-5) == pytest.approx(together)


def test_what_is_spent_agrees_with_opacus():
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    for _ in range(50):
        accountant.step(noise_multiplier=1.5, sample_rate=0.05)
    assert spent_epsilon([(1.5, 0.05, 50)], 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=0.01)


def test_nothing_done_spends_nothing():
    assert spent_epsilon([], 1e-5) == spent_epsilon([(1.0, 0.1, 0)], 1e-5) == 0


@pytest.mark.parametrize("epsilon", [0.5, 3.0])
def test_noise_is_as_little_as_the_budget_allows(epsilon):
    budget = PrivacyBudget(epsilon, 1e-6)
    counting = counting_noise(budget)
    training = training_noise(budget, counting, 0.1, 200)
    delta = accounted_delta(budget)
    spent = spent_epsilon([(counting, 1.0, 1), (training, 0.1, 200)], delta)
    assert 0.98 * epsilon <= spent <= epsilon
    assert spent_epsilon([(counting, 1.0, 1)], delta) <= 0.15 * epsilon
    assert spent_epsilon([(counting, 1.0, 1), (0.98 * training, 0.1, 200)], delta) > epsilon
    assert delta < 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a positive number; got 0"),
        ({"epsilon": math.inf}, "epsilon must be a positive number"),
        ({"delta": 1}, "delta must be a number in"),
        ({"max_grad_norm": -1}, "max_grad_norm must be"),
        ({"counting_share": 1}, "counting_share must be"),
        ({"public": ["age"]}, "public must be a dict"),
        ({"public": {"age": (3, 1)}}, r"public\['age'\] must be \(low, high\)"),
        ({"public": {"age": (0, 10, 20)}}, "with a positive step"),
        ({"public": {"sex": ["F", "F"]}}, "a list of different levels"),
    ],
)
def test_budgets_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(privacy=PrivacyBudget(**settings)).check()


def test_something_else_than_a_budget_is_refused():
    with pytest.raises(ValueError, match="privacy must be None or a PrivacyBudget"):
        TrainingOptions(privacy=3).check()


def test_a_budget_is_a_parameter_of_options():
    options = TrainingOptions(privacy=PrivacyBudget(3)).set_params(privacy__epsilon=1)
    assert options.privacy.epsilon == 1
    assert options.get_params()["privacy__delta"] == 1e-5


def test_without_opacus_there_is_a_word_on_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "opacus"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "opacus":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "tabdiff\[privacy\]"'):
        PrivacyBudget(3).check()


def test_a_budget_too_small_for_any_noise_is_refused():
    with pytest.raises(ValueError, match="too little for any noise"):
        training_noise(PrivacyBudget(1e-6, 1e-9), 1e9, 1.0, 5000)


def test_more_steps_and_larger_batches_need_more_noise():
    budget = PrivacyBudget(3)
    noise = [training_noise(budget, 10.0, rate, steps) for rate, steps in ((0.01, 100), (0.01, 1000), (0.1, 1000))]
    assert np.all(np.diff(noise) > 0)
