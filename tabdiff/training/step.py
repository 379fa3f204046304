"""A step of training: from row numbers to weights that have moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tabdiff.diffusion import Denoiser, LossAware, Times
from tabdiff.training.batches import Batches, RowStream
from tabdiff.training.ema import EMA
from tabdiff.training.options import TrainingOptions
from tabdiff.training.world import OneProcess
from tabdiff.utils.graphs import capture, is_ours, on_side_stream, reason_of
from tabdiff.utils.warnings import warn

__all__ = ["TrainingStep"]

# Steps that run as they are before one is recorded: what they set up (moments, workspaces) is not part of it.
WARM_UP = 3


class TrainingStep:
    """One step: batches, losses, gradients, the optimiser, the average of the weights.

    `run` is a function of tensors that stay where they are and that it changes in place: it reads no value back and
    copies none from the host, so that a GPU never waits in it. That is what lets it be recorded as one CUDA graph. What
    the host decides of a step (its rows, the learning rate, the decay of the average) is written into tensors before.

    Parameters
    ----------
    denoiser : Denoiser
    batches : Batches
        On the device of the denoiser.
    rows : RowStream
        Which rows come next.
    times : Times
        How times are drawn.
    optimizer : torch.optim.Optimizer
    ema : EMA
    scaler : torch.amp.GradScaler
    generator : torch.Generator
        Source of every draw, on that device.
    options : TrainingOptions
        Clipping, accumulation, and whether steps are recorded or compiled.
    precision : torch.dtype, optional
        Type of autocast; None is float32.
    world : OneProcess, optional
        The processes that train together, each on its part of every batch; by default this one alone.
    masks : torch.Generator, optional
        That of dropout, where several processes draw masks for rows of their own.
    record : callable
        ``record(function, device, generators)`` returns what launches what was recorded; see `tabdiff.utils.graphs`.

    Attributes
    ----------
    chosen : Tensor of shape (accumulation_steps, batch_size)
        Row numbers of the step.
    loss, norm : Tensor
        Of the last step, 0-d: the mean loss, and the norm of the gradient before clipping.
    is_recorded : bool
        Whether steps are launched as one graph by now.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        batches: Batches,
        rows: RowStream,
        times: Times,
        optimizer: torch.optim.Optimizer,
        ema: EMA[Denoiser],
        *,
        scaler: torch.amp.GradScaler,
        generator: torch.Generator,
        options: TrainingOptions,
        precision: torch.dtype | None = None,
        world: OneProcess | None = None,
        masks: torch.Generator | None = None,
        record: Callable[..., Callable[[], None]] = capture,
    ) -> None:
        self.denoiser, self.batches, self.rows, self.times = denoiser, batches, rows, times
        self.optimizer, self.ema, self.scaler, self.generator = optimizer, ema, scaler, generator
        self.precision = precision
        self.world, self.masks = world if world is not None else OneProcess(), masks
        self.accumulation_steps = int(options.accumulation_steps)
        self.max_norm = options.clip_grad_norm if options.clip_grad_norm is not None else math.inf
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]
        device = generator.device
        self.chosen = torch.zeros((self.accumulation_steps, batches.size), dtype=torch.long, device=device)
        self.loss, self.norm = torch.zeros((2,), device=device).unbind()
        self._compiled_loss = torch.compile(denoiser.loss) if options.compile == "default" else None
        self._record = record
        self._wanted = self._is_recordable(options.compile)
        # In a recording the rows of all batches are there before the first draw. Elsewhere those of a batch are taken
        # when their turn comes, for the stream of row numbers draws from the same generator.
        self._ahead = self._wanted or device.type == "cuda"
        self._n_run = 0
        self._launch: Callable[[], None] | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether steps are launched as one graph by now."""
        return self._launch is not None

    def _is_recordable(self, compile: str | bool) -> bool:
        """Return whether to record, and warn where it was asked for and cannot be."""
        if compile is False:
            return False
        reason = ""
        if self.generator.device.type != "cuda" and self._record is capture:
            reason = f"the device is {str(self.generator.device)!r}, and graphs are of CUDA devices"
        elif self.world.size > 1:
            reason = "several processes train together"
        elif not isinstance(self.batches.data, Tensor):
            reason = "the rows are read from files"
        elif self.scaler.is_enabled():
            reason = "precision is 'float16', whose scale may leave out a step"
        elif compile == "auto" and not (is_ours(self.times) and all(is_ours(m) for m in self.denoiser.modules())):
            # What Python does in a step happens once, at the recording: not for us to assume that it does nothing.
            reason = "the network or the times are your own"
        if reason and compile == "graph":
            _warn("recorded as CUDA graphs", reason)
        return not reason

    def __call__(self, learning_rate: float) -> None:
        """Do a step."""
        self.set(learning_rate)
        if self._ahead:
            for i in range(self.accumulation_steps):
                self._take(i)
        if self._launch is not None:
            self._launch()
        elif self._wanted and self._n_run >= WARM_UP:
            self._start_launching()
        elif self._wanted and self.generator.device.type == "cuda":
            on_side_stream(self.run, self.generator.device)
        else:
            self.run(None if self._ahead else self._take)
        self._n_run += 1

    def _start_launching(self) -> None:
        try:
            self._launch = self._record(self.run, self.generator.device, [self.generator])
        except Exception as error:  # whatever a network does that cannot be recorded, it can be run
            self._wanted = False
            _warn("recorded as CUDA graphs", reason_of(error))
            self.run()
        else:
            self._launch()

    def set(self, learning_rate: float) -> None:
        """Write what the host decides of the next step to where the step reads it."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        self.ema.advance()

    def _take(self, i: int) -> None:
        self.chosen[i].copy_(self.rows.take(self.batches.size))

    def run(self, before: Callable[[int], None] | None = None) -> None:
        """Do a step with the rows `chosen`; `before` is called with the number of each batch ahead of it."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.masks is not None:
            shared = int(torch.randint(2**40, (), generator=self.generator, device=self.generator.device))
            self.masks.manual_seed(shared + self.world.rank)
        loss = torch.zeros((), device=self.generator.device)
        for i in range(self.accumulation_steps):
            if before is not None:
                before(i)
            part = self.batch_loss(self.chosen[i]) / self.accumulation_steps
            self.scaler.scale(part).backward()
            loss += part.detach()
        self.world.reduce(self.parameters, loss)
        self.loss.copy_(loss)
        self.apply()

    def apply(self) -> None:
        """Clip the gradients, move the weights by them, and the average of the weights."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.move(self.denoiser)
        if self.scaler.is_enabled():  # a step that was left out counts as one without a gradient
            norm = torch.where(norm.isfinite(), norm, 0.0)
        self.norm.copy_(norm)

    def batch_loss(self, chosen: Tensor) -> Tensor:
        """Return the mean loss, 0-d, of the rows of a batch (B,), at times and with noise that are drawn for it.

        Of several processes each draws all of that, evaluates its part, and returns its share of the mean.
        """
        n, own = len(chosen), self.world.part(len(chosen))
        device, schedule = self.generator.device, self.denoiser.schedule
        x0, given = self.batches.make(chosen, self.generator)
        t = self.times(len(chosen), schedule, self.generator, device=device)
        eps = torch.randn((len(chosen), *self.batches.noise_shape), generator=self.generator, device=device)
        # A weight that is cast outside of a recording would not be cast again inside of it.
        caches = device.type != "cuda"
        with torch.autocast(
            device.type,
            dtype=self.precision or torch.bfloat16,
            enabled=self.precision is not None,
            cache_enabled=caches,
        ):
            losses = self._losses(x0[own], None if given is None else given[own], t[own], eps[own])
            if isinstance(self.times, LossAware):
                importance = self.times.weights(t[own], schedule)
                self.times.update(t, self.world.whole(losses, n), schedule)
                losses = importance * losses
            return self.world.mean(losses, n)

    def _losses(self, x0: Tensor, given: Tensor | None, t: Tensor, eps: Tensor) -> Tensor:
        if self._compiled_loss is not None:
            try:
                losses: Tensor = self._compiled_loss(x0, given, t=t, eps=eps)
            except Exception as error:  # a compiler that is missing, or does not know an operation
                self._compiled_loss = None
                _warn("compiled", reason_of(error))
            else:
                return losses
        return self.denoiser.loss(x0, given, t=t, eps=eps)


def _warn(what: str, reason: str) -> None:
    warn(
        f"training steps are not {what} but run one operation after another, because {reason}. They take longer, and "
        "nothing else changes; TrainingOptions(compile=False) leaves out this warning."
    )
