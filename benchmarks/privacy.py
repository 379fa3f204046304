"""The privacy audit of this package beside a bootstrap, SMOTE and fresh rows, on tables of TABDIFF_DATA."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from harness import RESULTS, add_run_arguments, data_loader, markdown, names, provenance, read_results, write_result
from table_metrics import load

TABLES = ("insurance", "wilt", "abalone", "churn")


def key(row: dict[str, Any]) -> tuple:
    return row["table"], row["seconds"], row["seed"]


def run(loader: Any, name: str, seconds: float | None, seed: int) -> dict[str, Any]:
    """Fit the training rows, and audit as many drawn rows."""
    from tabdiff import DiffusionGenerator, privacy_report
    from tabdiff.evaluation import dcr_share, nearest_neighbour_ratio

    table = load(loader, name)
    rng = np.random.default_rng(seed)
    # All real rows are put together and halved: an audit needs many unseen rows.
    rows = pd.concat([table.train, table.holdout], ignore_index=True)
    order = rng.permutation(len(rows))
    train, holdout = (rows.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2))
    start = time.perf_counter()
    gen = DiffusionGenerator(max_time=seconds, random_state=seed).fit(train)
    took = time.perf_counter() - start
    drawn = gen.sample(len(train), random_state=seed)
    report = privacy_report(drawn, train, holdout, gen, random_state=seed)
    figures = report.to_frame().set_index("metric")
    controls = report.details["controls"].set_index("data")
    aucs = figures[figures.index.str.startswith("AUC")]
    inside = aucs.index.str.contains("loss")
    return {
        "table": name,
        "rows": len(train),
        "seconds": seconds,
        "seed": seed,
        "fit_seconds": took,
        "steps": gen.n_steps_,
        "auc": {data: float(controls.loc[data, "AUC"]) for data in controls.index},
        "auc_black": float(aucs.loc[~inside, "synthetic"].max()),
        "auc_white": float(aucs.loc[inside, "synthetic"].max()),
        "tpr": {data: float(controls.loc[data, "TPR at 1 %"]) for data in controls.index},
        "epsilon": {data: float(controls.loc[data, "epsilon, at least"]) for data in controls.index},
        "verdict": controls["verdict"].to_dict(),
        "fails": figures.index[figures["verdict"] == "fails"].to_list(),
        "dcr_share": dcr_share(train, drawn, holdout),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(train, drawn, holdout),
        **provenance("torch", "scikit-learn", "pandas"),
    }


def tables(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        cells = [row["table"], f"{row['rows']:,}", f"{row['steps']:,}"]
        cells += [f"{row['auc_black']:.3f}", f"{row['auc_white']:.3f}"]
        cells += [f"{row['auc'][c]:.3f}" for c in ("fresh real", "bootstrap", "SMOTE")]
        cells += [f"{row['tpr'][c]:.3f}" for c in ("synthetic", "fresh real", "bootstrap", "SMOTE")]
        cells += [f"{row['dcr_share']:.1f}", f"{row['nearest_neighbour_ratio']:.2f}", row["verdict"]["synthetic"]]
        lines.append(cells)
    head = ["table", "training rows", "steps", "AUC from rows", "AUC from the model"]
    head += ["AUC fresh", "AUC bootstrap", "AUC SMOTE", "TPR at 1 %", "TPR fresh", "TPR bootstrap", "TPR SMOTE"]
    return "\n".join(markdown([*head, "DCR share %", "NN ratio", "verdict"], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=names, default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=None, help="of each fit at most; default: until it stops")
    add_run_arguments(parser, Path(RESULTS / "privacy.jsonl"), seeds=(0,))
    args = parser.parse_args()
    if not args.table:
        import torch

        torch.set_num_threads(args.threads)
        loader = data_loader()
        done = {key(row) for row in read_results(args.results)}
        for name in args.tables:
            for seed in args.seeds:
                if (name, args.seconds, seed) not in done:
                    row = run(loader, name, args.seconds, seed)
                    write_result(args.results, row, key)
                    print(name, row["verdict"], row["fails"], flush=True)
    print(tables(read_results(args.results)))


if __name__ == "__main__":
    main()
