"""Containers at every door: each keeps its names and missing values, or is refused with advice that works."""

import array
import collections
import dataclasses
import decimal
import fractions
import itertools
import re
import sqlite3

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal

from tabdiff import (
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
)
from tabdiff.codecs.inputs import check_container
from tabdiff.evaluation import evaluate
from tabdiff.io.expression import dense_rows, find_expression
from tabdiff.utils.array_likes import as_known, as_numbers, as_values, read_array
from tabdiff.utils.memory import tensor_of

RNG = np.random.default_rng(0)
A = np.round(RNG.normal(size=(40, 3)), 3)
ROWS = A.tolist()
MASK = RNG.random(A.shape) < 0.2
HOLEY = np.where(MASK, np.nan, A)
FRAME = pd.DataFrame(A, columns=list("abc"))
QUICK = {"max_steps": 1, "hidden_size": 8, "refine": False, "random_state": 0}
NUMBER = itertools.count()
Row = collections.namedtuple("Row", "a b c")


@dataclasses.dataclass
class Record:
    a: float
    b: float
    c: float


class Endless:
    """Has elements and no end: NumPy would iterate over it forever."""

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return self


def quick(**settings):
    return DiffusionGenerator(**{**QUICK, **settings})


def structured(masked=False):
    out = np.rec.fromarrays(A.T, names="a,b,c").view(np.ndarray)
    return np.ma.array(out, mask=[tuple(row) for row in MASK]) if masked else out


def sqlite_rows():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    union = " union all ".join(f"select {a} as a, {b} as b, {c} as c" for a, b, c in ROWS)
    return connection.execute(union).fetchall()


def needing(library, make):
    """Return a function that makes an object of a library, and skips the test where that is not installed."""

    def made():
        return make(pytest.importorskip(library))

    return made


def h5_group(h5py):
    file = h5py.File(f"in memory {next(NUMBER)}", "w", driver="core", backing_store=False)
    file["name"] = A
    return file


def lazy_dask(dd):
    return dd.from_pandas(FRAME, npartitions=2)


def _npz():
    import io

    file = io.BytesIO()
    np.savez(file, name=A)
    file.seek(0)
    return np.load(file)


def _frozen(values):
    values = np.array(values)
    values.flags.writeable = False
    return values


def _dates():
    return np.where(
        MASK.T.reshape(A.shape), np.datetime64("NaT"), np.datetime64("2024-01-01", "D") + (9 * A).astype(int)
    )


