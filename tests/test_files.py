"""Data files: a csv is read as what it says and written back alike, and whatever is wrong says what to do about it."""

import gzip
import os
import re
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator
from tabdiff.io.data_files import DataFileError, check_output, read_data, write_data

TINY = {"max_steps": 2, "hidden_size": 8, "refine": False, "random_state": 0}


def _write(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def _silently(path: Path, **options: object) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_data(path, **options)


def _lines(header: str, form: str) -> str:
    """Make a table of 30 lines in which `form` is filled in with the number of the line and a letter."""
    return header + "\n" + "".join(form.format(i=i, x="xy"[i % 2]) + "\n" for i in range(30))


# ------------------------------------------------------------------ lines and fields


def test_trailing_delimiters_shift_nothing(tmp_path):
    for header, line in (("a,b,c", "{i}.5,{x},7,"), ("a,b,c,", "{i}.5,{x},7,"), ("a,b,c,", "{i}.5,{x},7")):
        frame = _silently(_write(tmp_path, _lines(header, line)))
        assert list(frame.columns) == ["a", "b", "c"]
        assert frame.iloc[1].to_list() == [1.5, "y", 7]


def test_a_last_column_without_a_name_that_holds_something_stays(tmp_path):
    with pytest.warns(UserWarning, match="without a name is called 'Unnamed: 2'"):
        frame = read_data(_write(tmp_path, "a,b,\n1,2,\n3,4,x\n"))
    assert frame["Unnamed: 2"].to_list() == [pd.NA, "x"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", 3, '"a,b"'),
        ("a,b\n1,2,\n1,2\n4,5\n", 2, ""),  # some lines only
        ("a,b\n1,2,\n1,2,\n4,5,x\n", 4, ""),
        ('a,b\n1,"x\ny"\n1,2,3\n', 4, ""),  # a field over two lines
        ("a,b\n1,2,3\n4,5,6\n", 2, "All lines have one more: if the first field names the row"),
        ("price,n\n1,5,2\n3,7,1\n", 2, "numbers are written with a comma"),
    ],
)
def test_a_surplus_field_is_refused_by_its_line(tmp_path, text, line, words):
    with pytest.raises(DataFileError, match=rf"t\.csv cannot be read as csv: line {line} has \d fields") as error:
        read_data(_write(tmp_path, text))
    assert words in str(error.value)


def test_advice_for_surplus_fields_works(tmp_path):
    assert _silently(_write(tmp_path, 'a,b\n1,x\n1,"x,y"\n'))["b"].to_list() == ["x", "x,y"]
    assert _silently(_write(tmp_path, "row,a,b\n1,2,3\n9,5,6\n"))["a"].to_list() == [2, 5]
    assert _silently(_write(tmp_path, "price;n\n1,5;2\n3,7;1\n"))["price"].to_list() == [1.5, 3.7]


def test_lines_that_are_short_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"2 of 3 records have fewer fields than the 3 of the header \(line 3, 4\)"):
        frame = read_data(_write(tmp_path, "a,b,c\n1,2,3\n4,5\n6\n"))
    assert str(frame["c"].dtype) == "Int64" and frame["c"].isna().to_list() == [False, True, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Sales 2024\n\nk;v;w\n1;2;3\n3;4;5\n", 2),
        ("# by me\nk,v\n1,2\n3,4\n", 1),
        ("Sales, 2024\nk;v\n1;2\n3;4\n", 1),
        ('A "title\nk|v\n1|2\n', 1),
    ],
)
def test_lines_above_the_header_can_be_skipped(tmp_path, text, told):
    path = _write(tmp_path, text)
    with pytest.raises(DataFileError, match=rf"skip={told} \(--skip {told}\)"):
        read_data(path)
    assert list(_silently(path, skip=told).columns)[:2] == ["k", "v"]


def test_comments_among_the_lines_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"line 3, '# end', looks like a comment. Delete such lines"):
        read_data(_write(tmp_path, "a,b\n1,2\n# end\n"))


def test_quoted_line_ends_and_empty_lines(tmp_path):
    frame = _silently(_write(tmp_path, 'a,b\r\n1,"x\r\ny, ""z"""\r\n\r\n2,w\r\n'))
    assert frame["b"].to_list() == ['x\r\ny, "z"', "w"]
    write_data(frame, tmp_path / "o.csv")
    pd.testing.assert_frame_equal(_silently(tmp_path / "o.csv"), frame)


