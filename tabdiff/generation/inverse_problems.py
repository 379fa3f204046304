"""Images of which something is known: pixels, a smaller version, or any linear measurements.

One model does all of it, fitted on images alone: what is known steers the drawing (RePaint for pixels, posterior
guidance for measurements; see `tabdiff.diffusion.posterior`). Several draws show what the known part leaves open. Where
no condition is given the unconditional model draws, which learned from the images whose labels were hidden.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.codecs.conditions.conditions import resolve_condition
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.diffusion import Denoiser, DenoiserLike, PosteriorGuidance, RePaint, sample, sample_known
from tabdiff.diffusion.generate import guide, rows_at_once
from tabdiff.diffusion.operators import DOWNSAMPLING, operator_matrix
from tabdiff.generation.options import SamplingOptions
from tabdiff.io.images import Images, read_images
from tabdiff.utils.array_likes import read_array
from tabdiff.utils.memory import tensor_of
from tabdiff.utils.random import RowStreams
from tabdiff.utils.validation import check_n_draws

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["impute_images", "inpaint", "restore", "super_resolve"]

# Of posterior guidance, in units of the network's range from -1 to 1: of measurements taken as exact, and of pixels. Of
# 0.25, 0.5, 1, 2 and 4 for the latter, 1 enlarged unseen digits with the smallest error and the most that a classifier
# still reads.
EXACT_STD, DATA_STD = 0.01, 1.0
PROJECTIONS = 50
STEPS_KNOWN, STEPS_MEASURED = 50, 50
# Directions of an image that an operator keeps less of than this are not projected onto: what measurements say of them
# is their rounding, magnified.
LEAST_KEPT = 1e-3


def inpaint(
    model: FittedModel,
    images: Any,
    mask: Any,
    *,
    condition: Any = None,
    n_draws: int = 1,
    method: Any = "auto",
    steps: str | int = "auto",
    batch_size: str | int = "auto",
    guidance_scale: float = 1.0,
    seed: int = 0,
) -> Any:
    """Draw the pixels of a mask given all others; see `DiffusionGenerator.impute`, which calls it.

    Raises
    ------
    TypeError
        If the model is not one of images.
    ValueError
        For a mask that is not boolean, or of another shape than the images.
    """
    codec = _codec(model)
    read = _read(images)
    rows = codec.read(read)
    missing = _as_mask(mask, read, codec)
    known = torch.from_numpy(~missing.reshape(len(rows), -1))
    codes = _codes(model, len(rows), condition, guidance_scale, seed)
    denoiser = guide(model.denoiser, guidance_scale, "classifier_free") if codes is not None else model.denoiser
    generator = torch.Generator().manual_seed(seed)
    device = next(model.denoiser.parameters()).device
    size = rows_at_once(model.denoiser, rows.shape[1], batch_size)
    repaint = method if isinstance(method, RePaint) else RePaint("ddpm" if method == "auto" else method)
    if steps == "auto":
        steps = min(STEPS_KNOWN, denoiser.schedule.n_timesteps or STEPS_KNOWN)
    draws = []
    for _ in range(n_draws):
        noise = torch.randn(rows.shape, generator=generator)
        streams = RowStreams.beside(generator, len(rows))
        parts = [
            sample_known(
                denoiser,
                noise[i : i + size].to(device),
                rows[i : i + size].to(device),
                known[i : i + size].to(device),
                None if codes is None else codes[i : i + size].to(device),
                method=repaint.method,
                steps=int(steps),
                n_resamples=repaint.n_resamples,
                jump_length=repaint.jump_length,
                generator=streams[i : i + size],
            ).cpu()
            for i in range(0, len(rows), size)
        ]
        # What is known comes back as it was given, not as it went through the network's scale.
        draws.append(codec.put_in(read, codec.decode(torch.cat(parts)), missing))
    return draws[0] if n_draws == 1 else draws


def impute_images(
    model: FittedModel,
    images: Any,
    mask: Any,
    condition: Any,
    n_draws: int,
    strategy: str,
    options: SamplingOptions,
    seed: int,
) -> Any:
    """Check what `DiffusionGenerator.impute` was given for images, and inpaint."""
    if mask is None:
        raise ValueError("impute needs mask= for images: a boolean array, True where a pixel is missing.")
    if strategy not in ("auto", "draw"):
        raise ValueError(f"strategy must be 'auto' or 'draw' for images, got {strategy!r}. Average over n_draws.")
    check_n_draws(n_draws)
    settings: dict[str, Any] = {"method": options.method, "steps": options.steps, "batch_size": options.batch_size}
    return inpaint(model, images, mask, condition=condition, n_draws=n_draws, **settings, seed=seed)


def restore(
    model: FittedModel,
    measurements: Any,
    operator: Any,
    *,
    noise_std: float = 0.0,
    condition: Any = None,
    guidance_scale: float = 1.0,
    steps: int = STEPS_MEASURED,
    seed: int = 0,
) -> Any:
    """Draw images given linear measurements of them; see `DiffusionGenerator.restore`.

    Parameters
    ----------
    model : FittedModel
        Of images.
    measurements : array-like of shape (n, m)
        ``y = operator @ image`` in the units of the images, and the noise's. With a callable any shape (n, *).
    operator : array-like of shape (m, c * h * w), or callable
        Acts on images whose values lie channel by channel, and in a channel row by row. A callable maps tensors of
        images (n, c, h, w) to measurements (n, *), linearly: ``lambda x: gaussian_blur(x, 1.5)``, say; see
        `tabdiff.diffusion.operators`.
    noise_std : float, default=0.0
        Standard deviation of the measurements' noise, in the units of the images. With 0, measurements of the drawn
        images are `measurements` but for what clipping to the range of the images, and rounding to bytes, takes away.
    condition, guidance_scale
        As in `DiffusionGenerator.sample`; by default none.
    steps : int, default=50
        Evaluations of the network, each with its gradient.
    seed : int, default=0
        The same number gives the same images.

    Returns
    -------
    array or list of PIL images
        n images in the container of the fit.

    Raises
    ------
    ValueError
        For shapes that do not fit the images, or a callable that is not linear.

    References
    ----------
    Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", 2023; with exact measurements, the result
    is projected onto images that agree with them.
    """
    codec = _codec(model)
    y = tensor_of(read_array(measurements, "measurements", np.float32))
    d = int(np.prod(codec.size_))
    if callable(operator):
        A = operator_matrix(operator, codec.size_)
        y = y.reshape(len(y), -1)
    else:
        A = tensor_of(read_array(operator, "operator", np.float32))
    if A.ndim != 2 or A.shape[1] != d:
        raise ValueError(f"operator must have shape (m, {d}) for images of {codec.size_}; got {tuple(A.shape)}.")
    if y.ndim != 2 or y.shape[1] != len(A):
        raise ValueError(f"measurements must have shape (n, {len(A)}), as operator has; got {tuple(y.shape)}.")
    slope, start = codec.scale_
    y = slope * y + start * A.sum(dim=1)
    codes = _codes(model, len(y), condition, guidance_scale, seed)
    generator = torch.Generator().manual_seed(seed)
    device = next(model.denoiser.parameters()).device
    size = max(1, rows_at_once(model.denoiser, d, "auto") // 2)
    noise = torch.randn((len(y), d), generator=generator)
    std = max(slope * noise_std, EXACT_STD)
    parts = []
    for i in range(0, len(y), size):
        free: DenoiserLike = _unclipped(model.denoiser)
        if codes is not None:
            free = guide(free, guidance_scale, "classifier_free")
        here = y[i : i + size].to(device)
        guided = PosteriorGuidance(free, A.to(device), here, std, data_std=DATA_STD)
        part = sample(
            guided,
            noise[i : i + size].to(device),
            None if codes is None else codes[i : i + size].to(device),
            method="ddim",
            steps=steps,
            generator=generator,
        )
        parts.append(part.cpu())
    rows = torch.cat(parts)
    if noise_std == 0:
        rows = _project(rows, A, y)
    return codec.decode(rows)


def super_resolve(
    model: FittedModel,
    images: Any,
    *,
    operator: str = "average",
    condition: Any = None,
    guidance_scale: float = 1.0,
    steps: int = STEPS_MEASURED,
    seed: int = 0,
) -> Any:
    """Draw images that are the given ones when shrunk; see `DiffusionGenerator.super_resolve`.

    Parameters
    ----------
    model : FittedModel
        Of images.
    images : images
        As the model's in channels, dtype and range; their sides are those of the model's images over one whole number.
    operator : {"average", "bicubic", "gaussian", "strided"}, default="average"
        How the given images were made of large ones: by the mean of blocks of pixels, by bicubic interpolation with
        antialiasing, by a Gaussian blur of which every other pixel (every third, ...) was kept, or by keeping those
        alone. For any other one see `restore`.
    condition, guidance_scale, steps, seed
        As in `restore`.

    Returns
    -------
    array or list of PIL images
        In the container of the fit.

    Raises
    ------
    ValueError
        If the sides do not fit, or the operator is unknown.
    """
    codec = _codec(model)
    if operator not in DOWNSAMPLING:
        raise ValueError(
            f"operator must be one of {sorted(DOWNSAMPLING)}; got {operator!r}. "
            "DiffusionGenerator.restore takes any other as a function."
        )
    read = _read(images)
    (channels, height, width), (c, h, w) = codec.size_, read.size
    factor = height // h
    if c != channels or h * factor != height or w * factor != width:
        raise ValueError(
            f"images of {h} × {w} pixels and {c} channels are no whole share of the model's {height} × {width} pixels "
            f"and {channels} channels."
        )
    if (read.dtype == np.uint8) != (codec.range_ == "byte"):
        raise ValueError(f"images must be {codec.dtype_}, as at fit; got {read.dtype}.")
    matrix = operator_matrix(lambda x: DOWNSAMPLING[operator](x, factor), codec.size_)
    measurements = read.array().reshape(len(read), -1).astype(np.float32)
    settings: dict[str, Any] = dict(condition=condition, guidance_scale=guidance_scale, steps=steps, seed=seed)
    return restore(model, measurements, matrix.numpy(), **settings)


def _codec(model: FittedModel) -> ImageCodec:
    if model.container != "images":
        raise TypeError("this is for models of images; this one was fitted on something else.")
    if model.codec.random_:
        raise TypeError(
            "what is known of an image is known of its pixels, and this is a model of latents; fit without "
            "codec=LatentImageCodec()."
        )
    codec: ImageCodec = model.codec
    return codec


def _read(images: Any) -> Images:
    read = read_images(images, "images")
    if read is None:
        raise TypeError(f"images must be an array or list of images, or a folder; got {type(images).__name__}.")
    if len(read) == 0:
        raise ValueError("images must hold at least one image; got none. Select images that are there.")
    return read


def _as_mask(mask: Any, images: Images, codec: ImageCodec) -> np.ndarray:
    """Return which values are missing, shape (n, c, h, w)."""
    mask = read_array(mask, "mask", taken="an array of True and False")
    n, (c, h, w) = len(images), images.size
    if mask.dtype != bool:
        raise ValueError(f"mask must be boolean, True where a pixel is missing; got {mask.dtype}.")
    if mask.shape == (h, w):
        full = np.broadcast_to(mask, (n, c, h, w))
    elif mask.shape == (n, h, w):
        full = np.broadcast_to(mask[:, None], (n, c, h, w))
    elif mask.shape == (n, h, w, c) and images.layout != "chw":
        full = np.moveaxis(mask, 3, 1)
    elif mask.shape == (n, c, h, w) and images.layout == "chw":
        full = mask
    else:
        raise ValueError(f"mask must have shape ({h}, {w}), ({n}, {h}, {w}) or that of the images; got {mask.shape}.")
    if images.size != codec.size_:
        codec.encode(images)  # raises the error that says so
    return np.ascontiguousarray(full)


def _codes(model: FittedModel, n: int, condition: Any, guidance_scale: float, seed: int) -> Tensor | None:
    if condition is None:
        return None
    return resolve_condition(model.conditions, n, condition, guidance_scale, np.random.default_rng(seed))


def _unclipped(denoiser: Denoiser) -> Denoiser:
    """Return the same denoiser without bounds, past which its gradient is zero."""
    free = copy.copy(denoiser)
    free._buffers = {**denoiser._buffers, "bounds": None}
    return free


def _project(rows: Tensor, operator: Tensor, measurements: Tensor) -> Tensor:
    """Move rows to the nearest that agree with measurements and lie in [-1, 1], as far as both can be, by turns."""
    inverse = torch.linalg.pinv(operator.double(), rtol=LEAST_KEPT).float()
    for _ in range(PROJECTIONS):
        rows = (rows + (measurements - rows @ operator.T) @ inverse.T).clamp(-1, 1)
    return rows
