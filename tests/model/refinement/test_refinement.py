"""Refined samples follow the data where the model's own do not."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest
from sklearn.ensemble import HistGradientBoostingClassifier

from tabdiff import DiffusionGenerator
from tabdiff.diffusion.generate import PIECE_ROWS, draw_in_time
from tabdiff.evaluation.tables import c2st
from tabdiff.model.refinement.density_ratio import TIMED_TREES, DensityRatio
from tabdiff.model.refinement.refinement import (
    LEAST_DRAWN,
    MAX_SHIFT,
    MIN_KEPT,
    PATIENT_STEPS,
    REFINED_STEPS,
    TRAINING_EVALUATIONS,
    MarginalMap,
    Refinement,
    _boost,
    refinement_rows,
)
from tabdiff.model.refinement.rejection import pair


def test_marginal_map_makes_a_skewed_sample_standard_normal():
    rng = np.random.default_rng(0)
    sample, fresh = rng.exponential(size=(20_000, 1)) * 3 + 1, rng.exponential(size=(5_000, 1)) * 3 + 1
    mapped = MarginalMap(sample)(fresh)[:, 0]
    assert kstest(mapped, "norm").statistic < 1.6 / np.sqrt(5_000)
    assert (np.diff(MarginalMap(sample)(np.linspace(-5, 40, 500)[:, None])[:, 0]) >= 0).all()
    with_holes = np.where(rng.random(sample.shape) < 0.3, np.nan, sample)
    assert np.array_equal(np.isnan(MarginalMap(with_holes)(with_holes)), np.isnan(with_holes))


def test_trees_copied_to_arrays_predict_what_they_did():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 4)).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = np.nan
    y = (np.nan_to_num(X[:, 0] * X[:, 1]) + np.isnan(X[:, 2]) > 0.3).astype(int)
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(X, y)
    ratio = DensityRatio()
    ratio.scales_ = [None] * 4
    ratio._read_trees(model)
    np.testing.assert_allclose(ratio.log_ratio(X), model.decision_function(X), atol=1e-4)


def test_density_ratio_of_two_normals_and_of_levels():
    rng = np.random.default_rng(0)
    shares = np.array([[0.5, 0.3, 0.2], [0.25, 0.3, 0.45]])
    rows = [
        np.stack([rng.normal(mean, 1, 20_000), rng.choice(3, size=20_000, p=p)], axis=1)
        for mean, p in zip((0.0, 0.5), shares, strict=True)
    ]
    ratio = DensityRatio().fit(*rows, [0, 3], seed=0)
    x = np.linspace(-1.5, 2, 8)
    for level in range(3):
        truth = 0.125 - 0.5 * x + np.log(shares[0, level] / shares[1, level])
        estimate = ratio.log_ratio(np.stack([x, np.full(8, level)], axis=1))
        assert np.abs(estimate - truth).mean() < 0.25  # of a range of 2
    again = DensityRatio.from_state(ratio.state())
    assert np.array_equal(again.log_ratio(rows[0]), ratio.log_ratio(rows[0]))


@pytest.mark.parametrize(("n", "m"), [(200, 2400), (2400, 200)])
def test_density_ratio_does_not_depend_on_how_many_rows_each_side_has(n, m):
    """Rows of one distribution have the ratio 1; counted as they are, it would be that of the numbers, up to 15."""
    rng = np.random.default_rng(0)
    ratio = DensityRatio().fit(rng.normal(size=(n, 1)), rng.normal(size=(m, 1)), [0], seed=0)
    assert abs(np.log(np.exp(ratio.log_ratio(rng.normal(size=(1000, 1)))).mean())) < 0.5


def test_density_ratio_passes_over_a_column_that_is_missing_everywhere():
    rng = np.random.default_rng(0)
    real, drawn = (np.stack([rng.normal(mean, 1, 2000), np.full(2000, np.nan)], axis=1) for mean in (0.0, 1.0))
    ratio = DensityRatio().fit(real, drawn, [0, 0], seed=0)
    assert ratio.log_ratio(real).mean() > ratio.log_ratio(drawn).mean() + 0.5


def keeping(monkeypatch, ones, zeros):
    """A refinement of a column of zeros and ones that keeps each with a known probability."""
    refinement = Refinement(0, [2])
    refinement.marginals_, refinement.acceptance_ = MarginalMap(np.empty((1, 0))), 0.02
    monkeypatch.setattr(refinement, "_log_chance", lambda rows: np.log(np.where(rows[:, 0] > 0, ones, zeros)))
    return refinement, torch.Generator().manual_seed(0)


def test_rows_that_are_seldom_kept_still_follow_their_chances(monkeypatch):
    # Half of the places have no row that was kept when the rounds are over.
    refinement, generator = keeping(monkeypatch, ones=0.03, zeros=0.01)

    def draw_rows(places):
        return (torch.rand((len(places), 1), generator=generator) < 0.5).float()

    for group in (None, np.zeros(20_000, dtype=int)):
        drawn = refinement.draw(20_000, draw_rows, lambda rows, places: rows.numpy(), generator, group)
        assert abs(drawn.mean().item() - 0.75) < 0.015


def test_each_condition_keeps_the_distribution_of_its_own(monkeypatch):
    refinement, generator = keeping(monkeypatch, ones=0.05, zeros=0.002)
    group = np.tile([0, 1], 10_000)
    drawn_share = np.array([0.1, 0.02])

    def draw_rows(places):
        p = torch.from_numpy(drawn_share[group])[places][:, None]
        return (torch.rand((len(places), 1), generator=generator) < p).float()

    drawn = refinement.draw(20_000, draw_rows, lambda rows, places: rows.numpy(), generator, group)[:, 0].numpy()
    wanted = drawn_share * 0.05 / (drawn_share * 0.05 + (1 - drawn_share) * 0.002)
    # Few of the rarer value are drawn at all in 32 rounds, and those that are take the places of others.
    for k, tolerance in ((0, 0.02), (1, 0.03)):
        own = drawn[group == k]
        assert abs(own.mean() - wanted[k]) < tolerance
        assert abs(own[:5_000].mean() - own[5_000:].mean()) < 0.03


def test_pairing_joins_equal_groups_once():
    wanting, offered = np.array([2, 0, 1, 0, 2]), np.array([0, 2, 2, 2, 3])
    a, b = pair(wanting, offered)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 1), (1, 0), (4, 2)]


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    n = 2000
    kind = rng.choice(["a", "b", "c"], size=n)
    x = rng.normal(size=n)
    # One of two numbers is zero, which a short fit gets wrong.
    first = rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "kind": kind,
            "x": x,
            "gain": np.where(first, rng.exponential(size=n).round(2), 0.0),
            "loss": np.where(first, 0.0, rng.exponential(size=n).round(2)),
        }
    )


@pytest.fixture(scope="module")
def fitted(planted):
    return DiffusionGenerator(max_steps=200, hidden_size=64, n_blocks=2, refine=True, random_state=0).fit(
        planted, condition="kind"
    )


@pytest.mark.slow
def test_refined_rows_are_harder_to_tell_from_real_ones(planted, fitted):
    refined = fitted.sample(2000, random_state=1)
    fitted.set_params(refine=False)
    raw = fitted.sample(2000, random_state=1)
    fitted.set_params(refine="auto")
    assert c2st(planted, refined) > c2st(planted, raw) + 0.05
    both = ((frame["gain"] > 0) & (frame["loss"] > 0) for frame in (refined, raw))
    assert next(both).mean() < 0.5 * next(both).mean()


def test_conditions_counts_and_seeds_hold_under_refinement(fitted, tmp_path):
    rows = fitted.sample(condition={"kind": {"a": 30, "c": 20}}, random_state=0)
    assert rows["kind"].value_counts().to_dict() == {"a": 30, "c": 20}
    pd.testing.assert_frame_equal(rows, fitted.sample(condition={"kind": {"a": 30, "c": 20}}, random_state=0))
    fitted.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    pd.testing.assert_frame_equal(rows, loaded.sample(condition={"kind": {"a": 30, "c": 20}}, random_state=0))
    assert fitted.sample(3, condition="unconditional")["kind"].isna().all()


def test_fits_of_many_rows_with_time_draw_in_more_steps_and_say_so_in_the_file(planted, tmp_path, monkeypatch):
    settings = {"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "refine": True, "random_state": 0}
    quick = DiffusionGenerator(**settings).fit(planted)
    monkeypatch.setattr("tabdiff.model.defaults.PATIENT_ROWS", 1000)
    patient = DiffusionGenerator(**settings).fit(planted)
    assert quick.model_.refined_settings()["steps"] == REFINED_STEPS
    assert patient.model_.refined_settings()["steps"] == PATIENT_STEPS
    patient.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    assert loaded.model_.refined_settings()["steps"] == PATIENT_STEPS
    pd.testing.assert_frame_equal(patient.sample(50, random_state=1), loaded.sample(50, random_state=1))


def test_refinement_is_for_tables_with_enough_rows(planted):
    few = DiffusionGenerator(max_steps=5, hidden_size=16, n_blocks=1, random_state=0).fit(planted.iloc[:300])
    assert few.refinement_ is None
    off = DiffusionGenerator(max_steps=5, hidden_size=16, n_blocks=1, refine=False).fit(planted)
    assert off.refinement_ is None
    with pytest.raises(ValueError, match="refine must be"):
        DiffusionGenerator(refine="yes").fit(planted)


def test_a_short_training_is_followed_by_a_short_refinement():
    whole = refinement_rows(30_000)
    assert refinement_rows(30_000, 10_000 * 512) < whole == refinement_rows(30_000, 10**9)
    assert LEAST_DRAWN <= refinement_rows(30_000, 60 * 512) < refinement_rows(30_000, 2_000 * 512)
    assert refinement_rows(30_000, 20 * 512) == 0 < LEAST_DRAWN == refinement_rows(30_000, 20 * 512, asked=True)
    # Drawing takes at most the share of the training's own evaluations that it may, however short that was.
    for trained in (10**3, 30_000, 10**6, 3 * 10**6):
        assert refinement_rows(30_000, trained) * REFINED_STEPS <= 0.25 * TRAINING_EVALUATIONS * trained


def test_more_rows_are_kept_as_far_as_that_moves_little():
    rng = np.random.default_rng(0)
    # Most rows are found rare, by about the same factor: keeping all of them more often changes nothing.
    log_chance = np.minimum(rng.normal(-3.0, 0.3, 20_000), 0.0)
    kept = np.exp(np.minimum(log_chance + _boost(log_chance), 0.0))
    before = np.exp(log_chance)
    assert kept.mean() > 0.5 > 8 * before.mean()
    assert 0.5 * np.abs(kept / kept.sum() - before / before.sum()).sum() < MAX_SHIFT + 1e-3
    # Where one row in a hundred is right, the others are not let in for the sake of speed but to MIN_KEPT.
    rare = np.log(np.where(rng.random(20_000) < 0.01, 1.0, 1e-4))
    assert abs(np.exp(np.minimum(rare + _boost(rare), 0.0)).mean() - MIN_KEPT) < 0.01
    assert _boost(np.zeros(10)) == 0.0


@pytest.mark.slow
def test_trees_stop_where_time_does():
    rng = np.random.default_rng(0)
    real, drawn = (rng.normal(mean, 1, (20_000, 5)) for mean in (0.0, 0.3))
    ratio = DensityRatio().fit(real, drawn, [0] * 5, seed=0, seconds=0.0)
    assert ratio.n_trees_ == TIMED_TREES < DensityRatio().fit(real, drawn, [0] * 5, seed=0).n_trees_


@pytest.mark.parametrize(("seconds", "expected"), [(math.inf, 2 * PIECE_ROWS + 5), (0.0, PIECE_ROWS)])
def test_rows_to_learn_from_are_drawn_as_long_as_there_is_time(seconds, expected):
    asked = []

    def some(first, n):
        asked.append((first, n))
        return torch.arange(first, first + n)[:, None]

    rows = draw_in_time(some, 2 * PIECE_ROWS + 5, seconds)
    assert torch.equal(rows[:, 0], torch.arange(expected))
    assert asked[-1] == ((2 * PIECE_ROWS, 5) if seconds else (0, PIECE_ROWS))
