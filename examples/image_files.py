"""Pictures for images.py: named sets, MNIST's and CIFAR-10's own files, and folders of image files by class.

`load` takes a name or the path of a folder, and says what is wrong with what it was given. Nothing is downloaded:

- "digits" come with scikit-learn;
- "mnist" and "cifar10" are asked of load.py in the folder that the environment variable TABDIFF_DATA names;
- a folder holds MNIST's four IDX files, packed or not (Fashion-MNIST has the same names); or CIFAR-10's binary version;
  or a subfolder of image files for each class, or such folders named train and test.
"""

import gzip
import importlib.util
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tabdiff.io.images import read_images

NAMES = ("digits", "mnist", "cifar10")
ALLOWED = f"""--data takes {", ".join(NAMES)}, or a folder with
  - MNIST's IDX files: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each with or without .gz;
  - or CIFAR-10's binary version: data_batch_1.bin and so on, test_batch.bin;
  - or a subfolder of image files for each class, such as cats/1.png and dogs/1.png; or train and test with these."""
RE_ENCODED = "CIFAR-10 there is a JPEG re-encoding: no figure of it compares with a published one."
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
CIFAR_SIZE = (3, 32, 32)
FEWEST = 4  # images of a class, of which a quarter is kept from the model


class Pictures(NamedTuple):
    """Images (n, h, w) or (n, h, w, 3) of bytes and their classes: to learn from, and kept from the model."""

    train: np.ndarray
    y: np.ndarray
    unseen: np.ndarray
    y_unseen: np.ndarray
    flip: bool = False  # whether what is mirrored left to right is as likely
    note: str = ""


def load(data: str, side: int | None = None) -> Pictures:
    """Read pictures by the name of a set or the path of a folder, image files cropped and resized to side × side."""
    folder = Path(data).expanduser()
    kind = data if data in NAMES else _kind(folder)
    if side is not None and kind != "classes":
        raise ValueError(f"--side is for folders of image files; got --data {data} has images of one size.")
    if kind == "digits":
        digits = load_digits()
        return _split(np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target)
    if kind == "mnist":
        return Pictures(*_loader().load_images("mnist"))
    if kind == "cifar10":
        return Pictures(*_loader().load_images("cifar10"), flip=True, note=RE_ENCODED)
    if kind == "idx":
        return read_mnist(folder)
    return read_cifar10(folder) if kind == "binary" else read_classes(folder, side)


