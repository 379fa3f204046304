"""Arrays of numbers to one tensor and back: a table whose columns are all numeric and have no names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.utils.random import RowStreams

__all__ = ["ArrayCodec"]


class ArrayCodec(TableCodec):
    """Encode arrays of shape (n, d) for diffusion and decode to the same dtype.

    Parameters
    ----------
    categorical_features : "auto" or sequence of int, default="auto"
        Numbers of the columns to treat as categories, from 0. "auto" is none: every column is numeric, however few
        values it has.

    Examples
    --------
    >>> import numpy as np, torch
    >>> X = np.random.default_rng(0).gamma(2.0, size=(200, 3))
    >>> codec = ArrayCodec().fit(X)
    >>> codec.encode(X, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([200, 3])
    """

    refined_ = "when asked"
    _auto_levels = False

    def __init__(self, *, categorical_features: str | Sequence[Any] = "auto") -> None:
        # Columns of an array have no names that a constraint could hold, and each is drawn by itself, so that every one
        # counts in the score.
        super().__init__(categorical_features=categorical_features, dependencies=False)

    def fit(self, array: np.ndarray, *args: Any, **kwargs: Any) -> "ArrayCodec":  # type: ignore[override]
        """Learn the columns of an array (n, d); NaN marks missing entries."""
        self.dtype_ = array.dtype
        return super().fit(pd.DataFrame(array), *args, **kwargs)

    def encode(
        self,
        array: np.ndarray,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> Tensor:
        """Map an array (n, d) to a float32 tensor."""
        return super().encode(pd.DataFrame(array), condition, generator)

    def encode_copies(
        self,
        array: np.ndarray,
        n_copies: int,
        generator: torch.Generator | RowStreams | None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Map an array (n, d) as often as asked; see :meth:`TableCodec.encode_copies`."""
        return super().encode_copies(pd.DataFrame(array), n_copies, generator)

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> np.ndarray:
        """Map a tensor to an array (n, d) of the fitted dtype."""
        return super().decode(data, condition, generator).to_numpy(dtype=self.dtype_)

    def log_jacobian(self, array: np.ndarray, data: Tensor) -> np.ndarray:
        """Log density factor of the numeric columns, (n,); see :meth:`TableCodec.log_jacobian`."""
        return super().log_jacobian(pd.DataFrame(array), data)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**super().state(), "dtype": str(self.dtype_)}

    @classmethod
    def from_state(cls, state: dict) -> "ArrayCodec":
        """Inverse of :meth:`state`."""
        codec = super().from_state(state)
        codec.dtype_ = np.dtype(state["dtype"])
        return codec
