import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from encoded import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from tabdiff import DiffusionGenerator
from tabdiff.codecs import TableCodec, make_codec
from tabdiff.codecs.tables.constraints import Constraints
from tabdiff.datasets import load_penguins


def sampled(frame, constraints, n=2000, seed=0, **kwargs):
    codec = TableCodec(constraints=constraints, **kwargs).fit(frame)
    codec = TableCodec.from_state(codec.state())
    rows = codec.decode(noise(codec, n, seed))
    assert list(rows.columns) == list(frame.columns)
    assert rows.dtypes.to_list() == frame.dtypes.to_list()
    return codec, rows


@pytest.fixture
def orders():
    rng = np.random.default_rng(0)
    n = 500
    net, tax = rng.gamma(2.0, 50.0, n).round(2), rng.gamma(2.0, 8.0, n).round(2)
    off = (net * rng.random(n) * (rng.random(n) < 0.3)).round(2)
    first = pd.Timestamp("2021-03-01") + pd.to_timedelta(rng.integers(0, 400, n), "D")
    return pd.DataFrame(
        {
            "net price": net,
            "tax": tax,
            "off": off,
            "total": (net + tax - off).round(2),
            "paid": ((net + tax - off) * rng.choice([0.5, 1.0], n)).round(2),
            "ordered": first,
            "shipped": first + pd.to_timedelta(rng.poisson(3.0, n), "D"),
            "items": rng.integers(1, 9, n),
            "open": rng.integers(0, 2, n),
        }
    ).assign(closed=lambda f: f["items"] - f["open"])


# -------------------------------------------------------------- by construction


def test_every_row_keeps_every_constraint_and_cents_stay_cents(orders):
    texts = ["total = `net price` + tax - off", "off <= `net price`", "paid <= total", "shipped >= ordered"]
    codec, rows = sampled(orders, [*texts, "items == open + closed"])
    cents = (rows[["net price", "tax", "off", "total", "paid"]] * 100).round().astype("int64")
    pd.testing.assert_frame_equal(cents / 100, rows[cents.columns], check_exact=True)
    assert (cents["total"] == cents["net price"] + cents["tax"] - cents["off"]).all()
    assert (rows["off"] <= rows["net price"]).all()
    assert (rows["paid"] <= rows["total"]).all()
    assert (rows["ordered"] <= rows["shipped"]).all()
    assert (rows["ordered"].dt.normalize() == rows["ordered"]).all()
    assert (rows["shipped"].dt.normalize() == rows["shipped"]).all()
    assert (rows["items"] == rows["open"] + rows["closed"]).all()
    # A bound does not take the place of the range, where both can be had.
    assert rows["shipped"].max() <= orders["shipped"].max()
    schema = codec.schema_.set_index("column")
    assert schema.loc["total", "determined_by"] == "net price + tax - off"
    assert schema.loc["items", "determined_by"] == "open + closed"
    assert schema.loc["paid", "determined_by"] is None
    assert schema.loc["shipped", ["kind", "dtype"]].to_list() == ["time", "datetime64[ns]"]
    assert schema.loc["total", "distinct"] == orders["total"].nunique()


def test_encoding_and_decoding_gives_rows_back(orders):
    codec = TableCodec(constraints=["total = `net price` + tax - off", "paid <= total", "ordered <= shipped"])
    codec.fit(orders)
    assert codec.n_continuous_ + len(codec.n_levels_) == orders.shape[1] - 1
    decoded = codec.decode(codec.encode(orders))
    for name in ("total", "paid", "ordered", "shipped"):
        # A light value is known up to its neighbours.
        difference = (decoded[name] - orders[name]).abs()
        assert difference.quantile(0.98) <= 5 * orders[name].sort_values().diff().median()
    pd.testing.assert_series_equal(decoded["open"], orders["open"])


