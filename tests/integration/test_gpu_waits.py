"""A GPU waits for nothing in a step of training or of sampling: no value is read from it, and none is copied to it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import training_cases as cases
from fake_cuda import DEVICE, FakeCuda, FakeGenerator, to_fake

from tabdiff import MLP, DiffusionGenerator, ImageCodec, TrainingOptions, UNet
from tabdiff.codecs.inputs import read_fit_inputs
from tabdiff.diffusion import (
    METHODS,
    AutoGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    CosineSchedule,
    LossAware,
    MultiConditionGuidance,
    ZeroTerminalSNRSchedule,
    make_times,
)
from tabdiff.diffusion.losses import LOSSES, make_loss
from tabdiff.diffusion.samplers.base import Model
from tabdiff.diffusion.samplers.grids import make_path
from tabdiff.diffusion.samplers.sample import auto_grid, make_sampler
from tabdiff.diffusion.targets import TARGETS
from tabdiff.diffusion.time_sampling import TIMES
from tabdiff.model.distillation import Walks
from tabdiff.model.fit import _batches, _training_settings
from tabdiff.model.training_data import begin
from tabdiff.training import EMA
from tabdiff.training.batches import RowStream
from tabdiff.training.step import TrainingStep
from tabdiff.utils.random import RowStreams

# Of torch, about the tensors of its own fake device.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
CPU = torch.device("cpu")


def parameters(**given):
    small = {"batch_size": 16, "random_state": 0, "hidden_size": 16, "n_blocks": 1}
    return DiffusionGenerator(device="cpu", **{**small, **given})


def started(X, y=None, condition=None, **given):
    """A fit before its first step, and its batches and settings."""
    gen = parameters(**given)
    options = SimpleNamespace(**gen.get_params(deep=False))
    start = begin(read_fit_inputs(gen, X, y, condition), None, options, previous=None, resume_from=None, device=CPU)
    return start, _batches(start, options, CPU), _training_settings(start, options, CPU)


def training_waits(X, y=None, condition=None, **given):
    """What makes the GPU wait in a step of training, but for the backward pass, which torch cannot fake."""
    start, batches, settings = started(X, y, condition, **given)
    options = settings["options"]
    with FakeCuda() as device:
        denoiser = to_fake(start.denoiser).train()
        batches = replace(
            batches, **{name: to_fake(getattr(batches, name)) for name in ("data", "condition", "weight")}
        )
        if batches.vary is not None:
            batches.vary.values = to_fake(batches.vary.values)
        generator = FakeGenerator()
        for module in denoiser.modules():
            if hasattr(module, "generator"):
                module.generator = generator
        times = LossAware(4, 2) if options.times == "loss_aware" else options.get_params()["times"]
        moving = [p.requires_grad_() for p in denoiser.parameters()]
        step = TrainingStep(
            denoiser,
            batches,
            RowStream(len(batches), generator, batches.weight),
            make_times(times),
            options.make_optimizer(moving, 1e-3),
            EMA(denoiser, 0.999),
            scaler=torch.amp.GradScaler("cuda", enabled=False),
            generator=generator,
            options=TrainingOptions(compile=False),
        )
        for _ in range(2):
            device.waits.clear()  # what the first step sets up is there for all others
            step.set(1e-3)
            step._take(0)
            loss = step.batch_loss(step.chosen[0])
            assert loss.device == DEVICE and loss.dim() == 0
            for parameter in moving:
                parameter.grad = torch.empty_like(parameter)
            step.apply()
    return device.waits


def sampling_waits(X, y=None, condition=None, guide=lambda d, other: d, method="dpmpp_2m", **given):
    """What makes the GPU wait in the steps of a sampler, after the first, and in a step that finds its time there."""
    start, batches, _ = started(X, y, condition, **given)
    with FakeCuda() as device, torch.no_grad():
        denoiser = guide(*(to_fake(start.denoiser).eval() for _ in range(2)))
        noise = torch.empty((8, start.spec.width), device=DEVICE)
        asked = None if batches.condition is None else torch.empty((8, batches.condition.shape[1]), device=DEVICE)
        streams = RowStreams(torch.arange(8)).to(DEVICE)
        sampler = make_sampler(method)
        path = make_path(denoiser.schedule, 4, auto_grid(denoiser.schedule, sampler))
        for i, (_, rows, _) in enumerate(sampler(Model(denoiser, asked, streams), noise, path)):
            assert rows.device == DEVICE
            if i == 0:
                device.waits.clear()
        waits = list(device.waits)
        estimate = denoiser.x0_and_eps if hasattr(denoiser, "x0_and_eps") else denoiser
        for _ in range(2):
            device.waits.clear()
            estimate(noise, torch.empty((), dtype=torch.float64, device=DEVICE), asked)
        if start.denoiser.has_levels:
            to_fake(start.denoiser).eval().finish(noise, asked, streams)
    return waits + device.waits


def distillation_waits(X, condition=None):
    """What makes the GPU wait in a step of distillation after the first, but for the backward pass."""
    start, batches, _ = started(X, None, condition)
    schedule = start.denoiser.schedule
    with FakeCuda() as device:
        student = to_fake(start.denoiser)
        asked = None if batches.condition is None else torch.empty((20, batches.condition.shape[1]), device=DEVICE)
        rows = torch.empty((4, 20, start.spec.width), device=DEVICE)
        walks = Walks(make_path(schedule, 3, denoise_last=False), rows, asked)
        for _ in range(2):
            device.waits.clear()
            assert walks.loss(student, FakeGenerator(), 8).device == DEVICE
    return device.waits


TABLE, UNET = cases.table(), {"denoiser": "unet", "hidden_size": "auto", "n_blocks": "auto"}
FITS = {
    "table": (TABLE, {}),
    "table with masks": (TABLE, {"training": TrainingOptions(observed_masks=0.5)}),
    "table without masks": (TABLE, {"training": TrainingOptions(observed_masks=0.0)}),
    "table by a transformer": (TABLE, {"denoiser": "dit"}),
    "table with constraints": (TABLE, {"constraints": ["total = a + b"]}),
    "table with a class and a dose": (TABLE, {"condition": cases.conditions()}),
    "table with vectors": (TABLE, {"condition": cases.conditions(vectors=True), "denoiser": "dit"}),
    "table by a column": (TABLE, {"condition": "letter", "training": TrainingOptions(observed_masks=0.5)}),
    "table in discrete time": (TABLE, {"n_timesteps": 50, "denoiser": MLP(time_embedding="table")}),
    "array": (cases.array(), {}),
    "array with classes": (cases.array(), {"y": cases.labels()}),
    "array with each dropped by itself": (
        cases.array(),
        {"condition": cases.conditions(), "condition_dropout": {"kind": 0.3, "dose": 0.3}},
    ),
    "cells": (cases.cells(), {"condition": ["type", "dose"], "max_time": 1.0}),
    "sequences": (cases.sequences(), {}),
    "sequences by a transformer": (cases.sequences(), {"denoiser": "dit", "y": cases.labels()}),
    "images": (cases.images(), {**UNET, "codec": ImageCodec(augment=("flip", "crop"))}),
    "images with classes": (cases.images(), {**UNET, "y": cases.labels()}),
    "images with vectors": (cases.images(), {**UNET, "condition": cases.conditions(vectors=True)}),
    "images with cross-attention": (
        cases.images(),
        {**UNET, "condition": cases.conditions(), "denoiser": UNet(conditioning="cross_attention")},
    ),
    "images by a transformer": (cases.images(), {"denoiser": "dit", "y": cases.labels()}),
    "images with a learned variance": (cases.images(), {**UNET, "variance": "learned", "n_timesteps": 20}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_training_step_of_every_kind_of_data_and_network(name):
    X, given = FITS[name]
    assert training_waits(X, **given) == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("X", [cases.array(), cases.images(4)], ids=["mixed", "numbers"])
def test_every_target_and_loss(target, X):
    start, _, _ = started(X, target=target, denoiser="mlp")
    with FakeCuda() as device, torch.no_grad():
        denoiser, rows, t = to_fake(start.denoiser), to_fake(start.training.data[:8]), torch.empty(8, device=DEVICE)
        for loss in LOSSES:
            denoiser.objective = make_loss(loss)
            assert denoiser.loss(rows, t=t, eps=torch.empty((8, start.spec.width), device=DEVICE)).shape == (8,)
    assert device.waits == []


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("n_timesteps", [None, 40])
def test_a_training_step_with_times_of_every_kind(times, n_timesteps):
    assert training_waits(cases.array(), training=TrainingOptions(times=times), n_timesteps=n_timesteps) == []


SCHEDULES = ["cosine", "offset_cosine", "sigmoid", "vp", "sub_vp", "rectified_flow", "ve", "edm"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_on_every_schedule(schedule):
    given = {"schedule": schedule, "target": "edm", "loss": "elbo"}
    assert training_waits(cases.array(), **given) == []
    assert sampling_waits(cases.array(), **given) == []


def test_a_step_with_zero_terminal_snr():
    given = {"schedule": ZeroTerminalSNRSchedule(CosineSchedule()), "loss": "min_snr"}
    assert training_waits(cases.array(), **given) == []
    assert sampling_waits(cases.array(), **given, method="ddim") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_sampling_step_of_every_kind_of_data_and_network(name):
    X, given = FITS[name]
    assert sampling_waits(X, **given) == []


@pytest.mark.parametrize("method", [m for m in METHODS if m != "rk45"])  # whose steps follow from its errors
def test_a_step_of_every_sampler(method):
    assert sampling_waits(TABLE, method=method) == []


GUIDANCE = {
    "classifier-free": lambda d, other: ClassifierFreeGuidance(d, 2.0),
    "in an interval": lambda d, other: ClassifierFreeGuidance(d, 2.0, interval=(0.1, 1.0)),
    "rescaled": lambda d, other: ClassifierFreeGuidance(d, 2.0, rescale=0.7),
    "unconditional": lambda d, other: ClassifierFreeGuidance(d, 0.0),
    "by attribute": lambda d, other: MultiConditionGuidance(d, [1.5, 2.0]),
    "autoguidance": lambda d, other: AutoGuidance(d, other, 2.0),
    "autoguidance of numbers": lambda d, other: AutoGuidance(d, other.numbers, 2.0, n_guided=d.n_continuous),
    "CFG++": lambda d, other: CFGPlusPlus(d, 0.5),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_a_step_under_guidance(name):
    method = "ddim" if name == "CFG++" else "dpmpp_2m"
    given = {"condition": cases.conditions(), "training": TrainingOptions(observed_masks=0.0)}
    assert sampling_waits(TABLE, guide=GUIDANCE[name], method=method, **given) == []


def test_a_step_of_inpainting_moves_its_streams_to_the_gpu_once():
    start, _, _ = started(cases.images(4), denoiser="mlp")
    with FakeCuda() as device, torch.no_grad():
        noise, path = torch.empty((8, 16), device=DEVICE), make_path(start.denoiser.schedule, 4)
        model = Model(to_fake(start.denoiser).eval(), None, RowStreams(torch.arange(8)))
        for i in range(2):
            device.waits.clear()
            *_, (_, rows, _) = make_sampler("ddpm")(model, noise, path[i : i + 2])
            model.renoise(rows, path[i + 1], path[i])
    assert device.waits == []


def test_rows_in_proportion_to_weights_are_taken_without_a_wait():
    with FakeCuda() as device:
        rows = RowStream(10, FakeGenerator(), torch.empty(10, device=DEVICE))
        rows.take(25)
    assert device.waits == []


# ------------------------------------------------------- the fake device itself


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x[[0, 1]],
        lambda x: torch.tensor([1.0, 2.0], device=DEVICE),
        lambda x: torch.tensor(1.0, dtype=torch.float64).to(DEVICE),
        lambda x: x.cpu(),
        lambda x: torch.where(x > 0, torch.tensor(1.0), x),
    ],
)
def test_the_fake_device_notices_copies(waiting):
    with FakeCuda() as device:
        waiting(torch.empty(3, device=DEVICE))
    assert device.waits


@pytest.mark.parametrize("waiting", [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0]])
def test_the_fake_device_notices_values_that_are_read(waiting):
    with FakeCuda(), pytest.raises(AssertionError, match="a value of the GPU is read"):
        waiting(torch.empty(3, device=DEVICE))


def test_the_fake_device_lets_numbers_of_the_host_be():
    with FakeCuda() as device:
        x = torch.empty(3, device=DEVICE)
        x = torch.where(x > 0, x, 0.0) * torch.tensor(2.0) + torch.full((), 1.0, device=DEVICE)
        x[1:] = 3.0
        assert torch.tensor([1.0, 2.0]).sum().item() == 3.0
    assert device.waits == []


@pytest.mark.parametrize("condition", [None, "letter"])
def test_a_step_of_distillation(condition):
    assert distillation_waits(TABLE, condition) == []
