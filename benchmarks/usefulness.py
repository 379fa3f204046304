"""Are the estimators of use? Synthetic rows for rare classes, and outliers, against what people use.

    TABDIFF_DATA=/path python benchmarks/usefulness.py                       # what results/usefulness.jsonl lacks
    TABDIFF_DATA=/path python benchmarks/usefulness.py --parts detection --seeds 0,1,2
    python benchmarks/usefulness.py --table                                  # print the tables as markdown, run nothing

Oversampling: on five tables with a rare class the training rows are resampled to equal classes, by each system with its
default settings, and boosted trees and a logistic regression are fitted. They are judged on the rows held out by
balanced accuracy, at the threshold of one half, and by average precision, which looks at the order alone. "none"
resamples nothing; "weights" gives the classes equal weights instead. SMOTENC is SMOTE where there are no categories.

Detection: AUROC of the score on held-out rows, half of the data, with outliers of another class. Only in wilt is that
class rare as it is; in the other sets, which come with scikit-learn but for magic, it is thinned to a share of
`OUTLIERS`. "mixed" is fitted on all training rows, outliers included and not labelled; "clean" on the normal ones.

Imputation has a script of its own, imputation.py.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl
import torch
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
from imblearn.over_sampling import SMOTE, SMOTENC, RandomOverSampler
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from table_metrics import load

from tabdiff import DiffusionGenerator, DiffusionOutlierDetector, DiffusionOverSampler, TableCodec, TrainingOptions

PARTS = ("oversampling", "detection")
IMBALANCED = ("wilt", "bank", "shoppers", "churn", "default")
OUTLIER_SETS = ("wilt", "magic", "breast_cancer", "wine", "digits")
OUTLIERS = 0.05
MAX_ROWS = 8000
SETTINGS = ("mixed", "clean")
PACKAGES = ("tabdiff", "torch", "scikit-learn", "imbalanced-learn", "numpy", "pandas")


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows to judge by; y is True for the rare class."""

    X: pd.DataFrame
    y: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray


def generator(args: argparse.Namespace, seed: int, **parameters: Any) -> DiffusionGenerator:
    steps = {} if args.max_steps is None else {"max_steps": args.max_steps}
    return DiffusionGenerator(random_state=seed, max_time=args.max_time, **steps, **parameters)


# --------------------------------------------------------------------------------------------- oversampling


def imbalanced(loader: Any, name: str) -> Split:
    table = load(loader, name)
    rare = table.train[table.target].value_counts().index[-1]
    parts = []
    for part in (table.train, table.holdout):
        parts += [part.drop(columns=table.target), (part[table.target] == rare).to_numpy()]
    return Split(*parts)


def smote(X: pd.DataFrame, seed: int) -> Any:
    mixed = (X.dtypes == "category").any()
    return SMOTENC("auto", random_state=seed) if mixed else SMOTE(random_state=seed)


def oversampler(args: argparse.Namespace, seed: int) -> DiffusionOverSampler:
    return DiffusionOverSampler(generator(args, seed, training=TrainingOptions(observed_masks=0.0)))


RESAMPLERS: dict[str, Callable[[Split, argparse.Namespace, int], Any]] = {
    "none": lambda split, args, seed: None,
    "weights": lambda split, args, seed: None,
    "random": lambda split, args, seed: RandomOverSampler(random_state=seed),
    "smotenc": lambda split, args, seed: smote(split.X, seed),
    "tabdiff": lambda split, args, seed: oversampler(args, seed),
}


def classifiers(weights: str | None, seed: int) -> dict[str, Any]:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
        remainder=StandardScaler(),
    )
    return {
        "trees": HistGradientBoostingClassifier(random_state=seed, class_weight=weights),
        "logistic": make_pipeline(columns, LogisticRegression(max_iter=1000, class_weight=weights)),
    }


