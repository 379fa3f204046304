"""RNA and surface proteins of the same cells: what a model of both keeps, by figures of which the truth is known.

    python benchmarks/multimodal.py            # run what is missing from results/multimodal.jsonl
    python benchmarks/multimodal.py --sets factors --systems tabdiff --seeds 0
    python benchmarks/multimodal.py --table    # print the table as markdown, run nothing

No CITE-seq set comes with a package, so proteins are simulated. "factors": 300 genes and 30 proteins of cells of four
types, negative binomials with shared factors within types and library sizes that correlate at .5 between modalities.
"pbmc": the 765 genes of pbmc68k_reduced as measured, and 24 proteins whose rates follow the type of a cell and, within
types, three principal components of its genes. A system is fitted on half of the cells and draws as many of each type
as the other half has, with which it is compared.

Systems: "tabdiff" fits the MuData; "apart" fits each modality by itself and puts them side by side, cells of a type in
any order; "one library" fits one AnnData of all features; "real" is the other half's like: of "factors" new cells, of
"pbmc" the training half itself.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from harness import RESULTS, add_run_arguments, markdown, names, provenance, read_results, write_result
from scipy import sparse, stats

from tabdiff import DiffusionGenerator
from tabdiff.datasets import load_pbmc68k_counts

SETS = ("factors", "pbmc")
SYSTEMS = ("tabdiff", "apart", "one library", "real")
CELLS, GENES, PROTEINS, FACTORS, TYPES = 700, 300, 30, 3, 4
THETA = {"rna": 5.0, "prot": 10.0}
SHOWN = 100  # genes with the most counts, whose correlations with proteins are compared

Pair = tuple[np.ndarray, np.ndarray]


def negative_binomial(mean: np.ndarray, theta: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(rng.gamma(theta, mean / theta))


def depths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Factors (n, 2) by which RNA and proteins of a cell are counted more, which correlate at .5."""
    return np.exp(rng.multivariate_normal([0, 0], [[0.12, 0.085], [0.085, 0.24]], n))


def factors(n: int, seed: int) -> tuple[Pair, np.ndarray]:
    """Counts of genes and proteins, and types, of cells from the same truth for every seed."""
    truth, rng = np.random.default_rng(12), np.random.default_rng([1, seed])
    types, z = rng.choice(TYPES, n, p=[0.4, 0.3, 0.2, 0.1]), rng.standard_normal((n, FACTORS))
    depth, counts = depths(n, rng), []
    for j, (size, total, key) in enumerate(((GENES, 1500, "rna"), (PROTEINS, 6000, "prot"))):
        base = truth.normal(0, 1.2, size) + truth.normal(0, 0.9, (TYPES, size)) * (truth.random(size) < 0.4)
        loading = truth.normal(0, 0.45, (FACTORS, size)) * (truth.random((FACTORS, size)) < 0.4)
        rate = np.exp(base[types] + z @ loading)
        mean = rate / rate.sum(axis=1, keepdims=True) * total * depth[:, [j]]
        counts.append(negative_binomial(mean, THETA[key], rng))
    return (counts[0], counts[1]), types


def pbmc() -> tuple[Pair, np.ndarray]:
    """Genes of pbmc68k_reduced, and proteins of the same cells."""
    adata = load_pbmc68k_counts()
    genes = np.asarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X, dtype=np.int64)
    types, truth, rng = adata.obs["bulk_labels"].cat.codes.to_numpy(), *map(np.random.default_rng, (3, 4))
    logs = np.log1p(1e3 * genes / genes.sum(axis=1, keepdims=True))
    for kind in np.unique(types):
        logs[types == kind] -= logs[types == kind].mean(axis=0)
    u, _, _ = np.linalg.svd(logs, full_matrices=False)
    z = u[:, :3] * np.sqrt(len(u))
    base, loading = truth.normal(4, 1.2, (types.max() + 1, 24)), truth.normal(0, 0.4, (3, 24))
    depth = (genes.sum(axis=1) / genes.sum(axis=1).mean()) ** 0.6 * np.exp(rng.normal(0, 0.35, len(genes)))
    return (genes, negative_binomial(np.exp(base[types] + z @ loading) * depth[:, None], 10.0, rng)), types