def test_spaces_after_separators(tmp_path):
    frame = _silently(_write(tmp_path, 'a, b, c\n1, 2.5, "x, y"\n3, 4, z\n'))
    assert list(frame.columns) == ["a", "b", "c"]
    assert frame["c"].to_list() == ["x, y", "z"] and frame["b"].to_list() == [2.5, 4]


@pytest.mark.parametrize("text", ['a,b\n1,2\n3,"x\n5,6\n7,8\n', 'a,b\n1,2\n3,"x"y\n', 'a,b\n1,2\n3,"5\\" pipe"\n'])
def test_quotation_marks_out_of_place_name_the_line(tmp_path, text):
    with pytest.raises(DataFileError, match="record that starts on line 3"):
        read_data(_write(tmp_path, text))
    assert _silently(_write(tmp_path, 'a,b\n1,2\n3,"5"" pipe"\n'))["b"].to_list() == ["2", '5" pipe']


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "a header, 'a,b', and no rows"),
        ("a\0b\n1\n", "line 1 holds a NUL"),
    ],
)
def test_files_without_a_table(tmp_path, text, words):
    with pytest.raises(DataFileError, match=words):
        read_data(_write(tmp_path, text))


# ------------------------------------------------------------------ separators and numbers


@pytest.mark.parametrize("sep", [";", "\t", "|", ","])
def test_separators_are_recognised_and_kept(tmp_path, sep):
    content = f"kind{sep}price{sep}note\nx{sep}1.5{sep}a b\ny{sep}2.25{sep}\n"
    frame = _silently(_write(tmp_path, content))
    assert frame["price"].to_list() == [1.5, 2.25]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_a_separator_that_is_open_must_be_said(tmp_path):
    path = _write(tmp_path, "price, EUR;date\n3,50;x\n4,25;y\n")
    with pytest.raises(DataFileError, match=r"may be a comma or a semicolon.*sep=';' \(--sep ';'\)"):
        read_data(path)
    assert _silently(path, sep=";")["price, EUR"].to_list() == [3.5, 4.25]


def test_decimal_commas_are_read_and_written(tmp_path):
    content = "k;price;n;share\nx;1,5;1;\ny;-20;2;1e-3\nx;,25;3;2\n"
    frame = _silently(_write(tmp_path, content))
    assert frame["price"].to_list() == [1.5, -20, 0.25] and str(frame["n"].dtype) == "int64"
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "k;price;n;share\nx;1,5;1;\ny;-20,0;2;0,001\nx;0,25;3;2,0\n"
    pd.testing.assert_frame_equal(_silently(tmp_path / "o.csv"), frame)


