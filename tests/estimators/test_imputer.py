import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn.utils.estimator_checks as checks
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tabdiff import DiffusionGenerator, DiffusionImputer, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.nn import ResidualMLP
from tabdiff.utils.random import RowStreams

QUICK = {"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "random_state": 0}


def imputer(parameters=None, **kwargs):
    return DiffusionImputer(DiffusionGenerator(**{**QUICK, **(parameters or {})}), **kwargs)


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


@pytest.fixture(scope="module")
def fitted(penguins):
    return imputer().fit(penguins)


def holed(penguins, share=0.3):
    holes = np.random.default_rng(0).random(penguins.shape) < share
    X = penguins.copy()
    for j, name in enumerate(X.columns):
        X[name] = X[name].astype("Int64" if X[name].dtype == "int64" else X[name].dtype).mask(holes[:, j])
    return X


def numbers(n=60, d=3, share=0.3):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    X[:, -1] += X[:, 0]
    return np.where(rng.random(X.shape) < share, np.nan, X)


# ------------------------------------------------------------- what comes out


def test_a_mixed_frame_is_filled_and_what_was_there_stays(fitted, penguins):
    X = holed(penguins)
    before = X.copy()
    out = fitted.transform(X)
    pd.testing.assert_frame_equal(X, before)
    assert not out.isna().any(axis=None) and out.index.equals(X.index)
    assert out.columns.to_list() == penguins.columns.to_list()
    there = X.notna().to_numpy()
    np.testing.assert_array_equal(out.astype(object).to_numpy()[there], X.astype(object).to_numpy()[there])
    assert set(out["species"]) == set(penguins["species"]) and out["year"].isin([2007, 2008, 2009]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_keep_their_dtype_and_lists_are_arrays(dtype):
    X = numbers().astype(dtype)
    out = imputer().fit_transform(X)
    assert isinstance(out, np.ndarray) and out.dtype == dtype and np.isfinite(out).all()
    np.testing.assert_array_equal(out[~np.isnan(X)], X[~np.isnan(X)])
    assert imputer().fit_transform(X.tolist()).shape == X.shape


def test_other_frames_come_back_as_such():
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "word": [("a", "b", None)[k] for k in rng.integers(3, size=60)],
            "n": [(2, 3, None)[k] for k in [0, 1, 2] * 20],
        }
    )
    out = imputer(add_indicator=True).fit_transform(frame)
    assert isinstance(out, pl.DataFrame) and out.null_count().sum_horizontal().item() == 0
    assert out.columns == ["word", "n", "missingindicator_word", "missingindicator_n"]
    assert out.schema["n"] == frame.schema["n"] and out["missingindicator_n"].to_list() == [False, False, True] * 20


@pytest.mark.slow
def test_the_best_guess_follows_what_was_learned_and_draws_have_its_spread():
    rng, rho = np.random.default_rng(0), 0.9
    X = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=1500)
    X[rng.random(1500) < 0.3, 1] = np.nan
    gen = DiffusionGenerator(
        max_steps=500,
        hidden_size=64,
        n_blocks=2,
        learning_rate=3e-3,
        training=TrainingOptions(ema_decay=0.98, observed_masks=0.75),
    )
    rows = np.column_stack([np.repeat([-1.0, 1.0], 300), np.full(600, np.nan)])
    guess = DiffusionImputer(gen, random_state=0).fit(X)
    filled = guess.transform(rows)[:, 1]
    assert len(np.unique(filled)) == 2  # the same rows, the same guess
    np.testing.assert_allclose(filled[[0, -1]], [-rho, rho], atol=0.25)
    guess.sample_posterior = True
    drawn = guess.transform(rows)[:, 1]
    assert drawn[300:].mean() == pytest.approx(rho, abs=0.2)
    assert drawn[300:].std() == pytest.approx(np.sqrt(1 - rho**2), rel=0.3)


# ------------------------------------------------------------ a function of rows


