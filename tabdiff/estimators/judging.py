"""How good and how private are synthetic data: `evaluate` and `privacy_report`, with a fitted model if one is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tabdiff import evaluation
from tabdiff.evaluation import Report
from tabdiff.evaluation.privacy import audit
from tabdiff.generation.membership import denoising_losses

__all__ = ["evaluate", "privacy_report"]


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
    real : DataFrame, AnnData, MuData, images or sequences
        What the generator was fitted on.
    synthetic : DataFrame, AnnData, MuData, images or sequences
        Same columns, or same genes in the same order (of each modality). Cells should have the composition of the real
        ones they are compared with, as ``gen.sample(like=holdout)`` draws them.
    holdout : optional
        Real data that the generator has not seen. Of a table, images or sequences they are the floor, and `dcr_share`
        and figures of the target exist with them only. Cells are compared with them, and `real` is the floor.
    target : column name, optional
        For tables: a model of this column is learned on `synthetic` and tested on `holdout`.
    condition : str or list of str, optional
        For cells: the columns of obs that name their types. Numbers with more than 20 distinct values are cut into six
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
        "auto" is 20,000 rows for classifiers, 10,000 for coverage and 50,000 for shapes (``report.sizes`` says what was
        used), 2,500 cells, 5,000 images and 10,000 sequences. None: all, at a cost that grows with their square.
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
        "rules", "missing", "utility" and example "rows"; of cells "types" and "genes"; of sequences "runs". Of a MuData
        figures and details of a modality have its name in brackets, "rf_auc (rna)".
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
            "complete": lambda rows: model.impute(rows, strategy="draw", random_state=seed),
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


def privacy_report(
    synthetic: Any,
    train: Any,
    holdout: Any,
    model: Any = None,
    *,
    secrets: Sequence[Any] | None = None,
    max_rows: int = 2_000,
    random_state: int | None = 0,
) -> Report:
    """Audit what synthetic data tell about the rows that trained their model.

    Every attack is run on the synthetic data and on three controls: fresh real rows (a third of `holdout`), which must
    pass, and a bootstrap of `train` and SMOTE, which must fail. Where a control comes out wrong, the report says so.

    Parameters
    ----------
    synthetic : DataFrame, AnnData or images
        What is to be published; with the columns or genes of `train`, or images of its size.
    train : DataFrame, AnnData or images
        What the generator was fitted on, all of it.
    holdout : DataFrame, AnnData or images
        Real data of the same kind that it has not seen, the more the better: of 100 rows no attack can be judged at one
        false alarm in a hundred. A third each are the rows that must not be recognised, rows that the attacker knows,
        and the fresh ones.
    model : DiffusionGenerator, optional
        The fitted model: adds what somebody sees who has it. For tables, arrays and images.
    secrets : list of column names, optional
        Columns that an attacker would guess; by default five, drawn at random.
    max_rows : int, default=2000
        Most training rows that attacks are tried on.
    random_state : int, optional
        The same number gives the same report.

    Returns
    -------
    report : Report
        ``to_frame()`` has a row a figure: exact and near copies; AUC and true-positive rates at 1 and 10 % false
        positives of membership inference by distance, relative distance, density ratio, classifier and, with `model`,
        its losses; a lower bound on epsilon; the risks of singling out, linking and inferring. Beside "synthetic",
        "low" and "high" stand the controls, and "verdict" is "passes" or "fails". ``report.details`` has the
        "controls", "copies", "disclosure" and the most "exposed" training rows, by position;
        ``report.findings`` says it in words.

    Raises
    ------
    ValueError
        If columns differ, or `train` or `holdout` has fewer than 60 rows.
    TypeError
        For other containers, and for models of cells and sequences.

    Notes
    -----
    An audit finds what its attacks find, and proves nothing about others. That no synthetic row lies near a training
    row is no proof either: membership inference breaks data that pass every test of distances (Yao et al., *The DCR
    Delusion*, 2025).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tabdiff import privacy_report
    >>> rng = np.random.default_rng(0)
    >>> train, holdout = (pd.DataFrame(rng.normal(size=(600, 4)), columns=list("abcd")) for _ in range(2))
    >>> report = privacy_report(train.sample(600, replace=True, random_state=0), train, holdout)
    >>> report.details["controls"].set_index("data")["verdict"].to_dict()
    {'synthetic': 'fails', 'fresh real': 'passes', 'bootstrap': 'fails', 'SMOTE': 'fails'}
    """
    losses = None
    if model is not None:
        check_is_fitted(model)
        if (kind := model.model_.container) in ("cells", "multimodal", "sequences"):
            raise TypeError(
                f"model must be of a table, an array or images, for its losses to be attacked; got one of {kind}. "
                "Leave it out to audit the rows alone."
            )

        def losses(rows: Any) -> np.ndarray:
            return denoising_losses(model.model_, *model._scored_rows(rows, None, "privacy_report"))

    return audit(
        synthetic, train, holdout, losses=losses, secrets=secrets, max_rows=max_rows, random_state=random_state
    )
