"""Dependence beyond pairs and correlations: three columns at a time, mutual information, every column from the others.

All of it is on coarse codes: numbers in bins that hold equally many real rows, the commonest levels of categories with
the others in one, missing values apart.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

from tabdiff.evaluation.classifiers import feature_frames
from tabdiff.evaluation.frames import Encoded, check_frames, draw_rows, encode

__all__ = [
    "coarse_codes",
    "column_utilities",
    "global_utility",
    "missing_patterns",
    "mutual_information",
    "pattern_error",
    "triple_errors",
    "trivariate_error",
    "wnmis",
]

# Bins of a number and levels of a category in tables of three columns, and in mutual information.
TRIPLE_BINS, PAIR_BINS = 4, 10
MAX_TRIPLES = 300
# Of `global_utility`: columns that are predicted, rows that train and that test, and iterations of boosting.
MAX_TARGETS, MAX_ROWS, ITERATIONS = 16, 4_000, 40
# A category is predicted where it has at most so many levels that are not rare.
MAX_CLASSES, MIN_CLASS = 8, 10


def coarse_codes(encoded: list[Encoded], bins: int) -> list[np.ndarray]:
    """Codes (n, n_columns) from 0 to `bins` + 1 of frames encoded together, as the first one's values lie.

    Columns come in the order numbers, categories. 0 is missing; of a category, the last code holds all rare levels.
    """
    first = encoded[0]
    out = [np.zeros((len(e), first.numeric.shape[1] + first.codes.shape[1]), dtype=np.int64) for e in encoded]
    for j, column in enumerate(first.numeric.T):
        observed = column[~np.isnan(column)]
        edges = np.unique(np.quantile(observed, np.linspace(0, 1, bins + 1)[1:-1])) if len(observed) else np.empty(0)
        for codes, e in zip(out, encoded, strict=True):
            values = e.numeric[:, j]
            # A value that fills whole bins has one of its own: below the edge, at it, above it.
            place = np.searchsorted(edges, values, side="right")
            codes[:, j] = np.where(np.isnan(values), 0, place + 1)
    for j, n_levels in enumerate(first.n_levels):
        counts = np.bincount(first.codes[first.codes[:, j] >= 0, j], minlength=n_levels)
        table = np.full(n_levels + 1, bins + 1)
        common = np.argsort(-counts, kind="stable")[:bins]
        table[common] = np.arange(len(common)) + 1
        table[-1] = 0
        for codes, e in zip(out, encoded, strict=True):
            codes[:, first.numeric.shape[1] + j] = table[e.codes[:, j]]
    return out


def _names(encoded: Encoded) -> list[Any]:
    return [*encoded.numeric_names, *encoded.categorical_names]


def triple_errors(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, max_triples: int = MAX_TRIPLES, random_state: int | None = 0
) -> pd.DataFrame:
    """Compare the joint distribution of three columns at a time.

    Total variation distance of the contingency tables, numbers in four bins that hold equally many real rows, of
    categories the four commonest levels and the others.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.
    max_triples : int, default=300
        Where there are more, so many are drawn.
    random_state : int, optional
        Of the triples that are drawn.

    Returns
    -------
    errors : DataFrame
        Columns "first", "second", "third" and "error" in percent, largest first; empty for fewer than three columns.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tabdiff.evaluation import triple_errors
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.integers(0, 2, (2, 1000))
    >>> real = pd.DataFrame({"a": a, "b": b, "c": a ^ b})  # each two columns are independent, the three are not
    >>> synthetic = real.assign(c=rng.permutation(real["c"]))
    >>> triple_errors(real, synthetic).round()
      first second third  error
    0     a      b     c   51.0
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    encoded = encode(real, synthetic)
    a, b = coarse_codes(encoded, TRIPLE_BINS)
    return _triple_errors(a, b, _names(encoded[0]), max_triples, random_state)


