"""Csv files: lines, separators, numbers, missing values and headers are read as they are and written back alike."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from csv_text import read_silently, write_text

from tabdiff import DiffusionGenerator
from tabdiff.io.data_files import DataFileError, read_data, write_data

TINY = {"max_steps": 2, "hidden_size": 8, "refine": False, "random_state": 0}


def _lines(header: str, form: str) -> str:
    """Make a table of 30 lines in which `form` is filled in with the number of the line and a letter."""
    return header + "\n" + "".join(form.format(i=i, x="xy"[i % 2]) + "\n" for i in range(30))


# ------------------------------------------------------------------ lines and fields


def test_trailing_delimiters_shift_nothing(tmp_path):
    for header, line in (("a,b,c", "{i}.5,{x},7,"), ("a,b,c,", "{i}.5,{x},7,"), ("a,b,c,", "{i}.5,{x},7")):
        frame = read_silently(write_text(tmp_path, _lines(header, line)))
        assert list(frame.columns) == ["a", "b", "c"]
        assert frame.iloc[1].to_list() == [1.5, "y", 7]


def test_a_last_column_without_a_name_that_holds_something_stays(tmp_path):
    with pytest.warns(UserWarning, match="without a name is called 'Unnamed: 2'"):
        frame = read_data(write_text(tmp_path, "a,b,\n1,2,\n3,4,x\n"))
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
        read_data(write_text(tmp_path, text))
    assert words in str(error.value)


def test_advice_for_surplus_fields_works(tmp_path):
    assert read_silently(write_text(tmp_path, 'a,b\n1,x\n1,"x,y"\n'))["b"].to_list() == ["x", "x,y"]
    assert read_silently(write_text(tmp_path, "row,a,b\n1,2,3\n9,5,6\n"))["a"].to_list() == [2, 5]
    assert read_silently(write_text(tmp_path, "price;n\n1,5;2\n3,7;1\n"))["price"].to_list() == [1.5, 3.7]


def test_lines_that_are_short_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"2 of 3 records have fewer fields than the 3 of the header \(line 3, 4\)"):
        frame = read_data(write_text(tmp_path, "a,b,c\n1,2,3\n4,5\n6\n"))
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
    path = write_text(tmp_path, text)
    with pytest.raises(DataFileError, match=rf"skip={told} \(--skip {told}\)"):
        read_data(path)
    assert list(read_silently(path, skip=told).columns)[:2] == ["k", "v"]


def test_comments_among_the_lines_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"line 3, '# end', looks like a comment. Delete such lines"):
        read_data(write_text(tmp_path, "a,b\n1,2\n# end\n"))


def test_quoted_line_ends_and_empty_lines(tmp_path):
    frame = read_silently(write_text(tmp_path, 'a,b\r\n1,"x\r\ny, ""z"""\r\n\r\n2,w\r\n'))
    assert frame["b"].to_list() == ['x\r\ny, "z"', "w"]
    write_data(frame, tmp_path / "o.csv")
    pd.testing.assert_frame_equal(read_silently(tmp_path / "o.csv"), frame)


def test_spaces_after_separators(tmp_path):
    frame = read_silently(write_text(tmp_path, 'a, b, c\n1, 2.5, "x, y"\n3, 4, z\n'))
    assert list(frame.columns) == ["a", "b", "c"]
    assert frame["c"].to_list() == ["x, y", "z"] and frame["b"].to_list() == [2.5, 4]


@pytest.mark.parametrize("text", ['a,b\n1,2\n3,"x\n5,6\n7,8\n', 'a,b\n1,2\n3,"x"y\n', 'a,b\n1,2\n3,"5\\" pipe"\n'])
def test_quotation_marks_out_of_place_name_the_line(tmp_path, text):
    with pytest.raises(DataFileError, match="record that starts on line 3"):
        read_data(write_text(tmp_path, text))
    assert read_silently(write_text(tmp_path, 'a,b\n1,2\n3,"5"" pipe"\n'))["b"].to_list() == ["2", '5" pipe']


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
        read_data(write_text(tmp_path, text))


