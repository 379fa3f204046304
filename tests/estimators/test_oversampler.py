import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from tabdiff import DiffusionGenerator, DiffusionOverSampler, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.estimators.oversampler import read_strategy

QUICK = {"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "random_state": 0}


def sampler(parameters=None, **kwargs):
    return DiffusionOverSampler(DiffusionGenerator(**{**QUICK, **(parameters or {})}), **kwargs)


@pytest.fixture(scope="module")
def penguins():
    X = load_penguins()
    return X, X.pop("species")


def imbalanced(n=120, dtype=np.float64):
    rng = np.random.default_rng(0)
    y = np.where(rng.random(n) < 0.2, 1, 0)
    y[:2] = [0, 1]
    return (rng.normal(size=(n, 2)) + 3 * y[:, None]).astype(dtype), y


# ------------------------------------------------------------------- strategies


LABELS = np.array(["a"] * 50 + ["b"] * 30 + ["c"] * 20)
BINARY = np.array([0] * 60 + [1] * 20)


@pytest.mark.parametrize(
    ("strategy", "labels", "expected"),
    [
        ("auto", LABELS, {"b": 20, "c": 30}),
        ("not majority", LABELS, {"b": 20, "c": 30}),
        ("minority", LABELS, {"c": 30}),
        ("not minority", LABELS, {"a": 0, "b": 20}),
        ("all", LABELS, {"a": 0, "b": 20, "c": 30}),
        ({"c": 25, "a": 50}, LABELS, {"a": 0, "c": 5}),
        (lambda y: {"b": len(y)}, LABELS, {"b": 70}),
        (0.5, BINARY, {1: 10}),
        (1, BINARY, {1: 40}),
        (0.4, BINARY, {1: 4}),
        ("auto", np.array([1, 1, 0, 0]), {1: 0}),
    ],
    ids=lambda part: "" if isinstance(part, np.ndarray) else "callable" if callable(part) else str(part),
)
def test_strategies_mean_what_they_mean_to_imbalanced_learn(strategy, labels, expected):
    found = read_strategy(strategy, labels, labels)
    assert found == expected
    imblearn = pytest.importorskip("imblearn.utils")
    assert dict(imblearn.check_sampling_strategy(strategy, labels, "over-sampling")) == found


@pytest.mark.parametrize(
    ("strategy", "labels", "message"),
    [
        ("majority", LABELS, r"must be one of \('auto', .*got 'majority'"),
        (0.5, LABELS, "ratio of two classes, but y has 3"),
        (0.2, BINARY, "asks for 12 rows of 1, but there are 20 already, a ratio of 0.333"),
        (1.5, BINARY, r"number in \(0, 1\]"),
        (True, BINARY, "True"),
        (float("nan"), BINARY, "nan"),
        ({"a": 49}, LABELS, "asks for 49 rows of 'a', but there are 50 already"),
        ({"d": 49}, LABELS, "names the class 'd', which y lacks"),
        ({"a": 60.0}, LABELS, "must be an integer; got 60.0"),
        (None, LABELS, "None"),
    ],
    ids=str,
)
def test_what_no_strategy_is(strategy, labels, message):
    with pytest.raises(ValueError, match=message):
        read_strategy(strategy, labels, labels)
    with pytest.raises(TypeError, match="must return a dict"):
        read_strategy(lambda y: "auto", labels, labels)


# --------------------------------------------------------------------- resampling


def test_originals_come_first_and_everything_keeps_its_kind(penguins):
    X, y = penguins
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X.iloc[order], y.iloc[order]
    before = X.copy(), y.copy()
    more, labels = sampler().fit_resample(X, y)
    pd.testing.assert_frame_equal(X, before[0])
    pd.testing.assert_series_equal(y, before[1])
    pd.testing.assert_frame_equal(more.head(len(X)), X.reset_index(drop=True))
    pd.testing.assert_series_equal(labels.head(len(y)), y.reset_index(drop=True))
    assert more.dtypes.equals(X.dtypes) and labels.dtype == y.dtype and labels.name == "species"
    assert labels.value_counts().to_dict() == {"Adelie": 152, "Gentoo": 152, "Chinstrap": 152}
    new = more.iloc[len(X) :]
    assert len(more) == len(labels) == 3 * 152 and new["island"].isin(X["island"].unique()).all()
    assert not new.merge(X).shape[0] == len(new)


@pytest.mark.slow
def test_rows_of_a_class_are_like_that_class():
    X, y = imbalanced(600)
    parameters = {
        "max_steps": 400,
        "hidden_size": 64,
        "n_blocks": 2,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.98),
    }
    more, labels = sampler(parameters).fit_resample(X, y)
    new = more[600:]
    assert (labels[600:] == 1).all() and (labels == 1).sum() == (y == 0).sum()
    assert new.mean(axis=0) == pytest.approx([3, 3], abs=0.4) and np.std(new, axis=0) == pytest.approx([1, 1], rel=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_arrays_and_lists(dtype):
    X, y = imbalanced(dtype=dtype)
    more, labels = sampler().fit_resample(X, y)
    assert more.dtype == dtype and labels.dtype == y.dtype and np.bincount(labels).std() == 0
    np.testing.assert_array_equal(more[: len(X)], X)
    as_lists = sampler().fit_resample(X.tolist(), y.tolist())
    assert isinstance(as_lists[0], list) and isinstance(as_lists[1], list) and len(as_lists[0]) == len(more)


@pytest.mark.parametrize(
    "labels",
    [[False, True], [0.0, 1.0], ["no", "yes"], pd.Categorical(["low", "high"], ["low", "high", "never"], ordered=True)],
    ids=["bool", "float", "str", "category"],
)
def test_labels_of_any_kind(labels):
    X, y = imbalanced(60)
    y = pd.Series(np.array(labels)[y] if isinstance(labels, list) else labels.take(y), name="label")
    more, out = sampler().fit_resample(X, y)
    assert out.dtype == y.dtype and out.value_counts()[y.unique()].nunique() == 1 and len(more) == len(out)
    frame = sampler().fit_resample(X, y.to_frame())[1]
    pd.testing.assert_frame_equal(frame, out.to_frame())


def test_many_integer_classes_are_classes_still():
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(30), np.arange(30), np.arange(15)])
    more, labels = sampler({"max_steps": 3}).fit_resample(rng.normal(size=(75, 2)), y)
    assert (np.bincount(labels) == 3).all() and len(more) == 90


