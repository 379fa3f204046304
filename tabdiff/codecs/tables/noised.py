r"""What a differentially private fit knows of the columns: noised counts, and a frame that looks like them.

Each column is counted by itself, and Gaussian noise is added to every count. The levels of a category are its cells,
and so is a missing value. Numbers are counted in halves of their declared range, in halves of those that hold enough,
and so on, until a cell is one step wide or holds few rows: a spike gets a cell of its own, an empty stretch a wide one.
One row is in one cell of each of these histograms, so that all counts together, Q histograms, change by at most
:math:`\sqrt Q` in Euclidean norm when a row comes or goes, and the counts of all columns are one Gaussian mechanism.

Levels that were not declared are those whose noised count is above

.. math:: T = 1 + s\, \Phi^{-1}(1 - \delta'), \qquad s = \sigma \sqrt Q,

for which a level of one row has a chance of at most δ' (Korolova et al., 2009; Wilkins et al., 2024,
https://arxiv.org/abs/2202.01100).

Of the counts a frame is made whose columns are independent of each other. A codec that is fitted on this frame has seen
nothing else, whatever it computes; so has a model's description. The rows themselves are then made to fit the codec,
each by itself: numbers are clipped to their range, levels that were not found become others, drawn by frequency.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tabdiff.codecs.columns import is_numeric, is_time, restore, to_float
from tabdiff.utils.validation import did_you_mean

__all__ = ["NoisedFrame", "check_declared", "n_histograms", "noised_frame"]

# Halvings of a range at most: of one of whole numbers, or with a declared step, and of others.
MAX_HALVINGS, MAX_FREE_HALVINGS = 20, 12
# Deviations of the noise that a cell must hold to be halved, and the share of the rows.
ENOUGH_NOISE, ENOUGH_SHARE = 4.0, 1 / 128
# Rows of the frame of noised counts at most.
MAX_ROWS = 200_000


@dataclass
class NoisedFrame:
    """Noised counts of a table, as a frame.

    Attributes
    ----------
    frame : DataFrame of shape (m, d)
        Columns that are distributed as the noised counts say, independent of each other.
    rows : DataFrame of shape (n, d)
        The rows as a codec of `frame` can encode them.
    n_rows : int
        The noised number of rows.
    columns : dict
        By name what is public of each column, and what was counted.
    deviation : float
        Standard deviation of the noise of a count.
    """

    frame: pd.DataFrame
    rows: pd.DataFrame
    n_rows: int
    columns: dict[Any, str]
    deviation: float


def _range_of(series: pd.Series, known: Any) -> tuple[float, float, float] | None:
    """Return the range and step of a column of numbers, None for one of levels."""
    if not isinstance(known, tuple):
        return None
    low, high = float(known[0]), float(known[1])
    whole = pd.api.types.is_integer_dtype(series.dtype)
    step = float(known[2]) if len(known) == 3 else (1.0 if whole else 0.0)
    return low, high, step


def _halvings(low: float, high: float, step: float) -> int:
    if step:
        return max(min(math.ceil(math.log2(max((high - low) / step + 1, 2))), MAX_HALVINGS), 1)
    return MAX_FREE_HALVINGS


def check_declared(frame: pd.DataFrame, public: Mapping[Any, Any]) -> None:
    """Raise an error for a column that cannot be noised, or of which what must be public is not declared.

    Parameters
    ----------
    frame : DataFrame of shape (n, d)
    public : mapping
        By name a range or levels; see `tabdiff.PrivacyBudget`.

    Raises
    ------
    ValueError
        For numbers without a range, names that are no columns, and ranges that are not of numbers.
    TypeError
        For times and for columns that NumPy and pandas do not store themselves.
    """
    unknown = [name for name in public if name not in frame.columns]
    if unknown:
        hint = did_you_mean(unknown[0], list(frame.columns))
        names = list(frame.columns)
        raise ValueError(f"public must name columns or conditions; got {unknown[0]!r}.{hint} There are {names}.")
    if frame.columns.duplicated().any():
        raise ValueError(f"names of columns must differ under a privacy budget; got {list(frame.columns)}.")
    for name in frame.columns:
        series = frame[name]
        if is_time(series.dtype) or isinstance(series.dtype, pd.ArrowDtype | pd.PeriodDtype | pd.IntervalDtype):
            raise TypeError(
                f"column {name!r} must hold numbers, categories, text or booleans of pandas under a privacy budget; "
                f"got {series.dtype}. Convert it, times to numbers of days, say."
            )
        number = is_numeric(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)
        known = public.get(name)
        if number and known is None:
            raise ValueError(
                f"column {name!r} holds numbers, whose range must be declared under a privacy budget, for its ends are "
                f"values of single rows. Give PrivacyBudget(public={{{name!r}: (low, high)}}), or its levels as a list."
            )
        if not number and isinstance(known, tuple):
            raise ValueError(
                f"public[{name!r}] must be a list of levels, for the column holds {series.dtype}; got {known!r}."
            )


def n_histograms(frame: pd.DataFrame, public: Mapping[Any, Any]) -> int:
    """Return of how many histograms a row is in one cell each; that of the number of rows is one."""
    total = 1
    for name in frame.columns:
        span = _range_of(frame[name], public.get(name))
        total += 1 if span is None else 1 + _halvings(*span)
    return total


def noised_frame(
    frame: pd.DataFrame,
    public: Mapping[Any, Any],
    *,
    noise_multiplier: float,
    delta: float,
    rng: np.random.Generator,
) -> NoisedFrame:
    """Count columns with noise, and make the frame of these counts.

    Parameters
    ----------
    frame : DataFrame of shape (n, d)
        The rows; `check_declared` has passed them.
    public : mapping
        By name a range or levels.
    noise_multiplier : float
        Standard deviation of the noise over the norm by which a row changes all counts.
    delta : float
        The chance, all columns together, with which a level that only one row has is found.
    rng : numpy.random.Generator
        Source of the noise.

    Examples
    --------
    >>> frame = pd.DataFrame({"age": [20, 40, 60] * 200, "sex": ["F", "M", "M"] * 200})
    >>> noised = noised_frame(frame, {"age": (0, 100)}, noise_multiplier=0.5, delta=1e-6, rng=np.random.default_rng(0))
    >>> noised.frame["sex"].value_counts(normalize=True).round(1).to_dict()
    {'M': 0.7, 'F': 0.3}
    """
    deviation = noise_multiplier * math.sqrt(n_histograms(frame, public))
    found = [name for name in frame.columns if not _is_public(frame[name], public.get(name))]
    threshold = 1 + deviation * float(ndtri(1 - delta / max(len(found), 1)))
    n = max(round(len(frame) + deviation * rng.standard_normal()), 2)
    size = min(n, MAX_ROWS)
    columns, rows, told = {}, {}, {}
    for name in frame.columns:
        series = frame[name]
        span = _range_of(series, public.get(name))
        if span is not None:
            columns[name], rows[name] = _noised_numbers(series, span, n, size, deviation, rng)
            told[name] = f"public range {span[0]:g} to {span[1]:g}; noised counts"
        else:
            levels = _public_levels(series, public.get(name))
            least = threshold if levels is None else 0.0
            columns[name], rows[name] = _noised_levels(series, name, levels, least, deviation, size, rng)
            told[name] = f"{'levels found by' if levels is None else 'public levels;'} noised counts"
    return NoisedFrame(pd.DataFrame(columns), pd.DataFrame(rows), n, told, deviation)


def _is_public(series: pd.Series, known: Any) -> bool:
    return known is not None or pd.api.types.is_bool_dtype(series.dtype)


def _public_levels(series: pd.Series, known: Any) -> list[Any] | None:
    if isinstance(known, list):
        return known
    return [False, True] if pd.api.types.is_bool_dtype(series.dtype) else None


# ---------------------------------------------------------------------- levels


def _noised_levels(
    series: pd.Series,
    name: Hashable,
    levels: list[Any] | None,
    least: float,
    deviation: float,
    size: int,
    rng: np.random.Generator,
) -> tuple[pd.Series, pd.Series]:
    """Return a column of noised counts, and the rows' own with other levels in the place of those not found."""
    values = series.astype(object)
    missing = series.isna().to_numpy()
    observed = values[~missing]
    counts = observed.value_counts(sort=False)
    if levels is None:
        # Ordered by the levels themselves: the order of the rows says which came first.
        candidates = _in_order(series, list(counts.index))
    else:
        candidates = list(levels)
        strange = [v for v in counts.index if v not in candidates]
        if strange:
            raise ValueError(
                f"column {name!r} must hold the levels that are declared public, {candidates[:10]}; got "
                f"{strange[0]!r}. Declare it too, or leave the column out of public: levels are then found by counts."
            )
    true = np.array([float(counts.get(v, 0)) for v in candidates] + [float(missing.sum())])
    noised = true + deviation * rng.standard_normal(len(true))
    kept = noised > max(least, 0.0)
    # Missing values need no name, but few of them are noise.
    kept[-1] = noised[-1] > ENOUGH_NOISE * deviation
    if not kept[:-1].any():
        if levels is None:
            raise ValueError(
                f"no level of column {name!r} has a noised count above {least:.0f}, so none may be named. Declare its "
                "levels in public, leave it out, or give a larger epsilon."
            )
        kept[:-1], noised = True, np.ones(len(noised))  # public levels, of whose shares nothing is known
    places = np.flatnonzero(kept)
    shares = noised[places] / noised[places].sum()
    has_missing = bool(kept[-1])
    known = [candidates[i] for i in places if i < len(candidates)]
    dtype = _dtype_of(series, known)
    codes = _in_shares(shares, size, rng)

    def at(codes: np.ndarray) -> pd.Series:
        values = np.empty(len(codes), dtype=object)
        values[:] = [known[c] if c < len(known) else None for c in codes]
        made = pd.Series(values, dtype=object)
        return made.where(made.notna(), np.nan) if pd.api.types.is_object_dtype(dtype) else made.astype(dtype)

    position = {v: i for i, v in enumerate(known)}
    own = np.array([position.get(v, -1) for v in values.where(~missing, None)], dtype=np.int64)
    if has_missing:
        own[missing] = len(known)
    strange_rows = np.flatnonzero(own < 0)
    own[strange_rows] = rng.choice(len(shares), size=len(strange_rows), p=shares)
    return at(codes), at(own)


