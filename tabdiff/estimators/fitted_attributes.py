"""What a fitted generator shows of its model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.diffusion import Denoiser
from tabdiff.model.fitted import FittedModel
from tabdiff.model.refinement.refinement import Refinement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FittedAttributes"]


class FittedAttributes:
    """Attributes of a fitted generator that are parts of its model, and how its training went.

    Attributes
    ----------
    model_ : FittedModel
    """

    model_: FittedModel
    precision: str
    refine: str | bool
    verbose: int

    def _drawing_model(self) -> FittedModel:
        """Return the model as the parameters say now that it is to be drawn from."""
        check_is_fitted(self)
        refinement = None if self.refine is False else self.model_.refinement
        return replace(self.model_, precision=self.precision, refinement=refinement)

    @property
    def codec_(self) -> Any:
        """Maps containers to tensors and back."""
        return self.model_.codec

    @property
    def conditions_(self) -> Conditions | None:
        """The attributes of the condition: their names, kinds, levels and ranges."""
        return self.model_.conditions

    @property
    def denoiser_(self) -> Denoiser:
        """The trained denoiser, of averaged weights."""
        return self.model_.denoiser

    @property
    def guiding_denoiser_(self) -> Denoiser | None:
        """The small network of autoguidance."""
        return self.model_.guiding_denoiser

    @property
    def autoguidance_(self) -> float:
        """The scale of autoguidance, 1 where there is none."""
        return self.model_.autoguidance

    @property
    def refinement_(self) -> Refinement | None:
        """What corrects drawn rows of a table."""
        return self.model_.refinement

    @property
    def history_(self) -> dict[str, list[float]]:
        """How training went."""
        return self.model_.history

    @property
    def n_steps_(self) -> int:
        """Training steps done, all fits of a warm start together."""
        return self.model_.n_steps

    @property
    def n_samples_fit_(self) -> int:
        """Number of training rows, held-out ones included, those of weight 0 not."""
        return self.model_.n_samples

    @property
    def privacy_(self) -> dict[str, Any] | None:
        """What a differentially private fit spent, and how: ε, δ, clipping, noise; None for an ordinary fit."""
        return self.model_.privacy

    @property
    def schema_(self) -> pd.DataFrame:
        """What was decided for each column; for cells, what kind of values were found and where.

        Of a differentially private fit the column ``privacy`` says what was public of each, and what was counted.
        """
        check_is_fitted(self)
        schema: pd.DataFrame = self.codec_.schema_
        if self.privacy_ is None:
            return schema
        told = {_hashable(name): text for name, text in self.privacy_["columns"]}
        return schema.assign(privacy=[told[name] for name in schema["column"]])

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Plot the training loss against the step, and that on held-out rows if there were any.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to; by default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ValueError
            For a differentially private fit, which keeps no losses.
        """
        check_is_fitted(self)
        if "loss" not in self.history_:
            raise ValueError("a differentially private fit keeps no losses, which would tell of its rows.")
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(5, 3.2), layout="constrained")[1]
        ax.plot(self.history_["step"], self.history_["loss"], label="training")
        if self.history_.get("validation_loss"):
            ax.plot(self.history_["validation_step"], self.history_["validation_loss"], label="held out")
            ax.legend()
        ax.set(xlabel="training step", ylabel="loss", title="Training loss")
        return ax


def _hashable(name: Any) -> Any:
    return tuple(name) if isinstance(name, list) else name
