import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from tabdiff.utils import trees
from tabdiff.utils.trees import CompiledForest, DeviceForest, leaves


@pytest.fixture(scope="module")
def forest():
    """Trees of scikit-learn on rows with missing values, their parts, and new rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 5))
    X[rng.random(X.shape) < 0.2] = np.nan
    y = (np.nan_to_num(X[:, 0]) * np.nan_to_num(X[:, 1]) + np.isnan(X[:, 2]) > 0.3).astype(int)
    model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0).fit(X, y)
    stages = [stage[0].nodes for stage in model._predictors]
    width = max(map(len, stages))
    here = np.arange(width)

    def table(name, leaf):
        rows = []
        for nodes in stages:
            values = np.where(nodes["is_leaf"], leaf[: len(nodes)], nodes[name])
            rows.append(np.concatenate([values, leaf[len(nodes) :]]))
        return np.stack(rows)

    zero = np.zeros(width)
    value = np.stack([np.pad(nodes["value"], (0, width - len(nodes))) for nodes in stages])
    parts = (
        table("feature_idx", zero).astype(int),
        table("num_threshold", zero),
        np.stack([table("left", here), table("right", here)], axis=2).astype(int),
        table("missing_go_to_left", zero).astype(bool),
        value,
        [int(nodes["depth"].max()) for nodes in stages],
    )
    return model, parts, np.vstack([X[:1000], rng.normal(size=(1000, 5))])


def test_a_forest_on_a_device_gives_the_sums_of_scikit_learn(forest):
    model, parts, X = forest
    baseline = float(np.ravel(model._baseline_prediction)[0])
    sums = DeviceForest(*parts, "cpu")(X)
    np.testing.assert_allclose(baseline + sums, model.decision_function(X), rtol=1e-12, atol=1e-12)


def test_it_takes_many_rows_some_at_a_time_and_none_too(forest, monkeypatch):
    _, parts, X = forest
    whole = DeviceForest(*parts, "cpu")(X)
    monkeypatch.setattr(trees, "PLACES", 40 * 7)
    assert np.array_equal(DeviceForest(*parts, "cpu")(X), whole)
    assert DeviceForest(*parts, "cpu")(X[:0]).shape == (0,)


def test_the_compiled_forest_gives_what_leaves_give_exactly(forest):
    model, parts, X = forest
    compiled = CompiledForest.build(*parts)
    assert compiled is not None  # this version of scikit-learn has what it needs
    wanted = np.zeros(len(X))
    for *nodes, value, depth in zip(*parts):
        wanted += value.take(leaves(X, *nodes, depth))
    assert np.array_equal(compiled.add(X, np.zeros(len(X))), wanted)
    baseline = float(np.ravel(model._baseline_prediction)[0])
    np.testing.assert_allclose(baseline + wanted, model.decision_function(X), rtol=1e-12, atol=1e-12)
    assert compiled.add(X[:0], np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("fault", ["missing", "signature", "result"])
def test_no_compiled_forest_where_scikit_learn_has_another(forest, monkeypatch, fault):
    from sklearn.ensemble._hist_gradient_boosting import predictor

    class Other:
        def __init__(self, nodes, *_):
            self.nodes = nodes

        def predict(self, X, *_):
            return np.ones(len(X))

    class Changed(Other):
        def predict(self, X):
            return np.ones(len(X))

    if fault == "missing":
        monkeypatch.delattr(predictor, "TreePredictor")
    else:
        monkeypatch.setattr(predictor, "TreePredictor", Other if fault == "result" else Changed)
    assert CompiledForest.build(*forest[1]) is None


@pytest.mark.cuda
def test_a_gpu_gives_the_same_sums(forest):
    _, parts, X = forest
    np.testing.assert_allclose(DeviceForest(*parts, "cuda")(X), DeviceForest(*parts, "cpu")(X), rtol=1e-12, atol=1e-12)
