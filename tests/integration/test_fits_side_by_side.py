import random
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from tabdiff import MLP, DiffusionGenerator, TrainingOptions
from tabdiff.datasets import load_penguins

QUICK = {
    "max_steps": 40,
    "hidden_size": 16,
    "n_blocks": 1,
    "denoiser": MLP(dropout=0.1),
    "training": TrainingOptions(times="loss_aware"),
}


def counts():
    kinds = np.repeat(["a", "b"], 20)
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"kind": kinds}, index=[f"c{i}" for i in range(40)])
    return AnnData(rng.poisson(2.0, (40, 6)).astype("float32"), obs=obs)


@pytest.fixture(scope="module")
def work():
    """Fits of several kinds: the generator, its data and its condition."""
    penguins, cells = load_penguins(), counts()
    cases = [(penguins, "species"), (penguins, "species"), (cells, "kind"), (penguins, None), (cells, "kind")]
    return [(DiffusionGenerator(**QUICK, random_state=i), X, c) for i, (X, c) in enumerate(cases)]


def fit(gen, X, condition):
    return joblib.hash(_rows(DiffusionGenerator(**gen.get_params(deep=False)).fit(X, condition=condition).sample(10)))


def _rows(rows):
    return rows.X.toarray() if hasattr(rows, "obs") else np.asarray(rows, dtype=str)


@pytest.fixture(scope="module")
def alone(work):
    return [fit(*job) for job in work]


def global_states():
    numpys = joblib.hash(np.random.get_state())  # noqa: NPY002
    return random.getstate(), numpys, torch.random.get_rng_state().tolist()


@pytest.mark.slow
def test_fits_in_threads_give_what_they_give_alone_and_leave_the_callers_random_state(work, alone):
    before = global_states()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: fit(*job), work * 2))
    assert together == alone * 2
    assert len(set(alone)) == len(alone)
    assert global_states() == before


@pytest.mark.slow
def test_fits_in_processes_give_what_they_give_alone(work, alone):
    before = global_states()
    jobs = [
        joblib.delayed(DiffusionGenerator(**gen.get_params(deep=False)).fit)(X, condition=c) for gen, X, c in work[:3]
    ]
    fitted = joblib.Parallel(n_jobs=2)(jobs)
    assert [joblib.hash(_rows(gen.sample(10))) for gen in fitted] == alone[:3]
    assert global_states() == before


@pytest.mark.slow
def test_what_the_caller_draws_does_not_change_a_fit(work, alone):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert fit(*work[0]) == alone[0] and fit(*work[2]) == alone[2]
