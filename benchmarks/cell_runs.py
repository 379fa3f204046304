"""What the runs of cells.py share: what identifies one, and having a system draw cells in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cell_systems import PEERS
from harness import HERE, MODELS, device, provenance, run_child

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TRAINED = ("tabdiff", *PEERS)
KEY = ("task", "system", "seed", "device", "max_time", "max_steps")
FOLDER = MODELS / "cells"


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in KEY)


def job(task: str, system: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """What identifies a run; limits and device belong to it only where training depends on them."""
    trained = system in TRAINED
    return {
        "task": task,
        "system": system,
        "seed": seed,
        "device": device() if trained else "cpu",
        "max_time": args.max_time if trained else None,
        "max_steps": args.max_steps if trained else None,
    }


def cached(row: dict[str, Any]) -> Path:
    """Where the cells that a run drew are kept."""
    name = "".join(c if c.isalnum() or c in "_-." else "_" for c in row["task"])
    parts = [name, row["system"], f"seed{row['seed']}", row["device"]]
    parts += [f"{row[k]:g}{unit}" for k, unit in (("max_time", "s"), ("max_steps", "steps")) if row[k] is not None]
    return FOLDER / ("-".join(parts) + ".h5ad")


def may_run(row: dict[str, Any], done: set[tuple], args: argparse.Namespace) -> bool:
    """Whether a run is asked for and possible; says why where it is not."""
    where = f"{row['task']} {row['system']} seed {row['seed']}"
    if args.evaluate_again:
        if row["system"] in TRAINED and not cached(row).with_suffix(".json").is_file():
            print(f"{where}: no cells are kept, not measured", file=sys.stderr)
            return False
        return True
    if key(row) in done:
        return False
    if row["system"] in PEERS and args.peers_python is None:
        print(f"{where}: not run: it needs --peers-python", file=sys.stderr)
        return False
    return True


def draw_cells(
    row: dict[str, Any], train: AnnData, wanted: pd.DataFrame, by: tuple[str, ...], args: argparse.Namespace
) -> tuple[AnnData | None, dict[str, Any]]:
    """Fit and draw in a process of its own, or read what was drawn earlier; the cells and what they took.

    Without cells, the report has "failed".
    """
    import anndata

    cells = cached(row)
    report_file = cells.with_suffix(".json")
    if not args.evaluate_again:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in (cells, report_file):
            old.unlink(missing_ok=True)
        source, labels = cells.with_suffix(".train.h5ad"), cells.with_suffix(".wanted.h5ad")
        train.write_h5ad(source)
        anndata.AnnData(obs=wanted).write_h5ad(labels)
        command = [str(HERE / "cell_systems.py"), "--system", row["system"], "--output", str(cells)]
        command += ["--input", str(source), "--wanted", str(labels)]
        command += ["--seed", str(row["seed"]), "--threads", str(args.threads), "--max-time", str(row["max_time"])]
        command += [part for name in by for part in ("--by", name)]
        if row["max_steps"] is not None:
            command += ["--max-steps", str(row["max_steps"])]
        python = args.peers_python if row["system"] in PEERS else sys.executable
        # Preparing, sampling and the last step come on top of the time for training.
        error = run_child(python, command, threads=args.threads, timeout=3 * args.max_time + 600)
        for used in (source, labels):
            used.unlink(missing_ok=True)
        if error is not None:
            return None, {"failed": error}
        # With the cells, so that what is measured again later says how they came about.
        made = {"threads": args.threads, **provenance()}
        report = json.loads(report_file.read_text(encoding="utf-8"))
        report_file.write_text(json.dumps({**report, **made}), encoding="utf-8")
    return anndata.read_h5ad(cells), json.loads(report_file.read_text(encoding="utf-8"))
