"""Sampling from a generator at the end of a pipeline, back to the data that the pipeline was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from tabdiff.estimators.generator import DiffusionGenerator
from tabdiff.generation.options import SamplingOptions

__all__ = ["sample_pipeline"]


def sample_pipeline(
    pipe: Pipeline,
    n_samples: int | None = None,
    condition: Any = None,
    *,
    return_condition: bool = False,
    **options: Any,
) -> Any:
    """Draw new rows from a fitted pipeline whose last step is a generator, in the units of what the pipeline was given.

    The generator draws rows as it saw them, and the steps before it map them back by their ``inverse_transform``, the
    last one first.

    Parameters
    ----------
    pipe : Pipeline
        Fitted; its last step is a `DiffusionGenerator`, every other one can be inverted: it has ``inverse_transform``,
        and a `FunctionTransformer` its ``inverse_func``. Steps may be pipelines themselves.
    n_samples : int, optional
        As in `DiffusionGenerator.sample`. At least 1.
    condition : optional
        What the generator was fitted with: ``pipe.fit(X, y)`` makes y the condition. Columns that are held are those
        that the generator saw.
    return_condition : bool, default=False
        Whether to return the conditions too.
    **options
        `guidance_scale`, `guidance`, `method`, `steps`, `batch_size` and `random_state` of `DiffusionGenerator.sample`.

    Returns
    -------
    ndarray or DataFrame
        New rows. Where the first step was fitted on a DataFrame, a DataFrame with its columns; numbers that went
        through a transformer are floats.
    condition : ndarray or DataFrame
        With `return_condition`.

    Raises
    ------
    TypeError
        If a keyword is unknown, `pipe` is no pipeline, its last step no generator, or a step cannot be inverted, which
        is named. Nothing is drawn then.
    ValueError
        As in `DiffusionGenerator.sample`: for a condition that the generator has not seen, with those that it knows and
        the nearest (``docs/unseen.md``), among others.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer, StandardScaler
    >>> from tabdiff import DiffusionGenerator, sample_pipeline
    >>> X = np.random.default_rng(0).lognormal(size=(200, 3))
    >>> logarithm = FunctionTransformer(np.log, np.exp)
    >>> quick = DiffusionGenerator(max_steps=20, random_state=0)  # 20 steps show the API; leave max_steps out
    >>> pipe = make_pipeline(logarithm, StandardScaler(), quick).fit(X)
    >>> rows = sample_pipeline(pipe, 50)
    >>> rows.shape, bool((rows > 0).all())
    ((50, 3), True)
    """
    SamplingOptions.of(**options)  # refuses what is unknown before anything is drawn
    if not isinstance(pipe, Pipeline):
        raise TypeError(f"pipe must be a Pipeline; got {type(pipe).__name__}. A generator has its own sample.")
    name, generator = pipe.steps[-1]
    if not isinstance(generator, DiffusionGenerator):
        raise TypeError(
            f"the last step of the pipeline must be a DiffusionGenerator; got {name!r}, {_what(generator)}."
        )
    steps_before = _flatten(pipe, len(pipe.steps) - 1, "")
    for step_name, step in steps_before:
        _check_invertible(step_name, step)
    check_is_fitted(generator)
    drawn = generator.sample(n_samples, condition, return_condition=return_condition, **options)
    rows, labels = drawn if return_condition else (drawn, None)
    for _, step in reversed(steps_before):
        rows = _named(step.inverse_transform(rows), step)
    return (rows, labels) if return_condition else rows


def _flatten(pipe: Pipeline, n_steps: int, prefix: str) -> list[tuple[str, Any]]:
    """Return the names and the transformers of the first steps of a pipeline, those of pipelines inside it too."""
    out: list[tuple[str, Any]] = []
    for name, step in pipe.steps[:n_steps]:
        if step is None or step == "passthrough":
            continue
        inside = isinstance(step, Pipeline)
        out += _flatten(step, len(step.steps), f"{prefix}{name}__") if inside else [(prefix + name, step)]
    return out


def _check_invertible(name: str, step: Any) -> None:
    if isinstance(step, FunctionTransformer):
        # Without it inverse_transform is the identity, and rows would come back in the wrong units.
        if step.func is not None and step.inverse_func is None:
            raise TypeError(
                f"the step {name!r} is a FunctionTransformer without inverse_func, so what is drawn cannot be mapped "
                "back. Give it one, such as FunctionTransformer(numpy.log1p, numpy.expm1)."
            )
        return
    if not hasattr(step, "inverse_transform"):
        hint = ""
        if hasattr(step, "transformers"):
            hint = " A ColumnTransformer has none; DiffusionGenerator takes mixed tables as they are."
        raise TypeError(
            f"the step {name!r}, {_what(step)}, has no inverse_transform, so what is drawn cannot be mapped "
            f"back.{hint} Leave it out, or use pipe[-1].sample() for rows as the generator saw them."
        )


def _named(rows: Any, step: Any) -> Any:
    """Return an array as a DataFrame where the step was fitted on one."""
    names = getattr(step, "feature_names_in_", None)
    if names is None or not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != len(names):
        return rows
    return pd.DataFrame(rows, columns=names)


def _what(step: Any) -> str:
    return f"a {type(step).__name__}"