@pytest.mark.slow
@pytest.mark.parametrize("sample_posterior", [False, True])
def test_what_fills_a_row_depends_on_nothing_but_the_row(penguins, sample_posterior):
    X = holed(penguins).drop_duplicates()
    fitted = imputer(sample_posterior=sample_posterior, random_state=1).fit(X)
    out = fitted.transform(X)
    pd.testing.assert_frame_equal(fitted.transform(X), out)
    order = np.random.default_rng(1).permutation(len(X))
    pd.testing.assert_frame_equal(fitted.transform(X.iloc[order]), out.iloc[order])
    for rows in (slice(0, 1), slice(100, 107)):
        pd.testing.assert_frame_equal(fitted.transform(X.iloc[rows]), out.iloc[rows])


def test_arrays_too_in_batches_of_any_size():
    X = numbers(200, 5)
    fitted = imputer(random_state=0).fit(X)
    whole = fitted.transform(X)
    np.testing.assert_allclose(
        np.vstack([fitted.transform(X[i : i + 67]) for i in range(0, 200, 67)]), whole, rtol=1e-12
    )


def test_rows_stay_independent_of_others_where_levels_are_rare_or_determined():
    rng = np.random.default_rng(0)
    city = rng.integers(40, size=1500)
    X = pd.DataFrame(
        {
            "city": [f"city {k}" for k in city],
            "country": [f"country {k % 5}" for k in city],
            # More levels than have a code of their own.
            "street": [f"street {k}" for k in rng.permutation(np.r_[np.arange(1200), np.zeros(300, dtype=int)])],
            "x": rng.normal(size=1500),
        }
    )
    fitted = imputer({"max_steps": 3}, sample_posterior=True).fit(X)
    X = X.mask(rng.random(X.shape) < 0.3).drop_duplicates()
    schema = fitted.generator_.schema_.set_index("column")
    assert schema.loc["country", "determined_by"] == "city" and schema.loc["street", "rare"] > 0
    out = fitted.transform(X)
    part = rng.permutation(len(X))[:400]
    pd.testing.assert_frame_equal(fitted.transform(X.iloc[part]), out.iloc[part])
    assert out.groupby("city")["country"].nunique().max() == 1


def test_equal_rows_get_one_guess_but_draws_of_their_own(penguins):
    X = penguins.head(50).copy()
    X["bill_length_mm"] = np.nan
    X = X.iloc[np.repeat(4, 30)]
    assert imputer().fit(penguins).transform(X)["bill_length_mm"].nunique() == 1
    drawn = imputer(sample_posterior=True).fit(penguins).transform(X)["bill_length_mm"]
    assert drawn.nunique() > 10


@pytest.mark.slow
def test_seeds(penguins):
    X = penguins.head(80)
    parameters = {"random_state": None}
    a, b, c = (imputer(parameters, random_state=seed).fit(X).transform(X) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)
    state = torch.random.get_rng_state()
    imputer(sample_posterior=True).fit(X).transform(X)
    assert (torch.random.get_rng_state() == state).all()


def test_streams_are_uniform_independent_and_of_each_row():
    streams = RowStreams(torch.arange(20_000))
    drawn = torch.cat([streams.spawn().uniform(2), streams.uniform(2), streams.normal(1)], dim=1)
    assert drawn[:, :4].mean(0).sub(0.5).abs().max() < 0.01 and drawn[:, :4].var(0).sub(1 / 12).abs().max() < 0.002
    assert drawn[:, 4].mean().abs() < 0.03 and drawn[:, 4].std().sub(1).abs() < 0.02
    assert (drawn.T.corrcoef() - torch.eye(5)).abs().max() < 0.03
    # A slice goes on where the whole stands, and does not move it.
    part, whole = streams[5:8].uniform(3), streams.uniform(3)
    assert (part == whole[5:8]).all()
    with pytest.raises(ValueError, match="20000 rows"):
        streams.random(3)


