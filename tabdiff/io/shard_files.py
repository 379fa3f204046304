"""Drawn rows in files: one for each shard, in a folder, or put together to a single file.

A shard is written beside its place and then renamed, so that a file that is there is whole. The formats are those that
other tools read as one data set: a folder of Parquet or CSV files, of AnnData, of FASTA, of arrays or of images.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib.util
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.io.anndata_writer import write_cells
from tabdiff.io.atomic import replacing
from tabdiff.io.csv_files import write_csv
from tabdiff.io.data_files import DataFileError
from tabdiff.io.image_grid import save_images

__all__ = [
    "FORMATS",
    "join_shards",
    "output_format",
    "parquet_schema",
    "remove_leftovers",
    "write_images",
    "write_shard",
]

# For each container the formats of its rows, the usual one first.
FORMATS: dict[str, tuple[str, ...]] = {
    "table": ("parquet", "csv", "csv.gz"),
    "array": ("parquet", "csv", "csv.gz", "npy"),
    "sequences": ("parquet", "csv", "csv.gz", "fasta"),
    "cells": ("h5ad", "zarr"),
    "images": ("png",),
}
OTHER_ENDINGS = {"fa": "fasta"}
CHARACTERS_A_LINE = 80
COPIED_BYTES = 2**24


def output_format(path: str | os.PathLike, container: str, asked: str = "auto") -> tuple[str, bool]:
    """Return the format that rows of a container are written in, and whether `path` is one file of it.

    Parameters
    ----------
    path : path-like
        The name of a file, whose ending says the format, or of a folder, which has none.
    container : {"array", "table", "cells", "images", "sequences"}
    asked : str
        The format of the files in a folder; "auto" is the usual one of the container.

    Raises
    ------
    ValueError
        For an ending or a format that does not hold such rows, or two that contradict each other.
    FileNotFoundError
        If the folder above `path` does not exist.
    ImportError
        If the library that writes the format is not installed.

    Examples
    --------
    >>> output_format("drawn", "table"), output_format("cells.zarr", "cells")
    (('parquet', False), ('zarr', True))
    """
    if container not in FORMATS:
        raise ValueError(
            "cells of several modalities are not written by sample_to. Draw them and write them: "
            "gen.sample(n).write_h5mu(path)."
        )
    path, known = Path(path), FORMATS[container]
    ending = "csv.gz" if path.name.lower().endswith(".csv.gz") else path.suffix.lower().removeprefix(".")
    ending = OTHER_ENDINGS.get(ending, ending)
    single = ending in {name for names in FORMATS.values() for name in names} - {"png"}
    if asked != "auto" and asked not in known:
        raise ValueError(f"format must be {_listed(known)} for a model of {_named(container)}; got {asked!r}.")
    if single and asked not in ("auto", ending):
        raise ValueError(f"format must be that of path, {ending!r}, or be left out; got {asked!r}.")
    if single and ending not in known:
        fix = f"path/without/ending for a folder of {known[0]} files"
        endings = _listed(tuple("." + name for name in known if name != "png"))
        raise ValueError(
            f"path must end in {endings} for a model of {_named(container)}, or be {fix}; got {path.name!r}."
            if container != "images"
            else f"path must be a folder for a model of images, to which they go as png files; got {path.name!r}."
        )
    if ending and not single and path.suffix[1:].isalpha() and not path.is_dir():
        raise ValueError(
            f"path must be a folder, or end in {_listed(tuple('.' + name for name in known))} for a model of "
            f"{_named(container)}; got {path.name!r}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist. Make it first: mkdir -p {path.parent}")
    if path.exists() and single == path.is_dir() and not (single and ending == "zarr"):
        there, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise FileExistsError(f"{path} is {there}, and is to be {wanted}. Choose another path.")
    name = ending if single else known[0] if asked == "auto" else asked
    for needed, names in (("pyarrow", ("parquet",)), ("zarr", ("zarr",)), ("PIL", ("png",))):
        if name in names and importlib.util.find_spec(needed) is None:
            extra = "images" if needed == "PIL" else "io"
            other = ', or choose format="csv"' if needed == "pyarrow" else ""
            raise ImportError(f'{name} files need {needed}. Install it with: pip install "tabdiff[{extra}]"{other}')
    return name, single


def _named(container: str) -> str:
    return {"table": "a table", "array": "an array"}.get(container, container)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}" if len(names) > 1 else repr(names[0])


def parquet_schema(example: pd.DataFrame) -> Any:
    """Return the Arrow schema of all shards, from rows that have every column's kind of value.

    Each shard alone would have one of its own: a column without a value has no type, and decimals are as wide as the
    largest that is there.
    """
    import pyarrow as pa

    schema = pa.Schema.from_pandas(_named_by_text(example), preserve_index=False)
    for i, field in enumerate(schema):
        if pa.types.is_decimal(field.type) and not isinstance(example.dtypes.iloc[i], pd.ArrowDtype):
            schema = schema.set(i, field.with_type(pa.decimal128(38, field.type.scale)))
    return schema


def _named_by_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet has no other names than text."""
    return frame.set_axis(frame.columns.map(str), axis=1)


