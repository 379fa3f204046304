"""What random frames have found: values that pandas itself has trouble with."""

import datetime
import decimal
import json
import warnings
import zoneinfo

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.codecs import ArrayCodec, TableCodec
from tabdiff.io.serialization import pack, unpack


def back(series, through_files=True):
    """Encode and decode one column."""
    frame = pd.DataFrame({"x": series})
    codec = TableCodec().fit(frame)
    if through_files:
        arrays = {}
        codec = TableCodec.from_state(unpack(json.loads(json.dumps(pack(codec.state(), arrays))), arrays))
    return codec.decode(codec.encode(frame))["x"]


def objects(values):
    """Make an object column of values as they are."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return pd.Series(out, dtype=object)


@pytest.mark.parametrize("dtype", ["float16", "halffloat[pyarrow]"])
def test_half_precision_stays_half_also_where_values_are_few(dtype):
    if "arrow" in dtype:
        pytest.importorskip("pyarrow")
    for values in ([0.5, 3.0] * 30, [65504.0] * 30):
        series = pd.Series(np.array(values, dtype=np.float16)).astype(dtype)
        pd.testing.assert_series_equal(back(series), series, check_names=False)


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2020, 1, 2, 3, 4),
        datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(minutes=7),
        np.datetime64("2020-01-02T03:04:05"),
        pd.Timestamp("2020-01-02"),
        pd.Timedelta("7min"),
    ],
)
def test_times_in_object_columns_come_back_as_what_they_were(value):
    step = np.timedelta64(1, "h") if isinstance(value, np.generic) else datetime.timedelta(hours=1)
    column = objects([*(value + i * step for i in range(30)), None])
    decoded = back(column)
    assert decoded.dtype == object
    assert {type(v) for v in decoded.dropna()} == {type(value)}
    assert decoded.dropna().tolist() == column.dropna().tolist()


def test_a_date_among_times_is_no_reason_to_cut_the_times():
    mixed = pd.Series([datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 15, 30)], dtype=object)
    with pytest.raises(TypeError, match=r"column 'x' mixes dates and times.*pd\.to_datetime"):
        back(mixed)


def test_a_signalling_nan_is_named():
    column = pd.Series([decimal.Decimal(1), decimal.Decimal("sNaN")], dtype=object)
    with pytest.raises(ValueError, match="column 'x' contains a signalling NaN"):
        TableCodec().fit(pd.DataFrame({"x": column}))
    with pytest.raises(ValueError, match="column 'x' contains Infinity"):
        back(pd.Series([decimal.Decimal(1), decimal.Decimal("Infinity")], dtype=object))


@pytest.mark.parametrize("category", [False, True])
def test_half_a_character_is_refused(category):
    # pandas takes "\ud800" and "a\udfff" for the same value.
    column = objects(["\ud800", "a\udfff", "b"])
    if category:
        column = pd.Series(pd.Categorical.from_codes([0, 1, 0], pd.Index(["a\udfff", "b"], dtype=object)))
    with pytest.raises(ValueError, match=r"column 'x' holds text that is no valid Unicode.*replace"):
        back(column)


def test_arrow_types_that_pandas_cannot_filter_are_refused():
    pa = pytest.importorskip("pyarrow")
    if not hasattr(pa, "string_view"):
        pytest.skip("this pyarrow has no string_view")
    column = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(["a", None], type=pa.string_view())))
    with pytest.raises(TypeError, match="column 'x' has dtype"):
        back(column)


def test_time_zones_of_the_standard_library_stay_that():
    zone = zoneinfo.ZoneInfo("Europe/Rome")
    times = pd.Series(pd.date_range("2024-03-30", periods=40, freq="h", tz=zone)).astype("datetime64[ns, Europe/Rome]")
    times = times.dt.tz_convert(zone)
    decoded = back(times)
    assert decoded.dtype == times.dtype and decoded.tolist() == times.tolist()


def test_a_time_zone_without_a_name_is_refused_at_fit_with_a_fix_that_works():
    tz = pytest.importorskip("dateutil.tz")
    times = pd.Series(pd.date_range("2024-03-30", periods=40, freq="h", tz=tz.tzutc()))
    with pytest.raises(TypeError, match=r"column 'x': .* cannot be saved.*\.dt\.tz_convert\('Europe/Berlin'\)"):
        back(times, through_files=False)
    named = times.dt.tz_convert("Europe/Berlin")
    assert back(named).tolist() == named.tolist() == times.tolist()


def test_holes_are_filled_with_tuples_and_objects_as_they_are():
    rng = np.random.default_rng(0)
    levels = pd.CategoricalDtype([("a", 1), ("b", 2)])
    durations = objects([pd.NaT if i % 3 == 0 else pd.Timedelta(days=i % 5) for i in range(40)])
    frame = pd.DataFrame(
        {
            "pair": pd.Categorical.from_codes(np.where(rng.random(40) < 0.3, -1, rng.integers(0, 2, 40)), dtype=levels),
            "took": durations,
        }
    )
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, random_state=0).fit(frame)
    filled = gen.impute(frame, steps=2, random_state=0)
    assert filled.notna().all(axis=None)
    assert filled.dtypes.to_list() == frame.dtypes.to_list()
    assert {type(v) for v in filled["took"]} == {pd.Timedelta}


def test_copies_are_those_of_one_encoding_after_the_other():
    X = np.random.default_rng(0).normal(size=(30, 3)).round(1)
    X[::7, 1] = np.nan
    for codec, data in ((ArrayCodec().fit(X), X), (TableCodec().fit(pd.DataFrame(X)), pd.DataFrame(X))):
        one, many = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
        wanted = torch.cat([codec.encode(data, None, one) for _ in range(3)])
        got = codec.encode_copies(data, 3, many)
        assert torch.equal(got.nan_to_num(9.0), wanted.nan_to_num(9.0))


def test_many_identifiers_are_one_warning():
    frame = pd.DataFrame({f"id{j}": [f"{j}-{i}" for i in range(60)] for j in range(12)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TableCodec().fit(frame)
    assert len(caught) == 1
    assert "'id0', 'id1'" in str(caught[0].message) and "2 more look like identifiers" in str(caught[0].message)
    assert caught[0].filename == __file__


def small(frame, **kwargs):
    return DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, random_state=0).fit(frame, **kwargs)


def test_nan_in_arrow_numbers_is_a_hole():
    pa = pytest.importorskip("pyarrow")
    values = pa.array([0.5, float("nan"), None, *np.linspace(0, 1, 30)], type=pa.float64())
    frame = pd.DataFrame({"x": pd.Series(pd.arrays.ArrowExtensionArray(values)), "y": np.arange(33) / 7})
    filled = small(frame).impute(frame, steps=2, random_state=0)
    assert not any(v is pd.NA or v != v for v in filled["x"])


def test_holes_in_categories_of_dates_and_in_times_beyond_nanoseconds_are_filled():
    dates = pd.CategoricalDtype([datetime.date(2020, 1, 1), datetime.date(1, 1, 1)])
    frame = pd.DataFrame(
        {
            "date": pd.Categorical.from_codes([0, 1, -1] * 10, dtype=dates),
            "far": np.array([10**12 + i if i % 4 else np.iinfo(np.int64).min for i in range(30)]).view("M8[s]"),
        }
    )
    filled = small(frame).impute(frame, steps=2, random_state=0)
    assert filled.notna().all(axis=None) and filled.dtypes.to_list() == frame.dtypes.to_list()


def test_the_mean_of_what_fills_a_hole_does_not_overflow():
    frame = pd.DataFrame({"x": np.r_[np.full(10, np.nan), np.linspace(0.7, 1.0, 30) * np.finfo(np.float64).max]})
    filled = small(frame).impute(frame, steps=2, random_state=0)
    assert np.isfinite(filled["x"]).all()


def test_conditions_stay_in_the_range_that_was_seen_whatever_its_size():
    whole = np.random.default_rng(0).integers(0, 2**53, 40, dtype="uint64")
    whole[0] = 3
    drawn = small(pd.DataFrame({"n": whole, "x": np.arange(40.0)}), condition="n").sample(200, steps=2, random_state=0)
    assert drawn["n"].dtype == np.uint64 and drawn["n"].between(3, whole.max()).all()


def test_conditions_too_large_to_standardise_are_named():
    frame = pd.DataFrame({"n": [1e308, -1e308, 0.5] * 10, "x": np.arange(30.0)})
    with pytest.raises(ValueError, match=r"condition .n. holds numbers up to 1e.308.*Divide"):
        small(frame, condition="n")
