"""Tables in files, some rows at a time: what is found, and what is said of bad ones."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tabdiff.io import frame_source
from tabdiff.io.data_files import DataFileError
from tabdiff.io.frame_source import frames_of, is_frame_source, open_frames


def frame(n=30, start=0):
    rng = np.random.default_rng(start)
    return pd.DataFrame(
        {
            "n": np.arange(start, start + n),
            "x": rng.normal(size=n),
            "t": rng.choice(["007", "012"], n),
            "ok": [True] * n,
        }
    )


@pytest.fixture
def lake(tmp_path):
    tmp_path = tmp_path / "lake"
    tmp_path.mkdir()
    for i in range(3):
        frame(30, 30 * i).to_parquet(tmp_path / f"part-{i}.parquet", index=False)
    return tmp_path


def rows(source, start=0):
    return pd.concat(list(source.chunks(start)), ignore_index=True)


def test_what_is_a_table_in_files(lake, tmp_path_factory):
    for X in (lake, str(lake), f"{lake}/*.parquet", lake / "part-0.parquet", ds.dataset(lake)):
        assert is_frame_source(X)
    pictures = tmp_path_factory.mktemp("pictures")
    (pictures / "a.png").write_bytes(b"")
    for X in (pictures, str(pictures), frame(), np.zeros((3, 2)), ["ACG", "T"], "no-such-folder", [1, 2], None):
        assert not is_frame_source(X)
    assert is_frame_source(pl.LazyFrame({"a": [1]}))
    assert len(list(frames_of(iter([frame(), frame()])))) == 2
    assert len(list(frames_of(pa.Table.from_pandas(frame()).to_reader()))) == 1
    for X in (iter([]), iter([1, 2]), (row for row in [[1.0, 2.0]]), [frame()], frame()):
        assert frames_of(X) is None


@pytest.mark.parametrize("size", [7, 1000])
def test_rows_come_in_order_from_any_place(lake, monkeypatch, size):
    monkeypatch.setattr(frame_source, "CHUNK_ROWS", size)
    source = open_frames(lake)
    assert max(len(c) for c in source.chunks()) <= size
    for start in (0, 5, 30, 61, 90):
        if start < 90:
            assert rows(source, start)["n"].to_list() == list(range(start, 90))
        else:
            assert list(source.chunks(start)) == []


def test_every_kind_gives_the_same_rows(lake, tmp_path):
    whole = rows(open_frames(lake))
    frames = [pd.read_parquet(p) for p in sorted(lake.glob("*.parquet"))]
    for i, part in enumerate(frames):
        (tmp_path / "csv").mkdir(exist_ok=True)
        part.to_csv(tmp_path / "csv" / f"{i}.csv", index=False)
    for X in (
        ds.dataset(lake),
        pl.scan_parquet(lake / "*.parquet"),
        iter(frames),
        iter([pl.DataFrame(f) for f in frames]),
        (pa.Table.from_pandas(f) for f in frames),
        tmp_path / "csv",
    ):
        source = open_frames(X)
        again = rows(source)
        assert again["n"].to_list() == whole["n"].to_list()
        assert again["t"].to_list() == whole["t"].to_list()  # codes keep their zeros in csv too
        np.testing.assert_allclose(again["x"].to_numpy(float), whole["x"].to_numpy(float), rtol=1e-12)


def test_partitions_are_columns(tmp_path):
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        frame().to_parquet(tmp_path / f"year={year}" / "a.parquet", index=False)
    source = open_frames(tmp_path)
    assert source.names == ["n", "x", "t", "ok", "year"]
    assert rows(source)["year"].to_list() == [2023] * 30 + [2024] * 30


def test_drawn_rows_come_back_as_they_were_read(lake):
    schema = pd.read_parquet(lake / "part-0.parquet").dtypes
    pd.testing.assert_series_equal(open_frames(lake).origin.write(frame(5)).dtypes, schema)
    assert isinstance(open_frames(ds.dataset(lake)).origin.write(frame(5)), pa.Table)
    assert isinstance(open_frames(pl.scan_parquet(lake)).origin.write(frame(5)), pl.DataFrame)


def test_bad_files_are_named(lake, tmp_path):
    frame().rename(columns={"x": "y"}).to_parquet(lake / "part-7.parquet", index=False)
    with pytest.raises(DataFileError, match=r"part-7.parquet lacks the columns \['x'\] and has the further columns"):
        open_frames(lake)
    frame().astype({"x": str}).to_parquet(lake / "part-7.parquet", index=False)
    with pytest.raises(
        DataFileError, match=r"part-7.parquet: column 'x' is .*string, and in .*part-0.parquet it is dou"
    ):
        open_frames(lake)
    frame().astype({"n": "int32"}).to_parquet(lake / "part-7.parquet", index=False)
    assert len(rows(open_frames(lake))) == 120  # another width is no other kind
    content = (lake / "part-7.parquet").read_bytes()
    (lake / "part-7.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match=r"part-7.parquet cannot be read"):
        open_frames(lake)
    (lake / "part-7.parquet").unlink()
    (lake / "part-0.parquet").write_bytes(b"")
    with pytest.raises(DataFileError, match=r"part-0.parquet cannot be read"):
        open_frames(lake)


def test_files_that_vanish_or_change_are_named(lake):
    source = open_frames(lake)
    (lake / "part-1.parquet").unlink()
    with pytest.raises(DataFileError, match=r"part-1.parquet is no longer there"):
        list(source.chunks())


def test_wrong_paths_and_kinds(lake, tmp_path):
    with pytest.raises(DataFileError, match="there are no such files"):
        open_frames(f"{tmp_path}/none/*.parquet")
    with pytest.raises(DataFileError, match="there are no such files"):
        open_frames(tmp_path / "none.parquet")
    frame().to_csv(lake / "also.csv", index=False)
    with pytest.raises(DataFileError, match="files of one kind"):
        open_frames(lake)
    with pytest.raises(TypeError, match="frames of pandas, polars or pyarrow; got list"):
        open_frames(iter([[1, 2]]))
    with pytest.raises(ValueError, match="gave no frame"):
        open_frames(iter([]))
    with pytest.raises(ValueError, match="frame 1 of the iterator has the columns"):
        open_frames(iter([frame(), frame()[["n"]]]))


def test_csv_whose_later_rows_are_of_another_type(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "HEAD_BYTES", 60)
    (tmp_path / "a.csv").write_text("n,s\n" + "1,a\n" * 100 + "x,b\n")
    with pytest.raises(DataFileError, match=r"a.csv cannot be read.*conversion error.*CsvFileFormat"):
        list(open_frames(tmp_path / "a.csv").chunks())


def test_semicolons_and_decimal_commas(tmp_path):
    (tmp_path / "a.csv").write_text("n;x\n" + "1;2,5\n" * 30)
    assert rows(open_frames(tmp_path / "a.csv"))["x"].to_list() == [2.5] * 30
