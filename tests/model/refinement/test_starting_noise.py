"""Noise that leads to rejected rows is not walked from, and what is kept is distributed as if all had been."""

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.model.refinement.refinement import MarginalMap, Refinement
from tabdiff.model.refinement.starting_noise import LEAST, MAX_SHIFT, StartingNoise


def chance(rows):
    """Of rows of which the first number decides, where it is known from the noise, and chance does elsewhere."""
    return 0.05 + 0.9 / (1 + np.exp(2 - 4 * rows[:, 0]))


def learned(n=20_000):
    z = torch.randn((n, 4), generator=torch.Generator().manual_seed(1))
    return StartingNoise.fit(z, chance(z.numpy()))


def test_noise_is_kept_more_often_where_rows_are_and_chances_make_up_for_it():
    start = learned()
    assert start.gain_ > 1.3
    noise, log_a = start.draw(50_000, torch.Generator().manual_seed(0))
    assert noise[:, 0].mean() > 0.3 and noise[:, 1:].mean(0).abs().max() < 0.02
    assert log_a.max() <= 0 and log_a.min() >= np.log(LEAST)
    # Weighted by what follows, rows are those of the chances themselves, but for what may be moved.
    whole = torch.randn((50_000, 4), generator=torch.Generator().manual_seed(2)).numpy()
    follows = np.minimum(chance(noise.numpy()) / np.exp(log_a), 1)
    edges = np.linspace(-3, 3, 25)
    ours, wanted = (
        np.histogram(x[:, 0], edges, weights=w)[0] / w.sum() for x, w in ((noise, follows), (whole, chance(whole)))
    )
    assert 0.5 * np.abs(ours - wanted).sum() < MAX_SHIFT + 0.01
    assert follows.mean() == pytest.approx(start.gain_ * chance(whole).mean(), rel=0.03)


@pytest.mark.parametrize("n", [800, 20_000])
def test_all_noise_is_walked_from_where_nothing_is_known_of_it(n):
    z = torch.randn((n, 4), generator=torch.Generator().manual_seed(0))
    assert StartingNoise.fit(z, np.random.default_rng(0).random(n)) is None
    assert StartingNoise.fit(z, np.zeros(n)) is None


def test_a_state_and_a_seed_give_the_same_noise():
    start = learned(3000)
    again = StartingNoise.from_state(start.state())
    (a, p), (b, q) = (s.draw(100, torch.Generator().manual_seed(3)) for s in (start, again))
    assert torch.equal(a, b) and np.array_equal(p, q)


@pytest.mark.parametrize("reject_noise", [True, False])
def test_rows_are_those_of_the_chances_and_fewer_are_walked_to(monkeypatch, reject_noise):
    refinement, generator = Refinement(1, [0]), torch.Generator().manual_seed(0)
    refinement.marginals_, refinement.acceptance_ = MarginalMap(np.empty((1, 0))), 0.35
    refinement.start_ = learned()
    monkeypatch.setattr(refinement, "map", lambda rows: rows)
    monkeypatch.setattr(refinement, "_log_chance", lambda rows: np.log(chance(rows)))
    walked = []

    def draw_rows(places, noise=None):
        walked.append(len(places))
        return torch.randn((len(places), 4), generator=generator) if noise is None else noise

    rows = refinement.draw(
        20_000,
        draw_rows,
        lambda rows, places: rows.numpy(),
        generator,
        np.zeros(20_000, dtype=int),
        reject_noise=reject_noise,
    )
    whole = np.random.default_rng(0).normal(size=(400_000, 4))
    wanted = np.average(whole[:, 0] > 0, weights=chance(whole))
    assert (rows[:, 0] > 0).float().mean().item() == pytest.approx(wanted, abs=0.015)
    assert (sum(walked) < 50_000) is reject_noise


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    first, number = rng.random(2000) < 0.5, rng.exponential(size=2000).round(2)
    rows = pd.DataFrame({"gain": np.where(first, number, 0.0), "loss": np.where(first, 0.0, number)})
    rows["kind"] = np.where(first, "a", rng.choice(["b", "c"], 2000))
    return DiffusionGenerator(max_steps=80, hidden_size=32, n_blocks=1, refine=True, random_state=0).fit(rows)


def test_a_fit_learns_of_it_and_a_saved_model_draws_the_same(fitted, tmp_path):
    # A short fit is drawn few rows from: from more of them noise is learned of.
    model = fitted.model_
    z = torch.randn((4000, model.config.width), generator=torch.Generator().manual_seed(0))
    fitted.refinement_.start_ = StartingNoise.fit(z, 0.02 + 0.9 * (z[:, 0] > 0).double().numpy())
    rows = fitted.sample(1500, random_state=0)
    pd.testing.assert_frame_equal(rows, fitted.sample(1500, random_state=0))
    fitted.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    assert loaded.refinement_.start_ is not None
    pd.testing.assert_frame_equal(rows, loaded.sample(1500, random_state=0))
    # A sampler that was asked for leads elsewhere from the same noise.
    asked = fitted.sample(50, steps=5, random_state=0)
    fitted.refinement_.start_ = None
    pd.testing.assert_frame_equal(asked, fitted.sample(50, steps=5, random_state=0))
    assert not rows.equals(fitted.sample(1500, random_state=0))


@pytest.mark.slow
def test_the_number_of_processes_changes_no_row(fitted):
    z = torch.randn((4000, fitted.model_.config.width), generator=torch.Generator().manual_seed(0))
    fitted.refinement_.start_ = StartingNoise.fit(z, 0.02 + 0.9 * (z[:, 0] > 0).double().numpy())
    rows = fitted.sample(2500, random_state=0)
    pd.testing.assert_frame_equal(rows, fitted.sample(2500, random_state=0, n_jobs=2))


def test_a_fit_with_a_condition_walks_from_all_noise(fitted):
    rows = fitted.sample(1200, random_state=0)
    conditional = DiffusionGenerator(max_steps=80, hidden_size=32, n_blocks=1, refine=True, random_state=0)
    assert conditional.fit(rows, condition="kind").refinement_.start_ is None
