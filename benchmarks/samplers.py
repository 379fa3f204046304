"""Quality against number of network evaluations, for every sampling method.

Two trained models: the Adult table (shape error, trend error and classifier two-sample test against the training rows)
and scikit-learn's 8x8 digits (Fréchet distance on classifier features, accuracy of conditional samples). Beside each
stand real rows that the model has not seen and independent columns, measured in the same run.

    python benchmarks/samplers.py                   # run what is missing from results/samplers.jsonl
    python benchmarks/samplers.py --model digits    # one of the two models
    python benchmarks/samplers.py --table           # print the tables as markdown, run nothing

The Adult table needs TABDIFF_DATA: a folder with load.py, whose load_table("adult", benchmark=True) returns a frame
and its metadata, with row positions under metadata["split"]["train"] and ["test"].
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.linalg
import torch
from harness import MODELS, RESULTS, add_run_arguments, data_loader, provenance, read_results, write_result
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from tabdiff import DiffusionGenerator
from tabdiff.diffusion import (
    DDIM,
    DDPM,
    METHODS,
    RK4,
    RK45,
    DPMpp2M,
    Heun,
    Model,
    Node,
    PredictorCorrector,
    Sampler,
    UniPC,
    make_sampler,
)
from tabdiff.evaluation import c2st, independent_columns, shape_error, trend_error

EVALUATIONS = (5, 10, 15, 25, 50, 100, 250, 1000)
# The most useful columns first, so that a run that is stopped early still leaves a table.
ORDER = (25, 50, 10, 5, 100, 15, 250, 1000)
# Above 100 evaluations the methods that are still improving there, and the default; at 1000 two.
MANY = {250: ("ddpm", "ddpm large", "ddim", "dpmpp_2m", "euler_maruyama"), 1000: ("ddpm", "ddim")}
REPEATED = ("dpmpp_2m", 25)  # the cell whose spread over seeds is measured
REPEATS = 3
PACKAGES = ("tabdiff", "torch", "scikit-learn", "numpy", "scipy")

TABLE_ROWS = 10_000
DIGIT_CHUNKS = 4


@dataclass(frozen=True)
class OnGrid:
    """A sampling method on a step grid other than its own."""

    method: Sampler
    default_grid: str

    def __call__(self, model: Model, x: torch.Tensor, path: list[Node]) -> Iterator[Any]:
        return self.method(model, x, path)


def methods() -> dict[str, Sampler]:
    """Every named method, then the options and grids worth a line of their own."""
    return {name: make_sampler(name) for name in METHODS if name != "rk45"} | {
        "ddpm large": DDPM("large"),
        "ddim eta=0.5": DDIM(eta=0.5),
        "heun churn=10": Heun(churn=10.0),
        "dpmpp_2m log_snr": OnGrid(DPMpp2M(), "log_snr"),
        "dpmpp_2m karras": OnGrid(DPMpp2M(), "karras"),
        "unipc quadratic": OnGrid(UniPC(), "quadratic"),
        "heun log_snr": OnGrid(Heun(), "log_snr"),
        "ddpm log_snr": OnGrid(DDPM(), "log_snr"),
    }


TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


def steps_for(method: Sampler, evaluations: int) -> int:
    """Steps that make at most so many evaluations; the last step of every method has one."""
    inner = method.method if isinstance(method, OnGrid) else method
    each = 1
    if isinstance(inner, Heun):
        each = 2
    elif isinstance(inner, RK4):
        each = 4
    elif isinstance(inner, PredictorCorrector):
        each = 1 + inner.corrections
    return (evaluations - 1) // each + 1


class Counter:
    """Count the calls of a network."""

    def __init__(self, gen: DiffusionGenerator) -> None:
        self.calls = 0
        gen.denoiser_.network.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1


# -------------------------------------------------------------------------------------------------- the two models


class Adult:
    """DiffusionGenerator with default settings but fewer training steps, on the Adult table."""

    name = "adult"
    metrics = ("shape_error", "trend_error", "c2st")
    settings: ClassVar[dict[str, int]] = {"max_steps": 3000}

    def __init__(self) -> None:
        loader = data_loader()
        frame, meta = loader.load_table("adult", benchmark=True)
        self.train = frame.iloc[meta["split"]["train"]].reset_index(drop=True)
        self.holdout = frame.iloc[meta["split"]["test"]].reset_index(drop=True)

    def fit(self) -> DiffusionGenerator:
        return DiffusionGenerator(**self.settings, random_state=0).fit(self.train)

    def sample(self, gen: DiffusionGenerator, method: Any, steps: int, seed: int) -> pd.DataFrame:
        # One batch, so that calls of the network are evaluations.
        return gen.sample(TABLE_ROWS, method=method, steps=steps, random_state=seed, batch_size=TABLE_ROWS)

    def measure(self, rows: pd.DataFrame) -> dict[str, float]:
        return {
            "shape_error": shape_error(self.train, rows),
            "trend_error": trend_error(self.train, rows),
            "c2st": c2st(self.train, rows, random_state=0),
        }

    def references(self) -> Iterator[tuple[str, dict[str, float]]]:
        yield "real holdout", self.measure(self.holdout.sample(TABLE_ROWS, random_state=0).reset_index(drop=True))
        yield "independent columns", self.measure(independent_columns(self.train, TABLE_ROWS, random_state=0))


class Digits:
    """DiffusionGenerator on one half of the digits as rows of 64 numbers, conditional on the class.

    Samples are compared with the other half, in chunks of the size of the first, so that the bias that a Fréchet
    distance of few rows has is that of the real floor.
    """

    name = "digits"
    metrics = ("frechet", "accuracy")
    settings: ClassVar[dict[str, int]] = {"hidden_size": 512, "max_steps": 1500}

    def __init__(self) -> None:
        X, y = load_digits(return_X_y=True)
        split = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
        self.train, self.other, self.train_y, self.other_y = split
        # Features come from a classifier that knows both halves alike; the judge of conditional samples knows only
        # the half that the generator has not seen.
        self.features = MLPClassifier((64,), max_iter=400, random_state=0).fit(X / 16, y)
        self.judge = MLPClassifier((64,), max_iter=400, random_state=0).fit(self.other / 16, self.other_y)

    def fit(self) -> DiffusionGenerator:
        return DiffusionGenerator(**self.settings, random_state=0).fit(self.train, self.train_y)

    def sample(self, gen: DiffusionGenerator, method: Any, steps: int, seed: int) -> np.ndarray:
        labels = np.tile(self.train_y, DIGIT_CHUNKS)
        return gen.sample(
            condition=labels, method=method, steps=steps, random_state=seed, batch_size=DIGIT_CHUNKS * len(self.train)
        )

    def _hidden(self, X: np.ndarray) -> np.ndarray:
        return np.maximum(X / 16 @ self.features.coefs_[0] + self.features.intercepts_[0], 0)

    def measure(self, rows: np.ndarray) -> dict[str, float]:
        chunks = np.split(rows, len(rows) // len(self.train))
        labels = np.tile(self.train_y, len(chunks))
        real = self._hidden(self.other)
        return {
            "frechet": float(np.mean([frechet_distance(real, self._hidden(c)) for c in chunks])),
            "accuracy": float(np.mean(self.judge.predict(rows / 16) == labels)),
        }

    def references(self) -> Iterator[tuple[str, dict[str, float]]]:
        yield "real half", self.measure(self.train)
        rng = np.random.default_rng(0)
        yield "independent columns", self.measure(np.column_stack([rng.permutation(c) for c in self.train.T]))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two samples (n, d)."""
    cov_a, cov_b = (np.cov(x, rowvar=False) for x in (a, b))
    # The trace of the square root of a product of two covariances is that of its eigenvalues.
    eigenvalues = scipy.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum())


