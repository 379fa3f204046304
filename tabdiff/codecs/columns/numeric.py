r"""Numbers to normal scores and back, without loss of precision or range.

A numeric column goes through the *randomised probability integral transform*: a value is mapped to a uniform draw
inside its own step of the empirical distribution function, and from there through the normal quantile function. Ties,
integers, spikes at zero and heavy tails all become exactly N(0, 1), so the marginals are right by construction and the
network has to learn only how columns depend on each other (Rosenblatt, 1952; Rüschendorf, 2009, for the randomised
form, https://doi.org/10.1016/j.jspi.2009.05.030).
"""

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import poisson

from tabdiff.codecs.columns.base import Column
from tabdiff.codecs.columns.calendar import find_number_grid, number_grid_from_state
from tabdiff.codecs.columns.categorical import FARTHEST
from tabdiff.codecs.columns.grids import LOG_MAX_CHANCE
from tabdiff.codecs.columns.smoothing import smooth
from tabdiff.utils.dtypes import dtype_from_state, dtype_to_state, is_time
from tabdiff.utils.random import RowStreams

__all__ = ["NumericColumn", "check_range", "restore", "to_float"]

# A value seen this often is a spike that is returned exactly; a rarer one belongs to a continuous stretch.
HEAVY_COUNT = 5
# Rarer values are compared in blocks of so many: they must repeat so many times as often as they would by chance for
# there to be nothing between them.
BLOCK, MIN_RATIO = 25, 4.0
# Boundaries of rarer values are means of so many neighbouring ones: a stretch over which values are drawn evenly.
STRETCH = 11
# As many values to look up, among as many, are sorted first.
SORTED_ROWS = 4096
# Up to here float64 holds every integer.
MAX_EXACT = 2**53


def to_float(series: pd.Series, name: Any, *, exact: bool = True) -> np.ndarray:
    """Values as float64 with NaN for missing ones; infinities are an error that names the column.

    Integers that float64 cannot hold are an error too, unless `exact` is False: they are rounded then.
    """
    if pd.api.types.is_complex_dtype(series.dtype):
        raise ValueError(
            f"Complex data not supported, however column {name!r} is complex. Make two columns of it, "
            f"df[{name!r}].map(numpy.real) and df[{name!r}].map(numpy.imag)."
        )
    if exact and pd.api.types.is_integer_dtype(series.dtype) and series.notna().any():
        low, high = int(series.min()), int(series.max())
        if max(abs(low), abs(high)) > MAX_EXACT:
            raise ValueError(
                f"column {name!r} holds integers beyond 2**53 ({low} to {high}), which cannot be modelled exactly. "
                f"Subtract an offset if it is a number; drop it or make it a string if it is an identifier."
            )
    if series.isna().all():  # Its dtype says nothing then.
        return np.full(len(series), np.nan)
    try:
        if is_time(series.dtype):
            raise TypeError
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        first = series[series.notna()].iloc[0]
        raise TypeError(
            f"column {name!r} must hold numbers, as at fit; got {first!r} of dtype {series.dtype}. Convert it, for "
            f'example pd.to_numeric(df[{name!r}], errors="coerce").'
        ) from None
    if np.isinf(values).any():
        raise ValueError(
            f"column {name!r} contains {int(np.isinf(values).sum())} infinite values (inf). Replace them by a finite "
            "value, or by NaN, which is modelled as missing."
        )
    return values


def check_range(values: np.ndarray, dtype: Any, what: str) -> None:
    """Raise a ValueError unless a dtype holds numbers (n,), NaN aside: a cast would wrap them round, or make them inf.

    Examples
    --------
    >>> check_range(np.array([1.0, 300.0]), np.dtype("uint8"), "condition 'age'")
    Traceback (most recent call last):
    ...
    ValueError: condition 'age' must be a number from 0 to 255, which uint8 holds; got 300. ...
    """
    plain = np.dtype(getattr(dtype, "numpy_dtype", dtype))
    if plain.kind not in "iuf" or not (~np.isnan(values)).any():
        return
    info = np.iinfo(plain) if plain.kind in "iu" else np.finfo(plain)
    wrong = (values < float(info.min)) | (values > float(info.max))
    if wrong.any():
        wider = "float64" if plain.kind == "f" else "int64"
        raise ValueError(
            f"{what} must be a number from {float(info.min):.6g} to {float(info.max):.6g}, which {dtype} holds; got "
            f"{values[wrong][0]:.6g}. Convert the column to {wider} before the fit, or ask for less."
        )


