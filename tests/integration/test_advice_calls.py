"""Advice in the messages of calls, followed to the letter: what the message says is then done, and works."""

import warnings
from functools import cached_property

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from tabdiff import (
    MLP,
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
    DiT,
    TrainingOptions,
    evaluate,
    sample_pipeline,
)
from tabdiff.diffusion import ZeroTerminalSNRSchedule, make_schedule
from tabdiff.training import Checkpoint, CSVLog

N = 40
RNG = np.random.default_rng(0)
V = RNG.normal(size=N)
COLOURS = ["red", "blue"] * (N // 2)
ARRAY = RNG.normal(size=(N, 3))
FRAME = pd.DataFrame({"c": COLOURS, "v": V})
TWO = pd.DataFrame({"c": COLOURS, "d": ["x", "y", "y", "x"] * (N // 4), "v": V})
HOLES = FRAME.mask(RNG.random(FRAME.shape) < 0.2)
IMAGES = RNG.integers(0, 256, (8, 8, 8)).astype(np.uint8)


def small(**settings):
    """Return a generator that fits in an instant."""
    settings = {"max_steps": 1, "hidden_size": 8, "n_blocks": 1, "refine": False, "random_state": 0, **settings}
    return DiffusionGenerator(**settings)


def brief(**settings):
    """The same for cells, whose autoencoder takes the longest."""
    return small(max_time=0.1, **settings)


def cells(n=12, genes=5, **obs):
    counts = np.random.default_rng(1).poisson(3.0, (n, genes)).astype(np.float32)
    return AnnData(counts, obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]))


class Models:
    """Fitted once, where they are asked for."""

    free = cached_property(lambda self: small().fit(FRAME))
    one = cached_property(lambda self: small().fit(FRAME, condition="c"))
    two = cached_property(lambda self: small().fit(TWO, condition=["c", "d"]))
    array = cached_property(lambda self: small().fit(ARRAY))
    unmasked = cached_property(lambda self: small(training=TrainingOptions(observed_masks=0)).fit(FRAME))
    cells = cached_property(lambda self: brief().fit(cells(t=["a", "b"] * 6), condition="t"))
    plain_cells = cached_property(lambda self: brief().fit(cells()))
    images = cached_property(lambda self: small(denoiser="dit").fit(IMAGES))


models = Models()
SHORT = {"steps": 1, "random_state": 0}


def draw(model, n=None, condition=None, **settings):
    return model.sample(n, condition, **{**SHORT, **settings})


class Own(torch.nn.Module):
    """A network of a user's own."""

    def __init__(self, width, n_outputs, condition_size):
        super().__init__()
        self.layer = torch.nn.Linear(width, n_outputs)

    def forward(self, x, t, condition=None):
        return self.layer(x)


NO_SIGNAL = ZeroTerminalSNRSchedule(make_schedule("linear", 10))
SHUFFLED = pd.Series(COLOURS, name="c").sample(frac=1, random_state=0)

# What is wrong, a part of the message, and what the message says to do instead.
CALLS = {
    # ------------------------------------------------------------ conditions
    "an unknown level": (
        lambda: draw(models.one, 2, "rde"),
        "Did you mean 'red'",
        lambda: draw(models.one, 2, "red"),
    ),
    "an unknown name": (
        lambda: draw(models.one, 2, {"cc": "red"}),
        "Did you mean 'c'",
        lambda: draw(models.one, 2, {"c": "red"}),
    ),
    "a level for a name": (
        lambda: draw(models.one, None, {"red": 3}),
        "It is a value of 'c': use {'c': {'red': 3}}",
        lambda: draw(models.one, None, {"c": {"red": 3}}),
    ),
    "which of two conditions": (
        lambda: draw(models.two, 2, "red"),
        "condition={'c': 'red'}",
        lambda: draw(models.two, 2, {"c": "red"}),
    ),
    "rows and n_samples": (
        lambda: draw(models.one, 3, ["red", "red"]),
        "Leave n_samples out",
        lambda: draw(models.one, None, ["red", "red"]),
    ),
    "rows and n_samples, one value": (
        lambda: draw(models.one, 3, ["red", "red"]),
        "give one value for all rows",
        lambda: draw(models.one, 3, "red"),
    ),
    "held rows and n_samples": (
        lambda: draw(models.free, 3, {"c": ["red", "red"]}),
        "Leave n_samples out",
        lambda: draw(models.free, None, {"c": ["red", "red"]}),
    ),
    "no condition at fit": (
        lambda: draw(models.array, 2, "red"),
        "Fit it with fit(X, condition=...)",
        lambda: draw(small().fit(ARRAY, condition=COLOURS), 2, "red"),
    ),
    "columns without the condition": (
        lambda: draw(models.one, 2, {"v": 0.0}),
        "Give them too",
        lambda: draw(models.one, 2, {"v": 0.0, "c": "red"}),
    ),
    "columns without the condition, not declared": (
        lambda: draw(models.one, 2, {"v": 0.0}),
        "fit without declaring them",
        lambda: draw(models.free, 2, {"v": 0.0}),
    ),
    "a held column without a value": (
        lambda: draw(models.free, None, {"c": [None, None], "v": [0.0, 0.1]}),
        "leave it out to have it drawn",
        lambda: draw(models.free, None, {"v": [0.0, 0.1]}),
    ),
    "a column that is none": (
        lambda: draw(models.free, 2, {"cc": "red"}),
        "Did you mean 'c'",
        lambda: draw(models.free, 2, {"c": "red"}),
    ),
    "too large numbers": (
        lambda: small().fit(FRAME[["v"]], V * 1e200),
        "Divide them",
        lambda: small().fit(FRAME[["v"]], V * 1e200 / 1e110),
    ),
    "a complex condition": (
        lambda: small().fit(FRAME[["v"]], V * 1j),
        "numpy.real(...) and numpy.imag(...)",
        lambda: small().fit(FRAME[["v"]], {"re": np.real(V * 1j + 1), "im": np.imag(V * 1j)}),
    ),
    "labels in another order": (
        lambda: small().fit(FRAME[["v"]], SHUFFLED),
        "Use y.loc[X.index]",
        lambda: small().fit(FRAME[["v"]], SHUFFLED.loc[FRAME.index]),
    ),
    "y and condition": (
        lambda: small().fit(FRAME[["v"]], COLOURS, condition=COLOURS),
        "pass one of them",
        lambda: small().fit(FRAME[["v"]], condition=COLOURS),
    ),
    "a name for an array": (
        lambda: small().fit(ARRAY, condition="c"),
        "Pass an array with a value per row instead",
        lambda: small().fit(ARRAY, condition=np.array(COLOURS)),
    ),
    "a misspelt name": (
        lambda: small().fit(FRAME, condition="cc"),
        "Did you mean 'c'",
        lambda: small().fit(FRAME, condition="c"),
    ),
    "an obs that lacks the name": (
        lambda: brief().fit(cells(t=["a", "b"] * 6), condition="tt"),
        "Did you mean 't'",
        lambda: models.cells,
    ),
    "a name for sequences": (
        lambda: small().fit(["AC", "GT"] * 5, condition="c"),
        "Pass a value per sequence",
        lambda: small().fit(["AC", "GT"] * 5, condition=["a", "b"] * 5),
    ),
    "columns of the same name": (
        lambda: small().fit(pd.DataFrame(ARRAY, columns=["a", "a", "b"])),
        "Rename them",
        lambda: small().fit(pd.DataFrame(ARRAY, columns=["a", "a2", "b"])),
    ),
    "names of columns that no file holds": (
        lambda: small().fit(pd.DataFrame(ARRAY, columns=[len, min, max])),
        "X.columns = X.columns.map(str)",
        lambda: small().fit(pd.DataFrame(ARRAY, columns=pd.Index([len, min, max]).map(str))),
    ),
    "infinity in an array": (
        lambda: small().fit(np.where(ARRAY > 1, np.inf, ARRAY)),
        "by NaN, which is modelled as missing",
        lambda: small().fit(np.where(ARRAY > 1, np.nan, ARRAY)),
    ),
    # ---------------------------------------------------------- parameters
    "autoguidance without numbers": (
        lambda: small(autoguidance=2.0).fit(pd.DataFrame({"c": COLOURS, "d": COLOURS[::-1]})),
        "Use autoguidance='auto' or 1",
        lambda: small(autoguidance="auto").fit(pd.DataFrame({"c": COLOURS, "d": COLOURS[::-1]})),
    ),
    "a class for a callback": (
        lambda: small(callbacks=[CSVLog]).fit(ARRAY),
        "make an object of it",
        lambda: small(callbacks=[CSVLog("/dev/null")]).fit(ARRAY),
    ),
    "constraints of an array": (
        lambda: small(constraints=["a <= b"]).fit(ARRAY),
        "X must be a DataFrame",
        lambda: small(constraints=["a <= b"]).fit(pd.DataFrame({"a": V, "b": V + 1})),
    ),
    "attention in the MLP": (
        lambda: small(denoiser=MLP(conditioning="cross_attention")).fit(FRAME, condition="c"),
        "use denoiser=DiT(conditioning=",
        lambda: small(denoiser=DiT(conditioning="cross_attention")).fit(FRAME, condition="c"),
    ),
    "a U-Net of a table": (
        lambda: small(denoiser="unet").fit(RNG.normal(size=(8, 64))),
        "X.reshape(len(X), height, width)",
        lambda: small(denoiser="unet").fit(IMAGES.reshape(8, 64).reshape(8, 8, 8)),
    ),
    "resume where nothing is": (
        lambda tmp: small().fit(ARRAY, resume_from=tmp),
        "to start one that writes there",
        lambda tmp: small(callbacks=[Checkpoint(tmp)]).fit(ARRAY, resume_from=tmp),
    ),
    "a warm start on other data": (
        lambda: small(warm_start=True).fit(ARRAY).fit(ARRAY[:, :2]),
        "Fit with warm_start=False",
        lambda: small(warm_start=True).fit(ARRAY).set_params(warm_start=False).fit(ARRAY[:, :2]),
    ),
    "another fit's checkpoint": (
        lambda tmp: [small(callbacks=[Checkpoint(tmp)], random_state=i).fit(ARRAY, resume_from=tmp) for i in range(2)],
        "start over without resume_from",
        lambda tmp: small(callbacks=[Checkpoint(tmp)], random_state=1).fit(ARRAY),
    ),
    "negative weights": (
        lambda: small().fit(ARRAY, sample_weight=-np.ones(N)),
        "the weight 0 to leave it out",
        lambda: small().fit(ARRAY, sample_weight=np.arange(N)),
    ),
    "a target without signal": (
        lambda: small(schedule=NO_SIGNAL, target="eps").fit(ARRAY),
        "use target 'v', 'x0', 'flow' or 'edm'",
        lambda: [small(schedule=NO_SIGNAL, target=t).fit(ARRAY) for t in ("v", "x0", "flow", "edm")],
    ),
    "v where noise explodes": (
        lambda: small(schedule="ve", target="v").fit(ARRAY),
        "use target 'edm', 'eps', 'flow' or 'x0'",
        lambda: [small(schedule="ve", target=t).fit(ARRAY) for t in ("edm", "eps", "flow", "x0")],
    ),
    # ------------------------------------------------------------ saving
    "a callable denoiser": (
        lambda tmp: small(denoiser=Own).fit(ARRAY).save(tmp / "m"),
        "use joblib.dump",
        lambda tmp: joblib.load(joblib.dump(small(denoiser=Own).fit(ARRAY), tmp / "m")[0]).sample(2, steps=1),
    ),
    "a folder with something else": (
        lambda tmp: [(tmp / "x").write_text(""), models.array.save(tmp)],
        "Choose another path",
        lambda tmp: models.array.save(tmp / "model"),
    ),
    # ------------------------------------------------------------ imputing, restoring
    "a mean of several": (
        lambda: models.free.impute(HOLES, n_draws=2, strategy="mean", steps=1),
        "Use strategy='draw'",
        lambda: models.free.impute(HOLES, n_draws=2, strategy="draw", steps=1),
    ),
    "a model without masks": (
        lambda: models.unmasked.impute(HOLES),
        "observed_masks above 0",
        lambda: small(training=TrainingOptions(observed_masks=0.5)).fit(FRAME).impute(HOLES, steps=1),
    ),
    "holes of images": (
        lambda: models.images.impute(IMAGES[:2]),
        "mask= for images: a boolean array",
        lambda: models.images.impute(IMAGES[:2], mask=np.eye(8, dtype=bool), steps=1),
    ),
    "a mask of numbers": (
        lambda: models.images.impute(IMAGES[:2], mask=np.eye(8), steps=1),
        "must be boolean",
        lambda: models.images.impute(IMAGES[:2], mask=np.eye(8).astype(bool), steps=1),
    ),
    "the mean of images": (
        lambda: models.images.impute(IMAGES[:2], mask=np.eye(8, dtype=bool), strategy="mean"),
        "Average over n_draws",
        lambda: np.mean(models.images.impute(IMAGES[:2], mask=np.eye(8, dtype=bool), n_draws=2, steps=1), axis=0),
    ),
    "a mask of a table": (
        lambda: models.free.impute(HOLES, mask=HOLES.isna()),
        "what is missing in a table is known without one",
        lambda: models.free.impute(HOLES, steps=1),
    ),
    "NaN beside another mark": (
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5)), missing_values=-1).fit_transform(
            np.where(ARRAY > 1, np.nan, ARRAY)
        ),
        "Use missing_values=np.nan",
        lambda: DiffusionImputer(
            small(training=TrainingOptions(observed_masks=0.5)), missing_values=np.nan
        ).fit_transform(np.where(ARRAY > 1, np.nan, ARRAY)),
    ),
    "an imputer of an unmasked generator": (
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0))).fit(ARRAY),
        "must have observed_masks above 0",
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5))).fit(ARRAY),
    ),
    # ------------------------------------------------------------ other estimators
    "cells in an over-sampler": (
        lambda: DiffusionOverSampler(small()).fit(cells(), ["a", "b"] * 6),
        "Pass adata.to_df()",
        lambda: DiffusionOverSampler(small()).fit(cells().to_df(), ["a", "b"] * 6),
    ),
    "images in a detector": (
        lambda: DiffusionOutlierDetector(small()).fit(IMAGES),
        "X.reshape(len(X), -1)",
        lambda: DiffusionOutlierDetector(small()).fit(IMAGES.reshape(len(IMAGES), -1)),
    ),
    "a continuous target": (
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY, V),
        "pandas.qcut(y, 4, duplicates='drop')",
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY[5:], pd.qcut(V[5:], 4, duplicates="drop")),
    ),
    "classes of two types": (
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY, ["a", 1] * (N // 2)),
        "Use pandas.Series(y).astype(str)",
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY, pd.Series(["a", 1] * (N // 2)).astype(str)),
    ),
    "a ratio of three classes": (
        lambda: DiffusionOverSampler(small(), sampling_strategy=0.5).fit_resample(ARRAY, [0, 1, 2, 2] * (N // 4)),
        "Use a dict from labels to numbers of rows",
        lambda: DiffusionOverSampler(small(), sampling_strategy={0: 12}).fit_resample(ARRAY, [0, 1, 2, 2] * (N // 4)),
    ),
    "a ratio that is there": (
        lambda: DiffusionOverSampler(small(), sampling_strategy=0.1).fit_resample(ARRAY, [0, 1, 1, 1] * (N // 4)),
        "Use a ratio above it",
        lambda: DiffusionOverSampler(small(), sampling_strategy=0.5).fit_resample(ARRAY, [0, 1, 1, 1] * (N // 4)),
    ),
    "a misspelt class": (
        lambda: DiffusionOverSampler(small(), sampling_strategy={"rde": 30}).fit_resample(ARRAY, COLOURS),
        "Did you mean 'red'",
        lambda: DiffusionOverSampler(small(), sampling_strategy={"red": 30}).fit_resample(ARRAY, COLOURS),
    ),
    "a missing class": (
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY, [None, *COLOURS[1:]]),
        "Drop these rows",
        lambda: DiffusionOverSampler(small()).fit_resample(ARRAY[1:], COLOURS[1:]),
    ),
    # ------------------------------------------------------------ pipelines
    "a step without a way back": (
        lambda: sample_pipeline(make_pipeline(Normalizer(), small()).fit(ARRAY), 2, **SHORT),
        "use pipe[-1].sample()",
        lambda: make_pipeline(Normalizer(), small()).fit(ARRAY)[-1].sample(2, steps=1),
    ),
    "a function without its inverse": (
        lambda: sample_pipeline(make_pipeline(FunctionTransformer(np.log1p), small()).fit(abs(ARRAY)), 2, **SHORT),
        "FunctionTransformer(numpy.log1p, numpy.expm1)",
        lambda: sample_pipeline(
            make_pipeline(FunctionTransformer(np.log1p, np.expm1), small()).fit(abs(ARRAY)), 2, **SHORT
        ),
    ),
    "columns of two kinds": (
        lambda: sample_pipeline(
            make_pipeline(ColumnTransformer([("v", StandardScaler(), ["v"])]), small()).fit(FRAME), 2, **SHORT
        ),
        "DiffusionGenerator takes mixed tables as they are",
        lambda: sample_pipeline(make_pipeline(small()).fit(FRAME), 2, **SHORT),
    ),
    "no pipeline": (
        lambda: sample_pipeline(models.array, 2),
        "A generator has its own sample",
        lambda: models.array.sample(2, steps=1),
    ),
    # ------------------------------------------------------------ cells
    "a layer that is not there": (
        lambda: brief(layer="raw").fit(cells()),
        "assign adata.raw",
        lambda: brief(layer="raw").fit(with_raw(cells())),
    ),
    "no X": (
        lambda: small().fit(AnnData(obs=pd.DataFrame(index=list("abcd")), var=pd.DataFrame(index=list("xyz")))),
        "name the layer that holds the counts with layer=",
        lambda: brief(layer="reads").fit(
            AnnData(
                obs=pd.DataFrame(index=list("abcd")),
                var=pd.DataFrame(index=list("xyz")),
                layers={"reads": np.ones((4, 3))},
            )
        ),
    ),
    "infinite expression": (
        lambda: brief().fit(spoiled(cells(), np.nan)),
        "fill the value in",
        lambda: brief().fit(spoiled(cells(), 1.0)),
    ),
    "annotations of genes that no file holds": (
        lambda: brief().fit(annotated(cells())),
        "adata.var['what'] = adata.var['what'].astype(str)",
        lambda: brief().fit(annotated(cells(), as_text=True)),
    ),
    "names that repeat": (
        lambda: draw(models.cells, obs=pd.DataFrame({"t": ["a", "b"]}, index=["x", "x"])),
        "use obs.reset_index(drop=True)",
        lambda: draw(models.cells, obs=pd.DataFrame({"t": ["a", "b"]}, index=["x", "x"]).reset_index(drop=True)),
    ),
    "rows of obs and n_samples": (
        lambda: draw(models.cells, 3, obs=pd.DataFrame({"t": ["a", "b"]})),
        "Leave n_samples out",
        lambda: draw(models.cells, obs=pd.DataFrame({"t": ["a", "b"]})),
    ),
    "obs and condition": (
        lambda: draw(models.cells, condition="a", obs=pd.DataFrame({"t": ["a", "b"]})),
        "pass one",
        lambda: draw(models.cells, 2, "a"),
    ),
    "where cells lie without their condition": (
        lambda: models.cells.latent(cells()),
        "pass condition=",
        lambda: models.cells.latent(cells(), condition="a"),
    ),
    "cells written from a table": (
        lambda tmp: models.free.sample_to(tmp / "x.h5ad", 2),
        "'.csv'",
        lambda tmp: models.free.sample_to(tmp / "x.csv", 2, steps=1),
    ),
    "an ending that is none": (
        lambda tmp: models.plain_cells.sample_to(tmp / "x.csv", 2, steps=1),
        ".h5ad",
        lambda tmp: models.plain_cells.sample_to(tmp / "x.h5ad", 2, steps=1),
    ),
    # ------------------------------------------------------------ scores and reports
    "the flow of categories": (
        lambda: models.free.score_samples(FRAME, method="flow"),
        "use method='bound'",
        lambda: models.free.score_samples(FRAME, method="bound"),
    ),
    "the flow of images": (
        lambda: models.images.score_samples(IMAGES[:2], method="flow"),
        "use method='bound'",
        lambda: models.images.score_samples(IMAGES[:1], method="bound"),
    ),
    "scores of cells": (
        lambda: models.plain_cells.score_samples(cells()),
        "fit on a DataFrame or array to score rows",
        lambda: small().fit(cells().to_df()).score_samples(cells().to_df()),
    ),
    "a target without a holdout": (
        lambda: evaluate(FRAME, FRAME, target="c"),
        "needs holdout=",
        lambda: evaluate(FRAME, FRAME, holdout=FRAME, target="c"),
    ),
    "columns that differ": (
        lambda: evaluate(FRAME, FRAME[["v"]]),
        "Pass the same columns in each frame",
        lambda: evaluate(FRAME[["v"]], FRAME[["v"]]),
    ),
    "a report on arrays": (
        lambda: evaluate(FRAME, [1, 2]),
        "pandas.DataFrame(array)",
        lambda: evaluate(pd.DataFrame(ARRAY), pd.DataFrame(ARRAY[::-1])),
    ),
    "a report on one name twice": (
        lambda: evaluate(pd.DataFrame(ARRAY, columns=["a", "a", "b"]), pd.DataFrame(ARRAY, columns=["a", "a", "b"])),
        "Rename them",
        lambda: evaluate(pd.DataFrame(ARRAY, columns=["a", "b", "c"]), pd.DataFrame(ARRAY, columns=["a", "b", "c"])),
    ),
    "a report on infinities": (
        lambda: evaluate(pd.DataFrame({"x": np.where(V > 1, np.inf, V)}), pd.DataFrame({"x": V})),
        "by missing",
        lambda: evaluate(pd.DataFrame({"x": np.where(V > 1, np.nan, V)}), pd.DataFrame({"x": V})),
    ),
    "a report on two dtypes": (
        lambda: evaluate(pd.DataFrame({"x": V}), pd.DataFrame({"x": COLOURS})),
        "Give it one dtype in all frames",
        lambda: evaluate(pd.DataFrame({"x": V}), pd.DataFrame({"x": V[::-1]})),
    ),
    "a condition of a table": (
        lambda: evaluate(FRAME, FRAME, condition="c"),
        "of a table all columns are compared",
        lambda: evaluate(FRAME, FRAME),
    ),
    # ------------------------------------------------------------ others
    "a device that is not there": (
        lambda: small(device="cuda").fit(ARRAY),
        "use device='auto' or 'cpu'",
        lambda: [small(device=d).fit(ARRAY) for d in ("auto", "cpu")],
    ),
    "a sequence that is cut": (
        lambda: small().fit(["A" * 5000, "C" * 5000]),
        "cut them",
        lambda: small().fit(["A" * 50, "C" * 50]),
    ),
}


def with_raw(adata):
    adata.raw = adata.copy()
    return adata


def spoiled(adata, value):
    adata.X[0, 0] = value
    return adata


def annotated(adata, as_text=False):
    adata.var["what"] = [len] * adata.n_vars
    if as_text:
        adata.var["what"] = adata.var["what"].astype(str)
    return adata


def call(what, folder):
    return what(folder) if what.__code__.co_argcount else what()


@pytest.mark.parametrize("name", CALLS)
def test_what_a_message_says_to_do_works(name, tmp_path):
    wrong, advice, follow = CALLS[name]
    if name == "a device that is not there" and torch.cuda.is_available():
        pytest.skip("there is one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((TypeError, ValueError, OSError)) as caught:
            call(wrong, tmp_path)
        assert advice in str(caught.value)
        call(follow, tmp_path)
