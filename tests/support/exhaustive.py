"""Grids of which every run looks at a part, and the exhaustive one at all."""

from collections.abc import Iterable
from typing import Any

import pytest


def exhaustive(values: Iterable[Any], quick: int = 1) -> list[Any]:
    """Return values for `pytest.mark.parametrize` of which all but the first `quick` are marked slow."""
    return [
        value if i < quick else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for i, value in enumerate(values)
    ]


__all__ = ["exhaustive"]
