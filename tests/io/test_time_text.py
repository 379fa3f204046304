"""Times in csv files: every form is read as times and written back alike, also by a model."""

import re

import numpy as np
import pandas as pd
import pytest
from csv_text import read_silently, write_text

from tabdiff import DiffusionGenerator
from tabdiff.io.data_files import read_data, write_data

TINY = {"max_steps": 2, "hidden_size": 8, "refine": False, "random_state": 0}


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
    frame = read_silently(write_text(tmp_path, content))
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
    frame = read_data(write_text(tmp_path, "x,v\n" + "".join(f"1.5,{v}\n" for v in values)))
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
    path = write_text(tmp_path, "x,v\n" + "".join(f"1.5,{v}\n" for v in values))
    if expected is None:
        frame = read_silently(path)
    else:
        with pytest.warns(UserWarning, match=expected):
            frame = read_data(path)
    assert pd.api.types.is_datetime64_any_dtype(frame["v"].dtype)
    write_data(frame, tmp_path / "o.csv")
    assert expected is not None or (tmp_path / "o.csv").read_text() == path.read_text()
    pd.testing.assert_frame_equal(read_silently(tmp_path / "o.csv"), frame)


def test_times_that_their_form_cannot_say_are_written_whole(tmp_path):
    frame = read_silently(write_text(tmp_path, "when\n2024-05-31T18:30\n2024-05-31T18:31\n"))
    frame.loc[0, "when"] += pd.Timedelta("5s")
    write_data(frame, tmp_path / "o.csv")
    assert read_silently(tmp_path / "o.csv")["when"].equals(frame["when"])


def test_any_day_of_a_month_is_written_as_the_month(tmp_path):
    frame = read_silently(write_text(tmp_path, "when\n2024-05\n2024-06\n"))
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
    pd.testing.assert_frame_equal(read_silently(tmp_path / "o.csv"), frame)


def test_a_model_writes_rows_as_those_it_was_fitted_on(tmp_path):
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=40, freq="37min").strftime("%Y-%m-%dT%H:%MZ")
    lines = [
        f"{t};{rng.normal():.2f};0{rng.integers(10, 40)};{rng.choice(['TRUE', 'FALSE'])};{rng.choice(['a', 'NA'])}"
        for t in times
    ]
    content = "at;v;code;ok;k\n" + "\n".join(line.replace(".", ",") for line in lines) + "\n"
    frame = read_silently(write_text(tmp_path, content))
    for condition in (None, "ok"):
        DiffusionGenerator(**TINY).fit(frame, condition=condition).save(tmp_path / "m.safetensors")
        rows = DiffusionGenerator.load(tmp_path / "m.safetensors").sample(30, random_state=0)
        write_data(rows, tmp_path / "o.csv")
        written = (tmp_path / "o.csv").read_text().splitlines()
        assert written[0] == "at;v;code;ok;k"
        form = re.compile(r"2024-01-0\dT\d\d:\d\dZ;-?\d+,\d+;0\d\d;(TRUE|FALSE);(a|NA)")
        assert all(form.fullmatch(line) for line in written[1:])
        assert read_silently(tmp_path / "o.csv").dtypes.equals(frame.dtypes)
