"""Cells written to a file as they are drawn, so that memory holds one chunk of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["check_path", "write_cells"]

SUFFIXES = (".h5ad", ".zarr")


def check_path(path: str | os.PathLike) -> Path:
    """Return a path that ends in .h5ad or .zarr, in a folder that exists.

    Raises
    ------
    ValueError
        For another ending.
    FileNotFoundError
        If the folder does not exist.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, however: {path.name!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist.")
    return path


def write_cells(path: Path, n: int, chunks: Iterable[AnnData]) -> None:
    """Write chunks of cells one behind the other.

    Memory holds one chunk, and ``obs`` and ``obsm`` of all. The file appears at `path` when it is whole, and what was
    there before stays until then.

    Parameters
    ----------
    path : Path
        See `check_path`.
    n : int
        Number of cells in all.
    chunks : iterable of AnnData
        Of the same genes, ``obs`` columns and ``obsm`` keys.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        whole = folder / path.name
        if path.suffix == ".zarr":
            import zarr

            _fill(zarr.open_group(whole, mode="w"), n, chunks, folder)
        else:
            import h5py

            with h5py.File(whole, "w") as store:
                _fill(store, n, chunks, folder)
        if path.is_dir():
            shutil.rmtree(path)
        whole.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(store: Any, n: int, chunks: Iterable[AnnData], folder: Path) -> None:
    from anndata import AnnData
    from anndata.io import sparse_dataset, write_elem

    obs, obsm, done = [], [], 0
    dense: np.memmap | None = None
    for chunk in chunks:
        if sparse.issparse(chunk.X):
            x = sparse.csr_matrix(chunk.X)
            if done == 0:
                # 64-bit, because it counts the values of all cells.
                x.indptr = x.indptr.astype(np.int64)
                write_elem(store, "X", x)
            else:
                if not np.can_cast(x.dtype, store["X"]["data"].dtype):
                    raise ValueError(
                        f"some counts are beyond {store['X']['data'].dtype}, in which the first cells were written. "
                        "Draw them with sample, or with a smaller library_size."
                    )
                sparse_dataset(store["X"]).append(x)
        else:
            if dense is None:
                dense = np.lib.format.open_memmap(folder / "X.npy", "w+", chunk.X.dtype, (n, chunk.n_vars))
            dense[done : done + chunk.n_obs] = chunk.X
        obs.append(chunk.obs)
        obsm.append({key: np.asarray(value) for key, value in chunk.obsm.items()})
        done += chunk.n_obs
    rest = AnnData(
        obs=pd.concat(obs),
        var=chunk.var,
        uns=dict(chunk.uns),
        obsm={key: np.concatenate([part[key] for part in obsm]) for key in obsm[0]},
    )
    for key in ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers"):
        value = getattr(rest, key)
        write_elem(store, key, value if isinstance(value, pd.DataFrame) else dict(value))
    if dense is not None:
        write_elem(store, "X", dense)
    store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
