"""Quality a second on tables: what a fit of so many seconds is worth, and how fast its rows are drawn.

    TABDIFF_DATA=/path python benchmarks/quality_speed.py --tables adult,shoppers --seconds 240
    TABDIFF_DATA=/path python benchmarks/quality_speed.py --seconds 30,60,120 --rows 2000  # the curve over six tables
    TABDIFF_DATA=/path python benchmarks/quality_speed.py --set '{"hidden_size": 128}' --name "width 128"
    python benchmarks/quality_speed.py --set '{"training": {"distillation": true}}' --name distilled
    python benchmarks/quality_speed.py --table                                           # print results as markdown

Every run is a fit with ``max_time`` and default settings (or those of ``--set``) in a process of its own, which then
draws rows and prints a line of JSON: seconds, steps, the share of candidates that is kept, and the scores that
`table_metrics.py` defines. Machines differ, and so does one machine from hour to hour: each run measures matrix
products before the fit and after the sampling, and rows a second per GFLOP/s, of the dtype that is faster there, are
what can be compared. What is called "name" is the state of the code. Needs xgboost.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from harness import (
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    markdown,
    names,
    provenance,
    read_results,
    run_child,
    write_result,
)
from table_metrics import QUERIES, SMALL_HOLDOUT, Table, load

TABLES = ("adult", "shoppers", "default", "magic", "beijing", "abalone")
SECONDS = (30.0, 60.0, 120.0, 240.0)
# Rows drawn: enough for a classifier, few enough that a slow state of the code can be measured at all.
ROWS = 8_000
# The matrix products that a batch of a table's network consists of.
PRODUCT_ROWS, PRODUCT_WIDTH, PRODUCT_SECONDS = 2048, 512, 0.4


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("name", "table", "seconds", "seed", "device", "threads"))


def products() -> dict[str, float]:
    """GFLOP/s of matrix products in float32 and bfloat16 on this machine now."""
    import torch

    found = {}
    for name in ("float32", "bfloat16"):
        a, b = (torch.randn(n, PRODUCT_WIDTH, dtype=getattr(torch, name)) for n in (PRODUCT_ROWS, PRODUCT_WIDTH))
        for _ in range(3):
            torch.nn.functional.linear(a, b)
        began, n = time.perf_counter(), 0
        while time.perf_counter() - began < PRODUCT_SECONDS:
            torch.nn.functional.linear(a, b)
            n += 1
        found[name] = 2e-9 * n * PRODUCT_ROWS * PRODUCT_WIDTH**2 / (time.perf_counter() - began)
    return found


def scores(table: Table, rows: pd.DataFrame, threads: int) -> dict[str, float]:
    """The scores of the bars: those of `table_metrics.measure`, of fewer rows and without its slow ones."""
    from xgboost import XGBClassifier

    from tabdiff.evaluation import (
        c2st,
        dcr_share,
        downstream_score,
        nearest_neighbour_ratio,
        shape_error,
        trend_error,
    )

    def xgb() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=threads)

    rng = np.random.default_rng(0)
    train, holdout = table.train, table.holdout
    queries = rows if len(rows) <= QUERIES else rows.iloc[rng.permutation(len(rows))[:QUERIES]]
    unseen = holdout if len(holdout) <= QUERIES else holdout.iloc[rng.permutation(len(holdout))[:QUERIES]]
    draws = 5 if len(holdout) < SMALL_HOLDOUT else 1
    return {
        "c2st_xgb": c2st(train, rows, classifier=xgb, random_state=0),
        "shape_error": shape_error(train, rows),
        "trend_error": trend_error(train, rows),
        "downstream": downstream_score(rows, table.test, table.target, random_state=0),
        "dcr_share": float(np.mean([dcr_share(train, queries, holdout, random_state=i) for i in range(draws)])),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(train, queries, unseen),
    }


def parameters(text: str) -> dict[str, Any]:
    """Parameters of `DiffusionGenerator` from JSON, where those of training are a dict."""
    found = json.loads(text)
    if "training" in found:
        from tabdiff.training import TrainingOptions

        found["training"] = TrainingOptions(**found["training"])
    return found


def run(args: argparse.Namespace, name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Fit, draw and score once, in this process."""
    import torch

    from tabdiff import DiffusionGenerator

    torch.set_num_threads(args.threads)
    table = load(data_loader(), name)
    before = products()
    gen = DiffusionGenerator(random_state=seed, max_time=seconds, **parameters(args.set))
    began = time.perf_counter()
    gen.fit(table.train)
    fitted = time.perf_counter()
    rows = gen.sample(min(args.rows, len(table.train)))
    drawn = time.perf_counter()
    after = products()
    speed = {k: (before[k] + after[k]) / 2 for k in before}
    refinement, network = gen.refinement_, gen.model_.config
    per_second = len(rows) / (drawn - fitted)
    return {
        "fit_seconds": fitted - began,
        "training_seconds": gen.history_["seconds"][-1],
        "sample_seconds": drawn - fitted,
        "rows": len(rows),
        "rows_per_second": per_second,
        "gflops": speed,
        "rows_per_gflop": per_second / max(speed.values()),
        "steps": gen.n_steps_,
        "loss": gen.history_["loss"][-1],
        "size": [network.hidden_size, network.n_blocks],
        "kept": None if refinement is None else refinement.acceptance_,
        "autoguidance": gen.autoguidance_,
        **scores(table, rows, args.threads),
    }


