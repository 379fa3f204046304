"""The one place where what a user passes becomes an array, or is refused with what to pass instead.

NumPy makes an array of anything: it drops the mask of a masked array and the names of a record, iterates over objects
that have no end, and wraps what it does not know as one object. So everything from outside comes through here first:
what carries missing values or names keeps them, or is refused by name with a call that helps. Libraries are told by
the module of a type and never imported.
"""

from __future__ import annotations

import dataclasses
import datetime
import numbers
import os
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, Set, ValuesView
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.utils.memory import native

__all__ = ["MAX_EXACT", "as_known", "as_numbers", "as_values", "check_labels", "kind_of", "read_array"]

TAKEN = "an array, a DataFrame (pandas, polars or pyarrow), an AnnData, images, or a list of strings"
# Up to here float64 holds every integer.
MAX_EXACT = 2**53
_ARROW = ("Table", "Array", "ChunkedArray")


def kind_of(X: Any) -> str:
    """Return the name of a type with its library, as "polars.Series"; built-in types have none."""
    module = type(X).__module__.split(".")[0]
    return type(X).__name__ if module == "builtins" else f"{module}.{type(X).__name__}"


def _comes_from(X: Any, *names: str) -> bool:
    """Whether a type, or one that it derives from, is of a library ("dask") or one class of it ("xarray.Dataset")."""
    for base in type(X).__mro__:
        library = base.__module__.split(".")[0]
        if library in names or f"{library}.{base.__name__}" in names:
            return True
    return False


def _mudata(X: Any, name: str) -> str:
    return f'Pass one modality, {name}.mod["{next(iter(X.mod), "rna")}"].'


def _spatialdata(X: Any, name: str) -> str:
    return f'Pass one of its tables, {name}.tables["{next(iter(X.tables), "table")}"].'


def _data_array(X: Any, name: str) -> str:
    fix = {1: f"{name}.to_series()", 2: f"{name}.to_pandas()"}.get(X.ndim, f"{name}.to_numpy()")
    return f"Pass {fix}, so that it is plain which axis is which."


def _torch_dataset(X: Any, name: str) -> str:
    if hasattr(X, "tensors"):
        return f"Pass what it holds, {name}.tensors[0]."
    return f"Pass what it holds, as a list: [{name}[i] for i in range(len({name}))], of pairs the first."


# What each library's containers are to be turned into; the first that matches counts.
_REMEDIES: list[tuple[str, str | Callable[[Any, str], str]]] = [
    ("mudata.MuData", _mudata),
    ("spatialdata.SpatialData", _spatialdata),
    ("anndata.Raw", "Pass {X}.to_adata()."),
    ("anndata.AnnCollection", "Pass {X}[:].to_adata()."),
    ("anndata.AnnCollectionView", "Pass {X}.to_adata()."),
    ("xarray.Dataset", "Pass {X}.to_dataframe(), or {X}.to_dataframe().reset_index() to model its coordinates too."),
    ("xarray.DataArray", _data_array),
    ("xarray", "Pass one of its datasets, as a frame: {X}.to_dataset().to_dataframe()."),
    ("dask", "Its rows are not there yet. Pass {X}.compute()."),
    ("dask_expr", "Its rows are not there yet. Pass {X}.compute()."),
    ("polars.LazyFrame", "Its rows are not there yet. Pass {X}.collect()."),
    ("pyspark", "Pass {X}.toPandas()."),
    ("duckdb", "Pass {X}.df()."),
    ("_duckdb", "Pass {X}.df()."),
    ("ibis", "Pass {X}.to_pandas()."),
    ("cupy", "Pass {X}.get()."),
    ("cupyx", "Pass {X}.get()."),
    ("sparse", "Pass {X}.todense()."),
    ("datasets.DatasetDict", 'Pass one of its parts, {X}["train"].to_pandas().'),
    ("datasets.Dataset", "Pass {X}.to_pandas()."),
    ("torch.DataLoader", "Pass its batches as one array: torch.cat([batch[0] for batch in {X}])."),
    ("torch.Dataset", _torch_dataset),
    ("h5py.Group", 'Pass one of its arrays, {X}["name"][:].'),
    ("zarr.Group", 'Pass one of its arrays, {X}["name"][:].'),
    ("numpy.NpzFile", 'Pass one of its arrays, {X}["name"].'),
    ("pyarrow.RecordBatch", "Pass pyarrow.Table.from_batches([{X}])."),
    ("pyarrow.RecordBatchReader", "Pass {X}.read_all()."),
    ("pyarrow.Dataset", "Pass {X}.to_table()."),
    ("pyarrow.Scanner", "Pass {X}.to_table()."),
    ("pyarrow.Tensor", "Pass {X}.to_numpy()."),
    ("pandas.Styler", "Pass {X}.data."),
    ("pandas.GroupBy", "Pass {X}.obj."),
    ("polars.GroupBy", "Pass the frame before it was grouped, or what .agg(...) returns."),
]


