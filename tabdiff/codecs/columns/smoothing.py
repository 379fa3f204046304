r"""Where the rarer values of a column of numbers end and their neighbours begin, so that they are not given away.

Half-way between two values seen once each is a boundary that only these two know: values drawn between such boundaries
crowd where training values happened to lie close together, and keep to the few that lie far out. Here each boundary is
the mean of its neighbours', the kernel estimate of a quantile (Parzen, *Nonparametric Statistical Data Modeling*, JASA
1979), so what is drawn is spread evenly over a stretch of values.
"""

from __future__ import annotations

import numpy as np

__all__ = ["boundaries", "smooth"]

# A gap so many times as wide as the mean of those on either side is a hole in the distribution, into which neighbours
# spread nothing. Of gaps that chance makes few in ten thousand are so wide.
HOLE = 10.0


def boundaries(values: np.ndarray) -> np.ndarray:
    """Return where distinct values (m,), in order, begin and end, (m + 1,): half-way to their neighbours.

    Examples
    --------
    >>> boundaries(np.array([0.0, 1.0, 3.0]))
    array([0. , 0.5, 2. , 3. ])
    """
    # Halving before adding keeps the midpoints of values near the largest float finite.
    return np.concatenate([values[:1], 0.5 * values[1:] + 0.5 * values[:-1], values[-1:]])


def smooth(values: np.ndarray, heavy: np.ndarray, stretch: int) -> np.ndarray:
    """Return boundaries (m + 1,) that are means of so many neighbouring ones.

    Those of heavy values stay where they are, and so do the ends of the range and those inside holes. Nearer to one of
    these than half a stretch a mean is of fewer, always as many on either side, and never of these, so that evenly
    spaced values keep their own intervals and nothing is drawn towards a hole.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Distinct values in order.
    heavy : ndarray of shape (m,), bool
        Those that are returned exactly.
    stretch : int
        Boundaries in a mean, an odd number; 1 leaves all as they are.

    Examples
    --------
    >>> values = np.array([0.0, 1.0, 2.0, 6.0, 7.0, 8.0])
    >>> boundaries(values)
    array([0. , 0.5, 1.5, 4. , 6.5, 7.5, 8. ])
    >>> smooth(values, np.zeros(6, dtype=bool), 3)
    array([0. , 0.5, 2. , 4. , 6. , 7.5, 8. ])
    """
    plain, half = boundaries(values), stretch // 2
    if half < 1:
        return plain
    fixed = np.zeros(len(plain), dtype=bool)
    fixed[[0, -1]] = True
    fixed[:-1] |= heavy
    fixed[1:] |= heavy
    fixed[1:-1] |= _holes(values, half)
    reach = np.clip(_distance(fixed) - 1, 0, half)
    # Shares of each are added up, not the boundaries: their sum could be too large for a float.
    share = 1.0 / (2 * reach + 1)
    total = plain * share
    for k in range(1, half + 1):
        i = np.flatnonzero(reach >= k)
        total[i] += plain[i - k] * share[i] + plain[i + k] * share[i]
    # A rounding error must not make one end before it begins.
    return np.clip(np.maximum.accumulate(np.where(fixed, plain, total)), values[0], values[-1])


def _distance(fixed: np.ndarray) -> np.ndarray:
    """How far each place (n,) is from the nearest that is fixed; the first and the last are."""
    places = np.arange(len(fixed))
    left = np.maximum.accumulate(np.where(fixed, places, 0))
    right = np.minimum.accumulate(np.where(fixed, places, len(fixed) - 1)[::-1])[::-1]
    return np.minimum(places - left, right - places)


def _holes(values: np.ndarray, half: int) -> np.ndarray:
    """Whether each gap (m - 1,) between values is far wider than the mean of so many on either side."""
    # In units of the largest, so that no sum overflows; not by sums of all, among which small gaps would be lost.
    gaps = np.diff(values / (np.abs(values).max() or 1.0))
    n, places = len(gaps), np.arange(len(gaps))
    padded = np.concatenate([np.zeros(half), gaps, np.zeros(half)])
    before = sum(padded[half - k : half - k + n] for k in range(1, half + 1))
    after = sum(padded[half + k : half + k + n] for k in range(1, half + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # At an end there is one side only.
        widest = np.fmax(before / np.minimum(places, half), after / np.minimum(n - 1 - places, half))
    return np.asarray(gaps > HOLE * widest)
