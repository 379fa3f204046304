"""Pictures of docs/benchmarks, drawn from results/.

    python benchmarks/plots.py                   # into docs/benchmarks/plots, which the build of the site does too
    python benchmarks/plots.py -o pictures

A picture a page, for a look; the tables below it have every figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import HERE, RESULTS, read_results
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pages import PUBLISHED, TABLES, table_scores

OURS, PEER, FLOOR, BASELINE = "#EE7733", "#332288", "#555555", "#BBBBBB"
COLORS = ("#332288", "#44AA99", "#CC6677", "#999933", "#88CCEE", "#882255", "#117733", "#AA4499")


def results(name: str) -> list[dict[str, Any]]:
    return read_results(RESULTS / f"{name}.jsonl")


def bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def dots(ax: Axes, groups: list[str], systems: dict[str, tuple[list[float | None], str, str]]) -> None:
    """A row a group, a dot a system: values, colour, marker."""
    place = np.arange(len(groups))[::-1]
    for name, (values, color, marker) in systems.items():
        shown = [(v, y) for v, y in zip(values, place) if v is not None and np.isfinite(v)]
        size = 60 if color == OURS else 36
        ax.scatter(*zip(*shown), s=size, color=color, marker=marker, label=name, zorder=3 if color == OURS else 2)
    ax.set_yticks(place, groups)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    bare(ax)


def tables() -> Figure:
    """How seldom rows are told from real ones, and that against seconds."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    systems = {
        "tabdiff": (table_scores("tabdiff", "c2st_xgb"), OURS, "o"),
        "tabdiff, MLP of 512 × 4": (table_scores("tabdiff_large", "c2st_xgb"), OURS, "P"),
        "TabDiff (paper)": (list(PUBLISHED["TabDiff (paper, hours on a GPU)"]), COLORS[0], "s"),
        "TabPC (paper)": (list(PUBLISHED["TabPC (paper)"]), COLORS[1], "D"),
        "TabularARGN": (table_scores("mostlyai", "c2st_xgb"), COLORS[2], "^"),
        "CTGAN": (table_scores("ctgan", "c2st_xgb"), COLORS[5], "<"),
        "SMOTE": (table_scores("smote", "c2st_xgb"), COLORS[3], "v"),
        "real holdout": (table_scores("holdout", "c2st_xgb"), FLOOR, "|"),
        "independent columns": (table_scores("independent", "c2st_xgb"), BASELINE, "x"),
    }
    dots(left, list(TABLES.values()), systems)
    left.set(xlabel="XGB-C2ST: 1 is never told from real rows", xlim=(-0.03, 1.04))
    for system, color, marker, name in (
        ("tabdiff", OURS, "o", "tabdiff"),
        ("tabdiff_large", OURS, "P", "tabdiff, MLP of 512 × 4"),
        ("mostlyai", COLORS[2], "o", "TabularARGN"),
        ("ctgan", COLORS[5], "o", "CTGAN"),
        ("smote", COLORS[3], "o", "SMOTE"),
        ("copula", COLORS[4], "o", "Gaussian copula"),
    ):
        parts = zip(*(table_scores(system, m) for m in ("fit_seconds", "cpu_seconds", "sample_seconds")))
        # A fit that shared its core took less of it than the clock says.
        seconds = [None if fit is None else min(fit, cpu or fit) + sample for fit, cpu, sample in parts]
        points = [p for p in zip(seconds, table_scores(system, "c2st_xgb")) if None not in p]
        right.scatter(*zip(*points), color=color, marker=marker, label=name, s=40)
    right.set(xscale="log", xlabel="seconds, fit and sample, one or two cores", ylabel="XGB-C2ST", ylim=(-0.03, 1.04))
    bare(right)
    names = dict(zip(*reversed(left.get_legend_handles_labels())))
    names |= dict(zip(*reversed(right.get_legend_handles_labels())))
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def mean_of(rows: list[dict[str, Any]], metric: str, **where: Any) -> float | None:
    found = [r[metric] for r in rows if all(r.get(k) == v for k, v in where.items()) and r.get(metric) is not None]
    return float(np.mean(found)) if found else None


