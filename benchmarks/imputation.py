"""Holes in tables: this package, scikit-learn's imputers and ForestDiffusion, by the same metrics in the same run.

    TABDIFF_DATA=/path python benchmarks/imputation.py                  # what is missing from results/imputation.jsonl
    TABDIFF_DATA=/path python benchmarks/imputation.py --systems forest_diffusion --peers-python peers/bin/python
    python benchmarks/imputation.py --table                             # print the tables as markdown, run nothing

Of each table, 8,000 rows without holes at most, 30 % of the cells are removed: every cell with the same probability
(MCAR), or with one that rises or falls with the rank of one column, drawn at random, that keeps all its cells (MAR).
Each system is fitted on what is left, sees nothing else, and fills it once, as well as it can, and by five draws.

- error: mean over columns of the root mean squared error over the standard deviation of the complete column for
  numbers, and of the share of wrong levels over that of the commonest observed level for categories. The mean and the
  mode score about 1.
- energy distance between the filled and the complete rows, 1000 times, mean over draws, on standardised numbers and
  one-hot categories. A single filling that is right on average makes columns too narrow, and is far.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl
import torch
from forest import is_category
from harness import (
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    markdown,
    names,
    provenance,
    read_results,
    write_result,
)
from imputers import SYSTEMS, TRAINED, Filled
from scipy.spatial.distance import cdist

TABLES = ("abalone", "california", "insurance", "adult", "shoppers")
MECHANISMS = ("mcar", "mar")
MAX_ROWS = 8000
SHARE = 0.3
ENERGY_ROWS = 4000
PACKAGES = ("tabdiff", "torch", "scikit-learn", "numpy", "pandas")


# -------------------------------------------------------------------------------------------------- holes


def load(loader: Any, name: str, seed: int) -> pd.DataFrame:
    """Complete rows, as many as `MAX_ROWS` at random, categories as such."""
    frame, meta = loader.load_table(name, benchmark=True, missing="drop")
    categorical = list(meta["categorical"]) + ([meta["target"]] if meta["task"] != "regression" else [])
    frame = frame.astype({c: "category" for c in categorical})
    frame = frame.sample(min(len(frame), MAX_ROWS), random_state=seed).reset_index(drop=True)
    for c in categorical:
        frame[c] = frame[c].cat.remove_unused_categories()
    return frame


def remove(frame: pd.DataFrame, mechanism: str, seed: int) -> np.ndarray:
    """Which cells go: bool, shape (n_rows, n_columns), a share of `SHARE` on average."""
    rng = np.random.default_rng(seed)
    n, d = frame.shape
    if mechanism == "mcar":
        return rng.random((n, d)) < SHARE
    driver = rng.integers(d)
    column = frame.iloc[:, driver]
    values = column.cat.codes if isinstance(column.dtype, pd.CategoricalDtype) else column
    rank = values.rank(pct=True).to_numpy() - 0.5
    # The driver keeps its cells, so the others lose more; the slope is the steepest that keeps their mean.
    mean = SHARE * d / (d - 1)
    signs = rng.choice([-1.0, 1.0], size=d)
    probability = mean * (1 + 2 * signs * rank[:, None])
    probability[:, driver] = 0
    return rng.random((n, d)) < probability


def punch(frame: pd.DataFrame, holes: np.ndarray) -> pd.DataFrame:
    """Return the frame with missing values in the holes; integers become floats."""
    columns = {c: frame[c].astype("float64") if pd.api.types.is_integer_dtype(frame[c]) else frame[c] for c in frame}
    return pd.DataFrame(columns).mask(holes)


def put_back(filled: pd.DataFrame, frame: pd.DataFrame, holes: np.ndarray) -> pd.DataFrame:
    """Keep the observed cells as they were, bring numbers to what the column can hold, categories to its levels."""
    columns = {}
    for j, name in enumerate(frame.columns):
        truth, mine = frame[name], filled[name].reset_index(drop=True)
        if is_category(truth):
            level = {str(v): i for i, v in enumerate(truth.cat.categories)}
            codes = np.array([level.get(str(v), -1) for v in mine])
            columns[name] = np.where(holes[:, j], codes, truth.cat.codes)
        else:
            numbers = mine.to_numpy(dtype="float64", na_value=np.nan)
            columns[name] = np.where(holes[:, j], numbers, truth)
    return pd.DataFrame(columns)


# -------------------------------------------------------------------------------------------------- measuring


def column_errors(truth: pd.DataFrame, filled: pd.DataFrame, holes: np.ndarray, categorical: list[bool]) -> list[float]:
    """Error of each column with holes, 1 for the mean or the mode; codes stand for levels."""
    errors = []
    for j, category in enumerate(categorical):
        rows = holes[:, j]
        x, y = truth.iloc[:, j].to_numpy(), filled.iloc[:, j].to_numpy()
        if not rows.any():
            continue
        if category:
            mode = np.bincount(x[~rows].astype(int)).argmax()
            reference = np.mean(x[rows] != mode)
            error = np.mean(x[rows] != y[rows])
        else:
            reference = x.std()
            error = np.sqrt(np.mean((x[rows] - y[rows]) ** 2))
        if reference > 0:
            errors.append(float(error / reference))
    return errors


def energy_distance(truth: pd.DataFrame, filled: pd.DataFrame, categorical: list[bool], rows: np.ndarray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over pairs of rows, not less than 0 (Székely and Rizzo, 2013)."""
    embedded = []
    for frame in (truth.iloc[rows], filled.iloc[rows]):
        blocks = []
        for j, category in enumerate(categorical):
            x, reference = frame.iloc[:, j].to_numpy(), truth.iloc[:, j].to_numpy()
            if category:
                # A level that differs is as far as one standard deviation.
                blocks.append((x[:, None] == np.unique(reference)[None]) / np.sqrt(2))
            else:
                blocks.append(((x - reference.mean()) / (reference.std() or 1.0))[:, None])
        embedded.append(np.hstack(blocks))
    a, b = embedded
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def measure(frame: pd.DataFrame, holes: np.ndarray, filled: Filled) -> dict[str, Any]:
    categorical = [is_category(frame[c]) for c in frame.columns]
    truth = put_back(frame, frame, holes)
    single = put_back(filled.single, frame, holes)
    draws = [put_back(draw, frame, holes) for draw in filled.draws]
    if any(
        table.isna().to_numpy().any() or (table.loc[:, categorical] < 0).to_numpy().any() for table in (single, *draws)
    ):
        raise RuntimeError("holes are left, or filled with levels that the column does not have")
    rows = np.random.default_rng(0).permutation(len(frame))[:ENERGY_ROWS]
    distances = [1000 * energy_distance(truth, draw, categorical, rows) for draw in draws]
    return {
        "error": float(np.mean(column_errors(truth, single, holes, categorical))),
        "energy": float(np.mean(distances)) if distances else None,
        "energy_single": 1000 * energy_distance(truth, single, categorical, rows),
        "removed": float(holes.mean()),
        "rows": len(frame),
    }


