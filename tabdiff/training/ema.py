"""Exponential moving average of a model's weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["EMA"]

Model = TypeVar("Model", bound=nn.Module)


class EMA(Generic[Model]):
    r"""Average of the weights along training; sampling from it is better than from the last weights.

    The decay warms up, :math:`\min(d, (1 + k) / (10 + k))` at update k, so that the average does not remember the
    initial weights. Buffers are copied.

    Parameters
    ----------
    model : nn.Module
        What is averaged.
    decay : float
        The decay d, in [0, 1); 0 keeps the last weights.

    Attributes
    ----------
    model : nn.Module
        A copy of the model that holds the averaged weights.
    n_updates : int
        Number of updates so far; the first one copies.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.training import EMA
    >>> average = EMA(torch.nn.Linear(2, 1), decay=0.9)
    >>> average.decay
    0.9
    """

    def __init__(self, model: Model, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay!r}")
        self.decay = decay
        self.n_updates = 0
        self.model: Model = copy.deepcopy(model).requires_grad_(False)
        # Looking through all modules for them in each step takes as long as a small network's own work.
        self._averages: list[Tensor] = list(self.model.parameters())
        self._modules = list(self.model.modules())
        self._of: tuple[nn.Module, list[Tensor], list[nn.Module]] | None = None
        first = next(iter(self._averages), None)
        # On a GPU the share is a tensor, which a recorded step reads anew each time.
        on_gpu = first is not None and first.device.type == "cuda"
        self._share: float | Tensor = torch.ones((), device=first.device) if first is not None and on_gpu else 1.0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.advance()
        self.move(model)

    def advance(self) -> None:
        """Count an update and set the share of the present weights in it, which `move` takes."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates)) if self.n_updates else 0.0
        self.n_updates += 1
        if isinstance(self._share, Tensor):
            self._share.fill_(1 - decay)
        else:
            self._share = 1 - decay

    @torch.no_grad()
    def move(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights by the share that was set."""
        if self._of is None or self._of[0] is not model:
            self._of = (model, list(model.parameters()), list(model.modules()))
        averages, weights = self._averages, self._of[1]
        if isinstance(self._share, Tensor):
            differences = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(differences, self._share)
            torch._foreach_add_(averages, differences)
        else:
            torch._foreach_lerp_(averages, weights, self._share)
        # A module may put another tensor in the place of a buffer, which a list of buffers would miss.
        pairs = list(zip(_buffers(self._modules), _buffers(self._of[2]), strict=True))
        for dtype in {mine.dtype for mine, _ in pairs}:  # of one type, all are copied by one kernel
            same = [pair for pair in pairs if pair[0].dtype == dtype]
            torch._foreach_copy_([mine for mine, _ in same], [theirs for _, theirs in same])


def _buffers(modules: list[nn.Module]) -> list[Tensor]:
    return [b for module in modules for b in module.buffers(recurse=False)]
