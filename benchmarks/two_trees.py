"""Seconds of the same fits and draws by two trees of this package, in turns, to see what a change costs.

    git worktree add ../before COMMIT
    TABDIFF_DATA=/path python benchmarks/two_trees.py ../before        # Adult and digits, three turns

Each turn is a process of its own with one thread. Its seconds are those of the processor, which other work on the
machine changes less than those of the clock; the ratio is that of the smallest of each tree.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from harness import data_loader, markdown, run_child

HERE = Path(__file__).resolve().parents[1]
CASES: dict[str, dict[str, Any]] = {
    "adult": {"hidden_size": 512, "n_blocks": 4, "max_steps": 60, "refine": False, "autoguidance": 1.0},
    "digits": {"max_steps": 12},
}
ROWS = {"adult": 2000, "digits": 16}


def data(name: str) -> tuple[Any, dict[str, Any]]:
    """Return rows and what else `fit` is given."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images / 16, {"y": digits.target}
    frame, meta = data_loader().load_table(name, benchmark=True)  # of no module here, for they import from the tree
    return frame.iloc[meta["split"]["train"]].reset_index(drop=True), {}


def measure(name: str) -> dict[str, float]:
    """Seconds of the processor that a fit and a draw take in this process, after a short one to warm up."""
    import torch

    from tabdiff import DiffusionGenerator

    torch.set_num_threads(1)
    X, given = data(name)
    settings = {**CASES[name], "random_state": 0}
    DiffusionGenerator(**{**settings, "max_steps": 2}).fit(X, **given).sample(4)
    began = time.process_time()
    gen = DiffusionGenerator(**settings).fit(X, **given)
    fitted = time.process_time()
    gen.sample(ROWS[name], random_state=1)
    return {"fit": fitted - began, "sample": time.process_time() - fitted}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="the tree to compare this one with")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a case, measured in this process, and a file
    args = parser.parse_args()
    if args.one is not None:
        Path(args.one[1]).write_text(json.dumps(measure(args.one[0])), encoding="utf-8")
        return 0
    if args.other is None or not (args.other / "tabdiff").is_dir():
        print(f"OTHER must be a folder with a tree of this package; got {args.other}.", file=sys.stderr)
        return 1
    found: dict[tuple[str, str, str], list[float]] = {}
    draft = HERE / "benchmarks" / "results" / "two_trees.tmp"
    for _ in range(args.turns):
        for name in CASES:
            for side, tree in (("other", args.other.resolve()), ("this", HERE)):
                command = [str(Path(__file__).resolve()), "--one", name, str(draft)]
                error = run_child(sys.executable, command, threads=1, timeout=3600, tree=tree)
                if error is not None:
                    print(f"{name} of {tree}: {error}", file=sys.stderr)
                    return 1
                for what, seconds in json.loads(draft.read_text(encoding="utf-8")).items():
                    found.setdefault((name, what, side), []).append(seconds)
                draft.unlink()
    lines = []
    for name, what in dict.fromkeys(key[:2] for key in found):
        other, this = (min(found[name, what, side]) for side in ("other", "this"))
        lines.append([name, what, f"{other:.2f}", f"{this:.2f}", f"{this / other:.3f}"])
    print("\n".join(markdown(["data", "", "other, s", "this, s", "ratio"], lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
