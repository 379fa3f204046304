"""Warnings that point at the line of the user, however deep in the package they arise."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """Issue a UserWarning for the first caller outside of this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
