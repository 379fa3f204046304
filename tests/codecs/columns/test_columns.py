import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tabdiff.codecs.columns import LevelColumn, NumericColumn, dtype_from_state, dtype_to_state, numeric


def column(values, dtype="float64"):
    return NumericColumn(np.asarray(values, dtype=np.float64), np.dtype(dtype), "x")


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=4000),
        lambda rng: rng.pareto(1.1, size=4000),
        lambda rng: np.where(rng.random(4000) < 0.6, 0.0, rng.exponential(size=4000)),
        lambda rng: rng.integers(0, 5, size=4000).astype(float),
    ],
    ids=["normal", "heavy tail", "spike at zero", "few integers"],
)
def test_encoding_is_standard_normal_whatever_the_distribution(draw):
    rng = np.random.default_rng(0)
    values = draw(rng)
    z = column(values).encode(values, rng)
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_decoding_normal_noise_reproduces_the_marginal():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(5000) < 0.5, 0.0, np.round(rng.gamma(2.0, 50.0, size=5000), 2))
    decoded = column(values).decode_values(rng.standard_normal(5000))
    assert abs((decoded == 0).mean() - 0.5) < 3 * np.sqrt(0.25 / 5000) * 2**0.5
    assert stats.ks_2samp(values, decoded).pvalue > 0.01
    assert np.allclose(decoded, np.round(decoded, 2), rtol=0, atol=1e-9)
    assert decoded.min() >= values.min() and decoded.max() <= values.max()


def test_many_values_are_encoded_as_each_of_them_is(monkeypatch):
    rng = np.random.default_rng(0)
    seen = np.append(rng.normal(size=900), np.zeros(50))
    column = NumericColumn(seen, np.dtype(float), "x")
    values, places = rng.permutation(np.concatenate([seen, rng.normal(size=80), [np.nan] * 9])), rng.random(1039)

    class Places:
        def random(self, n):
            return places[:n]

    plain = column.encode(values, Places())
    monkeypatch.setattr(numeric, "SORTED_ROWS", 100)
    np.testing.assert_array_equal(column.encode(values, Places()), plain)


def test_spikes_return_exactly_and_nothing_is_interpolated_across_them():
    rng = np.random.default_rng(0)
    # 0, 1000 and 2000 are spikes; between them nothing was ever seen.
    values = np.repeat([0.0, 1000.0, 2000.0], 300)
    assert set(column(values).decode_values(rng.standard_normal(1000))) <= {0.0, 1000.0, 2000.0}


def test_values_keep_the_unit_that_they_share():
    rng = np.random.default_rng(0)
    values = rng.permutation(np.arange(100, 400)) * 25.0
    decoded = column(values, "int64").decode(rng.standard_normal(500))
    assert decoded.dtype == np.int64
    assert (decoded % 25 == 0).all()


def test_deterministic_encoding_of_every_value_decodes_to_it():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=50), np.repeat(3.0, 20)])
    c = column(values)
    assert np.allclose(c.decode_values(c.encode(values, None)), values, atol=0.2)
    assert (c.decode_values(c.encode(np.full(3, 3.0), None)) == 3.0).all()


def test_log_density_integrates_to_one():
    rng = np.random.default_rng(0)
    c = column(np.concatenate([rng.normal(size=300), np.repeat(0.5, 100)]))
    grid = np.linspace(c.values_[0], c.values_[-1], 200_001)
    density = np.exp(c.log_density(np.delete(grid, np.flatnonzero(grid == 0.5))))
    light = c.counts_ < 5
    assert np.trapezoid(density, dx=grid[1] - grid[0]) == pytest.approx(c.counts_[light].sum() / 400, abs=0.02)
    assert np.exp(c.log_density(np.array([0.5])))[0] == pytest.approx(0.25)


def test_density_falls_outside_the_range():
    c = column(np.random.default_rng(0).normal(size=200))
    low, lower = c.log_density(np.array([c.values_[0] - 1, c.values_[0] - 5]))
    assert c.log_density(np.array([0.0]))[0] > low > lower


@given(
    st.lists(
        st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=2,
        max_size=40,
    )
)
def test_any_finite_column_round_trips_inside_its_range(values):
    c = column(values)
    rng = np.random.default_rng(0)
    z = c.encode(np.asarray(values), rng)
    assert np.isfinite(z).all()
    decoded = c.decode_values(np.concatenate([z, rng.standard_normal(20), [-9.0, 9.0]]))
    assert np.isfinite(decoded).all()
    assert decoded.min() >= min(values) and decoded.max() <= max(values)


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["b", "a", np.nan], dtype=object),
        pd.Series(["b", "a", None], dtype="string"),
        pd.Series([True, False, True]),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series(pd.Categorical(["x", "y", "x"], categories=["z", "y", "x"], ordered=True)),
        pd.Series(pd.Categorical([3, 1, None], categories=[1, 2, 3])),
        pd.Series([2, 0, 2], dtype="Int8"),
        pd.Series([2.5, 0.5, 2.5], dtype="float32"),
    ],
    ids=lambda s: str(s.dtype),
)
def test_levels_round_trip_with_dtype_also_through_their_state(series):
    c = LevelColumn.from_state(LevelColumn(series, "x").state())
    decoded = c.decode(c.encode(series))
    pd.testing.assert_series_equal(decoded, series.rename("x"))


def test_mixed_types_are_refused_by_name():
    with pytest.raises(TypeError, match=r"'x'.*mixes.*number.*str"):
        LevelColumn(pd.Series(["a", 1, "b"], dtype=object), "x")


def test_unknown_level_names_the_nearest():
    c = LevelColumn(pd.Series(["Gentoo", "Adelie"]), "species")
    with pytest.raises(ValueError, match=r"species.*'gento'.*Did you mean 'Gentoo'"):
        c.encode(pd.Series(["gento"]))


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "Int64",
        "float32",
        "Float64",
        "bool",
        "boolean",
        "object",
        "string",
        pd.CategoricalDtype(["a", "b"], True),
    ],
)
def test_dtypes_survive_their_description(dtype):
    wanted = pd.Series([], dtype=dtype).dtype
    assert dtype_from_state(dtype_to_state(wanted)) == wanted
