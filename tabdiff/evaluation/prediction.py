"""How well what is learned from synthetic rows serves on real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error

from tabdiff.evaluation.classifiers import boosting, features_of
from tabdiff.evaluation.frames import check_frames, encode, is_numeric, stack

__all__ = ["Downstream", "downstream", "downstream_score"]

# HistGradientBoosting takes at most 255 levels of a category.
_MAX_NATIVE_LEVELS = 255
_N_FOLDS = 3


def downstream_score(
    train: pd.DataFrame,
    test: pd.DataFrame,
    target: Any,
    *,
    metric: Literal["auto", "auc", "r2", "rmse"] = "auto",
    random_state: int | None = 0,
) -> float:
    """Train gradient boosting on synthetic rows, test it on real ones.

    Parameters
    ----------
    train : DataFrame
        The synthetic rows (or, for the figure to compare with, the real training rows).
    test : DataFrame
        Real rows that trained nothing. Its dtypes decide what is a number.
    target : column name
        Rows where it is missing are left out.
    metric : {"auto", "auc", "r2", "rmse"}
        "auto" is the area under the ROC curve for a categorical target (mean over one-against-rest where
        there are more than two classes), and R² for a numeric one.
    random_state : int, optional
        Of the boosting; None draws afresh.

    Returns
    -------
    score : float
        Higher is better, but for "rmse".

    Raises
    ------
    ValueError
        If the target is no column, is a single class in `test`, or does not suit the metric.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import downstream_score
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> downstream_score(penguins[:170], penguins[170:], "species") > 0.9
    True
    """
    found = downstream(train, test, target, metric=metric, random_state=random_state)
    return found.rmse() if metric == "rmse" else found.score()


@dataclass(frozen=True)
class Downstream:
    """What gradient boosting learned on synthetic rows says of real ones.

    Attributes
    ----------
    numeric : bool
        Whether the target is a number.
    y : ndarray of shape (n,)
        The target of the real rows: numbers, or codes of levels.
    predicted : ndarray of shape (n,) or (n, n_classes)
        Numbers, or probabilities of `classes`.
    classes : ndarray of shape (n_classes,)
        Codes that the model knows.
    """

    numeric: bool
    y: np.ndarray
    predicted: np.ndarray
    classes: np.ndarray

    def take(self, rows: np.ndarray) -> Downstream:
        """Return the given rows, by position."""
        return Downstream(self.numeric, self.y[rows], self.predicted[rows], self.classes)

    def score(self) -> float:
        """R², or the mean one-against-rest AUC over the classes of the rows; one that was never learned scores 1/2."""
        if self.numeric:
            return float(r2_score(self.y, self.predicted))
        classes = np.unique(self.y)
        if len(self.classes) < 2:
            return 0.5
        scores = dict(zip(self.classes, self.predicted.T, strict=True))
        if len(classes) == 2:
            classes = classes[1:]
        never = np.zeros(len(self.y))
        return float(np.mean([roc_auc_score(self.y == c, scores.get(c, never)) for c in classes]))

    def rmse(self) -> float:
        """Root mean square error of a number, in its units."""
        return float(root_mean_squared_error(self.y, self.predicted))

    def calibration_error(self, bins: int = 10) -> float:
        """Expected calibration error of the likeliest class: mean distance of its probability from its frequency.

        Over ten bins of equally many rows. Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian
        Binning*, AAAI 2015.
        """
        confidence = self.predicted.max(axis=1)
        right = self.classes[self.predicted.argmax(axis=1)] == self.y
        parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
        return float(
            sum(len(p) * abs(confidence[p].mean() - right[p].mean()) for p in parts if len(p)) / len(confidence)
        )


def downstream(
    train: pd.DataFrame,
    test: pd.DataFrame,
    target: Any,
    *,
    metric: Literal["auto", "auc", "r2", "rmse"] = "auto",
    random_state: int | None = 0,
) -> Downstream:
    """Fit the model of `downstream_score`, and return what it says; see there."""
    test, train = check_frames(real=test, train=train)
    if target not in test.columns:
        raise ValueError(f"target={target!r} is no column. Columns: {list(test.columns)}.")
    numeric = is_numeric(test[target])
    allowed = ("auto", "r2", "rmse") if numeric else ("auto", "auc")
    if metric not in allowed:
        raise ValueError(
            f"metric={metric!r} does not suit the {test[target].dtype} target {target!r}; use one of {allowed}."
        )
    test, train = (frame[frame[target].notna()] for frame in (test, train))
    if test.empty or train.empty:
        raise ValueError(f"The target {target!r} is missing in every row.")
    seed = int(np.random.default_rng(random_state).integers(2**31))
    y_test, y_train = encode(test[[target]], train[[target]])
    if len(test.columns) == 1:
        X = pd.DataFrame({"constant": np.zeros(len(test) + len(train))})
    else:
        pooled = stack(*encode(test.drop(columns=target), train.drop(columns=target)))
        X = features_of(pooled, _MAX_NATIVE_LEVELS)
    X_test, X_train = X.iloc[: len(test)], X.iloc[len(test) :]
    if numeric:
        predicted = boosting("regressor", seed).fit(X_train, y_train.numeric[:, 0]).predict(X_test)
        return Downstream(True, y_test.numeric[:, 0], predicted, np.empty(0))
    codes, known = y_test.codes[:, 0], np.unique(y_train.codes[:, 0])
    if len(np.unique(codes)) < 2:
        raise ValueError(f"The target {target!r} has one class only in the test rows: no AUC is defined.")
    if len(known) < 2:
        return Downstream(False, codes, np.ones((len(codes), 1)), known)
    model = boosting("classifier", seed).fit(X_train, y_train.codes[:, 0])
    return Downstream(False, codes, model.predict_proba(X_test), model.classes_)