def oversampling(system: str, split: Split, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    resampler = RESAMPLERS[system](split, args, seed)
    X, y = (split.X, split.y) if resampler is None else resampler.fit_resample(split.X, split.y)
    report: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "rows": len(split.X),
        "added": len(X) - len(split.X),
    }
    for name, classifier in classifiers("balanced" if system == "weights" else None, seed).items():
        classifier.fit(X, y)
        p = classifier.predict_proba(split.X_test)[:, 1]
        report[f"{name}_balanced_accuracy"] = float(balanced_accuracy_score(split.y_test, p > 0.5))
        report[f"{name}_average_precision"] = float(average_precision_score(split.y_test, p))
    return {**report, "rare": float(split.y.mean())}


# ------------------------------------------------------------------------------------------------ detection


def outliers(loader: Any, name: str, seed: int) -> Split:
    if name in ("wilt", "magic"):
        frame, meta = loader.load_table(name, benchmark=True)
        X, label = frame.drop(columns=meta["target"]), frame[meta["target"]].astype(str)
        y = (label == ("1" if name == "wilt" else "h")).to_numpy()
    else:
        loaders = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
        X, label = loaders[name](return_X_y=True, as_frame=True)
        # Malignant tumours; the first of three vineyards; the digit that others resemble most.
        y = (label == {"breast_cancer": 0, "wine": 0, "digits": 8}[name]).to_numpy()
    rows = thin(y, seed)
    X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    return Split(X, y, X_test, y_test)


