"""The generator among scikit-learn's tools: searches, cross-validation, pipelines, routing of metadata."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from anndata import AnnData
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import tabdiff
from tabdiff import (
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
    TrainingOptions,
)
from tabdiff.datasets import load_penguins


def quick(**kwargs):
    return DiffusionGenerator(**{"max_steps": 5, "hidden_size": 16, "n_blocks": 1, "random_state": 0, **kwargs})


@pytest.fixture(scope="module")
def penguins():
    # All values of a column in each half, in any order of the rows.
    return load_penguins().dropna().sample(200, random_state=0)


@pytest.fixture(scope="module")
def numbers():
    return np.random.default_rng(0).normal(size=(80, 2))


@pytest.mark.slow
def test_searches_prefer_what_is_likelier(numbers):
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=400)
    grid = {"max_steps": [2, 400]}
    gen = quick(hidden_size=32, learning_rate=3e-3, training=TrainingOptions(ema_decay=0.95))
    search = GridSearchCV(gen, grid, cv=2, error_score="raise").fit(X)
    assert search.best_params_ == {"max_steps": 400} and search.best_estimator_.n_steps_ == 400
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"].max())
    assert search.best_estimator_.sample(3).shape == (3, 2)


@pytest.mark.slow
def test_cross_validation_scores_rows_that_were_not_seen(penguins):
    gen = quick()
    scores = cross_val_score(gen, penguins, cv=2, error_score="raise")
    half = penguins.iloc[:100], penguins.iloc[100:]
    expected = [clone(gen).fit(half[1 - i]).score(half[i]) for i in (0, 1)]
    np.testing.assert_allclose(scores, expected)
    assert np.isfinite(cross_val_score(gen, penguins.drop(columns="species"), penguins["species"], cv=2)).all()


@pytest.mark.slow
def test_pipelines_score_and_are_searched(numbers):
    pipe = make_pipeline(FunctionTransformer(), StandardScaler(), quick()).fit(numbers)
    assert pipe.score(numbers) == pytest.approx(pipe[-1].score(pipe[:-1].transform(numbers)))
    np.testing.assert_array_equal(pipe.score_samples(numbers), pipe[-1].score_samples(pipe[:-1].transform(numbers)))
    search = GridSearchCV(pipe, {"diffusiongenerator__max_steps": [2, 3]}, cv=2, error_score="raise").fit(numbers)
    assert search.best_params_["diffusiongenerator__max_steps"] in (2, 3)


def test_behind_a_column_transformer(penguins):
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), ["bill_length_mm", "bill_depth_mm"]), ("kept", "passthrough", ["sex", "year"])]
    ).set_output(transform="pandas")
    pipe = make_pipeline(columns, quick()).fit(penguins)
    rows = pipe[-1].sample(10)
    assert rows.columns.to_list() == list(columns.get_feature_names_out())
    assert rows.dtypes.equals(columns.transform(penguins).dtypes) and np.isfinite(pipe.score(penguins))


@pytest.mark.slow
def test_conditions_are_routed(numbers):
    y = np.where(numbers[:, 0] > 0, "right", "left")
    with sklearn.config_context(enable_metadata_routing=True):
        gen = quick().set_fit_request(condition=True).set_score_request(condition=True)
        pipe = make_pipeline(StandardScaler(), gen).fit(numbers, condition=y)
        assert pipe[-1].conditions_.attributes[0].levels == ["left", "right"]
        assert pipe.score(numbers, condition=y) == pytest.approx(
            pipe[-1].score(pipe[0].transform(numbers), condition=y)
        )
        scores = cross_val_score(gen, numbers, params={"condition": y}, cv=2, error_score="raise")
        half = slice(0, 40), slice(40, 80)
        first = clone(gen).fit(numbers[half[1]], condition=y[half[1]]).score(numbers[half[0]], condition=y[half[0]])
        assert scores[0] == pytest.approx(first)
        search = GridSearchCV(gen, {"max_steps": [2, 3]}, cv=2, error_score="raise").fit(numbers, condition=y)
        assert search.best_estimator_.conditions_.names == ["condition"]
        with pytest.raises(ValueError, match="condition"):
            cross_val_score(quick(), numbers, params={"condition": y}, cv=2, error_score="raise")


def test_weights_of_the_score_are_routed(numbers):
    weights = np.linspace(0, 1, 80)
    with sklearn.config_context(enable_metadata_routing=True):
        gen = quick().set_score_request(sample_weight=True)
        pipe = make_pipeline(StandardScaler(), gen).fit(numbers)
        expected = np.average(pipe.score_samples(numbers), weights=weights)
        assert pipe.score(numbers, sample_weight=weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    "estimator",
    [DiffusionGenerator, DiffusionImputer, DiffusionOutlierDetector, DiffusionOverSampler],
)
def test_parameters_are_seen_through_and_kept_by_clone_and_pickle(estimator, penguins):
    made = quick() if estimator is DiffusionGenerator else estimator(quick())
    name = "max_steps" if estimator is DiffusionGenerator else "generator__max_steps"
    made.set_params(**{name: 3})
    for copied in (clone(made), pickle.loads(pickle.dumps(made))):
        assert copied.get_params()[name] == 3 and copied is not made
    X, y = penguins.drop(columns="species"), penguins["species"]
    before = X.copy(), y.copy()
    made.fit(X, y) if estimator is DiffusionOverSampler else made.fit(X)
    pd.testing.assert_frame_equal(X, before[0])
    pd.testing.assert_series_equal(y, before[1])
    inner = made if estimator is DiffusionGenerator else made.generator_
    assert inner.n_steps_ == 3
    assert made.n_features_in_ == 7 and made.feature_names_in_.tolist() == X.columns.to_list()


def test_all_that_is_public_can_be_imported_by_name():
    for name in tabdiff.__all__:
        assert getattr(tabdiff, name).__doc__ and name in dir(tabdiff)


@pytest.mark.slow
def test_cells_are_cross_validated_and_searched():
    rng = np.random.default_rng(0)
    kind = rng.choice(["B", "T"], 60)
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(np.where(kind == "B", 1.0, 6.0)[:, None], (60, 8)).astype(np.int32)),
        obs=pd.DataFrame({"type": pd.Categorical(kind)}, index=[f"c{i}" for i in range(60)]),
    )

    def like_the_held_out(gen, X, y=None):
        drawn = gen.sample(50, steps=2, random_state=0)
        return -np.abs(np.log1p(drawn.X.mean(axis=0)) - np.log1p(X.X.mean(axis=0))).mean()

    # The likelihood of cells is not available, so what is better is for the caller to say.
    gen = quick(max_time=1.0)
    settings = {"scoring": like_the_held_out, "cv": 2, "error_score": "raise"}
    assert np.isfinite(cross_val_score(gen, adata, **settings)).all()
    assert np.isfinite(cross_val_score(gen, adata, adata.obs["type"], **settings)).all()
    search = GridSearchCV(gen, {"max_steps": [2, 3]}, **settings).fit(adata)
    assert search.best_estimator_.sample(4, steps=2, random_state=0).shape == (4, 8)
