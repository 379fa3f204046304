"""Encoded rows in one file of small types, of which blocks are in memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RowStore", "StoredColumns", "record_dtype"]

BLOCK_BYTES = 2**20
MIN_BLOCK, MAX_BLOCK = 64, 8192
# Blocks whose rows are shuffled with each other, and so wanted at about the same time.
GROUP_BLOCKS = 64
# A block of those before may still be wanted.
KEPT_BLOCKS = 2 * GROUP_BLOCKS


def record_dtype(n_continuous: int, n_levels: Sequence[int], n_condition: int) -> np.dtype:
    """Return the type of an encoded row: numbers and conditions as float32, codes as small as they go.

    Examples
    --------
    >>> record_dtype(2, [3, 2], 0).itemsize
    10
    """
    code = "<u1" if max(n_levels, default=0) < 2**8 else "<u2" if max(n_levels) < 2**16 else "<u4"
    fields = [("numbers", "<f4", (n_continuous,)), ("codes", code, (len(n_levels),)), ("given", "<f4", (n_condition,))]
    return np.dtype([field for field in fields if field[2][0]])


class RowStore:
    """Rows of a file, read block by block.

    Parameters
    ----------
    path : path-like
        Records one behind the other.
    dtype : dtype
        Of a record; see `record_dtype`.
    n_rows : int
    name : str
        A hash of what the rows are.
    keep : object, optional
        Kept as long as this is, such as the folder that the file goes with.

    Attributes
    ----------
    block_rows : int
        Rows of a block.
    """

    def __init__(self, path: str | os.PathLike, dtype: np.dtype, n_rows: int, name: str, keep: Any = None) -> None:
        self.path, self.dtype, self.n_rows, self.name, self._keep = Path(path), dtype, n_rows, name, keep
        self.block_rows = int(np.clip(BLOCK_BYTES // dtype.itemsize, MIN_BLOCK, MAX_BLOCK))
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.n_rows

    def __getstate__(self) -> dict[str, Any]:
        # Another process reads the same file, and does not remove it.
        return vars(self) | {"_keep": None, "_blocks": OrderedDict()}

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the records of row numbers (k,).

        Raises
        ------
        OSError
            If the file is gone or shorter than it was.
        """
        out = np.empty(len(rows), dtype=self.dtype)
        blocks, places = np.divmod(rows, self.block_rows)
        for block in np.unique(blocks):
            chosen = blocks == block
            out[chosen] = self._block(int(block))[places[chosen]]
        return out

    def _block(self, number: int) -> np.ndarray:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        first = number * self.block_rows
        count = min(self.block_rows, self.n_rows - first)
        # Read, not mapped: pages of a map count as memory of the process.
        try:
            block = np.fromfile(self.path, self.dtype, count, offset=first * self.dtype.itemsize)
        except OSError as error:
            raise OSError(f"the encoded rows in {self.path} cannot be read: {error}") from error
        if len(block) < count:
            raise OSError(f"the encoded rows in {self.path} were cut off: {len(block)} of {count} rows of a block.")
        self._blocks[number] = block
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return block


class StoredColumns:
    """Some columns of stored rows, which stand for a tensor (n, d) of float32.

    Parameters
    ----------
    store : RowStore
    fields : sequence of str
        Of its records.
    device : torch.device
        Where rows go.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.TemporaryDirectory()
    >>> records = np.zeros(5, record_dtype(1, [3], 0))
    >>> records["codes"] = np.arange(5)[:, None] % 3
    >>> records.tofile(Path(folder.name) / "rows")
    >>> rows = StoredColumns(RowStore(Path(folder.name) / "rows", records.dtype, 5, "", folder), ["numbers", "codes"])
    >>> rows.shape, rows[torch.tensor([4, 2])]
    ((5, 2), tensor([[0., 1.],
            [0., 2.]]))
    """

    def __init__(self, store: RowStore, fields: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.store, self.device = store, torch.device(device)
        self.fields = [name for name in fields if name in (store.dtype.names or ())]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of values in each."""
        return len(self), sum(int(np.prod(self.store.dtype[name].shape)) for name in self.fields)

    @property
    def block_rows(self) -> int:
        """Rows that lie together in the file, and are quick to read so."""
        return self.store.block_rows

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, rows: Tensor) -> Tensor:
        records = self.store.take(rows.cpu().numpy())
        values = np.concatenate([records[name].astype(np.float32) for name in self.fields], axis=1)
        return torch.from_numpy(values).to(self.device)

    def to(self, device: torch.device | str) -> StoredColumns:
        """Return the same columns, whose rows go to a device."""
        return StoredColumns(self.store, self.fields, device)

    def digest(self) -> bytes:
        """Return a hash of what the rows are."""
        return f"{self.store.name} {self.fields}".encode()
