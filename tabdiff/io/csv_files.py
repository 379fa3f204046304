"""Tables in csv files: every column read as what all of its fields say it is, and written back in the same form.

`tabdiff.io.csv_layout` finds how the file is laid out. The form, which `CsvForm` holds, travels with the frame in
``frame.attrs["csv"]``, and with a model that was fitted on it, so that drawn rows are written as the read ones were.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from tabdiff.io.csv_layout import MARKS, CsvError, CsvLayout, CsvOptions, open_csv, read_layout, records
from tabdiff.io.time_text import TimeForm, day_orders, looks_like_time, read_times
from tabdiff.utils.validation import did_you_mean
from tabdiff.utils.warnings import warn

__all__ = ["CsvForm", "read_csv", "write_csv"]

KEY = "csv"
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)
# A number that is no code: without needless zeros before it.
_PLAIN = re.compile(r"[+-]?(0|[1-9]\d*)?(?<=\d)(\.\d*)?([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_DURATION = re.compile(r"-?\d+ days?( [+-]?\d\d:\d\d:\d\d(\.\d+)?)?")
# A number in a form that is none without being told: thousands, a decimal comma, a unit.
_GROUPED = re.compile(r"[+-]?\d{1,3}([ ,.'\u00a0\u202f])\d{3}(\1\d{3})*([.,]\d+)?")
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_WITH_UNIT = re.compile(r"[$€£¥]\s?[+-]?[\d.,]+|[+-]?[\d.,]+\s?([%$€£¥]|[A-Za-z]{1,3})")
# So much of a column must be numbers or times for the rest to be taken for marks of missing values.
MOSTLY = 0.9
# Rows from which on whole numbers that count the rows are taken for a key.
MIN_KEY_ROWS = 20
_KEY_NAME = re.compile(r"(.*([^A-Za-z]|(?<=[a-z])(?=[A-Z])))?(?i:id|key|index|idx|nr|no|row|rowid|rownames?)")


@dataclass
class CsvForm:
    """How a csv file is written: what cannot be told from the values of a frame.

    Attributes
    ----------
    sep, decimal : str
    missing : str
        Mark of a missing value.
    columns : dict of dict
        By name, where a column has a form of its own: "time", the state of a `TimeForm`; "words", how it spells true
        and false; "missing", its own mark.
    """

    sep: str = ","
    decimal: str = "."
    missing: str = ""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for form in self.columns.values():
            if "time" in form:
                TimeForm.from_state(form["time"])  # of a file that may hold anything

    @classmethod
    def of(cls, frame: Any) -> Self | None:
        """Return the form that a frame carries, None where it has none."""
        state = frame.attrs.get(KEY) if isinstance(frame, pd.DataFrame) else None
        return None if state is None else cls(**state)

    def write(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a frame that carries this form."""
        frame.attrs[KEY] = asdict(self)
        return frame

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {KEY: asdict(self)}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        return cls(**state[KEY])


class _Column(NamedTuple):
    """Distinct texts of a column as values; where they stay text, a hint at what they may be."""

    values: pd.Series
    form: dict[str, Any] | None = None
    hint: tuple[str, str] | None = None
    decimal_comma: bool = False


def read_csv(path: Path, options: CsvOptions) -> pd.DataFrame:
    """Read a csv file; see `tabdiff.io.data_files.read_data`.

    Raises
    ------
    CsvError
        For what the file, or the options, make impossible.
    """
    layout = read_layout(path, options)
    for option, names in (("text", options.text), ("drop", options.drop)):
        for name in names:
            if name not in layout.names:
                hint = did_you_mean(name, layout.names)
                raise CsvError(f"{option} names the column {name!r}, which it lacks.{hint} Columns: {layout.names}.")
    texts = _read_texts(path, options, layout)
    columns, forms, marks, hints = {}, {}, [], []
    comma = False
    for j, name in enumerate(layout.names):
        if name in options.drop:
            continue
        codes, uniques = pd.factorize(texts.pop(j), use_na_sentinel=False)
        counts = np.bincount(codes, minlength=len(uniques))
        column, mark = _read_column(uniques.tolist(), counts, name, options, layout)
        columns[name] = column.values.take(codes).reset_index(drop=True)
        if column.form:
            forms[name] = column.form
        if column.hint:
            hints.append((name, *column.hint))
        if mark is not None:
            marks.append((name, mark))
        comma |= column.decimal_comma
    _warn_of_hints(path, hints)
    form = CsvForm(layout.sep, "," if comma else ".")
    form.missing = Counter(mark for _, mark in marks).most_common(1)[0][0] if marks else ""
    for name, mark in marks:
        if mark != form.missing:
            forms.setdefault(name, {})["missing"] = mark
    form.columns = forms
    frame = pd.DataFrame(columns)
    layout.unnamed = [name for name in layout.unnamed if name in columns]
    _warn_of_keys(path, frame, layout)
    return form.write(frame) if form != CsvForm() else frame


