"""What the commands share: requests that cannot be met, kinds of arguments, reading and writing of files."""

from __future__ import annotations

import argparse
import contextlib
import math
import secrets
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tabdiff.cli.pages import page_address, page_of

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = [
    "PROG",
    "STDOUT",
    "CommandError",
    "Parser",
    "READ_OPTIONS",
    "brief_warnings",
    "column_word",
    "is_cells",
    "is_images",
    "kind",
    "load",
    "name_value",
    "number",
    "one_line",
    "positive_int",
    "positive_number",
    "read",
    "read_options",
    "requests",
    "say",
    "seed",
    "seed_of",
    "separator",
    "write",
]

PROG = "tabdiff"
# In the place of a file's name: csv on standard output.
STDOUT = "-"
# Options of csv files, passed to `read_data` under the same name.
READ_OPTIONS = ("sep", "decimal", "thousands", "encoding", "header", "skip", "missing", "text", "dates", "drop")


class CommandError(Exception):
    """A request that cannot be met; the message is for the person who made it.

    Parameters
    ----------
    message : str
    subject : str, optional
        Of `PAGES`: what a page of the documentation is about that helps; by default that of the command.
    """

    def __init__(self, message: str, subject: str | None = None) -> None:
        super().__init__(message)
        self.subject = subject


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: what is wrong, and where the usage stands."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        command = self.prog.partition(" ")[2] or None
        page = page_address(page_of(argparse.Namespace(command=command)))
        self.exit(2, f"{PROG}: error: {one_line(message)} (see {self.prog} --help, or {page})\n")


def one_line(text: object) -> str:
    """Text without line breaks."""
    return " ".join(str(text).split())


@contextlib.contextmanager
def requests(subject: str | None = None) -> Iterator[None]:
    """Turn the errors that the package documents for bad input into a CommandError; others keep their traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        raise CommandError(str(error) or type(error).__name__, subject) from error


@contextlib.contextmanager
def brief_warnings() -> Iterator[None]:
    """Show warnings as one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"{PROG}: warning: {one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        # News for developers of other libraries is of no use to whoever runs a command.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = show
        yield


def positive_int(text: str) -> int:
    """Read an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return value


def seed(text: str) -> int:
    """Read a seed."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1; got {text!r}")
    return value


def seed_of(args: argparse.Namespace) -> int:
    """Return the seed that was asked for, or a new one, which the command then prints."""
    return secrets.randbelow(2**31) if args.seed is None else int(args.seed)


def number(text: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number; got {text!r}")
    return value


def positive_number(text: str) -> float:
    """Read a positive number."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be positive; got {text!r}")
    return value


def separator(text: str) -> str:
    """Read a separator; a tab may be typed."""
    return "\t" if text == r"\t" else text


def name_value(text: str) -> str:
    """Check the form NAME=VALUE."""
    if text.find("=") < 1:
        raise argparse.ArgumentTypeError(f"must have the form NAME=VALUE; got {text!r}")
    return text


def load(path: str, device: str) -> DiffusionGenerator:
    """Load a model."""
    from tabdiff import DiffusionGenerator

    with requests("models"):
        return DiffusionGenerator.load(path, device=device)


def is_cells(gen: DiffusionGenerator) -> bool:
    """Whether a model is of cells."""
    return kind(gen) == "cells"


def is_images(gen: DiffusionGenerator) -> bool:
    """Whether a model is of images."""
    return kind(gen) == "images"


def kind(gen: DiffusionGenerator) -> str:
    """What a model is of: "table", "cells", "images" or "sequences"."""
    name = gen.model_.container
    return "table" if name == "array" else name


def column_word(gen: DiffusionGenerator) -> str:
    """What the columns of a model are called."""
    return {"cells": "genes", "multimodal": "features", "images": "values"}.get(kind(gen), "columns")


def read_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of csv files that were given."""
    return {name: getattr(args, name) for name in READ_OPTIONS if getattr(args, name) is not None}


def read(path: str, options: dict[str, Any] | None = None) -> Any:
    """Read a file, or the path of a folder of images as it is."""
    from tabdiff.io.data_files import read_data

    folder = Path(path)
    if folder.is_dir() and not folder.suffix:
        if options:
            raise CommandError(
                f"--{next(iter(options))} is for tables, and {path} is a folder of images. Leave it out.", "csv"
            )
        return folder
    return read_data(path, **(options or {}))


def write(data: Any, output: str) -> None:
    """Write data to a file, or a table as csv to standard output."""
    from tabdiff.io.csv_files import write_csv
    from tabdiff.io.data_files import write_data

    if output != STDOUT:
        write_data(data, output)
        return
    import tempfile

    # By way of a file: the form of a csv is that of the file that was read.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        write_csv(data, path)
        sys.stdout.write(path.read_text(encoding="utf-8"))
        sys.stdout.flush()


def say(args: argparse.Namespace, text: str) -> None:
    """Print how it went: on standard error where standard output is the data."""
    if not args.quiet:
        print(text, file=sys.stderr if getattr(args, "output", None) in (None, STDOUT) else sys.stdout)
