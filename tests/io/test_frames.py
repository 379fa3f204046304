"""Frames of polars, pyarrow and others: the container that goes in comes out, with its dtypes."""

import datetime
import pickle
import sys

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator
from tabdiff.io.data_files import read_data, write_data
from tabdiff.io.frames import ForeignFrame, to_pandas

N = 60
QUICK = {"max_steps": 3, "hidden_size": 16, "n_blocks": 1, "random_state": 0}


def quick():
    return DiffusionGenerator(**QUICK)


def days(n=N):
    return [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(n)]


@pytest.fixture
def polars_frame():
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    times = [datetime.datetime(2020, 3, 28) + datetime.timedelta(hours=i) for i in range(N)]
    return pl.DataFrame(
        {
            "float": np.linspace(0, 1, N),
            "small": pl.Series([None if i % 3 else i / 10 for i in range(N)], dtype=pl.Float32),
            "byte": pl.Series([None if i % 4 == 0 else i for i in range(N)], dtype=pl.UInt8),
            "flag": [True, None, False] * 20,
            "text": ["a", None, "b"] * 20,
            "label": pl.Series(["u", "v", "u"] * 20, dtype=pl.Categorical),
            "rank": pl.Series(["low", "high", None] * 20, dtype=pl.Enum(["low", "mid", "high"])),
            "day": days(),
            "time": pl.Series(times, dtype=pl.Datetime("ms", "UTC")).dt.convert_time_zone("Europe/Berlin"),
            "span": pl.Series([datetime.timedelta(minutes=i) for i in range(N)], dtype=pl.Duration("us")),
            "price": pl.Series([i / 100 for i in range(N)]).cast(pl.Decimal(10, 2)),
            "constant": [7] * N,
            "nothing": pl.Series([None] * N, dtype=pl.Null),
        }
    )


@pytest.fixture
def table():
    pa = pytest.importorskip("pyarrow")
    return pa.table(
        {
            "float": pa.array(np.linspace(0, 1, N)),
            "n": pa.array([None if i % 3 else i for i in range(N)], pa.int16()),
            "label": pa.array(["u", "v", None] * 20).dictionary_encode(),
            "text": pa.array(["a", "b", None] * 20, pa.large_string()),
            "day": pa.array(days(), pa.date32()),
            "time": pa.array([datetime.datetime(2020, 1, d + 1) for d in range(20)] * 3, pa.timestamp("s", "UTC")),
        }
    )


@pytest.mark.parametrize("condition", [None, "label", ["rank", "time"], ["day", "byte", "flag"]])
def test_polars_in_polars_out(polars_frame, condition, tmp_path):
    gen = quick().fit(polars_frame, condition=condition)
    gen.save(tmp_path / "model")
    for model in (gen, DiffusionGenerator.load(tmp_path / "model"), pickle.loads(pickle.dumps(gen))):
        sample = model.sample(50, random_state=0)
        assert type(sample) is type(polars_frame)
        assert sample.schema == polars_frame.schema
        assert sample["text"].drop_nulls().is_in(["a", "b"]).all()
        assert sample["day"].min() >= days()[0] and sample["day"].max() <= days()[-1]
        assert sample["nothing"].null_count() == 50 and (sample["constant"] == 7).all()


@pytest.mark.parametrize("condition", [None, "label", ["day", "n"]])
def test_arrow_tables_in_arrow_tables_out(table, condition, tmp_path):
    gen = quick().fit(table, condition=condition)
    gen.save(tmp_path / "model")
    for model in (gen, DiffusionGenerator.load(tmp_path / "model")):
        sample = model.sample(50, random_state=0)
        assert type(sample) is type(table)
        assert sample.schema == table.schema and len(sample) == 50


def test_conditions_in_frames_of_the_same_library(polars_frame):
    import polars as pl

    gen = quick().fit(polars_frame, condition=["label", "rank"])
    wanted = pl.DataFrame({"label": ["v", "u"], "rank": ["high", "low"]})
    rows, labels = gen.sample(condition=wanted, return_condition=True)
    assert rows["label"].to_list() == ["v", "u"] and rows["rank"].to_list() == ["high", "low"]
    assert labels.schema == polars_frame.select("label", "rank").schema
    assert gen.sample(3, condition={"label": "v"})["label"].to_list() == ["v"] * 3


def test_labels_apart_as_a_polars_series(polars_frame):
    gen = quick().fit(polars_frame.drop("label"), polars_frame["label"])
    rows, labels = gen.sample(4, condition="v", return_condition=True)
    assert rows.columns == [c for c in polars_frame.columns if c != "label"]
    assert list(labels) == ["v"] * 4
    assert gen.conditions_.names == ["label"]


def test_scores_do_not_depend_on_the_container(polars_frame):
    pd_frame = to_pandas(polars_frame)
    gen = quick().fit(polars_frame)
    np.testing.assert_array_equal(gen.score_samples(polars_frame), gen.score_samples(pd_frame))


