import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from tabdiff import evaluate
from tabdiff.evaluation import (
    ClassifierFeatures,
    evaluate_images,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images / 16 * 255).astype(np.uint8)
    return train_test_split(images, data.target, test_size=0.4, stratify=data.target, random_state=0)


# ------------------------------------------------------------ closed forms


def test_frechet_distance_of_gaussians_that_are_known():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 3))
    mean, scale = np.array([1.0, 0.0, -2.0]), np.array([2.0, 1.0, 0.5])
    y = rng.normal(size=x.shape) * scale + mean
    exact = (mean**2).sum() + ((scale - 1) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(exact, rel=0.01)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 4))
    x, y = rng.normal(size=(2, 1000, 4))
    x, y = x @ a, y @ b
    first, second = np.cov(x.T), np.cov(y.T)
    cross = np.sqrt(np.linalg.eigvals(first @ second).real).sum()
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(exact)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 50, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200) and min(same) < 0
    x, y = rng.normal(size=(2, 500, 4))
    assert kernel_distance(x, y + 1) > 10 * np.std(same)


def test_precision_falls_with_rows_elsewhere_and_recall_with_a_missing_mode():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 20])
    fresh = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 20])
    good = precision_recall(real, fresh)
    assert min(good["precision"], good["recall"], good["coverage"]) > 0.9 and 0.85 < good["density"] < 1.15
    one_mode = precision_recall(real, fresh[:300])
    assert one_mode["precision"] > 0.9 and one_mode["recall"] < 0.55 and one_mode["coverage"] < 0.55
    half_elsewhere = precision_recall(real, np.concatenate([fresh[:300], rng.normal(size=(300, 2)) - 20]))
    assert 0.4 < half_elsewhere["precision"] < 0.6
    with pytest.raises(ValueError, match="5 neighbours need more rows"):
        precision_recall(real[:5], fresh)


# ---------------------------------------------------------------- real images


@pytest.fixture(scope="module")
def classifier(digits):
    return ClassifierFeatures(digits[0], digits[2])


@pytest.mark.slow
def test_the_classifier_reads_real_digits_it_has_not_seen(digits, classifier):
    _, test, _, y_test = digits
    assert np.mean(classifier.predict(test) == y_test) > 0.97
    assert classifier(test).shape == (len(test), 64)
    assert "classifier of 10 classes, trained on 1078 real images" in classifier.name


@pytest.mark.slow
def test_the_default_features_are_a_classifier_of_the_real_images(digits):
    train, test, y_train, y_test = digits
    labels = {"real": y_train[:200], "holdout": y_test}
    one, other = (
        evaluate(train[:200], test[:100], holdout=test, labels=labels, random_state=0).to_frame() for _ in range(2)
    )
    assert "trained on 200 real images" in one.attrs["features"] and one.equals(other)
    assert one.attrs["features"] == other.attrs["features"]  # the same weights


