import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tabdiff.datasets import load_penguins
from tabdiff.evaluation import (
    alpha_precision,
    beta_recall,
    c2st,
    column_shape_errors,
    dcr_share,
    downstream_score,
    evaluate,
    independent_columns,
    lr_c2st,
    missingness_error,
    nearest_neighbour_ratio,
    pair_trend_errors,
    published_c2st,
    shape_error,
    trend_error,
)
from tabdiff.evaluation.distances import gower_nearest
from tabdiff.evaluation.frames import encode

METRICS = [shape_error, trend_error, missingness_error, c2st, lr_c2st, alpha_precision, beta_recall]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Keep boosting to one thread: on small tables more threads mostly wait for each other."""
    with threadpool_limits(1, user_api="openmp"):
        yield


def draw(n, seed):
    """Draw rows with known dependence: x, y correlated by 0.8, and a category that the sign of x decides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 0.8 * x + 0.6 * rng.normal(size=n)
    z = rng.gamma(2.0, size=n).round(1)
    kind = np.where(x > 0, "high", "low")
    return pd.DataFrame({"x": x, "y": y, "z": z, "kind": pd.Categorical(kind), "coin": rng.random(n) < 0.3})


@pytest.fixture(scope="module")
def train():
    return draw(1500, 0)


@pytest.fixture(scope="module")
def holdout():
    return draw(1500, 1)


@pytest.fixture(scope="module")
def interpolated(train):
    """SMOTE's rows: between a training row and one of its five nearest neighbours, categories copied."""
    numbers = train[["x", "y", "z"]].to_numpy()
    neighbours = NearestNeighbors(n_neighbors=6).fit(numbers).kneighbors(numbers, return_distance=False)
    rng = np.random.default_rng(2)
    other = neighbours[np.arange(len(numbers)), rng.integers(1, 6, size=len(numbers))]
    rows = train.copy()
    rows[["x", "y", "z"]] = numbers + rng.random((len(numbers), 1)) * (numbers[other] - numbers)
    return rows


@pytest.fixture(scope="module")
def awkward():
    """Every kind of column, with missing values in most of them."""
    rng = np.random.default_rng(0)
    n = 90
    holes = rng.random(n) < 0.2
    return pd.DataFrame(
        {
            "float": np.where(holes, np.nan, rng.normal(size=n)),
            "Int64": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "Float64": pd.array(rng.normal(size=n), dtype="Float64"),
            "bool": rng.random(n) < 0.5,
            "boolean": pd.array(rng.random(n) < 0.5, dtype="boolean"),
            "string": pd.array(rng.choice(["a", "b", "c"], n), dtype="string"),
            "object": pd.Series(rng.choice(["u", "v"], n)).where(~holes, None),
            "category": pd.Categorical(rng.choice(["x", "y"], n), categories=["x", "y", "unused"]),
            "date": pd.Series(pd.date_range("2020-01-01", periods=n, tz="Europe/Oslo")).where(~holes),
            "duration": pd.to_timedelta(rng.integers(0, 99, n), unit="h"),
            "constant": np.ones(n),
            "all_missing": np.full(n, np.nan),
            "all_none": pd.Series([None] * n, dtype=object),
        }
    ).mask(lambda f: pd.DataFrame(rng.random(f.shape) < 0.05, columns=f.columns))


