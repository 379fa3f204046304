"""Seconds, memory and repeatability of a fit, each in a process of its own.

    python benchmarks/cell_scale.py --task speed --output report.json
    python benchmarks/cell_scale.py --task genes --output report.json
    python benchmarks/cell_scale.py --task memory --shape 200000 20000 --output report.json

"speed" fits the 700 × 765 cells that come with scanpy twice with one seed: the seconds of the slower fit, whether the
drawn cells are the same, whether the input is unchanged by hash. "genes" does so with a small set that has all genes,
559 × 32,786 simulated counts of six types. "memory" fits a sparse matrix of about 5 % density that is simulated here,
in place: seconds, and peak memory of the process before the fit, when the matrix is there, and after fitting and
sampling.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from cell_systems import found_versions, peak_mb
from harness import HERE, provenance, read_results, run_child, write_result
from scipy import optimize, sparse

if TYPE_CHECKING:
    from anndata import AnnData

MB = 2**20
CHUNK = 1000
SPEED_SHAPE, GENES_SHAPE, GENES_TYPES = (700, 765), (559, 32_786), 6


def simulate(n_cells: int, n_genes: int, density: float = 0.05, n_types: int = 10, seed: int = 0) -> AnnData:
    """Counts of `n_types` types of cells as CSR float32, made some cells at a time in arrays of the final size."""
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    rate = rng.lognormal(0.0, 2.0, n_genes) * rng.lognormal(0.0, 0.5, (n_types, n_genes))
    rate /= rate.sum(axis=1, keepdims=True)
    depth = optimize.brentq(lambda n: -np.expm1(-n * rate).mean() - density, 1.0, 1e3 * n_genes)
    types = rng.integers(n_types, size=n_cells)
    # Library sizes vary, which lowers the share of nonzeros a little, so that the arrays are long enough.
    capacity = int(1.1 * density * n_cells * n_genes) + n_genes
    data, indices = np.empty(capacity, dtype=np.float32), np.empty(capacity, dtype=np.int32)
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    cumulative = np.cumsum(rate, axis=1)
    for start in range(0, n_cells, CHUNK):
        own = types[start : start + CHUNK]
        reads = rng.poisson(depth * rng.lognormal(-0.02, 0.2, len(own)))
        cells, genes = [], []
        for t in np.unique(own):
            members = np.flatnonzero(own == t)
            cells.append(np.repeat(members, reads[members]))
            genes.append(np.searchsorted(cumulative[t, :-1], rng.random(len(cells[-1]))))
        places = (np.concatenate(cells), np.concatenate(genes))
        ones = np.ones(len(places[0]), dtype=np.float32)
        # Reads of one gene in one cell add up.
        block = sparse.coo_matrix((ones, places), shape=(len(own), n_genes)).tocsr()
        first, last = int(indptr[start]), int(indptr[start]) + block.nnz
        if last > capacity:
            raise RuntimeError(f"{last} nonzeros do not fit into {capacity}")
        data[first:last], indices[first:last] = block.data, block.indices
        indptr[start + 1 : start + 1 + len(own)] = first + block.indptr[1:]
    last = int(indptr[-1])
    indptr = indptr.astype(np.int32) if last < 2**31 else indptr
    matrix = sparse.csr_matrix((data[:last], indices[:last], indptr), shape=(n_cells, n_genes))
    obs = pd.DataFrame({"type": pd.Categorical([f"type {t}" for t in types])}, index=[f"c{i}" for i in range(n_cells)])
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(n_genes)]))


def csr_mb(adata: AnnData) -> float:
    return sum(part.nbytes for part in (adata.X.data, adata.X.indices, adata.X.indptr)) / MB


def fingerprint(adata: AnnData) -> str:
    """Hash of counts, labels and names."""
    digest = hashlib.blake2b()
    for part in (adata.X.data, adata.X.indices, adata.X.indptr):
        digest.update(np.ascontiguousarray(part))
    for frame in (adata.obs, adata.var):
        digest.update(pd.util.hash_pandas_object(frame).to_numpy())
        digest.update(str(frame.dtypes.to_dict()).encode())
    return digest.hexdigest()


def same_cells(a: AnnData, b: AnnData) -> bool:
    return a.shape == b.shape and (a.X != b.X).nnz == 0 and a.obs.equals(b.obs)


def measure_speed(args: argparse.Namespace) -> dict[str, Any]:
    from tabdiff import DiffusionGenerator
    from tabdiff.datasets import load_pbmc68k_counts

    if args.task == "genes":
        adata, condition = simulate(*(args.shape or GENES_SHAPE), n_types=GENES_TYPES, seed=args.seed), "type"
    else:
        adata, condition = load_pbmc68k_counts(), "bulk_labels"
        adata = adata[: args.shape[0], : args.shape[1]].copy() if args.shape else adata
    before = fingerprint(adata)
    seconds, drawn = [], []
    for _ in range(2):
        start = time.perf_counter()
        gen = DiffusionGenerator(random_state=args.seed, **args.settings).fit(adata, condition=condition)
        seconds.append(time.perf_counter() - start)
        drawn.append(gen.sample(like=adata, random_state=1))
    return {
        "shape": list(adata.shape),
        "density": round(adata.X.nnz / adata.n_obs / adata.n_vars, 4),
        "fit_seconds": round(max(seconds), 2),
        "repeats": same_cells(*drawn),
        "unchanged": fingerprint(adata) == before,
        "steps": gen.n_steps_,
    }


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tabdiff import DiffusionGenerator

    torch.zeros(1)
    adata = simulate(*args.shape, seed=args.seed)
    size, before = csr_mb(adata), fingerprint(adata)
    peak_before = peak_mb()
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=args.seed, max_time=args.max_time, **args.settings)
    gen.fit(adata, condition="type")
    fitted = time.perf_counter()
    peak_fit = peak_mb()
    drawn = gen.sample(1000)
    limit = 2 * size + 2048
    return {
        "shape": list(adata.shape),
        "density": round(adata.X.nnz / adata.n_obs / adata.n_vars, 4),
        "csr_mb": round(size, 1),
        "peak_before_mb": round(peak_before),
        "peak_fit_mb": round(peak_fit),
        "peak_mb": round(peak_mb()),
        "limit_mb": round(limit),
        "within_limit": peak_mb() <= limit,
        "fit_seconds": round(fitted - start, 2),
        "sample_seconds": round(time.perf_counter() - fitted, 2),
        "unchanged": fingerprint(adata) == before,
        "drawn_mean_total": round(float(drawn.X.sum() / drawn.n_obs), 1),
        "real_mean_total": round(float(adata.X.sum(dtype=np.float64) / adata.n_obs), 1),
        "steps": gen.n_steps_,
    }


def key(row: dict[str, Any]) -> tuple:
    return (row["task"], tuple(row["shape"]), row["threads"])


def run_scale(args: argparse.Namespace, path: Path) -> None:
    """All tasks, one after the other; what is in the results already is not run again."""
    done = {key(row) for row in read_results(path) if not (args.retry and "failed" in row)}
    for task, shape in (("speed", list(SPEED_SHAPE)), ("genes", list(GENES_SHAPE)), ("memory", list(args.shape))):
        row: dict[str, Any] = {"task": task, "shape": shape, "threads": args.threads}
        if key(row) in done:
            continue
        print(f"{task} {shape[0]} × {shape[1]}: running", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "report.json"
            command = [str(HERE / "cell_scale.py"), "--task", task, "--output", str(output)]
            command += ["--shape", *(str(n) for n in shape), "--threads", str(args.threads)]
            command += ["--max-time", str(args.max_time)]
            if args.max_steps is not None:
                command += ["--max-steps", str(args.max_steps)]
            error = run_child(sys.executable, command, threads=args.threads, timeout=4 * args.max_time + 3600)
            found = {"failed": error} if error is not None else json.loads(output.read_text(encoding="utf-8"))
        row = {**row, **found, "max_time": args.max_time, "max_steps": args.max_steps}
        write_result(path, {**row, **provenance()}, key)
        print(f"{task}: {found}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("speed", "genes", "memory"), required=True)
    parser.add_argument("--shape", type=int, nargs=2)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-time", type=float, default=600.0, help="of the fit of memory")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.settings = {} if args.max_steps is None else {"max_steps": args.max_steps}
    import torch

    torch.set_num_threads(args.threads)
    report = (measure_memory if args.task == "memory" else measure_speed)(args)
    args.output.write_text(json.dumps({**report, "versions": found_versions()}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