def run_all(args: argparse.Namespace) -> int:
    done = {key(row) for row in read_results(args.results)}
    for name in args.tables:
        for seconds in args.seconds:
            for seed in args.seeds:
                row = {"name": args.name, "table": name, "seconds": seconds, "seed": seed, "device": device()}
                row["threads"] = args.threads
                if key(row) in done:
                    continue
                draft = args.results.with_suffix(f".{os.getpid()}.tmp")
                command = [str(Path(__file__).resolve()), "--one", str(draft), "--tables", name, "--seeds", str(seed)]
                command += ["--seconds", str(seconds), "--threads", str(args.threads), "--rows", str(args.rows)]
                error = run_child(
                    sys.executable, [*command, "--set", args.set], threads=args.threads, timeout=4 * seconds + 3600
                )
                if error is not None:
                    print(f"{name} {seconds:g} s: {error}", file=sys.stderr)
                    continue
                row = {**row, "set": args.set, **json.loads(draft.read_text(encoding="utf-8")), **provenance()}
                draft.unlink()
                write_result(args.results, row, key)
                print(json.dumps(row), flush=True)
    return 0


SHOWN = {
    "size": lambda r: "{} × {}".format(*r["size"]),
    "steps": lambda r: f"{r['steps']}",
    "kept, %": lambda r: "" if r["kept"] is None else f"{100 * r['kept']:.0f}",
    "fit, s": lambda r: f"{r['fit_seconds']:.0f}",
    "rows drawn": lambda r: f"{r['rows']:,}",
    "sample, s": lambda r: f"{r['sample_seconds']:.0f}",
    "rows/s": lambda r: f"{r['rows_per_second']:.0f}",
    "threads": lambda r: f"{r['threads']}",
    "rows/s per GFLOP/s": lambda r: f"{r['rows_per_gflop']:.2f}",
    "XGB-C2ST": lambda r: f"{r['c2st_xgb']:.3f}",
    "trend error, %": lambda r: f"{r['trend_error']:.2f}",
    "downstream": lambda r: f"{r['downstream']:.3f}",
    "DCR share, %": lambda r: f"{r['dcr_share']:.1f}",
    "nearest-neighbour ratio": lambda r: f"{r['nearest_neighbour_ratio']:.2f}",
}


def table(rows: list[dict[str, Any]]) -> str:
    """A line a run, by table and seconds."""
    rows = sorted(rows, key=lambda r: (TABLES.index(r["table"]), r["seconds"], r["threads"], r["seed"]))
    lines = [[r["table"], f"{r['seconds']:g}", r["name"], *(form(r) for form in SHOWN.values())] for r in rows]
    return "\n".join(markdown(["table", "max_time, s", "state", *SHOWN], lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=names, default=list(TABLES), help=f"default: {','.join(TABLES)}")
    parser.add_argument("--seconds", type=lambda text: [float(s) for s in names(text)], default=list(SECONDS))
    parser.add_argument("--rows", type=int, default=ROWS, help="rows to draw at most")
    parser.add_argument("--set", default="{}", help="parameters of DiffusionGenerator as JSON")
    parser.add_argument("--name", default="default", help="what the state of the code or its settings are called")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # one run, in this process, into this file
    add_run_arguments(parser, RESULTS / "quality_speed.jsonl", [0])
    args = parser.parse_args()
    logging.getLogger("tabdiff").setLevel(logging.ERROR)
    if args.table:
        print(table(read_results(args.results)))
        return 0
    try:
        if args.one is not None:
            found = run(args, args.tables[0], args.seconds[0], args.seeds[0])
            args.one.write_text(json.dumps(found), encoding="utf-8")
            return 0
        return run_all(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
