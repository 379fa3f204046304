"""Pictures of many images: a grid, as an array or a file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from tabdiff.io.images import read_images

__all__ = ["image_grid", "save_grid", "save_images"]

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
    pixels = _bytes(images)
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


def save_images(
    images: Any, folder: str | os.PathLike, labels: Any = None, *, first: int = 0, n_images: int | None = None
) -> None:
    """Write each image to a PNG file of its own, in a subfolder for each label if there are any.

    Parameters
    ----------
    images : array, list of PIL images or folder
        In any form that `DiffusionGenerator.fit` takes.
    folder : path-like
        Made if need be.
    labels : array-like of shape (n,) or DataFrame, optional
        Of several columns the values are joined by "-".
    first : int, default=0
        Number of the first image.
    n_images : int, optional
        Of how many these are a part, for the width of the numbers; by default there are no others.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_images(np.zeros((3, 8, 8), dtype=np.uint8), folder, ["cat", "dog", "cat"])
    ...     sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*.png"))
    ['cat/0.png', 'cat/2.png', 'dog/1.png']
    """
    from PIL import Image

    pixels, root = _bytes(images), Path(folder)
    names = [""] * len(pixels)
    if labels is not None:
        rows = np.asarray(labels).reshape(len(pixels), -1)
        names = ["-".join(str(v).replace(os.sep, "_") for v in row) for row in rows]
    digits = len(str((n_images or len(pixels)) - 1))
    for i, (image, name) in enumerate(zip(pixels, names), start=first):
        place = root / name
        place.mkdir(parents=True, exist_ok=True)
        shown = image[0] if len(image) == 1 else np.ascontiguousarray(np.moveaxis(image, 0, 2))
        Image.fromarray(shown).save(place / f"{i:0{digits}}.png")


def _bytes(images: Any) -> np.ndarray:
    """Return images as bytes (n, c, h, w)."""
    read = read_images(images)
    if read is None:
        raise ValueError(f"images must be an array of images or a list of them; got {type(images).__name__}.")
    pixels = read.array()
    if pixels.dtype != np.uint8:
        low = -1.0 if pixels.min() < 0 else 0.0
        pixels = np.rint((pixels - low) / (1 - low) * 255).astype(np.uint8)
    return pixels