def _two_levels():
    return pd.DataFrame(A, columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")], names=["u", "v"]))


# ------------------------------------------------------------------ advice


def advised(message, names):
    """Evaluate the first piece of code in the advice of a message, and return what it gives."""
    for start in re.finditer(r"(?:Pass |pass |with |them, |fill it, |, |: )", message):
        text = message[start.end() :]
        for end in re.finditer(r"(?=, | if | \(|\.$|\. )|\)(?![.\[(])", text):
            code = text[: end.end()]
            if not re.search(r"[A-Za-z_]\w*[.(\[]|^\[", code):
                continue
            try:
                return eval(compile(code, "<advice>", "eval"), dict(names))
            except (SyntaxError, NameError, TypeError, AttributeError):
                continue
    raise AssertionError(f"no advice that runs in {message!r}")


LIBRARIES = {"numpy": np, "pandas": pd, "torch": torch, "scipy": scipy, "anndata": anndata}
for _name in ("pyarrow", "polars"):
    try:
        LIBRARIES[_name] = __import__(_name)
    except ImportError:
        pass

# What is refused, and what its advice is to arrive at; None where that is a matter of shape alone.
REFUSED = {
    "records": (structured, FRAME),
    "masked records": (lambda: structured(masked=True), FRAME.mask(MASK)),
    "recarray": (lambda: np.rec.fromarrays(A.T, names="a,b,c"), FRAME),
    "list of records": (lambda: list(structured()), FRAME),
    "dict": (lambda: {name: FRAME[name].to_list() for name in FRAME}, FRAME),
    "list of dicts": (lambda: FRAME.to_dict("records"), FRAME),
    "list of namedtuples": (lambda: [Row(*row) for row in ROWS], FRAME),
    "list of dataclasses": (lambda: [Record(*row) for row in ROWS], FRAME),
    "list of Series": (lambda: [row for _, row in FRAME.iterrows()], FRAME),
    "sqlite rows": (sqlite_rows, FRAME),
    "list of frames": (lambda: [FRAME[:20], FRAME[20:]], FRAME),
    "list of masked rows": (lambda: list(np.ma.array(A, mask=MASK)), HOLEY),
    "list of AnnData": (lambda: [anndata.AnnData(A[:20]), anndata.AnnData(A[20:])], None),
    "list of sparse rows": (lambda: [scipy.sparse.csr_matrix(row) for row in A], A),
    "set": (lambda: {tuple(row) for row in ROWS}, np.array(sorted(map(tuple, ROWS)))),
    "frozenset of text": (lambda: frozenset(["ACG", "T"]), None),
    "generator": (lambda: (row for row in ROWS), A),
    "map": (lambda: map(tuple, ROWS), A),
    "zip": (lambda: zip(*A.T.tolist()), A),
    "dict view": (lambda: dict(enumerate(ROWS)).values(), A),
    "bytes": (lambda: A.astype("u1").tobytes(), None),
    "text array": (lambda: A.astype(str), pd.DataFrame(A.astype(str))),
    "text among objects": (lambda: A.astype(str).astype(object), pd.DataFrame(A.astype(str))),
    "mixed rows": (lambda: [(1.5, "x"), (2.5, "y")] * 20, None),
    "byte strings": (lambda: A.astype("S"), pd.DataFrame(A.astype("S").astype(str))),
    "raw bytes": (lambda: np.zeros((40, 2), "V4"), None),
    "ragged": (lambda: [[0.5, 2.0], [3.1]] * 20, pd.DataFrame([[0.5, 2.0], [3.1, np.nan]] * 20)),
    "one dimension": (lambda: A[:, 0], A[:, :1]),
    "list of numbers": (lambda: A[:, 0].tolist(), A[:, :1]),
    "array.array": (lambda: array.array("d", A[:, 0]), A[:, :1]),
    "range": (lambda: range(40), np.arange(40)[:, None]),
    "Series": (lambda: FRAME["a"], FRAME[["a"]]),
    "unnamed Series": (lambda: pd.Series(A[:, 0]), pd.DataFrame({"x": A[:, 0]})),
    "Index": (lambda: pd.Index(A[:, 0], name="a"), FRAME[["a"]]),
    "MultiIndex": (lambda: pd.MultiIndex.from_frame(FRAME), FRAME),
    "extension array": (lambda: pd.array(A[:, 0], "Float64"), None),
    "Categorical of numbers": (lambda: pd.Categorical([1, 2] * 20), None),
    "csr": (lambda: scipy.sparse.csr_matrix(A), None),
    "coo array": (lambda: scipy.sparse.coo_array(A), None),
    "dok": (lambda: scipy.sparse.dok_matrix(A), None),
    "sparse tensor": (lambda: torch.tensor(A).to_sparse(), A),
    "tensor dataset": (lambda: torch.utils.data.TensorDataset(torch.tensor(A)), A),
    "data loader": (lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(A)), 7), A),
    "npz": (_npz, A),
    "grouped frame": (lambda: FRAME.groupby("a"), FRAME),
    "csv path": (lambda: "missing/table.csv", "pandas.read_csv('missing/table.csv')"),
    "h5ad path": (lambda: "cells.h5ad", "anndata.read_h5ad('cells.h5ad')"),
    "arrow batch": (needing("pyarrow", lambda pa: pa.RecordBatch.from_pandas(FRAME)), FRAME),
    "arrow array": (needing("pyarrow", lambda pa: pa.array(A[:, 0])), pd.DataFrame({"x": A[:, 0]})),
    "arrow chunks": (needing("pyarrow", lambda pa: pa.chunked_array([A[:, 0]])), pd.DataFrame({"x": A[:, 0]})),
    "list of arrow tables": (needing("pyarrow", lambda pa: [pa.Table.from_pandas(FRAME)]), FRAME),
    "polars column": (needing("polars", lambda pl: pl.Series("a", A[:, 0])), FRAME[["a"]]),
    "list of polars frames": (needing("polars", lambda pl: [pl.DataFrame(dict(FRAME))]), FRAME),
    "xarray": (needing("xarray", lambda xr: xr.DataArray(A, dims=("i", "j"), coords={"j": list("abc")})), FRAME),
    "xarray dataset": (needing("xarray", lambda xr: xr.Dataset({n: ("i", FRAME[n]) for n in FRAME})), FRAME),
    "dask frame": (needing("dask.dataframe", lazy_dask), FRAME),
    "dask array": (needing("dask.array", lambda da: da.from_array(A)), A),
    "duckdb": (needing("duckdb", lambda db: db.from_df(FRAME)), FRAME),
    "h5 file": (needing("h5py", h5_group), A),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_containers_say_what_to_pass_and_that_arrives(name):
    make, expected = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        quick().fit(make())
    message = str(caught.value)
    assert len(message) < 500, message
    if isinstance(expected, str):
        assert expected in message
        return
    found = check_container(advised(message, {**LIBRARIES, "X": make(), "k": 24}))
    if isinstance(expected, pd.DataFrame):
        assert isinstance(found, pd.DataFrame)
        assert [str(c) for c in found.columns] == [str(c) for c in expected.columns]
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, check_dtype=False, check_names=False)
    elif expected is not None:
        assert_array_equal(found, expected)
    quick().fit(found)


