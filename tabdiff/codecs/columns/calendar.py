"""Times that keep to a calendar: the first of the month, working days, ends of quarters, shop hours, and 20240131.

Days are described by a few attributes (the weekday, the day of the month and so on). The one whose values in the
training rows are least likely to be so few by chance is held to these values, then the next among the days that are
left, until chance would do (`tabdiff.codecs.columns.grids` says when). So an end of a quarter is the last day of a
month in months 3, 6, 9 and 12. Times of day are held to those that were seen, or between the earliest and the latest.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tabdiff.codecs.columns.grids import (
    LOG_MAX_CHANCE,
    MAX_UNSEEN,
    Grid,
    NumberGrid,
    Residues,
    Window,
    find_residues,
    log_chance,
    runs,
)

__all__ = [
    "DateNumbers",
    "Days",
    "Moments",
    "find_number_grid",
    "find_times",
    "grid_from_state",
    "number_grid_from_state",
]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# How the days of an attribute are called: one of its values, and several.
ATTRIBUTES = {
    "weekday": ("{}", "{}"),
    "month": ("month {}", "months {}"),
    "day": ("day {} of the month", "days {} of the month"),
    "days_left": ("{} days before the last of the month", "{} days before the last of the month"),
    "week": ("week {} of the month", "weeks {} of the month"),
    "weeks_left": ("{} weeks before the last of the month", "{} weeks before the last of the month"),
    "working_day": ("working day {} of the month", "working days {} of the month"),
    "working_days_left": ("{} working days before the last", "{} working days before the last"),
}
LAST = {
    "days_left": "last of the month",
    "weeks_left": "last 7 days of the month",
    "working_days_left": "last working day of the month",
}
# Columns that span more days than this, 2,700 years, are not looked at.
MAX_DAYS = 1_000_000
# A day of a rule is looked for so far beyond the days at hand, and up to this.
REACH, MAX_REACH = 800, 50_000


class Days(Grid):
    """Days, counted from 1970, whose attributes have certain values.

    Parameters
    ----------
    values : dict of str to sequence of int
        Values by attribute, one of `ATTRIBUTES`; without any, all days.
    period, phase : int
        Days are `phase` + multiples of `period`.

    Examples
    --------
    >>> days = np.array(["2024-02-14"], dtype="M8[D]").astype(int)
    >>> Days({"days_left": [0]}).nearest(days).astype("M8[D]")
    array(['2024-01-31'], dtype='datetime64[D]')
    """

    kind = "days"

    def __init__(self, values: dict[str, Sequence[int]], period: int = 1, phase: int = 0) -> None:
        self.values = {name: sorted(int(v) for v in some) for name, some in values.items()}
        self.period, self.phase = int(period), int(phase)

    def _between(self, first: int, last: int) -> np.ndarray:
        """All days of the rule from the first to the last."""
        first += (self.phase - first) % self.period
        days = np.arange(first, last + 1, self.period)
        attributes = _attributes(days)
        keep = np.ones(len(days), dtype=bool)
        for name, some in self.values.items():
            keep &= np.isin(attributes[name], some)
        return days[keep]

    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each day (n,) the latest of the rule that is not after it, itself where there is none."""
        return self._search(ticks, -1)

    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each day (n,) the earliest of the rule that is not before it, itself where there is none."""
        return self._search(ticks, 1)

    def _search(self, ticks: np.ndarray, side: int) -> np.ndarray:
        if len(ticks) == 0:
            return ticks
        far = np.abs(ticks - np.median(ticks)) > MAX_DAYS
        if far.any():  # They would need a calendar too long to be made.
            out = ticks.copy()
            out[~far] = self._search(ticks[~far], side)
            return out
        first, last, reach = int(ticks.min()), int(ticks.max()), REACH
        while True:
            days = self._between(first - reach, last) if side < 0 else self._between(first, last + reach)
            found = len(days) > 0 and (days[0] <= first if side < 0 else days[-1] >= last)
            if found or reach > MAX_REACH:
                break
            reach *= 4
        if len(days) == 0:
            return ticks
        i = np.searchsorted(days, ticks, side="right") - 1 if side < 0 else np.searchsorted(days, ticks)
        inside = (i >= 0) & (i < len(days))
        return np.where(inside, days[np.clip(i, 0, len(days) - 1)], ticks)

    def describe(self) -> str:
        """Return the rule in words."""
        parts = []
        for name, some in self.values.items():
            if name in LAST and some == [0]:
                parts.append(LAST[name])
                continue
            offset = name in ("week", "working_day")  # counted from 1 in words
            names = [WEEKDAYS[v] if name == "weekday" else str(v + offset) for v in some]
            parts.append(ATTRIBUTES[name][len(some) > 1].format(runs(some, names)))
        return ", ".join(parts) if parts else "valid dates"


class Moments(Grid):
    """Points in time: times of day on certain days.

    Parameters
    ----------
    per_day : int
        Ticks of a day.
    time_of_day : Residues or Window
        With `per_day` as the modulus; a window that reaches past midnight goes with all days.
    days : Days, optional
        By default all.
    """

    kind = "moments"

    def __init__(self, per_day: int, time_of_day: Residues | Window, days: Days | None = None) -> None:
        self.per_day, self.time_of_day, self.days = int(per_day), time_of_day, days
        if isinstance(time_of_day, Residues):
            self._first, self._last = time_of_day.residues[0], time_of_day.residues[-1]
        else:
            self._first, self._last = time_of_day.start, time_of_day.start + time_of_day.length

    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each tick (n,) the latest of the rule that is not after it."""
        found = self.time_of_day.below(ticks)
        if self.days is None:
            return found
        day = self.days.below(found // self.per_day)
        return np.where(day == found // self.per_day, found, day * self.per_day + self._last)

    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each tick (n,) the earliest of the rule that is not before it."""
        found = self.time_of_day.above(ticks)
        if self.days is None:
            return found
        day = self.days.above(found // self.per_day)
        return np.where(day == found // self.per_day, found, day * self.per_day + self._first)

    def describe(self) -> str:
        """Return the rule in words."""
        parts = [self.days.describe()] if self.days is not None else []
        if isinstance(self.time_of_day, Window):
            if self.time_of_day.length < self.per_day * 0.999:
                parts.append(f"from {self._clock(self._first)} to {self._clock(self._last % self.per_day)}")
        elif self.time_of_day.residues != [0]:
            shown = [self._clock(r) for r in self.time_of_day.residues[:8]]
            more = len(self.time_of_day.residues) - len(shown)
            parts.append("at " + ", ".join(shown) + (f" and {more} more times" if more else ""))
        return ", ".join(parts)

    def _clock(self, tick: int) -> str:
        seconds = tick * 86_400 // self.per_day
        text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
        return text if seconds % 60 == 0 else f"{text}:{seconds % 60:02d}"

    def state(self) -> dict:
        """Plain description, for persistence."""
        days = self.days.state() if self.days is not None else None
        return {"kind": self.kind, "per_day": self.per_day, "time_of_day": self.time_of_day.state(), "days": days}


class DateNumbers(Grid):
    """Dates written as numbers, 20240131.

    Parameters
    ----------
    days : Days
        Which dates.

    Examples
    --------
    >>> DateNumbers(Days({})).nearest(np.array([20230229, 20241301]))
    array([20230228, 20241231])
    """

    kind = "date_numbers"

    def __init__(self, days: Days) -> None:
        self.days = days

    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each number (n,) the largest date that is not above it."""
        return _to_number(self.days.below(_to_day(ticks)))

    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each number (n,) the smallest date that is not below it."""
        day = _to_day(ticks)
        return _to_number(self.days.above(day + (_to_number(day) < ticks)))

    def describe(self) -> str:
        """Return the rule in words."""
        return "dates as yyyymmdd" + (f", {self.days.describe()}" if self.days.values else "")

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"kind": self.kind, "days": self.days.state()}


def grid_from_state(state: dict) -> Any:
    """Inverse of `Grid.state`."""
    kinds: dict[str, Any] = {grid.kind: grid for grid in (Residues, Window, Days, Moments, DateNumbers)}
    inner = {k: grid_from_state(v) if k in ("days", "time_of_day") and v is not None else v for k, v in state.items()}
    return kinds[inner.pop("kind")](**inner)


def number_grid_from_state(state: dict) -> NumberGrid:
    """Inverse of `NumberGrid.state`."""
    return NumberGrid(grid_from_state(state["rule"]), int(state["decimals"]))


# ------------------------------------------------------------------ finding


def find_number_grid(values: np.ndarray, unit: tuple[int, int] | None) -> NumberGrid | None:
    """Find the grid of a column of numbers.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Distinct values in order.
    unit : (int, int) or None
        (k, d) if all are multiples of k / 10**d; without a unit there is no grid.
    """
    if unit is None or len(values) < 3:
        return None
    multiple, decimals = unit
    ticks = np.rint(values * 10.0**decimals).astype(np.int64)
    if decimals == 0 and multiple == 1:
        dates = _find_dates(ticks)
        if dates is not None:
            return NumberGrid(dates)
    residues = find_residues(ticks, multiple)
    return None if residues is None else NumberGrid(residues, decimals)


def _find_dates(ticks: np.ndarray) -> DateNumbers | None:
    if ticks[0] < 1000_01_01 or ticks[-1] > 9999_12_31:
        return None
    days = _to_day(ticks)
    if (_to_number(days) != ticks).any():
        return None
    share = (days[-1] - days[0] + 1) / (ticks[-1] - ticks[0] + 1)
    if len(ticks) * math.log(share) > LOG_MAX_CHANCE:
        return None
    return DateNumbers(_find_days(days) or Days({}))


def find_times(ticks: np.ndarray, step: int, per_day: int) -> Moments | None:
    """Find the grid of points in time.

    Parameters
    ----------
    ticks : int64 array (m,)
        Distinct values in order, by the clock on the wall, since 1970.
    step : int
        What divides their differences.
    per_day : int
        Ticks of a day.
    """
    if len(ticks) < 3:
        return None
    days = np.unique(ticks // per_day)
    if step % per_day == 0:
        time_of_day = np.unique(ticks % per_day)
        rule = _find_days(days, step // per_day) if len(time_of_day) == 1 else None
        return None if rule is None else Moments(per_day, Residues(per_day, time_of_day.tolist()), rule)
    if per_day % step:
        return None
    found = _find_time_of_day(ticks, step, per_day)
    past_midnight = isinstance(found, Window) and found.start + found.length >= per_day
    rule = None if past_midnight else _find_days(days)
    if found is None and rule is None:
        return None
    return Moments(per_day, found or Window(per_day, int(ticks[0] % step), per_day - step), rule)


def _find_days(days: np.ndarray, period: int = 1) -> Days | None:
    """Find what days (m,), distinct and in order, have in common; None if nothing."""
    first, last = int(days[0]), int(days[-1])
    if last - first > MAX_DAYS:
        return None
    every = np.arange(first, last + 1, period)
    theirs, all_days = _attributes(days), _attributes(every)
    allowed = np.ones(len(every), dtype=bool)
    values: dict[str, Sequence[int]] = {}
    while True:
        best, chance, values_of_best = None, LOG_MAX_CHANCE, np.empty(0, dtype=np.int64)
        for name in ATTRIBUTES.keys() - values.keys():
            possible = np.unique(all_days[name][allowed])
            seen = np.unique(theirs[name])
            between = possible[(possible >= seen[0]) & (possible <= seen[-1])]
            n_seen, n_between = (int((np.isin(all_days[name], some) & allowed).sum()) for some in (seen, between))
            if log_chance(len(between), len(seen), len(days), n_seen / n_between) > LOG_MAX_CHANCE:
                seen, n_seen = between, n_between
            in_a_row = len(seen) == len(between)
            of_this = log_chance(len(possible), len(seen), len(days), n_seen / allowed.sum(), in_a_row=in_a_row)
            of_this += math.log(len(ATTRIBUTES))
            if (of_this, name) < (chance, best or "~"):
                best, chance, values_of_best = name, of_this, seen
        if best is None:
            break
        values[best] = values_of_best.tolist()
        allowed &= np.isin(all_days[best], values[best])
    return Days(values, period, first % period) if values else None


def _find_time_of_day(ticks: np.ndarray, step: int, per_day: int) -> Residues | Window | None:
    """Find the times of day of points in time (m,), distinct and in order; None if chance would have them so."""
    first, last, m = int(ticks[0]), int(ticks[-1]), len(ticks)
    possible, total = per_day // step, (last - first) // step + 1
    seen, often = np.unique(ticks % per_day, return_counts=True)
    times = Residues(per_day, seen.tolist())
    # The longest time of day without a value, which may lie across midnight.
    gaps = np.diff(np.append(seen, seen[0] + per_day))
    before = int(gaps.argmax())
    window = Window(per_day, int(seen[(before + 1) % len(seen)]), per_day - int(gaps[before]))
    n_times, n_window = times.count(first, last), window.count(first, last, step)
    best: Residues | Window = window
    of_this = log_chance(possible, 1, m, n_window / total, in_a_row=True)
    all_seen = (often == 1).sum() <= max(1, MAX_UNSEEN * m)
    if all_seen and log_chance(window.length // step + 1, len(seen), m, n_times / n_window) < LOG_MAX_CHANCE:
        best, of_this = times, log_chance(possible, len(seen), m, n_times / total)
    return best if of_this + math.log(2) < LOG_MAX_CHANCE else None


def _attributes(days: np.ndarray) -> dict[str, np.ndarray]:
    """Return the attributes of days (n,), counted from 1970; weekends have no working day, -1."""
    dates = days.astype("M8[D]")
    months = dates.astype("M8[M]")
    first, after = months.astype("M8[D]"), (months + 1).astype("M8[D]")
    day, left = (dates - first).astype(np.int64), (after - dates).astype(np.int64) - 1
    weekday = (days + 3) % 7  # 1970 began on a Thursday
    working = weekday < 5
    return {
        "weekday": weekday,
        "month": months.astype(np.int64) % 12 + 1,
        "day": day + 1,
        "days_left": left,
        "week": day // 7,
        "weeks_left": left // 7,
        "working_day": np.where(working, np.busday_count(first, dates), -1),
        "working_days_left": np.where(working, np.busday_count(dates, after) - 1, -1),
    }


def _to_day(numbers: np.ndarray) -> np.ndarray:
    """Return the latest day, counted from 1970, that is not after each yyyymmdd (n,)."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    # Months are counted from year 0; what is below the first month or day is the end of the one before.
    months = (year - 1970) * 12 + np.minimum(month, 12) - 1
    start = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    end = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    inside = start + np.where(month > 12, 31, day) - 1
    return np.where(month < 1, start, 0) + np.where(month < 1, end - start - 1, np.minimum(inside, end - 1))


def _to_number(days: np.ndarray) -> np.ndarray:
    """Return days (n,), counted from 1970, as yyyymmdd."""
    dates = days.astype("M8[D]")
    months = dates.astype("M8[M]")
    month = months.astype(np.int64)
    day = (dates - months.astype("M8[D]")).astype(np.int64) + 1
    return (month // 12 + 1970) * 10_000 + (month % 12 + 1) * 100 + day
