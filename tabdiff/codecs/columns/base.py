"""What every column is: the way from the values of one column of a table to numbers, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import pandas as pd

__all__ = ["Column"]


class Column(ABC):
    """One column of a table as it was at fit: its name, its dtype, and the values that were seen.

    What a kind of column needs to be learned and drawn, its ``encode`` and ``decode``, differs: numbers go to normal
    scores, levels to codes, and a column that another one determines to neither.

    Attributes
    ----------
    name : hashable
    dtype : dtype
    """

    name: Any
    dtype: Any

    @property
    def inner(self) -> Column:
        """What reads and writes its values: the column itself, and for one that another determines what it is."""
        return self

    @abstractmethod
    def positions(self, series: pd.Series) -> np.ndarray:
        """Return the position of each value of a Series (n,) among those seen at fit."""

    @abstractmethod
    def at(self, positions: np.ndarray) -> pd.Series:
        """Return a Series (n,) of the values at positions among those seen at fit."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return a plain description, for persistence, with its "type" in `COLUMN_TYPES`."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of :meth:`state`."""
