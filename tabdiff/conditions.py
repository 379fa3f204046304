"""What a condition is: read at fit, checked and completed at sample.

Each attribute is a class (strings, categories, booleans, integers and times with at most 20 distinct values),
continuous (floats, other integers and times), or made of vectors (`tabdiff.vectors`). Encoded, a condition is a float
tensor (n, n_columns) of class codes and standardised values in which NaN is the null token: a column for each
attribute, several for vectors. A missing label at fit is the null token too: its row teaches the unconditional model
alone.
"""

import copy
import difflib
import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.columns import (
    Clock,
    LevelColumn,
    Storage,
    dtype_from_state,
    dtype_to_state,
    is_numeric,
    is_time,
    plain,
    restore,
    standardise,
    to_float,
    unknown_level_message,
)
from tabdiff.containers import to_pandas
from tabdiff.image_conditions import ImageAttribute, holds_images
from tabdiff.nn import VectorColumns
from tabdiff.vectors import TextAttribute, VectorAttribute, encoder_of, holds_vectors

__all__ = ["Attribute", "Conditions", "condition_frame", "resolve_condition"]

MAX_INTEGER_CLASSES = 20
# Largest over smallest positive value from which an attribute that is never negative is modelled by its logarithm.
LOG_SPAN = 50.0
NEIGHBOURS = 50
# Up to here the third power of a number, which tells its skewness, is one too.
MAX_CONTINUOUS = 1e100


