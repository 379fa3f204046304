"""The training loop: reads from top to bottom.

Data stay on the device and are indexed there; a batch is the next slice of a stream of random permutations, so every
row is seen equally often whatever the batch size.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tabdiff.diffusion import Denoiser, LossAware, Times, make_times
from tabdiff.nn import Dropout
from tabdiff.training.ema import EMA

__all__ = ["TrainingResult", "train"]

WARM_UP_STEPS = 100
WINDOW_STEPS = 50


@dataclass
class TrainingResult:
    """What training leaves.

    Attributes
    ----------
    denoiser : Denoiser
        The averaged denoiser, in evaluation mode, on the training device.
    history : dict of list
        For each window of 50 steps its last "step", the mean "loss" and "gradient_norm" (before clipping), the
        "learning_rate" at its end, "rows_per_second" and "seconds" since the start.
    n_steps : int
        Number of optimiser steps done.
    """

    denoiser: Denoiser
    history: dict[str, list[float]]
    n_steps: int


def train(
    denoiser: Denoiser,
    data: Tensor,
    condition: Tensor | None = None,
    *,
    event_shape: tuple[int, ...] | None = None,
    max_steps: int,
    max_time: float | None = None,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    ema_decay: float = 0.999,
    clip_grad_norm: float | None = 1.0,
    condition_dropout: float = 0.1,
    times: str | Times = "stratified",
    draw_given: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    generator: torch.Generator,
    precision: torch.dtype | None = None,
    verbose: int = 0,
    callback: Callable[[dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train a denoiser with AdamW, warm-up and cosine decay, clipping and weight averaging.

    Parameters
    ----------
    denoiser : Denoiser
        Trained in place, on the device that it is on.
    data : Tensor of shape (n, *)
        Encoded rows, moved to that device once.
    condition : Tensor of shape (n, k), optional
        Encoded conditions.
    event_shape : tuple of int, optional
        Shape of the noise of one row, where it differs from the row's own (embedded categories).
    max_steps : int
        Number of steps at most.
    max_time : float, optional
        Seconds at most; the learning rate then decays over whichever of the two ends first.
    batch_size : int
        Rows a step.
    learning_rate, weight_decay : float
        Of AdamW; the rate is the peak after 100 steps of warm-up.
    ema_decay : float
        Decay of the weights' average per step.
    clip_grad_norm : float, optional
        Largest norm of the gradient; None does not clip.
    condition_dropout : float
        Probability with which a row's condition is replaced by the null token.
    times : str or Times
        How times are drawn; see `tabdiff.diffusion.times`. One that learns from the losses is told them.
    draw_given : callable, optional
        ``draw_given(rows, generator)`` says which entries of a batch are given; see `tabdiff.diffusion.given`.
    generator : torch.Generator
        Source of every draw of the loop, on the denoiser's device.
    precision : torch.dtype, optional
        Type of autocast; None is float32.
    verbose : int
        1 shows a progress bar with loss and remaining time.
    callback : callable, optional
        Called with the newest entry of the history after each window.

    Returns
    -------
    TrainingResult

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    from tqdm.auto import tqdm

    device = generator.device
    n = len(data)
    data = data.to(device)
    condition = condition.to(device) if condition is not None else None
    shape = event_shape if event_shape is not None else tuple(data.shape[1:])
    draw_times = copy.deepcopy(make_times(times))  # one that learns must not carry over to the next fit
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=learning_rate,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    ema = EMA(denoiser, ema_decay)
    history: dict[str, list[float]] = {
        key: [] for key in ("step", "loss", "gradient_norm", "learning_rate", "rows_per_second", "seconds")
    }
    denoiser.train()
    order = torch.empty(0, dtype=torch.long, device=device)
    total_loss = torch.zeros((), device=device)
    total_norm = torch.zeros((), device=device)
    start = window_start = time.perf_counter()
    step = window_steps = 0
    for module in denoiser.modules():
        if isinstance(module, Dropout):
            module.generator = generator
    with tqdm(total=max_steps, disable=not verbose, desc="fit", unit="step") as bar:
        last = False
        while not last:
            elapsed = time.perf_counter() - start
            last = step + 1 == max_steps or (max_time is not None and elapsed >= max_time)
            progress = max(step / max_steps, elapsed / max_time if max_time else 0.0)
            rate = learning_rate * _schedule(step, progress, max_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate

            while len(order) < batch_size:
                order = torch.cat([order, torch.randperm(n, generator=generator, device=device)])
            rows, order = order[:batch_size], order[batch_size:]
            batch = data[rows]
            given = None if condition is None else _drop(condition[rows], condition_dropout, generator)
            if draw_given is not None:
                entries = draw_given(batch, generator)
                given = entries if given is None else torch.cat([given, entries], dim=1)
            t = draw_times(batch_size, denoiser.schedule, generator, device=device)
            eps = torch.randn((batch_size, *shape), generator=generator, device=device)

            with torch.autocast(device.type, dtype=precision or torch.bfloat16, enabled=precision is not None):
                losses = denoiser.loss(batch, given, t=t, eps=eps)
                if isinstance(draw_times, LossAware):
                    weights = draw_times.weights(t, denoiser.schedule)
                    draw_times.update(t, losses, denoiser.schedule)
                    losses = weights * losses
                loss = losses.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, clip_grad_norm if clip_grad_norm is not None else math.inf)
            optimizer.step()
            ema.update(denoiser)

            total_loss += loss.detach()
            total_norm += norm
            step += 1
            window_steps += 1
            bar.update()
            if window_steps == WINDOW_STEPS or last:
                now = time.perf_counter()
                entry = {
                    "step": float(step),
                    "loss": total_loss.item() / window_steps,
                    "gradient_norm": total_norm.item() / window_steps,
                    "learning_rate": rate,
                    "rows_per_second": window_steps * batch_size / (now - window_start),
                    "seconds": now - start,
                }
                if not math.isfinite(entry["loss"]):
                    raise FloatingPointError(
                        f"the training loss became {entry['loss']} at step {step}; lower learning_rate "
                        f"(now {learning_rate:g}), or use precision='float32' if it was another"
                    )
                for key, value in entry.items():
                    history[key].append(value)
                bar.set_postfix(loss=f"{entry['loss']:.4f}", refresh=False)
                if callback is not None:
                    callback(entry)
                total_loss.zero_()
                total_norm.zero_()
                window_start, window_steps = now, 0
    return TrainingResult(ema.model.eval(), history, step)


def _schedule(step: int, progress: float, max_steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    warm_up = min(1.0, (step + 1) / max(1, min(WARM_UP_STEPS, max_steps // 10)))
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _drop(condition: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replace the whole condition of a random share of the rows by the null token."""
    drop = torch.rand(len(condition), 1, generator=generator, device=condition.device) < probability
    return condition.masked_fill(drop, float("nan"))