# ------------------------------------------------------- scikit-learn's options


def with_empty():
    X = numbers(40, 4)
    X[:, 1] = np.nan
    return X


def test_empty_columns_are_left_out_or_kept_as_simple_imputer_does():
    X = with_empty()
    rows = X[:5].copy()
    rows[0, 1] = 7.0
    with pytest.warns(UserWarning, match=r"\[1\] have no values"):
        dropped = imputer().fit(X)
    assert dropped.transform(rows).shape == (5, 3) and dropped.get_feature_names_out().tolist() == ["x0", "x2", "x3"]
    kept = imputer(keep_empty_features=True).fit(X)
    expected = SimpleImputer(keep_empty_features=True).fit(X).transform(rows)
    np.testing.assert_array_equal(kept.transform(rows)[:, 1], expected[:, 1])
    assert kept.get_feature_names_out().tolist() == ["x0", "x1", "x2", "x3"]
    with pytest.raises(ValueError, match="no value but missing"):
        imputer().fit(np.full((5, 2), np.nan))


def test_empty_columns_of_frames_hold_nought_only_if_they_can(penguins):
    X = penguins.assign(note=np.nan, when=pd.Series(pd.NaT, penguins.index))
    with pytest.warns(UserWarning, match="note"):
        out = imputer().fit_transform(X)
    assert out.columns.to_list() == penguins.columns.to_list()
    out = imputer(keep_empty_features=True).fit_transform(X.drop(columns="when"))
    assert (out["note"] == 0).all() and out["note"].dtype == np.float64
    with pytest.raises(ValueError, match=r"\['when'\] of dtypes \['datetime64"):
        imputer(keep_empty_features=True).fit(X)


def test_indicators_are_those_of_simple_imputer():
    X = numbers(40, 4)
    X[:, 2] = np.arange(40.0)
    rows = X[:6].copy()
    rows[0, 2] = np.nan
    ours, theirs = (i.fit(X) for i in (imputer(add_indicator=True), SimpleImputer(add_indicator=True)))
    np.testing.assert_array_equal(ours.transform(rows)[:, 4:], theirs.transform(rows)[:, 4:])
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    frame = ours.set_output(transform="pandas").transform(rows)
    assert frame.columns.to_list() == theirs.get_feature_names_out().tolist()


@pytest.mark.slow
def test_other_values_that_stand_for_missing(penguins):
    X = pd.DataFrame({"n": [1, -1, 3, 4] * 10, "c": pd.Categorical(["a", "b", "?", "a"] * 10), "x": np.arange(40.0)})
    out = imputer(missing_values=-1).fit_transform(X)
    assert out.dtypes.equals(X.dtypes) and out["n"].between(1, 4).all()
    np.testing.assert_array_equal(out["n"][X["n"] != -1], X["n"][X["n"] != -1])
    out = imputer(missing_values="?").fit_transform(X)
    assert out.dtypes.equals(X.dtypes) and set(out["c"]) == {"a", "b"} and (out["n"] == X["n"]).all()
    array = imputer(missing_values=-1).fit_transform(X[["n", "x"]].to_numpy())
    assert (array[:, 0] >= 1).all()
    with pytest.raises(ValueError, match="contains NaN"):
        imputer(missing_values=-1).fit(penguins)
    with pytest.raises(ValueError, match="NaN"):
        imputer(missing_values=-1).fit(numbers())
    for same in (None, pd.NA, np.nan):
        assert not np.isnan(imputer(missing_values=same).fit_transform(numbers())).any()


