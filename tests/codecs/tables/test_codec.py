import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff.codecs import ArrayCodec, TableCodec
from tabdiff.datasets import load_penguins


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "float64": rng.normal(size=n),
            "float32": rng.gamma(2.0, size=n).astype("float32"),
            "int64": rng.integers(0, 1000, size=n),
            "Int64": pd.array(rng.integers(0, 500, size=n), dtype="Int64"),
            "category": pd.Categorical(rng.choice(["a", "b"], size=n), categories=["unused", "b", "a"], ordered=True),
            "bool": rng.random(n) < 0.3,
            "boolean": pd.array(rng.random(n) < 0.5, dtype="boolean"),
            "object": rng.choice(["u", "v", "w"], size=n).astype(object),
            "string": pd.array(rng.choice(["s", "t"], size=n), dtype="string"),
            "few": rng.integers(0, 3, size=n),
            "constant": 7,
            ("a", 1): rng.normal(size=n),
        }
    )
    frame.loc[frame.index[:40], "Int64"] = pd.NA
    frame.loc[frame.index[20:60], "float64"] = np.nan
    frame.loc[frame.index[:10], "string"] = pd.NA
    return frame


@pytest.mark.parametrize("through_state", [False, True])
def test_decoding_encoded_rows_gives_them_back(frame, through_state):
    codec = TableCodec().fit(frame)
    if through_state:
        codec = TableCodec.from_state(codec.state())
    decoded = codec.decode(codec.encode(frame, generator=generator()))
    assert list(decoded.columns) == list(frame.columns)
    assert decoded.dtypes.to_list() == frame.dtypes.to_list()
    pd.testing.assert_frame_equal(decoded.isna(), frame.isna())
    for name in ("category", "bool", "boolean", "object", "string", "few", "constant"):
        pd.testing.assert_series_equal(decoded[name], frame[name])
    # A light value is spread over its own interval, half-way to its neighbours.
    assert (decoded["int64"] - frame["int64"]).abs().max() <= np.diff(np.unique(frame["int64"])).max()


def test_the_input_is_left_alone(frame):
    before = frame.copy(deep=True)
    codec = TableCodec().fit(frame)
    codec.decode(codec.encode(frame, generator=generator()))
    pd.testing.assert_frame_equal(frame, before)


def test_numbers_are_standard_normal_and_missing_ones_nan(frame):
    codec = TableCodec().fit(frame)
    data = codec.encode(frame, generator=generator())
    assert data.shape == (200, codec.n_continuous_ + len(codec.n_levels_))
    assert data[20:60, 0].isnan().all() and not data[60:].isnan().any()
    assert abs(float(data[:, 1].mean())) < 0.2 and abs(float(data[:, 1].std()) - 1) < 0.2


def test_columns_that_are_missing_together_stay_together():
    codec = TableCodec().fit(load_penguins())
    noise = torch.randn((500, codec.n_continuous_), generator=generator())
    codes = torch.stack([torch.randint(0, k, (500,), generator=generator(1)).float() for k in codec.n_levels_], 1)
    missing = codec.decode(torch.cat([noise, codes], 1)).isna()
    measured = missing[["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]]
    assert measured.any(axis=None) and (measured.nunique(axis=1) == 1).all()


def test_a_constant_column_costs_nothing_and_a_constant_table_still_encodes():
    frame = pd.DataFrame({"a": [1, 1, 1], "b": ["x", "x", "x"], "c": [np.nan, np.nan, np.nan]})
    codec = TableCodec().fit(frame)
    assert codec.n_continuous_ == 0 and codec.n_levels_ == [1]
    pd.testing.assert_frame_equal(codec.decode(codec.encode(frame)), frame)


def test_duplicate_names_and_multiindex_columns_keep_their_place():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 3)), columns=["a", "a", "b"])
    codec = TableCodec.from_state(TableCodec().fit(frame).state())
    decoded = codec.decode(codec.encode(frame))
    assert list(decoded.columns) == ["a", "a", "b"]
    assert np.corrcoef(decoded.iloc[:, 1], frame.iloc[:, 1])[0, 1] > 0.95
    frame.columns = pd.MultiIndex.from_tuples([("x", "a"), ("x", "b"), ("y", "a")])
    assert TableCodec().fit(frame).decode(codec.encode(frame)).columns.equals(frame.columns)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (pd.DataFrame({"a": [1.0, np.inf]}), ValueError, r"'a'.*infinite"),
        (pd.DataFrame({"a": [1, "x"]}), TypeError, r"'a'.*mixes"),
        (pd.DataFrame({"c": [1j, 2j]}), ValueError, r"'c'.*complex"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample"),
    ],
    ids=["inf", "mixed", "complex", "empty"],
)
def test_columns_that_cannot_be_modelled_are_named(frame, error, message):
    with pytest.raises(error, match=message):
        TableCodec().fit(frame)


def test_categorical_features_overrides():
    frame = pd.DataFrame({"zip": np.arange(100) % 30, "x": np.random.default_rng(0).normal(size=100)})
    assert TableCodec(categorical_features=["zip"]).fit(frame).n_levels_ == [30]
    assert TableCodec(categorical_features=[]).fit(frame).n_levels_ == []
    with pytest.raises(ValueError, match="zap"):
        TableCodec(categorical_features=["zap"]).fit(frame)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "uint8"])
def test_arrays_keep_dtype(dtype):
    array = (np.random.default_rng(0).random((100, 3)) * 100).astype(dtype)
    codec = ArrayCodec.from_state(ArrayCodec().fit(array).state())
    decoded = codec.decode(codec.encode(array, generator=generator()))
    assert decoded.dtype == array.dtype and decoded.shape == array.shape
