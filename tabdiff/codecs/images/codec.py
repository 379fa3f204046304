"""Images to one tensor and back: arrays of several layouts, lists of PIL images, folders of files."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.io.image_files import CHANNELS, ImageFiles, common_mode, find_images, mode_of, pixels

__all__ = ["AUGMENTATIONS", "ImageCodec", "Images", "as_images", "looks_like_images", "read_images"]

AUGMENTATIONS = ("flip", "crop")
MAX_CHANNELS = 4
# Of an image, for networks of tokens.
MIN_PATCHES, MAX_PATCHES = 16, 256
# Shifted by at most this share of the side, as images are cropped after padding by 4 of 32 pixels.
CROP_SHARE = 1 / 8
MIN_SIDE = 4


@dataclass
class Images:
    """Images that were given, taken to one form without a copy.

    Attributes
    ----------
    pixels : ndarray of shape (n, c, h, w) or ImageFiles
        uint8, or float as it was given.
    layout : {"hw", "hwc", "chw", "pil"}
        How images lie in what was given, and will in what is returned. Files come out as "hw" or "hwc".
    classes : list of str or None
        The class of each, where subfolders say so.
    mode : str or None
        PIL's mode, of PIL images and files.
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


def read_images(X: Any) -> Images | None:
    """Read images of any form; None for what is something else, such as a table.

    Raises
    ------
    ValueError
        For arrays of a shape or values that images do not have, images of several sizes, folders without images and
        files that cannot be read.
    TypeError
        For a dtype that is neither uint8 nor floating point, and a path that is no folder.
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, str | os.PathLike):
        return _read_folder(X)
    if isinstance(X, list | tuple) and len(X):
        if _is_pil(X[0]):
            return _read_pil(X)
        if all(isinstance(image, np.ndarray) and image.ndim in (2, 3) for image in X):
            return _read_array(_stack(X))
    if getattr(X, "ndim", 2) >= 3 and hasattr(X, "__array__"):
        return _read_array(X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else np.asarray(X))
    return None


def looks_like_images(X: Any) -> bool:
    """Return whether `read_images` would try to read images, told without reading them."""
    if isinstance(X, Images | str | os.PathLike):
        return True
    if isinstance(X, list | tuple) and len(X):
        return _is_pil(X[0]) or (isinstance(X[0], np.ndarray) and X[0].ndim > 1)
    return getattr(X, "ndim", 2) > 2


def _is_pil(image: Any) -> bool:
    return hasattr(image, "convert") and hasattr(image, "mode") and hasattr(image, "getbands")


def _read_folder(folder: str | os.PathLike) -> Images:
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "does not exist"
        raise TypeError(
            f"X must be data, or the path of a folder of images, however: {type(folder).__name__} "
            f"{os.fspath(folder)!r}, which {what}."
        )
    paths, classes = find_images(folder)
    files = ImageFiles(paths)
    return Images(files, "hw" if files.size[0] == 1 else "hwc", classes, files.mode)


def _read_pil(images: Any) -> Images:
    modes = []
    width, height = images[0].size
    for i, image in enumerate(images):
        if not _is_pil(image):
            raise TypeError(
                f"a list of PIL images must hold nothing else, however: element {i} is {type(image).__name__}."
            )
        try:
            modes.append(mode_of(image))
        except ValueError as error:
            raise ValueError(f"image {i}: {error}.") from error
        if image.size != (width, height):
            raise ValueError(
                f"images must have one size: image 0 is {width} × {height}, image {i} is {image.size[0]} × "
                f"{image.size[1]}. Crop or resize them, e.g. with PIL.ImageOps.fit(image, (width, height))."
            )
    mode = common_mode(modes)
    stacked = np.empty((len(images), CHANNELS[mode], height, width), dtype=np.uint8)
    for i, image in enumerate(images):
        try:
            stacked[i] = pixels(image, mode)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"image {i} ({getattr(image, 'filename', '')}) cannot be read: {error}.") from error
    return _checked(Images(stacked, "pil", mode=mode))


def _stack(images: Any) -> np.ndarray:
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise ValueError(
                f"images must have one size: image 0 has shape {images[0].shape}, image {i} {image.shape}. Crop or "
                "resize them."
            )
    return np.stack(images)


def _read_array(array: np.ndarray) -> Images:
    """Tell the layout of an array by which axis is as short as channels are."""
    if array.ndim == 3:
        return _checked(Images(array[:, None], "hw"))
    if array.ndim != 4:
        raise ValueError(
            f"images must be an array (n, h, w), (n, h, w, c) or (n, c, h, w), however: it has {array.ndim} "
            f"dimensions, shape={array.shape}."
        )
    first, last = 1 <= array.shape[1] <= MAX_CHANNELS, 1 <= array.shape[3] <= MAX_CHANNELS
    if not first and not last:
        raise ValueError(
            f"images of shape (n, h, w, c) or (n, c, h, w) have 1 to {MAX_CHANNELS} channels, however: "
            f"shape={array.shape}."
        )
    if first and last:
        raise ValueError(
            f"shape={array.shape} may be (n, h, w, c) or (n, c, h, w): sides of at most {MAX_CHANNELS} pixels are not "
            "told apart from channels. Images need more pixels."
        )
    return _checked(Images(array if first else np.moveaxis(array, 3, 1), "chw" if first else "hwc"))


def _checked(images: Images) -> Images:
    """Raise an error that names what is no image."""
    _, height, width = images.size
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"images must have at least {MIN_SIDE} pixels a side, however: {height} × {width}.")
    array = images.pixels
    if array.dtype == np.uint8:
        return images
    if array.dtype.kind != "f":
        raise TypeError(
            f"images must be uint8, or floating point in [0, 1] or [-1, 1], however: {array.dtype}. Convert them, e.g. "
            f"{'(255 * X).astype(numpy.uint8)' if array.dtype == bool else 'X.astype(numpy.uint8) if they are bytes'}."
        )
    flat = array.reshape(len(array), -1)
    low, high = flat.min(axis=1, initial=0.0), flat.max(axis=1, initial=0.0)  # NaN where there is one
    odd = np.flatnonzero(~((low >= -1) & (high <= 1)))
    if len(odd):
        i = int(odd[0])
        if not np.isfinite(flat[i]).all():
            raise ValueError(f"image {i} holds NaN or infinity, as do {len(odd) - 1} more. Images must be finite.")
        top = flat.max()
        whole = (
            "" if (flat[i] % 1).any() or low.min() < 0 or top > 255 else ", or X.astype(numpy.uint8) if they are bytes"
        )
        raise ValueError(
            f"floating-point images must lie in [0, 1] or [-1, 1], however: image {i} goes from {low[i]:g} to "
            f"{high[i]:g} ({len(odd)} of {len(flat)} images are outside). Divide by the largest value, X / {top:g}"
            f"{whole}."
        )
    return images


class ImageCodec:
    """Encode images as rows of pixels, channel by channel, and decode to the container, dtype and range that came in.

    A byte v is ``(v + 0.5) / 128 - 1`` to the network, the middle of its bin; floats in [0, 1] or [-1, 1] span [-1, 1].
    Rows stay bytes in memory until a batch of them is made.

    Parameters
    ----------
    augment : str, list of str or None
        "flip" mirrors a random half of the training images left to right, "crop" shifts them by up to an eighth of
        their sides, repeating what is at their edges.

    Attributes
    ----------
    size_ : tuple of int
        ``(c, h, w)``.
    order_ : {"hw", "hwc", "chw", "pil"}
    dtype_ : dtype
    range_ : {"byte", "unit", "symmetric"}
    mode_ : str or None
        PIL's mode, of PIL images and files.

    Examples
    --------
    >>> import numpy as np, torch
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
    >>> codec = ImageCodec().fit(images)
    >>> rows = codec.prepare(codec.encode(images))
    >>> rows.shape, bool((codec.decode(rows) == images).all())
    (torch.Size([10, 144]), True)
    """

    # Whether encoding draws anything, so that encoding again gives other rows.
    random_ = False

    def __init__(self, augment: Any = None) -> None:
        self.augment = augmentations(augment)

    def fit(self, images: Any, *args: Any, **kwargs: Any) -> Self:
        """Learn size, layout and range of images; what else codecs are told does not matter here."""
        images = as_images(images)
        self.size_, self.order_, self.dtype_, self.mode_ = images.size, images.layout, images.dtype, images.mode
        self.range_ = "byte"
        if self.dtype_.kind == "f":
            self.range_ = "symmetric" if float(images.pixels.min()) < 0 else "unit"
        return self

    @property
    def schema_(self) -> pd.DataFrame:
        """What was found."""
        channels, height, width = self.size_
        found = {"height": height, "width": width, "channels": channels, "layout": self.order_}
        return pd.DataFrame([{"kind": "images", **found, "dtype": str(self.dtype_), "range": self.range_}])

    @property
    def layout_(self) -> dict[str, Any]:
        """What the entries of a row are, for networks of tokens: the smallest patches that are not too many."""
        _, height, width = self.row_size_
        common = math.gcd(height, width)
        sides = (p for p in range(1, common + 1) if common % p == 0)
        few = (p for p in sides if MIN_PATCHES * p * p <= height * width <= MAX_PATCHES * p * p)
        return {"kind": "patches", "shape": list(self.row_size_), "patch": next(few, 1)}

    @property
    def row_size_(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of what is diffused: the image itself."""
        return self.size_

    @property
    def scale_(self) -> tuple[float, float]:
        """Slope and start of the line from values as given to those that the network sees."""
        return {"byte": (1 / 128, 1 / 256 - 1), "unit": (2.0, -1.0), "symmetric": (1.0, 0.0)}[self.range_]

    @property
    def bounds_(self) -> tuple[float, float] | None:
        """Smallest and largest value to the network, if there are any."""
        return -1.0, 1.0

    def encode(self, images: Any, condition: Tensor | None = None, generator: Any = None) -> Any:
        """Map images to rows: a tensor (n, c * h * w) of uint8 or float32, or `ImageFiles`, which stands for one.

        Raises
        ------
        ValueError
            For images of another size or kind than those of the fit.
        """
        images = as_images(images)
        if images.size != self.size_:
            raise ValueError(f"images must be {_shown(self.size_)}, as at fit, however: {_shown(images.size)}.")
        if (images.dtype == np.uint8) != (self.range_ == "byte"):
            raise ValueError(f"images must be {self.dtype_}, as at fit, however: {images.dtype}.")
        if isinstance(images.pixels, ImageFiles):
            return images.pixels
        flat = images.pixels.reshape(len(images), -1)
        if self.range_ == "byte":
            return torch.from_numpy(np.ascontiguousarray(flat))
        if self.range_ == "unit" and flat.min() < 0:
            i = int(np.flatnonzero((flat < 0).any(axis=1))[0])
            raise ValueError(
                f"images must lie in [0, 1], as at fit, however: image {i} goes down to {flat[i].min():g}."
            )
        scaled = torch.from_numpy(np.ascontiguousarray(flat, dtype=np.float32))
        return scaled.mul(2).sub(1) if self.range_ == "unit" else scaled

    def prepare(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map encoded rows (B, d) to what the network sees, augmented where a generator is given."""
        rows = rows.float().add(0.5).div(128).sub(1) if rows.dtype == torch.uint8 else rows
        if generator is None or not self.augment:
            return rows
        images = rows.reshape(len(rows), *self.size_)
        device = rows.device
        if "flip" in self.augment:
            flipped = torch.rand(len(rows), generator=generator, device=device) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        if "crop" in self.augment:
            for axis in (2, 3):
                side = images.shape[axis]
                most = max(1, round(CROP_SHARE * side))
                shift = torch.randint(-most, most + 1, (len(rows), 1), generator=generator, device=device)
                places = (torch.arange(side, device=device) + shift).clamp(0, side - 1)
                places = places[:, None, :, None] if axis == 2 else places[:, None, None, :]
                images = images.gather(axis, places.expand(images.shape))
        return images.reshape(rows.shape)

    def read(self, images: Any) -> Tensor:
        """Map images to what the network sees, (n, c * h * w), all at once; see `encode` and `prepare`."""
        rows = self.encode(images)
        return self.prepare(rows if isinstance(rows, Tensor) else rows[np.arange(len(rows))])

    def decode(self, rows: Tensor, condition: Tensor | None = None, generator: Any = None) -> Any:
        """Map rows as the network sees them to images in the container of the fit."""
        images = rows.reshape(len(rows), *self.size_).double().clamp(-1, 1)
        if self.range_ == "byte":
            array = images.add(1).mul(128).floor().clamp(0, 255).to(torch.uint8).numpy()
        else:
            array = (images.add(1).div(2) if self.range_ == "unit" else images).numpy().astype(self.dtype_)
        return self._put(array)

    def _put(self, array: np.ndarray) -> Any:
        """Put pixels (n, c, h, w) into the container of the fit."""
        if self.order_ == "chw":
            return array
        array = array[:, 0] if self.order_ == "hw" or self.mode_ == "L" else array
        array = np.ascontiguousarray(np.moveaxis(array, 1, 3)) if array.ndim == 4 else array
        if self.order_ != "pil":
            return array
        from PIL import Image

        return [Image.fromarray(image) for image in array]

    def put_in(self, images: Images, drawn: Any, missing: np.ndarray) -> Any:
        """Return images with what was drawn in the places of a mask (n, c, h, w), and as they are everywhere else."""
        read = read_images(drawn)
        assert read is not None
        return self._put(np.where(missing, read.pixels, images.array().astype(self.dtype_)))

    def log_jacobian(self, images: Any, data: Any) -> np.ndarray:
        """Log factor (n,) from densities of encoded rows to those of the values given; of bytes, to probabilities."""
        width = {"byte": 1 / 128, "unit": 2.0, "symmetric": 1.0}[self.range_]
        return np.full(len(data), int(np.prod(self.size_)) * np.log(width))

    def state(self) -> dict:
        """Plain description, for persistence."""
        found = {"size": list(self.size_), "layout": self.order_, "dtype": str(self.dtype_), "range": self.range_}
        return {**found, "mode": self.mode_, "augment": list(self.augment)}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        return cls._of_pixels(state)

    @classmethod
    def _of_pixels(cls, state: dict) -> Self:
        codec = cls(state["augment"])
        codec.size_ = tuple(int(n) for n in state["size"])
        codec.order_, codec.range_, codec.mode_ = state["layout"], state["range"], state["mode"]
        codec.dtype_ = np.dtype(state["dtype"])
        return codec


def augmentations(augment: Any) -> tuple[str, ...]:
    """Return names of augmentations.

    Raises
    ------
    ValueError
        For an unknown one.
    """
    names = () if augment is None else (augment,) if isinstance(augment, str) else tuple(augment)
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"augment must be None, or one or several of {AUGMENTATIONS}, however: {augment!r}.")
    return names


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
            "images must be an array (n, h, w), (n, h, w, c) or (n, c, h, w), a list of PIL images or a folder, "
            f"however: {type(X).__name__}{f' of shape {X.shape}' if hasattr(X, 'shape') else ''}."
        )
    return images


def _shown(size: tuple[int, int, int]) -> str:
    return f"{size[1]} × {size[2]} pixels with {size[0]} channel{'s' if size[0] > 1 else ''}"
