"""How columns are stored, apart from what they hold: Arrow arrays, Python objects, nullable floats.

The codecs know numbers, times, categories, strings and booleans in pandas' own dtypes. `standardise` brings a column
of any other storage to one of those; `Storage` remembers what it was and takes decoded columns back.
"""

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.utils.dtypes import dtype_from_state, dtype_to_state

__all__ = ["FrameStorage", "Storage", "check_storable", "in_one_piece", "standardise", "text_codes"]

ARROW_TEXT = ("string", "large_string")

# Markers of a missing value in object columns, by the names that a saved model uses.
_MARKERS: dict[str, Any] = {"nan": np.nan, "None": None, "NA": pd.NA, "NaT": pd.NaT}
# What makes values of an object column out of pandas' times and durations, by the kind of these values.
_PYTHON_TIMES: dict[str, Callable] = {
    "datetime": lambda v: v.to_pydatetime(warn=False) if isinstance(v, pd.Timestamp) else v,
    "timedelta": lambda v: v.to_pytimedelta() if isinstance(v, pd.Timedelta) else v,
    "datetime64": lambda v: v.to_datetime64(),
    "timedelta64": lambda v: v.to_timedelta64(),
}


def check_storable(series: pd.Series, name: Any) -> None:
    """Raise a TypeError if a saved model could not hold the categories or the time zone of a column."""
    if not isinstance(series.dtype, pd.CategoricalDtype | pd.DatetimeTZDtype):
        return
    try:
        dtype_to_state(series.dtype)
    except TypeError as error:
        fix = "" if isinstance(series.dtype, pd.DatetimeTZDtype) else f' Make it text: df[{name!r}].astype("string").'
        raise TypeError(f"column {name!r}: {error}{fix}") from error


def standardise(series: pd.Series, name: Any) -> pd.Series:
    """Bring a column to a dtype that the codecs know; most columns are returned as they are.

    Raises
    ------
    TypeError
        For a dtype that cannot be modelled, with what to convert it to.
    """
    dtype = series.dtype
    if isinstance(dtype, pd.SparseDtype):
        raise TypeError(f"column {name!r} is sparse. Make it dense: df[{name!r}].sparse.to_dense().")
    if isinstance(dtype, pd.ArrowDtype):
        return _from_arrow(series, name)
    if pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_float_dtype(dtype):
        # A nullable float can hold NaN beside NA; both are missing.
        return pd.Series(series.to_numpy(dtype=dtype.numpy_dtype, na_value=np.nan), series.index, name=series.name)
    if isinstance(dtype, pd.PeriodDtype):
        raise TypeError(f"column {name!r} holds periods. Make them points in time: df[{name!r}].dt.to_timestamp().")
    if isinstance(dtype, pd.IntervalDtype):
        raise TypeError(f'column {name!r} holds intervals. Make them categories: df[{name!r}].astype("category").')
    if pd.api.types.is_object_dtype(dtype):
        return _from_objects(series, name)
    return series


def _chunks(series: pd.Series) -> Any:
    """Return the values of an Arrow column as a ChunkedArray, whichever of the two kinds of arrays pandas gives."""
    import pyarrow as pa

    values = pa.array(series)
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _from_arrow(series: pd.Series, name: Any) -> pd.Series:
    import pyarrow as pa

    kind = series.dtype.pyarrow_dtype
    types = pa.types

    def cast(dtype: Any) -> pd.Series:
        return series.astype(dtype)

    if types.is_null(kind):
        return pd.Series(np.full(len(series), np.nan), series.index, name=series.name)
    if types.is_integer(kind):
        return cast({"u": "UInt"}.get(str(kind)[0], "Int") + str(kind.bit_width))
    if types.is_floating(kind):
        values = series.to_numpy(dtype=kind.to_pandas_dtype(), na_value=np.nan)
        return pd.Series(values, series.index, name=series.name)
    if types.is_boolean(kind):
        return cast("boolean")
    if types.is_decimal(kind):
        return _from_decimals(cast(object), name, kind.scale)
    text = text_codes(series)
    if text is not None:
        # One object for all rows that say the same: fewer to make, and to look at later.
        words = np.array([*text[1], np.nan], dtype=object)
        return pd.Series(words[text[0]], series.index, name=series.name, dtype=object)
    if types.is_timestamp(kind):
        unit = f"datetime64[{kind.unit}{f', {kind.tz}' if kind.tz else ''}]"
        return cast(unit)
    if types.is_duration(kind):
        return cast(f"timedelta64[{kind.unit}]")
    if types.is_date(kind):
        days = _chunks(series).cast("timestamp[s]")
        return pd.Series(days.to_numpy().astype("datetime64[s]"), series.index, name=series.name)
    if types.is_time(kind):
        return _from_times_of_day(cast(object), name)
    if types.is_dictionary(kind):
        # Older versions of pyarrow give pandas no categories whose codes are unsigned, as those of polars are.
        signed = pa.dictionary(pa.int64(), kind.value_type, kind.ordered)
        whole = _chunks(series).unify_dictionaries().cast(signed).combine_chunks()
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        return pd.Series(whole.to_pandas().array, series.index, name=series.name)
    fixes = {"list": "Make a column per item", "struct": "Make a column per field"}
    fix = next(
        (to for start, to in fixes.items() if start in str(kind)), f'Make it text: df[{name!r}].astype("string")'
    )
    raise TypeError(f"column {name!r} has dtype {series.dtype}, which cannot be modelled. {fix}.")


