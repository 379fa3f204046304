"""Images to one tensor and back: arrays of several layouts, lists of PIL images, folders of files."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.base import Codec
from tabdiff.io.image_files import ImageFiles
from tabdiff.io.images import Images, as_images, read_images
from tabdiff.utils.memory import tensor_of

__all__ = ["AUGMENTATIONS", "ImageCodec", "augmentations"]

AUGMENTATIONS = ("flip", "crop")
# Of an image, for networks of tokens.
MIN_PATCHES, MAX_PATCHES = 16, 256
# Shifted by at most this share of the side, as images are cropped after padding by 4 of 32 pixels.
CROP_SHARE = 1 / 8

# Of images whose standard deviation is taken, values at most.
MEASURED_VALUES = 2**24


class ImageCodec(Codec):
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
    constant_ = True

    @property
    def n_continuous_(self) -> int:
        """Number of values of what is diffused."""
        return math.prod(self.row_size_)

    def __init__(self, augment: Any = None) -> None:
        self.augment = augment

    def check(self) -> None:
        """Raise a ValueError for an unknown augmentation."""
        augmentations(self.augment)

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

    def data_std(self, data: Any) -> float:
        """Return the standard deviation of the values as the network sees them, of some images where there are many."""
        n = max(1, min(len(data), MEASURED_VALUES // math.prod(self.row_size_)))
        some = self.prepare(data[torch.linspace(0, len(data) - 1, n).round().long()])
        return float(some.double().std(correction=0)) or 1.0  # images of one value have no spread to scale by

    def encode(self, images: Any, condition: Tensor | None = None, generator: Any = None) -> Any:
        """Map images to rows: a tensor (n, c * h * w) of uint8 or float32, or `ImageFiles`, which stands for one.

        Raises
        ------
        ValueError
            For images of another size or kind than those of the fit.
        """
        images = as_images(images)
        if images.size != self.size_:
            raise ValueError(f"images must be {_shown(self.size_)}, as at fit; got {_shown(images.size)}.")
        if (images.dtype == np.uint8) != (self.range_ == "byte"):
            raise ValueError(f"images must be {self.dtype_}, as at fit; got {images.dtype}.")
        if isinstance(images.pixels, ImageFiles):
            return images.pixels
        flat = images.pixels.reshape(len(images), -1)
        if self.range_ == "byte":
            return tensor_of(flat)
        if self.range_ == "unit" and flat.min() < 0:
            i = int(np.flatnonzero((flat < 0).any(axis=1))[0])
            raise ValueError(f"images must lie in [0, 1], as at fit; got {flat[i].min():g} in image {i}.")
        scaled = tensor_of(flat.astype(np.float32, copy=False))
        return scaled.mul(2).sub(1) if self.range_ == "unit" else scaled

    def prepare(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map encoded rows (B, d) to what the network sees, augmented where a generator is given."""
        rows = rows.float().add(0.5).div(128).sub(1) if rows.dtype == torch.uint8 else rows
        names = augmentations(self.augment)
        if generator is None or not names:
            return rows
        images = rows.reshape(len(rows), *self.size_)
        device = rows.device
        if "flip" in names:
            flipped = torch.rand(len(rows), generator=generator, device=device) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        if "crop" in names:
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
        array = array[:, 0] if self.order_ == "hw" or self.mode_ in ("L", "F") else array
        array = np.ascontiguousarray(np.moveaxis(array, 1, 3)) if array.ndim == 4 else array
        if self.order_ != "pil":
            return array
        from PIL import Image

        return [Image.fromarray(image) for image in array]

    def put_in(self, images: Images, drawn: Any, missing: np.ndarray) -> Any:
        """Return images with what was drawn in the places of a mask (n, c, h, w), and as they are everywhere else."""
        read = read_images(drawn)
        assert read is not None
        given = images.array()
        return self._put(np.where(missing, read.pixels.astype(given.dtype, copy=False), given))

    def log_jacobian(self, images: Any, data: Any) -> np.ndarray:
        """Log factor (n,) from densities of encoded rows to those of the values given; of bytes, to probabilities."""
        width = {"byte": 1 / 128, "unit": 2.0, "symmetric": 1.0}[self.range_]
        return np.full(len(data), int(np.prod(self.size_)) * np.log(width))

    def state(self) -> dict:
        """Plain description, for persistence."""
        found = {"size": list(self.size_), "layout": self.order_, "dtype": str(self.dtype_), "range": self.range_}
        return {**found, "mode": self.mode_, "augment": list(augmentations(self.augment))}

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
        raise ValueError(f"augment must be None, or one or several of {AUGMENTATIONS}; got {augment!r}.")
    return names


def _shown(size: tuple[int, int, int]) -> str:
    return f"{size[1]} × {size[2]} pixels with {size[0]} channel{'s' if size[0] > 1 else ''}"