def _in_order(series: pd.Series, levels: list[Any]) -> list[Any]:
    """Return levels in an order that the rows do not decide."""
    if isinstance(series.dtype, pd.CategoricalDtype) and series.dtype.ordered:
        rank = {v: i for i, v in enumerate(series.dtype.categories)}
        return sorted(levels, key=rank.__getitem__)
    plain = (str, int, float, bool)
    return sorted(levels, key=lambda v: (type(v).__name__, v if isinstance(v, plain) else str(v)))


def _dtype_of(series: pd.Series, known: Sequence[Any]) -> Any:
    """Return the dtype of a column that has these levels alone: further categories would be named by it."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return pd.CategoricalDtype(list(known), ordered=series.dtype.ordered)
    return series.dtype


def _in_shares(shares: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n cells in random order, each as often as its share says, and at least once."""
    edges = np.cumsum(shares) / shares.sum()
    cells = np.minimum(np.searchsorted(edges, (np.arange(n) + 0.5) / n, side="right"), len(shares) - 1)
    absent = np.setdiff1d(np.arange(len(shares)), cells)
    some = rng.permutation(n)
    cells[some[: min(len(absent), n)]] = absent[:n]
    return cells[rng.permutation(n)]


# --------------------------------------------------------------------- numbers


def _noised_numbers(
    series: pd.Series,
    span: tuple[float, float, float],
    n: int,
    size: int,
    deviation: float,
    rng: np.random.Generator,
) -> tuple[pd.Series, pd.Series]:
    """Return a column of noised counts, and the rows' own clipped to the range."""
    low, high, step = span
    name, dtype = series.name, series.dtype
    values = to_float(series, name, exact=False)
    missing = np.isnan(values)
    clipped = np.clip(np.where(missing, low, values), low, high)
    if step:
        clipped = np.minimum(low + np.rint((clipped - low) / step) * step, high)
    observed = np.sort(clipped[~missing])
    n_missing = float(missing.sum()) + deviation * rng.standard_normal()
    share_missing = n_missing / n if n_missing > ENOUGH_NOISE * deviation else 0.0
    cells = _halve(observed, low, high, step, n * (1 - share_missing), deviation, rng)
    lows, highs, counts = (np.array(part, dtype=np.float64) for part in zip(*cells, strict=True))
    which = _in_shares(counts / counts.sum(), size, rng)
    # Evenly inside a cell, so that no place of it stands out.
    drawn = np.empty(size)
    for cell in range(len(counts)):
        at = np.flatnonzero(which == cell)
        inside = (np.arange(len(at)) + 0.5) / max(len(at), 1)
        drawn[at] = lows[cell] + inside * (highs[cell] - lows[cell])
    if step:
        drawn = low + np.floor((drawn - low) / step + 1e-9) * step
    drawn = np.clip(drawn, low, high)
    absent = rng.random(size) < share_missing
    if share_missing and not absent.any():
        absent[0] = True
    if not share_missing:
        # What is missing in few rows is filled, each row by itself.
        clipped = np.where(missing, drawn[rng.integers(size, size=len(values))], clipped)
        missing = np.zeros(len(values), dtype=bool)
    made = restore(drawn, absent if share_missing else None, dtype, name)
    own = restore(clipped, missing if share_missing else None, dtype, name)
    return made.astype(own.dtype), own


