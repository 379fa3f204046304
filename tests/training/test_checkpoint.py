import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tabdiff import MLP, DiffusionGenerator, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.training import Callback, Checkpoint, CheckpointError, PeriodicSamples, Training
from tabdiff.training.checkpoint import (
    checkpoint_files,
    describe_parameters,
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)

QUICK = {"max_steps": 60, "hidden_size": 16, "n_blocks": 1, "batch_size": 64, "random_state": 0}
KILL = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"


class Interruption(Exception):
    pass


class InterruptAt(Callback):
    """Ends the process of a fit, as far as the fit can tell."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, training):
        if training.step == self.step:
            raise Interruption


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


def rows_of(gen):
    rows = copy.deepcopy(gen).sample(20)  # a draw moves the stream on
    return rows.X.toarray() if hasattr(rows, "obs") else np.asarray(rows, dtype=str)


def assert_same_model(a, b):
    weights, others = a.denoiser_.state_dict(), b.denoiser_.state_dict()
    assert weights.keys() == others.keys()
    assert all(np.array_equal(weights[name].numpy(), others[name].numpy()) for name in weights)
    assert a.history_.keys() == b.history_.keys()
    for key in set(a.history_) - {"seconds", "rows_per_second", "memory"}:
        assert a.history_[key] == b.history_[key], key
    assert a.n_steps_ == b.n_steps_
    assert np.array_equal(rows_of(a), rows_of(b))


def interrupt(folder, step, arguments, every=0.0, **parameters):
    settings, kept = {**QUICK, **parameters}, Checkpoint(folder, every=every)
    with pytest.raises(Interruption):
        DiffusionGenerator(**settings, callbacks=[InterruptAt(step), kept]).fit(**arguments)
    return DiffusionGenerator(**settings, callbacks=[kept])


def cells():
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b"], 20)
    return AnnData(
        rng.poisson(np.where(kinds == "a", 1.0, 3.0)[:, None], (40, 6)).astype("float32"),
        obs=pd.DataFrame({"kind": kinds}, index=[f"c{i}" for i in range(40)]),
    )


@pytest.mark.slow
def test_a_fit_on_its_way_to_stopping_early_stops_where_it_would_have(tmp_path):
    arguments = {"X": np.random.default_rng(0).normal(size=(40, 3))}
    parameters = {
        "max_steps": 4000,
        "hidden_size": 128,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.9),
    }
    parameters |= {"early_stopping": True, "n_iter_no_change": 2}
    whole = DiffusionGenerator(**{**QUICK, **parameters}).fit(**arguments)
    best = 50 * (1 + int(np.argmin(whole.history_["validation_loss"])))
    assert best + 100 == whole.n_steps_ < 4000
    # The best weights are behind, and one of two chances is gone.
    again = interrupt(tmp_path, best + 60, arguments, **parameters)
    assert_same_model(again.fit(**arguments, resume_from=tmp_path), whole)


# The step 51 is the first after an entry of the history, 60 the last.
@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 50, 51, 60])
def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(penguins, tmp_path, step):
    everything = {
        "denoiser": MLP(dropout=0.1),
        "training": TrainingOptions(times="loss_aware"),
        "early_stopping": True,
        "n_iter_no_change": 1,
    }
    arguments = {"X": penguins, "condition": ["species", "year"]}
    whole = DiffusionGenerator(**QUICK, **everything).fit(**arguments)
    again = interrupt(tmp_path, step, arguments, **everything)
    # The interruption comes before the checkpoint of its own step; before the first one there is none.
    assert (read_checkpoint(tmp_path) is None) == (step == 1)
    assert_same_model(again.fit(**arguments, resume_from=tmp_path), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weighted array", "cells", "discrete"])
def test_every_kind_of_fit_can_be_interrupted(kind, tmp_path):
    rng = np.random.default_rng(0)
    parameters, arguments = {}, {"X": rng.normal(size=(80, 3)), "y": rng.integers(2, size=80)}
    if kind == "weighted array":
        arguments["sample_weight"] = rng.random(80)
    elif kind == "cells":
        arguments = {"X": cells(), "condition": "kind"}
    else:
        parameters = {"n_timesteps": 100, "target": "eps"}
    whole = DiffusionGenerator(**QUICK, **parameters).fit(**arguments)
    again = interrupt(tmp_path, 30, arguments, **parameters)
    assert_same_model(again.fit(**arguments, resume_from=tmp_path), whole)


def test_what_follows_training_can_be_interrupted_too(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(60, 2))
    parameters = {**QUICK, "max_steps": 20, "refine": True}
    whole = DiffusionGenerator(**parameters).fit(X)
    again = DiffusionGenerator(**parameters, callbacks=[Checkpoint(tmp_path)])
    with monkeypatch.context() as patch:
        patch.setattr("tabdiff.model.fit.fit_refinement", lambda *_: (_ for _ in ()).throw(Interruption))
        with pytest.raises(Interruption):
            again.fit(X)
    steps = []

    class Count(Callback):
        def on_step_end(self, training):
            steps.append(training.step)

    assert_same_model(again.set_params(callbacks=[Count()]).fit(X, resume_from=tmp_path), whole)
    assert steps == []


@pytest.mark.slow
def test_a_fit_is_the_same_with_and_without_checkpoints_and_resume(penguins, tmp_path):
    plain = DiffusionGenerator(**QUICK).fit(penguins)
    kept = DiffusionGenerator(**QUICK, callbacks=[Checkpoint(tmp_path, every=0)]).fit(penguins, resume_from=tmp_path)
    assert_same_model(kept, plain)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000060.safetensors"]
    rarely = DiffusionGenerator(**QUICK, callbacks=[Checkpoint(tmp_path / "new" / "folder")]).fit(penguins)
    assert_same_model(rarely, plain)
    assert read_checkpoint(tmp_path / "new" / "folder")["training"]["finished"]


def test_without_resume_a_fit_starts_over(penguins, tmp_path):
    interrupt(tmp_path, 30, {"X": penguins})
    seen = []

    class First(Callback):
        def on_fit_begin(self, training: Training):
            seen.append(training.step)

    settings = {**QUICK, "random_state": 1, "callbacks": [First(), Checkpoint(tmp_path)]}
    DiffusionGenerator(**settings).fit(penguins)
    DiffusionGenerator(**settings).fit(penguins, resume_from=tmp_path)
    assert seen == [0, 60]


def test_a_fit_without_a_seed_keeps_the_one_that_it_drew(penguins, tmp_path):
    again = interrupt(tmp_path / "a", 30, {"X": penguins}, random_state=None)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = again.fit(penguins, resume_from=tmp_path / "a")
    second = DiffusionGenerator(**{**again.get_params(deep=False), "callbacks": None}).fit(
        penguins, resume_from=tmp_path / "b"
    )
    assert_same_model(first, second)


def test_time_before_an_interruption_counts(penguins, tmp_path):
    again = interrupt(tmp_path, 30, {"X": penguins}, max_steps=100_000, max_time=600)
    saved = read_checkpoint(tmp_path)
    saved["training"]["seconds"] = 599.99
    write_checkpoint(tmp_path, saved)
    gen = again.fit(penguins, resume_from=tmp_path)
    assert 30 <= gen.n_steps_ < 1000
    assert gen.history_["seconds"][-1] >= 599.99


@pytest.mark.cuda
def test_a_fit_on_cuda_goes_on(penguins, tmp_path):
    parameters = {
        "device": "cuda",
        "early_stopping": True,
        "training": TrainingOptions(times="loss_aware"),
        "denoiser": MLP(dropout=0.1),
    }
    whole = DiffusionGenerator(**QUICK, **parameters).fit(penguins, condition="species")
    again = interrupt(tmp_path, 55, {"X": penguins, "condition": "species"}, **parameters)
    again.fit(penguins, condition="species", resume_from=tmp_path)
    # Products on a GPU add up in no fixed order.
    assert again.n_steps_ == 60
    np.testing.assert_allclose(again.history_["loss"], whole.history_["loss"], rtol=1e-2)
    np.testing.assert_allclose(again.history_["validation_loss"], whole.history_["validation_loss"], rtol=1e-2)


# --------------------------------------------------------------- what differs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_steps": 70}, "max_steps was 60 and is 70"),
        (
            {"learning_rate": 0.1, "hidden_size": 8},
            r"hidden_size was 16 and is 8; learning_rate was 'auto' and is 0\.1",
        ),
        ({"random_state": 1}, "another random_state"),
        (
            {"training": TrainingOptions(betas=(0.9, 0.9))},
            r"fit: training__betas was \[0\.9, 0\.99\] and is .*0\.9\]\.",
        ),
        ({"early_stopping": True}, "early_stopping was False"),
    ],
)
def test_other_parameters_are_refused_and_named(penguins, tmp_path, parameters, message):
    again = interrupt(tmp_path, 20, {"X": penguins})
    with pytest.raises(CheckpointError, match=message):
        again.set_params(**parameters).fit(penguins, resume_from=tmp_path)
    # A refusal leaves what is there.
    assert read_checkpoint(tmp_path)["training"]["step"] == 19


def scaled(X):
    return X.assign(bill_depth_mm=2 * X["bill_depth_mm"])


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        (lambda X: X.iloc[:-1], {}),
        (lambda X: X.iloc[::-1], {}),
        (scaled, {}),
        (lambda X: X.rename(columns={"year": "when"}), {}),
        (lambda X: X, {"condition": "species"}),
        (lambda X: X, {"sample_weight": np.r_[2.0, np.ones(343)]}),
    ],
    ids=["fewer rows", "another order", "another unit", "another name", "a condition", "weights"],
)
def test_other_data_are_refused(penguins, tmp_path, change, extra):
    again = interrupt(tmp_path, 20, {"X": penguins}, refine=False)
    with pytest.raises(CheckpointError, match="other data"):
        again.fit(change(penguins), **extra, resume_from=tmp_path)


def test_what_does_not_change_the_result_may_differ(penguins, tmp_path):
    interrupt(tmp_path / "a", 20, {"X": penguins})
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = DiffusionGenerator(**QUICK, callbacks=[Callback(), Checkpoint(tmp_path / "c", every=10)])
    assert_same_model(moved.fit(penguins, resume_from=str(tmp_path / "b")), DiffusionGenerator(**QUICK).fit(penguins))


def test_objects_among_the_parameters_are_told_apart_by_what_they_are():
    from tabdiff.diffusion import LogitNormal, Loss

    def text(**parameters):
        return describe_parameters(DiffusionGenerator(**parameters).get_params())

    def times(mean):
        return text(training=TrainingOptions(times=LogitNormal(mean)))

    assert times(0.5) == times(0.5) != times(0.6)
    assert text(training=TrainingOptions(betas=(0.9, 0.9))) != text(training=TrainingOptions())
    assert text(training=TrainingOptions(clip_grad_norm=None)) != text(training=TrainingOptions())
    assert text(loss=Loss("snr")) != text(loss=Loss("elbo"))
    assert text(verbose=0, random_state=0) == text(verbose=1, random_state=None)
    # An address would differ in the next process.
    assert "0x" not in json.dumps(text(denoiser=lambda n, m, c: None, training=TrainingOptions(times=LogitNormal())))


def test_the_fingerprint_sees_shapes_and_missing_parts():
    import torch

    class Codec:
        def state(self):
            return {"a": np.arange(3.0)}

    rows = torch.arange(6.0)
    prints = {
        fingerprint(Codec(), rows, None),
        fingerprint(Codec(), rows.reshape(2, 3), None),
        fingerprint(Codec(), None, rows),
        fingerprint(Codec(), rows + 1, None),
    }
    assert len(prints) == 4
    assert fingerprint(Codec(), rows, None) == fingerprint(Codec(), rows.clone(), None)


def test_going_on_needs_a_checkpoint_or_a_fit_that_writes_there(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 2))
    gen = DiffusionGenerator(**{**QUICK, "max_steps": 2}, refine=False)
    for path in (tmp_path / "typo", tmp_path / "checkpoint-0000002.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"resume_from must hold a checkpoint; got .*leave resume_from out"):
            gen.fit(X, resume_from=path)
    with pytest.raises(TypeError, match="resume_from must be the path"):
        gen.fit(X, resume_from=True)
    # As the message says.
    gen.set_params(callbacks=[Checkpoint(tmp_path / "typo")]).fit(X, resume_from=tmp_path / "typo")
    gen.set_params(callbacks=None).fit(X, resume_from=tmp_path / "typo")


# ------------------------------------------------------------------ a series


def steps_in(folder):
    return [int(path.stem.split("-")[1]) for path in checkpoint_files(folder)]


@pytest.mark.parametrize(("keep", "kept"), [(1, [60]), (3, [40, 50, 60]), (None, [10, 20, 30, 40, 50, 60])])
def test_the_last_checkpoints_are_kept_and_each_is_whole(tmp_path, keep, kept):
    X = np.random.default_rng(0).normal(size=(60, 2))
    whole = DiffusionGenerator(**QUICK, refine=False).fit(X)
    series = Checkpoint(tmp_path, every=10, unit="steps", keep=keep)
    DiffusionGenerator(**QUICK, refine=False, callbacks=[series]).fit(X)
    assert steps_in(tmp_path) == kept
    assert [read_checkpoint(path)["training"]["step"] for path in checkpoint_files(tmp_path)] == kept
    for path in checkpoint_files(tmp_path)[-3:-1]:
        assert_same_model(DiffusionGenerator(**QUICK, refine=False).fit(X, resume_from=path), whole)


def test_going_on_from_an_earlier_one_leaves_the_later_ones_behind(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    series = Checkpoint(tmp_path, every=15, unit="steps", keep=3)
    gen = DiffusionGenerator(**QUICK, refine=False, callbacks=[series]).fit(X)
    first = checkpoint_files(tmp_path)[0]
    assert steps_in(tmp_path) == [30, 45, 60]

    class Look(Callback):
        def on_step_end(self, training):
            if training.step == 46:
                assert steps_in(tmp_path) == [30, 45]

    again = DiffusionGenerator(**QUICK, refine=False, callbacks=[series, Look()]).fit(X, resume_from=first)
    assert_same_model(again, gen)
    # A new fit replaces them all with its first.
    (tmp_path / "notes.txt").write_text("mine")
    DiffusionGenerator(**{**QUICK, "max_steps": 16}, refine=False, callbacks=[series]).fit(X)
    assert steps_in(tmp_path) == [15, 16] and (tmp_path / "notes.txt").read_text() == "mine"


def test_epochs_are_of_the_rows_that_training_has(tmp_path):
    """60 rows in batches of 25: the steps 3, 5, 8, ... complete an epoch. Each row is encoded eight times over."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    settings = {**QUICK, "batch_size": 25, "max_steps": 13, "refine": False}
    seen = []
    watch = PeriodicSamples(lambda step, rows: seen.append(step), every=1, unit="epochs", n_samples=2)
    kept = Checkpoint(tmp_path, every=2, unit="epochs", keep=None)
    DiffusionGenerator(**settings, callbacks=[watch, kept]).fit(X)
    assert seen == [3, 5, 8, 10, 12]
    assert steps_in(tmp_path) == [5, 10, 13]  # and the end
    with pytest.raises(ValueError, match="unit must be 'steps' or 'epochs'; got 'seconds'"):
        PeriodicSamples("folder", unit="seconds")


