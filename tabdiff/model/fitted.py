"""A fitted model: everything that drawing, scoring and saving need, and nothing that only the estimators know."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from tabdiff.codecs import container_name
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.sequences import SequenceForm
from tabdiff.diffusion import AutoGuidance, Denoiser, DenoiserLike
from tabdiff.io.csv_files import CsvForm
from tabdiff.io.frames import ForeignFrame
from tabdiff.model.config import ModelConfig
from tabdiff.model.distillation import Distilled
from tabdiff.model.refinement.refinement import REFINED_STEPS, Refinement, refined_steps

__all__ = ["FittedModel"]


@dataclass(frozen=True)
class FittedModel:
    """What a fit makes, and what `tabdiff.generation` draws from.

    Attributes
    ----------
    config : ModelConfig
        What the denoiser is built from.
    codec : Codec
        Maps containers to tensors and back.
    denoiser : Denoiser
        Trained, of averaged weights.
    conditions : Conditions or None
        The attributes of the condition.
    refinement : Refinement or None
        What corrects drawn rows of a table.
    guiding_denoiser : Denoiser or None
        The small network of autoguidance.
    autoguidance : float
        Its scale, 1 where there is none.
    distilled : Distilled or None
        What draws rows that are refined, in fewer steps.
    source : {"none", "y", "columns", "obs", "given"}
        Where the condition came from, and so where it belongs on output.
    columns : Index or None
        Names of all columns of the frame, in order, where the condition came from some of them.
    origin : ForeignFrame, CsvForm, SequenceForm or None
        What kind of frame the rows came in, if not pandas', how the csv file was written, or in what container
        sequences came.
    n_features : int
        Number of columns or genes.
    feature_names : ndarray of str or None
        Their names, where they are strings.
    history : dict of list
        See `DiffusionGenerator.history_`.
    n_steps, n_samples : int
        Training steps done, and training rows.
    precision : str
        In which the denoiser is evaluated, as in `DiffusionGenerator`.
    privacy : dict or None
        What a differentially private fit spent, and how; see `DiffusionGenerator.privacy_`.
    stream : numpy.random.Generator
        Where the seeds of draws that are given none come from; it goes on with each of them.
    """

    config: ModelConfig
    codec: Any
    denoiser: Denoiser
    conditions: Conditions | None
    source: str
    columns: pd.Index | None
    origin: ForeignFrame | CsvForm | SequenceForm | None
    n_features: int
    feature_names: np.ndarray | None
    stream: np.random.Generator
    refinement: Refinement | None = None
    guiding_denoiser: Denoiser | None = None
    autoguidance: float = 1.0
    distilled: Distilled | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    n_steps: int = 0
    n_samples: int = 0
    precision: str = "auto"
    privacy: dict[str, Any] | None = None

    @property
    def container(self) -> str:
        """What the model is of: "array", "table", "cells", "images" or "sequences"."""
        return container_name(self.codec)

    @property
    def condition_names(self) -> list:
        """Names of the attributes of the condition, none for a model without one."""
        return [] if self.conditions is None else self.conditions.names

    @property
    def guided(self) -> DenoiserLike:
        """What samples: the denoiser, with autoguidance where there is some (Karras et al., 2024)."""
        if self.guiding_denoiser is None:
            return self.denoiser
        guiding = self.guiding_denoiser.numbers
        return AutoGuidance(self.denoiser, guiding, self.autoguidance, n_guided=self.config.n_continuous)

    def refined_settings(self, steps: int | None = None) -> dict[str, Any]:
        """Return the arguments of `tabdiff.diffusion.generate.draw` with which the rows are drawn that are refined.

        Parameters
        ----------
        steps : int, optional
            Of the sampler; by default those for which the refinement was fitted.
        """
        if self.distilled is not None:
            return self.distilled.settings()
        if steps is None:
            steps = REFINED_STEPS if self.refinement is None else self.refinement.steps_
        return {
            "guided": self.guided,
            "method": "auto",
            "steps": refined_steps(self.denoiser.schedule, steps),
            "grid": "auto",
        }

    def with_autoguidance(self, scale: float, guiding_denoiser: Denoiser | None = None) -> FittedModel:
        """Return the model with a scale of autoguidance, by default of the guiding denoiser that it has."""
        guiding = guiding_denoiser if guiding_denoiser is not None else self.guiding_denoiser
        return replace(self, autoguidance=scale, guiding_denoiser=None if scale == 1 else guiding)

    def in_pandas(self) -> FittedModel:
        """Return the model that gives frames of pandas, of whatever library the frame of its fit was."""
        return replace(self, origin=None) if isinstance(self.origin, ForeignFrame) else self

    def seed(self, random_state: Any = None) -> int:
        """Return a seed: that of `random_state`, or the next of the stream where it is None."""
        if random_state is None:
            return int(self.stream.integers(2**31 - 1))
        return int(check_random_state(random_state).randint(2**31 - 1))

    def bind_text_encoder(self, text_encoder: Any) -> None:
        """Give the conditions that are text their encoder, which no file keeps.

        Raises
        ------
        ValueError
            If none of the conditions is text, or the encoder's vectors have another length.
        """
        if self.conditions is None or not self.conditions.has_text:
            raise ValueError("text_encoder was given, but the model has no condition that is text.")
        self.conditions.bind(text_encoder)

    def to(self, device: Any) -> FittedModel:
        """Return the model with its networks on a device; they are moved, not copied."""
        for network in (self.denoiser, self.guiding_denoiser, self.distilled):
            if network is not None:
                network.to(device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # On the CPU, so that a model fitted on a GPU opens anywhere.
        names = ("denoiser", "guiding_denoiser", "distilled")
        networks = {name: vars(self)[name] for name in names}
        return vars(self) | {k: copy.deepcopy(n).to("cpu") for k, n in networks.items() if n is not None}
