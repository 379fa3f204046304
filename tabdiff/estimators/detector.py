"""Outliers: rows that a diffusion model finds unlikely."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from tabdiff.codecs.columns import NumericColumn
from tabdiff.codecs.inputs import check_rows, read_features, read_fit_inputs
from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.codecs.tables.unseen import least_likely, log_jacobian, read_rows
from tabdiff.diffusion.bound import row_bound
from tabdiff.estimators.base import clone_generator, refuse_all_but_tables
from tabdiff.estimators.generator import DiffusionGenerator
from tabdiff.training import TrainingOptions
from tabdiff.utils.validation import is_number

__all__ = ["DiffusionOutlierDetector"]

# Nothing is sampled. A column that another determines must count: that a row breaks the rule is what makes it odd.
DEFAULTS = {"refine": False, "autoguidance": 1.0, "training": TrainingOptions(observed_masks=0.0)}
# Tukey's factor: how many interquartile ranges below the lower quartile the lower fence of a box plot stands.
FENCE = 1.5
# Log-SNR of the noise that rows are scored with, and steps of each chain. A bound with little noise alone tells rows
# that were trained on, outliers too, from all others: fitted on 62 wines of which three are odd it finds the odd ones
# among 63 more with an AUROC of .87, and these four together with .91.
NOISE_LEVELS = {-1.0: 11, 1.0: 15, 3.0: 18, 6.0: 24}
BATCH = 2048
MAX_CENTRES = 512
# Of a number from the others, in their standard deviations: its square is a float too.
FARTHEST = 1e150


class DiffusionOutlierDetector(OutlierMixin, BaseEstimator):
    """Find outliers and novelties by their likelihood under a diffusion model.

    The score of a row is a bound on its log-likelihood with noise added, averaged over four levels of noise (Kingma and
    Gao, 2023), so that what is odd from afar and what is odd from near both count. The model is one of all columns
    together: an odd combination of ordinary values counts as well as an odd value. Tables may mix numbers, categories
    and dates, with missing values.

    Parameters
    ----------
    generator : DiffusionGenerator, optional
        Model to clone and fit; by default ``DiffusionGenerator(refine=False, autoguidance=1.0,
        training=TrainingOptions(observed_masks=0.0))``, and for DataFrames ``codec=TableCodec(dependencies=False)``.
        With dependencies, columns that others determine take no part in the score, unless they break the rule.
    contamination : "auto" or float, default="auto"
        Share of outliers among the training rows, in (0, 0.5], which sets the threshold at that quantile of their
        scores. "auto" knows of none and takes the lower fence of Tukey's box plot of the training scores, the lower
        quartile less 1.5 times the interquartile range: quartiles hold until a quarter of the rows are outliers. Of
        rows without any outlier it flags a few percent (by the exact likelihood of Gaussian rows 5 % in two dimensions
        and 2 % in ten).
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

    Marginal densities are smooth here, unlike in `DiffusionGenerator.score_samples`: kernels of Silverman's width, and
    a share of one row in a broad Student distribution, so that any value has a finite score. The spacing of values,
    and whether one of them repeats, tells nothing about outliers.

    A row's score does not depend on the rows beside it.

    A row with what was never seen in `fit` scores below all training rows and is an outlier: with a category that its
    column did not have, a missing value in a column without any, and, with dependencies, a cell that breaks a
    dependency. It scores as `DiffusionGenerator.score_samples` says, and at least ``log(n_samples + 1)`` below the
    threshold and the lowest training score for each such cell. The density of a number outside its range falls off as
    a power of its distance.

    References
    ----------
    Kingma and Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation", 2023,
    https://arxiv.org/abs/2303.00848; Livernoche et al., "On Diffusion Modeling for Anomaly Detection", 2024,
    https://arxiv.org/abs/2305.18593; Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?", 2019,
    https://arxiv.org/abs/1810.09136; Silverman, "Density Estimation for Statistics and Data Analysis", 1986; Tukey,
    "Exploratory Data Analysis", 1977.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff import DiffusionGenerator, DiffusionOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> quick = DiffusionGenerator(hidden_size=32, max_steps=20, random_state=0)  # to show the API; leave it out
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
        if not (0 < share <= 0.5 if is_number(share) else share == "auto"):  # type: ignore[operator]
            raise ValueError(f"contamination must be 'auto' or a number in (0, 0.5]; got {share!r}.")
        gen = clone_generator(self.generator, self.random_state, DEFAULTS)
        refuse_all_but_tables(X, "DiffusionOutlierDetector")
        inputs = read_fit_inputs(self, X, None, None)
        if self.generator is None and isinstance(inputs.features, pd.DataFrame):
            gen.set_params(codec=TableCodec(dependencies=False))
        self.generator_ = gen.fit(X)
        numbers = [(j, column) for j, column in enumerate(gen.codec_.columns_) if isinstance(column, NumericColumn)]
        self._marginals = {j: Marginal(column.values_, column.counts_) for j, column in numbers}
        self._floor = np.inf
        scores = self.score_samples(X)
        if is_number(share):
            self.offset_ = float(np.percentile(scores, 100 * float(share)))
        else:
            low, high = np.percentile(scores, [25, 75])
            self.offset_ = float(low - FENCE * (high - low))
        self._floor = min(self.offset_, float(scores.min()))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return how likely each row is, in nats: the lower, the odder.

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
            For columns that differ from those of `fit`, and infinities.
        """
        check_is_fitted(self)
        model = self.generator_.model_
        codec = model.codec
        features, _ = read_features(self.generator_, X, model.container, [], "none")
        check_rows(features)
        rows = read_rows(codec, pd.DataFrame(features), model.n_samples)
        exact = copy.deepcopy(model.denoiser).cpu().double()

        def bound(data: torch.Tensor, _: np.ndarray) -> np.ndarray:
            parts = []
            for i in range(0, len(data), BATCH):
                batch = data[i : i + BATCH].double()
                bounds = [
                    row_bound(exact, batch, log_snr_max=level, steps=n, n_draws=1, decode=False)
                    for level, n in NOISE_LEVELS.items()
                ]
                parts.append(torch.stack(bounds).mean(dim=0))
            return torch.cat(parts).numpy()

        total = least_likely(codec, rows, bound) + log_jacobian(codec, rows, self._marginals)
        # However likely the rest of the row is.
        odd = rows.cells.any(axis=1)
        return np.where(odd, np.minimum(total, self._floor - rows.surprise), total)

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


class Marginal:
    """Smooth density of a column of numbers.

    Parameters
    ----------
    values, counts : ndarray of shape (k,)
        Distinct values in order, and how often each was seen.
    """

    def __init__(self, values: np.ndarray, counts: np.ndarray) -> None:
        # In units of the largest, so that squares of extreme values neither overflow nor vanish.
        self.unit = float(np.abs(values).max()) or 1.0
        values, n = values / self.unit, counts.sum()
        shares = np.cumsum(counts) / n
        self.mean = float(np.average(values, weights=counts))
        self.spread = float(np.sqrt(np.average((values - self.mean) ** 2, weights=counts))) or 1.0
        low, high = values[np.searchsorted(shares, [0.25, 0.75])]
        robust = (high - low) / 1.34
        self.width = 0.9 * (min(self.spread, robust) if robust > 0 else self.spread) * n**-0.2
        if len(values) > MAX_CENTRES:
            values = values[np.searchsorted(shares, (np.arange(MAX_CENTRES) + 0.5) / MAX_CENTRES)]
            counts = np.ones(MAX_CENTRES)
        self.centres, self.weights = values, counts / counts.sum()
        self.broad = 1.0 / (n + 1.0)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Log of the density of each value (n,), 0 where missing."""
        missing = np.isnan(values)
        with np.errstate(over="ignore"):
            x = np.where(missing, 0.0, np.clip(values / self.unit, -FARTHEST, FARTHEST))
        # In blocks, because each value meets every centre.
        kernels = np.concatenate(
            [
                norm.pdf((x[i : i + BATCH, None] - self.centres) / self.width) @ self.weights / self.width
                for i in range(0, len(x), BATCH)
            ]
        )
        # By its logarithm, which stays finite where the density itself is too small for a float.
        broad = student.logpdf(np.clip((x - self.mean) / self.spread, -FARTHEST, FARTHEST), df=3) - np.log(self.spread)
        with np.errstate(divide="ignore"):
            log_kernels = np.log(kernels)
        log_p = np.logaddexp(np.log1p(-self.broad) + log_kernels, np.log(self.broad) + broad) - np.log(self.unit)
        return np.where(missing, 0.0, log_p)
