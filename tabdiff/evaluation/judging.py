"""One call for every figure: a table, cells, images or sequences, beside what real and what trivial ones score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabdiff.codecs import is_anndata
from tabdiff.evaluation.cell_report import evaluate_cells
from tabdiff.evaluation.image_report import report_images
from tabdiff.evaluation.multimodal_report import evaluate_multimodal
from tabdiff.evaluation.report import Report
from tabdiff.evaluation.sequence_report import MAX_ROWS as MAX_SEQUENCES
from tabdiff.evaluation.sequence_report import evaluate_sequences, is_sequences
from tabdiff.evaluation.table_report import evaluate_table
from tabdiff.io.images import read_images
from tabdiff.io.modalities import Modalities, is_mudata

__all__ = ["evaluate"]

# Most cells or images of each side, where "auto" is asked for; tables have sizes of their own.
MAX_CELLS = 2_500
MAX_IMAGES = 5_000


def evaluate(
    real: Any,
    synthetic: Any,
    *,
    holdout: Any = None,
    target: Any = None,
    condition: str | Sequence[str] | None = None,
    complete: Callable[[Any], Any] | None = None,
    constraints: Sequence[str] = (),
    classifier: Callable[[], Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    features: Any = None,
    max_rows: int | str | None = "auto",
    random_state: int | None = 0,
) -> Report:
    """Judge synthetic data; see `tabdiff.evaluate`, which takes a model where this takes what is needed of one.

    Parameters
    ----------
    real, synthetic, holdout, target, condition
        As in `tabdiff.evaluate`.
    complete : callable, optional
        For tables: takes a frame with missing values and returns it with these filled.
    constraints : sequence of str, default=()
        For tables: declared rules, as in ``DiffusionGenerator(constraints=...)``.
    classifier, labels, features, max_rows, random_state
        As in `tabdiff.evaluate`.

    Returns
    -------
    report : Report

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import evaluate, independent_columns
    >>> penguins = load_penguins()
    >>> scores = evaluate(penguins, independent_columns(penguins)).to_frame().set_index("metric")
    >>> bool(scores.loc["trend_error", "synthetic"] > 2 * scores.loc["trend_error", "floor"])
    True

    Cells, here the first hundred of a set beside the second:

    >>> from tabdiff.datasets import load_pbmc68k_counts
    >>> cells = load_pbmc68k_counts()[:200, :50]
    >>> scores = evaluate(cells[:100], cells[100:], condition="bulk_labels").to_frame()
    >>> scores["metric"].to_list()[:3]
    ['rf_auc', 'rbf_mmd', 'wasserstein2']
    """
    frames = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    several = [name for name, frame in frames.items() if is_mudata(frame)]
    if several and len(several) < len(frames):
        other = next(name for name in frames if name not in several)
        raise TypeError(
            f"{several[0]} is a MuData, but {other} is of type {type(frames[other]).__name__}; give MuData."
        )
    if several:
        others = {
            "target": target,
            "classifier": classifier,
            "complete": complete,
            "labels": labels,
            "features": features,
        }
        _refuse(others, "is not for cells, and real is a MuData.")
        rows = MAX_CELLS if isinstance(max_rows, str) else max_rows
        parts = {name: Modalities.read(frame, name) for name, frame in frames.items()}
        return evaluate_multimodal(parts, condition, rows, random_state)
    if any(read_images(frame, name) is not None for name, frame in list(frames.items())[:2]):
        others = {"condition": condition, "target": target, "classifier": classifier, "complete": complete}
        _refuse(others, "is not for images; classes go to labels=, networks to features=.")
        most = MAX_IMAGES if isinstance(max_rows, str) else max_rows
        settings: dict[str, Any] = {"labels": labels, "features": features, "random_state": random_state}
        return report_images(real, synthetic, holdout=holdout, max_rows=most, **settings)
    _refuse({"labels": labels, "features": features}, f"is for images, but real is a {type(real).__name__}.")
    if is_sequences(real):
        others = {"condition": condition, "target": target, "classifier": classifier, "complete": complete}
        _refuse(others, "is not for sequences.")
        most = MAX_SEQUENCES if isinstance(max_rows, str) else max_rows
        return evaluate_sequences(real, synthetic, holdout=holdout, max_rows=most, random_state=random_state)
    cells = [name for name, frame in frames.items() if is_anndata(frame)]
    if cells and len(cells) < len(frames):
        other = next(name for name in frames if name not in cells)
        raise TypeError(f"{cells[0]} is an AnnData, but {other} is a {type(frames[other]).__name__}; give AnnData.")
    if not cells:
        if condition is not None:
            raise TypeError(f"condition={condition!r} is for AnnData and MuData; of a table all columns are compared.")
        return evaluate_table(
            real,
            synthetic,
            holdout=holdout,
            target=target,
            classifier=classifier,
            constraints=constraints,
            complete=complete,
            max_rows=max_rows,
            random_state=random_state,
        )
    others = {"target": target, "classifier": classifier, "complete": complete}
    _refuse(others, "is for tables, but real is an AnnData.")
    rows = MAX_CELLS if isinstance(max_rows, str) else max_rows
    return evaluate_cells(frames, condition, rows, random_state)


def _refuse(given: dict[str, Any], why: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise TypeError(f"{name}= {why}")
