"""What a folder of shards is of: written once, by whichever process comes first, and compared by all others."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tabdiff.io.data_files import DataFileError

__all__ = ["claim_folder", "read_manifest"]

VERSION = 1


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a manifest; None where there is none.

    Raises
    ------
    DataFileError
        If it is damaged, or of another version.
    """
    try:
        read = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path} cannot be read: {error}. Remove the folder, or choose another one.") from error
    if not isinstance(read, dict) or read.get("version") != VERSION:
        raise DataFileError(f"{path} is no manifest of this version of tabdiff. Choose another folder.")
    return read


def claim_folder(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest `path`, or compare it with what another process has written there.

    Of processes that begin at once, one writes it and all read what that has written.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    description : dict
        JSON types.

    Returns
    -------
    dict
        What the manifest says.

    Raises
    ------
    DataFileError
        Naming what differs.
    """
    description = {"version": VERSION, **description}
    if read_manifest(path) is None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(description, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            with contextlib.suppress(FileExistsError):
                _put(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    there = read_manifest(path)
    if there is None:
        raise DataFileError(f"{path} was removed as it was written. Give each run a folder of its own.")
    before, now = _flat(there), _flat(description)
    differ = [key for key in now if before.get(key) != now[key]]
    if differ:
        said = "; ".join(
            # A seed is derived from what was given, and would not be known again.
            "seed was another" if key == "seed" else f"{key} was {_short(before.get(key))} and is {_short(now[key])}"
            for key in differ
        )
        raise DataFileError(
            f"{path.parent} holds shards of another request: {said}. Ask for what it was begun with to go on, choose "
            "another path, or remove the folder."
        )
    return there


def _put(temporary: str, path: Path) -> None:
    """Give a file its name, unless another one has it: a FileExistsError then."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("x") as file:
            file.write(Path(temporary).read_text())


def _flat(description: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of what is nested beside the others."""
    flat: dict[str, Any] = {}
    for name, value in description.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
