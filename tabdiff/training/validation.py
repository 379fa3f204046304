"""The loss on rows that training does not see, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tabdiff.diffusion import Denoiser, LossAware, Times, make_times

__all__ = ["Validation"]

# Few held-out rows are looked at at several times, of many only some: the loss of a row depends strongly on its time.
MIN_ROWS, MAX_ROWS = 1024, 4096
CHUNK_ROWS = 2048
# Of images; their networks keep many maps of the size of each.
CHUNK_VALUES = 2**18


class Validation:
    """Loss on held-out rows, at times and noises that stay the same, and the best weights so far.

    Parameters
    ----------
    data : Tensor of shape (n, *)
        Encoded held-out rows.
    condition : Tensor of shape (n, k), optional
        Their encoded condition.
    weight : Tensor of shape (n,), optional
        Weights of the mean over rows.
    denoiser : Denoiser
        For its schedule.
    event_shape : tuple of int
        Shape of the noise of one row.
    times : str or Times
        How training draws times; times that learn from the losses are replaced by stratified ones, which stay.
    patience : int
        Evaluations in a row without an improvement after which training stops.
    generator : torch.Generator
        Draws the times and noises, on the training device.
    precision : torch.dtype, optional
        Type of autocast; None is float32.
    prepare : callable, optional
        ``prepare(rows)`` makes the rows that the network sees, as in training but for what is random there.

    Attributes
    ----------
    best : float
        Lowest loss so far.
    best_weights : dict of Tensor
        The state of the denoiser that had it.
    n_since : int
        Evaluations since then.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Denoiser
    >>> from tabdiff.nn import ResidualMLP
    >>> from tabdiff.training import Validation
    >>> denoiser = Denoiser(ResidualMLP(2, 2, hidden_size=16, n_blocks=1), CosineSchedule())
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(100, 2, generator=generator)
    >>> validation = Validation(rows, denoiser=denoiser, event_shape=(2,), patience=3, generator=generator)
    >>> validation.watch(denoiser) == validation.best, validation.is_over
    (True, False)
    """

    def __init__(
        self,
        data: Tensor,
        condition: Tensor | None = None,
        weight: Tensor | None = None,
        *,
        denoiser: Denoiser,
        event_shape: tuple[int, ...],
        times: str | Times = "stratified",
        patience: int = 10,
        generator: torch.Generator,
        precision: torch.dtype | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        device = generator.device
        if len(data) > MAX_ROWS:
            rows = torch.randperm(len(data), generator=generator, device=device)[:MAX_ROWS]
        else:
            rows = torch.arange(len(data), device=device).repeat(math.ceil(MIN_ROWS / len(data)))
        self.data = data.to(device)[rows]
        self.chunk_rows = CHUNK_ROWS
        if prepare is not None:
            self.data = prepare(self.data)
            self.chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_VALUES // self.data[0].numel()))
        self.condition = condition.to(device)[rows] if condition is not None else None
        self.weight = weight.to(device)[rows].double() if weight is not None else None
        draw_times = make_times(times)
        if isinstance(draw_times, LossAware):
            draw_times = make_times("stratified")
        # Neighbouring rows would get neighbouring stratified times.
        order = torch.randperm(len(rows), generator=generator, device=device)
        self.t = draw_times(len(rows), denoiser.schedule, generator, device=device)[order]
        self.eps = torch.randn((len(rows), *event_shape), generator=generator, device=device)
        self.precision = precision
        self.patience = patience
        self.best = math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.n_since = 0

    @torch.no_grad()
    def loss(self, denoiser: Denoiser) -> float:
        """Return the mean loss of a denoiser, which is set to evaluation mode."""
        denoiser.eval()
        device, parts = self.data.device, []
        for i in range(0, len(self.data), self.chunk_rows):
            part = slice(i, i + self.chunk_rows)
            condition = self.condition[part] if self.condition is not None else None
            with torch.autocast(
                device.type, dtype=self.precision or torch.bfloat16, enabled=self.precision is not None
            ):
                parts.append(denoiser.loss(self.data[part], condition, t=self.t[part], eps=self.eps[part]))
        losses = torch.cat(parts).double()
        if self.weight is None:
            return float(losses.mean())
        return float((losses * self.weight).sum() / self.weight.sum())

    def watch(self, denoiser: Denoiser) -> float:
        """Return the loss of a denoiser, and keep its weights if they are the best so far."""
        loss = self.loss(denoiser)
        if loss < self.best:
            self.best, self.n_since = loss, 0
            self.best_weights = {name: value.detach().clone() for name, value in denoiser.state_dict().items()}
        else:
            self.n_since += 1
        return loss

    @property
    def is_over(self) -> bool:
        """Whether the loss has not improved for as long as patience lasts."""
        return self.n_since >= self.patience

    def put_best(self, model: nn.Module) -> None:
        """Put the best weights into a model."""
        if self.best_weights:
            model.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what changes along training; times and noises follow from the seed."""
        return {"best": self.best, "best_weights": self.best_weights, "n_since": self.n_since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best, self.n_since = state["best"], state["n_since"]
        self.best_weights = {name: value.to(self.data.device) for name, value in state["best_weights"].items()}
