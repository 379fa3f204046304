"""Linear operators on images: what super-resolution and other inverse problems measure.

An operator maps images ``(n, c, h, w)`` to measurements ``(n, *)`` linearly; `operator_matrix` makes of any such
function the matrix that `tabdiff.diffusion.PosteriorGuidance` takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DOWNSAMPLING", "average", "bicubic", "gaussian", "gaussian_blur", "operator_matrix", "strided"]

Operator = Callable[[Tensor], Tensor]
BASIS_ROWS = 256


def average(images: Tensor, factor: int) -> Tensor:
    """Shrink images (n, c, h, w) by the mean of blocks of ``factor`` times ``factor`` pixels.

    Examples
    --------
    >>> import torch
    >>> average(torch.arange(16.0).reshape(1, 1, 4, 4), 2).flatten().tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    return F.avg_pool2d(images, factor)


def bicubic(images: Tensor, factor: int) -> Tensor:
    """Shrink images (n, c, h, w) by bicubic interpolation with antialiasing, as PIL and MATLAB do.

    References
    ----------
    Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
    """
    size = (images.shape[2] // factor, images.shape[3] // factor)
    return F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)


def strided(images: Tensor, factor: int) -> Tensor:
    """Keep every ``factor``-th pixel of images (n, c, h, w), from the first one on."""
    return images[:, :, ::factor, ::factor]


def gaussian(images: Tensor, factor: int) -> Tensor:
    """Blur images (n, c, h, w) with a standard deviation of half the factor, and keep the middle pixel of blocks."""
    middle = factor // 2
    return gaussian_blur(images, factor / 2)[:, :, middle::factor, middle::factor]


def gaussian_blur(images: Tensor, std: float) -> Tensor:
    """Blur images (n, c, h, w) with a Gaussian of a standard deviation in pixels; borders go on with their last value.

    Raises
    ------
    ValueError
        If `std` is not above 0.
    """
    if not std > 0:
        raise ValueError(f"std must be a number of pixels above 0; got {std}")
    radius = math.ceil(3 * std)
    place = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (place / std) ** 2)
    kernel = kernel / kernel.sum()
    c = images.shape[1]
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
    return F.conv2d(rows, kernel.reshape(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)


DOWNSAMPLING: dict[str, Callable[[Tensor, int], Tensor]] = {
    "average": average,
    "bicubic": bicubic,
    "gaussian": gaussian,
    "strided": strided,
}


def operator_matrix(operator: Operator, size: tuple[int, int, int]) -> Tensor:
    """Return the matrix of a linear operator on images.

    Parameters
    ----------
    operator : callable
        Maps images of shape (n, c, h, w), float64, to measurements of shape (n, *).
    size : tuple of int
        ``(c, h, w)``.

    Returns
    -------
    Tensor of shape (m, c * h * w)
        float32; it acts on flattened images and gives flattened measurements.

    Raises
    ------
    ValueError
        If the operator is not linear, or does not return a measurement for each image.

    Examples
    --------
    >>> operator_matrix(lambda x: x.mean(dim=(2, 3)), (1, 2, 2))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    d = math.prod(size)
    columns = []
    for start in range(0, d, BASIS_ROWS):
        basis = torch.zeros(min(BASIS_ROWS, d - start), d, dtype=torch.float64)
        basis[:, start:].fill_diagonal_(1.0)
        columns.append(_measure(operator, basis.reshape(-1, *size)))
    matrix = torch.cat(columns).T
    probe = torch.randn(2, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, wanted = _measure(operator, probe.reshape(-1, *size)), probe @ matrix.T
    if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * (1 + float(wanted.abs().max()))):
        raise ValueError(
            "operator must be linear, so that A(x + y) = A(x) + A(y) and A(0) = 0; got one whose measurements are no "
            "matrix times the image. Leave out clipping, rounding and constants, which belong to the measurements"
        )
    return matrix.float()


def _measure(operator: Operator, images: Tensor) -> Tensor:
    measured = operator(images)
    if not isinstance(measured, Tensor) or measured.dim() < 1 or len(measured) != len(images):
        what = tuple(measured.shape) if isinstance(measured, Tensor) else type(measured).__name__
        raise ValueError(
            f"operator must map images of shape {tuple(images.shape)} to a Tensor of {len(images)} measurements; got "
            f"{what}. Give a function of torch tensors that keeps the first dimension"
        )
    return measured.detach().double().reshape(len(images), -1)