def test_a_damaged_one_names_another_that_works(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    series = Checkpoint(tmp_path, every=20, unit="steps", keep=2)
    gen = DiffusionGenerator(**QUICK, refine=False, callbacks=[series]).fit(X)
    last = checkpoint_files(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"damaged .*go on from another: resume_from='(.*)'\.") as refused:
        gen.fit(X, resume_from=tmp_path)
    other = str(refused.value).split("resume_from=")[1].strip("'.")
    assert_same_model(DiffusionGenerator(**QUICK, refine=False).fit(X, resume_from=other), gen)


def test_a_checkpoint_of_an_earlier_version_is_not_passed_over(penguins, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"anything")
    gen = DiffusionGenerator(**QUICK, callbacks=[Checkpoint(tmp_path)])
    with pytest.raises(CheckpointError, match="start over without resume_from"):
        gen.fit(penguins, resume_from=tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"folder": 3},
        {"every": -1},
        {"every": float("nan")},
        {"every": "often"},
        {"every": 0, "unit": "steps"},
        {"every": 1.5, "unit": "epochs"},
        {"unit": "minutes"},
        {"keep": 0},
        {"keep": 2.0},
    ],
)
def test_bad_settings_of_checkpoints_are_named(settings, tmp_path):
    name = "every" if "every" in settings else next(iter(settings))
    with pytest.raises(ValueError, match=f"{name} must be .*; got "):
        Checkpoint(**{"folder": tmp_path, **settings})


