"""Every kind of column through `TableCodec`: what went in comes out, in dtype, values, range and precision."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tabdiff.codecs import TableCodec
from tabdiff.codecs.columns import LevelColumn, NumericColumn, TimeColumn
from tabdiff.io.serialization import pack, unpack

N = 120
RNG = np.random.default_rng(0)
DAYS = pd.date_range("2023-03-01", periods=N, freq="D").as_unit("ns")


def arrow(values, type_name):
    pa = pytest.importorskip("pyarrow")
    types = {
        "decimal": pa.decimal128(10, 2),
        "dictionary": pa.dictionary(pa.int8(), pa.string()),
        "timestamp": pa.timestamp("us", "Europe/Berlin"),
    }
    kind = types[type_name] if type_name in types else getattr(pa, type_name)()
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, type=kind)))


def spread(make):
    """A column of N different values, and its every-third value missing."""
    return [None if i % 3 == 2 else make(i) for i in range(N)]


# Columns whose values are all different, so that decoding spreads them, by name.
NUMBERS = {
    "int8": pd.Series(np.arange(N) - 60, dtype="int8"),
    "uint64": pd.Series(np.arange(N), dtype="uint64"),
    "Int64": pd.Series(spread(lambda i: 10 * i), dtype="Int64"),
    "Float32": pd.Series(spread(lambda i: i / 10), dtype="Float32"),
    "Float64": pd.Series(spread(lambda i: i / 7), dtype="Float64"),
    "float16": pd.Series(np.arange(N) / 4, dtype="float16"),
    "float32 tenths": pd.Series(np.arange(N) / 10, dtype="float32"),
    "float64": pd.Series(spread(lambda i: i * 0.25), dtype="float64"),
    "datetime ns": pd.Series(DAYS + pd.to_timedelta(RNG.integers(0, 1440, N), unit="min")),
    "datetime s": pd.Series(DAYS).astype("datetime64[s]"),
    "datetime with NaT": pd.Series(spread(lambda i: DAYS[i]), dtype="datetime64[ms]"),
    "datetime UTC": pd.Series(DAYS.tz_localize("UTC")),
    "datetime Berlin": pd.Series(DAYS.tz_localize("Europe/Berlin")),
    "timedelta": pd.Series(pd.to_timedelta(np.arange(N) * 90, unit="s")),
    "timedelta with NaT": pd.Series(spread(lambda i: pd.Timedelta(hours=i)), dtype="timedelta64[us]"),
    "object int": pd.Series(spread(lambda i: 3 * i), dtype=object),
    "object float": pd.Series(spread(lambda i: i / 8), dtype=object),
    "object date": pd.Series(spread(lambda i: DAYS[i].date()), dtype=object),
    "object Decimal": pd.Series(spread(lambda i: decimal.Decimal(i) / 100), dtype=object),
    "arrow int64": lambda: arrow(spread(lambda i: 5 * i), "int64"),
    "arrow double": lambda: arrow(spread(lambda i: i / 8), "float64"),
    "arrow float": lambda: arrow(spread(lambda i: i / 10), "float32"),
    "arrow timestamp": lambda: arrow(spread(lambda i: DAYS[i].tz_localize("UTC")), "timestamp"),
    "arrow date32": lambda: arrow(spread(lambda i: DAYS[i].date()), "date32"),
    "arrow decimal": lambda: arrow(spread(lambda i: decimal.Decimal(i) / 100), "decimal"),
}
LEVELS = {
    "bool": pd.Series([True, False, True] * 40),
    "boolean": pd.Series([True, None, False] * 40, dtype="boolean"),
    "str": pd.Series(["b", "a", "b"] * 40),
    "str, None": pd.Series(["b", "a", None] * 40, dtype=object),
    "str, NaN": pd.Series(["b", "a", np.nan] * 40, dtype=object),
    "str, NA": pd.Series(["b", "a", pd.NA] * 40, dtype=object),
    "string": pd.Series(["b", "a", None] * 40, dtype="string"),
    "object bool": pd.Series([True, None, False] * 40, dtype=object),
    "few Int8": pd.Series([3, None, 1] * 40, dtype="Int8"),
    "few dates": pd.Series(pd.to_datetime(["2020-01-01", None, "2021-05-02"] * 40)),
    "few dates, zone": pd.Series(pd.to_datetime(["2020-01-01", None, "2021-05-02"] * 40)).dt.tz_localize("Asia/Tokyo"),
    "few timedeltas": pd.Series(pd.to_timedelta([1, None, 5] * 40, unit="h")),
    "few date objects": pd.Series([datetime.date(9999, 1, 1), None, datetime.date(1, 1, 2)] * 40, dtype=object),
    "category": pd.Series(pd.Categorical(["x", None, "y"] * 40, categories=["z", "y", "x"], ordered=True)),
    "category of ints": pd.Series(pd.Categorical([3, None, 1] * 40, categories=[3, 2, 1])),
    "category of intervals": pd.Series(pd.cut(np.arange(N), 4)),
    "category of times": pd.Series(pd.Categorical(pd.to_datetime(["2020-01-01", None, "2020-02-01"] * 40))),
    "category of zoned times": pd.Series(
        pd.Categorical(pd.DatetimeIndex(["2020-01-01", "2020-02-01"] * 60).tz_localize("Europe/Berlin"))
    ),
    "category of periods": pd.Series(pd.Categorical(pd.period_range("2020-01", periods=4, freq="M").repeat(30))),
    "all missing": pd.Series([None] * N, dtype=object),
    "NaT only": pd.Series([pd.NaT] * N),
    "constant date": pd.Series([pd.Timestamp("2020-01-01", tz="UTC")] * N),
    "arrow string": lambda: arrow(["b", None, "a"] * 40, "large_string"),
    "arrow bool": lambda: arrow([True, None, False] * 40, "bool_"),
    "arrow dictionary": lambda: arrow(["b", None, "a"] * 40, "dictionary"),
    "arrow null": lambda: arrow([None] * N, "null"),
}


def series_of(table, name):
    value = table[name]
    return value() if callable(value) else value


def codec_for(series, through_files=True):
    """A fitted codec for one column, by way of a saved model's description."""
    codec = TableCodec().fit(pd.DataFrame({"x": series, "other": np.arange(len(series)) / 2}))
    if not through_files:
        return codec
    arrays = {}
    return TableCodec.from_state(unpack(pack(codec.state(), arrays), arrays))


