import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.exhaustive

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "usefulness.py"


@pytest.fixture
def usefulness(monkeypatch):
    pytest.importorskip("imblearn")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("usefulness")


ARGUMENTS = argparse.Namespace(max_steps=3, max_time=60.0)


def split(module, n=400):
    """A rare class beside the others in one column, and a category that tells nothing."""
    rng = np.random.default_rng(0)
    y = rng.random(n) < 0.1
    X = pd.DataFrame({"x": rng.normal(size=n) + 3 * y, "c": pd.Categorical(rng.choice(["u", "v"], n))})
    return module.Split(X[: n // 2], y[: n // 2], X[n // 2 :], y[n // 2 :])


def test_outliers_are_thinned_to_their_share_unless_they_are_rare(usefulness):
    y = np.random.default_rng(0).random(4000) < 0.4
    rows = usefulness.thin(y, seed=0)
    assert y[rows].mean() == pytest.approx(usefulness.OUTLIERS, abs=1e-3) and (~y[rows]).sum() == (~y).sum()
    rare = np.arange(4000) % 25 == 0
    assert len(usefulness.thin(rare, seed=0)) == 4000


@pytest.mark.parametrize("system", ["none", "weights", "random", "smotenc", "tabdiff"])
def test_classes_are_made_equal_and_a_class_that_shows_is_found(usefulness, system):
    data = split(usefulness)
    report = usefulness.oversampling(system, data, ARGUMENTS, 0)
    added = (~data.y).sum() - data.y.sum() if system in ("random", "smotenc", "tabdiff") else 0
    assert report["added"] == added
    for classifier in ("trees", "logistic"):
        assert report[f"{classifier}_average_precision"] > 0.4  # chance is 0.1


@pytest.mark.parametrize("system", ["isolation_forest", "local_outlier_factor", "tabdiff"])
def test_every_detector_ranks_far_rows_last(usefulness, system):
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame(rng.normal(size=(400, 2))), np.arange(400) % 20 == 0
    X[y] += 9 * rng.choice([-1, 1], size=(y.sum(), 2))
    X.columns = ["a", "b"]
    report = usefulness.detection(system, usefulness.Split(X[:200], y[:200], X[200:], y[200:]), ARGUMENTS, 0)
    assert report["auroc_clean"] > 0.95 and 0 <= report["auroc_mixed"] <= 1


def test_what_is_done_is_not_run_again_and_tables_have_the_means(usefulness):
    row = {"part": "detection", "table": "wine", "device": "cpu", "max_time": None, "max_steps": None}
    rows = [
        {**row, "system": "isolation_forest", "seed": seed, "auroc_mixed": value, "auroc_clean": 1.0, "seconds": 1.0}
        for seed, value in ((0, 0.5), (1, 0.7))
    ]
    text = usefulness.tables(rows)
    assert "| isolation_forest | 0.600 | 0.600 |" in text and "oversampling" not in text
    args = argparse.Namespace(parts=["detection"], tables=["wine"], systems=["isolation_forest"], seeds=[0, 1])
    args.max_time, args.max_steps = 300.0, None
    assert [usefulness.key(job) for job in usefulness.jobs(args)] == [usefulness.key(r) for r in rows]


def test_the_script_says_how_it_is_used():
    pytest.importorskip("imblearn")
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--max-time" in done.stdout, done.stderr
