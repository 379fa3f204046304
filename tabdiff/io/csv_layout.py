"""What a csv file looks like before its values are read: encoding, separator, header, and whether every line fits."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tabdiff.utils.warnings import warn

__all__ = ["CsvError", "CsvLayout", "CsvOptions", "open_csv", "read_layout", "records"]

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a pipe"}
# Records that tell the separator.
SAMPLE = 200
_BOMS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
# Marks of missing values beside the empty field, as pandas, R and spreadsheets write them.
MARKS = tuple("NA N/A n/a #N/A #NA <NA> NaN nan -NaN -nan NaT NULL null None 1.#IND -1.#IND 1.#QNAN -1.#QNAN".split())


class CsvError(ValueError):
    """What is wrong with a csv file; the message does not name it."""


@dataclass(frozen=True)
class CsvOptions:
    """What `tabdiff.io.data_files.read_data` was told about a csv file; its docstring says what each means."""

    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    header: bool = True
    skip: int = 0
    missing: tuple[str, ...] | None = None
    text: tuple[str, ...] = ()
    dates: str | None = None
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("sep", self.sep), ("decimal", self.decimal), ("thousands", self.thousands)):
            if value is not None and (len(value) != 1 or value in '"\r\n'):
                raise CsvError(f"{name} must be one character; got {value!r}.{_SEP_HINT if name == 'sep' else ''}")
        if self.dates not in (None, "dmy", "mdy"):
            raise CsvError(f'dates must be "dmy" or "mdy", for 31/05/2024 or 05/31/2024; got {self.dates!r}.')
        if self.skip < 0:
            raise CsvError(f"skip must be a number of lines; got {self.skip!r}.")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                message = f"encoding must be one that Python knows, such as cp1252; got {self.encoding!r}."
                raise CsvError(message) from None


_SEP_HINT = " For columns between several spaces, replace those by one comma first."


@dataclass
class CsvLayout:
    """How the records of a csv file are to be taken apart.

    Attributes
    ----------
    encoding, sep : str
    names : list of str
        Of the columns, all different.
    spaced : bool
        Whether a space follows each separator.
    trailing : bool
        Whether every record has an empty field more than there are names.
    unnamed : list of str
        Names that were made up.
    """

    encoding: str
    sep: str
    names: list[str]
    spaced: bool = False
    trailing: bool = False
    unnamed: list[str] = field(default_factory=list)


def open_csv(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a csv file, compressed by gzip if it ends in .gz, as text with its line ends as they are."""
    return io.TextIOWrapper(_open_binary(path), encoding=encoding, newline="")