def write_shard(rows: Any, path: Path, kind: str, *, schema: Any = None, names: Sequence[str] | None = None) -> None:
    """Write the rows of a shard to a file that appears when it is whole.

    Parameters
    ----------
    rows : DataFrame, ndarray, AnnData or sequence of str
        A table for parquet and csv, an array for npy, strings for fasta.
    path : Path
    kind : str
        One of the formats but "png"; see `FORMATS`.
    schema : pyarrow.Schema, optional
        Of Parquet files.
    names : sequence of str, optional
        Of the sequences of a FASTA file.

    Raises
    ------
    OSError
        If the file cannot be written, with its name; nothing of it is left behind.
    DataFileError
        For rows that the format cannot hold.
    """
    remove_leftovers(path.parent, path.name)
    try:
        if kind in ("h5ad", "zarr"):
            write_cells(path, rows.n_obs, iter([rows]))
            return
        with replacing(path) as temporary:
            if kind == "parquet":
                import pyarrow as pa
                import pyarrow.parquet as pq

                table = pa.Table.from_pandas(_named_by_text(rows), schema=schema, preserve_index=False)
                pq.write_table(table, temporary)
            elif kind in ("csv", "csv.gz"):
                write_csv(rows, temporary)
            elif kind == "npy":
                with temporary.open("wb") as file:
                    np.save(file, np.asarray(rows), allow_pickle=False)
            else:
                assert names is not None
                temporary.write_text("".join(_fasta(rows, names)))
    except MemoryError:
        raise
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    except Exception as error:  # whatever libraries raise about data that their format cannot hold
        raise DataFileError(f"{path} cannot be written: {_first_line(error)}") from error


def write_images(images: Any, folder: Path, labels: Any, first: int, n: int) -> None:
    """Write each image of a shard to a PNG file, numbered from `first` on among `n`.

    Raises
    ------
    OSError
        If one cannot be written.
    """
    try:
        save_images(images, folder, labels, first=first, n_images=n)
    except OSError as error:
        raise OSError(f"images from number {first} on cannot be written to {folder}: {error}") from error


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what a killed process left half-written of a file."""
    stem = Path(name).stem
    for pattern in (f".{stem}-*", f".{name}-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def join_shards(parts: Sequence[Path], path: Path, kind: str, n: int) -> None:
    """Put shards together to one file, some rows at a time; it appears when it is whole.

    Parameters
    ----------
    parts : sequence of Path
        In order.
    path : Path
    kind : str
        Their format; see `FORMATS`.
    n : int
        Number of rows of all.

    Raises
    ------
    OSError, DataFileError
        If it cannot be written; the parts stay.
    """
    try:
        if kind in ("h5ad", "zarr"):
            write_cells(path, n, _read_cells(parts, kind))
            return
        with replacing(path) as temporary:
            if kind == "parquet":
                _join_parquet(parts, temporary)
            elif kind in ("csv", "csv.gz"):
                _join_csv(parts, temporary)
            elif kind == "npy":
                _join_arrays(parts, temporary, n)
            else:
                with temporary.open("wb") as out:
                    for part in parts:
                        with part.open("rb") as file:
                            shutil.copyfileobj(file, out, COPIED_BYTES)
    except MemoryError:
        raise
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}. Its shards stay in {parts[0].parent}.") from error
    except Exception as error:
        raise DataFileError(f"{path} cannot be written: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _read_cells(parts: Sequence[Path], kind: str) -> Iterator[Any]:
    import anndata
    from scipy import sparse

    dtype = np.result_type(*{_counts_dtype(part, kind) for part in parts})
    for part in parts:
        cells = anndata.read_h5ad(part) if kind == "h5ad" else anndata.read_zarr(part)
        if sparse.issparse(cells.X):  # counts of some shards may be beyond what the others need
            cells.X = cells.X.astype(dtype, copy=False)
        yield cells


def _counts_dtype(part: Path, kind: str) -> np.dtype:
    if kind == "h5ad":
        import h5py

        with h5py.File(part) as store:
            return _values_dtype(store["X"])
    import zarr

    return _values_dtype(zarr.open_group(part, mode="r")["X"])


def _values_dtype(matrix: Any) -> np.dtype:
    return np.dtype(matrix.dtype if hasattr(matrix, "dtype") else matrix["data"].dtype)


def _join_parquet(parts: Sequence[Path], path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pq.read_schema(parts[0])) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for i in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(i))


@contextlib.contextmanager
def _open_text(path: Path, mode: str) -> Iterator[Any]:
    with path.open(f"{mode}b") as raw, contextlib.ExitStack() as stack:
        # Neither name nor time in the header: the same rows make the same file.
        compressed = path.suffix == ".gz"
        file = stack.enter_context(gzip.GzipFile("", f"{mode}b", fileobj=raw, mtime=0)) if compressed else raw
        yield stack.enter_context(io.TextIOWrapper(file, encoding="utf-8", newline=""))


def _join_csv(parts: Sequence[Path], path: Path) -> None:
    with _open_text(path, "w") as out:
        for i, part in enumerate(parts):
            with _open_text(part, "r") as file:
                if i > 0:
                    next(csv.reader(iter(file.readline, "")))  # the header, which may be of several lines
                shutil.copyfileobj(file, out, COPIED_BYTES)


def _join_arrays(parts: Sequence[Path], path: Path, n: int) -> None:
    first = np.load(parts[0], mmap_mode="r", allow_pickle=False)
    out = np.lib.format.open_memmap(path, "w+", first.dtype, (n, *first.shape[1:]))
    done = 0
    for part in parts:
        rows = np.load(part, mmap_mode="r", allow_pickle=False)
        out[done : done + len(rows)] = rows
        done += len(rows)
    out.flush()


def _fasta(sequences: Any, names: Sequence[str]) -> Iterator[str]:
    for sequence, name in zip(sequences, names, strict=True):
        lines = [sequence[i : i + CHARACTERS_A_LINE] for i in range(0, len(sequence), CHARACTERS_A_LINE)]
        yield "\n".join([f">{name}", *lines]) + "\n"