class TestMarginals:
    def test_a_shift_by_half_a_uniform_has_ks_half(self):
        grid = np.linspace(0, 1, 1001)
        errors = column_shape_errors(pd.DataFrame({"u": grid}), pd.DataFrame({"u": grid + 0.5}))
        assert errors["u"] == pytest.approx(50, abs=0.1)

    def test_ks_agrees_with_scipy_with_ties_and_unequal_sizes(self, train, holdout):
        x, y = train["z"][:400], holdout["z"][:150] + 0.3
        error = shape_error(x.to_frame(), y.to_frame())
        assert error == pytest.approx(100 * ks_2samp(x, y).statistic, abs=1e-9)

    def test_categories_have_the_total_variation_of_their_frequencies(self):
        real = pd.DataFrame({"c": ["a"] * 5 + ["b"] * 3 + [None] * 2})
        synthetic = pd.DataFrame({"c": ["a"] * 5 + ["new"] * 5})
        # |.5 - .5| + |.3 - 0| + |.2 - 0| + |0 - .5|, halved
        assert column_shape_errors(real, synthetic)["c"] == pytest.approx(50)

    def test_independent_columns_keep_the_shapes_and_break_the_trends(self, train, holdout):
        independent = independent_columns(train)
        assert shape_error(train, independent) < 2 * shape_error(train, holdout)
        errors = pair_trend_errors(train, independent)
        assert errors.loc["x", "y"] == pytest.approx(40, abs=3)  # (0.8 - 0) / 2
        assert trend_error(train, independent) > 3 * trend_error(train, holdout)

    def test_one_outlier_does_not_move_the_bins_of_a_mixed_pair(self, train):
        with_outlier = train.copy()
        with_outlier.loc[0, "x"] = 1e6
        assert pair_trend_errors(train, with_outlier).loc["x", "kind"] <= 100 / len(train) + 1e-9

    def test_a_mixed_pair_has_the_total_variation_of_its_contingency_table(self):
        real = pd.DataFrame({"v": [0.0, 0.0, 10.0, 10.0], "c": ["a", "a", "b", "b"]})
        synthetic = pd.DataFrame({"v": [0.0, 0.0, 10.0, 10.0], "c": ["a", "b", "a", "b"]})
        assert trend_error(real, synthetic) == pytest.approx(50)

    def test_trend_of_one_column_is_not_defined(self):
        assert np.isnan(trend_error(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]})))

    def test_missingness_sees_rates_and_what_is_missing_together(self):
        nan = np.nan
        real = pd.DataFrame({"a": [nan, nan, 1, 1], "b": [nan, nan, 1, 1], "c": [1.0, 1, 1, 1]})
        apart = pd.DataFrame({"a": [nan, nan, 1, 1], "b": [1, 1, nan, nan], "c": [1.0, 1, 1, 1]})
        assert missingness_error(real, real) == 0
        assert missingness_error(real, apart) == pytest.approx(100 * (0 + 0 + 0.5) / 3)
        assert missingness_error(real, real.fillna(1)) == pytest.approx(50)

    @given(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=8), st.integers(0, 3))
    def test_errors_lie_in_range_and_are_zero_between_a_table_and_its_shuffle(self, levels, seed):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"c": pd.Series(levels, dtype=object), "v": rng.normal(size=len(levels))})
        shuffled = frame.sample(frac=1, random_state=seed)
        assert shape_error(frame, shuffled) == pytest.approx(0, abs=1e-9)
        assert trend_error(frame, shuffled) == pytest.approx(0, abs=1e-9)
        other = pd.DataFrame({"c": ["a", "z"], "v": [0.0, 100.0]})
        assert 0 <= shape_error(frame, other) <= 100
        assert 0 <= trend_error(frame, other) <= 100


