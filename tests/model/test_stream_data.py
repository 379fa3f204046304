"""Fits on tables in files: the same as in memory where they are small, and in blocks where they are not."""

import json
import shutil
import signal
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.cli.main import main
from tabdiff.codecs import make_codec
from tabdiff.codecs.columns.numeric import STRETCH
from tabdiff.codecs.tables import survey
from tabdiff.io import frame_source, row_store
from tabdiff.io.data_files import DataFileError
from tabdiff.model import stream_data
from tabdiff.training import Callback, Checkpoint

QUICK = {"hidden_size": 8, "n_blocks": 1, "max_steps": 12, "random_state": 0, "refine": False}


def frame(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.choice(["u", "v"], n)
    x = rng.normal(size=n) + 2 * (kind == "v")
    out = pd.DataFrame({"x": x, "y": x + rng.normal(size=n), "whole": rng.poisson(20, n), "kind": kind})
    out["level"] = np.where(rng.random(n) < 0.9, kind, "w")
    out.loc[rng.random(n) < 0.1, "y"] = np.nan
    return out


def write(data, folder, n_files=4):
    folder.mkdir(exist_ok=True)
    for i, part in enumerate(np.array_split(np.arange(len(data)), n_files)):
        data.iloc[part].to_parquet(folder / f"part-{i}.parquet", index=False)
    return folder


@pytest.fixture
def streamed(monkeypatch):
    """Tables of more than a thousand rows do not fit into memory."""
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 1000)
    monkeypatch.setattr(survey, "MIN_SAMPLE", 1000)
    monkeypatch.setattr(frame_source, "CHUNK_ROWS", 512)


def test_few_rows_are_fitted_as_in_memory(tmp_path):
    data = frame(500)
    lake = write(data, tmp_path / "lake")
    a = DiffusionGenerator(**QUICK).fit(lake, condition="kind")
    b = DiffusionGenerator(**QUICK).fit(data, condition="kind")
    pd.testing.assert_frame_equal(a.sample(50, random_state=1), b.sample(50, random_state=1))


@pytest.mark.usefixtures("streamed")
@pytest.mark.slow
def test_many_rows_are_learned_from_their_file(tmp_path):
    data = frame()
    lake = write(data, tmp_path / "lake")
    gen = DiffusionGenerator(**{**QUICK, "max_steps": 400, "hidden_size": 64, "learning_rate": 3e-3})
    gen.fit(str(lake / "*.parquet"), condition="kind")
    assert gen.n_samples_fit_ == 6000 and list(gen.feature_names_in_) == list(data.columns)
    drawn = gen.sample(4000, random_state=0)
    assert drawn.dtypes.equals(data.dtypes) and list(drawn.columns) == list(data.columns)
    means = drawn.groupby("kind")["x"].mean()
    assert abs(means["u"]) < 0.25 and abs(means["v"] - 2) < 0.25
    assert drawn[["x", "y"]].corr().iloc[0, 1] > 0.6
    assert abs(drawn["y"].isna().mean() - 0.1) < 0.03
    gen.save(tmp_path / "model")
    again = DiffusionGenerator.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(20, random_state=2), gen.sample(20, random_state=2))


@pytest.mark.usefixtures("streamed")
def test_the_container_that_goes_in_comes_out(tmp_path):
    data = frame(2000)
    lake = write(data, tmp_path / "lake")
    for X, kind in (
        (ds.dataset(lake), pa.Table),
        (pl.scan_parquet(lake / "*.parquet"), pl.DataFrame),
        ((data.iloc[i::3] for i in range(3)), pd.DataFrame),
    ):
        assert isinstance(DiffusionGenerator(**QUICK).fit(X, condition="kind").sample(5), kind)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("n", [600, 2000])  # as in memory, and from a file
def test_rows_of_csv_come_back_as_pandas_has_them(tmp_path, n):
    data = frame(n).assign(when=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n) % 90, unit="D"))
    data["flag"], data["some"] = data["x"] > 0, data["whole"].where(data["x"] > -1).astype("Int64")
    data["perhaps"] = data["flag"].astype("boolean").mask(data["x"] > 1)
    (tmp_path / "lake").mkdir()
    for i in range(2):
        data.iloc[i::2].to_csv(tmp_path / "lake" / f"{i}.csv", index=False)
    drawn = DiffusionGenerator(**QUICK).fit(tmp_path / "lake", condition="kind").sample(200, random_state=0)
    assert [str(dtype) for dtype in drawn.dtypes] == [
        *("float64", "float64", "int64", "object", "object", "datetime64[us]", "bool", "Int64", "boolean")
    ]
    assert set(drawn["kind"]) == {"u", "v"} and set(drawn["level"]) <= {"u", "v", "w"}
    assert drawn["some"].isna().any() and drawn["perhaps"].isna().any() and drawn["whole"].ge(0).all()
    assert drawn["when"].isin(data["when"]).all()


