"""What users see of a long draw: how long it will take, and a bar with the rows that are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tabdiff.diffusion import DenoiserLike, Schedule
from tabdiff.utils.device import sampling_dtype
from tabdiff.utils.warnings import warn

__all__ = ["announce", "progress_bar", "seconds_of_drawing"]

# From how many seconds on a draw is announced.
LONG = 60.0


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None] | None]:
    """Show a bar of rows while they are drawn; yields what is called with the number of rows that were added."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm  # here, since in notebooks without widgets its import warns

    with tqdm(total=total, desc="sample", unit="row") as bar:
        yield bar.update


@torch.no_grad()
def seconds_of_drawing(
    guided: DenoiserLike,
    schedule: Schedule,
    condition: Tensor | None,
    *,
    width: int,
    rows: float,
    at_once: int,
    steps: int,
    precision: str,
    device: torch.device,
) -> float:
    """Estimate how long it takes to draw rows, by the time of one evaluation of a batch.

    Parameters
    ----------
    guided : callable
        What samples.
    schedule : Schedule
    condition : Tensor of shape (m, k), optional
        That of a batch, as the denoiser takes it.
    width : int
        Length of a noisy row.
    rows : float
        Number of rows, candidates that are not kept included.
    at_once : int
        Rows of a batch.
    steps : int
    precision : str
        As in `DiffusionGenerator`.
    device : torch.device
    """
    x = torch.zeros(at_once if condition is None else len(condition), width, device=device)
    t = torch.tensor(0.5 * (schedule.t_min + schedule.t_max), dtype=torch.float64)
    dtype = sampling_dtype(precision, device)
    with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        guided(x, t, condition)  # the first call also sets up what later ones find
        began = time.perf_counter()
        guided(x, t, condition)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / len(x) * rows * steps


def announce(seconds: float, rows: int, n_jobs: int = 1) -> None:
    """Warn of a draw that takes more than a minute, before it begins."""
    seconds /= n_jobs
    if seconds > LONG:
        warn(
            f"drawing {rows:,} rows will take about {seconds / 60:.0f} minutes. A larger n_jobs uses more cores, and "
            "verbose=1 shows how far it is."
        )
