"""Times written as text, read and written back alike: ISO 8601 in its forms, dates with the day first, times of day.

`read_times` reads a column of text as times if all of it is; the `TimeForm` that it returns writes times in the same
form. ISO 8601 is read with T or a space, with hours, minutes, seconds or fractions, with Z or an offset, extended
(2024-05-31T18:30:00Z), basic (20240531T183000Z), by weeks (2024-W22-5) and by months (2024-05). A basic date alone
(20240531) is a whole number, and an ordinal one (2024-152) is text, as numbers of parts look like it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

__all__ = ["ReadTimes", "TimeForm", "day_orders", "looks_like_time", "read_times"]

_DATE = (
    r"(?P<iso>\d{4}-\d\d-\d\d)|(?P<slashes>\d{4}/\d\d/\d\d)|(?P<basic>\d{8}(?=T))|(?P<week>\d{4}-W\d\d-\d|\d{4}W\d{3})"
    r"|(?P<month>\d{4}-\d\d)|(?P<first>\d\d?)(?P<mark>[./-])(?P<second>\d\d?)(?P=mark)(?P<year>\d{4})"
)
_SECONDS = r"(?:(?P=colon)(?P<s>\d\d)(?:(?P<point>[.,])(?P<fraction>\d{1,9}))?)?"
_CLOCK = rf"(?P<h>\d\d)(?:(?P<colon>:?)(?P<m>\d\d){_SECONDS})?"
_TIME = re.compile(rf"(?:{_DATE})(?:(?P<between>[T ]){_CLOCK}(?P<offset>Z|[+-]\d\d(?::?\d\d)?)?)?")
_TIME_OF_DAY = re.compile(rf"(?P<h>\d\d)(?P<colon>:)(?P<m>\d\d){_SECONDS}")
# Nanoseconds reach from September 1677 to April 2262.
_NANOSECOND_YEARS = (1678, 2261)


@dataclass(frozen=True)
class TimeForm:
    """How times of a column are written.

    Attributes
    ----------
    date : str
        ISO 8601 "Y-M-D", "YMD", "Y-W-D", "YWD" or "Y-M"; "Y/M/D"; or "D.M.Y", "M/D/Y" and the like. "" for times of
        day.
    padded : bool
        Whether days and months that are no ISO 8601 have two digits.
    between : {"", "T", " "}
        What stands between date and time.
    clock : {"", "h", "h:m", "h:m:s", "hm", "hms"}
        How exact the time is.
    point : {".", ","}
    digits : int
        Of a fraction of a second.
    fraction : {"fixed", "optional", "trimmed"}
        Whether all of the digits are written always, only where one is not zero, or up to the last that is not.
    offset : str
        As it is spelled: "Z", "+00:00", "+0000", "+00", or "" for times without zone.
    """

    date: str = "Y-M-D"
    padded: bool = True
    between: str = ""
    clock: str = ""
    point: str = "."
    digits: int = 0
    fraction: str = "fixed"
    offset: str = ""

    @property
    def zone(self) -> datetime.tzinfo | None:
        """The time zone that the offset stands for."""
        return _zone(_minutes(self.offset)) if self.offset else None

    def state(self) -> dict[str, Any]:
        """Plain description."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of :meth:`state`."""
        return cls(**state)

    def write(self, times: pd.Series) -> pd.Series | None:
        """Write datetimes, or timedeltas as times of day, (n,) as text, missing ones as they are.

        Returns
        -------
        Series of str or None
            None where the form cannot say all of these times: they are more exact than it, of another kind of zone, or
            before the year 1000.
        """
        observed = times.dropna().drop_duplicates()
        naive = observed
        if pd.api.types.is_timedelta64_dtype(observed.dtype):
            if self.date or ((observed < pd.Timedelta(0)) | (observed >= pd.Timedelta(days=1))).any():
                return None
            naive = pd.Timestamp(2000, 1, 1) + observed
        elif not self.date or (self.zone is None) != (observed.dt.tz is None):
            return None
        elif self.zone is not None:
            naive = observed.dt.tz_convert(self.zone).dt.tz_localize(None)
        exact = np.datetime_as_string(naive.to_numpy()).tolist()
        if any(text[4] != "-" or not text[0].isdigit() for text in exact):
            return None
        # What the form leaves out must be zero; but of a month the day, whatever day of it was drawn.
        said = (10, 13, 16, 19)[sum(part in self.clock for part in "hms")] + (self.digits + 1 if self.digits else 0)
        if self.date != "Y-M" and any(text[said:].strip("T:.0") for text in exact):
            return None
        return times.astype(object).map(dict(zip(observed, map(self._write, exact), strict=True)))

    def _write(self, exact: str) -> str:
        """Write a time that is given as "YYYY-MM-DD", or as that with "THH:MM:SS" and a fraction."""
        exact = exact if len(exact) > 10 else exact + "T00:00:00"
        if self.date == "Y-M-D" and self.clock in ("h:m", "h:m:s") and not self.digits:  # the usual forms
            return exact[:10] + self.between + exact[11 : {"h:m": 16, "h:m:s": 19}[self.clock]] + self.offset
        year, month, day, h, m, s = (exact[a:b] for a, b in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)))
        if "W" in self.date:
            iso = datetime.date(int(year), int(month), int(day)).isocalendar()
            date = f"{iso.year:04d}-W{iso.week:02d}-{iso.weekday}"
            date = date if "-" in self.date else date.replace("-", "")
        else:
            short = (lambda part: part) if self.padded else (lambda part: part.lstrip("0"))
            date = self.date.replace("Y", year).replace("M", short(month)).replace("D", short(day))
        clock = self.clock.replace("h", h).replace("m", m).replace("s", s)
        fraction = exact[20:].ljust(9, "0")[: self.digits]
        if self.fraction == "trimmed":
            fraction = fraction.rstrip("0")
        elif self.fraction == "optional" and not fraction.strip("0"):
            fraction = ""
        return date + self.between + clock + (self.point + fraction if fraction else "") + self.offset


