"""Fits that are killed at random moments, taken up again, and compared with one that was not.

Each case is fitted once undisturbed. Then the same fit runs in a process that gets SIGKILL at a random moment, is
started again with ``resume_from=folder``, and so on until it ends by itself; as many fits as it takes for --kills
kills. The model, its history and the rows that it draws must be bit for bit those of the undisturbed fit.

    python benchmarks/kill.py                          # 20 kills of each case
    python benchmarks/kill.py --case cells --kills 5

Prints a JSON line for each case, and exits with 1 if anything differed. A checkpoint is written after each step; kills
that left one half-written are counted as `while_writing`. Needs a system with fork: Linux or macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tabdiff import MLP, DiffusionGenerator, TrainingOptions
from tabdiff.datasets import load_pbmc68k_counts, load_penguins
from tabdiff.training import Checkpoint
from tabdiff.training.checkpoint import checkpoint_files, read_checkpoint

TINY: dict[str, Any] = {"hidden_size": 16, "n_blocks": 1, "batch_size": 64, "random_state": 0}
CASES = ("table", "array", "cells")


def make_case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters of the estimator and arguments of its fit."""
    if name == "table":  # everything that has a state: learned times, dropout, held-out rows
        parameters = {
            "max_steps": 150,
            "training": TrainingOptions(times="loss_aware"),
            "denoiser": MLP(dropout=0.1),
            "early_stopping": True,
        }
        return {**TINY, **parameters}, {"X": load_penguins(), "condition": "species"}
    if name == "array":
        rng = np.random.default_rng(0)
        arguments = {"X": rng.normal(size=(200, 3)), "y": rng.integers(3, size=200), "sample_weight": rng.random(200)}
        return {**TINY, "max_steps": 200}, arguments
    return {**TINY, "max_steps": 100}, {"X": load_pbmc68k_counts()[:120, :40].copy(), "condition": "bulk_labels"}


def digest(gen: DiffusionGenerator) -> str:
    """Return a hash of the weights, of what was logged but times, and of drawn rows."""
    total = hashlib.sha256()
    for name, value in gen.denoiser_.state_dict().items():
        total.update(name.encode() + value.numpy().tobytes())
    kept = {k: v for k, v in gen.history_.items() if k not in ("seconds", "rows_per_second", "memory")}
    total.update(json.dumps(kept).encode())
    rows = gen.sample(30)
    rows = rows.X.toarray() if hasattr(rows, "obs") else np.asarray(rows, dtype=str)
    total.update(np.ascontiguousarray(rows).tobytes())
    return total.hexdigest()


def start(work: Callable[[], str], answer: Path) -> int:
    """Run work in a process of its own, which writes what it returns to a file, and return the process's number."""
    answer.unlink(missing_ok=True)
    process = os.fork()
    if process:
        return process
    code, result = 1, ""
    try:
        torch.set_num_threads(1)
        result = work()
        code = 0
    finally:
        answer.write_text(result)
        os._exit(code)


def read_step(folder: Path) -> int:
    """Return the step of a folder's checkpoint, 0 where there is none."""
    saved = read_checkpoint(folder) if folder.is_dir() else None
    return 0 if saved is None else int(saved["training"]["step"])


def forget(folder: Path) -> None:
    for path in checkpoint_files(folder):
        path.unlink()


def wait(folder: Path, answer: Path, n_checkpoints: int, more: float) -> None:
    """Wait until a process has written so many checkpoints and some seconds have passed, or until it has its answer."""
    before, seen = set(checkpoint_files(folder)), set[Path]()
    while len(seen - before) < n_checkpoints and not answer.is_file():
        seen.update(checkpoint_files(folder))
        time.sleep(0.0005)
    time.sleep(more)


def run(name: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill the fits of a case so many times, and compare those that ended."""
    rng = random.Random(seed)
    parameters, arguments = make_case(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder, answer = Path(temporary) / "checkpoints", Path(temporary) / "answer"

        def undisturbed() -> str:
            return digest(DiffusionGenerator(**parameters).fit(**arguments))

        def resumed() -> str:
            gen = DiffusionGenerator(**parameters, callbacks=[Checkpoint(folder, every=0)])
            return digest(gen.fit(**arguments, resume_from=folder))

        def finish(process: int) -> bool:
            """Wait for a process, and say whether it ended by itself."""
            status = os.waitpid(process, 0)[1]
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if status != 0 and not killed:
                raise RuntimeError(f"a fit of {name} failed; its error stands above")
            return not killed

        finish(start(undisturbed, answer))
        expected = answer.read_text()
        begun = time.perf_counter()
        finish(start(resumed, answer))
        seconds = time.perf_counter() - begun
        ends = [answer.read_text()]
        n_steps = read_step(folder)
        forget(folder)
        steps: list[int] = []
        halves = 0
        while True:
            process = start(resumed, answer)
            if len(steps) < kills:
                # After some steps and a part of one, so that a busy machine does not keep a fit from going on; or, for
                # every fifth, before the first.
                early = len(steps) % 5 == 4
                n, part = (0, seconds / 2) if early else (rng.randrange(1, n_steps // 2), 2 * seconds / n_steps)
                wait(folder, answer, n, rng.uniform(0, part))
                os.kill(process, signal.SIGKILL)  # to one that has ended by itself, this does nothing
            if not finish(process):
                halves += any(folder.glob("*.part"))
                steps.append(read_step(folder))
                continue
            ends.append(answer.read_text())
            if len(steps) == kills:
                break
            forget(folder)
        left = sorted(p.name for p in folder.iterdir())
    return {
        "case": name,
        "kills": len(steps),
        "at_steps": steps,
        "while_writing": halves,
        "fits": len(ends),
        "equal": sum(end == expected for end in ends),
        "files_left": left,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="by default all; may be repeated")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    failed = False
    for name in args.case or CASES:
        result = run(name, args.kills, args.seed)
        print(json.dumps(result), flush=True)
        failed |= result["equal"] != result["fits"] or len(result["files_left"]) != 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