@pytest.mark.parametrize(
    ("text", "warning", "options", "expected"),
    [
        (
            'v,w\n"1,234",x\n"56,789",y\n12,z\n',
            "thousands=',' (--thousands ',')",
            {"thousands": ","},
            [1234, 56789, 12],
        ),
        ("v;w\n1.234.567;x\n12.000;y\n", "thousands='.' (--thousands '.')", {"thousands": "."}, [1234567, 12000]),
        (
            "v;w\n1.234,5;x\n12,5;y\n",
            "thousands='.', decimal=',' (--thousands '.' --decimal ',')",
            {"thousands": ".", "decimal": ","},
            [1234.5, 12.5],
        ),
        ("v;w\n1 234;x\n56 789;y\n", "thousands=' ' (--thousands ' ')", {"thousands": " "}, [1234, 56789]),
        ("v;w\n1'234;x\n56'789;y\n", 'thousands="\'"', {"thousands": "'"}, [1234, 56789]),
        ('v,w\n"3,5",x\n"4,25",y\n', "decimal=',' (--decimal ',')", {"decimal": ","}, [3.5, 4.25]),
        ("v;w\n1,234;x\n5,678;y\n", "decimal=',' (--decimal ',') or thousands=','", {"decimal": ","}, [1.234, 5.678]),
        ("v;w\n1,234;x\n5,678;y\n", "decimal=',' (--decimal ',') or thousands=','", {"thousands": ","}, [1234, 5678]),
        ("v,w\n?,x\n" + "2.5,y\n" * 12, "missing=['?'] (--missing '?')", {"missing": ["?"]}, [None] + [2.5] * 12),
        (
            "v,w\nn.d.,x\n" + "2024-05-01,y\n" * 12,
            "missing=['n.d.']",
            {"missing": "n.d."},
            [None] + ["2024-05-01"] * 12,
        ),
        ("v,w\n31/12/2024,x\n1/2/2024,y\n", None, {}, ["2024-12-31", "2024-02-01"]),
        (
            "v,w\n3/12/2024,x\n1/2/2024,y\n",
            "dates='dmy' or dates='mdy'",
            {"dates": "mdy"},
            ["2024-03-12", "2024-01-02"],
        ),
        (
            "v,w\n03-12-2024 10:00,x\n01-02-2024 11:30,y\n",
            "dates='dmy'",
            {"dates": "dmy"},
            ["2024-12-03 10:00", "2024-02-01 11:30"],
        ),
    ],
)
def test_text_that_looks_like_something_says_how_to_read_it(tmp_path, text, warning, options, expected):
    path = _write(tmp_path, text)
    if warning is not None:
        with pytest.warns(UserWarning, match=re.escape(warning)):
            assert pd.api.types.is_string_dtype(read_data(path)["v"].dtype)
    values = _silently(path, **options)["v"]
    expected = [pd.Timestamp(v) if isinstance(v, str) else v for v in expected]
    assert values.astype(object).where(values.notna(), None).to_list() == expected
    # What it was read from is written back so that the same options read it again.
    write_data(read_data(path, **options), tmp_path / "o.csv")
    again = {name: value for name, value in options.items() if name != "thousands"}
    pd.testing.assert_series_equal(_silently(tmp_path / "o.csv", **again)["v"], values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["12%", "7.5%", "3%"], "unit"),
        (["$5", "$7.50", "$1"], "unit"),
        (["31 May 2024", "1 June 2024"], "Write them as 2024-05-31"),
        (["12345678901234567890123", "2"], "beyond 64 bits"),
    ],
)
def test_text_that_no_option_reads_says_why(tmp_path, values, words):
    with pytest.warns(UserWarning, match=words):
        frame = read_data(_write(tmp_path, "v,w\n" + "".join(f"{v},x\n" for v in values)))
    assert frame["v"].to_list() == values


def test_whole_numbers_that_cannot_be_modelled_can_be_said_to_be_text(tmp_path):
    path = _write(tmp_path, "card,v\n" + "".join(f"{9007199254740993 + i % 3},{i}.5\n" for i in range(30)))
    with pytest.warns(
        UserWarning, match=r"'card' holds whole numbers beyond 2\*\*53.*text=\['card'\] \(--text 'card'\)"
    ):
        frame = read_data(path)
    assert frame["card"][0] == 9007199254740993
    with pytest.raises(ValueError, match="make it a string if it is an identifier"):
        DiffusionGenerator(**TINY).fit(frame)
    rows = DiffusionGenerator(**TINY).fit(_silently(path, text=["card"])).sample(5)
    assert set(rows["card"]) <= {"9007199254740993", "9007199254740994", "9007199254740995"}


def test_hints_of_many_columns_are_one(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_data(_write(tmp_path, "a;b;c\n1 234;2 345;3 456\n5 678;6 789;7 890\n"))
    assert [str(w.message) for w in caught] == [
        f"{tmp_path}/t.csv: column 'a' and 2 more like it is text, and looks like numbers with separated thousands "
        "('1 234'). If it is, say thousands=' ' (--thousands ' ')."
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["02139", "10115"], ["02139", "10115"]),
        (["06", "36", "1"], ["06", "36", "1"]),
        (["007", "008"], ["007", "008"]),
        (["00", "1"], ["00", "1"]),
        (["-01", "2"], ["-01", "2"]),
        (["01.5", "2"], ["01.5", "2"]),
        (["+4930123456", "+4930123457"], ["+4930123456", "+4930123457"]),
        (["0", "1", "10"], [0, 1, 10]),
        (["0.5", "-0.25", "10"], [0.5, -0.25, 10]),
        (["+1", "-2"], [1, -2]),
        (["1e05", "2E-1"], [1e5, 0.2]),
        (["9007199254740992", "-5"], [9007199254740992, -5]),
        (["inf", "1"], [np.inf, 1]),
        (["0x10", "11"], ["0x10", "11"]),
        (["1_000", "11"], ["1_000", "11"]),
        (["0.1", "0.30000000000000004"], [0.1, 0.30000000000000004]),
    ],
)
def test_codes_stay_text_and_numbers_become_numbers(tmp_path, values, expected):
    path = _write(tmp_path, "v,w\n" + "".join(f"{v},x\n" for v in values))
    frame = _silently(path)
    assert frame["v"].to_list() == expected
    if expected == values:
        write_data(frame, tmp_path / "o.csv")
        assert (tmp_path / "o.csv").read_text() == path.read_text()


