import copy
import math
import pickle
import sys
import types

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from sklearn.base import clone

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.evaluation import ClassifierFeatures, frechet_distance
from tabdiff.training import Callback, Checkpoint, CSVLog, PeriodicSamples, StopOnScore, TensorBoard

QUICK = {"max_steps": 120, "hidden_size": 16, "n_blocks": 1, "batch_size": 32, "random_state": 0}


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


def fit(X, *callbacks, **parameters):
    return DiffusionGenerator(**{**QUICK, **parameters}, callbacks=list(callbacks)).fit(X)


class Diary(Callback):
    def __init__(self):
        self.entries = []

    def on_fit_begin(self, training):
        self.entries.append(("begin", training.step, len(training.history["step"])))

    def on_step_end(self, training):
        self.entries.append(("step", training.step, len(training.history["step"])))

    def on_validation_end(self, training):
        self.entries.append(("validation", training.step, len(training.history["validation_loss"])))

    def on_fit_end(self, training):
        self.entries.append(("end", training.step, training.finished))


def test_callbacks_are_told_what_happens_in_order(penguins):
    diary = Diary()
    fit(penguins, diary, early_stopping=True)
    steps = [entry for entry in diary.entries if entry[0] == "step"]
    assert diary.entries[0] == ("begin", 0, 0) and diary.entries[-1] == ("end", 120, True)
    assert [s[1] for s in steps] == list(range(1, 121))
    # The history has its entry, and the held-out rows their turn, before the step's end is told.
    assert steps[48:51] == [("step", 49, 0), ("step", 50, 1), ("step", 51, 1)] and steps[-1] == ("step", 120, 3)
    assert [entry for entry in diary.entries if entry[0] == "validation"] == [
        ("validation", 50, 1),
        ("validation", 100, 2),
        ("validation", 120, 3),
    ]
    assert diary.entries.index(("validation", 50, 1)) == diary.entries.index(("step", 50, 1)) - 1


def test_without_validation_there_is_no_word_of_it(penguins):
    diary = Diary()
    fit(penguins, diary, max_steps=3)
    assert [entry[0] for entry in diary.entries] == ["begin", "step", "step", "step", "end"]


@pytest.mark.parametrize("step", [7, 50, 57])
def test_returning_true_ends_the_fit(penguins, step):
    class Stop(Callback):
        def on_step_end(self, training):
            return training.step == step

    diary = Diary()
    gen = fit(penguins, Stop(), diary)
    assert gen.n_steps_ == step == gen.history_["step"][-1]
    # All callbacks hear of the last step, and the rest of the fit takes place.
    assert diary.entries[-2][:2] == ("step", step) and diary.entries[-1] == ("end", step, True)
    assert math.isfinite(gen.history_["loss"][-1]) and len(gen.sample(3)) == 3


def test_a_validation_can_end_the_fit(penguins):
    class Stop(Callback):
        def on_validation_end(self, training):
            return training.step == 100

    assert fit(penguins, Stop(), early_stopping=True).n_steps_ == 100


def test_the_end_is_told_after_an_error_too_and_only_to_those_who_saw_the_beginning(penguins):
    class Fail(Callback):
        def on_fit_begin(self, training):
            raise RuntimeError("no")

    class Interrupt(Callback):
        def on_step_end(self, training):
            if training.step == 120:
                raise KeyboardInterrupt

    first, second = Diary(), Diary()
    with pytest.raises(RuntimeError, match="no"):
        fit(penguins, first, Fail(), second)
    assert [e[0] for e in first.entries] == ["begin", "end"] and second.entries == []
    third = Diary()
    with pytest.raises(KeyboardInterrupt):
        fit(penguins, third, Interrupt())
    assert third.entries[-1] == ("end", 120, False)


@pytest.mark.slow
def test_a_fit_is_the_same_with_callbacks_that_draw(penguins, tmp_path):
    watched = fit(
        penguins, PeriodicSamples(lambda step, rows: None, every=30, n_samples=5), CSVLog(tmp_path / "log.csv")
    )
    plain = DiffusionGenerator(**QUICK).fit(penguins)
    assert watched.history_["loss"] == plain.history_["loss"]
    pd.testing.assert_frame_equal(watched.sample(20), plain.sample(20))


