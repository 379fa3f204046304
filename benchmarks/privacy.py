"""The privacy audit of this package beside a bootstrap, SMOTE and fresh rows, on tables of TABDIFF_DATA.

    TABDIFF_DATA=/path python benchmarks/privacy.py                  # what is missing from results/privacy.jsonl
    TABDIFF_DATA=/path python benchmarks/privacy.py --seconds 60     # fits of at most a minute
    python benchmarks/privacy.py --null                              # what attacks find where there is nothing
    python benchmarks/privacy.py --table                             # print the table as markdown, run nothing

All rows of a table are halved. Which half an attack finds the easier to tell is a matter of luck, which among 2,000
rows moves a share of nearer rows by 3 % and an AUC by .02: so each half is fitted once while the other is unseen, and
figures are the means of both, attack by attack, before the best attack is named.
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

TABLES = ("insurance", "wilt", "abalone", "churn", "shoppers", "magic")
MEANS = ("fit_seconds", "steps", "dcr_share", "nearest_neighbour_ratio", "c2st_unseen")


def key(row: dict[str, Any]) -> tuple:
    return row["table"], row["seconds"], row["seed"]


def run(loader: Any, name: str, seconds: float | None, seed: int) -> dict[str, Any]:
    """Fit each half of the rows, audit as many drawn rows against the other, and return the means."""
    table = load(loader, name)
    rng = np.random.default_rng(seed)
    # All real rows are put together and halved: an audit needs many unseen rows.
    rows = pd.concat([table.train, table.holdout], ignore_index=True)
    order = rng.permutation(len(rows))
    halves = [rows.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2)]
    sides = [audit_half(*pair, seconds, seed) for pair in (halves, halves[::-1])]
    attacks = {name: float(np.mean([side["attacks"][name] for side in sides])) for name in sides[0]["attacks"]}
    inside = {name for name in attacks if "loss" in name}
    worst = "fails" if any(side["verdict"]["synthetic"] == "fails" for side in sides) else "passes"
    return {
        "table": name,
        "rows": len(halves[0]),
        "seconds": seconds,
        "seed": seed,
        "halves": len(sides),
        "attacks": attacks,
        "auc_black": max(value for name, value in attacks.items() if name not in inside),
        "auc_white": max(value for name, value in attacks.items() if name in inside),
        **{k: _mean([side[k] for side in sides]) for k in ("auc", "tpr", "epsilon")},
        "verdict": {"synthetic": worst},
        "fails": sorted({figure for side in sides for figure in side["fails"]}),
        **{k: float(np.mean([side[k] for side in sides])) for k in MEANS},
        **provenance("torch", "scikit-learn", "pandas"),
    }


def _mean(tables: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]}


def audit_half(train: pd.DataFrame, holdout: pd.DataFrame, seconds: float | None, seed: int) -> dict[str, Any]:
    """Fit the training rows, and audit as many drawn rows."""
    from xgboost import XGBClassifier

    from tabdiff import DiffusionGenerator, privacy_report
    from tabdiff.evaluation import c2st, dcr_share, nearest_neighbour_ratio

    start = time.perf_counter()
    gen = DiffusionGenerator(max_time=seconds, random_state=seed).fit(train)
    took = time.perf_counter() - start
    drawn = gen.sample(len(train), random_state=seed)
    report = privacy_report(drawn, train, holdout, gen, random_state=seed)
    figures = report.to_frame().set_index("metric")
    controls = report.details["controls"].set_index("data")
    aucs = figures[figures.index.str.startswith("AUC")]["synthetic"]

    def xgb() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=1)

    return {
        "fit_seconds": took,
        "steps": gen.n_steps_,
        "attacks": {name.removeprefix("AUC (").rstrip(")"): float(value) for name, value in aucs.items()},
        "auc": {data: float(controls.loc[data, "AUC"]) for data in controls.index},
        "tpr": {data: float(controls.loc[data, "TPR at 1 %"]) for data in controls.index},
        "epsilon": {data: float(controls.loc[data, "epsilon, at least"]) for data in controls.index},
        "verdict": controls["verdict"].to_dict(),
        "fails": figures.index[figures["verdict"] == "fails"].to_list(),
        "dcr_share": dcr_share(train, drawn, holdout),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(train, drawn, holdout),
        # Beside unseen rows, to which a copy of the training rows is no nearer than they are.
        "c2st_unseen": c2st(holdout, drawn, classifier=xgb, random_state=0),
    }


def null(loader: Any, name: str, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """Attack rows of columns drawn each by itself, which copy no row: of training rows, and of unseen ones."""
    from tabdiff.evaluation import dcr_share, independent_columns
    from tabdiff.evaluation.privacy import membership_attacks
    from tabdiff.evaluation.privacy.membership import Candidates

    table = load(loader, name)
    rows = pd.concat([table.train, table.holdout], ignore_index=True)
    found: dict[str, list[float]] = {}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(rows))
        train, holdout = (rows.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2))
        half = len(holdout) // 2
        sources = {"training rows": (train, holdout), "unseen rows": (holdout.iloc[half:], holdout.iloc[:half])}
        for source, (marginals, unseen) in sources.items():
            for draw in (0, 1):
                rng = np.random.default_rng(0)
                drawn = independent_columns(marginals, random_state=draw)
                order = rng.permutation(len(unseen))
                others, known = (unseen.iloc[part] for part in np.array_split(order, 2))
                members = rng.permutation(len(train))[: len(others)]
                candidates = Candidates(train.iloc[members], others, known, members)
                best = max(attack.auc for attack in membership_attacks(drawn, candidates))
                found.setdefault(f"AUC, of {source}", []).append(best)
                share = dcr_share(train, drawn, unseen, random_state=draw)
                found.setdefault(f"DCR share %, of {source}", []).append(share)
    return {"table": name, **{figure: f"{np.mean(values):.3f}" for figure, values in found.items()}}


def tables(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        time_given = "until it stops" if row["seconds"] is None else f"{row['seconds']:g} s"
        cells = [row["table"], f"{row['rows']:,}", time_given, f"{row['steps']:,.0f}", str(row.get("halves", 1))]
        cells += [f"{row['auc_black']:.3f}", f"{row['auc_white']:.3f}"]
        cells += [f"{row['auc'][c]:.3f}" for c in ("fresh real", "bootstrap", "SMOTE")]
        cells += [f"{row['tpr'][c]:.3f}" for c in ("synthetic", "fresh real", "bootstrap", "SMOTE")]
        cells += [f"{row['dcr_share']:.1f}", f"{row['nearest_neighbour_ratio']:.2f}", row["verdict"]["synthetic"]]
        cells += [f"{row['c2st_unseen']:.3f}" if "c2st_unseen" in row else "–"]
        lines.append(cells)
    head = ["table", "training rows", "fit", "steps", "halves", "AUC from rows", "AUC from the model"]
    head += ["AUC fresh", "AUC bootstrap", "AUC SMOTE", "TPR at 1 %", "TPR fresh", "TPR bootstrap", "TPR SMOTE"]
    return "\n".join(markdown([*head, "DCR share %", "NN ratio", "verdict", "C2ST to unseen rows"], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=names, default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=None, help="of each fit at most; default: until it stops")
    add_run_arguments(parser, Path(RESULTS / "privacy.jsonl"), seeds=(0,))
    parser.add_argument("--null", action="store_true", help="attack rows of independent columns and stop")
    args = parser.parse_args()
    if args.null:
        rows = [null(data_loader(), name) for name in args.tables]
        print("\n".join(markdown(list(rows[0]), [list(row.values()) for row in rows])))
        return
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