@pytest.mark.parametrize("odd", [None, 5, 2.5, object(), Endless(), [Endless()], print, pd.DataFrame, {}.keys()])
def test_what_holds_no_rows_is_a_type_error_that_says_what_it_is(odd):
    with pytest.raises(TypeError, match=r"^X must be an array, a DataFrame.* got "):
        quick().fit(odd)


# ---------------------------------------------------------------- accepted


ACCEPTED = {
    "array": (lambda: A, A),
    "masked": (lambda: np.ma.array(A, mask=MASK), HOLEY),
    "masked integers": (
        lambda: np.ma.array((100 * A).astype(int), mask=MASK),
        np.where(MASK, np.nan, (100 * A).astype(int)),
    ),
    "masked without a mask": (lambda: np.ma.array((100 * A).astype("i2")), (100 * A).astype("i2")),
    "objects": (lambda: np.where(MASK, None, A.astype(object)), HOLEY),
    "objects with NA": (lambda: np.where(MASK, pd.NA, A.astype(object)), HOLEY),
    "objects, whole": (lambda: (100 * A).astype(int).astype(object), (100 * A).astype(int)),
    "decimals": (lambda: np.array([[decimal.Decimal(str(v)) for v in row] for row in ROWS], dtype=object), A),
    "fractions": (lambda: [[fractions.Fraction(1, 4), 2], [3, None]] * 20, np.array([[0.25, 2], [3, np.nan]] * 20)),
    "list": (lambda: ROWS, A),
    "list of tuples": (lambda: [tuple(row) for row in ROWS], A),
    "list with None": (lambda: [[1.5, None], [2.5, 3.5]] * 20, np.array([[1.5, np.nan], [2.5, 3.5]] * 20)),
    "deque": (lambda: collections.deque(ROWS), A),
    "memoryview": (lambda: memoryview(A), A),
    "tensor": (lambda: torch.tensor(A, requires_grad=True), A),
    "bfloat16": (lambda: torch.tensor(A).bfloat16(), torch.tensor(A).bfloat16().float().numpy()),
    "list of tensors": (lambda: list(torch.tensor(A)), A),
    "big endian": (lambda: A.astype(">f8"), A.astype(">f8")),
    "read-only": (lambda: _frozen(A), A),
    "reversed": (lambda: A[::-1, ::-1], A[::-1, ::-1]),
    "Fortran": (lambda: np.asfortranarray(A), A),
    "times": (lambda: (100 * A).astype("m8[h]"), (100 * A).astype("m8[h]")),
    "dates with NaT": (_dates, _dates()),
    "masked dates": (lambda: np.ma.array(_dates(), mask=MASK), np.where(MASK, np.datetime64("NaT"), _dates())),
    "h5 dataset": (needing("h5py", lambda h5py: h5_group(h5py)["name"]), A),
    "zarr": (needing("zarr", lambda zarr: zarr.array(A)), A),
    "columns of two levels": (_two_levels, _two_levels()),
    "named columns": (lambda: FRAME.rename_axis(columns="gene"), FRAME.rename_axis(columns="gene")),
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.filterwarnings("error")
def test_accepted_containers_keep_values_names_and_missing_ones(name):
    make, expected = ACCEPTED[name]
    found = check_container(make())
    assert type(found) is type(expected)
    assert_array_equal(found, expected)
    gen = quick().fit(make())
    rows = gen.sample(200)
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_index_equal(rows.columns, expected.columns)
    else:
        assert rows.dtype == expected.dtype
    assert bool(pd.isna(pd.DataFrame(rows)).any(axis=None)) == bool(pd.isna(pd.DataFrame(expected)).any(axis=None))
    assert np.isfinite(gen.score_samples(make())).all()


@pytest.mark.slow
def test_a_masked_table_is_imputed_as_one_with_nan():
    masked = np.ma.array(A, mask=MASK)
    gen = quick().fit(masked)
    filled = gen.impute(masked, random_state=0)
    assert_array_equal(filled, gen.impute(HOLEY, random_state=0))
    assert_array_equal(filled[~MASK], A[~MASK])
    imputer = DiffusionImputer(quick())
    assert_array_equal(imputer.fit_transform(masked)[~MASK], A[~MASK])
    assert_array_equal(imputer.transform(masked), imputer.transform(HOLEY))
    assert np.isfinite(DiffusionOutlierDetector(quick()).fit(masked).score_samples(masked)).all()
    X, y = DiffusionOverSampler(quick()).fit_resample(masked, ["u"] * 30 + ["v"] * 10)
    assert len(X) == len(y) == 60
    assert_array_equal(X[:40], HOLEY)


@pytest.mark.parametrize(
    ("error", "values"),
    [
        (ValueError, [[2**60 + 1, 2], [3, None]]),
        (ValueError, np.array([[1 + 2j, None], [2, 3]], dtype=object)),
        (TypeError, [[pd.Timestamp("2024"), 1], [2, 3]]),
        (ValueError, np.ma.array([[2**60 + 1, 2], [3, 4]], mask=[[0, 0], [0, 1]])),
    ],
)
def test_numbers_that_no_float_holds_are_refused(error, values):
    with pytest.raises(error, match=r"2\*\*53|[Cc]omplex|infer_objects"):
        as_numbers(values)


# ------------------------------------------------------------------- doors


@pytest.fixture(scope="module")
def of_tables():
    frame = FRAME.assign(kind=["u", "v"] * 20)
    return quick().fit(frame, condition="kind")


@pytest.fixture(scope="module")
def of_images():
    return quick(max_steps=1).fit(RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8))


