"""Rules that every real row keeps, and how many synthetic rows break them.

Found in the real rows: a column that another one determines, two columns that are equal, numbers or dates of which one
is never larger, a number that is the sum of two others (and so ``net = debit - credit``), keys that do not repeat. Each
needs so many rows in which chance would have broken it. Declared constraints are read as `DiffusionGenerator` reads
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.codecs.tables.constraint_parser import parse_constraint
from tabdiff.evaluation.frames import Encoded, check_frames, encode, is_numeric
from tabdiff.utils.validation import did_you_mean

__all__ = ["Rule", "broken_rules", "copied_keys", "find_rules", "key_columns", "rules_broken"]

# So many rows would have to break a rule by chance for it to count as one, and at most so many are looked at first.
MIN_EXPECTED, FIRST_LOOK = 50, 2_000
# Sums are searched among the first columns, for their number grows with the cube.
MAX_SUM_COLUMNS, SUM_LOOK = 60, 40
# A key: text or whole numbers of which hardly any repeats, in so many rows at least.
MIN_DISTINCT, MIN_KEYS = 0.99, 20


@dataclass(frozen=True)
class Rule:
    """What every real row keeps.

    Attributes
    ----------
    text : str
        The rule, in words.
    kind : {"dependency", "equality", "order", "sum", "key", "declared"}
    broken : callable
        Takes frames encoded together, real rows first, and the place of one; returns a mask (n,) of its broken rows.
    """

    text: str
    kind: str
    broken: Callable[[list[Encoded], int], np.ndarray]


def _codes(encoded: list[Encoded], name: Any) -> list[np.ndarray]:
    """Codes shared by the frames; numbers by value, a missing value is a value."""
    first = encoded[0]
    if name in first.categorical_names:
        j = first.categorical_names.index(name)
        return [e.codes[:, j] + 1 for e in encoded]
    j = first.numeric_names.index(name)
    codes, _ = pd.factorize(np.concatenate([e.numeric[:, j] for e in encoded]), use_na_sentinel=False)
    return np.split(codes, np.cumsum([len(e) for e in encoded])[:-1])


def _image(a: np.ndarray, b: np.ndarray, n_values: int) -> np.ndarray | None:
    """Which value of b goes with each value of a, -1 for values that are not there; None where one has several."""
    image = np.full(n_values, -1)
    image[a] = b
    return image if (image[a] == b).all() else None


def _dependencies(encoded: list[Encoded]) -> list[Rule]:
    first = encoded[0]
    names = [*first.numeric_names, *first.categorical_names]
    codes = {name: _codes(encoded, name)[0] for name in names}
    whole = np.stack([codes[name] for name in names], axis=1)
    # Rows that repeat another one say nothing.
    rows = np.unique(whole, axis=0, return_index=True)[1]
    codes = {name: c[rows] for name, c in codes.items()}
    distinct = {name: len(np.unique(c)) for name, c in codes.items()}
    differ = {name: 1 - float(np.sum((np.bincount(c) / len(c)) ** 2)) for name, c in codes.items()}
    some = slice(0, FIRST_LOOK)
    found: list[Rule] = []
    for a in names:
        size = int(codes[a].max()) + 1
        for b in names:
            if a == b or (len(rows) - distinct[a]) * differ[b] < MIN_EXPECTED:
                continue
            if _image(codes[a][some], codes[b][some], size) is None or _image(codes[a], codes[b], size) is None:
                continue
            if distinct[a] == distinct[b] and any(r.text == f"{b} determines {a}" for r in found):
                continue
            found.append(Rule(f"{a} determines {b}", "dependency", _breaks_dependency(a, b)))
    return found


def _breaks_dependency(a: Any, b: Any) -> Callable[[list[Encoded], int], np.ndarray]:
    def broken(encoded: list[Encoded], k: int) -> np.ndarray:
        first, second = _codes(encoded, a), _codes(encoded, b)
        image = np.full(1 + max(int(c.max()) for c in first), -1)
        image[first[0]] = second[0]
        expected = image[first[k]]
        return (expected >= 0) & (expected != second[k])

    return broken


def _column(encoded: Encoded, name: Any) -> np.ndarray:
    return encoded.numeric[:, encoded.numeric_names.index(name)]


def _tolerance(*columns: np.ndarray) -> float:
    """Rounding of decimal fractions and of float32."""
    largest = max((float(np.nanmax(np.abs(c))) for c in columns if np.isfinite(c).any()), default=0.0)
    return 1e-6 * max(largest, 1e-6)


def _orders(real: Encoded, kinds: dict[Any, str]) -> list[Rule]:
    found = []
    for a, b in combinations(real.numeric_names, 2):
        if kinds[a] != kinds[b]:
            continue
        x, y = _column(real, a), _column(real, b)
        known = ~(np.isnan(x) | np.isnan(y))
        x, y = x[known], y[known]
        if len(x) == 0:
            continue
        if (x == y).all():
            if np.ptp(x) > 0 and len(x) >= MIN_EXPECTED:
                found.append(Rule(f"{a} = {b}", "equality", _breaks_sum([(1, a)], [(1, b)], "=")))
            continue
        for (p, u), (q, v) in (((a, x), (b, y)), ((b, y), (a, x))):
            if (u[:50] <= v[:50]).all() and (u <= v).all():
                above = 1 - np.searchsorted(np.sort(u), v, side="right") / len(u)
                if above.sum() >= MIN_EXPECTED:
                    found.append(Rule(f"{p} <= {q}", "order", _breaks_sum([(1, p)], [(1, q)], "<=")))
    return found


def _sums(real: Encoded, kinds: dict[Any, str]) -> list[Rule]:
    names = [n for n in real.numeric_names if kinds[n] == "number"][:MAX_SUM_COLUMNS]
    known = [n for n in names if np.nanstd(_column(real, n)) > 0] if len(real) > 1 else []
    if len(known) < 3:
        return []
    table = np.stack([_column(real, n) for n in known], axis=1)
    # Rows in which most columns are not zero tell most.
    complete = np.flatnonzero(~np.isnan(table).any(axis=1))
    if len(complete) < MIN_EXPECTED:
        return []
    order = np.argsort(-(table[complete] != 0).sum(axis=1), kind="stable")
    look = table[complete[order[:: max(1, len(order) // SUM_LOOK)]]]
    pairs = np.array(list(combinations(range(len(known)), 2)))
    sums = look[:, pairs[:, 0]] + look[:, pairs[:, 1]]
    found: list[Rule] = []
    seen: set[frozenset] = set()
    for k, name in enumerate(known):
        close = np.abs(sums - look[:, [k]]) <= _tolerance(look)
        for p in np.flatnonzero(close.all(axis=0)):
            i, j = pairs[p]
            if k in (i, j) or frozenset((i, j, k)) in seen:
                continue
            x, y, z = table[:, i], table[:, j], table[:, k]
            used = (x != 0) & (y != 0) & ~np.isnan(x + y + z)
            holds = np.nanmax(np.abs(x + y - z)) <= _tolerance(x, y, z)
            if holds and used.sum() >= MIN_EXPECTED:
                seen.add(frozenset((i, j, k)))
                terms = [(1, known[i]), (1, known[j])]
                text = f"{name} = {known[i]} + {known[j]}"
                found.append(Rule(text, "sum", _breaks_sum([(1, name)], terms, "=")))
    return found


def _breaks_sum(
    left: list[tuple[int, Any]], right: list[tuple[int, Any]], operator: str
) -> Callable[[list[Encoded], int], np.ndarray]:
    def broken(encoded: list[Encoded], k: int) -> np.ndarray:
        sides = [
            sum((sign * _column(encoded[k], name) for sign, name in side), np.zeros(len(encoded[k])))
            for side in (left, right)
        ]
        tolerance = _tolerance(*(_column(encoded[0], name) for _, name in [*left, *right]))
        gap = sides[0] - sides[1]
        with np.errstate(invalid="ignore"):
            found = {
                "=": np.abs(gap) > tolerance,
                "<=": gap > tolerance,
                "<": gap >= 0,
                ">=": gap < -tolerance,
                ">": gap <= 0,
            }[operator]
        return found & ~np.isnan(gap)

    return broken


def key_columns(real: pd.DataFrame) -> list[Any]:
    """Columns that name their row: text or whole numbers of which hardly any value repeats."""
    found = []
    for name in real.columns:
        values = real[name].dropna()
        types = pd.api.types
        if len(values) < MIN_KEYS or types.is_bool_dtype(values.dtype) or types.is_datetime64_any_dtype(values.dtype):
            continue
        if is_numeric(values) and not types.is_integer_dtype(values.dtype):
            continue
        distinct = values.astype(object).nunique()
        # Whole numbers that measure something repeat by chance where they are many; few of them need not.
        enough = distinct == len(values) if is_numeric(values) else distinct >= MIN_DISTINCT * len(values)
        if enough and (not is_numeric(values) or len(values) >= 10 * MIN_KEYS):
            found.append(name)
    return found


def _repeats(name: Any) -> Callable[[list[Encoded], int], np.ndarray]:
    def broken(encoded: list[Encoded], k: int) -> np.ndarray:
        codes = _codes(encoded, name)[k]
        return pd.Series(codes).duplicated().to_numpy()

    return broken


def copied_keys(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    """Share of synthetic rows that have the key of a real row.

    A key is a column of text or whole numbers of which hardly any value repeats in `real`.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.

    Returns
    -------
    share : float
        Percent, in [0, 100], lower is better; NaN where `real` has no key.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ.

    Examples
    --------
    >>> import pandas as pd
    >>> from tabdiff.evaluation import copied_keys
    >>> real = pd.DataFrame({"patient": [f"p{i}" for i in range(20)]})
    >>> copied_keys(real, pd.DataFrame({"patient": ["p3", "p7", "x1", "x2"]}))
    50.0
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    keys = key_columns(real)
    if not keys:
        return float("nan")
    copied = np.zeros(len(synthetic), dtype=bool)
    for name in keys:
        copied |= (synthetic[name].isin(set(real[name].dropna())) & synthetic[name].notna()).to_numpy()
    return 100 * float(copied.mean())


