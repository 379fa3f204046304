"""Tables, single cells and sequences in files, of a kind that the name's ending says.

Reading keeps what the file says: a column of whole numbers stays whole where values are missing, codes keep their
leading zeros, and what cannot be kept is refused or warned of (`tabdiff.io.csv_files`). Writing goes to a temporary
file in the same folder that is then renamed, so an output is whole or absent, and a file that was there before stays
until its successor is complete.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tabdiff.io.atomic import replacing
from tabdiff.io.csv_files import read_csv, write_csv
from tabdiff.io.csv_layout import CsvOptions
from tabdiff.io.modalities import is_mudata, quiet_mudata
from tabdiff.io.other_files import FASTA, read_fasta, read_npz, read_zarr, write_fasta, write_npz, write_zarr
from tabdiff.utils.validation import did_you_mean

__all__ = [
    "CELLS",
    "DataFileError",
    "SUFFIXES",
    "check_fits",
    "check_folder_output",
    "check_model_output",
    "check_output",
    "read_data",
    "write_data",
]

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather", ".npz", ".h5ad", ".zarr", ".h5mu", *FASTA)
# Endings that hold cells, by what they hold; all others are for tables and sequences.
CELLS = {"cells": (".h5ad", ".zarr"), "multimodal": (".h5mu",)}
# What to do with files of other kinds.
OTHERS = {
    ".tsv": "Rename it to .csv; tabs are recognised.",
    ".tab": "Rename it to .csv; tabs are recognised.",
    ".txt": "Rename it to .csv if it is a table; tabs, semicolons and pipes are recognised.",
    ".xlsx": "Save the sheet as CSV UTF-8, or convert it: pandas.read_excel(file).to_parquet(...).",
    ".xls": "Save the sheet as CSV UTF-8, or convert it: pandas.read_excel(file).to_parquet(...).",
    ".json": "Convert it: pandas.read_json(file).to_csv(..., index=False).",
    ".npy": "Convert it: pandas.DataFrame(numpy.load(file)).to_csv(..., index=False).",
    ".h5": "Convert it, if it is of 10x: scanpy.read_10x_h5(file).write_h5ad(...).",
    ".hdf5": "Convert it, if it is of 10x: scanpy.read_10x_h5(file).write_h5ad(...).",
    ".mtx": "Convert it, if it is of 10x: scanpy.read_10x_mtx(folder).write_h5ad(...).",
    ".loom": "Convert it: anndata.io.read_loom(file).write_h5ad(...).",
    ".zip": "Unpack it first.",
    ".gz": "Only csv files are read compressed, and end in .csv.gz.",
}


class DataFileError(ValueError):
    """A data file that cannot be read or written; the message names it and says why."""


def _suffix(path: Path, others: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the ending of a name, or say which there are, and what to do with those of `others`."""
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".csv.gz"):
        return ".csv.gz"
    if suffix not in SUFFIXES:
        near = difflib.get_close_matches(suffix, SUFFIXES, n=1)
        hint = f" {others[suffix]}" if suffix in others else f" Did you mean {near[0]}?" if near else ""
        raise DataFileError(
            f"{path}: the file name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; "
            f"got {suffix or 'no ending'}.{hint}"
        )
    needed = {".parquet": "pyarrow", ".feather": "pyarrow", ".zarr": "zarr", ".h5mu": "mudata"}.get(suffix)
    extra = "multimodal" if suffix == ".h5mu" else "io"
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise DataFileError(
            f'{path}: {suffix[1:]} files need {needed}. Install it with: pip install "tabdiff[{extra}]"'
        )
    return suffix