def _read_texts(path: Path, options: CsvOptions, layout: CsvLayout) -> dict[int, np.ndarray]:
    """Return the fields of each column as they stand in the file."""
    width = len(layout.names) + layout.trailing
    with open_csv(path, layout.encoding) as file:
        reader = records(file, options, layout)
        if options.header:
            next(record for record in reader if record)
        # The reader has taken the lines of the header from the file, and pandas goes on from there.
        frame = pd.read_csv(
            file,
            sep=layout.sep,
            header=None,
            names=list(range(width)),
            index_col=False,
            dtype=object,
            na_filter=False,
            skipinitialspace=layout.spaced,
            engine="c",
            low_memory=False,
        )
    return {j: frame.pop(j).to_numpy() for j in range(len(layout.names))}


def _read_column(
    texts: list[str], counts: np.ndarray, name: str, options: CsvOptions, layout: CsvLayout
) -> tuple[_Column, str | None]:
    """Read the distinct texts of a column and say how it marks missing values, if in one way only."""
    stripped = [text.strip() for text in texts]
    marks = set(MARKS if options.missing is None else options.missing) | {""}
    if options.missing is None and _are_codes(stripped):
        marks.discard("NA")
    missing = np.array([text in marks for text in stripped])
    spelled = sorted({text for text, is_missing in zip(stripped, missing, strict=True) if is_missing})
    observed = [text for text, is_missing in zip(stripped, missing, strict=True) if not is_missing]
    column = _Column(pd.Series(np.full(0, np.nan)))
    if observed:
        exact = [text for text, is_missing in zip(texts, missing, strict=True) if not is_missing]
        as_text = name in options.text
        found = None if as_text else _read_values(observed, options, layout)
        column = found or _Column(pd.Series(exact, dtype="string"))
        if found is None and not as_text:
            column = column._replace(hint=_hint(observed, counts[~missing], options, layout))
    return column._replace(values=_spread(column.values, missing)), spelled[0] if len(spelled) == 1 else None


def _spread(values: pd.Series, missing: np.ndarray) -> pd.Series:
    """Put values to where nothing is missing (n,), and missing ones elsewhere."""
    if not missing.any():
        return values
    dtypes = {"int64": "Int64", "bool": "boolean"}
    values = values.astype(dtypes.get(str(values.dtype), values.dtype))
    positions = np.where(missing, -1, np.cumsum(~missing) - 1)
    return values.reindex(positions).reset_index(drop=True)  # -1 is no label


def _are_codes(texts: list[str]) -> bool:
    """Whether "NA" stands among codes of two capitals, such as those of countries, where it is Namibia."""
    if "NA" not in texts:
        return False
    others = [text for text in texts if text not in ("", "NA")]
    return len(others) > 1 and all(re.fullmatch("[A-Z]{2}", text) for text in others)


def _read_values(texts: list[str], options: CsvOptions, layout: CsvLayout) -> _Column | None:
    """Read texts as what all of them are: truth values, numbers, times or durations; None if they are other texts."""
    if all(text.lower() in ("true", "false") for text in texts):
        words = {text.lower(): text for text in texts}
        words = {kind: words.get(kind) or _like(kind, texts[0]) for kind in ("true", "false")}
        plain = len({*texts}) > 2 or words == {"true": "True", "false": "False"}
        return _Column(pd.Series([text.lower() == "true" for text in texts]), None if plain else {"words": words})
    integers = all(map(_INTEGER.fullmatch, texts))
    usual = not integers and options.thousands is None and options.decimal in (None, ".")
    if usual and all(map(_PLAIN.fullmatch, texts)):
        return _Column(pd.Series(np.array(texts, dtype=object).astype(np.float64)))
    if integers and (any(map(_LEADING_ZERO.match, texts)) or all(text[0] == "+" and len(text) > 7 for text in texts)):
        return None  # codes, and numbers of telephones
    numbers = _read_numbers(texts, options, layout)
    if numbers is not None:
        return numbers
    if all(map(_DURATION.fullmatch, texts)):
        return _Column(pd.Series(pd.to_timedelta(texts)))
    read = read_times(texts, order=options.dates)
    if read is None:
        return None
    return _Column(
        read.times,
        {"time": read.form.state()},
        None if read.alike else ("offsets" if read.offsets > 1 else "forms", texts[0]),
    )


def _like(word: str, example: str) -> str:
    """Spell a word in the case of an example."""
    return word.upper() if example.isupper() else word if example.islower() else word.title()