@pytest.mark.usefixtures("streamed")
def test_rows_are_encoded_as_a_codec_does(tmp_path):
    data = frame()
    source = frame_source.open_frames(write(data, tmp_path / "lake"))
    names = list(data.columns)
    found = survey.TableSurvey(names, [], 5)
    for chunk in source.chunks():
        found.add(chunk)
    codec = make_codec(data).fit(found.sample()[0], survey=found)
    folder = stream_data.Folder(None, "x")
    encoded = stream_data.encode_stream(source, found, codec, None, seed=3, folder=folder)
    rows = encoded.data[torch.arange(6000)]
    assert encoded.data.shape == tuple(rows.shape) == (6000, codec.n_continuous_ + len(codec.n_levels_))
    back = codec.decode(rows)
    assert back["level"].to_list() == data["level"].to_list()
    assert (back["whole"].to_numpy() == data["whole"].to_numpy()).all()
    assert (back["y"].isna().to_numpy() == data["y"].isna().to_numpy()).all()
    # A number comes back within its stretch of neighbours, which are further apart at the ends.
    x, found_x, order = data["x"].to_numpy(), back["x"].to_numpy(float), np.sort(data["x"])
    place = np.searchsorted(order, x)
    assert np.abs(np.searchsorted(order, found_x) - place).max() <= STRETCH // 2
    inner = (place >= 10) & (place < len(x) - 10)
    np.testing.assert_allclose(found_x[inner], x[inner], atol=0.1)
    assert abs(float(rows[:, 0].mean())) < 0.08 and abs(float(rows[:, 0].std()) - 1) < 0.08


@pytest.mark.usefixtures("streamed")
def test_a_pass_that_fails_goes_on_in_the_same_cache(tmp_path, monkeypatch):
    data = frame()
    lake, cache = write(data, tmp_path / "lake"), tmp_path / "cache"
    monkeypatch.setattr(stream_data, "NOTED_CHUNKS", 2)
    whole = DiffusionGenerator(**QUICK).fit(lake, cache_dir=tmp_path / "other").sample(20, random_state=0)
    for method, places in ((survey.TableSurvey, "add"), (stream_data, "_encode_chunk")):
        calls, real = [], getattr(method, places)

        def fails(*args, real=real, calls=calls, **kwargs):
            calls.append(1)
            if len(calls) == 6:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(method, places, fails)
            with pytest.raises(OSError, match="No space left"):
                DiffusionGenerator(**QUICK).fit(lake, cache_dir=cache)
    (folder,) = cache.iterdir()
    state = json.loads((folder / "rows.json").read_text())
    assert 0 < state["rows"] < 6000 and joblib.load(folder / "survey.joblib")[1]
    # What is read from now on is only the rest.
    read = []
    real = frame_source.FrameSource.chunks

    def chunks(self, start=0):
        read.append(start)
        return real(self, start)

    monkeypatch.setattr(frame_source.FrameSource, "chunks", chunks)
    gen = DiffusionGenerator(**QUICK).fit(lake, cache_dir=cache)
    assert read == [state["rows"]]
    pd.testing.assert_frame_equal(gen.sample(20, random_state=0), whole)


@pytest.mark.usefixtures("streamed")
def test_held_out_rows_are_not_learned_from(tmp_path):
    lake = write(frame(), tmp_path / "lake")
    gen = DiffusionGenerator(**{**QUICK, "max_steps": 60, "early_stopping": True}, validation_fraction=0.25)
    gen.fit(lake, cache_dir=tmp_path / "cache")
    assert len(gen.history_["validation_loss"]) >= 1
    (folder,) = (tmp_path / "cache").iterdir()
    state = json.loads((folder / "rows.json").read_text())
    assert 1300 < state["held_out"] < 1700 and state["rows"] == 6000
    sizes = (folder / "rows.bin").stat().st_size, (folder / "held-out.bin").stat().st_size
    assert sizes[0] / (sizes[0] + sizes[1]) == pytest.approx(1 - state["held_out"] / 6000)


