"""Synthetic cells: this package, its peers, baselines and real cells, by the same metrics in the same run.

    TABDIFF_DATA=/path python benchmarks/cells.py                     # what is missing from results/cells.jsonl
    TABDIFF_DATA=/path python benchmarks/cells.py --sets pbmc3k --seeds 0
    TABDIFF_DATA=/path python benchmarks/cells.py --systems scvi_prior,scdesigner --peers-python cells-peers/bin/python
    TABDIFF_DATA=/path python benchmarks/cells.py --evaluate-again    # new metrics of cells drawn earlier, no fits
    TABDIFF_DATA=/path python benchmarks/cells.py --held-out          # conditions that were left out of the fit
    TABDIFF_DATA=/path python benchmarks/cells.py --tells             # which genes give drawn cells away, and by what
    python benchmarks/cells.py --scale                                # seconds, memory and repeatability
    python benchmarks/cells.py --list                                 # the sets
    python benchmarks/cells.py --table                                # print the tables as markdown, run nothing

TABDIFF_DATA is a folder with load.py, whose load_cells(name) returns an AnnData with counts in X; "pbmc68k_reduced"
comes with scanpy and needs no folder. Cells are split in half, each type in itself; a system is fitted on one half in a
process of its own and draws the labels of the other half, with which it is compared. Cells drawn are kept in models/. A
run that fails is a line with "failed" in the results; --retry tries it again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl
from cell_data import BUNDLED, SETS, catalogue, labels, load_set, random_halves
from cell_held_out import TASKS, run_held_out
from cell_runs import TRAINED, draw_cells, job, key, may_run
from cell_scale import run_scale
from cell_tables import held_out_tables, scale_table, tables
from cell_tells import find_tells, tells_table
from harness import (
    RESULTS,
    add_run_arguments,
    data_loader,
    markdown,
    measured,
    names,
    provenance,
    read_results,
    write_result,
)
from scipy import sparse

from tabdiff.evaluation import cell_scores, nb_baseline

if TYPE_CHECKING:
    from anndata import AnnData

REFERENCES = ("holdout", "bootstrap", "nb", "poisson")
SYSTEMS = (*REFERENCES, *TRAINED)
DEFAULT = ("tabdiff", *REFERENCES)
EVALUATION = ("scikit-learn", "numpy", "scipy", "anndata", "scanpy")


def reference(system: str, train: AnnData, wanted: np.ndarray, types: tuple[str, ...], seed: int) -> Any:
    """Matrix and labels of a system that needs no process of its own."""
    own = labels(train.obs, types)
    if system == "holdout":
        return train.X, own
    if system == "nb":
        typed = train.copy()
        typed.obs["type"] = own
        return nb_baseline(typed, "type", labels=wanted, seed=seed).X, wanted
    if system == "bootstrap":
        rng = np.random.default_rng(seed)
        rows = np.empty(len(wanted), dtype=np.int64)
        for label in np.unique(wanted):
            rows[wanted == label] = rng.choice(np.flatnonzero(own == label), (wanted == label).sum())
        return train.X[rows], wanted
    # Real cells with the counting noise of a second draw: what a model that is exact up to that noise would score.
    redrawn = sparse.csr_matrix(train.X, dtype=np.float64)
    redrawn.data = np.random.default_rng(seed).poisson(redrawn.data).astype(np.float64)
    redrawn.eliminate_zeros()
    return redrawn, own


def drawn(row: dict[str, Any], adata: AnnData, args: argparse.Namespace) -> tuple[AnnData, Any, Any, dict[str, Any]]:
    """The half that took no part in a fit, one system's counts and labels (None if it failed), and what it took."""
    types, seed = SETS[row["task"]].types, row["seed"]
    train, unseen = random_halves(adata, types, seed)
    if row["system"] in REFERENCES:
        counts, own = reference(row["system"], train, labels(unseen.obs, types), types, seed)
        return unseen, counts, own, {"fitted": train.n_obs, "threads": args.threads, **provenance()}
    cells, report = draw_cells(row, train, unseen.obs, types, args)
    report = {"fitted": train.n_obs, **report}
    return unseen, None if cells is None else cells.X, None if cells is None else labels(cells.obs, types), report


def run(row: dict[str, Any], adata: AnnData, args: argparse.Namespace) -> dict[str, Any]:
    """Cells of one system on one set, and what they score."""
    unseen, counts, own, report = drawn(row, adata, args)
    if counts is None:
        return {**row, **report}
    wanted = labels(unseen.obs, SETS[row["task"]].types)
    scores = cell_scores(
        unseen.X, counts, real_labels=wanted, synthetic_labels=own, seed=row["seed"], n_jobs=args.threads
    )
    size = {"cells": adata.n_obs, "genes": adata.n_vars, "types": len(np.unique(wanted))}
    return {**row, **size, **scores, **report, **measured(*EVALUATION)}


