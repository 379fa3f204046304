"""Exponential moving average of a model's weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

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
        d, in [0, 1); 0 keeps the last weights.

    Attributes
    ----------
    model : nn.Module
        A copy of the model that holds the averaged weights.
    n_updates : int
        Number of updates so far; the first one copies.
    """

    def __init__(self, model: Model, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay!r}")
        self.decay = decay
        self.n_updates = 0
        self.model: Model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates)) if self.n_updates else 0.0
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_updates += 1
