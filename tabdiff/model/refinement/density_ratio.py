r"""Ratio of the densities of real and drawn rows, estimated by gradient-boosted trees.

A classifier that tells real rows from drawn ones estimates

.. math:: w(x) = \frac{p_\text{real}(x)}{p_\text{model}(x)} = \frac{D(x)}{1 - D(x)}.

It stops at the best loss on rows kept apart, so that it learns what real rows have in common and not which they are.
"""

from __future__ import annotations

import math
import time
from typing import Self

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from tabdiff.utils.trees import CompiledForest, DeviceForest, leaves

__all__ = ["DensityRatio", "cutoff"]

# At least so many of the rows are kept.
MIN_ACCEPTANCE = 0.15
MAX_CUTOFF = 20.0
# A level's place on the scale that trees split is its log ratio, shrunk as if it had been seen so often on each side.
PRIOR_COUNT = 5.0
TREE_ROWS = 8192
# Trees that are grown before the first look at the clock, and between two others.
TIMED_TREES, MORE_TREES = 10, 60
# Real rows that trees learn from, for each drawn one, and at least, where there are more.
REAL_PER_DRAWN, MIN_REAL = 4, 4000


class DensityRatio:
    """Ratio of the density of real rows to that of drawn ones, by gradient-boosted trees.

    Parameters
    ----------
    captured : float
        Share of the ratio's mass that the cutoff leaves, in (0, 1].
    max_leaf_nodes : int
        Leaves of a tree at most.
    max_iter : int
        Trees at most.
    min_samples_leaf : int
        Rows that a leaf holds at least.

    Attributes
    ----------
    cutoff_ : float
        M, the ratio from which on a row is always kept.
    auc_ : float
        Area under the ROC curve of the classifier on rows it has not seen: 0.5 if nothing tells the two apart.
    n_trees_ : int
        Number of trees.
    device : torch.device
        Where rows go down the trees: a CUDA device takes all trees at once, a CPU one after another. It is not saved.
    """

    device = torch.device("cpu")
    _forest: DeviceForest | None = None
    _compiled: tuple[CompiledForest | None] | None = None

    def __init__(
        self, *, captured: float = 0.95, max_leaf_nodes: int = 31, max_iter: int = 2000, min_samples_leaf: int = 100
    ) -> None:
        self.captured = captured
        self.max_leaf_nodes = max_leaf_nodes
        self.max_iter = max_iter
        self.min_samples_leaf = min_samples_leaf

    def fit(
        self,
        real: np.ndarray,
        drawn: np.ndarray,
        n_levels: list[int],
        *,
        seed: int,
        weight: np.ndarray | None = None,
        seconds: float = math.inf,
    ) -> Self:
        """Learn the ratio.

        Parameters
        ----------
        real, drawn : ndarray of shape (n, d) and (m, d)
            Numbers, NaN where missing, with columns of level codes.
        n_levels : list of int, length d
            Number of levels of each column, 0 for numbers.
        seed : int
            Of the split that decides when to stop.
        weight : ndarray of shape (n,), optional
            Weights of the real rows.
        seconds : float
            What growing trees may take, about: fewer are grown where there is not time for all.
        """
        own = np.ones(len(real)) if weight is None else weight * (len(real) / weight.sum())
        # Many real rows beside few drawn ones say little more, and take their time.
        most = max(REAL_PER_DRAWN * len(drawn), MIN_REAL)
        if len(real) > most:
            some = np.random.default_rng(seed).permutation(len(real))[:most]
            real, own = real[some], own[some]
        self.scales_ = [_scale(real[:, j], drawn[:, j], k, own) if k else None for j, k in enumerate(n_levels)]
        rng = np.random.default_rng(seed)
        # A part of the drawn rows is not shown to the trees: it decides how often a row will be kept.
        order = rng.permutation(len(drawn))
        apart, shown = np.split(drawn[order], [len(drawn) // 5])
        X = self._features(np.concatenate([real, shown]))
        X[:, np.isnan(X).all(axis=0)] = 0.0  # scikit-learn needs a value to bin; no tree splits there
        y = np.repeat([1, 0], [len(real), len(shown)])
        balanced = np.concatenate([own * (len(shown) / len(real)), np.ones(len(shown))])
        model = HistGradientBoostingClassifier(
            max_iter=self.max_iter,
            learning_rate=0.1,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=min(self.min_samples_leaf, max(len(real) // 20, 2)),
            early_stopping=True,
            validation_fraction=0.2,
            n_iter_no_change=20,
            random_state=seed,
        )
        if math.isfinite(seconds):
            _fit_in_time(model, X, y, balanced, seconds)
        else:
            model.fit(X, y, sample_weight=balanced)
        self._read_trees(model)
        ratio = np.exp(self.log_ratio(apart))
        self.cutoff_ = cutoff(ratio, self.captured)
        return self

    def _features(self, rows: np.ndarray) -> np.ndarray:
        """Put levels on the scale of their log ratio, shape (n, d)."""
        out = np.array(rows, dtype=np.float32)
        for j, scale in enumerate(self.scales_):
            if scale is not None:
                codes = np.nan_to_num(rows[:, j], nan=len(scale) - 1).astype(np.int64)
                out[:, j] = scale[np.minimum(codes, len(scale) - 1)]
        return out

    def _read_trees(self, model: HistGradientBoostingClassifier) -> None:
        """Copy the trees into plain arrays; see `tabdiff.utils.trees`."""
        trees = [stage[0].nodes for stage in model._predictors]
        width = max((len(nodes) for nodes in trees), default=1)
        shape = (len(trees), width)
        self.feature_ = np.zeros(shape, dtype=np.int32)
        self.threshold_ = np.zeros(shape, dtype=np.float32)
        self.children_ = np.zeros((*shape, 2), dtype=np.int32)
        self.missing_left_ = np.zeros(shape, dtype=bool)
        self.value_ = np.zeros(shape, dtype=np.float32)
        for i, nodes in enumerate(trees):
            k = len(nodes)
            here = np.arange(k)
            leaf = nodes["is_leaf"].astype(bool)
            self.feature_[i, :k] = np.where(leaf, 0, nodes["feature_idx"])
            self.threshold_[i, :k] = np.where(leaf, 0.0, nodes["num_threshold"])
            # A leaf is its own child; see `leaves`.
            self.children_[i, :k, 0] = np.where(leaf, here, nodes["left"])
            self.children_[i, :k, 1] = np.where(leaf, here, nodes["right"])
            self.missing_left_[i, :k] = nodes["missing_go_to_left"].astype(bool)
            self.value_[i, :k] = nodes["value"]
        self.depth_ = np.array([nodes["depth"].max() for nodes in trees], dtype=np.int32)
        self._forest = self._compiled = None
        self.baseline_ = float(np.ravel(model._baseline_prediction)[0])

    @property
    def n_trees_(self) -> int:
        """Number of trees."""
        return len(self.value_)

    def log_ratio(self, rows: np.ndarray) -> np.ndarray:
        """Return the log of the density ratio of each row, shape (n,)."""
        X = self._features(rows)
        if self.device.type == "cuda":
            return self.baseline_ + self._on_device()(X)
        total = np.full(len(X), self.baseline_)
        if self._compiled is None:
            self._compiled = (CompiledForest.build(*self._nodes(), self.depth_.tolist()),)
        if self._compiled[0] is not None:
            return self._compiled[0].add(X, total)
        # Few rows at a time, so that what the trees read stays in the cache.
        for i in range(0, len(X), TREE_ROWS):
            part = X[i : i + TREE_ROWS]
            any_missing = bool(np.isnan(part).any())
            for feature, threshold, children, missing, value, depth in zip(*self._nodes(), self.depth_, strict=True):
                leaf = leaves(part, feature, threshold, children, missing, depth, any_missing)
                total[i : i + TREE_ROWS] += value.take(leaf)
        return total

    def _nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.feature_, self.threshold_, self.children_, self.missing_left_, self.value_

    def __getstate__(self) -> dict:
        # What lies on a GPU here is not to be looked for where a model is loaded, nor the version of scikit-learn.
        return {name: value for name, value in vars(self).items() if name not in ("device", "_forest", "_compiled")}

    def _on_device(self) -> DeviceForest:
        """Return the trees on the device."""
        if self._forest is None or self._forest.device != self.device:
            self._forest = DeviceForest(*self._nodes(), self.depth_.tolist(), self.device)
        return self._forest

    def log_chance(self, rows: np.ndarray) -> np.ndarray:
        """Return the log of the probability that the rejection keeps each row, shape (n,)."""
        return np.minimum(self.log_ratio(rows) - np.log(self.cutoff_), 0.0)

    # -------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "scales": self.scales_,
            "feature": self.feature_,
            "threshold": self.threshold_,
            "children": self.children_,
            "missing_left": self.missing_left_,
            "value": self.value_,
            "depth": self.depth_,
            "baseline": self.baseline_,
            "cutoff": self.cutoff_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        ratio = cls()
        ratio.scales_ = [None if s is None else np.asarray(s) for s in state["scales"]]
        for name in ("feature", "threshold", "children", "missing_left", "value"):
            setattr(ratio, f"{name}_", np.asarray(state[name]))
        ratio.depth_ = np.asarray(state["depth"])
        ratio.baseline_, ratio.cutoff_ = state["baseline"], state["cutoff"]
        return ratio


def _fit_in_time(
    model: HistGradientBoostingClassifier, X: np.ndarray, y: np.ndarray, weight: np.ndarray, seconds: float
) -> None:
    """Grow trees until the loss on rows kept apart stops them, there are as many as may be, or time is up."""
    most, n = model.max_iter, TIMED_TREES
    model.set_params(warm_start=True)
    began = time.perf_counter()
    while True:
        model.set_params(max_iter=n).fit(X, y, sample_weight=weight)
        took = time.perf_counter() - began
        more = int(min((seconds - took) * n / took, MORE_TREES, most - n))
        if model.n_iter_ < n or more < TIMED_TREES:
            return
        n += more


def _scale(real: np.ndarray, drawn: np.ndarray, n_levels: int, weight: np.ndarray) -> np.ndarray:
    """Return a place on a line for each level, and one for unknown ones, shape (n_levels + 1,)."""
    pairs = ((real, weight), (drawn, np.ones(len(drawn))))
    known = [(c[~np.isnan(c)].astype(np.int64), w[~np.isnan(c)]) for c, w in pairs]
    counts = [np.bincount(c, weights=w, minlength=n_levels)[:n_levels] for c, w in known]
    prior = PRIOR_COUNT / min(len(real), len(drawn))
    log_ratio = np.log(counts[0] / len(real) + prior) - np.log(counts[1] / len(drawn) + prior)
    # Equal ratios would fall together: the order of frequency sets levels apart.
    rank = np.argsort(np.argsort(-counts[0], kind="stable"), kind="stable")
    return np.append(log_ratio + 1e-4 * rank, np.nan).astype(np.float32)


def cutoff(
    ratio: np.ndarray, captured: float, weight: np.ndarray | None = None, least: float = MIN_ACCEPTANCE
) -> float:
    """Return the smallest M that leaves a share of the ratio's mass uncut, or at which few enough rows are kept.

    Parameters
    ----------
    ratio : ndarray of shape (n,)
    captured : float
        The share, in (0, 1].
    weight : ndarray of shape (n,), optional
        Weights of the rows.
    least : float
        Share of the rows that is kept at least.
    """
    low, high = 1.0, MAX_CUTOFF
    for _ in range(40):
        middle = 0.5 * (low + high)
        uncut = np.average(np.minimum(ratio, middle), weights=weight)
        if uncut < captured * np.average(ratio, weights=weight) and uncut / middle > least:
            low = middle
        else:
            high = middle
    return high
