"""Metrics of images: distances between features, coverage, classes and copying.

Distances between distributions of features depend on what the features are, and on how many images there are: compare
figures only where both are the same, and with the floor that real images score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.evaluation.frames import draw_rows
from tabdiff.evaluation.image_features import ClassifierFeatures, as_features
from tabdiff.evaluation.intervals import Z, bootstrap, jackknife
from tabdiff.evaluation.report import finish_scores
from tabdiff.io.images import Images, read_images
from tabdiff.utils.array_likes import read_array

__all__ = ["evaluate_images", "frechet_distance", "kernel_distance", "precision_recall"]

NEIGHBOURS = 5
# Images that intervals look at.
INTERVAL_IMAGES = 2_000


def frechet_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    r"""Squared Fréchet distance between Gaussians with the means and covariances of two sets of features.

    .. math:: \|\mu_1 - \mu_2\|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

    Over features of the Inception network it is the FID of Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
    Converge to a Local Nash Equilibrium", 2017. It falls with the number of rows.

    Parameters
    ----------
    real, synthetic : ndarray of shape (n, k) and (m, k)
        Features, at least two rows each.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[-1.0], [1.0]])
    >>> frechet_distance(x, 3 * x + 2)  # (0 - 2)² + (√2 - 3√2)²
    12.0
    """
    real, synthetic = _pair(real, synthetic)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, synthetic))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    gap = real.mean(axis=0) - synthetic.mean(axis=0)
    return round(max(float(gap @ gap + np.trace(first) + np.trace(second) - 2 * cross), 0.0), 12)


def kernel_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    r"""Squared maximum mean discrepancy of two sets of features under the kernel :math:`(x^T y / k + 1)^3`.

    Unlike the Fréchet distance its estimate is unbiased, so that it does not depend on the number of rows, and may be
    below 0. Binkowski et al., "Demystifying MMD GANs", 2018.

    Parameters
    ----------
    real, synthetic : ndarray of shape (n, k) and (m, k)
        Features, at least two rows each.

    Returns
    -------
    float
        About 0 for rows of one distribution; it may be negative.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import kernel_distance
    >>> rng = np.random.default_rng(0)
    >>> real, other = rng.normal(size=(2, 200, 4))
    >>> abs(kernel_distance(real, other)) < 0.1
    True
    """
    real, synthetic = _pair(real, synthetic)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        matrix = kernel(a, a)
        return float((matrix.sum() - np.trace(matrix)) / (len(a) * (len(a) - 1)))

    return within(real) + within(synthetic) - 2 * float(kernel(real, synthetic).mean())


def precision_recall(real: np.ndarray, synthetic: np.ndarray, *, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage, by balls about each row that reach its k-th neighbour.

    Precision is the share of synthetic rows in a ball of real rows, recall the share of real rows in a ball of
    synthetic ones (Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019). Density counts in how many balls
    of real rows a synthetic row lies, over k, and coverage the real rows whose ball holds a synthetic row (Naeem et
    al., "Reliable Fidelity and Diversity Metrics", 2020); outliers harm these less.

    Parameters
    ----------
    real, synthetic : ndarray of shape (n, k) and (m, k)
        Features.
    neighbours : int, default=5
        The number k of them.

    Returns
    -------
    dict of float
        "precision", "recall", "density", "coverage".

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import precision_recall
    >>> rng = np.random.default_rng(0)
    >>> real, other = rng.normal(size=(2, 200, 4))
    >>> precision_recall(real, other)["precision"] > 0.5
    True
    """
    real, synthetic = _pair(real, synthetic)
    if min(len(real), len(synthetic)) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more rows than {len(real)} and {len(synthetic)}.")
    radii = [NearestNeighbors(n_neighbors=neighbours).fit(x).kneighbors()[0][:, -1] for x in (real, synthetic)]
    distances = np.sqrt(np.maximum((real**2).sum(1)[:, None] + (synthetic**2).sum(1)[None] - 2 * real @ synthetic.T, 0))
    inside = distances <= radii[0][:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((distances <= radii[1][None]).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / neighbours),
        "coverage": float(inside.any(axis=1).mean()),
    }