def test_columns_can_be_said_to_be_text(tmp_path):
    path = _write(tmp_path, "code,v\n1,1\n20,2\n,3\n")
    assert _silently(path, text=["code"])["code"].to_list() == ["1", "20", pd.NA]
    with pytest.raises(DataFileError, match="text names the column 'cod', which it lacks"):
        read_data(path, text=["cod"])


# ------------------------------------------------------------------ missing values and truth


def test_marks_of_missing_values_are_read_and_written_back(tmp_path):
    content = "size,sex,n,done\n1.5,NA,NA,TRUE\nNA,m,2,FALSE\n2.5,f,3,NA\n"
    frame = _silently(_write(tmp_path, content))
    assert frame.isna().sum().to_list() == [1, 1, 1, 1]
    assert [str(d) for d in frame.dtypes] == ["float64", "string", "Int64", "boolean"]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_columns_may_have_marks_of_their_own(tmp_path):
    content = "a;b;c;grade\n;NULL;2,5;None\n1;x;n/a;mild\n2;y;3,5;None\n;z;4,5;severe\n"
    frame = _silently(_write(tmp_path, content))
    assert frame.isna().sum().to_list() == [2, 1, 1, 2]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_namibia_is_a_country(tmp_path):
    frame = _silently(_write(tmp_path, "country,v\nNA,1\nDE,NA\nFR,3\n,4\n"))
    assert frame["country"].to_list() == ["NA", "DE", "FR", pd.NA]
    assert frame["v"].isna().to_list() == [False, True, False, False]
    frame = _silently(tmp_path / "t.csv", missing=["NA"])
    assert frame["country"].isna().to_list() == [True, False, False, True]


def test_missing_can_be_said_to_be_nothing_but_empty_fields(tmp_path):
    frame = _silently(_write(tmp_path, "grade,v\nNone,1\nmild,\n"), missing=[])
    assert frame["grade"].to_list() == ["None", "mild"] and frame["v"].isna().sum() == 1


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("true", "false"), ("True", "False"), ("TRUE", "TRUE")])
def test_truth_is_spelled_as_it_was(tmp_path, words):
    content = "ok,v\n" + "".join(f"{words[i % 2]},{i}.5\n" for i in range(4))
    frame = _silently(_write(tmp_path, content))
    assert frame["ok"].dtype == bool
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


# ------------------------------------------------------------------ times


TIMES = {
    "2024-05-31": "datetime64[ns]",
    "2024-05-31 18:30": "datetime64[ns]",
    "2024-05-31 18:30:05": "datetime64[ns]",
    "2024-05-31T18": "datetime64[ns]",
    "2024-05-31T18:30": "datetime64[ns]",
    "2024-05-31T18:30:05": "datetime64[ns]",
    "2024-05-31T18:30:05.5": "datetime64[ns]",
    "2024-05-31T18:30:05,125": "datetime64[ns]",
    "2024-05-31 18:30:05.000125": "datetime64[ns]",
    "2024-05-31T18:30:05.000000125": "datetime64[ns]",
    "2024-05-31T18:30Z": "datetime64[ns, UTC]",
    "2024-05-31T18:30:05Z": "datetime64[ns, UTC]",
    "2024-05-31T18:30:05.125Z": "datetime64[ns, UTC]",
    "2024-05-31 18:30:05+00:00": "datetime64[ns, UTC]",
    "2024-05-31T18:30:05+02:00": "datetime64[ns, UTC+02:00]",
    "2024-05-31T18:30:05-0330": "datetime64[ns, UTC-03:30]",
    "2024-05-31T18:30:05+05": "datetime64[ns, UTC+05:00]",
    "20240531T183005": "datetime64[ns]",
    "20240531T1830Z": "datetime64[ns, UTC]",
    "20240531T183005.5+0100": "datetime64[ns, UTC+01:00]",
    "2024-W22-5": "datetime64[ns]",
    "2024W225": "datetime64[ns]",
    "2024-05": "datetime64[ns]",
    "2024/05/31": "datetime64[ns]",
    "31.05.2024": "datetime64[ns]",
    "31.5.2024 18:30": "datetime64[ns]",
    "5/31/2024": "datetime64[ns]",
    "31-05-2024": "datetime64[ns]",
    "18:30": "timedelta64[ns]",
    "18:30:05": "timedelta64[ns]",
    "18:30:05.25": "timedelta64[ns]",
    "3 days": "timedelta64[ns]",
    "0 days 18:30:05": "timedelta64[ns]",
    "-1 days +18:30:05": "timedelta64[ns]",
    "9999-12-31": "datetime64[s]",
    "0999-12-31T10:00": "datetime64[s]",
}