def thin(y: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows, at most `MAX_ROWS`, of which a share of `OUTLIERS` is True; all of them if it is near that."""
    rng = np.random.default_rng(seed)
    normal, odd = (rng.permutation(np.flatnonzero(which))[:MAX_ROWS] for which in (~y, y))
    if y.mean() > 1.2 * OUTLIERS:
        odd = odd[: round(OUTLIERS / (1 - OUTLIERS) * len(normal))]
    return np.sort(np.concatenate([normal, odd]))


DETECTORS: dict[str, Callable[[argparse.Namespace, int], Any]] = {
    "isolation_forest": lambda args, seed: IsolationForest(random_state=seed),
    "local_outlier_factor": lambda args, seed: make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)),
    "tabdiff": lambda args, seed: DiffusionOutlierDetector(
        generator(
            args, seed, refine=False, training=TrainingOptions(observed_masks=0.0), codec=TableCodec(dependencies=False)
        )
    ),
}


def detection(system: str, split: Split, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    report: dict[str, Any] = {"rows": len(split.X), "rare": float(split.y.mean())}
    start = time.perf_counter()
    for setting in SETTINGS:
        X = split.X if setting == "mixed" else split.X[~split.y]
        scores = DETECTORS[system](args, seed).fit(X).score_samples(split.X_test)
        report[f"auroc_{setting}"] = float(roc_auc_score(~split.y_test, scores))
    return {**report, "seconds": time.perf_counter() - start}


# -------------------------------------------------------------------------------------------------- running


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("part", "system", "table", "seed", "device", "max_time", "max_steps"))


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    out = []
    for part in args.parts:
        systems, names = (RESAMPLERS, IMBALANCED) if part == "oversampling" else (DETECTORS, OUTLIER_SETS)
        for name in (n for n in names if not args.tables or n in args.tables):
            for seed in args.seeds:
                for system in (s for s in systems if not args.systems or s in args.systems):
                    trained = system == "tabdiff"
                    row: dict[str, Any] = {"part": part, "system": system, "table": name, "seed": seed}
                    row["device"] = device() if trained else "cpu"
                    out.append(row | {k: getattr(args, k) if trained else None for k in ("max_time", "max_steps")})
    return out


def run_all(args: argparse.Namespace) -> int:
    loader = data_loader()
    torch.set_num_threads(args.threads)
    done = {key(r) for r in read_results(args.results) if not (args.retry and "failed" in r)}
    for row in jobs(args):
        if key(row) in done:
            continue
        part, system, name, seed = (row[k] for k in ("part", "system", "table", "seed"))
        split = imbalanced(loader, name) if part == "oversampling" else outliers(loader, name, seed)
        measure = oversampling if part == "oversampling" else detection
        try:
            with warnings.catch_warnings():
                # Categories that only the holdout has: the encoder leaves them out, as it should.
                warnings.filterwarnings("ignore", message="Found unknown categories")
                row |= measure(system, split, args, seed)
        except (ValueError, RuntimeError) as error:
            row["failed"] = str(error)[:300]
        row |= {"threads": args.threads, **provenance(*PACKAGES)}
        write_result(args.results, row, key)
        shown = " ".join(f"{k}={v:.3f}" for k, v in row.items() if isinstance(v, float) and k != "max_time")
        print(f"{part} {name} {system} seed {seed}: {row.get('failed', shown)}", flush=True)
    return 0


SHOWN = {
    "oversampling": {
        "trees_balanced_accuracy": "boosted trees, balanced accuracy",
        "trees_average_precision": "boosted trees, average precision",
        "logistic_balanced_accuracy": "logistic regression, balanced accuracy",
        "logistic_average_precision": "logistic regression, average precision",
        "seconds": "seconds to resample",
    },
    "detection": {
        "auroc_mixed": "AUROC, fitted on all training rows",
        "auroc_clean": "AUROC, fitted on normal rows",
        "seconds": "seconds, both fits and scores",
    },
}


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: a table a metric, a row a system, a column a data set; several seeds by their mean."""
    out: list[str] = []
    for part, metrics in SHOWN.items():
        own = [r for r in rows if r["part"] == part]
        names = [
            n for n in (IMBALANCED if part == "oversampling" else OUTLIER_SETS) if any(r["table"] == n for r in own)
        ]
        for metric, title in metrics.items():
            lines = []
            for system in RESAMPLERS if part == "oversampling" else DETECTORS:
                found = {
                    n: [r[metric] for r in own if (r["system"], r["table"]) == (system, n) and metric in r]
                    for n in names
                }
                if not any(found.values()):
                    continue
                form = "{:.0f}" if metric == "seconds" else "{:.3f}"
                cells = [form.format(np.mean(found[n])) if found[n] else "" for n in names]
                whole = form.format(np.mean([np.mean(v) for v in found.values()])) if all(found.values()) else ""
                lines.append([system, *cells, whole])
            if lines:
                out += [f"### {title}", "", *markdown(["system", *names, "mean"], lines), ""]
    failed = [f"- {r['system']} on {r['table']}, seed {r['seed']}: {r['failed']}" for r in rows if "failed" in r]
    return "\n".join(out + (["Runs that failed:", "", *failed, ""] if failed else []))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(dict.fromkeys([*RESAMPLERS, *DETECTORS]))
    data = list(dict.fromkeys([*IMBALANCED, *OUTLIER_SETS]))
    parser.add_argument("--parts", type=names, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--tables", type=names, default=[], help=f"of {','.join(data)}; default: all")
    parser.add_argument("--systems", type=names, default=[], help=f"of {','.join(known)}; default: all")
    parser.add_argument("--max-time", type=float, default=300.0, help="seconds of training at most")
    parser.add_argument("--max-steps", type=int, help="training steps at most; default: the estimator's own")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    add_run_arguments(parser, RESULTS / "usefulness.jsonl", [0, 1, 2], threads=2)
    args = parser.parse_args()
    for what, allowed in (("parts", PARTS), ("tables", data), ("systems", known)):
        unknown = [g for g in getattr(args, what) if g not in allowed]
        if unknown:
            parser.error(f"unknown {what} {unknown}; there are {', '.join(allowed)}")
    if args.table:
        rows = read_results(args.results)
        rows = [r for r in rows if r["max_time"] in (None, args.max_time) and r["max_steps"] in (None, args.max_steps)]
        print(tables(rows))
        return 0
    try:
        with threadpoolctl.threadpool_limits(args.threads):
            return run_all(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
