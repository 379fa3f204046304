"""One attribute of a condition: a class, or a number on the scale that suits it.

A class has strings, categories, booleans, or integers and times with at most 20 distinct values; floats, other
integers and times are continuous. Encoded, an attribute is a code or a standardised value, and NaN is the null token.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns import (
    Clock,
    LevelColumn,
    LevelLookup,
    Storage,
    check_range,
    check_storable,
    dtype_from_state,
    dtype_to_state,
    is_numeric,
    is_time,
    restore,
    standardise,
    time_text,
    to_float,
    unknown_level_message,
)

__all__ = ["Attribute", "is_scalar"]

MAX_INTEGER_CLASSES = 20
# Largest over smallest positive value from which an attribute that is never negative is modelled by its logarithm.
LOG_SPAN = 50.0
# Up to here the third power of a number, which tells its skewness, is one too.
MAX_CONTINUOUS = 1e100


class Attribute:
    """One attribute of a condition: a class or a continuous value.

    Attributes
    ----------
    name : hashable
        Column name, obs key, or a made-up one for arrays.
    kind : {"class", "continuous"}
    levels : list
        Labels of a class attribute, in the order of their codes.
    low, high : float
        Range of a continuous attribute at fit; of times, in the unit that they share since the earliest.
    unit : float
        A continuous attribute v is modelled as log(1 + v / unit) where its values, such as doses, are never negative
        and span more than `LOG_SPAN`: unit is then the smallest positive one. 0 is the linear scale.
    """

    def __init__(self, series: pd.Series, name: Any) -> None:
        self.name = name
        if isinstance(series.dtype, pd.PeriodDtype | pd.IntervalDtype):
            series = series.astype("category")
        check_storable(series, name)
        self._storage, series = Storage(series), standardise(series, name)
        self.dtype = series.dtype
        self._clock: Clock | None = None
        if pd.api.types.is_complex_dtype(series.dtype):
            raise ValueError(
                f"Complex data not supported, however condition {name!r} is complex. Make it two conditions, "
                "numpy.real(...) and numpy.imag(...)."
            )
        if series.isna().all():
            raise ValueError(f"condition {name!r} has no value but missing ones.")
        numeric = is_numeric(series.dtype)
        few = series.nunique() <= MAX_INTEGER_CLASSES
        discrete = pd.api.types.is_integer_dtype(series.dtype) or is_time(series.dtype)
        number = numeric or is_time(series.dtype)
        self.kind = "class" if not number or (discrete and few) else "continuous"
        self.levels: list = []
        self._lookup = LevelLookup(())
        self.low = self.high = self.mean = self.unit = 0.0
        self.scale = 1.0
        if self.kind == "class":
            self._set_column(LevelColumn(series, name))
        else:
            self._clock = Clock(series, name) if is_time(series.dtype) else None
            values = self._clock.read(series) if self._clock is not None else to_float(series, name)
            self.low, self.high = float(np.nanmin(values)), float(np.nanmax(values))
            if max(abs(self.low), abs(self.high)) > MAX_CONTINUOUS:
                raise ValueError(
                    f"condition {name!r} holds numbers up to {max(self.high, -self.low):g}, which are too large to "
                    f"condition on. Divide them, so that none is beyond {MAX_CONTINUOUS:g}."
                )
            self.unit = _log_unit(values) if self._clock is None else 0.0
            values = self._squeeze(values)
            self.mean = float(np.nanmean(values))
            self.scale = float(np.nanstd(values)) or 1.0

    def _set_column(self, column: LevelColumn) -> None:
        self._column, self.levels = column, column.levels_
        self._lookup = LevelLookup(self.levels)

    @property
    def n_levels(self) -> int:
        """Number of classes, 0 for a continuous attribute."""
        return len(self.levels)

    @property
    def column_levels(self) -> list[int]:
        """The same for each column of the code, of which there is one."""
        return [self.n_levels]

    # Leading columns of the code that are no numbers to compare; those of text have one.
    skip = 0

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one value for all rows."""
        # A tuple can be a level, and is one value then.
        return is_scalar(value) or (isinstance(value, tuple) and self._lookup.find(value) >= 0)

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """Which rows of codes (n, 1) are the null token, (n,)."""
        return np.isnan(codes[:, 0])

    def seen(self, values: Any) -> Self:
        """Return the attribute for rows that go on with a fit."""
        return self

    def __repr__(self) -> str:
        if self.kind == "class":
            shown = ", ".join(repr(v) for v in self.levels[:6]) + (", ..." if len(self.levels) > 6 else "")
            return f"Attribute({self.name!r}, class of {len(self.levels)}: {shown})"
        scale = ", log scale" if self.unit else ""
        return f"Attribute({self.name!r}, continuous {self.span}{scale})"

    def _squeeze(self, values: np.ndarray) -> np.ndarray:
        """Values on the scale of the model; those below zero stay linear there."""
        if not self.unit:
            return values
        return np.sign(values) * np.log1p(np.abs(values) / self.unit)

    def _stretch(self, values: np.ndarray) -> np.ndarray:
        """Inverse of `_squeeze`."""
        return np.sign(values) * np.expm1(np.abs(values)) * self.unit if self.unit else values

    def _shown(self, value: float) -> str:
        """Text of a continuous value, a time as such."""
        return f"{value:g}" if self._clock is None else time_text(self._clock.to_series(np.array([value])).iloc[0])

    @property
    def span(self) -> str:
        """Text of the range of a continuous attribute, of times in dates."""
        return f"from {self._shown(self.low)} to {self._shown(self.high)}"

    def _example(self) -> str:
        """A value of an attribute of times, as text."""
        return self._shown(self.low) if self._clock is not None else time_text(self.levels[0])

    def _read_times(self, series: pd.Series) -> pd.Series:
        """Times of the fitted dtype from times, also as text; without a zone they have the fitted one.

        Numbers are refused: libraries take them for nanoseconds, of which nobody thinks.
        """
        duration = pd.api.types.is_timedelta64_dtype(self.dtype)
        if is_time(series.dtype):
            times = series
        elif is_numeric(series.dtype) or any(re.fullmatch(r"[+-]?\d+(\.\d*)?", str(v)) for v in series.dropna()):
            raise ValueError(f"A number is no {'duration' if duration else 'time'}; write it as {self._example()!r}.")
        elif duration:
            times = pd.to_timedelta(series.astype(object).map(_with_seconds, na_action="ignore"))
        elif pd.api.types.infer_dtype(series, skipna=True) == "string":
            try:
                times = pd.to_datetime(series, format="ISO8601")
            except ValueError:
                raise ValueError(f"Write it as {self._example()!r}.") from None
        else:
            times = pd.to_datetime(series)
        if not is_time(times.dtype):
            raise ValueError("Give all of them in one time zone.")
        if (times.isna() & series.notna()).any():
            raise ValueError(f"Write it as {self._example()!r}.")
        if duration:
            return times.astype(self.dtype)
        if times.dt.tz is not None and not isinstance(self.dtype, pd.DatetimeTZDtype):
            raise ValueError(f"Those of the fit have no time zone; write it as {self._example()!r}.")
        if isinstance(self.dtype, pd.DatetimeTZDtype) and times.dt.tz is None:
            times = times.dt.tz_localize(self.dtype.tz)
        return times.astype(self.dtype)

    def _standardise(self, series: pd.Series) -> pd.Series:
        try:
            return standardise(self._storage.read_text(series), self.name)
        except ValueError:  # text that says no time, of which what follows speaks
            return standardise(series, self.name)

    def encode(self, values: Any) -> np.ndarray:
        """Map labels or numbers (n,) to codes or standardised values (n,), missing ones to NaN.

        Raises
        ------
        ValueError
            For a label that was not seen at fit; the message lists the known ones and the nearest.

        Warns
        -----
        UserWarning
            For a continuous value outside the fitted range.
        """
        series = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
        if not isinstance(self.dtype, pd.CategoricalDtype):  # categories are looked up as they are
            series = self._standardise(series)
        missing = series.isna().to_numpy()
        if is_time(self.dtype) and not missing.all():
            try:
                series = self._read_times(series)
            except (TypeError, ValueError) as error:
                given = series[~missing].iloc[0]
                raise ValueError(
                    f"condition {self.name!r} holds times ({self.dtype}); got {given!r}. {error}"
                ) from error
        if self.kind == "continuous":
            try:
                if self._clock is not None:
                    numbers = self._clock.read(series)
                else:
                    numbers = pd.to_numeric(series.astype(object).where(~missing, np.nan)).to_numpy(dtype=np.float64)
            except (TypeError, ValueError):
                raise ValueError(
                    f"condition {self.name!r} is continuous ({self._shown(self.low)} to {self._shown(self.high)}), "
                    f"so it needs numbers; got {series[~missing].iloc[0]!r}."
                ) from None
            if np.isinf(numbers).any():
                raise ValueError(f"condition {self.name!r} contains infinite values (inf).")
            if self._clock is None:
                check_range(numbers, self.dtype, f"condition {self.name!r}")
            outside = (numbers < self.low) | (numbers > self.high)
            if outside.any():
                warnings.warn(
                    f"condition {self.name!r}: {self._shown(numbers[outside][0])} lies outside the fitted "
                    f"range [{self._shown(self.low)}, {self._shown(self.high)}]; samples there are extrapolated.",
                    UserWarning,
                    stacklevel=2,
                )
            return (self._squeeze(numbers) - self.mean) / self.scale
        out = np.full(len(series), np.nan)
        for i, value in enumerate(series.astype(object)):
            if not missing[i]:
                out[i] = known = self._lookup.find(value)
                if known < 0:
                    raise ValueError(unknown_level_message(f"condition {self.name!r}", value, self.levels))
        return out

    def given(self, value: Any, n: int) -> pd.Series:
        """Continuous values that were asked for, one or one for each of n rows, as they come back beside the rows.

        Codes tell them less exactly: they are of single precision, and of times count the steps of the fit.
        """
        values = [value] * n if self.is_single(value) else value
        series = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
        series = self._standardise(series).reset_index(drop=True)
        missing = series.isna().to_numpy()
        if self._clock is not None:
            times = pd.Series(pd.NaT, index=series.index, dtype=self.dtype) if missing.all() else None
            return self._storage.write((self._read_times(series) if times is None else times).rename(self.name))
        numbers = pd.to_numeric(series.astype(object).where(~missing, 0.0)).to_numpy(dtype=np.float64)
        return self._storage.write(restore(numbers, missing, self.dtype, self.name))

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes or standardised values (n,) back to labels or numbers of the fitted dtype."""
        if self.kind == "class":
            return self._storage.write(self._column.decode(codes))
        missing = np.isnan(codes)
        values = np.where(missing, 0.0, codes) * self.scale + self.mean
        # Codes are float32: digits beyond its precision are noise, and without them a dose of 2.5 is 2.5 again.
        noise = max(np.abs(codes[~missing]).max(initial=1.0) * self.scale * 2.0**-23, 1e-300)
        digits = int(np.floor(-np.log10(noise)))
        if self.unit:
            # On the logarithmic scale an error is a share of the value and its unit.
            values = self._stretch(values)
            size = np.floor(np.log10(np.abs(values) + self.unit)).astype(int)
            values = np.array([round(v, digits - s - 1) for v, s in zip(values.tolist(), size.tolist(), strict=True)])
        else:
            values = np.round(values, digits) if abs(digits) <= 15 else values
        # The round trip through float32 must not move a value past the range that it came from.
        inside = np.clip(values, self.low, self.high)
        # An error on the logarithmic scale is one relative to the value.
        near = np.isclose(values, inside, rtol=max(1e-6, 4 * noise) if self.unit else 1e-6)
        near |= np.abs(values - inside) <= (0.0 if self.unit else 2 * noise)
        values = np.where(near, inside, values)
        if self._clock is not None:
            return self._storage.write(self._clock.to_series(values, missing))
        return self._storage.write(restore(values, missing, self.dtype, self.name))

    def state(self) -> dict:
        """Plain description, for persistence."""
        state = {
            "name": self.name,
            "kind": self.kind,
            "dtype": dtype_to_state(self.dtype),
            "storage": self._storage.state(),
            "clock": self._clock.state() if self._clock is not None else None,
        }
        if self.kind == "class":
            return {**state, "column": self._column.state()}
        numbers = {key: getattr(self, key) for key in ("low", "high", "mean", "scale", "unit")}
        return {**state, **numbers}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = cls.__new__(cls)
        attribute.name, attribute.kind = state["name"], state["kind"]
        attribute.dtype = dtype_from_state(state["dtype"])
        attribute._storage = Storage.from_state(state["storage"])
        attribute._clock = Clock.from_state(state["clock"]) if state["clock"] else None
        attribute.levels, attribute._lookup = [], LevelLookup(())
        attribute.low = attribute.high = attribute.mean = attribute.unit = 0.0
        attribute.scale = 1.0
        if attribute.kind == "class":
            attribute._set_column(LevelColumn.from_state(state["column"]))
        else:
            for key in ("low", "high", "mean", "scale", "unit"):
                setattr(attribute, key, float(state[key]))
        return attribute


def _with_seconds(value: Any) -> Any:
    """Complete a time of day such as "18:30", as durations are read with seconds only."""
    return f"{value}:00" if isinstance(value, str) and re.fullmatch(r"\d+:\d\d", value) else value


def _log_unit(values: np.ndarray) -> float:
    """Smallest positive value of an attribute (n,) that a logarithmic scale suits, otherwise 0."""
    seen = values[np.isfinite(values)]
    positive = seen[seen > 0]
    if len(positive) == 0 or seen.min() < 0 or positive.max() < LOG_SPAN * positive.min():
        return 0.0
    linear, squeezed = seen, np.log1p(seen / positive.min())
    # The span alone would take uniform values that come close to zero: the logarithm must make them more even.
    return float(positive.min()) if abs(_skewness(squeezed)) < abs(_skewness(linear)) else 0.0


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    return float((centred**3).mean() / max(centred.std() ** 3, 1e-300))


def is_scalar(value: Any) -> bool:
    """Whether a value of a condition is one, and not one for each row or class."""
    if isinstance(value, list | tuple | Mapping):
        return False
    return value is None or isinstance(value, str | bytes) or np.ndim(value) == 0
