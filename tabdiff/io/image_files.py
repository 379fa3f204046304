"""Images in files: a folder with a subfolder a class, read lazily and checked whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["IMAGE_SUFFIXES", "ImageFiles", "find_images", "mode_of", "pixels", "upright"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Up to so many bytes of pixels are kept from the check that every file can be read; beyond, files are read again as
# training asks for them.
KEPT_BYTES = 2**31
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "F": 1}
SHOWN = 5
# What says how a picture is to be turned, and the formats in which it need not stand at the head of the file.
ORIENTATION = 0x0112
WITH_ORIENTATION = ("JPEG", "MPO", "WEBP")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('images in files need Pillow. Install it with: pip install "tabdiff[images]"') from error
    return Image


def mode_of(image: Any) -> str:
    """Return the mode that holds what a PIL image holds: "L", "LA", "RGB", "RGBA", or "F" for floats.

    A palette, and a colour that stands for transparent, are spelled out.

    Raises
    ------
    ValueError
        For integers of more than 8 bits a channel, modes that PIL does not convert, and files of several frames.
    """
    mode, keyed = str(image.mode), "transparency" in image.info
    if getattr(image, "is_animated", False) and image.format != "MPO":  # there, the first is the picture
        raise ValueError(
            f"it has {image.n_frames} frames; take each as an image of its own, PIL.ImageSequence.all_frames(image)"
        )
    if mode in ("L", "RGB", "1"):
        return ("RGB" if mode == "RGB" else "L") + ("A" if keyed else "")
    if mode in CHANNELS:
        return mode
    if mode in ("P", "PA"):
        return "RGBA" if mode == "PA" or keyed else "RGB"
    if mode in ("La", "RGBa"):
        return mode.upper()
    if mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        return "RGB"
    if mode.startswith("I"):
        top = 2 ** max(16, int(np.abs(np.asarray(image).astype(np.int64)).max()).bit_length()) - 1
        raise ValueError(
            f"mode {mode!r} has more than 8 bits a channel, which must come as floats between 0 and 1: pass "
            f"numpy.asarray(image) / {top} for each image"
        )
    raise ValueError(f"PIL does not convert mode {mode!r} to RGB; pass it as an array of bytes or floats")


def upright(image: Any) -> Any:
    """Return a PIL image turned as its EXIF orientation says, and itself where that says nothing."""
    if image.format == "TIFF":  # PIL turns it as it loads it
        return image
    if "exif" not in image.info and image.format not in WITH_ORIENTATION:
        return image
    if image.getexif().get(ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def common_mode(modes: Sequence[str]) -> str:
    """Return the mode in which images of all these can be held.

    Examples
    --------
    >>> common_mode(["L", "LA"]), common_mode(["L", "RGB"])
    ('LA', 'RGB')

    Raises
    ------
    ValueError
        For floats beside bytes.
    """
    if "F" in modes:
        if set(modes) != {"F"}:
            raise ValueError(
                "images must be all of bytes or all of floats; got both. Scale the bytes, numpy.asarray(image) / 255, "
                "and pass numpy.asarray(image) of the others, each of one channel."
            )
        return "F"
    colour = any(m.startswith("RGB") for m in modes)
    alpha = any(m.endswith("A") for m in modes)
    return ("RGB" if colour else "L") + ("A" if alpha else "")


def pixels(image: Any, mode: str) -> np.ndarray:
    """Return the pixels of a PIL image as uint8, or float32 for mode "F", shape (c, h, w)."""
    dtype = np.float32 if mode == "F" else np.uint8
    array = np.asarray(image if image.mode == mode else image.convert(mode), dtype=dtype)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def find_images(folder: str | os.PathLike) -> tuple[list[Path], list[str] | None]:
    """List the image files of a folder, in order of their names, and the class of each.

    Parameters
    ----------
    folder : path-like
        With images in it, or with subfolders of images, each of which is a class.

    Returns
    -------
    paths : list of Path
    classes : list of str or None
        The name of the subfolder that each lies in; None where there are none.

    Raises
    ------
    ValueError
        If there are no images, or some lie beside the subfolders of others.
    """
    root = Path(folder)

    def images(place: Path) -> list[Path]:
        return sorted(
            p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and p.name[0] != "."
        )

    own = images(root)
    inside = {p.name: images(p) for p in sorted(root.iterdir()) if p.is_dir() and p.name[0] != "."}
    inside = {name: found for name, found in inside.items() if found}
    if not own and not inside:
        raise ValueError(
            f"the folder {os.fspath(folder)} holds no images, nor do its subfolders; their names must end in one of "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    if own and inside:
        raise ValueError(
            f"the folder {os.fspath(folder)} holds images such as {own[0].name}, and subfolders of images such as "
            f"{next(iter(inside))}. Put every image into the subfolder of its class, or all of them into one folder."
        )
    if own:
        return own, None
    return [p for found in inside.values() for p in found], [name for name, found in inside.items() for _ in found]


class ImageFiles:
    """Pixels of image files as rows, read when they are asked for.

    It stands for a tensor (n, c * h * w) of uint8 where one of that size would not fit into memory: it has a length
    and a shape, can be indexed by row numbers, and be restricted by a mask.

    Parameters
    ----------
    paths : list of Path
        The files. All are read once, so that a broken one is found before the work is done rather than in the midst of
        it; up to 2 GiB of pixels are kept.

    Attributes
    ----------
    size : tuple of int
        ``(c, h, w)``.
    mode : str
        PIL's mode that holds all of them.

    Raises
    ------
    ValueError
        Naming the files that cannot be read, or that have another size than the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.device = torch.device("cpu")
        self.size, self.mode = self._survey()
        n, d = self.shape
        kept = torch.empty((n, d), dtype=torch.uint8) if n * d <= KEPT_BYTES else None
        digest = hashlib.sha256(repr((self.size, self.mode)).encode())
        broken = []
        for i, path in enumerate(self.paths):
            try:
                row = self._read(path)
            except (OSError, SyntaxError, ValueError) as error:
                broken.append(f"{path} ({error})")
                continue
            digest.update(row.numpy().tobytes())
            if kept is not None:
                kept[i] = row
        _refuse(broken, "cannot be read", "Mend or remove them.")
        self._kept, self._digest = kept, digest.digest()

    def _survey(self) -> tuple[tuple[int, int, int], str]:
        """Look at the head of each file: the common mode and size."""
        Image = _pillow()
        modes, sizes, broken = [], [], []
        for path in self.paths:
            try:
                with Image.open(path) as opened:
                    image = upright(opened)
                    modes.append(mode_of(image))
                    sizes.append(image.size)
                    if modes[-1] == "F":
                        raise ValueError("it holds floats; pass a list of such images, PIL.Image.open(path)")
            except (OSError, SyntaxError, ValueError) as error:
                broken.append(f"{path} ({error})")
        _refuse(broken, "cannot be read", "Mend or remove them.")
        width, height = sizes[0]
        other = [
            f"{path} ({w} × {h})" for path, (w, h) in zip(self.paths, sizes, strict=True) if (w, h) != (width, height)
        ]
        _refuse(
            other,
            f"have another size than the {width} × {height} pixels of {self.paths[0]}",
            "Images must have one size: crop or resize them, e.g. with PIL.ImageOps.fit(image, (width, height)).",
        )
        mode = common_mode(modes)
        return (CHANNELS[mode], height, width), mode

    def _read(self, path: Path) -> Tensor:
        # A stream, because PIL maps a TIFF that it knows by name, and turns some of those wrongly.
        with open(path, "rb") as stream, _pillow().open(stream) as image:
            return torch.from_numpy(pixels(upright(image), self.mode).reshape(-1).copy())

    @property
    def shape(self) -> tuple[int, int]:
        """Number of images, and of values in each."""
        return len(self.paths), int(np.prod(self.size))

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> ImageFiles:
        """Return the same files, whose rows go to a device."""
        other = self._copy(self.paths, self._kept)
        other.device = torch.device(device)
        return other

    def __getitem__(self, rows: Tensor | np.ndarray) -> Any:
        """Return the rows of numbers (k,) as a tensor, or the files of a mask (n,) as another of these."""
        if isinstance(rows, np.ndarray):
            rows = torch.from_numpy(rows)
        rows = rows.cpu()
        if rows.dtype == torch.bool:
            chosen = torch.nonzero(rows).flatten()
            return self._copy(
                [self.paths[i] for i in chosen.tolist()], None if self._kept is None else self._kept[rows]
            )
        if self._kept is not None:
            return self._kept[rows].to(self.device)
        return torch.stack([self._read(self.paths[i]) for i in rows.tolist()]).to(self.device)

    def take(self, rows: np.ndarray) -> ImageFiles:
        """Return the files of numbers (k,), which may repeat."""
        places = torch.from_numpy(rows)
        return self._copy([self.paths[i] for i in rows.tolist()], None if self._kept is None else self._kept[places])

    def _copy(self, paths: list[Path], kept: Tensor | None) -> ImageFiles:
        other = ImageFiles.__new__(ImageFiles)
        other.paths, other.size, other.mode, other.device = paths, self.size, self.mode, self.device
        other._kept, other._digest = kept, self._digest
        return other

    def digest(self) -> bytes:
        """Return a hash of all pixels and of which files these are."""
        names = "\n".join(path.name for path in self.paths)
        return hashlib.sha256(self._digest + names.encode()).digest()


def _refuse(bad: list[str], what: str, fix: str) -> None:
    """Raise an error that names the first of the files, if there are any."""
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise ValueError(f"{len(bad)} of the images {what}: {', '.join(bad[:SHOWN])}{more}. {fix}")
