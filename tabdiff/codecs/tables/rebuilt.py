"""One column that a constraint rebuilds from others: what it is counted from, and what it may be."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.codecs.columns import NumericColumn, is_numeric

__all__ = ["TOLERANCE_FLOAT32", "Rebuilt", "check_rows", "check_size", "grid_of", "unit_of"]

# By how much a sum of floats may miss, relative to its terms.
TOLERANCE, TOLERANCE_FLOAT32 = 1e-9, 1e-6


@dataclass
class Rebuilt:
    """A column that a constraint rebuilds.

    Attributes
    ----------
    column : int
        Its position.
    kind : {"sum", "above", "below"}
        A sum, the largest of lower bounds and a gap, or the smallest of upper bounds less a gap.
    texts : list of str
        The constraints as declared: one sum, or all bounds.
    parts : list of (int, int)
        Of a sum the sign and position of each term, of a bound whether it is strict (1 or 0) and its position.
    formula : str or None
        Of a sum, the side that is computed.
    dtype, name
        Of the column.
    low, high : float
        Its observed range.
    unit : (int, int) or None
        (m, d) if its values are multiples of m / 10**d.
    decimals : int or None
        Digits after the point of the column and all parts.
    tolerance : float
        By how much a sum may miss, relative to its terms.
    distinct : int
        Number of distinct values.
    missing : bool
        Whether values are missing.
    grid : NumberGrid, TimeGrid or None
        What else its values keep to; sums are exact instead.
    """

    column: int
    kind: str
    texts: list[str]
    parts: list[tuple[int, int]]
    formula: str | None = None
    dtype: Any = None
    name: Any = None
    low: float = 0.0
    high: float = 0.0
    unit: tuple[int, int] | None = None
    decimals: int | None = None
    tolerance: float = TOLERANCE
    distinct: int = 0
    missing: bool = False
    grid: Any = None

    def bound_rows(self, values: dict[int, np.ndarray]) -> np.ndarray:
        """Rows (n,) in which enough of the parts are present for the constraint to say something."""
        present = np.stack([~np.isnan(values[j]) for _, j in self.parts])
        return np.asarray(present.all(axis=0) if self.kind == "sum" else present.any(axis=0))

    @property
    def side(self) -> int:
        """The sign of the gap: -1 for a column below its bounds."""
        return -1 if self.kind == "below" else 1

    def base(self, values: dict[int, np.ndarray]) -> np.ndarray:
        """What the column is counted from (n,): the sum of the terms that are present, or the closest bound."""
        if self.kind == "sum":
            return np.sum([sign * np.nan_to_num(values[j]) for sign, j in self.parts], axis=0)
        bounds = self.side * np.stack([values[j] for _, j in self.parts])
        closest = self.side * np.where(np.isnan(bounds), -np.inf, bounds).max(axis=0)
        return np.where(np.isinf(closest), self.low if self.side > 0 else self.high, closest)

    def slack(self, values: dict[int, np.ndarray]) -> np.ndarray:
        """By how much a sum may miss in each row (n,)."""
        terms = [*(j for _, j in self.parts), self.column]
        return self.tolerance * np.sum([np.abs(np.nan_to_num(values[j])) for j in terms], axis=0)

    def keep(self, v: np.ndarray, values: dict[int, np.ndarray]) -> np.ndarray:
        """Bring values (n,) to the column's unit and precision, on the right side of every bound."""
        for strict, j in self.parts:
            bound = np.where(np.isnan(values[j]), -self.side * np.inf, values[j])
            v = self._snap(np.maximum(v, bound) if self.side > 0 else np.minimum(v, bound))
            v = np.where((self.side * (v - bound) < 0) | (strict & (v == bound)), self._next(v), v)
        return v

    @property
    def _is_short(self) -> bool:
        return self.dtype in (np.float16, np.float32)

    def _snap(self, v: np.ndarray) -> np.ndarray:
        if self.unit is not None:
            multiple, decimals = self.unit
            v = np.rint(v * 10.0**decimals / multiple) * multiple / 10.0**decimals
        if self.grid is not None:
            v = self.grid.nearest(v)
        return v.astype(self.dtype).astype(np.float64) if self._is_short else v

    def _next(self, v: np.ndarray) -> np.ndarray:
        """Closest value (n,) away from the bounds."""
        if self.grid is not None:
            return self.grid.next(v, self.side)
        if self.unit is not None:
            return self._snap(v + self.side * self.unit[0] / 10.0 ** self.unit[1])
        if self._is_short:
            return np.nextafter(v.astype(self.dtype), self.dtype.type(self.side * np.inf)).astype(np.float64)
        return np.nextafter(v, self.side * np.inf)


def check_rows(t: Rebuilt, values: dict[int, np.ndarray], index: pd.Index) -> None:
    """Raise an error if a constraint does not hold in the training rows."""
    v = values[t.column]
    if t.kind == "sum":
        broken = [t.bound_rows(values) & (np.abs(v - t.base(values)) > t.slack(values))]
    else:
        broken = [
            (t.side * (v - values[j]) <= 0) if strict else (t.side * (v - values[j]) < 0) for strict, j in t.parts
        ]
    for text, rows in zip(t.texts, broken):
        if rows.any():
            raise ValueError(
                f"constraint {text!r} does not hold in {int(rows.sum())} of {len(rows)} rows, the first at index "
                f"{index[int(rows.argmax())]!r}. Correct these rows, or leave the constraint out."
            )


def check_size(t: Rebuilt, ranges: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Return the range that a column can take once rebuilt; raise an error if its integers cannot hold that."""
    low, high = t.low, t.high
    if t.kind == "sum":
        ends = [sorted((sign * ranges[j][0], sign * ranges[j][1])) for sign, j in t.parts]
        low, high = min(low, float(sum(e[0] for e in ends))), max(high, float(sum(e[1] for e in ends)))
    elif t.kind == "above":
        high = max(high, *(ranges[j][1] + strict for strict, j in t.parts))
    else:
        low = min(low, *(ranges[j][0] - strict for strict, j in t.parts))
    if t.grid is not None:
        # What a bound forces out of the range is on the grid too.
        low, high = float(t.grid.next(np.array([low + 1]), -1)[0]), float(t.grid.next(np.array([high - 1]), 1)[0])
    if pd.api.types.is_integer_dtype(t.dtype):
        if t.kind == "sum" and t.decimals != 0:
            raise ValueError(
                f"constraint {t.texts[0]!r}: {t.name!r} holds integers, but a term has fractions. Convert it to float."
            )
    if is_numeric(t.dtype):
        plain = np.dtype(getattr(t.dtype, "numpy_dtype", t.dtype))
        info = np.iinfo(plain) if plain.kind in "iu" else np.finfo(plain)
        if low < float(info.min) or high > float(info.max):
            raise ValueError(
                f"constraint {t.texts[0]!r} can give {t.name!r} values from {low:.0f} to {high:.0f}, which its dtype "
                f"{t.dtype} cannot hold. Convert it to {'int64' if plain.kind in 'iu' else 'float64'}."
            )
    return low, high


def unit_of(values: np.ndarray, dtype: Any) -> tuple[int, int] | None:
    """Return (m, d) if the values are multiples of m / 10**d."""
    observed = values[~np.isnan(values)]
    return NumericColumn(observed, dtype, None).unit_ if len(observed) else (1, 0)


def grid_of(values: np.ndarray, dtype: Any) -> Any:
    """Return what else the values keep to, a `NumberGrid` or None."""
    observed = values[~np.isnan(values)]
    return NumericColumn(observed, dtype, None).grid_ if len(observed) else None
