"""Nearest rows of mixed type, by position."""

from __future__ import annotations

import numpy as np

from tabdiff.evaluation.distances import gower_blocks
from tabdiff.evaluation.frames import Encoded

__all__ = ["neighbours"]


def neighbours(
    reference: Encoded, queries: Encoded, points: Encoded, k: int = 1, *, own: np.ndarray | None = None
) -> np.ndarray:
    """Positions (n, k) of the points nearest to each query, in order of distance (Gower's).

    `own` (n,) are positions among the points that are the queries themselves, and are no neighbours.
    """
    out, start = [], 0
    k = min(k, len(points) - (own is not None))
    for block in gower_blocks(reference, queries, points):
        if own is not None:
            block[np.arange(len(block)), own[start : start + len(block)]] = np.inf
        near = np.argpartition(block, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(block, near, axis=1), axis=1, kind="stable")
        out.append(np.take_along_axis(near, order, axis=1))
        start += len(block)
    return np.concatenate(out)
