"""Rows in shards: the same whoever draws them, and whatever happened on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import joblib
import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator
from tabdiff.cli.main import main
from tabdiff.io import shard_files
from tabdiff.io.data_files import DataFileError
from tabdiff.training import TrainingOptions

QUICK = {"hidden_size": 8, "n_blocks": 1, "max_steps": 5, "random_state": 0}
DRAW = {"steps": 2, "random_state": 3}


def frame(n=120):
    rng = np.random.default_rng(0)
    out = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "whole": rng.integers(0, 50, n),
            "holes": pd.array(rng.integers(0, 99, n), dtype="Int64"),
            "text": rng.choice(["a", "b", None], n, p=[0.05, 0.05, 0.9]),
            "kind": pd.Categorical(rng.choice(["u", "v", "w"], n)),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), unit="D"),
        }
    )
    out.loc[::3, "holes"] = pd.NA
    return out


@pytest.fixture(scope="module")
def table():
    return DiffusionGenerator(**QUICK).fit(frame(), condition="kind")


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(
        rng.poisson(2.0, (60, 8)).astype(np.float32), obs=pd.DataFrame({"t": rng.choice(["a", "b"], 60)})
    )
    adata.obs_names = [f"c{i}" for i in range(60)]
    return DiffusionGenerator(**QUICK).fit(adata, condition="t")


def contents(folder):
    """The bytes of every file below a folder, but for the manifest."""
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != "_tabdiff.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_one_shard_is_what_sample_draws(table, tmp_path):
    table.sample_to(tmp_path / "lake", 40, **DRAW)
    drawn = pd.read_parquet(tmp_path / "lake")
    pd.testing.assert_frame_equal(drawn, table.sample(40, **DRAW))


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
def test_one_file_has_the_rows_of_its_shards(table, tmp_path, kind):
    table.sample_to(tmp_path / "lake", 50, shard_size=20, format=kind, **DRAW)
    table.sample_to(tmp_path / f"rows.{kind}", 50, shard_size=20, **DRAW)
    read = pd.read_parquet if kind == "parquet" else pd.read_csv
    parts = [read(p) for p in sorted((tmp_path / "lake").glob("part-*"))]
    assert [len(p) for p in parts] == [20, 20, 10]
    pd.testing.assert_frame_equal(read(tmp_path / f"rows.{kind}"), pd.concat(parts, ignore_index=True))
    assert not parts[0].iloc[:, 0].equals(parts[1].iloc[:, 0])  # each has a seed of its own
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lake", f"rows.{kind}"]


def test_all_shards_have_one_schema(table, tmp_path):
    import pyarrow.parquet as pq

    # Of three rows most have no text at all, from which no type could be told.
    table.sample_to(tmp_path / "lake", 30, shard_size=3, **DRAW)
    schemas = [pq.read_schema(p) for p in (tmp_path / "lake").glob("*.parquet")]
    assert len(schemas) == 10 and all(s.equals(schemas[0], check_metadata=True) for s in schemas)
    assert pd.read_parquet(tmp_path / "lake").dtypes.equals(frame().dtypes)


def test_workers_and_kills_change_no_byte(table, tmp_path):
    for name, n_jobs in (("one", None), ("two", 2)):
        table.sample_to(tmp_path / name, 50, shard_size=10, n_jobs=n_jobs, **DRAW)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for gone in (1, 4):
        (tmp_path / "two" / f"part-0000{gone}-of-00005.parquet").unlink()
    kept = tmp_path / "two" / "part-00002-of-00005.parquet"
    before = kept.stat().st_mtime_ns
    (tmp_path / "two" / ".part-00001-of-00005-left.parquet").write_bytes(b"half")
    table.sample_to(tmp_path / "two", 50, steps=2)  # goes on with the seed and the shards of the manifest
    assert kept.stat().st_mtime_ns == before
    assert table.sample_to(tmp_path / "two", 50, shard_size=10, **DRAW) is None
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_with(table, tmp_path):
    table.save(tmp_path / "model")
    command = [sys.executable, "-m", "tabdiff", "sample", str(tmp_path / "model"), "-n", "3000", "--shard-size", "50"]
    command += ["--seed", "1", "--steps", "2", "--quiet", "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    killed = subprocess.Popen([*command, str(tmp_path / "killed")])
    deadline = time.time() + 60
    while len(list(tmp_path.glob("killed/part-*"))) < 7 and time.time() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 7 <= len(list(tmp_path.glob("killed/part-*"))) < 60
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_a_relative_path_is_that_of_the_caller(table, tmp_path, monkeypatch):
    for name in ("one", "two"):  # joblib keeps the processes of the first call, in whose folder they stand
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        table.sample_to("rows", 12, shard_size=6, n_jobs=2, **DRAW)
        assert len(list((tmp_path / name / "rows").glob("*.parquet"))) == 2


def test_conditions_by_row_are_cut(table, tmp_path):
    wanted = ["u"] * 7 + ["v"] * 13
    table.sample_to(tmp_path / "lake", condition={"kind": {"u": 7, "v": 13}}, shard_size=6, **DRAW)
    assert pd.read_parquet(tmp_path / "lake")["kind"].to_list() == wanted
    table.sample_to(tmp_path / "rows", condition=wanted, shard_size=6, n_jobs=2, **DRAW)
    assert pd.read_parquet(tmp_path / "rows")["kind"].to_list() == wanted
    with pytest.raises(ValueError, match="kind"):
        table.sample_to(tmp_path / "wrong", condition="z", **DRAW)
    assert not (tmp_path / "wrong").exists()


def test_held_columns_are_cut(tmp_path):
    gen = DiffusionGenerator(training=TrainingOptions(observed_masks=0.5), **QUICK).fit(frame())
    held = {"kind": ["u", "v"] * 6, "whole": list(range(12))}
    gen.sample_to(tmp_path / "lake", condition=held, shard_size=5, **DRAW)
    drawn = pd.read_parquet(tmp_path / "lake")
    assert drawn["kind"].to_list() == held["kind"] and drawn["whole"].to_list() == held["whole"]


def test_another_request_is_refused(table, tmp_path):
    table.sample_to(tmp_path / "lake", 20, shard_size=10, **DRAW)
    for changed, what in (
        ({"random_state": 4}, "seed was"),
        ({"steps": 3}, "steps was 2 and is 3"),
        ({"condition": "u"}, 'condition was null and is "u"'),
        ({"shard_size": 5}, "shard_size was 10 and is 5"),
        ({"n_samples": 30}, "n_samples was 20 and is 30"),
        ({"format": "csv"}, 'format was "parquet" and is "csv"'),
    ):
        with pytest.raises(DataFileError, match=what):
            table.sample_to(tmp_path / "lake", **{"n_samples": 20, "shard_size": 10, **DRAW, **changed})
    other = DiffusionGenerator(**{**QUICK, "max_steps": 6}).fit(frame(), condition="kind")
    with pytest.raises(DataFileError, match="model was"):
        other.sample_to(tmp_path / "lake", 20, shard_size=10, **DRAW)
    with pytest.raises(FileExistsError, match="a run that is over"):
        table.sample_to(tmp_path / "lake", 20, steps=2)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        table.sample_to(tmp_path / "own", 20)


@pytest.mark.slow
def test_arrays_of_jobs_make_one_file(table, cells, tmp_path):
    whole = tmp_path / "rows.parquet"
    for i in (3, 1, 2):
        table.sample_to(whole, 20, shard=(i, 3), **DRAW)
    assert not whole.exists()
    table.sample_to(whole, 20, steps=2)
    assert len(pd.read_parquet(whole)) == 20 and [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]
    for wrong in ((0, 3), (4, 3), 3, (1, 2.5)):
        with pytest.raises(ValueError, match="i from 1 to k"):
            table.sample_to(whole, 20, shard=wrong)
    with pytest.raises(ValueError, match="at most as many shards as rows"):
        table.sample_to(whole, 20, shard=(1, 30))
    with pytest.raises(ValueError, match="Leave one of them out"):
        table.sample_to(whole, 20, shard=(1, 3), shard_size=4)


def test_a_shard_on_the_command_line(table, tmp_path, capsys):
    table.save(tmp_path / "model")
    for i in (1, 2):
        assert main(f"sample {tmp_path}/model -n 21 -o {tmp_path}/lake --shard {i}/2 --steps 1".split()) == 0
    assert "shard 2 of 2" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "lake")) == 21  # the second took the seed of the first
    with pytest.raises(SystemExit):
        main(f"sample {tmp_path}/model -n 21 -o {tmp_path}/lake --shard 3/2".split())
    assert "I from 1 to K" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_cells_in_a_folder_and_in_one_file(cells, tmp_path, kind):
    read = anndata.read_h5ad if kind == "h5ad" else anndata.read_zarr
    cells.sample_to(tmp_path / "lake", 25, {"t": "a"}, shard_size=10, format=kind, n_jobs=2, **DRAW)
    cells.sample_to(tmp_path / f"all.{kind}", 25, {"t": "a"}, shard_size=10, **DRAW)
    parts = [read(p) for p in sorted((tmp_path / "lake").glob("part-*"))]
    whole = read(tmp_path / f"all.{kind}")
    assert [p.n_obs for p in parts] == [10, 10, 5]
    joined = anndata.concat(parts)
    assert (joined.X != whole.X).nnz == 0 and list(joined.obs_names) == list(whole.obs_names)
    assert list(whole.obs_names) == [f"synthetic-{i}" for i in range(25)] and set(whole.obs["t"]) == {"a"}
    np.testing.assert_array_equal(joined.obsm["X_tabdiff"], whole.obsm["X_tabdiff"])
    if kind == "zarr":
        cells.sample_to(tmp_path / "again.zarr", 25, {"t": "a"}, shard_size=10, **DRAW)
        assert contents(tmp_path / "again.zarr") == contents(tmp_path / "all.zarr")


def test_arrays_sequences_and_images(tmp_path):
    rng = np.random.default_rng(0)
    array = DiffusionGenerator(**QUICK).fit(rng.normal(size=(40, 3)), rng.integers(0, 2, 40))
    array.sample_to(tmp_path / "a.npy", 9, shard_size=4, **DRAW)
    array.sample_to(tmp_path / "a.parquet", 9, shard_size=4, **DRAW)
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == ["x0", "x1", "x2", "y"]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), table[["x0", "x1", "x2"]].to_numpy())

    reads = ["".join(rng.choice(list("ACGT"), rng.integers(3, 6))) for _ in range(30)]
    sequences = DiffusionGenerator(**QUICK).fit(reads, rng.choice(["p", "q"], 30))
    sequences.sample_to(tmp_path / "s.fasta", 9, "p", shard_size=4, **DRAW)
    lines = (tmp_path / "s.fasta").read_text().splitlines()
    assert lines[0::2] == [f">synthetic-{i} p" for i in range(9)]
    assert all(set(line) <= set("ACGT") for line in lines[1::2])

    images = DiffusionGenerator(**{**QUICK, "denoiser": "dit"})
    images.fit(rng.integers(0, 255, (20, 8, 8), dtype=np.uint8), rng.choice(["cat", "dog"], 20))
    images.sample_to(tmp_path / "i", 12, shard_size=5, n_jobs=2, **DRAW)
    images.sample_to(tmp_path / "j", 12, shard_size=5, **DRAW)
    assert sorted(p.stem for p in (tmp_path / "i").rglob("*.png")) == [f"{i:02}" for i in range(12)]
    assert contents(tmp_path / "i") == contents(tmp_path / "j")
    again = DiffusionGenerator(**{**QUICK, "denoiser": "dit"}).fit(tmp_path / "i")
    assert again.conditions_.names == ["class"]


def test_a_full_disk_loses_no_shard(table, tmp_path, monkeypatch):
    whole, written = shard_files.replacing, []

    def full(path):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return whole(path)

    monkeypatch.setattr(shard_files, "replacing", full)
    with pytest.raises(OSError, match=r"shard 3 of 5: .*part-00003-of-00005.parquet cannot be written.*No space"):
        table.sample_to(tmp_path / "lake", 50, shard_size=10, **DRAW)
    assert len(list((tmp_path / "lake").glob("part-*"))) == 2
    monkeypatch.undo()
    table.sample_to(tmp_path / "lake", 50, steps=2)
    assert len(pd.read_parquet(tmp_path / "lake")) == 50


def test_damaged_manifests_and_vanished_folders(table, tmp_path):
    table.sample_to(tmp_path / "lake", 20, shard_size=10, **DRAW)
    (tmp_path / "lake" / "_tabdiff.json").write_text("{")
    with pytest.raises(DataFileError, match="cannot be read"):
        table.sample_to(tmp_path / "lake", 20, **DRAW)
    (tmp_path / "lake" / "_tabdiff.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(DataFileError, match="no manifest"):
        table.sample_to(tmp_path / "lake", 20, **DRAW)
    with pytest.raises(FileNotFoundError, match="mkdir -p"):
        table.sample_to(tmp_path / "gone" / "lake", 20)
    for path in ("rows.h5ad", "rows.png", "rows.xlsx"):
        with pytest.raises(ValueError, match=r"parquet.*csv"):
            table.sample_to(tmp_path / path, 20)
    with pytest.raises(ValueError, match=r"format must be 'parquet', 'csv' or 'csv.gz'.*got 'h5ad'"):
        table.sample_to(tmp_path / "x", 20, format="h5ad")


def test_a_folder_that_vanishes_is_named_with_the_shard(table, tmp_path, monkeypatch):
    whole, lake = shard_files.replacing, tmp_path / "lake"

    def removed(path):
        if "part-00003" in path.name:
            shutil.rmtree(lake)
        return whole(path)

    monkeypatch.setattr(shard_files, "replacing", removed)
    with pytest.raises(OSError, match=r"shard 3 of 5: .*part-00003-of-00005.parquet cannot be written"):
        table.sample_to(lake, 50, shard_size=10, **DRAW)


def test_refined_rows_are_the_same_in_any_process(tmp_path, monkeypatch):
    monkeypatch.setattr("tabdiff.model.refinement.refinement.MIN_DRAWN", 400)
    monkeypatch.setattr("tabdiff.model.refinement.refinement.DRAWN_PER_ROW", 1)
    gen = DiffusionGenerator(refine=True, autoguidance=1.5, **QUICK).fit(frame()[["x", "whole", "kind"]])
    for name, n_jobs in (("one", None), ("two", 2)):
        gen.sample_to(tmp_path / name, 60, shard_size=20, n_jobs=n_jobs, **DRAW)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_dask_draws_the_same(table, tmp_path):
    distributed = pytest.importorskip("distributed")
    table.sample_to(tmp_path / "one", 40, shard_size=10, **DRAW)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        table.sample_to(tmp_path / "two", 40, shard_size=10, n_jobs=-1, **DRAW)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_threads_stay_as_they_were(table, tmp_path):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        table.sample_to(tmp_path / "two", 20, shard_size=10, **DRAW)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    table.sample_to(tmp_path / "one", 20, shard_size=10, **DRAW)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert os.listdir(tmp_path / "one")