class TestLearners:
    def test_fresh_real_rows_cannot_be_told_apart_and_independent_columns_can(self, train, holdout):
        assert c2st(train, holdout) > 0.9
        assert c2st(train, independent_columns(train)) < 0.4

    def test_separated_tables_score_zero(self, train):
        shifted = train.assign(x=train["x"] + 100)
        assert c2st(train, shifted) == pytest.approx(0, abs=1e-6)
        assert lr_c2st(train, shifted) == pytest.approx(0, abs=1e-6)

    def test_logistic_regression_sees_means_and_not_dependence(self, train):
        assert lr_c2st(train, independent_columns(train)) > 0.9
        assert lr_c2st(train, train.assign(z=train["z"] + 2)) < 0.4

    def test_auc_of_a_known_shift(self):
        # Two normals one standard deviation apart have AUC Phi(1 / sqrt 2) = 0.760.
        rng = np.random.default_rng(0)
        real, synthetic = (pd.DataFrame({"x": rng.normal(m, 1, 6000)}) for m in (0, 1))
        score = c2st(real, synthetic, classifier=LogisticRegression)
        assert score == pytest.approx(1 - (2 * 0.760 - 1), abs=0.02)

    def test_the_larger_table_is_subsampled(self, train, holdout):
        assert c2st(train, holdout[:300]) > 0.8

    def test_categories_of_many_levels(self):
        rng = np.random.default_rng(0)
        real, other = (pd.DataFrame({"id": rng.zipf(1.3, 3000).astype(str)}) for _ in range(2))
        assert real["id"].nunique() > 255
        assert c2st(real, other) > 0.9
        assert c2st(real, other.assign(id=other["id"] + "x")) < 0.4

    def test_levels_seen_once_do_not_tell_by_their_order(self):
        real, other = (pd.DataFrame({"id": [f"{side}{i}" for i in range(900)]}) for side in "ab")
        assert c2st(real, other) > 0.9

    def test_downstream_auc_reaches_what_the_labels_allow(self, train, holdout):
        assert downstream_score(train, holdout, "kind") > 0.99
        assert downstream_score(independent_columns(train), holdout, "kind") == pytest.approx(0.5, abs=0.1)

    def test_downstream_regression(self, train, holdout):
        # y given x has variance 0.36 of 1.
        assert downstream_score(train, holdout, "y") == pytest.approx(0.64, abs=0.06)
        assert downstream_score(train, holdout, "y", metric="rmse") == pytest.approx(0.6, abs=0.06)

    def test_downstream_with_several_classes_and_one_never_generated(self):
        penguins = load_penguins()
        train, test = penguins[::2], penguins[1::2]
        assert downstream_score(train, test, "species") > 0.98
        # Two of the three classes can still be ranked; the third scores 1/2.
        without = train[train["species"] != "Gentoo"]
        assert 0.7 < downstream_score(without, test, "species") < 0.9

    def test_a_single_class_generated_scores_half(self, train, holdout):
        assert downstream_score(train[train["coin"]], holdout, "coin") == 0.5


