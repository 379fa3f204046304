"""Expression matrices that do not fit into memory: compressed rows in a file, read as they are asked for."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["StoredMatrix", "take_columns"]

CHUNK_VALUES = 2**26


def take_columns(matrix: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """The sorted `columns` of a CSR matrix; where there are no entries elsewhere, no value is copied."""
    place = np.full(matrix.shape[1], -1, dtype=matrix.indices.dtype)
    place[columns] = np.arange(len(columns))
    indices = place[matrix.indices]
    if (indices < 0).any():
        return matrix[:, columns]
    return sparse.csr_matrix((matrix.data, indices, matrix.indptr), shape=(matrix.shape[0], len(columns)))


class StoredMatrix:
    """A matrix of cells × genes as compressed sparse rows in a temporary file, which goes with it.

    Rows are read in any order, a few or many at a time, unlike those of a backed AnnData, whose file takes long to give
    rows that do not follow each other.

    Parameters
    ----------
    matrix : matrix with a shape, a dtype and slices of rows
        On disk or lazy; it is read once, in order.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    is_sparse : bool
        Whether the matrix was sparse.

    Raises
    ------
    OSError
        If the temporary folder (``TMPDIR``) has no room for it.

    Examples
    --------
    >>> stored = StoredMatrix(sparse.csr_matrix(np.eye(4, dtype=np.float32)))
    >>> stored[np.array([2, 0])].toarray().tolist(), stored.sum(axis=1).tolist()
    ([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]], [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, matrix: Any) -> None:
        self.shape = int(matrix.shape[0]), int(matrix.shape[1])
        self.dtype = np.dtype(matrix.dtype).newbyteorder("=")
        self.is_sparse = not isinstance(matrix[:1], np.ndarray)
        # Small types: a third of what 64-bit values and positions would take.
        self._index = np.dtype("<u2" if self.shape[1] <= 2**16 else "<i4")
        self._values, self._places = (tempfile.TemporaryFile(prefix="tabdiff-cells-") for _ in range(2))
        self._indptr = np.zeros(self.shape[0] + 1, dtype=np.int64)
        self._total = np.zeros(self.shape[0])
        self._maxima = np.full(self.shape[1], -np.inf)
        self._n_stored = self.shape[1]
        self._genes: np.ndarray | None = None  # those that are shown, None for all
        try:
            for start, part in self._parts(matrix):
                stop = start + part.shape[0]
                self._indptr[start + 1 : stop + 1] = self._indptr[start] + part.indptr[1:]
                self._total[start:stop] = np.asarray(part.sum(axis=1, dtype=np.float64)).reshape(-1)
                if stop > start:
                    largest = np.asarray(part.max(axis=0).toarray(), dtype=np.float64).reshape(-1)
                    self._maxima = np.maximum(self._maxima, largest)
                self._values.write(np.ascontiguousarray(part.data, dtype=self.dtype).tobytes())
                self._places.write(part.indices.astype(self._index).tobytes())
            self._values.flush()
            self._places.flush()
        except OSError as error:
            raise OSError(
                f"the expression matrix cannot be kept in {tempfile.gettempdir()}: {error}. Make room, or set TMPDIR "
                "to another folder."
            ) from error

    def _parts(self, matrix: Any) -> Iterator[tuple[int, sparse.csr_matrix]]:
        rows = max(1, min(2048, CHUNK_VALUES // max(self.shape[1], 1)))
        for start in range(0, self.shape[0], rows):
            part = matrix[start : start + rows]
            part = part.compute() if hasattr(part, "compute") else part
            part = sparse.csr_matrix(part)
            part.sort_indices()
            yield start, part

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self._between(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        lengths = self._indptr[rows + 1] - self._indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        data = np.empty(indptr[-1], dtype=self.dtype)
        places = np.empty(indptr[-1], dtype=self._index)
        for i, row in enumerate(rows):
            at = slice(indptr[i], indptr[i + 1])
            data[at], places[at] = self._read(int(self._indptr[row]), int(lengths[i]))
        return self._matrix(data, places, indptr)

    def _between(self, start: int, stop: int) -> sparse.csr_matrix:
        indptr = self._indptr[start : stop + 1]
        data, places = self._read(int(indptr[0]), int(indptr[-1] - indptr[0]))
        return self._matrix(data, places, indptr - indptr[0])

    def take_genes(self, genes: np.ndarray) -> StoredMatrix:
        """Return the columns `genes`, sorted, of the same file."""
        taken = copy.copy(self)
        others = np.delete(self._maxima, genes)
        taken.shape, taken._maxima, taken._genes = (self.shape[0], len(genes)), self._maxima[genes], genes
        if (others > 0).any():
            sums = [np.asarray(part.sum(axis=1, dtype=np.float64)).reshape(-1) for _, part in taken._parts(taken)]
            taken._total = np.concatenate([np.zeros(0), *sums])
        return taken

    def _matrix(self, data: np.ndarray, places: np.ndarray, indptr: np.ndarray) -> sparse.csr_matrix:
        part = (data, places.astype(np.int32), indptr)
        if self._genes is not None:
            whole = sparse.csr_matrix(part, shape=(len(indptr) - 1, self._n_stored), copy=False)
            return take_columns(whole, self._genes)
        return sparse.csr_matrix(part, shape=(len(indptr) - 1, self.shape[1]), copy=False)

    def _read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return values and places from position `first` on; they are read, as mapped pages count as memory."""
        found = []
        for file, dtype in ((self._values, self.dtype), (self._places, self._index)):
            file.seek(first * dtype.itemsize)
            content = bytearray(file.read(count * dtype.itemsize))
            if len(content) < count * dtype.itemsize:
                raise OSError("the file of the expression matrix was cut off")
            found.append(np.frombuffer(content, dtype=dtype))
        return found[0], found[1]

    def sum(self, axis: int) -> np.ndarray:
        """Return the total (n_cells,) of each row, for axis 1."""
        if axis != 1:
            raise ValueError(f"axis must be 1; got {axis!r}.")
        return self._total.copy()

    def max(self, axis: int | None = None) -> Any:
        """Return the largest value, or for axis 0 that of each gene (n_genes,)."""
        return self._maxima.copy() if axis == 0 else self._maxima.max()

    @property
    def data(self) -> Iterator[np.ndarray]:
        """Values that are not zero, some rows at a time."""
        return (part.data for _, part in self._parts(self))

    def to_memory(self) -> sparse.csr_matrix:
        """Return all of it as a CSR matrix."""
        return self._between(0, self.shape[0])
