"""Where training stands between two steps: everything that the next step depends on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tabdiff.diffusion import Denoiser, Times
from tabdiff.training.batches import RowStream
from tabdiff.training.ema import EMA
from tabdiff.training.validation import Validation
from tabdiff.training.world import OneProcess
from tabdiff.utils.device import peak_memory

if TYPE_CHECKING:
    from tabdiff.training.private_step import ClippedNoise

__all__ = ["Run", "Training"]

# What a differentially private fit may show: nothing that was computed of the rows, and nothing of how long it took.
PRIVATE_KEYS = ("step", "learning_rate")
KEYS = ("step", "loss", "gradient_norm", "learning_rate", "rows_per_second", "seconds", "memory")


@dataclass(frozen=True)
class Run:
    """Which fit a training belongs to, and where it stood.

    Parameters
    ----------
    description : dict or None
        Seed, parameters and data in plain values, which tell whether another fit may go on with its checkpoints; empty
        or None where none are written.
    saved : dict or None
        ``training.state_dict()`` of an interrupted run with the same arguments, to go on from.
    world : OneProcess
        The processes that train together, all called with the same arguments, but for callbacks, which only the first
        has; by default this one alone.
    private : ClippedNoise or None
        How gradients are clipped and noised for differential privacy; rows then come in Poisson samples, and times one
        by one.

    Examples
    --------
    >>> from tabdiff.training import Run
    >>> Run().saved is None
    True
    """

    description: dict[str, Any] | None = None
    saved: dict[str, Any] | None = None
    world: OneProcess = field(default_factory=OneProcess)
    private: ClippedNoise | None = None


@dataclass
class Training:
    """A fit in progress: what callbacks are told, and what a checkpoint holds.

    Parameters
    ----------
    denoiser : Denoiser
        The denoiser in training.
    ema : EMA
        Its average; ``ema.model`` is what samples.
    optimizer : torch.optim.Optimizer
        The optimiser of the denoiser's weights.
    rows : RowStream
        Which rows come next.
    times : Times
        How times are drawn.
    generator : torch.Generator
        Source of every draw of the loop.
    max_steps : int
        Number of steps at most.
    validation : Validation or None
        The held-out rows.
    scaler : torch.amp.GradScaler
        Scale of the gradients with float16; otherwise it does nothing.
    step_rows, epoch_rows : int
        Rows of a step and of an epoch.
    description : dict or None
        Which fit it is, in plain values, which tells whether another one may go on with its checkpoints.
    snapshot : callable or None
        Within `DiffusionGenerator.fit`, returns a fitted generator with the averaged weights as they are now, to
        sample from, score or save. It is a copy, and not refined.
    is_private : bool
        Whether the fit is differentially private: then the history has the "step" and "learning_rate" alone.
    history : dict of list
        For each window of 50 steps its last "step", the mean "loss" and "gradient_norm" (before clipping), the
        "learning_rate" at its end, "rows_per_second", "seconds" since the start and the peak of "memory"; see
        `peak_memory`. With `validation`, "validation_loss" and the "validation_step" of each.
    step : int
        Number of steps done.
    finished : bool
        Whether no step follows. It stays False where an error ends training.
    learning_rate : float
        Of the last step.

    Examples
    --------
    `train` makes one, and gives it to callbacks:

    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Denoiser
    >>> from tabdiff.nn import ResidualMLP
    >>> from tabdiff.training import Batches, Callback, train
    >>> denoiser = Denoiser(ResidualMLP(2, 2, hidden_size=16, n_blocks=1), CosineSchedule())
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(100, 2, generator=generator)
    >>> class Tell(Callback):
    ...     def on_fit_end(self, training):
    ...         print(training.step, training.finished, training.history["step"])
    >>> result = train(denoiser, Batches(rows, size=32), generator=generator, max_steps=60, callbacks=[Tell()])
    60 True [50.0, 60.0]
    """

    denoiser: Denoiser
    ema: EMA[Denoiser]
    optimizer: torch.optim.Optimizer
    rows: RowStream
    times: Times
    generator: torch.Generator
    max_steps: int
    validation: Validation | None = None
    _: KW_ONLY
    scaler: torch.amp.GradScaler
    step_rows: int
    epoch_rows: int
    description: dict[str, Any] | None = None
    snapshot: Callable[[], Any] | None = None
    is_private: bool = False
    history: dict[str, list[float]] = field(default_factory=lambda: {key: [] for key in KEYS})
    step: int = 0
    finished: bool = False
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        device = self.generator.device
        self._total_loss = torch.zeros((), device=device)
        self._total_norm = torch.zeros((), device=device)
        self._window_steps = 0
        self._window_start = 0.0
        self._start = time.perf_counter()
        if self.is_private:
            self.history = {key: [] for key in PRIVATE_KEYS}
        if self.validation is not None:
            self.history |= {"validation_step": [], "validation_loss": []}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return time.perf_counter() - self._start

    @property
    def window_steps(self) -> int:
        """Number of steps since the last entry of the history."""
        return self._window_steps

    def count(self, loss: Tensor, norm: Tensor) -> None:
        """Count a step with its loss and the norm of its gradient."""
        self._total_loss += loss.detach()
        self._total_norm += norm
        self._window_steps += 1
        self.step += 1

    def close_window(self) -> dict[str, float]:
        """Add an entry to the history, and return it."""
        now, steps = self.seconds, self._window_steps
        entry = {
            "step": float(self.step),
            "loss": self._total_loss.item() / steps,
            "gradient_norm": self._total_norm.item() / steps,
            "learning_rate": self.learning_rate,
            "rows_per_second": steps * self.step_rows / (now - self._window_start),
            "seconds": now,
            "memory": peak_memory(self.generator.device),
        }
        for key, value in entry.items():
            if not self.is_private or key in PRIVATE_KEYS:
                self.history.setdefault(key, []).append(value)
        self._total_loss.zero_()
        self._total_norm.zero_()
        self._window_steps, self._window_start = 0, now
        return entry

    def validate(self) -> None:
        """Evaluate the average on the held-out rows, and finish where it has stopped to improve."""
        assert self.validation is not None
        self.history["validation_loss"].append(self.validation.watch(self.ema.model))
        self.history["validation_step"].append(float(self.step))
        self.finished = self.finished or self.validation.is_over

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as plain values and tensors, from which :meth:`load_state_dict` goes on bit by bit."""
        learned = getattr(self.times, "state_dict", None)
        return {
            "weights": self.denoiser.state_dict(),
            "average": self.ema.model.state_dict(),
            "n_updates": self.ema.n_updates,
            "optimizer": {str(i): dict(moments) for i, moments in self.optimizer.state_dict()["state"].items()},
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "waiting": self.rows.waiting,
            "blocks": self.rows.blocks,
            "times": learned() if learned is not None else None,
            "validation": self.validation.state_dict() if self.validation is not None else None,
            "history": {key: list(values) for key, values in self.history.items()},
            "step": self.step,
            "finished": self.finished,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "window": [self._window_steps, self._window_start],
            "totals": torch.stack([self._total_loss, self._total_norm]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        device = self.generator.device
        self.denoiser.load_state_dict(state["weights"])
        self.ema.model.load_state_dict(state["average"])
        self.ema.n_updates = state["n_updates"]
        moments = {int(i): values for i, values in state["optimizer"].items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["generator"].cpu())
        self.rows.waiting = state["waiting"].to(device)
        self.rows.blocks = state.get("blocks", self.rows.blocks).to(device)
        if state["times"] is not None:
            self.times.load_state_dict(state["times"])  # type: ignore[attr-defined]
        if self.validation is not None:
            self.validation.load_state_dict(state["validation"])
        self.history = {key: list(values) for key, values in state["history"].items()}
        self.step, self.finished, self.learning_rate = state["step"], state["finished"], state["learning_rate"]
        self._start = time.perf_counter() - state["seconds"]
        self._window_steps, self._window_start = state["window"]
        self._total_loss, self._total_norm = (total.clone() for total in state["totals"].to(device))
