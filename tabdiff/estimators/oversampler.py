"""Classes balanced with synthetic rows of a class-conditional diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils.multiclass import type_of_target

from tabdiff.codecs.columns import LevelLookup, plain
from tabdiff.codecs.inputs import read_fit_inputs
from tabdiff.estimators.base import clone_generator, refuse_all_but_tables
from tabdiff.estimators.generator import DiffusionGenerator
from tabdiff.io.frames import ForeignFrame
from tabdiff.training import TrainingOptions
from tabdiff.utils.array_likes import as_numbers, as_values, kind_of, read_array
from tabdiff.utils.validation import did_you_mean, is_integer, is_number

__all__ = ["DiffusionOverSampler"]

# Only rows given a class are drawn, never columns given others.
DEFAULTS = {"training": TrainingOptions(observed_masks=0.0)}
NAMES = ("auto", "not majority", "minority", "not minority", "all")


class DiffusionOverSampler(OneToOneFeatureMixin, BaseEstimator):
    """Add synthetic rows of the rarer classes, drawn from a diffusion model that is conditioned on the class.

    One model learns all classes, so that what they share is learned from all rows. Tables may mix numbers, categories
    and dates, with missing values; columns, dtypes and labels stay as they are. It is a sampler as imbalanced-learn
    means it, and a step of ``imblearn.pipeline.Pipeline``, but does not need that library.

    Parameters
    ----------
    generator : DiffusionGenerator, optional
        Model to clone and fit with the classes as its condition; by default
        ``DiffusionGenerator(training=TrainingOptions(observed_masks=0.0))``.
    sampling_strategy : str, float, dict or callable, default="auto"
        How many rows there are to be of each class:

        - "minority": as many of the rarest class as of the commonest. "not minority": of all classes but the rarest.
          "not majority", and "auto", which is the same, and "all": of every class.
        - A number in (0, 1], for two classes: as many rows of the rarer one as this ratio times the commoner one's.
        - A dict from labels to the number of rows, real and synthetic together. Other classes stay as they are.
        - A callable that takes y and returns such a dict.
    random_state : int, RandomState or None, default=None
        Seeds the fit and the draws. None leaves the `random_state` of `generator`.

    Attributes
    ----------
    generator_ : DiffusionGenerator or None
        The fitted model; None where there was nothing to draw, and nothing was learned.
    sampling_strategy_ : dict
        Number of synthetic rows by label.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they are strings.

    See Also
    --------
    DiffusionGenerator : The model, which draws rows for any condition.

    Notes
    -----
    A class in `sampling_strategy` that y lacks is an error that names the nearest, as a condition that a generator has
    not seen is (``docs/unseen.md``).

    Whether synthetic rows help depends on the classifier and on what it is judged by. They change the share of the
    classes, so that predicted probabilities are no longer calibrated (van den Goorbergh et al., 2022); for ranking,
    weights of the classes or another threshold often do as well.

    References
    ----------
    Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", 2002; van den Goorbergh et al., "The harm of
    class imbalance corrections for risk prediction models", 2022, https://doi.org/10.1093/jamia/ocac093.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator, DiffusionOverSampler
    >>> from tabdiff.datasets import load_penguins
    >>> X = load_penguins()
    >>> y = X.pop("species")
    >>> y.value_counts().to_dict()
    {'Adelie': 152, 'Gentoo': 124, 'Chinstrap': 68}
    >>> quick = DiffusionGenerator(max_steps=20, random_state=0)  # 20 steps show the API; leave generator out
    >>> X_more, y_more = DiffusionOverSampler(quick).fit_resample(X, y)
    >>> y_more.value_counts().sort_index().to_dict()
    {'Adelie': 152, 'Chinstrap': 152, 'Gentoo': 152}
    >>> X_more.head(344).equals(X), X_more.dtypes.equals(X.dtypes)
    (True, True)
    """

    def __init__(
        self,
        generator: DiffusionGenerator | None = None,
        *,
        sampling_strategy: str | float | Mapping[Any, int] | Callable[[Any], Mapping[Any, int]] = "auto",
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.sampling_strategy = sampling_strategy
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the rows of each class.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            In any form that `DiffusionGenerator.fit` takes, but AnnData. It is never changed.
        y : array-like of shape (n_samples,)
            Classes.

        Returns
        -------
        DiffusionOverSampler
            The fitted sampler.

        Raises
        ------
        ValueError
            For a y that is no classes, or a single one, or has missing values; a `sampling_strategy` out of range or
            that would need rows to be removed; lengths that differ; infinities.
        TypeError
            For a generator that is none, and containers or columns that cannot be modelled.
        """
        gen = clone_generator(self.generator, self.random_state, DEFAULTS)
        refuse_all_but_tables(X, "DiffusionOverSampler")
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None: it holds the classes to balance.")
        inputs = read_fit_inputs(self, X, y, None)
        frame = inputs.condition
        assert frame is not None
        if frame.shape[1] != 1:
            raise ValueError(f"y must be a single column of classes; got {frame.shape[1]} columns.")
        labels = _check_labels(frame.iloc[:, 0])
        self.sampling_strategy_ = read_strategy(self.sampling_strategy, y, labels)
        self.generator_ = None
        if any(self.sampling_strategy_.values()):
            # As categories, because many integers or any floats would be numbers to the generator.
            classes = labels.astype("category").rename("y")
            if isinstance(X, pd.DataFrame):
                classes.index = X.index
            self.generator_ = gen.fit(X, classes)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Learn the rows of each class, and return them with synthetic ones behind.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            In any form that `DiffusionGenerator.fit` takes, but AnnData. It is never changed.
        y : array-like of shape (n_samples,)
            Classes.

        Returns
        -------
        X_resampled : ndarray or DataFrame of shape (n_samples_new, n_features)
            The rows of X, then the synthetic ones, class by class. A DataFrame gets a new index.
        y_resampled : ndarray, Series, list or DataFrame of shape (n_samples_new,)
            Their classes, in the container of y, with its name and dtype.

        Raises
        ------
        ValueError
            As in `fit`.
        TypeError
            As in `fit`.
        """
        self.fit(X, y)
        wanted = [label for label, n in self.sampling_strategy_.items() for _ in range(n)]
        rows = self.generator_.sample(condition=pd.Series(wanted, dtype=object)) if self.generator_ else None
        return _join(X, rows), _join_labels(y, wanted)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def read_strategy(strategy: Any, y: Any, labels: pd.Series) -> dict[Any, int]:
    """Return the number of rows to add by label.

    Parameters
    ----------
    strategy : str, float, dict or callable
        See `DiffusionOverSampler`.
    y : object
        What a callable is given.
    labels : Series of shape (n,)
        The class of each row, as objects.

    Raises
    ------
    ValueError
        For what it cannot be, unknown labels, and what would need rows to be removed.
    TypeError
        If a callable returns something other than a dict.
    """
    try:
        codes, values = pd.factorize(labels, sort=True)
    except TypeError:  # classes that have no order stand as they appear
        codes, values = pd.factorize(labels)
    counts = dict(zip(values.tolist(), np.bincount(codes).tolist()))
    largest, commonest, rarest = max(counts.values()), *(f(counts, key=counts.__getitem__) for f in (max, min))
    if callable(strategy):
        strategy = strategy(y)
        if not isinstance(strategy, Mapping):
            raise TypeError(f"a callable sampling_strategy must return a dict; got {strategy!r:.80}.")
    if isinstance(strategy, str) and strategy in NAMES:
        targets = {
            "minority": [rarest],
            "not minority": [label for label in counts if label != rarest],
        }.get(strategy, [label for label in counts if strategy == "all" or label != commonest])
        return {label: largest - counts[label] for label in targets}
    if isinstance(strategy, Mapping):
        return _read_counts(strategy, counts)
    if not is_number(strategy) or not 0 < strategy <= 1:
        raise ValueError(
            f"sampling_strategy must be one of {NAMES}, a number in (0, 1], a dict from labels to numbers of rows or a "
            f"callable that returns one; got {strategy!r}."
        )
    if len(counts) != 2:
        raise ValueError(
            f"sampling_strategy={strategy!r} is a ratio of two classes, but y has {len(counts)}. Use a dict from "
            "labels to numbers of rows."
        )
    rare = next(label for label in counts if label != commonest)
    asked = int(largest * strategy)
    if asked < counts[rare]:
        raise ValueError(
            f"sampling_strategy={strategy!r} asks for {asked} rows of {rare!r}, but there are {counts[rare]} already, "
            f"a ratio of {counts[rare] / largest:.3g}, and over-sampling removes none. Use a ratio above it."
        )
    return {rare: asked - counts[rare]}


def _read_counts(strategy: Mapping, counts: dict[Any, int]) -> dict[Any, int]:
    lookup, labels = LevelLookup(counts), list(counts)
    strategy = {labels[i] if (i := lookup.find(label)) >= 0 else label: n for label, n in strategy.items()}
    unknown = [label for label in strategy if label not in counts]
    if unknown:
        hint = did_you_mean(unknown[0], counts)
        raise ValueError(f"sampling_strategy names the class {unknown[0]!r}, which y lacks.{hint} It has {counts}.")
    for label, n in strategy.items():
        if not is_integer(n):
            raise ValueError(f"sampling_strategy: the rows of {label!r} must be an integer; got {n!r}.")
        if n < counts[label]:
            raise ValueError(
                f"sampling_strategy asks for {n} rows of {label!r}, but there are {counts[label]} already, and "
                "over-sampling removes none. The number is that of real and synthetic rows together."
            )
    return {label: int(strategy[label]) - counts[label] for label in counts if label in strategy}


def _check_labels(series: pd.Series) -> pd.Series:
    """Return classes (n,) as objects: numbers, strings, or whatever else has an order, such as intervals and dates."""
    if series.isna().any():
        raise ValueError(f"y has {int(series.isna().sum())} missing values (NaN). Drop these rows.")
    values = [plain(v) for v in series.astype(object)]
    numbers, text = (all(isinstance(v, kind) for v in values) for kind in (Number, str))
    kinds = sorted({type(v).__name__ for v in values})
    if len(kinds) > 1 and not (numbers or text):
        raise ValueError(f"the classes in y must be of one type; got {kinds}. Use pandas.Series(y).astype(str).")
    if all(isinstance(v, int | float | complex) for v in values) and not isinstance(series.dtype, pd.CategoricalDtype):
        kind = type_of_target(np.array(values))
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                f"Unknown label type: {kind}. y must hold classes; got values such as {values[0]!r}. Bin a "
                "continuous target first, for example with pandas.qcut(y, 4, duplicates='drop')."
            )
    labels = pd.Series(values, dtype=object)
    if labels.nunique() < 2:
        raise ValueError(f"y has one class only, {values[0]!r}: there is nothing to balance.")
    return labels


def _join(X: Any, rows: Any) -> Any:
    """Return X with rows behind, in its container."""
    if isinstance(X, pd.DataFrame):
        return X.reset_index(drop=True) if rows is None else pd.concat([X, rows], ignore_index=True)
    if ForeignFrame.read(X)[1] is not None:
        return X if rows is None else nw.concat([nw.from_native(X), nw.from_native(rows)]).to_native()
    array = as_numbers(X)
    out = array.copy() if rows is None else np.concatenate([array, rows.astype(array.dtype)])
    return out.tolist() if isinstance(X, list) else out


def _join_labels(y: Any, labels: list) -> Any:
    """Return y with labels behind, in its container."""
    if isinstance(y, pd.DataFrame):
        return _join_labels(y.iloc[:, 0], labels).to_frame()
    if isinstance(y, pd.Series):
        return pd.concat([y, pd.Series(labels, dtype=y.dtype, name=y.name)], ignore_index=True)
    if isinstance(y, list | tuple):
        return type(y)([*y, *labels])
    if isinstance(y, pd.Index | pd.api.extensions.ExtensionArray):
        series = _join_labels(as_values(y, "y"), labels)
        return series.array if isinstance(y, pd.api.extensions.ExtensionArray) else pd.Index(series, name=y.name)
    if kind_of(y).startswith("pyarrow.") and not isinstance(y, str) and kind_of(y) != "pyarrow.ChunkedArray":
        import pyarrow as pa

        return pa.concat_arrays([y, pa.array(labels, type=y.type)])
    series = nw.from_native(y, pass_through=True, allow_series=True)
    if isinstance(series, nw.Series):
        more = nw.new_series(series.name, labels, series.dtype, backend=series.implementation)
        return nw.concat([series.to_frame(), more.to_frame()])[series.name].to_native()
    array = read_array(y, "y")
    return np.concatenate([array, np.array(labels, dtype=array.dtype).reshape(-1, *array.shape[1:])])
