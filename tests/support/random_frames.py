"""Random frames of every kind that pandas knows, and a few that nobody should have, for property tests.

Hypothesis draws the structure of a frame (how many rows, which kinds of columns, where values are missing, how rows and
columns are named), which it can shrink; a seed that it draws too fills in the values.
"""

import datetime
import decimal
import fractions
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from hypothesis import strategies as st

KEPT, REFUSED, EITHER = "kept", "refused", "either"
GAPS = ("none", "none", "some", "some", "one", "all but one", "all", "first half")
NAMES = ("plain", "unicode", "integers", "tuples", "levels", "times", "mixed", "repeated", "odd", "categories")
INDICES = ("range", "strings", "repeated", "times", "levels", "shuffled")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "+03:30",
    ZoneInfo("Europe/Rome"),
)
UNICODE = (
    "é",
    "e\u0301",
    "日本語",
    "🙂",
    "",
    " ",
    "a\nb",
    "a\x00b",
    "`x`",
    "$array",
    "a/b",
    "µ",
    "Ωmega",
    "شهر",
    "x" * 300,
)


@dataclass(frozen=True)
class Kind:
    """A kind of column: `make(rng, gaps)` returns a Series (n,), missing where gaps (n,) is True if it can be."""

    name: str
    make: Callable[[np.random.Generator, np.ndarray], pd.Series] = field(repr=False, compare=False)
    fate: str = KEPT


# ------------------------------------------------------------------ making columns


def series(values: Any, gaps: np.ndarray | None = None, dtype: Any = None) -> pd.Series:
    out = pd.Series(values, dtype=dtype)
    return out if gaps is None or not gaps.any() else out.mask(gaps)


def objects(values: Any, gaps: np.ndarray, marker: Any) -> pd.Series:
    """Make an object column of whatever the values are."""
    out = np.empty(len(values), dtype=object)
    for i, (value, gap) in enumerate(zip(values, gaps)):  # one by one, because some values are arrays themselves
        out[i] = marker if gap else value
    return pd.Series(out, dtype=object)


def arrow(values: Sequence, gaps: np.ndarray, kind: Callable[[Any], Any], n_chunks: int = 1) -> pd.Series:
    import pyarrow as pa

    kept = [None if gap else v for v, gap in zip(values, gaps)]
    parts = [list(part) for part in np.array_split(np.array([*kept, None], dtype=object)[:-1], n_chunks)]
    chunks = [pa.array(part, type=kind(pa)) for part in parts]
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array(chunks, type=kind(pa))))


def cycle(rng: np.random.Generator, n: int, values: Sequence) -> list:
    """Draw values with replacement, as they are."""
    return [values[i] for i in rng.integers(len(values), size=n)]


def integers(rng: np.random.Generator, n: int, dtype: str) -> np.ndarray:
    info = np.iinfo(dtype.lower())
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    if rng.random() < 0.5:
        low, high = max(low, -20), min(high, 100)
    return rng.integers(low, high, size=n, endpoint=True, dtype=dtype.lower())


def text(rng: np.random.Generator, n: int) -> list[str]:
    pool = [UNICODE, ("a", "b"), [f"id{i}" for i in range(n)], ("yes", "no", "don't know", "NaN", "None", "nan")][
        rng.integers(4)
    ]
    return list(pool) if len(pool) == n and n > 15 else cycle(rng, n, pool)


def instants(rng: np.random.Generator, n: int, unit: str = "ns") -> np.ndarray:
    """Times around the turn of clocks, days, or any that the unit reaches, as datetime64."""
    style = rng.integers(4)
    if style == 0:
        base = np.datetime64("2023-10-28T22:00", "m").astype(np.int64) + rng.integers(0, 360, n)
        return base.astype("M8[m]").astype(f"M8[{unit}]")
    if style == 1:
        return rng.integers(0, 20_000, n).astype("M8[D]").astype(f"M8[{unit}]")
    if style == 2:
        low, high = (-62_135_596_800, 253_402_300_799) if unit in ("s", "ms", "us") else (-9_223_372_036, 9_223_372_035)
        seconds = rng.integers(low, high, n)
        # Zones of the first and the last day would leave the calendar.
        return np.clip(seconds, low + 10**5, high - 10**5).astype("M8[s]").astype(f"M8[{unit}]")
    return rng.integers(1_600_000_000 * 10**9, 1_700_000_000 * 10**9, n).astype("M8[ns]").astype(f"M8[{unit}]")