def _read_numbers(texts: list[str], options: CsvOptions, layout: CsvLayout) -> _Column | None:
    """Read texts as numbers, with a decimal comma where the separator is no comma and some have one."""
    if options.thousands is not None and any(options.thousands in text for text in texts):
        grouped = [(text, _GROUPED.fullmatch(text)) for text in texts if options.thousands in text]
        if any(match is None or match[1] != options.thousands for _, match in grouped):
            return None
        texts = [text.replace(options.thousands, "") for text in texts]
    comma = options.decimal == ","
    if options.decimal is None and layout.sep != "," and any("," in text for text in texts):
        # 1,234 may be one or a thousand; 1,5 is no thousand.
        certain = any(_COMMA.fullmatch(text) and not _GROUPED.fullmatch(text) for text in texts)
        comma = certain and not any("." in text for text in texts)
    if options.decimal not in (None, "."):
        texts = [text.replace(".", "\0").replace(options.decimal, ".") for text in texts]
    elif comma:
        texts = [text.replace(",", ".") for text in texts]
    if not all(map(_NUMBER.fullmatch, texts)) or any(map(_LEADING_ZERO.match, texts)):
        return None
    if all(map(_INTEGER.fullmatch, texts)):
        integers = [int(text) for text in texts]
        largest = max(integers, key=abs)
        if abs(largest) >= 2**63:
            return None
        hint = ("huge", str(largest)) if abs(largest) > 2**53 else None
        return _Column(pd.Series(integers, dtype="int64"), hint=hint, decimal_comma=comma)
    return _Column(pd.Series(np.array(texts, dtype=object).astype(np.float64)), decimal_comma=comma)


# ------------------------------------------------------------------- warnings

_HINTS: dict[str, str] = {
    "decimal": (
        "is text, and looks like numbers with a decimal comma ({example!r}). If it is, say decimal=',' (--decimal ',')"
    ),
    "thousands": (
        "is text, and looks like numbers with separated thousands ({example!r}). If it is, say thousands={mark!r} "
        "(--thousands {mark!r})"
    ),
    "both": (
        "is text, and looks like numbers with separated thousands and a decimal comma ({example!r}). If it is, say "
        "thousands={mark!r}, decimal=',' (--thousands {mark!r} --decimal ',')"
    ),
    "either": (
        "is text, and looks like numbers ({example!r}) in which the comma may come before decimals or thousands. Say "
        "decimal=',' (--decimal ',') or thousands=',' (--thousands ',')"
    ),
    "unit": "is text, and looks like numbers with a unit ({example!r}). Leave the unit out of the file if they are",
    "large": "holds whole numbers beyond 64 bits ({example!r}) and is read as text, as an identifier is",
    "huge": (
        "holds whole numbers beyond 2**53 ({example}), which cannot be modelled. If they are an identifier, say "
        "text=[{name!r}] (--text {name!r})"
    ),
    "marks": (
        "is text for a few values ({example}), and the others are none. If those mean that a value is missing, say so: "
        "missing={words!r} (--missing {shell})"
    ),
    "days": (
        "is text, and looks like dates ({example!r}) whose order is open. Say dates='dmy' or dates='mdy' (--dates dmy)"
    ),
    "dates": "is text, and looks like times ({example!r}). Write them as 2024-05-31 or 2024-05-31 18:30:00",
    "forms": "holds times that are written in several forms ({example!r}, ...); they are written back in one",
    "offsets": "holds times of several UTC offsets ({example!r}, ...), which are read, and written back, as UTC",
}


def _hint(texts: list[str], counts: np.ndarray, options: CsvOptions, layout: CsvLayout) -> tuple[str, str] | None:
    """Say what the distinct texts of a column may be that were read as text."""
    if all(map(_INTEGER.fullmatch, texts)):
        large = max(texts, key=len)
        return ("large", large) if abs(int(large)) >= 2**63 and not any(map(_LEADING_ZERO.match, texts)) else None
    if len(day_orders(texts)) == 2:
        return "days", texts[0]
    grouped = [match for match in map(_GROUPED.fullmatch, texts) if match]
    others = [text for text in texts if not _GROUPED.fullmatch(text)]
    plain = [text for text in others if _NUMBER.fullmatch(text)]
    comma = [text for text in others if _COMMA.fullmatch(text)]
    if grouped and len(plain) + len(comma) == len(others):
        mark, example = grouped[0][1], grouped[0][0]
        if mark == "," and layout.sep != "," and not plain:
            return "either", example
        with_comma = mark != "," and (comma or any((match[3] or "").startswith(",") for match in grouped))
        return ("both" if with_comma else "thousands"), example
    if comma and len(comma) + len(plain) == len(texts):
        return "decimal", comma[0]
    if all(map(_WITH_UNIT.fullmatch, texts)) and len(texts) > 2 and any(re.search("[%$€£¥]", t) for t in texts):
        return "unit", texts[0]
    odd = list(islice((text for text in texts if not (_NUMBER.fullmatch(text) or looks_like_time(text))), 6))
    if 0 < len(odd) <= 5:
        is_odd = np.isin(texts, odd)
        rest = [text for text, other in zip(texts, is_odd, strict=True) if not other]
        enough = rest and counts[~is_odd].sum() >= MOSTLY * counts.sum()
        if enough and _read_values(rest, options, layout) is not None:
            return "marks", "\0".join(odd)
    if all(map(_names_a_month, texts[:20])):
        return "dates", texts[0]
    return None


