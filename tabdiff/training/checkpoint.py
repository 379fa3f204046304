"""Checkpoints: a fit in progress as a file, from which it goes on as if nothing had happened.

A file is safetensors: the tensors, and in the header's metadata everything else as JSON; reading one runs no code. It
is written beside its place, flushed to the disk and renamed, so that at any moment the folder holds whole checkpoints
or none; older ones go only then.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from tabdiff.io.image_files import ImageFiles
from tabdiff.io.model_files import checksum
from tabdiff.io.row_store import StoredColumns
from tabdiff.io.serialization import pack, unpack
from tabdiff.training.callbacks import Callback, is_due
from tabdiff.training.state import Training
from tabdiff.utils.validation import is_integer, is_number

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "check_folder",
    "checkpoint_files",
    "describe_parameters",
    "fingerprint",
    "read_checkpoint",
]

PREFIX, SUFFIX = "checkpoint-", ".safetensors"
# What versions before the series wrote, a single one.
SINGLE = "checkpoint.safetensors"
FORMAT, FORMAT_VERSION = "tabdiff checkpoint", 2
UNITS = ("seconds", "steps", "epochs")
# What may differ between an interrupted fit and the one that goes on with it: none of it changes the result. Seeds are
# compared as such.
FREE = ("callbacks", "compile", "random_state", "verbose")


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another version, or of another fit.

    Examples
    --------
    >>> from tabdiff.training import CheckpointError
    >>> issubclass(CheckpointError, Exception)
    True
    """


class Checkpoint(Callback):
    """Keep a fit in progress in a folder, every so often and at the end of training; `fit` goes on from there.

    ``fit(..., resume_from=folder)`` with the same data and parameters goes on from the last one, or from a certain one
    whose path it is given. Name this callback last, so that a checkpoint holds what the others did in its step.

    Parameters
    ----------
    folder : path-like
        One for each fit, made if need be, for files such as ``checkpoint-0000300.safetensors`` by the step. The first
        checkpoint of a new fit replaces all that are there.
    every : float, default=300
        Seconds, steps or epochs between two; 0 seconds writes one after each step. Steps and epochs are whole.
    unit : {"seconds", "steps", "epochs"}, default="seconds"
        What `every` counts; an epoch is as many rows as training has.
    keep : int or None, default=1
        How many of the last ones stay; None keeps all.

    Raises
    ------
    ValueError
        If a value is out of range.
    OSError
        In `fit`, if the folder cannot be written to; the checkpoints in it stay.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from tabdiff import DiffusionGenerator
    >>> from tabdiff.training import Checkpoint
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = Checkpoint(folder, every=10, unit="steps", keep=2)
    ...     gen = DiffusionGenerator(max_steps=30, hidden_size=8, callbacks=[kept], random_state=0).fit(X)
    ...     names = sorted(os.listdir(folder))
    ...     again = gen.fit(X, resume_from=os.path.join(folder, names[0]))
    >>> names
    ['checkpoint-0000020.safetensors', 'checkpoint-0000030.safetensors']
    """

    def __init__(
        self, folder: str | os.PathLike, *, every: float = 300, unit: str = "seconds", keep: int | None = 1
    ) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(f"folder must be the path of a folder; got {folder!r}.")
        if unit not in UNITS:
            raise ValueError(f"unit must be 'seconds', 'steps' or 'epochs'; got {unit!r}.")
        number = is_number(every)
        if unit == "seconds" and not (number and every >= 0):
            raise ValueError(f"every must be at least 0 seconds; got {every!r}.")
        if unit != "seconds" and not (number and every == int(every) >= 1):
            raise ValueError(f"every must be a whole number of {unit}, at least 1; got {every!r}.")
        if keep is not None and not is_integer(keep, 1):
            raise ValueError(f"keep must be None or an integer of at least 1; got {keep!r}.")
        self.folder = folder
        self.every = every
        self.unit = unit
        self.keep = keep

    def on_fit_begin(self, training: Training) -> None:
        """Start the clock."""
        self._last = time.perf_counter()
        # Those of a fit that goes on belong to it up to where it stands.
        own = [path for path in checkpoint_files(self.folder) if _step_of(path) <= training.step]
        self._own = own if training.step else []

    def on_step_end(self, training: Training) -> bool | None:
        """Write where it is time."""
        if self.unit == "seconds":
            due = time.perf_counter() - self._last >= self.every
        else:
            due = is_due(training, int(self.every), self.unit)
        if due:
            self._write(training)
        return None

    def on_fit_end(self, training: Training) -> None:
        """Write the end of training, so that what follows it can be interrupted too."""
        if training.finished:
            self._write(training)

    def _write(self, training: Training) -> None:
        content = {"fit": training.description or {}, "training": training.state_dict()}
        try:
            path = write_checkpoint(self.folder, content)
            own = [*(other for other in self._own if other != path), path]
            self._own = own if self.keep is None else own[-self.keep :]
            for other in checkpoint_files(self.folder):
                if other not in self._own:
                    other.unlink(missing_ok=True)
        except OSError as error:
            there = "The last one is whole" if checkpoint_files(self.folder) else "There is none yet"
            folder = os.fspath(self.folder)
            raise OSError(
                f"the checkpoint of step {training.step} could not be written to {folder}: {error}. {there}. "
                f"Make room or choose another folder; fit(..., resume_from={folder!r}) goes on from the last one."
            ) from error
        self._last = time.perf_counter()


