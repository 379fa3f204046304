r"""Distilling the sampler: a second network that goes in four steps where the first takes fifteen.

A deterministic sampler maps noise to rows along a path. Of many walks of the trained network, its guidance included,
the rows at a few of the times, :math:`x_{t_0}, x_{t_1}, \dots`, are kept, and a copy of the network learns to get from
each to the next in one step of DDIM,

.. math:: x_{t_{i+1}} = \frac{\sigma_{i+1}}{\sigma_i} x_{t_i}
          + \Big(\alpha_{i+1} - \alpha_i \frac{\sigma_{i+1}}{\sigma_i}\Big) \hat x(x_{t_i}, t_i),

that is, to return what :math:`\hat x` has to be for the step to end there. It is the knowledge distillation of Luhman
and Luhman (2021, https://arxiv.org/abs/2101.02388) by pieces of the path, as in progressive distillation (Salimans and
Ho, 2022, https://arxiv.org/abs/2202.00512) with a single round. The last step, in which levels are drawn, stays with
the first network.

What the copy gets wrong, the refinement sees, which learns from rows that the copy drew.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.diffusion import Denoiser, DenoiserLike, sample
from tabdiff.diffusion.generate import rows_at_once
from tabdiff.diffusion.samplers.grids import Node, make_path
from tabdiff.diffusion.samplers.sample import SampleState, auto_grid, make_sampler
from tabdiff.utils.device import autocast_dtype, sampling_dtype

__all__ = ["EVALUATIONS", "Distilled", "Walks", "distil", "distillation_steps"]

# The sampler whose walks are learned, its evaluations, and the steps that are learned. On a table of many numbers three
# lose .06 of XGB-C2ST where four lose nothing (see docs/benchmarks).
METHOD, EVALUATIONS, STEPS = "dpmpp_2m", 16, 4
# Steps of training and walks, as shares of the training steps and of the evaluations that these were worth.
STEP_SHARE, WALK_SHARE = 0.12, 0.05
MIN_STEPS, MAX_STEPS = 100, 1500
MIN_WALKS, MAX_WALKS = 2000, 16_000
BATCH_ROWS, LEARNING_RATE = 512, 3e-3


@dataclass(frozen=True)
class Distilled:
    """A network that draws in a few steps.

    Attributes
    ----------
    denoiser : Denoiser
        Returns, at each of the times, what a step of DDIM to the next is to be made with.
    times : tuple of float
        From noise to data.
    """

    denoiser: Denoiser
    times: tuple[float, ...]

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `tabdiff.diffusion.generate.draw` that draw with it."""
        return {"guided": self.denoiser, "method": "ddim", "steps": len(self.times), "grid": list(self.times)}

    def to(self, device: Any) -> Distilled:
        """Move the network to a device."""
        self.denoiser.to(device)
        return self


def distillation_steps(n_steps: int) -> int:
    """Return for how many steps the copy is trained after so many of the first network, 0 for none."""
    steps = min(int(STEP_SHARE * n_steps), MAX_STEPS)
    return steps if steps >= MIN_STEPS else 0


def distil(
    denoiser: Denoiser,
    guided: DenoiserLike,
    condition: Tensor | None,
    *,
    width: int,
    n_steps: int,
    trained: int,
    precision: str,
    seed: int,
    seconds: float = math.inf,
) -> Distilled | None:
    """Train a copy of a denoiser to draw in four steps.

    Parameters
    ----------
    denoiser : Denoiser
        Trained. It stays as it is.
    guided : callable
        What samples: the denoiser, or guidance of it.
    condition : Tensor of shape (n, k), optional
        Encoded conditions of training rows, at which rows are walked.
    width : int
        Length of a noisy row.
    n_steps : int
        Steps of the copy's training; see `distillation_steps`.
    trained : int
        Rows that all training steps of the denoiser saw together, by which the number of walks goes.
    precision : str
        As in `DiffusionGenerator`.
    seed : int
        Of the noise, and of the batches.
    seconds : float
        It ends after so many.

    Returns
    -------
    Distilled or None
        None where there was no time for enough steps.
    """
    began = time.perf_counter()
    device = next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    # A row of a training step costs as much as three evaluations.
    n_walks = int(np.clip(WALK_SHARE * 3 * trained / EVALUATIONS, MIN_WALKS, MAX_WALKS))
    chosen = None
    if condition is not None:
        chosen = condition[torch.randint(len(condition), (n_walks,), generator=generator)]
    noise = torch.randn((n_walks, width), generator=generator)
    walks = _walk(denoiser, guided, noise, chosen, precision)
    left = seconds - (time.perf_counter() - began)
    if left <= 0:
        return None
    student = copy.deepcopy(denoiser).eval().requires_grad_(True)
    # Levels stand by the same embeddings, and noisy rows by the same numbers, for both networks.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(not name.startswith("levels"))
    done = _train(student, walks, n_steps, torch.Generator(device).manual_seed(seed), precision, left)
    if done < MIN_STEPS:
        return None
    times = tuple(node.t for node in walks.nodes if node.sigma > 0)
    return Distilled(student.requires_grad_(False), times)


