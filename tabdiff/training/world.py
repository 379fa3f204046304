"""Several processes that train one network, each on its part of every batch.

All of them draw the same row numbers, times and noises for the whole batch, from generators in the same state, and each
evaluates the rows of its part. Gradients are summed over the processes, so that a step is what it would be in one
process, whatever their number, and a checkpoint belongs to no number of them. The first process reads, fits the codec,
and writes; what it finds it gives to the others.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["FirstFailedError", "OneProcess", "World", "WorldError", "current_world"]

Value = TypeVar("Value")
# The first process refines while the others wait.
PATIENCE = datetime.timedelta(days=7)


class WorldError(RuntimeError):
    """Processes that do not go together: one ended, or has other data."""


class FirstFailedError(WorldError):
    """What the other processes end with where the first has failed, which says why."""


class OneProcess:
    """A world of one: what the training loop asks for, and nothing to do for it."""

    rank, size, is_first = 0, 1, True

    def from_first(self, function: Callable[[], Value]) -> Value:
        """Return what a function returns in the first process; errors are raised in all."""
        return function()

    def check_same(self, digest: str) -> None:
        """Raise a WorldError unless all processes give the same text."""

    def agree(self, values: Sequence[float]) -> list[float]:
        """Return the numbers of the first process."""
        return list(values)

    def part(self, n: int) -> slice:
        """Return which of n rows are this process's own."""
        return slice(None)

    def mean(self, losses: Tensor, n: int) -> Tensor:
        """Return this process's share, 0-d, of the mean over n rows, from the losses of its own."""
        return losses.mean()

    def whole(self, losses: Tensor, n: int) -> Tensor:
        """Return the losses of all n rows, without gradients, from those of each process."""
        return losses.detach()

    def reduce(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
        """Sum gradients and the loss over the processes, in place."""


class World(OneProcess):
    """The processes of the default process group of `torch.distributed`.

    Attributes
    ----------
    rank : int
        Number of this process, from 0 on.
    size : int
        How many there are.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # For what lies in main memory, and with a patience of its own.
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def is_first(self) -> bool:  # type: ignore[override]
        """Whether this process is the one that reads and writes."""
        return self.rank == 0

    def from_first(self, function: Callable[[], Value]) -> Value:
        """Return what a function returns in the first process; errors are raised in all.

        Raises
        ------
        FirstFailedError
            In the others, where the function raised an error in the first.
        """
        found: list[Any] = [None, None]
        failed: Exception | None = None
        if self.is_first:
            try:
                found[0] = function()
            except Exception as error:
                failed, found[1] = error, f"{type(error).__name__}: {error}"
        with _ended("as results were handed on"):
            dist.broadcast_object_list(found, src=0, group=self._group)
        if failed is not None:
            raise failed
        if found[1] is not None:
            raise FirstFailedError(f"process 0 failed: {found[1]}")
        value: Value = found[0]
        return value

    def check_same(self, digest: str) -> None:
        """Raise a WorldError unless all processes give the same text."""
        digests: list[Any] = [None] * self.size
        with _ended("before training"):
            dist.all_gather_object(digests, digest, group=self._group)
        other = [rank for rank, found in enumerate(digests) if found != digests[0]]
        if other:
            raise WorldError(
                f"all processes must be given the same data; process{'es' if other[1:] else ''} "
                f"{', '.join(map(str, other))} of {self.size} got other data than process 0. Read the same files in "
                "each, in the same order."
            )

    def agree(self, values: Sequence[float]) -> list[float]:
        """Return the numbers of the first process."""
        shared = torch.tensor(values, dtype=torch.float64)
        with _ended("in training"):
            dist.broadcast(shared, src=0, group=self._group)
        return [float(value) for value in shared]

    def part(self, n: int) -> slice:
        """Return which of n rows are this process's own."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def mean(self, losses: Tensor, n: int) -> Tensor:
        """Return this process's share, 0-d, of the mean over n rows, from the losses of its own."""
        return losses.sum() / n

    def whole(self, losses: Tensor, n: int) -> Tensor:
        """Return the losses of all n rows, without gradients, from those of each process."""
        out = losses.new_zeros(n)
        out[self.part(n)] = losses.detach()
        with _ended("in training"):
            dist.all_reduce(out)
        return out

    def reduce(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
        """Sum gradients and the loss over the processes, in place."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        # At once, since each call waits for the slowest.
        flat = torch.cat([*(g.flatten() for g in gradients), loss.reshape(1)])
        with _ended("in training"):
            dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        loss.copy_(flat[-1])


class _ended:
    """Say that another process ended where the library tells of a connection."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if isinstance(error, RuntimeError | dist.DistError) and not isinstance(error, WorldError):
            raise WorldError(
                f"another process of the group ended {self.when}, so this one (rank {dist.get_rank()}) ends too. The "
                "last checkpoint is whole: fit(..., resume_from=folder) goes on from it, with any number of processes."
            ) from error


def current_world() -> OneProcess:
    """Return the processes that train together: those of the default process group, or this one alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return World()
    return OneProcess()