# ------------------------------------------------------------------ separators and numbers


@pytest.mark.parametrize("sep", [";", "\t", "|", ","])
def test_separators_are_recognised_and_kept(tmp_path, sep):
    content = f"kind{sep}price{sep}note\nx{sep}1.5{sep}a b\ny{sep}2.25{sep}\n"
    frame = read_silently(write_text(tmp_path, content))
    assert frame["price"].to_list() == [1.5, 2.25]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_a_separator_that_is_open_must_be_said(tmp_path):
    path = write_text(tmp_path, "price, EUR;date\n3,50;x\n4,25;y\n")
    with pytest.raises(DataFileError, match=r"may be a comma or a semicolon.*sep=';' \(--sep ';'\)"):
        read_data(path)
    assert read_silently(path, sep=";")["price, EUR"].to_list() == [3.5, 4.25]


def test_decimal_commas_are_read_and_written(tmp_path):
    content = "k;price;n;share\nx;1,5;1;\ny;-20;2;1e-3\nx;,25;3;2\n"
    frame = read_silently(write_text(tmp_path, content))
    assert frame["price"].to_list() == [1.5, -20, 0.25] and str(frame["n"].dtype) == "int64"
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "k;price;n;share\nx;1,5;1;\ny;-20,0;2;0,001\nx;0,25;3;2,0\n"
    pd.testing.assert_frame_equal(read_silently(tmp_path / "o.csv"), frame)


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
    path = write_text(tmp_path, text)
    if warning is not None:
        with pytest.warns(UserWarning, match=re.escape(warning)):
            assert pd.api.types.is_string_dtype(read_data(path)["v"].dtype)
    values = read_silently(path, **options)["v"]
    expected = [pd.Timestamp(v) if isinstance(v, str) else v for v in expected]
    assert values.astype(object).where(values.notna(), None).to_list() == expected
    # What it was read from is written back so that the same options read it again.
    write_data(read_data(path, **options), tmp_path / "o.csv")
    again = {name: value for name, value in options.items() if name != "thousands"}
    pd.testing.assert_series_equal(read_silently(tmp_path / "o.csv", **again)["v"], values)


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
        frame = read_data(write_text(tmp_path, "v,w\n" + "".join(f"{v},x\n" for v in values)))
    assert frame["v"].to_list() == values


def test_whole_numbers_that_cannot_be_modelled_can_be_said_to_be_text(tmp_path):
    path = write_text(tmp_path, "card,v\n" + "".join(f"{9007199254740993 + i % 3},{i}.5\n" for i in range(30)))
    with pytest.warns(
        UserWarning, match=r"'card' holds whole numbers beyond 2\*\*53.*text=\['card'\] \(--text 'card'\)"
    ):
        frame = read_data(path)
    assert frame["card"][0] == 9007199254740993
    with pytest.raises(ValueError, match="make it a string if it is an identifier"):
        DiffusionGenerator(**TINY).fit(frame)
    rows = DiffusionGenerator(**TINY).fit(read_silently(path, text=["card"])).sample(5)
    assert set(rows["card"]) <= {"9007199254740993", "9007199254740994", "9007199254740995"}