@pytest.mark.parametrize("text", TIMES)
def test_times_are_read_and_written_back_alike(tmp_path, text):
    content = f"x;when\n1.5;{text}\n2.5;\n3.5;{text}\n"
    frame = _silently(_write(tmp_path, content))
    assert str(frame["when"].dtype) == TIMES[text]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


@pytest.mark.parametrize(
    "values",
    [
        ["2024-05-31", "2024-02-30"],
        ["2024-05-31", "unknown"],
        ["2024-152", "2024-153"],
        ["2024-13", "2024-14"],
        ["25:10", "12:61"],
        ["2024-05-31T18:30", "2024-05-31T18:30Z"],
        ["2024-05-31", "18:30"],
        ["1:2", "3:4"],
    ],
)
def test_what_is_no_time_stays_text(tmp_path, values):
    frame = read_data(_write(tmp_path, "x,v\n" + "".join(f"1.5,{v}\n" for v in values)))
    assert frame["v"].to_list() == values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-05-31T00:00:00", "2024-05-31T00:00:00.500000"], None),  # as datetime.isoformat writes
        (["2024-05-31T00:00:00Z", "2024-05-31T00:00:00.25Z", "2024-05-31T00:00:00.5Z"], None),  # as Go does
        (["2024-05-31", "2024-05-31 18:30:00"], "several forms"),
        (["2024-05-31T18:30+02:00", "2024-12-31T18:30+01:00"], "several UTC offsets"),
    ],
)
def test_times_in_several_forms_are_times(tmp_path, values, expected):
    path = _write(tmp_path, "x,v\n" + "".join(f"1.5,{v}\n" for v in values))
    if expected is None:
        frame = _silently(path)
    else:
        with pytest.warns(UserWarning, match=expected):
            frame = read_data(path)
    assert pd.api.types.is_datetime64_any_dtype(frame["v"].dtype)
    write_data(frame, tmp_path / "o.csv")
    assert expected is not None or (tmp_path / "o.csv").read_text() == path.read_text()
    pd.testing.assert_frame_equal(_silently(tmp_path / "o.csv"), frame)


def test_times_that_their_form_cannot_say_are_written_whole(tmp_path):
    frame = _silently(_write(tmp_path, "when\n2024-05-31T18:30\n2024-05-31T18:31\n"))
    frame.loc[0, "when"] += pd.Timedelta("5s")
    write_data(frame, tmp_path / "o.csv")
    assert _silently(tmp_path / "o.csv")["when"].equals(frame["when"])


def test_any_day_of_a_month_is_written_as_the_month(tmp_path):
    frame = _silently(_write(tmp_path, "when\n2024-05\n2024-06\n"))
    frame.loc[0, "when"] += pd.Timedelta("9D")
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "when\n2024-05\n2024-06\n"


def test_what_is_written_is_read_back_with_the_same_dtypes_and_values(tmp_path):
    times = pd.date_range("2024-01-01", periods=4, freq="37min")
    frame = pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=4),
            "minute": times,
            "fraction": times + pd.to_timedelta([0, 500, 0, 250], "ms"),
            "zone": times.tz_localize("UTC"),
            "zoned fraction": times.tz_localize("UTC") + pd.to_timedelta([0, 500, 0, 250], "us"),
            "gaps": times.where([True, False, True, True]),
            "wait": pd.to_timedelta([1, 2, 3, 4], "min"),
            "days": pd.to_timedelta([1, 2, 3, 4], "D"),
            "n": pd.array([1, None, 3, 4], "Int64"),
            "ok": pd.array([True, None, False, True], "boolean"),
            "v": [0.1, np.nan, 1e-300, 1 / 3],
            "text": pd.array(["x, y", None, 'a "b"', "é\n"], "string"),
        }
    )
    write_data(frame, tmp_path / "o.csv")
    pd.testing.assert_frame_equal(_silently(tmp_path / "o.csv"), frame)


