"""Attributes of a condition that are vectors, several vectors (tokens), or text that an encoder turns into either.

Encoded, such an attribute takes as many columns as it has numbers: the vectors of a row one behind the other, centred
and scaled by one factor, so that angles and distances stay what they were; NaN where a vector is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import Tensor

from tabdiff.nn import VectorColumns
from tabdiff.utils.array_likes import as_known

__all__ = ["VectorAttribute", "as_array", "holds_vectors", "is_missing", "stack_vectors"]


def holds_vectors(series: pd.Series) -> bool:
    """Whether the values of a column are vectors or matrices of numbers."""
    if series.dtype != object:
        return False
    known = [value for value in series if not is_missing(value)]
    return bool(known) and all(_is_vector(value) for value in known)


def stack_vectors(values: Any, what: str) -> np.ndarray:
    """Return vectors (n, d) or tokens (n, m, d), in any container, as one array (n, m, d); NaN where one is absent.

    Raises
    ------
    ValueError
        If they have different lengths, or hold something other than finite numbers.
    """
    values = as_known(values, what, "vectors") if isinstance(values, np.ndarray | Tensor) else values
    if isinstance(values, np.ndarray) and values.dtype != object:
        blocks = list(values)
    else:
        blocks = [None if is_missing(v) else v for v in values]
    known: list[np.ndarray | None] = []
    for block in blocks:
        if block is None:
            known.append(None)
            continue
        try:
            array = np.asarray(as_known(block), dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{what} must be vectors of numbers; got {block!r:.60}.") from None
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(f"{what} must have a vector (d,) or tokens (m, d) in each row; got shape {array.shape}.")
        known.append(array.reshape(-1, array.shape[-1]))
    shapes = [array.shape for array in known if array is not None]
    if not shapes:
        raise ValueError(f"{what} has no value but missing ones.")
    widths = sorted({shape[1] for shape in shapes})
    if len(widths) > 1:
        raise ValueError(f"{what} must have vectors of one length; got lengths {widths}.")
    stacked = np.full((len(known), max(shape[0] for shape in shapes), widths[0]), np.nan)
    for i, rows in enumerate(known):
        if rows is not None:
            stacked[i, : len(rows)] = rows
    if np.isinf(stacked).any():
        raise ValueError(f"{what} contains infinite values (inf).")
    if (np.isnan(stacked).any(2) != np.isnan(stacked).all(2)).any():
        raise ValueError(f"{what} contains vectors in which some numbers are NaN; an absent vector is NaN as a whole.")
    return stacked


class VectorAttribute:
    """An attribute whose values are vectors, or as many tokens as a row has.

    Parameters
    ----------
    values : Series, list or array
        A vector (d,) or tokens (m, d) for each row, None where there is none.
    name : hashable

    Attributes
    ----------
    kind : {"vector", "tokens"}
    n_tokens, width : int
        The largest number of vectors in a row, and their length.
    """

    # What other attributes have, and the code that handles all of them asks for.
    levels: tuple = ()
    skip = 0

    def __init__(self, values: Any, name: Any) -> None:
        self.name = name
        blocks = stack_vectors(values, f"condition {name!r}")
        self.kind = "vector" if blocks.shape[1] == 1 else "tokens"
        self._learn(blocks)

    def _learn(self, blocks: np.ndarray) -> None:
        if np.isnan(blocks).all():
            raise ValueError(f"condition {self.name!r} has no value but missing ones.")
        _, self.n_tokens, self.width = blocks.shape
        self.mean = np.nanmean(blocks, axis=(0, 1))
        self.scale = float(np.sqrt(np.nanmean((blocks - self.mean) ** 2))) or 1.0

    @property
    def column_levels(self) -> list[int]:
        """For each column of the code the number of its classes: 0, they are numbers."""
        return [0] * (self.skip + self.n_tokens * self.width)

    def columns(self, start: int) -> VectorColumns:
        """Where its numbers are in a condition in which it starts at a column."""
        return VectorColumns(start, self.skip, self.n_tokens, self.width)

    @property
    def n_levels(self) -> int:
        """Number of classes: 0."""
        return 0

    def __repr__(self) -> str:
        many = f"up to {self.n_tokens} vectors" if self.kind == "tokens" else "vector"
        return f"{type(self).__name__}({self.name!r}, {many} of length {self.width})"

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one value for all rows."""
        if value is None or isinstance(value, str):
            return True
        if isinstance(value, pd.Series) or (isinstance(value, np.ndarray) and value.dtype == object):
            return False
        if not _is_vector(value):
            return False
        return np.ndim(value) == (1 if self.kind == "vector" else 2)

    def encode(self, values: Any) -> np.ndarray:
        """Map a value per row to codes (n, n_columns).

        Raises
        ------
        ValueError
            For vectors of another length than at fit, or more of them in a row.
        """
        if all(is_missing(value) for value in values):
            return np.full((len(values), len(self.column_levels)), np.nan)
        return self._encode(stack_vectors(values, f"condition {self.name!r}"))

    def _encode(self, blocks: np.ndarray) -> np.ndarray:
        n, m, width = blocks.shape
        if width != self.width or m > self.n_tokens:
            fitted = f"up to {self.n_tokens} vectors" if self.kind == "tokens" else "a vector"
            raise ValueError(
                f"condition {self.name!r} was fitted with {fitted} of length {self.width}; got {m} of length {width}."
            )
        out = np.full((n, self.n_tokens, width), np.nan)
        out[:, :m] = (blocks - self.mean) / self.scale
        return out.reshape(n, -1)

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes (n, n_columns) to vectors, or tokens without the absent ones; None where there are none."""
        blocks = codes.reshape(len(codes), self.n_tokens, self.width) * self.scale + self.mean
        out = np.empty(len(codes), dtype=object)
        for i, block in enumerate(blocks):
            present = block[~np.isnan(block).any(1)]
            if len(present):
                out[i] = present[0] if self.kind == "vector" else present
        return pd.Series(out, name=self.name)

    def given(self, value: Any, n: int) -> pd.Series:
        """What was asked for, as it comes back beside the rows: a value, or one for each of n rows."""
        values = [value] * n if self.is_single(value) else list(value)
        out = np.empty(n, dtype=object)
        for i, entry in enumerate(values):
            out[i] = None if is_missing(entry) else entry
        return pd.Series(out, name=self.name)

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """Which rows of codes (n, n_columns) are the null token, (n,)."""
        return np.isnan(codes[:, self.skip :]).all(1)

    def seen(self, values: Any) -> VectorAttribute:
        """Return the attribute for rows that go on with a fit."""
        return self

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "name": self.name,
            "kind": self.kind,
            "n_tokens": self.n_tokens,
            "width": self.width,
            "mean": self.mean,
            "scale": self.scale,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = cls.__new__(cls)
        attribute.name, attribute.kind = state["name"], state["kind"]
        attribute.n_tokens, attribute.width = int(state["n_tokens"]), int(state["width"])
        attribute.mean, attribute.scale = np.asarray(state["mean"]), float(state["scale"])
        return attribute


def as_array(values: pd.Series) -> np.ndarray:
    """Return a column of vectors (n, d) or tokens (n, m, d) as an array; NaN where one is absent."""
    if values.isna().all():
        return np.full((len(values), 1), np.nan)
    blocks = stack_vectors(values, f"condition {values.name!r}")
    tokens = any(np.ndim(value) == 2 for value in values if not is_missing(value))
    return blocks if tokens else blocks[:, 0]


def _is_vector(value: Any) -> bool:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | list | tuple):
        return False
    array = np.asarray(value) if isinstance(value, np.ndarray) else _as_numbers(value)
    return array is not None and array.ndim in (1, 2) and array.dtype.kind in "biuf" and array.size > 0


def _as_numbers(value: Sequence) -> np.ndarray | None:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def is_missing(value: Any) -> bool:
    """Whether a value of a condition stands for none."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
