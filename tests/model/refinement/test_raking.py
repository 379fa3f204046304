"""Raked rows have the real rows' columns and pairs."""

import numpy as np
import pytest

from tabdiff.model.refinement import raking
from tabdiff.model.refinement.raking import Raking


def sample(rng, n, shift, link):
    """A number with holes, a level, and a level that goes with the number's sign."""
    x = rng.normal(shift, 1, n)
    level = rng.choice(3, size=n, p=[0.5, 0.3, 0.2] if shift else [0.4, 0.4, 0.2])
    linked = np.where(rng.random(n) < link, x > 0, rng.random(n) < 0.5)
    x = np.where(rng.random(n) < 0.1 + 0.1 * (shift != 0), np.nan, x)
    return np.stack([x, level, linked], axis=1)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return sample(rng, 20_000, 0.0, 0.6), sample(rng, 60_000, 0.1, 0.5), sample(rng, 60_000, 0.1, 0.5)


def shares(x, w):
    """Of missing numbers, of positive ones, of levels, of positive numbers among the linked."""
    positive, w = x[:, 0] > 0, w / w.sum()
    linked = x[:, 2] == 1
    return np.array(
        [w @ np.isnan(x[:, 0]), w @ positive, *(w @ (x[:, 1] == k) for k in range(3)), w @ (positive & linked)]
    )


def test_fresh_rows_get_the_shares_of_the_real_ones(rows, monkeypatch):
    real, drawn, fresh = rows
    truth, before = shares(real, np.ones(len(real))), shares(fresh, np.ones(len(fresh)))
    weight = np.exp(Raking().fit(real, drawn, [0, 3, 2]).log_weight(fresh))
    assert abs(weight.mean() - 1) < 0.02
    after = shares(fresh, weight)
    assert np.abs(before - truth)[[0, 2, 3, 5]].min() > 0.02
    assert np.abs(after - truth).max() < 0.012  # four standard errors of a share of 60,000 rows and of 20,000
    # Columns alone do not mend the pair.
    monkeypatch.setattr(raking, "MAX_PAIRS", 0)
    alone = shares(fresh, np.exp(Raking().fit(real, drawn, [0, 3, 2]).log_weight(fresh)))
    assert abs(alone[5] - truth[5]) > 2 * abs(after[5] - truth[5])


def test_equal_rows_keep_weights_of_one(rows):
    _, drawn, fresh = rows
    weight = np.exp(Raking().fit(drawn[:20_000], fresh, [0, 3, 2]).log_weight(drawn[20_000:]))
    assert weight.std() < 0.09  # the noise of 50 cells in 15,000 rows is .06


def test_weights_of_the_real_rows_count(rows):
    real, drawn, fresh = rows
    own = np.where(real[:, 1] == 2, 3.0, 1.0)
    weight = np.exp(Raking().fit(real, drawn, [0, 3, 2], weight=own).log_weight(fresh))
    assert np.abs(shares(fresh, weight) - shares(real, own)).max() < 0.015


def test_weights_of_the_drawn_rows_are_where_raking_starts(rows):
    real, drawn, fresh = rows
    chance = [np.where(part[:, 1] == 2, 0.1, 0.9) for part in (drawn, fresh)]
    weight = np.exp(Raking().fit(real, drawn, [0, 3, 2], drawn_weight=chance[0]).log_weight(fresh))
    assert np.abs(shares(fresh, chance[1] * weight) - shares(real, np.ones(len(real)))).max() < 0.015


def test_state_brings_the_same_weights_back(rows):
    real, drawn, fresh = rows
    fitted = Raking().fit(real, drawn, [0, 3, 2])
    again = Raking.from_state(fitted.state())
    assert np.array_equal(fitted.log_weight(fresh), again.log_weight(fresh))


def test_columns_without_a_value_and_unknown_levels_are_cells_too():
    rng = np.random.default_rng(0)
    real = np.stack([np.full(500, np.nan), rng.integers(0, 2, 500)], axis=1)
    drawn = np.stack([rng.normal(size=500), rng.integers(0, 3, 500)], axis=1)
    weight = Raking().fit(real, drawn, [0, 3]).log_weight(drawn)
    assert np.isfinite(weight).all()


def test_of_many_pairs_those_that_differ_are_kept(monkeypatch):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4_000, 8))
    real = rng.normal(size=(4_000, 8))
    real[:, 5] = 0.8 * real[:, 2] + 0.6 * real[:, 5]
    monkeypatch.setattr(raking, "MAX_PAIRS", 3)
    fitted = Raking().fit(real, drawn, [0] * 8)
    assert (2, 5) in fitted.tables_
    assert len(fitted.tables_) == 8 + 3


def test_rare_levels_of_wide_columns_have_cells_of_their_own():
    rng = np.random.default_rng(0)
    n_levels = 300
    off = rng.permutation(np.repeat([0.7, 1.3], n_levels // 2))
    real = rng.integers(0, n_levels, (100_000, 1)).astype(float)
    drawn = rng.choice(n_levels, size=(200_000, 1), p=off / off.sum()).astype(float)
    raked = Raking().fit(real, drawn, [n_levels])
    assert len(raked.shares_[0]) == n_levels + 1  # and one for missing values
    weight = np.exp(raked.log_weight(np.arange(n_levels, dtype=float)[:, None]))
    assert np.corrcoef(weight, 1 / off)[0, 1] > 0.95
