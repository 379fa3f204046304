"""Declared constraints between columns, true of every row by construction: ``a <= b``, ``total = a + b - c``.

A constraint rebuilds one of its columns from the others. For ``a <= b`` the model learns a and the gap b - a, which is
never negative, in the place of b; for ``total = a + b`` it learns a and b, and the total is computed. Where b is such a
total, the gap takes the place of a. Either way the rebuilt column is replaced by its difference from a base that the
other columns give, which leaves densities as they are: the change of variables has a unit Jacobian.
"""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns import (
    dtype_from_state,
    dtype_to_state,
    is_numeric,
    is_time,
    restore,
    to_float,
)
from tabdiff.codecs.columns.calendar import grid_from_state, number_grid_from_state
from tabdiff.codecs.columns.datetime import Clock, TimeGrid
from tabdiff.codecs.tables.constraint_parser import parse_constraint
from tabdiff.codecs.tables.rebuilt import TOLERANCE_FLOAT32, Rebuilt, check_rows, check_size, grid_of, unit_of
from tabdiff.utils.validation import did_you_mean

__all__ = ["Constraints"]


class Constraints:
    """Constraints between numeric columns, or between points in time.

    Parameters
    ----------
    texts : sequence of str or None
        ``a <= b``, ``a < b``, the same with ``>=`` and ``>``, and ``total = a + b - c``. A name that is no Python
        identifier stands in backticks: ```net price` <= `list price```.

    Attributes
    ----------
    rebuilt_ : list of Rebuilt
        The columns that are rebuilt, each after those that it is rebuilt from.

    Notes
    -----
    Missing values stay where they belong: a rebuilt column is missing as often as it was. A row that lacks the other
    columns of a constraint is bound by nothing; there the column is modelled as it is, less its smallest value or the
    terms that are present. A rebuilt value leaves its observed range only where the constraint forces it to.
    """

    def __init__(self, texts: Sequence[str] | None = None) -> None:
        if isinstance(texts, str):
            raise ValueError(f"constraints must be a list of strings; got {texts!r}. Use [{texts!r}].")
        self.texts = list(texts) if texts is not None else []
        self.rebuilt_: list[Rebuilt] = []
        # Counts all times from the same origin in the same unit, so that they can be compared.
        self._clock: Clock | None = None
        self._times: list[int] = []

    # ------------------------------------------------------------------ fit

    def fit(self, frame: pd.DataFrame) -> Self:
        """Check the constraints on the training rows (n, d).

        Raises
        ------
        ValueError
            For a text that cannot be read, unknown columns or ones that are no numbers, a column that two constraints
            rebuild, constraints that go round in a circle, integers too small for a sum, and constraints that rows
            break.
        """
        targets = _targets(self.texts, frame)
        graph = {t.column: {j for _, j in t.parts} for t in targets.values()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = set(error.args[1])
            texts = sorted({text for j in circle for text in targets[j].texts})
            names = [frame.columns[j] for j in sorted(circle)]
            raise ValueError(
                f"constraints {texts} determine {names} in a circle. Leave one of them out; 'a = b' says that two "
                "columns are equal."
            ) from None
        self._set_clock(frame, [j for j in order if is_time(frame.dtypes.iloc[j])])
        values = {j: self._numbers(frame, j) for j in order}
        self.rebuilt_ = [targets[j] for j in order if j in targets]
        units = {j: unit_of(v, frame.dtypes.iloc[j]) for j, v in values.items()}
        ranges = {
            j: (float(np.nanmin(v)), float(np.nanmax(v))) if not np.isnan(v).all() else (0.0, 0.0)
            for j, v in values.items()
        }
        for t in self.rebuilt_:
            v, involved = values[t.column], [t.column, *(j for _, j in t.parts)]
            t.dtype, t.name = frame.dtypes.iloc[t.column], frame.columns[t.column]
            t.low, t.high = ranges[t.column]
            t.unit = units[t.column]
            decimals = [unit[1] if unit is not None else None for unit in (units[j] for j in involved)]
            t.decimals = None if None in decimals else max(decimals)  # type: ignore[type-var]
            if any(frame.dtypes.iloc[j] == np.float32 for j in involved):
                t.tolerance = TOLERANCE_FLOAT32
            t.missing, t.distinct = bool(np.isnan(v).any()), len(np.unique(v[~np.isnan(v)]))
            check_rows(t, values, frame.index)
            if t.kind != "sum":
                t.grid = self._find_grid(t, v)
            ranges[t.column] = check_size(t, ranges)
        return self

    def _set_clock(self, frame: pd.DataFrame, times: list[int]) -> None:
        self._times = [j for j in times if frame.iloc[:, j].notna().any()]
        if not self._times:
            return
        dtypes = {frame.dtypes.iloc[j] for j in self._times}
        if len(dtypes) > 1:
            own = {frame.columns[j]: str(frame.dtypes.iloc[j]) for j in self._times}
            raise ValueError(
                f"constraints compare the times {list(own)}, which must have one dtype; got {own}. {_one_dtype(own)}"
            )
        self._clock = Clock(pd.concat([frame.iloc[:, j].dropna() for j in self._times], ignore_index=True), "times")

    def _find_grid(self, t: Rebuilt, values: np.ndarray) -> Any:
        if t.column in self._times and self._clock is not None:
            return self._clock.find_grid(np.unique(values[~np.isnan(values)]))
        return grid_of(values, t.dtype)

    def _numbers(self, frame: pd.DataFrame, j: int) -> np.ndarray:
        """Values of a column as float64, (n,), NaN where missing."""
        series = frame.iloc[:, j]
        if j in self._times and self._clock is not None:
            return self._clock.read(series)
        return np.full(len(series), np.nan) if series.isna().all() else to_float(series, frame.columns[j])

    def _write_gap(self, t: Rebuilt, gap: np.ndarray) -> Any:
        """Array (n,) of a gap: float64, for times a timedelta in their resolution, NaN or NaT where missing."""
        if t.column not in self._times or self._clock is None:
            return gap
        unit = self._clock.dtype.unit if isinstance(self._clock.dtype, pd.DatetimeTZDtype) else None
        unit = unit or np.datetime_data(self._clock.dtype)[0]
        integers = np.rint(np.nan_to_num(gap)).astype(np.int64) * self._clock.step_
        return pd.Series(integers.view(f"m8[{unit}]")).mask(np.isnan(gap)).array

    def _read_gap(self, t: Rebuilt, frame: pd.DataFrame) -> np.ndarray:
        """Inverse of `_write_gap`."""
        series = frame.iloc[:, t.column]
        if t.column not in self._times or self._clock is None:
            return series.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(series.isna(), np.nan, series.array.asi8 / self._clock.step_)

    # ------------------------------------------------------ there and back

    def reduce(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Replace each rebuilt column of a frame (n, d) by its difference from its base."""
        if not self.rebuilt_:
            return frame
        out, values = frame.copy(deep=False), self._all_numbers(frame)
        for t in self.rebuilt_:
            gap = t.side * (values[t.column] - t.base(values))
            if t.kind == "sum":
                gap = np.where(np.abs(gap) <= t.slack(values), 0.0, gap)
            if t.decimals is not None:
                gap = np.round(gap, t.decimals)
            out.isetitem(t.column, self._write_gap(t, gap))
        return out

    def rebuild(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Inverse of :meth:`reduce`: a frame (n, d) of the fitted dtypes, in which every constraint holds."""
        if not self.rebuilt_:
            return frame
        out, values = frame.copy(deep=False), self._all_numbers(frame, rebuilt=False)
        for t in self.rebuilt_:
            gap = self._read_gap(t, frame)
            missing, bound = np.isnan(gap), t.bound_rows(values)
            base = t.base(values)
            free = np.clip(base + t.side * np.nan_to_num(gap), t.low, t.high)
            v = np.where(bound, base, free) if t.kind == "sum" else t.keep(free, values)
            if t.kind == "sum" and t.decimals is not None:
                v = np.round(v, t.decimals)
            out.isetitem(t.column, self._restore(t, v, missing).set_axis(frame.index))
            values[t.column] = self._numbers(out, t.column)
        return out

    def _all_numbers(self, frame: pd.DataFrame, *, rebuilt: bool = True) -> dict[int, np.ndarray]:
        """Values of all columns of the constraints, or of those alone that are not rebuilt."""
        targets = {t.column for t in self.rebuilt_}
        used = {j for t in self.rebuilt_ for _, j in t.parts} - targets
        return {j: self._numbers(frame, j) for j in (used | targets if rebuilt else used)}

    def _restore(self, t: Rebuilt, v: np.ndarray, missing: np.ndarray) -> pd.Series:
        if t.column in self._times and self._clock is not None:
            return self._clock.to_series(v, missing).rename(t.name)
        if is_time(t.dtype):
            return pd.Series(pd.NaT, range(len(v)), dtype=t.dtype, name=t.name)
        return restore(v, missing, t.dtype, t.name)

    # ---------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        rebuilt = [
            {**vars(t), "dtype": dtype_to_state(t.dtype), "grid": None if t.grid is None else t.grid.state()}
            for t in self.rebuilt_
        ]
        return {
            "texts": self.texts,
            "rebuilt": rebuilt,
            "times": self._times,
            "clock": self._clock.state() if self._clock is not None else None,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        self = cls(state["texts"])
        self.rebuilt_ = [Rebuilt(**{**t, "dtype": dtype_from_state(t["dtype"])}) for t in state["rebuilt"]]
        self._times = list(state["times"])
        self._clock = Clock.from_state(state["clock"]) if state["clock"] is not None else None
        for t in self.rebuilt_:
            if t.grid is not None and t.column in self._times and self._clock is not None:
                t.grid = TimeGrid(grid_from_state(t.grid), self._clock)
            elif t.grid is not None:
                t.grid = number_grid_from_state(t.grid)
        return self


def _targets(texts: Sequence[str], frame: pd.DataFrame) -> dict[int, Rebuilt]:
    """Read constraints and decide which column each rebuilds."""
    names = list(frame.columns)
    targets: dict[int, Rebuilt] = {}
    bounds: list[tuple[str, int, int, int]] = []
    for text in texts:
        left, operator, right = parse_constraint(text)
        for _, name in left + right:
            _check_column(text, name, names, frame)
        if operator == "=":
            _add(targets, _sum(text, left, right, frame), names)
            continue
        if len(left) > 1 or len(right) > 1 or left[0][0] < 0 or right[0][0] < 0:
            raise ValueError(
                f"constraint {text!r}: each side of {operator!r} must be a single column. Add the sum as a column."
            )
        lower, upper = (names.index(side[0][1]) for side in ((right, left) if operator[0] == ">" else (left, right)))
        if is_time(frame.dtypes.iloc[lower]) != is_time(frame.dtypes.iloc[upper]):
            raise ValueError(f"constraint {text!r} compares a time with a number.")
        bounds.append((text, lower, upper, int("=" not in operator)))
    # The upper column is rebuilt, but not if it is a sum; and so on downwards, for what is rebuilt from above.
    below = set(targets)
    while new := {lower for _, lower, upper, _ in bounds if upper in below} - below:
        below |= new
    for text, lower, upper, strict in bounds:
        if upper in below:
            _add(targets, Rebuilt(lower, "below", [text], [(strict, upper)]), names)
        else:
            _add(targets, Rebuilt(upper, "above", [text], [(strict, lower)]), names)
    return targets


def _one_dtype(dtypes: dict[Any, str]) -> str:
    """Return how times of the dtypes, by the names of their columns, become comparable."""
    if len({name.startswith("timedelta") for name in dtypes.values()}) > 1:
        return "A point in time and a duration are not compared: leave the constraint out."
    zoned = next((name for name in dtypes.values() if "," in name), None)
    # The finest unit holds the times of all others.
    units = ["s]", "ms]", "us]", "ns]"]
    wanted = zoned or max(dtypes.values(), key=lambda name: units.index(name.split("[")[1]))
    fixes = []
    for column, name in dtypes.items():
        if name == wanted:
            continue
        if zoned is None:
            convert = "timedelta" if name.startswith("timedelta") else "datetime"
            fixes.append(f"df[{column!r}] = pd.to_{convert}(df[{column!r}]).astype({wanted!r})")
        else:
            to = "convert" if "," in name else "localize"
            zone = zoned.split(", ")[1][:-1]
            fixes.append(f"df[{column!r}] = df[{column!r}].dt.tz_{to}({zone!r}).astype({wanted!r})")
    return f"Convert them to one: {'; '.join(fixes)}."


def _sum(text: str, left: list[tuple[int, str]], right: list[tuple[int, str]], frame: pd.DataFrame) -> Rebuilt:
    names = list(frame.columns)
    if len(left) > 1 or left[0][0] < 0:
        left, right = right, left
    if len(left) > 1 or left[0][0] < 0:
        raise ValueError(f"constraint {text!r}: one side must be a single column, as in 'total = a + b - c'.")
    times = [name for _, name in left + right if is_time(frame[name].dtype)]
    if times:
        raise ValueError(f"constraint {text!r}: sums are for numbers, but {times} hold times.")
    formula = "".join(f" {'+' if sign > 0 else '-'} {name}" for sign, name in right).removeprefix(" + ").strip()
    return Rebuilt(names.index(left[0][1]), "sum", [text], [(s, names.index(name)) for s, name in right], formula)


def _add(targets: dict[int, Rebuilt], new: Rebuilt, names: list) -> None:
    """Add a constraint to those of the column that it rebuilds."""
    old = targets.setdefault(new.column, new)
    if old is new:
        return
    if old.kind != new.kind or new.kind == "sum":
        raise ValueError(
            f"constraints {old.texts + new.texts} both determine {names[new.column]!r}. Leave one of them out, or "
            "solve a sum for another of its columns."
        )
    old.texts, old.parts = old.texts + new.texts, old.parts + new.parts


def _check_column(text: str, name: str, names: list, frame: pd.DataFrame) -> None:
    if names.count(name) != 1:
        hint = did_you_mean(name, names)
        what = "stands more than once" if name in names else "is no column"
        raise ValueError(
            f"constraint {text!r}: {name!r} {what}.{hint} Columns that are modelled, without conditions: {names}."
        )
    dtype = frame[name].dtype
    if not (is_numeric(dtype) or is_time(dtype)):
        raise ValueError(f"constraint {text!r}: column {name!r} has dtype {dtype}, but numbers or times are needed.")
