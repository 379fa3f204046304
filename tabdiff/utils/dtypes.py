"""Data types, lists of values of them, and single values, as plain descriptions and back."""

import base64
import datetime
import decimal
import fractions
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "dtype_from_state",
    "dtype_to_state",
    "is_numeric",
    "is_storable",
    "is_time",
    "plain",
    "scalar_from_state",
    "scalar_to_state",
    "time_text",
    "values_from_state",
    "values_to_state",
]


def plain(value: Any) -> Any:
    """Turn a NumPy scalar into the Python scalar that JSON knows; a time stays, which would become a bare integer."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        return value.item()
    return value


def is_numeric(dtype: Any) -> bool:
    """Whether a column of this dtype is numeric and not boolean."""
    return bool(pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype))


def is_time(dtype: Any) -> bool:
    """Whether a dtype is one of pandas' own for points in time or durations."""
    arrow = isinstance(dtype, pd.ArrowDtype)
    return not arrow and bool(pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype))


def time_text(value: Any) -> str:
    """Text of a value, of a time at midnight its date alone.

    Examples
    --------
    >>> import pandas as pd
    >>> time_text(pd.Timestamp("2024-05-31")), time_text(pd.Timedelta(hours=48)), time_text(2)
    ('2024-05-31', '2 days', '2')
    """
    text = str(value)
    midnight = isinstance(value, pd.Timestamp | pd.Timedelta) and text.endswith(" 00:00:00")
    return text[: -len(" 00:00:00")] if midnight else text


def dtype_to_state(dtype: Any) -> dict:
    """Describe a pandas, NumPy or Arrow dtype in plain JSON types; categories are kept with their order."""
    if isinstance(dtype, pd.CategoricalDtype):
        return {"kind": "category", "categories": values_to_state(dtype.categories), "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        # str() of the two missing-value flavours is the same in some versions of pandas, so both parts are kept.
        return {"kind": "string", "storage": dtype.storage, "nan": dtype.na_value is not pd.NA}
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        # The names of nested types cannot be parsed back; Arrow's own encoding of a schema can.
        schema = pa.schema([("", dtype.pyarrow_dtype)]).serialize().to_pybytes()
        return {"kind": "arrow", "name": str(dtype), "schema": base64.b64encode(schema).decode()}
    zone = getattr(dtype, "tz", None)
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        # By its name alone, older versions of pandas would make it a zone of another library.
        return {"kind": "zoneinfo", "unit": dtype.unit, "key": zone.key}
    name = str(dtype)
    try:
        same = _dtype_of(name) == dtype
    except (TypeError, ValueError):
        same = False
    if not same:
        fix = " Name its time zone: .dt.tz_convert('Europe/Berlin')." if isinstance(dtype, pd.DatetimeTZDtype) else ""
        raise TypeError(f"the dtype {name} cannot be saved.{fix}")
    return {"kind": "plain", "name": name}


def _dtype_of(name: str) -> Any:
    """Return the dtype of a name, which may come from anyone: no records, and no time zone that is a path."""
    if not name.startswith(("datetime64[", "interval[")):
        if "," in name:
            raise ValueError(f"{name!r:.80} is no dtype of a column")
    elif "dateutil" in name:
        raise ValueError(f"{name!r:.80} has a time zone without a name")
    return pd.api.types.pandas_dtype(name)


def dtype_from_state(state: dict) -> Any:
    """Inverse of :func:`dtype_to_state`."""
    if state["kind"] == "category":
        values = values_from_state(state["categories"])
        # Objects stay objects: pandas would make times of Python's its own, and of pairs an index of two levels.
        kind = object if pd.api.types.is_object_dtype(values.dtype) else None
        categories = pd.Index(values, dtype=kind, tupleize_cols=False)
        return pd.CategoricalDtype(categories, ordered=state["ordered"])
    if state["kind"] == "string":
        if state["nan"]:
            return pd.StringDtype(state["storage"], na_value=np.nan)
        return pd.StringDtype(state["storage"])
    if state["kind"] == "arrow":
        import pyarrow as pa

        return pd.ArrowDtype(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(state["schema"]))).field(0).type)
    if state["kind"] == "zoneinfo":
        return pd.DatetimeTZDtype(state["unit"], zoneinfo.ZoneInfo(state["key"]))
    return _dtype_of(state["name"])