def restore(values: np.ndarray, missing: np.ndarray | None, dtype: Any, name: Any) -> pd.Series:
    """Make a numeric Series of the wanted dtype from float64 values and a mask of missing entries."""
    integer = pd.api.types.is_integer_dtype(dtype)
    if integer:
        values = np.rint(values)
    check_range(values, dtype, f"what was drawn for column {name!r}")
    if missing is not None and missing.any():
        if pd.api.types.is_extension_array_dtype(dtype):
            series = pd.Series(np.where(missing, 0.0, values), name=name).astype(dtype)
            series[missing] = pd.NA
            return series
        values = np.where(missing, np.nan, values)
        if integer:  # a NumPy integer has no missing value; this happens only to unconditional condition columns
            return pd.Series(values, name=name)
    return pd.Series(values, name=name).astype(dtype)


class NumericColumn(Column):
    """Randomised probability integral transform of one numeric column.

    Parameters
    ----------
    values : ndarray of shape (n,) or None
        Observed values as float64; NaN is left out.
    dtype : dtype
        What decoded values are cast to.
    name : hashable
        Column name, for messages and output.
    weight : ndarray of shape (n,), optional
        Positive weights of the values. The distribution function and density are weighted; what is a spike, and what
        the unit, is decided by how often values occur.

    Attributes
    ----------
    values_ : ndarray of shape (u,)
        Sorted distinct values.
    cdf_ : ndarray of shape (u + 1,)
        Empirical distribution function at the steps' edges, from 0 to 1.
    mass_ : ndarray of shape (u,)
        Weight of each value in units of rows; without weights, how often it occurs.
    edges_ : ndarray of shape (u, 2)
        Interval of values that a step stands for: the value itself when it is heavy; when it is light, half-way to its
        neighbours in the mean of a stretch of them (`tabdiff.codecs.columns.smoothing`).
    stretch_ : int
        Neighbouring boundaries that each boundary between light values is the mean of; 1 in models of before.
    unit_ : (int, int) or None
        (k, d) if all values are multiples of k / 10**d.
    grid_ : NumberGrid or None
        What else all values keep to (`tabdiff.codecs.columns.grids`).
    observed_only_ : bool
        Whether nothing but values seen at fit is drawn.

    Notes
    -----
    Decoding returns heavy values exactly, spreads light values evenly over stretches of neighbours, so that those that
    were seen are not those about which most are drawn, and never leaves the observed range; it rounds to the unit that
    all values share, whole numbers, cents, multiples of 25, and to their grid. Where values repeat as they would not if
    those between them were possible too, such as codes, only these are drawn.
    """

    grid_: Any = None

    def __init__(self, values: np.ndarray, dtype: Any, name: Any, weight: np.ndarray | None = None) -> None:
        self.dtype, self.name = dtype, name
        known = ~np.isnan(values)
        self.values_, counts = np.unique(values[known], return_counts=True)
        mass = None
        if weight is not None:
            mass = np.bincount(np.searchsorted(self.values_, values[known]), weights=weight[known])
            # In units of rows; a step of no width at all could not be told from its neighbour.
            mass = np.maximum(mass * (counts.sum() / mass.sum()), 1e-6)
        self._finish(counts, mass)
        self.grid_ = self._find_grid()
        if not self.observed_only_ and _is_code(self.values_, counts, self.unit_):
            self._finish(counts, mass, observed_only=True)

    def _find_grid(self) -> Any:
        return find_number_grid(self.values_, self.unit_)

    def _finish(
        self,
        counts: np.ndarray,
        mass: np.ndarray | None = None,
        *,
        observed_only: bool = False,
        stretch: int = STRETCH,
    ) -> None:
        values, self.stretch_ = self.values_, stretch
        self.counts_ = counts.astype(np.int64)
        self.mass_ = self.counts_ if mass is None else mass
        self.cdf_ = np.concatenate([[0.0], np.cumsum(self.mass_) / self.mass_.sum()])
        self.cdf_[-1] = 1.0
        heavy = counts >= HEAVY_COUNT
        ends = smooth(values, heavy, stretch)
        self.edges_ = np.stack([np.where(heavy, values, ends[:-1]), np.where(heavy, values, ends[1:])], axis=1)
        single = getattr(self.dtype, "kind", "f") == "f" and getattr(self.dtype, "itemsize", 8) < 8
        self.unit_ = _unit(values, float(np.finfo(self.dtype if single else np.float64).eps))
        # Where values are sparse on their own grid (0.5, 0.75, 1.33 ...), what lies between was never possible.
        self.observed_only_ = observed_only or len(values) <= max(2, 0.05 * counts.sum())
        if self.observed_only_:
            self.edges_[:] = values[:, None]

    @property
    def n_observed_(self) -> int:
        """Number of observed values."""
        return int(self.counts_.sum())

    def read(self, series: pd.Series) -> np.ndarray:
        """Values of a Series (n,) as float64 with NaN for missing ones; an infinity is a ValueError."""
        # Integers too large for float64 lie outside the range, or at its end.
        return to_float(series, self.name, exact=False)

    def positions(self, series: pd.Series) -> np.ndarray:
        """Position (n,) of each value in `values_`, that of the nearest for one never seen; missing is the last + 1."""
        values = self.read(series)
        missing = np.isnan(values)
        return np.where(missing, len(self.values_), self._step(np.where(missing, self.values_[0], values)))

    def at(self, positions: np.ndarray) -> pd.Series:
        """Inverse of :meth:`positions`: a Series (n,) of the fitted dtype."""
        last = len(self.values_)
        return self.to_series(self.values_[np.minimum(positions, last - 1)], positions == last)

    def to_series(self, values: np.ndarray, missing: np.ndarray | None = None) -> pd.Series:
        """Make a Series of the fitted dtype of values (n,) and a mask of missing entries (n,)."""
        return restore(values, missing, self.dtype, self.name)

    def encode(self, values: np.ndarray, rng: np.random.Generator | RowStreams | None) -> np.ndarray:
        """Map values (n,) to standard normal scores (n,), NaN to NaN.

        `rng` draws the place inside a step; None takes the deterministic place: the middle of a heavy value's step,
        the interpolated one of a light value's.
        """
        missing = np.isnan(values)
        v = np.where(missing, self.values_[0], values)
        places = None if rng is None else rng.random(len(v))
        if len(v) >= SORTED_ROWS and len(self.values_) >= SORTED_ROWS:
            # Neighbours are looked up in neighbouring memory: a third of the time.
            order = np.argsort(v)
            z = np.empty(len(v))
            z[order] = self._encode(v[order], None if places is None else places[order])
        else:
            z = self._encode(v, places)
        return np.where(missing, np.nan, z)

    def _encode(self, v: np.ndarray, places: np.ndarray | None) -> np.ndarray:
        nearest = self._step(v)
        step = self._interval(v, nearest)
        exact = self.values_[nearest] == v
        if places is not None:
            # A value seen at fit stands for its whole step; one between them keeps its interpolated place.
            step = np.where(exact, nearest, step)
        low, high = self.edges_[step].T
        width = high - low
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inside = np.where(width > 0, (v - low) / width, 0.5)
        inside = np.clip(np.nan_to_num(inside, nan=0.5), 0.0, 1.0)
        if places is not None:
            inside = np.where(exact | (width == 0), places, inside)
        u = self.cdf_[step] + inside * (self.cdf_[step + 1] - self.cdf_[step])
        tail = 0.25 / self.n_observed_
        return np.asarray(ndtri(np.clip(u, tail, 1.0 - tail)))

    def _step(self, v: np.ndarray) -> np.ndarray:
        """Index of the step whose value is nearest."""
        right = np.clip(np.searchsorted(self.values_, v), 0, len(self.values_) - 1)
        left = np.maximum(right - 1, 0)
        # A difference of two values near the largest float overflows to inf, which still compares correctly.
        with np.errstate(over="ignore"):
            nearer_left = np.abs(v - self.values_[left]) < np.abs(self.values_[right] - v)
        return np.where(nearer_left, left, right)

    def _interval(self, v: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Index of the step in whose interval a value lies; where the nearest value is heavy, that one's."""
        if self.stretch_ == 1:
            return nearest
        low, high = self.edges_.T
        step = np.maximum(np.searchsorted(low, v, side="right") - 1, 0)
        is_wide = low < high
        return np.where(is_wide[nearest] & is_wide[step], step, nearest)

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
            if self.grid_ is not None and spread.any():
                values[spread] = self.grid_.nearest(values[spread])
        return np.clip(values, self.values_[0], self.values_[-1])

    def decode(self, z: np.ndarray, missing: np.ndarray | None = None) -> pd.Series:
        """Map normal scores (n,) and a mask of missing entries (n,) to a Series of the fitted dtype."""
        return self.to_series(self.decode_values(z), missing)

    def has_probability(self, values: np.ndarray) -> np.ndarray:
        """Whether `log_density` of each value (n,) is that of a probability: the nearest one seen at fit is heavy."""
        low, high = self.edges_[self._step(np.where(np.isnan(values), self.values_[0], values))].T
        return low == high

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Log of the marginal density (light values) or probability (heavy values) of each value, 0 where missing.

        Outside the observed range, from half a row's share on, it falls off exponentially over one standard deviation:
        the density, or the probability where the end of the range is a heavy value.
        """
        missing = np.isnan(values)
        v = np.where(missing, self.values_[0], values)
        step = self._interval(v, self._step(v))
        mass = self.mass_[step] / self.mass_.sum()
        width = self.edges_[step, 1] - self.edges_[step, 0]
        log_p = np.log(mass) - np.log(np.where(width > 0, width, 1.0))
        # In units of the largest value, so that squares neither overflow nor vanish.
        largest = np.abs(self.values_).max() or 1.0
        mean = np.average(self.values_ / largest, weights=self.mass_)
        spread = np.sqrt(np.average((self.values_ / largest - mean) ** 2, weights=self.mass_)) or 1.0
        # Far outside of tiny values the quotient is infinite, and so is the distance.
        with np.errstate(over="ignore"):
            v, low, high = v / largest, self.values_[0] / largest, self.values_[-1] / largest
            outside = (np.maximum(low - v, 0) + np.maximum(v - high, 0)) / spread
        # A row's score stays finite, however far away it is.
        outside = np.minimum(outside, FARTHEST)
        tail = np.log(0.5 / self.n_observed_) - outside
        tail -= np.where(width > 0, np.log(spread) + np.log(largest), 0.0)
        return np.where(missing, 0.0, np.where(outside > 0, tail, log_p))

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "type": "numeric",
            "name": self.name,
            "dtype": dtype_to_state(self.dtype),
            "values": self.values_,
            "counts": self.counts_,
            "mass": None if self.mass_ is self.counts_ else self.mass_,
            "observed_only": self.observed_only_,
            "stretch": self.stretch_,
            "grid": None if self.grid_ is None else self.grid_.state(),
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        column = cls.__new__(cls)
        column.dtype, column.name = dtype_from_state(state["dtype"]), state["name"]
        column.values_ = np.asarray(state["values"], dtype=np.float64)
        mass = state.get("mass")
        column._finish(
            np.asarray(state["counts"]),
            None if mass is None else np.asarray(mass),
            observed_only=bool(state.get("observed_only", False)),
            stretch=int(state.get("stretch", 1)),
        )
        if state.get("grid") is not None:
            column.grid_ = cls._grid_from_state(state)
        return column

    @classmethod
    def _grid_from_state(cls, state: dict) -> Any:
        return number_grid_from_state(state["grid"])


def _unit(values: np.ndarray, eps: float) -> tuple[int, int] | None:
    """Return (m, d) such that all values are multiples of m / 10**d, with d at most 8; None if there is none.

    `eps` is the relative spacing of the floats that the values came as: 0.1 in float32 is a tenth too.
    """
    largest = np.abs(values).max(initial=0.0)
    # Whole numbers are told exactly; decimals as far as a rounding error cannot be taken for a digit.
    if largest < 2**53 and (values == np.rint(values)).all():
        return max(int(np.gcd.reduce(values.astype(np.int64))), 1), 0
    # A few values show quickly that there is no unit, and most continuous columns end here.
    first = values[:1000]
    for decimals in range(1, 9):
        scale = 10.0**decimals
        if largest >= 0.05 / (4 * eps * scale):
            return None
        if _are_whole(first * scale, eps) and _are_whole(values * scale, eps):
            return max(int(np.gcd.reduce(np.rint(values * scale).astype(np.int64))), 1), decimals
    return None


def _is_code(values: np.ndarray, counts: np.ndarray, unit: tuple[int, int] | None) -> bool:
    """Whether the rarer ones of sorted values (u,) repeat as they would not if those between them were possible too.

    In a block of neighbouring values with r rows on G points of the unit, G (1 - exp(-r / G)) values would be expected.
    """
    light = counts < HEAVY_COUNT
    if unit is None or not light.any() or counts.sum() < HEAVY_COUNT * len(values):
        return False
    points, rows = values[light] * 10.0 ** unit[1] / unit[0], counts[light]
    expected = 0.0
    for i in range(0, len(points), BLOCK):
        block, r = points[i : i + BLOCK], int(rows[i : i + BLOCK].sum())
        width = max(float(block[-1] - block[0]) + 1.0, 1.0)
        expected += r + width * np.expm1(-r / width)
    repeats = int(rows.sum()) - len(points)
    by_chance = poisson.logsf(repeats - 1, max(expected, 1e-9))
    return bool(repeats > MIN_RATIO * expected and by_chance < LOG_MAX_CHANCE)


def _are_whole(scaled: np.ndarray, eps: float) -> bool:
    return bool((np.abs(scaled - np.rint(scaled)) <= 4 * eps * np.abs(scaled)).all())