def test_what_is_below_a_sum_is_rebuilt_from_it():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 100, (2, 400))
    paid = np.floor((a + b) * rng.random(400)).astype(int)
    frame = pd.DataFrame({"deposit": paid // 3, "paid": paid, "total": a + b, "a": a, "b": b})
    frame = frame[frame["paid"] < frame["total"]]
    codec, rows = sampled(frame, ["deposit <= paid", "paid < total", "total = a + b"])
    assert [t.name for t in codec.constraints_.rebuilt_] == ["total", "paid", "deposit"]
    assert (rows["total"] == rows["a"] + rows["b"]).all()
    assert (rows["paid"] < rows["total"]).all() and (rows["deposit"] <= rows["paid"]).all()
    back = codec.decode(codec.encode(frame))
    assert (back["paid"] - frame["paid"].to_numpy()).abs().max() <= 2


def test_chains_and_several_bounds():
    rng = np.random.default_rng(0)
    parts = np.cumsum(rng.integers(0, 5, (300, 4)), axis=1)
    frame = pd.DataFrame(parts, columns=list("abcd"))
    frame["e"] = frame[["b", "d"]].max(axis=1) + 1
    codec, rows = sampled(frame, ["b <= c", "c <= d", "a <= b", "a <= d", "d < e", "b < e"])
    assert [t.name for t in codec.constraints_.rebuilt_] == ["b", "c", "d", "e"]
    assert (rows["a"] <= rows["b"]).all() and (rows["b"] <= rows["c"]).all() and (rows["c"] <= rows["d"]).all()
    assert (rows["d"] < rows["e"]).all()


def test_equal_columns():
    x = np.random.default_rng(0).normal(size=200)
    codec, rows = sampled(pd.DataFrame({"a": x, "b": x}), ["a = b"])
    assert codec.n_continuous_ == 1
    assert (rows["a"] == rows["b"]).all()


def test_a_unit_that_the_bound_does_not_share_is_kept():
    rng = np.random.default_rng(0)
    weight = rng.gamma(4.0, 30.0, 400).round(1)
    frame = pd.DataFrame({"weight": weight, "box": np.ceil(weight / 25).astype(int) * 25})
    _, rows = sampled(frame, ["weight <= box"])
    assert (rows["weight"] <= rows["box"]).all()
    assert (rows["box"] % 25 == 0).all()


@pytest.mark.parametrize("strict", [False, True])
def test_bounds_survive_the_rounding_to_single_precision(strict):
    rng = np.random.default_rng(0)
    low = rng.normal(size=400)
    high = (low + rng.exponential(1e-7, 400)).astype("float32")
    frame = pd.DataFrame({"low": low, "high": high})
    frame = frame[(frame["low"] < frame["high"])]
    _, rows = sampled(frame, ["low < high" if strict else "low <= high"])
    assert (rows["low"] < rows["high"] if strict else rows["low"] <= rows["high"]).all()


def test_sums_that_miss_by_rounding_hold():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300)).astype("float32")
    codec, rows = sampled(pd.DataFrame({"a": a, "b": b, "total": a + b}), ["total = a + b"])
    assert codec.n_continuous_ == 2
    np.testing.assert_allclose(rows["total"], rows["a"] + rows["b"], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------- missing values


def test_missing_values_stay_where_they_belong():
    rng = np.random.default_rng(0)
    n = 800
    low = rng.integers(0, 50, n).astype(float)
    high = low + rng.integers(0, 20, n)
    low[:200], high[100:300] = np.nan, np.nan
    frame = pd.DataFrame({"low": pd.array(low, dtype="Int64"), "high": high})
    codec, rows = sampled(frame, ["low <= high"])
    both = rows.dropna()
    assert len(both) and (both["low"] <= both["high"]).all()
    pattern = codec.decode(codec.encode(frame)).isna()
    pd.testing.assert_frame_equal(pattern, frame.isna())
    alone = frame["low"].isna() & frame["high"].notna()
    back = codec.decode(codec.encode(frame))
    assert (back.loc[alone, "high"] - frame.loc[alone, "high"]).abs().max() <= 1
    assert rows["high"].between(frame["high"].min(), frame["high"].max()).loc[rows["high"].notna()].all()


def test_a_total_over_missing_terms():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 90, (2, 600)).astype(float)
    a[:150] = np.nan
    frame = pd.DataFrame({"a": a, "b": b})
    for total in (frame.sum(axis=1), frame.sum(axis=1, skipna=False)):
        full = frame.assign(total=total)
        full.loc[500:, "total"] = np.nan
        codec, rows = sampled(full, ["total = a + b"])
        complete = rows.dropna()
        assert len(complete) and (complete["total"] == complete["a"] + complete["b"]).all()
        assert rows["total"].isna().any()
        back = codec.decode(codec.encode(full))
        pd.testing.assert_frame_equal(back.isna(), full.isna())
        partial = full["a"].isna() & full["total"].notna()
        assert (back.loc[partial, "total"] - full.loc[partial, "total"]).abs().max() <= 1 or not partial.any()


