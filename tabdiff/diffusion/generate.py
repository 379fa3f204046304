"""Drawing encoded rows from a trained denoiser: guidance, defaults of the samplers, batches, the last step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tabdiff.diffusion import CFGPlusPlus, ClassifierFreeGuidance, Denoiser, DenoiserLike, Schedule, sample
from tabdiff.diffusion.recorded import recorded
from tabdiff.utils.device import sampling_dtype
from tabdiff.utils.random import RowStreams
from tabdiff.utils.validation import is_integer

__all__ = [
    "CPU_PIECE_ROWS",
    "PIECE_ROWS",
    "Runner",
    "beside",
    "default_steps",
    "draw",
    "draw_in_time",
    "guide",
    "rows_at_once",
]

# What a thread of a CPU keeps in its caches, and what fills a GPU. More threads share a batch than gain by it.
SAMPLE_BATCH, MOST_THREADS = {"cpu": 1024}, 8
LARGE_SAMPLE_BATCH = 16384
# Drawn between two looks at the clock: whole batches on every device.
PIECE_ROWS, CPU_PIECE_ROWS = 16384, 4096
# Of images, as many as have so many values together, for a U-Net keeps dozens of maps of each.
IMAGE_VALUES = {"cpu": 2**17}
LARGE_IMAGE_VALUES = 2**21
# Calls a function with each of many tuples of arguments and returns the results in their order.
Runner = Callable[[Callable[..., Any], Iterable[tuple]], Iterable[Any]]
GUIDANCE: dict[str, Callable[[DenoiserLike, float], DenoiserLike]] = {
    "classifier_free": ClassifierFreeGuidance,
    "cfg++": CFGPlusPlus,
}


def guide(denoiser: DenoiserLike, scale: float, guidance: Any) -> DenoiserLike:
    """Wrap a denoiser in guidance of a scale, by name or by a callable ``guidance(denoiser, scale)``.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if callable(guidance):
        guided: DenoiserLike = guidance(denoiser, scale)
        return guided
    check_guidance(guidance)
    return GUIDANCE[guidance](denoiser, scale)


def check_guidance(guidance: Any) -> None:
    """Raise a ValueError if guidance is neither a name nor a callable."""
    if not callable(guidance) and not (isinstance(guidance, str) and guidance in GUIDANCE):
        raise ValueError(f"guidance must be one of {sorted(GUIDANCE)} or a callable; got {guidance!r}.")


def check_batches(steps: Any, batch_size: Any) -> None:
    """Raise a ValueError if `steps` or `batch_size` is neither "auto" nor an integer of at least 1."""
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not (isinstance(value, str) and value == "auto") and not is_integer(value, 1):
            raise ValueError(f"{name} must be 'auto' or an integer of at least 1; got {value!r}.")


