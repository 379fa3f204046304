"""The pictures of a report, in colours that people with any common colour blindness tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.frames import is_numeric
from tabdiff.evaluation.meanings import distance_from_best, meaning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "draw_all",
    "draw_columns",
    "draw_neighbours",
    "draw_one",
    "draw_pairs",
    "draw_scores",
    "draw_tells",
]

# Okabe and Ito's colours: they keep apart in the dark and in the light.
REAL, SYNTHETIC, BASELINE = "#7f7f7f", "#E69F00", "#56B4E9"
INK = {"light": "#222222", "dark": "#dddddd"}


def draw_one(drawing: Any, ink: str = INK["light"]) -> Figure:
    """Draw one picture on a transparent ground, its lines and letters in a colour."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.labelcolor": ink,
    }
    with matplotlib.rc_context(style):
        # Not of pyplot, which would keep every figure alive.
        figure = Figure(figsize=drawing.size, layout="constrained")
        drawing.draw(figure, **drawing.data)
    return figure


def draw_all(drawings: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw every picture, by name."""
    return {name: draw_one(drawing) for name, drawing in drawings.items()}


def draw_scores(figure: Figure, scores: pd.DataFrame) -> None:
    """Each figure between the baseline, at 0, and the real floor, at 1."""
    axes = figure.subplots()
    worsts = {i: distance_from_best(r["independent"], r["better"], r["floor"]) for i, r in scores.iterrows()}
    # Where the baseline is as good as real rows, there is nothing between them.
    rows = [row for i, row in scores.iterrows() if np.isfinite(worsts[i]) and worsts[i] > 0][::-1]
    for y, row in enumerate(rows):
        worst = distance_from_best(row["independent"], row["better"], row["floor"])

        def place(value: float, row: Any = row, worst: float = worst) -> float:
            away = distance_from_best(value, row["better"], row["floor"]) / worst
            return float(np.clip(1 - away, -0.15, 1.0))

        ends = sorted(place(row[c]) for c in ("low", "high") if np.isfinite(row[c]))
        if len(ends) == 2:
            axes.plot(ends, [y, y], color=SYNTHETIC, linewidth=3, alpha=0.45, solid_capstyle="butt")
        if np.isfinite(row["synthetic"]):
            axes.plot([place(row["synthetic"])], [y], "o", color=SYNTHETIC, markersize=5)
    axes.axvline(0, color=BASELINE, linewidth=1.2)
    axes.axvline(1, color=REAL, linewidth=1.2)
    axes.set_yticks(range(len(rows)), [meaning(row["metric"]).title for row in rows])
    axes.set_xticks([0, 1], ["baseline", "real rows"])
    axes.set_xlim(-0.2, 1.08)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _counts(values: pd.Series, levels: list[Any]) -> list[float]:
    text = values.astype(object).where(values.notna(), "missing").map(str)
    return [float((text == level).mean()) for level in levels]


def draw_columns(figure: Figure, real: pd.DataFrame, synthetic: pd.DataFrame) -> None:
    """Histograms of columns, synthetic over real."""
    n = real.shape[1]
    wide = min(4, n)
    grid = figure.subplots(-(-n // wide), wide, squeeze=False)
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, real.columns, strict=False):
        a, b = real[name], synthetic[name]
        if is_numeric(a):
            x, y = (_values(v) for v in (a, b))
            if len(x) and len(y):
                low, high = np.quantile(x, [0.005, 0.995])
                edges = np.linspace(low, high if high > low else low + 1, 25)
                for values, color, filled in ((x, REAL, True), (y, SYNTHETIC, False)):
                    shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
                    axes.stairs(shares, edges, color=color, fill=filled, alpha=0.55 if filled else 1, linewidth=1.2)
                if pd.api.types.is_datetime64_any_dtype(a.dtype):
                    axes.set_xticks([])
        else:
            text = a.astype(object).where(a.notna(), "missing").map(str)
            levels = list(text.value_counts().index[:8])
            places = np.arange(len(levels))
            axes.bar(places - 0.2, _counts(a, levels), 0.4, color=REAL, alpha=0.7)
            axes.bar(places + 0.2, _counts(b, levels), 0.4, color=SYNTHETIC)
            axes.set_xticks(places, [_short(v, 7) for v in levels], rotation=60, ha="right", fontsize=6)
        axes.set_title(_short(str(name), 22))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelsize=6)
    _legend(figure, {"real": REAL, "synthetic": SYNTHETIC})


def _values(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.dt.tz_localize(None) if column.dt.tz is not None else column
        return column.dropna().astype("int64").to_numpy(dtype="float64")
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dropna().dt.total_seconds().to_numpy()
    return pd.to_numeric(column, errors="coerce").dropna().to_numpy(dtype="float64")


def _short(text: str, n: int) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"


def _legend(figure: Figure, colors: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(colors), fontsize=7)


def draw_pairs(figure: Figure, errors: pd.DataFrame) -> None:
    """Errors of pairs of columns as a heat map."""
    axes = figure.subplots()
    values = errors.to_numpy()
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    shown = axes.imshow(values, cmap="cividis_r", vmin=0, vmax=max(top, 1.0))
    names = [_short(str(c), 14) for c in errors.columns]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, label="error, %")
    bar.outline.set_visible(False)


def draw_tells(figure: Figure, columns: pd.DataFrame) -> None:
    """By which columns the classifier tells rows."""
    axes = figure.subplots()
    rows = columns[::-1]
    places = np.arange(len(rows))
    axes.barh(places, rows["auc lost"].clip(lower=0), color=SYNTHETIC, height=0.6)
    axes.set_yticks(places, [_short(str(c), 26) for c in rows["column"]])
    axes.set_xlabel("AUC that the classifier loses without the column")
    axes.tick_params(axis="y", length=0)


def draw_neighbours(figure: Figure, synthetic: np.ndarray, unseen: np.ndarray, independent: np.ndarray) -> None:
    """Distances to the nearest training row, as distribution functions."""
    axes = figure.subplots()
    for values, color, name in (
        (unseen, REAL, "unseen real rows"),
        (synthetic, SYNTHETIC, "synthetic rows"),
        (independent, BASELINE, "independent columns"),
    ):
        values = np.sort(values[np.isfinite(values)])
        if len(values):
            axes.plot(values, np.arange(1, len(values) + 1) / len(values), color=color, label=name, linewidth=1.6)
    axes.set_xlabel("distance to the nearest training row")
    axes.set_ylabel("share of rows")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")
