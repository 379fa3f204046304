"""Files that appear when they are whole, or not at all, and folders that go with what uses them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ScratchFolder", "replacing"]


class ScratchFolder:
    """A temporary folder that goes, without a warning, when the last thing that keeps it does.

    Parameters
    ----------
    prefix : str
        Of its name.
    dir : path-like, optional
        Where it is made; by default where the system has temporary files.

    Attributes
    ----------
    name : str
        Its path.
    """

    def __init__(self, prefix: str, dir: str | os.PathLike | None = None) -> None:
        self.name = tempfile.mkdtemp(prefix=prefix, dir=dir)
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place when the block ends, or goes if the block fails.

    Yields
    ------
    Path
        An empty file with the ending of `path`, to be written over.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read; give this one the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