def test_frames_of_other_libraries():
    pl = pytest.importorskip("polars")
    X, y = imbalanced(60)
    frame = pl.DataFrame({"a": X[:, 0], "b": [("u", "v", None)[k % 3] for k in range(60)]})
    more, labels = sampler().fit_resample(frame, pl.Series("y", y))
    assert isinstance(more, pl.DataFrame) and more.schema == frame.schema and more.head(60).equals(frame)
    assert isinstance(labels, pl.Series) and labels.name == "y" and labels.value_counts()["count"].n_unique() == 1


def test_balanced_classes_come_back_as_a_copy():
    X, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    fitted = sampler()
    more, labels = fitted.fit_resample(X, y)
    np.testing.assert_array_equal(more, X)
    assert more is not X and labels is not y and fitted.generator_ is None


def test_seeds_clone_and_pickle():
    X, y = imbalanced(60)
    a, b, c = (sampler({"random_state": None}, random_state=seed).fit_resample(X, y)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    fitted = sampler().fit(X, y)
    assert not hasattr(clone(fitted), "generator_") and not hasattr(fitted.generator, "codec_")
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(fitted)).fit_resample(X, y)[0], sampler().fit_resample(X, y)[0]
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 1, 60) ** 2, r"Unknown label type: continuous.*pandas.qcut"),
        (["a"] * 60, "one class only, 'a'"),
        (["a"] * 59 + [None], "1 missing values"),
        (["a"] * 30 + [1] * 30, "of one type; got .'int', 'str'"),
        (np.eye(2)[[0, 1] * 30], "single column of classes; got 2 columns"),
        ([0, 1], "inconsistent numbers of samples"),
        (None, "y to be passed"),
    ],
    ids=["continuous", "one", "missing", "mixed", "two columns", "short", "none"],
)
def test_targets_that_cannot_be_balanced(y, message):
    with pytest.raises(ValueError, match=message):
        sampler().fit_resample(imbalanced(60)[0], y)


def test_rows_and_labels_in_another_order_are_refused(penguins):
    X, y = penguins
    with pytest.raises(ValueError, match="same row labels in a different order"):
        sampler().fit_resample(X, y.iloc[::-1])
    adata = pytest.importorskip("anndata").AnnData(np.ones((5, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="AnnData"):
        sampler().fit_resample(adata, [0, 0, 0, 1, 1])


# ------------------------------------------------------------------ imbalanced-learn


def test_in_a_pipeline_of_imbalanced_learn():
    pipeline = pytest.importorskip("imblearn.pipeline")
    X, y = imbalanced(150)
    pipe = pipeline.make_pipeline(sampler({"max_steps": 5}), LogisticRegression())
    pipe.fit(X, y)
    # Rows are added in fitting alone.
    assert pipe.predict(X).shape == y.shape and pipe.score(X, y) > 0.8
    assert (pipe[-1].intercept_ > LogisticRegression().fit(X, y).intercept_).all()
    grid = {"diffusionoversampler__sampling_strategy": ["auto", 0.5]}
    search = GridSearchCV(pipe, grid, cv=2, scoring="balanced_accuracy", error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.slow
def test_without_imbalanced_learn():
    code = (
        "import sys; sys.modules['imblearn'] = None\n"
        "import numpy as np\n"
        "from tabdiff import DiffusionGenerator, DiffusionOverSampler\n"
        "X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 5 // 4\n"
        "gen = DiffusionGenerator(max_steps=2, hidden_size=16, n_blocks=1)\n"
        "print(len(DiffusionOverSampler(gen).fit_resample(X, y)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "48", done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "check_target_type",
        "check_samplers_one_label",
        "check_samplers_fit",
        "check_samplers_fit_resample",
        "check_samplers_sampling_strategy_fit_resample",
        "check_samplers_nan",
        "check_samplers_list",
        "check_samplers_preserve_dtype",
        "check_samplers_2d_target",
        "check_sampler_get_feature_names_out",
        "check_sampler_get_feature_names_out_pandas",
    ],
)
def test_checks_of_imbalanced_learn(name):
    # Of those for its own samplers, the others ask for one-hot targets, rows by index and tags that only these have.
    checks = pytest.importorskip("imblearn.utils.estimator_checks")
    getattr(checks, name)("DiffusionOverSampler", sampler({"max_steps": 2}))
