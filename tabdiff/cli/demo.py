"""``tabdiff demo``: fit one half of a real data set, sample as many rows as the other half has, and compare.

The unseen half is the yardstick: the samples, the half that was fitted (which is as good as anything can be that comes
from the same source), and a simple baseline are all measured against it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.io.atomic import replacing

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["demo_cells", "demo_table"]

# Paul Tol's "muted" scheme, which people with any common colour blindness can tell apart; grey completes ten.
COLORS = (
    *("#CC6677", "#332288", "#44AA99", "#999933", "#88CCEE"),
    *("#882255", "#117733", "#DDCC77", "#AA4499", "#777777"),
)
MARKERS = ("o", "s", "^", "D", "v")
REAL, SYNTHETIC = "#555555", "#EE7733"
FLOOR, CELL_BASELINE, TABLE_BASELINE = "real half (floor)", "NB per type", "independent columns"


def demo_cells(
    folder: str | os.PathLike = ".",
    *,
    seed: int = 0,
    max_steps: str | int = "auto",
    max_time: float | None = None,
) -> pd.DataFrame:
    """Fit and score 700 blood cells, print a scorecard and draw ``tabdiff-demo-cells.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the split, the fit, the samples and the scores: the same seed gives the same scorecard on one machine.
    max_steps, max_time : optional
        As in `DiffusionGenerator`.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal", "tabdiff", "real half (floor)" and "NB per type".
    """
    from tabdiff import DiffusionGenerator
    from tabdiff.datasets import load_pbmc68k_counts
    from tabdiff.evaluation import cell_scorecard

    label = "bulk_labels"
    cells = load_pbmc68k_counts()
    seen = _random_half(cells.obs[label], seed)
    train, unseen = cells[seen].copy(), cells[~seen].copy()
    print(f"Blood cells (Zheng et al., 2017): {cells.n_obs} cells × {cells.n_vars} genes of counts, labelled by type.")
    print(f"Fitting {train.n_obs} of them, a random half of each type ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps, max_time=max_time)
    with _one_thread():
        gen.fit(train, condition=label)
    fitted = time.perf_counter()
    synthetic = gen.sample(condition={label: unseen.obs[label].value_counts().to_dict()}, random_state=seed)
    _print_times(synthetic.n_obs, "cells, as many of each type as in the unseen half,", start, fitted)
    scores = cell_scorecard(unseen, synthetic, by=label, floor=train, seed=seed).rename(
        columns={"synthetic": "tabdiff", "real half": FLOOR, "NB baseline": CELL_BASELINE}
    )
    _print_scores(scores)
    print(
        "Every column is compared with the unseen half. RF-AUC: can a random forest tell the cells from real ones\n"
        "(0.5: no; 1: always)? RBF-MMD, Wasserstein-2: how far apart are the clouds of cells? Within-type\n"
        "correlation: do genes that vary together in real cells do so here? The floor is what real cells score; the\n"
        "baseline draws each gene by itself from a negative binomial per type: no structure inside a type."
    )
    _write_picture(Path(folder) / "tabdiff-demo-cells.png", _draw_cells, gen, unseen, synthetic, label)
    return scores


def demo_table(folder: str | os.PathLike = ".", *, seed: int = 0, max_steps: str | int = "auto") -> pd.DataFrame:
    """Fit and score the Palmer penguins, print a scorecard and draw ``tabdiff-demo-table.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the split, the fit, the samples and the scores: the same seed gives the same scorecard on one machine.
    max_steps : optional
        As in `DiffusionGenerator`.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal", "tabdiff", "real half (floor)" and "independent columns". The two metrics of
        copying have no floor (NaN), which would compare the fitted rows with themselves.
    """
    from tabdiff import DiffusionGenerator
    from tabdiff.datasets import load_penguins
    from tabdiff.evaluation import independent_columns

    label = "species"
    penguins = load_penguins()
    seen = _random_half(penguins[label], seed)
    train, unseen = (penguins[rows].reset_index(drop=True) for rows in (seen, ~seen))
    n_missing = int(penguins.isna().to_numpy().sum())
    print(
        f"Palmer penguins (Gorman et al., 2014): {len(penguins)} birds × {penguins.shape[1]} columns of mixed types, "
        f"{n_missing} values missing."
    )
    print(f"Fitting {len(train)} of them, a random half of each species ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps)
    with _one_thread():
        gen.fit(train, condition=label)
    fitted = time.perf_counter()
    synthetic = gen.sample(condition={label: unseen[label].value_counts().to_dict()}, random_state=seed)
    _print_times(len(synthetic), "birds, as many of each species as in the unseen half,", start, fitted)
    columns = {
        "tabdiff": synthetic,
        FLOOR: train,
        TABLE_BASELINE: independent_columns(train, len(unseen), random_state=seed),
    }
    scores = pd.DataFrame({name: _table_scores(train, unseen, rows, seed) for name, rows in columns.items()})
    scores.insert(0, "ideal", [0.0, 0.0, 0.0, 1.0, 1.0, 50.0])
    scores.index.name = "metric"
    _print_scores(scores)
    print(
        "Every column is compared with the unseen half. Shape: is the distribution of each column right? Trend: the\n"
        "dependence of each two? C2ST: can gradient boosting tell the rows from real ones (1: no; 0: always)? The\n"
        "floor is what real rows score; independent columns have no dependence at all. The last two rows tell copying\n"
        "from learning: under 0.9, or far above 50 %, samples lie closer to the fitted birds than unseen birds do."
    )
    _write_picture(Path(folder) / "tabdiff-demo-table.png", _draw_table, gen, unseen, synthetic)
    return scores


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one thread: a second gains little on so small a network, and costs much where the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _random_half(labels: pd.Series, seed: int) -> np.ndarray:
    """Mask (n,) of a random half of each label, the larger one where the number is odd."""
    rng = np.random.default_rng(seed)
    codes = labels.astype("category").cat.codes.to_numpy()
    chosen = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        chosen[rows[: (len(rows) + 1) // 2]] = True
    return chosen


def _table_scores(train: pd.DataFrame, unseen: pd.DataFrame, rows: pd.DataFrame, seed: int) -> dict[str, float]:
    from tabdiff.evaluation import c2st, dcr_share, missingness_error, nearest_neighbour_ratio, shape_error, trend_error

    fitted = rows is train
    return {
        "shape error (%)": shape_error(unseen, rows),
        "trend error (%)": trend_error(unseen, rows),
        "missingness error (%)": missingness_error(unseen, rows),
        "C2ST": c2st(unseen, rows, random_state=seed),
        "distance to the nearest fitted row / an unseen row's": np.nan
        if fitted
        else nearest_neighbour_ratio(train, rows, unseen),
        "nearer to fitted than to unseen rows (%)": np.nan
        if fitted
        else dcr_share(train, rows, unseen, random_state=seed),
    }


# ------------------------------------------------------------------- printing


def _print_times(n: int, what: str, start: float, fitted: float) -> None:
    print(f"Fitted in {fitted - start:.0f} s; sampled {n} {what} in {time.perf_counter() - fitted:.1f} s.\n")


def _print_scores(scores: pd.DataFrame) -> None:
    def decimals(row: pd.Series) -> int:
        largest = row.abs().max()
        return 1 if largest >= 10 else 2 if largest >= 2 else 3

    # Adding 0 turns the -0.0 of rounding into 0.0.
    text = {
        name: ["–" if np.isnan(v) else f"{round(v, decimals(row)) + 0.0:.{decimals(row)}f}" for v in row]
        for name, row in scores.iterrows()
    }
    shown = pd.DataFrame.from_dict(text, orient="index", columns=scores.columns)
    print(shown.to_string(), end="\n\n")


# ------------------------------------------------------------------- pictures


def _write_picture(path: Path, draw: Any, *args: Any) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("\nFor the picture, install matplotlib (pip install matplotlib) and run the demo again.")
        return
    import matplotlib
    from matplotlib.figure import Figure

    style = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(13, 8.6), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        draw(figure, *args)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=140)
    print(f"\nPicture: {path}")


def _draw_cells(figure: Figure, gen: DiffusionGenerator, unseen: AnnData, synthetic: AnnData, label: str) -> None:
    from sklearn.decomposition import PCA

    from tabdiff.evaluation.cells import log_normalize

    real, drawn = log_normalize(unseen), log_normalize(synthetic)
    pca = PCA(2, svd_solver="full").fit(real)
    share = 100 * pca.explained_variance_ratio_
    axes = figure.subplot_mosaic(
        [["real"] * 5 + ["synthetic"] * 5 + ["legend"] * 3, ["means"] * 4 + ["zeros"] * 4 + ["loss"] * 5],
        height_ratios=[1.25, 1],
    )
    figure.suptitle(
        f"Blood cells that the model has not seen, and cells that it drew ({unseen.n_obs} each)", fontsize=14
    )
    order = list(unseen.obs[label].value_counts().index)
    for name, title, points, types in (
        ("real", "real, unseen half", pca.transform(real), unseen.obs[label]),
        ("synthetic", "synthetic, in the components of the real cells", pca.transform(drawn), synthetic.obs[label]),
    ):
        _scatter(axes[name], points, types, order)
        axes[name].set(title=title, xlabel=f"PC 1 ({share[0]:.0f} % of variance)", ylabel=f"PC 2 ({share[1]:.0f} %)")
    _share_limits(axes["real"], axes["synthetic"])
    handles, names = axes["real"].get_legend_handles_labels()
    axes["legend"].axis("off")
    axes["legend"].legend(
        handles, names, loc="center left", frameon=False, title="cell type", alignment="left", markerscale=1.6
    )

    means = [np.asarray(x.X.mean(axis=0)).ravel() for x in (unseen, synthetic)]
    zeros = [100 - 100 * np.asarray((x.X > 0).mean(axis=0)).ravel() for x in (unseen, synthetic)]
    both = (means[0] > 0) & (means[1] > 0)
    _agreement(axes["means"], means[0][both], means[1][both])
    axes["means"].set(
        title="mean count of each gene", xscale="log", yscale="log", xlabel="real, unseen half", ylabel="synthetic"
    )
    _agreement(axes["zeros"], *zeros)
    axes["zeros"].set(title="cells without a count of each gene (%)", xlabel="real, unseen half", ylabel="synthetic")
    _draw_loss(axes["loss"], gen)


def _draw_table(figure: Figure, gen: DiffusionGenerator, unseen: pd.DataFrame, synthetic: pd.DataFrame) -> None:
    axes = figure.subplot_mosaic(
        [["real"] * 6 + ["synthetic"] * 6, ["mass"] * 3 + ["flipper"] * 3 + ["islands"] * 3 + ["loss"] * 3],
        height_ratios=[1.25, 1],
    )
    figure.suptitle(
        f"Penguins that the model has not seen, and penguins that it drew ({len(unseen)} each)", fontsize=14
    )
    order = list(unseen["species"].cat.categories)
    for name, title, rows in (("real", "real, unseen half", unseen), ("synthetic", "synthetic", synthetic)):
        points = rows[["bill_length_mm", "bill_depth_mm"]].to_numpy(dtype=float, na_value=np.nan)
        _scatter(axes[name], points, rows["species"], order, size=34)
        axes[name].set(title=title, xlabel="bill length (mm)", ylabel="bill depth (mm)")
        axes[name].legend(loc="lower left", frameon=False)
    _share_limits(axes["real"], axes["synthetic"])

    for name, column, title in (
        ("mass", "body_mass_g", "body mass (g)"),
        ("flipper", "flipper_length_mm", "flipper length (mm)"),
    ):
        values = [rows[column].dropna().to_numpy(dtype=float) for rows in (unseen, synthetic)]
        bins = np.histogram_bin_edges(np.concatenate(values), bins=14)
        axes[name].hist(values[0], bins, color="#BBBBBB", label="real")
        axes[name].hist(values[1], bins, histtype="step", color=SYNTHETIC, linewidth=2, label="synthetic")
        axes[name].set(title=title, ylabel="birds")
        axes[name].set_ylim(top=1.25 * axes[name].get_ylim()[1])
        axes[name].legend(loc="upper right", frameon=False)
    _draw_islands(axes["islands"], unseen, synthetic)
    _draw_loss(axes["loss"], gen)


def _scatter(ax: Axes, points: np.ndarray, types: pd.Series, order: list, size: float = 16) -> None:
    for i, name in enumerate(order):
        rows = (types == name).to_numpy()
        ax.scatter(
            *points[rows].T,
            s=size,
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            alpha=0.85,
            linewidths=0,
            label=str(name),
        )


def _share_limits(first: Axes, second: Axes) -> None:
    for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        limits = [getattr(ax, get)() for ax in (first, second)]
        for ax in (first, second):
            getattr(ax, put)(min(low for low, _ in limits), max(high for _, high in limits))


def _agreement(ax: Axes, real: np.ndarray, synthetic: np.ndarray) -> None:
    ends = [min(real.min(), synthetic.min()), max(real.max(), synthetic.max())]
    ax.plot(ends, ends, color=REAL, linewidth=1, zorder=0, label="equal")
    ax.scatter(real, synthetic, s=9, color=SYNTHETIC, alpha=0.6, linewidths=0, label="a gene")
    ax.legend(loc="upper left", frameon=False)


def _draw_islands(ax: Axes, unseen: pd.DataFrame, synthetic: pd.DataFrame) -> None:
    """Draw the two tables of species by island side by side, in percent of birds."""
    species, islands = list(unseen["species"].cat.categories), list(unseen["island"].cat.categories)
    tables = [
        100
        * pd.crosstab(rows["species"], rows["island"], normalize="all").reindex(species, columns=islands, fill_value=0)
        for rows in (unseen, synthetic)
    ]
    gap = np.full((len(species), 1), np.nan)
    values = np.hstack([tables[0].to_numpy(), gap, tables[1].to_numpy()])
    ax.imshow(values, cmap="Greys", vmin=0, vmax=1.2 * np.nanmax(values), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value > 0.7 * np.nanmax(values) else "black"
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", color=color)
    ticks = [*range(len(islands)), *range(len(islands) + 1, 2 * len(islands) + 1)]
    ax.set_xticks(ticks, islands * 2, rotation=90)
    ax.set_yticks(range(len(species)), species)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for i, name in enumerate(("real", "synthetic")):
        ax.text((len(islands) - 1) / 2 + i * (len(islands) + 1), -0.62, name, ha="center", va="bottom")
    ax.set_title("species by island (% of birds)", pad=22)


def _draw_loss(ax: Axes, gen: DiffusionGenerator) -> None:
    gen.plot_loss(ax)
    ax.get_lines()[0].set(color=COLORS[1], linewidth=1.8)
    ax.set(title="training loss of the diffusion", xlabel="training step", ylabel="loss")