class Attribute:
    """One attribute of a condition: a class or a continuous value.

    Attributes
    ----------
    name : hashable
        Column name, obs key, or a made-up one for arrays.
    kind : {"class", "continuous"}
    levels : list
        Labels of a class attribute, in the order of their codes.
    low, high : float
        Range of a continuous attribute at fit; of times, in the unit that they share since the earliest.
    unit : float
        A continuous attribute v is modelled as log(1 + v / unit) where its values, such as doses, are never negative
        and span more than `LOG_SPAN`: unit is then the smallest positive one. 0 is the linear scale.
    """

    def __init__(self, series: pd.Series, name: Any) -> None:
        self.name = name
        self._storage, series = Storage(series), standardise(series, name)
        self.dtype = series.dtype
        self._clock: Clock | None = None
        if pd.api.types.is_complex_dtype(series.dtype):
            raise ValueError(f"Complex data not supported, however condition {name!r} is complex.")
        if series.isna().all():
            raise ValueError(f"condition {name!r} has no value but missing ones.")
        numeric = is_numeric(series.dtype)
        few = series.nunique() <= MAX_INTEGER_CLASSES
        discrete = pd.api.types.is_integer_dtype(series.dtype) or is_time(series.dtype)
        number = numeric or is_time(series.dtype)
        self.kind = "class" if not number or (discrete and few) else "continuous"
        self.levels: list = []
        self.low = self.high = self.mean = self.unit = 0.0
        self.scale = 1.0
        if self.kind == "class":
            self._column = LevelColumn(series, name)
            self.levels = self._column.levels_
        else:
            self._clock = Clock(series, name) if is_time(series.dtype) else None
            values = self._clock.read(series) if self._clock is not None else to_float(series, name)
            self.low, self.high = float(np.nanmin(values)), float(np.nanmax(values))
            if max(abs(self.low), abs(self.high)) > MAX_CONTINUOUS:
                raise ValueError(
                    f"condition {name!r} holds numbers up to {max(self.high, -self.low):g}, which are too large to "
                    f"condition on. Divide them, so that none is beyond {MAX_CONTINUOUS:g}."
                )
            self.unit = _log_unit(values) if self._clock is None else 0.0
            values = self._squeeze(values)
            self.mean = float(np.nanmean(values))
            self.scale = float(np.nanstd(values)) or 1.0

    @property
    def n_levels(self) -> int:
        """Number of classes, 0 for a continuous attribute."""
        return len(self.levels)

    @property
    def column_levels(self) -> list[int]:
        """The same for each column of the code, of which there is one."""
        return [self.n_levels]

    # Leading columns of the code that are no numbers to compare; those of text have one.
    skip = 0

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one value for all rows."""
        return _is_scalar(value)

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """Which rows of codes (n, 1) are the null token, (n,)."""
        return np.isnan(codes[:, 0])

    def seen(self, values: Any) -> Self:
        """Return the attribute for rows that go on with a fit."""
        return self

    def __repr__(self) -> str:
        if self.kind == "class":
            shown = ", ".join(repr(v) for v in self.levels[:6]) + (", ..." if len(self.levels) > 6 else "")
            return f"Attribute({self.name!r}, class of {len(self.levels)}: {shown})"
        scale = ", log scale" if self.unit else ""
        return f"Attribute({self.name!r}, continuous from {self._shown(self.low)} to {self._shown(self.high)}{scale})"

    def _squeeze(self, values: np.ndarray) -> np.ndarray:
        """Values on the scale of the model; those below zero stay linear there."""
        if not self.unit:
            return values
        return np.sign(values) * np.log1p(np.abs(values) / self.unit)

    def _stretch(self, values: np.ndarray) -> np.ndarray:
        """Inverse of `_squeeze`."""
        return np.sign(values) * np.expm1(np.abs(values)) * self.unit if self.unit else values

    def _shown(self, value: float) -> str:
        """Text of a continuous value, a time as such."""
        return f"{value:g}" if self._clock is None else str(self._clock.to_series(np.array([value])).iloc[0])

    def _read_times(self, series: pd.Series) -> pd.Series:
        """Times of the fitted dtype from times in any form, text included; without a zone they have the fitted one."""
        if pd.api.types.is_timedelta64_dtype(self.dtype):
            return pd.to_timedelta(series).astype(self.dtype)
        times = series if is_time(series.dtype) else pd.to_datetime(series)
        if isinstance(self.dtype, pd.DatetimeTZDtype) and times.dt.tz is None:
            times = times.dt.tz_localize(self.dtype.tz)
        return times.astype(self.dtype)

    def encode(self, values: Any) -> np.ndarray:
        """Map labels or numbers (n,) to codes or standardised values (n,), missing ones to NaN.

        Raises
        ------
        ValueError
            For a label that was not seen at fit; the message lists the known ones and the nearest.

        Warns
        -----
        UserWarning
            For a continuous value outside the fitted range.
        """
        series = pd.Series(np.asarray(values, dtype=object) if not isinstance(values, pd.Series) else values)
        series = standardise(series, self.name)
        missing = series.isna().to_numpy()
        if is_time(self.dtype) and not missing.all():
            try:
                series = self._read_times(series)
            except (TypeError, ValueError) as error:
                given = series[~missing].iloc[0]
                raise ValueError(
                    f"condition {self.name!r} holds times ({self.dtype}), however: {given!r}. {error}"
                ) from error
        if self.kind == "continuous":
            try:
                if self._clock is not None:
                    numbers = self._clock.read(series)
                else:
                    numbers = pd.to_numeric(series.astype(object).where(~missing, np.nan)).to_numpy(dtype=np.float64)
            except (TypeError, ValueError):
                raise ValueError(
                    f"condition {self.name!r} is continuous ({self._shown(self.low)} to {self._shown(self.high)}), "
                    f"so it needs numbers, however: {series[~missing].iloc[0]!r}."
                ) from None
            if np.isinf(numbers).any():
                raise ValueError(f"condition {self.name!r} contains infinite values (inf).")
            outside = (numbers < self.low) | (numbers > self.high)
            if outside.any():
                warnings.warn(
                    f"condition {self.name!r}: {self._shown(numbers[outside][0])} lies outside the fitted "
                    f"range [{self._shown(self.low)}, {self._shown(self.high)}]; samples there are extrapolated.",
                    UserWarning,
                    stacklevel=2,
                )
            return (self._squeeze(numbers) - self.mean) / self.scale
        codes = {v: float(i) for i, v in enumerate(self.levels)}
        out = np.full(len(series), np.nan)
        for i, value in enumerate(series.astype(object)):
            if missing[i]:
                continue
            value = plain(value)
            # bool is an int to Python, so True would silently stand for class 1.
            known = codes.get(value) if isinstance(value, bool) == isinstance(self.levels[0], bool) else None
            if known is None:
                raise ValueError(unknown_level_message(f"condition {self.name!r}", value, self.levels))
            out[i] = known
        return out

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes or standardised values (n,) back to labels or numbers of the fitted dtype."""
        if self.kind == "class":
            return self._storage.write(self._column.decode(codes))
        missing = np.isnan(codes)
        values = np.where(missing, 0.0, codes) * self.scale + self.mean
        # Codes are float32: digits beyond its precision are noise, and without them a dose of 2.5 is 2.5 again.
        noise = max(np.abs(codes[~missing]).max(initial=1.0) * self.scale * 2.0**-23, 1e-300)
        digits = int(np.floor(-np.log10(noise)))
        if self.unit:
            # On the logarithmic scale an error is a share of the value and its unit.
            values = self._stretch(values)
            size = np.floor(np.log10(np.abs(values) + self.unit)).astype(int)
            values = np.array([round(v, digits - s - 1) for v, s in zip(values.tolist(), size.tolist(), strict=True)])
        else:
            values = np.round(values, digits) if abs(digits) <= 15 else values
        # The round trip through float32 must not move a value past the range that it came from.
        inside = np.clip(values, self.low, self.high)
        # An error on the logarithmic scale is one relative to the value.
        near = np.isclose(values, inside, rtol=max(1e-6, 4 * noise) if self.unit else 1e-6)
        near |= np.abs(values - inside) <= (0.0 if self.unit else 2 * noise)
        values = np.where(near, inside, values)
        if self._clock is not None:
            return self._storage.write(self._clock.to_series(values, missing))
        return self._storage.write(restore(values, missing, self.dtype, self.name))

    def state(self) -> dict:
        """Plain description, for persistence."""
        state = {
            "name": self.name,
            "kind": self.kind,
            "dtype": dtype_to_state(self.dtype),
            "storage": self._storage.state(),
            "clock": self._clock.state() if self._clock is not None else None,
        }
        if self.kind == "class":
            return {**state, "column": self._column.state()}
        numbers = {key: getattr(self, key) for key in ("low", "high", "mean", "scale", "unit")}
        return {**state, **numbers}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = cls.__new__(cls)
        attribute.name, attribute.kind = state["name"], state["kind"]
        attribute.dtype = dtype_from_state(state["dtype"])
        attribute._storage = Storage.from_state(state["storage"])
        attribute._clock = Clock.from_state(state["clock"]) if state["clock"] else None
        attribute.levels = []
        attribute.low = attribute.high = attribute.mean = attribute.unit = 0.0
        attribute.scale = 1.0
        if attribute.kind == "class":
            attribute._column = LevelColumn.from_state(state["column"])
            attribute.levels = attribute._column.levels_
        else:
            for key in ("low", "high", "mean", "scale", "unit"):
                setattr(attribute, key, float(state[key]))
        return attribute