def zoned(rng: np.random.Generator, gaps: np.ndarray, zone: Any) -> pd.Series:
    unit = ("s", "ms", "us", "ns")[rng.integers(4)]
    style = rng.integers(2)
    values = (
        instants(rng, len(gaps), "ns").astype(f"M8[{unit}]")
        if style
        else instants(rng, len(gaps), "ns").astype("M8[D]")
    )
    times = pd.DatetimeIndex(values.astype(f"M8[{unit}]"))
    times = times[(times.year > 1700) & (times.year < 2250)] if len(times) else times
    times = times if len(times) else pd.DatetimeIndex([pd.Timestamp("2020-01-01")]).as_unit(unit)
    times = times[rng.integers(len(times), size=len(gaps))]
    if style:
        return series(times.tz_localize("UTC").tz_convert(zone), gaps)
    return series(times.tz_localize(zone, ambiguous=np.ones(len(times), bool), nonexistent="shift_forward"), gaps)


def spans(rng: np.random.Generator, n: int, unit: str) -> np.ndarray:
    high = [10, 10**6, 2**62 if unit == "ns" else 10**9][rng.integers(3)]
    return rng.integers(-high, high, n).astype(f"m8[{unit}]")


def days(rng: np.random.Generator, n: int) -> list[datetime.date]:
    return [
        datetime.date.fromordinal(int(i))
        for i in rng.integers(*[(1, 3_652_059), (730_000, 730_020)][rng.integers(2)], n)
    ]


def moments(rng: np.random.Generator, n: int, zone: Any = None) -> list[datetime.datetime]:
    start = datetime.datetime(2001, 5, 17, tzinfo=zone)
    return [start + datetime.timedelta(seconds=int(s)) for s in rng.integers(0, 10**8, n)]


def decimals(rng: np.random.Generator, n: int, places: int = 2) -> list[decimal.Decimal]:
    return [decimal.Decimal(int(v)).scaleb(-places) for v in rng.integers(-(10**6), 10**6, n)]


def category(rng: np.random.Generator, gaps: np.ndarray, levels: Any) -> pd.Series:
    codes = rng.integers(0, max(len(levels) - int(rng.integers(2)), 1), len(gaps))
    codes[gaps] = -1
    dtype = pd.CategoricalDtype(levels, ordered=bool(rng.integers(2)))
    return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))


def whole(name: str, make: Callable[[np.random.Generator, int], Any], fate: str = KEPT) -> Kind:
    """A kind without missing values."""
    return Kind(name, lambda rng, gaps: series(make(rng, len(gaps))), fate)


def gappy(name: str, make: Callable[[np.random.Generator, int], Any], fate: str = KEPT) -> Kind:
    """A kind whose dtype marks missing values itself."""
    return Kind(name, lambda rng, gaps: series(make(rng, len(gaps)), gaps), fate)


def python(name: str, make: Callable[[np.random.Generator, int], Any], fate: str = KEPT, marker: Any = None) -> Kind:
    """A kind of Python objects."""
    return Kind(name, lambda rng, gaps: objects(make(rng, len(gaps)), gaps, marker), fate)


def in_arrow(name: str, make: Callable[[np.random.Generator, int], Any], kind: Callable, fate: str = KEPT) -> Kind:
    """A kind of Arrow arrays, sometimes in three chunks."""
    return Kind(name, lambda rng, gaps: arrow(make(rng, len(gaps)), gaps, kind, int(rng.choice([1, 3]))), fate)


def pick(*values: Any) -> Callable[[np.random.Generator, int], list]:
    return lambda rng, n: cycle(rng, n, values)