def test_a_model_writes_rows_as_those_it_was_fitted_on(tmp_path):
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=40, freq="37min").strftime("%Y-%m-%dT%H:%MZ")
    lines = [
        f"{t};{rng.normal():.2f};0{rng.integers(10, 40)};{rng.choice(['TRUE', 'FALSE'])};{rng.choice(['a', 'NA'])}"
        for t in times
    ]
    content = "at;v;code;ok;k\n" + "\n".join(line.replace(".", ",") for line in lines) + "\n"
    frame = _silently(_write(tmp_path, content))
    for condition in (None, "ok"):
        DiffusionGenerator(**TINY).fit(frame, condition=condition).save(tmp_path / "m.safetensors")
        rows = DiffusionGenerator.load(tmp_path / "m.safetensors").sample(30, random_state=0)
        write_data(rows, tmp_path / "o.csv")
        written = (tmp_path / "o.csv").read_text().splitlines()
        assert written[0] == "at;v;code;ok;k"
        form = re.compile(r"2024-01-0\dT\d\d:\d\dZ;-?\d+,\d+;0\d\d;(TRUE|FALSE);(a|NA)")
        assert all(form.fullmatch(line) for line in written[1:])
        assert _silently(tmp_path / "o.csv").dtypes.equals(frame.dtypes)


# ------------------------------------------------------------------ header and keys


def test_names_that_repeat_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"t\.csv.*column names must be unique, but \['a'\]"):
        read_data(_write(tmp_path, "a,b,a\n1,2,3\n"))


def test_a_header_that_is_a_row_of_numbers(tmp_path):
    path = _write(tmp_path, _lines("0,0,0.0", "{i},{i}.5,7"))
    with pytest.raises(DataFileError, match=r"its first line, '0,0,0.0', is no header.*header=False \(--no-header\)"):
        read_data(path)
    frame = _silently(path, header=False, drop=["x0"])
    assert list(frame.columns) == ["x1", "x2"] and len(frame) == 31
    with pytest.warns(UserWarning, match="the header, '2019,2020', consists of numbers"):
        frame = read_data(_write(tmp_path, "2019,2020\n1.5,2\n2.5,3\n"))
    assert list(frame.columns) == ["2019", "2020"]


def test_the_index_of_pandas_is_named_and_can_be_left_out(tmp_path):
    pd.DataFrame({"v": np.linspace(0, 1, 30)}).to_csv(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match=r"numbers the rows, as pandas.*drop=\['Unnamed: 0'\] \(--drop 'Unnamed: 0'\)"):
        read_data(tmp_path / "t.csv")
    assert list(_silently(tmp_path / "t.csv", drop=["Unnamed: 0"]).columns) == ["v"]


@pytest.mark.parametrize(
    ("name", "values", "is_key"),
    [
        ("row", range(30), True),
        ("x", range(1, 31), True),
        ("patient_id", range(1000, 4000, 100), True),
        ("PatientID", range(1000, 4000, 100), True),
        ("valid", range(1000, 4000, 100), False),
        ("humid", range(1000, 4000, 100), False),
        ("year", range(1990, 2020), False),
        ("id", [1, 1, *range(2, 30)], False),
        ("x", range(5), False),
    ],
)
def test_whole_numbers_that_name_the_rows_are_warned_of(tmp_path, name, values, is_key):
    path = _write(tmp_path, f"{name},v\n" + "".join(f"{i},0.5\n" for i in values))
    if not is_key:
        assert len(_silently(path)) == len(values)
        return
    with pytest.warns(UserWarning, match=rf"column '{name}' looks like a key.*\(--drop '{name}'\)"):
        read_data(path)
    assert list(_silently(path, drop=name).columns) == ["v"]
    with pytest.raises(DataFileError, match="drop names the column 'w', which it lacks"):
        read_data(path, drop="w")


# ------------------------------------------------------------------ encodings and compression


