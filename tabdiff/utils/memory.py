"""Memory that torch or pandas do not take as it is: other byte orders, negative strides, read-only arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

__all__ = ["native", "tensor_of"]


def native(values: Any) -> Any:
    """Return an array, a Series or a DataFrame in the byte order of the machine, the only one that pandas computes in.

    Files of instruments (FITS, SPSS, IDL) come in the other; anything else is returned as it is.
    """
    if isinstance(values, pd.DataFrame):
        swapped = [j for j, dtype in enumerate(values.dtypes) if _is_swapped(dtype)]
        if swapped:
            values = values.copy(deep=False)
            for j in swapped:
                column = values.iloc[:, j].to_numpy()
                values.isetitem(j, column.astype(column.dtype.newbyteorder("=")))
        return values
    if isinstance(values, pd.Series) and _is_swapped(values.dtype):
        return pd.Series(native(values.to_numpy()), values.index, name=values.name)
    if isinstance(values, np.ndarray) and _is_swapped(values.dtype):
        return values.astype(values.dtype.newbyteorder("="))
    return values


def _is_swapped(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and not dtype.isnative


def tensor_of(array: np.ndarray) -> Tensor:
    """Return an array as a tensor that nothing writes to, without a copy where its memory can be shared.

    Byte order and negative strides, which torch does not know, are taken away by a copy. Files that are mapped
    read-only stay mapped.
    """
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):  # to NumPy, an axis of length 1 is contiguous all the same
        array = array.copy()
    if array.flags.writeable:
        return torch.from_numpy(array)
    if not _is_mapped(array):
        return torch.from_numpy(array.copy())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _is_mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False
