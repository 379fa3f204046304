"""Plain descriptions with arrays and Series in them, as JSON and arrays, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.utils.dtypes import dtype_from_state, dtype_to_state, plain, scalar_from_state, scalar_to_state

__all__ = ["CONFIG", "ModelFileError", "WEIGHTS", "pack", "unpack"]


CONFIG, WEIGHTS = "config.json", "model.safetensors"


class ModelFileError(ValueError):
    """A model that is missing, damaged, of another version, or no model at all."""


def pack(value: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """Turn a nested description into JSON types; numeric arrays go to `arrays` under their path.

    Raises
    ------
    TypeError
        If something in it has no representation.
    """
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        return [pack(v, arrays, f"{path}/{i}") for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [pack(v, arrays, f"{path}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{path}: a key must be a string that does not start with $, got {key!r}")
        return {k: pack(v, arrays, f"{path}/{k}") for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[path] = np.ascontiguousarray(value).reshape(value.shape)  # it would give a scalar a dimension
        return {"$array": path}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return {"$objects": [pack(v, arrays, f"{path}/{i}") for i, v in enumerate(value.tolist())]}
    if isinstance(value, pd.RangeIndex):
        return {"$range": [value.start, value.stop, value.step], "name": pack(value.name, arrays, path)}
    if isinstance(value, pd.MultiIndex):
        return {
            "$multiindex": [pack(v, arrays, path) for v in value],
            "names": pack(list(value.names), arrays, path),
        }
    if isinstance(value, pd.Index):
        column = pack(value.to_series().reset_index(drop=True), arrays, path)
        packed = {"$index": column, "name": pack(value.name, arrays, path)}
        if isinstance(value, pd.DatetimeIndex | pd.TimedeltaIndex) and value.freq is not None:
            packed["freq"] = value.freqstr  # a period's is part of its dtype
        return packed
    if isinstance(value, pd.Series):
        return _pack_series(value, arrays, path)
    if isinstance(value, pd.DataFrame):
        columns = [pack(value.iloc[:, j], arrays, f"{path}/{j}") for j in range(value.shape[1])]
        names = pack(value.columns, arrays, f"{path}/columns")
        return {"$frame": columns, "columns": names, "index": pack(value.index, arrays, f"{path}/index")}
    scalar = scalar_to_state(value)
    if scalar is None:
        raise TypeError(f"{path}: a value of type {type(value).__name__} cannot be saved")
    return {"$scalar": scalar[0], "value": pack(scalar[1], arrays, path)}


def _pack_series(series: pd.Series, arrays: dict[str, np.ndarray], path: str) -> dict:
    dtype = pack(dtype_to_state(series.dtype), arrays, f"{path}/dtype")
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return {"$series": pack(series.to_numpy(), arrays, path), "dtype": dtype}
    missing = series.isna().to_numpy()
    values = [None if m else plain(v) for v, m in zip(series.astype(object), missing, strict=True)]
    return {"$series": pack(values, arrays, path), "dtype": dtype}


def unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Inverse of :func:`pack`."""
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    tag = next((k for k in value if k.startswith("$")), None)
    if tag is None:
        return {k: unpack(v, arrays) for k, v in value.items()}
    inner = value[tag]
    if tag == "$array":
        return arrays[inner]
    if tag == "$float":
        return float(inner)
    if tag == "$scalar":
        return scalar_from_state(inner, unpack(value["value"], arrays))
    if tag == "$tuple":
        return tuple(unpack(v, arrays) for v in inner)
    if tag == "$objects":
        out = np.empty(len(inner), dtype=object)
        out[:] = [unpack(v, arrays) for v in inner]
        return out
    if tag == "$range":
        return pd.RangeIndex(*inner, name=unpack(value["name"], arrays))
    if tag == "$multiindex":
        return pd.MultiIndex.from_tuples([unpack(v, arrays) for v in inner], names=unpack(value["names"], arrays))
    if tag == "$index":
        index = pd.Index(unpack(inner, arrays), name=unpack(value["name"], arrays), tupleize_cols=False)
        if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
            index.freq = value.get("freq")  # a file of an older release has none
        return index
    if tag == "$series":
        return pd.Series(unpack(inner, arrays), dtype=dtype_from_state(unpack(value["dtype"], arrays)))
    if tag == "$frame":
        index = unpack(value["index"], arrays)
        columns = [unpack(c, arrays).set_axis(index) for c in inner]
        frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=index)
        frame.columns = unpack(value["columns"], arrays)
        return frame
    raise ModelFileError(f"{CONFIG} holds the unknown tag {tag!r}")
