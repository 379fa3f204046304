from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.diffusion.generate import draw
from tabdiff.model.distillation import MAX_STEPS, MIN_STEPS, distil, distillation_steps
from tabdiff.model.persistence import describe, restore

DISTILLED = TrainingOptions(distillation=True)


def rows_of(n):
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=n)
    x = rng.normal(size=n) + 2 * kind
    return pd.DataFrame({"kind": np.array(["a", "b", "c"])[kind], "x": x, "y": x + 0.3 * rng.normal(size=n)})


@pytest.fixture(scope="module")
def table():
    return rows_of(1500)


@pytest.fixture(scope="module")
def gen(table):
    return DiffusionGenerator(max_steps=900, hidden_size=16, n_blocks=1, random_state=0, training=DISTILLED).fit(table)


def encoded(model, seed=0, **settings):
    return draw(
        model.denoiser,
        500,
        None,
        width=model.config.width,
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )


def test_steps_are_a_share_of_the_training_steps():
    assert distillation_steps(10) == 0 == distillation_steps(500)
    assert MIN_STEPS <= distillation_steps(900) < distillation_steps(1800) < MAX_STEPS
    assert distillation_steps(10**6) == MAX_STEPS


def test_a_copy_in_four_steps_ends_where_the_sampler_does(gen):
    model = gen.model_
    few = model.distilled
    assert len(few.times) == 5 and list(few.times) == sorted(few.times, reverse=True)
    x = [0, 1]
    taught = encoded(model, guided=model.guided, method="auto", steps=16)[:, x]
    other = encoded(model, seed=1, guided=model.guided, method="auto", steps=16)[:, x]
    learned = encoded(model, **few.settings())[:, x]
    alone = encoded(model, guided=model.guided, method="ddim", steps=5)[:, x]

    def distance(rows):
        return float((rows - taught).square().mean().sqrt())

    assert distance(learned) < 0.25 * distance(other)
    assert distance(learned) < 0.75 * distance(alone)


def test_it_leaves_the_first_network_as_it_is(gen):
    model = gen.model_
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    few = distil(
        model.denoiser,
        model.guided,
        None,
        width=model.config.width,
        n_steps=MIN_STEPS,
        trained=10_000,
        precision="float32",
        seed=0,
    )
    after = model.denoiser.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(few.denoiser.state_dict()["levels"], before["levels"])
    assert not any(p.requires_grad for p in few.denoiser.parameters())


def test_it_repeats_with_a_seed_and_needs_time(gen):
    model = gen.model_
    settings = {"width": model.config.width, "n_steps": MIN_STEPS, "trained": 10_000, "precision": "float32", "seed": 3}
    one, two = (distil(model.denoiser, model.guided, None, **settings).denoiser.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert distil(model.denoiser, model.guided, None, **settings, seconds=1e-6) is None


def test_refined_rows_come_of_it_unless_steps_are_given(gen):
    own = gen.sample(50, random_state=0)
    model = gen.model_
    without = DiffusionGenerator(max_steps=900, hidden_size=16, n_blocks=1)
    without.__dict__.update({**gen.__dict__, "model_": replace(model, distilled=None)})
    assert not own.equals(without.sample(50, random_state=0))
    assert gen.sample(50, random_state=0, steps=16).equals(without.sample(50, random_state=0, steps=16))
    assert own.equals(gen.sample(50, random_state=0, n_jobs=2))


def test_it_is_saved_with_the_model(gen):
    model = gen.model_
    read, _ = restore(describe(model, gen.get_params(deep=False)))
    assert read.distilled.times == model.distilled.times
    weights, kept = read.distilled.denoiser.state_dict(), model.distilled.denoiser.state_dict()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


@pytest.mark.parametrize("times", [[0.5, 0.9], [2.0, 0.1], []])
def test_times_of_a_file_that_are_no_path_are_refused(gen, times):
    saved = describe(gen.model_, gen.get_params(deep=False))
    saved["distilled"]["times"] = times
    with pytest.raises(ValueError, match="decrease"):
        restore(saved)


@pytest.mark.slow
def test_it_has_to_be_asked_for_and_is_left_out_where_training_is_short(table):
    settings = {"hidden_size": 8, "n_blocks": 1, "random_state": 0, "refine": True}
    off = DiffusionGenerator(max_steps=850, **settings).fit(table)
    short = DiffusionGenerator(max_steps=30, training=DISTILLED, **settings).fit(table)
    assert off.model_.distilled is None and short.model_.distilled is None
    with pytest.raises(ValueError, match="distillation must be True or False; got 3"):
        DiffusionGenerator(training=TrainingOptions(distillation=3)).fit(table)


@pytest.mark.slow
@pytest.mark.parametrize(("n_timesteps", "distilled"), [(3, False), (10, False), (16, True), (40, True)])
def test_times_that_are_few(table, n_timesteps, distilled):
    settings = {
        "hidden_size": 8,
        "n_blocks": 1,
        "random_state": 0,
        "refine": True,
        "autoguidance": 1.5,
        "training": DISTILLED,
    }
    gen = DiffusionGenerator(max_steps=850, n_timesteps=n_timesteps, **settings).fit(table)
    assert (gen.model_.distilled is not None) is distilled
    assert len(gen.sample(1000, random_state=0)) == 1000


@pytest.mark.slow
def test_an_array_of_numbers_alone(table):
    X = table[["x", "y"]].to_numpy()
    gen = DiffusionGenerator(
        max_steps=900, hidden_size=16, n_blocks=1, random_state=0, refine=True, training=DISTILLED
    ).fit(X)
    assert len(gen.model_.distilled.times) == 4 and not gen.model_.denoiser.has_levels
    assert abs(np.corrcoef(gen.sample(1000, random_state=0).T)[0, 1] - np.corrcoef(X.T)[0, 1]) < 0.03


@pytest.mark.slow
def test_conditions_and_numbers_alone(table):
    gen = DiffusionGenerator(max_steps=850, hidden_size=8, n_blocks=1, random_state=0, refine=True, training=DISTILLED)
    gen.fit(table, condition="kind")
    assert gen.model_.distilled is not None
    drawn = gen.sample(condition={"kind": {"a": 40, "c": 60}}, random_state=0)
    means = drawn.groupby("kind")["x"].mean()
    assert abs(means["a"]) < 1.0 and abs(means["c"] - 4) < 1.0
