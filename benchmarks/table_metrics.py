"""What tables.py measures of synthetic rows, and how it prints it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from harness import markdown

from tabdiff.evaluation import (
    alpha_precision,
    beta_recall,
    c2st,
    dcr_share,
    downstream_score,
    lr_c2st,
    missingness_error,
    nearest_neighbour_ratio,
    published_c2st,
    shape_error,
    trend_error,
)

# Distances grow with the square of the rows: of each frame so many are searched from (the nearest-neighbour ratio
# always searches among all training rows). Precision and coverage compare whole tables up to a size, and larger ones by
# a sample.
QUERIES = 10_000
WHOLE_ROWS, COVERAGE_ROWS = 40_000, 20_000
# Against a small holdout stand as few training rows, and the share of nearer rows depends on which: the mean over some.
SMALL_HOLDOUT, DCR_DRAWS = 10_000, 5
# How often rows of independent columns would have to break a dependency for it to count as one.
MIN_EXPECTED_BREAKS = 100
# Columns of the published form of C2ST, which are dense: more would not fit into memory.
MAX_ONE_HOT = 500


@dataclass(frozen=True)
class Table:
    """A benchmark table: the rows to fit on, all other rows, and those of them that the downstream score tests on."""

    name: str
    target: Any
    train: pd.DataFrame
    holdout: pd.DataFrame
    test: pd.DataFrame


def load(loader: Any, name: str) -> Table:
    frame, meta = loader.load_table(name, benchmark=True)
    categorical = list(meta["categorical"]) + ([meta["target"]] if meta["task"] != "regression" else [])
    frame = frame.astype({c: "category" for c in categorical})
    split = meta["split"]
    parts = {k: frame.iloc[rows].reset_index(drop=True) for k, rows in split.items()}
    unseen = [parts[k] for k in ("val", "test") if k in parts]
    return Table(name, meta["target"], parts["train"], pd.concat(unseen, ignore_index=True), parts["test"])


# -------------------------------------------------------------------------------------------------- dependencies


def _codes(column: pd.Series, *others: pd.Series) -> list[np.ndarray]:
    """Codes shared by several columns of one name; a missing value is a value."""
    pooled = np.concatenate([c.astype(object).to_numpy() for c in (column, *others)])
    codes, _ = pd.factorize(pooled, use_na_sentinel=False)
    return np.split(codes, np.cumsum([len(c) for c in (column, *others)])[:-1])


def _image(a: np.ndarray, b: np.ndarray, n_values: int) -> np.ndarray | None:
    """Which value of b goes with each value of a, -1 for values not there; None where one has several."""
    image = np.full(n_values, -1)
    image[a] = b
    return image if (image[a] == b).all() else None


def find_dependencies(frame: pd.DataFrame) -> list[tuple[Any, Any]]:
    """Find all pairs (a, b) of columns where the value of a fixes that of b, and not by chance.

    Rows that repeat another row say nothing and are left out. Of the others, each one whose value of `a` has come
    before could break the dependency, and would do so with the probability that two values of `b` differ; where fewer
    than `MIN_EXPECTED_BREAKS` would, as for identifiers or constants, it does not count.
    """
    rows = frame.drop_duplicates()
    codes = {name: _codes(rows[name])[0] for name in rows.columns}
    differ = {name: 1 - float(np.sum((np.bincount(c) / len(rows)) ** 2)) for name, c in codes.items()}
    found = []
    for a in rows.columns:
        repeats = len(rows) - (codes[a].max() + 1)
        for b in rows.columns:
            supported = a != b and repeats * differ[b] >= MIN_EXPECTED_BREAKS
            if supported and _image(codes[a], codes[b], int(codes[a].max()) + 1) is not None:
                found.append((a, b))
    return found


def broken_rows(frame: pd.DataFrame, rows: pd.DataFrame, dependencies: list[tuple[Any, Any]]) -> int:
    """Count the rows that break a dependency: a known value of a, beside another value of b than in `frame`."""
    broken = np.zeros(len(rows), dtype=bool)
    for a, b in dependencies:
        (a_train, a_rows), (b_train, b_rows) = _codes(frame[a], rows[a]), _codes(frame[b], rows[b])
        image = _image(a_train, b_train, 1 + int(max(a_train.max(), a_rows.max())))
        assert image is not None, f"{a} does not determine {b}"
        broken |= (image[a_rows] >= 0) & (image[a_rows] != b_rows)
    return int(broken.sum())


# -------------------------------------------------------------------------------------------------- measuring


def measure(table: Table, rows: pd.DataFrame, *, floor: bool = False, threads: int = 1) -> dict[str, Any]:
    """Every metric of synthetic rows.

    With `floor` the rows are the holdout itself: one half of it is then fresh and the other the holdout where distances
    are measured, and the downstream score is that of the training rows.
    """
    from xgboost import XGBClassifier

    train, holdout = table.train, table.holdout
    rng = np.random.default_rng(0)

    def some(frame: pd.DataFrame, n: int) -> pd.DataFrame:
        return frame if len(frame) <= n else frame.iloc[rng.permutation(len(frame))[:n]]

    def xgb() -> Any:
        return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0, n_jobs=threads)

    def plain() -> Any:
        return XGBClassifier(eval_metric="logloss", random_state=0, n_jobs=threads)

    fresh, reference = rows, holdout
    if floor:
        fresh, reference = (part.reset_index(drop=True) for part in halves(holdout, rng))
    limit = len(train) if len(train) <= WHOLE_ROWS else COVERAGE_ROWS
    covered, covering = some(train, limit), some(rows, limit)
    queries = some(fresh, QUERIES)
    levels = sum(train[c].nunique() for c in train.columns if not pd.api.types.is_numeric_dtype(train[c]))
    published = published_c2st(train, rows, classifier=plain, random_state=0) if levels <= MAX_ONE_HOT else None
    draws = DCR_DRAWS if len(reference) < SMALL_HOLDOUT else 1
    shares = [dcr_share(train, queries, reference, random_state=draw) for draw in range(draws)]
    dependencies = find_dependencies(train)
    return {
        "shape_error": shape_error(train, rows),
        "trend_error": trend_error(train, rows),
        "missingness_error": missingness_error(train, rows),
        "c2st_xgb": c2st(train, rows, classifier=xgb, random_state=0),
        "published_c2st": published,
        "c2st": c2st(train, rows, random_state=0),
        "lr_c2st": lr_c2st(train, rows, random_state=0),
        "alpha_precision": alpha_precision(covered, covering, random_state=0),
        "beta_recall": beta_recall(covered, covering, random_state=0),
        "downstream": downstream_score(train if floor else rows, table.test, table.target, random_state=0),
        "dcr_share": float(np.mean(shares)),
        "nearest_neighbour_ratio": nearest_neighbour_ratio(train, queries, some(reference, QUERIES)),
        "dependencies": len(dependencies),
        "broken_rows": broken_rows(train, rows, dependencies),
        "rows": len(rows),
    }


def halves(frame: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    order = rng.permutation(len(frame))
    return frame.iloc[order[: len(order) // 2]], frame.iloc[order[len(order) // 2 :]]


# -------------------------------------------------------------------------------------------------- printing

SHOWN = {
    "c2st_xgb": ("XGB-C2ST, 1 is best", "{:.3f}"),
    "published_c2st": ("XGB-C2ST by the pipeline of published tables, 1 is best", "{:.3f}"),
    "c2st": ("C2ST by scikit-learn's gradient boosting, 1 is best", "{:.3f}"),
    "lr_c2st": ("LR-C2ST, 1 is best", "{:.3f}"),
    "shape_error": ("shape error, %", "{:.2f}"),
    "trend_error": ("trend error, %", "{:.2f}"),
    "missingness_error": ("missingness error, %", "{:.2f}"),
    "alpha_precision": ("α-precision, 1 is best", "{:.3f}"),
    "beta_recall": ("β-recall, about .5 is right", "{:.3f}"),
    "downstream": ("downstream score on the real test rows (AUC; R² where the target is a number)", "{:.3f}"),
    "dcr_share": ("DCR share, %, 50 is right", "{:.1f}"),
    "nearest_neighbour_ratio": ("nearest-neighbour ratio, 1 is right", "{:.2f}"),
    "broken_rows": ("rows that break a functional dependency, %", "{:.2f}"),
    "fit_seconds": ("seconds of fitting", "{:.0f}"),
    "sample_seconds": ("seconds of sampling", "{:.1f}"),
    "steps": ("training steps", "{:.0f}"),
    "peak_rss_mb": ("peak memory, MB", "{:.0f}"),
}
ORDER = ("holdout", "bootstrap", "tabdiff", "tabdiff_large")
NAMES = {
    "holdout": "real holdout",
    "bootstrap": "bootstrap of the training rows",
    "independent": "independent columns",
    "tabdiff_large": "tabdiff with an MLP of 512 × 4",
}


def label(row: dict[str, Any]) -> str:
    """System, the time that it had at most where that counts, and its device where that is not the CPU."""
    limit = "" if row.get("max_time") is None else f", {row['max_time']:g} s"
    return NAMES.get(row["system"], row["system"]) + limit + (", GPU" if row["device"] == "cuda" else "")


def value(row: dict[str, Any], metric: str) -> float | None:
    found = row.get(metric)
    if found is not None and metric == "broken_rows":
        return 100 * found / row["rows"] if row["dependencies"] else None
    return found


def values(rows: list[dict[str, Any]], who: str, metric: str) -> dict[str, list[float]]:
    """By table, a value a seed."""
    out: dict[str, list[float]] = {}
    for row in rows:
        found = value(row, metric)
        if label(row) == who and found is not None:
            out.setdefault(row["table"], []).append(found)
    return out


def systems(rows: list[dict[str, Any]]) -> list[str]:
    """Labels in the order of printing: the floor, this package, the others by name."""
    place = {label(r): (ORDER.index(r["system"]) if r["system"] in ORDER else len(ORDER), label(r)) for r in rows}
    return sorted(place, key=place.__getitem__)


def tables(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Markdown: a table a metric, a row a system, a column a benchmark table and their mean; then the targets.

    Several seeds are shown as their mean and, in brackets, their smallest and largest value. The mean over tables is
    there where a system has all of them that any system has.
    """
    names = [name for name in names if any(r["table"] == name for r in rows)]
    out: list[str] = []
    for metric, (title, form) in SHOWN.items():
        columns = [n for n in names if any(r["table"] == n and value(r, metric) is not None for r in rows)]
        if metric == "missingness_error" and not any(r.get(metric) for r in rows):
            continue  # no table has holes
        lines = []
        for who in systems(rows):
            found = values(rows, who, metric)
            if not found:
                continue
            cells = [_cell(found.get(name, []), form) for name in columns]
            whole = all(name in found for name in columns)
            mean = form.format(np.mean([np.mean(found[n]) for n in columns])) if whole else ""
            lines.append([who, *cells, mean])
        if lines:
            out += [f"### {title}", "", *markdown(["system", *columns, "mean"], lines), ""]
    failed = [f"- {label(r)} on {r['table']}, seed {r['seed']}: {r['failed']}" for r in rows if "failed" in r]
    out += ["Runs that failed:", "", *failed, ""] if failed else []
    for who in systems(rows):
        if who.startswith("tabdiff"):
            out += [f"Targets, {who}:", "", *targets(rows, who), ""]
    return "\n".join(out)


