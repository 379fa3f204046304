"""How time and memory grow with rows, columns, cells and processes, each measured in a process of its own.

    python benchmarks/scale.py rows --sizes 1e3 1e4 1e5 1e6 1e7
    python benchmarks/scale.py columns --sizes 10 100 1000
    python benchmarks/scale.py lake --sizes 6                 # gigabytes of Parquet
    python benchmarks/scale.py quality --sizes 0 1 2          # seeds
    python benchmarks/scale.py draw --sizes 1e3 1e4 1e5 1e6 1e7
    python benchmarks/scale.py draw --sizes 1e7 --kill        # killed at a random moment, and gone on with
    python benchmarks/scale.py cells --sizes 2e4 2e5 --kill
    python benchmarks/scale.py atlas --sizes 2e4 2e5
    python benchmarks/scale.py processes --sizes 1 2
    python benchmarks/scale.py --table

Tables are the rows of a real one, Adult, drawn with replacement with noise on its numbers, in Parquet files; columns
are normal numbers. "rows", "columns" and "lake" fit with a fixed number of steps, so that the passes over the rows are
what grows. "quality" fits the same rows from files and in memory, and scores what each draws against rows that neither
has seen. "draw" and "cells" draw from a small model into Parquet and zarr. "atlas" fits a backed AnnData of 20,000
genes, of which 5 % are seen in a cell, written some cells at a time. "processes" trains the same batches with one and
more processes. Results are lines of JSON, with the machine. Files go to TMPDIR, 15 GB of them for 6 GB of Parquet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, data_loader, markdown, provenance, read_results, write_result

TASKS = ("rows", "columns", "lake", "quality", "draw", "cells", "atlas", "processes")
DEFAULT_SIZES = {
    "rows": [1e3, 1e4, 1e5, 1e6, 1e7],
    "columns": [10, 100, 1000],
    "lake": [6],
    "quality": [0, 1, 2],
    "draw": [1e3, 1e4, 1e5, 1e6, 1e7],
    "cells": [2e4, 2e5],
    "atlas": [2e4, 2e5],
    "processes": [1, 2],
}
FILE_ROWS = 250_000
COLUMN_ROWS = 60_000
STEPS = 50
# So many are in memory as a sample of a thousand columns: here of fewer too, so that all are fitted from files.
SAMPLE = 20_000
QUALITY_ROWS, QUALITY_STEPS, SCORED_ROWS = 60_000, 1500, 10_000
GENES, ATLAS_CHUNK, ATLAS_DENSITY, ATLAS_SECONDS = 20_000, 10_000, 0.08, 60
DRAWN_COLUMNS = ["age", "education", "hours_per_week", "sex", "income"]


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


def write_atlas(path: Path, n: int) -> None:
    """Write counts of cells, some at a time: simulated ones with replacement, with Poisson noise on their counts."""
    from anndata import AnnData
    from cell_scale import simulate

    from tabdiff.io.anndata_writer import write_cells

    rng = np.random.default_rng(0)
    cells = simulate(min(n, ATLAS_CHUNK), GENES, density=ATLAS_DENSITY)

    def chunks() -> Iterator[Any]:
        for first in range(0, n, ATLAS_CHUNK):
            rows = rng.integers(cells.n_obs, size=min(ATLAS_CHUNK, n - first))
            counts = cells.X[rows]
            counts.data = rng.poisson(counts.data).astype(np.float32)
            counts.eliminate_zeros()
            obs = cells.obs.iloc[rows].set_axis([f"c{first + i}" for i in range(len(rows))], axis=0)
            yield AnnData(counts, obs=obs, var=cells.var)

    write_cells(path, n, chunks())


def peak_mb() -> int:
    """Return the most memory of this process so far; ``ru_maxrss`` would begin with that of the process it is of."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def child(task: str, size: float, folder: Path, out: str) -> dict[str, Any]:
    """What runs in a process of its own: the measurement, without what made the data."""
    import torch

    from tabdiff import DiffusionGenerator
    from tabdiff.codecs.tables import survey

    begun = peak_mb()
    quick = {"max_steps": STEPS, "random_state": 0, "refine": False, "autoguidance": 1.0}
    found: dict[str, Any] = {}
    if task in ("columns", "quality"):
        survey.SAMPLE_ROWS = survey.MIN_SAMPLE = SAMPLE
    start, cpu = time.perf_counter(), time.process_time()
    if task in ("rows", "columns", "lake"):
        gen = DiffusionGenerator(**quick).fit(folder / "lake")
        found["training_seconds"] = gen.history_["seconds"][-1]
        found["rows"] = gen.n_samples_fit_
    elif task == "quality":
        found |= _quality(folder, int(size))
    elif task == "atlas":
        gen = DiffusionGenerator(max_time=ATLAS_SECONDS, random_state=0).fit(folder / "atlas.h5ad")
        found["training_seconds"] = gen.history_["seconds"][-1]
        found["rows"] = gen.n_samples_fit_
    elif task in ("draw", "cells"):
        gen = DiffusionGenerator.load(folder / "model")
        gen.sample_to(folder / out, int(size), steps=2, random_state=0)
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
    used = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return {**used, **found, "peak_mb": peak_mb(), "imported_mb": begun}


