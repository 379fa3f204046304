"""MLP against diffusion transformer, at equal time and at equal parameters: tables, cells and digits.

At equal time each makes as many steps, with its own default size, as take --seconds of processor time, which other work
on the machine does not change (of a GPU: of wall time). At equal parameters each makes --steps steps, the MLP with the
width at which it has about as many weights as the transformer. Nothing is refined: refinement hides differences between
networks. Beside them stand real rows and independent columns.

    TABDIFF_DATA=/path python benchmarks/denoisers.py                  # run what is missing
    TABDIFF_DATA=/path python benchmarks/denoisers.py --data default --seconds 600
    python benchmarks/denoisers.py --data digits,cells                 # these need no data beside scanpy's
    python benchmarks/denoisers.py --table                             # print the tables as markdown, run nothing

TABDIFF_DATA is a folder with load.py, as for tables.py. Needs xgboost for tables.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import (
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    markdown,
    n_weights,
    names,
    provenance,
    read_results,
    write_result,
)
from table_metrics import load

from tabdiff import DiffusionGenerator
from tabdiff.datasets import load_pbmc68k_counts
from tabdiff.evaluation import (
    c2st,
    cell_scores,
    independent_columns,
    nb_baseline,
    nearest_neighbour_ratio,
    shape_error,
    trend_error,
)
from tabdiff.model.build import build_denoiser
from tabdiff.model.defaults import SIZES
from tabdiff.training import Callback

FILE = RESULTS / "denoisers.jsonl"
TABLES = ("default", "beijing", "shoppers", "magic", "adult")
DATA = ("digits", "cells", "shoppers", "beijing", "default")
NETWORKS = ("mlp", "dit")
REFERENCES = ("real", "independent")


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("data", "system", "budget", "limit", "rows", "seed", "threads", "device"))


# ------------------------------------------------------------------- tables


def rows_of_table(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and others, which may lie in order of time and are mixed."""
    table = load(data_loader(), name)
    return table.train, table.holdout.sample(frac=1, random_state=0).reset_index(drop=True)


def score_table(real: pd.DataFrame, rows: pd.DataFrame, holdout: pd.DataFrame, most: int) -> dict[str, float]:
    from xgboost import XGBClassifier

    def classifier() -> Any:
        return XGBClassifier(
            eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=torch.get_num_threads()
        )

    n = min(len(real), len(rows), most)
    part = real.sample(n, random_state=0).reset_index(drop=True)
    rows = rows.sample(n, random_state=0).reset_index(drop=True)
    return {
        "c2st": c2st(part, rows, classifier=classifier),
        "shape_error": shape_error(part, rows),
        "trend_error": trend_error(part, rows),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(part, rows, holdout),
    }


def run_table(name: str, system: str, parameters: dict[str, Any], seed: int, most: int) -> dict[str, Any]:
    train, holdout = rows_of_table(name)
    if system == "real":
        half = len(holdout) // 2
        return score_table(train, holdout.iloc[:half], holdout.iloc[half:], most)
    if system == "independent":
        return score_table(train, independent_columns(train, random_state=seed), holdout, most)
    gen, report = fit(parameters, train)
    rows = gen.sample(min(len(train), most), random_state=seed)
    return {**report, **score_table(train, rows, holdout, most)}


# ------------------------------------------------------------ digits and cells


