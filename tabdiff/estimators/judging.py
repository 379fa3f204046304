"""How good are synthetic data: `evaluate`, with a fitted model where one is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from tabdiff import evaluation
from tabdiff.evaluation import Report

__all__ = ["evaluate"]


def evaluate(
    real: Any,
    synthetic: Any,
    *,
    holdout: Any = None,
    target: Any = None,
    condition: str | Sequence[str] | None = None,
    model: Any = None,
    classifier: Callable[[], Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    features: Any = None,
    max_rows: int | str | None = "auto",
    random_state: int | None = 0,
) -> Report:
    """Judge synthetic rows, cells, images or sequences: every figure beside what real and what trivial ones score.

    Parameters
    ----------
    real : DataFrame, AnnData, images or sequences
        What the generator was fitted on.
    synthetic : DataFrame, AnnData, images or sequences
        Same columns, or same genes in the same order. Cells should have the composition of the real ones they are
        compared with, as ``gen.sample(like=holdout)`` draws them.
    holdout : optional
        Real data that the generator has not seen. Of a table, images or sequences they are the floor, and `dcr_share`
        and figures of the target exist with them only. Cells are compared with them, and `real` is the floor.
    target : column name, optional
        For tables: a model of this column is learned on `synthetic` and tested on `holdout`.
    condition : str or list of str, optional
        For cells: the obs columns that name their types. Numbers with more than 20 distinct values are cut into six
        bins that hold equally many real cells. Without it, figures by type are left out.
    model : DiffusionGenerator, optional
        For tables: the fitted model. Adds how good rows are of which it was given a share of the cells, and checks the
        constraints that it was told.
    classifier : callable, optional
        For tables: of `c2st`, returns an unfitted classifier.
    labels, features : optional
        For images: see `tabdiff.evaluation.evaluate_images`, whose figures these are.
    max_rows : "auto", int or None, default="auto"
        Most rows of each table that classifiers and distances use, or most cells, images or sequences of each side.
        "auto" is 20,000 rows for classifiers and 10,000 for coverage (``report.sizes`` says what was used), 2,500
        cells, 5,000 images and 10,000 sequences. None: all, at a cost that grows with their square.
    random_state : int, optional
        The same number gives the same report.

    Returns
    -------
    report : Report
        ``to_frame()`` has a row a figure, with the columns

        - "metric": the name of its function in `tabdiff.evaluation`; errors and shares in percent;
        - "synthetic", "low", "high": its value, and a 95 % interval over resamples of the rows;
        - "floor": what real rows score. For a table `holdout`, or without one a bootstrap of `real` (shapes, pairs,
          triples and missing values) and one half of `real` against the other (the rest). For cells `real` against
          `holdout`, or without one a half of `real` against the other, with which the synthetic cells are compared too;
        - "independent": what independent columns or genes score: `independent_columns` of `real`; `nb_baseline` of
          `real`, or each gene's values by themselves, drawn from cells of the type, where `real` holds no counts;
        - "better": "lower", "higher", or the value that is best, as "near 1";
        - "meaning": a line that says what it means.

        ``report.details`` says what gives rows away: of a table "columns", "pairs", "telling pairs", "triples",
        "rules", "missing", "utility" and example "rows"; of cells "types" and "genes"; of sequences "runs".
        ``report.to_html("report.html")`` writes a page, ``report.figures`` has the pictures, and
        `tabdiff.evaluation.compare` ranks several reports.

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
    >>> from tabdiff import evaluate
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import independent_columns
    >>> penguins = load_penguins()
    >>> report = evaluate(penguins, independent_columns(penguins))
    >>> scores = report.to_frame().set_index("metric")
    >>> bool(scores.loc["trend_error", "synthetic"] > 2 * scores.loc["trend_error", "floor"])
    True
    >>> report.details["columns"].columns.to_list()
    ['column', 'synthetic', 'floor', 'independent', 'auc lost', 'auc alone']
    """
    from_model: dict[str, Any] = {}
    if model is not None:
        check_is_fitted(model)
        if model.model_.container not in ("table", "array"):
            raise TypeError(f"model= is for tables, but it was fitted on {model.model_.container}.")
        seed = 0 if random_state is None else int(random_state)
        from_model = {
            "complete": lambda rows: model.impute(rows, random_state=seed),
            "constraints": tuple(model.constraints or ()),
        }
    return evaluation.evaluate(
        real,
        synthetic,
        holdout=holdout,
        target=target,
        condition=condition,
        classifier=classifier,
        labels=labels,
        features=features,
        max_rows=max_rows,
        random_state=random_state,
        **from_model,
    )
