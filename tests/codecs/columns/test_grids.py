"""Values on a grid that is no fixed step: what every training row keeps, every drawn row keeps."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.codecs import TableCodec
from tabdiff.codecs.columns.calendar import DateNumbers, Days, Moments, find_number_grid, find_times
from tabdiff.codecs.columns.grids import Residues, Window
from tabdiff.codecs.columns.numeric import NumericColumn
from tabdiff.io.serialization import pack, unpack

N = 400
rng = np.random.default_rng(0)


def some(*args, n=N, **kwargs):
    """Draw from a range of dates."""
    return pd.Series(rng.choice(pd.date_range(*args, **kwargs), n))


def at(first, last, unit, n=N):
    """Draw times of day, in units, on days of three years."""
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), unit="D")
    return pd.Series(day + pd.to_timedelta(rng.integers(first, last, n), unit=unit))


def as_numbers(dates):
    return dates.dt.strftime("%Y%m%d").astype(int)


def read_numbers(numbers):
    return pd.to_datetime(numbers.astype(int).astype(str), format="%Y%m%d", errors="coerce")


def minute(times):
    return times.dt.hour * 60 + times.dt.minute


BERLIN = at(9 * 60, 18 * 60, "min").dt.tz_localize("Europe/Berlin")
CENTS = rng.integers(0, 5000, N) * 100

# Values, what pandas or arithmetic says of them, and the rule in words.
KINDS = {
    "month start": (some("1970", "2024", freq="MS"), lambda s: s.dt.is_month_start, "day 1 of the month"),
    "month end": (some("1970", "2024", freq="ME"), lambda s: s.dt.is_month_end, "last of the month"),
    "quarter end": (
        some("1900", "2024", freq="QE"),
        lambda s: s.dt.is_quarter_end,
        "last of the month, months 3, 6, 9, 12",
    ),
    "quarter start": (some("1900", "2024", freq="QS"), lambda s: s.dt.is_quarter_start, None),
    "working days": (some("2015", "2024", freq="B"), lambda s: s.dt.dayofweek < 5, "Monday to Friday"),
    "working month end": (
        some("1970", "2024", freq="BME"),
        lambda s: s == s + pd.offsets.BMonthEnd(0),
        "last working day of the month",
    ),
    "third Fridays": (
        some("1970", "2024", freq="WOM-3FRI"),
        lambda s: (s.dt.dayofweek == 4) & s.dt.day.between(15, 21),
        "week 3 of the month",
    ),
    "twice a month": (some("1980", "2024", freq="SMS"), lambda s: s.dt.day.isin([1, 15]), "days 1, 15 of the month"),
    "weekly": (some("2000", "2024", freq="W-TUE"), lambda s: s.dt.dayofweek == 1, "every 7 days"),
    "summer": (
        pd.Series([d for d in some("2000", "2020", n=4 * N) if 6 <= d.month <= 8]),
        lambda s: s.dt.month.between(6, 8),
        "months 6 to 8",
    ),
    "shop hours": (at(540, 1080, "min"), lambda s: minute(s).between(540, 1079), None),
    "night shift": (at(22 * 60, 28 * 60, "min"), lambda s: (minute(s) >= 22 * 60) | (minute(s) < 4 * 60), None),
    "three times a day": (
        pd.Series(
            pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(0, 1000, N) * 1440 + rng.choice([540, 810, 1080], N), unit="min")
        ),
        lambda s: minute(s).isin([540, 810, 1080]),
        "at 09:00, 13:30, 18:00",
    ),
    "working hours": (
        some("2015", "2024", freq="B") + pd.to_timedelta(rng.integers(9 * 3600, 17 * 3600, N), unit="s"),
        lambda s: (s.dt.dayofweek < 5) & s.dt.hour.between(9, 16),
        None,
    ),
    "on the wall clock": (BERLIN, lambda s: minute(s).between(540, 1079), None),
    "midnights of a zone": (
        some("1970", "2024", freq="MS").dt.tz_localize("Europe/Berlin"),
        lambda s: s.dt.is_month_start & (s.dt.hour == 0),
        "day 1 of the month",
    ),
    "yyyymmdd": (as_numbers(some("2019", "2024")), lambda s: read_numbers(s).notna(), "dates as yyyymmdd"),
    "yyyymmdd, floats": (
        as_numbers(some("2019", "2024")).astype(float).where(rng.random(N) < 0.9),
        lambda s: read_numbers(s.dropna()).notna(),
        "dates as yyyymmdd",
    ),
    "yyyymmdd, working days": (
        as_numbers(some("2010", "2024", freq="B")),
        lambda s: read_numbers(s).dt.dayofweek < 5,
        "dates as yyyymmdd, Monday to Friday",
    ),
    "yyyymm": (
        some("1950", "2024", freq="MS").dt.strftime("%Y%m").astype(int),
        lambda s: (s % 100).between(1, 12),
        "last 2 digits 01 to 12",
    ),
    "yyyyq": (
        pd.Series(rng.integers(1950, 2024, N) * 10 + rng.integers(1, 5, N)),
        lambda s: (s % 10).between(1, 4),
        "last digit 1 to 4",
    ),
    "hhmm": (
        pd.Series(rng.integers(0, 24, N) * 100 + rng.integers(0, 60, N)),
        lambda s: s % 100 < 60,
        "last 2 digits 00 to 59",
    ),
    "odd": (pd.Series(rng.integers(0, 5000, N) * 2 + 1), lambda s: s % 2 == 1, "1 + multiples of 2"),
    "multiples": (pd.Series(rng.integers(0, 5000, N) * 25), lambda s: s % 25 == 0, "multiples of 25"),
    "cents": (
        pd.Series((CENTS + rng.choice([45, 99], N)) / 100),
        lambda s: (s * 100).round().mod(100).isin([45, 99]) & (s == s.round(2)),
        "last 2 digits 45, 99",
    ),
    "half cents apart": (pd.Series((CENTS + rng.choice([49, 99], N)) / 100), None, "0.49 + multiples of 0.5"),
    "nullable": (
        pd.Series(rng.integers(0, 5000, N) * 2 + 1).astype("Int32").where(rng.random(N) < 0.9),
        lambda s: s.dropna() % 2 == 1,
        "1 + multiples of 2",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_training_row_keeps_every_drawn_row_keeps(kind):
    series, keeps, words = KINDS[kind]
    frame = pd.DataFrame({"v": series})
    codec = TableCodec().fit(frame)
    arrays = {}
    state = json.loads(json.dumps(pack(codec.state(), arrays)))
    loaded = TableCodec.from_state(unpack(state, arrays))
    z = torch.randn(3000, 1 + len(codec.n_levels_), generator=torch.Generator().manual_seed(1))
    z[:, 1:] = 0
    drawn = codec.decode(z)["v"]
    assert drawn.dtype == series.dtype
    pd.testing.assert_series_equal(loaded.decode(z)["v"], drawn)
    if keeps is not None:
        assert keeps(series).all() and keeps(drawn).all()
    assert not drawn.isin(series).all()  # it is no list of what was seen
    said = codec.schema_["grid"][0]
    assert said == loaded.schema_["grid"][0] is not None
    if words is not None:
        assert said == words


@pytest.mark.parametrize("seed", range(20))
def test_no_rule_is_found_by_chance(seed):
    r = np.random.default_rng(seed)
    n = int(r.integers(5, 2000))
    days = pd.Series(r.choice(pd.date_range("2015", "2024"), n))
    seconds = pd.Series(pd.Timestamp("2020") + pd.to_timedelta(r.integers(0, 10**8, n), unit="s"))
    frame = pd.DataFrame(
        {
            "days": days,
            "seconds": seconds,
            "one day": pd.Timestamp("2020-02-03 09:00") + pd.to_timedelta(r.integers(0, 8 * 3600, n), unit="s"),
            "whole": r.integers(-(10**6), 10**6, n),
            "skewed": np.exp(r.normal(8, 1.5, n)).astype(int),
            "cents": r.normal(100, 20, n).round(2),
            "real": r.normal(size=n),
        }
    )
    assert not TableCodec().fit(frame).schema_["grid"].notna().any()


def test_what_only_happens_to_be_missing_between_two_is_filled_in():
    hours = np.delete(np.arange(8, 20), 5)  # none at 13
    ticks = np.arange(60)[:, None] * 24 + np.random.default_rng(0).choice(hours, (60, 3))
    few, many = (find_times(np.unique(ticks[:n]), 1, 24).time_of_day for n in (20, 60))
    assert few.contains(np.array([13])).all() and many.length == 11
    always = find_times(np.unique(np.arange(400)[:, None] * 24 + hours), 1, 24).time_of_day
    assert not always.contains(np.array([13])).any()
    minutes = np.random.default_rng(1).integers(0, 24, 150) * 100 + np.random.default_rng(2).integers(0, 60, 150)
    rule = find_number_grid(np.unique(minutes).astype(float), (1, 0)).rule
    seen = np.unique(minutes % 100)
    assert rule.residues == list(range(seen[0], seen[-1] + 1)) and len(seen) < len(rule.residues)


def test_a_rule_needs_so_many_distinct_values_that_chance_would_not_do():
    # Five days of seven: 30 distinct ones are all working days with a probability of 4e-5 times the rules looked at.
    ticks = pd.bdate_range("2015", "2024").to_numpy().astype("M8[D]").astype(int)
    few, many = (np.sort(rng.choice(ticks, n, replace=False)) for n in (30, 70))
    assert find_times(few, 1, 1) is None
    assert find_times(many, 1, 1).days.values == {"weekday": [0, 1, 2, 3, 4]}
    # However often the few repeat.
    column = NumericColumn(np.repeat([3.0, 5.0, 9.0, 401.0], 10), np.dtype(float), "x")
    assert column.grid_ is None


GRIDS = {
    "residues": Residues(10, [1, 4, 9]),
    "window": Window(24, 22, 6),
    "days": Days({"days_left": [0], "month": [3, 6, 9, 12]}),
    "every other day": Days({"weekday": [0, 2]}, period=2, phase=1),
    "moments": Moments(4, Residues(4, [1, 3]), Days({"weekday": [0, 1, 2, 3, 4]})),
    "hours": Moments(24, Window(24, 9, 8), Days({"weekday": [0, 1, 2, 3, 4]})),
    "dates": DateNumbers(Days({"day": [1, 31]})),
}


@pytest.mark.parametrize("name", GRIDS)
def test_below_above_and_nearest_are_what_a_search_finds(name):
    grid = GRIDS[name]
    start = 2023_11_05 if name == "dates" else -300
    every = np.arange(start, start + 900)
    if name == "dates":
        dates = pd.date_range("2023", "2025")
        on = np.array([int(d.strftime("%Y%m%d")) for d in dates if d.day in (1, 31)])
    else:
        on = every[grid.contains(every)]
    inside = every[(every >= on[0]) & (every <= on[-1])]
    below = np.array([on[on <= tick].max() for tick in inside])
    above = np.array([on[on >= tick].min() for tick in inside])
    np.testing.assert_array_equal(grid.below(inside), below)
    np.testing.assert_array_equal(grid.above(inside), above)
    distance = np.abs(grid.nearest(inside) - inside)
    np.testing.assert_array_equal(distance, np.minimum(inside - below, above - inside))
    assert grid.contains(grid.nearest(inside)).all()


def test_days_of_a_rule_are_those_of_pandas():
    days = np.arange(-20_000, 30_000)  # from 1915 to 2052
    index = pd.DatetimeIndex(days.astype("M8[D]").astype("M8[s]"))
    expected = {
        "weekday": index.dayofweek == 2,
        "month": index.month == 2,
        "day": index.day == 29,
        "days_left": index.is_month_end,
        "working_days_left": index == index + pd.offsets.BMonthEnd(0),
    }
    values = {"weekday": 2, "month": 2, "day": 29, "days_left": 0, "working_days_left": 0}
    for name, want in expected.items():
        np.testing.assert_array_equal(Days({name: [values[name]]}).contains(days), want)


def test_days_beyond_any_calendar_stay_as_they_are():
    grid = Days({"weekday": [0, 1, 2, 3, 4]})
    np.testing.assert_array_equal(grid.nearest(np.array([2, 3, 10**12])), [1, 4, 10**12])
    assert DateNumbers(grid).nearest(np.array([20240106, 20240105, 10**15]))[:2].tolist() == [20240105, 20240105]


def test_codes_that_repeat_are_drawn_as_seen_and_counts_are_not():
    codes = rng.integers(10_000, 99_999, 200)
    shares = 1 / np.arange(1, 201)
    postcodes = rng.choice(codes, 1200, p=shares / shares.sum())
    column = NumericColumn(postcodes.astype(float), np.dtype(int), "postcode")
    assert column.observed_only_ and (column.counts_ < 5).sum() > 50
    z = np.random.default_rng(1).normal(size=5000)
    assert np.isin(column.decode_values(z), codes).all()
    again = NumericColumn.from_state(column.state())
    np.testing.assert_array_equal(again.decode_values(z), column.decode_values(z))
    for counts in (rng.poisson(rng.gamma(1.0, 30.0, 1200)), rng.geometric(0.01, 1200)):
        column = NumericColumn(counts.astype(float), np.dtype(int), "counts")
        assert not column.observed_only_ and not np.isin(column.decode_values(z), counts).all()


def test_a_column_of_an_older_file_draws_what_it_drew():
    values = (rng.integers(0, 5000, N) * 2 + 1).astype(float)
    column = NumericColumn(values, np.dtype(int), "odd")
    state = {k: v for k, v in column.state().items() if k not in ("grid", "observed_only")}
    old = NumericColumn.from_state(state)
    assert old.grid_ is None and (old.decode_values(np.linspace(-2, 2, 500)) % 2 == 0).any()


@pytest.mark.parametrize("constraint", ["a <= b", "a < b", "b <= c", "b < c"])
def test_a_column_that_a_constraint_rebuilds_keeps_its_grid(constraint):
    b = some("2015", "2020", freq="B")
    days = pd.to_timedelta(rng.integers(1, 300, N), unit="D")
    frame = pd.DataFrame({"a": b - days, "b": b, "c": b + days, "x": rng.normal(size=N)})
    numbers = frame.assign(**{name: as_numbers(frame[name]) for name in "abc"})
    for table, date in ((frame, lambda s: s), (numbers, read_numbers)):
        codec = TableCodec(constraints=[constraint]).fit(table)
        arrays = {}
        state = json.loads(json.dumps(pack(codec.state(), arrays)))
        codec = TableCodec.from_state(unpack(state, arrays))
        drawn = codec.decode(torch.randn(2000, 4, generator=torch.Generator().manual_seed(2)) * 1.5)
        assert drawn.eval(constraint).all()
        assert (date(drawn["b"]).dt.dayofweek < 5).all()
        assert codec.schema_.set_index("column").loc["b", "grid"].endswith("Monday to Friday")


def test_what_equals_another_column_keeps_its_own_grid():
    odd = rng.integers(0, 5000, 2000) * 2 + 1
    other = np.where(rng.random(2000) < 0.3, odd, rng.integers(0, 10_000, 2000))
    for first, second in ((odd, other), (other, odd)):
        frame = pd.DataFrame({"first": first, "second": second})
        codec = TableCodec().fit(frame)
        assert codec.equalities_.sources_ == {1: [0]}
        z = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
        z[:, 2] = 1.0
        drawn = codec.decode(z)
        name = "first" if first is odd else "second"
        assert (drawn[name] % 2 == 1).all() and (drawn["first"] == drawn["second"]).mean() > 0.2


def test_a_number_grid_needs_a_unit_and_three_values():
    assert find_number_grid(np.array([1.0, 3.0]), (1, 0)) is None
    assert find_number_grid(rng.normal(size=50), None) is None


@pytest.fixture(scope="module")
def model():
    numbers = as_numbers(some("2019", "2024")).astype(float).where(rng.random(N) < 0.8)
    frame = pd.DataFrame({"first": some("1990", "2024", freq="MS"), "ymd": numbers, "x": rng.normal(size=N)})
    frame["first"] = frame["first"].where(rng.random(N) < 0.9)
    return DiffusionGenerator(max_steps=2, hidden_size=8, refine=False, random_state=0).fit(frame), frame


@pytest.mark.slow
def test_samples_holes_and_columns_beside_held_ones_keep_their_grids(model, tmp_path):
    gen, frame = model
    gen.save(tmp_path / "model")
    for fitted in (gen, DiffusionGenerator.load(tmp_path / "model")):
        assert fitted.schema_["grid"].to_list() == ["day 1 of the month", "dates as yyyymmdd", None]
        held = fitted.sample(100, {"ymd": 20200229.0}, random_state=0)
        assert (held["ymd"] == 20200229).all()
        tables = [
            fitted.sample(200, random_state=0),
            held,
            fitted.impute(frame, strategy="mean", random_state=0),
            fitted.impute(frame, strategy="draw", random_state=0),
        ]
        for table in tables:
            assert table["first"].dropna().dt.is_month_start.all()
            assert read_numbers(table["ymd"].dropna()).notna().all()
    assert not tables[-1].isna().any(axis=None) and not tables[-2].isna().any(axis=None)


def test_digits_that_only_happen_to_be_those_of_the_training_rows_are_no_grid():
    # Means of a few whole numbers have some last digits more often than others, and many that few rows have.
    draw = np.random.default_rng(0)
    means = np.round(draw.integers(1000, 20_000, 4000) / draw.integers(1, 90, 4000), 6)
    half = [np.unique(part) for part in np.array_split(means, 2)]
    digits = [np.unique(np.rint(part * 1e6).astype(np.int64) % 1000) for part in half]
    assert len(digits[0]) < 1000
    assert not set(digits[1]) <= set(digits[0])
    assert find_number_grid(half[0], (1, 6)) is None


def test_times_of_day_that_only_happen_to_be_those_of_the_training_rows_are_no_grid():
    seconds = np.unique(np.r_[rng.integers(0, 24, 300) * 3600, rng.integers(0, 86_400, 60)])
    ticks = np.unique(rng.integers(0, 900, 400) * 86_400 + rng.choice(seconds, 400))
    found = find_times(ticks, 1, 86_400)
    assert found is None or not isinstance(found.time_of_day, Residues)
    hours = np.unique(rng.integers(0, 900, 400) * 86_400 + rng.integers(0, 9, 400) * 3600)
    assert find_times(hours, 1, 86_400) is not None