def test_times_with_holes_and_time_zones():
    rng = np.random.default_rng(0)
    start = pd.Series(
        pd.Timestamp("2023-03-20 08:00", tz="Europe/Berlin") + pd.to_timedelta(rng.integers(0, 9e4, 300), "s")
    )
    frame = pd.DataFrame({"start": start, "end": start + pd.to_timedelta(rng.exponential(900, 300).round(3), "s")})
    frame.loc[:30, "end"] = pd.NaT
    frame.loc[20:60, "start"] = pd.NaT
    _, rows = sampled(frame, ["start <= end"])
    both = rows.dropna()
    assert len(both) and (both["start"] <= both["end"]).all()
    assert rows["end"].isna().any() and rows["start"].isna().any()
    durations = pd.DataFrame({"part": frame["end"] - frame["start"]}).fillna(pd.Timedelta(0))
    durations["whole"] = durations["part"] + pd.to_timedelta(rng.integers(1, 50, 300), "s")
    _, rows = sampled(durations, ["part < whole"])
    assert (rows["part"] < rows["whole"]).all()


# ------------------------------------------------------------------- hypothesis


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(5, 80),
    seed=st.integers(0, 2**31),
    decimals=st.sampled_from([0, 2, None]),
    holes=st.floats(0, 0.5),
    strict=st.booleans(),
    integer=st.booleans(),
)
def test_no_row_breaks_a_constraint(n, seed, decimals, holes, strict, integer):
    rng = np.random.default_rng(seed)
    a, gap, c = rng.normal(0, 30, n), rng.exponential(3, n) * (rng.random(n) < 0.7) + 0.01, rng.normal(0, 5, n)
    if decimals is not None:
        a, gap, c = (np.round(x, decimals) for x in (a, gap, c))
    b = np.round(a + gap + (strict if decimals == 0 else 0), 9 if decimals is None else decimals)
    total = a - c if decimals is None else np.round(a - c, decimals)
    frame = pd.DataFrame({"b": b, "a": a, "total": total, "c": c}).mask(rng.random((n, 4)) < holes)
    frame = frame[(frame["a"] < frame["b"]) | frame["a"].isna() | frame["b"].isna()] if strict else frame
    frame = frame[~(frame["a"] > frame["b"])].reset_index(drop=True)
    if integer and decimals == 0:
        frame = frame.astype("Int64")
    if not len(frame):
        return
    _, rows = sampled(frame, ["a < b" if strict else "b >= a", "total = a - c"], 100, seed % 1000)
    bound = rows[["a", "b"]].dropna()
    assert (bound["a"] < bound["b"]).all() if strict else (bound["a"] <= bound["b"]).all()
    summed = rows[["total", "a", "c"]].dropna().astype(float)
    np.testing.assert_allclose(summed["total"], summed["a"] - summed["c"], rtol=1e-12, atol=1e-9)


# ----------------------------------------------------------------------- scores


def test_the_change_of_variables_has_a_unit_jacobian():
    rng = np.random.default_rng(0)
    a, gap, c = rng.normal(size=300), rng.exponential(size=300), rng.normal(size=300)
    frame = pd.DataFrame({"a": a, "b": a + gap, "total": a + c, "c": c})
    by_hand = pd.DataFrame({"a": a, "b": frame["b"] - a, "c": c})
    codec = TableCodec(constraints=["a <= b", "total = a + c"]).fit(frame)
    plain = TableCodec().fit(by_hand)
    data = codec.encode(frame)
    assert torch.equal(data, plain.encode(by_hand))
    np.testing.assert_allclose(codec.log_jacobian(frame, data), plain.log_jacobian(by_hand, data))
    broken = frame.assign(b=frame["a"] - 1.0, total=0.0)
    score = codec.log_jacobian(broken, codec.encode(broken))
    assert np.isfinite(score).all() and score.mean() < codec.log_jacobian(frame, data).mean()


