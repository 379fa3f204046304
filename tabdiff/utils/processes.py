"""Work in several processes, and the threads of this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs

from tabdiff.utils.validation import is_integer

__all__ = ["check_n_jobs", "processes", "torch_threads"]


def check_n_jobs(n_jobs: int | None) -> None:
    """Raise a ValueError for what joblib does not take as a number of processes."""
    if n_jobs is not None and (not is_integer(n_jobs) or n_jobs == 0):
        raise ValueError(f"n_jobs must be None, -1 for all cores or another integer but 0; got {n_jobs!r}.")


def processes(n_jobs: int | None) -> Callable[[Callable[..., Any], Iterable[tuple]], Iterator[Any]] | None:
    """Return what calls a function with tuples of arguments in processes; None where there is to be only this one.

    Parameters
    ----------
    n_jobs : int or None
        As joblib takes it: -1 is a process for each core, and None is 1 but where `joblib.parallel_config` says
        otherwise.

    Returns
    -------
    callable or None
        ``run(function, arguments)`` yields what ``function(*a)`` returns for each tuple, in their order. A process has
        one thread, so that together they do not have more than cores.
    """
    check_n_jobs(n_jobs)
    n = effective_n_jobs(n_jobs)
    return None if n == 1 else partial(_run, n)


def _run(n_jobs: int, function: Callable[..., Any], arguments: Iterable[tuple]) -> Iterator[Any]:
    yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_on_one_thread)(function, a) for a in arguments)


def _on_one_thread(function: Callable[..., Any], arguments: tuple) -> Any:
    with torch_threads(1):  # a joblib of threads, which users may choose, runs in their own process
        return function(*arguments)


@contextmanager
def torch_threads(n: int | None = None) -> Iterator[None]:
    """Have torch compute with `n` threads, by default as many as now, and afterwards with as many as before.

    Numba's first parallel function sets the threads of every OpenMP runtime in the process, that of torch too.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if n is None else n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