def split(name: str, seed: int) -> tuple[Pair, np.ndarray, Pair, np.ndarray, tuple[Pair, np.ndarray]]:
    """Counts and types of the training half and of the other one, and what "real" is."""
    if name == "factors":
        # The other half is large, so that it adds little noise; what stands for it has as many cells as are drawn.
        (train, types), (other, others) = factors(CELLS, seed), factors(4000, 1000 + seed)
        return train, types, other, others, factors(CELLS, 2000 + seed)
    both, types = pbmc()
    order = np.random.default_rng(seed).permutation(len(types))
    half = np.zeros(len(types), dtype=bool)
    for kind in np.unique(types):
        own = order[types[order] == kind]
        half[own[: len(own) // 2]] = True
    train, other = (tuple(x[rows] for x in both) for rows in (half, ~half))
    return train, types[half], other, types[~half], (train, types[half])  # type: ignore[return-value]


def draw(system: str, train: Pair, types: np.ndarray, wanted: np.ndarray, seed: int) -> Pair:
    """Counts of genes and proteins of cells of the wanted types."""
    import mudata

    labels = pd.Categorical([f"type{t}" for t in types])
    obs = pd.DataFrame({"cell_type": labels}, index=[f"c{i}" for i in range(len(types))])
    asked = np.array([f"type{t}" for t in wanted])

    def cells(x: np.ndarray) -> AnnData:
        return AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=obs.copy())

    def drawn(data: Any, shift: int = 0) -> Any:
        gen = DiffusionGenerator(random_state=seed + shift).fit(data, condition="cell_type")
        return gen.sample(condition=asked, random_state=seed)

    if system == "apart":
        first, second = (drawn(cells(x), shift).X.toarray() for x, shift in zip(train, (0, 100), strict=True))
        return first, second
    if system == "one library":
        both = drawn(cells(np.concatenate(train, axis=1))).X.toarray()
        return both[:, : train[0].shape[1]], both[:, train[0].shape[1] :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = mudata.MuData({"rna": cells(train[0]), "prot": cells(train[1])})
        mdata.obs["cell_type"] = labels
    found = drawn(mdata)
    return found["rna"].X.toarray(), found["prot"].X.toarray()


def logged(x: np.ndarray) -> np.ndarray:
    total = x.sum(axis=1, keepdims=True)
    return np.log1p(x / np.maximum(total, 1) * np.median(total))


def between(pair: Pair, genes: np.ndarray, types: np.ndarray | None) -> np.ndarray:
    """Correlations (n_proteins, n_genes) of log-normalised proteins and genes, within types if they are given."""
    parts = [logged(pair[1]), logged(pair[0])[:, genes]]
    if types is not None:
        parts = [np.concatenate([p[types == t] - p[types == t].mean(axis=0) for t in np.unique(types)]) for p in parts]
    a, b = ((p - p.mean(axis=0)) / np.maximum(p.std(axis=0), 1e-9) for p in parts)
    return a.T @ b / len(a)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein distance of logarithms of counts, in standard deviations of the second."""
    a, b = np.log1p(a), np.log1p(b)
    return float(stats.wasserstein_distance(a, b) / max(b.std(), 1e-9))


def compare(pair: Pair, types: np.ndarray, real: Pair, others: np.ndarray) -> dict[str, float]:
    genes = np.argsort(-real[0].sum(axis=0))[:SHOWN]
    found: dict[str, float] = {}
    for name, own, theirs in (("all", None, None), ("within", types, others)):
        a, b = between(pair, genes, own).ravel(), between(real, genes, theirs).ravel()
        found[f"agreement_{name}"] = float(np.corrcoef(a, b)[0, 1])
        found[f"slope_{name}"] = float(a @ b / (b @ b))
    marginals = [
        distance(pair[1][types == t, j], real[1][others == t, j])
        for t in np.unique(others)
        for j in range(real[1].shape[1])
        if (types == t).sum() >= 20
    ]
    found["proteins"] = float(np.mean(marginals))
    totals = [[x.sum(axis=1) for x in p] for p in (pair, real)]
    found["depth_rna"], found["depth_prot"] = (distance(a, b) for a, b in zip(*totals, strict=True))
    found["depths"] = float(np.corrcoef(*np.log1p(totals[0]))[0, 1])
    return found


def measure(name: str, system: str, seed: int) -> dict[str, Any]:
    train, types, other, others, real = split(name, seed)
    start = time.perf_counter()
    wanted = real[1] if name == "factors" else others
    pair, own = real if system == "real" else (draw(system, train, types, wanted, seed), wanted)
    seconds = 0.0 if system == "real" else time.perf_counter() - start
    return {"set": name, "system": system, "seed": seed, "seconds": seconds, **compare(pair, own, other, others)}


def key(row: dict[str, Any]) -> tuple:
    return row["set"], row["system"], row["seed"]


COLUMNS = {
    "agreement_all": "protein-gene correlations, agreement ↑",
    "slope_all": "their size (1)",
    "agreement_within": "within types, agreement ↑",
    "slope_within": "their size (1)",
    "proteins": "protein marginals ↓",
    "depth_rna": "RNA depth ↓",
    "depth_prot": "protein depth ↓",
    "depths": "correlation of depths",
}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A row for each set and system: means over seeds."""
    lines = []
    for name in SETS:
        for system in SYSTEMS:
            own = [row for row in rows if (row["set"], row["system"]) == (name, system)]
            if own:
                figures = [f"{np.mean([row[c] for row in own]):.3f}" for c in COLUMNS]
                lines.append([name, system, str(len(own)), *figures])
    return markdown(["set", "system", "seeds", *COLUMNS.values()], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=names, default=list(SETS))
    parser.add_argument("--systems", type=names, default=list(SYSTEMS))
    add_run_arguments(parser, RESULTS / "multimodal.jsonl", seeds=(0, 1, 2))
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        done = {key(row) for row in read_results(args.results)}
        settings = {"threads": args.threads, **provenance("torch", "mudata", "anndata", "scanpy")}
        for seed in args.seeds:
            for name in args.sets:
                for system in args.systems:
                    if (name, system, seed) not in done:
                        write_result(args.results, {**measure(name, system, seed), "settings": settings}, key)
    print("\n".join(table(read_results(args.results))))


if __name__ == "__main__":
    main()
