"""Advice in warnings, and in messages about samplers, networks, images, reports and files, followed to the letter."""

import inspect
import re
import sys
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from tabdiff import DiffusionGenerator, DiffusionImputer, ImageCodec, LatentImageCodec, TrainingOptions, evaluate
from tabdiff.diffusion import (
    GaussianDenoiser,
    LossAware,
    MultiConditionGuidance,
    PosteriorGuidance,
    make_schedule,
    sample,
    time_grid,
)
from tabdiff.diffusion import ZeroTerminalSNRSchedule as NoSignal
from tabdiff.diffusion.targets import to_x0
from tabdiff.evaluation import downstream_score, independent_columns, nearest_neighbour_ratio
from tabdiff.nn import UNet
from tabdiff.training import Checkpoint, CSVLog, TensorBoard

N = 40
RNG = np.random.default_rng(0)
ARRAY = RNG.normal(size=(N, 3))
COLOURS = ["red", "blue"] * (N // 2)
FRAME = pd.DataFrame({"c": COLOURS, "v": ARRAY[:, 0]})
IMAGES = RNG.integers(0, 256, (8, 8, 8)).astype(np.uint8)
BOTH = np.concatenate([IMAGES, IMAGES[..., ::-1]])
TEN = make_schedule("linear", 10)
COSINE = make_schedule("cosine", None)


def small(**settings):
    """Return a generator that fits in an instant."""
    settings = {"max_steps": 1, "hidden_size": 8, "n_blocks": 1, "refine": False, "random_state": 0, **settings}
    return DiffusionGenerator(**settings)


def gaussian(schedule):
    return GaussianDenoiser(torch.zeros(2), torch.eye(2), schedule)


def cells(n=12, genes=5, **obs):
    counts = np.random.default_rng(1).poisson(3.0, (n, genes)).astype(np.float32)
    return AnnData(counts, obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]))