def find_rules(real: pd.DataFrame, constraints: Sequence[str] = ()) -> list[Rule]:
    """Find the rules that all real rows keep, after those that were declared.

    Parameters
    ----------
    real : DataFrame
    constraints : sequence of str, default=()
        Declared rules between numbers or dates, as in ``DiffusionGenerator(constraints=...)``.

    Returns
    -------
    rules : list of Rule

    Raises
    ------
    ValueError
        If a constraint cannot be read, or names a column that is no number or date.
    """
    (real,) = check_frames(real=real)
    declared = []
    (encoded,) = encode(real)
    by_name = {str(name): name for name in encoded.numeric_names}
    for text in constraints:
        left, operator, right = parse_constraint(text)
        unknown = [name for _, name in left + right if name not in by_name]
        if unknown:
            hint = did_you_mean(unknown[0], list(by_name))
            raise ValueError(
                f"constraint {text!r} must name columns of numbers or dates; got {unknown[0]!r}.{hint} "
                f"There are {list(by_name)}."
            )
        sides = [[(sign, by_name[name]) for sign, name in side] for side in (left, right)]
        declared.append(Rule(text, "declared", _breaks_sum(sides[0], sides[1], operator)))
    kinds = {
        name: "number" if pd.api.types.is_numeric_dtype(real[name].dtype) else real[name].dtype.kind
        for name in encoded.numeric_names
    }
    keys = [
        Rule(f"{name} does not repeat", "key", _repeats(name)) for name in key_columns(real) if real[name].is_unique
    ]
    return [*declared, *_sums(encoded, kinds), *_orders(encoded, kinds), *_dependencies([encoded]), *keys]