class ReadTimes(NamedTuple):
    """A column of times that was read from text.

    Attributes
    ----------
    times : Series
        datetime64, with a zone where the text has offsets, or timedelta64 for times of day. Nanoseconds where those
        reach as far.
    form : TimeForm
        Writes them as they were, or, where they were written in several forms, in the most exact of those.
    alike : bool
        Whether it writes all of them as they were.
    offsets : int
        Number of different offsets. Where there are several, `times` and `form` are in UTC.
    """

    times: pd.Series
    form: TimeForm
    alike: bool
    offsets: int


def read_times(texts: Sequence[str], *, order: str | None = None) -> ReadTimes | None:
    """Read texts (n,) as times; None unless all of them are.

    Parameters
    ----------
    texts : sequence of str
        Different ones do; no missing values.
    order : {"dmy", "mdy"}, optional
        Whether 02/03/2024 is in March or in February. By default dates like it are read only where some of them can be
        read in one way only, and where their parts stand between points, as month first is not written so.

    Examples
    --------
    >>> read = read_times(["2024-05-31T18:30Z", "2024-06-01T00:00Z"])
    >>> read.times[0], read.form.write(read.times).to_list()
    (Timestamp('2024-05-31 18:30:00+0000', tz='UTC'), ['2024-05-31T18:30Z', '2024-06-01T00:00Z'])
    """
    pattern = _TIME if len(texts) and _TIME.fullmatch(texts[0]) else _TIME_OF_DAY
    matches = []
    for text in texts:
        match = pattern.fullmatch(text)
        if match is None:
            return None
        matches.append(match.groupdict())
    if not matches:
        return None
    if order not in ("dmy", "mdy"):
        orders = day_orders(texts)
        order = orders[0] if orders else "dmy"
        if len(orders) == 2:
            return None
    try:
        dates = [_iso_date(match, order) for match in matches]
        clocks = [f"T{m['h'] or '00'}:{m['m'] or '00'}:{m['s'] or '00'}" for m in matches]
        wall = np.array([date + clock for date, clock in zip(dates, clocks, strict=True)], dtype="datetime64[s]")
    except ValueError:  # no such day or time
        return None
    fraction = np.array([int((m["fraction"] or "").ljust(9, "0")) for m in matches])
    offsets = {m.get("offset") for m in matches}
    if None in offsets and len(offsets) > 1:
        return None
    minutes = np.array([_minutes(m.get("offset")) for m in matches])
    times = _times(wall - minutes.astype("timedelta64[m]"), fraction)
    if pattern is _TIME_OF_DAY:
        times = times - pd.Timestamp(2000, 1, 1)
    zones = len(set(minutes.tolist()))
    form = _form(matches, order, zones)
    if form.zone is not None:
        times = times.dt.tz_localize("UTC").dt.tz_convert(form.zone)
    return _closest(times, form, list(texts), zones)


def looks_like_time(text: str) -> bool:
    """Whether a text has the form of a time, be there such a time or not."""
    return bool(_TIME.fullmatch(text) or _TIME_OF_DAY.fullmatch(text))