def read_mnist(folder: Path) -> Pictures:
    """Read four IDX files of images and labels."""
    names = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    paths = [next((p for p in (folder / n, folder / f"{n}.gz") if p.is_file()), None) for n in names]
    missing = [name for name, path in zip(names, paths) if path is None]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, with or without .gz. Put all four files there.")
    parts = [read_idx(path, n_axes) for path, n_axes in zip(paths, (3, 1, 3, 1)) if path is not None]
    for images, labels, name in ((*parts[:2], paths[1]), (*parts[2:], paths[3])):
        if len(images) != len(labels):
            raise ValueError(f"{name} has {len(labels)} labels for {len(images)} images. Take all files from one set.")
    return Pictures(*parts)


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Read an IDX file of bytes: a head of big-endian numbers (what it holds, and the length of each axis), values."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}. Copy it again.") from error
    magic, start = bytes((0, 0, 8, n_axes)), 4 + 4 * n_axes
    if data[:4] != magic:
        raise ValueError(
            f"{path} must be an IDX file of bytes along {n_axes} axes, which begins with {magic.hex()}; got one "
            f"that begins with {data[:4].hex() or 'nothing'}. Copy it again."
        )
    shape = np.frombuffer(data[4:start].ljust(4 * n_axes, b"\0"), dtype=">u4").astype(int)
    if len(data) != start + shape.prod():
        raise ValueError(
            f"{path} must have {start + shape.prod()} bytes, for values of shape {tuple(shape.tolist())}; got "
            f"{len(data)}. It is {'truncated' if len(data) < start + shape.prod() else 'too long'}; copy it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy()


def read_cifar10(folder: Path) -> Pictures:
    """Read batches of records, a byte for the class and then the pixels; classes by name where batches.meta.txt is."""
    batches, last = sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin"
    if not batches or not last.is_file():
        lacking = last.name if batches else "data_batch_1.bin and so on"
        raise FileNotFoundError(f"{folder} lacks {lacking}. Put all batches of CIFAR-10's binary version there.")
    length = 1 + int(np.prod(CIFAR_SIZE))
    records = []
    for path in (*batches, last):
        data = path.read_bytes()
        if not data or len(data) % length:
            raise ValueError(
                f"{path} must hold records of {length} bytes; got {len(data)} bytes, {len(data) % length} too "
                "many. It is truncated, or not of CIFAR-10's binary version; copy it again."
            )
        records.append(np.frombuffer(data, dtype=np.uint8).reshape(-1, length))
    meta = folder / "batches.meta.txt"
    names = np.array(meta.read_text(encoding="utf-8").split() if meta.is_file() else range(10))

    def part(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if rows[:, 0].max() >= len(names):
            raise ValueError(f"{folder} has class {rows[:, 0].max()} of {len(names)}. These are no files of CIFAR-10.")
        return np.ascontiguousarray(np.moveaxis(rows[:, 1:].reshape(-1, *CIFAR_SIZE), 1, 3)), names[rows[:, 0]]

    return Pictures(*part(np.concatenate(records[:-1])), *part(records[-1]), flip=True)


def read_classes(folder: Path, side: int | None = None) -> Pictures:
    """Read image files, whose class is the name of the subfolder; a quarter is kept from the model."""
    kept = _files(folder / "train"), _files(folder / "test")
    paths = kept[0] + kept[1] if all(kept) else _files(folder)
    classes = np.array([path.parent.name for path in paths])
    names, counts = np.unique(classes, return_counts=True)
    if len(names) < 2 or counts.min() < FEWEST:
        rare = ", ".join(f"{name} {n}" for name, n in zip(names, counts) if n < FEWEST or len(names) < 2)
        raise ValueError(
            f"{folder} must have at least two subfolders, classes, of at least {FEWEST} images each; got {rare}. "
            "Add images, or remove the subfolder."
        )
    images = _pixels(paths, side)
    if not all(kept):
        return _split(images, classes)
    n = len(kept[0])
    new = sorted(set(classes[n:]) - set(classes[:n]))
    if new:
        raise ValueError(f"{folder / 'test'} has classes that {folder / 'train'} lacks: {', '.join(new)}.")
    return Pictures(images[:n], classes[:n], images[n:], classes[n:])


def _kind(folder: Path) -> str:
    """Return what a folder holds."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}.\n{ALLOWED}")
    if any(folder.glob("*-ubyte*")):
        return "idx"
    if any(folder.glob("*_batch*.bin")):
        return "binary"
    if _files(folder) or (_files(folder / "train") and _files(folder / "test")):
        return "classes"
    found = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    pickled = "\nThe pickled version of CIFAR-10 is not read, since opening a pickle may run code." * any(
        name.startswith("data_batch") for name in found
    )
    raise ValueError(f"{folder} holds none of what can be read, but {shown or 'nothing'}.\n{ALLOWED}{pickled}")


def _files(folder: Path) -> list[Path]:
    """Return the image files of subfolders, in order of their names."""
    return sorted(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES and p.name[0] != ".")


def _pixels(paths: list[Path], side: int | None) -> np.ndarray:
    """Read images of one size, grey if all of them are, and without transparency."""
    from PIL import Image, ImageOps  # of pip install "tabdiff[images]"

    pictures = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pictures.append(picture.copy() if side is None else ImageOps.fit(picture, (side, side)))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as an image: {error}. Mend or remove it.") from error
        if pictures[-1].size != pictures[0].size:
            (w, h), (width, height) = pictures[-1].size, pictures[0].size
            raise ValueError(
                f"images must have one size; got {width} × {height} pixels in {paths[0]}, {w} × {h} in {path}. "
                "Crop and resize all of them with --side 32, or another number."
            )
    read = read_images(pictures)
    assert read is not None
    pixels = np.moveaxis(read.array(), 1, 3)
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[3] < 3 else pixels[..., :3])


def _split(images: np.ndarray, y: np.ndarray) -> Pictures:
    train, unseen, y_train, y_unseen = train_test_split(images, y, test_size=0.25, stratify=y, random_state=0)
    return Pictures(train, y_train, unseen, y_unseen)


def _loader() -> Any:
    """Import load.py of the folder that TABDIFF_DATA names."""
    folder = os.environ.get("TABDIFF_DATA", "")
    path = Path(folder) / "load.py"
    if not folder or not path.is_file():
        found = f"TABDIFF_DATA={folder} has no load.py" if folder else "TABDIFF_DATA is unset"
        raise FileNotFoundError(
            f"{found}. Set it to a folder whose load.py has load_images(name), which returns X_train, y_train, X_test, "
            "y_test; or give the folder of your own files, --data PATH."
        )
    spec = importlib.util.spec_from_file_location("tabdiff_data_load", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
