"""The training loop: reads from top to bottom.

Data stay on the device and are indexed there. What the next step depends on stands in a `Training`, so that a fit can
be looked at, interrupted and taken up again between any two steps.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tabdiff.diffusion import Denoiser, make_times
from tabdiff.nn import Dropout
from tabdiff.training.batches import Batches, RowStream
from tabdiff.training.callbacks import Callback
from tabdiff.training.ema import EMA
from tabdiff.training.options import TrainingOptions
from tabdiff.training.private_step import PrivateStep
from tabdiff.training.state import Run, Training
from tabdiff.training.step import TrainingStep
from tabdiff.training.validation import Validation

__all__ = ["TrainingResult", "train"]

WINDOW_STEPS = 50


@dataclass
class TrainingResult:
    """What training leaves.

    Parameters
    ----------
    denoiser : Denoiser
        The averaged denoiser, in evaluation mode, on the training device: with a validation the one that did best on
        it, else the last.
    history : dict of list
        See `tabdiff.training.state.Training`.
    n_steps : int
        Number of optimiser steps done.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Denoiser
    >>> from tabdiff.nn import ResidualMLP
    >>> from tabdiff.training import Batches, train
    >>> denoiser = Denoiser(ResidualMLP(2, 2, hidden_size=16, n_blocks=1), CosineSchedule())
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(100, 2, generator=generator)
    >>> result = train(denoiser, Batches(rows, size=32), generator=generator, max_steps=60)
    >>> result.n_steps, result.history["step"], result.denoiser.training
    (60, [50.0, 60.0], False)
    """

    denoiser: Denoiser
    history: dict[str, list[float]]
    n_steps: int


def train(
    denoiser: Denoiser,
    batches: Batches,
    *,
    generator: torch.Generator,
    max_steps: int,
    max_time: float | None = None,
    learning_rate: float = 1e-3,
    options: TrainingOptions | None = None,
    precision: torch.dtype | None = None,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    snapshot: Callable[[Training], Any] | None = None,
    run: Run | None = None,
) -> TrainingResult:
    """Train a denoiser with warm-up and decay of the learning rate, clipping and weight averaging.

    Parameters
    ----------
    denoiser : Denoiser
        Trained in place, on the device that it is on.
    batches : Batches
        The rows, moved to that device once, and what is made of them.
    generator : torch.Generator
        Source of every draw of the loop, on the denoiser's device.
    max_steps : int
        Number of steps at most.
    max_time : float, optional
        Seconds at most; the learning rate then decays over whichever of the two ends first.
    learning_rate : float
        The peak, after warm-up.
    options : TrainingOptions, optional
        Optimiser, warm-up, averaging and times. Times that learn from the losses are told them.
    precision : torch.dtype, optional
        Type of autocast; None is float32. With float16, gradients are scaled so that small ones do not vanish, and a
        step whose gradients are infinite is left out while the scale is halved (Micikevicius et al., "Mixed Precision
        Training", 2018).
    validation : Validation, optional
        Held-out rows, evaluated after each window of 50 steps; they end training, and decide which weights are kept.
    callbacks : sequence of Callback
        See `tabdiff.training.callbacks`.
    snapshot : callable, optional
        From the `Training` to a fitted estimator, for callbacks.
    run : Run, optional
        Which fit it is, where it stood when it was interrupted, the processes that train together, and how gradients
        are clipped and noised in a differentially private one.

    Returns
    -------
    TrainingResult

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    tabdiff.training.world.WorldError
        If another process ended.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Denoiser
    >>> from tabdiff.nn import ResidualMLP
    >>> from tabdiff.training import Batches, train
    >>> denoiser = Denoiser(ResidualMLP(2, 2, hidden_size=16, n_blocks=1), CosineSchedule())
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(100, 2, generator=generator)
    >>> result = train(denoiser, Batches(rows, size=32), generator=generator, max_steps=60)
    >>> from tabdiff.diffusion import sample
    >>> sample(result.denoiser, torch.randn(5, 2, generator=generator), steps=4).shape
    torch.Size([5, 2])
    """
    device = generator.device
    batches = batches.to(device)
    options = options if options is not None else TrainingOptions()
    run = run if run is not None else Run()
    world = run.world
    draw_times = copy.deepcopy(make_times(options.times))  # one that learns must not carry over to the next fit
    optimizer = options.make_optimizer([p for p in denoiser.parameters() if p.requires_grad], learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    ema = EMA(denoiser, float(options.ema_decay))
    rows = RowStream(len(batches), generator, batches.weight, batches.block_rows)
    training = Training(
        denoiser,
        ema,
        optimizer,
        rows,
        draw_times,
        generator,
        max_steps,
        validation,
        scaler=scaler,
        step_rows=batches.size * int(options.accumulation_steps),
        epoch_rows=batches.epoch_rows if batches.epoch_rows is not None else len(batches),
        description=run.description,
        is_private=run.private is not None,
    )
    if snapshot is not None:
        training.snapshot = partial(snapshot, training)
    if run.saved is not None:
        training.load_state_dict(run.saved)
    denoiser.train()
    dropouts = [module for module in denoiser.modules() if isinstance(module, Dropout)]
    # Of several processes, masks are of this one's rows alone, and must not move the generator that all share.
    masks = torch.Generator(device) if world.size > 1 and any(module.p for module in dropouts) else None
    for module in dropouts:
        module.generator = generator if masks is None else masks

    step: TrainingStep | PrivateStep
    if run.private is not None:
        step = PrivateStep(denoiser, batches, optimizer, ema, generator=generator, private=run.private)
    else:
        step = TrainingStep(
            denoiser,
            batches,
            rows,
            draw_times,
            optimizer,
            ema,
            scaler=scaler,
            generator=generator,
            options=options,
            precision=precision,
            world=world,
            masks=masks,
        )

    def log() -> None:
        entry = training.close_window()
        if not math.isfinite(entry["loss"]):
            raise FloatingPointError(
                f"the training loss became {entry['loss']} at step {training.step}; lower learning_rate "
                f"(now {learning_rate:g}), or use precision='float32' if it was another"
            )

    with _told(callbacks, training):
        while True:
            # Clocks differ, and callbacks are with the first process.
            elapsed, finished = world.agree([training.seconds, float(training.finished)])
            if finished:
                break
            last = training.step + 1 == max_steps or (max_time is not None and elapsed >= max_time)
            progress = max(training.step / max_steps, elapsed / max_time if max_time else 0.0)
            share = options.rate_share(training.step, progress, max_steps)
            training.learning_rate = learning_rate * share
            step(training.learning_rate)
            training.count(step.loss, step.norm)
            training.finished = last
            if training.window_steps == WINDOW_STEPS or last:
                log()
                if validation is not None:
                    training.validate()
                    _ask(callbacks, "on_validation_end", training)
            _ask(callbacks, "on_step_end", training)
        if training.window_steps:  # a callback has ended the fit between two entries
            log()
        if validation is not None:
            validation.put_best(ema.model)
    return TrainingResult(ema.model.eval(), training.history, training.step)


@contextlib.contextmanager
def _told(callbacks: Sequence[Callback], training: Training) -> Iterator[None]:
    """Tell callbacks of the beginning, and of the end whatever brings it."""
    begun = []
    try:
        for callback in callbacks:
            callback.on_fit_begin(training)
            begun.append(callback)
        yield
    except BaseException:
        training.finished = False
        raise
    finally:
        for callback in begun:
            callback.on_fit_end(training)


def _ask(callbacks: Sequence[Callback], method: str, training: Training) -> None:
    """Call a method of each callback; one that returns True ends training."""
    for callback in callbacks:
        if getattr(callback, method)(training):
            training.finished = True
