"""Random arrays and random cells through a whole fit and draw."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from scipy import sparse

from tabdiff import DiffusionGenerator

pytestmark = pytest.mark.exhaustive

LARGEST, TINY = np.finfo(np.float64).max, 5e-324
FLOATS = ("float64", "float32", "float16")
INTEGERS = ("int8", "uint8", "int32", "int64", "uint64")
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "list")


def tiny(**parameters):
    return DiffusionGenerator(max_steps=1, hidden_size=8, n_blocks=1, random_state=0, **parameters)


def laid_out(array, layout):
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided":
        return np.repeat(np.repeat(array, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array.tolist() if layout == "list" else array


@st.composite
def arrays(draw):
    """An array, and the columns of it that are refused."""
    n, d = draw(st.integers(2, 80)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype, odd = (
        draw(st.sampled_from([*FLOATS, *INTEGERS, "bool", "object"])),
        draw(st.sampled_from(["none", "none", "inf"])),
    )
    if dtype in INTEGERS:
        info = np.iinfo(dtype)
        low, high = [(max(info.min, -(2**53)), min(info.max, 2**53)), (0, 3)][rng.integers(2)]
        X = rng.integers(low, high, size=(n, d), dtype=dtype)
    elif dtype == "bool":
        X = rng.random((n, d)) < 0.5
    else:
        pools = [
            rng.normal(size=n),
            rng.choice([LARGEST, -LARGEST, TINY, 0.0, 1.0], n),
            np.full(n, 3.0),
            rng.integers(0, 9, n),
        ]
        with np.errstate(over="ignore"):
            X = np.stack([pools[i] for i in rng.integers(4, size=d)], axis=1).astype(dtype)
        X[np.isinf(X.astype(float))] = 1.0
        X[rng.random((n, d)) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = np.nan
    bad = []
    if odd == "inf" and dtype in (*FLOATS, "object"):
        bad = sorted(set(rng.integers(d, size=2).tolist()))
        X[rng.integers(n), bad] = np.inf
    return laid_out(X, draw(st.sampled_from(LAYOUTS))), bad


@seed(21)
@settings(max_examples=150)
@given(arrays())
def test_arrays_come_back_in_dtype_and_range(case):
    given, bad = case
    before = np.array(given, copy=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gen = tiny().fit(given)
        except (ValueError, TypeError) as error:
            if bad and str(bad) in str(error):
                return
            raise
        drawn = gen.sample(20, steps=2, random_state=0)
        scores = gen.score_samples(given)
    assert not bad and np.isfinite(scores).all()
    np.testing.assert_array_equal(np.asarray(given).astype(float), before.astype(float))
    assert drawn.shape == (20, before.shape[1])
    numbers = before.dtype
    if numbers.kind == "O":  # objects are read as what they are: whole numbers stay whole
        whole = all(isinstance(value, int) for value in before.ravel().tolist())
        numbers = np.dtype(np.int64 if whole else np.float64)
    assert drawn.dtype == numbers
    for j in range(before.shape[1]):
        seen, new = before[:, j].astype(np.float64), drawn[:, j].astype(np.float64)
        assert np.isnan(seen).any() or not np.isnan(new).any()
        new, seen = new[~np.isnan(new)], seen[~np.isnan(seen)]
        if len(seen):
            assert len(new) == 0 or (seen.min() <= new.min() and new.max() <= seen.max())


@st.composite
def cells(draw):
    """Cells, and the names of genes that are refused."""
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.sampled_from(["counts", "few counts", "zeros", "huge counts", "logs", "negative", "constant"]))
    X = {
        "counts": lambda: rng.poisson(rng.gamma(1.0, 3.0, d), (n, d)),
        "few counts": lambda: (rng.random((n, d)) < 0.02).astype(int),
        "zeros": lambda: np.zeros((n, d), dtype=int),
        "huge counts": lambda: rng.integers(0, 10**6, (n, d)),
        "logs": lambda: np.log1p(rng.poisson(2.0, (n, d)) * rng.uniform(0.5, 2.0, (n, 1))),
        "negative": lambda: rng.normal(size=(n, d)),
        "constant": lambda: np.full((n, d), 2),
    }[values]()
    dtype = draw(
        st.sampled_from(["float32", "float64"] if X.dtype.kind == "f" else ["int64", "int32", "float32", "uint16"])
    )
    X = (np.minimum(X, 60_000) if dtype == "uint16" else X).astype(dtype)
    if draw(st.booleans()):
        X[rng.integers(n)] = 0
    bad = []
    if X.dtype.kind == "f" and draw(st.sampled_from([False, False, True])):
        bad = [int(rng.integers(d))]
        X[rng.integers(n), bad[0]] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    form = draw(st.sampled_from([np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]))
    kind = pd.Categorical(rng.choice(["B", "T"], n)) if draw(st.booleans()) else rng.normal(size=n)
    adata = AnnData(
        form(X),
        obs=pd.DataFrame({"kind": kind}, index=[f"cell {i}" for i in range(n)]),
        var=pd.DataFrame({"length": rng.random(d)}, index=[f"gene {j}" for j in range(d)]),
    )
    return adata, X, bad, draw(st.sampled_from([None, "kind"])), draw(st.booleans())


@seed(22)
@settings(max_examples=60)
@given(cells())
def test_cells_come_back_as_cells(case):
    adata, X, bad, condition, view = case
    given = adata[:, :] if view else adata
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            gen = tiny(max_time=1e-3).fit(given, condition=condition)
        except (ValueError, TypeError) as error:
            if bad and repr(f"gene {bad[0]}") in str(error):
                return
            raise
        drawn = gen.sample(9, steps=2, random_state=0)
    messages = [str(w.message) for w in caught]
    assert len(messages) <= 3 and len(set(messages)) == len(messages), messages
    assert all(w.category is UserWarning for w in caught), messages
    assert not bad
    held = given.X.toarray() if sparse.issparse(given.X) else given.X
    np.testing.assert_array_equal(held, X)
    assert drawn.shape == (9, adata.n_vars) and drawn.var.equals(adata.var)
    values = drawn.X.toarray() if sparse.issparse(drawn.X) else drawn.X
    assert np.isfinite(values).all()
    # A gene that was never seen stays that, and nothing is negative that never was.
    assert (values[:, (X == 0).all(axis=0)] == 0).all() and (values.min() >= 0 or X.min() < 0)
    if gen.schema_["kind"][0] == "counts":
        assert drawn.X.dtype == np.int32 and sparse.issparse(drawn.X)
    else:
        assert drawn.X.dtype == X.dtype and sparse.issparse(drawn.X) == sparse.issparse(adata.X)
    if condition:
        assert drawn.obs["kind"].notna().all() and drawn.obs["kind"].dtype == adata.obs["kind"].dtype
