"""A few steps of every container, through save and load; run by .ci/dependencies in a fresh environment."""

import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

import tabdiff
from tabdiff import DiffusionGenerator, DiffusionImputer, DiffusionOverSampler, evaluate
from tabdiff.datasets import load_penguins
from tabdiff.io.data_files import read_data, write_data

rng = np.random.default_rng(0)
kinds = np.repeat(["a", "b"], 40)
penguins = load_penguins()
cells = anndata.AnnData(
    sparse.csr_matrix(rng.poisson(2.0, (80, 20)).astype(np.float32)),
    obs=pd.DataFrame({"kind": pd.Categorical(kinds)}, index=[f"cell {i}" for i in range(80)]),
    var=pd.DataFrame(index=[f"gene {j}" for j in range(20)]),
)
SETS = {
    "table": (penguins, None, "species"),
    "array": (rng.normal(size=(80, 4)), kinds, None),
    "cells": (cells, None, "kind"),
    "images": (rng.integers(0, 256, (80, 8, 8), dtype=np.uint8), kinds, None),
    "sequences": (["".join(rng.choice(list("ACGT"), 12)) for _ in range(80)], kinds, None),
}


def same(a: object, b: object) -> bool:
    """Whether two containers hold the same."""
    if isinstance(a, anndata.AnnData):
        return bool((a.X != b.X).nnz == 0 and a.obs.equals(b.obs))
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    return np.array_equal(np.asarray(a), np.asarray(b))


print("tabdiff", tabdiff.__version__, "from", Path(tabdiff.__file__).parent)
for name, (data, y, condition) in SETS.items():
    start = time.perf_counter()
    gen = DiffusionGenerator(max_steps=5, max_time=20, random_state=0).fit(data, y, condition=condition)
    drawn = gen.sample(7, random_state=1)
    assert type(drawn) is type(data), (name, type(drawn))
    with tempfile.TemporaryDirectory() as folder:
        gen.save(Path(folder, "model"))
        again = DiffusionGenerator.load(Path(folder, "model"))
    assert same(drawn, again.sample(7, random_state=1)), f"{name}: a loaded model draws other rows"
    print(f"{name}: drawn, saved, loaded, {time.perf_counter() - start:.1f} s")

quick = DiffusionGenerator(max_steps=5, random_state=0)
filled = DiffusionImputer(quick).fit_transform(penguins.select_dtypes("number"))
assert not pd.isna(np.asarray(filled, dtype=float)).any()
X = rng.normal(size=(80, 3))
more, labels = DiffusionOverSampler(quick).fit_resample(X, np.repeat([0, 1], [60, 20]))
assert (labels == 1).sum() == 60, len(more)
report = evaluate(penguins, penguins.sample(100, random_state=0))
assert "shape_error" in set(report.to_frame().reset_index()["metric"]), report
with tempfile.TemporaryDirectory() as folder:
    for suffix in ("parquet", "feather", "csv"):
        path = Path(folder, f"birds.{suffix}")
        write_data(penguins, path)
        assert read_data(path).shape == penguins.shape
    cells.write_zarr(Path(folder, "cells.zarr"))
    assert read_data(Path(folder, "cells.zarr")).shape == cells.shape
print("imputer, over-sampler, report, files: well")
