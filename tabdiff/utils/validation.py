"""What a parameter may be, and which of the known names a wrong one is like."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["check_n_draws", "did_you_mean", "is_integer", "is_number"]


def is_integer(value: Any, least: int | None = None) -> bool:
    """Return whether a value is an integer, of at least `least` if that is given; a boolean is none.

    Examples
    --------
    >>> is_integer(3, least=1), is_integer(0, least=1), is_integer(True), is_integer(3.0)
    (True, False, False, False)
    """
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return integer and (least is None or bool(value >= least))


def check_n_draws(n_draws: Any) -> None:
    """Raise a ValueError if a number of imputed copies is no integer of at least 1."""
    if not is_integer(n_draws, 1):
        raise ValueError(f"n_draws must be an integer of at least 1; got {n_draws!r}.")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; a boolean is none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def did_you_mean(name: Any, names: Iterable[Any]) -> str:
    """Return a sentence that names the nearest of the known names, with a space in front; empty if none is near.

    Examples
    --------
    >>> did_you_mean("colour", ["color", "size"])
    " Did you mean 'color'?"
    """
    near = difflib.get_close_matches(str(name), [str(known) for known in names], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
