"""The command ``tabdiff``: fit, sample and describe models of files, and show what the package does.

::

    tabdiff fit penguins.csv --condition species -o penguins.model
    tabdiff sample penguins.model -n 500 --condition species=Gentoo -o gentoo.csv
    tabdiff info penguins.model
    tabdiff fit pictures -o pictures.model
    tabdiff sample pictures.model -n 64 -o drawn
    tabdiff demo

Whatever is wrong with the request is one line on stderr that starts with ``tabdiff: error:``; the exit code is then 2
for the usage and 1 for anything else. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import secrets
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["CommandError", "main"]

PROG = "tabdiff"
FILES = "csv, parquet or h5ad, by the file name's ending, or a folder of images"
DRAWN = FILES + "; a folder takes shards of any kind, and a file may be zarr, fasta or npy too"


class CommandError(Exception):
    """A request that cannot be met; the message is for the person who made it."""


class _SilentError(Exception):
    """An error that another process has told of."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: what is wrong, and where the usage stands."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROG}: error: {_one_line(message)} (see {self.prog} --help)\n")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


@contextlib.contextmanager
def _requests() -> Iterator[None]:
    """Turn the errors that the package documents for bad input into a CommandError; others keep their traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        raise CommandError(str(error) or type(error).__name__) from error


@contextlib.contextmanager
def _brief_warnings() -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"{PROG}: warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        # News for developers of other libraries is of no use to whoever runs a command.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = show
        yield


# ------------------------------------------------------------------ arguments


def _positive_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, however: {text!r}")
    return value


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1, however: {text!r}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, however: {text!r}")
    return value


def _positive_number(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be positive, however: {text!r}")
    return value


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    try:
        i, k = int(number), int(count)
    except ValueError:
        i, k = 0, 0
    if not slash or not 1 <= i <= k:
        raise argparse.ArgumentTypeError(f"must be I/K with I from 1 to K, such as 3/1000; got {text!r}")
    return i, k


def _separator(text: str) -> str:
    return "\t" if text == r"\t" else text


def _name_value(text: str) -> str:
    if text.find("=") < 1:
        raise argparse.ArgumentTypeError(f"must have the form NAME=VALUE, however: {text!r}")
    return text


class _Version(argparse.Action):
    """Print the version, looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(f"{PROG} {_version()}")
        parser.exit()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tabdiff")
    except PackageNotFoundError:
        return "(not installed: run from its source folder)"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog=PROG,
        description="Diffusion models of tables and single cells: learn from a file, draw new rows like it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    fit = commands.add_parser("fit", help="learn from a file", allow_abbrev=False)
    fit.description = "Learn from a file and write the model to a folder; a model that is there already is replaced."
    fit.set_defaults(run=_fit)
    fit.add_argument("file", metavar="FILE", help=FILES + '; a folder or glob of parquet or csv, "lake/*.parquet"')
    fit.add_argument("-o", "--output", metavar="MODEL", required=True, help="folder for the model")
    fit.add_argument(
        "--condition",
        metavar="NAME",
        nargs="+",
        action="extend",
        default=[],
        help="columns (of obs, for h5ad) that samples can be asked by",
    )
    fit.add_argument("--max-steps", metavar="N", type=_positive_int, help="training steps (default: by the rows)")
    fit.add_argument("--max-time", metavar="S", type=_positive_number, help="seconds of training at most")
    fit.add_argument("--layer", metavar="LAYER", help="h5ad: the layer to model, X or raw (default: where counts are)")
    fit.add_argument(
        "--cache-dir", metavar="DIR", help="where the encoded rows of many files lie, to go on from a kill"
    )
    fit.add_argument("--drop", metavar="NAME", nargs="+", action="extend", help="columns to leave out")
    _add_csv(fit.add_argument_group("csv files", "Mostly recognised; samples are written in the same form."))
    _add_common(fit)

    sample = commands.add_parser("sample", help="draw new rows from a model", allow_abbrev=False)
    sample.description = "Draw new rows and write them to a file; a file that is there already is replaced."
    sample.set_defaults(run=_sample)
    sample.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")
    sample.add_argument("-n", "--n-samples", metavar="N", type=_positive_int, required=True, help="number of rows")
    sample.add_argument("-o", "--output", metavar="FILE", required=True, help=DRAWN)
    sample.add_argument(
        "--condition",
        metavar="NAME=VALUE",
        type=_name_value,
        nargs="+",
        action="extend",
        default=[],
        help="what all rows are to have; conditions left out are drawn as they occurred with it",
    )
    sample.add_argument(
        "--guidance-scale",
        metavar="S",
        type=_number,
        default=1.0,
        help="1: none (default), 0: ignore the condition, above 1: exaggerate it",
    )
    sample.add_argument(
        "--steps", metavar="K", type=_positive_int, help="steps of the sampler (default: 50; 25 if refined)"
    )
    shards = sample.add_argument_group(
        "shards",
        "For more rows than fit into memory: FILE may be a folder, for a file for each shard. A run that was killed "
        "goes on with the same command.",
    )
    shards.add_argument(
        "--shard-size", metavar="N", type=_positive_int, help="rows of a shard (default: by the columns)"
    )
    shards.add_argument(
        "--shard", metavar="I/K", type=_shard, help="draw the I-th of K shards only, for arrays of jobs"
    )
    shards.add_argument("--jobs", metavar="J", type=int, help="processes that draw; -1: one for each core")
    shards.add_argument("--format", metavar="F", default="auto", help="of the files of a folder, such as csv or zarr")
    _add_common(sample)

    info = commands.add_parser("info", help="describe a model", allow_abbrev=False)
    info.description = "Describe a model: its columns, conditions, training and size."
    info.set_defaults(run=_info)
    info.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")

    demo = commands.add_parser("demo", help="fit real data, score the samples and draw a picture", allow_abbrev=False)
    demo.description = (
        "Fit one half of a real data set, sample as many rows as the other half has, and compare: blood cells that "
        "ship with scanpy, or with --table the Palmer penguins. Prints a scorecard and writes a picture."
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--table", action="store_true", help="the penguins, a table with missing values")
    demo.add_argument("-o", "--output", metavar="DIR", default=".", help="folder for the picture (default: this one)")
    demo.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the split, the fit and the samples")
    return parser


def _add_csv(group: Any) -> None:
    group.add_argument("--sep", metavar="C", type=_separator, help="what separates fields; \\t for a tab")
    group.add_argument("--decimal", metavar="C", help="the decimal mark: , or .")
    group.add_argument("--thousands", metavar="C", help="what groups digits, as in 1,234,567")
    group.add_argument("--encoding", metavar="E", help="such as cp1252 or utf-16-le (default: utf-8)")
    group.add_argument("--no-header", dest="header", action="store_false", default=None, help="there are no names")
    group.add_argument("--skip", metavar="N", type=_positive_int, help="lines to skip above the header")
    group.add_argument("--missing", metavar="TEXT", nargs="+", action="extend", help="what marks missing values")
    group.add_argument("--text", metavar="NAME", nargs="+", action="extend", help="columns that are text")
    group.add_argument("--dates", metavar="ORDER", help="dmy or mdy, of dates such as 02/03/2024")


# Options of `fit` that are passed to `read_data` under the same name.
READ_OPTIONS = ("sep", "decimal", "thousands", "encoding", "header", "skip", "missing", "text", "dates", "drop")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", metavar="N", type=_seed, help="makes the result repeat (default: a new one, printed)")
    parser.add_argument("--device", metavar="D", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 1 where the request could not be met. Bad usage raises SystemExit with code 2.
    """
    args = make_parser().parse_args(argv)
    try:
        with _brief_warnings():
            args.run(args)
    except CommandError as error:
        print(f"{PROG}: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except _SilentError:
        return 1
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and "nstall" not in str(error)
        fix = f". Install it: pip install {str(error.name).partition('.')[0]}" if missing else ""
        print(f"{PROG}: error: {_one_line(error)}{fix}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130
    return 0


# ------------------------------------------------------------------- commands


def _fit(args: argparse.Namespace) -> None:
    from tabdiff.io.data_files import check_model_output, read_data
    from tabdiff.io.frame_source import is_frame_source

    with _requests():
        check_model_output(args.output)
        options = {name: getattr(args, name) for name in READ_OPTIONS if getattr(args, name) is not None}
        path = Path(args.file)
        # A glob or folder of tables is read some rows at a time, by `fit`.
        several = (path.is_dir() or not path.exists()) and is_frame_source(args.file)
        several = several and (path.is_dir() or any(c in args.file for c in "*?[") or "://" in args.file)
        # Another folder is images, with a subfolder for each class if there are any; `fit` reads them.
        images = path.is_dir() and not path.suffix and not several
        if (images or several) and options:
            what = "a folder of images" if images else "read some rows at a time"
            raise CommandError(
                f"--{next(iter(options))} is for a table in one file, and {path} is {what}. Leave it out."
            )
        data = args.file if several else path if images else read_data(path, **options)
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed

    from tabdiff import DiffusionGenerator

    start = time.perf_counter()
    with _requests(), _processes(args.device) as is_first:
        gen = DiffusionGenerator(
            max_steps="auto" if args.max_steps is None else args.max_steps,
            max_time=args.max_time,
            layer=args.layer,
            device=args.device,
            random_state=seed,
            verbose=int(is_first and not args.quiet and sys.stderr.isatty()),
        )
        gen.fit(data, condition=args.condition or None, cache_dir=args.cache_dir)
        if is_first:
            gen.save(args.output)
    if is_first and not args.quiet:
        rows, columns = (gen.n_samples_fit_, gen.n_features_in_) if isinstance(data, str | Path) else data.shape
        print(
            f"{args.output}: {rows:,} rows × {columns:,} {_column_word(gen)}, {gen.n_steps_:,} steps in "
            f"{time.perf_counter() - start:.0f} s, loss {gen.history_['loss'][-1]:.3f}, seed {seed}"
        )


@contextlib.contextmanager
def _processes(device: str) -> Iterator[bool]:
    """Join the processes that torchrun started, if it did; say whether this one is the first, which writes."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        yield True
        return
    import torch
    import torch.distributed as dist

    from tabdiff.training.world import FirstFailedError, WorldError

    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield dist.get_rank() == 0
    except FirstFailedError as error:
        raise _SilentError from error
    except WorldError as error:
        raise CommandError(str(error)) from error
    finally:
        dist.destroy_process_group()


def _sample(args: argparse.Namespace) -> None:
    from tabdiff.cli.conditions import parse_conditions
    from tabdiff.generation.shards import as_table
    from tabdiff.io.data_files import check_fits, check_folder_output, check_output, write_data
    from tabdiff.io.image_grid import save_images

    in_shards = (args.shard_size, args.shard, args.jobs) != (None, None, None) or args.format != "auto"
    suffix = Path(args.output).suffix
    if suffix and not in_shards and suffix not in (".zarr", ".fasta", ".fa", ".npy"):
        with _requests():
            check_output(args.output)
    gen = _load(args.model, args.device)
    gen.model_ = gen.model_.in_pandas()
    if in_shards or suffix in (".zarr", ".fasta", ".fa", ".npy") or not (suffix or _is_images(gen)):
        _sample_shards(args, gen)
        return
    folder = _is_images(gen)
    with _requests():
        check_folder_output(args.output) if folder else check_output(args.output)
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    with _requests():
        if not folder:
            check_fits(args.output, cells=_is_cells(gen))
        condition = parse_conditions(gen, args.condition)
        rows, labels = gen.sample(
            args.n_samples,
            condition or None,
            guidance_scale=args.guidance_scale,
            steps="auto" if args.steps is None else args.steps,
            random_state=seed,
            return_condition=True,
        )
        if folder:
            save_images(rows, args.output, labels)
        else:
            rows = rows if _is_cells(gen) else as_table(gen.model_, rows, labels)
            write_data(rows, args.output)
    if not args.quiet:
        size = f"{len(rows):,} images" if folder else f"{rows.shape[0]:,} rows × {rows.shape[1]:,} {_column_word(gen)}"
        print(f"{args.output}: {size}, seed {seed}")


def _sample_shards(args: argparse.Namespace, gen: DiffusionGenerator) -> None:
    from tabdiff.cli.conditions import parse_conditions

    gen.verbose = int(not args.quiet and sys.stderr.isatty())
    with _requests():
        gen.sample_to(
            args.output,
            args.n_samples,
            parse_conditions(gen, args.condition) or None,
            guidance_scale=args.guidance_scale,
            steps="auto" if args.steps is None else args.steps,
            random_state=args.seed,
            shard_size="auto" if args.shard_size is None else args.shard_size,
            shard=args.shard,
            format=args.format,
            n_jobs=args.jobs,
        )
    if not args.quiet:
        what = f"{args.n_samples:,} rows" if args.shard is None else f"shard {args.shard[0]} of {args.shard[1]}"
        print(f"{args.output}: {what}")


def _info(args: argparse.Namespace) -> None:
    from tabdiff.cli.conditions import describe
    from tabdiff.io.model_files import FORMAT_VERSION

    gen = _load(args.model, "cpu")
    path = Path(args.model)
    size = sum(f.stat().st_size for f in (path.iterdir() if path.is_dir() else [path]) if f.is_file())
    weights = sum(p.numel() for p in gen.denoiser_.parameters())
    trained = [f"{gen.n_samples_fit_:,} rows", f"{gen.n_steps_:,} steps", f"final loss {gen.history_['loss'][-1]:.4g}"]
    if gen.history_.get("seconds"):
        trained.append(f"{gen.history_['seconds'][-1]:.0f} s")
    lines = [
        f"model        {args.model}",
        f"data         {_kind(gen)} of {gen.n_features_in_:,} {_column_word(gen)}",
        f"trained on   {', '.join(trained)}",
        f"network      {weights:,} weights, {gen.denoiser_.schedule.config()['name']} schedule, target {gen.target}",
        f"files        {size / 1e6:.1f} MB, format version {FORMAT_VERSION}",
        f"tabdiff      {_version()}",
    ]
    if gen.conditions_ is None:
        lines.append("conditions   none")
    else:
        lines.append("conditions")
        lines += [f"  {a.name}: {describe(a)}" for a in gen.conditions_.attributes]
    lines.append({"cells": "expression", "images": "pixels"}.get(_kind(gen), "columns"))
    lines += [f"  {line}" for line in gen.schema_.to_string(index=False, max_rows=60).splitlines()]
    print("\n".join(lines))


def _demo(args: argparse.Namespace) -> None:
    folder = Path(args.output)
    if not folder.is_dir():
        raise CommandError(f"the folder {folder} does not exist. Make it first: mkdir -p {folder}")
    from tabdiff.cli.demo import demo_cells, demo_table

    (demo_table if args.table else demo_cells)(folder, seed=args.seed)


# -------------------------------------------------------------------- helpers


def _load(path: str, device: str) -> DiffusionGenerator:
    from tabdiff import DiffusionGenerator

    with _requests():
        return DiffusionGenerator.load(path, device=device)


def _is_cells(gen: DiffusionGenerator) -> bool:
    return _kind(gen) == "cells"


def _is_images(gen: DiffusionGenerator) -> bool:
    return _kind(gen) == "images"


def _kind(gen: DiffusionGenerator) -> str:

    name = gen.model_.container
    return "table" if name == "array" else name


def _column_word(gen: DiffusionGenerator) -> str:
    return {"cells": "genes", "images": "values"}.get(_kind(gen), "columns")
