import os

os.environ.setdefault("MPLBACKEND", "Agg")
# The networks here are small: a second thread gains little, and stalls where other work shares the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# And where numba's threads are two, so are torch's from then on.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# Derandomised, so that a failure is the change's and not the day's; no deadline, because machines differ.
hypothesis.settings.register_profile("tabdiff", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tabdiff")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)
