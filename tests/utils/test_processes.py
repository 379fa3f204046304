"""Work in processes gives what it gives without."""

import joblib
import pytest
import torch

from tabdiff.utils.processes import processes, torch_threads


def area(a, b):
    return a * b, torch.get_num_threads()


@pytest.mark.parametrize("n_jobs", [0, 1.5, "two", True])
def test_numbers_of_processes_that_there_are_not(n_jobs):
    with pytest.raises(ValueError, match="n_jobs must be None, -1"):
        processes(n_jobs)


def test_one_job_is_this_process_alone():
    assert processes(None) is None and processes(1) is None
    with joblib.parallel_config(n_jobs=2):
        assert processes(None) is not None


def test_results_come_in_order_from_processes_of_one_thread():
    run = processes(2)
    assert run is not None
    assert list(run(area, ((i, 3) for i in range(5)))) == [(3 * i, 1) for i in range(5)]


def test_threads_are_as_many_as_before_whatever_sets_them_meanwhile():
    before = torch.get_num_threads()
    with torch_threads():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before
    with torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