def cells() -> Figure:
    """How well a forest tells cells, and what of the structure inside types is there."""
    rows = results("cells")
    sets = list(dict.fromkeys(r["task"] for r in rows))
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = {
        "tabdiff": ("tabdiff", OURS, "o"),
        "scvi_prior": ("scVI prior", COLORS[0], "s"),
        "scvi_posterior": ("scVI posterior (needs real cells)", COLORS[4], "D"),
        "nb": ("independent NB per type", BASELINE, "x"),
        "holdout": ("real other half", FLOOR, "|"),
    }
    titles = {"rf_auc": "RF-AUC: .5 is never told", "within_type_correlation": "correlation inside types: 1 is best"}
    for ax, (metric, title) in zip(panels, titles.items()):
        found = {
            name: ([mean_of(rows, metric, system=s, task=t) for t in sets], color, marker)
            for s, (name, color, marker) in looks.items()
        }
        dots(ax, sets, found)
        ax.set_xlabel(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def imputation() -> Figure:
    rows = [r for r in results("imputation") if "failed" not in r]
    names = list(dict.fromkeys(r["table"] for r in rows))
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = {
        "tabdiff": ("tabdiff", OURS, "o"),
        "iterative": ("IterativeImputer", COLORS[0], "s"),
        "knn": ("KNNImputer", COLORS[1], "D"),
        "forest_diffusion": ("ForestDiffusion", COLORS[2], "^"),
        "mean_mode": ("mean or mode", BASELINE, "x"),
    }
    titles = {"error": "normalised error of the single filling", "energy": "energy distance of draws"}
    for ax, (metric, title) in zip(panels, titles.items()):
        found = {
            name: ([mean_of(rows, metric, system=s, table=t) for t in names], color, marker)
            for s, (name, color, marker) in looks.items()
            if any(r["system"] == s and r.get(metric) is not None for r in rows)
        }
        dots(ax, names, found)
        ax.set_xlabel(title + ", 0 is best")
    panels[1].set_xscale("log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def samplers() -> Figure:
    """Errors by evaluations of the network, on a table and on digits."""
    rows = results("samplers")
    methods = ("dpmpp_2m", "dpmpp_3m", "unipc", "heun", "ddim", "ddpm", "euler_maruyama")
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    shown = (("adult", "trend_error", "Adult: trend error, %"), ("digits", "frechet", "digits: Fréchet distance"))
    for ax, (model, metric, title) in zip(panels, shown):
        for color, method in zip((OURS, *COLORS), methods):
            found = {}
            for r in rows:
                if (r["model"], r["method"]) == (model, method) and r.get(metric) is not None:
                    found.setdefault(r["budget"], []).append(r[metric])
            points = sorted((b, float(np.mean(v))) for b, v in found.items())
            if points:
                ax.plot(*zip(*points), "o-", color=color, label=method, markersize=4)
        floor = [r[metric] for r in rows if r["model"] == model and r["method"].startswith("real") and metric in r]
        if floor:
            ax.axhline(floor[0], color=FLOOR, linestyle=":", label="real rows")
        ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", title=title)
        ax.set_xticks([5, 10, 25, 50, 100, 250, 1000], ["5", "10", "25", "50", "100", "250", "1000"], minor=False)
        ax.set_xticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        bare(ax)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    return figure


def ablation() -> Figure:
    rows = [r for r in results("ablation") if r["table"] == "adult"]
    names = [r["variant"] for r in rows]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(names))[::-1]
    colors = [
        FLOOR if n.startswith(("real", "boot", "indep")) else OURS if n == "default" else "#88AACC" for n in names
    ]
    ax.barh(place, [r["xgb_c2st"] for r in rows], color=colors, height=0.7)
    ax.set_yticks(place, names, fontsize=8)
    ax.set(xlabel="XGB-C2ST on Adult, 10,000 rows, 2,000 steps", xlim=(0, 1.02))
    bare(ax)
    return figure


def usefulness() -> Figure:
    rows = [r for r in results("usefulness") if r["part"] == "oversampling" and "failed" not in r]
    names = list(dict.fromkeys(r["table"] for r in rows))
    systems = list(dict.fromkeys(r["system"] for r in rows))
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"trees_balanced_accuracy": "boosted trees", "logistic_balanced_accuracy": "logistic regression"}
    for ax, (metric, title) in zip(panels, titles.items()):
        found = {}
        for i, system in enumerate(sorted(systems, key=lambda s: s != "tabdiff")):
            color, marker = (
                (OURS, "o") if system == "tabdiff" else (COLORS[(i - 1) % len(COLORS)], "sD^vx"[(i - 1) % 5])
            )
            values = [mean_of(rows, metric, system=system, table=t) for t in names]
            if any(v is not None for v in values):
                found[system] = (values, color, marker)
        dots(ax, names, found)
        ax.set_xlabel(f"balanced accuracy, {title}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def scale() -> Figure:
    """Seconds and memory by rows, of fits on files and of drawing to files."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = {"rows": ("fit on files", OURS, "o"), "draw": ("rows to files", COLORS[0], "s")}
    for task, (name, color, marker) in looks.items():
        rows = sorted((r for r in results("scale") if r["task"] == task), key=lambda r: r["size"])
        sizes = [r["size"] for r in rows]
        left.plot(sizes, [r["cpu_seconds"] for r in rows], f"{marker}-", color=color, label=name, markersize=5)
        right.plot(sizes, [r["peak_mb"] for r in rows], f"{marker}-", color=color, markersize=5)
    left.plot([1e5, 1e7], [1, 100], ":", color=FLOOR, label="in proportion to the rows")
    left.set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds of one core, training included")
    right.set(xscale="log", xlabel="rows", ylabel="peak of memory, MB")
    right.set_ylim(bottom=0)
    for ax in (left, right):
        bare(ax)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def relations() -> Figure:
    """How many rows keep the rules of each kind."""
    from relations import RULES, SHOWN, SYSTEMS

    rows = [r for r in results("relations") if "failed" not in r and r["system"] != "fresh"]
    systems = [s for s in SYSTEMS if any(r["system"] == s for r in rows)]
    figure = Figure(figsize=(10.5, 0.9 + 0.26 * len(systems)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    place = np.arange(len(systems))[::-1]
    colors = [
        OURS if s.startswith("tabdiff") else BASELINE if s in ("bootstrap", "independent") else PEER for s in systems
    ]
    for ax, kind in zip(panels, [*RULES, "all"]):
        values = [mean_of(rows, kind, system=s) for s in systems]
        ax.barh(place, values, color=colors, height=0.7)
        for y, value in zip(place, values):
            ax.text(value + 2, y, f"{value:.0f}", va="center", fontsize=8, color=FLOOR)
        ax.set(xlim=(0, 118), xticks=[0, 50, 100], title="all of them" if kind == "all" else kind)
        bare(ax)
    panels[0].set_yticks(place, [SHOWN.get(s, s) for s in systems])
    figure.supxlabel("rows that keep the rules, %", fontsize=10)
    return figure


def quality_speed() -> Figure:
    """How seldom rows are told by seconds of fit and draw, today and before; a panel a table."""
    rows = [r for r in results("quality_speed") if r["threads"] == 1 and r["rows"] == 2_000]
    names = list(dict.fromkeys(r["table"] for r in rows))
    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    looks = {"after": ("today", OURS, "o"), "before": ("before", PEER, "s")}
    for ax, table in zip(panels.flat, names):
        for state, (name, color, marker) in looks.items():
            found = [r for r in rows if (r["table"], r["name"]) == (table, state)]
            points = sorted((r["fit_seconds"] + r["sample_seconds"], r["c2st_xgb"]) for r in found)
            if points:
                ax.plot(*zip(*points), f"{marker}-", color=color, label=name, markersize=5)
        ax.set(title=table, ylim=(0.4, 1.03), xscale="log")
        ax.set_xticks([30, 60, 120, 300, 600], ["30", "60", "120", "300", "600"], minor=False)
        ax.set_xticks([], minor=True)
        bare(ax)
    figure.supxlabel("seconds of one core, fit and 2,000 rows drawn", fontsize=10)
    figure.supylabel("XGB-C2ST, 1 is best", fontsize=10)
    found = {label: line for ax in panels.flat for line, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def privacy() -> Figure:
    """The best attack on drawn rows, beside what it finds of controls."""
    rows = results("privacy")
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    looks = {
        "tabdiff, its rows": ([r["auc_black"] for r in rows], OURS, "o"),
        "tabdiff, its model": ([r["auc_white"] for r in rows], COLORS[0], "D"),
        "fresh real rows": ([r["auc"]["fresh real"] for r in rows], FLOOR, "|"),
        "bootstrap": ([r["auc"]["bootstrap"] for r in rows], BASELINE, "x"),
        "SMOTE": ([r["auc"]["SMOTE"] for r in rows], COLORS[3], "v"),
    }
    names = [f"{r['table']}, {r['rows']:,} rows" for r in rows]
    dots(left, names, looks)
    left.set(xlabel="best membership attack, AUC: .5 is chance", xlim=(0.48, 0.86))
    dots(right, names, {"tabdiff, its rows": ([r["dcr_share"] for r in rows], OURS, "o")})
    right.set(xlabel="rows nearer to training rows, %: 50 is chance", xlim=(48, 56))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def multimodal() -> Figure:
    """What proteins and genes share within types, and over all cells."""
    rows = results("multimodal")
    sets = list(dict.fromkeys(r["set"] for r in rows))
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = {
        "tabdiff": ("tabdiff", OURS, "o"),
        "one library": ("one library", COLORS[1], "D"),
        "apart": ("modalities apart", BASELINE, "x"),
        "real": ("real cells", FLOOR, "|"),
    }
    titles = {"agreement_within": "within types", "agreement_all": "over all cells"}
    for ax, (metric, title) in zip(panels, titles.items()):
        found = {
            name: ([mean_of(rows, metric, system=s, set=t) for t in sets], color, marker)
            for s, (name, color, marker) in looks.items()
        }
        dots(ax, sets, found)
        ax.set(xlabel=f"agreement of protein-gene correlations {title}", xlim=(-0.15, 1.04), ylim=(-0.6, 1.6))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def denoisers() -> Figure:
    """MLP against transformer, at equal processor time and at equal parameters and steps."""
    rows = [r for r in results("denoisers") if "failed" not in r]
    names = list(dict.fromkeys(r["data"] for r in rows if r.get("c2st") is not None))
    figure = Figure(figsize=(9.5, 2.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = {"mlp": ("MLP", OURS, "o"), "dit": ("transformer", COLORS[0], "s")}
    titles = {"time": "as long on a CPU", "parameters": "1,000 steps, as many parameters"}
    for ax, (budget, title) in zip(panels, titles.items()):
        found = {
            name: ([mean_of(rows, "c2st", system=s, budget=budget, data=d) for d in names], color, marker)
            for s, (name, color, marker) in looks.items()
        }
        found["real rows"] = ([mean_of(rows, "c2st", system="real", data=d) for d in names], FLOOR, "|")
        dots(ax, names, found)
        ax.set(xlabel=f"C2ST after {title}" if budget == "parameters" else f"C2ST, trained {title}", xlim=(0, 1.04))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


PLOTS: dict[str, Callable[[], Figure]] = {
    "tables": tables,
    "cells": cells,
    "imputation": imputation,
    "relations": relations,
    "samplers": samplers,
    "ablation": ablation,
    "usefulness": usefulness,
    "scale": scale,
    "quality_speed": quality_speed,
    "privacy": privacy,
    "multimodal": multimodal,
    "denoisers": denoisers,
}


def draw(folder: Path) -> list[Path]:
    """Draw every picture into a folder; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, plot in PLOTS.items():
        paths.append(folder / f"{name}.png")
        plot().savefig(paths[-1], dpi=110)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=HERE.parent / "docs" / "benchmarks" / "plots")
    for path in draw(parser.parse_args().output):
        print(path)


if __name__ == "__main__":
    main()
