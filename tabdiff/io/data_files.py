"""Tables and single cells in files: csv, parquet and h5ad, chosen by the name's ending.

Reading keeps what the file says: a column of whole numbers stays whole where values are missing. Writing goes to a
temporary file in the same folder that is then renamed, so an output is whole or absent, and a file that was there
before stays until its successor is complete.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabdiff.io.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DataFileError",
    "SUFFIXES",
    "check_fits",
    "check_folder_output",
    "check_model_output",
    "check_output",
    "read_data",
    "write_data",
]

SUFFIXES = (".csv", ".parquet", ".h5ad")


class DataFileError(ValueError):
    """A data file that cannot be read or written; the message names it and says why."""


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        near = difflib.get_close_matches(suffix, SUFFIXES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataFileError(
            f"{path}: the file name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, "
            f"however: {suffix or 'no ending'}.{hint}"
        )
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise DataFileError(f'{path}: parquet files need pyarrow. Install it with: pip install "tabdiff[io]"')
    return suffix


def read_data(path: str | os.PathLike) -> Any:
    """Read a table or single cells.

    Parameters
    ----------
    path : path-like
        A ``.csv`` file with a header, a ``.parquet`` file, or an ``.h5ad`` file.

    Returns
    -------
    DataFrame or AnnData
        In a csv, empty cells and the usual marks (NA, NaN, null, ...) are missing values, and columns of dates
        (2024-05-31) or dates with times (2024-05-31 18:30:00) are read as such.

    Raises
    ------
    DataFileError
        If the file is missing, damaged, of another kind than its name says, or needs a library that is not there.
    """
    path = Path(path)
    suffix = _suffix(path)
    if not path.exists():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        raise DataFileError(f"{path}: no such file.{f' Did you mean {path.with_name(near[0])}?' if near else ''}")
    if path.is_dir():
        raise DataFileError(f"{path} is a folder, not a {suffix} file.")
    try:
        if suffix == ".csv":
            return _read_csv(path)
        if suffix == ".parquet":
            import pandas as pd

            return pd.read_parquet(path, engine="pyarrow")
        import anndata

        return anndata.read_h5ad(path)
    except (OSError, ValueError, KeyError) as error:
        raise DataFileError(f"{path} cannot be read as {suffix[1:]}: {str(error) or type(error).__name__}") from error


def _siblings(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    # The nullable reader tells 181 from 181.0 also in a column that has missing values.
    frame = pd.read_csv(path, dtype_backend="numpy_nullable")
    plain = {"Int64": "int64", "boolean": "bool", "Float64": "float64"}
    for name in frame.columns[~frame.columns.duplicated()]:
        dtype = str(frame[name].dtype)
        if dtype == "Float64" or (dtype in plain and not frame[name].isna().any()):
            frame[name] = frame[name].astype(plain[dtype])
        elif pd.api.types.is_string_dtype(frame[name].dtype):
            frame[name] = _as_times(frame[name])
    return frame


def _as_times(text: pd.Series) -> pd.Series:
    """Read a column of text as times if they would be written as the same text."""
    import pandas as pd

    observed = text.dropna()
    for form, length in (("%Y-%m-%d", 10), ("%Y-%m-%d %H:%M:%S", 19)):
        # The first value settles it for nearly every column of text.
        if len(observed) == 0 or pd.isna(pd.to_datetime(observed.iloc[0], format=form, errors="coerce")):
            continue
        times = pd.to_datetime(observed, format=form, errors="coerce")
        padded = (observed.str.len() == length).all() and times.notna().all()
        if padded and (length == 10 or (times != times.dt.normalize()).any()):
            return pd.to_datetime(text, format=form)
    return text


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
    if path.is_dir():
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
    if path.suffix.lower() in SUFFIXES:
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


def write_data(data: Any, path: str | os.PathLike) -> None:
    """Write a table or single cells; a file that is there already is replaced.

    Parameters
    ----------
    data : DataFrame or AnnData
        A table goes to ``.csv`` (missing values as empty cells) or ``.parquet``, cells go to ``.h5ad``.
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
    check_fits(path, cells=hasattr(data, "obs"))
    suffix = path.suffix.lower()
    try:
        with replacing(path) as temporary:
            if suffix == ".csv":
                data.to_csv(temporary, index=False)
            elif suffix == ".parquet":
                data.to_parquet(temporary, index=False, engine="pyarrow")
            else:
                data.write_h5ad(temporary, compression="gzip")
    except (OSError, ValueError, TypeError) as error:
        raise DataFileError(f"{path} cannot be written: {error}") from error


def check_fits(path: str | os.PathLike, *, cells: bool) -> None:
    """Raise a DataFileError unless the ending of `path` suits the data: ``.h5ad`` for cells, the others for tables."""
    suffix = Path(path).suffix.lower()
    if cells and suffix != ".h5ad":
        raise DataFileError(f"{path}: single cells are written as .h5ad, however: {suffix}.")
    if not cells and suffix == ".h5ad":
        raise DataFileError(
            f"{path}: a table is written as .csv or .parquet, however: .h5ad, which holds single cells."
        )