# -------------------------------------------------------------------------------------------------- running


def key(row: dict[str, Any]) -> tuple:
    return (row["model"], json.dumps(row["settings"], sort_keys=True), row["method"], row["budget"], row["seed"])


def jobs() -> list[tuple[str, Sampler, int | None, int]]:
    """Name, method, budget of evaluations (None where the method chooses) and seed, most useful first."""
    known = methods()
    named = [name for name in known if name in METHODS]
    options = [name for name in known if name not in METHODS]
    again, budget = REPEATED
    out: list[tuple[str, Sampler, int | None, int]] = []
    for i, b in enumerate(ORDER):
        out += [(n, known[n], b, 0) for n in [*named, *options] if b not in MANY or n in MANY[b]]
        if i == 0:
            out += [(again, known[again], budget, seed) for seed in range(1, REPEATS)]
        if i == 2:
            out += [(f"rk45 tol={tol:g}", RK45(rtol=tol, atol=tol), None, 0) for tol in TOLERANCES]
    return out


def fitted(model: Any) -> DiffusionGenerator:
    """Train, or load what an earlier run with the same settings trained."""
    tag = "-".join(f"{k}{v}" for k, v in model.settings.items())
    folder = MODELS / f"{model.name}-{tag}"
    if folder.is_dir():
        return DiffusionGenerator.load(folder)
    print(f"{model.name}: training with {model.settings}", flush=True)
    start = time.perf_counter()
    gen = model.fit()
    print(f"{model.name}: {gen.n_steps_} steps in {time.perf_counter() - start:.0f} s", flush=True)
    gen.save(folder)
    return gen


