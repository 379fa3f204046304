"""Frames of other libraries: polars, pyarrow and whatever else narwhals reads, to pandas and back.

They travel as Arrow columns, which keep every dtype; `ForeignFrame` remembers the library and the schema.
"""

from __future__ import annotations

import base64
import importlib.util
from typing import Any, Self

import pandas as pd

__all__ = ["ForeignFrame", "to_pandas"]


class ForeignFrame:
    """The library and schema of a frame that is not pandas', and the way back to it.

    Parameters
    ----------
    backend : str
        Name of the library, as narwhals knows it: "polars", "pyarrow", "modin", ...; "pandas" for frames as they come
        of a Parquet file.
    schema : bytes
        The frame's Arrow schema, serialised.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"n": pa.array([1, None], pa.uint8())})
    >>> frame, origin = ForeignFrame.read(table)
    >>> frame["n"].dtype, origin.write(frame).schema == table.schema
    (uint8[pyarrow], True)
    """

    def __init__(self, backend: str, schema: bytes) -> None:
        self.backend, self.schema = backend, schema

    @classmethod
    def read(cls, X: Any) -> tuple[Any, Self | None]:
        """Return a foreign frame as a DataFrame of Arrow columns with its origin; anything else as it is, with None.

        Raises
        ------
        TypeError
            For a lazy frame, and for a Series where a frame is meant.
        ImportError
            If pyarrow is missing, through which the values go.
        """
        import narwhals as nw

        frame = nw.from_native(X, pass_through=True, allow_series=True)
        kind = f"{type(X).__module__.split('.')[0]}.{type(X).__name__}"
        if isinstance(frame, nw.LazyFrame):
            fix = "collect" if hasattr(X, "collect") else "compute"
            raise TypeError(f"X is a lazy frame ({kind}), whose rows are not there yet. Pass X.{fix}().")
        if isinstance(frame, nw.Series):
            raise TypeError(f"X is a {kind}, a single column; pass a frame that has it as a column.")
        if not isinstance(frame, nw.DataFrame):
            return X, None
        if importlib.util.find_spec("pyarrow") is None:
            raise ImportError(f'X is a {kind}, which needs pyarrow. Install it with: pip install "tabdiff[io]"')
        table = frame.to_arrow()
        out = _signed(table).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
        return out, cls(frame.implementation.value, table.schema.serialize().to_pybytes())

    def check(self) -> None:
        """Check, before the work is done, that frames of the library can be made.

        Raises
        ------
        ImportError
            If it, or pyarrow, through which the values go, is not installed.
        """
        for name in (self.backend, "pyarrow"):
            if importlib.util.find_spec(name) is None:
                raise ImportError(
                    f"the model was fitted on a frame of {self.backend} and gives such frames, which needs {name}. "
                    f"Install it: pip install {name}"
                )

    def write(self, frame: pd.DataFrame) -> Any:
        """Return a DataFrame as a frame of the library; columns that the schema knows get their type there.

        Raises
        ------
        ImportError
            If the library is not installed.
        """
        import narwhals as nw
        import pyarrow as pa

        # Metadata describe a pandas index that new rows do not have.
        kept = pa.ipc.read_schema(pa.py_buffer(self.schema))
        schema = kept.remove_metadata()
        names = [str(name) for name in frame.columns]
        arrays = [pa.array(frame.iloc[:, j], from_pandas=True) for j in range(frame.shape[1])]
        known = [schema.field(name) if name in schema.names else None for name in names]
        if self.backend == "pyarrow":
            fields = [f if f is not None else pa.field(n, a.type) for f, n, a in zip(known, names, arrays)]
            return pa.table(arrays, names=names).cast(pa.schema(fields))
        if self.backend == "pandas":
            fields = [f if f is not None else pa.field(n, a.type) for f, n, a in zip(known, names, arrays)]
            metadata = kept.metadata if len(known) == len(kept) and all(known) else None
            return pa.table(arrays, names=names).cast(pa.schema(fields)).replace_schema_metadata(metadata).to_pandas()
        # What Arrow has no type for, such as a polars Enum, the library reads from the metadata of an empty table.
        backend: Any = nw.Implementation.from_string(self.backend)
        types = nw.from_arrow(schema.empty_table(), backend=backend).schema
        rows = nw.from_arrow(pa.table([_undictionary(a) for a in arrays], names=names), backend=backend)
        # Not all types can be cast to by every version, and most columns have theirs.
        cast = [nw.col(n).cast(types[n]) for n in names if n in types and rows.schema[n] != types[n]]
        return (rows.with_columns(*cast) if cast else rows).to_native()

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"backend": self.backend, "schema": base64.b64encode(self.schema).decode()}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        return cls(state["backend"], base64.b64decode(state["schema"]))


def _undictionary(array: Any) -> Any:
    """Spell out the labels of a dictionary array: the library makes its own dictionary of them."""
    import pyarrow as pa

    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def _signed(table: Any) -> Any:
    """Return the table with signed codes of categories: older pyarrow cannot read the unsigned ones of polars."""
    import pyarrow as pa

    fields = [
        f.with_type(pa.dictionary(pa.int64(), f.type.value_type, f.type.ordered))
        if pa.types.is_dictionary(f.type) and pa.types.is_unsigned_integer(f.type.index_type)
        else f
        for f in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def to_pandas(values: Any) -> Any:
    """Return a frame or series of another library as pandas', anything else as it is."""
    import narwhals as nw

    if isinstance(values, pd.DataFrame | pd.Series):
        return values
    series = nw.from_native(values, pass_through=True, allow_series=True)
    if isinstance(series, nw.Series):
        name = series.name or "values"
        frame, _ = ForeignFrame.read(series.alias(name).to_frame().to_native())
        return frame[name].rename(series.name or None)
    return ForeignFrame.read(values)[0]