def test_another_encoding_is_named_with_a_remedy(tmp_path):
    path = _write(tmp_path, "name,v\nabc,1\ncafé,2\n", encoding="latin-1")
    with pytest.raises(DataFileError, match=r"line 3 is not UTF-8 \(byte 0xe9\). Save.*encoding=\"cp1252\".*'café,2'"):
        read_data(path)
    frame = _silently(path, encoding="cp1252")
    assert frame["name"].to_list() == ["abc", "café"]
    write_data(frame, tmp_path / "utf8.csv")
    pd.testing.assert_frame_equal(_silently(tmp_path / "utf8.csv"), frame)
    with pytest.raises(DataFileError, match="encoding must be one that Python knows, such as cp1252; got 'utf8-x'"):
        read_data(path, encoding="utf8-x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_unicode_are_understood(tmp_path, encoding):
    frame = _silently(_write(tmp_path, "náme;v\nxé;1,5\ny;2\n", encoding=encoding))
    assert list(frame.columns) == ["náme", "v"] and frame["v"].to_list() == [1.5, 2]


def test_utf_16_without_a_mark(tmp_path):
    path = _write(tmp_path, "name,v\nx,1\n", encoding="utf-16-le")
    with pytest.raises(DataFileError, match=r"line 1 holds a NUL byte.*--encoding utf-16-le"):
        read_data(path)
    assert _silently(path, encoding="utf-16-le")["name"].to_list() == ["x"]


def test_compressed_csv(tmp_path):
    frame = pd.DataFrame({"a": ["x", "é"], "v": [0.5, 1.5]}).astype({"a": "string"})
    for name in ("one.csv.gz", "two.csv.gz"):
        write_data(frame, tmp_path / name)
        pd.testing.assert_frame_equal(_silently(tmp_path / name), frame)
    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "two.csv.gz").read_bytes()
    (tmp_path / "named.csv").write_bytes((tmp_path / "one.csv.gz").read_bytes())
    with pytest.raises(DataFileError, match=r"compressed by gzip. Name it so: its name must end in .csv.gz"):
        read_data(tmp_path / "named.csv")
    whole = gzip.compress(os.urandom(3000).hex().encode())
    for content in (whole[:1000], b"a,b\n1,2\n", whole[:-6] + b"abcdef"):
        (tmp_path / "bad.csv.gz").write_bytes(content)
        with pytest.raises(DataFileError, match=r"bad\.csv\.gz cannot be read as csv"):
            read_data(tmp_path / "bad.csv.gz")


# ------------------------------------------------------------------ other files


