"""A report: figures beside what real rows and what a trivial baseline score, what gives rows away, pictures, a page."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.meanings import distance_from_best, meaning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Drawing", "Report", "compare", "finish_scores"]


@dataclass(frozen=True)
class Drawing:
    """A picture that is drawn when it is asked for.

    Attributes
    ----------
    draw : callable
        Takes a matplotlib figure and the data.
    data : dict
        Keyword arguments of `draw`.
    alt : str
        What is to be seen, for those who do not see it.
    size : tuple of two floats
        Width and height in inches.
    """

    draw: Callable[..., None]
    data: dict[str, Any]
    alt: str
    size: tuple[float, float] = (7.0, 3.6)


@dataclass(frozen=True, eq=False)
class Report:
    """What `tabdiff.evaluate` and `tabdiff.privacy_report` return.

    Parameters
    ----------
    kind : {"table", "cells", "images", "sequences", "privacy"}
        What was judged.
    scores : DataFrame
        What `to_frame` returns, a row a figure.
    details : dict of str to DataFrame
        What gives the rows away, by name: see `tabdiff.evaluate`.
    findings : list of str
        The same in plain sentences, the most important first.
    sizes : dict of str to str
        How many rows of what each group of figures was computed on.
    drawings : dict of str to Drawing
        What `figures` draws.
    name : str
        Of the synthetic data, for `compare`.
    fingerprint : str
        Of the real data, by which `compare` knows that reports belong together.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import evaluate, independent_columns
    >>> penguins = load_penguins()
    >>> report = evaluate(penguins, independent_columns(penguins))
    >>> report.to_frame().columns.to_list()
    ['metric', 'synthetic', 'low', 'high', 'floor', 'independent', 'better', 'meaning']
    >>> sorted(report.details)
    ['columns', 'missing', 'pairs', 'rows', 'telling pairs', 'triples', 'utility']
    """

    kind: str
    scores: pd.DataFrame
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    sizes: dict[str, str] = field(default_factory=dict)
    drawings: dict[str, Drawing] = field(default_factory=dict)
    name: str = "synthetic"
    fingerprint: str = ""

    def to_frame(self) -> pd.DataFrame:
        """Return the figures, a row each.

        Returns
        -------
        scores : DataFrame
            Columns "metric", "synthetic", "low" and "high" (a 95 % interval of it), "floor" (what real rows score), the
            baselines, "better" ("lower", "higher" or the best value, as "near 1") and "meaning".
        """
        return self.scores.copy()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as plain lists, numbers and strings, fit for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "scores": _records(self.scores),
            "details": {name: _records(table) for name, table in self.details.items()},
            "findings": list(self.findings),
            "sizes": dict(self.sizes),
            "fingerprint": self.fingerprint,
        }

    def named(self, name: str) -> Report:
        """Return the report under another name, by which `compare` lists it."""
        return replace(self, name=str(name))

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Matplotlib figures by name, drawn afresh; needs matplotlib.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from tabdiff.evaluation.figures import draw_all

        return draw_all(self.drawings)

    def to_html(self, path: str | os.PathLike | None = None) -> str:
        """Write the report as one page that needs nothing else, and return it as text.

        It is readable on phones, in the dark and in print, its tables sort by a click on a column's name, its pictures
        have texts for those who do not see them, and it asks for nothing from outside. Without matplotlib it has no
        pictures.

        Parameters
        ----------
        path : path-like, optional
            Where to; a file that is there already is replaced. None writes nothing.

        Returns
        -------
        html : str
        """
        from tabdiff.evaluation.page import render
        from tabdiff.io.atomic import replacing

        text = render(self)
        if path is not None:
            with replacing(Path(path)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return text

    def _repr_html_(self) -> str:
        from tabdiff.evaluation.page import render_notebook

        return render_notebook(self)

    def __repr__(self) -> str:
        table = self.scores.drop(columns=["meaning"], errors="ignore")
        text = table.assign(
            **{c: [figure(v) for v in table[c]] for c in table.columns if pd.api.types.is_float_dtype(table[c])}
        ).to_string(index=False)
        lines = [f"- {finding}" for finding in self.findings]
        return "\n".join([text, "", *lines]) if lines else text


def figure(value: Any) -> str:
    """Return a figure in about three digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float | np.floating):
        return str(value)
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    decimals = 1 if size >= 10 else 2 if size >= 2 else 3
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return text if size < 1e6 else f"{value:.3g}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str) else str(value)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    # By position: names of a table's own columns may repeat those put before them.
    columns = [[_plain(v) for v in table.iloc[:, j].astype(object)] for j in range(table.shape[1])]
    names = [str(c) for c in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def finish_scores(columns: dict[str, dict[str, float]], intervals: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Put figures of several sides and the intervals of the synthetic ones into the frame of a report."""
    table = pd.DataFrame(columns, dtype="float64").rename_axis("metric").reset_index()
    order = list(columns["synthetic"])
    table = table.set_index("metric").loc[order].reset_index()
    low, high = zip(*(intervals.get(m, (math.nan, math.nan)) for m in order), strict=True)
    table.insert(2, "low", [max(a, meaning(m).low) for a, m in zip(low, order, strict=True)])
    table.insert(3, "high", [min(b, meaning(m).high) for b, m in zip(high, order, strict=True)])
    table["better"] = [meaning(m).better for m in order]
    table["meaning"] = [meaning(m).text for m in order]
    return table


def compare(reports: Sequence[Report]) -> pd.DataFrame:
    """Rank several synthetic data sets by their reports against the same real data.

    Parameters
    ----------
    reports : sequence of Report
        Of one kind and of the same real data. ``report.named("...")`` gives a report its name in the table.

    Returns
    -------
    table : DataFrame
        A row a report, the best first. The index is their names; "rank" is the mean over figures of the report's rank
        in it, where whatever is better than the real floor is as good as it (copies beat real rows in many figures),
        and those within each other's interval share a rank; then the figures themselves.

    Raises
    ------
    ValueError
        For no reports, or ones of several kinds or several real data sets.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import compare, evaluate, independent_columns
    >>> penguins = load_penguins()
    >>> fresh, other = penguins.sample(200, random_state=0), independent_columns(penguins, 200)
    >>> reports = [evaluate(penguins, other).named("independent"), evaluate(penguins, fresh).named("rows of it")]
    >>> compare(reports).index.to_list()
    ['rows of it', 'independent']
    """
    reports = list(reports)
    if not reports:
        raise ValueError("compare needs at least one report, got none.")
    for what in ("kind", "fingerprint"):
        found = {getattr(report, what) for report in reports}
        if len(found) > 1:
            word = "kinds of data" if what == "kind" else "real data sets"
            raise ValueError(f"reports must be of one kind and of the same real data; got {len(found)} {word}.")
    frames = [report.to_frame().set_index("metric") for report in reports]
    metrics = [m for m in frames[0].index if all(m in frame.index for frame in frames)]
    names = [report.name for report in reports]
    if len(set(names)) < len(names):
        names = [f"{name} {i + 1}" for i, name in enumerate(names)]
    ranks = pd.DataFrame(index=names)
    for metric in metrics:
        rows = [frame.loc[metric] for frame in frames]
        distance = np.array([_distance(row, row["synthetic"]) for row in rows])
        # A tie reaches as far as the intervals do.
        width = np.array([max(row["high"] - row["low"], 0.0) / 2 for row in rows])
        width = np.nan_to_num(width)
        if np.isnan(distance).all():
            continue
        better = (distance[None, :] + width[None, :] < distance[:, None]) & ~np.isnan(distance)[None, :]
        ranks[metric] = 1 + better.sum(axis=1)
    out = pd.DataFrame({m: [frame.loc[m, "synthetic"] for frame in frames] for m in metrics}, index=names)
    out.insert(0, "rank", ranks.mean(axis=1))
    return out.sort_values("rank", kind="stable").rename_axis("name")


def _distance(row: pd.Series, value: float) -> float:
    return distance_from_best(float(value), row["better"], float(row.get("floor", math.nan)))
