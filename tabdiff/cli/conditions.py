"""Conditions on the command line: NAME=VALUE to what `sample` takes, and attributes in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tabdiff.codecs.columns import LevelColumn, NumericColumn, TimeColumn, is_time, time_text
from tabdiff.codecs.tables.dependencies import DependentColumn

if TYPE_CHECKING:
    from tabdiff.codecs.conditions.scalar import Attribute
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["describe", "parse_conditions"]

SHOWN_LEVELS = 20


def describe(attribute: Attribute) -> str:
    """Return what an attribute of a condition takes, in words."""
    if attribute.kind == "continuous":
        return f"continuous, {attribute.span}"
    if attribute.kind != "class":
        return {"text": "text", "vector": "a vector", "image": "an image"}.get(attribute.kind, "several vectors")
    shown = ", ".join(time_text(level) for level in attribute.levels[:SHOWN_LEVELS])
    return f"class of {attribute.n_levels}: {shown}{', ...' if attribute.n_levels > SHOWN_LEVELS else ''}"


def parse_conditions(gen: DiffusionGenerator, given: list[str]) -> dict[Any, Any]:
    """Turn NAME=VALUE into a dict: numbers for continuous attributes, labels of the fitted type for classes.

    Times stay text, which the attribute reads. A name that is no attribute may be a column, to be held at a value.

    Raises
    ------
    ValueError
        For a model without conditions that is of no table, a name given twice, and a value that cannot be of its kind.
    """
    if given and gen.conditions_ is None and not _columns(gen):
        raise ValueError(f"--condition {given[0]}: the model was fitted without conditions. Fit it with --condition.")
    attributes = {str(a.name): a for a in gen.conditions_.attributes} if gen.conditions_ is not None else {}
    parsed: dict[Any, Any] = {}
    for text in given:
        # A name may hold an equals sign itself, so names that are known come first.
        name = max((n for n in attributes if text.startswith(f"{n}=")), key=len, default=text.partition("=")[0])
        value: Any = text[len(name) + 1 :]
        attribute = attributes.get(name)
        key = attribute.name if attribute is not None else _columns(gen).get(name, (name,))[0]
        if key in parsed:
            raise ValueError(f"--condition {name} is given more than once; each condition takes one value.")
        if attribute is not None and attribute.kind == "class":
            value = _level(value, attribute.levels)
        elif attribute is not None and attribute.kind == "continuous" and not is_time(attribute.dtype):
            value = _number(gen, value)
            if not math.isfinite(value):
                raise ValueError(f"condition {name!r} is {describe(attribute)}, so it needs a number; got {text!r}.")
        elif attribute is None:
            value = _held_level(gen, name, value)
        elif attribute.kind == "vector":
            value = _vector(name, value)
        elif attribute.kind in ("tokens", "image"):
            raise ValueError(
                f"condition {name!r} is {describe(attribute)}, which a command line cannot give. Sample in Python: "
                f"DiffusionGenerator.load(path).sample(condition={{{name!r}: array}})."
            )
        parsed[key] = value
    return parsed


def _columns(gen: DiffusionGenerator) -> dict[str, tuple[Any, Any]]:
    """Name and codec of each column of a table by its name as text; none of what is no table."""
    codec: Any = gen.codec_
    if gen.model_.container not in ("array", "table"):
        return {}
    return {str(name): (name, column) for name, column in zip(codec.index_, codec.columns_, strict=True)}


def _vector(name: str, text: str) -> Any:
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        message = f"condition {name!r} is a vector, so it needs numbers with commas between them; got {text!r}."
        raise ValueError(message) from None


def _level(text: str, levels: list) -> Any:
    """Return the level that a text means: as it is written, a number of the same value, true in any case."""
    exact = {str(level): level for level in levels}
    if text in exact:
        return exact[text]
    if isinstance(levels[0], bool):
        return {str(level).casefold(): level for level in levels}.get(text.casefold(), text)
    try:
        number = float(text)
    except ValueError:
        return text
    return next((v for v in levels if isinstance(v, int | float) and v == number), text)


def _held_level(gen: DiffusionGenerator, name: str, text: str) -> Any:
    """Return what a text means for a column that was not declared as a condition: one of its levels, or a number."""
    _, column = _columns(gen).get(name, (name, None))
    column = column.column if isinstance(column, DependentColumn) else column
    if isinstance(column, LevelColumn) and column.levels_:
        return _level(text, column.levels_)
    if isinstance(column, NumericColumn) and not isinstance(column, TimeColumn):
        try:
            return int(text) if text.lstrip("+-").isdigit() else float(_with_point(gen, text))
        except ValueError:
            raise ValueError(f"condition {name!r} needs a number; got {text!r}.") from None
    return text


def _number(gen: DiffusionGenerator, text: str) -> float:
    """Return the number that a text means, NaN where it means none."""
    try:
        return float(_with_point(gen, text))
    except ValueError:
        return math.nan


def _with_point(gen: DiffusionGenerator, text: str) -> str:
    """Return a number with a point where the file of the fit had a comma."""
    decimal = getattr(gen.model_.origin, "decimal", ".")
    return text if "." in text else text.replace(decimal, ".")