@pytest.fixture(scope="module")
def of_cells():
    adata = anndata.AnnData(
        RNG.poisson(2.0, (60, 6)).astype("f4"), obs=pd.DataFrame({"t": ["u", "v"] * 30}, index=map(str, range(60)))
    )
    return quick().fit(adata, condition="t")


def doors(of_tables, of_images, of_cells):
    """Where something from outside comes in: a function that passes it there, and its name in messages."""
    pixels = RNG.integers(0, 256, (2, 8, 8), dtype=np.uint8)
    table = of_tables.sample(10, random_state=0)
    return {
        "fit": (lambda x: quick().fit(x), "X"),
        "y": (lambda x: quick().fit(A, x), "y"),
        "condition of fit": (lambda x: quick().fit(A, condition=x), "condition"),
        "condition in a dict": (lambda x: quick().fit(A, condition={"c": x}), r"condition\['c'\]"),
        "sample_weight": (lambda x: quick().fit(A, sample_weight=x), "sample_weight"),
        "score_samples": (of_tables.score_samples, "X"),
        "weights of score": (lambda x: of_tables.score(table, sample_weight=x), "sample_weight"),
        "impute": (of_tables.impute, "X"),
        "condition": (lambda x: of_tables.sample(condition=x), "condition"),
        "named condition": (lambda x: of_tables.sample(condition={"kind": x}), r"condition\['kind'\]"),
        "held column": (lambda x: of_tables.sample(condition={"kind": "u", "a": x}), r"condition\['a'\]"),
        "images": (lambda x: of_images.impute(x, mask=np.ones((8, 8), bool)), "images"),
        "mask": (lambda x: of_images.impute(pixels, mask=x), "mask"),
        "operator": (lambda x: of_images.restore(np.zeros((1, 2)), x), "operator"),
        "measurements": (lambda x: of_images.restore(x, np.zeros((2, 64))), "measurements"),
        "small images": (lambda x: of_images.super_resolve(x), "images"),
        "library_size": (lambda x: of_cells.sample(5, library_size=x), "library_size"),
        "obs": (lambda x: of_cells.sample(obs=x), "obs"),
        "like": (lambda x: of_cells.sample(like=x), "like"),
        "latent": (of_cells.latent, "X"),
        "real": (lambda x: evaluate(x, FRAME), "real"),
        "synthetic": (lambda x: evaluate(FRAME, x), "synthetic"),
        "holdout": (lambda x: evaluate(FRAME, FRAME, holdout=x), "holdout"),
        "imputer": (lambda x: DiffusionImputer(quick()).fit(x), "X"),
        "detector": (lambda x: DiffusionOutlierDetector(quick()).fit(x), "X"),
        "oversampler": (lambda x: DiffusionOverSampler(quick()).fit_resample(x, ["u", "v"] * 20), "X"),
        "oversampler's y": (lambda x: DiffusionOverSampler(quick()).fit_resample(A, x), "y"),
    }