def read_data(
    path: str | os.PathLike,
    *,
    sep: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    skip: int = 0,
    missing: Sequence[str] | None = None,
    text: Sequence[str] = (),
    dates: str | None = None,
    drop: Sequence[str] = (),
) -> Any:
    r"""Read a table or single cells.

    Parameters
    ----------
    path : path-like
        A ``.csv`` or ``.csv.gz`` file with a header; ``.parquet``, ``.feather``; ``.npz`` of one array or of columns;
        ``.h5ad`` or a ``.zarr`` folder of cells, ``.h5mu`` of cells of several modalities; ``.fasta``, ``.fa``,
        ``.fna`` or ``.faa``.
    sep : str, optional
        csv: what separates fields. By default the comma, semicolon, tab or pipe that gives every line the same number.
    decimal : str, optional
        csv: the decimal mark. By default the point, and where the separator is no comma, the comma in columns in which
        all numbers are written so.
    thousands : str, optional
        csv: what groups digits, as in 1,234,567. By default such columns are text, with a warning.
    encoding : str, optional
        csv: by default UTF-8, or UTF-16 where the file starts with the mark of it.
    header : bool, default=True
        csv: whether the first line has the names of the columns; otherwise they become x0, x1, ...
    skip : int, default=0
        csv: lines to skip above the header.
    missing : sequence of str, optional
        csv: what marks missing values, beside empty fields. By default NA, NaN, null, None and their spellings; NA is
        kept as a value in a column of codes of two capitals, where it is Namibia.
    text : sequence of str, default=()
        csv: names of columns that are text, whatever they look like.
    dates : {"dmy", "mdy"}, optional
        csv: the order in dates such as 02/03/2024. By default such columns are text, with a warning, unless a day above
        12 tells.
    drop : sequence of str, default=()
        Names of columns to leave out.

    Returns
    -------
    DataFrame, AnnData, MuData, Series of sequences or array of images
        In a csv, a column is what all of its fields are: truth values (TRUE, True or true), whole numbers, other
        numbers, times (ISO 8601 in its forms, see `tabdiff.io.time_text`, times of day, durations such as ``1 days
        02:00:00``), or text. Whole numbers of which one has a leading zero (02139, 007) are text, as they are codes.
        ``frame.attrs["csv"]`` holds how the file was written; `write_data` goes by it, also for rows that a model
        draws which was fitted on the frame. The encoding of what is written is UTF-8.

    Raises
    ------
    DataFileError
        If the file is missing, damaged, of another kind than its name says, or needs a library that is not there; in a
        csv for a line with more fields than the header, names that repeat, or a separator that cannot be told.

    Warns
    -----
    UserWarning
        For what may be meant otherwise in a csv: lines with fewer fields than the header, a header of numbers, columns
        without name or that number the rows, text that looks like numbers or dates.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from tabdiff.io.data_files import read_data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "table.csv")
    ...     _ = path.write_text("zip;price;at\n02139;1,5;2024-05-31T18:30Z\n10115;20,25;2024-06-01T00:00Z\n")
    ...     read_data(path)
         zip  price                        at
    0  02139   1.50 2024-05-31 18:30:00+00:00
    1  10115  20.25 2024-06-01 00:00:00+00:00
    """
    path = Path(path)
    suffix = _suffix(path, OTHERS)
    if not path.exists():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        raise DataFileError(f"{path}: no such file.{f' Did you mean {path.with_name(near[0])}?' if near else ''}")
    if path.is_dir() != (suffix == ".zarr"):
        kind = ("folder", f"{suffix} file") if path.is_dir() else ("file", "folder of zarr")
        raise DataFileError(f"{path} is a {kind[0]}, not a {kind[1]}.{_folder_hint(path)}")
    csv = dict(sep=sep, decimal=decimal, thousands=thousands, encoding=encoding, missing=missing, dates=dates)
    given = [name for name, value in csv.items() if value is not None]
    given += [name for name, value in (("header", not header), ("skip", skip), ("text", text)) if value]
    if given and not suffix.startswith(".csv"):
        raise DataFileError(f"{path}: {given[0]} is for csv files. Leave it out.")
    try:
        if suffix.startswith(".csv"):
            marks, texts, dropped = (None if names is None else _strings(names) for names in (missing, text, drop))
            options = CsvOptions(
                sep, decimal, thousands, encoding, header, skip, marks, texts or (), dates, dropped or ()
            )
            return read_csv(path, options)
        if suffix == ".parquet":
            import pandas as pd

            data = pd.read_parquet(path, engine="pyarrow")
        elif suffix == ".feather":
            import pandas as pd

            data = pd.read_feather(path)
        elif suffix == ".npz":
            data = read_npz(path)
        elif suffix == ".zarr":
            data = read_zarr(path)
        elif suffix in FASTA:
            data = read_fasta(path)
        elif suffix == ".h5mu":
            data = _read_h5mu(path)
        else:
            data = _read_h5ad(path)
    except PermissionError as error:
        raise DataFileError(f"{path} may not be read: permission denied. Allow it: chmod u+r {path}") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever libraries raise about a file that is none of their kind
        raise DataFileError(f"{path} cannot be read as {suffix[1:]}: {_said(error)}") from error
    return _without(data, drop, path)


