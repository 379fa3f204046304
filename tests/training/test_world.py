"""Several processes that train one network: the same as one process, whatever happens on the way."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff.training.world import OneProcess, World, current_world

SCRIPT = Path(__file__).parents[1] / "support" / "world_fit.py"
# Of sums in another order, grown over 200 steps.
TOLERANCE = 1e-5


def run(case, out, processes):
    command = [sys.executable, str(SCRIPT)]
    if processes > 1:
        group = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        if case == "dies":  # the others have time to say what they saw before they are stopped
            group.append("--monitor-interval=5")
        command = [sys.executable, *group, str(SCRIPT)]
    return subprocess.run([*command, str(out), case], capture_output=True, text=True, timeout=300)


def fit(case, out, processes):
    ended = run(case, out, processes)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [torch.load(out / f"{case}-{rank}-of-{processes}.pt", weights_only=False) for rank in range(processes)]


def alike(a, b):
    for key in ("loss", "gradient_norm", "validation_loss"):
        if key in a["history"]:
            np.testing.assert_allclose(a["history"][key], b["history"][key], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(a["weights"], b["weights"], rtol=0, atol=TOLERANCE)
    pd.testing.assert_frame_equal(a["drawn"], b["drawn"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", ["plain", pytest.param("learned", marks=pytest.mark.slow)])
def test_two_processes_do_what_one_does(tmp_path, case):
    (one,), both = fit(case, tmp_path, 1), fit(case, tmp_path, 2)
    for each in both:
        alike(one, each)
    assert torch.equal(both[0]["weights"], both[1]["weights"])


@pytest.mark.slow
def test_a_fit_goes_on_with_another_number_of_processes(tmp_path):
    whole = fit("short", tmp_path, 2)[0]
    assert min(p.name for p in (tmp_path / "checkpoints").iterdir()).endswith("0000060.safetensors")
    for processes in (1, 3):
        alike(whole, fit("rest", tmp_path, processes)[0])


@pytest.mark.slow
def test_rows_in_files_are_encoded_once(tmp_path):
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from world_fit import frame
    finally:
        sys.path.pop(0)
    (tmp_path / "lake").mkdir()
    frame().to_parquet(tmp_path / "lake" / "a.parquet", index=False)
    both = fit("lake", tmp_path, 2)
    assert torch.equal(both[0]["weights"], both[1]["weights"])


@pytest.mark.slow
def test_a_process_that_dies_leaves_the_last_checkpoint(tmp_path):
    ended = run("dies", tmp_path, 2)
    assert ended.returncode != 0
    assert ended.stderr.count("another process of the group ended in training") == 1
    (last,) = (tmp_path / "last").iterdir()
    assert last.name == "checkpoint-0000020.safetensors" or last.name == "checkpoint-0000030.safetensors"
    (tmp_path / "checkpoints").mkdir()
    last.rename(tmp_path / "checkpoints" / last.name)
    (undisturbed,) = fit("plain", tmp_path, 1)
    for processes in (1, 3):
        alike(undisturbed, fit("rest", tmp_path, processes)[0])


@pytest.mark.slow
def test_other_data_and_errors_are_told(tmp_path):
    ended = run("other", tmp_path, 2)
    assert ended.returncode != 0 and "process 1 of 2 got other data than process 0" in ended.stderr
    ended = run("fails", tmp_path, 2)
    assert ended.returncode != 0 and "x <= y" in ended.stderr and "process 0 failed: ValueError" in ended.stderr


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "lake").mkdir()
    for i in range(2):
        pd.DataFrame({"x": rng.normal(size=50)}).to_parquet(tmp_path / "lake" / f"{i}.parquet", index=False)
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tabdiff"]
    ended = subprocess.run(
        [*group, "fit", f"{tmp_path}/lake/*.parquet", "-o", f"{tmp_path}/model", "--max-steps", "5"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("100 rows × 1 columns") == 1 and (tmp_path / "model").is_dir()


def test_parts_cover_a_batch():
    assert isinstance(current_world(), OneProcess) and not isinstance(current_world(), World)
    for size in (1, 2, 3, 7):
        world = World.__new__(World)
        world.size, rows = size, []
        for world.rank in range(size):
            rows += list(range(10))[world.part(10)]
        assert rows == list(range(10))
