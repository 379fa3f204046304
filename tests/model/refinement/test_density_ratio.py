import pickle

import numpy as np
import pytest
import torch

from tabdiff.model.refinement.density_ratio import DensityRatio
from tabdiff.utils.trees import DeviceForest


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    real = np.column_stack([rng.normal(size=2000), rng.integers(0, 4, 2000)]).astype(np.float32)
    drawn = np.column_stack([rng.normal(0.5, 1, 2000), rng.integers(0, 3, 2000)]).astype(np.float32)
    drawn[::7, 0] = np.nan
    return DensityRatio(max_iter=60).fit(real, drawn, [0, 4], seed=0), drawn


def test_trees_on_a_device_give_the_same_ratio(fitted, monkeypatch):
    ratio, rows = fitted
    expected = ratio.log_ratio(rows)
    made = []
    # The device of the tests stands in for a GPU.
    monkeypatch.setattr(ratio, "device", torch.device("cuda"))
    monkeypatch.setattr(
        "tabdiff.model.refinement.density_ratio.DeviceForest",
        lambda *parts: made.append(parts[-1]) or DeviceForest(*parts[:-1], "cpu"),
    )
    np.testing.assert_allclose(ratio.log_ratio(rows), expected, rtol=1e-12, atol=1e-12)
    assert made == [torch.device("cuda")]


def test_a_ratio_that_was_on_a_gpu_is_loaded_without_one(fitted):
    ratio, rows = fitted
    expected = ratio.log_ratio(rows)
    ratio.device, ratio._forest = torch.device("cuda"), object()
    try:
        again = pickle.loads(pickle.dumps(ratio))
    finally:
        del ratio.device, ratio._forest
    assert again.device.type == "cpu" and np.array_equal(again.log_ratio(rows), expected)
