"""Rows in shards, and fits in several processes, on the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabdiff.cli.common import CommandError, positive_int, requests, say, seed_of

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["SilentError", "add_shards", "goes_in_shards", "is_lake", "sample_shards", "world"]

# Files that are written shard by shard however few the rows are.
SHARDED = (".fasta", ".fa", ".npy")


class SilentError(Exception):
    """An error that another process has told of."""


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sample` that say how rows come in shards."""
    shards = parser.add_argument_group(
        "shards",
        "For more rows than fit into memory: FILE may be a folder, for a file for each shard. A run that was killed "
        "goes on with the same command.",
    )
    shards.add_argument(
        "--shard-size", metavar="N", type=positive_int, help="rows of a shard (default: by the columns)"
    )
    shards.add_argument(
        "--shard", metavar="I/K", type=_shard, help="draw the I-th of K shards only, for arrays of jobs with one --seed"
    )
    shards.add_argument("--jobs", metavar="J", type=int, help="processes that draw; -1: one for each core")
    shards.add_argument("--format", metavar="F", default="auto", help="of the files of a folder, such as csv or zarr")


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    try:
        i, k = int(number), int(count)
    except ValueError:
        i, k = 0, 0
    if not slash or not 1 <= i <= k:
        raise argparse.ArgumentTypeError(f"must be I/K with I from 1 to K, such as 3/1000; got {text!r}")
    return i, k


def goes_in_shards(args: argparse.Namespace, *, cells: bool = False, images: bool = False) -> bool:
    """Return whether rows of a model are drawn shard by shard: where that is asked for, and to kinds of files."""
    if (args.shard_size, args.shard, args.jobs) != (None, None, None) or args.format != "auto":
        return True
    suffix = Path(args.output).suffix
    return suffix in SHARDED or (cells and suffix == ".zarr") or not (suffix or images)


def sample_shards(args: argparse.Namespace, gen: DiffusionGenerator) -> None:
    """Draw rows shard by shard."""
    from tabdiff.cli.conditions import parse_conditions
    from tabdiff.generation.shards import is_begun

    if args.shard is not None and args.shard_size is not None:
        raise CommandError("--shard-size follows from the K of --shard I/K. Leave one of them out.", "shards")
    gen.verbose = int(not args.quiet and sys.stderr.isatty())
    with requests("conditions"):
        condition = parse_conditions(gen, args.condition)
    with requests():
        # A run that was begun goes on with its seed, and jobs of an array must agree on one: that of the model.
        seed = args.seed
        if seed is None and args.shard is None and not is_begun(gen.model_, args.output, args.format):
            seed = seed_of(args)
        gen.sample_to(
            args.output,
            args.n_samples,
            condition or None,
            guidance_scale=args.guidance_scale,
            steps="auto" if args.steps is None else args.steps,
            random_state=seed,
            shard_size="auto" if args.shard_size is None else args.shard_size,
            shard=args.shard,
            format=args.format,
            n_jobs=args.jobs,
        )
    what = f"{args.n_samples:,} rows" if args.shard is None else f"shard {args.shard[0]} of {args.shard[1]}"
    say(args, f"{args.output}: {what}" + ("" if seed is None else f", seed {seed}"))


def is_lake(file: str, options: dict[str, Any]) -> bool:
    """Return whether a path is a glob or folder of tables, which `fit` reads some rows at a time.

    Raises
    ------
    CommandError
        For options of a table in one file.
    """
    from tabdiff.io.frame_source import is_frame_source

    path = Path(file)
    several = (path.is_dir() or not path.exists()) and is_frame_source(file)
    several = several and (path.is_dir() or any(c in file for c in "*?[") or "://" in file)
    if several and options:
        option = f"--{next(iter(options))}"
        raise CommandError(
            f"{option} is for a table in one file, and {path} is read some rows at a time. Leave it out.", "csv"
        )
    return several


@contextlib.contextmanager
def world(device: str) -> Iterator[bool]:
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
        raise SilentError from error
    except WorldError as error:
        raise CommandError(str(error)) from error
    finally:
        dist.destroy_process_group()