# -------------------------------------------------------------------------------------------------- running


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("system", "table", "mechanism", "seed", "device", "max_time", "max_steps"))


def run_all(args: argparse.Namespace) -> int:
    loader = data_loader()
    torch.set_num_threads(args.threads)
    done = {key(r) for r in read_results(args.results) if not (args.retry and "failed" in r)}
    for name in args.tables:
        for mechanism in MECHANISMS:
            for seed in args.seeds:
                for system in args.systems:
                    trained = system in TRAINED
                    row: dict[str, Any] = {"system": system, "table": name, "mechanism": mechanism, "seed": seed}
                    row["device"] = device() if system == "tabdiff" else "cpu"
                    row |= {k: getattr(args, k) if trained else None for k in ("max_time", "max_steps")}
                    what = f"{name} {mechanism} {system} seed {seed}"
                    if key(row) in done:
                        continue
                    if system == "forest_diffusion" and args.peers_python is None:
                        print(f"{what}: not run: it needs --peers-python", file=sys.stderr)
                        continue
                    frame = load(loader, name, seed)
                    holes = remove(frame, mechanism, seed)
                    try:
                        filled = SYSTEMS[system](punch(frame, holes), args, seed)
                        report = {k: round(v, 2) if isinstance(v, float) else v for k, v in filled.report.items()}
                        row |= {**measure(frame, holes, filled), **report}
                    except RuntimeError as error:
                        row["failed"] = str(error)
                    row |= {"threads": args.threads, **provenance(*PACKAGES)}
                    write_result(args.results, row, key)
                    shown = " ".join(f"{k}={row[k]:.4g}" for k in ("error", "energy", "seconds") if row.get(k))
                    print(f"{what}: {row.get('failed', shown)}", flush=True)
    return 0


