"""Tables that lie in files, read some rows at a time: Parquet, Arrow and CSV, or whatever can be written to such."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from tabdiff.io.atomic import ScratchFolder
from tabdiff.io.csv_files import CsvForm, read_csv
from tabdiff.io.csv_layout import CsvOptions
from tabdiff.io.data_files import DataFileError
from tabdiff.io.frames import ForeignFrame
from tabdiff.io.image_files import IMAGE_SUFFIXES
from tabdiff.utils.warnings import warn

__all__ = ["FrameSource", "frames_of", "is_frame_source", "open_frames", "read_frames"]

FORMATS = {
    ".parquet": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".csv": "csv",
    ".csv.gz": "csv",
}
# Rows that are read, surveyed and encoded at once.
CHUNK_ROWS = 65_536
# Values of such a chunk; wide tables have fewer rows.
CHUNK_VALUES = 2**22
# Of a csv file, from which the types of its columns are told.
HEAD_BYTES = 4 * 2**20
# Rows of a file that an iterator of frames is kept in.
SPOOLED_ROWS = 1_000_000


class FrameSource:
    """Rows of a table in files, some at a time, always in the same order.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        Its fragments are read one after the other.
    origin : ForeignFrame, CsvForm or None
        What drawn rows are to be; see `tabdiff.io.frames`.
    keep : object, optional
        Kept as long as this is, such as the folder of files that are to go with it.
    whole_files : bool
        Whether each fragment is a whole file, and so can be opened anew: pyarrow keeps what it knows of a file, which
        of a thousand Parquet files is a hundred megabytes.

    Attributes
    ----------
    schema : pyarrow.Schema
    names : list of str
        Of the columns.
    chunk_rows : int
        Rows that `chunks` gives at once, at most.

    Raises
    ------
    DataFileError
        If there are no files, one cannot be read, or has other columns than the first. The file is named.
    """

    def __init__(
        self, dataset: Any, origin: ForeignFrame | CsvForm | None, keep: Any = None, *, whole_files: bool = False
    ) -> None:
        self.dataset, self.origin, self._keep, self._whole_files = dataset, origin, keep, whole_files
        self.schema = dataset.schema
        self.names = list(self.schema.names)
        self.fragments = sorted(dataset.get_fragments(), key=lambda f: str(getattr(f, "path", "")))
        if not self.fragments:
            raise DataFileError("there are no files to fit on. Give the path, folder or glob of some.")
        if len(set(self.names)) < len(self.names):
            raise DataFileError(f"{_name(self.fragments[0])}: names of columns repeat: {self.names}. Rename them.")
        self.chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_VALUES // max(len(self.names), 1)))
        for fragment in self.fragments:
            self._check(self._opened(fragment))

    def _opened(self, fragment: Any) -> Any:
        """Return a fragment to read from, and then to forget."""
        if not self._whole_files:
            return fragment
        return fragment.format.make_fragment(fragment.path, fragment.filesystem, fragment.partition_expression)

    def _check(self, fragment: Any) -> None:
        """See that a file can be read, and has the columns of the first."""
        with _named_errors(fragment):
            schema = fragment.physical_schema
        # Columns that stand in the names of folders are none of a file.
        there, partition = set(schema.names), set(self.names) - set(self.fragments[0].physical_schema.names)
        missing = [name for name in self.names if name not in there | partition]
        more = [name for name in schema.names if name not in self.names]
        if missing or more:
            said = [f"lacks the columns {missing[:5]}"] if missing else []
            said += [f"has the further columns {more[:5]}"] if more else []
            raise DataFileError(
                f"{_name(fragment)} {' and '.join(said)}, unlike {_name(self.fragments[0])}. Leave the file out, or "
                "write it with the same columns."
            )
        for name in schema.names:
            if not _castable(schema.field(name).type, self.schema.field(name).type):
                raise DataFileError(
                    f"{_name(fragment)}: column {name!r} is {schema.field(name).type}, and in "
                    f"{_name(self.fragments[0])} it is {self.schema.field(name).type}. Write both alike."
                )

    def count(self, fragment: Any) -> int:
        """Return the number of rows of a fragment; of Parquet it stands in the file, others are read for it."""
        with _named_errors(fragment):
            return int(self._opened(fragment).count_rows())

    def chunks(self, start: int = 0) -> Iterator[pd.DataFrame]:
        """Give rows from number `start` on, as frames of Arrow columns.

        Raises
        ------
        DataFileError
            Naming the file that cannot be read.
        """
        skip = start
        for fragment in self.fragments:
            if skip and (n := self.count(fragment)) <= skip:
                skip -= n
                continue
            with _named_errors(fragment):
                batches = iter(
                    self._opened(fragment).to_batches(
                        schema=self.schema,
                        batch_size=self.chunk_rows,
                        batch_readahead=1,
                        fragment_readahead=1,
                        use_threads=False,
                    )
                )
            while True:
                with _named_errors(fragment):
                    batch = next(batches, None)
                if batch is None:
                    break
                if skip:
                    taken = min(skip, batch.num_rows)
                    batch, skip = batch.slice(taken), skip - taken
                if batch.num_rows:
                    yield as_frame(batch)

    def digest(self) -> str:
        """Return a hash of which files these are: names, sizes, times of change, columns."""
        found = hashlib.sha256(str(self.schema.remove_metadata()).encode())
        for fragment in self.fragments:
            path = str(getattr(fragment, "path", fragment))
            stamp = os.stat(path) if os.path.exists(path) else None
            found.update(repr((path, stamp and (stamp.st_size, stamp.st_mtime_ns))).encode())
        return found.hexdigest()


def as_frame(batch: Any) -> pd.DataFrame:
    """Return a RecordBatch or Table as a frame of Arrow columns; dictionaries are spelled out."""
    import pyarrow as pa

    table = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
    plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    if any(pa.types.is_dictionary(f.type) for f in table.schema):
        table = table.cast(pa.schema(plain))
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


def _castable(given: Any, wanted: Any) -> bool:
    """Whether a file's column goes to the type of the first file's without another meaning."""
    import pyarrow as pa

    types = pa.types

    def kind(t: Any) -> str:
        t = t.value_type if types.is_dictionary(t) else t
        if types.is_integer(t) or types.is_floating(t) or types.is_decimal(t):
            return "number"
        text = types.is_string(t) or types.is_large_string(t) or str(t) == "string_view"
        return "text" if text else str(t).partition("[")[0]

    return types.is_null(given) or given == wanted or kind(given) == kind(wanted)


def _name(fragment: Any) -> str:
    return str(getattr(fragment, "path", "") or "a part of the data set")


class _named_errors:
    """Name the file in an error of the library that reads it."""

    def __init__(self, fragment: Any) -> None:
        self.fragment = fragment

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        import pyarrow as pa

        if isinstance(error, FileNotFoundError):
            raise DataFileError(f"{_name(self.fragment)} is no longer there.") from error
        if isinstance(error, OSError | pa.ArrowException) and not isinstance(error, MemoryError):
            raise DataFileError(f"{_name(self.fragment)} cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return what a library says of a file, and what to do about it."""
    lines = str(error).strip().splitlines()
    hint = ""
    if "conversion error" in str(error):
        hint = (
            ". The types of the columns are those of the first rows; where others come later, say which: "
            "pyarrow.dataset.dataset(path, format=pyarrow.dataset.CsvFileFormat(convert_options=...))"
        )
    return f"{lines[0] if lines else type(error).__name__}{hint}."