def _halve(
    observed: np.ndarray,
    low: float,
    high: float,
    step: float,
    n: float,
    deviation: float,
    rng: np.random.Generator,
) -> list[tuple[float, float, float]]:
    """Return cells (low, high, noised count) of a range, halved where they hold enough; whole steps where it has such.

    Every cell of one depth is of one histogram, so a row is counted at most once at each depth.
    """
    enough = max(ENOUGH_NOISE * deviation, ENOUGH_SHARE * n)
    depth = _halvings(low, high, step)
    # In steps, from which a cell is closed on the left alone; the last value has a step of its own.
    stop = high + (step or 0.0)
    cells, done = [(low, stop, n)], []
    for _ in range(depth):
        halves = []
        for a, b, count in cells:
            n_steps = round((b - a) / step) if step else 0
            if count < enough or (step and n_steps < 2):
                done.append((a, b, count))
                continue
            middle = a + (n_steps // 2) * step if step else 0.5 * (a + b)
            last = b >= stop
            right_end = len(observed) if last else np.searchsorted(observed, b - 1e-9 * step)
            first, second = (
                np.searchsorted(observed, middle - 1e-9 * step) - np.searchsorted(observed, a - 1e-9 * step),
                right_end - np.searchsorted(observed, middle - 1e-9 * step),
            )
            noised = np.array([first, second]) + deviation * rng.standard_normal(2)
            # Many empty cells, each with what noise happens to leave above 0, would be rows that nobody has.
            noised = np.where(noised > deviation, noised, 0.0)
            # Halves hold what the whole holds, which was counted with less noise for its size.
            shares = noised / noised.sum() if noised.sum() > 0 else np.array([0.5, 0.5])
            halves += [(a, middle, count * shares[0]), (middle, b, count * shares[1])]
        cells = halves
        if not cells:
            break
    return [cell for cell in done + cells if cell[2] > 0] or [(low, stop, max(n, 1.0))]
