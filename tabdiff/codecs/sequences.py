"""Sequences to one tensor and back: strings over an alphabet (DNA, RNA, protein), and lists of integer tokens.

A row is a code for each position, up to the length of the longest sequence. Shorter ones end in a level of their own,
so that lengths are modelled with the letters; decoding cuts a row where that level first appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.base import Codec
from tabdiff.codecs.columns import dtype_from_state, dtype_to_state
from tabdiff.utils.array_likes import kind_of
from tabdiff.utils.random import RowStreams

__all__ = ["ALPHABETS", "SequenceCodec", "SequenceForm", "read_sequences"]

ALPHABETS = {"DNA": "ACGT", "RNA": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
# Beyond these, rows are text or documents, and a model with an output per position and letter is not meant for them.
MAX_LEVELS, MAX_LENGTH = 256, 4096

# Letters of longer sequences have moved against each other: what stands at a position says little.
REFINED_LENGTH = 100


class SequenceForm:
    """The container that sequences came in, and the way back to it.

    Parameters
    ----------
    kind : {"list", "array", "series", "index", "extension", "arrow", "chunked", "polars"}
        "extension" is an array of pandas', "arrow" and "chunked" are an Array and a ChunkedArray of pyarrow.
    dtype : dtype or None
        Of what is NumPy's, pandas' or pyarrow's.
    name : object
        Of a Series or an Index.

    Examples
    --------
    >>> series, form = read_sequences(["ACG", "T"])
    >>> form.write(series)
    ['ACG', 'T']
    """

    def __init__(self, kind: str, dtype: Any = None, name: Any = None) -> None:
        self.kind, self.dtype, self.name = kind, dtype, name

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """Return the form of a container in one dimension, None for anything else.

        Sequences of a column of categories come back in the dtype of the categories: new ones are none of them.
        """
        if isinstance(X, np.ndarray):
            return cls("array", X.dtype) if X.ndim == 1 and X.dtype.kind in "OUS" else None
        if isinstance(X, list | tuple):
            return cls("list")
        kind = kind_of(X)
        if kind == "polars.Series":
            return cls("polars", None, X.name)
        if isinstance(X, pd.Series | pd.Index | pd.api.extensions.ExtensionArray) and not isinstance(X, pd.MultiIndex):
            dtype = X.dtype.categories.dtype if isinstance(X.dtype, pd.CategoricalDtype) else X.dtype
            if isinstance(X, pd.api.extensions.ExtensionArray):
                return cls("extension", dtype)
            return cls("series" if isinstance(X, pd.Series) else "index", dtype, X.name)
        if kind.startswith("pyarrow.") and kind.endswith("Array"):
            text = getattr(X.type, "value_type", X.type) if str(X.type).startswith("dictionary") else X.type
            return cls("chunked" if kind == "pyarrow.ChunkedArray" else "arrow", pd.ArrowDtype(text))
        return None

    def write(self, series: pd.Series | pd.DataFrame) -> Any:
        """Return a Series of sequences in the container; a frame, of their conditions, stays one."""
        if isinstance(series, pd.DataFrame):
            return series
        if self.kind == "list":
            return series.to_list()
        if self.kind == "array":
            values = series.to_numpy(dtype=object)
            return values.astype(str) if self.dtype is not None and self.dtype.kind == "U" else values
        if self.kind == "polars":
            import polars as pl

            return pl.Series(self.name, [v if isinstance(v, str) else v.tolist() for v in series])
        if self.kind in ("arrow", "chunked"):
            import pyarrow as pa

            array = pa.array(series.to_list(), type=self.dtype.pyarrow_dtype)
            return array if self.kind == "arrow" else pa.chunked_array([array])
        series = series.astype(self.dtype).rename(self.name)
        return series if self.kind == "series" else pd.Index(series) if self.kind == "index" else series.array

    def state(self) -> dict:
        """Plain description, for persistence."""
        whole = self.kind not in ("list", "array", "polars")
        dtype = dtype_to_state(self.dtype) if whole else None if self.dtype is None else self.dtype.kind
        return {"sequences": self.kind, "dtype": dtype, "name": self.name}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        dtype = state["dtype"]
        if isinstance(dtype, dict):
            dtype = dtype_from_state(dtype)
        elif dtype is not None:
            dtype = np.dtype(dtype)
        return cls(state["sequences"], dtype, state["name"])


def read_sequences(X: Any) -> tuple[pd.Series, SequenceForm] | None:
    """Return sequences as a Series of strings or integer arrays, and their container; None for anything else.

    Sequences are a list, a 1-D array or a column of any library whose entries are all strings, or, in an array of
    objects or a Series, or as a list of different lengths, all one-dimensional integers.

    Raises
    ------
    ValueError
        If some of the sequences are missing.
    TypeError
        For bytes, and for strings beside something else.
    """
    form = SequenceForm.of(X)
    if form is None:
        return None
    values = X.to_pylist() if form.kind in ("arrow", "chunked") else X.to_list() if form.kind == "polars" else list(X)
    if not values:
        return None
    index = X.index if form.kind == "series" else None
    absent = [i for i, value in enumerate(values) if is_absent(value)]
    there = [value for value in values if not is_absent(value)]
    text = [value for value in there if isinstance(value, str)]
    if text:
        if len(text) < len(there):
            other = next(value for value in there if not isinstance(value, str))
            raise TypeError(
                f"X must hold nothing but strings, if they are sequences; got a {kind_of(other)}, {other!r:.40}, among "
                "them. Pass [str(s) for s in X], or a table, pandas.DataFrame(X)."
            )
        _refuse_absent(absent, form.kind, "isinstance(s, str)")
        return pd.Series(values, index=index, dtype=object), form
    if there and all(isinstance(value, bytes) for value in there):
        kind = "bytes" if form.dtype is not None and form.dtype.kind == "S" else form.kind
        raise TypeError(
            f"X must hold strings, if they are sequences; got bytes, such as {bytes(there[0])!r:.40}. "
            f"Pass {_DECODED.get(kind, _DECODED['list'])}."
        )
    rows = [_as_integers(value) for value in there]
    if not there or any(row is None for row in rows):
        return None
    if form.kind == "list" and not absent and len({len(row) for row in rows if row is not None}) == 1:
        return None  # a table of integers
    _refuse_absent(absent, form.kind, "s is not None")
    out = np.empty(len(rows), dtype=object)
    out[:] = rows
    return pd.Series(out, index=index), form


# How bytes become text, and missing entries are dropped, in each container.
_DECODED = {
    "list": "[s.decode() for s in X]",
    "bytes": "numpy.char.decode(X)",
    "series": "X.str.decode('utf-8')",
    "arrow": "X.cast('string')",
    "chunked": "X.cast('string')",
    "polars": "X.cast(polars.String)",
}
_DROPPED = {
    "series": "X.dropna()",
    "index": "X.dropna()",
    "extension": "X.dropna()",
    "arrow": "X.drop_null()",
    "chunked": "X.drop_null()",
    "polars": "X.drop_nulls()",
}


def _refuse_absent(absent: list[int], kind: str, test: str) -> None:
    """Raise an error that names the first missing sequence, if there is one."""
    if absent:
        more = f", as are {len(absent) - 1} more" if len(absent) > 1 else ""
        fix = _DROPPED.get(kind, f"[s for s in X if {test}]")
        raise ValueError(f"sequence {absent[0]} is missing{more}. Drop what is missing: pass {fix}.")


def is_absent(value: Any) -> bool:
    """Whether an entry stands for a missing sequence."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _as_integers(value: Any) -> np.ndarray | None:
    if isinstance(value, str | bytes) or not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.size == 0:
        array = array.astype(np.int64)
    return array if array.ndim == 1 and array.dtype.kind in "iu" else None


