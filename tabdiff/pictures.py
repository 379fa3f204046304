"""Pictures of many images: a grid, as an array or a file."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from tabdiff.codecs.image import read_images
from tabdiff.codecs.image_files import ImageFiles

__all__ = ["image_grid", "save_grid"]

GAP = 2


def image_grid(images: Any, *, columns: int | None = None, scale: int = 1) -> np.ndarray:
    """Put images beside each other.

    Parameters
    ----------
    images : array, list of PIL images or folder
        In any form that `DiffusionGenerator.fit` takes.
    columns : int, optional
        Images in a row; by default as many as make the grid about square.
    scale : int, default=1
        Each pixel becomes so many in height and width.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 2 to 4)
        uint8, white between images.

    Raises
    ------
    ValueError
        If these are no images.

    Examples
    --------
    >>> import numpy as np
    >>> image_grid(np.zeros((6, 8, 8), dtype=np.uint8), columns=3).shape
    (22, 32)
    """
    read = read_images(images)
    if read is None:
        raise ValueError(f"images must be an array of images or a list of them, however: {type(images).__name__}.")
    pixels = read.pixels
    if isinstance(pixels, ImageFiles):
        pixels = pixels[np.arange(len(pixels))].numpy().reshape(len(pixels), *read.size)
    if pixels.dtype != np.uint8:
        low = -1.0 if pixels.min() < 0 else 0.0
        pixels = np.rint((pixels - low) / (1 - low) * 255).astype(np.uint8)
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3)
    n, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = np.full((channels, GAP + rows * (height + GAP), GAP + columns * (width + GAP)), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        grid[:, y : y + height, x : x + width] = image
    return grid[0] if channels == 1 else np.ascontiguousarray(np.moveaxis(grid, 0, 2))


def save_grid(images: Any, path: str | os.PathLike, *, columns: int | None = None, scale: int = 1) -> None:
    """Write images beside each other as one picture, in the format of the path's ending; see `image_grid`."""
    from PIL import Image

    Image.fromarray(image_grid(images, columns=columns, scale=scale)).save(path)