def test_files_of_other_kinds_say_what_to_do(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    frame.to_json(tmp_path / "t.json")
    np.save(tmp_path / "t.npy", frame.to_numpy())
    np.savez(tmp_path / "t.npz", table=frame.to_numpy())
    advice = {
        "t.tsv": ("Rename it to .csv", lambda p: p.rename(tmp_path / "o.csv")),
        "t.json": ("pandas.read_json(file)", lambda p: pd.read_json(p).to_csv(tmp_path / "o.csv", index=False)),
        "t.npy": (
            "pandas.DataFrame(numpy.load(file))",
            lambda p: pd.DataFrame(np.load(p)).to_csv(tmp_path / "o.csv", index=False),
        ),
        "t.npz": (
            "pandas.DataFrame(numpy.load(file)[name])",
            lambda p: pd.DataFrame(np.load(p)["table"]).to_csv(tmp_path / "o.csv", index=False),
        ),
    }
    for name, (words, follow) in advice.items():
        with pytest.raises(DataFileError, match=rf"{re.escape(name)}: the file name must end in") as error:
            read_data(tmp_path / name)
        assert words in str(error.value)
        follow(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the names of an array are numbers
            assert np.allclose(read_data(tmp_path / "o.csv").to_numpy(dtype=float), frame)
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataFileError, match="CSV UTF-8"):
        read_data(tmp_path / "t.xlsx")
    (tmp_path / "t.xlsx").rename(tmp_path / "t.csv")
    with pytest.raises(DataFileError, match="zip or Excel file"):
        read_data(tmp_path / "t.csv")


def _cells(path: Path) -> anndata.AnnData:
    cells = anndata.AnnData(
        np.ones((3, 2), dtype=np.float32),
        obs=pd.DataFrame({"k": ["a", "b", "a"]}, index=list("xyz")),
        var=pd.DataFrame(index=["g", "h"]),
    )
    cells.write_h5ad(path)
    return cells


def test_hdf5_that_is_no_anndata(tmp_path):
    path = tmp_path / "x.h5ad"
    with h5py.File(path, "w") as file:
        file["matrix"] = np.zeros((3, 3))
    with pytest.raises(
        DataFileError, match=r"x\.h5ad cannot be read as h5ad: it holds matrix, and no AnnData."
    ) as error:
        read_data(path)
    assert "anndata.AnnData(array).write_h5ad" in str(error.value)
    with h5py.File(path) as file:
        anndata.AnnData(file["matrix"][:]).write_h5ad(tmp_path / "y.h5ad")
    assert read_data(tmp_path / "y.h5ad").shape == (3, 3)
    with h5py.File(path, "w") as file:
        file.create_group("matrix")
    with pytest.raises(DataFileError, match=r"scanpy\.read_10x_h5"):
        read_data(path)


def test_h5ad_that_is_damaged_or_of_another_version(tmp_path):
    path = tmp_path / "x.h5ad"
    _cells(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFileError, match=r"x\.h5ad cannot be read as h5ad"):
        read_data(path)
    path.write_bytes(b"no hdf5")
    with pytest.raises(DataFileError, match="no HDF5 file, or was cut off"):
        read_data(path)
    _cells(path)
    with h5py.File(path, "r+") as file:
        file["X"].attrs["encoding-version"] = "99.0"
    with pytest.raises(DataFileError, match=r"anndata \d.* does not understand it .*pip install -U anndata"):
        read_data(path)
    _cells(path)
    with pytest.raises(DataFileError, match="drop is for tables"):
        read_data(path, drop=["k"])
    with pytest.raises(DataFileError, match=r"sep is for csv files\. Leave it out"):
        read_data(path, sep=",")
    assert read_data(path).shape == (3, 2)


def test_mudata_that_is_named_h5ad(tmp_path):
    mudata = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData({"rna": _cells(tmp_path / "c.h5ad")}).write(tmp_path / "x.h5mu")
        (tmp_path / "x.h5mu").rename(tmp_path / "x.h5ad")
        with pytest.raises(
            DataFileError, match=r"it is MuData. Write one of its modalities: mudata.read_h5mu\(file\).mod"
        ):
            read_data(tmp_path / "x.h5ad")
        mudata.read_h5mu(tmp_path / "x.h5ad").mod["rna"].write_h5ad(tmp_path / "rna.h5ad")
    assert read_data(tmp_path / "rna.h5ad").shape == (3, 2)


def test_parquet_that_is_damaged_or_something_else(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": np.arange(1000.0)}).to_parquet(path)
    whole = path.read_bytes()
    for content in (whole[:500], whole[:-20], b"", b"a,b\n1,2\n", whole[:4] + b"\0" * 400 + whole[404:-4] + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=r"t\.parquet cannot be read as parquet"):
            read_data(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataFileError, match=r"is a folder, not a .parquet file. Read its files together"):
        read_data(path)
    pd.DataFrame({"a": [1.0]}).to_parquet(path / "part-0.parquet")
    pd.read_parquet(path).to_parquet(tmp_path / "one.parquet")
    assert len(read_data(tmp_path / "one.parquet", drop=[])) == 1


def test_parquet_keeps_names_as_text_and_the_form_of_a_csv(tmp_path):
    pytest.importorskip("pyarrow")
    write_data(pd.DataFrame({0: [1.5], 1: [2.5]}), tmp_path / "t.parquet")
    assert list(read_data(tmp_path / "t.parquet").columns) == ["0", "1"]
    content = "at;v\n2024-05-31T18:30Z;1,5\n2024-05-31T18:45Z;2,5\n"
    write_data(_silently(_write(tmp_path, content)), tmp_path / "u.parquet")
    write_data(read_data(tmp_path / "u.parquet"), tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_what_is_forbidden_says_how_to_allow_it(tmp_path):
    path = _write(tmp_path, "a\n1\n")
    path.chmod(0)
    with pytest.raises(DataFileError, match=r"permission denied\. Allow it: chmod u\+r"):
        read_data(path)
    path.chmod(0o600)
    assert len(read_data(path)) == 1
    (tmp_path / "no").mkdir(mode=0o500)
    with pytest.raises(DataFileError, match="chmod u\\+w"):
        check_output(tmp_path / "no" / "o.csv")


def test_what_a_format_cannot_hold_names_the_file_and_leaves_nothing(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataFileError, match=r"o\.parquet cannot be written"):
        write_data(pd.DataFrame({"a": [1 + 2j]}), tmp_path / "o.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sep": "ab"}, "sep must be one character; got 'ab'"),
        ({"decimal": ""}, "decimal must be one character"),
        ({"dates": "ymd"}, 'dates must be "dmy" or "mdy"'),
        ({"skip": -1}, "skip must be"),
        ({"skip": 9}, "no more than 9 lines"),
    ],
)
def test_options_are_checked(tmp_path, options, words):
    with pytest.raises(DataFileError, match=words):
        read_data(_write(tmp_path, "a,b\n1,2\n"), **options)
