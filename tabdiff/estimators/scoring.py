"""How likely rows are to a fitted generator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabdiff.codecs.conditions.conditions import condition_frame
from tabdiff.codecs.inputs import check_rows, read_features
from tabdiff.estimators.fitted_attributes import FittedAttributes
from tabdiff.generation.likelihood import bits_of_rows, condition_codes, log_likelihood
from tabdiff.utils.array_likes import read_array

__all__ = ["ScoringMixin"]


class ScoringMixin(FittedAttributes):
    """Methods of `DiffusionGenerator` that say how likely rows are."""

    def score_samples(
        self, X: Any, *, condition: Any = None, method: str = "bound", return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the log-likelihood of each row, or a lower bound on it, in nats.

        Continuous values count by their density, spikes and categories by their probability. Everything is evaluated
        at fixed times and noises in float64, so a row's score does not depend on the rows beside it. The bound is a
        mean over noise, estimated by a rule that is exact for normal data of up to eight columns; `return_std` tells
        how far off the estimate is likely to be.
        Columns that others determine (``schema_["determined_by"]``) take no part where they keep the rule.

        What was never seen at fit makes a row unlikely, but not impossible: for each level that its column did not
        have, missing value in a column without any, and cell that breaks a dependency, a row scores
        ``log(n_samples_fit_ + 1)`` below the least likely of the rows with a value that was seen there. The density of
        a number outside its range falls off exponentially (see ``docs/unseen.md``).

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features), or images as in `fit`
            Rows; a DataFrame may carry the condition columns. Of bytes of images it is a bound on their probability.
        condition : optional
            Condition of the rows, in the forms of `sample` that go row by row or give one value. By default that of
            X's own columns, or else none: the unconditional likelihood.
        method : {"bound", "continuous", "flow"}, default="bound"
            "bound" is the variational bound, for any data: with `n_timesteps` the sum over the steps of that chain (Ho
            et al., 2020), whose network was trained at its times alone; else the integral over continuous time
            (Kingma et al., 2021). "continuous" is the integral in either case, which is tighter where steps are few and
            the network knows what to do between them. "flow" is the likelihood of the
            probability-flow ODE (Song et al., 2021), for numbers without missing values; it costs more, and is
            inexact for rows far from all data.
        return_std : bool, default=False
            Whether to return the standard error that the choice of noises leaves in each score too. Rows share the
            noises, so their errors do not average out; 0 for "flow".

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            float64, higher is likelier.
        std : ndarray of shape (n_samples,)
            Only if `return_std`.

        Raises
        ------
        ValueError
            For columns that differ from the fit's, a condition that was not there, infinities, an unknown method, or
            "flow" with categories or missing values.
        TypeError
            For AnnData and MuData, whose likelihood is not available.
        """
        features, codes = self._scored_rows(X, condition, "score_samples")
        scores, std = log_likelihood(self.model_, features, codes, method=method)
        return (scores, std) if return_std else scores

    def bits_per_dim(
        self, X: Any, *, condition: Any = None, method: str = "bound", return_std: bool = False
    ) -> float | tuple[float, float]:
        """Return the bits that an entry of quantised rows takes on average under the model, lower is better.

        An entry is a byte of an image, a cell of a table, or a letter of a sequence. Bytes and numbers are dequantised
        by uniform noise, whose mean log-density bounds their log-probability from below. Rows have noises of their
        own, fixed by their order, so the standard error falls with the number of rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features), images of bytes, or sequences
            Rows as in `fit`, without the condition or with its columns.
        condition : optional
            As in `score_samples`.
        method : {"bound", "continuous"}, default="bound"
            As in `score_samples`.
        return_std : bool, default=False
            Whether to return the standard error of the mean too: that of other rows of the same kind, and of the noise.

        Returns
        -------
        bits : float
        std : float
            Only if `return_std`; NaN for a single row.

        Raises
        ------
        ValueError
            For images of floats and columns of continuous numbers, whose density stands for no number of bits.
        TypeError
            For AnnData and MuData, whose likelihood is not available.

        References
        ----------
        Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016.

        Examples
        --------
        >>> import numpy as np
        >>> from tabdiff import DiffusionGenerator
        >>> X = np.random.default_rng(0).integers(0, 4, (500, 2))
        >>> gen = DiffusionGenerator(max_steps=60, refine=False, random_state=0).fit(X)  # two fair bits a cell
        >>> 1.9 < gen.bits_per_dim(X) < 2.4
        True
        """
        features, codes = self._scored_rows(X, condition, "bits_per_dim")
        bits = bits_of_rows(self.model_, features, codes, method=method)
        std = float(bits.std(ddof=1) / len(bits) ** 0.5) if len(bits) > 1 else float("nan")
        return (float(bits.mean()), std) if return_std else float(bits.mean())

    def _scored_rows(self, X: Any, condition: Any, caller: str) -> tuple[Any, Tensor | None]:
        """Return what rows hold apart from their condition, and the condition as codes (n, k)."""
        check_is_fitted(self)
        model = self.model_
        features, own = read_features(self, X, model.container, model.condition_names, model.source)
        if model.container in ("cells", "multimodal"):
            name = "AnnData" if model.container == "cells" else "MuData"
            raise TypeError(f"{caller} is not available for {name}; fit on a DataFrame or array to score rows.")
        if model.codec.random_:
            raise TypeError(
                f"{caller} is not available for latents of images; fit without codec=LatentImageCodec() to score them."
            )
        check_rows(features)
        return features, condition_codes(model, int(features.shape[0]), own, condition)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, condition: Any = None) -> float:
        """Return the mean of `score_samples`, higher is better.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), optional
            Their condition, where `fit` was given ``y``; ignored otherwise.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the mean.
        condition : optional
            As in `score_samples`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if y is not None and condition is None and self.model_.source == "y":
            condition = condition_frame(y, len(y), "y")
        weights = None if sample_weight is None else read_array(sample_weight, "sample_weight")
        return float(np.average(np.asarray(self.score_samples(X, condition=condition)), weights=weights))
