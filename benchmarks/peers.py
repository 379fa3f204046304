"""The systems that tables.py compares: a table in, as many rows like it out, each in a process of its own.

    python benchmarks/peers.py --system ctgan --input train.feather --output rows.feather --n 1000 \
        --seed 0 --max-time 600 --threads 2

writes the rows and, beside them, rows.json: seconds of fitting and of sampling, peak memory, steps and versions.
"tabdiff" and "tabdiff_large" need this package; "copula" and "smote" are written here; "mostlyai", "arf",
"forest_diffusion", "ctgan" and "tvae" need an environment with requirements-peers.txt. Every system has its default
settings but where a comment says why not, and the target is a column like the others.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from forest import Forest, is_category
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

Sampler = Callable[[int], pd.DataFrame]


@dataclass(frozen=True)
class Budget:
    """What a fit may use. `max_steps` is for quick looks; None leaves it to the system."""

    seed: int
    max_time: float
    threads: int
    max_steps: int | None = None
    constraints: tuple[str, ...] = ()  # for this package alone


# -------------------------------------------------------------------------------------------------- columns


def restore(rows: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Give the rows the columns and dtypes of the training rows; a level that those lack becomes missing."""
    columns: dict[Any, pd.Series] = {}
    for name in train.columns:
        column, like = rows[name].reset_index(drop=True), train[name]
        if isinstance(like.dtype, pd.CategoricalDtype):
            code = {str(level): i for i, level in enumerate(like.cat.categories)}
            codes = [-1 if pd.isna(value) else code.get(str(value), -1) for value in column]
            columns[name] = pd.Series(pd.Categorical.from_codes(codes, dtype=like.dtype))
        elif pd.api.types.is_integer_dtype(like.dtype):
            numbers = pd.to_numeric(column).astype("float64").round()
            columns[name] = numbers if numbers.isna().any() else numbers.astype(like.dtype)
        else:
            columns[name] = column.astype(like.dtype)
    return pd.DataFrame(columns, columns=train.columns)


MISSING = "(missing)"