class TestDistances:
    def test_coverage_of_fresh_rows_is_half_and_of_copies_is_whole(self, train, holdout):
        assert beta_recall(train, holdout) == pytest.approx(0.5, abs=0.08)
        assert beta_recall(train, train) == pytest.approx(1, abs=0.02)
        assert beta_recall(train, independent_columns(train)) < 0.4

    @pytest.mark.parametrize(
        ("kind", "precision", "recall"),
        [
            ("noised", 0.9240507332540626, 0.3770114942528736),
            ("shuffled", 0.834522393975426, 0.09954022988505762),
            ("narrow", 0.5473563218390805, 0.5116527942925089),
        ],
    )
    def test_coverage_agrees_with_synthcity_but_for_the_divisor(self, kind, precision, recall):
        # Recorded of `delta_precision_alpha` and `delta_coverage_beta` of synthcity 0.2.12, which divides the sum of
        # the errors by 14.5 where the levels of alpha sum to 15. Columns reach from 0 to 1, so that scales are its own.
        rng = np.random.default_rng(5)
        X = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
        X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
        noised = X + 0.05 * rng.normal(size=X.shape)
        shuffled = np.stack([rng.permutation(column) for column in X.T], axis=1)
        narrow = 0.5 + 0.6 * (X[rng.permutation(300)] - 0.5)
        drawn = {"noised": noised, "shuffled": shuffled, "narrow": narrow}[kind]
        frames = [pd.DataFrame(rows, columns=list("abcd")) for rows in (X, drawn)]
        assert 1 - (1 - alpha_precision(*frames)) * 15 / 14.5 == pytest.approx(precision, abs=1e-6)
        assert 1 - (1 - beta_recall(*frames)) * 15 / 14.5 == pytest.approx(recall, abs=1e-6)

    def test_precision_falls_for_rows_that_lie_where_real_rows_are_rare(self, train, holdout):
        assert alpha_precision(train, holdout) > 0.95
        wide = train.assign(x=3 * train["x"], y=3 * train["y"])
        assert alpha_precision(train, wide) < 0.8

    def test_interpolated_rows_set_off_both_alarms_and_fresh_rows_neither(self, train, holdout, interpolated):
        fresh = draw(1500, 3)
        assert dcr_share(train, fresh, holdout) == pytest.approx(50, abs=4)
        assert 0.9 < nearest_neighbour_ratio(train, fresh, holdout) < 1.1
        assert dcr_share(train, interpolated, holdout) > 60
        assert nearest_neighbour_ratio(train, interpolated, holdout) < 0.8

    def test_copies_have_ratio_zero_with_and_without_a_holdout(self, train, holdout):
        assert nearest_neighbour_ratio(train, train, holdout) == 0
        assert nearest_neighbour_ratio(train, train) == 0
        assert nearest_neighbour_ratio(train, holdout) == pytest.approx(1, abs=0.1)

    def test_ratio_where_real_rows_are_duplicates(self):
        real = pd.DataFrame({"c": list("ab") * 50})
        assert nearest_neighbour_ratio(real, real) == 1
        assert nearest_neighbour_ratio(real, pd.DataFrame({"c": ["new"] * 100})) == np.inf

    def test_gower_distance_by_hand(self):
        real = pd.DataFrame({"v": [0.0, 4.0, np.nan], "c": ["a", "b", "a"]})
        query = pd.DataFrame({"v": [1.0, np.nan], "c": ["b", None]})
        a, q = encode(real, query)
        # From (1, b): to (0, a) 1/4 + 1, to (4, b) 3/4, to (nan, a) |1 - median 2|/4 + 1 + 1.
        # From (nan, nan): to (0, a) and (4, b) 2/4 + 1 + 1, to (nan, a) 0 + 1.
        np.testing.assert_allclose(gower_nearest(a, q, a), [0.75, 1.0])
        # Each to another: (0, a) to (4, b) 2 or to (nan, a) 1.5; (4, b) to (0, a) 2 or to (nan, a) 2.5.
        np.testing.assert_allclose(gower_nearest(a, a, a, exclude_self=True), [1.5, 2.0, 1.5])

    def test_levels_beyond_number_give_the_distances_of_one_hot_codes(self):
        rng = np.random.default_rng(0)
        frames = [pd.DataFrame({"v": rng.random(200), "c": rng.integers(0, 400, 200)}) for _ in range(2)]
        frames = [f.astype({"c": "category"}) for f in frames]
        wide = [f.assign(id=np.arange(200).astype(str) + "abc"[i]) for i, f in enumerate(frames)]
        narrow, more = (gower_nearest(e[0], e[1], e[0]) for e in (encode(*frames), encode(*wide)))
        np.testing.assert_allclose(more, narrow + 1, atol=1e-6)


