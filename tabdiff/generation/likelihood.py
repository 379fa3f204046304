"""How likely rows, images and sequences are under a fitted model, and how many bits an entry takes."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.columns import NumericColumn
from tabdiff.codecs.conditions.conditions import resolve_condition
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.codecs.tables.unseen import least_likely, log_jacobian, read_rows
from tabdiff.diffusion import Denoiser, bits_per_dim, dequantise, flow_log_likelihood
from tabdiff.diffusion.bound import row_bound
from tabdiff.model.fitted import FittedModel

__all__ = ["SCORE_METHODS", "bits_of_rows", "condition_codes", "log_likelihood"]

SCORE_METHODS = ("bound", "continuous", "flow")
SCORE_BATCH = 2048
# Where the way to an image ends: with a noise of about the width of a byte's bin.
LOG_SNR_MAX = 2 * math.log(128.0)
SCORED_VALUES = 2**17
FLOW_STEPS = 50
# Directions per node: those of an image have many entries, over which the noise averages.
IMAGE_DRAWS = 2


def condition_codes(model: FittedModel, n: int, own: pd.DataFrame | None, condition: Any) -> Tensor | None:
    """Return the condition of n rows as codes (n, k): what was given, or else their own; None for no condition."""
    if condition is not None:
        return resolve_condition(model.conditions, n, condition, 1.0, np.random.default_rng(0))
    if own is not None and model.conditions is not None:
        return torch.from_numpy(model.conditions.encode(own))
    return None


def log_likelihood(
    model: FittedModel, features: Any, codes: Tensor | None, *, method: str = "bound"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-likelihood (n,) of rows or a bound on it, in nats, and its standard error (n,).

    Of bytes of images it is the probability of the values, dequantised by uniform noise that is the same for every
    image (Theis et al., 2016, https://arxiv.org/abs/1511.01844); of floats the density, of images blurred by noise of
    about 1/128 of the range from white to grey. Times and noises are fixed, so a row's score depends on no other.

    Raises
    ------
    ValueError
        For an unknown method, and "flow" for anything but numbers without missing values.
    """
    if method not in SCORE_METHODS:
        raise ValueError(f"method must be 'bound', 'continuous' or 'flow'; got {method!r}.")
    time = "continuous" if method == "continuous" else "schedule"
    codec, denoiser = model.codec, model.denoiser
    if model.container == "images":
        if method == "flow":
            raise ValueError("method='flow' is for rows of numbers, not for images; use method='bound'.")
        rows = codec.encode(features)
        within = torch.rand((1, math.prod(codec.size_)), generator=torch.Generator().manual_seed(0))
        parts = []
        for i, values in _image_batches(codec, rows, within):
            condition = None if codes is None else codes[i : i + len(values)]
            parts.append(_image_bound(denoiser, values, condition, time=time, seed=0, shared=True))
        return _joined(parts, codec.log_jacobian(features, rows))
    if method == "flow" and denoiser.has_levels:
        raise ValueError("method='flow' needs numbers without missing values; use method='bound'.")
    exact = copy.deepcopy(denoiser).cpu().double()

    def score(data: Tensor, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theirs = None if codes is None else codes[torch.from_numpy(where)]
        parts = []
        for i in range(0, len(data), SCORE_BATCH):
            batch = data[i : i + SCORE_BATCH].double()
            condition = None if theirs is None else theirs[i : i + SCORE_BATCH].double()
            if method == "flow":
                # A chain has no more stops than times.
                steps = min(FLOW_STEPS, (exact.schedule.n_timesteps or FLOW_STEPS + 1) - 1)
                value = flow_log_likelihood(exact, batch, condition, steps=steps).detach()
                parts.append((value, torch.zeros_like(value)))
            else:
                parts.append(row_bound(exact, batch, condition, time=time, return_std=True))
        return _joined(parts, np.zeros(len(data)))

    if not codec.columns_known_:
        data = codec.encode(features, codes, None)
        scores, std = score(data, np.arange(len(data)))
        return scores + codec.log_jacobian(features, data), std
    rows = read_rows(codec, pd.DataFrame(features), model.n_samples, codes)
    # Of a row with cells that were never seen, the error is that of its first reading.
    errors: list[np.ndarray] = []

    def bound(data: Tensor, where: np.ndarray) -> np.ndarray:
        scores, std = score(data, where)
        errors.append(std)
        return scores

    scores = least_likely(codec, rows, bound) + log_jacobian(codec, rows)
    return scores, errors[0]


def bits_of_rows(
    model: FittedModel, features: Any, codes: Tensor | None, *, method: str = "bound", seed: int = 0
) -> np.ndarray:
    """Return the bits per entry (n,) that rows of quantised values take, an upper bound but for random errors.

    Values are spread over their bins by uniform noise, and each row has its own, as it has directions of the diffusion
    noise of its own: errors of the rows are independent, and that of their mean falls with their number.

    Raises
    ------
    ValueError
        For an unknown method, and for values that are not quantised, whose density stands for no number of bits.
    """
    if method not in ("bound", "continuous"):
        raise ValueError(f"method must be 'bound' or 'continuous'; got {method!r}.")
    time = "continuous" if method == "continuous" else "schedule"
    generator = torch.Generator().manual_seed(seed)
    codec, denoiser = model.codec, model.denoiser
    if model.container == "images":
        if codec.range_ != "byte":
            raise ValueError(
                f"bits per dimension must be of images of bytes (uint8); got a model of {codec.dtype_}, whose values "
                "are not quantised. Fit on bytes, (255 * X).astype(numpy.uint8), or use score_samples."
            )
        rows = codec.encode(features)
        parts = []
        for i, values in _image_batches(codec, rows, generator):
            condition = None if codes is None else codes[i : i + len(values)]
            parts.append(_image_bound(denoiser, values, condition, time=time, seed=generator, shared=False))
        total = _joined(parts, np.zeros(len(rows)))[0]
        return bits_per_dim(torch.from_numpy(total), math.prod(codec.size_), bin_width=1 / 128).numpy()
    exact = copy.deepcopy(denoiser).cpu().double()

    def bound(data: Tensor, where: np.ndarray) -> np.ndarray:
        theirs = None if codes is None else codes[torch.from_numpy(where)]
        parts = []
        for i in range(0, len(data), SCORE_BATCH):
            batch = data[i : i + SCORE_BATCH].double()
            condition = None if theirs is None else theirs[i : i + SCORE_BATCH].double()
            parts.append(row_bound(exact, batch, condition, time=time, seed=generator, shared=False, return_std=True))
        return _joined(parts, np.zeros(len(data)))[0]

    if features.ndim == 1:  # sequences: letters have probabilities
        data = codec.encode(features, codes, generator)
        return bits_per_dim(torch.from_numpy(bound(data, np.arange(len(data)))), codec.length_).numpy()
    rows = read_rows(codec, pd.DataFrame(features), model.n_samples, codes, generator)
    total = least_likely(codec, rows, bound) + log_jacobian(codec, rows)
    return bits_per_dim(torch.from_numpy(total + _log_units(codec, features)), features.shape[1]).numpy()


def _log_units(codec: Any, features: Any) -> np.ndarray:
    """Return the sum (n,) of the logarithms of the steps between values that count by a density."""
    numbers = [(j, column) for j, column in enumerate(codec.columns_) if isinstance(column, NumericColumn)]
    units = {j: column.unit_ for j, column in numbers if column.unit_ is not None}
    continuous = [column.name for j, column in numbers if j not in units]
    if continuous:
        raise ValueError(
            f"bits per dimension must be of values that are multiples of a unit; got continuous columns {continuous}. "
            "Fit on rounded values, X.round(2), or use score_samples."
        )
    frame = codec.constraints_.reduce(codec.storage_.read(pd.DataFrame(features)))
    total = np.zeros(len(frame))
    for j, column in numbers:
        values = column.read(frame.iloc[:, j])
        multiple, decimals = units[j]
        dense = ~np.isnan(values) & ~column.has_probability(values)
        total += np.where(dense, math.log(multiple) - decimals * math.log(10.0), 0.0)
    return total


def _image_batches(codec: ImageCodec, rows: Any, within: Tensor | torch.Generator) -> Any:
    """Yield where each batch of images starts, and its values as the network sees them, bytes within their bins.

    `within` says where: a place (1, d) that is the same in all images, or what draws one for each.
    """
    size = max(1, SCORED_VALUES // math.prod(codec.size_))
    for i in range(0, len(rows), size):
        places = torch.arange(i, min(i + size, len(rows)))
        part = rows[places]
        if part.dtype != torch.uint8:
            yield i, codec.prepare(part)
        elif isinstance(within, Tensor):
            yield i, part.float().add(within).div(128).sub(1)
        else:
            yield i, dequantise(part.float(), generator=within).div(128).sub(1)


def _image_bound(
    denoiser: Denoiser, values: Tensor, condition: Tensor | None, *, time: str, seed: Any, shared: bool
) -> tuple[Tensor, Tensor]:
    device = next(denoiser.parameters(), values).device
    bound, std = row_bound(
        denoiser,
        values.to(device),
        None if condition is None else condition.to(device),
        n_draws=IMAGE_DRAWS,
        time=time,
        seed=seed,
        log_snr_max=LOG_SNR_MAX,
        shared=shared,
        return_std=True,
    )
    return bound.cpu(), std.cpu()


def _joined(parts: list[tuple[Tensor, Tensor]], jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bounds, stds = zip(*parts, strict=True)
    return torch.cat(bounds).numpy() + jacobian, torch.cat(stds).numpy()
