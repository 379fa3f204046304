"""AnnData in files, opened without reading their expression."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["is_cell_file", "open_cells"]


def is_cell_file(X: Any) -> bool:
    """Whether X is the path of an AnnData that is there, by its ending."""
    path = Path(os.fsdecode(X)) if isinstance(X, str | os.PathLike) else None
    return path is not None and path.suffix.lower() in (".h5ad", ".zarr") and path.exists()


def open_cells(path: str | os.PathLike) -> Any:
    """Return the AnnData of a file, whose ``X`` stays on disk.

    Raises
    ------
    ValueError
        If there is none, or it is no AnnData.

    Examples
    --------
    >>> import tempfile, anndata, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/cells.h5ad")
    ...     cells = open_cells(f"{folder}/cells.h5ad")
    ...     print(cells.isbacked, cells.shape)
    ...     cells.file.close()
    True (3, 3)
    """
    import anndata

    path = Path(path)
    try:
        return anndata.read_h5ad(path, backed="r") if path.suffix.lower() == ".h5ad" else _open_zarr(path)
    except Exception as error:  # whatever libraries raise about a file that is none of theirs
        said = str(error).strip().splitlines()
        raise ValueError(f"{path} cannot be read as AnnData: {said[0] if said else type(error).__name__}") from error


def _open_zarr(path: Path) -> Any:
    import zarr
    from anndata import AnnData
    from anndata.io import read_elem, sparse_dataset

    store: Any = zarr.open_group(path, mode="r")

    def matrix(element: Any) -> Any:
        return sparse_dataset(element) if isinstance(element, zarr.Group) else element

    layers = store["layers"] if "layers" in store else {}
    return AnnData(
        matrix(store["X"]) if "X" in store else None,
        obs=read_elem(store["obs"]),
        var=read_elem(store["var"]),
        obsm=read_elem(store["obsm"]) if "obsm" in store else None,
        layers={name: matrix(layers[name]) for name in layers},
    )
