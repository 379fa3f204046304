import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline

from tabdiff import DiffusionGenerator
from tabdiff.codecs import TableCodec
from tabdiff.codecs.columns import NumericColumn, TimeColumn
from tabdiff.datasets import load_penguins
from tabdiff.model.refinement.density_ratio import DensityRatio
from tabdiff.model.sample_weights import population
from tabdiff.training.batches import RowStream, in_proportion

QUICK = {"max_steps": 30, "hidden_size": 16, "n_blocks": 1, "batch_size": 64, "random_state": 0}


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


def same_weights(a, b):
    pairs = zip(a.denoiser_.state_dict().values(), b.denoiser_.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


# ------------------------------------------------------- drawing in proportion


weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=40).filter(any)


@given(weights, st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_rows_are_taken_as_often_as_their_weight_says_give_or_take_one(weight, n, start):
    weight = torch.tensor(weight, dtype=torch.float64)
    rows = in_proportion(weight, n, start)
    counts = torch.bincount(rows, minlength=len(weight))
    expected = n * weight / weight.sum()
    assert len(rows) == n and (rows.diff() >= 0).all()
    assert ((counts - expected).abs() < 1 + 1e-6).all()
    assert (counts[weight == 0] == 0).all()


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30).filter(lambda w: sum(v > 0 for v in w) > 1))
def test_integer_weights_are_numbers_of_copies(weight):
    positive = np.array([w for w in weight if w > 0], dtype=np.float64)
    rows = population(positive)
    if 1 in weight and positive.sum() <= 4 * len(positive):
        assert np.array_equal(rows, np.repeat(np.arange(len(positive)), positive.astype(int)))
    assert len(positive) <= len(rows) <= 4 * len(positive)


def test_weights_that_differ_by_orders_of_magnitude_make_no_large_population():
    rows = population(np.array([1e-12, 1.0, 1e9, 1e9]))
    assert len(rows) == 16 and set(rows) == {2, 3}


def test_a_stream_gives_every_row_its_due_without_bias():
    weight = torch.tensor([0.25, 1.0, 1.75, 3.0])
    stream = RowStream(4, torch.Generator().manual_seed(0), weight)
    rows = torch.cat([stream.take(7) for _ in range(4000)])
    # Of four rows 0.167, 0.667, 1.167 and 2 are due: in each stretch the whole number below or above.
    counts = torch.bincount(rows).double()
    share = weight / weight.sum()
    assert (counts / len(rows) - share).abs().max() < 0.003
    stretches = rows[: 4 * 7000].reshape(7000, 4)
    assert ((stretches == 3).sum(1) == 2).all() and ((stretches == 0).sum(1) <= 1).all()


def test_without_weights_each_stretch_is_a_permutation():
    stream = RowStream(5, torch.Generator().manual_seed(0))
    rows = torch.cat([stream.take(3) for _ in range(50)]).reshape(30, 5)
    assert (rows.sort(dim=1).values == torch.arange(5)).all()
    assert len({tuple(r.tolist()) for r in rows}) > 10


# ---------------------------------------------------------------- equivalence


@pytest.mark.parametrize("equal", [1, 3.5, np.ones(344), [2] * 344, pd.Series(0.1, index=range(1000, 1344))])
def test_equal_weights_are_no_weights(penguins, equal):
    plain = DiffusionGenerator(**QUICK).fit(penguins, condition="species")
    weighted = DiffusionGenerator(**QUICK).fit(penguins, condition="species", sample_weight=equal)
    assert same_weights(plain, weighted)
    pd.testing.assert_frame_equal(plain.sample(20), weighted.sample(20))


