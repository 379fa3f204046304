"""One call for every metric: a table, cells or images, beside what real ones and what a trivial baseline score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.codecs import is_anndata
from tabdiff.evaluation.cells import cell_scores, nb_baseline
from tabdiff.evaluation.frames import draw_rows
from tabdiff.evaluation.images import evaluate_images
from tabdiff.evaluation.tables import evaluate_table
from tabdiff.io.images import read_images

__all__ = ["evaluate"]

# Most rows that metrics whose cost grows with their square, or which need dense genes, look at.
MAX_ROWS, MAX_CELLS = 50_000, 5_000
# More distinct numbers than this in a condition are cut into bins, of which each is a type.
MOST_LEVELS, N_BINS = 20, 6
BETTER = {"rf_auc": "near 0.5", "zero_fraction_gap": "near 0"}


def evaluate(
    real: Any,
    synthetic: Any,
    *,
    condition: str | Sequence[str] | None = None,
    holdout: Any = None,
    target: Any = None,
    classifier: Callable[[], Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    features: Any = None,
    max_rows: int | str | None = "auto",
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Put every metric of synthetic rows, cells or images beside what real ones and what a trivial baseline score.

    Parameters
    ----------
    real : DataFrame, AnnData or images
        The rows, cells or images that the generator was fitted on.
    synthetic : DataFrame, AnnData or images
        Same columns, or same genes in the same order. Cells should have the composition of the real ones they are
        compared with, as ``gen.sample(like=holdout)`` draws them.
    condition : str or list of str, optional
        For cells: the obs columns that name their types. Numbers with more than 20 distinct values are cut into six
        bins that hold equally many real cells. Without it, metrics by type are left out.
    holdout : DataFrame, AnnData or images, optional
        Real rows that the generator has not seen. For a table they are the floor, and `dcr_share` and
        `downstream_score` exist with them only. Cells are compared with them, and `real` is the floor.
    target : column name, optional
        For tables: adds `downstream_score`, trained on `synthetic`, tested on `holdout`.
    classifier : callable, optional
        For tables: of `c2st`, returns an unfitted classifier.
    labels, features : optional
        For images: see `tabdiff.evaluation.evaluate_images`, whose metrics these are.
    max_rows : "auto", int or None, default="auto"
        Most rows of each table that classifier tests and distances use (`nearest_neighbour_ratio` always searches all
        of `real`), or most cells of each side; "auto" is 50,000 and 5,000. None: all, at a cost that grows with
        their square.
    random_state : int, optional
        The same number gives the same frame.

    Returns
    -------
    scores : DataFrame
        A row a metric, with columns

        - ``metric``: the name of its function in `tabdiff.evaluation`; errors and shares in percent;
        - ``synthetic``: its value;
        - ``floor``: what real rows score. For a table `holdout`, or without one a bootstrap of `real` (shape, trend
          and missingness) and one half of `real` against the other (the rest). For cells `real` against `holdout`,
          or without one a half of `real` against the other, with which the synthetic cells are compared too;
        - ``independent``: what independent columns or genes score: `independent_columns` of `real`; `nb_baseline` of
          `real`, or each gene's values by themselves, drawn from cells of the type, where `real` holds no counts;
        - ``better``: "lower", "higher", or the value that is best: "near 1", "near 50", "near 0.5", "near 0".

    Raises
    ------
    ValueError
        If columns or genes differ, a frame is empty, `target` comes without `holdout`, a condition is unknown, or only
        one side holds counts.
    TypeError
        For other containers, and for parameters that the container does not have.

    Notes
    -----
    Counts of cells are looked for as `DiffusionGenerator.fit` does: in ``layers["counts"]``, ``X`` and ``raw``.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import evaluate, independent_columns
    >>> penguins = load_penguins()
    >>> scores = evaluate(penguins, independent_columns(penguins)).set_index("metric")
    >>> scores["better"].to_dict()
    {'shape_error': 'lower', 'trend_error': 'lower', 'missingness_error': 'lower', 'c2st': 'higher',
     'lr_c2st': 'higher', 'alpha_precision': 'higher', 'beta_recall': 'higher', 'nearest_neighbour_ratio':
     'near 1'}
    >>> bool(scores.loc["trend_error", "synthetic"] > 2 * scores.loc["trend_error", "floor"])
    True

    Cells, here the first hundred of a set beside the second:

    >>> from tabdiff.datasets import load_pbmc68k_counts
    >>> cells = load_pbmc68k_counts()[:200, :50]
    >>> scores = evaluate(cells[:100], cells[100:], condition="bulk_labels").set_index("metric")
    >>> list(scores.index)
    ['rf_auc', 'rbf_mmd', 'wasserstein2', 'within_type_correlation', 'gene_correlation_agreement',
     'gene_mean_correlation', 'zero_fraction_gap', 'log_fold_change_error']
    """
    images = [read_images(frame, name) is not None for name, frame in (("real", real), ("synthetic", synthetic))]
    if any(images):
        for name, value in (("condition", condition), ("target", target), ("classifier", classifier)):
            if value is not None:
                raise TypeError(f"{name}= is not for images; classes go to labels=, networks to features=.")
        most = MAX_CELLS if isinstance(max_rows, str) else max_rows
        settings: dict[str, Any] = {"labels": labels, "features": features, "random_state": random_state}
        return evaluate_images(real, synthetic, holdout=holdout, max_rows=most, **settings)
    for name, value in (("labels", labels), ("features", features)):
        if value is not None:
            raise TypeError(f"{name}= is for images, but real is a {type(real).__name__}.")
    frames = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    cells = [name for name, frame in frames.items() if is_anndata(frame)]
    if cells and len(cells) < len(frames):
        other = next(name for name in frames if name not in cells)
        raise TypeError(f"{cells[0]} is an AnnData, but {other} is a {type(frames[other]).__name__}; give AnnData.")
    if not cells:
        if condition is not None:
            raise TypeError(f"condition={condition!r} is for AnnData; of a table all columns are compared.")
        rows = MAX_ROWS if isinstance(max_rows, str) else max_rows
        return evaluate_table(
            real,
            synthetic,
            holdout=holdout,
            target=target,
            classifier=classifier,
            max_rows=rows,
            random_state=random_state,
        )
    for name, value in (("target", target), ("classifier", classifier)):
        if value is not None:
            raise TypeError(f"{name}= is for tables, but real is an AnnData.")
    rows = MAX_CELLS if isinstance(max_rows, str) else max_rows
    return _evaluate_cells(frames, condition, rows, np.random.default_rng(random_state))