def test_hints_of_many_columns_are_one(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_data(write_text(tmp_path, "a;b;c\n1 234;2 345;3 456\n5 678;6 789;7 890\n"))
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
    path = write_text(tmp_path, "v,w\n" + "".join(f"{v},x\n" for v in values))
    frame = read_silently(path)
    assert frame["v"].to_list() == expected
    if expected == values:
        write_data(frame, tmp_path / "o.csv")
        assert (tmp_path / "o.csv").read_text() == path.read_text()


def test_columns_can_be_said_to_be_text(tmp_path):
    path = write_text(tmp_path, "code,v\n1,1\n20,2\n,3\n")
    assert read_silently(path, text=["code"])["code"].to_list() == ["1", "20", pd.NA]
    with pytest.raises(DataFileError, match="text names the column 'cod', which it lacks"):
        read_data(path, text=["cod"])


# ------------------------------------------------------------------ missing values and truth


def test_marks_of_missing_values_are_read_and_written_back(tmp_path):
    content = "size,sex,n,done\n1.5,NA,NA,TRUE\nNA,m,2,FALSE\n2.5,f,3,NA\n"
    frame = read_silently(write_text(tmp_path, content))
    assert frame.isna().sum().to_list() == [1, 1, 1, 1]
    assert [str(d) for d in frame.dtypes] == ["float64", "string", "Int64", "boolean"]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_columns_may_have_marks_of_their_own(tmp_path):
    content = "a;b;c;grade\n;NULL;2,5;None\n1;x;n/a;mild\n2;y;3,5;None\n;z;4,5;severe\n"
    frame = read_silently(write_text(tmp_path, content))
    assert frame.isna().sum().to_list() == [2, 1, 1, 2]
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


def test_namibia_is_a_country(tmp_path):
    frame = read_silently(write_text(tmp_path, "country,v\nNA,1\nDE,NA\nFR,3\n,4\n"))
    assert frame["country"].to_list() == ["NA", "DE", "FR", pd.NA]
    assert frame["v"].isna().to_list() == [False, True, False, False]
    frame = read_silently(tmp_path / "t.csv", missing=["NA"])
    assert frame["country"].isna().to_list() == [True, False, False, True]


def test_missing_can_be_said_to_be_nothing_but_empty_fields(tmp_path):
    frame = read_silently(write_text(tmp_path, "grade,v\nNone,1\nmild,\n"), missing=[])
    assert frame["grade"].to_list() == ["None", "mild"] and frame["v"].isna().sum() == 1


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("true", "false"), ("True", "False"), ("TRUE", "TRUE")])
def test_truth_is_spelled_as_it_was(tmp_path, words):
    content = "ok,v\n" + "".join(f"{words[i % 2]},{i}.5\n" for i in range(4))
    frame = read_silently(write_text(tmp_path, content))
    assert frame["ok"].dtype == bool
    write_data(frame, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


# ------------------------------------------------------------------ header and keys


def test_names_that_repeat_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"t\.csv.*column names must be unique, but \['a'\]"):
        read_data(write_text(tmp_path, "a,b,a\n1,2,3\n"))


def test_a_header_that_is_a_row_of_numbers(tmp_path):
    path = write_text(tmp_path, _lines("0,0,0.0", "{i},{i}.5,7"))
    with pytest.raises(DataFileError, match=r"its first line, '0,0,0.0', is no header.*header=False \(--no-header\)"):
        read_data(path)
    frame = read_silently(path, header=False, drop=["x0"])
    assert list(frame.columns) == ["x1", "x2"] and len(frame) == 31
    with pytest.warns(UserWarning, match="the header, '2019,2020', consists of numbers"):
        frame = read_data(write_text(tmp_path, "2019,2020\n1.5,2\n2.5,3\n"))
    assert list(frame.columns) == ["2019", "2020"]


def test_the_index_of_pandas_is_named_and_can_be_left_out(tmp_path):
    pd.DataFrame({"v": np.linspace(0, 1, 30)}).to_csv(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match=r"numbers the rows, as pandas.*drop=\['Unnamed: 0'\] \(--drop 'Unnamed: 0'\)"):
        read_data(tmp_path / "t.csv")
    assert list(read_silently(tmp_path / "t.csv", drop=["Unnamed: 0"]).columns) == ["v"]


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
    path = write_text(tmp_path, f"{name},v\n" + "".join(f"{i},0.5\n" for i in values))
    if not is_key:
        assert len(read_silently(path)) == len(values)
        return
    with pytest.warns(UserWarning, match=rf"column '{name}' looks like a key.*\(--drop '{name}'\)"):
        read_data(path)
    assert list(read_silently(path, drop=name).columns) == ["v"]
    with pytest.raises(DataFileError, match="drop names the column 'w', which it lacks"):
        read_data(path, drop="w")
