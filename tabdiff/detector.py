"""Outliers: rows that a diffusion model finds unlikely."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from tabdiff.companions import clone_generator, refuse_anndata
from tabdiff.generator import DiffusionGenerator
from tabdiff.inputs import read_fit_inputs

__all__ = ["DiffusionOutlierDetector"]

# Nothing is sampled. A column that another determines must count: that a row breaks the rule is what makes it odd.
DEFAULTS = {"refine": False, "observed_masks": 0.0, "dependencies": False}
# Tukey's factor: how many interquartile ranges below the lower quartile the lower fence of a box plot stands.
FENCE = 1.5


class DiffusionOutlierDetector(OutlierMixin, BaseEstimator):
    """Find outliers and novelties by their likelihood under a diffusion model.

    The score of a row is the variational bound on its log-likelihood (Kingma et al., 2021). The model is one of all
    columns together: an odd combination of ordinary values counts as well as an odd value. Tables may mix numbers,
    categories and dates, with missing values.

    Parameters
    ----------
    generator : DiffusionGenerator, optional
        Model to clone and fit; by default ``DiffusionGenerator(refine=False, observed_masks=0.0, dependencies=False)``.
        With ``dependencies=True`` columns that others determine take no part in the score.
    contamination : "auto" or float, default="auto"
        Share of outliers among the training rows, in (0, 0.5], which sets the threshold at that quantile of their
        scores. "auto" knows of none and takes the lower fence of Tukey's box plot of the training scores, the lower
        quartile less 1.5 times the interquartile range: quartiles stay where they are until a quarter of the rows are
        outliers. Of Gaussian rows without any outlier it flags 5 % in two dimensions, and 2 % in ten.
    random_state : int, RandomState or None, default=None
        Seeds the fit. None leaves the `random_state` of `generator`.

    Attributes
    ----------
    generator_ : DiffusionGenerator
        The fitted model.
    offset_ : float
        Threshold of `score_samples`: ``decision_function(X) = score_samples(X) - offset_``.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Outliers are separated by few random splits.
    sklearn.neighbors.LocalOutlierFactor : Outliers lie where it is sparser than around their neighbours.

    Notes
    -----
    Outliers in the training rows are learned too, but a smooth model of many rows spends little on a few. Where their
    score matters, fit on rows that are known to be normal. A likelihood compares rows, not causes: in many dimensions
    simple inputs of another kind can be likelier than the training rows (Nalisnick et al., 2019).

    A row's score does not depend on the rows beside it. A category that was not there in `fit` is an error, as in
    `DiffusionGenerator.score_samples`.

    References
    ----------
    Livernoche et al., "On Diffusion Modeling for Anomaly Detection", 2024, https://arxiv.org/abs/2305.18593; Kingma et
    al., "Variational Diffusion Models", 2021, https://arxiv.org/abs/2107.00630; Tukey, "Exploratory Data Analysis",
    1977; Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?", 2019,
    https://arxiv.org/abs/1810.09136.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff import DiffusionGenerator, DiffusionOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> quick = DiffusionGenerator(max_steps=20, random_state=0)  # 20 steps show the API; leave generator out
    >>> detector = DiffusionOutlierDetector(quick, contamination=0.05).fit(X)
    >>> int((detector.predict(X) == -1).sum())
    15
    >>> detector.predict([[0.0, 0.0], [9.0, -9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        generator: DiffusionGenerator | None = None,
        *,
        contamination: str | float = "auto",
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how rows are distributed, and from which score on a row is an outlier.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            In any form that `DiffusionGenerator.fit` takes, but AnnData. It is never changed.
        y : object
            Ignored.

        Returns
        -------
        DiffusionOutlierDetector
            The fitted detector.

        Raises
        ------
        ValueError
            For a `contamination` out of range, infinities and fewer than two rows.
        TypeError
            For a generator that is none, and containers or columns that cannot be modelled.
        """
        share = self.contamination
        number = isinstance(share, int | float | np.number) and not isinstance(share, bool)
        if not (0 < share <= 0.5 if number else share == "auto"):  # type: ignore[operator]
            raise ValueError(f"contamination must be 'auto' or a number in (0, 0.5], however: {share!r}.")
        gen = clone_generator(self.generator, self.random_state, DEFAULTS)
        refuse_anndata(X, "DiffusionOutlierDetector")
        read_fit_inputs(self, X, None, None)
        self.generator_ = gen.fit(X)
        scores = gen.score_samples(X)
        if number:
            self.offset_ = float(np.percentile(scores, 100 * float(share)))
        else:
            low, high = np.percentile(scores, [25, 75])
            self.offset_ = float(low - FENCE * (high - low))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return a lower bound on the log-likelihood of each row, in nats: the lower, the odder.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            float64.

        Raises
        ------
        ValueError
            For columns or categories that differ from those of `fit`.
        """
        check_is_fitted(self)
        return self.generator_.score_samples(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return `score_samples` less the threshold: negative for outliers.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            float64.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Tell outliers.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers, 1 for the others.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
