r"""Refining what a trained model of a table draws: right marginals, and few rows that trees can tell from real ones.

First, each number's distribution among drawn rows is mapped to the standard normal one that the codec expects.

Second, a diffusion model leaves errors that trees find easily: a pair of levels that never goes together, two columns
of which one is nearly always zero. A gradient-boosted classifier that separates real rows from drawn ones estimates the
ratio of their densities,

.. math:: w(x) = \frac{p_\text{real}(x)}{p_\text{model}(x)} = \frac{D(x)}{1 - D(x)},

and keeping a drawn row with probability :math:`\min(1, w(x) / M)` draws from the model times that ratio:
discriminator rejection sampling (Azadi et al., 2019, https://arxiv.org/abs/1810.06758). The classifier stops at the
best loss on rows kept apart, so that it learns what real rows have in common and not which ones they are.

Where the model is seldom right, M cuts the ratio of the rows that are, and too few of them are kept. So a second
classifier of small trees compares the rows that are kept with the real ones, and its ratio decides once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from scipy.special import ndtri
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from tabdiff.codecs import ArrayCodec, TableCodec

__all__ = [
    "REFINED_STEPS",
    "DensityRatio",
    "MarginalMap",
    "Refinement",
    "fit_refinement",
    "refinement_rows",
    "row_features",
    "wants_refinement",
]

# Steps of the sampler: what 50 would do better, the refinement does.
REFINED_STEPS = 25
# Fewer rows than this say too little about a ratio of densities.
MIN_ROWS = 1000
MIN_DRAWN, MAX_DRAWN = 10_000, 100_000

# For each classifier the leaves of its trees, and the share of the ratio's mass that M leaves uncut: more follows the
# ratio further, less keeps more rows and is cheaper. On Default of Credit Card Clients the first alone moves the shape
# error from 1.2 to 5.6 % while it brings C2ST from .32 to .49; with the second they are 1.7 % and .57.
STAGES = ((31, 0.95), (4, 0.999))
# A classifier keeps at least so many of the rows.
MIN_ACCEPTANCE = 0.15
MAX_CUTOFF = 20.0
# A level's place on the scale that trees split is its log ratio, shrunk as if it had been seen so often on each side.
PRIOR_COUNT = 5.0
KNOTS = 256
TREE_ROWS = 8192
# A row whose candidates were all turned down so often keeps the best of the last ones.
MAX_ROUNDS = 32
FEW_ROWS = 4096
CHUNK_ROWS = 65_536


class MarginalMap:
    """Monotone map of each number that makes its distribution among drawn rows standard normal.

    Parameters
    ----------
    drawn : ndarray of shape (m, d)
        Numbers of drawn rows, NaN where missing.
    """

    def __init__(self, drawn: np.ndarray) -> None:
        levels = (np.arange(KNOTS) + 0.5) / KNOTS
        self.target = ndtri(levels)
        # A column that is always missing in the draws stays as it is.
        observed = [column[~np.isnan(column)] for column in drawn.T]
        knots = [np.quantile(x, levels) if len(x) else self.target for x in observed]
        self.knots = np.stack(knots) if knots else np.empty((0, KNOTS))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Map numbers (n, d); beyond the outermost knots they are shifted, NaN stays."""
        out = np.array(numbers, dtype=np.float64)
        for j, knots in enumerate(self.knots):
            x = out[:, j]
            inside = np.interp(x, knots, self.target)
            low, high = x < knots[0], x > knots[-1]
            out[:, j] = np.where(
                low, x - knots[0] + self.target[0], np.where(high, x - knots[-1] + self.target[-1], inside)
            )
        return out


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
    """

    def __init__(
        self, *, captured: float = 0.95, max_leaf_nodes: int = 31, max_iter: int = 600, min_samples_leaf: int = 100
    ) -> None:
        self.captured = captured
        self.max_leaf_nodes = max_leaf_nodes
        self.max_iter = max_iter
        self.min_samples_leaf = min_samples_leaf

    def fit(self, real: np.ndarray, drawn: np.ndarray, n_levels: list[int], *, seed: int) -> Self:
        """Learn the ratio.

        Parameters
        ----------
        real, drawn : ndarray of shape (n, d) and (m, d)
            Numbers, NaN where missing, with columns of level codes.
        n_levels : list of int, length d
            Number of levels of each column, 0 for numbers.
        seed : int
            Of the split that decides when to stop.
        """
        self.scales_ = [_scale(real[:, j], drawn[:, j], k) if k else None for j, k in enumerate(n_levels)]
        rng = np.random.default_rng(seed)
        # A part of the drawn rows is not shown to the trees: it decides how often a row will be kept.
        order = rng.permutation(len(drawn))
        apart, shown = np.split(drawn[order], [len(drawn) // 5])
        X = self._features(np.concatenate([real, shown]))
        y = np.repeat([1, 0], [len(real), len(shown)])
        weight = np.repeat([len(shown) / len(real), 1.0], [len(real), len(shown)])
        model = HistGradientBoostingClassifier(
            max_iter=self.max_iter,
            learning_rate=0.1,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=min(self.min_samples_leaf, max(len(real) // 20, 2)),
            early_stopping=True,
            validation_fraction=0.2,
            n_iter_no_change=20,
            random_state=seed,
        ).fit(X, y, sample_weight=weight)
        self._read_trees(model)
        ratio = np.exp(self.log_ratio(apart))
        self.cutoff_ = _cutoff(ratio, self.captured)
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
        """Copy the trees into plain arrays, which persist without pickle and outlive versions of scikit-learn."""
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
            # A leaf is its own child, so that every row can go down as many steps as the deepest.
            self.children_[i, :k, 0] = np.where(leaf, here, nodes["left"])
            self.children_[i, :k, 1] = np.where(leaf, here, nodes["right"])
            self.missing_left_[i, :k] = nodes["missing_go_to_left"].astype(bool)
            self.value_[i, :k] = nodes["value"]
        self.depth_ = np.array([nodes["depth"].max() for nodes in trees], dtype=np.int32)
        self.baseline_ = float(np.ravel(model._baseline_prediction)[0])

    @property
    def n_trees_(self) -> int:
        """Number of trees."""
        return len(self.value_)

    def log_ratio(self, rows: np.ndarray) -> np.ndarray:
        """Return the log of the density ratio of each row, shape (n,)."""
        X = self._features(rows)
        total = np.full(len(X), self.baseline_)
        # Few rows at a time, so that what the trees read stays in the cache.
        for i in range(0, len(X), TREE_ROWS):
            part = X[i : i + TREE_ROWS]
            flat, start = part.ravel(), np.arange(len(part)) * part.shape[1]
            for feature, threshold, children, missing_left, value, depth in zip(
                self.feature_,
                self.threshold_,
                self.children_,
                self.missing_left_,
                self.value_,
                self.depth_,
                strict=True,
            ):
                pairs, node = children.ravel(), np.zeros(len(part), dtype=np.intp)
                for _ in range(depth):
                    x = flat.take(start + feature.take(node))
                    right = (x > threshold.take(node)) | (np.isnan(x) & ~missing_left.take(node))
                    node = pairs.take(2 * node + right)
                total[i : i + TREE_ROWS] += value.take(node)
        return total

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


class Refinement:
    """Marginal map and density ratios of one trained model.

    Parameters
    ----------
    n_continuous : int
        Number of leading numbers of encoded rows.
    n_levels : list of int
        Number of levels of each column of features, 0 for numbers.
    """

    def __init__(self, n_continuous: int, n_levels: list[int]) -> None:
        self.n_continuous = n_continuous
        self.n_levels = n_levels

    def fit(self, real: np.ndarray, drawn: Tensor, features: Callable[[Tensor], np.ndarray], *, seed: int) -> Self:
        """Learn from drawn rows how they differ from real ones.

        Parameters
        ----------
        real : ndarray of shape (n, k)
            Features of the training rows.
        drawn : Tensor of shape (m, d)
            Encoded rows, drawn at the conditions of the training rows.
        features : callable
            From encoded rows (m, d) to their features (m, k).
        seed : int
            Of the classifier.
        """
        self.marginals_ = MarginalMap(drawn[:, : self.n_continuous].numpy())
        rows = features(self.map(drawn))
        rng = np.random.default_rng(seed)
        first = len(rows) // 2
        self.ratios_ = []
        learned_from, kept = rows[:first], np.ones(len(rows) - first, dtype=bool)
        for leaves, captured in STAGES:
            ratio = DensityRatio(max_leaf_nodes=leaves, captured=captured)
            self.ratios_.append(ratio.fit(real, learned_from, self.n_levels, seed=seed))
            # Rows that no classifier has learned from, as the stages so far keep them.
            kept = self._log_chance(rows[first:]) > np.log(rng.random(len(rows) - first))
            learned_from = rows[first:][kept]
        self.acceptance_ = float(max(kept.mean(), 0.02))
        return self

    def _log_chance(self, features: np.ndarray) -> np.ndarray:
        """Return the log of the probability that each row is kept, from its features, shape (n,)."""
        chance = np.zeros(len(features))
        for ratio in self.ratios_:
            chance += np.minimum(ratio.log_ratio(features) - math.log(ratio.cutoff_), 0.0)
        return chance

    def map(self, rows: Tensor) -> Tensor:
        """Return encoded rows (n, d) with the numbers mapped to standard normal marginals."""
        numbers = torch.from_numpy(self.marginals_(rows[:, : self.n_continuous].numpy())).to(rows.dtype)
        return torch.cat([numbers, rows[:, self.n_continuous :]], dim=1)

    def draw(
        self,
        n: int,
        draw_rows: Callable[[Tensor], Tensor],
        features: Callable[[Tensor, Tensor], np.ndarray],
        generator: torch.Generator,
    ) -> Tensor:
        """Draw rows until each of `n` places has one that is kept.

        Parameters
        ----------
        n : int
            Number of rows.
        draw_rows : callable
            From places (m,), which may repeat, to an encoded row for each, (m, d).
        features : callable
            From encoded rows (m, d) and their places (m,) to features (m, k).
        generator : torch.Generator
            Decides which rows are kept.

        Returns
        -------
        Tensor of shape (n, d)
        """
        chunks = torch.arange(n).split(CHUNK_ROWS)
        return torch.cat([self._draw_chunk(places, draw_rows, features, generator) for places in chunks])

    def _draw_chunk(
        self,
        places: Tensor,
        draw_rows: Callable[[Tensor], Tensor],
        features: Callable[[Tensor, Tensor], np.ndarray],
        generator: torch.Generator,
    ) -> Tensor:
        rows: Tensor | None = None
        pending = torch.arange(len(places))
        for _ in range(MAX_ROUNDS):
            # A candidate at a time where rows are many, all that will be needed at once where they are few.
            copies = 1 if len(pending) > FEW_ROWS else math.ceil(1 / self.acceptance_)
            slot = pending.repeat_interleave(copies)
            candidates = self.map(draw_rows(places[slot]))
            chance = self._log_chance(features(candidates, places[slot]))
            kept = chance > torch.rand(len(slot), generator=generator, dtype=torch.float64).log().numpy()
            # The first that is kept of each place, or else the likeliest: it stays if none is kept later.
            order = np.lexsort((-np.where(kept, 0.0, chance), ~kept))
            first = order[np.unique(slot.numpy()[order], return_index=True)[1]]
            if rows is None:
                rows = candidates.new_empty((len(places), candidates.shape[1]))
            rows[slot[first]] = candidates[first]
            pending = slot[first][~torch.from_numpy(kept[first])]
            if not len(pending):
                break
        assert rows is not None
        return rows

    # -------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "n_continuous": self.n_continuous,
            "n_levels": self.n_levels,
            "knots": self.marginals_.knots,
            "acceptance": self.acceptance_,
            "ratios": [ratio.state() for ratio in self.ratios_],
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        refinement = cls(int(state["n_continuous"]), [int(k) for k in state["n_levels"]])
        refinement.marginals_ = MarginalMap(np.empty((0, 0)))
        refinement.marginals_.knots = np.asarray(state["knots"])
        refinement.acceptance_ = float(state["acceptance"])
        refinement.ratios_ = [DensityRatio.from_state(ratio) for ratio in state["ratios"]]
        return refinement


def _scale(real: np.ndarray, drawn: np.ndarray, n_levels: int) -> np.ndarray:
    """Return a place on a line for each level, and one for unknown ones, shape (n_levels + 1,)."""
    counts = [np.bincount(c[~np.isnan(c)].astype(np.int64), minlength=n_levels)[:n_levels] for c in (real, drawn)]
    prior = PRIOR_COUNT / min(len(real), len(drawn))
    log_ratio = np.log(counts[0] / len(real) + prior) - np.log(counts[1] / len(drawn) + prior)
    # Equal ratios would fall together: the order of frequency sets levels apart.
    rank = np.argsort(np.argsort(-counts[0], kind="stable"), kind="stable")
    return np.append(log_ratio + 1e-4 * rank, np.nan).astype(np.float32)


def _cutoff(ratio: np.ndarray, captured: float) -> float:
    """Return the smallest M that leaves a share of the ratio's mass uncut, or at which few enough rows are kept."""
    low, high = 1.0, MAX_CUTOFF
    for _ in range(40):
        middle = 0.5 * (low + high)
        uncut = np.minimum(ratio, middle).mean()
        if uncut < captured * ratio.mean() and uncut / middle > MIN_ACCEPTANCE:
            low = middle
        else:
            high = middle
    return high


