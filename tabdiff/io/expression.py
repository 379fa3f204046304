"""Reading expression matrices: finding the counts, checking them, and taking dense rows a few at a time."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from scipy import sparse

from tabdiff.io.stored_matrix import StoredMatrix, take_columns
from tabdiff.utils.array_likes import MAX_EXACT

CHUNK = 2048
# Values, zeros included, of rows that are drawn or compared together: a dozen arrays of their size are there at once.
BLOCK_VALUES = 2**23
# Values, zeros included, from which on a matrix on disk is not read into memory: 13,000 cells of 20,000 genes.
MEMORY_VALUES = 2**28
_stored: dict[tuple[int, str], StoredMatrix] = {}
# In single precision, in which values are modelled, and sums of some are finite too.
MAX_FLOAT = 1e36
LARGEST_LOG = 20.0  # log1p of a count is below it


def in_memory(matrix: Any) -> Any:
    """A CSR matrix or a dense array for any matrix of an AnnData: sparse, dense, backed on disk, or lazy.

    CSR and dense arrays come back without a copy. What is on disk or lazy is read some rows at a time and kept
    as CSR.
    """
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    if (sparse.issparse(matrix) or isinstance(matrix, np.ndarray)) and not matrix.dtype.isnative:
        matrix = matrix.astype(matrix.dtype.newbyteorder("="))
    if sparse.issparse(matrix):
        return matrix if matrix.format == "csr" else matrix.tocsr()
    if isinstance(matrix, np.ma.MaskedArray):
        raise ValueError(
            "the AnnData holds a masked array, and expression has no missing values. Fill it, matrix.filled(0)."
        )
    if isinstance(matrix, np.ndarray):
        return matrix
    parts = []
    for start in range(0, matrix.shape[0], CHUNK):
        part = matrix[start : start + CHUNK]
        part = part.compute() if hasattr(part, "compute") else part
        parts.append(sparse.csr_matrix(part))
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix(matrix.shape)


def readable(adata: Any, name: str, matrix: Any) -> Any:
    """Return a matrix of an AnnData for reading rows of it: in memory, or where it is large and on disk, in a file.

    The file is made once for each AnnData, and goes with it.
    """
    on_disk = not (sparse.issparse(matrix) or isinstance(matrix, np.ndarray)) and hasattr(matrix, "shape")
    by_rows = getattr(matrix, "format", "csr") == "csr"
    if not (on_disk and by_rows and matrix.shape[0] * matrix.shape[1] > MEMORY_VALUES):
        return in_memory(matrix)
    key = id(adata), name
    if key not in _stored:
        _stored[key] = StoredMatrix(matrix)
        weakref.finalize(adata, _stored.pop, key, None)
    return _stored[key]


def is_sparse(matrix: Any) -> bool:
    """Whether a matrix that `find_expression` gives holds what is not zero only."""
    return bool(matrix.is_sparse if isinstance(matrix, StoredMatrix) else sparse.issparse(matrix))


def counts_dtype(counts: Any) -> str:
    """The smaller of the integer types that hold a matrix of counts: "int32" or "int64"."""
    # As a Python number: beside one of half precision the limit would overflow.
    fits = counts.shape[0] == 0 or float(counts.max()) <= np.iinfo(np.int32).max
    return "int32" if fits else "int64"


def expressed_genes(matrix: Any) -> np.ndarray | None:
    """Positions of the genes with any count, in order; None where that is all of them, or none."""
    largest = matrix.max(axis=0)
    there = np.flatnonzero(np.asarray(largest.toarray() if sparse.issparse(largest) else largest).reshape(-1) > 0)
    return there if 0 < len(there) < matrix.shape[1] else None


def take_genes(matrix: Any, genes: np.ndarray | None) -> Any:
    """The columns `genes`, sorted, of a matrix that `find_expression` gives; all for None."""
    if genes is None:
        return matrix
    if isinstance(matrix, StoredMatrix):
        return matrix.take_genes(genes)
    return take_columns(matrix, genes) if sparse.issparse(matrix) else matrix[:, genes]


def spread_genes(matrix: sparse.csr_matrix, genes: np.ndarray | None, n_genes: int) -> sparse.csr_matrix:
    """A CSR matrix with the columns of another at the positions `genes` of n_genes, and nothing elsewhere."""
    if genes is None:
        return matrix
    places = genes.astype(matrix.indices.dtype)[matrix.indices]
    return sparse.csr_matrix((matrix.data, places, matrix.indptr), shape=(matrix.shape[0], n_genes))


def block_rows(n_genes: int) -> int:
    """Return how many rows of so many genes are drawn or compared together.

    Examples
    --------
    >>> block_rows(1000), block_rows(20_000)
    (2048, 419)
    """
    return int(np.clip(BLOCK_VALUES // max(n_genes, 1), 1, CHUNK))


def dense_rows(matrix: Any, rows: Any, places: np.ndarray | None = None) -> np.ndarray:
    """Rows of a CSR matrix or array as a dense float32 array.

    With `places` (n_columns,), columns are summed in the column that this names for each.
    """
    part = matrix[rows]
    if places is not None:
        part = sparse.csr_matrix(part)
        shape = (part.shape[0], int(places.max(initial=-1)) + 1)
        # What falls on one place is added up where the array is filled.
        part = sparse.csr_matrix((part.data, places.astype(part.indices.dtype)[part.indices], part.indptr), shape=shape)
    if sparse.issparse(part):
        return part.astype(np.float32, copy=False).toarray()
    return np.asarray(part).astype(np.float32, copy=False)


def check_values(matrix: Any, names: Any, where: str) -> bool:
    """Whether every value is a non-negative integer; NaN and infinite values are errors that name the gene."""
    counts = True
    for start in range(0, matrix.shape[0], CHUNK):
        part = matrix[start : start + CHUNK]
        values = part.data if sparse.issparse(part) else np.asarray(part)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{where} holds values of dtype {values.dtype}; expression must be numeric.")
        if values.dtype.kind != "f":
            _check_largest(values, MAX_EXACT, where)
            counts = counts and not (values.dtype.kind == "i" and values.size and values.min() < 0)
            continue
        bad = ~np.isfinite(values)
        if bad.any():
            if sparse.issparse(part):
                position = int(np.argmax(bad))
                row = int(np.searchsorted(part.indptr, position, side="right")) - 1
                gene, value = int(part.indices[position]), values[position]
            else:
                row, gene = (int(v) for v in np.argwhere(bad)[0])
                value = values[row, gene]
            raise ValueError(
                f"{where} holds {value} at gene {names[gene]!r}, cell {start + row}; expression must be finite. "
                "Remove that gene or cell, or fill the value in."
            )
        largest = _check_largest(values, MAX_FLOAT, where)
        counts = counts and largest <= MAX_EXACT and bool(np.all((values >= 0) & (values == np.floor(values))))
    return counts


def _check_largest(values: np.ndarray, most: float, where: str) -> float:
    """Return the largest of the magnitudes of values; raise a ValueError if it is beyond `most`."""
    largest = max(-float(values.min()), float(values.max())) if values.size else 0.0
    if largest > most:
        raise ValueError(
            f"{where} must hold values of at most {most:g}, as those beyond are not modelled exactly; got {largest:g}. "
            "Divide them by a number."
        )
    return largest


def find_expression(adata: Any, layer: str | None) -> tuple[Any, str, bool]:
    """The matrix to model: counts in ``layer``, ``layers["counts"]``, ``X`` or ``raw``, else ``X`` as it is.

    Returns
    -------
    matrix : CSR matrix, array or StoredMatrix
    layer : str
        Where it was found: "X", "raw" or the name of a layer.
    is_counts : bool
    """
    if layer is not None and layer not in ("X", "raw") and layer not in adata.layers:
        known = sorted([*(str(key) for key in adata.layers), "X"] + (["raw"] if adata.raw is not None else []))
        raise ValueError(f"layer={layer!r} is not a layer of the AnnData; it has {known}.")
    if layer == "raw" and adata.raw is None:
        raise ValueError("layer='raw', but the AnnData has no raw; assign adata.raw or choose another layer.")
    if layer is None and "counts" in adata.layers:
        matrix = readable(adata, "counts", adata.layers["counts"])
        if check_values(matrix, adata.var_names, 'layers["counts"]'):
            return matrix, "counts", True
    if layer not in (None, "X", "raw"):
        matrix = readable(adata, str(layer), adata.layers[layer])
        return matrix, str(layer), check_values(matrix, adata.var_names, f"layers[{layer!r}]")
    if layer != "raw":
        if adata.X is None:
            raise ValueError("The AnnData has no X; name the layer that holds the counts with layer=.")
        matrix = readable(adata, "X", adata.X)
        is_counts = check_values(matrix, adata.var_names, "X")
        if is_counts or layer == "X":
            return matrix, "X", is_counts
    if adata.raw is not None and adata.var_names.isin(adata.raw.var_names).all():
        raw = in_memory(adata.raw.X)
        same = adata.raw.var_names.equals(adata.var_names)
        raw = raw if same else raw[:, adata.raw.var_names.get_indexer(adata.var_names)]
        is_counts = check_values(raw, adata.var_names, "raw.X")
        if is_counts or layer == "raw":
            return raw, "raw", is_counts
    elif layer == "raw":
        raise ValueError("layer='raw', but raw lacks some of the genes in var_names; put the counts in a layer.")
    return matrix, "X", False


def looks_like(adata: Any, matrix: Any) -> str:
    """What the values of a matrix without counts look like."""
    if isinstance(matrix, StoredMatrix):
        ends = [(float(part.min()), float(part.max())) for part in matrix.data if part.size]
        low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 0.0)
    else:
        values = matrix.data if sparse.issparse(matrix) else matrix
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low < 0:
        return f"scaled or centred (values from {low:.3g} to {high:.3g})"
    if "log1p" in adata.uns or high < LARGEST_LOG:
        return f"log-transformed (fractional values up to {high:.3g})"
    return f"normalised or corrected (fractional values up to {high:.3g})"


def not_counts_message(adata: Any, matrix: Any) -> str:
    """What a matrix without counts looks like, what is made of it, and how to give counts."""
    return (
        f"no counts in layers['counts'], X or raw: X looks {looks_like(adata, matrix)}. It is modelled as continuous "
        "expression, and samples are of its kind. For counts, put them in adata.layers['counts'], or name their layer "
        "with layer=...; round corrected counts first. layer='X' takes X as it is, without this warning."
    )
