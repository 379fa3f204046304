"""The pictures of a report of cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tabdiff.evaluation.figures import REAL, SYNTHETIC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Plane", "draw_curve", "draw_map"]

# Paul Tol's "muted" scheme; grey for all other types.
COLORS = (
    *("#CC6677", "#332288", "#44AA99", "#999933", "#88CCEE"),
    *("#882255", "#117733", "#DDCC77", "#AA4499", "#777777"),
)


@dataclass
class Plane:
    """Where cells lie in a plane: found when first asked for, and kept.

    Attributes
    ----------
    real, synthetic : ndarray of shape (n, k)
        Principal components of cells.
    """

    real: np.ndarray
    synthetic: np.ndarray

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Places (n, 2) of either, and the name of the axes."""
        return _plane(self.real, self.synthetic)


def _plane(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Put cells (n, k) in a plane: UMAP fitted on both, or the first two components where it is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        return real[:, :2], synthetic[:, :2], "PC"
    import warnings

    both = np.concatenate([real, synthetic])
    if len(both) < 20:
        return real[:, :2], synthetic[:, :2], "PC"
    with warnings.catch_warnings():
        # That a seed costs it its threads is no news to whoever asked for the same picture twice.
        warnings.simplefilter("ignore")
        placed = UMAP(n_neighbors=min(15, len(both) - 1), random_state=0).fit_transform(both)
    return placed[: len(real)], placed[len(real) :], "UMAP"


def draw_map(figure: Figure, plane: Plane, labels: tuple[Any, Any]) -> None:
    """Real cells beside synthetic ones on the same axes, by type."""
    first, second, kind = plane.places
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    names, counts = np.unique(labels[0], return_counts=True)
    shown = names[np.argsort(-counts, kind="stable")][: len(COLORS) - 1]
    for axes, places, types, title in zip(grid, (first, second), labels, ("real", "synthetic"), strict=True):
        for name, color in zip([*shown, None], [*COLORS[: len(shown)], COLORS[-1]], strict=True):
            rows = ~np.isin(types, shown) if name is None else types == name
            if rows.any():
                text = ("others" if name is None else str(name)) if title == "real" and len(names) > 1 else None
                axes.scatter(*places[rows, :2].T, s=3, color=color, label=text, linewidths=0, alpha=0.8)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{kind} 1")
    grid[0].set_ylabel(f"{kind} 2")
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=3, fontsize=6, markerscale=3)


def draw_curve(figure: Figure, real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray], against: str) -> None:
    """Variance or share of zeros of each gene against its mean."""
    axes = figure.subplots()
    for genes, color, name in ((real, REAL, "real"), (synthetic, SYNTHETIC, "synthetic")):
        axes.scatter(genes["mean"], genes[against], s=4, color=color, label=name, linewidths=0, alpha=0.6)
    axes.set_xlabel("mean of log-normalised expression")
    axes.set_ylabel({"variance": "variance", "zeros": "share of zeros"}[against])
    if against == "variance":
        axes.set_yscale("log")
        axes.set_xscale("log")
    axes.legend(markerscale=3)
