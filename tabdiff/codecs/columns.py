"""Columns to numbers and back, without loss of dtype, categories, precision or range: every kind in one place.

Numbers (`tabdiff.codecs.numeric`) and times (`tabdiff.codecs.times`) become normal scores; categories, strings and
booleans (`tabdiff.codecs.levels`) become codes.
"""

from typing import Any

from tabdiff.codecs.dtypes import dtype_from_state, dtype_to_state, is_numeric, is_time, plain
from tabdiff.codecs.levels import ConstantColumn, LevelColumn, unknown_level_message
from tabdiff.codecs.numeric import NumericColumn, restore, to_float
from tabdiff.codecs.storage import FrameStorage, Storage, standardise
from tabdiff.codecs.times import Clock, TimeColumn

__all__ = [
    "COLUMN_TYPES",
    "Clock",
    "ConstantColumn",
    "FrameStorage",
    "LevelColumn",
    "NumericColumn",
    "Storage",
    "TimeColumn",
    "dtype_from_state",
    "dtype_to_state",
    "is_numeric",
    "is_time",
    "plain",
    "restore",
    "standardise",
    "to_float",
    "unknown_level_message",
]

COLUMN_TYPES: dict[str, Any] = {
    "numeric": NumericColumn,
    "time": TimeColumn,
    "levels": LevelColumn,
    "constant": ConstantColumn,
}
