"""Files that are no tables of text: NumPy's npz, FASTA, and zarr folders of cells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["FASTA", "read_fasta", "read_npz", "read_zarr", "write_fasta", "write_npz", "write_zarr"]

FASTA = (".fasta", ".fa", ".fna", ".faa")
LINE = 80


def read_npz(path: Path) -> Any:
    """Read arrays: one in two dimensions or several in one as a DataFrame, one in three or four as images.

    A file that `write_npz` wrote has the names of the columns in "columns".

    Raises
    ------
    ValueError
        For other arrays, and for objects, which would run code.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    names = arrays.pop("columns", None)
    if len(arrays) == 1:
        array = next(iter(arrays.values()))
        if array.ndim == 2:
            columns = [f"x{j}" for j in range(array.shape[1])] if names is None else [str(n) for n in names]
            return pd.DataFrame(array, columns=columns)
        if array.ndim in (3, 4):
            return array
    shapes = {name: array.shape for name, array in arrays.items()}
    if arrays and all(len(shape) == 1 for shape in shapes.values()) and len(set(shapes.values())) == 1:
        return pd.DataFrame(arrays)
    raise ValueError(
        f"it must hold one array of rows or images, or several columns of one length; got {shapes or 'nothing'}. Keep "
        "one: numpy.savez(file, X=array)"
    )


def write_npz(data: Any, path: Path) -> None:
    """Write a frame of numbers as one array with the names of its columns; another with an array a column."""
    if isinstance(data, np.ndarray):
        np.savez_compressed(path, X=data)
    elif all(pd.api.types.is_numeric_dtype(t) for t in data.dtypes):
        array = data.to_numpy(dtype="float64", na_value=np.nan) if data.isna().any(axis=None) else data.to_numpy()
        if array.dtype == object:
            array = data.to_numpy(dtype="float64")
        np.savez_compressed(path, X=array, columns=np.array([str(c) for c in data.columns]))
    else:
        columns = {str(c): data[c].to_numpy() for c in data.columns}
        # Objects would need pickle; their text does not.
        np.savez_compressed(path, **{c: v.astype(str) if v.dtype == object else v for c, v in columns.items()})


def read_fasta(path: Path) -> pd.Series:
    """Read sequences: a Series named "sequence", by the first word of each header.

    Raises
    ------
    ValueError
        If the file does not start with a header, or a sequence is empty.
    """
    names: list[str] = []
    parts: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith(">"):
            names.append(line[1:].split(" ")[0] or f"sequence-{len(names)}")
            parts.append([])
        elif line and not parts:
            raise ValueError("its first line must start with '>'.")
        elif line:
            parts[-1].append(line)
    texts = ["".join(part) for part in parts]
    if not texts or "" in texts:
        raise ValueError("it holds no sequences." if not texts else f"{names[texts.index('')]!r} has no letters.")
    return pd.Series(texts, index=pd.Index(names, name="name"), name="sequence")


def write_fasta(sequences: Any, path: Path) -> None:
    """Write sequences (a list, or a Series or one column with names in the index) in lines of 80 letters."""
    if isinstance(sequences, pd.DataFrame):
        sequences = sequences["sequence"]
    named = isinstance(sequences, pd.Series) and not isinstance(sequences.index, pd.RangeIndex)
    names = list(sequences.index) if named else [f"synthetic-{i}" for i in range(len(sequences))]
    lines = []
    for name, text in zip(names, sequences, strict=True):
        lines += [f">{name}", *(text[i : i + LINE] for i in range(0, max(len(text), 1), LINE))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_zarr(path: Path) -> Any:
    """Read cells from a zarr folder."""
    import anndata

    return anndata.read_zarr(path)


def write_zarr(data: Any, path: Path) -> None:
    """Write cells to a zarr folder, which appears when it is whole; one that is there already is replaced."""
    draft = path.with_name(f".{path.stem}-draft.zarr")
    try:
        data.write_zarr(draft)
        if path.is_dir():
            shutil.rmtree(path)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
