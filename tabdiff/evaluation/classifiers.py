"""Metrics that train a model: can rows be told apart, and do synthetic rows teach what real ones do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler

from tabdiff.evaluation.frames import Encoded, check_frames, draw_rows, encode, stack

__all__ = [
    "TwoSample",
    "auc_variance",
    "c2st",
    "feature_frames",
    "lr_c2st",
    "lr_two_sample",
    "published_c2st",
    "published_two_sample",
    "two_sample",
]

# HistGradientBoosting takes at most 255 levels of a category.
_MAX_NATIVE_LEVELS = 255
_N_FOLDS = 3


def boosting(kind: Literal["classifier", "regressor"], seed: int) -> Any:
    """Return unfitted boosted trees that take category columns as they are."""
    if kind == "classifier":
        return HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
    return HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=seed)


def features_of(table: Encoded, native_levels: int | None = None) -> pd.DataFrame:
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


def feature_frames(*tables: Encoded) -> list[pd.DataFrame]:
    """Features of frames encoded together, for scikit-learn's gradient boosting: columns "n0", ..., "c0", ..."""
    X = features_of(stack(*tables), _MAX_NATIVE_LEVELS)
    ends = np.cumsum([0, *(len(table) for table in tables)])
    return [X.iloc[a:b] for a, b in pairwise(ends)]


