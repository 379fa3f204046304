"""Which columns of an encoded table stand for which column of the table itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Slot", "missing_levels", "presence_columns", "slots"]


@dataclass
class Slot:
    """Where one column of a table is in its encoded rows.

    Attributes
    ----------
    values : list of int
        Tensor columns that hold its value; empty where the network does not model it: a constant, or a column that
        another one determines.
    presence : int or None
        Tensor column that says whether the value is missing (code 1) or not (code 0), which columns that are always
        missing together share; None where there is none.
    missing : int
        Code of its level for missing values, -1 where it has none.
    """

    values: list[int] = field(default_factory=list)
    presence: int | None = None
    missing: int = -1


def slots(codec: Any) -> list[Slot]:
    """Return the slot of each column of a fitted `TableCodec`, in the order of its columns."""
    places = [Slot() for _ in codec.columns_]
    for i, j in enumerate(codec.numeric_positions_):
        presence = codec.first_mask_ + codec.mask_of_[j] if j in codec.mask_of_ else None
        places[j] = Slot([i], presence)
    for i, j in enumerate(codec.level_positions_, start=codec.n_continuous_):
        column = codec.columns_[j]
        places[j] = Slot([i], None, column.n_levels_ - 1 if column.has_missing_ else -1)
    return places


def missing_levels(codec: Any) -> list[int]:
    """Return for each code column of the tensor its code for missing values, -1 where it has none."""
    codes = [-1] * len(codec.n_levels_)
    for slot in slots(codec):
        if slot.missing >= 0:
            codes[slot.values[0] - codec.n_continuous_] = slot.missing
    return codes


def presence_columns(codec: Any) -> list[int]:
    """Return for each number of the tensor the column that says whether it is missing, -1 where there is none."""
    columns = [-1] * codec.n_continuous_
    for slot in slots(codec):
        if slot.presence is not None:
            columns[slot.values[0]] = slot.presence
    return columns
