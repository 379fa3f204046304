"""The six metrics of the 2026 virtual-cell challenge, by cell-eval2, for types that were never stimulated.

    pip install cell-eval2
    TABDIFF_DATA=/path python benchmarks/cell_eval.py            # what is missing from results/cell_eval.jsonl
    python benchmarks/cell_eval.py --table                       # print the tables as markdown, run nothing

The set is kang_ifnb with its 2,000 most variable genes. The stimulated cells of one type are left out of the fit, and
predicted from its control cells, as many as were left out; each type of at least 100 cells under both takes a turn. The
prediction goes to cell-eval2 beside those control cells as it is: counts, genes and labels unchanged. Its preset
"vcc2026" is used with the column and the control named, and with no target genes, since a cytokine has none.

Each type is a perturbation of its own control cells, so five of the metrics are computed type by type and brought
together by cell-eval2's rules. pds_cosine asks which type's real effect a predicted one is most like, of effects that
each refer to their own type's control cells.

A score is (value - mean response) / (replicate - mean response), as in the challenge but without its cut-offs, so that
0 is no better than the mean response and 1 is as good as half as many cells of the same experiment. There is none where
the replicate is hardly better than the mean response:

- mean response: the type's control cells, drawn with replacement, with counts taken away and added until each gene has
  changed as in the other types: the mean change of log(1 + counts per 10,000), weighted by cells.
- no change: the type's control cells, drawn with replacement.
- other types' profile: the same with counts until they have the mean stimulated profile of the other types.
- replicate: one half of the type's real cells predicts the other, both with control cells of their own, for five
  splits; for the fold changes as cell-eval2 does it, with the significant genes of all cells.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl
from cell_data import load_set
from harness import (
    MODELS,
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    markdown,
    measured,
    provenance,
    read_results,
    write_result,
)
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

DATA, GENES = "kang_ifnb", 2000
TYPES = ("B cells", "CD14+ Monocytes", "CD4 T cells", "NK/CD8 T cells")
TYPE, GIVEN, CONTROL, STIMULATED = "cell_type", "condition", "ctrl", "stim"
SYSTEMS = {
    "unchanged": "no change",
    "mean": "other types' profile",
    "shift": "mean response (0)",
    "tabdiff": "tabdiff",
    "replicate": "replicate (1)",
}
METRICS = {
    "pds_cosine": "discrimination",
    "expr_mse_unbiased_capped_norm": "expression error",
    "de_wilcoxon_direction_fidelity_yield_raw": "direction, fidelity",
    "de_wilcoxon_direction_reach_raw": "direction, reach",
    "de_wilcoxon_sig_jaccard": "significant genes, Jaccard",
    "de_wilcoxon_lfc_nmae": "fold-change error",
}
ERRORS = ("expr_mse_unbiased_capped_norm", "de_wilcoxon_lfc_nmae")
SPLITS = 5
MIN_GAP = 0.05  # between the mean response and the replicate, for a score to say anything
MIN_CELLS = 10  # of a type on either side, for its change to count in the mean


def configuration(threads: int = 1) -> Any:
    """cell-eval2's settings of the challenge, for the names that the cells have here."""
    from cell_eval2 import EvalConfig

    preset = EvalConfig.from_preset("vcc2026")
    return replace(
        preset,
        pert_col=GIVEN,
        control=CONTROL,
        target_gene_map={"*": None},
        num_threads=threads,
        device="cpu",
        cache_strict=False,
    )


def of_type(adata: AnnData, label: str) -> tuple[AnnData, AnnData]:
    """Control and stimulated cells of a type."""
    own = adata[adata.obs[TYPE] == label]
    return own[own.obs[GIVEN] == CONTROL].copy(), own[own.obs[GIVEN] == STIMULATED].copy()


