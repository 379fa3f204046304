"""Data files: whatever is wrong with one says what to do about it, and that works."""

import gzip
import os
import re
import sys
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from csv_text import read_silently, write_text

from tabdiff.io.data_files import DataFileError, check_output, read_data, write_data

# ------------------------------------------------------------------ encodings and compression


def test_another_encoding_is_named_with_a_remedy(tmp_path):
    path = write_text(tmp_path, "name,v\nabc,1\ncafé,2\n", encoding="latin-1")
    with pytest.raises(DataFileError, match=r"line 3 is not UTF-8 \(byte 0xe9\). Save.*encoding=\"cp1252\".*'café,2'"):
        read_data(path)
    frame = read_silently(path, encoding="cp1252")
    assert frame["name"].to_list() == ["abc", "café"]
    write_data(frame, tmp_path / "utf8.csv")
    pd.testing.assert_frame_equal(read_silently(tmp_path / "utf8.csv"), frame)
    with pytest.raises(DataFileError, match="encoding must be one that Python knows, such as cp1252; got 'utf8-x'"):
        read_data(path, encoding="utf8-x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_unicode_are_understood(tmp_path, encoding):
    frame = read_silently(write_text(tmp_path, "náme;v\nxé;1,5\ny;2\n", encoding=encoding))
    assert list(frame.columns) == ["náme", "v"] and frame["v"].to_list() == [1.5, 2]


def test_utf_16_without_a_mark(tmp_path):
    path = write_text(tmp_path, "name,v\nx,1\n", encoding="utf-16-le")
    with pytest.raises(DataFileError, match=r"line 1 holds a NUL byte.*--encoding utf-16-le"):
        read_data(path)
    assert read_silently(path, encoding="utf-16-le")["name"].to_list() == ["x"]


def test_compressed_csv(tmp_path):
    frame = pd.DataFrame({"a": ["x", "é"], "v": [0.5, 1.5]}).astype({"a": "string"})
    for name in ("one.csv.gz", "two.csv.gz"):
        write_data(frame, tmp_path / name)
        pd.testing.assert_frame_equal(read_silently(tmp_path / name), frame)
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
    advice = {
        "t.tsv": ("Rename it to .csv", lambda p: p.rename(tmp_path / "o.csv")),
        "t.json": ("pandas.read_json(file)", lambda p: pd.read_json(p).to_csv(tmp_path / "o.csv", index=False)),
        "t.npy": (
            "pandas.DataFrame(numpy.load(file))",
            lambda p: pd.DataFrame(np.load(p)).to_csv(tmp_path / "o.csv", index=False),
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


def test_feather_npz_and_fasta_go_round(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", "y"]})
    pytest.importorskip("pyarrow")
    write_data(frame, tmp_path / "t.feather")
    pd.testing.assert_frame_equal(read_data(tmp_path / "t.feather"), frame)
    write_data(frame[["a", "b"]], tmp_path / "t.npz")
    pd.testing.assert_frame_equal(read_data(tmp_path / "t.npz"), frame[["a", "b"]].astype(float))
    write_data(frame, tmp_path / "m.npz")
    pd.testing.assert_frame_equal(read_data(tmp_path / "m.npz"), frame)
    np.savez(tmp_path / "i.npz", X=np.zeros((4, 3, 3), np.uint8))
    assert read_data(tmp_path / "i.npz").shape == (4, 3, 3)
    np.savez(tmp_path / "bad.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(DataFileError, match="several columns of one length"):
        read_data(tmp_path / "bad.npz")
    np.savez(tmp_path / "code.npz", a=np.array([{}, 1], dtype=object))
    with pytest.raises(DataFileError, match="allow_pickle=False"):
        read_data(tmp_path / "code.npz")
    (tmp_path / "s.fasta").write_text(">one first\nACG\nT\n\n>two\nGG\n")
    sequences = read_data(tmp_path / "s.fasta")
    assert sequences.to_dict() == {"one": "ACGT", "two": "GG"} and sequences.name == "sequence"
    write_data(sequences, tmp_path / "o.fa")
    pd.testing.assert_series_equal(read_data(tmp_path / "o.fa"), sequences)
    (tmp_path / "bad.fa").write_text("ACGT\n")
    with pytest.raises(DataFileError, match="first line must start with '>'"):
        read_data(tmp_path / "bad.fa")


def test_cells_go_round_in_zarr(tmp_path):
    pytest.importorskip("zarr")
    cells = _cells(tmp_path / "c.h5ad")
    for _ in range(2):  # the second takes the place of the first
        write_data(cells, tmp_path / "c.zarr")
    found = read_data(tmp_path / "c.zarr")
    assert found.shape == cells.shape and list(found.obs["k"]) == ["a", "b", "a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.h5ad", "c.zarr"]


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


@pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore::UserWarning:mudata")
def test_mudata_that_is_named_h5ad_and_anndata_that_is_named_h5mu(tmp_path):
    mudata = pytest.importorskip("mudata")
    cells = _cells(tmp_path / "c.h5ad")
    mudata.MuData({"rna": cells}).write(tmp_path / "x.h5mu")
    (tmp_path / "x.h5mu").rename(tmp_path / "x.h5ad")
    with pytest.raises(DataFileError, match=r"it is MuData. Rename it to .h5mu, .*mudata.read_h5mu\(file\).mod"):
        read_data(tmp_path / "x.h5ad")
    mudata.read_h5mu(tmp_path / "x.h5ad").mod["rna"].write_h5ad(tmp_path / "rna.h5ad")
    assert read_data(tmp_path / "rna.h5ad").shape == (3, 2)
    (tmp_path / "c.h5ad").rename(tmp_path / "c.h5mu")
    with pytest.raises(DataFileError, match=r"it has no modalities. Rename it to .h5ad"):
        read_data(tmp_path / "c.h5mu")
    (tmp_path / "text.h5mu").write_text("no")
    with pytest.raises(DataFileError, match="no HDF5 file"):
        read_data(tmp_path / "text.h5mu")


@pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore::UserWarning:mudata")
def test_h5mu_in_and_out(tmp_path):
    mudata = pytest.importorskip("mudata")
    cells = _cells(tmp_path / "c.h5ad")
    proteins = anndata.AnnData(2 * cells.X, obs=cells.obs[[]], var=pd.DataFrame(index=["p", "q"]))
    mdata = mudata.MuData({"rna": cells, "prot": proteins})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_data(mdata, tmp_path / "x.h5mu")
        again = read_data(tmp_path / "x.h5mu")
    assert list(again.mod) == ["rna", "prot"] and (again["prot"].X == proteins.X).all()
    with pytest.raises(DataFileError, match=r"cells of several modalities are written as .h5mu; got .h5ad"):
        write_data(mdata, tmp_path / "y.h5ad")
    with pytest.raises(DataFileError, match=r"single cells are written as .h5ad or .zarr; got .h5mu"):
        write_data(cells, tmp_path / "y.h5mu")
    with pytest.raises(DataFileError, match=r"a table is written as .csv or .parquet; got .h5mu"):
        write_data(pd.DataFrame({"a": [1]}), tmp_path / "y.h5mu")
    assert not list(tmp_path.glob("y.*"))


def test_h5mu_without_mudata(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mudata", None)
    with pytest.raises(DataFileError, match=r'h5mu files need mudata. .*pip install "tabdiff\[multimodal\]"'):
        read_data(tmp_path / "x.h5mu")


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
    write_data(read_silently(write_text(tmp_path, content)), tmp_path / "u.parquet")
    write_data(read_data(tmp_path / "u.parquet"), tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == content


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_what_is_forbidden_says_how_to_allow_it(tmp_path):
    path = write_text(tmp_path, "a\n1\n")
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
        read_data(write_text(tmp_path, "a,b\n1,2\n"), **options)
