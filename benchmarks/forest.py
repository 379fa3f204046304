"""ForestDiffusion (Jolicoeur-Martineau et al., 2024) on data frames, made to end in time.

    python benchmarks/forest.py --input holes.feather --output folder --draws 5 --seed 0 --max-time 600 --threads 2

fills the holes of a table so many times, into folder/0.feather and so on, and writes folder/report.json. Needs an
environment with requirements-peers.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# With one copy or two the rows come out far from the data, with 100, the default, most tables take hours.
LEAST_COPIES, MOST_COPIES = 5, 100


def is_category(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)


class Forest:
    """A fitted ForestDiffusion model with default settings, but for the number of noisy copies of the rows.

    It fits a boosted model a time level (and column, where cells are missing), each on `duplicate_K` copies, 100 by
    default. Here their number follows the time that is left, between 5 and 100; a fit that 5 copies take past three
    times that time is given up.

    Parameters
    ----------
    frame : DataFrame
        Numbers and categories, with holes only where `diffusion_type` is "vp".
    diffusion_type : {"flow", "vp"}
        "flow" is the better generator, only "vp" imputes.
    max_time : float
        Seconds.
    seed, threads : int
    **settings : Any
        Of ForestDiffusionModel.

    Attributes
    ----------
    copies : dict
        Least, median and largest number of copies.
    """

    def __init__(
        self, frame: pd.DataFrame, diffusion_type: str, max_time: float, *, seed: int, threads: int, **settings: Any
    ) -> None:
        self.columns = frame.columns
        self.levels: dict[Any, pd.Index] = {}
        X = np.empty(frame.shape)
        kinds: dict[str, list[int]] = {"cat_indexes": [], "bin_indexes": [], "int_indexes": []}
        for j, name in enumerate(frame.columns):
            if is_category(frame[name]):
                codes, self.levels[name] = pd.factorize(frame[name].astype(object), sort=True)
                X[:, j] = np.where(codes < 0, np.nan, codes)
                kinds["cat_indexes" if len(self.levels[name]) > 2 else "bin_indexes"].append(j)
            else:
                X[:, j] = frame[name].to_numpy(dtype="float64", na_value=np.nan)
                observed = X[~np.isnan(X[:, j]), j]
                if (observed == np.round(observed)).all():
                    kinds["int_indexes"].append(j)
        self.unknown = np.isnan(X).all(axis=1)
        self.rng = np.random.default_rng(seed)
        self.model = _model_class(max_time)(
            X, diffusion_type=diffusion_type, n_jobs=1, nthread=threads, seed=seed, **kinds, **settings
        )
        used = self.model.copies
        self.copies = {"least": min(used), "median": int(np.median(used)), "largest": max(used)}

    def generate(self, n: int) -> pd.DataFrame:
        return self._frame(self.model.generate(batch_size=n))

    def impute(self, draws: int) -> list[pd.DataFrame]:
        """Fill the holes of the training rows. The package drops rows of holes; another stands there."""
        return [self._frame(self._whole(self.model.impute(k=1))) for _ in range(draws)]

    def _whole(self, filled: np.ndarray) -> np.ndarray:
        rows = np.empty(len(self.unknown), dtype=int)
        rows[~self.unknown] = np.arange(len(filled))
        rows[self.unknown] = self.rng.integers(len(filled), size=self.unknown.sum())
        return filled[rows]

    def _frame(self, X: np.ndarray) -> pd.DataFrame:
        columns = {name: pd.Series(X[:, j]) for j, name in enumerate(self.columns)}
        for name, known in self.levels.items():
            codes = columns[name].round().clip(0, len(known) - 1).astype(int)
            columns[name] = pd.Series(known.take(codes))
        return pd.DataFrame(columns)


def _model_class(max_time: float) -> Any:
    from ForestDiffusion import ForestDiffusionModel

    class InTime(ForestDiffusionModel):
        def dummify(self, X: np.ndarray) -> Any:
            """One-hot codes, corrected: names of equal length, since "1_" is found in "11_" too; holes stay holes."""
            frame = pd.DataFrame(X, columns=[f"{i:05d}" for i in range(X.shape[1])])
            before, holes = frame.columns, frame.isna()
            for i in self.cat_indexes:
                name = f"{i:05d}"
                frame = pd.get_dummies(frame, columns=[name], prefix=name, dtype="float", drop_first=True)
                frame.loc[holes[name], [c for c in frame.columns if c.startswith(f"{name}_")]] = np.nan
            return frame.to_numpy(), before, frame.columns

        def train_iterator(self, *args: Any, **kwargs: Any) -> Any:
            if not hasattr(self, "copies"):
                self.copies: list[int] = []
                self.started, self.duplicate_K = time.perf_counter(), LEAST_COPIES
            self.copies.append(self.duplicate_K)
            before = time.perf_counter()
            out = super().train_iterator(*args, **kwargs)
            now = time.perf_counter()
            left = self.n_t * (1 if self.p_in_one else self.c) - len(self.copies)
            needed = (now - self.started) * (1 + left / len(self.copies))
            if len(self.copies) == 3 and set(self.copies) == {LEAST_COPIES} and needed > 3 * max_time:
                raise RuntimeError(f"{LEAST_COPIES} copies of the rows would take {needed:.0f} s to fit")
            # Time grows more slowly than the copies, so a step towards the aim is cautious.
            aim = (max_time - (now - self.started)) / max(1, left) / (now - before)
            self.duplicate_K = int(np.clip(self.duplicate_K * np.clip(aim, 0.8, 1.25), LEAST_COPIES, MOST_COPIES) + 0.5)
            return out

    return InTime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-time", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)  # for trying out the script
    args = parser.parse_args()
    start = time.perf_counter()
    quick = {"n_t": 5, "n_estimators": 5} if args.quick else {}
    frame = pd.read_feather(args.input)
    forest = Forest(frame, "vp", args.max_time, seed=args.seed, threads=args.threads, **quick)
    fitted = time.perf_counter()
    args.output.mkdir(parents=True, exist_ok=True)
    for i, filled in enumerate(forest.impute(args.draws)):
        filled.to_feather(args.output / f"{i}.feather")
    report = {"fit_seconds": fitted - start, "impute_seconds": time.perf_counter() - fitted}
    (args.output / "report.json").write_text(json.dumps({**report, "settings": {"duplicate_K": forest.copies}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