def at_least_once(
    make: Callable[[np.random.Generator, int], Any], value: Any
) -> Callable[[np.random.Generator, int], Any]:
    """Values of which one is `value`, so that a column is refused for certain; see `Case`."""

    def made(rng: np.random.Generator, n: int) -> Any:
        values = make(rng, n)
        values[int(rng.integers(n))] = value
        return values

    return made


# --------------------------------------------------------------------- the kinds

LARGEST, TINY, F32 = np.finfo(np.float64).max, 5e-324, np.finfo(np.float32)

NUMBERS = [
    gappy("float64", lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-9, 10)),
    gappy("float64 tails", lambda rng, n: rng.standard_cauchy(n) ** 3),
    gappy("float64 few", pick(0.1, 0.25, -3.0)),
    gappy("float64 constant", pick(7.5)),
    gappy("float64 whole", lambda rng, n: rng.integers(-9, 9, n).astype(float)),
    gappy("float64 cents", lambda rng, n: np.round(rng.gamma(1.0, 100.0, n), 2)),
    gappy("float64 spikes", lambda rng, n: np.where(rng.random(n) < 0.6, 0.0, rng.exponential(size=n))),
    gappy("float64 extreme", pick(LARGEST, -LARGEST, 0.0, -0.0, 1.0, 2.2e-308, TINY, -TINY)),
    gappy("float64 huge", lambda rng, n: rng.uniform(-1.0, 1.0, n) * LARGEST),
    gappy("float64 subnormal", lambda rng, n: rng.integers(-1000, 1000, n) * TINY),
    gappy("float64 neighbours", lambda rng, n: 1.0 + rng.integers(0, 50, n) * 2.0**-52),
    gappy("float32", lambda rng, n: rng.normal(size=n).astype(np.float32)),
    gappy(
        "float32 extreme", lambda rng, n: rng.choice(np.array([F32.max, -F32.max, F32.tiny, 1e-45, 0], np.float32), n)
    ),
    gappy("float16", lambda rng, n: rng.choice(np.array([65504, -65504, 6e-8, 0.1, 3], np.float16), n)),
    *[
        whole(t, lambda rng, n, t=t: integers(rng, n, t))
        for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32")
    ],
    *[whole(t, lambda rng, n, t=t: integers(rng, n, t)) for t in ("int64", "uint64")],
    *[
        Kind(t, lambda rng, gaps, t=t: series(integers(rng, len(gaps), t), gaps, t))
        for t in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64")
    ],
    Kind("Float32", lambda rng, gaps: series(rng.normal(size=len(gaps)).round(1), gaps, "Float32")),
    Kind("Float64", lambda rng, gaps: series(rng.normal(size=len(gaps)), gaps, "Float64")),
    whole("bool", lambda rng, n: rng.random(n) < 0.3),
    Kind("boolean", lambda rng, gaps: series(rng.random(len(gaps)) < 0.3, gaps, "boolean")),
    python("object int", lambda rng, n: rng.integers(-5, 50, n).tolist()),
    python("object float", lambda rng, n: rng.normal(size=n).tolist(), marker=np.nan),
    python("object int and float", lambda rng, n: cycle(rng, n, [1, 2.5, 3])),
    python("object numpy scalars", lambda rng, n: list(rng.normal(size=n))),
    python("object bool", pick(True, False), marker=pd.NA),
    python("object Decimal", decimals),
    python(
        "object Decimal, digits differ",
        lambda rng, n: [decimal.Decimal(v) for v in cycle(rng, n, ["1", "2.50", "1E+3"])],
    ),
]
REFUSED_NUMBERS = [
    whole("inf", at_least_once(lambda rng, n: rng.normal(size=n), np.inf), REFUSED),
    whole("-inf, float32", at_least_once(lambda rng, n: rng.normal(size=n).astype(np.float32), -np.inf), REFUSED),
    Kind("inf, Float64", lambda rng, gaps: series(np.full(len(gaps), np.inf), dtype="Float64"), REFUSED),
    python("inf, object", lambda rng, n: at_least_once(lambda r, m: [0.5] * m, float("-inf"))(rng, n), REFUSED),
    whole("int64 beyond 2**53", at_least_once(lambda rng, n: integers(rng, n, "int64"), 2**62), REFUSED),
    whole("uint64 beyond 2**63", at_least_once(lambda rng, n: integers(rng, n, "uint64"), 2**64 - 1), REFUSED),
    whole("complex", lambda rng, n: rng.normal(size=n) + 1j, REFUSED),
    python("huge int", lambda rng, n: [10**30 + i for i in range(n)], REFUSED),
    python("Decimal of 30 digits", lambda rng, n: [decimal.Decimal(10) ** 30 + i for i in range(n)], REFUSED),
    python("Decimal Infinity", pick(decimal.Decimal("Infinity")), REFUSED),
    python("Decimal sNaN", at_least_once(decimals, decimal.Decimal("sNaN")), EITHER),
    python("Fraction", lambda rng, n: [fractions.Fraction(int(i), 7) for i in rng.integers(0, 9, n)], REFUSED),
    python("object complex", at_least_once(pick(2.5), 1j), REFUSED),
    Kind(
        "sparse",
        lambda rng, gaps: pd.Series(pd.arrays.SparseArray(rng.integers(0, 2, len(gaps)).astype(float))),
        REFUSED,
    ),
]
TEXT = [
    python("str", text),
    python("str, NaN", text, marker=np.nan),
    python("str, NA", text, marker=pd.NA),
    python("str, constant", pick("only")),
    python("str, all different", lambda rng, n: [f"row {i}" for i in range(n)]),
    python("str, numpy", lambda rng, n: [np.str_(v) for v in cycle(rng, n, ["a", "b"])]),
    python("str, None and NaN", pick("a", "b", None, np.nan)),
    Kind("string", lambda rng, gaps: series(text(rng, len(gaps)), gaps, "string[python]")),
    Kind("string in Arrow", lambda rng, gaps: series(text(rng, len(gaps)), gaps, "string[pyarrow]")),
    Kind(
        "str of pandas 3",
        lambda rng, gaps: series(text(rng, len(gaps)), gaps, pd.StringDtype("pyarrow", na_value=np.nan)),
    ),
    *[
        Kind(f"category of {name}", lambda rng, gaps, levels=levels: category(rng, gaps, levels))
        for name, levels in {
            "str": ["low", "mid", "high", "never"],
            "unicode": list(UNICODE),
            "one": ["x"],
            "integers": [3, 1, 2],
            "floats": [0.5, -1.0, 2.0],
            "infinities": [-np.inf, np.inf, 0.0],
            "booleans": [True, False],
            "mixed types": ["a", 1, 2.5],
            "intervals": pd.interval_range(0, 4),
            "times": pd.date_range("2020-01-01", periods=3),
            "zoned times": pd.date_range("2020-01-01", periods=3, tz="Europe/Berlin"),
            "periods": pd.period_range("2020-01", periods=3, freq="M"),
            "durations": pd.to_timedelta([1, 2, 5], unit="h"),
            "dates": [datetime.date(2020, 1, 1), datetime.date(1, 1, 1)],
            "tuples": [("a", 1), ("b", 2)],
            "400 levels": [f"level {i}" for i in range(400)],
        }.items()
    ],
    Kind("category of nothing", lambda rng, gaps: pd.Series(pd.Categorical([None] * len(gaps), categories=[]))),
    python("uuids", lambda rng, n: [uuid.UUID(int=i) for i in range(n)]),
    python("times of day", lambda rng, n: [datetime.time(int(h)) for h in rng.integers(0, 24, n)]),
    python("bytes", pick(b"a", b"b")),
    python("missing: None", pick(None)),
    python("missing: NA and NaN", pick(pd.NA, np.nan)),
]
REFUSED_OBJECTS = [
    python("str and int", lambda rng, n: (["a", 1] * n)[:n], REFUSED),
    python("str and bool", lambda rng, n: ([True, "yes"] * n)[:n], REFUSED),
    python("int and bool", lambda rng, n: ([True, 3] * n)[:n], REFUSED),
    python("str and date", lambda rng, n: (["2020", datetime.date(2020, 1, 1)] * n)[:n], REFUSED),
    python("half a character", at_least_once(pick("b", "\ud800"), "a\udfff"), REFUSED),
    Kind(
        "category, half a character",
        lambda rng, gaps: category(rng, np.zeros(len(gaps), bool), pd.Index(["\udc00", "b"], dtype=object)[:1]),
        REFUSED,
    ),
    python("lists", lambda rng, n: [[i] for i in range(n)], REFUSED),
    python("dicts", lambda rng, n: [{"a": i} for i in range(n)], REFUSED),
    python("sets", lambda rng, n: [{i} for i in range(n)], REFUSED),
    python("tuples", pick((1, 2), (3,)), REFUSED),
    python("arrays", lambda rng, n: [rng.normal(size=2) for _ in range(n)], REFUSED),
    python("frames", lambda rng, n: [pd.DataFrame({"a": [1, 2]}) for _ in range(n)], REFUSED),
    python("functions", pick(len, print), REFUSED),
    python("periods, object", lambda rng, n: list(pd.period_range("2020", periods=n, freq="D")), REFUSED),
    python("intervals, object", lambda rng, n: list(pd.interval_range(0, n)), REFUSED),
    whole("periods", lambda rng, n: pd.period_range("2020", periods=n, freq="D"), REFUSED),
    whole("intervals", lambda rng, n: pd.interval_range(0, n), REFUSED),
]
TIMES = [
    *[gappy(f"datetime {unit}", lambda rng, n, unit=unit: instants(rng, n, unit)) for unit in ("s", "ms", "us", "ns")],
    gappy("datetime, few", lambda rng, n: rng.integers(0, 3, n).astype("M8[D]").astype("M8[ns]")),
    gappy(
        "datetime, ends of the calendar",
        lambda rng, n: pd.DatetimeIndex(cycle(rng, n, [pd.Timestamp.min, pd.Timestamp.max])),
    ),
    gappy("datetime, far away", lambda rng, n: rng.integers(-(10**14), 10**14, n).astype("M8[s]"), EITHER),
    *[Kind(f"datetime in {zone}", lambda rng, gaps, zone=zone: zoned(rng, gaps, zone)) for zone in ZONES],
    *[gappy(f"timedelta {unit}", lambda rng, n, unit=unit: spans(rng, n, unit)) for unit in ("s", "ms", "us", "ns")],
    gappy("NaT", lambda rng, n: np.full(n, "NaT", "M8[ns]")),
    python("dates, object", days),
    python("datetimes, object", moments),
    python("datetimes, object, zone", lambda rng, n: moments(rng, n, datetime.UTC), marker=pd.NaT),
    python("datetimes, object, ZoneInfo", lambda rng, n: moments(rng, n, ZoneInfo("Europe/Berlin")), EITHER),
    python("Timestamps, object", lambda rng, n: [pd.Timestamp(t) for t in moments(rng, n)], marker=pd.NaT),
    python("timedeltas, object", lambda rng, n: [datetime.timedelta(minutes=int(m)) for m in rng.integers(-9, 9, n)]),
    python("Timedeltas, object", lambda rng, n: list(pd.to_timedelta(rng.integers(0, 9, n), unit="D")), marker=pd.NaT),
    python("datetime64, object", lambda rng, n: list(instants(rng, n, "ns"))),
    python("datetimes of year 9999", pick(datetime.datetime(9999, 1, 1), datetime.datetime(1, 1, 1)), EITHER),
    python("dates and datetimes", pick(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1)), EITHER),
    python(
        "mixed zones",
        pick(
            pd.Timestamp("2020-01-01", tz="UTC"),
            pd.Timestamp("2020-01-01", tz="Asia/Tokyo"),
            pd.Timestamp("2021-01-01"),
        ),
        EITHER,
    ),
]
ARROW = [
    *[
        in_arrow(f"arrow {t}", lambda rng, n, t=t: integers(rng, n, t).tolist(), lambda pa, t=t: getattr(pa, t)())
        for t in ("int8", "uint16", "int64", "uint64")
    ],
    in_arrow("arrow double", lambda rng, n: rng.normal(size=n).tolist(), lambda pa: pa.float64()),
    in_arrow("arrow double, NaN", pick(0.5, float("nan"), 2.0), lambda pa: pa.float64()),
    in_arrow("arrow float", lambda rng, n: rng.normal(size=n).tolist(), lambda pa: pa.float32()),
    in_arrow("arrow half", lambda rng, n: list(rng.normal(size=n).astype(np.float16)), lambda pa: pa.float16()),
    in_arrow("arrow bool", pick(True, False), lambda pa: pa.bool_()),
    in_arrow("arrow string", text, lambda pa: pa.string()),
    in_arrow("arrow large_string", text, lambda pa: pa.large_string()),
    *[
        in_arrow(f"arrow timestamp {unit}", moments, lambda pa, unit=unit: pa.timestamp(unit))
        for unit in ("s", "ms", "us", "ns")
    ],
    in_arrow(
        "arrow timestamp, zone",
        lambda rng, n: moments(rng, n, datetime.UTC),
        lambda pa: pa.timestamp("us", "Europe/Berlin"),
    ),
    in_arrow("arrow date32", days, lambda pa: pa.date32()),
    in_arrow("arrow date64", days, lambda pa: pa.date64()),
    in_arrow("arrow duration", lambda rng, n: rng.integers(0, 99, n).tolist(), lambda pa: pa.duration("ms")),
    in_arrow("arrow decimal128", decimals, lambda pa: pa.decimal128(12, 2)),
    in_arrow("arrow decimal256", decimals, lambda pa: pa.decimal256(40, 2)),
    in_arrow("arrow dictionary", pick("a", "b", "🙂"), lambda pa: pa.dictionary(pa.int8(), pa.string())),
    in_arrow("arrow dictionary of int", pick(5, 7), lambda pa: pa.dictionary(pa.int32(), pa.int64())),
    in_arrow("arrow time32", lambda rng, n: [datetime.time(1)] * n, lambda pa: pa.time32("s")),
    in_arrow("arrow null", pick(None), lambda pa: pa.null()),
]
REFUSED_ARROW = [
    in_arrow("arrow string_view", pick("a", "b"), lambda pa: pa.string_view(), REFUSED),
    in_arrow("arrow binary", lambda rng, n: [b"a"] * n, lambda pa: pa.binary(), REFUSED),
    in_arrow("arrow list", lambda rng, n: [[1, 2]] * n, lambda pa: pa.list_(pa.int64()), REFUSED),
    in_arrow("arrow struct", lambda rng, n: [{"a": 1}] * n, lambda pa: pa.struct([("a", pa.int64())]), REFUSED),
    in_arrow("arrow map", lambda rng, n: [[("a", 1)]] * n, lambda pa: pa.map_(pa.string(), pa.int64()), REFUSED),
    in_arrow("arrow interval", lambda rng, n: [(1, 2, 3)] * n, lambda pa: pa.month_day_nano_interval(), REFUSED),
]
KINDS = [*NUMBERS, *TEXT, *TIMES, *ARROW]
REFUSED_KINDS = [*REFUSED_NUMBERS, *REFUSED_OBJECTS, *REFUSED_ARROW]


