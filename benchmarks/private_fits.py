"""What differential privacy costs on Adult: fits at several ε, judged as tables.py judges, on rows that none has seen.

    TABDIFF_DATA=/path python benchmarks/private_fits.py              # what is missing from results/private_fits.jsonl
    TABDIFF_DATA=/path python benchmarks/private_fits.py --epsilons 3 --seeds 0,1,2
    python benchmarks/private_fits.py --table                         # print the table as markdown, run nothing

ε = inf is the same fit without noise and clipping: as many steps of as large batches, no refinement. "default" is a fit
of default settings in the same time. Ranges of numbers and levels of categories are public; they stand in PUBLIC.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from harness import RESULTS, add_run_arguments, data_loader, markdown, names, provenance, read_results, write_result
from table_metrics import load

from tabdiff.evaluation import c2st, dcr_share, downstream_score, independent_columns, shape_error, trend_error

RANGES = {
    "age": (17, 90),
    "fnlwgt": (10_000, 1_500_000),
    "education_num": (1, 16),
    "capital_gain": (0, 99_999),
    "capital_loss": (0, 4_500),
    "hours_per_week": (1, 99),
}
DELTA, STEPS, BATCH = 1e-5, 600, 2_048
SYSTEMS = ("1", "3", "10", "inf", "default", "independent")


def key(row: dict[str, Any]) -> tuple:
    return row["system"], row["steps_asked"], row["seed"]


def fit(system: str, train: pd.DataFrame, seed: int, steps: int, seconds: float | None) -> tuple[pd.DataFrame, dict]:
    from tabdiff import DiffusionGenerator, PrivacyBudget, TrainingOptions

    # Levels are those of the census form, and of the data's documentation.
    public = RANGES | {c: sorted(train[c].cat.categories) for c in train.columns if c not in RANGES}
    settings: dict[str, Any] = {"max_steps": steps, "batch_size": BATCH, "refine": False}
    if system == "default":
        settings = {"max_time": seconds}
    elif system != "inf":
        budget = PrivacyBudget(float(system), DELTA, public=public)
        settings["training"] = TrainingOptions(privacy=budget)
    start, used = time.perf_counter(), time.process_time()
    gen = DiffusionGenerator(random_state=seed, **settings).fit(train)
    told = {"fit_seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}
    told |= {"steps": gen.n_steps_}
    if gen.privacy_ is not None:
        told |= {name: gen.privacy_[name] for name in ("epsilon", "noise_multiplier", "count_deviation")}
    return gen.sample(len(train), random_state=seed), told


def run(loader: Any, system: str, seed: int, steps: int, seconds: float | None) -> dict[str, Any]:
    from xgboost import XGBClassifier

    table = load(loader, "adult")
    train = table.train
    told: dict[str, Any] = {}
    if system == "independent":
        drawn = independent_columns(train, random_state=seed)
    else:
        drawn, told = fit(system, train, seed, steps, seconds)
    # Categories that none was drawn of would be unknown to the classifiers.
    drawn = pd.DataFrame({c: drawn[c].astype(train[c].dtype) for c in train.columns})

    def xgb() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=1)

    share = dcr_share(train, drawn.iloc[:10_000], table.holdout, random_state=0)
    return {
        "system": system,
        "seed": seed,
        "steps_asked": steps,
        "downstream": downstream_score(drawn, table.test, table.target, random_state=0),
        "c2st_xgb": c2st(train, drawn, classifier=xgb, random_state=0),
        "shape_error": shape_error(train, drawn),
        "trend_error": trend_error(train, drawn),
        "dcr_share": share,
        **told,
        **provenance("torch", "opacus", "xgboost", "scikit-learn"),
    }


def tables(rows: list[dict[str, Any]]) -> str:
    lines = []
    for system in SYSTEMS:
        found = [row for row in rows if row["system"] == system]
        if not found:
            continue

        def mean(name: str, found: list[dict[str, Any]] = found) -> float:
            values = [row[name] for row in found if row.get(name) is not None]
            return float(np.mean(values)) if values else np.nan

        cells = [system, f"{mean('downstream'):.3f}", f"{mean('c2st_xgb'):.3f}"]
        cells += [f"{mean(name):.2f}" for name in ("shape_error", "trend_error")]
        cells += [f"{mean('dcr_share'):.1f}"]
        shown = {"noise_multiplier": "{:.2f}", "count_deviation": "{:.0f}", "steps": "{:.0f}", "cpu_seconds": "{:.0f}"}
        cells += [form.format(mean(name)) if np.isfinite(mean(name)) else "–" for name, form in shown.items()]
        lines.append(cells)
    head = ["ε", "downstream AUC", "XGB-C2ST", "shape error %", "trend error %", "DCR share %"]
    return "\n".join(markdown([*head, "noise multiplier", "deviation of counts", "steps", "CPU seconds"], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilons", type=names, default=list(SYSTEMS), help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seconds", type=float, default=300.0, help="of a default fit")
    add_run_arguments(parser, Path(RESULTS / "private_fits.jsonl"), seeds=(0,))
    args = parser.parse_args()
    if not args.table:
        import torch

        torch.set_num_threads(args.threads)
        loader = data_loader()
        done = {key(row) for row in read_results(args.results)}
        for system in args.epsilons:
            for seed in args.seeds:
                if (system, args.steps, seed) not in done:
                    row = run(loader, system, seed, args.steps, args.seconds)
                    write_result(args.results, row, key)
                    print({k: v for k, v in row.items() if isinstance(v, float | str)}, flush=True)
    print(tables(read_results(args.results)))


if __name__ == "__main__":
    main()
