"""The pictures of ``tabdiff demo``: what is real beside what was drawn, and the loss."""

from __future__ import annotations

import importlib.util
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

__all__ = ["draw_cells", "draw_images", "draw_sequences", "draw_table", "write_picture"]

# Paul Tol's "muted" scheme, which people with any common colour blindness can tell apart; grey completes ten.
COLORS = (
    *("#CC6677", "#332288", "#44AA99", "#999933", "#88CCEE"),
    *("#882255", "#117733", "#DDCC77", "#AA4499", "#777777"),
)
MARKERS = ("o", "s", "^", "D", "v")
BASES = {"A": "#117733", "C": "#332288", "G": "#DDAA33", "T": "#CC6677"}
REAL, SYNTHETIC = "#555555", "#EE7733"


def write_picture(path: Path, draw: Any, *args: Any) -> None:
    """Write what `draw` draws onto a figure, or say what is missing for that.

    Parameters
    ----------
    path : Path
        Where to; a file that is there already is replaced.
    draw : callable
        Takes the figure and `args`.
    *args
    """
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


def draw_cells(figure: Figure, gen: DiffusionGenerator, unseen: AnnData, synthetic: AnnData, label: str) -> None:
    """Draw cells by type in their principal components, means and zeros of genes, and the loss.

    Parameters
    ----------
    figure : Figure
    gen : DiffusionGenerator
    unseen, synthetic : AnnData
    label : str
        The column of types.
    """
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


def draw_table(figure: Figure, gen: DiffusionGenerator, unseen: pd.DataFrame, synthetic: pd.DataFrame) -> None:
    """Draw bills of penguins by species, two histograms, species by island, and the loss.

    Parameters
    ----------
    figure : Figure
    gen : DiffusionGenerator
    unseen, synthetic : DataFrame
    """
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


def draw_images(
    figure: Figure,
    gen: DiffusionGenerator,
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
    classes: tuple[np.ndarray, np.ndarray],
    halves: tuple[np.ndarray, np.ndarray, list[np.ndarray]],
) -> None:
    """Draw digits by class, halves that were completed, and drawn ones beside the nearest that were fitted.

    Parameters
    ----------
    figure : Figure
    gen : DiffusionGenerator
    images : tuple of ndarray
        Fitted, unseen and drawn ones, each (n, 8, 8).
    classes : tuple of ndarray
        Of the unseen and of the drawn ones.
    halves : tuple
        Unseen images (10, 8, 8), where they are hidden (8, 8), and the draws that complete them.
    """
    train, unseen, drawn = images
    axes = figure.subplot_mosaic(
        [["real"] * 6 + ["synthetic"] * 6, ["halves"] * 4 + ["nearest"] * 4 + ["loss"] * 4], height_ratios=[1.55, 1]
    )
    figure.suptitle("Digits that the model has not seen, and digits that it drew", fontsize=14)
    for name, title, some, labels in (
        ("real", "real, unseen half", unseen, classes[0]),
        ("synthetic", "synthetic, by the class that was asked for", drawn, classes[1]),
    ):
        chosen = [some[labels == k][:14] for k in range(10)]
        _tiles(axes[name], np.stack(chosen), title)
        axes[name].set_yticks([9 * k + 4 for k in range(10)], [str(k) for k in range(10)])
    given, hidden, filled = halves
    shown = np.stack([given, np.where(hidden, 128, given), *filled])
    _tiles(axes["halves"], shown, "right half hidden, and completed three times")
    axes["halves"].set_yticks([9 * k + 4 for k in range(5)], ["real", "given", "drawn", "drawn", "drawn"])
    some = np.stack([drawn[classes[1] == k][0] for k in range(10)])
    apart = ((some.astype(float)[:, None] - train.astype(float)) ** 2).sum(axis=(2, 3))
    nearest = np.argsort(apart, axis=1)[:, :4]
    _tiles(
        axes["nearest"], np.stack([some, *(train[nearest[:, j]] for j in range(4))]), "drawn, and the nearest fitted"
    )
    names = ["drawn", "fitted", "fitted", "fitted", "fitted"]
    axes["nearest"].set_yticks([9 * k + 4 for k in range(5)], names)
    _draw_loss(axes["loss"], gen)