def round_trip(series, seed=0):
    codec = codec_for(series)
    frame = pd.DataFrame({"x": series, "other": np.arange(len(series)) / 2})
    return codec.decode(codec.encode(frame, generator=torch.Generator().manual_seed(seed)))["x"]


def draws(series, n=2000):
    """Values decoded from pure noise."""
    codec = codec_for(series)
    noise = torch.randn((n, codec.n_continuous_), generator=torch.Generator().manual_seed(0))
    codes = [torch.zeros(n, 1)] * len(codec.n_levels_)
    return codec.decode(torch.cat([noise, *codes], dim=1))["x"]


def as_numbers(series):
    """Numbers or times as float64, without missing ones."""
    observed = series.dropna()
    if isinstance(observed.iloc[0], datetime.date):
        return np.array([pd.Timestamp(v).timestamp() for v in observed])
    if isinstance(observed.iloc[0], pd.Timedelta | datetime.timedelta):
        return np.array([pd.Timedelta(v).total_seconds() for v in observed])
    return observed.to_numpy(dtype=np.float64)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_and_times_keep_dtype_range_and_place(name):
    series = series_of(NUMBERS, name)
    decoded = round_trip(series)
    assert decoded.dtype == series.dtype
    assert decoded.isna().tolist() == series.isna().tolist()
    assert {type(v) for v in decoded.dropna()} == {type(v) for v in series.dropna()}
    assert [type(v) for v in decoded[decoded.isna()]] == [type(v) for v in series[series.isna()]]
    old, new = as_numbers(series), as_numbers(decoded)
    step = np.diff(np.unique(old)).max()
    assert np.abs(new - old).max() <= step
    noise = as_numbers(draws(series))
    assert noise.min() >= old.min() and noise.max() <= old.max()


@pytest.mark.parametrize("name", LEVELS)
def test_levels_come_back_exactly(name):
    series = series_of(LEVELS, name)
    decoded = round_trip(series)
    assert decoded.dtype == series.dtype
    assert [type(v) for v in decoded] == [type(v) for v in series]
    assert decoded.isna().tolist() == series.isna().tolist()
    assert decoded.dropna().tolist() == series.dropna().tolist()


