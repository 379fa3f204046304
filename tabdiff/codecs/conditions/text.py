"""Conditions that are text, turned into vectors or tokens by an encoder of the user."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from tabdiff.codecs.columns import dtype_from_state, dtype_to_state
from tabdiff.codecs.conditions.vector import VectorAttribute, stack_vectors

__all__ = ["CHECKED_TEXTS", "TOLERANCE", "TextAttribute", "check_text_encoder", "encoder_of"]


# Training texts that an encoder is asked again when a model is loaded, and how far it may be off.
CHECKED_TEXTS, TOLERANCE = 8, 1e-2


def check_text_encoder(text_encoder: Any) -> None:
    """Raise a ValueError unless a parameter is None, a function, or a dict of them."""
    encoders = list(text_encoder.values()) if isinstance(text_encoder, Mapping) else [text_encoder]
    if text_encoder is not None and not all(callable(encoder) for encoder in encoders):
        raise ValueError(
            "text_encoder must be None, a callable from a list of texts to vectors, or a dict of such by the names of "
            f"conditions; got {text_encoder!r:.80}."
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
            raise ValueError(f"{what} must be an array with a row per text; got {type(answer).__name__}.") from None
        if n != len(texts):
            raise ValueError(f"{what} must have a row for each of {len(texts)} texts; got {n} rows.")
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
            raise ValueError(f"condition {self.name!r} holds text; got {wrong[0]!r}.")
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
