"""Torch's global generator, borrowed and put back: layers take their first weights from it and from no other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["borrowed_rng"]

# One at a time, or the second of two threads would take the first one's state for the caller's.
_lock = threading.RLock()


@contextlib.contextmanager
def borrowed_rng(seed: int | None = None) -> Iterator[None]:
    """Leave the global generator of the CPU as it was found, after what happens inside.

    Parameters
    ----------
    seed : int, optional
        Of the generator inside.

    Examples
    --------
    >>> import torch
    >>> state = torch.random.get_rng_state()
    >>> with borrowed_rng(0):
    ...     layer = torch.nn.Linear(2, 2)
    >>> torch.equal(state, torch.random.get_rng_state())
    True
    """
    with _lock, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # of the CPU alone
        yield