@pytest.mark.slow
def test_a_snapshot_is_a_fitted_generator_of_its_own(penguins, tmp_path):
    kept = []

    class Keep(Callback):
        def on_step_end(self, training):
            if training.step in (10, 120):
                kept.append(training.snapshot())

    gen = DiffusionGenerator(**QUICK, callbacks=[Keep()]).fit(penguins, condition="species")
    early, last = kept
    assert early.n_steps_ == 10 and last.n_steps_ == 120
    assert (early.sample(5, condition="Gentoo")["species"] == "Gentoo").all()
    pd.testing.assert_frame_equal(last.sample(9, random_state=3), gen.sample(9, random_state=3))
    assert not early.sample(9, random_state=3).equals(last.sample(9, random_state=3))
    early.save(tmp_path / "early")
    assert DiffusionGenerator.load(tmp_path / "early").n_steps_ == 10
    assert gen.n_steps_ == 120


def test_at_the_end_a_snapshot_is_the_model_that_is_kept():
    class Keep(Callback):
        def on_fit_end(self, training):
            self.last = training.snapshot()

    X, keep = np.random.default_rng(0).normal(size=(40, 3)), Keep()
    settings = {
        "max_steps": 4000,
        "hidden_size": 128,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.9),
        "n_iter_no_change": 1,
    }
    gen = fit(X, keep, **settings, early_stopping=True)
    assert gen.n_steps_ < 4000
    np.testing.assert_array_equal(keep.last.sample(5, random_state=0), gen.sample(5, random_state=0))


# ----------------------------------------------------------------- CSV log


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_log_is_the_history(penguins, tmp_path, early_stopping):
    path = tmp_path / "log.csv"
    path.write_text("from before\n")
    gen = fit(penguins, CSVLog(path), early_stopping=early_stopping)
    log = pd.read_csv(path, float_precision="round_trip")
    assert log["step"].to_list() == [50, 100, 120]
    expected = {key: values for key, values in gen.history_.items() if key != "validation_step"}
    assert log.to_dict("list") == expected


@pytest.mark.slow
def test_the_log_grows_with_the_fit_and_is_whole_after_a_resume(penguins, tmp_path):
    path, lengths = tmp_path / "log.csv", []

    class Look(Callback):
        def on_step_end(self, training):
            lengths.append(len(path.read_text().splitlines()))
            if training.step == 110 and len(lengths) == 110:
                raise KeyboardInterrupt

    settings = {**QUICK, "callbacks": [CSVLog(path), Look(), Checkpoint(tmp_path, every=0)]}
    with pytest.raises(KeyboardInterrupt):
        DiffusionGenerator(**settings).fit(penguins)
    assert lengths[48:51] == [1, 2, 2]
    gen = DiffusionGenerator(**settings).fit(penguins, resume_from=tmp_path)
    assert pd.read_csv(path, float_precision="round_trip")["loss"].to_list() == gen.history_["loss"]


# ------------------------------------------------------------------ samples


@pytest.mark.slow
def test_samples_go_to_files_of_the_container(penguins, tmp_path):
    settings = {"max_steps": 20, "batch_size": 32}
    fit(penguins, PeriodicSamples(tmp_path / "new" / "frames", every=10, n_samples=4), **settings)
    names = sorted(p.name for p in (tmp_path / "new" / "frames").iterdir())
    assert names == ["step-000010.csv", "step-000020.csv"]
    frame = pd.read_csv(tmp_path / "new" / "frames" / names[0])
    assert list(frame.columns) == list(penguins.columns) and len(frame) == 4
    rng = np.random.default_rng(0)
    fit(rng.normal(size=(40, 3)), PeriodicSamples(tmp_path / "arrays", every=20, n_samples=4), **settings)
    assert pd.read_csv(tmp_path / "arrays" / "step-000020.csv").shape == (4, 3)
    cells = AnnData(rng.normal(size=(40, 5)).astype("float32"))
    fit(cells, PeriodicSamples(tmp_path / "cells", every=20, n_samples=4), **settings)
    assert read_h5ad(tmp_path / "cells" / "step-000020.h5ad").shape == (4, 5)


def test_samples_take_a_condition_and_differ_by_the_weights_alone(penguins):
    seen = []
    watch = PeriodicSamples(lambda step, rows: seen.append(rows), every=60, n_samples=6, condition="Adelie")
    gen = DiffusionGenerator(**QUICK, callbacks=[watch]).fit(penguins, condition="species")
    assert len(seen) == 2 and all((rows["species"] == "Adelie").all() for rows in seen)
    pd.testing.assert_frame_equal(seen[1], gen.sample(6, "Adelie", random_state=0))
    with pytest.raises(ValueError, match="every"):
        PeriodicSamples("samples", every=0)


# -------------------------------------------------------------- TensorBoard


