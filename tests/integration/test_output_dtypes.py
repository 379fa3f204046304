"""Casts on output: numbers come back in the dtype that went in, or in one that holds them, and never wrapped round."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from tabdiff import DiffusionGenerator, DiffusionImputer
from tabdiff.codecs.cells.depth import thin
from tabdiff.codecs.columns import check_range, restore
from tabdiff.io.expression import find_expression

RNG = np.random.default_rng(0)
QUICK = {"max_steps": 1, "hidden_size": 8, "refine": False, "random_state": 0}
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMPY = [*INTEGERS, "bool", "float16", "float32", "float64", "longdouble", ">i2", ">u4", ">f4"]
NULLABLE = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "boolean"]
ARROW = ["int8", "uint8", "uint16", "int64", "uint64", "float", "double", "bool"]


def quick(**settings):
    return DiffusionGenerator(**{**QUICK, **settings})


def whole_range(dtype, n=60):
    """Values (n, 2) from one end of a dtype to the other, as far as 53 bits."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return RNG.random((n, 2)) < 0.5
    if dtype.kind == "f":
        top = min(float(np.finfo(dtype).max), 1e300) / 2
        return np.concatenate([RNG.uniform(-top, top, (n - 1, 2)), [[top, -top]]]).astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    return np.concatenate([RNG.integers(low, high, (n - 2, 2), endpoint=True), [[low, high], [high, low]]]).astype(
        dtype
    )


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.filterwarnings("error")
def test_arrays_stay_in_their_dtype_and_range(dtype):
    X = whole_range(dtype)
    rows = quick().fit(X).sample(500)
    assert rows.dtype == X.dtype
    assert (rows >= X.min(axis=0)).all() and (rows <= X.max(axis=0)).all()


@pytest.mark.parametrize("dtype", NULLABLE + [f"{name}[pyarrow]" for name in ARROW])
@pytest.mark.filterwarnings("error")
def test_nullable_columns_stay_in_their_dtype_and_range(dtype):
    if dtype.endswith("[pyarrow]"):
        pytest.importorskip("pyarrow")
    plain = {"float": "float32", "double": "float64", "boolean": "bool"}.get(
        dtype.split("[")[0], dtype.split("[")[0].lower()
    )
    values = whole_range(plain)
    frame = pd.DataFrame({"a": pd.Series(values[:, 0]).astype(dtype), "b": pd.Series(values[:, 1]).astype(dtype)})
    frame.loc[::7, "a"] = pd.NA
    rows = quick().fit(frame).sample(300)
    assert rows.dtypes.equals(frame.dtypes) and rows["a"].isna().any()
    for name in frame:
        assert rows[name].min() >= frame[name].min() and rows[name].max() <= frame[name].max()


def test_frames_of_another_byte_order_are_read_in_that_of_the_machine():
    plain = pd.DataFrame({"a": whole_range("f4")[:, 0], "n": RNG.integers(0, 9, 60).astype("i2"), "y": np.arange(60.0)})
    swapped = pd.DataFrame({name: plain[name].to_numpy().astype(plain[name].dtype.newbyteorder(">")) for name in plain})
    gen = quick().fit(swapped, condition="y")
    pd.testing.assert_frame_equal(gen.sample(50), quick().fit(plain, condition="y").sample(50))
    np.testing.assert_array_equal(gen.score_samples(swapped), gen.score_samples(plain))
    pd.testing.assert_frame_equal(gen.impute(swapped), gen.impute(plain))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", -5), ("uint8", 300), ("int8", -129), ("UInt16", -1), ("float16", 1e5), ("float32", 1e39)],
)
def test_a_condition_beyond_its_dtype_is_refused_and_the_advice_holds_it(dtype, value):
    values = pd.Series(np.arange(60)).astype(dtype)
    gen = quick().fit(RNG.normal(size=(60, 2)), condition=values)
    with pytest.raises(ValueError, match=rf"'condition' must be a number from .* {dtype} holds; got") as caught:
        gen.sample(condition=value)
    wider = "float64" if "float64" in str(caught.value) else "int64"
    assert f"Convert the column to {wider} before the fit" in str(caught.value)
    gen = quick().fit(RNG.normal(size=(60, 2)), condition=values.astype(wider))
    with pytest.warns(UserWarning, match="outside the fitted range"):
        _, drawn = gen.sample(3, condition=value, return_condition=True)
    np.testing.assert_allclose(drawn.astype(float), value, rtol=1e-3)


def test_what_a_dtype_does_not_hold_is_never_wrapped_round():
    with pytest.raises(ValueError, match="'n' must be a number from 0 to 255, which uint8 holds; got 256"):
        restore(np.array([256.0]), None, np.dtype("uint8"), "n")
    with pytest.raises(ValueError, match="got 70000"):
        restore(np.array([7e4, np.nan]), np.array([False, True]), np.dtype("float16"), "n")
    check_range(np.array([np.nan, 255.0]), np.dtype("uint8"), "n")
    assert restore(np.array([255.0]), None, np.dtype("uint8"), "n").to_list() == [255]