@pytest.mark.parametrize(
    "make",
    [Endless, lambda: (v for v in [1, 2]), lambda: {1, 2}, structured],
    ids=["endless", "generator", "set", "records"],
)
def test_every_door_has_the_gate(of_tables, of_images, of_cells, make):
    for door, name in doors(of_tables, of_images, of_cells).values():
        with pytest.raises(TypeError, match=rf"^{name} (must be|is)"):
            door(make())


# ------------------------------------------------ labels, conditions, weights


LABELS = ["u", "v"] * 20
CLASSES = {
    "list": lambda: LABELS,
    "tuple": lambda: tuple(LABELS),
    "deque": lambda: collections.deque(LABELS),
    "array": lambda: np.array(LABELS),
    "Categorical": lambda: pd.Categorical(LABELS, categories=["v", "u"], ordered=True),
    "Index": lambda: pd.Index(LABELS, name="kind"),
    "string array": lambda: pd.array(LABELS, "string"),
    "masked": lambda: np.ma.array(LABELS, mask=[True] + [False] * 39),
    "arrow": needing("pyarrow", lambda pa: pa.array(LABELS)),
    "arrow with null": needing("pyarrow", lambda pa: pa.array([None, *LABELS[1:]])),
    "arrow chunks": needing("pyarrow", lambda pa: pa.chunked_array([LABELS])),
    "polars": needing("polars", lambda pl: pl.Series("kind", LABELS)),
}


@pytest.mark.parametrize("name", CLASSES)
def test_labels_of_any_container_are_classes_and_what_is_missing_stays_unknown(name):
    gen = quick().fit(A, condition=CLASSES[name]())
    (attribute,) = gen.conditions_.attributes
    assert attribute.kind == "class" and sorted(attribute.levels) == ["u", "v"]
    assert np.isnan(gen.conditions_.codes).sum() == ("masked" in name or "null" in name)
    if name == "Categorical":
        assert attribute.levels == ["v", "u"] and attribute.dtype.ordered
    if name in ("Index", "polars"):
        assert gen.conditions_.names == ["kind"]
    _, drawn = gen.sample(condition=CLASSES[name](), return_condition=True, random_state=0)
    known = pd.notna(pd.Series(drawn)).to_numpy()
    assert [str(v) for v in drawn[known]] == [v for v, there in zip(LABELS, known) if there]


def test_a_zone_stays_with_times_in_an_index():
    when = pd.date_range("2024", periods=40, freq="7h", tz="Europe/Berlin")
    gen = quick().fit(A, condition=when)
    (attribute,) = gen.conditions_.attributes
    assert str(attribute.dtype) == "datetime64[ns, Europe/Berlin]"


@pytest.mark.parametrize(
    "name", ["list", "array", "Index", "Categorical", "string array", "arrow", "arrow chunks", "polars"]
)
def test_oversampled_labels_come_in_their_container(name):
    import importlib

    y = CLASSES[name]()
    y = y.take(np.r_[0, 1:40:2, 2]) if hasattr(y, "take") else None
    if name in ("list", "array", "polars"):
        some = [LABELS[i] for i in np.r_[0, 1:40:2, 2]]
        y = (
            some
            if name == "list"
            else np.array(some)
            if name == "array"
            else importlib.import_module("polars").Series(some)
        )
    X, labels = DiffusionOverSampler(quick()).fit_resample(A[:22], y)
    assert type(labels) is type(y) and len(labels) == len(X) == 40
    assert getattr(labels, "dtype", None) == getattr(y, "dtype", None)
    counts = collections.Counter(str(v) for v in labels)
    assert counts["u"] == counts["v"] == 20


