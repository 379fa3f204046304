"""Numbers and times that `sample` is asked for come back as they were asked for."""

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator


def fit(frame, condition):
    return DiffusionGenerator(max_steps=2, hidden_size=8, refine=False, random_state=0).fit(frame, condition=condition)


@pytest.mark.parametrize("step", ["7h", "37min", "365d"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_time_between_those_of_the_fit_comes_back(step, zone):
    frame = pd.DataFrame({"d": pd.date_range("2020", periods=60, freq=step, tz=zone), "v": np.arange(60.0)})
    time = pd.Timestamp("2020-01-02 04:05:06", tz=zone)
    gen = fit(frame, "d")
    assert gen.sample(2, condition={"d": time})["d"].eq(time).all()
    assert gen.sample(2, condition={"d": time})["d"].dtype == frame["d"].dtype
    several = gen.sample(condition=pd.Series([time, pd.NaT, frame["d"][3]], name="d", index=[5, 5, 2]))["d"]
    assert several.tolist()[::2] == [time, frame["d"][3]] and several.isna().tolist() == [False, True, False]
    assert gen.sample(condition={"d": {str(time): 2}})["d"].eq(time).all()


def test_seconds_of_twenty_years_are_told_apart():
    seconds = np.random.default_rng(0).integers(0, 20 * 365 * 86_400, 60)
    frame = pd.DataFrame({"d": pd.Timestamp("2000") + pd.to_timedelta(seconds, unit="s"), "v": np.arange(60.0)})
    drawn = fit(frame, "d").sample(condition=frame[["d"]])
    assert drawn["d"].tolist() == frame["d"].tolist()


def test_numbers_keep_digits_beyond_single_precision():
    frame = pd.DataFrame({"p": np.linspace(0.0, 1e9, 60), "k": np.arange(60) * 10**9, "v": np.arange(60.0)})
    drawn = fit(frame, ["p", "k"]).sample(2, condition={"p": 123_456_789.25, "k": 12_345_678_901})
    assert drawn["p"].tolist() == [123_456_789.25] * 2 and drawn["k"].tolist() == [12_345_678_901] * 2
    assert drawn["k"].dtype == np.int64
