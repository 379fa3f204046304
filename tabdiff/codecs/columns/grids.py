r"""Numbers that keep to a grid: odd ones, prices that end in 99, months written as 202401.

A rule is found at fit if every training row keeps it and chance would not have it so: :math:`m` distinct values that
lie anywhere in the column's range would all fall on a grid that holds a share :math:`p` of the range with a probability
of :math:`p^m`, times the number of grids of that size that might have been found. It must be below `MAX_CHANCE`. The
same goes for what is left out between the first and the last of the digits, days or times that were seen: minutes that
only happen to be missing are filled in. And remainders that were seen once tell how many there are that were not seen
(Good, 1953): a set of which many came a single time is one of the training rows, not a rule, and would give them away.

A grid is a set of integers, that of a column of decimals in units of its last digit. The rules for times and for dates
written as numbers are in `tabdiff.codecs.columns.calendar`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

__all__ = [
    "LOG_MAX_CHANCE",
    "MAX_UNSEEN",
    "Grid",
    "NumberGrid",
    "Residues",
    "Window",
    "find_residues",
    "log_chance",
    "runs",
]

MAX_CHANCE = 1e-6
LOG_MAX_CHANCE = math.log(MAX_CHANCE)
# The share of the values whose remainder no other has, up to which the remainders seen are taken for all; one may be.
MAX_UNSEEN = 0.003
# Last digits that are looked at, as the power of ten.
MODULI = (10, 100, 1000)


class Grid(ABC):
    """A set of integers.

    Attributes
    ----------
    kind : str
        Its name in saved models.
    """

    kind = ""

    @abstractmethod
    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the largest of the grid that is not above it."""

    @abstractmethod
    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the smallest of the grid that is not below it."""

    def nearest(self, ticks: np.ndarray) -> np.ndarray:
        """Return the nearest of the grid to each integer (n,), the lower one of two."""
        low, high = self.below(ticks), self.above(ticks)
        return np.where(ticks - low <= high - ticks, low, high)

    def contains(self, ticks: np.ndarray) -> np.ndarray:
        """Return whether each integer (n,) is in the grid."""
        return self.below(ticks) == ticks

    def describe(self) -> str:
        """Return the rule in words; by default its kind."""
        return self.kind

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"kind": self.kind, **vars(self)}


class Residues(Grid):
    """Integers that leave certain remainders.

    Parameters
    ----------
    modulus : int
    residues : sequence of int
        In [0, modulus).

    Examples
    --------
    >>> grid = Residues(100, [49, 99])
    >>> grid.nearest(np.array([120, 180])), grid.describe()
    (array([ 99, 199]), 'last 2 digits 49, 99')
    """

    kind = "residues"

    def __init__(self, modulus: int, residues: Sequence[int]) -> None:
        self.modulus, self.residues = int(modulus), sorted(int(r) for r in residues)

    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the largest of the grid that is not above it."""
        cycle, rest = np.divmod(ticks, self.modulus)
        i = np.searchsorted(self.residues, rest, side="right") - 1  # -1, the last one, is that of the cycle before
        return (cycle - (i < 0)) * self.modulus + np.asarray(self.residues)[i]

    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the smallest of the grid that is not below it."""
        cycle, rest = np.divmod(ticks, self.modulus)
        i = np.searchsorted(self.residues, rest)
        after = i == len(self.residues)
        return (cycle + after) * self.modulus + np.asarray(self.residues)[np.where(after, 0, i)]

    def count(self, low: int, high: int) -> int:
        """Return how many of the grid lie in [low, high]."""

        def up_to(tick: int) -> int:
            cycle, rest = divmod(tick, self.modulus)
            return cycle * len(self.residues) + int(np.searchsorted(self.residues, rest, side="right"))

        return up_to(high) - up_to(low - 1)

    def describe(self, decimals: int = 0) -> str:
        """Return the rule in words, for numbers with so many digits after the point."""
        digits = round(math.log10(self.modulus))
        if 10**digits != self.modulus:
            scale = 10**decimals
            return f"{self.residues[0] / scale:g} + multiples of {self.modulus / scale:g}"
        shown = [f"{r:0{digits}d}" for r in self.residues]
        return f"last {f'{digits} digits' if digits > 1 else 'digit'} {runs(self.residues, shown)}"


class Window(Grid):
    """Integers that lie in the same part of each cycle.

    Parameters
    ----------
    modulus : int
        Length of the cycle.
    start : int
        Where the part begins, in [0, modulus).
    length : int
        How far behind its start it ends; it may reach into the next cycle.
    """

    kind = "window"

    def __init__(self, modulus: int, start: int, length: int) -> None:
        self.modulus, self.start, self.length = int(modulus), int(start), int(length)

    def below(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the largest of the grid that is not above it."""
        cycle, rest = np.divmod(ticks - self.start, self.modulus)
        return cycle * self.modulus + np.minimum(rest, self.length) + self.start

    def above(self, ticks: np.ndarray) -> np.ndarray:
        """Return for each integer (n,) the smallest of the grid that is not below it."""
        cycle, rest = np.divmod(ticks - self.start, self.modulus)
        return np.where(rest > self.length, (cycle + 1) * self.modulus + self.start, ticks)

    def count(self, low: int, high: int, step: int) -> int:
        """Return how many of the integers low, low + step, ... up to high are in the grid; `step` divides the cycle."""
        size = self.length // step + 1

        def up_to(tick: int) -> int:
            cycle, rest = divmod(tick - self.start, self.modulus)
            return cycle * size + min(rest // step + 1, size)

        return up_to(high) - up_to(low - step)


class NumberGrid:
    """A grid for the numbers of a column.

    Parameters
    ----------
    rule : Grid
        Of the numbers in units of their last digit.
    decimals : int
        Digits after the point.
    """

    def __init__(self, rule: Grid, decimals: int = 0) -> None:
        self.rule, self.decimals = rule, decimals

    def _ticks(self, values: np.ndarray) -> np.ndarray:
        ticks = np.rint(np.asarray(values, dtype=np.float64) * 10.0**self.decimals)
        return np.clip(ticks, -(2.0**53), 2.0**53).astype(np.int64)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Return the numbers of the grid that are nearest to values (n,)."""
        return self.rule.nearest(self._ticks(values)) / 10.0**self.decimals

    def next(self, values: np.ndarray, side: int) -> np.ndarray:
        """Return the next number of the grid above (`side` 1) or below (-1) each value (n,)."""
        ticks = self._ticks(values)
        found = self.rule.above(ticks + 1) if side > 0 else self.rule.below(ticks - 1)
        return found / 10.0**self.decimals

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Return whether each value (n,) is on the grid."""
        return self.rule.contains(self._ticks(values))

    def describe(self) -> str:
        """Return the rule in words."""
        return self.rule.describe(self.decimals) if isinstance(self.rule, Residues) else self.rule.describe()

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"rule": self.rule.state(), "decimals": self.decimals}