class SequenceCodec(Codec):
    """Encode sequences for diffusion, and decode to sequences.

    Parameters
    ----------
    alphabet : "auto", str or sequence, default="auto"
        The letters: "DNA", "RNA", "protein", or a string or list of them. "auto" takes the first of these three that
        has every letter of the data, and otherwise the letters of the data; for integers, their values.

    Attributes
    ----------
    alphabet_ : list
        Letters, or integers, in the order of their codes.
    length_ : int
        Length of the longest sequence.
    lengths_ : ndarray of shape (n,)
        Lengths of the training sequences.
    n_levels_ : list of int
        Number of levels of each position: letters, and one for what lies beyond the end if lengths differ.

    Examples
    --------
    >>> codec = SequenceCodec().fit(pd.Series(["ACGT", "AC", "GGT"]))
    >>> codec.encode(pd.Series(["AC", "ACGT"]))
    tensor([[0., 1., 4., 4.],
            [0., 1., 2., 3.]])
    >>> codec.decode(torch.tensor([[3.0, 2.0, 4.0, 1.0]])).to_list()
    ['TG']
    """

    n_continuous_ = 0

    def __init__(self, alphabet: str | Sequence = "auto") -> None:
        self.alphabet = alphabet

    @property
    def refined_(self) -> str:  # type: ignore[override]
        """By default where they are short: trees look at every position."""
        return "by default" if self.length_ <= REFINED_LENGTH else "when asked"

    @property
    def layout_(self) -> dict:
        """What the entries of a row are."""
        return {"kind": "sequence"}

    @property
    def n_levels_(self) -> list[int]:
        """Number of levels of each position."""
        return [len(self.alphabet_) + self.varies_] * self.length_

    @property
    def schema_(self) -> pd.DataFrame:
        """What was decided: the alphabet's name or letters, and the range of lengths."""
        name = next((k for k, letters in ALPHABETS.items() if list(letters) == self.alphabet_), None)
        shown = name or ("integers" if not self.text_ else "".join(self.alphabet_))
        return pd.DataFrame(
            [
                {
                    "kind": "sequence",
                    "alphabet": shown,
                    "letters": len(self.alphabet_),
                    "shortest": int(self.lengths_.min()),
                    "longest": self.length_,
                }
            ]
        )

    def fit(self, sequences: pd.Series, *_: Any, **__: Any) -> Self:
        """Learn the alphabet and the lengths of sequences (n,).

        Raises
        ------
        ValueError
            For letters that the alphabet lacks, more than 256 letters, sequences that are all empty or longer than
            4,096.
        """
        self.text_ = isinstance(sequences.iloc[0], str)
        self.lengths_ = np.array([len(s) for s in sequences])
        self.length_ = int(self.lengths_.max())
        if self.length_ == 0:
            raise ValueError("every sequence is empty, so there is nothing to model.")
        if self.length_ > MAX_LENGTH:
            raise ValueError(
                f"the longest sequence has {self.length_} positions, and at most {MAX_LENGTH} are modelled; cut them."
            )
        self.varies_ = bool(self.lengths_.min() < self.length_)
        self.alphabet_ = self._letters(sequences)
        if len(self.alphabet_) > MAX_LEVELS:
            raise ValueError(
                f"the sequences have {len(self.alphabet_)} different letters, and at most {MAX_LEVELS} are modelled. "
                "Text and tokens of a large vocabulary are not what sequences are for."
            )
        self._index = {letter: i for i, letter in enumerate(self.alphabet_)}
        return self

    def _letters(self, sequences: pd.Series) -> list:
        seen = set().union(*(set(s) if self.text_ else set(s.tolist()) for s in sequences))
        if isinstance(self.alphabet, str) and self.alphabet == "auto":
            known = [list(a) for a in ALPHABETS.values() if self.text_ and seen <= set(a) and len(seen) > 1]
            return known[0] if known else sorted(seen)
        letters = list(ALPHABETS.get(self.alphabet, self.alphabet) if isinstance(self.alphabet, str) else self.alphabet)
        unknown = sorted(seen - set(letters))
        if unknown:
            raise ValueError(f"the sequences have letters that the alphabet {letters} lacks: {unknown[:10]}.")
        return letters

    def encode(
        self,
        sequences: pd.Series,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> Tensor:
        """Map sequences (n,) to codes (n, length_), float32.

        Raises
        ------
        ValueError
            For letters that were not seen at fit, and sequences longer than all of those.
        """
        out = np.full((len(sequences), self.length_), float(len(self.alphabet_)), dtype=np.float32)
        for i, sequence in enumerate(sequences):
            if len(sequence) > self.length_ or (len(sequence) < self.length_ and not self.varies_):
                allowed = f"up to {self.length_}" if self.varies_ else f"{self.length_}, as all at fit"
                raise ValueError(f"sequence {i} has {len(sequence)} positions; {allowed} can be modelled.")
            letters = sequence if self.text_ else sequence.tolist()
            try:
                out[i, : len(sequence)] = [self._index[letter] for letter in letters]
            except KeyError as error:
                raise ValueError(
                    f"sequence {i} has the letter {error.args[0]!r}, which the alphabet {self.alphabet_} lacks."
                ) from None
        return torch.from_numpy(out)

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> pd.Series:
        """Map codes (n, length_) to sequences, each cut where it ends."""
        codes = data.detach().cpu().numpy().astype(np.int64)
        ends = codes >= len(self.alphabet_)
        lengths = np.where(ends.any(1), ends.argmax(1), self.length_)
        letters = np.array(self.alphabet_)
        out = np.empty(len(codes), dtype=object)
        for i, (row, n) in enumerate(zip(codes, lengths, strict=True)):
            out[i] = "".join(letters[row[:n]]) if self.text_ else letters[row[:n]]
        return pd.Series(out)

    def log_jacobian(self, sequences: pd.Series, data: Tensor) -> np.ndarray:
        """Log density factor (n,): 0, codes count by their probability."""
        return np.zeros(len(sequences))

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "alphabet": list(self.alphabet_),
            "text": self.text_,
            "varies": self.varies_,
            "length": self.length_,
            "lengths": self.lengths_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        codec = cls(list(state["alphabet"]))
        codec.alphabet_, codec.text_, codec.varies_ = list(state["alphabet"]), state["text"], state["varies"]
        codec.length_, codec.lengths_ = int(state["length"]), np.asarray(state["lengths"])
        codec._index = {letter: i for i, letter in enumerate(codec.alphabet_)}
        return codec