def _quality(folder: Path, seed: int) -> dict[str, Any]:
    """Fit the same rows from files, of which a sample alone is in memory, and from a frame."""
    import pandas as pd
    from xgboost import XGBClassifier

    from tabdiff import DiffusionGenerator
    from tabdiff.evaluation.tables import c2st

    def xgb() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=1)

    files = sorted((folder / "lake").iterdir())
    real = pd.concat([pd.read_parquet(p) for p in files], ignore_index=True)
    other = pd.read_parquet(folder / "other.parquet")
    found: dict[str, Any] = {}
    for name, data in (("files", str(folder / "lake")), ("memory", real)):
        start = time.perf_counter()
        gen = DiffusionGenerator(random_state=seed, max_steps=QUALITY_STEPS, refine=False).fit(data)
        found[f"{name}_seconds"] = time.perf_counter() - start
        found[f"{name}_loss"] = gen.history_["loss"][-1]
        drawn = gen.sample(len(other), random_state=1)
        found[f"{name}_c2st"] = float(c2st(other, drawn, classifier=xgb, random_state=0))
    return found


def measure(task: str, size: float, folder: Path, kill: bool) -> dict[str, Any]:
    """Make the data of a measurement, and run it in a process of its own."""
    lake = folder / "lake"
    lake.mkdir()
    found: dict[str, Any] = {}
    if task in ("rows", "processes"):
        write_lake(lake, int(size) if task == "rows" else 100_000)
    elif task == "columns":
        write_lake(lake, COLUMN_ROWS, n_columns=int(size))
    elif task == "lake":
        write_lake(lake, 0, gigabytes=size)
        found["gigabytes"] = sum(p.stat().st_size for p in lake.iterdir()) / 1e9
    elif task == "quality":
        write_lake(lake, QUALITY_ROWS)
        other = folder / "other"
        other.mkdir()
        write_lake(other, SCORED_ROWS)
        next(other.iterdir()).replace(folder / "other.parquet")
    elif task == "atlas":
        write_atlas(folder / "atlas.h5ad", int(size))
        found["gigabytes"] = (folder / "atlas.h5ad").stat().st_size / 1e9
    else:
        _fit_small(task, folder / "model")
    out, again = ("out", "again") if task == "draw" else ("out.zarr", "again.zarr")
    command = [sys.executable]
    if task == "processes" and size > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={int(size)}"]
    command += [__file__, "--child", task, str(size), str(folder)]
    done = subprocess.run([*command, out], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found |= next(line for line in lines if line)
    if kill:
        found |= _killed([*command, again], found["seconds"], folder / again)
        found["equal"] = digest(folder / out) == digest(folder / again)
    return found


def _killed(command: list[str], seconds: float, out: Path) -> dict[str, Any]:
    """Kill a run at a random moment, and make the same call again."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = out if out.suffix == "" else out.with_name(f".{out.name}.shards")
    while not folder.is_dir() and process.poll() is None:
        time.sleep(0.01)
    wait = random.SystemRandom().uniform(0, seconds)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = process.returncode == -signal.SIGKILL
    kept = sum(p.name.startswith("part-") for p in folder.iterdir()) if folder.is_dir() else 0
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return {"killed": killed, "killed_after": wait, "shards_kept": kept}


def digest(path: Path) -> str:
    """Return a hash of every file of a folder, by its name in it."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as content:
            total.update(f"{file.relative_to(path)} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode())
    return total.hexdigest()


def _fit_small(task: str, path: Path) -> None:
    """Save a model that draws quickly: what is measured is all the rest."""
    from tabdiff import DiffusionGenerator

    gen = DiffusionGenerator(max_steps=20, hidden_size=8, n_blocks=1, random_state=0, refine=False)
    if task == "draw":
        gen.fit(data_loader().load_table("adult")[0][DRAWN_COLUMNS].head(4000)).save(path)
        return
    from tabdiff.datasets import load_pbmc68k_counts

    gen.fit(load_pbmc68k_counts()).save(path)


# For each task a heading, and its columns: of a line of results the text that stands there.
def _seconds(row: dict[str, Any]) -> str:
    return f"{row['seconds']:,.1f}" if "seconds" in row else "–"


def _cpu(row: dict[str, Any]) -> str:
    return f"{row['cpu_seconds']:,.1f}" if "cpu_seconds" in row else "–"


def _peak(row: dict[str, Any]) -> str:
    return f"{row['peak_mb']:,}"


def _size(row: dict[str, Any]) -> str:
    return f"{row['size']:,.0f}"


def _kill(row: dict[str, Any]) -> str:
    if not row.get("killed"):
        return ""
    return f"after {row['killed_after']:,.0f} s, {row['shards_kept']} shards whole"


FIT = {"CPU seconds": _cpu, "seconds by the clock": _seconds, "peak MB": _peak}
DRAW = {
    "CPU seconds": _cpu,
    "seconds by the clock": _seconds,
    "peak MB": _peak,
    "killed": _kill,
    "equal byte for byte": lambda r: {True: "yes", False: "no"}.get(r.get("equal"), ""),
}
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "lake": (
        "A folder of Parquet that does not fit into memory",
        {"GB": lambda r: f"{r['gigabytes']:.2f}", "rows": lambda r: f"{r['rows']:,}", **FIT},
    ),
    "quality": (
        f"XGB-C2ST of {QUALITY_ROWS:,} rows fitted from files, and in memory",
        {
            "seed": _size,
            "from files": lambda r: f"{r['files_c2st']:.3f}",
            "in memory": lambda r: f"{r['memory_c2st']:.3f}",
            "difference": lambda r: f"{r['files_c2st'] - r['memory_c2st']:+.3f}",
            "loss from files": lambda r: f"{r['files_loss']:.4f}" if "files_loss" in r else "",
            "loss in memory": lambda r: f"{r['memory_loss']:.4f}" if "memory_loss" in r else "",
        },
    ),
    "atlas": (
        f"A backed AnnData of {GENES:,} genes",
        {"cells": _size, "GB": lambda r: f"{r['gigabytes']:.2f}", **FIT},
    ),
    "rows": ("Fits on rows of 15 columns", {"rows": _size, **FIT}),
    "columns": (f"Fits on {COLUMN_ROWS:,} rows", {"columns": _size, **FIT}),
    "draw": (f"Rows of {len(DRAWN_COLUMNS)} columns drawn to Parquet", {"rows": _size, **DRAW}),
    "cells": ("Cells of 765 genes drawn to one zarr store", {"cells": _size, **DRAW}),
    "processes": (
        "Fits of 50 steps of 4,096 rows under torchrun",
        {
            "processes": _size,
            "seconds of training": lambda r: f"{r['training_seconds']:.1f}",
            "loss at the end": lambda r: f"{r['loss'][-1]:.6f}",
            "peak MB of the first": _peak,
        },
    ),
}


def table(rows: list[dict[str, Any]]) -> str:
    """A table of what was measured for each task."""
    parts = []
    for task, (title, columns) in SHOWN.items():
        found = sorted((r for r in rows if r["task"] == task), key=lambda r: r["size"])
        if found:
            lines = [[form(row) for form in columns.values()] for row in found]
            parts.append("\n".join([f"## {title}", "", *markdown(columns, lines)]))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("--sizes", type=float, nargs="+", help="rows, columns, gigabytes, seeds, cells or processes")
    parser.add_argument("--kill", action="store_true", help="draw a second time, killed at a random moment")
    parser.add_argument("--results", type=Path, default=RESULTS / "scale.jsonl")
    parser.add_argument("--table", action="store_true", help="print what has been measured and stop")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        task, size, folder, out = args.child
        print(json.dumps(child(task, float(size), Path(folder), out)), flush=True)
        return
    if args.task is None or args.table:
        print(table(read_results(args.results)))
        return
    if args.kill and args.task not in ("draw", "cells"):
        parser.error("--kill goes with draw and cells")
    for size in args.sizes or DEFAULT_SIZES[args.task]:
        with tempfile.TemporaryDirectory(prefix="tabdiff-scale-") as folder:
            found = measure(args.task, size, Path(folder), args.kill)
        row = {"task": args.task, "size": size, **found, **provenance("tabdiff", "torch", "pyarrow", "pandas")}
        write_result(args.results, row, lambda r: (r["task"], r["size"]))
        print(table([row]), flush=True)


if __name__ == "__main__":
    main()
