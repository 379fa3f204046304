"""How rows are drawn: the keywords that every method that draws rows shares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tabdiff.diffusion.generate import check_batches, check_guidance
from tabdiff.utils.processes import check_n_jobs
from tabdiff.utils.validation import did_you_mean

__all__ = ["SamplingOptions"]


@dataclass(frozen=True)
class SamplingOptions:
    """How rows are drawn, apart from which: sampler, guidance, batches and seed.

    They are keywords of `DiffusionGenerator.sample`, where each is described, and as ``**options`` of
    `DiffusionGenerator.sample_to` and `tabdiff.sample_pipeline`. They are checked when they are made.

    Parameters
    ----------
    guidance_scale : float, default=1.0
        Finite; 1 is no guidance.
    guidance : str or callable, default="classifier_free"
        "classifier_free", "cfg++" or ``guidance(denoiser, scale)``.
    method : str or Sampler, default="auto"
        The sampler.
    steps : "auto" or int, default="auto"
        Its number of steps, at least 1.
    batch_size : "auto" or int, default="auto"
        Rows evaluated at once, at least 1.
    random_state : int, RandomState or None, default=None
        The seed.
    n_jobs : int or None, default=None
        Processes that draw, as joblib takes it.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> SamplingOptions(method="ddim", steps=20).steps
    20
    >>> SamplingOptions.of(step=20)
    Traceback (most recent call last):
        ...
    TypeError: 'step' is none of the keywords of sampling, [...]. Did you mean 'steps'?
    """

    guidance_scale: float = 1.0
    guidance: Any = "classifier_free"
    method: Any = "auto"
    steps: str | int = "auto"
    batch_size: str | int = "auto"
    random_state: Any = None
    n_jobs: int | None = None

    def __post_init__(self) -> None:
        scale = self.guidance_scale
        if not isinstance(scale, int | float | np.number) or not np.isfinite(scale):
            raise ValueError(f"guidance_scale must be a finite number; got {scale!r}.")
        check_guidance(self.guidance)
        check_n_jobs(self.n_jobs)
        check_batches(self.steps, self.batch_size)

    @classmethod
    def of(cls, **keywords: Any) -> Self:
        """Return the options of keywords, which may be unknown.

        Raises
        ------
        TypeError
            For an unknown keyword, with those that there are.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in keywords:
            if name not in known:
                raise TypeError(f"{name!r} is none of the keywords of sampling, {known}.{did_you_mean(name, known)}")
        return cls(**keywords)