@pytest.fixture
def writers(monkeypatch):
    """Stand in for torch.utils.tensorboard, which may not be installed."""
    made = []

    class SummaryWriter:
        def __init__(self, log_dir):
            self.log_dir, self.scalars, self.closed = log_dir, [], False
            self.handle = open(__file__)  # as the real one, it can be neither copied nor pickled
            made.append(self)

        def add_scalar(self, name, value, step):
            self.scalars.append((name, value, step))

        def close(self):
            self.closed = True
            self.handle.close()

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    yield made
    for writer in made:
        writer.handle.close()


def test_tensorboard_gets_the_history(penguins, writers, tmp_path):
    gen = fit(penguins, TensorBoard(tmp_path), early_stopping=True)
    (writer,) = writers
    assert writer.log_dir == str(tmp_path) and writer.closed
    for key, steps in (("loss", "step"), ("validation_loss", "validation_step"), ("learning_rate", "step")):
        got = [(value, float(step)) for name, value, step in writer.scalars if name == key]
        assert got == list(zip(gen.history_[key], gen.history_[steps], strict=True))


def test_an_open_writer_is_no_obstacle_to_copies(penguins, writers, tmp_path):
    board, copies = TensorBoard(tmp_path), []

    class Copy(Callback):
        def on_step_end(self, training):
            copies.append((copy.deepcopy(board), pickle.loads(pickle.dumps(board)), clone(training.snapshot())))

    fit(penguins, board, Copy(), max_steps=1)
    assert copies[0][0].log_dir == copies[0][1].log_dir == tmp_path


def test_tensorboard_says_what_to_install(penguins, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        fit(penguins, TensorBoard(tmp_path))


# ------------------------------------------------------------ the parameter


class Half:
    def on_fit_begin(self, training):
        """Do nothing, and have no other method."""


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Callback(), "list of callbacks"),
        ([CSVLog], "is a class"),
        ([print], r"lacks \['on_fit_begin'"),
        ([Callback(), Half()], r"lacks \['on_step_end', 'on_validation_end', 'on_fit_end'\]"),
    ],
)
def test_what_is_no_callback_is_refused(penguins, callbacks, message):
    with pytest.raises(ValueError, match=message):
        DiffusionGenerator(**QUICK, callbacks=callbacks).fit(penguins)


def test_any_object_with_the_four_methods_will_do(penguins):
    class Duck:
        on_fit_begin = on_step_end = on_validation_end = on_fit_end = lambda self, training: None

    assert fit(penguins, Duck(), max_steps=2).n_steps_ == 2


def test_a_model_is_saved_without_what_watched_its_fit(penguins, tmp_path):
    log = CSVLog(tmp_path / "log.csv")
    kept = Checkpoint(tmp_path / "checkpoints")
    gen = fit(penguins, log, kept, max_steps=3, early_stopping=True, n_iter_no_change=3)
    assert gen.callbacks == [log, kept]
    assert isinstance(clone(gen).callbacks[0], CSVLog)
    gen.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    assert loaded.callbacks is None
    assert loaded.early_stopping is True and loaded.n_iter_no_change == 3 and loaded.history_ == gen.history_


def test_a_fit_stops_on_a_score_and_keeps_the_best_weights():
    X = np.random.default_rng(0).normal(size=(60, 2))
    seen = []

    def score(rows):
        seen.append(rows)
        return [3.0, 1.0, 1.0, 2.0, 0.0][len(seen) - 1]

    stop = StopOnScore(score, every=10, patience=2, n_samples=6, random_state=4)
    gen = fit(X, stop, refine=False)
    assert stop.scores_ == [(10, 3.0), (20, 1.0), (30, 1.0), (40, 2.0)] and gen.n_steps_ == 40
    assert not np.array_equal(seen[1], seen[3])
    assert np.array_equal(gen.sample(6, random_state=4), seen[1])


@pytest.mark.parametrize("name", ["every", "patience"])
def test_counts_of_a_score_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        StopOnScore(len, **{name: 0})


@pytest.mark.slow
def test_a_frechet_distance_can_end_a_fit_of_images():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (rng.random((60, 8, 8)) * 0.3 + 0.7 * labels[:, None, None]).clip(0, 1)
    features = ClassifierFeatures(images, labels)
    known = features(images)
    stop = StopOnScore(lambda drawn: frechet_distance(known, features(drawn)), every=5, n_samples=10, condition=1)
    DiffusionGenerator(denoiser="unet", max_steps=10, hidden_size=8, callbacks=[stop], random_state=0).fit(
        images, labels
    )
    assert [step for step, _ in stop.scores_] == [5, 10] and all(value >= 0 for _, value in stop.scores_)