def _library_remedy(X: Any, name: str) -> str | None:
    for place, remedy in _REMEDIES:
        if _comes_from(X, place):
            return remedy(X, name) if callable(remedy) else remedy.format(X=name)
    if isinstance(X, Tensor):
        if X.layout != torch.strided:
            return f"Pass {name}.to_dense()."
        return f"Pass {name}.to_padded_tensor(float('nan'))." if X.is_nested else None
    return None


def _standard_remedy(X: Any, name: str) -> str | None:
    """What to pass instead of an object of the standard library that is neither an array nor a sequence."""
    if isinstance(X, bytes | bytearray):
        return f"Bytes have no rows. Pass numpy.frombuffer({name}, numpy.uint8).reshape(-1, k), of k bytes a row."
    if isinstance(X, KeysView | ValuesView | ItemsView):
        return f"Pass list({name})."
    if isinstance(X, Set):
        return f"A set has no order, so nothing says which row comes first. Pass sorted({name})."
    if isinstance(X, Iterator):
        return f"What it yields can be read once only. Pass list({name})."
    if isinstance(X, type):
        return f"That is the class {X.__name__} itself. Pass an object of it."
    if callable(X) and not hasattr(X, "__array__"):
        return "That is a function. Pass what it returns."
    return None


def _is_array_like(X: Any) -> bool:
    """Whether NumPy finds an array in it, rather than iterating over it."""
    if isinstance(X, type):
        return False
    if hasattr(X, "__array__") or hasattr(X, "__array_interface__") or hasattr(X, "__dlpack__"):
        return True
    try:
        return not isinstance(X, str | bytes | bytearray) and memoryview(X).ndim > 0
    except TypeError:
        return False


def _refuse(X: Any, name: str, taken: str, remedy: str) -> TypeError:
    given = "None" if X is None else f"a {kind_of(X)}"
    return TypeError(f"{name} must be {taken}; got {given}. {remedy}")