@pytest.mark.usefixtures("streamed")
def test_checkpoints_go_on(tmp_path):
    lake = write(frame(), tmp_path / "lake")
    whole = DiffusionGenerator(**QUICK, callbacks=[Checkpoint(tmp_path / "c", every=4, unit="steps", keep=None)])
    whole.fit(lake, condition="kind")
    saved = sorted((tmp_path / "c").iterdir())[0]
    again = DiffusionGenerator(**QUICK).fit(lake, condition="kind", resume_from=saved)
    for a, b in zip(whole.denoiser_.parameters(), again.denoiser_.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("streamed")
def test_constraints_hold_in_all_rows(tmp_path):
    data = pd.DataFrame({"a": np.arange(3000.0), "b": np.arange(3000.0) + 1})
    gen = DiffusionGenerator(**QUICK, constraints=["a <= b"]).fit(write(data, tmp_path / "good"))
    drawn = gen.sample(100)
    assert (drawn["a"] <= drawn["b"]).all()
    data.loc[2999, "b"] = 0.0
    lake = write(data, tmp_path / "bad")
    with pytest.raises(ValueError, match="a <= b"):
        DiffusionGenerator(**QUICK, constraints=["a <= b"]).fit(lake)


@pytest.mark.usefixtures("streamed")
def test_more_levels_than_are_counted_share_the_code_of_the_rare(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "MAX_DISTINCT", 300)
    monkeypatch.setattr(survey, "COUNTERS", 100)
    rng = np.random.default_rng(0)
    names = np.where(rng.random(5000) < 0.4, "often", [f"name{i}" for i in range(5000)])
    data = pd.DataFrame({"name": names, "x": rng.normal(size=5000)})
    gen = DiffusionGenerator(**QUICK).fit(write(data, tmp_path / "lake"))
    drawn = gen.sample(300, random_state=0)
    assert set(drawn["name"]) <= set(names)


def test_what_needs_memory_is_refused(tmp_path):
    data = frame(200)
    lake = write(data, tmp_path / "lake")
    gen = DiffusionGenerator(**QUICK)
    with pytest.raises(ValueError, match="condition='y'"):
        gen.fit(lake, data["x"])
    with pytest.raises(ValueError, match="condition must name columns"):
        gen.fit(lake, condition=data[["kind"]])
    with pytest.raises(ValueError, match="Did you mean 'kind'"):
        gen.fit(lake, condition="knd")
    with pytest.raises(ValueError, match="sample_weight must be left out"):
        gen.fit(lake, sample_weight=np.ones(200))
    with pytest.raises(ValueError, match="nothing is left"):
        gen.fit(lake, condition=list(data.columns))
    gen.set_params(warm_start=True).fit(data)
    with pytest.raises(ValueError, match="warm_start must be False"):
        gen.fit(lake)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cache_dir must be a folder"):
        DiffusionGenerator(**QUICK).fit(lake, cache_dir=tmp_path / "file")


@pytest.mark.usefixtures("streamed")
def test_files_that_change_between_the_passes(tmp_path, monkeypatch):
    data = frame(3000)
    lake = write(data, tmp_path / "lake")
    real = stream_data.encode_stream

    def grown(*args, **kwargs):
        frame(900).to_parquet(lake / "part-3.parquet", index=False)
        return real(*args, **kwargs)

    monkeypatch.setattr("tabdiff.model.training_data.encode_stream", grown)
    with pytest.raises((DataFileError, OSError), match=r"in the first pass and|part-3"):
        DiffusionGenerator(**QUICK).fit(lake)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("when", ["_encode_chunk", "in training"])
def test_a_cache_that_vanishes_is_named(tmp_path, monkeypatch, when):
    lake, cache = write(frame(3000), tmp_path / "lake"), tmp_path / "cache"
    callbacks = []
    if when == "in training":

        class Removes(Callback):
            def on_step_end(self, training):
                shutil.rmtree(cache, ignore_errors=True)

        callbacks = [Removes()]
        monkeypatch.setattr(row_store, "KEPT_BLOCKS", 0)
    else:
        real = stream_data._encode_chunk

        def removed(*args):
            shutil.rmtree(cache, ignore_errors=True)
            return real(*args)

        monkeypatch.setattr(stream_data, "_encode_chunk", removed)
    with pytest.raises(OSError, match=rf"{cache}.*(vanished|cannot be read)"):
        DiffusionGenerator(**{**QUICK, "max_steps": 500}, callbacks=callbacks).fit(lake, cache_dir=cache)
    assert len(list(lake.iterdir())) == 4


def test_a_folder_on_the_command_line(tmp_path, capsys):
    write(frame(300), tmp_path / "lake")
    fit = ["fit", f"{tmp_path}/lake/*.parquet", "-o", f"{tmp_path}/model", "--condition", "kind", "--max-steps", "3"]
    assert main([*fit, "--seed", "1"]) == 0
    assert "300 rows × 5 columns" in capsys.readouterr().out
    assert main(["fit", f"{tmp_path}/lake", "-o", f"{tmp_path}/other", "--max-steps", "3", "--quiet"]) == 0
    assert main(f"sample {tmp_path}/model -n 10 -o {tmp_path}/out.parquet --quiet".split()) == 0
    assert main(["fit", f"{tmp_path}/lake", "-o", f"{tmp_path}/x", "--drop", "x"]) == 1
    assert "Leave it out" in capsys.readouterr().err


PEAK = """
import sys
from tabdiff import DiffusionGenerator
gen = DiffusionGenerator(max_steps=30, hidden_size=8, n_blocks=1, random_state=0, refine=False, autoguidance=1.0)
gen.fit(sys.argv[1])
# Not ru_maxrss, which begins with that of the process that this one was started by.
status = open("/proc/self/status").read().splitlines()
print(gen.n_samples_fit_, next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Three times the rows: 60 MB more of them, and less than 40 MB more of memory."""
    peaks = []
    for n_files in (2, 6):
        lake = tmp_path / f"lake{n_files}"
        lake.mkdir()
        for i in range(n_files):
            rng = np.random.default_rng(i)
            columns = {f"x{j}": rng.normal(size=150_000) for j in range(12)}
            pd.DataFrame(columns).to_parquet(lake / f"{i}.parquet", index=False, row_group_size=50_000)
        peaks.append(peak_of(lake, 150_000 * n_files))
    if peaks[1] - peaks[0] >= 40:  # threads that wait for a busy processor hold more for a while: the least of two
        peaks[1] = min(peaks[1], peak_of(lake, 150_000 * n_files))
    assert peaks[1] - peaks[0] < 40, peaks


def peak_of(lake, n_rows):
    """Megabytes of memory that a fit in a process of its own took at most."""
    run = subprocess.run([sys.executable, "-c", PEAK, str(lake)], capture_output=True, text=True, check=True)
    rows, peak = map(int, run.stdout.split())
    assert rows == n_rows
    return peak


@pytest.mark.slow
def test_a_fit_that_is_killed_goes_on(tmp_path):
    write(frame(2000), tmp_path / "lake")
    code = (
        "import sys, time; from tabdiff.codecs.tables import survey; from tabdiff.io import frame_source\n"
        "from tabdiff.model import stream_data; from tabdiff import DiffusionGenerator\n"
        "survey.SAMPLE_ROWS = survey.MIN_SAMPLE = 500; frame_source.CHUNK_ROWS = 50\n"
        "real = stream_data._encode_chunk\n"
        "def slow(*a, **k):\n    time.sleep(float(sys.argv[4])); return real(*a, **k)\n"
        "stream_data._encode_chunk = slow\n"
        f"gen = DiffusionGenerator(**{QUICK!r}).fit(sys.argv[1], cache_dir=sys.argv[2])\n"
        "gen.sample(50, random_state=0).to_csv(sys.argv[3])\n"
    )

    def command(cache, out, wait):
        return [sys.executable, "-c", code, *map(str, (tmp_path / "lake", tmp_path / cache, tmp_path / out, wait))]

    subprocess.run(command("c1", "whole.csv", 0), check=True)
    killed = subprocess.Popen(command("c2", "none.csv", 0.1))
    deadline = time.time() + 60
    notes = []
    while not notes and time.time() < deadline:
        time.sleep(0.05)
        notes = [p for p in tmp_path.glob("c2/*/rows.json") if json.loads(p.read_text())["rows"] >= 500]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "none.csv").exists()
    subprocess.run(command("c2", "again.csv", 0), check=True)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