@pytest.mark.parametrize(
    "name",
    [
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_global_output_transform_pandas",
        "check_set_output_transform_polars",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_dataframe_column_names_consistency",
    ],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names", "ignore:X has feature names")
def test_checks_that_scikit_learn_keeps_for_its_own_transformers(name):
    if "polars" in name:
        pytest.importorskip("polars")
    getattr(checks, name)("DiffusionImputer", imputer({"max_steps": 2}))


@pytest.mark.slow
def test_in_column_transformers_pipelines_and_searches(penguins):
    X = penguins.drop(columns="body_mass_g")
    y = penguins["body_mass_g"].astype(float).fillna(4000.0)
    X, y = X.sample(frac=1, random_state=0), y.sample(frac=1, random_state=0)
    numeric, text = ["bill_length_mm", "bill_depth_mm"], ["sex", "island"]
    small = imputer({"max_steps": 5})
    model = make_pipeline(
        ColumnTransformer([("numbers", small, numeric), ("text", make_pipeline(clone(small), OneHotEncoder()), text)]),
        LinearRegression(),
    )
    grid = {"columntransformer__numbers__sample_posterior": [False, True]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    whole = make_pipeline(imputer({"max_steps": 5}), ColumnTransformer([("n", "passthrough", numeric)]))
    assert whole.set_output(transform="pandas").fit_transform(X).columns.to_list() == ["n__" + n for n in numeric]


def test_clone_and_pickle(fitted, penguins):
    again = clone(fitted)
    assert not hasattr(again, "generator_") and again.generator.max_steps == 20
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(fitted)).transform(penguins), fitted.transform(penguins))
    assert not hasattr(fitted.generator, "codec_")  # cloned, not fitted itself


def test_what_cannot_be_done_is_refused_by_name(fitted, penguins):
    X = numbers()
    for wrong, error, message in (
        (DiffusionImputer(LinearRegression()), TypeError, "generator must be a DiffusionGenerator.*LinearRegression"),
        (DiffusionImputer(DiffusionGenerator), TypeError, "the class DiffusionGenerator"),
        (imputer({"training": TrainingOptions(observed_masks=0.0)}), ValueError, "observed_masks=0.0"),
        (imputer({"denoiser": lambda n, m, k: ResidualMLP(n, m, k)}), ValueError, "callable denoiser"),
        (imputer(add_indicator="yes"), ValueError, "add_indicator must be True or False.*'yes'"),
        (imputer(sample_posterior=None), ValueError, "sample_posterior"),
        (imputer(missing_values=[1, 2]), ValueError, "single value"),
        (imputer(missing_values="?"), ValueError, "X holds numbers"),
    ):
        with pytest.raises(error, match=message):
            wrong.fit(X[~np.isnan(X).any(axis=1)])
    adata = pytest.importorskip("anndata").AnnData(np.ones((5, 2), dtype=np.float32))
    with pytest.raises(TypeError, match=r"AnnData.*to_df"):
        imputer().fit(adata)
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(penguins.rename(columns={"sex": "gender"}))


def test_a_category_that_was_not_there_in_fit_stays_and_is_told(fitted, penguins):
    X = penguins.head(20).assign(island="Atlantis", body_mass_g=pd.array([pd.NA] * 20, dtype="Int64"))
    with pytest.warns(UserWarning, match="'island' holds values that it did not have in fit, such as 'Atlantis'"):
        out = fitted.transform(X)
    assert (out["island"] == "Atlantis").all() and not out.isna().any(axis=None)
    X["island"] = pd.Categorical(X["island"])
    X.loc[3, "island"] = None
    with pytest.warns(UserWarning, match="island"):
        out = fitted.transform(X)
    assert out["island"].isin(["Biscoe", "Dream", "Torgersen", "Atlantis"]).all()


def test_a_hole_is_filled_even_where_only_holes_agree_with_the_row():
    # What is missing tells the other column, which no value of this one does.
    X = pd.DataFrame({"n": [1, None, 3, 4] * 15, "c": ["a", "b", "c", "a"] * 15, "x": np.arange(60.0)})
    fitted = imputer().fit(X)
    assert fitted.generator_.schema_["determined_by"].to_list() == [None, "n", None]
    assert fitted.transform(X)["n"].between(1, 4).all()
