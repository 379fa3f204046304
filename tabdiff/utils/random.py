"""Random numbers that belong to a row, whatever rows stand beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RowStreams", "numpy_stream"]


def _signed(constant: int) -> int:
    """Return an unsigned 64-bit constant as the signed integer of the same bits, which is what torch multiplies."""
    return constant - 2**64 if constant >= 2**63 else constant


GAMMA = _signed(0x9E3779B97F4A7C15)
MULTIPLIERS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
CACHED = 2**15


class RowStreams:
    """A stream of random numbers for each row, that follows from the row's key alone.

    With a `torch.Generator` what a row gets depends on its place in the batch. Here rows that are evaluated alone, in
    another order or among others get the same numbers. They are those of SplitMix64 (Steele, Lea and Flood, 2014,
    https://doi.org/10.1145/2714064.2660195), a counter that starts at the key and is hashed.

    Parameters
    ----------
    keys : Tensor of shape (n,)
        int64. Rows of equal keys get equal numbers.

    Examples
    --------
    >>> keys = torch.tensor([11, 12, 13])
    >>> first = RowStreams(keys).normal(4)
    >>> bool((RowStreams(keys[[2, 0]]).normal(4) == first[[2, 0]]).all())
    True
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = _mix(keys)
        self.position = 0

    @classmethod
    def drawn(cls, generator: torch.Generator, n: int) -> RowStreams:
        """Return streams for n rows, keyed by a number that is drawn from a generator on the CPU."""
        return cls(_mix(torch.randint(2**62, (1,), generator=generator)) + torch.arange(n))

    @classmethod
    def beside(cls, generator: torch.Generator, n: int) -> RowStreams:
        """Return streams for n rows, keyed by the state of a generator on the CPU, which stays as it is."""
        copy = torch.Generator()
        copy.set_state(generator.get_state())
        first = torch.randint(2**62, (1,), generator=copy)
        return cls(_mix(first) + torch.arange(n))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> RowStreams:
        part = RowStreams.__new__(RowStreams)
        part.keys, part.position = self.keys[rows], self.position
        return part

    def move(self, device: torch.device | str) -> None:
        """Move these streams themselves to a device; see `to`."""
        self.keys = self.keys.to(device)

    def to(self, device: torch.device | str) -> RowStreams:
        """Return the same streams on a device: the same uniform numbers, and normal ones within rounding."""
        moved = self[:]
        moved.move(device)
        return moved

    def spawn(self) -> RowStreams:
        """Return new streams for the same rows, independent of what these give afterwards."""
        return RowStreams(self._bits(1)[:, 0])

    def _bits(self, k: int) -> Tensor:
        counter = torch.arange(self.position + 1, self.position + k + 1, device=self.keys.device)
        self.position += k
        return _mix(self.keys[:, None] + counter * GAMMA)

    def uniform(self, k: int) -> Tensor:
        """Return the next k numbers of each row, uniform on (0, 1) without its ends, float64 of shape (n, k)."""
        return (_shift(self._bits(k), 12).double() + 0.5) * 2.0**-52

    def normal(self, k: int) -> Tensor:
        """Return the next k numbers of each row, standard normal, float64 of shape (n, k)."""
        # On a CPU as many rows at a time as a cache holds: half the time of all at once.
        rows = max(1, CACHED // max(k, 1)) if self.keys.device.type == "cpu" else max(1, len(self))
        parts = [torch.special.ndtri(self[i : i + rows].uniform(k)) for i in range(0, max(len(self), 1), rows)]
        self.position += k
        return torch.cat(parts)

    def random(self, size: int) -> Any:
        """Return the next number of each row as an ndarray (n,), as `numpy.random.Generator.random` does.

        Raises
        ------
        ValueError
            If `size` is not the number of rows.
        """
        if size != len(self):
            raise ValueError(
                f"there is a stream for each of {len(self)} rows; got {size} as the number that is asked for."
            )
        return self.uniform(1)[:, 0].cpu().numpy()


def _shift(bits: Tensor, places: int) -> Tensor:
    """Shift 64 bits to the right and fill with zeros, not with the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Hash 64 bits to 64 bits, one to one."""
    bits = (bits ^ _shift(bits, 30)) * MULTIPLIERS[0]
    bits = (bits ^ _shift(bits, 27)) * MULTIPLIERS[1]
    return bits ^ _shift(bits, 31)


def numpy_stream(generator: torch.Generator | RowStreams | None) -> np.random.Generator | RowStreams | None:
    """Return a generator of NumPy that a generator of torch seeds; streams of the rows' own, and None, as they are."""
    if generator is None or isinstance(generator, RowStreams):
        return generator
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
