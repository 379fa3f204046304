"""What gives synthetic rows away: the columns, pairs of columns and rows by which a classifier tells them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from tabdiff.evaluation.classifiers import TwoSample
from tabdiff.evaluation.frames import is_numeric

__all__ = ["telling_columns", "telling_pairs", "telling_rows"]

# Rows on which columns are permuted, and rows, columns and iterations of the small models of single columns and pairs.
PERMUTED, SMALL_ROWS, TOP_COLUMNS, ITERATIONS = 3_000, 4_000, 6, 20
# Values that stand in for each cell of an example row.
STAND_INS = 24


def _names(columns: pd.Index, frame: pd.DataFrame) -> dict[Any, list[str]]:
    """Features of each column of the frame: those of numbers are called n0, ..., of categories c0, ..."""
    numeric = [c for c in frame.columns if is_numeric(frame[c])]
    categorical = [c for c in frame.columns if not is_numeric(frame[c])]
    names = {f"n{j}": c for j, c in enumerate(numeric)} | {f"c{j}": c for j, c in enumerate(categorical)}
    out: dict[Any, list[str]] = {}
    for feature in columns:
        out.setdefault(names[str(feature).split(" ")[0]], []).append(feature)
    return out


def telling_columns(found: TwoSample, real: pd.DataFrame, *, random_state: int | None = 0) -> pd.DataFrame:
    """Say by which columns the classifier tells rows.

    Parameters
    ----------
    found : TwoSample
        Of `tabdiff.evaluation.classifiers.two_sample`.
    real : DataFrame
        The real rows that it was fitted on.
    random_state : int, optional

    Returns
    -------
    table : DataFrame
        A row a column, the most telling first: "column"; "auc lost", by how much the area under the ROC curve of rows
        not fitted on falls when the column is permuted; "auc alone", that of a small classifier that sees nothing else.
    """
    rng = np.random.default_rng(random_state)
    lost: dict[Any, list[float]] = {}
    groups = _names(found.X.columns, real)
    for model, fold in zip(found.models, found.folds, strict=True):
        rows = fold if len(fold) <= PERMUTED else np.sort(rng.choice(fold, PERMUTED, replace=False))
        X, y = found.X.iloc[rows], found.y[rows]
        if len(np.unique(y)) < 2:
            continue
        whole = roc_auc_score(y, found.probability[rows])
        for name, features in groups.items():
            order = rng.permutation(len(X))
            changed = X.assign(**{f: X[f].to_numpy()[order] for f in features if not _is_category(X[f])})
            for f in features:
                if _is_category(X[f]):
                    changed[f] = X[f].iloc[order].set_axis(X.index)
            lost.setdefault(name, []).append(whole - roc_auc_score(y, model.predict_proba(changed)[:, 1]))
    chosen = _some_rows(found, rng)
    lines = [
        {
            "column": name,
            "auc lost": float(np.mean(lost.get(name, [0.0]))),
            "auc alone": _small_auc(found, features, chosen),
        }
        for name, features in groups.items()
    ]
    table = pd.DataFrame(lines, columns=["column", "auc lost", "auc alone"])
    return table.sort_values("auc lost", ascending=False, ignore_index=True)


def _is_category(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _some_rows(found: TwoSample, rng: np.random.Generator) -> np.ndarray:
    if len(found.y) <= SMALL_ROWS:
        return np.arange(len(found.y))
    return np.sort(rng.choice(len(found.y), SMALL_ROWS, replace=False))


def _small_auc(found: TwoSample, features: list[str], rows: np.ndarray) -> float:
    """AUC of a small classifier of some features, on rows that it was not fitted on; at least 1/2."""
    X, y = found.X[features].iloc[rows], found.y[rows]
    probability = np.zeros(len(y))
    for train, test in StratifiedKFold(2, shuffle=True, random_state=0).split(X, y):
        model = HistGradientBoostingClassifier(
            categorical_features="from_dtype", max_iter=ITERATIONS, max_leaf_nodes=15, random_state=0
        )
        probability[test] = model.fit(X.iloc[train], y[train]).predict_proba(X.iloc[test])[:, 1]
    return max(0.5, float(roc_auc_score(y, probability)))


def telling_pairs(
    found: TwoSample, real: pd.DataFrame, columns: pd.DataFrame, *, random_state: int | None = 0
) -> pd.DataFrame:
    """Say which pairs of the most telling columns tell more together than either alone.

    Parameters
    ----------
    found, real, random_state
        As in `telling_columns`.
    columns : DataFrame
        What `telling_columns` returned.

    Returns
    -------
    table : DataFrame
        A row a pair, the most telling first: "first", "second", "auc together" of a small classifier of the two, and
        "gain" over the better of them alone.
    """
    rng = np.random.default_rng(random_state)
    groups, chosen = _names(found.X.columns, real), _some_rows(found, rng)
    alone = dict(zip(columns["column"], columns["auc alone"], strict=True))
    rows = []
    for a, b in combinations(columns["column"][:TOP_COLUMNS], 2):
        together = _small_auc(found, groups[a] + groups[b], chosen)
        rows.append({"first": a, "second": b, "auc together": together, "gain": together - max(alone[a], alone[b])})
    table = pd.DataFrame(rows, columns=["first", "second", "auc together", "gain"])
    return table.sort_values("gain", ascending=False, ignore_index=True)


def telling_rows(
    found: TwoSample, real: pd.DataFrame, synthetic: pd.DataFrame, *, n: int = 10, random_state: int | None = 0
) -> pd.DataFrame:
    """Return the synthetic rows that the classifier is surest of, and the column that it is so sure by.

    Parameters
    ----------
    found, real, random_state
        As in `telling_columns`.
    synthetic : DataFrame
        The synthetic rows that the classifier was fitted on.
    n : int, default=10

    Returns
    -------
    rows : DataFrame
        The columns of `synthetic`, after "probability" of being synthetic and "by": the column whose value, replaced by
        those of real rows, lowers it most. The index is that of `synthetic`.
    """
    if not found.models:
        return synthetic.iloc[:0].assign(probability=[], by=[])
    rng = np.random.default_rng(random_state)
    groups = _names(found.X.columns, real)
    synthetic_rows = np.flatnonzero(found.y == 1)
    order = synthetic_rows[np.argsort(-found.probability[synthetic_rows], kind="stable")[:n]]
    pool = found.X.iloc[rng.choice(np.flatnonzero(found.y == 0), STAND_INS)]
    fold_of = np.zeros(len(found.y), dtype=int)
    for k, fold in enumerate(found.folds):
        fold_of[fold] = k
    reasons = []
    for row in order:
        copies = found.X.iloc[np.repeat(row, STAND_INS)].set_axis(pool.index)
        trials = []
        for features in groups.values():
            trial = copies.copy()
            for f in features:
                trial[f] = pool[f]
            trials.append(trial)
        p = found.models[fold_of[row]].predict_proba(pd.concat(trials, ignore_index=True))[:, 1]
        logits = np.log(np.clip(p, 1e-6, 1)) - np.log(np.clip(1 - p, 1e-6, 1))
        reasons.append(list(groups)[int(logits.reshape(len(groups), STAND_INS).mean(axis=1).argmin())])
    places = found.rows[1][order - (found.y == 0).sum()]
    rows = synthetic.iloc[places].copy()
    rows.insert(0, "probability", found.probability[order], allow_duplicates=True)
    rows.insert(1, "by", reasons, allow_duplicates=True)
    return rows
