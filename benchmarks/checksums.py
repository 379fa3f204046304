"""Checksums of what a seed draws, one a container: equal before and after a change that only moves code.

    python benchmarks/checksums.py                        # of this tree
    PYTHONPATH=OTHER_TREE python benchmarks/checksums.py  # of another one, on the same machine

Equal machines and libraries only: the last bits of a matrix product are the processor's.
"""

from __future__ import annotations

import hashlib
import sys
import time

import anndata
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits

from tabdiff import DiffusionGenerator
from tabdiff.datasets import load_penguins

SETTINGS = {"max_steps": 60, "hidden_size": 32, "random_state": 0, "precision": "float32"}


def digest(rows: object) -> str:
    """Return a hash of rows in any container."""
    if isinstance(rows, anndata.AnnData):
        rows = rows.X.toarray() if hasattr(rows.X, "toarray") else rows.X
    if isinstance(rows, pd.DataFrame | pd.Series | list):
        content = pd.DataFrame({"x": rows} if isinstance(rows, list) else rows).to_csv(index=False).encode()
    else:
        content = np.ascontiguousarray(rows).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def containers() -> dict:
    """Return data, condition and what else a fit of each container is given."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    counts = anndata.AnnData(rng.poisson(rng.gamma(2.0, 1.0, (200, 30))).astype(np.float32))
    counts.obs["kind"] = pd.Categorical(rng.choice(["a", "b"], 200))
    words = ["".join(rng.choice(list("ACGT"), rng.integers(4, 9))) for _ in range(200)]
    return {
        "table": (load_penguins(), {"condition": "species"}, {}),
        "array": (rng.normal(size=(300, 4)), {}, {}),
        "cells": (counts, {"condition": "kind"}, {}),
        "images": (digits.images[:300] / 16, {"y": digits.target[:300]}, {"max_steps": 5, "hidden_size": 8}),
        "sequences": (words, {}, {}),
    }


def main() -> None:
    torch.set_num_threads(1)
    for name, (data, given, settings) in containers().items():
        start = time.perf_counter()
        gen = DiffusionGenerator(**{**SETTINGS, **settings}).fit(data, **given)
        fitted = time.perf_counter()
        drawn = gen.sample(50, random_state=1)
        seconds = f"fit {fitted - start:.2f} s, sample {time.perf_counter() - fitted:.2f} s"
        print(f"{name:10} {digest(drawn)}  {seconds}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
