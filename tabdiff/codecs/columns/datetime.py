"""Points in time and durations as numbers, in the coarsest unit that they share, and back."""

from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns.calendar import find_times, grid_from_state
from tabdiff.codecs.columns.grids import Grid
from tabdiff.codecs.columns.numeric import MAX_EXACT, NumericColumn
from tabdiff.utils.dtypes import dtype_from_state, dtype_to_state, times_from_integers

__all__ = ["Clock", "TimeColumn", "TimeGrid"]

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Clock:
    """Counts times from the earliest one in the largest unit that divides all differences.

    So dates stay dates, whole minutes whole minutes, and float64 holds every count. With a time zone the count goes by
    UTC, or by the clock on the wall where that has the larger unit: midnights in Berlin are no whole number of days
    apart when the clocks change.

    Parameters
    ----------
    series : Series of shape (n,)
        datetime64 or timedelta64 of any resolution, with or without time zone, and with a value at least; NaT is left
        out.
    name : hashable
        Column name, for messages and output.

    Attributes
    ----------
    origin_ : int
        The earliest time, in the dtype's resolution since 1970, or the shortest duration.
    step_ : int
        The unit of the counts, in the dtype's resolution.
    wall_ : bool
        Whether times are counted by the clock on the wall, not by UTC.

    Notes
    -----
    Where times span more than 2**53 of their common unit (104 days of nanoseconds), they are counted in the smallest
    multiple of the dtype's resolution that fits: 10 years of nanoseconds keep 36 ns.

    Examples
    --------
    >>> import pandas as pd
    >>> days = pd.Series(pd.to_datetime(["2024-03-30", "2024-04-01"])).dt.tz_localize("Europe/Berlin")
    >>> clock = Clock(days, "day")
    >>> clock.read(days), clock.wall_
    (array([0., 1.]), True)
    """

    def __init__(self, series: pd.Series, name: Any) -> None:
        self.dtype, self.name, self.wall_ = series.dtype, name, False
        observed = series.dropna()
        integers = observed.array.asi8
        self.origin_, self.step_ = _grid(integers)
        if isinstance(self.dtype, pd.DatetimeTZDtype):
            origin, step = _grid(observed.dt.tz_localize(None).array.asi8)
            if step > self.step_:
                self.wall_, self.origin_, self.step_ = True, origin, step

    @property
    def _nanoseconds(self) -> int:
        """The dtype's resolution."""
        unit = self.dtype.unit if isinstance(self.dtype, pd.DatetimeTZDtype) else np.datetime_data(self.dtype)[0]
        return NANOSECONDS[unit]

    @property
    def seconds_(self) -> float:
        """The unit of the counts in seconds."""
        return self.step_ * self._nanoseconds / 1e9

    @property
    def per_day_(self) -> int:
        """How many of the dtype's resolution a day has."""
        return 86_400 * 10**9 // self._nanoseconds

    def read(self, series: pd.Series) -> np.ndarray:
        """Counts (n,) since the origin as float64, negative before it, NaN where missing.

        Raises
        ------
        TypeError
            If the column holds no times, or has a time zone where the fitted one has none, or the other way round.
        """
        missing = series.isna().to_numpy()
        if missing.all():  # Its dtype says nothing then.
            return np.full(len(series), np.nan)
        try:
            times = series.astype(self.dtype)
        except (pd.errors.OutOfBoundsDatetime, pd.errors.OutOfBoundsTimedelta):
            return self._read_far(series)
        except (TypeError, ValueError) as error:
            raise TypeError(f"column {self.name!r} has dtype {series.dtype}, but {self.dtype} at fit.") from error
        integers = (times.dt.tz_localize(None) if self.wall_ else times).array.asi8
        origin = np.int64(self.origin_)
        after = integers >= origin
        distance = np.where(after, _distance(integers, origin), _distance(origin, integers))
        counts = np.where(after, 1.0, -1.0) * (distance // np.uint64(self.step_)).astype(np.float64)
        return np.where(missing, np.nan, counts)

    def _read_far(self, series: pd.Series) -> np.ndarray:
        """Counts (n,) of times that the dtype cannot hold, by their whole seconds."""
        zone = isinstance(self.dtype, pd.DatetimeTZDtype)
        coarse = pd.DatetimeTZDtype("s", self.dtype.tz) if zone else np.dtype(f"{self.dtype.kind}8[s]")
        times = series.astype(coarse)
        seconds = (times.dt.tz_localize(None) if self.wall_ else times).array.asi8
        origin = self.origin_ * self._nanoseconds / 1e9
        return np.where(series.isna(), np.nan, np.floor((seconds - origin) / self.seconds_))

    def to_series(self, counts: np.ndarray, missing: np.ndarray | None = None) -> pd.Series:
        """Make a Series of the fitted dtype of counts (n,) and a mask of missing entries (n,).

        Times that the clocks skip move to the next that exists; of two at the same wall clock the first is meant.
        """
        integers = self._integers(counts)
        if self.wall_:
            integers = self._from_wall(integers)
        series = pd.Series(times_from_integers(integers, self.dtype), name=self.name)
        return series if missing is None else series.mask(missing)

    def _integers(self, counts: np.ndarray) -> np.ndarray:
        """Counts (n,) in the dtype's resolution since 1970, by the clock that they are counted by."""
        steps = np.rint(np.nan_to_num(counts)).astype(np.int64).view(np.uint64) * np.uint64(self.step_)
        return (steps + np.int64(self.origin_).view(np.uint64)).view(np.int64)

    def _from_wall(self, ticks: np.ndarray) -> np.ndarray:
        """UTC of times by the clock on the wall (n,)."""
        wall = pd.DatetimeIndex(ticks.view(f"M8[{self.dtype.unit}]"))
        first = np.ones(len(wall), dtype=bool)
        return wall.tz_localize(self.dtype.tz, ambiguous=first, nonexistent="shift_forward").asi8

    @property
    def _moves(self) -> bool:
        """Whether the clock on the wall is another than that of the counts."""
        return isinstance(self.dtype, pd.DatetimeTZDtype) and not self.wall_

    def to_wall(self, counts: np.ndarray) -> np.ndarray:
        """Return counts (n,) by the clock on the wall, int64 in the dtype's resolution since 1970."""
        integers = self._integers(counts)
        if self._moves:
            integers = pd.DatetimeIndex(times_from_integers(integers, self.dtype)).tz_localize(None).asi8
        return integers

    def from_wall(self, ticks: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_wall`: counts (n,) as float64."""
        integers = self._from_wall(ticks) if self._moves else ticks
        return np.rint((integers - self.origin_) / self.step_)

    def find_grid(self, counts: np.ndarray) -> "TimeGrid | None":
        """Find the grid of distinct counts (m,), in order; None for durations."""
        if not self.dtype.kind == "M":
            return None
        rule = find_times(np.unique(self.to_wall(counts)), self.step_, self.per_day_)
        return None if rule is None else TimeGrid(rule, self)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "name": self.name,
            "dtype": dtype_to_state(self.dtype),
            "origin": self.origin_,
            "step": self.step_,
            "wall": self.wall_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        clock = cls.__new__(cls)
        clock.name, clock.dtype = state["name"], dtype_from_state(state["dtype"])
        clock.origin_, clock.step_, clock.wall_ = int(state["origin"]), int(state["step"]), bool(state["wall"])
        return clock


class TimeGrid:
    """A grid for the counts of a clock.

    Parameters
    ----------
    rule : Grid
        Of times by the clock on the wall, in the dtype's resolution since 1970.
    clock : Clock
        What the counts are of.
    """

    def __init__(self, rule: Grid, clock: Clock) -> None:
        self.rule, self.clock = rule, clock

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Return the counts of the grid that are nearest to counts (n,)."""
        wall = self.clock.to_wall(values)
        found = self.rule.nearest(wall)
        # Not all of them, because a time that the clock shows twice would come back as the first.
        return np.where(found == wall, values, self.clock.from_wall(found))

    def next(self, values: np.ndarray, side: int) -> np.ndarray:
        """Return the next count of the grid above (`side` 1) or below (-1) each count (n,)."""
        wall = self.clock.to_wall(values + side)
        return self.clock.from_wall(self.rule.above(wall) if side > 0 else self.rule.below(wall))

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Return whether each count (n,) is on the grid."""
        return self.rule.contains(self.clock.to_wall(values))

    def describe(self) -> str:
        """Return the rule in words."""
        return self.rule.describe()

    def state(self) -> dict:
        """Plain description, for persistence."""
        return self.rule.state()


class TimeColumn(NumericColumn):
    """Randomised probability integral transform of a column of datetimes or timedeltas, as counts of a `Clock`.

    Parameters
    ----------
    series : Series of shape (n,)
        datetime64 or timedelta64 of any resolution, with or without time zone; NaT is left out.
    name : hashable
        Column name, for messages and output.
    weight : ndarray of shape (n,), optional
        Positive weights of the values; see `NumericColumn`.

    Attributes
    ----------
    clock_ : Clock
        Maps times to counts and back.
    """

    def __init__(self, series: pd.Series, name: Any, weight: np.ndarray | None = None) -> None:
        self.clock_ = Clock(series, name)
        super().__init__(self.clock_.read(series), series.dtype, name, weight)

    def _find_grid(self) -> TimeGrid | None:
        return self.clock_.find_grid(self.values_)

    def read(self, series: pd.Series) -> np.ndarray:
        """Counts (n,) of the clock's unit as float64, NaN where missing; see `Clock.read`."""
        return self.clock_.read(series)

    def to_series(self, values: np.ndarray, missing: np.ndarray | None = None) -> pd.Series:
        """Make a Series of the fitted dtype of counts (n,) and a mask of missing entries (n,)."""
        return self.clock_.to_series(values, missing)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Log of the density per second (light values) or probability (heavy values) of counts, 0 where missing."""
        log_p = super().log_density(values)
        return np.where(np.isnan(values) | self.has_probability(values), log_p, log_p - np.log(self.clock_.seconds_))

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**super().state(), "type": "time", "clock": self.clock_.state()}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        column = super().from_state(state)
        column.clock_ = Clock.from_state(state["clock"])
        return column

    @classmethod
    def _grid_from_state(cls, state: dict) -> TimeGrid:
        return TimeGrid(grid_from_state(state["grid"]), Clock.from_state(state["clock"]))


def _distance(later: Any, earlier: Any) -> np.ndarray:
    """Difference of int64 as uint64, which cannot overflow; meaningless where `later` is not the larger."""
    return np.asarray(later).view(np.uint64) - np.asarray(earlier).view(np.uint64)


def _grid(integers: np.ndarray) -> tuple[int, int]:
    """Return the smallest of the integers and the largest step that divides all differences and float64 can count."""
    origin = integers.min()
    distance = _distance(integers, origin)
    # A few differences nearly always give the step away, and a remainder is cheaper than a common divisor.
    step = np.gcd.reduce(distance[:1000])
    rest = distance % step if step else distance
    step = max(int(np.gcd.reduce(rest[rest > 0], initial=step)), 1)
    largest = int(distance.max())
    if largest // step > MAX_EXACT:
        step = -(-largest // MAX_EXACT)
    return int(origin), step