# ----------------------------------------------------------------- what was given


def is_frame_source(X: Any) -> bool:
    """Whether X is a table that is read some rows at a time: files of one, a data set, a lazy frame."""
    if isinstance(X, str | os.PathLike):
        return bool(_find(os.fspath(X))) if not isinstance(os.fspath(X), bytes) else False
    module = type(X).__module__.partition(".")[0]
    if module == "pyarrow" and any(t.__name__ == "Dataset" for t in type(X).__mro__):
        return True
    return module == "polars" and type(X).__name__ == "LazyFrame"


def frames_of(X: Any) -> Iterator[Any] | None:
    """Return the frames of an iterator, None for what is none or gives something else; its first item is taken."""
    if not isinstance(X, Iterator):
        return None
    if type(X).__module__.startswith("pyarrow"):
        return X
    first = next(X, None)
    return chain([first], X) if _as_table(first) is not None else None


def _ending(name: str) -> str:
    lowered = name.lower()
    return ".csv.gz" if lowered.endswith(".csv.gz") else os.path.splitext(lowered)[1]


def _find(path: str) -> list[str]:
    """Return the files of tables that a path, glob or folder names; a folder of images has none."""
    if "://" in path:
        return [path]
    if os.path.isdir(path):
        found = sorted(p for p in glob.iglob(os.path.join(glob.escape(path), "**", "*"), recursive=True))
        named = [p for p in found if os.path.basename(p)[0] not in "._"]
        if any(os.path.splitext(p.lower())[1] in IMAGE_SUFFIXES for p in named[:1000]):
            return []
        return [p for p in named if _ending(p) in FORMATS and os.path.isfile(p)]
    if any(c in path for c in "*?[") and not os.path.exists(path):
        return sorted(p for p in glob.glob(path, recursive=True) if os.path.isfile(p)) or [path]
    return [path] if _ending(path) in FORMATS and os.path.exists(path) else []