def day_orders(texts: Sequence[str]) -> list[str]:
    """Return in which orders texts like 31/05/2024 can be read: "dmy", "mdy", both, or none if they are other texts."""
    matches = []
    for match in map(_TIME.fullmatch, texts):
        if match is None or not match["mark"]:
            return []
        matches.append(match)
    if not matches:
        return []
    parts = np.array([[int(m["first"]), int(m["second"])] for m in matches])
    if all(m["mark"] == "." for m in matches):
        return ["dmy"]
    return [order for order, months in (("dmy", parts[:, 1]), ("mdy", parts[:, 0])) if months.max() <= 12]


def _times(wall: np.ndarray, fraction: np.ndarray) -> pd.Series:
    """Make datetimes of whole seconds (n,) and nanoseconds (n,), in nanoseconds where those reach as far."""
    years = wall.astype("datetime64[Y]").astype(int) + 1970
    if years.min() >= _NANOSECOND_YEARS[0] and years.max() <= _NANOSECOND_YEARS[1]:
        return pd.Series(wall.astype("datetime64[ns]") + fraction.astype("timedelta64[ns]"))
    if fraction.any():
        return pd.Series(wall.astype("datetime64[us]") + (fraction // 1000).astype("timedelta64[us]"))
    return pd.Series(wall)


def _iso_date(match: dict[str, Any], order: str) -> str:
    if "iso" not in match:
        return "2000-01-01"
    if match["iso"] or match["slashes"]:
        return (match["iso"] or match["slashes"]).replace("/", "-")
    if match["basic"]:
        return f"{match['basic'][:4]}-{match['basic'][4:6]}-{match['basic'][6:]}"
    if match["month"]:
        return f"{match['month']}-01"
    if match["week"]:
        text = match["week"].replace("-", "")
        return datetime.date.fromisocalendar(int(text[:4]), int(text[5:7]), int(text[7])).isoformat()
    day, month = (match["first"], match["second"]) if order == "dmy" else (match["second"], match["first"])
    return f"{match['year']}-{int(month):02d}-{int(day):02d}"


def _minutes(offset: str | None) -> int:
    """Minutes that an offset is ahead of UTC."""
    if offset is None or offset == "Z":
        return 0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return (1 if offset[0] == "+" else -1) * (60 * int(digits[:2]) + int(digits[2:]))


def _zone(minutes: int) -> datetime.tzinfo:
    return datetime.timezone(datetime.timedelta(minutes=minutes)) if minutes else datetime.UTC


def _form(matches: list[dict[str, Any]], order: str, zones: int) -> TimeForm:
    """Return the most exact form of those in which the texts are written."""
    first = matches[0]
    date = "" if "iso" not in first else "Y-M-D"
    kinds = {next((k for k in ("iso", "slashes", "basic", "week", "month", "mark") if m.get(k)), "") for m in matches}
    if kinds == {"basic"}:
        date = "YMD"
    elif kinds == {"slashes"}:
        date = "Y/M/D"
    elif kinds == {"week"}:
        date = "Y-W-D" if "-" in first["week"] else "YWD"
    elif kinds == {"month"}:
        date = "Y-M"
    elif kinds == {"mark"}:
        date = first["mark"].join(order.upper())
    short = any(len(m["first"]) == 1 or len(m["second"]) == 1 for m in matches) if kinds == {"mark"} else False
    longest = max(matches, key=lambda m: (m["h"] is not None) + (m["m"] is not None) + (m["s"] is not None))
    clock = (longest["colon"] or "").join(part for part in "hms" if longest[part] is not None)
    digits = max(len(m["fraction"] or "") for m in matches)
    offset = next((m["offset"] for m in matches if m.get("offset")), "")
    if zones > 1:
        offset = "+00:00"
    point = next((m["point"] for m in matches if m["point"]), ".")
    return TimeForm(date, not short, longest.get("between") or "", clock, point, digits, "fixed", offset)


def _closest(times: pd.Series, form: TimeForm, texts: list[str], zones: int) -> ReadTimes:
    """Return the times with the form that writes them as they were, where there is one."""
    naive = times if form.zone is None else times.dt.tz_convert(form.zone).dt.tz_localize(None)
    naive = naive if form.date else pd.Timestamp(2000, 1, 1) + naive
    exact = np.datetime_as_string(naive.to_numpy()).tolist()
    for fraction in ("fixed", "optional", "trimmed") if form.digits else ("fixed",):
        candidate = replace(form, fraction=fraction)
        if [candidate._write(text) for text in exact] == texts:
            return ReadTimes(times, candidate, True, zones)
    return ReadTimes(times, form, False, zones)
