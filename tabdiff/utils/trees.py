"""Decision trees as plain arrays, which persist without pickle and outlive versions of scikit-learn."""

import numpy as np

__all__ = ["leaves"]


def leaves(
    X: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    children: np.ndarray,
    missing_left: np.ndarray,
    depth: int,
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
    """
    flat, start = X.ravel(), np.arange(len(X)) * X.shape[1]
    pairs, node = children.ravel(), np.zeros(len(X), dtype=np.intp)
    for _ in range(depth):
        x = flat.take(start + feature.take(node))
        right = (x > threshold.take(node)) | (np.isnan(x) & ~missing_left.take(node))
        node = pairs.take(2 * node + right)
    return node