def open_frames(X: Any, cache_dir: str | os.PathLike | None = None) -> FrameSource:
    """Open what `is_frame_source` says yes to, or frames that `frames_of` gives.

    Parameters
    ----------
    X : path-like, pyarrow.dataset.Dataset, polars.LazyFrame or iterator of frames
        Rows of an iterator, and those of a lazy frame, are written to Parquet files first, as they are read twice.
    cache_dir : path-like, optional
        Where such files go; by default a temporary folder.

    Raises
    ------
    DataFileError
        For paths without files of tables, or files of several kinds.
    ImportError
        If pyarrow is missing.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError('tables in files need pyarrow. Install it with: pip install "tabdiff[io]"')
    import pyarrow.dataset as ds

    if isinstance(X, str | os.PathLike):
        return _open_path(os.fspath(X))
    if isinstance(X, ds.Dataset):
        return FrameSource(X, ForeignFrame("pyarrow", X.schema.serialize().to_pybytes()))
    folder = ScratchFolder("tabdiff-rows-", cache_dir)
    if type(X).__name__ == "LazyFrame":
        _, origin = ForeignFrame.read(X.head(0).collect())
        try:
            X.sink_parquet(Path(folder.name, "rows.parquet"))
        except OSError as error:
            raise OSError(f"the rows of the lazy frame cannot be kept in {folder.name}: {error}") from error
    else:
        origin = _spool(X, Path(folder.name))
    return FrameSource(ds.dataset(folder.name, format="parquet"), origin, folder)


def read_frames(path: str) -> pd.DataFrame:
    """Read all files of a table into memory, such as the shards that a model drew.

    Parameters
    ----------
    path : str
        Folder or glob.

    Raises
    ------
    DataFileError, ImportError
        As in `open_frames`.
    """
    source = open_frames(path)
    if isinstance(source.origin, CsvForm) and "://" not in path:
        parts = [read_csv(Path(fragment.path), CsvOptions()) for fragment in source.fragments]
        whole = pd.concat(parts, ignore_index=True)
        whole.attrs = parts[0].attrs
        return whole
    frames: list[pd.DataFrame] = []
    for fragment in source.fragments:
        with _named_errors(fragment):
            frames.append(fragment.to_table(schema=source.schema).to_pandas())
    return pd.concat(frames, ignore_index=True)


def _open_path(path: str) -> FrameSource:
    import pyarrow as pa
    import pyarrow.dataset as ds

    files = _find(path)
    if "://" in path:
        dataset = ds.dataset(path, format=FORMATS.get(_ending(path), "parquet"))
        return FrameSource(dataset, ForeignFrame("pandas", dataset.schema.serialize().to_pybytes()))
    missing = [f for f in files if not os.path.exists(f)]
    if missing or not files:
        raise DataFileError(f"{path}: there are no such files. Give the path, folder or glob of Parquet or CSV files.")
    kinds = sorted({FORMATS.get(_ending(f), _ending(f) or "no ending") for f in files})
    if len(kinds) > 1 or kinds[0] not in FORMATS.values():
        raise DataFileError(
            f"{path} must name files of one kind, {', '.join(FORMATS)}; got {', '.join(kinds)}. Name them by a glob, "
            "such as 'lake/*.parquet'."
        )
    # Partitions are folders named key=value below the folder that was given.
    partitioning = "hive" if os.path.isdir(path) else None
    root = path if os.path.isdir(path) else None
    try:
        if kinds[0] == "csv":
            form, file_format = _csv_format(files[0])
            return FrameSource(ds.dataset(files, format=file_format), form, whole_files=True)
        dataset = ds.dataset(files, format=kinds[0], partitioning=partitioning, partition_base_dir=root)
    except (OSError, pa.ArrowException) as error:
        # The library looks at the first file only.
        raise DataFileError(f"{files[0]} cannot be read: {_said(error)}") from error
    return FrameSource(dataset, ForeignFrame("pandas", dataset.schema.serialize().to_pybytes()), whole_files=True)


def _csv_format(path: str) -> tuple[CsvForm | None, Any]:
    """Return the form of a csv file, and how pyarrow reads it, both told from its first rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset as ds

    head = _head(path)
    form = CsvForm.of(head) or CsvForm()
    types = {str(name): _arrow_type(dtype) for name, dtype in head.dtypes.items()}
    words = [w for w in ("true", "True", "TRUE", "1") if w], [w for w in ("false", "False", "FALSE", "0") if w]
    convert = pa.csv.ConvertOptions(
        column_types=types,
        decimal_point=form.decimal,
        true_values=words[0],
        false_values=words[1],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=sorted({"", "NA", "NaN", "nan", "null", "None", form.missing}),
    )
    parse = pa.csv.ParseOptions(delimiter=form.sep, newlines_in_values=True)
    return form, ds.CsvFileFormat(parse_options=parse, convert_options=convert)


