"""Results of cells.py as markdown, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from harness import markdown

SHOWN = {
    "rf_auc": ("RF-AUC, .5 is best", "{:.3f}"),
    "rbf_mmd": ("RBF-MMD, 0 is best", "{:.4f}"),
    "wasserstein2": ("Wasserstein-2 per type, 0 is best", "{:.2f}"),
    "within_type_correlation": ("within-type correlation, 1 is best", "{:.3f}"),
    "gene_correlation_agreement": ("agreement of gene-gene correlations, 1 is best", "{:.3f}"),
    "gene_mean_correlation": ("gene-mean correlation, 1 is best", "{:.4f}"),
    "zero_fraction_gap": ("zeros, synthetic less real, percentage points", "{:+.2f}"),
    "log_fold_change_error": ("error of log2 fold changes between the two largest types", "{:.3f}"),
    "fit_seconds": ("seconds of fitting", "{:.0f}"),
    "sample_seconds": ("seconds of sampling", "{:.1f}"),
    "peak_rss_mb": ("peak memory, MB", "{:.0f}"),
}
ORDER = ("holdout", "bootstrap", "tabdiff", "nb", "nearest", "shift")
NAMES = {
    "holdout": "real other half (floor)",
    "bootstrap": "fitted half, drawn with replacement",
    "nb": "independent NB per type",
    "poisson": "real cells redrawn as Poisson",
    "scvi_prior": "scVI prior",
    "scvi_posterior": "scVI posterior (needs real cells)",
    "scdesigner": "scDesigner",
    "nearest": "nearest seen condition (with hindsight)",
    "shift": "mean shift or interpolation",
}
# Seconds that a fit of so many cells and genes may take.
FIT_SECONDS = {(700, 765): 60, (559, 32_786): 60, (20_000, 20_000): 300}
# Sets of more cells than this have the stricter target for RF-AUC.
MANY_CELLS = 2000


def label(row: dict[str, Any]) -> str:
    """System, and its device where that is not the CPU."""
    return NAMES.get(row["system"], row["system"]) + (", GPU" if row["device"] == "cuda" else "")


def systems(rows: list[dict[str, Any]]) -> list[str]:
    """Labels in the order of printing."""
    place = {label(r): (ORDER.index(r["system"]) if r["system"] in ORDER else len(ORDER), label(r)) for r in rows}
    return sorted(place, key=place.__getitem__)


def _cell(found: list[float], form: str) -> str:
    if not found:
        return ""
    text = form.format(np.mean(found))
    return text if len(found) == 1 else f"{text} ({form.format(min(found))} to {form.format(max(found))})"


def _grid(rows: list[dict[str, Any]], tasks: list[str], metric: str, form: str) -> list[str]:
    """Markdown of one metric: a row a system, a column a set; mean and range over seeds."""
    columns = [t for t in tasks if any(r["task"] == t and r.get(metric) is not None for r in rows)]
    lines = []
    for who in systems(rows):
        cells = [[r[metric] for r in rows if label(r) == who and r["task"] == t and metric in r] for t in columns]
        if any(cells):
            lines.append([who, *(_cell(found, form) for found in cells)])
    return markdown(["system", *columns], lines) if lines else []


def _failures(rows: list[dict[str, Any]]) -> list[str]:
    failed = [f"- {label(r)} on {r['task']}, seed {r['seed']}: {r['failed']}" for r in rows if "failed" in r]
    return ["Runs that failed:", "", *failed, ""] if failed else []


def tables(rows: list[dict[str, Any]], names: list[str]) -> str:
    """A table a metric, then the targets. Several seeds: their mean, smallest and largest value."""
    out: list[str] = []
    for metric, (title, form) in SHOWN.items():
        grid = _grid(rows, names, metric, form)
        out += [f"### {title}", "", *grid, ""] if grid else []
    out += _failures(rows)
    for who in systems(rows):
        if who.startswith("tabdiff"):
            out += [f"Targets, {who}, means over seeds:", "", *targets(rows, who), ""]
    return "\n".join(out)


def means(rows: list[dict[str, Any]], who: str, metric: str) -> pd.Series:
    """By set, the mean over seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if label(row) == who and row.get(metric) is not None:
            found.setdefault(row["task"], []).append(row[metric])
    return pd.Series({task: float(np.mean(values)) for task, values in found.items()}, dtype="float64")