def broken_rules(
    real: pd.DataFrame, *others: pd.DataFrame, rules: Sequence[Rule] | None = None
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Count the rows of other frames that break a rule of the real ones.

    Parameters
    ----------
    real : DataFrame
    *others : DataFrame
        Frames with the same columns.
    rules : sequence of Rule, optional
        By default those of `find_rules`.

    Returns
    -------
    table : DataFrame
        Columns "rule", "kind", and one a frame, 0, 1, ...: percent of its rows that break it.
    masks : list of ndarray of bool
        One a frame: the rows that break at least one rule.
    """
    frames = check_frames(real=real, **{f"frame {i}": frame for i, frame in enumerate(others)})
    rules = find_rules(real) if rules is None else list(rules)
    encoded = encode(*frames)
    masks = [np.zeros(len(e), dtype=bool) for e in encoded[1:]]
    rows = []
    for rule in rules:
        row: dict[Any, Any] = {"rule": rule.text, "kind": rule.kind}
        for k, mask in enumerate(masks):
            broken = rule.broken(encoded, k + 1)
            mask |= broken
            row[k] = 100 * float(broken.mean())
        rows.append(row)
    return pd.DataFrame(rows, columns=["rule", "kind", *range(len(masks))]), masks


def rules_broken(real: pd.DataFrame, synthetic: pd.DataFrame, *, constraints: Sequence[str] = ()) -> float:
    """Share of synthetic rows that break a rule which every real row keeps.

    The rules are those of `find_rules`: a column that determines another, equal columns, one that is never larger than
    another, sums, keys that do not repeat, and what was declared.

    Parameters
    ----------
    real, synthetic : DataFrame of shape (n, n_columns) and (m, n_columns)
        The rows that the generator was fitted on, and rows with the same columns.
    constraints : sequence of str, default=()
        Declared rules between numbers or dates, as in ``DiffusionGenerator(constraints=...)``.

    Returns
    -------
    share : float
        Percent, in [0, 100], lower is better; NaN where no rule was found.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or their columns differ; if a constraint cannot be read, or names a column that is no number or
        date.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"debit": rng.integers(0, 99, 200), "credit": rng.integers(0, 99, 200)})
    >>> table["net"] = table["debit"] - table["credit"]
    >>> [rule.text for rule in find_rules(table) if rule.kind == "sum"]
    ['debit = credit + net']
    >>> rules_broken(table, table.assign(net=table["net"] + (table.index < 2)))
    1.0
    """
    rules = find_rules(real, constraints)
    if not rules:
        return float("nan")
    return 100 * float(broken_rules(real, synthetic, rules=rules)[1][0].mean())