# ------------------------------------------------------------ damage and disks


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
        (lambda path: path.write_bytes(b"\x80\x04pickle"), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: rewrite(path, format_version="99"), "format version 99"),
        (lambda path: rewrite(path, format="another"), "no checkpoint of tabdiff"),
        (lambda path: rewrite(path, description="{}"), "damaged"),
        (lambda path: rewrite(path, description='{"fit": {"$array": "absent"}, "training": {}}'), "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(penguins, tmp_path, damage, message):
    again = interrupt(tmp_path, 3, {"X": penguins})
    damage(checkpoint_files(tmp_path)[0])
    with pytest.raises(CheckpointError, match=message):
        again.fit(penguins, resume_from=tmp_path)


def rewrite(path, **changes):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    save_file(load_file(path), path, metadata={**header, **changes})


def test_a_checkpoint_takes_its_place_only_when_it_is_whole_on_the_disk(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, {"fit": {}, "training": {"step": 1}})
    flush, seen = os.fsync, []

    def look(handle):
        seen.append(read_without_cleaning(tmp_path)["step"])
        flush(handle)

    monkeypatch.setattr(os, "fsync", look)
    write_checkpoint(tmp_path, {"fit": {}, "training": {"step": 2}})
    # The file is flushed before it is renamed, and then the folder.
    assert seen == [1, 2]


def read_without_cleaning(folder):
    from safetensors import safe_open

    with safe_open(checkpoint_files(folder)[-1], framework="numpy") as file:
        return json.loads(file.metadata()["description"])["training"]


class FillDisk(Callback):
    """Lets no file grow beyond a few bytes from a step on: the write fails as it does on a full disk."""

    def __init__(self, step):
        self.step = step
        self.resource = pytest.importorskip("resource")
        self.limits = self.resource.getrlimit(self.resource.RLIMIT_FSIZE)

    def on_step_end(self, training):
        if training.step == self.step:
            self.resource.setrlimit(self.resource.RLIMIT_FSIZE, (1000, self.limits[1]))

    def on_fit_end(self, training):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, self.limits)


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_the_last_checkpoint(penguins, tmp_path):
    kept = Checkpoint(tmp_path, every=0)
    with pytest.raises(OSError, match=r"checkpoint of step 30 could not be written.*The last one is whole.*Make room"):
        DiffusionGenerator(**QUICK, callbacks=[FillDisk(30), kept]).fit(penguins)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000029.safetensors"]
    assert read_checkpoint(tmp_path)["training"]["step"] == 29
    again = DiffusionGenerator(**QUICK, callbacks=[kept]).fit(penguins, resume_from=tmp_path)
    assert_same_model(again, DiffusionGenerator(**QUICK).fit(penguins))