def check_folder(folder: str | os.PathLike) -> None:
    """Make a folder of checkpoints, and see that it can be written to.

    Raises
    ------
    OSError
        If it cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=os.fspath(folder), prefix=PREFIX, suffix=".part"):
            pass
    except OSError as error:
        raise OSError(
            f"the folder of Checkpoint({os.fspath(folder)!r}) cannot be written to: {error}. Choose another one."
        ) from error


def _step_of(path: Path) -> int:
    """Return the step that the name of a checkpoint tells, -1 for another file."""
    found = re.fullmatch(rf"{PREFIX}(\d+){re.escape(SUFFIX)}", path.name)
    return int(found[1]) if found else -1


def checkpoint_files(folder: str | os.PathLike) -> list[Path]:
    """Return the checkpoints of a folder, by their steps."""
    found = [path for path in Path(folder).glob(f"{PREFIX}*{SUFFIX}") if _step_of(path) >= 0]
    return sorted(found, key=_step_of)


def write_checkpoint(folder: str | os.PathLike, description: dict[str, Any]) -> Path:
    """Write a description of plain values and tensors to a folder, and return the file, named by its step.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written to; the checkpoints that were there stay.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(pack(_to_numpy(description), arrays), allow_nan=False)
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "description": text}
    header["checksum"] = checksum(text, arrays)
    content = save(arrays, metadata=header)
    path = Path(folder) / f"{PREFIX}{description['training']['step']:07d}{SUFFIX}"
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(folder)
    return path


def _sync(folder: str | os.PathLike) -> None:
    """Flush the folder itself, without which a power failure may undo the renaming; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any] | None:
    """Read a checkpoint, or the last one of a folder: what was written, with tensors on the CPU; None where none is.

    Raises
    ------
    CheckpointError
        If it is damaged, or of another format version.
    """
    from safetensors import safe_open

    path = Path(path)
    if path.suffix != SUFFIX:
        # What a kill has left half-written is of no use to anyone.
        for part in path.glob(f"{PREFIX}*.part"):
            part.unlink(missing_ok=True)
        path = (checkpoint_files(path) or [path / SINGLE])[-1]
    if not path.is_file():
        return None
    others = [other for other in checkpoint_files(path.parent) if other != path]
    choice = "start over without resume_from"
    if others:
        choice += f", or go on from another: resume_from={os.fspath(others[-1])!r}"
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if header.get("format") != FORMAT:
            raise CheckpointError(f"{path} is no checkpoint of tabdiff.")
        if header.get("format_version") != str(FORMAT_VERSION):
            raise CheckpointError(
                f"{path} has format version {header.get('format_version')}; this version of tabdiff reads "
                f"{FORMAT_VERSION}. Use the version that wrote it, or {choice}."
            )
        if header.get("checksum") != checksum(header["description"], arrays):
            raise CheckpointError(f"{path} is damaged: its checksum is not that of its content; {choice}.")
        read: dict[str, Any] = _to_torch(unpack(json.loads(header["description"]), arrays))
        return {"fit": read["fit"], "training": read["training"]}
    except CheckpointError:
        raise
    except Exception as error:  # whatever a file can bring about
        raise CheckpointError(f"{path} is damaged ({error}); {choice}.") from error


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
    """Return the parameters of an estimator that its result depends on as texts, the same in every process.

    An object of options is its kind, and each of its options by itself: ``training__ema_decay``.
    """
    found = {}
    for name, value in sorted(parameters.items()):
        if isinstance(value, BaseEstimator):
            found[name] = type(value).__name__
            options = describe_parameters(value.get_params(deep=False))
            found.update({f"{name}__{option}": text for option, text in options.items()})
        elif name not in FREE:
            found[name] = _as_text(value)
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_text(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_text(k)}: {_as_text(v)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, str | bool | int | float | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, torch.device):
        return str(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    plain = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
    settings = [f"{k}={_as_text(v)}" for k, v in sorted(plain.items()) if isinstance(v, str | bool | int | float)]
    return name + (f"({', '.join(settings)})" if settings else "")


def fingerprint(codec: Any, *tensors: Tensor | ImageFiles | StoredColumns | None) -> str:
    """Return a hash of a fitted codec and of tensors: the encoded rows, their condition and weights."""
    digest = hashlib.sha256()
    arrays: dict[str, np.ndarray] = {}
    try:
        digest.update(json.dumps(pack(codec.state(), arrays)).encode())
    except TypeError:
        # A codec that cannot be saved, for the name of a column, say: the encoded rows tell as much but for units.
        arrays = {}
    for i, t in enumerate(tensors):
        if isinstance(t, ImageFiles | StoredColumns):
            digest.update(t.digest())
        elif t is not None:
            arrays[f"tensor {i}"] = t.detach().cpu().numpy()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
