"""The systems that imputation.py compares: a table with holes in, the table filled once and by several draws out."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from forest import is_category
from harness import HERE, run_child
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import possible
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from tabdiff import DiffusionGenerator

DRAWS = 5


@dataclass(frozen=True)
class Filled:
    """What an imputer gives: one filling to be near the truth, draws to be like it (none: it has no draws)."""

    single: pd.DataFrame
    draws: list[pd.DataFrame]
    report: dict[str, Any]


class Coded:
    """Numbers and categories as scikit-learn's imputers take them: standardised, one-hot with holes in every level."""

    def __init__(self, incomplete: pd.DataFrame) -> None:
        self.columns: list[tuple[Any, pd.Index | None, float, float]] = []
        blocks = []
        for name in incomplete.columns:
            column = incomplete[name]
            if is_category(column):
                codes, levels = pd.factorize(column.astype(object), sort=True)
                # Two levels need one number; more need one each.
                block = np.eye(len(levels))[codes][:, 1:] if len(levels) <= 2 else np.eye(len(levels))[codes]
                block[codes < 0] = np.nan
                self.columns.append((name, levels, 0.0, 1.0))
            else:
                mean, spread = float(column.mean()), float(column.std()) or 1.0
                block = ((column.to_numpy(dtype="float64") - mean) / spread)[:, None]
                self.columns.append((name, None, mean, spread))
            blocks.append(block)
        self.widths = [block.shape[1] for block in blocks]
        self.X = np.hstack(blocks)

    def decode(self, X: np.ndarray) -> pd.DataFrame:
        out = {}
        parts = np.split(X, np.cumsum(self.widths)[:-1], axis=1)
        for (name, levels, mean, spread), block in zip(self.columns, parts):
            if levels is None:
                out[name] = block[:, 0] * spread + mean
            elif len(levels) <= 2:
                out[name] = levels.take((block[:, 0] > 0.5).astype(int) if block.shape[1] else np.zeros(len(X), int))
            else:
                out[name] = levels.take(block.argmax(axis=1))
        return pd.DataFrame(out)


def _scikit_learn(incomplete: pd.DataFrame, single: Any, draw: Callable[[int], Any] | None) -> Filled:
    coded = Coded(incomplete)
    with warnings.catch_warnings():
        # IterativeImputer's default number of rounds is too few for its own tolerance on most tables.
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        filled = coded.decode(single.fit_transform(coded.X))
        seconds = time.perf_counter() - start
        draws = [coded.decode(draw(i).fit_transform(coded.X)) for i in range(DRAWS)] if draw else []
    return Filled(filled, draws, {"single_seconds": seconds, "seconds": time.perf_counter() - start})


def mean_mode(incomplete: pd.DataFrame, args: argparse.Namespace, seed: int) -> Filled:
    start = time.perf_counter()
    columns = {}
    for name in incomplete.columns:
        kind = "most_frequent" if is_category(incomplete[name]) else "mean"
        columns[name] = SimpleImputer(strategy=kind).fit_transform(incomplete[[name]].astype(object))[:, 0]
    return Filled(pd.DataFrame(columns), [], {"seconds": time.perf_counter() - start})


def iterative(incomplete: pd.DataFrame, args: argparse.Namespace, seed: int) -> Filled:
    return _scikit_learn(
        incomplete,
        IterativeImputer(random_state=seed),
        lambda i: IterativeImputer(random_state=seed * DRAWS + i, sample_posterior=True),
    )


def knn(incomplete: pd.DataFrame, args: argparse.Namespace, seed: int) -> Filled:
    return _scikit_learn(incomplete, KNNImputer(), None)


def tabdiff(incomplete: pd.DataFrame, args: argparse.Namespace, seed: int) -> Filled:
    settings = {} if args.max_steps is None else {"max_steps": args.max_steps}
    start = time.perf_counter()
    # As DiffusionImputer does: what is drawn for holes is not refined.
    gen = DiffusionGenerator(random_state=seed, max_time=args.max_time, refine=False, **settings).fit(incomplete)
    fitted = time.perf_counter()
    single = gen.impute(incomplete)
    once = time.perf_counter()
    draws = gen.impute(incomplete, n_draws=DRAWS)
    done = time.perf_counter()
    report = {"fit_seconds": fitted - start, "single_seconds": once - fitted, "seconds": done - start}
    return Filled(single, draws, {**report, "steps": gen.n_steps_})


def forest_diffusion(incomplete: pd.DataFrame, args: argparse.Namespace, seed: int) -> Filled:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        incomplete.to_feather(Path(folder) / "holes.feather")
        command = [str(HERE / "forest.py"), "--input", f"{folder}/holes.feather", "--output", f"{folder}/filled"]
        command += ["--draws", str(DRAWS), "--seed", str(seed), "--threads", str(args.threads)]
        command += ["--max-time", str(args.max_time)] + (["--quick"] if args.max_steps is not None else [])
        error = run_child(args.peers_python, command, threads=args.threads, timeout=5 * args.max_time + 600)
        if error is not None:
            raise RuntimeError(error)
        draws = [pd.read_feather(f"{folder}/filled/{i}.feather") for i in range(DRAWS)]
        report = json.loads((Path(folder) / "filled" / "report.json").read_text(encoding="utf-8"))
    # It only draws: the mean or the commonest level of its draws is nearer to the truth than one of them.
    columns = {}
    for name in incomplete.columns:
        together = pd.concat([draw[name] for draw in draws], axis=1)
        columns[name] = together.mode(axis=1)[0] if is_category(incomplete[name]) else together.mean(axis=1)
    return Filled(pd.DataFrame(columns), draws, {**report, "seconds": time.perf_counter() - start})


SYSTEMS: dict[str, Callable[[pd.DataFrame, argparse.Namespace, int], Filled]] = {
    "tabdiff": tabdiff,
    "iterative": iterative,
    "knn": knn,
    "mean_mode": mean_mode,
    "forest_diffusion": forest_diffusion,
}
TRAINED = ("tabdiff", "forest_diffusion")
