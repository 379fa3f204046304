"""The command ``tabdiff``: fit models of files, sample from them, and judge what they draw.

::

    tabdiff fit penguins.csv --condition species -o penguins.model
    tabdiff sample penguins.model -n 500 --condition species=Gentoo -o gentoo.csv
    tabdiff impute penguins.model penguins.csv -o filled.csv
    tabdiff score penguins.model penguins.csv -o scores.csv
    tabdiff evaluate penguins.csv synthetic.csv -o report.html
    tabdiff privacy synthetic.csv --train train.csv --holdout test.csv -o privacy.html
    tabdiff info penguins.model
    tabdiff fit pictures -o pictures.model
    tabdiff sample pictures.model -n 64 -o drawn
    tabdiff demo

Whatever is wrong with the request is one line on stderr that starts with ``tabdiff: error:``; the exit code is then 2
for the usage and 1 for anything else (3 for ``privacy --strict`` of data that fail). Data go to a file or to standard
output, messages about data on standard output go to stderr. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabdiff.cli.common import (
    PROG,
    STDOUT,
    CommandError,
    Parser,
    brief_warnings,
    column_word,
    is_cells,
    is_images,
    kind,
    load,
    name_value,
    number,
    one_line,
    positive_int,
    positive_number,
    read,
    read_options,
    requests,
    say,
    seed_of,
    separator,
    write,
)
from tabdiff.cli.common import seed as read_seed
from tabdiff.cli.completion import SHELLS, script
from tabdiff.cli.judging import add_commands
from tabdiff.cli.pages import PAGES, page_address, page_of
from tabdiff.cli.sharding import SilentError, add_shards, goes_in_shards, is_lake, sample_shards, world

__all__ = ["CommandError", "main"]

FILES = "csv, parquet, feather, npz, h5ad, zarr, h5mu or fasta, by the file name's ending, or a folder of images"
DRAWN = FILES + "; a folder takes shards of any kind, a file may be npy too; default -, csv on stdout"
EXAMPLES = {
    "tabdiff": ["fit penguins.csv -o penguins.model", "sample penguins.model -n 344 -o synthetic.csv"]
    + ["evaluate penguins.csv synthetic.csv -o report.html"],
    "fit": ["fit penguins.csv -o penguins.model", "fit cells.h5ad --condition cell_type -o cells.model"]
    + ["fit pictures -o pictures.model", "fit promoters.fasta -o promoters.model"],
    "sample": ["sample penguins.model -n 500 --condition species=Gentoo -o gentoo.csv"]
    + ["sample penguins.model -n 500 | head", "sample pictures.model -n 64 -o drawn"],
    "info": ["info penguins.model"],
    "demo": ["demo", "demo --table", "demo --images", "demo --sequence"],
    "completion": ["completion bash >> ~/.bashrc", "completion fish | source"],
}


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
    parser = Parser(
        prog=PROG,
        description="Diffusion models of tables, cells, images and sequences: learn from a file, draw more like it.",
        allow_abbrev=False,
        **_examples("tabdiff"),
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    fit = commands.add_parser("fit", help="learn from a file", allow_abbrev=False, **_examples("fit"))
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
    fit.add_argument("--max-steps", metavar="N", type=positive_int, help="training steps (default: by the rows)")
    fit.add_argument("--max-time", metavar="S", type=positive_number, help="seconds of training at most")
    fit.add_argument("--layer", metavar="LAYER", help="h5ad: the layer to model, X or raw (default: where counts are)")
    fit.add_argument(
        "--cache-dir", metavar="DIR", help="where the encoded rows of many files lie, to go on from a kill"
    )
    fit.add_argument("--drop", metavar="NAME", nargs="+", action="extend", help="columns to leave out")
    _add_csv(fit.add_argument_group("csv files", "Mostly recognised; samples are written in the same form."))
    _add_common(fit)

    sample = commands.add_parser("sample", help="draw new rows from a model", allow_abbrev=False, **_examples("sample"))
    sample.description = "Draw new rows and write them to a file; a file that is there already is replaced."
    sample.set_defaults(run=_sample)
    sample.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")
    sample.add_argument("-n", "--n-samples", metavar="N", type=positive_int, required=True, help="number of rows")
    sample.add_argument("-o", "--output", metavar="FILE", default=STDOUT, help=DRAWN)
    sample.add_argument(
        "--condition",
        metavar="NAME=VALUE",
        type=name_value,
        nargs="+",
        action="extend",
        default=[],
        help="what all rows are to have; conditions left out are drawn as they occurred with it",
    )
    sample.add_argument(
        "--guidance-scale",
        metavar="S",
        type=number,
        default=1.0,
        help="1: none (default), 0: ignore the condition, above 1: exaggerate it",
    )
    sample.add_argument(
        "--steps", metavar="K", type=positive_int, help="steps of the sampler (default: 50; fewer if refined)"
    )
    add_shards(sample)
    _add_common(sample)

    add_commands(commands, _add_csv)

    info = commands.add_parser("info", help="describe a model", allow_abbrev=False, **_examples("info"))
    info.description = "Describe a model: its columns, conditions, training and size."
    info.set_defaults(run=_info)
    info.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")

    demo = commands.add_parser(
        "demo", help="fit real data, score the samples and draw a picture", allow_abbrev=False, **_examples("demo")
    )
    demo.description = (
        "Fit one half of a data set, sample as many rows as the other half has, and compare: blood cells that ship "
        "with scanpy, or one of those below. Prints a scorecard and writes a picture, in a minute or less; nothing is "
        "downloaded."
    )
    demo.set_defaults(run=_demo, data="cells")
    kinds = demo.add_mutually_exclusive_group()
    for name, text in (
        ("table", "the Palmer penguins, a table with missing values"),
        ("images", "scikit-learn's handwritten digits"),
        ("sequence", "made-up promoters, of which the rules are known"),
    ):
        kinds.add_argument(f"--{name}", dest="data", action="store_const", const=name, help=text)
    demo.add_argument("-o", "--output", metavar="DIR", default=".", help="folder for the picture (default: this one)")
    demo.add_argument("--seed", metavar="N", type=read_seed, default=0, help="of the split, the fit and the samples")

    completion = commands.add_parser(
        "completion", help="print what a shell completes by", allow_abbrev=False, **_examples("completion")
    )
    completion.description = "Print a script by which a shell completes commands and options."
    completion.set_defaults(run=lambda args: print(script(parser, args.shell), end=""))
    completion.add_argument("shell", choices=SHELLS)
    return parser


def _examples(name: str) -> dict[str, Any]:
    lines = "\n".join(f"  tabdiff {line}" for line in EXAMPLES[name])
    return {"epilog": f"examples:\n{lines}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def _add_csv(group: Any) -> None:
    group.add_argument("--sep", metavar="C", type=separator, help="what separates fields; \\t for a tab")
    group.add_argument("--decimal", metavar="C", help="the decimal mark: , or .")
    group.add_argument("--thousands", metavar="C", help="what groups digits, as in 1,234,567")
    group.add_argument("--encoding", metavar="E", help="such as cp1252 or utf-16-le (default: utf-8)")
    group.add_argument("--no-header", dest="header", action="store_false", default=None, help="there are no names")
    group.add_argument("--skip", metavar="N", type=positive_int, help="lines to skip above the header")
    group.add_argument("--missing", metavar="TEXT", nargs="+", action="extend", help="what marks missing values")
    group.add_argument("--text", metavar="NAME", nargs="+", action="extend", help="columns that are text")
    group.add_argument("--dates", metavar="ORDER", help="dmy or mdy, of dates such as 02/03/2024")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", metavar="N", type=read_seed, help="makes the result repeat (default: a new one, printed)"
    )
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
        Exit code: 0, 1 where the request could not be met, or what the command returns. Bad usage raises SystemExit
        with code 2.
    """
    args = make_parser().parse_args(argv)
    try:
        with brief_warnings():
            code = args.run(args)
    except CommandError as error:
        page = page_of(args) if error.subject is None else PAGES[error.subject]
        print(f"{PROG}: error: {one_line(error)} (see {page_address(page)})", file=sys.stderr)
        return 1
    except SilentError:
        return 1
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and "nstall" not in str(error)
        fix = f". Install it: pip install {str(error.name).partition('.')[0]}" if missing else ""
        print(f"{PROG}: error: {one_line(error)}{fix} (see {page_address(PAGES['install'])})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever reads standard output, such as head, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


# ------------------------------------------------------------------- commands


def _fit(args: argparse.Namespace) -> None:
    from tabdiff.io.data_files import check_model_output

    with requests():
        check_model_output(args.output)
        options = read_options(args)
        # A glob or folder of tables is read some rows at a time; another folder is images, with a subfolder for each
        # class if there are any. `fit` reads both.
        several = is_lake(args.file, options)
        data = args.file if several else read(args.file, options)
    seed = seed_of(args)

    from tabdiff import DiffusionGenerator

    start = time.perf_counter()
    with requests(), world(args.device) as is_first:
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
        # Of a table with its condition columns, which are no features.
        whole: Any = getattr(data, "shape", (0,))
        rows, columns = (whole[0], whole[1]) if len(whole) == 2 else (gen.n_samples_fit_, gen.n_features_in_)
        print(
            f"{args.output}: {rows:,} rows × {columns:,} {column_word(gen)}, {gen.n_steps_:,} steps in "
            f"{time.perf_counter() - start:.0f} s, loss {gen.history_['loss'][-1]:.3f}, seed {seed}"
        )


def _sample(args: argparse.Namespace) -> None:
    from tabdiff.cli.conditions import parse_conditions
    from tabdiff.generation.shards import as_table
    from tabdiff.io.data_files import CELLS, check_fits, check_folder_output, check_output
    from tabdiff.io.image_grid import save_images

    out = args.output == STDOUT
    if out and ((args.shard_size, args.shard) != (None, None) or args.format != "auto"):
        raise CommandError(
            "shards go to a file or folder: give -o, or leave --shard, --shard-size and --format out.", "shards"
        )
    if Path(args.output).suffix and not goes_in_shards(args):
        with requests():
            check_output(args.output)
    gen = load(args.model, args.device)
    gen.model_ = gen.model_.in_pandas()
    cells = kind(gen) in CELLS
    if not out and goes_in_shards(args, cells=cells, images=is_images(gen)):
        sample_shards(args, gen)
        return
    folder = is_images(gen)
    with requests():
        if out and (folder or cells):
            ending = "h5ad" if is_cells(gen) else "h5mu"
            what = "images go to a folder" if folder else f"cells go to an .{ending} file"
            raise CommandError(f"{what}: give -o; standard output takes tables.")
        if not out:
            check_folder_output(args.output) if folder else check_output(args.output)
    seed = seed_of(args)
    with requests():
        if not folder and not out:
            check_fits(args.output, kind=kind(gen))
        with requests("conditions"):
            condition = parse_conditions(gen, args.condition)
        rows, labels = gen.sample(
            args.n_samples,
            condition or None,
            guidance_scale=args.guidance_scale,
            steps="auto" if args.steps is None else args.steps,
            random_state=seed,
            n_jobs=args.jobs,
            return_condition=True,
        )
        if folder:
            save_images(rows, args.output, labels)
        else:
            rows = rows if cells else as_table(gen.model_, rows, labels)
            write(rows, args.output)
    size = f"{len(rows):,} images" if folder else f"{rows.shape[0]:,} rows × {rows.shape[1]:,} {column_word(gen)}"
    say(args, f"{args.output}: {size}, seed {seed}")


def _info(args: argparse.Namespace) -> None:
    from tabdiff.cli.conditions import describe
    from tabdiff.io.model_files import FORMAT_VERSION

    gen = load(args.model, "cpu")
    path = Path(args.model)
    size = sum(f.stat().st_size for f in (path.iterdir() if path.is_dir() else [path]) if f.is_file())
    weights = sum(p.numel() for p in gen.denoiser_.parameters())
    about = "" if gen.privacy_ is None else "about "
    trained = [f"{about}{gen.n_samples_fit_:,} rows", f"{gen.n_steps_:,} steps"]
    if gen.history_.get("loss"):  # which a differentially private fit does not keep
        trained.append(f"final loss {gen.history_['loss'][-1]:.4g}")
    if gen.history_.get("seconds"):
        trained.append(f"{gen.history_['seconds'][-1]:.0f} s")
    lines = [
        f"model        {args.model}",
        f"data         {kind(gen)} of {gen.n_features_in_:,} {column_word(gen)}",
        f"trained on   {', '.join(trained)}",
        f"network      {weights:,} weights, {gen.denoiser_.schedule.config()['name']} schedule, target {gen.target}",
        f"files        {size / 1e6:.1f} MB, format version {FORMAT_VERSION}",
        f"tabdiff      {_version()}",
    ]
    if gen.privacy_ is not None:
        told = "ε = {epsilon:.3g}, δ = {delta:g}, noise {noise_multiplier:.3g} times a norm of {max_grad_norm:g}"
        lines.append(f"privacy      {told.format(**gen.privacy_)}")
    if gen.conditions_ is None:
        lines.append("conditions   none")
    else:
        lines.append("conditions")
        lines += [f"  {a.name}: {describe(a)}" for a in gen.conditions_.attributes]
    if kind(gen) in ("cells", "multimodal"):
        known = _few(gen.codec_.var_.columns)
        lines.append(f"genes        {_few(gen.feature_names_in_)}" + (f"; of each: {known}" if known else ""))
    lines.append({"cells": "expression", "multimodal": "modalities", "images": "pixels"}.get(kind(gen), "columns"))
    lines += [f"  {line}" for line in gen.schema_.to_string(index=False, max_rows=60).splitlines()]
    print("\n".join(lines))


def _few(names: Any) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def _demo(args: argparse.Namespace) -> None:
    folder = Path(args.output)
    if not folder.is_dir():
        raise CommandError(f"the folder {folder} does not exist. Make it first: mkdir -p {folder}")
    from tabdiff.cli.demo import demo_cells, demo_images, demo_sequences, demo_table

    demos = {"cells": demo_cells, "table": demo_table, "images": demo_images, "sequence": demo_sequences}
    demos[args.data](folder, seed=args.seed)