def _log_unit(values: np.ndarray) -> float:
    """Smallest positive value of an attribute (n,) that a logarithmic scale suits, otherwise 0."""
    seen = values[np.isfinite(values)]
    positive = seen[seen > 0]
    if len(positive) == 0 or seen.min() < 0 or positive.max() < LOG_SPAN * positive.min():
        return 0.0
    linear, squeezed = seen, np.log1p(seen / positive.min())
    # The span alone would take uniform values that come close to zero: the logarithm must make them more even.
    return float(positive.min()) if abs(_skewness(squeezed)) < abs(_skewness(linear)) else 0.0


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    return float((centred**3).mean() / max(centred.std() ** 3, 1e-300))


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
        unknown = [name for name in text_encoder or () if name not in frame.columns] if _is_dict(text_encoder) else []
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

        Vectors and texts that `resolve` was given as `condition` come back as they were given.
        """
        blocks = [codes[:, at].astype(np.float64) for at in self.places]
        columns = [
            a.decode(block if isinstance(a, VectorAttribute) else block[:, 0])
            for a, block in zip(self.attributes, blocks, strict=True)
        ]
        vectors = [j for j, a in enumerate(self.attributes) if isinstance(a, VectorAttribute)]
        if vectors and condition is not None and not self._is_unconditional(condition):
            given = self._as_columns(to_pandas(condition))
            for j in vectors:
                attribute = self.attributes[j]
                if attribute.name in given and isinstance(attribute, VectorAttribute):
                    value = given[attribute.name]
                    value = self._expand(attribute.name, value) if isinstance(value, Mapping) else value
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
        given = self._as_columns(to_pandas(condition))
        unknown = [name for name in given if name not in self.names]
        if unknown:
            near = difflib.get_close_matches(str(unknown[0]), [str(n) for n in self.names], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if len(self.attributes) == 1 and unknown[0] in self.attributes[0].levels:
                hint = f" It is a value of {self.names[0]!r}: use {{{self.names[0]!r}: {condition!r:.60}}}."
            raise ValueError(f"unknown condition name {unknown[0]!r}.{hint} Names: {self.names}.")
        counts = [name for name, value in given.items() if isinstance(value, Mapping)]
        if len(counts) > 1:
            raise ValueError(f"only one attribute can be given as counts, however: {counts}.")
        if counts:
            given[counts[0]] = self._expand(counts[0], given[counts[0]])
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
            return dict(condition)
        if isinstance(condition, pd.DataFrame):
            return {name: condition[name] for name in condition.columns}
        if _is_scalar(condition):
            if len(self.attributes) > 1:
                raise ValueError(
                    f"the model has {len(self.attributes)} conditions, so say which one is meant: "
                    f"condition={{{self.names[0]!r}: {condition!r}}}. Names: {self.names}."
                )
            return {self.names[0]: condition}
        if len(self.attributes) == 1 and isinstance(self.attributes[0], VectorAttribute):
            return {self.names[0]: condition}
        # A list of labels and numbers must keep their types, which np.asarray alone would turn into strings.
        values = condition if isinstance(condition, pd.Series) else _to_array(condition)
        if values.ndim == 1 and len(self.attributes) == 1:
            return {self.names[0]: values}
        if values.ndim == 2 and values.shape[1] == len(self.attributes):
            return {name: values[:, j] for j, name in enumerate(self.names)}
        raise ValueError(
            f"an array of conditions must have shape (n, {len(self.attributes)}) for {self.names}, "
            f"however: {tuple(values.shape)}."
        )

    def _expand(self, name: Any, counts: Mapping) -> list:
        """Turn {label: count} into a list of labels."""
        if not counts:
            raise ValueError(f"condition {name!r}: no counts given.")
        for label, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
                raise ValueError(
                    f"condition {name!r}: the count of {label!r} must be an integer >= 0, however: {count!r}."
                )
        return [label for label, count in counts.items() for _ in range(count)]

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
    condition = to_pandas(condition)
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
                f"{default_name} must be names of columns, or values with a row per sample in one or two dimensions, "
                f"however: {condition!r:.80}."
            )
    if n_rows is not None and len(frame) != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{n_rows}, {len(frame)}] "
            f"(X has {n_rows} rows, {default_name} has {len(frame)})."
        )
    labelled = isinstance(condition, pd.Series | pd.DataFrame)
    if (
        labelled
        and index is not None
        and not frame.index.equals(index)
        and frame.index.is_unique
        and set(frame.index) == set(index)
    ):
        raise ValueError(
            f"{default_name} and X have the same row labels in a different order. "
            f"Use {default_name}.loc[X.index] (X.obs_names for AnnData)."
        )
    return frame.reset_index(drop=True)


def _frame_of_dict(condition: Mapping, n_rows: int | None, what: str) -> pd.DataFrame:
    """Turn a dict of a value per row for each name into a frame; arrays of several columns are vectors."""
    columns = {}
    for name, values in condition.items():
        values = to_pandas(values)
        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
        if hasattr(values, "toarray"):
            values = values.toarray()
        if _is_scalar(values) or isinstance(values, Mapping | pd.DataFrame):
            raise ValueError(f"{what}[{name!r}] must be an array with a row per sample, however: {values!r:.60}.")
        several = isinstance(values, np.ndarray) and values.ndim > 1
        columns[name] = pd.Series(list(values) if several else values).reset_index(drop=True)
    lengths = {name: len(series) for name, series in columns.items()}
    wrong = {name: n for name, n in lengths.items() if n_rows is not None and n != n_rows}
    if wrong or len(set(lengths.values())) > 1:
        raise ValueError(f"{what} must have a row for each of {n_rows} samples, however: {wrong or lengths}.")
    return pd.DataFrame(columns)


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes) or (np.ndim(value) == 0 and not isinstance(value, Mapping))


def _to_array(values: Any) -> np.ndarray:
    array = values if isinstance(values, np.ndarray) else np.asarray(pd.Series(values) if _is_flat(values) else values)
    if array.dtype.kind in "US":
        array = array.astype(object)
    return array


def _is_flat(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(_is_scalar(v) for v in values)