def shares(cells: AnnData) -> np.ndarray:
    """Counts per ten thousand of all cells together (n_genes,)."""
    total = np.asarray(cells.X.sum(axis=0), dtype=np.float64).ravel()
    return 1e4 * total / total.sum()


def moved(control: AnnData, share: np.ndarray, n: int, seed: int) -> AnnData:
    """Control cells (n), drawn with replacement, with counts taken away and added until their mean share is this.

    Of a gene that falls each count is kept with the same probability; to one that rises Poisson counts are added.
    Counts multiplied by a factor would leave a gene at zero that no control cell expresses, and be told by their zeros.
    """
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    rows = rng.integers(control.n_obs, size=n)
    counts = np.asarray(control.X[rows].toarray(), dtype=np.int64)
    own = shares(control)
    kept = rng.binomial(counts, np.minimum(share / np.maximum(own, 1e-12), 1.0))
    added = rng.poisson(counts.sum(axis=1, keepdims=True) * np.maximum(share - own, 0.0) / 1e4)
    obs = control.obs.iloc[rows].set_axis([f"moved-{i}" for i in range(n)])
    return AnnData(
        sparse.csr_matrix((kept + added).astype(np.float32)), obs=obs.assign(**{GIVEN: STIMULATED}), var=control.var
    )


def predict(system: str, adata: AnnData, label: str, seed: int, max_time: float) -> tuple[AnnData, dict[str, Any]]:
    """Cells of the type under the stimulus by one system, as many as were left out, and what a fit took."""
    control, held = of_type(adata, label)
    if system == "unchanged":
        return moved(control, shares(control), held.n_obs, seed), {}
    if system == "tabdiff":
        from tabdiff import DiffusionGenerator

        seen = adata[~adata.obs_names.isin(held.obs_names)].copy()
        # Kept, so that cells can be drawn and judged again without a fit.
        folder = MODELS / f"cell_eval-{adata.n_vars}-{label.replace('/', '_')}-seed{seed}-{max_time:g}s"
        took: dict[str, Any] = {}
        if folder.exists():
            gen = DiffusionGenerator.load(folder)
        else:
            start = time.perf_counter()
            gen = DiffusionGenerator(random_state=seed, max_time=max_time).fit(seen, condition=[TYPE, GIVEN])
            took["fit_seconds"] = round(time.perf_counter() - start, 2)
            gen.save(folder)
        drawn = gen.predict_perturbation(control, {GIVEN: STIMULATED}, n_samples=held.n_obs, random_state=seed)
        return drawn, {**took, "steps": gen.n_steps_}
    others, weights = [], []
    for other in sorted(set(adata.obs[TYPE]) - {label}):
        pair = of_type(adata, other)
        if min(cells.n_obs for cells in pair) >= MIN_CELLS:
            others.append([shares(cells) for cells in pair])
            weights.append(min(cells.n_obs for cells in pair))
    if system == "mean":
        wanted = np.average([after for _, after in others], axis=0, weights=weights)
    else:
        changes = [np.log1p(after) - np.log1p(before) for before, after in others]
        change = np.average(changes, axis=0, weights=weights)
        wanted = np.maximum(np.expm1(np.log1p(shares(control)) + change), 0.0)
    return moved(control, wanted, held.n_obs, seed), {}


def judge(predicted: AnnData, control: AnnData, real: AnnData, config: Any) -> dict[str, float]:
    """The metrics of one type and what the ratio of sums is made of, by name."""
    import anndata
    from cell_eval2 import compute_metrics

    # Every prediction has to hold the control cells too, which are those of the real side.
    sides = [anndata.concat([control, cells]) for cells in (predicted, real)]
    found = compute_metrics(*sides, config=config)
    return {row["metric"]: row["value"] for row in found.iter_rows(named=True) if row["value"] is not None}


def effects(cells: list[tuple[AnnData, AnnData]], target: float) -> np.ndarray:
    """What the stimulus changes in each type (n_types, n_genes), in the space in which cell-eval2 compares profiles."""
    return np.stack([np.log1p(shares(b) * target / 1e4) - np.log1p(shares(a) * target / 1e4) for a, b in cells])