def as_known(X: Any, name: str = "X", taken: str = TAKEN) -> Any:
    """Return a container whose meaning is known, without reading what is in it; raise a TypeError for any other.

    Parameters
    ----------
    X : object
        What a user passed.
    name : str
        What it is called there, for messages.
    taken : str
        What may be passed there, for messages.

    Returns
    -------
    object
        pandas', NumPy's and PIL's containers, AnnData, sparse matrices, frames of other libraries, lists and paths as
        they are. A masked array comes as a plain one with NaN (NaT, None) where it is masked, a tensor as an array, and
        any other sequence as a list.

    Raises
    ------
    TypeError
        For everything else, for arrays of records, and for lists of what has names or a mask. The message names what
        was given and what to pass instead.

    Examples
    --------
    >>> as_known(np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]]))
    array([[ 1., nan],
           [ 3.,  4.]])
    >>> as_known({1.5, 2.5})
    Traceback (most recent call last):
    ...
    TypeError: X must be an array, ...; got a set. A set has no order, ... Pass sorted(X).
    """
    if isinstance(X, np.ndarray):
        return _plain(X, name)
    if isinstance(X, str | os.PathLike | pd.DataFrame | pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return X
    if _comes_from(X, "tabdiff", "anndata.AnnData", "narwhals") or sparse.issparse(X):
        return X
    remedy = _library_remedy(X, name) or _standard_remedy(X, name)
    if remedy is not None:
        raise _refuse(X, name, taken, remedy)
    if _comes_from(X, "PIL", "polars.Series", "polars.DataFrame", *(f"pyarrow.{k}" for k in _ARROW)):
        return X
    if isinstance(X, Tensor):
        return _of_tensor(X)
    if isinstance(X, Mapping):
        raise _refuse(X, name, taken, f"Pass pandas.DataFrame({name}).")
    if isinstance(X, list | tuple):
        return _of_list(X, name, taken)
    if isinstance(X, Sequence) and not _is_array_like(X):
        return _of_list(list(X), name, taken)
    if _is_array_like(X):
        return X
    if _is_frame(X):
        return X
    if hasattr(X, "__arrow_c_stream__"):
        raise _refuse(X, name, taken, f"Pass pyarrow.table({name}).")
    raise _refuse(X, name, taken, f"Convert it first, for example to a pandas.DataFrame, and pass that as {name}.")


def _is_frame(X: Any) -> bool:
    """Whether narwhals reads it as a frame that is there, such as one of modin."""
    import narwhals as nw

    return isinstance(nw.from_native(X, pass_through=True), nw.DataFrame)


def _of_tensor(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    # NumPy has no bfloat16.
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array without a mask and without names, if it can be one."""
    if array.dtype.names is not None:
        fix = f"pandas.DataFrame({name})"
        if isinstance(array, np.ma.MaskedArray):
            fix = f"pandas.DataFrame({{n: {name}[n] for n in {name}.dtype.names}})"
        raise TypeError(
            f"{name} must be an array of numbers; got an array of records with the fields {list(array.dtype.names)}. "
            f"Pass {fix}, which keeps their names."
        )
    if not isinstance(array, np.ma.MaskedArray):
        return array
    mask = np.ma.getmaskarray(array)
    data: np.ndarray = np.asarray(array.data)
    if not mask.any():
        return data
    if array.dtype.kind in "iub":
        if array.dtype.itemsize == 8 and (np.abs(data[~mask].astype(np.float64)) >= MAX_EXACT).any():
            raise ValueError(
                f"{name} has masked entries beside integers beyond 2**53, which no float holds. Subtract an offset, or "
                f"fill it, {name}.filled(0)."
            )
        data = data.astype(np.float64)
    missing: Any = {"f": np.nan, "c": np.nan, "M": "NaT", "m": "NaT"}.get(data.dtype.kind)
    data = data.astype(object) if missing is None else data.copy()
    data[mask] = missing
    return data


def _of_list(X: Any, name: str, taken: str) -> Any:
    """Return a list whose elements lose nothing when an array is made of them."""
    kinds: dict[type, Any] = {}
    for element in X:
        kinds.setdefault(type(element), element)
    if len(kinds) == 1 and isinstance(X[0], Tensor) and X[0].layout == torch.strided:
        return [_of_tensor(element) for element in X]
    for element in kinds.values():
        remedy = _list_remedy(element, name)
        if remedy is not None:
            raise TypeError(f"{name} must be {taken}; got a {type(X).__name__} of {kind_of(element)}. {remedy}")
    return X


def _list_remedy(element: Any, name: str) -> str | None:
    """What to pass instead of a list with such an element, None if it loses nothing in an array."""
    if isinstance(element, str | bytes | frozenset | numbers.Number | np.generic) and not isinstance(element, np.void):
        return None
    if isinstance(element, Mapping | pd.Series) or dataclasses.is_dataclass(element) or hasattr(element, "_fields"):
        return f"Pass pandas.DataFrame({name}), which keeps their names."
    if _comes_from(element, "sqlite3.Row"):
        return f"Pass pandas.DataFrame([dict(row) for row in {name}]), which keeps their names."
    if isinstance(element, np.void) or (isinstance(element, np.ndarray) and element.dtype.names is not None):
        return f"Pass pandas.DataFrame(numpy.hstack({name})), which keeps their names."
    if isinstance(element, pd.DataFrame):
        return f"Pass pandas.concat({name})."
    if isinstance(element, np.ma.core.MaskedConstant):
        return "A masked element is a missing one: write None or numpy.nan."
    if isinstance(element, np.ma.MaskedArray):
        return f"Pass numpy.ma.stack({name})."
    if _comes_from(element, "anndata.AnnData"):
        return f"Pass anndata.concat({name})."
    if sparse.issparse(element):
        return f"Pass scipy.sparse.vstack({name}).toarray()."
    if _comes_from(element, "polars.DataFrame"):
        return f"Pass polars.concat({name})."
    if _comes_from(element, "pyarrow.Table"):
        return f"Pass pyarrow.concat_tables({name})."
    if isinstance(element, Tensor) and element.layout != torch.strided:
        return f"Pass torch.stack({name}).to_dense()."
    inner = _library_remedy(element, "element") or _standard_remedy(element, "element")
    if inner is not None:
        return f"Convert each element. {inner}"
    if _is_array_like(element) or isinstance(element, list | tuple | pd.Index | pd.api.extensions.ExtensionArray):
        return None
    if hasattr(element, "__getitem__") and hasattr(element, "__len__") and not _comes_from(element, "PIL"):
        return "NumPy would look for numbers inside it. Pass a list of arrays, one for each row."
    return None


def read_array(values: Any, name: str, dtype: Any = None, taken: str = "an array") -> np.ndarray:
    """Return what a user passed as an array, through `as_known`.

    Raises
    ------
    TypeError
        For what is no array, and for arrays of records.
    ValueError
        For values that have no place in one array, or not in one of this dtype.
    """
    known = as_known(values, name, taken)
    if isinstance(known, str | os.PathLike):
        raise _refuse(known, name, taken, f"That is the text {str(known)!r:.60}. Pass the values themselves.")
    if sparse.issparse(known):
        raise _refuse(known, name, taken, f"Pass {name}.toarray().")
    try:
        return np.asarray(known, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be {taken}; got {values!r:.60}, which does not convert: {error}.") from None


def as_numbers(X: Any, name: str = "X") -> np.ndarray:
    """Return an array-like as an array of numbers, with NaN for None, NA and NaT; its shape is left to the caller.

    Integers stay integers, and Python's own numbers, decimals and fractions among objects become float64.

    Raises
    ------
    TypeError
        For text, times of objects, and what is no array.
    ValueError
        For rows of different lengths, complex numbers, and integers that float64 does not hold.

    Examples
    --------
    >>> as_numbers([[1, None], [2.5, True]])
    array([[1. , nan],
           [2.5, 1. ]])
    """
    X = as_known(X, name)
    try:
        array = X if isinstance(X, np.ndarray) else np.asarray(X)
    except ValueError:
        lengths = sorted({len(row) if hasattr(row, "__len__") else 0 for row in X})
        raise ValueError(
            f"{name} must have rows of one length; got lengths from {lengths[0]} to {lengths[-1]}. "
            f"Pass pandas.DataFrame({name}), which puts missing values where a row ends."
        ) from None
    if array.dtype.kind in "US":
        raise _no_text(name, array.flat[0] if array.size else "")
    if array.dtype.kind == "V":
        raise TypeError(
            f"{name} must be an array of numbers; got raw bytes ({array.dtype}). Say what they are: "
            f"{name}.view(numpy.uint8)."
        )
    return _of_objects(array, name) if array.dtype.kind == "O" and array.ndim == 2 else array


def _no_text(name: str, example: Any) -> TypeError | ValueError:
    if isinstance(example, bytes):
        return ValueError(
            f"{name} must be an array of numbers; got bytes, such as {example!r:.40}. Pass a table of text, "
            f"pandas.DataFrame(numpy.char.decode({name})), or numbers, numpy.asarray({name}).astype(float)."
        )
    return ValueError(
        f"{name} must be an array of numbers; got text, such as {str(example)!r:.40}. Pass a table of text, "
        f"pandas.DataFrame({name}), or numbers, numpy.asarray({name}).astype(float)."
    )


def _of_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Turn objects (n, d) into numbers; what is none is left to scikit-learn's validation, which names it."""
    values = array.ravel().tolist()
    kinds = {type(value): value for value in values}
    for kind, value in kinds.items():
        if issubclass(kind, str | bytes):
            raise _no_text(name, value)
        times = datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64
        if issubclass(kind, times) and value is not pd.NaT:
            raise TypeError(
                f"{name} must be an array of numbers; got a {kind.__name__} among other objects. "
                f"Pass pandas.DataFrame({name}).infer_objects()."
            )
    if all(issubclass(kind, int | np.integer | np.bool_) for kind in kinds) and kinds:
        try:
            return np.array(values, dtype=np.int64).reshape(array.shape)
        except OverflowError:
            pass  # the check below says what is too large
    large = [v for v in values if isinstance(v, int | np.integer) and abs(int(v)) > MAX_EXACT]
    if large:
        raise ValueError(
            f"{name} holds integers beyond 2**53 ({large[0]}), which cannot be modelled exactly. Subtract an offset if "
            "they are numbers; leave the column out if it is an identifier."
        )
    known = numbers.Number | np.number | np.bool_ | type(None) | type(pd.NA) | type(pd.NaT)
    odd = [kind for kind in kinds if not issubclass(kind, known)]
    if any(issubclass(kind, complex | np.complexfloating) for kind in kinds):
        raise ValueError(f"Complex data not supported: {name} holds complex numbers. Pass {name}.real or {name}.imag.")
    if odd:
        return array
    missing = pd.isna(pd.Series(values, dtype=object)).to_numpy()
    return np.array([np.nan if absent else float(v) for v, absent in zip(values, missing)]).reshape(array.shape)


def as_values(values: Any, name: str) -> Any:
    """Return labels, numbers or vectors that go with rows, through the same gate: classes, conditions and weights.

    Parameters
    ----------
    values : object
        A single value, an array, a list, a column or a frame; a dict is left to the caller.
    name : str

    Returns
    -------
    object
        Columns of any library that pandas has a type for as Series and DataFrame, so that categories, time zones and
        missing values stay; single values, dicts, arrays and lists as they are.

    Raises
    ------
    TypeError
        For containers whose order or names are not known.
    """
    if isinstance(values, Mapping) or values is None or isinstance(values, str) or _is_single(values):
        return values
    taken = "a value, an array, a list, a Series or a DataFrame"
    known = as_known(values, name, taken)
    if sparse.issparse(known):
        raise _refuse(known, name, taken, f"Pass {name}.toarray().")
    if isinstance(known, pd.MultiIndex):
        return known.to_frame(index=False)
    if isinstance(known, pd.Index):
        return pd.Series(known, name=known.name)
    if isinstance(known, pd.api.extensions.ExtensionArray):
        return pd.Series(known)
    if _comes_from(known, "pyarrow.Array"):
        import pyarrow as pa

        return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([known])))
    return native(known)


def check_labels(values: Any, name: str, index: pd.Index | None) -> None:
    """Raise a ValueError if a Series or DataFrame has the row labels of X, `index`, in another order."""
    if not isinstance(values, pd.Series | pd.DataFrame) or index is None or values.index.equals(index):
        return
    if values.index.is_unique and set(values.index) == set(index):
        raise ValueError(
            f"{name} and X have the same row labels in a different order. "
            f"Use {name}.loc[X.index] (X.obs_names for AnnData)."
        )


def _is_single(value: Any) -> bool:
    """Whether an object is one value: a number, a date, an enumeration's member, anything without elements.

    A frozenset is one too: a level of categories can be, and rows have an order.
    """
    if isinstance(value, bytes | frozenset | np.generic | numbers.Number):
        return True
    if isinstance(value, type) or callable(value) or _library_remedy(value, "") is not None:
        return False
    return not (hasattr(value, "__iter__") or hasattr(value, "__getitem__") or _is_array_like(value))
