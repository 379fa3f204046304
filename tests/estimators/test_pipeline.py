import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, Normalizer, QuantileTransformer, StandardScaler

from tabdiff import DiffusionGenerator, sample_pipeline


def quick(**kwargs):
    return DiffusionGenerator(**{"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "random_state": 0, **kwargs})


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.lognormal([0.0, 5.0, -3.0], 0.5, size=(200, 3))


def test_rows_come_back_in_the_units_of_the_data(X):
    logarithm = FunctionTransformer(np.log, np.exp)
    inner = make_pipeline(StandardScaler(), "passthrough", PCA(3))
    pipe = make_pipeline(logarithm, inner, quick()).fit(X)
    rows = sample_pipeline(pipe, 300, random_state=0)
    assert rows.shape == (300, 3) and (rows > 0).all()
    assert np.log(np.median(rows, axis=0)) == pytest.approx([0.0, 5.0, -3.0], abs=0.4)
    # Exactly the inverses, the last step first.
    latent = pipe[-1].sample(300, random_state=0)
    np.testing.assert_array_equal(rows, np.exp(inner.inverse_transform(latent)))


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), QuantileTransformer(n_quantiles=50)], ids=str)
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_frames_keep_their_columns(X, scaler, output):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    pipe = make_pipeline(scaler, quick()).set_output(transform=output).fit(frame)
    rows = sample_pipeline(pipe, 40)
    assert isinstance(rows, pd.DataFrame) and rows.columns.to_list() == ["a", "b", "c"]
    assert rows["b"].between(0.9 * frame["b"].min(), 1.1 * frame["b"].max()).all()


def test_conditions_and_settings_reach_the_generator(X):
    y = np.where(X[:, 0] > 1, "high", "low")
    pipe = make_pipeline(StandardScaler(), quick()).fit(X, y)
    rows, labels = sample_pipeline(pipe, condition={"y": {"high": 3, "low": 2}}, return_condition=True)
    assert rows.shape == (5, 3) and labels.tolist() == ["high"] * 3 + ["low"] * 2
    settings = {"guidance_scale": 2.0, "method": "ddim", "steps": 7, "random_state": 3, "batch_size": 2}
    expected = pipe[0].inverse_transform(
        pipe[-1].sample(6, "high", guidance="cfg++", **{**settings, "guidance_scale": 1})
    )
    found = sample_pipeline(pipe, 6, "high", guidance="cfg++", **{**settings, "guidance_scale": 1})
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="Did you mean 'high'"):
        sample_pipeline(pipe, 3, "hihg")


def test_a_generator_alone_and_steps_that_do_nothing(X):
    pipe = Pipeline([("off", None), ("pass", "passthrough"), ("gen", quick())]).fit(X)
    np.testing.assert_array_equal(sample_pipeline(pipe, 5, random_state=0), pipe[-1].sample(5, random_state=0))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FunctionTransformer(np.log), "'step' is a FunctionTransformer without inverse_func"),
        (
            ColumnTransformer([("x", StandardScaler(), [0])]),
            "'step', a ColumnTransformer, has no inverse_transform.*mixed",
        ),
        (Normalizer(), "'step', a Normalizer, has no inverse_transform"),
        (Pipeline([("a", StandardScaler()), ("b", Normalizer())]), "'step__b', a Normalizer"),
    ],
    ids=["function", "columns", "normalizer", "nested"],
)
def test_the_step_that_cannot_be_inverted_is_named_before_anything_is_drawn(X, step, message):
    pipe = Pipeline([("scale", StandardScaler()), ("step", step), ("gen", quick(max_steps=2))])
    with pytest.raises(TypeError, match=message):
        sample_pipeline(pipe, 3)  # not even fitted: nothing was drawn


def test_a_function_without_effect_needs_no_inverse(X):
    pipe = make_pipeline(FunctionTransformer(), quick(max_steps=2)).fit(X)
    assert sample_pipeline(pipe).shape == (1, 3)


def test_what_is_no_pipeline_of_a_generator(X):
    with pytest.raises(TypeError, match="pipe must be a Pipeline; got DiffusionGenerator"):
        sample_pipeline(quick(), 3)
    with pytest.raises(TypeError, match="'pca', a PCA"):
        sample_pipeline(make_pipeline(StandardScaler(), PCA()), 3)
    with pytest.raises(NotFittedError):
        sample_pipeline(make_pipeline(StandardScaler(), quick()), 3)
    selected = make_pipeline(SelectKBest(k=2), quick(max_steps=2)).fit(X, X[:, 0] > 1)
    assert sample_pipeline(selected, 4).shape == (4, 3)  # what was not selected comes back as the selector has it
