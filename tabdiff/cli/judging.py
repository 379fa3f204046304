"""The commands impute, score, evaluate and privacy."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tabdiff.cli.common import (
    STDOUT,
    CommandError,
    kind,
    load,
    positive_int,
    read,
    read_options,
    requests,
    say,
    seed_of,
    write,
)
from tabdiff.cli.common import seed as read_seed
from tabdiff.cli.sharding import is_lake

__all__ = ["FAILED", "add_commands"]

# The exit code of an audit that fails, where it was asked for.
FAILED = 3
REPORTS = (".html", ".json", ".csv")


def add_commands(commands: Any, add_csv: Any) -> None:
    """Add the parsers of the four commands.

    Parameters
    ----------
    commands : subparsers of argparse
    add_csv : callable
        Adds the options of csv files to a group.
    """
    impute = _command(
        commands,
        "impute",
        "fill missing values",
        "Fill the missing values of a table with a model that was fitted on such rows, missing values and all.",
        "tabdiff impute penguins.model penguins.csv -o filled.csv\n"
        "tabdiff impute penguins.model penguins.csv --n-draws 5 > five.csv",
    )
    impute.set_defaults(run=_impute)
    impute.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")
    impute.add_argument("file", metavar="FILE", help="table with missing values")
    impute.add_argument("-o", "--output", metavar="FILE", default=STDOUT, help="where to (default: -, csv on stdout)")
    impute.add_argument(
        "--n-draws", metavar="K", type=positive_int, default=1, help="completed tables, below each other"
    )
    _add_settings(impute, add_csv)

    score = _command(
        commands,
        "score",
        "say how likely rows are",
        "Write the log-likelihood of each row under a model (a lower bound, in nats), higher is likelier.",
        "tabdiff score penguins.model penguins.csv -o scores.csv\ntabdiff score penguins.model new.csv --mean",
    )
    score.set_defaults(run=_score)
    score.add_argument("model", metavar="MODEL", help="folder or file that fit wrote")
    score.add_argument("file", metavar="FILE", help="rows")
    score.add_argument("-o", "--output", metavar="FILE", default=STDOUT, help="where to (default: -, csv on stdout)")
    score.add_argument("--mean", action="store_true", help="print the mean alone")
    _add_settings(score, add_csv)

    evaluate = _command(
        commands,
        "evaluate",
        "judge synthetic data",
        "Judge synthetic data: every figure beside what real data and what a trivial baseline score.",
        "tabdiff evaluate penguins.csv synthetic.csv -o report.html\n"
        "tabdiff evaluate train.csv synthetic.csv --holdout test.csv --target income -o report.html\n"
        "tabdiff evaluate train.h5ad drawn.h5ad --condition cell_type --format csv > figures.csv",
    )
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("real", metavar="REAL", help="what the model was fitted on")
    evaluate.add_argument("synthetic", metavar="SYNTHETIC", help="what it drew")
    evaluate.add_argument("--holdout", metavar="FILE", help="real data that it has not seen")
    evaluate.add_argument("--target", metavar="NAME", help="column that a model is to predict; needs --holdout")
    evaluate.add_argument("--condition", metavar="NAME", nargs="+", help="h5ad: columns of obs that name the types")
    evaluate.add_argument("--model", metavar="MODEL", help="the model: adds rows of which it was given some cells")
    evaluate.add_argument("--max-rows", metavar="N", type=positive_int, help="rows that classifiers use at most")
    _add_report(evaluate, add_csv)

    privacy = _command(
        commands,
        "privacy",
        "audit what synthetic data tell about training rows",
        "Run attacks on synthetic data, beside the same on data of which the answer is known.",
        "tabdiff privacy synthetic.csv --train train.csv --holdout test.csv -o privacy.html\n"
        "tabdiff privacy synthetic.csv --train train.csv --holdout test.csv --model m --strict || echo stop",
    )
    privacy.set_defaults(run=_privacy)
    privacy.add_argument("synthetic", metavar="SYNTHETIC", help="what the model drew")
    privacy.add_argument("--train", metavar="FILE", required=True, help="what it was fitted on, all of it")
    privacy.add_argument("--holdout", metavar="FILE", required=True, help="real data that it has not seen")
    privacy.add_argument("--model", metavar="MODEL", help="the model: adds what is told by its losses")
    privacy.add_argument("--secret", metavar="NAME", nargs="+", help="columns that an attacker would guess")
    privacy.add_argument(
        "--max-rows", metavar="N", type=positive_int, default=2000, help="training rows that are tried"
    )
    privacy.add_argument("--strict", action="store_true", help=f"exit with code {FAILED} if the data fail")
    _add_report(privacy, add_csv)


def _command(commands: Any, name: str, text: str, description: str, examples: str) -> Any:
    shown = "\n".join(f"  {line}" for line in examples.splitlines())
    parser = commands.add_parser(
        name,
        help=text,
        description=description,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_settings(parser: Any, add_csv: Any) -> None:
    parser.add_argument("--seed", metavar="N", type=read_seed, help="makes the result repeat")
    parser.add_argument("--device", metavar="D", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
    parser.add_argument("--drop", metavar="NAME", nargs="+", action="extend", help="columns to leave out")
    add_csv(parser.add_argument_group("csv files", "Mostly recognised."))


def _add_report(parser: Any, add_csv: Any) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="where a page (.html), .json or .csv goes to")
    parser.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="of standard output (default: text)"
    )
    parser.add_argument("--name", metavar="NAME", help="of the synthetic data, in the report")
    _add_settings(parser, add_csv)
    parser.set_defaults(seed=0)


def _read(path: str, options: dict[str, Any]) -> Any:
    """Read a file, or a folder or glob of tables as a whole, such as shards that were drawn."""
    from tabdiff.io.frame_source import read_frames

    return read_frames(path) if is_lake(path, options) else read(path, options)


def _impute(args: argparse.Namespace) -> None:
    import pandas as pd

    from tabdiff.io.data_files import check_fits, check_output

    with requests():
        if args.output != STDOUT:
            check_output(args.output)
            check_fits(args.output, kind="table")
        rows = _read(args.file, read_options(args))
        if not isinstance(rows, pd.DataFrame):
            raise CommandError(f"{args.file} holds no table, and only tables are imputed on the command line.")
    gen = load(args.model, args.device)
    gen.model_ = gen.model_.in_pandas()
    seed = seed_of(args)
    with requests():
        tables = gen.impute(rows, n_draws=args.n_draws, random_state=seed)
        tables = tables if args.n_draws > 1 else [tables]
        tables = [_table(table, rows) for table in tables]
        filled = tables[0]
        if args.n_draws > 1:
            filled = pd.concat([t.assign(draw=k + 1) for k, t in enumerate(tables)], ignore_index=True)
        filled.attrs = rows.attrs
        write(filled, args.output)
    n = int(rows.isna().to_numpy().sum())
    say(args, f"{args.output}: {n:,} missing values of {len(rows):,} rows filled, seed {seed}")


def _table(table: Any, rows: Any) -> Any:
    import pandas as pd

    return table if isinstance(table, pd.DataFrame) else pd.DataFrame(table, columns=rows.columns)


def _score(args: argparse.Namespace) -> None:
    import numpy as np
    import pandas as pd

    from tabdiff.io.data_files import CELLS, check_fits, check_output

    with requests():
        if args.output != STDOUT:
            check_output(args.output)
            check_fits(args.output, kind="table")
        rows = _read(args.file, read_options(args))
    gen = load(args.model, args.device)
    with requests():
        if kind(gen) in CELLS:
            raise CommandError("rows of cells have no likelihood. Judge drawn cells instead: tabdiff evaluate.")
        scores = np.asarray(gen.score_samples(rows))
        if args.mean:
            print(f"{scores.mean():.6g}")
        else:
            write(pd.DataFrame({"log_likelihood": scores}), args.output)
    say(args, f"{args.output}: {len(scores):,} rows, mean log-likelihood {scores.mean():.4g}")


def _check_report(output: str | None) -> None:
    if output is None:
        return
    path = Path(output)
    if path.suffix.lower() not in REPORTS:
        raise CommandError(f"{output}: a report must end in .html, .json or .csv; got {path.suffix or 'no ending'}.")
    if not path.parent.is_dir():
        raise CommandError(f"{output}: the folder {path.parent} does not exist. Make it first: mkdir -p {path.parent}")


def _give(args: argparse.Namespace, report: Any) -> None:
    """Print a report, and write it where it is to go."""
    from tabdiff.io.atomic import replacing

    report = report.named(args.name) if args.name else report
    if args.output is not None:
        path = Path(args.output)
        if path.suffix.lower() == ".html":
            report.to_html(path)
        else:
            with replacing(path) as temporary:
                temporary.write_text(_text(report, path.suffix.lower()[1:]), encoding="utf-8")
    if args.format != "text":
        sys.stdout.write(_text(report, args.format))
    elif not args.quiet:
        print(report)
    if args.output is not None and not args.quiet:
        print(f"{args.output}: the report", file=sys.stderr)


def _text(report: Any, form: str) -> str:
    if form == "json":
        return json.dumps(report.to_dict(), indent=1) + "\n"
    return str(report.to_frame().to_csv(index=False))


def _evaluate(args: argparse.Namespace) -> None:
    from tabdiff import evaluate

    with requests():
        _check_report(args.output)
        options = read_options(args)
        data = [None if f is None else _read(f, options) for f in (args.real, args.synthetic, args.holdout)]
    model = None if args.model is None else load(args.model, args.device)
    given: dict[str, Any] = {} if args.max_rows is None else {"max_rows": args.max_rows}
    with requests():
        report = evaluate(
            data[0],
            data[1],
            holdout=data[2],
            target=args.target,
            condition=args.condition,
            model=model,
            random_state=args.seed,
            **given,
        )
        _give(args, report)


def _privacy(args: argparse.Namespace) -> int:
    from tabdiff import privacy_report

    with requests():
        _check_report(args.output)
        options = read_options(args)
        synthetic, train, holdout = (_read(f, options) for f in (args.synthetic, args.train, args.holdout))
    model = None if args.model is None else load(args.model, args.device)
    with requests():
        report = privacy_report(
            synthetic, train, holdout, model, secrets=args.secret, max_rows=args.max_rows, random_state=args.seed
        )
        _give(args, report)
    return FAILED if args.strict and (report.to_frame()["verdict"] == "fails").any() else 0