def wants_refinement(refine: str | bool, codec: Any, n_rows: int) -> bool:
    """Return whether a model of a container is refined: tables, by default from 1,000 rows on."""
    if refine == "auto":
        return isinstance(codec, TableCodec) and not isinstance(codec, ArrayCodec) and n_rows >= MIN_ROWS
    if refine and not isinstance(codec, TableCodec):
        raise TypeError("refine=True needs a DataFrame or an array; cells are calibrated by their own codec.")
    return bool(refine)


def refinement_rows(n_rows: int) -> int:
    """Return how many rows are drawn to learn from."""
    return min(max(6 * n_rows, MIN_DRAWN), MAX_DRAWN)


def row_features(codec: Any, rows: Tensor, codes: Tensor | None) -> np.ndarray:
    """Return what trees see of encoded rows (n, d): the values that they stand for, and the condition.

    Within the step of a heavy value a number is random; it goes through the value itself, so that it is not.
    """
    frame = codec.decode(rows, codes, None)
    return frame_features(codec, frame, codes)


def frame_features(codec: Any, frame: Any, codes: Tensor | None) -> np.ndarray:
    """Return the same of a frame."""
    encoded = codec.encode(frame, codes, None)
    return (encoded if codes is None else torch.cat([encoded, codes.to(encoded.dtype)], dim=1)).numpy()


def fit_refinement(
    codec: Any, frame: Any, codes: Tensor | None, drawn: Tensor, condition: Tensor | None, levels: list[int], seed: int
) -> Refinement:
    """Fit the refinement of a model.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    frame : DataFrame
        Training rows.
    codes : Tensor of shape (n, k), optional
        Their encoded condition.
    drawn : Tensor of shape (m, d)
        Encoded rows that the model drew.
    condition : Tensor of shape (m, k), optional
        Their encoded condition.
    levels : list of int
        Number of classes of each attribute of the condition, 0 for continuous ones.
    seed : int
    """
    n_levels = [0] * codec.n_continuous_ + codec.n_levels_ + levels
    real = frame_features(codec, frame, codes)
    return Refinement(codec.n_continuous_, n_levels).fit(
        real, drawn, lambda rows: row_features(codec, rows, condition), seed=seed
    )