def _cell(found: list[float], form: str) -> str:
    if not found:
        return ""
    text = form.format(np.mean(found))
    return text if len(found) == 1 else f"{text} ({form.format(min(found))} to {form.format(max(found))})"


def targets(rows: list[dict[str, Any]], who: str) -> list[str]:
    """A line a target: what it asks for, what was measured (means over seeds), and whether that is enough."""

    def means(metric: str, of: str = who) -> pd.Series:
        return pd.Series({t: float(np.mean(v)) for t, v in values(rows, of, metric).items()}, dtype="float64")

    out = []

    def line(text: str, found: float, enough: Callable[[float], bool], form: str, where: str = "") -> None:
        if np.isfinite(found):
            verdict = "met" if enough(found) else "**not met**"
            out.append(f"- {text}: {form.format(found)}{where}, {verdict}")

    scores = means("c2st_xgb")
    least = 0.9 if "GPU" in who else 0.8
    if "adult" in scores and "GPU" not in who:
        line("XGB-C2ST on adult at least .90", scores["adult"], lambda x: x >= 0.9, "{:.3f}")
    over = f" over {', '.join(scores.index)}"
    line(f"mean XGB-C2ST at least {least:.2f}", scores.mean(), lambda x: x >= least, "{:.3f}", over)
    for metric in ("shape_error", "trend_error"):
        ratio = (means(metric) / means(metric, NAMES["bootstrap"])).dropna()
        each = " (" + ", ".join(f"{t} {r:.2f}" for t, r in ratio.items()) + ")"
        text = f"{metric.replace('_', ' ')} at most 1.2 times that of a bootstrap, largest"
        line(text, ratio.max(), lambda x: x <= 1.2, "{:.2f}", each)
    line("mean β-recall above .52", means("beta_recall").mean(), lambda x: x > 0.52, "{:.3f}")
    shares, nearest = means("dcr_share"), means("nearest_neighbour_ratio")
    if len(shares):
        line("DCR share at most 52 %, largest", shares.max(), lambda x: x <= 52, "{:.1f}", f" ({shares.idxmax()})")
        text = "nearest-neighbour ratio at least .90, smallest"
        line(text, nearest.min(), lambda x: x >= 0.9, "{:.2f}", f" ({nearest.idxmin()})")
    gap = (means("downstream") - means("downstream", NAMES["holdout"])).dropna()
    each = " (" + ", ".join(f"{t} {g:+.3f}" for t, g in gap.items()) + ")"
    text = "downstream score less that of the real training rows, mean, at least -.01"
    line(text, gap.mean(), lambda x: x >= -0.01, "{:+.3f}", each)
    line("rows that break a functional dependency 0 %, largest", means("broken_rows").max(), lambda x: x == 0, "{:.3f}")
    return out