def evaluate_images(
    real: Any,
    synthetic: Any,
    *,
    holdout: Any = None,
    labels: Mapping[str, Any] | None = None,
    features: Any = None,
    max_rows: int | None = 5_000,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Put every metric of synthetic images beside what real ones and what independent pixels score.

    Parameters
    ----------
    real, synthetic, holdout : images
        In any form that `DiffusionGenerator.fit` takes: what the generator was fitted on, what it drew, and real ones
        that it has not seen. Without a holdout, one half of `real` is compared with the other for the floor.
    labels : dict of array-like, optional
        Classes by the name of the images: ``{"real": y, "synthetic": asked_for, "holdout": y_test}``.
    features : callable, torch module, "auto" or list of them, optional
        What maps images, as an array (n, c, h, w), to features (n, k); its ``name`` identifies it in the result. A
        module is given float32 pixels in [0, 1], in evaluation mode; over an Inception network that resizes and scales
        them as its weights want it, and gives its pool features, ``frechet_distance`` is FID. "auto", the default, is a
        classifier that is trained on `real` here, or principal components of pixels without labels. A list compares by
        all: metrics of the first have their plain names, those of each other its name behind, in brackets.
    max_rows : int or None, default=5000
        Most images of each side.
    random_state : int, optional
        The same number gives the same frame.

    Returns
    -------
    scores : DataFrame
        Columns "metric", "synthetic", "floor", "independent" and "better", as of `tabdiff.evaluate`. All are compared
        with as many images of `real`. ``class_accuracy``, with labels only, is how often the classifier takes an image
        for what it was asked to be, and ``memorisation_ratio`` the median distance of pixels to the nearest image of
        `real` over that of the floor. ``scores.attrs["features"]`` says what the features are.

    Raises
    ------
    ValueError
        If sizes differ, labels have another length, or features one name.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> images = np.random.default_rng(0).random((60, 4, 4))
    >>> scores = evaluate_images(images[:40], images[40:], features=["auto", nn.AvgPool2d(2)]).set_index("metric")
    >>> list(scores.index[scores.index.str.startswith("frechet")])
    ['frechet_distance', 'frechet_distance (AvgPool2d)']
    """
    sides = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    images = {name: _read(name, value) for name, value in sides.items()}
    classes = _labels(labels, images)
    rng = np.random.default_rng(random_state)
    seed = int(rng.integers(2**31))
    train = images["real"]
    if holdout is None:
        order = rng.permutation(len(train))
        train, other = train.take(order[::2]), train.take(order[1::2])
        floor, floor_classes = other, None if "real" not in classes else classes["real"][order[1::2]]
        if "real" in classes:
            classes["real"] = classes["real"][order[::2]]
    else:
        floor, floor_classes = images["holdout"], classes.get("holdout")
    asked = features if isinstance(features, list | tuple) else [features]
    networks = {n.name: n for n in (as_features(f, train, classes.get("real"), seed) for f in asked)}
    if not networks or len(networks) < len(asked):
        raise ValueError(f"features must have names of their own; got {list(networks)}. Give each a .name.")
    judge = next((n for n in networks.values() if isinstance(n, ClassifierFeatures)), None)
    if judge is None and "real" in classes:
        judge = ClassifierFeatures(train, classes["real"], seed)

    # As many of each, for distances fall with the number alone.
    n = min(len(train), len(floor), len(images["synthetic"]), max_rows or len(train))
    reference = train.take(draw_rows(len(train), n, rng))
    independent = _independent_pixels(train.take(draw_rows(len(train), n, rng)), rng)
    places = {name: draw_rows(len(x), n, rng) for name, x in (("synthetic", images["synthetic"]), ("floor", floor))}
    compared = {
        "synthetic": (images["synthetic"].take(places["synthetic"]), classes.get("synthetic"), places["synthetic"]),
        "floor": (floor.take(places["floor"]), floor_classes, places["floor"]),
        "independent": (independent, None, np.arange(n)),
    }
    known = {name: network(reference) for name, network in networks.items()}
    codec = ImageCodec().fit(train)
    neighbours = NearestNeighbors(n_neighbors=1).fit(codec.read(train).numpy())
    columns: dict[str, dict[str, float]] = {}
    intervals: dict[str, tuple[float, float]] = {}
    nearest = {}
    for name, (side, side_classes, chosen) in compared.items():
        scores = {}
        for i, (kind, network) in enumerate(networks.items()):
            pair = known[kind], network(side)
            values = _feature_scores(*pair)
            errors = _feature_errors(*pair, rng=np.random.default_rng(seed)) if name == "synthetic" else {}
            for metric, value in values.items():
                title = metric if i == 0 else f"{metric} ({kind})"
                scores[title] = value
                if metric in errors:
                    intervals[title] = (value - Z * errors[metric], value + Z * errors[metric])
        if side_classes is not None and judge is not None:
            right = judge.predict(side) == side_classes[chosen]
            scores["class_accuracy"] = float(np.mean(right))
            if name == "synthetic":
                intervals["class_accuracy"] = bootstrap(np.mean, right.astype(float), rng=np.random.default_rng(seed))
        nearest[name] = neighbours.kneighbors(codec.read(side).numpy())[0][:, 0]
        columns[name] = scores
    usual = float(np.median(nearest["floor"]))
    for name, scores in columns.items():
        scores["memorisation_ratio"] = float(np.median(nearest[name])) / usual if usual else np.nan
    if usual:
        within = bootstrap(_ratio, nearest["synthetic"], nearest["floor"], rng=np.random.default_rng(seed))
        intervals["memorisation_ratio"] = within
    table = finish_scores(columns, intervals)
    table.attrs["features"] = "; ".join(networks)
    return table


def _ratio(ours: np.ndarray, usual: np.ndarray) -> float:
    below = float(np.median(usual))
    return float(np.median(ours)) / below if below else np.nan


def _feature_scores(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    distances = {"frechet_distance": frechet_distance(real, synthetic)}
    distances["kernel_distance"] = kernel_distance(real, synthetic)
    return distances | precision_recall(real, synthetic)


def _feature_errors(real: np.ndarray, synthetic: np.ndarray, *, rng: np.random.Generator) -> dict[str, float]:
    """Standard errors of `_feature_scores` by leaving a fifth of the images out, five times."""
    sizes = [len(real), len(synthetic)]
    if min(sizes) < 10 * NEIGHBOURS:
        return {}
    return jackknife(
        lambda a, b: _feature_scores(real[a], synthetic[b]), sizes, rng, groups=5, max_rows=INTERVAL_IMAGES
    )


def _pair(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real, synthetic = read_array(real, "real", np.float64), read_array(synthetic, "synthetic", np.float64)
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"features must have shapes (n, k) and (m, k); got {real.shape} and {synthetic.shape}.")
    if min(len(real), len(synthetic)) < 2:
        raise ValueError(f"at least two rows of each are needed; got {len(real)} and {len(synthetic)}.")
    return real, synthetic


def _read(name: str, value: Any) -> Images:
    images = read_images(value, name)
    if images is None:
        raise TypeError(f"{name} must be images as real is; got {type(value).__name__}.")
    return images


def _labels(labels: Mapping[str, Any] | None, images: dict[str, Images]) -> dict[str, np.ndarray]:
    """Return labels by name, those of folders too."""
    found = {name: np.asarray(x.classes) for name, x in images.items() if x.classes is not None}
    for name, values in (labels or {}).items():
        if name not in images:
            raise ValueError(f"labels has {name!r}, which is none of the images: {list(images)}.")
        found[name] = read_array(values, f"labels[{name!r}]")
        if found[name].shape != (len(images[name]),):
            raise ValueError(f"labels of {name!r} must have shape ({len(images[name])},); got {found[name].shape}.")
    if found and "real" not in found:
        raise ValueError("labels need those of 'real' too, from which the classifier learns.")
    return found


def _independent_pixels(images: Images, rng: np.random.Generator) -> Images:
    """Draw each value of an image from another image."""
    return Images(rng.permuted(images.array(), axis=0), images.layout)