def _open_binary(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def records(file: io.TextIOWrapper, options: CsvOptions, layout: CsvLayout) -> Any:
    """Return a csv.reader of a file whose first lines are skipped; its line numbers start after them."""
    for _ in islice(file, options.skip):
        pass
    lines = _lines(file, options.skip + 1)
    return csv.reader(lines, delimiter=layout.sep, skipinitialspace=layout.spaced, strict=True)


def read_layout(path: Path, options: CsvOptions) -> CsvLayout:
    """Read through a csv file and find how it is laid out.

    Raises
    ------
    CsvError
        If it is empty, binary, in an encoding that is not known, has a record with more fields than the header, names
        that repeat, or no separator that can be told.

    Warns
    -----
    UserWarning
        For records with fewer fields than the header, columns without a name, and a header that looks like a row.
    """
    encoding = options.encoding or _encoding(path)
    try:
        with open_csv(path, encoding) as file:
            sample = list(islice(_lines(file), options.skip + SAMPLE))
        sample = sample[options.skip :]
        sep = options.sep or _separator(sample)
        spaced = _is_spaced(sample, sep)
        return _check(path, options, CsvLayout(encoding, sep, [], spaced))
    except UnicodeDecodeError as error:
        raise CsvError(_encoding_message(path, encoding, error)) from None


def _lines(file: io.TextIOWrapper, start: int = 1) -> Iterator[str]:
    for number, line in enumerate(file, start):
        if "\0" in line:
            raise CsvError(
                f"line {number} holds a NUL byte, so this is no text, or text as UTF-16. Save it as UTF-8, or say "
                'encoding="utf-16-le" (--encoding utf-16-le) if it is the latter.'
            )
        yield line


def _encoding(path: Path) -> str:
    with _open_binary(path) as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        raise CsvError("it is compressed by gzip. Name it so: its name must end in .csv.gz.")
    if start == b"PK\x03\x04":
        raise CsvError("it is a zip or Excel file. Unpack it, or save the table as CSV UTF-8.")
    # With the mark or without, this reads UTF-8.
    return next((name for mark, name in _BOMS.items() if start.startswith(mark)), "utf-8-sig")


def _encoding_message(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """Say which line is in another encoding, and what it would be in the likeliest."""
    if not encoding.startswith("utf-8"):
        return f"it is not in the encoding {encoding}: {error.reason}. Leave encoding out, or give another."
    with _open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as at:
                around = line[max(at.start - 12, 0) : at.start + 12].decode("cp1252", "replace").strip()
                return (
                    f"line {number} is not UTF-8 (byte 0x{line[at.start]:02x}). Save the file as UTF-8 (in Excel: CSV "
                    f'UTF-8), or say encoding="cp1252" (--encoding cp1252), in which it reads {around!r}.'
                )
    return f"it is not UTF-8: {error.reason}. Save it as UTF-8."


def _counts(sample: list[str], sep: str) -> list[int]:
    """Number of fields of each record of a sample, empty lines left out."""
    records = [len(record) for record in csv.reader(sample, delimiter=sep) if record]
    # The sample may end within a quoted field.
    return records[:-1] if len(sample) >= SAMPLE and len(records) > 1 else records


def _separator(sample: list[str]) -> str:
    """Return the separator with which every record of a sample has as many fields as the header, or nearly."""
    counts = {sep: _counts(sample, sep) for sep in SEPARATORS}
    several = {sep: n for sep, n in counts.items() if n and n[0] > 1}
    whole = {sep: n[0] for sep, n in several.items() if len(set(n[1:]) | {n[0]}) == 1 or set(n[1:]) == {n[0] + 1}}
    most = max(whole.values(), default=0)
    best = [sep for sep, n in whole.items() if n == most]
    if len(best) > 1:
        first, second = best[:2]
        raise CsvError(
            f"its separator may be {SEPARATORS[first]} or {SEPARATORS[second]}: both give {most} fields in every line. "
            f"Say which: sep={second!r} (--sep {_shell(second)})."
        )
    if best:
        return best[0]
    # No separator fits: the one by which most records have the same number of fields makes the best message.
    tried = several or {sep: n for sep, n in counts.items() if n and max(n) > 1}
    return max(tried, key=lambda sep: Counter(n for n in tried[sep] if n > 1).most_common(1)[0][1], default=",")


def _shell(sep: str) -> str:
    return "$'\\t'" if sep == "\t" else f"'{sep}'"


def _is_spaced(sample: list[str], sep: str) -> bool:
    if sep == " ":
        return False
    records = [record for record in csv.reader(sample, delimiter=sep) if len(record) > 1]
    return bool(records) and all(f.startswith(" ") for record in records for f in record[1:] if f)


def _check(path: Path, options: CsvOptions, layout: CsvLayout) -> CsvLayout:
    """Fill in the names, and check every record."""
    with open_csv(path, layout.encoding) as file:
        reader = records(file, options, layout)
        head = next((record for record in _strictly(reader, options.skip) if record), None)
        if head is None:
            raise CsvError("it is empty." if not options.skip else f"it has no more than {options.skip} lines to skip.")
        start, width = reader.line_num + options.skip, len(head)
        full = trailing = n_short = by_one = surplus = 0
        ends_empty = True
        short: list[int] = []
        first: tuple[int, list[str]] | None = None
        for record in _strictly(reader, options.skip):
            if len(record) == width:
                full += 1
                ends_empty = ends_empty and record[-1] == ""
            elif len(record) > width:
                surplus += 1
                extra = len(record) == width + 1 and record[-1] == ""
                # Of the records that have too much, the first with something in it.
                if first is None or (trailing == surplus - 1 and not extra):
                    first = reader.line_num + options.skip, record
                trailing += extra
            elif record:
                if record[0].startswith("#"):
                    line, text = reader.line_num + options.skip, layout.sep.join(record)
                    raise CsvError(f"line {line}, {text!r:.60}, looks like a comment. Delete such lines.")
                n_short += 1
                by_one += len(record) == width - 1
                short = (short + [reader.line_num + options.skip])[:3]
    n_rows = full + surplus + n_short + (not options.header)
    if first is not None and (trailing < surplus or full or n_short):
        raise CsvError(_surplus_message(layout, head, start, *first, every=not full and not n_short))
    if n_rows == 0:
        raise CsvError(f"it has a header, {layout.sep.join(head)!r:.80}, and no rows.")
    if n_short == n_rows > 0 and not head[-1].strip() and by_one == n_short:
        head, n_short = head[:-1], 0  # the header alone has a separator at its end
    elif n_short == n_rows > 1:
        raise CsvError(
            f"the header on line {start}, {layout.sep.join(head)!r:.60}, has {width} fields, and every line after it "
            f"fewer. If lines above the header are no part of the table, say skip={start} (--skip {start}); if "
            f"{SEPARATORS.get(layout.sep, repr(layout.sep))} is not what separates fields, say sep=... (--sep)."
        )
    if n_short:
        lines = ", ".join(map(str, short)) + (", ..." if n_short > len(short) else "")
        warn(
            f"{path}: {n_short} of {n_rows} records have fewer fields than the {width} of the header (line {lines}); "
            "what they lack is taken as missing. Is the file cut off, or a separator left out?"
        )
    layout.trailing = first is not None
    if options.header and width > 1 and not head[-1].strip() and full == n_rows and ends_empty:
        layout.trailing, head = True, head[:-1]
    _name(head, path, options, layout)
    return layout


def _strictly(reader: Any, skipped: int) -> Iterator[list[str]]:
    """Give the records of a reader; quotation marks out of place are an error that names the line."""
    start = skipped + 1
    try:
        for record in reader:
            yield record
            start = skipped + reader.line_num + 1
    except csv.Error as error:
        # A field that is never closed ends with the file, far from where it began.
        raise CsvError(
            f"quotation marks do not match in the record that starts on line {start} ({error}). Close them, and write "
            'one within quotation marks twice: "5"" pipe".'
        ) from None


def _surplus_message(
    layout: CsvLayout, head: list[str], start: int, line: int, record: list[str], *, every: bool
) -> str:
    text = layout.sep.join(head)
    message = f"line {line} has {len(record)} fields, and the header on line {start} {len(head)} ({text!r:.60}). "
    if len(head) == 1:
        message += (
            f"If what stands above line {line} is no part of the table, say skip={line - 1} (--skip {line - 1}). "
        )
    elif every and len(record) == len(head) + 1:
        message += (
            "All lines have one more: if the first field names the row, the header needs a name for it; if numbers are "
            "written with a comma, the separator must be another. "
        )
    return message + _quote(layout.sep)


def _quote(sep: str) -> str:
    return f'A field that holds {SEPARATORS.get(sep, repr(sep))} must stand in quotation marks: "a{sep}b".'


def _name(head: list[str], path: Path, options: CsvOptions, layout: CsvLayout) -> None:
    """Set the names of a layout."""
    if not options.header:
        layout.names = [f"x{j}" for j in range(len(head))]
        return
    numbers = [bool(_NUMBER.fullmatch(name)) for name in head]
    row = all(numbers) or (any(numbers) and any(name == "" or name in MARKS for name in head))
    text = layout.sep.join(head)
    advice = "Put a line of names above it, or say header=False (--no-header)."
    layout.names = [name.strip() or f"Unnamed: {j}" for j, name in enumerate(head)]
    repeated = list(dict.fromkeys(name for name, n in Counter(layout.names).items() if n > 1))
    if row and repeated:
        raise CsvError(f"its first line, {text!r:.80}, is no header but a row of numbers. {advice}")
    if repeated:
        raise CsvError(
            f"column names must be unique, but {repeated[:5]} stand more than once in the header. Rename them there."
        )
    if row:
        warn(f"{path}: the header, {text!r:.80}, consists of numbers; is it a row? {advice}")
    layout.unnamed = [new for new, name in zip(layout.names, head, strict=True) if not name.strip()]
