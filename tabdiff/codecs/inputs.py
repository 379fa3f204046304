"""Reading what the user passed: which part of it is features and which part condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.validation import validate_data

from tabdiff.codecs import Images, is_anndata
from tabdiff.codecs.conditions.conditions import condition_frame
from tabdiff.codecs.conditions.scalar import is_scalar
from tabdiff.codecs.sequences import SequenceForm, read_sequences
from tabdiff.io.cell_files import is_cell_file, open_cells
from tabdiff.io.csv_files import CsvForm
from tabdiff.io.frame_source import FrameSource, frames_of, is_frame_source, open_frames
from tabdiff.io.frames import ForeignFrame
from tabdiff.io.images import is_pil, read_images
from tabdiff.io.modalities import Modalities, is_mudata
from tabdiff.utils.array_likes import as_known, as_numbers, kind_of, read_array
from tabdiff.utils.memory import native
from tabdiff.utils.validation import did_you_mean

__all__ = ["FitInputs", "cell_conditions", "check_container", "check_rows", "read_features", "read_fit_inputs"]


@dataclass
class FitInputs:
    """What `fit` was given, taken apart.

    Attributes
    ----------
    features : ndarray, DataFrame, AnnData, Modalities, Images or FrameSource
        What is modelled, without condition columns but for those of rows in files.
    condition : DataFrame or None
        A column per attribute, a row per sample; of rows in files without rows.
    source : {"none", "y", "columns", "obs", "given"}
        Where the condition came from, and so where it belongs on output: nowhere, in columns of the frame, in `obs`.
    columns : Index or None
        Names of all columns of a frame, in order.
    origin : ForeignFrame, CsvForm, SequenceForm or None
        What kind of frame X was, if not pandas', how the csv file was written that it was read from, or in what
        container sequences came.
    n_features : int
        Number of columns, condition columns included, of genes, of values in an image, or of letters at most.
    feature_names : ndarray or None
        Their names, where they are strings.
    """

    features: Any
    condition: pd.DataFrame | None
    source: str
    columns: pd.Index | None = None
    origin: ForeignFrame | CsvForm | SequenceForm | None = None
    n_features: int = 0
    feature_names: np.ndarray | None = None


def check_container(X: Any) -> Any:
    """Return X as an array, frame, cells, images or Series of sequences, or raise a TypeError that says what to do.

    Frames of other libraries (polars, pyarrow) become DataFrames of Arrow columns, lists and other array-likes
    arrays, masked entries NaN, lists and columns of strings sequences; sparse matrices, lazy frames, single columns
    and whatever has names that an array lacks are refused.
    """
    return _read_container(X)[0]


def _read_container(X: Any) -> tuple[Any, ForeignFrame | CsvForm | SequenceForm | None]:
    X = open_cells(X) if is_cell_file(X) else X
    if is_mudata(X):
        return Modalities.read(X), None
    images = read_images(X)
    if images is not None:
        return images, None
    X = as_known(X)
    sequences = read_sequences(X)
    if sequences is not None:
        return sequences
    if isinstance(X, pd.DataFrame) or is_anndata(X):
        return native(X), CsvForm.of(X)
    _refuse_single(X)
    X, origin = (X, None) if isinstance(X, np.ndarray | list | tuple) else ForeignFrame.read(X)
    if origin is not None:
        return X, origin
    array = as_numbers(X)
    return (array if array.ndim < 3 else read_images(array)), None


def _refuse_single(X: Any) -> None:
    """Raise a TypeError for a sparse matrix and for what is one column or one image."""
    if sparse.issparse(X):
        raise TypeError(
            "X is a sparse matrix, which is modelled only inside an AnnData, where its values may be counts. "
            "Pass anndata.AnnData(X.tocsr()) or X.toarray()."
        )
    if isinstance(X, pd.MultiIndex):
        raise TypeError("X must be rows; got a MultiIndex. Pass X.to_frame(index=False).")
    if isinstance(X, pd.Series | pd.Index):
        name = "'x'" if X.name is None else repr(X.name)
        index = "" if isinstance(X, pd.Series) else "index=False, "
        raise TypeError(
            f"X is a {type(X).__name__}; pass a DataFrame, X.to_frame({index}name={name}). Only strings and lists of "
            "integers are sequences."
        )
    kind = kind_of(X)
    if isinstance(X, pd.api.extensions.ExtensionArray):
        raise TypeError(f"X is a {kind}, a single column; pass a frame that has it, pandas.DataFrame({{'x': X}}).")
    if kind == "polars.Series":
        raise TypeError(f"X is a {kind}, a single column; pass a frame that has it, X.to_frame().")
    if kind.startswith("pyarrow.") and kind.endswith("Array"):
        raise TypeError(f"X is a {kind}, a single column; pass a table that has it, pyarrow.table({{'x': X}}).")
    if is_pil(X):
        raise TypeError("X is one PIL image; pass a list of them, [X, ...].")


def _check_array(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Validate a numeric array (n, d); NaN is missing, an infinity is an error that names its column."""
    if X.ndim == 1:
        raise ValueError(
            f"Expected 2D array, got 1D array instead: X has shape {X.shape}. Reshape your data, with "
            "numpy.reshape(X, (-1, 1)) if it is a single column, or numpy.reshape(X, (1, -1)) if it is a single row."
        )
    array = validate_data(
        estimator,
        X,
        reset=reset,
        dtype="numeric",
        ensure_all_finite=False,
        ensure_min_samples=2 if reset else 1,
    )
    if array.dtype.kind == "f":
        infinite = np.isinf(array)
        if infinite.any():
            columns = np.flatnonzero(infinite.any(axis=0)).tolist()
            raise ValueError(
                f"Input X contains infinity in column(s) {columns}. Replace it by a finite value, or by NaN, which is "
                "modelled as missing."
            )
    return array