def fill_missing(train: pd.DataFrame) -> tuple[pd.DataFrame, Callable[[pd.DataFrame], pd.DataFrame]]:
    """For systems that refuse holes: a level of its own for categories, the median and a flag column for numbers.

    Categories come out as strings. Returns the filled frame and the function that undoes it.
    """
    filled, flags = {}, {}
    for name in train.columns:
        column = train[name]
        if is_category(column):
            filled[name] = column.astype(object).where(column.notna(), MISSING).astype(str)
        else:
            filled[name] = column.fillna(column.median()) if column.isna().any() else column
            if column.isna().any():
                flags[f"{name} {MISSING}"] = column.isna().map({True: "yes", False: "no"})

    def undo(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        for flag in flags:
            hole = rows.pop(flag) == "yes"
            name = flag.removesuffix(f" {MISSING}")
            rows[name] = rows[name].astype("float64").mask(hole)
        return rows.mask(rows.astype(object) == MISSING)

    return pd.DataFrame({**filled, **flags}), undo


# -------------------------------------------------------------------------------------------------- simple systems


def fit_copula(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """Gaussian copula: the observed marginals, joined by the correlation of their normal scores.

    Categories stand in the order of their frequency, ties in random order, missing values last.
    """
    rng = np.random.default_rng(budget.seed)
    n = len(train)
    values, scores = [], np.empty((n, train.shape[1]))
    for j, name in enumerate(train.columns):
        column = train[name]
        rank = column
        if is_category(column):
            rank = column.astype(object).map(column.astype(object).value_counts().rank(method="first"))
        order = np.lexsort((rng.random(n), rank.to_numpy(dtype="float64", na_value=np.nan)))
        values.append(column.iloc[order].reset_index(drop=True))
        scores[order, j] = norm.ppf((np.arange(n) + rng.random(n)) / n)
    correlation = np.atleast_2d(np.corrcoef(scores, rowvar=False))

    def sample(m: int) -> pd.DataFrame:
        drawn = rng.multivariate_normal(np.zeros(len(values)), correlation, size=m, method="eigh")
        positions = np.minimum((norm.cdf(drawn) * n).astype(int), n - 1)
        columns = [column.iloc[positions[:, j]].reset_index(drop=True) for j, column in enumerate(values)]
        return pd.concat(columns, axis=1)

    return sample, {}


def fit_smote(train: pd.DataFrame, budget: Budget, n_neighbors: int = 5) -> tuple[Sampler, dict[str, Any]]:
    """Interpolate between a training row and one of its nearest neighbours (Chawla et al., 2002).

    The row of a category is chosen at random with the weight that it has in the numbers. Distances are Euclidean, on
    standardised numbers and, as in SMOTE-NC, one-hot categories that weigh as much as a number's typical difference.
    """
    rng = np.random.default_rng(budget.seed)
    filled, undo = fill_missing(train)
    categorical = [c for c in filled.columns if is_category(filled[c])]
    numeric = [c for c in filled.columns if c not in categorical]
    numbers = filled[numeric].to_numpy(dtype="float64")
    spread = numbers.std(axis=0)
    scaled = (numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, 1)
    one_hot = [pd.get_dummies(filled[c], dtype="float32").to_numpy() / np.sqrt(2) for c in categorical]
    space = np.hstack([scaled, *one_hot]).astype("float32")
    k = min(n_neighbors, len(train) - 1)
    found = NearestNeighbors(n_neighbors=k + 1, n_jobs=budget.threads).fit(space)
    neighbours = found.kneighbors(space, return_distance=False)[:, 1:]

    def sample(m: int) -> pd.DataFrame:
        first = rng.integers(len(train), size=m)
        second = neighbours[first, rng.integers(k, size=m)]
        weight = rng.random((m, 1))
        drawn = pd.DataFrame(numbers[first] + weight * (numbers[second] - numbers[first]), columns=numeric)
        chosen = np.where(rng.random((m, len(categorical))) < weight, second[:, None], first[:, None])
        for j, name in enumerate(categorical):
            drawn[name] = filled[name].to_numpy()[chosen[:, j]]
        return undo(drawn[filled.columns])

    return sample, {"settings": {"n_neighbors": k}}


# -------------------------------------------------------------------------------------------------- trained systems


def fit_tabdiff(train: pd.DataFrame, budget: Budget, **settings: Any) -> tuple[Sampler, dict[str, Any]]:
    from tabdiff import DiffusionGenerator

    settings |= {} if budget.max_steps is None else {"max_steps": budget.max_steps}
    settings |= {"constraints": list(budget.constraints)} if budget.constraints else {}
    gen = DiffusionGenerator(random_state=budget.seed, max_time=budget.max_time, **settings).fit(train)
    return gen.sample, {"steps": gen.n_steps_, "device": next(gen.denoiser_.parameters()).device.type}


def fit_tabdiff_large(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """The network of fits on a GPU, which learns more of a step, and takes as much longer for it."""
    from tabdiff import MLP

    return fit_tabdiff(train, budget, denoiser=MLP(hidden_size=512, n_blocks=4))


def fit_mostlyai(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """TabularARGN of mostlyai-engine (Tiwald et al., 2025)."""
    from mostlyai.engine import TabularARGN

    frame = train.copy()
    for name in frame.columns:
        if is_category(frame[name]):
            frame[name] = frame[name].astype(object).where(frame[name].isna(), frame[name].astype(str))
    # Value protection replaces rare levels and extreme values for privacy: without it the rows are closer to the data.
    settings = {"value_protection": False}
    if budget.max_steps is not None:
        settings["max_epochs"] = 1
    model = TabularARGN(max_training_time=budget.max_time / 60, random_state=budget.seed, **settings)
    model.fit(frame)
    return lambda m: model.sample(n_samples=m), {"settings": settings}


class UntilDeadline:
    """Stands in for the progress bar over epochs, and ends them when the time is over.

    It is processor time, so that other work beside it does not shorten a fit.
    """

    deadline = float("inf")
    done = 0

    def __init__(self, epochs: Iterable[int], disable: bool = False) -> None:
        self.epochs = epochs

    def __iter__(self) -> Iterator[int]:
        for epoch in self.epochs:
            yield epoch
            UntilDeadline.done = epoch + 1
            if time.process_time() > self.deadline:
                return


def _fit_ctgan(kind: str, train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    import torch
    from ctgan.synthesizers import ctgan, tvae

    torch.manual_seed(budget.seed)
    np.random.seed(budget.seed)  # noqa: NPY002 - ctgan draws from the global generator
    module = ctgan if kind == "CTGAN" else tvae
    module.tqdm = UntilDeadline
    UntilDeadline.deadline = time.process_time() + budget.max_time * budget.threads
    filled, undo = fill_missing(train)
    model = getattr(module, kind)(**({} if budget.max_steps is None else {"epochs": 1}))
    model.fit(filled, [c for c in filled.columns if is_category(filled[c])])
    epochs = UntilDeadline.done
    steps = epochs * max(1, -(-len(train) // 500) if kind == "TVAE" else len(train) // 500)
    return lambda m: undo(model.sample(m)), {
        "steps": steps,
        "settings": {"epochs": epochs},
        "device": model._device.type,
    }


def fit_ctgan(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    return _fit_ctgan("CTGAN", train, budget)


def fit_tvae(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    return _fit_ctgan("TVAE", train, budget)


def fit_arf(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """Adversarial random forests (Watson et al., 2023), which take as long as they take."""
    from arfpy import arf

    np.random.seed(budget.seed)  # noqa: NPY002 - arfpy draws from the global generator
    filled, undo = fill_missing(train)
    # Its columns of categories have to be of that dtype, and its names text.
    frame = filled.set_axis([f"c{j}" for j in range(filled.shape[1])], axis=1)
    for name, like in zip(frame.columns, filled.columns):
        if is_category(filled[like]):
            frame[name] = filled[like].astype(str).astype(object).astype("category")
    quick = {} if budget.max_steps is None else {"num_trees": 3, "max_iters": 1}
    forest = arf.arf(frame, verbose=False, n_jobs=budget.threads, random_state=budget.seed, **quick)
    forest.forde()
    return lambda m: undo(forest.forge(m).set_axis(filled.columns, axis=1)), {}


def fit_forest_diffusion(train: pd.DataFrame, budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    filled, undo = fill_missing(train)
    quick = {} if budget.max_steps is None else {"n_t": 5, "n_estimators": 5}
    forest = Forest(filled, "flow", budget.max_time, seed=budget.seed, threads=budget.threads, **quick)
    return lambda m: undo(forest.generate(m)), {"settings": {"duplicate_K": forest.copies}}


FITS: dict[str, Callable[[pd.DataFrame, Budget], tuple[Sampler, dict[str, Any]]]] = {
    "tabdiff": fit_tabdiff,
    "tabdiff_large": fit_tabdiff_large,
    "copula": fit_copula,
    "smote": fit_smote,
    "mostlyai": fit_mostlyai,
    "arf": fit_arf,
    "forest_diffusion": fit_forest_diffusion,
    "ctgan": fit_ctgan,
    "tvae": fit_tvae,
}
# Those that need the environment of requirements-peers.txt, and of these those that take as long as they take.
PEERS = ("mostlyai", "arf", "forest_diffusion", "ctgan", "tvae")
UNBOUNDED = ("arf",)
TRAINED = ("tabdiff", "tabdiff_large", *PEERS)
PACKAGES = (
    "tabdiff",
    "mostlyai-engine",
    "arfpy",
    "ForestDiffusion",
    "ctgan",
    "torch",
    "xgboost",
    "scikit-learn",
    "pandas",
)


def fit_and_sample(system: str, train: pd.DataFrame, n: int, budget: Budget) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit, draw `n` rows, and tell what that took."""
    if system in TRAINED and find_spec("torch"):
        import torch

        torch.set_num_threads(budget.threads)
    start = time.perf_counter()
    sample, details = FITS[system](train, budget)
    fitted = time.perf_counter()
    rows = sample(n)
    sampled = time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # The package itself has to return the dtypes that went in; the others are helped.
    rows = rows if system.startswith("tabdiff") else restore(rows, train)
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return rows, {
        "fit_seconds": round(fitted - start, 2),
        "sample_seconds": round(sampled - fitted, 2),
        # Of the whole process, libraries and data included: what the machine gave where other work ran beside it.
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used), 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
        **details,
        "versions": {"python": platform.python_version(), **found},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=FITS, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-time", type=float, default=600.0)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--constraints", nargs="+", default=[], help="rules between columns, for tabdiff")
    args = parser.parse_args()
    budget = Budget(args.seed, args.max_time, args.threads, args.max_steps, tuple(args.constraints))
    rows, report = fit_and_sample(args.system, pd.read_feather(args.input), args.n, budget)
    rows.to_feather(args.output)
    args.output.with_suffix(".json").write_text(json.dumps(report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