def draw(
    denoiser: Denoiser,
    n: int,
    condition: Tensor | None,
    *,
    width: int,
    generator: torch.Generator | RowStreams,
    guided: DenoiserLike | None = None,
    condition_last: bool = True,
    method: Any = "auto",
    steps: str | int = "auto",
    grid: Any = "auto",
    batch_size: str | int = "auto",
    precision: str = "float32",
    given: Tensor | None = None,
    noise: Tensor | None = None,
    run: Runner | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw encoded rows.

    Parameters
    ----------
    denoiser : Denoiser
        Trained; one with levels draws them in the last step.
    n : int
        Number of rows.
    condition : Tensor of shape (n, k), optional
        Encoded condition.
    width : int
        Length of a noisy row.
    generator : torch.Generator or RowStreams
        On the CPU. With streams of the rows' own, what is drawn for a row depends on no other row. For a denoiser on a
        CUDA device it says which numbers are drawn there, and not those that it would give itself.
    guided : callable, optional
        What samples; by default the denoiser itself.
    condition_last : bool
        Whether categories are drawn under the condition at the end; not so where `guided` ignores it.
    method, steps, batch_size
        As in `DiffusionGenerator.sample`.
    grid : str or sequence of float
        As in `tabdiff.diffusion.sample`.
    precision : str
        As in `DiffusionGenerator`.
    given : Tensor of shape (n, d), optional
        Which entries are held, and how; see `tabdiff.diffusion.masks`.
    noise : Tensor of shape (n, width), optional
        What to start from; by default it is drawn.
    run : callable, optional
        From a function and tuples of arguments to what it returns for each, in order, from several processes; the rows
        are the same as without. A GPU draws alone.
    progress : callable, optional
        Called with the number of rows of each batch that is done.

    Returns
    -------
    Tensor of shape (n, d)
        Data as the codec encodes them, on the CPU.

    Raises
    ------
    torch.OutOfMemoryError
        If memory does not hold a single row. Where it does not hold a batch, the batch is halved.
    """
    device = next(denoiser.parameters()).device
    schedule = denoiser.schedule
    if isinstance(method, str) and method == "auto":
        method = "ddim" if isinstance(guided, CFGPlusPlus) else "dpmpp_2m"
    if steps == "auto":
        steps = default_steps(method, schedule)
    check_batches(steps, batch_size)
    size = rows_at_once(denoiser, width, batch_size)
    # The noise to start from is drawn at once on the CPU, and that of steps from streams of the rows' own, so that rows
    # do not depend on the batch size. A GPU draws all of it where it is needed, a batch at a time, from such streams.
    on_gpu = device.type == "cuda"
    shared = None if isinstance(generator, RowStreams) or on_gpu else generator
    float_type = torch.float64 if isinstance(generator, RowStreams) else torch.float32
    if isinstance(generator, RowStreams):
        streams = generator.spawn()
        noise = streams.normal(width) if noise is None and not on_gpu else noise
    elif on_gpu:
        streams = RowStreams.drawn(generator, n)
    else:
        noise = torch.randn((n, width), generator=generator) if noise is None else noise
        streams = RowStreams.beside(generator, n)
    float_type = float_type if noise is None else noise.dtype
    condition = None if condition is None else condition.to(float_type)
    if given is not None:
        given = given.to(float_type)
        condition = beside(denoiser, condition, given)
    piece = partial(
        _draw_piece,
        denoiser,
        recorded(denoiser if guided is None else guided, device),
        width=width,
        float_type=float_type,
        condition_last=condition_last,
        method=method,
        steps=max(int(steps) - 1, 1) if denoiser.has_levels else int(steps),
        grid=grid,
        dtype=sampling_dtype(precision, device),
    )

    def batch(first: int, count: int) -> Tensor:
        start, asked = _rows(noise, first, count), _rows(condition, first, count)
        return piece(start, asked, streams[first : first + count], shared)

    if run is not None and device.type == "cpu" and n > size:
        tasks = ((_rows(noise, i, size), _rows(condition, i, size), streams[i : i + size]) for i in range(0, n, size))
        rows = torch.cat(list(_in_processes(piece, tasks, shared, denoiser.n_drawn_levels, run, progress)))
    else:
        rows = _in_batches(batch, n, size, device, progress)
    return rows if given is None else torch.where(given.isfinite(), given, rows)


def _draw_piece(
    denoiser: Denoiser,
    guided: DenoiserLike,
    noise: Tensor | None,
    condition: Tensor | None,
    streams: RowStreams,
    generator: torch.Generator | None,
    *,
    width: int,
    float_type: torch.dtype,
    condition_last: bool,
    method: Any,
    steps: int,
    grid: Any,
    dtype: torch.dtype | None,
) -> Tensor:
    """Draw a batch, on the device of the denoiser.

    `streams` of its rows give the noise of steps, the noise to start from where there is none, and the levels where
    there is no generator.
    """
    device = next(denoiser.parameters()).device
    if device.type == "cuda":
        streams = streams.to(device)
    start = streams.normal(width).to(float_type) if noise is None else noise.to(device)
    asked = None if condition is None else condition.to(device)
    with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        rows = sample(
            guided,
            start,
            asked,
            method=method,
            steps=steps,
            grid=grid,
            generator=streams,
            denoise_last=not denoiser.has_levels,
        )
        return denoiser.finish(rows, asked if condition_last else None, streams if generator is None else generator)


def _in_batches(
    batch: Callable[[int, int], Tensor],
    n: int,
    size: int,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """Return n rows, on the CPU, `size` at a time, or as many as memory holds."""
    done: list[Tensor] = []
    parts: list[Tensor] = []  # stay on a GPU, which would wait at each copy of one
    first = 0
    while first < n:
        count = min(size, n - first)
        try:
            parts.append(batch(first, count))
        except torch.OutOfMemoryError:
            if count == 1:
                raise
            size = -(-count // 2)
        else:
            first += count
            if progress is not None:
                progress(count)
            continue
        # Behind the handling of the error, which keeps what the failed batch held alive.
        done, parts = [*done, *(part.cpu() for part in parts)], []
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return torch.cat([*done, torch.cat(parts).cpu()])


def default_steps(method: Any, schedule: Schedule) -> int:
    """Return the number of steps of a method by default."""
    # Twice the 25 at which fast methods look converged: on tables a classifier still sees the difference.
    most = 1000 if isinstance(method, str) and method == "ddpm" else 50
    return min(most, schedule.n_timesteps or 1000)


def draw_in_time(some: Callable[[int, int], Tensor], n: int, seconds: float, piece_rows: int = PIECE_ROWS) -> Tensor:
    """Draw `n` rows piece by piece, or as many pieces as there is time for, at least one.

    Parameters
    ----------
    some : callable
        From the position of the first row and a number of rows to these rows, (m, d).
    n : int
    seconds : float
        A piece that would end later is not begun.
    piece_rows : int
        Rows of a piece.
    """
    began = time.perf_counter()
    parts = [some(0, min(n, piece_rows))]
    for first in range(piece_rows, n, piece_rows):
        if (time.perf_counter() - began) * (first + piece_rows) / first > seconds:
            break
        parts.append(some(first, min(n - first, piece_rows)))
    return torch.cat(parts)


def rows_at_once(denoiser: Denoiser, width: int, batch_size: str | int) -> int:
    """Return the number of rows of a length that are evaluated at once."""
    if batch_size != "auto":
        return int(batch_size)
    kind = next(denoiser.parameters()).device.type
    size = SAMPLE_BATCH.get(kind, LARGE_SAMPLE_BATCH)
    if kind == "cpu":
        size *= min(torch.get_num_threads(), MOST_THREADS)
    if denoiser.keeps_maps:
        size = max(1, min(size, IMAGE_VALUES.get(kind, LARGE_IMAGE_VALUES) // width))
    return size


def beside(denoiser: Denoiser, condition: Tensor | None, given: Tensor) -> Tensor:
    """Put what is given of rows (n, d) behind their condition, as denoisers take it."""
    if condition is None:
        condition = given.new_full((len(given), denoiser.n_attributes), torch.nan)
    return torch.cat([condition, given], dim=1)


def _rows(values: Tensor | None, first: int, count: int) -> Tensor | None:
    return None if values is None else values[first : first + count]


def _in_processes(
    piece: Callable[..., Tensor],
    tasks: Iterable[tuple],
    generator: torch.Generator | None,
    n_drawn_levels: int,
    run: Runner,
    progress: Callable[[int], None] | None,
) -> Iterator[Tensor]:
    """Draw batches in processes, each with the random numbers that it would get after those ahead of it."""

    def placed() -> Iterator[tuple]:
        for task in tasks:
            yield piece, task, None if generator is None else generator.get_state()
            if generator is not None and n_drawn_levels:
                torch.rand((len(task[2]), n_drawn_levels), generator=generator)

    for part in run(_draw_apart, placed()):
        yield part
        if progress is not None:
            progress(len(part))


def _draw_apart(piece: Callable[..., Tensor], task: tuple, state: Tensor | None) -> Tensor:
    """Draw a batch in a process of its own, with a generator in a state."""
    generator = None
    if state is not None:
        generator = torch.Generator()
        generator.set_state(state)
    return piece(*task, generator)
