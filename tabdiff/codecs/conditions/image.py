"""An attribute of a condition that is an image, which the network sees beside the one that it draws.

Encoded, it takes a column for each value of its pixels, from -1 to 1, behind all other attributes; NaN where there is
no image. See `tabdiff.nn.ImageCondition`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from tabdiff.codecs.conditions.vector import VectorAttribute, is_missing
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.io.images import is_pil, pil_pixels, read_images
from tabdiff.utils.array_likes import as_known

__all__ = ["ImageAttribute", "holds_images"]

# Training images that are kept, to be drawn from where none is asked for.
KEPT = 1_000


def holds_images(series: pd.Series, sides: tuple[int, int]) -> bool:
    """Whether the values of a column are images of a height and width."""
    if series.dtype != object:
        return False
    shapes = {np.shape(_array(value)) for value in series if not is_missing(value)}
    if len(shapes) != 1:
        return False
    shape = shapes.pop()
    return (sides == shape[:2] and len(shape) in (2, 3)) or (len(shape) == 3 and sides == shape[1:])


def _array(value: Any) -> Any:
    """Return an image of PIL's or torch's as an array, anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        return as_known(value)
    return pil_pixels(value) if is_pil(value) else value


class ImageAttribute(VectorAttribute):
    """An attribute whose values are images of one size.

    Parameters
    ----------
    values : Series, list or array
        An image for each row, as arrays (h, w), (h, w, c) or (c, h, w) or PIL images; None where there is none.
    name : hashable

    Attributes
    ----------
    size : tuple of int
        ``(c, h, w)``.

    Examples
    --------
    >>> import numpy as np
    >>> attribute = ImageAttribute(np.zeros((5, 8, 8), dtype=np.uint8), "sketch")
    >>> attribute.encode(np.zeros((2, 8, 8), dtype=np.uint8)).shape
    (2, 64)
    """

    def __init__(self, values: Any, name: Any) -> None:
        self.name, self.kind = name, "image"
        known = [_array(value) for value in values if not is_missing(value)]
        if not known:
            raise ValueError(f"condition {name!r} has no value but missing ones.")
        self._take(ImageCodec().fit(self._stack(known)))

    def _take(self, codec: ImageCodec) -> None:
        self.codec = codec
        self.size = codec.size_
        self.n_tokens, self.width = 1, int(np.prod(codec.size_))

    def _stack(self, images: list) -> np.ndarray:
        if len({np.shape(image) for image in images}) > 1:
            raise ValueError(f"condition {self.name!r} must have images of one size.")
        return np.stack(images)

    def __repr__(self) -> str:
        c, h, w = self.size
        return f"ImageAttribute({self.name!r}, images of {h} × {w} pixels with {c} channel{'s' if c > 1 else ''})"

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one image for all rows."""
        if is_missing(value) or is_pil(value):
            return True
        return not isinstance(value, list | tuple | pd.Series) and np.ndim(value) == (2 if self.size[0] == 1 else 3)

    def encode(self, values: Any) -> np.ndarray:
        """Map an image per row to codes (n, c * h * w).

        Raises
        ------
        ValueError
            For images of another size, dtype or range than at fit.
        """
        known = np.array([not is_missing(value) for value in values])
        out = np.full((len(known), self.width), np.nan)
        if known.any():
            images = self._stack([_array(value) for value, there in zip(values, known, strict=True) if there])
            if read_images(images) is None:
                raise ValueError(f"condition {self.name!r} must have an image for each row.")
            try:
                out[known] = self.codec.read(images).numpy()
            except (ValueError, TypeError) as error:
                raise ValueError(f"condition {self.name!r}: {error}") from error
        return out

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes (n, c * h * w) to images as at fit; None where there is none."""
        out = np.empty(len(codes), dtype=object)
        known = ~np.isnan(codes).any(1)
        if known.any():
            for i, image in zip(np.flatnonzero(known), self.codec.decode(torch.from_numpy(codes[known])), strict=True):
                out[i] = image
        return pd.Series(out, name=self.name)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"name": self.name, "kind": self.kind, "codec": self.codec.state()}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = cls.__new__(cls)
        attribute.name, attribute.kind = state["name"], "image"
        attribute._take(ImageCodec.from_state(state["codec"]))
        return attribute
