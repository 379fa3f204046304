import numpy as np
import pandas as pd
import pytest

from tabdiff.codecs.tables.observed import patch

ALL, SOME = np.array([True, True, True]), np.array([True, False, True])


@pytest.mark.parametrize("where", [ALL, SOME])
@pytest.mark.parametrize("value", [pd.NaT, pd.Timestamp("2020-01-01"), pd.Timedelta("1h"), 1, True, "a"])
def test_objects_stay_objects(where, value):
    series = pd.Series([value] * 3, dtype=object, name="c")
    out = patch(series, where, pd.Series([value] * int(where.sum()), dtype=object))
    assert out.dtype == object
    pd.testing.assert_series_equal(out, series)
