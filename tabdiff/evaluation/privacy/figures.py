"""The pictures of an audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tabdiff.evaluation.figures import BASELINE, REAL, SYNTHETIC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_controls", "draw_roc"]

COLORS = (SYNTHETIC, BASELINE, "#009E73", "#CC79A7", "#D55E00", "#0072B2")


def draw_roc(figure: Figure, attacks: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """True against false positives of each attack, where few false ones matter."""
    axes = figure.subplots()
    for (name, (members, others)), color in zip(attacks.items(), COLORS, strict=False):
        thresholds = np.unique(np.concatenate([members, others]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), thresholds, side="left") / len(s) for s in (others, members)]
        axes.plot(*rates, color=color, label=name, linewidth=1.3)
    low = 1 / max(len(others) for _, others in attacks.values())
    line = np.geomspace(low, 1, 50)
    axes.plot(line, line, "--", color=REAL, linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, 1)
    axes.set_ylim(low, 1.05)
    axes.set_xlabel("unseen rows taken for training rows")
    axes.set_ylabel("training rows recognised")
    axes.legend(fontsize=7)


def draw_controls(figure: Figure, sides: dict[str, float]) -> None:
    """The best attack on the synthetic data and on the controls."""
    axes = figure.subplots()
    names = list(sides)[::-1]
    places = np.arange(len(names))
    colors = [SYNTHETIC if name == "synthetic" else REAL for name in names]
    axes.barh(places, [sides[name] - 0.5 for name in names], left=0.5, color=colors, height=0.6)
    axes.axvline(0.5, color=BASELINE, linewidth=1.2)
    axes.set_yticks(places, names)
    axes.set_xlim(0.4, 1)
    axes.set_xlabel("AUC of the best attack")
    axes.tick_params(axis="y", length=0)
