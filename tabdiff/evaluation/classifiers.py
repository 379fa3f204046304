"""Metrics that train a model: can rows be told apart, and do synthetic rows teach what real ones do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tabdiff.evaluation.frames import Encoded, check_frames, draw_rows, encode, is_numeric, stack

__all__ = ["c2st", "downstream_score", "lr_c2st"]

# HistGradientBoosting takes at most 255 levels of a category.
_MAX_NATIVE_LEVELS = 255
_N_FOLDS = 3


def _features(table: Encoded, native_levels: int | None = None) -> pd.DataFrame:
    """Float and category columns for a classifier; None in place of `native_levels` means no limit."""
    columns: dict[str, Any] = {f"n{j}": table.numeric[:, j] for j in range(table.numeric.shape[1])}
    for j, n_levels in enumerate(table.n_levels):
        codes = table.codes[:, j]
        if native_levels is None or n_levels <= native_levels:
            columns[f"c{j}"] = pd.Categorical.from_codes(codes, categories=np.arange(n_levels))
        else:
            # The commonest levels as they are and the others as one; beside them the rank by frequency, which
            # sets rare levels apart. Its ties are broken at random: codes come in order of appearance, which
            # would tell real levels from synthetic ones.
            counts = np.bincount(codes[codes >= 0], minlength=n_levels)
            by_count = np.lexsort((np.random.default_rng(0).random(n_levels), -counts))
            rank = np.full(n_levels + 1, -1)  # the last entry is for the code -1
            rank[by_count] = np.arange(n_levels)
            ranks = rank[codes]
            common = pd.Categorical.from_codes(np.minimum(ranks, native_levels - 1), categories=range(native_levels))
            columns[f"c{j}"] = common
            columns[f"c{j} rank"] = np.where(ranks < 0, np.nan, ranks)
    frame = pd.DataFrame(columns)
    return frame.loc[:, frame.notna().any(axis=0)]


def _pooled(real: pd.DataFrame, synthetic: pd.DataFrame, rng: np.random.Generator) -> tuple[Encoded, np.ndarray]:
    """Real rows above as many synthetic ones, encoded, and which they are."""
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    n = min(len(real), len(synthetic))
    if n < _N_FOLDS:
        raise ValueError(f"The classifier test needs at least {_N_FOLDS} rows in each frame; the smaller has {n}.")
    a, b = (table.take(draw_rows(len(table), n, rng)) for table in encode(real, synthetic))
    return stack(a, b), np.repeat([0, 1], n)


def _two_sample_score(X: pd.DataFrame, y: np.ndarray, classifier: Callable[[], Any], seed: int) -> float:
    """1 - mean over folds of (2 max(1/2, AUC) - 1)."""
    if X.shape[1] == 0:
        return 1.0
    separations = []
    for train, test in StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed).split(X, y):
        model = classifier().fit(X.iloc[train], y[train])
        auc = roc_auc_score(y[test], model.predict_proba(X.iloc[test])[:, 1])
        separations.append(2 * max(0.5, float(auc)) - 1)
    return 1 - float(np.mean(separations))


def c2st(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    classifier: Callable[[], Any] | None = None,
    random_state: int | None = 0,
) -> float:
    r"""Classifier two-sample test: can a strong classifier tell real rows from synthetic ones.

    .. math:: 1 - \frac{1}{3} \sum_{k=1}^{3} \left( 2 \max(\tfrac12, \mathrm{AUC}_k) - 1 \right)

    over three stratified folds of as many real as synthetic rows (the larger frame is subsampled). After
    Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017, in the form of the tabular
    diffusion benchmarks.

    Parameters
    ----------
    real, synthetic : DataFrame
        `real` are the rows that the generator was fitted on, as published comparisons do.
    classifier : callable, optional
        Returns an unfitted classifier with ``predict_proba`` that accepts a DataFrame of float and
        ``category`` columns with missing values. Default: scikit-learn's HistGradientBoostingClassifier
        with native categories. For figures that compare with published "XGB-C2ST" ones: ``lambda:
        XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0)``.
    random_state : int, optional
        Of the subsample, the folds and the default classifier. None draws afresh.

    Returns
    -------
    score : float
        1: cannot be told apart; 0: always told apart. Copies of the real rows score 1 too: read it beside
        `dcr_share` and `nearest_neighbour_ratio`.
    """
    rng = np.random.default_rng(random_state)
    pooled, y = _pooled(real, synthetic, rng)
    seed = int(rng.integers(2**31))
    if classifier is not None:
        return _two_sample_score(_features(pooled), y, classifier, seed)
    return _two_sample_score(_features(pooled, _MAX_NATIVE_LEVELS), y, lambda: _boosting("classifier", seed), seed)


def lr_c2st(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> float:
    """`c2st` by logistic regression on standardised numbers, one-hot categories and flags for missing values.

    It sees means and level frequencies only, so independent columns score close to 1: a score below that
    betrays marginals that are off.
    """
    rng = np.random.default_rng(random_state)
    pooled, y = _pooled(real, synthetic, rng)
    X = _features(pooled)
    numeric = [c for c in X.columns if c.startswith("n")]
    categorical = [c for c in X.columns if c.startswith("c")]

    def logistic() -> Any:
        columns = ColumnTransformer(
            [
                (
                    "numeric",
                    make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler()),
                    numeric,
                ),
                ("categorical", OneHotEncoder(handle_unknown="ignore", min_frequency=2), categorical),
            ]
        )
        return make_pipeline(columns, LogisticRegression(max_iter=300))

    with warnings.catch_warnings():
        # 300 steps settle the AUC long before the coefficients of collinear columns settle.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _two_sample_score(X, y, logistic, int(rng.integers(2**31)))


def _boosting(kind: Literal["classifier", "regressor"], seed: int) -> Any:
    if kind == "classifier":
        return HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
    return HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=seed)


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

    Returns
    -------
    score : float
        Higher is better, but for "rmse".

    Raises
    ------
    ValueError
        If the target is no column, is a single class in `test`, or does not suit the metric.
    """
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
        X = _features(pooled, _MAX_NATIVE_LEVELS)
    X_test, X_train = X.iloc[: len(test)], X.iloc[len(test) :]
    if numeric:
        predicted = _boosting("regressor", seed).fit(X_train, y_train.numeric[:, 0]).predict(X_test)
        error = root_mean_squared_error if metric == "rmse" else r2_score
        return float(error(y_test.numeric[:, 0], predicted))
    return _downstream_auc(X_train, y_train.codes[:, 0], X_test, y_test.codes[:, 0], target, seed)


def _downstream_auc(
    X_train: pd.DataFrame,
    y_train: np.ndarray,
    X_test: pd.DataFrame,
    y_test: np.ndarray,
    target: Any,
    seed: int,
) -> float:
    """Mean one-against-rest AUC over the classes of the test rows; one never seen in training scores 1/2."""
    classes = np.unique(y_test)
    if len(classes) < 2:
        raise ValueError(f"The target {target!r} has one class only in the test rows: no AUC is defined.")
    if len(np.unique(y_train)) < 2:
        return 0.5
    model = _boosting("classifier", seed).fit(X_train, y_train)
    scores = dict(zip(model.classes_, model.predict_proba(X_test).T, strict=True))
    if len(classes) == 2:
        classes = classes[1:]
    never = np.zeros(len(y_test))
    return float(np.mean([roc_auc_score(y_test == c, scores.get(c, never)) for c in classes]))