class TestFrames:
    @pytest.mark.parametrize("metric", METRICS)
    def test_every_kind_of_column_with_missing_values(self, awkward, metric):
        lowest_is_best = metric.__name__.endswith("error")
        score = metric(awkward, awkward.sample(frac=1, random_state=0))
        assert score == pytest.approx(0, abs=1e-9) if lowest_is_best else score > 0.85

    def test_copying_and_usefulness_with_missing_values(self, awkward):
        half, other = awkward[:45], awkward[45:]
        assert nearest_neighbour_ratio(half, half, other) < 0.1
        assert dcr_share(half, half, other) > 95
        for target in ("float", "Int64", "object", "boolean", "date"):
            assert np.isfinite(downstream_score(half, other, target))

    def test_values_are_compared_whatever_the_dtype(self):
        real = pd.DataFrame({"n": [1.0, 2.0, np.nan], "c": pd.Categorical(["a", "b", None])})
        same = pd.DataFrame({"n": pd.array([1, 2, None], dtype="Int64"), "c": ["a", "b", None]})
        assert shape_error(real, same) == trend_error(real, same) == missingness_error(real, same) == 0

    def test_column_order_does_not_matter(self, train, holdout):
        reordered = holdout[holdout.columns[::-1]]
        assert trend_error(train, holdout) == trend_error(train, reordered)

    def test_a_column_all_missing_on_one_side_has_the_full_error(self):
        real, synthetic = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [np.nan, np.nan]})
        assert shape_error(real, synthetic) == 100

    def test_other_data_frames_are_read(self, train):
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pandas(train)
        assert shape_error(train, table) == 0

    def test_independent_columns_keep_dtypes_and_values(self):
        penguins = load_penguins()
        drawn = independent_columns(penguins, 50, random_state=1)
        pd.testing.assert_series_equal(drawn.dtypes, penguins.dtypes)
        assert drawn.index.equals(pd.RangeIndex(50))
        assert all(drawn[c].dropna().isin(penguins[c]).all() for c in penguins)
        pd.testing.assert_frame_equal(drawn, independent_columns(penguins, 50, random_state=1))
        assert not drawn.equals(independent_columns(penguins, 50, random_state=2))

    def test_errors_name_the_fault(self, train):
        with pytest.raises(ValueError, match=r"synthetic must have the columns of real: missing \['x'\]"):
            shape_error(train, train.drop(columns="x"))
        with pytest.raises(ValueError, match=r"not in real \['extra'\]"):
            shape_error(train, train.assign(extra=1))
        with pytest.raises(ValueError, match="at least one row"):
            shape_error(train, train[:0])
        with pytest.raises(TypeError, match="synthetic is a ndarray"):
            shape_error(train, train.to_numpy())
        with pytest.raises(ValueError, match="Column 'x' has infinite values"):
            trend_error(train, train.assign(x=np.inf))
        with pytest.raises(ValueError, match="Column 'x' is float64 in real"):
            trend_error(train, train.assign(x="word"))
        with pytest.raises(ValueError, match="target='w' is no column"):
            downstream_score(train, train, "w")
        with pytest.raises(ValueError, match="metric='rmse' does not suit"):
            downstream_score(train, train, "kind", metric="rmse")
        with pytest.raises(ValueError, match="one class only"):
            downstream_score(train, train[train["coin"]], "coin")
        with pytest.raises(ValueError, match="at least 3 rows"):
            c2st(train, train[:2])
        with pytest.raises(ValueError, match="n=-1 is negative"):
            independent_columns(train, -1)


class TestEvaluate:
    @pytest.mark.slow
    def test_floor_and_baseline_stand_beside_the_score(self, train, holdout):
        scores = evaluate(train, draw(1500, 3), holdout=holdout, target="kind").to_frame().set_index("metric")
        assert list(scores.columns) == ["synthetic", "low", "high", "floor", "independent", "better", "meaning"]
        assert scores.loc["downstream_auc", "synthetic"] == pytest.approx(1, abs=0.01)
        assert scores.loc["dcr_share", ["synthetic", "floor"]].astype(float).between(45, 55).all()
        assert scores.loc["nearest_neighbour_ratio", ["synthetic", "floor"]].astype(float).between(0.9, 1.1).all()
        for metric, row in scores.iterrows():
            synthetic, floor, independent, better = row[["synthetic", "floor", "independent", "better"]]
            if better in ("lower", "higher") and metric not in ("shape_error", "missingness_error", "lr_c2st"):
                # Fresh rows of the true distribution are as good as the floor, independent columns are not.
                assert abs(synthetic - floor) < abs(independent - floor), metric

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_frame(self):
        penguins = load_penguins()
        synthetic = independent_columns(penguins, 200)
        first, second, other = (evaluate(penguins, synthetic, random_state=seed) for seed in (0, 0, 1))
        pd.testing.assert_frame_equal(first.to_frame(), second.to_frame())
        assert first.to_dict() == second.to_dict()
        assert not first.to_frame().equals(other.to_frame())

    @pytest.mark.slow
    def test_without_a_holdout_the_floor_comes_from_the_real_rows(self):
        penguins = load_penguins()
        scores = evaluate(penguins, independent_columns(penguins)).to_frame().set_index("metric")
        assert "dcr_share" not in scores.index
        assert scores[["synthetic", "floor", "independent"]].notna().all(axis=None)
        assert scores.loc["c2st", "floor"] > scores.loc["c2st", "synthetic"] + 0.3

    @pytest.mark.slow
    def test_max_rows_bounds_the_rows_that_classifiers_see(self, train, holdout):
        sizes = []

        class Recording(LogisticRegression):
            def fit(self, X, y):
                sizes.append(len(X))
                return super().fit(X[["n0", "n1"]], y)

            def predict_proba(self, X):
                return super().predict_proba(X[["n0", "n1"]])

        evaluate(train, holdout, holdout=holdout, classifier=Recording, max_rows=90)
        assert set(sizes) == {120}  # two thirds of 90 + 90

    def test_a_target_needs_a_holdout(self, train):
        with pytest.raises(ValueError, match="target= needs holdout="):
            evaluate(train, train, target="kind")


