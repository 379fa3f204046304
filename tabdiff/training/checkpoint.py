"""Checkpoints: a fit in progress as one file, from which it goes on as if nothing had happened.

The file is safetensors: the tensors, and in the header's metadata everything else as JSON; reading one runs no code. It
is written beside its place, flushed to the disk and renamed, so that at any moment the folder holds a whole checkpoint
or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.io.image_files import ImageFiles
from tabdiff.io.model_files import checksum
from tabdiff.io.serialization import pack, unpack
from tabdiff.training.callbacks import Callback
from tabdiff.training.state import Training

__all__ = ["CheckpointError", "Checkpoints", "check_folder", "describe_parameters", "fingerprint", "read_checkpoint"]

FILE = "checkpoint.safetensors"
FORMAT, FORMAT_VERSION = "tabdiff checkpoint", 1
# What may differ between an interrupted fit and the one that goes on with it: none of it changes the result. Seeds are
# compared as such.
FREE = ("callbacks", "checkpoint_dir", "checkpoint_every", "random_state", "verbose")


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another version, or of another fit."""


class Checkpoints(Callback):
    """Write a checkpoint every so many seconds, and at the end of training.

    Parameters
    ----------
    folder : path-like
        Where to.
    every : float
        Seconds between two.
    fit : dict
        Plain description of the fit, which tells whether another one may go on with the checkpoint.
    """

    def __init__(self, folder: str | os.PathLike, every: float, fit: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.every = every
        self.fit = fit

    def on_fit_begin(self, training: Training) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_step_end(self, training: Training) -> bool | None:
        """Write where it is time."""
        if time.perf_counter() - self._last >= self.every:
            self._write(training)
        return None

    def on_fit_end(self, training: Training) -> None:
        """Write the end of training, so that what follows it can be interrupted too."""
        if training.finished:
            self._write(training)

    def _write(self, training: Training) -> None:
        try:
            write_checkpoint(self.folder, {"fit": self.fit, "training": training.state_dict()})
        except OSError as error:
            there = "The last one is whole" if (self.folder / FILE).is_file() else "There is none yet"
            raise OSError(
                f"the checkpoint of step {training.step} could not be written to {self.folder}: {error}. {there}. "
                "Make room or choose another checkpoint_dir; fit(..., resume=True) goes on from the last one."
            ) from error
        self._last = time.perf_counter()


def check_folder(folder: str | os.PathLike) -> None:
    """Make the folder of checkpoints, and see that it can be written to.

    Raises
    ------
    OSError
        If it cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=os.fspath(folder), prefix=FILE, suffix=".part"):
            pass
    except OSError as error:
        raise OSError(
            f"checkpoint_dir={os.fspath(folder)!r} is no folder that can be written to: {error}. Choose another one."
        ) from error


def write_checkpoint(folder: str | os.PathLike, description: dict[str, Any]) -> None:
    """Write a description of plain values and tensors as the checkpoint of a folder.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written to; the checkpoint that was there stays.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(pack(_to_numpy(description), arrays), allow_nan=False)
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "description": text}
    header["checksum"] = checksum(text, arrays)
    content = save(arrays, metadata=header)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=FILE, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, Path(folder) / FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(folder)


def _sync(folder: str | os.PathLike) -> None:
    """Flush the folder itself, without which a power failure may undo the renaming; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(folder: str | os.PathLike) -> dict[str, Any] | None:
    """Read the checkpoint of a folder: None where there is none, otherwise what was written, with tensors on the CPU.

    Raises
    ------
    CheckpointError
        If it is damaged, or of another format version.
    """
    from safetensors import safe_open

    # What a kill has left half-written is of no use to anyone.
    for part in Path(folder).glob(f"{FILE}*.part"):
        part.unlink(missing_ok=True)
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if header.get("format") != FORMAT:
            raise CheckpointError(f"{path} is no checkpoint of tabdiff.")
        if header.get("format_version") != str(FORMAT_VERSION):
            raise CheckpointError(
                f"{path} has format version {header.get('format_version')}; this version of tabdiff reads "
                f"{FORMAT_VERSION}. Use the version that wrote it, or start over without resume=True."
            )
        if header.get("checksum") != checksum(header["description"], arrays):
            raise CheckpointError(
                f"{path} is damaged: its checksum is not that of its content; start over without resume=True."
            )
        read: dict[str, Any] = _to_torch(unpack(json.loads(header["description"]), arrays))
        return {"fit": read["fit"], "training": read["training"]}
    except CheckpointError:
        raise
    except Exception as error:  # whatever a file can bring about
        raise CheckpointError(f"{path} is damaged ({error}); start over without resume=True.") from error


def _to_numpy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {k: _to_numpy(v) for k, v in value.items()}
    return [_to_numpy(v) for v in value] if isinstance(value, list) else value


def _to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, dict):
        return {k: _to_torch(v) for k, v in value.items()}
    return [_to_torch(v) for v in value] if isinstance(value, list) else value


# ------------------------------------------------------------ which fit it is


def describe_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of an estimator that its result depends on as texts, the same in every process."""
    return {name: _as_text(value) for name, value in sorted(parameters.items()) if name not in FREE}


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_text(v) for v in value) + "]"
    if value is None or isinstance(value, str | bool | int | float | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, torch.device):
        return str(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    plain = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
    settings = [f"{k}={_as_text(v)}" for k, v in sorted(plain.items()) if isinstance(v, str | bool | int | float)]
    return name + (f"({', '.join(settings)})" if settings else "")


def fingerprint(codec: Any, *tensors: Tensor | ImageFiles | None) -> str:
    """Return a hash of a fitted codec and of tensors: the encoded rows, their condition and weights."""
    digest = hashlib.sha256()
    arrays: dict[str, np.ndarray] = {}
    try:
        digest.update(json.dumps(pack(codec.state(), arrays)).encode())
    except TypeError:
        # A codec that cannot be saved, for the name of a column, say: the encoded rows tell as much but for units.
        arrays = {}
    for i, t in enumerate(tensors):
        if isinstance(t, ImageFiles):
            digest.update(t.digest())
        elif t is not None:
            arrays[f"tensor {i}"] = t.detach().cpu().numpy()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