def _pooled(
    real: pd.DataFrame, synthetic: pd.DataFrame, rng: np.random.Generator
) -> tuple[Encoded, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Real rows above as many synthetic ones, encoded, which they are, and their positions."""
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    n = min(len(real), len(synthetic))
    if n < _N_FOLDS:
        raise ValueError(f"The classifier test needs at least {_N_FOLDS} rows in each frame; the smaller has {n}.")
    tables = encode(real, synthetic)
    rows = (draw_rows(len(real), n, rng), draw_rows(len(synthetic), n, rng))
    a, b = (table.take(chosen) for table, chosen in zip(tables, rows, strict=True))
    return stack(a, b), np.repeat([0, 1], n), rows


@dataclass(frozen=True)
class TwoSample:
    """A classifier that tells real from synthetic rows, what it said of each row, and how well it told them.

    Attributes
    ----------
    X : DataFrame of shape (2 n, k)
        Features, those of n real rows above those of n synthetic ones.
    y : ndarray of shape (2 n,)
        0 for real, 1 for synthetic.
    rows : tuple of two ndarrays of shape (n,)
        Positions of the rows in the real and the synthetic frame.
    probability : ndarray of shape (2 n,)
        Of being synthetic, by a model that was not fitted on the row.
    models, folds : list
        The three fitted models, and the rows that each was not fitted on.
    """

    X: pd.DataFrame
    y: np.ndarray
    rows: tuple[np.ndarray, np.ndarray]
    probability: np.ndarray
    models: list[Any]
    folds: list[np.ndarray]

    @property
    def aucs(self) -> list[float]:
        """Area under the ROC curve in each fold."""
        return [float(roc_auc_score(self.y[rows], self.probability[rows])) for rows in self.folds]

    @property
    def score(self) -> float:
        """1 - mean over folds of (2 max(1/2, AUC) - 1)."""
        if not self.folds:
            return 1.0
        return 1 - float(np.mean([2 * max(0.5, auc) - 1 for auc in self.aucs]))

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Of the score, by the variance of DeLong et al. (1988) of each fold's AUC."""
        if not self.folds:
            return 1.0, 1.0
        variance = [auc_variance(self.y[rows], self.probability[rows]) for rows in self.folds]
        half = z * 2 * float(np.sqrt(np.sum(variance))) / len(self.folds)
        return max(self.score - half, 0.0), min(self.score + half, 1.0)


def auc_variance(y: np.ndarray, score: np.ndarray) -> float:
    """Variance of an area under the ROC curve.

    DeLong, DeLong and Clarke-Pearson, *Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves*, Biometrics 1988.
    """
    positive, negative = score[y == 1], score[y == 0]

    def placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        ordered = np.sort(others)
        below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
        return below / (2 * len(others))

    return sum(
        float(placements(a, b).var(ddof=1)) / len(a) if len(a) > 1 else 0.0
        for a, b in ((positive, negative), (negative, positive))
    )


def _two_sample(
    X: pd.DataFrame,
    y: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    classifier: Callable[[], Any],
    seed: int,
) -> TwoSample:
    found = TwoSample(X, y, rows, np.full(len(y), 0.5), [], [])
    if X.shape[1] == 0:
        return found
    for train, test in StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed).split(X, y):
        model = classifier().fit(X.iloc[train], y[train])
        found.probability[test] = model.predict_proba(X.iloc[test])[:, 1]
        found.models.append(model)
        found.folds.append(test)
    return found


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

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import c2st
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> c2st(real, other) > 0.5
    True
    """
    return two_sample(real, synthetic, classifier=classifier, random_state=random_state).score


def two_sample(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    classifier: Callable[[], Any] | None = None,
    random_state: int | None = 0,
) -> TwoSample:
    """Fit the classifier of `c2st`, and return what it says of each row; see there."""
    rng = np.random.default_rng(random_state)
    pooled, y, rows = _pooled(real, synthetic, rng)
    seed = int(rng.integers(2**31))
    if classifier is not None:
        return _two_sample(features_of(pooled), y, rows, classifier, seed)
    return _two_sample(features_of(pooled, _MAX_NATIVE_LEVELS), y, rows, lambda: boosting("classifier", seed), seed)


def lr_c2st(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> float:
    """Return `c2st` by logistic regression on standardised numbers, one-hot categories and flags for missing values.

    It sees means and level frequencies only, so independent columns score close to 1: a score below that
    betrays marginals that are off.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.
    random_state : int or None, default=0
        Seed of what is drawn.

    Returns
    -------
    float
        In [0, 1]; 1 is never told.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import lr_c2st
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> lr_c2st(real, other) > 0.5
    True
    """
    return lr_two_sample(real, synthetic, random_state=random_state).score


def lr_two_sample(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> TwoSample:
    """Fit the classifier of `lr_c2st`, and return what it says of each row."""
    rng = np.random.default_rng(random_state)
    pooled, y, rows = _pooled(real, synthetic, rng)
    X = features_of(pooled)
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
        return _two_sample(X, y, rows, logistic, int(rng.integers(2**31)))


def published_c2st(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    classifier: Callable[[], Any] | None = None,
    random_state: int | None = 0,
) -> float:
    """`c2st` by the pipeline of the published tables: the transform of SDMetrics before the classifier.

    Text, categories and booleans that have missing values become a 0/1 column a level of the real rows, numbers and
    dates get the real mean where they are missing, booleans are 0 and 1 (SDMetrics leaves them out, unless its metadata
    call them categorical), and all are centred by the median and scaled by the quartiles of the
    rows that the classifier is fitted on. A level that no real row has, at which SDMetrics stops, is a row of zeros.

    Parameters
    ----------
    real, synthetic : DataFrame
        All rows are used, as there: give as many of either.
    classifier : callable, optional
        Returns an unfitted classifier of arrays. Default: scikit-learn's HistGradientBoostingClassifier. Published
        "XGB-C2ST" figures are those of ``XGBClassifier(eval_metric="logloss", random_state=0)``, "LR" or "C2ST" ones
        those of ``LogisticRegression(solver="lbfgs")``.
    random_state : int, optional
        Of the folds and the default classifier.

    Returns
    -------
    score : float
        As `c2st`. One-hot columns hide rare levels and joint rules from trees, so it is mostly higher.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import published_c2st
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> published_c2st(real, other, classifier=LogisticRegression) > 0.5
    True
    """
    return published_two_sample(real, synthetic, classifier=classifier, random_state=random_state).score


def published_two_sample(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    classifier: Callable[[], Any] | None = None,
    random_state: int | None = 0,
) -> TwoSample:
    """Fit the classifier of `published_c2st`, and return what it says of each row."""
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    seed = 0 if random_state is None else random_state
    # Their order is real rows first, with the label 1.
    X = np.concatenate(_one_hot_frames(real, synthetic))
    y = np.repeat([1, 0], [len(real), len(synthetic)])

    def pipeline() -> Any:
        model = HistGradientBoostingClassifier(random_state=seed) if classifier is None else classifier()
        return make_pipeline(SimpleImputer(), RobustScaler(), model)

    rows = (np.arange(len(real)), np.arange(len(synthetic)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _two_sample(pd.DataFrame(X), y, rows, pipeline, seed)


def _one_hot_frames(real: pd.DataFrame, synthetic: pd.DataFrame) -> list[np.ndarray]:
    """The transform of SDMetrics 0.32, fitted on the real rows: arrays (n, k) of float64."""
    parts: list[list[np.ndarray]] = [[], []]
    encoded = encode(real, synthetic)
    numeric = dict(zip(encoded[0].numeric_names, range(len(encoded[0].numeric_names)), strict=True))
    for name in real.columns:
        if name in numeric:
            mean = np.nanmean(encoded[0].numeric[:, numeric[name]]) if real[name].notna().any() else 0.0
            for part, table in zip(parts, encoded, strict=True):
                values = table.numeric[:, numeric[name]]
                part.append(np.where(np.isnan(values), mean, values)[:, None])
        elif real[name].dtype == bool:
            for part, frame in zip(parts, (real, synthetic), strict=True):
                part.append(frame[name].to_numpy(dtype="float64")[:, None])
        else:
            columns = [frame[name].astype(object).where(frame[name].notna(), None) for frame in (real, synthetic)]
            text = [column.map(lambda v: v if v is None else str(v)).to_frame() for column in columns]
            encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(text[0])
            for part, column in zip(parts, text, strict=True):
                part.append(encoder.transform(column))
    return [np.hstack(part) for part in parts]
