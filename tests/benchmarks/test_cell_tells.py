"""Where the difference between drawn and real cells is found, on counts that differ in known ways."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def counts(seed, n=200, genes=12):
    return np.random.default_rng(seed).poisson(4.0, size=(n, genes))


def test_the_gene_and_what_of_it_are_named(benchmark_module):
    tells = benchmark_module("cell_tells")
    real, drawn = counts(0), counts(1)
    drawn[:, 3] = np.random.default_rng(2).poisson(8.0, 200)
    types = np.repeat(["A", "B"], 100)
    names = [f"g{j}" for j in range(12)]
    found = tells.find_tells(sparse.csr_matrix(real), sparse.csr_matrix(drawn), types, types, names, seed=0)
    gene, importance, what, _ = found["genes"][0]
    assert gene == "g3" and importance > 0.15 and what == "mean"
    assert found["auc"] > 0.65 and found["auc_marginals"] > 0.65
    same = tells.find_tells(counts(0), counts(5), types, types, names, seed=0)
    assert same["auc"] < 0.62 and "none alone" in {what for _, _, what, _ in same["genes"]}
    assert "g3" in tells.tells_table([{"task": "set", "system": "nb", "seed": 0, **found}])


def test_dependence_is_told_from_marginals(benchmark_module):
    tells = benchmark_module("cell_tells")
    rng = np.random.default_rng(0)
    level = rng.choice([1.0, 16.0], size=(300, 1))
    real = rng.poisson(np.tile(np.concatenate([level, 17 - level], axis=1), (1, 6)))
    drawn = rng.permuted(rng.poisson(np.tile(np.concatenate([level, 17 - level], axis=1), (1, 6))), axis=0)
    one = np.repeat("A", 300)
    found = tells.find_tells(real, drawn, one, one, [f"g{j}" for j in range(12)], seed=0)
    assert found["auc"] > 0.9 and found["auc_marginals"] < 0.65


def test_the_bootstrap_copies_training_cells_of_the_type(benchmark_module):
    cells = benchmark_module("cells")
    x = sparse.csr_matrix(np.arange(12.0).reshape(6, 2))
    train = AnnData(x, obs=pd.DataFrame({"t": list("AABBBB")}, index=[f"c{i}" for i in range(6)]))
    wanted = np.array(["B", "A", "B", "A", "A"])
    copied, own = cells.reference("bootstrap", train, wanted, ("t",), seed=0)
    assert list(own) == list(wanted)
    rows = copied.toarray()[:, 0] / 2
    assert (rows[[1, 3, 4]] < 2).all() and (rows[[0, 2]] >= 2).all()


def test_tasks_are_named_by_a_part_of_their_names(benchmark_module):
    cells = benchmark_module("cells")
    both = ["CD14+ Monocytes, stimulated", "B cells, stimulated"]
    assert cells.tasks("CD14+,B cells") == both + [f"{task}, 2,000 genes" for task in both]
    assert cells.tasks("dose 50") == ["A549 at dose 50.0"] and cells.tasks("nothing") == ["nothing"]
