"""Conditions on the command line: times are times, and columns that were not declared can be held."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import fails as _fails

from tabdiff.cli.main import main


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with times of every kind, and models of it, conditioned on them and not."""
    path = tmp_path_factory.mktemp("dated")
    rng, n = np.random.default_rng(0), 60
    day = pd.date_range("2024-01-01", periods=n)
    frame = pd.DataFrame(
        {
            "day": day,
            "at": day.tz_localize("UTC") + pd.to_timedelta(rng.integers(0, 1440, n), "min"),
            "wait": pd.to_timedelta(rng.integers(1, 90, n), "min"),
            "month": np.repeat(pd.date_range("2024-01-01", periods=3, freq="MS"), n // 3),
            "rate": rng.choice([1.5, 2.0], n),
            "open": rng.choice(["TRUE", "FALSE"], n),
            "v": rng.normal(size=n).round(2),
            "n": rng.integers(0, 1000, n),
        }
    )
    frame["rate"] = pd.Categorical(frame["rate"])
    frame["at"] = frame["at"].dt.strftime("%Y-%m-%dT%H:%MZ")
    frame.to_csv(path / "t.csv", index=False)
    fit = f"fit {path}/t.csv --max-steps 2 --seed 0 --quiet -o {path}"
    assert main(f"{fit}/model --condition day at wait month open".split()) == 0
    assert main(f"{fit}/month --condition month".split()) == 0
    return path


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        ("day=2024-02-01", {"day": "2024-02-01"}),
        ("at=2024-02-01", {"at": "2024-02-01T00:00Z"}),
        ("at=2024-02-01T10:30", {"at": "2024-02-01T10:30Z"}),
        ("at=2024-02-01T10:30+02:00", {"at": "2024-02-01T08:30Z"}),
        ("wait=00:30:00", {"wait": "0 days 00:30:00"}),
        ("wait=0:30", {"wait": "0 days 00:30:00"}),
        ("wait=30min", {"wait": "0 days 00:30:00"}),
        ("month=2024-02-01", {"month": "2024-02-01"}),
        ("open=TRUE", {"open": "TRUE"}),
        ("open=false", {"open": "FALSE"}),
    ],
)
def test_conditions_on_times_are_given_and_written_as_times(dated, tmp_path, capsys, condition, written):
    sample = ["sample", str(dated / "model"), "-n", "3", "--seed", "0", "-o", str(tmp_path / "o.csv"), "--quiet"]
    assert main([*sample, "--condition", condition]) == 0
    assert capsys.readouterr().err == ""
    rows = pd.read_csv(tmp_path / "o.csv", dtype=str)
    for name, text in written.items():
        assert rows[name].to_list() == [text] * 3


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("day=31", ["'31'", "A number is no time; write it as '2024-01-01'"]),
        ("day=31.5", ["A number is no time"]),
        ("day=1.2.2024", ["'1.2.2024'", "Write it as '2024-01-01'"]),
        ("day=tomorrow", ["Write it as '2024-01-01'"]),
        ("day=2024-02-30", ["Write it as '2024-01-01'"]),
        ("day=", ["Write it as '2024-01-01'"]),
        ("day=nan", ["Write it as '2024-01-01'"]),
        ("day=2024-02-01T10:00Z", ["no time zone", "write it as '2024-01-01'"]),
        ("wait=30", ["A number is no duration; write it as '0 days 00:0"]),
        ("month=2024-02-02", ["unknown value '2024-02-02'", "'2024-01-01', '2024-02-01', '2024-03-01'"]),
    ],
)
def test_what_is_no_time_says_how_to_write_one(dated, tmp_path, capsys, condition, words):
    sample = ["sample", dated / "model", "-n", 1, "-o", tmp_path / "o.csv", "--quiet", "--condition"]
    _fails(capsys, [*sample, condition], 1, *words)
    told = next((w.split("write it as ")[-1].split("Write it as ")[-1] for w in words if "rite it as" in w), None)
    if told is not None and told.endswith("'"):
        assert main([str(a) for a in [*sample, f"{condition.partition('=')[0]}={told[1:-1]}"]]) == 0


def test_times_outside_the_range_and_info_show_dates(dated, tmp_path, capsys):
    sample = ["sample", str(dated / "model"), "-n", "1", "-o", str(tmp_path / "o.csv"), "--quiet", "--condition"]
    assert main([*sample, "day=2030-01-01"]) == 0
    assert "'day': 2030-01-01 lies outside the fitted range [2024-01-01, 2024-02-29]" in capsys.readouterr().err
    assert main(["info", str(dated / "model")]) == 0
    out = capsys.readouterr().out
    assert "day: continuous, from 2024-01-01 to 2024-02-29" in out
    assert "month: class of 3: 2024-01-01, 2024-02-01, 2024-03-01\n" in out


@pytest.mark.parametrize(
    ("held", "name", "value"),
    [
        ("day=2024-01-05", "day", "2024-01-05"),
        ("n=7", "n", "7"),
        ("v=1.5", "v", "1.5"),
        ("rate=2", "rate", "2.0"),
        ("open=true", "open", "TRUE"),
    ],
)
def test_columns_that_were_not_declared_can_be_held(dated, tmp_path, held, name, value):
    sample = ["sample", str(dated / "month"), "-n", "2", "-o", str(tmp_path / "o.csv"), "--quiet"]
    assert main([*sample, "--condition", "month=2024-02-01", held]) == 0
    assert pd.read_csv(tmp_path / "o.csv", dtype=str)[name].to_list() == [value] * 2


def test_held_columns_name_what_is_wrong(dated, tmp_path, capsys):
    sample = ["sample", dated / "month", "-n", 2, "-o", tmp_path / "o.csv", "--condition", "month=2024-02-01"]
    _fails(capsys, [*sample, "n=many"], 1, "condition 'n' needs a number; got 'many'")
    _fails(capsys, [*sample, "n=7.5"], 1, "7.5 is no value of a int64 column")
    _fails(capsys, [*sample, "day=31"], 1, "'31' is no value of a datetime64[ns] column")
    assert main([str(a) for a in [*sample, "day=2030-01-01", "--quiet"]]) == 0
    assert "2030-01-01 lies outside the fitted range [2024-01-01, 2024-02-29]" in capsys.readouterr().err


def test_a_number_is_written_as_in_the_file_of_the_fit(tmp_path):
    lines = [f"{'xy'[i % 2]};{i % 30},5;{i},25" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a;p;v", *lines]))
    model, out = str(tmp_path / "m"), tmp_path / "o.csv"
    fit = ["fit", str(tmp_path / "t.csv"), "-o", model, "--condition", "p", "--max-steps", "2", "--quiet"]
    assert main([*fit, "--seed", "0"]) == 0
    for text in ("4,5", "4.5"):
        assert main(["sample", model, "-n", "2", "--condition", f"p={text}", "-o", str(out), "--quiet"]) == 0
        assert all(line.split(";")[1] == "4,5" for line in out.read_text().splitlines()[1:])
