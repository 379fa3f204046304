"""The report of single cells: figures beside a real half and a baseline without dependence; markers, curves, maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from tabdiff.evaluation import cell_figures
from tabdiff.evaluation.cell_summary import cell_scores
from tabdiff.evaluation.cells import forest_aucs, nb_baseline
from tabdiff.evaluation.expression import log_normalize, principal_components
from tabdiff.evaluation.frames import draw_rows
from tabdiff.evaluation.intervals import Z, jackknife
from tabdiff.evaluation.markers import expression_scores, fold_changes, markers, rank_genes
from tabdiff.evaluation.report import Drawing, Report, finish_scores
from tabdiff.utils.fingerprint import array_digest

__all__ = ["cell_types", "evaluate_cells", "expression", "independent_counts", "random_half"]

# More distinct numbers than this in a condition are cut into bins, of which each is a type.
MOST_LEVELS, N_BINS = 20, 6
# Cells of the forests, whose cost grows with genes and cells, of the intervals, and of the maps.
INTERVAL_CELLS, INTERVAL_GROUPS, MAP_CELLS, PLOTTED_GENES = 1_500, 5, 1_500, 2_000


def evaluate_cells(
    frames: dict[str, Any], condition: Any, max_rows: int | None, random_state: int | None = 0
) -> Report:
    """Score cells; see `tabdiff.evaluate`."""
    rng = np.random.default_rng(random_state)
    names = list(frames["real"].var_names)
    for name, adata in frames.items():
        if list(adata.var_names) != names:
            fix = f"{name}[:, real.var_names]" if set(names) <= set(adata.var_names) else "the same genes"
            raise ValueError(f"{name} must have the genes of real in the same order; give {fix}.")
    found = {name: expression(adata) for name, adata in frames.items()}
    counts = found["real"][1]
    for name, (_, is_counts) in found.items():
        if is_counts != counts:
            raise ValueError(
                f"real holds {'counts' if counts else 'no counts'}, but {name} {'does not' if counts else 'does'}; "
                "compare values of one kind."
            )
    types = cell_types(frames, condition)

    def some(name: str, most: int | None, rows: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
        matrix, labels = found[name][0], types[name]
        rows = np.arange(len(labels)) if rows is None else rows
        rows = rows[draw_rows(len(rows), most, rng)]
        return matrix[rows], labels[rows]

    first = None if "holdout" in frames else random_half(types["real"], rng)
    reference = some("holdout", max_rows) if first is None else some("real", max_rows, np.flatnonzero(first))
    # No side has more cells than the reference: some metrics fall with the number of cells alone.
    n = len(reference[1])
    floor = some("real", n, None if first is None else np.flatnonzero(~first))
    train = some("real", max_rows)
    known = reference[1][np.isin(reference[1], train[1])]
    seed = int(rng.integers(2**31))
    independent = independent_counts(*train, known, seed, counts=counts)
    sides = {"synthetic": some("synthetic", n), "floor": floor, "independent": (independent, known)}
    by_type = condition is not None

    def scores(real: tuple[Any, np.ndarray], cells: tuple[Any, np.ndarray]) -> dict[str, float]:
        labels: dict[str, Any] = {"real_labels": real[1], "synthetic_labels": cells[1]} if by_type else {}
        return cell_scores(real[0], cells[0], seed=seed, **labels) | _more(real, cells)

    def _more(real: tuple[Any, np.ndarray], cells: tuple[Any, np.ndarray]) -> dict[str, float]:
        pair = log_normalize(real[0]), log_normalize(cells[0])
        return expression_scores(*pair, real[1] if by_type else None, cells[1] if by_type else None)

    columns = {name: scores(reference, side) for name, side in sides.items()}
    intervals = _intervals(reference, sides["synthetic"], by_type, columns["synthetic"], rng, seed)
    table = finish_scores(columns, intervals)
    details, drawings = _details(reference, sides, names, by_type, rng)
    sizes = {
        "all figures": f"{n:,} reference cells, {len(sides['synthetic'][1]):,} synthetic, {len(names):,} genes",
        "intervals": f"leaving a fifth of at most {INTERVAL_CELLS:,} cells out, five times; RF-AUC: over its forests",
    }
    matrix = found["real"][0]
    digest = array_digest(*((matrix.data, matrix.indices) if sparse.issparse(matrix) else (np.asarray(matrix),)))
    return Report("cells", table, details, _findings(table, details), sizes, drawings, fingerprint=digest)


def _intervals(
    reference: tuple[Any, np.ndarray],
    cells: tuple[Any, np.ndarray],
    by_type: bool,
    values: dict[str, float],
    rng: np.random.Generator,
    seed: int,
) -> dict[str, tuple[float, float]]:
    def again(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
        labels: dict[str, Any] = {"real_labels": reference[1][a], "synthetic_labels": cells[1][b]} if by_type else {}
        parts = (reference[0][a], cells[0][b])
        out = cell_scores(*parts, seed=seed, forest=False, **labels)
        pair = log_normalize(parts[0]), log_normalize(parts[1])
        return out | expression_scores(*pair, labels.get("real_labels"), labels.get("synthetic_labels"))

    sizes = [len(reference[1]), len(cells[1])]
    errors: dict[str, float] = {}
    if min(sizes) >= 4 * INTERVAL_GROUPS:
        errors = jackknife(again, sizes, rng, groups=INTERVAL_GROUPS, max_rows=INTERVAL_CELLS)
    aucs = forest_aucs(reference[0], cells[0], seed=seed, n_repeats=2, n_trees=50, max_cells=INTERVAL_CELLS)
    share = min(1.0, INTERVAL_CELLS / min(sizes))
    # Forests of one split share no cells to score; two splits are not independent of each other.
    errors["rf_auc"] = float(np.std(aucs, ddof=1) / np.sqrt(2) * np.sqrt(share))
    return {m: (values[m] - Z * e, values[m] + Z * e) for m, e in errors.items() if m in values}


def _details(
    reference: tuple[Any, np.ndarray],
    sides: dict[str, tuple[Any, np.ndarray]],
    names: list[str],
    by_type: bool,
    rng: np.random.Generator,
) -> tuple[dict[str, pd.DataFrame], dict[str, Drawing]]:
    real, synthetic = log_normalize(reference[0]), log_normalize(sides["synthetic"][0])
    genes = pd.DataFrame(
        {
            "gene": names,
            "mean (real)": real.mean(axis=0),
            "mean (synthetic)": synthetic.mean(axis=0),
            "zeros % (real)": 100 * (real == 0).mean(axis=0),
            "zeros % (synthetic)": 100 * (synthetic == 0).mean(axis=0),
        }
    )
    genes["difference"] = (genes["mean (synthetic)"] - genes["mean (real)"]).abs()
    details = {"genes": genes.sort_values("difference", ascending=False, ignore_index=True, kind="stable").head(50)}
    if by_type:
        details["types"] = _type_table(real, reference[1], synthetic, sides["synthetic"][1], names)
    rows = [draw_rows(len(x), MAP_CELLS, rng) for x in (real, synthetic)]
    chosen = draw_rows(len(names), PLOTTED_GENES, rng)
    curves = {
        side: {
            "mean": x[:, chosen].mean(axis=0),
            "variance": x[:, chosen].var(axis=0),
            "zeros": (x[:, chosen] == 0).mean(axis=0),
        }
        for side, x in (("real", real), ("synthetic", synthetic))
    }
    components = principal_components(real[rows[0]], synthetic[rows[1]], 30)
    drawings = {
        "map": Drawing(
            cell_figures.draw_map,
            {
                "plane": cell_figures.Plane(*components),
                "labels": (reference[1][rows[0]], sides["synthetic"][1][rows[1]]),
            },
            "Map (UMAP, or two principal components) of real cells beside synthetic ones on the same axes, by type.",
            (7.4, 3.8),
        ),
        "mean and variance": Drawing(
            cell_figures.draw_curve,
            {"real": curves["real"], "synthetic": curves["synthetic"], "against": "variance"},
            "Variance against mean of each gene, synthetic over real.",
            (3.7, 3.2),
        ),
        "dropout": Drawing(
            cell_figures.draw_curve,
            {"real": curves["real"], "synthetic": curves["synthetic"], "against": "zeros"},
            "Share of zeros against mean of each gene, synthetic over real.",
            (3.7, 3.2),
        ),
    }
    return details, drawings


def _type_table(
    real: np.ndarray, real_types: np.ndarray, synthetic: np.ndarray, other: np.ndarray, names: list[str]
) -> pd.DataFrame:
    """A row a type: how many cells, and which of its markers are kept and lost."""
    ranks = rank_genes(real, real_types), rank_genes(synthetic, other)
    changes = fold_changes(real, real_types), fold_changes(synthetic, other)
    rows = []
    for label, own in ranks[0].items():
        kept, lost = np.nan, ""
        if label in ranks[1]:
            top, ours = markers(own), markers(ranks[1][label])
            kept = len(set(top) & set(ours)) / max(len(top), 1)
            lost = ", ".join(names[g] for g in top if g not in set(ours))[:80]
        agreement = np.nan
        if label in changes[1] and min(changes[0][label].std(), changes[1][label].std()) > 0:
            agreement = float(np.corrcoef(changes[0][label], changes[1][label])[0, 1])
        counts = int((real_types == label).sum()), int((other == label).sum())
        rows.append((label, *counts, kept, agreement, lost))
    columns = ["type", "real cells", "synthetic cells", "markers kept", "fold changes", "markers lost"]
    return pd.DataFrame(rows, columns=columns).sort_values("markers kept", ignore_index=True, kind="stable")


def _findings(scores: pd.DataFrame, details: dict[str, pd.DataFrame]) -> list[str]:
    by = scores.set_index("metric")
    auc = by.loc["rf_auc"]
    out = [
        f"A random forest tells the cells from real ones with an AUC of {auc['synthetic']:.2f}; real cells score "
        f"{auc['floor']:.2f}, independent genes {auc['independent']:.2f} (.5: not at all)."
    ]
    if "marker_precision" in by.index and np.isfinite(by.loc["marker_precision", "synthetic"]):
        row = by.loc["marker_precision"]
        out.append(
            f"{100 * row['synthetic']:.0f} % of markers are kept; between real halves {100 * row['floor']:.0f} %."
        )
    if "types" in details and len(details["types"]):
        gone = details["types"][details["types"]["synthetic cells"] == 0]["type"]
        if len(gone):
            out.append(f"There are no synthetic cells of {', '.join(map(repr, gone[:5]))}.")
    return out


def expression(adata: Any) -> tuple[Any, bool]:
    """The matrix that a fit would model, and whether it holds counts."""
    from tabdiff.io.expression import find_expression, in_memory

    matrix, _, is_counts = find_expression(adata, None)
    return in_memory(matrix), is_counts


def cell_types(frames: dict[str, Any], condition: Any) -> dict[str, np.ndarray]:
    """Type of each cell of each frame: the columns of the condition, joined; one type without a condition."""
    if condition is None:
        return {name: np.zeros(adata.n_obs, dtype=int).astype(str) for name, adata in frames.items()}
    columns = [condition] if isinstance(condition, str) else list(condition)
    for name, adata in frames.items():
        unknown = [c for c in columns if c not in adata.obs]
        if unknown:
            raise ValueError(f"{name}.obs has no {unknown}; its columns are {list(adata.obs.columns)}.")
    parts: dict[str, list[pd.Series]] = {name: [] for name in frames}
    for column in columns:
        values = frames["real"].obs[column]
        number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        edges = None
        if number and values.nunique() > MOST_LEVELS:
            edges = np.unique(np.quantile(values.dropna(), np.linspace(0, 1, N_BINS + 1)[1:-1]))
        for name, adata in frames.items():
            own = adata.obs[column].reset_index(drop=True)
            # The same number is the same type whether it came as an integer or as a float.
            own = own.astype("float64") if number else own
            parts[name].append(own.astype(str) if edges is None else pd.Series(np.digitize(own, edges).astype(str)))
    return {name: np.asarray(pd.concat(part, axis=1).agg(" / ".join, axis=1)) for name, part in parts.items()}


def random_half(types: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of a random half of each type."""
    order = np.lexsort((rng.random(len(types)), types))
    half = np.zeros(len(types), dtype=bool)
    half[order[::2]] = True
    return half


def independent_counts(matrix: Any, types: np.ndarray, wanted: np.ndarray, seed: int, *, counts: bool = True) -> Any:
    """Cells of the wanted types, each feature drawn by itself: by `nb_baseline`, or its values if no counts."""
    if not counts:
        return _independent_values(matrix, types, wanted, seed)
    from anndata import AnnData

    train = AnnData(matrix, obs=pd.DataFrame({"type": types}, index=[str(i) for i in range(len(types))]))
    return nb_baseline(train, "type", labels=wanted, seed=seed).X


def _independent_values(matrix: Any, types: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Each gene's values drawn by themselves from cells of the wanted type."""
    rng = np.random.default_rng(seed)
    dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
    drawn = np.empty((len(wanted), dense.shape[1]), dtype=dense.dtype)
    for label in np.unique(wanted):
        own, rows = dense[types == label], np.flatnonzero(wanted == label)
        drawn[rows] = np.take_along_axis(own, rng.integers(len(own), size=(len(rows), dense.shape[1])), axis=0)
    return drawn