def _names_a_month(text: str) -> bool:
    return bool(re.search(r"\d.*(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\W.*\d", text, re.IGNORECASE))


def _warn_of_hints(path: Path, hints: list[tuple[str, str, str]]) -> None:
    """Warn once for each kind of hint (name, kind, example), however many columns have it."""
    for kind in dict.fromkeys((kind, example if kind == "marks" else "") for _, kind, example in hints):
        alike = [(name, e) for name, k, e in hints if (k, e if k == "marks" else "") == kind]
        names, example = [name for name, _ in alike], alike[0][1]
        words = example.split("\0")
        values: dict[str, Any] = {"example": example}
        if kind[0] == "marks":
            values = {"example": ", ".join(map(repr, words)), "words": words, "shell": " ".join(map(repr, words))}
        elif kind[0] in ("thousands", "both"):
            match = _GROUPED.fullmatch(example)
            values["mark"] = match[1] if match else ","
        more = f" and {len(names) - 1} more like it" if names[1:] else ""
        warn(f"{path}: column {names[0]!r}{more} {_HINTS[kind[0]].format(name=names[0], **values)}.")


def _warn_of_keys(path: Path, frame: pd.DataFrame, layout: CsvLayout) -> None:
    """Warn of columns without a name and of whole numbers that name the rows."""
    for name in layout.unnamed:
        counts = (
            "numbers the rows, as pandas writes them without index=False, and " if _counts_rows(frame[name], 2) else ""
        )
        warn(
            f"{path}: a column without a name {counts}is called {name!r}. Leave it out with drop=[{name!r}] (--drop "
            f"{name!r}), or give it a name."
        )
    keys = [
        name
        for name in frame.columns
        if name not in layout.unnamed
        and (_counts_rows(frame[name], MIN_KEY_ROWS) or (_KEY_NAME.fullmatch(name) and _is_key(frame[name])))
    ]
    if keys:
        warn(
            f"{path}: column {keys[0]!r}{f' and {len(keys) - 1} more' if keys[1:] else ''} looks like a key: whole "
            f"numbers of which none repeats. New rows get made-up ones. Leave it out with drop={keys[:5]!r} "
            f"(--drop {' '.join(map(repr, keys[:5]))}) if it is one."
        )


def _is_key(series: pd.Series) -> bool:
    return str(series.dtype) == "int64" and len(series) >= MIN_KEY_ROWS and series.is_unique


def _counts_rows(series: pd.Series, n: int) -> bool:
    """Whether a column of at least n rows counts them from 0 or 1, in any order."""
    if str(series.dtype) != "int64" or len(series) < n or series.min() not in (0, 1):
        return False
    return bool(series.max() - series.min() == len(series) - 1 and series.is_unique)


# -------------------------------------------------------------------- writing


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame in the form that it carries: separator, decimal comma, marks of missing values, times, truth."""
    form = CsvForm.of(frame) or CsvForm()
    out = frame.copy(deep=False)
    for j, name in enumerate(frame.columns):
        series = frame.iloc[:, j]
        own = form.columns.get(str(name), {})
        written = _write_column(series, own)
        if "missing" in own and series.isna().any():
            if pd.api.types.is_float_dtype(series.dtype):
                written = series.map(lambda v: repr(float(v)).replace(".", form.decimal), na_action="ignore")
            written = written.astype(object).where(series.notna().to_numpy(), own["missing"])
        if written is not series:
            out.isetitem(j, written)
    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        # Neither name nor time in the header: the same rows make the same file.
        zipped = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0)) if path.suffix == ".gz" else raw
        text = stack.enter_context(io.TextIOWrapper(zipped, encoding="utf-8", newline=""))
        out.to_csv(text, index=False, sep=form.sep, decimal=form.decimal, na_rep=form.missing, lineterminator="\n")


def _write_column(series: pd.Series, own: dict[str, Any]) -> pd.Series:
    """Return a column as text where it has a form of its own, otherwise as it is."""
    dtype = series.dtype
    if "time" in own and (pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype)):
        written = TimeForm.from_state(own["time"]).write(series)
        return series if written is None else written
    if "words" in own and pd.api.types.is_bool_dtype(dtype):
        return series.astype(object).map({True: own["words"]["true"], False: own["words"]["false"]})
    return series