def text_codes(series: pd.Series) -> tuple[np.ndarray, list[str]] | None:
    """Return places (n,) of the entries of a column of Arrow text in a list of words, -1 where missing.

    None for any other column.
    """
    if not isinstance(series.dtype, pd.ArrowDtype) or str(series.dtype.pyarrow_dtype) not in ARROW_TEXT:
        return None
    import pyarrow as pa

    chunks = pa.chunked_array(pa.array(series)).dictionary_encode().chunks
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate(codes) if codes else np.zeros(0, dtype=np.int32), (
        chunks[0].dictionary.to_pylist() if chunks else []
    )


def in_one_piece(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose Arrow columns lie in one piece each, whatever it was put together of."""
    import pyarrow as pa

    pieces = {}
    for name, dtype in frame.dtypes.items():
        if isinstance(dtype, pd.ArrowDtype):
            whole = pa.chunked_array(pa.array(frame[name])).combine_chunks()
            pieces[name] = pd.Series(pd.arrays.ArrowExtensionArray(whole), frame.index)
    return frame.assign(**pieces) if pieces else frame


def _from_objects(series: pd.Series, name: Any) -> pd.Series:
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind == "boolean":
        return series.astype("boolean")
    if kind == "integer":
        try:
            return series.astype("Int64")
        except (OverflowError, TypeError, ValueError):
            raise ValueError(
                f"column {name!r} holds integers beyond 64 bits. Scale it down if it is a number; make it a string if "
                "it is an identifier."
            ) from None
    if kind in ("floating", "mixed-integer-float"):
        return pd.Series(pd.to_numeric(series.where(series.notna(), np.nan)), name=series.name).astype(np.float64)
    if kind == "decimal":
        return _from_decimals(series, name)
    if kind == "date":
        if any(isinstance(v, datetime.datetime) for v in series[series.notna()]):
            raise TypeError(f"column {name!r} mixes dates and times. Convert it: pd.to_datetime(df[{name!r}]).")
        # Seconds reach from the year 1 to 9999; nanoseconds only to 2262.
        days = series.where(series.notna(), None).to_numpy().astype("datetime64[D]").astype("datetime64[s]")
        return pd.Series(days, series.index, name=series.name)
    if kind in ("datetime", "datetime64", "timedelta", "timedelta64"):
        return _from_python_times(series, kind, name)
    if kind == "time":
        return _from_times_of_day(series, name)
    return series


def _from_python_times(series: pd.Series, kind: str, name: Any) -> pd.Series:
    """Turn datetimes or timedeltas of Python or NumPy into pandas' own."""
    convert: Callable = pd.to_datetime if kind[0] == "d" else pd.to_timedelta
    if len({getattr(v, "tzinfo", None) is None for v in series[series.notna()]}) > 1:
        out = series  # with a zone and without
    else:
        try:
            out = convert(series)
        except (pd.errors.OutOfBoundsDatetime, pd.errors.OutOfBoundsTimedelta, OverflowError):
            # Nanoseconds reach from 1677 to 2262, and Python's microseconds from the year 1 to 9999.
            micro = series.where(series.notna(), None).to_numpy().astype("M8[us]" if kind[0] == "d" else "m8[us]")
            out = pd.Series(micro, series.index, name=series.name)
        except (TypeError, ValueError):
            out = series
    if out.dtype == object:
        raise TypeError(f"column {name!r} mixes time zones. Convert it: pd.to_datetime(df[{name!r}], utc=True).")
    return out


def _from_times_of_day(series: pd.Series, name: Any) -> pd.Series:
    """Turn times of day into durations since midnight."""
    missing = series.isna().to_numpy()
    values = series.to_numpy(dtype=object)
    if any(v.tzinfo is not None for v in values[~missing]):
        raise TypeError(
            f"column {name!r} holds times of day with a time zone, which has no offset without a date. Leave the zone "
            f'out: df[{name!r}].map(lambda t: t.replace(tzinfo=None), na_action="ignore").'
        )
    micro = np.array(
        [
            0 if m else ((v.hour * 60 + v.minute) * 60 + v.second) * 10**6 + v.microsecond
            for v, m in zip(values, missing)
        ],
        dtype="m8[us]",
    )
    micro[missing] = np.timedelta64("NaT")
    return pd.Series(micro, series.index, name=series.name)


def _to_time_of_day(duration: Any) -> datetime.time:
    return (datetime.datetime.min + datetime.timedelta(microseconds=duration // pd.Timedelta(microseconds=1))).time()


def _from_decimals(series: pd.Series, name: Any, scale: int | None = None) -> pd.Series:
    """Turn decimals into float64, if that holds them exactly."""
    observed = series[series.notna()]
    odd = next((v for v in observed if not v.is_finite()), None)
    if odd is not None:
        raise ValueError(
            f"column {name!r} contains {odd}. Replace it by a finite value, or by NaN, which is modelled as missing."
        )
    scale = _scale(observed) if scale is None else scale
    largest = max((abs(v) for v in observed), default=decimal.Decimal(0))
    if largest * decimal.Decimal(10) ** max(scale, 0) > 2**53:
        raise ValueError(
            f"column {name!r} holds decimals of more than 15 digits ({largest}), which cannot be modelled exactly. "
            f"Convert it to float: df[{name!r}].astype(float)."
        )
    return pd.Series(series.where(series.notna(), np.nan).to_numpy(dtype=np.float64), series.index, name=series.name)


def _scale(decimals: pd.Series) -> int:
    return max((-v.as_tuple().exponent for v in decimals if v.is_finite()), default=0)


class Storage:
    """How one column is stored, and the way back to it.

    Parameters
    ----------
    series : Series
        The column as it came.

    Attributes
    ----------
    dtype : dtype
        Its dtype.
    python : str
        For an object column the kind of its values as `pandas.api.types.infer_dtype` calls it, else "".
    missing : str
        How an object column marks missing values: "nan", "None", "NA" or "NaT".
    scale : int
        Digits after the point of decimals.
    pandas : bool
        Whether an object column of times or durations holds pandas' own; otherwise they are Python's or NumPy's.
    """

    def __init__(self, series: pd.Series) -> None:
        self.dtype = series.dtype
        self.python, self.missing, self.scale, self.pandas = "", "nan", 0, True
        if self.dtype == object:
            self.python = pd.api.types.infer_dtype(series, skipna=True)
            missing = series[series.isna()]
            marker = missing.iloc[0] if len(missing) else np.nan
            self.missing = next((key for key, value in _MARKERS.items() if marker is value), "nan")
            if self.python == "decimal":
                self.scale = max(_scale(series.dropna()), 0)
            if self.python in _PYTHON_TIMES:
                self.pandas = any(isinstance(v, pd.Timestamp | pd.Timedelta) for v in series.dropna())
        elif isinstance(self.dtype, pd.ArrowDtype):
            self.scale = getattr(self.dtype.pyarrow_dtype, "scale", 0)

    @property
    def times_of_day(self) -> bool:
        """Whether the column holds times of day."""
        arrow = isinstance(self.dtype, pd.ArrowDtype) and str(self.dtype).startswith(("time32", "time64"))
        return arrow or self.python == "time"

    def read_text(self, series: pd.Series) -> pd.Series:
        """Turn text that says times of day, such as "05:00", into those where the column holds such."""
        if not self.times_of_day:
            return series
        return series.map(lambda v: datetime.time.fromisoformat(v) if isinstance(v, str) else v, na_action="ignore")

    def write(self, series: pd.Series) -> pd.Series:
        """Bring a decoded column (n,) of a standard dtype back to this storage."""
        if isinstance(self.dtype, pd.ArrowDtype):
            return self._to_arrow(series)
        if self.dtype == object:
            return self._to_objects(series)
        if pd.api.types.is_extension_array_dtype(self.dtype) and pd.api.types.is_float_dtype(self.dtype):
            return series.astype(self.dtype)
        return series

    def _to_arrow(self, series: pd.Series) -> pd.Series:
        import pyarrow as pa

        kind = self.dtype.pyarrow_dtype
        if pa.types.is_decimal(kind):
            array = pa.array(self._to_decimals(series, None), type=kind)
        elif pa.types.is_null(kind):
            array = pa.nulls(len(series))
        elif pa.types.is_time(kind):
            array = pa.array([None if v is pd.NaT else _to_time_of_day(v) for v in series], type=kind)
        else:
            array = pa.array(series, from_pandas=True)
            array = array if array.type == kind else array.cast(kind)
        return pd.Series(pd.arrays.ArrowExtensionArray(array), series.index, name=series.name)

    def _to_objects(self, series: pd.Series) -> pd.Series:
        marker = _MARKERS[self.missing]
        missing = series.isna().to_numpy()
        if self.python == "decimal":
            values = np.array(self._to_decimals(series, marker), dtype=object)
        elif self.python == "time":
            values = np.array([marker if m else _to_time_of_day(v) for v, m in zip(series, missing)], dtype=object)
        elif self.python == "date":
            values = series.dt.date.to_numpy(dtype=object, copy=True)
        elif self.python in _PYTHON_TIMES and not self.pandas:
            values = np.empty(len(series), dtype=object)
            values[:] = [_PYTHON_TIMES[self.python](v) for v in series]
        else:
            values = series.astype(object).to_numpy(copy=True)
        values[missing] = marker
        return pd.Series(values, series.index, name=series.name, dtype=object)

    def _to_decimals(self, series: pd.Series, marker: Any) -> list:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return [marker if v != v else decimal.Decimal(f"{v:.{self.scale}f}") for v in values.tolist()]

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "dtype": dtype_to_state(self.dtype),
            "python": self.python,
            "missing": self.missing,
            "scale": self.scale,
            "pandas": self.pandas,
        }

    @classmethod
    def from_state(cls, state: dict) -> "Storage":
        """Inverse of :meth:`state`."""
        storage = cls.__new__(cls)
        storage.dtype = dtype_from_state(state["dtype"])
        storage.python, storage.missing, storage.scale = state["python"], state["missing"], int(state["scale"])
        storage.pandas = bool(state["pandas"])
        return storage


class FrameStorage:
    """How each column of a frame is stored; see `Storage`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = [self._storage(frame.iloc[:, j], frame.columns[j]) for j in range(frame.shape[1])]

    @staticmethod
    def _storage(series: pd.Series, name: Any) -> Storage:
        check_storable(series, name)
        try:
            return Storage(series)
        except decimal.InvalidOperation:  # pandas itself cannot tell whether such a value is missing
            raise ValueError(f"column {name!r} contains a signalling NaN. Replace it by NaN or None.") from None

    @staticmethod
    def read(frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with each column standardised; the frame itself where all of them are already."""
        columns = [standardise(frame.iloc[:, j], frame.columns[j]) for j in range(frame.shape[1])]
        if all(c.dtype == dtype for c, dtype in zip(columns, frame.dtypes)):
            return frame
        out = pd.concat(columns, axis=1)
        out.columns = frame.columns
        return out

    def write(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Bring a decoded frame of standardised columns back to how the fitted ones were stored."""
        columns = [storage.write(frame.iloc[:, j]) for j, storage in enumerate(self.columns)]
        if all(c.dtype == dtype for c, dtype in zip(columns, frame.dtypes)) and not any(
            s.missing != "nan" for s in self.columns
        ):
            return frame
        out = pd.concat(columns, axis=1)
        out.columns = frame.columns
        return out

    def state(self) -> list:
        """Plain description, for persistence."""
        return [storage.state() for storage in self.columns]

    @classmethod
    def from_state(cls, state: list) -> "FrameStorage":
        """Inverse of :meth:`state`."""
        storage = cls.__new__(cls)
        storage.columns = [Storage.from_state(s) for s in state]
        return storage
