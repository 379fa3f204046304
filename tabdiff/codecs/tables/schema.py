"""What was decided for the columns of a table, as a frame to read."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tabdiff.codecs.columns import ConstantColumn, LevelColumn, NumericColumn, TimeColumn, is_time
from tabdiff.codecs.tables.dependencies import DependentColumn
from tabdiff.codecs.tables.rebuilt import Rebuilt
from tabdiff.utils.warnings import warn

__all__ = ["table_schema", "warn_of_identifiers"]


def table_schema(codec: Any) -> pd.DataFrame:
    """Return a row for each column of a fitted codec.

    Returns
    -------
    DataFrame
        ``column``, its name; ``kind`` ("numeric", "time", "categorical", "identifier" or "constant"); ``dtype``;
        ``distinct``, the number of its values; ``rare``, how many of them share a code (see `LevelColumn`);
        ``missing``, whether some are. ``determined_by`` is what determines it: another column, "condition", a declared
        sum such as "a + b", or None; ``follows_from`` the columns that determine it together, the main ones, or None;
        ``often_equals`` a dict of the columns that it often equals and the share of the training rows, or None;
        ``grid`` what its numbers or times keep to, in words (see `tabdiff.codecs.columns.grids`), or None.
    """
    rebuilt = {t.column: t for t in codec.constraints_.rebuilt_}
    rows = []
    for j, entry in enumerate(codec.columns_):
        c = entry.inner
        determined_by = "condition" if j in codec.dependencies_.conditioned_ else None
        if isinstance(entry, DependentColumn):
            determined_by = codec.columns_[codec.dependencies_.determinant_[j]].name
        if isinstance(c, NumericColumn):
            kind = "time" if isinstance(c, TimeColumn) else "numeric"
            distinct, rare, missing = len(c.values_), 0, j in codec.mask_of_
        else:
            kind = "identifier" if c.is_identifier_ else "categorical"
            kind = "constant" if isinstance(c, ConstantColumn) else kind
            distinct, rare, missing = len(c.levels_), c.n_rare_, c.has_missing_
        if isinstance(entry, DependentColumn):
            rare, missing = 0, entry.has_missing_
        if j in rebuilt:
            t = rebuilt[j]
            kind, distinct, rare, missing = "time" if is_time(t.dtype) else "numeric", t.distinct, 0, t.missing
            determined_by = t.formula or determined_by
        rows.append(
            {
                "column": c.name,
                "kind": kind,
                "dtype": str(codec.storage_.columns[j].dtype),
                "distinct": distinct,
                "rare": rare,
                "missing": missing,
                "determined_by": determined_by,
                "follows_from": _follows_from(codec, j),
                "often_equals": _often_equals(codec, j),
                "grid": _grid(rebuilt[j] if j in rebuilt else c),
            }
        )
    schema = pd.DataFrame(rows)
    # Names that are numbers would turn into floats beside None.
    for name in ("determined_by", "follows_from", "often_equals", "grid"):
        schema[name] = pd.Series([row[name] for row in rows], dtype=object)
    return schema


def _follows_from(codec: Any, j: int) -> list[Any] | None:
    for rule in codec.joint_rules_.rules_:
        if codec.column_of(rule.target) == j:
            main = [codec.column_of(i) for i in rule.inputs[: rule.n_main]]
            return [codec.columns_[i].name for i in main if i is not None]
    return None


def _grid(column: Any) -> str | None:
    """Return what a column, or one that a constraint rebuilds, keeps to beside its range."""
    if isinstance(column, Rebuilt):
        return None if column.grid is None else column.grid.describe()
    if not isinstance(column, NumericColumn):
        return None if column.form_ is None else f"new identifiers of the form {column.form_.describe()}"
    if column.observed_only_:
        return "observed values only"
    if column.grid_ is not None:
        return str(column.grid_.describe())
    if isinstance(column, TimeColumn):
        days = column.clock_.seconds_ / 86_400
        return f"every {days:g} days" if days > 1 and days.is_integer() else None
    multiple, decimals = column.unit_ or (1, 0)
    return f"multiples of {multiple / 10**decimals:g}" if multiple > 1 else None


def _often_equals(codec: Any, j: int) -> dict[Any, float] | None:
    equalities = codec.equalities_
    shares = zip(equalities.sources_.get(j, []), equalities.shares_.get(j, []), strict=True)
    return {codec.columns_[a].name: round(share, 3) for a, share in shares} or None


def warn_of_identifiers(columns: list[LevelColumn]) -> None:
    """Warn of columns that look like identifiers, once however many there are."""
    if not columns:
        return
    names = ", ".join(repr(c.name) for c in columns[:10]) + (f" and {len(columns) - 10} more" if columns[10:] else "")
    first = f"column {names} looks like an identifier: its {len(columns[0].levels_)} values are all different"
    if len(columns) > 1:
        first = f"columns {names} look like identifiers: no value of theirs repeats"
    how = "New rows have new ones of the same form."
    if any(c.form_ is None for c in columns):
        how = "New rows repeat values that were seen, at random."
    warn(f"{first}. {how} Drop what is not wanted, and in any case what names persons.")