def logged(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    return adata


def without(adata, layer):
    del adata.layers[layer]
    return adata


@cache
def cell_report():
    """Compare AnnData with AnnData, the genes of one as those of the other, and counts with counts."""
    return evaluate(cells(), logged(cells()[:, ::-1].copy())[:, cells().var_names])


def encoder(texts):
    return np.array([[len(text), text.count("e"), 1.0] for text in texts])


def draw(denoiser, **settings):
    return sample(denoiser, torch.ones(3, 2, dtype=torch.float64), **settings)


def text_model():
    return small(text_encoder=encoder).fit(ARRAY, condition={"t": [f"row {i % 9}" for i in range(N)]})


def saved(tmp):
    gen = small().fit(ARRAY)
    gen.save(tmp / "model")
    return gen


def damaged(tmp):
    gen = saved(tmp)
    path = tmp / "model" / "config.json"
    path.write_text(path.read_text().replace('"n_samples_fit": 40', '"n_samples_fit": 41'))
    return gen


def linked(tmp):
    saved(tmp)
    config = tmp / "model" / "config.json"
    config.rename(tmp / "elsewhere.json")
    config.symlink_to(tmp / "elsewhere.json")
    return config


def copied(tmp):
    text = linked(tmp).read_text()
    (tmp / "model" / "config.json").unlink()
    (tmp / "model" / "config.json").write_text(text)
    return DiffusionGenerator.load(tmp / "model")


def blocked(tmp):
    (tmp / "file").write_text("")
    return tmp / "file" / "folder"


def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    small(callbacks=[TensorBoard("runs")]).fit(ARRAY)


# What is wrong, a part of the message, and what the message says to do instead.
CALLS = {
    # ------------------------------------------------------------ samplers
    "more steps than times": (
        lambda: draw(gaussian(TEN), steps=11),
        "use at most that many steps",
        lambda: draw(gaussian(TEN), steps=10),
    ),
    "a grid of an infinite log-SNR": (
        lambda: time_grid(NoSignal(TEN), 5, "karras"),
        "use 'uniform', 'quadratic' or 'trailing'",
        lambda: [draw(gaussian(NoSignal(TEN)), steps=5, grid=g) for g in ("uniform", "quadratic", "trailing")],
    ),
    "a prediction that says nothing": (
        lambda: to_x0(torch.ones(2), torch.ones(2), 0.0, 1.0, "eps"),
        "use the target 'v', 'x0', 'flow' or 'edm'",
        lambda: [to_x0(torch.ones(2), torch.ones(2), 0.0, 1.0, t) for t in ("v", "x0", "flow", "edm")],
    ),
    "posterior guidance without signal": (
        lambda: PosteriorGuidance(gaussian(NoSignal(TEN)), torch.eye(2), torch.zeros(3, 2), 0.1),
        "choose one with a finite log-SNR",
        lambda: draw(PosteriorGuidance(gaussian(COSINE), torch.eye(2), torch.zeros(3, 2), 0.1), steps=2),
    ),
    "exact measurements": (
        lambda: PosteriorGuidance(gaussian(COSINE), torch.eye(2), torch.zeros(3, 2), 0.0),
        "give a small one for exact measurements",
        lambda: draw(PosteriorGuidance(gaussian(COSINE), torch.eye(2), torch.zeros(3, 2), 1e-3), steps=2),
    ),
    "scales and attributes": (
        lambda: draw(MultiConditionGuidance(gaussian(COSINE), [1.0]), condition=torch.zeros(3, 2), steps=1),
        "give one scale per attribute",
        lambda: (
            small()
            .fit(ARRAY, {"a": COLOURS, "b": COLOURS[::-1]})
            .sample(2, steps=1, guidance_scale=2.0, guidance=lambda d, s: MultiConditionGuidance(d, [s, s]))
        ),
    ),
    "steps of a schedule object": (
        lambda: small(schedule=TEN, n_timesteps=20).fit(ARRAY),
        "leave n_timesteps out when you pass an object",
        lambda: small(schedule=TEN).fit(ARRAY),
    ),
    "bins of times": (
        lambda: small(training=TrainingOptions(times=LossAware(7)), n_timesteps=10).fit(ARRAY),
        "choose n_bins so that it divides n_timesteps",
        lambda: small(training=TrainingOptions(times=LossAware(5)), n_timesteps=10).fit(ARRAY),
    ),
    "a rate that explodes": (
        lambda: small(learning_rate=1e30, max_steps=30, training=TrainingOptions(clip_grad_norm=None)).fit(ARRAY),
        "lower learning_rate",
        lambda: small(learning_rate=1e-3, max_steps=30, training=TrainingOptions(clip_grad_norm=None)).fit(ARRAY),
    ),
    # ------------------------------------------------------------ networks and images
    "too many levels": (
        lambda: UNet((1, 4, 4), base=8, multipliers=(1, 1, 1, 1)),
        "use fewer multipliers",
        lambda: UNet((1, 4, 4), base=8, multipliers=(1, 1)),
    ),
    "an image beside an MLP": (
        lambda: small(denoiser="dit").fit(IMAGES, condition={"image": IMAGES}),
        "image.reshape(n, -1)",
        lambda: small(denoiser="dit").fit(IMAGES, condition={"image": IMAGES.reshape(8, -1)}),
    ),
    "an image beside pixels that move": (
        lambda: small(denoiser="unet", codec=ImageCodec(augment="flip")).fit(IMAGES, condition={"image": IMAGES}),
        "augment both before fit",
        lambda: small(denoiser="unet").fit(
            np.concatenate([IMAGES, IMAGES[..., ::-1]]),
            condition={"image": np.concatenate([IMAGES, IMAGES[..., ::-1]])},
        ),
    ),
    "two images as conditions": (
        lambda: small(denoiser="unet").fit(IMAGES, condition={"a": IMAGES, "b": IMAGES}),
        "put several into one, as its channels",
        lambda: small(denoiser="unet").fit(IMAGES, condition={"ab": np.stack([IMAGES, IMAGES], axis=-1)}),
    ),
    "images too small for latents": (
        lambda: small(codec=LatentImageCodec(), denoiser="unet").fit(RNG.integers(0, 256, (8, 9, 9)).astype(np.uint8)),
        "leave codec out",
        lambda: small(denoiser="unet").fit(RNG.integers(0, 256, (8, 9, 9)).astype(np.uint8)),
    ),
    "a name for images": (
        lambda: small(denoiser="dit").fit(IMAGES, condition="c"),
        "Pass an array with a value per image instead",
        lambda: small(denoiser="dit").fit(IMAGES, condition=np.arange(8) % 2),
    ),
    # ------------------------------------------------------------ text
    "an encoder of classes": (
        lambda: small(text_encoder=encoder).fit(ARRAY, pd.Series(COLOURS, name="t", dtype="category")),
        "Name the condition, text_encoder={name: encoder}",
        lambda: small(text_encoder={"t": encoder}).fit(ARRAY, pd.Series(COLOURS, name="t")),
    ),
    "a text without its encoder": (
        lambda tmp: [text_model().save(tmp / "m"), DiffusionGenerator.load(tmp / "m").sample(2, "another", steps=1)],
        "DiffusionGenerator.load(path, text_encoder=...)",
        lambda tmp: DiffusionGenerator.load(tmp / "m", text_encoder=encoder).sample(2, "another", steps=1),
    ),
    # ------------------------------------------------------------ cells
    "labels of cells in another order": (
        lambda: small().fit(cells(), pd.Series(["a", "b"] * 6, [f"c{i}" for i in range(12)]).iloc[::-1]),
        "X.obs_names for AnnData",
        lambda: small(max_time=0.1).fit(
            cells(), pd.Series(["a", "b"] * 6, [f"c{i}" for i in range(12)]).iloc[::-1].loc[cells().obs_names]
        ),
    ),
    "counts that are none any more": (
        lambda: small(max_time=0.1).fit(cells()).latent(without(logged(cells()), "counts")),
        'give raw counts in X or layers["counts"]',
        lambda: small(max_time=0.1).fit(cells()).latent(logged(cells())),
    ),
    "cells and a table": (
        lambda: evaluate(cells(), FRAME),
        "give AnnData",
        cell_report,
    ),
    "genes in another order": (
        lambda: evaluate(cells(), cells()[:, ::-1]),
        "give synthetic[:, real.var_names]",
        cell_report,
    ),
    "counts and logarithms": (
        lambda: evaluate(cells(), without(logged(cells()), "counts")),
        "compare values of one kind",
        cell_report,
    ),
    # ------------------------------------------------------------ reports
    "one row without a neighbour": (
        lambda: nearest_neighbour_ratio(FRAME[:1], FRAME[:3]),
        "Pass holdout=, or more rows",
        lambda: [nearest_neighbour_ratio(FRAME[:n], FRAME[:3], h) for n, h in ((1, FRAME[3:]), (9, None))],
    ),
    "fewer than no rows": (
        lambda: independent_columns(FRAME, -1),
        "give the number of rows to draw",
        lambda: independent_columns(FRAME, 5),
    ),
    "a metric of numbers": (
        lambda: downstream_score(FRAME, FRAME, target="c", metric="r2"),
        "use one of ('auto', 'auc')",
        lambda: [downstream_score(FRAME, FRAME, target="c", metric=m) for m in ("auto", "auc")],
    ),
    # ------------------------------------------------------------ imputing
    "an empty column of times": (
        lambda: empty_filled(keep_empty_features=True),
        "Drop them or give them values",
        lambda: empty_filled(keep_empty_features=True, drop=["t"]),
    ),
    # ------------------------------------------------------------ files
    "a model changed by hand": (
        lambda tmp: [damaged(tmp), DiffusionGenerator.load(tmp / "model")],
        "Save the model again",
        lambda tmp: [saved(tmp), DiffusionGenerator.load(tmp / "model")],
    ),
    "a model of links": (
        lambda tmp: [linked(tmp), DiffusionGenerator.load(tmp / "model")],
        "Copy it there",
        copied,
    ),
    "a folder that cannot be": (
        lambda tmp: small(callbacks=[Checkpoint(blocked(tmp))]).fit(ARRAY),
        "Choose another one",
        lambda tmp: small(callbacks=[Checkpoint(tmp / "other")]).fit(ARRAY),
    ),
}


def empty_filled(drop=(), **settings):
    frame = FRAME.assign(t=pd.Series([pd.NaT] * N, dtype="datetime64[ns]")).drop(columns=list(drop))
    frame.loc[0, "v"] = np.nan
    return DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5)), **settings).fit_transform(frame)