def test_a_lazy_frame_is_fitted_and_nothing_else(polars_frame):
    gen = quick().fit(polars_frame.lazy())
    assert gen.sample(3).columns == polars_frame.columns
    with pytest.raises(TypeError, match=r"polars.LazyFrame. Its rows are not there yet. Pass X.collect\(\)"):
        gen.score_samples(polars_frame.lazy())


def test_a_single_column_is_refused(polars_frame):
    with pytest.raises(TypeError, match=r"polars.Series, a single column"):
        quick().fit(polars_frame["float"])


def test_columns_that_cannot_be_modelled_are_named(polars_frame):
    import polars as pl

    with pytest.raises(TypeError, match=r"'items'.*list.*column per item"):
        quick().fit(polars_frame.with_columns(items=pl.lit([1, 2])))


def test_without_pyarrow_the_error_says_what_to_install(polars_frame, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else real(name, *a))
    with pytest.raises(ImportError, match=r"polars.DataFrame, which needs pyarrow.*tabdiff\[io\]"):
        quick().fit(polars_frame)


def test_other_things_are_left_alone():
    for value in (np.ones(3), [1, 2], {"a": 1}, "text", None, 3.5):
        assert to_pandas(value) is value
        assert ForeignFrame.read(value) == (value, None) or isinstance(value, np.ndarray)


@pytest.mark.slow
def test_the_package_imports_without_polars_and_pyarrow():
    import subprocess

    blocked = "import sys; sys.modules['polars'] = sys.modules['pyarrow'] = None; import tabdiff.estimators.generator"
    assert subprocess.run([sys.executable, "-c", blocked], capture_output=True).returncode == 0


# ---------------------------------------------------- times as conditions


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("many", [False, True])
def test_times_as_conditions(zone, many, tmp_path):
    n = 200
    days = pd.date_range("2023-01-01", periods=n if many else 4, freq="D", tz=zone)
    times = pd.Series(days.repeat(1 if many else 50))
    frame = pd.DataFrame({"x": np.linspace(0, 1, n), "when": times})
    gen = quick().fit(frame, condition="when")
    gen.save(tmp_path / "model")
    gen = DiffusionGenerator.load(tmp_path / "model")
    assert gen.conditions_.attributes[0].kind == ("continuous" if many else "class")
    for asked in ("2023-01-03", pd.Timestamp("2023-01-03", tz=zone), datetime.date(2023, 1, 3), times[2:3]):
        asked = times.iloc[[100 if not many else 2]] if isinstance(asked, pd.Series) else asked
        sample = gen.sample(None if isinstance(asked, pd.Series) else 2, condition={"when": asked})
        assert sample["when"].dtype == times.dtype
        assert (sample["when"] == pd.Timestamp("2023-01-03", tz=zone)).all()
    assert gen.sample(30)["when"].isin(times).all()
    assert gen.sample(3, condition="unconditional")["when"].isna().all()
    with pytest.raises(ValueError, match=r"'when' holds times.*got 'soon'"):
        gen.sample(2, condition={"when": "soon"})
    if many:
        with pytest.warns(UserWarning, match=r"2024-01-01.*outside the fitted range \[2023-01-01"):
            gen.sample(2, condition={"when": "2024-01-01"})
    else:
        with pytest.raises(ValueError, match="unknown value"):
            gen.sample(2, condition={"when": "2024-01-01"})


def test_objects_as_conditions_are_what_their_values_are():
    frame = pd.DataFrame({"x": np.linspace(0, 1, N)})
    dose = pd.Series([None if i % 5 == 0 else i / 2 for i in range(N)], dtype=object, name="dose")
    gen = quick().fit(frame, condition=dose)
    assert gen.conditions_.attributes[0].kind == "continuous"
    assert gen.sample(3, condition={"dose": 2.5}, return_condition=True)[1].tolist() == [2.5] * 3


# ------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (["2024-05-31", "", "1999-01-01"], "time"),
        (["2024-05-31 18:30:00", "", "2024-06-01 00:00:00"], "time"),
        (["2024-05-31 00:00:00", "2024-06-01 00:00:00"], "time"),
        (["2024-05-31", "2024-6-1"], "text"),
        (["2024-05-31", "unknown"], "text"),
        (["31.05.2024", "01.06.2024"], "time"),
        (["9999-12-31", "2024-05-31"], None),
        (["", ""], None),
    ],
)
def test_times_in_csv_are_read_where_they_are_written_as_they_were(text, kind, tmp_path):
    content = "x,when\n" + "".join(f"{i},{t}\n" for i, t in enumerate(text))
    (tmp_path / "in.csv").write_text(content)
    frame = read_data(tmp_path / "in.csv")
    assert kind is None or pd.api.types.is_datetime64_dtype(frame["when"].dtype) == (kind == "time")
    write_data(frame, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == content