def test_a_folder_that_turns_read_only_is_an_error_and_leaves_the_last_checkpoint(penguins, tmp_path, monkeypatch):
    rename, steps = os.replace, []

    def refuse(source, target):
        steps.append(target)
        if len(steps) == 5:
            raise OSError(30, "Read-only file system", target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"step 5 could not be written.*Read-only file system"):
        DiffusionGenerator(**QUICK, callbacks=[Checkpoint(tmp_path, every=0)]).fit(penguins)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000004.safetensors"]
    assert read_checkpoint(tmp_path)["training"]["step"] == 4


def test_a_folder_that_cannot_be_written_to_is_known_before_the_work_is_done(penguins, tmp_path):
    (tmp_path / "file").write_text("")
    begun = []

    class Begun(Callback):
        def on_fit_begin(self, training):
            begun.append(training)

    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"Checkpoint\('.*file.*'\) cannot be written to"):
            DiffusionGenerator(**QUICK, callbacks=[Begun(), Checkpoint(folder)]).fit(penguins)
    assert begun == []


# --------------------------------------------------------------------- kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.slow
def test_fits_that_are_killed_end_bit_by_bit_like_one_that_is_not():
    command = [sys.executable, str(KILL), "--case", "table", "--kills", "3"]
    environment = {**os.environ, "PYTHONPATH": str(KILL.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] == 3 and result["fits"] == result["equal"] >= 2