@pytest.mark.slow
def test_better_images_score_better(digits, classifier):
    train, test, y_train, y_test = digits
    half = len(test) // 2
    real, blurred = test[:half], (test[half:] // 2 + train[: len(test) - half] // 2).astype(np.uint8)
    labels = {"real": y_train, "synthetic": y_test[:half], "holdout": y_test[half:]}
    good = evaluate(train, real, holdout=test[half:], labels=labels, features=classifier, random_state=0).to_frame()
    assert good.attrs["features"] == classifier.name
    labels["synthetic"] = y_test[half:]
    bad = evaluate(train, blurred, holdout=test[half:], labels=labels, features=classifier, random_state=0).to_frame()
    good, bad = good.set_index("metric"), bad.set_index("metric")
    assert good.loc["class_accuracy", "synthetic"] > 0.97 and good.loc["class_accuracy", "floor"] > 0.97
    for metric in ("frechet_distance", "kernel_distance"):
        assert good.loc[metric, "synthetic"] < 2 * abs(good.loc[metric, "floor"]) + 0.05 < bad.loc[metric, "synthetic"]
        assert bad.loc[metric, "synthetic"] < bad.loc[metric, "independent"]
    for metric in ("precision", "density", "coverage", "class_accuracy"):
        assert bad.loc[metric, "synthetic"] < good.loc[metric, "synthetic"]
    assert good.loc["memorisation_ratio", "synthetic"] == pytest.approx(1, abs=0.1)
    copied = evaluate_images(train, train[:half], holdout=test[half:], features=lambda x: x.reshape(len(x), -1)[:, ::5])
    assert copied.set_index("metric").loc["memorisation_ratio", "synthetic"] == 0


def test_any_features_and_no_labels(digits):
    train, test, *_ = digits

    def pooled(images):
        assert images.shape[1:] == (1, 8, 8) and images.dtype == np.uint8
        return images[:, 0, ::2, ::2].reshape(len(images), -1)

    scores = evaluate(train, test, features=pooled).to_frame()
    assert scores.attrs["features"] == "pooled" and "class_accuracy" not in set(scores["metric"])
    assert "principal components" in evaluate(train[:100], test[:100]).to_frame().attrs["features"]


class Half(nn.Module):
    """Stands where a user's Inception would: pixels in [0, 1] to features, through a layer that knows its mode."""

    def __init__(self, name=None):
        super().__init__()
        self.pool, self.drop = nn.AvgPool2d(2), nn.Dropout(0.9)
        if name is not None:
            self.name = name

    def forward(self, images):
        assert images.dtype == torch.float32 and images.shape[1:] == (1, 8, 8) and len(images) <= 128
        assert 0 <= images.min() and 0.9 < images.max() <= 1
        return [self.drop(self.pool(images))]


@pytest.mark.parametrize("form", ["bytes", "unit", "symmetric"])
def test_a_network_of_the_user_stands_beside_the_built_in_features(digits, classifier, form):
    train, test, y_train, _ = digits
    network = Half()
    network.train()
    change = {"bytes": lambda x: x, "unit": lambda x: x / 255, "symmetric": lambda x: x / 127.5 - 1}[form]
    given = {"holdout": change(test[200:]), "max_rows": 200}
    both = evaluate(change(train[:300]), change(test[:200]), features=["auto", network], **given).to_frame()
    assert network.training  # as it was
    assert both.attrs["features"].endswith("of 300 real images; Half")
    both = both.set_index("metric")
    alone = evaluate(change(train[:300]), change(test[:200]), **given).to_frame().set_index("metric")
    assert both.loc[alone.index].equals(alone)
    # FID's formula on features that are made by hand: means of four pixels.
    first, second = (x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 255 for x in (train[:200], test[:200]))
    found = evaluate(change(train[:200]), change(test[:200]), features=["auto", network], **given).to_frame()
    found = found.set_index("metric")
    assert found.loc["frechet_distance (Half)", "synthetic"] == pytest.approx(frechet_distance(first, second), rel=1e-3)
    if form == "bytes":
        labels = {"real": y_train[:300], "synthetic": np.zeros(200, int), "holdout": np.zeros(len(test) - 200, int)}
        judged = evaluate(train[:300], test[:200], labels=labels, features=[network, classifier], **given).to_frame()
        assert "class_accuracy" in set(judged["metric"]) and f"recall ({classifier.name})" in set(judged["metric"])


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"features": [Half(), Half()]}, ValueError, "names of their own"),
        ({"features": []}, ValueError, "names of their own"),
        ({"synthetic": np.zeros((9, 9, 9), np.uint8)}, ValueError, "8 × 8 pixels"),
        ({"labels": {"real": [1, 2]}}, ValueError, r"labels of 'real' must have shape \(50,\)"),
        ({"labels": {"reel": [1]}}, ValueError, "none of the images"),
        ({"labels": {"synthetic": np.zeros(50)}}, ValueError, "those of 'real' too"),
        ({"features": lambda x: x}, ValueError, r"\(n, k\)"),
        ({"target": "y"}, TypeError, "not for images"),
        ({"synthetic": np.zeros((9, 9))}, TypeError, "must be images"),
    ],
)
def test_what_cannot_be_compared_is_refused(digits, kwargs, error, message):
    given = {"real": digits[0][:50], "synthetic": digits[1][:50], **kwargs}
    with pytest.raises(error, match=message):
        evaluate(**given)
