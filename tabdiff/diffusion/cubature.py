r"""Means over normal noise by rules with few points.

A standard normal vector of d entries is a length times a direction: the length squared has a chi-square distribution
with d degrees of freedom, and the direction is uniform on the sphere, independently. A rule takes fixed lengths, those
of a Gauss rule, and directions that are random but orthogonal to each other. Both ways along a direction, linear terms
cancel; along a whole frame of d directions, quadratic ones have their exact mean; whatever the number of directions,
the mean of a function of the length alone is exact up to the degree of the Gauss rule.

References
----------
Genz and Monahan, "Stochastic Integration Rules for Infinite Regions", SIAM J. Sci. Comput. 19, 1998; Yu et al.,
"Orthogonal Random Features", 2016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Directions", "radii"]

# Directions of one frame at most: each new one is made orthogonal to the others.
MAX_FRAME = 32
# Points of the rule for the length: in many dimensions all noise has nearly one length, and one point serves. Fewer
# make the bound of rows of categories, and of mixtures, too high by hundredths of a nat an entry.
N_RADII = {1: 6, 2: 5}
TWO_RADII = 16
# In the plane each frame is turned against the last by this share of a right angle: of all sequences of angles that of
# the golden ratio leaves the smallest gaps.
GOLDEN = (math.sqrt(5) - 1) / 2


def radii(n_entries: int) -> list[tuple[float, float]]:
    """Return lengths of normal noise of `n_entries` entries with their weights, a Gauss rule for the squared length.

    Examples
    --------
    The mean of the squared length is the number of entries, and that of its square ``d (d + 2)``.

    >>> rule = radii(3)
    >>> [round(sum(w * r**power for r, w in rule), 6) for power in (0, 2, 4)]
    [1.0, 3.0, 15.0]
    """
    n = N_RADII.get(n_entries, 2 if n_entries <= TWO_RADII else 1)
    order = n_entries / 2 - 1
    # Golub and Welsch: the Jacobi matrix of the generalised Laguerre polynomials, which are orthogonal under x**order
    # exp(-x); half the squared length has that density.
    i = torch.arange(n, dtype=torch.float64)
    off = (i[1:] * (i[1:] + order)).sqrt()
    matrix = torch.diag(2 * i + 1 + order) + torch.diag(off, 1) + torch.diag(off, -1)
    points, vectors = torch.linalg.eigh(matrix)
    return [(math.sqrt(2 * p), w) for p, w in zip(points.tolist(), vectors[0].square().tolist(), strict=True)]


class Directions:
    """A stream of random directions; neighbouring ones are orthogonal, frame by frame.

    Parameters
    ----------
    like : Tensor
        Rows, shape ``(B, *)``.
    generator : torch.Generator, optional
        Source of randomness; drawing happens on its device.
    shared : bool
        Whether all rows share them.
    """

    def __init__(self, like: Tensor, generator: torch.Generator | None = None, *, shared: bool = True) -> None:
        self._like = like
        self._generator = generator
        self._n_rows = 1 if shared else len(like)
        self._frame: list[Tensor] = []
        self._plane: Tensor | None = None

    def take(self) -> Tensor:
        """Return the next direction, of length 1 in each row, shape ``(1, *)`` if shared, else ``(B, *)``."""
        if not self._frame:
            frame = self._next_frame().to(self._like.device, self._like.dtype)
            self._frame = [part.reshape(self._n_rows, *self._like.shape[1:]) for part in frame.unbind(2)]
        return self._frame.pop()

    def _next_frame(self) -> Tensor:
        """Return orthonormal columns, shape ``(rows, d, size)``, float64."""
        n_entries = self._like[0].numel()
        if self._plane is not None:
            angle = torch.tensor(GOLDEN * math.pi / 2, dtype=torch.float64)
            turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
            self._plane = turn.to(self._plane.device) @ self._plane
            return self._plane
        device = self._generator.device if self._generator is not None else self._like.device
        shape = (self._n_rows, n_entries, min(n_entries, MAX_FRAME))
        drawn = torch.randn(shape, generator=self._generator, device=device, dtype=torch.float64)
        frame: Tensor = torch.linalg.qr(drawn)[0]
        if n_entries == 2:
            self._plane = frame
        return frame
