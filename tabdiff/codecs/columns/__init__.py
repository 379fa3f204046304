"""Columns to numbers and back, without loss of dtype, categories, precision or range: every kind in one place.

Numbers (`tabdiff.codecs.columns.numeric`) and times (`tabdiff.codecs.columns.datetime`) become normal scores;
categories, strings and booleans (`tabdiff.codecs.columns.categorical`) become codes. All are a `Column`.
"""

from typing import Any

from tabdiff.codecs.columns.base import Column
from tabdiff.codecs.columns.categorical import ConstantColumn, LevelColumn, unknown_level_message
from tabdiff.codecs.columns.datetime import Clock, TimeColumn
from tabdiff.codecs.columns.keys import is_key_name
from tabdiff.codecs.columns.lookup import LevelLookup
from tabdiff.codecs.columns.numeric import NumericColumn, check_range, restore, to_float
from tabdiff.codecs.columns.storage import FrameStorage, Storage, check_storable, in_one_piece, standardise, text_codes
from tabdiff.utils.dtypes import (
    dtype_from_state,
    dtype_to_state,
    is_numeric,
    is_storable,
    is_time,
    plain,
    scalar_from_state,
    scalar_to_state,
    time_text,
)

__all__ = [
    "COLUMN_TYPES",
    "Clock",
    "Column",
    "ConstantColumn",
    "FrameStorage",
    "LevelColumn",
    "LevelLookup",
    "NumericColumn",
    "Storage",
    "TimeColumn",
    "check_storable",
    "check_range",
    "dtype_from_state",
    "dtype_to_state",
    "in_one_piece",
    "is_key_name",
    "is_numeric",
    "is_storable",
    "is_time",
    "plain",
    "restore",
    "scalar_from_state",
    "scalar_to_state",
    "standardise",
    "text_codes",
    "time_text",
    "to_float",
    "unknown_level_message",
]

COLUMN_TYPES: dict[str, Any] = {
    "numeric": NumericColumn,
    "time": TimeColumn,
    "levels": LevelColumn,
    "constant": ConstantColumn,
}
