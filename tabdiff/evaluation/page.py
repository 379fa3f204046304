"""A report as one page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.meanings import MEANINGS, distance_from_best, meaning

if TYPE_CHECKING:
    from tabdiff.evaluation.report import Report

__all__ = ["render", "render_notebook"]

TITLES = {
    "table": "How good is the synthetic table?",
    "cells": "How real are the synthetic cells?",
    "images": "How good are the synthetic images?",
    "sequences": "How good are the synthetic sequences?",
    "privacy": "How private are the synthetic data?",
}
# Titles of details, and a line that says what they are; in this order.
DETAILS = {
    "columns": ("Columns", "Error of each column's distribution in percent, and how much the classifier needs it."),
    "pairs": ("Pairs of columns", "The pairs whose dependence is furthest off, error in percent."),
    "telling pairs": ("Pairs that tell", "Pairs of columns by which rows are told, though neither tells alone."),
    "triples": ("Three columns at a time", "Where the joint distribution of three columns is furthest off, percent."),
    "rules": ("Rules", "Rules that real rows keep, and the percentage of rows that break each."),
    "missing": ("Missing values", "Which columns are missing together in a row, percent of the rows."),
    "utility": ("Each column from the others", "How well a column is predicted by what is learned on these rows."),
    "rows": ("Example rows", "The synthetic rows that the classifier is surest of, and the column it is so sure by."),
    "types": ("Types", "Cells, markers and fold changes of each type."),
    "genes": ("Genes", "Genes whose mean is furthest off."),
    "runs": ("Runs of letters", "Runs of three letters whose frequency is furthest off."),
    "membership": ("Membership inference", "How well each attack tells training rows from unseen ones."),
    "controls": ("Controls", "The same attacks on data of which the answer is known."),
    "disclosure": ("Singling out, linking, inferring", "What an attacker gains from the synthetic data over chance."),
    "copies": ("Copies", "Synthetic rows that equal or nearly equal a real one, beside what chance gives."),
    "exposed": ("Most exposed rows", "Training rows, by index, that attacks recognise most surely."),
}
BESIDE = {
    "privacy": "Each beside what the same attack finds in fresh real rows, which must pass, and in a bootstrap and "
    "SMOTE, which must fail.",
    "others": "Each beside what real rows score (the floor) and what a trivial baseline scores.",
}
HOW = "Low and high are a 95&nbsp;% interval. A click on a column's name sorts by it."
DPI, WIDE = 110, 150
# Rows of a table of details, and letters of a cell.
MAX_DETAIL_ROWS, MAX_LETTERS = 60, 80


def _asset(name: str) -> str:
    return resources.files("tabdiff.evaluation").joinpath("assets", name).read_text(encoding="utf-8")


def render(report: Report) -> str:
    """Return a whole page."""
    title = f"{TITLES[report.kind]} {report.name if report.name != 'synthetic' else ''}".strip()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('report.css')}</style>\n</head>\n"
        f'<body class="tabdiff-page">\n{_body(report, title, pictures=True)}\n'
        f"<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def render_notebook(report: Report) -> str:
    """Return the page's content for the output of a notebook's cell."""
    return (
        f"<style>{_asset('report.css')}</style>{_body(report, TITLES[report.kind], pictures=True)}"
        f"<script>{_asset('report.js')}</script>"
    )


def _body(report: Report, title: str, *, pictures: bool) -> str:
    parts = ['<main class="tabdiff-report">', f"<h1>{escape(title)}</h1>"]
    if report.findings:
        items = "".join(f"<li>{escape(finding)}</li>" for finding in report.findings)
        parts.append(f'<ul class="findings">{items}</ul>')
    parts.append("<h2>Figures</h2>")
    parts.append(f'<p class="soft">{BESIDE["privacy" if report.kind == "privacy" else "others"]} {HOW}</p>')
    parts.append(_scores(report.scores))
    if pictures and report.drawings:
        shown = _pictures(report)
        if shown:
            parts += ["<h2>Pictures</h2>", *shown]
    if report.details:
        parts.append("<h2>What gives the rows away</h2>" if report.kind != "privacy" else "<h2>Details</h2>")
        # The name may go on in brackets, as of a modality.
        places = {name: k for k, name in enumerate(DETAILS)}
        order = sorted(report.details, key=lambda name: places.get(name.partition(" (")[0], len(places)))
        for k, name in enumerate(order):
            base, bracket, rest = name.partition(" (")
            head, text = DETAILS.get(base, (base, ""))
            head += bracket + rest
            parts.append(
                f"<details{' open' if k == 0 else ''}><summary>{escape(head)}</summary>"
                f'<p class="soft">{escape(text)}</p>{_table(report.details[name])}</details>'
            )
    if report.sizes:
        items = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in report.sizes.items())
        parts.append(f'<h2>On how many rows</h2><ul class="soft">{items}</ul>')
    parts.append("</main>")
    return "\n".join(parts)


def _figure(value: Any) -> str:
    from tabdiff.evaluation.report import figure

    return figure(value)


def _cell(value: Any, name: str, extra: str = "") -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if number:
        plain = "" if not math.isfinite(value) else repr(float(value))
        text = _figure(float(value)) if isinstance(value, float | np.floating) else f"{value:,}"
    else:
        text = "–" if value is None or value is pd.NA or value is pd.NaT else str(value)
        text = text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 1] + "…"
        plain = text
    classes = " ".join(c for c in ("number" if number else "", extra) if c)
    attribute = f' class="{classes}"' if classes else ""
    return f'<td{attribute} data-name="{escape(name)}" data-value="{escape(plain)}">{escape(text)}</td>'


def _head(names: list[str], numbers: list[bool]) -> str:
    cells = (
        f'<th scope="col"{" class=" + chr(34) + "number" + chr(34) if number else ""}>'
        f'<button type="button">{escape(name)}</button></th>'
        for name, number in zip(names, numbers, strict=True)
    )
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _scores(scores: pd.DataFrame) -> str:
    names = [str(c) for c in scores.columns]
    numbers = [pd.api.types.is_float_dtype(scores[c]) for c in scores.columns]
    rows = []
    for _, row in scores.iterrows():
        known = str(row["metric"]).partition(" (")[0] in MEANINGS
        cells = []
        for name in names:
            value, extra = row[name], ""
            if name == "metric" and known:
                value = meaning(str(value)).title
            elif name == "synthetic":
                extra = " ".join(("own", _verdict(row)))
            elif name == "meaning":
                extra = "meaning"
            if name == "meaning":
                cells.append(
                    f'<td class="meaning" data-name="" data-value="{escape(str(value))}">{escape(str(value))}</td>'
                )
            else:
                cells.append(_cell(value, name, extra.strip()))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="scroll"><table class="scores sortable">'
        f"{_head(names, numbers)}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _verdict(row: pd.Series) -> str:
    """Green where the floor is within reach, red where the figure is no better than the baseline."""
    if "verdict" in row.index:
        return {"passes": "good", "fails": "bad"}.get(row["verdict"], "")
    if "floor" not in row.index or not np.isfinite(row["floor"]):
        return ""
    away = [distance_from_best(v, row["better"], row["floor"]) for v in (row["synthetic"], row["low"], row["high"])]
    away = [a for a in away if np.isfinite(a)]
    if not away:
        return ""
    if min(away) <= 0:
        return "good"
    worst = (
        distance_from_best(row["independent"], row["better"], row["floor"]) if "independent" in row.index else np.nan
    )
    return "bad" if np.isfinite(worst) and worst > 0 and away[0] >= worst else ""


def _table(table: pd.DataFrame) -> str:
    shown = table.head(MAX_DETAIL_ROWS)
    if not isinstance(shown.index, pd.RangeIndex):
        shown = pd.concat([pd.Series(shown.index, index=shown.index, name=shown.index.name or "row"), shown], axis=1)
    names = [str(c) for c in shown.columns]
    numbers = [
        pd.api.types.is_numeric_dtype(shown.iloc[:, j].dtype) and not pd.api.types.is_bool_dtype(shown.iloc[:, j].dtype)
        for j in range(shown.shape[1])
    ]
    columns = [list(shown.iloc[:, j].astype(object)) for j in range(shown.shape[1])]
    rows = [
        f"<tr>{''.join(_cell(v, n) for v, n in zip(row, names, strict=True))}</tr>"
        for row in zip(*columns, strict=True)
    ]
    body = f"<tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="sortable">{_head(names, numbers)}{body}</table></div>'


def _pictures(report: Report) -> list[str]:
    try:
        from tabdiff.evaluation.figures import INK, draw_one
    except ImportError:
        return []
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        return ['<p class="soft">For pictures, install matplotlib: pip install matplotlib</p>']
    out = []
    for name, drawing in report.drawings.items():
        data = {theme: _png(draw_one(drawing, ink)) for theme, ink in INK.items()}
        width, height = (round(side * DPI) for side in drawing.size)
        out.append(
            '<figure><picture><source media="screen and (prefers-color-scheme: dark)" '
            f'srcset="{data["dark"]}"><img src="{data["light"]}" width="{width}" height="{height}" '
            f'alt="{escape(drawing.alt)}"></picture><figcaption><b>{escape(name.capitalize())}.</b> '
            f"{escape(drawing.alt)}</figcaption></figure>"
        )
    return out


def _png(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=WIDE, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