def test_weights_keep_their_order_and_none_are_masked():
    frame = FRAME.set_axis([f"r{i}" for i in range(40)])
    weight = pd.Series(np.arange(1.0, 41.0), index=frame.index)
    with pytest.raises(
        ValueError, match=r"sample_weight and X have the same row labels in a different order"
    ) as caught:
        quick().fit(frame, sample_weight=weight[::-1])
    assert_array_equal(
        advised(str(caught.value).replace("Use", "Pass"), {"X": frame, "sample_weight": weight[::-1]}), weight
    )
    cells = anndata.AnnData(frame.abs().round())
    with pytest.raises(ValueError, match=r"X\.obs_names for AnnData"):
        quick().fit(cells, sample_weight=weight[::-1])
    with pytest.raises(ValueError, match="sample_weight contains NaN"):
        quick().fit(A, sample_weight=np.ma.array(np.ones(40), mask=MASK[:, 0]))
    with pytest.raises(TypeError, match=r"got the text 'w'\. Pass the column, sample_weight=X\['w'\]"):
        quick().fit(A, sample_weight="w")
    quick().fit(frame, sample_weight=weight)
    quick().fit(frame, sample_weight=2.0)


def test_masked_vectors_and_values_are_missing_not_their_fill():
    vectors = np.ma.array(RNG.normal(size=(40, 4)), mask=np.repeat(MASK[:, :1], 4, axis=1))
    gen = quick().fit(A, condition={"v": vectors})
    assert_array_equal(np.isnan(gen.conditions_.codes).all(axis=1), MASK[:, 0])
    gen = quick().fit(A, condition=np.ma.array(A[:, 0], mask=MASK[:, 0]))
    assert_array_equal(np.isnan(gen.conditions_.codes[:, 0]), MASK[:, 0])
    with pytest.raises(ValueError, match=r"masked array.*filled"):
        quick().fit(anndata.AnnData(np.ma.array(A, mask=MASK)))


# --------------------------------------------------------------- sequences


DNA = ["ACGT", "GGTA", "TTA", "CCA"] * 6
TEXTS = {
    "list": lambda v: list(v),
    "array": lambda v: np.array(v, dtype=object),
    "masked array": lambda v: np.ma.array([s or "" for s in v], mask=[s is None for s in v]),
    "Series": lambda v: pd.Series(v, name="s", index=range(5, 5 + len(v))),
    "category": lambda v: pd.Series(v).astype("category"),
    "Index": lambda v: pd.Index(v, name="s"),
    "string array": lambda v: pd.array(v, "string"),
    "arrow": lambda v: pytest.importorskip("pyarrow").array(v),
    "arrow dictionary": lambda v: pytest.importorskip("pyarrow").array(v).dictionary_encode(),
    "arrow chunks": lambda v: pytest.importorskip("pyarrow").chunked_array([v]),
    "arrow column": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pytest.importorskip("pyarrow").string())),
    "polars": lambda v: pytest.importorskip("polars").Series("s", v),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_any_container_are_sequences_and_come_back_in_it(name, tmp_path):
    X = TEXTS[name](DNA)
    gen = quick().fit(X)
    gen.save(tmp_path / "model.safetensors")
    for model in (gen, DiffusionGenerator.load(tmp_path / "model.safetensors")):
        rows = model.sample(12, random_state=0)
        assert type(rows) is (np.ndarray if name == "masked array" else type(X)) or "dictionary" in name
        assert {len(s) for s in check_container(rows)} <= {3, 4} and len(rows) == 12
        assert getattr(rows, "name", None) == getattr(X, "name", None)
    assert len(gen.score_samples(rows)) == 12


@pytest.mark.parametrize("name", TEXTS)
def test_a_missing_sequence_is_named_and_the_advice_drops_it(name):
    X = TEXTS[name]([DNA[0], None, *DNA[1:], None])
    with pytest.raises(ValueError, match=r"^sequence 1 is missing, as are 1 more\. ") as caught:
        quick().fit(X)
    assert check_container(advised(str(caught.value), {**LIBRARIES, "X": X})).to_list() == DNA


