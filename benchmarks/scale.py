"""How time and memory grow with rows, columns and processes, each measured in a process of its own.

    python benchmarks/scale.py rows --sizes 1e3 1e4 1e5 1e6 1e7
    python benchmarks/scale.py columns --sizes 10 100 1000
    python benchmarks/scale.py lake --gigabytes 6
    python benchmarks/scale.py quality
    python benchmarks/scale.py draw --sizes 1e6 1e7
    python benchmarks/scale.py cells --sizes 2e4 2e5
    python benchmarks/scale.py atlas --sizes 2e4 2e5
    python benchmarks/scale.py processes --sizes 1 2
    python benchmarks/scale.py --table

Tables are the rows of a real one, Adult, drawn with replacement with noise on its numbers, in Parquet files; columns
are normal numbers. "rows", "columns" and "lake" fit with a fixed number of steps, so that the passes over the rows are
what grows. "quality" fits the same rows from files and in memory, and scores what each draws against rows that neither
has seen. "draw" and "cells" draw from a small model into Parquet and zarr. "atlas" fits a backed AnnData of 20,000
genes, of which 5 % are seen in a cell. "processes" trains the same batches with one and more processes. Results are
lines of JSON, with the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, data_loader, markdown, provenance, read_results, write_result

TASKS = ("rows", "columns", "lake", "quality", "draw", "cells", "atlas", "processes")
DEFAULT_SIZES = {
    "rows": [1e3, 1e4, 1e5, 1e6],
    "columns": [10, 100, 1000],
    "draw": [1e5, 1e6],
    "cells": [2e4, 2e5],
    "atlas": [2e4],
}
FILE_ROWS = 250_000
STEPS = 50
QUALITY_ROWS, QUALITY_STEPS = 300_000, 2000


def write_lake(folder: Path, n_rows: int, *, n_columns: int | None = None, gigabytes: float | None = None) -> int:
    """Write files until there are so many rows or bytes; return the number of rows."""
    import pandas as pd

    rng = np.random.default_rng(0)
    real = None if n_columns is not None else data_loader().load_table("adult")[0]
    done = written = 0
    while (gigabytes is None and done < n_rows) or (gigabytes is not None and written < gigabytes * 1e9):
        n = FILE_ROWS if gigabytes is not None else min(FILE_ROWS, n_rows - done)
        if real is None:
            mixed = rng.normal(size=(n, n_columns)).astype(np.float32)
            mixed[:, 1:] += 0.5 * mixed[:, :-1]
            frame = pd.DataFrame(mixed, columns=[f"x{j}" for j in range(n_columns or 0)])
        else:
            frame = real.iloc[rng.integers(len(real), size=n)].reset_index(drop=True)
            for name in frame.select_dtypes("number").columns:
                spread = float(frame[name].std()) or 1.0
                frame[name] = frame[name].astype(float) + rng.normal(0, 0.05 * spread, n)
        path = folder / f"part-{done:010}.parquet"
        frame.to_parquet(path, index=False, row_group_size=50_000)
        done, written = done + n, written + path.stat().st_size
    return done


def peak_mb() -> int:
    """Return the most memory of this process so far; ``ru_maxrss`` would begin with that of the process it is of."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def child(task: str, size: float, folder: Path) -> dict[str, Any]:
    """What runs in a process of its own: the measurement, without what made the data."""
    import torch

    from tabdiff import DiffusionGenerator

    begun = peak_mb()
    quick = {"max_steps": STEPS, "random_state": 0, "refine": False, "autoguidance": 1.0}
    found: dict[str, Any] = {}
    start, cpu = time.perf_counter(), time.process_time()
    if task in ("rows", "columns", "lake"):
        gen = DiffusionGenerator(**quick).fit(folder / "lake")
        found["seconds"] = time.perf_counter() - start
        found["training_seconds"] = gen.history_["seconds"][-1]
        found["rows"] = gen.n_samples_fit_
    elif task == "quality":
        found |= _quality(folder)
    elif task == "atlas":
        gen = DiffusionGenerator(max_steps=STEPS, random_state=0).fit(folder / "atlas.h5ad")
        found["seconds"], found["rows"] = time.perf_counter() - start, gen.n_samples_fit_
    elif task in ("draw", "cells"):
        gen = DiffusionGenerator.load(folder / "model")
        out = folder / ("out" if task == "draw" else "out.zarr")
        gen.sample_to(out, int(size), steps=2, random_state=0)
        found["seconds"] = time.perf_counter() - start
    else:
        import pandas as pd

        frame = pd.concat([pd.read_parquet(p) for p in sorted((folder / "lake").iterdir())])
        if size > 1:
            torch.distributed.init_process_group("gloo")
        gen = DiffusionGenerator(**{**quick, "batch_size": 4096}).fit(frame)
        found["training_seconds"] = gen.history_["seconds"][-1]
        found["loss"] = gen.history_["loss"]
        if size > 1 and torch.distributed.get_rank() > 0:
            return {}
    return {**found, "cpu_seconds": time.process_time() - cpu, "peak_mb": peak_mb(), "imported_mb": begun}


