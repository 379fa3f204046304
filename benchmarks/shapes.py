"""Tables of unusual shape: does it work, how good is it, what does it cost.

A hundred rows, a million, three hundred columns, categories only, one column, all columns constant but one. Each is
fitted with default settings, except that training of the million ends after --max-time seconds. Beside the figures of
the drawn rows stand those of as many fresh rows of the same source (the floor) and of independent columns.

    TABDIFF_DATA=/path python benchmarks/shapes.py    # run what is missing from results/shapes.jsonl
    python benchmarks/shapes.py --table               # print the table as markdown, run nothing

TABDIFF_DATA is a folder with load.py; the rows are those of Adult, but for the million and the three hundred columns,
which are drawn from a factor model with known structure.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import RESULTS, add_run_arguments, data_loader, provenance, read_results, write_result

from tabdiff import DiffusionGenerator
from tabdiff.evaluation.tables import c2st, independent_columns, nearest_neighbour_ratio, shape_error, trend_error

# Classifiers and distances see at most so many rows.
MAX_EVALUATED = 20_000


def adult(n: int, columns: list[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `n` training rows of Adult and as many others, of the wanted columns."""
    return some_rows("adult", n, columns)


def some_rows(table: str, n: int, columns: list[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `n` training rows of a table and as many others, of the wanted columns."""
    try:
        frame, meta = data_loader().load_table(table, benchmark=True)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
    for name in [*meta["categorical"], meta["target"]]:
        frame[name] = frame[name].astype("category")
    frame = frame[columns] if columns else frame
    order = np.random.default_rng(0).permutation(len(frame))
    return tuple(frame.iloc[part].reset_index(drop=True) for part in (order[:n], order[n : 2 * n]))  # type: ignore


def factor_model(n: int, n_columns: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw `n` rows twice: numbers with common factors, every fifth column a category cut from such a number."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(max(2, n_columns // 20), n_columns)) / np.sqrt(max(2, n_columns // 20))

    def draw() -> pd.DataFrame:
        rows = rng.normal(size=(n, len(loadings))) @ loadings + 0.5 * rng.normal(size=(n, n_columns))
        columns: dict[str, object] = {}
        for j in range(n_columns):
            if j % 5 == 4:
                columns[f"c{j}"] = pd.cut(rows[:, j], [-np.inf, -1, 0, 1, np.inf], labels=["a", "b", "c", "d"])
            else:
                columns[f"x{j}"] = np.exp(rows[:, j]).round(3) if j % 5 == 3 else rows[:, j].round(3)
        return pd.DataFrame(columns)

    return draw(), draw()


def constant_but_one() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows of Adult in which only the age varies."""
    real, fresh = adult(5000, ["age", "sex", "education_num", "income"])
    constants = {c: real[c].iloc[0] for c in real if c != "age"}
    return real.assign(**constants), fresh.assign(**constants)


CATEGORIES = ["workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country"]
SHAPES = {
    "100 rows": lambda: adult(100),
    "one column": lambda: adult(10_000, ["age"]),
    "constant but one": constant_but_one,
    "categories only": lambda: adult(10_000, CATEGORIES),
    "300 columns": lambda: factor_model(5_000, 300),
    "1,000,000 rows": lambda: factor_model(1_000_000, 10),
}


def measure(name: str, max_time: float) -> dict:
    """Fit one table and compare as many drawn rows with it."""
    real, fresh = SHAPES[name]()
    start = time.perf_counter()
    gen = DiffusionGenerator(max_time=max_time if len(real) > 100_000 else None, random_state=0).fit(real)
    fitted = time.perf_counter()
    n = min(len(real), 100_000)
    synthetic = gen.sample(n, random_state=0)
    record: dict = {
        "shape": name,
        "rows": len(real),
        "columns": real.shape[1],
        "steps": gen.n_steps_,
        "fit_seconds": fitted - start,
        "sample_seconds": time.perf_counter() - fitted,
        "sampled": n,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    some = real.iloc[:MAX_EVALUATED]
    for label, rows in {"synthetic": synthetic, "fresh": fresh, "independent": independent_columns(real, n)}.items():
        record[label] = {
            "shape_error": shape_error(real, rows.iloc[:n]),
            "trend_error": trend_error(real, rows.iloc[:n]),
            "c2st": c2st(some, rows.iloc[:MAX_EVALUATED]),
            "nearest_neighbour_ratio": nearest_neighbour_ratio(
                some, rows.iloc[:MAX_EVALUATED], fresh.iloc[:MAX_EVALUATED]
            ),
        }
    return record


def key(row: dict[str, Any]) -> tuple:
    return (row["shape"],)


def print_table(records: list[dict]) -> None:
    """Print a row for each shape: synthetic / fresh rows / independent columns."""
    print("| table | rows x columns | steps | fit, s | sample, s | peak, GB | shape error, % | trend error, % | C2ST |")
    print("|---|---|--:|--:|--:|--:|---|---|---|")
    for r in records:
        cells = [
            " / ".join(f"{r[label][metric]:.2f}" for label in ("synthetic", "fresh", "independent"))
            for metric in ("shape_error", "trend_error", "c2st")
        ]
        print(
            f"| {r['shape']} | {r['rows']:,} x {r['columns']} | {r['steps']:,} | {r['fit_seconds']:.0f} | "
            f"{r['sample_seconds']:.0f} | {r['peak_gigabytes']:.1f} | " + " | ".join(cells) + " |"
        )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-time", type=float, default=120.0, help="seconds of training of the million rows")
    add_run_arguments(parser, RESULTS / "shapes.jsonl", threads=torch.get_num_threads())
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        done = {key(row) for row in read_results(args.results)}
        settings = {"threads": args.threads, **provenance("torch")}
        for name in SHAPES:
            if (name,) not in done:
                write_result(args.results, {**measure(name, args.max_time), "settings": settings}, key)
    print_table(read_results(args.results))


if __name__ == "__main__":
    main()