def test_constraints_of_half_precision_hold_in_it():
    low = RNG.uniform(0, 100, 80).astype("f2")
    frame = pd.DataFrame({"low": low, "high": (low + RNG.uniform(1, 50, 80)).astype("f2")})
    rows = quick(constraints=["low < high"]).fit(frame).sample(300)
    assert rows.dtypes.equals(frame.dtypes) and (rows["low"] < rows["high"]).all()
    ramp = np.arange(40.0) * 1024  # multiples that half precision holds exactly
    parts = pd.DataFrame({"a": ramp, "b": ramp[::-1]}).astype("f2")
    with pytest.raises(ValueError, match=r"float16 cannot hold. Convert it to float64"):
        quick(constraints=["c == a + b"]).fit(parts.assign(c=parts["a"] + parts["b"]))


def test_filled_cells_are_as_exact_as_the_fit():
    X = RNG.normal(size=(60, 3)) * 1e300
    gen = quick().fit(X)
    imputer = DiffusionImputer(quick()).fit(X)
    holey = np.ones((4, 3), dtype="f4")
    holey[:, 1] = np.nan
    for filled in (gen.impute(holey), imputer.transform(holey)):
        assert filled.dtype == np.float64 and np.isfinite(filled).all()
        np.testing.assert_array_equal(filled[:, [0, 2]], 1.0)


# -------------------------------------------------------------------- cells


def counts(dtype, factor=1):
    return (RNG.poisson(3.0, (60, 4)) * factor).astype(dtype)


@pytest.fixture(scope="module")
def of_counts():
    return quick().fit(anndata.AnnData(counts("uint8")))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64", "bool"]
)
@pytest.mark.parametrize("sparse", [False, True])
def test_counts_of_any_dtype_are_found(dtype, sparse):
    X = counts(dtype)
    if sparse and dtype != "float16":  # which scipy does not know
        X = scipy.sparse.csr_matrix(X)
    _, where, is_counts = find_expression(anndata.AnnData(X), None)
    assert where == "X" and is_counts


@pytest.mark.slow
def test_counts_of_small_integers_are_integers(of_counts):
    cells = of_counts.sample(60)
    assert cells.X.dtype == np.int32 and cells.X.min() >= 0


@pytest.mark.slow
def test_large_counts_are_not_wrapped_round(tmp_path):
    gen = quick().fit(anndata.AnnData(counts("uint64", 10**9)))
    gen.save(tmp_path / "m")
    for model in (gen, DiffusionGenerator.load(tmp_path / "m")):
        cells = model.sample(60, random_state=0)
        assert cells.X.dtype == np.int64 and cells.X.min() >= 0 and cells.X.max() > 2**31
    gen.sample_to(tmp_path / "cells.h5ad", 30, shard_size=10, random_state=0)
    written = anndata.read_h5ad(tmp_path / "cells.h5ad").X
    assert written.dtype == np.int64 and written.min() >= 0 and written.max() > 2**31


def test_a_large_library_is_not_wrapped_round(of_counts):
    cells = of_counts.sample(5, library_size=2e10)
    assert cells.X.dtype == np.int64 and cells.X.min() >= 0
    np.testing.assert_array_equal(np.asarray(cells.X.sum(axis=1)).ravel(), 20_000_000_000)
    with pytest.raises(ValueError, match=r"library_size must be at most 2\*\*53"):
        of_counts.sample(5, library_size=1e17)


def test_reads_beyond_what_can_be_thinned_are_refused():
    with pytest.raises(ValueError, match="1,000,000,000 reads or more; got 7"):
        thin(np.array([[2_000_000_000, 1]]), np.array([7]), np.random.default_rng(0))


@pytest.mark.parametrize(
    "X",
    [
        np.array([[2**60, 1]]),
        np.array([[2**63 + 5, 1]], dtype="u8"),
        np.array([[1e300, 1.5]]),
        np.array([[-1e300, 1.5]]),
    ],
)
def test_expression_beyond_what_is_exact_is_refused(X):
    with pytest.raises(ValueError, match=r"X must hold values of at most .*Divide them") as caught:
        find_expression(anndata.AnnData(X), None)
    assert "got " in str(caught.value)
    find_expression(anndata.AnnData(X / 1e290 if X.dtype.kind == "f" else X / 2.0**40), None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_expression_stays_in_its_dtype_and_range(dtype):
    X = RNG.normal(size=(60, 4)).astype(dtype) * np.dtype(dtype).type(1e4)
    with pytest.warns(UserWarning, match="no counts"):
        cells = quick().fit(anndata.AnnData(X)).sample(200)
    assert cells.X.dtype == X.dtype and np.isfinite(cells.X).all()
    assert cells.X.min() >= X.min() * (1 + 1e-3) and cells.X.max() <= X.max() * (1 + 1e-3)


# -------------------------------------------------------------------- images


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("low", [0, -1])
def test_images_stay_in_their_dtype_and_range(dtype, low):
    X = (
        RNG.integers(0, 256, (10, 8, 8)).astype(dtype)
        if dtype == "uint8"
        else RNG.uniform(low, 1, (10, 8, 8)).astype(dtype)
    )
    gen = quick().fit(X)
    rows = gen.sample(5)
    assert rows.dtype == X.dtype and np.isfinite(rows).all()
    mask = RNG.random((8, 8)) < 0.5
    filled = gen.impute(X[:2], mask=mask, steps=1)
    np.testing.assert_array_equal(filled[:, ~mask], X[:2, ~mask])
    if dtype == "float16":
        exact = X[:2].astype("f8") * 0.999
        np.testing.assert_array_equal(gen.impute(exact, mask=mask, steps=1)[:, ~mask], exact[:, ~mask])
