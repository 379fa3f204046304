"""Reading images of any form: arrays of several layouts, lists of PIL images, folders of files."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tabdiff.io.image_files import (
    CHANNELS,
    IMAGE_SUFFIXES,
    ImageFiles,
    common_mode,
    find_images,
    mode_of,
    pixels,
    upright,
)
from tabdiff.utils.array_likes import as_known

__all__ = [
    "Images",
    "MAX_CHANNELS",
    "MIN_SIDE",
    "as_images",
    "is_pil",
    "looks_like_images",
    "pil_pixels",
    "read_images",
]


MAX_CHANNELS = 4


MIN_SIDE = 4


@dataclass
class Images:
    """Images that were given, taken to one form without a copy.

    Parameters
    ----------
    pixels : ndarray of shape (n, c, h, w) or ImageFiles
        Bytes (uint8), or floats as they were given.
    layout : {"hw", "hwc", "chw", "pil"}
        How images lie in what was given, and will in what is returned. Files come out as "hw" or "hwc".
    classes : list of str or None
        The class of each, where subfolders say so.
    mode : str or None
        PIL's mode, of PIL images and files.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.codecs import Images
    >>> images = Images(np.zeros((5, 3, 8, 6), dtype=np.uint8), "hwc")
    >>> len(images), images.size, images.dtype
    (5, (3, 8, 6), dtype('uint8'))
    >>> len(images.take(np.array([0, 0, 4])))
    3
    """

    pixels: Any
    layout: str
    classes: list[str] | None = None
    mode: str | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of an image."""
        if isinstance(self.pixels, ImageFiles):
            return self.pixels.size
        c, h, w = self.pixels.shape[1:]
        return int(c), int(h), int(w)

    @property
    def dtype(self) -> np.dtype:
        """What the pixels are."""
        return np.dtype(np.uint8) if isinstance(self.pixels, ImageFiles) else self.pixels.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Number of images, and of values in each."""
        return len(self), int(np.prod(self.size))

    def __len__(self) -> int:
        return len(self.pixels)

    def array(self) -> np.ndarray:
        """Return all pixels (n, c, h, w), read from the files where they lie in some."""
        if isinstance(self.pixels, ImageFiles):
            return np.asarray(self.pixels[np.arange(len(self))].numpy().reshape(len(self), *self.size))
        return np.asarray(self.pixels)

    def take(self, rows: np.ndarray) -> Images:
        """Return the images of numbers (k,), which may repeat."""
        taken = self.pixels.take(rows) if isinstance(self.pixels, ImageFiles) else self.pixels[rows]
        classes = None if self.classes is None else [self.classes[i] for i in rows]
        return replace(self, pixels=taken, classes=classes)


def read_images(X: Any, name: str = "X") -> Images | None:
    """Read images of any form; None for what is something else, such as a table.

    Images of PIL's whose EXIF data say how they are to be turned are turned.

    Raises
    ------
    ValueError
        For arrays of a shape or values that images do not have, masked pixels, images of several sizes, folders without
        images and files that cannot be read.
    TypeError
        For a dtype that is neither uint8 nor floating point, a path that is no folder, and what `as_known` refuses.
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, str | os.PathLike):
        return _read_folder(X, name)
    if isinstance(X, np.ma.MaskedArray) and X.ndim >= 3 and np.ma.getmaskarray(X).any():
        raise ValueError(
            f"{name} must be whole images; got some with masked pixels. Fill them, {name}.filled(0), or have a fitted "
            f"model draw them: impute({name}.data, mask=numpy.ma.getmaskarray({name}))."
        )
    X = as_known(X, name)
    if isinstance(X, list | tuple) and len(X):
        if is_pil(X[0]):
            return _read_pil(X, name)
        if all(isinstance(image, np.ndarray) and image.ndim in (2, 3) for image in X):
            return _read_array(_stack(X), f"numpy.stack({name})")
    if getattr(X, "ndim", 2) >= 3 and hasattr(X, "__array__"):
        return _read_array(np.asarray(X), name)
    return None


def looks_like_images(X: Any) -> bool:
    """Return whether `read_images` would try to read images, told without reading them."""
    if isinstance(X, Images | str | os.PathLike):
        return True
    if isinstance(X, list | tuple) and len(X):
        return is_pil(X[0]) or (isinstance(X[0], np.ndarray) and X[0].ndim > 1)
    return getattr(X, "ndim", 2) > 2


def is_pil(image: Any) -> bool:
    """Whether an object is an image of PIL's."""
    return hasattr(image, "convert") and hasattr(image, "mode") and hasattr(image, "getbands")


# How a file that is no image is read, by what its name ends in.
_READERS = {
    ".csv": "pandas.read_csv",
    ".tsv": "pandas.read_table",
    ".parquet": "pandas.read_parquet",
    ".feather": "pandas.read_feather",
    ".xlsx": "pandas.read_excel",
    ".json": "pandas.read_json",
    ".h5ad": "anndata.read_h5ad",
    ".zarr": "anndata.read_zarr",
    ".npy": "numpy.load",
}


def _read_folder(folder: str | os.PathLike, name: str) -> Images:
    path = Path(folder)
    reader = _READERS.get(path.suffix.lower())
    if reader is not None or not path.is_dir():
        what = "is a file" if path.is_file() else "is no folder of images" if path.exists() else "does not exist"
        fix = f" Pass {reader}({os.fspath(folder)!r})." if reader is not None else ""
        if path.suffix.lower() in IMAGE_SUFFIXES:
            fix = f" Pass a folder of images, or [PIL.Image.open({os.fspath(folder)!r}), ...]."
        raise TypeError(
            f"{name} must be data, or the path of a folder of images; got {type(folder).__name__} "
            f"{os.fspath(folder)!r}, which {what}.{fix}"
        )
    paths, classes = find_images(folder)
    files = ImageFiles(paths)
    return Images(files, "hw" if files.size[0] == 1 else "hwc", classes, files.mode)


