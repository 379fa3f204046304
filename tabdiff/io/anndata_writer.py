"""Cells written to a file as they are drawn, so that memory holds one chunk of them."""

from __future__ import annotations

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

__all__ = ["write_cells"]


def write_cells(path: Path, n: int, chunks: Iterable[AnnData]) -> None:
    """Write chunks of cells one behind the other.

    Memory holds one chunk, and ``obs`` of all. The file appears at `path` when it is whole, and what was
    there before stays until then.

    Parameters
    ----------
    path : Path
        Ends in .h5ad or .zarr, in a folder that exists.
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

    obs, done = [], 0
    dense: dict[str, np.memmap] = {}

    def put(name: str, values: np.ndarray) -> None:
        """Keep some rows of an array on disk until all are there."""
        if name not in dense:
            file = folder / f"array-{len(dense)}.npy"
            dense[name] = np.lib.format.open_memmap(file, "w+", values.dtype, (n, *values.shape[1:]))
        dense[name][done : done + len(values)] = values

    for chunk in chunks:
        if done == 0:
            first = chunk
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
            put("X", np.asarray(chunk.X))
        obs.append(chunk.obs)
        for key, value in chunk.obsm.items():
            put(f"obsm/{key}", np.asarray(value))
        done += chunk.n_obs
    if done != n:
        raise ValueError(f"the shards hold {done} cells, and {n} were to be written")
    # As plain arrays, which they are to anndata; their values stay on disk.
    arrays = {name: values.view(np.ndarray) for name, values in dense.items()}
    obsm = {name.removeprefix("obsm/"): values for name, values in arrays.items() if name != "X"}
    rest = AnnData(obs=pd.concat(obs), var=first.var, uns=dict(first.uns), obsm=obsm)
    for key in ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers"):
        value = getattr(rest, key)
        write_elem(store, key, value if isinstance(value, pd.DataFrame) else dict(value))
    if "X" in arrays:
        write_elem(store, "X", arrays["X"])
    store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
