"""Levels by what stands for them: a level itself, its text, or the same moment as another type."""

import datetime
import decimal
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.utils.dtypes import plain

__all__ = ["LevelLookup"]


class LevelLookup:
    """Find levels by themselves, by their text, or by a value of another type that means the same.

    A level is found by itself first. Otherwise its text stands for it, ``"(0, 30]"`` for an interval, ``"2024-01"`` for
    a period, ``"True"`` or ``"1"``; a `datetime.date` is the timestamp of its midnight and the other way round; a float
    is the decimal that it is nearest to. What could mean two levels means none.

    Parameters
    ----------
    levels : sequence
        Distinct, hashable.

    Examples
    --------
    >>> import pandas as pd
    >>> lookup = LevelLookup(pd.interval_range(0, 3).tolist())
    >>> lookup.find(pd.Interval(1, 2)), lookup.find("(1, 2]"), lookup.find("(1, 5]")
    (1, 1, -1)
    """

    def __init__(self, levels: Iterable[Any]) -> None:
        self._exact: dict[Any, int] = {}
        self._other: dict[Any, int] = {}
        for i, level in enumerate(levels):
            self._exact[_key(level)] = i
            for alias in {_key(v) for v in _aliases(level)}:
                self._other[alias] = i if self._other.get(alias, i) == i else -1

    def find(self, value: Any) -> int:
        """Return the position of the level that a value is or stands for, -1 if there is none."""
        for candidate in _candidates(value):
            try:
                key = _key(candidate)
                found = self._exact.get(key, self._other.get(key, -1))
            except TypeError:  # a value without a hash is no level
                return -1
            if found >= 0:
                return found
        return -1


def _key(value: Any) -> tuple[bool, Any]:
    # bool is an int to Python, so True would silently stand for 1.
    value = plain(value)
    return isinstance(value, bool), value


def _candidates(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, np.datetime64 | datetime.date):
        yield from _timestamp(value)
    elif isinstance(value, np.timedelta64):
        yield pd.Timedelta(value)


def _aliases(level: Any) -> Iterator[Any]:
    if isinstance(level, str):
        return
    yield str(level)
    if isinstance(level, bool | np.bool_):
        yield str(level).lower()
    elif isinstance(level, float):
        yield f"{level:g}"
    elif isinstance(level, decimal.Decimal):
        yield float(level)
    elif isinstance(level, bytes):
        yield level.decode("utf-8", "replace")
    elif isinstance(level, datetime.datetime):  # a Timestamp is one
        yield level.isoformat()
        if level.time() == datetime.time() and level.tzinfo is None:
            yield str(level.date())
    elif isinstance(level, datetime.date | np.datetime64):
        yield from _timestamp(level)
    elif isinstance(level, datetime.time):
        yield level.isoformat("minutes") if level.second == level.microsecond == 0 else level.isoformat()
    elif isinstance(level, pd.Timedelta):
        yield str(level.to_pytimedelta())


def _timestamp(value: Any) -> Iterator[pd.Timestamp]:
    try:
        yield pd.Timestamp(value)
    except (ValueError, OverflowError):  # beyond what pandas counts: it is found by itself only
        return
