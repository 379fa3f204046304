import numpy as np
import pandas as pd
import pytest

from tabdiff.codecs.columns import COLUMN_TYPES, Column, ConstantColumn, LevelColumn, NumericColumn, TimeColumn
from tabdiff.codecs.tables.dependencies import DependentColumn

NUMBERS = pd.Series([1.5, 2.25, np.nan, 7.0, 2.25], name="x")
TIMES = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-05", "2021-03-01", "2020-01-05"]), name="x")
LEVELS = pd.Series(["b", "a", None, "b"], name="x", dtype="category")
CONSTANT = pd.Series(["only"] * 3, name="x")
COLUMNS = [
    (NumericColumn(NUMBERS.to_numpy(), NUMBERS.dtype, "x"), NUMBERS),
    (TimeColumn(TIMES, "x"), TIMES),
    (LevelColumn(LEVELS, "x"), LEVELS),
    (ConstantColumn(CONSTANT, "x"), CONSTANT),
]
COLUMNS += [(DependentColumn(column, bool(series.isna().any())), series) for column, series in COLUMNS]


@pytest.mark.parametrize(("column", "series"), COLUMNS, ids=lambda v: type(v).__name__)
class TestEveryColumn:
    def test_values_come_back_from_their_positions(self, column, series):
        assert isinstance(column, Column)
        pd.testing.assert_series_equal(column.at(column.positions(series)), series)

    def test_it_comes_back_from_its_description(self, column, series):
        state = column.state()
        again = {**COLUMN_TYPES, "dependent": DependentColumn}[state["type"]].from_state(state)
        assert (again.name, again.dtype) == (column.name, column.dtype)
        np.testing.assert_array_equal(again.positions(series), column.positions(series))

    def test_what_it_is_has_no_further_inside(self, column, series):
        assert column.inner.inner is column.inner
        assert (column.inner is column) == (not isinstance(column, DependentColumn))