def halves(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The digits of scikit-learn, cut in two."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    a, b, label_a, label_b = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    return a, b, label_a, label_b


def run_digits(system: str, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.svm import SVC

    train, other, y_train, y_other = halves(0)
    report: dict[str, Any] = {}
    if system == "real":
        rows, labels = train, y_train
    elif system == "independent":
        rng = np.random.default_rng(seed)
        rows, labels = np.stack([rng.permutation(train[:, j]) for j in range(64)], axis=1), y_train
    else:
        gen, report = fit(parameters, train, y_train)
        labels = np.repeat(y_other, 2)
        rows = gen.sample(condition=labels, random_state=seed)
    judge = SVC().fit(other, y_other)
    n = min(len(rows), len(other))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n]
    score = c2st(
        pd.DataFrame(other[:n]),
        pd.DataFrame(rows[chosen]),
        classifier=lambda: HistGradientBoostingClassifier(random_state=0),
    )
    return {**report, "accuracy": float((judge.predict(rows) == labels).mean()), "c2st": score}


def run_cells(system: str, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    adata = load_pbmc68k_counts()
    order = np.random.default_rng(0).permutation(adata.n_obs)
    train, other = adata[order[::2]].copy(), adata[order[1::2]].copy()
    label = "bulk_labels"
    report: dict[str, Any] = {}
    if system == "real":
        drawn = train
    elif system == "independent":
        drawn = nb_baseline(train, label, labels=other.obs[label], seed=seed)
    else:
        gen, report = fit(parameters, train, condition=label)
        drawn = gen.sample(condition={label: other.obs[label].astype(str).to_numpy()}, random_state=seed)
    scores = cell_scores(
        other.X,
        drawn.X,
        real_labels=other.obs[label].astype(str),
        synthetic_labels=drawn.obs[label].astype(str),
        seed=0,
    )
    return {**report, **{k: float(v) for k, v in scores.items()}}


# ---------------------------------------------------------------------- runs


def fit(
    parameters: dict[str, Any], X: Any, y: Any = None, **arguments: Any
) -> tuple[DiffusionGenerator, dict[str, Any]]:
    start, used = time.perf_counter(), time.process_time()
    gen = DiffusionGenerator(**parameters)
    gen.fit(X, y, **arguments)
    return gen, {
        "fit_seconds": time.perf_counter() - start,
        "fit_cpu_seconds": time.process_time() - used,
        "steps": gen.n_steps_,
        "parameters": n_weights(gen.denoiser_),
        "hidden_size": gen.model_.config.hidden_size,
        "n_blocks": gen.model_.config.n_blocks,
    }


def train_on(data: str, parameters: dict[str, Any]) -> DiffusionGenerator:
    """Fit on the training rows of a data set."""
    if data == "digits":
        X, _, y, _ = halves(0)
        return fit(parameters, X, y)[0]
    if data == "cells":
        return fit(parameters, load_pbmc68k_counts(), condition="bulk_labels")[0]
    return fit(parameters, rows_of_table(data)[0])[0]


def equal_width(data: str, seed: int) -> int:
    """The width at which an MLP of the default depth has as many weights as the default transformer."""
    gen = train_on(data, {"denoiser": "dit", "max_steps": 1, "max_time": 1, "refine": False, "random_state": seed})
    depth = SIZES["mlp"][0 if gen.model_.config.n_blocks == SIZES["dit"][0].n_blocks else 1].n_blocks

    def size(width: int) -> int:
        spec = replace(gen.model_.config, network="mlp", hidden_size=width, n_blocks=depth, options={})
        return n_weights(build_denoiser(spec, "mlp", 0))

    return min(range(16, 1024, 8), key=lambda width: abs(size(width) - n_weights(gen.denoiser_)))


class Clock(Callback):
    """Takes the time of the steps behind the first few."""

    def on_step_end(self, training: Any) -> None:
        now = time.perf_counter() if device() == "cuda" else time.process_time()
        if training.step == 3:
            self.started = now
        self.seconds = (now - self.started) / (training.step - 3) if training.step > 3 else 0.0


def steps_within(data: str, parameters: dict[str, Any], seconds: float) -> int:
    """How many training steps take so many seconds of processor time."""
    clock = Clock()
    train_on(data, {**parameters, "max_steps": 13, "callbacks": [clock]})
    return max(int(seconds / clock.seconds), 1)


def run(row: dict[str, Any]) -> dict[str, Any]:
    data, system, seed = row["data"], row["system"], row["seed"]
    parameters: dict[str, Any] = {"denoiser": system, "refine": False, "random_state": seed, "device": row["device"]}
    if row["budget"] == "time":
        parameters["max_steps"] = steps_within(data, parameters, row["limit"])
    else:
        parameters["max_steps"] = row["limit"]
        if system == "mlp":
            parameters["hidden_size"] = equal_width(data, seed)
    if data == "digits":
        scores = run_digits(system, parameters, seed)
    elif data == "cells":
        scores = run_cells(system, parameters, seed)
    else:
        scores = run_table(data, system, parameters, seed, row["rows"])
    return {**row, **scores, **provenance("torch")}


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for data in args.data:
        for seed in args.seeds:
            base = {"data": data, "seed": seed, "threads": args.threads, "rows": args.rows}
            for system in (*REFERENCES, *args.systems):
                if system in REFERENCES:
                    found.append({**base, "system": system, "budget": "none", "limit": 0, "device": "cpu"})
                    continue
                for budget, limit in (("time", args.seconds), ("parameters", args.steps)):
                    if budget in args.budgets:
                        found.append({**base, "system": system, "budget": budget, "limit": limit, "device": device()})
    return found


# -------------------------------------------------------------------- tables

COLUMNS = {
    "c2st": ("C2ST", "{:.3f}"),
    "shape_error": ("shape error, %", "{:.2f}"),
    "trend_error": ("trend error, %", "{:.2f}"),
    "nearest_neighbour_ratio": ("nearest-neighbour ratio", "{:.2f}"),
    "accuracy": ("class accuracy", "{:.3f}"),
    "rf_auc": ("RF-AUC", "{:.3f}"),
    "rbf_mmd": ("MMD", "{:.3f}"),
    "wasserstein2": ("W2", "{:.2f}"),
    "within_type_correlation": ("within-type correlation", "{:.3f}"),
}
BUDGETS = {"time": "{limit:g} s of processor time", "parameters": "equal parameters, {limit} steps", "none": ""}


def print_tables(records: list[dict[str, Any]]) -> None:
    for data in dict.fromkeys(r["data"] for r in records):
        rows = [r for r in records if r["data"] == data]
        metrics = [m for m in COLUMNS if any(m in r for r in rows)]
        header = ["network", "budget", "weights", "steps", *(COLUMNS[m][0] for m in metrics)]
        lines = []
        for kind in dict.fromkeys((r["system"], r["budget"], r["limit"], r["device"]) for r in rows):
            same = [r for r in rows if (r["system"], r["budget"], r["limit"], r["device"]) == kind]
            cells = [kind[0], BUDGETS[kind[1]].format(limit=kind[2]) + (" on a GPU" if kind[3] == "cuda" else "")]
            for name in ("parameters", "steps"):
                cells.append(f"{np.mean([r[name] for r in same]):,.0f}" if name in same[0] else "")
            for m in metrics:
                values = [r[m] for r in same if m in r]
                cells.append(COLUMNS[m][1].format(np.mean(values)) if values else "")
            lines.append(cells)
        print(f"### Denoisers: {data}\n\n" + "\n".join(markdown(header, lines)) + "\n")


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=names, default=list(DATA), help=f"of {(*TABLES, 'digits', 'cells')}")
    parser.add_argument("--systems", type=names, default=list(NETWORKS))
    parser.add_argument("--budgets", type=names, default=["time", "parameters"], help="time, parameters")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each fit at equal time")
    parser.add_argument("--steps", type=int, default=1000, help="of each fit at equal parameters")
    parser.add_argument("--rows", type=int, default=10_000, help="of a table that are drawn and compared, at most")
    add_run_arguments(parser, FILE, [0])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.table:
        done = {key(row) for row in read_results(args.results)}
        for row in jobs(args):
            if key(row) not in done:
                print(row, flush=True)
                write_result(args.results, run(row), key)
    print_tables(read_results(args.results))


if __name__ == "__main__":
    main()