def draw_sequences(
    figure: Figure,
    gen: DiffusionGenerator,
    real: tuple[np.ndarray, np.ndarray],
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    """Draw sequence logos by kind, which places depend on each other, lengths, and the loss.

    Parameters
    ----------
    figure : Figure
    gen : DiffusionGenerator
    real, drawn : tuple of ndarray
        Strings and their kinds.
    """
    axes = figure.subplot_mosaic(
        [
            ["promoter real"] * 6 + ["promoter drawn"] * 6,
            ["background real"] * 6 + ["background drawn"] * 6,
            ["real"] * 3 + ["drawn"] * 3 + ["lengths"] * 3 + ["loss"] * 3,
        ],
        height_ratios=[1, 1, 1.5],
    )
    figure.suptitle(
        f"Promoters that the model has not seen, and promoters that it drew ({len(real[0])} each)", fontsize=14
    )
    for name, (strings, kinds) in (("real", real), ("drawn", drawn)):
        title = "real, unseen half" if name == "real" else "synthetic"
        for kind in ("promoter", "background"):
            _draw_logo(axes[f"{kind} {name}"], strings[kinds == kind])
            axes[f"{kind} {name}"].set(title=f"{kind}, {title}", ylabel="bits")
        dependence = _dependence(strings)
        ends = (0.5, len(dependence) + 0.5)  # places are counted from 1
        axes[name].imshow(dependence, cmap="Greys", vmin=0, vmax=1.0, extent=(*ends, *ends[::-1]))
        axes[name].set(title=f"dependent places, {title.partition(',')[0]}", xlabel="place", ylabel="place")
    lengths = sorted({len(s) for strings, _ in (real, drawn) for s in strings})
    for shift, color, (strings, _), name in ((-0.2, "#BBBBBB", real, "real"), (0.2, SYNTHETIC, drawn, "synthetic")):
        shares = [100 * np.mean([len(s) == n for s in strings]) for n in lengths]
        axes["lengths"].bar(np.arange(len(lengths)) + shift, shares, 0.4, color=color, label=name)
    axes["lengths"].set_xticks(range(len(lengths)), [str(n) for n in lengths])
    axes["lengths"].set(title="lengths (% of strings)", ylim=(0, 100))
    axes["lengths"].legend(frameon=False, loc="upper left")
    _draw_loss(axes["loss"], gen)


def _tiles(ax: Axes, images: np.ndarray, title: str) -> None:
    """Draw images (rows, columns, h, w) beside each other."""
    rows, columns, height, width = images.shape
    sheet = np.full((rows, height + 1, columns, width + 1), np.nan)
    sheet[:, :height, :, :width] = images.transpose(0, 2, 1, 3)
    ax.imshow(sheet.reshape(rows * (height + 1), -1)[:-1, :-1], cmap="gray_r", vmin=0, vmax=255)
    ax.set(title=title, xticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _places(strings: np.ndarray) -> np.ndarray:
    """One-hot letters (n, longest, 4); zeros beyond the end."""
    longest = max(map(len, strings))
    padded = np.array([list(s.ljust(longest)) for s in strings])
    return (padded[:, :, None] == np.array(list("ACGT"))).astype(float)


def _draw_logo(ax: Axes, strings: np.ndarray) -> None:
    """Draw letters as high as their share of the information of their place (Schneider and Stephens, 1990)."""
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    counts = _places(strings).sum(axis=0)
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits = 2 + (shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    for place, (heights, order) in enumerate(zip(shares * bits[:, None], np.argsort(shares, axis=1))):
        below = 0.0
        for k in order:
            if heights[k] < 0.01:
                continue
            letter = TextPath((0, 0), "ACGT"[k], size=1, prop={"weight": "bold"})
            box = letter.get_extents()
            move = Affine2D().translate(-box.x0, -box.y0).scale(0.9 / box.width, heights[k] / box.height)
            move.translate(place + 0.55, below)
            ax.add_patch(PathPatch(letter, transform=move + ax.transData, color=BASES["ACGT"[k]], linewidth=0))
            below += heights[k]
    ax.set(xlim=(0, len(bits) + 1), ylim=(0, 2))
    ax.set_xticks([1, *range(5, len(bits) + 1, 5)])


def _dependence(strings: np.ndarray) -> np.ndarray:
    """Mutual information of each two places, in bits, (longest, longest)."""
    places = _places(strings)
    length = places.shape[1]
    found = np.zeros((length, length))
    for i in range(length):
        for j in range(i):
            joint = places[:, i].T @ places[:, j]
            joint /= joint.sum()
            product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            seen = joint > 0
            found[i, j] = found[j, i] = (joint[seen] * np.log2(joint[seen] / product[seen])).sum()
    return found


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