def run(model: Any, path: Path) -> None:
    done = {key(row) for row in read_results(path)}
    common = {"model": model.name, "settings": model.settings}

    def missing(name: str, budget: int | None, seed: int) -> bool:
        return key({**common, "method": name, "budget": budget, "seed": seed}) not in done

    def append(**row: Any) -> None:
        row = {**common, **row, "threads": torch.get_num_threads(), **provenance(*PACKAGES)}
        write_result(path, row, key)
        shown = " ".join(f"{m}={row[m]:.4g}" for m in model.metrics)
        print(f"{model.name} {row['method']} evaluations={row['evaluations']} {shown}", flush=True)

    references = ("real holdout" if model.name == "adult" else "real half", "independent columns")
    if any(missing(name, 0, 0) for name in references):
        for name, scores in model.references():
            if missing(name, 0, 0):
                append(method=name, budget=0, evaluations=0, steps=0, seed=0, seconds=0.0, **scores)
    gen = fitted(model)
    counter = Counter(gen)
    for name, method, budget, seed in jobs():
        if not missing(name, budget, seed):
            continue
        steps = 25 if budget is None else steps_for(method, budget)
        counter.calls, start = 0, time.perf_counter()
        rows = model.sample(gen, method, steps, seed)
        seconds = time.perf_counter() - start
        scores = model.measure(rows)
        append(
            method=name,
            budget=budget,
            evaluations=counter.calls,
            steps=steps,
            seed=seed,
            seconds=round(seconds, 2),
            **scores,
        )


# -------------------------------------------------------------------------------------------------- the tables

_SHOWN = {
    "shape_error": ("shape error, %", "{:.2f}"),
    "trend_error": ("trend error, %", "{:.2f}"),
    "c2st": ("C2ST (1 is best)", "{:.3f}"),
    "frechet": ("Fréchet distance", "{:.2f}"),
    "accuracy": ("class accuracy of conditional samples, %", "{:.1%}"),
}


def _cell(row: dict[str, Any], metric: str) -> str:
    return _SHOWN[metric][1].format(row[metric]).rstrip("%")


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each model and metric a row a method, a column a number of evaluations."""
    out: list[str] = []
    for model in (Adult, Digits):
        mine = [r for r in rows if r["model"] == model.name and r["settings"] == model.settings]
        if not mine:
            continue
        grid = {(r["method"], r["budget"]): r for r in mine if r["budget"] and r["seed"] == 0}
        names = list(dict.fromkeys(n for n in methods() if any(n == m for m, _ in grid)))
        for metric in model.metrics:
            out += [f"### {model.name}: {_SHOWN[metric][0]}", ""]
            out += ["| method | " + " | ".join(map(str, EVALUATIONS)) + " |", "|---" * (len(EVALUATIONS) + 1) + "|"]
            for name in names:
                cells = [_cell(grid[name, b], metric) if (name, b) in grid else "" for b in EVALUATIONS]
                out.append(f"| {name} | " + " | ".join(cells) + " |")
            adaptive = sorted((r for r in mine if r["budget"] is None), key=lambda r: r["evaluations"])
            if adaptive:
                listed = [f"{_cell(r, metric)} at {r['evaluations']} (tol {r['method'][9:]})" for r in adaptive]
                out += ["", "rk45: " + ", ".join(listed) + "."]
            fixed = [f"{r['method']} {_cell(r, metric)}" for r in mine if r["budget"] == 0]
            out += ["", "For comparison: " + ", ".join(fixed) + "."]
            name, budget = REPEATED
            seeds = [_cell(r, metric) for r in mine if (r["method"], r["budget"]) == (name, budget)]
            if len(seeds) > 1:
                out += ["", f"{name} at {budget} with seeds 0 to {len(seeds) - 1}: {', '.join(seeds)}."]
            out.append("")
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("adult", "digits", "both"), default="both")
    add_run_arguments(parser, RESULTS / "samplers.jsonl")  # one thread: the quickest on a busy machine
    args = parser.parse_args()
    if args.table:
        print(tables(read_results(args.results)))
        return 0
    torch.set_num_threads(args.threads)
    failed = 0
    for kind in (Adult, Digits):
        if args.model not in (kind.name, "both"):
            continue
        try:
            model = kind()
        except FileNotFoundError as error:
            print(f"{kind.name}: not run: {error}", file=sys.stderr)
            failed = 1
            continue
        run(model, args.results)
    return failed


if __name__ == "__main__":
    sys.exit(main())
