"""Scores of `tabdiff demo` and `tabdiff demo --table`, which stand in the README.

    python benchmarks/demo.py    # both, into results/demo.jsonl, and their pictures into docs/images

Seed 0, one thread, the default settings; under a minute for both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from harness import HERE, RESULTS, provenance, write_result

from tabdiff.cli.demo import demo_cells, demo_table

PICTURES = HERE.parent / "docs" / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "demo.jsonl")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind, run in (("table", demo_table), ("cells", demo_cells)):
            scores = json.loads(run(folder).to_json(orient="split"))
            row = {
                "demo": kind,
                "seed": 0,
                "scores": scores,
                **provenance("tabdiff", "torch", "scikit-learn", "pandas"),
            }
            write_result(args.results, row, lambda r: (r["demo"], r["seed"]))
            picture = Path(folder) / f"tabdiff-demo-{kind}.png"
            (PICTURES / f"demo-{kind}.png").write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