def targets(rows: list[dict[str, Any]], who: str) -> list[str]:
    """A line a target: what it asks for, what was measured set by set, and on which sets that is not enough."""
    out = []

    def line(text: str, found: pd.Series, enough: Callable[[pd.Series], pd.Series], form: str) -> None:
        found = found.dropna()
        if len(found):
            missed = list(found.index[~enough(found)])
            each = ", ".join(f"{task} {form.format(value)}" for task, value in found.items())
            out.append(f"- {text}: {each}: " + (f"**not met** on {', '.join(missed)}" if missed else "met"))

    def own(metric: str) -> pd.Series:
        return means(rows, who, metric)

    def of(system: str, metric: str) -> pd.Series:
        return means(rows, NAMES[system], metric)

    size = {r["task"]: r["cells"] for r in rows if "cells" in r}
    gain = of("nb", "rf_auc") - own("rf_auc")
    large = [t for t in gain.index if size.get(t, 0) > MANY_CELLS]
    line("RF-AUC below the NB baseline's", gain.drop(large), lambda x: x > 0, "{:+.3f}")
    line(f"RF-AUC at least .12 below it on more than {MANY_CELLS:,} cells", gain[large], lambda x: x >= 0.12, "{:+.3f}")
    line("RF-AUC below that of scVI's prior", of("scvi_prior", "rf_auc") - own("rf_auc"), lambda x: x > 0, "{:+.3f}")
    floor = of("holdout", "rbf_mmd")
    excess = (own("rbf_mmd") - floor) / (of("nb", "rbf_mmd") - floor)
    line("RBF-MMD less the floor's at most half of the NB baseline's", excess, lambda x: x <= 0.5, "{:.2f}")
    ratio = own("wasserstein2") / of("nb", "wasserstein2")
    line("Wasserstein-2 over the NB baseline's at most 1", ratio, lambda x: x <= 1, "{:.3f}")
    ratio = own("within_type_correlation") / of("holdout", "within_type_correlation")
    line("within-type correlation over the floor's at least .9", ratio, lambda x: x >= 0.9, "{:.2f}")
    ratio = own("within_type_correlation") / of("bootstrap", "within_type_correlation")
    line("within-type correlation over the bootstrap's at least 1", ratio, lambda x: x >= 1, "{:.2f}")
    gap = own("gene_correlation_agreement") - of("holdout", "gene_correlation_agreement")
    line("agreement of gene-gene correlations less the floor's at least -.02", gap, lambda x: x >= -0.02, "{:+.3f}")
    line("gene-mean correlation at least .99", own("gene_mean_correlation"), lambda x: x >= 0.99, "{:.4f}")
    line("zeros within .5 points", own("zero_fraction_gap"), lambda x: x.abs() <= 0.5, "{:+.2f}")
    ratio = own("log_fold_change_error") / of("holdout", "log_fold_change_error")
    line("error of fold changes over the floor's at most 1.15", ratio, lambda x: x <= 1.15, "{:.2f}")
    return out


def held_out_tables(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Errors of mean profiles at held-out conditions, then whether this package is below both baselines."""
    out: list[str] = []
    forms = {"rmse": "all genes", "rmse_top": "the 50 genes that differ most"}
    for metric, title in forms.items():
        grid = _grid(rows, names, metric, "{:.4f}")
        out += [f"### held-out conditions: error of the mean profile, {title}", "", *grid, ""] if grid else []
    grid = _grid(rows, names, "direction", "{:.3f}")
    title = "held-out conditions: share of significant genes whose change has the right direction"
    out += [f"### {title}", "", *grid, ""] if grid else []
    out += _failures(rows)
    lines = []
    for metric, title in forms.items():
        baselines = pd.concat([means(rows, NAMES[b], metric) for b in ("nearest", "shift")], axis=1).min(axis=1)
        ratio = (means(rows, "tabdiff", metric) / baselines).dropna()
        if len(ratio):
            missed = list(ratio.index[ratio >= 1])
            each = ", ".join(f"{task} {value:.2f}" for task, value in ratio.items())
            verdict = f"**not met** at {', '.join(missed)}" if missed else "met"
            lines.append(f"- error over the better baseline's below 1, {title}: {each}: {verdict}")
    share = means(rows, "tabdiff", "direction").dropna()
    if len(share):
        missed = list(share.index[share < 0.9])
        each = ", ".join(f"{task} {value:.2f}" for task, value in share.items())
        verdict = f"**not met** at {', '.join(missed)}" if missed else "met"
        lines.append(f"- direction of change right for 90 % of significant genes: {each}: {verdict}")
    return "\n".join([*out, *(["Targets, means over seeds:", "", *lines, ""] if lines else [])])


def scale_table(rows: list[dict[str, Any]]) -> str:
    """What the fits of --scale took, and whether that is within the limits."""
    lines = []
    for r in rows:
        cells, genes = r["shape"]
        where = f"- {cells:,} × {genes:,}, {r['threads']} thread{'s' if r['threads'] > 1 else ''}: "
        if "failed" in r:
            lines.append(f"{where}failed: {r['failed']}")
            continue
        facts = [f"fitted in {r['fit_seconds']:.0f} s"]
        limit = FIT_SECONDS.get((cells, genes))
        if limit is not None:
            facts[0] += f" ({'met' if r['fit_seconds'] < limit else '**not met**'}: under {limit} s)"
        if r["task"] != "memory":
            facts.append(
                "the same seed draws the same cells" if r["repeats"] else "**the same seed draws other cells**"
            )
        else:
            verdict = "met" if r["within_limit"] else "**not met**"
            facts.append(
                f"peak memory {r['peak_mb']:,} MB, {r['peak_before_mb']:,} MB of it before the fit "
                f"({verdict}: {r['limit_mb']:,} MB, twice the CSR matrix's {r['csr_mb']:,.0f} MB and 2 GB)"
            )
        facts.append("input unchanged" if r["unchanged"] else "**input changed**")
        lines.append(where + ", ".join(facts))
    return "\n".join(["### scale", "", *lines, ""]) if lines else ""
