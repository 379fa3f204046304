"""Tables of the README and of docs/benchmarks, made from results/, so that they cannot differ from them.

    python benchmarks/pages.py            # write what has changed
    python benchmarks/pages.py --check    # write nothing; end with 1 where something would change

What stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->`` is made here. On a page of
docs/benchmarks it is what ``python benchmarks/NAME.py --table`` prints; BLOCKS has the others.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from harness import HERE, RESULTS, markdown, read_results

ROOT = HERE.parent
PAGES = ROOT / "docs" / "benchmarks"
BLOCK = re.compile(r"(?<=<!-- results: )([\w-]+)( -->\n)(.*?)(?=<!-- end of results -->)", re.DOTALL)
ARGUMENTS = {"imputation": ["--max-time", "90"]}  # beside --table
TABLES = {
    "adult": "Adult",
    "default": "Default",
    "shoppers": "Shoppers",
    "magic": "Magic",
    "beijing": "Beijing",
    "diabetes130": "Diabetes130",
}
# XGB-C2ST as TabPC's paper reports it, for its own method and for TabDiff as its authors re-ran it.
PUBLISHED = {
    "TabDiff (paper, hours on a GPU)": (0.841, 0.591, 0.736, 0.773, 0.772, 0.562),
    "TabPC (paper)": (0.855, 0.262, 0.894, 0.860, 0.570, 0.792),
}


def short(value: float | None, digits: int = 3) -> str:
    """A figure between -1 and 1 without the zero before its point, "–" for none."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def printed(name: str) -> str:
    """What the script of this name prints with --table, with headings below that of the section."""
    script = importlib.import_module(name)
    arguments = [f"{name}.py", "--table", *ARGUMENTS.get(name, [])]
    with patch.object(sys, "argv", arguments), contextlib.redirect_stdout(io.StringIO()) as out:
        script.main()
    return out.getvalue().strip("\n")


def table_scores(system: str, metric: str) -> list[float | None]:
    """Means over seeds, a value for each of TABLES."""
    rows = read_results(RESULTS / "tables.jsonl")
    found = [[r[metric] for r in rows if r["system"] == system and r["table"] == t and metric in r] for t in TABLES]
    return [float(np.mean(values)) if values else None for values in found]


def six_tables() -> str:
    lines = []
    rows = {
        "**tabdiff**, five minutes of one slow core": table_scores("tabdiff", "c2st_xgb"),
        "**tabdiff**, larger network, ten minutes of two cores": table_scores("tabdiff_large", "c2st_xgb"),
        **PUBLISHED,
        "real holdout (floor)": table_scores("holdout", "c2st_xgb"),
        "TabularARGN (mostlyai-engine, run here)": table_scores("mostlyai", "c2st_xgb"),
        "CTGAN (run here, five minutes of one slow core)": table_scores("ctgan", "c2st_xgb"),
        "independent columns": table_scores("independent", "c2st_xgb"),
    }
    for name, values in rows.items():
        judged = name.startswith("**") or name in PUBLISHED
        lines.append([name, *map(short, values), short(float(np.mean(values)), 2) if judged else ""])
    return "\n".join(markdown(["", *TABLES.values(), "mean"], lines))


def six_tables_errors() -> str:
    ratios = {}
    for metric in ("shape_error", "trend_error"):
        ours, reference = (table_scores(s, metric) for s in ("tabdiff", "bootstrap"))
        ratios[metric] = [a / b for a, b in zip(ours, reference)]
    least, most = ([short(f(ratios[m]), 2) for m in ratios] for f in (min, max))
    return wrapped(
        f"Shape errors are {least[0]} to {most[0]} times those of a bootstrap of the real rows, trend errors "
        f"{least[1]} to {most[1]} times."
    )


def cells_told() -> str:
    """How well a random forest tells cells of three systems from real ones, over all sets."""
    rows = read_results(RESULTS / "cells.jsonl")

    def between(system: str) -> tuple[str, str]:
        sets = {r["task"] for r in rows}
        means = [
            np.mean([r["rf_auc"] for r in rows if (r["system"], r["task"]) == (system, s) and "rf_auc" in r])
            for s in sets
        ]
        return short(min(means), 2), short(max(means), 2)

    ours, scvi, independent = map(between, ("tabdiff", "scvi_prior", "nb"))
    sizes, sets = {r["cells"] for r in rows if "cells" in r}, {r["task"] for r in rows}
    return wrapped(
        f"On {len(sets)} sets of {min(sizes):,} to {max(sizes):,} cells (`python benchmarks/cells.py`), a random "
        f"forest tells drawn from real cells with an AUC of {ours[0]} to {ours[1]}; scVI's prior is told with "
        f"{scvi[0]} to {scvi[1]}, independent negative binomials with {independent[0]} to {independent[1]}."
    )


def cells_unseen() -> str:
    """Cells of types that were never stimulated, by the challenge's metrics and between the ends of its scale."""
    script = importlib.import_module("cell_eval")
    found = script.values(read_results(RESULTS / "cell_eval.jsonl"))
    shown = {"tabdiff": "tabdiff", "shift": "mean response", "replicate": "half of the real cells"}
    lines = [[title, *(short(found[s][m], 2) for m in script.METRICS)] for s, title in shown.items()]
    base, best = found["shift"], found["replicate"]
    scores = [script.scaled(found["tabdiff"][m], m, base[m], best[m]) for m in script.METRICS]
    lines.append(["tabdiff's score", *(short(round(x, 2) + 0.0, 2) for x in scores)])
    marked = [f"{title} {'↓' if m in script.ERRORS else '↑'}" for m, title in script.METRICS.items()]
    return "\n".join(markdown(["", *marked], lines))


def digits(metric: str) -> int:
    """How many digits `tabdiff demo` prints of a score."""
    if "%" in metric or "Wasserstein" in metric:
        return 1
    return 2 if "distance" in metric else 3


def demo(kind: str) -> str:
    found = [r for r in read_results(RESULTS / "demo.jsonl") if r["demo"] == kind]
    scores = found[-1]["scores"]
    columns = list(scores["columns"])
    lines = []
    for metric, values in zip(scores["index"], scores["data"]):
        shown = []
        for column, value in zip(columns, values):
            whole = column == "ideal" and value is not None and float(value).is_integer()
            shown.append(f"{value:.0f}" if whole else short(value, digits(metric)))
        lines.append([metric, *shown])
    return "\n".join(markdown(["", *columns], lines))


BLOCKS: dict[str, Callable[[], str]] = {
    "six-tables": six_tables,
    "six-tables-errors": six_tables_errors,
    "cells-told": cells_told,
    "cells-unseen": cells_unseen,
    "demo-cells": lambda: demo("cells"),
    "demo-table": lambda: demo("table"),
}


def filled(text: str) -> str:
    """The text with each of its blocks made anew."""

    def block(match: re.Match[str]) -> str:
        name, opening, _ = match.groups()
        made = BLOCKS[name]() if name in BLOCKS else printed(name)
        # An empty line ends the comment, without which a table is part of it.
        return f"{name}{opening}\n{made}\n\n"

    return BLOCK.sub(block, text)


def files() -> list[Path]:
    return [ROOT / "README.md", *sorted(PAGES.glob("*.md"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where something would change")
    check = parser.parse_args().check
    changed = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            changed.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in changed:
        print(f"{path.relative_to(ROOT)}: {'differs from the results' if check else 'written'}")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