BYTES = {
    "list": lambda: [s.encode() for s in DNA],
    "array": lambda: np.array(DNA, "S4"),
    "objects": lambda: np.array([s.encode() for s in DNA], dtype=object),
    "Series": lambda: pd.Series([s.encode() for s in DNA]),
    "arrow": needing("pyarrow", lambda pa: pa.array([s.encode() for s in DNA])),
    "polars": needing("polars", lambda pl: pl.Series([s.encode() for s in DNA])),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_decoded_by_the_advice(name):
    with pytest.raises(TypeError, match="got bytes, such as b'ACGT'") as caught:
        quick().fit(BYTES[name]())
    assert check_container(advised(str(caught.value), {**LIBRARIES, "X": BYTES[name]()})).to_list() == DNA


def test_a_number_among_texts_is_named():
    with pytest.raises(TypeError, match=r"got a float, 2.5, among them") as caught:
        quick().fit([*DNA, 2.5])
    assert check_container(advised(str(caught.value), {**LIBRARIES, "X": [*DNA, 2.5]})).to_list() == [*DNA, "2.5"]


def test_lists_of_integers_of_other_libraries_are_sequences():
    pa = pytest.importorskip("pyarrow")
    X = pa.array([[1, 2, 3], [1, 2], [3]] * 8)
    rows = quick().fit(X).sample(5)
    assert rows.type == X.type and len(rows) == 5


# ---------------------------------------------------------- memory as it lies


@pytest.mark.parametrize("lie", ["read-only", "reversed", "big endian", "mapped"])
@pytest.mark.filterwarnings("error")
def test_memory_that_torch_does_not_take_gives_no_warning(lie, of_images, tmp_path):
    def laid(values):
        if lie == "read-only":
            return _frozen(values)
        if lie == "reversed":
            return values[::-1].copy()[::-1]
        if lie == "big endian":
            return values.astype(values.dtype.newbyteorder(">"))
        path = tmp_path / f"{next(NUMBER)}.npy"
        np.save(path, values)
        return np.load(path, mmap_mode="r")

    numbers = RNG.random((40, 3)).astype("f4")
    weight = RNG.random(40)
    expected = quick().fit(numbers, numbers[:, 0], sample_weight=weight).sample(5)
    assert_array_equal(quick().fit(laid(numbers), laid(numbers[:, 0]), sample_weight=laid(weight)).sample(5), expected)
    for pixels in (RNG.integers(0, 256, (8, 8, 8), dtype=np.uint8), RNG.random((8, 8, 8), dtype="f4")):
        gen = quick().fit(laid(pixels))
        gen.impute(laid(pixels[:2]), mask=laid(np.ones((8, 8), bool)), steps=1)
    of_images.restore(laid(np.zeros((1, 2), "f4")), laid(np.zeros((2, 64), "f4")), steps=1)
    counts = RNG.poisson(2.0, (60, 6)).astype("f4")
    matrix, _, _ = find_expression(anndata.AnnData(laid(counts)), None)
    assert_array_equal(tensor_of(dense_rows(matrix, slice(None))).numpy(), counts)
    if lie == "read-only":
        quick().fit(anndata.AnnData(laid(counts)))
    quick().fit(A, condition={"v": laid(np.ones((40, 4)) * numbers[:, :1])})


def test_a_mapped_file_stays_mapped(tmp_path):
    np.save(tmp_path / "bytes.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    mapped = np.load(tmp_path / "bytes.npy", mmap_mode="r")
    assert tensor_of(mapped).data_ptr() == mapped.ctypes.data
    own = np.arange(4.0)
    assert tensor_of(own).data_ptr() == own.ctypes.data
    assert tensor_of(_frozen(own)).data_ptr() != own.ctypes.data
    assert tensor_of(own.astype(">f4")[::-1]).tolist() == [3, 2, 1, 0]


def test_the_gate_itself():
    assert as_known([1, 2]) == [1, 2]
    assert as_values("u", "y") == "u" and as_values(None, "y") is None
    assert as_values(pd.MultiIndex.from_tuples([(1, "a")], names=["i", "j"]), "y").columns.to_list() == ["i", "j"]
    assert read_array(np.ma.array([1, 2], mask=[0, 1]), "x").tolist()[0] == 1
    with pytest.raises(TypeError, match=r"mask must be an array; got a str"):
        read_array("mask.png", "mask")
    with pytest.raises(ValueError, match=r"labels must be an array; got .*does not convert"):
        read_array([[1], [2, 3]], "labels")
