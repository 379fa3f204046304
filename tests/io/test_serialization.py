import numpy as np
import pandas as pd
import pytest

from tabdiff.io.serialization import pack, unpack


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2020-01-01", periods=3, freq="MS", name="month"),
        pd.date_range("2020-01-01", periods=3, freq="2h", tz="Europe/Berlin"),
        pd.timedelta_range("1h", periods=4, freq="90min"),
        pd.DatetimeIndex(["2020-01-01", "2020-01-05"]),
    ],
    ids=repr,
)
def test_an_index_of_times_keeps_its_frequency(index):
    arrays: dict[str, np.ndarray] = {}
    back = unpack(pack(index, arrays), arrays)
    assert back.identical(index) and back.freq == index.freq


def test_an_index_of_times_without_a_frequency_in_the_file_loads():
    arrays: dict[str, np.ndarray] = {}
    packed = pack(pd.date_range("2020-01-01", periods=3, freq="D"), arrays)
    del packed["freq"]
    assert unpack(packed, arrays).freq is None
