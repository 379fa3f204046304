"""Seconds that `evaluate` takes for a large table and for many cells.

    python benchmarks/judging_speed.py            # 100,000 rows of 50 columns, and 5,000 cells of 2,000 genes
    python benchmarks/judging_speed.py --table    # print results as markdown

The table has normal numbers that depend on each other, counts, and categories of 2 to 40 levels that depend on the
numbers, one of which is the column to predict; synthetic rows are other draws of the same kind, and the holdout too.
Cells are counts of eight types. What is evaluated does not change how long that takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from harness import RESULTS, add_run_arguments, markdown, provenance, read_results, write_result

ROWS, COLUMNS = 100_000, 50
CELLS, GENES, TYPES = 5_000, 2_000, 8


def table(n: int, seed: int) -> pd.DataFrame:
    """Return rows of 25 numbers, 10 counts and 15 categories."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(25, 25)) / 3
    numbers = rng.normal(size=(n, 25)) @ (np.eye(25) + mix)
    frame = pd.DataFrame(numbers.round(3), columns=[f"x{j}" for j in range(25)])
    for j in range(10):
        frame[f"n{j}"] = rng.poisson(np.exp(1 + 0.5 * numbers[:, j].clip(-3, 3)))
    for j, levels in enumerate(np.linspace(2, 40, 15).astype(int)):
        code = (numbers[:, j] + 0.7 * rng.normal(size=n)).argsort().argsort() * levels // n
        frame[f"c{j}"] = pd.Categorical.from_codes(code, [f"level {k}" for k in range(levels)])
    return frame


def cells(n: int, seed: int) -> Any:
    """Return counts of types that differ in a twentieth of their genes."""
    import anndata
    from scipy import sparse

    rng, shared = np.random.default_rng(seed), np.random.default_rng(0)
    rate = np.exp(shared.normal(-2.5, 1.2, GENES)) * np.exp(
        1.5 * shared.normal(size=(TYPES, GENES)) * (shared.random((TYPES, GENES)) < 0.05)
    )
    kind = rng.integers(TYPES, size=n)
    counts = rng.poisson(rate[kind] * rng.gamma(4, 0.25, (n, 1)) * rng.gamma(3, 1 / 3, (n, GENES)))
    obs = pd.DataFrame({"type": pd.Categorical([f"type {k}" for k in kind])}, index=[f"cell {i}" for i in range(n)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)


def measure(what: str) -> dict[str, Any]:
    """Evaluate once, in this process."""
    from tabdiff import evaluate

    if what == "table":
        real, synthetic, holdout = (table(n, seed) for seed, n in enumerate((ROWS, ROWS, ROWS // 2)))
        given = {"target": "c0"}
    else:
        real, synthetic, holdout = (cells(n, seed) for seed, n in enumerate((CELLS, CELLS, CELLS // 2)))
        given = {"condition": "type"}
    began, used = time.perf_counter(), time.process_time()
    report = evaluate(real, synthetic, holdout=holdout, random_state=0, **given)
    return {
        "what": what,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "figures": len(report.to_frame()),
        "cores": os.cpu_count(),
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """A line for each kind of data."""
    names = {"table": f"{ROWS:,} × {COLUMNS} table", "cells": f"{CELLS:,} × {GENES:,} cells"}
    lines = [
        [names[r["what"]], f"{r['seconds']:.0f}", f"{r['cpu_seconds']:.0f}", f"{r['figures']}", f"{r['cores']}"]
        for r in rows
    ]
    return "\n".join(markdown(["data", "seconds", "of CPU", "figures", "cores"], lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["table", "cells"], action="append", help="default: both")
    add_run_arguments(parser, RESULTS / "judging_speed.jsonl", threads=2)
    args = parser.parse_args()
    if args.table:
        print(shown(read_results(args.results)))
        return 0
    import torch

    torch.set_num_threads(args.threads)
    for what in args.what or ["table", "cells"]:
        row = {**measure(what), **provenance()}
        write_result(args.results, row, lambda r: (r["what"],))
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