def _evaluate_cells(
    frames: dict[str, Any], condition: Any, max_rows: int | None, rng: np.random.Generator
) -> pd.DataFrame:
    names = list(frames["real"].var_names)
    for name, adata in frames.items():
        if list(adata.var_names) != names:
            fix = f"{name}[:, real.var_names]" if set(names) <= set(adata.var_names) else "the same genes"
            raise ValueError(f"{name} must have the genes of real in the same order; give {fix}.")
    found = {name: _expression(adata) for name, adata in frames.items()}
    counts = found["real"][1]
    for name, (_, is_counts) in found.items():
        if is_counts != counts:
            raise ValueError(
                f"real holds {'counts' if counts else 'no counts'}, but {name} {'does not' if counts else 'does'}; "
                "compare values of one kind."
            )
    types = _types(frames, condition)

    def some(name: str, most: int | None, rows: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
        matrix, labels = found[name][0], types[name]
        rows = np.arange(len(labels)) if rows is None else rows
        rows = rows[draw_rows(len(rows), most, rng)]
        return matrix[rows], labels[rows]

    first = None if "holdout" in frames else _random_half(types["real"], rng)
    reference = some("holdout", max_rows) if first is None else some("real", max_rows, np.flatnonzero(first))
    # No side has more cells than the reference: some metrics fall with the number of cells alone.
    n = len(reference[1])
    floor = some("real", n, None if first is None else np.flatnonzero(~first))
    train = some("real", max_rows)
    known = reference[1][np.isin(reference[1], train[1])]
    seed = int(rng.integers(2**31))
    independent = (_independent_counts if counts else _independent_values)(*train, known, seed)
    sides = {"synthetic": some("synthetic", n), "floor": floor, "independent": (independent, known)}

    def scores(matrix: Any, labels: np.ndarray) -> dict[str, float]:
        by: dict[str, Any] = {} if condition is None else {"real_labels": reference[1], "synthetic_labels": labels}
        return cell_scores(reference[0], matrix, seed=seed, **by)

    table = pd.DataFrame({name: scores(*side) for name, side in sides.items()}).rename_axis("metric").reset_index()
    default = {m: "higher" if "correlation" in m else "lower" for m in table["metric"]}
    table["better"] = [BETTER.get(m, default[m]) for m in table["metric"]]
    return table


def _expression(adata: Any) -> tuple[Any, bool]:
    """The matrix that a fit would model, and whether it holds counts."""
    from tabdiff.io.expression import find_expression, in_memory

    matrix, _, is_counts = find_expression(adata, None)
    return in_memory(matrix), is_counts


def _types(frames: dict[str, Any], condition: Any) -> dict[str, np.ndarray]:
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


def _random_half(types: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of a random half of each type."""
    order = np.lexsort((rng.random(len(types)), types))
    half = np.zeros(len(types), dtype=bool)
    half[order[::2]] = True
    return half


def _independent_counts(matrix: Any, types: np.ndarray, wanted: np.ndarray, seed: int) -> Any:
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
