"""One pass over a table: counts against the truth, errors within what is stated."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tabdiff.codecs.columns import FrameStorage
from tabdiff.codecs.tables import survey as module
from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.codecs.tables.survey import TableSurvey


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "MAX_DISTINCT", 500)
    monkeypatch.setattr(module, "COUNTERS", 100)
    monkeypatch.setattr(module, "SAMPLE_ROWS", 2000)
    monkeypatch.setattr(module, "MIN_SAMPLE", 2000)


def frame(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    spike = np.where(rng.random(n) < 0.3, 0.0, rng.gamma(2.0, 3.0, n))
    out = pd.DataFrame(
        {
            "continuous": rng.normal(size=n),
            "spike": spike,
            "whole": rng.poisson(20, n),
            "level": rng.choice(["a", "b", "c"], n, p=[0.899, 0.1, 0.001]),
            "many": [f"id{i}" for i in rng.zipf(1.5, n)],
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, n), unit="D"),
            "hole": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        }
    )
    out["beside"] = out["hole"] * 2
    return out


def surveyed(data, chunk, conditions=(), seed=3):
    survey = TableSurvey(list(data.columns), conditions, seed)
    for i in range(0, len(data), chunk):
        survey.add(data.iloc[i : i + chunk].reset_index(drop=True))
    return survey


def test_the_sample_does_not_depend_on_the_chunks():
    data = frame()
    (a, n), (b, m) = (surveyed(data, size).sample() for size in (777, 5000))
    assert n == m == 2000
    pd.testing.assert_frame_equal(a.iloc[:n], b.iloc[:n])


def test_the_sample_is_put_together_on_the_way(monkeypatch):
    data = frame(6000)[["continuous", "level"]]
    whole = surveyed(data, 6000).sample()[0]
    monkeypatch.setattr(module, "MAX_PARTS", 3)
    for each in (data, data.astype({"continuous": pd.ArrowDtype(pa.float64()), "level": pd.ArrowDtype(pa.string())})):
        survey = surveyed(each, 300)
        assert len(survey._parts) <= 4
        rows = survey.sample()[0]
        assert rows.dtypes.equals(each.dtypes) and rows.to_numpy().tolist() == whole.to_numpy().tolist()


def test_text_of_arrow_is_counted_as_that_of_python():
    data = frame()[["level", "many"]]
    data.loc[::7, "level"] = None
    arrow = data.astype(pd.ArrowDtype(pa.string()))
    (a, b) = (surveyed(each, 777) for each in (data, arrow))
    for name in data:
        rows = [FrameStorage.read(each.sample()[0])[name] for each in (a, b)]
        one, other = a.column(name, rows[0]), b.column(name, rows[1])
        assert one.values.to_list() == other.values.to_list() and (one.counts == other.counts).all()
        assert (one.dtype, one.n_missing, one.exact) == (other.dtype, other.n_missing, other.exact)


def test_values_are_counted_exactly_up_to_the_limit():
    data = frame()
    survey = surveyed(data, 3000)
    rows, _ = survey.sample()
    for name in ("whole", "level", "when"):
        found = survey.column(name, rows[name])
        truth = data[name].value_counts()
        assert found.exact and dict(zip(found.values, found.counts)) == truth.to_dict()
    assert survey.column("hole", rows["hole"]).n_missing == data["hole"].isna().sum()


def test_heavy_values_beyond_the_limit_are_within_the_stated_error():
    data = frame()
    survey = surveyed(data, 3000)
    rows, _ = survey.sample()
    found = survey.column("spike", rows["spike"])
    assert not found.exact and found.n_counted == 1 and found.values[0] == 0.0
    assert abs(found.counts[0] - (data["spike"] == 0).sum()) <= len(data) / 101
    assert found.counts.sum() == pytest.approx(len(data))
    assert found.values.min() == data["spike"].min() and found.values.max() == data["spike"].max()
    levels = survey.column("many", rows["many"])
    truth = data["many"].value_counts()
    common = dict(zip(levels.values[: levels.n_counted], levels.counts))
    assert common and all(abs(count - truth[level]) <= len(data) / 101 for level, count in common.items())


def test_the_codec_has_the_marginals_of_all_rows():
    data = frame()
    survey = surveyed(data, 3000)
    rows, _ = survey.sample()
    codec = TableCodec().fit(rows, survey=survey)
    whole = TableCodec().fit(data)
    assert [type(a) for a in codec.columns_] == [type(b) for b in whole.columns_]
    for a, b in zip(codec.columns_, whole.columns_, strict=True):
        if not hasattr(a, "cdf_"):
            continue
        grid = np.union1d(a.values_, b.values_)
        cdf_a = np.interp(np.searchsorted(a.values_, grid, side="right"), np.arange(len(a.values_) + 1), a.cdf_)
        cdf_b = np.interp(np.searchsorted(b.values_, grid, side="right"), np.arange(len(b.values_) + 1), b.cdf_)
        assert np.abs(cdf_a - cdf_b).max() < survey.cdf_error
        assert (a.values_[0], a.values_[-1]) == (b.values_[0], b.values_[-1])
    level = list(codec.index_).index("level")
    assert codec.columns_[level].levels_ == ["a", "b", "c"]
    assert codec.columns_[level].counts_.tolist() == data["level"].value_counts().sort_index().to_list()
    encoded = codec.encode(data.assign(many=rows["many"].iloc[0]))
    assert np.abs(np.nanmean(encoded[:, 0].numpy())) < 0.05


def test_rare_rows_are_shown_to_the_codec():
    data = frame()
    data["half"] = data["whole"].astype(float)
    data.loc[17_321, "beside"] = 1.0  # no longer missing with the other
    data.loc[17_321, "hole"] = np.nan
    data.loc[12_345, "half"] = np.nan  # the only one
    data["kind"] = "u"
    data.loc[9_876, "kind"] = "v"
    survey = surveyed(data, 3000, ["kind"])
    rows, n = survey.sample()
    assert n == 2000 and len(rows) <= n + 12
    assert set(rows["kind"]) == {"u", "v"} and rows["half"].isna().any()
    assert (rows["hole"].isna() != rows["beside"].isna()).any()
    codec = TableCodec().fit(rows.drop(columns="kind"), survey=survey)
    assert codec.n_masks_ == 3


def test_a_table_no_larger_than_the_sample_is_all_of_it():
    data = frame(1500)
    rows, n = surveyed(data, 400).sample()
    assert n == 1500
    pd.testing.assert_frame_equal(rows, data)


def test_wrong_values_name_their_column():
    data = frame(100)
    data["whole"] = data["whole"].astype(float)
    data.loc[5, "whole"] = np.inf
    with pytest.raises(ValueError, match="'whole' contains 1 infinite"):
        surveyed(data, 50)