@pytest.mark.parametrize("storage", ["string[pyarrow]", "str"])
def test_strings_that_arrow_holds_come_back_exactly(storage):
    pytest.importorskip("pyarrow")
    dtype = pd.StringDtype("pyarrow", na_value=np.nan) if storage == "str" else storage
    series = pd.Series(["b", None, "a"] * 40, dtype=dtype)
    pd.testing.assert_series_equal(round_trip(series), series, check_names=False)


@pytest.mark.parametrize(
    ("name", "digits"), [("float32 tenths", 1), ("Float32", 1), ("arrow float", 1), ("object Decimal", 2)]
)
def test_decimals_keep_their_number(name, digits):
    values = [round(float(str(v)), 6) for v in draws(series_of(NUMBERS, name)).dropna()]
    assert len(set(values)) > 50 and all(v == round(v, digits) for v in values)


# ------------------------------------------------------------------------ times


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_midnight_stays_midnight_when_clocks_change(zone, unit):
    dates = pd.date_range("2017-01-01", "2018-12-31")[np.random.default_rng(0).random(730) < 0.7]
    days = pd.Series(dates.tz_localize(zone, nonexistent="NaT").dropna()).dt.as_unit(unit)
    decoded = draws(days)
    assert decoded.dtype == days.dtype
    # In Sao Paulo the clocks skipped midnight itself on the first day of summer time.
    wall = decoded.dt.tz_localize(None)
    late = wall[wall != wall.dt.normalize()]
    assert (late.dt.strftime("%H:%M:%S") == "01:00:00").all()
    assert late.nunique() <= (2 if zone == "America/Sao_Paulo" else 0)
    assert decoded.between(days.min(), days.max()).all() and decoded.nunique() > 300


def test_whole_minutes_stay_whole_around_a_change_of_clocks():
    minutes = pd.Series(pd.date_range("2023-10-29", periods=500, freq="min", tz="Europe/Berlin")).dt.as_unit("ns")
    column = TimeColumn(minutes, "x")
    assert column.clock_.step_ == 60 * 10**9 and not column.clock_.wall_
    assert column.to_series(column.read(minutes)).tolist() == minutes.tolist()


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=2, max_size=30), st.sampled_from(["s", "ns"]))
@settings(deadline=None, max_examples=60)
def test_any_times_stay_in_range_without_overflow(integers, unit):
    if unit == "s":  # what pandas' own calendar reaches
        integers = [i // 10**7 for i in integers]
    series = pd.Series(np.array(integers).view(f"M8[{unit}]"))
    column = TimeColumn(series, "x")
    back = column.to_series(column.read(series))
    assert (np.abs(back.array.asi8.astype(object) - series.array.asi8.astype(object)) < column.clock_.step_).all()
    decoded = column.decode(np.linspace(-9, 9, 50))
    assert decoded.between(series.min(), series.max()).all()


def test_times_seen_before_the_first_are_scored_as_such():
    column = TimeColumn(pd.Series(DAYS), "x")
    early = column.read(pd.Series([DAYS[0] - pd.Timedelta(days=2)]))
    assert early.tolist() == [-2.0]
    assert column.log_density(early)[0] < column.log_density(np.array([3.0]))[0]


def test_the_density_of_times_is_per_second_whatever_the_resolution():
    scores = [TimeColumn(pd.Series(DAYS).dt.as_unit(unit), "x").log_density(np.array([3.0]))[0] for unit in ("s", "us")]
    assert scores[0] == scores[1] == pytest.approx(-np.log(N * 86400))


def test_times_of_another_kind_are_refused():
    codec = codec_for(pd.Series(DAYS))
    wrong = pd.DataFrame({"x": pd.Series(DAYS.tz_localize("UTC")), "other": 1.0})
    with pytest.raises(TypeError, match=r"'x'.*UTC.*datetime64\[ns\] at fit"):
        codec.encode(wrong)


# --------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([datetime.time(1, 2, tzinfo=datetime.UTC)], TypeError, "time zone.*replace"),
        ([(1, 2), (3, 4)], TypeError, "tuple.*cannot be modelled"),
        ([["a"], ["b"]], TypeError, "list.*cannot be modelled"),
        ([{1, 2}, {3}], TypeError, "set.*cannot be modelled"),
        ([True, "a"], TypeError, r"mixes.*bool.*str"),
        ([2**70, 1], ValueError, "beyond 64 bits"),
        ([2**60, 1], ValueError, r"beyond 2\*\*53"),
        ([decimal.Decimal("1e30"), decimal.Decimal("0.1")], ValueError, "more than 15 digits"),
        (pd.period_range("2020", periods=2, freq="Y"), TypeError, "to_timestamp"),
        (pd.interval_range(0, 2), TypeError, 'astype."category"'),
        (pd.arrays.SparseArray([0, 1]), TypeError, "to_dense"),
        ([complex(1), complex(2)], TypeError, "complex"),
    ],
    ids=lambda v: str(v)[:20] if isinstance(v, str) else None,
)
def test_what_cannot_be_modelled_is_refused_with_the_fix(values, error, message):
    values = values if hasattr(values, "dtype") else np.array([*values, None], dtype=object)[:-1]
    with pytest.raises(error, match=r"'x'.*" + message):
        TableCodec().fit(pd.DataFrame({"x": values}))