def _head(path: str) -> pd.DataFrame:
    """Return the first rows of a csv file as `read_csv` reads them."""
    import gzip

    opened: Any = gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")
    with opened as file, tempfile.NamedTemporaryFile(suffix=".csv") as some:
        content = file.read(HEAD_BYTES)
        if len(content) == HEAD_BYTES:  # a line that was cut is none
            content = content[: content.rindex(b"\n") + 1]
        some.write(content)
        some.flush()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            head = read_csv(Path(some.name), CsvOptions())
    for each in found:  # which name the copy
        warn(str(each.message).replace(some.name, path))
    return head


def _arrow_type(dtype: Any) -> Any:
    import pyarrow as pa

    if pd.api.types.is_bool_dtype(dtype):
        return pa.bool_()
    if pd.api.types.is_integer_dtype(dtype):
        return pa.int64()
    if pd.api.types.is_float_dtype(dtype):
        return pa.float64()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pa.timestamp("us", str(dtype.tz))
    return pa.timestamp("us") if pd.api.types.is_datetime64_dtype(dtype) else pa.string()


def _as_table(frame: Any) -> tuple[Any, str] | None:
    """Return a frame as a table of Arrow, and the library that it is of; None for anything else."""
    import narwhals as nw
    import pyarrow as pa

    if isinstance(frame, pd.DataFrame):
        return pa.Table.from_pandas(frame, preserve_index=False), "pandas"
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame]), "pyarrow"
    known = nw.from_native(frame, pass_through=True, eager_only=True)
    return (known.to_arrow(), known.implementation.value) if isinstance(known, nw.DataFrame) else None


def _spool(frames: Iterator[Any], folder: Path) -> ForeignFrame:
    """Write the frames of an iterator to files, and return what they were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    origin: ForeignFrame | None = None
    writer: pq.ParquetWriter | None = None
    n_files = n_rows = 0
    try:
        for i, frame in enumerate(frames):
            found = _as_table(frame)
            if found is None:
                raise TypeError(
                    f"an iterator must give frames of pandas, polars or pyarrow; got {type(frame).__name__} as number "
                    f"{i}. Give pandas.DataFrame(rows) instead."
                )
            table, backend = found
            if origin is None:
                origin = ForeignFrame(backend, table.schema.serialize().to_pybytes())
                schema = table.schema
            if table.schema.names != schema.names:
                raise ValueError(f"frame {i} of the iterator has the columns {table.schema.names}, not {schema.names}.")
            if writer is None:
                writer = pq.ParquetWriter(folder / f"rows-{n_files:06}.parquet", schema)
            try:
                writer.write_table(table.cast(schema))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise ValueError(f"frame {i} of the iterator has other types than the first: {error}") from error
            n_rows += table.num_rows
            if n_rows >= SPOOLED_ROWS:
                writer.close()
                writer, n_files, n_rows = None, n_files + 1, 0
    except OSError as error:
        raise OSError(f"the frames of the iterator cannot be kept in {folder}: {error}") from error
    finally:
        if writer is not None:
            writer.close()
    if origin is None:
        raise ValueError("the iterator gave no frame. Make a new one: it can be read once only.")
    return origin