SHOWN = {
    "error": ("normalised error of the single filling, 1 is the mean or the mode", "{:.3f}"),
    "energy": ("energy distance of draws, times 1000", "{:.2f}"),
    "energy_single": ("energy distance of the single filling, times 1000", "{:.2f}"),
    "seconds": ("seconds, fit and all fillings", "{:.0f}"),
}


def selected(rows: list[dict[str, Any]], max_time: float, max_steps: int | None) -> list[dict[str, Any]]:
    """Rows of fits that were given `max_time`; of ForestDiffusion, which needs more, those that were given most."""
    rows = [r for r in rows if r["max_steps"] in (None, max_steps)]
    longest: dict[tuple, float] = {}
    for r in rows:
        if r["system"] == "forest_diffusion":
            longest[key(r)[:4]] = max(r["max_time"], longest.get(key(r)[:4], 0.0))
    return [r for r in rows if r["max_time"] in (None, longest.get(key(r)[:4], max_time))]


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: a table a metric, a row a system, a column a table and mechanism; several seeds by their mean."""
    out: list[str] = []
    columns = [(t, m) for t in TABLES for m in MECHANISMS if any((r["table"], r["mechanism"]) == (t, m) for r in rows)]
    means: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    for metric, (title, form) in SHOWN.items():
        lines = []
        for system in (s for s in SYSTEMS if any(r["system"] == s for r in rows)):
            found: dict[tuple[str, str], list[float]] = {}
            for r in rows:
                if r["system"] == system and r.get(metric) is not None:
                    found.setdefault((r["table"], r["mechanism"]), []).append(r[metric])
            mean = {c: float(np.mean(v)) for c, v in found.items()}
            if not mean:
                continue
            means.setdefault(metric, {})[system] = mean
            cells = [form.format(mean[c]) if c in mean else "" for c in columns]
            whole = form.format(np.mean(list(mean.values()))) if len(mean) == len(columns) else ""
            lines.append([system, *cells, whole])
        out += [
            f"### {title}",
            "",
            *markdown(["system", *(f"{t}, {m.upper()}" for t, m in columns), "mean"], lines),
            "",
        ]
    failed = [f"- {r['system']} on {r['table']}, {r['mechanism'].upper()}: {r['failed']}"
              for r in rows if "failed" in r]  # fmt: skip
    out += ["Runs that failed:", "", *failed, ""] if failed else []
    return "\n".join([*out, "Targets:", "", *targets(means)])


def targets(means: dict[str, dict[str, dict[tuple[str, str], float]]]) -> list[str]:
    """A line a target: lower than each other system in the mean over the tables that both have."""
    out = []
    for metric, what in (("error", "single filling, normalised error"), ("energy", "draws, energy distance")):
        ours = means.get(metric, {}).get("tabdiff", {})
        for other in ("iterative", "forest_diffusion"):
            theirs = means.get(metric, {}).get(other, {})
            both = sorted(ours.keys() & theirs.keys())
            if both:
                a, b = (float(np.mean([scores[c] for c in both])) for scores in (ours, theirs))
                wins = sum(ours[c] < theirs[c] for c in both)
                verdict = "met" if a < b else "**not met**"
                text = f"- {what} below that of {other}: {a:.3f} against {b:.3f}"
                out.append(f"{text} (lower on {wins} of {len(both)}), {verdict}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=names, default=list(TABLES), help=f"default: {','.join(TABLES)}")
    parser.add_argument("--systems", type=names, default=list(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--max-time", type=float, default=600.0, help="seconds of training at most")
    parser.add_argument("--max-steps", type=int, help="training steps at most; default: the estimator's own")
    parser.add_argument("--peers-python", help="interpreter of an environment with requirements-peers.txt")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    add_run_arguments(parser, RESULTS / "imputation.jsonl", [0], threads=2)
    args = parser.parse_args()
    unknown = [s for s in args.systems if s not in SYSTEMS]
    if unknown:
        parser.error(f"unknown systems {unknown}; there are {', '.join(SYSTEMS)}")
    if args.table:
        print(tables(selected(read_results(args.results), args.max_time, args.max_steps)))
        return 0
    try:
        with threadpoolctl.threadpool_limits(args.threads):
            return run_all(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