class TestPublished:
    """Recorded with sdmetrics 0.32.0 and xgboost 3.2.0 on these tables.

    Before detection NumPy's global seed was set to 0; "c" and "flag" were declared categorical, for it leaves booleans
    out otherwise.
    """

    @pytest.fixture
    def tables(self):
        rng = np.random.default_rng(0)

        def make(shift):
            x = rng.normal(size=400) + shift
            y = 0.7 * x + rng.normal(size=400) * 0.8
            k = rng.integers(0, 6, 400).astype(float)
            c = np.where(rng.random(400) < 0.3 + 0.2 * (x > 0), "a", np.where(rng.random(400) < 0.5, "b", "c"))
            return pd.DataFrame({"x": x, "y": y, "k": k, "c": c, "flag": rng.random(400) < 0.4})

        return make(0.0), make(0.35)

    def test_shapes_are_one_less_ks_and_tv_complements(self, tables):
        errors = column_shape_errors(*tables) / 100
        recorded = {"x": 0.145, "y": 0.0975, "k": 0.0575, "c": 0.0525, "flag": 0.0475}
        assert errors.to_dict() == pytest.approx(recorded, abs=1e-9)

    def test_trends_are_one_less_correlation_and_contingency_similarity(self, tables):
        errors = pair_trend_errors(*tables) / 100
        assert errors.loc["x", "y"] == pytest.approx(0.005465512452763166, abs=1e-9)
        assert errors.loc["c", "flag"] == pytest.approx(0.0825, abs=1e-9)
        # Theirs of a number with a category: the bins are those of the real column, as ours.
        assert errors.loc["x", "c"] == pytest.approx(0.17, abs=1e-9)

    def test_detection_behind_their_transform(self, tables):
        def logistic():
            return LogisticRegression(solver="lbfgs")

        assert published_c2st(*tables, classifier=logistic) == pytest.approx(0.8382146590806497, abs=1e-6)
        real, synthetic = (frame.copy() for frame in tables)
        real.loc[::7, "x"], real.loc[::11, "c"] = np.nan, None
        synthetic.loc[::9, "x"], synthetic.loc[::5, "c"] = np.nan, None
        assert published_c2st(real, synthetic, classifier=logistic) == pytest.approx(0.8158337713884081, abs=1e-6)

    def test_detection_by_xgboost(self, tables):
        xgboost = pytest.importorskip("xgboost", minversion="3.2")

        def boosting():
            return xgboost.XGBClassifier(eval_metric="logloss", random_state=0, n_jobs=1)

        assert published_c2st(*tables, classifier=boosting) == pytest.approx(0.9566079377548348, abs=1e-6)
