"""What was never seen at fit: one rule for scores, holes and conditions."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import ndtri
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tabdiff import (
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
    TrainingOptions,
    sample_pipeline,
)
from tabdiff.codecs import TableCodec
from tabdiff.codecs.columns.numeric import NumericColumn
from tabdiff.codecs.tables.unseen import least_likely, log_jacobian, read_rows
from tabdiff.estimators.detector import Marginal

N, ROWS = 240, 6
SETTINGS = {"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "refine": False, "autoguidance": 1.0, "random_state": 0}
DAYS = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-05-01"])


def make_frame(seed=0):
    rng = np.random.default_rng(seed)
    letter = rng.choice(list("abc"), N, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(
        {
            "letter": letter,
            "city": pd.Series(letter).map({"a": "Aachen", "b": "Bonn", "c": "Aachen"}),
            "flag": rng.random(N) < 0.4,
            "few": rng.integers(0, 4, N),
            "real": rng.normal(size=N) + (letter == "a"),
            "count": rng.integers(0, 1000, N).astype("int16"),
            "nullable": pd.array(rng.integers(0, 500, N), dtype="Int32"),
            "day": rng.choice(DAYS, N),
            "time": rng.choice(pd.date_range("2000", "2020"), N),
            "odd": rng.integers(0, 500, N) * 2 + 1,
            "left": rng.normal(size=N),
            "constant": 7,
        }
    )
    frame["right"] = (frame["left"] + 1).where(rng.random(N) < 0.9)
    frame["left"] = frame["left"].where(frame["right"].notna())
    return frame


@pytest.fixture(scope="module")
def frame():
    return make_frame()


@pytest.fixture(scope="module")
def fitted(frame):
    return DiffusionGenerator(**SETTINGS).fit(frame)


@pytest.fixture(scope="module")
def detector(frame):
    generator = DiffusionGenerator(
        **SETTINGS, training=TrainingOptions(observed_masks=0.0), codec=TableCodec(dependencies=False)
    )
    return DiffusionOutlierDetector(generator).fit(frame)


NA = pd.array([pd.NA] * ROWS, dtype="Int32")
# What each column of the first rows is replaced by: never seen, in cells of a kind.
UNSEEN = {
    "unknown level": {"letter": "z"},
    "another type": {"letter": 5},
    "unknown among others": {"letter": pd.Categorical(["q"] * ROWS, categories=list("abcq"))},
    "missing level": {"letter": None},
    "missing boolean": {"flag": pd.array([pd.NA] * ROWS, dtype="boolean")},
    "unknown day": {"day": pd.Timestamp("2024-03-01")},
    "missing day": {"day": pd.NaT},
    "few values, outside": {"few": 9},
    "few values, text": {"few": "nine"},
    "few values, missing": {"few": np.nan},
    "missing number": {"real": np.nan},
    "missing numbers, objects": {"real": [None] * ROWS},
    "missing integer": {"count": np.nan},
    "missing nullable": {"nullable": NA},
    "missing time": {"time": pd.NaT},
    "another constant": {"constant": 8},
    "missing constant": {"constant": np.nan},
    "off the grid": {"odd": 500},
    "one missing of two": {"left": np.nan},
}


def rows_with(frame, changes):
    rows = frame[frame["left"].notna()].head(ROWS).reset_index(drop=True)
    return rows, rows.assign(**changes)


@pytest.mark.slow
@pytest.mark.parametrize("index", [range(100, 100 + ROWS), [3] * ROWS, list("fedcba")], ids=["later", "one", "letters"])
def test_an_index_of_the_rows_changes_no_score(frame, fitted, index):
    known, changed = rows_with(frame, {"letter": "z", "few": np.nan})
    for rows in (known, changed):
        expected = np.asarray(fitted.score_samples(rows))
        assert np.asarray(fitted.score_samples(rows.set_axis(index))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", UNSEEN)
def test_unseen_cells_of_every_kind_are_told_and_coded(frame, fitted, kind):
    (column,) = UNSEEN[kind]
    _, changed = rows_with(frame, UNSEEN[kind])
    rows = read_rows(fitted.codec_, changed, N)
    names = list(fitted.codec_.index_)
    told = {names[j] for j in np.flatnonzero(rows.cells.any(axis=0))}
    assert told == {column} and rows.cells[:, names.index(column)].all()
    assert rows.data.isfinite().all() or kind == "one missing of two"
    codes = rows.data[:, fitted.codec_.n_continuous_ :]
    assert (codes >= 0).all() and (codes < codes.new_tensor(fitted.codec_.n_levels_)).all()
    assert (rows.surprise >= np.log(N + 1) - 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unknown level", "missing number", "missing constant", "one missing of two"])
def test_a_row_with_an_unseen_cell_scores_low_and_finite_and_is_an_outlier(frame, fitted, detector, kind):
    rows, changed = rows_with(frame, UNSEEN[kind])
    scores, odd = fitted.score_samples(changed), detector.score_samples(changed)
    assert np.isfinite(scores).all() and np.isfinite(odd).all() and scores.dtype == np.float64
    np.testing.assert_array_equal(fitted.score_samples(changed), scores)
    if "number" not in kind and "one" not in kind:  # instead of a density, there is a probability
        assert (scores <= fitted.score_samples(rows) - np.log(N + 1) + 1e-6).all()
    # The detector takes it for an outlier, whatever the rest of the row.
    assert (odd < detector.offset_).all() and (odd < detector.score_samples(frame).min()).all()


@pytest.mark.slow
def test_an_unseen_level_scores_below_every_seen_one_and_two_below_one(frame, fitted, detector):
    rows, one = rows_with(frame, {"few": 77})
    seen = pd.concat([rows.assign(few=level) for level in range(4)], ignore_index=True)
    for model in (fitted, detector):
        unseen, two = model.score_samples(one), model.score_samples(one.assign(flag=None))
        assert (unseen < model.score_samples(seen).reshape(4, ROWS).min(axis=0) - np.log(N + 1)).all()
        assert (two < unseen).all()


@pytest.mark.slow
def test_a_score_of_an_unseen_cell_does_not_depend_on_the_rows_beside_it(frame, fitted):
    rows, changed = rows_with(frame, {"letter": "z", "flag": None})
    mixed = pd.concat([rows, changed.astype({"letter": object})], ignore_index=True)
    together = fitted.score_samples(mixed)
    np.testing.assert_allclose(together[ROWS:], fitted.score_samples(changed), rtol=1e-9)
    np.testing.assert_allclose(together[:ROWS], fitted.score_samples(rows), rtol=1e-9)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("real", [4.0, 8.0, 50.0, 1e6, 1e60]),
        ("count", [1200, 5000, 10**6, 2**40]),
        ("nullable", [600, 10**9, 10**15, 2**62]),
        ("few", [4, 5, 50, 10**9]),
        ("time", np.array(["2023-01-01", "2500-01-01", "9000-01-01"], dtype="M8[s]")),
    ],
)
def test_the_further_outside_its_range_the_lower_a_number_scores(frame, fitted, detector, column, values):
    rows, _ = rows_with(frame, {})
    table = pd.concat([rows.head(1).assign(**{column: [value]}) for value in values], ignore_index=True)
    for model in (fitted, detector):
        scores = model.score_samples(table)
        assert np.isfinite(scores).all() and (np.diff(scores) < 0).all()


@pytest.mark.parametrize("value", [-1e300, np.finfo(float).max])
def test_the_largest_floats_score_finite(frame, fitted, detector, value):
    _, changed = rows_with(frame, {"real": value})
    for model in (fitted, detector):
        assert np.isfinite(model.score_samples(changed)).all()
    for tiny in (np.array([1e-300, 2e-300, 3e-300]), np.array([0.0, 1e-9, 2e-9])):
        column = NumericColumn(tiny, np.dtype(float), "tiny")
        assert np.isfinite(column.log_density(np.array([value]))).all()
        assert np.isfinite(Marginal(tiny, np.ones(3)).log_density(np.array([value, tiny[0]]))).all()


def test_outside_a_range_that_ends_in_a_spike_is_less_likely_than_the_spike():
    # A spike has a probability and its neighbourhood a density, which is large where the column's unit is large.
    values = np.repeat([0.0, 1e-9, 2e-9], 50)
    column = NumericColumn(values, np.dtype(float), "x")
    inside, outside = column.log_density(np.array([0.0, 2e-9])), column.log_density(np.array([-1e-10, 3e-9]))
    assert outside.max() < inside.min()


@pytest.mark.parametrize("column", ["real", "few", "constant"])
def test_infinite_values_are_refused_by_all_and_the_advice_works(frame, fitted, detector, column):
    _, changed = rows_with(frame, {column: -np.inf})
    for use in (fitted.score_samples, detector.predict, fitted.impute):
        with pytest.raises(ValueError, match=rf"column '{column}'.*infinite"):
            use(changed.assign(letter=None))
    assert np.isfinite(fitted.score_samples(changed.replace([np.inf, -np.inf], np.nan))).all()


@pytest.mark.parametrize("value", ["many", pd.Timestamp("2024-01-01")])
def test_what_is_no_number_at_all_is_told_with_a_remedy_that_works(frame, fitted, detector, value):
    _, changed = rows_with(frame, {"real": value})
    for model in (fitted, detector):
        with pytest.raises(TypeError, match=r"column 'real' must hold numbers.*pd.to_numeric"):
            model.score_samples(changed)
    texts = changed.assign(real=["1.5"] * ROWS)
    with pytest.raises(TypeError, match=r"pd.to_numeric\(df\['real'\], errors=\"coerce\"\)"):
        fitted.score_samples(texts.assign(real=["1.5", *["many"] * (ROWS - 1)]))
    fitted.score_samples(texts.assign(real=pd.to_numeric(texts["real"], errors="coerce")))


def test_columns_that_are_missing_or_reordered_stay_errors(frame, fitted, detector):
    for model in (fitted, detector):
        for wrong in (frame.drop(columns="few"), frame[frame.columns[::-1]], frame.assign(more=1)):
            with pytest.raises(ValueError, match="feature names"):
                model.score_samples(wrong)


# ----------------------------------------------------------- relations


@pytest.mark.slow
def test_a_row_that_breaks_a_dependency_scores_below_the_one_that_keeps_it(frame, fitted):
    assert fitted.schema_.set_index("column").loc["city", "determined_by"] == "letter"
    rows, broken = rows_with(frame, {})
    rows, broken = rows.head(4), broken.head(4)
    broken["city"] = rows["city"].map({"Aachen": "Bonn", "Bonn": "Aachen"})
    kept = fitted.score_samples(rows)
    for changed in (broken, rows.assign(city="Celle"), rows.assign(city=None)):
        np.testing.assert_allclose(fitted.score_samples(changed), kept - np.log(N + 1), rtol=1e-9)
    # Of an unknown letter nothing is known, so no city breaks the rule.
    unknown = fitted.score_samples(rows.assign(letter="z"))
    np.testing.assert_allclose(fitted.score_samples(broken.assign(letter="z")), unknown, rtol=1e-9)
    np.testing.assert_allclose(
        fitted.score_samples(broken.assign(letter="z", city="Celle")), unknown - np.log(N + 1), rtol=1e-9
    )


def surprise(codec, frame):
    rows = read_rows(codec, frame, len(frame))
    return rows.cells, rows.surprise


def test_dependencies_of_numbers_are_kept_by_their_neighbours_and_broken_by_other_values():
    rng = np.random.default_rng(0)
    distance = rng.integers(0, 300, 2000) / 2
    frame = pd.DataFrame(
        {"distance": distance, "fare": np.ceil((distance + 0.5) / 50) * 2.5, "x": rng.normal(size=2000)}
    )
    codec = TableCodec().fit(frame)
    assert codec.schema_["determined_by"].to_list() == [None, "distance", None]
    assert not surprise(codec, frame)[0].any()
    probe = pd.DataFrame({"distance": [20.3, 49.7, 49.7, 49.7, 20.0, 20.0], "fare": [2.5, 2.5, 5.0, 7.5, 5.0, 3.0]})
    cells, cost = surprise(codec, probe.assign(x=0.0))
    assert cells[:, 1].tolist() == [False, False, False, True, True, True]
    np.testing.assert_allclose(cost, cells.any(axis=1) * np.log(len(probe) + 1))


def test_what_the_condition_determines_counts_too():
    country = np.random.default_rng(0).integers(0, 2, N)
    frame = pd.DataFrame({"currency": np.array(["mark", "franc"])[country], "x": np.arange(N) / 7})
    codes = torch.from_numpy(country[:, None].astype(np.float32))
    codec = TableCodec().fit(frame, codes, [2])
    assert codec.schema_["determined_by"][0] == "condition"
    assert not read_rows(codec, frame, N, codes).cells.any()
    assert read_rows(codec, frame, N, 1 - codes).cells[:, 0].all()
    assert not read_rows(codec, frame, N, torch.full_like(codes, torch.nan)).cells.any()
    assert not read_rows(codec, frame, N).cells.any()


def test_a_sum_that_is_wrong_and_an_inequality_that_is_broken_are_told():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 50, N), "b": rng.integers(0, 50, N)})
    frame["total"] = frame["a"] + frame["b"]
    frame["limit"] = frame["total"] + rng.integers(5, 500, N)
    gen = DiffusionGenerator(**SETTINGS, constraints=["total = a + b", "total <= limit"]).fit(frame)
    rows = frame.head(ROWS)
    tables = (rows, rows.assign(limit=rows["total"] - 10), rows.assign(total=rows["total"] + 1))
    kept, beyond, wrong = gen.score_samples(pd.concat(tables, ignore_index=True)).reshape(3, ROWS)
    assert np.isfinite(wrong).all() and (beyond < kept.min()).all() and (wrong < kept - np.log(N + 1)).all()
    cells, _ = surprise(gen.codec_, rows.assign(total=rows["total"] + 1))
    assert cells[:, 2].all()


@pytest.mark.slow
def test_one_more_rare_level_is_rarer_than_any_and_no_surprise():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"name": [f"person {i}" for i in range(N)], "x": rng.normal(size=N)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gen = DiffusionGenerator(**SETTINGS).fit(frame)
    rows = frame.head(ROWS)
    seen, unseen = gen.score_samples(rows), gen.score_samples(rows.assign(name="somebody else"))
    assert (unseen < seen).all() and (unseen > seen - 0.1).all()
    missing = gen.score_samples(rows.assign(name=None))
    assert (missing < seen - np.log(N + 1) + 1e-6).all()


@pytest.fixture(scope="module")
def array_model():
    X = np.column_stack([np.random.default_rng(0).normal(size=(N, 2)), np.full(N, 3.0)])
    return DiffusionGenerator(**SETTINGS).fit(X), X


@pytest.mark.parametrize("method", ["bound", "flow"])
def test_arrays_follow_the_same_rule(array_model, method):
    gen, X = array_model
    table = np.repeat(X[:1], 6, axis=0)
    _, one, two, other, low, high = table
    one[0] = two[0] = two[1] = np.nan
    other[2] = 4.0
    low[0], high[0] = X[:, 0].min(), X[:, 0].max()
    scores = dict(zip(("kept", "one", "two", "other", "low", "high"), gen.score_samples(table, method=method)))
    # In the place of a density of the column there is a probability: that of its normal scores counts alone.
    z = gen.codec_.encode(table[4:]).double().numpy()[:, 0]
    density = gen.codec_.columns_[0].log_density(table[4:, 0])
    ends = np.array([scores["low"], scores["high"]]) - density - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(scores["one"], ends.min() - np.log(N + 1), atol=0.02)
    assert scores["two"] < scores["one"]
    # Further from the constant by a third of its size.
    np.testing.assert_allclose(scores["other"], scores["kept"] - np.log(N + 1) - 1 / 3)
    with pytest.raises(ValueError, match="infinity in column"):
        gen.score_samples(np.full((1, 3), np.inf), method=method)


def test_by_exact_densities_most_rows_with_an_unseen_cell_are_below_the_lowest_percentile():
    # Of independent columns, whose density is known without a network: nothing else about the row is odd.
    rng = np.random.default_rng(0)
    shares = {"b": [0.6, 0.4], "c": [0.5, 0.3, 0.2]}
    frame = pd.DataFrame({"a": rng.normal(size=1000), "b": rng.choice(list("pq"), 1000, p=shares["b"])})
    frame["c"] = rng.choice(list("uvw"), 1000, p=shares["c"])
    codec = TableCodec().fit(frame)

    def exact(data, where):
        z = data[:, 0].double().numpy()
        levels = sum(np.log(shares[name])[data[:, i].long().numpy()] for i, name in ((1, "b"), (2, "c")))
        return -0.5 * z**2 - 0.5 * np.log(2 * np.pi) + levels

    def score(table):
        rows = read_rows(codec, table, len(frame))
        return least_likely(codec, rows, exact) + log_jacobian(codec, rows)

    scores, rows = score(frame), frame.head(100)
    low = np.percentile(scores, 1)
    np.testing.assert_allclose(
        scores, exact(codec.encode(frame), None) + codec.log_jacobian(frame, codec.encode(frame))
    )
    for changed in (rows.assign(b="z"), rows.assign(a=np.nan), rows.assign(c=None)):
        assert (score(changed) < low).mean() > 0.9
    # The closed form: an unknown b is the rarer of the two, less log(n + 1).
    with_rarer = score(rows.assign(b="q")) - np.log(1001)
    np.testing.assert_allclose(score(rows.assign(b="z")), with_rarer)
    np.testing.assert_allclose(score(rows.assign(b="z", c="z")), score(rows.assign(b="q", c="w")) - 2 * np.log(1001))
    end = ndtri(0.25 / 1000)
    without = np.log(0.4) + np.log(0.2) - 0.5 * end**2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(score(rows.assign(a=np.nan, b="q", c="w")), without - np.log(1001), rtol=1e-6)


# ----------------------------------------------------- holes and conditions


@pytest.mark.parametrize("strategy", ["mean", "draw"])
def test_impute_keeps_what_was_never_seen_and_fills_the_rest(frame, fitted, strategy):
    _, X = rows_with(frame, {"letter": "z", "day": pd.Timestamp("2024-03-01"), "real": 1e9, "count": 10**6})
    X = X.assign(few=np.nan, flag=pd.array([pd.NA] * ROWS, dtype="boolean"), time=pd.NaT, city=None, nullable=NA)
    with pytest.warns(UserWarning, match="did not have in fit") as told:
        filled = fitted.impute(X, strategy=strategy, random_state=0)
    assert sorted(str(w.message).split("'")[1] for w in told) == ["day", "letter"]
    observed = ["letter", "day", "real", "count", "odd", "left", "constant", "right"]
    pd.testing.assert_frame_equal(filled[observed], X[observed])
    assert not filled.isna().any(axis=None)
    assert filled["city"].isin(["Aachen", "Bonn"]).all() and filled["few"].isin(range(4)).all()
    # What an unknown level says of a hole is nothing.
    other = X.assign(letter="another")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = fitted.impute(other, strategy=strategy, random_state=0)
    pd.testing.assert_frame_equal(again.drop(columns="letter"), filled.drop(columns="letter"))


def test_the_imputer_follows_the_rule_of_the_generator(frame):
    imputer = DiffusionImputer(DiffusionGenerator(**SETTINGS)).fit(frame)
    _, X = rows_with(frame, {"letter": "z", "real": 1e9, "few": np.nan, "time": pd.NaT})
    with pytest.warns(UserWarning, match="'letter' holds values that it did not have in fit, such as 'z'"):
        filled = imputer.transform(X)
    assert (filled["letter"] == "z").all() and (filled["real"] == 1e9).all() and not filled.isna().any(axis=None)


def test_a_gap_that_a_hole_makes_unknown_is_no_error():
    # Of the few distances between two times none is that from what stands in for a missing one.
    rng = np.random.default_rng(0)
    start = pd.Series(rng.choice(pd.date_range("2020", "2024"), N))
    frame = pd.DataFrame({"start": start, "end": start + pd.to_timedelta(rng.integers(0, 4, N), unit="D")})
    frame["x"] = rng.normal(size=N)
    gen = DiffusionGenerator(**SETTINGS, constraints=["start <= end"]).fit(frame)
    X = frame.head(ROWS).assign(start=pd.NaT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled = gen.impute(X, random_state=0)
        drawn = gen.sample(ROWS, {"end": X["end"]}, random_state=0)
    for table in (filled, drawn):
        pd.testing.assert_series_equal(table["end"], X["end"])
        assert table["start"].notna().all()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"letter": "A"}, r"unknown value 'A'.*Did you mean 'a'.*'a', 'b', 'c'"),
        ({"city": "Achen"}, r"unknown value 'Achen'.*Did you mean 'Aachen'"),
        ({"few": 9}, r"unknown value 9.*0, 1, 2, 3"),
        ({"flag": "maybe"}, r"unknown value 'maybe'.*False, True"),
        ({"constant": 8}, r"unknown value 8.*7"),
        ({"day": "2024-03-01"}, r"condition 'day'.*2024-03-01.*Did you mean '2024-0\d-01 00:00:00'.*2024-05-01"),
        ({"day": pd.Timestamp("2024-03-01")}, r"condition 'day'.*Known values: '2024-01-01 00:00:00'"),
        ({"real": np.inf}, "infinite"),
    ],
)
def test_conditions_on_what_was_never_seen_say_what_is_known(fitted, condition, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(3, condition)


def test_the_advice_of_a_condition_works_and_ranges_are_told_as_they_are_written(fitted):
    assert (fitted.sample(3, {"day": "2024-05-01 00:00:00"})["day"] == pd.Timestamp("2024-05-01")).all()
    with pytest.warns(UserWarning, match=r"outside the fitted range \[2000-\d\d-\d\d.*, 20(19|20)-"):
        drawn = fitted.sample(3, {"time": "2100-01-01"})
    assert (drawn["time"] == pd.Timestamp("2100-01-01")).all()
    with pytest.warns(UserWarning, match=r"outside the fitted range \["):
        fitted.sample(3, {"real": 99.0})


def test_declared_conditions_pipelines_and_the_over_sampler_name_what_they_know():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.repeat(["cat", "dog"], [40, 20])
    pipe = make_pipeline(FunctionTransformer(np.exp, np.log), DiffusionGenerator(**SETTINGS)).fit(X, y)
    for use in (lambda c: sample_pipeline(pipe, 3, condition=c), lambda c: pipe[-1].score_samples(X[:3], condition=c)):
        with pytest.raises(ValueError, match=r"unknown value 'dogs'.*Did you mean 'dog'.*'cat', 'dog'"):
            use("dogs")
    with pytest.raises(ValueError, match=r"'dogs'.*Did you mean 'dog'"):
        DiffusionOverSampler(DiffusionGenerator(**SETTINGS), sampling_strategy={"dogs": 50}).fit_resample(X, y)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(y=y)
    gen = DiffusionGenerator(**SETTINGS).fit(frame, condition="y")
    with pytest.raises(ValueError, match="Known values: 'cat', 'dog'"):
        gen.score_samples(frame.assign(y="bird"))


def test_letters_and_lengths_of_sequences_that_were_never_seen_are_told():
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, refine=False, random_state=0).fit(["ACGT", "GGTA", "TTTT"] * 5)
    with pytest.raises(ValueError, match=r"letter 'N'.*'A', 'C', 'G', 'T'"):
        gen.score_samples(["ACGN"])
    with pytest.raises(ValueError, match="5 positions; 4"):
        gen.score_samples(["ACGTA"])
