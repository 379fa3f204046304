"""Fitted models as files, without code in them: JSON and safetensors.

A model is a folder with ``config.json`` and ``model.safetensors``, or a single ``.safetensors`` file in which the same
JSON is one of the arrays. `pack` splits a nested description into JSON and arrays; `unpack` puts it together again.
Nothing is ever unpickled, no path is ever taken from a file, and a checksum over both parts tells damage: it is no
signature, so that whoever can write the file can make one that is whole. What such a file can do is fail to load, or
be a bad model.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tabdiff.io.atomic import replacing
from tabdiff.io.serialization import CONFIG, WEIGHTS, ModelFileError, pack, unpack

__all__ = ["FORMAT_VERSION", "SUFFIX", "checksum", "is_model_file", "read_model", "write_model"]

FORMAT, FORMAT_VERSION = "tabdiff", 1
# The ending of a model in a single file.
SUFFIX = ".safetensors"


def checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of a text and of named arrays: their names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _checksum(config: dict, arrays: Mapping[str, np.ndarray]) -> str:
    """Hash a config, whatever its layout, without the checksum in it, and the arrays."""
    content = {key: value for key, value in config.items() if key != "checksum"}
    return checksum(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False), arrays)


# ---------------------------------------------------------------------- writing


def write_model(path: str | os.PathLike, description: dict) -> None:
    """Write a description to the folder `path`, made if need be, or to the single file `path` if it ends in SUFFIX.

    An older model there is replaced. Each file is written beside its place and then renamed, so that a failure leaves
    the old one whole.

    Raises
    ------
    FileExistsError
        If `path` is anything else that is there already.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **pack(description, arrays)}
    config["checksum"] = _checksum(config, arrays)
    text = json.dumps(config, indent=1, allow_nan=False).encode("utf-8")
    if path.suffix == SUFFIX:
        _write_file(path, text, arrays)
    else:
        _write_folder(path, text, arrays)


def _write_file(path: Path, text: bytes, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    if path.is_dir():
        raise FileExistsError(
            f"{path} is a folder, while a model that ends in {SUFFIX} is a file. Choose another path."
        )
    if path.exists() and not is_model_file(path):
        raise FileExistsError(f"{path} is there already, and is no model of tabdiff. Choose another path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION)}
    with replacing(path) as temporary:
        save_file({**arrays, CONFIG: np.frombuffer(text, dtype=np.uint8)}, temporary, metadata=metadata)


def _write_folder(folder: Path, text: bytes, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    if folder.is_file():
        raise FileExistsError(
            f"{folder} is a file; a model is a folder, or a file that ends in {SUFFIX}. Choose another path."
        )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise FileExistsError(f"{folder} is not empty and holds no model. Choose another path.")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        save_file(arrays, temporary)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_bytes(text)


def is_model_file(path: Path) -> bool:
    """Whether a file is a model in a single file, or says so."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


# ---------------------------------------------------------------------- reading


def read_model(path: str | os.PathLike) -> dict:
    """Read a description back from a folder or a single file.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, no model, or of another format version.
    """
    path = Path(path)
    if path.is_dir():
        text, arrays = _read_folder(path)
    elif path.is_file():
        text, arrays = _read_file(path)
    elif path.suffix == SUFFIX or path.exists():
        raise ModelFileError(f"{path}: {'this is no file' if path.exists() else 'there is no such file'}.")
    else:
        raise ModelFileError(f"{path} is no model folder: it does not exist.")
    config = _parse(path, text)
    if config.get("checksum") != _checksum(config, arrays):
        raise ModelFileError(
            f"{path} is damaged, or was changed by hand: its checksum is not that of its content. Save the model again."
        )
    try:
        description: dict = unpack(config, arrays)
        return description
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike, error: Exception) -> ModelFileError:
    """Return the error that says what in a file could not be made sense of."""
    what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
    return ModelFileError(f"{path} is damaged ({type(error).__name__}: {what:.300})")


def _read_folder(folder: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    for name in (CONFIG, WEIGHTS):
        try:
            mode = (folder / name).lstat().st_mode
        except OSError:
            raise ModelFileError(f"{folder} is no model folder: it has no {name}.") from None
        # A link may lead anywhere, and a pipe or a device is read without an end.
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no ordinary file"
            raise ModelFileError(f"{folder / name} is {kind}; a model holds its files themselves. Copy it there.")
    return (folder / CONFIG).read_bytes(), _read_arrays(folder / WEIGHTS)[0]


def _read_file(path: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    arrays, metadata = _read_arrays(path)
    if metadata.get("format") != FORMAT or CONFIG not in arrays:
        raise ModelFileError(f"{path} is no model of tabdiff: it holds no {CONFIG}.")
    return arrays.pop(CONFIG).tobytes(), arrays


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file, which checks that its header is short and says what the file holds, no more, no less."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except Exception as error:
        raise ModelFileError(f"{path} is damaged, or no model folder and no {SUFFIX} file ({error}).") from error


def _parse(path: Path, text: bytes) -> dict:
    try:
        config = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{CONFIG} of {path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelFileError(f"{CONFIG} of {path} does not describe a tabdiff model.")
    if config.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {config.get('format_version')!r:.40}; this version of tabdiff reads "
            f"{FORMAT_VERSION}. Use the version that wrote it."
        )
    return config


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
