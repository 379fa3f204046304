"""What a condition is: read at fit, checked and completed at sample.

Each attribute is a class or continuous (`tabdiff.codecs.conditions.scalar`), made of vectors
(`tabdiff.codecs.conditions.vector`) or an image (`tabdiff.codecs.conditions.image`). Encoded, a condition is a float
tensor (n, n_columns) of class codes and standardised values in which NaN is the null token: a column for each
attribute, several for vectors. A missing label at fit is the null token too: its row teaches the unconditional model
alone.
"""

import copy
import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.conditions.image import ImageAttribute, holds_images
from tabdiff.codecs.conditions.scalar import Attribute, is_scalar
from tabdiff.codecs.conditions.text import TextAttribute, encoder_of
from tabdiff.codecs.conditions.vector import VectorAttribute, holds_vectors
from tabdiff.io.frames import to_pandas
from tabdiff.nn import VectorColumns
from tabdiff.utils.array_likes import as_values, check_labels
from tabdiff.utils.validation import did_you_mean, is_integer

__all__ = ["Conditions", "condition_frame", "expand_counts", "resolve_condition"]

NEIGHBOURS = 50


class Conditions:
    """The attributes of a fitted model and the combinations of them that were seen.

    Parameters
    ----------
    frame : DataFrame of shape (n, n_attributes)
        The condition of each training row.
    text_encoder : callable or dict, optional
        See `DiffusionGenerator`.
    sides : tuple of int, optional
        Height and width of the images that are modelled: conditions of that size are images too.

    Attributes
    ----------
    attributes : list of Attribute, VectorAttribute, TextAttribute and ImageAttribute
        An image stands last.
    codes : ndarray of shape (n, n_columns)
        Encoded conditions of the training rows, from which whatever is not asked for at sampling is drawn.
    """

    def __init__(self, frame: pd.DataFrame, text_encoder: Any = None, sides: tuple[int, int] | None = None) -> None:
        if frame.columns.duplicated().any():
            raise ValueError(f"condition names are not unique: {list(frame.columns)}.")
        named = text_encoder if isinstance(text_encoder, Mapping) else ()
        unknown = [name for name in named if name not in frame.columns]
        if unknown:
            raise ValueError(f"text_encoder names {unknown}, which are no conditions. Names: {list(frame.columns)}.")
        attributes = [_attribute(frame.iloc[:, j], name, text_encoder, sides) for j, name in enumerate(frame.columns)]
        self.attributes = sorted(attributes, key=lambda a: a.kind == "image")
        if len([a for a in attributes if a.kind == "image"]) > 1:
            raise ValueError("only one condition can be an image; put several into one, as its channels.")
        if text_encoder is not None and not self.has_text:
            raise ValueError(
                f"text_encoder was given, but none of the conditions {self.names} holds text: strings that are no "
                "categories. Name the condition, text_encoder={name: encoder}, or leave text_encoder out."
            )
        self.codes = self.encode(frame)

    @property
    def names(self) -> list:
        """Names of the attributes, in order."""
        return [a.name for a in self.attributes]

    @property
    def n_levels(self) -> list[int]:
        """Number of classes of each column of the codes, 0 for numbers."""
        return [k for a in self.attributes for k in a.column_levels]

    @property
    def places(self) -> list[slice]:
        """Columns of each attribute."""
        stops = np.cumsum([len(a.column_levels) for a in self.attributes]).tolist()
        return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]

    @property
    def vectors(self) -> list[VectorColumns]:
        """Columns that make up one attribute each, but for an image."""
        own = [(a, at) for a, at in zip(self.attributes, self.places) if a.kind != "image"]
        return [a.columns(at.start) for a, at in own if isinstance(a, VectorAttribute)]

    @property
    def image(self) -> ImageAttribute | None:
        """The attribute that is an image, if there is one."""
        last = self.attributes[-1]
        return last if isinstance(last, ImageAttribute) else None

    def __repr__(self) -> str:
        return f"Conditions({self.attributes})"

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Map a frame that has a column per attribute to float32 codes (n, n_columns)."""
        columns = [a.encode(frame[a.name]).reshape(len(frame), -1) for a in self.attributes]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def decode(self, codes: np.ndarray, condition: Any = None) -> pd.DataFrame:
        """Map codes (n, n_columns) to a frame of labels, numbers and vectors.

        Vectors, texts, numbers and times that `resolve` was given as `condition` come back as they were given.
        """
        blocks = [codes[:, at].astype(np.float64) for at in self.places]
        columns = [
            a.decode(block if isinstance(a, VectorAttribute) else block[:, 0])
            for a, block in zip(self.attributes, blocks, strict=True)
        ]
        inexact = [j for j, a in enumerate(self.attributes) if a.kind != "class"]
        if inexact and condition is not None and not self._is_unconditional(condition):
            given = self._as_columns(to_pandas(as_values(condition, "condition")))
            for j in inexact:
                attribute = self.attributes[j]
                if attribute.name in given:
                    value = given[attribute.name]
                    value = expand_counts(attribute.name, value) if isinstance(value, Mapping) else value
                    columns[j] = attribute.given(value, len(codes))
        return pd.concat(columns, axis=1, keys=self.names)

    @property
    def vector_names(self) -> list:
        """Names of the attributes that are vectors or tokens, but not text."""
        return [a.name for a in self.attributes if isinstance(a, VectorAttribute) and a.kind != "text"]

    def hidden(self, codes: Tensor) -> bool:
        """Whether any attribute of any row of codes (n, n_columns) is the null token."""
        values = codes.numpy()
        return any(bool(a.hidden(values[:, at]).any()) for a, at in zip(self.attributes, self.places))

    @property
    def has_text(self) -> bool:
        """Whether any attribute is text."""
        return any(isinstance(a, TextAttribute) for a in self.attributes)

    def bind(self, text_encoder: Any) -> None:
        """Take the text encoder of a loaded model."""
        for attribute in self.attributes:
            if isinstance(attribute, TextAttribute):
                attribute.bind(text_encoder)

    # ------------------------------------------------------------- sampling

    def resolve(self, n_samples: int | None, condition: Any, rng: np.random.Generator) -> Tensor:
        """Turn what `sample` was given into a tensor (n, n_columns).

        Parameters
        ----------
        n_samples : int or None
            Number of rows; None takes what the condition implies, or 1.
        condition : None, scalar, dict, array, Series, DataFrame or "unconditional"
            See :meth:`tabdiff.DiffusionGenerator.sample`.
        rng : numpy.random.Generator
            Draws whatever is left open from the training rows.
        """
        if condition is None:
            n = n_samples or 1
            return torch.from_numpy(self.codes[rng.integers(len(self.codes), size=n)])
        if self._is_unconditional(condition):
            return torch.full((n_samples or 1, len(self.n_levels)), float("nan"))
        given = self._as_columns(to_pandas(as_values(condition, "condition")))
        unknown = [name for name in given if name not in self.names]
        if unknown:
            hint = did_you_mean(unknown[0], self.names)
            if len(self.attributes) == 1 and unknown[0] in self.attributes[0].levels:
                hint = f" It is a value of {self.names[0]!r}: use {{{self.names[0]!r}: {condition!r:.60}}}."
            raise ValueError(f"unknown condition name {unknown[0]!r}.{hint} Names: {self.names}.")
        counts = [name for name, value in given.items() if isinstance(value, Mapping)]
        if len(counts) > 1:
            raise ValueError(f"only one attribute can be given as counts; got {counts}.")
        if counts:
            given[counts[0]] = expand_counts(counts[0], given[counts[0]])
        single = {name: self.attributes[self.names.index(name)].is_single(value) for name, value in given.items()}
        lengths = {name: len(v) for name, v in given.items() if not single[name]}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"conditions have different numbers of rows: {lengths}.")
        n = next(iter(lengths.values()), n_samples or 1)
        if n_samples is not None and n != n_samples:
            raise ValueError(
                f"the condition has {n} rows, but n_samples={n_samples}. Leave n_samples out, or give one value for "
                "all rows."
            )
        if n == 0:
            raise ValueError("the condition has no rows.")
        codes = np.full((n, len(self.n_levels)), np.nan, dtype=np.float32)
        for name, value in given.items():
            j = self.names.index(name)
            block = self.attributes[j].encode([value] if single[name] else value)
            codes[:, self.places[j]] = block.reshape(len(block), -1)
        open_ = [j for j, name in enumerate(self.names) if name not in given]
        if open_:
            self._complete(codes, [self.names.index(name) for name in given], open_, rng)
        return torch.from_numpy(codes)

    def _is_unconditional(self, condition: Any) -> bool:
        if not isinstance(condition, str) or condition != "unconditional":
            return False
        return len(self.attributes) > 1 or condition not in self.attributes[0].levels

    def _as_columns(self, condition: Any) -> dict:
        """Give every form of condition as a dict from attribute name to scalar, counts or array."""
        if isinstance(condition, Mapping):
            return {name: to_pandas(as_values(value, f"condition[{name!r}]")) for name, value in condition.items()}
        if isinstance(condition, pd.DataFrame):
            return {name: condition[name] for name in condition.columns}
        if is_scalar(condition) or (len(self.attributes) == 1 and self.attributes[0].is_single(condition)):
            if len(self.attributes) > 1:
                raise ValueError(
                    f"the model has {len(self.attributes)} conditions, so say which one is meant: "
                    f"condition={{{self.names[0]!r}: {condition!r}}}. Names: {self.names}."
                )
            return {self.names[0]: condition}
        if len(self.attributes) == 1 and isinstance(self.attributes[0], VectorAttribute):
            return {self.names[0]: condition}
        if (
            len(self.attributes) == 1
            and isinstance(condition, list)
            and all(map(self.attributes[0].is_single, condition))
        ):
            return {self.names[0]: condition}
        # A list of labels and numbers must keep their types, which np.asarray alone would turn into strings.
        values = condition if isinstance(condition, pd.Series) else _to_array(condition)
        if values.ndim == 1 and len(self.attributes) == 1:
            return {self.names[0]: values}
        if values.ndim == 2 and values.shape[1] == len(self.attributes):
            return {name: values[:, j] for j, name in enumerate(self.names)}
        raise ValueError(
            f"an array of conditions must have shape (n, {len(self.attributes)}) for {self.names}; "
            f"got {tuple(values.shape)}."
        )

    def _complete(self, codes: np.ndarray, given: list[int], open_: list[int], rng: np.random.Generator) -> None:
        """Draw the open attributes from training rows that match the given ones, in place.

        Class attributes match exactly; among those rows the nearest few in the continuous ones are taken.
        """
        places = self.places
        classes = [j for j in given if self.attributes[j].kind == "class"]
        # The first column of a text says which it is, and is no number.
        close = [
            k
            for j in given
            if self.attributes[j].kind != "class"
            for k in range(places[j].start + self.attributes[j].skip, places[j].stop)
        ]
        of_class = {places[j].start: j for j in classes}
        wanted_columns = [*of_class, *close]
        filled = [k for j in open_ for k in range(places[j].start, places[j].stop)]
        keys, inverse = np.unique(codes[:, wanted_columns], axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        for i, key in enumerate(keys):
            wanted = dict(zip(wanted_columns, key, strict=True))
            match = np.ones(len(self.codes), dtype=bool)
            for k in of_class:
                if not np.isnan(wanted[k]):
                    match &= self.codes[:, k] == wanted[k]
            pool = np.flatnonzero(match)
            if len(pool) == 0:
                labels = {self.names[j]: self.attributes[j].levels[int(wanted[k])] for k, j in of_class.items()}
                warnings.warn(
                    f"no training row has {labels}; {[self.names[j] for j in open_]} are drawn from all rows.",
                    UserWarning,
                    stacklevel=2,
                )
                pool = np.arange(len(self.codes))
            if close:
                distance = np.zeros(len(pool))
                for k in close:
                    if not np.isnan(wanted[k]):
                        distance += np.nan_to_num(self.codes[pool, k] - wanted[k], nan=np.inf) ** 2
                pool = pool[np.argsort(distance, kind="stable")[:NEIGHBOURS]]
            rows = np.flatnonzero(inverse == i)
            drawn = rng.choice(pool, size=len(rows))
            codes[rows[:, None], filled] = self.codes[drawn[:, None], filled]

    # ---------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"attributes": [a.state() for a in self.attributes], "codes": self.codes}

    def seen(self, frame: pd.DataFrame) -> Self:
        """Return conditions that go on with the rows of another fit."""
        conditions = copy.copy(self)
        conditions.attributes = [a.seen(frame[a.name]) for a in self.attributes]
        conditions.codes = conditions.encode(frame)
        return conditions

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        conditions = cls.__new__(cls)
        kinds: dict[str, Any] = {
            "vector": VectorAttribute,
            "tokens": VectorAttribute,
            "text": TextAttribute,
            "image": ImageAttribute,
        }
        conditions.attributes = [kinds.get(s["kind"], Attribute).from_state(s) for s in state["attributes"]]
        conditions.codes = np.asarray(state["codes"], dtype=np.float32)
        return conditions


def _attribute(series: pd.Series, name: Any, text_encoder: Any, sides: tuple[int, int] | None) -> Any:
    """Return what a column of conditions is."""
    if sides is not None and holds_images(series, sides):
        return ImageAttribute(series, name)
    encoder = encoder_of(series, name, text_encoder)
    if encoder is not None:
        return TextAttribute(series, name, encoder)
    return VectorAttribute(series, name) if holds_vectors(series) else Attribute(series, name)


def resolve_condition(
    conditions: Conditions | None,
    n_samples: int | None,
    condition: Any,
    guidance_scale: float,
    rng: np.random.Generator,
) -> Tensor | None:
    """Encode a condition as `Conditions.resolve` does; None for a model without one.

    Raises
    ------
    ValueError
        For a condition or a guidance scale that a model without condition cannot use, and what `resolve` refuses.
    """
    if conditions is not None:
        return conditions.resolve(n_samples, condition, rng)
    if condition is not None:
        raise ValueError(
            f"condition={condition!r} was given, but the model was fitted without one. Fit it with "
            "fit(X, condition=...) to sample by condition."
        )
    if guidance_scale != 1:
        raise ValueError(f"guidance_scale={guidance_scale} needs a model that was fitted with a condition.")
    return None


def condition_frame(
    condition: Any, n_rows: int | None, default_name: str, index: pd.Index | None = None
) -> pd.DataFrame:
    """Turn an array, Series or DataFrame with a row per sample into a frame; names are made up where none are given.

    Raises
    ------
    ValueError
        If the number of rows differs from `n_rows`, or the index holds the labels of `index` in another order.
    """
    condition = to_pandas(as_values(condition, default_name))
    if isinstance(condition, Mapping):
        frame = _frame_of_dict(condition, n_rows, default_name)
    elif isinstance(condition, pd.Series):
        frame = condition.to_frame(condition.name if condition.name is not None else default_name)
    elif isinstance(condition, pd.DataFrame):
        frame = condition
    else:
        array = _to_array(condition)
        if array.ndim == 1:
            frame = pd.DataFrame({default_name: pd.Series(array)})
        elif array.ndim == 2:
            names = [default_name] if array.shape[1] == 1 else [f"{default_name}_{j}" for j in range(array.shape[1])]
            frame = pd.DataFrame({name: pd.Series(array[:, j]) for j, name in enumerate(names)})
        elif array.ndim in (3, 4):
            frame = pd.DataFrame({default_name: pd.Series(list(array))})
        else:
            raise ValueError(
                f"{default_name} must be names of columns, or values with a row per sample in one or two dimensions; "
                f"got {condition!r:.80}."
            )
    if n_rows is not None and len(frame) != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{n_rows}, {len(frame)}] "
            f"(X has {n_rows} rows, {default_name} has {len(frame)})."
        )
    check_labels(condition, default_name, index)
    return frame.reset_index(drop=True)


def _frame_of_dict(condition: Mapping, n_rows: int | None, what: str) -> pd.DataFrame:
    """Turn a dict of a value per row for each name into a frame; arrays of several columns are vectors."""
    columns = {}
    for name, values in condition.items():
        values = values.toarray() if sparse.issparse(values) else values
        values = to_pandas(as_values(values, f"{what}[{name!r}]"))
        if is_scalar(values) or isinstance(values, Mapping | pd.DataFrame):
            raise ValueError(f"{what}[{name!r}] must be an array with a row per sample; got {values!r:.60}.")
        several = isinstance(values, np.ndarray) and values.ndim > 1
        columns[name] = pd.Series(list(values) if several else values).reset_index(drop=True)
    lengths = {name: len(series) for name, series in columns.items()}
    wrong = {name: n for name, n in lengths.items() if n_rows is not None and n != n_rows}
    if wrong or len(set(lengths.values())) > 1:
        raise ValueError(f"{what} must have a row for each of {n_rows} samples; got {wrong or lengths}.")
    return pd.DataFrame(columns)


def expand_counts(name: Any, counts: Mapping) -> list:
    """Turn ``{label: count}``, given for a name, into a list of labels.

    Raises
    ------
    ValueError
        For no counts, and for those that are no integers of at least 0.
    """
    if not counts:
        raise ValueError(f"condition {name!r}: no counts given.")
    for label, count in counts.items():
        if not is_integer(count, 0):
            raise ValueError(f"condition {name!r}: the count of {label!r} must be an integer >= 0; got {count!r}.")
    return [label for label, count in counts.items() for _ in range(count)]


def _to_array(values: Any) -> np.ndarray:
    flat = isinstance(values, list | tuple) and all(is_scalar(value) for value in values)
    array = values if isinstance(values, np.ndarray) else np.asarray(pd.Series(values) if flat else values)
    return array.astype(object) if array.dtype.kind in "US" else array
