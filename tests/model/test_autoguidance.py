"""Autoguidance of tables: numbers follow the other columns more closely, and the small network goes with the model."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.model import autoguidance
from tabdiff.model.autoguidance import SCALES, least_distinct, resolve_autoguidance
from tabdiff.model.defaults import SMALL_SIZE
from tabdiff.model.refinement.refinement import REFINED_STEPS
from tabdiff.training import Callback, Checkpoint

QUICK = {"hidden_size": 64, "n_blocks": 2, "refine": False, "random_state": 0, "learning_rate": 3e-3}


def table(n, seed=0):
    """A number that level and number determine but for noise of .2."""
    rng = np.random.default_rng(seed)
    a, level = rng.normal(size=n), rng.integers(6, size=n)
    b = np.abs(a) + np.array([0, 2, 1, 0, 2, 1])[level] + 0.2 * rng.normal(size=n)
    return pd.DataFrame({"a": a, "b": b, "c": pd.Categorical(list("uvwxyz")).take(level)})


def residual(rows):
    return float((rows["b"] - rows["a"].abs() - np.array([0, 2, 1, 0, 2, 1])[rows["c"].cat.codes]).std())


@pytest.fixture(scope="module")
def led():
    return DiffusionGenerator(max_steps=400, autoguidance=1.5, **QUICK).fit(table(3000))


@pytest.mark.slow
def test_numbers_follow_the_other_columns_more_closely(led):
    plain = DiffusionGenerator(max_steps=400, autoguidance=1.0, **QUICK).fit(table(3000))
    assert plain.guiding_denoiser_ is None
    assert all(torch.equal(p, q) for p, q in zip(plain.denoiser_.parameters(), led.denoiser_.parameters(), strict=True))
    spreads = [residual(gen.sample(4000, random_state=1)) for gen in (plain, led)]
    assert spreads[1] < 0.8 * spreads[0]


@pytest.mark.slow
def test_the_scale_is_the_one_at_which_rows_are_told_from_real_ones_least():
    def drawn(scale):
        rng = np.random.default_rng(int(100 * scale))
        a = rng.normal(size=6000)
        return np.stack([a, a + (0.3 + abs(scale - best)) * rng.normal(size=6000)], axis=1)

    for best in (1.0, 1.5, 2.0):
        assert least_distinct(drawn(best), drawn, [0, 0], seed=0) == best
    # Without time for another, the first is taken.
    assert least_distinct(drawn(2.0), drawn, [0, 0], seed=0, deadline=0.0) == SCALES[0]


@pytest.mark.slow
def test_by_default_a_scale_is_chosen_and_no_small_network_kept_without_need(monkeypatch):
    monkeypatch.setattr("tabdiff.model.autoguidance.MIN_TRIED_ROWS", 100)
    tried = []
    choose = autoguidance.choose_scale
    monkeypatch.setattr(
        autoguidance, "choose_scale", lambda *a, n_rows, **k: tried.append(n_rows) or choose(*a, n_rows=n_rows, **k)
    )
    wide = {**QUICK, "hidden_size": SMALL_SIZE + 8, "n_blocks": 1}
    gen = DiffusionGenerator(max_steps=60, **wide).fit(table(5000))
    assert tried == [int(0.1 * 3 * 60 * 512 / (len(SCALES) * REFINED_STEPS))]
    assert gen.autoguidance_ in SCALES
    assert (gen.guiding_denoiser_ is None) == (gen.autoguidance_ == 1)


def test_after_a_short_training_no_scale_is_looked_for(monkeypatch):
    monkeypatch.setattr(autoguidance, "choose_scale", lambda *_, **__: pytest.fail("a scale was tried"))
    gen = DiffusionGenerator(max_steps=20, **{**QUICK, "hidden_size": SMALL_SIZE + 8, "n_blocks": 1}).fit(table(5000))
    assert gen.autoguidance_ == 1 and gen.guiding_denoiser_ is None


@pytest.mark.parametrize("refine", [False, "auto"])
def test_arrays_with_conditions_weights_and_rare_numbers(refine, monkeypatch):
    monkeypatch.setattr("tabdiff.model.refinement.refinement.MIN_DRAWN", 4000)
    monkeypatch.setattr("tabdiff.model.refinement.refinement.DRAWN_PER_ROW", 1)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 3))
    X[2:, 2] = np.nan
    gen = DiffusionGenerator(**{**QUICK, "refine": refine, "max_steps": 20})
    gen.fit(X, X[:, 0] > 0, sample_weight=rng.random(5000) + 0.1)
    assert gen.autoguidance_ in SCALES
    assert gen.sample(10, True, random_state=0).shape == (10, 3)


@pytest.mark.slow
def test_the_small_network_is_smaller_and_shares_the_embeddings_of_levels(led):
    sizes = [sum(p.numel() for p in network.parameters()) for network in (led.guiding_denoiser_, led.denoiser_)]
    assert sizes[0] < 0.5 * sizes[1]
    assert torch.equal(led.guiding_denoiser_.levels, led.denoiser_.levels)
    assert not any(p.requires_grad for p in led.guiding_denoiser_.parameters())


def test_a_saved_and_a_pickled_model_draw_the_same(led, tmp_path):
    rows = led.sample(50, random_state=3)
    led.save(tmp_path / "model")
    for again in (DiffusionGenerator.load(tmp_path / "model"), pickle.loads(pickle.dumps(led))):
        pd.testing.assert_frame_equal(again.sample(50, random_state=3), rows)


def test_held_columns_stay(led):
    rows = led.sample(200, {"a": 0.5, "c": "w"}, random_state=0)
    assert (rows["a"] == 0.5).all() and (rows["c"] == "w").all()


def test_guidance_of_ones_own_is_given_the_denoiser():
    given = []
    conditional = DiffusionGenerator(max_steps=5, autoguidance=2.0, **QUICK).fit(table(100), condition="c")
    conditional.sample(3, "u", guidance_scale=2.0, guidance=lambda d, scale: given.append(d) or d)
    assert given == [conditional.denoiser_]
    assert len(conditional.sample(3, "u", guidance_scale=2.0)) == 3


class Stop(Callback):
    def on_step_end(self, training):
        if training.step == 30:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_fit_that_was_stopped_goes_on_to_the_same_networks(tmp_path):
    settings = {**QUICK, "max_steps": 60, "autoguidance": 1.5}
    whole = DiffusionGenerator(**settings).fit(table(300))
    with pytest.raises(KeyboardInterrupt):
        DiffusionGenerator(**settings, callbacks=[Stop(), Checkpoint(tmp_path, every=0)]).fit(table(300))
    again = DiffusionGenerator(**settings).fit(table(300), resume_from=tmp_path)
    pd.testing.assert_frame_equal(again.sample(20, random_state=0), whole.sample(20, random_state=0))


def test_auto_is_for_large_tables_of_numbers_that_an_mlp_of_some_width_draws():
    def resolved(n_rows, **settings):
        columns = settings.pop("columns", ["a", "b", "c"])
        settings = {"max_steps": 1, "hidden_size": SMALL_SIZE + 8, "n_blocks": 1, "refine": False, **settings}
        gen = DiffusionGenerator(**settings).fit(table(50)[columns])
        return resolve_autoguidance("auto", gen.codec_, gen.model_.config, n_rows)

    assert resolved(5000) is None
    assert resolved(4999) == resolved(5000, columns=["c"]) == resolved(5000, denoiser="dit") == 1
    assert resolved(5000, hidden_size=SMALL_SIZE) == 1


@pytest.mark.parametrize("value", ["yes", -1.0, np.nan, np.inf, True, None])
def test_bad_scales_are_refused(value):
    with pytest.raises((ValueError, TypeError), match="autoguidance"):
        DiffusionGenerator(autoguidance=value, max_steps=2).fit(table(50))


def test_a_scale_without_numbers_or_mlp_is_refused():
    with pytest.raises(ValueError, match=r"autoguidance=2\.0"):
        DiffusionGenerator(autoguidance=2.0, max_steps=2).fit(table(50)[["c"]])
    with pytest.raises(ValueError, match=r"autoguidance=2\.0"):
        DiffusionGenerator(autoguidance=2.0, max_steps=2, denoiser="dit").fit(table(50))


def test_the_small_network_is_asked_for_numbers_alone(led):
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(6, led.model_.config.width, generator=generator), torch.tensor(0.4)
    data = led.codec_.encode(table(6), None, None)
    some = torch.where(torch.rand(data.shape, generator=generator) < 0.5, data, torch.nan)
    assert some[:, :2].isfinite().any()
    for condition in (None, some):
        whole = led.guiding_denoiser_(x, t, condition)
        torch.testing.assert_close(led.guiding_denoiser_.numbers(x, t, condition), whole[:, :2], rtol=0, atol=0)
        led_rows = led.model_.guided(x, t, condition)
        strong = led.denoiser_(x, t, condition)
        expected = whole[:, :2] + led.autoguidance_ * (strong[:, :2] - whole[:, :2])
        torch.testing.assert_close(led_rows, torch.cat([expected, strong[:, 2:]], dim=1), rtol=0, atol=0)
