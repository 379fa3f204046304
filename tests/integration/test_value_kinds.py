"""What fit takes, sample, save, load and pickle take too, by the kind of value and the place where it stands."""

import datetime as dt
import enum
import fractions
import pickle
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from tabdiff import (
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
    TrainingOptions,
)
from tabdiff.codecs.columns import plain

N = 40
ONE_STEP = {"steps": 1, "random_state": 1}
Colour = enum.Enum("Colour", "RED BLUE")


def objects(levels):
    out = np.empty(len(levels), dtype=object)
    for i, level in enumerate(levels):
        out[i] = level
    return out


def category(levels, ordered=False, unused=()):
    """Return a function that makes N values of categories that are what they are given as."""
    index = pd.Index(objects([*levels, *unused]), dtype=object, tupleize_cols=False)
    codes = np.arange(N) % len(levels)
    return lambda: pd.Series(pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(index, ordered)))


def inferred(levels, dtype="category"):
    return lambda: pd.Series(list(levels) * (N // len(levels)), dtype=dtype)


KINDS = {
    "date": category([dt.date(2024, 1, 1), dt.date(1, 2, 1)]),
    "time": category([dt.time(1, 30), dt.time(2, 0, 0, 5)]),
    "datetime": category([dt.datetime(2024, 1, 1, 5), dt.datetime(2024, 1, 2)]),
    "datetime with a zone": category([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)]),
    "timedelta": category([dt.timedelta(1), dt.timedelta(seconds=-3)]),
    "Timestamp": inferred([pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02 03:00")]),
    "Timestamp with a zone": inferred(
        [pd.Timestamp("2024-01-01", tz="Europe/Berlin"), pd.Timestamp("2024-07-02", tz="Europe/Berlin")]
    ),
    "Timedelta": inferred([pd.Timedelta("1h"), pd.Timedelta("2 days")]),
    "Period": inferred([pd.Period("2024-01", "M"), pd.Period("2024-03", "M")]),
    "Interval": inferred([pd.Interval(0, 1), pd.Interval(1, 2)]),
    "Interval of floats": inferred([pd.Interval(-np.inf, 0.5, "both"), pd.Interval(1, 2.5, "both")]),
    "Interval of times": inferred(pd.interval_range(pd.Timestamp("2024"), periods=2)),
    "datetime64": category([np.datetime64("2024-01-01T01", "ns"), np.datetime64("2024-01-02", "ns")]),
    "Decimal": category([Decimal("0.10"), Decimal("2")]),
    "Fraction": category([fractions.Fraction(1, 3), fractions.Fraction(2, 3)]),
    "UUID": category([uuid.UUID(int=1), uuid.UUID(int=2)]),
    "bytes": category([b"a\xff", b"b"]),
    "complex": category([1 + 2j, 2 + 0j]),
    "tuple": category([(1, "a"), (2, ("b", dt.date(2024, 1, 1)))]),
    "frozenset": category([frozenset("ab"), frozenset("c")]),
    "bool": category([False, True]),
    "int": inferred([3, -1]),
    "huge int": category([2**70, 5]),
    "float": inferred([0.5, -1.25]),
    "infinite": inferred([-np.inf, np.inf]),
    "mixed": category([1, "a", b"c", dt.date(2024, 1, 1)]),
    "numpy scalars": category([np.int8(1), np.float32(2.5)]),
    "nullable int": lambda: pd.Series([1, 2] * (N // 2), dtype="Int64").astype("category"),
    "nullable float": lambda: pd.Series([1.5, 2] * (N // 2), dtype="Float64").astype("category"),
    "strings": lambda: pd.Series(["a", "b"] * (N // 2), dtype="string").astype("category"),
    "ordered": category(["low", "high"], ordered=True),
    "unused levels": category(["a", "b"], unused=["c"]),
    "dates, not categories": lambda: category([dt.date(2024, 1, 1), dt.date(2024, 2, 1)])().astype(object),
    "times of day, not categories": lambda: category([dt.time(1, 30), dt.time(2, 0, 0, 5)])().astype(object),
    "decimals, not categories": lambda: category([Decimal("1.50"), Decimal("2.25")])().astype(object),
    "UUIDs, not categories": lambda: category([uuid.UUID(int=1), uuid.UUID(int=2)])().astype(object),
    "bytes, not categories": lambda: category([b"a", b"b"])().astype(object),
    "booleans, not categories": lambda: pd.Series([True, False] * (N // 2), dtype="boolean"),
    "integers, not categories": lambda: pd.Series([1, 2] * (N // 2), dtype="Int64"),
}


def small(**settings):
    return DiffusionGenerator(max_steps=1, hidden_size=8, n_blocks=1, refine=False, random_state=0, **settings)


def through_a_file(gen, tmp_path):
    gen.save(tmp_path / "model")
    return DiffusionGenerator.load(tmp_path / "model")


def same(a, b):
    assert a.dtypes.tolist() == b.dtypes.tolist()
    for name in a:
        assert a[name].tolist() == b[name].tolist()
        assert [type(plain(v)) for v in a[name]] == [type(plain(v)) for v in b[name]]
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_and_a_condition_of_each_kind_are_drawn_asked_for_and_kept(kind, tmp_path):
    column = KINDS[kind]()
    frame = pd.DataFrame({"feature": column, "condition": column, "v": np.random.default_rng(0).normal(size=N)})
    gen = small().fit(frame, condition="condition")
    drawn = gen.sample(9, **ONE_STEP)
    for name in ("feature", "condition"):
        assert drawn[name].dtype == column.dtype
        assert set(drawn[name]) <= set(column)
    loaded = through_a_file(gen, tmp_path)
    assert same(loaded.sample(9, **ONE_STEP), drawn)
    assert same(pickle.loads(pickle.dumps(gen)).sample(9, **ONE_STEP), drawn)
    level = column[0]
    for n, condition in [
        (2, level),
        (2, str(level)),
        (2, {"condition": level}),
        (None, {"condition": {level: 2}}),
        (None, {"condition": [level, level]}),
        (None, [level, level]),
        (None, column[[0, 0]]),
    ]:
        for model in (gen, loaded):
            assert model.sample(n, condition, **ONE_STEP)["condition"].tolist() == [level, level]
    # A column that is no declared condition is held in the same ways.
    free = small().fit(frame[["feature", "v"]])
    for n, value in ((2, level), (2, str(level)), (None, [level, level]), (None, {level: 2})):
        assert free.sample(n, {"feature": value}, **ONE_STEP)["feature"].tolist() == [level, level]


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_of_each_kind_is_a_condition_and_can_be_balanced(kind, tmp_path):
    y = KINDS[kind]()
    X = np.random.default_rng(0).normal(size=(N, 2))
    gen = small().fit(X, y)
    drawn = gen.sample(9, **ONE_STEP)
    np.testing.assert_array_equal(through_a_file(gen, tmp_path).sample(9, **ONE_STEP), drawn)
    _, condition = gen.sample(2, y[1], return_condition=True, **ONE_STEP)
    assert list(condition) == [y[1], y[1]]
    if kind in ("mixed", "numpy scalars"):  # classes are of one type
        return
    few = y == y[0]
    few &= np.arange(N) > 5
    rare, X = y[~few].reset_index(drop=True), X[~few.to_numpy()]
    grown, labels = DiffusionOverSampler(small()).fit_resample(X, rare)
    assert len(grown) == len(labels) > len(X) and labels.dtype == y.dtype
    assert labels.value_counts().loc[lambda c: c > 0].nunique() == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_holes_among_values_of_each_kind_are_filled_and_rows_scored(kind):
    column = KINDS[kind]()
    frame = pd.DataFrame({"x": column, "v": np.random.default_rng(0).normal(size=N)})
    holes = frame.copy()
    holes.loc[[3, 7], "x"] = None
    filled = (
        DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5)), random_state=0)
        .fit(holes)
        .transform(holes)
    )
    assert set(filled["x"]) <= set(column) and filled["x"].dtype == column.dtype
    assert filled["x"].drop([3, 7]).tolist() == column.drop([3, 7]).tolist()
    scores = DiffusionOutlierDetector(small()).fit(frame).score_samples(frame[:3])
    assert np.isfinite(scores).all()


NAMES = {
    "integers": pd.Index([1, 2, 5]),
    "floats": pd.Index([0.5, 1.5, np.nan]),
    "tuples": pd.Index([("a", 1), ("a", 2), ("b", dt.date(2024, 1, 1))], tupleize_cols=False),
    "several levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None]),
    "times": pd.date_range("2024-01-01", periods=3, name="day"),
    "times with a zone": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
    "durations": pd.to_timedelta([1, 2, 3], unit="h"),
    "periods": pd.period_range("2024-01", periods=3, freq="M"),
    "intervals": pd.interval_range(0, 3),
    "dates": pd.Index([dt.date(2024, 1, 1), dt.date(2024, 1, 2), None], dtype=object),
    "categories": pd.CategoricalIndex(["a", "b", "c"]),
    "None": pd.Index([None, 1, 2], dtype=object),
    "booleans": pd.Index([True, False, 2], dtype=object),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_columns_of_each_kind_are_kept_and_can_name_a_condition(kind, tmp_path):
    names = NAMES[kind]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 3)), columns=names)
    gen = small().fit(frame)
    drawn = gen.sample(4, **ONE_STEP)
    pd.testing.assert_index_equal(drawn.columns, names)
    pd.testing.assert_frame_equal(through_a_file(gen, tmp_path).sample(4, **ONE_STEP), drawn)
    for condition in (
        ([names[1]], names[1]) if kind in ("integers", "tuples", "several levels", "times") else ([names[1]],)
    ):
        gen = small().fit(frame, condition=condition)
        assert gen.conditions_.names == [names[1]]
        drawn = gen.sample(4, {names[1]: 0.25}, **ONE_STEP)
        pd.testing.assert_index_equal(drawn.columns, names)
        assert (drawn.iloc[:, 1] == 0.25).all()
        pd.testing.assert_frame_equal(through_a_file(gen, tmp_path).sample(4, {names[1]: 0.25}, **ONE_STEP), drawn)


@pytest.mark.parametrize("kind", ["Period", "Interval", "date", "Decimal", "Timestamp with a zone", "bool"])
def test_annotations_of_cells_and_genes_of_each_kind_are_kept(kind, tmp_path):
    ad = pytest.importorskip("anndata")
    column = KINDS[kind]()
    counts = np.random.default_rng(0).poisson(3.0, (N, 6)).astype(np.float32)
    cells = ad.AnnData(counts, obs=pd.DataFrame({"t": column.to_numpy()}, index=[f"c{i}" for i in range(N)]))
    cells.obs["t"] = column.to_numpy() if column.dtype == object else column.set_axis(cells.obs_names)
    cells.var["note"] = column[:6].set_axis(cells.var_names)
    gen = small(max_time=0.1).fit(cells, condition="t")
    drawn = gen.sample(3, str(column[0]), **ONE_STEP)
    assert drawn.obs["t"].tolist() == [column[0]] * 3
    again = through_a_file(gen, tmp_path).sample(3, str(column[0]), **ONE_STEP)
    assert again.obs["t"].tolist() == drawn.obs["t"].tolist()
    assert again.var["note"].tolist() == column[:6].tolist()


@pytest.mark.parametrize("kind", ["object", "time32[s][pyarrow]", "time64[us][pyarrow]"])
def test_times_of_day_are_modelled_as_what_they_are(kind, tmp_path):
    if "pyarrow" in kind:
        pytest.importorskip("pyarrow")
    minutes = np.random.default_rng(0).integers(0, 24 * 60, N).tolist()
    times = pd.Series([dt.time(m // 60, m % 60) for m in minutes[1:]] + [None], dtype=object).astype(kind)
    frame = pd.DataFrame({"t": times, "v": np.random.default_rng(0).normal(size=N)})
    gen = small().fit(frame)
    assert gen.schema_["kind"].tolist() == ["time", "numeric"]
    drawn = gen.sample(20, **ONE_STEP)
    assert same(through_a_file(gen, tmp_path).sample(20, **ONE_STEP), drawn)
    assert drawn["t"].dtype == times.dtype and drawn["t"].notna().any()
    assert {type(v) for v in drawn["t"].dropna()} == {dt.time}
    assert all(min(times[:-1]) <= t <= max(times[:-1]) and t.second == 0 for t in drawn["t"].dropna())
    for given in (dt.time(5), "05:00", "05:00:00"):
        assert gen.sample(2, {"t": given}, **ONE_STEP)["t"].tolist() == [dt.time(5)] * 2
        told = small().fit(frame, condition="t").sample(2, {"t": given}, **ONE_STEP)
        assert told["t"].tolist() == [dt.time(5)] * 2
    with pytest.raises(ValueError, match=r"'t'.*'five'"):
        gen.sample(2, {"t": "five"}, **ONE_STEP)


def test_a_category_that_no_file_holds_is_refused_before_training_wherever_it_stands():
    column = category(list(Colour))()
    values = np.random.default_rng(0).normal(size=(N, 2))
    for fit in (
        lambda: small().fit(pd.DataFrame({"x": column, "v": values[:, 0]})),
        lambda: small().fit(pd.DataFrame({"x": column, "v": values[:, 0]}), condition="x"),
        lambda: small().fit(values, column.rename("x")),
        lambda: DiffusionOverSampler(small()).fit_resample(values[1:], column.rename("x")[1:]),
    ):
        with pytest.raises(
            TypeError, match=r"cannot be saved: <Colour\.(RED: 1|BLUE: 2)>. Make it text: df\['.'\].astype"
        ):
            fit()
