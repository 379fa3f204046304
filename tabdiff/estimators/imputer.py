"""Missing values filled by a diffusion model, as a scikit-learn transformer."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_is_fitted, validate_data

from tabdiff.codecs.columns import is_numeric
from tabdiff.codecs.inputs import check_container, read_features, read_fit_inputs
from tabdiff.codecs.tables.observed import patch
from tabdiff.estimators.base import clone_generator, refuse_all_but_tables
from tabdiff.estimators.generator import DiffusionGenerator
from tabdiff.generation.imputation import check_masks, impute
from tabdiff.generation.options import SamplingOptions
from tabdiff.io.frames import ForeignFrame
from tabdiff.training.options import options_of
from tabdiff.utils.array_likes import as_known

__all__ = ["DiffusionImputer"]

# What is drawn from the model is neither refined nor led.
DEFAULTS = {"refine": False, "autoguidance": 1.0}


class DiffusionImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill missing values given the values that are there, by a diffusion model of all columns at once.

    The model is learned from the rows of `fit`, missing values and all, and fills those of any rows later. Values are
    taken to be missing at random: what is missing depends on the cells that are there only (Rubin, 1976). Arrays come
    back as arrays, DataFrames as DataFrames with the same dtypes: numbers, categories, text, booleans, dates.

    Parameters
    ----------
    generator : DiffusionGenerator, optional
        Model to clone and fit; by default ``DiffusionGenerator(refine=False, autoguidance=1.0)``. It needs
        ``observed_masks`` above 0 and no callable ``denoiser``.
    missing_values : int, float, str, None or pandas.NA, default=numpy.nan
        What stands for a missing value. NaN, None and pandas.NA all mean every value that pandas takes to be missing;
        with another value such values are an error, as in scikit-learn.
    add_indicator : bool, default=False
        Whether a column of 0 and 1 follows for each column that had missing values in `fit`, that says where they were.
    keep_empty_features : bool, default=False
        Whether columns without any value in `fit` are kept, their missing values filled with 0, which only columns of
        numbers can hold. By default they are left out.
    sample_posterior : bool, default=False
        False fills in the best guess: the mean of numbers, rounded where the column holds integers or times, and the
        likeliest level of categories. True fills in a draw from what the model believes, which keeps the spread of the
        columns and how they depend on each other. For multiple imputation (Rubin, 1987) fit with several
        `random_state`.
    random_state : int, RandomState or None, default=None
        Seeds the fit and what is drawn. None leaves the `random_state` of `generator`.

    Attributes
    ----------
    generator_ : DiffusionGenerator
        The fitted model, of the columns that are not empty.
    indicator_ : MissingIndicator or None
        What adds the columns of `add_indicator`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they are strings.

    See Also
    --------
    DiffusionGenerator.impute : The same from a fitted generator, with several draws and conditions.
    sklearn.impute.IterativeImputer : A regression a column, in rounds.

    Notes
    -----
    A fitted imputer is a function of the row: what fills it does not depend on the rows beside it, their order or how
    often `transform` was called. It is evaluated in float64 for that, which takes longer than the `impute` of a
    generator, up to five times where the processor multiplies bfloat16. With ``sample_posterior=True`` the k-th of
    several equal rows gets the k-th draw.

    What was never seen in `fit` follows the rule of `DiffusionGenerator.impute` (``docs/unseen.md``): a category stays
    in the output, with a warning, and says nothing about the missing values beside it; a number outside its range stays
    and counts as the end of that; a missing value in a column that had none is filled.

    Whole numbers without missing values come back as floats from arrays, as with scikit-learn's imputers; columns of
    DataFrames keep their dtype.

    References
    ----------
    Rubin, "Inference and missing data", 1976; Rubin, "Multiple imputation for nonresponse in surveys", 1987. Diffusion
    given part of a row: Tashiro et al., 2021, https://arxiv.org/abs/2107.03502; Zheng and Charoenphakdee, 2022,
    https://arxiv.org/abs/2210.17128.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator, DiffusionImputer
    >>> from tabdiff.datasets import load_penguins
    >>> penguins = load_penguins()
    >>> quick = DiffusionGenerator(max_steps=20, random_state=0)  # 20 steps show the API; leave generator out
    >>> filled = DiffusionImputer(generator=quick).fit_transform(penguins)
    >>> int(penguins.isna().sum().sum()), int(filled.isna().sum().sum())
    (19, 0)
    >>> filled.dtypes.equals(penguins.dtypes)
    True
    """

    def __init__(
        self,
        generator: DiffusionGenerator | None = None,
        *,
        missing_values: Any = np.nan,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        sample_posterior: bool = False,
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.missing_values = missing_values
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.sample_posterior = sample_posterior
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows with missing values.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Numbers, or a DataFrame with columns of any kind; a frame of polars or pyarrow too. It is never changed.
        y : object
            Ignored.

        Returns
        -------
        DiffusionImputer
            The fitted imputer.

        Raises
        ------
        ValueError
            For a parameter out of range, infinities, missing values beside a `missing_values` that is none, no value
            at all, an empty column that is to be kept and cannot hold 0, or a generator that cannot fill missing
            values.
        TypeError
            For a generator that is none, and containers or columns that cannot be modelled.
        """
        for name in ("add_indicator", "keep_empty_features", "sample_posterior"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}.")
        gen = clone_generator(self.generator, self.random_state, DEFAULTS)
        masks = options_of(gen.training).observed_masks
        if callable(gen.denoiser) or masks == 0:
            raise ValueError(
                "the generator must have observed_masks above 0 and no callable denoiser, to fill missing values; got "
                f"observed_masks={masks!r}, denoiser={gen.denoiser!r}."
            )
        table, is_missing, _ = self._read(X, reset=True)
        empty: np.ndarray = np.asarray(is_missing.all(axis=0))
        self._check_empty(table, empty)
        gen.fit(_columns(table, ~empty))
        check_masks(gen.model_, "DiffusionImputer")
        self.generator_, self._empty = gen, empty
        self._array = isinstance(table, np.ndarray)
        self._names = None if self._array else table.columns
        self._seed = gen.model_.seed()
        self.indicator_ = MissingIndicator(error_on_new=False).fit(_marks(is_missing)) if self.add_indicator else None
        return self

    def transform(self, X: Any) -> Any:
        """Fill the missing values of rows.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows with the columns of `fit`. It is never changed.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features_out)
            In the container of X, or the one that `set_output` asked for.

        Raises
        ------
        ValueError
            For columns that differ from those of `fit`, and infinities.
        TypeError
            For columns of another kind than in `fit`.

        Warns
        -----
        UserWarning
            For categories that were not there in `fit`.
        """
        check_is_fitted(self)
        table, is_missing, origin = self._read(X, reset=False)
        plain = isinstance(table, np.ndarray) and not self._array
        if plain:
            table = pd.DataFrame(table, columns=self._names)
        known: np.ndarray = ~self._empty
        rows = _columns(table, known)
        model = self.generator_.model_
        features, own = read_features(self.generator_, rows, model.container, [], "none")
        filled = impute(
            model,
            features,
            own,
            rows,
            condition=None,
            n_draws=1,
            strategy="draw" if self.sample_posterior else "mean",
            options=SamplingOptions(),
            seed=self._seed,
            by_row=True,
        )
        out: Any
        if self._array:
            out = np.where(is_missing, 0, table).astype(np.promote_types(table.dtype, filled.dtype))
            out[:, known] = filled
            out = out if self.keep_empty_features else out[:, known]
        else:
            marked = isinstance(X, pd.DataFrame) and not self._means_nan()
            out = self._put_in(table, is_missing, filled, X.dtypes if marked else None)
        if self.indicator_ is not None:
            marks = self.indicator_.transform(_marks(is_missing))
            if self._array:
                out = np.hstack([out, marks.astype(out.dtype)])
            else:
                names = self.get_feature_names_out()[out.shape[1] :]
                out = pd.concat([out, pd.DataFrame(marks, index=out.index, columns=names)], axis=1)
        if plain:
            return out.to_numpy()
        return out if origin is None else origin.write(out)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of `fit`, where it was given an array.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        names = super().get_feature_names_out(input_features)
        kept = names if self.keep_empty_features else names[~self._empty]
        return kept if self.indicator_ is None else np.append(kept, self.indicator_.get_feature_names_out(names))

    def _put_in(self, table: pd.DataFrame, is_missing: np.ndarray, filled: pd.DataFrame, dtypes: Any) -> pd.DataFrame:
        """Return the table with its missing values filled; `dtypes` are those from before these were marked as such."""
        places = {int(j): i for i, j in enumerate(np.flatnonzero(~self._empty))}
        kept = [j for j in range(table.shape[1]) if j in places or self.keep_empty_features]
        columns = []
        for j in kept:
            series, absent = table.iloc[:, j], is_missing[:, j]
            if j not in places:
                series = series.mask(absent, 0)
            elif absent.any():
                series = patch(series, absent, filled.iloc[:, places[j]][absent])
            dtype = table.dtypes.iloc[j] if dtypes is None else dtypes.iloc[j]
            columns.append(_as_before(series, dtype, always=dtypes is not None))
        out = pd.concat(columns, axis=1)
        out.columns = table.columns[kept]
        return out

    # ------------------------------------------------------------- reading

    def _read(self, X: Any, *, reset: bool) -> tuple[Any, np.ndarray, ForeignFrame | None]:
        """Check X; return it with its missing values as such, their mask, and the kind of frame if not pandas'."""
        X = as_known(X)
        refuse_all_but_tables(X, "DiffusionImputer")
        X, origin = (X, None) if isinstance(X, pd.DataFrame) else ForeignFrame.read(X)
        if isinstance(X, pd.DataFrame) and (reset or not self._array):
            if reset:
                read_fit_inputs(self, X, None, None)
            else:
                validate_data(self, X, reset=False, skip_check_array=True)
        else:
            X = validate_data(
                self,
                check_container(X),
                reset=reset,
                dtype=(np.float64, np.float32),
                ensure_all_finite="allow-nan",
                ensure_min_samples=2 if reset else 1,
            )
            origin = None
        is_missing = self._find_missing(X)
        if self._means_nan():
            return X, is_missing, origin
        if isinstance(X, np.ndarray):
            return np.where(is_missing, np.nan, X), is_missing, origin
        return _punch(X, is_missing), is_missing, origin

    def _means_nan(self) -> bool:
        return bool(np.ndim(self.missing_values) == 0 and pd.isna(self.missing_values))

    def _find_missing(self, X: Any) -> np.ndarray:
        """Return where values are missing, bool of shape (n, n_features)."""
        absent = pd.DataFrame(X).isna().to_numpy()
        if self._means_nan():
            return absent
        if np.ndim(self.missing_values) != 0:
            raise ValueError(f"missing_values must be a single value; got {self.missing_values!r}.")
        if absent.any():
            names = [pd.DataFrame(X).columns[j] for j in np.flatnonzero(absent.any(axis=0))]
            raise ValueError(
                f"Input X contains NaN, in the columns {names}, but missing_values={self.missing_values!r} says that "
                "another value stands for missing ones. Use missing_values=np.nan, or replace them."
            )
        if isinstance(X, np.ndarray):
            if isinstance(self.missing_values, str):
                raise ValueError(f"X holds numbers, so missing_values must be one; got {self.missing_values!r}.")
            return X == self.missing_values
        return np.column_stack([(X.iloc[:, j].astype(object) == self.missing_values) for j in range(X.shape[1])])

    def _check_empty(self, table: Any, empty: np.ndarray) -> None:
        names = np.flatnonzero(empty) if isinstance(table, np.ndarray) else table.columns[empty]
        shown = names.tolist()
        if empty.all():
            raise ValueError(f"X has no value but missing ones: the columns {shown} are all empty.")
        if empty.any() and not self.keep_empty_features:
            warnings.warn(
                f"the columns {shown} have no values and are left out of what transform returns. Drop them, or pass "
                "keep_empty_features=True to have them filled with 0.",
                UserWarning,
                stacklevel=3,
            )
        elif empty.any() and not isinstance(table, np.ndarray):
            wrong = [n for n in names if not (is_numeric(table[n].dtype) or table[n].dtype == object)]
            if wrong:
                raise ValueError(
                    f"keep_empty_features=True fills empty columns with 0, which {wrong} of dtypes "
                    f"{[str(table[n].dtype) for n in wrong]} cannot hold. Drop them or give them values."
                )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._means_nan()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _columns(table: Any, which: np.ndarray) -> Any:
    return table[:, which] if isinstance(table, np.ndarray) else table.loc[:, which]


