"""Attributes of a condition that are vectors, several vectors (tokens), or text that an encoder turns into either.

Encoded, such an attribute takes as many columns as it has numbers: the vectors of a row one behind the other, centred
and scaled by one factor, so that angles and distances stay what they were; NaN where a vector is absent.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns import dtype_from_state, dtype_to_state
from tabdiff.nn import VectorColumns

__all__ = [
    "TextAttribute",
    "VectorAttribute",
    "as_array",
    "check_text_encoder",
    "encoder_of",
    "holds_vectors",
    "is_missing",
    "stack_vectors",
]

# Training texts that an encoder is asked again when a model is loaded, and how far it may be off.
CHECKED_TEXTS, TOLERANCE = 8, 1e-2


def holds_vectors(series: pd.Series) -> bool:
    """Whether the values of a column are vectors or matrices of numbers."""
    if series.dtype != object:
        return False
    known = [value for value in series if not is_missing(value)]
    return bool(known) and all(_is_vector(value) for value in known)


def check_text_encoder(text_encoder: Any) -> None:
    """Raise a ValueError unless a parameter is None, a function, or a dict of them."""
    encoders = list(text_encoder.values()) if isinstance(text_encoder, Mapping) else [text_encoder]
    if text_encoder is not None and not all(callable(encoder) for encoder in encoders):
        raise ValueError(
            "text_encoder must be None, a callable from a list of texts to vectors, or a dict of such by the names of "
            f"conditions, however: {text_encoder!r:.80}."
        )


def encoder_of(series: pd.Series, name: Any, text_encoder: Any) -> Callable | None:
    """Return what encodes a column of text, None for one that is not text."""
    if isinstance(text_encoder, Mapping):
        return text_encoder.get(name)
    if text_encoder is None or isinstance(series.dtype, pd.CategoricalDtype):
        return None
    known = series.dropna()
    text = len(known) > 0 and all(isinstance(value, str) for value in known)
    return text_encoder if text else None


def stack_vectors(values: Any, what: str) -> np.ndarray:
    """Return vectors (n, d) or tokens (n, m, d), in any container, as one array (n, m, d); NaN where one is absent.

    Raises
    ------
    ValueError
        If they have different lengths, or hold something other than finite numbers.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) and values.dtype != object:
        blocks = list(values)
    else:
        blocks = [None if is_missing(v) else v for v in values]
    known: list[np.ndarray | None] = []
    for block in blocks:
        if block is None:
            known.append(None)
            continue
        block = block.detach().cpu() if hasattr(block, "detach") else block
        try:
            array = np.asarray(block, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{what} must be vectors of numbers, however: {block!r:.60}.") from None
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(
                f"{what} must have a vector (d,) or tokens (m, d) in each row, however: shape {array.shape}."
            )
        known.append(array.reshape(-1, array.shape[-1]))
    shapes = [array.shape for array in known if array is not None]
    if not shapes:
        raise ValueError(f"{what} has no value but missing ones.")
    widths = sorted({shape[1] for shape in shapes})
    if len(widths) > 1:
        raise ValueError(f"{what} must have vectors of one length, however: lengths {widths}.")
    stacked = np.full((len(known), max(shape[0] for shape in shapes), widths[0]), np.nan)
    for i, rows in enumerate(known):
        if rows is not None:
            stacked[i, : len(rows)] = rows
    if np.isinf(stacked).any():
        raise ValueError(f"{what} contains infinite values (inf).")
    if (np.isnan(stacked).any(2) != np.isnan(stacked).all(2)).any():
        raise ValueError(f"{what} contains vectors in which some numbers are NaN; an absent vector is NaN as a whole.")
    return stacked


class VectorAttribute:
    """An attribute whose values are vectors, or as many tokens as a row has.

    Parameters
    ----------
    values : Series, list or array
        A vector (d,) or tokens (m, d) for each row, None where there is none.
    name : hashable

    Attributes
    ----------
    kind : {"vector", "tokens"}
    n_tokens, width : int
        The largest number of vectors in a row, and their length.
    """

    # What other attributes have, and the code that handles all of them asks for.
    levels: tuple = ()
    skip = 0

    def __init__(self, values: Any, name: Any) -> None:
        self.name = name
        blocks = stack_vectors(values, f"condition {name!r}")
        self.kind = "vector" if blocks.shape[1] == 1 else "tokens"
        self._learn(blocks)

    def _learn(self, blocks: np.ndarray) -> None:
        if np.isnan(blocks).all():
            raise ValueError(f"condition {self.name!r} has no value but missing ones.")
        _, self.n_tokens, self.width = blocks.shape
        self.mean = np.nanmean(blocks, axis=(0, 1))
        self.scale = float(np.sqrt(np.nanmean((blocks - self.mean) ** 2))) or 1.0

    @property
    def column_levels(self) -> list[int]:
        """For each column of the code the number of its classes: 0, they are numbers."""
        return [0] * (self.skip + self.n_tokens * self.width)

    def columns(self, start: int) -> VectorColumns:
        """Where its numbers are in a condition in which it starts at a column."""
        return VectorColumns(start, self.skip, self.n_tokens, self.width)

    @property
    def n_levels(self) -> int:
        """Number of classes: 0."""
        return 0

    def __repr__(self) -> str:
        many = f"up to {self.n_tokens} vectors" if self.kind == "tokens" else "vector"
        return f"{type(self).__name__}({self.name!r}, {many} of length {self.width})"

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one value for all rows."""
        if value is None or isinstance(value, str):
            return True
        if isinstance(value, pd.Series) or (isinstance(value, np.ndarray) and value.dtype == object):
            return False
        if not _is_vector(value):
            return False
        return np.ndim(value) == (1 if self.kind == "vector" else 2)

    def encode(self, values: Any) -> np.ndarray:
        """Map a value per row to codes (n, n_columns).

        Raises
        ------
        ValueError
            For vectors of another length than at fit, or more of them in a row.
        """
        if all(is_missing(value) for value in values):
            return np.full((len(values), len(self.column_levels)), np.nan)
        return self._encode(stack_vectors(values, f"condition {self.name!r}"))

    def _encode(self, blocks: np.ndarray) -> np.ndarray:
        n, m, width = blocks.shape
        if width != self.width or m > self.n_tokens:
            fitted = f"up to {self.n_tokens} vectors" if self.kind == "tokens" else "a vector"
            raise ValueError(
                f"condition {self.name!r} was fitted with {fitted} of length {self.width}, however: {m} of length "
                f"{width}."
            )
        out = np.full((n, self.n_tokens, width), np.nan)
        out[:, :m] = (blocks - self.mean) / self.scale
        return out.reshape(n, -1)

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes (n, n_columns) to vectors, or tokens without the absent ones; None where there are none."""
        blocks = codes.reshape(len(codes), self.n_tokens, self.width) * self.scale + self.mean
        out = np.empty(len(codes), dtype=object)
        for i, block in enumerate(blocks):
            present = block[~np.isnan(block).any(1)]
            if len(present):
                out[i] = present[0] if self.kind == "vector" else present
        return pd.Series(out, name=self.name)

    def given(self, value: Any, n: int) -> pd.Series:
        """What was asked for, as it comes back beside the rows: a value, or one for each of n rows."""
        values = [value] * n if self.is_single(value) else list(value)
        out = np.empty(n, dtype=object)
        for i, entry in enumerate(values):
            out[i] = None if is_missing(entry) else entry
        return pd.Series(out, name=self.name)

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """Which rows of codes (n, n_columns) are the null token, (n,)."""
        return np.isnan(codes[:, self.skip :]).all(1)

    def seen(self, values: Any) -> VectorAttribute:
        """Return the attribute for rows that go on with a fit."""
        return self

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "name": self.name,
            "kind": self.kind,
            "n_tokens": self.n_tokens,
            "width": self.width,
            "mean": self.mean,
            "scale": self.scale,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = cls.__new__(cls)
        attribute.name, attribute.kind = state["name"], state["kind"]
        attribute.n_tokens, attribute.width = int(state["n_tokens"]), int(state["width"])
        attribute.mean, attribute.scale = np.asarray(state["mean"]), float(state["scale"])
        return attribute


class TextAttribute(VectorAttribute):
    """An attribute whose values are texts, which an encoder maps to vectors or tokens.

    The first column of its code, which no network sees, says which training text it is, so that texts come back as
    they were even where an encoder does not tell them apart.

    Parameters
    ----------
    values : Series
        Texts, missing ones allowed.
    name : hashable
    encoder : callable
        From a list of texts to vectors (n, d), or to tokens (n, m, d) or a list of n arrays (m, d).
    """

    skip = 1
    encoder: Callable | None

    def __init__(self, values: pd.Series, name: Any, encoder: Callable) -> None:
        self.name, self.encoder = name, encoder
        self.dtype = values.dtype
        self.texts: list[str] = [str(text) for text in pd.unique(values.dropna())]
        if not self.texts:
            raise ValueError(f"condition {name!r} has no value but missing ones.")
        blocks = self._ask(self.texts)
        self.kind = "text"
        self._learn(blocks)
        self.table = self._encode(blocks).astype(np.float32)

    def __repr__(self) -> str:
        shown = ", ".join(repr(text[:30]) for text in self.texts[:3]) + (", ..." if len(self.texts) > 3 else "")
        return f"TextAttribute({self.name!r}, {len(self.texts)} texts: {shown})"

    def _ask(self, texts: Sequence[str]) -> np.ndarray:
        """Return the encoder's vectors of texts, (n, m, d)."""
        if self.encoder is None:
            near = difflib.get_close_matches(texts[0], self.texts, n=1, cutoff=0.0)
            raise ValueError(
                f"condition {self.name!r}: {texts[0]!r} is no training text (the nearest is {near[0]!r}), and this "
                "model has no text_encoder: functions are not saved. Load it with "
                "DiffusionGenerator.load(path, text_encoder=...) and the encoder of the fit."
            )
        what = f"what text_encoder returned for condition {self.name!r}"
        answer = self.encoder(list(texts))
        if hasattr(answer, "toarray"):
            answer = answer.toarray()  # scikit-learn's vectorizers return sparse matrices
        try:
            n = len(answer)
        except TypeError:
            raise ValueError(
                f"{what} must be an array with a row per text, however: {type(answer).__name__}."
            ) from None
        if n != len(texts):
            raise ValueError(f"{what} must have a row for each of {len(texts)} texts, however: {n} rows.")
        return stack_vectors(answer, what)

    def bind(self, encoder: Any) -> None:
        """Take the encoder of a loaded model.

        Raises
        ------
        ValueError
            If its vectors have another length than those of the fit.

        Warns
        -----
        UserWarning
            If it maps training texts to other vectors.
        """
        self.encoder = encoder.get(self.name) if isinstance(encoder, Mapping) else encoder
        if self.encoder is None:
            return
        asked = self.texts[:CHECKED_TEXTS]
        there, answer = self.table[: len(asked)], self._encode(self._ask(asked))
        if not np.allclose(np.nan_to_num(answer), np.nan_to_num(there), atol=TOLERANCE):
            warnings.warn(
                f"text_encoder gives other vectors for the training texts of condition {self.name!r} than the encoder "
                "of the fit; samples will not follow the text. Pass the encoder of the fit.",
                UserWarning,
                stacklevel=2,
            )

    def is_single(self, value: Any) -> bool:
        """Whether what `sample` was given is one text for all rows."""
        return value is None or isinstance(value, str) or np.ndim(value) == 0

    def encode(self, values: Any) -> np.ndarray:
        """Map a text per row to codes (n, n_columns), missing ones to NaN; an encoder is asked about new ones.

        Raises
        ------
        ValueError
            For values that are no text, and for new texts without an encoder.
        """
        series = pd.Series(list(values), dtype=object)
        missing = series.isna().to_numpy()
        wrong = [value for value in series[~missing] if not isinstance(value, str)]
        if wrong:
            raise ValueError(f"condition {self.name!r} holds text, however: {wrong[0]!r}.")
        out = np.full((len(series), len(self.column_levels)), np.nan)
        index = pd.Index(self.texts).get_indexer(pd.Index(series))
        old = (index >= 0) & ~missing
        out[old, 0] = index[old]
        out[old, 1:] = self.table[index[old]]
        new = ~missing & ~old
        if new.any():
            codes, texts = pd.factorize(series[new])
            out[new, 1:] = self._encode(self._ask(list(texts)))[codes]
        return out

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Map codes (n, n_columns) to the training texts that they stand for, None for others."""
        out = np.full(len(codes), None, dtype=object)
        known = ~np.isnan(codes[:, 0])
        out[known] = np.array(self.texts, dtype=object)[codes[known, 0].astype(int)]
        return pd.Series(out, name=self.name, dtype=self.dtype)

    def given(self, value: Any, n: int) -> pd.Series:
        """What was asked for, as it comes back beside the rows: a text, or one for each of n rows."""
        return super().given(value, n).astype(self.dtype)

    def seen(self, values: Any) -> TextAttribute:
        """Return the attribute with the texts of rows that go on with a fit."""
        new = [str(text) for text in pd.unique(pd.Series(values).dropna()) if text not in set(self.texts)]
        if not new:
            return self
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other.texts = self.texts + new
        other.table = np.concatenate([self.table, self._encode(self._ask(new)).astype(np.float32)])
        return other

    def state(self) -> dict:
        """Plain description, for persistence, without the encoder."""
        return {**super().state(), "texts": self.texts, "table": self.table, "dtype": dtype_to_state(self.dtype)}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        attribute = super().from_state(state)
        attribute.texts, attribute.table = list(state["texts"]), np.asarray(state["table"])
        attribute.dtype = dtype_from_state(state["dtype"])
        attribute.encoder = None
        return attribute


def as_array(values: pd.Series) -> np.ndarray:
    """Return a column of vectors (n, d) or tokens (n, m, d) as an array; NaN where one is absent."""
    if values.isna().all():
        return np.full((len(values), 1), np.nan)
    blocks = stack_vectors(values, f"condition {values.name!r}")
    tokens = any(np.ndim(value) == 2 for value in values if not is_missing(value))
    return blocks if tokens else blocks[:, 0]


def _is_vector(value: Any) -> bool:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | list | tuple):
        return False
    array = np.asarray(value) if isinstance(value, np.ndarray) else _as_numbers(value)
    return array is not None and array.ndim in (1, 2) and array.dtype.kind in "biuf" and array.size > 0


def _as_numbers(value: Sequence) -> np.ndarray | None:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def is_missing(value: Any) -> bool:
    """Whether a value of a condition stands for none."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