# ------------------------------------------------------------------------ frames


@dataclass
class Case:
    """A frame, and what should become of it.

    Attributes
    ----------
    frame : DataFrame
    kinds : list of Kind
        A kind for each column.
    refused : str or None
        Why the frame as a whole is refused, whatever is in it.
    """

    frame: pd.DataFrame
    kinds: list[Kind]
    refused: str | None
    text: str

    def __repr__(self) -> str:
        return self.text

    def names(self, *fates: str) -> list:
        """Names of the columns of certain fates."""
        return [name for name, kind in zip(self.frame.columns, self.kinds) if kind.fate in fates]


def gaps_of(style: str, rng: np.random.Generator, n: int) -> np.ndarray:
    if style == "all":
        return np.ones(n, dtype=bool)
    out = np.zeros(n, dtype=bool)
    if style == "some":
        out = rng.random(n) < rng.random()
    elif style == "one":
        out[rng.integers(n)] = True
    elif style == "all but one":
        out = ~out
        out[rng.integers(n)] = False
    elif style == "first half":
        out[: n // 2] = True
    return out


def column_names(style: str, d: int, rng: np.random.Generator) -> Any:
    if style == "unicode":
        return [f"{UNICODE[j % len(UNICODE)]}{j // len(UNICODE) or ''}" for j in range(d)]
    if style == "integers":
        return [int(j) for j in rng.permutation(d) - 2]
    if style == "tuples":
        return pd.Index([("a", j) for j in range(d)], tupleize_cols=False)
    if style == "levels":
        return pd.MultiIndex.from_tuples([("a" if j % 2 else "b", j, "") for j in range(d)], names=["x", None, 0])
    if style == "times":
        return pd.date_range("2020-01-01", periods=d)
    if style == "mixed":
        return ["a", *range(d - 1)]
    if style == "repeated":
        return ["a"] * d
    if style == "odd":
        return pd.Index([[None, float("nan")][rng.integers(2)], *range(d - 1)], dtype=object)
    if style == "categories":
        return pd.CategoricalIndex([f"c{j}" for j in range(d)], name="names")
    return [f"c{j}" for j in range(d)]


def row_names(style: str, n: int, rng: np.random.Generator) -> Any:
    if style == "strings":
        return [f"row {i}" for i in range(n)]
    if style == "repeated":
        return np.zeros(n, dtype=int)
    if style == "times":
        return pd.date_range("2020-01-01", periods=n, tz="Europe/Berlin")
    if style == "levels":
        return pd.MultiIndex.from_arrays([np.arange(n) % 3, np.arange(n)])
    if style == "shuffled":
        return rng.permutation(n)
    return pd.RangeIndex(n)


@st.composite
def frames(
    draw: Callable,
    kinds: Sequence[Kind] = tuple(KINDS),
    *,
    names: Sequence[str] = ("plain",),
    rows: Any = None,
    columns: Any = None,
    refused: Sequence[Kind] = (),
) -> Case:
    """Frames of the kinds given; one of the kinds `refused` is among the columns of about every second frame."""
    few, more = st.integers(1, 8), st.integers(9, 40)
    n = draw(st.one_of(few, more, st.sampled_from([60, 120, 250])) if rows is None else rows)
    d = draw(st.integers(1, 5) if columns is None else columns)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if d <= 12:
        chosen = [draw(st.sampled_from(kinds)) for _ in range(d)]
        styles = [draw(st.sampled_from(GAPS)) for _ in range(d)]
    else:  # A choice each would take hypothesis longer than the fit.
        chosen, styles = (cycle(rng, d, pool) for pool in (kinds, GAPS))
    if refused and draw(st.booleans()):
        chosen[int(rng.integers(d))] = draw(st.sampled_from(refused))
    naming, index = draw(st.sampled_from(names)), draw(st.sampled_from(INDICES))
    repeated = draw(st.sampled_from(["as drawn", "as drawn", "repeated", "all the same"]))
    cells = []
    for kind, style in zip(chosen, styles):
        # A gap might take the place of what is refused.
        gaps = gaps_of("none" if kind.fate == REFUSED else style, rng, n)
        cells.append(kind.make(rng, gaps))
    frame = pd.concat(cells, axis=1) if cells else pd.DataFrame(index=range(n))
    # Rows are repeated only where that leaves a refused value in.
    if repeated != "as drawn" and not any(k.fate == REFUSED for k in chosen):
        frame = frame.iloc[rng.integers(n if repeated == "repeated" else 1, size=n)]
    frame.columns = column_names(naming, d, rng)
    frame.index = row_names(index, n, rng)
    why = None
    if n < 2:
        why = "too few rows"
    elif frame.columns.has_duplicates:
        why = "repeated names"
    elif naming == "mixed" and d > 1:
        why = "names of several types"
    structure = ", ".join(f"{k.name} ({s})" for k, s in zip(chosen[:12], styles)) + ("..." if d > 12 else "")
    return Case(frame, chosen, why, f"{n} rows ({index}, {repeated}), {d} columns ({naming}): {structure}")