def call(what, folder):
    return what(folder) if inspect.signature(what).parameters else what()


@pytest.mark.parametrize("name", CALLS)
def test_what_a_message_says_to_do_works(name, tmp_path):
    wrong, advice, follow = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((TypeError, ValueError, OSError, ArithmeticError)) as caught:
            call(wrong, tmp_path)
        assert advice in str(caught.value)
        call(follow, tmp_path)


def test_without_tensorboard_the_figures_go_to_a_csv_file_as_the_message_says(monkeypatch, tmp_path):
    with pytest.raises(ImportError, match=r"pip install tensorboard; CSVLog writes the same figures"):
        no_tensorboard(monkeypatch)
    small(callbacks=[CSVLog(tmp_path / "log.csv")]).fit(ARRAY)
    assert "loss" in (tmp_path / "log.csv").read_text()


HOLES = FRAME.assign(v=FRAME["v"].where(np.arange(N) > 3), c=FRAME["c"].where(np.arange(N) < 36))
EMPTY = pd.DataFrame({"a": ARRAY[:, 0], "b": np.nan, "v": ARRAY[:, 1]}).mask(np.eye(N, 3, k=-2, dtype=bool))
# What warns, a part of the warning, and what it says to do to be without it.
WARNINGS = {
    "an identifier": (
        lambda: small().fit(pd.DataFrame({"id": [f"no {i}" for i in range(60)], "v": np.arange(60.0)})),
        "Drop what is not wanted",
        lambda: small().fit(pd.DataFrame({"v": np.arange(60.0)})),
    ),
    "holes of a condition": (
        lambda: small().fit(HOLES, condition="c").impute(HOLES, steps=1),
        "Fit without condition= to fill them too",
        lambda: small().fit(HOLES).impute(HOLES, steps=1),
    ),
    "an empty column": (
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5))).fit(EMPTY),
        "pass keep_empty_features=True",
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5)), keep_empty_features=True).fit(
            EMPTY
        ),
    ),
    "an empty column, dropped": (
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5))).fit(EMPTY),
        "Drop them",
        lambda: DiffusionImputer(small(training=TrainingOptions(observed_masks=0.5))).fit(EMPTY.drop(columns="b")),
    ),
    "expression that is no counts": (
        lambda: small(max_time=0.1).fit(without(logged(cells()), "counts")),
        "put them in adata.layers['counts']",
        lambda: small(max_time=0.1).fit(logged(cells())),
    ),
    "expression as it is": (
        lambda: small(max_time=0.1).fit(without(logged(cells()), "counts")),
        "layer='X' takes X as it is",
        lambda: small(max_time=0.1, layer="X").fit(without(logged(cells()), "counts")),
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_a_warning_says_to_do_ends_it(name):
    wrong, advice, follow = WARNINGS[name]
    with pytest.warns(UserWarning, match=re.escape(advice)):
        wrong()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        follow()