def _as_names(condition: Any, names: list, n_rows: int) -> list | None:
    """Return the column names that a condition stands for, or None if it holds values."""
    if isinstance(condition, str):
        return [condition]
    # Names of columns may also be numbers, times, or tuples where there are several levels of them.
    single = condition is not None and (is_scalar(condition) or isinstance(condition, tuple))
    if single and condition in names:
        return [condition]
    is_list = isinstance(condition, list | tuple) and len(condition) > 0
    known = (
        is_list and all(is_scalar(c) or isinstance(c, tuple) for c in condition) and all(c in names for c in condition)
    )
    if is_list and all(isinstance(c, str) for c in condition):
        # A list of labels, one for each row, is values; anything else of strings is meant as names.
        return list(condition) if len(condition) != n_rows or known else None
    return list(condition) if known and len(condition) != n_rows else None


def read_fit_inputs(
    estimator: Any, X: Any, y: Any, condition: Any, *, in_files: bool = False, cache_dir: Any = None
) -> FitInputs:
    """Take apart what `fit` was given; see `_read_fit_inputs`. The estimator gets the names and number of features.

    With `in_files` X may be a table that is read some rows at a time; see `tabdiff.io.frame_source.open_frames`.
    """
    frames = frames_of(X) if in_files else None
    if frames is not None or (in_files and is_frame_source(X)):
        if y is not None and condition is not None:
            raise ValueError("y must be left out where X is read from files; got it beside condition.")
        inputs = _read_frame_source(estimator, open_frames(X if frames is None else frames, cache_dir), y, condition)
    else:
        inputs = _read_fit_inputs(estimator, X, y, condition)
    names = vars(estimator).get("feature_names_in_")
    return replace(inputs, n_features=estimator.n_features_in_, feature_names=names)


def _read_fit_inputs(estimator: Any, X: Any, y: Any, condition: Any) -> FitInputs:
    """Take apart what `fit` was given.

    Raises
    ------
    ValueError
        For y together with condition, unknown column names, lengths that differ, too few rows.
    TypeError
        For a container that is not supported.
    """
    if y is not None and condition is not None:
        raise ValueError("y and condition were both given; y is the same as condition=y, so pass one of them.")
    X, origin = _read_container(X)
    if is_anndata(X) or isinstance(X, Modalities):
        return _read_cells(estimator, X, y, condition)
    if isinstance(X, Images):
        return _read_images(estimator, X, y, condition)
    if isinstance(X, pd.Series):
        return _read_sequences(estimator, X, origin, y, condition)
    if not isinstance(X, pd.DataFrame):
        if isinstance(condition, str):
            raise ValueError(
                f"condition={condition!r} names a column, which needs a DataFrame or AnnData; X is an array. "
                "Pass an array with a value per row instead."
            )
        given = _given(y, condition, len(X) if X.ndim else None, None)
        return FitInputs(_check_array(estimator, X, reset=True), *given)
    if X.columns.has_duplicates:
        repeated = X.columns[X.columns.duplicated()].unique().to_list()
        raise ValueError(f"column names must be unique, but {repeated} stand more than once. Rename them.")
    if len(X) < 2 or X.shape[1] == 0:
        raise ValueError(
            f"Found a DataFrame with {len(X)} sample(s) and {X.shape[1]} feature(s) (shape={X.shape}), while a minimum "
            "of 2 samples and 1 feature is required."
        )
    names = _as_names(condition, list(X.columns), len(X))
    if names is None:
        given = _given(y, condition, len(X), X.index)
        validate_data(estimator, X, skip_check_array=True)
        return FitInputs(X, *given, X.columns, origin)
    for name in names:
        if name not in X.columns:
            raise ValueError(
                f"condition names the column {name!r}, which X lacks.{did_you_mean(name, list(X.columns))} "
                f"Columns: {list(X.columns)}."
            )
    features, given = _split(X, names)
    if features.shape[1] == 0:
        raise ValueError("every column of X is a condition, so nothing is left to model.")
    # Last, because it marks the estimator: an error above leaves a fitted one as it was.
    validate_data(estimator, X, skip_check_array=True)
    return FitInputs(features, given, "columns", X.columns, origin)