def values_to_state(values: Any) -> dict:
    """Describe an Index or array of values without missing ones: their dtype and a list, times as integers.

    Raises
    ------
    TypeError
        If `is_storable` says of a value that it cannot be kept.
    """
    if isinstance(values.dtype, pd.IntervalDtype):
        return {
            "closed": values.closed,
            "left": values_to_state(values.left),
            "right": values_to_state(values.right),
        }
    if is_time(values.dtype) or isinstance(values.dtype, pd.PeriodDtype):
        return {"dtype": dtype_to_state(values.dtype), "integers": pd.Index(values).asi8}
    items = [plain(v) for v in values]
    for v in items:
        if not isinstance(v, str | int | float | bool) and not is_storable(v):
            raise TypeError(f"a value of type {type(v).__name__} cannot be saved: {v!r:.80}.")
    return {"dtype": dtype_to_state(values.dtype), "values": items}


def values_from_state(state: dict) -> Any:
    """Inverse of :func:`values_to_state`: an array of the dtype, of pandas' or NumPy's making."""
    if "closed" in state:
        left, right = (pd.Index(values_from_state(state[side])) for side in ("left", "right"))
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=state["closed"])
    dtype = dtype_from_state(state["dtype"])
    if "integers" not in state:
        # Not an Index, which knows no half-precision floats.
        return pd.Series(state["values"], dtype=dtype).array
    integers = np.asarray(state["integers"], dtype=np.int64)
    if isinstance(dtype, pd.PeriodDtype):
        return pd.PeriodIndex.from_ordinals(integers, freq=dtype.freq).array
    return times_from_integers(integers, dtype).array


def times_from_integers(integers: np.ndarray, dtype: Any) -> pd.Index:
    """Make an Index of times or durations of the dtype from integers (n,) in its unit, UTC where it has a zone."""
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(integers.view(f"M8[{dtype.unit}]")).tz_localize("UTC").tz_convert(dtype.tz)
    return pd.Index(integers.view(dtype))


# ----------------------------------------------------------------- single values

_PANDAS = pd.Timestamp | pd.Timedelta | pd.Period | pd.Interval
# By the name that a file has for them: the type, how it becomes JSON, and how it is made of that again. What is a kind
# of another stands first.
_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (datetime.timedelta, lambda v: [v.days, v.seconds, v.microseconds], lambda s: datetime.timedelta(*s)),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (fractions.Fraction, str, fractions.Fraction),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "bytes": (bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
    "complex": (complex, lambda v: [v.real, v.imag], lambda s: complex(*s)),
    "frozenset": (frozenset, lambda v: sorted(v, key=repr), frozenset),
    "datetime64": (np.datetime64, lambda v: [str(v.dtype), int(v.view(np.int64))], lambda s: _numpy_time(*s)),
    "timedelta64": (np.timedelta64, lambda v: [str(v.dtype), int(v.view(np.int64))], lambda s: _numpy_time(*s)),
}


def scalar_to_state(value: Any) -> tuple[str, Any] | None:
    """Describe a single value that JSON has no type for by a name and simpler values; None for one of no known type.

    Examples
    --------
    >>> import datetime
    >>> scalar_to_state(datetime.date(2024, 2, 1))
    ('date', '2024-02-01')
    """
    if value is pd.NaT or value is pd.NA:
        return "missing", str(value)
    if isinstance(value, _PANDAS):
        return "pandas", _listed(values_to_state(pd.Index([value])))
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(value, kind):
            return name, write(value)
    return None


def scalar_from_state(kind: str, state: Any) -> Any:
    """Inverse of :func:`scalar_to_state`."""
    if kind == "missing":
        return {"NaT": pd.NaT, "<NA>": pd.NA}[state]
    if kind == "pandas":
        return values_from_state(state)[0]
    return _KINDS[kind][2](state)


def is_storable(value: Any) -> bool:
    """Whether a saved model holds a value, or a tuple or set of such: whether it comes back equal to what it was.

    Examples
    --------
    >>> import datetime, zoneinfo
    >>> is_storable((1, b"a")), is_storable((1, float("nan"))), is_storable(len)
    (True, False, False)
    """
    value = plain(value)
    if value is None or isinstance(value, str | int):
        return True
    if isinstance(value, float):
        return value == value
    if isinstance(value, tuple | frozenset):
        return all(is_storable(v) for v in value)
    try:
        state = scalar_to_state(value)
        same = state is not None and scalar_from_state(*state) == value
        return same is True or (isinstance(same, np.bool_) and bool(same))
    except (TypeError, ValueError, OverflowError):
        return False


def _listed(state: dict) -> dict:
    """Return a description with lists for arrays."""
    return {
        k: _listed(v) if isinstance(v, dict) else v.tolist() if isinstance(v, np.ndarray) else v
        for k, v in state.items()
    }


def _numpy_time(dtype: str, count: int) -> Any:
    kind = np.dtype(dtype)
    if kind.kind not in "mM":
        raise ValueError(f"{dtype!r:.80} is no dtype of times")
    return np.int64(count).view(kind)