@pytest.mark.parametrize("container", ["frame", "array", "cells"])
def test_weight_zero_leaves_a_row_out(penguins, container):
    rng = np.random.default_rng(0)
    weight = (rng.random(60) < 0.7).astype(float)
    kept = weight > 0
    labels = np.where(np.arange(60) % 2, "a", "b")
    X = {
        "frame": penguins.iloc[100:160],
        "array": rng.normal(size=(60, 3)),
        "cells": AnnData(rng.normal(size=(60, 4)).astype("float32")),
    }[container]
    part = X.iloc[kept] if container == "frame" else X[kept]
    a = DiffusionGenerator(**QUICK).fit(X, labels, sample_weight=weight)
    b = DiffusionGenerator(**QUICK).fit(part, labels[kept])
    assert same_weights(a, b) and a.n_samples_fit_ == kept.sum() == b.n_samples_fit_
    drawn, expected = a.sample(10), b.sample(10)
    assert np.array_equal(*(np.asarray(getattr(d, "X", d), dtype=str) for d in (drawn, expected)))


def test_the_distribution_of_a_number_is_that_of_repeated_rows():
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(size=50), np.nan)
    copies = rng.integers(1, 6, size=51)
    weighted = NumericColumn(values, np.dtype("float64"), "x", copies * 0.37)
    repeated = NumericColumn(values.repeat(copies), np.dtype("float64"), "x")
    np.testing.assert_allclose(weighted.cdf_, repeated.cdf_)
    # A value is no spike for its weight, but for how often it occurs.
    assert not weighted.has_probability(values).any() and repeated.has_probability(values).any()
    again = NumericColumn.from_state(weighted.state())
    assert np.array_equal(again.cdf_, weighted.cdf_) and np.array_equal(again.mass_, weighted.mass_)
    inside = np.linspace(values[:-1].min(), values[:-1].max(), 20_001)
    density = np.exp(weighted.log_density(inside))
    assert np.trapezoid(density, inside) == pytest.approx(1, abs=0.01)
    drawn = weighted.decode_values(rng.normal(size=20_000))
    assert drawn.mean() == pytest.approx(np.average(values[:-1], weights=copies[:-1]), abs=0.05)


def test_tables_draw_numbers_and_times_by_weight():
    frame = pd.DataFrame({"x": np.arange(400.0) ** 2, "t": pd.date_range("2020", periods=400)})
    codec = TableCodec(dependencies=False).fit(frame, sample_weight=np.r_[np.full(200, 3.0), np.full(200, 1.0)])
    drawn = codec.decode(torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)))
    assert (drawn["x"] < 200**2).mean() == pytest.approx(0.75, abs=0.03)
    assert (drawn["t"] < frame["t"][200]).mean() == pytest.approx(0.75, abs=0.03)


def test_times_are_weighted_like_numbers():
    times = pd.Series(pd.date_range("2020-01-01", periods=40))
    column = TimeColumn(times, "t", np.r_[np.full(20, 3.0), np.full(20, 1.0)])
    drawn = column.decode(np.random.default_rng(0).normal(size=4000))
    assert (drawn < times[20]).mean() == pytest.approx(0.75, abs=0.03)


def test_weights_too_small_to_be_seen_do_no_harm():
    column = NumericColumn(np.arange(30.0), np.dtype("float64"), "x", np.r_[np.full(29, 1e-300), 1e10])
    assert (np.diff(column.cdf_) > 0).all()
    assert np.isfinite(column.decode_values(np.linspace(-8, 8, 101))).all()


# ----------------------------------------------------------- what is learned


def groups(n=600):
    """Two groups of equal size, `kind` a around 0 and b around 6, and weights of which nine tenths fall on a."""
    rng = np.random.default_rng(0)
    b = np.arange(n) % 2 == 1
    frame = pd.DataFrame({"kind": np.where(b, "b", "a"), "x": rng.normal(size=n) + 6 * b, "z": rng.normal(size=n)})
    return frame, np.where(b, 1.0, 9.0)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.slow
def test_samples_follow_the_weights_also_when_they_are_refined(refine):
    frame, weight = groups()
    parameters = {"max_steps": 400, "hidden_size": 64, "n_blocks": 2, "random_state": 0, "learning_rate": 3e-3}
    drawn = DiffusionGenerator(**parameters, refine=refine).fit(frame, sample_weight=weight).sample(2000)
    assert (drawn["kind"] == "a").mean() == pytest.approx(0.9, abs=0.05)
    assert (drawn["x"] < 3).mean() == pytest.approx(0.9, abs=0.05)