def discrimination(predicted: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """pds_cosine of each type: the share of the other types whose real effects are further from the predicted one."""
    from cell_eval2.metrics.discrimination import discrimination_score

    labels = np.array([*TYPES, CONTROL])
    none = np.zeros((1, real.shape[1]))
    return discrimination_score(
        pred_bulk=(labels, np.concatenate([predicted, none])),
        real_bulk=(labels, np.concatenate([real, none])),
        control=CONTROL,
        distance="cosine",
        rank_denominator="n-1",
        exclude_target_gene=False,
        control_source="real",
    )


def halves(adata: AnnData, label: str, seed: int) -> list[tuple[AnnData, AnnData]]:
    """Control and stimulated cells of a type in two halves."""
    rng = np.random.default_rng(seed)
    parts = [(cells, np.array_split(rng.permutation(cells.n_obs), 2)) for cells in of_type(adata, label)]
    return [tuple(cells[rows[half]].copy() for cells, rows in parts) for half in (0, 1)]


def replicate(adata: AnnData, config: Any) -> dict[str, dict[str, list[float]]]:
    """Metrics by type of one half of the real cells that predicts the other, as lists over splits."""
    import anndata
    from cell_eval2 import compute_lfc_nmae_reference, compute_metrics

    out: dict[str, dict[str, list[float]]] = {label: {} for label in TYPES}
    # Halves that shared control cells would agree too well.
    own_controls = replace(config, control_source="pred")
    for seed in range(SPLITS):
        split = {label: halves(adata, label, seed) for label in TYPES}
        for label, (first, second) in split.items():
            found = compute_metrics(anndata.concat(second), anndata.concat(first), config=own_controls)
            values = {row["metric"]: row["value"] for row in found.iter_rows(named=True)}
            own = adata[adata.obs[TYPE] == label].copy()
            _, gated = compute_lfc_nmae_reference(own, config=config, seed=seed)
            values["de_wilcoxon_lfc_nmae"] = gated.filter(gated["statistic"] == "mean")["nmae_ref_raw"][0]
            for metric, value in values.items():
                out[label].setdefault(metric, []).append(value)
        of = [effects([split[label][half] for label in TYPES], config.bulk_target_sum) for half in (1, 0)]
        for label, value in discrimination(*of).items():
            out[label].setdefault("own", []).append(value)
    for values in out.values():
        values["pds_cosine"] = values.pop("own")
    return out


def key(row: dict[str, Any]) -> tuple:
    return row["task"], row["system"], row["seed"]


def run(args: argparse.Namespace) -> None:
    """Predict and judge what is missing from the results; a line a system and seed, of all types."""
    adata = load_set(data_loader(), DATA, args.genes)
    for name in (TYPE, GIVEN):
        adata.obs[name] = adata.obs[name].astype(str)
    config = configuration(args.threads)
    done = {key(row) for row in read_results(args.results)}
    task = f"{DATA}, {args.genes:,} genes"
    cells = [of_type(adata, label) for label in TYPES]
    real = effects(cells, config.bulk_target_sum)
    for system in SYSTEMS:
        for seed in args.seeds if system == "tabdiff" else [0]:
            row: dict[str, Any] = {"task": task, "system": system, "seed": seed}
            if key(row) in done:
                continue
            print(f"{system} seed {seed}: running", flush=True)
            types: dict[str, Any] = {}
            if system == "replicate":
                types = replicate(adata, config)
            else:
                found = []
                for label, (control, held) in zip(TYPES, cells, strict=True):
                    predicted, took = predict(system, adata, label, seed, args.max_time)
                    types[label] = {**judge(predicted, control, held, config), **took}
                    found.append((control, predicted))
                for label, value in discrimination(effects(found, config.bulk_target_sum), real).items():
                    types[label]["pds_cosine"] = value
            row |= {"device": device(), "max_time": args.max_time} if system == "tabdiff" else {}
            row |= {"cells": {t: [len(a), len(b)] for t, (a, b) in zip(TYPES, cells, strict=True)}, "types": types}
            write_result(args.results, {**row, **provenance(), **measured("cell-eval2", "tabdiff", "scanpy")}, key)


def together(types: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Each metric over types: the mean, and for the expression error the ratio of sums."""
    out = {}
    for metric in METRICS:
        if metric == "expr_mse_unbiased_capped_norm":
            of = [
                [np.asarray(t[f"expr_{m}"]) for t in types.values()]
                for m in ("mse_unbiased_capped", "distance_unbiased")
            ]
            out[metric] = float(np.mean(np.sum(of[0], axis=0) / np.sum(of[1], axis=0)))
        else:
            found = [np.mean(t[metric]) for t in types.values() if metric in t]
            out[metric] = float(np.mean(found)) if found else float("nan")
    return out


def scaled(value: float, metric: str, base: float, best: float) -> float:
    """Score between the mean response and the replicate; none where the replicate is hardly better, or no better."""
    gap = base - best if metric in ERRORS else best - base
    if not np.isfinite([value, gap]).all() or gap < MIN_GAP:
        return float("nan")
    return abs(value - base) / gap * (1 if (value < base) == (metric in ERRORS) else -1)


def values(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each system that was run, each metric: means over seeds."""
    found = {s: [together(r["types"]) for r in rows if r["system"] == s] for s in SYSTEMS}
    return {s: {m: float(np.mean([one[m] for one in many])) for m in METRICS} for s, many in found.items() if many}


def tables(rows: list[dict[str, Any]]) -> str:
    """Scores of each system, mean over seeds, then the values of the metrics, then the scores by type."""
    value = values(rows)
    if not {"shift", "replicate"} <= set(value):
        return ""
    out = []
    lines = []
    for system, of in value.items():
        scores = [scaled(of[m], m, value["shift"][m], value["replicate"][m]) for m in METRICS]
        lines.append([SYSTEMS[system], *(f"{round(x, 2) + 0.0:.2f}" if np.isfinite(x) else "–" for x in scores)])
    out += ["### scores: 0 for the mean response, 1 for the replicate", ""]
    out += [*markdown(["system", *METRICS.values()], lines), ""]
    lines = [[SYSTEMS[s], *(f"{of[m]:.3f}" for m in METRICS)] for s, of in value.items()]
    shown = [f"{title} ({'lower' if m in ERRORS else 'higher'} is better)" for m, title in METRICS.items()]
    out += ["### values", "", *markdown(["system", *shown], lines), ""]
    out += ["### by type: values of tabdiff, of the mean response and of the replicate", ""]
    lines = []
    for label in TYPES:
        each = []
        for metric in METRICS:
            parts = []
            for system in ("tabdiff", "shift", "replicate"):
                many = [together({label: r["types"][label]})[metric] for r in rows if r["system"] == system]
                parts.append(f"{np.mean(many):.2f}" if many else "–")
            each.append(" / ".join(parts))
        lines.append([label, *each])
    return "\n".join([*out, *markdown(["left out", *METRICS.values()], lines), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, RESULTS / "cell_eval.jsonl", [0])
    parser.add_argument("--genes", type=int, default=GENES, help=f"most variable genes taken, default {GENES}")
    parser.add_argument("--max-time", type=float, default=600.0, help="seconds of training at most")
    args = parser.parse_args()
    if args.table:
        print(tables(read_results(args.results)))
        return 0
    try:
        import cell_eval2  # noqa: F401
    except ImportError:
        print("cell-eval2 is missing: pip install cell-eval2", file=sys.stderr)
        return 1
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with threadpoolctl.threadpool_limits(args.threads):
            run(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
