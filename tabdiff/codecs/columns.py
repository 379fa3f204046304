r"""Columns to numbers and back, without loss of dtype, categories, precision or range.

A numeric column goes through the *randomised probability integral transform*: a value is mapped to a uniform draw
inside its own step of the empirical distribution function, and from there through the normal quantile function. Ties,
integers, spikes at zero and heavy tails all become exactly N(0, 1), so the marginals are right by construction and the
network has to learn only how columns depend on each other (Rosenblatt, 1952; Rüschendorf, 2009, for the randomised
form, https://doi.org/10.1016/j.jspi.2009.05.030).

A column of categories, strings or booleans becomes a code per level; missing values are a level of their own.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

__all__ = ["ConstantColumn", "LevelColumn", "NumericColumn", "dtype_from_state", "dtype_to_state"]

# A value seen this often is a spike that is returned exactly; a rarer one belongs to a continuous stretch.
HEAVY_COUNT = 5
# Up to here float64 holds every integer.
MAX_EXACT = 2**53


def dtype_to_state(dtype: Any) -> dict:
    """Describe a pandas or NumPy dtype in plain JSON types; categories are kept with their order."""
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        return {
            "kind": "category",
            "categories": [plain(v) for v in categories],
            "categories_dtype": str(categories.dtype),
            "ordered": bool(dtype.ordered),
        }
    if isinstance(dtype, pd.StringDtype):
        # str() of the two missing-value flavours is the same in some versions of pandas, so both parts are kept.
        return {"kind": "string", "storage": dtype.storage, "nan": dtype.na_value is not pd.NA}
    return {"kind": "plain", "name": str(dtype)}


def dtype_from_state(state: dict) -> Any:
    """Inverse of :func:`dtype_to_state`."""
    if state["kind"] == "category":
        categories = pd.Index(state["categories"], dtype=state["categories_dtype"])
        return pd.CategoricalDtype(categories, ordered=state["ordered"])
    if state["kind"] == "string":
        if state["nan"]:
            return pd.StringDtype(state["storage"], na_value=np.nan)
        return pd.StringDtype(state["storage"])
    return pd.api.types.pandas_dtype(state["name"])


def plain(value: Any) -> Any:
    """Turn a NumPy scalar into the Python scalar that JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def is_numeric(dtype: Any) -> bool:
    """Whether a column of this dtype is numeric and not boolean."""
    return bool(pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype))


def to_float(series: pd.Series, name: Any) -> np.ndarray:
    """Values as float64 with NaN for missing ones; infinities are an error that names the column."""
    if pd.api.types.is_complex_dtype(series.dtype):
        raise ValueError(f"Complex data not supported, however column {name!r} is complex.")
    if pd.api.types.is_integer_dtype(series.dtype) and series.notna().any():
        low, high = int(series.min()), int(series.max())
        if max(abs(low), abs(high)) > MAX_EXACT:
            raise ValueError(
                f"column {name!r} holds integers beyond 2**53 ({low} to {high}), which cannot be modelled exactly. "
                f"Subtract an offset if it is a number; drop it or make it a string if it is an identifier."
            )
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(
            f"column {name!r} contains {int(np.isinf(values).sum())} infinite values (inf). Replace them by a finite "
            "value, or by NaN, which is modelled as missing."
        )
    return values


def restore(values: np.ndarray, missing: np.ndarray | None, dtype: Any, name: Any) -> pd.Series:
    """Make a numeric Series of the wanted dtype from float64 values and a mask of missing entries."""
    integer = pd.api.types.is_integer_dtype(dtype)
    if integer:
        values = np.rint(values)
    if missing is not None and missing.any():
        if pd.api.types.is_extension_array_dtype(dtype):
            series = pd.Series(np.where(missing, 0.0, values), name=name).astype(dtype)
            series[missing] = pd.NA
            return series
        values = np.where(missing, np.nan, values)
        if integer:  # a NumPy integer has no missing value; this happens only to unconditional condition columns
            return pd.Series(values, name=name)
    return pd.Series(values, name=name).astype(dtype)