def find_residues(ticks: np.ndarray, multiple: int) -> Residues | None:
    """Find which remainders integers keep to.

    Parameters
    ----------
    ticks : int64 array (m,)
        Distinct values in order.
    multiple : int
        What divides all of them.
    """
    best, chance = None, LOG_MAX_CHANCE
    low, high = int(ticks[0]), int(ticks[-1])
    total = (high - low) // multiple + 1
    for modulus in sorted({int(np.gcd.reduce(np.diff(ticks))), *MODULI}):
        choices = modulus // math.gcd(modulus, multiple)
        residues, times = np.unique(ticks % modulus, return_counts=True)
        if len(residues) == choices or modulus > high - low:
            continue
        rule = Residues(modulus, residues.tolist())
        between = range(int(residues[0]), int(residues[-1]) + 1, math.gcd(modulus, multiple))
        whole = Residues(modulus, between)
        share = rule.count(low, high) / whole.count(low, high)
        few_are_unseen = (times == 1).sum() <= max(1, MAX_UNSEEN * len(ticks))
        if not few_are_unseen or log_chance(len(between), len(residues), len(ticks), share) > LOG_MAX_CHANCE:
            rule = whole
        share = rule.count(low, high) / total
        of_this = log_chance(choices, len(rule.residues), len(ticks), share, in_a_row=rule.residues == list(between))
        of_this += math.log(1 + len(MODULI))
        if of_this < chance:
            best, chance = rule, of_this
    return best


def log_chance(n: int, k: int, m: int, share: float, *, in_a_row: bool = False) -> float:
    """Return the log of a bound on the chance that m values lie on one of the grids of k parts out of n.

    `share` is that of the values which are on the one at hand; parts in a row could be fewer others.
    """
    choices = math.log(n * (n + 1) / 2) if in_a_row else float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
    return choices + m * math.log(share)


def runs(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Return names of sorted numbers, three and more in a row as "from to"."""
    parts: list[list[int]] = []
    for i, number in enumerate(numbers):
        if parts and number == numbers[parts[-1][-1]] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    shown = [f"{names[p[0]]} to {names[p[-1]]}" if len(p) > 2 else ", ".join(names[i] for i in p) for p in parts]
    more = f" and {len(shown) - 8} more" if shown[8:] else ""
    return ", ".join(shown[:8]) + more
