"""Synthetic tables: this package, its peers, independent columns and real rows, by the same metrics in the same run.

    TABDIFF_DATA=/path python benchmarks/tables.py                    # what is missing from results/tables.jsonl
    TABDIFF_DATA=/path python benchmarks/tables.py --tables adult --seeds 0,1,2
    TABDIFF_DATA=/path python benchmarks/tables.py --systems mostlyai,ctgan --peers-python peers/bin/python
    TABDIFF_DATA=/path python benchmarks/tables.py --evaluate-again   # new metrics of rows drawn earlier, no fits
    python benchmarks/tables.py --table                               # print the tables as markdown, run nothing

TABDIFF_DATA is a folder with load.py, whose load_table(name, benchmark=True) returns a frame and its metadata:
"target", "task", "categorical" and row positions under "split". Every system is fitted on the training rows with its
default settings, in a process of its own, and draws as many; all other rows are the holdout. Drawn rows are kept in
models/. A run that fails is a line with "failed" in the results; --retry tries it again. Needs xgboost and pyarrow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import threadpoolctl
from harness import (
    HERE,
    MODELS,
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    measured,
    names,
    provenance,
    read_results,
    run_child,
    write_result,
)
from peers import PEERS, TRAINED, UNBOUNDED
from table_metrics import Table, load, measure, tables

from tabdiff.evaluation import independent_columns

TABLES = ("adult", "default", "shoppers", "magic", "beijing", "diabetes130")
REFERENCES = ("holdout", "bootstrap", "independent")
SYSTEMS = (*REFERENCES, "tabdiff", "tabdiff_large", "copula", "smote", *PEERS)
DEFAULT = ("tabdiff", *REFERENCES)
PATIENCE = 7200.0  # seconds until a run without a limit is given up
EVALUATION = ("xgboost", "scikit-learn", "numpy", "pandas")


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("system", "table", "seed", "device", "max_time", "max_steps"))


def job(system: str, table: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """What identifies a run; limits and device belong to it only where training depends on them."""
    trained = system in TRAINED
    return {
        "system": system,
        "table": table,
        "seed": seed,
        "device": device() if trained else "cpu",
        "max_time": args.max_time if trained and system not in UNBOUNDED else None,
        "max_steps": args.max_steps if trained else None,
    }


def cached(row: dict[str, Any]) -> Path:
    parts = [row["table"], row["system"], f"seed{row['seed']}", row["device"]]
    parts += [f"{row[k]:g}{unit}" for k, unit in (("max_time", "s"), ("max_steps", "steps")) if row[k] is not None]
    return MODELS / "tables" / ("-".join(parts) + ".feather")


def reference(system: str, table: Table, seed: int) -> pd.DataFrame:
    if system == "holdout":
        return table.holdout
    if system == "bootstrap":
        return table.train.sample(len(table.train), replace=True, random_state=seed).reset_index(drop=True)
    return independent_columns(table.train, random_state=seed)


def generate(row: dict[str, Any], table: Table, args: argparse.Namespace) -> str | None:
    """Fit in a process of its own and keep the rows that it draws; None if it went well, else what went wrong."""
    rows, system = cached(row), row["system"]
    source = rows.parent / f"{table.name}-train.feather"
    rows.parent.mkdir(parents=True, exist_ok=True)
    table.train.to_feather(source)
    for old in (rows, rows.with_suffix(".json")):
        old.unlink(missing_ok=True)
    command = [str(HERE / "peers.py"), "--system", system, "--input", str(source), "--output", str(rows)]
    command += ["--n", str(len(table.train)), "--seed", str(row["seed"]), "--threads", str(args.threads)]
    if row["max_time"] is not None:
        command += ["--max-time", str(row["max_time"])]
    if row["max_steps"] is not None:
        command += ["--max-steps", str(row["max_steps"])]
    python = args.peers_python if system in PEERS else sys.executable
    # Preparing, sampling and the last step come on top of the time for training, for systems that keep to it.
    timeout = 3 * args.max_time + 600 if row["max_time"] is not None else PATIENCE
    return run_child(python, command, threads=args.threads, timeout=timeout)


def run(row: dict[str, Any], table: Table, args: argparse.Namespace) -> dict[str, Any]:
    """Rows of one system on one table, fitted if need be, and what they score."""
    made = {"threads": args.threads, **provenance()}
    report: dict[str, Any] = {}
    if row["system"] in REFERENCES:
        rows = reference(row["system"], table, row["seed"])
    else:
        rows_file, report_file = cached(row), cached(row).with_suffix(".json")
        if not args.evaluate_again:
            error = generate(row, table, args)
            if error is not None:
                return {**row, "failed": error}
            # With the rows, so that what is measured again later says how they came about.
            report = json.loads(report_file.read_text(encoding="utf-8"))
            report_file.write_text(json.dumps({**report, **made}), encoding="utf-8")
        rows = pd.read_feather(rows_file)
        report = json.loads(report_file.read_text(encoding="utf-8"))
    scores = measure(table, rows, floor=row["system"] == "holdout", threads=args.threads)
    return {**row, **scores, **made, **report, **measured(*EVALUATION)}


def run_all(args: argparse.Namespace) -> int:
    loader = data_loader()
    done = {key(row) for row in read_results(args.results) if not (args.retry and "failed" in row)}
    for name in args.tables:
        table = None
        for seed in args.seeds:
            for system in args.systems:
                row = job(system, name, seed, args)
                if args.evaluate_again:
                    if system not in REFERENCES and not cached(row).with_suffix(".json").is_file():
                        print(f"{name} {system} seed {seed}: no rows are kept, not measured", file=sys.stderr)
                        continue
                elif key(row) in done:
                    continue
                elif system in PEERS and args.peers_python is None:
                    print(f"{name} {system}: not run: it needs --peers-python", file=sys.stderr)
                    continue
                table = table or load(loader, name)
                print(f"{name} {system} seed {seed}: running", flush=True)
                row = run(row, table, args)
                write_result(args.results, row, key)
                shown = [f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float) and k != "max_time"]
                print(f"{name} {system} seed {seed}: {row.get('failed') or ', '.join(shown)}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=names, default=list(TABLES), help=f"default: {','.join(TABLES)}")
    parser.add_argument("--systems", type=names, default=list(DEFAULT), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--max-time", type=float, default=300.0, help="seconds of training at most")
    parser.add_argument("--max-steps", type=int, help=argparse.SUPPRESS)  # for trying out this script
    parser.add_argument("--peers-python", help="interpreter of an environment with requirements-peers.txt")
    parser.add_argument("--evaluate-again", action="store_true", help="measure rows drawn earlier, fit nothing")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    add_run_arguments(parser, RESULTS / "tables.jsonl", [0], threads=1)
    args = parser.parse_args()
    unknown = [s for s in args.systems if s not in SYSTEMS]
    if unknown:
        parser.error(f"unknown systems {unknown}; there are {', '.join(SYSTEMS)}")
    if args.table:
        rows = read_results(args.results)
        rows = [r for r in rows if r["max_steps"] in (None, args.max_steps)]
        print(tables(rows, list(dict.fromkeys([*args.tables, *(r["table"] for r in rows)]))))
        return 0
    try:
        with threadpoolctl.threadpool_limits(args.threads):
            return run_all(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
