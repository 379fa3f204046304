"""Advice in messages, followed to the letter: each raises or warns what it says, and what it says then works."""

import datetime as dt
import enum
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tabdiff import DiffusionGenerator

N = 40
rng = np.random.default_rng(0)
V = rng.normal(size=N)
COLOURS = ["red", "blue"] * (N // 2)
DAYS = pd.date_range("2024-01-01", periods=N)
Colour = enum.Enum("Colour", "RED BLUE")


def small(**settings):
    """Return a generator that fits in an instant."""
    settings = {"max_steps": 1, "hidden_size": 8, "n_blocks": 1, "refine": False, "random_state": 0, **settings}
    return DiffusionGenerator(**settings)


def fit(x, **settings):
    """Fit on a frame with a column, or what is given."""
    X = x if isinstance(x, pd.DataFrame) else pd.DataFrame({"x": x, "v": V})
    return small(**settings).fit(X).sample(2, steps=1)


def column(values):
    out = np.empty(N, dtype=object)
    for i in range(N):
        out[i] = values[i % len(values)]
    return pd.Series(out, dtype=object)


# ------------------------------------------------------------------ values of columns

# What is in the column "x", what the message must hold, and what it says to do with df = pd.DataFrame({"x": ...}).
COLUMNS = {
    "sparse": (
        pd.Series(pd.arrays.SparseArray([0] * (N - 1) + [1])),
        "df['x'].sparse.to_dense()",
        lambda df: df["x"].sparse.to_dense(),
    ),
    "periods": (
        pd.Series(pd.period_range("2024-01", periods=N, freq="M")),
        "df['x'].dt.to_timestamp()",
        lambda df: df["x"].dt.to_timestamp(),
    ),
    "intervals": (
        pd.Series(pd.cut(V, 3)).astype(pd.IntervalDtype("float64", "right")),
        "df['x'].astype(\"category\")",
        lambda df: df["x"].astype("category"),
    ),
    "enums as categories": (
        column(list(Colour)).astype("category"),
        "df['x'].astype(\"string\")",
        lambda df: df["x"].astype("string"),
    ),
    "enums": (column(list(Colour)), "df['x'].astype(\"string\")", lambda df: df["x"].astype("string")),
    "tuples": (column([(1, 2), (3, 4)]), "df['x'].astype(\"string\")", lambda df: df["x"].astype("string")),
    "lists": (column([[1], [2]]), "df['x'].astype(\"string\")", lambda df: df["x"].astype("string")),
    "NaN in a tuple": (
        column([(1, np.nan), (3, 4)]).astype("category"),
        "df['x'].astype(\"string\")",
        lambda df: df["x"].astype("string"),
    ),
    "mixed types": (column([1, "a"]), "df['x'].astype(\"string\")", lambda df: df["x"].astype("string")),
    "mixed booleans": (column([True, "a"]), "df['x'].astype(\"string\")", lambda df: df["x"].astype("string")),
    "infinite": (
        pd.Series(np.where(V > 1, np.inf, V)),
        "by NaN, which is modelled as missing",
        lambda df: df["x"].replace(np.inf, np.nan),
    ),
    "infinite decimals": (
        column([Decimal(1), Decimal("Infinity")]),
        "by NaN, which is modelled as missing",
        lambda df: df["x"].replace(Decimal("Infinity"), np.nan),
    ),
    "signalling NaN": (
        column([Decimal(1), Decimal("sNaN")]),
        "Replace it by NaN or None",
        lambda df: column([Decimal(1), None]),
    ),
    "long decimals": (
        column([Decimal("1e30"), Decimal("0.1")]),
        "df['x'].astype(float)",
        lambda df: df["x"].astype(float),
    ),
    "integers beyond 2**53": (
        pd.Series(2**60 + np.arange(N)),
        "Subtract an offset",
        lambda df: df["x"] - df["x"].min(),
    ),
    "identifiers beyond 2**53": (pd.Series(2**60 + np.arange(N)), "make it a string", lambda df: df["x"].astype(str)),
    "integers beyond 64 bits": (column([2**70, 1]), "Scale it down", lambda df: df["x"] / 2**60),
    "identifiers beyond 64 bits": (column([2**70, 1]), "make it a string", lambda df: df["x"].astype(str)),
    "dates among times": (
        column([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 5)]),
        "pd.to_datetime(df['x'])",
        lambda df: pd.to_datetime(df["x"]),
    ),
    "mixed time zones": (
        column([dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=h))) for h in (1, 2)]),
        "pd.to_datetime(df['x'], utc=True)",
        lambda df: pd.to_datetime(df["x"], utc=True),
    ),
    "times with a zone and without": (
        column([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2)]),
        "pd.to_datetime(df['x'], utc=True)",
        lambda df: pd.to_datetime(df["x"], utc=True),
    ),
    "times of day with a zone": (
        column([dt.time(1, tzinfo=dt.UTC), None]),
        "df['x'].map(lambda t: t.replace(tzinfo=None), na_action=\"ignore\")",
        lambda df: df["x"].map(lambda t: t.replace(tzinfo=None), na_action="ignore"),
    ),
    "half a character": (
        column(["a\udfff", "b"]),
        'df[\'x\'].str.encode("utf-8", "replace").str.decode("utf-8")',
        lambda df: df["x"].str.encode("utf-8", "replace").str.decode("utf-8"),
    ),
    "complex": (pd.Series(V * 1j), "df['x'].map(numpy.real)", lambda df: df["x"].map(np.real)),
    "Arrow lists": (
        pd.Series([[1, 2]] * N, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        "a column per item",
        lambda df: df["x"].list[0],
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_that_is_refused_is_taken_as_its_message_says(kind):
    values, advice, follow = COLUMNS[kind]
    frame = pd.DataFrame({"x": values, "v": V})
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(frame)
    assert advice in str(caught.value) and "'x'" in str(caught.value)
    frame["x"] = follow(frame)
    assert len(fit(frame)) == 2


# ------------------------------------------------------------------------ constraints

ZONED = pd.Series(DAYS.tz_localize("UTC"))
# Columns, a constraint, what the message must hold, and the frame or constraint that it says to use.
CONSTRAINTS = {
    "a date and a time": (
        {"d": DAYS.date, "t": DAYS + pd.Timedelta("5h")},
        ["d <= t"],
        "got {'d': 'datetime64[s]', 't': 'datetime64[ns]'}. Convert them to one: "
        "df['d'] = pd.to_datetime(df['d']).astype('datetime64[ns]').",
        lambda df: (df.assign(d=pd.to_datetime(df["d"]).astype("datetime64[ns]")), ["d <= t"]),
    ),
    "a time without a zone": (
        {"d": DAYS, "t": ZONED},
        ["d <= t"],
        "df['d'] = df['d'].dt.tz_localize('UTC').astype('datetime64[ns, UTC]')",
        lambda df: (df.assign(d=df["d"].dt.tz_localize("UTC").astype("datetime64[ns, UTC]")), ["d <= t"]),
    ),
    "two time zones": (
        {"d": ZONED, "t": ZONED.dt.tz_convert("Europe/Berlin")},
        ["d <= t"],
        "df['t'] = df['t'].dt.tz_convert('UTC').astype('datetime64[ns, UTC]')",
        lambda df: (df.assign(t=df["t"].dt.tz_convert("UTC").astype("datetime64[ns, UTC]")), ["d <= t"]),
    ),
    "a time and a duration": (
        {"d": DAYS, "t": DAYS - DAYS[0]},
        ["d <= t"],
        "leave the constraint out",
        lambda df: (df, None),
    ),
    "one string": ({"a": V, "b": V + 1}, "a <= b", "Use ['a <= b']", lambda df: (df, ["a <= b"])),
    "unreadable": (
        {"a b": V, "b": V + 1},
        ["a b <= b"],
        "`names like this` in backticks",
        lambda df: (df, ["`a b` <= b"]),
    ),
    "unknown column": (
        {"price": V, "b": V + 1},
        ["prise <= b"],
        "Did you mean 'price'",
        lambda df: (df, ["price <= b"]),
    ),
    "a sum on a side": (
        {"a": V, "b": V, "c": V + abs(V) + 1},
        ["a + b <= c"],
        "Add the sum as a column",
        lambda df: (df.assign(c=df["a"] + df["b"] + 1, ab=df["a"] + df["b"]), ["ab <= c"]),
    ),
    "sums on both sides": (
        {"a": V, "b": V, "c": V, "d": V},
        ["a + b = c + d"],
        "one side must be a single column, as in 'total = a + b - c'",
        lambda df: (df, ["a = c + d - b"]),
    ),
    "a circle": (
        {"a": V, "b": V},
        ["a <= b", "b <= a"],
        "'a = b' says that two columns are equal",
        lambda df: (df, ["a = b"]),
    ),
    "two sums": (
        {"t": V + V, "a": V, "b": V, "c": V, "d": V},
        ["t = a + b", "t = c + d"],
        "solve a sum for another of its columns",
        lambda df: (df, ["t = a + b", "d = t - c"]),
    ),
    "rows that break it": (
        {"a": V, "b": np.where(V > 1, V - 1, V + 1)},
        ["a <= b"],
        "Correct these rows",
        lambda df: (df.assign(b=df[["a", "b"]].max(axis=1)), ["a <= b"]),
    ),
    "integers and fractions": (
        {"a": np.arange(N), "b": np.arange(N) + 0.5, "c": np.full(N, 0.5)},
        ["a = b - c"],
        "Convert it to float",
        lambda df: (df.assign(a=df["a"].astype(float)), ["a = b - c"]),
    ),
    "integers too small": (
        {"a": (np.arange(N) * 3).astype(np.int8), "b": np.arange(N) * 5, "c": np.arange(N) * 2},
        ["a = b - c"],
        "Convert it to int64",
        lambda df: (df.assign(a=df["a"].astype("int64")), ["a = b - c"]),
    ),
    "text": (
        {"a": COLOURS, "b": V},
        ["a <= b"],
        "numbers or times are needed",
        lambda df: (df.assign(a=V - 1), ["a <= b"]),
    ),
}


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_constraint_that_is_refused_holds_as_its_message_says(kind):
    columns, texts, advice, follow = CONSTRAINTS[kind]
    frame = pd.DataFrame(columns)
    with pytest.raises(ValueError, match="constraint") as caught:
        fit(frame, constraints=texts)
    assert advice in str(caught.value)
    frame, texts = follow(frame)
    assert len(fit(frame, constraints=texts)) == 2