def _read_frame_source(estimator: Any, source: FrameSource, y: Any, condition: Any) -> FitInputs:
    if y is not None:
        raise ValueError(
            "y must be left out where X is read from files; got values. Write them as a column, and name it: "
            "condition='y'."
        )
    # Values could have any length here, and would be in the order of rows that nobody sees.
    names = [] if condition is None else _as_names(condition, source.names, -1)
    if names is None:
        raise ValueError(
            "condition must name columns where X is read from files; got values. Write them as a column, and name it."
        )
    for name in names:
        if name not in source.names:
            raise ValueError(
                f"condition names the column {name!r}, which X lacks.{did_you_mean(name, source.names)} "
                f"Columns: {source.names}."
            )
    if len(names) == len(source.names):
        raise ValueError("every column of X is a condition, so nothing is left to model.")
    estimator.n_features_in_ = len(source.names)
    estimator.feature_names_in_ = np.asarray(source.names, dtype=object)
    given = pd.DataFrame(columns=pd.Index(names, dtype=object)) if names else None
    kind = "columns" if names else "none"
    return FitInputs(source, given, kind, pd.Index(source.names), source.origin)


def _split(X: pd.DataFrame, names: list) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the other columns and those of the names, by position: names that are booleans would be a mask."""
    taken = [list(X.columns).index(name) for name in names]
    features = X.iloc[:, [j for j in range(X.shape[1]) if j not in taken]]
    return features, X.iloc[:, taken].reset_index(drop=True).set_axis(pd.Index(names, tupleize_cols=False), axis=1)


def _read_cells(estimator: Any, X: Any, y: Any, condition: Any) -> FitInputs:
    if X.n_obs < 2 or X.n_vars == 0:
        kind = "a MuData" if isinstance(X, Modalities) else "an AnnData"
        raise ValueError(f"Found {kind} of {X.n_obs} cells × {X.n_vars} genes; at least 2 × 1 are required.")
    keys = [*X.obs.columns, *X.obsm]
    names = _as_names(condition, keys, X.n_obs)
    if names is None:
        inputs = FitInputs(X, *_given(y, condition, X.n_obs, X.obs_names))
        _mark(estimator, X)
        return inputs
    for name in names:
        if name not in keys:
            what, hint = ("mdata", _in_modality(X, name)) if isinstance(X, Modalities) else ("adata", "")
            raise ValueError(
                f"condition names {name!r}, which {what}.obs lacks.{hint or did_you_mean(name, keys)} Columns of obs: "
                f"{list(X.obs.columns)}" + (f", keys of obsm: {list(X.obsm)}." if len(X.obsm) else ".")
            )
    _mark(estimator, X)
    return FitInputs(X, cell_conditions(X, names), "obs")


def _in_modality(cells: Modalities, name: Any) -> str:
    own = [key for key, adata in cells.mod.items() if name in adata.obs]
    return f" A modality has it: mdata.obs[{name!r}] = mdata[{own[0]!r}].obs[{name!r}]." if own else ""


def cell_conditions(adata: Any, names: list) -> pd.DataFrame:
    """Return columns of ``adata.obs``, and keys of ``adata.obsm`` as columns of vectors, with a row per cell."""
    columns: dict[Any, Any] = {}
    for name in names:
        if name in adata.obs:
            columns[name] = adata.obs[name].reset_index(drop=True)
            continue
        values = adata.obsm[name]
        values = values.toarray() if sparse.issparse(values) else read_array(values, f"obsm[{name!r}]")
        columns[name] = pd.Series(list(values.reshape(len(values), -1) if values.ndim == 1 else values))
    return pd.DataFrame(columns)


def _read_images(estimator: Any, images: Images, y: Any, condition: Any) -> FitInputs:
    if len(images) < 2:
        raise ValueError(f"Found {len(images)} image(s), while a minimum of 2 is required.")
    if isinstance(condition, str):
        raise ValueError(
            f"condition={condition!r} names a column, which images do not have. Pass an array with a value per image "
            "instead, or a folder with a subfolder for each class."
        )
    if y is None and condition is None and images.classes is not None:
        condition = pd.Series(images.classes, name="class")
    given = _given(y, condition, len(images), None)
    estimator.n_features_in_ = images.shape[1]
    return FitInputs(images, *given)


def _read_sequences(estimator: Any, X: pd.Series, origin: Any, y: Any, condition: Any) -> FitInputs:
    if len(X) < 2:
        raise ValueError(f"Found {len(X)} sequence(s) (shape={X.shape}), while a minimum of 2 samples is required.")
    if isinstance(condition, str):
        raise ValueError(
            f"condition={condition!r} names a column, which sequences have not. Pass a value per sequence."
        )
    inputs = FitInputs(X, *_given(y, condition, len(X), X.index), origin=origin)
    estimator.n_features_in_ = int(max(len(sequence) for sequence in X))
    return inputs


def _mark(estimator: Any, adata: Any) -> None:
    estimator.n_features_in_ = int(adata.n_vars)
    estimator.feature_names_in_ = np.asarray(adata.var_names, dtype=object)


def _given(y: Any, condition: Any, n_rows: int | None, index: pd.Index | None) -> tuple[pd.DataFrame | None, str]:
    if y is not None:
        return condition_frame(y, n_rows, "y", index), "y"
    if condition is not None:
        return condition_frame(condition, n_rows, "condition", index), "given"
    return None, "none"


_FITTED = {
    "array": "an array",
    "table": "a DataFrame",
    "cells": "an AnnData",
    "multimodal": "a MuData",
    "images": "images",
    "sequences": "sequences",
}


def check_rows(X: Any) -> None:
    """Raise a ValueError for rows of which there is none: no likelihood is theirs."""
    if X.shape[0] == 0:
        raise ValueError("X must hold at least one row; got none. Select rows that are there.")


def read_features(estimator: Any, X: Any, container: str, names: list, source: str) -> tuple[Any, pd.DataFrame | None]:
    """Check X against what was fitted; return its features and, where X carries it, its condition.

    Parameters
    ----------
    estimator : DiffusionGenerator
        Fitted, for its feature names.
    X : ndarray, DataFrame, frame of another library or AnnData
        What `score_samples` was given.
    container : {"array", "table", "cells", "multimodal", "images", "sequences"}
        What was fitted.
    names : list
        Names of the condition's attributes.
    source : str
        Where the condition was at fit; see `FitInputs`.
    """
    X = check_container(X)
    if isinstance(X, Modalities) and container != "multimodal":
        raise TypeError(
            f"the model was fitted on {_FITTED[container]}, and X is a MuData. Pass one modality, "
            f"X[{next(iter(X.mod))!r}], to a model of AnnData."
        )
    if container in ("cells", "multimodal"):
        if not (is_anndata(X) if container == "cells" else isinstance(X, Modalities)):
            fitted = _FITTED[container]
            raise TypeError(f"the model was fitted on {fitted}, so X must be one too; got {type(X).__name__}.")
        has_condition = source == "obs" and all(name in X.obs or name in X.obsm for name in names)
        return X, cell_conditions(X, names) if has_condition else None
    if container == "images" or isinstance(X, Images):
        if not isinstance(X, Images) or container != "images":
            there = f"on {'images' if container == 'images' else 'no images'}"
            here = f"images of shape {X.shape}" if isinstance(X, Images) else type(X).__name__
            raise TypeError(f"the model was fitted {there}; got {here} as X.")
        names_known = source == "given" and X.classes is not None and names == ["class"]
        return X, pd.DataFrame({"class": X.classes}) if names_known else None
    if (container == "sequences") != isinstance(X, pd.Series):
        fitted, given = ("sequences", "something else") if container == "sequences" else (f"a {container}", "sequences")
        raise TypeError(f"the model was fitted on {fitted}, and X is {given} ({type(X).__name__}).")
    if container == "sequences":
        return X, None
    if container == "array":
        return _check_array(estimator, X, reset=False), None
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"the model was fitted on a DataFrame, so X must be one too; got {type(X).__name__}.")
    if source != "columns":
        validate_data(estimator, X, reset=False, skip_check_array=True)
        return X, None
    if all(name in X.columns for name in names):
        validate_data(estimator, X, reset=False, skip_check_array=True)
        return _split(X, names)
    expected = [name for name in estimator.feature_names_in_ if name not in names]
    if list(X.columns) != expected:
        raise ValueError(
            f"X must have the columns {list(estimator.feature_names_in_)}, or all but the condition's {names}; "
            f"got {list(X.columns)}."
        )
    return X, None