class NumericColumn:
    """Randomised probability integral transform of one numeric column.

    Parameters
    ----------
    values : ndarray of shape (n,) or None
        Observed values as float64; NaN is left out.
    dtype : dtype
        What decoded values are cast to.
    name : hashable
        Column name, for messages and output.

    Attributes
    ----------
    values_ : ndarray of shape (u,)
        Sorted distinct values.
    cdf_ : ndarray of shape (u + 1,)
        Empirical distribution function at the steps' edges, from 0 to 1.
    edges_ : ndarray of shape (u, 2)
        Interval of values that a step stands for: the value itself when it is heavy, half-way to its neighbours
        when it is light.

    Notes
    -----
    Decoding returns heavy values exactly, spreads light values over their own interval, and never leaves the observed
    range; it rounds to the unit that all values share: whole numbers, cents, multiples of 25.
    """

    def __init__(self, values: np.ndarray, dtype: Any, name: Any) -> None:
        self.dtype, self.name = dtype, name
        observed = values[~np.isnan(values)]
        self.values_, counts = np.unique(observed, return_counts=True)
        self._finish(counts)

    def _finish(self, counts: np.ndarray) -> None:
        values = self.values_
        self.counts_ = counts.astype(np.int64)
        self.cdf_ = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        self.cdf_[-1] = 1.0
        # Halving before adding keeps the midpoints of values near the largest float finite.
        middle = 0.5 * values[1:] + 0.5 * values[:-1]
        low = np.concatenate([values[:1], middle])
        high = np.concatenate([middle, values[-1:]])
        heavy = counts >= HEAVY_COUNT
        self.edges_ = np.stack([np.where(heavy, values, low), np.where(heavy, values, high)], axis=1)
        self.unit_ = _unit(values)
        # Where values are sparse on their own grid (0.5, 0.75, 1.33 ...), what lies between was never possible.
        if len(values) <= max(2, 0.05 * counts.sum()):
            self.edges_[:] = values[:, None]

    @property
    def n_observed_(self) -> int:
        """Number of observed values."""
        return int(self.counts_.sum())

    def encode(self, values: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Map values (n,) to standard normal scores (n,), NaN to NaN.

        `rng` draws the place inside a step; None takes the deterministic place: the middle of a heavy value's step,
        the interpolated one of a light value's.
        """
        missing = np.isnan(values)
        v = np.where(missing, self.values_[0], values)
        step = self._step(v)
        low, high = self.edges_[step].T
        width = high - low
        exact = self.values_[step] == v
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inside = np.where(width > 0, (v - low) / width, 0.5)
        inside = np.clip(np.nan_to_num(inside, nan=0.5), 0.0, 1.0)
        if rng is not None:
            # A value seen at fit stands for its whole step; one between them keeps its interpolated place.
            inside = np.where(exact | (width == 0), rng.random(len(v)), inside)
        u = self.cdf_[step] + inside * (self.cdf_[step + 1] - self.cdf_[step])
        tail = 0.25 / self.n_observed_
        z = ndtri(np.clip(u, tail, 1.0 - tail))
        return np.where(missing, np.nan, z)

    def _step(self, v: np.ndarray) -> np.ndarray:
        """Index of the step whose value is nearest."""
        right = np.clip(np.searchsorted(self.values_, v), 0, len(self.values_) - 1)
        left = np.maximum(right - 1, 0)
        # A difference of two values near the largest float overflows to inf, which still compares correctly.
        with np.errstate(over="ignore"):
            nearer_left = np.abs(v - self.values_[left]) < np.abs(self.values_[right] - v)
        return np.where(nearer_left, left, right)

    def decode_values(self, z: np.ndarray) -> np.ndarray:
        """Map normal scores (n,) to values (n,) in the observed range and precision, as float64."""
        u = ndtr(np.asarray(z, dtype=np.float64))
        step = np.clip(np.searchsorted(self.cdf_, u, side="right") - 1, 0, len(self.values_) - 1)
        width = self.cdf_[step + 1] - self.cdf_[step]
        inside = np.clip((u - self.cdf_[step]) / width, 0.0, 1.0)
        low, high = self.edges_[step].T
        # A heavy value is returned as it is: the weighted sum of it with itself would be off by a rounding.
        values = np.where(low == high, low, (1.0 - inside) * low + inside * high)
        if self.unit_ is not None:
            spread = low != high
            # Units are 10^-decimals times an integer; dividing by the power of ten keeps 0.1 exactly 0.1.
            multiple, decimals = self.unit_
            scale = 10.0**decimals
            values[spread] = np.rint(values[spread] * scale / multiple) * multiple / scale
        return np.clip(values, self.values_[0], self.values_[-1])

    def decode(self, z: np.ndarray, missing: np.ndarray | None = None) -> pd.Series:
        """Map normal scores (n,) and a mask of missing entries (n,) to a Series of the fitted dtype."""
        return restore(self.decode_values(z), missing, self.dtype, self.name)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Log of the marginal density (light values) or probability (heavy values) of each value, 0 where missing.

        Outside the observed range the density falls off exponentially over one standard deviation.
        """
        missing = np.isnan(values)
        v = np.where(missing, self.values_[0], values)
        step = self._step(v)
        mass = self.counts_[step] / self.n_observed_
        width = self.edges_[step, 1] - self.edges_[step, 0]
        log_p = np.log(mass) - np.log(np.where(width > 0, width, 1.0))
        mean = np.average(self.values_, weights=self.counts_)
        spread = np.sqrt(np.average((self.values_ - mean) ** 2, weights=self.counts_)) or 1.0
        outside = np.maximum(self.values_[0] - v, 0) + np.maximum(v - self.values_[-1], 0)
        tail = np.log(0.5 / self.n_observed_) - np.log(spread) - outside / spread
        return np.where(missing, 0.0, np.where(outside > 0, tail, log_p))

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "type": "numeric",
            "name": self.name,
            "dtype": dtype_to_state(self.dtype),
            "values": self.values_,
            "counts": self.counts_,
        }

    @classmethod
    def from_state(cls, state: dict) -> "NumericColumn":
        """Inverse of :meth:`state`."""
        column = cls.__new__(cls)
        column.dtype, column.name = dtype_from_state(state["dtype"]), state["name"]
        column.values_ = np.asarray(state["values"], dtype=np.float64)
        column._finish(np.asarray(state["counts"]))
        return column


