"""A short digest of data, by which two results are known to be of the same."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["array_digest", "frame_digest"]


def frame_digest(frame: pd.DataFrame) -> str:
    """Return sixteen hexadecimal digits that depend on names, values and their order.

    Examples
    --------
    >>> frame_digest(pd.DataFrame({"a": [1, 2]})) == frame_digest(pd.DataFrame({"a": [2, 1]}))
    False
    """
    digest = hashlib.sha256("\x1f".join(map(str, frame.columns)).encode())
    for j in range(frame.shape[1]):
        column = frame.iloc[:, j]
        try:
            hashed = pd.util.hash_pandas_object(column, index=False).to_numpy()
        except TypeError:  # values that cannot be hashed
            hashed = pd.util.hash_pandas_object(column.astype(str), index=False).to_numpy()
        digest.update(hashed.tobytes())
    return digest.hexdigest()[:16]


def array_digest(*arrays: Any) -> str:
    """Return sixteen hexadecimal digits that depend on the shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes() if array.dtype != object else str(array.tolist()).encode())
    return digest.hexdigest()[:16]
