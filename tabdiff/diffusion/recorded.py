"""A denoiser whose evaluations a GPU launches as one CUDA graph each."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tabdiff.diffusion.denoiser import DenoiserLike, PairedDenoiser, learned_variance
from tabdiff.diffusion.guidance import ClassifierGuidance
from tabdiff.utils.graphs import capture, is_ours, on_side_stream, reason_of
from tabdiff.utils.warnings import warn

__all__ = ["RecordedDenoiser", "recorded"]

# Evaluations that run as they are before one is recorded.
WARM_UP = 2
# Numbers of rows are rounded up to a power of two, and from here on to a multiple of this, so that few are recorded.
ROUNDED = 1024
MAX_SHAPES = 8


class RecordedDenoiser:
    """Wraps a denoiser, guided or not, and is one; see `tabdiff.utils.graphs`.

    What it is asked is written to where the recorded evaluation reads it. Each number of rows, rounded up, is recorded
    by itself. What cannot be recorded is evaluated as it is, with one warning.

    Parameters
    ----------
    denoiser : nn.Module
        On a CUDA device, with weights that stay where they are. It is not kept alive.
    record : callable
        ``record(function, device)`` returns what launches what was recorded.

    Attributes
    ----------
    schedule : Schedule
        That of the denoiser.
    """

    def __init__(self, denoiser: Any, *, record: Callable[..., Callable[[], None]] = capture) -> None:
        self.schedule = denoiser.schedule
        self._denoiser = weakref.ref(denoiser)
        self._record = record
        self._places: dict[Any, _Place] = {}
        self._fails = False
        if isinstance(denoiser, PairedDenoiser):
            self.x0_and_eps = self._x0_and_eps

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean rows; see `Denoiser.forward` for the arguments."""
        (x0,) = self._ask("forward", x_t, t, condition)
        return x0

    def _x0_and_eps(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, ...]:
        return self._ask("x0_and_eps", x_t, t, condition)

    def _ask(self, method: str, x_t: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, ...]:
        function = getattr(self._denoiser(), method)
        if self._fails or t.dim():
            return _as_tuple(function(x_t, t, condition))
        n, kind = len(x_t), x_t.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        rows = 1 << (n - 1).bit_length() if n < ROUNDED else -(-n // ROUNDED) * ROUNDED
        width = None if condition is None else (condition.shape[1], condition.dtype)
        key = (method, rows, x_t.shape[1:], x_t.dtype, width, dtype)
        if key not in self._places:
            while len(self._places) >= MAX_SHAPES:
                del self._places[next(iter(self._places))]
            self._places[key] = _Place(rows, x_t, condition)
        place = self._places[key]
        place.write(x_t, t, condition)
        try:
            place.evaluate(function, dtype, self._record)
        except torch.OutOfMemoryError:
            self._places.clear()
            raise
        except Exception as error:  # whatever cannot be recorded can be evaluated
            self._fails = True
            self._places.clear()
            warn(
                "evaluations are not recorded as CUDA graphs but run one operation after another, because "
                f"{reason_of(error)}. Sampling takes longer, and nothing else changes."
            )
            return _as_tuple(function(x_t, t, condition))
        # What is returned may be kept while the place is written to again.
        return tuple(part[:n].clone() for part in place.out)


class _Place:
    """The tensors that an evaluation of so many rows reads and writes."""

    def __init__(self, rows: int, x_t: Tensor, condition: Tensor | None) -> None:
        self.x_t = x_t.new_zeros((rows, *x_t.shape[1:]))
        self.condition = None if condition is None else condition.new_zeros((rows, condition.shape[1]))
        self.t = torch.zeros((), dtype=torch.float64, device=x_t.device)
        self.out: tuple[Tensor, ...] = ()
        self.n_run = 0
        self.launch: Callable[[], None] | None = None

    def write(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> None:
        self.x_t[: len(x_t)].copy_(x_t)
        if t.device.type == "cpu":
            self.t.fill_(t.item())
        else:
            self.t.copy_(t)
        if self.condition is not None and condition is not None:
            self.condition[: len(condition)].copy_(condition)

    def evaluate(self, function: Callable[..., Any], dtype: torch.dtype | None, record: Callable[..., Any]) -> None:
        device = self.x_t.device

        def run() -> None:
            # Weights that were cast outside of a recording are gone when it is launched.
            enabled = dtype is not None
            with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=enabled, cache_enabled=False):
                self.out = _as_tuple(function(self.x_t, self.t, self.condition))

        if self.launch is None and self.n_run >= WARM_UP:
            self.launch = record(run, device)
        if self.launch is not None:
            self.launch()
        elif device.type == "cuda":
            on_side_stream(run, device)
        else:
            run()
        self.n_run += 1


def _as_tuple(out: Any) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out,)


# By denoiser, with where its weights lay: moved or copied ones would not be read by what was recorded.
_RECORDED: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], RecordedDenoiser]] = weakref.WeakKeyDictionary()


def recorded(denoiser: DenoiserLike, device: torch.device) -> DenoiserLike:
    """Return a denoiser that records itself, where that can be: on a CUDA device, and made of parts of this package.

    What is recorded is kept for the next call with the same denoiser. A variance that is learned is asked for beside
    the estimate, so that such a denoiser is returned as it is.
    """
    if device.type != "cuda" or not isinstance(denoiser, nn.Module) or learned_variance(denoiser) is not None:
        return denoiser
    # What Python does happens once, at the recording: not for us to assume that others' code does nothing there.
    if not all(is_ours(module) and not isinstance(module, ClassifierGuidance) for module in denoiser.modules()):
        return denoiser
    weights = tuple(weight.data_ptr() for weight in denoiser.parameters())
    known = _RECORDED.get(denoiser)
    if known is None or known[0] != weights:
        known = _RECORDED[denoiser] = (weights, RecordedDenoiser(denoiser))
    return known[1]
