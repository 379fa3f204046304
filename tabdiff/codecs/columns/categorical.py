"""Categories, strings, booleans and few-valued columns as codes, without loss of dtype, categories or order."""

import difflib
from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns.base import Column
from tabdiff.codecs.columns.keys import MIN_ROOM, KeyForm, new_keys
from tabdiff.utils.dtypes import (
    dtype_from_state,
    dtype_to_state,
    is_numeric,
    plain,
    time_text,
    values_from_state,
    values_to_state,
)
from tabdiff.utils.random import RowStreams

__all__ = ["ConstantColumn", "LevelColumn", "unknown_level_message"]

# A level that was seen less often has too few rows for the network to learn what goes with it, if there are so many
# levels that they are pooled at all.
MIN_OWN_COUNT = 5
# Largest distance from the range that tells in a score, in standard deviations.
FARTHEST = 1e100
# From here on, a column without a value that repeats is taken for an identifier.
MIN_IDENTIFIER_ROWS = 50


class LevelColumn(Column):
    """A code per level of a categorical, string, boolean or few-valued column; missing is a level of its own.

    Parameters
    ----------
    series : Series of shape (n,)
        The column, standardised.
    name : hashable
        Column name, for messages and output.
    max_codes : int, optional
        Pool the rare levels where there are more than this many, or where all values differ: the commonest
        `max_codes`, if seen five times, keep a code of their own, and all others share one. Decoding that code draws
        among the levels behind it by their observed frequency, whatever the other columns say. None never pools.

    Attributes
    ----------
    levels_ : list
        Levels seen at fit, in order: the dtype's for categories, sorted for the others.
    counts_ : ndarray of shape (len(levels_),)
        How often each was seen.
    n_rare_ : int
        Number of levels that share a code; 0 where each has its own.
    has_missing_ : bool
        Whether missing values were seen; their code is the last.
    is_identifier_ : bool
        Whether the column is pooled and no value repeats.
    form_ : KeyForm or None
        How identifiers look, by which decoding draws new ones; None where levels that were seen are drawn.

    Raises
    ------
    TypeError
        If an object column holds values of different types, or of one that cannot be modelled.

    Notes
    -----
    Codes are those of the levels with their own, in the order of `levels_`, then the one of the rare, then the
    missing. The network sees at most `max_codes` + 2 levels, so that memory does not grow with n × levels.
    """

    def __init__(self, series: pd.Series, name: Any, *, max_codes: int | None = None) -> None:
        codes, values = _factorize(series, name)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        self._learn(values, counts, series.dtype, name, bool((codes < 0).any()), max_codes)

    @classmethod
    def of_counts(
        cls, series: pd.Series, counts: np.ndarray, name: Any, *, has_missing: bool, max_codes: int | None = None
    ) -> Self:
        """Return the column whose levels (k,) were counted (k,) already, none of them missing.

        Examples
        --------
        >>> column = LevelColumn.of_counts(pd.Series(["b", "a"]), np.array([2, 7]), "x", has_missing=False)
        >>> column.levels_, column.counts_
        (['a', 'b'], array([7, 2]))
        """
        column = cls.__new__(cls)
        codes, values = _factorize(series, name)
        # A level that was counted and is rare is still one.
        counted = np.maximum(np.rint(np.bincount(codes, counts, minlength=len(values))), 1).astype(np.int64)
        column._learn(values, counted, series.dtype, name, has_missing, max_codes)
        return column

    def _learn(
        self, values: Any, counts: np.ndarray, dtype: Any, name: Any, has_missing: bool, max_codes: int | None
    ) -> None:
        self.dtype, self.name, self.has_missing_ = dtype, name, has_missing
        if isinstance(self.dtype, pd.CategoricalDtype):
            order = np.argsort(values.codes, kind="stable")
        else:
            _check_types(values, self.dtype, name)
            order = np.argsort(np.asarray(values), kind="stable")
        self._set_levels(values.take(order), counts[order])
        own = np.ones(len(counts), dtype=bool)
        self.is_identifier_ = max_codes is not None and len(counts) == counts.sum() >= MIN_IDENTIFIER_ROWS
        if max_codes is not None and (len(counts) > max_codes or self.is_identifier_):
            commonest = np.argsort(-self.counts_, kind="stable")[:max_codes]
            own = np.zeros(len(counts), dtype=bool)
            own[commonest] = self.counts_[commonest] >= MIN_OWN_COUNT
        self._set_codes(own)
        self.form_ = self._find_form()

    def _find_form(self) -> KeyForm | None:
        """How identifiers look, if they are text or whole numbers, and if there are enough new ones."""
        whole = pd.api.types.is_integer_dtype(self.dtype)
        if not self.is_identifier_ or isinstance(self.dtype, pd.CategoricalDtype):
            return None
        if not whole and not all(isinstance(v, str) for v in self.levels_):
            return None
        if whole and min(self.levels_) < 0:
            return None
        form = KeyForm([str(v) for v in self.levels_])
        if whole and form.room < MIN_ROOM * len(self.levels_):
            form = form.longer()
        if whole and max(len(s) for s in form.shapes) > len(str(2**53)) - 1:
            return None
        return form if form.room >= MIN_ROOM * len(self.levels_) else None

    def _set_levels(self, values: Any, counts: np.ndarray) -> None:
        # Factorising turns half-precision floats into wider ones.
        values = values.astype(self.dtype) if self.dtype == np.float16 else values
        self._values, self.counts_ = values, counts.astype(np.int64)
        self.levels_ = [plain(v) for v in values]
        _check_text(self.levels_, self.name)
        self._index = pd.Index(self.levels_, dtype=object)

    def _set_codes(self, own: np.ndarray) -> None:
        """Lay out the codes, `own` (n_levels,) saying which levels have one of their own."""
        self._own, self._rare = np.flatnonzero(own), np.flatnonzero(~own)
        self.n_rare_ = len(self._rare)
        self._code_of = np.full(len(own), len(self._own))
        self._code_of[self._own] = np.arange(len(self._own))

    @property
    def n_levels_(self) -> int:
        """Number of codes, those of the rare and of missing values included."""
        return len(self._own) + (self.n_rare_ > 0) + self.has_missing_

    def encode(self, series: pd.Series) -> np.ndarray:
        """Map a Series (n,) to codes (n,) as float64.

        A number that is no level goes to the nearest: a value between two levels is no unknown category.

        Raises
        ------
        ValueError
            For another level that was not seen at fit, and for missing values if there were none.
        """
        level = self._level_of(series)
        missing = level < 0
        if missing.any() and not self.has_missing_:
            raise ValueError(f"column {self.name!r} has missing values, but it had none at fit.")
        codes = self._code_of[level] if len(self._code_of) else level
        return np.where(missing, self.n_levels_ - 1, codes).astype(np.float64)

    def _level_of(self, series: pd.Series) -> np.ndarray:
        """Position in `levels_` of each value of a Series (n,), -1 for missing ones."""
        codes, values = _factorize(series, self.name)
        items = [plain(v) for v in values]
        known = self._index.get_indexer(pd.Index(items, dtype=object))
        unknown = np.flatnonzero(known < 0)
        if len(unknown) and is_numeric(self.dtype) and is_numeric(series.dtype) and self.levels_:
            self._check_finite(np.asarray(items, dtype=np.float64))
            known[unknown] = _nearest(np.asarray(self.levels_), np.asarray(items)[unknown])
        elif len(unknown):
            value = items[unknown[0]]
            raise ValueError(unknown_level_message(f"column {self.name!r}", value, self.levels_))
        # The last entry is what the missing code -1 picks.
        return np.append(known, -1)[codes]

    def _check_finite(self, values: np.ndarray) -> None:
        if np.isinf(values).any():
            raise ValueError(
                f"column {self.name!r} must hold finite values; got {int(np.isinf(values).sum())} infinite ones (inf). "
                "Replace them by a finite value, or by NaN, which stands for a missing one."
            )

    def is_unknown(self, series: pd.Series) -> np.ndarray:
        """Whether each value of a Series (n,) is one that `encode` refuses: not missing, and no level."""
        if is_numeric(self.dtype) and is_numeric(series.dtype) and self.levels_:
            return np.zeros(len(series), dtype=bool)
        codes, values = _factorize(series, self.name)
        unknown = self._index.get_indexer(pd.Index([plain(v) for v in values], dtype=object)) < 0
        return np.append(unknown, False)[codes]

    def distance(self, series: pd.Series) -> np.ndarray:
        """How far each value (n,) is outside the range of levels that are numbers, in their standard deviations."""
        if not (is_numeric(self.dtype) and is_numeric(series.dtype) and self.levels_):
            return np.zeros(len(series))
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        self._check_finite(values)
        levels = np.asarray(self.levels_, dtype=np.float64)
        mean = np.average(levels, weights=self.counts_)
        spread = np.sqrt(np.average((levels - mean) ** 2, weights=self.counts_)) or abs(mean) or 1.0
        with np.errstate(over="ignore"):
            outside = np.maximum(levels.min() - values, 0) + np.maximum(values - levels.max(), 0)
            return np.minimum(np.nan_to_num(outside / spread, posinf=FARTHEST), FARTHEST)

    def positions(self, series: pd.Series) -> np.ndarray:
        """Position (n,) of each value in `levels_`; missing is ``len(levels_)``. Rare levels have each their own."""
        level = self._level_of(series)
        return np.where(level < 0, len(self.levels_), level)

    def at(self, positions: np.ndarray) -> pd.Series:
        """Inverse of :meth:`positions`: a Series (n,) of the fitted dtype."""
        return self._take(np.where(positions == len(self.levels_), -1, positions))

    def log_share(self, series: pd.Series) -> np.ndarray:
        """Log of the share of each value (n,) among the levels behind its code: 0 for all but the rare ones."""
        level = self._level_of(series)
        shares = np.zeros(len(self.levels_) + 1)
        rare = self.counts_[self._rare]
        shares[self._rare] = np.log(rare) - np.log(max(rare.sum(), 1))
        return shares[level]

    def one_more_rare(self) -> tuple[int, float]:
        """Position of the rarest level behind the shared code, and by how much an unknown one's log-share is less."""
        counts = self.counts_[self._rare]
        rarest, total = int(counts.argmin()), int(counts.sum())
        return int(self._rare[rarest]), float(np.log(counts[rarest] / total) + np.log(total + 1.0))

    def rarest_codes(self, n: int) -> np.ndarray:
        """Return the n codes that were seen least often, all where there are no more; missing counts as never."""
        counts = [*self.counts_[self._own], *([self.counts_[self._rare].sum()] if self.n_rare_ else [])]
        counts += [0] if self.has_missing_ else []
        return np.argsort(counts, kind="stable")[:n]

    def decode(self, codes: np.ndarray, rng: np.random.Generator | RowStreams | None = None) -> pd.Series:
        """Map codes (n,) to a Series of the fitted dtype; NaN and the missing code become missing.

        `rng` draws among rare levels by their frequency; None draws them from a stream of fixed seed.
        """
        codes = np.asarray(codes, dtype=np.float64)
        missing = np.isnan(codes) | (codes >= len(self._own) + (self.n_rare_ > 0))
        level = np.full(len(codes), -1)
        rare = ~missing & (codes == len(self._own))
        own = ~missing & ~rare
        level[own] = self._own[codes[own].astype(np.int64)]
        if self.n_rare_:
            rng = np.random.default_rng(0) if rng is None else rng
            # A number for every row: what a row gets must not depend on how many rows before it are rare.
            uniform = rng.random(len(codes))[rare]
            if self.form_ is not None:
                return self._new(self.form_, np.flatnonzero(rare), missing, np.asarray(uniform))
            level[rare] = self._rare[pick(self.counts_[self._rare], uniform)]
        return self._take(level)

    def _new(self, form: KeyForm, rows: np.ndarray, missing: np.ndarray, uniform: np.ndarray) -> pd.Series:
        """Make a Series of new identifiers; missing ones stay."""
        values = np.empty(len(missing), dtype=object)
        values[:] = None
        keys = new_keys(form, {str(v) for v in self.levels_}, uniform)
        if pd.api.types.is_integer_dtype(self.dtype):
            values[rows] = [int(k) for k in keys]
            if not len(missing) or not missing.any():
                return pd.Series(values.astype(np.int64), name=self.name).astype(self.dtype)
            return pd.Series(pd.array(list(values), dtype="Int64"), name=self.name).astype(self.dtype)
        values[rows] = keys
        missing_value = self._take(np.array([-1])).iloc[0] if missing.any() else None
        values[missing] = missing_value
        return pd.Series(values, name=self.name, dtype=self.dtype)

    def _take(self, level: np.ndarray) -> pd.Series:
        """Make a Series of the levels at the positions (n,), -1 being missing."""
        if (level < 0).any():
            values = pd.api.extensions.take(self._values, level, allow_fill=True)
        else:
            values = self._values.take(level)
        # Given, because pandas 3 would take objects for its own strings.
        return pd.Series(values, name=self.name, dtype=values.dtype, copy=False)

    def state(self) -> dict:
        """Plain description, for persistence."""
        category = isinstance(self.dtype, pd.CategoricalDtype)
        return {
            "type": "levels",
            "name": self.name,
            "dtype": dtype_to_state(self.dtype),
            # Categories are in the dtype already, so their positions there will do.
            "levels": np.asarray(self._values.codes) if category else values_to_state(self._values),
            "counts": self.counts_,
            "rare": self._rare,
            "identifier": self.is_identifier_,
            "has_missing": self.has_missing_,
        } | ({} if self.form_ is None else {"form": self.form_.state()})

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        column = cls.__new__(cls)
        column.dtype, column.name = dtype_from_state(state["dtype"]), state["name"]
        if isinstance(column.dtype, pd.CategoricalDtype):
            values: Any = pd.Categorical.from_codes(state["levels"], dtype=column.dtype)
        else:
            values = _native(values_from_state(state["levels"]))
        column._set_levels(values, np.asarray(state["counts"]))
        own = np.ones(len(values), dtype=bool)
        own[np.asarray(state["rare"])] = False
        column._set_codes(own)
        column.is_identifier_, column.has_missing_ = bool(state["identifier"]), bool(state["has_missing"])
        column.form_ = KeyForm.from_state(state["form"]) if state.get("form") else None
        return column