def _quality(folder: Path) -> dict[str, Any]:
    import pandas as pd

    from tabdiff import DiffusionGenerator, evaluate

    files = sorted((folder / "lake").iterdir())
    real = pd.concat([pd.read_parquet(p) for p in files])
    other = pd.read_parquet(folder / "other.parquet")
    found = {}
    for name, data in (("files", str(folder / "lake")), ("memory", real)):
        start = time.perf_counter()
        gen = DiffusionGenerator(random_state=0, max_steps=QUALITY_STEPS).fit(data)
        found[f"{name}_seconds"] = time.perf_counter() - start
        drawn = gen.sample(len(other), random_state=1)
        scores = evaluate(other, drawn).to_frame().set_index("metric")["synthetic"]
        found[f"{name}_c2st"] = float(scores["c2st"])
    return found


def measure(task: str, size: float, gigabytes: float, folder: Path) -> dict[str, Any]:
    """Make the data of a measurement, and run it in a process of its own."""
    lake = folder / "lake"
    lake.mkdir()
    found: dict[str, Any] = {}
    if task in ("rows", "processes"):
        write_lake(lake, int(size) if task == "rows" else 100_000)
    elif task == "columns":
        write_lake(lake, 30_000, n_columns=int(size))
    elif task == "lake":
        write_lake(lake, 0, gigabytes=gigabytes)
        found["gigabytes"] = sum(p.stat().st_size for p in lake.iterdir()) / 1e9
    elif task == "quality":
        write_lake(lake, QUALITY_ROWS)
        other = folder / "other"
        other.mkdir()
        write_lake(other, 20_000)
        next(other.iterdir()).replace(folder / "other.parquet")
    elif task == "atlas":
        code = "import sys; from cell_scale import simulate; simulate(int(sys.argv[1]), 20_000).write_h5ad(sys.argv[2])"
        made = [sys.executable, "-c", code, str(int(size)), str(folder / "atlas.h5ad")]
        subprocess.run(made, check=True, cwd=Path(__file__).parent)
    else:
        _fit_small(task, folder / "model")
    command = [sys.executable]
    if task == "processes" and size > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={int(size)}"]
    command += [__file__, "--child", task, str(size), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return found | next(line for line in lines if line)


def _fit_small(task: str, path: Path) -> None:
    """Save a model that draws quickly: what is measured is all the rest."""
    from tabdiff import DiffusionGenerator

    gen = DiffusionGenerator(max_steps=20, hidden_size=8, n_blocks=1, random_state=0, refine=False)
    if task == "draw":
        gen.fit(data_loader().load_table("adult")[0].head(4000)).save(path)
        return
    from tabdiff.datasets import load_pbmc68k_counts

    gen.fit(load_pbmc68k_counts()).save(path)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a markdown table of what was measured."""
    out = []
    for row in rows:
        seconds = row.get("seconds", row.get("training_seconds", row.get("files_seconds", 0.0)))
        rest = [
            f"{k} {v:.3g}"
            for k, v in row.items()
            if k in ("training_seconds", "gigabytes", "rows") or k.endswith("c2st")
        ]
        out.append([row["task"], f"{row['size']:g}", f"{seconds:.1f}", str(row["peak_mb"]), ", ".join(rest)])
    return markdown(("task", "size", "seconds", "peak MB", "more"), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("--sizes", type=float, nargs="+", help="rows, columns, cells or processes")
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of the folder of Parquet files")
    parser.add_argument("--results", type=Path, default=RESULTS / "scale.jsonl")
    parser.add_argument("--table", action="store_true", help="print what has been measured and stop")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        task, size, folder = args.child
        print(json.dumps(child(task, float(size), Path(folder))), flush=True)
        return
    if args.task is None or args.table:
        print("\n".join(table(read_results(args.results))))
        return
    sizes = args.sizes or DEFAULT_SIZES.get(args.task, [1, 2] if args.task == "processes" else [args.gigabytes])
    for size in sizes:
        gigabytes = size if args.task == "lake" else args.gigabytes
        with tempfile.TemporaryDirectory(prefix="tabdiff-scale-") as folder:
            found = measure(args.task, size, gigabytes, Path(folder))
        row = {"task": args.task, "size": size, **found, **provenance("tabdiff", "torch", "pyarrow", "pandas")}
        write_result(args.results, row, lambda r: (r["task"], r["size"]))
        print("\n".join(table([row])[2:]), flush=True)


if __name__ == "__main__":
    main()
