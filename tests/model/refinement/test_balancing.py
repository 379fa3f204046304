"""Rows that are chosen together hold the shares of the real ones more closely than rows that are chosen one by one."""

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.model.refinement.balancing import MIN_BALANCED, balance
from tabdiff.model.refinement.refinement import Refinement


def test_cells_come_close_to_their_shares_and_scores_decide_within_them():
    rng = np.random.default_rng(0)
    m, n = 20_000, 5_000
    a, b = rng.integers(0, 4, m), rng.integers(0, 3, m)
    score = -rng.exponential(size=m)
    shares = np.array([0.28, 0.24, 0.24, 0.24]), np.array([0.36, 0.32, 0.32])
    group, size = np.zeros(m, dtype=int), np.array([n])
    plain = np.argsort(-score)[:n]
    chosen = balance([a, b], shares, 2, score, group, size)
    assert chosen.sum() == n
    for code, share in zip((a, b), shares, strict=True):
        before, after = (np.abs(np.bincount(code[i]) / n - share).max() for i in (plain, chosen))
        assert before > 0.02 and after < 0.005
    # Within a cell of both tables the tilt is the same, and so the order is that of the scores.
    for cell in range(12):
        own = 3 * a + b == cell
        assert score[own & chosen].min() > score[own & ~chosen].max()


def test_shares_that_are_right_already_change_next_to_nothing():
    m, n = 9000, 3000
    code = np.arange(m) % 3
    score = -np.repeat(np.arange(m // 3), 3).astype(float)
    chosen = balance([code], [np.full(3, 1 / 3)], 1, score, np.zeros(m, dtype=int), np.array([n]))
    assert chosen[:n].all()


def test_columns_by_themselves_come_closer_than_pairs():
    rng = np.random.default_rng(0)
    m, n = 40_000, 10_000
    code = rng.integers(0, 200, m)
    # A diffusion model's levels are off by a fifth or so.
    share = rng.permutation(np.repeat([0.8, 1.2], 100)) / 200
    score, group, size = -rng.exponential(size=m), np.zeros(m, dtype=int), np.array([n])
    errors = []
    for n_columns in (0, 1):
        chosen = balance([code], [share], n_columns, score, group, size)
        errors.append(np.abs(np.bincount(code[chosen], minlength=200) / n - share).sum() / 2)
    assert errors[1] < 0.3 * errors[0]


def test_every_group_keeps_its_number_of_places():
    rng = np.random.default_rng(1)
    size = np.array([500, 1500, 1])
    group = np.repeat([0, 1, 2], 2 * size)
    code = rng.integers(0, 2, len(group))
    chosen = balance([code], [np.array([0.7, 0.3])], 1, rng.normal(size=len(group)), group, size)
    assert np.array_equal(np.bincount(group[chosen]), size)
    assert np.bincount(code[chosen])[0] / size.sum() > 0.6


def refinement_of_codes():
    """A model that draws a one in half of the rows, where real rows have three of ten."""
    rng = np.random.default_rng(0)
    real = np.where(rng.random((20_000, 1)) < 0.7, 0.0, 1.0)
    generator = torch.Generator().manual_seed(0)

    def draw_rows(places):
        return (torch.rand((len(places), 1), generator=generator) < 0.5).float()

    refinement = Refinement(0, [2]).fit(real, draw_rows(torch.arange(20_000)), lambda rows: rows.numpy(), seed=0)
    return real, refinement, draw_rows, generator


def test_rejection_draws_from_the_real_distribution():
    # The column is a code: the marginal map has nothing to do.
    _, refinement, draw_rows, generator = refinement_of_codes()
    drawn = refinement.draw(20_000, draw_rows, lambda rows, places: rows.numpy(), generator)
    assert drawn.shape == (20_000, 1)
    assert abs(drawn.mean().item() - 0.3) < 0.015


def test_balanced_rows_have_the_shares_of_the_real_ones():
    real, refinement, draw_rows, generator = refinement_of_codes()
    errors = {}
    for balanced in (False, True):
        shares = [
            refinement.draw(
                2000,
                draw_rows,
                lambda rows, places: rows.numpy(),
                generator,
                np.zeros(2000, dtype=int),
                balanced=balanced,
            )
            .mean()
            .item()
            for _ in range(20)
        ]
        errors[balanced] = np.sqrt(np.mean((np.array(shares) - real.mean()) ** 2))
    # A sample of 2,000 rows misses a share of .3 by .01.
    assert errors[False] > 0.006 and errors[True] < 0.5 * errors[False]


def test_models_without_shares_draw_as_before():
    _, refinement, draw_rows, generator = refinement_of_codes()
    state = refinement.state()
    again = Refinement.from_state(state)
    assert all(np.array_equal(a, b) for a, b in zip(again.raking_.shares_, refinement.raking_.shares_, strict=True))
    del state["raking"]["shares"]
    old = Refinement.from_state(state)
    rows = old.draw(2000, draw_rows, lambda rows, places: rows.numpy(), generator, balanced=True)
    assert rows.shape == (2000, 1) and old.raking_.shares_ == []


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    frame = pd.DataFrame({"x": x, "y": x + rng.normal(size=3000), "kind": rng.choice(list("abc"), 3000)})
    settings = {"hidden_size": 32, "n_blocks": 1, "max_steps": 100, "refine": True}
    return frame, DiffusionGenerator(random_state=0, **settings).fit(frame, condition="kind")


@pytest.mark.slow
def test_only_rows_at_the_conditions_of_the_training_rows_are_balanced(model, monkeypatch):
    _, gen = model
    calls = []

    def watched(*args):
        calls.append(args)
        return balance(*args)

    monkeypatch.setattr("tabdiff.model.refinement.refinement.balance", watched)
    gen.sample(MIN_BALANCED, condition="a", random_state=0)
    gen.sample(MIN_BALANCED, condition={"kind": ["a", "b"] * (MIN_BALANCED // 2)}, random_state=0)
    gen.sample(MIN_BALANCED - 1, random_state=0)
    assert calls == []
    gen.sample(MIN_BALANCED, random_state=0)
    assert len(calls) == 1


def test_rows_of_a_conditional_model_stay_with_their_conditions(model):
    frame, gen = model
    rows = gen.sample(3000, random_state=0)
    share = frame["kind"].value_counts(normalize=True)
    assert np.abs(rows["kind"].value_counts(normalize=True) - share).max() < 0.05
    for name in ("x", "y"):
        cut = frame[name].quantile(np.linspace(0, 1, 11)).to_numpy()
        assert np.abs(np.histogram(rows[name], cut)[0] / len(rows) - 0.1).max() < 0.01
    pd.testing.assert_frame_equal(rows, gen.sample(3000, random_state=0))