def _marks(is_missing: np.ndarray) -> np.ndarray:
    """Return what a `MissingIndicator` reads missing values from, whatever the columns hold."""
    return np.where(is_missing, np.nan, 0.0)


def _punch(frame: pd.DataFrame, is_missing: np.ndarray) -> pd.DataFrame:
    """Return the frame with missing values where the mask has them; integers become nullable ones."""
    columns = []
    for j in range(frame.shape[1]):
        series = frame.iloc[:, j]
        if not is_missing[:, j].any():
            columns.append(series)
            continue
        if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iub":
            series = series.convert_dtypes()
        if isinstance(series.dtype, pd.CategoricalDtype):
            # What stands for missing is no level to be filled in.
            columns.append(series.cat.remove_categories(series[is_missing[:, j]].unique().dropna().tolist()))
        else:
            columns.append(series.mask(is_missing[:, j]))
    return pd.concat(columns, axis=1)


def _as_before(series: pd.Series, dtype: Any, *, always: bool) -> pd.Series:
    """Return a column in the dtype that it had, if that holds its values; one of categories or, with `always`, any."""
    if series.dtype == dtype or not (always or isinstance(dtype, pd.CategoricalDtype)):
        return series
    try:
        cast = series.astype(dtype)
    except (TypeError, ValueError):
        return series
    return series if cast.isna().any() else cast