def test_the_density_ratio_compares_with_weighted_rows():
    rng = np.random.default_rng(0)
    real, drawn = rng.integers(2, size=(4000, 1)).astype(float), (rng.random((4000, 1)) < 0.1).astype(float)
    weight = np.where(real[:, 0] == 1, 1.0, 9.0)
    rows = np.array([[0.0], [1.0]])
    right = np.exp(DensityRatio().fit(real, drawn, [2], seed=0, weight=weight).log_ratio(rows))
    np.testing.assert_allclose(right, [1, 1], rtol=0.2)
    # Without them, the drawn rows look wrong.
    wrong = np.exp(DensityRatio().fit(real, drawn, [2], seed=0).log_ratio(rows))
    assert wrong[1] > 3


def test_conditions_that_are_not_asked_for_are_drawn_by_weight():
    frame, weight = groups()
    gen = DiffusionGenerator(**QUICK).fit(frame, condition="kind", sample_weight=weight)
    assert (gen.sample(2000)["kind"] == "a").mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.slow
def test_cells_follow_the_weights():
    rng = np.random.default_rng(0)
    high = np.arange(200) % 2 == 1
    cells = AnnData((rng.normal(size=(200, 3)) + 8 * high[:, None]).astype("float32"))
    gen = DiffusionGenerator(**{**QUICK, "max_steps": 300, "hidden_size": 64, "learning_rate": 3e-3})
    drawn = gen.fit(cells, sample_weight=np.where(high, 1.0, 4.0)).sample(1000)
    assert (np.asarray(drawn.X)[:, 0] < 4).mean() == pytest.approx(0.8, abs=0.07)
    assert list(cells.obs_names) == [str(i) for i in range(200)]


@pytest.mark.slow
def test_a_weighted_model_comes_back_from_its_file(penguins, tmp_path):
    weight = np.random.default_rng(0).random(344)
    gen = DiffusionGenerator(**QUICK).fit(penguins, condition="species", sample_weight=weight)
    gen.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(penguins), gen.score_samples(penguins))
    pd.testing.assert_frame_equal(loaded.sample(20, random_state=0), gen.sample(20, random_state=0))


# --------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(343), "sample_weight"),
        (np.ones((344, 2)), "1D"),
        (np.r_[-0.5, np.ones(343)], r"must not be negative; got -0\.5 at row 0"),
        (np.r_[np.nan, np.ones(343)], "NaN"),
        (np.r_[np.inf, np.ones(343)], "infinity"),
        (np.zeros(344), "zero"),
        (np.r_[1, np.zeros(343)], "zero for 343 of 344 rows"),
        (["a"] * 344, "convert"),
    ],
)
def test_bad_weights_say_what_is_wrong_and_leave_a_fitted_model(penguins, weight, message):
    gen = DiffusionGenerator(**QUICK).fit(penguins[["year", "sex"]])
    with pytest.raises(ValueError, match=message):
        gen.fit(penguins, sample_weight=weight)
    assert gen.n_features_in_ == 2 and list(gen.sample(2).columns) == ["year", "sex"]


def test_the_weights_given_are_not_changed(penguins):
    weight = np.random.default_rng(0).integers(0, 3, size=344).astype(float)
    before = weight.copy()
    DiffusionGenerator(**QUICK).fit(penguins, sample_weight=weight)
    assert np.array_equal(weight, before)


def test_weights_are_routed_through_pipelines_and_folds():
    X, weight = np.random.default_rng(0).normal(size=(60, 2)), np.r_[np.zeros(20), np.ones(40)]
    with config_context(enable_metadata_routing=True):
        gen = DiffusionGenerator(**QUICK).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        result = cross_validate(make_pipeline(gen), X, params={"sample_weight": weight}, cv=2, return_estimator=True)
    sizes = [pipe[-1].n_samples_fit_ for pipe in result["estimator"]]
    assert sizes == [30, 10] and np.isfinite(result["test_score"]).all()