class ConstantColumn(LevelColumn):
    """A column with a single value, or none but missing ones: nothing to learn, returned as it was."""

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**super().state(), "type": "constant"}


def pick(counts: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return a position in counts (k,) for each number (n,) in [0, 1), as often as its count says."""
    edges = np.cumsum(counts)
    # A product just below the sum may be rounded up to it.
    return np.minimum(np.searchsorted(edges, uniform * edges[-1], side="right"), np.flatnonzero(counts)[-1])


def _factorize(series: pd.Series, name: Any) -> tuple[np.ndarray, Any]:
    """Return codes (n,), -1 where missing, and the array of distinct values in order of appearance."""
    try:
        codes, values = pd.factorize(series)
    except TypeError:
        raise TypeError(
            f"column {name!r} holds values of type {type(series.dropna().iloc[0]).__name__}, which cannot be "
            "modelled; numbers, strings, booleans, times and categories of those can. Drop it, or convert it, for "
            f'example df[{name!r}].astype("string").'
        ) from None
    return codes, _native(values.array)


def _native(values: Any) -> Any:
    """Unwrap the array that pandas makes of a NumPy one; its string arrays are a subclass and stay."""
    return values.to_numpy() if type(values) is pd.arrays.NumpyExtensionArray else values


def _nearest(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Position of the level (sorted, numeric) that is nearest to each value."""
    right = np.clip(np.searchsorted(levels, values), 1, max(len(levels) - 1, 1))
    if len(levels) == 1:
        return np.zeros(len(values), dtype=np.int64)
    return right - (values - levels[right - 1] <= levels[right] - values)


def _check_types(values: Any, dtype: Any, name: Any) -> None:
    """Raise a TypeError unless the distinct values of an object column are of one type that can be modelled."""
    if not pd.api.types.is_object_dtype(dtype):
        return
    kinds = sorted({_kind(v) for v in values})
    if len(kinds) > 1:
        raise TypeError(
            f"column {name!r} has dtype {dtype} and mixes values of types {kinds}. Convert it to one "
            f'type, for example df[{name!r}] = df[{name!r}].astype("string").'
        )
    if kinds and kinds[0] not in ("str", "number", "bool", "bytes", "UUID"):
        raise TypeError(
            f"column {name!r} holds values of type {kinds[0]}, which cannot be modelled; numbers, strings, booleans, "
            f'times and categories of those can. Drop it, or convert it, for example df[{name!r}].astype("string").'
        )


def _check_text(levels: list, name: Any) -> None:
    """Raise a ValueError if text holds half a character: pandas takes all of those for one another."""
    try:
        "".join(v for v in levels if isinstance(v, str)).encode("utf-8")
    except UnicodeEncodeError as error:
        odd = error.object[error.start : error.end]
        raise ValueError(
            f"column {name!r} holds text that is no valid Unicode: {odd!r}, half of a character. Repair it, for "
            f'example df[{name!r}].str.encode("utf-8", "replace").str.decode("utf-8").'
        ) from None


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | float | np.integer | np.floating):
        return "number"
    return "str" if isinstance(value, str) else type(value).__name__


def unknown_level_message(where: str, value: Any, levels: list) -> str:
    """Text of the error for a level that was not seen at fit: the known ones and the nearest match."""
    value = plain(value)
    shown = ", ".join(_shown(v) for v in levels[:20]) + (f", ... ({len(levels)} in all)" if len(levels) > 20 else "")
    by_text = {time_text(v).casefold(): v for v in levels}
    nearest = difflib.get_close_matches(time_text(value).casefold(), list(by_text), n=1, cutoff=0.5)
    hint = f" Did you mean {_shown(by_text[nearest[0]])}?" if nearest else ""
    return f"{where}: unknown value {_shown(value)}.{hint} Known values: {shown}."


def _shown(value: Any) -> str:
    return repr(time_text(value)) if isinstance(value, pd.Timestamp | pd.Timedelta) else repr(value)