def _unit(values: np.ndarray) -> tuple[int, int] | None:
    """Return (m, d) such that all values are multiples of m / 10**d, with d at most 8; None if there is none."""
    largest = np.abs(values).max(initial=0.0)
    for decimals in range(9):
        scaled = values * 10.0**decimals
        if largest * 10.0**decimals >= 2**53:
            return None
        whole = np.rint(scaled)
        if np.allclose(scaled, whole, rtol=1e-12 if decimals else 0.0, atol=1e-12 if decimals else 0.0):
            multiple = int(np.gcd.reduce(whole.astype(np.int64)))
            return max(multiple, 1), decimals
    return None


class LevelColumn:
    """A code per level of a categorical, string, boolean or few-valued column; missing is a level of its own.

    Parameters
    ----------
    series : Series of shape (n,)
        The column as it came.
    name : hashable
        Column name, for messages and output.

    Attributes
    ----------
    levels_ : list
        Levels seen at fit, in order: the dtype's for categories, sorted for the others.
    has_missing_ : bool
        Whether missing values were seen; their code is ``len(levels_)``.

    Raises
    ------
    TypeError
        If an object column holds values of different types.
    """

    def __init__(self, series: pd.Series, name: Any) -> None:
        self.dtype, self.name = series.dtype, name
        missing = series.isna()
        self.has_missing_ = bool(missing.any())
        observed = series[~missing]
        if isinstance(self.dtype, pd.CategoricalDtype):
            used = observed.cat.codes.unique()
            levels = [self.dtype.categories[c] for c in np.sort(used)]
        else:
            try:
                levels = list(observed.unique())
            except TypeError:
                raise TypeError(
                    f"column {name!r} holds values of type {type(observed.iloc[0]).__name__}, which cannot be "
                    "modelled; numbers, strings, booleans and categories of those can."
                ) from None
            kinds = sorted({_kind(v) for v in levels})
            if len(kinds) > 1:
                raise TypeError(
                    f"column {name!r} has dtype {self.dtype} and mixes values of types {kinds}. Convert it to one "
                    f'type, for example df[{name!r}] = df[{name!r}].astype("string").'
                )
            levels = sorted(levels)
        self.levels_ = [plain(v) for v in levels]
        unsupported = [v for v in self.levels_ if not isinstance(v, str | int | float | bool)]
        if unsupported:
            raise TypeError(
                f"column {name!r} holds values of type {type(unsupported[0]).__name__}, which cannot be modelled yet; "
                "numbers, strings, booleans and categories of those can. Convert it to one of them, or drop it."
            )

    @property
    def n_levels_(self) -> int:
        """Number of codes, the missing level included."""
        return len(self.levels_) + self.has_missing_

    def encode(self, series: pd.Series) -> np.ndarray:
        """Map a Series (n,) to codes (n,) as float64; a level that was not seen at fit is a ValueError."""
        missing = series.isna().to_numpy()
        values = series.astype(object).to_numpy()
        index = pd.Index(self.levels_, dtype=object)
        codes = index.get_indexer(pd.Index([plain(v) for v in values], dtype=object)).astype(np.float64)
        codes[missing] = len(self.levels_) if self.has_missing_ else np.nan
        unknown = np.flatnonzero((codes < 0) & ~missing)
        if len(unknown):
            raise ValueError(unknown_level_message(f"column {self.name!r}", values[unknown[0]], self.levels_))
        if missing.any() and not self.has_missing_:
            raise ValueError(f"column {self.name!r} has missing values, but it had none at fit.")
        return codes

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes (n,) to a Series of the fitted dtype; NaN and the missing code become missing."""
        codes = np.asarray(codes, dtype=np.float64)
        missing = np.isnan(codes) | (codes >= len(self.levels_))
        index = np.where(missing, 0, codes).astype(np.int64)
        if isinstance(self.dtype, pd.CategoricalDtype):
            position = self.dtype.categories.get_indexer(pd.Index(self.levels_, dtype=self.dtype.categories.dtype))
            full = np.where(missing, -1, position[index] if len(position) else -1)
            return pd.Series(pd.Categorical.from_codes(full, dtype=self.dtype), name=self.name)
        if is_numeric(self.dtype):
            levels = np.asarray(self.levels_ or [0.0], dtype=np.float64)
            return restore(levels[index], missing, self.dtype, self.name)
        levels = np.empty(max(len(self.levels_), 1), dtype=object)
        levels[: len(self.levels_)] = self.levels_
        values = levels[index]
        if not missing.any():
            return pd.Series(values, name=self.name).astype(self.dtype)
        if pd.api.types.is_extension_array_dtype(self.dtype):
            values[missing] = pd.NA
            return pd.Series(values, name=self.name).astype(self.dtype)
        values[missing] = np.nan if self.dtype != bool else None
        return pd.Series(values, name=self.name, dtype=object)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "type": "levels",
            "name": self.name,
            "dtype": dtype_to_state(self.dtype),
            "levels": self.levels_,
            "has_missing": self.has_missing_,
        }

    @classmethod
    def from_state(cls, state: dict) -> "LevelColumn":
        """Inverse of :meth:`state`."""
        column = cls.__new__(cls)
        column.dtype, column.name = dtype_from_state(state["dtype"]), state["name"]
        column.levels_, column.has_missing_ = list(state["levels"]), bool(state["has_missing"])
        return column


class ConstantColumn(LevelColumn):
    """A column with a single value, or none but missing ones: nothing to learn, returned as it was."""

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**super().state(), "type": "constant"}


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | float | np.integer | np.floating):
        return "number"
    return type(value).__name__


def unknown_level_message(where: str, value: Any, levels: list) -> str:
    """Text of the error for a level that was not seen at fit: the known ones and the nearest match."""
    import difflib

    value = plain(value)
    shown = ", ".join(repr(v) for v in levels[:20]) + (f", ... ({len(levels)} in all)" if len(levels) > 20 else "")
    by_text = {str(v).casefold(): v for v in levels}
    nearest = difflib.get_close_matches(str(value).casefold(), list(by_text), n=1, cutoff=0.5)
    hint = f" Did you mean {by_text[nearest[0]]!r}?" if nearest else ""
    return f"{where}: unknown value {value!r}.{hint} Known values: {shown}."