def _strings(values: Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _said(error: Exception) -> str:
    """Return the first line of an error of another library."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _folder_hint(path: Path) -> str:
    if path.suffix.lower() == ".parquet":
        return " Read its files together: pandas.read_parquet(folder).to_parquet(file)."
    return ""


def _without(data: Any, drop: Sequence[str], path: Path) -> Any:
    """Leave columns out; of cells, columns of obs."""
    names = _strings(drop)
    if not names:
        return data
    if not hasattr(data, "columns"):
        raise DataFileError(f"{path}: drop is for tables; of obs only what condition names is modelled. Leave it out.")
    unknown = [name for name in names if name not in data.columns]
    if unknown:
        hint = did_you_mean(unknown[0], data.columns)
        raise DataFileError(
            f"{path}: drop names the column {unknown[0]!r}, which it lacks.{hint} Columns: {list(data.columns)}."
        )
    return data.drop(columns=list(names))


def _read_h5ad(path: Path) -> Any:
    import anndata
    import h5py

    if not h5py.is_hdf5(path):
        raise ValueError("it is no HDF5 file, or was cut off.")
    with h5py.File(path) as file:
        parts, kind = sorted(file), file.attrs.get("encoding-type", "")
        of_10x = isinstance(file.get("matrix"), h5py.Group)
    # Files of versions before 0.8 do not say what they are.
    if kind != "anndata" and not {"obs", "var"} <= set(parts):
        fix = "Make an AnnData of one of its arrays: anndata.AnnData(array).write_h5ad(...)"
        fix = "Convert it: scanpy.read_10x_h5(file).write_h5ad(...)" if of_10x else fix
        raise ValueError(f"it holds {', '.join(parts)[:80] or 'nothing'}, and no AnnData. {fix}")
    if "mod" in parts:
        raise ValueError(
            "it is MuData. Rename it to .h5mu, or write one of its modalities: "
            "mudata.read_h5mu(file).mod[name].write_h5ad(...)"
        )
    try:
        return anndata.read_h5ad(path)
    except OSError:
        raise
    except Exception as error:
        version = importlib.metadata.version("anndata")
        raise ValueError(
            f"anndata {version} does not understand it ({_said(error)}). If a newer version wrote it, update: "
            "pip install -U anndata"
        ) from error


def _read_h5mu(path: Path) -> Any:
    import h5py
    import mudata

    if not h5py.is_hdf5(path):
        raise ValueError("it is no HDF5 file, or was cut off.")
    with h5py.File(path) as file:
        if "mod" not in file:
            raise ValueError("it has no modalities. Rename it to .h5ad if it is AnnData.")
    with quiet_mudata():
        return mudata.read_h5mu(path)


def _siblings(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def check_output(path: str | os.PathLike) -> Path:
    """Check, before the work is done, that a data file can be written to `path`.

    Parameters
    ----------
    path : path-like
        Where the file is to be; one that is there already will be replaced.

    Returns
    -------
    Path

    Raises
    ------
    DataFileError
        For an unknown ending, a missing folder, a folder in its place, or a library that is not there.
    """
    path = Path(path)
    _suffix(path)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        raise DataFileError(f"{path} is a folder; give the name of a file in it, such as {path / 'synthetic.csv'}.")
    _check_parent(path)
    return path


def check_folder_output(path: str | os.PathLike) -> Path:
    """Check, before the work is done, that images can be written to the folder `path`.

    Raises
    ------
    DataFileError
        If the folder above is missing, or `path` is a file, a folder with anything in it or the name of a file.
    """
    path = Path(path)
    if path.suffix.lower() in (*SUFFIXES, ".gz"):
        raise DataFileError(f"{path}: images go to a folder, a file for each; give a name without {path.suffix}.")
    _check_parent(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataFileError(f"{path} is {'a folder that is not empty' if path.is_dir() else 'a file'}; choose another.")
    return path


def check_model_output(path: str | os.PathLike) -> Path:
    """Check, before the fit, that a model can be written to `path`.

    Parameters
    ----------
    path : path-like
        Where the model is to be; one that is there already will be replaced.

    Returns
    -------
    Path

    Raises
    ------
    DataFileError
        If the folder above is missing, or `path` is something else that is there already.
    """
    from tabdiff.io.model_files import SUFFIX, is_model_file
    from tabdiff.io.serialization import CONFIG

    path = Path(path)
    _check_parent(path)
    if path.suffix == SUFFIX and not path.is_dir():
        if path.exists() and not is_model_file(path):
            raise DataFileError(f"{path} is there already, and is no model of tabdiff. Choose another path.")
        return path
    if path.suffix == SUFFIX or (path.exists() and not path.is_dir()):
        kind, other = ("folder", f"file, as it ends in {SUFFIX}") if path.is_dir() else ("file", "folder")
        raise DataFileError(f"{path} is a {kind}; a model is a {other}. Choose another path.")
    if path.is_dir() and any(path.iterdir()) and not (path / CONFIG).is_file():
        raise DataFileError(f"{path} is not empty and holds no model. Choose another path.")
    return path


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise DataFileError(f"{path}: the folder {path.parent} does not exist. Make it first: mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise DataFileError(f"{path}: nothing may be written to {path.parent}. Allow it: chmod u+w {path.parent}")


def write_data(data: Any, path: str | os.PathLike) -> None:
    """Write a table or single cells; a file that is there already is replaced.

    Parameters
    ----------
    data : DataFrame, AnnData or MuData
        A table goes to ``.csv``, ``.csv.gz``, ``.parquet``, ``.feather`` or ``.npz``, cells go to ``.h5ad`` or
        ``.zarr``, a MuData to ``.h5mu``, a column or Series "sequence" to FASTA too. A csv is written in the form that
        `read_data` found and the frame carries; otherwise with commas, and missing values as empty cells.
    path : path-like
        Where to; the folder must exist.

    Raises
    ------
    DataFileError
        If the ending does not fit the data, or the file cannot be written; nothing is then left behind.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> from tabdiff.io.data_files import read_data, write_data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_data(pd.DataFrame({"n": pd.array([1, None], "Int64")}), f"{folder}/table.csv")
    ...     read_data(f"{folder}/table.csv")["n"].to_list()
    [1, <NA>]
    """
    path = check_output(path)
    check_fits(path, kind="multimodal" if is_mudata(data) else "cells" if hasattr(data, "obs") else "table")
    suffix = path.suffix.lower()
    try:
        if suffix == ".zarr":
            write_zarr(data, path)
            return
        with replacing(path) as temporary:
            if suffix in (".csv", ".gz"):
                write_csv(data, temporary)
            elif suffix == ".parquet":
                # Parquet has no other names than text.
                data.set_axis(data.columns.map(str), axis=1).to_parquet(temporary, index=False, engine="pyarrow")
            elif suffix == ".feather":
                data.set_axis(data.columns.map(str), axis=1).reset_index(drop=True).to_feather(temporary)
            elif suffix == ".npz":
                write_npz(data, temporary)
            elif suffix in FASTA:
                write_fasta(data, temporary)
            elif suffix == ".h5mu":
                with quiet_mudata():
                    data.write_h5mu(temporary, compression="gzip")
            else:
                data.write_h5ad(temporary, compression="gzip")
    except MemoryError:
        raise
    except Exception as error:  # whatever libraries raise about data that their format cannot hold
        raise DataFileError(f"{path} cannot be written: {_said(error)}") from error


def check_fits(path: str | os.PathLike, *, kind: str) -> None:
    """Raise a DataFileError unless the ending of `path` suits the kind of data, "table", "cells" or "multimodal"."""
    suffix = Path(path).suffix.lower()
    if kind in CELLS and suffix not in CELLS[kind]:
        what = "cells of several modalities" if kind == "multimodal" else "single cells"
        raise DataFileError(f"{path}: {what} are written as {' or '.join(CELLS[kind])}; got {suffix or 'no ending'}.")
    if kind not in CELLS and any(suffix in endings for endings in CELLS.values()):
        raise DataFileError(f"{path}: a table is written as .csv or .parquet; got {suffix}, which holds single cells.")