def run_tells(args: argparse.Namespace, path: Path) -> None:
    """Say which genes give cells away, of systems without a fit and of cells that were drawn earlier."""
    args.evaluate_again = True
    loader = None if args.sets == [BUNDLED] else data_loader()
    for name in args.sets:
        adata = load_set(loader, name, args.genes)
        for seed in args.seeds:
            for system in args.systems:
                row = job(name, system, seed, args)
                if not may_run(row, set(), args):
                    continue
                unseen, counts, own, report = drawn(row, adata, args)
                wanted = labels(unseen.obs, SETS[name].types)
                found = find_tells(unseen.X, counts, wanted, own, list(adata.var_names), seed, args.threads)
                write_result(path, {**row, **found, **report, **measured(*EVALUATION)}, key)
                print(f"{name} {system} seed {seed}: AUC {found['auc']:.3f}, first {found['genes'][:3]}", flush=True)


def run_all(args: argparse.Namespace) -> None:
    loader = None if args.sets == [BUNDLED] else data_loader()
    done = {key(row) for row in read_results(args.results) if not (args.retry and "failed" in row)}
    for name in args.sets:
        adata = None
        for seed in args.seeds:
            for system in args.systems:
                row = job(name, system, seed, args)
                if not may_run(row, done, args):
                    continue
                adata = load_set(loader, name, args.genes) if adata is None else adata
                print(f"{name} {system} seed {seed}: running", flush=True)
                row = run(row, adata, args)
                write_result(args.results, row, key)
                shown = [f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float) and k != "max_time"]
                print(f"{name} {system} seed {seed}: {row.get('failed') or ', '.join(shown)}", flush=True)


def print_tables(args: argparse.Namespace) -> None:
    def read(path: Path) -> list[dict[str, Any]]:
        limits = {"max_time": (None, args.max_time), "max_steps": (None, args.max_steps)}
        return [r for r in read_results(path) if all(r.get(k) in allowed for k, allowed in limits.items())]

    print(tables(read(args.results), list(SETS)))
    print(held_out_tables(read(args.results.with_name("cells_held_out.jsonl")), list(TASKS)))
    print(tells_table(read(args.results.with_name("cells_tells.jsonl"))))
    print(scale_table(read_results(args.results.with_name("cells_scale.jsonl"))))


def tasks(text: str) -> list[str]:
    """The held-out conditions that have any of these parts in their names, which hold commas themselves."""
    parts = names(text)
    return [task for task in TASKS if any(part in task for part in parts)] or parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = add_run_arguments(parser, RESULTS / "cells.jsonl", [0, 1, 2], threads=2)
    modes.add_argument("--held-out", action="store_true", help="conditions that were left out of the fit")
    modes.add_argument("--tells", action="store_true", help="which genes give cells drawn earlier away, and by what")
    modes.add_argument("--scale", action="store_true", help="seconds, memory and repeatability")
    modes.add_argument("--list", action="store_true", help="print the sets")
    parser.add_argument("--sets", type=names, default=list(SETS), help=f"default: {','.join(SETS)}")
    parser.add_argument("--tasks", type=tasks, default=list(TASKS), help=f"parts of names, of {'; '.join(TASKS)}")
    parser.add_argument("--systems", type=names, default=list(DEFAULT), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--max-time", type=float, default=600.0, help="seconds of training at most")
    parser.add_argument("--max-steps", type=int, help=argparse.SUPPRESS)  # for trying out this script
    parser.add_argument("--genes", type=int, help=argparse.SUPPRESS)  # for trying out this script
    parser.add_argument("--shape", type=int, nargs=2, default=(200_000, 20_000), help="cells and genes of --scale")
    parser.add_argument("--peers-python", help="interpreter of an environment with requirements-cells-peers.txt")
    parser.add_argument("--evaluate-again", action="store_true", help="measure cells drawn earlier, fit nothing")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    args = parser.parse_args()
    for given, known in ((args.systems, SYSTEMS), (args.sets, SETS), (args.tasks, TASKS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {unknown}; there are {', '.join(known)}")
    if args.table:
        print_tables(args)
        return 0
    try:
        with threadpoolctl.threadpool_limits(args.threads):
            if args.list:
                table = catalogue(data_loader())
                print("\n".join(markdown(list(table.columns), table.astype(str).to_numpy().tolist())))
            elif args.held_out:
                run_held_out(args, args.results.with_name("cells_held_out.jsonl"))
            elif args.tells:
                run_tells(args, args.results.with_name("cells_tells.jsonl"))
            elif args.scale:
                run_scale(args, args.results.with_name("cells_scale.jsonl"))
            else:
                run_all(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
