"""The report of cells of several modalities: each by itself, and what features of two of them share."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.cell_report import cell_types, evaluate_cells, expression, independent_counts, random_half
from tabdiff.evaluation.expression import log_normalize, type_labels
from tabdiff.evaluation.frames import draw_rows
from tabdiff.evaluation.intervals import Z, jackknife
from tabdiff.evaluation.report import Report, finish_scores
from tabdiff.io.modalities import Modalities

__all__ = ["evaluate_multimodal", "modality_agreement"]

INTERVAL_GROUPS = 5

Pair = tuple[Any, Any]


def modality_agreement(
    real: Pair, synthetic: Pair, *, real_labels: Any = None, synthetic_labels: Any = None, n_features: int = 100
) -> float:
    """Agreement of correlations between features of two modalities, once each type's mean is taken away.

    Pearson correlation between the two matrices of correlations of a feature of the one modality with one of the other,
    of the `n_features` of each with the largest variance over real cells (log-normalised). Modalities that are
    independent inside each type score near 0.

    Parameters
    ----------
    real, synthetic : pair of arrays or sparse matrices of shapes (n_cells, n_features)
        Counts, or normalised values, of two modalities of the same cells.
    real_labels, synthetic_labels : array-like of shape (n_cells,)
        The type of each cell.
    n_features : int, default=100
        How many of the most variable features of each modality are compared.

    Returns
    -------
    float
        In [-1, 1]; the real other half is the ceiling, because correlations are estimated with noise.

    Raises
    ------
    ValueError
        If the modalities differ in their cells, or the two sides in their features.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import modality_agreement
    >>> rng = np.random.default_rng(0)
    >>> level = rng.gamma(2.0, 1.0, (200, 5))
    >>> genes, proteins = rng.poisson(9 * level), rng.poisson(30 * level[:, :3])
    >>> modality_agreement((genes, proteins), (genes, proteins)) > 0.99
    True
    >>> modality_agreement((genes, proteins), (genes, rng.permutation(proteins))) < 0.5
    True
    """
    sides, labels = [], []
    for name, pair, own in (("real", real, real_labels), ("synthetic", synthetic, synthetic_labels)):
        cells = [pair[0].shape[0], pair[1].shape[0]]
        if cells[0] != cells[1]:
            raise ValueError(f"{name} must be two modalities of the same cells; got {cells[0]} and {cells[1]} cells.")
        sides.append([log_normalize(x).astype(np.float64) for x in pair])
        labels.append(np.zeros(cells[0]) if own is None else type_labels(pair[0], own))
    for a, b in zip(*sides, strict=True):
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"both sides must have the same features; got {a.shape[1]} and {b.shape[1]}.")
    chosen = [np.sort(np.argsort(-x.var(axis=0))[:n_features]) for x in sides[0]]
    found = []
    for side, types in zip(sides, labels, strict=True):
        parts = []
        for x, features in zip(side, chosen, strict=True):
            x = x[:, features]
            for one in np.unique(types):
                x[types == one] -= x[types == one].mean(axis=0)
            scale = x.std(axis=0)
            parts.append(x / np.where(scale > 0, scale, 1.0))
        found.append((parts[0].T @ parts[1] / len(types)).ravel())
    if min(c.std() for c in found) == 0:
        return 0.0
    return float(np.corrcoef(found[0], found[1])[0, 1])


def evaluate_multimodal(
    frames: dict[str, Modalities], condition: Any, max_rows: int | None, random_state: int | None = 0
) -> Report:
    """Score cells of several modalities; see `tabdiff.evaluate`."""
    names = list(frames["real"].mod)
    for side, cells in frames.items():
        if list(cells.mod) != names:
            raise ValueError(f"{side} must have the modalities of real, {names}; got {list(cells.mod)}.")
    types = cell_types(frames, condition)
    reports = {}
    for name in names:
        own = {side: cells.mod[name].copy() for side, cells in frames.items()}
        for side, adata in own.items():
            adata.obs = pd.DataFrame({"type": types[side]}, index=adata.obs_names)
        reports[name] = evaluate_cells(own, None if condition is None else "type", max_rows, random_state)
    shared = [_shared(frames, types, pair, max_rows, random_state) for pair in combinations(names, 2)]
    scores = [r.scores.assign(metric=[f"{m} ({name})" for m in r.scores["metric"]]) for name, r in reports.items()]
    findings = [f"{name}: {text}" for name, report in reports.items() for text in report.findings]
    for table in shared:
        row = table.iloc[0]
        findings.insert(
            0,
            f"Correlations between {row['metric'].partition('(')[2].rstrip(')')} inside types agree with real ones by "
            f"{row['synthetic']:.2f}; those of real cells by {row['floor']:.2f}, of modalities drawn apart by "
            f"{row['independent']:.2f} (1: fully).",
        )
    return Report(
        "cells",
        pd.concat([*shared, *scores], ignore_index=True),
        {f"{key} ({name})": table for name, r in reports.items() for key, table in r.details.items()},
        findings,
        {f"{key} ({name})": text for name, r in reports.items() for key, text in r.sizes.items()},
        {
            f"{key} ({name})": replace(drawing, alt=f"{name}: {drawing.alt}")
            for name, r in reports.items()
            for key, drawing in r.drawings.items()
        },
        fingerprint=" ".join(report.fingerprint for report in reports.values()),
    )


def _shared(
    frames: dict[str, Modalities],
    types: dict[str, np.ndarray],
    pair: tuple[str, str],
    max_rows: int | None,
    random_state: int | None,
) -> pd.DataFrame:
    """What two modalities share, of synthetic cells, real ones, and modalities drawn apart."""
    rng = np.random.default_rng(random_state)
    found = {side: [expression(cells.mod[name]) for name in pair] for side, cells in frames.items()}

    def some(side: str, rows: np.ndarray, most: int | None) -> tuple[Pair, np.ndarray]:
        rows = rows[draw_rows(len(rows), most, rng)]
        return (found[side][0][0][rows], found[side][1][0][rows]), types[side][rows]

    everything = {side: np.arange(len(own)) for side, own in types.items()}
    if "holdout" in frames:
        reference = some("holdout", everything["holdout"], max_rows)
        floor = some("real", everything["real"], len(reference[1]))
    else:
        first = random_half(types["real"], rng)
        reference = some("real", np.flatnonzero(first), max_rows)
        floor = some("real", np.flatnonzero(~first), len(reference[1]))
    synthetic = some("synthetic", everything["synthetic"], len(reference[1]))
    known = reference[1][np.isin(reference[1], floor[1])]
    apart = tuple(
        independent_counts(matrix, floor[1], known, int(rng.integers(2**31)), counts=found["real"][i][1])
        for i, matrix in enumerate(floor[0])
    )

    def agreement(real: tuple[Pair, np.ndarray], cells: tuple[Pair, np.ndarray]) -> float:
        return modality_agreement(real[0], cells[0], real_labels=real[1], synthetic_labels=cells[1])

    metric = f"modality_agreement ({pair[0]} and {pair[1]})"
    sides = {"synthetic": synthetic, "floor": floor, "independent": (apart, known)}
    columns = {side: {metric: agreement(reference, cells)} for side, cells in sides.items()}

    def again(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
        parts = [((x[rows], y[rows]), t[rows]) for ((x, y), t), rows in ((reference, a), (synthetic, b))]
        return {metric: agreement(*parts)}

    sizes, intervals = [len(reference[1]), len(synthetic[1])], {}
    if min(sizes) >= 4 * INTERVAL_GROUPS:
        error = jackknife(again, sizes, rng, groups=INTERVAL_GROUPS)[metric]
        value = columns["synthetic"][metric]
        intervals[metric] = (value - Z * error, value + Z * error)
    return finish_scores(columns, intervals)