def test_arrow_types_that_cannot_be_modelled_are_refused_with_the_fix():
    pa = pytest.importorskip("pyarrow")
    for array, fix in ((pa.array([[1], [2]]), "column per item"), (pa.array([{"a": 1}] * 2), "column per field")):
        with pytest.raises(TypeError, match=rf"'x'.*{fix}"):
            TableCodec().fit(pd.DataFrame({"x": pd.arrays.ArrowExtensionArray(array)}))


# ------------------------------------------------------------- many rare levels


@pytest.fixture(scope="module")
def crowded():
    """50,000 rows of 5,000 levels, of which few are common."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 5001)
    return pd.Series(rng.choice([f"level {i}" for i in range(5000)], size=50_000, p=shares / shares.sum()))


def test_rare_levels_share_a_code_and_keep_their_frequency(crowded):
    codec = codec_for(crowded)
    frame = pd.DataFrame({"x": crowded, "other": np.arange(len(crowded)) / 2})
    assert codec.n_levels_[0] <= 1002
    assert codec.schema_.set_index("column").loc["x", "rare"] > 3000
    data = codec.encode(frame)
    a, b, other = (codec.decode(data, None, torch.Generator().manual_seed(s))["x"] for s in (0, 0, 1))
    assert a.equals(b) and not a.equals(other)
    counts = crowded.value_counts()
    common = crowded.isin(counts.index[:500])
    assert (a == crowded)[common].all()
    rare = counts[counts < 6].index  # only the commonest thousand have a code, these are seen far less often
    assert a.isin(rare).sum() == pytest.approx(crowded.isin(rare).sum(), rel=0.05)
    assert set(a) <= set(crowded)


def test_a_rare_levels_likelihood_is_its_share_of_the_rare(crowded):
    column = LevelColumn(crowded, "x", max_codes=1000)
    levels = pd.Series(column.levels_)
    share, code = np.exp(column.log_share(levels)), column.encode(levels)
    total = pd.Series(share).groupby(code).sum()
    assert np.allclose(total, 1.0)
    frame = pd.DataFrame({"x": crowded, "other": np.arange(len(crowded)) / 2})
    codec = TableCodec().fit(frame)
    jacobian = codec.log_jacobian(frame, codec.encode(frame))
    without = TableCodec().fit(frame[["other"]])
    assert np.allclose(
        jacobian - without.log_jacobian(frame[["other"]], without.encode(frame[["other"]])), column.log_share(crowded)
    )


def test_an_identifier_is_named_and_costs_one_code():
    ids = pd.Series([f"id-{i:04}" for i in range(0, 9900, 33)])
    with pytest.warns(UserWarning, match=r"'x' looks like an identifier: its 300 values"):
        codec = TableCodec().fit(pd.DataFrame({"x": ids, "other": np.arange(300) / 2}))
    assert codec.n_levels_ == [1]
    assert codec.schema_["kind"].to_list() == ["identifier", "numeric"]
    drawn = codec.decode(torch.zeros(1000, 2))["x"]
    assert drawn.is_unique and drawn.str.fullmatch(r"id-\d{4}").all() and not drawn.isin(ids).any()


def test_numbers_as_levels_go_to_the_nearest():
    values = pd.Series(np.arange(3000) % 40 * 10)
    codec = TableCodec(categorical_features=["x"]).fit(pd.DataFrame({"x": values, "other": values / 3}))
    frame = pd.DataFrame({"x": [-5.0, 12.0, 17.0, 9999.0], "other": 1.0})
    assert codec.decode(codec.encode(frame))["x"].to_list() == [0, 10, 20, 390]


# ------------------------------------------------------------------- properties


def finite(width):
    return st.floats(allow_nan=False, allow_infinity=False, width=width)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_floats_of_any_size_stay_in_range_and_keep_heavy_values(data):
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    light = data.draw(st.lists(finite(int(dtype[5:])), min_size=1, max_size=30))
    heavy = data.draw(finite(int(dtype[5:])))
    series = pd.Series([*light, *[heavy] * 6], dtype=dtype)
    column = NumericColumn(series.to_numpy(dtype=np.float64), series.dtype, "x")
    rng = np.random.default_rng(0)
    decoded = column.decode(column.encode(series.to_numpy(dtype=np.float64), rng))
    assert decoded.dtype == series.dtype and np.isfinite(decoded).all()
    assert (decoded[series == heavy] == heavy).all()
    noise = column.decode(rng.standard_normal(50))
    assert noise.min() >= series.min() and noise.max() <= series.max()
    assert not np.isnan(column.log_density(series.to_numpy(dtype=np.float64))).any()


@given(st.integers(0, 4), st.sampled_from(["float32", "float64"]), st.lists(st.integers(-999, 999), min_size=2))
@settings(deadline=None, max_examples=60)
def test_decimals_of_any_number_are_kept(digits, dtype, whole):
    values = np.round(np.array(whole) / 10.0**digits, digits).astype(dtype)
    column = NumericColumn(values.astype(np.float64), np.dtype(dtype), "x")
    noise = column.decode(np.random.default_rng(0).standard_normal(50)).to_numpy()
    assert (noise == np.round(noise.astype(np.float64), digits).astype(dtype)).all()


@given(st.sampled_from(["int8", "uint8", "Int16", "int64", "UInt32", "Int64"]), st.data())
@settings(deadline=None, max_examples=60)
def test_integers_of_any_size_stay_in_range(dtype, data):
    info = np.iinfo(dtype.lower())
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    values = data.draw(st.lists(st.integers(low, high), min_size=2, max_size=30))
    series = pd.Series(values, dtype=dtype)
    column = NumericColumn(series.to_numpy(dtype=np.float64), series.dtype, "x")
    noise = column.decode(np.random.default_rng(0).standard_normal(50))
    assert noise.dtype == series.dtype
    assert min(values) <= noise.min() and noise.max() <= max(values)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40), st.permutations(["a", "b", "c"]))
@settings(deadline=None, max_examples=60)
def test_ordered_categories_keep_their_order(values, order):
    series = pd.Series(pd.Categorical(values, categories=order, ordered=True))
    column = LevelColumn.from_state(LevelColumn(series, "x").state())
    pd.testing.assert_series_equal(column.decode(column.encode(series)), series, check_names=False)


@pytest.mark.parametrize("spike", [0.0, -3.0, 7.5])
def test_the_share_of_a_spike_is_exact(spike):
    rng = np.random.default_rng(0)
    values = np.where(rng.random(3000) < 0.37, spike, rng.normal(size=3000))
    column = NumericColumn(values, values.dtype, "x")
    from scipy.special import ndtri

    grid = (np.arange(100_000) + 0.5) / 100_000
    decoded = column.decode_values(ndtri(grid))
    assert (decoded == spike).mean() == pytest.approx((values == spike).mean(), abs=2e-5)


def test_tiny_values_are_not_rounded_away():
    values = np.random.default_rng(0).gamma(2.0, 1e-20, size=2000)
    column = NumericColumn(values, values.dtype, "x")
    decoded = column.decode_values(np.random.default_rng(1).standard_normal(2000))
    assert np.median(decoded) == pytest.approx(np.median(values), rel=0.1)


def test_positions_name_every_level_and_value(crowded):
    for column, series in (
        (LevelColumn(crowded, "x", max_codes=1000), crowded),
        (NumericColumn(np.arange(9.0), np.dtype("int64"), "x"), pd.Series([3, 0, 8])),
        (TimeColumn(pd.Series(DAYS), "x"), pd.Series(spread(lambda i: DAYS[i]))),
    ):
        assert column.at(column.positions(series)).equals(series)