def _read_pil(images: Any, name: str) -> Images:
    turned, modes = [], []
    for i, image in enumerate(images):
        if not is_pil(image):
            raise TypeError(f"a list of PIL images must hold nothing else; got {type(image).__name__} as element {i}.")
        try:
            turned.append(upright(image))
            modes.append(mode_of(image))
        except ValueError as error:
            raise ValueError(f"image {i}: {error}.") from error
        (width, height), size = turned[0].size, turned[i].size
        if size != (width, height):
            raise ValueError(
                f"images must have one size: image 0 is {width} × {height}, image {i} is {size[0]} × {size[1]}. Crop "
                "or resize them, e.g. with PIL.ImageOps.fit(image, (width, height))."
            )
    mode = common_mode(modes)
    width, height = turned[0].size
    dtype = np.float32 if mode == "F" else np.uint8
    stacked = np.empty((len(images), CHANNELS[mode], height, width), dtype=dtype)
    for i, image in enumerate(turned):
        try:
            stacked[i] = pixels(image, mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"image {i} ({getattr(image, 'filename', '')}) cannot be read: {error}.") from error
    return _checked(Images(stacked, "pil", mode=mode), f"numpy.stack({name})")


def pil_pixels(image: Any) -> np.ndarray:
    """Return what a PIL image shows, turned as it says, as an array (h, w) or (h, w, c)."""
    array = pixels(upright(image), mode_of(image))
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, 2)


def _stack(images: Any) -> np.ndarray:
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise ValueError(
                f"images must have one size: image 0 has shape {images[0].shape}, image {i} {image.shape}. Crop or "
                "resize them."
            )
    return np.stack(images)


def _read_array(array: np.ndarray, name: str) -> Images:
    """Tell the layout of an array by which axis is as short as channels are."""
    if array.ndim == 3:
        return _checked(Images(array[:, None], "hw"), name)
    if array.ndim != 4:
        raise ValueError(
            f"images must be an array (n, h, w), (n, h, w, c) or (n, c, h, w); got {array.ndim} "
            f"dimensions, shape={array.shape}."
        )
    first, last = 1 <= array.shape[1] <= MAX_CHANNELS, 1 <= array.shape[3] <= MAX_CHANNELS
    if not first and not last:
        raise ValueError(
            f"images of shape (n, h, w, c) or (n, c, h, w) have 1 to {MAX_CHANNELS} channels; got shape={array.shape}."
        )
    if first and last:
        raise ValueError(
            f"shape={array.shape} may be (n, h, w, c) or (n, c, h, w): sides of at most {MAX_CHANNELS} pixels are not "
            "told apart from channels. Images need more pixels."
        )
    return _checked(Images(array if first else np.moveaxis(array, 3, 1), "chw" if first else "hwc"), name)


def _checked(images: Images, name: str) -> Images:
    """Raise an error that names what is no image, and how to make the images `name` some."""
    _, height, width = images.size
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"images must have at least {MIN_SIDE} pixels a side; got {height} × {width}.")
    array = images.pixels
    if array.dtype == np.uint8:
        return images
    if array.dtype.kind != "f":
        raise TypeError(
            f"images must be uint8, or floating point in [0, 1] or [-1, 1]; got {array.dtype}. "
            f"{_conversion(array, name)}"
        )
    flat = array.reshape(len(array), -1)
    low, high = flat.min(axis=1, initial=0.0), flat.max(axis=1, initial=0.0)  # NaN where there is one
    odd = np.flatnonzero(~((low >= -1) & (high <= 1)))
    if len(odd):
        i = int(odd[0])
        if not np.isfinite(flat[i]).all():
            raise ValueError(f"image {i} holds NaN or infinity, as do {len(odd) - 1} more. Images must be finite.")
        top = max(high[np.isfinite(high)].max(), -low[np.isfinite(low)].min())
        whole = (
            ""
            if (flat[i] % 1).any() or low.min() < 0 or top > 255
            else f", or {name}.astype(numpy.uint8) if they are bytes"
        )
        raise ValueError(
            f"floating-point images must lie in [0, 1] or [-1, 1]; got values in image {i} from {low[i]:g} to "
            f"{high[i]:g} ({len(odd)} of {len(flat)} images are outside). Divide by the largest value, {name} / "
            f"{int(top) if top % 1 == 0 else float(top)}{whole}."
        )
    return images


def _conversion(array: np.ndarray, name: str) -> str:
    """Say how images of a dtype that is not taken become some without losing a grey level."""
    if array.dtype == bool:
        return f"Convert them: (255 * {name}).astype(numpy.uint8)."
    if array.dtype.kind not in "iu" or not array.size:
        return "Convert them to one of these."
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high <= 255:
        return f"Convert them, {name}.astype(numpy.uint8)."
    top = 2 ** max(8, max(-low, high).bit_length()) - 1 if array.dtype != np.uint16 else 65535
    return f"They go from {low} to {high}, which bytes do not hold. Scale them, {name} / {top}."


def as_images(X: Any) -> Images:
    """Read images of any form; see `read_images`.

    Raises
    ------
    TypeError
        For what is something else, too.
    """
    images = read_images(X)
    if images is None:
        raise TypeError(
            "images must be an array (n, h, w), (n, h, w, c) or (n, c, h, w), a list of PIL images or a folder; "
            f"got {type(X).__name__}{f' of shape {X.shape}' if hasattr(X, 'shape') else ''}."
        )
    return images
