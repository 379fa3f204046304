"""Decision trees as plain arrays, which persist without pickle and outlive versions of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["CompiledForest", "DeviceForest", "leaves"]

# Rows times trees that go down together on a device: what a few hundred megabytes hold.
PLACES = 2**24
# Rows by which a compiled forest is checked.
CHECKED_ROWS = 32


def leaves(
    X: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    children: np.ndarray,
    missing_left: np.ndarray,
    depth: int,
    any_missing: bool | None = None,
) -> np.ndarray:
    """Return the leaf (n,) of a tree that each row ends in.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows, NaN where missing.
    feature, threshold : ndarray of shape (n_nodes,)
        A row goes left where this column is not larger than that.
    children : ndarray of int, shape (n_nodes, 2)
        Left and right. A leaf is its own child, so that every row can go down as many steps as the deepest.
    missing_left : ndarray of bool, shape (n_nodes,)
        Whether a missing value goes left.
    depth : int
        Of the deepest leaf.
    any_missing : bool, optional
        Whether any value is missing; by default it is looked for, which costs less than the way down.
    """
    flat, start = X.ravel(), np.arange(len(X)) * X.shape[1]
    pairs, node = children.ravel(), np.zeros(len(X), dtype=np.intp)
    if any_missing is None:
        any_missing = bool(np.isnan(X).any())
    for _ in range(depth):
        x = flat.take(start + feature.take(node))
        right = x > threshold.take(node)
        if any_missing:
            right |= np.isnan(x) & ~missing_left.take(node)
        node = pairs.take(2 * node + right)
    return node


class CompiledForest:
    """The sum of the values of all trees for each row, by the compiled loop with which scikit-learn predicts.

    Parameters
    ----------
    feature, threshold, children, missing_left, value
        As for `DeviceForest`.

    Raises
    ------
    ImportError, TypeError, ValueError, AttributeError
        Where scikit-learn's predictor, which is private, is not there or not what it was; `build` returns None then.

    Examples
    --------
    One tree of one split: below 0.5 it adds 1, and else 2.

    >>> import numpy as np
    >>> nodes = np.zeros((1, 3), dtype=int), np.array([[0.5, 0, 0]]), np.array([[[1, 2], [1, 1], [2, 2]]])
    >>> forest = CompiledForest(*nodes, np.zeros((1, 3), dtype=bool), np.array([[0.0, 1.0, 2.0]]))
    >>> forest.add(np.array([[0.2], [0.7]]), np.zeros(2)).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self,
        feature: np.ndarray,
        threshold: np.ndarray,
        children: np.ndarray,
        missing_left: np.ndarray,
        value: np.ndarray,
    ) -> None:
        from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

        self._no_categories = np.zeros((0, 8), dtype=np.uint32)
        self._trees: list[Any] = []
        own = np.arange(feature.shape[1])
        for i in range(len(feature)):
            nodes = np.zeros(len(own), dtype=PREDICTOR_RECORD_DTYPE)
            nodes["feature_idx"], nodes["num_threshold"], nodes["value"] = feature[i], threshold[i], value[i]
            nodes["left"], nodes["right"] = children[i, :, 0], children[i, :, 1]
            nodes["missing_go_to_left"], nodes["is_leaf"] = missing_left[i], children[i, :, 0] == own
            self._trees.append(TreePredictor(nodes, self._no_categories, self._no_categories))

    @classmethod
    def build(cls, *forest: Any) -> CompiledForest | None:
        """Return a forest that gives what `leaves` gives, or None where scikit-learn's predictor does not.

        Parameters
        ----------
        *forest : ndarray
            The arrays of a forest, in their order, and the depth of each tree, as `DeviceForest` takes them.
        """
        *nodes, depth = forest
        rng = np.random.default_rng(0)
        feature, threshold = nodes[:2]
        rows = rng.choice(np.append(threshold.ravel(), 0.0), (CHECKED_ROWS, int(feature.max(initial=0)) + 1)).astype(
            np.float32
        )
        rows[rng.random(rows.shape) < 0.2] = np.nan
        wanted = np.zeros(CHECKED_ROWS)
        for *tree, value, deepest in zip(*nodes, depth, strict=True):
            wanted += value.take(leaves(rows, *[*tree, deepest]))
        try:
            built = cls(*nodes)
            found = built.add(rows, np.zeros(CHECKED_ROWS))
        except (ImportError, TypeError, ValueError, AttributeError):
            return None
        return built if np.array_equal(found, wanted) else None

    def add(self, X: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Add the values of rows X (n, d), NaN where missing, to a total (n,), tree by tree, and return it."""
        rows, places = np.ascontiguousarray(X, dtype=np.float64), np.zeros(X.shape[1], dtype=np.uint32)
        threads = torch.get_num_threads()
        for tree in self._trees:
            total += tree.predict(rows, self._no_categories, places, threads)
        return total


class DeviceForest:
    """The sum of the values of all trees for each row, on any device of torch: all rows go down all trees together.

    Parameters
    ----------
    feature, threshold, children, missing_left, value : ndarray of shape (n_trees, n_nodes) or (n_trees, n_nodes, 2)
        As for `leaves`, for each tree; `value` is what a tree adds where a row ends.
    depth : sequence of int
        Of the deepest leaf of each tree.
    device : torch.device or str

    Examples
    --------
    One tree of one split: below 0.5 it adds 1, and else 2.

    >>> import numpy as np
    >>> nodes = np.zeros((1, 3), dtype=int), np.array([[0.5, 0, 0]]), np.array([[[1, 2], [1, 1], [2, 2]]])
    >>> forest = DeviceForest(*nodes, np.zeros((1, 3), dtype=bool), np.array([[0.0, 1.0, 2.0]]), [1], "cpu")
    >>> forest(np.array([[0.2], [0.7]])).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self,
        feature: np.ndarray,
        threshold: np.ndarray,
        children: np.ndarray,
        missing_left: np.ndarray,
        value: np.ndarray,
        depth: Sequence[int],
        device: torch.device | str,
    ) -> None:
        n_trees, width = feature.shape
        self.device = torch.device(device)
        # The nodes of all trees stand behind each other.
        root = np.arange(n_trees) * width
        numbered = children.astype(np.int64) + root[:, None, None]

        def there(values: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device=self.device, dtype=dtype).flatten()

        self.feature, self.children = there(feature, torch.int64), there(numbered, torch.int64)
        self.threshold, self.value = there(threshold), there(value, torch.float64)
        self.missing_left, self.root = there(missing_left, torch.bool), there(root, torch.int64)
        self.depth = int(max(depth, default=0))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the sum (n,), float64, for rows X (n, d), NaN where missing."""
        rows = torch.from_numpy(np.ascontiguousarray(X)).to(self.device)
        parts = [self._sum(part) for part in rows.split(max(1, PLACES // max(len(self.root), 1)))]
        return torch.cat(parts).cpu().numpy() if parts else np.empty(0)

    def _sum(self, rows: Tensor) -> Tensor:
        node = self.root.expand(len(rows), -1)
        for _ in range(self.depth):
            at = node.flatten()
            x = rows.gather(1, self.feature[at].reshape(node.shape)).flatten()
            right = (x > self.threshold[at]) | (x.isnan() & ~self.missing_left[at])
            node = self.children[2 * at + right].reshape(node.shape)
        return self.value[node.flatten()].reshape(node.shape).sum(1)