def _triple_errors(
    a: np.ndarray, b: np.ndarray, names: list[Any], max_triples: int, random_state: int | None
) -> pd.DataFrame:
    d, size = a.shape[1], TRIPLE_BINS + 2
    n_triples = d * (d - 1) * (d - 2) // 6
    if n_triples <= max_triples:
        triples = list(combinations(range(d), 3))
    else:
        rng = np.random.default_rng(random_state)
        drawn = {tuple(sorted(rng.choice(d, 3, replace=False).tolist())) for _ in range(3 * max_triples)}
        triples = sorted(drawn)[:: max(1, len(drawn) // max_triples)][:max_triples]
    rows = []
    for i, j, k in triples:
        p, q = (
            np.bincount((x[:, i] * size + x[:, j]) * size + x[:, k], minlength=size**3) / max(len(x), 1) for x in (a, b)
        )
        rows.append((names[i], names[j], names[k], 50 * float(np.abs(p - q).sum())))
    table = pd.DataFrame(rows, columns=["first", "second", "third", "error"])
    return table.sort_values("error", ascending=False, ignore_index=True)


def trivariate_error(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> float:
    """Average `triple_errors`: how far the joint distributions of three columns are from the real ones.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.
    random_state : int, optional
        Of the triples that are drawn, where there are more than 300.

    Returns
    -------
    error : float
        Percent, in [0, 100], lower is better; NaN for fewer than three columns.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tabdiff.evaluation import trivariate_error
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.integers(0, 2, (2, 1000))
    >>> real = pd.DataFrame({"a": a, "b": b, "c": a ^ b})  # each two columns are independent, the three are not
    >>> synthetic = real.assign(c=rng.permutation(real["c"]))
    >>> round(trivariate_error(real, synthetic)), trivariate_error(real, real)
    (51, 0.0)
    """
    errors = triple_errors(real, synthetic, random_state=random_state)["error"]
    return float(errors.mean()) if len(errors) else float("nan")


def mutual_information(codes: np.ndarray) -> np.ndarray:
    """Normalised mutual information of each two columns of codes (n, d), in [0, 1]; 0 for a constant column.

    Normalised by the mean of the two entropies, which is the symmetric uncertainty of Witten and Frank.
    """
    n, d = codes.shape
    size = int(codes.max(initial=0)) + 1

    def entropy(joint: np.ndarray, length: int) -> float:
        p = np.bincount(joint, minlength=length) / n
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    single = [entropy(codes[:, j], size) for j in range(d)]
    out = np.zeros((d, d))
    for i, j in combinations(range(d), 2):
        total = single[i] + single[j]
        if min(single[i], single[j]) > 0:
            shared = total - entropy(codes[:, i] * size + codes[:, j], size**2)
            out[i, j] = out[j, i] = min(max(2 * shared / total, 0.0), 1.0)
    return out


def wnmis(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    r"""Weighted similarity of normalised mutual information: are the strong dependences there.

    .. math:: 1 - \sum_{i<j} w_{ij} |I_{ij} - \hat I_{ij}| / \sum_{i<j} w_{ij}, \quad w_{ij} = \max(I_{ij}, \hat I_{ij})

    with :math:`I` the normalised mutual information of two columns of real rows and :math:`\hat I` that of synthetic
    ones, numbers in ten bins that hold equally many real rows. The weights keep the many pairs that are independent on
    both sides from hiding the few that matter.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.

    Returns
    -------
    score : float
        In [0, 1], 1 is best; 1 where no two columns depend on each other; NaN for a single column.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import independent_columns, wnmis
    >>> penguins = load_penguins()
    >>> wnmis(penguins, penguins), wnmis(penguins, independent_columns(penguins)) < 0.9
    (1.0, True)
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    return _wnmis(*coarse_codes(encode(real, synthetic), PAIR_BINS))


def _wnmis(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape[1] < 2:
        return float("nan")
    above = np.triu_indices(a.shape[1], 1)
    of_real, of_synthetic = mutual_information(a)[above], mutual_information(b)[above]
    weight = np.maximum(of_real, of_synthetic)
    return 1 - float((weight * np.abs(of_real - of_synthetic)).sum() / weight.sum()) if weight.sum() > 0 else 1.0


def missing_patterns(real: pd.DataFrame, synthetic: pd.DataFrame, *, most: int = 20) -> pd.DataFrame:
    """Count the patterns of missing values: which columns are missing together in a row.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.
    most : int, default=20
        Patterns that are listed at most.

    Returns
    -------
    patterns : DataFrame
        Columns "missing" (the names, joined), "real" and "synthetic" (percent of the rows), the largest difference
        first; a row with no missing value has the pattern "nothing".

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import pandas as pd
    >>> from tabdiff.evaluation import missing_patterns
    >>> real = pd.DataFrame({"a": [1.0, None, 2.0, 3.0], "b": [4.0, None, 5.0, 6.0]})
    >>> synthetic = pd.DataFrame({"a": [1.0, None, 2.0, 3.0], "b": [4.0, 5.0, None, 6.0]})
    >>> missing_patterns(real, synthetic)
       missing  real  synthetic
    0  nothing  75.0       50.0
    1        b   0.0       25.0
    2        a   0.0       25.0
    3     a, b  25.0        0.0
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    table = _pattern_shares(real, synthetic)
    order = (table["real"] - table["synthetic"]).abs().sort_values(ascending=False, kind="stable").index[:most]
    return table.loc[order].reset_index(drop=True)


def _pattern_shares(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.DataFrame:
    is_missing = [frame.isna().to_numpy() for frame in (real, synthetic)]
    some = np.vstack(is_missing).any(axis=0)
    both = np.vstack([h[:, some] for h in is_missing])
    patterns, inverse = np.unique(both, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    names = [str(c) for c in real.columns[some]]
    shares = [
        100 * np.bincount(part, minlength=len(patterns)) / len(part)
        for part in (inverse[: len(real)], inverse[len(real) :])
    ]
    text = [", ".join(n for n, absent in zip(names, p, strict=True) if absent) or "nothing" for p in patterns]
    return pd.DataFrame({"missing": text, "real": shares[0], "synthetic": shares[1]})


def pattern_error(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    """Total variation distance of the patterns of missing values, which `missing_patterns` lists.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.

    Returns
    -------
    error : float
        Percent, in [0, 100], lower is better; 0 where no value is missing.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import pandas as pd
    >>> from tabdiff.evaluation import pattern_error
    >>> real = pd.DataFrame({"a": [1.0, None, 2.0, 3.0], "b": [4.0, None, 5.0, 6.0]})
    >>> synthetic = pd.DataFrame({"a": [1.0, None, 2.0, 3.0], "b": [4.0, 5.0, None, 6.0]})
    >>> pattern_error(real, synthetic)  # as many are missing, but not together
    50.0
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    table = _pattern_shares(real, synthetic)
    return float((table["real"] - table["synthetic"]).abs().sum() / 2)


def column_utilities(
    train: pd.DataFrame, test: pd.DataFrame, *, max_rows: int = MAX_ROWS, random_state: int | None = 0
) -> pd.Series:
    """Predict every column from all others, trained on synthetic rows and tested on real ones.

    By gradient boosting. A number scores R², a category 2 AUC - 1 (mean over one-against-rest of its levels that are
    not rare); less than 0 counts as 0. Jiang et al., *TabStruct: Measuring Structural Fidelity of Tabular Data*, 2025.

    Parameters
    ----------
    train : DataFrame of shape (n, n_columns)
        Synthetic rows.
    test : DataFrame of shape (m, n_columns)
        Real rows with the same columns.
    max_rows : int, default=4000
        Most rows of each that are used.
    random_state : int, optional
        Of the rows that are drawn, and of the columns, where there are more than 16.

    Returns
    -------
    scores : Series of float, index the columns that were predicted
        In [0, 1], higher is better. Left out are columns of a single value, and those with fewer than ten numbers or of
        which no level has ten rows.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tabdiff.evaluation import column_utilities
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=400)
    >>> table = pd.DataFrame({"x": x, "twice": 2 * x, "noise": rng.normal(size=400)})
    >>> column_utilities(table[:200], table[200:]).round(1).to_dict()
    {'x': 1.0, 'twice': 1.0, 'noise': 0.0}
    """
    test, train = check_frames(real=test, train=train)
    # Which columns: a function of the test rows alone, so that several synthetic frames are compared on the same.
    chosen = _targets(test, random_state)
    rng = np.random.default_rng(random_state)
    test = test.iloc[draw_rows(len(test), max_rows, rng)]
    train = train.iloc[draw_rows(len(train), max_rows, rng)]
    encoded = encode(test, train)
    X_test, X_train = feature_frames(*encoded)
    seed = int(rng.integers(2**31))
    scores = {}
    numbers, categories = encoded[0].numeric_names, encoded[0].categorical_names
    for name in chosen:
        kind, j = ("n", numbers.index(name)) if name in numbers else ("c", categories.index(name))
        own = [c for c in X_test.columns if c.split(" ")[0] == f"{kind}{j}"]
        inputs = (X_train.drop(columns=own), X_test.drop(columns=own))
        if inputs[0].shape[1] == 0:
            continue
        y_train, y_test = (e.numeric[:, j] if kind == "n" else e.codes[:, j] for e in (encoded[1], encoded[0]))
        utility = _number_utility if kind == "n" else _category_utility
        score = utility(inputs[0], inputs[1], y_train, y_test, seed)
        if score is not None:
            scores[name] = max(score, 0.0)
    return pd.Series(scores, dtype="float64", name="utility")


def _targets(test: pd.DataFrame, random_state: int | None) -> list[Any]:
    varied = [c for c in test.columns if test[c].nunique() > 1]
    chosen = draw_rows(len(varied), MAX_TARGETS, np.random.default_rng(random_state))
    return [varied[i] for i in chosen]


def _number_utility(
    X_train: pd.DataFrame, X_test: pd.DataFrame, y_train: np.ndarray, y_test: np.ndarray, seed: int
) -> float | None:
    known, tested = ~np.isnan(y_train), ~np.isnan(y_test)
    if tested.sum() < MIN_CLASS or np.ptp(y_test[tested]) == 0:
        return None
    if known.sum() < MIN_CLASS:
        return 0.0
    # Heavy tails would make R² a matter of a few rows: scored on ranks within the test rows.
    order = np.sort(y_test[tested])
    scale = [
        np.searchsorted(order, v, side="left") + np.searchsorted(order, v, side="right") for v in (y_train, y_test)
    ]
    model = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=ITERATIONS, random_state=seed)
    model.fit(X_train[known], scale[0][known])
    return float(r2_score(scale[1][tested], model.predict(X_test[tested])))


def _category_utility(
    X_train: pd.DataFrame, X_test: pd.DataFrame, y_train: np.ndarray, y_test: np.ndarray, seed: int
) -> float | None:
    counts = np.bincount(y_test[y_test >= 0])
    frequent = np.flatnonzero((counts >= MIN_CLASS) & (len(y_test) - counts >= MIN_CLASS))
    classes = frequent[np.argsort(-counts[frequent], kind="stable")][:MAX_CLASSES]
    if len(classes) == 0 or (len(classes) == 1 and len(counts[counts > 0]) == 1):
        return None
    # All other levels, missing values too, are one.
    labels = [np.where(np.isin(y, classes), y, -1) for y in (y_train, y_test)]
    if len(np.unique(labels[0])) < 2:
        return 0.0
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=ITERATIONS, random_state=seed)
    probabilities = model.fit(X_train, labels[0]).predict_proba(X_test)
    scores = dict(zip(model.classes_, probabilities.T, strict=True))
    never = np.zeros(len(y_test))
    aucs = [
        roc_auc_score(labels[1] == c, scores.get(c, never)) for c in classes if 0 < (labels[1] == c).sum() < len(y_test)
    ]
    return 2 * float(np.mean(aucs)) - 1 if aucs else None


def global_utility(train: pd.DataFrame, test: pd.DataFrame, *, random_state: int | None = 0) -> float:
    """Average `column_utilities`: how well every column is predicted from the others, learned on synthetic rows.

    Jiang et al., *TabStruct: Measuring Structural Fidelity of Tabular Data*, 2025, have it as "global utility".

    Parameters
    ----------
    train : DataFrame of shape (n, n_columns)
        Synthetic rows.
    test : DataFrame of shape (m, n_columns)
        Real rows with the same columns.
    random_state : int, optional
        Of the rows and columns that are drawn, where there are more than 4,000 and 16.

    Returns
    -------
    utility : float
        In [0, 1], higher is better; NaN where no column can be predicted.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tabdiff.evaluation import global_utility, independent_columns
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=400)
    >>> table = pd.DataFrame({"x": x, "twice": 2 * x, "noise": rng.normal(size=400)})
    >>> drawn = independent_columns(table[:200], random_state=1)
    >>> global_utility(table[:200], table[200:]) > 0.6 > global_utility(drawn, table[200:])
    True
    """
    scores = column_utilities(train, test, random_state=random_state)
    return float(scores.mean()) if len(scores) else float("nan")
