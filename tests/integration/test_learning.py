"""What is learned from data agrees with the distribution that the data came from."""

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator

pytestmark = pytest.mark.exhaustive

N = 4000


def learn(X, parameters=None, **kwargs):
    # A few seconds on one core, and enough for two dimensions.
    gen = DiffusionGenerator(hidden_size=64, n_blocks=2, max_steps=1500, batch_size=256, random_state=0)
    return gen.set_params(**(parameters or {})).fit(X, **kwargs)


def test_component_weights_of_a_mixture_lie_within_three_standard_errors():
    rng = np.random.default_rng(0)
    means, weights = np.array([[-3.0, 0.0], [2.0, 3.0], [2.0, -3.0]]), np.array([0.5, 0.3, 0.2])
    component = rng.choice(3, size=N, p=weights)
    X = means[component] + 0.5 * rng.normal(size=(N, 2))
    sample = learn(X, {"hidden_size": 128, "n_blocks": 3, "max_steps": 3000}).sample(N, random_state=1)
    nearest = ((sample[:, None] - means) ** 2).sum(-1).argmin(1)
    learned, seen = np.bincount(nearest, minlength=3) / N, np.bincount(component, minlength=3) / N
    assert (np.abs(learned - seen) < 3 * np.sqrt(seen * (1 - seen) / N)).all(), (learned, seen)
    # Robust spread: the few rows between components belong to none.
    spread = np.diff(np.quantile(sample - means[nearest], [0.16, 0.84], axis=0), axis=0) / 2
    assert np.abs(spread - 0.5).max() < 0.06
    assert (np.abs(sample - means[nearest]).max(axis=1) > 2.5).mean() < 0.03


@pytest.fixture(scope="module")
def conditional():
    """x0 = 2 dose + shift(group) + noise; x1 = x0 + noise: Gaussian given the condition, with known moments."""
    rng = np.random.default_rng(1)
    group = rng.choice(["a", "b", "c"], size=N)
    dose = rng.uniform(0, 3, size=N)
    shift = pd.Series(group).map({"a": 0.0, "b": 3.0, "c": -3.0}).to_numpy()
    x0 = 2 * dose + shift + 0.5 * rng.normal(size=N)
    x1 = x0 + 0.5 * rng.normal(size=N)
    return pd.DataFrame({"x0": x0, "x1": x1, "group": group, "dose": dose})


def check_moments(sample, mean, variance, tolerance):
    assert sample["x0"].mean() == pytest.approx(mean, abs=tolerance)
    assert sample["x0"].std() == pytest.approx(np.sqrt(variance), rel=0.12, abs=0.04)
    assert (sample["x1"] - sample["x0"]).std() == pytest.approx(0.5, abs=0.1)


def test_a_class_condition_gives_its_conditional(conditional):
    gen = learn(conditional.drop(columns="dose"), condition="group")
    for label, shift in {"a": 0.0, "b": 3.0, "c": -3.0}.items():
        check_moments(gen.sample(1500, condition=label, random_state=0), 3 + shift, 4 * 9 / 12 + 0.25, 0.2)


def test_a_continuous_condition_gives_its_conditional(conditional):
    only_a = conditional[conditional["group"] == "a"].drop(columns="group").reset_index(drop=True)
    gen = learn(only_a, condition="dose")
    for dose in (0.4, 1.5, 2.6):
        check_moments(gen.sample(1500, condition=dose, random_state=0), 2 * dose, 0.25, 0.15)


def test_several_conditions_at_once_give_their_conditional_also_at_an_unseen_pair(conditional):
    # Group c was never measured between doses 1 and 2.
    hole = (conditional["group"] == "c") & conditional["dose"].between(1, 2)
    gen = learn(conditional[~hole].reset_index(drop=True), condition=["group", "dose"])
    for group, dose, mean in (("a", 0.5, 1.0), ("b", 2.5, 8.0), ("c", 1.5, 0.0)):
        sample = gen.sample(1500, condition={"group": group, "dose": dose}, random_state=0)
        assert sample["x0"].mean() == pytest.approx(mean, abs=0.25)
        if group != "c":  # nothing says how wide it is where nothing was measured
            check_moments(sample, mean, 0.25, 0.2)
    # A partial condition averages over what is left open.
    partial = gen.sample(1500, condition={"dose": 2.5}, random_state=0)
    assert partial["x0"].mean() == pytest.approx(5.0, abs=0.4)


def test_guidance_moves_samples_away_from_the_other_classes(conditional):
    gen = learn(conditional.drop(columns="dose"), condition="group")
    means = [gen.sample(800, condition="b", guidance_scale=s, random_state=0)["x0"].mean() for s in (0.0, 1.0, 2.0)]
    assert means[0] == pytest.approx(conditional["x0"].mean(), abs=0.4)
    assert means[0] < means[1] < means[2]