def test_dependencies_hold_beside_constraints():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 12, 600)
    frame = pd.DataFrame({"kind": [f"k{v}" for v in kind], "least": kind * 3, "most": kind * 3 + kind % 4 + 1})
    frame["value"] = frame["least"] + rng.integers(0, 3, 600)
    codec, rows = sampled(frame, ["least < most", "least <= value"])
    assert codec.schema_["determined_by"].to_list() == [None, "kind", "kind", None]
    assert len(rows[["kind", "least", "most"]].drop_duplicates()) == 12
    assert (rows["least"] <= rows["value"]).all()


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (["a <= bb"], r"'bb' is no column.*Did you mean 'b'"),
        (["a <= word"], r"'word' has dtype .*numbers or times"),
        (["a <= flag"], r"'flag' has dtype bool"),
        (["b <= a"], r"'b <= a' does not hold in 8 of 10 rows, the first at index 102"),
        (["total = a - b"], r"'total = a - b' does not hold in 9 of 10 rows, the first at index 101"),
        (["a <= b", "b <= a"], r"\['a <= b', 'b <= a'\] determine \['a', 'b'\] in a circle"),
        (["total = a + b", "a <= total"], r"determine \['a', 'total'\] in a circle"),
        (["total = a + b", "total = b + a"], r"both determine 'total'"),
        (["a <= b", "b <= total", "total = half + b"], "in a circle"),
        (["a <= 5"], r"cannot be read at '5'"),
        (["a <= b <= total"], r"cannot be read at '<= total'"),
        (["a + b"], r"is not complete"),
        (["a <="], r"is not complete"),
        (["a b <= total"], r"cannot be read at 'b <= total'"),
        (["a + b <= total"], r"each side of '<=' must be a single column"),
        (["a + b = total + a"], r"one side must be a single column"),
        (["a <= day"], r"compares a time with a number"),
        (["a = day"], r"\['day'\] hold times"),
        ([1], r"must be a string; got 1"),
        ("a <= b", r"must be a list of strings.*Use \['a <= b'\]"),
        (["small = left + right"], r"can give 'small' values from 0 to 160, which its dtype int8 cannot hold"),
        (["whole = half + half2"], r"'whole' holds integers, but a term has fractions"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(constraints, message):
    a, b = np.arange(10) % 9, np.arange(10) * 15 % 127 + np.arange(10) % 9
    b[:2] = a[:2]
    frame = pd.DataFrame({"a": a, "b": b, "total": a + b}, index=range(100, 110))
    frame = frame.assign(word="x", flag=True, day=pd.Timestamp("2020-01-01"), half=0.5, half2=0.5, whole=1)
    frame = frame.assign(left=a * 10, right=80 - a * 10, small=np.full(10, 80, dtype="int8"))
    with pytest.raises(ValueError, match=message):
        TableCodec(constraints=constraints).fit(frame)


def test_constraints_need_a_table():
    with pytest.raises(ValueError, match="must be a DataFrame; got ndarray"):
        make_codec(np.zeros((5, 2)), constraints=["a <= b"])


def test_the_input_is_left_alone(orders):
    before = orders.copy(deep=True)
    codec = TableCodec(constraints=["paid <= total", "ordered <= shipped"]).fit(orders)
    codec.encode(orders)
    pd.testing.assert_frame_equal(orders, before)
    assert Constraints().fit(orders).reduce(orders) is orders


# -------------------------------------------------------------------- estimator


@pytest.mark.slow
def test_the_estimator_keeps_them_through_save_load_and_pickle(tmp_path):
    penguins = load_penguins()
    gen = DiffusionGenerator(
        constraints=["bill_depth_mm < bill_length_mm", "flipper_length_mm <= body_mass_g"],
        max_steps=20,
        hidden_size=32,
        random_state=0,
    ).fit(penguins, condition="species")
    rows = gen.sample(400, random_state=1)
    assert (rows["bill_depth_mm"] < rows["bill_length_mm"])[rows["bill_length_mm"].notna()].all()
    assert (rows["flipper_length_mm"] <= rows["body_mass_g"]).dropna().all()
    assert rows.dtypes.to_list() == penguins.dtypes.to_list()
    missing = rows[["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]].isna()
    assert (missing.nunique(axis=1) == 1).all()
    assert np.isfinite(gen.score_samples(penguins)).all()
    gen.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    assert loaded.constraints == gen.constraints
    for model in (loaded, pickle.loads(pickle.dumps(gen))):
        pd.testing.assert_frame_equal(model.sample(400, random_state=1), rows)
        np.testing.assert_array_equal(model.score_samples(penguins), gen.score_samples(penguins))
