"""What each part of the recipe for tables is worth: the default, and the default with one part changed.

10,000 rows of Adult are fitted with 2,000 steps, and as many are drawn and compared with them. Parts of the network and
of the codec are compared without refinement, which hides differences between networks; then refinement itself. What
equal columns are worth is measured on Default of Credit Card Clients, which has some.

    TABDIFF_DATA=/path python benchmarks/ablation.py    # run what is missing from results/ablation.jsonl
    python benchmarks/ablation.py --data default        # one of the two tables only
    python benchmarks/ablation.py --table               # print the tables as markdown, run nothing

TABDIFF_DATA is a folder with load.py, as for tables.py. Needs xgboost.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from harness import RESULTS, add_run_arguments, names, provenance, read_results, write_result
from shapes import some_rows

from tabdiff import DiffusionGenerator, TableCodec, TrainingOptions
from tabdiff.codecs.columns.numeric import NumericColumn
from tabdiff.codecs.tables.equalities import Equalities
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.evaluation.tables import c2st, independent_columns, nearest_neighbour_ratio, shape_error, trend_error
from tabdiff.model import defaults
from tabdiff.model.refinement import refinement as refining

N_ROWS, N_STEPS = 10_000, 2_000
RAW: dict[str, Any] = {"refine": False}
UNLED: dict[str, Any] = {"autoguidance": 1.0}


@contextlib.contextmanager
def middle_of_steps() -> Iterator[None]:
    """Map a value to the middle of its step instead of to a random place in it."""
    encode = NumericColumn.encode
    with mock.patch.object(NumericColumn, "encode", lambda self, values, rng: encode(self, values, None)):
        yield


@contextlib.contextmanager
def fixed_embeddings() -> Iterator[None]:
    """Leave the embeddings of levels as they were drawn."""
    start = MixedDenoiser.__init__

    def frozen(self: MixedDenoiser, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        self.levels.requires_grad_(False)

    with mock.patch.object(MixedDenoiser, "__init__", frozen):
        yield


def stages(*given: tuple[int, float]) -> Any:
    """Refine with other stages of rejection, and without raking."""
    return mock.patch.multiple(refining, STAGES=given, RAKED=None)


def unbalanced() -> Any:
    """Keep each row by its own chance."""
    return mock.patch.object(refining, "MIN_BALANCED", np.inf)


def no_equalities() -> Any:
    """Leave columns that repeat others to the network."""
    return mock.patch.object(Equalities, "find", return_value=Equalities())


# Label: parameters, arguments of `sample`, and what else is changed.
Variants = dict[str, tuple[dict, dict, Any]]
ADULT: Variants = {
    "no refinement": (RAW, {}, None),
    "no refinement; middle of the step, not a random place (no PIT)": (RAW, {}, middle_of_steps),
    "no refinement; fixed random embeddings of levels": (RAW, {}, fixed_embeddings),
    "no refinement; dependencies left to the network": ({**RAW, "codec": TableCodec(dependencies=False)}, {}, None),
    "no refinement; no observed masks": ({**RAW, "training": TrainingOptions(observed_masks=0)}, {}, None),
    "no refinement; width 256, 3 blocks": ({**RAW, "hidden_size": 256, "n_blocks": 3}, {}, None),
    "no refinement; no Fourier features of numbers": (RAW, {}, lambda: mock.patch.object(defaults, "FREQUENCIES", 0)),
    "no refinement; no autoguidance of numbers": ({**RAW, **UNLED}, {}, None),
    "no refinement; half the training steps": ({**RAW, "max_steps": N_STEPS // 2}, {}, None),
    "no refinement; twice the training steps": ({**RAW, "max_steps": 2 * N_STEPS}, {}, None),
    "no refinement; float32": ({**RAW, "precision": "float32"}, {}, None),
    "no refinement; sampled with 25 steps": (RAW, {"steps": 25}, None),
    "no refinement; sampled by ddpm, 250 steps": (RAW, {"method": "ddpm", "steps": 250}, None),
    "default": ({}, {}, None),
    "no autoguidance of numbers": (UNLED, {}, None),
    "marginal map only": ({}, {}, stages),
    "marginal map, one stage of rejection": ({}, {}, lambda: stages((31, 0.95))),
    "marginal map, two stages of rejection, no raking": ({}, {}, lambda: stages(*refining.STAGES)),
    "all of these, each row kept by its own chance": ({}, {}, unbalanced),
}
CREDIT: Variants = {
    "no refinement": (RAW, {}, None),
    "no refinement; no autoguidance of numbers": ({**RAW, **UNLED}, {}, None),
    "no refinement; neither that nor equal columns": ({**RAW, **UNLED}, {}, no_equalities),
    "default": ({}, {}, None),
    "no autoguidance of numbers": (UNLED, {}, None),
    "neither that nor equal columns": (UNLED, {}, no_equalities),
}
VARIANTS = {"adult": ADULT, "default": CREDIT}
REFERENCES = ("real holdout", "bootstrap of the training rows", "independent columns")


def scores(real: pd.DataFrame, rows: pd.DataFrame, holdout: pd.DataFrame) -> dict[str, float]:
    """Compare rows with the training rows."""
    from xgboost import XGBClassifier

    def classifier() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0)

    return {
        "xgb_c2st": c2st(real, rows, classifier=classifier),
        "shape_error": shape_error(real, rows),
        "trend_error": trend_error(real, rows),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(real, rows, holdout),
    }


def measure(table: str, label: str) -> dict:
    """Fit and measure one variant, or one of the references."""
    real, holdout = some_rows(table, N_ROWS)
    if label == "real holdout":
        half = N_ROWS // 2
        return scores(real, holdout.iloc[:half], holdout.iloc[half:])
    if label == "bootstrap of the training rows":
        rows = real.iloc[np.random.default_rng(0).integers(N_ROWS, size=N_ROWS)].reset_index(drop=True)
        return scores(real, rows, holdout)
    if label == "independent columns":
        return scores(real, independent_columns(real), holdout)
    parameters, arguments, change = VARIANTS[table][label]
    with change() if change else contextlib.nullcontext():
        start = time.process_time()
        gen = DiffusionGenerator(**{"max_steps": N_STEPS, "random_state": 0, **parameters}).fit(real)
        fitted = time.process_time()
        rows = gen.sample(N_ROWS, random_state=0, **arguments)
        seconds = {"fit_seconds": fitted - start, "sample_seconds": time.process_time() - fitted}
    return {**scores(real, rows, holdout), **seconds}


def key(row: dict[str, Any]) -> tuple:
    return row["table"], row["variant"]


def print_table(records: list[dict]) -> None:
    """Print a row for each variant of one table."""
    print("| variant | XGB-C2ST | shape error, % | trend error, % | nearest-neighbour ratio |")
    print("|---|--:|--:|--:|--:|")
    for r in records:
        print(
            f"| {r['variant']} | {r['xgb_c2st']:.3f} | {r['shape_error']:.2f} | {r['trend_error']:.2f} | "
            f"{r['nearest_neighbour_ratio']:.2f} |"
        )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=names, default=list(VARIANTS), help=f"of {','.join(VARIANTS)}")
    add_run_arguments(parser, RESULTS / "ablation.jsonl", threads=torch.get_num_threads())
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        done = {key(row) for row in read_results(args.results)}
        settings = {"threads": args.threads, **provenance("torch")}
        for table in args.data:
            for label in (*REFERENCES, *VARIANTS[table]):
                if (table, label) not in done:
                    row = {"table": table, "variant": label, **measure(table, label), "settings": settings}
                    write_result(args.results, row, key)
    rows = read_results(args.results)
    for table in args.data:
        print(f"\n### Ablation: {table}\n")
        print_table([row for row in rows if row["table"] == table])


if __name__ == "__main__":
    main()
