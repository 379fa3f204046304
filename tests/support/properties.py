"""What must hold for any frame: it comes back right, or an error names the column; nothing in between."""

import contextlib
import copy
import datetime
import decimal
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from random_frames import EITHER, KEPT, REFUSED, Case

MAX_WARNINGS = 3
# Orders of which the values stay within the observed range; everything else comes back as one of the observed values.
ORDERED = (
    *(int, float, np.number, decimal.Decimal),
    *(datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64),
)


@contextlib.contextmanager
def unchanged(case: Case) -> Iterator[None]:
    """See that the frame is left as it was, and that no more than a few warnings are issued, each once."""
    before = copy.deepcopy(case.frame)
    before_index = before.index.copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert case.frame.index.identical(before_index) and case.frame.columns.identical(before.columns)
    for j in range(before.shape[1]):
        same_values(case.frame.iloc[:, j], before.iloc[:, j])
    messages = [f"{w.category.__name__}: {w.message}" for w in caught]
    assert len(messages) <= MAX_WARNINGS and len(set(messages)) == len(messages), messages
    # What the package has to say it says; nothing of NumPy's or pandas' insides comes through.
    assert all(w.category is UserWarning for w in caught), messages


def same_values(left: pd.Series, right: pd.Series) -> None:
    """See that two columns are equal in dtype and in every value, whatever the values are."""
    assert left.dtype == right.dtype
    a, b = left.to_numpy(dtype=object), right.to_numpy(dtype=object)
    for x, y in zip(a, b, strict=True):
        assert type(x) is type(y)
        assert repr(x) == repr(y)


def refusal(case: Case, error: Exception) -> None:
    """See that a frame was refused for a reason, and that the error names it."""
    text = str(error)
    if case.refused is not None:
        return
    columns = case.frame.columns
    # A name of a MultiIndex can hold NumPy's integers or Python's, depending on how it is asked for.
    names = [
        {repr(columns[j]), repr(name)} for j, name in enumerate(columns) if case.kinds[j].fate in (REFUSED, EITHER)
    ]
    named = [forms for forms in names if any(form in text for form in forms)]
    assert named, f"{case} was refused, and none of what is wrong with it is named: {type(error).__name__}: {text}"


def accepted(case: Case) -> None:
    """See that a frame which was modelled is one that can be."""
    assert case.refused is None, f"{case} went through"
    assert not case.names(REFUSED), f"{case} went through, with {case.names(REFUSED)}"


def like(drawn: pd.DataFrame, seen: pd.DataFrame, n: int) -> None:
    """See that n rows were drawn with the columns, dtypes, values and gaps of a frame."""
    assert type(drawn) is pd.DataFrame and drawn.shape == (n, seen.shape[1])
    pd.testing.assert_index_equal(drawn.columns, seen.columns, exact=True)
    for j in range(seen.shape[1]):
        column_like(drawn.iloc[:, j], seen.iloc[:, j])


def column_like(drawn: pd.Series, seen: pd.Series) -> None:
    name = seen.name
    assert drawn.dtype == seen.dtype, name
    if isinstance(seen.dtype, pd.CategoricalDtype):
        assert drawn.dtype.ordered == seen.dtype.ordered and list(drawn.cat.categories) == list(seen.cat.categories)
    missing, gaps = drawn.isna().to_numpy(), lacking(seen)
    assert gaps.any() or not missing.any(), f"{name!r} has missing values, and had none"
    assert not gaps.all() or missing.all(), f"{name!r} had no values, and has some"
    if seen.dtype == object and missing.any():
        markers = {repr(v) for v in seen[gaps]}
        assert {repr(v) for v in drawn[missing]} <= markers, name
    values, observed = drawn[~missing].tolist(), seen[~gaps].tolist()
    if not values:
        return
    if seen.dtype == object:
        assert {kind_of(v) for v in values} <= {kind_of(v) for v in observed}, name
    if all(isinstance(v, ORDERED) and not isinstance(v, bool | np.bool_) for v in observed):
        assert min(observed) <= min(values) and max(values) <= max(observed), name
    else:
        assert set(map(repr, values)) <= set(map(repr, observed)), name


def lacking(column: pd.Series) -> np.ndarray:
    """Which values are missing: an Arrow column or a nullable one can hold NaN beside its own mark."""
    return column.isna().to_numpy() | np.array([isinstance(v, float) and v != v for v in column], dtype=bool)


def kind_of(value: Any) -> type:
    """Type of a value, NumPy's taken for Python's."""
    return type(value.item()) if isinstance(value, np.generic) else type(value)


def exactly(decoded: pd.DataFrame, frame: pd.DataFrame, codec: Any) -> None:
    """See that rows that were encoded and decoded again are the same: missing where they were, levels equal.

    Numbers go through float32: one at the edge of its step may come back from the next, and so from between the next
    value and the one after it.
    """
    schema = codec.schema_
    for j, row in enumerate(schema.itertuples()):
        back, there = decoded.iloc[:, j], frame.iloc[:, j]
        known = ~lacking(there)
        assert np.array_equal(back.notna(), known), row
        if row.kind in ("categorical", "constant") and not row.rare:
            assert back[known].tolist() == there[known].tolist(), row
        elif row.kind in ("numeric", "time") and known.any():
            near(back[known], there[known])


def near(back: pd.Series, there: pd.Series) -> None:
    values, observed = back.tolist(), there.tolist()
    distinct = sorted(set(observed))
    place = {v: i for i, v in enumerate(distinct)}
    for value, original in zip(values, observed, strict=True):
        i = place[original]
        low, high = distinct[max(i - 2, 0)], distinct[min(i + 2, len(distinct) - 1)]
        assert low <= value <= high, (value, original)


__all__ = ["EITHER", "KEPT", "REFUSED", "Case", "accepted", "exactly", "like", "refusal", "unchanged"]