class Walks:
    """Where rows are at a few stops of a path, and what a network is to return for a single step between them.

    Parameters
    ----------
    nodes : list of Node
        The stops.
    rows : Tensor of shape (n_stops, n, width)
        Noisy rows at each.
    condition : Tensor of shape (n, k), optional
        What they were walked under.
    """

    def __init__(self, nodes: list[Node], rows: Tensor, condition: Tensor | None) -> None:
        self.nodes, self.rows, self.condition = nodes, rows, condition
        kept = [then.sigma / now.sigma for now, then in pairwise(nodes)]
        added = [then.alpha - now.alpha * then.sigma / now.sigma for now, then in pairwise(nodes)]
        self.times, self.kept, self.added = (
            torch.tensor(values, dtype=torch.float32, device=rows.device)
            for values in ([node.t for node in nodes[:-1]], kept, added)
        )

    def loss(self, student: Denoiser, generator: torch.Generator, n: int = BATCH_ROWS) -> Tensor:
        """Return the mean squared error of a network on n steps that are drawn."""
        device = self.rows.device
        row = torch.randint(self.rows.shape[1], (n,), generator=generator, device=device)
        stop = torch.randint(len(self.times), (n,), generator=generator, device=device)
        x = self.rows[stop, row]
        wanted = (self.rows[stop + 1, row] - self.kept[stop, None] * x) / self.added[stop, None]
        estimate = student(x, self.times[stop], None if self.condition is None else self.condition[row])
        return (estimate.float() - wanted).square().mean()


def _walk(denoiser: Denoiser, guided: DenoiserLike, noise: Tensor, condition: Tensor | None, precision: str) -> Walks:
    """Walk rows with the sampler, and keep where they are at a few stops, on the denoiser's device."""
    schedule, device = denoiser.schedule, next(denoiser.parameters()).device
    steps, last = EVALUATIONS - 1 if denoiser.has_levels else EVALUATIONS, not denoiser.has_levels
    path = make_path(schedule, steps, auto_grid(schedule, make_sampler(METHOD)), denoise_last=last)
    stops = np.linspace(0, len(path) - 1, STEPS + 1).round().astype(int).tolist()
    size = rows_at_once(denoiser, noise.shape[1], "auto")
    dtype = sampling_dtype(precision, device)
    condition = None if condition is None else condition.to(device, torch.float32)
    parts = []
    for first in range(0, len(noise), size):
        start = noise[first : first + size].to(device)
        asked = None if condition is None else condition[first : first + size]
        found = [path[0].sigma * start]

        def keep(state: SampleState, found: list[Tensor] = found) -> None:
            if state.step in stops:
                found.append(state.x.float())

        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            sample(guided, start, asked, method=METHOD, steps=steps, callback=keep, denoise_last=last)
        parts.append(torch.stack(found))
    return Walks([path[i] for i in stops], torch.cat(parts, dim=1), condition)


def _train(
    student: Denoiser, walks: Walks, n_steps: int, generator: torch.Generator, precision: str, seconds: float
) -> int:
    """Have a network learn the steps between the stops; return how many steps of training that were."""
    device = walks.rows.device
    dtype = autocast_dtype(precision, device)
    learned = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    began = time.perf_counter()
    for step in range(n_steps):
        progress = max(step / n_steps, (time.perf_counter() - began) / seconds)
        if progress >= 1:
            return step
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * progress)) / 2
        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = walks.loss(student, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return n_steps
